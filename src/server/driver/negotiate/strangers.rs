//! Requests of clients that have not authenticated, where an extension wants to answer such (REG-1).

use std::sync::Arc;

use jid::DomainRef;

use super::super::blocked::Pending;
use super::{Driver, State};
use crate::address;
use crate::connection::SharedConnection;
use crate::extension::{IqReply, IqResult, UnauthenticatedIq, Wants};
use crate::oneshot;
use crate::server::caught;
use crate::server::deliver::answer::try_again;
use crate::server::deliver::handler::HANDLER_TIMEOUT;
use crate::server::deliver::iq::is_request;
use crate::session::HostCode;
use crate::stanza::{Condition, ErrorType, Frame, Kind, Received, Stanza, StanzaError};
use crate::stream::{Limit, StreamError};

/// Requests that one stream may make before authentication (LIMIT-33).
const MOST: u8 = 20;

impl<C: SharedConnection> Driver<C> {
    /// Whether a stanza of this kind may be answered before authentication.
    pub(super) fn may_answer_stranger(&self, kind: Option<Kind>) -> bool {
        let State::Unauthed(session) = &self.state else { return false };
        let is_wanted = kind == Some(Kind::Iq) && self.core.wants.has_any(Wants::STRANGERS);
        let is_secure = || self.negotiating.as_ref().is_some_and(|negotiating| negotiating.secure);
        is_wanted && session.is_open() && is_secure()
    }

    /// A stanza of a client that has not authenticated. `false`: nobody has anything to do with it (STREAM-18).
    pub(super) fn answer_stranger(&mut self, received: &Received<'_>) -> bool {
        if !self.may_answer_stranger(Some(received.kind())) {
            return false;
        }
        let State::Unauthed(session) = &self.state else { return false };
        let Some(domain) = session.domain().map(ToOwned::to_owned) else { return false };
        let is_here =
            received.to().is_none_or(|to| address::domain(to).is_ok_and(|to| to == domain));
        let stanza = received.stamp(None, self.lang.as_deref());
        if !is_here || is_request(&stanza) != Some(true) {
            return false;
        }
        let requests = self.negotiating.as_mut().map(|negotiating| &mut negotiating.requests);
        let is_one_more = requests.is_none_or(|requests| {
            *requests = requests.saturating_add(1);
            *requests > MOST
        });
        if is_one_more {
            self.fail(StreamError::exceeded(Limit::Strangers));
            return true;
        }
        if self.is_early() {
            // SASL2-11
            let error = StanzaError::new(Condition::UnexpectedRequest).with_type(ErrorType::Wait);
            self.refuse(&stanza, &error);
            return true;
        }
        if stanza.type_().as_deref() == Some("set") && !self.core.allows_stranger(&self.peer) {
            let error = StanzaError::new(Condition::PolicyViolation).with_type(ErrorType::Wait);
            self.limit(Limit::Strangers);
            self.refuse(&stanza, &error);
            return true;
        }
        match self.ask_for_stranger(&stanza, &domain) {
            None => return false,
            Some(IqReply::Now(result)) => self.stranger_answered(&stanza, result),
            Some(IqReply::Later(answer)) => self.wait_for_stranger(stanza, answer),
            Some(IqReply::Job(answer)) => self.wait_for_stranger(stanza, async move {
                let done = answer.await;
                if let Some(then) = done.then {
                    then();
                }
                done.result
            }),
        }
        true
    }

    /// What the first extension that wants to answers.
    fn ask_for_stranger(&mut self, stanza: &Stanza, domain: &DomainRef) -> Option<IqReply> {
        let core = Arc::clone(&self.core);
        let source = self.peer.is_known().then(|| self.peer.to_string());
        let mut request = UnauthenticatedIq {
            stanza,
            query: stanza.child()?,
            domain,
            source: source.as_deref(),
            kept: &mut self.negotiating.as_mut()?.kept,
            server: &core.handle,
        };
        let mut asked = core.extensions.iter().filter(|one| one.wants().has_any(Wants::STRANGERS));
        let ask = || asked.find_map(|extension| extension.unauthenticated_iq(&mut request));
        let reply = core.faults.shielded(HostCode::Extension, &self.peer, None, ask);
        reply.unwrap_or_else(|| Some(IqReply::error(Condition::InternalServerError)))
    }

    /// The answer comes later; what it waits for goes on without the client.
    fn wait_for_stranger(
        &mut self,
        request: Stanza,
        answer: impl Future<Output = IqResult> + Send + 'static,
    ) {
        let (core, peer) = (Arc::clone(&self.core), self.peer.clone());
        let (sender, done) = oneshot::channel();
        // A login that we check takes all the time that there is (LIMIT-25), and so does this.
        self.progressed(true);
        self.core.jobs.spawn(async move {
            let told = |message| core.faults.panicked(HostCode::Extension, &peer, None, message);
            let answer = core.timers.within(HANDLER_TIMEOUT, caught(answer, told)).await;
            sender.send(match answer {
                Some(Some(result)) => result,
                Some(None) => Err(Condition::InternalServerError.into()),
                None => Err(try_again()),
            });
        });
        self.pending = Some(Pending::Stranger(Box::new((done, request))));
    }

    pub(in super::super) fn stranger_answered(&mut self, request: &Stanza, result: IqResult) {
        self.progressed(false);
        match result.map(|payload| request.result_with(payload.as_ref())) {
            Ok(Some(answer)) => {
                let from = answer.from().map(std::borrow::Cow::into_owned);
                let answer = answer.readdressed(from.as_deref(), None);
                self.send(Frame::stanza(&answer).at_once());
            }
            Ok(None) => {}
            Err(error) => {
                self.core.caused(&error, None);
                self.refuse(request, &error);
            }
        }
    }
}
