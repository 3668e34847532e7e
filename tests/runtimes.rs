//! What a runtime asks of a future, `Send` above all, for each kind of connection that a host may have:
//! everything of the crate that can be awaited, or held while something else is.
#![cfg(all(feature = "system", feature = "tokio"))]
#![expect(clippy::unwrap_used, reason = "a test may fail by a panic")]

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinHandle, yield_now};
use xmpp_session::connection::{Close, Connection, Recorder, SendError};
use xmpp_session::environment::System;
use xmpp_session::host::{self, Host};
use xmpp_session::jid::BareJid;
use xmpp_session::outbox::{FromOutbox, Marks, Outbox};
use xmpp_session::sasl::ChannelBindings;
use xmpp_session::server::{ComponentHandle, Server, Shutdown, Transport, Want};
use xmpp_session::session::{BindRequest, Bound, Reason, Session, SessionRegistry};
use xmpp_session::stanza::{Frame, Stanza, StanzaError};
use xmpp_session::store::{AnyAccount, Stores};
use xmpp_session::stream::StreamCondition;

/// A connection of a host's own.
#[derive(Clone)]
struct Mine(Recorder);

impl Connection for Mine {
    fn send(&self, frame: Frame<'_>) -> Result<(), SendError> {
        self.0.send(frame)
    }

    fn close(&self, how: Close) {
        self.0.close(how);
    }
}

/// One that more is known of.
trait Named: Connection {}

impl Named for Recorder {}

/// One that wraps whatever there is.
#[derive(Clone)]
struct Any(Arc<dyn Connection>);

impl Connection for Any {
    fn send(&self, frame: Frame<'_>) -> Result<(), SendError> {
        self.0.send(frame)
    }

    fn close(&self, how: Close) {
        self.0.close(how);
    }
}

/// A handler as web frameworks take them (axum's `Handler`, and `on_upgrade` for WebSockets).
trait Handler<T>: Clone + Send + Sync + 'static {
    fn call(self, argument: T) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

impl<F, Fut, T> Handler<T> for F
where
    F: FnOnce(T) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send,
    T: Send + 'static,
{
    fn call(self, argument: T) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move { self(argument).await })
    }
}

fn handle<T>(handler: impl Handler<T>, argument: T) -> JoinHandle<()> {
    tokio::spawn(handler.call(argument))
}

fn sendable<F: Future + Send>(future: F) -> impl Future<Output = F::Output> + Send {
    future
}

fn environment() -> Arc<System> {
    Arc::new(System::new())
}

fn stores() -> Stores {
    let mut stores = Stores::memory();
    stores.accounts = Arc::new(AnyAccount::new("pw").unwrap());
    stores
}

macro_rules! each {
    ($($name:ident: $connection:ty = $make:expr;)*) => {$(
        mod $name {
            use super::*;

            type C = $connection;

            fn connection() -> C {
                $make
            }

            fn server() -> Server<C> {
                let server = Server::builder(environment(), stores());
                server.domain("localhost".parse().unwrap()).build()
            }

            async fn own_input(mut session: Session<Bound, C>) {
                session.ready().await.unwrap();
                let ticket = session.begin_input().await.unwrap();
                let (handle, roster) = (session.handle(), session.roster());
                yield_now().await;
                drop((ticket, roster));
                assert!(handle.id() == session.id() && session.end(Reason::Closed));
            }

            async fn log_in(registry: SessionRegistry<C>) -> Session<Bound, C> {
                let mut session = Session::new(connection());
                yield_now().await;
                session.open("localhost".parse().unwrap());
                yield_now().await;
                let session = session.authenticate(BareJid::new("me@localhost").unwrap());
                yield_now().await;
                let refused = session.unwrap().resume(&registry, "none", 0, &mut |_| Vec::new());
                yield_now().await;
                let session = refused.unwrap_err().into_session();
                yield_now().await;
                session.bind(&registry, BindRequest::new()).unwrap()
            }

            #[tokio::test]
            async fn sessions() {
                let registry = SessionRegistry::builder(environment()).build();
                let mut session = tokio::spawn(log_in(registry.clone())).await.unwrap();
                let jid = session.jid().clone();
                let seen = registry.clone();
                let walk = async move {
                    for session in seen.iter() {
                        yield_now().await;
                        assert!(session.jid() == &jid);
                    }
                    for session in seen.sessions(&jid.to_bare()) {
                        yield_now().await;
                        assert!(!session.is_available());
                    }
                    let available = seen.available(&jid.to_bare());
                    yield_now().await;
                    assert!(available.is_empty());
                };
                tokio::spawn(walk).await.unwrap();
                sendable(session.ready()).await.unwrap();
                drop(sendable(session.begin_input()).await.unwrap());
                tokio::spawn(async move { own_input(session).await }).await.unwrap();
                let session = log_in(registry.clone()).await;
                handle(own_input, session).await.unwrap();
                let session = log_in(registry.clone()).await;
                handle(|session| async move { own_input(session).await }, session).await.unwrap();
            }

            #[tokio::test]
            async fn servers() {
                let server = server();
                let mut driver = server.accept(connection(), Transport::new().direct_tls(true));
                let drive = async move {
                    assert!(driver.want().await == Want::StartTls);
                    driver.secured(ChannelBindings::new());
                    assert!(driver.want().await == Want::Input);
                    driver.receive(b"</a>");
                    assert!(driver.want().await == Want::Input);
                };
                tokio::spawn(drive).await.unwrap();
                let mut driver = server.accept(connection(), Transport::new());
                assert!(sendable(driver.want()).await == Want::Input);
                let drive = |mut driver: xmpp_session::server::Driver<C>| async move {
                    let _want = driver.want().await;
                    yield_now().await;
                };
                handle(drive, driver).await.unwrap();
                let gone = BareJid::new("gone@localhost").unwrap();
                let iq = Stanza::iq("get").from("localhost").to("gone@localhost").id("1").build();
                let work = {
                    let server = server.clone();
                    async move {
                        let _none = server.account_removed(&gone).await;
                        assert!(server.request(iq).await.is_ok());
                        server.shutdown(Shutdown::new()).await;
                    }
                };
                let background = {
                    let server = server.clone();
                    tokio::spawn(async move { host::tokio::background(server).await })
                };
                tokio::spawn(work).await.unwrap();
                background.abort();
            }

            fn host() -> Arc<Host<C>> {
                Arc::new(Host::with(server(), |_| connection()))
            }

            #[tokio::test]
            async fn hosts() {
                // Each loses its transport at once.
                let served = |host: Arc<Host<C>>| async move {
                    let (stream, _) = tokio::io::duplex(1);
                    let end = host::tokio::serve(host, stream, Transport::new());
                    yield_now().await;
                    end.await.unwrap();
                };
                handle(served, host()).await.unwrap();
                let (stream, _) = tokio::io::duplex(1);
                let direct = host::tokio::serve_direct_tls(host(), stream, Transport::new());
                assert!(tokio::spawn(direct).await.unwrap().is_ok());
                let listened = |host: Arc<Host<C>>| async move {
                    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                    host::tokio::listen(Arc::clone(&host), socket, yield_now()).await;
                    sendable(host::tokio::shutdown(&host, Duration::ZERO)).await;
                };
                handle(listened, host()).await.unwrap();
            }
        }
    )*};
}

each! {
    of_outboxes: Arc<Outbox> = Outbox::new(Marks::default()).0;
    of_any_kind: Arc<dyn Connection> = Arc::new(Recorder::new());
    of_any_that_is_named: Arc<dyn Named> = Arc::new(Recorder::new());
    of_mine: Mine = Mine(Recorder::new());
    of_a_wrapper: Any = Any(Arc::new(Recorder::new()));
    of_shared_ones: Arc<Mine> = Arc::new(Mine(Recorder::new()));
}

impl FromOutbox for Any {
    fn from_outbox(outbox: Arc<Outbox>) -> Self {
        Self(outbox)
    }
}

/// For kinds of connections that an outbox can stand for: components and bots beside them, held over awaits
/// on tasks of their own.
macro_rules! with_bots {
    ($($name:ident: $connection:ty;)*) => {$(
        mod $name {
            use super::*;

            type C = $connection;

            async fn echo(own: ComponentHandle<C>, stanza: Stanza) -> Result<(), StanzaError> {
                yield_now().await;
                let (from, to) = (stanza.to(), stanza.from());
                assert!(own.send(stanza.readdressed(from.as_deref(), to.as_deref())).is_ok());
                Ok(())
            }

            async fn talk(server: Server<C>, jid: &'static str, to: &'static str) -> usize {
                let mut bot = server.bot(&jid.parse().unwrap()).await.unwrap();
                let sender = bot.sender();
                let sending = tokio::spawn(async move {
                    for _ in 0..100 {
                        sender.send(&Stanza::message().to(to).build()).await.unwrap();
                    }
                });
                let mut heard = 0;
                while heard < 100 && bot.recv().await.is_some() {
                    heard += 1;
                }
                sending.await.unwrap();
                heard
            }

            #[tokio::test]
            async fn bots_and_components() {
                let builder = Server::builder(environment(), stores());
                let server: Server<C> = builder
                    .domain("localhost".parse().unwrap())
                    .component("echo.localhost".parse().unwrap(), echo)
                    .component("more.localhost".parse().unwrap(), |own, stanza| async move {
                        echo(own, stanza).await
                    })
                    .build();
                let background = tokio::spawn(host::tokio::background(server.clone()));
                let one = tokio::spawn(talk(server.clone(), "me@localhost/a", "echo.localhost"));
                let two = tokio::spawn(talk(server.clone(), "me@localhost/b", "x@more.localhost/y"));
                assert_eq!((one.await.unwrap(), two.await.unwrap()), (100, 100));
                let acts = async move {
                    let account = server.account(&BareJid::new("me@localhost").unwrap());
                    account.befriend(&BareJid::new("you@localhost").unwrap()).await.unwrap();
                    assert_eq!(account.roster().await.unwrap().len(), 1);
                    let kicked = StreamCondition::PolicyViolation.into();
                    assert_eq!(account.kick(&kicked).await, 0);
                    let message = Stanza::message().build();
                    assert_eq!(server.announce(&message, 1, Duration::ZERO).await, 0);
                };
                tokio::spawn(acts).await.unwrap();
                background.abort();
            }
        }
    )*};
}

with_bots! {
    bots_of_outboxes: Arc<Outbox>;
    bots_of_any_kind: Arc<dyn Connection>;
    bots_of_a_wrapper: Any;
}
