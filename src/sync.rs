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
