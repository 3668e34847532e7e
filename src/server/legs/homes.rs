//! The home: for each client of an account that lives here a driver that is adopted, wherever its socket is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use parking_lot::Mutex;

use super::{Adoption, SaidDown};
use crate::cluster::leg::{Broken, Down, HomeEnd, LegId, Up};
use crate::cluster::{Incarnation, Slot};
use crate::connection::{Close, SharedConnection};
use crate::outbox::{Drain, Marks, Outbox};
use crate::server::Core;
use crate::server::driver::{Driver, Want};
use crate::session::HostCode;

/// The clients whose accounts live at this node. It belongs to whoever drives the node.
pub(in crate::server) struct Homes<C: SharedConnection> {
    pub(super) core: Arc<Core<C>>,
    pub(super) connect: fn(Arc<Outbox>) -> C,
    pub(super) marks: Marks,
    pub(super) homes: BTreeMap<LegId, Home<C>>,
    /// The same, by their slots.
    pub(super) of_slots: BTreeSet<(Slot, LegId)>,
    ready: Arc<Ready>,
    timers: BTreeSet<(Duration, LegId)>,
    pub(super) said: Vec<SaidDown>,
}

/// Those that have something to do.
struct Ready {
    legs: Mutex<BTreeSet<LegId>>,
    wake: Box<dyn Fn() + Send + Sync>,
}

/// Wakes one of them.
struct Bell(Arc<Ready>, LegId);

pub(super) struct Home<C: SharedConnection> {
    pub(super) slot: Slot,
    pub(super) driver: Driver<C>,
    pub(super) drain: Drain,
    pub(super) end: HomeEnd,
    /// What was not read yet.
    pub(super) input: VecDeque<Input>,
    pub(super) is_bound: bool,
    pub(super) due: Option<Duration>,
}

pub(super) enum Input {
    Bytes(Arc<[u8]>),
    End,
}

impl Input {
    pub(super) fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::End => None,
        }
    }
}

impl Ready {
    fn ring(&self, leg: LegId) {
        if self.legs.lock().insert(leg) {
            (self.wake)();
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.ring(self.1);
    }
}

impl<C: SharedConnection> Homes<C> {
    /// `wake`: whoever drives the node is to [`run`](Self::run) it.
    pub(in crate::server) fn new(
        core: Arc<Core<C>>,
        connect: fn(Arc<Outbox>) -> C,
        marks: Marks,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let ready = Arc::new(Ready { legs: Mutex::default(), wake: Box::new(wake) });
        let (homes, timers, said) = (BTreeMap::new(), BTreeSet::new(), Vec::new());
        let of_slots = BTreeSet::new();
        Self { core, connect, marks, homes, of_slots, ready, timers, said }
    }

    /// What has been said since, in its order.
    pub(in crate::server) fn take_said(&mut self) -> Vec<SaidDown> {
        std::mem::take(&mut self.said)
    }

    #[cfg(test)]
    pub(in crate::server) fn len(&self) -> usize {
        self.homes.len()
    }

    /// An edge says something. It is done when it has a place here, from where it moves with the slot.
    pub(in crate::server) fn handle_up(&mut self, slot: Slot, leg: LegId, number: u64, said: Up) {
        if let (Up::Open(known), 0) = (&said, number) {
            return self.open(slot, leg, known);
        }
        let Some(home) = self.homes.get_mut(&leg) else {
            // It was lost, or is of before a slot began anew here. The last number fits whatever came before.
            if said != Up::Gone {
                self.said.push(SaidDown { slot, leg, number: u64::MAX, said: CLOSED });
            }
            return;
        };
        match home.takes(number, said) {
            Ok(true) => self.ready.ring(leg),
            Ok(false) => self.remove(leg),
            Err(Broken) => {
                self.remove(leg);
                self.said.push(SaidDown { slot, leg, number: u64::MAX, said: CLOSED });
            }
        }
    }

    fn open(&mut self, slot: Slot, leg: LegId, known: &[u8]) {
        let adoption = Adoption::decode(known, |account| self.core.policy_for(account));
        let Some(adoption) = adoption.filter(|_| !self.homes.contains_key(&leg)) else {
            self.remove(leg);
            self.said.push(SaidDown { slot, leg, number: u64::MAX, said: CLOSED });
            return;
        };
        let mut end = HomeEnd::default();
        // That it has come was not asked.
        let _first = end.hears(0);
        let (outbox, drain) = Outbox::of_leg(self.marks, adoption.framing);
        let connect = || (self.connect)(outbox);
        let account = Some(&adoption.account);
        let Some(connection) = self.core.shielded(HostCode::Connection, account, connect) else {
            self.said.push(SaidDown { slot, leg, number: u64::MAX, said: CLOSED });
            return;
        };
        let driver = Driver::adopted(Arc::clone(&self.core), connection, adoption);
        let (input, is_bound, due) = (VecDeque::new(), false, None);
        self.put(leg, Home { slot, driver, drain, end, input, is_bound, due });
        self.ready.ring(leg);
    }

    /// Goes on with all that have something to do and whose slot is still: of one that moves nothing is read or said.
    pub(in crate::server) fn run(&mut self, is_still: impl Fn(Slot) -> bool) {
        let legs = std::mem::take(&mut *self.ready.legs.lock());
        let mut later = BTreeSet::new();
        for leg in legs {
            let Some(home) = self.homes.get_mut(&leg) else { continue };
            if !is_still(home.slot) {
                later.insert(leg);
                continue;
            }
            let waker = Waker::from(Arc::new(Bell(Arc::clone(&self.ready), leg)));
            let mut said = Vec::new();
            let goes_on = home.advance(&mut Context::from_waker(&waker), &mut said);
            let slot = home.slot;
            for said in said {
                let number = home.end.says();
                self.said.push(SaidDown { slot, leg, number, said });
            }
            if goes_on {
                self.note_timeout(leg);
            } else {
                self.remove(leg);
            }
        }
        self.ready.legs.lock().append(&mut later);
    }

    fn note_timeout(&mut self, leg: LegId) {
        let Some(home) = self.homes.get_mut(&leg) else { return };
        let due = home.driver.next_timeout();
        if due == home.due {
            return;
        }
        if let Some(before) = std::mem::replace(&mut home.due, due) {
            self.timers.remove(&(before, leg));
        }
        self.timers.extend(due.map(|due| (due, leg)));
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub(in crate::server) fn next_timeout(&self) -> Option<Duration> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// Of those whose slot is still. The others are looked at when it is [`opened`](Self::opened) again.
    pub(in crate::server) fn handle_timeout(
        &mut self,
        now: Duration,
        is_still: impl Fn(Slot) -> bool,
    ) {
        while let Some((due, leg)) = self.timers.first().copied().filter(|(due, _)| *due <= now) {
            self.timers.remove(&(due, leg));
            let Some(home) = self.homes.get_mut(&leg) else { continue };
            home.due = None;
            if is_still(home.slot) {
                home.driver.handle_timeout();
                self.ready.ring(leg);
            }
        }
    }

    /// A slot is open.
    pub(in crate::server) fn opened(&self, slot: Slot) {
        self.of_slot(slot).for_each(|leg| self.ready.ring(leg));
    }

    /// A slot is about to be [`opened`](Self::opened), after it has stood for so long.
    pub(in crate::server) fn thaw(&mut self, slot: Slot, stood: Duration) {
        for leg in self.of_slot(slot).collect::<Vec<_>>() {
            self.homes.get_mut(&leg).into_iter().for_each(|home| home.driver.thaw(stood));
        }
    }

    /// A slot is elsewhere now, or nowhere: nothing is said.
    pub(in crate::server) fn give_up(&mut self, slot: Slot) {
        for leg in self.of_slot(slot).collect::<Vec<_>>() {
            self.take(leg).into_iter().for_each(|home| home.driver.let_go());
        }
    }

    /// Those edges are no more by the time the clients of a slot have come here.
    pub(in crate::server) fn lose_edges(
        &mut self,
        slot: Slot,
        is_there: impl Fn(Incarnation) -> bool,
    ) {
        for leg in self.of_slot(slot).filter(|leg| !is_there(leg.edge)).collect::<Vec<_>>() {
            self.remove(leg);
        }
    }

    /// An edge is lost, and so are the transports of its clients (NODE-13).
    pub(in crate::server) fn edge_lost(&mut self, edge: Incarnation) {
        self.remove_those(|leg, _| leg.edge == edge);
    }

    /// The node acts no more.
    pub(in crate::server) fn clear(&mut self) {
        self.remove_those(|_, _| true);
    }

    fn remove_those(&mut self, those: impl Fn(LegId, &Home<C>) -> bool) {
        let legs = self.homes.iter().filter(|(leg, home)| those(**leg, home));
        for leg in legs.map(|(leg, _)| *leg).collect::<Vec<_>>() {
            self.remove(leg);
        }
    }

    /// The loss of its transport.
    fn remove(&mut self, leg: LegId) {
        drop(self.take(leg));
    }

    /// Those whose accounts are in this slot.
    pub(super) fn of_slot(&self, slot: Slot) -> impl Iterator<Item = LegId> {
        let leg = |edge| LegId { edge: Incarnation::new(edge), number: edge };
        self.of_slots.range((slot, leg(0))..=(slot, leg(u64::MAX))).map(|(_, leg)| *leg)
    }

    pub(super) fn put(&mut self, leg: LegId, home: Home<C>) {
        self.of_slots.insert((home.slot, leg));
        self.homes.insert(leg, home);
    }

    fn take(&mut self, leg: LegId) -> Option<Home<C>> {
        let home = self.homes.remove(&leg)?;
        self.of_slots.remove(&(home.slot, leg));
        if let Some(due) = home.due {
            self.timers.remove(&(due, leg));
        }
        self.ready.legs.lock().remove(&leg);
        Some(home)
    }
}

/// Behind what has been said.
pub(super) const CLOSED: Down = Down::Closed { is_flushed: true };

impl<C: SharedConnection> Home<C> {
    /// `false`: its transport is lost.
    fn takes(&mut self, number: u64, said: Up) -> Result<bool, Broken> {
        self.end.hears(number)?;
        match said {
            Up::Input(bytes) => {
                self.end.comes(bytes.len());
                self.input.push_back(Input::Bytes(bytes));
            }
            Up::EndOfInput => self.input.push_back(Input::End),
            Up::Alive(bytes) => self.driver.carried_overhead(bytes as usize),
            Up::Taken(taken) => self.drain.taken(self.end.takes(taken)?),
            Up::Handled(stanzas) => {
                let session = self.driver.session();
                let _is_its = session.is_some_and(|session| session.take(stanzas));
            }
            Up::Gone => return Ok(false),
            Up::Open(_) => return Err(Broken),
        }
        Ok(true)
    }

    /// Reads and writes as far as that goes; `false` at the end.
    fn advance(&mut self, cx: &mut Context<'_>, said: &mut Vec<Down>) -> bool {
        loop {
            let want = self.driver.poll_want(cx);
            if self.driver.is_refused_here() {
                said.push(Down::Refused);
                return false;
            }
            if !self.is_bound && self.driver.is_bound() {
                self.is_bound = true;
                said.push(Down::Bound);
            }
            while let Poll::Ready(piece) = self.drain.poll_take(cx) {
                let Some((bytes, ending)) = piece else {
                    let is_flushed = self.drain.closed() != Some(Close::Abort);
                    said.push(Down::Closed { is_flushed });
                    return false;
                };
                self.end.shows(bytes.len());
                said.push(Down::Output { bytes: bytes.into(), ending });
            }
            let input = match want {
                Poll::Ready(Want::Input) => self.input.pop_front(),
                _ => None,
            };
            match input {
                Some(Input::Bytes(bytes)) => self.driver.receive_leg(&bytes),
                Some(Input::End) => self.driver.end_of_input(),
                None => break,
            }
        }
        let in_queue = self.input.iter().map(|input| match input {
            Input::Bytes(bytes) => bytes.len(),
            Input::End => 0,
        });
        let unread = in_queue.sum::<usize>() + self.driver.unread();
        said.extend(self.end.reads(unread).map(Down::Read));
        true
    }
}
