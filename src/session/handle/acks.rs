//! Acknowledgements as a protocol on top of the session sees them (XEP-0198 §4).

use std::time::Duration;

use super::SessionHandle;
use crate::connection::SharedConnection;
use crate::session::outbound::Due;
use crate::session::outbound::Outbound;

/// What a client acknowledged, and what of it was possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "an `h` is in range or it is not (SM-6)")]
pub enum Acknowledged {
    /// So many stanzas were freed.
    Freed(u32),
    /// The client claims more than it was sent; nothing has changed (SM-7).
    TooHigh {
        /// What it claimed.
        handled: u32,
        /// What it was sent.
        sent: u32,
    },
}

/// When a client is asked to acknowledge what it was sent (SM-24).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AckPolicy {
    /// Unacknowledged stanzas at which it is asked. Default: 5.
    pub stanzas: usize,
    /// How long a stanza may be unacknowledged before it is asked. Default: 5 s.
    pub time: Duration,
    /// How long it may take to answer. Default: 60 s.
    pub answer: Duration,
}

impl Default for AckPolicy {
    fn default() -> Self {
        Self { stanzas: 5, time: Duration::from_secs(5), answer: Duration::from_secs(60) }
    }
}

/// What [`SessionHandle::check_acks`] comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the client may have to be asked, or its transport given up"]
#[expect(clippy::exhaustive_enums, reason = "the caller has to act on each")]
pub enum AckCheck {
    /// Nothing is to be done.
    Quiet,
    /// The client is to be asked now. That is marked already.
    Ask,
    /// It was asked and has not answered, or not moved on: its transport is to be given up.
    Lost,
}

/// One transport of a session: what belongs to an older one has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport(pub(crate) u32);

impl<C: SharedConnection> Outbound<C> {
    pub(crate) fn take_acknowledgement(&mut self, handled: u32) -> Option<Acknowledged> {
        let sent = self.retained.as_ref().map(|r| r.acked.wrapping_add(r.sent))?;
        Some(
            self.acknowledge(handled)
                .map_or(Acknowledged::TooHigh { handled, sent }, Acknowledged::Freed),
        )
    }

    /// Stanzas handled since retention began.
    pub(crate) fn handled(&self) -> Option<u32> {
        self.retained.as_ref().map(|retained| self.received.wrapping_sub(retained.from))
    }
}

impl<C: SharedConnection> SessionHandle<C> {
    /// Whether this is the session's transport now.
    #[must_use]
    pub fn is_current(&self, transport: Transport) -> bool {
        let out = self.0.out.lock();
        !out.ended && out.link.is_some() && out.epoch == transport.0
    }

    /// Claims the right to write one `<r/>` as part of the write that is about to happen on
    /// `transport` (SM-24): true where it is time for one. While an earlier one is unanswered it is only
    /// after many more stanzas or bytes.
    #[must_use = "where it is true the client has to be asked"]
    pub fn claim_ack_request(&self, transport: Transport, policy: &AckPolicy) -> bool {
        let Some(registry) = self.0.registry.upgrade() else { return false };
        let now = registry.settings.environment.now();
        let mut out = self.0.out.lock();
        out.epoch == transport.0 && out.claim_ask(policy, &registry.settings.retention, now)
    }

    /// Claims the right to ask a silent client for a sign of life by an `<r/>` (STREAM-29). `None`
    /// = nothing is retained for it; false = it is asked already.
    #[must_use = "where it is true the client has to be asked"]
    pub fn claim_sign_of_life(&self) -> Option<bool> {
        let registry = self.0.registry.upgrade()?;
        let now = registry.settings.environment.now();
        self.0.out.lock().claim_sign_of_life(now)
    }

    /// When [`check_acks`](Self::check_acks) has something to do.
    #[must_use]
    pub fn check_acks_at(&self, policy: &AckPolicy) -> Option<Duration> {
        self.0.out.lock().check_at(policy)
    }

    /// Acts on the time that has passed: says whether the client is to be asked, or has been for
    /// too long, or has acknowledged nothing while as much waited for it as may (LIMIT-10).
    pub fn check_acks(&self, policy: &AckPolicy) -> AckCheck {
        let Some(registry) = self.0.registry.upgrade() else { return AckCheck::Quiet };
        let now = registry.settings.environment.now();
        let due = self.0.out.lock().check(policy, &registry.settings.retention, now);
        match due {
            Due::Nothing => AckCheck::Quiet,
            Due::Ask => AckCheck::Ask,
            Due::Silent => AckCheck::Lost,
        }
    }
}
