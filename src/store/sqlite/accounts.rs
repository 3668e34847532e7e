//! Accounts: SCRAM keys, no passwords.

use std::future::ready;

use jid::BareJid;
use rusqlite::{Connection, OptionalExtension, params};

use super::{Refusal, Sqlite};
use crate::store::{AccountStore, Credentials, ScramKeys, StoreFuture, made};

const SHA_1: &str = "SHA-1";
const SHA_256: &str = "SHA-256";

impl AccountStore for Sqlite {
    fn credentials(&self, account: &BareJid) -> StoreFuture<Option<Credentials>> {
        let account = account.clone();
        self.reader.call(move |db| {
            let disabled = db
                .prepare_cached("SELECT disabled FROM account WHERE jid = ?1")?
                .query_row([account.as_str()], |row| row.get(0))
                .optional()?;
            let Some(disabled) = disabled else { return Ok(None) };
            let (scram_sha_1, scram_sha_256) =
                (keys(db, &account, SHA_1)?, keys(db, &account, SHA_256)?);
            Ok(Some(Credentials { scram_sha_1, scram_sha_256, disabled }))
        })
    }

    fn set_credentials(&self, account: &BareJid, credentials: Credentials) -> StoreFuture<()> {
        let account = match made(account) {
            Ok(account) => account,
            Err(error) => return Box::pin(ready(Err(error))),
        };
        self.writer.call(move |db| {
            remove(db, &account)?;
            db.prepare_cached("INSERT INTO account (jid, disabled) VALUES (?1, ?2)")?
                .execute(params![account.as_str(), credentials.disabled])?;
            let hashes = [(SHA_1, &credentials.scram_sha_1), (SHA_256, &credentials.scram_sha_256)];
            for (hash, keys) in hashes {
                let Some(keys) = keys else { continue };
                db.prepare_cached(
                    "INSERT INTO scram_keys
                     (account, hash, salt, iterations, stored_key, server_key)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                )?
                .execute(params![
                    account.as_str(),
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
        let account = account.clone();
        self.writer.call(move |db| remove(db, &account))
    }
}

fn keys(db: &Connection, account: &BareJid, hash: &str) -> rusqlite::Result<Option<ScramKeys>> {
    db.prepare_cached(
        "SELECT salt, iterations, stored_key, server_key FROM scram_keys
         WHERE account = ?1 AND hash = ?2",
    )?
    .query_row([account.as_str(), hash], |row| {
        Ok(ScramKeys {
            salt: row.get(0)?,
            iterations: row.get(1)?,
            stored_key: row.get(2)?,
            server_key: row.get(3)?,
        })
    })
    .optional()
}

fn remove(db: &Connection, account: &BareJid) -> Result<bool, Refusal> {
    let account = [account.as_str()];
    db.prepare_cached("DELETE FROM scram_keys WHERE account = ?1")?.execute(account)?;
    let removed = db.prepare_cached("DELETE FROM account WHERE jid = ?1")?.execute(account)?;
    Ok(removed > 0)
}
