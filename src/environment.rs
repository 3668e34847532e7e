//! Time and randomness, given by the host.
//!
//! Everything but the loops of `host` takes both from an [`Environment`], so that a whole server runs
//! deterministically in a test, on a [`Virtual`] one whose clock is moved by hand. Most
//! hosts use `System`, from the default feature `system`.

use std::fmt;
use std::num::NonZeroU64;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

/// What the crate needs from the outside world.
///
/// For hosts to implement where neither of the ready ones fits. No lock of this crate is held
/// while a method runs.
///
/// # Examples
///
/// ```
/// use std::time::{Duration, Instant, SystemTime};
/// use xmpp_session::environment::Environment;
///
/// /// Random numbers from a module of the host's own.
/// struct World {
///     start: Instant,
///     generator: fn(&mut [u8]),
/// }
///
/// impl Environment for World {
///     fn now(&self) -> Duration {
///         self.start.elapsed()
///     }
///
///     fn utc(&self) -> SystemTime {
///         SystemTime::now()
///     }
///
///     fn random(&self, out: &mut [u8]) {
///         (self.generator)(out); // cryptographically secure
///     }
/// }
/// ```
pub trait Environment: Send + Sync + 'static {
    /// Monotonic time since any fixed moment; it never goes back. Where the server is one of several nodes that moment
    /// should be long before its start: what comes from another node may have happened before.
    fn now(&self) -> Duration;

    /// The time of day, for what other entities read (XEP-0203 stamps).
    fn utc(&self) -> SystemTime;

    /// Fills `out` from a cryptographically secure generator ([SEC-1](crate::rules#sec-1)): stream ids, resources and
    /// resumption ids are made from it.
    fn random(&self, out: &mut [u8]);
}

/// Hex digits of `N` random bytes: `N = 16` gives the 128 bits that rule STREAM-10 asks for.
pub(crate) fn random_hex<const N: usize>(environment: &dyn Environment) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut bytes = [0; N];
    environment.random(&mut bytes);
    let digit = |n: u8| DIGITS.get(usize::from(n)).copied().map_or('0', char::from);
    bytes.iter().flat_map(|b| [digit(b >> 4), digit(b & 15)]).collect()
}

/// The operating system's clocks and random numbers.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use xmpp_session::environment::System;
/// use xmpp_session::outbox::Outbox;
/// use xmpp_session::session::SessionRegistry;
///
/// let registry: SessionRegistry<Arc<Outbox>> =
///     SessionRegistry::builder(Arc::new(System::new())).build();
/// assert!(registry.is_empty());
/// ```
#[cfg(feature = "system")]
#[derive(Clone, Copy)]
pub struct System {
    start: std::time::Instant,
}

/// Zero is so long before the start: what comes from another node may have happened before this one began (NODE-9).
#[cfg(feature = "system")]
const BEFORE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

#[cfg(feature = "system")]
impl System {
    /// An environment whose monotonic clock starts now, at thirty days.
    #[must_use]
    pub fn new() -> Self {
        Self { start: std::time::Instant::now() }
    }
}

#[cfg(feature = "system")]
impl Default for System {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(feature = "system")]
impl fmt::Debug for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("System")
    }
}

#[cfg(feature = "system")]
impl Environment for System {
    fn now(&self) -> Duration {
        self.start.elapsed() + BEFORE
    }

    fn utc(&self) -> SystemTime {
        SystemTime::now()
    }

    /// # Panics
    ///
    /// If the operating system has no random numbers: going on would make secrets that can be
    /// guessed.
    #[expect(clippy::expect_used, reason = "no secret may be made without entropy")]
    fn random(&self, out: &mut [u8]) {
        getrandom::fill(out).expect("the operating system gives random numbers");
    }
}

/// A world for tests: the clock moves only when told to, random numbers follow from a seed.
///
/// Never give it to a server that strangers can reach: its secrets can be computed.
///
/// ```
/// use std::time::Duration;
/// use xmpp_session::environment::{Environment, Virtual};
///
/// let world = Virtual::new(7);
/// world.advance(Duration::from_secs(5));
/// assert_eq!(world.now(), Duration::from_secs(5));
/// ```
pub struct Virtual {
    state: Mutex<VirtualState>,
}

struct VirtualState {
    now: Duration,
    /// How far the time of day was set back.
    behind: Duration,
    seed: u64,
}

impl Virtual {
    /// A world at time zero whose random numbers follow from `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self {
            state: Mutex::new(VirtualState { now: Duration::ZERO, behind: Duration::ZERO, seed }),
        }
    }

    /// Moves both clocks on by `time`.
    pub fn advance(&self, time: Duration) {
        self.state.lock().now += time;
    }

    /// Sets the time of day back by `time`, as whoever has a machine may; monotonic time goes on.
    pub fn set_back(&self, time: Duration) {
        self.state.lock().behind += time;
    }
}

impl fmt::Debug for Virtual {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Virtual").field("now", &self.now()).finish_non_exhaustive()
    }
}

impl Environment for Virtual {
    fn now(&self) -> Duration {
        self.state.lock().now
    }

    /// 2026-01-01T00:00:00Z plus the monotonic time, less what it was [set back](Virtual::set_back) by.
    fn utc(&self) -> SystemTime {
        let state = self.state.lock();
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600) + state.now - state.behind
    }

    fn random(&self, out: &mut [u8]) {
        let mut state = self.state.lock();
        for chunk in out.chunks_mut(8) {
            // SplitMix64, public domain: well spread, and two worlds of one seed agree.
            state.seed = state.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state.seed;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^= z >> 31;
            for (to, from) in chunk.iter_mut().zip(z.to_le_bytes()) {
                *to = from;
            }
        }
    }
}

/// A time to be kept, in eight bytes instead of sixteen, also where there may be none: nanoseconds
/// from the zero of its clock, for 584 years.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Nanos(
    /// One more, so that zero is none.
    NonZeroU64,
);

impl From<Duration> for Nanos {
    fn from(time: Duration) -> Self {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Self(NonZeroU64::MIN.saturating_add(nanos))
    }
}

impl From<Nanos> for Duration {
    fn from(time: Nanos) -> Self {
        Self::from_nanos(time.0.get() - 1)
    }
}

impl Default for Nanos {
    fn default() -> Self {
        Duration::ZERO.into()
    }
}

impl From<SystemTime> for Nanos {
    fn from(time: SystemTime) -> Self {
        time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().into()
    }
}

impl From<Nanos> for SystemTime {
    fn from(time: Nanos) -> Self {
        Self::UNIX_EPOCH + Duration::from(time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sec_1_virtual_worlds_of_one_seed_agree_and_do_not_repeat() {
        let (a, b) = (Virtual::new(1), Virtual::new(1));
        let first = random_hex::<16>(&a);
        assert_eq!(first, random_hex::<16>(&b));
        assert_ne!(first, random_hex::<16>(&a));
        assert_eq!(first.len(), 32);
    }

    #[test]
    fn kept_times_come_back_as_they_were() {
        let world = Virtual::new(1);
        world.advance(Duration::new(86_400, 123_456_789));
        assert_eq!(Duration::from(Nanos::from(world.now())), world.now());
        assert_eq!(SystemTime::from(Nanos::from(world.utc())), world.utc());
        let before = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(SystemTime::from(Nanos::from(before)), SystemTime::UNIX_EPOCH);
        assert!(Nanos::from(world.now()) > Nanos::default());
        assert_eq!(Duration::from(Nanos::default()), Duration::ZERO);
        assert_eq!(size_of::<Option<Nanos>>(), 8);
        assert!(
            Duration::from(Nanos::from(Duration::MAX)) > Duration::from_secs(500 * 365 * 86_400)
        );
    }
}
