//! The locks and atomics of the crate, in one place so that a model checker can take theirs.

#[cfg(not(any(loom_model, shuttle)))]
pub(crate) use parking_lot::{Mutex, MutexGuard, RwLock};
#[cfg(not(any(loom_model, shuttle)))]
pub(crate) use std::sync::atomic;
#[cfg(not(any(loom_model, shuttle)))]
pub(crate) use std::thread_local;

#[cfg(any(loom_model, shuttle))]
pub(crate) use checked::{Mutex, MutexGuard, RwLock};
#[cfg(loom_model)]
pub(crate) use loom::sync::atomic;
#[cfg(shuttle)]
pub(crate) use shuttle::sync::atomic;
#[cfg(shuttle)]
pub(crate) use shuttle::thread_local;

/// `loom`'s knows no constant initialisers.
#[cfg(loom_model)]
macro_rules! checked_thread_local {
    ($(#[$meta:meta])* static $name:ident: $type:ty = const $init:block;) => {
        loom::thread_local! { $(#[$meta])* static $name: $type = $init; }
    };
}
#[cfg(loom_model)]
pub(crate) use checked_thread_local as thread_local;

/// A value on cache lines of its own: whoever writes it slows down nobody who has another (128 bytes: processors
/// fetch lines in pairs).
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);

/// The same value for each of some threads, so that what all of them write is shared by few.
#[cfg(feature = "server")]
#[derive(Debug)]
pub(crate) struct Striped<T>(Box<[Padded<T>]>);

#[cfg(feature = "server")]
impl<T> Striped<T> {
    /// As many as there are cores.
    pub(crate) fn new(make: impl Fn() -> T) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self((0..cores).map(|_| Padded(make())).collect())
    }

    /// That of this thread.
    #[expect(clippy::indexing_slicing, reason = "a remainder of the slice's length, which is not 0")]
    #[inline]
    pub(crate) fn own(&self) -> &T {
        &self.0[thread_number() % self.0.len()].0
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|stripe| &stripe.0)
    }
}

/// Threads are numbered as they come.
#[cfg(feature = "server")]
#[inline]
fn thread_number() -> usize {
    use std::cell::Cell;
    use std::sync::atomic::{AtomicUsize, Ordering};

    static LAST: AtomicUsize = AtomicUsize::new(0);
    std::thread_local! { static NUMBER: Cell<usize> = const { Cell::new(0) }; }
    let number = NUMBER.get();
    if number > 0 {
        return number;
    }
    NUMBER.set(LAST.fetch_add(1, Ordering::Relaxed) + 1);
    NUMBER.get()
}

/// A model checker's locks behind the interface of `parking_lot`'s: no poisoning.
#[cfg(any(loom_model, shuttle))]
mod checked {
    #[cfg(loom_model)]
    use loom::sync;
    #[cfg(shuttle)]
    use shuttle::sync;
    use std::sync::PoisonError;

    pub(crate) use sync::MutexGuard;
    use sync::{RwLockReadGuard, RwLockWriteGuard};

    #[derive(Debug)]
    pub(crate) struct Mutex<T>(sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    #[derive(Debug)]
    pub(crate) struct RwLock<T>(sync::RwLock<T>);

    impl<T> RwLock<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(sync::RwLock::new(value))
        }

        pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
            self.0.read().unwrap_or_else(PoisonError::into_inner)
        }

        pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
            self.0.write().unwrap_or_else(PoisonError::into_inner)
        }
    }
}
