//! Failed logins by source: they delay the next ones (LIMIT-29).

use std::sync::Arc;
use std::time::Duration;

use crate::environment::Environment;
use crate::recent::Recent;
use crate::server::limits::Rate;
use crate::sync::common::Mutex;

/// The recently failed logins of each source.
pub(in crate::server) struct LoginFailures {
    environment: Arc<dyn Environment>,
    rate: Option<Rate>,
    /// When the failures of a source are forgotten.
    forgotten: Mutex<Recent<Duration>>,
}

impl LoginFailures {
    pub(in crate::server) fn new(rate: Option<Rate>, environment: Arc<dyn Environment>) -> Self {
        Self { environment, rate, forgotten: Mutex::new(Recent::new(MOST)) }
    }

    /// A login begins: it counts as failed unless it is forgiven, and may be checked at the given time.
    pub(super) fn begin(self: &Arc<Self>, key: u64) -> (LoginAttempt, Option<Duration>) {
        let now = self.environment.now();
        let later = self.delay(key, now).map(|delay| now.saturating_add(delay));
        (LoginAttempt { failures: Some(Arc::clone(self)), key }, later)
    }

    fn delay(&self, key: u64, now: Duration) -> Option<Duration> {
        let rate = self.rate?;
        let forgotten = self.forgotten.lock().get(&key)?;
        let each = rate.each();
        let over = forgotten.saturating_sub(now).saturating_sub(each.saturating_mul(rate.burst));
        let count = over.as_nanos().div_ceil(each.as_nanos().max(1));
        let doublings = u32::try_from(count.checked_sub(1)?).unwrap_or(u32::MAX);
        Some(FIRST_DELAY.saturating_mul(2_u32.saturating_pow(doublings)).min(LONGEST_DELAY))
    }
}

impl Rate {
    /// The time in which one comes back.
    pub(in crate::server) fn each(self) -> Duration {
        self.period / self.amount.max(1)
    }
}

/// A login under way. Dropped, it has failed.
pub(super) struct LoginAttempt {
    failures: Option<Arc<LoginFailures>>,
    key: u64,
}

impl LoginAttempt {
    /// It was right, or could not be checked.
    pub(super) fn forgive(mut self) {
        self.failures = None;
    }
}

impl Drop for LoginAttempt {
    fn drop(&mut self) {
        let Some(failures) = self.failures.take() else { return };
        let Some(rate) = failures.rate else { return };
        let (now, each) = (failures.environment.now(), rate.each());
        // A flood is forgotten soon after it has stopped.
        let most = now.saturating_add(each.saturating_mul(rate.burst.saturating_add(MOST_OVER)));
        let mut forgotten = failures.forgotten.lock();
        let before = forgotten.get(&self.key).unwrap_or_default().max(now);
        forgotten.insert(&self.key, before.saturating_add(each).min(most));
    }
}

/// The delay after the first failure beyond the burst.
const FIRST_DELAY: Duration = Duration::from_millis(250);

/// The longest delay.
const LONGEST_DELAY: Duration = Duration::from_secs(8);

/// So many failures beyond the burst bring the longest delay.
const MOST_OVER: u32 = 6;

/// Sources that are remembered, and up to twice as many.
const MOST: usize = 1 << 15;
