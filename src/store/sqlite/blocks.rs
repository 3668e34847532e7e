//! Block lists.

use jid::{BareJid, Jid};

use super::{Column, Sqlite};
use crate::store::{BlockStore, StoreFuture};

impl BlockStore for Sqlite {
    fn load(&self, account: &BareJid) -> StoreFuture<Vec<Jid>> {
        let account = account.clone();
        self.reader.call(move |db| {
            let mut statement = db.prepare_cached("SELECT jid FROM blocked WHERE account = ?1")?;
            let rows = statement
                .query_map([account.as_str()], |row| Ok(row.get::<_, Column<Jid>>(0)?.0))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    fn apply(&self, account: &BareJid, added: Vec<Jid>, removed: Vec<Jid>) -> StoreFuture<()> {
        let account = account.clone();
        self.writer.call(move |db| {
            let change = |sql, jids: &[Jid]| {
                let mut statement = db.prepare_cached(sql)?;
                jids.iter().try_for_each(|jid| {
                    statement.execute([account.as_str(), jid.as_str()]).map(drop)
                })
            };
            change("DELETE FROM blocked WHERE account = ?1 AND jid = ?2", &removed)?;
            change("INSERT OR IGNORE INTO blocked (account, jid) VALUES (?1, ?2)", &added)?;
            Ok(())
        })
    }

    fn clear(&self, account: &BareJid) -> StoreFuture<()> {
        let account = account.clone();
        self.writer.call(move |db| {
            db.prepare_cached("DELETE FROM blocked WHERE account = ?1")?
                .execute([account.as_str()])?;
            Ok(())
        })
    }
}
