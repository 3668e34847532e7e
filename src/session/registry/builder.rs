//! What a host decides about its registry.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jid::{BareJid, DomainPart};

use super::SessionRegistry;
use super::bind::Conflict;
use super::end::Leftover;
use super::events::{Event, Listener, OnEnd};
#[cfg(feature = "cluster")]
use super::groups::Grouping;
use crate::address;
use crate::connection::SharedConnection;
use crate::environment::Environment;
use crate::session::account::AccountState;
use crate::session::handle::SessionHandle;
use crate::session::outbound::{Hold, RetentionLimits, Validity};
use crate::shield::Panicked;
use crate::stanza::Stanza;

/// What the host decides about a registry. Made by [`SessionRegistry::builder`].
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use xmpp_session::connection::Recorder;
/// use xmpp_session::environment::Virtual;
/// use xmpp_session::session::{Conflict, EventKind, SessionRegistry};
///
/// let registry: SessionRegistry<Recorder> = SessionRegistry::builder(Arc::new(Virtual::new(1)))
///     .domain("example.com".parse()?)
///     .conflict(Conflict::Refuse)
///     .sessions_per_account(4)
///     .listener(|event| match event.kind() {
///         EventKind::Bound => println!("{} has come", event.session().jid()),
///         EventKind::Ended { reason, .. } => println!("{} is gone: {reason:?}", event.session().jid()),
///         _ => {}
///     })
///     .leftover(|left| println!("{} has left {:?}", left.session, left.stanza))
///     .build();
/// # Ok::<(), xmpp_session::jid::Error>(())
/// ```
#[must_use = "a builder does nothing until `build`"]
pub struct RegistryBuilder<C: SharedConnection> {
    pub(super) settings: Settings<C>,
}

/// A hook that takes stanzas with no session here to go to.
type Elsewhere = Box<dyn Fn(Stanza, Validity<'_>) + Send + Sync>;
/// Whether an account of ours lives in this registry.
type LivesHere = Box<dyn Fn(&str) -> bool + Send + Sync>;
/// Says what is held back from a session.
type OnHold<C> = Box<dyn Fn(&SessionHandle<C>, &Stanza) -> Hold + Send + Sync>;
type OnLeftover = Box<dyn Fn(Leftover) + Send + Sync>;
/// Called with an account for which ended sessions have left something.
type OnBacklog = Box<dyn Fn(&BareJid) + Send + Sync>;
/// Whether an account wants no presence to pass between itself and a JID.
pub(super) type Hides = Box<dyn Fn(&AccountState, &str) -> bool + Send + Sync>;
/// From which resources of a bare JID it wants none.
#[cfg(feature = "cluster")]
pub(super) type HiddenResources = Box<dyn Fn(&AccountState, &str) -> Vec<String> + Send + Sync>;
/// Called with an account and a message that waits for it.
#[cfg(feature = "server")]
type OnWaits = Box<dyn Fn(&BareJid, &Stanza) + Send + Sync>;
/// Called with each panic of the host's code.
type OnPanic = Box<dyn Fn(&Panicked) + Send + Sync>;
type Background = Box<dyn Fn(Box<dyn FnOnce() + Send>) + Send + Sync>;

pub(crate) struct Settings<C: SharedConnection> {
    pub(crate) environment: Arc<dyn Environment>,
    pub(super) conflict: Conflict,
    pub(super) replacements: (usize, Duration),
    pub(super) sessions_per_account: usize,
    pub(super) hibernating_per_account: usize,
    pub(crate) retention: RetentionLimits,
    pub(super) domains: Vec<DomainPart>,
    #[cfg(feature = "cluster")]
    pub(super) first_session: Option<u64>,
    #[cfg(feature = "cluster")]
    pub(super) groups: Option<Grouping>,
    pub(super) background: Option<Background>,
    pub(super) elsewhere: Option<Elsewhere>,
    #[cfg(feature = "cluster")]
    pub(super) afar: Option<super::afar::OnAfar>,
    /// Which of our accounts live in this registry; without it all do.
    pub(super) lives_here: Option<LivesHere>,
    pub(super) leftover: Option<OnLeftover>,
    pub(super) backlog: Option<OnBacklog>,
    pub(super) hides: Option<Hides>,
    #[cfg(feature = "cluster")]
    pub(super) hidden_resources: Option<HiddenResources>,
    #[cfg(feature = "server")]
    pub(super) waits: Option<OnWaits>,
    pub(super) hold: Option<OnHold<C>>,
    pub(super) listener: Option<Listener<C>>,
    pub(super) on_panic: Option<OnPanic>,
    /// What a server counts, before the listener hears of it.
    pub(super) on_end: Option<OnEnd<C>>,
}

impl<C: SharedConnection> RegistryBuilder<C> {
    /// What to do when a resource is in use ([BIND-5](crate::rules#bind-5)). Default: [`Conflict::Replace`].
    pub const fn conflict(mut self, policy: Conflict) -> Self {
        self.settings.conflict = policy;
        self
    }

    /// How often one full JID may be replaced `within` such a time: the next bind of it gets a generated
    /// resource, as under [`Conflict::Override`], so that two clients cannot kick each other for ever
    /// ([BIND-6](crate::rules#bind-6)). `usize::MAX` is no limit. Default: 3 times within 60 seconds.
    pub const fn replacements(mut self, times: usize, within: Duration) -> Self {
        self.settings.replacements = (times, within);
        self
    }

    /// Sessions that one account may have, live and hibernating ([LIMIT-8](crate::rules#limit-8)). Default: 32.
    pub const fn sessions_per_account(mut self, sessions: usize) -> Self {
        self.settings.sessions_per_account = sessions;
        self
    }

    /// Hibernating sessions that one account may have ([LIMIT-9](crate::rules#limit-9)). Default: 8.
    pub const fn hibernating_per_account(mut self, sessions: usize) -> Self {
        self.settings.hibernating_per_account = sessions;
        self
    }

    /// How much is kept for clients that may come back ([LIMIT-10](crate::rules#limit-10)…12).
    pub const fn retention(mut self, limits: RetentionLimits) -> Self {
        self.settings.retention = limits;
        self
    }

    /// A domain whose accounts live in this registry. Where none is named, all do.
    pub fn domain(mut self, domain: DomainPart) -> Self {
        self.settings.domains.push(address::domain(domain.as_str()).unwrap_or(domain));
        self
    }

    /// Receives events: on any thread, one at a time, in order. It may call into the registry.
    pub fn listener(mut self, listener: impl Fn(&Event<C>) + Send + Sync + 'static) -> Self {
        self.settings.listener = Some(Box::new(listener));
        self
    }

    /// Called with each session that has ended, before the listener hears of it.
    #[cfg(feature = "server")]
    pub(crate) fn on_end(
        mut self,
        hook: impl Fn(&SessionHandle<C>, super::end::Reason) + Send + Sync + 'static,
    ) -> Self {
        self.settings.on_end = Some(Box::new(hook));
        self
    }

    /// It is that of a node: its accounts may move to others. The number of its first session is such that no two nodes
    /// give the same to two.
    #[cfg(feature = "cluster")]
    pub(crate) const fn of_node(mut self, first_session: u64, groups: Grouping) -> Self {
        self.settings.first_session = Some(first_session);
        self.settings.groups = Some(groups);
        self
    }

    /// Takes presence for contacts at domains that are not [ours](Self::domain), addressed and
    /// ready to be routed. Without it they are dropped.
    ///
    /// The session of an available presence may end while that is under way, and its unavailable must
    /// come last ([PRES-21](crate::rules#pres-21)): under the lock that orders its stanzas the router drops one that
    /// [is void](Validity::is_void).
    pub fn elsewhere(
        mut self,
        router: impl Fn(Stanza, Validity<'_>) + Send + Sync + 'static,
    ) -> Self {
        self.settings.elsewhere = Some(Box::new(router));
        self
    }

    /// Takes presence for accounts of [ours](Self::domain) that live at other nodes.
    #[cfg(feature = "cluster")]
    pub(crate) fn afar(
        mut self,
        hook: impl Fn(super::afar::Afar<'_>) + Send + Sync + 'static,
    ) -> Self {
        self.settings.afar = Some(Box::new(hook));
        self
    }

    /// Of accounts of ours only those live here of which this is true ([NODE-15](crate::rules#node-15)): presence for
    /// the others is taken by [`elsewhere`](Self::elsewhere).
    #[cfg(feature = "cluster")]
    pub(crate) fn lives_here(
        mut self,
        here: impl Fn(&str) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.settings.lives_here = Some(Box::new(here));
        self
    }

    /// Takes the stanzas that an ended session leaves: accepted and never written, or written and
    /// never acknowledged ([DESTROY-12](crate::rules#destroy-12), [SM-17](crate::rules#sm-17)). Called before the session's `Ended` event, in
    /// their order. Without it they are dropped.
    pub fn leftover(mut self, hook: impl Fn(Leftover) + Send + Sync + 'static) -> Self {
        self.settings.leftover = Some(Box::new(hook));
        self
    }

    /// As [`leftover`](Self::leftover), for a server that takes what was left on the account's chain:
    /// [`SessionRegistry::left_behind`].
    #[cfg(feature = "server")]
    pub(crate) fn backlog(mut self, hook: impl Fn(&BareJid) + Send + Sync + 'static) -> Self {
        self.settings.backlog = Some(Box::new(hook));
        self
    }

    /// Told each event before the host's listener.
    #[cfg(feature = "server")]
    pub(crate) fn listener_before(
        mut self,
        first: impl Fn(&Event<C>) + Send + Sync + 'static,
    ) -> Self {
        let host = self.settings.listener.take();
        self.listener(move |event| {
            first(event);
            if let Some(host) = &host {
                host(event);
            }
        })
    }

    /// Shown each message that waits from now on for clients that are gone, once each (HOOK-7).
    #[cfg(feature = "server")]
    pub(crate) fn waits(
        mut self,
        hook: impl Fn(&BareJid, &Stanza) + Send + Sync + 'static,
    ) -> Self {
        self.settings.waits = Some(Box::new(hook));
        self
    }

    /// Says whether an account wants no presence to pass between itself and a JID (bare or full, as
    /// normalised text), in either direction: such contacts are left out of broadcasts without a
    /// word ([BLOCK-5](crate::rules#block-5), [BLOCK-6](crate::rules#block-6)). Asked only about accounts for which something is
    /// [kept](AccountState::set_extension), and never about an account's own sessions ([BLOCK-8](crate::rules#block-8)).
    pub fn hides(
        mut self,
        hook: impl Fn(&AccountState, &str) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.settings.hides = Some(Box::new(hook));
        self
    }

    /// Says the same of the sessions of a contact at another node, by their resources.
    #[cfg(feature = "cluster")]
    pub(crate) fn hidden_resources(
        mut self,
        hook: impl Fn(&AccountState, &str) -> Vec<String> + Send + Sync + 'static,
    ) -> Self {
        self.settings.hidden_resources = Some(Box::new(hook));
        self
    }

    /// Says which stanzas are held back from sessions that
    /// [hold](SessionHandle::set_holding): asked about each that is sent to one of them.
    pub fn hold(
        mut self,
        hook: impl Fn(&SessionHandle<C>, &Stanza) -> Hold + Send + Sync + 'static,
    ) -> Self {
        self.settings.hold = Some(Box::new(hook));
        self
    }

    /// Runs work that a send triggers but its sender should not pay for, such as ending an overflowed
    /// session: each piece soon, on another thread or in another task. Without it the sender's thread
    /// does the work.
    pub fn background(
        mut self,
        hook: impl Fn(Box<dyn FnOnce() + Send>) + Send + Sync + 'static,
    ) -> Self {
        self.settings.background = Some(Box::new(hook));
        self
    }

    /// Called with each panic of a connection, a listener or a hook, which fails alone ([FAULT-3](crate::rules#fault-3)), on
    /// the thread of the panic and without a lock. A panic in here is lost.
    pub fn on_panic(mut self, hook: impl Fn(&Panicked) + Send + Sync + 'static) -> Self {
        self.settings.on_panic = Some(Box::new(hook));
        self
    }

    /// The registry.
    #[must_use]
    pub fn build(self) -> SessionRegistry<C> {
        SessionRegistry::with(self.settings)
    }
}

impl<C: SharedConnection> fmt::Debug for RegistryBuilder<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryBuilder")
            .field("conflict", &self.settings.conflict)
            .finish_non_exhaustive()
    }
}
