//! What one node tells another.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use smallvec::{SmallVec, smallvec};

use super::leg::{Down, LegId, Up};
use super::slots::Export;
use super::view::{Incarnation, Slot, View};

/// An account that something is for.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Recipient {
    pub(crate) slot: Slot,
    /// Its bare JID.
    pub(crate) account: Arc<str>,
}

impl Recipient {
    pub(crate) fn of(account: Arc<str>) -> Self {
        Self { slot: Slot::of(&account), account }
    }
}

/// Mostly one.
pub(crate) type Recipients = SmallVec<[Recipient; 1]>;

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
        to: Recipients,
        bytes: Arc<[u8]>,
        receipt: Receipt,
    },
    /// Broadcast or directed presence of a session.
    Presence {
        to: Recipients,
        word: Word,
        bytes: Arc<[u8]>,
    },
    Export(Export),
    /// For the node itself, whatever lives there.
    Told(Arc<[u8]>),
    /// Of a client's stream, from its edge to the home of this slot.
    Up {
        slot: Slot,
        leg: LegId,
        number: u64,
        said: Up,
    },
    /// The same from the home to the edge.
    Down {
        leg: LegId,
        number: u64,
        said: Down,
    },
}

/// Its sender's: dropped with the last copy of a frame here, which is when it is answered, or for nobody any more. No
/// part of what is told.
#[derive(Clone, Default)]
pub(crate) struct Receipt {
    _of: Option<Arc<dyn Any + Send + Sync>>,
}

impl Receipt {
    pub(crate) fn new(receipt: impl Send + Sync + 'static) -> Self {
        Self { _of: Some(Arc::new(receipt)) }
    }
}

impl PartialEq for Receipt {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Receipt {}

/// What presence says of its session.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Word {
    /// Its full JID.
    pub(crate) from: Arc<str>,
    pub(crate) is_available: bool,
    /// For whoever of its recipients is there, not for one of their sessions.
    pub(crate) is_for_all: bool,
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

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Word").field("is_available", &self.is_available).finish_non_exhaustive()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stanza { .. } => "Stanza",
            Self::Presence { .. } => "Presence",
            Self::Export(_) => "Export",
            Self::Told(_) => "Told",
            Self::Up { .. } => "Up",
            Self::Down { .. } => "Down",
        })
    }
}

impl Body {
    /// The accounts that it is for.
    pub(crate) fn to(&self) -> &[Recipient] {
        match self {
            Self::Stanza { to, .. } | Self::Presence { to, .. } => to,
            Self::Export(_) | Self::Told(_) | Self::Up { .. } | Self::Down { .. } => &[],
        }
    }

    pub(crate) const fn word(&self) -> Option<&Word> {
        match self {
            Self::Presence { word, .. } => Some(word),
            _ => None,
        }
    }
}

/// Slots that one frame is for: mostly one.
pub(super) type FewSlots = SmallVec<[Slot; 4]>;

impl Frame {
    /// The slots that it is for, each once.
    pub(crate) fn slots(&self) -> FewSlots {
        let to = match &self.body {
            Body::Stanza { to, .. } | Body::Presence { to, .. } => to,
            Body::Up { slot, .. } => return smallvec![*slot],
            Body::Export(_) | Body::Told(_) | Body::Down { .. } => return FewSlots::new(),
        };
        let mut slots: FewSlots = to.iter().map(|recipient| recipient.slot).collect();
        slots.sort_unstable();
        slots.dedup();
        slots
    }

    /// The same for some of its recipients. What is for one slot alone, or for a node, is as it is.
    pub(crate) fn narrowed(&self, keep: impl Fn(&Recipient) -> bool) -> Self {
        let kept = |to: &[Recipient]| to.iter().filter(|one| keep(one)).cloned().collect();
        let body = match &self.body {
            Body::Stanza { to, bytes, receipt } => {
                let (bytes, receipt) = (Arc::clone(bytes), receipt.clone());
                Body::Stanza { to: kept(to), bytes, receipt }
            }
            Body::Presence { to, word, bytes } => {
                let (word, bytes) = (word.clone(), Arc::clone(bytes));
                Body::Presence { to: kept(to), word, bytes }
            }
            body => body.clone(),
        };
        Self { source: self.source, body }
    }

    /// Whether it makes needless what was said to the same just before: that the same session is available.
    pub(crate) fn renews(&self, earlier: &Self) -> bool {
        let renewing = |word: &&Word| word.is_available && word.is_for_all;
        let word = self.body.word().filter(renewing);
        word.is_some() && word == earlier.body.word() && self.body.to() == earlier.body.to()
    }

    /// What is left of what was said earlier, maybe to nobody, where it is about the same session as this.
    pub(crate) fn outdated(&self, earlier: &Self) -> Option<Self> {
        let word = self.body.word().filter(|word| word.is_for_all)?;
        let is_outdated = earlier.body.word()?.from == word.from;
        is_outdated.then(|| earlier.narrowed(|one| !self.body.to().contains(one)))
    }

    /// What it takes up, roughly.
    pub(crate) fn cost(&self) -> usize {
        match &self.body {
            Body::Stanza { to, bytes, .. } | Body::Presence { to, bytes, .. } => {
                let accounts: usize = to.iter().map(|recipient| recipient.account.len() + 32).sum();
                size_of::<Numbered>() + accounts + bytes.len()
            }
            Body::Told(bytes) => size_of::<Numbered>() + bytes.len(),
            Body::Export(export) => {
                export.content.len()
                    + export.outgoing.iter().map(|frame| frame.cost()).sum::<usize>()
            }
            Body::Up { said, .. } => size_of::<Numbered>() + said.len(),
            Body::Down { said, .. } => size_of::<Numbered>() + said.len(),
        }
    }
}
