//! What a client says in a presence.

use crate::rules::subscription::SubscriptionKind;
use crate::stanza::{CONTENT_NAMESPACE, Child, Condition, Stanza, StanzaError};

/// The type of a presence ([RFC 6121 §4.7.1](https://www.rfc-editor.org/rfc/rfc6121#section-4.7.1)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum PresenceType {
    /// No type: the sender is available.
    Available,
    /// The sender is available no longer.
    Unavailable,
    /// One of the four types that manage subscriptions.
    Subscription(SubscriptionKind),
    /// Asks for current presence.
    Probe,
    /// An error that an earlier presence caused.
    Error,
}

impl PresenceType {
    /// Reads the type of a presence stanza.
    ///
    /// # Errors
    ///
    /// [`PresenceError::UnknownType`] (rule PRES-1); `available` is such a type too.
    pub(crate) fn read(presence: &Stanza) -> Result<Self, PresenceError> {
        match presence.type_().as_deref() {
            None => Ok(Self::Available),
            Some("unavailable") => Ok(Self::Unavailable),
            Some("probe") => Ok(Self::Probe),
            Some("error") => Ok(Self::Error),
            Some(type_) => SubscriptionKind::ALL
                .into_iter()
                .find(|kind| kind.as_str() == type_)
                .map(Self::Subscription)
                .ok_or(PresenceError::UnknownType),
        }
    }
}

/// Checks an available presence of a client and reads its priority, 0 where it states none
/// ([RFC 6121 §4.7.2.3](https://www.rfc-editor.org/rfc/rfc6121#section-4.7.2.3)).
///
/// # Errors
///
/// [`PresenceError`] if the priority is no integer from −128 to 127, or if there is more than one
/// `<priority/>` or `<show/>` (rule PRES-2). The presence then has no effect at all.
pub(crate) fn read_priority(presence: &Stanza) -> Result<i8, PresenceError> {
    let (mut shows, mut priorities, mut priority) = (0, 0, Ok(0));
    for child in presence.children() {
        if child.is("show", CONTENT_NAMESPACE) {
            shows += 1;
        } else if child.is("priority", CONTENT_NAMESPACE) {
            priorities += 1;
            priority = parse_priority(&child);
        }
    }
    match (shows, priorities) {
        (2.., _) => Err(PresenceError::RepeatedShow),
        (_, 2..) => Err(PresenceError::RepeatedPriority),
        _ => priority,
    }
}

/// An `xs:byte`: white space around it is no part of the value.
fn parse_priority(priority: &Child<'_>) -> Result<i8, PresenceError> {
    let text = priority.text();
    text.trim_matches([' ', '\t', '\r', '\n']).parse().map_err(|_| PresenceError::BadPriority)
}

/// Why a presence of a client is refused; always the client's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PresenceError {
    /// The type is none of those of RFC 6121.
    #[error("the presence has an unknown type")]
    UnknownType,
    /// The priority is no integer from −128 to 127.
    #[error("the priority is not an integer from -128 to 127")]
    BadPriority,
    /// There are several priorities.
    #[error("the presence has more than one priority")]
    RepeatedPriority,
    /// There are several `<show/>`.
    #[error("the presence has more than one show")]
    RepeatedShow,
}

impl From<PresenceError> for StanzaError {
    fn from(_: PresenceError) -> Self {
        Self::new(Condition::BadRequest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::stanza::Kind;

    fn typed(type_: &str) -> Result<PresenceType, PresenceError> {
        PresenceType::read(&Stanza::builder(Kind::Presence).type_(type_).build())
    }

    fn priority(payload: &str) -> Result<i8, PresenceError> {
        read_priority(&Stanza::builder(Kind::Presence).payload(payload.as_bytes()).build())
    }

    #[test]
    fn pres_1_unknown_types_are_refused() {
        assert_eq!(
            PresenceType::read(&Stanza::builder(Kind::Presence).build()),
            Ok(PresenceType::Available)
        );
        for type_ in ["available", "invisible", "", "Subscribe"] {
            assert_eq!(typed(type_), Err(PresenceError::UnknownType), "{type_:?}");
        }
        assert_eq!(
            StanzaError::from(PresenceError::UnknownType).condition(),
            Condition::BadRequest
        );
    }

    #[test]
    fn pres_1_all_types_are_known() {
        use SubscriptionKind::{Subscribe, Subscribed, Unsubscribe, Unsubscribed};
        for kind in [Subscribe, Unsubscribe, Subscribed, Unsubscribed] {
            assert_eq!(typed(kind.as_str()), Ok(PresenceType::Subscription(kind)));
        }
        assert_eq!(typed("unavailable"), Ok(PresenceType::Unavailable));
        assert_eq!(typed("probe"), Ok(PresenceType::Probe));
        assert_eq!(typed("error"), Ok(PresenceType::Error));
    }

    #[test]
    fn pres_2_priority() {
        assert_eq!(priority(""), Ok(0));
        assert_eq!(priority("<show>away</show><priority>5</priority>"), Ok(5));
        assert_eq!(priority("<priority> \n-128\t</priority>"), Ok(-128));
        assert_eq!(priority("<priority>127</priority>"), Ok(127));
        for text in
            ["128", "-129", "", "1.0", "1 2", "high", "0x1", "99999999999999999999", "\u{2003}1"]
        {
            let payload = format!("<priority>{text}</priority>");
            assert_eq!(priority(&payload), Err(PresenceError::BadPriority), "{text:?}");
        }
    }

    #[test]
    fn pres_2_repeated_elements() {
        let twice = "<priority>1</priority><priority>1</priority>";
        assert_eq!(priority(twice), Err(PresenceError::RepeatedPriority));
        assert_eq!(priority("<show>xa</show><show>xa</show>"), Err(PresenceError::RepeatedShow));
    }

    #[test]
    fn pres_2_only_our_own_elements_count() {
        let foreign =
            "<priority xmlns='urn:example:x'>high</priority><priority xmlns='urn:example:x'/>";
        assert_eq!(priority(foreign), Ok(0));
        let nested = "<x xmlns='urn:example:x'><priority xmlns='jabber:client'>9</priority></x>";
        assert_eq!(priority(nested), Ok(0));
    }

    proptest! {
        #[test]
        fn pres_2_every_priority_is_read(value: i16) {
            let read = priority(&format!("<priority>{value}</priority>"));
            prop_assert_eq!(read.ok(), i8::try_from(value).ok());
        }
    }
}
