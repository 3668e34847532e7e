//! A registry full of sessions whose connections swallow everything.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use xmpp_session::connection::{Close, Connection, SendError};
use xmpp_session::environment::System;
use xmpp_session::jid::{BareJid, DomainPart, FullJid, ResourcePart};
use xmpp_session::rules::roster::{Item, Roster, Subscription};
use xmpp_session::session::{BindRequest, Bound, Presence, Reason, Session, SessionRegistry};
use xmpp_session::stanza::{Frame, Stanza};

/// Counts what it is sent, by thread, so that threads share nothing here.
#[derive(Clone)]
pub(crate) struct Sink;

/// Makes every connection fail from now on.
pub(crate) static BROKEN: AtomicBool = AtomicBool::new(false);

thread_local! {
    static SENT: Cell<usize> = const { Cell::new(0) };
}

/// Frames taken since the last call, on this thread.
pub(crate) fn sent() -> usize {
    SENT.take()
}

impl Connection for Sink {
    fn send(&self, _frame: Frame<'_>) -> Result<(), SendError> {
        if BROKEN.load(Ordering::Relaxed) {
            return Err(SendError::Closed);
        }
        SENT.set(SENT.get() + 1);
        Ok(())
    }

    fn close(&self, _how: Close) {}
}

pub(crate) type Live = Session<Bound, Sink>;

/// CPU time of this thread, where the system tells it.
pub(crate) fn cpu() -> Duration {
    #[cfg(target_os = "linux")]
    {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
    }
    #[cfg(not(target_os = "linux"))]
    {
        static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
        START.get_or_init(std::time::Instant::now).elapsed()
    }
}

/// Nanoseconds of CPU that `work` takes for each of `ops` operations.
pub(crate) fn each<T>(ops: usize, work: impl FnOnce() -> T) -> f64 {
    let start = cpu();
    let result = work();
    let took = cpu() - start;
    drop(result);
    took.as_nanos() as f64 / ops as f64
}

/// The best of several stretches: what disturbs only ever adds.
pub(crate) fn best(rounds: usize, stretch: impl FnMut() -> f64) -> f64 {
    std::iter::repeat_with(stretch).take(rounds).fold(f64::INFINITY, f64::min)
}

/// Resident bytes of this process, 0 where the system does not tell.
pub(crate) fn resident() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .map_or(0.0, |pages: f64| pages * 4096.0)
}

/// SplitMix64: the same picks in every run.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

pub(crate) fn name(n: usize) -> String {
    format!("user{n:07}@example.com")
}

pub(crate) fn account(n: usize) -> BareJid {
    BareJid::new(&name(n)).expect("a JID")
}

/// A roster of mutual contacts.
pub(crate) fn roster(contacts: impl IntoIterator<Item = usize>) -> Roster {
    let items = contacts.into_iter().map(|n| {
        let mut item = Item::new(account(n));
        item.subscription = Subscription::Both;
        item
    });
    Roster::from_items(items, 1, [])
}

pub(crate) fn registry(per_account: usize) -> SessionRegistry<Sink> {
    SessionRegistry::builder(Arc::new(System::new())).sessions_per_account(per_account).build()
}

pub(crate) fn bind(
    registry: &SessionRegistry<Sink>,
    account: BareJid,
    request: BindRequest<'_>,
) -> Live {
    let mut session = Session::new(Sink);
    session.open(DomainPart::new("example.com").expect("a domain").into_owned());
    let session = session.authenticate(account).expect("its domain");
    session.bind(registry, request).expect("a free resource")
}

pub(crate) fn appear(session: &mut Live) {
    let stanza = Stanza::presence().from(session.jid().as_str()).build();
    session.set_presence(Presence::Available { stanza: &stanza, priority: 0 });
}

pub(crate) fn phone() -> ResourcePart {
    ResourcePart::new("phone").expect("a resource").into_owned()
}

pub(crate) fn message() -> Stanza {
    Stanza::message().from("romeo@example.com/orchard").type_("chat").id("1").build()
}

/// Sends `message` to each of `targets`.
pub(crate) fn deliver_to(registry: &SessionRegistry<Sink>, targets: &[FullJid], message: &Stanza) {
    for target in targets {
        let session = registry.session(target).expect("it is bound");
        session.send(message).expect("it is taken");
    }
}

/// Available sessions, one for each account.
pub(crate) struct World {
    pub(crate) registry: SessionRegistry<Sink>,
    sessions: Vec<Live>,
    dice: Dice,
    /// The longest bind while the registry grew, in nanoseconds.
    pub(crate) longest: f64,
}

const DELIVERIES: usize = 100_000;
const SOURCES: usize = 40;

impl World {
    pub(crate) fn filled(count: usize) -> Self {
        let registry = registry(32);
        let mut sessions = Vec::with_capacity(count);
        let mut longest = 0.0_f64;
        for n in 0..count {
            let (account, request) = (account(n), BindRequest::new().resource(phone()));
            longest = longest.max(each(1, || sessions.push(bind(&registry, account, request))));
            sessions.iter_mut().next_back().into_iter().for_each(appear);
        }
        Self { registry, sessions, dice: Dice::new(7), longest }
    }

    /// Random full JIDs, made without a look at the sessions: they stay as cold as they are.
    pub(crate) fn targets(&mut self, count: usize) -> Vec<FullJid> {
        let Self { sessions, dice, .. } = self;
        let phone = phone();
        (0..count).map(|_| account(dice.below(sessions.len())).with_resource(&phone)).collect()
    }

    /// A message to a random full JID: look-up and send.
    pub(crate) fn deliver(&mut self) -> f64 {
        let message = message();
        best(5, || {
            let targets = self.targets(DELIVERIES);
            sent();
            let took = each(DELIVERIES, || deliver_to(&self.registry, &targets, &message));
            assert_eq!(sent(), DELIVERIES);
            took
        })
    }

    /// A change of presence, for each contact that gets it; contacts are random.
    pub(crate) fn presence(&mut self) -> f64 {
        let contacts = self.sessions.len().min(1000);
        let Self { registry, sessions, dice, .. } = self;
        let source = |n: usize| {
            let mut picks: Vec<usize> = (0..contacts).map(|_| dice.below(sessions.len())).collect();
            picks.sort_unstable();
            picks.dedup();
            let account = BareJid::new(&format!("source{n}@example.com")).expect("a JID");
            bind(registry, account, BindRequest::new().roster(roster(picks)))
        };
        let mut sources: Vec<Live> = (0..SOURCES).map(source).collect();
        sources.iter_mut().for_each(appear);
        sent();
        sources.iter_mut().for_each(appear);
        // Each contact and the source itself.
        let copies = sent();
        best(5, || each(copies, || sources.iter_mut().for_each(appear)))
    }

    /// The end of random sessions, and the bind of as many others.
    pub(crate) fn turnover(&mut self) -> (f64, f64) {
        let size = self.sessions.len();
        let count = (size / 10).min(10_000);
        let rounds = (20_000 / count).clamp(5, 50);
        let (mut destroy, mut bound) = (f64::INFINITY, f64::INFINITY);
        let Self { registry, sessions, dice, .. } = self;
        for round in 0..rounds {
            let chosen: Vec<Live> =
                (0..count).map(|_| sessions.swap_remove(dice.below(sessions.len()))).collect();
            let end = |session: Live| assert!(session.end(Reason::Closed));
            destroy = destroy.min(each(count, || chosen.into_iter().for_each(end)));
            // Accounts that were not there before: their places are as cold as any.
            let first = size + round * count;
            let requests: Vec<_> = (first..first + count).map(|n| (account(n), phone())).collect();
            bound = bound.min(each(count, || {
                for (account, phone) in requests {
                    sessions.push(bind(registry, account, BindRequest::new().resource(phone)));
                }
            }));
            sessions.iter_mut().skip(size - count).for_each(appear);
        }
        (destroy, bound)
    }
}
