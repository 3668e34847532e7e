//! The way from an extension back to the server.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};

use jid::BareJid;

use super::AccountError;
use crate::connection::SharedConnection;
use crate::session::{SessionHandle, SessionRegistry};
use crate::stanza::Stanza;

/// Why a request has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// It is no iq get or set with an id, or has no `to`.
    #[error("not an iq get or set with an id and an address")]
    NotARequest,
    /// A request with the same id to the same entity is under way.
    #[error("a request with this id is under way")]
    Duplicate,
    /// No answer came in time.
    #[error("no answer came in time")]
    TimedOut,
}

/// Work that the server drives.
pub(crate) type Work = Pin<Box<dyn Future<Output = ()> + Send>>;
type Acted = Pin<Box<dyn Future<Output = Result<(), AccountError>> + Send>>;
type Asked = Pin<Box<dyn Future<Output = Result<Stanza, RequestError>> + Send>>;

/// What an extension can do with its server, which stands below it.
pub(crate) trait Reach<C: SharedConnection>: Send + Sync {
    fn registry(&self) -> &SessionRegistry<C>;
    fn send(self: Arc<Self>, stanza: Stanza);
    fn ask(self: Arc<Self>, iq: Stanza) -> Asked;
    fn spawn(self: Arc<Self>, work: Work);
    fn create(self: Arc<Self>, account: BareJid, password: String, source: Option<&str>) -> Acted;
    fn set_password(self: Arc<Self>, by: SessionHandle<C>, password: String) -> Acted;
    fn remove(self: Arc<Self>, by: SessionHandle<C>, request: Stanza) -> Acted;
    fn befriend(self: Arc<Self>, one: BareJid, other: BareJid) -> Acted;
}

/// The server, as an extension reaches it: cheap to clone, and keeps nothing alive. Once the server is
/// gone it does nothing.
pub struct ServerHandle<C: SharedConnection>(pub(crate) Weak<dyn Reach<C>>);

impl<C: SharedConnection> ServerHandle<C> {
    /// Routes a stanza by its `to`: see [`Server::send`](crate::server::Server::send).
    pub fn send(&self, stanza: Stanza) {
        if let Some(server) = self.0.upgrade() {
            server.send(stanza);
        }
    }

    /// Sends an iq get or set, and waits for its answer: see
    /// [`Server::request`](crate::server::Server::request).
    ///
    /// # Errors
    ///
    /// [`RequestError`] when no answer comes within 60 seconds, or the iq is no request.
    pub async fn request(&self, iq: Stanza) -> Result<Stanza, RequestError> {
        let asked = self.0.upgrade().map(|server| server.ask(iq));
        match asked {
            Some(answer) => answer.await,
            None => Err(RequestError::TimedOut),
        }
    }

    /// Has [`Server::background`](crate::server::Server::background) drive this, beside all else.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        if let Some(server) = self.0.upgrade() {
            server.spawn(Box::pin(work));
        }
    }

    /// Creates an account: see [`Account::create`](crate::server::Account::create). `source`: in whose turn its
    /// password is hashed ([LIMIT-28](crate::rules#limit-28)).
    ///
    /// # Errors
    ///
    /// [`AccountError`]; [`AccountError::NoAccount`] once the server is gone.
    pub async fn create(
        &self,
        account: &BareJid,
        password: &str,
        source: Option<&str>,
    ) -> Result<(), AccountError> {
        let server = self.0.upgrade().ok_or(AccountError::NoAccount)?;
        server.create(account.clone(), password.to_owned(), source).await
    }

    /// A session changes the password of its account: see
    /// [`Account::set_password`](crate::server::Account::set_password).
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create); [`AccountError::NoAccount`] for one that has no password here.
    pub async fn set_password(
        &self,
        by: &SessionHandle<C>,
        password: &str,
    ) -> Result<(), AccountError> {
        let server = self.0.upgrade().ok_or(AccountError::NoAccount)?;
        server.set_password(by.clone(), password.to_owned()).await
    }

    /// A session removes its account ([DESTROY-15](crate::rules#destroy-15)). Once everything is deleted its `request`, an iq,
    /// is answered with a result, and the session ends; the others have by then.
    ///
    /// # Errors
    ///
    /// As [`set_password`](Self::set_password); then the request was not answered, and the account is still there.
    pub async fn remove(
        &self,
        by: &SessionHandle<C>,
        request: &Stanza,
    ) -> Result<(), AccountError> {
        let server = self.0.upgrade().ok_or(AccountError::NoAccount)?;
        server.remove(by.clone(), request.clone()).await
    }

    /// Subscribes two accounts to each other: see
    /// [`Account::befriend`](crate::server::Account::befriend).
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn befriend(&self, one: &BareJid, other: &BareJid) -> Result<(), AccountError> {
        let server = self.0.upgrade().ok_or(AccountError::NoAccount)?;
        server.befriend(one.clone(), other.clone()).await
    }

    /// All sessions; `None` once the server is gone.
    #[must_use]
    pub fn registry(&self) -> Option<SessionRegistry<C>> {
        self.0.upgrade().map(|server| server.registry().clone())
    }
}

impl<C: SharedConnection> Clone for ServerHandle<C> {
    fn clone(&self) -> Self {
        Self(Weak::clone(&self.0))
    }
}

impl<C: SharedConnection> fmt::Debug for ServerHandle<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerHandle").finish_non_exhaustive()
    }
}
