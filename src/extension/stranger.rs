//! Requests of clients that have not authenticated.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use jid::DomainRef;

use super::ServerHandle;
use crate::connection::SharedConnection;
use crate::session::Values;
use crate::stanza::{Child, Stanza};

/// An iq get or set of a client that has not authenticated, on a secure stream: without an address, or to the
/// domain of the stream ([REG-1](crate::rules#reg-1)).
pub struct UnauthenticatedIq<'a, C: SharedConnection> {
    pub(crate) stanza: &'a Stanza,
    pub(crate) query: Child<'a>,
    pub(crate) domain: &'a DomainRef,
    pub(crate) source: Option<&'a str>,
    pub(crate) kept: &'a mut Values,
    pub(crate) server: &'a ServerHandle<C>,
}

impl<'a, C: SharedConnection> UnauthenticatedIq<'a, C> {
    /// The iq. Whatever it has for `from` was taken out.
    #[must_use]
    pub const fn stanza(&self) -> &'a Stanza {
        self.stanza
    }

    /// Its one child.
    #[must_use]
    pub const fn query(&self) -> &Child<'a> {
        &self.query
    }

    /// Whether it is of type set.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.stanza.type_().as_deref() == Some("set")
    }

    /// Whether its one child has this name and namespace.
    #[must_use]
    pub fn is(&self, name: &str, namespace: &str) -> bool {
        self.query.is(name, namespace)
    }

    /// The domain that the stream is for.
    #[must_use]
    pub const fn domain(&self) -> &'a DomainRef {
        self.domain
    }

    /// Where the transport comes from, as its host has said.
    #[must_use]
    pub const fn source(&self) -> Option<&'a str> {
        self.source
    }

    /// What the extension keeps for this stream until it is authenticated, told apart by its type: made when it is
    /// first asked for.
    #[must_use]
    pub fn kept<T: Any + Default + Send + Sync>(&mut self) -> Arc<T> {
        self.kept.get().unwrap_or_else(|| {
            let new = Arc::<T>::default();
            self.kept.put(Arc::clone(&new) as _);
            new
        })
    }

    /// The server.
    #[must_use]
    pub const fn server(&self) -> &'a ServerHandle<C> {
        self.server
    }
}

impl<C: SharedConnection> fmt::Debug for UnauthenticatedIq<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnauthenticatedIq").field("is_set", &self.is_set()).finish_non_exhaustive()
    }
}
