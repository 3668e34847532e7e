//! The right to feed a bound session input, and the ticket for each stanza.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::handle::Shared;
use super::outbound::{Epoch, Gate};
use super::registry::{Reason, Run};
use crate::connection::SharedConnection;
use crate::shield::wake;

/// The owner of a session's input, of one transport: its drop is the loss of that transport.
///
/// The typed session holds it so that it needs no `Drop` of its own.
pub(crate) struct Owner<C: SharedConnection> {
    pub(super) shared: Arc<Shared<C>>,
    pub(super) epoch: Epoch,
}

impl<C: SharedConnection> Drop for Owner<C> {
    fn drop(&mut self) {
        let shared = &self.shared;
        shared.registry.lose(shared, self.epoch, Reason::TransportLost, None, Run::Here);
    }
}

/// The session has ended or has another transport: what its owner still reads must have no effect, and the
/// owner drops the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the session has ended or belongs to another transport")]
#[non_exhaustive]
pub struct Detached;

/// One received stanza in work.
///
/// It was counted before it has any effect ([SM-5](crate::rules#sm-5)), so that the `h` of stream management and what
/// happened agree. While the ticket is out, a resumed session takes no input ([SM-22](crate::rules#sm-22)); it may be
/// moved into the work that outlives the connection.
#[must_use = "the ticket is held as long as the stanza is in work"]
pub struct InputTicket<C: SharedConnection> {
    shared: Arc<Shared<C>>,
}

impl<C: SharedConnection> Drop for InputTicket<C> {
    fn drop(&mut self) {
        let waker = self.shared.out.lock().open(Gate::Ticket);
        wake(waker);
    }
}

impl<C: SharedConnection> fmt::Debug for InputTicket<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InputTicket").finish_non_exhaustive()
    }
}

impl<C: SharedConnection> Owner<C> {
    // Wakers are host code (a runtime's): they are cloned, dropped and woken without the lock.

    /// Counts one stanza and hands out its ticket; `Pending` while the session is gated
    /// (BIND-14) or an earlier stanza's ticket is out (SM-22).
    pub(super) fn poll_input(
        &self,
        cx: Option<&mut Context<'_>>,
    ) -> Poll<Result<InputTicket<C>, Detached>> {
        let waker = cx.map(|cx| Box::new(cx.waker().clone()));
        let mut out = self.shared.out.lock();
        if out.ended || out.epoch != self.epoch {
            return Poll::Ready(Err(Detached));
        }
        if out.gates.is_closed_for_input() {
            out.gates.wait();
            let old = waker.and_then(|waker| out.waker.replace(waker));
            drop(out);
            drop(old);
            return Poll::Pending;
        }
        out.received = out.received.wrapping_add(1);
        out.gates.close(Gate::Ticket);
        drop(out);
        Poll::Ready(Ok(InputTicket { shared: Arc::clone(&self.shared) }))
    }

    /// Whether input may be fed now, without taking a ticket.
    #[inline]
    pub(super) fn poll_ready(&self, cx: Option<&mut Context<'_>>) -> Poll<Result<(), Detached>> {
        let mut fresh = None;
        loop {
            let mut out = self.shared.out.lock();
            let waits = out.has_last_words() || out.gates.is_closed_for_input();
            if out.epoch != self.epoch || (out.ended && !out.has_last_words()) {
                return Poll::Ready(Err(Detached));
            }
            if let Some(cx) = &cx {
                // Kept in any case: an owner that waits for input has to learn of the end as well.
                let is_known = out.waker.as_ref().is_some_and(|known| known.will_wake(cx.waker()));
                if !is_known && fresh.is_none() {
                    drop(out);
                    fresh = Some(Box::new(cx.waker().clone()));
                    continue;
                }
                if waits {
                    out.gates.wait();
                }
                if !is_known {
                    std::mem::swap(&mut out.waker, &mut fresh);
                }
            }
            drop(out);
            return if waits { Poll::Pending } else { Poll::Ready(Ok(())) };
        }
    }

    pub(super) fn is_current(&self) -> bool {
        let out = self.shared.out.lock();
        !out.ended && out.epoch == self.epoch
    }
}
