//! Who may hold a transport that serves no session: who is in, who waits, who is being closed
//! (LIMIT-25…27).

mod books;
mod place;

pub use place::Place;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use jid::BareJid;
use parking_lot::Mutex;

use crate::environment::Environment;
use crate::server::limits::Limits;
use books::{Books, Most};

/// Where a transport comes from: a keyed hash of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Source(u64);

impl Source {
    /// The host has not said. All of these are one source, and no limit per source applies to it.
    const UNNAMED: Self = Self(0);

    pub(super) const fn key(self) -> u64 {
        self.0
    }
}

/// Where a transport stands, as its driver sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has said nothing, and takes nobody's place.
    #[default]
    Silent,
    /// What it says waits.
    Waiting,
    Inside,
    /// There is no room for it.
    Refused,
}

/// Counts transports from accept until they are gone, except while they serve a session.
pub(in crate::server) struct Ledger {
    environment: Arc<dyn Environment>,
    hasher: RandomState,
    books: Mutex<Books>,
}

impl Ledger {
    pub(in crate::server) fn new(limits: &Limits, environment: Arc<dyn Environment>) -> Self {
        let most = Most {
            inside: limits.unauthenticated,
            per_source: limits.unauthenticated_per_source,
            per_account: limits.unbound_per_account,
        };
        Self { environment, hasher: RandomState::new(), books: Mutex::new(Books::new(most)) }
    }

    /// The source that a host's name for it means: the whole address with IPv4, and with IPv6 the
    /// /64 that one subscriber usually has.
    pub(super) fn source(&self, name: Option<&str>) -> Source {
        let Some(name) = name else { return Source::UNNAMED };
        let hash = match ip_address(name).map(|address| address.to_canonical()) {
            Some(IpAddr::V4(address)) => self.hasher.hash_one(address),
            Some(IpAddr::V6(address)) => {
                let [a, b, c, d, ..] = address.segments();
                self.hasher.hash_one([a, b, c, d])
            }
            None => self.hasher.hash_one(name),
        };
        Source(hash | 1)
    }

    /// An account's key; never that of a source.
    pub(super) fn account(&self, account: &BareJid) -> u64 {
        self.hasher.hash_one(account.as_str()) & !1
    }

    /// Transports that are not authenticated, including those that wait.
    pub(in crate::server) fn unauthenticated(&self) -> usize {
        self.books.lock().unauthenticated()
    }

    /// Changes the books, gives the places that became free to those who wait, and wakes whom it
    /// concerns, without the lock.
    fn change<T>(&self, change: impl FnOnce(&mut Books, Duration) -> T) -> T {
        let now = self.environment.now();
        let mut books = self.books.lock();
        let done = change(&mut books, now);
        books.fill(now);
        let wakers = books.take_wakers();
        drop(books);
        wakers.into_iter().for_each(Waker::wake);
        done
    }
}

/// An IP address as hosts write it: alone, in brackets, with a port, with a zone.
fn ip_address(name: &str) -> Option<IpAddr> {
    if let Ok(address) = name.parse::<SocketAddr>() {
        return Some(address.ip());
    }
    let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.split('%').next()?.parse().ok()
}
