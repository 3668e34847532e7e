//! What the input of a stream waits for: a place, a store, the session, the client's own reading.

use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use jid::{BareJid, DomainPart};

use super::admission::{News, PlaceStanding};
use super::close::Closing;
#[cfg(feature = "cluster")]
use super::negotiate::Away;
use super::negotiate::Established;
use super::{Driver, State, Want};
use crate::connection::{Close, SharedConnection};
use crate::extension::IqResult;
use crate::oneshot::Receiver;
use crate::sasl::{Accepted, SaslError};
use crate::session::{Authed, Bound, Session};
use crate::stanza::{Condition, Stanza};
use crate::store::{Credentials, TokenVerdict, Verdict};
use crate::stream::{Limit, StreamCondition};

/// Work that the driver waits for before it goes on with its input (STREAM-23).
pub(super) enum Pending<C: SharedConnection> {
    /// The answer of a store to SASL; `None` if it failed.
    Sasl(Pin<Box<dyn Future<Output = Option<SaslAnswer>> + Send>>),
    /// Whose a client certificate is, on a stream to this domain.
    Certificate(Pin<Box<dyn Future<Output = (Vec<BareJid>, DomainPart)> + Send>>),
    /// A bind under way on the account's chain, and the id of its request.
    Bind(Box<(Receiver<BindOutcome<C>>, Box<str>)>),
    /// The answer to a request before authentication, and the request.
    Stranger(Box<(Receiver<IqResult>, Stanza)>),
    /// What came with an authentication is being done on the account's chain.
    Establish(Box<Receiver<Established<C>>>),
    /// A stanza that waits for a store or a handler.
    Stanza(Receiver<()>),
    /// The stream is elsewhere.
    #[cfg(feature = "cluster")]
    Away(Box<Away<C>>),
}

/// What a store answered to SASL.
pub(super) enum SaslAnswer {
    Credentials(Box<Option<Credentials>>),
    Verdict(Verdict),
    Token(TokenVerdict),
    /// The account that was made, if there was room.
    Guest(Option<BareJid>),
    Fast(Box<Result<Accepted, SaslError>>),
    /// Whether the password is right.
    Hashed(bool),
    /// Whether the keys are there now (UPGRADE-2).
    Added(bool),
}

/// The session bound, or given back with what its client is told.
pub(super) type BindOutcome<C> = Result<Session<Bound, C>, (Session<Authed, C>, Condition)>;

impl<C: SharedConnection> Driver<C> {
    /// Waits for what comes before the next event. Without a context nobody is woken.
    #[inline]
    pub(super) fn poll_blocked(&mut self, mut cx: Option<&mut Context<'_>>) -> Poll<()> {
        if self.want == Want::Close {
            return Poll::Ready(());
        }
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
        if self.spent.rates.paused_until().is_some() && !is_ending {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }

    /// Goes on with work that is done.
    pub(super) fn poll_pending(&mut self, mut cx: Option<&mut Context<'_>>) -> Poll<()> {
        let mut nobody = Context::from_waker(Waker::noop());
        let context = cx.as_deref_mut().unwrap_or(&mut nobody);
        match &mut self.pending {
            None => {}
            Some(Pending::Sasl(answer)) => {
                let answer = ready!(answer.as_mut().poll(context));
                self.pending = None;
                self.sasl_answer(answer);
            }
            Some(Pending::Certificate(found)) => {
                let (found, domain) = ready!(found.as_mut().poll(context));
                self.pending = None;
                self.client_identified(found, &domain);
            }
            Some(Pending::Bind(wait)) => {
                let (done, id) = &mut **wait;
                let outcome = ready!(Pin::new(done).poll(context));
                let id = std::mem::take(id);
                self.pending = None;
                self.bind_done(outcome, &id);
            }
            Some(Pending::Stranger(wait)) => {
                let (done, _) = &mut **wait;
                let result = ready!(Pin::new(done).poll(context));
                if let Some(Pending::Stranger(wait)) = self.pending.take() {
                    let failed = || Err(Condition::InternalServerError.into());
                    self.stranger_answered(&wait.1, result.unwrap_or_else(failed));
                }
            }
            Some(Pending::Establish(done)) => {
                let outcome = ready!(Pin::new(&mut **done).poll(context));
                self.pending = None;
                self.established(outcome);
            }
            #[cfg(feature = "cluster")]
            Some(Pending::Away(_)) => return self.poll_away(cx.as_deref()),
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

    /// LIMIT-25…27: waits for a place; or the transport has to give up the one it has, or the server
    /// closes its stream.
    #[inline]
    pub(super) fn poll_place(&mut self, cx: Option<&Context<'_>>) -> Poll<()> {
        let Some(place) = &self.place else { return Poll::Ready(()) };
        let News { standing, is_cut, dismissal, binds } = place.signal().poll(cx);
        // A stream that is just being registered is reached as a session, or refused.
        if let Some(dismissal) = dismissal.filter(|_| !binds)
            && let Some(negotiating) = &self.negotiating
        {
            let error = dismissal.choose(negotiating.secure);
            match self.want {
                // TLS-2: there is no stream that could be told.
                Want::StartTls => self.finish(Close::Abort),
                _ => self.fail(error),
            }
            return self.poll_place(cx);
        }
        if is_cut {
            self.yield_place();
            return Poll::Ready(());
        }
        let Some(negotiating) = &mut self.negotiating else { return Poll::Ready(()) };
        let before = std::mem::replace(&mut negotiating.standing, standing);
        match (before, standing) {
            (_, PlaceStanding::Waiting) => return Poll::Pending,
            // Its time begins now.
            (PlaceStanding::Waiting, PlaceStanding::Inside) => {
                self.set_deadline(self.core.limits.negotiation)
            }
            (PlaceStanding::Refused, _) => {}
            (_, PlaceStanding::Refused) => {
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
            #[cfg(feature = "cluster")]
            State::Binding if self.is_ended_away() => return self.finish(Close::Flush),
            State::Bound(_) => return,
            State::Unauthed(_) => Limit::Unauthenticated,
            State::Authed(_) | State::Binding => Limit::Unbound,
        };
        self.close_unbound(limit, StreamCondition::ResourceConstraint);
    }

    pub(super) fn waits_for_place(&self) -> bool {
        self.negotiating.as_ref().is_some_and(|n| n.standing == PlaceStanding::Waiting)
    }

    /// Whether there was no room for the transport: it is told so if it sends a header, and nothing else is
    /// done.
    pub(super) fn is_refused(&self) -> bool {
        self.place.as_ref().is_some_and(|place| place.standing() == PlaceStanding::Refused)
    }
}
