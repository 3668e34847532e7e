//! What a URL says, and what else there is to set.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio_postgres::Config;
use tokio_postgres::config::SslMode;

use super::connection::{ConnectError, Connector};
use super::lane::Pool;
use super::tls::{Tls, Verify};
use super::{Postgres, schema};

/// How to reach a PostgreSQL database, and how to use it.
///
/// ```no_run
/// use std::time::Duration;
/// use xmpp_session::store::PostgresConfig;
///
/// # async fn open() -> Result<(), Box<dyn std::error::Error>> {
/// let store = PostgresConfig::new("postgres://xmpp:secret@localhost/chat?application_name=xmpp-1")?
///     .connections(16)
///     .timeout(Duration::from_secs(5))
///     .connect()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "it connects to nothing before it is told to"]
pub struct PostgresConfig {
    config: Config,
    verify: Option<Verify>,
    root: Option<PathBuf>,
    tls: Option<Arc<ClientConfig>>,
    schema: String,
    connections: usize,
    timeout: Duration,
}

impl PostgresConfig {
    /// The database of a URL: `postgres://user:password@host:port/database?name=value&…`.
    ///
    /// A user name, password or path with special characters is percent-encoded; a host that begins with `%2F` is the directory
    /// of a Unix socket; several hosts, separated by commas, are tried in turn, with `target_session_attrs=read-write` until
    /// one takes writes.
    ///
    /// `sslmode` means what it does to PostgreSQL's own programs:
    ///
    /// | `sslmode` | TLS | certificate |
    /// |---|---|---|
    /// | `disable` | never | |
    /// | `prefer` (default) | where the server offers it | anybody's |
    /// | `require` | always | with `sslrootcert` as `verify-ca`, otherwise anybody's |
    /// | `verify-ca` | always | of a known authority |
    /// | `verify-full` | always | of a known authority, and for this host: what a network needs |
    ///
    /// The known authorities are those of the system, or those in the PEM file that `sslrootcert` names.
    ///
    /// # Errors
    ///
    /// [`ConnectError::Url`] where it is none.
    pub fn new(url: &str) -> Result<Self, ConnectError> {
        let is_url = ["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme));
        if !is_url {
            return Err(ConnectError::Url("it does not begin with postgres://".into()));
        }
        let (address, query) = url.split_once('?').unwrap_or((url, ""));
        let (mut mode, mut root) = (None, None);
        // What the driver does not know it refuses.
        let mut rest = Vec::new();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=') {
                Some(("sslmode", value)) => mode = Some(value),
                Some(("sslrootcert", value)) => root = Some(PathBuf::from(decoded(value)?)),
                _ => rest.push(parameter),
            }
        }
        let mut config: Config = format!("{address}?{}", rest.join("&"))
            .parse()
            .map_err(|error: tokio_postgres::Error| ConnectError::Url(error.into()))?;
        let (ssl, verify) = match mode.unwrap_or("prefer") {
            "disable" => (SslMode::Disable, None),
            "prefer" => (SslMode::Prefer, Some(Verify::Nothing)),
            "require" if root.is_some() => (SslMode::Require, Some(Verify::Authority)),
            "require" => (SslMode::Require, Some(Verify::Nothing)),
            "verify-ca" => (SslMode::Require, Some(Verify::Authority)),
            "verify-full" => (SslMode::Require, Some(Verify::Everything)),
            other => return Err(ConnectError::Url(format!("no sslmode: {other}").into())),
        };
        config.ssl_mode(ssl);
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(Duration::from_secs(5));
        }
        if !query.contains("keepalives") {
            config.keepalives_idle(Duration::from_secs(30));
        }
        if config.get_application_name().is_none() {
            config.application_name("xmpp-session");
        }
        Ok(Self {
            config,
            verify,
            root,
            tls: None,
            schema: "xmpp_session".to_owned(),
            connections: 8,
            timeout: Duration::from_secs(10),
        })
    }

    /// How many connections: a half for reads, the other one for writes, each at least one (default 8).
    pub const fn connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// The schema that the tables are in (default `xmpp_session`), which is made where there is none. It belongs to this
    /// store: servers of different kinds in one database take different ones.
    pub fn schema(self, schema: impl Into<String>) -> Self {
        Self { schema: schema.into(), ..self }
    }

    /// After how long a call that is not done fails, be the server slow, gone, or busy with others (default 10 s). It ends
    /// statements on the server, too; and after half of it the server ends a transaction in which it hears nothing more,
    /// such as that of a process which was stopped.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// TLS as the host wants it, with its own certificate for instance. It decides what is verified; `sslmode` says only
    /// whether there is TLS.
    pub fn tls(self, config: Arc<ClientConfig>) -> Self {
        Self { tls: Some(config), ..self }
    }

    /// What an engine in the same database is made from: how to connect, and the schema.
    #[cfg(feature = "cluster")]
    pub(crate) fn for_engine(self) -> Result<(Config, Tls, String), ConnectError> {
        let tls = Tls::new(self.tls, self.verify, self.root.as_deref())?;
        Ok((self.config, tls, schema::quoted(&self.schema)))
    }

    /// Connects, and makes or migrates the tables.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] says what is wrong with the server or the database.
    ///
    /// # Panics
    ///
    /// Without a tokio runtime that has its network and its clock enabled.
    pub async fn connect(mut self) -> Result<Postgres, ConnectError> {
        let tls = Tls::new(self.tls, self.verify, self.root.as_deref())?;
        if tls.is_none() {
            self.config.ssl_mode(SslMode::Disable);
        }
        let (timeout, name) = (self.timeout, self.schema);
        let connector = Connector::new(self.config, tls, &name, timeout);
        // A server that is stopped takes connections, and says nothing.
        let opened = tokio::time::timeout(timeout, connector.open()).await;
        let silent = |_| ConnectError::Unreachable("it does not answer in time".into());
        let first = opened.map_err(silent)??;
        schema::migrate(&first.client, &name).await?;
        connector.check(&first).await?;
        #[cfg(feature = "cluster")]
        let identity = schema::identity(&first.client).await?;
        let store = Postgres::new(Pool::new(connector, first, self.connections, timeout));
        #[cfg(feature = "cluster")]
        let store = Postgres { identity, ..store };
        Ok(store)
    }
}

impl fmt::Debug for PostgresConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresConfig")
            .field("schema", &self.schema)
            .field("connections", &self.connections)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// Percent-encoding, undone.
fn decoded(value: &str) -> Result<String, ConnectError> {
    let wrong = || ConnectError::Url("a value with a wrong percent sign".into());
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend(before.bytes());
        let (digits, behind) = after.split_at_checked(2).ok_or_else(wrong)?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| wrong())?);
        rest = behind;
    }
    bytes.extend(rest.bytes());
    String::from_utf8(bytes).map_err(|_| wrong())
}
