use std::sync::Arc;

use jid::BareJid;

use super::conformance;
use super::*;
use crate::park::block_on;
use crate::rules::roster::{Item, Subscription};

fn jid(text: &str) -> BareJid {
    BareJid::new(text).unwrap()
}

fn small() -> Memory {
    Memory::new().with_offline_limits(OfflineLimits::new(30, 100_000))
}

#[test]
fn roster_10_sub_9_off_2_block_2_memory_conforms() {
    conformance::all(|| Stores::all_in(Arc::new(small())));
    conformance::all(|| Stores::all_in(Arc::new(small())).without_offline());
}

#[test]
fn reg_7_reg_8_memory_conforms() {
    conformance::invitations(|| Arc::new(MemoryInvitations::new(10)));
}

#[test]
fn off_2_limits_count_messages_and_bytes() {
    let received = std::time::SystemTime::UNIX_EPOCH;
    let account = jid("juliet@example.com");
    let store: Arc<dyn OfflineStore> =
        Arc::new(Memory::new().with_offline_limits(OfflineLimits::new(3, 10)));
    let push = |bytes: usize| {
        block_on(store.push(&account, OfflineMessage::new(vec![0; bytes], received)))
    };
    assert!(matches!(push(11), Err(StoreError::Full)));
    push(4).unwrap();
    push(6).unwrap();
    assert!(matches!(push(1), Err(StoreError::Full)));
    push(0).unwrap();
    assert!(matches!(push(0), Err(StoreError::Full)));
}

#[test]
fn limit_15_memory_refuses_beyond_its_capacity_and_gives_room_back() {
    let store = Arc::new(Memory::new().with_capacity(10_000));
    let rosters: Arc<dyn RosterStore> = Arc::clone(&store) as _;
    let blocks: Arc<dyn BlockStore> = Arc::clone(&store) as _;
    let [romeo, juliet] = [jid("romeo@example.com"), jid("juliet@example.com")];
    let put = |n: usize| RosterChange::new().put(item(&format!("contact-{n}@example.com")));
    let before = format!("{store:?}");
    for _ in 0..3 {
        let mut fitted = 0;
        while block_on(rosters.apply(&romeo, put(fitted))).is_ok() {
            fitted += 1;
        }
        assert!((5..100).contains(&fitted));
        // Neither side of a pair changes when there is room for one only.
        block_on(rosters.apply(&romeo, RosterChange::new().remove(put_jid(0)))).unwrap();
        let both = rosters.apply_pair(&romeo, put(0), &juliet, put(1));
        assert!(matches!(block_on(both), Err(StoreError::Full)));
        assert_eq!(block_on(rosters.load(&romeo)).unwrap().items.len(), fitted - 1);
        assert_eq!(block_on(rosters.load(&juliet)).unwrap(), StoredRoster::default());
        block_on(blocks.apply(&romeo, vec![], vec![juliet.to_string()])).unwrap();
        block_on(rosters.clear(&romeo)).unwrap();
        assert_eq!(format!("{store:?}"), before);
    }
}

fn put_jid(n: usize) -> BareJid {
    jid(&format!("contact-{n}@example.com"))
}

fn item(contact: &str) -> Item {
    Item {
        jid: jid(contact),
        name: Some("Contact".into()),
        groups: vec!["Friends".into()],
        subscription: Subscription::Both,
        ask: false,
        approved: false,
    }
}

#[test]
fn sec_6_debug_shows_counts_only() {
    let contact = jid("secret@example.com");
    let stanza = &b"<presence from='secret@example.com'/>"[..];
    let request = SubscriptionRequest::new(contact.clone(), stanza);
    let message = OfflineMessage::new(stanza, std::time::SystemTime::UNIX_EPOCH);
    let roster = StoredRoster::new(vec![item("secret@example.com")], 7, vec![contact.clone()]);
    let change = RosterChange::new().version(7).remove(contact.clone()).remove_request(contact);
    let change = change.put(item("secret@example.com")).add_request(request.clone());
    let stores = Stores::memory();
    let shown = format!("{request:?} {message:?} {roster:?} {change:?} {stores:?} {:?}", small());
    assert!(!shown.contains("secret"), "{shown}");
    assert!(shown.contains("items: 1, version: 7, requests: 1"), "{shown}");
}

/// Cannot be reached.
struct Broken;

impl RosterStore for Broken {
    fn load(&self, _: &BareJid) -> StoreFuture<StoredRoster> {
        Box::pin(async { Err(StoreError::failed("broken")) })
    }

    fn apply(&self, _: &BareJid, _: RosterChange) -> StoreFuture<()> {
        Box::pin(async { Err(StoreError::failed("broken")) })
    }

    fn apply_pair(
        &self,
        _: &BareJid,
        _: RosterChange,
        _: &BareJid,
        _: RosterChange,
    ) -> StoreFuture<()> {
        Box::pin(async { Err(StoreError::failed("broken")) })
    }

    fn requests(&self, _: &BareJid) -> StoreFuture<Vec<SubscriptionRequest>> {
        Box::pin(async { Err(StoreError::failed("broken")) })
    }

    fn clear(&self, _: &BareJid) -> StoreFuture<()> {
        Box::pin(async { Err(StoreError::failed("broken")) })
    }
}

#[test]
fn destroy_15_a_removal_that_fails_can_be_asked_for_again() {
    let working = Stores::memory();
    let account = jid("juliet@example.com");
    block_on(working.accounts.set_credentials(&account, Credentials::new())).unwrap();
    let broken = Stores { rosters: Arc::new(Broken), ..working.clone() };
    assert!(block_on(broken.remove_account(&account)).is_err());
    assert!(block_on(working.accounts.exists(&account)).unwrap());
    assert!(block_on(working.remove_account(&account)).unwrap());
}

#[test]
#[should_panic = "BIND-13: the store failed: broken"]
fn bind_13_conformance_names_the_rule_that_is_broken() {
    conformance::rosters(|| Arc::new(Broken));
}
