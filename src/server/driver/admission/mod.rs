//! Who may hold a transport that serves no session: who is in, who waits, who is being closed
//! (LIMIT-25…27), and whom the server sends away (DESTROY-15, DESTROY-16, DESTROY-18).

mod books;

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use jid::BareJid;

use crate::environment::Environment;
use crate::server::faults::PeerAddress;
use crate::server::limits::Limits;
use crate::server::overview::StreamInfo;
use crate::stream::StreamError;
use crate::sync::common::Mutex;
use books::Books;
pub(super) use books::{News, Signal};

/// A bar, as all nodes know it; random.
pub(in crate::server) type BarNumber = u64;

/// Where a transport comes from: a keyed hash of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::server) struct Source(u64);

impl Source {
    /// The host has not said. All of these are one source, and no limit per source applies to it.
    const UNNAMED: Self = Self(0);

    pub(in crate::server) const fn key(self) -> u64 {
        self.0
    }
}

/// Where a transport stands, as its driver sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum PlaceStanding {
    /// It has said nothing, and takes nobody's place.
    #[default]
    Silent,
    /// What it says waits.
    Waiting,
    Inside,
    /// There is no room for it.
    Refused,
}

/// What the server closes a stream with that has no session.
#[derive(Clone)]
pub(in crate::server) struct Dismissal {
    pub(in crate::server) error: StreamError,
    /// In its place where the transport is protected (STREAM-30).
    pub(in crate::server) protected: Option<StreamError>,
}

impl Dismissal {
    pub(in crate::server) fn choose(self, is_protected: bool) -> StreamError {
        self.protected.filter(|_| is_protected).unwrap_or(self.error)
    }
}

impl From<StreamError> for Dismissal {
    fn from(error: StreamError) -> Self {
        Self { error, protected: None }
    }
}

/// Counts transports from accept until they are gone, except while they serve a session.
pub(in crate::server) struct Ledger {
    environment: Arc<dyn Environment>,
    hasher: RandomState,
    books: Mutex<Books>,
}

impl Ledger {
    pub(in crate::server) fn new(limits: &Limits, environment: Arc<dyn Environment>) -> Self {
        let books = Mutex::new(Books::new(limits.clone()));
        Self { environment, hasher: RandomState::new(), books }
    }

    /// A transport was accepted.
    pub(super) fn enter(self: &Arc<Self>, peer: &PeerAddress) -> Place {
        let (source, peer) = (self.source(peer), peer.clone());
        let (id, signal) = self.change(|books, now| books.enter(source, peer, now));
        Place(Arc::new(Guard { ledger: Arc::clone(self), id, signal }))
    }

    /// A stream of this process begins, of this account.
    pub(super) fn enter_local(self: &Arc<Self>, account: &BareJid) -> Place {
        let account = self.account(account);
        let (id, signal) = self.change(|books, now| books.enter_local(account, now));
        Place(Arc::new(Guard { ledger: Arc::clone(self), id, signal }))
    }

    /// A transport that served a session is being closed.
    pub(super) fn closing(self: &Arc<Self>, peer: &PeerAddress) -> Place {
        let (source, peer) = (self.source(peer), peer.clone());
        let (id, signal) = self.change(|books, now| books.enter_closing(source, peer, now));
        Place(Arc::new(Guard { ledger: Arc::clone(self), id, signal }))
    }

    /// A transport that is counted where its socket is.
    #[cfg(feature = "cluster")]
    pub(super) fn elsewhere(self: &Arc<Self>) -> Place {
        let (id, signal) = self.change(Books::enter_elsewhere);
        Place(Arc::new(Guard { ledger: Arc::clone(self), id, signal }))
    }

    /// Closes all streams, and those that begin from now on.
    pub(in crate::server) fn dismiss_all(&self, dismissal: &Dismissal) {
        self.change(|books, _| books.dismiss_all(dismissal));
    }

    /// Closes the streams that are authenticated as `account`, and bars those that have already begun
    /// from authenticating as it, for a time; without one, all streams until its own [`unbar`](Self::unbar). None makes
    /// another weaker.
    pub(in crate::server) fn bar(
        &self,
        account: &BareJid,
        dismissal: Dismissal,
        time: Option<Duration>,
        number: BarNumber,
    ) {
        let account = self.account(account);
        self.change(|books, now| books.bar(account, dismissal, time, number, now));
    }

    /// Whether nobody may authenticate as `account`: it is being removed.
    pub(in crate::server) fn is_closed_to(&self, account: &BareJid) -> bool {
        self.books.lock().is_closed_to(self.account(account))
    }

    /// Closes the streams that are authenticated as `account`.
    pub(in crate::server) fn dismiss(&self, account: &BareJid, dismissal: &Dismissal) {
        let account = self.account(account);
        self.change(|books, _| books.dismiss(account, dismissal));
    }

    /// The same, also those that authenticated at a node which had not heard of this, by its number, and that come
    /// within this time.
    #[cfg(feature = "cluster")]
    pub(in crate::server) fn dismiss_coming(
        &self,
        account: &BareJid,
        dismissal: &Dismissal,
        within: (Duration, BarNumber),
    ) {
        let account = self.account(account);
        self.change(|books, now| books.dismiss_coming(account, dismissal, within, now));
    }

    /// Ends one bar without a time.
    pub(in crate::server) fn unbar(&self, account: &BareJid) {
        let account = self.account(account);
        self.change(|books, now| books.unbar(account, now));
    }

    /// The source that a peer belongs to: the whole address with IPv4, and with IPv6 the /64 that one
    /// subscriber usually has.
    pub(in crate::server) fn source(&self, peer: &PeerAddress) -> Source {
        if !peer.is_known() {
            return Source::UNNAMED;
        }
        Source(self.hasher.hash_one(peer.network()) | 1)
    }

    /// An account, where a source is to be named.
    pub(in crate::server) fn as_source(&self, account: &BareJid) -> Source {
        Source(self.account(account))
    }

    /// The key of all guests from a source, if the host names it.
    pub(super) fn guests_of(&self, source: Source) -> u64 {
        if source == Source::UNNAMED { 0 } else { self.hasher.hash_one(("guests", source)) | 1 }
    }

    /// An account's key; never that of a source.
    pub(super) fn account(&self, account: &BareJid) -> u64 {
        self.hasher.hash_one(account.as_str()) & !1
    }

    /// Transports that are not authenticated, including those that wait.
    pub(in crate::server) fn unauthenticated(&self) -> usize {
        self.books.lock().unauthenticated
    }

    /// The transports that serve no session.
    pub(in crate::server) fn streams(&self) -> Vec<StreamInfo> {
        self.books.lock().streams()
    }

    /// Changes the books, gives the places that became free to those who wait, and wakes whom it
    /// concerns, without the lock.
    fn change<T>(&self, change: impl FnOnce(&mut Books, Duration) -> T) -> T {
        let now = self.environment.now();
        let mut books = self.books.lock();
        let done = change(&mut books, now);
        books.fill(now);
        let wakers = std::mem::take(&mut books.wakers);
        drop(books);
        wakers.into_iter().for_each(Waker::wake);
        done
    }
}

/// A transport's place in the server's count of those that serve no session ([LIMIT-25](crate::rules#limit-25)…27). It is
/// given up when the last clone is dropped: a host that lets go of its driver before its socket keeps
/// one until the socket is closed.
#[derive(Clone)]
#[must_use = "dropping the place says that the transport is gone"]
pub struct Place(Arc<Guard>);

/// Takes the transport off the books when it is dropped.
struct Guard {
    ledger: Arc<Ledger>,
    id: u64,
    signal: Arc<Signal>,
}

impl Place {
    /// Ready when the transport is to be closed without any further wait: others need its place, or
    /// too many are being closed.
    pub fn poll_cut(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.signal().poll(Some(cx)).is_cut { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Whether the transport is to be closed without any further wait.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.signal().get().is_cut
    }

    /// Whether there is no room for a transport, or nothing is to be served any more: for one that has no
    /// driver yet, and that nothing is said to. The waker is kept.
    #[cfg(any(feature = "tokio", feature = "threads"))]
    pub(crate) fn is_unwanted(&self, cx: Option<&Context<'_>>) -> bool {
        let news = self.signal().poll(cx);
        news.is_cut || news.dismissal.is_some() || news.standing == PlaceStanding::Refused
    }

    pub(super) fn standing(&self) -> PlaceStanding {
        self.signal().get().standing
    }

    pub(super) fn signal(&self) -> &Arc<Signal> {
        &self.0.signal
    }

    /// It has something to say. `true`: that has to wait from now on.
    pub(super) fn heard(&self) -> bool {
        let was_silent = self.standing() == PlaceStanding::Silent;
        if was_silent {
            self.change(Books::heard);
        }
        was_silent && self.standing() == PlaceStanding::Waiting
    }

    /// It has come a step further: it is evicted later. A login that we check takes all the time
    /// that there is.
    pub(super) fn progressed(&self, is_login: bool) {
        self.change(|books, id, now| books.progressed(id, is_login, now));
    }

    pub(super) fn authenticated(&self, account: u64) {
        self.change(|books, id, now| books.authenticated(id, account, now));
    }

    /// The stream goes on where its account lives. Which bar of the account it has been held against.
    #[cfg(feature = "cluster")]
    pub(super) fn goes_away(&self, account: &BareJid) -> Option<BarNumber> {
        let ledger = &self.0.ledger;
        ledger.change(|books, now| books.goes_away(self.0.id, ledger.account(account), now))
    }

    /// Which bar of the account its stream has been held against.
    #[cfg(feature = "cluster")]
    pub(super) fn held_against(&self, account: &BareJid) -> Option<BarNumber> {
        let (ledger, now) = (&self.0.ledger, self.0.ledger.environment.now());
        ledger.books.lock().held_against(self.0.id, ledger.account(account), now)
    }

    /// The stream has come from where it authenticated.
    #[cfg(feature = "cluster")]
    pub(super) fn adopted(&self, account: &BareJid, held_against: Option<BarNumber>) {
        let account = self.0.ledger.account(account);
        self.change(|books, id, now| books.adopted(id, account, held_against, now));
    }

    /// It is not, after all.
    pub(super) fn unauthenticated(&self) {
        self.change(|books, id, _| books.unauthenticated(id));
    }

    /// The transport is being closed, and is counted as such from now on.
    pub(super) fn close(&self) {
        self.change(|books, id, _| books.close(id));
    }

    /// It has waited for too long.
    pub(super) fn refuse(&self) {
        self.change(|books, id, _| books.refuse(id));
    }

    /// When [`evict_overdue`](Self::evict_overdue) has somebody to evict, while this one waits.
    pub(super) fn next_eviction(&self) -> Option<Duration> {
        if self.standing() != PlaceStanding::Waiting {
            return None;
        }
        Some(self.0.ledger.books.lock().in_the_way(self.0.id)?.0)
    }

    /// Evicts those who have had their time and stand in the way of this one.
    pub(super) fn evict_overdue(&self) {
        self.change(Books::evict_overdue);
    }

    fn change(&self, change: impl FnOnce(&mut Books, u64, Duration)) {
        self.0.ledger.change(|books, now| change(books, self.0.id, now));
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("standing", &self.standing()).finish_non_exhaustive()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let gone = self.ledger.change(|books, _| books.leave(self.id));
        // With its waker, hence without the lock.
        drop(gone);
    }
}
