//! Directed presence ([RFC 6121 §4.6](https://www.rfc-editor.org/rfc/rfc6121#section-4.6), PRES-9…12).

use std::time::SystemTime;

use super::{ENDED, SessionHandle};
use crate::connection::SharedConnection;
use crate::rules::presence::TooManyTargets;
use crate::session::outbound::Validity;
use crate::stanza::Stanza;

impl<C: SharedConnection> SessionHandle<C> {
    /// Records that `target` (a JID as normalised text) is about to be sent directed presence, so
    /// that it will be told of the end
    /// ([RFC 6121 §4.6.3](https://www.rfc-editor.org/rfc/rfc6121#section-4.6.3)). Recorded first, sent
    /// after, for as long as what is returned is not void.
    ///
    /// # Errors
    ///
    /// [`TooManyTargets`] where the session has `limit` of them (LIMIT-17); nothing must be sent.
    pub fn record_directed(
        &self,
        target: &str,
        limit: usize,
    ) -> Result<Validity<'_>, TooManyTargets> {
        let mut state = self.0.presence.lock();
        if self.0.has(ENDED) {
            // Nobody reads the records again.
            return Ok(Validity::VOID);
        }
        state.change(|rare| rare.directed.record(target, limit))?;
        Ok(self.0.validity())
    }

    /// Forgets a target of directed presence (PRES-11).
    pub fn forget_directed(&self, target: &str) {
        self.0.presence.lock().change(|rare| rare.directed.forget(target));
    }

    /// Whether directed presence is held to this bare JID or a resource of it.
    #[must_use]
    pub fn has_directed_to(&self, bare: &str) -> bool {
        self.0.presence.lock().rare().is_some_and(|rare| rare.directed.reaches(bare))
    }

    /// The last broadcast presence and when it was sent.
    #[must_use]
    pub fn last_presence(&self) -> Option<(Stanza, SystemTime)> {
        self.present().map(|(stanza, at, _)| (stanza, at))
    }

    /// The same, and until when it is true.
    pub(crate) fn present(&self) -> Option<(Stanza, SystemTime, Validity<'_>)> {
        let state = self.0.presence.lock();
        let last = state.last.as_ref()?;
        Some((last.stanza.clone(), last.at.into(), self.0.validity()))
    }

    /// Until when what is said of the session now is true.
    #[cfg(feature = "server")]
    pub(crate) fn validity(&self) -> Validity<'_> {
        self.0.validity()
    }
}
