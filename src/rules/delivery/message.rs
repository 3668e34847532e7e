//! Messages (RFC 6121 §8.5.1–§8.5.4, Table 1).

use super::Offline;

/// The type of a message ([RFC 6121 §5.2.2](https://www.rfc-editor.org/rfc/rfc6121#section-5.2.2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(crate) enum MessageType {
    /// A single message, outside of a conversation.
    #[default]
    Normal,
    /// Part of a conversation between two.
    Chat,
    /// Part of a conversation of many.
    Groupchat,
    /// A notice that expects no reply.
    Headline,
    /// An error that an earlier message caused.
    Error,
}

impl MessageType {
    /// Reads the `type` attribute: none and unknown ones count as normal (rule MSG-1).
    #[must_use]
    pub(crate) fn of(attribute: Option<&str>) -> Self {
        match attribute {
            Some("chat") => Self::Chat,
            Some("groupchat") => Self::Groupchat,
            Some("headline") => Self::Headline,
            Some("error") => Self::Error,
            _ => Self::Normal,
        }
    }
}

/// Where a message to a local account finds that account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum MessageSituation {
    /// To the bare JID of an account that does not exist (MSG-T1).
    UnknownBare,
    /// To a full JID of an account that does not exist (MSG-T2).
    UnknownFull,
    /// To the bare JID; no session is available (MSG-T3).
    BareNoneAvailable,
    /// To the bare JID; all available sessions have negative priority (MSG-T4).
    BareAllNegative,
    /// To the bare JID; one session has a priority of 0 or more (MSG-T5).
    BareOne,
    /// To the bare JID; several sessions have a priority of 0 or more (MSG-T6).
    BareSeveral,
    /// To a full JID that is connected, available or not, whatever its priority (MSG-T7).
    FullMatch,
    /// To a full JID that is not connected; no session has a priority of 0 or more (MSG-T8).
    FullNoneNonNegative,
    /// To a full JID that is not connected; some session has a priority of 0 or more (MSG-T9).
    FullSomeNonNegative,
}

impl MessageSituation {
    /// The situation of an existing account when its bare JID is addressed, from the priorities of
    /// its *available* sessions.
    #[must_use]
    pub(crate) fn bare(available: impl IntoIterator<Item = i8>) -> Self {
        let (mut any, mut able) = (false, 0_usize);
        for priority in available {
            any = true;
            able += usize::from(priority >= 0);
        }
        match able {
            0 if any => Self::BareAllNegative,
            0 => Self::BareNoneAvailable,
            1 => Self::BareOne,
            _ => Self::BareSeveral,
        }
    }

    /// The situation of an existing account when a full JID is addressed that is not connected, from
    /// the priorities of its *available* sessions.
    #[must_use]
    pub(crate) fn full_without_match(available: impl IntoIterator<Item = i8>) -> Self {
        if available.into_iter().any(|priority| priority >= 0) {
            Self::FullSomeNonNegative
        } else {
            Self::FullNoneNonNegative
        }
    }

    /// Whether [`message`] looks at what the offline store would make of the message.
    #[must_use]
    pub(crate) const fn asks_offline(self) -> bool {
        !matches!(
            self,
            Self::BareOne | Self::BareSeveral | Self::FullMatch | Self::FullSomeNonNegative
        )
    }
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum MessageDecision {
    /// To the available sessions of highest priority: see [`Top`](super::Top).
    Top,
    /// To every available session whose priority is 0 or more.
    All,
    /// To the session that is addressed.
    Addressed,
    /// To the offline store; if that refuses, [`Bounce`](Self::Bounce) (rule OFF-2).
    Offline,
    /// Back to the sender, as [`BOUNCE`](super::BOUNCE).
    Bounce,
    /// Nowhere.
    Silent,
}

impl MessageDecision {
    /// Whether sessions get the message.
    #[must_use]
    pub(crate) const fn is_delivery(self) -> bool {
        matches!(self, Self::Top | Self::All | Self::Addressed)
    }
}

/// Decides where a message goes (rules MSG-T1 to MSG-T9, MSG-4, MSG-6, MSG-7).
///
/// `offline` is what the offline store of an *existing* account would make of this message: see
/// [`offline`](super::offline). For an unknown account the sender sees the same as for an account
/// without sessions (rule MSG-5).
///
/// If a session that was chosen cannot take the message, ask again without it (rule MSG-8).
#[must_use]
pub(crate) const fn message(
    type_: MessageType,
    situation: MessageSituation,
    offline: Offline,
) -> MessageDecision {
    use MessageDecision::{Addressed, All, Bounce, Silent, Top};
    let off = match offline {
        Offline::Store => MessageDecision::Offline,
        Offline::Bounce => Bounce,
        Offline::Drop => Silent,
    };
    // As `off`, with nobody to store for: what the sender sees is the same.
    let unknown = match offline {
        Offline::Bounce => Bounce,
        Offline::Store | Offline::Drop => Silent,
    };
    // Rows in the order of RFC 6121 Table 1, columns in that of `MessageType`.
    #[rustfmt::skip]
    let [normal, chat, groupchat, headline, error] = match situation {
        MessageSituation::UnknownBare         => [unknown,   unknown,   Bounce,    Silent,    Silent],
        MessageSituation::UnknownFull         => [Bounce,    unknown,   Bounce,    Silent,    Silent],
        MessageSituation::BareNoneAvailable   => [off,       off,       Bounce,    Silent,    Silent],
        MessageSituation::BareAllNegative     => [off,       off,       Bounce,    Silent,    Silent],
        // One session: it is the top, and it is all.
        MessageSituation::BareOne             => [Top,       Top,       Bounce,    All,       Silent],
        MessageSituation::BareSeveral         => [Top,       Top,       Bounce,    All,       Silent],
        MessageSituation::FullMatch           => [Addressed, Addressed, Addressed, Addressed, Addressed],
        MessageSituation::FullNoneNonNegative => [Bounce,    off,       Bounce,    Silent,    Silent],
        MessageSituation::FullSomeNonNegative => [Bounce,    Top,       Bounce,    Silent,    Silent],
    };
    match type_ {
        MessageType::Normal => normal,
        MessageType::Chat => chat,
        MessageType::Groupchat => groupchat,
        MessageType::Headline => headline,
        MessageType::Error => error,
    }
}

/// What becomes of a message to the domain that no handler of the host takes (rule MSG-9,
/// [RFC 6120 §10.5.1](https://www.rfc-editor.org/rfc/rfc6120#section-10.5.1)).
#[must_use]
pub(crate) const fn message_to_domain(type_: MessageType) -> MessageDecision {
    match type_ {
        MessageType::Normal | MessageType::Chat | MessageType::Groupchat => MessageDecision::Bounce,
        MessageType::Headline | MessageType::Error => MessageDecision::Silent,
    }
}

#[cfg(test)]
mod tests;
