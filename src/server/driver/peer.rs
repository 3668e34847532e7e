//! What a driver and its host tell each other.

use std::fmt;

/// What the driver wants of the host now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Want {
    /// Read, then [`Driver::receive`](crate::server::Driver::receive).
    Input,
    /// Flush what waits, do the TLS handshake as the server, then [`Driver::secured`](crate::server::Driver::secured). A handshake
    /// that fails ends the transport, without another word (TLS-1), and so does one during which the
    /// driver comes to want [`Close`](Self::Close): it is to be polled meanwhile.
    StartTls,
    /// Flush what waits, end the transport, drop the driver.
    Close,
}

/// What the host knows about a transport at its beginning.
#[derive(Clone, Default)]
#[must_use = "a peer says something to `accept` only"]
pub struct Peer {
    pub(super) secure: bool,
    pub(super) starttls: bool,
    pub(super) direct_tls: bool,
    pub(super) source: Option<String>,
}

impl Peer {
    /// A plain transport that cannot be upgraded.
    pub const fn new() -> Self {
        Self { secure: false, starttls: false, direct_tls: false, source: None }
    }

    /// Declares the transport secure without TLS of ours: a loopback, a trusted proxy (TLS-3).
    pub const fn secure(mut self, secure: bool) -> Self {
        self.secure = secure;
        self
    }

    /// Whether the host can do a TLS handshake when asked to ([`Want::StartTls`]).
    pub const fn starttls(mut self, possible: bool) -> Self {
        self.starttls = possible;
        self
    }

    /// Whether the transport begins with a TLS handshake
    /// ([XEP-0368](https://xmpp.org/extensions/xep-0368.html)): then [`Want::StartTls`] is the first
    /// that the driver wants.
    pub const fn direct_tls(mut self, first: bool) -> Self {
        self.direct_tls = first;
        self
    }

    /// Where the transport comes from (an IP address, say), for LIMIT-25. Never shown to others
    /// (SEC-5).
    pub fn source(mut self, source: impl Into<String>) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("secure", &self.secure)
            .field("starttls", &self.starttls)
            .field("direct_tls", &self.direct_tls)
            .finish_non_exhaustive()
    }
}
