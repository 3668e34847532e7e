//! Logins that the host checks by itself: passwords, tokens.

use jid::BareJid;

use super::super::blocked::SaslAnswer;
use super::{Driver, State};
use crate::connection::SharedConnection;
use crate::sasl::{Mechanism, Negotiation};
use crate::server::builder::Domain;
use crate::session::HostCode;
use crate::store::{LoginRequest, TokenVerdict};

impl<C: SharedConnection> Driver<C> {
    /// The domain that the client logs in to, and what is known of that.
    pub(super) fn login_request(&self) -> Option<(&Domain, LoginRequest)> {
        let State::Unauthed(session) = &self.state else { return None };
        let domain = self.core.domain(session.domain()?.as_str())?;
        let negotiating = self.negotiating.as_ref()?;
        let asked = negotiating.sasl.as_ref().and_then(Negotiation::asked);
        let request = LoginRequest {
            domain: domain.name.clone(),
            mechanism: negotiating.mechanism.map_or("", Mechanism::as_str),
            source: self.peer.is_known().then(|| self.peer.to_string().into()),
            user_agent: asked.map(|asked| asked.agent.clone()),
        };
        Some((domain, request))
    }

    pub(super) fn check_password(&mut self, account: BareJid, password: String) {
        let Some((domain, login)) = self.login_request() else { return };
        let Some(authenticator) = domain.authenticator.clone() else { return };
        self.begin_login(Some(&account));
        self.wait_for_sasl(async move {
            let verdict = authenticator.check_login(&account, &password, &login).await;
            verdict.ok().map(SaslAnswer::Verdict)
        });
    }

    pub(super) fn check_token(&mut self, claimed: Option<&BareJid>, token: String) {
        let Some((domain, login)) = self.login_request() else { return };
        let Some(tokens) = domain.tokens.clone() else { return };
        self.begin_login(claimed);
        self.wait_for_sasl(async move {
            tokens.check_token(&token, &login).await.ok().map(SaslAnswer::Token)
        });
    }

    /// What a client is told that has no token.
    pub(super) fn discovery(&mut self) {
        let Some((domain, _)) = self.login_request() else { return };
        let Some(tokens) = domain.tokens.clone() else { return };
        let told = self.shielded_as(HostCode::Authenticator, || tokens.discovery());
        let error = told.unwrap_or_default();
        self.sasl_answer(Some(SaslAnswer::Token(TokenVerdict::Refused(error))));
    }
}
