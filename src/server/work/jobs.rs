//! Work that outlives its connection: chains of jobs, one for each account.
//!
//! The jobs of a chain run one after the other, so that two changes of one roster cannot meet,
//! and without a lock across the store. A job is polled in place first (a store in memory answers
//! at once), and then driven by [`Jobs::poll`]. Dropping the receiver of its result does not cancel
//! it.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};

use jid::BareJid;

use crate::oneshot::{self, Receiver};
use crate::server::faults::{Faults, PeerAddress};
use crate::session::HostCode;
use crate::shield::shielded_or;
use crate::sync::Mutex;
use crate::sync::common::Mutex as CommonMutex;

type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Chains that are driven in one poll.
const AT_ONCE: usize = 512;

/// All chains that have work.
pub(crate) struct Jobs {
    chains: CommonMutex<HashMap<Box<str>, Arc<Chain>>>,
    ready: CommonMutex<Ready>,
    faults: Arc<Faults>,
}

#[derive(Default)]
struct Ready {
    chains: VecDeque<Arc<Chain>>,
    waker: Option<Waker>,
}

/// The jobs of one account; without a key, one job of its own.
struct Chain {
    key: Option<Box<str>>,
    jobs: Weak<Jobs>,
    state: Mutex<ChainState>,
}

#[derive(Default)]
struct ChainState {
    queue: VecDeque<Job>,
    running: bool,
    woken: bool,
}

impl Wake for Chain {
    fn wake(self: Arc<Self>) {
        let mut state = self.state.lock();
        if state.running {
            state.woken = true;
            return;
        }
        drop(state);
        let Some(jobs) = self.jobs.upgrade() else { return };
        let mut ready = jobs.ready.lock();
        ready.chains.push_back(self);
        let waker = ready.waker.take();
        drop(ready);
        waker.into_iter().for_each(Waker::wake);
    }
}

impl Jobs {
    pub(crate) fn new(faults: Arc<Faults>) -> Self {
        Self { chains: CommonMutex::default(), ready: CommonMutex::default(), faults }
    }

    /// Runs `job` behind everything that was queued for `key` before. The result is `None` only if the
    /// job panicked.
    pub(crate) fn run<T: Send + 'static>(
        self: &Arc<Self>,
        key: &str,
        job: impl Future<Output = T> + Send + 'static,
    ) -> Receiver<T> {
        let (sender, receiver) = oneshot::channel();
        let job: Job = Box::pin(async move { sender.send(job.await) });
        let chain = {
            let mut chains = self.chains.lock();
            let chain = chains.entry(key.into()).or_insert_with(|| self.chain(Some(key.into())));
            chain.state.lock().queue.push_back(job);
            Arc::clone(chain)
        };
        self.advance(&chain);
        receiver
    }

    /// Runs `job` while the chains of both accounts wait for it. All such jobs take their chains in one
    /// order, so that no two of them wait for each other.
    pub(crate) fn run_pair<T: Send + 'static>(
        self: &Arc<Self>,
        one: &str,
        other: &str,
        job: impl Future<Output = T> + Send + 'static,
    ) -> Receiver<Option<T>> {
        let (first, second) = if one <= other { (one, other) } else { (other, one) };
        let (jobs, second) = (Arc::downgrade(self), Box::<str>::from(second));
        self.run(first, async move { jobs.upgrade()?.run(&second, job).await })
    }

    /// Runs `job` on no account's chain; its first poll happens here.
    pub(crate) fn spawn(self: &Arc<Self>, job: impl Future<Output = ()> + Send + 'static) {
        let chain = self.chain(None);
        chain.state.lock().queue.push_back(Box::pin(job));
        self.advance(&chain);
    }

    /// Leaves `job` to [`poll`](Self::poll): not even its first poll happens here.
    pub(crate) fn later(self: &Arc<Self>, job: impl Future<Output = ()> + Send + 'static) {
        let chain = self.chain(None);
        chain.state.lock().queue.push_back(Box::pin(job));
        chain.wake();
    }

    /// Drives what was woken; never ready.
    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        let mut waker = Some(cx.waker().clone());
        for _ in 0..AT_ONCE {
            let mut ready = self.ready.lock();
            let Some(next) = ready.chains.pop_front() else {
                // Wakers are host code: they are dropped without the lock.
                let old = std::mem::replace(&mut ready.waker, waker.take());
                drop(ready);
                drop(old);
                return Poll::Pending;
            };
            drop(ready);
            self.advance(&next);
        }
        // Work that makes more work must not keep the thread for itself.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Chains that have work.
    pub(crate) fn len(&self) -> usize {
        self.chains.lock().len()
    }

    fn chain(self: &Arc<Self>, key: Option<Box<str>>) -> Arc<Chain> {
        Arc::new(Chain { key, jobs: Arc::downgrade(self), state: Mutex::default() })
    }

    fn advance(&self, chain: &Arc<Chain>) {
        let waker = Waker::from(Arc::clone(chain));
        let mut state = chain.state.lock();
        if state.running {
            state.woken = true;
            return;
        }
        while let Some(mut job) = state.queue.pop_front() {
            state.running = true;
            state.woken = false;
            drop(state);
            // The store's code: no lock is held, and its panic ends this job alone.
            let poll = || job.as_mut().poll(&mut Context::from_waker(&waker));
            let told = |message| {
                // Chains of reviews have the account's name as well, behind a word.
                let key = chain.key.as_deref().and_then(|key| key.rsplit(' ').next());
                let account = key.and_then(|account| BareJid::new(account).ok());
                let peer = &PeerAddress::UNKNOWN;
                self.faults.panicked(HostCode::Extension, peer, account.as_ref(), message);
            };
            let done = shielded_or(poll, told).is_none_or(|poll| poll.is_ready());
            let unfinished = (!done).then_some(job);
            state = chain.state.lock();
            state.running = false;
            if let Some(job) = unfinished {
                state.queue.push_front(job);
                if !state.woken {
                    return;
                }
            }
        }
        drop(state);
        self.forget(chain);
    }

    /// Takes an empty chain off the table.
    fn forget(&self, chain: &Arc<Chain>) {
        let Some(key) = &chain.key else { return };
        let mut chains = self.chains.lock();
        let state = chain.state.lock();
        let is_it = chains.get(key).is_some_and(|found| Arc::ptr_eq(found, chain));
        if is_it && state.queue.is_empty() && !state.running {
            drop(state);
            chains.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;

    fn poll<T>(future: impl Future<Output = T>) -> Poll<T> {
        pin!(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn jobs_of_one_account_run_one_after_the_other() {
        let jobs = Arc::new(Jobs::new(Faults::silent()));
        let (open, gate) = oneshot::channel::<()>();
        let log = Arc::new(Mutex::new(Vec::new()));
        let first = Arc::clone(&log);
        let mut one = pin!(jobs.run("a", async move {
            first.lock().push("one begins");
            gate.await;
            first.lock().push("one ends");
        }));
        let second = Arc::clone(&log);
        let two = jobs.run("a", async move { second.lock().push("two") });
        let other = Arc::clone(&log);
        assert!(poll(jobs.run("b", async move { other.lock().push("other") })).is_ready());
        assert!(poll(one.as_mut()).is_pending());
        open.send(());
        assert!(poll(std::future::poll_fn(|cx| jobs.poll(cx))).is_pending());
        assert_eq!(*log.lock(), ["one begins", "other", "one ends", "two"]);
        assert_eq!(poll(one), Poll::Ready(Some(())));
        assert_eq!(poll(two), Poll::Ready(Some(())));
        assert_eq!(jobs.len(), 0);
    }

    #[test]
    fn pairs_in_opposite_order_do_not_wait_for_each_other() {
        let jobs = Arc::new(Jobs::new(Faults::silent()));
        let (open, gate) = oneshot::channel::<()>();
        let one = jobs.run_pair("a", "b", gate);
        let two = jobs.run_pair("b", "a", async move { 2 });
        open.send(());
        assert!(poll(std::future::poll_fn(|cx| jobs.poll(cx))).is_pending());
        assert_eq!(poll(one), Poll::Ready(Some(Some(Some(())))));
        assert_eq!(poll(two), Poll::Ready(Some(Some(2))));
        assert_eq!(jobs.len(), 0);
    }

    #[test]
    fn a_panic_ends_its_job_alone() {
        let jobs = Arc::new(Jobs::new(Faults::silent()));
        let bad = jobs.run("a", async { panic!("store") });
        assert_eq!(poll(bad), Poll::<Option<()>>::Ready(None));
        assert_eq!(poll(jobs.run("a", async { 1 })), Poll::Ready(Some(1)));
    }
}
