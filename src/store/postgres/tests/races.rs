//! Several servers on one database.

use std::time::Duration;

use super::*;
use crate::store::{
    ClientKey, ClientTokens, Credentials, Revision, ScramHash, ScramKeys, StoreError,
    StoredInvitation, Token,
};

/// What many threads on two pools come to.
fn race<T: Send + 'static>(
    stores: &[Arc<Postgres>; 2],
    work: impl Fn(&Postgres, usize) -> T + Send + Sync + 'static,
) -> Vec<T> {
    let work = Arc::new(work);
    let threads: Vec<_> = (0..8)
        .map(|n| {
            let (store, work) = (Arc::clone(&stores[n % 2]), Arc::clone(&work));
            std::thread::spawn(move || work(&store, n))
        })
        .collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

fn two(database: &Database) -> [Arc<Postgres>; 2] {
    let limits = OfflineLimits::new(10, 100_000);
    [(), ()].map(|()| Arc::new(database.store().with_offline_limits(limits)))
}

fn keys(n: u8) -> ScramKeys {
    ScramKeys::from_parts(vec![n], 4096, vec![n; 32], vec![n; 32])
}

#[test]
fn reg_1_of_accounts_that_are_made_twice_at_once_one_stays_whole() {
    let database = database!();
    let stores = two(&database);
    let account = jid("juliet@example.com");
    for _ in 0..10 {
        let of = account.clone();
        let made = race(&stores, move |store, n| {
            let n = u8::try_from(n).unwrap();
            let mut credentials = Credentials::from_keys(None, Some(keys(n)));
            if n.is_multiple_of(2) {
                credentials = credentials.with_keys(ScramHash::Sha512, keys(n));
            }
            block_on(store.set_credentials(&of, credentials)).is_ok()
        });
        assert!(made.into_iter().all(|made| made));
        let found = block_on(stores[0].credentials(&account)).unwrap().unwrap();
        let n = found.scram_sha_256.unwrap().salt[0];
        let other = found.scram_sha_512.map(|keys| keys.salt[0]);
        assert_eq!(other, n.is_multiple_of(2).then_some(n));
    }
}

#[test]
fn upgrade_2_keys_of_a_former_password_are_added_to_no_later_one() {
    let database = database!();
    let stores = two(&database);
    let account = jid("juliet@example.com");
    for _ in 0..20 {
        let before = Credentials::from_keys(None, Some(keys(1)));
        block_on(stores[0].set_credentials(&account, before)).unwrap();
        let of = account.clone();
        race(&stores, move |store, n| {
            if n == 3 {
                let after = Credentials::from_keys(None, Some(keys(2)));
                block_on(store.set_credentials(&of, after)).unwrap();
            } else {
                let proved = (ScramHash::Sha256, keys(1));
                let added = (ScramHash::Sha512, keys(1));
                block_on(store.add_keys(&of, proved, added)).unwrap();
            }
        });
        let found = block_on(stores[1].credentials(&account)).unwrap().unwrap();
        assert!(found.scram_sha_256 == Some(keys(2)) && found.scram_sha_512.is_none());
    }
}

#[test]
fn fast_4_a_token_is_counted_once_whoever_asks() {
    let database = database!();
    let stores = two(&database);
    let (account, client) = (jid("juliet@example.com"), ClientKey::from_bytes([1; 32]));
    let record = |revision, count| {
        let mut tokens = ClientTokens::new(Revision::new(revision), [1; 16], UNIX_EPOCH);
        let mut token = Token::new(1, "HT".into(), UNIX_EPOCH, UNIX_EPOCH, vec![1]);
        token.count = count;
        tokens.current = Some(token);
        tokens
    };
    let first = stores[0].replace(&account, &client, None, Some(record(1, 1)));
    assert!(block_on(first).unwrap());
    for round in 1..20 {
        let of = account.clone();
        let won = race(&stores, move |store, n| {
            let found = block_on(store.client(&of, &client)).unwrap().unwrap();
            let is_new = found.current.unwrap().count == round;
            let next = record(round * 100 + u64::try_from(n).unwrap(), round + 1);
            let won = store.replace(&of, &client, Some(found.revision), Some(next));
            block_on(won).unwrap() && is_new
        });
        assert_eq!(won.into_iter().filter(|won| *won).count(), 1, "round {round}");
        // A later one may have begun with the winner's record: back to that of this round.
        let found = block_on(stores[0].client(&account, &client)).unwrap().unwrap();
        let next = record(round * 100 + 99, round + 1);
        let set = stores[0].replace(&account, &client, Some(found.revision), Some(next));
        assert!(block_on(set).unwrap());
    }
}

#[test]
fn off_2_the_limit_holds_for_several_servers_together() {
    let database = database!();
    let stores = two(&database);
    let account = jid("juliet@example.com");
    for _ in 0..5 {
        block_on(stores[0].offline().clear(&account)).unwrap();
        let of = account.clone();
        let kept = race(&stores, move |store, n| {
            let pushes: Vec<_> =
                (0..4).map(|m| store.push(&of, message(&format!("{n} {m}")))).collect();
            let answers = pushes.into_iter().map(block_on);
            answers
                .filter(|answer| match answer {
                    Ok(()) => true,
                    Err(StoreError::Full) => false,
                    Err(error) => panic!("{error}"),
                })
                .count()
        });
        assert_eq!(kept.into_iter().sum::<usize>(), 10);
        assert_eq!(block_on(stores[1].count(&account)).unwrap(), 10);
    }
}

#[test]
fn sub_4_pairs_that_cross_each_other_are_whole_to_everybody() {
    let database = database!();
    let stores = two(&database);
    let client = database.client();
    let differs = "SELECT count(DISTINCT version) > 1 FROM roster";
    let [romeo, juliet] = [jid("romeo@example.com"), jid("juliet@example.com")];
    let (first, second) = (romeo.clone(), juliet.clone());
    let writers = std::thread::spawn(move || {
        race(&stores, move |store, n| {
            for m in 0..20 {
                let version = u64::try_from(1 + n * 100 + m).unwrap();
                let change = || put(version, "nurse@example.com");
                let pair = match n / 2 % 2 {
                    0 => store.apply_pair(&first, change(), &second, change()),
                    _ => store.apply_pair(&second, change(), &first, change()),
                };
                block_on(pair).unwrap();
            }
        });
        stores
    });
    while !writers.is_finished() {
        let row = database.runtime.block_on(client.query_one(differs, &[])).unwrap();
        assert!(!row.get::<_, bool>(0));
    }
    let stores = writers.join().unwrap();
    let [a, b] = [romeo, juliet].map(|jid| block_on(stores[0].rosters().load(&jid)).unwrap());
    assert!(a == b && a.version > 0);
}

#[test]
fn reg_7_an_invitation_is_taken_once_at_whichever_server() {
    let database = database!();
    let stores = two(&database);
    for _ in 0..10 {
        let mut invitation = StoredInvitation::new(jid("example.com").domain().to_owned());
        invitation.expires = Some(UNIX_EPOCH + Duration::from_secs(1));
        for n in 0..20 {
            block_on(stores[0].put(&format!("other {n}"), invitation.clone())).unwrap();
        }
        block_on(stores[0].put("digest", StoredInvitation { expires: None, ..invitation }))
            .unwrap();
        let taken = race(&stores, |store, n| {
            // Beside those who forget what has expired.
            if n < 2 {
                block_on(store.forget(UNIX_EPOCH + Duration::from_secs(2))).unwrap();
            }
            block_on(store.take(&format!("other {n}"))).unwrap();
            block_on(store.take("digest")).unwrap()
        });
        assert_eq!(taken.into_iter().filter(|taken| *taken).count(), 1);
        assert_eq!(database.number("SELECT count(*) FROM invitation"), 0);
    }
}

#[cfg(feature = "cluster")]
mod shared {
    use super::*;
    use crate::store::fence::{self, Fence};
    use crate::store::shared::{SharedStore, Tokens, deposed};

    struct Since(u64);

    impl Tokens for Since {
        fn fence(&self, _: &BareJid) -> Option<Fence> {
            Some(fence(self.0))
        }
    }

    fn fence(number: u64) -> Fence {
        Fence { slot: 7, token: fence::Token { term: 1, number } }
    }

    fn is_pending<T>(call: &mut crate::store::StoreFuture<T>) -> bool {
        std::thread::sleep(Duration::from_millis(200));
        let waker = std::task::Waker::noop();
        call.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_pending()
    }

    /// A former owner that stopped between its look at the fence and its commit.
    const HALF: &str = "SET search_path = xmpp_session; BEGIN;
        SELECT pass('{7}', '{1}', '{1}');
        INSERT INTO blocked VALUES ('juliet@example.com', 'late.example')";

    #[test]
    fn node_3_a_claim_comes_behind_what_the_former_owner_is_writing() {
        let database = database!();
        let store = database.store();
        let (juliet, new) = (jid("juliet@example.com"), store.of_node(Arc::new(Since(2))));
        let old = store.of_node(Arc::new(Since(1)));
        let former = database.client();
        block_on(store.claim(fence(1))).unwrap();
        database.runtime.block_on(former.batch_execute(HALF)).unwrap();
        // Others in its name need not wait.
        block_on(old.blocks.apply(&juliet, vec!["a.example".into()], vec![])).unwrap();
        let mut claim = store.claim(fence(2));
        assert!(is_pending(&mut claim));
        database.runtime.block_on(former.batch_execute("COMMIT")).unwrap();
        block_on(claim).unwrap();
        let mut blocked = block_on(new.blocks.load(&juliet)).unwrap();
        blocked.sort();
        assert_eq!(blocked, ["a.example", "late.example"]);
        let late = old.blocks.apply(&juliet, vec!["b.example".into()], vec![]);
        assert!(deposed(&block_on(late).unwrap_err()).is_some());
        let error = database.runtime.block_on(former.batch_execute(HALF)).unwrap_err();
        assert_eq!(error.code().unwrap().code(), "XS003");
    }

    #[test]
    fn node_3_a_first_look_waits_for_the_former_owner_too() {
        let database = database!();
        let store = database.store();
        let (juliet, new) = (jid("juliet@example.com"), store.of_node(Arc::new(Since(2))));
        let former = database.client();
        database.runtime.block_on(former.batch_execute(HALF)).unwrap();
        let mut look = new.blocks.load(&juliet);
        assert!(is_pending(&mut look));
        database.runtime.block_on(former.batch_execute("COMMIT")).unwrap();
        assert_eq!(block_on(look).unwrap(), ["late.example"]);
    }

    #[test]
    fn node_3_a_former_owner_that_stopped_is_ended_by_the_server() {
        let database = database!();
        let timeout = Duration::from_secs(2);
        let proxy = proxy::Proxy::new(&database, proxy::Mode::Open);
        let old = database.connect(proxy.config(&database).timeout(timeout)).unwrap();
        let old = old.of_node(Arc::new(Since(1)));
        let juliet = jid("juliet@example.com");
        proxy.set(proxy::Mode::HoldCommit);
        let late = old.blocks.apply(&juliet, vec!["late.example".into()], vec![]);
        std::thread::sleep(Duration::from_millis(300));
        let store = database.store();
        let mut claim = store.claim(fence(2));
        assert!(is_pending(&mut claim));
        block_on(claim).unwrap();
        proxy.set(proxy::Mode::Open);
        // Done again on another connection, and refused there.
        assert!(deposed(&block_on(late).unwrap_err()).is_some());
        let new = store.of_node(Arc::new(Since(2)));
        assert!(block_on(new.blocks.load(&juliet)).unwrap().is_empty());
    }

    #[test]
    fn node_3_one_call_of_a_former_owner_fails_alone_in_a_batch() {
        let database = database!();
        let store = database.connect(database.config().connections(2)).unwrap();
        let [old, new] = [1, 2].map(|since| store.of_node(Arc::new(Since(since))));
        block_on(store.claim(fence(2))).unwrap();
        let calls: Vec<_> = (0..40)
            .map(|n| {
                let node = if n % 8 == 3 { &old } else { &new };
                node.rosters.apply(&jid(&format!("a{n}@example.com")), put(1, "b@example.com"))
            })
            .collect();
        for (n, call) in calls.into_iter().enumerate() {
            assert_eq!(block_on(call).is_err(), n % 8 == 3, "{n}");
        }
    }
}
