//! Host code that panics fails alone.

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

use jid::BareJid;

use crate::named::named;

named! {
    /// Code of the host that this crate runs.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    #[non_exhaustive]
    pub enum HostCode {
        /// A [`Connection`](crate::connection::Connection).
        Connection = "connection",
        /// A listener, `on_login`, or what was handed to a bind, a resumption or a shutdown.
        Listener = "listener",
        /// An extension, or a hook of the registry.
        Extension = "extension",
        /// A store.
        Store = "store",
        /// An authenticator.
        Authenticator = "authenticator",
        /// The router to other domains.
        Router = "router",
        /// The handler of a component.
        Component = "component",
        /// What hashes passwords.
        Hashing = "hashing",
        /// The engine of a cluster.
        Engine = "engine",
        /// The way for posts of a cluster.
        Posts = "posts",
    }
    /// Its name, for logs and metrics.
    pub const fn as_str;
}

impl fmt::Display for HostCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A panic of host code, which has failed alone.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Panicked {
    /// Whose code it was.
    pub code: HostCode,
    /// Its message, where that is a text.
    pub message: Option<String>,
    /// For which account it ran, where that is known.
    pub account: Option<BareJid>,
}

impl Panicked {
    pub(crate) const fn new(code: HostCode, message: Option<String>) -> Self {
        Self { code, message, account: None }
    }
}

impl fmt::Debug for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Panicked").field("code", &self.code).finish_non_exhaustive()
    }
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = self.message.as_deref().unwrap_or("no message");
        write!(f, "{} panicked: {message}", self.code)
    }
}

/// Runs host code; `None` where it panicked (the panic hook has reported it by then).
///
/// What host code leaves half-done is its own. What we were doing goes on: an end tells everybody
/// else, a queue keeps its order, and a panicking connection counts as a broken transport.
pub(crate) fn shielded<T>(host: impl FnOnce() -> T) -> Option<T> {
    shielded_or(host, |_| {})
}

/// The same; `told` gets the message of a panic. It runs without a shield of its own.
#[inline]
pub(crate) fn shielded_or<T>(
    host: impl FnOnce() -> T,
    told: impl FnOnce(Option<String>),
) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(host)) {
        Ok(value) => Some(value),
        Err(payload) => {
            told(message(payload));
            None
        }
    }
}

/// What a panic said. What else it threw is dropped here, which is host code too.
#[cold]
fn message(payload: Box<dyn Any + Send>) -> Option<String> {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(another);
    }
    text
}

/// Wakes who waits, if anybody does.
pub(crate) fn wake(waker: Option<Box<Waker>>) {
    if let Some(waker) = waker {
        shielded(|| waker.wake());
    }
}

crate::sync::thread_local! {
    /// Something that this thread has sent waits behind much else (LIMIT-13).
    static BEHIND: Cell<bool> = const { Cell::new(false) };
}

/// Something that this thread sends has to wait behind much else.
pub(crate) fn note_behind() {
    let _torn_down = BEHIND.try_with(|behind| behind.set(true));
}

/// Whether something that this thread has sent since the last call waits behind much else: its sender is to
/// be slowed down.
#[cfg(feature = "server")]
pub(crate) fn take_behind() -> bool {
    BEHIND.try_with(|behind| behind.replace(false)).unwrap_or(false)
}
