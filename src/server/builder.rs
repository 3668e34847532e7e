//! A server's settings, and how its parts are put together.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use jid::DomainPart;

use super::bot::Bots;
use super::deliver::component::{ComponentHandle, Components};
use super::deliver::route::{Router, RouterQueue};
use super::driver::admission::Ledger;
use super::driver::negotiate::hashing::Hashing;
use super::driver::negotiate::login_failures::LoginFailures;
use super::driver::{Drains, Offload};
use super::faults::{Fault, Faults, OnFault, PeerAddress, StoreWatch};
use super::guests::{GuestPolicy, Guests};
use super::limits::Limits;
use super::metrics::{Counters, RareCounters, Samples};
#[cfg(feature = "cluster")]
use super::node::{Cluster, Clustered, Placement};
use super::tokens::VOIDED;
use super::trace;
use super::work::jobs::Jobs;
use super::work::timers::Timers;
use super::{Core, Server};
use crate::address;
#[cfg(feature = "cluster")]
use crate::cluster::{SLOTS, Slot};
use crate::connection::SharedConnection;
use crate::environment::Environment;
use crate::extension::{Extension, ServerHandle, Wants};
use crate::recent::{self, Recent};
use crate::sasl::{Mechanism, Policy, UserAgent};
#[cfg(feature = "cluster")]
use crate::session::Grouping;
use crate::session::{
    Conflict, Event, Hold, Reason, RegistryBuilder, SessionHandle, SessionRegistry,
};
use crate::stanza::{Stanza, StanzaError};
use crate::store::{Authenticator, CertificateMapper, Stores, TokenAuthenticator};
use crate::stream::Limit;
use crate::sync::Padded;
use crate::sync::common::Mutex;

/// How many pending-out requests are remembered as sent again: two megabytes at most.
const REMINDERS: usize = 1 << 15;

/// How many halves of subscriptions are known to be there, and up to twice as many.
#[cfg(feature = "cluster")]
const HALVES: usize = 1 << 14;

/// Sources of clients that ask before they authenticate which are remembered, and up to twice as many.
const STRANGERS: usize = 1 << 14;

/// Clients are not asked for a sign of life more often than this (STREAM-29).
const LEAST_SILENCE: Duration = Duration::from_secs(5 * 60);

/// What holds for the accounts of one domain.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use xmpp_session::environment::Virtual;
/// use xmpp_session::sasl::{Mechanism, Policy};
/// use xmpp_session::server::DomainPolicy;
///
/// let mut policy = DomainPolicy::default();
/// policy.sasl = Some(Policy::new(&Virtual::new(1)).mechanisms(&[Mechanism::ScramSha256]));
/// assert!(policy.tls_required);
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct DomainPolicy {
    /// Whether nothing but STARTTLS is offered without TLS ([STREAM-F1](crate::rules#stream-f1)). Default: yes.
    ///
    /// `false` alone lets nobody in on a transport without TLS, since no mechanism is offered there. Say
    /// [`Policy::allow_insecure`] as well (SCRAM only), or that the transport is secure
    /// ([`Transport::secure`](super::Transport::secure)).
    pub tls_required: bool,
    /// How clients authenticate. Default: every mechanism, on secure streams only.
    pub sasl: Option<Policy>,
    /// Checks passwords instead of the account store's keys.
    pub authenticator: Option<Arc<dyn Authenticator>>,
    /// Checks tokens, beside passwords ([TOKEN-2](crate::rules#token-2)). Default: none are taken.
    pub tokens: Option<Arc<dyn TokenAuthenticator>>,
    /// Lets guests in ([GUEST-1](crate::rules#guest-1)). Default: no.
    pub guests: Option<GuestPolicy>,
    /// Says whose a client certificate is ([EXTERNAL-1](crate::rules#external-1)). Without it, the addresses in the
    /// certificate count.
    pub certificates: Option<Arc<dyn CertificateMapper>>,
}

impl Default for DomainPolicy {
    fn default() -> Self {
        Self {
            tls_required: true,
            sasl: None,
            authenticator: None,
            tokens: None,
            guests: None,
            certificates: None,
        }
    }
}

impl fmt::Debug for DomainPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DomainPolicy")
            .field("tls_required", &self.tls_required)
            .field("sasl", &self.sasl)
            .field("authenticator", &self.authenticator.is_some())
            .field("tokens", &self.tokens.is_some())
            .field("guests", &self.guests)
            .field("certificates", &self.certificates.is_some())
            .finish()
    }
}

/// One domain that is served.
pub(super) struct Domain {
    pub(super) name: DomainPart,
    pub(super) tls_required: bool,
    pub(super) sasl: Arc<Policy>,
    pub(super) authenticator: Option<Arc<dyn Authenticator>>,
    pub(super) tokens: Option<Arc<dyn TokenAuthenticator>>,
    pub(super) guests: Option<GuestPolicy>,
    pub(super) certificates: Option<Arc<dyn CertificateMapper>>,
}

/// Configures a [`Server`].
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use xmpp_session::connection::Recorder;
/// use xmpp_session::environment::Virtual;
/// use xmpp_session::sasl::Policy;
/// use xmpp_session::server::{DomainPolicy, Limits, Server};
/// use xmpp_session::session::{Conflict, EventKind};
/// use xmpp_session::store::Stores;
/// use xmpp_session::xep::{Carbons, Disco, Ping, StreamManagement};
///
/// let mut limits = Limits::default();
/// limits.sessions_per_account = 8;
/// limits.negotiation = Duration::from_secs(20);
///
/// let mut lab = DomainPolicy::default();
/// // A network that nobody can listen in on: SCRAM without TLS.
/// lab.tls_required = false;
/// lab.sasl = Some(Policy::new(&Virtual::new(1)).allow_insecure(true));
///
/// let server: Server<Recorder> = Server::builder(Arc::new(Virtual::new(1)), Stores::memory())
///     .domain("example.com".parse()?)
///     .domain_with("lab.example.com".parse()?, lab)
///     .conflict(Conflict::Override)
///     .limits(limits)
///     .extension(StreamManagement::new())
///     .extension(Carbons::new())
///     .extension(Ping)
///     .extension(Disco::new())
///     .listener(|event| {
///         if let EventKind::Ended { reason, .. } = event.kind() {
///             println!("{} has ended: {reason:?}", event.session().jid());
///         }
///     })
///     .build();
/// # Ok::<(), xmpp_session::jid::Error>(())
/// ```
#[must_use = "a builder does nothing until `build`"]
pub struct ServerBuilder<C: SharedConnection> {
    environment: Arc<dyn Environment>,
    stores: Stores,
    domains: Vec<Domain>,
    default_domain: Option<DomainPart>,
    former_domains: Vec<DomainPart>,
    /// As far as the host decides about it.
    registry: RegistryBuilder<C>,
    extensions: Vec<Box<dyn Extension<C>>>,
    limits: Limits,
    router: Option<Box<dyn Router>>,
    components: Components<C>,
    on_fault: Option<OnFault>,
    on_login: Option<OnLogin<C>>,
    log_addresses: bool,
    hashing: Option<Box<dyn Offload>>,
    #[cfg(feature = "cluster")]
    cluster: Option<(Cluster, Connect<C>)>,
}

/// Makes the home's end of a leg.
#[cfg(feature = "cluster")]
type Connect<C> = fn(Arc<crate::outbox::Outbox>) -> C;

/// A transport has got a session: it was bound, or resumed.
#[derive(Clone)]
#[non_exhaustive]
pub struct Login<'a, C: SharedConnection> {
    /// The session.
    pub session: &'a SessionHandle<C>,
    /// Where its client comes from.
    pub peer: &'a PeerAddress,
    /// How it has authenticated.
    pub mechanism: Option<Mechanism>,
    /// What the client has said about itself with that, in the SASL2 profile. Not to be shown to others
    /// ([SASL2-10](crate::rules#sasl2-10)).
    pub user_agent: Option<&'a UserAgent>,
    /// Whether the session was there before, and had lost its transport or changes it.
    pub is_resumed: bool,
}

impl<C: SharedConnection> fmt::Debug for Login<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("is_resumed", &self.is_resumed).finish_non_exhaustive()
    }
}

pub(super) type OnLogin<C> = Box<dyn Fn(&Login<'_, C>) + Send + Sync>;

impl<C: SharedConnection> Server<C> {
    /// Starts a server with the defaults of the rules, on the host's `environment` and `stores`.
    pub fn builder(environment: Arc<dyn Environment>, stores: Stores) -> ServerBuilder<C> {
        ServerBuilder {
            registry: SessionRegistry::builder(Arc::clone(&environment)),
            environment,
            stores,
            domains: Vec::new(),
            default_domain: None,
            former_domains: Vec::new(),
            extensions: Vec::new(),
            limits: Limits::default(),
            router: None,
            components: Components::default(),
            on_fault: None,
            on_login: None,
            log_addresses: false,
            hashing: None,
            #[cfg(feature = "cluster")]
            cluster: None,
        }
    }
}

impl<C: SharedConnection> ServerBuilder<C> {
    /// Serves a domain under the default policy: TLS required, every mechanism. A server without a domain serves
    /// nobody. It is looked up in its [normal form](crate::address::domain) ([STREAM-6](crate::rules#stream-6)).
    pub fn domain(self, domain: DomainPart) -> Self {
        self.domain_with(domain, DomainPolicy::default())
    }

    /// As [`domain`](Self::domain), under a policy of its own.
    pub fn domain_with(mut self, domain: DomainPart, policy: DomainPolicy) -> Self {
        let name = address::domain(domain.as_str()).unwrap_or(domain);
        self.registry = self.registry.domain(name.clone());
        let mut domain = Domain::new(name, policy, &*self.environment);
        if self.stores.tokens.is_none() {
            domain.sasl = Arc::new(Policy::clone(&domain.sasl).without_tokens());
        }
        self.domains.push(domain);
        self
    }

    /// Its sessions have these numbers, as those of one node among others.
    #[cfg(all(test, feature = "cluster"))]
    pub(super) fn of_node(mut self, first_session: u64) -> Self {
        self.registry = self.registry.of_node(first_session, GROUPS);
        self
    }

    /// The domain of clients that name none ([STREAM-4](crate::rules#stream-4)). Without it they are refused.
    pub fn default_domain(mut self, domain: DomainPart) -> Self {
        self.default_domain = Some(address::domain(domain.as_str()).unwrap_or(domain));
        self
    }

    /// A domain that is no longer served: its clients are told `host-gone` ([STREAM-5](crate::rules#stream-5)).
    pub fn former_domain(mut self, domain: DomainPart) -> Self {
        self.former_domains.push(address::domain(domain.as_str()).unwrap_or(domain));
        self
    }

    /// What happens when a resource is in use ([BIND-5](crate::rules#bind-5)).
    pub fn conflict(mut self, policy: Conflict) -> Self {
        self.registry = self.registry.conflict(policy);
        self
    }

    /// How often one full JID may be replaced `within` such a time: the next bind of it gets a generated
    /// resource, so that two clients cannot kick each other for ever ([BIND-6](crate::rules#bind-6)). `usize::MAX` is no limit.
    /// Default: 3 times within 60 seconds.
    pub fn replacements(mut self, times: usize, within: Duration) -> Self {
        self.registry = self.registry.replacements(times, within);
        self
    }

    /// Adds an extension behind the earlier ones: they are asked in this order, and the first to answer decides. None
    /// is there by default, not even those of [`xep`](crate::xep).
    pub fn extension(mut self, extension: impl Extension<C>) -> Self {
        self.extensions.push(Box::new(extension));
        self
    }

    /// Sets the limits, each of which has its default in [`Limits`] (section 13 of the rules).
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The way to other domains. Without one they cannot be reached: senders get `remote-server-not-found`
    /// ([STZ-10](crate::rules#stz-10)).
    pub fn router(mut self, router: impl Router) -> Self {
        self.router = Some(Box::new(router));
        self
    }

    /// Gives a domain to code of the host: a conference or push service inside of the process. A domain that
    /// the server itself serves stays its own.
    ///
    /// `handler` is called with every stanza for the domain or an address in it, one after the other, in the
    /// order in which they came ([COMP-2](crate::rules#comp-2)): while its future waits, the next one does too. What it returns as an
    /// error is told to the stanza's sender, where an answer is due. It runs in
    /// [`Server::background`], and has 60 seconds for each stanza. If it falls behind, who sends to it is
    /// slowed down, then refused ([COMP-5](crate::rules#comp-5)). Presence of accounts that the component has subscribed to, or that
    /// have joined it by directed presence, comes as it does to another domain.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    /// use xmpp_session::connection::Recorder;
    /// use xmpp_session::environment::System;
    /// use xmpp_session::server::{ComponentHandle, Server};
    /// use xmpp_session::stanza::{Condition, Kind, Stanza, StanzaError};
    /// use xmpp_session::store::Stores;
    ///
    /// async fn echo(echo: ComponentHandle<Recorder>, stanza: Stanza) -> Result<(), StanzaError> {
    ///     if stanza.kind() != Kind::Message {
    ///         return Err(Condition::ServiceUnavailable.into());
    ///     }
    ///     let back = stanza.readdressed(stanza.to().as_deref(), stanza.from().as_deref());
    ///     echo.send(back).map_err(|_| Condition::InternalServerError.into())
    /// }
    ///
    /// let server: Server<Recorder> = Server::builder(Arc::new(System::new()), Stores::memory())
    ///     .domain("example.com".parse()?)
    ///     .component("echo.example.com".parse()?, echo)
    ///     .build();
    /// # Ok::<(), xmpp_session::jid::Error>(())
    /// ```
    pub fn component<F>(
        mut self,
        domain: DomainPart,
        handler: impl Fn(ComponentHandle<C>, Stanza) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<(), StanzaError>> + Send + 'static,
    {
        self.components.add(&address::domain(domain.as_str()).unwrap_or(domain), handler);
        self
    }

    /// Called with what happens to sessions: see [`crate::session::RegistryBuilder::listener`].
    pub fn listener(mut self, listener: impl Fn(&Event<C>) + Send + Sync + 'static) -> Self {
        self.registry = self.registry.listener(listener);
        self
    }

    /// Called with what goes wrong or is refused: failed logins, stores that fail, panics of the host's code,
    /// TLS, limits, streams that are closed with an error ([FAULT-1](crate::rules#fault-1) to 6).
    ///
    /// On the thread where it happens and without a lock; it should be quick, and may call back into the
    /// crate. A panic in it fails alone, and what goes wrong within it is counted and not told. Of one kind and
    /// peer (of stores and panics, whoever the peer is) 20 are told at once and then one a second, with the number
    /// of those left out; [`Metrics`](super::Metrics) count them all.
    pub fn on_fault(mut self, hook: impl Fn(&Fault) + Send + Sync + 'static) -> Self {
        self.on_fault = Some(Box::new(hook));
        self
    }

    /// Called when a transport has got a session, with where it comes from: on the thread that drives it,
    /// before anything that its client sends is worked on, and without a lock.
    pub fn on_login(mut self, hook: impl Fn(&Login<'_, C>) + Send + Sync + 'static) -> Self {
        self.on_login = Some(Box::new(hook));
        self
    }

    /// Whether the spans and events of the feature `tracing` name the JIDs of sessions ([SEC-6](crate::rules#sec-6)). Default: no.
    pub const fn log_addresses(mut self, log: bool) -> Self {
        self.log_addresses = log;
        self
    }

    /// Where the passwords of PLAIN logins are hashed ([LIMIT-28](crate::rules#limit-28)): a tokio `Handle` (feature
    /// `tokio`), or `host::threads::Workers`. Without it they are hashed on the thread that reads them, and hold up
    /// its other connections.
    pub fn hashing(mut self, offload: impl Offload) -> Self {
        self.hashing = Some(Box::new(offload));
        self
    }

    /// Makes the server one of several nodes (section 18 of [the rules](crate::rules)). It keeps what it has in the
    /// cluster's store, and not in that which it was begun with. Drive it by
    /// [`NodeHandle::run`](super::NodeHandle::run).
    #[cfg(feature = "cluster")]
    pub fn cluster(mut self, cluster: Cluster) -> Self
    where
        C: crate::outbox::FromOutbox,
    {
        self.cluster = Some((cluster, C::from_outbox));
        self
    }

    /// Builds the server.
    #[must_use]
    pub fn build(self) -> Server<C> {
        let environment = self.environment;
        #[cfg(feature = "cluster")]
        let placement =
            self.cluster.is_some().then(|| Arc::new(Placement::new(Arc::clone(&environment))));
        #[cfg(feature = "cluster")]
        let stores = match (&self.cluster, &placement) {
            (Some((cluster, _)), Some(placement)) => {
                cluster.place(placement);
                cluster.stores()
            }
            _ => self.stores,
        };
        #[cfg(not(feature = "cluster"))]
        let stores = self.stores;
        let mut limits = self.limits;
        limits.bind_failures = limits.bind_failures.clamp(5, 10);
        limits.silence = limits.silence.max(LEAST_SILENCE);
        let has_extensions = !self.extensions.is_empty();
        let counters = Arc::<RareCounters>::default();
        let faults = Arc::new(Faults::new(
            self.on_fault,
            Arc::clone(&environment),
            Arc::clone(&counters),
            self.log_addresses,
        ));
        let watch = StoreWatch {
            faults: Arc::clone(&faults),
            counters: Arc::clone(&counters),
            environment: Arc::clone(&environment),
        };
        let mut domains = self.domains;
        for domain in &mut domains {
            let host = domain.authenticator.take();
            domain.authenticator = host.map(|host| Arc::new(watch.watched(host)) as _);
            let host = domain.tokens.take();
            domain.tokens = host.map(|host| Arc::new(watch.watched(host)) as _);
            let host = domain.certificates.take();
            domain.certificates = host.map(|host| Arc::new(watch.watched(host)) as _);
        }
        let lets_guests_in = domains.iter().any(|domain| domain.guests.is_some());
        let guests = || Arc::new(Guests::new(Arc::clone(&environment)));
        let guests = lets_guests_in.then(guests);
        let stores = match &guests {
            Some(guests) => guests.stores(stores),
            None => stores,
        };
        let registry = self.registry.on_panic({
            let faults = Arc::clone(&faults);
            move |panicked| {
                let (account, message) = (panicked.account.as_ref(), panicked.message.clone());
                faults.panicked(panicked.code, &PeerAddress::UNKNOWN, account, message);
            }
        });
        #[cfg(feature = "cluster")]
        let registry = match &placement {
            Some(placement) => {
                let placement = Arc::clone(placement);
                let mut first = [0; 8];
                environment.random(&mut first);
                // Far from those of the others, and with room behind it.
                let first = 1 + (u64::from_le_bytes(first) >> 1);
                registry.of_node(first, GROUPS).lives_here(move |bare| placement.is_here(bare))
            }
            None => registry,
        };
        #[cfg(feature = "cluster")]
        let node = self.cluster.zip(placement).map(|((cluster, connect), placement)| {
            Clustered::new(cluster, placement, &*environment, connect, &faults)
        });
        let wants = self.extensions.iter().map(|extension| extension.wants());
        let wants = wants.fold(Wants::NOTHING, Wants::and);
        let mut components = self.components;
        components.leave_out(|name| domains.iter().any(|served| served.name.as_str() == name));
        let extensions = Arc::new(self.extensions);
        let core = Arc::new_cyclic(|core: &Weak<Core<C>>| Core {
            registry: told(hooked(registry, core, &limits, has_extensions, wants), core).build(),
            wants,
            handle: ServerHandle(Weak::clone(core) as _),
            reviews: Arc::default(),
            stores: watch.stores(stores),
            guests,
            strangers: Padded::new(Mutex::new(recent::Allowances::new(STRANGERS))),
            components: components.of(core.clone()),
            domains,
            default_domain: self.default_domain,
            former_domains: self.former_domains,
            drains: Arc::new(Drains {
                extensions: Arc::clone(&extensions),
                samples: Samples::default(),
                counters: Arc::clone(&counters),
                environment: Arc::clone(&environment),
                faults: Arc::clone(&faults),
            }),
            extensions,
            router: self.router,
            bots: Bots::default(),
            router_queue: Padded::new(Mutex::new(RouterQueue {
                waiting: VecDeque::new(),
                writing: false,
            })),
            jobs: Arc::new(Jobs::new(Arc::clone(&faults))),
            timers: Timers::new(Arc::clone(&environment)).into(),
            requests: Padded::default(),
            ledger: Arc::new(Ledger::new(&limits, Arc::clone(&environment))),
            allowances: Padded::default(),
            login_failures: LoginFailures::new(limits.failures, Arc::clone(&environment)).into(),
            hashing: self
                .hashing
                .map(|offload| Arc::new(Hashing::new(offload, limits.hashes, Arc::clone(&faults)))),
            limits,
            metrics: Counters::new(counters),
            faults,
            on_login: self.on_login,
            log_addresses: self.log_addresses,
            reminders: Padded::new(Mutex::new(Recent::new(REMINDERS))),
            #[cfg(feature = "cluster")]
            halves: Padded::new(Mutex::new(Recent::new(HALVES))),
            voided: Padded::new(Mutex::new(Recent::new(VOIDED))),
            unheard: Padded::default(),
            offline_retries: Padded::default(),
            #[cfg(feature = "cluster")]
            edges: node.as_ref().map(Clustered::edges).map(Into::into).unwrap_or_default(),
            #[cfg(feature = "cluster")]
            node,
            environment,
        });
        core.show(|extension| extension.started(&core.handle));
        Server(core)
    }
}

impl Domain {
    fn new(name: DomainPart, policy: DomainPolicy, environment: &dyn Environment) -> Self {
        let DomainPolicy { tls_required, sasl, authenticator, tokens, guests, certificates } =
            policy;
        let sasl = sasl.unwrap_or_else(|| Policy::new(environment));
        let sasl = if authenticator.is_some() { sasl.authenticator() } else { sasl };
        let sasl = if tokens.is_some() { sasl.tokens() } else { sasl };
        let sasl = if guests.is_some() { sasl.guests() } else { sasl };
        // TLS-3: where TLS is required nobody authenticates without.
        let sasl = if tls_required { sasl.allow_insecure(false) } else { sasl };
        let sasl = Arc::new(sasl);
        Self { name, tls_required, sasl, authenticator, tokens, guests, certificates }
    }
}

/// Accounts of one slot move together.
#[cfg(feature = "cluster")]
const GROUPS: Grouping = (SLOTS as usize, |bare| Slot::of(bare).index());

/// What is for accounts at other nodes goes there (NODE-15).
#[cfg(feature = "cluster")]
fn told<C: SharedConnection>(
    registry: RegistryBuilder<C>,
    core: &Weak<Core<C>>,
) -> RegistryBuilder<C> {
    let core = core.clone();
    registry.afar(move |afar| {
        if let Some(core) = core.upgrade()
            && let Some(node) = &core.node
        {
            node.afar(afar);
        }
    })
}

#[cfg(not(feature = "cluster"))]
const fn told<C: SharedConnection>(
    registry: RegistryBuilder<C>,
    _: &Weak<Core<C>>,
) -> RegistryBuilder<C> {
    registry
}

/// The registry with its limits, and with hooks that lead back into the server.
fn hooked<C: SharedConnection>(
    registry: RegistryBuilder<C>,
    core: &Weak<Core<C>>,
    limits: &Limits,
    has_extensions: bool,
    wants: Wants,
) -> RegistryBuilder<C> {
    let (background, elsewhere, backlog) = (core.clone(), core.clone(), core.clone());
    let ended = core.clone();
    let mut registry = registry
        .sessions_per_account(limits.sessions_per_account)
        .hibernating_per_account(limits.hibernating_per_account)
        .retention(limits.retention)
        .background(move |work| match background.upgrade() {
            Some(core) => core.jobs.later(async move { work() }),
            None => work(),
        })
        .elsewhere(move |stanza, validity| {
            if let Some(core) = elsewhere.upgrade() {
                core.route_elsewhere(None, stanza, validity);
            }
        })
        .backlog(move |account| {
            if let Some(core) = backlog.upgrade() {
                core.account_left(account);
            }
        })
        .on_end(move |session, reason| {
            if let Some(core) = ended.upgrade() {
                core.ended(session, reason);
            }
        });
    if !has_extensions {
        return registry;
    }
    if wants.has_any(Wants::SESSIONS) {
        let core = core.clone();
        registry = registry.listener_before(move |event| {
            if let Some(core) = core.upgrade() {
                core.show_those_that_want(Wants::SESSIONS, |extension| {
                    extension.session(event, &core.handle);
                });
            }
        });
    }
    if wants.has_any(Wants::OUTCOMES) {
        let core = core.clone();
        registry = registry.waits(move |account, message| {
            if let Some(core) = core.upgrade() {
                core.waits(message, account);
            }
        });
    }
    #[cfg(feature = "cluster")]
    {
        let core = core.clone();
        registry = registry.hidden_resources(move |account, bare| {
            core.upgrade().map(|core| core.hidden_resources(account, bare)).unwrap_or_default()
        });
    }
    let (hold, hides) = (core.clone(), core.clone());
    registry
        .hold(move |session, stanza| {
            hold.upgrade().map_or(Hold::Pass, |core| core.hold(session, stanza))
        })
        .hides(move |account, jid| hides.upgrade().is_some_and(|core| core.is_hidden(account, jid)))
}

impl<C: SharedConnection> Core<C> {
    fn ended(&self, session: &SessionHandle<C>, reason: Reason) {
        self.metrics.ended(reason);
        trace::ended(session.id(), session.jid(), reason, self.log_addresses);
        // An end for which no stream could be told of a limit.
        let limit = match reason {
            Reason::Overflow => Limit::Waiting,
            Reason::Evicted => Limit::Hibernating,
            _ => return,
        };
        self.limit(limit, &PeerAddress::UNKNOWN, Some(&session.account().bare));
    }
}

impl<C: SharedConnection> fmt::Debug for ServerBuilder<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder")
            .field("domains", &self.domains.len())
            .field("extensions", &self.extensions.len())
            .field("components", &self.components.len())
            .finish_non_exhaustive()
    }
}
