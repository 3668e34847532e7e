//! What a session's presence lock guards, directed presence
//! ([RFC 6121 §4.6](https://www.rfc-editor.org/rfc/rfc6121#section-4.6), PRES-9…12) among it.

use std::num::NonZeroU64;
use std::time::SystemTime;

use super::{ENDED, SessionHandle};
use crate::connection::SharedConnection;
use crate::environment::Nanos;
use crate::rules::presence::{Directed, TooManyTargets};
use crate::session::account::Values;
use crate::session::outbound::Validity;
#[cfg(feature = "server")]
use crate::session::registry::Inheritance;
use crate::stanza::Stanza;

#[derive(Default)]
pub(crate) struct PresenceState {
    pub(crate) last: Option<Box<Last>>,
    /// What most sessions do without.
    rare: Option<Box<Rare>>,
}

pub(crate) struct Last {
    pub(crate) stanza: Stanza,
    pub(crate) at: Nanos,
}

#[derive(Default)]
pub(crate) struct Rare {
    pub(crate) directed: Directed,
    /// Of extensions: here because this lock has a place for a pointer.
    pub(crate) values: Values,
    /// A digest of the id of its client, where that has said one.
    pub(crate) client: Option<NonZeroU64>,
    /// What the session before it on its resource had not acknowledged.
    #[cfg(feature = "server")]
    pub(crate) inheritance: Option<Box<Inheritance>>,
}

impl Rare {
    fn is_empty(&self) -> bool {
        #[cfg(feature = "server")]
        if self.inheritance.is_some() {
            return false;
        }
        self.directed.is_empty() && self.values.is_empty() && self.client.is_none()
    }
}

/// What was taken from a session that is no longer available.
pub(crate) struct Gone {
    /// Its priority, if it was available.
    pub(crate) before: Option<i8>,
    pub(crate) directed: Directed,
}

impl PresenceState {
    pub(crate) fn new(values: Values, client: Option<NonZeroU64>) -> Self {
        let mut state = Self::default();
        state.change(|rare| (rare.values, rare.client) = (values, client));
        state
    }

    pub(crate) fn rare(&self) -> Option<&Rare> {
        self.rare.as_deref()
    }

    pub(crate) fn change<T>(&mut self, change: impl FnOnce(&mut Rare) -> T) -> T {
        let mut none = Rare::default();
        let rare = self.rare.as_deref_mut().unwrap_or(&mut none);
        let result = change(rare);
        if rare.is_empty() {
            self.rare = None;
        } else if self.rare.is_none() {
            self.rare = Some(Box::new(none));
        }
        result
    }

    pub(crate) fn take(&mut self, before: Option<i8>) -> Gone {
        self.last = None;
        Gone { before, directed: self.change(|rare| std::mem::take(&mut rare.directed)) }
    }
}

impl<C: SharedConnection> SessionHandle<C> {
    /// Records that `target` (a JID as normalised text) is about to be sent directed presence, so
    /// that it will be told of the end
    /// ([RFC 6121 §4.6.3](https://www.rfc-editor.org/rfc/rfc6121#section-4.6.3)). Recorded first, sent
    /// after, for as long as what is returned is not void.
    ///
    /// # Errors
    ///
    /// [`TooManyTargets`] where the session has `limit` of them ([LIMIT-17](crate::rules#limit-17)); nothing must be sent.
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

    /// Forgets a target of directed presence ([PRES-11](crate::rules#pres-11)).
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
