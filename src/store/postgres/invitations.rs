//! Invitations: a row for each, under the digest of its token.

use std::sync::Arc;
use std::time::SystemTime;

use jid::BareJid;
use tokio_postgres::{Error, Row};

use super::call::{Ask, Kind, any, first, values};
use super::text::{self, Key, key, text as written};
use super::{Postgres, address, microseconds, time};
use crate::store::{InvitationStore, StoreError, StoreFuture, StoredInvitation};

impl Postgres {
    fn invitation(&self, kind: Kind, key: &str) -> Ask {
        Ask::new(Arc::clone(&self.pool), kind).alone_with("invitation", key)
    }
}

impl InvitationStore for Postgres {
    fn put(&self, key: &str, invitation: StoredInvitation) -> StoreFuture<()> {
        let sql = "INSERT INTO invitation (key, whole, domain, account, contact, expires)
            VALUES ($1, $2, $3, $4, $5, $6)
            ON CONFLICT (key) DO UPDATE SET domain = excluded.domain, account = excluded.account,
                contact = excluded.contact, expires = excluded.expires";
        let ask = self.invitation(Kind::Write, key);
        let Key { key, whole } = Key::new(key);
        let jid = |jid: Option<BareJid>| jid.map(|jid| written(jid.as_str()));
        let values = values![
            key,
            whole,
            written(invitation.domain.as_str()),
            jid(invitation.account),
            jid(invitation.contact),
            invitation.expires.map(microseconds),
        ];
        ask.step(sql, values).done()
    }

    fn get(&self, name: &str) -> StoreFuture<Option<StoredInvitation>> {
        let sql = "SELECT coalesce(whole, key), domain, account, contact, expires
            FROM invitation WHERE key = $1";
        self.invitation(Kind::Read, name).step(sql, values![key(name)]).call(|rows| {
            let found = first(rows).first().map(invitation).transpose();
            let found = found.map_err(StoreError::failed)?.flatten();
            Ok(found.map(|(_, invitation)| invitation))
        })
    }

    fn take(&self, name: &str) -> StoreFuture<bool> {
        let sql = "DELETE FROM invitation WHERE key = $1 RETURNING 1";
        self.invitation(Kind::Write, name).step(sql, values![key(name)]).call(any)
    }

    fn forget(&self, then: SystemTime) -> StoreFuture<()> {
        // Past those that are being taken.
        let sql = "DELETE FROM invitation WHERE key IN
            (SELECT key FROM invitation WHERE expires <= $1 FOR UPDATE SKIP LOCKED)";
        let ask = Ask::new(Arc::clone(&self.pool), Kind::Write);
        ask.step(sql, values![microseconds(then)]).done()
    }

    fn of_account(&self, account: &BareJid) -> StoreFuture<Vec<(String, StoredInvitation)>> {
        // No key of an index that may be too long: the hash of the text is.
        let sql = "SELECT coalesce(whole, key), domain, account, contact, expires
            FROM invitation WHERE account = $1";
        let ask = Ask::new(Arc::clone(&self.pool), Kind::Read);
        ask.step(sql, values![written(account.as_str())]).call(|rows| {
            let mut found = Vec::new();
            for row in first(rows) {
                found.extend(invitation(&row).map_err(StoreError::failed)?);
            }
            Ok(found)
        })
    }
}

/// All of it or nothing: one for an account that is unreadable is not one for any account.
fn invitation(row: &Row) -> Result<Option<(String, StoredInvitation)>, Error> {
    let (key, domain): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    let domain = text::read(domain);
    let normal = crate::address::domain(&domain).ok().filter(|normal| normal.as_str() == domain);
    let jid = |column| {
        let jid = row.try_get::<_, Option<String>>(column)?;
        Ok::<_, Error>(jid.map(|jid| address(&text::read(jid))))
    };
    let (account, contact) = (jid(2)?, jid(3)?);
    let expires = row.try_get::<_, Option<i64>>(4)?.map(time);
    let (Some(domain), Some(account), Some(contact), Some(expires)) =
        (normal, readable(account), readable(contact), readable(expires))
    else {
        return Ok(None);
    };
    let mut invitation = StoredInvitation::new(domain);
    (invitation.account, invitation.contact, invitation.expires) = (account, contact, expires);
    Ok(Some((text::read(key), invitation)))
}

/// `None` where there is a value that has no meaning.
fn readable<T>(value: Option<Option<T>>) -> Option<Option<T>> {
    match value {
        Some(None) => None,
        Some(read) => Some(read),
        None => Some(None),
    }
}
