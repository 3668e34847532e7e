//! What a host says of a transport, and what its driver wants of the host.

use std::fmt;

/// What the driver wants of the host now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Want {
    /// Read, then [`Driver::receive`](crate::server::Driver::receive).
    Input,
    /// Flush what waits, do the TLS handshake as the server, then
    /// [`Driver::secured`](crate::server::Driver::secured). A handshake that fails ends the transport
    /// without another word (TLS-1), and so does one during which the driver, which is to be polled
    /// meanwhile, wants [`Close`](Self::Close).
    StartTls,
    /// Flush what waits, end the transport, drop the driver.
    Close,
}

/// A transport that was just accepted, as its host knows it.
#[derive(Clone, Default)]
#[must_use = "says something to `accept` only"]
pub struct Transport {
    pub(super) secure: bool,
    pub(super) starttls: bool,
    pub(super) direct_tls: bool,
    pub(super) source: Option<String>,
}

impl Transport {
    /// A plain transport that cannot be upgraded.
    pub const fn new() -> Self {
        Self { secure: false, starttls: false, direct_tls: false, source: None }
    }

    /// Declares the transport secure as it is, without TLS on it: a loopback, a trusted proxy (TLS-3).
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
    /// ([XEP-0368](https://xmpp.org/extensions/xep-0368.html)): the driver wants
    /// [`Want::StartTls`] first.
    pub const fn direct_tls(mut self, first: bool) -> Self {
        self.direct_tls = first;
        self
    }

    /// Where the transport comes from (an IP address, say), for LIMIT-25, faults and logs. Never shown to
    /// others (SEC-5).
    pub fn source(mut self, source: impl Into<String>) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("secure", &self.secure)
            .field("starttls", &self.starttls)
            .field("direct_tls", &self.direct_tls)
            .finish_non_exhaustive()
    }
}
