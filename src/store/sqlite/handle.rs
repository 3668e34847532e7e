//! How the store calls its threads.

use std::sync::Arc;

use jid::BareJid;
use rusqlite::Connection;

use super::Refusal;
use super::worker::{Caller, Worker};
use crate::store::StoreFuture;

#[derive(Clone)]
pub(super) struct Handle(Arc<Worker>);

impl Handle {
    pub(super) fn new(worker: Worker) -> Self {
        Self(Arc::new(worker))
    }

    /// Has the thread do something for an account, as [`Caller::call`] says.
    pub(super) fn about<T: Send + 'static>(
        &self,
        account: &BareJid,
        work: impl Fn(&Connection, &str) -> Result<T, Refusal> + Send + 'static,
    ) -> StoreFuture<T> {
        let name = account.to_string();
        self.call(move |db| work(db, &name))
    }

    /// The same for the store as a whole, or several accounts.
    pub(super) fn call<T: Send + 'static>(
        &self,
        work: impl Fn(&Connection) -> Result<T, Refusal> + Send + 'static,
    ) -> StoreFuture<T> {
        self.caller().call(work)
    }

    /// For work in several parts, between which others have their turn.
    pub(super) fn caller(&self) -> Caller {
        self.0.caller()
    }
}
