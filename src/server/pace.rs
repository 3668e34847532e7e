//! How fast a client may send (LIMIT-19, LIMIT-20).

use std::time::Duration;

use super::builder::{Limits, Rate};

/// How long a client is not read from after a stanza that has to wait behind much else (LIMIT-13).
const SLOW: Duration = Duration::from_millis(250);

/// When the allowance of a rate would be full again: further ahead than the burst, and reading (or the
/// next broadcast) waits until it is not.
#[derive(Default)]
pub(super) struct Pace {
    stanzas: Duration,
    bytes: Duration,
    presence: Duration,
    /// From when on a broadcast of presence is in time.
    pub(super) broadcast: Option<Duration>,
    /// Until when reading pauses.
    pub(super) resume: Option<Duration>,
}

impl Pace {
    /// `true`: too many.
    pub(super) fn bytes(&mut self, bytes: usize, now: Duration, limits: &Limits) -> bool {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        Self::spend(&mut self.bytes, &mut self.resume, limits.bytes, bytes, now)
    }

    /// The limit that was exceeded.
    pub(super) fn stanza(
        &mut self,
        is_broadcast: bool,
        now: Duration,
        limits: &Limits,
    ) -> Option<&'static str> {
        let stanza = Self::spend(&mut self.stanzas, &mut self.resume, limits.stanzas, 1, now);
        let rate = limits.presence.filter(|_| is_broadcast);
        let presence = Self::spend(&mut self.presence, &mut self.broadcast, rate, 1, now);
        match (stanza, presence) {
            (true, _) => Some("LIMIT-20"),
            (false, true) => Some("LIMIT-19"),
            (false, false) => None,
        }
    }

    /// A stanza is here that is not to go before a broadcast that is not in time yet.
    pub(super) fn wait_for_broadcast(&mut self) {
        self.resume = self.resume.max(self.broadcast);
    }

    /// Something that the client has sent waits behind much else.
    pub(super) fn slow_down(&mut self, now: Duration) {
        let pause = now.saturating_add(SLOW);
        self.resume = Some(self.resume.map_or(pause, |at| at.max(pause)));
    }

    fn spend(
        full: &mut Duration,
        resume: &mut Option<Duration>,
        rate: Option<Rate>,
        amount: u32,
        now: Duration,
    ) -> bool {
        let Some(rate) = rate else { return false };
        let cost = |amount: u32| rate.period.saturating_mul(amount) / rate.amount.max(1);
        *full = (*full).max(now).saturating_add(cost(amount));
        let pause = full.saturating_sub(cost(rate.burst));
        if pause > now {
            *resume = Some(resume.map_or(pause, |at| at.max(pause)));
        }
        pause > now
    }
}
