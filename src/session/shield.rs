//! Host code that panics fails alone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

/// Runs host code; `None` where it panicked (the panic hook has reported it by then).
///
/// What host code leaves half-done is its own. What we were doing goes on: an end tells everybody
/// else, a queue keeps its order, and a panicking connection counts as a broken transport.
pub(super) fn shielded<T>(host: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(host)).ok()
}

/// Wakes who waits, if anybody does.
pub(super) fn wake(waker: Option<Box<Waker>>) {
    if let Some(waker) = waker {
        shielded(|| waker.wake());
    }
}
