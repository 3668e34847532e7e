//! Rosters and subscription requests.

use jid::BareJid;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Column, Refusal, Sqlite};
use crate::rules::roster::{Item, Subscription};
use crate::store::{
    RosterChange, RosterStore, StoreFuture, StoredContact, StoredRoster, SubscriptionRequest,
};

impl RosterStore for Sqlite {
    fn load(&self, account: &BareJid) -> StoreFuture<StoredRoster> {
        let (account, reader) = (account.clone(), self.reader.caller());
        let of = account.clone();
        let first = reader.call(move |db| {
            // Who asks, and not what they say: that may be much.
            let mut requesters = db.prepare_cached(
                "SELECT requester FROM subscription_request WHERE account = ?1 ORDER BY arrival",
            )?;
            let requests = requesters.query_map([of.as_str()], |row| row.get(0))?;
            Ok(StoredRoster {
                items: items(db, &of, "")?,
                version: version(db, &of)?,
                requests: requests
                    .map(|jid| jid.map(|Column(jid)| jid))
                    .collect::<Result<_, _>>()?,
            })
        });
        Box::pin(async move {
            let mut roster = first.await?;
            // A long roster is read piece by piece: others have their turn between.
            while roster.items.len() % AT_ONCE == 0 {
                let (of, Some(last)) = (account.clone(), roster.items.last()) else { break };
                let last = last.jid.clone();
                let more = reader.call(move |db| items(db, &of, last.as_str())).await?;
                if more.is_empty() {
                    break;
                }
                roster.items.extend(more);
            }
            Ok(roster)
        })
    }

    fn contact(&self, account: &BareJid, contact: &BareJid) -> StoreFuture<StoredContact> {
        let (account, contact) = (account.clone(), contact.clone());
        self.reader.call(move |db| {
            let both = [account.as_str(), contact.as_str()];
            let (request, requests) = db
                .prepare_cached(
                    "SELECT count(*) FILTER (WHERE requester = ?2), count(*)
                     FROM subscription_request WHERE account = ?1",
                )?
                .query_row(both, |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?;
            Ok(StoredContact {
                item: item(db, &account, &contact)?,
                version: version(db, &account)?,
                request: request > 0,
                requests: usize::try_from(requests).unwrap_or(usize::MAX),
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

fn version(db: &Connection, account: &BareJid) -> Result<u64, Refusal> {
    let version: Option<i64> = db
        .prepare_cached("SELECT version FROM roster WHERE account = ?1")?
        .query_row([account.as_str()], |row| row.get(0))
        .optional()?;
    // SQLite's integers have a sign: the same 64 bits, there and back.
    Ok(version.unwrap_or(0) as u64)
}

/// So many items of a roster are read at once.
const AT_ONCE: usize = 64;

/// The next items behind that of `contact`.
fn items(db: &Connection, account: &BareJid, contact: &str) -> Result<Vec<Item>, Refusal> {
    let mut statement = db.prepare_cached(
        "SELECT contact, item.name, subscription, ask, approved, roster_group.name
         FROM (SELECT * FROM roster_item WHERE account = ?1 AND contact > ?2
               ORDER BY contact LIMIT ?3) AS item
         LEFT JOIN roster_group USING (account, contact)
         ORDER BY contact, position",
    )?;
    let mut rows = statement.query(params![account.as_str(), contact, AT_ONCE as i64])?;
    let mut items: Vec<Item> = Vec::new();
    while let Some(row) = rows.next()? {
        let group: Option<String> = row.get(5)?;
        // A JID takes longer to be read than the rest of the row.
        let contact = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
        match items.last_mut().filter(|item| item.jid.as_str() == contact) {
            Some(item) => item.groups.extend(group),
            None => {
                let Column(jid) = row.get(0)?;
                items.push(row_item(row, jid, group.into_iter().collect())?);
            }
        }
    }
    Ok(items)
}

fn item(db: &Connection, account: &BareJid, contact: &BareJid) -> Result<Option<Item>, Refusal> {
    let both = [account.as_str(), contact.as_str()];
    let mut groups = db.prepare_cached(
        "SELECT name FROM roster_group WHERE account = ?1 AND contact = ?2 ORDER BY position",
    )?;
    let groups = groups.query_map(both, |row| row.get(0))?.collect::<Result<_, _>>()?;
    let item = db
        .prepare_cached(
            "SELECT contact, name, subscription, ask, approved FROM roster_item
             WHERE account = ?1 AND contact = ?2",
        )?
        .query_row(both, |row| row_item(row, contact.clone(), groups))
        .optional()?;
    Ok(item)
}

/// The item of a row that begins with contact, name, subscription, ask and approved.
fn row_item(row: &Row<'_>, jid: BareJid, groups: Vec<String>) -> rusqlite::Result<Item> {
    let Column(subscription) = row.get(2)?;
    let (name, ask, approved) = (row.get(1)?, row.get(3)?, row.get(4)?);
    Ok(Item { jid, name, groups, subscription, ask, approved })
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
