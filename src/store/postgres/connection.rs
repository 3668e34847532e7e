//! Connections, and what there has to be at their other end.

use std::collections::HashMap;
use std::error::Error;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, Row, Statement};

use super::schema;
use super::tls::Tls;

/// Why a database cannot be a store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL cannot be read.
    #[error("the URL of the database is wrong")]
    Url(#[source] Box<dyn Error + Send + Sync>),
    /// There is no server, or it takes no connections at the moment: one that is starting, or has too many.
    #[error("the database server cannot be reached")]
    Unreachable(#[source] Box<dyn Error + Send + Sync>),
    /// TLS as `sslmode` asks for it cannot be had.
    #[error("no TLS with the database server")]
    Tls(#[source] Box<dyn Error + Send + Sync>),
    /// The server does not let this user in: its password, or the server's `pg_hba.conf`.
    #[error("the database server refuses the user")]
    Refused(#[source] Box<dyn Error + Send + Sync>),
    /// The server has no such database.
    #[error("there is no such database")]
    NoDatabase(#[source] Box<dyn Error + Send + Sync>),
    /// The server is too old.
    #[error("the database server is too old: PostgreSQL {found}, needed is 13 or newer")]
    TooOld {
        /// The server's version.
        found: String,
    },
    /// The database does not keep texts as UTF-8.
    #[error("the database has the encoding {found}, needed is UTF8")]
    Encoding {
        /// The database's encoding.
        found: String,
    },
    /// The server takes no writes: a standby, or a database that is set so.
    #[error("the database cannot be written to")]
    ReadOnly,
    /// The role may not make the tables, or not use them.
    #[error("the user lacks rights in the database")]
    MissingRights(#[source] Box<dyn Error + Send + Sync>),
    /// The schema has tables of the same names that are not this crate's.
    #[error("the tables belong to another program")]
    Foreign(#[source] Box<dyn Error + Send + Sync>),
    /// The tables were made by a newer version of this crate.
    #[error("the tables have schema version {found}, known are those up to {known}")]
    Newer {
        /// The tables' schema version.
        found: i32,
        /// The newest schema version this version of the crate can read.
        known: i32,
    },
    /// Anything else.
    #[error("the database cannot be used")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
}

impl ConnectError {
    /// Whether it may go away while somebody waits.
    pub(super) const fn is_temporary(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::ReadOnly)
    }
}

impl From<tokio_postgres::Error> for ConnectError {
    fn from(error: tokio_postgres::Error) -> Self {
        let said = Said(describe(&error)).into();
        match error.code() {
            Some(&SqlState::INVALID_PASSWORD | &SqlState::INVALID_AUTHORIZATION_SPECIFICATION) => {
                Self::Refused(said)
            }
            Some(&SqlState::INVALID_CATALOG_NAME) => Self::NoDatabase(said),
            // The schema is there, and may not be used.
            Some(&SqlState::INSUFFICIENT_PRIVILEGE | &SqlState::INVALID_SCHEMA_NAME) => {
                Self::MissingRights(said)
            }
            Some(&SqlState::READ_ONLY_SQL_TRANSACTION) => Self::ReadOnly,
            Some(code) if is_gone(code) || *code == SqlState::TOO_MANY_CONNECTIONS => {
                Self::Unreachable(said)
            }
            Some(_) => Self::Failed(said),
            None => {
                // The driver tells kinds of failures by their texts only.
                let kind = error.to_string();
                let begins = |text| kind.starts_with(text);
                if begins("error performing TLS handshake") {
                    Self::Tls(said)
                } else if begins("authentication error") || begins("invalid configuration") {
                    Self::Refused(said)
                } else {
                    Self::Unreachable(said)
                }
            }
        }
    }
}

/// What the driver or the server said.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Said(String);

/// An error with its causes, without what it was about.
pub(super) fn describe(error: &tokio_postgres::Error) -> String {
    if let Some(db) = error.as_db_error() {
        return format!("{} ({})", db.message(), db.code().code());
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

/// Whether the server ends its connections: it stops, or an administrator wants that.
pub(super) fn is_gone(code: &SqlState) -> bool {
    let code = code.code();
    code.starts_with("57P0") || code.starts_with("08") || code == "25P03"
}

/// Makes connections.
pub(super) struct Connector {
    config: Config,
    tls: Tls,
    settings: String,
}

impl Connector {
    pub(super) fn new(config: Config, tls: Tls, schema: &str, timeout: Duration) -> Self {
        // A statement outside a transaction that says so writes nothing: were a BEGIN to fail, what is sent behind it
        // would not be undone.
        let settings = format!(
            "SET search_path = {};
             SET statement_timeout = {};
             SET idle_in_transaction_session_timeout = {};
             SET default_transaction_isolation = 'read committed';
             SET default_transaction_read_only = on;
             SET jit = off;
             SELECT set_config('synchronous_commit', 'on', false)
                 WHERE current_setting('synchronous_commit') = 'off'",
            schema::quoted(schema),
            timeout.as_millis().max(1),
            timeout.as_millis().max(2) / 2,
        );
        Self { config, tls, settings }
    }

    /// A connection to a server that is fit for it; its tables may not be.
    pub(super) async fn open(&self) -> Result<Connection, ConnectError> {
        let (client, connection) = self.config.connect(self.tls.clone()).await?;
        let task = tokio::spawn(async move {
            // What waits for it is told.
            let _ended = connection.await;
        });
        let connection = Connection { client, statements: HashMap::new(), task };
        let client = &connection.client;
        let server = "SELECT current_setting('server_version_num')::integer,
            current_setting('server_version'), current_setting('server_encoding'),
            current_setting('transaction_read_only')::boolean";
        let row = client.query_one(server, &[]).await?;
        if row.try_get::<_, i32>(0)? < 130_000 {
            return Err(ConnectError::TooOld { found: row.try_get(1)? });
        }
        let encoding: String = row.try_get(2)?;
        if encoding != "UTF8" {
            return Err(ConnectError::Encoding { found: encoding });
        }
        if row.try_get(3)? {
            return Err(ConnectError::ReadOnly);
        }
        client.batch_execute(&self.settings).await?;
        Ok(connection)
    }

    /// Whether its tables are there, of this version, and may be used.
    pub(super) async fn check(&self, connection: &Connection) -> Result<(), ConnectError> {
        let client = &connection.client;
        match schema::version(client).await? {
            Some(version) if version > schema::known() => {
                return Err(ConnectError::Newer { found: version, known: schema::known() });
            }
            Some(version) if version == schema::known() => {}
            _ => return Err(ConnectError::Failed("the tables of the store are gone".into())),
        }
        let missing = "SELECT relname::text FROM pg_class
            WHERE relnamespace = quote_ident(current_schema())::regnamespace AND relkind = 'r' AND NOT (
                has_table_privilege(oid, 'SELECT') AND has_table_privilege(oid, 'INSERT')
                AND has_table_privilege(oid, 'UPDATE') AND has_table_privilege(oid, 'DELETE'))
            LIMIT 1";
        if let Some(row) = client.query_opt(missing, &[]).await? {
            let table: String = row.try_get(0)?;
            let text = format!("it needs SELECT, INSERT, UPDATE and DELETE on {table}");
            return Err(ConnectError::MissingRights(text.into()));
        }
        Ok(())
    }

    /// One that can be used.
    pub(super) async fn reopen(&self) -> Result<Connection, ConnectError> {
        let connection = self.open().await?;
        self.check(&connection).await?;
        Ok(connection)
    }
}

/// A connection, and what was prepared on it.
pub(super) struct Connection {
    pub(super) client: Client,
    statements: HashMap<&'static str, Statement>,
    task: JoinHandle<()>,
}

/// The rows of a statement, to come.
pub(super) type Reply<'a> =
    Pin<Box<dyn Future<Output = Result<Vec<Row>, tokio_postgres::Error>> + Send + 'a>>;

impl Connection {
    /// Prepares what is not prepared yet. Outside transactions: it takes a way there and back.
    pub(super) async fn prepare(
        &mut self,
        statements: impl Iterator<Item = &'static str>,
    ) -> Result<(), tokio_postgres::Error> {
        for sql in statements {
            if !self.statements.contains_key(sql) {
                let statement = self.client.prepare(sql).await?;
                self.statements.insert(sql, statement);
            }
        }
        Ok(())
    }

    /// A statement that was prepared.
    pub(super) fn query<'a>(
        &'a self,
        sql: &'static str,
        values: impl Iterator<Item = &'a (dyn ToSql + Sync)>,
    ) -> Reply<'a> {
        let values: Vec<_> = values.collect();
        let statement = self.statements.get(sql);
        Box::pin(async move {
            match statement {
                Some(statement) => self.client.query(statement, &values).await,
                // Not reached: all are prepared before.
                None => self.client.query(sql, &values).await,
            }
        })
    }

    /// A command without values and rows.
    pub(super) fn command<'a>(&'a self, sql: &'a str) -> Reply<'a> {
        Box::pin(async move {
            self.client.batch_execute(sql).await?;
            Ok(Vec::new())
        })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // A server that does not answer is not waited for.
        self.task.abort();
    }
}

/// Sends all at once, in this order, and waits for all answers.
pub(super) async fn all(
    mut replies: Vec<Reply<'_>>,
) -> Vec<Result<Vec<Row>, tokio_postgres::Error>> {
    // The first poll of each sends it.
    let mut early: Vec<_> = poll_fn(|cx| {
        let polled = replies.iter_mut().map(|reply| match reply.as_mut().poll(cx) {
            Poll::Ready(result) => Some(result),
            Poll::Pending => None,
        });
        Poll::Ready(polled.collect())
    })
    .await;
    let mut results = Vec::with_capacity(replies.len());
    for (reply, early) in replies.into_iter().zip(early.drain(..)) {
        results.push(match early {
            Some(result) => result,
            None => reply.await,
        });
    }
    results
}
