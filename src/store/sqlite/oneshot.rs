//! One answer, from a thread of the store to the future that waits for it.

use std::future::Future;
use std::mem::replace;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use crate::store::StoreError;

/// The two ends of one answer.
pub(super) fn oneshot<T>() -> (Answer<T>, Awaited<T>) {
    let slot = Arc::new(Mutex::new(Slot::Waiting(None)));
    (Answer(Arc::clone(&slot)), Awaited(slot))
}

/// Where the answer is given. Dropped without one, it answers that the store has failed.
pub(super) struct Answer<T>(Arc<Mutex<Slot<T>>>);

/// Where the answer arrives.
pub(super) struct Awaited<T>(Arc<Mutex<Slot<T>>>);

enum Slot<T> {
    Waiting(Option<Waker>),
    Settled(Result<T, StoreError>),
}

impl<T> Answer<T> {
    pub(super) fn send(self, result: Result<T, StoreError>) {
        self.settle(|| result);
    }

    fn settle(&self, result: impl FnOnce() -> Result<T, StoreError>) {
        let mut slot = self.0.lock();
        if let Slot::Waiting(waker) = &mut *slot {
            let waker = waker.take();
            *slot = Slot::Settled(result());
            // The waker is the host's code: no lock is held while it runs.
            drop(slot);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        self.settle(|| Err(gone()));
    }
}

impl<T> Future for Awaited<T> {
    type Output = Result<T, StoreError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut slot = self.0.lock();
        match &mut *slot {
            Slot::Waiting(Some(waker)) if waker.will_wake(context.waker()) => Poll::Pending,
            Slot::Waiting(waker) => {
                *waker = Some(context.waker().clone());
                Poll::Pending
            }
            Slot::Settled(result) => Poll::Ready(replace(result, Err(gone()))),
        }
    }
}

fn gone() -> StoreError {
    StoreError::failed("the thread of the store has ended")
}
