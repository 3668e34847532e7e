//! What waits for a client as bytes, and back, where its account moves to another node (NODE-9).
//!
//! Times of this clock travel as how long ago they were, or as what is left, and come back against the clock there.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, SystemTime};

use super::acks::Retained;
use super::copies::Counted;
use super::holdback::HeldBack;
use super::item::To;
use super::limits::Share;
use super::queue::{Queue, Size};
use super::queued::{Bounded, Queued};
use super::underway::Underway;
use super::{Copies, Epoch, Gate, Gates, Left, Outbound, Reply, Writing};
use crate::connection::SharedConnection;
use crate::environment::{Environment, Nanos};
use crate::packed::{Reader, Writer};
use crate::stanza::{Frame, Framing, Stanza, canonicalise};
use crate::sync::Tally;
use crate::sync::atomic::{AtomicU32, Ordering};

/// What is being written of accounts.
pub(in crate::session) struct Packing {
    pub(in crate::session) out: Writer,
    now: Duration,
    /// What was written before, by the address of what its clones share: kept, so that it stays theirs.
    stanzas: HashMap<(usize, usize), (u64, Stanza)>,
    copies: HashMap<usize, (u64, Copies)>,
}

/// The same while it is read.
pub(in crate::session) struct Unpacking<'a> {
    pub(in crate::session) input: Reader<'a>,
    now: Duration,
    utc: SystemTime,
    /// What this clock said when it was written.
    then: Duration,
    /// Of all queues of the registry (LIMIT-11).
    all_bytes: Arc<Tally>,
    stanzas: Vec<Stanza>,
    copies: Vec<Copies>,
}

/// Nothing is on its way for longer: the clocks of day differ.
const LONGEST_WAY: Duration = Duration::from_secs(60);

impl Packing {
    pub(in crate::session) fn new(environment: &dyn Environment) -> Self {
        let mut packing = Self {
            out: Writer::default(),
            now: environment.now(),
            stanzas: HashMap::new(),
            copies: HashMap::new(),
        };
        packing.day(environment.utc());
        packing
    }

    /// A time that has been.
    pub(in crate::session) fn past(&mut self, at: Duration) {
        self.out.time(self.now.saturating_sub(at));
    }

    /// A time that comes.
    pub(in crate::session) fn future(&mut self, at: Duration) {
        self.out.time(at.saturating_sub(self.now));
    }

    pub(in crate::session) fn day(&mut self, at: SystemTime) {
        self.out.time(Nanos::from(at).into());
    }

    /// A stanza: its bytes where they come for the first time, else which one it is.
    pub(in crate::session) fn stanza(&mut self, stanza: &Stanza) {
        let key = (stanza.payload().as_ptr().addr(), stanza.len());
        let next = self.stanzas.len() as u64 + 1;
        let (number, _) = self.stanzas.entry(key).or_insert_with(|| (next, stanza.clone()));
        if *number < next {
            return self.out.number(*number);
        }
        self.out.number(0_u32);
        let mut bytes = Vec::new();
        Frame::stanza(stanza).framing(Framing::Message).write_to(&mut bytes);
        self.out.bytes(&bytes);
    }

    fn copies(&mut self, copies: &Copies) {
        let key = Arc::as_ptr(&copies.0).addr();
        let next = self.copies.len() as u64 + 1;
        let (number, _) = self.copies.entry(key).or_insert_with(|| (next, copies.clone()));
        if *number < next {
            return self.out.number(*number);
        }
        self.out.number(0_u32);
        self.stanza(&copies.0.message);
        for count in [&copies.0.count, &copies.0.at_hand, &copies.0.told] {
            self.out.number(count.load(Ordering::SeqCst));
        }
    }

    fn some_copies(&mut self, copies: Option<&Copies>) {
        self.out.flag(copies.is_some());
        if let Some(copies) = copies {
            self.copies(copies);
        }
    }

    pub(in crate::session) fn left(&mut self, left: &Left) {
        self.stanza(&left.stanza);
        self.past(left.at);
        self.out.flag(left.counted);
        self.out.flag(left.written);
        self.some_copies(left.copies.as_ref());
    }

    fn reply(&mut self, reply: &Reply) {
        match reply {
            Reply::Stanza(stanza) => {
                self.out.byte(0);
                self.stanza(stanza);
            }
            Reply::Element(xml) => {
                self.out.byte(1);
                self.out.bytes(xml);
            }
            Reply::Login(success, features) => {
                self.out.byte(2);
                self.out.bytes(success);
                self.out.option(features.as_deref(), Writer::bytes);
            }
        }
    }

    fn queued(&mut self, entry: &Queued) {
        match entry {
            Queued::Stanza { stanza, to, counted, bounded, void, at, before, copies } => {
                self.out.byte(0);
                self.stanza(stanza);
                self.out.byte(*to as u8);
                self.out.byte(*bounded as u8);
                self.out.flag(*counted);
                self.out.flag(*void);
                self.out.flag(*before);
                // Of presence it is the time of day.
                if *before {
                    self.out.time((*at).into())
                } else {
                    self.past((*at).into())
                }
                self.some_copies(copies.as_ref());
            }
            Queued::Element(xml) => {
                self.out.byte(1);
                self.out.bytes(xml);
            }
            Queued::Reply(reply) => {
                self.out.byte(2);
                self.reply(reply);
            }
            // Only what has ended has such, and that does not move.
            Queued::End(_) | Queued::Close => self.out.byte(3),
        }
    }

    fn queue(&mut self, queue: &Queue) {
        self.out.flag(queue.0.is_some());
        let Some(buffer) = &queue.0 else { return };
        self.out.count(buffer.entries.len());
        buffer.entries.iter().for_each(|entry| self.queued(entry));
        self.out.count(buffer.cursor);
        self.out.flag(buffer.greeting.is_some());
        if let Some(greeting) = &buffer.greeting {
            self.reply(greeting);
        }
        self.out.flag(buffer.held.is_some());
        if let Some(held) = &buffer.held {
            self.out.count(held.items.len());
            for item in &held.items {
                self.out.text(&item.key);
                self.out.text(&item.from);
                self.queued(&item.entry);
            }
        }
    }

    fn retained(&mut self, retained: &Retained) {
        self.out.text(&retained.token);
        self.out.time(retained.window);
        for number in [retained.acked, retained.sent, retained.from, retained.asked_up_to] {
            self.out.number(number);
        }
        self.out.count(retained.again);
        self.out.number(retained.unasked);
        self.out.flag(retained.asked.is_some());
        if let Some(asked) = retained.asked {
            self.past(asked);
        }
        self.out.flag(retained.due);
        self.future(retained.not_before.into());
        self.out.number(retained.at_loss.stanzas);
        self.out.number(retained.at_loss.bytes);
        self.out.flag(retained.grace.is_some());
        if let Some(grace) = retained.grace {
            self.future(grace);
        }
        self.out.flag(retained.is_never_asked);
        self.out.count(retained.share.bytes());
        // What was sent and not handled goes along, and is not waited for any more.
        let asks = retained.underway.as_ref().map(|underway| underway.asks()).unwrap_or_default();
        self.out.list(&asks, |out, ask| out.number(*ask));
    }
}

impl<'a> Unpacking<'a> {
    pub(in crate::session) fn new(
        bytes: &'a [u8],
        environment: &dyn Environment,
        all_bytes: &Arc<Tally>,
    ) -> Option<Self> {
        let (now, utc) = (environment.now(), environment.utc());
        let mut input = Reader::new(bytes);
        let written = SystemTime::from(Nanos::from(input.time()?));
        let way = utc.duration_since(written).unwrap_or_default().min(LONGEST_WAY);
        Some(Self {
            input,
            now,
            utc,
            then: now.saturating_sub(way),
            all_bytes: Arc::clone(all_bytes),
            stanzas: Vec::new(),
            copies: Vec::new(),
        })
    }

    pub(in crate::session) fn past(&mut self) -> Option<Duration> {
        Some(self.then.saturating_sub(self.input.time()?))
    }

    /// A time that has been, and from which something is measured that has stood meanwhile.
    fn stood(&mut self) -> Option<Duration> {
        Some(self.now.saturating_sub(self.input.time()?))
    }

    pub(in crate::session) fn future(&mut self) -> Option<Duration> {
        Some(self.now.saturating_add(self.input.time()?))
    }

    pub(in crate::session) fn day(&mut self) -> Option<SystemTime> {
        self.input.time().map(|time| Nanos::from(time).into())
    }

    /// A value that may not be there.
    #[expect(clippy::option_option, reason = "none may be what was written")]
    pub(in crate::session) fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Option<T>,
    ) -> Option<Option<T>> {
        if self.input.flag()? { read(self).map(Some) } else { Some(None) }
    }

    pub(in crate::session) fn list<T>(
        &mut self,
        mut each: impl FnMut(&mut Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        // No room is taken for what only a number says is there.
        let length = self.input.number()?;
        (0..length).map(|_| each(self)).collect()
    }

    pub(in crate::session) fn share(&self) -> Share {
        Share::new(&self.all_bytes)
    }

    pub(in crate::session) fn stanza(&mut self) -> Option<Stanza> {
        match self.input.count()?.checked_sub(1) {
            Some(at) => self.stanzas.get(at).cloned(),
            None => {
                let stanza = canonicalise(self.input.bytes()?).ok()?;
                self.stanzas.push(stanza.clone());
                Some(stanza)
            }
        }
    }

    fn copies(&mut self) -> Option<Copies> {
        match self.input.count()?.checked_sub(1) {
            Some(at) => self.copies.get(at).cloned(),
            None => {
                let message = self.stanza()?;
                let mut count = || self.input.small().map(AtomicU32::new);
                let (count, at_hand, told) = (count()?, count()?, count()?);
                let copies = Copies(Arc::new(Counted { message, count, at_hand, told }));
                self.copies.push(copies.clone());
                Some(copies)
            }
        }
    }

    pub(in crate::session) fn left(&mut self) -> Option<Left> {
        Some(Left {
            stanza: self.stanza()?,
            at: self.past()?,
            counted: self.input.flag()?,
            written: self.input.flag()?,
            copies: self.option(Self::copies)?,
        })
    }

    fn reply(&mut self) -> Option<Reply> {
        Some(match self.input.byte()? {
            0 => Reply::Stanza(self.stanza()?),
            1 => Reply::Element(self.input.bytes()?.into()),
            2 => {
                let success = self.input.bytes()?.into();
                Reply::Login(success, self.input.option(Reader::bytes)?.map(Into::into))
            }
            _ => return None,
        })
    }

    fn queued(&mut self) -> Option<Queued> {
        Some(match self.input.byte()? {
            0 => {
                let stanza = self.stanza()?;
                let to = match self.input.byte()? {
                    0 => To::AsIs,
                    1 => To::OwnBare,
                    2 => To::OwnFull,
                    _ => return None,
                };
                let bounded = match self.input.byte()? {
                    0 => Bounded::No,
                    1 => Bounded::Source,
                    2 => Bounded::Store,
                    _ => return None,
                };
                let (counted, void) = (self.input.flag()?, self.input.flag()?);
                let before = self.input.flag()?;
                let at = if before { self.input.time()? } else { self.past()? }.into();
                let copies = self.option(Self::copies)?;
                Queued::Stanza { stanza, to, counted, bounded, void, at, before, copies }
            }
            1 => Queued::Element(self.input.bytes()?.into()),
            2 => Queued::Reply(Arc::new(self.reply()?)),
            _ => return None,
        })
    }

    fn queue(&mut self) -> Option<Queue> {
        let mut queue = Queue::default();
        if !self.input.flag()? {
            return Some(queue);
        }
        self.list(Self::queued)?.into_iter().for_each(|entry| queue.push(entry));
        let cursor = self.input.count()?;
        if cursor > queue.len() {
            return None;
        }
        (0..cursor).for_each(|_| queue.step());
        if let Some(greeting) = self.option(Self::reply)? {
            queue.set_greeting(greeting);
        }
        let held = self.option(|input| {
            input.list(|input| {
                let (key, from) = (input.input.text()?.into(), input.input.text()?.into());
                Some((key, from, input.queued()?))
            })
        })?;
        if let Some(items) = held {
            let mut held = HeldBack::new(&self.all_bytes);
            items.into_iter().for_each(|(key, from, entry)| held.put(key, from, entry));
            queue.set_held(held);
        }
        Some(queue)
    }

    fn retained(&mut self) -> Option<Retained> {
        let (token, window) = (self.input.text()?.into(), self.input.time()?);
        let clocks = (self.now, self.utc);
        let mut retained = Retained::new(token, window, 0, clocks, &self.all_bytes);
        retained.acked = self.input.small()?;
        retained.sent = self.input.small()?;
        retained.from = self.input.small()?;
        retained.asked_up_to = self.input.small()?;
        retained.again = self.input.count()?;
        retained.unasked = self.input.small()?;
        retained.asked = self.option(Self::stood)?;
        retained.due = self.input.flag()?;
        retained.not_before = self.future()?.into();
        retained.at_loss = Size { stanzas: self.input.small()?, bytes: self.input.small()? };
        retained.grace = self.option(Self::future)?;
        retained.is_never_asked = self.input.flag()?;
        retained.share.set(self.input.count()?);
        retained.underway = Underway::asked(self.input.list(Reader::small)?);
        Some(retained)
    }
}

impl<C: SharedConnection> Outbound<C> {
    /// Nothing is written and no input taken from now on, but what is under way.
    pub(in crate::session) const fn freeze(&mut self) {
        self.gates.close(Gate::Frozen);
    }

    /// It goes on. What was to happen at some time has stood for so long; who waits is to be woken without the lock.
    pub(in crate::session) fn thaw(&mut self, stood: Duration) -> Option<Box<Waker>> {
        if let Some(retained) = &mut self.retained {
            for at in [&mut retained.asked, &mut retained.grace].into_iter().flatten() {
                *at = at.saturating_add(stood);
            }
            let not_before = Duration::from(retained.not_before).saturating_add(stood);
            retained.not_before = not_before.into();
        }
        self.open(Gate::Frozen)
    }

    /// Whether nothing of it is under way: no write, no stanza in work, no bind, no end.
    pub(in crate::session) const fn is_quiet(&self) -> bool {
        let mut others = self.gates;
        others.open(Gate::Frozen);
        !self.ended && matches!(self.writing, Writing::Nobody) && !others.is_closed_for_input()
    }

    pub(in crate::session) fn export(&self, packing: &mut Packing) {
        packing.out.number(self.epoch.0);
        packing.out.flag(self.link.is_some());
        packing.out.flag(self.lingers);
        packing.out.number(self.received);
        packing.out.number(self.delivered);
        packing.queue(&self.queue);
        packing.out.flag(self.retained.is_some());
        if let Some(retained) = &self.retained {
            packing.retained(retained);
        }
    }

    /// The same as it was, frozen and without its transport, and whether it had one.
    pub(in crate::session) fn import(input: &mut Unpacking<'_>) -> Option<(Self, bool)> {
        let epoch = Epoch(input.input.small()?);
        let is_live = input.input.flag()?;
        let mut out = Self {
            link: None,
            epoch,
            writing: Writing::Nobody,
            ended: false,
            gates: Gates::default(),
            lingers: input.input.flag()?,
            received: input.input.small()?,
            delivered: input.input.small()?,
            queue: input.queue()?,
            retained: input.option(Unpacking::retained)?.map(Box::new),
            waker: None,
        };
        out.freeze();
        Some((out, is_live))
    }

    /// It lives elsewhere from now on: whatever it has is forgotten here, and nobody is told. The transport and who
    /// waits are to be dropped, or woken, without the lock.
    pub(in crate::session) fn forget(&mut self) -> Forgotten<C> {
        self.ended = true;
        self.next_epoch();
        let queue = std::mem::take(&mut self.queue);
        Forgotten {
            link: self.link.take(),
            waker: self.waker.take(),
            queue,
            retained: self.retained.take(),
        }
    }
}

/// What a session had here.
pub(in crate::session) struct Forgotten<C> {
    pub(in crate::session) link: Option<C>,
    pub(in crate::session) waker: Option<Box<Waker>>,
    #[expect(dead_code, reason = "dropped without the lock")]
    queue: Queue,
    #[expect(dead_code, reason = "dropped without the lock")]
    retained: Option<Box<Retained>>,
}
