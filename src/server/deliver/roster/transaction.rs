//! A change of rosters worked out on copies: what is to be stored, and what takes effect then, in
//! the order that the rules give.
//!
//! A subscription between two local accounts has two sides, and an answer of one can change the
//! other again: both are worked out together and stored in one step.

use std::sync::Arc;

use jid::BareJid;

use crate::rules::roster::{
    Item, Removal, RequestLimits, Roster, RosterError, RosterLimits, RosterSet, SetPlan,
    Subscription, plan_set, push,
};
use crate::rules::subscription::{
    Farewell, RequestChange, Step, SubscriptionKind, Transition, inbound, outbound,
};
use crate::session::Account;
use crate::stanza::{Stanza, StanzaBuilder};
use crate::store::{RosterChange, SubscriptionRequest};

/// Who asks for a change of an account's roster.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asker {
    /// A session of the account, or its removal.
    Account,
    /// The host, for an account that may not exist.
    Host,
}

/// What is asked of a roster.
pub(crate) enum Change {
    Send {
        kind: SubscriptionKind,
        stanza: Stanza,
        by: Asker,
    },
    Receive {
        kind: SubscriptionKind,
        stanza: Stanza,
        /// The contact hides from the account.
        silent: bool,
    },
    Set(RosterSet, Asker),
    /// The account and the contact, both of this server, are to see each other (HOST-4).
    Befriend,
    /// The account's half of that, where the contact lives on another node: whoever asks tells presence.
    #[cfg(feature = "cluster")]
    BefriendBack,
    /// Show clients the contact's item, which has changed unseen (BLOCK-9).
    Show,
    /// The user removes an item that has no address (JID-6).
    Strike(String),
}

impl Change {
    /// Whether it may add an item, so that all others count, or is about another item than that of
    /// the contact.
    pub(super) const fn needs_all(&self) -> bool {
        match self {
            Self::Send { kind, .. } => {
                matches!(kind, SubscriptionKind::Subscribe | SubscriptionKind::Subscribed)
            }
            Self::Receive { .. } | Self::Show => false,
            Self::Set(set, _) => !set.is_removal(),
            Self::Strike(_) | Self::Befriend => true,
            #[cfg(feature = "cluster")]
            Self::BefriendBack => true,
        }
    }

    /// Whether the account has to be looked for first.
    pub(super) const fn is_of_host(&self) -> bool {
        match self {
            Self::Send { by, .. } | Self::Set(_, by) => matches!(by, Asker::Host),
            Self::Befriend => true,
            #[cfg(feature = "cluster")]
            Self::BefriendBack => true,
            Self::Receive { .. } | Self::Show | Self::Strike(_) => false,
        }
    }

    /// Whether it concerns the contact too, where that is an account that lives here.
    pub(super) const fn has_two_sides(&self) -> bool {
        match self {
            Self::Send { .. } | Self::Befriend => true,
            Self::Receive { .. } | Self::Show | Self::Strike(_) => false,
            #[cfg(feature = "cluster")]
            Self::BefriendBack => false,
            Self::Set(set, _) => set.is_removal(),
        }
    }
}

/// One account's roster after the change.
pub(super) struct Side {
    pub(super) account: BareJid,
    /// Where the roster is in memory: the account has sessions.
    pub(super) shared: Option<Arc<Account>>,
    /// All of it, or only what concerns the contact.
    pub(super) roster: Roster,
    /// Requests that wait for an answer, also those that are not in `roster`.
    pub(super) requests: usize,
    pub(super) change: RosterChange,
    /// The account whose extensions let nothing pass between the two: what changes on this side is
    /// neither shown to it nor told in its name (BLOCK-9).
    pub(super) silenced_by: Option<BareJid>,
}

/// Something to do once the change is stored.
pub(super) enum Effect {
    /// Nothing but this: a request was dropped (LIMIT-16).
    TooManyRequests { account: BareJid },
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

impl Side {
    /// Applies a transition towards `contact`: the item, the stored request, and the push that
    /// shows it.
    fn apply(
        &mut self,
        contact: &BareJid,
        transition: &Transition,
        stanza: &Stanza,
    ) -> Option<Effect> {
        match transition.request() {
            Some(RequestChange::Store) => {
                self.roster.add_request(contact);
                let request = SubscriptionRequest::new(contact.clone(), stanza.to_xml());
                self.change.add_request = Some(request);
            }
            Some(RequestChange::Drop) => {
                self.roster.remove_request(contact.as_str());
                self.change.add_request = None;
                self.change.remove_request = Some(contact.clone());
            }
            None => {}
        }
        let item = transition.item(contact, self.roster.item(contact))?;
        Some(self.put(item))
    }

    /// Replaces an item, or adds one.
    fn put(&mut self, item: Item) -> Effect {
        self.roster.put(&item);
        let push = self.push(item.jid.as_str());
        self.change.put = Some(item);
        push
    }

    fn remove(&mut self, removal: &Removal) -> Effect {
        let contact = &removal.contact;
        self.roster.remove(contact.as_str());
        if removal.request {
            self.roster.remove_request(contact.as_str());
            self.change.remove_request = Some(contact.clone());
        }
        self.change.remove = Some(contact.clone());
        self.push(contact.as_str())
    }

    /// Removes an item whose address is none, so that nobody is told but the account's sessions.
    fn strike(&mut self, text: &str) -> Result<Effect, RosterError> {
        if !self.roster.remove(text) {
            return Err(RosterError::UnknownItem);
        }
        self.change.remove_stray = Some(text.to_owned());
        Ok(self.push(text))
    }

    /// Whether the account is told the contact's presence.
    pub(super) fn sees(&self, contact: &BareJid) -> bool {
        self.roster.get(contact.as_str()).is_some_and(|item| item.subscription().has_to())
    }

    /// Subscribes the account and `contact` to each other; `None` if they are.
    fn befriend(
        &mut self,
        contact: &BareJid,
        limits: &RosterLimits,
    ) -> Result<Option<Effect>, RosterError> {
        if self.roster.remove_request(contact.as_str()) {
            self.change.remove_request = Some(contact.clone());
        }
        let present = self.roster.item(contact);
        let item = present.clone().unwrap_or_else(|| Item::new(contact.clone()));
        let subscription = Subscription::Both;
        let item = Item { subscription, ask: false, approved: false, ..item };
        if present.as_ref() == Some(&item) {
            return Ok(None);
        }
        limits.allow(&self.roster, &item)?;
        Ok(Some(self.put(item)))
    }

    /// The push that shows an item as it has just become, with the version of that change.
    fn push(&mut self, contact: &str) -> Effect {
        self.change.version = Some(self.roster.version());
        let query = push(&self.roster, contact);
        Effect::Push { account: self.account.clone(), query }
    }
}

/// The rosters that a change concerns.
pub(super) struct Transaction {
    pub(super) own: Side,
    /// The contact, where it is an account that lives here.
    pub(super) other: Option<Side>,
    /// Whether the contact lives here, if there is such an account.
    pub(super) is_here: bool,
    pub(super) effects: Vec<Effect>,
    /// LIMIT-15
    pub(super) items: RosterLimits,
    /// LIMIT-16
    pub(super) requests: RequestLimits,
}

impl Transaction {
    /// Works the change out.
    pub(super) fn run(&mut self, contact: &BareJid, change: &Change) -> Result<(), RosterError> {
        match change {
            Change::Send { kind, stanza, .. } => self.send(contact, *kind, stanza)?,
            Change::Receive { kind, stanza, .. } => self.receive(contact, *kind, stanza),
            Change::Set(set, _) => self.set(set)?,
            Change::Befriend => self.befriend(contact)?,
            #[cfg(feature = "cluster")]
            Change::BefriendBack => self.befriend(contact)?,
            Change::Show => self.show(contact),
            Change::Strike(text) => self.effects.push(self.own.strike(text)?),
        }
        Ok(())
    }

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
        self.follow(contact, &transition, kind, stanza);
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
            let account = self.own.account.clone();
            return self.effects.push(Effect::TooManyRequests { account });
        }
        self.follow(contact, &transition, kind, stanza);
    }

    /// Applies a transition of this side, and takes its steps in their order. The contact's side changes where the
    /// stanza is routed to it, or where it is replied to.
    fn follow(
        &mut self,
        contact: &BareJid,
        transition: &Transition,
        kind: SubscriptionKind,
        stanza: &Stanza,
    ) {
        let mut push = self.own.apply(contact, transition, stanza);
        if let Some(by) = &self.own.silenced_by {
            if push.is_some() {
                let (account, contact) = (self.own.account.clone(), contact.clone());
                self.effects.push(Effect::Unheard { account, contact, by: by.clone() });
            }
            return;
        }
        for step in transition.steps() {
            match step {
                Step::Route => self.route(kind, stanza, &mut push),
                Step::Reply(reply) => self.reply(contact, *reply, stanza),
                Step::Deliver => {
                    let (account, stanza) = (self.own.account.clone(), stanza.clone());
                    self.effects.push(Effect::Deliver { account, kind, stanza });
                }
                Step::Push => self.effects.extend(push.take()),
                Step::Current => {
                    let (account, contact) = (self.own.account.clone(), contact.clone());
                    self.effects.push(Effect::Current { account, contact });
                }
                Step::Unavailable => self.part(contact, Farewell::Unavailable),
            }
        }
    }

    fn route(&mut self, kind: SubscriptionKind, stanza: &Stanza, push: &mut Option<Effect>) {
        let (here, version) = (self.effects.len(), self.own.roster.version());
        self.pass_on(kind, stanza.clone(), true);
        if self.own.roster.version() != version
            && let Some(push) = push.take()
        {
            // A contact that approved beforehand has answered, and this side has changed once more:
            // pushes leave in the order of changes (ROSTER-17).
            self.effects.insert(here, push);
        }
    }

    fn reply(&mut self, contact: &BareJid, kind: SubscriptionKind, stanza: &Stanza) {
        let mut reply = subscription(kind, &self.own.account, contact);
        if let Some(id) = stanza.id() {
            reply = reply.id(&id);
        }
        self.pass_on(kind, reply.build(), false);
    }

    /// To the contact: its own table if it lives here, the router if it does not. A domain of ours
    /// without such an account swallows it (SUB-5).
    fn pass_on(&mut self, kind: SubscriptionKind, stanza: Stanza, asked: bool) {
        let user = self.own.account.clone();
        if self.swap_sides() {
            self.receive(&user, kind, &stanza);
            self.swap_sides();
        } else if !self.is_here {
            self.effects.push(Effect::Route { stanza, asked });
        }
    }

    /// Makes the other side the own one; `false` where there is none.
    fn swap_sides(&mut self) -> bool {
        self.other.as_mut().map(|other| std::mem::swap(&mut self.own, other)).is_some()
    }

    /// A roster set (RFC 6121 §2.3, §2.5).
    fn set(&mut self, set: &RosterSet) -> Result<(), RosterError> {
        match plan_set(&self.own.roster, &self.own.account, set, &self.items)? {
            SetPlan::Unchanged => {}
            SetPlan::Put(item) => self.effects.push(self.own.put(item)),
            SetPlan::Remove(removal) => {
                self.effects.push(self.own.remove(&removal));
                for farewell in removal.farewells {
                    self.part(&removal.contact, *farewell);
                }
            }
        }
        Ok(())
    }

    /// Both sides at once, whatever they were (HOST-4). Who sees the other only now is told its presence.
    fn befriend(&mut self, contact: &BareJid) -> Result<(), RosterError> {
        let Some(other) = &mut self.other else {
            self.effects.extend(self.own.befriend(contact, &self.items)?);
            return Ok(());
        };
        let account = self.own.account.clone();
        let (sees, is_seen) = (self.own.sees(contact), other.sees(&account));
        let pushes =
            [self.own.befriend(contact, &self.items)?, other.befriend(&account, &self.items)?];
        self.effects.extend(pushes.into_iter().flatten());
        let mut current = |account: &BareJid, contact: &BareJid| {
            let (account, contact) = (account.clone(), contact.clone());
            self.effects.push(Effect::Current { account, contact });
        };
        if !is_seen {
            current(&account, contact);
        }
        if !sees {
            current(contact, &account);
        }
        Ok(())
    }

    /// The contact's item as it is, as if it had changed only now.
    fn show(&mut self, contact: &BareJid) {
        let Some(item) = self.own.roster.item(contact) else { return };
        self.own.roster.remove(contact.as_str());
        self.effects.push(self.own.put(item));
    }

    fn part(&mut self, contact: &BareJid, farewell: Farewell) {
        match farewell {
            Farewell::Unavailable => self.effects.push(Effect::Unavailable {
                account: self.own.account.clone(),
                contact: contact.clone(),
            }),
            Farewell::Send(kind) => {
                let stanza = subscription(kind, &self.own.account, contact).build();
                self.pass_on(kind, stanza, false);
            }
        }
    }
}

/// A subscription stanza between two accounts.
pub(in crate::server::deliver) fn subscription(
    kind: SubscriptionKind,
    from: &BareJid,
    to: &BareJid,
) -> StanzaBuilder {
    Stanza::presence().type_(kind.as_str()).from(from.as_str()).to(to.as_str())
}
