//! How the store calls its threads: where nodes share it, in the name of whoever has the account's slot (NODE-3).

use std::sync::Arc;

use jid::BareJid;
use rusqlite::Connection;

use super::Refusal;
use super::worker::{Caller, Worker};
use crate::store::StoreFuture;

#[derive(Clone)]
pub(super) struct Handle {
    worker: Arc<Worker>,
    #[cfg(feature = "cluster")]
    pub(super) tokens: Option<Arc<dyn crate::store::shared::FenceTokens>>,
}

impl Handle {
    pub(super) fn new(worker: Worker) -> Self {
        Self {
            worker: Arc::new(worker),
            #[cfg(feature = "cluster")]
            tokens: None,
        }
    }

    /// Has the thread do something for an account, as [`Caller::call`] says.
    pub(super) fn about<T: Send + 'static>(
        &self,
        account: &BareJid,
        work: impl Fn(&Connection, &str) -> Result<T, Refusal> + Send + 'static,
    ) -> StoreFuture<T> {
        let name = account.to_string();
        self.parts([account]).call(move |db| work(db, &name))
    }

    /// The same for the store as a whole.
    pub(super) fn call<T: Send + 'static>(
        &self,
        work: impl Fn(&Connection) -> Result<T, Refusal> + Send + 'static,
    ) -> StoreFuture<T> {
        self.worker.caller().call(work)
    }

    /// For work in several parts, between which others have their turn; or for several accounts.
    pub(super) fn parts<const N: usize>(&self, accounts: [&BareJid; N]) -> Parts {
        #[cfg(not(feature = "cluster"))]
        let _nobody_asks = accounts;
        Parts {
            caller: self.worker.caller(),
            #[cfg(feature = "cluster")]
            guard: self.guard(&accounts),
        }
    }

    #[cfg(feature = "cluster")]
    fn guard(&self, accounts: &[&BareJid]) -> Guard {
        let Some(tokens) = &self.tokens else { return Some(Vec::new()) };
        accounts.iter().map(|account| tokens.fence(account)).collect()
    }
}

pub(super) struct Parts {
    caller: Caller,
    #[cfg(feature = "cluster")]
    guard: Guard,
}

impl Parts {
    /// As [`Caller::call`].
    pub(super) fn call<T: Send + 'static>(
        &self,
        work: impl Fn(&Connection) -> Result<T, Refusal> + Send + 'static,
    ) -> StoreFuture<T> {
        #[cfg(feature = "cluster")]
        let work = {
            let guard = self.guard.clone();
            move |db: &Connection| {
                super::fence::pass(db, guard.as_deref())?;
                work(db)
            }
        };
        self.caller.call(work)
    }
}

/// What every part of the work has to pass; `None` where an account does not live here.
#[cfg(feature = "cluster")]
type Guard = Option<Vec<crate::store::fence::Fence>>;
