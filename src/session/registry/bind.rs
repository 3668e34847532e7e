//! Resource binding as one atomic step (RFC 6120 §7).

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use jid::{BareJid, FullJid, ResourcePart};
use smallvec::SmallVec;

use super::end::{Ending, Reason};
use super::events::EventKind;
use super::hibernation::Hibernating;
use super::inner::Inner;
use super::resume::Retention;
use super::rows::{Many, Row, Slot, SlotState, Slots};
use super::setup::SessionSetup;
use super::table::Hash;
use crate::address;
use crate::client::ClientId;
use crate::connection::SharedConnection;
use crate::environment::random_hex;
use crate::rules::roster::Roster;
use crate::session::account::{Account, Values};
use crate::session::handle::{
    BEHIND, HOLDING, PROTECTED, PresenceState, RETAINED, SessionId, Shared,
};
use crate::session::input::Owner;
use crate::session::outbound::{Epoch, Gate, Outbound, Reply, Retained};
use crate::shield::HostCode;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU32, Ordering};

/// What to do when a resource is in use ([BIND-5](crate::rules#bind-5),
/// [RFC 6120 §7.7.2.2](https://www.rfc-editor.org/rfc/rfc6120#section-7.7.2.2)).
///
/// A hibernating session is replaced under every policy ([BIND-6](crate::rules#bind-6)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "RFC 6120 §7.7.2.2 names these three")]
pub enum Conflict {
    /// The new session takes the resource and the older one ends with `conflict`. A resource replaced
    /// [too often](crate::session::RegistryBuilder::replacements) is given to nobody else: the next one
    /// gets a generated resource.
    Replace,
    /// The new session gets a generated resource.
    Override,
    /// The new session gets the error `conflict`.
    Refuse,
}

/// Makes what comes first on a bound session.
type Replies<'a> = &'a mut dyn FnMut(&FullJid) -> Reply;

/// What a bind needs beside the session.
///
/// # Examples
///
/// ```
/// use xmpp_session::jid::{BareJid, FullJid, ResourcePart};
/// use xmpp_session::minidom::Element;
/// use xmpp_session::rules::roster::{Item, Roster, Subscription};
/// use xmpp_session::session::BindRequest;
/// use xmpp_session::stanza::Stanza;
///
/// let mut romeo = Item::new(BareJid::new("romeo@example.net")?);
/// romeo.subscription = Subscription::Both;
/// let mut result = |jid: &FullJid| {
///     let name = |name: &str| Element::builder(name, "urn:ietf:params:xml:ns:xmpp-bind");
///     let bind = name("bind").append(name("jid").append(jid.as_str())).build();
///     Stanza::iq("result").id("1").child(&bind).build().into()
/// };
/// let request = BindRequest::new()
///     .resource(ResourcePart::new("balcony")?.into_owned())
///     .roster(Roster::from_items([romeo], 1, []))
///     .reply(&mut result);
/// # drop(request);
/// # Ok::<(), xmpp_session::jid::Error>(())
/// ```
#[derive(Default)]
#[must_use = "a request does nothing by itself"]
pub struct BindRequest<'a> {
    resource: Option<ResourcePart>,
    roster: Roster,
    /// The roster is that of the account's other sessions.
    is_loaded: bool,
    values: Values,
    tag: Option<Box<str>>,
    client: Option<ClientId>,
    setup: SessionSetup,
    pub(in crate::session) is_protected: bool,
    lingers: bool,
    greeting: Greeting<'a>,
}

/// What comes first on a bound session.
#[derive(Default)]
enum Greeting<'a> {
    #[default]
    None,
    Reply(Replies<'a>),
    /// Given later, by [`Session::greet`](crate::session::Session::greet).
    Later,
}

impl<'a> BindRequest<'a> {
    /// A request for a generated resource of 96 random bits ([BIND-2](crate::rules#bind-2)), for an account with an empty
    /// roster.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for this resource ([BIND-3](crate::rules#bind-3)). One that is in no [normal form](address::resource) is
    /// replaced by a generated one ([BIND-4](crate::rules#bind-4)).
    pub fn resource(mut self, resource: ResourcePart) -> Self {
        self.resource = address::resource(resource.as_str()).ok();
        self
    }

    /// A generated resource behind this tag, `tag/random` ([BIND2-3](crate::rules#bind2-3)). One that is empty, longer
    /// than 64 bytes or no part of a resource is left out.
    pub fn tag(mut self, tag: &str) -> Self {
        self.tag = Some(tag).filter(|tag| (1..=LONGEST_TAG).contains(&tag.len())).map(Into::into);
        self
    }

    /// Which client it is: other sessions of the account that were bound for this client end, as replaced,
    /// in the step in which the new one is registered ([BIND2-4](crate::rules#bind2-4)).
    pub const fn replaces(mut self, client: ClientId) -> Self {
        self.client = Some(client);
        self
    }

    /// What the session is to have before it can be found.
    pub fn setup(mut self, setup: SessionSetup) -> Self {
        self.setup = setup;
        self
    }

    /// The account's roster, loaded by the host. Where the account has a session already, that
    /// session's roster is shared and this one dropped.
    pub fn roster(mut self, roster: Roster) -> Self {
        (self.roster, self.is_loaded) = (roster, false);
        self
    }

    /// What extensions keep for the account, loaded with its roster and shared like it.
    #[cfg(feature = "server")]
    pub(crate) fn values(mut self, values: Values) -> Self {
        self.values = values;
        self
    }

    /// Takes the roster that the account's sessions have. If there are none then, the bind is
    /// refused as [`Misuse::NotLoaded`].
    pub fn loaded(mut self) -> Self {
        self.is_loaded = true;
        self
    }

    /// The owner closes the connection: when the session ends and its last words are written,
    /// [`Session::poll_ready`] says so instead, and the owner can wait for the client's close tag
    /// first ([STREAM-26](crate::rules#stream-26)).
    ///
    /// [`Session::poll_ready`]: crate::session::Session::poll_ready
    pub const fn lingers(mut self) -> Self {
        self.lingers = true;
        self
    }

    /// Makes what the client gets first on this session (the bind result), from the JID
    /// that it got. Called once, without a lock, before anything else is written.
    pub fn reply(mut self, reply: &'a mut dyn FnMut(&FullJid) -> Reply) -> Self {
        self.greeting = Greeting::Reply(reply);
        self
    }

    /// Nothing is written on the session before what the owner [gives](crate::session::Session::greet) it
    /// once it is registered.
    pub fn greeted_later(mut self) -> Self {
        self.greeting = Greeting::Later;
        self
    }

    pub(in crate::session) const fn holding(&mut self) {
        self.setup.holding = true;
    }
}

impl fmt::Debug for BindRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BindRequest")
            .field("resource", &self.resource.is_some())
            .finish_non_exhaustive()
    }
}

/// Why a session was not bound. Nothing was registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(clippy::exhaustive_enums, reason = "the host is to blame, or the client")]
pub enum BindError {
    /// The host's mistake, of which the client is told nothing.
    #[error(transparent)]
    Misuse(#[from] Misuse),
    /// The client cannot have what it asked for.
    #[error(transparent)]
    Refused(#[from] BindRefusal),
}

/// What a host has done too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misuse {
    /// The stream has not been opened since its last restart.
    #[error("the stream is not open")]
    NotOpen,
    /// The account has no session whose roster could be shared ([`BindRequest::loaded`]).
    #[error("the account's roster is not loaded")]
    NotLoaded,
}

/// Why a client does not get a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BindRefusal {
    /// The resource is in use and the policy is [`Conflict::Refuse`].
    #[error("the resource is in use")]
    Conflict,
    /// The account has as many sessions as it may have ([BIND-8](crate::rules#bind-8)).
    #[error("the account has too many sessions")]
    TooManySessions,
}

impl BindRefusal {
    /// The stanza error that the client gets
    /// ([RFC 6120 §7.6.2](https://www.rfc-editor.org/rfc/rfc6120#section-7.6.2)).
    #[must_use]
    pub const fn condition(self) -> crate::stanza::Condition {
        use crate::stanza::Condition;
        match self {
            Self::Conflict => Condition::Conflict,
            Self::TooManySessions => Condition::ResourceConstraint,
        }
    }
}

/// More replacements than this of one full JID within this time are a loop (BIND-6).
pub(super) const REPLACEMENTS: (usize, Duration) = (3, Duration::from_secs(60));

impl<C: SharedConnection> Inner<C> {
    pub(crate) fn bind(
        self: &Arc<Self>,
        account: &BareJid,
        link: C,
        mut request: BindRequest<'_>,
    ) -> Result<Owner<C>, BindError> {
        let greeting = std::mem::take(&mut request.greeting);
        // Without a lock: it takes longer with each contact.
        self.table.hash_contacts(&mut request.roster, &Roster::new());
        let greets = !matches!(greeting, Greeting::None);
        let Registered { owner, displaced, unused } =
            self.register(account, link, request, greets)?;
        displaced.into_iter().for_each(|ending| self.finish(ending));
        drop(unused);
        if let Greeting::Reply(reply) = greeting {
            let (account, reply) = (&owner.shared.account.bare, || reply(&owner.shared.jid));
            self.greet(&owner, self.shielded(HostCode::Listener, Some(account), reply));
        }
        self.deliver_events();
        Ok(owner)
    }

    /// Conflict test, limits and registration in one step (BIND-7).
    fn register(
        self: &Arc<Self>,
        account: &BareJid,
        link: C,
        request: BindRequest<'_>,
        greets: bool,
    ) -> Result<Registered<C>, BindError> {
        let environment = &*self.settings.environment;
        let (now, utc) = (environment.now(), environment.utc());
        let spare = self.generated(request.tag.as_deref());
        let client = request.client.map(ClientId::digest);
        let SessionSetup { retention, values, of_account, holding } = request.setup;
        let key = self.table.key(account.as_str());
        let hash = key.hash.wide();
        let mut shard = self.table.write(key);
        if request.is_loaded && shard.find(hash, |row| row.is(key)).is_none() {
            return Err(BindError::Misuse(Misuse::NotLoaded));
        }
        let id = SessionId(self.next.fetch_add(1, Ordering::SeqCst));
        let (resource, displaced) = match shard.find_mut(hash, |row| row.is(key)) {
            Some(row) => {
                let earlier = row.of_client(client);
                let place = self.place(row, request.resource, spare, id, now, &earlier);
                let (resource, other) = place.map_err(BindError::Refused)?;
                let earlier = earlier.into_iter().map(|at| (at, Reason::Replaced { by: id }));
                let other = other.filter(|(at, _)| earlier.clone().all(|(other, _)| other != *at));
                (resource, earlier.chain(other).collect::<SmallVec<[_; 1]>>())
            }
            None => (request.resource.unwrap_or(spare), SmallVec::new()),
        };
        let new = || {
            let new = Arc::new(Account::new(account.clone(), request.roster, request.values));
            #[cfg(feature = "cluster")]
            self.groups.iter().for_each(|groups| groups.add(&new));
            new
        };
        let row = shard.entry(hash, |row| row.is(key), |row| self.hash_of(row).wide());
        let row = row.or_insert_with(|| Row { account: new(), slots: Slots::None });
        let row = row.into_mut();
        let unused = row.account.fill_values(of_account);
        let ends = displaced.into_iter();
        let ends = ends.filter_map(|(at, reason)| self.decide_end(row, at, reason, None, now));
        #[cfg_attr(not(feature = "server"), expect(unused_mut, reason = "nothing is inherited"))]
        let mut displaced: SmallVec<[_; 1]> = ends.collect();
        // An earlier instance may still be ending.
        let waits = row.slots.as_slice().iter().any(|slot| slot.precedes(&resource, client));
        let mut out = Outbound::new(link, Gate::closed(waits, greets), request.lingers);
        let mut flags = if request.is_protected { PROTECTED } else { 0 };
        if let Some(Retention { token, window }) = retention {
            flags |= RETAINED;
            let retained = Retained::new(token, window, 0, (now, utc), &self.retained_bytes);
            out.retained = Some(Box::new(retained));
        }
        if holding {
            flags |= HOLDING;
            out.start_holding(&self.retained_bytes);
        }
        // The clone has no spare capacity, which stays as long as the session does.
        let jid = account.with_resource(&resource).clone();
        let shared = Arc::new(Shared {
            id,
            jid,
            since: now.into(),
            registry: Arc::clone(self),
            account: Arc::clone(&row.account),
            flags: AtomicU32::new(flags),
            number: AtomicU32::new(0),
            presence: Mutex::new(PresenceState::new(values, client)),
            out: Mutex::new(out),
        });
        let session = Arc::clone(&shared);
        row.slots.push(Slot { session, hash: key.hash, state: SlotState::Live });
        #[cfg(feature = "server")]
        for displaced in &mut displaced {
            let (before, left) = displaced.bequest();
            self.bequeath(row, before, &shared, left);
        }
        shared.set(BEHIND, self.backlogs.has(key.bare));
        self.sessions.fetch_add(1, Ordering::SeqCst);
        self.events.push(&shared, EventKind::Bound);
        // The guard exists before any host code runs.
        let owner = Owner { shared, epoch: Epoch::default() };
        Ok(Registered { owner, displaced, unused })
    }

    /// As it stands in the row: one without sessions is not left in the table.
    pub(super) fn hash_of(&self, row: &Row<C>) -> Hash {
        let slot = row.slots.as_slice().first();
        slot.map_or_else(|| self.table.hash(row.account.bare.as_str()), |slot| slot.hash)
    }

    /// Where the new session goes in an account that has some.
    fn place(
        &self,
        row: &mut Row<C>,
        wanted: Option<ResourcePart>,
        spare: ResourcePart,
        id: SessionId,
        now: Duration,
        earlier: &[usize],
    ) -> Result<(ResourcePart, Option<Displaced>), BindRefusal> {
        let mut wanted = wanted.unwrap_or_else(|| row.unused(spare.clone()));
        // Its own client's are gone in any case.
        let taken = row.position_of(&wanted).filter(|(at, _)| !earlier.contains(at));
        if let Some((at, state)) = taken {
            let is_live = state == SlotState::Live;
            let most = self.settings.replacements;
            match self.settings.conflict {
                Conflict::Refuse if is_live => return Err(BindRefusal::Conflict),
                Conflict::Override if is_live => wanted = row.unused(spare),
                Conflict::Replace if is_live && row.count_replacement(&wanted, most, now) => {
                    wanted = row.unused(spare);
                }
                _ => return Ok((wanted, Some((at, Reason::Replaced { by: id })))),
            }
        }
        let others = row.visible().count().saturating_sub(earlier.len());
        if others < self.settings.sessions_per_account {
            return Ok((wanted, None));
        }
        let oldest = row.oldest_absent(&self.hibernating.lock());
        let oldest = oldest.ok_or(BindRefusal::TooManySessions)?;
        Ok((wanted, Some((oldest, Reason::Evicted))))
    }

    /// A resource that nobody can guess (BIND-2): 96 random bits.
    #[expect(clippy::expect_used, reason = "24 hex digits are a valid resourcepart")]
    fn generated(&self, tag: Option<&str>) -> ResourcePart {
        let text = random_hex::<12>(&*self.settings.environment);
        let tagged = tag.and_then(|tag| address::resource(&format!("{tag}/{text}")).ok());
        let untagged = || ResourcePart::new(&text).expect("hex digits").into_owned();
        tagged.unwrap_or_else(untagged)
    }
}

/// A session that was just registered.
struct Registered<C: SharedConnection> {
    owner: Owner<C>,
    /// The sessions that have made room for it.
    displaced: SmallVec<[Ending<C>; 1]>,
    /// To be dropped without a lock.
    unused: Values,
}

/// Longest tag in front of a generated resource, in bytes (BIND2-3).
const LONGEST_TAG: usize = 64;

/// The session that makes room for a new one, and why it ends.
type Displaced = (usize, Reason);

impl<C: SharedConnection> Row<C> {
    /// Counts one more replacement of `resource`; true if there were too many of late (BIND-6).
    fn count_replacement(
        &mut self,
        resource: &ResourcePart,
        (most, within): (usize, Duration),
        now: Duration,
    ) -> bool {
        if most == usize::MAX {
            return false;
        }
        self.slots.change(|Many { replaced, .. }| {
            replaced.retain(|(_, at)| now.saturating_sub(*at) < within);
            let is_loop = replaced.iter().filter(|(r, _)| r == resource).count() >= most;
            if !is_loop {
                replaced.push((resource.clone(), now));
            }
            is_loop
        })
    }

    /// Where the sessions of a client are.
    fn of_client(&self, client: Option<NonZeroU64>) -> SmallVec<[usize; 1]> {
        let slots = self.slots.as_slice().iter().enumerate();
        let theirs = slots.filter(|(_, slot)| slot.state != SlotState::Ending);
        let theirs = theirs.filter(|(_, slot)| client.is_some() && slot.session.client() == client);
        theirs.map(|(at, _)| at).collect()
    }

    /// Where the session is that has `resource`, and in what state.
    fn position_of(&self, resource: &ResourcePart) -> Option<(usize, SlotState)> {
        let mut slots = self.slots.as_slice().iter().enumerate();
        let is_it = |slot: &Slot<C>| slot.state != SlotState::Ending && slot.is_of(resource);
        slots.find(|(_, slot)| is_it(slot)).map(|(at, slot)| (at, slot.state))
    }

    /// `spare`, made longer while a session has it: unique whatever the host's generator does.
    fn unused(&self, mut spare: ResourcePart) -> ResourcePart {
        while self.position_of(&spare).is_some() {
            let longer = format!("{spare}0");
            let Ok(longer) = ResourcePart::new(&longer) else { break };
            spare = longer.into_owned();
        }
        spare
    }

    pub(super) fn absent(&self) -> usize {
        self.slots.as_slice().iter().filter(|slot| slot.state == SlotState::Absent).count()
    }

    /// The hibernating session that has waited longest.
    pub(super) fn oldest_absent(&self, hibernating: &Hibernating<C>) -> Option<usize> {
        let slots = self.slots.as_slice().iter().enumerate();
        let absent = slots.filter(|(_, slot)| slot.state == SlotState::Absent);
        absent.min_by_key(|(_, slot)| hibernating.since(slot.session.id)).map(|(at, _)| at)
    }
}
