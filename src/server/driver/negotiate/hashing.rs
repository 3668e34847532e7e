//! Where passwords are hashed, how many at once, in whose turn (LIMIT-28).

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::super::admission::Source;
use crate::oneshot::{Receiver, Sender, channel};
use crate::server::faults::{Faults, PeerAddress};
use crate::session::HostCode;
use crate::shield::shielded;
use crate::sync::common::Mutex;

/// Threads for password hashing, which would hold up those that serve connections ([LIMIT-28](crate::rules#limit-28)).
///
/// For hosts to implement, and to hand to [`ServerBuilder::hashing`](crate::server::ServerBuilder::hashing).
/// With feature `tokio` a runtime's handle is one, with feature `threads` `host::threads::Workers` is.
pub trait Offload: Send + Sync + 'static {
    /// Runs `hash` soon, on a thread that serves no connection.
    ///
    /// At most [`Limits::hashes`](crate::server::Limits::hashes) of them run at once. One that is
    /// dropped instead makes its login fail with `temporary-auth-failure`.
    fn run(&self, hash: Box<dyn FnOnce() + Send>);
}

/// The passwords to check.
pub(in crate::server) struct Hashing {
    offload: Box<dyn Offload>,
    most: usize,
    queue: Mutex<Logins>,
    faults: Arc<Faults>,
}

#[derive(Default)]
struct Logins {
    under_way: usize,
    sources: HashMap<Source, OfSource>,
    /// Sources that wait: one password of each is checked in turn.
    turns: VecDeque<Source>,
    /// Some thread is in `hand_out`.
    hands_out: bool,
}

/// The logins of one source.
#[derive(Default)]
struct OfSource {
    under_way: usize,
    waiting: VecDeque<Box<dyn Login>>,
}

/// A password to hash, for somebody who waits.
trait Login: Send {
    fn is_given_up(&self) -> bool;
    fn run(self: Box<Self>);
}

struct Hash<F, T> {
    hash: F,
    answer: Sender<T>,
}

impl<F: FnOnce() -> T + Send, T: Send> Login for Hash<F, T> {
    fn is_given_up(&self) -> bool {
        self.answer.is_closed()
    }

    fn run(self: Box<Self>) {
        let Self { hash, answer } = *self;
        if let Some(hashed) = shielded(hash) {
            answer.send(hashed);
        }
    }
}

/// One check under way. Done or dropped, it makes room.
struct UnderWay {
    hashing: Arc<Hashing>,
    source: Source,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut queue = self.hashing.queue.lock();
        queue.under_way -= 1;
        if let Entry::Occupied(mut logins) = queue.sources.entry(self.source) {
            logins.get_mut().under_way -= 1;
            if logins.get().under_way == 0 && logins.get().waiting.is_empty() {
                logins.remove();
            }
        }
        drop(queue);
        self.hashing.hand_out();
    }
}

impl Hashing {
    pub(in crate::server) fn new(
        offload: Box<dyn Offload>,
        most: usize,
        faults: Arc<Faults>,
    ) -> Self {
        Self { offload, most: most.max(1), queue: Mutex::default(), faults }
    }

    /// The result of `hash`, which runs in the turn of its source; `None` if it panics or never runs.
    pub(in crate::server) fn submit<T: Send + 'static>(
        self: &Arc<Self>,
        source: Source,
        hash: impl FnOnce() -> T + Send + 'static,
    ) -> Receiver<T> {
        let (answer, answered) = channel();
        let login: Box<dyn Login> = Box::new(Hash { hash, answer });
        {
            let mut queue = self.queue.lock();
            let logins = queue.sources.entry(source).or_default();
            logins.waiting.push_back(login);
            if logins.waiting.len() == 1 {
                queue.turns.push_back(source);
            }
        }
        self.hand_out();
        answered
    }

    /// Gives the host as many checks as may run.
    fn hand_out(self: &Arc<Self>) {
        if std::mem::replace(&mut self.queue.lock().hands_out, true) {
            // The other thread looks again; or this is its own host, which runs the check in place.
            return;
        }
        while let Some((source, login)) = self.next() {
            let under_way = UnderWay { hashing: Arc::clone(self), source };
            let hash = move || {
                let _under_way = under_way;
                login.run();
            };
            let run = || self.offload.run(Box::new(hash));
            self.faults.shielded(HostCode::Hashing, &PeerAddress::UNKNOWN, None, run);
        }
    }

    /// The next that may run. Those whose stream is gone are dropped, without the lock.
    fn next(&self) -> Option<(Source, Box<dyn Login>)> {
        let mut gone = Vec::new();
        let mut queue = self.queue.lock();
        let found = queue.next(self.most, &mut gone);
        queue.hands_out = found.is_some();
        drop(queue);
        found
    }
}

impl Logins {
    fn next(
        &mut self,
        most: usize,
        gone: &mut Vec<Box<dyn Login>>,
    ) -> Option<(Source, Box<dyn Login>)> {
        // One source alone leaves room for another.
        let most_per_source = if most == 1 { 1 } else { most.div_ceil(2) };
        for _ in 0..self.turns.len() {
            if self.under_way >= most {
                return None;
            }
            let source = self.turns.pop_front()?;
            let Some(logins) = self.sources.get_mut(&source) else { continue };
            if logins.under_way >= most_per_source {
                self.turns.push_back(source);
                continue;
            }
            let mut found = None;
            while let Some(login) = logins.waiting.pop_front() {
                if login.is_given_up() {
                    gone.push(login);
                } else {
                    found = Some(login);
                    break;
                }
            }
            if !logins.waiting.is_empty() {
                self.turns.push_back(source);
            }
            if let Some(login) = found {
                logins.under_way += 1;
                self.under_way += 1;
                return Some((source, login));
            }
            if logins.under_way == 0 {
                self.sources.remove(&source);
            }
        }
        None
    }
}
