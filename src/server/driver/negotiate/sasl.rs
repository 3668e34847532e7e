//! The SASL exchange on the stream (RFC 6120 §6).

use std::sync::Arc;
use std::time::SystemTime;

use jid::BareJid;

use super::super::blocked::{Pending, SaslAnswer};
use super::{Driver, State};
use crate::connection::SharedConnection;
use crate::sasl::{Failure, Negotiation, Step, wire};
use crate::server::{FaultKind, LoginStep};
use crate::session::HostCode;
use crate::store::Verdict;
use crate::stream::{Limit, Nonza, StreamCondition, StreamError};

impl<C: SharedConnection> Driver<C> {
    fn sasl(&mut self) -> Option<&mut Negotiation> {
        self.negotiating.as_mut().and_then(|negotiating| negotiating.sasl.as_mut())
    }

    pub(super) fn sasl_request(&mut self, nonza: &Nonza) {
        let mechanism = nonza.attribute("mechanism");
        let text = nonza.text();
        let request = wire::parse(nonza.name(), mechanism.as_deref(), &text);
        if nonza.name() == "auth"
            && let Some(negotiating) = &mut self.negotiating
        {
            negotiating.mechanism = mechanism.as_deref().and_then(|name| name.parse().ok());
            negotiating.claimed = None;
            negotiating.since.auth = self.core.environment.now();
        }
        if let Some(step) = self.sasl().map(|sasl| sasl.receive(request)) {
            self.sasl_step(step);
        }
    }

    /// `None`: a store has failed, or the password could not be checked.
    pub(in super::super) fn sasl_answer(&mut self, answer: Option<SaslAnswer>) {
        let Some(sasl) = self.sasl() else { return };
        let step = match answer {
            Some(SaslAnswer::Credentials(found)) => sasl.credentials(found),
            Some(SaslAnswer::Verdict(verdict)) => sasl.verdict(verdict),
            Some(SaslAnswer::Token(verdict)) => sasl.token(verdict),
            Some(SaslAnswer::Guest(account)) => sasl.guest(account),
            Some(SaslAnswer::Hashed(right)) => sasl.hashed(right),
            None => Err(sasl.store_failed()),
        };
        self.sasl_step(step);
    }

    fn sasl_step(&mut self, step: Result<Step, Failure>) {
        match step {
            Ok(Step::Challenge(data)) => {
                // It is the client's turn.
                self.progressed(false);
                self.write(|words| wire::write_challenge(&data, words));
            }
            Ok(Step::NeedCredentials { account }) => self.find_credentials(account),
            Ok(Step::CheckPassword { account, password }) => self.check_password(account, password),
            Ok(Step::CheckToken { claimed, token }) => self.check_token(claimed.as_ref(), token),
            Ok(Step::NeedDiscovery) => self.discovery(),
            Ok(Step::NeedGuest) => self.admit_guest(),
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
            Ok(Step::Success { account, data, expires }) => {
                self.progressed(false);
                self.end_login(true);
                self.authenticated(account, data.as_deref(), expires);
            }
            Err(refused) => {
                self.progressed(false);
                self.login_refused(&refused);
            }
        }
    }

    fn find_credentials(&mut self, account: BareJid) {
        self.begin_login(Some(&account));
        let accounts = Arc::clone(&self.core.stores.accounts);
        self.wait_for_sasl(async move {
            accounts.credentials(&account).await.ok().map(SaslAnswer::Credentials)
        });
    }

    /// EXTERNAL-3
    fn check_account(&mut self, account: BareJid) {
        self.begin_login(Some(&account));
        let accounts = Arc::clone(&self.core.stores.accounts);
        self.wait_for_sasl(async move {
            // A host that checks passwords itself may have accounts without credentials.
            let verdict = match accounts.credentials(&account).await.ok()? {
                Some(credentials) if credentials.disabled => Verdict::Disabled,
                Some(_) => Verdict::Accepted,
                None if accounts.exists(&account).await.ok()? => Verdict::Accepted,
                None => Verdict::Refused,
            };
            Some(SaslAnswer::Verdict(verdict))
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
        self.write(|words| wire::write_failure(refused.error, refused.text.as_deref(), words));
        if refused.close {
            // SASL-9
            self.fail(StreamError::exceeded(Limit::Retries));
        }
    }

    fn authenticated(
        &mut self,
        account: BareJid,
        data: Option<&[u8]>,
        expires: Option<SystemTime>,
    ) {
        let Some(negotiating) = &mut self.negotiating else { return };
        // SASL-8
        if negotiating.tls && negotiating.from.as_ref().is_some_and(|from| from != &account) {
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
        self.parser.authenticated(&self.core.limits.stream);
        // STREAM-28: clients that pipeline have sent the next header already.
        self.parser.restart(true);
    }

    /// The stream is that of an account; `false` where it cannot be.
    pub(super) fn become_account(&mut self, account: BareJid) -> bool {
        let Some(negotiating) = &mut self.negotiating else { return false };
        let State::Unauthed(session) = std::mem::replace(&mut self.state, State::Over) else {
            return false;
        };
        let key = self.core.ledger.account(&account);
        if let Some(place) = &self.place {
            place.authenticated(key);
        }
        let (mechanism, core) = (negotiating.mechanism, &self.core);
        match session.authenticate(account) {
            Ok(mut session) => {
                core.metrics.login(mechanism);
                let time = core.environment.now().saturating_sub(negotiating.since.auth);
                core.metrics.login_step(LoginStep::Sasl, time);
                self.trace.logged_in(session.account(), mechanism, core.log_addresses);
                session.restart();
                session.set_protected(negotiating.secure);
                self.state = State::Authed(session);
            }
            Err(refused) => {
                self.state = State::Unauthed(refused.into_session());
                self.spend_as(key);
                return false;
            }
        }
        negotiating.restart();
        self.spend_as(key);
        true
    }

    /// LIMIT-20: the source gets its allowance back, and the account's is spent from now on.
    fn spend_as(&mut self, key: u64) {
        let now = self.core.environment.now();
        let spent = std::mem::replace(&mut self.spent, self.core.allowances.take(key, now));
        let before = std::mem::replace(&mut self.spends_as, key);
        self.core.allowances.give_back(before, spent, now, &self.core.limits);
    }
}
