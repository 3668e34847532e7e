//! What went wrong, told to the host as it happens ([`ServerBuilder::on_fault`](super::ServerBuilder::on_fault),
//! FAULT-1).

mod peer;
mod stores;

pub use peer::PeerAddress;
pub use stores::{StoreCall, StoreFailure};

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jid::BareJid;
use parking_lot::Mutex;

use super::Core;
use super::metrics::RareCounters;
use super::trace;
use crate::connection::SharedConnection;
use crate::environment::Environment;
use crate::recent::Recent;
use crate::rules::roster::RosterError;
use crate::sasl::{Mechanism, SaslError};
use crate::session::HostCode;
use crate::shield::{shielded, shielded_or};
use crate::stanza::StanzaError;
use crate::store::StoreError;
use crate::stream::{Limit, StreamCondition};
pub(super) use stores::StoreWatch;

/// Something that went wrong, or was refused.
///
/// `Display` says it in a line for the operator, with the peer and the account where they are known;
/// `Debug` names neither ([SEC-6](crate::rules#sec-6)).
#[derive(Clone)]
#[non_exhaustive]
pub struct Fault {
    kind: FaultKind,
    peer: PeerAddress,
    account: Option<BareJid>,
    left_out: u64,
}

/// What went wrong.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultKind {
    /// A login has failed. The account is the one that was asked for, whether or not there is one.
    #[non_exhaustive]
    Login {
        /// The mechanism, if it is one that this crate knows.
        mechanism: Option<Mechanism>,
        /// Why: [`SaslError::InvalidMechanism`] is the mechanism, [`SaslError::NotAuthorized`] the
        /// credentials, [`SaslError::TemporaryAuthFailure`] a store (which has a fault of its own).
        error: SaslError,
    },
    /// A store, or an authenticator, could not do what was asked.
    #[non_exhaustive]
    Store {
        /// What was asked.
        call: StoreCall,
        /// In which way it failed.
        failure: StoreFailure,
        /// Its error, with all its sources.
        error: String,
    },
    /// Code of the host has panicked, and failed alone.
    #[non_exhaustive]
    Panic {
        /// Whose code it was.
        code: HostCode,
        /// Its message, where that is a text.
        message: Option<String>,
    },
    /// A TLS handshake, or TLS after it.
    #[non_exhaustive]
    Tls {
        /// What the TLS library says.
        error: String,
    },
    /// A limit was hit (section 13 of the rules).
    Limit(Limit),
    /// A stream was closed with this error, for what its client sent.
    Stream(StreamCondition),
}

impl Fault {
    /// What went wrong.
    #[must_use]
    pub const fn kind(&self) -> &FaultKind {
        &self.kind
    }

    /// The client's transport, where it is known: [`Transport::source`](super::Transport::source).
    #[must_use]
    pub const fn peer(&self) -> &PeerAddress {
        &self.peer
    }

    /// The account, where it is known.
    #[must_use]
    pub const fn account(&self) -> Option<&BareJid> {
        self.account.as_ref()
    }

    /// How many of the same kind, of the same peer, were left out since the last one that was told ([FAULT-5](crate::rules#fault-5)).
    #[must_use]
    pub const fn left_out(&self) -> u64 {
        self.left_out
    }
}

impl FaultKind {
    /// Its name, for logs and metrics.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Login { .. } => "login",
            Self::Store { .. } => "store",
            Self::Panic { .. } => "panic",
            Self::Tls { .. } => "tls",
            Self::Limit(_) => "limit",
            Self::Stream(_) => "stream",
        }
    }

    /// What is wrong about it, in one word of its kind: a condition, a limit's id, a call.
    #[must_use]
    pub const fn detail(&self) -> &'static str {
        match self {
            Self::Login { error, .. } => error.as_str(),
            Self::Store { call, .. } => call.as_str(),
            Self::Panic { code, .. } => code.as_str(),
            Self::Tls { .. } => "handshake",
            Self::Limit(limit) => limit.as_str(),
            Self::Stream(condition) => condition.as_str(),
        }
    }

    /// Whether it is the peer's doing, so that faults of two peers are not the same.
    const fn is_of_peer(&self) -> bool {
        !matches!(self, Self::Store { .. } | Self::Panic { .. })
    }
}

impl fmt::Debug for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple(self.as_str()).field(&self.detail()).finish()
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Login { mechanism: Some(mechanism), error } => {
                write!(f, "login with {mechanism} failed: {error}")
            }
            Self::Login { mechanism: None, error } => write!(f, "login failed: {error}"),
            Self::Store { call, error, .. } => write!(f, "{call}: {}", OneLine(error)),
            Self::Panic { code, message } => {
                let message = message.as_deref().unwrap_or("it left no message");
                write!(f, "the host's {code} panicked: {}", OneLine(message))
            }
            Self::Tls { error } => write!(f, "TLS failed: {}", OneLine(error)),
            Self::Limit(limit) => write!(f, "limit {limit}"),
            Self::Stream(condition) => write!(f, "stream closed: {}", condition.as_str()),
        }
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fault").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)?;
        if let Some(account) = &self.account {
            write!(f, ", account {account}")?;
        }
        if self.peer.is_known() {
            write!(f, ", from {}", self.peer)?;
        }
        if self.left_out > 0 {
            write!(f, " ({} more of these left out)", self.left_out)?;
        }
        Ok(())
    }
}

/// Text of others in a log: no character of it begins a line or controls a terminal.
struct OneLine<'a>(&'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        let mut text = self.0.chars();
        text.try_for_each(|c| f.write_char(if c.is_control() { ' ' } else { c }))
    }
}

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
