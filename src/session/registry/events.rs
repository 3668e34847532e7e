//! What happened to sessions, told to the host in order.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use super::end::Reason;
use crate::connection::SharedConnection;
use crate::session::handle::{SessionHandle, SessionId, Shared};
use crate::shield::shielded_or;
use crate::sync::Padded;
use crate::sync::common::Mutex;

/// Something that happened to a session.
///
/// Events are queued under the lock of the decision that made them, and delivered by one thread at
/// a time, without a lock: the listener sees a total order that agrees with what happened.
#[derive(Clone)]
pub struct Event<C: SharedConnection> {
    session: SessionHandle<C>,
    kind: EventKind,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind {
    /// The session has its resource and is connected.
    Bound,
    /// It has sent initial presence ([RFC 6121 §4.2](https://www.rfc-editor.org/rfc/rfc6121#section-4.2)).
    BecameAvailable,
    /// It has broadcast another presence while it was available.
    PresenceChanged,
    /// It has broadcast unavailable presence and is connected only. Not reported at the end.
    BecameUnavailable,
    /// It has lost its transport and waits to be resumed ([SM-19](crate::rules#sm-19)).
    Absent,
    /// It has got a new transport ([DESTROY-9](crate::rules#destroy-9)).
    Resumed,
    /// It is over and forgotten: the last event of a session, exactly one each ([DESTROY-1](crate::rules#destroy-1)).
    #[non_exhaustive]
    Ended {
        /// Why.
        reason: Reason,
        /// The session that took its resource.
        successor: Option<SessionId>,
        /// The last `h` that stream management could have told the peer, where it was on.
        handled: Option<u32>,
        /// Stanzas that it left: unacknowledged, or accepted and never written.
        left: usize,
        /// Whether it was available, so that others were told that it no longer is.
        was_available: bool,
    },
}

impl<C: SharedConnection> Event<C> {
    /// The session. After [`EventKind::Ended`] its handle is stale, but still tells the JID.
    #[must_use]
    pub const fn session(&self) -> &SessionHandle<C> {
        &self.session
    }

    /// What happened to it.
    #[must_use]
    pub const fn kind(&self) -> EventKind {
        self.kind
    }
}

impl<C: SharedConnection> fmt::Debug for Event<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("session", &self.session.id())
            .field("kind", &self.kind)
            .finish()
    }
}

pub(super) type Listener<C> = Box<dyn Fn(&Event<C>) + Send + Sync>;
/// Called with each session that has ended.
pub(super) type OnEnd<C> = Box<dyn Fn(&SessionHandle<C>, Reason) + Send + Sync>;

/// The queue between decisions and the listener.
pub(super) struct Events<C: SharedConnection> {
    queue: Padded<Mutex<Undelivered<C>>>,
    listener: Option<Listener<C>>,
    /// Hears of ends before the listener does.
    on_end: Option<OnEnd<C>>,
}

struct Undelivered<C: SharedConnection> {
    waiting: VecDeque<Event<C>>,
    delivering: bool,
}

impl<C: SharedConnection> Events<C> {
    pub(super) fn new(listener: Option<Listener<C>>, on_end: Option<OnEnd<C>>) -> Self {
        Self {
            queue: Padded::new(Mutex::new(Undelivered {
                waiting: VecDeque::new(),
                delivering: false,
            })),
            listener,
            on_end,
        }
    }

    /// Queues an event; called under the lock of the decision (a leaf lock inside it).
    pub(super) fn push(&self, session: &Arc<Shared<C>>, kind: EventKind) {
        let is_end = matches!(kind, EventKind::Ended { .. });
        if self.listener.is_some() || (is_end && self.on_end.is_some()) {
            let session = SessionHandle(Arc::clone(session));
            self.queue.lock().waiting.push_back(Event { session, kind });
        }
    }

    /// Whether the host hears of anything.
    pub(super) const fn has_listener(&self) -> bool {
        self.listener.is_some()
    }

    /// Delivers what waits, unless another thread does so already.
    pub(super) fn deliver(&self, panicked: impl Fn(&SessionHandle<C>, Option<String>)) {
        let mut queue = self.queue.lock();
        if queue.delivering {
            return;
        }
        queue.delivering = true;
        while let Some(event) = queue.waiting.pop_front() {
            drop(queue);
            let panicked = |message| panicked(&event.session, message);
            if let (Some(on_end), EventKind::Ended { reason, .. }) = (&self.on_end, event.kind) {
                shielded_or(|| on_end(&event.session, reason), panicked);
            }
            if let Some(listener) = &self.listener {
                shielded_or(|| listener(&event), panicked);
            }
            drop(event);
            queue = self.queue.lock();
        }
        queue.delivering = false;
    }
}
