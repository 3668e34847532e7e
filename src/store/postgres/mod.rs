//! Everything in a PostgreSQL database.
//!
//! ```text
//!   calls ──► queue ──► lanes that write ──► one transaction for all that wait ──► COMMIT ──► answers
//!   calls ──► queue ──► lanes that read ───► all that wait at once ──► answers
//! ```
//!
//! A lane is a task with a connection of its own (`lane`): together they are the pool. A call is statements and their
//! values (`call`), so it can be sent at once with others, and again after a lost connection. Each trait is one file,
//! `connection` connects, `schema` migrates.

mod accounts;
mod blocks;
mod call;
mod config;
mod connection;
#[cfg(feature = "cluster")]
mod fence;
mod invitations;
mod lane;
mod offline;
mod rosters;
mod schema;
#[cfg(test)]
pub(super) mod tests;
mod text;
pub(crate) mod tls;
mod tokens;

pub use config::PostgresConfig;
pub use connection::ConnectError;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jid::BareJid;

use self::call::{Ask, Kind};
use self::lane::Pool;
use super::OfflineLimits;

/// A store of everything in a PostgreSQL database (13 or newer).
///
/// ```no_run
/// use std::sync::Arc;
/// use xmpp_session::store::{Postgres, Stores};
///
/// # async fn open() -> Result<(), Box<dyn std::error::Error>> {
/// let url = "postgres://xmpp:secret@db.example.com/xmpp?sslmode=verify-full";
/// let stores = Stores::all_in(Arc::new(Postgres::connect(url).await?));
/// # Ok(())
/// # }
/// ```
///
/// [`PostgresConfig`] says what a URL may hold, and has the other settings. Invitations may go into the same database: it
/// is an [`InvitationStore`](super::InvitationStore) as well.
///
/// # What it needs
///
/// A database whose encoding is UTF-8, and a role that may create a schema in it, or that owns one of the name in
/// [`PostgresConfig::schema`]. Tables are made, and those of an older version of this crate brought up to date, when it
/// connects; of several servers that start at the same time one does it. The role needs no other rights.
///
/// It lives on the tokio runtime that [`connect`](Self::connect) was called on: its connections are tasks there, and nothing
/// is answered when that runtime is gone. The futures of its calls may be awaited anywhere.
///
/// # What it promises
///
/// Each call is one transaction, alone or with others that were waiting; one that fails fails alone. `Ok` comes after
/// the commit, which is as durable as the server's settings say; `synchronous_commit = off` is overruled, `fsync = off` is
/// not. A connection that is lost is made again, and what was under way is done again on the new one; of a transaction whose
/// commit was not answered the server is asked whether it took place, so that nothing is done twice and nothing is said
/// to have failed that was done. What is not done within [`PostgresConfig::timeout`] has failed and changed
/// nothing, except for a commit that was sent to a server which cannot be asked about it until then: its error says so.
///
/// Several servers may use one database as long as each account is at one of them at a time, since they keep rosters in
/// memory. What is compared before it is changed (keys, tokens, invitations, the limit of offline messages) is right
/// whoever changes it.
///
/// Dropping the store does not wait: what was called for is still done, as long as the runtime is there.
pub struct Postgres {
    pool: Arc<Pool>,
    offline_limits: OfflineLimits,
    #[cfg(feature = "cluster")]
    tokens: Option<Arc<dyn super::shared::FenceTokens>>,
    #[cfg(feature = "cluster")]
    identity: Arc<str>,
}

impl Postgres {
    /// Connects to the database of a URL, and makes or migrates its tables.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] says what is wrong with the URL, the server or the database.
    ///
    /// # Panics
    ///
    /// Without a tokio runtime that has its network and its clock enabled.
    pub async fn connect(url: &str) -> Result<Self, ConnectError> {
        PostgresConfig::new(url)?.connect().await
    }

    fn new(pool: Pool) -> Self {
        Self {
            pool: Arc::new(pool),
            offline_limits: OfflineLimits::default(),
            #[cfg(feature = "cluster")]
            tokens: None,
            #[cfg(feature = "cluster")]
            identity: Arc::default(),
        }
    }

    /// How much each account may have waiting as offline messages.
    #[must_use]
    pub fn with_offline_limits(self, offline_limits: OfflineLimits) -> Self {
        Self { offline_limits, ..self }
    }

    /// A look at what belongs to an account: in its home's name, where nodes share the store.
    fn read(&self, account: &BareJid) -> Ask {
        self.ask(Kind::Read, &[account])
    }

    /// A change of what belongs to these accounts, likewise.
    fn write(&self, accounts: &[&BareJid]) -> Ask {
        self.ask(Kind::Write, accounts)
    }

    fn ask(&self, kind: Kind, accounts: &[&BareJid]) -> Ask {
        let ask = self.anybodys(kind, accounts);
        #[cfg(feature = "cluster")]
        let ask = ask.fenced(self.tokens.as_deref(), accounts);
        ask
    }

    /// What any node may do.
    fn anybodys(&self, kind: Kind, accounts: &[&BareJid]) -> Ask {
        let ask = Ask::new(Arc::clone(&self.pool), kind);
        accounts.iter().fold(ask, |ask, account| ask.alone_with("account", account.as_str()))
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres")
            .field("offline_limits", &self.offline_limits)
            .finish_non_exhaustive()
    }
}

/// Since 1970, negative before it.
fn microseconds(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |n| -n),
    }
}

/// `None` where the system knows no such time.
fn time(stored: i64) -> Option<SystemTime> {
    let distance = Duration::from_micros(stored.unsigned_abs());
    match stored {
        0.. => UNIX_EPOCH.checked_add(distance),
        _ => UNIX_EPOCH.checked_sub(distance),
    }
}

/// The address of a text, if that is how it is written now.
fn address(text: &str) -> Option<BareJid> {
    crate::address::bare(text).ok().filter(|jid| jid.as_str() == text)
}
