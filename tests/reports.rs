//! What is told of what goes wrong (rules FAULT-1…6), and what metrics make of it (METRIC-1…4).

use crate::common::{faults, wire};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use faults::{Fault as StoreFault, Faulty};
use wire::{Client, PASSWORD, World};
use xmpp_session::connection::{Recorder, SendError};
use xmpp_session::environment::Virtual;
use xmpp_session::extension::{
    Admission, Delivery, Extension, Flow, IqDone, IqReply, IqRequest, Liveness, Negotiated, Stage,
    Target,
};
use xmpp_session::jid::BareJid;
use xmpp_session::sasl::{Mechanism, SaslError};
use xmpp_session::server::{
    DomainPolicy, Fault, FaultKind, Limits, Offload, Rate, RouteError, Router, Server,
    ServerBuilder, StoreCall, StoreFailure, Transport,
};
use xmpp_session::session::{
    AccountState, Authed, Bound, Epoch, Hold, HostCode, Session, SessionHandle, SessionRegistry,
};
use xmpp_session::stanza::{Condition, Frame, Stanza, StanzaError};
use xmpp_session::store::{
    AccountStore, Authenticator, Credentials, StoreError, StoreFuture, Stores, Verdict,
};
use xmpp_session::stream::{Limit, Nonza};
use xmpp_session::xep;

const NS: &str = "urn:ietf:params:xml:ns:xmpp-sasl";
const HEADER: &str = "<stream:stream xmlns='jabber:client' to='example.com' version='1.0' \
    xmlns:stream='http://etherx.jabber.org/streams'>";
const SECOND: Duration = Duration::from_secs(1);
const PEER: &str = "198.51.100.7";

/// What the host was told.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<Fault>>>);

impl Told {
    fn hook(&self) -> impl Fn(&Fault) + Clone + Send + Sync + 'static {
        let told = self.clone();
        move |fault| told.0.lock().unwrap_or_else(PoisonError::into_inner).push(fault.clone())
    }

    fn take(&self) -> Vec<Fault> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    /// Those of one kind, and no others.
    fn only(&self, kind: &str) -> Vec<Fault> {
        let all = self.take();
        assert!(all.iter().all(|fault| fault.kind().as_str() == kind), "{kind}: {all:?}");
        all
    }
}

fn world(
    configure: impl FnOnce(ServerBuilder<Recorder>) -> ServerBuilder<Recorder> + Clone,
) -> (World, Told) {
    let told = Told::default();
    let hook = told.hook();
    (World::with(|builder, _| configure(builder.on_fault(hook))), told)
}

fn from_peer(world: &World) -> Client {
    let client = world.accept(Transport::new().secure(true).source(PEER));
    client.open();
    let _features = client.received();
    client
}

fn auth(mechanism: &str, text: &str) -> String {
    format!("<auth xmlns='{NS}' mechanism='{mechanism}'>{}</auth>", STANDARD.encode(text))
}

fn bound_from_peer(world: &World, node: &str) -> Client {
    world.account(node);
    let client = from_peer(world);
    client.authenticate(node, PASSWORD);
    client.open();
    client.send(
        "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
         <resource>r</resource></bind></iq>",
    );
    assert!(client.received().concat().contains("<jid>"), "bound");
    client
}

fn jid(node: &str) -> BareJid {
    BareJid::new(&format!("{node}@example.com")).unwrap()
}

/// Says one thing of every login.
struct Says(Option<Verdict>);

impl Authenticator for Says {
    fn check_password(&self, _: &BareJid, _: &str) -> StoreFuture<Verdict> {
        let verdict = self.0.ok_or_else(|| StoreError::failed("the directory is gone"));
        Box::pin(async move { verdict })
    }
}

#[test]
fn fault_1_a_failed_login_says_why_who_and_from_where() {
    use Mechanism::{Plain, ScramSha1, ScramSha1Plus};
    let (world, told) = world(|builder| builder);
    world.account("juliet");
    let mut credentials = Credentials::from_password("secret", world.environment()).unwrap();
    credentials.disabled = true;
    world.accounts().insert(jid("disabled"), credentials);
    for (element, mechanism, error, account) in [
        (auth("PLAIN", "\0juliet\0wrong"), Some(Plain), SaslError::NotAuthorized, Some("juliet")),
        (auth("PLAIN", "\0nobody\0wrong"), Some(Plain), SaslError::NotAuthorized, Some("nobody")),
        (
            auth("PLAIN", "\0disabled\0secret"),
            Some(Plain),
            SaslError::AccountDisabled,
            Some("disabled"),
        ),
        (auth("PLAIN", "a\0juliet\0secret"), Some(Plain), SaslError::InvalidAuthzid, None),
        (auth("PLAIN", "nonsense"), Some(Plain), SaslError::MalformedRequest, None),
        (auth("CRAM-MD5", ""), None, SaslError::InvalidMechanism, None),
        (auth("&#10;forged", ""), None, SaslError::InvalidMechanism, None),
        (auth("SCRAM-SHA-1-PLUS", ""), Some(ScramSha1Plus), SaslError::InvalidMechanism, None),
        (auth("SCRAM-SHA-1", "nonsense"), Some(ScramSha1), SaslError::MalformedRequest, None),
        (
            format!("<auth xmlns='{NS}' mechanism='PLAIN'>*</auth>"),
            Some(Plain),
            SaslError::IncorrectEncoding,
            None,
        ),
    ] {
        let client = from_peer(&world);
        client.send(&element);
        assert!(client.received().concat().contains(error.as_str()), "{element}");
        let faults = told.only("login");
        let [fault] = &faults[..] else { panic!("{element}: {faults:?}") };
        let FaultKind::Login { mechanism: told, error: why, .. } = fault.kind() else { panic!() };
        assert_eq!((*told, *why), (mechanism, error), "{element}");
        assert_eq!(fault.peer().to_string(), PEER);
        assert_eq!(fault.peer().ip(), PEER.parse().ok());
        assert_eq!(fault.account().cloned(), account.map(jid), "{element}");
        let text = fault.to_string();
        assert!(text.contains(PEER) && text.lines().count() == 1, "{text}");
        client.lose();
        world.advance(30 * SECOND);
    }
    let counted = world.metrics().login_failures;
    assert_eq!(counted.iter().map(|(_, count)| count).sum::<u64>(), 10);
    assert!(counted.contains(&((Some(Plain), SaslError::NotAuthorized), 2)));
}

#[test]
fn fault_1_a_store_that_fails_a_login_is_told_with_its_error() {
    for (verdict, error) in [
        (Some(Verdict::Refused), SaslError::NotAuthorized),
        (Some(Verdict::Disabled), SaslError::AccountDisabled),
        (Some(Verdict::Expired), SaslError::CredentialsExpired),
        (None, SaslError::TemporaryAuthFailure),
    ] {
        let mut policy = DomainPolicy::default();
        policy.authenticator = Some(Arc::new(Says(verdict)));
        let told = Told::default();
        let server = Server::builder(Arc::new(Virtual::new(1)), Stores::memory())
            .domain_with("example.com".parse().unwrap(), policy)
            .on_fault(told.hook())
            .build();
        let client = Alone::new(&server);
        client.log_in();
        let faults = told.take();
        let (last, before) = faults.split_last().unwrap();
        let FaultKind::Login { error: why, .. } = last.kind() else { panic!("{last}") };
        assert_eq!(*why, error);
        assert_eq!(last.account(), Some(&jid("juliet")));
        if error == SaslError::TemporaryAuthFailure {
            let [fault] = before else { panic!("{before:?}") };
            let FaultKind::Store { call, failure, error, .. } = fault.kind() else { panic!() };
            assert_eq!((*call, *failure), (StoreCall::CheckPassword, StoreFailure::Failed));
            assert_eq!(error, "the store failed: the directory is gone");
            assert_eq!(fault.account(), Some(&jid("juliet")));
        } else {
            assert!(before.is_empty(), "{before:?}");
        }
    }
}

/// A client of a server without a world.
struct Alone(Mutex<xmpp_session::server::Driver<Recorder>>);

impl Alone {
    fn new(server: &Server<Recorder>) -> Self {
        let peer = Transport::new().secure(true).source(PEER);
        Self(Mutex::new(server.accept(Recorder::new(), peer)))
    }

    fn log_in(&self) {
        let mut driver = self.0.lock().unwrap();
        driver.receive(HEADER.as_bytes());
        driver.receive(auth("PLAIN", "\0juliet\0secret").as_bytes());
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        let _want = driver.poll_want(&mut cx);
    }
}

/// Accounts whose calls end in one way.
struct BadAccounts(fn() -> StoreError);

impl AccountStore for BadAccounts {
    fn credentials(&self, _: &BareJid) -> StoreFuture<Option<Credentials>> {
        let error = (self.0)();
        Box::pin(async move { Err(error) })
    }

    fn set_credentials(&self, _: &BareJid, _: Credentials) -> StoreFuture<()> {
        let error = (self.0)();
        Box::pin(async move { Err(error) })
    }

    fn remove(&self, _: &BareJid) -> StoreFuture<bool> {
        let error = (self.0)();
        Box::pin(async move { Err(error) })
    }
}

#[test]
fn fault_2_a_full_disk_is_told_from_a_full_account_and_a_broken_store() {
    type Makes = fn() -> StoreError;
    let cases: [(Makes, StoreFailure, &str); 3] = [
        (|| StoreError::failed("no route"), StoreFailure::Failed, "the store failed: no route"),
        (|| StoreError::Full, StoreFailure::Full, "the store is full"),
        (
            || StoreError::no_space("disk full"),
            StoreFailure::NoSpace,
            "the store has no space left: disk full",
        ),
    ];
    for (error, failure, text) in cases {
        let told = Told::default();
        let mut stores = Stores::memory();
        stores.accounts = Arc::new(BadAccounts(error));
        let server = Server::builder(Arc::new(Virtual::new(1)), stores)
            .domain("example.com".parse().unwrap())
            .on_fault(told.hook())
            .build();
        Alone::new(&server).log_in();
        let faults = told.take();
        let FaultKind::Store { call, failure: how, error, .. } = faults[0].kind() else {
            panic!("{faults:?}")
        };
        assert_eq!((*call, *how, &**error), (StoreCall::Credentials, failure, text));
        assert_eq!(faults[1].kind().detail(), "temporary-auth-failure");
        assert_eq!(faults.len(), 2);
    }
}

/// Every call that a stanza makes fails once, and is told once, with its text.
#[test]
fn fault_2_every_call_of_a_store_that_fails_is_told() {
    let body = "<body>hi</body>";
    let message = format!("<message to='nurse@example.com' type='chat'>{body}</message>");
    let mut seen = std::collections::BTreeSet::new();
    for stanza in [
        message.as_str(),
        "<presence to='nurse@example.com' type='subscribe'/>",
        "<iq type='set' id='r'><query xmlns='jabber:iq:roster'><item jid='a@example.net'/></query></iq>",
        "<iq type='set' id='k'><block xmlns='urn:xmpp:blocking'><item jid='a@example.net'/></block></iq>",
        "<iq type='set' id='u'><unblock xmlns='urn:xmpp:blocking'/></iq>",
        "<iq type='get' id='i' to='nurse@example.com'><query xmlns='jabber:iq:last'/></iq>",
        "<presence/>",
    ] {
        for at in 0..8 {
            let (faulty, told) = (Faulty::new(), Told::default());
            let (hook, stores) = (told.hook(), faulty.stores());
            let blocks = Arc::clone(&stores.blocks);
            let world = World::with_stores(stores, |builder, _| {
                builder.on_fault(hook).extension(xep::Blocking::new(blocks))
            });
            world.account("nurse");
            let romeo = world.client("romeo", "r");
            let calls = Arc::new(Mutex::new(0));
            let failed = Arc::clone(&calls);
            faulty.decide(move |_, n| {
                if n != at {
                    return StoreFault::None;
                }
                *failed.lock().unwrap() += 1;
                StoreFault::Fail
            });
            romeo.send(stanza);
            world.settle();
            let faults = told.only("store");
            assert_eq!(faults.len(), *calls.lock().unwrap(), "{stanza} {at}: {faults:?}");
            for fault in &faults {
                assert!(fault.to_string().contains("as the test wants it"), "{fault}");
                assert!(fault.account().is_some());
                seen.insert(fault.kind().detail());
            }
        }
    }
    // Those of an account store and of its removal are elsewhere.
    let expected = ["change-roster", "extension", "list-messages", "load-contact", "push-message"];
    for call in expected {
        assert!(seen.contains(call), "{call} in {seen:?}");
    }
}

#[test]
fn fault_2_a_store_that_is_late_at_bind_is_told() {
    let (faulty, told) = (Faulty::new(), Told::default());
    let hook = told.hook();
    let world = World::with_stores(faulty.stores(), |builder, _| builder.on_fault(hook));
    world.account("juliet");
    let client = from_peer(&world);
    client.authenticate("juliet", PASSWORD);
    client.open();
    faulty.decide(|_, _| StoreFault::Fail);
    client.send("<iq type='set' id='a'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
    assert_eq!(told.only("store")[0].kind().detail(), "load-roster");
    faulty.decide(|_, _| StoreFault::Slow);
    client.send("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
    world.advance(6 * SECOND);
    let faults = told.only("store");
    let [fault] = &faults[..] else { panic!("{faults:?}") };
    let FaultKind::Store { call, failure, error, .. } = fault.kind() else { panic!() };
    assert_eq!((*call, *failure), (StoreCall::LoadAccount, StoreFailure::Late));
    assert_eq!((&**error, fault.account()), ("no answer within 5s", Some(&jid("juliet"))));
}

/// Panics where it is called by this name.
#[derive(Clone)]
struct Panics(&'static str, Arc<AtomicBool>);

impl Panics {
    fn at(&self, name: &str) {
        if self.0 == name {
            // Not a constant, so that the payload is a `String`.
            panic!("{name} went wrong");
        }
    }
}

const ITS_OWN: &str = "urn:example:panics";

impl Extension<Recorder> for Panics {
    fn features(&self, _: Stage, _: &mut Vec<u8>) {
        self.at("features");
    }

    fn disco_features(&self, _: Target) -> &[&'static str] {
        self.at("disco_features");
        &[]
    }

    fn takes(&self, _: &str, namespace: &str) -> bool {
        self.at("takes");
        namespace == ITS_OWN
    }

    fn unauthenticated(&self, _: &Nonza, _: &mut Vec<u8>) -> Flow {
        self.at("unauthenticated");
        Flow::Done
    }

    fn authenticated(
        &self,
        session: Session<Authed, Recorder>,
        _: &SessionRegistry<Recorder>,
        _: &Nonza,
    ) -> Negotiated<Recorder> {
        self.at("authenticated");
        Negotiated::Done(session)
    }

    fn nonza(&self, _: &mut Session<Bound, Recorder>, _: &Nonza) -> Flow {
        self.at("nonza");
        Flow::Done
    }

    fn inbound(&self, session: &SessionHandle<Recorder>, _: &Stanza) -> Flow {
        self.at("inbound");
        session.set_holding(true);
        Flow::Next
    }

    fn load(
        &self,
        _: &BareJid,
    ) -> Option<StoreFuture<Option<Arc<dyn std::any::Any + Send + Sync>>>> {
        self.at("load");
        let extension = self.clone();
        Some(Box::pin(async move {
            extension.at("load_later");
            Ok(Some(Arc::new(()) as _))
        }))
    }

    fn admit(&self, _: &AccountState, _: &Stanza) -> Admission {
        self.at("admit");
        Admission::Accept
    }

    fn hides(&self, _: &AccountState, _: &str) -> bool {
        self.at("hides");
        false
    }

    fn delivered(&self, _: &Delivery<'_, Recorder>) {
        self.at("delivered");
    }

    fn outbound(&self, _: &SessionHandle<Recorder>, _: &Stanza) {
        self.at("outbound");
    }

    fn hold(&self, _: &SessionHandle<Recorder>, _: &Stanza) -> Hold {
        self.at("hold");
        Hold::Pass
    }

    fn iq(&self, request: &IqRequest<'_, Recorder>) -> Option<IqReply> {
        self.at("iq");
        let (later, job) = (self.clone(), self.clone());
        match request.query().name() {
            "later" => Some(IqReply::Later(Box::pin(async move {
                later.at("iq_later");
                Ok(None)
            }))),
            _ => Some(IqReply::Job(Box::pin(async move {
                job.at("iq_job");
                let then = job.clone();
                IqDone::new(Ok(None)).then(move || then.at("iq_then"))
            }))),
        }
    }

    fn pre_drain(&self, _: &SessionHandle<Recorder>, _: Epoch, _: &mut dyn FnMut(Frame<'_>)) {
        self.at("pre_drain");
    }

    fn next_timeout(&self, _: &SessionHandle<Recorder>) -> Option<Duration> {
        self.at("next_timeout");
        (!self.1.load(Ordering::SeqCst)).then_some(100 * SECOND)
    }

    fn handle_timeout(&self, _: &SessionHandle<Recorder>, _: Duration) -> Liveness {
        self.1.store(true, Ordering::SeqCst);
        self.at("handle_timeout");
        Liveness::Alive
    }

    fn ask_for_life(&self, _: &SessionHandle<Recorder>) -> Flow {
        self.at("ask_for_life");
        Flow::Next
    }
}

impl Router for Panics {
    fn route(&self, _: &Stanza) -> Result<(), RouteError> {
        self.at("route");
        Ok(())
    }
}

impl Offload for Panics {
    fn run(&self, hash: Box<dyn FnOnce() + Send>) {
        self.at("offload");
        hash();
    }
}

/// What a life of two clients gives every piece of host code to do.
fn live(world: &World) {
    let its_own = format!("<x xmlns='{ITS_OWN}'></x>");
    world.friends("romeo", "juliet");
    let early = from_peer(world);
    early.send(&its_own[..its_own.len() - 4]);
    early.send(&its_own[its_own.len() - 4..]);
    let romeo = world.client("romeo", "r");
    if romeo.is_connected() {
        romeo.send("<presence/>");
    }
    let juliet = world.client("juliet", "j");
    juliet.send("<presence/>");
    for xml in [
        "<message to='romeo@example.com' type='chat'><body>1</body></message>",
        "<message to='romeo@example.com' type='chat'><body>2</body></message>",
        "<message to='a@example.net'><body>3</body></message>",
        "<message to='a@rooms.example.com'><body>4</body></message>",
        "<iq type='get' id='1'><later xmlns='urn:example:panics'/></iq>",
        "<iq type='get' id='2'><job xmlns='urn:example:panics'/></iq>",
        "<presence to='romeo@example.com'/>",
    ] {
        romeo.send(xml);
        juliet.send(xml);
    }
    let later = world.authenticated("nurse");
    later.send(&its_own);
    juliet.send(&its_own);
    world.advance(120 * SECOND);
    world.advance(1800 * SECOND);
    juliet.send("</stream:stream>");
}

#[test]
fn fault_3_a_panic_of_host_code_is_told_with_its_message() {
    let extension = [
        "features",
        "disco_features",
        "takes",
        "unauthenticated",
        "authenticated",
        "nonza",
        "inbound",
        "admit",
        "hides",
        "delivered",
        "outbound",
        "hold",
        "iq",
        "iq_later",
        "iq_job",
        "iq_then",
        "pre_drain",
        "next_timeout",
        "handle_timeout",
        "ask_for_life",
    ];
    let extension = extension.map(|place| (place, HostCode::Extension));
    let others = [
        ("route", HostCode::Router),
        ("component", HostCode::Component),
        ("offload", HostCode::Hashing),
        ("login", HostCode::Listener),
        ("event", HostCode::Listener),
    ];
    for (place, code) in extension.into_iter().chain(others) {
        let panics = Panics(place, Arc::default());
        let is_bound = !matches!(place, "offload");
        let (world, told) = world(|builder| {
            let (login, event) = (panics.clone(), panics.clone());
            let component = panics.clone();
            builder
                .component("rooms.example.com".parse().unwrap(), move |_, _| {
                    let component = component.clone();
                    async move {
                        component.at("component");
                        Ok(())
                    }
                })
                .extension(panics.clone())
                .router(panics.clone())
                .hashing(panics.clone())
                .on_login(move |_| login.at("login"))
                .listener(move |_| event.at("event"))
        });
        if is_bound {
            live(&world);
        } else {
            world.account("juliet");
            from_peer(&world).authenticate("juliet", PASSWORD);
        }
        let faults = told.take();
        let panics: Vec<_> =
            faults.iter().filter(|fault| fault.kind().as_str() == "panic").collect();
        assert!(!panics.is_empty(), "{place}: {faults:?}");
        for fault in panics {
            let FaultKind::Panic { code: whose, message, .. } = fault.kind() else { panic!() };
            assert_eq!((*whose, message.as_deref()), (code, Some(&*format!("{place} went wrong"))));
        }
    }
    for place in ["load", "load_later"] {
        let panics = Panics(place, Arc::default());
        let (world, told) = world(|builder| builder.extension(panics));
        let client = world.authenticated("juliet");
        client.send("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
        let faults = told.only("panic");
        assert_eq!(faults.len(), 1, "{place}");
        assert_eq!(faults[0].account(), Some(&jid("juliet")), "{place}");
    }
}

#[test]
fn fault_3_a_store_that_panics_is_told_once_and_as_a_panic() {
    let (faulty, told) = (Faulty::new(), Told::default());
    let hook = told.hook();
    let world = World::with_stores(faulty.stores(), |builder, _| builder.on_fault(hook));
    world.account("nurse");
    let romeo = world.client("romeo", "r");
    faulty.decide(|_, _| StoreFault::Panic);
    romeo.send("<message to='nurse@example.com' type='chat'><body>hi</body></message>");
    assert!(romeo.received().concat().contains("internal-server-error"));
    let faults = told.only("panic");
    let [fault] = &faults[..] else { panic!("{faults:?}") };
    assert_eq!(fault.kind().detail(), "store");
    assert_eq!(fault.account(), Some(&jid("nurse")));
    assert!(fault.to_string().contains("as the test wants it"), "{fault}");
}

#[test]
fn fault_3_a_connection_that_panics_is_told_in_every_state() {
    for bound in [false, true] {
        let (world, told) = world(|builder| builder);
        world.account("juliet");
        let client = if bound { bound_from_peer(&world, "juliet") } else { from_peer(&world) };
        client.recorder().on_send(|_| panic!("no wire"));
        match bound {
            true => world.online("romeo", "r").send("<message to='juliet@example.com/r'/>"),
            false => client.authenticate("juliet", PASSWORD),
        }
        let faults = told.only("panic");
        assert!(!faults.is_empty());
        assert_eq!(faults[0].kind().detail(), "connection", "{bound}");
        assert!(faults[0].to_string().contains("no wire"), "{bound}");
        let told_of = faults[0].account().is_some() || faults[0].peer().is_known();
        assert!(told_of, "{bound}: {}", faults[0]);
    }
}

/// One kind of fault from one peer: what is too much is left out, counted, and said with the next.
#[test]
fn fault_5_a_flood_is_told_in_part_and_counted_whole() {
    let mut limits = Limits::unlimited();
    limits.failures = None;
    let (world, told) = world(|builder| builder.limits(limits));
    let fail = |peer: &str| {
        let client = world.accept(Transport::new().secure(true).source(peer));
        client.open();
        client.send(&auth("CRAM-MD5", ""));
        client.lose();
    };
    (0..100).for_each(|_| fail(PEER));
    assert_eq!(told.only("login").len(), 20, "at once");
    fail("2001:db8::1");
    assert_eq!(told.only("login").len(), 1, "another peer is another matter");
    (0..20).for_each(|n| fail(&format!("2001:db8::{n:x}")));
    assert_eq!(told.only("login").len(), 19, "and its network is one");
    world.advance(SECOND);
    fail(PEER);
    let faults = told.only("login");
    let [fault] = &faults[..] else { panic!("{faults:?}") };
    assert_eq!(fault.left_out(), 80);
    assert!(fault.to_string().ends_with("(80 more of these left out)"), "{fault}");
    world.advance(60 * SECOND);
    (0..100).for_each(|_| fail(PEER));
    assert_eq!(told.only("login").len(), 20, "as before");
    let counted = world.metrics().faults;
    assert_eq!(counted, [("login", 100 + 1 + 20 + 1 + 100)]);
}

#[test]
fn fault_6_the_hook_may_panic_and_call_back() {
    let told = Told::default();
    let (hook, server) = (told.hook(), Arc::new(Mutex::new(None::<Server<Recorder>>)));
    let reached = Arc::clone(&server);
    let panics = Arc::new(AtomicBool::new(false));
    let will = Arc::clone(&panics);
    let (world, _) = world(|builder| {
        builder.on_fault(move |fault| {
            hook(fault);
            let server = reached.lock().unwrap().clone();
            if let Some(server) = server {
                // No lock is held: everything works. What goes wrong in here is not told here.
                drop((server.metrics(), server.registry().counts()));
                let client = server.accept(Recorder::new(), Transport::new().secure(true));
                let mut client = client;
                client.receive(b"<nonsense>");
            }
            assert!(!will.load(Ordering::SeqCst), "in the hook");
        })
    });
    *server.lock().unwrap() = Some(world.server().clone());
    let fail = || {
        let client = from_peer(&world);
        client.send(&auth("CRAM-MD5", ""));
        assert!(client.received().concat().contains("invalid-mechanism"));
    };
    fail();
    assert_eq!(told.only("login").len(), 1);
    panics.store(true, Ordering::SeqCst);
    fail();
    fail();
    assert_eq!(told.only("login").len(), 2, "a panic in it is its own affair");
    *server.lock().unwrap() = None;
    let faults = world.metrics().faults;
    assert!(faults.contains(&("stream", 3)), "{faults:?}");
}

/// A limit, what sets it low, and what breaks it.
type Case = (&'static str, fn(&mut Limits), fn(&World));

fn online(world: &World) -> Client {
    let client = bound_from_peer(world, "romeo");
    client.send("<presence/>");
    client
}

/// Limits of each kind are told, with the peer or the account.
#[test]
fn fault_1_a_limit_that_is_hit_is_told_by_its_name() {
    let cases: [Case; 16] = [
        (
            "negotiation",
            |_| {},
            |world| {
                let _silent = from_peer(world);
                world.advance(60 * SECOND);
            },
        ),
        (
            "element-bytes-before-auth",
            |_| {},
            |world| {
                from_peer(world).send(&format!("<auth xmlns='{NS}'>{}", "a".repeat(70_000)));
            },
        ),
        (
            "depth",
            |_| {},
            |world| {
                let (open, close) = ("<message>".repeat(200), "</message>".repeat(200));
                online(world).send(&(open + &close));
            },
        ),
        (
            "retries",
            |_| {},
            |world| {
                let client = from_peer(world);
                (0..8).for_each(|_| client.send(&auth("CRAM-MD5", "")));
            },
        ),
        (
            "sessions",
            |limits| limits.sessions_per_account = 1,
            |world| {
                let _first = world.client("romeo", "one");
                let second = world.authenticated("romeo");
                second.send(
                    "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>",
                );
            },
        ),
        (
            "directed-presence",
            |limits| limits.directed = 1,
            |world| {
                let romeo = online(world);
                romeo.send("<presence to='a@example.com'/><presence to='b@example.com'/>");
            },
        ),
        (
            "broadcasts",
            |_| {},
            |world| {
                let romeo = online(world);
                (0..40).for_each(|_| romeo.send("<presence/>"));
            },
        ),
        (
            "rate",
            |limits| limits.stanzas = Some(Rate::new(1, SECOND, 1)),
            |world| {
                let romeo = online(world);
                (0..9).for_each(|_| romeo.send("<message to='a@example.net'/>"));
            },
        ),
        (
            "recipients",
            |limits| limits.recipients = Some(Rate::new(1, SECOND, 1)),
            |world| {
                let romeo = online(world);
                romeo.send("<message to='a@example.net'/><message to='b@example.net'/>");
            },
        ),
        (
            "silence",
            |_| {},
            |world| {
                let _romeo = online(world);
                world.advance(Duration::from_secs(1900));
            },
        ),
        (
            "failed-logins",
            |limits| limits.failures = Some(Rate::new(1, 60 * SECOND, 1)),
            |world| {
                world.account("romeo");
                for _ in 0..4 {
                    let client = from_peer(world);
                    client.send(&auth("PLAIN", "\0romeo\0wrong"));
                    world.advance(SECOND);
                }
            },
        ),
        (
            "roster",
            |limits| limits.roster.items = 1,
            |world| {
                let romeo = online(world);
                for jid in ["a@example.net", "b@example.net"] {
                    romeo.send(&format!(
                    "<iq type='set' id='{jid}'><query xmlns='jabber:iq:roster'><item jid='{jid}'/>\
                     </query></iq>"
                ));
                }
            },
        ),
        (
            "requests",
            |limits| limits.requests.count = 0,
            |world| {
                world.account("nurse");
                online(world).send("<presence to='nurse@example.com' type='subscribe'/>");
            },
        ),
        (
            "block-list",
            |_| {},
            |world| {
                let item = |n| format!("<item jid='{n}@example.net'/>");
                let items: String = (0..1001).map(item).collect();
                online(world).send(&format!(
                    "<iq type='set' id='1'><block xmlns='urn:xmpp:blocking'>{items}</block></iq>"
                ));
            },
        ),
        (
            "waiting",
            |limits| limits.retention.live_stanzas = 1,
            |world| {
                let romeo = online(world);
                let juliet = world.online("juliet", "j");
                juliet.recorder().refuse(Some(SendError::Full));
                for _ in 0..4 {
                    romeo.send("<message to='juliet@example.com/j'><body>x</body></message>");
                    world.advance(SECOND);
                }
            },
        ),
        (
            "unauthenticated",
            |limits| limits.unauthenticated_per_source = 1,
            |world| {
                let _first = from_peer(world);
                let second = world.accept(Transport::new().secure(true).source(PEER));
                second.send("<stream:stream");
            },
        ),
    ];
    for (name, set, hit) in cases {
        let mut limits = Limits::default();
        set(&mut limits);
        let (told, blocks) = (Told::default(), Stores::memory());
        let hook = told.hook();
        let store = Arc::clone(&blocks.blocks);
        let world = World::with_stores(blocks, |builder, _| {
            builder.on_fault(hook).limits(limits).extension(xep::Blocking::new(store))
        });
        hit(&world);
        let faults = told.take();
        let found = faults.iter().find(|fault| fault.kind().detail() == name);
        let fault = found.unwrap_or_else(|| panic!("{name}: {faults:?}"));
        let FaultKind::Limit(limit) = fault.kind() else { panic!("{fault:?}") };
        assert!(fault.to_string().contains(limit.id()), "{fault}");
        assert!(fault.peer().is_known() || fault.account().is_some(), "{fault}");
        assert!(world.metrics().limits.iter().any(|(hit, _)| hit == limit), "{name}");
    }
}

#[test]
fn fault_1_a_limit_that_closes_a_stream_is_told_once() {
    let (world, told) = world(|builder| builder);
    let client = from_peer(&world);
    world.advance(61 * SECOND);
    assert!(client.received().concat().contains("policy-violation"));
    let [fault] = &told.only("limit")[..] else { panic!("one fault") };
    assert_eq!(fault.kind().detail(), "negotiation");
}

#[test]
fn fault_1_a_stream_that_is_closed_with_an_error_is_told() {
    let (world, told) = world(|builder| builder);
    let client = bound_from_peer(&world, "romeo");
    client.send("<message></presence>");
    let faults = told.only("stream");
    assert_eq!(faults[0].kind().detail(), "not-well-formed");
    assert_eq!(faults[0].peer().to_string(), PEER);
    assert_eq!(faults[0].account(), Some(&jid("romeo")));
    // What the host itself does is no fault.
    let other = bound_from_peer(&world, "juliet");
    world.kick(&other.session());
    assert_eq!(told.take().len(), 0);
}

#[test]
fn fault_1_an_error_of_an_extension_may_have_a_cause() {
    struct Fails;
    impl Extension<Recorder> for Fails {
        fn iq(&self, request: &IqRequest<'_, Recorder>) -> Option<IqReply> {
            let error = StanzaError::new(Condition::InternalServerError);
            Some(IqReply::error(match request.query().name() {
                "store" => error.with_cause(StoreError::failed("its archive is gone")),
                "limit" => error.with_cause(Limit::Rate),
                "text" => error.with_cause("something else"),
                _ => error,
            }))
        }
    }
    let (world, told) = world(|builder| builder.extension(Fails));
    let romeo = world.client("romeo", "r");
    for (name, kind, text) in [
        ("store", "store", "its archive is gone"),
        ("limit", "limit", "rate (LIMIT-20)"),
        ("text", "store", "something else"),
    ] {
        let answer = romeo.ask(&format!("<iq type='get' id='1'><{name} xmlns='x:y'/></iq>"));
        assert!(!answer.concat().contains(text), "a peer is told nothing of it: {answer:?}");
        let faults = told.only(kind);
        assert!(faults[0].to_string().contains(text), "{faults:?}");
        assert_eq!(faults[0].account(), Some(&jid("romeo")));
    }
    let _answer = romeo.ask("<iq type='get' id='1'><none xmlns='x:y'/></iq>");
    assert_eq!(told.take().len(), 0);
}

#[test]
fn sec_6_debug_of_a_fault_names_nobody() {
    let (world, told) = world(|builder| builder);
    world.account("juliet");
    let client = from_peer(&world);
    client.send(&auth("PLAIN", "\0juliet\0hunter2"));
    let shown = format!("{:?}", told.take());
    assert!(!shown.contains("juliet") && !shown.contains(PEER), "{shown}");
    assert!(shown.contains("not-authorized"), "{shown}");
}

#[test]
fn fault_1_a_login_is_told_with_its_peer() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let (world, told) = world(|builder| {
        builder.extension(xep::StreamManagement::new()).on_login(move |login| {
            let mechanism = login.mechanism.map(Mechanism::as_str);
            let line = (
                login.session.jid().to_string(),
                login.peer.to_string(),
                mechanism,
                login.is_resumed,
            );
            log.lock().unwrap().push(line);
        })
    });
    let first = bound_from_peer(&world, "juliet");
    let enabled = first.ask("<enable xmlns='urn:xmpp:sm:3' resume='true'/>").concat();
    let id = enabled.split("id='").nth(1).unwrap().split('\'').next().unwrap().to_owned();
    first.lose();
    let second = world.accept(Transport::new().secure(true).source("[2001:db8::9]:4711"));
    second.open();
    second.authenticate("juliet", PASSWORD);
    second.open();
    second.send(&format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='0'/>"));
    let plain = Some("PLAIN");
    let jid = "juliet@example.com/r".to_owned();
    assert_eq!(
        *seen.lock().unwrap(),
        [
            (jid.clone(), PEER.to_owned(), plain, false),
            (jid, "2001:db8::9".to_owned(), plain, true),
        ]
    );
    assert_eq!(told.take().len(), 0);
    second.send("</stream:stream>");
    let metrics = world.metrics();
    assert_eq!((metrics.binds, metrics.resumptions), (1, 1));
    assert_eq!(metrics.logins, [(Mechanism::Plain, 2)]);
    assert_eq!(metrics.ends, [("closed", 1)]);
}

/// A server that has been through something of everything.
fn busy() -> World {
    let faulty = Faulty::new();
    let stores = faulty.stores();
    let blocks = Arc::clone(&stores.blocks);
    let world = World::with_stores(stores, |builder, _| {
        builder.extension(xep::StreamManagement::new()).extension(xep::Blocking::new(blocks))
    });
    world.account("nurse");
    let romeo = bound_from_peer(&world, "romeo");
    let juliet = bound_from_peer(&world, "juliet");
    let _enabled = juliet.ask("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    juliet.send("<presence/>");
    romeo.send("<message to='nurse@example.com' type='chat'><body>1</body></message>");
    (0..200).for_each(|_| romeo.send("<message to='juliet@example.com'><body>1</body></message>"));
    let _offline = world.online("nurse", "n");
    romeo.send("<iq type='get' id='1' to='example.com'><unknown xmlns='x:y'/></iq>");
    let stranger = from_peer(&world);
    stranger.send(&auth("PLAIN", "\0romeo\0wrong"));
    stranger.send("<nonsense>");
    faulty.decide(|_, _| StoreFault::Fail);
    romeo.send("<presence to='nurse@example.com' type='subscribe'/>");
    world.advance(SECOND);
    romeo.send("</stream:stream>");
    world
}

#[test]
fn metric_1_everything_has_its_name() {
    let mut text = String::new();
    busy().server().metrics().write_openmetrics(&mut text);
    for line in [
        "xmpp_transports_accepted_total 4",
        "xmpp_logins_total{mechanism=\"PLAIN\"} 3",
        "xmpp_login_failures_total{mechanism=\"PLAIN\",reason=\"not-authorized\"} 1",
        "xmpp_session_binds_total 3",
        "xmpp_session_resumptions_total 0",
        "xmpp_session_ends_total{reason=\"closed\"} 1",
        "xmpp_sessions{state=\"live\"} 2",
        "xmpp_stanzas_received_total{kind=\"message\"} 201",
        "xmpp_offline_messages_stored_total 1",
        "xmpp_offline_messages_retrieved_total 1",
        "xmpp_stanza_errors_total{condition=\"service-unavailable\"} 1",
        "xmpp_stanza_errors_total{condition=\"internal-server-error\"} 1",
        "xmpp_stream_errors_total{condition=\"unsupported-stanza-type\"} 1",
        "xmpp_faults_total{kind=\"login\"} 1",
        "xmpp_faults_total{kind=\"store\"} 1",
        "xmpp_faults_total{kind=\"panic\"} 0",
        "xmpp_login_step_seconds_count{step=\"sasl\"} 3",
        "xmpp_login_step_seconds_count{step=\"bind\"} 3",
        "xmpp_store_call_seconds_count{call=\"credentials\"} 4",
        "xmpp_store_call_seconds_count{call=\"push-message\"} 1",
    ] {
        assert!(text.lines().any(|one| one == line), "{line} in {text}");
    }
}

/// The dashboard draws nothing that there is not.
#[test]
fn metric_1_the_dashboard_knows_the_names() {
    let mut text = String::new();
    busy().server().metrics().write_prometheus(&mut text);
    let dashboard = include_str!("../docs/grafana.json");
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let names: Vec<_> = dashboard
        .match_indices("xmpp_")
        .map(|(at, _)| dashboard[at..].split(|c| !is_name(c)).next().unwrap())
        .collect();
    assert!(names.len() > 25);
    // Those of several nodes are in their own tests.
    for name in names.into_iter().filter(|name| !name.starts_with("xmpp_node_")) {
        let is_told = text.lines().any(|line| {
            let is_of_it = line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
            is_of_it || *line == format!("# TYPE {name} counter")
        });
        assert!(is_told, "{name}");
    }
}

/// Every line is what the specification of OpenMetrics 1.0 allows, in its order.
#[test]
fn metric_2_the_text_is_openmetrics() {
    let mut text = String::new();
    busy().server().metrics().write_openmetrics(&mut text);
    let body = text.strip_suffix("# EOF\n").unwrap();
    let (mut family, mut type_, mut seen) = ("", "", std::collections::BTreeSet::new());
    let (mut bucket, mut last) = (String::new(), 0);
    for line in body.lines() {
        if let Some(meta) = line.strip_prefix("# ") {
            let mut words = meta.splitn(3, ' ');
            let (what, name) = (words.next().unwrap(), words.next().unwrap());
            let rest = words.next().unwrap();
            match what {
                "TYPE" => {
                    assert!(seen.insert(name), "{name} once");
                    assert!(["counter", "gauge", "histogram"].contains(&rest));
                    assert!(!name.ends_with("_total") && !name.ends_with("_count"), "{name}");
                    (family, type_) = (name, rest);
                }
                "UNIT" => assert!(name == family && name.ends_with(&format!("_{rest}")), "{line}"),
                "HELP" => assert!(name == family && rest.ends_with('.'), "{line}"),
                _ => panic!("{line}"),
            }
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = name
            .split_once('{')
            .map_or((name, ""), |(name, rest)| (name, rest.strip_suffix('}').unwrap()));
        let end = name.strip_prefix(family).unwrap_or_else(|| panic!("{line} of {family}"));
        let value: f64 = value.parse().unwrap();
        match (type_, end) {
            ("counter", "_total") | ("gauge", "") | ("histogram", "_sum" | "_count") => {
                assert!(value >= 0.0);
                if end == "_count" {
                    assert_eq!(value as u64, last, "{line}: the last bucket");
                }
            }
            ("histogram", "_bucket") => {
                let (others, bound) = labels.rsplit_once("le=").unwrap();
                let is_first = bucket != others || bound == "\"0.0001\"" || bound == "\"0.0\"";
                assert!(is_first || value as u64 >= last, "{line}: cumulative");
                (bucket, last) = (others.to_owned(), value as u64);
            }
            _ => panic!("{line} of a {type_}"),
        }
    }
    assert!(seen.len() > 20);
}

/// With the tool of Prometheus, where there is one.
#[test]
fn metric_2_promtool_has_nothing_to_say() {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    let mut text = String::new();
    busy().server().metrics().write_prometheus(&mut text);
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut promtool) = command.spawn() else {
        assert!(std::env::var_os("CI_PROMTOOL").is_none(), "no promtool");
        return;
    };
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn metric_3_distributions_tell_how_long_it_took() {
    let faulty = Faulty::new();
    let world = World::with_stores(faulty.stores(), |builder, _| builder);
    world.account("nurse");
    let romeo = world.online("romeo", "r");
    faulty.decide(|_, _| StoreFault::Slow);
    romeo.send("<message to='nurse@example.com' type='chat'><body>1</body></message>");
    world.advance(3 * SECOND);
    faulty.release();
    world.settle();
    let metrics = world.metrics();
    let calls = metrics.store_calls.iter();
    let (_, push) = calls.clone().find(|(call, _)| *call == StoreCall::PushMessage).unwrap();
    assert_eq!((push.count(), push.sum()), (1, 3.0));
    let buckets: Vec<_> = push.buckets().collect();
    assert!(buckets.contains(&(2.5, 0)) && buckets.contains(&(10.0, 1)), "{buckets:?}");
    assert_eq!(buckets.last(), Some(&(f64::INFINITY, 1)));
}

#[test]
fn metric_3_what_waits_is_looked_at_with_every_snapshot() {
    let world = World::with(|builder, _| builder.extension(xep::StreamManagement::new()));
    let romeo = world.online("romeo", "r");
    let juliet = world.client("juliet", "j");
    let _enabled = juliet.ask("<enable xmlns='urn:xmpp:sm:3'/>");
    juliet.send("<presence/>");
    let before = world.metrics();
    assert_eq!((before.queue_bytes.count(), before.queue_bytes.sum()), (2, 0.0));
    romeo.send("<message to='juliet@example.com'><body>1</body></message>");
    world.advance(2 * SECOND);
    let after = world.metrics();
    assert_eq!(after.queue_bytes.count(), 4);
    assert!(after.unacknowledged.sum() >= before.unacknowledged.sum() + 2.0);
    juliet.recorder().refuse(Some(SendError::Full));
    romeo.send("<message to='juliet@example.com'><body>2</body></message>");
    assert!(world.metrics().queue_bytes.sum() > 0.0);
}

/// One message of 64, from its sender to the wire of its recipient.
#[test]
fn metric_4_the_way_of_some_messages_is_measured() {
    let world = World::new();
    let (romeo, juliet) = (world.online("romeo", "r"), world.online("juliet", "j"));
    let send = |n| {
        (0..n)
            .for_each(|_| romeo.send("<message to='juliet@example.com'><body>1</body></message>"));
    };
    send(63);
    assert_eq!(world.metrics().delivery.count(), 0);
    send(1);
    let delivery = world.metrics().delivery;
    assert_eq!((delivery.count(), delivery.sum()), (1, 0.0));
    // A recipient that does not read: measured when its connection has written.
    send(63);
    juliet.recorder().refuse(Some(SendError::Full));
    send(1);
    world.advance(3 * SECOND);
    assert_eq!(world.metrics().delivery.count(), 1);
    juliet.recorder().refuse(None);
    juliet.recorder().drained();
    juliet.recorder().drained();
    let delivery = world.metrics().delivery;
    assert_eq!((delivery.count(), delivery.sum()), (2, 3.0));
}
