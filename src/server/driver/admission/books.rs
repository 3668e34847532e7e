//! The books of the ledger: every transport, by source and by what it does. No clock, no lock but
//! that of the signals.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use smallvec::SmallVec;

use super::{Source, Standing};

/// The limits of the ledger.
#[derive(Default)]
pub(super) struct Most {
    pub(super) inside: usize,
    pub(super) per_source: usize,
    pub(super) per_account: usize,
}

impl Most {
    fn of(&self, source: Source) -> usize {
        if source == Source::UNNAMED { usize::MAX } else { self.per_source }
    }
}

#[derive(Default)]
pub(super) struct Books {
    most: Most,
    /// The number of the next transport: a lower one is older.
    next: u64,
    transports: HashMap<u64, Record>,
    silent: BTreeSet<u64>,
    inside: Inside,
    waiting: BTreeSet<u64>,
    closing: BTreeSet<u64>,
    sources: HashMap<Source, OfSource>,
    /// Authenticated streams without a session.
    accounts: HashMap<u64, BTreeSet<u64>>,
    unauthenticated: usize,
    /// Sources that wait and have room: each gets one place in turn.
    turns: VecDeque<Source>,
    /// To be woken without the ledger's lock.
    wakers: Wakers,
}

pub(super) type Wakers = SmallVec<[Waker; 4]>;

/// The places that are taken.
#[derive(Default)]
struct Inside {
    taken: usize,
    /// Those that were evicted, and have not gone.
    evicted: usize,
    /// When which of the others may be evicted.
    due: BTreeSet<(Duration, u64)>,
}

/// The transports of one source.
#[derive(Default)]
struct OfSource {
    silent: BTreeSet<u64>,
    inside: Inside,
    waiting: BTreeSet<u64>,
    closing: BTreeSet<u64>,
    /// Whether it stands among the turns.
    has_turn: bool,
}

/// One transport.
pub(super) struct Record {
    source: Source,
    account: Option<u64>,
    phase: Phase,
    signal: Arc<Signal>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Silent,
    Waiting,
    Inside {
        since: Duration,
        /// It may be evicted from then on.
        due: Duration,
        evicted: bool,
    },
    Closing,
}

/// How a transport learns what becomes of it.
#[derive(Default)]
pub(super) struct Signal(Mutex<News>);

#[derive(Default)]
struct News {
    standing: Standing,
    is_cut: bool,
    waker: Option<Waker>,
}

impl Signal {
    pub(super) fn get(&self) -> (Standing, bool) {
        let news = self.0.lock();
        (news.standing, news.is_cut)
    }

    /// The same; the waker is kept.
    pub(super) fn poll(&self, cx: Option<&Context<'_>>) -> (Standing, bool) {
        // A waker is host code: cloned and dropped without the lock.
        let waker = cx.map(|cx| cx.waker().clone());
        let mut news = self.0.lock();
        let found = (news.standing, news.is_cut);
        let old = match waker {
            Some(waker) => news.waker.replace(waker),
            None => None,
        };
        drop(news);
        drop(old);
        found
    }

    fn set(&self, change: impl FnOnce(&mut News), wakers: &mut Wakers) {
        let mut news = self.0.lock();
        change(&mut news);
        wakers.extend(news.waker.take());
    }
}

impl OfSource {
    fn is_empty(&self) -> bool {
        let sets = [&self.silent, &self.waiting, &self.closing];
        let nobody = self.inside.taken == 0 && sets.iter().all(|set| set.is_empty());
        nobody && !self.has_turn
    }
}

impl Inside {
    fn enter(&mut self, due: Duration, id: u64) {
        self.taken += 1;
        self.due.insert((due, id));
    }

    fn leave(&mut self, due: Duration, id: u64, evicted: bool) {
        self.taken -= 1;
        self.due.remove(&(due, id));
        self.evicted -= usize::from(evicted);
    }

    fn postpone(&mut self, due: Duration, later: Duration, id: u64) {
        self.due.remove(&(due, id));
        self.due.insert((later, id));
    }

    fn evict(&mut self, due: Duration, id: u64) {
        self.due.remove(&(due, id));
        self.evicted += 1;
    }

    /// The first to evict in favour of so many who wait.
    fn first_for(&self, waiting: usize) -> Option<(Duration, u64)> {
        self.due.first().copied().filter(|_| waiting > self.evicted)
    }
}

impl Books {
    pub(super) fn new(most: Most) -> Self {
        Self { most, ..Self::default() }
    }

    pub(super) const fn unauthenticated(&self) -> usize {
        self.unauthenticated
    }

    pub(super) fn take_wakers(&mut self) -> Wakers {
        std::mem::take(&mut self.wakers)
    }

    /// A transport was accepted. It takes a place when it has something to say. Where too many are
    /// silent or wait, the oldest of them is refused, silent ones first: a flood that goes no
    /// further holds up nobody who does.
    pub(super) fn enter(&mut self, source: Source) -> (u64, Arc<Signal>) {
        let (id, signal) = self.record(source);
        let most = self.most.of(source).saturating_mul(WAITING_PER_PLACE);
        let here = self.sources.entry(source).or_default();
        here.silent.insert(id);
        self.silent.insert(id);
        let oldest = |silent: &BTreeSet<u64>, waiting: &BTreeSet<u64>| {
            let older = silent.first().filter(|first| **first != id);
            older.or_else(|| waiting.first()).copied().unwrap_or(id)
        };
        if here.silent.len() + here.waiting.len() > most {
            let oldest = oldest(&here.silent, &here.waiting);
            self.refuse(oldest);
        } else if self.silent.len() + self.waiting.len() > self.most.inside {
            let oldest = oldest(&self.silent, &self.waiting);
            self.refuse(oldest);
        }
        (id, signal)
    }

    /// A transport that is being closed enters.
    pub(super) fn enter_closing(&mut self, source: Source) -> (u64, Arc<Signal>) {
        let (id, signal) = self.record(source);
        self.close(id);
        (id, signal)
    }

    fn record(&mut self, source: Source) -> (u64, Arc<Signal>) {
        let id = self.next;
        self.next += 1;
        let signal = Arc::<Signal>::default();
        let (phase, of_transport) = (Phase::Silent, Arc::clone(&signal));
        self.transports.insert(id, Record { source, account: None, phase, signal: of_transport });
        self.unauthenticated += 1;
        (id, signal)
    }

    /// One of those that were silent takes a place, or waits for one.
    pub(super) fn heard(&mut self, id: u64, now: Duration) {
        if !self.silent.remove(&id) {
            return;
        }
        let Some(record) = self.transports.get_mut(&id) else { return };
        let source = record.source;
        let here = self.sources.entry(source).or_default();
        here.silent.remove(&id);
        if here.inside.taken < self.most.of(source) && self.inside.taken < self.most.inside {
            return self.admit(id, source, now);
        }
        record.phase = Phase::Waiting;
        record.signal.set(|news| news.standing = Standing::Waiting, &mut self.wakers);
        here.waiting.insert(id);
        self.waiting.insert(id);
        self.queue(source);
        self.evict_overdue(id, now);
    }

    /// It takes a place.
    fn admit(&mut self, id: u64, source: Source, now: Duration) {
        let Some(record) = self.transports.get_mut(&id) else { return };
        let due = now.saturating_add(STEP);
        record.phase = Phase::Inside { since: now, due, evicted: false };
        record.signal.set(|news| news.standing = Standing::Inside, &mut self.wakers);
        self.inside.enter(due, id);
        self.sources.entry(source).or_default().inside.enter(due, id);
    }

    /// Gives a source a turn if it waits, has room, and has none.
    fn queue(&mut self, source: Source) {
        let Some(here) = self.sources.get_mut(&source) else { return };
        let has_room = here.inside.taken < self.most.of(source);
        if has_room && !here.has_turn && !here.waiting.is_empty() {
            here.has_turn = true;
            self.turns.push_back(source);
        }
    }

    /// Gives places that have become free to those who wait, one to each source in turn.
    pub(super) fn fill(&mut self, now: Duration) {
        while self.inside.taken < self.most.inside {
            let Some(source) = self.turns.pop_front() else { return };
            let Some(here) = self.sources.get_mut(&source) else { continue };
            here.has_turn = false;
            if here.inside.taken >= self.most.of(source) {
                continue;
            }
            // The newest: one that has waited long belongs to a crowd that does not move.
            let Some(id) = here.waiting.pop_last() else {
                if here.is_empty() {
                    self.sources.remove(&source);
                }
                continue;
            };
            self.waiting.remove(&id);
            self.admit(id, source, now);
            self.queue(source);
        }
    }

    /// Evicts those who have had their time, as many as others of the source of `id` wait for.
    pub(super) fn evict_overdue(&mut self, id: u64, now: Duration) {
        let Some(source) = self.transports.get(&id).map(|record| record.source) else { return };
        while let Some((due, first)) = self.in_the_way(source)
            && due <= now
        {
            self.evict(first);
        }
    }

    /// When the next in the way of `id` may be evicted.
    pub(super) fn next_eviction(&self, id: u64) -> Option<Duration> {
        self.in_the_way(self.transports.get(&id)?.source).map(|(due, _)| due)
    }

    /// The first to evict in favour of those who wait at `source`, and when.
    fn in_the_way(&self, source: Source) -> Option<(Duration, u64)> {
        let here = self.sources.get(&source)?;
        let waiting = here.waiting.len();
        let is_full = here.inside.taken >= self.most.of(source);
        let first = here.inside.first_for(waiting).filter(|_| is_full);
        let all_full = waiting > 0 && self.inside.taken >= self.most.inside;
        first.or_else(|| self.inside.first_for(self.waiting.len()).filter(|_| all_full))
    }

    /// There is no room for it: it is told so if it has sent a header, or does so soon.
    pub(super) fn refuse(&mut self, id: u64) {
        if let Some(record) = self.transports.get(&id) {
            record.signal.set(|news| news.standing = Standing::Refused, &mut self.wakers);
        }
        self.close(id);
    }

    fn evict(&mut self, id: u64) {
        let Some(record) = self.transports.get_mut(&id) else { return };
        if let Phase::Inside { due, evicted, .. } = &mut record.phase {
            if std::mem::replace(evicted, true) {
                return;
            }
            self.inside.evict(*due, id);
            self.sources.entry(record.source).or_default().inside.evict(*due, id);
        }
        record.signal.set(|news| news.is_cut = true, &mut self.wakers);
    }

    /// It has come a step further, and has more time; all of it while we check its password.
    pub(super) fn progressed(&mut self, id: u64, is_login: bool, now: Duration) {
        let Some(record) = self.transports.get_mut(&id) else { return };
        let Phase::Inside { since, due, evicted: false } = &mut record.phase else { return };
        let all = since.saturating_add(ALL);
        let later = if is_login { all } else { now.saturating_add(STEP).min(all) };
        let before = std::mem::replace(due, later);
        self.inside.postpone(before, later, id);
        self.sources.entry(record.source).or_default().inside.postpone(before, later, id);
    }

    /// LIMIT-26: of too many streams of an account that have no session the oldest goes.
    pub(super) fn authenticated(&mut self, id: u64, account: u64) {
        let Some(record) = self.transports.get_mut(&id) else { return };
        if record.phase == Phase::Closing || record.account.replace(account).is_some() {
            return;
        }
        self.unauthenticated -= 1;
        let streams = self.accounts.entry(account).or_default();
        streams.insert(id);
        let is_surplus = streams.len() > self.most.per_account;
        if let Some(oldest) = streams.first().copied().filter(|_| is_surplus) {
            streams.remove(&oldest);
            self.evict(oldest);
        }
    }

    /// LIMIT-27: it is being closed, and of too many of those the oldest goes at once.
    pub(super) fn close(&mut self, id: u64) {
        if self.transports.get(&id).is_none_or(|record| record.phase == Phase::Closing) {
            return;
        }
        let Some(source) = self.vacate(id) else { return };
        if let Some(record) = self.transports.get(&id) {
            record.signal.set(|news| news.is_cut = false, &mut self.wakers);
        }
        let here = self.sources.entry(source).or_default();
        here.closing.insert(id);
        self.closing.insert(id);
        let is_surplus = here.closing.len() > self.most.of(source);
        let surplus = if is_surplus { here.closing.pop_first() } else { None };
        let surplus = surplus.or_else(|| {
            let is_surplus = self.closing.len() > self.most.inside;
            let id = self.closing.first().copied().filter(|_| is_surplus)?;
            let of = self.transports.get(&id)?.source;
            self.sources.get_mut(&of)?.closing.remove(&id);
            Some(id)
        });
        if let Some(surplus) = surplus {
            self.closing.remove(&surplus);
            self.evict(surplus);
        }
    }

    /// It is gone.
    pub(super) fn leave(&mut self, id: u64) -> Option<Record> {
        let _source = self.vacate(id);
        self.transports.remove(&id)
    }

    /// It is in no more, and waits no more: it is closing, and not counted as such yet.
    fn vacate(&mut self, id: u64) -> Option<Source> {
        let record = self.transports.get_mut(&id)?;
        let source = record.source;
        let phase = std::mem::replace(&mut record.phase, Phase::Closing);
        if phase != Phase::Closing {
            match record.account.take() {
                Some(account) => self.forget_stream(account, id),
                None => self.unauthenticated -= 1,
            }
        }
        let here = self.sources.entry(source).or_default();
        match phase {
            Phase::Silent => {
                self.silent.remove(&id);
                here.silent.remove(&id);
            }
            Phase::Waiting => {
                self.waiting.remove(&id);
                here.waiting.remove(&id);
            }
            Phase::Inside { due, evicted, .. } => {
                self.inside.leave(due, id, evicted);
                here.inside.leave(due, id, evicted);
            }
            Phase::Closing => {
                self.closing.remove(&id);
                here.closing.remove(&id);
            }
        }
        if here.is_empty() {
            self.sources.remove(&source);
        }
        self.queue(source);
        Some(source)
    }

    fn forget_stream(&mut self, account: u64, id: u64) {
        if let Entry::Occupied(mut streams) = self.accounts.entry(account) {
            streams.get_mut().remove(&id);
            if streams.get().is_empty() {
                streams.remove();
            }
        }
    }
}

/// How many may be silent or wait for each place of a source.
const WAITING_PER_PLACE: usize = 10;

/// How long a transport keeps others waiting if it comes no step further.
const STEP: Duration = Duration::from_secs(3);

/// How long it keeps them waiting altogether.
const ALL: Duration = Duration::from_secs(15);
