//! Presence towards JIDs that an account blocks or no longer blocks (BLOCK-7).

use super::SessionRegistry;
use super::inner::Inner;
use super::presence::{Notification, unavailable};
use crate::address::bare_of;
use crate::connection::SharedConnection;
use crate::session::handle::{Rare, SessionHandle};
use crate::session::outbound::Validity;
use crate::stanza::Stanza;

/// Some JIDs of a block list.
pub(crate) trait Pattern {
    /// Whether it covers this JID (normalised text), bare or full.
    fn covers(&self, jid: &str) -> bool;
    /// Whether it covers the sender of a stanza, or of the message in a carbon copy.
    fn covers_source(&self, stanza: &Stanza) -> bool;
    fn full(&self) -> impl Iterator<Item = &str>;
    /// The resources of a bare JID from which the account hid before.
    fn hidden_before(&self, bare: &str) -> Vec<String>;
}

/// The sessions of an account before it hides from somebody: each with whether it was available, and
/// whom of those it had directed presence to.
pub(crate) struct Hiding<C: SharedConnection>(Vec<(SessionHandle<C>, bool, Vec<Box<str>>)>);

fn covered(rare: &Rare, pattern: &impl Pattern) -> Vec<Box<str>> {
    let targets = rare.directed.iter().filter(|target| pattern.covers(target));
    targets.map(Into::into).collect()
}

impl<C: SharedConnection> Inner<C> {
    /// Whether a session gets what its contacts broadcast: one here, while it is available. Of others their homes know.
    fn may_hear(&self, jid: &str) -> bool {
        self.is_afar(bare_of(jid)) || self.hears(jid)
    }

    /// Tells those whom `pattern` covers that a session is gone, past the list of its account.
    fn tell_hidden(
        &self,
        session: &SessionHandle<C>,
        available: bool,
        directed: &[Box<str>],
        pattern: &impl Pattern,
    ) {
        let gone = unavailable(&session.0);
        let notification = Notification::for_good(None, &gone);
        let roster = session.roster();
        let sees = |jid: &str| available && roster.is_subscriber(bare_of(jid));
        if available {
            for contact in roster.subscribers().filter(|entry| pattern.covers(entry.jid())) {
                match pattern.hidden_before(contact.jid()) {
                    before if before.is_empty() => {
                        self.notify_contact(contact.into(), &notification);
                    }
                    before => self.notify_but(contact.into(), before, &notification),
                }
            }
            for jid in pattern.full().filter(|jid| sees(jid) && self.may_hear(jid)) {
                self.direct(None, &gone, jid, Validity::FOR_GOOD);
            }
        }
        let told = |jid: &str| {
            sees(jid) && (pattern.covers(bare_of(jid)) || pattern.full().any(|f| f == jid))
        };
        for target in directed.iter().filter(|target| !told(target)) {
            self.direct(None, &gone, target, Validity::FOR_GOOD);
        }
    }
}

impl<C: SharedConnection> SessionRegistry<C> {
    /// The sessions of an account that is about to hide from whom `pattern` covers. One that goes while
    /// it does so tells nobody of them itself.
    pub(crate) fn prepare_hiding(&self, account: &str, pattern: &impl Pattern) -> Hiding<C> {
        let seen = |session: SessionHandle<C>| {
            let state = session.0.presence.lock();
            let directed = state.rare().map_or_else(Vec::new, |rare| covered(rare, pattern));
            let available = state.last.is_some();
            drop(state);
            (session, available, directed)
        };
        Hiding(self.inner().sessions(self.key(account)).into_iter().map(seen).collect())
    }

    /// Tells everybody whom `pattern` covers and who sees the account, or has directed presence of one of
    /// its sessions, that each session is gone; directed presence to them is forgotten. What waits for a
    /// session from them ends here. The account hides from them already.
    pub(crate) fn hide_from(&self, account: &str, pattern: &impl Pattern, before: Hiding<C>) {
        let inner = self.inner();
        let sessions = inner.sessions(self.key(account));
        if let Some(session) = sessions.first() {
            let there = sessions.iter().any(SessionHandle::is_available);
            let last = there.then(|| inner.settings.environment.utc());
            let last = last.or_else(|| inner.last_gone(account));
            let roster = session.roster();
            let seen = |jid: &&str| roster.is_subscriber(bare_of(jid));
            let subscribers = roster.subscribers().map(|entry| entry.jid());
            subscribers
                .filter(|jid| pattern.covers(jid))
                .chain(pattern.full().filter(seen))
                .for_each(|jid| inner.freeze(account, jid, last));
        }
        let mut told = Vec::new();
        for session in sessions {
            session.0.out.lock().take_out(|stanza| pattern.covers_source(stanza));
            session.0.disinherit(|stanza| pattern.covers_source(stanza));
            let (available, directed) = {
                let mut state = session.0.presence.lock();
                let covered = state.change(|rare| {
                    let covered = covered(rare, pattern);
                    for target in &covered {
                        rare.directed.forget(target);
                    }
                    covered
                });
                (state.last.is_some(), covered)
            };
            if available {
                told.push(session.id());
            }
            inner.tell_hidden(&session, available, &directed, pattern);
        }
        self.take_out_left(account, |stanza| pattern.covers_source(stanza));
        // A session that went meanwhile may have told them just before: once more is better than never.
        for (session, available, directed) in before.0 {
            if !told.contains(&session.id()) && !session.is_available() {
                inner.tell_hidden(&session, available, &directed, pattern);
            }
        }
    }

    /// Tells the subscribers that `pattern` covers the presence of each available session. Whoever
    /// is still hidden from is told nothing.
    pub(crate) fn show_to(&self, account: &str, pattern: &impl Pattern) {
        let inner = self.inner();
        let sessions = inner.sessions(self.key(account));
        if let Some(session) = sessions.first() {
            let roster = session.roster();
            let covered = roster.subscribers().map(|entry| entry.jid());
            covered
                .filter(|jid| pattern.covers(jid))
                .chain(pattern.full())
                .for_each(|jid| inner.thaw(account, jid));
        }
        for session in sessions {
            let Some((stanza, _, validity)) = session.present() else { continue };
            let roster = session.roster();
            let source = &session.0.account;
            let notification = Notification { source: Some(source), stanza: &stanza, validity };
            for contact in roster.subscribers().filter(|entry| pattern.covers(entry.jid())) {
                inner.notify_contact(contact.into(), &notification);
            }
            let seen = |jid: &&str| {
                roster.is_subscriber(bare_of(jid))
                    && !pattern.covers(bare_of(jid))
                    && !inner.hides(source, jid)
                    && inner.may_hear(jid)
            };
            for jid in pattern.full().filter(seen) {
                inner.direct(None, &stanza, jid, validity);
            }
        }
    }
}
