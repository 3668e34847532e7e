//! Iq stanzas on the wire (rules IQ-1 to IQ-6, IQ-T1, IQ-T2).

use crate::common::wire;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use wire::{Client, Elsewhere, World};
use xmpp_session::connection::Recorder;
use xmpp_session::extension::{Extension, IqReply, IqRequest};
use xmpp_session::minidom::Element;
use xmpp_session::server::Limits;
use xmpp_session::stanza::{Condition, Stanza};

const NS: &str = "urn:example";
const ROMEO: &str = "romeo@example.com/orchard";

/// A handler of the host, for who is entitled.
#[derive(Clone, Default)]
struct Handler {
    asked: Arc<AtomicUsize>,
    open: Arc<AtomicBool>,
}

impl Extension<Recorder> for Handler {
    fn iq(&self, request: &IqRequest<'_, Recorder>) -> Option<IqReply> {
        if request.query().namespace() != NS || !request.is_entitled() {
            return None;
        }
        self.asked.fetch_add(1, Ordering::SeqCst);
        let open = Arc::clone(&self.open);
        let done = || Ok(Some(Element::bare("done", NS)));
        match request.query().name() {
            "q" => Some(IqReply::result(Element::bare("done", NS))),
            "refused" => Some(IqReply::error(Condition::NotAllowed)),
            "panics" => panic!("the handler's"),
            "panics-later" => Some(IqReply::Later(Box::pin(async { panic!("the handler's") }))),
            "waits" => Some(IqReply::Later(Box::pin(std::future::poll_fn(move |_| {
                if open.load(Ordering::SeqCst) { Poll::Ready(done()) } else { Poll::Pending }
            })))),
            _ => None,
        }
    }
}

fn error(from: &str, id: &str, type_: &str, condition: &str) -> String {
    format!(
        "<iq from='{from}' to='{ROMEO}'{id} type='error'><error type='{type_}'>\
         <{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
    )
}

fn unavailable(from: &str) -> String {
    error(from, " id='1'", "cancel", "service-unavailable")
}

fn done(from: &str) -> String {
    format!("<iq from='{from}' to='{ROMEO}' id='1' type='result'><done xmlns='{NS}'/></iq>")
}

/// Romeo, his friend Juliet, and Tybalt, whom he does not know; each with one session.
struct Verona {
    world: World,
    romeo: Client,
    juliet: Client,
    tybalt: Client,
    elsewhere: Elsewhere,
}

impl Verona {
    fn new(handler: Option<Handler>, limits: Limits) -> Self {
        let elsewhere = Elsewhere::default();
        let router = elsewhere.clone();
        let world = World::with(|builder, _| {
            let builder = builder.router(router).limits(limits);
            match handler {
                Some(handler) => builder.extension(handler),
                None => builder,
            }
        });
        world.friends("romeo", "juliet");
        let client = |node, resource| world.online(node, resource);
        let (romeo, juliet, tybalt) =
            (client("romeo", "orchard"), client("juliet", "balcony"), client("tybalt", "street"));
        let it = Self { romeo, juliet, tybalt, world, elsewhere };
        it.delivered();
        let _presence = it.romeo.received();
        it
    }

    /// What came to anybody but the sender.
    fn delivered(&self) -> Vec<String> {
        let mut all = self.juliet.received();
        all.extend(self.tybalt.received());
        all.extend(self.elsewhere.take());
        all
    }

    /// `handler`, `D`, `E` or `S`.
    fn outcome(&self, to: Option<&str>, type_: &str) -> &'static str {
        let attribute = to.map(|to| format!(" to='{to}'")).unwrap_or_default();
        let payload = "<q xmlns='urn:example'/>";
        let answers =
            self.romeo.ask(&format!("<iq type='{type_}' id='1'{attribute}>{payload}</iq>"));
        let delivered = self.delivered();
        let who = to.unwrap_or("romeo@example.com");
        let whole = format!("<iq from='{ROMEO}' to='{who}' id='1' type='{type_}'>{payload}</iq>");
        match (&*answers, &*delivered) {
            ([], []) => "S",
            ([], [one]) if *one == whole => "D",
            ([one], []) if *one == done(who) => "handler",
            ([one], []) if *one == unavailable(who) => "E",
            other => panic!("{type_} to {to:?}: {other:?}"),
        }
    }
}

/// Where an iq of Romeo can be addressed to, in the order of the columns; `handler` stands for a
/// handler that serves those that are entitled.
const COLUMNS: [(Option<&str>, &str, &str); 12] = [
    (None, "handler", "S"),
    (Some("romeo@example.com"), "handler", "S"),
    (Some("juliet@example.com"), "handler", "S"),
    (Some("tybalt@example.com"), "E", "S"),
    (Some("juliet@example.com/balcony"), "D", "D"),
    (Some("tybalt@example.com/street"), "E", "D"),
    (Some("juliet@example.com/gone"), "E", "S"),
    (Some("romeo@example.com/gone"), "E", "S"),
    (Some("nobody@example.com"), "E", "S"),
    (Some("nobody@example.com/gone"), "E", "S"),
    (Some("example.com"), "handler", "S"),
    (Some("example.com/x"), "handler", "S"),
];

#[test]
fn iq_t1_requests() {
    let with = Verona::new(Some(Handler::default()), Limits::default());
    let without = Verona::new(None, Limits::default());
    for (to, request, _) in COLUMNS {
        for type_ in ["get", "set"] {
            assert_eq!(with.outcome(to, type_), request, "{type_} to {to:?}");
            let bare = if request == "handler" { "E" } else { request };
            assert_eq!(without.outcome(to, type_), bare, "{type_} to {to:?}");
        }
    }
}

#[test]
fn iq_t2_responses() {
    let verona = Verona::new(Some(Handler::default()), Limits::default());
    for (to, _, response) in COLUMNS {
        for type_ in ["result", "error"] {
            assert_eq!(verona.outcome(to, type_), response, "{type_} to {to:?}");
        }
    }
}

#[test]
fn iq_t1_a_request_to_the_own_other_session_is_delivered() {
    let verona = Verona::new(None, Limits::default());
    let phone = verona.world.client("romeo", "phone");
    let to = "romeo@example.com/phone";
    assert!(verona.romeo.ask(&format!("<iq type='get' id='1' to='{to}'><q/></iq>")).is_empty());
    let expected = format!("<iq from='{ROMEO}' to='{to}' id='1' type='get'><q/></iq>");
    assert_eq!(phone.received(), [expected]);
}

#[test]
fn iq_1_a_request_to_a_bare_jid_reaches_no_session() {
    let verona = Verona::new(None, Limits::default());
    for type_ in ["get", "set", "result", "error"] {
        verona.romeo.send(&format!("<iq type='{type_}' id='1' to='juliet@example.com'><q/></iq>"));
        assert_eq!(verona.delivered(), [] as [&str; 0]);
    }
}

#[test]
fn iq_2_directed_presence_entitles_every_resource_of_the_bare_jid() {
    let verona = Verona::new(None, Limits::default());
    let room = "room@rooms.example";
    let iq = |from: &str| {
        let iq = Stanza::iq("get").from(from).to("tybalt@example.com/street").id("1");
        verona.world.server().send(iq.child(&Element::bare("q", NS)).build());
        verona.world.settle();
        (verona.tybalt.received().len(), verona.elsewhere.take().len())
    };
    assert_eq!(iq(&format!("{room}/romeo")), (0, 1), "a stranger's is bounced");
    verona.tybalt.send(&format!("<presence to='{room}/tybalt'/>"));
    let _presence = verona.elsewhere.take();
    assert_eq!(iq(&format!("{room}/romeo")), (1, 0), "another occupant's");
    assert_eq!(iq(room), (1, 0), "the room's");
    assert_eq!(iq("other@rooms.example/romeo"), (0, 1));
    verona.tybalt.send(&format!("<presence to='{room}/tybalt' type='unavailable'/>"));
    let _presence = verona.elsewhere.take();
    assert_eq!(iq(&format!("{room}/romeo")), (0, 1));
}

#[test]
fn iq_2_domains_of_ours_always_pass() {
    let verona = Verona::new(None, Limits::default());
    for (from, passes) in [("example.com", 1), ("example.net", 0)] {
        let iq = Stanza::iq("get").from(from).to("tybalt@example.com/street").id("1");
        verona.world.server().send(iq.child(&Element::bare("q", NS)).build());
        verona.world.settle();
        assert_eq!(verona.tybalt.received().len(), passes, "{from}");
    }
}

#[test]
fn iq_2_the_check_can_be_switched_off() {
    let mut limits = Limits::default();
    limits.iq_needs_presence = false;
    let verona = Verona::new(None, limits);
    assert_eq!(verona.outcome(Some("tybalt@example.com/street"), "get"), "D");
    assert_eq!(verona.outcome(Some("tybalt@example.com/gone"), "get"), "E");
}

#[test]
fn iq_3_what_is_none_of_the_four_types_is_a_bad_request() {
    let verona = Verona::new(Some(Handler::default()), Limits::default());
    let targets = [
        None,
        Some("example.com"),
        Some("juliet@example.com"),
        Some("juliet@example.com/balcony"),
        Some("nobody@example.com"),
        Some("romeo@remote.example/x"),
    ];
    for to in targets {
        let attribute = to.map(|to| format!(" to='{to}'")).unwrap_or_default();
        let who = to.unwrap_or("romeo@example.com");
        for (attributes, payload) in [
            (" id='1'", "<q xmlns='urn:example'/>"),
            (" id='1' type='GET'", "<q xmlns='urn:example'/>"),
            (" id='1' type=''", "<q xmlns='urn:example'/>"),
            (" id='1' type='get'", ""),
            (" id='1' type='set'", "text"),
            (" id='1' type='get'", "<q xmlns='urn:example'/><q xmlns='urn:example'/>"),
            (" type='get'", "<q xmlns='urn:example'/>"),
            (" type='set'", "<q xmlns='urn:example'/>"),
        ] {
            let answer = verona.romeo.answer(&format!("<iq{attribute}{attributes}>{payload}</iq>"));
            let id = if attributes.contains(" id") { " id='1'" } else { "" };
            assert_eq!(answer, error(who, id, "modify", "bad-request"), "{attributes} {payload}");
            assert_eq!(verona.delivered(), [] as [&str; 0], "{attributes} {payload} to {to:?}");
        }
    }
}

#[test]
fn iq_4_answers_that_answer_nothing_are_dropped() {
    let verona = Verona::new(Some(Handler::default()), Limits::default());
    for (to, ..) in COLUMNS.into_iter().chain([(Some("x@remote.example/x"), "", "")]) {
        let attribute = to.map(|to| format!(" to='{to}'")).unwrap_or_default();
        // Without an id they are malformed.
        for type_ in ["result", "error"] {
            let answers = verona.romeo.ask(&format!("<iq type='{type_}'{attribute}><q/></iq>"));
            assert!(answers.is_empty(), "{answers:?}");
            assert_eq!(verona.delivered(), [] as [&str; 0], "{type_} to {to:?}");
        }
    }
}

#[test]
fn iq_5_every_request_gets_one_answer_whatever_its_handler_does() {
    let handler = Handler::default();
    let verona = Verona::new(Some(handler.clone()), Limits::default());
    for (name, type_, condition) in [
        ("refused", "cancel", "not-allowed"),
        ("panics", "cancel", "internal-server-error"),
        ("panics-later", "cancel", "internal-server-error"),
        ("nobodys", "cancel", "service-unavailable"),
    ] {
        let answer = verona.romeo.answer(&format!(
            "<iq type='get' id='1' to='example.com'><{name} xmlns='urn:example'/></iq>"
        ));
        assert_eq!(answer, error("example.com", " id='1'", type_, condition), "{name}");
    }
    assert_eq!(verona.outcome(None, "get"), "handler", "the session goes on");
}

#[test]
fn iq_5_a_handler_that_takes_over_60_seconds_has_failed() {
    let handler = Handler::default();
    let verona = Verona::new(Some(handler.clone()), Limits::default());
    verona.romeo.send("<iq type='get' id='1' to='example.com'><waits xmlns='urn:example'/></iq>");
    verona.world.advance(Duration::from_secs(59));
    assert!(verona.romeo.received().is_empty());
    verona.world.advance(Duration::from_secs(1));
    let late = error("example.com", " id='1'", "wait", "resource-constraint");
    assert_eq!(verona.romeo.received(), [late]);
    // Its late answer is dropped.
    handler.open.store(true, Ordering::SeqCst);
    verona.world.advance(Duration::from_secs(10));
    assert!(verona.romeo.received().is_empty());
}

#[test]
fn iq_5_a_handler_that_waits_keeps_the_order_of_the_stream() {
    let handler = Handler::default();
    let verona = Verona::new(Some(handler.clone()), Limits::default());
    verona.romeo.send(
        "<iq type='get' id='1' to='example.com'><waits xmlns='urn:example'/></iq>\
         <message to='juliet@example.com'><body>2</body></message>",
    );
    assert_eq!(verona.delivered(), [] as [&str; 0], "STREAM-23");
    handler.open.store(true, Ordering::SeqCst);
    verona.world.advance(Duration::from_secs(60));
    assert_eq!(verona.romeo.received(), [done("example.com")]);
    assert_eq!(verona.delivered().len(), 1);
}

#[test]
fn iq_6_what_is_built_in_is_answered_and_all_else_is_the_hosts() {
    let handler = Handler::default();
    let verona = Verona::new(Some(handler.clone()), Limits::default());
    let roster =
        verona.romeo.answer("<iq type='get' id='1'><query xmlns='jabber:iq:roster'/></iq>");
    assert!(roster.contains("<item jid='juliet@example.com'"), "{roster}");
    let session = "<session xmlns='urn:ietf:params:xml:ns:xmpp-session'/>";
    let answer = verona.romeo.answer(&format!("<iq type='set' id='1'>{session}</iq>"));
    assert_eq!(answer, format!("<iq from='romeo@example.com' to='{ROMEO}' id='1' type='result'/>"));
    let bind = "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>";
    let answer = verona.romeo.answer(&format!("<iq type='set' id='1'>{bind}</iq>"));
    assert_eq!(answer, error("romeo@example.com", " id='1'", "cancel", "not-allowed"));
    assert_eq!(handler.asked.load(Ordering::SeqCst), 0);
    assert_eq!(verona.outcome(None, "set"), "handler");
    assert_eq!(handler.asked.load(Ordering::SeqCst), 1);
}
