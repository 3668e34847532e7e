//! What the input of a stream waits for: a place, a store, the session, the client's own reading.

use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use super::admission::Standing;
use super::close::Closing;
use super::pending::Pending;
use super::{Driver, Place, State, Want};
use crate::connection::{Close, SharedConnection};
use crate::stream::{Limit, StreamCondition};

impl<C: SharedConnection> Driver<C> {
    /// Waits for what comes before the next event. Without a context nobody is woken.
    #[inline]
    pub(super) fn poll_blocked(&mut self, mut cx: Option<&mut Context<'_>>) -> Poll<()> {
        if self.want == Want::Close {
            return Poll::Ready(());
        }
        self.poll_dismissed(cx.as_deref());
        ready!(self.poll_place(cx.as_deref()));
        if self.not_before().is_some() {
            return Poll::Pending;
        }
        while self.pending.is_some() {
            ready!(self.poll_pending(cx.as_deref_mut()));
        }
        ready!(self.poll_session(cx.as_deref_mut()));
        if matches!(self.state, State::Bound(_)) {
            ready!(self.poll_congested(cx));
        }
        // A stream that ends does so within LIMIT-23, and nothing that it says is worked on.
        let is_ending = matches!(self.state, State::Closing(_) | State::Over);
        if self.rates.paused_until().is_some() && !is_ending {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }

    /// Goes on with work that is done.
    fn poll_pending(&mut self, mut cx: Option<&mut Context<'_>>) -> Poll<()> {
        let mut nobody = Context::from_waker(Waker::noop());
        let context = cx.as_deref_mut().unwrap_or(&mut nobody);
        match &mut self.pending {
            None => {}
            Some(Pending::Sasl(answer)) => {
                let answer = ready!(answer.as_mut().poll(context));
                self.pending = None;
                self.sasl_answer(answer);
            }
            Some(Pending::Bind(wait)) => {
                let outcome = ready!(Pin::new(&mut wait.done).poll(context));
                let id = std::mem::take(&mut wait.id);
                self.pending = None;
                self.bind_done(outcome, &id);
            }
            Some(Pending::Stanza(done)) => {
                if Pin::new(done).poll(context).is_ready() {
                    self.resume_input(self.core.environment.now());
                } else {
                    // The stanza goes on by itself if the session ends meanwhile.
                    ready!(self.poll_session(cx));
                    if matches!(self.state, State::Bound(_)) {
                        return Poll::Pending;
                    }
                }
                self.pending = None;
            }
        }
        Poll::Ready(())
    }

    /// Waits until the session takes input, or has said its last words.
    #[inline]
    fn poll_session(&mut self, cx: Option<&mut Context<'_>>) -> Poll<()> {
        if let State::Bound(session) | State::Closing(Closing { session: Some(session), .. }) =
            &mut self.state
            && ready!(session.poll_input_ready(cx)).is_err()
        {
            self.detached();
        }
        Poll::Ready(())
    }

    /// The server may close a stream that has no session yet. One that is just being registered is
    /// reached as a session, or refused.
    #[inline]
    fn poll_dismissed(&mut self, cx: Option<&Context<'_>>) {
        let negotiating = self.negotiating.as_ref();
        let Some(error) = negotiating.and_then(|negotiating| negotiating.poll_dismissed(cx)) else {
            return;
        };
        match self.want {
            // TLS-2: there is no stream that could be told.
            Want::StartTls => self.finish(Close::Abort),
            _ => self.fail(error),
        }
    }

    /// LIMIT-25…27: waits for a place; or the transport has to give up the one it has.
    #[inline]
    fn poll_place(&mut self, cx: Option<&Context<'_>>) -> Poll<()> {
        let Some(place) = &self.place else { return Poll::Ready(()) };
        let (standing, is_cut) = place.poll(cx);
        if is_cut {
            self.yield_place();
            return Poll::Ready(());
        }
        let Some(negotiating) = &mut self.negotiating else { return Poll::Ready(()) };
        let before = std::mem::replace(&mut negotiating.standing, standing);
        match (before, standing) {
            (_, Standing::Waiting) => return Poll::Pending,
            // Its time begins now.
            (Standing::Waiting, Standing::Inside) => {
                self.set_deadline(self.core.limits.negotiation)
            }
            (Standing::Refused, _) => {}
            (_, Standing::Refused) => {
                self.limit(Limit::Unauthenticated);
                match self.want {
                    // No header can come before the handshake, and there is none.
                    Want::StartTls => self.finish(Close::Abort),
                    // A header that has come, or comes soon, is answered with the refusal.
                    _ => self.set_deadline(self.core.limits.close),
                }
            }
            _ => {}
        }
        Poll::Ready(())
    }

    fn yield_place(&mut self) {
        let limit = match &self.state {
            State::Closing(_) | State::Over => return self.finish(Close::Flush),
            State::Bound(_) => return,
            State::Unauthed(_) => Limit::Unauthenticated,
            State::Authed(_) | State::Binding => Limit::Unbound,
        };
        self.limit(limit);
        self.close_unbound(StreamCondition::ResourceConstraint);
    }

    pub(super) fn waits_for_place(&self) -> bool {
        self.negotiating.as_ref().is_some_and(|n| n.standing == Standing::Waiting)
    }

    /// Whether there was no room for the transport.
    pub(super) fn is_refused(&self) -> bool {
        self.place.as_ref().is_some_and(Place::is_refused)
    }
}
