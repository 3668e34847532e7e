//! Stanzas that are held back from a client that says it is not looked at (XEP-0352).
//!
//! What is held stands outside of the queue: it counts for no acknowledgement until it is let go,
//! and of those with one key only the latest is kept. It is let go into the queue as a whole (at the
//! client's word, at the limit, with the transport, at the end), or in part, before a stanza from
//! the same bare JID that is not held: so nobody's stanzas overtake each other (CSI-4).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Outbound;
use super::item::Item;
use super::limits::{RetentionLimits, Share};
use super::queued::Queued;
use crate::address::bare_of;
use crate::connection::SharedConnection;
use crate::stanza::Stanza;
use crate::sync::Tally;

/// Whether a stanza is held back: a host's answer to the [`hold`](crate::session::RegistryBuilder::hold) hook.
#[derive(Clone, PartialEq, Eq)]
#[must_use = "says whether the stanza is held back"]
#[expect(clippy::exhaustive_enums, reason = "it is held back or it is not")]
pub enum Hold {
    /// It is not, and what is held from the same bare JID goes before it.
    Pass,
    /// It is, in place of an earlier one with this key.
    Latest(String),
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pass => "Pass",
            // Keys name the sender (SEC-6).
            Self::Latest(_) => "Latest",
        })
    }
}

pub(super) struct HeldBack {
    items: Vec<HeldStanza>,
    share: Share,
}

struct HeldStanza {
    key: String,
    from: Box<str>,
    entry: Queued,
}

impl HeldBack {
    fn new(all: &Arc<Tally>) -> Self {
        Self { items: Vec::new(), share: Share::new(all) }
    }

    fn put(&mut self, key: String, from: Box<str>, entry: Queued) {
        self.take(|item| item.key == key).into_iter().for_each(Queued::forget);
        self.share.set(self.share.bytes().saturating_add(entry.len()));
        self.items.push(HeldStanza { key, from, entry });
    }

    fn is_full(&self, limits: &RetentionLimits) -> bool {
        self.items.len() > limits.held_stanzas || self.share.bytes() > limits.held_bytes
    }

    fn take(&mut self, is_meant: impl Fn(&HeldStanza) -> bool) -> Vec<Queued> {
        let meant = self.items.extract_if(.., |item| is_meant(item));
        let taken: Vec<_> = meant.map(|item| item.entry).collect();
        let bytes = taken.iter().map(Queued::len).sum();
        self.share.set(self.share.bytes().saturating_sub(bytes));
        taken
    }
}

/// The bare JID that a stanza comes from; one without an address comes from the own account.
fn source(stanza: &Stanza) -> Box<str> {
    stanza.from().map(|from| bare_of(&from).into()).unwrap_or_default()
}

impl<C: SharedConnection> Outbound<C> {
    pub(crate) fn start_holding(&mut self, all: &Arc<Tally>) {
        if !self.ended && self.link.is_some() && self.queue.held().is_none() {
            self.queue.set_held(HeldBack::new(all));
        }
    }

    pub(crate) fn stop_holding(&mut self) {
        if let Some(mut held) = self.queue.take_held() {
            self.let_go(held.take(|_| true));
        }
    }

    /// Holds a stanza back, or lets go what has to be before it. `true` = it is taken care of.
    pub(super) fn hold_back(
        &mut self,
        item: &Item<'_>,
        hold: Option<Hold>,
        at: Duration,
        limits: &RetentionLimits,
    ) -> bool {
        let (Some(stanza), Some(held)) = (item.stanza(), self.queue.held()) else { return false };
        let Some(Hold::Latest(key)) = hold else {
            let from = source(stanza);
            let before = held.take(|item| item.from == from);
            self.let_go(before);
            return false;
        };
        held.put(key, source(stanza), Queued::new(item, false, at));
        if held.is_full(limits) {
            self.let_all_go();
        }
        true
    }

    /// Drops what waits for the client and `is_unwanted`. What it may have got already goes to nobody
    /// else.
    #[cfg(feature = "server")]
    pub(crate) fn take_out(&mut self, is_unwanted: impl Fn(&Stanza) -> bool) {
        if let Some(held) = self.queue.held() {
            let is_meant = |item: &HeldStanza| item.entry.message().is_some_and(&is_unwanted);
            held.take(is_meant).into_iter().for_each(Queued::forget);
        }
        let places = self.queue.take_out(is_unwanted);
        if let Some(retained) = &mut self.retained {
            retained.taken_out(&places);
        }
        self.account_for();
    }

    /// The next one was made void while the transport had it, which has not taken it.
    pub(super) fn take_out_void(&mut self) {
        let place = self.queue.written();
        if self.queue.take_void()
            && let Some(retained) = &mut self.retained
        {
            retained.taken_out(&[place]);
        }
    }

    /// Lets go what is held, and holds on.
    pub(super) fn let_all_go(&mut self) {
        let all = self.queue.held().map(|held| held.take(|_| true));
        self.let_go(all.unwrap_or_default());
    }

    fn let_go(&mut self, entries: Vec<Queued>) {
        let is_retained = self.retained.is_some();
        for mut entry in entries {
            entry.set_counted(is_retained);
            self.queue.push(entry);
        }
        self.account_for();
    }
}
