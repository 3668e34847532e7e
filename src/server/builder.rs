//! What a host decides about its server.

use std::fmt;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use jid::DomainPart;
use parking_lot::Mutex;

use super::admission::Ledger;
use super::failures::Failures;
use super::hashing::{Hashing, Offload, default_hashes};
use super::metrics::Counters;
use super::offline;
use super::pace::Allowances;
use super::requests::Requests;
use super::route::{Outlet, Router};
use super::timers::Timers;
use super::unheard::Unheard;
use super::{Core, Server};
use crate::address;
use crate::connection::SharedConnection;
use crate::environment::Environment;
use crate::extension::Extension;
use crate::recent::Recent;
use crate::rules::roster::RosterLimits;
use crate::rules::subscription::RequestLimits;
use crate::sasl::Policy;
use crate::session::{Conflict, Event, Hold, RetentionLimits, SessionRegistry};
use crate::store::{Authenticator, Stores};
use crate::stream;

/// Pending-out requests of which it is remembered that they were sent again: two megabytes at most.
const REMINDERS: usize = 1 << 15;

/// Limits of a server, by the ids of section 13 of the rules. Each is a setting.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Sizes on the stream (LIMIT-2…5).
    pub stream: stream::Limits,
    /// From accept to bound, whatever the traffic (LIMIT-1). Default: 60 s.
    pub negotiation: Duration,
    /// Failed binds that a stream may have, 5 to 10 (BIND-10): other numbers are brought into that
    /// range. Default: 5.
    pub bind_failures: u8,
    /// How long an account's data may take to load at bind (BIND-7). Default: 5 s.
    pub load: Duration,
    /// Sessions of one account, live and hibernating (LIMIT-8). Default: 32.
    pub sessions_per_account: usize,
    /// Hibernating sessions of one account (LIMIT-9). Default: 8.
    pub hibernating_per_account: usize,
    /// What is kept for clients that may come back (LIMIT-10…12).
    pub retention: RetentionLimits,
    /// Items, names and groups of a roster (LIMIT-15).
    pub roster: RosterLimits,
    /// Stored subscription requests (LIMIT-16).
    pub requests: RequestLimits,
    /// Targets of directed presence of one session (LIMIT-17). Default: 1000.
    pub directed: usize,
    /// Broadcast presences of one session (LIMIT-19); `None` = no limit. Default: 30 in 60 s.
    pub presence: Option<Rate>,
    /// Stanzas of one session (LIMIT-20); `None` = no limit. Default: 100 a second, 1000 at once.
    pub stanzas: Option<Rate>,
    /// Bytes of one session (LIMIT-20); `None` = no limit. Default: 128 KiB a second, 1 MiB at once.
    pub bytes: Option<Rate>,
    /// Other entities that one session may address in a period (LIMIT-21); `None` = no limit, the
    /// default. The burst has no meaning here.
    pub recipients: Option<Rate>,
    /// Bytes accepted for a client and not yet written from which on it is not read from
    /// (LIMIT-13). Default: 512 KiB.
    pub soft_mark: usize,
    /// How long a client may take nothing of what waits for it, before its transport is dropped
    /// (LIMIT-13). Default: 60 s.
    pub stuck: Duration,
    /// How long a client may be silent before it is asked for a sign of life (LIMIT-22).
    /// At least 5 minutes (STREAM-29), default: 1800 s.
    pub silence: Duration,
    /// How long it may take to give one (LIMIT-22). Default: 60 s.
    pub answer: Duration,
    /// How long the client's close tag is waited for after a stream error (LIMIT-23). Default: 2 s.
    pub close: Duration,
    /// The same where the host closed without one (LIMIT-23). Default: 5 s.
    pub close_clean: Duration,
    /// Transports that serve no session yet, in the whole server (LIMIT-25), and as many that are
    /// being closed (LIMIT-27). Default: 10,000.
    pub unauthenticated: usize,
    /// The same of one source. Ten times as many may be silent or wait for
    /// their turn. Default: 50.
    pub unauthenticated_per_source: usize,
    /// How long a transport may wait for its turn (LIMIT-25). Default: 30 s.
    pub admission: Duration,
    /// Streams of one account that are authenticated and have no session (LIMIT-26). Default: 32.
    pub unbound_per_account: usize,
    /// Passwords that are hashed at once (LIMIT-28), of one source half as many. Default: half of the
    /// processors, at least one.
    pub hashes: usize,
    /// Logins of one source that may fail before the next ones have to wait, from 250 ms on, each
    /// time twice as long, to 8 s (LIMIT-29); `None` = no limit. Default: one in 2 s, 20 at once.
    pub failures: Option<Rate>,
    /// Whether an iq request to a full JID needs a presence relation (IQ-2). Default: yes.
    pub iq_needs_presence: bool,
}

/// So much in one period, at most all at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rate {
    /// How much.
    pub amount: u32,
    /// In how long.
    pub period: Duration,
    /// How much at once.
    pub burst: u32,
}

impl Rate {
    /// `amount` in `period`, `burst` of it at once.
    #[must_use]
    pub const fn new(amount: u32, period: Duration, burst: u32) -> Self {
        Self { amount, period, burst }
    }
}

impl Default for Limits {
    fn default() -> Self {
        const SECOND: Duration = Duration::from_secs(1);
        Self {
            stream: stream::Limits::default(),
            negotiation: Duration::from_secs(60),
            bind_failures: 5,
            load: Duration::from_secs(5),
            sessions_per_account: 32,
            hibernating_per_account: 8,
            retention: RetentionLimits::default(),
            roster: RosterLimits::default(),
            requests: RequestLimits::default(),
            directed: 1000,
            presence: Some(Rate::new(30, Duration::from_secs(60), 30)),
            stanzas: Some(Rate::new(100, SECOND, 1000)),
            bytes: Some(Rate::new(128 << 10, SECOND, 1 << 20)),
            recipients: None,
            soft_mark: 512 << 10,
            stuck: Duration::from_secs(60),
            silence: Duration::from_secs(1800),
            answer: Duration::from_secs(60),
            close: Duration::from_secs(2),
            close_clean: Duration::from_secs(5),
            unauthenticated: 10_000,
            unauthenticated_per_source: 50,
            admission: Duration::from_secs(30),
            unbound_per_account: 32,
            hashes: default_hashes(),
            failures: Some(Rate::new(1, 2 * SECOND, 20)),
            iq_needs_presence: true,
        }
    }
}

impl Limits {
    /// The defaults without those on rates and on the number of sessions: for load tests.
    #[must_use]
    pub fn unlimited() -> Self {
        Self {
            sessions_per_account: usize::MAX,
            presence: None,
            stanzas: None,
            bytes: None,
            unauthenticated: usize::MAX,
            unauthenticated_per_source: usize::MAX,
            unbound_per_account: usize::MAX,
            hashes: 2 * default_hashes(),
            failures: None,
            ..Self::default()
        }
    }
}

/// Clients are not asked for a sign of life more often than this (STREAM-29).
const LEAST_SILENCE: Duration = Duration::from_secs(5 * 60);

/// What holds for the accounts of one domain.
#[derive(Clone)]
#[non_exhaustive]
pub struct DomainPolicy {
    /// Whether nothing but STARTTLS is offered without TLS (STREAM-F1). Default: yes.
    pub tls_required: bool,
    /// How clients authenticate. Default: every mechanism, on secure streams only.
    pub sasl: Option<Policy>,
    /// Checks passwords instead of the account store's keys.
    pub authenticator: Option<Arc<dyn Authenticator>>,
}

impl Default for DomainPolicy {
    fn default() -> Self {
        Self { tls_required: true, sasl: None, authenticator: None }
    }
}

impl fmt::Debug for DomainPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DomainPolicy")
            .field("tls_required", &self.tls_required)
            .field("sasl", &self.sasl)
            .field("authenticator", &self.authenticator.is_some())
            .finish()
    }
}

/// One domain that is served.
pub(super) struct Domain {
    pub(super) name: DomainPart,
    pub(super) tls_required: bool,
    pub(super) sasl: Arc<Policy>,
    pub(super) authenticator: Option<Arc<dyn Authenticator>>,
}

/// Makes a [`Server`].
#[must_use = "a builder does nothing until `build`"]
pub struct Builder<C: SharedConnection> {
    environment: Arc<dyn Environment>,
    stores: Stores,
    domains: Vec<(DomainPart, DomainPolicy)>,
    default_domain: Option<DomainPart>,
    former_domains: Vec<DomainPart>,
    conflict: Conflict,
    extensions: Vec<Box<dyn Extension<C>>>,
    limits: Limits,
    router: Option<Box<dyn Router>>,
    listener: Option<Listener<C>>,
    log_addresses: bool,
    hashing: Option<Box<dyn Offload>>,
}

type Listener<C> = Box<dyn Fn(&Event<C>) + Send + Sync>;

impl<C: SharedConnection> Server<C> {
    /// Starts a server with the defaults of the rules, on the host's `environment` and `stores`.
    pub fn builder(environment: Arc<dyn Environment>, stores: Stores) -> Builder<C> {
        Builder {
            environment,
            stores,
            domains: Vec::new(),
            default_domain: None,
            former_domains: Vec::new(),
            conflict: Conflict::Replace,
            extensions: Vec::new(),
            limits: Limits::default(),
            router: None,
            listener: None,
            log_addresses: false,
            hashing: None,
        }
    }
}

impl<C: SharedConnection> Builder<C> {
    /// Serves a domain under the default policy.
    pub fn domain(self, domain: DomainPart) -> Self {
        self.domain_with(domain, DomainPolicy::default())
    }

    /// Serves a domain under a policy of its own.
    pub fn domain_with(mut self, domain: DomainPart, policy: DomainPolicy) -> Self {
        self.domains.push((address::domain(domain.as_str()).unwrap_or(domain), policy));
        self
    }

    /// The domain of clients that name none (STREAM-4). Without it they are refused.
    pub fn default_domain(mut self, domain: DomainPart) -> Self {
        self.default_domain = Some(address::domain(domain.as_str()).unwrap_or(domain));
        self
    }

    /// A domain that was served once: its clients are told `host-gone` (STREAM-5).
    pub fn former_domain(mut self, domain: DomainPart) -> Self {
        self.former_domains.push(address::domain(domain.as_str()).unwrap_or(domain));
        self
    }

    /// What happens when a resource is in use (BIND-5).
    pub const fn conflict(mut self, policy: Conflict) -> Self {
        self.conflict = policy;
        self
    }

    /// Adds an extension behind those that were added before.
    pub fn extension(mut self, extension: impl Extension<C>) -> Self {
        self.extensions.push(Box::new(extension));
        self
    }

    /// Sets the limits.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The way to other domains. Without it there are none.
    pub fn router(mut self, router: impl Router) -> Self {
        self.router = Some(Box::new(router));
        self
    }

    /// Who is told of sessions: see [`crate::session::Builder::listener`].
    pub fn listener(mut self, listener: impl Fn(&Event<C>) + Send + Sync + 'static) -> Self {
        self.listener = Some(Box::new(listener));
        self
    }

    /// Whether the spans of the feature `tracing` name the JIDs of sessions (SEC-6). Default: no.
    pub const fn log_addresses(mut self, log: bool) -> Self {
        self.log_addresses = log;
        self
    }

    /// Where the passwords of PLAIN logins are hashed (LIMIT-28): a runtime's handle, or
    /// `host::threads::Workers`. Without it they are where they are read, and hold
    /// up other connections of that thread.
    pub fn hashing(mut self, offload: impl Offload) -> Self {
        self.hashing = Some(Box::new(offload));
        self
    }

    /// The server.
    #[must_use]
    pub fn build(self) -> Server<C> {
        let environment = self.environment;
        let mut limits = self.limits;
        limits.bind_failures = limits.bind_failures.clamp(5, 10);
        limits.silence = limits.silence.max(LEAST_SILENCE);
        let domains: Vec<_> = self
            .domains
            .into_iter()
            .map(|(name, policy)| {
                let sasl = policy.sasl.unwrap_or_else(|| Policy::new(&*environment));
                let sasl =
                    if policy.authenticator.is_some() { sasl.authenticator(false) } else { sasl };
                // TLS-3: where TLS is required nobody authenticates without.
                let sasl = if policy.tls_required { sasl.allow_insecure(false) } else { sasl };
                Domain {
                    name,
                    tls_required: policy.tls_required,
                    sasl: Arc::new(sasl),
                    authenticator: policy.authenticator,
                }
            })
            .collect();
        // The registry's hooks lead back into the server, which does not exist yet.
        let link = Arc::new(OnceLock::<Weak<Core<C>>>::new());
        let core = |link: &Arc<OnceLock<Weak<Core<C>>>>| {
            let link = Arc::clone(link);
            move || link.get().and_then(Weak::upgrade)
        };
        let (elsewhere, backlog) = (core(&link), core(&link));
        let (background, hides, hold) = (core(&link), core(&link), core(&link));
        let mut registry = SessionRegistry::builder(Arc::clone(&environment))
            .conflict(self.conflict)
            .sessions_per_account(limits.sessions_per_account)
            .hibernating_per_account(limits.hibernating_per_account)
            .retention(limits.retention)
            .background(move |work| match background() {
                Some(core) => core.jobs.later(async move { work() }),
                None => work(),
            })
            .elsewhere(move |stanza, validity| {
                if let Some(core) = elsewhere() {
                    core.route_while(None, stanza, validity);
                }
            })
            .backlog(move |account| {
                if let Some(core) = backlog() {
                    core.account_left(account);
                }
            });
        if !self.extensions.is_empty() {
            registry = registry
                .hold(move |session, stanza| {
                    hold().map_or(Hold::Pass, |core| core.is_held(session, stanza))
                })
                .hides(move |account, jid| {
                    hides().is_some_and(|core| core.is_hidden(account, jid))
                });
        }
        for domain in &domains {
            registry = registry.domain(domain.name.clone());
        }
        if let Some(listener) = self.listener {
            registry = registry.listener(listener);
        }
        let core = Arc::new(Core {
            registry: registry.build(),
            stores: self.stores,
            domains,
            default_domain: self.default_domain,
            former_domains: self.former_domains,
            extensions: self.extensions,
            router: Outlet::new(self.router),
            jobs: Arc::default(),
            timers: Timers::new(Arc::clone(&environment)),
            requests: Requests::default(),
            ledger: Arc::new(Ledger::new(&limits, Arc::clone(&environment))),
            allowances: Allowances::default(),
            failures: Arc::new(Failures::new(limits.failures, Arc::clone(&environment))),
            hashing: self.hashing.map(|offload| Arc::new(Hashing::new(offload, limits.hashes))),
            early: Arc::default(),
            limits,
            metrics: Counters::default(),
            log_addresses: self.log_addresses,
            reminders: Mutex::new(Recent::new(REMINDERS)),
            unheard: Unheard::default(),
            offline_failures: offline::Failures::default(),
            environment,
        });
        let _first = link.set(Arc::downgrade(&core));
        Server(core)
    }
}

impl<C: SharedConnection> fmt::Debug for Builder<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("domains", &self.domains.len())
            .field("extensions", &self.extensions.len())
            .finish_non_exhaustive()
    }
}
