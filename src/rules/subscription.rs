//! The subscription machine of [RFC 6121 Appendix A](https://www.rfc-editor.org/rfc/rfc6121#appendix-A).
//!
//! Nine [`State`]s, four kinds of stanza, two directions: [`outbound`] for what the account's own
//! client sends, [`inbound`] for what the contact sends. Each answers with a [`Transition`]: the new
//! state, and what is to be sent to whom, in order. Where both parties live here, the caller runs
//! [`outbound`] for one and then [`inbound`] for the other (rule SUB-4).

mod state;
mod table;

pub(crate) use state::{Standing, State};
pub(crate) use table::{inbound, outbound, removal};

use std::fmt;

use jid::BareJid;

use super::roster::Item;
use crate::named::named;

named! {
    /// The four types of presence stanza that manage subscriptions
    /// ([RFC 6121 §3](https://www.rfc-editor.org/rfc/rfc6121#section-3)).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub(crate) enum SubscriptionKind {
        /// Asks to see the other's presence.
        Subscribe = "subscribe",
        /// Wants to see the other's presence no longer.
        Unsubscribe = "unsubscribe",
        /// Lets the other see the sender's presence.
        Subscribed = "subscribed",
        /// Denies or ends that.
        Unsubscribed = "unsubscribed",
    }
    /// All four.
    pub(crate) const ALL;
    /// The value of the `type` attribute.
    pub(crate) const fn as_str;
}

impl SubscriptionKind {
    /// Whether it asks for a subscription; the other three tell of something done.
    #[must_use]
    pub(crate) const fn is_request(self) -> bool {
        matches!(self, Self::Subscribe)
    }
}

/// One thing to do for a transition. "The contact" is the other party, whichever way the stanza goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// The stanza goes to the contact, from bare to bare JID (rule SUB-1).
    Route,
    /// The stanza goes to the account's sessions: `subscribe` to the available ones, the other three
    /// to the interested ones; `to` stays bare (rule SUB-8).
    Deliver,
    /// The item is pushed to the interested sessions.
    Push,
    /// A stanza of this kind goes to the contact, from the account's bare JID.
    Reply(SubscriptionKind),
    /// The last broadcast presence of each available session goes to the contact.
    Current,
    /// An unavailable of each available session goes to the contact.
    Unavailable,
}

/// What becomes of the stored request of the contact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum RequestChange {
    /// The stanza is stored, whole (rule SUB-9). Over the limit the whole transition does not happen
    /// (rule LIMIT-16, [`RequestLimits`](crate::rules::roster::RequestLimits)).
    Store,
    /// The stored request is dropped.
    Drop,
}

/// What one subscription stanza does to one party.
///
/// The order is: store the state, then the steps, one after the other (rule SUB-2).
#[derive(Clone, Copy, PartialEq, Eq)]
#[must_use = "a transition takes effect only when its steps are carried out"]
pub(crate) struct Transition {
    from: Standing,
    state: State,
    approved: bool,
    steps: &'static [Step],
}

impl Transition {
    /// What to do after the state is stored, in order. Empty where the stanza has no effect at all.
    #[must_use]
    pub(crate) const fn steps(&self) -> &'static [Step] {
        self.steps
    }

    /// What becomes of the contact's stored request; `None` if nothing.
    #[must_use]
    pub(crate) const fn request(&self) -> Option<RequestChange> {
        match (self.from.state.is_pending_in(), self.state.is_pending_in()) {
            (false, true) => Some(RequestChange::Store),
            (true, false) => Some(RequestChange::Drop),
            _ => None,
        }
    }

    /// The item to store and to push, made of the present one (`None` where the contact is not
    /// listed); `None` if a client would see no difference. That is so exactly when there is no
    /// [`Step::Push`].
    #[must_use]
    pub(crate) fn item(&self, contact: &BareJid, present: Option<Item>) -> Option<Item> {
        if !self.steps.contains(&Step::Push) {
            return None;
        }
        let item = present.unwrap_or_else(|| Item::new(contact.clone()));
        Some(Item {
            subscription: self.state.subscription(),
            ask: self.state.is_pending_out(),
            approved: self.approved,
            ..item
        })
    }
}

impl fmt::Debug for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} -> {:?}", self.from, self.state)?;
        write!(f, "{} {:?}", if self.approved { " approved" } else { "" }, self.steps)
    }
}

/// What a contact is told when its item is removed or the account is (rules ROSTER-15, DESTROY-15).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Farewell {
    /// An unavailable of each available session.
    Unavailable,
    /// A stanza from the account's bare JID.
    Send(SubscriptionKind),
}

#[cfg(test)]
mod tests;
