//! Stanza errors (RFC 6120 §8.3).

use std::fmt;
use std::sync::Arc;

use minidom::Element;

use super::{CONTENT_NAMESPACE, Stanza, write};
use crate::named::named;

/// The namespace of conditions and of `<text/>`.
const NAMESPACE: &str = "urn:ietf:params:xml:ns:xmpp-stanzas";

/// A stanza error: its type follows from the condition as in
/// [RFC 6120 §8.3.3](https://www.rfc-editor.org/rfc/rfc6120#section-8.3.3), unless stated.
///
/// [`Stanza::error_answer`] makes an answer of it.
///
/// `Display` shows condition and type only: a text may tell about people.
///
/// # Examples
///
/// ```
/// use xmpp_session::stanza::{Condition, ErrorType, StanzaError};
///
/// let error = StanzaError::new(Condition::ResourceConstraint)
///     .with_type(ErrorType::Wait)
///     .with_text("Try again in an hour.");
/// assert_eq!(error.condition(), Condition::ResourceConstraint);
/// ```
#[derive(Clone)]
pub struct StanzaError {
    condition: Condition,
    type_: ErrorType,
    text: Option<String>,
    /// In canonical form.
    application: Option<Box<[u8]>>,
    cause: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

/// Their causes do not count.
impl PartialEq for StanzaError {
    fn eq(&self, other: &Self) -> bool {
        let parts = |it: &Self| (it.condition, it.type_);
        parts(self) == parts(other)
            && self.text == other.text
            && self.application == other.application
    }
}

impl Eq for StanzaError {}

impl StanzaError {
    /// An error with this condition and the type that belongs to it.
    ///
    /// [`Condition::UndefinedCondition`] says nothing by itself: give it an element of the
    /// application ([RFC 6120 §8.3.3.21](https://www.rfc-editor.org/rfc/rfc6120#section-8.3.3.21)).
    #[must_use]
    pub fn new(condition: Condition) -> Self {
        Self {
            condition,
            type_: condition.error_type(),
            text: None,
            application: None,
            cause: None,
        }
    }

    /// Sets another type.
    #[must_use]
    pub fn with_type(mut self, type_: ErrorType) -> Self {
        self.type_ = type_;
        self
    }

    /// Adds a description in English for people.
    #[must_use]
    pub fn with_text(mut self, text: &str) -> Self {
        self.text = Some(text.to_owned());
        self
    }

    /// Adds an element that says more to programs
    /// ([RFC 6120 §8.3.4](https://www.rfc-editor.org/rfc/rfc6120#section-8.3.4)).
    #[must_use]
    pub fn with_application(mut self, element: &Element) -> Self {
        self.application = Some(write::to_vec(element).into());
        self
    }

    /// Says what stands behind it: to the host of the server that answers with it, and never to a peer
    /// ([FAULT-2](crate::rules#fault-2)). A [`StoreError`](crate::store::StoreError) or a [`Limit`](crate::stream::Limit) is told as
    /// such, any other error as that of an extension's store.
    #[must_use]
    pub fn with_cause(
        mut self,
        cause: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.cause = Some(Arc::from(cause.into()));
        self
    }

    /// Reads the error out of a received stanza. `None` unless it is of type `error` and holds a
    /// known type of error.
    ///
    /// A condition that is unknown or missing counts as
    /// [`UndefinedCondition`](Condition::UndefinedCondition).
    #[must_use]
    pub fn from_stanza(stanza: &Stanza) -> Option<Self> {
        if stanza.type_().as_deref() != Some("error") {
            return None;
        }
        let error = stanza.children().find(|child| child.is("error", CONTENT_NAMESPACE))?;
        let type_ = error.attribute("type")?;
        let type_ = ErrorType::ALL.into_iter().find(|known| known.as_str() == type_)?;
        let mut found = Self::new(Condition::UndefinedCondition).with_type(type_);
        for child in error.children() {
            if child.namespace() != NAMESPACE {
                found = found.with_application(&child.to_element());
            } else if child.name() == "text" {
                found.text = Some(child.text().into_owned());
            } else {
                let mut known = Condition::ALL.into_iter();
                let condition = known.find(|condition| condition.as_str() == child.name());
                found.condition = condition.unwrap_or(found.condition);
            }
        }
        Some(found)
    }

    /// What went wrong.
    #[must_use]
    pub const fn condition(&self) -> Condition {
        self.condition
    }

    /// What the sender may do about it.
    #[must_use]
    pub const fn type_(&self) -> ErrorType {
        self.type_
    }

    /// The description for people, if there is one.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }

    /// Writes the `<error/>` element.
    pub(crate) fn write_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"<error");
        write::attribute(out, "type", self.type_.as_str());
        out.push(b'>');
        write::leaf(out, self.condition.as_str(), &[("xmlns", NAMESPACE)], None);
        if let Some(text) = &self.text {
            write::leaf(out, "text", &[("xmlns", NAMESPACE), ("xml:lang", "en")], Some(text));
        }
        out.extend_from_slice(self.application.as_deref().unwrap_or_default());
        out.extend_from_slice(b"</error>");
    }
}

impl From<Condition> for StanzaError {
    fn from(condition: Condition) -> Self {
        Self::new(condition)
    }
}

impl fmt::Debug for StanzaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StanzaError")
            .field("condition", &self.condition)
            .field("type", &self.type_)
            .field("text", &self.text.is_some())
            .field("application", &self.application.is_some())
            .finish()
    }
}

impl fmt::Display for StanzaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.condition, self.type_)
    }
}

impl std::error::Error for StanzaError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}

named! {
    /// What the sender of the cause may do about an error
    /// ([RFC 6120 §8.3.2](https://www.rfc-editor.org/rfc/rfc6120#section-8.3.2)).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    #[expect(clippy::exhaustive_enums, reason = "RFC 6120 §8.3.2 knows five")]
    pub enum ErrorType {
        /// Retry after providing credentials.
        Auth = "auth",
        /// Do not retry.
        Cancel = "cancel",
        /// Proceed: it was only a warning.
        Continue = "continue",
        /// Retry after changing what was sent.
        Modify = "modify",
        /// Retry later: the trouble is temporary.
        Wait = "wait",
    }
    /// All of them, in alphabetical order.
    const ALL;
    /// The value of the `type` attribute.
    pub const fn as_str;
}

impl fmt::Display for ErrorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

named! {
    /// What went wrong ([RFC 6120 §8.3.3](https://www.rfc-editor.org/rfc/rfc6120#section-8.3.3)).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    #[non_exhaustive]
    pub enum Condition {
        /// The stanza is malformed or cannot be processed (§8.3.3.1).
        BadRequest = "bad-request",
        /// Something with this name or address exists already (§8.3.3.2).
        Conflict = "conflict",
        /// The feature is not implemented here (§8.3.3.3).
        FeatureNotImplemented = "feature-not-implemented",
        /// The sender lacks the permission (§8.3.3.4).
        Forbidden = "forbidden",
        /// The recipient can no longer be contacted here (§8.3.3.5).
        Gone = "gone",
        /// The server is misconfigured or failed (§8.3.3.6).
        InternalServerError = "internal-server-error",
        /// The address or item was not found (§8.3.3.7).
        ItemNotFound = "item-not-found",
        /// An address is no valid JID (§8.3.3.8).
        JidMalformed = "jid-malformed",
        /// What was sent does not meet the criteria of the recipient or server (§8.3.3.9).
        NotAcceptable = "not-acceptable",
        /// Nobody may do that (§8.3.3.10).
        NotAllowed = "not-allowed",
        /// The sender must provide credentials first (§8.3.3.11).
        NotAuthorized = "not-authorized",
        /// A local policy is violated (§8.3.3.12). The type is `modify`; where the rate was too high
        /// and not the stanza wrong, set `wait`.
        PolicyViolation = "policy-violation",
        /// The recipient is temporarily unavailable (§8.3.3.13).
        RecipientUnavailable = "recipient-unavailable",
        /// The sender should ask somewhere else (§8.3.3.14).
        Redirect = "redirect",
        /// Registration is required first (§8.3.3.15).
        RegistrationRequired = "registration-required",
        /// The domain of the address does not exist or cannot be resolved (§8.3.3.16).
        RemoteServerNotFound = "remote-server-not-found",
        /// The domain of the address could not be reached in time (§8.3.3.17).
        RemoteServerTimeout = "remote-server-timeout",
        /// The server lacks the resources for it (§8.3.3.18).
        ResourceConstraint = "resource-constraint",
        /// The service is not provided (§8.3.3.19).
        ServiceUnavailable = "service-unavailable",
        /// A subscription is required first (§8.3.3.20).
        SubscriptionRequired = "subscription-required",
        /// What the element of the application says (§8.3.3.21).
        UndefinedCondition = "undefined-condition",
        /// The request came out of order (§8.3.3.22).
        UnexpectedRequest = "unexpected-request",
    }
    /// All of them, as the RFC orders them.
    const ALL;
    /// The name of the element.
    pub const fn as_str;
}

impl Condition {
    /// The type that belongs to the condition.
    ///
    /// Where the RFC leaves a choice: `cancel` for
    /// [`FeatureNotImplemented`](Self::FeatureNotImplemented) and
    /// [`UndefinedCondition`](Self::UndefinedCondition), `modify` for
    /// [`PolicyViolation`](Self::PolicyViolation), `wait` for
    /// [`UnexpectedRequest`](Self::UnexpectedRequest).
    #[must_use]
    pub const fn error_type(self) -> ErrorType {
        match self {
            Self::BadRequest
            | Self::JidMalformed
            | Self::NotAcceptable
            | Self::PolicyViolation
            | Self::Redirect => ErrorType::Modify,
            Self::Conflict
            | Self::FeatureNotImplemented
            | Self::Gone
            | Self::InternalServerError
            | Self::ItemNotFound
            | Self::NotAllowed
            | Self::RemoteServerNotFound
            | Self::ServiceUnavailable
            | Self::UndefinedCondition => ErrorType::Cancel,
            Self::Forbidden
            | Self::NotAuthorized
            | Self::RegistrationRequired
            | Self::SubscriptionRequired => ErrorType::Auth,
            Self::RecipientUnavailable
            | Self::RemoteServerTimeout
            | Self::ResourceConstraint
            | Self::UnexpectedRequest => ErrorType::Wait,
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_and_types_are_read_as_they_are_written() {
        let message = Stanza::message().build();
        for condition in Condition::ALL {
            assert_eq!(StanzaError::new(condition).type_(), condition.error_type());
            for type_ in ErrorType::ALL {
                let error = StanzaError::new(condition).with_type(type_);
                let answer = message.error_answer(&error).unwrap();
                assert_eq!(StanzaError::from_stanza(&answer), Some(error));
            }
        }
        let read = |type_: &str, condition: &str| {
            let xml = format!("<error type='{type_}'><{condition} xmlns='{NAMESPACE}'/></error>");
            let stanza = Stanza::message().type_("error").payload(xml.as_bytes()).build();
            StanzaError::from_stanza(&stanza).map(|error| error.condition())
        };
        assert_eq!(read("wait", "Bad-Request"), Some(Condition::UndefinedCondition));
        assert_eq!(read("", "bad-request"), None);
    }

    #[test]
    fn each_condition_has_the_type_of_the_rfc() {
        let of = |type_| {
            let conditions =
                Condition::ALL.into_iter().filter(move |condition| condition.error_type() == type_);
            conditions.map(Condition::as_str).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            of(ErrorType::Modify),
            "bad-request jid-malformed not-acceptable policy-violation redirect"
        );
        assert_eq!(
            of(ErrorType::Cancel),
            "conflict feature-not-implemented gone internal-server-error item-not-found not-allowed \
             remote-server-not-found service-unavailable undefined-condition"
        );
        assert_eq!(
            of(ErrorType::Auth),
            "forbidden not-authorized registration-required subscription-required"
        );
        assert_eq!(
            of(ErrorType::Wait),
            "recipient-unavailable remote-server-timeout resource-constraint unexpected-request"
        );
        assert_eq!(of(ErrorType::Continue), "");
    }

    #[test]
    fn an_error_is_read_back() {
        let application = Element::builder("a", "urn:example")
            .append(Element::bare("b", "jabber:client"))
            .build();
        for condition in Condition::ALL {
            let error = StanzaError::new(condition)
                .with_type(ErrorType::Continue)
                .with_text("a < b\r")
                .with_application(&application);
            let answer = Stanza::iq("get").build().error_answer(&error).unwrap();
            assert_eq!(StanzaError::from_stanza(&answer), Some(error));
        }
    }

    #[test]
    fn an_error_of_somebody_else_is_read_with_care() {
        let read = |type_: &str, payload: &str| {
            StanzaError::from_stanza(
                &Stanza::message().type_(type_).payload(payload.as_bytes()).build(),
            )
        };
        assert_eq!(read("chat", "<error type='wait'/>"), None);
        assert_eq!(read("error", "<body/>"), None);
        assert_eq!(read("error", "<error type='bogus'/>"), None);
        assert_eq!(read("error", "<error xmlns='other' type='wait'/>"), None);
        let undefined = StanzaError::new(Condition::UndefinedCondition).with_type(ErrorType::Wait);
        assert_eq!(read("error", "<body/><error type='wait'/>"), Some(undefined.clone()));
        let unknown =
            "<error type='wait'><new xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";
        assert_eq!(read("error", unknown), Some(undefined));
        let prefixed = "<error type='auth'><s:forbidden xmlns:s='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";
        assert_eq!(read("error", prefixed), Some(StanzaError::new(Condition::Forbidden)));
    }

    #[test]
    fn debug_and_display_print_no_text() {
        let error = StanzaError::new(Condition::Gone).with_text("secret");
        assert_eq!(error.to_string(), "gone (cancel)");
        assert_eq!(
            format!("{error:?}"),
            "StanzaError { condition: Gone, type: Cancel, text: true, application: false }"
        );
        assert_eq!(error.text(), Some("secret"));
    }
}
