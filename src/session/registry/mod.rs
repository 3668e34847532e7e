//! The table of bound sessions: look-up, settings, and the shared inside of the room.

mod afar;
mod backlog;
mod bind;
#[cfg(feature = "server")]
mod blocked;
mod builder;
mod end;
mod events;
#[cfg(feature = "cluster")]
mod export;
#[cfg(feature = "cluster")]
mod groups;
mod hibernation;
#[cfg(feature = "server")]
mod inheritance;
mod inner;
mod lately;
mod presence;
mod resume;
mod rows;
mod seen;
mod setup;
mod table;

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use jid::{BareJid, FullJid};
#[cfg(feature = "server")]
use smallvec::SmallVec;

use super::account::{Account, AccountState};
use super::handle::{SessionHandle, Shared};
#[cfg(feature = "server")]
use super::handle::{SessionId, Standing};
use super::outbound::{LastWords, RetentionLimits};
use crate::address::bare_of_full;
use crate::connection::SharedConnection;
use crate::environment::Environment;
use crate::rules::delivery::Top;
#[cfg(feature = "server")]
use crate::rules::roster::Roster;
use crate::stanza::StreamError;
use crate::sync::atomic::Ordering;
use crate::sync::common::{AtomicU64, Mutex};
use crate::sync::{Padded, Tally};
use backlog::Backlogs;
use builder::Settings;
use events::Events;
use seen::Seen;
use table::Table;

#[cfg(feature = "cluster")]
pub(crate) use afar::{Afar, Told};
pub use bind::{BindError, BindRefusal, BindRequest, Conflict, Misuse};
#[cfg(feature = "server")]
pub(crate) use blocked::Pattern;
pub use builder::RegistryBuilder;
pub(crate) use end::Run;
pub use end::{Leftover, Reason};
pub use events::{Event, EventKind};
#[cfg(feature = "cluster")]
pub(crate) use export::{Keeps, NotAnExport};
#[cfg(feature = "cluster")]
pub(crate) use export::{read_roster, write_roster};
#[cfg(feature = "cluster")]
use groups::Groups;
#[cfg(feature = "cluster")]
pub(crate) use groups::{Accounts, Grouping, Which};
#[cfg(test)]
pub(super) use hibernation::{Hibernating, Remembered};
#[cfg(feature = "server")]
pub(crate) use inheritance::{Inheritance, Waiting};
pub(crate) use inner::Inner;
pub use presence::{Parting, Presence};
pub use resume::{ResumeError, ResumeRefusal, Resumed, Retention};
pub use setup::SessionSetup;
pub(crate) use table::AccountKey;
#[cfg(feature = "server")]
pub(crate) use table::Hash;
#[cfg(all(test, not(any(loom_model, shuttle))))]
pub(crate) use table::hashes;

/// All bound sessions of one server: live ones and those that wait to be resumed.
///
/// Cheap to clone; all clones are one registry. Dropping the last clone ends every session
/// ([DESTROY-14](crate::rules#destroy-14)).
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use xmpp_session::connection::Recorder;
/// use xmpp_session::environment::Virtual;
/// use xmpp_session::jid::{BareJid, FullJid};
/// use xmpp_session::session::{BindRequest, Reason, Session, SessionRegistry};
///
/// let registry = SessionRegistry::builder(Arc::new(Virtual::new(1)))
///     .listener(|event| println!("{}: {:?}", event.session().jid(), event.kind()))
///     .build();
/// # let account = BareJid::new("juliet@example.com")?;
/// # let mut session = Session::new(Recorder::new());
/// # session.open(account.domain().to_owned());
/// # let resource = xmpp_session::jid::ResourcePart::new("balcony")?.into_owned();
/// # let session = session.authenticate(account)?.bind(&registry, BindRequest::new().resource(resource))?;
///
/// let one = registry.session(&FullJid::new("juliet@example.com/balcony")?).ok_or("not there")?;
/// let all = registry.sessions(&BareJid::new("juliet@example.com")?).count();
/// assert_eq!((all, one.is_available()), (1, false));
///
/// // Ends it for everybody: true for the first who says so.
/// assert!(registry.destroy_session(&one, Reason::Kicked));
/// assert!(!registry.destroy_session(&one, Reason::Kicked) && !session.is_current());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct SessionRegistry<C: SharedConnection>(Arc<Guard<C>>);

/// Ends everything when the last clone of the registry goes.
struct Guard<C: SharedConnection>(Arc<Inner<C>>);

impl<C: SharedConnection> Drop for Guard<C> {
    fn drop(&mut self) {
        for session in self.0.all() {
            self.0.end(&session.0, Reason::Shutdown, None);
        }
        drop(self.0.backlogs.forget_recipients());
    }
}

/// How many sessions there are, and how much waits for them: for a host's metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Bound sessions, live and hibernating.
    pub sessions: usize,
    /// Sessions that wait to be resumed.
    pub hibernating: usize,
    /// Bytes that wait to be acknowledged, of all sessions ([LIMIT-11](crate::rules#limit-11)).
    pub retained_bytes: usize,
}

impl<C: SharedConnection> SessionRegistry<C> {
    /// A registry with the defaults of the rules, on the host's `environment`.
    pub fn builder(environment: Arc<dyn Environment>) -> RegistryBuilder<C> {
        let settings = Settings {
            environment,
            conflict: Conflict::Replace,
            replacements: bind::REPLACEMENTS,
            sessions_per_account: 32,
            hibernating_per_account: 8,
            retention: RetentionLimits::default(),
            domains: Vec::new(),
            #[cfg(feature = "cluster")]
            first_session: None,
            #[cfg(feature = "cluster")]
            groups: None,
            background: None,
            elsewhere: None,
            #[cfg(feature = "cluster")]
            afar: None,
            lives_here: None,
            leftover: None,
            backlog: None,
            hides: None,
            #[cfg(feature = "cluster")]
            hidden_resources: None,
            #[cfg(feature = "server")]
            waits: None,
            hold: None,
            listener: None,
            on_panic: None,
            on_end: None,
        };
        RegistryBuilder { settings }
    }

    fn with(mut settings: Settings<C>) -> Self {
        #[cfg(feature = "cluster")]
        let (first, is_of_node) =
            (settings.first_session.unwrap_or(1), settings.first_session.is_some());
        #[cfg(not(feature = "cluster"))]
        let (first, is_of_node) = (1, false);
        let inner = Arc::new_cyclic(|me| Inner {
            me: Weak::clone(me),
            table: Table::new(&*settings.environment),
            #[cfg(feature = "cluster")]
            groups: settings.groups.map(Groups::new),
            next: Padded::new(AtomicU64::new(first)),
            sessions: Padded::default(),
            absent: Padded::default(),
            retained_bytes: Arc::new(Tally::new(settings.retention.all_bytes)),
            relieving: Padded::default(),
            hibernating: Padded::default(),
            remembered: Padded::default(),
            backlogs: Backlogs::new(),
            events: Events::new(settings.listener.take(), settings.on_end.take()),
            seen: Padded::new(Mutex::new(Seen::new(is_of_node))),
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
        self.inner().find(self.key(bare_of_full(jid)), jid.resource().as_str())
    }

    /// A bare JID, as normalised text, to be looked up: hashed once for all look-ups on the way of a stanza.
    pub(crate) fn key<'a>(&self, bare: &'a str) -> AccountKey<'a> {
        self.inner().table.key(bare)
    }

    /// As [`session`](Self::session).
    #[cfg(feature = "server")]
    pub(crate) fn find(&self, account: AccountKey<'_>, resource: &str) -> Option<SessionHandle<C>> {
        self.inner().find(account, resource)
    }

    /// All sessions of an account, in the order in which they were bound.
    #[must_use]
    pub fn sessions(&self, account: &BareJid) -> Sessions<C> {
        Sessions(self.inner().sessions(self.key(account.as_str())).into_iter())
    }

    fn those(&self, account: &BareJid, are: impl Fn(&Shared<C>) -> bool) -> Sessions<C> {
        Sessions(self.inner().sessions_that(self.key(account.as_str()), are).into_iter())
    }

    #[cfg(feature = "server")]
    pub(crate) fn sessions_of(&self, account: AccountKey<'_>) -> Sessions<C> {
        Sessions(self.inner().sessions(account).into_iter())
    }

    /// All sessions of an account but some, each with what a delivery has to know of it: one look at them.
    #[cfg(feature = "server")]
    pub(crate) fn standing(
        &self,
        account: AccountKey<'_>,
        but: &[SessionId],
    ) -> SmallVec<[(SessionHandle<C>, Standing); 4]> {
        let with_standing = |session| {
            let session = SessionHandle(session);
            let standing = session.standing();
            (session, standing)
        };
        let mut sessions = self.inner().table.sessions(account, with_standing);
        if !but.is_empty() {
            sessions.retain(|(session, _)| !but.contains(&session.id()));
        }
        sessions
    }

    /// The available sessions of an account, whatever their priority.
    #[must_use]
    pub fn available(&self, account: &BareJid) -> Sessions<C> {
        self.those(account, Shared::is_available)
    }

    /// The interested sessions of an account: those that get roster pushes.
    #[must_use]
    pub fn interested(&self, account: &BareJid) -> Sessions<C> {
        self.those(account, Shared::is_interested)
    }

    /// The sessions that a message to the bare JID goes to: of the available ones with a
    /// non-negative priority those that share the highest ([MSG-2](crate::rules#msg-2)); if all of them hibernate, the
    /// live ones of the highest priority besides ([MSG-3](crate::rules#msg-3)).
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
        self.inner().all()
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
            retained_bytes: self.inner().retained_bytes.get(),
        }
    }

    /// How a session is kept for a client that may come back: with a new resumption id, and for `window` or
    /// as long as the limits allow ([LIMIT-11](crate::rules#limit-11), [LIMIT-12](crate::rules#limit-12)).
    #[must_use]
    pub fn retention(&self, window: Duration) -> Retention {
        self.inner().retention(window)
    }

    /// Whether the account's data is loaded: it has a session, or one is ending.
    #[must_use]
    pub fn is_loaded(&self, account: &BareJid) -> bool {
        self.inner().table.with(self.key(account.as_str()), |_| ()).is_some()
    }

    pub(crate) fn account(&self, account: AccountKey<'_>) -> Option<Arc<Account>> {
        self.inner().table.account(account)
    }

    /// What is kept for an account that has sessions.
    #[must_use]
    pub fn account_state(&self, account: &BareJid) -> Option<AccountState> {
        self.account(self.key(account.as_str())).map(AccountState)
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

    /// Whether this bare JID is one of our domains, or an account in one, wherever that lives.
    #[cfg(feature = "server")]
    pub(crate) fn is_ours(&self, bare: &str) -> bool {
        self.inner().is_ours(bare)
    }

    /// Ends a session for `reason`, with the stream error that belongs to it: whoever saw the
    /// resource gets one unavailable
    /// ([RFC 6121 §4.5](https://www.rfc-editor.org/rfc/rfc6121#section-4.5)), the connection is flushed and closed,
    /// the row forgotten.
    ///
    /// `false` where the session was over already: then nothing happens ([DESTROY-4](crate::rules#destroy-4)).
    #[expect(clippy::must_use_candidate, reason = "most callers do not mind who was first")]
    pub fn destroy_session(&self, session: &SessionHandle<C>, reason: Reason) -> bool {
        self.inner().end(&session.0, reason, None)
    }

    /// The same, with this stream error instead of the one that belongs to the reason.
    #[expect(clippy::must_use_candidate, reason = "most callers do not mind who was first")]
    pub fn destroy_session_with(
        &self,
        session: &SessionHandle<C>,
        reason: Reason,
        error: &StreamError,
    ) -> bool {
        self.inner().end(&session.0, reason, Some(LastWords::Error(error)))
    }

    /// Whether no session is left, not even one whose end is being told.
    #[must_use]
    pub fn is_forgotten(&self) -> bool {
        self.inner().table.shards().all(|shard| shard.read().is_empty())
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do next, on the
    /// environment's monotonic clock.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Duration> {
        self.inner().hibernating.lock().next()
    }

    /// Ends what has been without a transport for too long, and forgets what is too old. The host
    /// calls it by a timer: these sessions have no owner to do so.
    pub fn handle_timeout(&self) {
        self.inner().expire();
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
