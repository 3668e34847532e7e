//! What the clones of a registry, its sessions and their owners share.

use std::sync::{Arc, Weak};
use std::time::Duration;

use jid::{BareJid, DomainPart};
use smallvec::SmallVec;

use super::backlog::Backlogs;
use super::builder::{Hides, Settings};
use super::end::{Leftover, Reason, Run};
use super::events::Events;
#[cfg(feature = "cluster")]
use super::groups::Groups;
use super::hibernation::{Hibernating, Remembered};
use super::rows::Row;
use super::seen::Seen;
use super::table::{AccountKey, Table};
use crate::address::bare_of;
use crate::connection::SharedConnection;
use crate::rules::roster::Roster;
use crate::session::account::{Account, AccountState, Values};
use crate::session::handle::{SessionHandle, SessionId, Shared};
use crate::session::outbound::{After, Hold, RetentionLimits, Validity};
use crate::shield::{HostCode, Panicked, shielded, shielded_or};
use crate::stanza::Stanza;
use crate::sync::common::{AtomicBool, AtomicU64, AtomicUsize, Mutex};
use crate::sync::{Padded, Tally};

pub(crate) struct Inner<C: SharedConnection> {
    pub(super) me: Weak<Self>,
    pub(super) table: Table<C>,
    /// The same accounts, where they may move to other nodes.
    #[cfg(feature = "cluster")]
    pub(super) groups: Option<Groups>,
    // What is written stands apart from what each delivery reads.
    pub(super) next: Padded<AtomicU64>,
    pub(super) sessions: Padded<AtomicUsize>,
    pub(super) absent: Padded<AtomicUsize>,
    /// Bytes of all queues that are kept for acknowledgement (LIMIT-11).
    pub(crate) retained_bytes: Arc<Tally>,
    /// A thread is ending hibernating sessions for their memory.
    pub(super) relieving: Padded<AtomicBool>,
    pub(super) hibernating: Padded<Mutex<Hibernating<C>>>,
    pub(super) remembered: Padded<Mutex<Remembered>>,
    /// Messages that later ones must not overtake.
    pub(super) backlogs: Backlogs<C>,
    pub(super) events: Events<C>,
    /// When accounts were there last (PRES-15). A leaf lock.
    pub(super) seen: Padded<Mutex<Seen>>,
    pub(crate) settings: Settings<C>,
}

impl<C: SharedConnection> Inner<C> {
    #[inline]
    pub(crate) fn now(&self) -> Duration {
        self.settings.environment.now()
    }

    #[inline]
    pub(crate) const fn limits(&self) -> &RetentionLimits {
        &self.settings.retention
    }

    pub(super) fn find(&self, account: AccountKey<'_>, resource: &str) -> Option<SessionHandle<C>> {
        self.table
            .with(account, |row| {
                row.visible()
                    .find(|slot| slot.session.jid.resource().as_str() == resource)
                    .map(|slot| SessionHandle(Arc::clone(&slot.session)))
            })
            .flatten()
    }

    pub(super) fn sessions(&self, account: AccountKey<'_>) -> SmallVec<[SessionHandle<C>; 4]> {
        self.table.sessions(account, SessionHandle)
    }

    /// The sessions of an account that are so at the moment of the look-up.
    #[inline(always)]
    pub(super) fn sessions_that(
        &self,
        account: AccountKey<'_>,
        are: impl Fn(&Shared<C>) -> bool,
    ) -> SmallVec<[SessionHandle<C>; 4]> {
        let mut sessions = SmallVec::new();
        self.table.with(account, |row| {
            for slot in row.visible().filter(|slot| are(&slot.session)) {
                sessions.push(SessionHandle(Arc::clone(&slot.session)));
            }
        });
        sessions
    }

    pub(crate) fn set_roster(&self, account: &Account, mut roster: Roster) {
        self.table.hash_contacts(&mut roster, &account.roster());
        account.set_roster(roster);
    }

    /// Every session, a shard at a time.
    pub(super) fn all(self: &Arc<Self>) -> impl Iterator<Item = SessionHandle<C>> + use<C> {
        let inner = Arc::clone(self);
        (0..self.table.shards().count()).flat_map(move |shard| {
            let shard = inner.table.shards().nth(shard).map(|shard| shard.read());
            let rows = shard.iter().flat_map(|shard| shard.iter());
            let slots = rows.flat_map(Row::visible);
            slots.map(|slot| SessionHandle(Arc::clone(&slot.session))).collect::<Vec<_>>()
        })
    }

    /// Whether this bare JID lives in this registry: one that is ours, and not at home in another one.
    pub(super) fn is_local(&self, bare: &str) -> bool {
        self.is_ours(bare) && self.settings.lives_here.as_ref().is_none_or(|here| here(bare))
    }

    /// Whether this bare JID is one of our domains, or an account in one.
    pub(super) fn is_ours(&self, bare: &str) -> bool {
        let domains = &self.settings.domains;
        let is_in = |domain: &DomainPart| {
            bare.strip_suffix(domain.as_str()).is_some_and(|n| n.is_empty() || n.ends_with('@'))
        };
        domains.is_empty() || domains.iter().any(is_in)
    }

    /// Since when a session waits to be resumed, if it does.
    pub(crate) fn hibernating_since(&self, session: SessionId) -> Option<Duration> {
        self.hibernating.lock().since(session)
    }

    /// To the host's router, which drops what is void where it orders the stanza.
    pub(super) fn elsewhere(&self, stanza: impl FnOnce() -> Stanza, validity: Validity<'_>) {
        if let Some(router) = &self.settings.elsewhere {
            self.shielded(HostCode::Router, None, || router(stanza(), validity));
        }
    }

    /// The hook, if there is something that it could know of `account`.
    pub(super) fn hides_any(&self, account: &Account) -> Option<&Hides> {
        self.settings.hides.as_ref().filter(|_| !account.values(Values::is_empty))
    }

    /// Whether presence between `account` and `jid` is to be left out. A hook that panics hides.
    pub(super) fn hides(&self, account: &Arc<Account>, jid: &str) -> bool {
        let Some(hook) = self.hides_any(account) else { return false };
        let state = AccountState(Arc::clone(account));
        let hides = || hook(&state, jid);
        bare_of(jid) != account.bare.as_str()
            && self.shielded(HostCode::Extension, Some(&account.bare), hides).unwrap_or(true)
    }

    /// From which resources of a contact, from which it does not hide as a whole, an account hides.
    #[cfg(feature = "cluster")]
    pub(super) fn hidden_resources(&self, account: &Arc<Account>, bare: &str) -> Vec<String> {
        let is_asked = bare != account.bare.as_str() && self.hides_any(account).is_some();
        let hook = self.settings.hidden_resources.as_ref().filter(|_| is_asked);
        let Some(hook) = hook else { return Vec::new() };
        let resources = || hook(&AccountState(Arc::clone(account)), bare);
        self.shielded(HostCode::Extension, Some(&account.bare), resources).unwrap_or_default()
    }

    /// Whether a stanza is held back. A hook that panics holds nothing.
    pub(crate) fn hold(&self, session: &Arc<Shared<C>>, stanza: &Stanza) -> Hold {
        let Some(hook) = &self.settings.hold else { return Hold::Pass };
        let session = SessionHandle(Arc::clone(session));
        let account = Some(&session.0.account.bare);
        self.shielded(HostCode::Extension, account, || hook(&session, stanza)).unwrap_or(Hold::Pass)
    }

    pub(super) fn leave(&self, leftover: Leftover) {
        if let Some(hook) = &self.settings.leftover {
            self.shielded(HostCode::Extension, None, || hook(leftover));
        }
    }

    /// Runs host code, which fails alone; its panic is told.
    #[inline]
    pub(super) fn shielded<T>(
        &self,
        code: HostCode,
        account: Option<&BareJid>,
        host: impl FnOnce() -> T,
    ) -> Option<T> {
        shielded_or(host, |message| self.panicked(code, account, message))
    }

    /// Tells of a panic of host code.
    #[cold]
    pub(crate) fn panicked(
        &self,
        code: HostCode,
        account: Option<&BareJid>,
        message: Option<String>,
    ) {
        let Some(hook) = &self.settings.on_panic else { return };
        let mut panicked = Panicked::new(code, message);
        panicked.account = account.cloned();
        shielded(|| hook(&panicked));
    }

    /// Tells the listener what has happened, if there is one.
    pub(in crate::session) fn deliver_events(&self) {
        if self.events.has_listener() {
            self.deliver_ends();
        }
    }

    /// The same where something has ended, which a server hears of in any case.
    pub(super) fn deliver_ends(&self) {
        self.events.deliver(|session, message| {
            self.panicked(HostCode::Listener, Some(&session.0.account.bare), message);
        });
    }

    /// Does what a call into an outbound left to do.
    #[inline]
    pub(crate) fn settle(&self, shared: &Arc<Shared<C>>, after: After) {
        if !matches!(after, After::Nothing) {
            self.settle_now(shared, after);
        }
    }

    fn settle_now(&self, shared: &Arc<Shared<C>>, after: After) {
        match after {
            After::Nothing => {}
            // The sender only happened to notice.
            After::Lost(epoch, error) => self.lose(shared, epoch, error.into(), None, Run::Later),
            After::Strays(left) => self.leave_strays(shared, left),
            After::Overgrown => {
                // A resumption may have been quicker.
                let still = |_| shared.out.lock().is_overgrown(self.limits());
                self.end_if(shared, Reason::Overflow, None, Run::Later, still);
            }
            After::Behind => crate::shield::note_behind(),
        }
    }
}
