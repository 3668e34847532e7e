//! What the server has done: counters, read as a snapshot.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Server;
use crate::connection::SharedConnection;
use crate::session::Counts;
use crate::stanza::{Condition, Kind, Stanza};
use crate::stream::{Limit, StreamCondition};

/// A snapshot of a server's counters and gauges.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// Transports that are not authenticated, including those that wait for a place.
    pub unauthenticated: usize,
    /// Bound sessions.
    pub sessions: Counts,
    /// Streams accepted so far.
    pub accepted: u64,
    /// Stanzas received from clients.
    pub received: ByKind,
    /// Stanzas given to sessions; copies of broadcasts are not counted.
    pub delivered: ByKind,
    /// Bytes received from clients.
    pub bytes_received: u64,
    /// Bytes of the stanzas given to sessions; copies of broadcasts are not counted.
    pub bytes_delivered: u64,
    /// Stanza errors sent, by condition; conditions that never occurred are left out.
    pub stanza_errors: Vec<(Condition, u64)>,
    /// Streams closed with an error, by condition.
    pub stream_errors: Vec<(StreamCondition, u64)>,
    /// Limits that were hit.
    pub limits: Vec<(Limit, u64)>,
    /// Entries of the stores that could not be read, and were left out ([JID-6](crate::rules#jid-6)).
    pub unread: u64,
    /// Accounts with a change under way.
    pub jobs: usize,
}

/// A number of stanzas of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ByKind {
    /// Messages.
    pub messages: u64,
    /// Presence stanzas.
    pub presences: u64,
    /// Iqs of all types.
    pub iqs: u64,
}

/// The counters behind it.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) accepted: AtomicU64,
    received: KindCounters,
    delivered: KindCounters,
    pub(super) bytes_received: AtomicU64,
    bytes_delivered: AtomicU64,
    unread: AtomicU64,
    rare: parking_lot::Mutex<Rare>,
}

/// Rare events are counted under a lock.
#[derive(Default)]
struct Rare {
    stanza_errors: Vec<(Condition, u64)>,
    stream_errors: Vec<(StreamCondition, u64)>,
    limits: Vec<(Limit, u64)>,
}

fn count<K: PartialEq>(counters: &mut Vec<(K, u64)>, key: K) {
    match counters.iter_mut().find(|(known, _)| *known == key) {
        Some((_, count)) => *count += 1,
        None => counters.push((key, 1)),
    }
}

#[derive(Default)]
struct KindCounters {
    messages: AtomicU64,
    presences: AtomicU64,
    iqs: AtomicU64,
}

impl KindCounters {
    fn add(&self, kind: Kind) {
        let counter = match kind {
            Kind::Message => &self.messages,
            Kind::Presence => &self.presences,
            Kind::Iq => &self.iqs,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn load(&self) -> ByKind {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Self { messages, presences, iqs } = self;
        ByKind { messages: load(messages), presences: load(presences), iqs: load(iqs) }
    }
}

impl Counters {
    pub(super) fn received(&self, kind: Kind) {
        self.received.add(kind);
    }

    pub(super) fn out(&self, stanza: &Stanza) {
        self.delivered.add(stanza.kind());
        self.bytes_delivered.fetch_add(stanza.len() as u64, Ordering::Relaxed);
    }

    pub(super) fn error(&self, condition: Condition) {
        count(&mut self.rare.lock().stanza_errors, condition);
    }

    pub(super) fn stream_error(&self, condition: StreamCondition, limit: Option<Limit>) {
        let mut rare = self.rare.lock();
        count(&mut rare.stream_errors, condition);
        if let Some(limit) = limit {
            count(&mut rare.limits, limit);
        }
    }

    pub(super) fn unread(&self, entries: usize) {
        self.unread.fetch_add(entries as u64, Ordering::Relaxed);
    }

    pub(super) fn limit(&self, limit: Limit) {
        count(&mut self.rare.lock().limits, limit);
    }
}

impl<C: SharedConnection> Server<C> {
    /// What the server has done so far.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let core = &self.0;
        let counters = &core.metrics;
        let rare = counters.rare.lock();
        Metrics {
            unauthenticated: core.ledger.unauthenticated(),
            sessions: core.registry.counts(),
            accepted: load(&counters.accepted),
            received: counters.received.load(),
            delivered: counters.delivered.load(),
            bytes_received: load(&counters.bytes_received),
            bytes_delivered: load(&counters.bytes_delivered),
            stanza_errors: rare.stanza_errors.clone(),
            stream_errors: rare.stream_errors.clone(),
            limits: rare.limits.clone(),
            unread: load(&counters.unread),
            jobs: core.jobs.len(),
        }
    }
}
