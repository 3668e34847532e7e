//! The rest of the network: a router that records what leaves, and the way in.

#![expect(dead_code, unreachable_pub, reason = "each test binary has its own copy of this module")]

use std::sync::{Arc, Mutex, PoisonError};

use xmpp_session::server::{Limits, RouteError, Router};
use xmpp_session::stanza::{Frame, Stanza, canonicalise};

use crate::wire::World;

type Hook = Box<dyn Fn(&str) + Send + Sync>;

/// All other domains. Clones are the same.
#[derive(Clone, Default)]
pub struct Remote(Arc<Inner>);

#[derive(Default)]
struct Inner {
    routed: Mutex<Vec<String>>,
    refusal: Mutex<Option<RouteError>>,
    hook: Mutex<Option<Arc<Hook>>>,
}

impl Router for Remote {
    fn route(&self, stanza: &Stanza) -> Result<(), RouteError> {
        let text = Frame::stanza(stanza).to_string();
        let hook = lock(&self.0.hook).clone();
        if let Some(refusal) = *lock(&self.0.refusal) {
            return Err(refusal);
        }
        lock(&self.0.routed).push(text.clone());
        if let Some(hook) = hook {
            hook(&text);
        }
        Ok(())
    }
}

impl Remote {
    /// A world with other domains around it.
    pub fn world() -> (World, Self) {
        let remote = Self::default();
        let router = remote.clone();
        (World::with(|builder, _| builder.router(router)), remote)
    }

    /// The same with other limits.
    pub fn world_with(limits: Limits) -> (World, Self) {
        let remote = Self::default();
        let router = remote.clone();
        (World::with(|builder, _| builder.router(router).limits(limits)), remote)
    }

    /// What left since the last call.
    pub fn routed(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.0.routed))
    }

    /// Refuses everything from now on, or takes it again.
    pub fn refuse(&self, why: Option<RouteError>) {
        *lock(&self.0.refusal) = why;
    }

    /// Calls `hook` with each stanza, inside of the router.
    pub fn on_route(&self, hook: impl Fn(&str) + Send + Sync + 'static) {
        *lock(&self.0.hook) = Some(Arc::new(Box::new(hook)));
    }

    /// A stanza arrives.
    pub fn send(&self, world: &World, xml: &str) {
        world.server().send(canonicalise(xml.as_bytes()).unwrap());
        world.settle();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
