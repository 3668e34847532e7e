//! How fast a client may send (LIMIT-19, LIMIT-20), and what is remembered of those that are gone.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::server::driver::recipients::Recipients;
use crate::server::limits::{Limits, Rate};

/// How long a client is not read from after a stanza that has to wait behind much else (LIMIT-13).
const SLOW: Duration = Duration::from_millis(250);

/// When the allowance of a rate would be full again, in nanoseconds: further ahead than the burst,
/// and reading (or the next broadcast) waits until it is not.
#[derive(Clone, Copy, Default)]
pub(super) struct Pace {
    stanzas: u64,
    bytes: u64,
    presence: u64,
    /// From when on a broadcast of presence is in time.
    broadcast: u64,
    /// Until when reading pauses.
    resume: u64,
}

impl Pace {
    /// Until when reading pauses, if it does.
    pub(super) fn resume(&self) -> Option<Duration> {
        (self.resume > 0).then(|| Duration::from_nanos(self.resume))
    }

    /// From when on a broadcast of presence is in time, if it is not yet.
    pub(super) fn broadcast(&self) -> Option<Duration> {
        (self.broadcast > 0).then(|| Duration::from_nanos(self.broadcast))
    }

    /// Reading goes on if it is time, and broadcasts do.
    pub(super) fn go_on(&mut self, now: Duration) {
        for until in [&mut self.resume, &mut self.broadcast] {
            if *until <= nanos(now) {
                *until = 0;
            }
        }
    }

    /// `true`: too many.
    pub(super) fn bytes(&mut self, bytes: usize, now: Duration, limits: &Limits) -> bool {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        Self::spend(&mut self.bytes, &mut self.resume, limits.bytes, bytes, now)
    }

    /// The limit that was exceeded.
    pub(super) fn stanza(
        &mut self,
        is_broadcast: bool,
        now: Duration,
        limits: &Limits,
    ) -> Option<&'static str> {
        let stanza = Self::spend(&mut self.stanzas, &mut self.resume, limits.stanzas, 1, now);
        let rate = limits.presence.filter(|_| is_broadcast);
        let presence = Self::spend(&mut self.presence, &mut self.broadcast, rate, 1, now);
        match (stanza, presence) {
            (true, _) => Some("LIMIT-20"),
            (false, true) => Some("LIMIT-19"),
            (false, false) => None,
        }
    }

    /// A stanza is here that is not to go before a broadcast that is not in time yet.
    pub(super) fn wait_for_broadcast(&mut self) {
        self.resume = self.resume.max(self.broadcast);
    }

    /// Something that the client has sent waits behind much else.
    pub(super) fn slow_down(&mut self, now: Duration) {
        self.resume = self.resume.max(nanos(now.saturating_add(SLOW)));
    }

    fn spend(
        full: &mut u64,
        resume: &mut u64,
        rate: Option<Rate>,
        amount: u32,
        now: Duration,
    ) -> bool {
        let Some(rate) = rate else { return false };
        let now = nanos(now);
        *full = (*full).max(now).saturating_add(rate.cost(amount));
        let pause = full.saturating_sub(rate.cost(rate.burst));
        if pause > now {
            *resume = (*resume).max(pause);
        }
        pause > now
    }

    /// When all of it is full again.
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

/// What a stream has spent.
#[derive(Default)]
pub(super) struct Spent {
    pub(super) pace: Pace,
    pub(super) recipients: Option<Box<Recipients>>,
}

/// What streams that are gone had spent and would not have back yet. Their successors, of the same
/// account, or of the same source before authentication, go on from there: a new stream is no new
/// allowance (LIMIT-20).
#[derive(Default)]
pub(in crate::server) struct Allowances(Mutex<Remembered>);

#[derive(Default)]
struct Remembered {
    /// When this one is full it becomes the old one, and the old one is forgotten.
    young: HashMap<u64, Streams>,
    old: HashMap<u64, Streams>,
}

type Streams = SmallVec<[Spent; 1]>;

impl Allowances {
    /// Of the streams that are gone the one that has spent most, to go on from.
    pub(super) fn take(&self, key: u64, now: Duration) -> Spent {
        let mut inside = self.0.lock();
        let Remembered { young, old } = &mut *inside;
        for streams in [young, old] {
            let Some(of) = streams.get_mut(&key) else { continue };
            let most = (0..of.len()).max_by_key(|at| of.get(*at).map(|spent| spent.pace.full()));
            let spent = most.map(|at| of.swap_remove(at));
            if of.is_empty() {
                streams.remove(&key);
            }
            if let Some(mut spent) = spent {
                spent.pace.go_on(now);
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
            spent.pace.full() > now_nanos
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
        } else if let Some(least) = streams.iter_mut().min_by_key(|one| one.pace.full())
            && least.pace.full() < spent.pace.full()
        {
            *least = spent;
        }
    }
}

/// So many accounts and sources are remembered, and up to twice as many.
const MOST: usize = 1 << 14;

/// So many streams of each.
const MOST_STREAMS: usize = 64;
