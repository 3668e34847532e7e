//! The one way from a bound session to its connection: an ordered queue with a cursor and at most
//! one writer at a time.
//!
//! A sender appends under the lock (that is the moment which orders it). If nobody writes, it
//! becomes the writer and calls the connection without the lock; all others return at once.
//! Entries before the cursor were handed to the transport and stay only to be acknowledged, so
//! replay after a resumption is "cursor to the start" and order across it needs no code.

mod acks;
mod copies;
mod holdback;
mod limits;
mod queue;
mod writer;

use std::task::Waker;
use std::time::{Duration, SystemTime};

use jid::{BareJid, FullJid};

use crate::address::bare_of;
use crate::connection::{SendError, SharedConnection};
use crate::environment::Nanos;
use crate::stanza::{Kind, Stanza};
use crate::sync::atomic::{AtomicU32, Ordering};
use queue::{Entry, Queue, Size};

pub(crate) use acks::Retained;
pub use acks::{AckCheck, AckPolicy, Acknowledged};
pub use copies::Copies;
pub use holdback::Hold;
pub use limits::RetentionLimits;
#[cfg(feature = "server")]
pub(crate) use limits::Share;
pub(super) use writer::{kick, send, send_stored};

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
    /// Presence that was sent before, to the receiving account's bare JID: since when it is so is said as
    /// well (PRES-16), and the bytes stay those that the contact's session keeps.
    Since(&'a Stanza, Nanos),
    Raw(&'a [u8]),
}

impl<'a> Item<'a> {
    pub(super) const fn stanza(self) -> Option<&'a Stanza> {
        match self {
            Item::Stanza(stanza, _) | Item::Copy(stanza, _, _) | Item::Since(stanza, _) => {
                Some(stanza)
            }
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

/// Which of its transports a session has: a resumption begins another. What a host, a writer or an owner
/// does in an older epoch has no effect.
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
    pub(super) epoch: Epoch,
    /// Who writes to the transport of now.
    writer: Writer,
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

/// Whether one more may wait for a session.
enum Room {
    Free,
    /// For the news that somebody is gone, and for no more than that.
    WithoutPayload,
    None(After),
}

/// Whether it is the presence of now of another session, which keeps the bytes.
pub(super) fn is_state(item: Item<'_>) -> bool {
    match item {
        Item::Stanza(stanza, To::OwnBare) => {
            stanza.kind() == Kind::Presence && stanza.type_().is_none()
        }
        Item::Since(..) => true,
        _ => false,
    }
}

fn is_presence(item: Item<'_>, type_: &str) -> bool {
    item.stanza().is_some_and(|stanza| {
        stanza.kind() == Kind::Presence && stanza.type_().as_deref() == Some(type_)
    })
}

/// Who hands entries to the transport of now.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Writer {
    Nobody,
    /// Some thread is at it.
    Busy,
    /// As `Busy`, and the transport has taken something since it was handed the last entry: where it
    /// refuses that one for want of room, it is to be asked again.
    Called,
}

/// What a call into the outbound leaves to be done without its lock.
#[must_use = "the transport may be lost, stanzas may have to be routed again"]
pub(super) enum After {
    Nothing,
    /// The transport of this epoch is gone.
    Lost(Epoch, SendError),
    /// Accepted, but the session is over and they were not written.
    Strays(Vec<Left>),
    /// The queue of a session without a transport has outgrown what is kept for one (LIMIT-10).
    Overgrown,
    /// Accepted, and far behind: whoever sends more is to do so slowly (LIMIT-13).
    Behind,
}

/// What became of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    Accepted,
    /// An older presence than one that was sent since: dropped on purpose.
    Outdated,
    Refused(SendError),
}

impl<C: SharedConnection> Outbound<C> {
    pub(super) fn new(link: C, gates: Gates, lingers: bool) -> Self {
        Self {
            link: Some(link),
            epoch: Epoch::default(),
            writer: Writer::Nobody,
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
        self.gates.is_closed() || self.link.is_none() || self.writer != Writer::Nobody
    }

    /// The entry that was claimed last was not taken; `raised`: it counted as sent for the first time.
    fn give_back(&mut self, entry: Entry, raised: bool) {
        if !matches!(entry, Entry::Stanza { counted: true, .. }) {
            return self.queue.put_back(entry);
        }
        self.queue.step_back();
        if let Some(retained) = &mut self.retained {
            retained.take_back(entry.len());
            retained.sent = retained.sent.saturating_sub(u32::from(raised));
        }
        self.take_out_void();
    }

    /// Whether what waits is more than the connection takes now.
    pub(super) fn is_stalled(&self) -> bool {
        let open = self.link.is_some() && !self.gates.is_closed() && !self.ended;
        open && self.writer == Writer::Nobody && self.queue.next().is_some()
    }

    /// The transport has taken something: whether somebody has to go on.
    pub(super) fn is_called(&mut self) -> bool {
        if self.writer == Writer::Busy {
            self.writer = Writer::Called;
        }
        self.is_stalled()
    }

    /// Whether there is room for one more (LIMIT-10, LIMIT-13). One that finds some is taken whatever
    /// its size.
    fn room(&self, own: Own<'_>, item: Item<'_>, limits: &RetentionLimits) -> Room {
        let size = self.queue.limited();
        if !size.exceeds(limits, 1) || is_state(item) || self.link.is_none() {
            return Room::Free;
        }
        let domain = own.account.domain().as_str();
        let is_own = match item {
            Item::Raw(_) => true,
            Item::Copy(..) => false,
            Item::Stanza(stanza, _) | Item::Since(stanza, _) => stanza.from().is_none_or(|from| {
                let from = bare_of(&from);
                from == domain || from == own.account.as_str()
            }),
        };
        let is_end = is_presence(item, "unavailable");
        if !is_own && !is_end {
            return Room::None(After::Nothing);
        }
        if size.exceeds(limits, 2) {
            return Room::None(After::Lost(self.epoch, SendError::Full));
        }
        if is_end { Room::WithoutPayload } else { Room::Free }
    }

    /// Of presence that waits the latest of each JID is enough.
    fn condense(&mut self, own: Own<'_>) {
        let (sent, again) = self.retained.as_ref().map_or((0, 0), |r| (r.sent, r.again));
        let first = self.queue.written().max(usize::try_from(sent).unwrap_or(usize::MAX));
        let gone = self.queue.condense(first, again, own.account.domain().as_str());
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
        if let Some(retained) = &mut self.retained {
            // The client has said that it has not got them: they never had a number.
            retained.sent = retained.sent.saturating_sub(u32::try_from(void).unwrap_or(u32::MAX));
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
            retained.lose(at_loss);
        }
        self.link.take()
    }

    /// What belonged to the transport of now goes with it; its writer has no say any more.
    fn next_epoch(&mut self) {
        self.epoch = Epoch(self.epoch.0.wrapping_add(1));
        self.writer = Writer::Nobody;
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
        // Of what a connection has not taken nobody knows when it will.
        let is_stalled = self.is_stalled();
        self.ended = true;
        self.stop_holding();
        let retained = self.retained.take();
        let keep = farewell.is_some()
            && retained.is_none()
            && !is_stalled
            && self.queue.unwritten().bytes <= LAST
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

/// Bytes that an end still writes to a client: of more than that the stanzas are routed again.
const LAST: usize = 64 << 10;

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

impl Left {
    /// When it was accepted, by the wall clock; `clocks`: the monotonic time and the wall clock's of now.
    pub(super) fn accepted(&self, clocks: (Duration, SystemTime)) -> SystemTime {
        let (now, utc) = clocks;
        utc.checked_sub(now.saturating_sub(self.at)).unwrap_or(utc)
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
