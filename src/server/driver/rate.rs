//! How fast a client may send (LIMIT-19, LIMIT-20), and what its earlier streams have spent.

use std::collections::HashMap;
use std::time::Duration;

use smallvec::SmallVec;

use super::recipients::Recipients;
use crate::server::limits::{Limits, Rate};
use crate::stream::Limit;
use crate::sync::common::Mutex;

/// How long reading pauses after a stanza that has to wait behind much else (LIMIT-13).
const SLOW: Duration = Duration::from_millis(250);

/// A rate limiter with the generic cell rate algorithm: of each rate, when its allowance is full
/// again, in nanoseconds. While that is further ahead than the burst, reading (or the next broadcast)
/// waits.
#[derive(Clone, Copy, Default)]
pub(super) struct RateLimiter {
    stanzas: u64,
    bytes: u64,
    presence: u64,
    /// When the next broadcast of presence may go out.
    broadcast_at: u64,
    /// Until when reading pauses.
    paused_until: u64,
}

impl RateLimiter {
    /// Until when reading pauses, if it does.
    pub(super) fn paused_until(&self) -> Option<Duration> {
        (self.paused_until > 0).then(|| Duration::from_nanos(self.paused_until))
    }

    /// When the next broadcast of presence may go out, if not now.
    pub(super) fn broadcast_at(&self) -> Option<Duration> {
        (self.broadcast_at > 0).then(|| Duration::from_nanos(self.broadcast_at))
    }

    /// Ends the pauses whose time is over.
    pub(super) fn end_pauses(&mut self, now: Duration) {
        for until in [&mut self.paused_until, &mut self.broadcast_at] {
            if *until <= nanos(now) {
                *until = 0;
            }
        }
    }

    /// Spends so many bytes; `true` if they are too many.
    #[must_use]
    pub(super) fn spend_bytes(&mut self, bytes: usize, now: Duration, limits: &Limits) -> bool {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        Self::spend(&mut self.bytes, &mut self.paused_until, limits.bytes, bytes, now)
    }

    /// Spends one stanza, and tells the limit that it exceeds.
    pub(super) fn spend_stanza(
        &mut self,
        is_broadcast: bool,
        now: Duration,
        limits: &Limits,
    ) -> Option<Limit> {
        let stanza = Self::spend(&mut self.stanzas, &mut self.paused_until, limits.stanzas, 1, now);
        let rate = limits.presence.filter(|_| is_broadcast);
        let presence = Self::spend(&mut self.presence, &mut self.broadcast_at, rate, 1, now);
        match (stanza, presence) {
            (true, _) => Some(Limit::Rate),
            (false, true) => Some(Limit::Broadcasts),
            (false, false) => None,
        }
    }

    /// Pauses reading until a broadcast that has to go first.
    pub(super) fn wait_for_broadcast(&mut self) {
        self.paused_until = self.paused_until.max(self.broadcast_at);
    }

    /// Pauses reading for a moment: what the client has sent waits behind much else.
    pub(super) fn slow_down(&mut self, now: Duration) {
        self.paused_until = self.paused_until.max(nanos(now.saturating_add(SLOW)));
    }

    fn spend(
        full: &mut u64,
        paused_until: &mut u64,
        rate: Option<Rate>,
        amount: u32,
        now: Duration,
    ) -> bool {
        let Some(rate) = rate else { return false };
        let now = nanos(now);
        *full = (*full).max(now).saturating_add(rate.cost(amount));
        let pause = full.saturating_sub(rate.cost(rate.burst));
        if pause > now {
            *paused_until = (*paused_until).max(pause);
        }
        pause > now
    }

    /// When each allowance is full again.
    fn full(&self) -> u64 {
        self.stanzas.max(self.bytes).max(self.presence)
    }
}

impl Rate {
    /// How long it takes to earn so much, in nanoseconds.
    fn cost(self, amount: u32) -> u64 {
        let (period, per) = (nanos(self.period), u64::from(self.amount.max(1)));
        match period.checked_mul(u64::from(amount)) {
            Some(product) => product / per,
            None => (period / per).saturating_mul(u64::from(amount)),
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// What a stream has spent of its allowances.
#[derive(Default)]
pub(super) struct Spent {
    pub(super) rates: RateLimiter,
    /// Where there is a limit of them (LIMIT-21).
    pub(super) recipients: Option<Box<Recipients>>,
}

/// What streams that are gone had spent, until they would have it back. Their successors, of the same
/// account, or of the same source before authentication, go on from there: a new stream is no new
/// allowance (LIMIT-20).
#[derive(Default)]
pub(in crate::server) struct Allowances(Mutex<Remembered>);

#[derive(Default)]
struct Remembered {
    /// When this map is full it replaces the old one.
    young: HashMap<u64, Streams>,
    old: HashMap<u64, Streams>,
}

type Streams = SmallVec<[Spent; 1]>;

impl Allowances {
    /// What the greediest of the streams that are gone has spent, to go on from.
    pub(super) fn take(&self, key: u64, now: Duration) -> Spent {
        let mut inside = self.0.lock();
        let Remembered { young, old } = &mut *inside;
        for streams in [young, old] {
            let Some(of) = streams.get_mut(&key) else { continue };
            let most = (0..of.len()).max_by_key(|at| of.get(*at).map(|spent| spent.rates.full()));
            let spent = most.map(|at| of.swap_remove(at));
            if of.is_empty() {
                streams.remove(&key);
            }
            if let Some(mut spent) = spent {
                spent.rates.end_pauses(now);
                return spent;
            }
        }
        Spent::default()
    }

    /// A stream is gone. Sources that the host does not name share nothing.
    pub(super) fn give_back(&self, key: u64, spent: Spent, now: Duration, limits: &Limits) {
        let now_nanos = nanos(now);
        let owes = |spent: &Spent| {
            let names = spent.recipients.as_ref().zip(limits.recipients);
            spent.rates.full() > now_nanos
                || names.is_some_and(|(names, rate)| names.owes(now, rate))
        };
        if key == 0 || !owes(&spent) {
            return;
        }
        let mut inside = self.0.lock();
        if inside.young.len() >= MOST && !inside.young.contains_key(&key) {
            inside.old = std::mem::take(&mut inside.young);
        }
        let streams = inside.young.entry(key).or_default();
        if streams.len() >= MOST_STREAMS {
            streams.retain(|spent| owes(spent));
        }
        if streams.len() < MOST_STREAMS {
            streams.push(spent);
        } else if let Some(least) = streams.iter_mut().min_by_key(|one| one.rates.full())
            && least.rates.full() < spent.rates.full()
        {
            *least = spent;
        }
    }
}

/// Entries of one map: up to twice as many accounts and sources are remembered.
const MOST: usize = 1 << 14;

/// Streams remembered of each.
const MOST_STREAMS: usize = 64;
