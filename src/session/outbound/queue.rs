//! What waits to go out to one session: one pointer while nothing does.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::copies::Copies;
use super::holdback::HeldBack;
use super::item::{Item, Reply};
use super::limits::{RetentionLimits, small};
use super::queued::{Bounded, Queued};
use crate::stanza::Stanza;

/// Entries in order; the cursor marks the first not yet given to the current transport.
///
/// An idle session owns no buffer: what only a busy one needs is freed with the last entry.
#[derive(Default)]
pub(crate) struct Queue(pub(super) Option<Box<Buffer>>);

#[derive(Default)]
pub(super) struct Buffer {
    pub(super) entries: VecDeque<Queued>,
    pub(super) cursor: usize,
    bytes: usize,
    /// The bytes behind the cursor.
    unwritten: usize,
    /// The part that something else limits.
    bounded: Size,
    /// The part of that which a store has given.
    stored: Size,
    /// How many are void: only their number is left.
    void: u32,
    /// How many entries were handed over, but for those that came back: a number that changes.
    handed: u32,
    /// Above this, look again for presence that a later one replaces.
    condense_at: Size,
    /// The greeting of a new transport, written before everything else.
    pub(super) greeting: Option<Arc<Reply>>,
    /// What is held back, while something is to be.
    pub(super) held: Option<Box<HeldBack>>,
}

/// Up to this much, looking for replaced presence is not worth it.
const CONDENSE: Size = Size { stanzas: 1000, bytes: 64 << 10 };

/// How much waits, in no more bytes than that takes.
#[derive(Clone, Copy, Default)]
pub(crate) struct Size {
    pub(super) stanzas: u32,
    pub(crate) bytes: u32,
}

impl Size {
    /// Whether it is more than may wait for a session with a transport, or than so many times that
    /// (LIMIT-10).
    pub(crate) const fn exceeds(self, limits: &RetentionLimits, times: usize) -> bool {
        self.stanzas as usize > limits.live_stanzas.saturating_mul(times)
            || self.bytes as usize > limits.bytes.saturating_mul(times)
    }

    fn add(&mut self, entry: &Queued) {
        self.stanzas = self.stanzas.saturating_add(1);
        self.bytes = self.bytes.saturating_add(small(entry.len()));
    }

    fn remove(&mut self, entry: &Queued) {
        self.stanzas = self.stanzas.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(small(entry.len()));
    }
}

impl Buffer {
    fn add(&mut self, entry: &Queued) {
        self.bytes = self.bytes.saturating_add(entry.len());
        if entry.bounded() != Bounded::No {
            self.bounded.add(entry);
        }
        if entry.bounded() == Bounded::Store {
            self.stored.add(entry);
        }
        self.void = self.void.saturating_add(u32::from(entry.is_void()));
    }

    fn remove(&mut self, entry: &Queued) {
        self.bytes = self.bytes.saturating_sub(entry.len());
        if entry.bounded() != Bounded::No {
            self.bounded.remove(entry);
        }
        if entry.bounded() == Bounded::Store {
            self.stored.remove(entry);
        }
        self.void = self.void.saturating_sub(u32::from(entry.is_void()));
        if self.bytes <= CONDENSE.bytes as usize {
            self.condense_at = CONDENSE;
        }
    }

    fn clear_sums(&mut self) {
        (self.bytes, self.unwritten, self.void) = Default::default();
        (self.bounded, self.stored) = Default::default();
    }

    /// One more behind the cursor, or one less.
    fn add_unwritten(&mut self, entry: &Queued) {
        self.add(entry);
        self.unwritten = self.unwritten.saturating_add(entry.len());
    }

    fn remove_unwritten(&mut self, entry: &Queued) {
        self.remove(entry);
        self.unwritten = self.unwritten.saturating_sub(entry.len());
    }
}

impl Queue {
    /// Entries that wait for a transport or for an acknowledgement.
    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |buffer| buffer.entries.len())
    }

    /// Their bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |buffer| buffer.bytes)
    }

    /// What counts against the limits of the session: all but what something else limits.
    pub(super) fn limited(&self) -> Size {
        let Some(buffer) = &self.0 else { return Size::default() };
        Size {
            stanzas: small(buffer.entries.len()).saturating_sub(buffer.bounded.stanzas),
            bytes: small(buffer.bytes).saturating_sub(buffer.bounded.bytes),
        }
    }

    /// What a store has given.
    pub(crate) fn stored(&self) -> Size {
        self.0.as_ref().map_or_else(Size::default, |buffer| buffer.stored)
    }

    pub(super) fn void_bytes(&self) -> usize {
        let void = self.0.as_ref().map_or(0, |buffer| buffer.void as usize);
        void.saturating_mul(size_of::<Queued>())
    }

    /// A number that changes whenever an entry is handed over for good.
    pub(crate) fn handed(&self) -> u32 {
        self.0.as_ref().map_or(0, |buffer| buffer.handed)
    }

    /// What the current transport has not been given.
    pub(crate) fn unwritten(&self) -> Size {
        let Some(buffer) = &self.0 else { return Size::default() };
        let stanzas = small(buffer.entries.len().saturating_sub(buffer.cursor));
        Size { stanzas, bytes: small(buffer.unwritten) }
    }

    /// When the oldest stanza was accepted that has to be acknowledged, and has not been.
    pub(crate) fn oldest(&self) -> Option<Duration> {
        self.0.as_ref()?.entries.iter().find_map(Queued::counted_since)
    }

    /// How many of them the transport has been given.
    pub(super) fn written(&self) -> usize {
        self.0.as_ref().map_or(0, |buffer| buffer.cursor)
    }

    /// Whether nothing waits, nothing is unacknowledged and nothing is to be held back.
    pub(super) const fn is_idle(&self) -> bool {
        self.0.is_none()
    }

    #[inline]
    pub(crate) fn has_unwritten(&self) -> bool {
        self.written() < self.len()
    }

    pub(super) fn front(&self) -> Option<&Queued> {
        self.0.as_ref()?.entries.front()
    }

    /// The first that is not written.
    pub(super) fn next(&self) -> Option<&Queued> {
        let buffer = self.0.as_ref()?;
        buffer.entries.get(buffer.cursor)
    }

    pub(super) fn push(&mut self, entry: Queued) {
        let buffer = self.0.get_or_insert_default();
        buffer.add_unwritten(&entry);
        buffer.entries.push_back(entry);
    }

    pub(super) fn push_stored(&mut self, item: &Item<'_>, counted: bool, at: Duration) {
        let mut entry = Queued::new(item, counted, at);
        if let Queued::Stanza { bounded, .. } = &mut entry {
            *bounded = Bounded::Store;
        }
        self.push(entry);
    }

    /// Drops each presence that a later one of the same JID makes out of date, once there is enough to
    /// be worth the look: from the place `first` on. Of those that are written the number stays, which the
    /// client counts. `domain` is the session's. Says how many it took out before the place `again`.
    pub(super) fn condense(&mut self, first: usize, again: usize, domain: &str) -> usize {
        let Some(buffer) = &mut self.0 else { return 0 };
        let Size { stanzas, bytes } = buffer.condense_at;
        if small(buffer.entries.len()) <= stanzas.max(CONDENSE.stanzas)
            && small(buffer.bytes) <= bytes.max(CONDENSE.bytes)
        {
            return 0;
        }
        let mut known = HashSet::new();
        let mut stale = Vec::new();
        for (at, entry) in buffer.entries.iter().enumerate().rev() {
            let may_go = at < buffer.cursor || at >= first;
            if may_go && entry.tells_of(domain).is_some_and(|jid| !known.insert(jid)) {
                stale.push(at);
            }
        }
        let before = stale.iter().filter(|at| (first..again).contains(at)).count();
        if !stale.is_empty() {
            let nothing = Stanza::presence().build();
            let entries = std::mem::take(&mut buffer.entries);
            for (at, mut entry) in entries.into_iter().enumerate() {
                if stale.pop_if(|stale| *stale == at).is_none() {
                    buffer.entries.push_back(entry);
                } else if at < buffer.cursor {
                    buffer.remove(&entry);
                    entry.make_void(&nothing);
                    buffer.add(&entry);
                    buffer.entries.push_back(entry);
                } else {
                    buffer.remove_unwritten(&entry);
                }
            }
        }
        // By half as much: less than the room that is left for the news of an end (LIMIT-10).
        let more = |size: usize| small(size.saturating_add(size / 2));
        buffer.condense_at =
            Size { stanzas: more(buffer.entries.len()), bytes: more(buffer.bytes) };
        before
    }

    /// What is not written yet counts for acknowledgement; `reply` is before it.
    pub(crate) fn count_unwritten(&mut self, reply: &[u8]) {
        let buffer = self.0.get_or_insert_default();
        buffer.entries.iter_mut().skip(buffer.cursor).for_each(|entry| entry.set_counted(true));
        self.put_back(Queued::Element(reply.into()));
    }

    /// The next one is written and stays, to be acknowledged.
    pub(super) fn step(&mut self) {
        let Some(buffer) = &mut self.0 else { return };
        let len = buffer.entries.get(buffer.cursor).map_or(0, Queued::len);
        buffer.unwritten = buffer.unwritten.saturating_sub(len);
        buffer.cursor += 1;
        buffer.handed = buffer.handed.wrapping_add(1);
    }

    /// The last one was not taken: it is the next again.
    pub(super) fn step_back(&mut self) {
        let Some(buffer) = &mut self.0 else { return };
        buffer.cursor = buffer.cursor.saturating_sub(1);
        let len = buffer.entries.get(buffer.cursor).map_or(0, Queued::len);
        buffer.unwritten = buffer.unwritten.saturating_add(len);
        buffer.handed = buffer.handed.wrapping_sub(1);
    }

    /// Takes out the next one, to be handed over.
    pub(super) fn take_next(&mut self) -> Option<Queued> {
        let buffer = self.0.as_mut()?;
        buffer.handed = buffer.handed.wrapping_add(1);
        self.remove_next()
    }

    fn remove_next(&mut self) -> Option<Queued> {
        let buffer = self.0.as_mut()?;
        let entry = buffer.entries.remove(buffer.cursor)?;
        buffer.remove_unwritten(&entry);
        self.tidy();
        Some(entry)
    }

    /// Drops the next one if it is void.
    pub(super) fn take_void(&mut self) -> bool {
        let is_void = self.next().is_some_and(Queued::is_void);
        if is_void {
            self.remove_next().into_iter().for_each(Queued::forget);
        }
        is_void
    }

    /// Puts back what was taken out last.
    pub(super) fn put_back(&mut self, entry: Queued) {
        let buffer = self.0.get_or_insert_default();
        buffer.add_unwritten(&entry);
        buffer.handed = buffer.handed.wrapping_sub(1);
        buffer.entries.insert(buffer.cursor, entry);
    }

    /// Drops the first ones, which were acknowledged.
    pub(super) fn drop_first(&mut self, count: usize) {
        let Some(buffer) = &mut self.0 else { return };
        for _ in 0..count {
            let Some(entry) = buffer.entries.pop_front() else { break };
            match buffer.cursor.checked_sub(1) {
                Some(cursor) => {
                    buffer.cursor = cursor;
                    buffer.remove(&entry);
                }
                None => buffer.remove_unwritten(&entry),
            }
        }
        self.tidy();
    }

    /// What the first entries count for.
    pub(super) fn copies(&self, entries: usize) -> impl Iterator<Item = &Copies> {
        let all = self.0.iter().flat_map(|buffer| &buffer.entries);
        all.take(entries).filter_map(Queued::copies)
    }

    /// The client of the session is there to get the first entries, or has got them.
    pub(super) fn regain(&self, entries: usize) {
        self.copies(entries).for_each(Copies::regain);
    }

    /// Everything is to be written again, on another transport. What was no stanza belonged to the
    /// old one, and what is void is left out; so many had been written.
    pub(super) fn rewind(&mut self) -> usize {
        let Some(buffer) = &mut self.0 else { return 0 };
        let entries = std::mem::take(&mut buffer.entries);
        buffer.clear_sums();
        let mut void = 0;
        for entry in entries.into_iter().filter(|entry| matches!(entry, Queued::Stanza { .. })) {
            if entry.is_void() {
                void += 1;
                entry.forget();
            } else {
                buffer.add_unwritten(&entry);
                buffer.entries.push_back(entry);
            }
        }
        buffer.cursor = 0;
        self.tidy();
        void
    }

    /// Takes out what `is_unwanted`, and makes void what the current transport has been given of that.
    /// Returns the places of what was taken out, in their order.
    #[cfg(feature = "server")]
    pub(super) fn take_out(&mut self, is_unwanted: impl Fn(&Stanza) -> bool) -> Vec<usize> {
        let Some(buffer) = &mut self.0 else { return Vec::new() };
        let mut places = Vec::new();
        let entries = std::mem::take(&mut buffer.entries);
        for (place, mut entry) in entries.into_iter().enumerate() {
            if entry.message().is_some_and(&is_unwanted) {
                if place >= buffer.cursor {
                    buffer.remove_unwritten(&entry);
                    entry.forget();
                    places.push(place);
                    continue;
                }
                buffer.remove(&entry);
                if let Queued::Stanza { void, .. } = &mut entry {
                    *void = true;
                }
                buffer.add(&entry);
            }
            buffer.entries.push_back(entry);
        }
        self.tidy();
        places
    }

    /// Takes out all entries, each with whether it was written.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = (Queued, bool)> + use<> {
        let buffer = self.0.as_mut().map(|buffer| {
            buffer.clear_sums();
            (std::mem::take(&mut buffer.entries), std::mem::take(&mut buffer.cursor))
        });
        self.tidy();
        let (entries, cursor) = buffer.unwrap_or_default();
        entries.into_iter().enumerate().map(move |(at, entry)| (entry, at < cursor))
    }

    pub(super) fn take_stanzas(&mut self) -> impl Iterator<Item = Queued> + use<> {
        let all = self.take_all().map(|(entry, _)| entry);
        let (stanzas, others): (Vec<_>, Vec<_>) =
            all.partition(|entry| matches!(entry, Queued::Stanza { .. }));
        others.into_iter().for_each(|entry| self.push(entry));
        stanzas.into_iter()
    }

    pub(super) fn has_greeting(&self) -> bool {
        self.0.as_ref().is_some_and(|buffer| buffer.greeting.is_some())
    }

    pub(crate) fn set_greeting(&mut self, greeting: Reply) {
        self.0.get_or_insert_default().greeting = Some(Arc::new(greeting));
    }

    pub(super) fn take_greeting(&mut self) -> Option<Queued> {
        let greeting = self.0.as_mut()?.greeting.take();
        self.tidy();
        greeting.map(Queued::Reply)
    }

    pub(super) fn held(&mut self) -> Option<&mut HeldBack> {
        self.0.as_mut()?.held.as_deref_mut()
    }

    pub(super) fn set_held(&mut self, held: HeldBack) {
        self.0.get_or_insert_default().held = Some(Box::new(held));
    }

    pub(super) fn take_held(&mut self) -> Option<HeldBack> {
        let held = self.0.as_mut()?.held.take();
        self.tidy();
        held.map(|held| *held)
    }

    fn tidy(&mut self) {
        let is_idle = |buffer: &Buffer| {
            buffer.entries.is_empty() && buffer.greeting.is_none() && buffer.held.is_none()
        };
        if self.0.as_deref().is_some_and(is_idle) {
            self.0 = None;
        }
    }
}

#[cfg(all(test, feature = "server"))]
mod tests {
    use super::*;

    const A: &str = "a@x/y";
    const B: &str = "b@x/yz";

    /// The transport has got the first two of four, and nobody is to hear of `A` again.
    fn queue() -> (Queue, usize) {
        let mut queue = Queue::default();
        let mut len = 0;
        for from in [A, B, A, B] {
            let stanza = Stanza::message().from(from).build();
            len = stanza.len();
            queue.push(Queued::new(&Item::new(&stanza), true, Duration::ZERO));
        }
        (0..2).for_each(|_| queue.step());
        let places = queue.take_out(|stanza| stanza.from().as_deref() == Some(A));
        assert_eq!(places, [2]);
        (queue, len)
    }

    fn sums(queue: &Queue) -> (usize, usize, usize, usize) {
        let Size { stanzas, bytes } = queue.unwritten();
        (queue.len(), queue.bytes(), stanzas as usize, bytes as usize)
    }

    #[test]
    fn block_11_what_is_void_is_not_written_to_the_next_transport() {
        let (mut queue, len) = queue();
        assert_eq!(sums(&queue), (3, 3 * len - 1, 1, len));
        assert_eq!(queue.rewind(), 1);
        assert_eq!(sums(&queue), (2, 2 * len, 2, 2 * len));
        assert!(!queue.take_void());
    }

    #[test]
    fn block_11_what_becomes_void_while_it_is_refused_is_dropped() {
        let (mut queue, len) = queue();
        queue.step_back();
        assert!(!queue.take_void());
        queue.step_back();
        assert!(queue.take_void());
        assert_eq!(sums(&queue), (2, 2 * len, 2, 2 * len));
        queue.drop_first(2);
        assert!(queue.is_idle());
    }
}
