//! Rosters and subscription requests.

use jid::BareJid;
use tokio_postgres::{Error, Row};

use super::call::{Ask, first, values};
use super::text::{self, Key, key, text as written};
use super::{Postgres, address};
use crate::rules::roster::{Item, Stray, Subscription};
use crate::store::{
    RosterChange, RosterStore, StoreError, StoreFuture, StoredContact, StoredRoster,
    SubscriptionRequest,
};

/// In one statement, so that it is the roster of one moment: the row without a contact has what is no item.
const LOAD: &str = "SELECT coalesce(whole, contact), name, groups, subscription, ask, approved,
            0::bigint, NULL::text[]
        FROM roster_item WHERE account = $1
    UNION ALL SELECT NULL, NULL, NULL, NULL, NULL, NULL,
        coalesce((SELECT version FROM roster WHERE account = $1), 0),
        ARRAY(SELECT coalesce(whole, requester) FROM subscription_request
            WHERE account = $1 ORDER BY arrival)";

const CONTACT: &str = "SELECT coalesce(whole, contact), name, groups, subscription, ask, approved,
        coalesce((SELECT version FROM roster WHERE account = $1), 0),
        EXISTS (SELECT FROM subscription_request WHERE account = $1 AND requester = $2),
        (SELECT count(*) FROM subscription_request WHERE account = $1)
    FROM (VALUES (1)) AS one LEFT JOIN roster_item ON account = $1 AND contact = $2";

impl RosterStore for Postgres {
    fn load(&self, account: &BareJid) -> StoreFuture<StoredRoster> {
        self.read(account)
            .step(LOAD, values![key(account.as_str())])
            .call(|rows| roster(&first(rows)).map_err(StoreError::failed))
    }

    fn contact(&self, account: &BareJid, contact: &BareJid) -> StoreFuture<StoredContact> {
        let keys = values![key(account.as_str()), key(contact.as_str())];
        self.read(account).step(CONTACT, keys).call(|rows| {
            let one = |row: &Row| {
                let requests: i64 = row.try_get(8)?;
                let found = row.try_get::<_, Option<String>>(0)?;
                let jid = found.and_then(|contact| address(&text::read(contact)));
                Ok::<_, Error>(StoredContact {
                    item: jid.map(|jid| item(row, jid)).transpose()?.flatten(),
                    version: row.try_get::<_, i64>(6)?.cast_unsigned(),
                    request: row.try_get(7)?,
                    requests: usize::try_from(requests).unwrap_or(usize::MAX),
                })
            };
            let found = first(rows).first().map(one).transpose().map_err(StoreError::failed)?;
            Ok(found.unwrap_or_default())
        })
    }

    fn apply(&self, account: &BareJid, change: RosterChange) -> StoreFuture<()> {
        apply(self.write(&[account]), account, change).done()
    }

    fn apply_pair(
        &self,
        first: &BareJid,
        first_change: RosterChange,
        second: &BareJid,
        second_change: RosterChange,
    ) -> StoreFuture<()> {
        let ask = apply(self.write(&[first, second]), first, first_change);
        apply(ask, second, second_change).done()
    }

    fn requests(&self, account: &BareJid) -> StoreFuture<Vec<SubscriptionRequest>> {
        let sql = "SELECT coalesce(whole, requester), stanza FROM subscription_request
            WHERE account = $1 ORDER BY arrival";
        self.read(account).step(sql, values![key(account.as_str())]).call(|rows| {
            let mut requests = Vec::new();
            for row in first(rows) {
                let from: String = row.try_get(0).map_err(StoreError::failed)?;
                let stanza: Vec<u8> = row.try_get(1).map_err(StoreError::failed)?;
                let from = address(&text::read(from));
                requests.extend(from.map(|from| SubscriptionRequest::new(from, stanza)));
            }
            Ok(requests)
        })
    }

    fn clear(&self, account: &BareJid) -> StoreFuture<()> {
        let key = key(account.as_str());
        self.write(&[account])
            .step("DELETE FROM roster WHERE account = $1", values![key.clone()])
            .step("DELETE FROM roster_item WHERE account = $1", values![key.clone()])
            .step("DELETE FROM subscription_request WHERE account = $1", values![key])
            .done()
    }
}

fn apply(mut ask: Ask, account: &BareJid, change: RosterChange) -> Ask {
    let account = key(account.as_str());
    if let Some(version) = change.version {
        let sql = "INSERT INTO roster (account, version) VALUES ($1, $2)
            ON CONFLICT (account) DO UPDATE SET version = excluded.version";
        ask = ask.step(sql, values![account.clone(), version.cast_signed()]);
    }
    let removed = change.remove.iter().map(|contact| contact.as_str());
    for contact in removed.chain(change.remove_stray.as_deref()) {
        let sql = "DELETE FROM roster_item WHERE account = $1 AND contact = $2";
        ask = ask.step(sql, values![account.clone(), key(contact)]);
    }
    if let Some(item) = change.put {
        let sql = "INSERT INTO roster_item
                (account, contact, whole, name, groups, subscription, ask, approved)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
            ON CONFLICT (account, contact) DO UPDATE SET name = excluded.name,
                groups = excluded.groups, subscription = excluded.subscription,
                ask = excluded.ask, approved = excluded.approved";
        let Key { key, whole } = Key::new(item.jid.as_str());
        let groups: Vec<_> = item.groups.iter().map(|group| written(group)).collect();
        let values = values![
            account.clone(),
            key,
            whole,
            item.name.as_deref().map(written),
            groups,
            item.subscription.as_str(),
            item.ask,
            item.approved,
        ];
        ask = ask.step(sql, values);
    }
    if let Some(requester) = change.remove_request {
        let sql = "DELETE FROM subscription_request WHERE account = $1 AND requester = $2";
        ask = ask.step(sql, values![account.clone(), key(requester.as_str())]);
    }
    if let Some(request) = change.add_request {
        // SUB-9: the first one wins.
        let sql = "INSERT INTO subscription_request (account, requester, whole, stanza)
            VALUES ($1, $2, $3, $4) ON CONFLICT (account, requester) DO NOTHING";
        let Key { key, whole } = Key::new(request.from.as_str());
        ask = ask.step(sql, values![account, key, whole, request.stanza.to_vec()]);
    }
    ask
}

fn roster(rows: &[Row]) -> Result<StoredRoster, Error> {
    let mut roster = StoredRoster::default();
    for row in rows {
        let Some(contact) = row.try_get::<_, Option<String>>(0)? else {
            roster.version = row.try_get::<_, i64>(6)?.cast_unsigned();
            for requester in row.try_get::<_, Option<Vec<String>>>(7)?.into_iter().flatten() {
                match address(&text::read(requester)) {
                    Some(requester) => roster.requests.push(requester),
                    None => roster.unread += 1,
                }
            }
            continue;
        };
        let contact = text::read(contact);
        match address(&contact) {
            Some(jid) => match item(row, jid)? {
                Some(item) => roster.items.push(item),
                None => roster.unread += 1,
            },
            None => {
                let (name, groups) = (name(row)?, groups(row)?);
                roster.strays.push(Stray { jid: contact, name, groups });
            }
        }
    }
    Ok(roster)
}

/// The item of a row that begins with contact, name, groups, subscription, ask and approved; `None` where a value has no
/// meaning: that costs the item, and not the account (JID-6).
fn item(row: &Row, jid: BareJid) -> Result<Option<Item>, Error> {
    let Some(subscription) = Subscription::parse(row.try_get(3)?) else { return Ok(None) };
    let (name, groups) = (name(row)?, groups(row)?);
    let (ask, approved) = (row.try_get(4)?, row.try_get(5)?);
    Ok(Some(Item { jid, name, groups, subscription, ask, approved }))
}

fn name(row: &Row) -> Result<Option<String>, Error> {
    Ok(row.try_get::<_, Option<String>>(1)?.map(text::read))
}

fn groups(row: &Row) -> Result<Vec<String>, Error> {
    Ok(row.try_get::<_, Vec<String>>(2)?.into_iter().map(text::read).collect())
}
