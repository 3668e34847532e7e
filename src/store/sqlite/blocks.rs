//! Block lists.

use jid::BareJid;

use super::Sqlite;
use crate::store::{BlockStore, StoreFuture};

impl BlockStore for Sqlite {
    fn load(&self, account: &BareJid) -> StoreFuture<Vec<String>> {
        self.reader.about(account, move |db, account| {
            let mut statement = db.prepare_cached("SELECT jid FROM blocked WHERE account = ?1")?;
            let mut rows = statement.query([account])?;
            let mut jids = Vec::new();
            while let Some(row) = rows.next()? {
                // Text that is no text (JID-6): no JID has it, so it blocks nobody.
                jids.extend(row.get::<_, String>(0).ok());
            }
            Ok(jids)
        })
    }

    fn apply(
        &self,
        account: &BareJid,
        added: Vec<String>,
        removed: Vec<String>,
    ) -> StoreFuture<()> {
        self.writer.about(account, move |db, account| {
            let change = |sql, jids: &[String]| {
                let mut statement = db.prepare_cached(sql)?;
                jids.iter().try_for_each(|jid| statement.execute([account, jid.as_str()]).map(drop))
            };
            change("DELETE FROM blocked WHERE account = ?1 AND jid = ?2", &removed)?;
            change("INSERT OR IGNORE INTO blocked (account, jid) VALUES (?1, ?2)", &added)?;
            Ok(())
        })
    }

    fn clear(&self, account: &BareJid) -> StoreFuture<()> {
        self.delete(account, &["DELETE FROM blocked WHERE account = ?1"])
    }
}
