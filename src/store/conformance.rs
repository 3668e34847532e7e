//! Tests for a store of your own: what the server relies on, rule by rule.
//!
//! Call them from a test of the crate that implements the store:
//!
//! ```
//! use std::sync::Arc;
//! use xmpp_session::store::{Memory, OfflineLimits, Stores, conformance};
//!
//! conformance::all(|| {
//!     Stores::all_in(Arc::new(Memory::new().with_offline_limits(OfflineLimits::new(20, 10_000))))
//! });
//! ```
//!
//! Each test opens the store anew and uses accounts at `conformance.invalid`, which it clears
//! before and leaves as they are afterwards: the store may hold other accounts, and may be the same one
//! each time. The tests block the calling thread on the store's futures. A store whose futures need a
//! runtime is tested from a thread that has entered it, with the runtime running on others.
//!
//! # Panics
//!
//! Every function here panics where the store does not do what it must; the message begins with
//! the rule.

#![expect(clippy::panic, clippy::missing_panics_doc, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use jid::BareJid;

use super::{
    AccountStore, BlockStore, ClientKey, ClientTokens, Credentials, InvitationStore,
    OfflineMessage, OfflineStore, Revision, RosterChange, RosterStore, ScramHash, ScramKeys,
    StoreError, StoreFuture, StoredInvitation, StoredRoster, Stores, SubscriptionRequest, Token,
    TokenStore,
};
use crate::park::block_on;
use crate::rules::roster::{Item, Subscription};

/// How many messages of 100 bytes the limit of a tested [`OfflineStore`] may allow at most.
pub const MOST_OFFLINE_MESSAGES: usize = 1000;

/// Tests every store of a bundle.
pub fn all(open: impl Fn() -> Stores) {
    accounts(|| open().accounts);
    rosters(|| open().rosters);
    blocks(|| open().blocks);
    if open().offline.is_some() {
        offline(|| open().offline.unwrap_or_else(|| panic!("offline store there, then gone")));
    }
    if open().tokens.is_some() {
        tokens(|| open().tokens.unwrap_or_else(|| panic!("token store there, then gone")));
    }
    removal(&open());
}

/// Tests a bundle that outlives its process: `open` opens the same stores each time, and what was
/// acknowledged before must be there afterwards.
pub fn durable(open: impl Fn() -> Stores) {
    const RULE: &str = "durable before acknowledged";
    let [account, contact] = [jid("durable"), jid("durable-contact")];
    let stores = open();
    done(RULE, stores.remove_account(&account));
    done(RULE, stores.accounts.set_credentials(&account, credentials(1)));
    let change = RosterChange::new().version(3).put(item(&contact)).add_request(request(&contact));
    done(RULE, stores.rosters.apply(&account, change));
    done(RULE, stores.blocks.apply(&account, vec![contact.to_string()], vec![]));
    if let Some(tokens) = &stores.tokens {
        assert!(done(RULE, tokens.replace(&account, &client(1), None, Some(record(1)))), "{RULE}");
    }
    let mut last_id = None;
    if let Some(offline) = &stores.offline {
        done(RULE, offline.push(&account, message(1)));
        done(RULE, offline.push(&account, message(2)));
        let ids: Vec<_> = done(RULE, offline.list(&account)).iter().map(|(id, _)| *id).collect();
        last_id = ids.last().copied();
        done(RULE, offline.remove(&account, ids));
    }
    drop(stores);

    let stores = open();
    let found = done(RULE, stores.accounts.credentials(&account));
    same(RULE, "credentials", &found.map(|c| keys(&c)), &Some(keys(&credentials(1))));
    let expected = StoredRoster::new(vec![item(&contact)], 3, vec![contact.clone()]);
    same(RULE, "roster", &done(RULE, stores.rosters.load(&account)), &expected);
    same(RULE, "requests", &*done(RULE, stores.rosters.requests(&account)), &[request(&contact)]);
    same(RULE, "block list", &*done(RULE, stores.blocks.load(&account)), &[contact.to_string()]);
    if let Some(tokens) = &stores.tokens {
        let found = done(RULE, tokens.client(&account, &client(1)));
        same(RULE, "record of a client", &found, &Some(record(1)));
    }
    if let Some(offline) = &stores.offline {
        done(RULE, offline.push(&account, message(3)));
        let list = done(RULE, offline.list(&account));
        same("OFF-4", "messages", &*messages(&list), &[message(3)]);
        assert!(list.first().map(|(id, _)| *id) != last_id, "OFF-4: an id was used twice");
    }
    done(RULE, stores.remove_account(&account));
}

/// Tests an [`AccountStore`].
pub fn accounts(open: impl Fn() -> Arc<dyn AccountStore>) {
    let store = open();
    let [account, other] = [jid("account"), jid("account-other")];
    done("SASL", store.remove(&account));
    done("SASL", store.set_credentials(&other, credentials(9)));

    assert!(done("SASL", store.credentials(&account)).is_none(), "SASL: unknown account found");
    assert!(!done("SASL", store.exists(&account)), "SASL: an unknown account exists");
    for round in [1, 2] {
        done("SASL", store.set_credentials(&account, credentials(round)));
        let found = done("SASL", store.credentials(&account)).map(|found| keys(&found));
        same("SASL", "credentials", &found, &Some(keys(&credentials(round))));
    }
    let disabled = Credentials { disabled: true, ..Credentials::new() };
    done("SASL-7", store.set_credentials(&account, disabled.clone()));
    let found = done("SASL-7", store.credentials(&account)).map(|found| keys(&found));
    same("SASL-7", "credentials", &found, &Some(keys(&disabled)));
    assert!(done("SASL-7", store.exists(&account)), "SASL-7: a disabled account does not exist");

    if store.adds_keys() {
        added_keys(&*store, &account);
    }

    assert!(done("DESTROY-15", store.remove(&account)), "DESTROY-15: account not found");
    assert!(!done("DESTROY-15", store.remove(&account)), "DESTROY-15: removed account found");
    assert!(!done("DESTROY-15", store.exists(&account)), "DESTROY-15: removed account exists");
    assert!(done("DESTROY-15", store.remove(&other)), "DESTROY-15: another account is gone");
}

/// [`AccountStore::add_keys`]
fn added_keys(store: &dyn AccountStore, account: &BareJid) {
    const RULE: &str = "UPGRADE-2";
    let all = credentials(2);
    let of = |hash| (hash, all.keys(hash).cloned().unwrap_or_else(|| keys_of(2, 20)));
    let (old, new) = (of(ScramHash::Sha256), of(ScramHash::Sha512));
    let other = (ScramHash::Sha256, keys_of(3, 32));
    let now = || done(RULE, store.credentials(account)).map(|found| keys(&found));
    let before = Credentials::new().with_keys(old.0, old.1.clone());
    done(RULE, store.set_credentials(account, before.clone()));
    for (proved, why) in [
        (other, "after another password was set"),
        (of(ScramHash::Sha1), "for keys that the account has not"),
    ] {
        assert!(!done(RULE, store.add_keys(account, proved, new.clone())), "{RULE}: added {why}");
        same(RULE, "credentials", &now(), &Some(keys(&before)));
    }
    assert!(done(RULE, store.add_keys(account, old.clone(), new.clone())), "{RULE}: not added");
    let after = before.clone().with_keys(new.0, new.1.clone());
    same(RULE, "credentials", &now(), &Some(keys(&after)));
    let again = (ScramHash::Sha512, keys_of(4, 64));
    assert!(!done(RULE, store.add_keys(account, old.clone(), again)), "{RULE}: keys replaced");
    same(RULE, "credentials", &now(), &Some(keys(&after)));
    let disabled = Credentials { disabled: true, ..before };
    done(RULE, store.set_credentials(account, disabled.clone()));
    let added = done(RULE, store.add_keys(account, old.clone(), new.clone()));
    assert!(!added, "{RULE}: keys added to a disabled account");
    same(RULE, "credentials", &now(), &Some(keys(&disabled)));
    let gone = jid("account-gone");
    assert!(!done(RULE, store.add_keys(&gone, old, new)), "{RULE}: keys added to no account");
    assert!(!done(RULE, store.exists(&gone)), "{RULE}: an account came of its keys");
}

/// Tests a [`RosterStore`].
pub fn rosters(open: impl Fn() -> Arc<dyn RosterStore>) {
    let store = open();
    roster_items(&*store);
    long_roster(&*store);
    subscription_requests(&*store);
    roster_pairs(&*store);
    roster_removal(&*store);
    rosters_in_parallel(&store);
}

fn roster_items(store: &dyn RosterStore) {
    let [account, contact, other] = [jid("roster"), jid("roster-contact"), jid("roster-other")];
    done("BIND-13", store.clear(&account));
    same("BIND-13", "roster of a new account", &roster(store, &account), &StoredRoster::default());

    done("ROSTER-10", store.apply(&account, RosterChange::new().version(1).put(item(&contact))));
    let expected = StoredRoster::new(vec![item(&contact)], 1, vec![]);
    same("ROSTER-10", "added item", &roster(store, &account), &expected);

    let mut plain = item(&contact);
    plain.name = None;
    plain.groups.clear();
    plain.subscription = Subscription::None;
    (plain.ask, plain.approved) = (false, true);
    done("ROSTER-10", store.apply(&account, RosterChange::new().version(2).put(plain.clone())));
    let expected = StoredRoster::new(vec![plain.clone()], 2, vec![]);
    same("ROSTER-10", "changed item", &roster(store, &account), &expected);

    for subscription in [Subscription::To, Subscription::From, Subscription::Both] {
        plain.subscription = subscription;
        done("ROSTER-18", store.apply(&account, RosterChange::new().put(plain.clone())));
        let expected = StoredRoster::new(vec![plain.clone()], 2, vec![]);
        same("ROSTER-18", "item with the version as it was", &roster(store, &account), &expected);
    }

    let change = RosterChange::new().version(u64::MAX).remove(contact.clone()).put(item(&other));
    done("ROSTER-17", store.apply(&account, change));
    let expected = StoredRoster::new(vec![item(&other)], u64::MAX, vec![]);
    same("ROSTER-17", "item removed and other one added", &roster(store, &account), &expected);
    let change = RosterChange::new().remove(other.clone()).put(item(&other));
    done("ROSTER-15", store.apply(&account, change));
    same("ROSTER-15", "removal before addition", &roster(store, &account), &expected);
    done("ROSTER-15", store.apply(&account, RosterChange::new().remove(contact)));
    same("ROSTER-15", "removal of nothing", &roster(store, &account), &expected);
    done("ROSTER-13", store.apply(&account, RosterChange::new()));
    same("ROSTER-13", "empty change", &roster(store, &account), &expected);
}

/// A store may read a long roster piece by piece: nothing may be missing, and nothing be there twice.
fn long_roster(store: &dyn RosterStore) {
    let account = jid("roster-long");
    done("BIND-13", store.clear(&account));
    let mut expected = StoredRoster::default();
    for version in 1..=130 {
        let mut contact = item(&jid(&format!("contact-{version:03}")));
        if version % 3 == 0 {
            contact.groups.clear();
        }
        done(
            "BIND-13",
            store.apply(&account, RosterChange::new().version(version).put(contact.clone())),
        );
        expected.version = version;
        expected.items.push(contact);
        if matches!(version, 63..=65 | 127..=130) {
            same("BIND-13", "long roster", &sorted(roster(store, &account)), &expected);
        }
    }
    done("BIND-13", store.clear(&account));
}

fn subscription_requests(store: &dyn RosterStore) {
    let account = jid("requests");
    // Not in the order of the alphabet: arrival counts.
    let [first, second, third] = [jid("z-first"), jid("a-second"), jid("m-third")];
    done("SUB-9", store.clear(&account));
    for requester in [&first, &second, &third] {
        done("SUB-9", store.apply(&account, RosterChange::new().add_request(request(requester))));
    }
    let expected = [&first, &second, &third].map(request);
    same("SUB-9", "requests", &*done("SUB-9", store.requests(&account)), &expected);
    let loaded = StoredRoster::new(vec![], 0, vec![first.clone(), second.clone(), third.clone()]);
    same("SUB-9", "roster with requests only", &roster(store, &account), &loaded);

    let later = SubscriptionRequest::new(first.clone(), &b"<presence>later</presence>"[..]);
    done("SUB-9", store.apply(&account, RosterChange::new().add_request(later.clone())));
    same("SUB-9", "first one wins", &*done("SUB-9", store.requests(&account)), &expected);

    let change = RosterChange::new().remove_request(first).add_request(later.clone());
    done("SUB-9", store.apply(&account, change));
    let expected = [request(&second), request(&third), later];
    same("SUB-9", "new request", &*done("SUB-9", store.requests(&account)), &expected);
    let change = RosterChange::new().version(1).remove_request(second.clone()).put(item(&second));
    done("SUB-9", store.apply(&account, change.clone()));
    done("SUB-9", store.apply(&account, change));
    let [_, rest @ ..] = &expected;
    same("SUB-9", "answered request", &*done("SUB-9", store.requests(&account)), rest);
}

fn roster_pairs(store: &dyn RosterStore) {
    let [romeo, juliet] = [jid("pair-romeo"), jid("pair-juliet")];
    for account in [&romeo, &juliet] {
        done("SUB-4", store.clear(account));
    }
    let asks = RosterChange::new().version(1).put(item(&juliet));
    let asked = RosterChange::new().add_request(request(&romeo));
    done("SUB-4", store.apply_pair(&romeo, asks, &juliet, asked));
    let expected = StoredRoster::new(vec![item(&juliet)], 1, vec![]);
    same("SUB-4", "first of a pair", &roster(store, &romeo), &expected);
    let expected = StoredRoster::new(vec![], 0, vec![romeo.clone()]);
    same("SUB-4", "second of a pair", &roster(store, &juliet), &expected);

    let approves = RosterChange::new().version(1).put(item(&romeo)).remove_request(romeo.clone());
    let approved = RosterChange::new().version(2).remove(juliet.clone());
    done("SUB-4", store.apply_pair(&juliet, approves, &romeo, approved));
    let expected = StoredRoster::new(vec![item(&romeo)], 1, vec![]);
    same("SUB-4", "first of a pair", &roster(store, &juliet), &expected);
    let expected = StoredRoster::new(vec![], 2, vec![]);
    same("SUB-4", "second of a pair", &roster(store, &romeo), &expected);
}

fn roster_removal(store: &dyn RosterStore) {
    let [gone, kept] = [jid("roster-gone"), jid("roster-kept")];
    for account in [&gone, &kept] {
        done("DESTROY-15", store.clear(account));
        let change = RosterChange::new().version(5).put(item(&gone)).add_request(request(&kept));
        done("DESTROY-15", store.apply(account, change));
    }
    done("DESTROY-15", store.clear(&gone));
    same("DESTROY-15", "roster", &roster(store, &gone), &StoredRoster::default());
    same("DESTROY-15", "requests", &*done("DESTROY-15", store.requests(&gone)), &[]);
    let expected = StoredRoster::new(vec![item(&gone)], 5, vec![kept.clone()]);
    same("DESTROY-15", "roster of another account", &roster(store, &kept), &expected);
}

fn rosters_in_parallel(store: &Arc<dyn RosterStore>) {
    const RULE: &str = "calls about different accounts at the same time";
    let work = |n: u8| {
        let (store, account) = (Arc::clone(store), jid(&format!("roster-parallel-{n}")));
        thread::spawn(move || {
            done(RULE, store.clear(&account));
            let mut expected = StoredRoster::default();
            for version in 1..=10 {
                let contact = item(&jid(&format!("contact-{version}")));
                let change = RosterChange::new().version(version).put(contact.clone());
                done(RULE, store.apply(&account, change));
                expected.version = version;
                expected.items.push(contact);
                same(RULE, "roster", &sorted(roster(&*store, &account)), &sorted(expected.clone()));
            }
        })
    };
    let threads: Vec<_> = (0..8).map(work).collect();
    for thread in threads {
        assert!(thread.join().is_ok(), "{RULE}: see the first panic");
    }
}

/// Tests an [`OfflineStore`] whose limit allows at most [`MOST_OFFLINE_MESSAGES`] of 100 bytes.
pub fn offline(open: impl Fn() -> Arc<dyn OfflineStore>) {
    let store = open();
    let [account, other] = [jid("offline"), jid("offline-other")];
    for account in [&account, &other] {
        done("OFF-3", store.clear(account));
    }
    same("OFF-3", "messages of a new account", &*done("OFF-3", store.list(&account)), &[]);
    done("OFF-3", store.push(&other, message(9)));
    for n in 1..=3 {
        done("OFF-3", store.push(&account, message(n)));
        same("OFF-3", "count", &done("OFF-3", store.count(&account)), &usize::from(n));
    }
    let list = done("OFF-3", store.list(&account));
    same("OFF-3", "messages", &*messages(&list), &[message(1), message(2), message(3)]);
    same("OFF-4", "messages that were listed", &*done("OFF-4", store.list(&account)), &list);

    let [(first, _), (second, _), (third, _)] = &*list else { panic!("OFF-4: three messages") };
    done("OFF-4", store.remove(&other, vec![*second]));
    done("OFF-4", store.remove(&account, vec![*third, *first]));
    let list = done("OFF-4", store.list(&account));
    same("OFF-4", "what no session accepted", &*messages(&list), &[message(2)]);
    done("OFF-4", store.remove(&account, vec![*first, *second, *third]));
    same("OFF-4", "count", &done("OFF-4", store.count(&account)), &0);
    done("OFF-4", store.push(&account, message(4)));
    done("OFF-4", store.remove(&account, vec![*first, *second, *third]));
    let list = done("OFF-4", store.list(&account));
    same("OFF-4", "messages after a late removal", &*messages(&list), &[message(4)]);

    done("OFF-2", store.clear(&account));
    let mut kept = 0;
    let refusal = loop {
        match block_on(store.push(&account, message(7))) {
            Ok(()) if kept < MOST_OFFLINE_MESSAGES => kept += 1,
            Ok(()) => panic!("OFF-2: {MOST_OFFLINE_MESSAGES} messages of 100 bytes kept, and more"),
            Err(refusal) => break refusal,
        }
    };
    assert!(matches!(refusal, StoreError::Full), "OFF-2: at the limit push failed with {refusal}");
    same("OFF-2", "count at the limit", &done("OFF-2", store.count(&account)), &kept);
    done("OFF-2", store.push(&other, message(8)));
    let list = done("OFF-4", store.list(&account));
    done("OFF-4", store.remove(&account, list.iter().map(|(id, _)| *id).take(1).collect()));
    done("OFF-2", store.push(&account, message(7)));

    done("DESTROY-15", store.clear(&account));
    same("DESTROY-15", "messages", &*done("DESTROY-15", store.list(&account)), &[]);
    let list = done("DESTROY-15", store.list(&other));
    same("DESTROY-15", "others' messages", &*messages(&list), &[message(9), message(8)]);
    done("DESTROY-15", store.clear(&other));
}

/// Tests a [`BlockStore`].
pub fn blocks(open: impl Fn() -> Arc<dyn BlockStore>) {
    let store = open();
    let [account, other] = [jid("blocks"), jid("blocks-other")];
    let [contact, domain] = [jid("blocked"), domain()].map(|jid| jid.to_string());
    // A resource that is valid elsewhere, and what is no longer a JID.
    let [resource, stray] = ["b@x.example/Ünicode / ☃ 🦊", "a@"].map(String::from);
    for account in [&account, &other] {
        done("BLOCK-1", store.clear(account));
        done("BLOCK-1", store.apply(account, vec![contact.clone()], vec![]));
    }
    let list = || {
        let mut list = done("BLOCK-1", store.load(&account));
        list.sort();
        list
    };
    let expect = |what: &str, mut jids: Vec<String>| {
        jids.sort();
        same("BLOCK-1", what, &list(), &jids);
    };
    expect("list", vec![contact.clone()]);
    done(
        "BLOCK-2",
        store.apply(&account, vec![resource.clone(), domain.clone(), stray.clone()], vec![]),
    );
    expect("added", vec![contact.clone(), domain.clone(), resource.clone(), stray.clone()]);
    let both = vec![resource.clone(), resource.clone(), domain.clone()];
    done("BLOCK-2", store.apply(&account, both, vec![domain.clone(), contact.clone(), stray]));
    expect("removed, then added", vec![domain.clone(), resource.clone()]);
    done("BLOCK-2", store.apply(&account, vec![], vec![contact.clone(), domain]));
    expect("removed", vec![resource]);
    done("BLOCK-2", store.clear(&account));
    expect("emptied", vec![]);
    same("DESTROY-15", "others' list", &*done("BLOCK-1", store.load(&other)), &[contact]);
    done("DESTROY-15", store.clear(&other));
}

/// Tests a [`TokenStore`].
pub fn tokens(open: impl Fn() -> Arc<dyn TokenStore>) {
    let store = open();
    let [account, other] = [jid("tokens"), jid("tokens-other")];
    for account in [&account, &other] {
        done("FAST-4", store.clear(account));
    }
    let find = |account, n| done("FAST-4", store.client(account, &client(n)));
    let replace = |account: &BareJid, n, found, tokens| {
        done("FAST-4", store.replace(account, &client(n), found, tokens))
    };
    let list = |account| {
        let mut list = done("FAST-4", store.clients(account));
        list.sort_by_key(|(client, _)| *client);
        list
    };
    assert!(find(&account, 1).is_none(), "FAST-4: an unknown client found");
    assert!(list(&account).is_empty(), "FAST-4: clients of a new account");

    // Only where the record is still what it was, or is not there still.
    let revision = |n| Some(record(n).revision);
    for found in [revision(1), revision(0)] {
        assert!(!replace(&account, 1, found, Some(record(1))), "FAST-4: nothing was replaced");
    }
    same("FAST-4", "client after a refusal", &find(&account, 1), &None);
    assert!(replace(&account, 1, None, Some(record(1))), "FAST-4: no first record");
    same("FAST-4", "client", &find(&account, 1), &Some(record(1)));
    for found in [None, revision(2)] {
        assert!(!replace(&account, 1, found, Some(record(3))), "FAST-4: a lost race was won");
        assert!(!replace(&account, 1, found, None), "FAST-4: a lost race was won");
    }
    same("FAST-4", "client after lost races", &find(&account, 1), &Some(record(1)));
    for (before, after) in [(1, 2), (2, 3), (3, 4)] {
        assert!(
            replace(&account, 1, revision(before), Some(record(after))),
            "FAST-4: not replaced"
        );
        same("FAST-4", "changed client", &find(&account, 1), &Some(record(after)));
    }

    // Clients and accounts of their own.
    assert!(replace(&account, 2, None, Some(record(5))), "FAST-3: another client");
    assert!(replace(&other, 1, None, Some(record(6))), "FAST-3: another account");
    let both = [(client(1), record(4)), (client(2), record(5))];
    same("FAST-3", "clients", &*list(&account), &both);
    assert!(replace(&account, 1, revision(4), None), "FAST-5: not removed");
    same("FAST-5", "removed client", &find(&account, 1), &None);
    same("FAST-3", "clients", &*list(&account), &[(client(2), record(5))]);
    same("FAST-3", "client of another account", &find(&other, 1), &Some(record(6)));

    races(&store, &account);
    done("DESTROY-15", store.clear(&account));
    assert!(list(&account).is_empty(), "DESTROY-15: clients after the removal");
    same("DESTROY-15", "others' client", &find(&other, 1), &Some(record(6)));
    done("DESTROY-15", store.clear(&other));
}

/// Tests an [`InvitationStore`].
pub fn invitations(open: impl Fn() -> Arc<dyn InvitationStore>) {
    const RULE: &str = "REG-7";
    let store = open();
    let [account, other] = [jid("invited"), jid("invited-other")];
    let [plain, full, expired, last] = ["plain", "full", "expired", "last"].map(key);
    let get = |key: &str| done(RULE, store.get(key));
    let take = |key: &str| done(RULE, store.take(key));
    let of_account = |account: &BareJid| {
        let mut found = done("REG-8", store.of_account(account));
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        found
    };
    for key in [&plain, &full, &expired, &last] {
        take(key);
        assert!(get(key).is_none(), "{RULE}: an unknown invitation found");
        assert!(!take(key), "{RULE}: an unknown invitation taken");
    }
    // No whole second.
    let first = SystemTime::UNIX_EPOCH + Duration::from_micros(1_767_225_600_123_456);
    let time = |micros| first + Duration::from_micros(micros);
    let until = |micros| StoredInvitation { expires: Some(time(micros)), ..invitation(&account) };
    let all = [
        (&plain, StoredInvitation::new(domain().domain().to_owned())),
        (&full, until(1)),
        (&expired, until(0)),
        (&last, invitation(&other)),
    ];
    for (key, invitation) in &all {
        done(RULE, store.put(key, invitation.clone()));
    }
    for (key, invitation) in &all {
        same(RULE, "invitation", &get(key).as_ref(), &Some(invitation));
    }

    // Kept for an account, expired or not.
    let mut both = [(full.clone(), until(1)), (expired.clone(), until(0))];
    both.sort_by(|(a, _), (b, _)| a.cmp(b));
    same("REG-8", "invitations for an account", &*of_account(&account), &both);
    assert!(of_account(&jid("invited-nobody")).is_empty(), "REG-8: invitations for nobody");

    done(RULE, store.forget(time(0) - Duration::from_micros(1)));
    assert!(get(&expired).is_some(), "{RULE}: forgotten before it had expired");
    done(RULE, store.forget(time(0)));
    assert!(get(&expired).is_none(), "{RULE}: an expired invitation was not forgotten");
    assert!(!take(&expired), "{RULE}: a forgotten invitation taken");
    same(
        "REG-8",
        "invitations after one expired",
        &*of_account(&account),
        &[(full.clone(), until(1))],
    );
    for key in [&plain, &last] {
        assert!(get(key).is_some(), "{RULE}: forgotten without an expiry");
    }

    for key in [&plain, &full, &last] {
        let one = || {
            let (store, key) = (Arc::clone(&store), key.clone());
            thread::spawn(move || done(RULE, store.take(&key)))
        };
        let threads: Vec<_> = (0..8).map(|_| one()).collect();
        let taken = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| panic!("{RULE}: see the first panic")));
        let taken = taken.filter(|taken| *taken).count();
        assert!(taken == 1, "{RULE}: {taken} took one invitation");
        assert!(get(key).is_none(), "{RULE}: a taken invitation found");
        assert!(!take(key), "{RULE}: taken twice");
    }
    assert!(of_account(&account).is_empty(), "REG-8: a name is kept by no invitation");
}

/// Tests an [`InvitationStore`] that outlives its process: `open` opens the same one each time.
pub fn durable_invitations(open: impl Fn() -> Arc<dyn InvitationStore>) {
    const RULE: &str = "durable before acknowledged";
    let (account, kept, taken) = (jid("invited"), key("kept"), key("taken"));
    let store = open();
    for key in [&kept, &taken] {
        done(RULE, store.put(key, invitation(&account)));
    }
    assert!(done(RULE, store.take(&taken)), "{RULE}: not taken");
    drop(store);

    let store = open();
    same(RULE, "invitation", &done(RULE, store.get(&kept)), &Some(invitation(&account)));
    let of_account = done(RULE, store.of_account(&account));
    same(RULE, "invitations for an account", &*of_account, &[(kept.clone(), invitation(&account))]);
    assert!(!done(RULE, store.take(&taken)), "{RULE}: taken again");
    assert!(done(RULE, store.take(&kept)), "{RULE}: not taken");
}

/// Of all who replace one revision, one does.
fn races(store: &Arc<dyn TokenStore>, account: &BareJid) {
    const RULE: &str = "FAST-4";
    let race = |found: Option<Revision>, first: u8| {
        let one = |n| {
            let (store, account) = (Arc::clone(store), account.clone());
            let replace = move || store.replace(&account, &client(9), found, Some(record(n)));
            thread::spawn(move || done(RULE, replace()))
        };
        let threads: Vec<_> = (first..first + 8).map(|n| (n, one(n))).collect();
        let won = threads.into_iter().filter_map(|(n, thread)| {
            let won = thread.join().unwrap_or_else(|_| panic!("{RULE}: see the first panic"));
            won.then_some(n)
        });
        let won: Vec<_> = won.collect();
        let [winner] = *won else { panic!("{RULE}: {} won one race", won.len()) };
        let found = done(RULE, store.client(account, &client(9)));
        same(RULE, "the winner's record", &found, &Some(record(winner)));
        winner
    };
    let winner = race(None, 10);
    race(Some(record(winner).revision), 20);
}

fn removal(stores: &Stores) {
    const RULE: &str = "DESTROY-15";
    let account = jid("removed");
    done(RULE, stores.remove_account(&account));
    done(RULE, stores.accounts.set_credentials(&account, credentials(1)));
    let change = RosterChange::new().version(1).put(item(&account)).add_request(request(&account));
    done(RULE, stores.rosters.apply(&account, change));
    done(RULE, stores.blocks.apply(&account, vec![domain().to_string()], vec![]));
    if let Some(offline) = &stores.offline {
        done(RULE, offline.push(&account, message(1)));
    }
    if let Some(tokens) = &stores.tokens {
        assert!(done(RULE, tokens.replace(&account, &client(1), None, Some(record(1)))), "{RULE}");
    }
    // What a store of one kind forgets is no business of the others.
    done(RULE, stores.accounts.remove(&account));
    same(
        RULE,
        "version after the credentials went",
        &roster(&*stores.rosters, &account).version,
        &1,
    );
    done(RULE, stores.rosters.clear(&account));
    same(RULE, "block list", &*done(RULE, stores.blocks.load(&account)), &[domain().to_string()]);
    done(RULE, stores.blocks.clear(&account));
    if let Some(offline) = &stores.offline {
        same(RULE, "messages left", &done(RULE, offline.count(&account)), &1);
    }
    done(RULE, stores.accounts.set_credentials(&account, credentials(1)));
    assert!(done(RULE, stores.remove_account(&account)), "{RULE}: account not found");
    assert!(!done(RULE, stores.remove_account(&account)), "{RULE}: account found after removal");
    if let Some(offline) = &stores.offline {
        same(RULE, "messages after removal", &done(RULE, offline.count(&account)), &0);
    }
    if let Some(tokens) = &stores.tokens {
        let left = done(RULE, tokens.client(&account, &client(1)));
        same(RULE, "client after removal", &left, &None);
    }
}

/// The answer of a call that must succeed.
#[track_caller]
fn done<T>(rule: &str, call: StoreFuture<T>) -> T {
    block_on(call).unwrap_or_else(|error| match std::error::Error::source(&error) {
        Some(cause) => panic!("{rule}: {error}: {cause}"),
        None => panic!("{rule}: {error}"),
    })
}

/// Without the values: they do not say more than the call in the backtrace does.
#[track_caller]
fn same<T: PartialEq + ?Sized>(rule: &str, what: &str, found: &T, expected: &T) {
    assert!(found == expected, "{rule}: {what}: not what was stored");
}

fn roster(store: &dyn RosterStore, account: &BareJid) -> StoredRoster {
    let found = done("BIND-13", store.load(account));
    let contacts = found.items.iter().map(|item| &item.jid).chain(&found.requests);
    for contact in contacts.chain([account, &jid("roster-nobody")]) {
        let expected = found.clone().into_contact(contact);
        let one = done("BIND-13", store.contact(account, contact));
        same("BIND-13", "what a whole roster says of a contact", &one, &expected);
    }
    found
}

fn sorted(mut roster: StoredRoster) -> StoredRoster {
    roster.items.sort_by(|a, b| a.jid.cmp(&b.jid));
    roster
}

fn domain() -> BareJid {
    parse("conformance.invalid")
}

fn jid(name: &str) -> BareJid {
    parse(&format!("{name}@conformance.invalid"))
}

fn parse(jid: &str) -> BareJid {
    BareJid::new(jid).unwrap_or_else(|error| panic!("the tests have a wrong jid: {error}"))
}

/// An item with everything, in characters that a careless store loses.
fn item(contact: &BareJid) -> Item {
    Item {
        jid: contact.clone(),
        name: Some("Røméo 'M' \"x\" \\ % ☃ \u{1F339}".into()),
        groups: vec!["Zürich, a; b".into(), " ".into(), "a\tb\n".into(), "A\tB".into()],
        subscription: Subscription::To,
        ask: true,
        approved: false,
    }
}

fn request(from: &BareJid) -> SubscriptionRequest {
    let stanza =
        format!("<presence from='{from}' type='subscribe'><status>'\u{1F339}</status></presence>");
    SubscriptionRequest::new(from.clone(), stanza.into_bytes())
}

/// A message whose stanza has 100 bytes, with a time that is no whole second.
fn message(n: u8) -> OfflineMessage {
    let received = Duration::from_micros(1_767_225_600_123_456 + u64::from(n));
    OfflineMessage::new(vec![b'0'.wrapping_add(n); 100], SystemTime::UNIX_EPOCH + received)
}

fn messages<I>(list: &[(I, OfflineMessage)]) -> Vec<OfflineMessage> {
    list.iter().map(|(_, message)| message.clone()).collect()
}

fn client(n: u8) -> ClientKey {
    ClientKey::from_bytes([n ^ 0x80; 32])
}

/// A record with more or less in it, at the ends of what the fields can hold.
fn record(n: u8) -> ClientTokens {
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let token = |number| {
        let name = format!("HT-SHA-256-{n}");
        let mut token = Token::new(number, name, at(1_767_225_600), at(4_102_444_800), vec![0, n]);
        token.count = u64::MAX - u64::from(n);
        token
    };
    let revision = Revision::new(u64::MAX / 2 + u64::from(n));
    let mut tokens = ClientTokens::new(revision, [n ^ 0xff; 16], at(1_767_225_600 + u64::from(n)));
    tokens.last = u64::MAX - u64::from(n);
    tokens.current = n.is_multiple_of(2).then(|| token(7));
    tokens.new = n.is_multiple_of(3).then(|| token(u64::MAX));
    tokens.software = (n % 2 == 1).then(|| "Røméo \0 'M' ☃".to_owned());
    tokens.device = (n % 3 == 1).then(String::new);
    tokens
}

/// The digest of a token, as its store sees it.
fn key(name: &str) -> String {
    let digest = ScramHash::Sha256.hash(name.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One with everything but an expiry.
fn invitation(account: &BareJid) -> StoredInvitation {
    let mut invitation = StoredInvitation::new(domain().domain().to_owned());
    invitation.account = Some(account.clone());
    invitation.contact = Some(parse("røméo@bücher.invalid"));
    invitation
}

fn credentials(n: u8) -> Credentials {
    let keys = |length| keys_of(n, length);
    let all = Credentials::from_keys((n == 1).then(|| keys(20)), Some(keys(32)));
    if n == 2 { all.with_keys(ScramHash::Sha512, keys(64)) } else { all }
}

fn keys_of(n: u8, length: usize) -> ScramKeys {
    ScramKeys {
        // Not text, and with bytes that end strings elsewhere.
        salt: vec![n, 0, 0xff, b'\'', 0x80],
        iterations: 10_000 + u32::from(n),
        stored_key: vec![n; length],
        server_key: vec![n ^ 0xff; length],
    }
}

/// Credentials in a form that can be compared.
fn keys(credentials: &Credentials) -> (Vec<Option<ScramKeys>>, bool) {
    let keys = ScramHash::ALL.map(|hash| credentials.keys(hash).cloned());
    (keys.into(), credentials.disabled)
}
