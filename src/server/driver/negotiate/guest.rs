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
        // One for each transport, whatever became of an earlier login.
        let before = self.rare.as_ref().and_then(|rare| rare.terms.guest.clone());
        let before = before.filter(|account| account.domain() == domain);
        let source = self.core.ledger.source(&self.peer);
        let account = before.or_else(|| guests.admit(domain, policy, source, !self.core.is_node()));
        match &account {
            Some(account) => {
                let other = self.terms_mut().guest.replace(account.clone());
                if let Some(other) = other.filter(|other| other != account) {
                    self.end_guest(other);
                }
            }
            None => self.limit(Limit::Guests),
        }
        self.sasl_answer(Some(SaslAnswer::Guest(account)));
    }
}
