//! Distributions in fixed buckets (METRIC-3).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What a histogram counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unit {
    /// Times. Inside they are nanoseconds.
    Seconds,
    /// Sizes.
    Bytes,
}

impl Unit {
    /// The upper bounds of its buckets but the last one, in nanoseconds or bytes.
    const fn bounds(self) -> &'static [u64] {
        match self {
            Self::Seconds => &SECONDS,
            Self::Bytes => &BYTES,
        }
    }

    /// Its name in the text formats.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Seconds => "seconds",
            Self::Bytes => "bytes",
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "of times and sizes the first digits count")]
    pub(super) fn value(self, inside: u64) -> f64 {
        match self {
            Self::Seconds => inside as f64 / 1e9,
            Self::Bytes => inside as f64,
        }
    }
}

/// 100 µs to a minute.
const SECONDS: [u64; 15] = [
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    1_000_000_000,
    2_500_000_000,
    10_000_000_000,
    60_000_000_000,
];

/// Nothing to 16 MiB.
const BYTES: [u64; 8] = [0, 1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20, 1 << 24];

/// One more for what is above all bounds.
const MOST: usize = SECONDS.len() + 1;

/// Buckets as they are counted.
pub(super) struct Buckets {
    unit: Unit,
    counts: [AtomicU64; MOST],
    sum: AtomicU64,
}

impl Buckets {
    pub(super) const fn new(unit: Unit) -> Self {
        Self { unit, counts: [const { AtomicU64::new(0) }; MOST], sum: AtomicU64::new(0) }
    }

    pub(super) fn time(&self, time: Duration) {
        self.observe(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(super) fn bytes(&self, bytes: usize) {
        self.observe(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    fn observe(&self, value: u64) {
        let at = self.unit.bounds().partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get(at) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// What was counted in all of them.
    pub(super) fn read_all<'a>(all: impl Iterator<Item = &'a Self>) -> Histogram {
        let add = |mut sum: Histogram, one: Histogram| {
            sum.counts.iter_mut().zip(one.counts).for_each(|(sum, count)| *sum += count);
            sum.sum = sum.sum.wrapping_add(one.sum);
            sum
        };
        let none = || Self::new(Unit::Seconds).read();
        all.map(Self::read).reduce(add).unwrap_or_else(none)
    }

    pub(super) fn read(&self) -> Histogram {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let counts = self.counts.iter().take(self.unit.bounds().len() + 1).map(load).collect();
        Histogram { unit: self.unit, counts, sum: load(&self.sum) }
    }
}

/// A distribution: how many values were at most as large as each of some fixed bounds, and their sum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    unit: Unit,
    /// Of each bucket alone.
    counts: Vec<u64>,
    sum: u64,
}

impl Histogram {
    /// What was counted.
    #[must_use]
    pub const fn unit(&self) -> Unit {
        self.unit
    }

    /// How many values there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Their sum, in seconds or bytes.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.unit.value(self.sum)
    }

    /// Each upper bound, in seconds or bytes, and how many values were not above it. The last bound is
    /// infinity.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let bounds = self.unit.bounds().iter().map(|bound| self.unit.value(*bound));
        let mut all = 0;
        bounds.chain([f64::INFINITY]).zip(&self.counts).map(move |(bound, count)| {
            all += count;
            (bound, all)
        })
    }
}
