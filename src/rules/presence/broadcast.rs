//! Broadcasts: whom a change of presence concerns, and in which order.

use super::Directed;
use crate::address::bare_of;
use crate::rules::roster::Roster;

/// One part of what a broadcast presence causes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Audience {
    /// The presence goes to the bare JID of every subscriber, seemingly online or not
    /// ([`Roster::subscribers`]).
    Subscribers,
    /// The presence goes to the own bare JID: to every available session of the account and to the
    /// sender itself.
    OwnSessions,
    /// Every contact whose presence the account sees is probed ([`Roster::subscriptions`]), from bare
    /// to bare JID (rule PRES-13).
    Probes,
    /// The presence of the account's other available sessions goes to the sender.
    OwnPresences,
    /// Stored requests to subscribe go to the sender ([`Roster::requests`], rule SUB-10).
    Requests,
    /// Requests without answer go to remote contacts again, if this is the account's first available
    /// session and a day has passed (rule SUB-13).
    PendingOut,
    /// The presence goes to the targets of directed presence that have not received it yet
    /// ([`uncovered`]); the set is empty then.
    UncoveredTargets,
    /// The presence goes to all targets of directed presence; the set is empty then.
    AllTargets,
    /// Stored messages go to the sender (rule OFF-3).
    OfflineMessages,
}

/// What a broadcast presence causes, in order, by the sender's priority before and after it; `None` is
/// "not available" (rules PRES-3, PRES-5, PRES-6, PRES-7 and OFF-3).
///
/// Initial presence is the one of a session that was not available, also after an unavailable.
#[must_use]
pub(crate) const fn broadcast(before: Option<i8>, after: Option<i8>) -> &'static [Audience] {
    use Audience::{
        AllTargets, OfflineMessages, OwnPresences, OwnSessions, PendingOut, Probes, Requests,
        Subscribers, UncoveredTargets,
    };
    match (before, after) {
        (None, Some(0..)) => {
            &[Subscribers, OwnSessions, Probes, OwnPresences, Requests, PendingOut, OfflineMessages]
        }
        (None, Some(_)) => &[Subscribers, OwnSessions, Probes, OwnPresences, Requests, PendingOut],
        // Stored messages wait for a session that takes messages to the bare JID.
        (Some(..0), Some(0..)) => &[Subscribers, OwnSessions, OfflineMessages],
        (Some(_), Some(_)) => &[Subscribers, OwnSessions],
        (Some(_), None) => &[Subscribers, OwnSessions, UncoveredTargets],
        (None, None) => &[AllTargets],
    }
}

/// The targets of directed presence that an unavailable to the subscribers and to the own sessions
/// does not reach (rules PRES-6 and PRES-10).
///
/// `own` is the account's bare JID; `hears` says whether a full JID gets what is sent to its bare JID,
/// as a session that is only connected does not.
pub(crate) fn uncovered<'a>(
    directed: &'a Directed,
    roster: &'a Roster,
    own: &'a str,
    hears: impl Fn(&str) -> bool + 'a,
) -> impl Iterator<Item = &'a str> {
    directed.iter().filter(move |target| {
        let bare = bare_of(target);
        let told = bare == own || roster.is_subscriber(bare);
        !told || (*target != bare && !hears(target))
    })
}

#[cfg(test)]
mod tests {
    use Audience::{
        AllTargets, OfflineMessages, OwnPresences, OwnSessions, PendingOut, Probes, Requests,
        Subscribers, UncoveredTargets,
    };

    use super::*;
    use crate::rules::roster::{Item, Subscription};

    const INITIAL: [Audience; 6] =
        [Subscribers, OwnSessions, Probes, OwnPresences, Requests, PendingOut];

    #[test]
    fn pres_3_initial_presence() {
        let [head @ .., last] = broadcast(None, Some(0)) else { panic!() };
        assert_eq!(head, INITIAL);
        assert_eq!(*last, OfflineMessages);
        assert_eq!(broadcast(None, Some(-1)), INITIAL);
    }

    #[test]
    fn pres_5_later_presence_neither_probes_nor_repeats_requests() {
        for (before, after) in [(0, 5), (5, 0), (5, -5), (-5, -1)] {
            assert_eq!(
                broadcast(Some(before), Some(after)),
                [Subscribers, OwnSessions],
                "{before} {after}"
            );
        }
    }

    #[test]
    fn off_3_stored_messages_go_out_when_the_priority_rises_to_zero() {
        assert_eq!(broadcast(Some(-1), Some(0)), [Subscribers, OwnSessions, OfflineMessages]);
        let delivers = |before, after| broadcast(before, after).contains(&OfflineMessages);
        assert!(
            delivers(None, Some(0)) && delivers(None, Some(127)) && delivers(Some(-128), Some(1))
        );
        assert!(
            !delivers(None, Some(-1)) && !delivers(Some(0), Some(1)) && !delivers(Some(0), None)
        );
    }

    #[test]
    fn pres_6_unavailable_reaches_subscribers_own_sessions_and_the_rest() {
        assert_eq!(broadcast(Some(-3), None), [Subscribers, OwnSessions, UncoveredTargets]);
    }

    #[test]
    fn pres_7_unavailable_of_a_session_that_is_not_available() {
        assert_eq!(broadcast(None, None), [AllTargets]);
    }

    #[test]
    fn pres_10_targets_that_are_subscribers_are_skipped() {
        let contact = |jid: &str, subscription| {
            let mut item = Item::new(jid::BareJid::new(jid).unwrap());
            item.subscription = subscription;
            item
        };
        let roster = Roster::from_items(
            [
                contact("from@x.example", Subscription::From),
                contact("to@x.example", Subscription::To),
            ],
            0,
            [],
        );
        let mut directed = Directed::new();
        for target in [
            "from@x.example",
            "from@x.example/1",
            "to@x.example/1",
            "room@muc.example/nick",
            "own@x.example",
            "own@x.example/available",
            "own@x.example/connected",
            "from@x.example/connected",
        ] {
            directed.record(target, 1000).unwrap();
        }
        let left: Vec<&str> =
            uncovered(&directed, &roster, "own@x.example", |jid| !jid.ends_with("/connected"))
                .collect();
        assert_eq!(
            left,
            [
                "from@x.example/connected",
                "own@x.example/connected",
                "room@muc.example/nick",
                "to@x.example/1"
            ]
        );
    }
}
