//! What waits to go out to one session: one pointer while nothing does.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::copies::Copies;
use super::holdback::Held;
use super::limits::RetentionLimits;
use super::{Item, Left, To, is_state};
use crate::address::bare_of;
use crate::environment::Nanos;
use crate::stanza::{Kind, Stanza};

/// One thing that waits.
#[derive(Clone)]
pub(super) enum Entry {
    Stanza {
        stanza: Stanza,
        to: To,
        /// Counted for acknowledgement: appended after retention began.
        counted: bool,
        bounded: Bounded,
        /// The client may have got it, and is not to get it again; nor is anybody else.
        void: bool,
        /// When it was accepted.
        at: Nanos,
        /// Of presence that was sent before, since when it is so.
        since: Option<Nanos>,
        copies: Option<Copies>,
    },
    Raw(Arc<[u8]>),
    /// The end of the session: nothing is ever behind it.
    Close,
}

impl Entry {
    pub(super) fn new(item: Item<'_>, counted: bool, at: Duration) -> Self {
        let (stanza, to, copies, since) = match item {
            Item::Stanza(stanza, to) => (stanza.clone(), to, None, None),
            Item::Copy(stanza, to, copies) => (stanza.clone(), to, Some(copies.clone()), None),
            Item::Since(stanza, since) => (stanza.clone(), To::OwnBare, None, Some(since)),
            Item::Raw(bytes) => return Self::Raw(bytes.into()),
        };
        let bounded = if is_state(item) { Bounded::Source } else { Bounded::No };
        let at = at.into();
        Self::Stanza { stanza, to, counted, bounded, void: false, at, since, copies }
    }

    pub(super) fn as_item(&self) -> Option<Item<'_>> {
        match self {
            Self::Stanza { stanza, since: Some(at), .. } => Some(Item::Since(stanza, *at)),
            Self::Stanza { stanza, to, .. } => Some(Item::Stanza(stanza, *to)),
            Self::Raw(bytes) => Some(Item::Raw(bytes)),
            Self::Close => None,
        }
    }

    /// What is left of it when its session ends.
    pub(super) fn into_left(self, written: bool) -> Option<Left> {
        if self.is_void() {
            self.forget();
            return None;
        }
        let Self::Stanza { stanza, counted, at, copies, .. } = self else { return None };
        Some(Left { stanza, at: at.into(), counted, written, copies })
    }

    /// Says whether it is to be counted for acknowledgement.
    pub(super) const fn set_counted(&mut self, is_counted: bool) {
        if let Self::Stanza { counted, .. } = self {
            *counted = is_counted;
        }
    }

    /// Leaves of presence whose it is and of what type, and the addresses.
    pub(super) fn strip(&mut self) {
        let Self::Stanza { stanza, .. } = self else { return };
        let (from, to, type_) = (stanza.from(), stanza.to(), stanza.type_());
        let mut bare = Stanza::presence();
        if let Some(from) = &from {
            bare = bare.from(from);
        }
        if let Some(to) = &to {
            bare = bare.to(to);
        }
        if let Some(type_) = &type_ {
            bare = bare.type_(type_);
        }
        *stanza = bare.build();
    }

    const fn is_bounded(&self) -> bool {
        matches!(self, Self::Stanza { bounded: Bounded::Source | Bounded::Store, .. })
    }

    const fn is_of_store(&self) -> bool {
        matches!(self, Self::Stanza { bounded: Bounded::Store, .. })
    }

    /// Whom it says to be there or not, where a later presence of the same says all that it says.
    ///
    /// What comes for the full JID from another domain may be of a room: there each presence counts.
    fn tells_of(&self, domain: &str) -> Option<String> {
        let Self::Stanza { stanza, to, .. } = self else { return None };
        let is_presence = !self.is_void()
            && stanza.kind() == Kind::Presence
            && matches!(stanza.type_().as_deref(), None | Some("unavailable"));
        let from = stanza.from().filter(|_| is_presence)?;
        let bare = bare_of(&from);
        let is_here = bare.rsplit_once('@').map_or(bare, |(_, domain)| domain) == domain;
        let is_broadcast = *to != To::AsIs || stanza.to().is_none_or(|to| !to.contains('/'));
        (is_here || is_broadcast).then(|| from.into_owned())
    }

    /// The stanza that it brings: of a message in whatever form, the message.
    #[cfg(feature = "server")]
    pub(super) fn message(&self) -> Option<&Stanza> {
        let Self::Stanza { stanza, copies, .. } = self else { return None };
        Some(copies.as_ref().map_or(stanza, Copies::message))
    }

    /// Leaves its number alone: what it said is kept no longer.
    fn make_void(&mut self, nothing: &Stanza) {
        if let Self::Stanza { stanza, void, bounded, .. } = self {
            *stanza = nothing.clone();
            (*void, *bounded) = (true, Bounded::Source);
        }
    }

    const fn is_void(&self) -> bool {
        matches!(self, Self::Stanza { void: true, .. })
    }

    /// It is dropped: a later one has taken its place, or nobody is to get it.
    pub(super) fn forget(self) {
        if let Self::Stanza { copies: Some(copies), .. } = self {
            let _last = copies.release();
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Stanza { stanza, .. } => stanza.len(),
            Self::Raw(bytes) => bytes.len(),
            Self::Close => 0,
        }
    }
}

/// What else limits an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Bounded {
    No,
    /// The session whose presence it is, which keeps these very bytes, and of which one is enough.
    Source,
    /// The store that it has waited in. It gives more only as that is acknowledged.
    Store,
}

/// The entries in their order, with a cursor at the first that the transport of now has not got.
///
/// An idle session owns no buffer: what only a busy one needs is freed with the last entry.
#[derive(Default)]
pub(crate) struct Queue(Option<Box<Waiting>>);

#[derive(Default)]
struct Waiting {
    entries: VecDeque<Entry>,
    cursor: usize,
    bytes: usize,
    /// The bytes behind the cursor.
    unwritten: usize,
    /// The part that something else limits.
    bounded: Size,
    /// The part of that which a store has given.
    stored: Size,
    /// How many have a number and nothing else any more.
    void: usize,
    /// How many entries were handed over, but for those that came back: a number that changes.
    handed: u32,
    /// When there is more than that it is looked for presence that a later one replaces.
    condense_at: Size,
    /// Greeting of a transport, written before everything else.
    greeting: Option<Box<[u8]>>,
    /// What is held back, while something is to be.
    held: Option<Held>,
}

/// Up to so much no presence is looked for that could be left out.
const CONDENSE: Size = Size { stanzas: 1000, bytes: 64 << 10 };

/// How much waits.
#[derive(Clone, Copy, Default)]
pub(crate) struct Size {
    pub(super) stanzas: usize,
    pub(crate) bytes: usize,
}

impl Size {
    /// Whether it is more than may wait for a session with a transport, or than so many times that
    /// (LIMIT-10).
    pub(crate) const fn exceeds(self, limits: &RetentionLimits, times: usize) -> bool {
        self.stanzas > limits.live_stanzas.saturating_mul(times)
            || self.bytes > limits.bytes.saturating_mul(times)
    }

    fn add(&mut self, entry: &Entry) {
        self.stanzas = self.stanzas.saturating_add(1);
        self.bytes = self.bytes.saturating_add(entry.len());
    }

    fn remove(&mut self, entry: &Entry) {
        self.stanzas = self.stanzas.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(entry.len());
    }
}

impl Waiting {
    fn add(&mut self, entry: &Entry) {
        self.bytes = self.bytes.saturating_add(entry.len());
        if entry.is_bounded() {
            self.bounded.add(entry);
        }
        if entry.is_of_store() {
            self.stored.add(entry);
        }
        self.void = self.void.saturating_add(usize::from(entry.is_void()));
    }

    fn remove(&mut self, entry: &Entry) {
        self.bytes = self.bytes.saturating_sub(entry.len());
        if entry.is_bounded() {
            self.bounded.remove(entry);
        }
        if entry.is_of_store() {
            self.stored.remove(entry);
        }
        self.void = self.void.saturating_sub(usize::from(entry.is_void()));
        if self.bytes <= CONDENSE.bytes {
            self.condense_at = CONDENSE;
        }
    }

    fn clear_sums(&mut self) {
        (self.bytes, self.unwritten, self.void) = Default::default();
        (self.bounded, self.stored) = Default::default();
    }

    /// One more behind the cursor, or one less.
    fn add_unwritten(&mut self, entry: &Entry) {
        self.add(entry);
        self.unwritten = self.unwritten.saturating_add(entry.len());
    }

    fn remove_unwritten(&mut self, entry: &Entry) {
        self.remove(entry);
        self.wrote(entry.len());
    }

    const fn wrote(&mut self, bytes: usize) {
        self.unwritten = self.unwritten.saturating_sub(bytes);
    }
}

impl Queue {
    /// Entries that wait for a transport or for an acknowledgement.
    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |waiting| waiting.entries.len())
    }

    /// Their bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |waiting| waiting.bytes)
    }

    /// What counts against the limits of the session: all but what something else limits.
    pub(super) fn limited(&self) -> Size {
        let Some(waiting) = &self.0 else { return Size::default() };
        Size {
            stanzas: waiting.entries.len().saturating_sub(waiting.bounded.stanzas),
            bytes: waiting.bytes.saturating_sub(waiting.bounded.bytes),
        }
    }

    /// What a store has given.
    pub(crate) fn stored(&self) -> Size {
        self.0.as_ref().map_or_else(Size::default, |waiting| waiting.stored)
    }

    /// The bytes of what has a number and nothing else any more.
    pub(super) fn void_bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |waiting| waiting.void.saturating_mul(size_of::<Entry>()))
    }

    /// A number that changes whenever an entry is handed over for good.
    pub(crate) fn handed(&self) -> u32 {
        self.0.as_ref().map_or(0, |waiting| waiting.handed)
    }

    /// What the transport of now has not got.
    pub(crate) fn unwritten(&self) -> Size {
        let Some(waiting) = &self.0 else { return Size::default() };
        let stanzas = waiting.entries.len().saturating_sub(waiting.cursor);
        Size { stanzas, bytes: waiting.unwritten }
    }

    /// How many of them the transport has got.
    pub(super) fn written(&self) -> usize {
        self.0.as_ref().map_or(0, |waiting| waiting.cursor)
    }

    /// Whether nothing waits, nothing is kept and nothing is to be held back.
    pub(super) const fn is_idle(&self) -> bool {
        self.0.is_none()
    }

    #[inline]
    pub(super) fn has_unwritten(&self) -> bool {
        self.written() < self.len()
    }

    pub(super) fn front(&self) -> Option<&Entry> {
        self.0.as_ref()?.entries.front()
    }

    /// The first that is not written.
    pub(super) fn next(&self) -> Option<&Entry> {
        let waiting = self.0.as_ref()?;
        waiting.entries.get(waiting.cursor)
    }

    pub(super) fn push(&mut self, entry: Entry) {
        let waiting = self.0.get_or_insert_default();
        waiting.add_unwritten(&entry);
        waiting.entries.push_back(entry);
    }

    pub(super) fn push_stored(&mut self, item: Item<'_>, counted: bool, at: Duration) {
        let mut entry = Entry::new(item, counted, at);
        if let Entry::Stanza { bounded, .. } = &mut entry {
            *bounded = Bounded::Store;
        }
        self.push(entry);
    }

    /// Drops each presence that a later one of the same JID makes out of date, once there is enough to
    /// be worth the look: from the place `first` on. Of those that are written the number stays, which the
    /// client counts. `domain` is the session's. Says how many it took out before the place `again`.
    pub(super) fn condense(&mut self, first: usize, again: usize, domain: &str) -> usize {
        let Some(waiting) = &mut self.0 else { return 0 };
        let Size { stanzas, bytes } = waiting.condense_at;
        if waiting.entries.len() <= stanzas.max(CONDENSE.stanzas)
            && waiting.bytes <= bytes.max(CONDENSE.bytes)
        {
            return 0;
        }
        let mut known = HashSet::new();
        let mut stale = Vec::new();
        for (at, entry) in waiting.entries.iter().enumerate().rev() {
            let may_go = at < waiting.cursor || at >= first;
            if may_go && entry.tells_of(domain).is_some_and(|jid| !known.insert(jid)) {
                stale.push(at);
            }
        }
        let before = stale.iter().filter(|at| (first..again).contains(at)).count();
        if !stale.is_empty() {
            let nothing = Stanza::presence().build();
            let entries = std::mem::take(&mut waiting.entries);
            for (at, mut entry) in entries.into_iter().enumerate() {
                if stale.pop_if(|stale| *stale == at).is_none() {
                    waiting.entries.push_back(entry);
                } else if at < waiting.cursor {
                    waiting.remove(&entry);
                    entry.make_void(&nothing);
                    waiting.add(&entry);
                    waiting.entries.push_back(entry);
                } else {
                    waiting.remove_unwritten(&entry);
                }
            }
        }
        // By half as much: less than the room that is left for the news of an end (LIMIT-10).
        let more = |size: usize| size.saturating_add(size / 2);
        waiting.condense_at =
            Size { stanzas: more(waiting.entries.len()), bytes: more(waiting.bytes) };
        before
    }

    /// What is not written yet counts for acknowledgement; `reply` is before it.
    pub(crate) fn count_unwritten(&mut self, reply: &[u8]) {
        let waiting = self.0.get_or_insert_default();
        waiting.entries.iter_mut().skip(waiting.cursor).for_each(|entry| entry.set_counted(true));
        self.put_back(Entry::Raw(reply.into()));
    }

    /// The next one is written and stays, to be acknowledged.
    pub(super) fn step(&mut self) {
        let Some(waiting) = &mut self.0 else { return };
        let len = waiting.entries.get(waiting.cursor).map_or(0, Entry::len);
        waiting.wrote(len);
        waiting.cursor += 1;
        waiting.handed = waiting.handed.wrapping_add(1);
    }

    /// The last one was not taken: it is the next again.
    pub(super) fn step_back(&mut self) {
        let Some(waiting) = &mut self.0 else { return };
        waiting.cursor = waiting.cursor.saturating_sub(1);
        let len = waiting.entries.get(waiting.cursor).map_or(0, Entry::len);
        waiting.unwritten = waiting.unwritten.saturating_add(len);
        waiting.handed = waiting.handed.wrapping_sub(1);
    }

    /// Takes out the next one.
    pub(super) fn take_next(&mut self) -> Option<Entry> {
        let waiting = self.0.as_mut()?;
        let entry = waiting.entries.remove(waiting.cursor)?;
        waiting.remove_unwritten(&entry);
        waiting.handed = waiting.handed.wrapping_add(1);
        self.tidy();
        Some(entry)
    }

    /// Drops the next one if it is void.
    pub(super) fn take_void(&mut self) -> bool {
        let Some(waiting) = &mut self.0 else { return false };
        if !waiting.entries.get(waiting.cursor).is_some_and(Entry::is_void) {
            return false;
        }
        let Some(entry) = waiting.entries.remove(waiting.cursor) else { return false };
        waiting.remove_unwritten(&entry);
        entry.forget();
        self.tidy();
        true
    }

    /// Puts back what was taken out last.
    pub(super) fn put_back(&mut self, entry: Entry) {
        let waiting = self.0.get_or_insert_default();
        waiting.add_unwritten(&entry);
        waiting.handed = waiting.handed.wrapping_sub(1);
        waiting.entries.insert(waiting.cursor, entry);
    }

    /// Drops the first ones, which were acknowledged.
    pub(super) fn drop_first(&mut self, count: usize) {
        let Some(waiting) = &mut self.0 else { return };
        for _ in 0..count {
            let Some(entry) = waiting.entries.pop_front() else { break };
            match waiting.cursor.checked_sub(1) {
                Some(cursor) => {
                    waiting.cursor = cursor;
                    waiting.remove(&entry);
                }
                None => waiting.remove_unwritten(&entry),
            }
        }
        self.tidy();
    }

    /// Everything is to be written again, on another transport. What was no stanza belonged to the
    /// old one, and what is void is left out; so many had been written.
    pub(super) fn rewind(&mut self) -> usize {
        let Some(waiting) = &mut self.0 else { return 0 };
        let entries = std::mem::take(&mut waiting.entries);
        waiting.clear_sums();
        let mut void = 0;
        for entry in entries.into_iter().filter(|entry| matches!(entry, Entry::Stanza { .. })) {
            if entry.is_void() {
                void += 1;
                entry.forget();
            } else {
                waiting.add_unwritten(&entry);
                waiting.entries.push_back(entry);
            }
        }
        waiting.cursor = 0;
        self.tidy();
        void
    }

    /// Takes out what `is_unwanted` and the transport of now has not got, and makes void what it has.
    /// Returns the places of what was taken out, in their order.
    #[cfg(feature = "server")]
    pub(super) fn take_out(&mut self, is_unwanted: impl Fn(&Stanza) -> bool) -> Vec<usize> {
        let Some(waiting) = &mut self.0 else { return Vec::new() };
        let mut places = Vec::new();
        let entries = std::mem::take(&mut waiting.entries);
        for (place, mut entry) in entries.into_iter().enumerate() {
            if entry.message().is_some_and(&is_unwanted) {
                if place >= waiting.cursor {
                    waiting.remove_unwritten(&entry);
                    entry.forget();
                    places.push(place);
                    continue;
                }
                waiting.remove(&entry);
                if let Entry::Stanza { void, .. } = &mut entry {
                    *void = true;
                }
                waiting.add(&entry);
            }
            waiting.entries.push_back(entry);
        }
        self.tidy();
        places
    }

    /// Takes out all entries, each with whether it was written.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = (Entry, bool)> + use<> {
        let waiting = self.0.as_mut().map(|waiting| {
            waiting.clear_sums();
            (std::mem::take(&mut waiting.entries), std::mem::take(&mut waiting.cursor))
        });
        self.tidy();
        let (entries, cursor) = waiting.unwrap_or_default();
        entries.into_iter().enumerate().map(move |(at, entry)| (entry, at < cursor))
    }

    /// Takes out all stanzas.
    pub(super) fn take_stanzas(&mut self) -> impl Iterator<Item = Entry> + use<> {
        let all: Vec<Entry> = self.take_all().map(|(entry, _)| entry).collect();
        let (stanzas, others): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|entry| matches!(entry, Entry::Stanza { .. }));
        others.into_iter().for_each(|entry| self.push(entry));
        stanzas.into_iter()
    }

    pub(super) fn has_greeting(&self) -> bool {
        self.0.as_ref().is_some_and(|waiting| waiting.greeting.is_some())
    }

    pub(crate) fn set_greeting(&mut self, greeting: Vec<u8>) {
        self.0.get_or_insert_default().greeting = Some(greeting.into());
    }

    pub(super) fn take_greeting(&mut self) -> Option<Box<[u8]>> {
        let greeting = self.0.as_mut()?.greeting.take();
        self.tidy();
        greeting
    }

    pub(super) fn held(&mut self) -> Option<&mut Held> {
        self.0.as_mut()?.held.as_mut()
    }

    pub(super) fn set_held(&mut self, held: Held) {
        self.0.get_or_insert_default().held = Some(held);
    }

    pub(super) fn take_held(&mut self) -> Option<Held> {
        let held = self.0.as_mut()?.held.take();
        self.tidy();
        held
    }

    fn tidy(&mut self) {
        let is_idle = |waiting: &Waiting| {
            waiting.entries.is_empty() && waiting.greeting.is_none() && waiting.held.is_none()
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

    /// The transport has got the first two of four, and nobody is to hear of `A` any more.
    fn queue() -> (Queue, usize) {
        let mut queue = Queue::default();
        let mut len = 0;
        for from in [A, B, A, B] {
            let stanza = Stanza::message().from(from).build();
            len = stanza.len();
            queue.push(Entry::new(Item::Stanza(&stanza, To::AsIs), true, Duration::ZERO));
        }
        (0..2).for_each(|_| queue.step());
        let places = queue.take_out(|stanza| stanza.from().as_deref() == Some(A));
        assert_eq!(places, [2]);
        (queue, len)
    }

    fn sums(queue: &Queue) -> (usize, usize, usize, usize) {
        let Size { stanzas, bytes } = queue.unwritten();
        (queue.len(), queue.bytes(), stanzas, bytes)
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
