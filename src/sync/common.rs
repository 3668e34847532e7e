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
    ($name:ident: $type:ty $(, $add:ident $sub:ident)?) => {
        #[derive(Debug, Default)]
        pub(crate) struct $name(atomic::$name);

        #[allow(dead_code, reason = "not all of them in each build")]
        impl $name {
            pub(crate) const fn new(value: $type) -> Self {
                Self(atomic::$name::new(value))
            }

            /// To read it writes nothing.
            pub(crate) fn load(&self, order: Ordering) -> $type {
                self.0.load(order)
            }

            pub(crate) fn store(&self, value: $type, order: Ordering) {
                count();
                self.0.store(value, order);
            }

            pub(crate) fn swap(&self, value: $type, order: Ordering) -> $type {
                count();
                self.0.swap(value, order)
            }

            $(
                pub(crate) fn $add(&self, value: $type, order: Ordering) -> $type {
                    count();
                    self.0.$add(value, order)
                }

                pub(crate) fn $sub(&self, value: $type, order: Ordering) -> $type {
                    count();
                    self.0.$sub(value, order)
                }
            )?
        }
    };
}

counted!(AtomicBool: bool);
counted!(AtomicIsize: isize, fetch_add fetch_sub);
counted!(AtomicU64: u64, fetch_add fetch_sub);
counted!(AtomicUsize: usize, fetch_add fetch_sub);
