//! What went wrong, told to the host as it happens ([`ServerBuilder::on_fault`](super::ServerBuilder::on_fault),
//! FAULT-1).

pub(super) mod fault;
pub(super) mod peer;
mod stores;

pub use fault::{Fault, FaultKind, StoreCall, StoreFailure};
pub use peer::PeerAddress;

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use jid::BareJid;

use super::Core;
use super::metrics::RareCounters;
use super::trace;
#[cfg(feature = "cluster")]
use crate::cluster::EngineError;
use crate::connection::SharedConnection;
use crate::environment::Environment;
use crate::recent::Recent;
use crate::rules::roster::RosterError;
use crate::session::HostCode;
use crate::shield::{shielded, shielded_or};
use crate::stanza::StanzaError;
use crate::store::StoreError;
use crate::stream::Limit;
use crate::sync::common::Mutex;
pub(super) use stores::StoreWatch;

pub(super) type OnFault = Box<dyn Fn(&Fault) + Send + Sync>;

/// Faults on their way to the host.
pub(super) struct Faults {
    hook: Option<OnFault>,
    environment: Arc<dyn Environment>,
    counters: Arc<RareCounters>,
    told: Mutex<Recent<Quota>>,
    addresses: bool,
}

/// How often faults of one kind and peer may be told.
#[derive(Clone, Copy, Default)]
struct Quota {
    /// When nothing is left of what was told.
    full_at: Duration,
    left_out: u64,
}

/// So many of one kind and peer are told at once (FAULT-5).
const BURST: u32 = 20;

/// After that one in this time.
const EACH: Duration = Duration::from_secs(1);

/// Kinds and peers that are remembered, and up to twice as many.
const MOST: usize = 1 << 12;

thread_local! {
    /// This thread is in the host's hook.
    static TELLING: Cell<bool> = const { Cell::new(false) };
}

/// Why a call has failed: that was told as such.
#[derive(Debug, thiserror::Error)]
#[error("it panicked")]
pub(super) struct HasPanicked;

/// Whether a call has failed by a panic, which was told already.
pub(super) fn is_panic(error: &(dyn std::error::Error + 'static)) -> bool {
    error.source().is_some_and(|cause| cause.is::<HasPanicked>())
}

impl Faults {
    pub(super) fn new(
        hook: Option<OnFault>,
        environment: Arc<dyn Environment>,
        counters: Arc<RareCounters>,
        addresses: bool,
    ) -> Self {
        let told = Mutex::new(Recent::new(MOST));
        Self { hook, environment, counters, told, addresses }
    }

    /// For tests of what may fail.
    #[cfg(test)]
    pub(super) fn silent() -> Arc<Self> {
        let environment = Arc::new(crate::environment::Virtual::new(1));
        Arc::new(Self::new(None, environment, Arc::default(), false))
    }

    /// Counts a fault, and tells the host. Not under a lock: its hook is host code.
    #[cold]
    pub(super) fn tell(&self, kind: FaultKind, peer: &PeerAddress, account: Option<&BareJid>) {
        self.counters.fault(kind.as_str());
        if self.hook.is_none() && !trace::IS_ON {
            return;
        }
        let Some(left_out) = self.take_turn(&kind, peer, account) else { return };
        let fault = Fault { kind, peer: peer.clone(), account: account.cloned(), left_out };
        trace::fault(&fault, self.addresses);
        let Some(hook) = &self.hook else { return };
        // FAULT-6
        if TELLING.try_with(|telling| telling.replace(true)).unwrap_or(true) {
            return;
        }
        shielded(|| hook(&fault));
        let _torn_down = TELLING.try_with(|telling| telling.set(false));
    }

    /// How many like it were left out, if it is to be told (FAULT-5).
    fn take_turn(
        &self,
        kind: &FaultKind,
        peer: &PeerAddress,
        account: Option<&BareJid>,
    ) -> Option<u64> {
        let now = self.environment.now();
        let of_peer = kind.is_of_peer().then(|| peer.network());
        let account = account.filter(|_| kind.is_of_peer() && !peer.is_known());
        let key = (kind.as_str(), kind.detail(), of_peer, account.map(|jid| jid.as_str()));
        let mut told = self.told.lock();
        let mut quota = told.get(&key).unwrap_or_default();
        if quota.full_at >= now.saturating_add(EACH * BURST) {
            quota.left_out = quota.left_out.saturating_add(1);
            told.insert(&key, quota);
            return None;
        }
        let full_at = quota.full_at.max(now).saturating_add(EACH);
        told.insert(&key, Quota { full_at, left_out: 0 });
        Some(quota.left_out)
    }

    /// Runs host code, which fails alone; its panic is told.
    #[inline]
    pub(super) fn shielded<T>(
        &self,
        code: HostCode,
        peer: &PeerAddress,
        account: Option<&BareJid>,
        host: impl FnOnce() -> T,
    ) -> Option<T> {
        shielded_or(host, |message| self.panicked(code, peer, account, message))
    }

    /// The rest of a call that was begun so, each part likewise: a panic is a call that has failed.
    pub(super) fn call<T, E, F: Future<Output = Result<T, E>> + Send>(
        self: &Arc<Self>,
        code: HostCode,
        account: Option<BareJid>,
        failed: fn(HasPanicked) -> E,
        begun: Option<F>,
    ) -> impl Future<Output = Result<T, E>> + Send + use<T, E, F> {
        let faults = Arc::clone(self);
        async move {
            let Some(begun) = begun else { return Err(failed(HasPanicked)) };
            let mut answer = pin!(begun);
            poll_fn(|cx| {
                let poll = || answer.as_mut().poll(cx);
                let polled = faults.shielded(code, &PeerAddress::UNKNOWN, account.as_ref(), poll);
                polled.unwrap_or_else(|| Poll::Ready(Err(failed(HasPanicked))))
            })
            .await
        }
    }

    #[cold]
    pub(super) fn panicked(
        &self,
        code: HostCode,
        peer: &PeerAddress,
        account: Option<&BareJid>,
        message: Option<String>,
    ) {
        self.tell(FaultKind::Panic { code, message }, peer, account);
    }

    /// A store, or what stands in front of one, has failed.
    #[cold]
    pub(super) fn store_failed(&self, call: StoreCall, error: &StoreError, account: &BareJid) {
        let (failure, error) = (StoreFailure::of(error), text(error));
        let kind = FaultKind::Store { call, failure, error };
        self.tell(kind, &PeerAddress::UNKNOWN, Some(account));
    }

    /// A call for a whole slot, or for the cluster; `None`: there is no answer.
    #[cfg(feature = "cluster")]
    pub(super) fn shared_store_failed(&self, call: StoreCall, error: Option<&StoreError>) {
        let (failure, error) = match error {
            Some(error) => (StoreFailure::of(error), text(error)),
            None => (StoreFailure::Late, "no answer".to_owned()),
        };
        self.tell(FaultKind::Store { call, failure, error }, &PeerAddress::UNKNOWN, None);
    }

    /// `None`: there is no answer.
    #[cfg(feature = "cluster")]
    pub(super) fn engine_failed(&self, error: Option<&EngineError>) {
        let error = error.map_or_else(|| "no answer".to_owned(), |error| text(error));
        self.tell(FaultKind::Engine { error }, &PeerAddress::UNKNOWN, None);
    }
}

/// An error with its sources.
pub(super) fn text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        // Many repeat what they come from.
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = error.source();
    }
    text
}

impl<C: SharedConnection> Core<C> {
    /// A limit was hit.
    #[cold]
    pub(super) fn limit(&self, limit: Limit, peer: &PeerAddress, account: Option<&BareJid>) {
        self.metrics.limit(limit);
        self.faults.tell(FaultKind::Limit(limit), peer, account);
    }

    /// As [`Faults::shielded`], for an extension at work for an account.
    #[inline]
    pub(super) fn shielded<T>(
        &self,
        code: HostCode,
        account: Option<&BareJid>,
        host: impl FnOnce() -> T,
    ) -> Option<T> {
        self.faults.shielded(code, &PeerAddress::UNKNOWN, account, host)
    }

    /// What stands behind an error that a client is told (FAULT-2).
    #[cold]
    pub(super) fn caused(&self, error: &StanzaError, account: Option<&BareJid>) {
        let Some(cause) = std::error::Error::source(error) else { return };
        let peer = &PeerAddress::UNKNOWN;
        if let Some(limit) = cause.downcast_ref::<Limit>() {
            return self.limit(*limit, peer, account);
        }
        // Of these only limits are causes.
        if cause.is::<RosterError>() {
            return self.limit(Limit::Roster, peer, account);
        }
        let failure = cause.downcast_ref().map_or(StoreFailure::Failed, StoreFailure::of);
        let kind = FaultKind::Store { call: StoreCall::Extension, failure, error: text(cause) };
        self.faults.tell(kind, peer, account);
    }
}
