//! What a host says of a transport, and what its driver wants of the host.

use std::fmt;
use std::time::Duration;

use crate::sasl::ChannelBindings;

/// What the driver wants of the host now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Want {
    /// Read, then [`Driver::receive`](crate::server::Driver::receive).
    Input,
    /// Flush what waits, do the TLS handshake as the server, then
    /// [`Driver::secured`](crate::server::Driver::secured). A handshake that fails ends the transport
    /// without another word ([TLS-1](crate::rules#tls-1)), and so does one during which the driver, which is to be polled
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
    pub(super) bindings: Option<ChannelBindings>,
    /// When it began, and the bytes that came before its driver was made.
    pub(super) preamble: Option<(Duration, usize)>,
}

impl Transport {
    /// A plain transport that cannot be upgraded.
    pub const fn new() -> Self {
        Self {
            secure: false,
            starttls: false,
            direct_tls: false,
            source: None,
            bindings: None,
            preamble: None,
        }
    }

    /// Declares the transport secure as it is, without TLS on it: a loopback, a trusted proxy ([TLS-3](crate::rules#tls-3)).
    pub const fn secure(mut self, secure: bool) -> Self {
        self.secure = secure;
        self
    }

    /// The transport is under TLS that the host has done itself: secure ([TLS-3](crate::rules#tls-3)), without STARTTLS, and what
    /// logins may be bound to ([SASL-11](crate::rules#sasl-11)). Which server name the client gave to TLS does not matter: the
    /// domain is that of its stream header ([STREAM-4](crate::rules#stream-4)).
    pub fn secured(mut self, bindings: ChannelBindings) -> Self {
        self.bindings = Some(bindings);
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

    /// The host has read so many bytes of the transport itself, such as the header of a proxy, since it was
    /// accepted (on the clock of [`Server::now`](crate::server::Server::now)): both count with what follows
    /// ([PROXY-3](crate::rules#proxy-3)).
    pub const fn preamble(mut self, accepted: Duration, bytes: usize) -> Self {
        self.preamble = Some((accepted, bytes));
        self
    }

    /// Where the transport comes from (an IP address, say), for [LIMIT-25](crate::rules#limit-25), faults and logs. Never shown to
    /// others ([SEC-5](crate::rules#sec-5)).
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
            .field("bindings", &self.bindings)
            .finish_non_exhaustive()
    }
}
