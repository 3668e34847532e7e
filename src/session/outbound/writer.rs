//! The writer: whoever sends while nobody writes hands over what waits, without the lock.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, SystemTime};

use jid::{BareJid, FullJid};

use super::holdback::Hold;
use super::item::{Content, Item, To};
use super::limits::{RetentionLimits, small};
use super::queued::Queued;
use super::{After, Epoch, Left, NotSent, Outbound, Room, Sent, Writing};
use crate::connection::{Close, Connection, SendError, SharedConnection};
use crate::environment::Nanos;
use crate::shield::{shielded_or, wake};
use crate::stanza::delay::{delay, is_delayed_by};
use crate::stanza::{Frame, Kind, Stanza, StreamError};
use crate::sync::{Mutex, MutexGuard};

/// Whose outbound it is.
pub(crate) trait Owner {
    fn jid(&self) -> &FullJid;
    fn account(&self) -> &BareJid;
    /// The connection has panicked. Called without a lock.
    fn panicked(&self, message: Option<String>);
}

/// The outbound of one session, with the addresses of that session.
pub(crate) struct Writer<'a, C, O> {
    pub(crate) out: &'a Mutex<Outbound<C>>,
    pub(crate) owner: &'a O,
}

impl<C: SharedConnection, O: Owner> Writer<'_, C, O> {
    /// Appends `item`, then writes if nobody else does.
    ///
    /// What has to wait, or to be kept (`retained`: probably), notes when it was accepted. The clock is
    /// host code, and is asked without the lock.
    #[inline]
    pub(crate) fn send(
        &self,
        item: &Item<'_>,
        hold: Option<Hold>,
        retained: bool,
        clock: &impl Fn() -> Duration,
        limits: &RetentionLimits,
    ) -> Sent {
        let mut accepted = retained.then(clock);
        let mut o = self.out.lock();
        if accepted.is_none() && (o.retained.is_some() || o.waits() || !o.queue.is_idle()) {
            drop(o);
            accepted = Some(clock());
            o = self.out.lock();
        }
        if let Err(refused) = o.admit(item) {
            return (Err(refused), After::Nothing);
        }
        match accepted {
            Some(at) if !o.is_free_for(item, hold.as_ref()) => {
                self.append(o, item, hold, at, limits)
            }
            _ => self.write_directly(o, item, clock),
        }
    }

    /// Something may be in the way of `item`, accepted at `at`, or it has to be kept.
    fn append(
        &self,
        mut o: MutexGuard<'_, Outbound<C>>,
        item: &Item<'_>,
        hold: Option<Hold>,
        at: Duration,
        limits: &RetentionLimits,
    ) -> Sent {
        let waits = o.waits();
        let room = o.room(self.owner.account(), item, limits);
        if let Room::None(after) = room {
            return (Err(NotSent::Full), after);
        }
        if let Some(copies) = item.copies() {
            copies.add(o.link.is_some());
        }
        if !o.hold_back(item, hold, at, limits) {
            o.push(item, at, room);
            if o.is_overgrown(limits) {
                return (Ok(()), After::Overgrown);
            }
        }
        if item.stanza().is_some_and(|stanza| stanza.kind() == Kind::Presence) {
            o.condense(self.owner.account());
        }
        if o.link.is_some() && o.queue.void_bytes() > limits.bytes {
            return (Ok(()), After::Lost(o.epoch, SendError::Full));
        }
        let was_behind = o.is_behind(limits);
        if !waits && (o.queue.has_unwritten() || o.queue.has_greeting()) {
            let after = self.write_waiting(o);
            if was_behind && matches!(after, After::Nothing) && self.out.lock().is_behind(limits) {
                return (Ok(()), After::Behind);
            }
            return (Ok(()), after);
        }
        (Ok(()), if was_behind { After::Behind } else { After::Nothing })
    }

    /// Appends messages that have waited in a store, each with the time of its acceptance if that is known,
    /// all or none of them: where the session ends first, all go back, in order. A client that has not
    /// acknowledged as much as may wait of what stores have given before is given up (LIMIT-10).
    pub(crate) fn send_stored(
        &self,
        items: &[Item<'_>],
        now: Duration,
        limits: &RetentionLimits,
    ) -> Sent {
        let mut o = self.out.lock();
        if o.ended || (o.link.is_none() && o.retained.is_none()) {
            return (Err(NotSent::Ended), After::Nothing);
        }
        if o.queue.stored().exceeds(limits, 1) {
            let after = match o.link {
                Some(_) => After::Lost(o.epoch, SendError::Full),
                None => After::Nothing,
            };
            return (Err(NotSent::Full), after);
        }
        o.let_all_go();
        let counted = o.retained.is_some();
        for item in items {
            o.delivered = o.delivered.wrapping_add(1);
            if let Some(copies) = item.copies().filter(|_| o.link.is_some()) {
                copies.regain();
            }
            o.queue.push_stored(item, counted, item.accepted().unwrap_or(now));
        }
        o.account_for();
        (Ok(()), if o.waits() { After::Nothing } else { self.write_waiting(o) })
    }

    /// Nothing waits and nothing has to be kept: straight from the sender's stanza.
    #[inline]
    fn write_directly(
        &self,
        mut o: MutexGuard<'_, Outbound<C>>,
        item: &Item<'_>,
        clock: &impl Fn() -> Duration,
    ) -> Sent {
        let Some(link) = o.link.clone() else { return (Err(NotSent::Ended), After::Nothing) };
        if let Some(copies) = item.copies() {
            copies.add(true);
        }
        let epoch = o.epoch;
        o.writing = Writing::Busy;
        drop(o);
        let result = self.write(&link, item.content, &[]);
        let full = (result == Err(SendError::Full)).then(clock);
        let mut o = self.out.lock();
        if result.is_ok() && o.epoch == epoch && o.queue.is_idle() {
            o.writing = Writing::Nobody;
            return (Ok(()), After::Nothing);
        }
        self.settle_direct(o, item, epoch, result, full)
    }

    /// It was not all that was to be written, or was not taken: for want of room, at `full`.
    #[cold]
    fn settle_direct(
        &self,
        mut o: MutexGuard<'_, Outbound<C>>,
        item: &Item<'_>,
        epoch: Epoch,
        result: Result<(), SendError>,
        full: Option<Duration>,
    ) -> Sent {
        if let Some(at) = full.filter(|_| o.epoch == epoch && !o.ended) {
            // It waits here, before what others have queued meanwhile.
            o.queue.put_back(Queued::new(item, false, at));
            let after = if o.stop_writing() { self.write_waiting(o) } else { After::Nothing };
            return (Ok(()), after);
        }
        if let (Err(_), Some(copies)) = (result, item.copies()) {
            // The sender still has it.
            copies.lose();
            let _last = copies.release();
        }
        let sent = result.map_err(NotSent::from);
        if o.epoch != epoch {
            // A resumption has put in a newer transport, which has a writer of its own.
            return (sent, After::Nothing);
        }
        o.writing = Writing::Nobody;
        let after = match result {
            Ok(()) | Err(SendError::Full) => self.write_waiting(o),
            Err(error) if !o.ended => After::Lost(epoch, error),
            Err(_) => {
                let mut turn = Turn::new(epoch);
                o.fail(&mut turn);
                self.write_on(o, turn)
            }
        };
        (sent, after)
    }

    /// Writes what waits, if nobody does: after the gate has opened, a resumption, or an end.
    pub(crate) fn kick(&self) -> After {
        let o = self.out.lock();
        if o.waits() { After::Nothing } else { self.write_waiting(o) }
    }

    /// The writer: hands over entry by entry, without the lock, until the transport takes no more for now
    /// (LIMIT-13). The rest waits here, and goes on once the transport has taken something.
    fn write_waiting(&self, o: MutexGuard<'_, Outbound<C>>) -> After {
        let turn = Turn::new(o.epoch);
        self.write_on(o, turn)
    }

    fn write_on<'o>(&'o self, mut o: MutexGuard<'o, Outbound<C>>, mut turn: Turn) -> After {
        while let Some(job) = o.take_job(&turn) {
            drop(o);
            let failed = self.perform(job);
            o = self.out.lock();
            if let Some(failed) = failed
                && let ControlFlow::Break(after) = o.settle(failed, &mut turn)
            {
                return after;
            }
        }
        turn.end()
    }

    /// Does what was claimed, without the lock; what the transport has not taken is returned.
    fn perform(&self, job: Job<C>) -> Option<Failed> {
        match job {
            Job::Write { link, entry, delayed, is_first } => {
                let content = entry.content()?;
                let since = entry.stanza().zip(delayed);
                let mark =
                    since.and_then(|(stanza, since)| delay_mark(stanza, self.owner.jid(), since));
                let result = self.write(&link, content, mark.as_deref().unwrap_or_default());
                result.err().map(|error| Failed { entry, is_first, error })
            }
            Job::Close { link, how, waker } => {
                if let Some(how) = how {
                    shielded_or(|| link.close(how), |message| self.owner.panicked(message));
                }
                wake(waker);
                None
            }
        }
    }

    #[inline]
    fn write(&self, link: &C, content: Content<'_>, mark: &[u8]) -> Result<(), SendError> {
        let frame = match content {
            Content::Element(xml) => Frame::element(xml),
            Content::Reply(stanza) => Frame::stanza(stanza).at_once(),
            Content::Login(success, features) => {
                return self.shielded(|| write_login(link, success, features.as_deref()));
            }
            Content::End(error) => return self.shielded(|| write_end(link, error)),
            Content::Since(stanza, at) => return self.write_since(link, stanza, at),
            Content::Stanza(stanza, to) | Content::Copy(stanza, to, _) => {
                let frame = Frame::stanza(stanza).append(mark);
                match to {
                    To::AsIs => frame,
                    To::OwnBare => frame.to(Some(self.owner.account().as_str())),
                    To::OwnFull => frame.to(Some(self.owner.jid().as_str())),
                }
            }
        };
        self.hand_over(link, frame)
    }

    /// Presence that was sent before (PRES-16).
    #[inline(never)]
    fn write_since(&self, link: &C, stanza: &Stanza, at: Nanos) -> Result<(), SendError> {
        let since = delay(stanza.from().as_deref().unwrap_or_default(), at.into());
        let frame = Frame::stanza(stanza).to(Some(self.owner.account().as_str()));
        self.hand_over(link, frame.append(&since))
    }

    #[inline]
    fn hand_over(&self, link: &C, frame: Frame<'_>) -> Result<(), SendError> {
        self.shielded(|| link.send(frame.framing(link.framing())))
    }

    /// A connection that panics is a broken transport.
    #[inline]
    fn shielded(&self, send: impl FnOnce() -> Result<(), SendError>) -> Result<(), SendError> {
        shielded_or(send, |message| self.owner.panicked(message)).unwrap_or(Err(SendError::Closed))
    }
}

/// In one piece.
#[cold]
fn write_login<C: Connection>(
    link: &C,
    success: &[u8],
    features: Option<&[u8]>,
) -> Result<(), SendError> {
    let framing = link.framing();
    let success = Frame::element(success).framing(framing);
    match features {
        Some(features) => link.send_all(&[success, Frame::features(features).framing(framing)]),
        None => link.send(success),
    }
}

/// STREAM-24: in one piece.
#[cold]
pub(in crate::session) fn write_end<C: Connection>(
    link: &C,
    error: Option<&StreamError>,
) -> Result<(), SendError> {
    match *Frame::ending(error, link.framing()) {
        [frame] => link.send(frame),
        ref frames => link.send_all(frames),
    }
}

/// SM-16: messages and presence that were not written when they were accepted say so, unless they
/// do already.
fn delay_mark(stanza: &Stanza, jid: &FullJid, since: SystemTime) -> Option<Vec<u8>> {
    let domain = jid.domain().as_str();
    let delayed = stanza.kind() == Kind::Iq || is_delayed_by(stanza, domain);
    (!delayed).then(|| delay(domain, since))
}

/// What one thread does as the writer, from the moment at which it becomes that.
struct Turn {
    epoch: Epoch,
    /// Stanzas of a session that has ended, which the transport has not taken.
    left: Vec<Left>,
    /// The transport has failed under the last words.
    has_failed: bool,
}

impl Turn {
    const fn new(epoch: Epoch) -> Self {
        Self { epoch, left: Vec::new(), has_failed: false }
    }

    fn end(self) -> After {
        if self.left.is_empty() { After::Nothing } else { After::Strays(self.left) }
    }
}

/// One step of the writer, claimed under the lock and done without it.
enum Job<C> {
    Write {
        link: C,
        entry: Queued,
        /// Since when it is delayed, to be said with it.
        delayed: Option<SystemTime>,
        /// It counts as sent for the first time.
        is_first: bool,
    },
    /// The last words are written, or the transport has failed under them.
    Close {
        link: C,
        /// `None`: the owner closes it.
        how: Option<Close>,
        waker: Option<Box<Waker>>,
    },
}

struct Failed {
    entry: Queued,
    is_first: bool,
    error: SendError,
}

impl<C: SharedConnection> Outbound<C> {
    /// Whether an item may be sent at all; counts it if so.
    #[inline]
    fn admit(&mut self, item: &Item<'_>) -> Result<(), NotSent> {
        if self.ended {
            return Err(NotSent::Ended);
        }
        if item.validity.is_void() {
            return Err(NotSent::Void);
        }
        let is_stanza = item.stanza().is_some();
        if self.link.is_none() && (self.retained.is_none() || !is_stanza) {
            return Err(NotSent::Ended);
        }
        if is_stanza {
            self.delivered = self.delivered.wrapping_add(1);
        }
        Ok(())
    }

    /// Whether nothing is in the way of an item, and it need not be kept.
    #[inline]
    fn is_free_for(&self, item: &Item<'_>, hold: Option<&Hold>) -> bool {
        let is_counted = self.retained.is_some() && item.stanza().is_some();
        let is_next = !self.queue.has_unwritten() && !self.queue.has_greeting() && hold.is_none();
        !is_counted && !self.waits() && (self.queue.is_idle() || is_next)
    }

    fn push(&mut self, item: &Item<'_>, at: Duration, room: Room) {
        let is_counted = self.retained.is_some() && item.stanza().is_some();
        let mut entry = Queued::new(item, is_counted, at);
        if matches!(room, Room::WithoutPayload) {
            entry.strip();
        }
        self.queue.push(entry);
        self.account_for();
    }

    /// Nobody writes now; whether the transport has taken something since it was last called.
    fn stop_writing(&mut self) -> bool {
        std::mem::replace(&mut self.writing, Writing::Nobody) == Writing::Called
    }

    /// Claims what is to be done next. Before it is written, since its acknowledgement may arrive before
    /// `send` returns. `None`: the turn is over.
    fn take_job(&mut self, turn: &Turn) -> Option<Job<C>> {
        if self.epoch != turn.epoch {
            return None;
        }
        let Some(link) = self.link.clone() else {
            self.writing = Writing::Nobody;
            return None;
        };
        let sent = self.sent();
        let claimed = match self.queue.take_greeting() {
            Some(greeting) => Some((greeting, None)),
            None => self.claim(),
        };
        let Some((entry, delayed)) = claimed else {
            self.writing = Writing::Nobody;
            return None;
        };
        if matches!(entry, Queued::Close) {
            self.link = None;
            self.writing = Writing::Nobody;
            let how = match turn.has_failed {
                true => Some(Close::Abort),
                false => (!self.lingers).then_some(Close::Flush),
            };
            return Some(Job::Close { link, how, waker: self.waker.take() });
        }
        self.writing = Writing::Busy;
        Some(Job::Write { link, entry, delayed, is_first: self.sent() > sent })
    }

    /// The next entry to write, and since when it is delayed. Counted ones stay behind the cursor, the
    /// others leave the queue.
    fn claim(&mut self) -> Option<(Queued, Option<SystemTime>)> {
        let next = self.queue.next()?;
        if let Queued::Stanza { counted: true, at, .. } = next {
            let (entry, at, place) = (next.clone(), (*at).into(), self.queue.written());
            self.queue.step();
            let written = small(self.queue.written());
            let mut delayed = None;
            if let Some(retained) = &mut self.retained {
                retained.sent = retained.sent.max(written);
                retained.unasked = retained.unasked.saturating_add(small(entry.len()));
                delayed = retained.delayed_since(place, at);
            }
            return Some((entry, delayed));
        }
        Some((self.queue.take_next()?, None))
    }

    /// Finds a place for what the transport has not taken; breaks where the turn is over.
    fn settle(&mut self, failed: Failed, turn: &mut Turn) -> ControlFlow<After> {
        let Failed { entry, is_first, error } = failed;
        let is_current = self.epoch == turn.epoch;
        if error == SendError::Full && is_current && !self.ended {
            let is_called = self.stop_writing();
            self.give_back(entry, is_first);
            return if is_called {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(After::Nothing)
            };
        }
        if error == SendError::Full && is_current && matches!(entry, Queued::Stanza { .. }) {
            // What the client can no longer take is routed again; it is told of the end. The answers to what it has
            // asked for go in front of that, as long as there is room at all.
            let all = std::iter::once(entry).chain(self.queue.take_stanzas());
            let (answers, others): (Vec<_>, Vec<_>) = all.partition(Queued::is_answer);
            turn.left.extend(others.into_iter().filter_map(|entry| entry.into_lost(false)));
            for entry in answers.into_iter().rev() {
                if let Queued::Stanza { stanza, .. } = entry {
                    self.queue.put_back(Queued::Reply(Arc::new(stanza.into())));
                }
            }
            return ControlFlow::Continue(());
        }
        if error == SendError::Full && is_current && matches!(entry, Queued::Reply(_)) {
            return ControlFlow::Continue(());
        }
        let unwritten = matches!(entry, Queued::Stanza { counted: false, .. }).then_some(entry);
        if is_current && !self.ended {
            // Back to where it was, for the end of the session to settle.
            if let Some(entry) = unwritten {
                self.queue.put_back(entry);
            }
            self.writing = Writing::Nobody;
            return ControlFlow::Break(After::Lost(turn.epoch, error));
        }
        turn.left.extend(unwritten.and_then(|entry| entry.into_lost(false)));
        if is_current {
            self.fail(turn);
        }
        ControlFlow::Continue(())
    }

    /// The transport has failed under the last words of an ended session: all that is left is to close it.
    fn fail(&mut self, turn: &mut Turn) {
        turn.has_failed = true;
        let _unwritten = self.queue.take_greeting();
        let queue = self.queue.take_all();
        turn.left.extend(queue.filter_map(|(entry, _)| entry.into_lost(false)));
        self.queue.push(Queued::Close);
    }
}
