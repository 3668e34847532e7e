//! Changes of rosters and subscriptions: stored first, then in memory, then told
//! (RFC 6121 §2.3, §2.5, §3; promise "durable before acknowledged").
//!
//! A subscription between two local accounts has two ends, and an answer of one can change the
//! other again. All of it is worked out on copies, stored in one step, and only then takes effect,
//! in the order that the rules give. It runs as a job on the chains of both accounts, so that
//! nothing else changes either roster meanwhile.

use std::sync::Arc;

use jid::BareJid;

use crate::address;
use crate::connection::SharedConnection;
use crate::extension::Admission;
use crate::rules::roster::{
    RequestLimits, Roster, RosterError, RosterLimits, RosterSet, SetPlan, Stray, plan_set, push,
};
use crate::rules::subscription::{
    Farewell, RequestChange, Step, SubscriptionKind, Transition, inbound, outbound,
};
use crate::server::Core;
use crate::session::{Account, Parting, SessionHandle};
use crate::stanza::{Condition, Stanza, StanzaError};
use crate::store::{RosterChange, StoreError, SubscriptionRequest};

/// One account's roster, as it will be.
struct Side {
    account: BareJid,
    /// Where the roster is in memory: the account has sessions.
    shared: Option<Arc<Account>>,
    /// All of it, or only what concerns the contact.
    roster: Roster,
    /// Requests that wait for an answer, also those that are not in `roster`.
    requests: usize,
    change: RosterChange,
    /// The account whose extensions let nothing pass between the two: what changes on this side is
    /// neither shown to it nor told in its name (BLOCK-9).
    silenced_by: Option<BareJid>,
}

/// Something to do once the change is stored.
enum Effect {
    /// Give a subscription stanza to the account it is for (SUB-8).
    Deliver { account: BareJid, kind: SubscriptionKind, stanza: Stanza },
    /// Push the contact's item, as it stands after the change, to the account's interested sessions.
    Push { account: BareJid, query: Vec<u8> },
    /// Tell the contact the presence of each available session of the account.
    Current { account: BareJid, contact: BareJid },
    /// Tell the contact that each available session is gone for it.
    Unavailable { account: BareJid, contact: BareJid },
    /// The account is to be shown the contact's item once `by` lets the two hear of each other again.
    Unheard { account: BareJid, contact: BareJid, by: BareJid },
    /// Give a stanza to the router of other domains. What the user's client `asked` for is answered
    /// with an error if there is no way (SUB-6).
    Route { stanza: Stanza, asked: bool },
}

/// What a transaction came to: effects in their order, each with what was prepared for it before
/// the rosters changed.
type Settled<C> = Vec<(Effect, Option<Parting<C>>)>;

/// Why a transaction had no effect.
pub(in crate::server) enum Failed {
    /// The store failed; why is for its own log.
    Store,
    Roster(RosterError),
}

impl From<StoreError> for Failed {
    fn from(_: StoreError) -> Self {
        Self::Store
    }
}

impl From<RosterError> for Failed {
    fn from(error: RosterError) -> Self {
        Self::Roster(error)
    }
}

impl From<Failed> for StanzaError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Store => Self::new(Condition::InternalServerError),
            Failed::Roster(error) => error.into(),
        }
    }
}

impl Side {
    /// Applies a transition towards `contact`: the item, the stored request, and the push that
    /// shows it.
    fn apply(
        &mut self,
        contact: &BareJid,
        transition: &Transition,
        stanza: Option<&Stanza>,
    ) -> Option<Effect> {
        match transition.request() {
            Some(RequestChange::Store) => {
                if let Some(stanza) = stanza {
                    self.roster.add_request(contact);
                    let request =
                        SubscriptionRequest::new(contact.clone(), crate::server::xml(stanza));
                    self.change.add_request = Some(request);
                }
            }
            Some(RequestChange::Drop) => {
                self.roster.remove_request(contact.as_str());
                self.change.add_request = None;
                self.change.remove_request = Some(contact.clone());
            }
            None => {}
        }
        let item = transition.item(contact, self.roster.item(contact))?;
        self.roster.put(&item);
        self.change.version = Some(self.roster.version());
        self.change.put = Some(item);
        Some(self.push(contact.as_str()))
    }

    /// Nobody is told of it: there is nobody of that address.
    fn strike(&mut self, text: &str) -> Result<Effect, RosterError> {
        if !self.roster.remove(text) {
            return Err(RosterError::UnknownItem);
        }
        self.change.version = Some(self.roster.version());
        self.change.remove_stray = Some(text.to_owned());
        Ok(self.push(text))
    }

    fn push(&self, contact: &str) -> Effect {
        let query = push(&self.roster, contact);
        Effect::Push { account: self.account.clone(), query }
    }
}

/// The rosters that a transaction works on.
struct Transaction {
    own: Side,
    /// The contact, where it is an account of ours.
    other: Option<Side>,
    /// Whether the contact's domain is ours.
    here: bool,
    effects: Vec<Effect>,
    /// LIMIT-15
    items: RosterLimits,
    /// LIMIT-16
    requests: RequestLimits,
}

impl Transaction {
    /// A subscription stanza that the user sends (Tables 2–5, then 6–9 for a local contact).
    fn send(
        &mut self,
        contact: &BareJid,
        kind: SubscriptionKind,
        stanza: &Stanza,
    ) -> Result<(), RosterError> {
        let standing = self.own.roster.standing(contact.as_str());
        let transition = outbound(standing, kind);
        if let Some(item) = transition.item(contact, self.own.roster.item(contact)) {
            self.items.allow(&self.own.roster, &item)?;
        }
        let push = self.own.apply(contact, &transition, None);
        self.follow(contact, &transition, push, kind, stanza);
        Ok(())
    }

    /// A subscription stanza that arrives for the user (Tables 6–9).
    fn receive(&mut self, contact: &BareJid, kind: SubscriptionKind, stanza: &Stanza) {
        if self.own.silenced_by.is_some() && kind.is_request() {
            return;
        }
        let standing = self.own.roster.standing(contact.as_str());
        let transition = inbound(standing, kind);
        if transition.request() == Some(RequestChange::Store)
            && !self.requests.admit(self.own.requests, stanza.len())
        {
            return;
        }
        let push = self.own.apply(contact, &transition, Some(stanza));
        self.follow(contact, &transition, push, kind, stanza);
    }

    /// The steps of a transition of our side, in their order. The contact's side changes where the
    /// stanza is routed to it, or where it is replied to.
    fn follow(
        &mut self,
        contact: &BareJid,
        transition: &Transition,
        mut push: Option<Effect>,
        kind: SubscriptionKind,
        stanza: &Stanza,
    ) {
        if let Some(by) = &self.own.silenced_by {
            if push.is_some() {
                let (account, contact) = (self.own.account.clone(), contact.clone());
                self.effects.push(Effect::Unheard { account, contact, by: by.clone() });
            }
            return;
        }
        for step in transition.steps() {
            match step {
                Step::Route => {
                    let (here, version) = (self.effects.len(), self.own.roster.version());
                    self.pass_on(kind, stanza.clone(), true);
                    if self.own.roster.version() != version {
                        // A contact that approved beforehand has answered, and our side has
                        // changed once more: pushes leave in the order of changes (ROSTER-17).
                        if let Some(push) = push.take() {
                            self.effects.insert(here, push);
                        }
                    }
                }
                Step::Reply(reply) => {
                    let answer = Stanza::presence().type_(reply.as_str());
                    let answer = answer.from(self.own.account.as_str()).to(contact.as_str());
                    let answer = match stanza.id() {
                        Some(id) => answer.id(&id),
                        None => answer,
                    };
                    self.pass_on(*reply, answer.build(), false);
                }
                Step::Deliver => self.effects.push(Effect::Deliver {
                    account: self.own.account.clone(),
                    kind,
                    stanza: stanza.clone(),
                }),
                Step::Push => self.effects.extend(push.take()),
                Step::Current => self.effects.push(Effect::Current {
                    account: self.own.account.clone(),
                    contact: contact.clone(),
                }),
                Step::Unavailable => self.effects.push(Effect::Unavailable {
                    account: self.own.account.clone(),
                    contact: contact.clone(),
                }),
            }
        }
    }

    /// To the contact: its own table if it is local, the router if it is not. A local domain
    /// without such an account swallows it (SUB-5).
    fn pass_on(&mut self, kind: SubscriptionKind, stanza: Stanza, asked: bool) {
        if self.change_sides() {
            let user = self.other.as_ref().map(|user| user.account.clone());
            if let Some(user) = user {
                self.receive(&user, kind, &stanza);
            }
            self.change_sides();
        } else if !self.here {
            self.effects.push(Effect::Route { stanza, asked });
        }
    }

    /// Looks at the matter from the other side; `false` where there is none.
    fn change_sides(&mut self) -> bool {
        self.other.as_mut().map(|other| std::mem::swap(&mut self.own, other)).is_some()
    }

    /// A roster set (RFC 6121 §2.3, §2.5).
    fn set(&mut self, set: &RosterSet) -> Result<(), RosterError> {
        match plan_set(&self.own.roster, &self.own.account, set, &self.items)? {
            SetPlan::Unchanged => {}
            SetPlan::Put(item) => {
                self.own.roster.put(&item);
                self.own.change.version = Some(self.own.roster.version());
                let contact = item.jid.clone();
                self.own.change.put = Some(item);
                let push = self.own.push(contact.as_str());
                self.effects.push(push);
            }
            SetPlan::Remove(removal) => {
                let contact = removal.contact;
                self.own.roster.remove(contact.as_str());
                if removal.request {
                    self.own.roster.remove_request(contact.as_str());
                    self.own.change.remove_request = Some(contact.clone());
                }
                self.own.change.version = Some(self.own.roster.version());
                self.own.change.remove = Some(contact.clone());
                let push = self.own.push(contact.as_str());
                self.effects.push(push);
                for farewell in removal.farewells {
                    self.part(&contact, *farewell);
                }
            }
        }
        Ok(())
    }

    /// The contact's item as it is, as if it had changed only now.
    fn show(&mut self, contact: &BareJid) {
        let Some(item) = self.own.roster.item(contact) else { return };
        self.own.roster.remove(contact.as_str());
        self.own.roster.put(&item);
        self.own.change.version = Some(self.own.roster.version());
        self.own.change.put = Some(item);
        let push = self.own.push(contact.as_str());
        self.effects.push(push);
    }

    fn part(&mut self, contact: &BareJid, farewell: Farewell) {
        match farewell {
            Farewell::Unavailable => self.effects.push(Effect::Unavailable {
                account: self.own.account.clone(),
                contact: contact.clone(),
            }),
            Farewell::Send(kind) => {
                let stanza = Stanza::presence().type_(kind.as_str());
                let stanza = stanza.from(self.own.account.as_str()).to(contact.as_str()).build();
                self.pass_on(kind, stanza, false);
            }
        }
    }
}

fn with_requests(roster: Roster) -> (Roster, usize) {
    let requests = roster.requests().len();
    (roster, requests)
}

/// What a transaction is about.
pub(in crate::server) enum Change {
    Send {
        kind: SubscriptionKind,
        stanza: Stanza,
    },
    Receive {
        kind: SubscriptionKind,
        stanza: Stanza,
    },
    Set(RosterSet),
    /// Show clients the contact's item, which has changed in silence.
    Show,
    /// The user removes an item that has no address (JID-6).
    Strike(String),
}

impl Change {
    /// Whether it may add an item, so that all others count, or is about another item than that of
    /// the contact.
    const fn needs_all(&self) -> bool {
        match self {
            Self::Send { kind, .. } => {
                matches!(kind, SubscriptionKind::Subscribe | SubscriptionKind::Subscribed)
            }
            Self::Receive { .. } | Self::Show => false,
            Self::Set(set) => !set.is_removal(),
            Self::Strike(_) => true,
        }
    }

    /// Whether it concerns the contact too, where that is an account of ours.
    const fn has_two_sides(&self) -> bool {
        match self {
            Self::Send { .. } => true,
            Self::Receive { .. } | Self::Show | Self::Strike(_) => false,
            Self::Set(set) => set.is_removal(),
        }
    }
}

impl<C: SharedConnection> Core<C> {
    /// Works out a change of `account`'s roster, stores it and puts it into memory. The caller
    /// carries the effects out, in their order.
    ///
    /// Runs on the chains of `account` and, where the change has two sides, of `contact`.
    async fn transact(
        &self,
        account: BareJid,
        contact: BareJid,
        change: Change,
        two_sides: bool,
    ) -> Result<Settled<C>, Failed> {
        let mut own = self.side(account, &contact, change.needs_all()).await?;
        let mut other = None;
        if two_sides && self.stores.accounts.exists(&contact).await? {
            let mut side = self.side(contact.clone(), &own.account, false).await?;
            side.silenced_by = self.silence(&own.account, &contact, &change).await?;
            other = Some(side);
        } else if let Change::Receive { stanza, .. } = &change {
            let state = self.loaded_state(&own.account).await?;
            let heard = matches!(self.ask(&state, stanza), Admission::Accept);
            own.silenced_by = (!heard).then(|| own.account.clone());
        }
        let mut transaction = Transaction {
            own,
            other,
            here: self.registry.is_local(contact.as_str()),
            effects: Vec::new(),
            items: self.limits.roster,
            requests: self.limits.requests,
        };
        match &change {
            Change::Send { kind, stanza } => transaction.send(&contact, *kind, stanza)?,
            Change::Receive { kind, stanza } => transaction.receive(&contact, *kind, stanza),
            Change::Set(set) => transaction.set(set)?,
            Change::Show => transaction.show(&contact),
            Change::Strike(text) => {
                transaction.own.strike(text).map(|e| transaction.effects.push(e))?
            }
        }
        let Transaction { own, other, effects, .. } = transaction;
        let store = &self.stores.rosters;
        match &other {
            Some(other) if !other.change.is_empty() => {
                let (first, second) = (own.change.clone(), other.change.clone());
                store.apply_pair(&own.account, first, &other.account, second).await?;
            }
            _ if own.change.is_empty() => {}
            _ => store.apply(&own.account, own.change.clone()).await?,
        }
        let prepared = |effect| match &effect {
            Effect::Unavailable { account, contact } => {
                let parting = self.registry.prepare_parting(account.as_str(), contact.as_str());
                (effect, Some(parting))
            }
            _ => (effect, None),
        };
        let settled = effects.into_iter().map(prepared).collect();
        for side in [Some(own), other].into_iter().flatten() {
            if let Some(shared) = side.shared {
                self.registry.set_roster(&shared, side.roster);
            }
        }
        Ok(settled)
    }

    /// Who of the two accounts keeps the contact from hearing of a change: itself, where it does not
    /// let the stanza in, or the account, where it hides from the contact (BLOCK-9).
    async fn silence(
        &self,
        account: &BareJid,
        contact: &BareJid,
        change: &Change,
    ) -> Result<Option<BareJid>, StoreError> {
        if self.extensions.is_empty() {
            return Ok(None);
        }
        let (theirs, ours) = (self.loaded_state(contact).await?, self.loaded_state(account).await?);
        let admitted = match change {
            Change::Send { stanza, .. } | Change::Receive { stanza, .. } => {
                self.ask(&theirs, stanza)
            }
            Change::Set(_) | Change::Show | Change::Strike(_) => {
                let stanza = Stanza::presence().type_(SubscriptionKind::Unsubscribe.as_str());
                let stanza = stanza.from(account.as_str()).to(contact.as_str()).build();
                self.ask(&theirs, &stanza)
            }
        };
        Ok(if !matches!(admitted, Admission::Accept) {
            Some(contact.clone())
        } else if self.is_hidden(&ours, contact.as_str()) {
            Some(account.clone())
        } else {
            None
        })
    }

    /// The roster of `account`: `whole`, or as far as `contact` is concerned if it is not in memory.
    async fn side(
        &self,
        account: BareJid,
        contact: &BareJid,
        whole: bool,
    ) -> Result<Side, StoreError> {
        let shared = self.registry.account(self.registry.key(account.as_str()));
        let (roster, requests) = match &shared {
            // A copy shares what is not changed.
            Some(shared) => with_requests(Roster::clone(&shared.roster())),
            None if whole => with_requests(self.load_roster(&account).await?),
            None => self.load_contact(&account, contact).await?,
        };
        let change = RosterChange::new();
        Ok(Side { account, shared, roster, requests, change, silenced_by: None })
    }

    /// The roster of an account, from its store.
    pub(in crate::server) async fn load_roster(
        &self,
        account: &BareJid,
    ) -> Result<Roster, StoreError> {
        let mut stored = self.stores.rosters.load(account).await?;
        self.metrics.unread(stored.unread);
        // A host's store may read what it kept in another way than we write it.
        let (items, others): (Vec<_>, _) =
            stored.items.into_iter().partition(|item| address::is_normal(&item.jid));
        let requests = stored.requests.into_iter().filter(address::is_normal);
        stored.strays.extend(others.into_iter().map(Stray::from));
        let mut roster = Roster::from_items(items, stored.version, requests);
        for stray in &stored.strays {
            if stray.can_be_shown() {
                roster.add_stray(stray);
            } else {
                self.metrics.unread(1);
            }
        }
        Ok(roster)
    }

    /// What the roster of an account says of one contact, and how many requests it holds: what
    /// others cause to be read does not grow with the roster.
    pub(super) async fn load_contact(
        &self,
        account: &BareJid,
        contact: &BareJid,
    ) -> Result<(Roster, usize), StoreError> {
        let stored = self.stores.rosters.contact(account, contact).await?;
        let request = stored.request.then(|| contact.clone());
        Ok((Roster::from_items(stored.item, stored.version, request), stored.requests))
    }

    /// Changes the roster of `account` concerning `contact`: worked out, stored and told in one
    /// job, so that pushes leave in the order of their changes (ROSTER-17). `origin` is the session
    /// that asked for it; `before` runs between the store and the effects.
    pub(in crate::server) async fn change_roster(
        self: &Arc<Self>,
        account: BareJid,
        contact: BareJid,
        change: Change,
        origin: Option<SessionHandle<C>>,
        before: impl FnOnce() + Send + 'static,
    ) -> Result<(), Failed> {
        let core = Arc::clone(self);
        let (own_key, other_key) = (account.to_string(), contact.to_string());
        let two_sides =
            change.has_two_sides() && self.is_account_here(&contact) && contact != account;
        let job = async move {
            let settled = core.transact(account, contact, change, two_sides).await?;
            // Stored is done: host code that panics on the way takes no later effect along.
            let _panicked = crate::server::shielded(before);
            for (effect, parting) in settled {
                let effect = || core.carry_out(effect, parting, origin.as_ref());
                let _panicked = crate::server::shielded(effect);
            }
            Ok(())
        };
        if two_sides {
            self.jobs.run_pair(&own_key, &other_key, job).await.flatten().ok_or(Failed::Store)?
        } else {
            self.jobs.run(&own_key, job).await.ok_or(Failed::Store)?
        }
    }

    fn carry_out(
        self: &Arc<Self>,
        effect: Effect,
        parting: Option<Parting<C>>,
        origin: Option<&SessionHandle<C>>,
    ) {
        match effect {
            Effect::Deliver { account, kind, stanza } => {
                let request = kind == SubscriptionKind::Subscribe;
                for session in self.registry.sessions(&account) {
                    let meant =
                        if request { session.is_available() } else { session.is_interested() };
                    if meant {
                        let _gone = self.give(&session, &stanza);
                    }
                }
            }
            Effect::Push { account, query } => self.push(&account, &query),
            Effect::Unheard { account, contact, by } => {
                self.unheard.add(by, account, contact);
            }
            Effect::Current { account, contact } => {
                self.registry.tell_contact(account.as_str(), contact.as_str())
            }
            Effect::Unavailable { .. } => {
                if let Some(parting) = parting {
                    self.registry.part(parting);
                }
            }
            Effect::Route { stanza, asked } => {
                self.route_elsewhere(origin.filter(|_| asked), stanza);
            }
        }
    }

    /// A roster push to all interested sessions of an account (ROSTER-10, ROSTER-11).
    pub(super) fn push(&self, account: &BareJid, query: &[u8]) {
        let id = self.push_id();
        let push = Stanza::iq("set").from(account.as_str()).to(account.as_str()).id(&id);
        let push = push.payload(query).build();
        for session in self.registry.interested(account) {
            if let Some(interested) = session.interested() {
                let _gone = interested.push(&push);
            }
        }
    }
}
