//! The two headers of a stream (RFC 6120 §4.7).

use jid::{BareJid, DomainPart};

use super::{Driver, State};
use crate::address;
use crate::connection::SharedConnection;
use crate::environment::random_hex;
use crate::stanza::Frame;
use crate::stream::{Header, ResponseHeader, StreamCondition, Version};

impl<C: SharedConnection> Driver<C> {
    /// The client's stream header (STREAM-1…9).
    pub(in super::super) fn header(&mut self, header: &Header) {
        self.lang = header.lang().map(Into::into);
        let from = header.from().and_then(|from| address::bare(address::bare_of(from)).ok());
        let Some(negotiating) = &mut self.negotiating else { return };
        negotiating.header_sent = false;
        negotiating.has_opened = true;
        negotiating.from = from;
        if self.is_refused() {
            return self.fail(StreamCondition::ResourceConstraint.into());
        }
        self.progressed(false);
        let domain = match self.asked_domain(header) {
            Ok(domain) => domain,
            Err(condition) => return self.fail(condition.into()),
        };
        let version = match header.negotiate() {
            Ok(version) => version,
            Err(error) => {
                let header = self.response_header(domain.as_str(), None);
                return self.fail_behind(header.as_ref(), &error);
            }
        };
        let is_other_domain = match &mut self.state {
            State::Unauthed(session) => {
                session.open(domain.clone());
                false
            }
            // STREAM-7
            State::Authed(session) => {
                session.open();
                session.domain() != &*domain
            }
            _ => false,
        };
        let header = self.response_header(domain.as_str(), Some(version));
        // SASL2-2
        let is_stranger = self.negotiating.as_ref().is_some_and(|negotiating| {
            let other = |from: &BareJid| from.domain() != &*domain;
            negotiating.secure && negotiating.from.as_ref().is_some_and(other)
        });
        if is_stranger {
            return self.fail_behind(header.as_ref(), &StreamCondition::InvalidFrom.into());
        }
        if is_other_domain {
            return self.fail_behind(header.as_ref(), &StreamCondition::NotAuthorized.into());
        }
        if let Some(header) = &header {
            self.send(Frame::open(&header.parts()));
        }
        match &self.state {
            State::Unauthed(_) => self.identify_client(domain),
            _ => self.offer_bind(None),
        }
    }

    /// The domain that the stream is for, if it is served here.
    fn asked_domain(&self, header: &Header) -> Result<DomainPart, StreamCondition> {
        let asked = match header.to() {
            // STREAM-4
            None => self.core.default_domain.clone(),
            // STREAM-6
            Some(asked) => address::domain(asked).ok(),
        };
        match asked {
            Some(domain) if self.core.serves(domain.as_str()) => Ok(domain),
            Some(domain) if self.core.former_domains.contains(&domain) => {
                Err(StreamCondition::HostGone)
            }
            _ => Err(StreamCondition::HostUnknown),
        }
    }

    fn response_header(&mut self, from: &str, version: Option<Version>) -> Option<OurHeader> {
        let id = random_hex::<16>(&*self.core.environment);
        let negotiating = self.negotiating.as_mut()?;
        negotiating.header_sent = true;
        Some(OurHeader { from: from.to_owned(), to: negotiating.from.clone(), id, version })
    }

    /// STREAM-25: an error before our header was sent brings it along.
    pub(in super::super) fn header_if_due(&mut self) -> Option<OurHeader> {
        if self.negotiating.as_ref().is_none_or(|negotiating| negotiating.header_sent) {
            return None;
        }
        let domain = self.core.domains.first().map(|domain| domain.name.as_str().to_owned());
        self.response_header(&domain.unwrap_or_default(), Some(Version::ONE))
    }
}

/// The header that is to be sent.
pub(in super::super) struct OurHeader {
    from: String,
    to: Option<BareJid>,
    id: String,
    version: Option<Version>,
}

impl OurHeader {
    pub(in super::super) fn parts(&self) -> ResponseHeader<'_> {
        let mut header = ResponseHeader::new(&self.from, &self.id);
        header.version = self.version;
        header.to = self.to.as_ref().map(|to| to.as_str());
        header
    }
}
