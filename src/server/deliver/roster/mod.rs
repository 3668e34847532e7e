//! Rosters from their store, and requests of clients (RFC 6121 §2).

pub(crate) mod change;
pub(crate) mod transaction;
pub(crate) mod unheard;

use std::sync::Arc;

use jid::BareJid;

use self::transaction::{Asker, Change};
use super::answer::{AnswerOnce, try_again};
use super::handler::HANDLER_TIMEOUT;
use crate::address;
use crate::connection::SharedConnection;
use crate::rules::roster::{Roster, RosterSet, Stray, parse_get, removed_stray, result};
use crate::server::{Core, Task};
use crate::session::SessionHandle;
use crate::stanza::{Child, Stanza};
use crate::store::StoreError;

impl<C: SharedConnection> Core<C> {
    /// A roster get of a session: on the account's chain, so that no change comes between the result and
    /// the first push (ROSTER-2).
    pub(super) fn roster_get(
        self: &Arc<Self>,
        session: &SessionHandle<C>,
        stanza: &Stanza,
        query: &Child<'_>,
    ) -> Option<Task> {
        let version = match parse_get(query) {
            Ok(version) => version.map(String::from),
            Err(error) => return self.refuse(Some(session), stanza, error),
        };
        let (session, stanza) = (session.clone(), stanza.clone());
        let (core, once) = (Arc::clone(self), AnswerOnce::default());
        let done = self.jobs.run(session.account().bare.as_str(), {
            let (core, once) = (Arc::clone(self), once.clone());
            let (session, stanza) = (session.clone(), stanza.clone());
            async move {
                if once.take() {
                    session.set_interested();
                    let payload = result(&session.roster(), version.as_deref());
                    core.result(Some(&session), &stanza, &payload);
                }
            }
        });
        Some(Box::pin(async move {
            if core.timers.within(HANDLER_TIMEOUT, done).await.is_none() && once.take() {
                core.bounce(Some(&session), &stanza, try_again());
            }
        }))
    }

    pub(super) fn roster_set(
        self: &Arc<Self>,
        session: &SessionHandle<C>,
        stanza: &Stanza,
        query: &Child<'_>,
    ) -> Option<Task> {
        let set = RosterSet::parse(query, &self.limits.roster);
        let stray = match &set {
            Ok(set) if !set.is_removal() => None,
            _ => removed_stray(query, &session.roster()),
        };
        let (contact, change) = match (stray, set) {
            (Some(text), _) => (session.account().bare.clone(), Change::Strike(text)),
            (None, Ok(set)) => (set.contact().clone(), Change::Set(set, Asker::Account)),
            (None, Err(error)) => return self.refuse(Some(session), stanza, error),
        };
        let core = Arc::clone(self);
        let (session, stanza) = (session.clone(), stanza.clone());
        Some(Box::pin(async move {
            let account = session.account().bare.clone();
            let once = AnswerOnce::default();
            let answer = {
                let (core, session, stanza) = (Arc::clone(&core), session.clone(), stanza.clone());
                let once = once.clone();
                move || {
                    if once.take() {
                        core.result(Some(&session), &stanza, b"");
                    }
                }
            };
            let origin = Some(session.clone());
            let change = core.change_roster(account, contact, change, origin, answer);
            let error = match core.timers.within(HANDLER_TIMEOUT, change).await {
                Some(Ok(())) => return,
                Some(Err(failed)) => failed.into(),
                None => try_again(),
            };
            if once.take() {
                core.bounce(Some(&session), &stanza, error);
            }
        }))
    }

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
