//! Block lists.

use jid::BareJid;

use super::Postgres;
use super::call::{first, values};
use super::text::{self, Key, key};
use crate::store::{BlockStore, StoreError, StoreFuture};

impl BlockStore for Postgres {
    fn load(&self, account: &BareJid) -> StoreFuture<Vec<String>> {
        let sql = "SELECT coalesce(whole, jid) FROM blocked WHERE account = $1";
        self.read(account).step(sql, values![key(account.as_str())]).call(|rows| {
            let jid = |row: tokio_postgres::Row| row.try_get(0).map(text::read);
            first(rows).into_iter().map(jid).collect::<Result<_, _>>().map_err(StoreError::failed)
        })
    }

    fn apply(
        &self,
        account: &BareJid,
        added: Vec<String>,
        removed: Vec<String>,
    ) -> StoreFuture<()> {
        let account_key = key(account.as_str());
        let mut ask = self.write(&[account]);
        if !removed.is_empty() {
            let removed: Vec<_> = removed.iter().map(|jid| key(jid)).collect();
            let sql = "DELETE FROM blocked WHERE account = $1 AND jid = ANY($2)";
            ask = ask.step(sql, values![account_key.clone(), removed]);
        }
        if !added.is_empty() {
            let (keys, wholes): (Vec<_>, Vec<_>) = added
                .iter()
                .map(|jid| {
                    let Key { key, whole } = Key::new(jid);
                    (key, whole)
                })
                .unzip();
            let sql = "INSERT INTO blocked (account, jid, whole)
                SELECT $1, added.* FROM unnest($2::text[], $3::text[]) AS added
                ON CONFLICT DO NOTHING";
            ask = ask.step(sql, values![account_key, keys, wholes]);
        }
        ask.done()
    }

    fn clear(&self, account: &BareJid) -> StoreFuture<()> {
        let sql = "DELETE FROM blocked WHERE account = $1";
        self.write(&[account]).step(sql, values![key(account.as_str())]).done()
    }
}
