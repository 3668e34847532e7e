//! Accounts: SCRAM keys, no passwords.

use std::future::ready;
use std::sync::Arc;

use jid::BareJid;
use tokio_postgres::Row;

use super::Postgres;
use super::call::{Kind, any, first, values};
use super::text::key;
use crate::store::{
    AccountStore, Credentials, ScramHash, ScramKeys, StoreError, StoreFuture, TokenStore, made,
};

/// Both indexes are asked, whether there is such an account or not (SASL-7).
const CREDENTIALS: &str =
    "SELECT disabled, NULL::text, NULL::bytea, 0::bigint, NULL::bytea, NULL::bytea
        FROM account WHERE jid = $1
    UNION ALL SELECT NULL, hash, salt, iterations, stored_key, server_key
        FROM scram_keys WHERE account = $1";

const ADD: &str = "INSERT INTO scram_keys (account, hash, salt, iterations, stored_key, server_key)
    VALUES ($1, $2, $3, $4, $5, $6)";

impl AccountStore for Postgres {
    fn credentials(&self, account: &BareJid) -> StoreFuture<Option<Credentials>> {
        let ask = self.anybodys(Kind::Read, &[account]);
        ask.step(CREDENTIALS, values![key(account.as_str())]).call(|rows| credentials(first(rows)))
    }

    fn exists(&self, account: &BareJid) -> StoreFuture<bool> {
        let sql = "SELECT 1 FROM account WHERE jid = $1";
        self.anybodys(Kind::Read, &[account]).step(sql, values![key(account.as_str())]).call(any)
    }

    fn set_credentials(&self, account: &BareJid, credentials: Credentials) -> StoreFuture<()> {
        let account = match made(account) {
            Ok(account) => account,
            Err(error) => return Box::pin(ready(Err(error))),
        };
        let jid = key(account.as_str());
        let mut ask = self
            .write(&[&account])
            .step(
                "INSERT INTO account (jid, disabled) VALUES ($1, $2)
                 ON CONFLICT (jid) DO UPDATE SET disabled = excluded.disabled",
                values![jid.clone(), credentials.disabled],
            )
            .step("DELETE FROM scram_keys WHERE account = $1", values![jid.clone()]);
        for hash in ScramHash::ALL {
            if let Some(keys) = credentials.keys(hash) {
                ask = ask.step(
                    ADD,
                    values![
                        jid.clone(),
                        hash.as_str(),
                        keys.salt.clone(),
                        i64::from(keys.iterations),
                        keys.stored_key.clone(),
                        keys.server_key.clone(),
                    ],
                );
            }
        }
        ask.done()
    }

    fn adds_keys(&self) -> bool {
        true
    }

    fn add_keys(
        &self,
        account: &BareJid,
        (proved, of): (ScramHash, ScramKeys),
        (hash, added): (ScramHash, ScramKeys),
    ) -> StoreFuture<bool> {
        let length = i32::try_from(hash.output_len()).unwrap_or_default();
        // What is there stays where it fits its hash function: another client has brought it.
        let sql = "WITH proved AS (
                SELECT jid FROM account JOIN scram_keys ON account = jid
                WHERE jid = $1 AND NOT disabled AND hash = $2 AND salt = $3 AND iterations = $4
                    AND stored_key = $5 AND server_key = $6
            ), added AS (
                INSERT INTO scram_keys (account, hash, salt, iterations, stored_key, server_key)
                SELECT jid, $7, $8, $9, $10, $11 FROM proved
                ON CONFLICT (account, hash) DO UPDATE SET salt = excluded.salt,
                    iterations = excluded.iterations, stored_key = excluded.stored_key,
                    server_key = excluded.server_key
                WHERE scram_keys.iterations = 0 OR length(scram_keys.salt) = 0
                    OR length(scram_keys.stored_key) <> $12
                    OR length(scram_keys.server_key) <> $12
            ) SELECT 1 FROM proved";
        let values = values![
            key(account.as_str()),
            proved.as_str(),
            of.salt,
            i64::from(of.iterations),
            of.stored_key,
            of.server_key,
            hash.as_str(),
            added.salt,
            i64::from(added.iterations),
            added.stored_key,
            added.server_key,
            length,
        ];
        self.anybodys(Kind::Write, &[account]).step(sql, values).call(any)
    }

    fn remove(&self, account: &BareJid) -> StoreFuture<bool> {
        let jid = key(account.as_str());
        self.write(&[account])
            .step("DELETE FROM account WHERE jid = $1 RETURNING 1", values![jid.clone()])
            .step("DELETE FROM scram_keys WHERE account = $1", values![jid])
            .call(any)
    }

    fn tokens(self: Arc<Self>) -> Option<Arc<dyn TokenStore>> {
        Some(self)
    }
}

fn credentials(rows: Vec<Row>) -> Result<Option<Credentials>, StoreError> {
    let mut credentials = Credentials::new();
    let mut disabled = None;
    for row in rows {
        let hash: Option<String> = row.try_get(1).map_err(StoreError::failed)?;
        let Some(hash) = hash else {
            disabled = row.try_get(0).map_err(StoreError::failed)?;
            continue;
        };
        let hash = ScramHash::ALL.into_iter().find(|known| known.as_str() == hash);
        if let Some(hash) = hash {
            credentials = credentials.with_keys(hash, keys(&row)?);
        }
    }
    Ok(disabled.map(|disabled| Credentials { disabled, ..credentials }))
}

fn keys(row: &Row) -> Result<ScramKeys, StoreError> {
    let get = |column| row.try_get(column).map_err(StoreError::failed);
    let iterations: i64 = row.try_get(3).map_err(StoreError::failed)?;
    Ok(ScramKeys {
        salt: get(2)?,
        iterations: u32::try_from(iterations).map_err(StoreError::failed)?,
        stored_key: get(4)?,
        server_key: get(5)?,
    })
}
