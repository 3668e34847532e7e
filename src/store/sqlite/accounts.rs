//! Accounts: SCRAM keys, no passwords.

use std::future::ready;
use std::sync::Arc;

use jid::BareJid;
use rusqlite::{Connection, OptionalExtension, params};

use super::{Refusal, Sqlite};
use crate::store::{AccountStore, Credentials, ScramKeys, StoreFuture, TokenStore, made};

const SHA_1: &str = "SHA-1";
const SHA_256: &str = "SHA-256";

pub(super) const DISABLED: &str = "SELECT disabled FROM account WHERE jid = ?1";
pub(super) const KEYS: &str = "SELECT salt, iterations, stored_key, server_key FROM scram_keys
    WHERE account = ?1 AND hash = ?2";

impl AccountStore for Sqlite {
    fn credentials(&self, account: &BareJid) -> StoreFuture<Option<Credentials>> {
        self.reader.about(account, move |db, account| {
            // SASL-7: all of it, whether there is such an account or not.
            let disabled =
                db.prepare_cached(DISABLED)?.query_row([account], |row| row.get(0)).optional()?;
            let (scram_sha_1, scram_sha_256) =
                (keys(db, account, SHA_1)?, keys(db, account, SHA_256)?);
            Ok(disabled.map(|disabled| Credentials { scram_sha_1, scram_sha_256, disabled }))
        })
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
            let hashes = [(SHA_1, &credentials.scram_sha_1), (SHA_256, &credentials.scram_sha_256)];
            for (hash, keys) in hashes {
                let Some(keys) = keys else { continue };
                db.prepare_cached(
                    "INSERT INTO scram_keys
                     (account, hash, salt, iterations, stored_key, server_key)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                )?
                .execute(params![
                    account,
                    hash,
                    keys.salt,
                    keys.iterations,
                    keys.stored_key,
                    keys.server_key
                ])?;
            }
            Ok(())
        })
    }

    fn remove(&self, account: &BareJid) -> StoreFuture<bool> {
        self.writer.about(account, remove)
    }

    fn tokens(self: Arc<Self>) -> Option<Arc<dyn TokenStore>> {
        Some(self)
    }
}

fn keys(db: &Connection, account: &str, hash: &str) -> rusqlite::Result<Option<ScramKeys>> {
    db.prepare_cached(KEYS)?
        .query_row([account, hash], |row| {
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
