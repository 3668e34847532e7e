//! What a host brings for a cluster, each call of which fails alone (FAULT-3): a panic is a call that has failed.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::cluster::{
    Answer, Engine, EngineError, EngineFuture, Incarnation, Lease, Posts, Record, View,
};
use crate::server::PeerAddress;
use crate::server::faults::{Faults, HasPanicked};
use crate::session::HostCode;
use crate::store::{Fence, FenceTokens, SharedStore, StoreError, StoreFuture, Stores};

/// An engine, a way for posts, or a store of the host's.
pub(super) struct Shielded<T: ?Sized> {
    host: Arc<T>,
    faults: Arc<Faults>,
}

impl<T: ?Sized> Shielded<T> {
    pub(super) const fn new(host: Arc<T>, faults: Arc<Faults>) -> Self {
        Self { host, faults }
    }

    fn run<R>(&self, code: HostCode, act: impl FnOnce(&T) -> R) -> Option<R> {
        self.faults.shielded(code, &PeerAddress::UNKNOWN, None, || act(&self.host))
    }

    fn call<R: Send + 'static, E: Send + 'static>(
        &self,
        code: HostCode,
        failed: fn(HasPanicked) -> E,
        begin: impl FnOnce(&T) -> Pin<Box<dyn Future<Output = Result<R, E>> + Send>>,
    ) -> Pin<Box<dyn Future<Output = Result<R, E>> + Send>> {
        let begun = self.run(code, begin);
        Box::pin(self.faults.call(code, None, failed, begun))
    }
}

impl Shielded<dyn Engine> {
    fn ask<R: Send + 'static>(
        &self,
        begin: impl FnOnce(&dyn Engine) -> EngineFuture<R>,
    ) -> EngineFuture<R> {
        self.call(HostCode::Engine, EngineError::new, begin)
    }
}

impl Engine for Shielded<dyn Engine> {
    fn renew(&self, lease: Lease, first: bool) -> EngineFuture<Answer> {
        self.ask(|engine| engine.renew(lease, first))
    }

    fn release(&self, node: Incarnation) -> EngineFuture<()> {
        self.ask(|engine| engine.release(node))
    }

    fn replace(&self, over: Option<View>, record: Arc<Record>) -> EngineFuture<Answer> {
        self.ask(|engine| engine.replace(over, record))
    }

    fn read(&self) -> EngineFuture<Answer> {
        self.ask(Engine::read)
    }

    fn watch(&self, hint: Arc<dyn Fn() + Send + Sync>) {
        let _panicked = self.run(HostCode::Engine, |engine| engine.watch(hint));
    }
}

/// What is not posted is sent again.
impl Posts for Shielded<dyn Posts> {
    fn post(&self, to: Incarnation, post: Arc<[u8]>) {
        let _panicked = self.run(HostCode::Posts, |posts| posts.post(to, post));
    }

    fn listen(&self, me: Incarnation, inbox: Arc<dyn Fn(Arc<[u8]>) + Send + Sync>) {
        let _panicked = self.run(HostCode::Posts, |posts| posts.listen(me, inbox));
    }
}

impl SharedStore for Shielded<dyn SharedStore> {
    /// Those are shielded call by call. What fails here fails while the server is built.
    fn of_node(&self, tokens: Arc<dyn FenceTokens>) -> Stores {
        self.host.of_node(tokens)
    }

    fn claim(&self, fence: Fence) -> StoreFuture<()> {
        self.call(HostCode::Store, StoreError::failed, |store| store.claim(fence))
    }

    fn next_term(&self) -> StoreFuture<u64> {
        self.call(HostCode::Store, StoreError::failed, SharedStore::next_term)
    }
}
