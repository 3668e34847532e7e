//! What a host says of the cluster that its server is a node of.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jid::BareJid;

use super::Placement;
use crate::cluster::{Engine, Posts, Settings};
use crate::store::{Fence, FenceTokens, SharedStore, Stores};

/// The cluster that a server is a node of ([`ServerBuilder::cluster`](super::super::ServerBuilder::cluster)).
/// All nodes of one are given the same times.
pub struct Cluster {
    pub(super) name: Arc<str>,
    pub(super) engine: Arc<dyn Engine>,
    pub(super) posts: Arc<dyn Posts>,
    pub(in crate::server) store: Arc<dyn SharedStore>,
    pub(super) settings: Settings,
    pub(in crate::server) tokens: Arc<Tokens>,
}

/// In whose name the stores act: nobody's, before the server is built.
#[derive(Default)]
pub(in crate::server) struct Tokens(OnceLock<Arc<Placement>>);

impl FenceTokens for Tokens {
    fn fence(&self, account: &BareJid) -> Option<Fence> {
        FenceTokens::fence(&**self.0.get()?, account)
    }
}

impl Cluster {
    /// A node of this name, by which people tell it from others.
    pub fn new(
        name: impl Into<Arc<str>>,
        engine: Arc<dyn Engine>,
        posts: Arc<dyn Posts>,
        store: Arc<dyn SharedStore>,
    ) -> Self {
        let settings = Settings { store: store.identity(), ..Settings::default() };
        let tokens = Arc::default();
        Self { name: name.into(), engine, posts, store, settings, tokens }
    }

    /// The stores as this node has them, for an extension that keeps something in one:
    /// `Blocking::new(cluster.stores().blocks)`. They refuse everything that is an account's until the server is built,
    /// and for accounts whose home is elsewhere ([NODE-3](crate::rules#node-3)).
    #[must_use]
    pub fn stores(&self) -> Stores {
        self.store.of_node(Arc::clone(&self.tokens) as _)
    }

    /// From now on the stores act in the name of this.
    pub(in crate::server) fn place(&self, placement: &Arc<Placement>) {
        let _set_once = self.tokens.0.set(Arc::clone(placement));
    }

    /// How long a lease lives without a renewal (`ttl`, default: 3 s), and how much earlier its node stops (`margin`, 0.5 s,
    /// at most half of `ttl`): by so much the clocks of two machines may differ in that time. Leases are renewed four times as
    /// often. A node whose `ttl` is not that of the nodes which are there is [refused](crate::rules#node-1), and says so
    /// ([`FaultKind::Engine`](crate::server::FaultKind::Engine)).
    #[must_use]
    pub const fn leases(mut self, ttl: Duration, margin: Duration) -> Self {
        (self.settings.ttl, self.settings.margin) = (ttl, margin);
        self.settings.renew = Duration::from_nanos(ttl.as_nanos() as u64 / 4);
        self
    }

    /// How many slots move at a time (default: 16).
    #[must_use]
    pub const fn moves(mut self, moves: usize) -> Self {
        self.settings.moves = moves;
        self
    }

    /// How many bytes may wait for the accounts of one slot at another node: over `soft` those who fill it pause, over
    /// `hard` they get it back ([NODE-7](crate::rules#node-7)). Defaults: 256 KiB and 4 MiB.
    #[must_use]
    pub const fn marks(mut self, soft: usize, hard: usize) -> Self {
        (self.settings.soft, self.settings.hard) = (soft, hard);
        self
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("name", &self.name).finish_non_exhaustive()
    }
}
