//! Directed presence ([RFC 6121 §4.6](https://www.rfc-editor.org/rfc/rfc6121#section-4.6), PRES-9…12).

use std::time::SystemTime;

use super::{ENDED, SessionHandle};
use crate::connection::SharedConnection;
use crate::rules::presence::TooManyTargets;
use crate::session::outbound::{Item, To, Valid};
use crate::stanza::Stanza;
use crate::sync::atomic::Ordering;

impl<C: SharedConnection> SessionHandle<C> {
    /// Records that `target` (a JID as normalised text) is about to be sent directed presence, so
    /// that it will be told of the end
    /// ([RFC 6121 §4.6.3](https://www.rfc-editor.org/rfc/rfc6121#section-4.6.3)). Recorded first,
    /// then sent with [`give_directed`](Self::give_directed) under the number returned.
    ///
    /// # Errors
    ///
    /// [`TooManyTargets`] where the session has `limit` of them (LIMIT-17); nothing must be sent.
    pub fn record_directed(&self, target: &str, limit: usize) -> Result<u32, TooManyTargets> {
        let mut state = self.0.presence.lock();
        let number = self.0.number.load(Ordering::SeqCst);
        if self.0.flags.load(Ordering::SeqCst) & ENDED != 0 {
            // Nobody reads the records any more: what is sent now is void from the start.
            return Ok(number.wrapping_sub(1));
        }
        state.change(|rare| rare.directed.record(target, limit))?;
        Ok(number)
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
        self.numbered_presence().map(|(stanza, at, _)| (stanza, at))
    }

    /// The same with its number.
    pub(crate) fn numbered_presence(&self) -> Option<(Stanza, SystemTime, u32)> {
        let state = self.0.presence.lock();
        let number = self.0.number.load(Ordering::SeqCst);
        state.last.as_ref().map(|last| (last.stanza.clone(), last.at.into(), number))
    }

    /// The number of the session's presence: another one with each change of it, and at its end.
    #[cfg(feature = "server")]
    pub(crate) fn number(&self) -> u32 {
        self.0.number.load(Ordering::SeqCst)
    }

    /// Whether the session's presence is still the one of this number.
    #[cfg(feature = "server")]
    pub(crate) fn is_at(&self, number: u32) -> bool {
        Valid { of: &self.0.number, number }.holds()
    }

    /// Gives this session presence that `source` had, or recorded a target of, under `number`;
    /// dropped if the source has moved on, so that it never comes behind its end (PRES-21).
    pub fn give_directed(&self, stanza: &Stanza, source: &Self, number: u32) {
        let valid = Valid { of: &source.0.number, number };
        let _gone = self.send_item(Item::Stanza(stanza, To::AsIs), Some(&valid));
    }
}
