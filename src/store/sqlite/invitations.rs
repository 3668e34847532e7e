//! Invitations: a row for each, under the digest of its token.

use std::time::SystemTime;

use jid::{BareJid, DomainPart};
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{OptionalExtension, Row, params};

use super::{Column, Sqlite, address, microseconds, readable};
use crate::store::{InvitationStore, StoreFuture, StoredInvitation};

impl InvitationStore for Sqlite {
    fn put(&self, key: &str, invitation: StoredInvitation) -> StoreFuture<()> {
        let key = key.to_owned();
        self.writer.call(move |db| {
            db.prepare_cached(
                "INSERT OR REPLACE INTO invitation (key, domain, account, contact, expires)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![
                key,
                invitation.domain.as_str(),
                invitation.account.as_ref().map(|account| account.as_str()),
                invitation.contact.as_ref().map(|contact| contact.as_str()),
                invitation.expires.map(microseconds)
            ])?;
            Ok(())
        })
    }

    fn get(&self, key: &str) -> StoreFuture<Option<StoredInvitation>> {
        let key = key.to_owned();
        self.reader.call(move |db| {
            let found = db
                .prepare_cached(
                    "SELECT key, domain, account, contact, expires FROM invitation WHERE key = ?1",
                )?
                .query_row([&key], |row| Ok(readable(invitation(row))))
                .optional()?;
            Ok(found.transpose()?.flatten().map(|(_, invitation)| invitation))
        })
    }

    fn take(&self, key: &str) -> StoreFuture<bool> {
        let key = key.to_owned();
        self.writer.call(move |db| {
            let mut delete = db.prepare_cached("DELETE FROM invitation WHERE key = ?1")?;
            Ok(delete.execute([&key])? > 0)
        })
    }

    fn forget(&self, then: SystemTime) -> StoreFuture<()> {
        self.writer.call(move |db| {
            db.prepare_cached("DELETE FROM invitation WHERE expires <= ?1")?
                .execute([microseconds(then)])?;
            Ok(())
        })
    }

    fn of_account(&self, account: &BareJid) -> StoreFuture<Vec<(String, StoredInvitation)>> {
        self.reader.about(account, move |db, account| {
            let mut statement = db.prepare_cached(
                "SELECT key, domain, account, contact, expires FROM invitation WHERE account = ?1",
            )?;
            let mut rows = statement.query([account])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.extend(readable(invitation(row))?);
            }
            Ok(found)
        })
    }
}

/// All of it or nothing: one for an account that is unreadable is not one for any account.
fn invitation(row: &Row<'_>) -> rusqlite::Result<(String, StoredInvitation)> {
    let Column(domain) = row.get(1)?;
    let mut invitation = StoredInvitation::new(domain);
    let jid = |column| {
        Ok::<_, rusqlite::Error>(row.get::<_, Option<Column<_>>>(column)?.map(|Column(jid)| jid))
    };
    (invitation.account, invitation.contact) = (jid(2)?, jid(3)?);
    invitation.expires = row.get::<_, Option<Column<_>>>(4)?.map(|Column(time)| time);
    Ok((row.get(0)?, invitation))
}

impl FromSql for Column<DomainPart> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let text = value.as_str()?;
        let domain = crate::address::domain(text).ok().filter(|domain| domain.as_str() == text);
        domain.map(Self).ok_or(FromSqlError::InvalidType)
    }
}

impl FromSql for Column<BareJid> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        address(value.as_str()?).map(Self).ok_or(FromSqlError::InvalidType)
    }
}
