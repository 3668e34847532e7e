//! The books of the ledger: every transport, by source and by what it does. No clock, no lock but
//! that of the signals.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use smallvec::SmallVec;

use super::{BarNumber, Dismissal, PlaceStanding, Source};
use crate::server::faults::PeerAddress;
use crate::server::limits::Limits;
use crate::server::overview::{Stage, StreamInfo};

#[derive(Default)]
pub(super) struct Books {
    limits: Limits,
    /// The number of the next transport: a lower one is older.
    next: u64,
    transports: HashMap<u64, Record>,
    all: Crowd,
    sources: HashMap<Source, OfSource>,
    /// Authenticated streams without a session.
    accounts: HashMap<u64, BTreeSet<u64>>,
    pub(super) unauthenticated: usize,
    /// Sources that wait and have room: each gets one place in turn.
    turns: VecDeque<Source>,
    /// The server shuts down.
    closing: Option<Dismissal>,
    barred: HashMap<u64, Bar>,
    /// To be woken without the ledger's lock.
    pub(super) wakers: Wakers,
}

type Wakers = SmallVec<[Waker; 4]>;

/// Which streams may not authenticate as an account: what they prove may be out of date.
struct Bar {
    /// Removals of the account that are under way: meanwhile none may.
    removals: usize,
    /// Those with a lower number.
    below: u64,
    until: Duration,
    dismissal: Dismissal,
    /// By which nodes know it.
    number: BarNumber,
}

impl Bar {
    fn is_over(&self, now: Duration) -> bool {
        self.removals == 0 && self.until <= now
    }
}

#[derive(Default)]
struct OfSource {
    crowd: Crowd,
    /// Whether it stands among the turns.
    has_turn: bool,
}

/// Transports by phase: all of them, or those of one source.
#[derive(Default)]
struct Crowd {
    silent: BTreeSet<u64>,
    waiting: BTreeSet<u64>,
    /// Those inside that were evicted, and have not gone.
    evicted: BTreeSet<u64>,
    /// When which of the others inside may be evicted.
    due: BTreeSet<(Duration, u64)>,
    closing: BTreeSet<u64>,
}

/// One transport.
pub(super) struct Record {
    source: Source,
    peer: PeerAddress,
    since: Duration,
    account: Option<u64>,
    /// Its account's home says what becomes of it.
    #[cfg(feature = "cluster")]
    is_away: bool,
    /// Its socket is at its edge, where it is shown.
    #[cfg(feature = "cluster")]
    is_adopted: bool,
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
    /// No longer counted.
    Gone,
}

/// How a transport learns what becomes of it.
#[derive(Default)]
pub(in super::super) struct Signal(Mutex<(News, Option<Waker>)>);

#[derive(Clone, Default)]
pub(in super::super) struct News {
    pub(in super::super) standing: PlaceStanding,
    pub(in super::super) is_cut: bool,
    /// The server closes its stream, unless it binds.
    pub(in super::super) dismissal: Option<Dismissal>,
    /// The stream is about to become a session, and is closed as one.
    pub(in super::super) binds: bool,
}

impl Record {
    fn is_away(&self) -> bool {
        #[cfg(feature = "cluster")]
        return self.is_away;
        #[cfg(not(feature = "cluster"))]
        return false;
    }
}

impl Signal {
    pub(super) fn get(&self) -> News {
        self.0.lock().0.clone()
    }

    /// The same; the waker is kept.
    pub(in super::super) fn poll(&self, cx: Option<&Context<'_>>) -> News {
        // A waker is host code: cloned and dropped without the lock.
        let mut waker = cx.map(|cx| cx.waker().clone());
        let mut state = self.0.lock();
        if waker.is_some() {
            std::mem::swap(&mut state.1, &mut waker);
        }
        state.0.clone()
    }

    /// Begins a bind, which only its outcome ends; `false` if the stream was closed before.
    pub(in super::super) fn begin_bind(&self) -> bool {
        let news = &mut self.0.lock().0;
        news.binds = news.dismissal.is_none();
        news.binds
    }

    /// The bind has ended.
    pub(in super::super) fn end_bind(&self) {
        self.0.lock().0.binds = false;
    }

    fn set(&self, change: impl FnOnce(&mut News), wakers: &mut Wakers) {
        let (news, waker) = &mut *self.0.lock();
        change(news);
        wakers.extend(waker.take());
    }

    fn dismiss(&self, dismissal: &Dismissal, wakers: &mut Wakers) {
        self.set(|news| _ = news.dismissal.get_or_insert_with(|| dismissal.clone()), wakers);
    }
}

impl Crowd {
    /// Enters a transport, or takes it out.
    fn change(&mut self, id: u64, phase: Phase, enters: bool) {
        let set = match phase {
            Phase::Silent => &mut self.silent,
            Phase::Waiting => &mut self.waiting,
            Phase::Inside { evicted: true, .. } => &mut self.evicted,
            Phase::Inside { due, .. } => {
                if enters {
                    self.due.insert((due, id))
                } else {
                    self.due.remove(&(due, id))
                };
                return;
            }
            Phase::Closing => &mut self.closing,
            Phase::Gone => return,
        };
        if enters {
            set.insert(id)
        } else {
            set.remove(&id)
        };
    }

    /// How many places are taken.
    fn inside(&self) -> usize {
        self.due.len() + self.evicted.len()
    }

    fn is_empty(&self) -> bool {
        let sets = [&self.silent, &self.waiting, &self.closing];
        self.inside() == 0 && sets.iter().all(|set| set.is_empty())
    }

    /// Which is to be refused in favour of the newest, if more than `most` are silent or wait: the
    /// oldest, silent ones first.
    fn surplus(&self, newest: u64, most: usize) -> Option<u64> {
        let older = self.silent.first().filter(|first| **first != newest);
        let oldest = older.or_else(|| self.waiting.first()).copied().unwrap_or(newest);
        (self.silent.len() + self.waiting.len() > most).then_some(oldest)
    }

    /// The first to evict in favour of those who wait here, where all of `most` places are taken.
    fn first_to_evict(&self, most: usize) -> Option<(Duration, u64)> {
        let is_needed = self.inside() >= most && self.waiting.len() > self.evicted.len();
        self.due.first().copied().filter(|_| is_needed)
    }

    /// The one to close at once, if more than `most` are closing.
    fn closing_too_long(&self, most: usize) -> Option<u64> {
        self.closing.first().copied().filter(|_| self.closing.len() > most)
    }
}

impl Books {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// A transport was accepted. It takes a place when it has something to say. Where too many are
    /// silent or wait, the oldest of them is refused: a flood that goes no further holds up nobody who
    /// does.
    pub(super) fn enter(
        &mut self,
        source: Source,
        peer: PeerAddress,
        now: Duration,
    ) -> (u64, Arc<Signal>) {
        let (id, signal) = self.record(source, peer, now);
        let most = places(&self.limits, source).saturating_mul(WAITING_PER_PLACE);
        let of_source = self.sources.get(&source).and_then(|here| here.crowd.surplus(id, most));
        if let Some(surplus) =
            of_source.or_else(|| self.all.surplus(id, self.limits.unauthenticated))
        {
            self.refuse(surplus);
        }
        (id, signal)
    }

    /// A transport that is being closed enters.
    pub(super) fn enter_closing(
        &mut self,
        source: Source,
        peer: PeerAddress,
        now: Duration,
    ) -> (u64, Arc<Signal>) {
        let (id, signal) = self.record(source, peer, now);
        self.close(id);
        (id, signal)
    }

    /// A stream of this process enters, of this account: it takes nobody's place, and waits for none.
    pub(super) fn enter_local(&mut self, account: u64, now: Duration) -> (u64, Arc<Signal>) {
        let (id, signal) = self.record(Source::UNNAMED, PeerAddress::UNKNOWN, now);
        self.end(id, Phase::Gone);
        self.authenticated(id, account, now);
        if let Some(record) = self.transports.get_mut(&id) {
            record.account = Some(account);
        }
        (id, signal)
    }

    /// One enters that is counted, and shown, at another node.
    #[cfg(feature = "cluster")]
    pub(super) fn enter_elsewhere(&mut self, now: Duration) -> (u64, Arc<Signal>) {
        let (id, signal) = self.record(Source::UNNAMED, PeerAddress::UNKNOWN, now);
        self.end(id, Phase::Gone);
        if let Some(record) = self.transports.get_mut(&id) {
            record.is_adopted = true;
        }
        (id, signal)
    }

    fn record(&mut self, source: Source, peer: PeerAddress, now: Duration) -> (u64, Arc<Signal>) {
        let id = self.next;
        self.next += 1;
        let signal = Arc::<Signal>::default();
        if let Some(dismissal) = &self.closing {
            signal.dismiss(dismissal, &mut self.wakers);
        }
        let of_transport = Arc::clone(&signal);
        let (account, phase) = (None, Phase::Gone);
        let record = Record {
            source,
            peer,
            since: now,
            account,
            #[cfg(feature = "cluster")]
            is_away: false,
            #[cfg(feature = "cluster")]
            is_adopted: false,
            phase,
            signal: of_transport,
        };
        self.transports.insert(id, record);
        self.unauthenticated += 1;
        self.change_phase(id, Phase::Silent);
        (id, signal)
    }

    /// Moves a transport from one crowd to another, in all and in its source. A source that waits and
    /// has room gets a turn.
    fn change_phase(&mut self, id: u64, phase: Phase) {
        let Some(record) = self.transports.get_mut(&id) else { return };
        let before = std::mem::replace(&mut record.phase, phase);
        let here = self.sources.entry(record.source).or_default();
        for crowd in [&mut self.all, &mut here.crowd] {
            crowd.change(id, before, false);
            crowd.change(id, phase, true);
        }
        let has_room = here.crowd.inside() < places(&self.limits, record.source);
        if has_room && !here.has_turn && !here.crowd.waiting.is_empty() {
            here.has_turn = true;
            self.turns.push_back(record.source);
        } else if !here.has_turn && here.crowd.is_empty() {
            self.sources.remove(&record.source);
        }
    }

    fn tell(&mut self, id: u64, change: impl FnOnce(&mut News)) {
        if let Some(record) = self.transports.get(&id) {
            record.signal.set(change, &mut self.wakers);
        }
    }

    /// One of those that were silent takes a place, or waits for one.
    pub(super) fn heard(&mut self, id: u64, now: Duration) {
        let Some(record) = self.transports.get(&id) else { return };
        if record.phase != Phase::Silent {
            return;
        }
        let most = places(&self.limits, record.source);
        let here = self.sources.get(&record.source);
        let has_room = here.is_some_and(|here| here.crowd.inside() < most);
        if has_room && self.all.inside() < self.limits.unauthenticated {
            return self.admit(id, now);
        }
        self.change_phase(id, Phase::Waiting);
        self.tell(id, |news| news.standing = PlaceStanding::Waiting);
        self.evict_overdue(id, now);
    }

    /// It takes a place.
    fn admit(&mut self, id: u64, now: Duration) {
        let due = now.saturating_add(STEP);
        self.change_phase(id, Phase::Inside { since: now, due, evicted: false });
        self.tell(id, |news| news.standing = PlaceStanding::Inside);
    }

    /// Gives places that have become free to those who wait, one to each source in turn.
    pub(super) fn fill(&mut self, now: Duration) {
        while self.all.inside() < self.limits.unauthenticated {
            let Some(source) = self.turns.pop_front() else { return };
            let Some(here) = self.sources.get_mut(&source) else { continue };
            here.has_turn = false;
            if here.crowd.inside() >= places(&self.limits, source) {
                continue;
            }
            // The newest: one that has waited long belongs to a crowd that does not move.
            if let Some(id) = here.crowd.waiting.last().copied() {
                self.admit(id, now);
            } else if here.crowd.is_empty() {
                self.sources.remove(&source);
            }
        }
    }

    /// Evicts those who have had their time, as many as others of the source of `id` wait for.
    pub(super) fn evict_overdue(&mut self, id: u64, now: Duration) {
        while let Some((due, first)) = self.in_the_way(id)
            && due <= now
        {
            self.evict(first);
        }
    }

    /// The first to evict in favour of those who wait at the source of `id`, and when.
    pub(super) fn in_the_way(&self, id: u64) -> Option<(Duration, u64)> {
        let source = self.transports.get(&id)?.source;
        let here = &self.sources.get(&source)?.crowd;
        let waits = !here.waiting.is_empty();
        let of_all = || self.all.first_to_evict(self.limits.unauthenticated).filter(|_| waits);
        here.first_to_evict(places(&self.limits, source)).or_else(of_all)
    }

    fn evict(&mut self, id: u64) {
        match self.transports.get(&id).map(|record| record.phase) {
            None | Some(Phase::Inside { evicted: true, .. }) => return,
            Some(Phase::Inside { since, due, .. }) => {
                self.change_phase(id, Phase::Inside { since, due, evicted: true });
            }
            Some(Phase::Closing) => self.change_phase(id, Phase::Gone),
            Some(_) => {}
        }
        self.tell(id, |news| news.is_cut = true);
    }

    /// There is no room for it: it is told so if it has sent a header, or does so soon.
    pub(super) fn refuse(&mut self, id: u64) {
        self.tell(id, |news| news.standing = PlaceStanding::Refused);
        self.close(id);
    }

    /// It has come a step further, and has more time; all of it while we check its password.
    pub(super) fn progressed(&mut self, id: u64, is_login: bool, now: Duration) {
        let phase = self.transports.get(&id).map(|record| record.phase);
        let Some(Phase::Inside { since, evicted: false, .. }) = phase else { return };
        let all = since.saturating_add(ALL);
        let due = if is_login { all } else { now.saturating_add(STEP).min(all) };
        self.change_phase(id, Phase::Inside { since, due, evicted: false });
    }

    pub(super) fn dismiss_all(&mut self, dismissal: &Dismissal) {
        self.closing = Some(dismissal.clone());
        for record in self.transports.values() {
            record.signal.dismiss(dismissal, &mut self.wakers);
        }
    }

    /// Whether nobody may authenticate as an account.
    pub(super) fn is_closed_to(&self, account: u64) -> bool {
        self.barred.get(&account).is_some_and(|bar| bar.removals > 0)
    }

    pub(super) fn dismiss(&mut self, account: u64, dismissal: &Dismissal) {
        let is_meant = |record: &&Record| record.account == Some(account) && !record.is_away();
        for record in self.transports.values().filter(is_meant) {
            record.signal.dismiss(dismissal, &mut self.wakers);
        }
    }

    pub(super) fn bar(
        &mut self,
        account: u64,
        dismissal: Dismissal,
        time: Option<Duration>,
        number: BarNumber,
        now: Duration,
    ) {
        self.barred.retain(|_, bar| !bar.is_over(now));
        self.dismiss(account, &dismissal);
        let (below, dismissed) = (self.next, dismissal.clone());
        let none = || Bar { removals: 0, below: 0, until: now, dismissal: dismissed, number };
        let bar = self.barred.entry(account).or_insert_with(none);
        match time {
            Some(time) => {
                (bar.below, bar.number) = (below, number);
                bar.until = bar.until.max(now.saturating_add(time));
            }
            None => bar.removals += 1,
        }
        if time.is_none() || bar.removals == 0 {
            bar.dismissal = dismissal;
        }
    }

    /// As [`dismiss`](Self::dismiss), also those that authenticated elsewhere before they have heard of this by its
    /// number, and come within this time.
    #[cfg(feature = "cluster")]
    pub(super) fn dismiss_coming(
        &mut self,
        account: u64,
        dismissal: &Dismissal,
        (time, number): (Duration, BarNumber),
        now: Duration,
    ) {
        self.dismiss(account, dismissal);
        self.barred.retain(|_, bar| !bar.is_over(now));
        let dismissal = dismissal.clone();
        let none = Bar { removals: 0, below: 0, until: now, dismissal: dismissal.clone(), number };
        let bar = self.barred.entry(account).or_insert(none);
        bar.number = number;
        bar.until = bar.until.max(now.saturating_add(time));
        if bar.removals == 0 {
            bar.dismissal = dismissal;
        }
    }

    /// One of the removals is over.
    pub(super) fn unbar(&mut self, account: u64, now: Duration) {
        if let Some(bar) = self.barred.get_mut(&account) {
            bar.removals = bar.removals.saturating_sub(1);
        }
        self.barred.retain(|_, bar| !bar.is_over(now));
    }

    /// LIMIT-26: of too many streams of an account that have no session the oldest goes.
    pub(super) fn authenticated(&mut self, id: u64, account: u64, now: Duration) {
        let Some(record) = self.transports.get_mut(&id) else { return };
        let bar = self.barred.get(&account);
        if let Some(bar) = bar.filter(|bar| bar.removals > 0 || (id < bar.below && now < bar.until))
        {
            record.signal.dismiss(&bar.dismissal, &mut self.wakers);
        }
        if record.phase.is_over() || record.account.replace(account).is_some() {
            return;
        }
        self.unauthenticated -= 1;
        let streams = self.accounts.entry(account).or_default();
        streams.insert(id);
        let is_surplus = streams.len() > self.limits.unbound_per_account;
        if let Some(oldest) = streams.first().copied().filter(|_| is_surplus) {
            streams.remove(&oldest);
            self.evict(oldest);
        }
    }

    /// Its stream goes on where its account lives, and is dismissed there. Which bar it has been held against.
    #[cfg(feature = "cluster")]
    pub(super) fn goes_away(&mut self, id: u64, account: u64, now: Duration) -> Option<BarNumber> {
        self.transports.get_mut(&id)?.is_away = true;
        self.held_against(id, account, now)
    }

    /// Which bar of its account it has been held against; one that is dismissed already, against none.
    #[cfg(feature = "cluster")]
    pub(super) fn held_against(&self, id: u64, account: u64, now: Duration) -> Option<BarNumber> {
        let record = self.transports.get(&id)?;
        let is_dismissed = record.signal.get().dismissal.is_some();
        let bar = self.barred.get(&account).filter(|bar| now < bar.until && !is_dismissed);
        bar.map(|bar| bar.number)
    }

    /// A stream has come from where it authenticated, and was held against this bar there. A later one holds it here:
    /// what it has proved may be out of date.
    #[cfg(feature = "cluster")]
    pub(super) fn adopted(
        &mut self,
        id: u64,
        account: u64,
        held_against: Option<BarNumber>,
        now: Duration,
    ) {
        let Some(record) = self.transports.get_mut(&id) else { return };
        record.is_adopted = true;
        let bar = self.barred.get(&account).filter(|bar| now < bar.until);
        if let Some(bar) = bar.filter(|bar| held_against != Some(bar.number)) {
            record.signal.dismiss(&bar.dismissal, &mut self.wakers);
        }
    }

    /// Its client could not have what it asked for with its authentication.
    pub(super) fn unauthenticated(&mut self, id: u64) {
        let Some(record) = self.transports.get_mut(&id) else { return };
        #[cfg(feature = "cluster")]
        (record.is_away = false);
        if record.phase.is_over() {
            return;
        }
        if let Some(account) = record.account.take() {
            self.leave_account(id, account);
            self.unauthenticated += 1;
        }
    }

    /// A stream is no longer that of an account.
    fn leave_account(&mut self, id: u64, account: u64) {
        if let Entry::Occupied(mut streams) = self.accounts.entry(account) {
            streams.get_mut().remove(&id);
            if streams.get().is_empty() {
                streams.remove();
            }
        }
    }

    /// LIMIT-27: it is being closed, and of too many of those the oldest goes at once.
    pub(super) fn close(&mut self, id: u64) {
        let Some(source) = self.end(id, Phase::Closing) else { return };
        self.tell(id, |news| news.is_cut = false);
        let most = places(&self.limits, source);
        let of_source =
            self.sources.get(&source).and_then(|here| here.crowd.closing_too_long(most));
        if let Some(id) =
            of_source.or_else(|| self.all.closing_too_long(self.limits.unauthenticated))
        {
            self.evict(id);
        }
    }

    /// All that serve no session, in no order.
    pub(super) fn streams(&self) -> Vec<StreamInfo> {
        let stream = |(number, record): (&u64, &Record)| {
            #[cfg(feature = "cluster")]
            if record.is_adopted {
                return None;
            }
            let stage = match (record.phase, record.account) {
                (Phase::Closing, _) => Stage::Closing,
                (_, Some(_)) => Stage::Authenticated,
                (Phase::Gone, None) => return None,
                (_, None) => Stage::Unauthenticated,
            };
            let (peer, since) = (record.peer.clone(), record.since);
            Some(StreamInfo { number: *number, peer, stage, since })
        };
        self.transports.iter().filter_map(stream).collect()
    }

    /// It has gone.
    pub(super) fn leave(&mut self, id: u64) -> Option<Record> {
        if self.end(id, Phase::Gone).is_none() {
            self.change_phase(id, Phase::Gone);
        }
        self.transports.remove(&id)
    }

    /// Takes it out of those that are inside or wait, if it is one of them.
    fn end(&mut self, id: u64, phase: Phase) -> Option<Source> {
        let record = self.transports.get_mut(&id).filter(|record| !record.phase.is_over())?;
        let source = record.source;
        match record.account.take() {
            None => self.unauthenticated -= 1,
            Some(account) => self.leave_account(id, account),
        }
        self.change_phase(id, phase);
        Some(source)
    }
}

/// How many places a source has.
fn places(limits: &Limits, source: Source) -> usize {
    if source == Source::UNNAMED { usize::MAX } else { limits.unauthenticated_per_source }
}

impl Phase {
    const fn is_over(self) -> bool {
        matches!(self, Self::Closing | Self::Gone)
    }
}

/// How many may be silent or wait for each place of a source.
const WAITING_PER_PLACE: usize = 10;

/// How long a transport keeps others waiting if it comes no step further.
const STEP: Duration = Duration::from_secs(3);

/// How long it keeps them waiting altogether.
const ALL: Duration = Duration::from_secs(15);
