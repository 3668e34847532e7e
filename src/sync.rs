//! The locks and atomics of the crate, in one place so that a model checker can take theirs.

#[cfg(not(any(loom_model, shuttle)))]
pub(crate) use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
#[cfg(not(any(loom_model, shuttle)))]
pub(crate) use std::sync::atomic;
#[cfg(not(any(loom_model, shuttle)))]
pub(crate) use std::thread_local;

use atomic::Ordering;

#[cfg(any(loom_model, shuttle))]
pub(crate) use checked::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
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
pub(crate) struct Padded<T> {
    value: T,
}

impl<T> Padded<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self { value }
    }
}

impl<T> std::ops::Deref for Padded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// What sessions of all accounts share. In the unit tests it counts who writes it: on the way of a message nobody
/// does. (The lock of a reader is a write as well.)
#[cfg(not(all(test, not(any(loom_model, shuttle)))))]
pub(crate) mod common {
    pub(crate) use super::atomic::{AtomicBool, AtomicIsize, AtomicU64, AtomicUsize};
    pub(crate) use super::{Mutex, RwLock};
}
#[cfg(all(test, not(any(loom_model, shuttle))))]
pub(crate) mod common;

/// At most.
const STRIPES: usize = 1 << 10;

/// The same value for each of some threads, so that what all of them write is shared by few.
#[derive(Debug)]
pub(crate) struct Striped<T>(Box<[Padded<T>]>);

impl<T> Striped<T> {
    /// As many as there are cores, or a few more.
    pub(crate) fn new(make: impl Fn() -> T) -> Self {
        let stripes = for_each_core(1, 1, STRIPES);
        Self((0..stripes).map(|_| Padded::new(make())).collect())
    }

    /// That of this thread.
    #[expect(
        clippy::indexing_slicing,
        reason = "a remainder of the slice's length, which is a power of two"
    )]
    #[inline]
    pub(crate) fn own(&self) -> &T {
        &self.0[thread_number() & (self.0.len() - 1)]
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|stripe| &**stripe)
    }
}

/// A sum that each thread adds to by itself. It is exact; who compares it with a limit that is far away looks only at
/// what is written once in many additions.
#[derive(Debug)]
pub(crate) struct Tally {
    /// What the threads have handed on.
    sum: Padded<common::AtomicIsize>,
    rest: Striped<atomic::AtomicIsize>,
    /// What a thread keeps to itself at most.
    batch: isize,
}

impl Tally {
    /// To be compared with about `limit`.
    pub(crate) fn new(limit: usize) -> Self {
        let rest = Striped::new(|| atomic::AtomicIsize::new(0));
        // Together they keep a sixteenth of the limit.
        let batch = (limit / 16 / rest.0.len()).min(BATCH);
        let batch = isize::try_from(batch).unwrap_or(0);
        Self { sum: Padded::default(), rest, batch }
    }

    /// A difference is given as what it wraps to.
    #[inline]
    pub(crate) fn add(&self, bytes: isize) {
        let own = self.rest.own();
        let rest = own.fetch_add(bytes, Ordering::SeqCst).wrapping_add(bytes);
        if rest.unsigned_abs() > self.batch.unsigned_abs() {
            self.sum.fetch_add(own.swap(0, Ordering::SeqCst), Ordering::SeqCst);
        }
    }

    /// The exact sum; while a thread hands on what it has added up, that may be missing.
    pub(crate) fn get(&self) -> usize {
        let rest = self.rest.all().map(|rest| rest.load(Ordering::SeqCst));
        let sum = rest.fold(self.sum.load(Ordering::SeqCst), isize::wrapping_add);
        usize::try_from(sum).unwrap_or(0)
    }

    /// Whether it is more than that.
    #[inline]
    pub(crate) fn exceeds(&self, limit: usize) -> bool {
        let most = self.batch.saturating_mul(self.rest.0.len().cast_signed());
        let most = self.sum.load(Ordering::SeqCst).saturating_add(most);
        most > limit.try_into().unwrap_or(isize::MAX) && self.get() > limit
    }
}

/// Bytes that a thread adds up by itself, at most.
const BATCH: usize = 64 << 10;

/// Threads are numbered as they come.
#[inline]
fn thread_number() -> usize {
    use std::cell::Cell;
    use std::sync::atomic::AtomicUsize;

    static LAST: AtomicUsize = AtomicUsize::new(0);
    std::thread_local! { static NUMBER: Cell<usize> = const { Cell::new(0) }; }
    let number = NUMBER.get();
    if number > 0 {
        return number;
    }
    NUMBER.set(LAST.fetch_add(1, Ordering::Relaxed) + 1);
    NUMBER.get()
}

/// As many of something as keep the cores apart: a power of two.
pub(crate) fn for_each_core(many: usize, least: usize, most: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    cores.saturating_mul(many).clamp(least, most).next_power_of_two()
}

/// A model checker's locks behind the interface of `parking_lot`'s: no poisoning.
#[cfg(any(loom_model, shuttle))]
mod checked {
    #[cfg(loom_model)]
    use loom::sync;
    #[cfg(shuttle)]
    use shuttle::sync;
    use std::sync::PoisonError;

    pub(crate) use sync::{MutexGuard, RwLockReadGuard, RwLockWriteGuard};

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

    impl<T: Default> Default for Mutex<T> {
        fn default() -> Self {
            Self::new(T::default())
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
