//! Offline messages.

use jid::BareJid;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{Connection, Row, params};

use super::{Column, Refusal, Sqlite, microseconds, readable};
use crate::store::{OfflineId, OfflineMessage, OfflineStore, StoreFuture};

impl OfflineStore for Sqlite {
    fn push(&self, account: &BareJid, message: OfflineMessage) -> StoreFuture<()> {
        let limits = self.offline_limits;
        self.writer.about(account, move |db, account| {
            let (messages, bytes) = usage(db, account)?;
            if !limits.allow(messages, bytes, message.stanza.len()) {
                return Err(Refusal::Full);
            }
            let bytes = i64::try_from(message.stanza.len()).unwrap_or(i64::MAX);
            db.prepare_cached(
                "INSERT INTO offline_message (account, received, bytes, stanza)
                 VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![
                account,
                microseconds(message.received),
                bytes,
                &*message.stanza
            ])?;
            Ok(())
        })
    }

    fn list(&self, account: &BareJid) -> StoreFuture<Vec<(OfflineId, OfflineMessage)>> {
        self.reader.about(account, move |db, account| {
            let mut statement = db.prepare_cached(
                "SELECT id, received, stanza FROM offline_message WHERE account = ?1 ORDER BY id",
            )?;
            let message = |row: &Row<'_>| {
                let Column(received) = row.get(1)?;
                let message = OfflineMessage::new(row.get::<_, Vec<u8>>(2)?, received);
                Ok((row.get::<_, Column<_>>(0)?.0, message))
            };
            let mut rows = statement.query([account])?;
            let mut messages = Vec::new();
            while let Some(row) = rows.next()? {
                messages.extend(readable(message(row))?);
            }
            Ok(messages)
        })
    }

    fn remove(&self, account: &BareJid, ids: Vec<OfflineId>) -> StoreFuture<()> {
        self.writer.about(account, move |db, account| {
            let mut delete =
                db.prepare_cached("DELETE FROM offline_message WHERE id = ?1 AND account = ?2")?;
            // An id that is no positive integer of SQLite's is none of this store's.
            for id in ids.iter().filter_map(|id| i64::try_from(id.get()).ok()) {
                delete.execute(params![id, account])?;
            }
            Ok(())
        })
    }

    fn count(&self, account: &BareJid) -> StoreFuture<usize> {
        self.reader.about(account, move |db, account| Ok(usage(db, account)?.0))
    }

    fn clear(&self, account: &BareJid) -> StoreFuture<()> {
        self.delete(account, &["DELETE FROM offline_message WHERE account = ?1"])
    }
}

/// Messages and bytes that wait for the account.
fn usage(db: &Connection, account: &str) -> rusqlite::Result<(usize, usize)> {
    let sizes = "SELECT count(*), coalesce(sum(bytes), 0) FROM offline_message WHERE account = ?1";
    db.prepare_cached(sizes)?.query_row([account], |row| {
        let size = |column| row.get(column).map(|n: i64| usize::try_from(n).unwrap_or(usize::MAX));
        Ok((size(0)?, size(1)?))
    })
}

impl FromSql for Column<OfflineId> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let stored = value.as_i64()?;
        let id = u64::try_from(stored).map_err(|_| FromSqlError::OutOfRange(stored))?;
        Ok(Self(OfflineId::new(id)))
    }
}
