//! PostgreSQL: leases and the record in the database that has the stores. Each answer is one transaction, sent at
//! once: none is held open by a node that stops. What only looks waits for nobody's, and for no disk.

mod error;

use std::fmt;
use std::future::poll_fn;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::config::Config;
use tokio_postgres::{AsyncMessage, Client, SimpleQueryMessage, SimpleQueryRow};

pub use error::PostgresError;

use super::engine::{Answer, Engine, EngineError, EngineFuture};
use super::record::{Lease, Record};
use super::view::{Incarnation, View};
use crate::store::postgres::tls::Tls;
use crate::store::{ConnectError, PostgresConfig};

type Hint = Arc<dyn Fn() + Send + Sync>;
type Known = (Arc<str>, Arc<Record>);

/// PostgreSQL as what nodes stand on: leases and the record of who owns which slot. Posts need something else, such as
/// `RedisPosts`.
///
/// One value for each node. It connects again by itself, and runs on the tokio runtime that it was made in; its
/// futures may be polled anywhere. [What happens](crate::guide::engines) when the database restarts, hangs, or fails over.
///
/// ```no_run
/// use xmpp_session::cluster::Postgres;
/// use xmpp_session::store::PostgresConfig;
///
/// # async fn open() -> Result<(), Box<dyn std::error::Error>> {
/// let url = "postgres://xmpp:secret@db.example.com/xmpp?sslmode=verify-full";
/// let engine = Postgres::builder(PostgresConfig::new(url)?).connect().await?;
/// # Ok(())
/// # }
/// ```
pub struct Postgres {
    shared: Arc<Shared>,
    handle: Handle,
}

/// What a [`Postgres`] is made from.
#[derive(Clone)]
#[must_use = "nothing is connected yet"]
pub struct PostgresBuilder {
    config: PostgresConfig,
    name: String,
    timeout: Duration,
}

struct Shared {
    config: Config,
    tls: Tls,
    schema: String,
    name: String,
    timeout: Duration,
    current: Mutex<Option<Arc<Connection>>>,
    /// The record that came last, by its name.
    known: Mutex<Option<Known>>,
    hints: Arc<Mutex<Vec<Hint>>>,
}

struct Connection {
    client: Client,
    /// Moves its bytes, and hears what is notified.
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS xmpp_cluster (
        name text PRIMARY KEY,
        born text NOT NULL,
        view text NOT NULL DEFAULT '',
        named text NOT NULL DEFAULT '',
        record bytea NOT NULL DEFAULT '');
    CREATE TABLE IF NOT EXISTS xmpp_cluster_lease (
        name text NOT NULL REFERENCES xmpp_cluster ON DELETE CASCADE,
        incarnation text NOT NULL,
        until timestamptz NOT NULL,
        lease bytea NOT NULL,
        PRIMARY KEY (name, incarnation))";

/// What changes where the database may have forgotten: another cluster of databases, another history of it (a standby
/// took over, or a backup was restored), another table, or another row.
const INSTANCE: &str = "
    (SELECT to_hex(system_identifier) FROM pg_control_system())
    || '-' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)
    || '-' || to_hex('xmpp_cluster'::regclass::oid::int8)
    || '-' || to_hex(pg_relation_filenode('xmpp_cluster')::int8)
    || '-' || born";

impl PostgresBuilder {
    /// Nodes of the same name are one cluster. "xmpp" unless set.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// How long an answer, or a connection, is waited for. A second unless set.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Connects, makes the tables where there are none, and tries whether the database does what is wanted.
    ///
    /// # Errors
    ///
    /// What is wrong with it. Afterwards it may come and go.
    pub async fn connect(self) -> Result<Postgres, PostgresError> {
        let handle = Handle::try_current().map_err(|_| PostgresError::NoRuntime)?;
        let (mut config, tls, schema) = self.config.for_engine()?;
        config.connect_timeout(self.timeout);
        let shared = Shared {
            config,
            tls,
            schema,
            name: self.name,
            timeout: self.timeout,
            current: Mutex::default(),
            known: Mutex::default(),
            hints: Arc::default(),
        };
        shared.prepare().await?;
        shared.ask(None).await?;
        Ok(Postgres { shared: Arc::new(shared), handle })
    }
}

impl Postgres {
    /// In this database, which may have the stores as well: its tables are in the same schema. Of the configuration,
    /// what is about pools and their time limits is not used.
    pub fn builder(config: PostgresConfig) -> PostgresBuilder {
        PostgresBuilder { config, name: "xmpp".into(), timeout: Duration::from_secs(1) }
    }

    fn change(&self, change: String) -> EngineFuture<Answer> {
        let shared = Arc::clone(&self.shared);
        self.call(async move { shared.ask(Some(change)).await })
    }

    fn call(
        &self,
        asked: impl Future<Output = Result<Answer, PostgresError>> + Send + 'static,
    ) -> EngineFuture<Answer> {
        let task = self.handle.spawn(asked);
        Box::pin(async move {
            let answer = task.await.map_err(EngineError::new)?;
            answer.map_err(EngineError::new)
        })
    }
}

impl Shared {
    async fn connection(&self) -> Result<Arc<Connection>, PostgresError> {
        if let Some(current) = self.current.lock().clone() {
            return Ok(current);
        }
        let connecting = timeout(self.timeout, self.connect()).await;
        let connection = Arc::new(connecting.map_err(|_| PostgresError::TimedOut)??);
        // Two that find none connect both; one of them is used on.
        let current = Arc::clone(self.current.lock().get_or_insert(connection));
        // What was notified before is lost.
        self.hints.lock().clone().iter().for_each(|hint| hint());
        Ok(current)
    }

    async fn connect(&self) -> Result<Connection, PostgresError> {
        let (client, mut connection) = self.config.connect(self.tls.clone()).await?;
        let hints = Arc::clone(&self.hints);
        let driver = tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
                if let AsyncMessage::Notification(_) = message {
                    let hints = hints.lock().clone();
                    hints.iter().for_each(|hint| hint());
                }
            }
        });
        let connection = Connection { client, driver };
        // An answer is kept, whatever becomes of the database: only so its name need not change with each restart.
        let begin = format!(
            "SET search_path = {2}, pg_temp; SET statement_timeout = {0}; SET lock_timeout = {0}; \
             LISTEN {1}; SELECT set_config('synchronous_commit', 'on', false) \
             WHERE current_setting('synchronous_commit') = 'off'; SHOW server_version_num",
            self.timeout.as_millis().max(1),
            self.channel(),
            self.schema,
        );
        let rows = connection.client.simple_query(&begin).await?;
        let version =
            rows.iter().filter_map(row).filter_map(|row| column(row, "server_version_num"));
        let found = version.last().unwrap_or_default();
        if found.parse::<u32>().is_ok_and(|found| found >= 13_00_00) {
            Ok(connection)
        } else {
            Err(ConnectError::TooOld { found: found.into() }.into())
        }
    }

    /// The tables, which may be there.
    async fn prepare(&self) -> Result<(), PostgresError> {
        let there = "SELECT 'there' AS is WHERE to_regclass('xmpp_cluster_lease') IS NOT NULL";
        if !self.query(there).await?.iter().any(|message| row(message).is_some()) {
            // One at a time: two that make the same table at once fail.
            let begin = "SELECT pg_advisory_xact_lock(2020438128); CREATE SCHEMA IF NOT EXISTS";
            self.query(&format!("{begin} {}; {SCHEMA}", self.schema)).await?;
        }
        Ok(())
    }

    /// Statements that are sent at once are one transaction.
    async fn query(&self, text: &str) -> Result<Vec<SimpleQueryMessage>, PostgresError> {
        let connection = self.connection().await?;
        let asked = timeout(self.timeout, connection.client.simple_query(text)).await;
        let answer = asked.map_err(|_| PostgresError::TimedOut).and_then(|rows| Ok(rows?));
        if answer.is_err() {
            // Whatever it was, a new connection is not worse.
            let mut current = self.current.lock();
            if current.as_ref().is_some_and(|one| Arc::ptr_eq(one, &connection)) {
                *current = None;
            }
        }
        answer
    }

    /// What there is, in one snapshot, locking and writing nothing: each change is read by all nodes. `None` where something is
    /// to be written first: a row, or that a lease is over.
    async fn look(&self) -> Result<Option<Answer>, PostgresError> {
        let known = self.known.lock().clone();
        let state = self.state(known.as_ref());
        let rows = self.query(&state).await?;
        let is = |what| rows.iter().filter_map(row).any(|row| column(row, "what") == Some(what));
        if is("state") && !is("over") { self.answer(&rows, known).map(Some) } else { Ok(None) }
    }

    /// Does what it is asked, and answers with all there is at that moment, by the clock of the database. The row is locked
    /// first, and each statement sees what was there when it began: so one after the other.
    async fn ask(&self, change: Option<String>) -> Result<Answer, PostgresError> {
        let known = self.known.lock().clone();
        let (name, born) = (text(&self.name), text(&format!("{:016x}", random())));
        let change = change.unwrap_or_default();
        let statements = format!(
            "INSERT INTO xmpp_cluster (name, born) VALUES ({name}, {born}) ON CONFLICT DO NOTHING;
             SELECT 'lock' AS what FROM xmpp_cluster WHERE name = {name} FOR UPDATE;
             DELETE FROM xmpp_cluster_lease WHERE name = {name} AND until <= clock_timestamp();
             {change};
             {}",
            self.state(known.as_ref())
        );
        let rows = self.query(&statements).await?;
        self.answer(&rows, known)
    }

    /// A statement that says what there is.
    fn state(&self, known: Option<&Known>) -> String {
        let (name, has) = (text(&self.name), text(known.map_or("", |(name, _)| name)));
        format!(
            "SELECT 'state' AS what, {INSTANCE} AS instance, named,
                 CASE WHEN named = {has} THEN '' ELSE encode(record, 'hex') END AS bytes
                 FROM xmpp_cluster WHERE name = {name}
             UNION ALL
             (SELECT CASE WHEN until <= clock_timestamp() THEN 'over' ELSE 'lease' END,
                 NULL, NULL, encode(lease, 'hex')
                 FROM xmpp_cluster_lease WHERE name = {name} ORDER BY incarnation)"
        )
    }

    fn answer(
        &self,
        rows: &[SimpleQueryMessage],
        known: Option<Known>,
    ) -> Result<Answer, PostgresError> {
        let (mut done, mut living, mut state) = (true, Vec::new(), None);
        for row in rows.iter().filter_map(row) {
            match column(row, "what") {
                Some("done") => done = column(row, "count") == Some("1"),
                // Over by now, but not when it was asked.
                Some("lease" | "over") => {
                    living.push(bytes(row).and_then(|bytes| Lease::decode(&bytes)));
                }
                Some("state") => state = Some(row),
                _ => {}
            }
        }
        let state = state.ok_or(PostgresError::Foreign)?;
        let instance = column(state, "instance").ok_or(PostgresError::Foreign)?;
        let named = column(state, "named").unwrap_or_default();
        let record = match known.filter(|(name, _)| **name == *named) {
            _ if named.is_empty() => None,
            Some((_, record)) => Some(record),
            None => {
                let record = bytes(state).and_then(|bytes| Record::decode(&bytes));
                let record = Arc::new(record.ok_or(PostgresError::Foreign)?);
                *self.known.lock() = Some((named.into(), Arc::clone(&record)));
                Some(record)
            }
        };
        let living = living.into_iter().collect::<Option<_>>().ok_or(PostgresError::Foreign)?;
        Ok(Answer { done, instance: instance.into(), living, record })
    }

    fn channel(&self) -> String {
        let digits = self.name.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
        format!("xmpp_cluster_{}", digits.get(..40).unwrap_or(&digits))
    }
}

impl Engine for Postgres {
    fn renew(&self, lease: Lease, first: bool) -> EngineFuture<Answer> {
        let (name, node) = (text(&self.shared.name), node(lease.incarnation));
        let (bytes, ttl) = (hex(&lease.encode()), lease.ttl.as_micros());
        let until = format!("clock_timestamp() + interval '{ttl} microseconds'");
        let change = if first {
            format!(
                "INSERT INTO xmpp_cluster_lease VALUES ({name}, {node}, {until}, {bytes})
                 ON CONFLICT (name, incarnation)
                 DO UPDATE SET until = excluded.until, lease = excluded.lease"
            )
        } else {
            format!(
                "UPDATE xmpp_cluster_lease SET until = {until}, lease = {bytes}
                 WHERE name = {name} AND incarnation = {node}"
            )
        };
        self.change(counted(&change))
    }

    fn release(&self, of: Incarnation) -> EngineFuture<()> {
        let (name, node) = (text(&self.shared.name), node(of));
        let answer = self.change(format!(
            "DELETE FROM xmpp_cluster_lease WHERE name = {name} AND incarnation = {node}"
        ));
        Box::pin(async move { answer.await.map(drop) })
    }

    fn replace(&self, over: Option<View>, record: Arc<Record>) -> EngineFuture<Answer> {
        let view = |view: View| format!("{}.{}", view.term, view.number);
        let name = text(&self.shared.name);
        let (over, new) = (text(&over.map(view).unwrap_or_default()), view(record.view));
        let (instance, named) = (text(&record.instance), format!("{}/{new}", record.instance));
        let (new, named, bytes) = (text(&new), text(&named), hex(&record.encode()));
        let channel = text(&self.shared.channel());
        self.change(format!(
            "WITH done AS (
                 UPDATE xmpp_cluster SET view = {new}, named = {named}, record = {bytes}
                 WHERE name = {name} AND view = {over} AND {INSTANCE} = {instance} RETURNING 1)
             SELECT 'done' AS what, count(*), count(pg_notify({channel}, '')) FROM done"
        ))
    }

    fn read(&self) -> EngineFuture<Answer> {
        let shared = Arc::clone(&self.shared);
        self.call(async move {
            match shared.look().await? {
                Some(answer) => Ok(answer),
                None => shared.ask(None).await,
            }
        })
    }

    fn watch(&self, hint: Hint) {
        self.shared.hints.lock().push(hint);
    }
}

impl fmt::Debug for PostgresBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresBuilder").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").field("name", &self.shared.name).finish_non_exhaustive()
    }
}

fn counted(change: &str) -> String {
    format!("WITH done AS ({change} RETURNING 1) SELECT 'done' AS what, count(*) FROM done")
}

const fn row(message: &SimpleQueryMessage) -> Option<&SimpleQueryRow> {
    match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    }
}

fn column<'a>(row: &'a SimpleQueryRow, name: &str) -> Option<&'a str> {
    row.try_get(name).ok().flatten()
}

/// Bytes as SQL: digits, of which nothing can break out.
fn hex(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("'\\x{digits}'::bytea")
}

fn text(text: &str) -> String {
    format!("convert_from({}, 'UTF8')", hex(text.as_bytes()))
}

fn node(node: Incarnation) -> String {
    format!("'{:016x}'", node.0)
}

fn bytes(row: &SimpleQueryRow) -> Option<Vec<u8>> {
    let digits = column(row, "bytes")?.as_bytes().chunks_exact(2);
    digits.map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// A number that nobody else has. Nothing secret is made from it.
fn random() -> u64 {
    RandomState::new().hash_one(())
}
