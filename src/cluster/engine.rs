//! What a cluster stands on: an engine that keeps leases and the record, and a way for posts.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::record::{Lease, Record};
use super::view::{Incarnation, View};

/// An answer of the engine, to come. A host's: it owns what it needs, and needs no runtime of ours.
pub type EngineFuture<T> = Pin<Box<dyn Future<Output = Result<T, EngineError>> + Send>>;

/// The engine could not be asked, or did not answer. Whether it did what it was asked is not known.
#[derive(Debug, thiserror::Error)]
#[error("the engine does not answer")]
pub struct EngineError(#[source] pub(crate) Box<dyn std::error::Error + Send + Sync>);

/// Leases and the record: a service that every node reaches, such as Redis, with a clock of its own.
///
/// Each call is answered with all there is *at one moment*. Leases that were read before the record, or after it, say
/// of a member that it is dead which has just joined.
pub trait Engine: Send + Sync + 'static {
    /// Begins or renews a lease, for [as long as it says](Lease::ttl), by the clock of the engine. A `first` one is always
    /// taken; a later one only while the lease lives still, so that one that is over never comes back.
    fn renew(&self, lease: Lease, first: bool) -> EngineFuture<Answer>;

    /// Ends a lease.
    fn release(&self, node: Incarnation) -> EngineFuture<()>;

    /// Writes the record over the one of this view (`None`: over none), and only where it names this instance.
    fn replace(&self, over: Option<View>, record: Arc<Record>) -> EngineFuture<Answer>;

    /// Changes nothing.
    fn read(&self) -> EngineFuture<Answer>;

    /// Calls `hint` when the record may have changed. Hints may be lost: nodes look by themselves as well.
    fn watch(&self, hint: Arc<dyn Fn() + Send + Sync>);
}

/// The way from one node to another.
///
/// Best effort: what one node posts to another comes in order or not at all, or once more later.
pub trait Posts: Send + Sync + 'static {
    /// Puts a post into the inbox of a node. Never blocks.
    fn post(&self, to: Incarnation, post: Arc<[u8]>);

    /// From now on what is posted to this node is given to `inbox`, which never blocks.
    fn listen(&self, me: Incarnation, inbox: Arc<dyn Fn(Arc<[u8]>) + Send + Sync>);
}

impl EngineError {
    /// What the engine's client says of it.
    pub fn new(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(cause.into())
    }
}

/// A call of the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Renew { lease: Lease, first: bool },
    Replace { over: Option<View>, record: Arc<Record> },
    Read,
}

/// What the engine says, all of it at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "engines of hosts make it")]
pub struct Answer {
    /// Whether it has done what it was asked.
    pub done: bool,
    /// A name that changes whenever the engine may have forgotten something.
    pub instance: Arc<str>,
    /// The leases that live.
    pub living: Arc<[Lease]>,
    /// The record; `None` before the first one was written.
    pub record: Option<Arc<Record>>,
}
