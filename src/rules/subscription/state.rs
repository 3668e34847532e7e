//! The nine states, and the facts they are read from.

use crate::rules::roster::Subscription;

/// The state of a subscription, from the account's point of view
/// ([RFC 6121 §A.1](https://www.rfc-editor.org/rfc/rfc6121#appendix-A.1)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum State {
    /// N: no subscription and no request; also a contact that is not listed at all.
    None,
    /// PO: the account asked.
    PendingOut,
    /// PI: the contact asked.
    PendingIn,
    /// POI: each asked the other.
    PendingOutIn,
    /// T: the account sees the contact's presence.
    To,
    /// TPI: as `To`, and the contact asked.
    ToPendingIn,
    /// F: the contact sees the account's presence.
    From,
    /// FPO: as `From`, and the account asked.
    FromPendingOut,
    /// B: each sees the other's presence.
    Both,
}

impl State {
    /// All nine, in the order of the RFC.
    #[cfg(test)]
    pub(super) const ALL: [Self; 9] = [
        Self::None,
        Self::PendingOut,
        Self::PendingIn,
        Self::PendingOutIn,
        Self::To,
        Self::ToPendingIn,
        Self::From,
        Self::FromPendingOut,
        Self::Both,
    ];

    /// The state that an item and the presence of a stored request make. A flag that contradicts the
    /// subscription (a subscriber waits for no answer) does not count.
    #[must_use]
    pub(crate) const fn of(subscription: Subscription, ask: bool, request: bool) -> Self {
        match (subscription, ask, request) {
            (Subscription::None, false, false) => Self::None,
            (Subscription::None, true, false) => Self::PendingOut,
            (Subscription::None, false, true) => Self::PendingIn,
            (Subscription::None, true, true) => Self::PendingOutIn,
            (Subscription::To, _, false) => Self::To,
            (Subscription::To, _, true) => Self::ToPendingIn,
            (Subscription::From, false, _) => Self::From,
            (Subscription::From, true, _) => Self::FromPendingOut,
            (Subscription::Both, _, _) => Self::Both,
        }
    }

    /// The subscription that an item in this state shows.
    #[must_use]
    pub(crate) const fn subscription(self) -> Subscription {
        match self {
            Self::None | Self::PendingOut | Self::PendingIn | Self::PendingOutIn => {
                Subscription::None
            }
            Self::To | Self::ToPendingIn => Subscription::To,
            Self::From | Self::FromPendingOut => Subscription::From,
            Self::Both => Subscription::Both,
        }
    }

    /// Whether the account waits for an answer: the item shows `ask='subscribe'`.
    #[must_use]
    pub(crate) const fn is_pending_out(self) -> bool {
        matches!(self, Self::PendingOut | Self::PendingOutIn | Self::FromPendingOut)
    }

    /// Whether the contact waits for an answer: its request is stored, and no item shows it.
    #[must_use]
    pub(crate) const fn is_pending_in(self) -> bool {
        matches!(self, Self::PendingIn | Self::PendingOutIn | Self::ToPendingIn)
    }
}

/// The state of a contact before a stanza: everything the tables ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Standing {
    /// The state.
    pub(crate) state: State,
    /// Whether the user approved a request that has not come yet
    /// ([RFC 6121 §3.4](https://www.rfc-editor.org/rfc/rfc6121#section-3.4)).
    pub(crate) approved: bool,
    /// Whether there is a roster item; without one the state is `None` or `PendingIn`.
    pub(crate) listed: bool,
}
