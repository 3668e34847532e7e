//! Outliving a transport: retention, acknowledgement, hibernation, resumption and expiry.
//!
//! These are primitives; XEP-0198 speaks their wire elsewhere. No host code runs inside them, so
//! that nothing can come between the order of a stream and its counters.

use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::Duration;

use jid::BareJid;

use super::bind::Misuse;
use super::end::{Ending, Reason, Run};
use super::events::EventKind;
use super::hibernation::is_same;
use super::inner::Inner;
use super::rows::{Row, Slot, SlotState};
use crate::address::bare_of_full;
use crate::connection::{Close, SharedConnection};
use crate::environment::random_hex;
use crate::session::account::Account;
use crate::session::handle::{ABSENT, HOLDING, RETAINED, Shared};
use crate::session::input::Owner;
use crate::session::outbound::{
    Acknowledged, Epoch, Gate, LastWords, Outbound, Reply, Retained, write_end,
};
use crate::shield::{HostCode, wake};
use crate::stanza::{Stanza, StreamCondition};
use crate::sync::MutexGuard;
use crate::sync::atomic::Ordering;

/// How a session is kept for a client that may come back.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retention {
    /// The resumption id: 128 random bits in hex, valid for this account alone ([SM-11](crate::rules#sm-11)).
    pub token: String,
    /// How long the session waits without a transport; zero = it cannot be resumed, and stanzas
    /// are only kept until they are acknowledged ([SM-25](crate::rules#sm-25)).
    pub window: Duration,
}

impl std::fmt::Debug for Retention {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Retention").field("window", &self.window).finish_non_exhaustive()
    }
}

/// What a resumption tells the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Resumed {
    /// Stanzas of the client that were handled so far: the `h` of `<resumed/>`.
    pub handled: u32,
}

/// Why a session was not resumed. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(clippy::exhaustive_enums, reason = "the host is to blame, or the client")]
pub enum ResumeError {
    /// The host's mistake, of which the client is told nothing.
    #[error(transparent)]
    Misuse(#[from] Misuse),
    /// The client cannot have what it asked for.
    #[error(transparent)]
    Refused(#[from] ResumeRefusal),
}

/// Why a client does not get its session back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResumeRefusal {
    /// No session of this account has that resumption id: unknown, over, or somebody else's,
    /// which are not told apart ([SM-12](crate::rules#sm-12)).
    #[error("no session to resume")]
    NotFound {
        /// Stanzas of the client that a session of that id had handled when it ended, if that is
        /// remembered for this account ([SM-13](crate::rules#sm-13)).
        handled: Option<u32>,
    },
    /// The client claims to have handled more than it was sent ([SM-14](crate::rules#sm-14)).
    #[error("the client acknowledged more stanzas than it was sent")]
    #[non_exhaustive]
    HandledTooHigh {
        /// What it claimed.
        handled: u32,
        /// What it was sent.
        sent: u32,
    },
}

/// A resumed session, with the old transport, if it still had one, and the waker of that one's owner.
type TakenOver<C> = (Owner<C>, Option<C>, Option<Box<Waker>>);

/// A transport that is gone: still to be closed, with the waker of its owner, the end of its session, or
/// of one that had to make room for that, and messages that wait for clients that are gone.
type Loss<C> = (Option<C>, Option<Box<Waker>>, Option<Ending<C>>, Vec<Stanza>);

impl<C: SharedConnection> Inner<C> {
    /// Keeps stanzas from now on until they are acknowledged. `reply` is written before the first
    /// of them; `None` where the session is retained already, has ended or is another's.
    pub(crate) fn retain(
        &self,
        owner: &Owner<C>,
        window: Duration,
        reply: impl FnOnce(&Retention) -> Vec<u8>,
    ) -> Option<Retention> {
        let shared = &owner.shared;
        let environment = &*self.settings.environment;
        let retention = self.retention(window);
        let clocks = (environment.now(), environment.utc());
        let reply = reply(&retention);
        shared.set(RETAINED, true);
        {
            let mut out = shared.out.lock();
            if out.ended || out.epoch != owner.epoch || out.retained.is_some() {
                return None;
            }
            // What still waits is acknowledged like what follows.
            out.queue.count_unwritten(&reply);
            let Retention { token, window } = retention.clone();
            let retained = Retained::new(token, window, out.received, clocks, &self.retained_bytes);
            out.retained = Some(Box::new(retained));
            out.account_for();
        }
        self.settle(shared, shared.kick());
        Some(retention)
    }

    /// How a session is kept that asks for this window (LIMIT-11, LIMIT-12).
    pub(super) fn retention(&self, window: Duration) -> Retention {
        let window = if self.is_pressed() {
            Duration::ZERO
        } else {
            window.min(self.settings.retention.window)
        };
        Retention { token: random_hex::<16>(&*self.settings.environment), window }
    }

    /// The transport of `epoch` is gone: the session hibernates if it is resumable, else it ends.
    /// An older epoch has no say.
    ///
    /// With `last_words` it is only the client's half of the transport that is gone: what the
    /// connection has accepted is still written, behind it these words if the session ends.
    pub(crate) fn lose(
        &self,
        shared: &Arc<Shared<C>>,
        epoch: Epoch,
        reason: Reason,
        last_words: Option<LastWords<'_>>,
        run: Run,
    ) {
        let loss = self.decide_loss(shared, epoch, reason, last_words);
        let Some((link, waker, ending, waiting)) = loss else { return };
        if let Some(link) = link {
            let how = if last_words.is_some() { Close::Flush } else { Close::Abort };
            let account = Some(&shared.account.bare);
            self.shielded(HostCode::Connection, account, || link.close(how));
        }
        wake(waker);
        if let Some(ending) = ending {
            self.finish_by(ending, run);
        }
        self.deliver_events();
        waiting.iter().for_each(|message| self.tell_waits(&shared.account, message));
    }

    fn decide_loss(
        &self,
        shared: &Arc<Shared<C>>,
        epoch: Epoch,
        reason: Reason,
        last_words: Option<LastWords<'_>>,
    ) -> Option<Loss<C>> {
        let now = self.now();
        let key = self.table.key(bare_of_full(&shared.jid));
        let mut shard = self.table.write(key);
        let row = shard.find_mut(key.hash.wide(), |row| row.is(key))?;
        let at = row.slots.position(shared)?;
        let mut out = shared.out.lock();
        if out.ended || out.epoch != epoch {
            return None;
        }
        let window = out.retained.as_ref().map_or(Duration::ZERO, |retained| retained.window);
        if window.is_zero() {
            drop(out);
            let ending = self.decide_end(row, at, reason, last_words, now);
            return Some((None, None, ending, Vec::new()));
        }
        let (link, waker) = (out.drop_link(), out.waker.take());
        let waiting = self.waits_for(shared, out);
        self.hibernate(row, at, shared, now, window);
        let is_crowded = row.absent() > self.settings.hibernating_per_account;
        let oldest = is_crowded.then(|| row.oldest_absent(&self.hibernating.lock())).flatten();
        let ending = oldest.and_then(|at| self.decide_end(row, at, Reason::Evicted, None, now));
        Some((link, waker, ending, waiting))
    }

    /// The messages that wait for nobody but clients that are gone, now that this one is.
    #[cfg(feature = "server")]
    fn waits_for(&self, shared: &Shared<C>, out: MutexGuard<'_, Outbound<C>>) -> Vec<Stanza> {
        if self.settings.waits.is_none() {
            return Vec::new();
        }
        let mut waiting = out.lose_copies();
        drop(out);
        waiting.extend(shared.heir_waits_for());
        waiting
    }

    #[cfg(not(feature = "server"))]
    fn waits_for(&self, _: &Shared<C>, _: MutexGuard<'_, Outbound<C>>) -> Vec<Stanza> {
        Vec::new()
    }

    /// Says that a message waits for the account of a session.
    #[cfg_attr(not(feature = "server"), expect(unused_variables, reason = "nobody is told"))]
    pub(super) fn tell_waits(&self, account: &Account, message: &Stanza) {
        #[cfg(feature = "server")]
        if let Some(hook) = &self.settings.waits {
            let account = &account.bare;
            self.shielded(HostCode::Extension, Some(account), || hook(account, message));
        }
    }

    /// A session whose transport was taken away waits to be resumed; under the shard's lock.
    fn hibernate(
        &self,
        row: &mut Row<C>,
        at: usize,
        shared: &Arc<Shared<C>>,
        now: Duration,
        window: Duration,
    ) {
        shared.set(HOLDING, false);
        if let Some(slot) = row.slots.as_mut_slice().get_mut(at) {
            slot.state = SlotState::Absent;
        }
        self.absent.fetch_add(1, Ordering::SeqCst);
        self.hibernating.lock().insert(shared, now, now.saturating_add(window));
        // Whoever sends from now on weighs it; before, it is weighed here.
        shared.set(ABSENT, true);
        let bytes = shared.out.lock().queue.bytes();
        self.hibernating.lock().weigh(shared.id, bytes);
        self.events.push(shared, EventKind::Absent);
    }

    /// Whether more is kept than may be for all sessions together (LIMIT-11).
    fn is_pressed(&self) -> bool {
        self.retained_bytes.exceeds(self.settings.retention.all_bytes)
    }

    /// LIMIT-11: hibernating sessions end until what is kept fits again, the heaviest first: those
    /// of the account that most is kept for. Half of the room is theirs, whatever the live ones take.
    pub(super) fn relieve(&self) {
        if !self.is_pressed() || self.relieving.swap(true, Ordering::SeqCst) {
            return;
        }
        while self.is_pressed() {
            let heaviest = {
                let mut hibernating = self.hibernating.lock();
                let theirs = self.settings.retention.all_bytes / 2;
                if hibernating.bytes() > theirs { hibernating.pop_heaviest() } else { None }
            };
            let Some(heaviest) = heaviest else { break };
            self.end_popped(&heaviest, Reason::Evicted, Run::Later);
        }
        self.relieving.store(false, Ordering::SeqCst);
    }

    /// Gives a session a new transport, which waits for its greeting. Everything is checked before anything
    /// changes (SM-14).
    pub(crate) fn resume(
        &self,
        account: &BareJid,
        token: &str,
        handled: u32,
        link: C,
    ) -> Result<(Owner<C>, Resumed), ResumeRefusal> {
        let (owner, old, waker) = self.take_over(account, token, handled, link)?;
        if let Some(old) = old {
            // Detached first: its end has no effect on the session (SM-21).
            let (code, account) = (HostCode::Connection, Some(account));
            let conflict = StreamCondition::Conflict.into();
            let _gone = self.shielded(code, account, || write_end(&old, Some(&conflict)));
            self.shielded(code, account, || old.close(Close::Flush));
        }
        wake(waker);
        let handled = owner.shared.out.lock().handled().unwrap_or(0);
        Ok((owner, Resumed { handled }))
    }

    /// As [`resume`](Self::resume), with what comes first on the new transport.
    pub(crate) fn resume_with(
        &self,
        account: &BareJid,
        token: &str,
        handled: u32,
        link: C,
        reply: &mut dyn FnMut(Resumed) -> Vec<u8>,
    ) -> Result<Owner<C>, ResumeRefusal> {
        let (owner, resumed) = self.resume(account, token, handled, link)?;
        let greeting = self.shielded(HostCode::Listener, Some(account), || reply(resumed).into());
        self.greet(&owner, greeting);
        self.deliver_events();
        Ok(owner)
    }

    fn take_over(
        &self,
        account: &BareJid,
        token: &str,
        handled: u32,
        link: C,
    ) -> Result<TakenOver<C>, ResumeRefusal> {
        // A session that ends is remembered under the lock under which it can be found no longer.
        let now = self.now();
        let not_found = || ResumeRefusal::NotFound {
            handled: self.remembered.lock().recall(account.as_str(), token, now),
        };
        let key = self.table.key(account.as_str());
        let mut shard = self.table.write(key);
        let row = shard.find_mut(key.hash.wide(), |row| row.is(key)).ok_or_else(not_found)?;
        let mut slots = row.slots.as_mut_slice().iter_mut();
        let is_meant = |slot: &&mut Slot<C>| {
            let out = slot.session.out.lock();
            let resumable = out.retained.as_ref().filter(|r| !r.window.is_zero() && !out.ended);
            resumable.is_some_and(|retained| is_same(&retained.token, token))
        };
        let slot = slots.find(is_meant).ok_or_else(not_found)?;
        let shared = Arc::clone(&slot.session);
        let mut out = shared.out.lock();
        match out.acknowledge(handled) {
            Some(Acknowledged::Freed(_)) => {}
            Some(Acknowledged::TooHigh { handled, sent }) => {
                return Err(ResumeRefusal::HandledTooHigh { handled, sent });
            }
            None => return Err(not_found()),
        }
        let old = out.replace_link(link);
        #[cfg(feature = "cluster")]
        out.forget_asks();
        let (epoch, waker) = (out.epoch, out.waker.take());
        drop(out);
        shared.set(HOLDING, false);
        let before = std::mem::replace(&mut slot.state, SlotState::Live);
        self.no_longer_absent(&shared, before);
        self.events.push(&shared, EventKind::Resumed);
        Ok((Owner { shared, epoch }, old, waker))
    }

    /// Puts in what comes first on a transport, and lets what waits follow them.
    pub(in crate::session) fn greet(&self, owner: &Owner<C>, greeting: Option<Reply>) {
        let shared = &owner.shared;
        {
            let mut out = shared.out.lock();
            // An end meanwhile has opened the gates for its last words, and nothing else.
            if out.ended || out.epoch != owner.epoch {
                return;
            }
            if let Some(greeting) = greeting {
                out.queue.set_greeting(greeting);
            }
            out.gates.open(Gate::Greeting);
        }
        self.settle(shared, shared.kick());
    }

    /// Takes back what hibernation put up.
    pub(super) fn no_longer_absent(&self, shared: &Shared<C>, before: SlotState) {
        if before == SlotState::Absent {
            self.absent.fetch_sub(1, Ordering::SeqCst);
            shared.set(ABSENT, false);
            self.hibernating.lock().remove(shared.id);
        }
    }

    /// LIMIT-11: more is kept for a session than before.
    pub(crate) fn weigh(&self, shared: &Shared<C>) {
        if shared.has(ABSENT) {
            let bytes = shared.out.lock().queue.bytes();
            self.hibernating.lock().weigh(shared.id, bytes);
        }
        self.relieve();
    }

    /// Ends a session that was popped off the hibernating ones, unless a resumption was quicker: exactly one
    /// of the two wins (SM-23). One that has lost its transport again since stands among them anew.
    fn end_popped(&self, session: &Weak<Shared<C>>, reason: Reason, run: Run) {
        let Some(session) = session.upgrade() else { return };
        let is_popped = || self.hibernating.lock().since(session.id).is_none();
        let still = |state| state == SlotState::Absent && is_popped();
        self.end_if(&session, reason, None, run, still);
    }

    /// Ends the sessions whose window has passed, and forgets what is too old.
    pub(super) fn expire(&self) {
        let now = self.now();
        loop {
            let Some(due) = self.hibernating.lock().pop_due(now) else { break };
            self.end_popped(&due, Reason::Expired, Run::Here);
        }
        self.remembered.lock().forget(now);
    }
}
