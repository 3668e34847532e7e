//! What one node tells another.

use std::fmt;
use std::sync::Arc;

use super::slots::Export;
use super::view::{Incarnation, Slot, View};

/// An account that something is for.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Recipient {
    pub(crate) slot: Slot,
    /// Its bare JID.
    pub(crate) account: Arc<str>,
}

/// Something for some accounts of one node, or for the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// The slot from whose accounts it comes: it is answered before that slot moves.
    pub(crate) source: Option<Slot>,
    pub(crate) body: Body,
}

#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Body {
    Stanza {
        to: Vec<Recipient>,
        bytes: Arc<[u8]>,
    },
    Export(Export),
    /// For the node itself, whatever lives there.
    Told(Arc<[u8]>),
}

/// A frame in the order of its link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Numbered {
    pub(crate) seq: u64,
    /// The view that its sender knew when it was numbered. It stays when the frame is sent again: with a later one, a
    /// frame from before a move that was cancelled would slip in front of those that were refused meanwhile (NODE-4).
    pub(crate) view: View,
    pub(crate) frame: Arc<Frame>,
}

/// Slots for which a frame was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) seq: u64,
    pub(crate) slots: Vec<Slot>,
}

/// What goes from one node to another at once (NODE-7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Post {
    pub(crate) from: Incarnation,
    /// The view that the sender knows.
    pub(crate) view: View,
    /// All before this are answered, as far as the sender knows.
    pub(crate) base: u64,
    pub(crate) frames: Vec<Numbered>,
    /// All up to here of what came the other way is handled, but for what was refused.
    pub(crate) handled: u64,
    pub(crate) refused: Vec<Refused>,
    /// Something is missing.
    pub(crate) again: bool,
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recipient").field("slot", &self.slot).finish_non_exhaustive()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stanza { .. } => "Stanza",
            Self::Export(_) => "Export",
            Self::Told(_) => "Told",
        })
    }
}

impl Frame {
    /// The slots that it is for, each once.
    pub(crate) fn slots(&self) -> Vec<Slot> {
        let Body::Stanza { to, .. } = &self.body else { return Vec::new() };
        let mut slots: Vec<_> = to.iter().map(|recipient| recipient.slot).collect();
        slots.sort_unstable();
        slots.dedup();
        slots
    }

    /// The same for some of its recipients.
    pub(crate) fn narrowed(&self, keep: impl Fn(&Recipient) -> bool) -> Self {
        let body = match &self.body {
            Body::Stanza { to, bytes } => {
                let to = to.iter().filter(|recipient| keep(recipient)).cloned().collect();
                Body::Stanza { to, bytes: Arc::clone(bytes) }
            }
            Body::Export(_) | Body::Told(_) => self.body.clone(),
        };
        Self { source: self.source, body }
    }

    /// What it takes up, roughly.
    pub(crate) fn cost(&self) -> usize {
        match &self.body {
            Body::Stanza { to, bytes } => {
                let accounts: usize = to.iter().map(|recipient| recipient.account.len() + 32).sum();
                size_of::<Numbered>() + accounts + bytes.len()
            }
            Body::Told(bytes) => size_of::<Numbered>() + bytes.len(),
            Body::Export(export) => {
                export.content.len()
                    + export.outgoing.iter().map(|frame| frame.cost()).sum::<usize>()
            }
        }
    }
}
