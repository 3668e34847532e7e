//! Stanzas in general, on the wire (rules STZ-1 to STZ-14).

use crate::common::wire;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use wire::{Elsewhere, World, now, xml};
use xmpp_session::jid::BareJid;
use xmpp_session::minidom::Element;
use xmpp_session::rules::roster::Subscription;
use xmpp_session::server::{RequestError, RouteError, Router};
use xmpp_session::stanza::{Stanza, canonicalise};
use xmpp_session::store::{Memory, OfflineId, OfflineMessage, OfflineStore, StoreFuture, Stores};

const ROMEO: &str = "romeo@example.com/orchard";
const NONE: [&str; 0] = [];

fn with_elsewhere() -> (World, Elsewhere) {
    let elsewhere = Elsewhere::default();
    let router = elsewhere.clone();
    (World::with(|builder, _| builder.router(router)), elsewhere)
}

fn error(kind: &str, from: &str, id: &str, type_: &str, condition: &str) -> String {
    format!(
        "<{kind} from='{from}' to='{ROMEO}'{id} type='error'><error type='{type_}'>\
         <{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></{kind}>"
    )
}

#[test]
fn stz_1_from_is_the_full_jid_whatever_the_client_wrote() {
    let (world, elsewhere) = with_elsewhere();
    world.friends("romeo", "juliet");
    let (romeo, juliet) = (world.online("romeo", "orchard"), world.client("juliet", "balcony"));
    for from in
        ["", "evil@example.com/x", "romeo@example.com", "romeo@example.com/other", "@@", "/"]
    {
        for to in ["juliet@example.com/balcony", "x@remote.example/y"] {
            for (name, rest) in [
                ("message", "><body/></message>"),
                ("presence", "/>"),
                ("iq", " type='get' id='1'><q xmlns='urn:example'/></iq>"),
            ] {
                let answers = romeo.ask(&format!("<{name} from='{from}' to='{to}'{rest}"));
                assert_eq!(answers, NONE);
                let got = [juliet.received(), elsewhere.take()].concat().concat();
                let start = format!("<{name} from='{ROMEO}' to='{to}'");
                assert!(got.starts_with(&start), "{from}: {got}");
                assert_eq!(got.matches("from=").count(), 1);
            }
        }
    }
}

#[test]
fn stz_1_from_is_the_bare_jid_in_the_four_subscription_types() {
    let (world, elsewhere) = with_elsewhere();
    world.roster("romeo", "x@remote.example", Subscription::Both);
    let romeo = world.client("romeo", "orchard");
    let send = |type_: &str| {
        romeo.send(&format!("<presence from='a@b/c' type='{type_}' to='x@remote.example'/>"));
        let got = elsewhere.take().concat();
        assert!(
            got.starts_with("<presence from='romeo@example.com' to='x@remote.example'"),
            "{got}"
        );
        assert!(got.contains(&format!("type='{type_}'")), "{got}");
    };
    for type_ in ["unsubscribed", "unsubscribe", "subscribe"] {
        send(type_);
    }
    let request = Stanza::presence().from("x@remote.example").to("romeo@example.com");
    world.server().send(request.type_("subscribe").build());
    send("subscribed");
}

#[test]
fn stz_2_to_stays_as_it_was_sent() {
    let (world, elsewhere) = with_elsewhere();
    world.friends("romeo", "juliet");
    let (romeo, juliet) = (world.online("romeo", "orchard"), world.online("juliet", "balcony"));
    let _presence = juliet.received();
    for to in [
        "juliet@example.com/balcony",
        "Juliet@Example.COM/balcony",
        "juliet@example.com./balcony",
        "Someone@Remote.Example/x",
    ] {
        for (name, rest) in [
            ("message", "><body/></message>"),
            ("presence", "/>"),
            ("iq", " type='get' id='1'><q xmlns='urn:example'/></iq>"),
        ] {
            romeo.send(&format!("<{name} to='{to}'{rest}"));
            let got = [juliet.received(), elsewhere.take()].concat();
            assert_eq!(got, [format!("<{name} from='{ROMEO}' to='{to}'{}", order(rest))]);
        }
    }
    for to in ["juliet@example.com", "JULIET@example.com"] {
        romeo.send(&format!("<message to='{to}'><body/></message>"));
        assert_eq!(
            juliet.received(),
            [format!("<message from='{ROMEO}' to='{to}'><body/></message>")]
        );
    }
}

/// We write the id before the type.
fn order(rest: &str) -> String {
    rest.replace("type='get' id='1'", "id='1' type='get'")
}

#[test]
fn stz_3_what_the_server_makes_is_from_the_domain_and_to_the_full_jid() {
    let world = World::new();
    let romeo = world.client("romeo", "orchard");
    for to in ["example.com", "example.com/x"] {
        let answer = romeo.answer(&format!("<iq type='get' id='1' to='{to}'><q/></iq>"));
        assert_eq!(answer, error("iq", to, " id='1'", "cancel", "service-unavailable"));
    }
    world.advance(Duration::from_secs(1800));
    let ping = romeo.received().concat();
    assert!(ping.starts_with(&format!("<iq from='example.com' to='{ROMEO}'")), "{ping}");
}

#[test]
fn stz_3_what_the_account_says_is_from_the_bare_jid_and_to_the_full_jid() {
    let world = World::new();
    let romeo = world.client("romeo", "orchard");
    let start = format!("<iq from='romeo@example.com' to='{ROMEO}'");
    let roster = "<query xmlns='jabber:iq:roster'";
    for to in ["", " to='romeo@example.com'"] {
        let answer = romeo.answer(&format!("<iq type='get' id='1'{to}>{roster}/></iq>"));
        assert!(answer.starts_with(&start), "{answer}");
        let answer = romeo.answer(&format!("<iq type='get' id='1'{to}><q/></iq>"));
        assert!(answer.starts_with(&start) && answer.contains("type='error'"), "{answer}");
    }
    let item = "<item jid='juliet@example.com'/></query>";
    for stanza in romeo.ask(&format!("<iq type='set' id='2'>{roster}>{item}</iq>")) {
        assert!(stanza.starts_with(&start), "the push and the result: {stanza}");
    }
}

#[test]
fn stz_4_a_message_without_to_is_for_the_own_account() {
    let world = World::new();
    let (romeo, phone) = (world.online("romeo", "orchard"), world.online("romeo", "phone"));
    let _presence = (romeo.received(), phone.received());
    romeo.send("<message id='m' type='chat'><body>1</body></message>");
    let expected = format!("<message from='{ROMEO}' id='m' type='chat'><body>1</body></message>");
    assert_eq!(romeo.received(), std::slice::from_ref(&expected));
    assert_eq!(phone.received(), [expected]);
}

#[test]
fn stz_4_presence_without_to_is_broadcast() {
    let world = World::new();
    world.friends("romeo", "juliet");
    let (juliet, romeo) = (world.online("juliet", "balcony"), world.client("romeo", "orchard"));
    romeo.send("<presence/>");
    assert_eq!(juliet.received(), [format!("<presence from='{ROMEO}' to='juliet@example.com'/>")]);
}

#[test]
fn stz_4_presence_that_is_for_somebody_needs_an_address() {
    let world = World::new();
    let romeo = world.online("romeo", "orchard");
    for type_ in ["subscribe", "subscribed", "unsubscribe", "unsubscribed", "probe"] {
        let answer = romeo.answer(&format!("<presence type='{type_}' id='p'/>"));
        let from = "romeo@example.com";
        assert_eq!(answer, error("presence", from, " id='p'", "modify", "bad-request"), "{type_}");
    }
    assert!(romeo.is_connected() && romeo.session().is_available());
}

#[test]
fn stz_5_a_bad_address_is_answered_by_the_own_account_and_not_echoed() {
    let (world, elsewhere) = with_elsewhere();
    let romeo = world.online("romeo", "orchard");
    let long = format!("{}@example.com", "n".repeat(1024));
    for to in
        ["", "@example.com", "juliet@", "juliet@example.com/", "a b@example.com", "a@b@c", &long]
    {
        for (name, rest) in [
            ("message", "><body/></message>"),
            ("message", " type='headline'/>"),
            ("presence", "/>"),
            ("presence", " type='unavailable'/>"),
            ("presence", " type='subscribe'/>"),
            ("iq", " type='get'><q xmlns='urn:example'/></iq>"),
            ("iq", " type='set'><q xmlns='urn:example'/></iq>"),
        ] {
            let answer = romeo.answer(&format!("<{name} to='{to}' id='1'{rest}"));
            let from = "romeo@example.com";
            let expected = error(name, from, " id='1'", "modify", "jid-malformed");
            assert_eq!(answer, expected, "{name}{rest} to {to:?}");
        }
    }
    assert_eq!(elsewhere.take(), NONE);
}

#[test]
fn stz_6_an_error_has_the_id_and_swapped_addresses_and_nothing_of_the_cause() {
    let world = World::new();
    let romeo = world.client("romeo", "orchard");
    let gone = "Nobody@example.com/x";
    let payload = "<body>Hi</body><x xmlns='urn:example'/>";
    for id in ["", " id=''", " id='1'", " id='&lt;&amp;&apos;'"] {
        let answer =
            romeo.answer(&format!("<message to='{gone}'{id} type='groupchat'>{payload}</message>"));
        assert_eq!(answer, error("message", gone, id, "cancel", "service-unavailable"));
    }
    let answer = romeo.answer(&format!("<iq to='{gone}' id='1' type='set'><q>text</q></iq>"));
    assert_eq!(answer, error("iq", gone, " id='1'", "cancel", "service-unavailable"));
    let answer = romeo.answer("<presence id='1'><priority>x</priority></presence>");
    let own = "romeo@example.com";
    assert_eq!(answer, error("presence", own, " id='1'", "modify", "bad-request"));
}

#[test]
fn stz_7_errors_and_results_are_never_answered() {
    let world = World::new();
    world.account("juliet");
    let tybalt = world.client("tybalt", "street");
    let romeo = world.client("romeo", "orchard");
    let targets = [
        "",
        " to=''",
        " to='@'",
        " to='example.com'",
        " to='example.com/x'",
        " to='romeo@example.com'",
        " to='juliet@example.com'",
        " to='juliet@example.com/x'",
        " to='nobody@example.com'",
        " to='nobody@example.com/x'",
        " to='tybalt@example.com'",
        " to='x@remote.example'",
    ];
    for to in targets {
        for stanza in [
            "message{} type='error'><body/></message>",
            "message{} id='1' type='error'/>",
            "presence{} id='1' type='error'/>",
            "iq{} id='1' type='error'/>",
            "iq{} type='error'/>",
            "iq{} id='1' type='result'/>",
            "iq{} type='result'/>",
            "iq{} id='1' type='result'><a xmlns='urn:x'/><b xmlns='urn:x'/></iq>",
            "iq{} id='1' type='error'><query xmlns='jabber:iq:roster'/></iq>",
        ] {
            let answers = romeo.ask(&format!("<{}", stanza.replace("{}", to)));
            assert_eq!(answers, NONE, "{stanza} to {to}");
        }
    }
    assert!(romeo.is_connected());
    assert_eq!(tybalt.received(), NONE);
}

#[test]
fn stz_8_bare_and_full_addresses_of_one_account_share_one_order() {
    let world = World::new();
    let (romeo, juliet) = (world.client("romeo", "orchard"), world.online("juliet", "balcony"));
    let stanzas: String = (0..200)
        .map(|n| match n % 4 {
            0 => format!("<message to='juliet@example.com' id='{n}'><body/></message>"),
            1 => format!("<presence to='juliet@example.com' id='{n}'/>"),
            2 => format!("<message to='juliet@example.com/balcony' id='{n}'/>"),
            _ => format!("<message to='juliet@example.com/gone' type='chat' id='{n}'/>"),
        })
        .collect();
    for piece in stanzas.as_bytes().chunks(97) {
        romeo.send(std::str::from_utf8(piece).unwrap());
    }
    let received = juliet.received();
    assert_eq!(received.len(), 200);
    for (n, stanza) in received.iter().enumerate() {
        assert!(stanza.contains(&format!(" id='{n}'")), "{n}: {stanza}");
    }
}

/// A store whose `push` waits until it is let go on.
struct Slow {
    store: Memory,
    waiting: Arc<Mutex<Gate>>,
}

#[derive(Default)]
struct Gate {
    open: bool,
    wakers: Vec<Waker>,
}

impl OfflineStore for Slow {
    fn push(&self, account: &BareJid, message: OfflineMessage) -> StoreFuture<()> {
        let push = self.store.push(account, message);
        let gate = Arc::clone(&self.waiting);
        Box::pin(async move {
            poll_fn(|cx| {
                let mut gate = gate.lock().unwrap();
                if gate.open {
                    return Poll::Ready(());
                }
                gate.wakers.push(cx.waker().clone());
                Poll::Pending
            })
            .await;
            push.await
        })
    }

    fn list(&self, account: &BareJid) -> StoreFuture<Vec<(OfflineId, OfflineMessage)>> {
        self.store.list(account)
    }

    fn remove(&self, account: &BareJid, ids: Vec<OfflineId>) -> StoreFuture<()> {
        self.store.remove(account, ids)
    }

    fn count(&self, account: &BareJid) -> StoreFuture<usize> {
        self.store.count(account)
    }

    fn clear(&self, account: &BareJid) -> StoreFuture<()> {
        OfflineStore::clear(&self.store, account)
    }
}

#[test]
fn stz_8_what_waits_for_a_store_is_not_overtaken() {
    let gate = Arc::new(Mutex::new(Gate::default()));
    let slow = Slow { store: Memory::new(), waiting: Arc::clone(&gate) };
    let stores = Stores::memory().with_offline(Arc::new(slow));
    let world = World::with_stores(stores, |builder, _| builder);
    let juliet = world.account("juliet");
    let (romeo, nurse) = (world.client("romeo", "orchard"), world.online("nurse", "chamber"));
    romeo.send(
        "<message to='juliet@example.com' id='1'><body/></message>\
         <message to='juliet@example.com/x' type='chat' id='2'><body/></message>\
         <message to='nurse@example.com' id='3'><body/></message>",
    );
    assert_eq!(nurse.received(), NONE);
    let wakers = {
        let mut gate = gate.lock().unwrap();
        gate.open = true;
        std::mem::take(&mut gate.wakers)
    };
    wakers.into_iter().for_each(Waker::wake);
    world.settle();
    assert_eq!(nurse.received().len(), 1);
    let store = world.stores().offline.clone().unwrap();
    let stored = now(store.list(&juliet)).unwrap();
    let ids: Vec<_> = stored
        .iter()
        .map(|(_, message)| String::from_utf8_lossy(&message.stanza).contains(" id='1'"))
        .collect();
    assert_eq!(ids, [true, false]);
}

#[test]
fn stz_9_what_is_for_a_domain_of_ours_goes_to_no_other() {
    let (world, elsewhere) = with_elsewhere();
    let romeo = world.online("romeo", "orchard");
    for to in [
        "example.com",
        "EXAMPLE.com",
        "example.com.",
        "example.com/x",
        "nobody@example.com",
        "nobody@Example.Com",
        "nobody@example.com./x",
    ] {
        for (name, rest) in [
            ("message", "><body/></message>"),
            ("presence", "/>"),
            ("presence", " type='subscribe'/>"),
            ("presence", " type='probe'/>"),
            ("iq", " type='get' id='1'><q xmlns='urn:example'/></iq>"),
        ] {
            romeo.send(&format!("<{name} to='{to}'{rest}"));
            assert_eq!(elsewhere.take(), NONE, "{name} to {to}");
        }
    }
    romeo.send("<message to='sub.example.com'><body/></message>");
    assert_eq!(elsewhere.take().len(), 1, "a domain that is not served");
}

/// No way, no answer, or a host that fails.
#[derive(Clone)]
struct Broken(Option<RouteError>);

impl Router for Broken {
    fn route(&self, _: &Stanza) -> Result<(), RouteError> {
        Err(self.0.unwrap())
    }
}

#[test]
fn stz_10_the_routers_failure_is_told() {
    let not_found = ("cancel", "remote-server-not-found");
    let timeout = ("wait", "remote-server-timeout");
    for (router, (type_, condition)) in [
        (None, not_found),
        (Some(Broken(Some(RouteError::NotFound))), not_found),
        (Some(Broken(Some(RouteError::Timeout))), timeout),
        (Some(Broken(None)), timeout),
    ] {
        let world = World::with(|builder, _| match router {
            Some(router) => builder.router(router),
            None => builder,
        });
        let romeo = world.client("romeo", "orchard");
        let to = "x@remote.example/y";
        for (name, rest) in [
            ("message", "><body/></message>"),
            ("presence", "/>"),
            ("iq", " type='get'><q xmlns='urn:example'/></iq>"),
        ] {
            let answer = romeo.answer(&format!("<{name} to='{to}' id='1'{rest}"));
            assert_eq!(answer, error(name, to, " id='1'", type_, condition));
        }
        for silent in ["<message type='error'", "<presence type='error'", "<iq type='result'"] {
            assert_eq!(romeo.ask(&format!("{silent} to='{to}' id='1'/>")), NONE);
        }
    }
}

#[test]
fn stz_11_only_what_an_extension_holds_names_the_content_namespace() {
    let (world, elsewhere) = with_elsewhere();
    let romeo = world.client("romeo", "orchard");
    let forwarded = "<forwarded xmlns='urn:xmpp:forward:0'>\
                     <message xmlns='jabber:client'><body>2</body></message></forwarded>";
    // Written into a stream of `jabber:server` as it is, the stanza is in that namespace.
    let expected = format!(
        "<message from='{ROMEO}' to='x@remote.example'><body>1</body>{forwarded}</message>"
    );
    for client in [
        format!("<message to='x@remote.example'><body>1</body>{forwarded}</message>"),
        format!(
            "<message xmlns='jabber:client' to='x@remote.example'>\
             <body xmlns='jabber:client'>1</body>{forwarded}</message>"
        ),
        format!(
            "<c:message xmlns:c='jabber:client' to='x@remote.example'>\
             <c:body>1</c:body>{forwarded}</c:message>"
        ),
    ] {
        assert_eq!(romeo.ask(&client), NONE);
        assert_eq!(elsewhere.take(), std::slice::from_ref(&expected));
    }
}

#[test]
fn stz_12_no_account_no_resource_and_no_right_to_know_look_the_same() {
    let world = World::new();
    world.account("offline");
    let _street = world.online("tybalt", "street");
    let romeo = world.client("romeo", "orchard");
    let same = |stanza: &str, addresses: &[&str]| {
        let answers: Vec<_> = addresses
            .iter()
            .map(|to| romeo.answer(&stanza.replace("{}", to)).replace(to, "it"))
            .collect();
        assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:?}");
    };
    let bare = ["nobody@example.com", "offline@example.com", "tybalt@example.com"];
    let missing = ["nobody@example.com/x", "offline@example.com/x", "tybalt@example.com/x"];
    let hidden = [&missing[..], &["tybalt@example.com/street"]].concat();
    for type_ in ["get", "set"] {
        let iq = format!("<iq to='{{}}' id='1' type='{type_}'><q xmlns='urn:example'/></iq>");
        same(&iq, &bare);
        same(&iq, &hidden);
        // A roster to be seen or changed by others is nowhere (ROSTER-4).
        let roster =
            format!("<iq to='{{}}' id='1' type='{type_}'><query xmlns='jabber:iq:roster'/></iq>");
        same(&roster, &bare);
        same(&roster, &hidden);
    }
    for type_ in ["normal", "groupchat"] {
        same(&format!("<message to='{{}}' id='1' type='{type_}'><body/></message>"), &missing);
    }
    same("<message to='{}' id='1' type='groupchat'><body/></message>", &bare);
    same("<presence to='{}' id='1' type='probe'/>", &bare);
}

#[test]
fn stz_13_an_answer_has_the_kind_the_id_and_the_peer_of_its_request() {
    let world = World::new();
    let (romeo, juliet) = (world.client("romeo", "orchard"), world.client("juliet", "balcony"));
    let server = world.server();
    let iq = |id: &str| {
        let iq = Stanza::iq("get").from("example.com").to("juliet@example.com/balcony").id(id);
        iq.child(&Element::bare("q", "urn:example")).build()
    };
    let cx = &mut Context::from_waker(Waker::noop());
    let mut request = pin!(server.request(iq("7")));
    assert!(request.as_mut().poll(cx).is_pending());
    assert_eq!(juliet.received(), [xml(&iq("7"))]);
    for (client, wrong) in [
        (&romeo, "<iq to='example.com' id='7' type='result'/>"),
        (&juliet, "<iq to='example.com' id='8' type='result'/>"),
        (&juliet, "<message to='example.com' id='7'><body/></message>"),
        (&juliet, "<presence to='example.com' id='7'/>"),
        (&juliet, "<iq to='example.com' id='7' type='get'><q xmlns='urn:example'/></iq>"),
        (&juliet, "<iq to='example.com' type='result'/>"),
    ] {
        client.send(wrong);
        assert!(request.as_mut().poll(cx).is_pending(), "{wrong}");
    }
    assert_eq!(world.run(server.request(iq("7"))).err(), Some(RequestError::Duplicate));
    juliet.send("<iq to='example.com' id='7' type='result'><a xmlns='urn:example'/></iq>");
    let Poll::Ready(Ok(answer)) = request.poll(cx) else { panic!("no answer") };
    assert!(answer.child().is_some_and(|child| child.is("a", "urn:example")));
}

#[test]
fn stz_13_a_request_without_an_answer_is_given_up() {
    let world = World::new();
    let _juliet = world.client("juliet", "balcony");
    let server = world.server();
    let cx = &mut Context::from_waker(Waker::noop());
    let iq = Stanza::iq("get").from("example.com").to("juliet@example.com/balcony").id("7");
    let mut request = pin!(server.request(iq.child(&Element::bare("q", "urn:example")).build()));
    assert!(request.as_mut().poll(cx).is_pending());
    world.advance(Duration::from_secs(60));
    assert!(matches!(request.poll(cx), Poll::Ready(Err(RequestError::TimedOut))));
    let nobody = Stanza::iq("get").from("example.com").to("nobody@example.com/x").id("8");
    let answer =
        world.run(server.request(nobody.child(&Element::bare("q", "urn:example")).build()));
    assert_eq!(answer.unwrap().type_().as_deref(), Some("error"));
}

/// What only the server, or the account it is for, may say, each with whether it is in our name.
fn claims() -> Vec<(String, bool)> {
    let mut claims = Vec::new();
    for (name, ours) in [
        ("example.com", true),
        ("Example.COM", true),
        ("example.com.", true),
        ("example.com/x", true),
        ("&#x65;xample.com", true),
        ("juliet@example.com", true),
        ("romeo@example.com", true),
        ("juliet@example.com/balcony", true),
        ("romeo@example.com/other", true),
        ("", true),
        ("@example.com", true),
        ("other.example", false),
        ("x@other.example/example.com", false),
    ] {
        for claim in [
            format!("<delay xmlns='urn:xmpp:delay' from='{name}' stamp='2001-01-01T00:00:00Z'/>"),
            format!(
                "<delay xmlns='urn:xmpp:delay' stamp='2001-01-01T00:00:00Z' from='{name}'>late</delay>"
            ),
            format!("<d:delay xmlns:d='urn:xmpp:delay' from='{name}'><d:x/></d:delay>"),
            format!("<x xmlns='jabber:x:delay' from='{name}' stamp='20010101T00:00:00'/>"),
            format!("<stanza-id xmlns='urn:xmpp:sid:0' by='{name}' id='1'/>"),
        ] {
            claims.push((claim, ours));
        }
    }
    for harmless in [
        "<delay xmlns='urn:xmpp:delay' stamp='2001-01-01T00:00:00Z'/>",
        "<delay xmlns='urn:example:delay' from='example.com'/>",
        "<origin-id xmlns='urn:xmpp:sid:0' id='1'/>",
        "<forwarded xmlns='urn:xmpp:forward:0'><delay xmlns='urn:xmpp:delay' from='example.com'/></forwarded>",
    ] {
        claims.push((harmless.into(), false));
    }
    claims
}

#[test]
fn stz_14_what_clients_say_in_our_name_is_taken_out() {
    let (world, elsewhere) = with_elsewhere();
    world.friends("romeo", "juliet");
    let (romeo, juliet) = (world.online("romeo", "orchard"), world.online("juliet", "balcony"));
    let (_own, _other) = (romeo.received(), juliet.received());
    for (claim, ours) in claims() {
        // Within the rate of broadcasts.
        world.advance(Duration::from_secs(3));
        for stanza in [
            "<message to='juliet@example.com'>*</message>",
            "<message to='juliet@example.com/balcony' type='error'>*</message>",
            "<message to='x@remote.example'>*</message>",
            "<presence>*</presence>",
            "<presence to='juliet@example.com/balcony'>*</presence>",
            "<presence to='x@remote.example'>*</presence>",
        ] {
            let payload = format!("<status>a</status>{claim}<body>b</body>{claim}");
            romeo.send(&stanza.replace('*', &payload));
            let got = [juliet.received(), elsewhere.take()].concat().concat();
            assert!(got.contains("<status>a</status>") && got.contains("<body>b</body>"), "{got}");
            let kept = got.contains("</status><body>b</body></");
            assert_eq!(kept, ours, "{claim}: {got}");
        }
    }
}

#[test]
fn stz_14_a_session_sets_no_ids() {
    let world = World::new();
    let (romeo, juliet) = (world.online("romeo", "orchard"), world.online("juliet", "balcony"));
    let _own = juliet.received();
    let id = format!("<stanza-id xmlns='urn:xmpp:sid:0' by='{ROMEO}' id='forged'/>");
    romeo.send(&format!("<message to='juliet@example.com'><body>b</body>{id}</message>"));
    let got = juliet.received().concat();
    assert!(got.contains("<body>b</body>") && !got.contains("forged"), "{got}");
}

#[test]
fn stz_14_a_session_may_say_when_it_wrote_its_own_message() {
    let world = World::new();
    world.friends("romeo", "juliet");
    let (romeo, juliet) = (world.online("romeo", "orchard"), world.online("juliet", "balcony"));
    let _own = juliet.received();
    let own =
        format!("<delay xmlns='urn:xmpp:delay' from='{ROMEO}' stamp='2001-01-01T00:00:00Z'/>");
    romeo.send(&format!("<message to='juliet@example.com'>{own}</message>"));
    assert!(juliet.received().concat().contains("<delay "));
    // In that name we answer probes.
    romeo.send(&format!("<presence>{own}</presence>"));
    assert!(!juliet.received().concat().contains("<delay "));
}

#[test]
fn stz_14_a_copy_of_the_own_account_is_made_by_it_alone() {
    let world = World::new();
    let (romeo, other) = (world.online("romeo", "orchard"), world.online("romeo", "other"));
    let juliet = world.online("juliet", "balcony");
    let forwarded =
        "<forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client'/></forwarded>";
    for name in ["received", "sent"] {
        let copy = format!("<{name} xmlns='urn:xmpp:carbons:2'>{forwarded}</{name}>");
        for to in [
            "",
            "to='romeo@example.com'",
            "to='romeo@example.com/other'",
            "to='Romeo@example.com/other'",
        ] {
            let _before = other.received();
            romeo.send(&format!("<message {to} type='chat'><body>a</body>{copy}</message>"));
            let got = other.received().concat();
            assert!(got.ends_with("<body>a</body></message>"), "{to}: {got}");
        }
        // Who is another's can tell by `from` (CARBONS-9).
        romeo.send(&format!("<message to='juliet@example.com' type='chat'>{copy}</message>"));
        assert!(juliet.received().concat().contains(&copy));
    }
    romeo.send(
        "<message to='romeo@example.com/other'><private xmlns='urn:xmpp:carbons:2'/></message>",
    );
    assert!(other.received().concat().contains("<private "));
}

#[test]
fn stz_14_other_domains_do_not_speak_for_ours() {
    let world = World::new();
    let romeo = world.online("romeo", "orchard");
    let _own = romeo.received();
    let message = |from: &str, claim: &str| {
        let message = format!("<message from='{from}' to='romeo@example.com'>{claim}</message>");
        world.server().send(canonicalise(message.as_bytes()).unwrap());
        world.settle();
        romeo.received().concat()
    };
    for (claim, ours) in
        claims().into_iter().filter(|(claim, _)| !claim.contains("<d:") && !claim.contains("&#"))
    {
        let got = message("x@remote.example/y", &claim);
        assert_eq!(!got.contains(&claim), ours, "{claim}: {got}");
    }
    // The host speaks for its domains.
    let claim = "<stanza-id xmlns='urn:xmpp:sid:0' by='example.com' id='1'/>";
    assert!(message("example.com", claim).contains(claim));
    assert!(message("juliet@example.com/x", claim).contains(claim));
}
