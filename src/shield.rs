//! Host code that panics fails alone.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

/// Runs host code; `None` where it panicked (the panic hook has reported it by then).
///
/// What host code leaves half-done is its own. What we were doing goes on: an end tells everybody
/// else, a queue keeps its order, and a panicking connection counts as a broken transport.
pub(crate) fn shielded<T>(host: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(host)).ok()
}

/// Wakes who waits, if anybody does.
pub(crate) fn wake(waker: Option<Box<Waker>>) {
    if let Some(waker) = waker {
        shielded(|| waker.wake());
    }
}

crate::sync::thread_local! {
    /// Something that this thread has sent waits behind much else (LIMIT-13).
    static BEHIND: Cell<bool> = const { Cell::new(false) };
}

/// Something that this thread sends has to wait behind much else.
pub(crate) fn note_behind() {
    let _torn_down = BEHIND.try_with(|behind| behind.set(true));
}

/// Whether something that this thread has sent since the last call waits behind much else: its sender is to
/// be slowed down.
#[cfg(feature = "server")]
pub(crate) fn take_behind() -> bool {
    BEHIND.try_with(|behind| behind.replace(false)).unwrap_or(false)
}
