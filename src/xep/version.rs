use std::fmt;

use minidom::Element;

use crate::connection::SharedConnection;
use crate::extension::{Extension, IqReply, IqRequest, Target};

const NAMESPACE: &str = "jabber:iq:version";

/// Software Version ([XEP-0092](https://xmpp.org/extensions/xep-0092.html)): the server says what
/// software it is. Only its domains answer, not the accounts.
///
/// The operating system is named only if the host says it (XEP-0092 §4).
#[derive(Clone)]
#[must_use = "an extension does nothing until it is added to a server"]
pub struct SoftwareVersion {
    name: String,
    version: String,
    os: Option<String>,
}

impl SoftwareVersion {
    /// The name of the software and its version, in the host's words.
    pub fn new(name: impl Into<String>, version: impl Into<String>) -> Self {
        Self { name: name.into(), version: version.into(), os: None }
    }

    /// Names the operating system too.
    pub fn os(mut self, os: impl Into<String>) -> Self {
        self.os = Some(os.into());
        self
    }
}

impl fmt::Debug for SoftwareVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SoftwareVersion").field("os", &self.os.is_some()).finish_non_exhaustive()
    }
}

impl<C: SharedConnection> Extension<C> for SoftwareVersion {
    fn takes(&self, _: &str, _: &str) -> bool {
        false
    }

    fn disco_features(&self, target: Target) -> &[&'static str] {
        if target == Target::Domain { &[NAMESPACE] } else { &[] }
    }

    fn iq(&self, request: &IqRequest<'_, C>) -> Option<IqReply> {
        let mine = request.target() == Target::Domain
            && !request.is_set()
            && request.is("query", NAMESPACE);
        if !mine {
            return None;
        }
        let text = |name: &str, text: &str| Element::builder(name, NAMESPACE).append(text);
        let query = Element::builder("query", NAMESPACE)
            .append(text("name", &self.name))
            .append(text("version", &self.version))
            .append_all(self.os.as_ref().map(|os| text("os", os).build()));
        Some(IqReply::result(query.build()))
    }
}
