//! From the first byte to a bound resource (RFC 6120 §4–§7).

use std::sync::Arc;
use std::time::Duration;

use jid::{BareJid, DomainPart};

use crate::address;
use crate::connection::{Close, SendError, SharedConnection};
use crate::environment::random_hex;
use crate::extension::{Extension, Flow, Negotiated, Stage as FeatureStage};
use crate::sasl::{ChannelBindings, Context, Failure, Mechanism, Negotiation, Step, wire};
use crate::server::Core;
use crate::server::builder::Domain;
use crate::server::driver::admission::Standing;
use crate::server::driver::failures::Attempt;
use crate::server::driver::peer::Want;
use crate::server::driver::rate::Spent;
use crate::server::driver::unbound::EarlyStream;
use crate::server::driver::{Driver, Pending, Stage};
use crate::session::{Authed, Bound, Reason, Session};
use crate::stanza::Frame;
use crate::stanza::canonical::Opening;
use crate::store::{Credentials, StoreError, Verdict};
use crate::stream::{
    Features, Header, Nonza, ResponseHeader, STREAM_NAMESPACE, StreamCondition, StreamError,
    Version,
};

const TLS_NS: &str = "urn:ietf:params:xml:ns:xmpp-tls";

/// What only a stream under negotiation needs to know.
#[derive(Default)]
pub(super) struct Negotiating {
    /// TLS-3: said by the host, never derived.
    secure: bool,
    tls: bool,
    /// Whether the host can still do a handshake.
    starttls: bool,
    bindings: ChannelBindings,
    /// As it was when it was looked at last (LIMIT-25).
    pub(super) standing: Standing,
    /// How the server reaches the stream before it has a session.
    pub(super) early: Option<EarlyStream>,
    /// Our header of this stream was sent.
    pub(super) answered: bool,
    /// The client has sent a header, of this stream or of one before it on the same transport: it
    /// knows what a stream error is.
    pub(super) has_begun: bool,
    /// The bare JID of the client's `from`.
    from: Option<BareJid>,
    sasl: Option<Negotiation>,
    /// The login under way.
    attempt: Option<Attempt>,
    /// When it may be looked at (LIMIT-29).
    pub(super) not_before: Option<Duration>,
    pub(super) bind_failures: u8,
}

impl Negotiating {
    pub(super) fn new(secure: bool, starttls: bool, early: EarlyStream) -> Self {
        Self { secure, starttls, early: Some(early), ..Self::default() }
    }

    /// The error that the server closes the stream with, if it does.
    pub(super) fn poll_dismissed(
        &self,
        cx: Option<&std::task::Context<'_>>,
    ) -> Option<StreamError> {
        Some(self.early.as_ref()?.poll(cx)?.choose(self.secure))
    }

    /// STREAM-8: nothing of what was said before counts any more.
    pub(super) fn secured(&mut self, bindings: ChannelBindings) {
        self.secure = true;
        self.tls = true;
        self.starttls = false;
        self.bindings = bindings;
        self.restart();
    }

    /// The next stream of the transport begins.
    fn restart(&mut self) {
        self.answered = false;
        self.from = None;
        self.sasl = None;
        self.attempt = None;
        self.not_before = None;
    }
}

/// What a store answered to SASL.
pub(super) enum Answer {
    Credentials(Result<Option<Credentials>, StoreError>),
    Verdict(Result<Verdict, StoreError>),
    /// `None`: it could not be checked.
    Hashed(Option<bool>),
}

impl<C: SharedConnection> Driver<C> {
    pub(super) fn send(&mut self, bytes: &[u8]) {
        if self.want == Want::Close {
            return;
        }
        let sent = self.connection.send(Frame::raw(bytes));
        if sent == Err(SendError::Full) {
            // Before bind a client that does not read has no session to keep.
            self.finish(Close::Abort);
        }
    }

    /// The client's stream header (STREAM-1…9).
    pub(super) fn header(&mut self, header: &Header) {
        self.lang = header.lang().map(Into::into);
        let from = header.from().and_then(|from| address::bare(address::bare_of(from)).ok());
        let Some(negotiating) = &mut self.negotiating else { return };
        negotiating.answered = false;
        negotiating.has_begun = true;
        negotiating.from = from;
        if self.is_refused() {
            return self.fail(StreamCondition::ResourceConstraint.into());
        }
        self.spoke(false);
        let asked = match header.to() {
            // STREAM-4
            None => self.core.default_domain.clone(),
            // STREAM-6
            Some(asked) => address::domain(asked).ok(),
        };
        let former = asked.as_ref().is_some_and(|domain| self.core.former_domains.contains(domain));
        let Some(domain) = asked.filter(|domain| self.core.serves(domain.as_str())) else {
            let condition =
                if former { StreamCondition::HostGone } else { StreamCondition::HostUnknown };
            return self.fail(condition.into());
        };
        let version = match header.negotiate() {
            Ok(version) => version,
            Err(error) => {
                let words = self.our_header(domain.as_str(), None);
                return self.fail_after(words, &error);
            }
        };
        let elsewhere = match &mut self.stage {
            Stage::Unauthed(session) => {
                session.open(domain.clone());
                false
            }
            // STREAM-7
            Stage::Authed(session) => {
                session.open();
                session.domain() != &*domain
            }
            _ => false,
        };
        let words = self.our_header(domain.as_str(), Some(version));
        if elsewhere {
            return self.fail_after(words, &StreamCondition::NotAuthorized.into());
        }
        self.send(&words);
        match &self.stage {
            Stage::Unauthed(_) => self.offer_authentication(&domain),
            _ => self.offer_bind(),
        }
    }

    fn our_header(&mut self, from: &str, version: Option<Version>) -> Vec<u8> {
        let id = random_hex::<16>(&*self.core.environment);
        let mut header = ResponseHeader::new(from, &id);
        header.version = version;
        let mut words = Vec::with_capacity(256);
        if let Some(negotiating) = &mut self.negotiating {
            header.to = negotiating.from.as_ref().map(|from| from.as_str());
            header.write(&mut words);
            negotiating.answered = true;
        }
        words
    }

    /// STREAM-25: an error before our header was sent brings it along.
    pub(super) fn header_if_due(&mut self) -> Vec<u8> {
        if self.negotiating.as_ref().is_none_or(|negotiating| negotiating.answered) {
            return Vec::new();
        }
        let domain = self.core.domains.first().map(|domain| domain.name.as_str().to_owned());
        self.our_header(&domain.unwrap_or_default(), Some(Version::ONE))
    }

    /// STREAM-F1, F2, F3, F8, and F7 where nothing can be offered.
    fn offer_authentication(&mut self, domain: &DomainPart) {
        let core = Arc::clone(&self.core);
        let Some(served) = core.domain(domain.as_str()) else { return };
        let Some(negotiating) = &mut self.negotiating else { return };
        let context = Context {
            policy: Arc::clone(&served.sasl),
            environment: Arc::clone(&core.environment),
            domain: domain.clone(),
            secure: negotiating.secure,
            bindings: negotiating.bindings.clone(),
        };
        let names: Vec<_> = context.offered().map(Mechanism::as_str).collect();
        let bindings: Vec<_> = context.bindings.types().collect();
        let usable = negotiating.starttls || !names.is_empty();
        let features = match (negotiating.tls, negotiating.secure) {
            (true, _) => Features::secure(names, bindings),
            (false, true) => Features::declared_secure(names, negotiating.starttls),
            (false, false) if served.tls_required => Features::tls_required(),
            (false, false) if !negotiating.starttls => Features::declared_secure(names, false),
            (false, false) => Features::tls_optional(names),
        };
        let blocked = !negotiating.secure && served.tls_required && !negotiating.starttls;
        if !usable || blocked {
            return self.fail(StreamCondition::PolicyViolation.into());
        }
        let only_tls = !negotiating.secure && served.tls_required;
        negotiating.sasl = Some(Negotiation::new(context));
        let mut features = features;
        if !only_tls {
            let bytes = core.limits.stream.element_bytes_before_auth();
            features = features.limits(bytes, core.limits.negotiation.as_secs());
            features = self.extend(features, FeatureStage::Secure);
        }
        self.send_features(&features);
    }

    /// STREAM-F4
    fn offer_bind(&mut self) {
        let limits = &self.core.limits;
        let features = Features::authenticated()
            .roster_versioning()
            .pre_approval()
            .limits(limits.stream.element_bytes(), limits.silence.as_secs());
        let features = self.extend(features, FeatureStage::Authenticated);
        self.send_features(&features);
    }

    fn extend(&self, features: Features, stage: FeatureStage) -> Features {
        let mut more = Vec::new();
        for extension in &self.core.extensions {
            let before = more.len();
            let add = || extension.features(stage, &mut more);
            if crate::server::shielded(add).is_none() {
                more.truncate(before);
            }
        }
        if more.is_empty() { features } else { features.extension(&more) }
    }

    fn send_features(&mut self, features: &Features) {
        let mut words = Vec::with_capacity(512);
        features.write(&mut words);
        self.send(&words);
    }

    /// Closes the stream where that is the answer to an element whose start tag is all that there is of
    /// it: what follows need not be waited for.
    pub(super) fn refuse_opening(&mut self) -> bool {
        let condition = match (&self.stage, self.parser.opening()) {
            // STREAM-18
            (Stage::Unauthed(_), Some(Opening::Stanza)) => Some(StreamCondition::NotAuthorized),
            (_, Some(Opening::Other(name, namespace))) => self.refusal(name, namespace),
            (_, Some(Opening::Stanza) | None) => None,
        };
        let Some(condition) = condition else { return false };
        self.fail(condition.into());
        true
    }

    /// What a first-level element of this name closes the stream with, whatever it holds.
    fn refusal(&self, name: &str, namespace: &str) -> Option<StreamCondition> {
        let takes = |extension: &dyn Extension<C>| extension.takes(name, namespace);
        // One that panics may take it.
        let takes = |extension| crate::server::shielded(|| takes(extension)).unwrap_or(true);
        match (&self.stage, namespace) {
            (Stage::Closing(_) | Stage::Over, _) => None,
            (_, STREAM_NAMESPACE) if name == "error" => None,
            (Stage::Unauthed(_), TLS_NS) if name == "starttls" => None,
            (Stage::Unauthed(session), wire::NS) if session.is_open() => None,
            // SASL-10
            (_, wire::NS) => Some(StreamCondition::NotAuthorized),
            _ if self.core.extensions.iter().any(|extension| takes(&**extension)) => None,
            // STREAM-16
            _ => Some(StreamCondition::UnsupportedStanzaType),
        }
    }

    /// A first-level element that is no stanza, before bind.
    pub(super) fn early_nonza(&mut self, nonza: &Nonza) {
        let namespace = nonza.namespace();
        match (&self.stage, &*namespace) {
            (_, STREAM_NAMESPACE) if nonza.name() == "error" => {
                // SERR-2
                self.close_after_client(Reason::StreamError, b"</stream:stream>");
            }
            (Stage::Unauthed(_), TLS_NS) if nonza.name() == "starttls" => self.starttls(nonza),
            (Stage::Unauthed(session), wire::NS) if session.is_open() => {
                let mechanism = nonza.attribute("mechanism");
                let text = nonza.text();
                let request = wire::parse(nonza.name(), mechanism.as_deref(), &text);
                let step = self.sasl().map(|sasl| sasl.receive(request));
                self.sasl_step(step);
            }
            // SASL-10
            (_, wire::NS) => self.fail(StreamCondition::NotAuthorized.into()),
            _ => self.extended(nonza),
        }
    }

    /// What only an extension may know; else STREAM-16.
    fn extended(&mut self, nonza: &Nonza) {
        let core = Arc::clone(&self.core);
        let session = match std::mem::replace(&mut self.stage, Stage::Binding) {
            Stage::Authed(session) => session,
            stage => {
                self.stage = stage;
                let mut answer = Vec::new();
                let flow = crate::server::shielded(|| core.take_early(nonza, &mut answer));
                return match flow {
                    Some(Flow::Next) => self.fail(StreamCondition::UnsupportedStanzaType.into()),
                    Some(Flow::Done) => self.send(&answer),
                    Some(Flow::Close(error)) => self.fail(error),
                    None => self.fail(StreamCondition::InternalServerError.into()),
                };
            }
        };
        match crate::server::shielded(|| core.negotiate(session, nonza)) {
            Some(Negotiated::Next(session)) => {
                self.stage = Stage::Authed(session);
                self.fail(StreamCondition::UnsupportedStanzaType.into());
            }
            Some(Negotiated::Done(session)) => self.stage = Stage::Authed(session),
            Some(Negotiated::Bound(session)) => self.enter(session),
            Some(Negotiated::Close(error)) => self.fail(error),
            None => self.fail(StreamCondition::InternalServerError.into()),
        }
    }

    /// The session is bound: negotiation is over.
    pub(super) fn enter(&mut self, session: Session<Bound, C>) {
        let _first = self.hook.session.set((session.handle(), session.epoch()));
        self.trace.bound(session.id(), session.jid());
        self.negotiating = None;
        self.place = None;
        let silence = self.core.limits.silence;
        self.deadline = self.core.environment.now().saturating_add(silence).into();
        self.stage = Stage::Bound(session);
    }

    /// TLS-1, TLS-2
    fn starttls(&mut self, nonza: &Nonza) {
        let Some(negotiating) = &mut self.negotiating else { return };
        if !negotiating.starttls || nonza.children().next().is_some() {
            return self.close_after_client(
                Reason::Closed,
                b"<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:stream>",
            );
        }
        self.parser.restart(false);
        self.send(b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
        if self.want == Want::Input {
            self.want = Want::StartTls;
        }
    }

    fn sasl(&mut self) -> Option<&mut Negotiation> {
        self.negotiating.as_mut().and_then(|negotiating| negotiating.sasl.as_mut())
    }

    pub(super) fn sasl_answer(&mut self, answer: Answer) {
        let Some(sasl) = self.sasl() else { return };
        let step = match answer {
            Answer::Credentials(Ok(found)) => sasl.credentials(found),
            Answer::Verdict(Ok(verdict)) => sasl.verdict(verdict),
            Answer::Hashed(Some(right)) => sasl.hashed(right),
            Answer::Credentials(Err(_)) | Answer::Verdict(Err(_)) | Answer::Hashed(None) => {
                Err(sasl.store_failed())
            }
        };
        self.sasl_step(Some(step));
    }

    fn sasl_step(&mut self, step: Option<Result<Step, Failure>>) {
        let mut words = Vec::new();
        if matches!(step, Some(Ok(Step::Challenge(_) | Step::Success { .. }) | Err(_))) {
            // It is the client's turn.
            self.spoke(false);
        }
        match step {
            None => {}
            Some(Ok(Step::Challenge(data))) => {
                wire::write_challenge(&data, &mut words);
                self.send(&words);
            }
            Some(Ok(Step::NeedCredentials { account })) => {
                self.attempt(&account);
                let accounts = Arc::clone(&self.core.stores.accounts);
                self.pending = Some(Pending::Sasl(Box::pin(async move {
                    let found = async { accounts.credentials(&account).await };
                    let failed = || Err(StoreError::failed("the store panicked"));
                    Answer::Credentials(crate::server::caught(found).await.unwrap_or_else(failed))
                })));
            }
            Some(Ok(Step::CheckPassword { account, password })) => {
                let domain = self.core.domain(account.domain().as_str());
                let Some(authenticator) = domain.and_then(|domain| domain.authenticator.clone())
                else {
                    return;
                };
                self.attempt(&account);
                self.pending = Some(Pending::Sasl(Box::pin(async move {
                    let verdict = async { authenticator.check_password(&account, &password).await };
                    let failed = || Err(StoreError::failed("the authenticator panicked"));
                    Answer::Verdict(crate::server::caught(verdict).await.unwrap_or_else(failed))
                })));
            }
            Some(Ok(Step::CheckKeys(check))) => match &self.core.hashing {
                Some(hashing) => {
                    let answer = hashing.submit(self.source, check);
                    self.pending =
                        Some(Pending::Sasl(Box::pin(async { Answer::Hashed(answer.await) })));
                }
                None => self.sasl_answer(Answer::Hashed(crate::server::shielded(check))),
            },
            Some(Ok(Step::Success { account, data })) => {
                if let Some(attempt) = self.negotiating.as_mut().and_then(|n| n.attempt.take()) {
                    attempt.forgive();
                }
                self.authenticated(account, data.as_deref())
            }
            Some(Err(refused)) => {
                let attempt = self.negotiating.as_mut().and_then(|n| n.attempt.take());
                if let Some(attempt) = attempt.filter(|_| !refused.error.counts()) {
                    attempt.forgive();
                }
                self.trace.refused(refused.error.as_str());
                wire::write_failure(refused.error, &mut words);
                self.send(&words);
                if refused.close {
                    // SASL-9
                    self.core.metrics.limit("LIMIT-7");
                    self.fail(StreamCondition::PolicyViolation.into());
                }
            }
        }
    }

    /// LIMIT-29: a login of a source where many have failed is looked at later, be it right or
    /// wrong. Where the host names no source, it is the account's failures that count.
    fn attempt(&mut self, account: &BareJid) {
        let named = Some(self.source.key()).filter(|key| *key != 0);
        let key = named.unwrap_or_else(|| self.core.ledger.account(account));
        let (attempt, not_before) = self.core.failures.attempt(key);
        self.spoke(true);
        if not_before.is_some() {
            self.core.metrics.limit("LIMIT-29");
        }
        if let Some(negotiating) = &mut self.negotiating {
            negotiating.attempt = Some(attempt);
            negotiating.not_before = not_before;
        }
    }

    fn authenticated(&mut self, account: BareJid, data: Option<&[u8]>) {
        let Some(negotiating) = &mut self.negotiating else { return };
        // SASL-8
        if negotiating.tls && negotiating.from.as_ref().is_some_and(|from| from != &account) {
            return self.fail(StreamCondition::InvalidFrom.into());
        }
        let Stage::Unauthed(session) = std::mem::replace(&mut self.stage, Stage::Over) else {
            return;
        };
        let now = self.core.environment.now();
        if let Some(early) = &negotiating.early {
            early.set_account(&account, now);
        }
        let key = self.core.ledger.account(&account);
        if let Some(place) = &self.place {
            place.authenticated(key);
        }
        // LIMIT-20: the source has its allowance back, the account's goes on.
        let Spent { pace, recipients } = self.core.allowances.take(key, now);
        let spent = Spent {
            pace: std::mem::replace(&mut self.pace, pace),
            recipients: std::mem::replace(&mut self.recipients, recipients),
        };
        let source = std::mem::replace(&mut self.spends, key);
        self.core.allowances.give_back(source, spent, now, &self.core.limits);
        match session.authenticate(account) {
            Ok(mut session) => {
                session.restart();
                session.set_protected(negotiating.secure);
                self.stage = Stage::Authed(session);
            }
            Err(refused) => {
                self.stage = Stage::Unauthed(refused.into_session());
                return self.fail(StreamCondition::InternalServerError.into());
            }
        }
        negotiating.restart();
        let mut words = Vec::new();
        wire::write_success(data, &mut words);
        self.send(&words);
        self.parser.authenticated(&self.core.limits.stream);
        // STREAM-28: clients that pipeline have sent the next header already.
        self.parser.restart(true);
    }
}

impl<C: SharedConnection> Core<C> {
    fn take_early(&self, nonza: &Nonza, answer: &mut Vec<u8>) -> Flow {
        let mut offered = self.extensions.iter().map(|one| one.unauthenticated(nonza, answer));
        offered.find(|flow| *flow != Flow::Next).unwrap_or(Flow::Next)
    }

    fn negotiate(&self, mut session: Session<Authed, C>, nonza: &Nonza) -> Negotiated<C> {
        for extension in &self.extensions {
            match extension.authenticated(session, &self.registry, nonza) {
                Negotiated::Next(back) => session = back,
                dealt_with => return dealt_with,
            }
        }
        Negotiated::Next(session)
    }

    pub(super) fn domain(&self, name: &str) -> Option<&Domain> {
        self.domains.iter().find(|domain| domain.name.as_str() == name)
    }
}
