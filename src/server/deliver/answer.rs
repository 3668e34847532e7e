//! Answers: results and errors, to the session that asked or to wherever the asker is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::destination::Destination;
use super::give::{Message, Origin};
use crate::connection::SharedConnection;
use crate::extension::{IqResult, Outcome};
use crate::server::{Core, Task};
use crate::session::{SessionHandle, Validity};
use crate::stanza::{Condition, ErrorType, Stanza, StanzaError};
use crate::stream::Limit;

/// The server, or a queue, is at its limit for now: the sender may try again (LIMIT-10, IQ-5).
pub(in crate::server) fn try_again() -> StanzaError {
    StanzaError::new(Condition::ResourceConstraint).with_type(ErrorType::Wait)
}

/// The same for a queue that takes no more.
pub(super) fn is_full() -> StanzaError {
    try_again().with_cause(Limit::Waiting)
}

/// The right to answer a request: the handler and its deadline share it, and the first one takes it (IQ-5).
#[derive(Clone, Default)]
pub(super) struct AnswerOnce(Arc<AtomicBool>);

impl AnswerOnce {
    /// Takes the right; `false` where somebody has it already.
    pub(super) fn take(&self) -> bool {
        !self.0.swap(true, Ordering::Relaxed)
    }
}

impl<C: SharedConnection> Core<C> {
    /// Answers a stanza with an error, where one is due (STZ-6, STZ-7).
    pub(crate) fn bounce(
        &self,
        origin: Origin<'_, C>,
        stanza: &Stanza,
        error: impl Into<StanzaError>,
    ) {
        let error = error.into();
        self.metrics.error(error.condition());
        self.caused(&error, origin.map(|session| &session.account().bare));
        if let Some(answer) = stanza.error_answer(&error) {
            self.answer(origin, answer);
        }
    }

    /// As [`bounce`](Self::bounce), where that is all there is to do.
    pub(crate) fn refuse(
        &self,
        origin: Origin<'_, C>,
        stanza: &Stanza,
        error: impl Into<StanzaError>,
    ) -> Option<Task> {
        self.bounce(origin, stanza, error);
        None
    }

    /// Answers an iq request with what a handler made of it.
    pub(super) fn answer_iq(&self, origin: Origin<'_, C>, request: &Stanza, result: IqResult) {
        match result.map(|payload| request.result_with(payload.as_ref())) {
            Err(error) => self.bounce(origin, request, error),
            Ok(Some(answer)) => self.answer(origin, answer),
            Ok(None) => {}
        }
    }

    /// Answers an iq request with a result.
    pub(in crate::server) fn result(
        &self,
        origin: Origin<'_, C>,
        request: &Stanza,
        payload: &[u8],
    ) {
        if let Some(answer) = request.result_answer(payload) {
            self.answer(origin, answer);
        }
    }

    /// Sends an answer to the session that asked, or to wherever its `to` leads.
    pub(super) fn answer(&self, origin: Origin<'_, C>, answer: Stanza) {
        let Some(session) = origin else { return self.route_answer(answer) };
        // STZ-3: what a stanza without `to` asked of the account is answered by the account.
        let from = answer.from().map_or_else(|| session.account().bare.to_string(), Into::into);
        let to = session.jid().as_str();
        let is_addressed = answer.raw_from().is_some() && answer.raw_to() == Some(to);
        let answer = if is_addressed { answer } else { answer.readdressed(Some(&from), Some(to)) };
        self.give_answer(session, &answer);
    }

    /// One of our domains has asked.
    pub(super) fn domain_answered(&self, answer: &Stanza) {
        let _is_known = self.requests.take_answer("", answer);
        #[cfg(feature = "cluster")]
        if !_is_known {
            self.answered_elsewhere(answer);
        }
    }

    /// An answer that another node has got.
    #[cfg(feature = "cluster")]
    pub(in crate::server) fn take_answer(&self, answer: &Stanza) {
        let _none_waits = self.requests.take_answer(self.asker(answer), answer);
    }

    /// Routes an answer whose recipient is not at hand.
    pub(in crate::server) fn route_answer(&self, answer: Stanza) {
        let to = answer.to();
        let Some(Ok(to)) = to.as_deref().map(|to| self.address(to)) else { return };
        match self.destination(&to.bare) {
            Destination::Elsewhere => {
                #[cfg(feature = "cluster")]
                if self.is_afar(&to).is_some() {
                    return self.reply(&to.bare, answer);
                }
                self.route_elsewhere(None, answer, Validity::FOR_GOOD);
            }
            Destination::Here if !to.is_account() => {
                self.domain_answered(&answer);
            }
            Destination::Here => {
                let found = to.resource.as_deref().and_then(|r| self.registry.find(to.key(), r));
                if let Some(session) = found {
                    self.give_answer(&session, &answer);
                }
            }
        }
    }

    /// An answer is not subject to admission (BLOCK-8).
    fn give_answer(&self, session: &SessionHandle<C>, answer: &Stanza) {
        if self.give(session, answer).is_ok() {
            let (account, reached) = (&session.account().bare, std::slice::from_ref(session));
            let message = Message::of(answer);
            self.delivered(None, message, Some(account), reached, Outcome::Delivered, None);
        }
    }
}
