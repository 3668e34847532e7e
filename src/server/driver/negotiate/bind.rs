//! From an account to a bound resource (RFC 6120 §7).

use std::sync::Arc;

use jid::{BareJid, FullJid, ResourcePart};

use super::super::admission::Signal;
use super::super::blocked::{BindOutcome, Pending};
use super::{Driver, State};
use crate::address;
use crate::connection::SharedConnection;
use crate::oneshot;
use crate::rules::roster::Roster;
use crate::server::deliver::handler::BIND_NS;
use crate::server::deliver::iq::is_request;
use crate::server::{Core, FaultKind, PeerAddress, StoreCall, StoreFailure};
use crate::session::{
    Authed, BindError, BindRefusal, BindRequest, ClientId, Misuse, Session, SessionSetup, Values,
};
use crate::stanza::{Child, Condition, ErrorType, Stanza, StanzaError, write};
use crate::store::{ClientKey, StoreError};
use crate::stream::{Limit, StreamCondition, StreamError};

impl<C: SharedConnection> Driver<C> {
    /// BIND-2…10
    pub(super) fn bind(&mut self, stanza: &Stanza, request: &Child<'_>) {
        let is_set = stanza.type_().as_deref() == Some("set");
        if !is_set || is_request(stanza).is_none() {
            return self.bind_failed(stanza, Condition::BadRequest);
        }
        // BIND-4: what cannot be made valid is replaced, not refused.
        let wanted = request.children().find(|child| child.is("resource", BIND_NS));
        let resource = wanted.and_then(|wanted| address::resource(&wanted.text()).ok());
        let resource = resource.filter(|r| write::attribute_value_len(r.as_str()) <= 1023);
        let State::Authed(session) = std::mem::replace(&mut self.state, State::Binding) else {
            return;
        };
        let (sender, done) = oneshot::channel();
        let id = Box::<str>::from(stanza.id().unwrap_or_default());
        if let Some(negotiating) = &mut self.negotiating {
            negotiating.since.bind = Some(self.core.environment.now());
        }
        let key = session.account().to_string();
        let signal = Arc::clone(self.place().signal());
        let core = Arc::clone(&self.core);
        let mut asks = Asks { resource, ..Asks::default() };
        let agent = self.negotiating.as_ref().and_then(|negotiating| negotiating.agent.as_ref());
        if let Some(client) = agent.and_then(|agent| agent.id) {
            asks.setup.set_extension(ClientKey::of(session.account(), client));
        }
        let work = bind(core, session, asks, id.clone(), self.peer.clone(), signal, sender);
        let _ran = self.core.jobs.run(&key, work);
        self.pending = Some(Pending::Bind(Box::new((done, id))));
    }

    /// The job that binds has ended.
    pub(in super::super) fn bind_done(&mut self, outcome: Option<BindOutcome<C>>, id: &str) {
        self.place().signal().end_bind();
        match outcome {
            Some(Ok(session)) => self.begin_session(session),
            Some(Err((session, condition))) => {
                self.state = State::Authed(session);
                self.bind_failed(&Stanza::iq("set").id(id).build(), condition);
            }
            None => self.fail(StreamCondition::InternalServerError.into()),
        }
    }

    fn bind_failed(&mut self, stanza: &Stanza, condition: Condition) {
        let mut error = StanzaError::new(condition);
        if condition == Condition::ResourceConstraint {
            error = error.with_type(ErrorType::Wait);
        }
        self.refuse(stanza, &error);
        self.count_bind_failure();
    }

    /// BIND-10
    pub(super) fn count_bind_failure(&mut self) {
        let most = self.core.limits.bind_failures;
        let Some(negotiating) = &mut self.negotiating else { return };
        negotiating.bind_failures = negotiating.bind_failures.saturating_add(1);
        if negotiating.bind_failures > most {
            self.fail(StreamError::exceeded(Limit::Retries));
        }
    }
}

/// What a client asks for that wants a session.
#[derive(Default)]
pub(super) struct Asks {
    pub(super) resource: Option<ResourcePart>,
    pub(super) tag: Option<Box<str>>,
    pub(super) client: Option<ClientId>,
    pub(super) setup: SessionSetup,
}

/// The job that answers a bind request of this id.
async fn bind<C: SharedConnection>(
    core: Arc<Core<C>>,
    session: Session<Authed, C>,
    asks: Asks,
    id: Box<str>,
    peer: PeerAddress,
    signal: Arc<Signal>,
    done: oneshot::Sender<BindOutcome<C>>,
) {
    let bound = register(&core, session, &asks, &peer, &signal, || done.is_closed()).await;
    if let Ok(session) = &bound {
        session.greet(bind_result(&id, session.jid()));
    }
    done.send(bound);
}

/// Loads the account's data and registers the session, in one job of the account's chain, so that
/// no change of the roster comes between (BIND-7, BIND-13). Its client is still to be greeted.
pub(super) async fn register<C: SharedConnection>(
    core: &Core<C>,
    mut session: Session<Authed, C>,
    asks: &Asks,
    peer: &PeerAddress,
    signal: &Signal,
    is_gone: impl Fn() -> bool,
) -> BindOutcome<C> {
    loop {
        let mut request = if core.registry.is_loaded(session.account()) {
            BindRequest::new().loaded()
        } else if let Some((roster, values)) = core.load_account(session.account()).await {
            BindRequest::new().roster(roster).values(values)
        } else {
            // BIND-7
            return Err((session, Condition::InternalServerError));
        };
        // The stream is closed, or about to be; or DESTROY-10: a transport that was lost meanwhile binds
        // nothing.
        if !signal.begin_bind() || is_gone() {
            return Err((session, Condition::InternalServerError));
        }
        request = request.setup(asks.setup.clone());
        if let Some(resource) = &asks.resource {
            request = request.resource(resource.clone());
        }
        if let Some(tag) = &asks.tag {
            request = request.tag(tag);
        }
        if let Some(client) = asks.client {
            request = request.replaces(client);
        }
        let refused = match session.bind(&core.registry, request.lingers().greeted_later()) {
            Ok(session) => return Ok(session),
            Err(refused) => refused,
        };
        let (back, error) = refused.into_parts();
        let condition = match error {
            // The account's last session has ended meanwhile.
            BindError::Misuse(Misuse::NotLoaded) => {
                session = back;
                continue;
            }
            BindError::Misuse(_) => Condition::InternalServerError,
            BindError::Refused(why) => {
                if why == BindRefusal::TooManySessions {
                    core.limit(Limit::Sessions, peer, Some(back.account()));
                }
                why.condition()
            }
        };
        return Err((back, condition));
    }
}

impl<C: SharedConnection> Core<C> {
    /// What an account's sessions need to know, unless a store fails or takes too long.
    async fn load_account(&self, account: &BareJid) -> Option<(Roster, Values)> {
        let load = async {
            let roster = self.load_roster(account).await?;
            Ok::<_, StoreError>((roster, self.load_kept(account).await?))
        };
        let loaded = self.timers.within(self.limits.load, load).await;
        if loaded.is_none() {
            self.late(StoreCall::LoadAccount, &PeerAddress::UNKNOWN, account);
        }
        loaded?.ok()
    }

    /// A store takes too long.
    pub(super) fn late(&self, call: StoreCall, peer: &PeerAddress, account: &BareJid) {
        let error = format!("no answer within {:?}", self.limits.load);
        let kind = FaultKind::Store { call, failure: StoreFailure::Late, error };
        self.faults.tell(kind, peer, Some(account));
    }
}

/// BIND-3
fn bind_result(id: &str, jid: &FullJid) -> Stanza {
    let mut payload = b"<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>".to_vec();
    write::text(&mut payload, jid.as_str());
    payload.extend_from_slice(b"</jid></bind>");
    Stanza::iq("result").id(id).payload(&payload).build()
}
