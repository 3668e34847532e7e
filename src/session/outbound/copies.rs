//! One message on its way to several sessions of an account.

use std::fmt;
use std::sync::Arc;

use crate::stanza::Stanza;
use crate::sync::atomic::{AtomicU32, Ordering};

/// Counts the sessions that have, or may still get, one message to several sessions of an account, as
/// it is or as a carbon copy. A host makes one for each such message and hands it to
/// [`Item::copy_of`](super::Item::copy_of).
///
/// A session that ends with an unacknowledged copy leaves it ([`Leftover`](crate::session::Leftover)) only
/// if no other session has received it or still may: of several that die, the last one leaves it
/// ([SM-17](crate::rules#sm-17)).
///
/// ```text
/// let copies = Copies::of(&message);
/// sessions.each(|session| session.send_item(&Item::new(&message).copy_of(&copies)));
/// if copies.release() { /* nobody has it: route it again */ }
/// ```
#[derive(Clone)]
pub struct Copies(pub(super) Arc<Counted>);

pub(super) struct Counted {
    pub(super) message: Stanza,
    pub(super) count: AtomicU32,
    /// How many of those have acknowledged it, or have a transport to get it by.
    pub(super) at_hand: AtomicU32,
    /// Extensions know that it waits.
    #[cfg(feature = "server")]
    pub(super) told: AtomicU32,
}

impl Copies {
    /// No copy of `message` yet, but its sender counts as one: until that [releases](Self::release) it,
    /// no copy is the last one.
    #[must_use]
    pub fn of(message: &Stanza) -> Self {
        Self(Arc::new(Counted {
            message: message.clone(),
            count: AtomicU32::new(1),
            at_hand: AtomicU32::new(1),
            #[cfg(feature = "server")]
            told: AtomicU32::new(0),
        }))
    }

    /// The message itself, whatever form a copy has.
    #[must_use]
    pub fn message(&self) -> &Stanza {
        &self.0.message
    }

    /// One more session has it; `at_hand`: its client can get it now.
    pub(crate) fn add(&self, at_hand: bool) {
        self.0.count.fetch_add(1, Ordering::SeqCst);
        if at_hand {
            self.regain();
        }
    }

    /// The client of a session that has it is there to get it.
    pub(crate) fn regain(&self) {
        self.0.at_hand.fetch_add(1, Ordering::SeqCst);
    }

    /// The client of a session that has it is gone, and has not acknowledged it; or its sender has
    /// given out all copies.
    pub(crate) fn lose(&self) {
        self.0.at_hand.fetch_sub(1, Ordering::SeqCst);
    }

    /// Whether it waits for clients that are all gone, and nobody was told that before.
    #[cfg(feature = "server")]
    pub(crate) fn begins_to_wait(&self) -> bool {
        self.0.at_hand.load(Ordering::SeqCst) == 0 && !self.set_told()
    }

    /// Notes that extensions know that it waits; whether they did before.
    #[cfg(feature = "server")]
    pub(crate) fn set_told(&self) -> bool {
        self.0.told.swap(1, Ordering::SeqCst) != 0
    }

    #[cfg(feature = "server")]
    pub(crate) fn is_told(&self) -> bool {
        self.0.told.load(Ordering::SeqCst) != 0
    }

    /// The sender has given out all copies, or a session has lost its copy. `true`: nobody has received
    /// the message, and nobody will.
    #[must_use = "where it is true the message is the caller's to route"]
    pub fn release(&self) -> bool {
        self.0.count.fetch_sub(1, Ordering::SeqCst) == 1
    }
}

impl fmt::Debug for Copies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.count.load(Ordering::SeqCst);
        f.debug_struct("Copies").field("count", &count).finish_non_exhaustive()
    }
}
