//! Streams without a session, so that shutdown, account removal and password changes can close them.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use jid::BareJid;
use parking_lot::Mutex;

use crate::stream::StreamError;

/// What a stream is closed with.
#[derive(Clone)]
pub(in crate::server) struct Farewell {
    error: StreamError,
    /// In its place where the transport is protected (STREAM-30).
    protected: Option<StreamError>,
}

impl Farewell {
    pub(in crate::server) const fn new(error: StreamError, protected: Option<StreamError>) -> Self {
        Self { error, protected }
    }

    pub(in crate::server) fn choose(self, is_protected: bool) -> StreamError {
        self.protected.filter(|_| is_protected).unwrap_or(self.error)
    }
}

impl From<StreamError> for Farewell {
    fn from(error: StreamError) -> Self {
        Self::new(error, None)
    }
}

/// All streams without a session.
#[derive(Default)]
pub(in crate::server) struct UnboundStreams(Mutex<Inside>);

#[derive(Default)]
struct Inside {
    /// The number of the next stream.
    next: u64,
    streams: HashMap<u64, Arc<Dismissal>>,
    /// The server shuts down.
    closing: Option<Farewell>,
    barred: HashMap<BareJid, Bar>,
}

impl Inside {
    /// The streams that are authenticated as `account`.
    fn of(&self, account: &BareJid) -> Vec<Arc<Dismissal>> {
        let is_of = |d: &&Arc<Dismissal>| d.0.lock().account.as_ref() == Some(account);
        self.streams.values().filter(is_of).map(Arc::clone).collect()
    }
}

/// Which streams may not authenticate as an account: what they prove may be out of date.
struct Bar {
    /// Those with a lower number.
    below: u64,
    until: Duration,
    farewell: Farewell,
}

/// How one stream learns that the server closes it.
#[derive(Default)]
pub(super) struct Dismissal(Mutex<State>);

#[derive(Default)]
struct State {
    account: Option<BareJid>,
    farewell: Option<Farewell>,
    /// The stream is about to become a session, and is closed as one.
    binds: bool,
    waker: Option<Waker>,
}

impl Dismissal {
    /// Begins a bind, which only its outcome ends; `false` if the stream was closed before.
    pub(super) fn begin_bind(&self) -> bool {
        let mut state = self.0.lock();
        state.binds = state.farewell.is_none();
        state.binds
    }

    /// The bind has ended.
    pub(super) fn end_bind(&self) {
        self.0.lock().binds = false;
    }

    fn set(&self, farewell: Farewell) {
        let waker = {
            let mut state = self.0.lock();
            state.farewell.get_or_insert(farewell);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl UnboundStreams {
    /// A stream begins.
    pub(in super::super) fn enter(self: &Arc<Self>) -> UnboundStream {
        let dismissal = Arc::<Dismissal>::default();
        let mut inside = self.0.lock();
        let number = inside.next;
        inside.next += 1;
        inside.streams.insert(number, Arc::clone(&dismissal));
        if let Some(farewell) = &inside.closing {
            dismissal.0.lock().farewell = Some(farewell.clone());
        }
        UnboundStream { all: Arc::clone(self), number, dismissal }
    }

    /// Closes all streams, and those that begin from now on.
    pub(in crate::server) fn close(&self, farewell: &Farewell) {
        let all: Vec<_> = {
            let mut inside = self.0.lock();
            inside.closing = Some(farewell.clone());
            inside.streams.values().map(Arc::clone).collect()
        };
        for dismissal in all {
            dismissal.set(farewell.clone());
        }
    }

    /// Closes the streams that are authenticated as `account`, and bars those that have already begun
    /// from authenticating as it before `until`; with `later`, those that begin afterwards too.
    pub(in crate::server) fn bar(
        &self,
        account: &BareJid,
        farewell: &Farewell,
        later: bool,
        now: Duration,
        until: Duration,
    ) {
        let of_account: Vec<_> = {
            let mut inside = self.0.lock();
            inside.barred.retain(|_, bar| bar.until > now);
            let below = if later { u64::MAX } else { inside.next };
            let bar = Bar { below, until, farewell: farewell.clone() };
            inside.barred.insert(account.clone(), bar);
            inside.of(account)
        };
        for dismissal in of_account {
            dismissal.set(farewell.clone());
        }
    }

    /// Whether nobody may authenticate as `account`: it is being removed.
    pub(in crate::server) fn is_closed_to(&self, account: &BareJid) -> bool {
        let inside = self.0.lock();
        inside.barred.get(account).is_some_and(|bar| bar.below == u64::MAX)
    }

    /// Closes the streams that are authenticated as `account`.
    pub(in crate::server) fn dismiss(&self, account: &BareJid, farewell: &Farewell) {
        let of_account = self.0.lock().of(account);
        for dismissal in of_account {
            dismissal.set(farewell.clone());
        }
    }

    /// No longer bars `account`.
    pub(in crate::server) fn unbar(&self, account: &BareJid) {
        self.0.lock().barred.remove(account);
    }
}

/// One stream's place, given up on drop.
pub(in super::super) struct UnboundStream {
    all: Arc<UnboundStreams>,
    number: u64,
    dismissal: Arc<Dismissal>,
}

impl UnboundStream {
    /// The stream is authenticated.
    pub(super) fn set_account(&self, account: &BareJid, now: Duration) {
        let inside = self.all.0.lock();
        let bar = inside.barred.get(account);
        let bar = bar.filter(|bar| self.number < bar.below && now < bar.until);
        let mut state = self.dismissal.0.lock();
        state.account = Some(account.clone());
        if let Some(bar) = bar {
            state.farewell.get_or_insert_with(|| bar.farewell.clone());
        }
    }

    pub(super) const fn dismissal(&self) -> &Arc<Dismissal> {
        &self.dismissal
    }

    /// What the stream is to be closed with, if it is; else the waker is kept.
    pub(super) fn poll(&self, cx: Option<&Context<'_>>) -> Option<Farewell> {
        // A waker is host code: cloned and dropped without the lock.
        let waker = cx.map(|cx| cx.waker().clone());
        let mut state = self.dismissal.0.lock();
        let farewell = state.farewell.clone().filter(|_| !state.binds);
        let old = match waker {
            Some(waker) => state.waker.replace(waker),
            None => None,
        };
        drop(state);
        drop(old);
        farewell
    }
}

impl Drop for UnboundStream {
    fn drop(&mut self) {
        let gone = self.all.0.lock().streams.remove(&self.number);
        // With its waker, hence without the lock.
        drop(gone);
    }
}
