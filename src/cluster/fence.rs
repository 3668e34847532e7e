//! Until when a node may act (NODE-1, NODE-2).

use std::time::Duration;

use super::{Settings, broken};

/// The deadline of a node. Once it has passed it never comes back.
#[derive(Debug, Default)]
pub(super) struct Deadline {
    /// By the node's own clock; `None` before anything was asked of the engine, when there is nothing to act for.
    until: Option<Duration>,
    fenced: bool,
}

impl Deadline {
    /// Whether the node may act. Asked before anything else, also before an answer of the engine is looked at:
    /// whatever comes after the deadline comes too late.
    pub(super) fn may_act(&mut self, now: Duration, settings: &Settings) -> bool {
        let is_over = self.until.is_some_and(|until| now >= until);
        self.fenced |= is_over && !broken!(settings, NoDeadline);
        !self.fenced
    }

    /// Not again.
    pub(super) const fn fence(&mut self) {
        self.fenced = true;
    }

    /// A renewal is asked for. Of a first lease whose answer has not come the node cannot know when it ends, but not
    /// before this.
    pub(super) fn asked(&mut self, start: Duration, settings: &Settings) {
        self.until.get_or_insert_with(|| end(start, settings));
    }

    /// A renewal that was asked for at `start` is answered: the engine has counted from some moment after that.
    pub(super) fn renewed(&mut self, start: Duration, settings: &Settings) {
        self.until = self.until.max(Some(end(start, settings)));
    }

    pub(super) const fn until(&self) -> Option<Duration> {
        self.until
    }

    #[cfg(test)]
    pub(super) const fn revive(&mut self, until: Duration) {
        self.until = Some(until);
    }
}

fn end(start: Duration, settings: &Settings) -> Duration {
    let margin = if broken!(settings, NoMargin) { Duration::ZERO } else { settings.margin };
    start + settings.ttl.saturating_sub(margin)
}
