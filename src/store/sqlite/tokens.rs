//! What is kept of tokens: a row for each client, and one for each token in a slot.

use jid::BareJid;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Column, Refusal, Sqlite, microseconds, readable};
use crate::store::{ClientKey, ClientTokens, Revision, StoreFuture, Token, TokenStore};

const CURRENT: &str = "current";
const NEW: &str = "new";

pub(super) const CLIENT: &str = "SELECT revision, nonce, last, software, device, used, client
    FROM token_client WHERE account = ?1 AND client = ?2";
pub(super) const TOKEN: &str = "SELECT number, mechanism, issued, expiry, count, credentials
    FROM token WHERE account = ?1 AND client = ?2 AND slot = ?3";

impl TokenStore for Sqlite {
    fn client(&self, account: &BareJid, client: &ClientKey) -> StoreFuture<Option<ClientTokens>> {
        let client = *client;
        self.reader.about(account, move |db, account| {
            let key = client.as_bytes();
            let record = db
                .prepare_cached(CLIENT)?
                .query_row(params![account, key], |row| Ok(readable(record(row))))
                .optional()?;
            // SASL-7: all of it, whether there is such a client or not.
            let (current, new) =
                (token(db, account, &client, CURRENT)?, token(db, account, &client, NEW)?);
            let record = record.transpose()?.flatten();
            Ok(record.map(|(_, tokens)| ClientTokens { current, new, ..tokens }))
        })
    }

    fn clients(&self, account: &BareJid) -> StoreFuture<Vec<(ClientKey, ClientTokens)>> {
        self.reader.about(account, move |db, account| {
            let mut statement = db.prepare_cached(
                "SELECT revision, nonce, last, software, device, used, client
                 FROM token_client WHERE account = ?1",
            )?;
            let mut rows = statement.query([account])?;
            let mut clients = Vec::new();
            while let Some(row) = rows.next()? {
                let Some((client, mut tokens)) = readable(record(row))? else { continue };
                tokens.current = token(db, account, &client, CURRENT)?;
                tokens.new = token(db, account, &client, NEW)?;
                clients.push((client, tokens));
            }
            Ok(clients)
        })
    }

    fn replace(
        &self,
        account: &BareJid,
        client: &ClientKey,
        found: Option<Revision>,
        tokens: Option<ClientTokens>,
    ) -> StoreFuture<bool> {
        let client = *client;
        self.writer.about(account, move |db, account| {
            let key = client.as_bytes();
            let revision = db
                .prepare_cached(
                    "SELECT revision FROM token_client WHERE account = ?1 AND client = ?2",
                )?
                .query_row(params![account, key], |row| row.get(0))
                .optional()?;
            if revision.map(|revision: i64| Revision::new(revision.cast_unsigned())) != found {
                return Ok(false);
            }
            for table in [
                "DELETE FROM token WHERE account = ?1 AND client = ?2",
                "DELETE FROM token_client WHERE account = ?1 AND client = ?2",
            ] {
                db.prepare_cached(table)?.execute(params![account, key])?;
            }
            if let Some(tokens) = &tokens {
                insert(db, account, &client, tokens)?;
            }
            Ok(true)
        })
    }

    fn clear(&self, account: &BareJid) -> StoreFuture<()> {
        self.delete(
            account,
            &[
                "DELETE FROM token WHERE account = ?1",
                "DELETE FROM token_client WHERE account = ?1",
            ],
        )
    }
}

fn insert(
    db: &Connection,
    account: &str,
    client: &ClientKey,
    tokens: &ClientTokens,
) -> rusqlite::Result<()> {
    let key = client.as_bytes();
    db.prepare_cached(
        "INSERT INTO token_client (account, client, revision, nonce, last, software, device, used)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![
        account,
        key,
        tokens.revision.get().cast_signed(),
        tokens.nonce,
        tokens.last.cast_signed(),
        tokens.software,
        tokens.device,
        microseconds(tokens.used)
    ])?;
    for (slot, token) in [(CURRENT, &tokens.current), (NEW, &tokens.new)] {
        let Some(token) = token else { continue };
        db.prepare_cached(
            "INSERT INTO token
             (account, client, slot, number, mechanism, issued, expiry, count, credentials)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            account,
            key,
            slot,
            token.number.cast_signed(),
            token.mechanism,
            microseconds(token.issued),
            microseconds(token.expiry),
            token.count.cast_signed(),
            token.credentials
        ])?;
    }
    Ok(())
}

fn record(row: &Row<'_>) -> rusqlite::Result<(ClientKey, ClientTokens)> {
    let Column(used) = row.get(5)?;
    let mut tokens = ClientTokens::new(Revision::new(number(row, 0)?), row.get(1)?, used);
    tokens.last = number(row, 2)?;
    (tokens.software, tokens.device) = (row.get(3)?, row.get(4)?);
    Ok((ClientKey::from_bytes(row.get(6)?), tokens))
}

fn token(
    db: &Connection,
    account: &str,
    client: &ClientKey,
    slot: &str,
) -> Result<Option<Token>, Refusal> {
    let token = |row: &Row<'_>| {
        let (Column(issued), Column(expiry)) = (row.get(2)?, row.get(3)?);
        let mut token = Token::new(number(row, 0)?, row.get(1)?, issued, expiry, row.get(5)?);
        token.count = number(row, 4)?;
        Ok(token)
    };
    let found = db
        .prepare_cached(TOKEN)?
        .query_row(params![account, client.as_bytes(), slot], |row| Ok(readable(token(row))))
        .optional()?;
    Ok(found.transpose()?.flatten())
}

fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get(column).map(i64::cast_unsigned)
}
