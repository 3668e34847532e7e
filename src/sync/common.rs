//! The same as in any build, and it counts who writes it.

use std::cell::Cell;
use std::sync::atomic::{self, Ordering};

use parking_lot::{MutexGuard, RwLockReadGuard, RwLockWriteGuard};

std::thread_local! {
    static WRITES: Cell<usize> = const { Cell::new(0) };
}

fn count() {
    WRITES.set(WRITES.get() + 1);
}

/// How often `work` writes, on this thread, what sessions of all accounts share.
#[cfg(feature = "server")]
pub(crate) fn writes(work: impl FnOnce()) -> usize {
    let before = WRITES.get();
    work();
    WRITES.get() - before
}

#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(parking_lot::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(parking_lot::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        count();
        self.0.lock()
    }
}

#[derive(Debug, Default)]
pub(crate) struct RwLock<T>(parking_lot::RwLock<T>);

impl<T> RwLock<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(parking_lot::RwLock::new(value))
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
        count();
        self.0.read()
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
        count();
        self.0.write()
    }
}

macro_rules! counted {
    ($name:ident: $type:ty, $($write:ident -> $before:ty),+) => {
        #[derive(Debug, Default)]
        pub(crate) struct $name(atomic::$name);

        impl $name {
            $(
                pub(crate) fn $write(&self, value: $type, order: Ordering) -> $before {
                    count();
                    self.0.$write(value, order)
                }
            )+
        }
    };
}

counted!(AtomicBool: bool, store -> (), swap -> bool);
counted!(AtomicIsize: isize, fetch_add -> isize);
counted!(AtomicU64: u64, fetch_add -> u64);
counted!(AtomicUsize: usize, store -> (), fetch_add -> usize, fetch_sub -> usize);

impl AtomicU64 {
    pub(crate) const fn new(value: u64) -> Self {
        Self(atomic::AtomicU64::new(value))
    }
}

// To read writes nothing.

impl AtomicIsize {
    pub(crate) fn load(&self, order: Ordering) -> isize {
        self.0.load(order)
    }
}

impl AtomicUsize {
    pub(crate) fn load(&self, order: Ordering) -> usize {
        self.0.load(order)
    }
}
