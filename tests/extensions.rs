//! The hooks of an extension, as the driver calls them.

use crate::common::wire;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use wire::World;
use xmpp_session::connection::{Close, Recorder};
use xmpp_session::environment::Environment as _;
use xmpp_session::extension::{
    Admission, Delivery, Extension, Flow, Liveness, Negotiated, Outcome, Target,
};
use xmpp_session::minidom::Element;
use xmpp_session::session::{
    AccountState, Authed, BindRequest, Bound, Epoch, Session, SessionHandle, SessionRegistry,
};
use xmpp_session::stanza::{Frame, Stanza};
use xmpp_session::stream::{Nonza, StreamCondition};
use xmpp_session::xep::Disco;

/// Does what an element in its namespace says. A session is lost 100 s behind this time.
#[derive(Clone, Default)]
struct Obedient(Arc<Mutex<Duration>>);

impl Obedient {
    fn ends(&self) -> Duration {
        *self.0.lock().unwrap() + Duration::from_secs(100)
    }
}

const NAMESPACE: &str = "urn:example:obedient";

fn flow(element: &Nonza) -> Flow {
    match element.name() {
        _ if element.namespace() != NAMESPACE => Flow::Next,
        "done" => Flow::Done,
        "close" => Flow::Close(StreamCondition::Reset.into()),
        "panic" => panic!("in the host"),
        _ => Flow::Next,
    }
}

impl Extension<Recorder> for Obedient {
    fn unauthenticated(&self, element: &Nonza, out: &mut Vec<u8>) -> Flow {
        out.extend_from_slice(b"<early/>");
        flow(element)
    }

    fn authenticated(
        &self,
        session: Session<Authed, Recorder>,
        registry: &SessionRegistry<Recorder>,
        element: &Nonza,
    ) -> Negotiated<Recorder> {
        if element.name() == "bind" {
            let request = BindRequest::new().lingers();
            return Negotiated::Bound(session.bind(registry, request).unwrap());
        }
        match flow(element) {
            Flow::Next => Negotiated::Next(session),
            Flow::Done => Negotiated::Done(session),
            Flow::Close(error) => Negotiated::Close(error),
        }
    }

    fn nonza(&self, _: &mut Session<Bound, Recorder>, element: &Nonza) -> Flow {
        flow(element)
    }

    fn next_timeout(&self, session: &SessionHandle<Recorder>) -> Option<Duration> {
        assert!(session.resource().as_str() != "panics", "in the host");
        Some(self.ends())
    }

    fn handle_timeout(&self, _: &SessionHandle<Recorder>, now: Duration) -> Liveness {
        if now < self.ends() { Liveness::Alive } else { Liveness::Lost }
    }

    fn ask_for_life(&self, _: &SessionHandle<Recorder>) -> Flow {
        panic!("in the host")
    }
}

fn element(name: &str) -> String {
    format!("<{name} xmlns='{NAMESPACE}'/>")
}

fn world() -> World {
    let obedient = Obedient::default();
    let world = World::with(|builder, _| builder.extension(obedient.clone()));
    // Nodes take their time to begin.
    *obedient.0.lock().unwrap() = world.environment().now();
    world
}

/// The outcomes of an element in each state of a stream.
#[test]
fn stream_16_elements_go_to_extensions_first() {
    let world = world();
    let unauthenticated = || {
        let client = world.connect();
        client.open();
        let _features = client.received();
        client
    };
    let states: [(&dyn Fn() -> wire::Client, &str); 3] = [
        (&unauthenticated, "<early/>"),
        (&|| world.authenticated("romeo"), ""),
        (&|| world.client("romeo", "orchard"), ""),
    ];
    for (client, answer) in states {
        let one = client();
        assert_eq!(one.ask(&element("done")).concat(), answer);
        assert!(one.is_connected());
        for (name, condition) in [
            ("close", "reset"),
            ("panic", "internal-server-error"),
            ("x", "unsupported-stanza-type"),
        ] {
            let one = client();
            let error = one.ask(&element(name)).concat();
            assert!(error.contains(&format!("<{condition} ")), "{name}: {error}");
            assert!(error.ends_with("</stream:stream>"));
        }
    }
}

#[test]
fn a_session_that_an_extension_binds_is_like_any_other() {
    let world = world();
    let (romeo, juliet) = (world.authenticated("romeo"), world.client("juliet", "balcony"));
    assert!(romeo.ask(&element("bind")).is_empty());
    romeo.send("<message to='juliet@example.com/balcony'/>");
    assert!(juliet.received()[0].contains(&romeo.jid()));
    romeo.send("</stream:stream>");
    assert!(!romeo.is_connected() && world.sessions() == 1);
}

#[test]
fn stream_29_a_transport_that_an_extension_calls_lost_is_dropped_without_a_word() {
    let world = world();
    let (romeo, juliet) = (world.client("romeo", "orchard"), world.client("juliet", "panics"));
    world.advance(Duration::from_secs(99));
    assert!(romeo.is_connected());
    world.advance(Duration::from_secs(1));
    assert!(!romeo.is_connected() && romeo.received().is_empty());
    assert_eq!(romeo.recorder().closed(), Some(Close::Abort));
    // One that panics has nothing to say, and the silent are asked by a ping.
    world.advance(Duration::from_secs(1700));
    assert!(juliet.is_connected() && juliet.received().concat().contains("urn:xmpp:ping"));
}

/// Panics where it is called by this name.
struct Panics(&'static str);

impl Panics {
    fn at(&self, name: &str) {
        assert!(self.0 != name, "in the host");
    }
}

impl Extension<Recorder> for Panics {
    fn outbound(&self, _: &SessionHandle<Recorder>, _: &Stanza) {
        self.at("outbound");
    }

    fn delivered(&self, _: &Delivery<'_, Recorder>) {
        self.at("delivered");
    }

    fn admit(&self, _: &AccountState, _: &Stanza) -> Admission {
        self.at("admit");
        Admission::Accept
    }

    fn disco_features(&self, _: Target) -> &[&'static str] {
        self.at("disco_features");
        &[]
    }

    fn pre_drain(&self, _: &SessionHandle<Recorder>, _: Epoch, out: &mut dyn FnMut(Frame<'_>)) {
        out(Frame::element(b"<whole/>"));
        self.at("pre_drain");
    }
}

/// Notes what became of messages.
#[derive(Clone, Default)]
struct Outcomes(Arc<Mutex<Vec<Outcome>>>);

impl Outcomes {
    /// Those since the last call; between nodes, but that the sender's has handed it on.
    fn take(&self, world: &World) -> Vec<Outcome> {
        let mut outcomes = std::mem::take(&mut *self.0.lock().unwrap());
        outcomes.retain(|outcome| !world.is_several() || *outcome != Outcome::Routed);
        outcomes
    }
}

impl Extension<Recorder> for Outcomes {
    fn delivered(&self, delivery: &Delivery<'_, Recorder>) {
        self.0.lock().unwrap().push(delivery.outcome());
    }

    fn pre_drain(&self, _: &SessionHandle<Recorder>, _: Epoch, out: &mut dyn FnMut(Frame<'_>)) {
        out(Frame::element(b"<later/>"));
    }
}

/// A panic takes along neither the other recipients, nor the other extensions, nor the caller.
#[test]
fn an_extension_that_panics_loses_its_own_call() {
    for place in ["", "outbound", "delivered", "disco_features", "pre_drain"] {
        let outcomes = Outcomes::default();
        let world = World::with(|builder, _| {
            let builder = builder.extension(Panics(place)).extension(outcomes.clone());
            builder.extension(Disco::new())
        });
        let devices = ["balcony", "chamber"].map(|name| world.online("juliet", name));
        let romeo = world.client("romeo", "orchard");
        devices.iter().chain([&romeo]).for_each(|client| drop(client.received()));
        romeo.send("<message to='juliet@example.com' type='chat'><body>1</body></message>");
        let message = Stanza::message().from("a@example.net").to("juliet@example.com");
        let body = Element::builder("body", "jabber:client").append("2").build();
        world.server().send(message.child(&body).build());
        for device in &devices {
            let got = device.received().concat();
            assert!(got.contains("<body>1<") && got.contains("<body>2<"), "{place}: {got}");
            assert!(got.ends_with("</message><whole/><later/>"), "{place}: {got}");
        }
        assert!(!romeo.received().concat().contains("error"), "{place}");
        assert_eq!(outcomes.take(&world), [Outcome::Delivered; 2], "{place}");
        let info = "<query xmlns='http://jabber.org/protocol/disco#info'/>";
        let answer = romeo.ask(&format!("<iq type='get' id='1' to='example.com'>{info}</iq>"));
        assert!(answer.concat().contains("type='result'"), "{place}: {answer:?}");
    }
}

#[test]
fn an_extension_that_panics_over_a_stanza_of_the_host_ends_that_stanza() {
    let world = World::with(|builder, _| builder.extension(Panics("admit")));
    let juliet = world.online("juliet", "balcony");
    drop(juliet.received());
    let message = Stanza::message().from("a@example.net").to("juliet@example.com").id("1");
    world.server().send(message.build());
    // Between nodes nothing is written where nothing came.
    let written = if world.is_several() { "" } else { "<whole/>" };
    assert_eq!(juliet.received().concat(), written);
}

#[test]
fn msg_5_extensions_are_told_that_there_is_no_such_account() {
    let outcomes = Outcomes::default();
    let world = World::with(|builder, _| builder.extension(outcomes.clone()));
    let romeo = world.client("romeo", "orchard");
    world.account("juliet");
    for (to, expected) in [
        ("nobody@example.com", Outcome::NoAccount),
        ("nobody@example.com/home", Outcome::NoAccount),
        ("juliet@example.com", Outcome::Stored),
    ] {
        romeo.send(&format!("<message to='{to}' type='chat'><body>hi</body></message>"));
        assert_eq!(outcomes.take(&world), [expected], "{to}");
        assert!(!romeo.received().concat().contains("error"), "{to}");
    }
}
