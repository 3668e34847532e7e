//! Logins of guests (ANONYMOUS).

use super::super::blocked::SaslAnswer;
use super::{Driver, State};
use crate::connection::SharedConnection;
use crate::stream::Limit;

impl<C: SharedConnection> Driver<C> {
    /// GUEST-1, LIMIT-32
    pub(super) fn admit_guest(&mut self) {
        let State::Unauthed(session) = &self.state else { return };
        let Some(domain) = session.domain() else { return };
        let policy = self.core.domain(domain.as_str()).and_then(|domain| domain.guests.as_ref());
        let (Some(policy), Some(guests)) = (policy, &self.core.guests) else { return };
        let account = guests.admit(domain, policy, self.core.ledger.source(&self.peer));
        match &account {
            Some(account) => self.terms_mut().guest = Some(account.clone()),
            None => self.limit(Limit::Guests),
        }
        self.sasl_answer(Some(SaslAnswer::Guest(account)));
    }
}
