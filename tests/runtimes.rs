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
use xmpp_session::outbox::{Marks, Outbox};
use xmpp_session::sasl::ChannelBindings;
use xmpp_session::server::{Server, Shutdown, Transport, Want};
use xmpp_session::session::{BindRequest, Bound, Reason, Session, SessionRegistry};
use xmpp_session::stanza::{Frame, Stanza};
use xmpp_session::store::{AnyAccount, Stores};

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
