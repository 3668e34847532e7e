//! Presence towards JIDs that an account blocks or no longer blocks (BLOCK-7).

use super::handle::SessionHandle;
use super::outbound::Valid;
use super::presence::{Notification, unavailable};
use super::registry::{SessionRegistry, bare_of};
use crate::connection::Connection;
use crate::stanza::Stanza;

/// Some JIDs of a block list.
pub(crate) trait Pattern {
    /// Whether it covers this JID (normalised text), bare or full.
    fn covers(&self, jid: &str) -> bool;
    /// Whether it covers who a stanza is from, or who the message is from that a copy of the own
    /// account brings.
    fn covers_source(&self, stanza: &Stanza) -> bool;
    /// The full JIDs that it names.
    fn full(&self) -> impl Iterator<Item = &str>;
}

impl<C: Connection + Clone> SessionRegistry<C> {
    /// Tells whom `pattern` covers and who sees the account, or holds directed presence of one of
    /// its sessions, that each session is gone; directed presence to them is forgotten. What waits for a
    /// session from them ends here.
    pub(crate) fn hide_from(&self, account: &str, pattern: &impl Pattern) {
        let inner = self.inner();
        let sessions = inner.sessions(self.key(account));
        if let Some(session) = sessions.first() {
            let there = sessions.iter().any(SessionHandle::is_available);
            let last = there.then(|| inner.settings.environment.utc());
            let last = last.or_else(|| inner.last_gone(account));
            let roster = session.roster();
            let seen = |jid: &&str| roster.is_subscriber(bare_of(jid));
            let covered = roster.subscribers().map(|entry| entry.jid());
            covered
                .filter(|jid| pattern.covers(jid))
                .chain(pattern.full().filter(seen))
                .for_each(|jid| inner.freeze(account, jid, last));
        }
        for session in sessions {
            session.0.out.lock().take_out(|stanza| pattern.covers_source(stanza));
            let (available, directed) = {
                let mut state = session.0.presence.lock();
                let covered = state.change(|rare| {
                    let targets = rare.directed.iter().filter(|target| pattern.covers(target));
                    let covered: Vec<Box<str>> = targets.map(Into::into).collect();
                    for target in &covered {
                        rare.directed.forget(target);
                    }
                    covered
                });
                (state.last.is_some(), covered)
            };
            let gone = unavailable(&session.0);
            // The account hides from them by now: this goes past its own list.
            let notification = Notification { source: None, stanza: &gone, valid: None };
            let roster = session.roster();
            let sees = |jid: &str| available && roster.is_subscriber(bare_of(jid));
            if available {
                for contact in roster.subscribers().filter(|entry| pattern.covers(entry.jid())) {
                    inner.notify_contact(contact.into(), &notification);
                }
                for jid in pattern.full().filter(|jid| sees(jid)) {
                    inner.direct(None, &gone, jid, None);
                }
            }
            let told = |jid: &str| {
                sees(jid) && (pattern.covers(bare_of(jid)) || pattern.full().any(|f| f == jid))
            };
            for target in directed.iter().filter(|target| !told(target)) {
                inner.direct(None, &gone, target, None);
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
            let Some((stanza, _, number)) = session.numbered_presence() else { continue };
            let valid = Some(&Valid { of: &session.0.number, number });
            let roster = session.roster();
            let source = &session.0.account;
            let notification = Notification { source: Some(source), stanza: &stanza, valid };
            for contact in roster.subscribers().filter(|entry| pattern.covers(entry.jid())) {
                inner.notify_contact(contact.into(), &notification);
            }
            let seen = |jid: &&str| {
                roster.is_subscriber(bare_of(jid))
                    && !pattern.covers(bare_of(jid))
                    && !inner.hides(source, jid)
            };
            for jid in pattern.full().filter(seen) {
                inner.direct(None, &stanza, jid, valid);
            }
        }
    }
}
