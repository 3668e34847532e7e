//! What is kept for a client that may come back: its counters, its limits, and when it is asked.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::acknowledge::AckPolicy;
use super::outbound::Outbound;
use super::queue::{Entry, Size};
use crate::connection::Connection;
use crate::sync::atomic::{AtomicUsize, Ordering};

/// How much is kept for clients that may come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetentionLimits {
    /// Stanzas that wait for one session, unacknowledged or unwritten (LIMIT-10). Default: 1000.
    /// Messages from the offline store do not count: it has limits of its own.
    pub stanzas: usize,
    /// Their bytes (LIMIT-10). Default: 4 MiB.
    pub bytes: usize,
    /// How long a session with a transport may be over these two, and then up to twice of them,
    /// before it ends (LIMIT-10). Default: 10 s.
    pub grace: Duration,
    /// Bytes that wait for all sessions together (LIMIT-11). Default: 256 MiB.
    pub all_bytes: usize,
    /// Stanzas that are held back from one client (LIMIT-14). Default: 200.
    pub held_stanzas: usize,
    /// Their bytes (LIMIT-14). Default: 256 KiB.
    pub held_bytes: usize,
    /// The longest that a session may be without a transport (LIMIT-12). Default: 600 s.
    pub window: Duration,
    /// Last `h` of ended sessions that are remembered for one account (LIMIT-12). Default: 10.
    pub remembered: usize,
    /// How long they are (LIMIT-12). Default: 24 h.
    pub remembered_for: Duration,
}

impl Default for RetentionLimits {
    fn default() -> Self {
        Self {
            stanzas: 1000,
            bytes: 4 << 20,
            grace: Duration::from_secs(10),
            all_bytes: 256 << 20,
            held_stanzas: 200,
            held_bytes: 256 << 10,
            window: Duration::from_secs(600),
            remembered: 10,
            remembered_for: Duration::from_secs(24 * 60 * 60),
        }
    }
}

/// A session's part of the bytes of all queues (LIMIT-11), given back on drop.
pub(super) struct Share {
    all: Arc<AtomicUsize>,
    bytes: usize,
}

impl Share {
    pub(super) fn new(all: &Arc<AtomicUsize>) -> Self {
        Self { all: Arc::clone(all), bytes: 0 }
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn set(&mut self, bytes: usize) {
        if bytes >= self.bytes {
            self.all.fetch_add(bytes - self.bytes, Ordering::SeqCst);
        } else {
            self.all.fetch_sub(self.bytes - bytes, Ordering::SeqCst);
        }
        self.bytes = bytes;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// What retention keeps beside the queue.
pub(super) struct Retained {
    /// The resumption id (SM-11), bound to the account by where it is looked up.
    pub(super) token: String,
    /// How long the session may be without a transport; zero = not resumable.
    pub(super) window: Duration,
    /// The last `h` of the peer.
    pub(super) acked: u32,
    /// Counted entries handed to any transport so far, hence the most that a further `h` may cover.
    pub(super) sent: u32,
    /// Value of `received` when retention began: `h` counts from here (SM-4).
    pub(super) from: u32,
    /// When retention began.
    since: Duration,
    /// What the wall clock says at zero of the monotonic one.
    zero: SystemTime,
    /// Entries at the start of the queue that were accepted for an earlier transport.
    again: usize,
    /// Since when an answer to `<r/>` is outstanding.
    asked: Option<Duration>,
    /// To be asked as soon as all is written (SM-15).
    due: bool,
    /// Not to be asked again before: the last answer acknowledged nothing.
    not_before: Duration,
    /// Until when the queue may be over its limit (LIMIT-10).
    grace: Option<Duration>,
    share: Share,
}

impl Retained {
    /// `clocks`: the monotonic time and the wall clock's of now.
    pub(super) fn new(
        token: String,
        window: Duration,
        received: u32,
        clocks: (Duration, SystemTime),
        all: &Arc<AtomicUsize>,
    ) -> Self {
        let (since, utc) = clocks;
        Self {
            token,
            window,
            acked: 0,
            sent: 0,
            from: received,
            since,
            zero: utc.checked_sub(since).unwrap_or(SystemTime::UNIX_EPOCH),
            again: 0,
            asked: None,
            due: false,
            not_before: Duration::ZERO,
            grace: None,
            share: Share::new(all),
        }
    }

    /// The time of an entry accepted `now`; a sender that did not know yet that it matters has come
    /// just as retention began.
    pub(super) fn stamp(&self, now: Option<Duration>) -> Duration {
        now.unwrap_or(self.since)
    }

    /// When the entry at this place was accepted, if it was for an earlier transport (SM-16).
    pub(super) fn delayed_since(&self, place: usize, at: Duration) -> Option<SystemTime> {
        if place < self.again { self.zero.checked_add(at) } else { None }
    }

    /// What stood at these places of the queue is in it no longer. The client had not got it from the
    /// transport of now, and had said so of any earlier one.
    #[cfg(feature = "server")]
    pub(super) fn taken_out(&mut self, places: &[usize]) {
        let sent = usize::try_from(self.sent).unwrap_or(usize::MAX);
        let below = |limit| places.iter().take_while(|&&place| place < limit).count();
        self.again = self.again.saturating_sub(below(self.again));
        let unsent = u32::try_from(below(sent)).unwrap_or(u32::MAX);
        self.sent = self.sent.saturating_sub(unsent);
    }

    /// A new transport: everything in the queue goes out again, then the client is asked at once.
    pub(super) const fn start_again(&mut self, entries: usize) {
        self.again = entries;
        self.asked = None;
        self.due = true;
        self.not_before = Duration::ZERO;
    }
}

/// After an answer that acknowledged nothing, the next question waits this long from the last.
const RETRY: Duration = Duration::from_secs(5);

/// What a session's queue asks for now.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    /// The client is to be asked; that is marked already.
    Ask,
    /// It was asked and has not answered.
    Silent,
    /// It has outgrown its limits (LIMIT-10).
    End,
}

impl<C: Connection + Clone> Outbound<C> {
    /// Tells the registry how many bytes wait now.
    pub(super) fn account_for(&mut self) {
        if let Some(retained) = &mut self.retained {
            retained.share.set(self.queue.bytes());
        }
    }

    /// Takes the peer's `h`; the number of stanzas it freed, `None` (and no effect) where it
    /// covers more than was sent (SM-6).
    pub(super) fn acknowledge(&mut self, h: u32) -> Option<u32> {
        let retained = self.retained.as_mut()?;
        let count = h.wrapping_sub(retained.acked);
        if count > retained.sent {
            return None;
        }
        retained.sent -= count;
        retained.acked = h;
        let freed = usize::try_from(count).unwrap_or(usize::MAX);
        retained.again = retained.again.saturating_sub(freed);
        let asked = retained.asked.take();
        if let Some(at) = asked.filter(|_| count == 0 && retained.sent > 0) {
            retained.not_before = at.saturating_add(RETRY);
        }
        // Only counted entries stand at the start of the queue.
        self.queue.drop_first(freed);
        self.account_for();
        Some(count)
    }

    /// Whether the queue has outgrown what is kept for a session, and its grace (LIMIT-10).
    pub(super) fn is_overgrown(&mut self, limits: &RetentionLimits, now: Duration) -> bool {
        let (Size { stanzas, bytes }, live) = (self.queue.limited(), self.link.is_some());
        let Some(retained) = &mut self.retained else { return false };
        let over = |times| {
            stanzas > limits.stanzas.saturating_mul(times)
                || bytes > limits.bytes.saturating_mul(times)
        };
        if !over(1) {
            retained.grace = None;
            return false;
        }
        let until = *retained.grace.get_or_insert_with(|| now.saturating_add(limits.grace));
        !live || over(2) || now >= until
    }

    /// Marks that the client is about to be asked for an acknowledgement, if it is time for that
    /// (SM-24). The caller writes the `<r/>`.
    pub(super) fn claim_ask(
        &mut self,
        policy: &AckPolicy,
        limits: &RetentionLimits,
        now: Duration,
    ) -> bool {
        let half = self.queue.written().saturating_mul(2) >= limits.stanzas
            || self.queue.bytes().saturating_mul(2) >= limits.bytes;
        let enough = half || self.queue.written() >= policy.stanzas;
        let Some(soonest) = self.ask_at(policy, enough) else { return false };
        if now < soonest {
            return false;
        }
        if let Some(retained) = &mut self.retained {
            retained.asked = Some(now);
            retained.due = false;
        }
        true
    }

    /// Marks that the client is about to be asked, whatever waits. `None` = nothing is retained;
    /// false = it was asked already.
    pub(super) fn claim_sign_of_life(&mut self, now: Duration) -> Option<bool> {
        let open = self.is_open();
        let retained = self.retained.as_mut()?;
        Some(open && retained.asked.replace(retained.asked.unwrap_or(now)).is_none())
    }

    /// When [`check`](Self::check) has something to say.
    pub(super) fn check_at(&self, policy: &AckPolicy) -> Option<Duration> {
        let retained = self.retained.as_ref().filter(|_| self.is_open())?;
        let ask = match retained.asked {
            Some(at) => Some(at.saturating_add(policy.answer)),
            None => self.ask_at(policy, self.queue.written() >= policy.stanzas),
        };
        [ask, retained.grace].into_iter().flatten().min()
    }

    pub(super) fn check(
        &mut self,
        policy: &AckPolicy,
        limits: &RetentionLimits,
        now: Duration,
    ) -> Due {
        if !self.is_open() {
            return Due::Nothing;
        }
        if self.is_overgrown(limits, now) {
            return Due::End;
        }
        let asked = self.retained.as_ref().and_then(|retained| retained.asked);
        match asked {
            Some(at) if now >= at.saturating_add(policy.answer) => Due::Silent,
            _ if self.claim_ask(policy, limits, now) => Due::Ask,
            _ => Due::Nothing,
        }
    }

    /// The soonest time to ask; `enough` = without waiting for more.
    fn ask_at(&self, policy: &AckPolicy, enough: bool) -> Option<Duration> {
        let retained = self.retained.as_ref().filter(|r| self.is_open() && r.asked.is_none())?;
        if retained.due {
            return (!self.queue.has_unwritten()).then_some(Duration::ZERO);
        }
        let Some(Entry::Stanza { at, .. }) =
            self.queue.front().filter(|_| self.queue.written() > 0)
        else {
            return None;
        };
        let ripe = if enough { Duration::ZERO } else { at.saturating_add(policy.time) };
        Some(ripe.max(retained.not_before))
    }

    fn is_open(&self) -> bool {
        self.link.is_some() && !self.ended && !self.gates.is_closed() && !self.queue.has_greeting()
    }
}
