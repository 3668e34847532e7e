mod files;
mod kill;
pub(in crate::store) mod model;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::Mutex;
use rusqlite::{Connection, StatementStatus};

use super::*;
use crate::park::block_on;
use crate::rules::roster::{Item, Subscription};
use crate::store::conformance;
use crate::store::{
    AccountStore, BlockStore, ClientKey, ClientTokens, Credentials, InvitationStore,
    OfflineMessage, OfflineStore, Revision, RosterChange, RosterStore, ScramHash, ScramKeys,
    StoreFuture, StoredRoster, Stores, TokenStore,
};

/// A directory of its own, removed when dropped.
pub(in crate::store) struct Directory(PathBuf);

impl Directory {
    pub(in crate::store) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("xmpp-session-{}-{n}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(in crate::store) fn file(&self) -> PathBuf {
        self.0.join("store.sqlite")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn jid(text: &str) -> BareJid {
    BareJid::new(text).unwrap()
}

fn item(contact: &str) -> Item {
    Item {
        jid: jid(contact),
        name: None,
        groups: vec!["Friends".into(), "Verona".into()],
        subscription: Subscription::From,
        ask: false,
        approved: false,
    }
}

fn put(version: u64, contact: &str) -> RosterChange {
    RosterChange::new().version(version).put(item(contact))
}

fn rows(path: &Path, table: &str) -> i64 {
    let db = Connection::open(path).unwrap();
    db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

fn now<T>(future: &mut StoreFuture<T>) -> Poll<Result<T, StoreError>> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn roster_10_sub_9_off_2_block_2_sqlite_conforms() {
    let directory = Directory::new();
    let open = || {
        let store = Sqlite::open(directory.file()).unwrap();
        Stores::all_in(Arc::new(store.with_offline_limits(OfflineLimits::new(20, 100_000))))
    };
    conformance::all(open);
    conformance::durable(open);
}

#[test]
fn reg_7_reg_8_sqlite_conforms() {
    let directory = Directory::new();
    let open = || Arc::new(Sqlite::open(directory.file()).unwrap()) as Arc<dyn InvitationStore>;
    conformance::invitations(open);
    conformance::durable_invitations(open);
    assert_eq!(rows(&directory.file(), "invitation"), 0);
}

#[test]
fn reg_7_an_invitation_for_an_unreadable_account_is_one_for_nobody() {
    let directory = Directory::new();
    let store = Sqlite::open(directory.file()).unwrap();
    let row = "INSERT INTO invitation VALUES ('a', 'example.com', 'a@', NULL, NULL),
        ('b', 'a@example.com', NULL, NULL, NULL), ('c', 'example.com', NULL, '@', NULL)";
    Connection::open(directory.file()).unwrap().execute_batch(row).unwrap();
    for key in ["a", "b", "c"] {
        assert!(block_on(store.get(key)).unwrap().is_none(), "{key}");
    }
}

#[test]
fn sasl_7_an_unknown_account_takes_the_same_statements() {
    let directory = Directory::new();
    let store = Sqlite::open(directory.file()).unwrap();
    let [known, unknown] = [jid("juliet@example.com"), jid("nobody@example.com")];
    let keys = ScramKeys::from_parts(vec![1], 4096, vec![2], vec![3]);
    let credentials = Credentials::from_keys(None, Some(keys));
    block_on(store.set_credentials(&known, credentials)).unwrap();
    let client = ClientKey::from_bytes([1; 32]);
    let record = ClientTokens::new(Revision::new(1), [1; 16], UNIX_EPOCH);
    assert!(block_on(store.replace(&known, &client, None, Some(record))).unwrap());
    let runs = || {
        let count = |db: &Connection| {
            let mut counts = [0; 4];
            let all = [accounts::DISABLED, accounts::KEYS, tokens::CLIENT, tokens::TOKEN];
            for (count, sql) in counts.iter_mut().zip(all) {
                *count = db.prepare_cached(sql)?.reset_status(StatementStatus::Run);
            }
            Ok(counts)
        };
        block_on(store.reader.call(count)).unwrap()
    };
    for (account, is_there) in [(known, true), (unknown, false)] {
        let _before = runs();
        assert_eq!(block_on(store.credentials(&account)).unwrap().is_some(), is_there);
        assert_eq!(runs(), [1, ScramHash::ALL.len() as i32, 0, 0]);
        assert_eq!(block_on(store.exists(&account)).unwrap(), is_there);
        assert_eq!(runs(), [1, 0, 0, 0]);
        assert_eq!(block_on(store.client(&account, &client)).unwrap().is_some(), is_there);
        assert_eq!(runs(), [0, 0, 1, 2]);
    }
}

/// Holds the writer in a transaction until the sender is used or dropped.
fn hold(store: &Sqlite) -> (StoreFuture<()>, std::sync::mpsc::Sender<()>) {
    let (release, released) = channel();
    let (enter, entered) = channel();
    let released = Mutex::new(released);
    let held = store.writer.call(move |_| {
        let _ = enter.send(());
        let _ = released.lock().recv();
        Ok(())
    });
    entered.recv().unwrap();
    (held, release)
}

#[test]
fn roster_10_answers_come_after_the_one_commit_of_all_that_waited() {
    let directory = Directory::new();
    let store = Sqlite::open(directory.file()).unwrap();
    let (held, release) = hold(&store);
    let accounts: Vec<_> = (0..50).map(|n| jid(&format!("user{n}@example.com"))).collect();
    let writes: Vec<_> =
        accounts.iter().map(|account| store.rosters().apply(account, put(1, "romeo@x"))).collect();
    let writes = Arc::new(Mutex::new(writes));
    // Behind them in the same transaction: what does the world outside see now?
    let (looking, path) = (Arc::clone(&writes), directory.file());
    let look = store.writer.call(move |_| {
        let answered = looking.lock().iter_mut().map(now).filter(Poll::is_ready).count();
        Ok((answered, rows(&path, "roster_item")))
    });
    drop(release);
    block_on(held).unwrap();
    assert_eq!(block_on(look).unwrap(), (0, 0), "answered, committed");
    let writes = std::mem::take(&mut *writes.lock());
    for write in writes {
        block_on(write).unwrap();
    }
    assert_eq!(rows(&directory.file(), "roster_item"), 50);
}

#[test]
fn roster_10_a_statement_that_fails_fails_alone() {
    let directory = Directory::new();
    let store = Sqlite::open(directory.file()).unwrap();
    let (held, release) = hold(&store);
    let [romeo, juliet] = [jid("romeo@example.com"), jid("juliet@example.com")];
    let good = store.rosters().apply(&romeo, put(1, "juliet@example.com"));
    // A key used twice, after half of the request is done.
    let bad = store.writer.call(|db| {
        db.execute("INSERT INTO roster (account, version) VALUES ('nurse@example.com', 1)", [])?;
        db.execute("INSERT INTO roster (account, version) VALUES ('nurse@example.com', 2)", [])?;
        Ok(())
    });
    let also_good = store.rosters().apply(&juliet, put(1, "romeo@example.com"));
    drop(release);
    block_on(held).unwrap();
    block_on(good).unwrap();
    assert!(matches!(block_on(bad), Err(StoreError::Failed(_))));
    block_on(also_good).unwrap();
    drop(store);
    assert_eq!(rows(&directory.file(), "roster"), 2);
}

#[test]
fn sub_4_a_request_that_spoils_the_transaction_takes_no_other_one_with_it() {
    let directory = Directory::new();
    let store = Sqlite::open(directory.file()).unwrap();
    let (held, release) = hold(&store);
    let [romeo, juliet] = [jid("romeo@example.com"), jid("juliet@example.com")];
    let before = store.rosters().apply(&romeo, put(1, "juliet@example.com"));
    let spoils = store.writer.call(|db| {
        db.execute_batch("ROLLBACK")?;
        Err::<(), _>(rusqlite::Error::InvalidQuery.into())
    });
    let after = store.rosters().apply_pair(&romeo, put(2, "nurse@x"), &juliet, put(1, "romeo@x"));
    drop(release);
    block_on(held).unwrap();
    assert!(matches!(block_on(spoils), Err(StoreError::Failed(_))));
    block_on(before).unwrap();
    block_on(after).unwrap();
    drop(store);
    assert_eq!(rows(&directory.file(), "roster_item"), 3);
}

#[test]
fn sub_4_a_pair_that_fails_half_way_changes_neither() {
    let directory = Directory::new();
    let store = Sqlite::open(directory.file()).unwrap();
    block_on(store.writer.call(|db| {
        Ok(db.execute_batch(
            "CREATE TRIGGER refuse BEFORE INSERT ON roster_item WHEN new.account = 'b@example.com'
             BEGIN SELECT raise(ABORT, 'refused'); END",
        )?)
    }))
    .unwrap();
    let [a, b] = [jid("a@example.com"), jid("b@example.com")];
    let pair = store.rosters().apply_pair(&a, put(1, "b@example.com"), &b, put(1, "a@example.com"));
    assert!(matches!(block_on(pair), Err(StoreError::Failed(_))));
    for account in [&a, &b] {
        assert!(block_on(store.rosters().load(account)).unwrap() == StoredRoster::default());
    }
}

#[test]
fn off_2_a_full_disk_is_full_and_the_rest_goes_on() {
    let directory = Directory::new();
    let store = Sqlite::open(directory.file()).unwrap();
    block_on(store.writer.call(|db| {
        let pages: i64 = db.query_row("PRAGMA page_count", [], |row| row.get(0))?;
        Ok(db.query_row(&format!("PRAGMA max_page_count = {}", pages + 10), [], |_| Ok(()))?)
    }))
    .unwrap();
    let [romeo, juliet] = [jid("romeo@example.com"), jid("juliet@example.com")];
    let message = |bytes| OfflineMessage::new(vec![b'x'; bytes], UNIX_EPOCH);
    let (held, release) = hold(&store);
    let small = store.offline().push(&romeo, message(10));
    let large = store.offline().push(&romeo, message(1 << 20));
    let change = store.rosters().apply(&juliet, put(1, "romeo@example.com"));
    drop(release);
    block_on(held).unwrap();
    block_on(small).unwrap();
    assert!(matches!(block_on(large), Err(StoreError::NoSpace(_))));
    block_on(change).unwrap();
    assert_eq!(block_on(store.offline().count(&romeo)).unwrap(), 1);
    block_on(store.offline().clear(&romeo)).unwrap();
}

#[test]
fn jid_6_a_row_that_cannot_be_read_costs_that_row() {
    let directory = Directory::new();
    let store = Sqlite::open(directory.file()).unwrap();
    let account = jid("juliet@example.com");
    for (table, bad, expected) in [
        (
            "roster_item",
            "UPDATE roster_item SET subscription = 'remove' WHERE contact = 'b@x'",
            (1, 1, 1),
        ),
        ("roster_item", "UPDATE roster_item SET contact = '@@' WHERE contact = 'b@x'", (2, 1, 0)),
        (
            "roster_item",
            "UPDATE roster_item SET contact = CAST(x'ff' AS TEXT) WHERE contact = 'b@x'",
            (1, 1, 1),
        ),
        ("subscription_request", "UPDATE subscription_request SET requester = ''", (2, 0, 1)),
    ] {
        let request = crate::store::SubscriptionRequest::new(jid("c@x"), &b"<presence/>"[..]);
        block_on(store.rosters().apply(&account, put(1, "a@x"))).unwrap();
        block_on(store.rosters().apply(&account, put(2, "b@x").add_request(request))).unwrap();
        block_on(store.writer.call(move |db| Ok(db.execute(bad, [])?))).unwrap();
        let found = block_on(store.rosters().load(&account)).unwrap();
        assert_eq!(found.items[0].jid, jid("a@x"), "{table}");
        let left = (found.items.len() + found.strays.len(), found.requests.len(), found.unread);
        assert_eq!(left, expected, "{table}");
        block_on(store.rosters().clear(&account)).unwrap();
    }
    block_on(store.blocks().apply(&account, vec![account.to_string()], vec![])).unwrap();
    block_on(store.writer.call(|db| Ok(db.execute("UPDATE blocked SET jid = '@'", [])?))).unwrap();
    assert_eq!(block_on(store.blocks().load(&account)).unwrap(), ["@"]);
    block_on(store.blocks().apply(&account, vec![], vec!["@".into()])).unwrap();
    assert!(block_on(store.blocks().load(&account)).unwrap().is_empty());
}

#[test]
fn jid_6_rows_from_before_are_strays_and_go_by_their_text() {
    const TEXTS: [&str; 6] =
        ["", "Romeo@example.com", "a@", "a@.z", "x@xn--bcher-kva.example", "\u{2665}@z"];
    let directory = Directory::new();
    let store = Sqlite::open(directory.file()).unwrap();
    let account = jid("juliet@example.com");
    block_on(store.rosters().apply(&account, put(1, "romeo@example.com"))).unwrap();
    for text in TEXTS {
        block_on(store.rosters().apply(&account, put(2, "b@x"))).unwrap();
        let rename = move |db: &Connection| {
            for table in ["roster_item", "roster_group"] {
                let sql = format!("UPDATE {table} SET contact = ?1 WHERE contact = 'b@x'");
                db.execute(&sql, [text])?;
            }
            Ok(())
        };
        block_on(store.writer.call(rename)).unwrap();
    }
    let load = || block_on(store.rosters().load(&account)).unwrap();
    let texts = || load().strays.into_iter().map(|stray| stray.jid).collect::<Vec<_>>();
    assert_eq!(texts(), TEXTS);
    assert!(load().strays.iter().all(|stray| stray.groups == ["Friends", "Verona"]));
    for (n, text) in TEXTS.iter().enumerate() {
        let change = RosterChange::new().remove_stray((*text).to_owned());
        block_on(store.rosters().apply(&account, change)).unwrap();
        assert_eq!(texts(), TEXTS[n + 1..]);
        assert!(load().items == [item("romeo@example.com")]);
    }
    assert_eq!(rows(&directory.file(), "roster_group"), 2);
}

#[test]
fn jid_2_there_is_no_account_whose_jid_is_not_normal() {
    let directory = Directory::new();
    let store = Sqlite::open(directory.file()).unwrap();
    let made = |jid: &BareJid| {
        let credentials = Credentials::new();
        block_on(AccountStore::set_credentials(&store, jid, credentials)).is_ok()
    };
    // As `jid` makes them.
    for (text, is_made) in [
        ("\u{1d2c}lice@localhost", false),
        ("\u{2665}@localhost", false),
        ("x@localhost.", true),
        ("x@xn--bcher-kva.example", true),
    ] {
        assert_eq!(made(&jid(text)), is_made, "{text}");
    }
    let exists = |jid: &BareJid| block_on(AccountStore::exists(&store, jid)).unwrap();
    assert!(exists(&jid("x@localhost")) && exists(&jid("x@b\u{fc}cher.example")));
    assert_eq!(rows(&directory.file(), "account"), 2);
}

#[test]
fn off_4_dropping_the_store_finishes_the_writes_that_wait() {
    let directory = Directory::new();
    let store = Sqlite::open(directory.file()).unwrap();
    let account = jid("juliet@example.com");
    let (held, release) = hold(&store);
    for n in 0..400 {
        // The futures are dropped too: nobody waits any more.
        drop(store.rosters().apply(&account, put(n, &format!("contact{n}@example.com"))));
    }
    drop(held);
    drop(release);
    drop(store);
    assert_eq!(rows(&directory.file(), "roster_item"), 400);
    assert!(!directory.file().with_extension("sqlite-wal").exists());
}

/// Owns the store and lets go of it when woken: on the store's own thread.
struct LastOwner(Mutex<Option<Arc<Sqlite>>>);

impl Wake for LastOwner {
    fn wake(self: Arc<Self>) {
        drop(self.0.lock().take());
    }
}

#[test]
fn sec_7_the_last_owner_may_let_go_on_the_thread_of_the_store() {
    let directory = Directory::new();
    let store = Arc::new(Sqlite::open(directory.file()).unwrap());
    let gone: Weak<Sqlite> = Arc::downgrade(&store);
    let (held, release) = hold(&store);
    let mut first = store.rosters().apply(&jid("a@example.com"), put(1, "b@example.com"));
    let second = store.rosters().apply(&jid("b@example.com"), put(1, "a@example.com"));
    let waker = Waker::from(Arc::new(LastOwner(Mutex::new(Some(store)))));
    assert!(first.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    drop(release);
    block_on(held).unwrap();
    block_on(second).unwrap();
    assert!(matches!(now(&mut first), Poll::Ready(Ok(()))));
    assert!(gone.upgrade().is_none());
}

#[test]
fn bind_13_a_store_whose_thread_ended_fails_and_hangs_nobody() {
    let directory = Directory::new();
    let store = Sqlite::open(directory.file()).unwrap();
    let ends = store.writer.call(|_| -> Result<(), Refusal> { panic!("a defect of this crate") });
    assert!(matches!(block_on(ends), Err(StoreError::Failed(_))));
    let later = store.rosters().apply(&jid("a@example.com"), put(1, "b@example.com"));
    assert!(matches!(block_on(later), Err(StoreError::Failed(_))));
}

impl Sqlite {
    fn rosters(&self) -> &dyn RosterStore {
        self
    }

    fn offline(&self) -> &dyn OfflineStore {
        self
    }

    fn blocks(&self) -> &dyn BlockStore {
        self
    }
}

#[test]
fn bind_13_a_long_roster_that_is_being_read_does_not_hold_the_file() {
    let directory = Directory::new();
    let store = Sqlite::open(directory.file()).unwrap();
    let account = BareJid::new("romeo@example.com").unwrap();
    for n in 0..200 {
        let item = Item::new(BareJid::new(&format!("c{n}@example.com")).unwrap());
        let put = RosterChange::new().version(n + 1).put(item);
        block_on(RosterStore::apply(&store, &account, put)).unwrap();
    }
    assert_eq!(block_on(RosterStore::load(&store, &account)).unwrap().items.len(), 200);
    // The first part is read, and the store is gone before the others.
    let load = RosterStore::load(&store, &account);
    drop(store);
    assert!(matches!(block_on(load), Err(StoreError::Failed(_))));
}
