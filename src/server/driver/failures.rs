//! Logins that failed, by source: the next ones have to wait (LIMIT-29).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::environment::Environment;
use crate::server::limits::Rate;

/// How many logins of which source have failed of late.
pub(in crate::server) struct Failures {
    environment: Arc<dyn Environment>,
    rate: Option<Rate>,
    inside: Mutex<Remembered>,
}

#[derive(Default)]
struct Remembered {
    /// When all is forgotten. When this one is full it becomes the old one, and the old one is
    /// dropped.
    young: HashMap<u64, Duration>,
    old: HashMap<u64, Duration>,
}

impl Failures {
    pub(in crate::server) fn new(rate: Option<Rate>, environment: Arc<dyn Environment>) -> Self {
        Self { environment, rate, inside: Mutex::default() }
    }

    /// A login begins: what it counts as until it is known to be right, and when it may be looked at.
    pub(super) fn attempt(self: &Arc<Self>, key: u64) -> (Attempt, Option<Duration>) {
        let now = self.environment.now();
        let later = self.delay(key, now).map(|delay| now.saturating_add(delay));
        (Attempt { failures: Some(Arc::clone(self)), key }, later)
    }

    fn delay(&self, key: u64, now: Duration) -> Option<Duration> {
        let rate = self.rate?;
        let forgotten = self.inside.lock().forgotten(key)?;
        let each = rate.each();
        let over = forgotten.saturating_sub(now).saturating_sub(each.saturating_mul(rate.burst));
        let count = over.as_nanos().div_ceil(each.as_nanos().max(1));
        let doublings = u32::try_from(count.checked_sub(1)?).unwrap_or(u32::MAX);
        Some(FIRST_DELAY.saturating_mul(2_u32.saturating_pow(doublings)).min(LONGEST_DELAY))
    }

    fn failed(&self, key: u64) {
        let Some(rate) = self.rate else { return };
        let now = self.environment.now();
        let each = rate.each();
        // So that it is forgotten soon after it has stopped.
        let most = now.saturating_add(each.saturating_mul(rate.burst.saturating_add(MOST_OVER)));
        let mut inside = self.inside.lock();
        let forgotten = inside.forgotten(key).unwrap_or_default().max(now);
        if inside.young.len() >= MOST && !inside.young.contains_key(&key) {
            inside.old = std::mem::take(&mut inside.young);
        }
        inside.young.insert(key, forgotten.saturating_add(each).min(most));
    }
}

impl Remembered {
    fn forgotten(&self, key: u64) -> Option<Duration> {
        self.young.get(&key).or_else(|| self.old.get(&key)).copied()
    }
}

impl Rate {
    fn each(self) -> Duration {
        self.period / self.amount.max(1)
    }
}

/// A login under way: one that is given up has failed.
pub(super) struct Attempt {
    failures: Option<Arc<Failures>>,
    key: u64,
}

impl Attempt {
    /// It was right, or could not be checked.
    pub(super) fn forgive(mut self) {
        self.failures = None;
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(failures) = self.failures.take() {
            failures.failed(self.key);
        }
    }
}

const FIRST_DELAY: Duration = Duration::from_millis(250);

/// The longest that a login has to wait.
const LONGEST_DELAY: Duration = Duration::from_secs(8);

/// With so many too many the delay is the longest.
const MOST_OVER: u32 = 6;

/// So many sources are remembered, and up to twice as many.
const MOST: usize = 1 << 15;
