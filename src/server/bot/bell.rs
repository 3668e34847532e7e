//! Several waiters behind one waker.

use std::sync::Arc;
use std::task::{Wake, Waker};

use parking_lot::Mutex;

use crate::shield::shielded;

/// Wakes everybody who waits for one driver, which knows a single waker.
#[derive(Default)]
pub(super) struct Bell(Mutex<Waiters>);

#[derive(Default)]
struct Waiters {
    next: u64,
    wakers: Vec<(u64, Waker)>,
}

impl Bell {
    pub(super) fn ring(&self) {
        let wakers = std::mem::take(&mut self.0.lock().wakers);
        // Host code: without the lock.
        for (_, waker) in wakers {
            shielded(|| waker.wake());
        }
    }
}

impl Bell {
    /// The one that takes what comes waits, too.
    #[cfg(feature = "cluster")]
    pub(super) fn reader_waits(&self, waker: &Waker) {
        let old = self.put(0, waker.clone());
        drop(old);
    }

    /// Whoever has this number waits with this waker from now on.
    fn put(&self, number: u64, waker: Waker) -> Option<Waker> {
        let mut waiters = self.0.lock();
        match waiters.wakers.iter_mut().find(|(known, _)| *known == number) {
            Some((_, place)) => Some(std::mem::replace(place, waker)),
            None => {
                waiters.wakers.push((number, waker));
                None
            }
        }
    }

    /// A number of its own: never nought.
    fn number(&self) -> u64 {
        let mut waiters = self.0.lock();
        waiters.next += 1;
        waiters.next
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }
}

/// One that waits for the bell, until it is dropped.
pub(super) struct Waiting<'a> {
    bell: &'a Bell,
    number: Option<u64>,
}

impl<'a> Waiting<'a> {
    pub(super) const fn new(bell: &'a Bell) -> Self {
        Self { bell, number: None }
    }

    pub(super) fn wait(&mut self, waker: &Waker) {
        let number = *self.number.get_or_insert_with(|| self.bell.number());
        let old = self.bell.put(number, waker.clone());
        drop(old);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let mut waiters = self.bell.0.lock();
        let at = waiters.wakers.iter().position(|(known, _)| *known == number);
        let gone = at.map(|at| waiters.wakers.swap_remove(at));
        drop(waiters);
        drop(gone);
    }
}
