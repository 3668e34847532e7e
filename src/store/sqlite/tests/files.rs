//! What `open` says of files of all kinds.

use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::store::sqlite::schema::{self, MIGRATIONS};
use crate::store::{AccountStore, ClientKey, ClientTokens, Revision, TokenStore};
use crate::store::{Credentials, InvitationStore, ScramKeys, StoredInvitation};

/// A file of schema version 1, as it was written then.
fn version_1(path: &Path) {
    let db = Connection::open(path).unwrap();
    db.execute_batch(MIGRATIONS[0]).unwrap();
    db.execute_batch(
        "PRAGMA application_id = 2020438899;
         PRAGMA user_version = 1;
         INSERT INTO account VALUES ('juliet@example.com', 0);
         INSERT INTO scram_keys VALUES ('juliet@example.com', 'SHA-1', x'01', 4096, x'02', x'03');
         INSERT INTO roster VALUES ('juliet@example.com', 12);
         INSERT INTO roster_item VALUES ('juliet@example.com', 'romeo@example.net', 'R', 'both', 0, 1);
         INSERT INTO roster_group VALUES ('juliet@example.com', 'romeo@example.net', 0, 'Friends');
         INSERT INTO subscription_request VALUES (1, 'juliet@example.com', 'p@example.org', x'3c');",
    )
    .unwrap();
}

#[test]
fn bind_13_a_file_of_schema_version_1_is_brought_up_to_date_with_all_it_holds() {
    let directory = Directory::new();
    version_1(&directory.file());
    for _ in 0..2 {
        let store = Sqlite::open(directory.file()).unwrap();
        let account = jid("juliet@example.com");
        let credentials = block_on(store.credentials(&account)).unwrap().unwrap();
        assert!(credentials.scram_sha_256.is_none() && credentials.scram_sha_512.is_none());
        let Credentials { scram_sha_1: Some(keys), disabled: false, .. } = credentials else {
            panic!("other credentials")
        };
        let ScramKeys { salt, iterations, stored_key, server_key } = keys;
        assert_eq!((salt, iterations, stored_key, server_key), (vec![1], 4096, vec![2], vec![3]));
        let mut expected = item("romeo@example.net");
        expected.name = Some("R".into());
        expected.groups = vec!["Friends".into()];
        expected.subscription = Subscription::Both;
        expected.approved = true;
        let expected = StoredRoster::new(vec![expected], 12, vec![jid("p@example.org")]);
        assert!(block_on(store.rosters().load(&account)).unwrap() == expected);
        let requests = block_on(store.rosters().requests(&account)).unwrap();
        assert_eq!(&*requests[0].stanza, b"<");

        block_on(store.offline().push(&account, OfflineMessage::new(*b"<", UNIX_EPOCH))).unwrap();
        block_on(store.blocks().apply(&account, vec![account.to_string()], vec![])).unwrap();
        let client = ClientKey::from_bytes([1; 32]);
        let found = block_on(store.client(&account, &client)).unwrap();
        let record = ClientTokens::new(Revision::new(1), [1; 16], UNIX_EPOCH);
        let first = block_on(store.replace(&account, &client, None, Some(record.clone()))).unwrap();
        assert!(first ^ (found == Some(record)), "kept from the first time on");
        let invitation = StoredInvitation::new(account.domain().to_owned());
        let found = block_on(store.get("digest")).unwrap();
        assert!(first ^ (found.as_ref() == Some(&invitation)), "kept from the first time on");
        block_on(store.put("digest", invitation)).unwrap();
    }
    assert_eq!(rows(&directory.file(), "offline_message"), 2);
}

#[test]
fn jid_3_addresses_of_schema_version_2_get_their_one_spelling() {
    let directory = Directory::new();
    let db = Connection::open(directory.file()).unwrap();
    for migration in &MIGRATIONS[..2] {
        db.execute_batch(migration).unwrap();
    }
    db.execute_batch(
        "PRAGMA application_id = 2020438899;
         PRAGMA user_version = 2;
         INSERT INTO account VALUES ('a@xn--bcher-kva.example', 0), ('x@localhost.', 0),
             ('b@xn--bcher-kva.example', 0), ('b@b\u{fc}cher.example', 0);
         INSERT INTO scram_keys VALUES
             ('a@xn--bcher-kva.example', 'SHA-1', x'01', 4096, x'02', x'03');
         INSERT INTO roster VALUES ('a@xn--bcher-kva.example', 12);
         INSERT INTO roster_item VALUES
             ('a@xn--bcher-kva.example', 'c@XN--BCHER-KVA.example', 'C', 'both', 0, 1),
             ('a@xn--bcher-kva.example', 'd@xn--bcher-kva.example', 'D', 'both', 0, 1),
             ('a@xn--bcher-kva.example', 'e@xn--bcher-kva.example', 'E', 'to', 0, 0),
             ('a@xn--bcher-kva.example', 'e@b\u{fc}cher.example', 'E', 'both', 0, 0),
             ('b@xn--bcher-kva.example', 'z@z', 'Z', 'both', 0, 0);
         INSERT INTO roster_group VALUES
             ('a@xn--bcher-kva.example', 'd@xn--bcher-kva.example', 0, 'Friends'),
             ('a@xn--bcher-kva.example', 'e@xn--bcher-kva.example', 0, 'Foes');
         INSERT INTO subscription_request VALUES
             (1, 'a@xn--bcher-kva.example', 'p@xn--bcher-kva.example', x'3c');
         INSERT INTO offline_message VALUES (1, 'b@xn--bcher-kva.example', 1767225599042, 1, x'3c');
         INSERT INTO blocked VALUES
             ('a@xn--bcher-kva.example', 'q@xn--bcher-kva.example/\u{1f98a}');",
    )
    .unwrap();
    drop(db);
    for _ in 0..2 {
        let store = Sqlite::open(directory.file()).unwrap();
        let account = jid("a@b\u{fc}cher.example");
        assert!(block_on(store.credentials(&account)).unwrap().unwrap().scram_sha_1.is_some());
        assert!(block_on(store.exists(&jid("x@localhost"))).unwrap());
        let stored = block_on(store.rosters().load(&account)).unwrap();
        assert_eq!((stored.version, stored.unread), (12, 0));
        let items: Vec<_> = stored
            .items
            .iter()
            .map(|item| (item.jid.as_str(), item.subscription, item.groups.len()))
            .collect();
        let (d, e) = ("d@b\u{fc}cher.example", "e@b\u{fc}cher.example");
        assert_eq!(items, [(d, Subscription::Both, 1), (e, Subscription::Both, 0)]);
        // The second of two, and one that has never been normal.
        let strays: Vec<_> =
            stored.strays.iter().map(|stray| (stray.jid.as_str(), stray.groups.len())).collect();
        assert_eq!(strays, [("c@XN--BCHER-KVA.example", 0), ("e@xn--bcher-kva.example", 1)]);
        assert_eq!(stored.requests, [jid("p@b\u{fc}cher.example")]);
        let blocked = block_on(store.blocks().load(&account)).unwrap();
        assert_eq!(blocked, ["q@b\u{fc}cher.example/\u{1f98a}"]);
        let waiting = block_on(store.list(&jid("b@xn--bcher-kva.example"))).unwrap();
        let arrival = UNIX_EPOCH + Duration::from_millis(1_767_225_599_042);
        assert_eq!(
            waiting.iter().map(|(_, message)| message.received).collect::<Vec<_>>(),
            [arrival]
        );
        // Two accounts stay two.
        let other = block_on(store.rosters().load(&jid("b@b\u{fc}cher.example"))).unwrap();
        assert!(other.items.is_empty());
    }
}

#[test]
fn bind_13_a_newer_schema_is_refused_and_left_alone() {
    let directory = Directory::new();
    drop(Sqlite::open(directory.file()).unwrap());
    Connection::open(directory.file()).unwrap().pragma_update(None, "user_version", 77).unwrap();
    let before = fs::read(directory.file()).unwrap();
    let error = Sqlite::open(directory.file()).unwrap_err();
    assert!(matches!(error, OpenError::Newer { found: 77, known: 6 }), "{error}");
    assert_eq!(error.to_string(), "the database has schema version 77, known are those up to 6");
    assert!(fs::read(directory.file()).unwrap() == before);
}

#[test]
fn bind_13_files_that_are_no_store_are_refused_and_left_alone() {
    let directory = Directory::new();
    let text = "no database, but a text that is longer than a header ".repeat(100);
    fs::write(directory.file(), &text).unwrap();
    let error = Sqlite::open(directory.file()).unwrap_err();
    assert!(matches!(error, OpenError::NotADatabase), "{error:?}");
    assert!(fs::read(directory.file()).unwrap() == text.as_bytes());

    let foreign = directory.0.join("foreign.sqlite");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE account (jid TEXT)").unwrap();
    let before = fs::read(&foreign).unwrap();
    let error = Sqlite::open(&foreign).unwrap_err();
    assert!(matches!(error, OpenError::Foreign), "{error:?}");
    assert!(fs::read(&foreign).unwrap() == before);

    let error = Sqlite::open(directory.0.join("missing").join("file")).unwrap_err();
    assert!(matches!(error, OpenError::Failed(_)), "{error:?}");
    assert!(Sqlite::open(&directory.0).is_err());
    assert!(Sqlite::open("").is_err());
}

#[test]
fn bind_13_a_damaged_file_is_refused() {
    let directory = Directory::new();
    let store = Sqlite::open(directory.file()).unwrap();
    for n in 0..500 {
        let change = put(n, &format!("contact{n}@example.com"));
        drop(store.rosters().apply(&jid("juliet@example.com"), change));
    }
    drop(store);
    let whole = fs::read(directory.file()).unwrap();

    let mut overwritten = whole.clone();
    let middle = whole.len() / 2;
    overwritten[middle..middle + 8192].fill(0xaa);
    fs::write(directory.file(), overwritten).unwrap();
    let error = Sqlite::open(directory.file()).unwrap_err();
    assert!(matches!(error, OpenError::Damaged(_)), "{error:?}");

    fs::write(directory.file(), &whole[..middle]).unwrap();
    let error = Sqlite::open(directory.file()).unwrap_err();
    assert!(matches!(error, OpenError::Damaged(_)), "{error:?}");

    fs::write(directory.file(), &whole).unwrap();
    drop(Sqlite::open(directory.file()).unwrap());
}

#[test]
fn bind_13_a_read_only_file_is_refused() {
    let directory = Directory::new();
    drop(Sqlite::open(directory.file()).unwrap());
    // By permission where the tests run as a user whom it binds, and by the flag for root.
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let mut db = Connection::open_with_flags(directory.file(), flags).unwrap();
    assert!(matches!(schema::prepare(&mut db), Err(OpenError::ReadOnly)));
    let denied = OpenError::failed(std::io::ErrorKind::PermissionDenied.into());
    assert!(matches!(denied, OpenError::ReadOnly));
}

#[cfg(unix)]
#[test]
fn sec_6_only_the_owner_may_read_the_file() {
    use std::os::unix::fs::PermissionsExt;
    let directory = Directory::new();
    let store = Sqlite::open(directory.file()).unwrap();
    block_on(store.rosters().apply(&jid("a@example.com"), put(1, "b@example.com"))).unwrap();
    for entry in fs::read_dir(&directory.0).unwrap() {
        let mode = entry.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0);
    }
}

#[test]
fn roster_10_commits_reach_the_disk_before_they_return() {
    let directory = Directory::new();
    let store = Sqlite::open(directory.file()).unwrap();
    let settings = store.writer.call(|db| {
        let journal: String = db.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
        let synchronous: i64 = db.query_row("PRAGMA synchronous", [], |row| row.get(0))?;
        Ok((journal, synchronous))
    });
    assert_eq!(block_on(settings).unwrap(), ("wal".into(), 2), "2 is FULL");
    // Where that cannot be had, there is no store.
    let mut db = Connection::open_in_memory().unwrap();
    assert!(matches!(schema::prepare(&mut db), Err(OpenError::NoWriteAheadLog)));
}
