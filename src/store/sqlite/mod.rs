//! Everything in one SQLite file.
//!
//! ```text
//!   calls ──► queue ──► writer thread ──► one transaction for all that wait ──► commit ──► answers
//!   calls ──► queue ──► reader thread ──► answer
//! ```
//!
//! A commit waits for the disk, whatever it holds: the writer takes everything that waits into
//! one (`worker`). Each trait is one file, `schema` opens and migrates.

mod accounts;
mod blocks;
mod handle;
mod invitations;
mod offline;
mod rosters;
mod schema;
#[cfg(test)]
pub(super) mod tests;
mod tokens;
mod worker;

pub use schema::OpenError;

use std::fmt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jid::BareJid;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{ErrorCode, TransactionBehavior};

use self::handle::Handle;
use self::worker::Worker;
use super::{OfflineLimits, StoreError, StoreFuture};

/// A store of everything in one SQLite file.
///
/// ```no_run
/// use std::sync::Arc;
/// use xmpp_session::store::{Sqlite, Stores};
///
/// let stores = Stores::all_in(Arc::new(Sqlite::open("/var/lib/xmpp/data.sqlite")?));
/// # Ok::<(), xmpp_session::store::OpenError>(())
/// ```
///
/// Invitations may go into the same file: it is an [`InvitationStore`](super::InvitationStore) as well.
///
/// What is answered with `Ok` survives a killed process and, if the disk does what it says, a loss
/// of power: the write-ahead log is on disk before the answer is given. Writes that are made at
/// the same time share one commit; one that fails fails alone.
///
/// A full disk is [`StoreError::NoSpace`], anything else that SQLite reports is
/// [`StoreError::Failed`]. Reads and removals may still work then.
///
/// One server at a time may use the file, since it keeps rosters in memory; other programs may read
/// it (a backup with `sqlite3 data.sqlite '.backup copy'` needs no pause). Dropping the store
/// waits for the writes that were called for, and closes the file.
///
/// Calls never block, and their futures need no runtime: two threads of the store's own do the
/// work.
pub struct Sqlite {
    // Dropped in this order: the last connection to close tidies the write-ahead log up.
    reader: Handle,
    writer: Handle,
    offline_limits: OfflineLimits,
}

impl Sqlite {
    /// Opens the file at `path`, creates it where there is none (on Unix readable by its owner
    /// only), brings an older schema up to date, and looks through the whole file for damage.
    /// Blocks while it does: one second for some hundred megabytes.
    ///
    /// # Errors
    ///
    /// [`OpenError`] says what is wrong with the file. It was not changed.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        let path = schema::create(path.as_ref())?;
        let mut writer = schema::connect(&path)?;
        schema::prepare(&mut writer)?;
        let reader = schema::connect(&path)?;
        let reader = Worker::spawn("store reader", reader, TransactionBehavior::Deferred, 1);
        let writer = Worker::spawn("store writer", writer, TransactionBehavior::Immediate, 256);
        Ok(Self {
            reader: Handle::new(reader.map_err(OpenError::failed)?),
            writer: Handle::new(writer.map_err(OpenError::failed)?),
            offline_limits: OfflineLimits::default(),
        })
    }

    /// How much each account may have waiting as offline messages.
    #[must_use]
    pub fn with_offline_limits(self, offline_limits: OfflineLimits) -> Self {
        Self { offline_limits, ..self }
    }

    /// Deletes what belongs to an account.
    fn delete(&self, account: &BareJid, statements: &'static [&'static str]) -> StoreFuture<()> {
        self.writer.about(account, move |db, account| {
            for statement in statements {
                db.prepare_cached(statement)?.execute([account])?;
            }
            Ok(())
        })
    }
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sqlite")
            .field("offline_limits", &self.offline_limits)
            .finish_non_exhaustive()
    }
}

/// What becomes of a call that SQLite or a limit refuses.
#[derive(Debug)]
enum Refusal {
    Full,
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<Refusal> for StoreError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Full => Self::Full,
            Refusal::Sqlite(error) => match error.sqlite_error_code() {
                Some(ErrorCode::DiskFull) => Self::no_space(error),
                _ => Self::failed(error),
            },
        }
    }
}

/// A row, or nothing if a value in it is unreadable: that loses the row, and not the account
/// (JID-6). That the database cannot be read is another matter (BIND-13).
fn readable<T>(row: rusqlite::Result<T>) -> Result<Option<T>, Refusal> {
    match row {
        Ok(row) => Ok(Some(row)),
        Err(
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::Utf8Error(..),
        ) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Since 1970, negative before it.
fn microseconds(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |n| -n),
    }
}

/// A value in a column.
struct Column<T>(T);

impl FromSql for Column<SystemTime> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let stored = value.as_i64()?;
        let distance = Duration::from_micros(stored.unsigned_abs());
        let time = match stored {
            0.. => UNIX_EPOCH.checked_add(distance),
            _ => UNIX_EPOCH.checked_sub(distance),
        };
        time.map(Self).ok_or(FromSqlError::OutOfRange(stored))
    }
}

/// The address of a text, if that is how it is written now.
fn address(text: &str) -> Option<BareJid> {
    crate::address::bare(text).ok().filter(|jid| jid.as_str() == text)
}
