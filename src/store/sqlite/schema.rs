//! Opening the file, and its schema through the versions.

use std::error::Error;
use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf, absolute};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use crate::address;

/// Marks a database as this crate's in its header: "xmss".
const APPLICATION_ID: i64 = 0x786d_7373;

/// `MIGRATIONS[n]` leads from schema version `n` to `n + 1`. What was released is never changed.
pub(super) const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE account (
        jid TEXT PRIMARY KEY,
        disabled INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE scram_keys (
        account TEXT NOT NULL,
        hash TEXT NOT NULL,
        salt BLOB NOT NULL,
        iterations INTEGER NOT NULL,
        stored_key BLOB NOT NULL,
        server_key BLOB NOT NULL,
        PRIMARY KEY (account, hash)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE roster (
        account TEXT PRIMARY KEY,
        version INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE roster_item (
        account TEXT NOT NULL,
        contact TEXT NOT NULL,
        name TEXT,
        subscription TEXT NOT NULL,
        ask INTEGER NOT NULL,
        approved INTEGER NOT NULL,
        PRIMARY KEY (account, contact)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE roster_group (
        account TEXT NOT NULL,
        contact TEXT NOT NULL,
        position INTEGER NOT NULL,
        name TEXT NOT NULL,
        PRIMARY KEY (account, contact, position)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE subscription_request (
        arrival INTEGER PRIMARY KEY AUTOINCREMENT,
        account TEXT NOT NULL,
        requester TEXT NOT NULL,
        stanza BLOB NOT NULL,
        UNIQUE (account, requester)
    ) STRICT;
    ",
    // AUTOINCREMENT: ids are never used again (OFF-4). The index answers how much an account has
    // waiting without a look at the stanzas.
    "
    CREATE TABLE offline_message (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        account TEXT NOT NULL,
        received INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        stanza BLOB NOT NULL
    ) STRICT;
    CREATE INDEX offline_message_of_account ON offline_message (account, id, bytes);
    CREATE TABLE blocked (
        account TEXT NOT NULL,
        jid TEXT NOT NULL,
        PRIMARY KEY (account, jid)
    ) STRICT, WITHOUT ROWID;
    ",
    // And `respell`.
    "",
    // Microseconds.
    "
    UPDATE offline_message SET received = received * 1000;
    ",
    // No token: what it is derived from.
    "
    CREATE TABLE token_client (
        account TEXT NOT NULL,
        client BLOB NOT NULL,
        revision INTEGER NOT NULL,
        nonce BLOB NOT NULL,
        last INTEGER NOT NULL,
        software TEXT,
        device TEXT,
        used INTEGER NOT NULL,
        PRIMARY KEY (account, client)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE token (
        account TEXT NOT NULL,
        client BLOB NOT NULL,
        slot TEXT NOT NULL,
        number INTEGER NOT NULL,
        mechanism TEXT NOT NULL,
        issued INTEGER NOT NULL,
        expiry INTEGER NOT NULL,
        count INTEGER NOT NULL,
        credentials BLOB NOT NULL,
        PRIMARY KEY (account, client, slot)
    ) STRICT, WITHOUT ROWID;
    ",
    // No token: its digest.
    "
    CREATE TABLE invitation (
        key TEXT PRIMARY KEY,
        domain TEXT NOT NULL,
        account TEXT,
        contact TEXT,
        expires INTEGER
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX invitation_of_account ON invitation (account) WHERE account IS NOT NULL;
    CREATE INDEX invitation_by_expiry ON invitation (expires) WHERE expires IS NOT NULL;
    ",
];

/// The version before domains had one spelling (JID-3).
const SEVERAL_SPELLINGS: i64 = 2;

/// Why a file cannot be a store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The file is something else.
    #[error("the file is not an SQLite database")]
    NotADatabase,
    /// The file is an SQLite database of another program.
    #[error("the database belongs to another program")]
    Foreign,
    /// The file was written by a newer version of this crate.
    #[error("the database has schema version {found}, known are those up to {known}")]
    Newer {
        /// The file's schema version.
        found: i64,
        /// The newest schema version this version of the crate can read.
        known: i64,
    },
    /// The file is damaged; go back to a backup.
    #[error("the database is damaged")]
    Damaged(#[source] Box<dyn Error + Send + Sync>),
    /// The file, or the file system it is on, is read-only.
    #[error("the database cannot be written to")]
    ReadOnly,
    /// The file system (some network ones) cannot do what a write-ahead log needs.
    #[error("the file system does not support a write-ahead log")]
    NoWriteAheadLog,
    /// Anything else: no such directory, no permission, another server using the file.
    #[error("the database cannot be opened")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
}

impl OpenError {
    pub(super) fn failed(cause: io::Error) -> Self {
        match cause.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            _ => Self::Failed(cause.into()),
        }
    }

    fn sqlite(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => Self::NotADatabase,
            Some(ErrorCode::DatabaseCorrupt) => Self::Damaged(error.into()),
            Some(ErrorCode::ReadOnly) => Self::ReadOnly,
            _ => Self::Failed(error.into()),
        }
    }
}

/// Creates an empty file where there is none. The file holds keys made from passwords: on Unix only
/// its owner may read it, and SQLite gives its other files the same permissions.
pub(super) fn create(path: &Path) -> Result<PathBuf, OpenError> {
    // Absolute, so that no name means something special to SQLite (`:memory:`).
    let path = absolute(path).map_err(OpenError::failed)?;
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(&path).map_err(OpenError::failed)?;
    Ok(path)
}

/// A connection to the file, for one thread.
pub(super) fn connect(path: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags).map_err(OpenError::sqlite)?;
    // A backup that runs may hold the file for a moment.
    db.busy_timeout(Duration::from_secs(10)).map_err(OpenError::sqlite)?;
    // More than there are statements in this room: each is prepared once.
    db.set_prepared_statement_cache_capacity(64);
    // `FULL`: a commit is on disk before it returns. The other two say the same to macOS.
    for (pragma, value) in
        [("synchronous", "FULL"), ("fullfsync", "ON"), ("checkpoint_fullfsync", "ON")]
    {
        db.pragma_update(None, pragma, value).map_err(OpenError::sqlite)?;
    }
    Ok(db)
}

/// Makes sure that the file is this crate's and undamaged, and brings its schema up to date.
pub(super) fn prepare(db: &mut Connection) -> Result<(), OpenError> {
    // Everything that only looks comes first: a file that is refused stays as it was.
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    let found = version(db).map_err(OpenError::sqlite)?;
    let application: i64 = number(db, "PRAGMA application_id").map_err(OpenError::sqlite)?;
    if application != APPLICATION_ID {
        let entries =
            number(db, "SELECT count(*) FROM sqlite_schema").map_err(OpenError::sqlite)?;
        if (application, found, entries) != (0, 0, 0) {
            return Err(OpenError::Foreign);
        }
    }
    if found > known {
        return Err(OpenError::Newer { found, known });
    }
    if db.is_readonly("main").map_err(OpenError::sqlite)? {
        return Err(OpenError::ReadOnly);
    }
    let state: String =
        db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(OpenError::sqlite)?;
    if state != "ok" {
        return Err(OpenError::Damaged(state.into()));
    }

    let mode: String = db
        .query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))
        .map_err(OpenError::sqlite)?;
    if mode != "wal" {
        return Err(OpenError::NoWriteAheadLog);
    }
    while migrate(db).map_err(OpenError::sqlite)? {}
    Ok(())
}

/// Goes one version on; `false` at the newest.
fn migrate(db: &mut Connection) -> rusqlite::Result<bool> {
    let step = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version = version(&step)?;
    let migration = usize::try_from(version).ok().and_then(|version| MIGRATIONS.get(version));
    let Some(migration) = migration else { return Ok(false) };
    step.execute_batch(migration)?;
    if version == SEVERAL_SPELLINGS {
        respell(&step)?;
    }
    step.pragma_update(None, "application_id", APPLICATION_ID)?;
    step.pragma_update(None, "user_version", version + 1)?;
    step.commit()?;
    Ok(true)
}

/// Gives the domains in all addresses their normal form. Where that is there already, as another
/// account or another contact, both stay as they are: they were never one (JID-6).
fn respell(db: &Connection) -> rusqlite::Result<()> {
    const FREE: &str = "NOT EXISTS (SELECT 1 FROM account WHERE jid = ?2)";
    // Of the account that a row belongs to, and the account last: it says what is free.
    let owners = [
        ("scram_keys", "account"),
        ("roster", "account"),
        ("roster_item", "account"),
        ("roster_group", "account"),
        ("subscription_request", "account"),
        ("offline_message", "account"),
        ("blocked", "account"),
        ("account", "jid"),
    ];
    for (table, column) in owners {
        respell_column(db, table, column, FREE)?;
    }
    respell_column(db, "roster_item", "contact", "TRUE")?;
    const MOVED: &str = "NOT EXISTS (SELECT 1 FROM roster_item AS item
        WHERE item.account = roster_group.account AND item.contact = ?1)";
    respell_column(db, "roster_group", "contact", MOVED)?;
    respell_column(db, "subscription_request", "requester", "TRUE")?;
    respell_column(db, "blocked", "jid", "TRUE")
}

fn respell_column(db: &Connection, table: &str, column: &str, only: &str) -> rusqlite::Result<()> {
    let select =
        format!("SELECT DISTINCT {column} FROM {table} WHERE {}", spelled_otherwise(column));
    let mut select = db.prepare(&select)?;
    let texts: Vec<String> =
        select.query_map([], |row| row.get(0))?.filter_map(Result::ok).collect();
    let update =
        format!("UPDATE OR IGNORE {table} SET {column} = ?2 WHERE {column} = ?1 AND {only}");
    let mut update = db.prepare(&update)?;
    for text in texts {
        if let Some(normal) = respelled(&text) {
            update.execute([text, normal])?;
        }
    }
    Ok(())
}

/// Where the domain of an address may be in another form than the normal one.
fn spelled_otherwise(column: &str) -> String {
    format!("({column} GLOB '*xn--*' OR {column} GLOB '*.' OR {column} GLOB '*\u{3002}*')")
}

/// The address with its domain in normal form, if the rest of it is so already.
fn respelled(text: &str) -> Option<String> {
    let (bare, resource) = text.split_at(text.find('/').unwrap_or(text.len()));
    let (node, name) = bare.split_at(bare.find('@').map_or(0, |at| at + 1));
    let normal = format!("{node}{}", address::domain(name).ok()?);
    address::bare(&normal).ok().filter(|jid| jid.as_str() == normal)?;
    Some(format!("{normal}{resource}"))
}

fn version(db: &Connection) -> rusqlite::Result<i64> {
    number(db, "PRAGMA user_version")
}

fn number(db: &Connection, sql: &str) -> rusqlite::Result<i64> {
    db.query_row(sql, [], |row| row.get(0))
}
