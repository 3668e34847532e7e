//! One instance: the connection for calls, and the one on which it tells what was published.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use redis::aio::{MultiplexedConnection, SendError};
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, IntoConnectionInfo, Pipeline,
    ProtocolVersion, PushInfo, PushKind, TlsCertificates,
};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::error::{LEAST, RedisError};
use super::posts::Heard;
use super::quiet::Quiet;

/// An instance. It is connected to when it is asked, and anew when that failed.
pub(super) struct Link {
    client: Client,
    pub(super) timeout: Duration,
    current: Mutex<Option<Connection>>,
    /// Whether it can be published to, as far as is known.
    up: AtomicBool,
    /// How often it was found that it cannot.
    outages: AtomicUsize,
}

/// The way to an instance for what is published.
pub(super) struct Line {
    kind: LineKind,
    /// It is given up with the next outage.
    outages: usize,
}

enum LineKind {
    Quiet(Quiet),
    /// By TLS, or to a socket that is not of TCP: whatever `redis` has connected is read from as well.
    Answered(Connection, Pipeline),
}

#[derive(Clone)]
pub(super) struct Connection {
    pub(super) inner: MultiplexedConnection,
    identity: Arc<()>,
}

impl Link {
    pub(super) fn new(
        url: &str,
        timeout: Duration,
        roots: Option<Vec<u8>>,
    ) -> Result<Self, RedisError> {
        let wrong = |error| RedisError::Url(Arc::new(error));
        let info = url.into_connection_info().map_err(wrong)?;
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        // What is written is whole, and waits for nothing.
        let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let info = info.set_redis_settings(settings);
        let client = match roots {
            Some(root) => {
                let tls = TlsCertificates { client_tls: None, root_cert: Some(root) };
                Client::build_with_tls(info, tls).map_err(wrong)?
            }
            None => Client::open(info).map_err(wrong)?,
        };
        Ok(Self {
            client,
            timeout,
            current: Mutex::default(),
            up: AtomicBool::new(false),
            outages: AtomicUsize::new(0),
        })
    }

    pub(super) fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    pub(super) fn set_up(&self, up: bool) {
        self.up.store(up, Ordering::Relaxed);
        if !up {
            self.outages.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A connection for what is published. The first of that, `trial`, is answered: what is wrong with it is said.
    pub(super) async fn line(&self, trial: Cmd) -> Result<Line, RedisError> {
        let outages = self.outages.load(Ordering::Relaxed);
        let info = self.client.get_connection_info();
        let kind = match info.addr() {
            ConnectionAddr::Tcp(host, port) => {
                let connect = Quiet::connect((host, *port), info.redis_settings(), &trial);
                let connected = timeout(self.timeout, connect).await;
                LineKind::Quiet(connected.map_err(|_| RedisError::TimedOut)??)
            }
            _ => {
                let mut connection = self.connection().await?;
                let tried = trial.exec_async(&mut connection.inner).await;
                self.settled(&connection, tried)?;
                LineKind::Answered(connection, redis::pipe())
            }
        };
        Ok(Line { kind, outages })
    }

    fn config(&self) -> AsyncConnectionConfig {
        AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(Some(self.timeout))
    }

    /// The connection for calls.
    pub(super) async fn connection(&self) -> Result<Connection, RedisError> {
        if let Some(current) = self.current.lock().clone() {
            return Ok(current);
        }
        // Two that find none connect both; one of them is used on.
        let inner =
            self.client.get_multiplexed_async_connection_with_config(&self.config()).await?;
        let connection = Connection { inner, identity: Arc::default() };
        Ok(self.current.lock().get_or_insert(connection).clone())
    }

    /// What came of a call on this connection, which is given up where it is of no more use.
    pub(super) fn settled<T>(
        &self,
        connection: &Connection,
        result: redis::RedisResult<T>,
    ) -> Result<T, RedisError> {
        result.map_err(RedisError::from).inspect_err(|error| {
            let mut current = self.current.lock();
            let is_same = current
                .as_ref()
                .is_some_and(|one| Arc::ptr_eq(&one.identity, &connection.identity));
            if is_same && error.ends_connection() {
                *current = None;
            }
        })
    }

    /// Whether it is of a version that is understood.
    pub(super) async fn check(&self) -> Result<(), RedisError> {
        let mut connection = self.connection().await?;
        let asked = redis::cmd("INFO").arg("server").query_async(&mut connection.inner).await;
        let info: String = self.settled(&connection, asked)?;
        check_version(&info)
    }

    /// A connection on which it tells what is published, to everybody who listens here; `lost` is told of its end.
    async fn listen(
        &self,
        heard: &Arc<Heard>,
        lost: &Arc<Notify>,
    ) -> Result<MultiplexedConnection, RedisError> {
        let (heard, lost) = (Arc::clone(heard), Arc::clone(lost));
        let tell = move |push: PushInfo| -> Result<(), SendError> {
            match push.kind {
                PushKind::Message => heard.take(&push.data),
                PushKind::Disconnection => lost.notify_one(),
                _ => {}
            }
            Ok(())
        };
        let config = self.config().set_push_sender(tell);
        Ok(self.client.get_multiplexed_async_connection_with_config(&config).await?)
    }
}

impl Line {
    /// To be published with the next ones.
    pub(super) fn put(&mut self, command: Cmd) {
        match &mut self.kind {
            LineKind::Quiet(quiet) => quiet.put(&command),
            LineKind::Answered(_, pipeline) => _ = pipeline.add_command(command).ignore(),
        }
    }

    /// Publishes what was put, in order. It is of no use any more where that fails.
    pub(super) async fn flush(&mut self, link: &Link) -> Result<(), RedisError> {
        match &mut self.kind {
            LineKind::Quiet(quiet) => quiet.flush(link.timeout).await,
            LineKind::Answered(connection, pipeline) => {
                let published = pipeline.exec_async(&mut connection.inner).await;
                pipeline.clear();
                link.settled(connection, published)
            }
        }
    }

    /// Ready where it is of no use any more; the waker is woken then, unless that is for an outage.
    pub(super) fn poll_ended(&self, link: &Link, cx: &mut Context<'_>) -> Poll<()> {
        match &self.kind {
            _ if self.outages != link.outages.load(Ordering::Relaxed) => Poll::Ready(()),
            LineKind::Quiet(quiet) => quiet.poll_ended(cx),
            LineKind::Answered(..) => Poll::Pending,
        }
    }
}

/// By what an instance says of itself.
fn check_version(info: &str) -> Result<(), RedisError> {
    let found = info.lines().find_map(|line| line.strip_prefix("redis_version:"));
    let found = found.unwrap_or("unknown").trim();
    let number = |text: &str| -> Option<(u32, u32)> {
        let mut parts = text.split('.').map(str::parse);
        Some((parts.next()?.ok()?, parts.next()?.ok()?))
    };
    if number(found) >= number(LEAST) {
        Ok(())
    } else {
        Err(RedisError::Version { found: found.into(), least: LEAST })
    }
}

/// Hears what an instance tells, for as long as it is kept.
pub(super) struct Listener {
    wake: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Listener {
    /// It has heard the instance once when this returns.
    pub(super) async fn start(
        handle: &Handle,
        link: &Arc<Link>,
        heard: &Arc<Heard>,
    ) -> Result<Self, RedisError> {
        let (link, heard, wake) = (Arc::clone(link), Arc::clone(heard), Arc::<Notify>::default());
        let mut first = link.listen(&heard, &wake).await?;
        first.subscribe(heard.channels()).await?;
        link.set_up(true);
        let woken = Arc::clone(&wake);
        let task = handle.spawn(async move {
            let mut connection = Some(first);
            loop {
                let current = match connection.take() {
                    Some(current) => Ok(current),
                    None => link.listen(&heard, &woken).await,
                };
                if let Ok(current) = current {
                    let _why = hear(current, &link, &heard, &woken).await;
                }
                link.set_up(false);
                sleep(link.timeout / 4).await;
            }
        });
        Ok(Self { wake, task })
    }

    /// There is more to be heard.
    pub(super) fn again(&self) {
        self.wake.notify_one();
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Subscribes, and sees whether the instance is still there, until it is not.
async fn hear(
    mut connection: MultiplexedConnection,
    link: &Link,
    heard: &Heard,
    woken: &Notify,
) -> redis::RedisResult<()> {
    let mut subscribed = Vec::new();
    loop {
        let channels = heard.channels();
        if channels == subscribed {
            heard.trial().exec_async(&mut connection).await?;
        } else {
            connection.subscribe(&channels).await?;
            subscribed = channels;
            // What was published before is lost.
            heard.hint();
        }
        link.set_up(true);
        let _slept = timeout(link.timeout, woken.notified()).await;
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn node_1_an_instance_that_is_too_old_is_named() {
        let says =
            |version: &str| check_version(&format!("# Server\r\nredis_version:{version}\r\n"));
        for version in ["6.0.0", "6.2.14", "7.0.15", "7.2.4", "10.0.0"] {
            assert!(says(version).is_ok(), "{version}");
        }
        for version in ["5.0.14", "4.0", "5", "x.y"] {
            let error = says(version).unwrap_err();
            let text =
                format!("the instance is of version {version}, and has to be of 6.0 at least");
            assert_eq!(error.to_string(), text);
        }
        assert!(check_version("").is_err());
    }
}
