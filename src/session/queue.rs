//! What waits to go out to one session: one pointer while nothing does.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::copies::Copies;
use super::held::Held;
use super::outbound::{Item, Left, To};
use crate::stanza::Stanza;

/// One thing that waits.
#[derive(Clone)]
pub(super) enum Entry {
    Stanza {
        stanza: Stanza,
        to: To,
        /// Counted for acknowledgement: appended after retention began.
        counted: bool,
        /// It has waited in a store, which has limits of its own.
        stored: bool,
        /// The client may have got it, and is not to get it again; nor is anybody else.
        void: bool,
        /// When it was accepted, where that is counted.
        at: Duration,
        copies: Option<Copies>,
    },
    Raw(Arc<[u8]>),
    /// The end of the session: nothing is ever behind it.
    Close,
}

impl Entry {
    pub(super) fn new(item: Item<'_>, counted: bool, at: Duration) -> Self {
        let (stanza, to, copies) = match item {
            Item::Stanza(stanza, to) => (stanza.clone(), to, None),
            Item::Copy(stanza, to, copies) => (stanza.clone(), to, Some(copies.clone())),
            Item::Raw(bytes) => return Self::Raw(bytes.into()),
        };
        Self::Stanza { stanza, to, counted, stored: false, void: false, at, copies }
    }

    pub(super) fn as_item(&self) -> Option<Item<'_>> {
        match self {
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
        Some(Left { stanza, at, counted, written, copies })
    }

    /// Says whether it is to be counted for acknowledgement.
    pub(super) const fn set_counted(&mut self, is_counted: bool) {
        if let Self::Stanza { counted, .. } = self {
            *counted = is_counted;
        }
    }

    const fn is_stored(&self) -> bool {
        matches!(self, Self::Stanza { stored: true, .. })
    }

    /// The stanza that it brings: of a message in whatever form, the message.
    #[cfg(feature = "server")]
    pub(super) fn message(&self) -> Option<&Stanza> {
        let Self::Stanza { stanza, copies, .. } = self else { return None };
        Some(copies.as_ref().map_or(stanza, Copies::message))
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

/// The entries in their order, with a cursor at the first that the transport of now has not got.
///
/// An idle session owns no buffer: what only a busy one needs is freed with the last entry.
#[derive(Default)]
pub(super) struct Queue(Option<Box<Waiting>>);

#[derive(Default)]
struct Waiting {
    entries: VecDeque<Entry>,
    cursor: usize,
    bytes: usize,
    /// The part of them that has waited in a store.
    stored: Size,
    /// Not all of a replay, or of what has waited in a store, has been handed to the transport.
    catching_up: bool,
    /// Greeting of a transport, written before everything else.
    greeting: Option<Box<[u8]>>,
    /// What is held back, while something is to be.
    held: Option<Held>,
}

/// How much waits.
#[derive(Clone, Copy, Default)]
pub(super) struct Size {
    pub(super) stanzas: usize,
    pub(super) bytes: usize,
}

impl Size {
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
        if entry.is_stored() {
            self.stored.add(entry);
        }
    }

    fn remove(&mut self, entry: &Entry) {
        self.bytes = self.bytes.saturating_sub(entry.len());
        if entry.is_stored() {
            self.stored.remove(entry);
        }
    }
}

impl Queue {
    /// Entries that wait for a transport or for an acknowledgement.
    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |waiting| waiting.entries.len())
    }

    /// Their bytes.
    pub(super) fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |waiting| waiting.bytes)
    }

    /// What counts against the limits of the session: all but what a store has limited already.
    pub(super) fn limited(&self) -> Size {
        let Some(waiting) = &self.0 else { return Size::default() };
        Size {
            stanzas: waiting.entries.len().saturating_sub(waiting.stored.stanzas),
            bytes: waiting.bytes.saturating_sub(waiting.stored.bytes),
        }
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
        waiting.add(&entry);
        waiting.entries.push_back(entry);
    }

    pub(super) fn push_stored(&mut self, stanza: &Stanza, counted: bool, at: Duration) {
        let (stanza, to) = (stanza.clone(), To::AsIs);
        let (stored, void, copies) = (true, false, None);
        self.push(Entry::Stanza { stanza, to, counted, stored, void, at, copies });
        self.set_catching_up(true);
    }

    /// Whether what waits may be more than the transport takes at once.
    pub(super) fn is_catching_up(&self) -> bool {
        self.0.as_ref().is_some_and(|waiting| waiting.catching_up)
    }

    pub(super) fn set_catching_up(&mut self, is_behind: bool) {
        if let Some(waiting) = &mut self.0 {
            waiting.catching_up = is_behind;
        }
    }

    /// What is not written yet counts for acknowledgement, as accepted at `since`; `reply` is before it.
    pub(super) fn count_unwritten(&mut self, reply: &[u8], since: Duration) {
        let waiting = self.0.get_or_insert_default();
        for entry in waiting.entries.iter_mut().skip(waiting.cursor) {
            if let Entry::Stanza { counted, at, .. } = entry {
                (*counted, *at) = (true, since);
            }
        }
        self.put_back(Entry::Raw(reply.into()));
    }

    /// The next one is written and stays, to be acknowledged.
    pub(super) fn step(&mut self) {
        if let Some(waiting) = &mut self.0 {
            waiting.cursor += 1;
        }
    }

    /// The last one was not taken: it is the next again.
    pub(super) fn step_back(&mut self) {
        if let Some(waiting) = &mut self.0 {
            waiting.cursor = waiting.cursor.saturating_sub(1);
        }
    }

    /// Takes out the next one.
    pub(super) fn take_next(&mut self) -> Option<Entry> {
        let waiting = self.0.as_mut()?;
        let entry = waiting.entries.remove(waiting.cursor)?;
        waiting.remove(&entry);
        self.tidy();
        Some(entry)
    }

    /// Puts back what was taken out last.
    pub(super) fn put_back(&mut self, entry: Entry) {
        let waiting = self.0.get_or_insert_default();
        waiting.add(&entry);
        waiting.entries.insert(waiting.cursor, entry);
    }

    /// Drops the first ones, which were acknowledged.
    pub(super) fn drop_first(&mut self, count: usize) {
        let Some(waiting) = &mut self.0 else { return };
        for _ in 0..count {
            let Some(entry) = waiting.entries.pop_front() else { break };
            waiting.remove(&entry);
        }
        waiting.cursor = waiting.cursor.saturating_sub(count);
        self.tidy();
    }

    /// Everything is to be written again, on another transport. What was no stanza belonged to the
    /// old one, and what is void is left out; so many had been written.
    pub(super) fn rewind(&mut self) -> usize {
        let Some(waiting) = &mut self.0 else { return 0 };
        let entries = std::mem::take(&mut waiting.entries);
        (waiting.bytes, waiting.stored) = Default::default();
        let mut void = 0;
        for entry in entries.into_iter().filter(|entry| matches!(entry, Entry::Stanza { .. })) {
            if entry.is_void() {
                void += 1;
                entry.forget();
            } else {
                waiting.add(&entry);
                waiting.entries.push_back(entry);
            }
        }
        waiting.cursor = 0;
        waiting.catching_up = true;
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
                    waiting.remove(&entry);
                    entry.forget();
                    places.push(place);
                    continue;
                }
                if let Entry::Stanza { void, .. } = &mut entry {
                    *void = true;
                }
            }
            waiting.entries.push_back(entry);
        }
        self.tidy();
        places
    }

    /// Takes out all entries, each with whether it was written.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = (Entry, bool)> + use<> {
        let waiting = self.0.as_mut().map(|waiting| {
            (waiting.bytes, waiting.stored) = Default::default();
            (std::mem::take(&mut waiting.entries), std::mem::take(&mut waiting.cursor))
        });
        self.tidy();
        let (entries, cursor) = waiting.unwrap_or_default();
        entries.into_iter().enumerate().map(move |(at, entry)| (entry, at < cursor))
    }

    pub(super) fn has_greeting(&self) -> bool {
        self.0.as_ref().is_some_and(|waiting| waiting.greeting.is_some())
    }

    pub(super) fn set_greeting(&mut self, greeting: Vec<u8>) {
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
