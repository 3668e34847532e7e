use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::rules::roster::Subscription;

fn jid(text: &str) -> BareJid {
    BareJid::new(text).unwrap()
}

fn item(text: &str) -> Item {
    Item::new(jid(text))
}

fn contact(n: usize) -> Item {
    let mut item = item(&format!("contact-{n}@some-server.example.org"));
    item.name = Some(format!("Contact Number {n}"));
    item.groups = vec!["Friends".into(), "Colleagues from work".into()];
    item.subscription = Subscription::Both;
    item
}

#[test]
fn roster_17_each_visible_change_has_a_new_version() {
    let mut roster = Roster::new();
    assert_eq!(roster.version(), 0);
    let mut nurse = item("nurse@example.com");
    assert!(roster.put(&nurse));
    assert_eq!(roster.version(), 1);
    let changes: [fn(&mut Item); 5] = [
        |item| item.name = Some("Angelica".into()),
        |item| item.groups.push("Servants".into()),
        |item| item.subscription = Subscription::From,
        |item| item.ask = true,
        |item| item.approved = true,
    ];
    for (change, version) in changes.iter().zip(2..) {
        change(&mut nurse);
        assert_eq!(roster.next_version(), version);
        assert!(roster.put(&nurse));
        assert_eq!(roster.version(), version);
    }
    assert!(roster.remove("nurse@example.com"));
    assert_eq!(roster.version(), 7);
}

#[test]
fn roster_13_what_changes_nothing_has_no_new_version() {
    let mut roster = Roster::from_items([contact(1)], 4, []);
    assert!(!roster.put(&contact(1)));
    assert!(!roster.remove("nobody@example.com"));
    assert_eq!(roster.version(), 4);
}

#[test]
fn roster_18_requests_do_not_change_the_version() {
    let mut roster = Roster::from_items([contact(1)], 4, []);
    assert!(roster.add_request(&jid("romeo@example.net")));
    assert!(roster.remove_request("romeo@example.net"));
    assert!(!roster.remove_request("romeo@example.net"));
    assert_eq!(roster.version(), 4);
}

#[test]
fn roster_3_a_request_is_no_item() {
    let mut roster = Roster::new();
    roster.add_request(&jid("romeo@example.net"));
    assert!(roster.has_request("romeo@example.net"));
    assert!(roster.get("romeo@example.net").is_none());
    assert_eq!(roster.iter().count(), 0);
    assert!(roster.is_empty());
    assert_eq!(
        roster.standing("romeo@example.net"),
        Standing { state: State::PendingIn, approved: false, listed: false }
    );
}

#[test]
fn sub_9_one_request_per_contact() {
    let mut roster = Roster::new();
    assert!(roster.add_request(&jid("romeo@example.net")));
    assert!(!roster.add_request(&jid("romeo@example.net")));
    assert_eq!(roster.requests().len(), 1);
}

#[test]
fn subscribers_and_subscriptions_follow_the_items() {
    let with = |text: &str, subscription| {
        let mut item = item(text);
        item.subscription = subscription;
        item
    };
    let roster = Roster::from_items(
        [
            with("none@example.com", Subscription::None),
            with("to@example.com", Subscription::To),
            with("from@example.com", Subscription::From),
            with("both@example.com", Subscription::Both),
        ],
        0,
        [],
    );
    let jids = |entries: Vec<ItemRef<'_>>| {
        entries.iter().map(|entry| entry.jid().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(jids(roster.subscribers().collect()), ["both@example.com", "from@example.com"]);
    assert_eq!(jids(roster.subscriptions().collect()), ["both@example.com", "to@example.com"]);
    assert!(roster.is_subscriber("from@example.com"));
    assert!(!roster.is_subscriber("to@example.com"));
}

#[test]
fn of_two_items_with_one_jid_the_last_counts() {
    let mut last = item("nurse@example.com");
    last.ask = true;
    let roster =
        Roster::from_items([item("nurse@example.com"), item("a@example.com"), last.clone()], 0, []);
    assert_eq!(roster.len(), 2);
    assert_eq!(roster.item(&last.jid), Some(last));
}

#[test]
fn a_separator_in_a_name_cannot_make_a_group() {
    let mut odd = item("nurse@example.com");
    odd.name = Some("Ange\0lica".into());
    let roster = Roster::from_items([odd], 0, []);
    let entry = roster.get("nurse@example.com").unwrap();
    assert_eq!(entry.name(), Some("Angelica"));
    assert_eq!(entry.groups().count(), 0);
}

#[test]
fn sec_6_debug_of_a_roster_names_nobody() {
    let roster = Roster::from_items([contact(1)], 3, [jid("romeo@example.net")]);
    let entry = roster.get(contact(1).jid.as_str()).unwrap();
    let printed = format!("{roster:?} {entry:?}");
    assert!(
        !printed.contains("contact") && !printed.contains("Contact") && !printed.contains("romeo")
    );
    assert!(printed.contains("items: 1, requests: 1, version: 3"));
}

#[derive(Clone, Debug)]
enum Operation {
    Put(Item),
    Remove(BareJid),
    AddRequest(BareJid),
    RemoveRequest(BareJid),
}

fn contacts() -> impl Strategy<Value = BareJid> {
    prop::sample::select(vec![
        "a@x.example",
        "b@x.example",
        "b.x.example",
        "x.example",
        "é@x.example",
    ])
    .prop_map(jid)
}

fn items() -> impl Strategy<Value = Item> {
    let subscriptions =
        vec![Subscription::None, Subscription::To, Subscription::From, Subscription::Both];
    (
        contacts(),
        prop::option::of("[a-zé ]{1,9}"),
        vec("[a-zé ]{1,9}", 0..4),
        prop::sample::select(subscriptions),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(jid, name, groups, subscription, ask, approved)| Item {
            jid,
            name,
            groups,
            subscription,
            ask,
            approved,
        })
}

fn operations() -> impl Strategy<Value = Operation> {
    prop_oneof![
        3 => items().prop_map(Operation::Put),
        2 => contacts().prop_map(Operation::Remove),
        1 => contacts().prop_map(Operation::AddRequest),
        1 => contacts().prop_map(Operation::RemoveRequest),
    ]
}

proptest! {
    #[test]
    fn roster_18_a_roster_behaves_like_a_map_that_counts_changes(operations in vec(operations(), 0..60)) {
        let mut roster = Roster::new();
        let mut items: BTreeMap<String, Item> = BTreeMap::new();
        let mut requests: BTreeSet<String> = BTreeSet::new();
        let mut version = 0;
        for operation in operations {
            match operation {
                Operation::Put(item) => {
                    let changed = items.insert(item.jid.to_string(), item.clone()).as_ref() != Some(&item);
                    version += u64::from(changed);
                    prop_assert_eq!(roster.put(&item), changed);
                }
                Operation::Remove(jid) => {
                    let changed = items.remove(jid.as_str()).is_some();
                    version += u64::from(changed);
                    prop_assert_eq!(roster.remove(jid.as_str()), changed);
                }
                Operation::AddRequest(jid) => {
                    prop_assert_eq!(roster.add_request(&jid), requests.insert(jid.to_string()));
                }
                Operation::RemoveRequest(jid) => {
                    prop_assert_eq!(roster.remove_request(jid.as_str()), requests.remove(jid.as_str()));
                }
            }
            prop_assert_eq!(roster.version(), version);
            prop_assert_eq!(roster.len(), items.len());
            let shown: Vec<Item> = roster.iter().map(|entry| roster.item(&jid(entry.jid())).unwrap()).collect();
            prop_assert_eq!(&shown, &items.values().cloned().collect::<Vec<_>>());
            prop_assert_eq!(roster.requests().collect::<Vec<_>>(), requests.iter().collect::<Vec<_>>());
            let reloaded = Roster::from_items(shown, version, roster.requests().map(jid));
            prop_assert_eq!(super::super::result(&reloaded, None), super::super::result(&roster, None));
        }
    }
}

fn many(items: usize) -> Roster {
    Roster::from_items((0..items).map(contact), 1, [])
}

/// Rows that two rosters do not share in memory.
fn copied(old: &Roster, new: &Roster) -> usize {
    new.items.rows_not_in(&old.items)
}

#[test]
fn limit_15_a_change_copies_a_few_items_however_many_there_are() {
    for items in [10, 100, 1_000, 2_000] {
        let old = many(items);
        let mut new_name = contact(items / 2);
        new_name.name = Some("Another Name".into());
        let mut longer = contact(items / 3);
        longer.groups.push("x".repeat(5_000));
        for (what, change) in
            [("changed", &new_name), ("grown", &longer), ("added", &contact(items))]
        {
            let mut new = old.clone();
            assert!(new.put(change));
            assert!(copied(&old, &new) <= 33, "{items}, {what}: {}", copied(&old, &new));
        }
        let mut new = old.clone();
        assert!(new.remove(contact(items / 2).jid.as_str()));
        assert!(copied(&old, &new) < 32, "{items}, removed: {}", copied(&old, &new));
        assert_eq!(old.iter().count(), items, "who reads the old one sees it as it was");
    }
}

#[test]
fn limit_15_what_shrinks_is_packed_anew() {
    let mut roster = many(2_000);
    let rows_of_a_page = |roster: &Roster| roster.len() / roster.items.pages();
    let full = rows_of_a_page(&roster);
    // Every second one is kept, then every fourth, and so on, without an order.
    for kept in [2, 4, 8, 16] {
        for n in (0..2_000).map(|n| n * 1_009 % 2_000).filter(|n| n % kept != 0) {
            roster.remove(contact(n).jid.as_str());
        }
    }
    assert_eq!(roster.len(), 125);
    assert!(rows_of_a_page(&roster) >= full / 8, "{} pages", roster.items.pages());
    for n in 0..2_000 {
        roster.remove(contact(n).jid.as_str());
    }
    assert_eq!(roster.items.pages(), 0);
}

#[test]
fn roster_17_one_version_is_never_that_of_two_rosters() {
    let mut seen = BTreeSet::new();
    let mut variants = vec![item("nurse@example.com"), item("nurs@example.com")];
    let changes: [fn(&mut Item); 9] = [
        |item| item.name = Some("A".into()),
        |item| item.groups = vec!["A".into()],
        |item| item.groups = vec!["A".into(), "B".into()],
        |item| item.groups = vec!["B".into(), "A".into()],
        |item| item.groups = vec!["AB".into()],
        |item| item.subscription = Subscription::To,
        |item| item.subscription = Subscription::From,
        |item| item.ask = true,
        |item| item.approved = true,
    ];
    for change in changes {
        let mut item = item("nurse@example.com");
        change(&mut item);
        variants.push(item);
    }
    // The same number each time, as after a restart of a store that forgets.
    for one in &variants {
        assert!(seen.insert(Roster::from_items([one.clone()], 1, []).ver()), "{one:?}");
        let two = [one.clone(), item("romeo@example.net")];
        assert!(seen.insert(Roster::from_items(two, 1, []).ver()), "{one:?} and another");
    }
    assert!(seen.insert(Roster::from_items([], 1, []).ver()));
}

#[test]
fn roster_17_the_way_to_a_roster_does_not_show_in_its_version() {
    let mut grown = Roster::new();
    for n in (0..300).rev() {
        grown.put(&contact(n));
    }
    for n in 100..300 {
        grown.remove(contact(n).jid.as_str());
    }
    let loaded = Roster::from_items((0..100).map(contact), grown.version(), []);
    assert_eq!((grown.ver(), grown.bytes()), (loaded.ver(), loaded.bytes()));
}

/// Indices of many contacts, some with long texts, so that pages divide and join.
fn edits() -> impl Strategy<Value = Vec<(usize, Option<usize>)>> {
    let lengths = prop_oneof![4 => 0..40_usize, 1 => 2_000..9_000_usize];
    vec((0..120_usize, prop::option::weighted(0.6, lengths)), 0..300)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn pages_hold_what_a_map_holds(edits in edits()) {
        let mut roster = Roster::new();
        let mut model: BTreeMap<String, Item> = BTreeMap::new();
        for (n, name) in edits {
            let mut one = contact(n);
            one.name = name.map(|len| "n".repeat(len)).filter(|name| !name.is_empty());
            let (before, shown) = (roster.clone(), model.clone());
            if name.is_some() {
                roster.put(&one);
                model.insert(one.jid.to_string(), one);
            } else {
                roster.remove(one.jid.as_str());
                model.remove(one.jid.as_str());
            }
            let items = |roster: &Roster| {
                roster.iter().map(|entry| roster.item(&jid(entry.jid())).unwrap()).collect::<Vec<_>>()
            };
            prop_assert_eq!(items(&roster), model.values().cloned().collect::<Vec<_>>());
            prop_assert_eq!(items(&before), shown.values().cloned().collect::<Vec<_>>());
            prop_assert_eq!((roster.len(), roster.is_empty()), (model.len(), model.is_empty()));
        }
        let loaded = Roster::from_items(model.values().cloned(), roster.version(), []);
        prop_assert_eq!((roster.ver(), roster.bytes()), (loaded.ver(), loaded.bytes()));
    }
}

#[test]
fn hashes_are_kept_and_are_no_change() {
    let mut roster = Roster::from_items((0..3).map(contact), 1, []);
    let length = |jid: &str| u32::try_from(jid.len()).unwrap();
    roster.set_hashes(&Roster::new(), length);
    assert!(!roster.put(&contact(1)), "it is as it was");
    let mut changed = contact(1);
    changed.name = None;
    assert!(roster.put(&changed));
    assert!(roster.iter().all(|entry| entry.hash() == length(entry.jid())));
}

#[test]
fn only_what_is_new_is_hashed() {
    let length = |jid: &str| u32::try_from(jid.len()).unwrap();
    let mut known = many(2_000);
    known.set_hashes(&Roster::new(), length);
    let mut added = known.clone();
    added.put(&contact(2_000));
    let mut removed = known.clone();
    removed.remove(contact(1_000).jid.as_str());
    for mut new in [added, removed, known.clone()] {
        let hashed = std::cell::Cell::new(0);
        new.set_hashes(&known, |jid| {
            hashed.set(hashed.get() + 1);
            length(jid)
        });
        assert!(hashed.get() <= 33, "{}", hashed.get());
        assert!(new.iter().all(|entry| entry.hash() == length(entry.jid())));
    }
    // Those of another registry are worth nothing here.
    let mut foreign = known.clone();
    foreign.set_hashes(&Roster::new(), |_| 7);
    foreign.set_hashes(&many(2_000), length);
    assert!(foreign.iter().all(|entry| entry.hash() == length(entry.jid())));
    assert!(known.iter().all(|entry| entry.hash() == length(entry.jid())));
}
