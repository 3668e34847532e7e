//! Changes of rosters and subscriptions: stored first, then in memory, then told
//! (RFC 6121 §2.3, §2.5, §3; promise "durable before acknowledged").
//!
//! A change runs as a job on the chains of both accounts, so that nothing else changes either roster
//! meanwhile.

use std::sync::Arc;

use jid::BareJid;

use super::transaction::{Change, Effect, Side, Transaction, subscription};
use crate::connection::SharedConnection;
#[cfg(feature = "cluster")]
use crate::extension::AccountError;
use crate::extension::Admission;
use crate::rules::roster::{Roster, RosterError};
use crate::rules::subscription::SubscriptionKind;
use crate::server::deliver::give::Origin;
#[cfg(feature = "cluster")]
use crate::server::node::act::Act;
use crate::server::{Core, PeerAddress};
use crate::session::{HostCode, Parting, SessionHandle, Validity};
use crate::stanza::{Condition, Stanza, StanzaError};
use crate::store::{RosterChange, StoreError};
use crate::stream::Limit;

/// Effects in their order, each with what was prepared for it before the rosters changed.
type Effects<C> = Vec<(Effect, Option<Parting<C>>)>;

/// Why a roster was not changed.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) enum ChangeError {
    /// The store failed; why is for its own log.
    Store(#[from] StoreError),
    Roster(#[from] RosterError),
    /// The host asked for it, and there is no such account.
    #[error("there is no such account")]
    NoAccount,
    /// The contact's home has refused its half.
    #[cfg(feature = "cluster")]
    Afar(AccountError),
}

impl From<ChangeError> for StanzaError {
    fn from(error: ChangeError) -> Self {
        match error {
            #[cfg(feature = "cluster")]
            ChangeError::Afar(_) => Self::new(Condition::InternalServerError),
            ChangeError::Store(_) => Self::new(Condition::InternalServerError),
            ChangeError::NoAccount => Self::new(Condition::ItemNotFound),
            ChangeError::Roster(error) => error.into(),
        }
    }
}

impl<C: SharedConnection> Core<C> {
    /// Changes the roster of `account` concerning `contact`: worked out, stored and told in one
    /// job, so that pushes leave in the order of their changes (ROSTER-17). `origin` is the session
    /// that asked for it; `before` runs between the store and the effects.
    pub(crate) async fn change_roster(
        self: &Arc<Self>,
        account: BareJid,
        contact: BareJid,
        change: Change,
        origin: Option<SessionHandle<C>>,
        before: impl FnOnce() + Send + 'static,
    ) -> Result<(), ChangeError> {
        let core = Arc::clone(self);
        let (own_key, other_key) = (account.to_string(), contact.to_string());
        let is_here = contact.node().is_some() && self.is_here(contact.as_str());
        let two_sides = change.has_two_sides() && is_here && contact != account;
        let job = async move {
            let effects = core.transact(account, contact, change, two_sides).await?;
            // Stored is done: host code that panics on the way takes no later effect along.
            let account = origin.as_ref().map(|session| &session.account().bare);
            core.shielded(HostCode::Extension, account, before);
            for (effect, parting) in effects {
                let carry_out = || core.carry_out(effect, parting, origin.as_ref());
                core.shielded(HostCode::Extension, account, carry_out);
            }
            Ok(())
        };
        if two_sides {
            self.jobs.run_pair(&own_key, &other_key, job).await.flatten()
        } else {
            self.jobs.run(&own_key, job).await
        }
        .unwrap_or_else(|| Err(StoreError::failed("the store panicked").into()))
    }

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
    ) -> Result<Effects<C>, ChangeError> {
        if change.is_of_host() && !self.may_act_for(&account).await? {
            return Err(ChangeError::NoAccount);
        }
        let mut own = self.side(account, &contact, change.needs_all()).await?;
        let mut other = None;
        let both = matches!(change, Change::Befriend);
        let has_contact = match both {
            true => two_sides && self.may_act_for(&contact).await?,
            false => two_sides && self.stores.accounts.exists(&contact).await?,
        };
        #[cfg(feature = "cluster")]
        let is_afar = both && self.is_elsewhere(&contact);
        #[cfg(not(feature = "cluster"))]
        let is_afar = false;
        if both && !has_contact && !is_afar {
            return Err(ChangeError::NoAccount);
        }
        if has_contact {
            let whole = both;
            let mut side = self.side(contact.clone(), &own.account, whole).await?;
            side.silenced_by = self.silence(&own.account, &contact, &change).await?;
            other = Some(side);
        } else if let Change::Receive { stanza, silent, .. } = &change {
            let state = self.loaded_state(&own.account).await?;
            let heard = matches!(self.admit_to(&state, stanza), Admission::Accept);
            own.silenced_by = match (heard, silent) {
                (false, _) => Some(own.account.clone()),
                (true, true) => Some(contact.clone()),
                (true, false) => None,
            };
        }
        let mut transaction = Transaction {
            own,
            other,
            is_here: self.is_here(contact.as_str()),
            effects: Vec::new(),
            items: self.limits.roster,
            requests: self.limits.requests,
        };
        #[cfg(feature = "cluster")]
        let saw = is_afar && transaction.own.sees(&contact);
        transaction.run(&contact, &change)?;
        #[cfg(feature = "cluster")]
        if is_afar {
            let act = Act::BefriendBack(transaction.own.account.clone());
            let was_seen = self.at_home(&contact, act).await.map_err(ChangeError::Afar)?.flag();
            if !was_seen {
                let account = transaction.own.account.clone();
                transaction.effects.push(Effect::Current { account, contact: contact.clone() });
            }
        }
        let Transaction { own, other, effects, .. } = transaction;
        self.store_change(&own, other.as_ref()).await?;
        let prepared = |effect| {
            let parting = match &effect {
                Effect::Unavailable { account, contact } => {
                    Some(self.registry.prepare_parting(account.as_str(), contact.as_str()))
                }
                _ => None,
            };
            (effect, parting)
        };
        let effects = effects.into_iter().map(prepared).collect();
        #[cfg(feature = "cluster")]
        let _account = own.account.clone();
        for side in [Some(own), other].into_iter().flatten() {
            if let Some(shared) = side.shared {
                self.registry.set_roster(&shared, side.roster);
            }
        }
        #[cfg(feature = "cluster")]
        if is_afar && !saw {
            self.tell_home(&contact, Act::Show(_account));
        }
        Ok(effects)
    }

    /// Subscribes two accounts to each other of which one, or none, lives here: at the home of the one that comes first,
    /// in whose turn the other's has its own. So no two of these wait for each other.
    #[cfg(feature = "cluster")]
    pub(in crate::server) async fn befriend_afar(
        self: &Arc<Self>,
        one: &BareJid,
        other: &BareJid,
    ) -> Result<(), AccountError> {
        let (first, second) =
            if one.as_str() <= other.as_str() { (one, other) } else { (other, one) };
        if self.is_elsewhere(first) {
            let act = Act::Befriend(second.clone());
            return self.at_home(first, act).await.map(|_done| ());
        }
        let (account, contact) = (first.clone(), second.clone());
        Ok(self.change_roster(account, contact, Change::Befriend, None, || ()).await?)
    }

    /// The second half of that; whether the account saw the other one before.
    #[cfg(feature = "cluster")]
    pub(in crate::server) async fn befriend_back(
        self: &Arc<Self>,
        account: BareJid,
        other: BareJid,
    ) -> Result<bool, AccountError> {
        let saw = self.side(account.clone(), &other, false).await?.sees(&other);
        self.change_roster(account, other, Change::BefriendBack, None, || ()).await?;
        Ok(saw)
    }

    /// Whether the host may act for an account: it exists, and is not about to be removed.
    async fn may_act_for(&self, account: &BareJid) -> Result<bool, StoreError> {
        Ok(!self.ledger.is_closed_to(account) && self.exists(account).await?)
    }

    /// Whether there is such an account: it has sessions, or its store says so.
    pub(crate) async fn exists(&self, account: &BareJid) -> Result<bool, StoreError> {
        Ok(self.registry.is_loaded(account) || self.stores.accounts.exists(account).await?)
    }

    /// The roster of `account`: `whole`, or as far as `contact` is concerned if it is not in memory.
    async fn side(
        &self,
        account: BareJid,
        contact: &BareJid,
        whole: bool,
    ) -> Result<Side, StoreError> {
        let counted = |roster: Roster| {
            let requests = roster.requests().len();
            (roster, requests)
        };
        let shared = self.registry.account(self.registry.key(account.as_str()));
        let (roster, requests) = match &shared {
            // A copy shares what is not changed.
            Some(shared) => counted(Roster::clone(&shared.roster())),
            None if whole => counted(self.load_roster(&account).await?),
            None => self.load_contact(&account, contact).await?,
        };
        let change = RosterChange::new();
        Ok(Side { account, shared, roster, requests, change, silenced_by: None })
    }

    /// Which of the two accounts keeps the contact from hearing of a change: itself, where it does
    /// not let the stanza in, or the account, where it hides from the contact (BLOCK-9).
    async fn silence(
        &self,
        account: &BareJid,
        contact: &BareJid,
        change: &Change,
    ) -> Result<Option<BareJid>, StoreError> {
        if self.extensions.is_empty() {
            return Ok(None);
        }
        let (theirs, own) = (self.loaded_state(contact).await?, self.loaded_state(account).await?);
        let admission = match change {
            Change::Send { stanza, .. } | Change::Receive { stanza, .. } => {
                self.admit_to(&theirs, stanza)
            }
            #[cfg(feature = "cluster")]
            Change::BefriendBack => Admission::Accept,
            Change::Set(..) | Change::Befriend | Change::Show | Change::Strike(_) => {
                let farewell = subscription(SubscriptionKind::Unsubscribe, account, contact);
                self.admit_to(&theirs, &farewell.build())
            }
        };
        Ok(if !matches!(admission, Admission::Accept) {
            Some(contact.clone())
        } else if self.is_hidden(&own, contact.as_str()) {
            Some(account.clone())
        } else {
            None
        })
    }

    /// Stores what has changed on both sides in one step.
    async fn store_change(&self, own: &Side, other: Option<&Side>) -> Result<(), StoreError> {
        let store = &self.stores.rosters;
        #[cfg(feature = "cluster")]
        for Side { account, change, .. } in [Some(own), other].into_iter().flatten() {
            let contacts = [change.put.as_ref().map(|item| &item.jid), change.remove.as_ref()];
            for contact in contacts.into_iter().flatten() {
                self.note_half(account, contact, false);
            }
        }
        match other.filter(|other| !other.change.is_empty()) {
            Some(other) => {
                let (first, second) = (own.change.clone(), other.change.clone());
                store.apply_pair(&own.account, first, &other.account, second).await
            }
            None if own.change.is_empty() => Ok(()),
            None => store.apply(&own.account, own.change.clone()).await,
        }
    }

    fn carry_out(
        self: &Arc<Self>,
        effect: Effect,
        parting: Option<Parting<C>>,
        origin: Origin<'_, C>,
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
            Effect::Unheard { account, contact, by } => self.unheard.add(by, account, contact),
            Effect::Current { account, contact } => {
                self.registry.tell_contact(account.as_str(), contact.as_str());
            }
            Effect::Unavailable { .. } => {
                if let Some(parting) = parting {
                    self.registry.part(parting);
                }
            }
            Effect::TooManyRequests { account } => {
                self.limit(Limit::Requests, &PeerAddress::UNKNOWN, Some(&account));
            }
            #[cfg(feature = "cluster")]
            Effect::Route { stanza, .. } if self.is_silent(&stanza) => {
                self.node.iter().for_each(|node| node.send_silently(stanza.clone()));
            }
            Effect::Route { stanza, asked } => {
                self.route_elsewhere(origin.filter(|_| asked), stanza, Validity::FOR_GOOD);
            }
        }
    }

    /// A roster push to all interested sessions of an account (ROSTER-10, ROSTER-11).
    fn push(&self, account: &BareJid, query: &[u8]) {
        let id = self.registry.push_id();
        let push = Stanza::iq("set").from(account.as_str()).to(account.as_str()).id(&id);
        let push = push.payload(query).build();
        for session in self.registry.interested(account) {
            if let Some(interested) = session.interested() {
                let _gone = interested.push(&push);
            }
        }
    }
}
