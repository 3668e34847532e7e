//! Presence (RFC 6121 §8.5).

use crate::rules::presence::PresenceType;

/// Where a presence to a local account finds that account. One that does not exist looks like one
/// without sessions: changing it (rule SUB-5), or answering for it (rule PRES-14), finds out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum PresenceSituation {
    /// To the bare JID; some session is available.
    BareSomeAvailable,
    /// To the bare JID; no session is available.
    BareNoneAvailable,
    /// To a full JID that is connected, available or not.
    FullMatch,
    /// To a full JID that is not connected.
    FullWithoutMatch,
}

/// What becomes of a presence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum PresenceDecision {
    /// To every available session, those of negative priority too.
    AllAvailable,
    /// To the session that is addressed.
    Addressed,
    /// Into the subscription machine, as to the bare JID:
    /// [`inbound`](crate::rules::subscription::inbound).
    Subscription,
    /// Answered: [`answer_probe`](crate::rules::presence::answer_probe).
    Probe,
    /// Nowhere.
    Silent,
}

/// Decides where a presence goes (rules PRES-T1 to PRES-T5, SUB-7).
#[must_use]
pub(crate) const fn presence(
    type_: PresenceType,
    situation: PresenceSituation,
) -> PresenceDecision {
    use PresenceDecision::{Addressed, AllAvailable, Probe, Silent, Subscription};
    use PresenceSituation::{BareNoneAvailable, BareSomeAvailable, FullMatch, FullWithoutMatch};
    match type_ {
        PresenceType::Available | PresenceType::Unavailable | PresenceType::Error => {
            match situation {
                BareSomeAvailable => AllAvailable,
                FullMatch => Addressed,
                BareNoneAvailable | FullWithoutMatch => Silent,
            }
        }
        PresenceType::Subscription(kind) => match situation {
            BareSomeAvailable | BareNoneAvailable | FullMatch => Subscription,
            // RFC 6121 §8.5.3.2.2: a request goes to the account, an answer to a resource is stale.
            FullWithoutMatch if kind.is_request() => Subscription,
            FullWithoutMatch => Silent,
        },
        PresenceType::Probe => Probe,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::subscription::SubscriptionKind;

    const SITUATIONS: [PresenceSituation; 4] = [
        PresenceSituation::BareSomeAvailable,
        PresenceSituation::BareNoneAvailable,
        PresenceSituation::FullMatch,
        PresenceSituation::FullWithoutMatch,
    ];

    fn row(type_: PresenceType) -> String {
        let cells = SITUATIONS.map(|situation| match presence(type_, situation) {
            PresenceDecision::AllAvailable => "all",
            PresenceDecision::Addressed => "D",
            PresenceDecision::Subscription => "sub",
            PresenceDecision::Probe => "probe",
            PresenceDecision::Silent => "S",
        });
        cells.join(" ")
    }

    #[test]
    fn pres_t1_available_and_unavailable() {
        assert_eq!(row(PresenceType::Available), "all S D S");
        assert_eq!(row(PresenceType::Unavailable), "all S D S");
    }

    #[test]
    fn pres_t2_subscribe_to_a_full_jid_is_as_to_the_bare_one() {
        assert_eq!(row(PresenceType::Subscription(SubscriptionKind::Subscribe)), "sub sub sub sub");
    }

    #[test]
    fn pres_t3_the_other_three_need_a_connected_resource() {
        for kind in [
            SubscriptionKind::Subscribed,
            SubscriptionKind::Unsubscribe,
            SubscriptionKind::Unsubscribed,
        ] {
            assert_eq!(row(PresenceType::Subscription(kind)), "sub sub sub S", "{kind:?}");
        }
    }

    #[test]
    fn sub_7_full_jids() {
        let to_missing =
            |kind| presence(PresenceType::Subscription(kind), PresenceSituation::FullWithoutMatch);
        assert_eq!(to_missing(SubscriptionKind::Subscribe), PresenceDecision::Subscription);
        assert_eq!(to_missing(SubscriptionKind::Unsubscribe), PresenceDecision::Silent);
    }

    #[test]
    fn pres_t4_probes_are_always_answered() {
        assert_eq!(row(PresenceType::Probe), "probe probe probe probe");
    }

    #[test]
    fn pres_t5_errors() {
        assert_eq!(row(PresenceType::Error), "all S D S");
    }
}
