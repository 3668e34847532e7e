//! Rosters and subscription requests.

use jid::BareJid;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{Connection, OptionalExtension, params};

use super::{Column, Refusal, Sqlite};
use crate::rules::roster::{Item, Subscription};
use crate::store::{RosterChange, RosterStore, StoreFuture, StoredRoster, SubscriptionRequest};

impl RosterStore for Sqlite {
    fn load(&self, account: &BareJid) -> StoreFuture<StoredRoster> {
        let account = account.clone();
        self.reader.call(move |db| {
            let version: Option<i64> = db
                .prepare_cached("SELECT version FROM roster WHERE account = ?1")?
                .query_row([account.as_str()], |row| row.get(0))
                .optional()?;
            let requests = requests(db, &account)?.into_iter().map(|request| request.from);
            Ok(StoredRoster {
                items: items(db, &account)?,
                // SQLite's integers have a sign: the same 64 bits, there and back.
                version: version.unwrap_or(0) as u64,
                requests: requests.collect(),
            })
        })
    }

    fn apply(&self, account: &BareJid, change: RosterChange) -> StoreFuture<()> {
        let account = account.clone();
        self.writer.call(move |db| apply(db, &account, &change))
    }

    fn apply_pair(
        &self,
        first: &BareJid,
        first_change: RosterChange,
        second: &BareJid,
        second_change: RosterChange,
    ) -> StoreFuture<()> {
        let (first, second) = (first.clone(), second.clone());
        self.writer.call(move |db| {
            apply(db, &first, &first_change)?;
            apply(db, &second, &second_change)
        })
    }

    fn requests(&self, account: &BareJid) -> StoreFuture<Vec<SubscriptionRequest>> {
        let account = account.clone();
        self.reader.call(move |db| requests(db, &account))
    }

    fn clear(&self, account: &BareJid) -> StoreFuture<()> {
        let account = account.clone();
        self.writer.call(move |db| {
            for delete in [
                "DELETE FROM roster WHERE account = ?1",
                "DELETE FROM roster_item WHERE account = ?1",
                "DELETE FROM roster_group WHERE account = ?1",
                "DELETE FROM subscription_request WHERE account = ?1",
            ] {
                db.prepare_cached(delete)?.execute([account.as_str()])?;
            }
            Ok(())
        })
    }
}

fn items(db: &Connection, account: &BareJid) -> Result<Vec<Item>, Refusal> {
    let mut statement = db.prepare_cached(
        "SELECT contact, item.name, subscription, ask, approved, roster_group.name
         FROM roster_item AS item LEFT JOIN roster_group USING (account, contact)
         WHERE account = ?1 ORDER BY contact, position",
    )?;
    let mut rows = statement.query([account.as_str()])?;
    let mut items: Vec<Item> = Vec::new();
    while let Some(row) = rows.next()? {
        let Column(jid) = row.get(0)?;
        let group: Option<String> = row.get(5)?;
        match items.last_mut() {
            Some(item) if item.jid == jid => item.groups.extend(group),
            _ => items.push(Item {
                jid,
                name: row.get(1)?,
                groups: group.into_iter().collect(),
                subscription: row.get::<_, Column<_>>(2)?.0,
                ask: row.get(3)?,
                approved: row.get(4)?,
            }),
        }
    }
    Ok(items)
}

fn requests(db: &Connection, account: &BareJid) -> Result<Vec<SubscriptionRequest>, Refusal> {
    let mut statement = db.prepare_cached(
        "SELECT requester, stanza FROM subscription_request WHERE account = ?1 ORDER BY arrival",
    )?;
    let rows = statement.query_map([account.as_str()], |row| {
        let (Column(from), stanza) = (row.get(0)?, row.get::<_, Vec<u8>>(1)?);
        Ok(SubscriptionRequest::new(from, stanza))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn apply(db: &Connection, account: &BareJid, change: &RosterChange) -> Result<(), Refusal> {
    let account = account.as_str();
    if let Some(version) = change.version {
        db.prepare_cached("INSERT OR REPLACE INTO roster (account, version) VALUES (?1, ?2)")?
            .execute(params![account, version as i64])?;
    }
    if let Some(contact) = &change.remove {
        remove(db, account, contact)?;
    }
    if let Some(item) = &change.put {
        remove(db, account, &item.jid)?;
        put(db, account, item)?;
    }
    if let Some(requester) = &change.remove_request {
        db.prepare_cached(
            "DELETE FROM subscription_request WHERE account = ?1 AND requester = ?2",
        )?
        .execute([account, requester.as_str()])?;
    }
    if let Some(request) = &change.add_request {
        // SUB-9: the first one wins.
        db.prepare_cached(
            "INSERT INTO subscription_request (account, requester, stanza) VALUES (?1, ?2, ?3)
             ON CONFLICT (account, requester) DO NOTHING",
        )?
        .execute(params![account, request.from.as_str(), &*request.stanza])?;
    }
    Ok(())
}

fn remove(db: &Connection, account: &str, contact: &BareJid) -> rusqlite::Result<()> {
    for delete in [
        "DELETE FROM roster_group WHERE account = ?1 AND contact = ?2",
        "DELETE FROM roster_item WHERE account = ?1 AND contact = ?2",
    ] {
        db.prepare_cached(delete)?.execute([account, contact.as_str()])?;
    }
    Ok(())
}

fn put(db: &Connection, account: &str, item: &Item) -> rusqlite::Result<()> {
    let contact = item.jid.as_str();
    let subscription = item.subscription.as_str();
    db.prepare_cached(
        "INSERT INTO roster_item (account, contact, name, subscription, ask, approved)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![account, contact, item.name, subscription, item.ask, item.approved])?;
    let mut insert = db.prepare_cached(
        "INSERT INTO roster_group (account, contact, position, name) VALUES (?1, ?2, ?3, ?4)",
    )?;
    for (position, group) in (0_i64..).zip(&item.groups) {
        insert.execute(params![account, contact, position, group])?;
    }
    Ok(())
}

impl FromSql for Column<Subscription> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Subscription::parse(value.as_str()?).map(Self).ok_or(FromSqlError::InvalidType)
    }
}
