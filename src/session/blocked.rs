//! Presence towards JIDs that an account blocks or no longer blocks (BLOCK-7).

use super::outbound::Valid;
use super::presence::unavailable;
use super::registry::{SessionRegistry, bare_of};
use crate::connection::Connection;

/// Some JIDs of a block list.
pub(crate) trait Pattern {
    /// Whether it covers this JID (normalised text), bare or full.
    fn covers(&self, jid: &str) -> bool;
    /// The full JIDs that it names.
    fn full(&self) -> impl Iterator<Item = &str>;
}

impl<C: Connection + Clone> SessionRegistry<C> {
    /// Tells whom `pattern` covers and who sees the account, or holds directed presence of one of
    /// its sessions, that each session is gone; directed presence to them is forgotten.
    pub(crate) fn hide_from(&self, account: &str, pattern: &impl Pattern) {
        let inner = self.inner();
        for session in inner.sessions(account) {
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
            let roster = session.roster();
            let sees = |jid: &str| available && roster.is_subscriber(bare_of(jid));
            if available {
                let subscribers = roster.subscribers().map(|entry| entry.jid());
                for contact in subscribers.filter(|contact| pattern.covers(contact)) {
                    // The account hides from them by now: this goes past its own list.
                    inner.presence_to_contact(None, contact, &gone, None);
                }
                for jid in pattern.full().filter(|jid| sees(jid)) {
                    inner.direct(&gone, jid, None);
                }
            }
            let told = |jid: &str| {
                sees(jid) && (pattern.covers(bare_of(jid)) || pattern.full().any(|f| f == jid))
            };
            for target in directed.iter().filter(|target| !told(target)) {
                inner.direct(&gone, target, None);
            }
        }
    }

    /// Tells the subscribers that `pattern` covers the presence of each available session. Whoever
    /// is still hidden from is told nothing.
    pub(crate) fn show_to(&self, account: &str, pattern: &impl Pattern) {
        let inner = self.inner();
        for session in inner.sessions(account) {
            let Some((stanza, _, number)) = session.numbered_presence() else { continue };
            let valid = Valid { of: &session.0.number, number };
            let roster = session.roster();
            let subscribers = roster.subscribers().map(|entry| entry.jid());
            let source = &session.0.account;
            for contact in subscribers.filter(|contact| pattern.covers(contact)) {
                inner.presence_to_contact(Some(source), contact, &stanza, Some(&valid));
            }
            let seen = |jid: &&str| {
                roster.is_subscriber(bare_of(jid))
                    && !pattern.covers(bare_of(jid))
                    && !inner.hides(source, jid)
            };
            for jid in pattern.full().filter(seen) {
                inner.direct(&stanza, jid, Some(&valid));
            }
        }
    }
}
