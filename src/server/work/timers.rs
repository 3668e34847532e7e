//! Deadlines of work that waits for code of the host.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::environment::Environment;
use crate::sync::common::Mutex;

/// What is to be woken when.
pub(crate) struct Timers {
    environment: Arc<dyn Environment>,
    wakers: Mutex<Wakers>,
}

#[derive(Default)]
struct Wakers {
    last: u64,
    by_time: BTreeMap<(Duration, u64), Waker>,
}

impl Timers {
    pub(crate) fn new(environment: Arc<dyn Environment>) -> Self {
        Self { environment, wakers: Mutex::default() }
    }

    /// The output of `future`, if it is ready within `time`.
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

    /// When [`fire`](Self::fire) has something to wake.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.wakers.lock().by_time.keys().next().map(|(at, _)| *at)
    }

    /// Wakes what is due.
    pub(crate) fn fire(&self) {
        let now = self.environment.now();
        loop {
            let waker = {
                let mut wakers = self.wakers.lock();
                match wakers.by_time.first_entry() {
                    Some(first) if first.key().0 <= now => first.remove(),
                    _ => return,
                }
            };
            waker.wake();
        }
    }
}

/// An entry in the table of wakers, removed on drop.
struct Alarm<'a> {
    timers: &'a Timers,
    key: Option<(Duration, u64)>,
}

impl Alarm<'_> {
    fn set(&mut self, at: Duration, waker: &Waker) {
        let mut wakers = self.timers.wakers.lock();
        let key = *self.key.get_or_insert_with(|| {
            wakers.last = wakers.last.wrapping_add(1);
            (at, wakers.last)
        });
        wakers.by_time.insert(key, waker.clone());
    }
}

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.timers.wakers.lock().by_time.remove(&key);
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
