//! Accounts: SCRAM keys, no passwords.

use std::future::ready;
use std::sync::Arc;

use jid::BareJid;
use rusqlite::{Connection, OptionalExtension, params};

use super::{Refusal, Sqlite};
use crate::store::{
    AccountStore, Credentials, ScramHash, ScramKeys, StoreFuture, TokenStore, made,
};

pub(super) const DISABLED: &str = "SELECT disabled FROM account WHERE jid = ?1";
pub(super) const KEYS: &str = "SELECT salt, iterations, stored_key, server_key FROM scram_keys
    WHERE account = ?1 AND hash = ?2";

impl AccountStore for Sqlite {
    fn credentials(&self, account: &BareJid) -> StoreFuture<Option<Credentials>> {
        self.reader.about(account, move |db, account| Ok(credentials(db, account)?))
    }

    fn exists(&self, account: &BareJid) -> StoreFuture<bool> {
        self.reader.about(account, move |db, account| {
            Ok(db.prepare_cached(DISABLED)?.exists([account])?)
        })
    }

    fn set_credentials(&self, account: &BareJid, credentials: Credentials) -> StoreFuture<()> {
        let account = match made(account) {
            Ok(account) => account,
            Err(error) => return Box::pin(ready(Err(error))),
        };
        self.writer.about(&account, move |db, account| {
            remove(db, account)?;
            db.prepare_cached("INSERT INTO account (jid, disabled) VALUES (?1, ?2)")?
                .execute(params![account, credentials.disabled])?;
            for hash in ScramHash::ALL {
                if let Some(keys) = credentials.keys(hash) {
                    insert(db, account, hash, keys)?;
                }
            }
            Ok(())
        })
    }

    fn adds_keys(&self) -> bool {
        true
    }

    fn add_keys(
        &self,
        account: &BareJid,
        proved: (ScramHash, ScramKeys),
        (hash, added): (ScramHash, ScramKeys),
    ) -> StoreFuture<bool> {
        self.writer.about(account, move |db, account| {
            let Some(mut credentials) = credentials(db, account)? else { return Ok(false) };
            if !credentials.upgrade(&proved, (hash, added.clone())) {
                return Ok(false);
            }
            // Keys that can let nobody in may be there, or those that another client has brought.
            if let Some(keys) = credentials.keys(hash) {
                db.prepare_cached("DELETE FROM scram_keys WHERE account = ?1 AND hash = ?2")?
                    .execute([account, hash.as_str()])?;
                insert(db, account, hash, keys)?;
            }
            Ok(true)
        })
    }

    fn remove(&self, account: &BareJid) -> StoreFuture<bool> {
        self.writer.about(account, remove)
    }

    fn tokens(self: Arc<Self>) -> Option<Arc<dyn TokenStore>> {
        Some(self)
    }
}

fn credentials(db: &Connection, account: &str) -> rusqlite::Result<Option<Credentials>> {
    // SASL-7: all of it, whether there is such an account or not.
    let disabled =
        db.prepare_cached(DISABLED)?.query_row([account], |row| row.get(0)).optional()?;
    let mut credentials = Credentials::new();
    for hash in ScramHash::ALL {
        if let Some(keys) = keys(db, account, hash)? {
            credentials = credentials.with_keys(hash, keys);
        }
    }
    Ok(disabled.map(|disabled| Credentials { disabled, ..credentials }))
}

fn insert(
    db: &Connection,
    account: &str,
    hash: ScramHash,
    keys: &ScramKeys,
) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO scram_keys
         (account, hash, salt, iterations, stored_key, server_key)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![
        account,
        hash.as_str(),
        keys.salt,
        keys.iterations,
        keys.stored_key,
        keys.server_key
    ])?;
    Ok(())
}

fn keys(db: &Connection, account: &str, hash: ScramHash) -> rusqlite::Result<Option<ScramKeys>> {
    db.prepare_cached(KEYS)?
        .query_row([account, hash.as_str()], |row| {
            Ok(ScramKeys {
                salt: row.get(0)?,
                iterations: row.get(1)?,
                stored_key: row.get(2)?,
                server_key: row.get(3)?,
            })
        })
        .optional()
}

fn remove(db: &Connection, account: &str) -> Result<bool, Refusal> {
    db.prepare_cached("DELETE FROM scram_keys WHERE account = ?1")?.execute([account])?;
    let removed = db.prepare_cached("DELETE FROM account WHERE jid = ?1")?.execute([account])?;
    Ok(removed > 0)
}
