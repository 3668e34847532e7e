//! What is kept for a client that may come back: its counters, its limits, and when it is asked.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::Outbound;
use super::limits::{RetentionLimits, Share, small};
use super::queue::Size;
use super::queued::Queued;
use crate::connection::SharedConnection;
use crate::environment::Nanos;
use crate::sync::Tally;

/// What a client acknowledged, and what of it was possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "an `h` is in range or it is not (SM-6)")]
pub enum Acknowledged {
    /// So many stanzas were freed.
    Freed(u32),
    /// The client claims more than it was sent; nothing has changed ([SM-7](crate::rules#sm-7)).
    TooHigh {
        /// What it claimed.
        handled: u32,
        /// What it was sent.
        sent: u32,
    },
}

/// When a client is asked to acknowledge what it was sent ([SM-24](crate::rules#sm-24)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AckPolicy {
    /// Unacknowledged stanzas at which it is asked. Default: 5.
    pub stanzas: usize,
    /// How long a stanza may be unacknowledged before it is asked. Default: 5 s.
    pub time: Duration,
    /// How long it may take to answer. Default: 60 s.
    pub answer: Duration,
}

impl Default for AckPolicy {
    fn default() -> Self {
        Self { stanzas: 5, time: Duration::from_secs(5), answer: Duration::from_secs(60) }
    }
}

/// What is to be done about acknowledgements: see [`SessionHandle::check_acks`].
///
/// [`SessionHandle::check_acks`]: crate::session::SessionHandle::check_acks
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the client may have to be asked, or its transport given up"]
#[expect(clippy::exhaustive_enums, reason = "the caller has to act on each")]
pub enum AckCheck {
    /// Nothing is to be done.
    Quiet,
    /// The client is to be asked now. That is marked already.
    Ask,
    /// It was asked and has not answered, or not moved on: its transport is to be given up.
    Lost,
}

/// What retention keeps beside the queue.
pub(crate) struct Retained {
    /// The resumption id (SM-11), bound to the account by where it is looked up.
    pub(crate) token: Box<str>,
    /// How long the session may be without a transport; zero = not resumable.
    pub(crate) window: Duration,
    /// The last `h` of the peer.
    pub(crate) acked: u32,
    /// Counted entries handed to any transport so far, hence the most that a further `h` may cover.
    pub(crate) sent: u32,
    /// Value of `received` when retention began: `h` counts from here (SM-4).
    pub(crate) from: u32,
    /// What the wall clock says at zero of the monotonic one.
    pub(super) zero: SystemTime,
    /// Entries at the start of the queue that were accepted for an earlier transport.
    pub(super) again: usize,
    /// Number of the last entry behind which the client was asked.
    pub(super) asked_up_to: u32,
    /// Bytes of the entries behind that one that the transport has got.
    pub(super) unasked: u32,
    /// Since when an answer to `<r/>` is outstanding.
    pub(super) asked: Option<Duration>,
    /// To be asked as soon as all is written (SM-15).
    pub(super) due: bool,
    /// Not to be asked again before: the last answer acknowledged nothing.
    pub(super) not_before: Nanos,
    /// What waited when the transport was lost.
    pub(super) at_loss: Size,
    /// Until when something has to be acknowledged, since as much waits as may (LIMIT-10).
    pub(super) grace: Option<Duration>,
    /// The client is of this process, and says by itself what it has taken.
    pub(super) is_never_asked: bool,
    pub(super) share: Share,
    #[cfg(feature = "cluster")]
    pub(super) underway: Option<Box<super::underway::Underway>>,
}

impl Retained {
    /// `clocks`: the time now, monotonic and of day.
    pub(crate) fn new(
        token: String,
        window: Duration,
        received: u32,
        clocks: (Duration, SystemTime),
        all: &Arc<Tally>,
    ) -> Self {
        let (now, utc) = clocks;
        Self {
            token: token.into_boxed_str(),
            window,
            acked: 0,
            sent: 0,
            from: received,
            zero: utc.checked_sub(now).unwrap_or(SystemTime::UNIX_EPOCH),
            again: 0,
            asked_up_to: 0,
            unasked: 0,
            asked: None,
            due: false,
            not_before: Nanos::default(),
            at_loss: Size::default(),
            grace: None,
            is_never_asked: false,
            share: Share::new(all),
            #[cfg(feature = "cluster")]
            underway: None,
        }
    }

    /// When the entry at this place was accepted, if it was for an earlier transport (SM-16).
    pub(super) fn delayed_since(&self, place: usize, at: Duration) -> Option<SystemTime> {
        if place < self.again { self.zero.checked_add(at) } else { None }
    }

    /// What stood at these places of the queue is in it no longer. The current transport
    /// had not been given it, and of earlier ones the client had said that it had not got it.
    pub(super) fn taken_out(&mut self, places: &[usize]) {
        let sent = usize::try_from(self.sent).unwrap_or(usize::MAX);
        let below = |limit| places.iter().take_while(|&&place| place < limit).count();
        self.again = self.again.saturating_sub(below(self.again));
        let unsent = small(below(sent));
        self.sent = self.sent.saturating_sub(unsent);
    }

    /// A new transport: everything in the queue goes out again, then the client is asked at once.
    pub(super) fn start_again(&mut self, entries: usize) {
        self.again = entries;
        (self.asked_up_to, self.unasked) = (self.acked, 0);
        self.asked = None;
        self.due = true;
        self.not_before = Nanos::default();
        self.grace = None;
    }
}

/// A client is asked again behind so many stanzas, or bytes, though it has not answered yet: while a
/// backlog is written its answers free what it has read (SM-24).
const ASK_STANZAS: u32 = 100;
const ASK_BYTES: u32 = 32 << 10;

/// After an answer that acknowledged nothing, or not all that was asked about, the next question waits this
/// long.
const RETRY: Duration = Duration::from_secs(5);

impl<C: SharedConnection> Outbound<C> {
    /// Tells the registry how many bytes wait now.
    pub(crate) fn account_for(&mut self) {
        if let Some(retained) = &mut self.retained {
            retained.share.set(self.queue.bytes());
        }
    }

    /// Takes the peer's `h`, which has no effect where it covers more than was sent (SM-6, SM-7). `None` =
    /// nothing is retained.
    pub(crate) fn acknowledge(&mut self, handled: u32) -> Option<Acknowledged> {
        let retained = self.retained.as_mut()?;
        let count = handled.wrapping_sub(retained.acked);
        if count > retained.sent {
            let sent = retained.acked.wrapping_add(retained.sent);
            return Some(Acknowledged::TooHigh { handled, sent });
        }
        retained.sent -= count;
        retained.acked = handled;
        let freed = usize::try_from(count).unwrap_or(usize::MAX);
        retained.again = retained.again.saturating_sub(freed);
        let asked = retained.asked.take();
        // Answers to later questions are on their way, if it is not too slow.
        let unanswered = retained.asked_up_to.wrapping_sub(handled).wrapping_sub(1);
        let more = unanswered < i32::MAX.unsigned_abs();
        if let Some(at) = asked.filter(|_| more || (count == 0 && retained.sent > 0)) {
            retained.not_before = at.saturating_add(RETRY).into();
        }
        if count > 0 {
            retained.grace = None;
        }
        if self.link.is_none() {
            self.queue.regain(freed);
        }
        // Only counted entries stand at the start of the queue.
        self.queue.drop_first(freed);
        self.account_for();
        Some(Acknowledged::Freed(count))
    }

    /// The client is not asked what it has got.
    #[cfg(feature = "server")]
    pub(crate) fn never_ask(&mut self) {
        if let Some(retained) = &mut self.retained {
            retained.is_never_asked = true;
        }
    }

    /// Stanzas handled since retention began.
    pub(crate) fn handled(&self) -> Option<u32> {
        self.retained.as_ref().map(|retained| self.received.wrapping_sub(retained.from))
    }

    /// Whether more has come for a session without a transport than is kept for one (LIMIT-10).
    pub(crate) fn is_overgrown(&self, limits: &RetentionLimits) -> bool {
        let Some(retained) = self.retained.as_ref().filter(|_| self.link.is_none()) else {
            return false;
        };
        let (Size { stanzas, bytes }, before) = (self.queue.limited(), retained.at_loss);
        stanzas.saturating_sub(before.stanzas) > small(limits.stanzas)
            || bytes.saturating_sub(before.bytes) > small(limits.bytes)
    }

    /// Notes whether as much waits for the client as may: from then on it has to acknowledge something.
    fn watch(&mut self, limits: &RetentionLimits, now: Duration) {
        let is_full = self.queue.limited().exceeds(limits, 1);
        let Some(retained) = &mut self.retained else { return };
        if !is_full {
            retained.grace = None;
        } else if retained.grace.is_none() {
            retained.grace = Some(now.saturating_add(limits.grace));
        }
    }

    /// Marks that the client is about to be asked for an acknowledgement, if it is time for that
    /// (SM-24). The caller writes the `<r/>`.
    pub(crate) fn claim_ask(
        &mut self,
        policy: &AckPolicy,
        limits: &RetentionLimits,
        now: Duration,
    ) -> bool {
        self.watch(limits, now);
        let due = self.asks_on() || self.ask_at(policy).is_some_and(|at| now >= at);
        if due {
            self.asking(now);
            if let Some(retained) = &mut self.retained {
                retained.due &= self.queue.has_unwritten();
            }
        }
        due
    }

    /// Whether so much has gone out since the last question that it is time for another, answered or
    /// not.
    fn asks_on(&self) -> bool {
        let Some(retained) = self.retained.as_ref().filter(|_| self.is_open()) else {
            return false;
        };
        self.number().wrapping_sub(retained.asked_up_to) >= ASK_STANZAS
            || retained.unasked >= ASK_BYTES
    }

    /// The number of the last entry that the transport has got.
    fn number(&self) -> u32 {
        let acked = self.retained.as_ref().map_or(0, |retained| retained.acked);
        acked.wrapping_add(small(self.queue.written()))
    }

    /// The client is about to be asked. True if no earlier question is unanswered.
    fn asking(&mut self, now: Duration) -> bool {
        let number = self.number();
        let Some(retained) = &mut self.retained else { return false };
        (retained.asked_up_to, retained.unasked) = (number, 0);
        let first = retained.asked.is_none();
        retained.asked.get_or_insert(now);
        first
    }

    /// Marks that the client is about to be asked, whatever waits. `None` = nothing is retained;
    /// false = it was asked already.
    pub(crate) fn claim_sign_of_life(&mut self, now: Duration) -> Option<bool> {
        self.retained.as_ref()?;
        Some(self.is_open() && self.asking(now))
    }

    /// When [`check`](Self::check) has something to say.
    pub(crate) fn check_at(&self, policy: &AckPolicy) -> Option<Duration> {
        let late = self.late_at(policy).filter(|_| self.is_open());
        late.into_iter().chain(self.ask_at(policy)).min()
    }

    pub(crate) fn check(
        &mut self,
        policy: &AckPolicy,
        limits: &RetentionLimits,
        now: Duration,
    ) -> AckCheck {
        if !self.is_open() {
            return AckCheck::Quiet;
        }
        self.watch(limits, now);
        match self.late_at(policy) {
            Some(late) if now >= late => AckCheck::Lost,
            _ if self.claim_ask(policy, limits, now) => AckCheck::Ask,
            _ => AckCheck::Quiet,
        }
    }

    /// When the transport is given up, if the client does not move on before.
    fn late_at(&self, policy: &AckPolicy) -> Option<Duration> {
        let retained = self.retained.as_ref()?;
        let answer = retained.asked.map(|at| at.saturating_add(policy.answer));
        answer.into_iter().chain(retained.grace).min()
    }

    /// The soonest time to ask, if no earlier question is unanswered.
    fn ask_at(&self, policy: &AckPolicy) -> Option<Duration> {
        let retained = self.retained.as_ref().filter(|r| self.is_open() && r.asked.is_none())?;
        if retained.due {
            return (!self.queue.has_unwritten()).then_some(Duration::ZERO);
        }
        let written = self.queue.written();
        let ripe = match self.queue.front() {
            Some(Queued::Stanza { .. }) if written > 0 && written >= policy.stanzas => {
                Duration::ZERO
            }
            Some(Queued::Stanza { at, .. }) if written > 0 => {
                Duration::from(*at).saturating_add(policy.time)
            }
            _ => return None,
        };
        Some(ripe.max(retained.not_before.into()))
    }

    /// Whether the client can be asked for an acknowledgement.
    fn is_open(&self) -> bool {
        let is_asked = self.retained.as_ref().is_none_or(|retained| !retained.is_never_asked);
        is_asked
            && self.link.is_some()
            && !self.ended
            && !self.gates.is_closed()
            && !self.queue.has_greeting()
    }
}
