//! The ledger of who is known from elsewhere, alone.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::cluster::ledger::{Ledgers, Lost};

fn text(text: &str) -> Arc<str> {
    text.into()
}

fn ends(lost: &[Lost]) -> Vec<String> {
    let end = |one: &Lost| {
        let resource = one.resource.as_ref().map(|r| format!("/{r}")).unwrap_or_default();
        format!("{}{resource}: {}", one.account, one.from)
    };
    lost.iter().map(end).collect()
}

#[test]
fn node_17_an_end_is_told_to_who_knew_and_once() {
    let (mut ledgers, juliet) = (Ledgers::default(), text("juliet@example.com"));
    let (one, other) = (text("romeo@example.com/1"), text("romeo@example.com/2"));
    assert!(!ledgers.strike(&juliet, None, &one));
    (0..2).for_each(|_| ledgers.note(&juliet, None, &one));
    ledgers.note(&text("nurse@example.com"), None, &other);
    assert!(!ledgers.strike(&juliet, None, &other));
    assert!(ledgers.strike(&juliet, None, &one));
    assert!(!ledgers.strike(&juliet, None, &one));
    assert_eq!(ledgers.len(), 1);
}

#[test]
fn node_17_what_one_session_was_told_ends_for_that_one() {
    let (mut ledgers, juliet, romeo) =
        (Ledgers::default(), text("juliet@example.com"), text("romeo@example.com/1"));
    ledgers.note(&juliet, Some("balcony"), &romeo);
    ledgers.note(&juliet, Some("chamber"), &romeo);
    assert!(!ledgers.strike(&juliet, None, &romeo));
    assert_eq!(ledgers.directed(&juliet, &romeo), [text("balcony"), text("chamber")]);
    assert!(ledgers.strike(&juliet, Some("balcony"), &romeo));
    assert!(!ledgers.strike(&juliet, Some("balcony"), &romeo));
    ledgers.note(&juliet, None, &romeo);
    ledgers.retire(&juliet, false, |resource| resource == "chamber");
    assert!(!ledgers.strike(&juliet, None, &romeo));
    ledgers.retire(&juliet, false, |_| false);
    assert_eq!(ledgers.len(), 0);
}

#[test]
fn node_17_of_a_lost_slot_each_watcher_is_told_each_session_once() {
    let mut ledgers = Ledgers::default();
    for watcher in ["juliet@example.com", "nurse@example.com"] {
        for from in ["romeo@example.com/1", "romeo@example.com/2", "tybalt@example.com/1"] {
            ledgers.note(&text(watcher), None, &text(from));
        }
    }
    ledgers.note(&text("juliet@example.com"), Some("balcony"), &text("romeo@example.com/3"));
    let is_romeo = |from: &str| from.starts_with("romeo@example.com/");
    let lost = ledgers.lose(None, is_romeo, |account| account == "juliet@example.com");
    assert_eq!(
        ends(&lost),
        [
            "juliet@example.com: romeo@example.com/1",
            "juliet@example.com: romeo@example.com/2",
            "juliet@example.com/balcony: romeo@example.com/3"
        ]
    );
    assert_eq!(ledgers.lose(None, is_romeo, |account| account == "juliet@example.com"), []);
    assert_eq!(ledgers.lose(None, is_romeo, |_| true).len(), 2);
    assert_eq!(ledgers.len(), 2, "tybalt is there");
}

/// Others of the account are there still: what one was told that is gone is forgotten all the same, since who told it
/// may have forgotten that (PRES-11) and never say more.
#[test]
fn node_17_what_one_session_was_told_goes_with_it() {
    let (mut ledgers, juliet) = (Ledgers::default(), text("juliet@example.com"));
    ledgers.note(&juliet, None, &text("romeo@example.com/1"));
    for n in 0..1000 {
        let resource = format!("r{n}");
        ledgers.note(&juliet, Some(&resource), &text("romeo@example.com/1"));
        ledgers.retire(&juliet, true, |one| one != resource);
    }
    assert_eq!(ledgers.len(), 1);
    assert!(ledgers.strike(&juliet, None, "romeo@example.com/1"));
}

#[test]
fn node_17_a_ledger_moves_with_its_account() {
    let mut ledgers = Ledgers::default();
    let (juliet, romeo) = (text("juliet@example.com"), text("romeo@example.com/1"));
    ledgers.note(&juliet, None, &romeo);
    ledgers.note(&juliet, Some("balcony"), &romeo);
    ledgers.note(&text("nurse@example.com"), None, &romeo);
    let is_meant = |account: &str| account == "juliet@example.com";
    let bytes = ledgers.export(None, is_meant);
    ledgers.drop_those(None, is_meant);
    assert_eq!(ledgers.len(), 1);
    let mut there = Ledgers::default();
    assert_eq!(there.import(&bytes), Some(()));
    assert!(there.strike(&juliet, None, &romeo) && there.strike(&juliet, Some("balcony"), &romeo));
    assert_eq!(there.len(), 0);
}

/// What is known is written once for all who were told by the same frame.
#[test]
fn node_17_a_jid_is_kept_once_for_all_watchers() {
    let (mut ledgers, romeo) = (Ledgers::default(), text("romeo@example.com/orchard"));
    (0..20).for_each(|n| ledgers.note(&format!("a{n}@example.com").into(), None, &romeo));
    assert_eq!(Arc::strong_count(&romeo), 21);
    assert_eq!(size_of::<Arc<str>>(), 16);
}

proptest! {
    /// As a set of pairs would.
    #[test]
    fn node_17_a_ledger_is_a_set(steps in vec((any::<bool>(), 0..3_u8, 0..6_u8), 0..60)) {
        let (mut ledgers, mut model) = (Ledgers::default(), BTreeSet::new());
        for (note, account, from) in steps {
            let pair = (format!("a{account}@x"), format!("f{from}@x/r"));
            if note {
                ledgers.note(&text(&pair.0), None, &text(&pair.1));
                model.insert(pair);
            } else {
                prop_assert_eq!(ledgers.strike(&pair.0, None, &pair.1), model.remove(&pair));
            }
            prop_assert_eq!(ledgers.len(), model.len());
        }
        let mut again = Ledgers::default();
        prop_assert!(again.import(&ledgers.export(None, |_| true)).is_some());
        let lost = again.lose(None, |_| true, |_| true);
        let lost: BTreeSet<_> =
            lost.iter().map(|one| (one.account.to_string(), one.from.to_string())).collect();
        prop_assert_eq!(lost, model);
    }

    #[test]
    fn node_17_bytes_of_anything_are_ledgers_or_nothing(bytes in vec(any::<u8>(), 0..64)) {
        let mut ledgers = Ledgers::default();
        if ledgers.import(&bytes).is_none() {
            prop_assert_eq!(ledgers.len(), 0);
        }
    }
}
