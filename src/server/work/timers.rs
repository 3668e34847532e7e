//! Deadlines of work that waits for the host.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;

use crate::environment::Environment;

/// Who is to be woken when.
pub(crate) struct Timers {
    environment: Arc<dyn Environment>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    wakers: BTreeMap<(Duration, u64), Waker>,
}

impl Timers {
    pub(crate) fn new(environment: Arc<dyn Environment>) -> Self {
        Self { environment, waiting: Mutex::default() }
    }

    /// What `future` comes to, if it does so within `time`.
    pub(crate) async fn within<T>(
        &self,
        time: Duration,
        future: impl Future<Output = T>,
    ) -> Option<T> {
        let deadline = self.environment.now().saturating_add(time);
        let mut future = pin!(future);
        let mut alarm = Alarm { timers: self, key: None };
        poll_fn(|cx| {
            if let Poll::Ready(value) = future.as_mut().poll(cx) {
                return Poll::Ready(Some(value));
            }
            if self.environment.now() >= deadline {
                return Poll::Ready(None);
            }
            alarm.set(deadline, cx.waker());
            Poll::Pending
        })
        .await
    }

    /// When [`fire`](Self::fire) has somebody to wake.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.waiting.lock().wakers.keys().next().map(|(at, _)| *at)
    }

    /// Wakes whose time has come.
    pub(crate) fn fire(&self) {
        let now = self.environment.now();
        loop {
            let waker = {
                let mut waiting = self.waiting.lock();
                match waiting.wakers.first_entry() {
                    Some(first) if first.key().0 <= now => first.remove(),
                    _ => return,
                }
            };
            waker.wake();
        }
    }
}

/// A place among those who wait, given up on drop.
struct Alarm<'a> {
    timers: &'a Timers,
    key: Option<(Duration, u64)>,
}

impl Alarm<'_> {
    fn set(&mut self, at: Duration, waker: &Waker) {
        let mut waiting = self.timers.waiting.lock();
        let key = *self.key.get_or_insert_with(|| {
            waiting.next = waiting.next.wrapping_add(1);
            (at, waiting.next)
        });
        waiting.wakers.insert(key, waker.clone());
    }
}

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.timers.waiting.lock().wakers.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::Virtual;
    use std::future::pending;
    use std::task::Context;

    #[test]
    fn what_takes_too_long_is_given_up() {
        let world = Arc::new(Virtual::new(1));
        let timers = Timers::new(Arc::clone(&world) as Arc<dyn Environment>);
        let cx = &mut Context::from_waker(Waker::noop());
        let mut wait = pin!(timers.within(Duration::from_secs(5), pending::<()>()));
        assert!(wait.as_mut().poll(cx).is_pending());
        assert_eq!(timers.next(), Some(Duration::from_secs(5)));
        world.advance(Duration::from_secs(5));
        timers.fire();
        assert_eq!(timers.next(), None);
        assert_eq!(wait.poll(cx), Poll::Ready(None));
    }

    #[test]
    fn what_is_quick_leaves_nothing_behind() {
        let timers = Timers::new(Arc::new(Virtual::new(1)));
        let cx = &mut Context::from_waker(Waker::noop());
        let wait = pin!(timers.within(Duration::from_secs(5), async { 3 }));
        assert_eq!(wait.poll(cx), Poll::Ready(Some(3)));
        assert_eq!(timers.next(), None);
    }
}
