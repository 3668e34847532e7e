//! Each row is written as in `docs/rules.md` section 8.

use super::*;
use crate::rules::delivery::Top;

const TYPES: [MessageType; 5] = [
    MessageType::Normal,
    MessageType::Chat,
    MessageType::Groupchat,
    MessageType::Headline,
    MessageType::Error,
];

const ALL: [MessageSituation; 9] = [
    MessageSituation::UnknownBare,
    MessageSituation::UnknownFull,
    MessageSituation::BareNoneAvailable,
    MessageSituation::BareAllNegative,
    MessageSituation::BareOne,
    MessageSituation::BareSeveral,
    MessageSituation::FullMatch,
    MessageSituation::FullNoneNonNegative,
    MessageSituation::FullSomeNonNegative,
];

/// `U` and `OFF` resolve as the store would.
fn row(situation: MessageSituation, cells: &str) {
    for offline in [Offline::Store, Offline::Bounce, Offline::Drop] {
        for (type_, cell) in TYPES.into_iter().zip(cells.split(' ')) {
            let expected = match (cell, offline) {
                ("TOP", _) => MessageDecision::Top,
                ("ALL", _) => MessageDecision::All,
                ("D", _) => MessageDecision::Addressed,
                ("OFF", Offline::Store) => MessageDecision::Offline,
                ("OFF" | "U", Offline::Bounce) | ("E", _) => MessageDecision::Bounce,
                ("OFF" | "U", Offline::Drop) | ("U", Offline::Store) | ("S", _) => {
                    MessageDecision::Silent
                }
                _ => panic!("no cell {cell}"),
            };
            assert_eq!(message(type_, situation, offline), expected, "{type_:?} {offline:?}");
        }
    }
}

#[test]
fn msg_t1_unknown_account_bare() {
    row(MessageSituation::UnknownBare, "U U E S S");
}

#[test]
fn msg_t2_unknown_account_full() {
    row(MessageSituation::UnknownFull, "E U E S S");
}

#[test]
fn msg_t3_no_session_available() {
    assert_eq!(MessageSituation::bare([]), MessageSituation::BareNoneAvailable);
    row(MessageSituation::BareNoneAvailable, "OFF OFF E S S");
}

#[test]
fn msg_t4_all_available_ones_negative() {
    assert_eq!(MessageSituation::bare([-1, -128]), MessageSituation::BareAllNegative);
    row(MessageSituation::BareAllNegative, "OFF OFF E S S");
}

#[test]
fn msg_t5_the_one_session_is_top_and_all() {
    assert_eq!(MessageSituation::bare([-1, 0, -5]), MessageSituation::BareOne);
    row(MessageSituation::BareOne, "TOP TOP E ALL S");
    let top = Top::choose([(-1, true), (0, true), (-5, true)]).unwrap();
    assert!(top.takes(0, true) && !top.takes(-1, true));
}

#[test]
fn msg_t6_several_sessions() {
    assert_eq!(MessageSituation::bare([0, -1, 127]), MessageSituation::BareSeveral);
    row(MessageSituation::BareSeveral, "TOP TOP E ALL S");
}

#[test]
fn msg_t7_full_jid_matches() {
    row(MessageSituation::FullMatch, "D D D D D");
}

#[test]
fn msg_t8_full_jid_without_match_and_nobody_else() {
    assert_eq!(MessageSituation::full_without_match([-1]), MessageSituation::FullNoneNonNegative);
    assert_eq!(MessageSituation::full_without_match([]), MessageSituation::FullNoneNonNegative);
    row(MessageSituation::FullNoneNonNegative, "E OFF E S S");
}

#[test]
fn msg_t9_full_jid_without_match_but_others() {
    assert_eq!(
        MessageSituation::full_without_match([-1, 0]),
        MessageSituation::FullSomeNonNegative
    );
    row(MessageSituation::FullSomeNonNegative, "E TOP E S S");
}

#[test]
fn msg_1_unknown_types_count_as_normal() {
    for attribute in [None, Some("normal"), Some("Chat"), Some(""), Some("available")] {
        assert_eq!(MessageType::of(attribute), MessageType::Normal, "{attribute:?}");
    }
    for (name, type_) in [
        ("chat", MessageType::Chat),
        ("groupchat", MessageType::Groupchat),
        ("headline", MessageType::Headline),
        ("error", MessageType::Error),
    ] {
        assert_eq!(MessageType::of(Some(name)), type_);
    }
}

#[test]
fn msg_2_all_sessions_of_highest_priority_get_the_message() {
    let sessions = [(5, true), (7, true), (7, true), (-1, true)];
    let top = Top::choose(sessions).unwrap();
    assert_eq!(
        sessions.map(|(priority, live)| top.takes(priority, live)),
        [false, true, true, false]
    );
}

#[test]
fn msg_3_a_message_does_not_wait_for_hibernating_sessions_alone() {
    let sessions = [(7, false), (5, true), (5, false), (5, true), (3, true)];
    let top = Top::choose(sessions).unwrap();
    assert_eq!(
        sessions.map(|(priority, live)| top.takes(priority, live)),
        [true, true, false, true, false]
    );
    // One live session among the highest is enough.
    let top = Top::choose([(7, false), (7, true), (5, true)]).unwrap();
    assert!(top.takes(7, false) && top.takes(7, true) && !top.takes(5, true));
    // Nobody is live: the highest wait.
    let top = Top::choose([(7, false), (5, false)]).unwrap();
    assert!(top.takes(7, false) && !top.takes(5, false));
}

#[test]
fn msg_4_negative_sessions_get_nothing_from_the_bare_jid() {
    assert_eq!(Top::choose([(-1, true), (-128, true)]), None);
    let top = Top::choose([(0, false), (-1, true)]).unwrap();
    assert!(!top.takes(-1, true));
}

#[test]
fn msg_5_an_unknown_account_looks_like_one_without_sessions() {
    for (unknown, existing) in [
        (MessageSituation::UnknownBare, MessageSituation::BareNoneAvailable),
        (MessageSituation::UnknownFull, MessageSituation::FullNoneNonNegative),
    ] {
        for type_ in TYPES {
            for offline in [Offline::Store, Offline::Bounce, Offline::Drop] {
                let seen =
                    |situation| message(type_, situation, offline) == MessageDecision::Bounce;
                assert_eq!(seen(unknown), seen(existing), "{type_:?} {offline:?}");
            }
        }
    }
}

#[test]
fn msg_6_groupchat_and_normal_to_a_missing_resource_are_bounced() {
    for situation in [
        MessageSituation::UnknownFull,
        MessageSituation::FullNoneNonNegative,
        MessageSituation::FullSomeNonNegative,
    ] {
        for type_ in [MessageType::Groupchat, MessageType::Normal] {
            assert_eq!(message(type_, situation, Offline::Store), MessageDecision::Bounce);
        }
    }
}

#[test]
fn msg_7_only_chat_is_redirected_from_a_missing_resource() {
    for type_ in TYPES {
        let redirected = message(type_, MessageSituation::FullSomeNonNegative, Offline::Store)
            == MessageDecision::Top;
        assert_eq!(redirected, type_ == MessageType::Chat);
    }
}

#[test]
fn msg_8_choosing_again_without_a_session_ends_at_the_store() {
    let mut sessions = vec![(7, true), (5, true), (-1, true)];
    let mut takers = vec![];
    while let Some(top) = Top::choose(sessions.iter().copied()) {
        takers
            .extend(sessions.iter().copied().filter(|&(priority, live)| top.takes(priority, live)));
        sessions.retain(|&(priority, live)| !top.takes(priority, live));
    }
    assert_eq!(takers, [(7, true), (5, true)]);
    let left = MessageSituation::bare(sessions.into_iter().map(|(priority, _)| priority));
    assert_eq!(message(MessageType::Chat, left, Offline::Store), MessageDecision::Offline);
}

#[test]
fn msg_9_a_message_that_the_domain_does_not_handle() {
    let outcomes = TYPES.map(message_to_domain);
    let (bounce, silent) = (MessageDecision::Bounce, MessageDecision::Silent);
    assert_eq!(outcomes, [bounce, bounce, bounce, silent, silent]);
}

#[test]
fn stz_7_an_error_is_never_answered() {
    for situation in ALL {
        for offline in [Offline::Store, Offline::Bounce, Offline::Drop] {
            assert_ne!(message(MessageType::Error, situation, offline), MessageDecision::Bounce);
        }
    }
}
