//! The writer: whoever sends while nobody writes hands over what waits, without the lock.

use std::time::{Duration, SystemTime};

use jid::FullJid;

use super::holdback::Hold;
use super::limits::RetentionLimits;
use super::queue::Entry;
use super::{After, Epoch, Item, Left, Outbound, Own, Room, Sent, To, Valid, Writer};
use crate::connection::{Close, Connection, SendError, SharedConnection};
use crate::environment::Nanos;
use crate::shield::{shielded, wake};
use crate::stanza::delay::{delay, is_delayed_by};
use crate::stanza::{Frame, Kind, Stanza};
use crate::sync::{Mutex, MutexGuard};

/// Appends `item`, then writes if nobody else does.
///
/// What has to wait, or to be kept (`retained`: probably), notes when it was accepted. The clock is host
/// code, and is asked without the lock.
#[expect(clippy::too_many_arguments, reason = "what the sender was given, and what it found")]
pub(in crate::session) fn send<C: SharedConnection>(
    outbound: &Mutex<Outbound<C>>,
    own: Own<'_>,
    item: Item<'_>,
    valid: Option<&Valid<'_>>,
    hold: Option<Hold>,
    retained: bool,
    clock: &impl Fn() -> Duration,
    limits: &RetentionLimits,
) -> (Sent, After) {
    let mut accepted = retained.then(clock);
    let mut o = outbound.lock();
    if accepted.is_none() && (o.retained.is_some() || o.waits() || !o.queue.is_idle()) {
        drop(o);
        accepted = Some(clock());
        o = outbound.lock();
    }
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
    match accepted {
        Some(at) if counted || o.waits() || !o.queue.is_idle() => {
            append(outbound, o, own, item, counted, hold, at, clock, limits)
        }
        _ => write_directly(outbound, o, own, item, clock),
    }
}

/// Something may be in the way of `item`, accepted at `at`, or it has to be kept.
#[expect(clippy::too_many_arguments, reason = "what the sender was given, and what it found")]
fn append<C: SharedConnection>(
    outbound: &Mutex<Outbound<C>>,
    mut o: MutexGuard<'_, Outbound<C>>,
    own: Own<'_>,
    item: Item<'_>,
    counted: bool,
    hold: Option<Hold>,
    at: Duration,
    clock: &impl Fn() -> Duration,
    limits: &RetentionLimits,
) -> (Sent, After) {
    let waits = o.waits();
    if !waits && !counted && !o.queue.has_unwritten() && !o.queue.has_greeting() && hold.is_none() {
        return write_directly(outbound, o, own, item, clock);
    }
    let room = o.room(own, item, limits);
    if let Room::None(after) = room {
        return (Sent::Refused(SendError::Full), after);
    }
    if let Some(copies) = item.copies() {
        copies.add();
    }
    if !o.hold_back(item, hold, at, limits) {
        let mut entry = Entry::new(item, counted, at);
        if matches!(room, Room::WithoutPayload) {
            entry.strip();
        }
        o.queue.push(entry);
        o.account_for();
        if o.is_overgrown(limits) {
            return (Sent::Accepted, After::Overgrown);
        }
    }
    if item.stanza().is_some_and(|stanza| stanza.kind() == Kind::Presence) {
        o.condense(own);
    }
    if o.link.is_some() && o.queue.void_bytes() > limits.bytes {
        return (Sent::Accepted, After::Lost(o.epoch, SendError::Full));
    }
    let mut is_behind = o.is_behind(limits);
    let mut after = After::Nothing;
    if !waits && (o.queue.has_unwritten() || o.queue.has_greeting()) {
        after = write_waiting(outbound, o, own);
        is_behind = is_behind && outbound.lock().is_behind(limits);
    }
    let after = if is_behind && matches!(after, After::Nothing) { After::Behind } else { after };
    (Sent::Accepted, after)
}

/// Appends messages that have waited in a store, each with the time of its acceptance if that is known, all
/// or none of them: where the session ends first, all go back, in order. A client that has not acknowledged as
/// much as may wait of what stores have given before is given up (LIMIT-10).
pub(in crate::session) fn send_stored<C: SharedConnection>(
    outbound: &Mutex<Outbound<C>>,
    own: Own<'_>,
    items: &[(Item<'_>, Option<Duration>)],
    now: Duration,
    limits: &RetentionLimits,
) -> (Sent, After) {
    let mut o = outbound.lock();
    if o.ended || (o.link.is_none() && o.retained.is_none()) {
        return (Sent::Refused(SendError::Closed), After::Nothing);
    }
    if o.queue.stored().exceeds(limits, 1) {
        let after = match o.link {
            Some(_) => After::Lost(o.epoch, SendError::Full),
            None => After::Nothing,
        };
        return (Sent::Refused(SendError::Full), after);
    }
    o.let_all_go();
    let counted = o.retained.is_some();
    for (item, since) in items {
        o.delivered = o.delivered.wrapping_add(1);
        o.queue.push_stored(*item, counted, since.unwrap_or(now));
    }
    o.account_for();
    (Sent::Accepted, if o.waits() { After::Nothing } else { write_waiting(outbound, o, own) })
}

/// Nothing waits and nothing has to be kept: straight from the sender's stanza.
fn write_directly<C: SharedConnection>(
    outbound: &Mutex<Outbound<C>>,
    mut o: MutexGuard<'_, Outbound<C>>,
    own: Own<'_>,
    item: Item<'_>,
    clock: &impl Fn() -> Duration,
) -> (Sent, After) {
    let Some(link) = o.link.clone() else {
        return (Sent::Refused(SendError::Closed), After::Nothing);
    };
    if let Some(copies) = item.copies() {
        copies.add();
    }
    let epoch = o.epoch;
    o.writer = Writer::Busy;
    drop(o);
    let result = write(&link, own, item, &[]);
    let full = (result == Err(SendError::Full)).then(clock);
    let mut o = outbound.lock();
    if result.is_ok() && o.epoch == epoch && o.queue.is_idle() {
        o.writer = Writer::Nobody;
        return (Sent::Accepted, After::Nothing);
    }
    written_directly(outbound, o, own, item, epoch, result, full)
}

/// It was not all that was to be written, or was not taken: for want of room, at `full`.
#[cold]
fn written_directly<C: SharedConnection>(
    outbound: &Mutex<Outbound<C>>,
    mut o: MutexGuard<'_, Outbound<C>>,
    own: Own<'_>,
    item: Item<'_>,
    epoch: Epoch,
    result: Result<(), SendError>,
    full: Option<Duration>,
) -> (Sent, After) {
    if let Some(at) = full.filter(|_| o.epoch == epoch && !o.ended) {
        // It waits here, before what others have queued meanwhile.
        o.queue.put_back(Entry::new(item, false, at));
        let called = std::mem::replace(&mut o.writer, Writer::Nobody) == Writer::Called;
        let after = if called { write_waiting(outbound, o, own) } else { After::Nothing };
        return (Sent::Accepted, after);
    }
    if let (Err(_), Some(copies)) = (result, item.copies()) {
        // The sender still has it.
        let _last = copies.release();
    }
    let sent = result.map_or_else(Sent::Refused, |()| Sent::Accepted);
    if o.epoch != epoch {
        // A resumption has put in a newer transport, which has a writer of its own.
        return (sent, After::Nothing);
    }
    o.writer = Writer::Nobody;
    let after = match result {
        Ok(()) | Err(SendError::Full) if o.queue.has_unwritten() => write_waiting(outbound, o, own),
        Ok(()) | Err(SendError::Full) => After::Nothing,
        Err(error) if !o.ended => After::Lost(epoch, error),
        Err(_) => After::Strays(close_after_failure(o)),
    };
    (sent, after)
}

/// Writes what waits, if nobody does: after the gate has opened, a resumption, or an end.
pub(in crate::session) fn kick<C: SharedConnection>(
    outbound: &Mutex<Outbound<C>>,
    own: Own<'_>,
) -> After {
    let o = outbound.lock();
    if o.waits() {
        return After::Nothing;
    }
    write_waiting(outbound, o, own)
}

/// The writer: hands over entry by entry, without the lock, until the transport takes no more for now
/// (LIMIT-13). The rest waits here, and goes on once the transport has taken something.
fn write_waiting<'a, C: SharedConnection>(
    outbound: &'a Mutex<Outbound<C>>,
    mut o: MutexGuard<'a, Outbound<C>>,
    own: Own<'_>,
) -> After {
    let epoch = o.epoch;
    let mut strays = Vec::new();
    loop {
        if o.epoch != epoch {
            return routed_again(strays);
        }
        let Some(link) = o.link.clone() else {
            o.writer = Writer::Nobody;
            return routed_again(strays);
        };
        // Claimed before it is written: its acknowledgement may arrive before `send` returns.
        let sent = o.sent();
        let (entry, delayed) = if let Some(greeting) = o.queue.take_greeting() {
            (Entry::Raw(greeting.into()), None)
        } else {
            match claim(&mut o) {
                Some(claimed) => claimed,
                None => {
                    o.writer = Writer::Nobody;
                    return routed_again(strays);
                }
            }
        };
        let raised = o.sent() > sent;
        o.writer = Writer::Busy;
        let Some(item) = entry.as_item() else {
            o.link = None;
            o.writer = Writer::Nobody;
            let (lingers, waker) = (o.lingers, o.waker.take());
            drop(o);
            if !lingers {
                shielded(|| link.close(Close::Flush));
            }
            wake(waker);
            return routed_again(strays);
        };
        drop(o);
        let since = item.stanza().zip(delayed);
        let mark = since.and_then(|(stanza, since)| delay_mark(stanza, own.jid, since));
        let result = write(&link, own, item, mark.as_deref().unwrap_or_default());
        o = outbound.lock();
        let Err(error) = result else { continue };
        if error == SendError::Full && o.epoch == epoch {
            if !o.ended {
                let called = std::mem::replace(&mut o.writer, Writer::Nobody) == Writer::Called;
                o.give_back(entry, raised);
                if called {
                    continue;
                }
                return After::Nothing;
            }
            if matches!(entry, Entry::Stanza { .. }) {
                // What the client cannot take any more is routed again; it is told of the end.
                strays.extend(unwritten_left(entry));
                strays.extend(o.queue.take_stanzas().filter_map(unwritten_left));
                continue;
            }
        }
        let unwritten = matches!(entry, Entry::Stanza { counted: false, .. }).then_some(entry);
        if o.epoch != epoch {
            strays.extend(unwritten.and_then(unwritten_left));
            return routed_again(strays);
        }
        o.writer = Writer::Nobody;
        if o.ended {
            strays.extend(unwritten.and_then(unwritten_left));
            strays.extend(close_after_failure(o));
            return routed_again(strays);
        }
        // Back to where it was, for the end of the session to settle.
        if let Some(entry) = unwritten {
            o.queue.put_back(entry);
        }
        return After::Lost(epoch, error);
    }
}

fn routed_again(strays: Vec<Left>) -> After {
    if strays.is_empty() { After::Nothing } else { After::Strays(strays) }
}

fn unwritten_left(entry: Entry) -> Option<Left> {
    entry.into_left(false)
}

/// The next entry to write, and since when it is delayed. Counted ones stay behind the cursor, the
/// others leave the queue.
fn claim<C>(o: &mut Outbound<C>) -> Option<(Entry, Option<SystemTime>)> {
    let next = o.queue.next()?;
    if let Entry::Stanza { counted: true, at, .. } = next {
        let (entry, at, place) = (next.clone(), (*at).into(), o.queue.written());
        o.queue.step();
        let written = u32::try_from(o.queue.written()).unwrap_or(u32::MAX);
        let mut delayed = None;
        if let Some(retained) = &mut o.retained {
            retained.sent = retained.sent.max(written);
            retained.hand_over(entry.len());
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

#[inline]
fn write<C: Connection>(
    link: &C,
    own: Own<'_>,
    item: Item<'_>,
    mark: &[u8],
) -> Result<(), SendError> {
    let frame = match item {
        Item::Raw(bytes) => Frame::raw(bytes),
        Item::Since(stanza, at) => return write_since(link, own, stanza, at),
        Item::Stanza(stanza, to) | Item::Copy(stanza, to, _) => {
            let frame = Frame::stanza(stanza).append(mark);
            match to {
                To::AsIs => frame,
                To::OwnBare => frame.to(Some(own.account.as_str())),
                To::OwnFull => frame.to(Some(own.jid.as_str())),
            }
        }
    };
    hand_over(link, frame)
}

/// Presence that was sent before (PRES-16).
#[inline(never)]
fn write_since<C: Connection>(
    link: &C,
    own: Own<'_>,
    stanza: &Stanza,
    at: Nanos,
) -> Result<(), SendError> {
    let since = delay(stanza.from().as_deref().unwrap_or_default(), at.into());
    hand_over(link, Frame::stanza(stanza).to(Some(own.account.as_str())).append(&since))
}

#[inline]
fn hand_over<C: Connection>(link: &C, frame: Frame<'_>) -> Result<(), SendError> {
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
