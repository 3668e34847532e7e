//! Any operations: the store in memory and the one in a file give the same answers.

use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;

use super::*;
use crate::store::{Memory, OfflineId, SubscriptionRequest};

#[derive(Clone, Debug)]
pub(in crate::store) enum Operation {
    Apply(usize, RosterChange),
    Pair(usize, usize, Box<(RosterChange, RosterChange)>),
    ClearRoster(usize),
    Push(usize, Vec<u8>, u32),
    /// Positions in the list of all ids ever seen.
    Remove(usize, Vec<prop::sample::Index>),
    ClearOffline(usize),
    Block(usize, Vec<usize>, Vec<usize>),
    ClearBlocks(usize),
    Reopen,
}

pub(in crate::store) const ACCOUNTS: usize = 3;

fn account(n: usize) -> BareJid {
    jid(&format!("account{n}@example.com"))
}

fn contact() -> impl Strategy<Value = BareJid> {
    (0..4_u8).prop_map(|n| jid(&format!("contact{n}@example.net")))
}

fn item() -> impl Strategy<Value = Item> {
    let groups = prop::collection::vec("[a-cA-C \0☃]{0,3}", 0..4);
    let name = prop::option::of(".{0,4}");
    (contact(), name, groups, 0..4_usize, any::<bool>(), any::<bool>()).prop_map(
        |(jid, name, groups, subscription, ask, approved)| {
            use Subscription::{Both, From, None, To};
            let subscription = [None, To, From, Both][subscription];
            Item { jid, name, groups, subscription, ask, approved }
        },
    )
}

fn change() -> impl Strategy<Value = RosterChange> {
    let request = (contact(), prop::collection::vec(any::<u8>(), 0..8))
        .prop_map(|(from, stanza)| SubscriptionRequest::new(from, stanza));
    (
        prop::option::of(any::<u64>()),
        prop::option::of(item()),
        prop::option::of(contact()),
        prop::option::of(request),
        prop::option::of(contact()),
    )
        .prop_map(|(version, put, remove, add_request, remove_request)| RosterChange {
            remove_stray: None,
            version,
            put,
            remove,
            add_request,
            remove_request,
        })
}

pub(in crate::store) fn operation() -> impl Strategy<Value = Operation> {
    let n = 0..ACCOUNTS;
    let jids = || prop::collection::vec(0..4_usize, 0..3);
    prop_oneof![
        8 => (n.clone(), change()).prop_map(|(n, c)| Operation::Apply(n, c)),
        4 => (n.clone(), n.clone(), change(), change())
            .prop_map(|(a, b, c, d)| Operation::Pair(a, b, Box::new((c, d)))),
        1 => n.clone().prop_map(Operation::ClearRoster),
        6 => (n.clone(), prop::collection::vec(any::<u8>(), 0..30), any::<u32>())
            .prop_map(|(n, bytes, time)| Operation::Push(n, bytes, time)),
        3 => (n.clone(), prop::collection::vec(any::<prop::sample::Index>(), 0..4))
            .prop_map(|(n, ids)| Operation::Remove(n, ids)),
        1 => n.clone().prop_map(Operation::ClearOffline),
        4 => (n.clone(), jids(), jids()).prop_map(|(n, a, r)| Operation::Block(n, a, r)),
        1 => n.prop_map(Operation::ClearBlocks),
        1 => Just(Operation::Reopen),
    ]
}

fn blocked(list: &[usize]) -> Vec<String> {
    const JIDS: [&str; 4] = ["a@example.com", "a@example.com/R s", "example.com", "example.com/r"];
    list.iter().map(|n| JIDS[*n].to_owned()).collect()
}

/// Does `operation` and tells what its caller learns. `seen` are the ids listed so far.
pub(in crate::store) fn perform(
    stores: &Stores,
    seen: &[OfflineId],
    operation: &Operation,
) -> Result<(), String> {
    let offline = stores.offline.as_ref().unwrap();
    let answer = match operation.clone() {
        Operation::Apply(n, change) => stores.rosters.apply(&account(n), change),
        Operation::Pair(a, b, changes) => {
            let (first, second) = *changes;
            stores.rosters.apply_pair(&account(a), first, &account(b), second)
        }
        Operation::ClearRoster(n) => stores.rosters.clear(&account(n)),
        Operation::Push(n, bytes, time) => {
            let received = UNIX_EPOCH + Duration::from_millis(u64::from(time));
            offline.push(&account(n), OfflineMessage::new(bytes, received))
        }
        Operation::Remove(_, _) if seen.is_empty() => return Ok(()),
        Operation::Remove(n, ids) => {
            offline.remove(&account(n), ids.iter().map(|id| *id.get(seen)).collect())
        }
        Operation::ClearOffline(n) => offline.clear(&account(n)),
        Operation::Block(n, added, removed) => {
            stores.blocks.apply(&account(n), blocked(&added), blocked(&removed))
        }
        Operation::ClearBlocks(n) => stores.blocks.clear(&account(n)),
        Operation::Reopen => return Ok(()),
    };
    block_on(answer).map_err(|error| error.to_string())
}

/// All there is to read of an account.
#[derive(PartialEq, Debug)]
pub(in crate::store) struct Contents {
    roster: StoredRoster,
    requests: Vec<SubscriptionRequest>,
    pub(in crate::store) messages: Vec<(OfflineId, OfflineMessage)>,
    count: usize,
    blocked: Vec<String>,
}

pub(in crate::store) fn contents(stores: &Stores, n: usize) -> Contents {
    let account = account(n);
    let offline = stores.offline.as_ref().unwrap();
    let mut roster = block_on(stores.rosters.load(&account)).unwrap();
    roster.items.sort_by(|a, b| a.jid.cmp(&b.jid));
    let requests = block_on(stores.rosters.requests(&account)).unwrap();
    let mut blocked = block_on(stores.blocks.load(&account)).unwrap();
    blocked.sort();
    let messages = block_on(offline.list(&account)).unwrap();
    let count = block_on(offline.count(&account)).unwrap();
    Contents { roster, requests, messages, count, blocked }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn roster_17_off_3_memory_and_sqlite_agree(
        operations in prop::collection::vec(operation(), 1..60)
    ) {
        let directory = Directory::new();
        let limits = OfflineLimits::new(4, 60);
        let open = || {
            let store = Sqlite::open(directory.file()).unwrap();
            Stores::all_in(Arc::new(store.with_offline_limits(limits)))
        };
        let memory = Stores::all_in(Arc::new(Memory::new().with_offline_limits(limits)));
        let mut sqlite = open();
        let mut seen = Vec::new();
        for operation in &operations {
            if matches!(operation, Operation::Reopen) {
                drop(sqlite);
                sqlite = open();
            }
            let expected = perform(&memory, &seen, operation);
            prop_assert_eq!(perform(&sqlite, &seen, operation), expected);
            for n in 0..ACCOUNTS {
                let expected = contents(&memory, n);
                prop_assert_eq!(&contents(&sqlite, n), &expected);
                // The ids agree too: both count from one and never go back.
                let ids = expected.messages.iter().map(|(id, _)| *id);
                let new: Vec<_> = ids.filter(|id| !seen.contains(id)).collect();
                seen.extend(new);
            }
        }
    }
}
