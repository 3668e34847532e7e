//! The SASL exchange on the stream (RFC 6120 §6).

use std::sync::Arc;
use std::time::SystemTime;

use jid::BareJid;

use super::super::blocked::{Pending, SaslAnswer};
use super::{Driver, EarlyData, State};
use crate::connection::SharedConnection;
use crate::sasl::wire::Profile;
use crate::sasl::{
    Establish, Failure, Fast, FastProof, Holder, Mechanism, Negotiation, SaslError, Step, wire,
};
use crate::server::tokens::FastLogin;
use crate::server::{FaultKind, LoginStep};
use crate::session::{Authed, HostCode, Session};
use crate::store::{ClientKey, Verdict};
use crate::stream::{Limit, Nonza, StreamCondition, StreamError};

impl<C: SharedConnection> Driver<C> {
    fn sasl(&mut self) -> Option<&mut Negotiation> {
        self.negotiating.as_mut().and_then(|negotiating| negotiating.sasl.as_mut())
    }

    pub(super) fn sasl_request(&mut self, nonza: &Nonza) {
        let mechanism = nonza.attribute("mechanism");
        let text = nonza.text();
        let request = match self.is_early() {
            // SASL2-11
            true => Err(SaslError::TemporaryAuthFailure),
            false => wire::parse(nonza.name(), mechanism.as_deref(), &text),
        };
        self.note_request(Profile::Sasl1, nonza.name() == "auth", mechanism.as_deref());
        if let Some(step) = self.sasl().map(|sasl| sasl.receive(request)) {
            self.sasl_step(step);
        }
    }

    pub(super) fn sasl_request_2(&mut self, nonza: &Nonza) {
        let mechanism = nonza.attribute("mechanism");
        let is_first = nonza.name() == "authenticate";
        let asked = is_first.then(|| Box::new(Establish::read(nonza)));
        self.note_request(Profile::Sasl2, is_first, mechanism.as_deref());
        let request = match self.is_early() && !self.may_be_early(asked.as_deref()) {
            // SASL2-11
            true => Err(SaslError::TemporaryAuthFailure),
            false => wire::parse_2(nonza, mechanism.as_deref()),
        };
        if let Some(step) = self.sasl().map(|sasl| sasl.receive_2(request, asked)) {
            self.sasl_step(step);
        }
    }

    pub(super) fn is_early(&self) -> bool {
        self.negotiating.as_ref().is_some_and(|negotiating| negotiating.early != EarlyData::No)
    }

    /// FAST-6
    fn may_be_early(&self, asked: Option<&Establish>) -> bool {
        let State::Unauthed(session) = &self.state else { return false };
        let domain = session.domain().and_then(|domain| self.core.domain(domain.as_str()));
        let mechanism = self.negotiating.as_ref().and_then(|negotiating| negotiating.mechanism);
        domain.is_some_and(|domain| domain.sasl.takes_early_data())
            && mechanism.is_some_and(Mechanism::is_for_tokens)
            && asked.and_then(Fast::of).is_some_and(|fast| fast.count.is_some())
    }

    /// What was early is read.
    pub(super) fn early_data_ends(&mut self) {
        let is_read = self.parser.is_between();
        if let Some(negotiating) = self.negotiating.as_mut().filter(|_| is_read)
            && negotiating.early == EarlyData::Unread
        {
            negotiating.early = EarlyData::No;
        }
    }

    /// What the client asks for, and whether it begins an exchange.
    fn note_request(&mut self, profile: Profile, is_first: bool, mechanism: Option<&str>) {
        let Some(negotiating) = &mut self.negotiating else { return };
        negotiating.profile = profile;
        if is_first {
            negotiating.mechanism = mechanism.and_then(|name| name.parse().ok());
            negotiating.claimed = None;
            negotiating.since.auth = self.core.environment.now();
        }
    }

    fn profile(&self) -> Profile {
        self.negotiating.as_ref().map(|negotiating| negotiating.profile).unwrap_or_default()
    }

    /// `None`: a store has failed, or the password could not be checked.
    pub(in super::super) fn sasl_answer(&mut self, answer: Option<SaslAnswer>) {
        let Some(sasl) = self.sasl() else { return };
        let step = match answer {
            Some(SaslAnswer::Credentials(found)) => sasl.credentials(*found),
            Some(SaslAnswer::Verdict(verdict)) => sasl.verdict(verdict),
            Some(SaslAnswer::Token(verdict)) => sasl.token(verdict),
            Some(SaslAnswer::Guest(account)) => sasl.guest(account),
            Some(SaslAnswer::Fast(found)) => sasl.fast(*found),
            Some(SaslAnswer::Hashed(right)) => sasl.hashed(right),
            Some(SaslAnswer::Added(is_added)) => sasl.added(is_added),
            None => Err(sasl.store_failed()),
        };
        self.sasl_step(step);
    }

    fn sasl_step(&mut self, step: Result<Step, Failure>) {
        self.take_step(step);
        let is_exclusive = self.is_exclusive();
        self.parser.set_strict(is_exclusive);
    }

    fn take_step(&mut self, step: Result<Step, Failure>) {
        match step {
            Ok(Step::Challenge(data)) => {
                // It is the client's turn.
                self.progressed(false);
                let profile = self.profile();
                self.write(|words| wire::write_challenge(profile, &data, words));
            }
            Ok(Step::NeedCredentials { account }) => self.find_credentials(account),
            Ok(Step::CheckPassword { account, password }) => self.check_password(account, password),
            Ok(Step::CheckToken { claimed, token }) => self.check_token(claimed.as_ref(), token),
            Ok(Step::NeedDiscovery) => self.discovery(),
            Ok(Step::NeedGuest) => self.admit_guest(),
            Ok(Step::CheckFast { account, proof }) => self.check_fast(account, proof),
            Ok(Step::CheckAccount { account }) => self.check_account(account),
            Ok(Step::CheckKeys(check)) => match &self.core.hashing {
                Some(hashing) => {
                    let source = self.core.ledger.source(&self.peer);
                    let answer = hashing.submit(source, check);
                    self.wait_for_sasl(async { answer.await.map(SaslAnswer::Hashed) });
                }
                None => {
                    let hashed = self.shielded_as(HostCode::Hashing, check);
                    self.sasl_answer(hashed.map(SaslAnswer::Hashed));
                }
            },
            Ok(Step::Continue { account, .. }) if self.is_other_than(&account) => {
                self.wrong_identity();
            }
            Ok(Step::Continue { data, task, .. }) => {
                self.progressed(false);
                // The password was right, whatever comes of the tasks.
                self.end_login(true);
                self.write(|words| wire::write_continue(data.as_deref(), task, words));
            }
            Ok(Step::Salt { salt, iterations }) => {
                self.write(|words| wire::write_salt(&salt, iterations, words));
            }
            Ok(Step::AddKeys { account, proved, added }) => {
                let accounts = Arc::clone(&self.core.stores.accounts);
                self.wait_for_sasl(async move {
                    accounts.add_keys(&account, proved, added).await.ok().map(SaslAnswer::Added)
                });
            }
            Ok(Step::Success { account, data, expires }) => {
                self.progressed(false);
                let asked = self.sasl().and_then(Negotiation::take_asked);
                // SASL2-4
                if asked.is_some() && self.is_other_than(&account) {
                    return self.wrong_identity();
                }
                self.end_login(true);
                match asked {
                    None => self.authenticated(account, data.as_deref(), expires),
                    Some(asked) => {
                        self.expires_at(expires);
                        self.establish(account, asked, data);
                    }
                }
            }
            Err(refused) => {
                self.progressed(false);
                self.login_refused(&refused);
            }
        }
    }

    /// SASL2-4
    fn wrong_identity(&mut self) {
        self.progressed(false);
        let refused = self.sasl().map(Negotiation::wrong_identity);
        refused.iter().for_each(|refused| self.login_refused(refused));
    }

    fn find_credentials(&mut self, account: BareJid) {
        self.begin_login(Some(&account));
        let accounts = Arc::clone(&self.core.stores.accounts);
        self.wait_for_sasl(async move {
            let found = accounts.credentials(&account).await.ok()?;
            Some(SaslAnswer::Credentials(Box::new(found)))
        });
    }

    /// EXTERNAL-3, TOKEN-5: whether the account that a certificate or a token is for may log in.
    fn check_account(&mut self, account: BareJid) {
        let Some((domain, request)) = self.login_request() else { return };
        let host = domain.authenticator.clone();
        if request.mechanism == Mechanism::External.as_str() {
            // That of a token has begun when it was checked.
            self.begin_login(Some(&account));
        }
        let accounts = Arc::clone(&self.core.stores.accounts);
        self.wait_for_sasl(async move {
            // A host that checks passwords itself may have accounts without credentials.
            let verdict = match accounts.credentials(&account).await.ok()? {
                Some(credentials) if credentials.disabled => Verdict::Disabled,
                None if !accounts.exists(&account).await.ok()? => Verdict::Refused,
                _ => match host {
                    Some(host) => host.check_account(&account, &request).await.ok()?,
                    None => Verdict::Accepted,
                },
            };
            Some(SaslAnswer::Verdict(verdict))
        });
    }

    /// FAST-7: whether there is such an account and client or not.
    fn check_fast(&mut self, account: BareJid, proof: FastProof) {
        let asked = self.sasl().and_then(|sasl| sasl.asked());
        let fast = asked.and_then(Fast::of);
        let client = asked.and_then(|asked| asked.agent.id);
        let known = self.login_request().map(|(domain, request)| {
            let host = domain.authenticator.clone().map(|host| (host, request));
            (Arc::clone(&domain.sasl), host)
        });
        let (Some(fast), Some(client), Some((policy, host))) = (fast, client, known) else {
            let refused = Box::new(Err(SaslError::MalformedRequest));
            return self.sasl_answer(Some(SaslAnswer::Fast(refused)));
        };
        self.begin_login(Some(&account));
        let holder = Holder { client: ClientKey::of(&account, client), account };
        let Fast { count, invalidate } = fast;
        let login = FastLogin { holder, proof, count, invalidate, host };
        let core = Arc::clone(&self.core);
        self.wait_for_sasl(async move {
            let found = core.check_token(&policy, &login).await.ok()?;
            Some(SaslAnswer::Fast(Box::new(found)))
        });
    }

    pub(super) fn wait_for_sasl(
        &mut self,
        answer: impl Future<Output = Option<SaslAnswer>> + Send + 'static,
    ) {
        self.pending = Some(Pending::Sasl(Box::pin(answer)));
    }

    /// LIMIT-29: a login of a source where many have failed is checked later, be it right or wrong.
    /// Where the host names no source, the account's failures count; where the client names no account
    /// either, it has to guess a whole token.
    pub(super) fn begin_login(&mut self, account: Option<&BareJid>) {
        let source = self.core.ledger.source(&self.peer);
        let named = Some(source.key()).filter(|key| *key != 0);
        let key = named.or_else(|| account.map(|account| self.core.ledger.account(account)));
        let begun = key.map(|key| self.core.login_failures.begin(key));
        let (login, not_before) = begun.unzip();
        let not_before = not_before.flatten();
        self.progressed(true);
        if not_before.is_some() {
            self.core.limit(Limit::FailedLogins, &self.peer, account);
        }
        if let Some(negotiating) = &mut self.negotiating {
            negotiating.claimed = account.cloned();
            negotiating.login = login;
            negotiating.not_before = not_before;
        }
    }

    /// The login under way has failed, unless it is forgiven: it was right, or could not be checked.
    fn end_login(&mut self, forgiven: bool) {
        let login = self.negotiating.as_mut().and_then(|negotiating| negotiating.login.take());
        if let Some(login) = login.filter(|_| forgiven) {
            login.forgive();
        }
    }

    fn login_refused(&mut self, refused: &Failure) {
        self.end_login(!refused.error.counts());
        let negotiating = self.negotiating.as_ref();
        let mechanism = negotiating.and_then(|negotiating| negotiating.mechanism);
        let claimed = negotiating.and_then(|negotiating| negotiating.claimed.as_ref());
        self.core.metrics.login_failed(mechanism, refused.error);
        let kind = FaultKind::Login { mechanism, error: refused.error };
        let span = self.trace.entered();
        self.core.faults.tell(kind, &self.peer, claimed);
        drop(span);
        let (profile, text) = (self.profile(), refused.text.as_deref());
        self.write(|words| wire::write_failure(profile, refused.error, text, words));
        if refused.close {
            // SASL-9
            self.fail(StreamError::exceeded(Limit::Retries));
        }
    }

    /// What the client proved was right, and it cannot have what it asked for: nothing has happened.
    pub(super) fn login_impossible(&mut self) {
        if matches!(self.state, State::Binding)
            && let Some(domain) = self.negotiating.as_mut().and_then(|it| it.domain.take())
        {
            let mut session = Session::new(self.connection.clone());
            session.open(domain);
            self.state = State::Unauthed(session);
        }
        if let Some(place) = &self.place {
            place.unauthenticated();
        }
        self.expires_at(None);
        let refused = self.sasl().map(Negotiation::store_failed);
        refused.iter().for_each(|refused| self.login_refused(refused));
        self.count_bind_failure();
    }

    /// Whether the header was in the name of another account.
    fn is_other_than(&self, account: &BareJid) -> bool {
        let from = self.negotiating.as_ref().and_then(|negotiating| negotiating.from.as_ref());
        from.is_some_and(|from| from != account)
    }

    fn authenticated(
        &mut self,
        account: BareJid,
        data: Option<&[u8]>,
        expires: Option<SystemTime>,
    ) {
        let Some(negotiating) = &mut self.negotiating else { return };
        // SASL-8
        if negotiating.tls && self.is_other_than(&account) {
            return self.fail(StreamCondition::InvalidFrom.into());
        }
        if !matches!(self.state, State::Unauthed(_)) {
            return;
        }
        if !self.become_account(account) {
            return self.fail(StreamCondition::InternalServerError.into());
        }
        self.expires_at(expires);
        self.write(|words| wire::write_success(data, words));
        #[cfg(feature = "cluster")]
        if let (Some(edges), State::Authed(session)) = (self.core.edges.get(), &self.state) {
            return self.go_away(&Arc::clone(edges), session.account().clone(), None);
        }
        self.parser.authenticated(&self.core.limits.stream);
        // STREAM-28: clients that pipeline have sent the next header already.
        self.parser.restart(true);
    }

    /// The stream is that of an account; `false` where it cannot be.
    pub(super) fn become_account(&mut self, account: BareJid) -> bool {
        let Some(mut session) = self.authenticate(account) else { return false };
        self.logged_in(session.account());
        session.restart();
        self.state = State::Authed(session);
        if let Some(negotiating) = &mut self.negotiating {
            negotiating.restart();
        }
        true
    }

    /// The typed session of the account, which the stream is left without; `None` where there can be none.
    pub(super) fn authenticate(&mut self, account: BareJid) -> Option<Session<Authed, C>> {
        let negotiating = self.negotiating.as_mut()?;
        let session = match std::mem::replace(&mut self.state, State::Binding) {
            State::Unauthed(session) => session,
            state => {
                self.state = state;
                return None;
            }
        };
        negotiating.domain = session.domain().map(ToOwned::to_owned);
        if let Some(place) = &self.place {
            place.authenticated(self.core.ledger.account(&account));
        }
        match session.authenticate(account) {
            Ok(mut session) => {
                session.set_protected(negotiating.secure);
                Some(session)
            }
            Err(refused) => {
                self.state = State::Unauthed(refused.into_session());
                None
            }
        }
    }

    /// The client is logged in as this account.
    pub(super) fn logged_in(&mut self, account: &BareJid) {
        let Some(negotiating) = &self.negotiating else { return };
        let (mechanism, core) = (negotiating.mechanism, &self.core);
        core.metrics.login(mechanism);
        let time = core.environment.now().saturating_sub(negotiating.since.auth);
        core.metrics.login_step(LoginStep::Sasl, time);
        self.trace.logged_in(account, mechanism, core.log_addresses);
        self.spend_for(account);
        self.leave_guest(account);
    }

    /// What the client does counts with what others do who are logged in as this account.
    pub(in super::super) fn spend_for(&mut self, account: &BareJid) {
        let core = &self.core;
        let key = match self.is_guest(account) {
            // GUEST-6: else each login as a guest would bring a new burst.
            true => core.ledger.guests_of(core.ledger.source(&self.peer)),
            false => core.ledger.account(account),
        };
        self.spend_as(key);
    }

    /// LIMIT-20: the source gets its allowance back, and the account's is spent from now on.
    pub(super) fn spend_as(&mut self, key: u64) {
        let now = self.core.environment.now();
        let spent = std::mem::replace(&mut self.spent, self.core.allowances.take(key, now));
        let before = std::mem::replace(&mut self.spends_as, key);
        self.core.allowances.give_back(before, spent, now, &self.core.limits);
    }
}
