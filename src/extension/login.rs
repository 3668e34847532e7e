//! What extensions make of requests that come together with an authentication (XEP-0388, XEP-0386).

use std::any::Any;
use std::fmt;
use std::time::Duration;

use jid::BareJid;

use crate::connection::SharedConnection;
use crate::session::{
    Authed, Bound, ResumeError, Resumed, Retention, Session, SessionRegistry, SessionSetup,
};

/// A client that has proved which account it is, and may get a session back.
///
/// Nothing of it is visible to others yet, and its client is told nothing before all that it asked for is
/// done.
pub struct LoggingIn<'a, C: SharedConnection> {
    registry: &'a SessionRegistry<C>,
    account: BareJid,
    /// `None` only while it changes its state.
    session: Option<Entering<C>>,
    answers: Vec<u8>,
}

/// A session before or after it was resumed.
pub(crate) enum Entering<C: SharedConnection> {
    Authed(Session<Authed, C>),
    Resumed(Session<Bound, C>),
}

impl<'a, C: SharedConnection> LoggingIn<'a, C> {
    pub(crate) fn new(session: Session<Authed, C>, registry: &'a SessionRegistry<C>) -> Self {
        let account = session.account().clone();
        let session = Some(Entering::Authed(session));
        Self { registry, account, session, answers: Vec::new() }
    }

    /// The account.
    #[must_use]
    pub const fn account(&self) -> &BareJid {
        &self.account
    }

    /// Gives the client the session back that this resumption id is of ([`Session::take_over`]): no resource is
    /// bound then, no later request is asked about, and the stream gets no features
    /// ([STREAM-F6](crate::rules#stream-f6)). What was not acknowledged follows the outcome of the login.
    ///
    /// # Errors
    ///
    /// [`ResumeError`]: nothing has changed, and the login goes on.
    pub fn resume(&mut self, token: &str, handled: u32) -> Result<Resumed, ResumeError> {
        match self.session.take() {
            Some(Entering::Authed(session)) => {
                match session.take_over(self.registry, token, handled) {
                    Ok((session, resumed)) => {
                        self.session = Some(Entering::Resumed(session));
                        Ok(resumed)
                    }
                    Err(refused) => {
                        let (session, error) = refused.into_parts();
                        self.session = Some(Entering::Authed(session));
                        Err(error)
                    }
                }
            }
            other => {
                self.session = other;
                Err(ResumeError::Misuse(crate::session::Misuse::NotOpen))
            }
        }
    }

    /// Whether the client has got a session back.
    #[must_use]
    pub const fn is_resumed(&self) -> bool {
        matches!(self.session, Some(Entering::Resumed(_)))
    }

    /// Tells the client something with the outcome of the login: a whole element.
    pub fn answer(&mut self, xml: &[u8]) {
        self.answers.extend_from_slice(xml);
    }

    /// What is answered so far.
    pub(crate) const fn answered(&self) -> usize {
        self.answers.len()
    }

    /// Takes back what was answered beyond that.
    pub(crate) fn unanswer(&mut self, answered: usize) {
        self.answers.truncate(answered);
    }

    pub(crate) fn into_parts(self) -> Option<(Entering<C>, Vec<u8>)> {
        Some((self.session?, self.answers))
    }
}

impl<C: SharedConnection> fmt::Debug for LoggingIn<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoggingIn").field("is_resumed", &self.is_resumed()).finish_non_exhaustive()
    }
}

/// A session that is about to be bound: what is set here it has before it can be found.
pub struct NewSession<'a, C: SharedConnection> {
    registry: &'a SessionRegistry<C>,
    account: &'a BareJid,
    setup: SessionSetup,
    answers: Vec<u8>,
}

impl<'a, C: SharedConnection> NewSession<'a, C> {
    pub(crate) fn new(registry: &'a SessionRegistry<C>, account: &'a BareJid) -> Self {
        Self { registry, account, setup: SessionSetup::default(), answers: Vec::new() }
    }

    /// The account.
    #[must_use]
    pub const fn account(&self) -> &'a BareJid {
        self.account
    }

    /// Keeps stanzas from the first one on until the client acknowledges them, and the session for `window`
    /// after the loss of its transport, as [`Session::retain`] does. `None` where that is so already.
    pub fn retain(&mut self, window: Duration) -> Option<Retention> {
        if self.setup.is_retained() {
            return None;
        }
        let retention = self.registry.retention(window);
        self.setup.retain(retention.clone());
        Some(retention)
    }

    /// Keeps a value for the session ([`SessionSetup::set_extension`]).
    pub fn set_extension<T: Any + Send + Sync>(&mut self, value: T) {
        self.setup.set_extension(value);
    }

    /// Keeps a value for the account, unless there is one of its type
    /// ([`SessionSetup::set_account_extension`]).
    pub fn set_account_extension<T: Any + Send + Sync>(&mut self, value: T) {
        self.setup.set_account_extension(value);
    }

    /// Holds back what the client of an inactive session is spared ([`SessionSetup::set_holding`]).
    pub const fn set_holding(&mut self, holding: bool) {
        self.setup.set_holding(holding);
    }

    /// Tells the client something with its resource: a whole element.
    pub fn answer(&mut self, xml: &[u8]) {
        self.answers.extend_from_slice(xml);
    }

    /// What is set and answered so far.
    pub(crate) fn so_far(&self) -> (SessionSetup, usize) {
        (self.setup.clone(), self.answers.len())
    }

    /// Takes back what was set and answered since.
    pub(crate) fn back_to(&mut self, (setup, answered): (SessionSetup, usize)) {
        self.setup = setup;
        self.answers.truncate(answered);
    }

    pub(crate) fn into_parts(self) -> (SessionSetup, Vec<u8>) {
        (self.setup, self.answers)
    }
}

impl<C: SharedConnection> fmt::Debug for NewSession<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewSession").field("setup", &self.setup).finish_non_exhaustive()
    }
}
