//! Rosters and subscription requests.

use jid::BareJid;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Refusal, Sqlite, address, readable};
use crate::rules::roster::{Item, Stray, Subscription};
use crate::store::{
    RosterChange, RosterStore, StoreFuture, StoredContact, StoredRoster, SubscriptionRequest,
};

impl RosterStore for Sqlite {
    fn load(&self, account: &BareJid) -> StoreFuture<StoredRoster> {
        let (account, reader) = (account.to_string(), self.reader.caller());
        let of = account.clone();
        let first = reader.call(move |db| {
            // Who asks, and not what they say: that may be much.
            let mut requesters = db.prepare_cached(
                "SELECT requester FROM subscription_request WHERE account = ?1 ORDER BY arrival",
            )?;
            let mut requesters = requesters.query([&of])?;
            let mut roster = StoredRoster { version: version(db, &of)?, ..StoredRoster::default() };
            while let Some(row) = requesters.next()? {
                let requester: Option<String> = readable(row.get(0))?;
                match requester.and_then(|requester| address(&requester)) {
                    Some(requester) => roster.requests.push(requester),
                    None => roster.unread += 1,
                }
            }
            Ok((roster, items(db, &of, None)?))
        });
        Box::pin(async move {
            let (mut roster, mut piece) = first.await?;
            loop {
                roster.items.append(&mut piece.items);
                roster.strays.append(&mut piece.strays);
                roster.unread += piece.unread;
                // A long roster is read piece by piece: others have their turn between.
                let Some(last) = piece.last.filter(|_| piece.contacts == AT_ONCE) else {
                    return Ok(roster);
                };
                let of = account.clone();
                piece = reader.call(move |db| items(db, &of, Some(&last))).await?;
            }
        })
    }

    fn contact(&self, account: &BareJid, contact: &BareJid) -> StoreFuture<StoredContact> {
        let contact = contact.clone();
        self.reader.about(account, move |db, account| {
            let both = [account, contact.as_str()];
            let (request, requests) = db
                .prepare_cached(
                    "SELECT count(*) FILTER (WHERE requester = ?2), count(*)
                     FROM subscription_request WHERE account = ?1",
                )?
                .query_row(both, |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?;
            Ok(StoredContact {
                item: item(db, account, &contact)?,
                version: version(db, account)?,
                request: request > 0,
                requests: usize::try_from(requests).unwrap_or(usize::MAX),
            })
        })
    }

    fn apply(&self, account: &BareJid, change: RosterChange) -> StoreFuture<()> {
        self.writer.about(account, move |db, account| apply(db, account, &change))
    }

    fn apply_pair(
        &self,
        first: &BareJid,
        first_change: RosterChange,
        second: &BareJid,
        second_change: RosterChange,
    ) -> StoreFuture<()> {
        let (first, second) = (first.to_string(), second.to_string());
        self.writer.call(move |db| {
            apply(db, &first, &first_change)?;
            apply(db, &second, &second_change)
        })
    }

    fn requests(&self, account: &BareJid) -> StoreFuture<Vec<SubscriptionRequest>> {
        self.reader.about(account, requests)
    }

    fn clear(&self, account: &BareJid) -> StoreFuture<()> {
        self.delete(
            account,
            &[
                "DELETE FROM roster WHERE account = ?1",
                "DELETE FROM roster_item WHERE account = ?1",
                "DELETE FROM roster_group WHERE account = ?1",
                "DELETE FROM subscription_request WHERE account = ?1",
            ],
        )
    }
}

fn version(db: &Connection, account: &str) -> Result<u64, Refusal> {
    let version: Option<i64> = db
        .prepare_cached("SELECT version FROM roster WHERE account = ?1")?
        .query_row([account], |row| row.get(0))
        .optional()?;
    // SQLite's integers have a sign: the same 64 bits, there and back.
    Ok(version.unwrap_or(0) as u64)
}

/// How many items of a roster are read at once.
const AT_ONCE: usize = 64;

/// Some consecutive items of a roster.
#[derive(Default)]
struct Piece {
    items: Vec<Item>,
    strays: Vec<Stray>,
    unread: usize,
    /// Contacts of all three kinds.
    contacts: usize,
    /// The text of the last one, which may be no UTF-8.
    last: Option<Vec<u8>>,
}

/// The items after that of `contact`; without one, the first.
fn items(db: &Connection, account: &str, contact: Option<&[u8]>) -> Result<Piece, Refusal> {
    let behind = if contact.is_some() { ">" } else { ">=" };
    let mut statement = db.prepare_cached(&format!(
        "SELECT contact, item.name, subscription, ask, approved, roster_group.name
         FROM (SELECT * FROM roster_item WHERE account = ?1 AND contact {behind} CAST(?2 AS TEXT)
               ORDER BY contact LIMIT ?3) AS item
         LEFT JOIN roster_group USING (account, contact)
         ORDER BY contact, position"
    ))?;
    let contact = contact.unwrap_or_default();
    let mut rows = statement.query(params![account, contact, AT_ONCE as i64])?;
    let (mut piece, mut lost) = (Piece::default(), false);
    // One row for each group, those of an item together.
    while let Some(row) = rows.next()? {
        let contact = row.get_ref(0)?.as_bytes().map_err(rusqlite::Error::from)?;
        let is_next = piece.last.as_deref() != Some(contact);
        if is_next {
            (piece.last, lost) = (Some(contact.into()), false);
            piece.contacts += 1;
        }
        if readable(piece.read(row, is_next))?.is_none() && !lost {
            lost = true;
            piece.unread += 1;
        }
    }
    Ok(piece)
}

impl Piece {
    fn read(&mut self, row: &Row<'_>, is_next: bool) -> rusqlite::Result<()> {
        // An address takes longer to be read than the rest of the row.
        let contact = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
        let group: Option<String> = row.get(5)?;
        if is_next {
            let groups = group.into_iter().collect();
            match address(contact) {
                Some(jid) => self.items.push(row_item(row, jid, groups)?),
                None => {
                    self.strays.push(Stray { jid: contact.into(), name: row.get(1)?, groups });
                }
            }
        } else if let Some(item) = self.items.last_mut().filter(|i| i.jid.as_str() == contact) {
            item.groups.extend(group);
        } else if let Some(stray) = self.strays.last_mut().filter(|stray| stray.jid == contact) {
            stray.groups.extend(group);
        }
        Ok(())
    }
}

fn item(db: &Connection, account: &str, contact: &BareJid) -> Result<Option<Item>, Refusal> {
    let both = [account, contact.as_str()];
    let mut groups = db.prepare_cached(
        "SELECT name FROM roster_group WHERE account = ?1 AND contact = ?2 ORDER BY position",
    )?;
    let groups = groups.query_map(both, |row| row.get(0))?.collect::<Result<_, _>>()?;
    let item = db
        .prepare_cached(
            "SELECT contact, name, subscription, ask, approved FROM roster_item
             WHERE account = ?1 AND contact = ?2",
        )?
        .query_row(both, |row| row_item(row, contact.clone(), groups));
    Ok(readable(item.optional())?.flatten())
}

/// The item of a row that begins with contact, name, subscription, ask and approved.
fn row_item(row: &Row<'_>, jid: BareJid, groups: Vec<String>) -> rusqlite::Result<Item> {
    let (name, subscription) = (row.get(1)?, row.get(2)?);
    let (ask, approved) = (row.get(3)?, row.get(4)?);
    Ok(Item { jid, name, groups, subscription, ask, approved })
}

fn requests(db: &Connection, account: &str) -> Result<Vec<SubscriptionRequest>, Refusal> {
    let mut statement = db.prepare_cached(
        "SELECT requester, stanza FROM subscription_request WHERE account = ?1 ORDER BY arrival",
    )?;
    let mut rows = statement.query([account])?;
    let mut requests = Vec::new();
    while let Some(row) = rows.next()? {
        let Some((from, stanza)): Option<(String, Vec<u8>)> = readable(row.try_into())? else {
            continue;
        };
        requests.extend(address(&from).map(|from| SubscriptionRequest::new(from, stanza)));
    }
    Ok(requests)
}

fn apply(db: &Connection, account: &str, change: &RosterChange) -> Result<(), Refusal> {
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
