//! Stream features.

use std::fmt;

use crate::stanza::{Frame, write};

/// The features of a stream in one of its states (rules [STREAM-F1](crate::rules#stream-f1) to [STREAM-F4](crate::rules#stream-f4) and [STREAM-F8](crate::rules#stream-f8)).
///
/// The constructors are the states. What a state must never offer is left out, even on request.
///
/// # Examples
///
/// ```
/// use xmpp_session::stream::Features;
///
/// assert_eq!(
///     Features::tls_required().frame().to_string(),
///     "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls></stream:features>",
/// );
/// ```
#[derive(Clone)]
#[must_use = "features do nothing until they are written"]
pub struct Features {
    state: State,
    content: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    TlsRequired,
    Unauthenticated,
    Authenticated,
}

/// The channel binding that is always possible beside a mechanism that binds (SASL-11).
const LEAST_BINDING: &str = "tls-server-end-point";

impl Features {
    /// No TLS yet, and nothing is possible without it ([STREAM-F1](crate::rules#stream-f1)).
    pub fn tls_required() -> Self {
        let mut features = Self::new(State::TlsRequired);
        features.put("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>");
        features
    }

    /// No TLS, which is optional ([STREAM-F2](crate::rules#stream-f2)): mechanisms that protect the password without it.
    pub fn tls_optional<'a>(mechanisms: impl IntoIterator<Item = &'a str>) -> Self {
        let mut features = Self::new(State::Unauthenticated);
        features.put(STARTTLS);
        features.mechanisms(mechanisms.into_iter().filter(|name| *name != "PLAIN" && !binds(name)));
        features
    }

    /// TLS, not authenticated ([STREAM-F3](crate::rules#stream-f3)). The bindings are listed if a mechanism binds to the
    /// channel ([XEP-0440](https://xmpp.org/extensions/xep-0440.html), rule [SASL-11](crate::rules#sasl-11)).
    pub fn secure<'a>(
        mechanisms: impl IntoIterator<Item = &'a str>,
        bindings: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let mut features = Self::new(State::Unauthenticated);
        if features.mechanisms(mechanisms) {
            features.put("<sasl-channel-binding xmlns='urn:xmpp:sasl-cb:0'>");
            let others = bindings.into_iter().filter(|binding| *binding != LEAST_BINDING);
            for binding in std::iter::once(LEAST_BINDING).chain(others) {
                let attributes = [("type", binding)];
                write::leaf(&mut features.content, "channel-binding", &attributes, None);
            }
            features.put("</sasl-channel-binding>");
        }
        features
    }

    /// Adds authentication in the SASL2 profile ([XEP-0388](https://xmpp.org/extensions/xep-0388.html)), before it,
    /// with what can be asked for together with it, and what else it has, such as upgrade tasks
    /// ([XEP-0480](https://xmpp.org/extensions/xep-0480.html)): whole elements. Without a mechanism it is left out
    /// ([SASL2-1](crate::rules#sasl2-1)).
    pub fn sasl2<'a>(
        mut self,
        mechanisms: impl IntoIterator<Item = &'a str>,
        inline: &[u8],
        beside: &[u8],
    ) -> Self {
        let mut mechanisms = mechanisms.into_iter().peekable();
        if self.state != State::Unauthenticated || mechanisms.peek().is_none() {
            return self;
        }
        self.put("<authentication xmlns='urn:xmpp:sasl:2'>");
        for name in mechanisms {
            write::leaf(&mut self.content, "mechanism", &[], Some(name));
        }
        if !inline.is_empty() {
            self.put("<inline>");
            self.content.extend_from_slice(inline);
            self.put("</inline>");
        }
        self.content.extend_from_slice(beside);
        self.put("</authentication>");
        self
    }

    /// No TLS here, but the host says that the transport is secure ([STREAM-F8](crate::rules#stream-f8)). `starttls`:
    /// whether TLS could be had; never on a WebSocket (rule [WS-8](crate::rules#ws-8)).
    pub fn declared_secure<'a>(
        mechanisms: impl IntoIterator<Item = &'a str>,
        starttls: bool,
    ) -> Self {
        let mut features = Self::new(State::Unauthenticated);
        if starttls {
            features.put(STARTTLS);
        }
        features.mechanisms(mechanisms.into_iter().filter(|name| !binds(name)));
        features
    }

    /// Authenticated, no resource bound yet ([STREAM-F4](crate::rules#stream-f4)).
    pub fn authenticated() -> Self {
        let mut features = Self::new(State::Authenticated);
        features.put("<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>");
        features.put("<session xmlns='urn:ietf:params:xml:ns:xmpp-session'><optional/></session>");
        features
    }

    /// Authenticated, with a resource bound in the same step ([STREAM-F5](crate::rules#stream-f5)).
    pub fn bound() -> Self {
        Self::new(State::Authenticated)
    }

    /// Adds roster versioning, once authenticated
    /// ([RFC 6121 §2.6.1](https://www.rfc-editor.org/rfc/rfc6121#section-2.6.1)).
    pub fn roster_versioning(self) -> Self {
        self.once_authenticated("<ver xmlns='urn:xmpp:features:rosterver'/>")
    }

    /// Adds subscription pre-approval, once authenticated
    /// ([RFC 6121 §3.4](https://www.rfc-editor.org/rfc/rfc6121#section-3.4)).
    pub fn pre_approval(self) -> Self {
        self.once_authenticated("<sub xmlns='urn:xmpp:features:pre-approval'/>")
    }

    /// Adds the limits now in force: bytes of one first-level element, and seconds of silence
    /// before the server checks whether the client is still there
    /// ([XEP-0478](https://xmpp.org/extensions/xep-0478.html), rule [STREAM-32](crate::rules#stream-32)).
    pub fn limits(mut self, max_bytes: usize, idle_seconds: u64) -> Self {
        if self.state != State::TlsRequired {
            let limits = format!(
                "<limits xmlns='urn:xmpp:stream-limits:0'><max-bytes>{max_bytes}</max-bytes>\
                 <idle-seconds>{idle_seconds}</idle-seconds></limits>"
            );
            self.put(&limits);
        }
        self
    }

    /// Adds what an extension offers in this state: elements in canonical form.
    pub fn extension(mut self, xml: &[u8]) -> Self {
        if self.state != State::TlsRequired {
            self.content.extend_from_slice(xml);
        }
        self
    }

    /// Whether the list offers the client a next step. An empty list would mean that it
    /// may send stanzas: the stream is closed instead (rule [STREAM-F7](crate::rules#stream-f7)). Limits are not a step,
    /// so ask before they are added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.content.is_empty()
    }

    /// Their content, as a [`Reply`](crate::session::Reply) takes it.
    #[must_use]
    pub fn into_content(self) -> Vec<u8> {
        self.content
    }

    /// As they are sent.
    #[must_use]
    pub const fn frame(&self) -> Frame<'_> {
        Frame::features(self.content.as_slice())
    }

    fn new(state: State) -> Self {
        Self { state, content: Vec::new() }
    }

    fn put(&mut self, xml: &str) {
        self.content.extend_from_slice(xml.as_bytes());
    }

    fn once_authenticated(mut self, xml: &str) -> Self {
        if self.state == State::Authenticated {
            self.put(xml);
        }
        self
    }

    /// Writes the list unless it is empty. Whether one of them binds to the channel.
    fn mechanisms<'a>(&mut self, mechanisms: impl IntoIterator<Item = &'a str>) -> bool {
        let mut mechanisms = mechanisms.into_iter().peekable();
        if mechanisms.peek().is_none() {
            return false;
        }
        let mut any_binds = false;
        self.put("<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>");
        for name in mechanisms {
            any_binds |= binds(name);
            write::leaf(&mut self.content, "mechanism", &[], Some(name));
        }
        self.put("</mechanisms>");
        any_binds
    }
}

const STARTTLS: &str = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";

fn binds(mechanism: &str) -> bool {
    mechanism.ends_with("-PLUS")
}

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Features")
            .field("state", &self.state)
            .field("bytes", &self.content.len())
            .finish()
    }
}
