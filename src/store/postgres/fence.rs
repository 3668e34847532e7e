//! A database that several nodes share (NODE-3).

use std::sync::Arc;

use super::Postgres;
use super::call::{Ask, Kind, first, values};
use crate::store::fence::{Deposed, Fence, FenceToken};
use crate::store::shared::{FenceTokens, SharedStore};
use crate::store::{StoreError, StoreFuture, Stores};

impl SharedStore for Postgres {
    fn of_node(&self, tokens: Arc<dyn FenceTokens>) -> Stores {
        Stores::all_in(Arc::new(Self {
            pool: Arc::clone(&self.pool),
            offline_limits: self.offline_limits,
            tokens: Some(tokens),
            identity: Arc::clone(&self.identity),
        }))
    }

    fn claim(&self, fence: Fence) -> StoreFuture<()> {
        Ask::new(Arc::clone(&self.pool), Kind::Write).pass(fence).done()
    }

    fn identity(&self) -> Arc<str> {
        Arc::clone(&self.identity)
    }

    fn next_term(&self) -> StoreFuture<u64> {
        let sql = "INSERT INTO term (one, last) VALUES (true, 1)
            ON CONFLICT (one) DO UPDATE SET last = term.last + 1 RETURNING last";
        let ask = Ask::new(Arc::clone(&self.pool), Kind::Write).alone_with("term", "");
        ask.step(sql, values![]).call(|rows| {
            let last: Option<i64> = match first(rows).first() {
                Some(row) => row.try_get(0).map_err(StoreError::failed)?,
                None => None,
            };
            let last = last.and_then(|last| u64::try_from(last).ok());
            last.ok_or_else(|| StoreError::failed("no term"))
        })
    }
}

/// What the function `pass` says of a former owner.
pub(super) fn deposed(error: &tokio_postgres::Error) -> Option<Deposed> {
    let error = error.as_db_error().filter(|error| error.code().code() == "XS003")?;
    let mut numbers = error.detail()?.split(' ').map(str::parse::<u64>);
    let mut next = || numbers.next()?.ok();
    let (slot, term, number) = (next()?, next()?, next()?);
    Some(Deposed { slot: u16::try_from(slot).ok()?, by: FenceToken { term, number } })
}
