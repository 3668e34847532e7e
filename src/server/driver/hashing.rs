//! Where passwords are hashed, how many at once, and whose turn it is (LIMIT-28).

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::server::driver::admission::Source;
use crate::server::work::oneshot::{Receiver, Sender, channel};

/// Something to do that takes a processor for a while.
pub type Work = Box<dyn FnOnce() + Send>;

/// Threads for work that would hold up those who serve: password hashing (LIMIT-28).
///
/// For hosts to implement, and to hand to [`Builder::hashing`](crate::server::Builder::hashing). With
/// feature `tokio` the handle of a runtime is one, with feature `threads` `host::threads::Workers`
/// is.
pub trait Offload: Send + Sync + 'static {
    /// Runs `work` soon, on a thread that serves no connection.
    ///
    /// Never more of it than [`Limits::hashes`](crate::server::Limits::hashes) is under way. Work that is
    /// dropped instead makes that login fail with `temporary-auth-failure`.
    fn run(&self, work: Work);
}

/// The passwords that are to be checked.
pub(in crate::server) struct Hashing {
    offload: Box<dyn Offload>,
    most: usize,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    under_way: usize,
    sources: HashMap<Source, Logins>,
    /// The sources that wait: each has one password checked in turn.
    turns: VecDeque<Source>,
    /// A thread is handing out work.
    hands_out: bool,
}

/// The logins of one source.
#[derive(Default)]
struct Logins {
    under_way: usize,
    waiting: VecDeque<Login>,
}

struct Login {
    check: Box<dyn FnOnce() -> bool + Send>,
    answer: Sender<bool>,
}

/// One check under way, or dropped: it makes room either way.
struct UnderWay {
    hashing: Arc<Hashing>,
    source: Source,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.hashing.is_through(self.source);
        self.hashing.hand_out();
    }
}

impl Hashing {
    pub(in crate::server) fn new(offload: Box<dyn Offload>, most: usize) -> Self {
        Self { offload, most: most.max(1), queue: Mutex::default() }
    }

    /// What `check` comes to, in the turn of its source; `None` where it panics or is never run.
    pub(super) fn submit(
        self: &Arc<Self>,
        source: Source,
        check: Box<dyn FnOnce() -> bool + Send>,
    ) -> Receiver<bool> {
        let (answer, answered) = channel();
        {
            let mut queue = self.queue.lock();
            let logins = queue.sources.entry(source).or_default();
            logins.waiting.push_back(Login { check, answer });
            if logins.waiting.len() == 1 {
                queue.turns.push_back(source);
            }
        }
        self.hand_out();
        answered
    }

    /// Gives the host as much as may be under way.
    fn hand_out(self: &Arc<Self>) {
        if std::mem::replace(&mut self.queue.lock().hands_out, true) {
            // Who does it already looks again; a host may run the work where it stands.
            return;
        }
        while let Some((source, Login { check, answer })) = self.next() {
            let under_way = UnderWay { hashing: Arc::clone(self), source };
            let work = move || {
                let _under_way = under_way;
                if let Some(right) = crate::server::shielded(check) {
                    answer.send(right);
                }
            };
            let _panicked = crate::server::shielded(|| self.offload.run(Box::new(work)));
        }
    }

    /// The next that may run; none of those that nobody waits for any more.
    fn next(&self) -> Option<(Source, Login)> {
        let mut gone = Vec::new();
        let mut queue = self.queue.lock();
        let found = queue.next(self.most, &mut gone);
        queue.hands_out = found.is_some();
        drop(queue);
        found
    }

    fn is_through(&self, source: Source) {
        let mut queue = self.queue.lock();
        queue.under_way -= 1;
        if let Entry::Occupied(mut logins) = queue.sources.entry(source) {
            logins.get_mut().under_way -= 1;
            if logins.get().under_way == 0 && logins.get().waiting.is_empty() {
                logins.remove();
            }
        }
    }
}

impl Queue {
    fn next(&mut self, most: usize, gone: &mut Vec<Login>) -> Option<(Source, Login)> {
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
                if login.answer.is_closed() {
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
