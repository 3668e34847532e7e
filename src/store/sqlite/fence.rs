//! One file for several nodes in one process (NODE-3).
//!
//! Every operation of a node goes to the thread that writes, reads too: they raise the fence, and see in one
//! transaction whether they may.

use std::sync::Arc;

use jid::BareJid;
use rusqlite::{Connection, OptionalExtension, params};

use super::{Refusal, Sqlite};
use crate::store::fence::{Deposed, Fence, FenceToken};
use crate::store::shared::{FenceTokens, SharedStore};
use crate::store::{
    AccountStore, Credentials, ScramHash, ScramKeys, StoreFuture, Stores, TokenStore,
};

/// Only a store that is shared has these: they are no part of its schema.
const TABLES: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS slot_fence (
        slot INTEGER PRIMARY KEY,
        term INTEGER NOT NULL,
        number INTEGER NOT NULL
    ) STRICT",
    "CREATE TABLE IF NOT EXISTS term (last INTEGER NOT NULL) STRICT",
];

/// A [`Sqlite`] for several nodes in one process.
pub(crate) struct SharedSqlite(Arc<Sqlite>);

impl SharedSqlite {
    pub(crate) async fn new(store: Sqlite) -> Result<Self, crate::store::StoreError> {
        let made = store.writer.call(|db| {
            TABLES.iter().try_for_each(|table| db.execute(table, []).map(drop))?;
            Ok(())
        });
        made.await?;
        Ok(Self(Arc::new(store)))
    }
}

impl SharedStore for SharedSqlite {
    fn of_node(&self, tokens: Arc<dyn FenceTokens>) -> Stores {
        let mut handle = self.0.writer.clone();
        handle.tokens = Some(tokens);
        let (reader, writer) = (handle.clone(), handle);
        let fenced = Arc::new(Sqlite { reader, writer, offline_limits: self.0.offline_limits });
        let accounts =
            Arc::new(Accounts { anybodys: Arc::clone(&self.0), fenced: Arc::clone(&fenced) });
        let mut stores = Stores::all_in(fenced);
        (stores.tokens, stores.accounts) = (Arc::clone(&accounts).tokens(), accounts);
        stores
    }

    fn claim(&self, fence: Fence) -> StoreFuture<()> {
        self.0.writer.call(move |db| pass(db, Some(&[fence])))
    }

    fn next_term(&self) -> StoreFuture<u64> {
        self.0.writer.call(|db| {
            let last = "SELECT last FROM term";
            let last = db.prepare_cached(last)?.query_row([], |row| row.get(0)).optional()?;
            let next = u64::try_from(last.unwrap_or(0_i64)).unwrap_or_default() + 1;
            db.execute("DELETE FROM term", [])?;
            db.execute("INSERT INTO term (last) VALUES (?1)", [signed(next)])?;
            Ok(next)
        })
    }
}

/// Credentials: any node may look for them, and compare before it adds keys.
struct Accounts {
    anybodys: Arc<Sqlite>,
    fenced: Arc<Sqlite>,
}

impl AccountStore for Accounts {
    fn credentials(&self, account: &BareJid) -> StoreFuture<Option<Credentials>> {
        self.anybodys.credentials(account)
    }

    fn exists(&self, account: &BareJid) -> StoreFuture<bool> {
        self.anybodys.exists(account)
    }

    fn set_credentials(&self, account: &BareJid, credentials: Credentials) -> StoreFuture<()> {
        self.fenced.set_credentials(account, credentials)
    }

    fn adds_keys(&self) -> bool {
        self.anybodys.adds_keys()
    }

    fn add_keys(
        &self,
        account: &BareJid,
        proved: (ScramHash, ScramKeys),
        added: (ScramHash, ScramKeys),
    ) -> StoreFuture<bool> {
        self.anybodys.add_keys(account, proved, added)
    }

    fn remove(&self, account: &BareJid) -> StoreFuture<bool> {
        AccountStore::remove(&*self.fenced, account)
    }

    fn tokens(self: Arc<Self>) -> Option<Arc<dyn TokenStore>> {
        Arc::clone(&self.anybodys).tokens()
    }
}

/// Lets an operation pass, and from then on none with lower tokens.
pub(super) fn pass(db: &Connection, fences: Option<&[Fence]>) -> Result<(), Refusal> {
    for Fence { slot, token } in fences.ok_or(Refusal::NotHere)? {
        let highest = "SELECT term, number FROM slot_fence WHERE slot = ?1";
        let highest = db.prepare_cached(highest)?.query_row([slot], |row| {
            let part =
                |column| row.get(column).map(|part: i64| u64::try_from(part).unwrap_or_default());
            Ok(FenceToken { term: part(0)?, number: part(1)? })
        });
        match highest.optional()? {
            Some(by) if *token < by => return Err(Refusal::Deposed(Deposed { slot: *slot, by })),
            Some(known) if *token == known => {}
            _ => {
                let raise =
                    "INSERT OR REPLACE INTO slot_fence (slot, term, number) VALUES (?1, ?2, ?3)";
                let values = params![slot, signed(token.term), signed(token.number)];
                db.prepare_cached(raise)?.execute(values)?;
            }
        }
    }
    Ok(())
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
