//! What the operator of a server sees: who is there, in which state, and what waits for whom.

use std::cmp::Reverse;
use std::fmt;
use std::time::Duration;

use super::Server;
use super::faults::PeerAddress;
use crate::connection::SharedConnection;
use crate::named::named;
use crate::session::{SessionHandle, SessionId, SessionInfo, SessionState};

named! {
    /// Which sessions a listing begins with. Equal ones come in the order in which they were bound.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    #[non_exhaustive]
    pub enum Order {
        /// Those that were bound first: with [`Listing::after`], page by page.
        #[default]
        Oldest = "oldest",
        /// Those that were bound last.
        Newest = "newest",
        /// Those that most bytes wait for.
        Waiting = "waiting",
        /// Those that have left a stanza unacknowledged for the longest time.
        Unacknowledged = "unacknowledged",
    }
    /// All of them.
    pub const ALL;
    /// Its name, for pages.
    pub const fn as_str;
}

named! {
    /// How far a stream has come that has no session.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    #[non_exhaustive]
    pub enum Stage {
        /// It may yet log in.
        Unauthenticated = "unauthenticated",
        /// It has logged in, and may yet bind or resume.
        Authenticated = "authenticated",
        /// It is being closed.
        Closing = "closing",
    }
    /// Its name, for pages.
    pub const fn as_str;
}

/// Which sessions [`Server::overview`] names, and how many.
#[derive(Clone)]
#[must_use = "says something to `Server::overview` only"]
pub struct Listing {
    order: Order,
    most: usize,
    state: Option<SessionState>,
    after: Option<SessionId>,
    containing: String,
}

impl Listing {
    /// The 100 oldest sessions.
    pub const fn new() -> Self {
        let containing = String::new();
        Self { order: Order::Oldest, most: 100, state: None, after: None, containing }
    }

    /// Those that come first in this order.
    pub const fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// So many at most, and as many streams.
    pub const fn most(mut self, most: usize) -> Self {
        self.most = most;
        self
    }

    /// Those alone that are in this state.
    pub const fn state(mut self, state: SessionState) -> Self {
        self.state = Some(state);
        self
    }

    /// Those alone that were bound after this one: the last that the page before it has named.
    pub const fn after(mut self, session: SessionId) -> Self {
        self.after = Some(session);
        self
    }

    /// Those alone whose full JID contains this text, in any case.
    pub fn containing(mut self, text: &str) -> Self {
        self.containing = text.to_lowercase();
        self
    }

    fn takes(&self, id: SessionId, jid: &str, state: SessionState) -> bool {
        self.state.is_none_or(|only| only == state)
            && self.after.is_none_or(|after| id > after)
            && (jid.contains(&self.containing) || jid.to_lowercase().contains(&self.containing))
    }

    /// Where a session stands: higher is earlier.
    fn rank<C: SharedConnection>(&self, session: &SessionHandle<C>) -> u64 {
        let number = session.id().get();
        match self.order {
            Order::Oldest => u64::MAX - number,
            Order::Newest => number,
            Order::Waiting => session.bytes_waiting() as u64,
            Order::Unacknowledged => session
                .queued()
                .1
                .map_or(0, |since| u64::MAX - u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)),
        }
    }
}

impl Default for Listing {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listing")
            .field("order", &self.order)
            .field("most", &self.most)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// What there is on a server, from one look at each session: see [`Server::overview`].
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Overview {
    /// Streams that have not authenticated, and may.
    pub unauthenticated: usize,
    /// Those that have, and have no session.
    pub authenticated: usize,
    /// Those that are being closed.
    pub closing: usize,
    /// Bound sessions with a transport that are not available.
    pub bound: usize,
    /// Available ones with a transport.
    pub available: usize,
    /// Sessions that wait to be resumed, whether others see them as available or not.
    pub hibernating: usize,
    /// Of all of these, those that have requested the roster.
    pub interested: usize,
    /// Sessions that the listing would name if it were long enough.
    pub matching: usize,
    /// Those that it names, in its order.
    pub sessions: Vec<SessionInfo>,
    /// Streams without a session, the oldest first.
    pub streams: Vec<StreamInfo>,
}

/// A stream that has no session, at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StreamInfo {
    /// Its number, never used again in the life of its server.
    pub number: u64,
    /// Where it comes from.
    pub peer: PeerAddress,
    /// How far it has come.
    pub stage: Stage,
    /// When it was accepted, on the monotonic clock; for one that is being closed and had a session, when that
    /// began to end.
    pub since: Duration,
}

impl<C: SharedConnection> Server<C> {
    /// What there is on the server: how many streams and sessions are in which state, and those that `listing`
    /// names ([HOST-9](crate::rules#host-9)). Of several nodes: the sessions that live at this one, whatever node their
    /// clients are connected to, and the streams without a session that are connected to it.
    ///
    /// It looks at each session once. That delays nobody: no lock is held for longer than a 64th of the sessions
    /// take to be copied, as handles. What it costs is some tens of milliseconds for 100,000 sessions, on the
    /// thread that calls it, which should be one for blocking work where there are that many.
    ///
    /// # Examples
    ///
    /// ```
    /// use xmpp_session::connection::SharedConnection;
    /// use xmpp_session::server::{Listing, Order, Server};
    ///
    /// /// Ends the sessions that more than a megabyte waits for.
    /// fn relieve<C: SharedConnection>(server: &Server<C>) {
    ///     let slowest = Listing::new().order(Order::Waiting).most(20);
    ///     for session in server.overview(&slowest).sessions {
    ///         println!("{} bytes wait for {}", session.bytes_waiting, session.jid);
    ///         let handle = server.registry().session(&session.jid);
    ///         // The same JID may have another session by now.
    ///         if let Some(handle) = handle.filter(|handle| handle.id() == session.id)
    ///             && session.bytes_waiting > 1 << 20
    ///         {
    ///             server.kick(&handle);
    ///         }
    ///     }
    /// }
    /// ```
    #[must_use]
    pub fn overview(&self, listing: &Listing) -> Overview {
        let mut overview = Overview { streams: self.0.ledger.streams(), ..Overview::default() };
        for stream in &overview.streams {
            *match stream.stage {
                Stage::Unauthenticated => &mut overview.unauthenticated,
                Stage::Authenticated => &mut overview.authenticated,
                Stage::Closing => &mut overview.closing,
            } += 1;
        }
        overview.streams.sort_by_key(|stream| (stream.since, stream.number));
        overview.streams.truncate(listing.most);
        let mut named = Vec::new();
        for session in self.0.registry.iter() {
            let (state, is_interested) = session.state();
            *match state {
                SessionState::Bound => &mut overview.bound,
                SessionState::Available => &mut overview.available,
                SessionState::Hibernating => &mut overview.hibernating,
            } += 1;
            overview.interested += usize::from(is_interested);
            if listing.takes(session.id(), session.jid().as_str(), state) {
                overview.matching += 1;
                named.push((listing.rank(&session), session));
                // What is kept grows with the listing, and not with the server.
                if named.len() > listing.most.saturating_mul(2).saturating_add(FEW) {
                    keep_first(&mut named, listing.most);
                }
            }
        }
        keep_first(&mut named, listing.most);
        overview.sessions = named.iter().map(|(_, session)| session.info()).collect();
        overview
    }
}

/// So many more are kept before they are sorted.
const FEW: usize = 100;

fn keep_first<C: SharedConnection>(named: &mut Vec<(u64, SessionHandle<C>)>, most: usize) {
    named.sort_unstable_by_key(|(rank, session)| (Reverse(*rank), session.id()));
    named.truncate(most);
}
