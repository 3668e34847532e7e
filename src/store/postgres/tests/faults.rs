//! Lost connections, and servers that are slow, full, or not there.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::proxy::{A_WHILE, Mode, Proxy};
use super::*;
use crate::store::{StoreError, StoreFuture, StoredRoster};

fn cause(error: &StoreError) -> String {
    std::error::Error::source(error).map(ToString::to_string).unwrap_or_default()
}

fn texts(store: &Postgres, account: &BareJid) -> Vec<String> {
    let list = block_on(store.list(account)).unwrap();
    let text = |message: &OfflineMessage| String::from_utf8(message.stanza.to_vec()).unwrap();
    list.iter().map(|(_, message)| text(message)).collect()
}

#[test]
fn off_4_a_commit_whose_answer_is_lost_was_done_once() {
    for mode in [Mode::CutBehindCommit, Mode::CutBeforeCommit] {
        let database = database!();
        let proxy = Proxy::new(&database, Mode::Open);
        let store = database.connect(proxy.config(&database)).unwrap();
        let account = jid("juliet@example.com");
        block_on(store.push(&account, message("0"))).unwrap();
        proxy.set(mode);
        let push = store.push(&account, message("1"));
        while proxy.cuts() == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        proxy.set(Mode::Open);
        block_on(push).unwrap();
        assert_eq!(texts(&store, &account), ["0", "1"]);
        // As many times as the server is lost.
        proxy.set(mode);
        let push = store.push(&account, message("2"));
        while proxy.cuts() < 3 && mode == Mode::CutBeforeCommit {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(A_WHILE);
        proxy.set(Mode::Open);
        block_on(push).unwrap();
        assert_eq!(texts(&store, &account), ["0", "1", "2"]);
    }
}

#[test]
fn off_4_connections_that_are_ended_all_the_time_lose_and_double_nothing() {
    let database = database!();
    // Each is ended again while they all connect: that takes its time.
    let config = database.config().timeout(Duration::from_secs(60));
    let store = Arc::new(database.connect(config).unwrap());
    let enough = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..8)
        .map(|n| {
            let (store, enough) = (Arc::clone(&store), Arc::clone(&enough));
            std::thread::spawn(move || {
                let account = jid(&format!("user{n}@example.com"));
                let mut expected = Vec::new();
                while !enough.load(Ordering::Relaxed) || expected.len() < 40 {
                    let text = expected.len().to_string();
                    let pushed = block_on(store.push(&account, message(&text)));
                    assert!(pushed.is_ok(), "{}", cause(&pushed.unwrap_err()));
                    expected.push(text);
                }
                assert_eq!(texts(&store, &account), expected);
            })
        })
        .collect();
    let killer = database.client();
    let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()
            AND application_name = 'xmpp-session'";
    let mut killed = 0;
    while writers.iter().any(|writer| !writer.is_finished()) {
        std::thread::sleep(Duration::from_millis(100));
        let row = database.runtime.block_on(killer.query_one(kill, &[])).unwrap();
        killed += row.get::<_, i64>(0);
        enough.store(killed > 16, Ordering::Relaxed);
    }
    for writer in writers {
        writer.join().unwrap();
    }
}

#[test]
fn bind_13_a_server_that_is_gone_for_a_while_is_waited_for() {
    let database = database!();
    let proxy = Proxy::new(&database, Mode::Open);
    let store = database.connect(proxy.config(&database)).unwrap();
    let account = jid("juliet@example.com");
    proxy.set(Mode::Closed);
    std::thread::sleep(A_WHILE);
    let push = store.push(&account, message("1"));
    let count = store.count(&account);
    std::thread::sleep(2 * A_WHILE);
    proxy.set(Mode::Open);
    block_on(push).unwrap();
    assert!(block_on(count).unwrap() <= 1);
    assert_eq!(texts(&store, &account), ["1"]);
}

#[test]
fn bind_13_a_server_that_stays_away_is_an_error_and_never_an_empty_answer() {
    for mode in [Mode::Closed, Mode::Stopped] {
        let database = database!();
        let proxy = Proxy::new(&database, Mode::Open);
        let timeout = Duration::from_millis(600);
        let store = database.connect(proxy.config(&database).timeout(timeout)).unwrap();
        let account = jid("juliet@example.com");
        block_on(store.rosters().apply(&account, put(1, "romeo@example.com"))).unwrap();
        proxy.set(mode);
        let begun = Instant::now();
        let load = store.rosters().load(&account);
        let apply = store.rosters().apply(&account, put(2, "nurse@example.com"));
        let [load, apply] = [block_on(load).map(drop), block_on(apply)];
        assert!(begun.elapsed() < Duration::from_secs(20));
        for error in [load.unwrap_err(), apply.unwrap_err()] {
            assert!(matches!(error, StoreError::Failed(_)));
            assert!(cause(&error).contains("not done within 600ms"), "{}", cause(&error));
        }
        proxy.set(Mode::Open);
        let expected = StoredRoster::new(vec![item("romeo@example.com")], 1, vec![]);
        assert!(block_on(store.rosters().load(&account)).unwrap() == expected);
    }
}

#[test]
fn bind_13_one_slow_statement_holds_nobody_else_and_ends() {
    let database = database!();
    let config = database.config().timeout(Duration::from_secs(1));
    let store = database.connect(config).unwrap();
    let account = jid("juliet@example.com");
    let other = database.client();
    let lock = "BEGIN; LOCK TABLE offline_message IN ACCESS EXCLUSIVE MODE";
    database.runtime.block_on(other.batch_execute(lock)).unwrap();
    let slow = store.push(&account, message("1"));
    std::thread::sleep(A_WHILE);
    block_on(store.rosters().apply(&jid("a@example.com"), put(1, "b@example.com"))).unwrap();
    assert_eq!(block_on(store.rosters().load(&account)).unwrap().version, 0);
    let error = cause(&block_on(slow).unwrap_err());
    assert!(error.contains("statement timeout") || error.contains("not done within"), "{error}");
    database.runtime.block_on(other.batch_execute("ROLLBACK")).unwrap();
    assert_eq!(texts(&store, &account), [""; 0]);
    block_on(store.push(&account, message("2"))).unwrap();
}

/// Keeps the lane that writes busy until the client lets go.
fn hold(database: &Database, store: &Postgres) -> (Client, StoreFuture<()>) {
    let client = database.client();
    let lock = "BEGIN; LOCK TABLE invitation IN ACCESS EXCLUSIVE MODE";
    database.runtime.block_on(client.batch_execute(lock)).unwrap();
    let held = store.forget(UNIX_EPOCH);
    std::thread::sleep(A_WHILE);
    (client, held)
}

#[test]
fn roster_10_what_waits_together_is_one_transaction() {
    let database = database!();
    let store = database.connect(database.config().connections(2)).unwrap();
    let (client, held) = hold(&database, &store);
    let calls: Vec<_> = (0..50)
        .map(|n| store.rosters().apply(&jid(&format!("a{n}@example.com")), put(1, "b@x")))
        .collect();
    std::thread::sleep(A_WHILE);
    assert_eq!(database.number("SELECT count(*) FROM roster_item"), 0);
    database.runtime.block_on(client.batch_execute("COMMIT")).unwrap();
    block_on(held).unwrap();
    calls.into_iter().for_each(|call| block_on(call).unwrap());
    assert_eq!(database.number("SELECT count(DISTINCT xmin::text) FROM roster_item"), 1);
}

#[test]
fn roster_10_off_2_a_call_that_fails_fails_alone() {
    let database = database!();
    let store = database.connect(database.config().connections(2)).unwrap();
    database.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF new.account = 'full@example.com' THEN
                 RAISE EXCEPTION USING ERRCODE = '53100', MESSAGE = 'no space left on device';
             ELSIF new.account = 'bad@example.com' THEN
                 RAISE EXCEPTION 'refused';
             END IF;
             RETURN new;
         END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON roster_item FOR EACH ROW EXECUTE FUNCTION refuse();
         CREATE TRIGGER refuse BEFORE INSERT ON offline_message FOR EACH ROW EXECUTE FUNCTION refuse();",
    );
    let (client, held) = hold(&database, &store);
    let [good, bad, full] = ["good@example.com", "bad@example.com", "full@example.com"].map(jid);
    let first = store.push(&good, message("1"));
    let refused = store.rosters().apply(&bad, put(1, "b@example.com"));
    let pair = store.rosters().apply_pair(&good, put(1, "bad@x"), &bad, put(1, "good@x"));
    let no_space = store.push(&full, message("1"));
    let too_much = store.push(&good, OfflineMessage::new(vec![0; 5 << 20], UNIX_EPOCH));
    let last = store.push(&good, message("2"));
    database.runtime.block_on(client.batch_execute("COMMIT")).unwrap();
    block_on(held).unwrap();
    block_on(first).unwrap();
    let error = block_on(refused).unwrap_err();
    assert!(matches!(&error, StoreError::Failed(_)) && cause(&error) == "refused (P0001)");
    assert!(matches!(block_on(pair), Err(StoreError::Failed(_))));
    assert!(matches!(block_on(no_space), Err(StoreError::NoSpace(_))));
    assert!(matches!(block_on(too_much), Err(StoreError::Full)));
    block_on(last).unwrap();
    assert_eq!(texts(&store, &good), ["1", "2"]);
    assert!(block_on(store.rosters().load(&good)).unwrap() == StoredRoster::default());
}

#[test]
fn off_4_what_was_called_for_is_done_without_store_and_caller() {
    let database = database!();
    let store = database.connect(database.config().connections(2)).unwrap();
    let (client, held) = hold(&database, &store);
    for n in 0..200 {
        drop(store.push(&jid("juliet@example.com"), message(&n.to_string())));
    }
    drop(held);
    drop(store);
    database.runtime.block_on(client.batch_execute("COMMIT")).unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    while database.number("SELECT count(*) FROM offline_message") < 200 {
        assert!(Instant::now() < until);
    }
    // And its connections end.
    let left = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'xmpp-session'";
    while database.number(left) > 0 {
        assert!(Instant::now() < until);
    }
}

#[test]
fn bind_13_a_store_without_its_runtime_fails_and_hangs_nobody() {
    let database = database!();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let store = runtime.block_on(database.config().connect()).unwrap();
    drop(runtime);
    assert!(matches!(block_on(store.count(&jid("a@example.com"))), Err(StoreError::Failed(_))));
}

#[test]
fn jid_6_a_row_that_cannot_be_read_costs_that_row() {
    let database = database!();
    let store = database.store();
    let account = jid("juliet@example.com");
    for (bad, expected) in [
        ("UPDATE roster_item SET subscription = 'remove' WHERE contact = 'b@x'", (1, 1, 1)),
        ("UPDATE roster_item SET contact = '@@' WHERE contact = 'b@x'", (2, 1, 0)),
        ("UPDATE subscription_request SET requester = ''", (2, 0, 1)),
    ] {
        let request = crate::store::SubscriptionRequest::new(jid("c@x"), &b"<presence/>"[..]);
        block_on(store.rosters().apply(&account, put(1, "a@x"))).unwrap();
        block_on(store.rosters().apply(&account, put(2, "b@x").add_request(request))).unwrap();
        database.execute(bad);
        let found = block_on(store.rosters().load(&account)).unwrap();
        assert_eq!(found.items[0].jid, jid("a@x"), "{bad}");
        let left = (found.items.len() + found.strays.len(), found.requests.len(), found.unread);
        assert_eq!(left, expected, "{bad}");
        let strays = found.strays.into_iter().map(|stray| stray.jid);
        for stray in strays {
            let change = RosterChange::new().remove_stray(stray);
            block_on(store.rosters().apply(&account, change)).unwrap();
            assert!(block_on(store.rosters().load(&account)).unwrap().strays.is_empty());
        }
        block_on(store.rosters().clear(&account)).unwrap();
    }
    database.execute(
        "INSERT INTO invitation (key, domain, account, contact) VALUES ('a', 'example.com', 'a@', NULL),
         ('b', 'a@example.com', NULL, NULL), ('c', 'example.com', NULL, '@');
         INSERT INTO offline_message (account, received, bytes, stanza)
         VALUES ('juliet@example.com', 1, 1, '<')",
    );
    for key in ["a", "b", "c"] {
        assert!(block_on(store.get(key)).unwrap().is_none(), "{key}");
    }
    assert_eq!(texts(&store, &account), ["<"]);
}

#[test]
fn jid_6_addresses_as_long_as_they_may_be_are_kept() {
    let database = database!();
    let store = database.store();
    // No two parts alike, so that nothing becomes short by compression.
    let long = |seed: u32| {
        let mut n = seed;
        let mut next = || {
            n = n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            char::from(b'a' + u8::try_from(n >> 24).unwrap() % 26)
        };
        let local: String = (0..1023).map(|_| next()).collect();
        let label = |next: &mut dyn FnMut() -> char| (0..60).map(|_| next()).collect::<String>();
        let domain = (0..4).map(|_| label(&mut next)).collect::<Vec<_>>().join(".");
        jid(&format!("{local}@{domain}"))
    };
    let [account, contact] = [long(1), long(2)];
    let resource = format!("{contact}/{}", "\u{2603}".repeat(341));
    block_on(store.rosters().apply(&account, put(1, contact.as_str()))).unwrap();
    let request = crate::store::SubscriptionRequest::new(contact.clone(), &b"<presence/>"[..]);
    let change = RosterChange::new().add_request(request.clone());
    block_on(store.rosters().apply(&account, change)).unwrap();
    let expected = StoredRoster::new(vec![item(contact.as_str())], 1, vec![contact.clone()]);
    assert!(block_on(store.rosters().load(&account)).unwrap() == expected);
    let one = block_on(store.rosters().contact(&account, &contact)).unwrap();
    assert!(one == expected.into_contact(&contact));
    assert!(block_on(store.rosters().requests(&account)).unwrap() == [request]);
    block_on(store.blocks().apply(&account, vec![resource.clone()], vec![])).unwrap();
    assert_eq!(block_on(store.blocks().load(&account)).unwrap(), std::slice::from_ref(&resource));
    block_on(store.blocks().apply(&account, vec![], vec![resource])).unwrap();
    assert!(block_on(store.blocks().load(&account)).unwrap().is_empty());
    block_on(store.push(&account, message("1"))).unwrap();
    assert_eq!(texts(&store, &account), ["1"]);
    let mut invitation = crate::store::StoredInvitation::new(account.domain().to_owned());
    invitation.account = Some(account.clone());
    block_on(store.put("digest", invitation.clone())).unwrap();
    let found = block_on(store.of_account(&account)).unwrap();
    assert!(found == [("digest".to_owned(), invitation)]);
    let gone = RosterChange::new().remove(contact.clone()).remove_request(contact);
    block_on(store.rosters().apply(&account, gone)).unwrap();
    assert!(block_on(store.rosters().load(&account)).unwrap().items.is_empty());
}

/// With `XMPP_TEST_POSTGRES_RESTART`, a command that restarts the server, or kills and starts it.
#[test]
#[ignore = "restarts the server, which no other test may use meanwhile"]
fn off_4_a_server_that_is_restarted_loses_and_doubles_nothing() {
    let Ok(restart) = std::env::var("XMPP_TEST_POSTGRES_RESTART") else {
        panic!("no XMPP_TEST_POSTGRES_RESTART")
    };
    let database = database!();
    let store =
        Arc::new(database.connect(database.config().timeout(Duration::from_secs(60))).unwrap());
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..8)
        .map(|n| {
            let (store, stop) = (Arc::clone(&store), Arc::clone(&stop));
            std::thread::spawn(move || {
                let account = jid(&format!("user{n}@example.com"));
                let mut pushed = Vec::new();
                while !stop.load(Ordering::Relaxed) && pushed.len() < 1000 {
                    pushed.push(pushed.len().to_string());
                    let done = block_on(store.push(&account, message(pushed.last().unwrap())));
                    assert!(done.is_ok(), "{}", cause(&done.unwrap_err()));
                }
                (account, pushed)
            })
        })
        .collect();
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(500));
        let done = std::process::Command::new("sh").args(["-c", &restart]).status().unwrap();
        assert!(done.success());
    }
    std::thread::sleep(Duration::from_millis(500));
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        let (account, pushed) = writer.join().unwrap();
        assert!(!pushed.is_empty());
        assert_eq!(texts(&store, &account), pushed);
    }
}
