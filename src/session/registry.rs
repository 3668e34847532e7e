//! The table of bound sessions: look-up, settings, and the shared inside of the room.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use jid::{BareJid, DomainPart, FullJid};
use smallvec::SmallVec;

use super::account::Account;
use super::backlog::Backlogs;
use super::bind::Conflict;
use super::builder::{Builder, Hides, OnHold, Settings};
use super::end::{Leftover, Reason, Run};
use super::events::{Events, Listener};
use super::handle::{SessionHandle, Shared};
use super::held::Hold;
use super::hibernation::{Hibernating, Remembered};
use super::kept::{AccountState, Kept};
use super::outbound::After;
use super::retained::RetentionLimits;
use super::seen::Seen;
use super::shield::shielded;
use super::table::{Key, Table};
use crate::connection::SharedConnection;
use crate::environment::Environment;
use crate::rules::delivery::Top;
use crate::rules::roster::Roster;
use crate::stanza::Stanza;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// All bound sessions of one server: live ones and those that wait to be resumed.
///
/// Cheap to clone; all clones are one registry. Dropping the last clone ends every session
/// (DESTROY-14).
pub struct SessionRegistry<C: SharedConnection>(Arc<Guard<C>>);

/// Ends everything when the last clone of the registry goes.
struct Guard<C: SharedConnection>(Arc<Inner<C>>);

impl<C: SharedConnection> Drop for Guard<C> {
    fn drop(&mut self) {
        self.0.end_all(Reason::Shutdown);
    }
}

/// How many sessions there are, and how much is kept for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Bound sessions, live and hibernating.
    pub sessions: usize,
    /// Sessions that wait to be resumed.
    pub hibernating: usize,
    /// Bytes that wait to be acknowledged, of all sessions (LIMIT-11).
    pub retained_bytes: usize,
}

impl<C: SharedConnection> SessionRegistry<C> {
    /// A registry with the defaults of the rules, on the host's `environment`.
    pub fn builder(environment: Arc<dyn Environment>) -> Builder<C> {
        let settings = Settings {
            environment,
            conflict: Conflict::Replace,
            sessions_per_account: 32,
            hibernating_per_account: 8,
            retention: RetentionLimits::default(),
            domains: Vec::new(),
            background: None,
            elsewhere: None,
            leftover: None,
            backlog: None,
            hides: None,
        };
        Builder { settings, listener: None, hold: None }
    }

    pub(super) fn assemble(
        settings: Settings,
        listener: Option<Listener<C>>,
        hold: Option<OnHold<C>>,
    ) -> Self {
        let inner = Arc::new_cyclic(|me| Inner {
            me: Weak::clone(me),
            table: Table::new(&*settings.environment),
            next: AtomicU64::new(1),
            sessions: AtomicUsize::new(0),
            absent: AtomicUsize::new(0),
            retained_bytes: Arc::new(AtomicUsize::new(0)),
            relieving: AtomicBool::new(false),
            hibernating: Mutex::new(Hibernating::default()),
            remembered: Mutex::new(Remembered::default()),
            backlogs: Backlogs::new(),
            events: Events::new(listener),
            hold,
            seen: Mutex::new(Seen::default()),
            settings,
        });
        Self(Arc::new(Guard(inner)))
    }

    pub(super) fn inner(&self) -> &Arc<Inner<C>> {
        &self.0.0
    }

    /// The session bound to `jid`, live or hibernating.
    #[must_use]
    pub fn session(&self, jid: &FullJid) -> Option<SessionHandle<C>> {
        self.inner().find(self.key(bare(jid)), jid.resource().as_str())
    }

    /// A bare JID, as normalised text, to be looked up: hashed once for all look-ups on the way of a stanza.
    pub(crate) fn key<'a>(&self, bare: &'a str) -> Key<'a> {
        self.inner().table.key(bare)
    }

    /// As [`session`](Self::session).
    #[cfg(feature = "server")]
    pub(crate) fn find(&self, account: Key<'_>, resource: &str) -> Option<SessionHandle<C>> {
        self.inner().find(account, resource)
    }

    /// All sessions of an account, in the order in which they were bound.
    #[must_use]
    pub fn sessions(&self, account: &BareJid) -> Sessions<C> {
        self.sessions_of(self.key(account.as_str()))
    }

    pub(crate) fn sessions_of(&self, account: Key<'_>) -> Sessions<C> {
        Sessions(self.inner().sessions(account).into_iter())
    }

    /// The available sessions of an account, whatever their priority.
    #[must_use]
    pub fn available(&self, account: &BareJid) -> Sessions<C> {
        let sessions = self.inner().sessions_that(self.key(account.as_str()), Shared::is_available);
        Sessions(sessions.into_iter())
    }

    /// The interested sessions of an account: those that get roster pushes.
    #[must_use]
    pub fn interested(&self, account: &BareJid) -> Sessions<C> {
        let sessions =
            self.inner().sessions_that(self.key(account.as_str()), Shared::is_interested);
        Sessions(sessions.into_iter())
    }

    /// The sessions that a message to the bare JID goes to: of the available ones with a
    /// non-negative priority those that share the highest (MSG-2); if all of them hibernate, the
    /// live ones of the highest priority besides (MSG-3).
    #[must_use]
    pub fn top(&self, account: &BareJid) -> Sessions<C> {
        let key = self.key(account.as_str());
        let mut sessions = self.inner().sessions_that(key, Shared::is_available);
        let facts = |session: &SessionHandle<C>| (session.priority(), session.is_live());
        let top = Top::choose(sessions.iter().map(facts));
        sessions.retain(|session| {
            let (priority, live) = facts(session);
            top.is_some_and(|top| top.takes(priority, live))
        });
        Sessions(sessions.into_iter())
    }

    /// Every session of the registry. Those that come or go meanwhile may be seen or not.
    pub fn iter(&self) -> impl Iterator<Item = SessionHandle<C>> {
        let inner = Arc::clone(self.inner());
        (0..inner.table.shards().len()).flat_map(move |shard| inner.shard_sessions(shard))
    }

    /// Bound sessions, live and hibernating.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner().sessions.load(Ordering::SeqCst)
    }

    /// Whether there is no session.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many sessions there are, by state.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            sessions: self.len(),
            hibernating: self.inner().absent.load(Ordering::SeqCst),
            retained_bytes: self.inner().retained_bytes.load(Ordering::SeqCst),
        }
    }

    /// Whether the account's data is loaded: it has a session, or one is ending.
    #[must_use]
    pub fn is_loaded(&self, account: &BareJid) -> bool {
        self.has_row(self.key(account.as_str()))
    }

    /// As [`is_loaded`](Self::is_loaded).
    pub(crate) fn has_row(&self, account: Key<'_>) -> bool {
        self.inner().table.with(account, |_| ()).is_some()
    }

    pub(crate) fn account(&self, account: Key<'_>) -> Option<Arc<Account>> {
        self.inner().table.with(account, |entry| Arc::clone(&entry.shared))
    }

    /// Replaces the roster of an account. The caller has stored it.
    #[cfg(feature = "server")]
    pub(crate) fn set_roster(&self, account: &Account, roster: Roster) {
        self.inner().set_roster(account, roster);
    }

    /// An id for a push, never used before, and none that can be guessed (ROSTER-11, SEC-1).
    #[cfg(feature = "server")]
    pub(crate) fn push_id(&self) -> String {
        crate::environment::random_hex::<12>(&*self.inner().settings.environment)
    }

    /// Whether the accounts of this domain, or the account of this bare JID, live in the registry.
    #[must_use]
    pub fn is_local(&self, bare: &str) -> bool {
        self.inner().is_local(bare)
    }

    /// Ends a session for `reason`, with the stream error that belongs to it: whoever saw the
    /// resource gets one unavailable, the connection is flushed and closed, the entry forgotten.
    ///
    /// `false` where the session was over already: then nothing happens (DESTROY-4).
    #[expect(clippy::must_use_candidate, reason = "most callers do not mind who was first")]
    pub fn destroy_session(&self, session: &SessionHandle<C>, reason: Reason) -> bool {
        self.inner().end(&session.0, reason, None)
    }

    /// The same, with `last_words` written instead of what belongs to the reason.
    #[expect(clippy::must_use_candidate, reason = "most callers do not mind who was first")]
    pub fn destroy_session_with(
        &self,
        session: &SessionHandle<C>,
        reason: Reason,
        last_words: &[u8],
    ) -> bool {
        self.inner().end(&session.0, reason, Some(last_words))
    }

    /// Whether no session is left, not even one whose end is being told.
    #[must_use]
    pub fn is_forgotten(&self) -> bool {
        self.inner().table.shards().iter().all(|shard| shard.read().is_empty())
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do next, on the
    /// environment's monotonic clock.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Duration> {
        self.inner().hibernating.lock().next()
    }

    /// Ends what has been without a transport for too long, and forgets what is too old. The host
    /// calls it by a timer: these sessions have no owner who could.
    pub fn handle_timeout(&self) {
        self.inner().expire();
    }
}

impl<C: SharedConnection> Clone for SessionRegistry<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C: SharedConnection> fmt::Debug for SessionRegistry<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionRegistry").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

/// Sessions that were found, as they were at that moment.
pub struct Sessions<C: SharedConnection>(smallvec::IntoIter<[SessionHandle<C>; 4]>);

impl<C: SharedConnection> Sessions<C> {
    /// Whether none is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.len() == 0
    }
}

impl<C: SharedConnection> Iterator for Sessions<C> {
    type Item = SessionHandle<C>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl<C: SharedConnection> ExactSizeIterator for Sessions<C> {}

impl<C: SharedConnection> fmt::Debug for Sessions<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").field("left", &self.len()).finish()
    }
}

/// The shared inside of a registry.
pub(super) struct Inner<C: SharedConnection> {
    pub(super) me: Weak<Self>,
    pub(super) table: Table<C>,
    pub(super) next: AtomicU64,
    pub(super) sessions: AtomicUsize,
    pub(super) absent: AtomicUsize,
    /// Bytes of all queues that are kept for acknowledgement (LIMIT-11).
    pub(super) retained_bytes: Arc<AtomicUsize>,
    /// A thread is ending hibernating sessions for their memory.
    pub(super) relieving: AtomicBool,
    pub(super) hibernating: Mutex<Hibernating<C>>,
    pub(super) remembered: Mutex<Remembered>,
    /// What comes before the messages of now.
    pub(super) backlogs: Backlogs<C>,
    pub(super) events: Events<C>,
    hold: Option<OnHold<C>>,
    /// When accounts were there last (PRES-15). A leaf lock.
    pub(super) seen: Mutex<Seen>,
    pub(super) settings: Settings,
}

impl<C: SharedConnection> Inner<C> {
    pub(super) fn find(&self, account: Key<'_>, resource: &str) -> Option<SessionHandle<C>> {
        self.table
            .with(account, |entry| {
                entry
                    .visible()
                    .find(|slot| slot.shared.jid.resource().as_str() == resource)
                    .map(|slot| SessionHandle(Arc::clone(&slot.shared)))
            })
            .flatten()
    }

    pub(super) fn sessions(&self, account: Key<'_>) -> SmallVec<[SessionHandle<C>; 4]> {
        self.sessions_that(account, |_| true)
    }

    /// The sessions of an account that are so at the moment of the look-up.
    pub(super) fn sessions_that(
        &self,
        account: Key<'_>,
        are: impl Fn(&Shared<C>) -> bool,
    ) -> SmallVec<[SessionHandle<C>; 4]> {
        let mut sessions = SmallVec::new();
        self.table.with(account, |entry| {
            for slot in entry.visible().filter(|slot| are(&slot.shared)) {
                sessions.push(SessionHandle(Arc::clone(&slot.shared)));
            }
        });
        sessions
    }

    pub(super) fn set_roster(&self, account: &Account, mut roster: Roster) {
        self.table.hash_contacts(&mut roster, &account.roster());
        account.set_roster(roster);
    }

    fn shard_sessions(&self, shard: usize) -> Vec<SessionHandle<C>> {
        let Some(shard) = self.table.shards().get(shard) else { return Vec::new() };
        let table = shard.read();
        let mut sessions = Vec::with_capacity(table.len());
        for entry in table.iter() {
            sessions.extend(entry.visible().map(|slot| SessionHandle(Arc::clone(&slot.shared))));
        }
        sessions
    }

    pub(super) fn is_local(&self, bare: &str) -> bool {
        let domains = &self.settings.domains;
        let is_in = |domain: &DomainPart| {
            bare.strip_suffix(domain.as_str()).is_some_and(|n| n.is_empty() || n.ends_with('@'))
        };
        domains.is_empty() || domains.iter().any(is_in)
    }

    /// To the host's router, which asks `holds` where it orders the stanza.
    pub(super) fn elsewhere(&self, stanza: impl FnOnce() -> Stanza, holds: &dyn Fn() -> bool) {
        if let Some(router) = &self.settings.elsewhere {
            shielded(|| router(stanza(), holds));
        }
    }

    /// The hook, if there is something that it could know of `account`.
    pub(super) fn hides_any(&self, account: &Account) -> Option<&Hides> {
        self.settings.hides.as_ref().filter(|_| !account.kept(Kept::is_empty))
    }

    /// Whether presence between `account` and `jid` is to be left out. A hook that panics hides.
    pub(super) fn hides(&self, account: &Arc<Account>, jid: &str) -> bool {
        let Some(hook) = self.hides_any(account) else { return false };
        let state = AccountState(Arc::clone(account));
        bare_of(jid) != account.bare.as_str() && shielded(|| hook(&state, jid)).unwrap_or(true)
    }

    /// Whether a stanza is held back. A hook that panics holds nothing.
    pub(super) fn hold(&self, session: &Arc<Shared<C>>, stanza: &Stanza) -> Hold {
        let Some(hook) = &self.hold else { return Hold::Pass };
        let session = SessionHandle(Arc::clone(session));
        shielded(|| hook(&session, stanza)).unwrap_or(Hold::Pass)
    }

    pub(super) fn leave(&self, leftover: Leftover) {
        if let Some(hook) = &self.settings.leftover {
            shielded(|| hook(leftover));
        }
    }

    /// Does what a call into an outbound left to do.
    #[inline]
    pub(super) fn settle(&self, shared: &Arc<Shared<C>>, after: After) {
        if !matches!(after, After::Nothing) {
            self.settle_now(shared, after);
        }
    }

    fn settle_now(&self, shared: &Arc<Shared<C>>, after: After) {
        match after {
            After::Nothing => {}
            // The sender only happened to be the one who noticed.
            After::Lost(epoch, error) => self.lose(shared, epoch, error.into(), None, Run::Later),
            After::Strays(left) if left.is_empty() => {}
            After::Strays(left) => self.leave_strays(shared, left),
            After::Overgrown => self.end_overgrown(shared),
            After::Behind => super::shield::note_behind(),
        }
    }

    pub(super) fn end_all(&self, reason: Reason) {
        for shard in 0..self.table.shards().len() {
            for session in self.shard_sessions(shard) {
                self.end(&session.0, reason, None);
            }
        }
    }
}

/// The account of a full JID, as a slice of its text: what stands before the slash and the resource.
pub(super) fn bare(jid: &FullJid) -> &str {
    let (text, resource) = (jid.as_str(), jid.resource().as_str().len() + 1);
    text.len().checked_sub(resource).and_then(|end| text.get(..end)).unwrap_or(text)
}

/// The account of the text of any JID: the first slash parts them.
pub(super) fn bare_of(jid: &str) -> &str {
    jid.split_once('/').map_or(jid, |(bare, _)| bare)
}
