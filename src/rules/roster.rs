//! Roster items, and the roster of one account in memory
//! ([RFC 6121 §2](https://www.rfc-editor.org/rfc/rfc6121#section-2)).
//!
//! [`Item`] is what a store keeps and a client sees, [`Roster`] the compact form that all sessions of
//! an account share; `RosterLimits` and `RequestLimits` bound them.

#[cfg(feature = "server")]
mod limits;
mod pages;
#[cfg(feature = "server")]
mod set;
mod table;
#[cfg(feature = "server")]
mod wire;

#[cfg(feature = "server")]
pub use limits::{RequestLimits, RosterLimits};
pub use pages::ItemRef;
#[cfg(feature = "server")]
pub(crate) use set::{Removal, RosterError, RosterSet, SetPlan, plan_set, removed_stray};
pub use table::Roster;
#[cfg(feature = "server")]
pub(crate) use wire::{NAMESPACE, parse_get, push, result};

use std::fmt;

use jid::BareJid;

use crate::named::named;

named! {
    /// The subscription of a roster item, from the account's point of view
    /// ([RFC 6121 §2.1.2.5](https://www.rfc-editor.org/rfc/rfc6121#section-2.1.2.5)).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    #[expect(
        clippy::exhaustive_enums,
        reason = "RFC 6121 §2.1.2.5 knows four; `remove` is a request, not a state"
    )]
    pub enum Subscription {
        /// Neither sees the other's presence.
        #[default]
        None = "none",
        /// The account sees the contact's presence.
        To = "to",
        /// The contact sees the account's presence.
        From = "from",
        /// Both.
        Both = "both",
    }
    /// All four.
    const ALL;
    /// The value of the `subscription` attribute.
    pub const fn as_str;
}

impl Subscription {
    /// The subscription that the `subscription` attribute names, if it is one of the four.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|subscription| subscription.as_str() == value)
    }

    /// Whether the account sees the contact's presence.
    #[must_use]
    pub const fn has_to(self) -> bool {
        matches!(self, Self::To | Self::Both)
    }

    /// Whether the contact sees the account's presence: it is a *subscriber*.
    #[must_use]
    pub const fn has_from(self) -> bool {
        matches!(self, Self::From | Self::Both)
    }
}

/// One roster item, as stored and as it is shown to clients.
///
/// A pending inbound request is no part of it (rule [ROSTER-3](crate::rules#roster-3)): see [`Roster::requests`].
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Item {
    /// The contact: a bare JID or a domain.
    pub jid: BareJid,
    /// The name the user gave it; an empty one counts as none.
    pub name: Option<String>,
    /// Groups, without duplicates.
    pub groups: Vec<String>,
    /// The subscription.
    pub subscription: Subscription,
    /// Pending Out: the user asked and has no answer yet.
    pub ask: bool,
    /// Pre-approved ([RFC 6121 §3.4](https://www.rfc-editor.org/rfc/rfc6121#section-3.4)).
    pub approved: bool,
}

impl Item {
    /// An item without name, groups or subscription.
    #[must_use]
    pub const fn new(jid: BareJid) -> Self {
        Self {
            jid,
            name: None,
            groups: Vec::new(),
            subscription: Subscription::None,
            ask: false,
            approved: false,
        }
    }
}

impl fmt::Debug for Item {
    /// Prints state and counts, never the contact or what the user calls it (rule [SEC-6](crate::rules#sec-6)).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Item")
            .field("named", &self.name.is_some())
            .field("groups", &self.groups.len())
            .field("subscription", &self.subscription)
            .field("ask", &self.ask)
            .field("approved", &self.approved)
            .finish_non_exhaustive()
    }
}

/// An item whose text is no address, or not in its normal form: it was stored before addresses had one
/// spelling (rule [JID-6](crate::rules#jid-6)). Shown as what it is, without a subscription, until the user removes it.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stray {
    /// What stands where the JID should be.
    pub jid: String,
    /// The name the user gave it.
    pub name: Option<String>,
    /// Its groups.
    pub groups: Vec<String>,
}

impl Stray {
    /// A stray item without name and groups.
    #[must_use]
    pub const fn new(jid: String) -> Self {
        Self { jid, name: None, groups: Vec::new() }
    }

    /// Whether its text is one of XML, and no longer than a JID may be.
    #[cfg(feature = "server")]
    pub(crate) fn can_be_shown(&self) -> bool {
        let is_character = |c: char| {
            !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}')
                || ('\u{7f}'..'\u{a0}').contains(&c)
        };
        self.jid.len() <= 3071 && self.jid.chars().all(is_character)
    }
}

impl From<Item> for Stray {
    fn from(item: Item) -> Self {
        Self { jid: item.jid.to_string(), name: item.name, groups: item.groups }
    }
}

impl fmt::Debug for Stray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stray").field("groups", &self.groups.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sec_6_debug_of_an_item_names_nobody() {
        let mut item = Item::new(BareJid::new("nurse@example.com").unwrap());
        item.name = Some("Angelica".into());
        item.groups.push("Servants".into());
        let printed = format!("{item:?}");
        assert!(
            !printed.contains("nurse")
                && !printed.contains("Angelica")
                && !printed.contains("Servants")
        );
        assert!(printed.contains("groups: 1"));
    }

    #[test]
    fn roster_12_subscription_values_are_those_of_the_attribute() {
        for subscription in
            [Subscription::None, Subscription::To, Subscription::From, Subscription::Both]
        {
            assert_eq!(Subscription::parse(subscription.as_str()), Some(subscription));
        }
        assert_eq!(Subscription::parse("remove"), None);
    }
}
