//! Who gets a stanza that is addressed to an account: the tables of
//! [RFC 6121 §8.5](https://www.rfc-editor.org/rfc/rfc6121#section-8.5).
//!
//! One question for each kind of stanza, [`message`], [`presence`] and [`iq`]: given its type and the
//! situation of the account, what happens? The caller finds the situation, carries the decision out,
//! and where it is to bounce a stanza sends `service-unavailable`, the same for an unknown account as
//! for a missing resource (rule STZ-12).

mod entitled;
mod iq;
mod message;
mod offline;
mod presence;

pub use entitled::Relation;
pub use iq::{IqDecision, IqSituation, iq};
pub use message::{
    MessageDecision, MessageSituation, MessageType, Top, message, message_to_domain,
};
pub use offline::{Offline, offline};
pub use presence::{PresenceDecision, PresenceSituation, presence};

use crate::stanza::Condition;

/// The error of every bounce in these tables.
pub const BOUNCE: Condition = Condition::ServiceUnavailable;
