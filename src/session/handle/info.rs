//! What a session shows its operator.

use std::fmt;
use std::time::{Duration, SystemTime};

use jid::FullJid;

use super::{AVAILABLE, INTERESTED, SessionHandle, SessionId, priority_of};
use crate::connection::SharedConnection;
use crate::named::named;
use crate::shield::shielded;
use crate::sync::atomic::Ordering;

named! {
    /// What a bound session does.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    #[non_exhaustive]
    pub enum SessionState {
        /// It has a transport, and has sent no presence.
        Bound = "bound",
        /// It has a transport, and is available.
        Available = "available",
        /// It has no transport, and may be resumed ([SM-19](crate::rules#sm-19)).
        Hibernating = "hibernating",
    }
    /// All of them.
    pub const ALL;
    /// Its name, for pages and logs.
    pub const fn as_str;
}

/// What can be told of a session at one moment.
#[derive(Clone)]
#[non_exhaustive]
pub struct SessionInfo {
    /// The full JID.
    pub jid: FullJid,
    /// The number of the instance.
    pub id: SessionId,
    /// When it was bound, on the [`Environment`](crate::environment::Environment)'s monotonic clock.
    pub since: Duration,
    /// The priority of its presence; 0 where there is none.
    pub priority: i8,
    /// Whether it is available.
    pub available: bool,
    /// When it broadcast the presence that it has now, by the time of day.
    pub presence_at: Option<SystemTime>,
    /// Whether it has requested the roster.
    pub interested: bool,
    /// Whether it has a transport.
    pub live: bool,
    /// Since when it waits to be resumed, if it does, on the monotonic clock.
    pub hibernating_since: Option<Duration>,
    /// Stanzas received from the client, wrapping at 2^32.
    pub stanzas_received: u32,
    /// Stanzas accepted for the client, wrapping at 2^32.
    pub stanzas_sent: u32,
    /// Bytes accepted for the client and not yet taken by the network or not yet acknowledged.
    pub bytes_waiting: usize,
    /// When the oldest stanza was accepted that the client has to acknowledge and has not, on the monotonic
    /// clock.
    pub unacknowledged_since: Option<Duration>,
}

impl SessionInfo {
    /// What it does. One that has ended counts as bound.
    #[must_use]
    pub const fn state(&self) -> SessionState {
        match (self.hibernating_since, self.available) {
            (Some(_), _) => SessionState::Hibernating,
            (None, true) => SessionState::Available,
            (None, false) => SessionState::Bound,
        }
    }
}

impl fmt::Debug for SessionInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionInfo")
            .field("id", &self.id.0)
            .field("available", &self.available)
            .field("interested", &self.interested)
            .field("live", &self.live)
            .field("bytes_waiting", &self.bytes_waiting)
            .finish_non_exhaustive()
    }
}

impl<C: SharedConnection> SessionHandle<C> {
    /// What can be told of the session now, for an administrator's eyes.
    #[must_use]
    pub fn info(&self) -> SessionInfo {
        let out = self.0.out.lock();
        let (received, sent, queued) = (out.received, out.delivered, out.queue.bytes());
        let (link, is_ended, unacknowledged_since) =
            (out.link.clone(), out.ended, out.queue.oldest());
        drop(out);
        let presence_at = self.0.presence.lock().last.as_ref().map(|last| last.at.into());
        let hibernating_since =
            if link.is_none() { self.0.registry.hibernating_since(self.0.id) } else { None };
        let flags = self.0.flags.load(Ordering::SeqCst);
        SessionInfo {
            jid: self.0.jid.clone(),
            id: self.0.id,
            since: self.0.since.into(),
            priority: priority_of(flags),
            available: flags & AVAILABLE != 0,
            presence_at,
            interested: flags & INTERESTED != 0,
            live: link.is_some() && !is_ended,
            hibernating_since,
            stanzas_received: received,
            stanzas_sent: sent,
            bytes_waiting: queued + link.as_ref().map_or(0, waiting),
            unacknowledged_since,
        }
    }

    /// What the session does, and whether it is interested: from one look at its flags.
    #[cfg(feature = "server")]
    pub(crate) fn state(&self) -> (SessionState, bool) {
        let flags = self.0.flags.load(Ordering::Relaxed);
        let state = if flags & super::ABSENT != 0 {
            SessionState::Hibernating
        } else if flags & AVAILABLE != 0 {
            SessionState::Available
        } else {
            SessionState::Bound
        };
        (state, flags & INTERESTED != 0)
    }

    /// Bytes that wait for the session, in its queue and in its connection.
    #[cfg(feature = "server")]
    pub(crate) fn bytes_waiting(&self) -> usize {
        let out = self.0.out.lock();
        let (queued, link) = (out.queue.bytes(), out.link.clone());
        drop(out);
        queued + link.as_ref().map_or(0, waiting)
    }
}

/// What waits in a connection: nothing in one that panics.
fn waiting<C: SharedConnection>(link: &C) -> usize {
    shielded(|| link.waiting()).unwrap_or(0)
}
