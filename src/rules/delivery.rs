//! Who gets a stanza that is addressed to an account: the tables of
//! [RFC 6121 §8.5](https://www.rfc-editor.org/rfc/rfc6121#section-8.5).
//!
//! One question for each kind of stanza, `message`, `presence` and `iq`: given its type and the
//! situation of the account, what happens? The caller finds the situation and carries the decision out.
//! To bounce a stanza is to answer `service-unavailable`, the same for an unknown account as for a
//! missing resource (rule STZ-12).

#[cfg(feature = "server")]
mod entitled;
#[cfg(feature = "server")]
mod iq;
#[cfg(feature = "server")]
mod message;
#[cfg(feature = "server")]
mod offline;
#[cfg(feature = "server")]
mod presence;
mod top;

#[cfg(feature = "server")]
pub(crate) use entitled::Relation;
#[cfg(feature = "server")]
pub(crate) use iq::{IqDecision, IqSituation, iq};
#[cfg(feature = "server")]
pub(crate) use message::{
    MessageDecision, MessageSituation, MessageType, message, message_to_domain,
};
#[cfg(feature = "server")]
pub(crate) use offline::{Offline, is_chat_states_only, offline};
#[cfg(feature = "server")]
pub(crate) use presence::{PresenceDecision, PresenceSituation, presence};
pub(crate) use top::Top;

/// The error of every bounce in these tables.
#[cfg(feature = "server")]
pub(crate) const BOUNCE: crate::stanza::Condition = crate::stanza::Condition::ServiceUnavailable;
