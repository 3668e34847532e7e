//! Acknowledgements as a protocol on top of the session sees them (XEP-0198 §4).

use std::time::Duration;

use super::SessionHandle;
use crate::connection::SharedConnection;
#[cfg(feature = "server")]
use crate::session::outbound::Acknowledged;
use crate::session::outbound::{AckCheck, AckPolicy, Epoch};

impl<C: SharedConnection> SessionHandle<C> {
    /// Whether the session's transport is still the one of `epoch`.
    #[must_use]
    pub fn is_current(&self, epoch: Epoch) -> bool {
        let out = self.0.out.lock();
        !out.ended && out.link.is_some() && out.epoch == epoch
    }

    /// The stanza that is in work goes to another node: its number, where that is to be told by [`has_arrived`](Self::has_arrived).
    #[cfg(feature = "cluster")]
    pub(crate) fn sets_out(&self) -> Option<u32> {
        if self.is_retained() { self.0.out.lock().sets_out() } else { None }
    }

    /// That stanza is handled. Returned are the counts that the client is to be told.
    #[cfg(feature = "cluster")]
    pub(crate) fn has_arrived(&self, stanza: u32) -> Vec<u32> {
        self.0.out.lock().has_arrived(stanza)
    }

    /// The counts that the client has asked for and can be told now.
    #[cfg(feature = "cluster")]
    pub(crate) fn owed(&self) -> Vec<u32> {
        self.0.out.lock().owed()
    }

    /// Claims the right to write one `<r/>` as part of the write that is about to happen on
    /// the transport of `epoch` ([SM-24](crate::rules#sm-24)): true where it is time for one. While an earlier one is unanswered it is only
    /// after many more stanzas or bytes.
    #[must_use = "where it is true the client has to be asked"]
    pub fn claim_ack_request(&self, epoch: Epoch, policy: &AckPolicy) -> bool {
        if !self.is_retained() {
            return false;
        }
        let registry = &self.0.registry;
        let now = registry.now();
        let mut out = self.0.out.lock();
        out.epoch == epoch && out.claim_ask(policy, registry.limits(), now)
    }

    /// Claims the right to ask a silent client for a sign of life by an `<r/>` ([STREAM-29](crate::rules#stream-29)). `None`
    /// = nothing is retained for it; false = it is asked already.
    #[must_use = "where it is true the client has to be asked"]
    pub fn claim_sign_of_life(&self) -> Option<bool> {
        let now = self.0.registry.now();
        self.0.out.lock().claim_sign_of_life(now)
    }

    /// The client of a session that is retained says by itself what it has got.
    #[cfg(feature = "server")]
    pub(crate) fn never_ask(&self) {
        self.0.out.lock().never_ask();
    }

    /// The client has taken so many stanzas in all; `false` where the last one is not its any more, since the
    /// session has ended.
    #[cfg(feature = "server")]
    pub(crate) fn take(&self, handled: u32) -> bool {
        let taken = self.0.out.lock().acknowledge(handled);
        matches!(taken, Some(Acknowledged::Freed(_)))
    }

    /// When [`check_acks`](Self::check_acks) has something to do.
    #[must_use]
    pub fn check_acks_at(&self, policy: &AckPolicy) -> Option<Duration> {
        self.0.out.lock().check_at(policy)
    }

    /// Acts on the time that has passed: says whether the client is to be asked, or has been for
    /// too long, or has acknowledged nothing while as much waited for it as may ([LIMIT-10](crate::rules#limit-10)).
    pub fn check_acks(&self, policy: &AckPolicy) -> AckCheck {
        let registry = &self.0.registry;
        let now = registry.now();
        self.0.out.lock().check(policy, registry.limits(), now)
    }
}
