//! A bound session as others see it: the shared part, its handle, and the narrower views.

mod acks;
mod extension;
mod info;
mod presence;

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
#[cfg(feature = "server")]
use std::time::Duration;

use jid::{BareJid, FullJid, ResourceRef};

use super::account::Account;
use super::outbound::{After, Epoch, Item, NotSent, Outbound, Owner, Sent, Validity, Writer};
use super::registry::Inner;
use crate::connection::SharedConnection;
use crate::environment::Nanos;
use crate::rules::roster::Roster;
use crate::shield::HostCode;
#[cfg(feature = "server")]
use crate::shield::shielded;
use crate::stanza::Stanza;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU32, Ordering};

pub use info::{SessionInfo, SessionState};
#[cfg(feature = "server")]
pub(crate) use presence::Rare;
pub(crate) use presence::{Gone, Last, PresenceState};

/// The number of one session instance, never used again in the life of its registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub(crate) u64);

impl SessionId {
    #[cfg(all(test, feature = "tracing"))]
    pub(crate) const fn first() -> Self {
        Self(1)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// The priority, as it is in a byte.
const PRIORITY: u32 = 0xff;
pub(super) const AVAILABLE: u32 = 1 << 8;
pub(super) const INTERESTED: u32 = 1 << 9;
pub(super) const ENDED: u32 = 1 << 10;
/// It ended by a close, not by an error.
pub(super) const CLOSED: u32 = 1 << 12;
/// Stanzas are kept until they are acknowledged, so the time at which they are accepted matters.
pub(super) const RETAINED: u32 = 1 << 11;
/// Nobody can read or change what goes over the transport.
pub(super) const PROTECTED: u32 = 1 << 13;
/// Something may have to be held back, so the hook that says what is asked.
pub(super) const HOLDING: u32 = 1 << 14;
/// The account has a [backlog](super::backlog): messages go behind it.
pub(super) const BEHIND: u32 = 1 << 15;
/// It hibernates: what is kept for it is weighed (LIMIT-11).
pub(super) const ABSENT: u32 = 1 << 16;
/// It has [inherited](super::registry::inheritance) messages and has not got them yet.
#[cfg(feature = "server")]
pub(super) const HEIR: u32 = 1 << 17;
/// The way of something that it was given is measured until its transport has written all.
#[cfg(feature = "server")]
pub(super) const SAMPLED: u32 = 1 << 18;

/// What a delivery has to know of a session, from one look at it.
#[cfg(feature = "server")]
#[derive(Clone, Copy)]
pub(crate) struct Standing(u32);

#[cfg(feature = "server")]
impl Standing {
    pub(crate) const fn is_available(self) -> bool {
        self.0 & AVAILABLE != 0
    }

    /// Whether messages for the account wait, so that none is given past them.
    pub(crate) const fn is_behind(self) -> bool {
        self.0 & BEHIND != 0
    }

    /// Whether messages wait for this session alone.
    pub(crate) const fn is_heir(self) -> bool {
        self.0 & HEIR != 0
    }

    pub(crate) const fn priority(self) -> i8 {
        priority_of(self.0)
    }
}

pub(crate) struct Shared<C: SharedConnection> {
    pub(super) id: SessionId,
    pub(super) jid: FullJid,
    pub(super) since: Nanos,
    /// Kept as long as the session is. (The registry's last clone ends all sessions, so that they are no longer in
    /// its table.)
    pub(super) registry: Arc<Inner<C>>,
    pub(super) account: Arc<Account>,
    /// The priority in the lowest byte, then the bits above.
    pub(super) flags: AtomicU32,
    /// Number of the last presence: copies under way of an older one are void.
    pub(super) number: AtomicU32,
    pub(super) presence: Mutex<PresenceState>,
    pub(super) out: Mutex<Outbound<C>>,
}

impl<C: SharedConnection> Owner for Shared<C> {
    #[inline]
    fn jid(&self) -> &FullJid {
        &self.jid
    }

    #[inline]
    fn account(&self) -> &BareJid {
        &self.account.bare
    }

    #[cold]
    fn panicked(&self, message: Option<String>) {
        self.registry.panicked(HostCode::Connection, Some(&self.account.bare), message);
    }
}

impl<C: SharedConnection> Shared<C> {
    pub(crate) fn send(self: &Arc<Self>, inner: &Inner<C>, item: &Item<'_>) -> Result<(), NotSent> {
        let flags = self.flags.load(Ordering::SeqCst);
        let retained = flags & RETAINED != 0;
        // What says whether it is held back is host code: it is asked before the lock is taken.
        let stanza = item.stanza().filter(|_| flags & HOLDING != 0);
        let hold = stanza.map(|stanza| inner.hold(self, stanza));
        let clock = || item.accepted().unwrap_or_else(|| inner.now());
        let sent = self.writer().send(item, hold, retained, &clock, inner.limits());
        self.settle_sent(inner, retained, sent)
    }

    fn send_stored(self: &Arc<Self>, inner: &Inner<C>, items: &[Item<'_>]) -> Result<(), NotSent> {
        let retained = self.has(RETAINED);
        let sent = self.writer().send_stored(items, inner.now(), inner.limits());
        self.settle_sent(inner, retained, sent)
    }

    #[inline]
    fn settle_sent(
        self: &Arc<Self>,
        inner: &Inner<C>,
        retained: bool,
        sent: Sent,
    ) -> Result<(), NotSent> {
        let (sent, after) = sent;
        if retained {
            inner.weigh(self);
        }
        inner.settle(self, after);
        sent
    }

    /// Goes on where the connection has not taken all at once; while there is more to come, a number
    /// that changes as it comes.
    pub(super) fn go_on(self: &Arc<Self>, epoch: Epoch) -> Option<u32> {
        let is_called = {
            let mut out = self.out.lock();
            out.epoch == epoch && out.call_writer()
        };
        if !is_called {
            return None;
        }
        self.registry.settle(self, self.kick());
        let out = self.out.lock();
        (out.epoch == epoch && out.is_stalled()).then(|| out.queue.handed())
    }

    /// Writes what waits, if nobody does.
    pub(super) fn kick(&self) -> After {
        self.writer().kick()
    }

    fn writer(&self) -> Writer<'_, C, Self> {
        Writer { out: &self.out, owner: self }
    }

    /// Until when what is said of the session now is true (PRES-21).
    #[inline]
    pub(super) fn validity(&self) -> Validity<'_> {
        Validity::of(&self.number)
    }

    /// What stands for its client, if that has said which it is.
    pub(super) fn client(&self) -> Option<NonZeroU64> {
        self.presence.lock().rare().and_then(|rare| rare.client)
    }

    pub(super) fn has(&self, flag: u32) -> bool {
        self.flags.load(Ordering::SeqCst) & flag != 0
    }

    pub(super) fn is_available(&self) -> bool {
        self.has(AVAILABLE)
    }

    pub(super) fn is_interested(&self) -> bool {
        self.has(INTERESTED)
    }

    pub(super) fn availability(&self) -> Option<i8> {
        self.is_available().then(|| self.priority())
    }

    /// Sets availability and priority, under the presence lock; `false` if the session is over.
    pub(super) fn set_presence_flags(&self, presence: u32) -> bool {
        self.update_flags(|flags| flags & !(PRIORITY | AVAILABLE) | presence)
    }

    /// Sets or clears one of the flags, unless the session is over.
    pub(super) fn set(&self, flag: u32, is_set: bool) {
        self.update_flags(|flags| if is_set { flags | flag } else { flags & !flag });
    }

    fn update_flags(&self, change: impl Fn(u32) -> u32) -> bool {
        let set = |flags| (flags & ENDED == 0).then(|| change(flags));
        self.flags.fetch_update(Ordering::SeqCst, Ordering::SeqCst, set).is_ok()
    }

    pub(super) fn priority(&self) -> i8 {
        priority_of(self.flags.load(Ordering::SeqCst))
    }
}

const fn priority_of(flags: u32) -> i8 {
    let [priority, ..] = flags.to_le_bytes();
    i8::from_le_bytes([priority])
}

/// A bound session as others reach it: cheap to clone, harmless when stale.
///
/// A handle keeps nothing alive and ends nothing: once the session has ended, sending says so and
/// has no effect ([DESTROY-6](crate::rules#destroy-6)).
///
/// # Examples
///
/// ```
/// use xmpp_session::connection::SharedConnection;
/// use xmpp_session::session::{NotSent, SessionHandle};
/// use xmpp_session::stanza::Stanza;
///
/// fn notify<C: SharedConnection>(session: &SessionHandle<C>, stanza: &Stanza) -> bool {
///     match session.send(stanza) {
///         Ok(()) => true,                 // it has its place in the order
///         Err(NotSent::Full) => false,    // too much waits for this client
///         Err(_) => false,                // it has ended
///     }
/// }
/// ```
#[derive(Clone)]
pub struct SessionHandle<C: SharedConnection>(pub(crate) Arc<Shared<C>>);

#[cfg(feature = "server")]
impl<C: SharedConnection> SessionHandle<C> {
    /// Bytes that wait for the connection, and when the oldest stanza was accepted that the client has not
    /// acknowledged.
    pub(crate) fn queued(&self) -> (usize, Option<Duration>) {
        let out = self.0.out.lock();
        (out.queue.unwritten().bytes as usize, out.queue.oldest())
    }

    /// Nothing waits for the connection.
    pub(crate) fn has_none_queued(&self) -> bool {
        !self.0.out.lock().queue.has_unwritten()
    }

    /// Nothing waits for the connection, nor in it.
    pub(crate) fn is_written(&self) -> bool {
        let link = {
            let out = self.0.out.lock();
            if out.queue.has_unwritten() {
                return false;
            }
            out.link.clone()
        };
        // One that panics is broken: nothing is waited for.
        link.is_some_and(|link| shielded(|| link.waiting() == 0).unwrap_or(true))
    }

    #[inline]
    pub(crate) fn is_sampled(&self) -> bool {
        self.0.flags.load(Ordering::Relaxed) & SAMPLED != 0
    }

    pub(crate) fn set_sampled(&self) {
        self.0.set(SAMPLED, true);
    }

    pub(crate) fn unset_sampled(&self) {
        self.0.set(SAMPLED, false);
    }
}

impl<C: SharedConnection> SessionHandle<C> {
    /// The full JID.
    #[must_use]
    pub fn jid(&self) -> &FullJid {
        &self.0.jid
    }

    /// The resource part of the JID.
    #[must_use]
    pub fn resource(&self) -> &ResourceRef {
        self.0.jid.resource()
    }

    /// The number of this instance.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.0.id
    }

    /// Sends a stanza to the client, in the order of the calls.
    ///
    /// `Ok` means accepted: it is written, or waits for the transport or for a resumption. What becomes
    /// of an accepted stanza if the session ends first is decided by [DESTROY-12](crate::rules#destroy-12) and [SM-17](crate::rules#sm-17). Never blocks.
    ///
    /// # Errors
    ///
    /// [`NotSent`]: nothing was accepted and the caller still has the stanza.
    pub fn send(&self, stanza: &Stanza) -> Result<(), NotSent> {
        self.send_item(&Item::new(stanza))
    }

    /// As [`send`](Self::send), for what is no stanza, or a stanza that something is special about.
    ///
    /// # Errors
    ///
    /// [`NotSent`]: nothing was accepted and the caller still has it.
    #[inline(always)]
    pub fn send_item(&self, item: &Item<'_>) -> Result<(), NotSent> {
        #[cfg(feature = "server")]
        if let Some((copy, copies)) = item.as_carbon()
            && self.inherit_copy(copy, copies)
        {
            return Ok(());
        }
        self.0.send(&self.0.registry, item)
    }

    /// Sends stanzas that have waited for the client in a store ([OFF-3](crate::rules#off-3), [SUB-10](crate::rules#sub-10)), all or none of them.
    /// They do not count against what may wait for a session ([LIMIT-10](crate::rules#limit-10)), since the store has limits of
    /// its own; but as long as that much of them waits no more are taken, and the transport is given up.
    ///
    /// # Errors
    ///
    /// [`NotSent`]: nothing was accepted and the caller still has the stanzas.
    pub fn send_stored(&self, stanzas: &[Item<'_>]) -> Result<(), NotSent> {
        self.0.send_stored(&self.0.registry, stanzas)
    }

    /// Whether the session takes more of what a store has (LIMIT-10).
    #[cfg(feature = "server")]
    pub(crate) fn takes_stored(&self) -> bool {
        !self.0.out.lock().queue.stored().exceeds(self.0.registry.limits(), 1)
    }

    /// Writes more of what waits, where that is more than the connection took at once. A host that drives
    /// sessions without the server calls this whenever everything that waited in the connection of
    /// `epoch` is written; the [`drained`](crate::connection::PreDrain::drained) of the server's hook does.
    pub fn go_on(&self, epoch: Epoch) {
        let _more = self.0.go_on(epoch);
    }

    /// The view of an *available* resource: it has broadcast presence and no unavailable since.
    #[must_use]
    pub fn available(&self) -> Option<Available<'_, C>> {
        let state = self.0.presence.lock();
        let presence = state.last.as_ref()?.stanza.clone();
        let priority = self.0.priority();
        drop(state);
        Some(Available { session: self, presence, priority })
    }

    /// The view of an *interested* resource: it has requested the roster.
    #[must_use]
    pub fn interested(&self) -> Option<Interested<'_, C>> {
        self.is_interested().then_some(Interested { session: self })
    }

    /// Whether the session has requested the roster.
    #[must_use]
    pub fn is_interested(&self) -> bool {
        self.0.is_interested()
    }

    /// Whether the owner has said that the transport is [protected](super::Session::set_protected).
    #[must_use]
    pub fn is_protected(&self) -> bool {
        self.0.has(PROTECTED)
    }

    /// Whether stanzas are kept until the client acknowledges them ([`Session::retain`](super::Session::retain)).
    #[must_use]
    pub fn is_retained(&self) -> bool {
        self.0.has(RETAINED)
    }

    /// Whether the session is available.
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.0.is_available()
    }

    /// The priority of its presence; 0 where it is not available.
    #[must_use]
    pub fn priority(&self) -> i8 {
        self.0.priority()
    }

    #[cfg(feature = "server")]
    pub(crate) fn standing(&self) -> Standing {
        Standing(self.0.flags.load(Ordering::SeqCst))
    }

    /// The client has requested the roster ([ROSTER-2](crate::rules#roster-2)).
    pub fn set_interested(&self) {
        self.0.set(INTERESTED, true);
    }

    /// Holds back from now on what the registry's [`hold`](super::RegistryBuilder::hold) hook names, or lets
    /// it all go, in order (XEP-0352). A session without a transport holds nothing back, and each transport
    /// starts without ([CSI-1](crate::rules#csi-1)).
    pub fn set_holding(&self, holding: bool) {
        let registry = &self.0.registry;
        // The flag says that the hook is to be asked; what counts is what stands under the lock.
        self.0.set(HOLDING, holding);
        if holding {
            return self.0.out.lock().start_holding(&registry.retained_bytes);
        }
        self.0.out.lock().stop_holding();
        registry.settle(&self.0, self.0.kick());
    }

    /// Whether the session is over.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.0.out.lock().ended
    }

    /// Whether the session has a transport now; if not it has ended or hibernates.
    #[must_use]
    pub fn is_live(&self) -> bool {
        let out = self.0.out.lock();
        !out.ended && out.link.is_some()
    }

    /// The current connection, if there is one.
    #[must_use]
    pub fn connection(&self) -> Option<C> {
        self.0.out.lock().link.clone()
    }

    /// The roster of the account, as it is now: all its sessions share one.
    #[must_use]
    pub fn roster(&self) -> Arc<Roster> {
        self.0.account.roster()
    }

    /// Whether it ended without an error (STREAM-26).
    #[cfg(feature = "server")]
    pub(crate) fn is_closed(&self) -> bool {
        self.0.has(CLOSED)
    }

    /// Replaces the roster of the account, for all its sessions. The caller has stored it.
    pub fn set_roster(&self, roster: Roster) {
        self.0.registry.set_roster(&self.0.account, roster);
    }

    #[cfg(feature = "server")]
    pub(crate) fn account(&self) -> &Arc<Account> {
        &self.0.account
    }
}

impl<C: SharedConnection> PartialEq for SessionHandle<C> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<C: SharedConnection> Eq for SessionHandle<C> {}

impl<C: SharedConnection> fmt::Debug for SessionHandle<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionHandle")
            .field("id", &self.0.id.0)
            .field("available", &self.is_available())
            .field("interested", &self.is_interested())
            .finish_non_exhaustive()
    }
}

/// A moment's view of an available resource: what it says was true when it was taken.
#[must_use = "a view does nothing by itself"]
pub struct Available<'a, C: SharedConnection> {
    session: &'a SessionHandle<C>,
    presence: Stanza,
    priority: i8,
}

impl<'a, C: SharedConnection> Available<'a, C> {
    /// The session that was looked at.
    #[must_use]
    pub const fn session(&self) -> &'a SessionHandle<C> {
        self.session
    }

    /// The last broadcast presence without a type.
    #[must_use]
    pub const fn presence(&self) -> &Stanza {
        &self.presence
    }

    /// Its priority, 0 where the presence states none
    /// ([RFC 6121 §4.7.2.3](https://www.rfc-editor.org/rfc/rfc6121#section-4.7.2.3)).
    #[must_use]
    pub const fn priority(&self) -> i8 {
        self.priority
    }
}

impl<C: SharedConnection> fmt::Debug for Available<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Available").field("priority", &self.priority).finish_non_exhaustive()
    }
}

/// A moment's view of an interested resource: the only one that takes a roster push.
#[must_use = "a view does nothing by itself"]
pub struct Interested<'a, C: SharedConnection> {
    session: &'a SessionHandle<C>,
}

impl<'a, C: SharedConnection> Interested<'a, C> {
    /// The session that was looked at.
    #[must_use]
    pub const fn session(&self) -> &'a SessionHandle<C> {
        self.session
    }

    /// Sends a roster push; `to` becomes the session's full JID as it is written, so that one
    /// push serves all sessions ([ROSTER-11](crate::rules#roster-11)).
    ///
    /// # Errors
    ///
    /// [`NotSent`]: it was not accepted.
    pub fn push(&self, iq: &Stanza) -> Result<(), NotSent> {
        self.session.send_item(&Item::new(iq).addressed())
    }
}

impl<C: SharedConnection> fmt::Debug for Interested<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interested").finish_non_exhaustive()
    }
}
