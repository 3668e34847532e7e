//! The writer: whoever sends while nobody writes hands over what waits, without the lock.

use std::time::{Duration, SystemTime};

use jid::FullJid;

use super::{After, Item, Left, Outbound, Own, Sent, To, Valid};
use crate::connection::{Close, Connection, SendError};
use crate::session::held::Hold;
use crate::session::queue::Entry;
use crate::session::retained::RetentionLimits;
use crate::session::shield::{shielded, wake};
use crate::stanza::delay::{delay, is_delayed_by};
use crate::stanza::{Frame, Kind, Stanza};
use crate::sync::{Mutex, MutexGuard};

/// Appends `item`, then writes if nobody else does.
pub(in crate::session) fn send<C: Connection + Clone>(
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

/// Appends messages that have waited in a store, each with the time of its acceptance if that is known, all
/// or none of them: where the session ends first, all go back, in order.
pub(in crate::session) fn send_stored<C: Connection + Clone>(
    outbound: &Mutex<Outbound<C>>,
    own: Own<'_>,
    items: &[(Item<'_>, Option<Duration>)],
    now: Option<Duration>,
) -> (Sent, After) {
    let mut o = outbound.lock();
    if o.ended || (o.link.is_none() && o.retained.is_none()) {
        return (Sent::Refused(SendError::Closed), After::Nothing);
    }
    o.let_all_go();
    let at = o.retained.as_ref().map_or(Duration::ZERO, |retained| retained.stamp(now));
    let counted = o.retained.is_some();
    for (item, since) in items {
        o.delivered = o.delivered.wrapping_add(1);
        o.queue.push_stored(*item, counted, since.unwrap_or(at));
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
pub(in crate::session) fn kick<C: Connection + Clone>(
    outbound: &Mutex<Outbound<C>>,
    own: Own<'_>,
) -> After {
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
        let mut taken = 0;
        if o.queue.is_catching_up() && !o.ended {
            o.writing = true;
            drop(o);
            taken = written(&link);
            let enough = shielded(|| link.waiting()).unwrap_or(0) > AHEAD;
            o = outbound.lock();
            if o.epoch != epoch {
                return After::Nothing;
            }
            if enough && !o.ended {
                match rest(outbound, o, &link, taken) {
                    Some(again) => o = again,
                    None => return After::Nothing,
                }
                continue;
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
            match rest(outbound, o, &link, taken) {
                Some(again) => o = again,
                None => return After::Nothing,
            }
            continue;
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

/// Gives up the writer's role until the transport has taken something. Where it has since it had
/// taken `taken` bytes, whoever was told of that found us still at work: it is ours to go on.
fn rest<'a, C: Connection + Clone>(
    outbound: &'a Mutex<Outbound<C>>,
    mut o: MutexGuard<'a, Outbound<C>>,
    link: &C,
    taken: u64,
) -> Option<MutexGuard<'a, Outbound<C>>> {
    o.writing = false;
    drop(o);
    if written(link) == taken {
        return None;
    }
    let o = outbound.lock();
    (!o.waits()).then_some(o)
}

fn written<C: Connection>(link: &C) -> u64 {
    shielded(|| link.written()).unwrap_or(0)
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
