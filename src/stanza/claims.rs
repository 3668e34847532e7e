//! What children of a stanza say in somebody's name.
//!
//! Clients believe these, since only the entity named may say them. So that entity has to remove what
//! others say in its name (STZ-14). To add one, add a row here.

#[cfg(feature = "server")]
use std::borrow::Cow;

#[cfg(feature = "server")]
use super::Child;

const DELAY: &str = "urn:xmpp:delay";
const OLD_DELAY: &str = "jabber:x:delay";
const STANZA_ID: &str = "urn:xmpp:sid:0";
const CARBONS: &str = "urn:xmpp:carbons:2";

/// In whose name a child of a stanza speaks.
#[cfg(feature = "server")]
pub(crate) enum Claim<'a> {
    /// The entity of this JID, as it was written.
    Entity(Cow<'a, str>),
    /// The entity of this JID, as the one that has set an id.
    Setter(Cow<'a, str>),
    /// The account that the stanza is for.
    Recipient,
}

/// Whether a child in this namespace may be a claim.
pub(super) fn is_in(namespace: &[u8]) -> bool {
    [DELAY, OLD_DELAY, STANZA_ID, CARBONS].iter().any(|known| known.as_bytes() == namespace)
}

#[cfg(feature = "server")]
impl<'a> Claim<'a> {
    /// What a child of a message or presence claims, if it claims anything.
    pub(crate) fn of(child: &Child<'a>) -> Option<Self> {
        match (child.name(), &*child.namespace()) {
            // XEP-0203 §8, and its predecessor XEP-0091
            ("delay", DELAY) | ("x", OLD_DELAY) => child.attribute("from").map(Self::Entity),
            // XEP-0359 §6
            ("stanza-id", STANZA_ID) => child.attribute("by").map(Self::Setter),
            // XEP-0280 §11
            ("received" | "sent", CARBONS) => Some(Self::Recipient),
            _ => None,
        }
    }
}
