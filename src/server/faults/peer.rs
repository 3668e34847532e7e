//! Where a client's transport comes from.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Where a client's transport comes from, as its host has said
/// ([`Transport::source`](crate::server::Transport::source)): an IP address, or a name of the host's.
///
/// `Display` shows it; `Debug` says only which of these it is.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PeerAddress(Peer);

#[derive(Clone, PartialEq, Eq, Hash)]
enum Peer {
    Unknown,
    Ip(IpAddr),
    Name(Box<str>),
}

/// What counts as one source (LIMIT-25): an IPv4 address, the /64 that one subscriber usually has, a name.
#[derive(PartialEq, Eq, Hash)]
pub(in crate::server) enum Network<'a> {
    Unknown,
    V4(Ipv4Addr),
    V6([u16; 4]),
    Name(&'a str),
}

impl PeerAddress {
    pub(in crate::server) const UNKNOWN: Self = Self(Peer::Unknown);

    pub(in crate::server) fn new(name: Option<&str>) -> Self {
        let Some(name) = name else { return Self::UNKNOWN };
        match ip_address(name) {
            Some(address) => Self(Peer::Ip(address.to_canonical())),
            None => Self(Peer::Name(name.into())),
        }
    }

    /// The IP address, if it is one.
    #[must_use]
    pub const fn ip(&self) -> Option<IpAddr> {
        match self.0 {
            Peer::Ip(address) => Some(address),
            _ => None,
        }
    }

    /// Whether anything is known of it.
    #[must_use]
    pub const fn is_known(&self) -> bool {
        !matches!(self.0, Peer::Unknown)
    }

    pub(in crate::server) fn network(&self) -> Network<'_> {
        match &self.0 {
            Peer::Unknown => Network::Unknown,
            Peer::Ip(IpAddr::V4(address)) => Network::V4(*address),
            Peer::Ip(IpAddr::V6(address)) => {
                let [a, b, c, d, ..] = address.segments();
                Network::V6([a, b, c, d])
            }
            Peer::Name(name) => Network::Name(name),
        }
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Peer::Unknown => f.write_str("unknown"),
            Peer::Ip(address) => address.fmt(f),
            Peer::Name(name) => f.write_str(name),
        }
    }
}

impl fmt::Debug for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Peer::Unknown => "Unknown",
            Peer::Ip(_) => "Ip",
            Peer::Name(_) => "Name",
        })
    }
}

/// An IP address as hosts write it: alone, in brackets, with a port, with a zone.
fn ip_address(name: &str) -> Option<IpAddr> {
    if let Ok(address) = name.parse::<SocketAddr>() {
        return Some(address.ip());
    }
    let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.split('%').next()?.parse().ok()
}
