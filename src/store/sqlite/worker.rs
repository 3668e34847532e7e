//! A thread that owns a connection and commits everything that waits for it in one transaction.

use std::io;
use std::iter::once;
use std::slice;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::Refusal;
use crate::oneshot::{self, Sender};
use crate::store::{StoreError, StoreFuture};

type Calls = mpsc::Sender<Box<dyn Request>>;

/// The thread. Dropping it waits until everything called for is done.
pub(super) struct Worker {
    // `Some` until dropped.
    queue: Option<Arc<Calls>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts a thread that takes up to `most` calls into one transaction.
    pub(super) fn spawn(
        name: &str,
        db: Connection,
        behavior: TransactionBehavior,
        most: usize,
    ) -> io::Result<Self> {
        let (queue, requests) = mpsc::channel();
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || serve(&db, behavior, most, &requests))?;
        Ok(Self { queue: Some(Arc::new(queue)), thread: Some(thread) })
    }

    pub(super) fn caller(&self) -> Caller {
        Caller(self.queue.as_ref().map(Arc::downgrade).unwrap_or_default())
    }
}

/// Calls a thread as long as it is there, and does not keep it.
pub(super) struct Caller(Weak<Calls>);

impl Caller {
    /// Has the thread do `work`. The answer comes after the commit; all that `work` did is undone
    /// if it fails. It is done again if the transaction it was in cannot be committed.
    pub(super) fn call<T: Send + 'static>(
        &self,
        work: impl Fn(&Connection) -> Result<T, Refusal> + Send + 'static,
    ) -> StoreFuture<T> {
        let (answer, awaited) = oneshot::channel();
        if let Some(queue) = self.0.upgrade() {
            // A thread that has ended drops the request, which is an answer too.
            let _ = queue.send(Box::new(Call { work, result: None, answer }));
        }
        Box::pin(async {
            let gone = || Err(StoreError::failed("the thread of the store has ended"));
            awaited.await.unwrap_or_else(gone)
        })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.queue.take());
        // A waker may drop the store's last owner on the store's own thread; that one ends by itself.
        if let Some(thread) =
            self.thread.take().filter(|t| t.thread().id() != thread::current().id())
        {
            let _ = thread.join();
        }
    }
}

/// A call on its way through the thread.
trait Request: Send {
    /// Does the work inside an open transaction and keeps the result.
    ///
    /// # Errors
    ///
    /// The transaction is no longer usable.
    fn run(&mut self, db: &Connection) -> rusqlite::Result<()>;

    /// Tells the caller the result, or that it could not be committed.
    fn answer(self: Box<Self>, committed: rusqlite::Result<()>);
}

struct Call<T, W> {
    work: W,
    result: Option<Result<T, Refusal>>,
    answer: Sender<Result<T, StoreError>>,
}

impl<T: Send, W: Fn(&Connection) -> Result<T, Refusal> + Send> Request for Call<T, W> {
    fn run(&mut self, db: &Connection) -> rusqlite::Result<()> {
        let statement = |sql| db.prepare_cached(sql)?.execute([]).map(drop);
        statement("SAVEPOINT request")?;
        if self.result.insert((self.work)(db)).is_err() {
            statement("ROLLBACK TO request")?;
        }
        statement("RELEASE request")
    }

    fn answer(self: Box<Self>, committed: rusqlite::Result<()>) {
        let result = match (self.result, committed) {
            // What went wrong in the request itself says more than what followed from it.
            (Some(Err(refusal)), _) => Err(refusal.into()),
            (_, Err(error)) => Err(Refusal::from(error).into()),
            (Some(Ok(value)), Ok(())) => Ok(value),
            // Not reached: no commit without a run. Dropping the answer says that the store failed.
            (None, Ok(())) => return,
        };
        self.answer.send(result);
    }
}

fn serve(
    db: &Connection,
    behavior: TransactionBehavior,
    most: usize,
    requests: &Receiver<Box<dyn Request>>,
) {
    while let Ok(first) = requests.recv() {
        let mut batch: Vec<_> = once(first).chain(requests.try_iter()).take(most).collect();
        if commit(db, behavior, &mut batch).is_ok() {
            batch.into_iter().for_each(|request| request.answer(Ok(())));
            continue;
        }
        // The failure of one (a disk too full for it) may have undone the others: each for itself.
        for mut request in batch {
            let committed = commit(db, behavior, slice::from_mut(&mut request));
            request.answer(committed);
        }
    }
}

fn commit(
    db: &Connection,
    behavior: TransactionBehavior,
    batch: &mut [Box<dyn Request>],
) -> rusqlite::Result<()> {
    // Rolls back when it is dropped without a commit.
    let transaction = Transaction::new_unchecked(db, behavior)?;
    for request in batch {
        request.run(db)?;
    }
    transaction.commit()
}
