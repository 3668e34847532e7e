//! Ends that the host decides: of one session, of an account's, of all.

use std::fmt;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use jid::BareJid;

#[cfg(feature = "cluster")]
use super::accounts::AccountError;
use super::driver::admission::{BarNumber, Dismissal};
#[cfg(feature = "cluster")]
use super::node::{Clustered, act::Act};
use super::{Core, Server};
use crate::address;
use crate::connection::SharedConnection;
use crate::rules::roster::RosterSet;
use crate::rules::subscription::SubscriptionKind;
use crate::server::deliver::roster::change::ChangeError;
use crate::server::deliver::roster::transaction::{Asker, Change};
use crate::session::{HostCode, Reason, SessionHandle, SessionId};
use crate::stanza::Stanza;
use crate::store::StoreError;
use crate::stream::{StreamCondition, StreamError};

/// How often to check whether the last work of a shutdown is done.
const CHECK_IDLE: Duration = Duration::from_millis(50);

/// How a server shuts down.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use xmpp_session::connection::SharedConnection;
/// use xmpp_session::server::{Server, Shutdown};
///
/// async fn drain<C: SharedConnection>(server: &Server<C>) {
///     let how = Shutdown::new()
///         .see_other_host("two.example.com", None)
///         .see_other_uri("wss://two.example.com/xmpp-websocket")
///         .pace(500, Duration::from_secs(1))
///         .progress(|progress| println!("{} ended, {} to go", progress.ended, progress.left));
///     server.shutdown(how).await;
/// }
/// ```
#[derive(Default)]
#[must_use = "says something to `Server::shutdown` only"]
pub struct Shutdown {
    other_host: Option<StreamError>,
    pace: Option<(usize, Duration)>,
    progress: Option<Box<dyn FnMut(Progress) + Send>>,
}

impl Shutdown {
    /// All at once, with `system-shutdown`.
    pub const fn new() -> Self {
        Self { other_host: None, pace: None, progress: None }
    }

    /// Sends the clients to another host, a name or an address. Those on an unprotected stream are told
    /// `system-shutdown` all the same ([STREAM-30](crate::rules#stream-30)).
    pub fn see_other_host(mut self, host: &str, port: Option<u16>) -> Self {
        let error = StreamError::see_other_host(host, port);
        self.other_host = Some(match self.other_host.as_ref().and_then(StreamError::other_uri) {
            Some(uri) => error.with_other_uri(uri),
            None => error,
        });
        self
    }

    /// Sends the clients of WebSockets to another URI, such as `wss://two.example.com/xmpp-websocket`, as far
    /// as they may be sent there ([WS-10](crate::rules#ws-10)). The others are told `system-shutdown`.
    pub fn see_other_uri(mut self, uri: &str) -> Self {
        let error = self.other_host.take();
        let error = error.unwrap_or_else(|| StreamError::new(StreamCondition::SeeOtherHost));
        self.other_host = Some(error.with_other_uri(uri));
        self
    }

    /// Ends so many sessions in each `period`, so that clients do not all come back (here or elsewhere)
    /// at the same moment. The waits depend on [`Server::handle_timeout`].
    pub const fn pace(mut self, sessions: usize, period: Duration) -> Self {
        self.pace = Some((sessions, period));
        self
    }

    /// Called after each session that has ended.
    pub fn progress(mut self, progress: impl FnMut(Progress) + Send + 'static) -> Self {
        self.progress = Some(Box::new(progress));
        self
    }
}

impl fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shutdown")
            .field("pace", &self.pace)
            .field("other_host", &self.other_host.is_some())
            .finish_non_exhaustive()
    }
}

/// How far a shutdown has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Sessions that have ended.
    pub ended: usize,
    /// Sessions that are left.
    pub left: usize,
}

impl<C: SharedConnection> Server<C> {
    /// Ends a session with `policy-violation` ([DESTROY-19](crate::rules#destroy-19)). `false` if it was over. Of several
    /// nodes: one that has moved to another since is ended there, or was over; this is `true` then.
    #[expect(clippy::must_use_candidate, reason = "most callers do not mind who was first")]
    pub fn kick(&self, session: &SessionHandle<C>) -> bool {
        self.kick_with(session, &StreamCondition::PolicyViolation.into())
    }

    /// Ends a session with this error ([DESTROY-19](crate::rules#destroy-19)), as [`kick`](Self::kick).
    #[expect(clippy::must_use_candidate, reason = "most callers do not mind who was first")]
    pub fn kick_with(&self, session: &SessionHandle<C>, error: &StreamError) -> bool {
        #[cfg(feature = "cluster")]
        if self.0.is_elsewhere(&session.account().bare) {
            let act = Act::KickSession(session.id(), error.clone());
            self.0.tell_home(&session.account().bare, act);
            return true;
        }
        self.0.end_session(session, Reason::Kicked, error)
    }

    /// The password of an account was changed: all its sessions end with `reset`, except the one that
    /// changed it ([DESTROY-18](crate::rules#destroy-18)). So do streams that have authenticated and not bound, and no stream that
    /// has already begun can authenticate with what was valid before. The tokens of its clients end as well ([FAST-7](crate::rules#fast-7)).
    ///
    /// To be called once the new password is stored.
    pub fn password_changed(&self, account: &BareJid, except: Option<SessionId>) {
        let core = &self.0;
        let account = &address::account(account).unwrap_or_else(|_| account.clone());
        #[cfg(feature = "cluster")]
        if core.is_elsewhere(account) {
            return core.tell_home(account, Act::PasswordChanged(except));
        }
        let error = StreamError::new(StreamCondition::Reset);
        core.bar(account, &error);
        core.retire_tokens(account);
        let sweep = {
            let (core, account) = (Arc::clone(core), account.clone());
            move || {
                let others = core.registry.sessions(&account).filter(|s| Some(s.id()) != except);
                for session in others {
                    core.end_session(&session, Reason::PasswordChanged, &error);
                }
            }
        };
        sweep();
        // By then a bind that was under way has ended.
        let _swept = core.jobs.run(account.as_str(), async move { sweep() });
    }

    /// Removes an account ([DESTROY-15](crate::rules#destroy-15)): its contacts are told as if each had been removed from its
    /// roster ([ROSTER-15](crate::rules#roster-15)), its sessions end with `not-authorized`, and everything that the stores
    /// keep for it is deleted, its credentials last. Nobody can log in meanwhile.
    ///
    /// `false` if the store knew no such account.
    ///
    /// # Errors
    ///
    /// The first error of a store. What was done by then stays done; the account still exists, and its
    /// removal can be tried again.
    pub async fn account_removed(&self, account: &BareJid) -> Result<bool, StoreError> {
        let account = &address::account(account).unwrap_or_else(|_| account.clone());
        #[cfg(feature = "cluster")]
        if self.0.is_elsewhere(account) {
            return match self.0.at_home(account, Act::Remove).await {
                Ok(said) => Ok(said.flag()),
                Err(AccountError::Store(error)) => Err(error),
                Err(error) => Err(StoreError::Failed(error.into())),
            };
        }
        self.0.account_removed(account, None).await
    }

    /// Ends everything ([DESTROY-16](crate::rules#destroy-16)): new streams are refused, and each session is told and ended,
    /// at the pace of `options`. When this returns, no session is left, whoever saw one has been
    /// told, and what sessions left behind is stored.
    ///
    /// The host drives [`background`](Self::background), [`handle_timeout`](Self::handle_timeout) and
    /// the drivers on meanwhile: the last words of each session go out through them.
    pub async fn shutdown(&self, options: Shutdown) {
        let core = &self.0;
        let Shutdown { other_host, pace, mut progress } = options;
        let error = StreamError::new(StreamCondition::SystemShutdown);
        let dismissal = Dismissal { error, protected: other_host };
        core.ledger.dismiss_all(&dismissal);
        let (mut ended, mut in_period) = (0, 0);
        loop {
            for session in core.registry.iter() {
                if let Some((_, period)) = pace.filter(|(most, _)| in_period >= (*most).max(1)) {
                    core.sleep(period).await;
                    in_period = 0;
                }
                let error = dismissal.clone().choose(session.is_protected());
                if core.end_session(&session, Reason::Shutdown, &error) {
                    ended += 1;
                    in_period += 1;
                    if let Some(progress) = &mut progress {
                        let state = Progress { ended, left: core.registry.len() };
                        core.shielded(HostCode::Listener, None, || progress(state));
                    }
                }
            }
            if core.is_empty() {
                break;
            }
            core.sleep(CHECK_IDLE).await;
        }
        // Those whose accounts live elsewhere: only their transports end.
        #[cfg(feature = "cluster")]
        if let Some(edges) = core.edges.get() {
            while edges.dismiss_one(&dismissal) {
                (ended, in_period) = (ended + 1, in_period + 1);
                if let Some(progress) = &mut progress {
                    let state = Progress { ended, left: edges.len().saturating_sub(1) };
                    core.shielded(HostCode::Listener, None, || progress(state));
                }
                if let Some((_, period)) = pace.filter(|(most, _)| in_period >= (*most).max(1)) {
                    core.sleep(period).await;
                    in_period = 0;
                }
            }
            while edges.len() > 0 {
                core.sleep(CHECK_IDLE).await;
            }
        }
    }

    /// A shutdown at once, for hosts with a clock of their own: ends what there is, and says whether
    /// nothing is left. To be called again until then.
    #[cfg(any(feature = "tokio", feature = "threads"))]
    pub(crate) fn end_all(&self) -> bool {
        let core = &self.0;
        let error = StreamError::new(StreamCondition::SystemShutdown);
        core.ledger.dismiss_all(&error.clone().into());
        for session in core.registry.iter() {
            core.end_session(&session, Reason::Shutdown, &error);
        }
        #[cfg(feature = "cluster")]
        if let Some(edges) = core.edges.get() {
            edges.dismiss_all(&error.into());
            return core.is_empty() && edges.len() == 0;
        }
        core.is_empty()
    }
}

impl<C: SharedConnection> Core<C> {
    /// Whether no session is left, nor work of one. The jobs come first: a bind under way is one, and
    /// none can begin once the streams are closed.
    fn is_empty(&self) -> bool {
        // What a fenced node had begun is not done any more.
        self.is_fenced() || self.jobs.len() == 0 && self.registry.is_forgotten()
    }

    /// Whether this is a node that may never act again (NODE-2).
    pub(super) fn is_fenced(&self) -> bool {
        #[cfg(feature = "cluster")]
        let is_fenced = self.node.as_ref().is_some_and(Clustered::is_fenced);
        #[cfg(not(feature = "cluster"))]
        let is_fenced = false;
        is_fenced
    }

    /// Closes the streams that have authenticated as the account and have no session, at every node, and bars those
    /// that have begun from authenticating as it.
    pub(super) fn bar(&self, account: &BareJid, error: &StreamError) {
        let (time, number) = (self.limits.negotiation, self.bar_number());
        #[cfg(feature = "cluster")]
        self.bar_elsewhere(account, error, (time, number));
        self.ledger.bar(account, error.clone().into(), Some(time), number);
    }

    /// Closes the streams that have authenticated as the account and have no session, also those that are on their way
    /// from other nodes.
    pub(super) fn dismiss(&self, account: &BareJid, error: &StreamError) {
        #[cfg(feature = "cluster")]
        if self.node.is_some() {
            let within = (self.limits.negotiation, self.bar_number());
            self.dismiss_elsewhere(account, error, within);
            return self.ledger.dismiss_coming(account, &error.clone().into(), within);
        }
        self.ledger.dismiss(account, &error.clone().into());
    }

    fn bar_number(&self) -> BarNumber {
        let mut number = [0; 8];
        self.environment.random(&mut number);
        u64::from_le_bytes(number)
    }

    /// Ends a session with this error.
    pub(super) fn end_session(
        &self,
        session: &SessionHandle<C>,
        reason: Reason,
        error: &StreamError,
    ) -> bool {
        let was_first = self.registry.destroy_session_with(session, reason, error);
        if was_first {
            self.metrics.stream_error(error.condition());
        }
        was_first
    }

    pub(super) async fn sleep(&self, time: Duration) {
        let _late: Option<()> = self.timers.within(time, pending()).await;
    }

    /// Removes an account; `by`: the session that has asked for it by this iq, which is answered once it is done.
    pub(super) async fn account_removed(
        self: &Arc<Self>,
        account: &BareJid,
        by: Option<(SessionHandle<C>, Stanza)>,
    ) -> Result<bool, StoreError> {
        let error = StreamError::new(StreamCondition::NotAuthorized);
        self.bar(account, &error);
        self.ledger.bar(account, error.clone().into(), None, 0);
        let removed = self.remove_account(account, &error, by).await;
        if removed.is_ok() {
            // What a stream that has already begun proves may be out of date.
            self.bar(account, &error);
        }
        self.ledger.unbar(account);
        removed
    }

    pub(super) async fn remove_account(
        self: &Arc<Self>,
        account: &BareJid,
        error: &StreamError,
        by: Option<(SessionHandle<C>, Stanza)>,
    ) -> Result<bool, StoreError> {
        let key = account.to_string();
        // A bind that was under way has ended then; later ones are refused.
        let _none = self.jobs.run(&key, async {}).await;
        let roster = match self.registry.account(self.registry.key(account.as_str())) {
            Some(account) => account.roster(),
            None => Arc::new(self.load_roster(account).await?),
        };
        let contacts = roster.iter().map(|entry| entry.jid());
        let requests = roster.requests().filter(|jid| roster.get(jid).is_none());
        let removals = contacts.map(|jid| (jid, true)).chain(requests.map(|jid| (jid, false)));
        for (contact, is_item) in removals {
            // A JID without a normal form was never anybody's contact.
            let normal = address::bare(contact).ok();
            if let Some(contact) = normal.filter(|jid| jid.as_str() == contact) {
                self.unlink(account, contact, is_item).await?;
            }
        }
        let asks = by.as_ref().map(|(session, _)| session.id());
        let sweep = {
            let (core, error, account) = (Arc::clone(self), error.clone(), account.clone());
            move || {
                let others = core.registry.sessions(&account).filter(|one| Some(one.id()) != asks);
                for session in others {
                    core.end_session(&session, Reason::AccountRemoved, &error);
                }
            }
        };
        sweep();
        let (core, error, account) = (Arc::clone(self), error.clone(), account.clone());
        let removal = async move {
            // Whatever was done before it.
            sweep();
            let removed = core.stores.remove_account(&account).await?;
            // In the same step, so that nothing is kept for it any more. Its stream is not read meanwhile.
            if let Some((session, request)) = by {
                core.result(Some(&session), &request, b"");
                core.end_session(&session, Reason::AccountRemoved, &error);
            }
            Ok(removed)
        };
        let failed = || Err(StoreError::failed("it panicked"));
        self.jobs.run(&key, removal).await.unwrap_or_else(failed)
    }

    /// Removes a contact from the roster of `account`, or denies its request.
    async fn unlink(
        self: &Arc<Self>,
        account: &BareJid,
        contact: BareJid,
        is_item: bool,
    ) -> Result<(), StoreError> {
        let change = if is_item {
            Change::Set(RosterSet::removal(contact.clone()), Asker::Account)
        } else {
            let kind = SubscriptionKind::Unsubscribed;
            let stanza = Stanza::presence().type_(kind.as_str()).from(account.as_str());
            let stanza = stanza.to(contact.as_str()).build();
            Change::Send { kind, stanza, by: Asker::Account }
        };
        match self.change_roster(account.clone(), contact, change, None, || ()).await {
            // Another session may have removed it meanwhile.
            Ok(()) | Err(ChangeError::Roster(_) | ChangeError::NoAccount) => Ok(()),
            #[cfg(feature = "cluster")]
            Err(ChangeError::Afar(_)) => Ok(()),
            Err(ChangeError::Store(error)) => Err(error),
        }
    }
}
