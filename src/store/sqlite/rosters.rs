//! Rosters and subscription requests.

use jid::BareJid;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Refusal, Sqlite, address, readable};
use crate::rules::roster::{Item, Stray, Subscription};
use crate::store::{RosterChange, RosterStore, StoreFuture, StoredRoster, SubscriptionRequest};

impl RosterStore for Sqlite {
    fn load(&self, account: &BareJid) -> StoreFuture<StoredRoster> {
        let account = account.clone();
        self.reader.call(move |db| {
            let version: Option<i64> = db
                .prepare_cached("SELECT version FROM roster WHERE account = ?1")?
                .query_row([account.as_str()], |row| row.get(0))
                .optional()?;
            // SQLite's integers have a sign: the same 64 bits, there and back.
            let version = version.unwrap_or(0) as u64;
            let mut stored = StoredRoster { version, ..StoredRoster::default() };
            items(db, &account, &mut stored)?;
            let (requests, unread) = requests(db, &account)?;
            stored.requests = requests.into_iter().map(|request| request.from).collect();
            stored.unread += unread;
            Ok(stored)
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
        self.reader.call(move |db| Ok(requests(db, &account)?.0))
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

fn items(db: &Connection, account: &BareJid, stored: &mut StoredRoster) -> Result<(), Refusal> {
    let mut statement = db.prepare_cached(
        "SELECT contact, item.name, subscription, ask, approved, roster_group.name
         FROM roster_item AS item LEFT JOIN roster_group USING (account, contact)
         WHERE account = ?1 ORDER BY contact, position",
    )?;
    let mut rows = statement.query([account.as_str()])?;
    let mut unread: Vec<Vec<u8>> = Vec::new();
    // One row for each group, those of an item together.
    while let Some(row) = rows.next()? {
        if readable(read(row, stored))?.is_none() {
            unread.extend(row.get_ref(0)?.as_bytes().map(Vec::from));
        }
    }
    unread.dedup();
    stored.unread += unread.len();
    Ok(())
}

fn read(row: &Row<'_>, stored: &mut StoredRoster) -> rusqlite::Result<()> {
    let (contact, group): (String, Option<String>) = (row.get(0)?, row.get(5)?);
    if let Some(item) = stored.items.last_mut().filter(|item| item.jid.as_str() == contact) {
        item.groups.extend(group);
    } else if let Some(stray) = stored.strays.last_mut().filter(|stray| stray.jid == contact) {
        stray.groups.extend(group);
    } else if let Some(jid) = address(&contact) {
        stored.items.push(Item {
            name: row.get(1)?,
            groups: group.into_iter().collect(),
            subscription: row.get(2)?,
            ask: row.get(3)?,
            approved: row.get(4)?,
            ..Item::new(jid)
        });
    } else {
        let groups = group.into_iter().collect();
        stored.strays.push(Stray { jid: contact, name: row.get(1)?, groups });
    }
    Ok(())
}

/// The requests, and how many more there are that cannot be read.
fn requests(
    db: &Connection,
    account: &BareJid,
) -> Result<(Vec<SubscriptionRequest>, usize), Refusal> {
    let mut statement = db.prepare_cached(
        "SELECT requester, stanza FROM subscription_request WHERE account = ?1 ORDER BY arrival",
    )?;
    let mut rows = statement.query([account.as_str()])?;
    let (mut requests, mut unread) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let from = readable(row.get::<_, String>(0))?.and_then(|requester| address(&requester));
        match (from, readable(row.get::<_, Vec<u8>>(1))?) {
            (Some(from), Some(stanza)) => requests.push(SubscriptionRequest::new(from, stanza)),
            _ => unread += 1,
        }
    }
    Ok((requests, unread))
}

fn apply(db: &Connection, account: &BareJid, change: &RosterChange) -> Result<(), Refusal> {
    let account = account.as_str();
    if let Some(version) = change.version {
        db.prepare_cached("INSERT OR REPLACE INTO roster (account, version) VALUES (?1, ?2)")?
            .execute(params![account, version as i64])?;
    }
    if let Some(contact) = &change.remove {
        remove(db, account, contact.as_str())?;
    }
    if let Some(text) = &change.remove_stray {
        remove(db, account, text)?;
    }
    if let Some(item) = &change.put {
        remove(db, account, item.jid.as_str())?;
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

fn remove(db: &Connection, account: &str, contact: &str) -> rusqlite::Result<()> {
    for delete in [
        "DELETE FROM roster_group WHERE account = ?1 AND contact = ?2",
        "DELETE FROM roster_item WHERE account = ?1 AND contact = ?2",
    ] {
        db.prepare_cached(delete)?.execute([account, contact])?;
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

impl FromSql for Subscription {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Self::parse(value.as_str()?).ok_or(FromSqlError::InvalidType)
    }
}
