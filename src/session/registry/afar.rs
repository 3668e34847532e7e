//! Accounts of ours that live at other nodes: what their homes are to be told, and what these tell (NODE-15, 17).
//!
//! Without the feature `cluster` every account of ours is here, and nothing of this is there.

use std::sync::Arc;

#[cfg(feature = "cluster")]
use super::SessionRegistry;
#[cfg(feature = "cluster")]
use super::groups::Which;
use super::inner::Inner;
use super::presence::Notification;
#[cfg(feature = "cluster")]
use super::rows::Row;
#[cfg(feature = "cluster")]
use super::table::AccountKey;
#[cfg(feature = "cluster")]
use crate::address::{bare_of, parts};
use crate::connection::SharedConnection;
#[cfg(feature = "cluster")]
use crate::session::SessionHandle;
use crate::session::account::Account;
#[cfg(feature = "cluster")]
use crate::session::handle::ENDED;
use crate::session::handle::Shared;
#[cfg(feature = "cluster")]
use crate::session::outbound::Item;
use crate::session::outbound::Validity;
use crate::stanza::Stanza;

/// Presence for accounts of ours that live elsewhere.
#[cfg(feature = "cluster")]
pub(crate) enum Afar<'a> {
    /// What a session broadcasts, for these contacts, by their bare JIDs, but not for these resources of them; `to` is
    /// still to be set.
    Broadcast { stanza: &'a Stanza, to: Vec<Arc<str>>, except: Vec<String>, validity: Validity<'a> },
    /// For one JID, to which it is addressed.
    Directed { stanza: Stanza, validity: Validity<'a> },
    /// This session, a full JID, wants to know who of these is there.
    Probes { asker: &'a str, to: Vec<Arc<str>> },
    /// A session of this account, a bare JID, is not available any more.
    Gone { account: &'a str },
}

#[cfg(feature = "cluster")]
pub(super) type OnAfar = Box<dyn Fn(Afar<'_>) + Send + Sync>;

/// Contacts of a broadcast that live at other nodes.
#[derive(Default)]
pub(super) struct Away {
    #[cfg(feature = "cluster")]
    whole: Vec<Arc<str>>,
    /// Those some of whose sessions are left out (BLOCK-6).
    #[cfg(feature = "cluster")]
    partly: Vec<(Arc<str>, Vec<String>)>,
}

#[cfg(feature = "cluster")]
impl<C: SharedConnection> Inner<C> {
    /// Whether an account that does not live here lives at another node.
    pub(super) fn is_afar(&self, bare: &str) -> bool {
        self.settings.lives_here.is_some() && self.is_ours(bare)
    }

    /// One more for whom something is to be sent to where they live, but for those sessions that `hiding` hides from;
    /// `false`: that is another domain.
    pub(super) fn is_away(
        &self,
        bare: &str,
        hiding: Option<&Arc<Account>>,
        away: &mut Away,
    ) -> bool {
        let except = hiding.map(|account| self.hidden_resources(account, bare));
        self.is_away_but(bare, except.unwrap_or_default(), away)
    }

    /// The same, but not for these resources of it.
    pub(super) fn is_away_but(&self, bare: &str, except: Vec<String>, away: &mut Away) -> bool {
        let is_afar = self.is_afar(bare);
        match except.is_empty() {
            _ if !is_afar => {}
            true => away.whole.push(bare.into()),
            false => away.partly.push((bare.into(), except)),
        }
        is_afar
    }

    /// Whether an account of ours is to hear by way of its home, though its sessions may still be here: these are on their
    /// way, and what they have may have been written already (NODE-9).
    pub(super) fn is_on_its_way(&self, bare: &str) -> bool {
        self.settings.lives_here.as_ref().is_some_and(|here| !here(bare))
    }

    fn afar(&self, what: Afar<'_>) {
        if let Some(hook) =
            self.settings.afar.as_ref().filter(|_| self.settings.lives_here.is_some())
        {
            hook(what);
        }
    }

    pub(super) fn notify_afar(&self, away: Away, notification: &Notification<'_>) {
        let Notification { stanza, validity, .. } = *notification;
        let partly = away.partly.into_iter().map(|(one, except)| (vec![one], except));
        for (to, except) in [(away.whole, Vec::new())].into_iter().chain(partly) {
            if !to.is_empty() && !validity.is_void() {
                self.afar(Afar::Broadcast { stanza, to, except, validity });
            }
        }
    }

    /// `false`: that is at another domain.
    pub(super) fn direct_afar(
        &self,
        bare: &str,
        stanza: impl FnOnce() -> Stanza,
        validity: Validity<'_>,
    ) -> bool {
        let is_afar = self.is_afar(bare);
        if is_afar {
            self.afar(Afar::Directed { stanza: stanza(), validity });
        }
        is_afar
    }

    pub(super) fn probe_afar(&self, asker: &Shared<C>, away: Away) {
        if !away.whole.is_empty() {
            self.afar(Afar::Probes { asker: asker.jid.as_str(), to: away.whole });
        }
    }

    pub(super) fn gone(&self, session: &Shared<C>) {
        self.afar(Afar::Gone { account: session.account.bare.as_str() });
    }
}

#[cfg(not(feature = "cluster"))]
#[expect(clippy::unused_self, reason = "there are no other nodes")]
impl<C: SharedConnection> Inner<C> {
    pub(super) fn is_on_its_way(&self, _: &str) -> bool {
        false
    }

    pub(super) fn is_afar(&self, _: &str) -> bool {
        false
    }

    pub(super) fn is_away(&self, _: &str, _: Option<&Arc<Account>>, _: &mut Away) -> bool {
        false
    }

    #[cfg(feature = "server")]
    pub(super) fn is_away_but(&self, _: &str, _: Vec<String>, _: &mut Away) -> bool {
        false
    }

    pub(super) fn notify_afar(&self, _: Away, _: &Notification<'_>) {}

    pub(super) fn direct_afar(&self, _: &str, _: impl FnOnce() -> Stanza, _: Validity<'_>) -> bool {
        false
    }

    pub(super) fn probe_afar(&self, _: &Shared<C>, _: Away) {}

    pub(super) fn gone(&self, _: &Shared<C>) {}
}

/// Somebody here has been told that a session is available.
#[cfg(feature = "cluster")]
pub(crate) struct Told {
    /// Bare JID.
    pub(crate) account: Box<str>,
    /// The resource, where only that was told.
    pub(crate) resource: Option<Box<str>>,
    /// Full JID.
    pub(crate) from: Box<str>,
}

#[cfg(feature = "cluster")]
impl<C: SharedConnection> Inner<C> {
    /// The sessions of an account that are available, and those that end: what tells of that may be on its way. Of one that
    /// has become unavailable everybody was told.
    fn known_of(&self, account: AccountKey<'_>) -> Vec<Arc<Shared<C>>> {
        let is_known = |one: &Arc<Shared<C>>| one.is_available() || one.has(ENDED);
        let known = |row: &Row<C>| {
            let sessions = row.slots.as_slice().iter().map(|slot| &slot.session);
            sessions.filter(|one| is_known(one)).cloned().collect()
        };
        self.table.with(account, known).unwrap_or_default()
    }

    fn is_there(&self, account: AccountKey<'_>) -> bool {
        !self.sessions_that(account, Shared::is_available).is_empty()
    }

    /// By the rosters of these accounts.
    fn told_by_broadcast(&self, which: Which<'_>, ours: bool, told: &mut Vec<Told>) {
        let mut accounts: Vec<Arc<Account>> = Vec::new();
        self.each(which, |session, _| {
            if accounts.last().is_none_or(|last| !Arc::ptr_eq(last, &session.account)) {
                accounts.push(Arc::clone(&session.account));
            }
        });
        for account in &accounts {
            let (own, roster) = (self.table.key(account.bare.as_str()), account.roster());
            for contact in roster.iter().filter(|item| !which.has(item.jid())) {
                let subscription = contact.subscription();
                let contact = AccountKey::from(contact);
                let (watcher, of, sees) = match ours {
                    true => (own, contact, subscription.has_to()),
                    false => (contact, own, subscription.has_from()),
                };
                if sees && self.is_there(watcher) {
                    self.known_of(of).iter().for_each(|one| self.told_one(watcher, one, told));
                }
            }
        }
    }

    /// What an account that is there has been told of a session, as far as that does not hide from it.
    fn told_one(&self, watcher: AccountKey<'_>, session: &Shared<C>, told: &mut Vec<Told>) {
        let of = &session.account;
        if self.hides(of, watcher.bare) {
            return;
        }
        let one = |resource: Option<&str>| Told {
            account: watcher.bare.into(),
            resource: resource.map(Box::from),
            from: session.jid.as_str().into(),
        };
        match self.hidden_resources(of, watcher.bare) {
            hidden if hidden.is_empty() => told.push(one(None)),
            hidden => {
                let there = self.sessions_that(watcher, Shared::is_available);
                let there = there.iter().map(|session| session.resource().as_str());
                let told_those = there.filter(|one| !hidden.iter().any(|hidden| hidden == one));
                told.extend(told_those.map(|resource| one(Some(resource))));
            }
        }
    }

    /// What sessions of these accounts have directed to whom it is `meant` for: of those two, the first has been told.
    fn told_directly(
        &self,
        of: Which<'_>,
        meant: impl Fn(&str, &str) -> bool,
        told: &mut Vec<Told>,
    ) {
        let mut directed: Vec<(Box<str>, Arc<Shared<C>>)> = Vec::new();
        self.rows(of, |row| {
            let bare = row.account.bare.as_str();
            for session in row.slots.as_slice().iter().map(|slot| &slot.session) {
                let presence = session.presence.lock();
                let targets = presence.rare().into_iter().flat_map(|rare| rare.directed.iter());
                let meant = targets.filter(|target| meant(bare_of(target), bare));
                directed.extend(meant.map(|target| (target.into(), Arc::clone(session))));
            }
        });
        for (target, session) in directed {
            let (bare, resource) = parts(&target);
            let watcher = self.table.key(bare);
            let is_there = match resource {
                None => self.is_there(watcher),
                Some(resource) => self.find(watcher, resource).is_some(),
            };
            if is_there {
                let (account, from) = (bare.into(), session.jid.as_str().into());
                told.push(Told { account, resource: resource.map(Box::from), from });
            }
        }
    }
}

#[cfg(feature = "cluster")]
impl<C: SharedConnection> SessionRegistry<C> {
    /// The news of a session elsewhere comes to an account here, or to this resource of it: whether somebody was given it.
    pub(crate) fn hear(&self, account: &str, only: Option<&str>, stanza: &Stanza) -> bool {
        let inner = self.inner();
        let is_meant = |session: &Shared<C>| match only {
            Some(only) => session.jid.resource().as_str() == only,
            None => session.is_available(),
        };
        let mut is_heard = false;
        for session in inner.sessions_that(self.key(account), is_meant) {
            // An unavailable ends what the session directs to that one (PRES-11).
            is_heard |= match stanza.type_() {
                None => inner.give(&session, &of_afar(stanza)),
                Some(_) => inner.tell(&session, &of_afar(stanza)),
            };
        }
        is_heard
    }

    /// Whether somebody of the account (a bare JID as normalised text) is available.
    pub(crate) fn is_there(&self, account: &str) -> bool {
        self.inner().is_there(self.key(account))
    }

    /// Who that is, by their resources.
    pub(crate) fn those_there(&self, account: &str) -> Vec<String> {
        let there = self.inner().sessions_that(self.key(account), Shared::is_available);
        there.iter().map(|session| session.resource().to_string()).collect()
    }

    /// What these accounts and the others here have been told of each other, which no ledger says as long as both are
    /// here: whom it was told, is one of these (`ours`), or of the others. But for what others have directed to these:
    /// [`directed_here`](Self::directed_here).
    pub(crate) fn told_here(&self, which: Which<'_>, ours: bool) -> Vec<Told> {
        let mut told = Vec::new();
        self.inner().told_by_broadcast(which, ours, &mut told);
        if !ours {
            self.inner().told_directly(which, |account, _| !which.has(account), &mut told);
        }
        told
    }

    /// What accounts have been told by directed presence of others here, as far as it is `meant`: who was told, and by whom. It
    /// looks at all sessions.
    pub(crate) fn directed_here(&self, meant: impl Fn(&str, &str) -> bool) -> Vec<Told> {
        let mut told = Vec::new();
        self.inner().told_directly(&|_: &str| true, meant, &mut told);
        told
    }

    /// One session is answered what it has asked. What it is told because it has become available comes too late where it
    /// is not any more: nobody would tell it of an end.
    pub(crate) fn answered(
        &self,
        account: &str,
        resource: &str,
        stanza: &Stanza,
        validity: Validity<'_>,
    ) -> bool {
        let inner = self.inner();
        let waits = |of: &SessionHandle<C>| stanza.to().is_some() || of.is_available();
        let session = inner.find(self.key(account), resource).filter(waits);
        session.is_some_and(|session| inner.give(&session, &of_afar(stanza).while_valid(validity)))
    }

    /// What an account here (a bare JID as normalised text) is for somebody elsewhere who sees it: as a contact here would
    /// learn it, stanza by stanza (PRES-13…16).
    pub(crate) fn show_afar(
        &self,
        account: &str,
        viewer: &str,
        own: &str,
        give: impl Fn(&Stanza, Validity<'_>),
    ) {
        let give = |item: &Item<'_>| match item.broadcast_at() {
            Some((stanza, at)) => {
                let from = stanza.from().unwrap_or_default();
                let delayed = stanza.with_appended(&crate::stanza::delay::delay(&from, at));
                give(&delayed, item.validity);
            }
            None => item.stanza().into_iter().for_each(|stanza| give(stanza, item.validity)),
        };
        self.inner().learn_of(viewer, own, self.key(account), give);
    }
}

/// A broadcast bears no `to`.
#[cfg(feature = "cluster")]
fn of_afar(stanza: &Stanza) -> Item<'_> {
    if stanza.to().is_some() { Item::new(stanza) } else { Item::to_account(stanza) }
}
