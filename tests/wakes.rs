//! What a message costs a runtime of tasks: each that has to do with it is polled once. One that wakes itself is polled once
//! more, and where there are several threads another one is woken for it.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::sleep;
use xmpp_session::host::tokio::serve;

use super::*;

const MESSAGES: usize = 20;

/// How often a task is polled.
#[derive(Clone, Default)]
struct Polls(Arc<AtomicUsize>);

impl Polls {
    fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    async fn count<F: Future>(self, future: F) -> F::Output {
        let mut future = Box::pin(future);
        std::future::poll_fn(|cx| {
            self.0.fetch_add(1, Ordering::SeqCst);
            Pin::new(&mut future).poll(cx)
        })
        .await
    }
}

struct Client {
    stream: DuplexStream,
    polls: Polls,
}

impl Client {
    /// With a session of this account, through this server.
    async fn log_in(host: &Hosted, account: &str) -> Self {
        let (stream, served) = duplex(1 << 16);
        let polls = Polls::default();
        tokio::spawn(polls.clone().count(serve(Arc::clone(host), served, peer())));
        let mut client = Self { stream, polls };
        let header = "<stream:stream to='localhost' version='1.0' xmlns='jabber:client' \
                      xmlns:stream='http://etherx.jabber.org/streams'>";
        let plain = STANDARD.encode(format!("\0{account}\0pw"));
        let auth = format!(
            "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{plain}</auth>"
        );
        let bind = "<iq type='set' id='1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
                    <resource>r</resource></bind></iq>";
        client.exchange(header, "</stream:features>").await;
        client.exchange(&auth, "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>").await;
        client.exchange(header, "</stream:features>").await;
        client.exchange(bind, "</iq>").await;
        client
    }

    async fn exchange(&mut self, sent: &str, until: &str) {
        self.stream.write_all(sent.as_bytes()).await.unwrap();
        self.expect(until).await;
    }

    async fn expect(&mut self, until: &str) {
        let mut got = Vec::new();
        while !got.ends_with(until.as_bytes()) {
            assert_ne!(self.stream.read_buf(&mut got).await.unwrap(), 0);
        }
    }
}

/// How often the tasks of sender and recipient are polled for each message.
async fn polls(from: &mut Client, to: &mut Client, account: &str) -> (usize, usize) {
    // All that a login has left is done.
    sleep(Duration::from_millis(300)).await;
    let before = (from.polls.get(), to.polls.get());
    for n in 0..MESSAGES {
        let message = format!("<message to='{account}@localhost/r' id='{n}'><body/></message>");
        from.stream.write_all(message.as_bytes()).await.unwrap();
        to.expect("</message>").await;
        // What waits a little, at an edge, is told.
        sleep(Duration::from_millis(60)).await;
    }
    let after = (from.polls.get(), to.polls.get());
    // A timer may have fired among them.
    ((after.0 - before.0) / MESSAGES, (after.1 - before.1) / MESSAGES)
}

#[tokio::test]
async fn a_message_polls_each_of_its_tasks_once() {
    let (_server, host) = host();
    let mut from = Client::log_in(&host, "a").await;
    let mut to = Client::log_in(&host, "b").await;
    assert_eq!(polls(&mut from, &mut to, "b").await, (1, 1));
}

#[cfg(feature = "cluster")]
mod nodes {
    use xmpp_session::cluster::{Engine, MemoryEngine, Posts};
    use xmpp_session::host::tokio::background;
    use xmpp_session::server::{Cluster, NodeHandle};
    use xmpp_session::store::{Memory, SharedMemory};

    use super::*;

    /// Two, of which each runs by itself.
    async fn pair() -> [(Hosted, NodeHandle<Arc<Outbox>>); 2] {
        let engine = Arc::new(MemoryEngine::new(Arc::new(System::new())));
        let store = Arc::new(SharedMemory::new(Memory::new()));
        let nodes = ["one", "two"].map(|name| {
            let (leases, posts): (Arc<dyn Engine>, Arc<dyn Posts>) =
                (Arc::clone(&engine) as _, Arc::clone(&engine) as _);
            let environment = Arc::new(System::new());
            let mut policy = DomainPolicy::default();
            policy.sasl = Some(Policy::new(&*environment).mechanisms(&[Mechanism::Plain]));
            policy.authenticator = Some(Arc::new(AnyAccount::new("pw").unwrap()) as _);
            let server = Server::builder(environment, Stores::memory())
                .domain_with("localhost".parse().unwrap(), policy)
                .cluster(Cluster::new(name, leases, posts, Arc::clone(&store) as _))
                .build();
            let node = server.node().unwrap();
            let runs = node.clone();
            tokio::spawn(async move { runs.run().await });
            tokio::spawn(background(server.clone()));
            (Arc::new(Host::new(server)), node)
        });
        while nodes.iter().any(|(_, node)| node.slots() == 0) {
            sleep(Duration::from_millis(20)).await;
        }
        nodes
    }

    #[tokio::test]
    async fn a_message_through_edges_polls_each_of_its_tasks_once() {
        let [(one, _), (_, two)] = pair().await;
        // Both live at the second node, and connect to the first.
        let mut names = (0..100).map(|n| format!("a{n}"));
        let mut away = || {
            let is_away = |name: &String| {
                two.is_home_of(&format!("{name}@localhost").parse::<BareJid>().unwrap())
            };
            names.find(is_away).unwrap()
        };
        let (a, b) = (away(), away());
        let mut from = Client::log_in(&one, &a).await;
        let mut to = Client::log_in(&one, &b).await;
        assert_eq!(polls(&mut from, &mut to, &b).await, (1, 1));
    }
}
