//! The one way from a bound session to its connection: an ordered queue with a cursor and at most
//! one writer at a time.
//!
//! A sender appends under the lock (that is the moment which orders it). If nobody writes, it
//! becomes the writer and calls the connection without the lock; all others return at once.
//! Entries before the cursor were handed to the transport and stay only to be acknowledged, so
//! replay after a resumption is "cursor to the start" and order across it needs no code.

use std::task::Waker;
use std::time::{Duration, SystemTime};

use jid::{BareJid, FullJid};

use super::copies::Copies;
use super::held::Hold;
use super::queue::{Entry, Queue};
use super::retained::{Retained, RetentionLimits};
use super::shield::{shielded, wake};
use crate::connection::{Close, Connection, SendError};
use crate::stanza::delay::{delay, is_delayed_by};
use crate::stanza::{Frame, Kind, Stanza};
use crate::sync::atomic::{AtomicU32, Ordering};
use crate::sync::{Mutex, MutexGuard};

/// The `to` of a copy, resolved when it is written: the entries of a broadcast differ in it alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum To {
    /// As the stanza has it (STZ-2).
    AsIs,
    /// The receiving account's bare JID (PRES-4).
    OwnBare,
    /// The receiving session's full JID (STZ-3).
    OwnFull,
}

/// One thing to write, borrowed from the sender: it is cloned only where it has to wait.
#[derive(Clone, Copy)]
pub(crate) enum Item<'a> {
    Stanza(&'a Stanza, To),
    /// A message that goes to other sessions of the account as well.
    Copy(&'a Stanza, To, &'a Copies),
    Raw(&'a [u8]),
}

impl<'a> Item<'a> {
    pub(super) const fn stanza(self) -> Option<&'a Stanza> {
        match self {
            Item::Stanza(stanza, _) | Item::Copy(stanza, _, _) => Some(stanza),
            Item::Raw(_) => None,
        }
    }

    const fn copies(self) -> Option<&'a Copies> {
        if let Item::Copy(_, _, copies) = self { Some(copies) } else { None }
    }
}

/// The addresses of the session whose queue it is.
#[derive(Clone, Copy)]
pub(super) struct Own<'a> {
    pub(super) jid: &'a FullJid,
    pub(super) account: &'a BareJid,
}

/// Available presence of another session: void once that session has moved on.
///
/// Checked under the lock of the recipient, and a source that ends raises its number before it
/// sends its unavailable: so no available can come behind that unavailable (PRES-21).
pub(crate) struct Valid<'a> {
    pub(crate) of: &'a AtomicU32,
    pub(crate) number: u32,
}

impl Valid<'_> {
    #[inline]
    pub(super) fn holds(&self) -> bool {
        self.of.load(Ordering::SeqCst) == self.number
    }
}

/// What a session waits for before it writes anything and takes input.
#[derive(Clone, Copy)]
pub(super) enum Gate {
    /// An earlier instance of the resource has not been forgotten yet (BIND-14).
    Predecessor = 1,
    /// Its bind result is still being made.
    Greeting = 2,
    /// One received stanza is in work (its ticket is out): closed for input alone.
    Ticket = 4,
}

impl Gate {
    pub(super) const fn closed(predecessor: bool, greeting: bool) -> Gates {
        let first = if predecessor { Self::Predecessor as u8 } else { 0 };
        let second = if greeting { Self::Greeting as u8 } else { 0 };
        Gates(first | second)
    }
}

/// The gates that are closed.
#[derive(Clone, Copy, Default)]
pub(super) struct Gates(u8);

impl Gates {
    /// Whether nothing is to be written.
    pub(super) const fn is_closed(self) -> bool {
        self.0 & !(Gate::Ticket as u8) != 0
    }

    /// Whether no input is taken.
    pub(super) const fn is_closed_for_input(self) -> bool {
        self.0 != 0
    }

    pub(super) const fn close(&mut self, gate: Gate) {
        self.0 |= gate as u8;
    }

    pub(super) const fn open(&mut self, gate: Gate) {
        self.0 &= !(gate as u8);
    }
}

pub(super) struct Outbound<C> {
    pub(super) link: Option<C>,
    /// One per transport: stale writers, owners and connections are recognised by it.
    pub(super) epoch: u32,
    /// The transport of now has a writer.
    writing: bool,
    /// Nothing more is accepted.
    pub(super) ended: bool,
    /// While one is closed, entries wait and no input is taken. (A byte of its own for the ticket
    /// would make each session eight bytes longer.)
    pub(super) gates: Gates,
    /// The owner closes the transport after the last words, not we.
    lingers: bool,
    pub(super) queue: Queue,
    pub(super) retained: Option<Box<Retained>>,
    /// Who waits for the gate, for the ticket, or for the end.
    pub(super) waker: Option<Box<Waker>>,
    pub(super) received: u32,
    pub(super) delivered: u32,
}

/// What a call into the outbound leaves to be done without its lock.
#[must_use = "the transport may be lost, stanzas may have to be routed again"]
pub(super) enum After {
    Nothing,
    /// The transport of this epoch is gone.
    Lost(u32, SendError),
    /// Accepted, but the session is over and they were not written.
    Strays(Vec<Left>),
    /// The queue has outgrown what is kept for a session (LIMIT-10).
    Overgrown,
}

/// What became of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    Accepted,
    /// An older presence than one that was sent since: dropped on purpose.
    Outdated,
    Refused(SendError),
}

impl<C: Connection + Clone> Outbound<C> {
    pub(super) fn new(link: C, gates: Gates, lingers: bool) -> Self {
        Self {
            link: Some(link),
            epoch: 0,
            writing: false,
            ended: false,
            gates,
            lingers,
            queue: Queue::default(),
            retained: None,
            waker: None,
            received: 0,
            delivered: 0,
        }
    }

    /// Counted entries handed to any transport so far.
    fn sent(&self) -> u32 {
        self.retained.as_ref().map_or(0, |retained| retained.sent)
    }

    /// Whether nothing can be written now, or somebody else does.
    fn waits(&self) -> bool {
        self.gates.is_closed() || self.link.is_none() || self.writing
    }

    /// The entry that was claimed last was not taken; `raised`: it counted as sent for the first time.
    fn give_back(&mut self, entry: Entry, raised: bool) {
        if !matches!(entry, Entry::Stanza { counted: true, .. }) {
            return self.queue.put_back(entry);
        }
        self.queue.step_back();
        if let Some(retained) = self.retained.as_mut().filter(|_| raised) {
            retained.sent = retained.sent.saturating_sub(1);
        }
    }

    /// Whether what waits is more than the connection took at once.
    pub(super) fn is_stalled(&self) -> bool {
        let open = self.link.is_some() && !self.gates.is_closed() && !self.ended;
        open && !self.writing && self.queue.next().is_some()
    }

    /// Puts in the transport of a resumption, behind a gate until it has its greeting; the old
    /// transport is returned.
    pub(super) fn replace_link(&mut self, link: C) -> Option<C> {
        self.next_epoch();
        self.gates.close(Gate::Greeting);
        self.queue.rewind();
        if let Some(retained) = &mut self.retained {
            retained.start_again(self.queue.len());
        }
        self.account_for();
        self.link.replace(link)
    }

    /// Takes the transport away; what waits stays.
    pub(super) fn drop_link(&mut self) -> Option<C> {
        self.next_epoch();
        self.link.take()
    }

    /// What belonged to the transport of now goes with it; its writer has no say any more.
    fn next_epoch(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        self.writing = false;
        let _unwritten = self.queue.take_greeting();
        self.stop_holding();
    }

    /// Whether the end still has something to write, and the owner waits for it.
    pub(super) fn has_last_words(&self) -> bool {
        self.lingers && self.ended && self.link.is_some()
    }

    /// The end: nothing is accepted from now on, and the queue is settled.
    ///
    /// With `farewell`, what an unretained queue still holds is written first, then the farewell,
    /// then the transport is flushed and closed, by whoever has the writer's role. Without, the
    /// transport is to be dropped.
    pub(super) fn end(&mut self, farewell: Option<&[u8]>) -> Ended<C> {
        self.ended = true;
        self.stop_holding();
        let retained = self.retained.take();
        let keep = farewell.is_some()
            && retained.is_none()
            && !self.queue.is_catching_up()
            && !self.gates.is_closed()
            && self.link.is_some();
        let mut left = Vec::new();
        for (entry, written) in self.queue.take_all() {
            if keep && !written {
                self.queue.push(entry);
            } else {
                left.extend(entry.into_left(written));
            }
        }
        let handled = retained.as_ref().map(|r| self.received.wrapping_sub(r.from));
        let token = retained.filter(|r| !r.window.is_zero()).map(|r| r.token.clone());
        let link = match farewell {
            Some(words) if self.link.is_some() => {
                if self.gates.is_closed() {
                    // The client never learns of a session that ends before its bind result.
                    let _unwritten = self.queue.take_greeting();
                    self.gates.open(Gate::Predecessor);
                    self.gates.open(Gate::Greeting);
                }
                self.queue.push(Entry::Raw(words.into()));
                self.queue.push(Entry::Close);
                None
            }
            _ => self.link.take(),
        };
        let waker = if self.has_last_words() { None } else { self.waker.take() };
        Ended { link, left, handled, token, waker }
    }
}

/// What an end takes out of the outbound.
pub(super) struct Ended<C> {
    /// The transport to be dropped, where there is nothing to say on it.
    pub(super) link: Option<C>,
    pub(super) left: Vec<Left>,
    /// The final `h`, if the session was retained.
    pub(super) handled: Option<u32>,
    /// The resumption id that is void from now on, if there was one.
    pub(super) token: Option<String>,
    pub(super) waker: Option<Box<Waker>>,
}

/// A stanza that an ended session leaves.
pub(super) struct Left {
    pub(super) stanza: Stanza,
    pub(super) at: Duration,
    pub(super) counted: bool,
    pub(super) written: bool,
    pub(super) copies: Option<Copies>,
}

/// Appends `item`, then writes if nobody else does.
pub(super) fn send<C: Connection + Clone>(
    outbound: &Mutex<Outbound<C>>,
    own: Own<'_>,
    item: Item<'_>,
    valid: Option<&Valid<'_>>,
    hold: Option<Hold>,
    now: Option<Duration>,
    limits: &RetentionLimits,
) -> (Sent, After) {
    let mut o = outbound.lock();
    if o.ended {
        return (Sent::Refused(SendError::Closed), After::Nothing);
    }
    if valid.is_some_and(|v| !v.holds()) {
        return (Sent::Outdated, After::Nothing);
    }
    let is_stanza = !matches!(item, Item::Raw(_));
    if o.link.is_none() && (o.retained.is_none() || !is_stanza) {
        return (Sent::Refused(SendError::Closed), After::Nothing);
    }
    if is_stanza {
        o.delivered = o.delivered.wrapping_add(1);
    }
    let counted = is_stanza && o.retained.is_some();
    if !counted && !o.waits() && o.queue.is_idle() {
        return write_directly(outbound, o, own, item);
    }
    let at = o.retained.as_ref().map_or(Duration::ZERO, |retained| retained.stamp(now));
    append(outbound, o, own, item, counted, hold, at, limits)
}

/// Something may be in the way of `item`, or it has to be kept: since `at`, where that is counted.
#[expect(clippy::too_many_arguments, reason = "what the sender was given, and what it found")]
fn append<C: Connection + Clone>(
    outbound: &Mutex<Outbound<C>>,
    mut o: MutexGuard<'_, Outbound<C>>,
    own: Own<'_>,
    item: Item<'_>,
    counted: bool,
    hold: Option<Hold>,
    at: Duration,
    limits: &RetentionLimits,
) -> (Sent, After) {
    let waits = o.waits();
    if o.hold_back(item, hold, at, limits) {
        if let Some(copies) = item.copies() {
            copies.add();
        }
        // At the limit all of it was let go.
        if o.is_overgrown(limits, at) {
            return (Sent::Accepted, After::Overgrown);
        }
        let quiet = waits || !o.queue.has_unwritten();
        let after = if quiet { After::Nothing } else { write_waiting(outbound, o, own) };
        return (Sent::Accepted, after);
    }
    if waits || counted || o.queue.has_unwritten() || o.queue.has_greeting() {
        let entry = Entry::new(item, counted, at);
        if !counted && o.queue.limited().bytes.saturating_add(entry.len()) > limits.bytes {
            // Nothing is kept for this one: what waits for its transport is bounded all the same.
            return (Sent::Refused(SendError::Full), After::Lost(o.epoch, SendError::Full));
        }
        if let Some(copies) = item.copies() {
            copies.add();
        }
        o.queue.push(entry);
        o.account_for();
        if o.is_overgrown(limits, at) {
            return (Sent::Accepted, After::Overgrown);
        }
        let after = if waits { After::Nothing } else { write_waiting(outbound, o, own) };
        return (Sent::Accepted, after);
    }
    write_directly(outbound, o, own, item)
}

/// Appends messages that have waited in a store, all or none of them: where the session ends first,
/// all go back, in order.
pub(super) fn send_stored<C: Connection + Clone>(
    outbound: &Mutex<Outbound<C>>,
    own: Own<'_>,
    stanzas: &[Stanza],
    now: Option<Duration>,
) -> (Sent, After) {
    let mut o = outbound.lock();
    if o.ended || (o.link.is_none() && o.retained.is_none()) {
        return (Sent::Refused(SendError::Closed), After::Nothing);
    }
    o.let_all_go();
    let at = o.retained.as_ref().map_or(Duration::ZERO, |retained| retained.stamp(now));
    let counted = o.retained.is_some();
    for stanza in stanzas {
        o.delivered = o.delivered.wrapping_add(1);
        o.queue.push_stored(stanza, counted, at);
    }
    o.account_for();
    (Sent::Accepted, if o.waits() { After::Nothing } else { write_waiting(outbound, o, own) })
}

/// Nothing waits and nothing has to be kept: straight from the sender's stanza.
fn write_directly<C: Connection + Clone>(
    outbound: &Mutex<Outbound<C>>,
    mut o: MutexGuard<'_, Outbound<C>>,
    own: Own<'_>,
    item: Item<'_>,
) -> (Sent, After) {
    let Some(link) = o.link.clone() else {
        return (Sent::Refused(SendError::Closed), After::Nothing);
    };
    if let Some(copies) = item.copies() {
        copies.add();
    }
    let epoch = o.epoch;
    o.writing = true;
    drop(o);
    let result = write(&link, own, item, &[]);
    if let (Err(_), Some(copies)) = (result, item.copies()) {
        // The sender still has it.
        let _last = copies.release();
    }
    let mut o = outbound.lock();
    if o.epoch != epoch {
        // A resumption has put in a newer transport, which has a writer of its own.
        return (result.map_or_else(Sent::Refused, |()| Sent::Accepted), After::Nothing);
    }
    match result {
        Ok(()) => {
            o.writing = false;
            let after = if o.queue.has_unwritten() {
                write_waiting(outbound, o, own)
            } else {
                After::Nothing
            };
            (Sent::Accepted, after)
        }
        Err(error) => {
            o.writing = false;
            if o.ended {
                return (Sent::Refused(error), After::Strays(close_after_failure(o)));
            }
            (Sent::Refused(error), After::Lost(epoch, error))
        }
    }
}

/// Writes what waits, if nobody does: after the gate has opened, a resumption, or an end.
pub(super) fn kick<C: Connection + Clone>(outbound: &Mutex<Outbound<C>>, own: Own<'_>) -> After {
    let o = outbound.lock();
    if o.waits() {
        return After::Nothing;
    }
    write_waiting(outbound, o, own)
}

/// How many bytes of a replay, or of what has waited in a store, wait in the connection at once: the
/// rest waits here until they are through ([`is_stalled`](Outbound::is_stalled)).
const AHEAD: usize = 64 << 10;

/// The writer: hands over entry by entry, without the lock.
fn write_waiting<'a, C: Connection + Clone>(
    outbound: &'a Mutex<Outbound<C>>,
    mut o: MutexGuard<'a, Outbound<C>>,
    own: Own<'_>,
) -> After {
    let epoch = o.epoch;
    loop {
        if o.epoch != epoch {
            return After::Nothing;
        }
        let Some(link) = o.link.clone() else {
            o.writing = false;
            return After::Nothing;
        };
        if o.queue.is_catching_up() && !o.ended {
            o.writing = true;
            drop(o);
            let enough = shielded(|| link.waiting()).unwrap_or(0) > AHEAD;
            o = outbound.lock();
            if o.epoch != epoch {
                return After::Nothing;
            }
            if enough && !o.ended {
                o.writing = false;
                return After::Nothing;
            }
        }
        let is_catching_up = o.queue.is_catching_up();
        // Claimed before it is written: its acknowledgement may arrive before `send` returns.
        let sent = o.sent();
        let (entry, delayed) = if let Some(greeting) = o.queue.take_greeting() {
            (Entry::Raw(greeting.into()), None)
        } else {
            match claim(&mut o) {
                Some(claimed) => claimed,
                None => {
                    o.queue.set_catching_up(false);
                    o.writing = false;
                    return After::Nothing;
                }
            }
        };
        let raised = o.sent() > sent;
        o.writing = true;
        let Some(item) = entry.as_item() else {
            o.link = None;
            o.writing = false;
            let (lingers, waker) = (o.lingers, o.waker.take());
            drop(o);
            if !lingers {
                shielded(|| link.close(Close::Flush));
            }
            wake(waker);
            return After::Nothing;
        };
        drop(o);
        let since = item.stanza().zip(delayed);
        let mark = since.and_then(|(stanza, since)| delay_mark(stanza, own.jid, since));
        let result = write(&link, own, item, mark.as_deref().unwrap_or_default());
        o = outbound.lock();
        let Err(error) = result else { continue };
        if error == SendError::Full && o.epoch == epoch && !o.ended && is_catching_up {
            o.give_back(entry, raised);
            o.queue.set_catching_up(true);
            o.writing = false;
            return After::Nothing;
        }
        let unwritten = matches!(entry, Entry::Stanza { counted: false, .. }).then_some(entry);
        if o.epoch != epoch {
            return After::Strays(unwritten.and_then(unwritten_left).into_iter().collect());
        }
        o.writing = false;
        if o.ended {
            let mut strays = close_after_failure(o);
            strays.splice(0..0, unwritten.and_then(unwritten_left));
            return After::Strays(strays);
        }
        // Back to where it was, for the end of the session to settle.
        if let Some(entry) = unwritten {
            o.queue.put_back(entry);
        }
        return After::Lost(epoch, error);
    }
}

fn unwritten_left(entry: Entry) -> Option<Left> {
    entry.into_left(false)
}

/// The next entry to write, and since when it is delayed. Counted ones stay behind the cursor, the
/// others leave the queue.
fn claim<C>(o: &mut Outbound<C>) -> Option<(Entry, Option<SystemTime>)> {
    let next = o.queue.next()?;
    if let Entry::Stanza { counted: true, at, .. } = next {
        let (entry, at, place) = (next.clone(), *at, o.queue.written());
        o.queue.step();
        let written = u32::try_from(o.queue.written()).unwrap_or(u32::MAX);
        let mut delayed = None;
        if let Some(retained) = &mut o.retained {
            retained.sent = retained.sent.max(written);
            delayed = retained.delayed_since(place, at);
        }
        return Some((entry, delayed));
    }
    Some((o.queue.take_next()?, None))
}

/// The transport failed under the last words of an ended session: what is left of it.
fn close_after_failure<C: Connection>(mut o: MutexGuard<'_, Outbound<C>>) -> Vec<Left> {
    let (link, waker) = (o.link.take(), o.waker.take());
    let queue = o.queue.take_all();
    drop(o);
    if let Some(link) = link {
        shielded(|| link.close(Close::Abort));
    }
    wake(waker);
    queue.filter_map(|(entry, _)| unwritten_left(entry)).collect()
}

fn write<C: Connection>(
    link: &C,
    own: Own<'_>,
    item: Item<'_>,
    mark: &[u8],
) -> Result<(), SendError> {
    let frame = match item {
        Item::Raw(bytes) => Frame::raw(bytes),
        Item::Stanza(stanza, to) | Item::Copy(stanza, to, _) => {
            let frame = Frame::stanza(stanza).append(mark);
            match to {
                To::AsIs => frame,
                To::OwnBare => frame.to(Some(own.account.as_str())),
                To::OwnFull => frame.to(Some(own.jid.as_str())),
            }
        }
    };
    // A connection that panics is a broken transport.
    shielded(|| link.send(frame.framing(link.framing()))).unwrap_or(Err(SendError::Closed))
}

/// SM-16: messages and presence that were not written when they were accepted say so, unless they
/// do already.
fn delay_mark(stanza: &Stanza, jid: &FullJid, since: SystemTime) -> Option<Vec<u8>> {
    let domain = jid.domain().as_str();
    let delayed = stanza.kind() == Kind::Iq || is_delayed_by(stanza, domain);
    (!delayed).then(|| delay(domain, since))
}

#[cfg(test)]
#[cfg(loom_model)]
mod model;
