//! Clients whose accounts live at another node, or might: edges, which have the sockets, and homes, which have the drivers
//! (NODE-12 to NODE-14).
//!
//! ```text
//!  host ── Driver, away ── Line ──▶ Edges ── Up ──▶ node … node ── Up ──▶ Homes ── Driver, adopted
//!                            ▲                                                        │ Outbox
//!  connection ◀── output ────┴──── Edges ◀── Down ── node … node ◀── Down ── Homes ◀──┘ Drain
//! ```
//!
//! What goes up is taken from [`Edges`], what goes down from [`Homes`], by whoever drives the node, in its order; what has
//! come is handed to them by the same. Both know nothing of links.

mod adoption;
mod edges;
mod homes;
mod moving;
#[cfg(test)]
mod tests;

pub(super) use adoption::{Adoption, GoesOn, Login, Times};
pub(super) use edges::{Edges, Line};
pub(super) use homes::Homes;
pub(super) use moving::is_line;

use std::time::Duration;

use crate::cluster::Slot;
use crate::cluster::leg::{Down, LegId, Up};

/// What an edge says of one of its clients, whose account is of this slot.
#[derive(Debug)]
pub(super) struct SaidUp {
    pub(super) slot: Slot,
    pub(super) leg: u64,
    pub(super) number: u64,
    pub(super) said: Up,
}

/// What a home says of one of its clients, whose account is of this slot.
#[derive(Debug)]
pub(super) struct SaidDown {
    pub(super) slot: Slot,
    pub(super) leg: LegId,
    pub(super) number: u64,
    pub(super) said: Down,
}

/// How often an edge looks whether a client has taken more: most hosts report that sooner.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(1);
