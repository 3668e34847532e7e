//! Stream errors.

use std::fmt;
use std::net::Ipv6Addr;

use minidom::Element;

use super::{Limit, StreamCondition};
use crate::stanza::write;

/// The namespace of stream error conditions (RFC 6120 §4.9.2).
const ERROR_NAMESPACE: &str = "urn:ietf:params:xml:ns:xmpp-streams";

/// An error that ends a stream
/// ([RFC 6120 §4.9](https://www.rfc-editor.org/rfc/rfc6120#section-4.9), rule [SERR-1](crate::rules#serr-1)).
#[derive(Clone, PartialEq, Eq)]
pub struct StreamError {
    condition: StreamCondition,
    /// Language and text.
    text: Option<(Box<str>, Box<str>)>,
    other_host: Option<Box<str>>,
    other_uri: Option<Box<str>>,
    /// An element in canonical form.
    application: Option<Box<[u8]>>,
    limit: Option<Limit>,
    /// What another node has written of it.
    #[cfg(feature = "cluster")]
    content: Option<Box<[u8]>>,
}

impl StreamError {
    /// An error without further details.
    ///
    /// [`StreamCondition::UndefinedCondition`] needs an element of the application:
    /// see [`with_application`](Self::with_application).
    #[must_use]
    pub const fn new(condition: StreamCondition) -> Self {
        Self {
            condition,
            text: None,
            other_host: None,
            other_uri: None,
            application: None,
            limit: None,
            #[cfg(feature = "cluster")]
            content: None,
        }
    }

    /// For another node.
    #[cfg(feature = "cluster")]
    pub(crate) fn pack(&self, out: &mut crate::packed::Writer) {
        out.text(self.condition.as_str());
        out.option(self.text.as_ref(), |out, (lang, text)| {
            out.text(lang);
            out.text(text);
        });
        out.option(self.other_host.as_deref(), crate::packed::Writer::text);
        out.option(self.other_uri.as_deref(), crate::packed::Writer::text);
        out.option(self.application.as_deref(), crate::packed::Writer::bytes);
    }

    /// What another node has [written](Self::pack).
    #[cfg(feature = "cluster")]
    pub(crate) fn unpack(input: &mut crate::packed::Reader<'_>) -> Option<Self> {
        let name = input.text()?;
        let mut all = StreamCondition::ALL.into_iter();
        let condition = all.find(|condition| condition.as_str() == name)?;
        Some(Self {
            text: input.option(|input| Some((input.text()?.into(), input.text()?.into())))?,
            other_host: input.option(|input| input.text().map(Into::into))?,
            other_uri: input.option(|input| input.text().map(Into::into))?,
            application: input.option(|input| input.bytes().map(Into::into))?,
            ..Self::new(condition)
        })
    }

    /// One that another node has written, with this content.
    #[cfg(feature = "cluster")]
    pub(crate) fn as_written(
        condition: StreamCondition,
        limit: Option<Limit>,
        content: &[u8],
    ) -> Self {
        Self { limit, content: Some(content.into()), ..Self::new(condition) }
    }

    /// Sends the peer to another host, which may be a name or an address (rule [STREAM-30](crate::rules#stream-30)).
    ///
    /// Only to be sent on a stream that TLS protects.
    #[must_use]
    pub fn see_other_host(host: &str, port: Option<u16>) -> Self {
        let mut place = match host.parse::<Ipv6Addr>() {
            Ok(address) => format!("[{address}]"),
            Err(_) => host.to_owned(),
        };
        if let Some(port) = port {
            place.push(':');
            place.push_str(&port.to_string());
        }
        Self { other_host: Some(place.into()), ..Self::new(StreamCondition::SeeOtherHost) }
    }

    /// The same, and sends clients of a WebSocket to this URI, which they are not told unless it is one of `wss` or
    /// `https` (rule [WS-10](crate::rules#ws-10)). Without one they are told `system-shutdown`.
    #[must_use]
    pub fn with_other_uri(self, uri: &str) -> Self {
        let is_secure = uri.split_once(':').is_some_and(|(scheme, _)| {
            ["wss", "https"].iter().any(|secure| scheme.eq_ignore_ascii_case(secure))
        });
        Self { other_uri: is_secure.then(|| uri.into()), ..self }
    }

    /// A limit was exceeded: `policy-violation`.
    #[must_use]
    pub fn exceeded(limit: Limit) -> Self {
        Self::exceeded_as(limit, StreamCondition::PolicyViolation)
    }

    /// The same with another condition.
    pub(crate) fn exceeded_as(limit: Limit, condition: StreamCondition) -> Self {
        Self { limit: Some(limit), ..Self::new(condition) }
    }

    /// The same with a description in a language, such as `en`.
    #[must_use]
    pub fn with_text(self, lang: &str, text: &str) -> Self {
        Self { text: Some((lang.into(), text.into())), ..self }
    }

    /// The same with an element that says more, in a namespace of the application's own.
    #[must_use]
    pub fn with_application(self, element: &Element) -> Self {
        Self { application: Some(write::to_vec(element).into()), ..self }
    }

    /// What went wrong.
    #[must_use]
    pub fn condition(&self) -> StreamCondition {
        self.condition
    }

    /// The description.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        self.text.as_ref().map(|(_, text)| &**text)
    }

    /// Where to go, if the condition is [`StreamCondition::SeeOtherHost`].
    #[must_use]
    pub fn other_host(&self) -> Option<&str> {
        self.other_host.as_deref()
    }

    /// Where clients of a WebSocket are to go, if the condition is [`StreamCondition::SeeOtherHost`].
    #[must_use]
    pub fn other_uri(&self) -> Option<&str> {
        self.other_uri.as_deref()
    }

    /// The application's own element, in canonical form.
    #[must_use]
    pub fn application(&self) -> Option<&[u8]> {
        self.application.as_deref()
    }

    /// The limit that was exceeded, for the host.
    #[must_use]
    pub fn limit(&self) -> Option<Limit> {
        self.limit
    }

    /// Writes what is inside of the `<stream:error/>`.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        #[cfg(feature = "cluster")]
        if let Some(content) = &self.content {
            return out.extend_from_slice(content);
        }
        let namespace = ("xmlns", ERROR_NAMESPACE);
        write::leaf(out, self.condition.as_str(), &[namespace], self.other_host());
        if let Some((lang, text)) = &self.text {
            write::leaf(out, "text", &[namespace, ("xml:lang", lang)], Some(text));
        }
        out.extend_from_slice(self.application().unwrap_or_default());
    }
}

impl From<StreamCondition> for StreamError {
    fn from(condition: StreamCondition) -> Self {
        Self::new(condition)
    }
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.condition.as_str())?;
        match self.limit {
            Some(limit) => write!(f, " ({})", limit.id()),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamError")
            .field("condition", &self.condition)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

impl std::error::Error for StreamError {}
