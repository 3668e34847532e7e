//! One transport's place in the ledger.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::books::{Books, Signal};
use super::{Ledger, Source, Standing};

/// A transport's place in the server's count of those that serve no session (LIMIT-25…27). It is
/// given up when the last clone is dropped: a host that lets go of its driver before its socket keeps
/// one until the socket is closed.
#[derive(Clone)]
#[must_use = "dropping the place says that the transport is gone"]
pub struct Place(Arc<Guard>);

/// Takes the transport off the books when it is dropped.
struct Guard {
    ledger: Arc<Ledger>,
    id: u64,
    signal: Arc<Signal>,
}

impl Ledger {
    /// A transport was accepted.
    pub(in crate::server::driver) fn enter(self: &Arc<Self>, source: Source) -> Place {
        let (id, signal) = self.change(|books, _| books.enter(source));
        Place(Arc::new(Guard { ledger: Arc::clone(self), id, signal }))
    }

    /// A transport that served a session is being closed.
    pub(in crate::server::driver) fn closing(self: &Arc<Self>, source: Source) -> Place {
        let (id, signal) = self.change(|books, _| books.enter_closing(source));
        Place(Arc::new(Guard { ledger: Arc::clone(self), id, signal }))
    }
}

impl Place {
    /// Ready when the transport is to be closed without any further wait: others need its place, or
    /// too many are being closed.
    pub fn poll_cut(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self.poll(Some(cx)) {
            (_, true) => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }

    /// Whether the transport is to be closed without any further wait.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.0.signal.get().1
    }

    /// Whether there was no room for it: it is told so if it sends a header, and nothing else is done.
    pub(in crate::server::driver) fn is_refused(&self) -> bool {
        self.standing() == Standing::Refused
    }

    pub(in crate::server::driver) fn standing(&self) -> Standing {
        self.0.signal.get().0
    }

    /// Where it stands, and whether it is cut; the waker is kept.
    pub(in crate::server::driver) fn poll(&self, cx: Option<&Context<'_>>) -> (Standing, bool) {
        self.0.signal.poll(cx)
    }

    /// It has something to say.
    pub(in crate::server::driver) fn heard(&self) -> Standing {
        if self.standing() == Standing::Silent {
            self.change(Books::heard);
        }
        self.standing()
    }

    /// It has come a step further: it is evicted later. A login that we check takes all the time
    /// that there is.
    pub(in crate::server::driver) fn progressed(&self, is_login: bool) {
        let now = self.0.ledger.environment.now();
        self.0.ledger.books.lock().progressed(self.0.id, is_login, now);
    }

    pub(in crate::server::driver) fn authenticated(&self, account: u64) {
        self.change(|books, id, _| books.authenticated(id, account));
    }

    /// The transport is being closed, and is counted as such from now on.
    pub(in crate::server::driver) fn close(&self) {
        self.change(|books, id, _| books.close(id));
    }

    /// It has waited for too long.
    pub(in crate::server::driver) fn refuse(&self) {
        self.change(|books, id, _| books.refuse(id));
    }

    /// When [`evict_overdue`](Self::evict_overdue) has somebody to evict, while this one waits.
    pub(in crate::server::driver) fn next_eviction(&self) -> Option<Duration> {
        if self.standing() != Standing::Waiting {
            return None;
        }
        self.0.ledger.books.lock().next_eviction(self.0.id)
    }

    /// Evicts those who have had their time and stand in the way of this one.
    pub(in crate::server::driver) fn evict_overdue(&self) {
        self.change(Books::evict_overdue);
    }

    fn change(&self, change: impl FnOnce(&mut Books, u64, Duration)) {
        self.0.ledger.change(|books, now| change(books, self.0.id, now));
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("standing", &self.standing()).finish_non_exhaustive()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let gone = self.ledger.change(|books, _| books.leave(self.id));
        // With its waker, hence without the lock.
        drop(gone);
    }
}
