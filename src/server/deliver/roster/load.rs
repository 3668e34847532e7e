//! Rosters from their store.

use jid::BareJid;

use crate::address;
use crate::connection::SharedConnection;
use crate::rules::roster::{Roster, Stray};
use crate::server::Core;
use crate::store::StoreError;

impl<C: SharedConnection> Core<C> {
    /// The roster of an account, from its store.
    pub(crate) async fn load_roster(&self, account: &BareJid) -> Result<Roster, StoreError> {
        let mut stored = self.stores.rosters.load(account).await?;
        self.metrics.unread(stored.unread);
        // A host's store may write addresses in another form than this crate does.
        let (items, others): (Vec<_>, _) =
            stored.items.into_iter().partition(|item| address::is_normal(&item.jid));
        let requests = stored.requests.into_iter().filter(address::is_normal);
        stored.strays.extend(others.into_iter().map(Stray::from));
        let mut roster = Roster::from_items(items, stored.version, requests);
        for stray in &stored.strays {
            if stray.can_be_shown() {
                roster.add_stray(stray);
            } else {
                self.metrics.unread(1);
            }
        }
        Ok(roster)
    }

    /// What the roster of an account says of one contact, and how many requests it holds: what
    /// others cause to be read does not grow with the roster.
    pub(crate) async fn load_contact(
        &self,
        account: &BareJid,
        contact: &BareJid,
    ) -> Result<(Roster, usize), StoreError> {
        let stored = self.stores.rosters.contact(account, contact).await?;
        let request = stored.request.then(|| contact.clone());
        Ok((Roster::from_items(stored.item, stored.version, request), stored.requests))
    }
}
