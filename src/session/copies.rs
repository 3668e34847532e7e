//! One message on its way to several sessions of an account.

use std::fmt;
use std::sync::Arc;

use crate::sync::atomic::{AtomicU32, Ordering};

/// Who has, or may still get, a message that goes to several sessions of an account.
///
/// A session that ends with an unacknowledged copy leaves it ([`Leftover`](super::Leftover)) only
/// if no other session has received it or still may: of several that die, the last one leaves it
/// (SM-17).
///
/// ```text
/// let copies = Copies::new();
/// sessions.each(|session| session.send_copy(&message, &copies));
/// if copies.release() { /* nobody has it: route it again */ }
/// ```
#[derive(Clone)]
pub struct Copies(Arc<AtomicU32>);

impl Copies {
    /// No copy yet, but the hold of the sender: until it [releases](Self::release) that, no copy is
    /// the last one.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(AtomicU32::new(1)))
    }

    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    /// The sender is through, or a session has its copy no longer. `true` = nobody has received the
    /// message, and nobody will.
    #[must_use = "where it is true the message is the caller's to route"]
    pub fn release(&self) -> bool {
        self.0.fetch_sub(1, Ordering::SeqCst) == 1
    }
}

impl Default for Copies {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Copies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Copies").field(&self.0.load(Ordering::SeqCst)).finish()
    }
}
