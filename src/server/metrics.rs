//! What the server has done: counters, read as a snapshot.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Core;
use crate::connection::SharedConnection;
use crate::session::Counts;
use crate::stanza::{Condition, Kind, Stanza};
use crate::stream::{Limit, StreamCondition};

/// A snapshot of a server's counters and gauges.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// Sessions that are not authenticated yet.
    pub unauthenticated: usize,
    /// Bound sessions.
    pub sessions: Counts,
    /// Streams accepted so far.
    pub accepted: u64,
    /// Messages, presences and iqs received from clients.
    pub received: [u64; 3],
    /// Messages, presences and iqs given to sessions; copies of broadcasts are not counted.
    pub delivered: [u64; 3],
    /// Bytes received from clients.
    pub bytes_received: u64,
    /// Bytes of the stanzas given to sessions; copies of broadcasts are not counted.
    pub bytes_delivered: u64,
    /// Stanza errors sent, by condition; conditions that never occurred are left out.
    pub stanza_errors: Vec<(Condition, u64)>,
    /// Streams closed with an error, by condition.
    pub stream_errors: Vec<(StreamCondition, u64)>,
    /// Limits that were hit, by their id.
    pub limits: Vec<(&'static str, u64)>,
    /// Entries of the stores that could not be read, and were left out (JID-6).
    pub unread: u64,
    /// Accounts with a change under way.
    pub jobs: usize,
}

/// The counters behind it.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) accepted: AtomicU64,
    received: [AtomicU64; 3],
    delivered: [AtomicU64; 3],
    pub(super) bytes_received: AtomicU64,
    bytes_delivered: AtomicU64,
    unread: AtomicU64,
    rare: parking_lot::Mutex<Rare>,
}

/// What happens seldom is counted under a lock.
#[derive(Default)]
struct Rare {
    stanza_errors: Vec<(Condition, u64)>,
    stream_errors: Vec<(StreamCondition, u64)>,
    limits: Vec<(&'static str, u64)>,
}

fn count<K: PartialEq>(counters: &mut Vec<(K, u64)>, key: K) {
    match counters.iter_mut().find(|(known, _)| *known == key) {
        Some((_, count)) => *count += 1,
        None => counters.push((key, 1)),
    }
}

const fn slot(counters: &[AtomicU64; 3], kind: Kind) -> &AtomicU64 {
    let [message, presence, iq] = counters;
    match kind {
        Kind::Message => message,
        Kind::Presence => presence,
        Kind::Iq => iq,
    }
}

impl Counters {
    pub(super) fn received(&self, kind: Kind) {
        slot(&self.received, kind).fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn out(&self, stanza: &Stanza) {
        slot(&self.delivered, stanza.kind()).fetch_add(1, Ordering::Relaxed);
        self.bytes_delivered.fetch_add(stanza.len() as u64, Ordering::Relaxed);
    }

    pub(super) fn error(&self, condition: Condition) {
        count(&mut self.rare.lock().stanza_errors, condition);
    }

    pub(super) fn stream_error(&self, condition: StreamCondition, limit: Option<Limit>) {
        let mut rare = self.rare.lock();
        count(&mut rare.stream_errors, condition);
        if let Some(limit) = limit {
            count(&mut rare.limits, limit.id());
        }
    }

    /// Here a host may be told of it.
    pub(super) fn unread(&self, entries: usize) {
        self.unread.fetch_add(entries as u64, Ordering::Relaxed);
    }

    pub(super) fn limit(&self, id: &'static str) {
        count(&mut self.rare.lock().limits, id);
    }
}

impl<C: SharedConnection> Core<C> {
    pub(super) fn metrics(&self) -> Metrics {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.metrics;
        let rare = counters.rare.lock();
        Metrics {
            unauthenticated: self.ledger.unauthenticated(),
            sessions: self.registry.counts(),
            accepted: load(&counters.accepted),
            received: counters.received.each_ref().map(load),
            delivered: counters.delivered.each_ref().map(load),
            bytes_received: load(&counters.bytes_received),
            bytes_delivered: load(&counters.bytes_delivered),
            stanza_errors: rare.stanza_errors.clone(),
            stream_errors: rare.stream_errors.clone(),
            limits: rare.limits.clone(),
            unread: load(&counters.unread),
            jobs: self.jobs.len(),
        }
    }
}
