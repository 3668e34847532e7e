//! Offline messages.

use jid::BareJid;
use tokio_postgres::Row;

use super::call::{first, values};
use super::text::key;
use super::{Postgres, microseconds, time};
use crate::store::{OfflineId, OfflineMessage, OfflineStore, StoreError, StoreFuture};

impl OfflineStore for Postgres {
    fn push(&self, account: &BareJid, message: OfflineMessage) -> StoreFuture<()> {
        let number = |number| i64::try_from(number).unwrap_or(i64::MAX);
        let limits = self.offline_limits;
        // Right because nobody else pushes to the account meanwhile: the call is alone with it.
        let sql = "INSERT INTO offline_message (account, received, bytes, stanza)
            SELECT $1, $2, $3::bigint, $4 FROM (
                SELECT count(*) AS messages, coalesce(sum(bytes), 0) AS bytes
                FROM offline_message WHERE account = $1
            ) AS waiting WHERE messages < $5::bigint AND bytes + $3::bigint <= $6::bigint
            RETURNING 1";
        let values = values![
            key(account.as_str()),
            microseconds(message.received),
            number(message.stanza.len()),
            message.stanza.to_vec(),
            number(limits.messages),
            number(limits.bytes),
        ];
        self.write(&[account]).step(sql, values).call(|rows| match &*first(rows) {
            [] => Err(StoreError::Full),
            _ => Ok(()),
        })
    }

    fn list(&self, account: &BareJid) -> StoreFuture<Vec<(OfflineId, OfflineMessage)>> {
        let sql = "SELECT id, received, stanza FROM offline_message WHERE account = $1 ORDER BY id";
        self.read(account).step(sql, values![key(account.as_str())]).call(|rows| {
            let mut messages = Vec::new();
            for row in first(rows) {
                messages.extend(message(&row).map_err(StoreError::failed)?);
            }
            Ok(messages)
        })
    }

    fn remove(&self, account: &BareJid, ids: Vec<OfflineId>) -> StoreFuture<()> {
        // An id that is no positive integer of the database's is none of this store's.
        let ids: Vec<_> = ids.iter().filter_map(|id| i64::try_from(id.get()).ok()).collect();
        let sql = "DELETE FROM offline_message WHERE account = $1 AND id = ANY($2)";
        self.write(&[account]).step(sql, values![key(account.as_str()), ids]).done()
    }

    fn count(&self, account: &BareJid) -> StoreFuture<usize> {
        let sql = "SELECT count(*) FROM offline_message WHERE account = $1";
        self.read(account).step(sql, values![key(account.as_str())]).call(|rows| {
            let Some(row) = first(rows).into_iter().next() else { return Ok(0) };
            let count: i64 = row.try_get(0).map_err(StoreError::failed)?;
            Ok(usize::try_from(count).unwrap_or(usize::MAX))
        })
    }

    fn clear(&self, account: &BareJid) -> StoreFuture<()> {
        let sql = "DELETE FROM offline_message WHERE account = $1";
        self.write(&[account]).step(sql, values![key(account.as_str())]).done()
    }
}

/// `None` where a value has no meaning: that costs the message, and not the account (JID-6).
fn message(row: &Row) -> Result<Option<(OfflineId, OfflineMessage)>, tokio_postgres::Error> {
    let (id, received): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    let stanza: Vec<u8> = row.try_get(2)?;
    let read = u64::try_from(id).ok().zip(time(received));
    Ok(read.map(|(id, received)| (OfflineId::new(id), OfflineMessage::new(stanza, received))))
}
