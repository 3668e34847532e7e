//! A server whose clients are buffers.

use std::future::Future;
use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use xmpp_session::connection::{Close, Connection, PreDrain, SendError};
use xmpp_session::environment::{Environment, Virtual};
use xmpp_session::jid::{BareJid, DomainPart};
use xmpp_session::rules::roster::{Item, Subscription};
use xmpp_session::server::{Driver, Limits, Server, ServerBuilder, Transport};
use xmpp_session::stanza::Frame;
use xmpp_session::store::{Credentials, MemoryAccounts, RosterChange, Stores};

pub const DOMAIN: &str = "example.com";

/// The least that a connection can be.
#[derive(Default)]
pub struct Buffer(Mutex<Vec<u8>>, Mutex<Option<Arc<dyn PreDrain>>>);

impl Buffer {
    pub fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    /// Forgets what was sent and has room for as much as a test sends.
    pub fn reset(&self) {
        let mut bytes = self.0.lock().unwrap();
        bytes.clear();
        bytes.reserve(64 * 1024);
    }

    /// As a write loop does.
    pub fn write(&self) -> Vec<u8> {
        let hook = self.1.lock().unwrap().clone();
        if let Some(hook) = &hook {
            hook.pre_drain(&mut |frame| frame.write_to(&mut self.0.lock().unwrap()));
        }
        let written = self.take();
        hook.inspect(|hook| hook.drained());
        written
    }

    pub fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Connection for Buffer {
    fn send(&self, frame: Frame<'_>) -> Result<(), SendError> {
        frame.write_to(&mut self.0.lock().unwrap());
        Ok(())
    }

    fn close(&self, _how: Close) {
        self.1.lock().unwrap().take();
    }

    fn on_drain(&self, hook: Arc<dyn PreDrain>) {
        *self.1.lock().unwrap() = Some(hook);
    }
}

pub type Wire = Arc<Buffer>;

pub struct World {
    pub server: Server<Wire>,
    environment: Arc<Virtual>,
    accounts: Arc<MemoryAccounts>,
    stores: Stores,
}

/// A client that is bound.
pub struct Client {
    pub driver: Driver<Wire>,
    pub wire: Wire,
}

impl Client {
    /// What the server answered.
    pub fn ask(&mut self, xml: &str) -> String {
        self.driver.receive(xml.as_bytes());
        let polled = pin!(self.driver.want()).poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_ready());
        String::from_utf8(self.wire.take()).unwrap()
    }
}

impl World {
    pub fn new() -> Self {
        Self::with(|builder| builder)
    }

    /// One whose server is built with something more.
    pub fn with(more: impl FnOnce(ServerBuilder<Wire>) -> ServerBuilder<Wire>) -> Self {
        let environment = Arc::new(Virtual::new(1));
        let accounts = Arc::new(MemoryAccounts::new());
        let mut stores = Stores::memory();
        stores.accounts = Arc::clone(&accounts) as _;
        let server =
            Server::builder(Arc::clone(&environment) as Arc<dyn Environment>, stores.clone())
                .domain(DomainPart::new(DOMAIN).unwrap().into_owned())
                .limits(Limits::unlimited());
        let server = more(server).build();
        Self { server, environment, accounts, stores }
    }

    fn account(&self, node: &str) -> BareJid {
        let jid = BareJid::new(&format!("{node}@{DOMAIN}")).unwrap();
        let credentials =
            Credentials::from_password_with("secret", NonZeroU32::MIN, &*self.environment).unwrap();
        self.accounts.insert(jid.clone(), credentials);
        jid
    }

    /// Subscribes accounts without sessions to one another.
    pub fn friends(&self, one: &str, other: &str) {
        for (node, contact) in [(one, other), (other, one)] {
            let account = self.account(node);
            let mut item = Item::new(BareJid::new(&format!("{contact}@{DOMAIN}")).unwrap());
            item.subscription = Subscription::Both;
            let change = RosterChange::new().version(1).put(item);
            assert!(now(self.stores.rosters.apply(&account, change)).is_ok());
        }
    }

    /// A client that is bound and, with priority 0, available.
    pub fn online(&self, node: &str, resource: &str) -> Client {
        self.account(node);
        let wire = Wire::default();
        let driver = self.server.accept(Arc::clone(&wire), Transport::new().secure(true));
        let mut client = Client { driver, wire };
        let header = format!(
            "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' \
             to='{DOMAIN}' version='1.0'>"
        );
        let plain = STANDARD.encode(format!("\0{node}\0secret"));
        let auth = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>";
        client.ask(&header);
        let answer = client.ask(&format!("{auth}{plain}</auth>"));
        assert!(answer.contains("<success"), "{answer}");
        client.ask(&header);
        let bind = "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>";
        let answer = client.ask(&format!(
            "<iq type='set' id='b'>{bind}<resource>{resource}</resource></bind></iq>"
        ));
        assert!(answer.contains("<jid>"), "{answer}");
        client.ask("<presence/>");
        client
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

/// What a future of a store in memory comes to.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("a store in memory does not wait"),
    }
}
