//! The hooks of an extension, as the driver calls them.

use crate::common::wire;
use std::time::Duration;

use wire::World;
use xmpp_session::connection::{Close, Recorder};
use xmpp_session::extension::{Extension, Flow, Liveness, Negotiated};
use xmpp_session::session::{Authed, BindRequest, Bound, Session, SessionHandle, SessionRegistry};
use xmpp_session::stream::{Nonza, StreamCondition};

/// Does what an element in its namespace says.
struct Obedient;

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
        Some(Duration::from_secs(100))
    }

    fn handle_timeout(&self, _: &SessionHandle<Recorder>, now: Duration) -> Liveness {
        if now < Duration::from_secs(100) { Liveness::Alive } else { Liveness::Lost }
    }

    fn ask_for_life(&self, _: &SessionHandle<Recorder>) -> Flow {
        panic!("in the host")
    }
}

fn element(name: &str) -> String {
    format!("<{name} xmlns='{NAMESPACE}'/>")
}

fn world() -> World {
    World::with(|builder, _| builder.extension(Obedient))
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
    assert!(!romeo.is_connected() && world.server().registry().len() == 1);
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
