//! What a session's presence lock guards.

use crate::environment::Nanos;
use crate::rules::presence::Directed;
use crate::session::account::Values;
#[cfg(feature = "server")]
use crate::session::registry::Inheritance;
use crate::stanza::Stanza;

/// What a session's presence lock guards.
#[derive(Default)]
pub(crate) struct PresenceState {
    pub(crate) last: Option<Box<Last>>,
    /// What most sessions do without.
    rare: Option<Box<Rare>>,
}

/// The last broadcast presence.
pub(crate) struct Last {
    pub(crate) stanza: Stanza,
    pub(crate) at: Nanos,
}

#[derive(Default)]
pub(crate) struct Rare {
    pub(crate) directed: Directed,
    /// Of extensions: here because this lock has a place for a pointer.
    pub(crate) values: Values,
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
        self.directed.is_empty() && self.values.is_empty()
    }
}

/// What was taken from a session that is no longer available.
pub(crate) struct Gone {
    /// Its priority, if it was available.
    pub(crate) before: Option<i8>,
    pub(crate) directed: Directed,
}

impl PresenceState {
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
