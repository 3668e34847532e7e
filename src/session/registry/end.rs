//! How a session ends: once, for everybody, with constant stack.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jid::FullJid;
use smallvec::SmallVec;

use super::events::EventKind;
use super::inner::Inner;
use super::presence::unavailable;
use super::rows::{Row, Slot, SlotState};
use crate::address::bare_of_full;
use crate::connection::{Close, SendError, SharedConnection};
use crate::session::handle::{CLOSED, ENDED, SessionId, Shared};
#[cfg(feature = "server")]
use crate::session::outbound::Copies;
use crate::session::outbound::{Ended, Gate, LastWords, Left};
use crate::shield::{HostCode, shielded, wake};
use crate::stanza::{Stanza, StreamCondition, StreamError};
use crate::sync::atomic::Ordering;

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The client closed its stream ([STREAM-27](crate::rules#stream-27)).
    Closed,
    /// A stream error, sent or received ([SERR-2](crate::rules#serr-2)).
    StreamError,
    /// The transport broke, or the owner was dropped, and the session was not resumable.
    TransportLost,
    /// The client read too slowly ([LIMIT-13](crate::rules#limit-13)), and the session was not resumable.
    SlowReader,
    /// Another session took the resource ([BIND-5](crate::rules#bind-5)).
    #[non_exhaustive]
    Replaced {
        /// The session that took it.
        by: SessionId,
    },
    /// A hibernating session gave its place, or its memory, to others ([BIND-8](crate::rules#bind-8), [LIMIT-9](crate::rules#limit-9), [LIMIT-11](crate::rules#limit-11)).
    Evicted,
    /// Nobody resumed it in time ([SM-23](crate::rules#sm-23)).
    Expired,
    /// It had no transport, and more came for it than is kept ([LIMIT-10](crate::rules#limit-10)).
    Overflow,
    /// The host ended it ([DESTROY-19](crate::rules#destroy-19)).
    Kicked,
    /// The account was removed or disabled ([DESTROY-15](crate::rules#destroy-15)).
    AccountRemoved,
    /// The password was changed by another session ([DESTROY-18](crate::rules#destroy-18)).
    PasswordChanged,
    /// What its client has logged in with is good no longer ([TOKEN-6](crate::rules#token-6)).
    LoginExpired,
    /// The server shuts down ([DESTROY-16](crate::rules#destroy-16)).
    Shutdown,
}

impl Reason {
    /// Its name, for logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::StreamError => "stream-error",
            Self::TransportLost => "transport-lost",
            Self::SlowReader => "slow-reader",
            Self::Replaced { .. } => "replaced",
            Self::Evicted => "evicted",
            Self::Expired => "expired",
            Self::Overflow => "overflow",
            Self::Kicked => "kicked",
            Self::AccountRemoved => "account-removed",
            Self::PasswordChanged => "password-changed",
            Self::LoginExpired => "login-expired",
            Self::Shutdown => "shutdown",
        }
    }

    /// What the stream ends with: an error, or none; `None` where the transport is to be dropped
    /// without a word (STREAM-29).
    fn last_words(self) -> Option<Option<StreamError>> {
        let condition = match self {
            Self::TransportLost | Self::SlowReader | Self::Evicted | Self::Expired => return None,
            Self::Closed | Self::Overflow => return Some(None),
            Self::Replaced { .. } => StreamCondition::Conflict,
            Self::Kicked => StreamCondition::PolicyViolation,
            Self::AccountRemoved => StreamCondition::NotAuthorized,
            Self::PasswordChanged | Self::LoginExpired => StreamCondition::Reset,
            Self::Shutdown => StreamCondition::SystemShutdown,
            Self::StreamError => StreamCondition::UndefinedCondition,
        };
        Some(Some(condition.into()))
    }

    /// Whether the client may come back for the session, and is told how far it had come (SM-13).
    const fn is_remembered(self) -> bool {
        !matches!(self, Self::Closed | Self::AccountRemoved | Self::Shutdown)
    }
}

impl From<SendError> for Reason {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Full => Self::SlowReader,
            SendError::Closed => Self::TransportLost,
        }
    }
}

/// A stanza that an ended session leaves behind, for the host to store, to route again or to bounce: see
/// [`leftover`](super::RegistryBuilder::leftover).
#[derive(Clone)]
#[non_exhaustive]
pub struct Leftover {
    /// The stanza, as it was accepted.
    pub stanza: Stanza,
    /// The session that it was accepted for.
    pub session: FullJid,
    /// The number of its instance.
    pub id: SessionId,
    /// When it was accepted.
    pub accepted: SystemTime,
    /// The same by the registry's clock, which no conversion has rounded.
    #[cfg(feature = "server")]
    pub(crate) at: Duration,
    /// Extensions know that it waits, or it came from the store.
    #[cfg(feature = "server")]
    pub(crate) is_told: bool,
    /// Whether it was kept until the client acknowledges it ([SM-17](crate::rules#sm-17)). Else it was never written, and
    /// is to be routed again as if the session had not been ([DESTROY-12](crate::rules#destroy-12)).
    pub retained: bool,
    /// Whether it was handed to a transport, so that the client may have got it.
    pub written: bool,
}

impl Left {
    /// What others are to know of it; `None` where another session has the message, or will have
    /// (SM-17). `clocks`: the time now, monotonic and of day.
    pub(super) fn into_leftover(
        self,
        session: (&FullJid, SessionId),
        clocks: (Duration, SystemTime),
    ) -> Option<Leftover> {
        let accepted = self.accepted(clocks);
        let Self { stanza, counted: retained, written, copies, .. } = self;
        #[cfg(feature = "server")]
        let is_told = copies.as_ref().is_none_or(Copies::is_told);
        let stanza = match copies {
            None => stanza,
            Some(last) if last.release() => last.message().clone(),
            Some(_) => return None,
        };
        let (session, id) = (session.0.clone(), session.1);
        Some(Leftover {
            stanza,
            session,
            id,
            accepted,
            #[cfg(feature = "server")]
            at: self.at,
            #[cfg(feature = "server")]
            is_told,
            retained,
            written,
        })
    }
}

impl fmt::Debug for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leftover")
            .field("stanza", &self.stanza)
            .field("retained", &self.retained)
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}

/// An end that was decided, its effects still to come. The session can no longer be found.
pub(super) struct Ending<C: SharedConnection> {
    shared: Arc<Shared<C>>,
    reason: Reason,
    outbound: Ended<C>,
    /// How many stanzas it has left.
    left: usize,
    /// Whether the connection has last words to write.
    flush: bool,
}

impl<C: SharedConnection> Ending<C> {
    /// What the session that takes the resource may inherit of it.
    #[cfg(feature = "server")]
    pub(super) fn bequest(&mut self) -> (&Arc<Shared<C>>, Vec<Left>) {
        (&self.shared, std::mem::take(&mut self.outbound.left))
    }
}

/// On whose thread the effects of an end run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Run {
    /// That of the caller, whose end it is.
    Here,
    /// The host's background: the caller only happened to send something (promise 5).
    Later,
}

/// An end that waits for the host's background. Dropping it has its effects.
struct Postponed<C: SharedConnection> {
    inner: Arc<Inner<C>>,
    ending: Option<Ending<C>>,
}

impl<C: SharedConnection> Drop for Postponed<C> {
    fn drop(&mut self) {
        if let Some(ending) = self.ending.take() {
            self.inner.finish(ending);
        }
    }
}

impl<C: SharedConnection> Inner<C> {
    /// Ends a session; `false` if it was over.
    pub(super) fn end(
        &self,
        shared: &Arc<Shared<C>>,
        reason: Reason,
        last_words: Option<LastWords<'_>>,
    ) -> bool {
        self.end_if(shared, reason, last_words, Run::Here, |_| true)
    }

    pub(crate) fn end_if(
        &self,
        shared: &Arc<Shared<C>>,
        reason: Reason,
        last_words: Option<LastWords<'_>>,
        run: Run,
        still: impl FnOnce(SlotState) -> bool,
    ) -> bool {
        let now = self.now();
        let ending = {
            let key = self.table.key(bare_of_full(&shared.jid));
            let mut shard = self.table.write(key);
            let row = shard.find_mut(key.hash.wide(), |row| row.is(key));
            row.and_then(|row| {
                let at = row.slots.position(shared)?;
                let state = row.slots.as_slice().get(at)?.state;
                if state == SlotState::Ending || !still(state) {
                    return None;
                }
                self.decide_end(row, at, reason, last_words, now)
            })
        };
        let is_first = ending.is_some();
        if let Some(ending) = ending {
            self.finish_by(ending, run);
        }
        is_first
    }

    /// Marks the slot as ending and settles its outbound; under the shard's lock.
    pub(super) fn decide_end(
        &self,
        row: &mut Row<C>,
        at: usize,
        reason: Reason,
        last_words: Option<LastWords<'_>>,
        now: Duration,
    ) -> Option<Ending<C>> {
        let slot = row.slots.as_mut_slice().get_mut(at)?;
        let before = std::mem::replace(&mut slot.state, SlotState::Ending);
        self.sessions.fetch_sub(1, Ordering::SeqCst);
        self.no_longer_absent(&slot.session, before);
        let own = reason.last_words();
        let own = own.as_ref().map(|error| LastWords::of(error.as_ref()));
        let words = last_words.or(own);
        let mut outbound = slot.session.out.lock().end(words);
        #[cfg(feature = "server")]
        outbound.left.splice(0..0, slot.session.take_inheritance());
        let token = outbound.token.take().filter(|_| reason.is_remembered());
        if let (Some(token), Some(handled)) = (token, outbound.handled) {
            let (account, limits) = (row.account.bare.as_str(), self.limits());
            self.remembered.lock().keep(account, token, handled, now, limits);
        }
        let (shared, flush) = (Arc::clone(&slot.session), words.is_some());
        let left = outbound.left.len();
        // What a replaced session leaves, its successor may inherit.
        if !matches!(reason, Reason::Replaced { .. }) || self.settings.backlog.is_none() {
            self.put_left(row, &shared, std::mem::take(&mut outbound.left));
        }
        Some(Ending { shared, reason, outbound, left, flush })
    }

    pub(super) fn finish_by(&self, ending: Ending<C>, run: Run) {
        let background = self.settings.background.as_ref().filter(|_| run == Run::Later);
        match (background, self.me.upgrade()) {
            (Some(background), Some(inner)) => {
                let postponed = Postponed { inner, ending: Some(ending) };
                let run = || background(Box::new(move || drop(postponed)));
                self.shielded(HostCode::Extension, None, run);
            }
            _ => self.finish(ending),
        }
    }

    /// The effects of an end (DESTROY-3). An end that is caused by an effect of another waits
    /// for that one to finish, on the same thread: the stack does not grow (DESTROY-13).
    pub(super) fn finish(&self, ending: Ending<C>) {
        let Some(me) = self.me.upgrade() else { return };
        trampoline(Box::new(move || me.run_end(ending)));
    }

    fn run_end(&self, ending: Ending<C>) {
        let Ending { shared, reason, outbound, left, flush } = ending;
        wake(outbound.waker);
        let mut gone = {
            let mut presence = shared.presence.lock();
            let before = shared.availability();
            shared.number.fetch_add(1, Ordering::SeqCst);
            let closed = if reason == Reason::Closed { CLOSED } else { 0 };
            shared.flags.store(ENDED | closed, Ordering::SeqCst);
            presence.take(before)
        };
        let was_available = gone.before.is_some();
        // At most it is the JID of a successor (DESTROY-8).
        gone.directed.forget(shared.jid.as_str());
        if was_available || !gone.directed.is_empty() {
            self.broadcast_unavailable(&shared, &gone, &unavailable(&shared));
        }
        self.gone(&shared);
        if left > 0 {
            self.settle_left(&shared);
        }
        if let Some(link) = outbound.link {
            let account = Some(&shared.account.bare);
            self.shielded(HostCode::Connection, account, || link.close(Close::Abort));
        } else if flush {
            self.settle(&shared, shared.kick());
        }
        let kind = EventKind::Ended {
            reason,
            successor: if let Reason::Replaced { by } = reason { Some(by) } else { None },
            handled: outbound.handled,
            left,
            was_available,
        };
        for successor in self.forget(&shared, kind) {
            let waker = successor.out.lock().open(Gate::Predecessor);
            self.settle(&successor, successor.kick());
            wake(waker);
        }
        self.deliver_ends();
    }

    /// Takes the slot away, by session id (DESTROY-5). Returns the sessions that waited for it, if this was
    /// the last one before them (BIND-14, BIND2-4).
    fn forget(&self, shared: &Arc<Shared<C>>, kind: EventKind) -> SmallVec<[Arc<Shared<C>>; 1]> {
        let key = self.table.key(bare_of_full(&shared.jid));
        let mut shard = self.table.write(key);
        self.events.push(shared, kind);
        let none = SmallVec::new;
        let Ok(mut occupied) = shard.find_entry(key.hash.wide(), |row| row.is(key)) else {
            return none();
        };
        let row = occupied.get_mut();
        let Some(at) = row.slots.position(shared) else { return none() };
        row.slots.remove(at);
        let slots = row.slots.as_slice();
        if slots.is_empty() {
            let (row, _) = occupied.remove();
            #[cfg(feature = "cluster")]
            self.groups.iter().for_each(|groups| groups.remove(&row.account));
            drop(row);
            return none();
        }
        let client = shared.client();
        let waited = |slot: &Slot<C>| {
            slot.is_of(shared.jid.resource())
                || (client.is_some() && slot.session.client() == client)
        };
        let free = slots.iter().enumerate().filter(|(at, slot)| {
            // While an older one is still ending, its own end will open the gate.
            let (resource, client) = (slot.session.jid.resource(), slot.session.client());
            let mut before = slots.iter().take(*at);
            slot.state != SlotState::Ending
                && waited(slot)
                && !before.any(|before| before.precedes(resource, client))
        });
        free.map(|(_, slot)| Arc::clone(&slot.session)).collect()
    }
}

type Effect = Box<dyn FnOnce()>;

crate::sync::thread_local! {
    /// Ends whose effects wait for the one that this thread is in.
    static ENDS: RefCell<Option<VecDeque<Effect>>> = const { RefCell::new(None) };
}

/// Runs `effect` now, or after the one that this thread is in.
fn trampoline(effect: Effect) {
    let mut effect = Some(effect);
    let is_outermost = ENDS.try_with(|ends| {
        let mut ends = ends.borrow_mut();
        match ends.as_mut() {
            Some(queue) => queue.extend(effect.take()),
            None => *ends = Some(VecDeque::new()),
        }
        effect.is_some()
    });
    // A thread that is being torn down has no queue: there the effect runs where it stands.
    let is_outermost = is_outermost.unwrap_or(false);
    let next = || ENDS.try_with(|ends| ends.borrow_mut().as_mut()?.pop_front()).ok().flatten();
    while let Some(run) = effect {
        // A panic (in the drop of something the host gave us) must not leave the queue behind.
        shielded(run);
        effect = if is_outermost { next() } else { None };
    }
    if is_outermost {
        let _gone = ENDS.try_with(|ends| ends.borrow_mut().take());
    }
}
