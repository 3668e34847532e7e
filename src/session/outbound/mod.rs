//! The one way from a bound session to its connection: an ordered queue with a cursor and at most
//! one writer at a time.
//!
//! A sender appends under the lock (that is the moment which orders it). If nobody writes, it
//! becomes the writer and calls the connection without the lock; all others return at once.
//! Entries before the cursor were handed to the transport and stay only to be acknowledged, so
//! replay after a resumption is "cursor to the start" and order across it needs no code.

mod acks;
mod copies;
#[cfg(feature = "cluster")]
pub(super) mod export;
mod holdback;
mod item;
mod limits;
mod queue;
mod queued;
#[cfg(feature = "cluster")]
mod underway;
mod writer;

use std::task::Waker;
use std::time::{Duration, SystemTime};

use jid::BareJid;

use crate::address::bare_of;
use crate::connection::{SendError, SharedConnection};
use crate::stanza::{Kind, Stanza};
use queue::{Queue, Size};
use queued::Queued;

pub(crate) use acks::Retained;
pub use acks::{AckCheck, AckPolicy, Acknowledged};
pub use copies::Copies;
pub use holdback::Hold;
pub(crate) use item::LastWords;
pub use item::{Item, Reply, Validity};
pub use limits::RetentionLimits;
#[cfg(feature = "server")]
pub(crate) use limits::Share;
use limits::small;
pub(super) use writer::{Owner, Writer, write_end};

/// Which of its transports a session has: a resumption begins another epoch. A host gets it with a write or
/// from the owner and hands it back with what it asks of the session, which has no effect in a later one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Epoch(u32);

/// What a session waits for before it writes anything and takes input.
#[derive(Clone, Copy)]
pub(super) enum Gate {
    /// An earlier instance of the resource has not been forgotten yet (BIND-14).
    Predecessor = 1,
    /// Its bind result is still being made.
    Greeting = 2,
    /// One received stanza is in work (its ticket is out): closed for input alone.
    Ticket = 4,
    /// Its account is moving to another node (NODE-9).
    #[cfg(feature = "cluster")]
    Frozen = 8,
}

impl Gate {
    pub(super) const fn closed(predecessor: bool, greeting: bool) -> Gates {
        let first = if predecessor { Self::Predecessor as u8 } else { 0 };
        let second = if greeting { Self::Greeting as u8 } else { 0 };
        Gates(first | second)
    }
}

/// The gates that are closed, and whether the owner waits for one of them.
#[derive(Clone, Copy, Default)]
pub(super) struct Gates(u8);

impl Gates {
    const AWAITED: u8 = 128;

    pub(super) const fn is_closed(self) -> bool {
        self.0 & !(Gate::Ticket as u8 | Self::AWAITED) != 0
    }

    pub(super) const fn is_closed_for_input(self) -> bool {
        self.0 & !Self::AWAITED != 0
    }

    /// Whoever has left its waker waits for the next of them that opens.
    pub(super) const fn wait(&mut self) {
        self.0 |= Self::AWAITED;
    }

    const fn take_awaited(&mut self) -> bool {
        let is_awaited = self.0 & Self::AWAITED != 0;
        self.0 &= !Self::AWAITED;
        is_awaited
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
    pub(super) epoch: Epoch,
    /// Whether the current transport has a writer.
    writing: Writing,
    /// Nothing more is accepted.
    pub(super) ended: bool,
    /// While one is closed, entries wait and no input is taken. (A byte of its own for the ticket
    /// would make each session eight bytes longer.)
    pub(super) gates: Gates,
    /// The owner closes the transport after the last words.
    lingers: bool,
    pub(super) queue: Queue,
    pub(super) retained: Option<Box<Retained>>,
    /// Of the owner that waits for a gate, for its ticket, or for the end.
    pub(super) waker: Option<Box<Waker>>,
    pub(super) received: u32,
    pub(super) delivered: u32,
}

/// Whether one more may wait for a session.
enum Room {
    Free,
    /// For the news that somebody is gone, and for no more than that.
    WithoutPayload,
    None(After),
}

/// Whether the current transport has a writer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Writing {
    Nobody,
    /// Some thread is at it.
    Busy,
    /// As `Busy`, and the transport has taken something since it was handed the last entry: where it
    /// refuses that one for want of room, it is to be asked again.
    Called,
}

/// What remains to be done, without the lock, after a call into the outbound.
#[must_use = "the transport may be lost, stanzas may have to be routed again"]
pub(crate) enum After {
    Nothing,
    /// The transport of this epoch is gone.
    Lost(Epoch, SendError),
    /// Accepted, but the session is over and they were not written.
    Strays(Vec<Left>),
    /// The queue of a session without a transport has outgrown what is kept for one (LIMIT-10).
    Overgrown,
    /// Accepted, and far behind: its sender has to slow down (LIMIT-13).
    Behind,
}

/// Why something was not accepted; the caller still has it, and routing goes on ([MSG-8](crate::rules#msg-8)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotSent {
    /// As much waits for the client as may ([LIMIT-10](crate::rules#limit-10)).
    #[error("too much waits for the session already")]
    Full,
    /// The session has ended or has just lost its transport.
    #[error("the session has ended")]
    Ended,
    /// The session that it speaks of has moved on ([PRES-21](crate::rules#pres-21)).
    #[error("the presence is no longer true")]
    Void,
}

/// Whether it was accepted, and what remains to be done.
pub(super) type Sent = (Result<(), NotSent>, After);

impl From<SendError> for NotSent {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Full => Self::Full,
            SendError::Closed => Self::Ended,
        }
    }
}

impl<C: SharedConnection> Outbound<C> {
    pub(super) fn new(link: C, gates: Gates, lingers: bool) -> Self {
        Self {
            link: Some(link),
            epoch: Epoch::default(),
            writing: Writing::Nobody,
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
        self.gates.is_closed() || self.link.is_none() || self.writing != Writing::Nobody
    }

    /// The entry that was claimed last was not taken; `raised`: it counted as sent for the first time.
    fn give_back(&mut self, entry: Queued, raised: bool) {
        if !matches!(entry, Queued::Stanza { counted: true, .. }) {
            return self.queue.put_back(entry);
        }
        self.queue.step_back();
        if let Some(retained) = &mut self.retained {
            retained.unasked = retained.unasked.saturating_sub(small(entry.len()));
            retained.sent = retained.sent.saturating_sub(u32::from(raised));
        }
        self.take_out_void();
    }

    /// Whether what waits is more than the connection takes now.
    pub(super) fn is_stalled(&self) -> bool {
        let open = self.link.is_some() && !self.gates.is_closed() && !self.ended;
        open && self.writing == Writing::Nobody && self.queue.next().is_some()
    }

    /// The transport has taken something: lets the writer know. Whether somebody else has to go on.
    pub(super) fn call_writer(&mut self) -> bool {
        if self.writing == Writing::Busy {
            self.writing = Writing::Called;
        }
        self.is_stalled()
    }

    /// Whether there is room for one more (LIMIT-10, LIMIT-13). One that finds some is taken whatever
    /// its size.
    fn room(&self, account: &BareJid, item: &Item<'_>, limits: &RetentionLimits) -> Room {
        let size = self.queue.limited();
        if !size.exceeds(limits, 1) || item.is_state() || self.link.is_none() {
            return Room::Free;
        }
        let domain = account.domain().as_str();
        let from = item.stanza().and_then(Stanza::from);
        let is_of = |from: &str| from == domain || from == account.as_str();
        let is_own = item.copies().is_none() && from.is_none_or(|from| is_of(bare_of(&from)));
        let is_end = item.stanza().is_some_and(|stanza| {
            stanza.kind() == Kind::Presence && stanza.type_().as_deref() == Some("unavailable")
        });
        if !is_own && !is_end {
            return Room::None(After::Nothing);
        }
        if size.exceeds(limits, 2) {
            return Room::None(After::Lost(self.epoch, SendError::Full));
        }
        if is_end { Room::WithoutPayload } else { Room::Free }
    }

    /// Of presence that waits the latest of each JID is enough.
    fn condense(&mut self, account: &BareJid) {
        let (sent, again) = self.retained.as_ref().map_or((0, 0), |r| (r.sent, r.again));
        let first = self.queue.written().max(usize::try_from(sent).unwrap_or(usize::MAX));
        let gone = self.queue.condense(first, again, account.domain().as_str());
        if let Some(retained) = self.retained.as_mut() {
            retained.again = retained.again.saturating_sub(gone);
        }
        self.account_for();
    }

    /// Whether so much waits for the client that its senders are to slow down.
    fn is_behind(&self, limits: &RetentionLimits) -> bool {
        let much = |size: Size| {
            let (stanzas, bytes) = (size.stanzas.saturating_mul(4), size.bytes.saturating_mul(4));
            Size { stanzas, bytes }.exceeds(limits, 1)
        };
        self.link.is_some() && (much(self.queue.unwritten()) || much(self.queue.limited()))
    }

    /// Puts in the transport of a resumption, behind a gate until it has its greeting; the old
    /// transport is returned.
    pub(super) fn replace_link(&mut self, link: C) -> Option<C> {
        self.next_epoch();
        self.gates.close(Gate::Greeting);
        let void = self.queue.rewind();
        if self.link.is_none() {
            self.queue.regain(usize::MAX);
        }
        if let Some(retained) = &mut self.retained {
            // The client has said that it has not got them: they never had a number.
            retained.sent = retained.sent.saturating_sub(small(void));
            retained.start_again(self.queue.len());
        }
        self.account_for();
        self.link.replace(link)
    }

    /// Takes the transport away; what waits stays.
    pub(super) fn drop_link(&mut self) -> Option<C> {
        self.next_epoch();
        let at_loss = self.queue.limited();
        if let Some(retained) = &mut self.retained {
            retained.at_loss = at_loss;
        }
        self.link.take()
    }

    /// The messages that wait for a client that is gone from now on, and for no other (HOOK-7).
    #[cfg(feature = "server")]
    pub(super) fn lose_copies(&self) -> Vec<Stanza> {
        let copies = self.queue.copies(usize::MAX);
        let waiting = copies.filter(|copies| {
            copies.lose();
            copies.begins_to_wait()
        });
        waiting.map(|copies| copies.message().clone()).collect()
    }

    /// What belongs to the current transport goes with it; its writer loses its right to write.
    fn next_epoch(&mut self) {
        self.epoch = Epoch(self.epoch.0.wrapping_add(1));
        self.writing = Writing::Nobody;
        let _unwritten = self.queue.take_greeting();
        // Nobody makes one for a transport that is gone.
        self.gates.open(Gate::Greeting);
        self.stop_holding();
    }

    /// Opens a gate; who waits for it is to be woken without the lock. Nobody else is: an owner that drops its own ticket
    /// would wake itself, for each stanza.
    pub(super) fn open(&mut self, gate: Gate) -> Option<Box<Waker>> {
        self.gates.open(gate);
        if self.gates.take_awaited() { self.waker.take() } else { None }
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
    pub(super) fn end(&mut self, farewell: Option<LastWords<'_>>) -> Ended<C> {
        // Of what a connection has not taken nobody knows when it will.
        let is_stalled = self.is_stalled();
        self.ended = true;
        self.stop_holding();
        let retained = self.retained.take();
        let keeps_answers = farewell.is_some()
            && retained.is_none()
            && !self.gates.is_closed()
            && self.link.is_some();
        let keep = keeps_answers && !is_stalled && self.queue.unwritten().bytes <= LAST;
        let mut left = Vec::new();
        for (entry, written) in self.queue.take_all() {
            if !written && (keep || keeps_answers && entry.is_answer()) {
                self.queue.push(entry);
            } else {
                let is_here = self.link.is_some();
                left.extend(if is_here {
                    entry.into_lost(written)
                } else {
                    entry.into_left(written)
                });
            }
        }
        let handled = retained.as_ref().map(|r| self.received.wrapping_sub(r.from));
        let token = retained.filter(|r| !r.window.is_zero()).map(|r| r.token.clone().into_string());
        let link = match farewell {
            Some(words) if self.link.is_some() => {
                if self.gates.is_closed() {
                    // The client never learns of a session that ends before its bind result.
                    let _unwritten = self.queue.take_greeting();
                    self.gates.open(Gate::Predecessor);
                    self.gates.open(Gate::Greeting);
                }
                // They go where the transport's are, or along with it.
                #[cfg(feature = "cluster")]
                self.gates.open(Gate::Frozen);
                let words = Item::last_words(words);
                self.queue.push(Queued::new(&words, false, Duration::ZERO));
                self.queue.push(Queued::Close);
                None
            }
            _ => self.link.take(),
        };
        let waker = if self.has_last_words() { None } else { self.waker.take() };
        Ended { link, left, handled, token, waker }
    }
}

/// Bytes that an end still writes to a client: of more than that the stanzas are routed again. Answers, which nobody
/// else is to get, are written as far as the connection takes any (STREAM-27).
const LAST: u32 = 64 << 10;

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
pub(crate) struct Left {
    pub(super) stanza: Stanza,
    pub(super) at: Duration,
    pub(super) counted: bool,
    pub(super) written: bool,
    pub(super) copies: Option<Copies>,
}

impl Left {
    /// When it was accepted, by the wall clock; `clocks`: the time now, monotonic and of day.
    pub(super) fn accepted(&self, clocks: (Duration, SystemTime)) -> SystemTime {
        let (now, utc) = clocks;
        utc.checked_sub(now.saturating_sub(self.at)).unwrap_or(utc)
    }

    #[cfg(feature = "server")]
    pub(super) const fn copies(&self) -> Option<&Copies> {
        self.copies.as_ref()
    }

    /// The stanza that it brings: of a message in whatever form, the message.
    #[cfg(feature = "server")]
    pub(super) fn message(&self) -> &Stanza {
        self.copies.as_ref().map_or(&self.stanza, Copies::message)
    }

    /// Nobody is to get it.
    #[cfg(feature = "server")]
    pub(super) fn forget(self) {
        if let Some(copies) = self.copies {
            let _last = copies.release();
        }
    }
}

#[cfg(test)]
#[cfg(loom_model)]
mod model;
