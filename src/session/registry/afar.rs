//! Accounts of ours that live at other nodes: what their homes are to be told, and what these tell (NODE-15, 17).
//!
//! Without the feature `cluster` every account of ours is here, and nothing of this is there.

#[cfg(feature = "cluster")]
use std::sync::Arc;

#[cfg(feature = "cluster")]
use super::SessionRegistry;
use super::inner::Inner;
use super::presence::Notification;
use crate::connection::SharedConnection;
use crate::session::handle::Shared;
#[cfg(feature = "cluster")]
use crate::session::outbound::Item;
use crate::session::outbound::Validity;
use crate::stanza::Stanza;

/// Presence for accounts of ours that live elsewhere.
#[cfg(feature = "cluster")]
pub(crate) enum Afar<'a> {
    /// What a session broadcasts, for these contacts, by their bare JIDs; `to` is still to be set.
    Broadcast { stanza: &'a Stanza, to: Vec<Arc<str>>, validity: Validity<'a> },
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
pub(super) struct Away(#[cfg(feature = "cluster")] Vec<Arc<str>>);

#[cfg(feature = "cluster")]
impl<C: SharedConnection> Inner<C> {
    /// Whether an account that does not live here lives at another node.
    pub(super) fn is_afar(&self, bare: &str) -> bool {
        self.settings.lives_here.is_some() && self.is_ours(bare)
    }

    /// One more for whom something is to be sent to where they live; `false`: that is another domain.
    pub(super) fn is_away(&self, bare: &str, away: &mut Away) -> bool {
        let is_afar = self.is_afar(bare);
        if is_afar {
            away.0.push(bare.into());
        }
        is_afar
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
        if !away.0.is_empty() && !validity.is_void() {
            self.afar(Afar::Broadcast { stanza, to: away.0, validity });
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
        if !away.0.is_empty() {
            self.afar(Afar::Probes { asker: asker.jid.as_str(), to: away.0 });
        }
    }

    pub(super) fn gone(&self, session: &Shared<C>) {
        self.afar(Afar::Gone { account: session.account.bare.as_str() });
    }
}

#[cfg(not(feature = "cluster"))]
#[expect(clippy::unused_self, reason = "there are no other nodes")]
impl<C: SharedConnection> Inner<C> {
    pub(super) fn is_afar(&self, _: &str) -> bool {
        false
    }

    pub(super) fn is_away(&self, _: &str, _: &mut Away) -> bool {
        false
    }

    pub(super) fn notify_afar(&self, _: Away, _: &Notification<'_>) {}

    pub(super) fn direct_afar(&self, _: &str, _: impl FnOnce() -> Stanza, _: Validity<'_>) -> bool {
        false
    }

    pub(super) fn probe_afar(&self, _: &Shared<C>, _: Away) {}

    pub(super) fn gone(&self, _: &Shared<C>) {}
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
        !self.inner().sessions_that(self.key(account), Shared::is_available).is_empty()
    }

    /// One session is answered what it has asked.
    pub(crate) fn answered(&self, account: &str, resource: &str, stanza: &Stanza) -> bool {
        let inner = self.inner();
        let session = inner.find(self.key(account), resource);
        session.is_some_and(|session| inner.give(&session, &of_afar(stanza)))
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
