//! What is kept of tokens: a row for each client, with the two that it may have.

use jid::BareJid;
use tokio_postgres::{Error, Row};

use super::call::{Kind, any, first, values};
use super::text::{self, key, text as written};
use super::{Postgres, microseconds, time};
use crate::store::{ClientKey, ClientTokens, Revision, StoreError, StoreFuture, Token, TokenStore};

macro_rules! columns {
    () => {
        "revision, nonce, last, software, device, used,
        current_number, current_mechanism, current_issued, current_expiry, current_count,
        current_credentials,
        new_number, new_mechanism, new_issued, new_expiry, new_count, new_credentials"
    };
}

const CLIENT: &str =
    concat!("SELECT client, ", columns!(), " FROM token_client WHERE account = $1 AND client = $2");
const CLIENTS: &str =
    concat!("SELECT client, ", columns!(), " FROM token_client WHERE account = $1");
const ADD: &str = concat!(
    "INSERT INTO token_client (account, client, ",
    columns!(),
    ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)
    ON CONFLICT DO NOTHING RETURNING 1"
);
const REPLACE: &str = concat!(
    "UPDATE token_client SET (",
    columns!(),
    ") = ($3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)
    WHERE account = $1 AND client = $2 AND revision = $21 RETURNING 1"
);
const REMOVE: &str =
    "DELETE FROM token_client WHERE account = $1 AND client = $2 AND revision = $3 RETURNING 1";
const IS_NOT_THERE: &str =
    "SELECT 1 WHERE NOT EXISTS (SELECT FROM token_client WHERE account = $1 AND client = $2)";

impl TokenStore for Postgres {
    fn client(&self, account: &BareJid, client: &ClientKey) -> StoreFuture<Option<ClientTokens>> {
        let keys = values![key(account.as_str()), client.as_bytes().to_vec()];
        self.anybodys(Kind::Read, &[account]).step(CLIENT, keys).call(|rows| {
            let found = first(rows).first().map(record).transpose().map_err(StoreError::failed)?;
            Ok(found.flatten().map(|(_, tokens)| tokens))
        })
    }

    fn clients(&self, account: &BareJid) -> StoreFuture<Vec<(ClientKey, ClientTokens)>> {
        let keys = values![key(account.as_str())];
        self.anybodys(Kind::Read, &[account]).step(CLIENTS, keys).call(|rows| {
            let mut clients = Vec::new();
            for row in first(rows) {
                clients.extend(record(&row).map_err(StoreError::failed)?);
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
        let mut keys = values![key(account.as_str()), client.as_bytes().to_vec()];
        let found = found.map(|found| found.get().cast_signed());
        let sql = match (found, tokens) {
            (None, None) => IS_NOT_THERE,
            (Some(found), None) => {
                keys.push(Box::new(found));
                REMOVE
            }
            (found, Some(tokens)) => {
                let [current, new] = [tokens.current, tokens.new];
                keys.append(&mut values![
                    tokens.revision.get().cast_signed(),
                    tokens.nonce.to_vec(),
                    tokens.last.cast_signed(),
                    tokens.software.as_deref().map(written),
                    tokens.device.as_deref().map(written),
                    microseconds(tokens.used),
                ]);
                for token in [current, new] {
                    let token = token.as_ref();
                    keys.append(&mut values![
                        token.map(|token| token.number.cast_signed()),
                        token.map(|token| written(&token.mechanism)),
                        token.map(|token| microseconds(token.issued)),
                        token.map(|token| microseconds(token.expiry)),
                        token.map(|token| token.count.cast_signed()),
                        token.map(|token| token.credentials.clone()),
                    ]);
                }
                match found {
                    None => ADD,
                    Some(found) => {
                        keys.push(Box::new(found));
                        REPLACE
                    }
                }
            }
        };
        self.anybodys(Kind::Write, &[account]).step(sql, keys).call(any)
    }

    fn clear(&self, account: &BareJid) -> StoreFuture<()> {
        let sql = "DELETE FROM token_client WHERE account = $1";
        self.anybodys(Kind::Write, &[account]).step(sql, values![key(account.as_str())]).done()
    }
}

/// `None` where a value has no meaning (JID-6).
fn record(row: &Row) -> Result<Option<(ClientKey, ClientTokens)>, Error> {
    let (client, nonce): (Vec<u8>, Vec<u8>) = (row.try_get(0)?, row.try_get(2)?);
    let used = time(row.try_get(6)?);
    let (Ok(client), Ok(nonce), Some(used)) = (client.try_into(), nonce.try_into(), used) else {
        return Ok(None);
    };
    let revision = Revision::new(row.try_get::<_, i64>(1)?.cast_unsigned());
    let mut tokens = ClientTokens::new(revision, nonce, used);
    tokens.last = row.try_get::<_, i64>(3)?.cast_unsigned();
    tokens.software = row.try_get::<_, Option<String>>(4)?.map(text::read);
    tokens.device = row.try_get::<_, Option<String>>(5)?.map(text::read);
    (tokens.current, tokens.new) = (token(row, 7)?, token(row, 13)?);
    Ok(Some((ClientKey::from_bytes(client), tokens)))
}

/// The token whose columns begin there, if there is one that can be read.
fn token(row: &Row, at: usize) -> Result<Option<Token>, Error> {
    let number: Option<i64> = row.try_get(at)?;
    let mechanism: Option<String> = row.try_get(at + 1)?;
    let issued = row.try_get::<_, Option<i64>>(at + 2)?.and_then(time);
    let expiry = row.try_get::<_, Option<i64>>(at + 3)?.and_then(time);
    let count: Option<i64> = row.try_get(at + 4)?;
    let credentials: Option<Vec<u8>> = row.try_get(at + 5)?;
    let (Some(number), Some(mechanism), Some(issued), Some(expiry), Some(count), Some(credentials)) =
        (number, mechanism, issued, expiry, count, credentials)
    else {
        return Ok(None);
    };
    let mechanism = text::read(mechanism);
    let mut token = Token::new(number.cast_unsigned(), mechanism, issued, expiry, credentials);
    token.count = count.cast_unsigned();
    Ok(Some(token))
}
