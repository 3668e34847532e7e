//! First-level elements: all before a resource is bound, and those that are no stanzas.

use std::borrow::Cow;
use std::sync::Arc;

use super::super::blocked::Pending;
use super::{Driver, State, Want};
use crate::connection::SharedConnection;
use crate::extension::{Extension, Flow, Negotiated};
use crate::sasl::{Negotiation, wire};
use crate::server::Core;
use crate::server::deliver::handler::BIND_NS;
use crate::session::{Authed, HostCode, Reason, Session};
use crate::shield::shielded_or;
use crate::stanza::canonical::Opening;
use crate::stanza::{Condition, ErrorType, Frame, Framing, Kind, Received, Stanza, StanzaError};
use crate::stream::{Event, Nonza, STREAM_NAMESPACE, StreamCondition};

const TLS_NS: &str = "urn:ietf:params:xml:ns:xmpp-tls";

impl<C: SharedConnection> Driver<C> {
    /// Handles one event of a stream without a session. Behind SASL they count (LIMIT-20).
    /// `is_followed`: more of the client has come already.
    pub(in super::super) fn unbound_event(&mut self, event: Event<'_>, is_followed: bool) {
        if let Some(condition) = self.out_of_place(&event, is_followed) {
            return self.fail(condition.into());
        }
        let is_counted = matches!(self.state, State::Authed(_));
        match event {
            Event::Refused(refused) => {
                if let Some(limit) = refused.limit().filter(|_| is_counted) {
                    self.limit(limit);
                }
                self.unbound_stanza(refused.stanza(), Some(refused.error()));
            }
            Event::Stanza(stanza) => self.unbound_stanza(&stanza, None),
            Event::Nonza(nonza) => self.nonza(&nonza),
            Event::Header(_) | Event::End => {}
        }
        if is_counted && matches!(self.state, State::Authed(_)) {
            self.count_stanza(false, self.core.environment.now());
        }
        self.early_data_ends();
    }

    /// SASL2-5: what the stream is closed with where this must not come while an exchange of SASL2 is under way. What is
    /// an element of it has to be answered before anything else comes.
    fn out_of_place(&self, event: &Event<'_>, is_followed: bool) -> Option<StreamCondition> {
        const VIOLATION: StreamCondition = StreamCondition::PolicyViolation;
        match event {
            Event::Nonza(nonza) => {
                let (name, namespace) = (nonza.name(), nonza.namespace());
                let is_first = name == "authenticate" && namespace == wire::NS_2;
                let is_new = is_first && matches!(self.state, State::Unauthed(_));
                let (is_exclusive, is_answered) = (self.is_exclusive(), name != "abort");
                let refused = self.refused_in_exchange(name, &namespace).filter(|_| is_exclusive);
                let is_too_early = is_followed && is_answered && (is_exclusive || is_new);
                match refused {
                    None if is_too_early => Some(VIOLATION),
                    refused => refused,
                }
            }
            Event::Stanza(_) | Event::Refused(_) => self.is_exclusive().then_some(VIOLATION),
            Event::Header(_) | Event::End => None,
        }
    }

    /// What an element of this name closes the stream with while an exchange of SASL2 is under way.
    fn refused_in_exchange(&self, name: &str, namespace: &str) -> Option<StreamCondition> {
        let sasl = self.negotiating.as_ref().and_then(|negotiating| negotiating.sasl.as_ref());
        let is_continued = sasl.is_some_and(Negotiation::is_continued);
        match name {
            _ if namespace != wire::NS_2 => Some(StreamCondition::PolicyViolation),
            "abort" => None,
            "next" | "task-data" if is_continued => None,
            "response" if !is_continued => None,
            // SASL2-9
            "authenticate" if is_continued => Some(StreamCondition::NotAuthorized),
            _ => Some(StreamCondition::PolicyViolation),
        }
    }

    /// Whether an exchange of SASL2 is under way.
    pub(in super::super) fn is_exclusive(&self) -> bool {
        let sasl = self.negotiating.as_ref().and_then(|negotiating| negotiating.sasl.as_ref());
        sasl.is_some_and(Negotiation::is_exclusive)
            || matches!(self.pending, Some(Pending::Establish(_)))
    }

    /// Closes the stream where the start tag of an element alone decides that: the rest need not be
    /// waited for.
    pub(in super::super) fn refuse_opening(&mut self) -> bool {
        let condition = match (&self.state, self.parser.opening()) {
            // STREAM-18
            (State::Unauthed(_), Some(Opening::Stanza(_))) if self.is_exclusive() => {
                Some(StreamCondition::PolicyViolation)
            }
            (State::Unauthed(_), Some(Opening::Stanza(kind))) => {
                let answers = self.may_answer_stranger(kind);
                (!answers).then_some(StreamCondition::NotAuthorized)
            }
            (_, Some(Opening::Other(name, namespace))) => self.refusal(name, namespace),
            (_, Some(Opening::Stanza(_)) | None) => None,
        };
        let Some(condition) = condition else { return false };
        self.fail(condition.into());
        true
    }

    /// What a first-level element of this name closes the stream with, whatever it holds.
    fn refusal(&self, name: &str, namespace: &str) -> Option<StreamCondition> {
        let takes = |extension: &dyn Extension<C>| extension.takes(name, namespace);
        // One that panics may take it.
        let takes = |extension| self.shielded(|| takes(extension)).unwrap_or(true);
        match (&self.state, namespace) {
            (State::Closing(_) | State::Over, _) => None,
            (_, STREAM_NAMESPACE) if name == "error" => None,
            (State::Unauthed(_), _) if self.is_exclusive() => {
                self.refused_in_exchange(name, namespace)
            }
            (State::Unauthed(_), TLS_NS) if name == "starttls" && self.may_start_tls() => None,
            (State::Unauthed(session), wire::NS) if session.is_open() => None,
            (State::Unauthed(_), wire::NS_2) if self.has_sasl_2() => None,
            // SASL-10, SASL2-9
            (_, wire::NS | wire::NS_2) => Some(StreamCondition::NotAuthorized),
            _ if self.core.extensions.iter().any(|extension| takes(&**extension)) => None,
            // STREAM-16
            _ => Some(StreamCondition::UnsupportedStanzaType),
        }
    }

    /// A first-level element that is no stanza.
    pub(in super::super) fn nonza(&mut self, nonza: &Nonza) {
        let namespace = nonza.namespace();
        match (&self.state, &*namespace) {
            (_, STREAM_NAMESPACE) if nonza.name() == "error" => {
                // SERR-2
                self.close_after_client(Reason::StreamError);
            }
            (State::Unauthed(_), TLS_NS) if nonza.name() == "starttls" && self.may_start_tls() => {
                self.starttls(nonza)
            }
            (State::Unauthed(session), wire::NS) if session.is_open() => self.sasl_request(nonza),
            (State::Unauthed(_), wire::NS_2) if self.has_sasl_2() => self.sasl_request_2(nonza),
            // SASL-10, SASL2-9
            (_, wire::NS | wire::NS_2) => self.fail(StreamCondition::NotAuthorized.into()),
            _ => self.offer_to_extensions(nonza),
        }
    }

    /// What only an extension may know; else STREAM-16.
    fn offer_to_extensions(&mut self, nonza: &Nonza) {
        let core = Arc::clone(&self.core);
        let mut answer = Vec::new();
        let flow = if matches!(self.state, State::Authed(_))
            && let State::Authed(session) = std::mem::replace(&mut self.state, State::Binding)
        {
            let account = session.account().clone();
            let offer = || core.authenticated_nonza(session, nonza);
            let told = |message| {
                core.faults.panicked(HostCode::Extension, &self.peer, Some(&account), message);
            };
            shielded_or(offer, told).map(|negotiated| self.negotiated(negotiated))
        } else {
            let offer = |extension: &dyn Extension<C>| match &mut self.state {
                State::Bound(session) => extension.nonza(session, nonza),
                _ => extension.unauthenticated(nonza, &mut answer),
            };
            let account = self.drain_hook.session.get().map(|(session, _)| session.account());
            let told = |message| {
                let account = account.map(|account| &account.bare);
                core.faults.panicked(HostCode::Extension, &self.peer, account, message);
            };
            shielded_or(|| core.offer(offer), told)
        };
        match flow {
            Some(Flow::Next) => self.fail(StreamCondition::UnsupportedStanzaType.into()),
            Some(Flow::Done) if answer.is_empty() => {}
            Some(Flow::Done) => self.send(Frame::element(&answer)),
            Some(Flow::Close(error)) => self.fail(error),
            None => self.fail(StreamCondition::InternalServerError.into()),
        }
    }

    /// SASL2-1
    fn has_sasl_2(&self) -> bool {
        let is_secure = self.negotiating.as_ref().is_some_and(|negotiating| negotiating.secure);
        is_secure && matches!(&self.state, State::Unauthed(session) if session.is_open())
    }

    /// WS-8
    fn may_start_tls(&self) -> bool {
        self.connection.framing() == Framing::Stream
    }

    fn negotiated(&mut self, negotiated: Negotiated<C>) -> Flow {
        match negotiated {
            Negotiated::Next(session) => {
                self.state = State::Authed(session);
                return Flow::Next;
            }
            Negotiated::Done(session) => self.state = State::Authed(session),
            Negotiated::Bound(session) => self.begin_session(session),
            Negotiated::Close(error) => return Flow::Close(error),
        }
        Flow::Done
    }

    /// TLS-1, TLS-2
    fn starttls(&mut self, nonza: &Nonza) {
        let Some(negotiating) = &mut self.negotiating else { return };
        if !negotiating.starttls || nonza.children().next().is_some() {
            let failure = b"<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
            return self.close_behind(&[Frame::element(failure)], Reason::Closed);
        }
        self.parser.restart(false);
        negotiating.since.tls = self.core.environment.now();
        self.send(Frame::element(b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"));
        if self.want == Want::Input {
            self.want = Want::StartTls;
        }
    }

    /// A stanza (STREAM-18, BIND-11, BIND-12), and what it was refused with.
    fn unbound_stanza(&mut self, received: &Received<'_>, refused: Option<StanzaError>) {
        let State::Authed(session) = &self.state else {
            if refused.is_some() || !self.answer_stranger(received) {
                self.fail(StreamCondition::NotAuthorized.into());
            }
            return;
        };
        let account = session.account().clone();
        let stanza = received.stamp(Some(account.as_str()), self.lang.as_deref());
        let is_for_us = received.to().is_none_or(|to| {
            let to = self.core.address(to);
            to.is_ok_and(|to| *to.bare == account || self.core.serves(to.bare.as_str()))
        });
        if !is_for_us {
            return self.fail(StreamCondition::NotAuthorized.into());
        }
        let bind = stanza.child().filter(|child| child.is("bind", BIND_NS));
        let unexpected =
            || StanzaError::new(Condition::UnexpectedRequest).with_type(ErrorType::Wait);
        if let (Kind::Iq, Some(bind)) = (stanza.kind(), bind) {
            return self.bind(&stanza, &bind);
        }
        self.refuse(&stanza, &refused.unwrap_or_else(unexpected));
    }

    /// Answers with an error, where one is due (STZ-7).
    pub(super) fn refuse(&mut self, stanza: &Stanza, error: &StanzaError) {
        self.core.metrics.error(error.condition());
        if let Some(answer) = stanza.error_answer(error) {
            // Before bind the client has no full JID to be addressed by.
            let from = answer.from().map(Cow::into_owned);
            let answer = answer.readdressed(from.as_deref(), None);
            self.send(Frame::stanza(&answer).at_once());
        }
    }
}

impl<C: SharedConnection> Core<C> {
    /// What the first extension that takes something makes of it.
    fn offer(&self, offer: impl FnMut(&dyn Extension<C>) -> Flow) -> Flow {
        let mut offered = self.extensions.iter().map(|one| &**one).map(offer);
        offered.find(|flow| *flow != Flow::Next).unwrap_or(Flow::Next)
    }

    fn authenticated_nonza(&self, mut session: Session<Authed, C>, nonza: &Nonza) -> Negotiated<C> {
        for extension in self.extensions.iter() {
            match extension.authenticated(session, &self.registry, nonza) {
                Negotiated::Next(back) => session = back,
                dealt_with => return dealt_with,
            }
        }
        Negotiated::Next(session)
    }
}
