//! A call: the statements that it is, what they need to be alone with, and who is told.

use std::future::ready;
use std::sync::Arc;
use std::time::Instant;

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::lane::Pool;
use super::text;
use crate::oneshot;
use crate::store::{StoreError, StoreFuture};

/// The rows of each statement.
pub(super) type Rows = Vec<Vec<Row>>;

/// Which lanes take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
}

/// A statement and its values.
pub(super) struct Step {
    pub(super) sql: &'static str,
    pub(super) values: Vec<Box<dyn ToSql + Send + Sync>>,
}

/// What all statements of a call come to.
type Answer = Box<dyn FnOnce(Result<Rows, StoreError>) + Send + Sync>;

pub(super) struct Call {
    /// Numbers that nobody else holds while this is done, if it writes.
    pub(super) alone_with: Vec<i64>,
    #[cfg(feature = "cluster")]
    pub(super) fences: Vec<crate::store::fence::Fence>,
    pub(super) steps: Vec<Step>,
    /// It has failed if it is not done then.
    pub(super) until: Instant,
    answer: Answer,
}

impl Call {
    pub(super) fn answer(self, result: Result<Rows, StoreError>) {
        (self.answer)(result);
    }
}

/// A call that is being put together.
pub(super) struct Ask {
    pool: Arc<Pool>,
    kind: Kind,
    alone_with: Vec<i64>,
    steps: Vec<Step>,
    #[cfg(feature = "cluster")]
    fences: Option<Vec<crate::store::fence::Fence>>,
}

impl Ask {
    pub(super) const fn new(pool: Arc<Pool>, kind: Kind) -> Self {
        Self {
            pool,
            kind,
            alone_with: Vec::new(),
            steps: Vec::new(),
            #[cfg(feature = "cluster")]
            fences: Some(Vec::new()),
        }
    }

    pub(super) fn alone_with(mut self, kind: &str, name: &str) -> Self {
        if self.kind == Kind::Write {
            self.alone_with.push(text::number(kind, name));
        }
        self
    }

    /// In the name of whoever has the slots of these accounts; without one of them nothing is done.
    #[cfg(feature = "cluster")]
    pub(super) fn fenced(
        self,
        tokens: Option<&dyn crate::store::shared::Tokens>,
        accounts: &[&jid::BareJid],
    ) -> Self {
        let fence = |tokens: &dyn crate::store::shared::Tokens| {
            accounts.iter().map(|account| tokens.fence(account)).collect()
        };
        Self { fences: tokens.map_or_else(|| Some(Vec::new()), fence), ..self }
    }

    #[cfg(feature = "cluster")]
    pub(super) fn pass(self, fence: crate::store::fence::Fence) -> Self {
        Self { fences: Some(vec![fence]), ..self }
    }

    pub(super) fn step(
        mut self,
        sql: &'static str,
        values: Vec<Box<dyn ToSql + Send + Sync>>,
    ) -> Self {
        self.steps.push(Step { sql, values });
        self
    }

    /// Has it done; `read` makes the answer of the rows.
    pub(super) fn call<T: Send + 'static>(
        self,
        read: impl FnOnce(Rows) -> Result<T, StoreError> + Send + Sync + 'static,
    ) -> StoreFuture<T> {
        #[cfg(feature = "cluster")]
        let Some(fences) = self.fences else {
            return Box::pin(ready(Err(StoreError::failed(crate::store::shared::NotHere))));
        };
        let Some(until) = Instant::now().checked_add(self.pool.timeout) else {
            return Box::pin(ready(Err(StoreError::failed("a time-out without an end"))));
        };
        let (sender, awaited) = oneshot::channel();
        let answer = move |rows: Result<Rows, StoreError>| sender.send(rows.and_then(read));
        self.pool.push(
            self.kind,
            Call {
                alone_with: self.alone_with,
                #[cfg(feature = "cluster")]
                fences,
                steps: self.steps,
                until,
                answer: Box::new(answer),
            },
        );
        Box::pin(async {
            let gone = || Err(StoreError::failed("the runtime of the store has ended"));
            awaited.await.unwrap_or_else(gone)
        })
    }

    /// The same where there is nothing to be told.
    pub(super) fn done(self) -> StoreFuture<()> {
        self.call(|_| Ok(()))
    }
}

/// The values of a statement.
macro_rules! values {
    ($($value:expr),* $(,)?) => {
        vec![$(Box::new($value) as Box<dyn tokio_postgres::types::ToSql + Send + Sync>),*]
    };
}
pub(super) use values;

/// The rows of the first statement.
pub(super) fn first(rows: Rows) -> Vec<Row> {
    rows.into_iter().next().unwrap_or_default()
}

/// Whether the first statement found or changed anything.
pub(super) fn any(rows: Rows) -> Result<bool, StoreError> {
    Ok(!first(rows).is_empty())
}
