use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn jid(text: &str) -> BareJid {
    BareJid::new(text).unwrap()
}

fn item(text: &str) -> Item {
    Item::new(jid(text))
}

/// Heap bytes of a roster, from what it holds: boxed text is exact, lists count by capacity.
fn heap(roster: &Roster) -> usize {
    roster.items.capacity() * size_of::<Packed>()
        + roster.items.iter().map(|item| item.text.len()).sum::<usize>()
        + roster.requests.capacity() * size_of::<Box<str>>()
        + roster.requests.iter().map(|request| request.len()).sum::<usize>()
}

fn contact(n: usize) -> Item {
    let mut item = item(&format!("contact-{n}@some-server.example.org"));
    item.name = Some(format!("Contact Number {n}"));
    item.groups = vec!["Friends".into(), "Colleagues from work".into()];
    item.subscription = Subscription::Both;
    item
}

fn text(item: &Item) -> usize {
    item.jid.as_str().len()
        + item.name.as_ref().map_or(0, String::len)
        + item.groups.iter().map(String::len).sum::<usize>()
}

#[test]
fn an_item_takes_48_bytes_beside_its_text() {
    assert_eq!(size_of::<Packed>(), 24);
    for count in [50, 2_000] {
        let items: Vec<Item> = (0..count).map(contact).collect();
        let text: usize = items.iter().map(text).sum();
        let loaded = Roster::from_items(items.clone(), 0, []);
        assert!(heap(&loaded) <= text + 28 * count, "{} bytes", heap(&loaded));
        let mut edited = Roster::new();
        for item in &items {
            edited.put(item);
        }
        // An eighth of slack on 24 bytes, and a separator before the name and each group. The
        // rest of the 48 is for what allocators add to a block.
        assert!(heap(&edited) <= text + 31 * count, "{} bytes", heap(&edited));
        for item in &items {
            edited.remove(item.jid.as_str());
        }
        assert_eq!(heap(&edited), 0);
    }
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
    assert_eq!(roster.standing("romeo@example.net"), Standing::new(State::PendingIn, false, false));
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
    let jids = |entries: Vec<Entry<'_>>| {
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

#[test]
fn hashes_are_kept_and_are_no_change() {
    let mut roster = Roster::from_items((0..3).map(contact), 1, []);
    let length = |jid: &str| u32::try_from(jid.len()).unwrap();
    roster.set_hashes(length);
    assert!(!roster.put(&contact(1)), "it is as it was");
    let mut changed = contact(1);
    changed.name = None;
    assert!(roster.put(&changed));
    assert!(roster.iter().all(|entry| entry.hash() == length(entry.jid())));
}
