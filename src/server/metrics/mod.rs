//! What the server has done: counters and distributions, read as a snapshot.

mod families;
mod histogram;
mod sample;
mod text;

#[cfg(feature = "metrics")]
mod facade;

#[cfg(feature = "metrics")]
pub use facade::Feed;
pub use histogram::{Histogram, Unit};
pub(super) use sample::Samples;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use self::histogram::Buckets;
#[cfg(feature = "cluster")]
use super::NodeMetrics;
use super::Server;
use super::faults::fault::StoreCall;
use crate::connection::SharedConnection;
use crate::named::named;
use crate::sasl::{Mechanism, SaslError};
use crate::session::{Counts, Reason};
use crate::stanza::{Condition, Kind, Stanza};
use crate::stream::{Limit, StreamCondition};
use crate::sync::{Padded, Striped};

/// A snapshot of a server's counters, gauges and distributions.
///
/// [`write_openmetrics`](Self::write_openmetrics) and [`write_prometheus`](Self::write_prometheus) make text
/// of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// Transports that are not authenticated, including those that wait for a place.
    pub unauthenticated: usize,
    /// Bound sessions.
    pub sessions: Counts,
    /// Streams accepted so far.
    pub accepted: u64,
    /// Logins that succeeded, by mechanism.
    pub logins: Vec<(Mechanism, u64)>,
    /// Logins that failed, by mechanism (if it is a known one) and reason.
    pub login_failures: Vec<((Option<Mechanism>, SaslError), u64)>,
    /// Sessions that were bound.
    pub binds: u64,
    /// Sessions that got another transport ([SM-20](crate::rules#sm-20)).
    pub resumptions: u64,
    /// Sessions that ended, by the [name](Reason::as_str) of their reason.
    pub ends: Vec<(&'static str, u64)>,
    /// Stanzas received from clients.
    pub received: ByKind,
    /// Stanzas given to sessions; copies of broadcasts are not counted.
    pub delivered: ByKind,
    /// Bytes received from clients.
    pub bytes_received: u64,
    /// Bytes of the stanzas given to sessions; copies of broadcasts are not counted.
    pub bytes_delivered: u64,
    /// Messages put into the offline store.
    pub offline_stored: u64,
    /// Messages that sessions got from there.
    pub offline_retrieved: u64,
    /// Stanza errors sent, by condition; conditions that never occurred are left out.
    pub stanza_errors: Vec<(Condition, u64)>,
    /// Streams closed with an error, by condition.
    pub stream_errors: Vec<(StreamCondition, u64)>,
    /// Limits that were hit.
    pub limits: Vec<(Limit, u64)>,
    /// Faults, told to the host or not, by the [name](super::FaultKind::as_str) of their kind.
    pub faults: Vec<(&'static str, u64)>,
    /// Entries of the stores that could not be read, and were left out ([JID-6](crate::rules#jid-6)).
    pub unread: u64,
    /// Chains with work: changes of accounts, and messages under review.
    pub jobs: usize,
    /// How long logins take, step by step.
    pub login_steps: Vec<(LoginStep, Histogram)>,
    /// How long stores take, by call; calls that never occurred are left out.
    pub store_calls: Vec<(StoreCall, Histogram)>,
    /// From a message that a client has sent to the moment at which a recipient's transport has taken it; one of
    /// 64 is looked at ([METRIC-4](crate::rules#metric-4)).
    pub delivery: Histogram,
    /// Bytes that wait for each session; every snapshot looks at all sessions once.
    pub queue_bytes: Histogram,
    /// Age of the oldest stanza that a session has not acknowledged, of sessions that have one; every snapshot
    /// looks at all sessions once.
    pub unacknowledged: Histogram,
    /// Of a server that is one of several nodes.
    #[cfg(feature = "cluster")]
    pub node: Option<NodeMetrics>,
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

named! {
    /// A step of a login, as its length is measured.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    #[non_exhaustive]
    pub enum LoginStep {
        /// The TLS handshake: what the driver waits for as [`Want::StartTls`](super::Want::StartTls).
        Tls = "tls",
        /// From the client's `<auth/>` to the success.
        Sasl = "sasl",
        /// From the request for a resource to the session.
        Bind = "bind",
        /// From the accepted transport to the session, bound or resumed.
        Whole = "whole",
    }
    /// All of them.
    const ALL;
    /// Its name, for logs and metrics.
    pub const fn as_str;
}

/// The counters behind it.
pub(super) struct Counters {
    pub(super) accepted: Padded<AtomicU64>,
    traffic: Striped<Traffic>,
    pub(super) rare: Arc<RareCounters>,
}

/// Those of each stanza.
#[derive(Default)]
struct Traffic {
    received: KindCounters,
    delivered: KindCounters,
    bytes_received: AtomicU64,
    bytes_delivered: AtomicU64,
}

/// Those of what is rarer.
pub(super) struct RareCounters {
    unread: AtomicU64,
    binds: AtomicU64,
    resumptions: AtomicU64,
    offline_stored: AtomicU64,
    offline_retrieved: AtomicU64,
    named: crate::sync::common::Mutex<Named>,
    login_steps: [Buckets; LoginStep::ALL.len()],
    store_calls: [Buckets; StoreCall::ALL.len()],
    delivery: Striped<Buckets>,
    queue_bytes: Buckets,
    unacknowledged: Buckets,
}

/// Events by name are counted under a lock.
#[derive(Default)]
struct Named {
    logins: Vec<(Mechanism, u64)>,
    login_failures: Vec<((Option<Mechanism>, SaslError), u64)>,
    ends: Vec<(&'static str, u64)>,
    stanza_errors: Vec<(Condition, u64)>,
    stream_errors: Vec<(StreamCondition, u64)>,
    limits: Vec<(Limit, u64)>,
    faults: Vec<(&'static str, u64)>,
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
    /// Whether it is a message whose way is to be measured (METRIC-4).
    #[inline]
    fn add(&self, kind: Kind) -> bool {
        let counter = match kind {
            Kind::Message => {
                return self.messages.fetch_add(1, Ordering::Relaxed) % SAMPLE == SAMPLE - 1;
            }
            Kind::Presence => &self.presences,
            Kind::Iq => &self.iqs,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        false
    }

    /// Adds what is counted here to what is counted elsewhere.
    fn add_to(&self, sum: &mut ByKind) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        sum.messages += load(&self.messages);
        sum.presences += load(&self.presences);
        sum.iqs += load(&self.iqs);
    }
}

impl Counters {
    pub(super) fn new(rare: Arc<RareCounters>) -> Self {
        Self { accepted: Padded::default(), traffic: Striped::new(Traffic::default), rare }
    }

    /// Whether the way of this one is to be measured.
    #[inline]
    pub(super) fn received(&self, kind: Kind) -> bool {
        self.traffic.own().received.add(kind)
    }

    #[inline]
    pub(super) fn bytes_received(&self, bytes: usize) {
        self.traffic.own().bytes_received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    #[inline(always)]
    pub(super) fn out(&self, stanza: &Stanza) {
        let traffic = self.traffic.own();
        let _unmeasured = traffic.delivered.add(stanza.kind());
        traffic.bytes_delivered.fetch_add(stanza.len() as u64, Ordering::Relaxed);
    }

    pub(super) fn error(&self, condition: Condition) {
        count(&mut self.rare.named.lock().stanza_errors, condition);
    }

    pub(super) fn stream_error(&self, condition: StreamCondition) {
        count(&mut self.rare.named.lock().stream_errors, condition);
    }

    pub(super) fn unread(&self, entries: usize) {
        self.rare.unread.fetch_add(entries as u64, Ordering::Relaxed);
    }

    pub(super) fn limit(&self, limit: Limit) {
        count(&mut self.rare.named.lock().limits, limit);
    }

    pub(super) fn login(&self, mechanism: Option<Mechanism>) {
        if let Some(mechanism) = mechanism {
            count(&mut self.rare.named.lock().logins, mechanism);
        }
    }

    pub(super) fn login_failed(&self, mechanism: Option<Mechanism>, error: SaslError) {
        count(&mut self.rare.named.lock().login_failures, (mechanism, error));
    }

    pub(super) fn login_step(&self, step: LoginStep, time: Duration) {
        if let Some(buckets) = self.rare.login_steps.get(step as usize) {
            buckets.time(time);
        }
    }

    pub(super) fn bound(&self) {
        self.rare.binds.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn resumed(&self) {
        self.rare.resumptions.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn ended(&self, reason: Reason) {
        count(&mut self.rare.named.lock().ends, reason.as_str());
    }

    pub(super) fn offline_stored(&self) {
        self.rare.offline_stored.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn offline_retrieved(&self) {
        self.rare.offline_retrieved.fetch_add(1, Ordering::Relaxed);
    }
}

/// Of so many messages of clients the way of one is measured.
const SAMPLE: u64 = 64;

impl Default for RareCounters {
    fn default() -> Self {
        Self {
            unread: AtomicU64::new(0),
            binds: AtomicU64::new(0),
            resumptions: AtomicU64::new(0),
            offline_stored: AtomicU64::new(0),
            offline_retrieved: AtomicU64::new(0),
            named: crate::sync::common::Mutex::default(),
            login_steps: [const { Buckets::new(Unit::Seconds) }; LoginStep::ALL.len()],
            store_calls: [const { Buckets::new(Unit::Seconds) }; StoreCall::ALL.len()],
            delivery: Striped::new(|| Buckets::new(Unit::Seconds)),
            queue_bytes: Buckets::new(Unit::Bytes),
            unacknowledged: Buckets::new(Unit::Seconds),
        }
    }
}

impl RareCounters {
    pub(super) fn fault(&self, kind: &'static str) {
        count(&mut self.named.lock().faults, kind);
    }

    fn delivered_in(&self, time: Duration) {
        self.delivery.own().time(time);
    }

    pub(super) fn store_call(&self, call: StoreCall, time: Duration) {
        if let Some(buckets) = self.store_calls.get(call as usize) {
            buckets.time(time);
        }
    }
}

impl<C: SharedConnection> Server<C> {
    /// What the server has done so far; of several nodes, this one. It looks at each session once, under that session's lock: a matter of
    /// milliseconds for tens of thousands.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let core = &self.0;
        let (counters, rare) = (&core.metrics, &core.metrics.rare);
        let (mut received, mut delivered) = (ByKind::default(), ByKind::default());
        let (mut bytes_received, mut bytes_delivered) = (0, 0);
        for traffic in counters.traffic.all() {
            traffic.received.add_to(&mut received);
            traffic.delivered.add_to(&mut delivered);
            bytes_received += load(&traffic.bytes_received);
            bytes_delivered += load(&traffic.bytes_delivered);
        }
        let now = core.environment.now();
        for session in core.registry.iter() {
            let (bytes, oldest) = session.queued();
            rare.queue_bytes.bytes(bytes);
            if let Some(since) = oldest {
                rare.unacknowledged.time(now.saturating_sub(since));
            }
        }
        let read = |buckets: &Buckets| buckets.read();
        let steps = LoginStep::ALL.into_iter().zip(rare.login_steps.iter().map(read));
        let calls = StoreCall::ALL.iter().copied().zip(rare.store_calls.iter().map(read));
        let named = rare.named.lock();
        Metrics {
            unauthenticated: core.ledger.unauthenticated(),
            sessions: core.registry.counts(),
            accepted: load(&counters.accepted),
            logins: named.logins.clone(),
            login_failures: named.login_failures.clone(),
            binds: load(&rare.binds),
            resumptions: load(&rare.resumptions),
            ends: named.ends.clone(),
            received,
            delivered,
            bytes_received,
            bytes_delivered,
            offline_stored: load(&rare.offline_stored),
            offline_retrieved: load(&rare.offline_retrieved),
            stanza_errors: named.stanza_errors.clone(),
            stream_errors: named.stream_errors.clone(),
            limits: named.limits.clone(),
            faults: named.faults.clone(),
            unread: load(&rare.unread),
            jobs: core.jobs.len(),
            login_steps: steps.collect(),
            store_calls: calls.filter(|(_, histogram)| histogram.count() > 0).collect(),
            delivery: Buckets::read_all(rare.delivery.all()),
            queue_bytes: rare.queue_bytes.read(),
            unacknowledged: rare.unacknowledged.read(),
            #[cfg(feature = "cluster")]
            node: self.node().map(|node| node.metrics()),
        }
    }
}
