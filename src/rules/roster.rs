//! Roster items and the roster of one account in memory (RFC 6121 §2).

use jid::BareJid;

/// The subscription of a roster item (RFC 6121 §2.1.2.5), from the account's point of view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[expect(clippy::exhaustive_enums, reason = "RFC 6121 §2.1.2.5 knows four; `remove` is a request, not a state")]
pub enum Subscription {
    /// Neither sees the other's presence.
    #[default]
    None,
    /// The account sees the contact's presence.
    To,
    /// The contact sees the account's presence.
    From,
    /// Both.
    Both,
}

/// One roster item, as stored and as it is shown to clients.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Item {
    /// The contact: a bare JID or a domain.
    pub jid: BareJid,
    /// The name the user gave it.
    pub name: Option<String>,
    /// Groups, without duplicates.
    pub groups: Vec<String>,
    /// The subscription.
    pub subscription: Subscription,
    /// Pending Out: the user asked and has no answer yet.
    pub ask: bool,
    /// Pre-approved (RFC 6121 §3.4).
    pub approved: bool,
}
