//! The ledger of transports that serve no session: who may be in, who waits, who is being closed.

use std::collections::hash_map::{Entry, RandomState};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::hash::BuildHasher;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use jid::BareJid;
use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::environment::Environment;
use crate::server::limits::Limits;

/// Where a transport comes from: a keyed hash of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Source(u64);

impl Source {
    /// The host has not said. All of these are one source, and no limit is that of a source.
    const UNNAMED: Self = Self(0);

    pub(super) const fn key(self) -> u64 {
        self.0
    }
}

/// Counts transports from when they are accepted until they are gone, but for the time in which they
/// serve a session (LIMIT-25…27).
pub(in crate::server) struct Ledger {
    environment: Arc<dyn Environment>,
    hasher: RandomState,
    most: usize,
    most_per_source: usize,
    most_per_account: usize,
    books: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    /// The number of the next seat.
    next: u64,
    seats: HashMap<u64, Seat>,
    /// Those that have said nothing yet, the oldest first.
    silent: BTreeSet<u64>,
    inside: Pot,
    waiting: BTreeSet<u64>,
    closing: BTreeSet<u64>,
    sources: HashMap<Source, Here>,
    /// Authenticated streams without a session, the oldest first.
    accounts: HashMap<u64, BTreeSet<u64>>,
    unauthenticated: usize,
    /// Sources that wait and have room: each gets one place in turn.
    turns: VecDeque<Source>,
}

/// Places that are taken.
#[derive(Default)]
struct Pot {
    taken: usize,
    /// Those that were told to go, and have not gone.
    yielding: usize,
    /// When which of the others has had its time.
    due: BTreeSet<(Duration, u64)>,
}

/// The transports of one source.
#[derive(Default)]
struct Here {
    silent: BTreeSet<u64>,
    inside: Pot,
    waiting: BTreeSet<u64>,
    closing: BTreeSet<u64>,
    /// Whether it stands among the turns.
    has_turn: bool,
}

struct Seat {
    source: Source,
    account: Option<u64>,
    phase: Phase,
    signal: Arc<Signal>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Silent,
    Waiting,
    /// It may be asked to yield from then on.
    Inside {
        since: Duration,
        due: Duration,
        yields: bool,
    },
    Closing,
}

/// How a transport learns what becomes of it.
#[derive(Default)]
struct Signal(Mutex<State>);

#[derive(Default)]
struct State {
    standing: Standing,
    is_cut: bool,
    waker: Option<Waker>,
}

/// Where a transport stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has said nothing, and takes nobody's place.
    #[default]
    Silent,
    /// What it says waits.
    Waiting,
    Inside,
    /// There is no room for it.
    Refused,
}

/// Who is to be woken, without the ledger's lock.
type Wakers = SmallVec<[Waker; 4]>;

impl Signal {
    fn tell(&self, change: impl FnOnce(&mut State), wakers: &mut Wakers) {
        let mut state = self.0.lock();
        change(&mut state);
        wakers.extend(state.waker.take());
    }
}

impl Here {
    fn is_empty(&self) -> bool {
        let sets = [&self.silent, &self.waiting, &self.closing];
        let nobody = self.inside.taken == 0 && sets.iter().all(|set| set.is_empty());
        nobody && !self.has_turn
    }
}

impl Pot {
    fn enter(&mut self, due: Duration, id: u64) {
        self.taken += 1;
        self.due.insert((due, id));
    }

    fn leave(&mut self, due: Duration, id: u64, yields: bool) {
        self.taken -= 1;
        self.due.remove(&(due, id));
        self.yielding -= usize::from(yields);
    }

    /// The first that may be told to go in favour of so many who wait.
    fn first_for(&self, waiting: usize) -> Option<(Duration, u64)> {
        self.due.first().copied().filter(|_| waiting > self.yielding)
    }
}

impl Ledger {
    pub(in crate::server) fn new(limits: &Limits, environment: Arc<dyn Environment>) -> Self {
        Self {
            environment,
            hasher: RandomState::new(),
            most: limits.unauthenticated,
            most_per_source: limits.unauthenticated_per_source,
            most_per_account: limits.unbound_per_account,
            books: Mutex::default(),
        }
    }

    /// The source that a host's name for it means: of an IP address the whole of IPv4, and of IPv6
    /// the /64 that one subscriber usually has.
    pub(super) fn source(&self, name: Option<&str>) -> Source {
        let Some(name) = name else { return Source::UNNAMED };
        let hash = match address(name).map(|address| address.to_canonical()) {
            Some(IpAddr::V4(address)) => self.hasher.hash_one(address),
            Some(IpAddr::V6(address)) => {
                let [a, b, c, d, ..] = address.segments();
                self.hasher.hash_one([a, b, c, d])
            }
            None => self.hasher.hash_one(name),
        };
        Source(hash | 1)
    }

    /// An account as the ledgers know it; never a source.
    pub(super) fn account(&self, account: &BareJid) -> u64 {
        self.hasher.hash_one(account.as_str()) & !1
    }

    /// Transports that are not authenticated, those that wait included.
    pub(in crate::server) fn unauthenticated(&self) -> usize {
        self.books.lock().unauthenticated
    }

    fn most_of(&self, source: Source, most: usize) -> usize {
        if source == Source::UNNAMED { usize::MAX } else { most }
    }

    /// A transport is accepted. It takes a place when it has something to say. Where too many are
    /// silent or wait, the oldest of them is refused, those that are silent first: a flood that goes
    /// no further holds up nobody who does.
    pub(super) fn enter(self: &Arc<Self>, source: Source) -> Place {
        self.change(|books, _, wakers| {
            let id = books.seat(source);
            let place = books.place(self, id);
            let most = self.most_of(source, self.most_per_source.saturating_mul(WAITING_PER_PLACE));
            let here = books.sources.entry(source).or_default();
            here.silent.insert(id);
            books.silent.insert(id);
            let surplus = if here.silent.len() + here.waiting.len() > most {
                here.silent.first().filter(|first| **first != id).or_else(|| here.waiting.first())
            } else if books.silent.len() + books.waiting.len() > self.most {
                books.silent.first().filter(|first| **first != id).or_else(|| books.waiting.first())
            } else {
                return place;
            };
            let surplus = surplus.copied().unwrap_or(id);
            books.refuse(self, surplus, wakers);
            place
        })
    }

    /// A transport that served a session is being closed.
    pub(super) fn closing(self: &Arc<Self>, source: Source) -> Place {
        self.change(|books, _, wakers| {
            let id = books.seat(source);
            books.close(self, id, wakers);
            books.place(self, id)
        })
    }

    fn change<T>(&self, change: impl FnOnce(&mut Books, Duration, &mut Wakers) -> T) -> T {
        let now = self.environment.now();
        let mut wakers = Wakers::new();
        let mut books = self.books.lock();
        let done = change(&mut books, now, &mut wakers);
        books.fill(self, now, &mut wakers);
        drop(books);
        wakers.into_iter().for_each(Waker::wake);
        done
    }
}

impl Books {
    fn seat(&mut self, source: Source) -> u64 {
        let id = self.next;
        self.next += 1;
        let signal = Arc::default();
        let phase = Phase::Silent;
        self.seats.insert(id, Seat { source, account: None, phase, signal });
        self.unauthenticated += 1;
        id
    }

    fn place(&self, ledger: &Arc<Ledger>, id: u64) -> Place {
        let signal = self.seats.get(&id).map(|seat| Arc::clone(&seat.signal)).unwrap_or_default();
        Place(Arc::new(Held { ledger: Arc::clone(ledger), id, signal }))
    }

    /// One of those that were silent takes a place, or waits for one.
    fn heard(&mut self, ledger: &Ledger, id: u64, now: Duration, wakers: &mut Wakers) {
        if !self.silent.remove(&id) {
            return;
        }
        let Some(seat) = self.seats.get_mut(&id) else { return };
        let source = seat.source;
        let most = ledger.most_of(source, ledger.most_per_source);
        let here = self.sources.entry(source).or_default();
        here.silent.remove(&id);
        if here.inside.taken < most && self.inside.taken < ledger.most {
            return self.admit(id, source, now, wakers);
        }
        seat.phase = Phase::Waiting;
        seat.signal.tell(|state| state.standing = Standing::Waiting, wakers);
        here.waiting.insert(id);
        self.waiting.insert(id);
        self.take_turn(source, most);
        self.press(ledger, source, now, wakers);
    }

    /// It takes a place.
    fn admit(&mut self, id: u64, source: Source, now: Duration, wakers: &mut Wakers) {
        let Some(seat) = self.seats.get_mut(&id) else { return };
        let due = now.saturating_add(STEP);
        seat.phase = Phase::Inside { since: now, due, yields: false };
        seat.signal.tell(|state| state.standing = Standing::Inside, wakers);
        self.inside.enter(due, id);
        self.sources.entry(source).or_default().inside.enter(due, id);
    }

    fn take_turn(&mut self, source: Source, most: usize) {
        let Some(here) = self.sources.get_mut(&source) else { return };
        let may = !here.has_turn && !here.waiting.is_empty() && here.inside.taken < most;
        if may {
            here.has_turn = true;
            self.turns.push_back(source);
        }
    }

    /// Gives places that have become free to those who wait, one to each source in turn.
    fn fill(&mut self, ledger: &Ledger, now: Duration, wakers: &mut Wakers) {
        while self.inside.taken < ledger.most {
            let Some(source) = self.turns.pop_front() else { return };
            let most = ledger.most_of(source, ledger.most_per_source);
            let Some(here) = self.sources.get_mut(&source) else { continue };
            here.has_turn = false;
            if here.inside.taken >= most {
                continue;
            }
            // The last to come: who has waited long has come in a crowd that does not move.
            let Some(id) = here.waiting.pop_last() else {
                if here.is_empty() {
                    self.sources.remove(&source);
                }
                continue;
            };
            self.waiting.remove(&id);
            self.admit(id, source, now, wakers);
            self.take_turn(source, most);
        }
    }

    /// Tells those to go who have had their time, as many as others wait for.
    fn press(&mut self, ledger: &Ledger, source: Source, now: Duration, wakers: &mut Wakers) {
        while let Some((due, id)) = self.in_the_way(ledger, source) {
            if due > now {
                return;
            }
            self.tell_to_go(id, wakers);
        }
    }

    /// Who is to go first in favour of those who wait at `source`, and when.
    fn in_the_way(&self, ledger: &Ledger, source: Source) -> Option<(Duration, u64)> {
        let here = self.sources.get(&source)?;
        let waiting = here.waiting.len();
        let is_full = here.inside.taken >= ledger.most_of(source, ledger.most_per_source);
        let first = here.inside.first_for(waiting).filter(|_| is_full);
        let all_full = waiting > 0 && self.inside.taken >= ledger.most;
        first.or_else(|| self.inside.first_for(self.waiting.len()).filter(|_| all_full))
    }

    /// There is no room for it: it is told so if it has said a header, or does so soon.
    fn refuse(&mut self, ledger: &Ledger, id: u64, wakers: &mut Wakers) {
        if let Some(seat) = self.seats.get(&id) {
            seat.signal.tell(|state| state.standing = Standing::Refused, wakers);
        }
        self.close(ledger, id, wakers);
    }

    fn tell_to_go(&mut self, id: u64, wakers: &mut Wakers) {
        let Some(seat) = self.seats.get_mut(&id) else { return };
        if let Phase::Inside { due, yields, .. } = &mut seat.phase {
            if std::mem::replace(yields, true) {
                return;
            }
            let here = self.sources.entry(seat.source).or_default();
            for pot in [&mut self.inside, &mut here.inside] {
                pot.due.remove(&(*due, id));
                pot.yielding += 1;
            }
        }
        seat.signal.tell(|state| state.is_cut = true, wakers);
    }

    /// It has come a step further: it has more time, and as long as we check its password all of it.
    fn spoke(&mut self, id: u64, is_login: bool, now: Duration) {
        let Some(seat) = self.seats.get_mut(&id) else { return };
        let Phase::Inside { since, due, yields: false } = &mut seat.phase else { return };
        let all = since.saturating_add(ALL);
        let later = if is_login { all } else { now.saturating_add(STEP).min(all) };
        let before = std::mem::replace(due, later);
        let here = self.sources.entry(seat.source).or_default();
        for pot in [&mut self.inside, &mut here.inside] {
            pot.due.remove(&(before, id));
            pot.due.insert((later, id));
        }
    }

    /// LIMIT-26: of too many streams of an account that have no session the oldest goes.
    fn authenticated(&mut self, ledger: &Ledger, id: u64, account: u64, wakers: &mut Wakers) {
        let Some(seat) = self.seats.get_mut(&id) else { return };
        if seat.phase == Phase::Closing || seat.account.replace(account).is_some() {
            return;
        }
        self.unauthenticated -= 1;
        let streams = self.accounts.entry(account).or_default();
        streams.insert(id);
        let oldest = streams.first().copied().filter(|_| streams.len() > ledger.most_per_account);
        if let Some(oldest) = oldest {
            streams.remove(&oldest);
            self.tell_to_go(oldest, wakers);
        }
    }

    /// It is in no more, and waits no more.
    fn vacate(&mut self, ledger: &Ledger, id: u64) -> Option<Source> {
        let seat = self.seats.get_mut(&id)?;
        let (source, phase) = (seat.source, std::mem::replace(&mut seat.phase, Phase::Closing));
        if phase == Phase::Closing {
            self.closing.remove(&id);
        } else if let Some(account) = seat.account.take() {
            if let Entry::Occupied(mut streams) = self.accounts.entry(account) {
                streams.get_mut().remove(&id);
                if streams.get().is_empty() {
                    streams.remove();
                }
            }
        } else {
            self.unauthenticated -= 1;
        }
        if let Entry::Occupied(mut entry) = self.sources.entry(source) {
            let here = entry.get_mut();
            match phase {
                Phase::Silent => {
                    self.silent.remove(&id);
                    here.silent.remove(&id);
                }
                Phase::Waiting => {
                    self.waiting.remove(&id);
                    here.waiting.remove(&id);
                }
                Phase::Inside { due, yields, .. } => {
                    self.inside.leave(due, id, yields);
                    here.inside.leave(due, id, yields);
                }
                Phase::Closing => {
                    here.closing.remove(&id);
                }
            }
            if here.is_empty() {
                entry.remove();
            }
        }
        self.take_turn(source, ledger.most_of(source, ledger.most_per_source));
        Some(source)
    }

    /// LIMIT-27: it is being closed, and of too many of those the oldest goes at once.
    fn close(&mut self, ledger: &Ledger, id: u64, wakers: &mut Wakers) {
        if self.seats.get(&id).is_none_or(|seat| seat.phase == Phase::Closing) {
            return;
        }
        let Some(source) = self.vacate(ledger, id) else { return };
        if let Some(seat) = self.seats.get(&id) {
            seat.signal.tell(|state| state.is_cut = false, wakers);
        }
        let here = self.sources.entry(source).or_default();
        here.closing.insert(id);
        self.closing.insert(id);
        let most = ledger.most_of(source, ledger.most_per_source);
        let surplus = if here.closing.len() > most { here.closing.pop_first() } else { None };
        let surplus = surplus.or_else(|| {
            let id = self.closing.first().copied().filter(|_| self.closing.len() > ledger.most)?;
            let of = self.seats.get(&id)?.source;
            self.sources.get_mut(&of)?.closing.remove(&id);
            Some(id)
        });
        if let Some(surplus) = surplus {
            self.closing.remove(&surplus);
            self.tell_to_go(surplus, wakers);
        }
    }
}

/// A transport's place in the server's count of those that serve no session (LIMIT-25…27). It is
/// given up when the last clone is dropped: a host that lets go of its driver before its socket keeps
/// one until the socket is closed.
#[derive(Clone)]
#[must_use = "dropping the place says that the transport is gone"]
pub struct Place(Arc<Held>);

struct Held {
    ledger: Arc<Ledger>,
    id: u64,
    signal: Arc<Signal>,
}

impl Place {
    /// Ready when the transport is to be closed without any further wait: others need its place, or
    /// too many are being closed.
    pub fn poll_cut(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self.poll(Some(cx)) {
            (_, true) => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }

    /// Whether the transport is to be closed without any further wait.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.0.signal.0.lock().is_cut
    }

    /// Whether there was no room for it: it is told so if it says a header, and nothing else is done.
    pub(super) fn is_refused(&self) -> bool {
        self.standing() == Standing::Refused
    }

    pub(super) fn standing(&self) -> Standing {
        self.0.signal.0.lock().standing
    }

    /// Where it stands, and whether it is to go; the waker is kept.
    pub(super) fn poll(&self, cx: Option<&Context<'_>>) -> (Standing, bool) {
        // A waker is host code: cloned and dropped without the lock.
        let waker = cx.map(|cx| cx.waker().clone());
        let mut state = self.0.signal.0.lock();
        let found = (state.standing, state.is_cut);
        let old = match waker {
            Some(waker) => state.waker.replace(waker),
            None => None,
        };
        drop(state);
        drop(old);
        found
    }

    /// It has something to say.
    pub(super) fn heard(&self) -> Standing {
        if self.standing() == Standing::Silent {
            let (ledger, id) = (&self.0.ledger, self.0.id);
            ledger.change(|books, now, wakers| books.heard(ledger, id, now, wakers));
        }
        self.standing()
    }

    pub(super) fn spoke(&self, is_login: bool) {
        let now = self.0.ledger.environment.now();
        self.0.ledger.books.lock().spoke(self.0.id, is_login, now);
    }

    pub(super) fn authenticated(&self, account: u64) {
        let (ledger, id) = (&self.0.ledger, self.0.id);
        ledger.change(|books, _, wakers| books.authenticated(ledger, id, account, wakers));
    }

    /// The transport is being closed: from now on it counts as one of those.
    pub(super) fn close(&self) {
        let (ledger, id) = (&self.0.ledger, self.0.id);
        ledger.change(|books, _, wakers| books.close(ledger, id, wakers));
    }

    /// It has waited for too long.
    pub(super) fn refuse(&self) {
        let (ledger, id) = (&self.0.ledger, self.0.id);
        ledger.change(|books, _, wakers| books.refuse(ledger, id, wakers));
    }

    /// When [`press`](Self::press) has somebody to tell to go, for one that waits.
    pub(super) fn press_at(&self) -> Option<Duration> {
        if self.standing() != Standing::Waiting {
            return None;
        }
        let books = self.0.ledger.books.lock();
        let source = books.seats.get(&self.0.id)?.source;
        books.in_the_way(&self.0.ledger, source).map(|(due, _)| due)
    }

    /// Tells those to go who have had their time.
    pub(super) fn press(&self) {
        let (ledger, id) = (&self.0.ledger, self.0.id);
        ledger.change(|books, now, wakers| {
            if let Some(source) = books.seats.get(&id).map(|seat| seat.source) {
                books.press(ledger, source, now, wakers);
            }
        });
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("standing", &self.standing()).finish_non_exhaustive()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let gone = self.ledger.change(|books, _, _| {
            let _source = books.vacate(&self.ledger, self.id);
            books.seats.remove(&self.id)
        });
        // With its waker, hence without the lock.
        drop(gone);
    }
}

/// An IP address as hosts write it: alone, in brackets, with a port, with a zone.
fn address(name: &str) -> Option<IpAddr> {
    if let Ok(address) = name.parse::<SocketAddr>() {
        return Some(address.ip());
    }
    let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.split('%').next()?.parse().ok()
}

/// How many may be silent or wait for each place of a source.
const WAITING_PER_PLACE: usize = 10;

/// How long a transport keeps others waiting if it comes no step further.
const STEP: Duration = Duration::from_secs(3);

/// How long at all.
const ALL: Duration = Duration::from_secs(15);
