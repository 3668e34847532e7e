//! The limits of a server (section 13 of the rules).

use std::thread::available_parallelism;
use std::time::Duration;

use crate::rules::roster::{RequestLimits, RosterLimits};
use crate::session::RetentionLimits;
use crate::stream;

/// Limits of a server, by the ids of section 13 of the rules. Each is a setting.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use xmpp_session::server::{Limits, Rate};
/// use xmpp_session::stream;
///
/// let mut limits = Limits::default();
/// limits.stream = stream::Limits::default().with_element_bytes(64 * 1024);
/// limits.sessions_per_account = 8;
/// limits.recipients = Some(Rate::new(200, Duration::from_secs(3600), 0)); // against spam
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Sizes on the stream ([LIMIT-2](crate::rules#limit-2)…5).
    pub stream: stream::Limits,
    /// From accept to bound, whatever the traffic ([LIMIT-1](crate::rules#limit-1)). Default: 60 s.
    pub negotiation: Duration,
    /// Failed binds that a stream may have, clamped to 5 to 10 ([BIND-10](crate::rules#bind-10)). Default: 5.
    pub bind_failures: u8,
    /// How long an account's data may take to load at bind ([BIND-7](crate::rules#bind-7)). Default: 5 s.
    pub load: Duration,
    /// Sessions of one account, live and hibernating ([LIMIT-8](crate::rules#limit-8)). Default: 32.
    pub sessions_per_account: usize,
    /// Hibernating sessions of one account ([LIMIT-9](crate::rules#limit-9)). Default: 8.
    pub hibernating_per_account: usize,
    /// What is kept for clients that may come back ([LIMIT-10](crate::rules#limit-10)…12).
    pub retention: RetentionLimits,
    /// Items, names and groups of a roster ([LIMIT-15](crate::rules#limit-15)).
    pub roster: RosterLimits,
    /// Stored subscription requests ([LIMIT-16](crate::rules#limit-16)).
    pub requests: RequestLimits,
    /// Targets of directed presence of one session ([LIMIT-17](crate::rules#limit-17)). Default: 1000.
    pub directed: usize,
    /// Broadcast presences of one session ([LIMIT-19](crate::rules#limit-19)); `None` = no limit. Default: 30 in 60 s.
    pub presence: Option<Rate>,
    /// Stanzas of one session ([LIMIT-20](crate::rules#limit-20)); `None` = no limit. Default: 100 a second, 1000 at once.
    pub stanzas: Option<Rate>,
    /// Bytes of one session ([LIMIT-20](crate::rules#limit-20)); `None` = no limit. Default: 128 KiB a second, 1 MiB at once.
    pub bytes: Option<Rate>,
    /// Other entities that one session may address in a period ([LIMIT-21](crate::rules#limit-21)); `None` = no limit, the
    /// default. The burst has no meaning here.
    pub recipients: Option<Rate>,
    /// Bytes that may wait for a client before it is no longer read from ([LIMIT-13](crate::rules#limit-13)). Default: 512 KiB.
    pub soft_mark: usize,
    /// How long a client may take nothing of what waits for it, before its transport is dropped
    /// ([LIMIT-13](crate::rules#limit-13)). Default: 60 s.
    pub stuck: Duration,
    /// How long a client may be silent before it is asked for a sign of life ([LIMIT-22](crate::rules#limit-22)).
    /// At least 5 minutes ([STREAM-29](crate::rules#stream-29)), default: 1800 s.
    pub silence: Duration,
    /// How long it may take to give one ([LIMIT-22](crate::rules#limit-22)). Default: 60 s.
    pub answer: Duration,
    /// How long the client's close tag is waited for after a stream error ([LIMIT-23](crate::rules#limit-23)). Default: 2 s.
    pub close: Duration,
    /// The same where the host closed without one ([LIMIT-23](crate::rules#limit-23)). Default: 5 s.
    pub close_clean: Duration,
    /// Transports that serve no session yet, in the whole server ([LIMIT-25](crate::rules#limit-25)), and as many that are
    /// being closed ([LIMIT-27](crate::rules#limit-27)). Default: 10,000.
    pub unauthenticated: usize,
    /// The same for one source. Ten times as many may be silent or wait. Default: 50.
    pub unauthenticated_per_source: usize,
    /// How long a transport may wait for its turn ([LIMIT-25](crate::rules#limit-25)). Default: 30 s.
    pub admission: Duration,
    /// Streams of one account that are authenticated and have no session ([LIMIT-26](crate::rules#limit-26)). Default: 32.
    pub unbound_per_account: usize,
    /// Passwords that are hashed at once ([LIMIT-28](crate::rules#limit-28)), of one source half as many. Default: half of the
    /// processors, at least one.
    pub hashes: usize,
    /// Logins of one source that may fail before the next ones have to wait, from 250 ms on, each
    /// time twice as long, to 8 s ([LIMIT-29](crate::rules#limit-29)); `None` = no limit. Default: one in 2 s, 20 at once.
    pub failures: Option<Rate>,
    /// Iq sets of clients that have not authenticated, from one source ([LIMIT-33](crate::rules#limit-33)): registrations,
    /// say. Those whose source the host does not name are of one source. `None` = no limit. Default: 10 an hour, 10
    /// at once.
    pub strangers: Option<Rate>,
    /// Clients of one account that may have tokens ([LIMIT-31](crate::rules#limit-31)). Default: 64.
    pub clients_per_account: usize,
    /// Whether an iq request to a full JID needs a presence relation ([IQ-2](crate::rules#iq-2)). Default: yes.
    pub iq_needs_presence: bool,
}

/// A rate: an amount in each period, and a burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rate {
    /// How much.
    pub amount: u32,
    /// In how long.
    pub period: Duration,
    /// How much of it at once.
    pub burst: u32,
}

impl Rate {
    /// `amount` in `period`, `burst` of it at once.
    #[must_use]
    pub const fn new(amount: u32, period: Duration, burst: u32) -> Self {
        Self { amount, period, burst }
    }
}

impl Default for Limits {
    fn default() -> Self {
        const SECOND: Duration = Duration::from_secs(1);
        Self {
            stream: stream::Limits::default(),
            negotiation: Duration::from_secs(60),
            bind_failures: 5,
            load: Duration::from_secs(5),
            sessions_per_account: 32,
            hibernating_per_account: 8,
            retention: RetentionLimits::default(),
            roster: RosterLimits::default(),
            requests: RequestLimits::default(),
            directed: 1000,
            presence: Some(Rate::new(30, Duration::from_secs(60), 30)),
            stanzas: Some(Rate::new(100, SECOND, 1000)),
            bytes: Some(Rate::new(128 << 10, SECOND, 1 << 20)),
            recipients: None,
            soft_mark: 512 << 10,
            stuck: Duration::from_secs(60),
            silence: Duration::from_secs(1800),
            answer: Duration::from_secs(60),
            close: Duration::from_secs(2),
            close_clean: Duration::from_secs(5),
            unauthenticated: 10_000,
            unauthenticated_per_source: 50,
            admission: Duration::from_secs(30),
            unbound_per_account: 32,
            hashes: default_hashes(),
            failures: Some(Rate::new(1, 2 * SECOND, 20)),
            strangers: Some(Rate::new(10, 3600 * SECOND, 10)),
            clients_per_account: 64,
            iq_needs_presence: true,
        }
    }
}

impl Limits {
    /// The defaults without those on rates and on the number of sessions: for load tests.
    #[must_use]
    pub fn unlimited() -> Self {
        Self {
            sessions_per_account: usize::MAX,
            presence: None,
            stanzas: None,
            bytes: None,
            unauthenticated: usize::MAX,
            unauthenticated_per_source: usize::MAX,
            unbound_per_account: usize::MAX,
            hashes: 2 * default_hashes(),
            failures: None,
            strangers: None,
            ..Self::default()
        }
    }
}

/// Half of the processors: the other half serves.
fn default_hashes() -> usize {
    available_parallelism().map_or(1, |cores| cores.get() / 2).max(1)
}
