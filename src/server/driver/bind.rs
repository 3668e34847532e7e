//! From an account to a bound resource (RFC 6120 §7).

use std::borrow::Cow;
use std::sync::Arc;

use jid::{FullJid, ResourcePart};

use crate::address;
use crate::connection::SharedConnection;
use crate::server::Core;
use crate::server::deliver::iq::is_request;
use crate::server::driver::unbound::Dismissal;
use crate::server::driver::{Driver, Pending, Stage};
use crate::server::work::oneshot::{self, Receiver};
use crate::session::{Authed, BindError, BindRefusal, BindRequest, Bound, Misuse, Session};
use crate::stanza::{Child, Condition, ErrorType, Kind, Received, Stanza, StanzaError, write};
use crate::store::StoreError;
use crate::stream::{RefusedStanza, StreamCondition};

const BIND_NS: &str = "urn:ietf:params:xml:ns:xmpp-bind";

/// A bind under way on the account's chain.
pub(super) struct BindWait<C: SharedConnection> {
    pub(super) done: Receiver<BindOutcome<C>>,
    pub(super) id: String,
}

/// What came of it.
pub(super) enum BindOutcome<C: SharedConnection> {
    Bound(Session<Bound, C>),
    Refused(Session<Authed, C>, BindRefusal),
    /// The account's data could not be had (BIND-7).
    NotLoaded(Session<Authed, C>),
}

impl<C: SharedConnection> Driver<C> {
    /// A stanza before bind that was refused while it was read.
    pub(super) fn early_refused(&mut self, refused: &RefusedStanza) {
        if let (Stage::Authed(_), Some(limit)) = (&self.stage, refused.limit()) {
            self.core.metrics.limit(limit.id());
        }
        self.early_stanza(refused.stanza(), Some(refused.error()));
    }

    /// A stanza before bind (STREAM-18, BIND-11, BIND-12), and what it was refused with.
    pub(super) fn early_stanza(&mut self, received: &Received<'_>, refused: Option<StanzaError>) {
        let Stage::Authed(session) = &self.stage else {
            return self.fail(StreamCondition::NotAuthorized.into());
        };
        let account = session.account().clone();
        let stanza = received.stamp(Some(account.as_str()), self.lang.as_deref());
        let to = received.to().map(|to| self.core.address(to));
        let ours = match &to {
            None => true,
            Some(Ok(to)) => *to.bare == account || self.core.serves(to.bare.as_str()),
            Some(Err(_)) => false,
        };
        if !ours {
            return self.fail(StreamCondition::NotAuthorized.into());
        }
        let bind = stanza.child().filter(|child| child.is("bind", BIND_NS));
        let unexpected =
            || StanzaError::new(Condition::UnexpectedRequest).with_type(ErrorType::Wait);
        if let (Kind::Iq, Some(bind)) = (stanza.kind(), bind) {
            return self.bind(&stanza, &bind);
        }
        let answerable = match stanza.kind() {
            Kind::Iq => !matches!(stanza.type_().as_deref(), Some("result" | "error")),
            Kind::Message | Kind::Presence => stanza.type_().as_deref() != Some("error"),
        };
        if answerable {
            self.refuse(&stanza, &refused.unwrap_or_else(unexpected));
        }
    }

    fn refuse(&mut self, stanza: &Stanza, error: &StanzaError) {
        if let Some(answer) = stanza.error_answer(error) {
            // Before bind the client has no full JID to be addressed by.
            let from = answer.from().map(Cow::into_owned);
            let answer = answer.readdressed(from.as_deref(), None);
            let words = answer.to_xml();
            self.send(&words);
        }
    }

    /// BIND-2…10
    fn bind(&mut self, stanza: &Stanza, request: &Child<'_>) {
        let is_set = stanza.type_().as_deref() == Some("set");
        if !is_set || is_request(stanza).is_err() {
            return self.bind_failed(stanza, Condition::BadRequest);
        }
        // BIND-4: what cannot be made valid is replaced, not refused.
        let wanted = request.children().find(|child| child.is("resource", BIND_NS));
        let resource = wanted.and_then(|wanted| address::resource(&wanted.text()).ok());
        let resource = resource.filter(|r| write::attribute_value_len(r.as_str()) <= 1023);
        let Stage::Authed(session) = std::mem::replace(&mut self.stage, Stage::Binding) else {
            return;
        };
        let (sender, done) = oneshot::channel();
        let id = stanza.id().unwrap_or_default().into_owned();
        let key = session.account().to_string();
        let early = self.negotiating.as_ref().and_then(|negotiating| negotiating.early.as_ref());
        let dismissal = early.map(|early| Arc::clone(early.dismissal()));
        let core = Arc::clone(&self.core);
        let work = bind(core, session, resource, id.clone(), dismissal, sender);
        let _ran = self.core.jobs.run(&key, work);
        self.pending = Some(Pending::Bind(BindWait { done, id }));
    }

    /// The job that binds is through.
    pub(super) fn bound(&mut self, outcome: Option<BindOutcome<C>>, id: &str) {
        if let Some(early) = self.negotiating.as_ref().and_then(|it| it.early.as_ref()) {
            early.dismissal().end_bind();
        }
        match outcome {
            Some(BindOutcome::Bound(session)) => self.enter(session),
            Some(BindOutcome::Refused(session, error)) => {
                if error == BindRefusal::TooManySessions {
                    self.core.metrics.limit("LIMIT-8");
                }
                let condition = error.condition();
                self.stage = Stage::Authed(session);
                self.refuse_bind(id, condition);
            }
            Some(BindOutcome::NotLoaded(session)) => {
                self.stage = Stage::Authed(session);
                self.refuse_bind(id, Condition::InternalServerError);
            }
            None => self.fail(StreamCondition::InternalServerError.into()),
        }
    }

    fn refuse_bind(&mut self, id: &str, condition: Condition) {
        let request = Stanza::iq("set").id(id).build();
        self.bind_failed(&request, condition);
    }

    /// BIND-10: so many, and no more.
    fn bind_failed(&mut self, stanza: &Stanza, condition: Condition) {
        let mut error = StanzaError::new(condition);
        if condition == Condition::ResourceConstraint {
            error = error.with_type(ErrorType::Wait);
        }
        self.refuse(stanza, &error);
        let most = self.core.limits.bind_failures;
        let Some(negotiating) = &mut self.negotiating else { return };
        negotiating.bind_failures = negotiating.bind_failures.saturating_add(1);
        if negotiating.bind_failures > most {
            self.core.metrics.limit("LIMIT-7");
            self.fail(StreamCondition::PolicyViolation.into());
        }
    }
}

/// Loads the account's data and registers the session, in one job of the account's chain, so that
/// no change of the roster comes between (BIND-7, BIND-13).
async fn bind<C: SharedConnection>(
    core: Arc<Core<C>>,
    mut session: Session<Authed, C>,
    resource: Option<ResourcePart>,
    id: String,
    dismissal: Option<Arc<Dismissal>>,
    done: oneshot::Sender<BindOutcome<C>>,
) {
    loop {
        let loaded = if core.registry.is_loaded(session.account()) {
            None
        } else {
            let account = session.account();
            let load = crate::server::caught(async {
                Ok::<_, StoreError>((
                    core.load_roster(account).await?,
                    core.load_kept(account).await?,
                ))
            });
            match core.timers.within(core.limits.load, load).await {
                Some(Some(Ok(loaded))) => Some(loaded),
                _ => return done.send(BindOutcome::NotLoaded(session)),
            }
        };
        if dismissal.as_ref().is_some_and(|dismissal| !dismissal.begin_bind()) {
            // The stream is closed, or about to be.
            return done.send(BindOutcome::NotLoaded(session));
        }
        // DESTROY-10: a transport that was lost meanwhile binds nothing.
        if done.is_closed() {
            return;
        }
        let mut reply = |jid: &FullJid| bind_result(&id, jid);
        let request = match loaded {
            Some((roster, values)) => BindRequest::new().roster(roster).values(values),
            None => BindRequest::new().loaded(),
        };
        let request = match &resource {
            Some(resource) => request.resource(resource.clone()),
            None => request,
        };
        match session.bind(&core.registry, request.lingers().reply(&mut reply)) {
            Ok(session) => return done.send(BindOutcome::Bound(session)),
            Err(refused) => {
                let (back, error) = refused.into_parts();
                match error {
                    // The account's last session has ended since we looked.
                    BindError::Misuse(Misuse::NotLoaded) => session = back,
                    BindError::Misuse(_) => return done.send(BindOutcome::NotLoaded(back)),
                    BindError::Refused(why) => return done.send(BindOutcome::Refused(back, why)),
                }
            }
        }
    }
}

/// BIND-3
fn bind_result(id: &str, jid: &FullJid) -> Vec<u8> {
    let mut payload = b"<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>".to_vec();
    write::text(&mut payload, jid.as_str());
    payload.extend_from_slice(b"</jid></bind>");
    Stanza::iq("result").id(id).payload(&payload).build().to_xml()
}
