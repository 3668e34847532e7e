//! How much is kept for clients that may come back, of one and of all.

use std::sync::Arc;
use std::time::Duration;

use crate::sync::Tally;

/// How much is kept for clients that may come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetentionLimits {
    /// Stanzas that may come for a session while it has no transport ([LIMIT-10](crate::rules#limit-10)). Default: 1000.
    pub stanzas: usize,
    /// Stanzas that wait for one with a transport, unacknowledged or unwritten ([LIMIT-10](crate::rules#limit-10)). Default:
    /// 10,000. What has waited in a store does not count, since that has limits of its own, nor does
    /// the presence of other sessions, of which one each is enough.
    pub live_stanzas: usize,
    /// The bytes of either ([LIMIT-10](crate::rules#limit-10)). Default: 6 MiB.
    pub bytes: usize,
    /// How long a client for which that much waits may acknowledge nothing, before its transport is
    /// given up ([LIMIT-10](crate::rules#limit-10)). Default: 60 s.
    pub grace: Duration,
    /// Bytes that wait for all sessions together ([LIMIT-11](crate::rules#limit-11)). Default: 256 MiB.
    pub all_bytes: usize,
    /// Stanzas that are held back from one client ([LIMIT-14](crate::rules#limit-14)). Default: 200.
    pub held_stanzas: usize,
    /// Their bytes ([LIMIT-14](crate::rules#limit-14)). Default: 256 KiB.
    pub held_bytes: usize,
    /// The longest that a session may be without a transport ([LIMIT-12](crate::rules#limit-12)). Default: 600 s.
    pub window: Duration,
    /// Last `h` of ended sessions that are remembered for one account ([LIMIT-12](crate::rules#limit-12)). Default: 10.
    pub remembered: usize,
    /// How long they are ([LIMIT-12](crate::rules#limit-12)). Default: 24 h.
    pub remembered_for: Duration,
}

impl Default for RetentionLimits {
    fn default() -> Self {
        Self {
            stanzas: 1000,
            live_stanzas: 10_000,
            bytes: 6 << 20,
            grace: Duration::from_secs(60),
            all_bytes: 256 << 20,
            held_stanzas: 200,
            held_bytes: 256 << 10,
            window: Duration::from_secs(600),
            remembered: 10,
            remembered_for: Duration::from_secs(24 * 60 * 60),
        }
    }
}

/// A session's part of the bytes of all queues (LIMIT-11), given back on drop.
pub(crate) struct Share {
    all: Arc<Tally>,
    bytes: usize,
}

impl Share {
    pub(crate) fn new(all: &Arc<Tally>) -> Self {
        Self { all: Arc::clone(all), bytes: 0 }
    }

    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn set(&mut self, bytes: usize) {
        if bytes != self.bytes {
            self.all.add(bytes.wrapping_sub(self.bytes).cast_signed());
        }
        self.bytes = bytes;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// A number that is kept in four bytes.
pub(super) fn small(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
