//! Several nodes as one server: who may act for which accounts, and what nodes tell each other (section 18 of the
//! rules). Without I/O, as everything here: time and answers come in as arguments, and what a node wants comes out.
//!
//! ```text
//!  Engine ── leases, record ──▶ member ── place of each slot ──▶ slots ── opened, moved, given up ──▶ accounts
//!               (CAS)        (deadline, turn)      │       (claims, freezes)                            │  ▲
//!                                                  ▼                                                    ▼  │
//!  Posts ◀── frames, numbered, answered ──▶ link ◀──▶ flow of each slot, in order ◀── submitted, handled ──┘
//! ```
//!
//! `server::node` drives it. Public are what a host brings: an [`Engine`], and a way for [`Posts`].

mod begun;
mod by_slot;
mod codec;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod engine;
mod fence;
mod flow;
mod frame;
mod ledger;
pub(crate) mod leg;
mod link;
mod member;
mod memory;
mod node;
#[cfg(feature = "postgres")]
mod postgres;
mod posts;
mod record;
#[cfg(feature = "redis")]
mod redis;
mod slots;
#[cfg(test)]
pub(crate) mod tests;
mod view;

/// Whether a test breaks this on purpose, to see that an oracle notices.
macro_rules! broken {
    ($settings:expr, $what:ident) => {{
        #[cfg(test)]
        let broken = $settings.broken == Some(crate::cluster::tests::Break::$what);
        #[cfg(not(test))]
        let broken = {
            let _ = &$settings;
            false
        };
        broken
    }};
}
use broken;

use std::sync::Arc;
use std::time::Duration;

#[cfg(all(test, feature = "server"))]
pub(crate) use codec::garbled;
pub(crate) use engine::Ask;
pub use engine::{Answer, Engine, EngineError, EngineFuture, Posts};
pub(crate) use frame::{Receipt, Recipient, Recipients, Word};
pub(crate) use ledger::Ledgers;
pub(crate) use member::AskId;
pub use memory::MemoryEngine;
pub(crate) use node::{Effect, Node, Stored, Work};
#[cfg(feature = "postgres")]
pub use postgres::{Postgres, PostgresBuilder, PostgresError};
pub use record::{Lease, Record};
#[cfg(feature = "redis")]
pub use redis::{Redis, RedisBuilder, RedisError, RedisPosts};
pub(crate) use slots::Change;
pub use view::{Incarnation, View};
pub(crate) use view::{SLOTS, Slot};

/// What all nodes of a cluster are given alike.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// How long a lease lives without a renewal.
    pub(crate) ttl: Duration,
    /// How much earlier a node stops: what two clocks may differ by in that time, and what passes between looking at
    /// a clock and acting.
    pub(crate) margin: Duration,
    /// How often leases are renewed, and how long an answer of the engine is waited for.
    pub(crate) renew: Duration,
    /// A move that has not come to its end after this is cancelled.
    pub(crate) patience: Duration,
    /// Moves that are under way at a time.
    pub(crate) moves: usize,
    /// Frames that have had no answer for so long are sent again.
    pub(crate) resend: Duration,
    /// What needs no more than an answer has it after so long, or along with whatever else goes that way.
    pub(crate) answer: Duration,
    /// Bytes that wait for one slot: over `soft` those who fill it are to pause, over `hard` they get it back.
    pub(crate) soft: usize,
    pub(crate) hard: usize,
    /// [`SharedStore::identity`](crate::store::SharedStore::identity).
    pub(crate) store: Arc<str>,
    #[cfg(test)]
    pub(crate) broken: Option<tests::Break>,
}

impl Settings {
    /// Why no node can go by these.
    pub(crate) fn flaw(&self) -> Option<&'static str> {
        (self.margin > self.ttl / 2).then_some("the margin is more than half of the leases' ttl")
    }

    /// Whether who has this lease can be of the same cluster (NODE-1).
    pub(crate) fn fits(&self, lease: &Lease) -> bool {
        lease.ttl == self.ttl && !self.is_elsewhere(lease)
    }

    /// Whether that one keeps what it has in another store.
    pub(crate) fn is_elsewhere(&self, lease: &Lease) -> bool {
        !self.store.is_empty() && !lease.store.is_empty() && self.store != lease.store
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(3),
            margin: Duration::from_millis(500),
            renew: Duration::from_millis(750),
            patience: Duration::from_secs(10),
            moves: 16,
            resend: Duration::from_millis(500),
            answer: Duration::from_millis(20),
            soft: 256 << 10,
            hard: 4 << 20,
            store: Arc::default(),
            #[cfg(test)]
            broken: None,
        }
    }
}
