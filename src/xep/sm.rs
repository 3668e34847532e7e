use std::borrow::Cow;
use std::time::Duration;

use crate::connection::SharedConnection;
use crate::extension::{Extension, Flow, Liveness, LoggingIn, Negotiated, NewSession, Stage};
use crate::session::{
    AckCheck, AckPolicy, Acknowledged, Authed, Bound, Epoch, Item, ResumeError, ResumeRefusal,
    Resumed, Retention, Session, SessionHandle, SessionRegistry,
};
use crate::stanza::Frame;
use crate::stream::{Nonza, StreamCondition, StreamError};

const NAMESPACE: &str = "urn:xmpp:sm:3";
const STANZA_ERRORS: &str = "urn:ietf:params:xml:ns:xmpp-stanzas";
const REQUEST: &[u8] = b"<r xmlns='urn:xmpp:sm:3'/>";

/// Stream Management ([XEP-0198](https://xmpp.org/extensions/xep-0198.html)): stanzas are
/// acknowledged, and a client that has lost its transport can resume its session.
///
/// This is the wire of it, rules [SM-1](crate::rules#sm-1) to [SM-25](crate::rules#sm-25). Counters, queue and resumption are the
/// [session](crate::session)'s own; how much is kept and for how long are settings of the server
/// ([`Limits::retention`](crate::server::Limits::retention)).
///
/// ```
/// use std::time::Duration;
/// use xmpp_session::xep::StreamManagement;
///
/// // Sessions that wait five minutes for their clients.
/// let stream_management = StreamManagement::new().window(Duration::from_secs(300));
/// # let _ = stream_management;
/// ```
#[derive(Clone, Debug)]
#[must_use = "an extension does nothing until it is added to a server"]
pub struct StreamManagement {
    window: Duration,
    policy: AckPolicy,
}

impl StreamManagement {
    /// Stream management with the defaults of the rules: sessions wait for as long as the server's
    /// limits allow ([LIMIT-12](crate::rules#limit-12)).
    pub fn new() -> Self {
        Self { window: Duration::MAX, policy: AckPolicy::default() }
    }

    /// How long a session without a transport waits for its client ([SM-25](crate::rules#sm-25)), in whole seconds; zero
    /// = sessions cannot be resumed. It delays what others see of the loss.
    pub const fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// When clients are asked for acknowledgements ([SM-24](crate::rules#sm-24)).
    pub const fn ack_policy(mut self, policy: AckPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// How long a session is to wait for its client.
    fn asked_window(&self, element: &Nonza) -> Duration {
        let resume = matches!(element.attribute("resume").as_deref(), Some("true" | "1"));
        let asked = element.attribute("max").and_then(|max| max.parse().ok());
        let asked = asked.map_or(Duration::MAX, Duration::from_secs);
        let window = if resume { self.window.min(asked).as_secs() } else { 0 };
        Duration::from_secs(window)
    }

    /// SM-2, SM-4, SM-10
    fn enable<C: SharedConnection>(&self, session: &mut Session<Bound, C>, element: &Nonza) {
        if session.retain(self.asked_window(element), enabled).is_none() {
            fail(session, "unexpected-request");
        }
    }

    /// SM-3, SM-6, SM-7, SM-8
    fn answered<C: SharedConnection>(session: &mut Session<Bound, C>, element: &Nonza) -> Flow {
        let Some(handled) = counter(element) else {
            return Flow::Close(StreamCondition::InvalidXml.into());
        };
        match session.acknowledge(handled) {
            Some(Acknowledged::Freed(_)) => {}
            Some(Acknowledged::TooHigh { handled, sent }) => {
                return Flow::Close(too_high(handled, sent));
            }
            None => fail(session, "unexpected-request"),
        }
        Flow::Done
    }
}

fn is_ours(name: &str, namespace: &str) -> bool {
    namespace == NAMESPACE && matches!(name, "r" | "a" | "enable" | "resume")
}

impl Default for StreamManagement {
    fn default() -> Self {
        Self::new()
    }
}

impl<C: SharedConnection> Extension<C> for StreamManagement {
    fn features(&self, stage: Stage, out: &mut Vec<u8>) {
        match stage {
            Stage::Authenticated | Stage::Inline => {
                out.extend_from_slice(b"<sm xmlns='urn:xmpp:sm:3'/>");
            }
            Stage::InlineBind => out.extend_from_slice(b"<feature var='urn:xmpp:sm:3'/>"),
            Stage::Secure => {}
        }
    }

    fn bound_features(&self, session: &SessionHandle<C>, out: &mut Vec<u8>) {
        if !session.is_retained() {
            Extension::<C>::features(self, Stage::Authenticated, out);
        }
    }

    fn inline(&self, request: &Nonza, login: &mut LoggingIn<'_, C>) -> Flow {
        if !request.is("resume", NAMESPACE) {
            return Flow::Next;
        }
        let answer = match asked(request).map(|(token, h)| (login.resume(&token, h), token)) {
            None => failed("bad-request", None),
            Some((Ok(resumed), token)) => resumed_element(&token, resumed),
            Some((Err(error), _)) => match error {
                ResumeError::Refused(ResumeRefusal::NotFound { handled, .. }) => {
                    failed("item-not-found", handled)
                }
                ResumeError::Refused(_) => failed("bad-request", None),
                ResumeError::Misuse(_) => failed("unexpected-request", None),
            },
        };
        login.answer(&answer);
        Flow::Done
    }

    fn inline_bind(&self, request: &Nonza, session: &mut NewSession<'_, C>) -> Flow {
        if !request.is("enable", NAMESPACE) {
            return Flow::Next;
        }
        let retention = session.retain(self.asked_window(request));
        let answer = retention.map_or_else(|| failed("unexpected-request", None), |r| enabled(&r));
        session.answer(&answer);
        Flow::Done
    }

    fn takes(&self, name: &str, namespace: &str) -> bool {
        is_ours(name, namespace)
    }

    fn unauthenticated(&self, element: &Nonza, out: &mut Vec<u8>) -> Flow {
        if !is_ours(element.name(), &element.namespace()) {
            return Flow::Next;
        }
        // SM-1
        out.extend_from_slice(&failed("unexpected-request", None));
        Flow::Done
    }

    fn authenticated(
        &self,
        session: Session<Authed, C>,
        registry: &SessionRegistry<C>,
        element: &Nonza,
    ) -> Negotiated<C> {
        if !is_ours(element.name(), &element.namespace()) {
            return Negotiated::Next(session);
        }
        let (session, answer) = if element.name() == "resume" {
            match resume(session, registry, element) {
                Ok(session) => return Negotiated::Bound(session),
                Err(Refusal::Close(error)) => return Negotiated::Close(error),
                Err(Refusal::Failed(back, answer)) => (back, answer),
            }
        } else {
            (session, failed("unexpected-request", None))
        };
        // A transport that is gone is noticed where it is read.
        let _gone = session.send_frame(Frame::element(&answer));
        Negotiated::Done(session)
    }

    fn nonza(&self, session: &mut Session<Bound, C>, element: &Nonza) -> Flow {
        if element.namespace() != NAMESPACE {
            return Flow::Next;
        }
        match element.name() {
            "r" => match session.handled_when_asked() {
                Some(Some(handled)) => {
                    // SM-9
                    let _gone = session.send_element(answer(handled).as_bytes());
                }
                Some(None) => {}
                None => fail(session, "unexpected-request"),
            },
            "a" => return Self::answered(session, element),
            "enable" => self.enable(session, element),
            "resume" => fail(session, "unexpected-request"),
            _ => return Flow::Next,
        }
        Flow::Done
    }

    fn pre_drain(&self, session: &SessionHandle<C>, epoch: Epoch, out: &mut dyn FnMut(Frame<'_>)) {
        if session.claim_ack_request(epoch, &self.policy) {
            out(Frame::element(REQUEST));
        }
    }

    fn next_timeout(&self, session: &SessionHandle<C>) -> Option<Duration> {
        session.check_acks_at(&self.policy)
    }

    fn handle_timeout(&self, session: &SessionHandle<C>, _: Duration) -> Liveness {
        match session.check_acks(&self.policy) {
            AckCheck::Quiet => {}
            AckCheck::Ask => {
                let _gone = session.send_item(&Item::element(REQUEST));
            }
            AckCheck::Lost => return Liveness::Lost,
        }
        Liveness::Alive
    }

    fn ask_for_life(&self, session: &SessionHandle<C>) -> Flow {
        match session.claim_sign_of_life() {
            None => return Flow::Next,
            Some(false) => {}
            Some(true) => {
                let _gone = session.send_item(&Item::element(REQUEST));
            }
        }
        Flow::Done
    }
}

/// What answers `<r/>`.
pub(crate) fn answer(handled: u32) -> String {
    format!("<a xmlns='urn:xmpp:sm:3' h='{handled}'/>")
}

/// Why a session was not resumed.
enum Refusal<C: SharedConnection> {
    Failed(Session<Authed, C>, Vec<u8>),
    Close(StreamError),
}

/// SM-8, SM-12…15
fn resume<C: SharedConnection>(
    session: Session<Authed, C>,
    registry: &SessionRegistry<C>,
    element: &Nonza,
) -> Result<Session<Bound, C>, Refusal<C>> {
    let Some((token, handled)) = asked(element) else {
        return Err(Refusal::Failed(session, failed("bad-request", None)));
    };
    let mut reply = |resumed: Resumed| resumed_element(&token, resumed);
    session.resume(registry, &token, handled, &mut reply).map_err(|refused| {
        let (session, error) = refused.into_parts();
        match error {
            ResumeError::Refused(ResumeRefusal::HandledTooHigh { handled, sent, .. }) => {
                Refusal::Close(too_high(handled, sent))
            }
            ResumeError::Refused(ResumeRefusal::NotFound { handled, .. }) => {
                Refusal::Failed(session, failed("item-not-found", handled))
            }
            _ => Refusal::Failed(session, failed("unexpected-request", None)),
        }
    })
}

/// The resumption id, and what the client has handled.
fn asked(element: &Nonza) -> Option<(Cow<'_, str>, u32)> {
    element.attribute("previd").zip(counter(element))
}

fn resumed_element(token: &str, resumed: Resumed) -> Vec<u8> {
    // An id that resumes a session was made here of hex digits, which need no escaping.
    let h = resumed.handled;
    format!("<resumed xmlns='urn:xmpp:sm:3' previd='{token}' h='{h}'/>").into_bytes()
}

/// SM-10
fn enabled(retention: &Retention) -> Vec<u8> {
    let seconds = retention.window.as_secs();
    if seconds == 0 {
        return b"<enabled xmlns='urn:xmpp:sm:3'/>".to_vec();
    }
    let id = &retention.token;
    format!("<enabled xmlns='urn:xmpp:sm:3' id='{id}' resume='true' max='{seconds}'/>").into_bytes()
}

fn failed(condition: &str, handled: Option<u32>) -> Vec<u8> {
    let h = handled.map(|h| format!(" h='{h}'")).unwrap_or_default();
    format!("<failed xmlns='{NAMESPACE}'{h}><{condition} xmlns='{STANZA_ERRORS}'/></failed>")
        .into_bytes()
}

fn fail<C: SharedConnection>(session: &Session<Bound, C>, condition: &str) {
    let _gone = session.send_element(&failed(condition, None));
}

/// SM-8: digits up to 2^32−1, and nothing else.
fn counter(element: &Nonza) -> Option<u32> {
    let h = element.attribute("h")?;
    if h.bytes().all(|digit| digit.is_ascii_digit()) { h.parse().ok() } else { None }
}

/// SM-7
fn too_high(handled: u32, sent: u32) -> StreamError {
    let (handled, sent) = (handled.to_string(), sent.to_string());
    let attributes = [("h", &*handled), ("send-count", &*sent)];
    let element = super::element("handled-count-too-high", NAMESPACE, &attributes);
    StreamError::new(StreamCondition::UndefinedCondition).with_application(&element)
}
