//! Guests: accounts that exist as long as somebody is logged in to them (GUEST-1…7).

#[cfg(feature = "cluster")]
mod moving;
mod stores;

use std::collections::HashMap;
use std::sync::Arc;

use jid::{BareJid, DomainRef, NodePart};

use super::Core;
use super::driver::admission::Source;
use super::limits::Rate;
use crate::address;
use crate::connection::SharedConnection;
use crate::environment::{Environment, random_hex};
use crate::recent::Allowances;
use crate::stanza::{Condition, ErrorType, Stanza, StanzaError};
use crate::store::{Memory, Stores};
use crate::stream::{StreamCondition, StreamError};
use crate::sync::common::{Mutex, RwLock};
#[cfg(feature = "cluster")]
pub(in crate::server) use moving::Lodger;

/// Bytes that all guests together may keep.
const CAPACITY: usize = 16 << 20;

/// How guests are let in to a domain: by ANONYMOUS, with an account of their own that ends with their stream.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use xmpp_session::server::{DomainPolicy, GuestPolicy, Rate};
///
/// let mut guests = GuestPolicy::default();
/// guests.most = 20;
/// guests.rate = Some(Rate::new(1, Duration::from_secs(60), 5));
/// let mut policy = DomainPolicy::default();
/// policy.guests = Some(guests);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GuestPolicy {
    /// How many there may be at once ([LIMIT-32](crate::rules#limit-32)). Default: 100.
    pub most: usize,
    /// How many may come from one source ([LIMIT-32](crate::rules#limit-32)); `None` = no limit. Default: 10 a minute, 10 at
    /// once.
    pub rate: Option<Rate>,
    /// Whether they may send to other domains ([GUEST-5](crate::rules#guest-5)). Default: no.
    pub elsewhere: bool,
}

impl Default for GuestPolicy {
    fn default() -> Self {
        let minute = std::time::Duration::from_secs(60);
        Self { most: 100, rate: Some(Rate::new(10, minute, 10)), elsewhere: false }
    }
}

/// The guests of a server.
pub(super) struct Guests {
    environment: Arc<dyn Environment>,
    accounts: RwLock<HashMap<BareJid, Guest>>,
    arrivals: Mutex<Allowances>,
    /// What they keep: it goes with them, whatever becomes of the server.
    kept: Memory,
}

/// What a guest may do, and what it is here.
#[derive(Clone, Copy)]
struct Guest {
    elsewhere: bool,
    /// Its account lives here.
    is_here: bool,
    /// It has come in here, and counts among those that have.
    is_let_in: bool,
}

impl Guests {
    pub(super) fn new(environment: Arc<dyn Environment>) -> Self {
        let kept = Memory::new().with_capacity(CAPACITY);
        let arrivals = Mutex::new(Allowances::new(SOURCES));
        Self { environment, accounts: RwLock::default(), arrivals, kept }
    }

    /// An account for a guest, which nobody can guess; `None` where there is no room for one (LIMIT-32). It lives here, or
    /// at another node, which [knows](Self::lodge) of it as soon as the client is there.
    pub(super) fn admit(
        &self,
        domain: &DomainRef,
        policy: &GuestPolicy,
        source: Source,
        is_here: bool,
    ) -> Option<BareJid> {
        let node = NodePart::new(&random_hex::<16>(&*self.environment)).ok()?.into_owned();
        let account = BareJid::from_parts(Some(&node), domain);
        let mut accounts = self.accounts.write();
        let is_counted = |one: &BareJid, guest: &Guest| guest.is_let_in && one.domain() == domain;
        let present = accounts.iter().filter(|(one, guest)| is_counted(one, guest)).count();
        if present >= policy.most || accounts.contains_key(&account) {
            return None;
        }
        if let Some(rate) = policy.rate.filter(|_| source.key() != 0) {
            let now = self.environment.now();
            if !self.arrivals.lock().take(&source, rate.each(), rate.burst, now) {
                return None;
            }
        }
        let guest = Guest { elsewhere: policy.elsewhere, is_here, is_let_in: true };
        accounts.insert(account.clone(), guest);
        Some(account)
    }

    pub(super) fn has(&self, account: &BareJid) -> bool {
        self.accounts.read().get(account).is_some_and(|guest| guest.is_here)
    }

    fn change(&self, account: &BareJid, change: impl FnOnce(&mut Guest)) {
        let mut accounts = self.accounts.write();
        if let Some(guest) = accounts.get_mut(account) {
            change(guest);
            if !guest.is_here && !guest.is_let_in {
                accounts.remove(account);
            }
        }
    }

    /// It is not let in any more; its account, which lives elsewhere, ends there.
    #[cfg(feature = "cluster")]
    pub(super) fn left(&self, account: &BareJid) {
        self.change(account, |guest| guest.is_let_in = false);
    }

    /// GUEST-5: whether a stanza on its way to another domain has to stay.
    fn keeps(&self, stanza: &Stanza) -> bool {
        let Some(from) = stanza.from() else { return false };
        let Ok(from) = address::bare(address::bare_of(&from)) else { return false };
        self.accounts.read().get(&from).is_some_and(|guest| guest.is_here && !guest.elsewhere)
    }

    /// The same stores, in which guests have accounts, and of which theirs keep nothing.
    pub(super) fn stores(self: &Arc<Self>, stores: Stores) -> Stores {
        stores::split(self, stores)
    }
}

impl<C: SharedConnection> Core<C> {
    /// Whether it is one of several nodes, whose clients are elsewhere once they have authenticated.
    #[cfg_attr(
        not(feature = "cluster"),
        expect(clippy::unused_self, reason = "there are no others")
    )]
    pub(super) fn is_node(&self) -> bool {
        #[cfg(feature = "cluster")]
        return self.edges.get().is_some();
        #[cfg(not(feature = "cluster"))]
        false
    }

    /// Why a stanza must not leave for another domain.
    pub(super) fn is_kept_here(&self, stanza: &Stanza) -> Option<StanzaError> {
        let guests = self.guests.as_ref()?;
        let refusal = || StanzaError::new(Condition::Forbidden).with_type(ErrorType::Auth);
        guests.keeps(stanza).then(refusal)
    }

    /// A guest's transport is gone, and with it the account (GUEST-3): nobody else can log in to it.
    pub(super) fn guest_left(self: &Arc<Self>, account: BareJid) {
        let core = Arc::clone(self);
        self.jobs.spawn(async move {
            let error = StreamError::new(StreamCondition::NotAuthorized);
            // What a store of others does not take back stays as it is with any account that is gone.
            let _failed = core.remove_account(&account, &error, None).await;
            if let Some(guests) = &core.guests {
                guests.change(&account, |guest| {
                    guest.is_here = false;
                    guest.is_let_in &= core.is_node();
                });
            }
        });
    }
}

/// Sources that are remembered, and up to twice as many.
const SOURCES: usize = 1 << 14;
