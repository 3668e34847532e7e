//! Where the site is, as its visitors see it.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;
use axum::http::header::{HOST, ORIGIN};
use xmpp_session::host::WebSockets;

pub(crate) struct Site {
    /// Whether what comes here has come over TLS to a proxy.
    pub(crate) proxied: bool,
    /// Those whose pages may use the WebSocket.
    pub(crate) origins: Vec<String>,
}

/// What a request says that its host is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Host {
    Localhost,
    Address(IpAddr),
    Name,
}

impl Host {
    pub(crate) fn is_loopback(self) -> bool {
        match self {
            Self::Localhost => true,
            Self::Address(address) => address.is_loopback(),
            Self::Name => false,
        }
    }
}

pub(crate) fn host(headers: &HeaderMap) -> Option<Host> {
    let host = authority(headers)?;
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let address = host.parse::<SocketAddr>().map(|address| address.ip());
    let address = address.or_else(|_| host.trim_matches(['[', ']']).parse());
    Some(match address {
        Ok(address) => Host::Address(address),
        Err(_) if name.eq_ignore_ascii_case("localhost") => Host::Localhost,
        Err(_) => Host::Name,
    })
}

/// The host of a request with its port, if it is plain text.
pub(crate) fn authority(headers: &HeaderMap) -> Option<&str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-.:[]".contains(&byte);
    headers.get(HOST)?.to_str().ok().filter(|host| host.bytes().all(is_plain))
}

impl Site {
    /// Whose pages may use the WebSocket: those that are listed, and those that we have served ourselves under an
    /// address. Under a name of its own any page could be led here: to an IP address none can.
    pub(crate) fn allows(&self, headers: &HeaderMap) -> WebSockets {
        let is_address = host(headers).is_some_and(|host| host != Host::Name);
        match is_address && self.is_own(headers) {
            true => WebSockets::from_any_page(),
            false => WebSockets::from_pages(&self.origins),
        }
    }

    /// Whether a page that we have served asks for it.
    pub(crate) fn is_own(&self, headers: &HeaderMap) -> bool {
        let scheme = if self.proxied { "https" } else { "http" };
        let mut origins = headers.get_all(ORIGIN).iter();
        let origin = origins.next().filter(|_| origins.next().is_none());
        let host = origin.and_then(|origin| origin.to_str().ok());
        let host = host.and_then(|origin| origin.strip_prefix(scheme)?.strip_prefix("://"));
        host.is_some() && host == authority(headers)
    }

    /// Where a client comes from: behind a proxy, as that says last.
    pub(crate) fn source(&self, peer: SocketAddr, headers: &HeaderMap) -> String {
        let values = headers.get_all("x-forwarded-for");
        let last = values
            .iter()
            .next_back()
            .filter(|_| self.proxied)
            .and_then(|value| value.to_str().ok()?.rsplit(',').next());
        let client = last.and_then(|text| text.trim().parse::<IpAddr>().ok());
        client.unwrap_or_else(|| peer.ip()).to_canonical().to_string()
    }
}
