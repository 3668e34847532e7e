//! Resource binding on the wire (rules BIND-1 to BIND-15, DESTROY-10, DESTROY-11).

use crate::common::{slow, wire};
use std::collections::HashSet;
use std::time::Duration;

use slow::{Mode, Slow};
use wire::{Client, World};
use xmpp_session::connection::Recorder;
use xmpp_session::jid::DomainPart;
use xmpp_session::rules::roster::Subscription;
use xmpp_session::server::{Limits, ServerBuilder, Want};
use xmpp_session::session::Conflict;
use xmpp_session::stream::Limit;

const SECOND: Duration = Duration::from_secs(1);
const CLOSE: &str = "</stream:stream>";

fn with(
    configure: impl FnOnce(ServerBuilder<Recorder>) -> ServerBuilder<Recorder> + Clone,
) -> World {
    World::with(|builder, _| configure(builder))
}

fn bind(resource: &str) -> String {
    let resource = match resource {
        "" => String::new(),
        resource => format!("<resource>{resource}</resource>"),
    };
    format!(
        "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>{resource}</bind></iq>"
    )
}

fn result(jid: &str) -> String {
    format!(
        "<iq id='b' type='result'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>{jid}</jid></bind></iq>"
    )
}

fn refusal(type_: &str, condition: &str) -> String {
    format!(
        "<iq id='b' type='error'><error type='{type_}'>\
         <{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
    )
}

fn stream_error(condition: &str) -> String {
    format!(
        "<stream:error><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>"
    )
}

/// The JID that a bind result grants.
fn granted(answer: &[String]) -> String {
    let (_, rest) = answer[0].split_once("<jid>").unwrap_or_else(|| panic!("refused: {answer:?}"));
    rest.split('<').next().unwrap().to_owned()
}

fn sessions(world: &World) -> usize {
    world.counts().sessions
}

#[test]
fn bind_1_bind_does_not_restart_the_stream() {
    let world = World::new();
    let client = world.authenticated("romeo");
    assert_eq!(client.ask(&bind("orchard")), [result("romeo@example.com/orchard")]);
    assert_eq!(client.want(), Some(Want::Input));
    // No header is due: the next stanza is one of the session.
    let answer = client.ask("<iq type='get' id='1'><query xmlns='jabber:iq:roster'/></iq>");
    assert_eq!(
        answer,
        [
            "<iq from='romeo@example.com' to='romeo@example.com/orchard' id='1' type='result'><query xmlns='jabber:iq:roster' ver='0-0000000000000000'/></iq>"
        ]
    );
}

#[test]
fn bind_2_generated_resources_are_long_and_differ() {
    let world = World::new();
    let mut seen = HashSet::new();
    for _ in 0..20 {
        let jid = granted(&world.authenticated("romeo").ask(&bind("")));
        let resource = jid.strip_prefix("romeo@example.com/").unwrap();
        assert!(resource.len() >= 24, "{resource}");
        assert!(seen.insert(jid));
    }
    assert_eq!(sessions(&world), 20);
}

#[test]
fn bind_3_the_result_has_the_full_jid() {
    let world = World::new();
    for resource in ["orchard", "a&amp;b", "München", "r s"] {
        let jid = format!("romeo@example.com/{resource}");
        let client = world.authenticated("romeo");
        let answer = client.ask(&bind(resource));
        assert_eq!(answer, [result(&jid)]);
        client.send(CLOSE);
    }
}

#[test]
fn bind_4_resources_are_normalised_or_replaced() {
    let world = World::new();
    // Full-width letters are normalised before the conflict test.
    let first = world.client("romeo", "A");
    let client = world.authenticated("romeo");
    assert_eq!(client.ask(&bind("\u{ff21}")), [result("romeo@example.com/A")]);
    assert_eq!(first.received(), [stream_error("conflict"), CLOSE.to_owned()]);
    // What cannot be made valid is replaced.
    for resource in ["&#x9;", "\u{200e}", &"r".repeat(1024)] {
        let client = world.authenticated("juliet");
        let jid = granted(&client.ask(&bind(resource)));
        assert!(jid.len() >= "juliet@example.com/".len() + 24 && jid.len() < 60, "{jid}");
    }
    // 1023 bytes are valid.
    let long = "r".repeat(1023);
    let client = world.authenticated("juliet");
    assert_eq!(granted(&client.ask(&bind(&long))), format!("juliet@example.com/{long}"));
    // An empty element is as good as none.
    let client = world.authenticated("juliet");
    let xml = "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource/></bind></iq>";
    assert!(granted(&client.ask(xml)).len() >= "juliet@example.com/".len() + 24);
}

#[test]
fn bind_5_replace() {
    let world = World::new();
    let old = world.client("romeo", "orchard");
    let new = world.authenticated("romeo");
    assert_eq!(new.ask(&bind("orchard")), [result("romeo@example.com/orchard")]);
    assert_eq!(old.received(), [stream_error("conflict"), CLOSE.to_owned()]);
    assert_eq!(sessions(&world), 1);
    world.advance(2 * SECOND);
    assert!(!old.is_connected() && new.is_connected());
    new.send("<presence/>");
    assert!(new.session().available().is_some());
}

#[test]
fn bind_5_override_and_refuse() {
    let world = with(|builder| builder.conflict(Conflict::Override));
    let old = world.client("romeo", "orchard");
    let new = world.authenticated("romeo");
    assert_ne!(granted(&new.ask(&bind("orchard"))), "romeo@example.com/orchard");
    assert_eq!(old.received(), [""; 0]);

    let world = with(|builder| builder.conflict(Conflict::Refuse));
    let old = world.client("romeo", "orchard");
    let new = world.authenticated("romeo");
    assert_eq!(new.ask(&bind("orchard")), [refusal("cancel", "conflict")]);
    assert_eq!(old.received(), [""; 0]);
    assert_eq!(new.ask(&bind("garden")), [result("romeo@example.com/garden")]);
}

#[test]
fn bind_6_a_kick_loop_ends() {
    let world = World::new();
    let mut clients: Vec<Client> = Vec::new();
    for round in 0..5 {
        let client = world.authenticated("romeo");
        let jid = granted(&client.ask(&bind("orchard")));
        assert_eq!(jid == "romeo@example.com/orchard", round < 4, "{round}: {jid}");
        clients.push(client);
    }
    world.advance(60 * SECOND);
    let client = world.authenticated("romeo");
    assert_eq!(granted(&client.ask(&bind("orchard"))), "romeo@example.com/orchard");

    let world = with(|builder| builder.replacements(8, 60 * SECOND));
    let clients = (0..10).map(|_| world.authenticated("romeo"));
    let jids: Vec<_> = clients.map(|client| granted(&client.ask(&bind("orchard")))).collect();
    assert_eq!(jids.iter().filter(|jid| *jid == "romeo@example.com/orchard").count(), 9);
}

#[test]
fn bind_7_data_that_cannot_be_loaded() {
    for mode in [Mode::Fail, Mode::Panic, Mode::PanicAtOnce] {
        let slow = Slow::new();
        let world = World::with_stores(slow.stores(), |builder, _| builder);
        let client = world.authenticated("romeo");
        slow.set(mode);
        let answer = client.ask(&bind("orchard"));
        assert_eq!(answer, [refusal("cancel", "internal-server-error")], "{mode:?}");
        assert_eq!(sessions(&world), 0, "{mode:?}");
        // The client may try again.
        slow.set(Mode::Answer);
        assert_eq!(client.ask(&bind("orchard")), [result("romeo@example.com/orchard")], "{mode:?}");
    }
}

#[test]
fn bind_7_data_that_comes_too_late() {
    let slow = Slow::new();
    let world = World::with_stores(slow.stores(), |builder, _| builder);
    let client = world.authenticated("romeo");
    slow.set(Mode::Wait);
    assert_eq!(client.ask(&bind("orchard")), [""; 0]);
    assert_eq!(client.want(), None, "reading waits");
    world.advance(4 * SECOND);
    assert_eq!(client.received(), [""; 0]);
    world.advance(SECOND);
    assert_eq!(client.received(), [refusal("cancel", "internal-server-error")]);
    assert_eq!(sessions(&world), 0);
    slow.set(Mode::Answer);
    world.settle();
    assert_eq!(sessions(&world), 0, "bound after the error");
    assert_eq!(client.ask(&bind("orchard")), [result("romeo@example.com/orchard")]);
    assert_eq!(world.metrics().jobs, 0);
}

#[test]
fn bind_8_over_the_limit() {
    let mut limits = Limits::default();
    limits.sessions_per_account = 2;
    let world = with(|builder| builder.limits(limits));
    let (_one, two) = (world.client("romeo", "one"), world.client("romeo", "two"));
    let client = world.authenticated("romeo");
    assert_eq!(client.ask(&bind("three")), [refusal("wait", "resource-constraint")]);
    assert_eq!(world.client("juliet", "one").jid(), "juliet@example.com/one");
    // One that is there is replaced, and one that goes makes room.
    assert_eq!(client.ask(&bind("two")), [result("romeo@example.com/two")]);
    assert_eq!(two.received(), [stream_error("conflict"), CLOSE.to_owned()]);
    client.send(CLOSE);
    assert_eq!(world.client("romeo", "three").jid(), "romeo@example.com/three");
}

#[test]
fn bind_9_a_second_bind() {
    let world = World::new();
    let client = world.client("romeo", "orchard");
    let answer = client.ask(&bind("garden"));
    assert!(
        answer.len() == 1 && answer[0].contains("<error type='cancel'><not-allowed "),
        "{answer:?}"
    );
    assert_eq!(client.jid(), "romeo@example.com/orchard");
    assert_eq!(sessions(&world), 1);
}

#[test]
fn bind_10_five_failed_binds() {
    for (most, setting) in [(5, 5), (10, 10), (5, 0), (10, 200)] {
        let mut limits = Limits::default();
        limits.bind_failures = setting;
        let world = with(|builder| builder.limits(limits).conflict(Conflict::Refuse));
        let _holder = world.client("romeo", "orchard");
        let client = world.authenticated("romeo");
        let malformed = bind("garden").replace("'set'", "'get'");
        for attempt in 0..most {
            let (xml, answer) = if attempt % 2 == 0 {
                (bind("orchard"), refusal("cancel", "conflict"))
            } else {
                (malformed.clone(), refusal("modify", "bad-request"))
            };
            assert_eq!(client.ask(&xml), [answer], "{setting}: {attempt}");
        }
        let last = client.ask(&bind("orchard"));
        let expected =
            [refusal("cancel", "conflict"), stream_error("policy-violation"), CLOSE.to_owned()];
        assert_eq!(last, expected, "{setting}");
        assert_eq!(client.ask(&bind("garden")), [""; 0]);
        assert!(world.metrics().limits.contains(&(Limit::Retries, 1)));
    }
}

#[test]
fn bind_11_before_bind_nobody_else_is_addressed() {
    for xml in [
        "<message to='juliet@example.com'><body>Hi</body></message>",
        "<presence to='juliet@example.com'/>",
        "<iq type='get' id='1' to='juliet@example.com/balcony'><ping xmlns='urn:xmpp:ping'/></iq>",
        "<iq type='result' id='1' to='juliet@example.com/balcony'/>",
        "<message to='user@elsewhere.example'/>",
        "<message to='@'/>",
    ] {
        let world = World::new();
        let juliet = world.online("juliet", "balcony");
        let client = world.authenticated("romeo");
        assert_eq!(client.ask(xml), [stream_error("not-authorized"), CLOSE.to_owned()], "{xml}");
        assert_eq!(juliet.received(), [""; 0], "{xml}");
    }
}

#[test]
fn bind_12_other_stanzas_have_to_wait() {
    let world = World::new();
    let client = world.authenticated("romeo");
    let error = "<error type='wait'><unexpected-request xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";
    for (xml, answer) in [
        ("<message id='1'/>", format!("<message id='1' type='error'>{error}</message>")),
        ("<presence id='1'/>", format!("<presence id='1' type='error'>{error}</presence>")),
        (
            "<iq id='1' type='get'><query xmlns='jabber:iq:roster'/></iq>",
            format!("<iq id='1' type='error'>{error}</iq>"),
        ),
        ("<iq id='1' type='get'/>", format!("<iq id='1' type='error'>{error}</iq>")),
        (
            "<iq id='1' type='get' to='example.com'><ping xmlns='urn:xmpp:ping'/></iq>",
            format!("<iq from='example.com' id='1' type='error'>{error}</iq>"),
        ),
        (
            "<message id='1' to='romeo@example.com'/>",
            format!("<message from='romeo@example.com' id='1' type='error'>{error}</message>"),
        ),
    ] {
        assert_eq!(client.ask(xml), [answer], "{xml}");
    }
    for xml in [
        "<iq id='1' type='result'/>",
        "<iq id='1' type='error'/>",
        "<message type='error'/>",
        "<presence type='error'/>",
    ] {
        assert_eq!(client.ask(xml), [""; 0], "{xml}");
    }
    assert_eq!(client.ask(&bind("orchard")), [result("romeo@example.com/orchard")]);
}

#[test]
fn bind_13_nothing_is_saved_over_data_that_was_not_read() {
    let slow = Slow::new();
    let world = World::with_stores(slow.stores(), |builder, _| builder);
    world.roster("romeo", "juliet@example.com", Subscription::Both);
    let juliet = world.online("juliet", "balcony");
    let _own = juliet.received();
    let client = world.authenticated("romeo");
    slow.set(Mode::Fail);
    assert_eq!(client.ask(&bind("orchard")), [refusal("cancel", "internal-server-error")]);
    assert_eq!(juliet.received(), [""; 0], "no presence");
    slow.set(Mode::Answer);
    client.send(&bind("orchard"));
    let _result = client.received();
    let roster =
        client.ask("<iq type='get' id='1'><query xmlns='jabber:iq:roster'/></iq>").concat();
    assert!(roster.contains("juliet@example.com"), "{roster}");
}

#[test]
fn bind_15_legacy_session_requests_have_no_effect() {
    let world = World::new();
    let client = world.client("romeo", "orchard");
    let answer = client
        .ask("<iq type='set' id='1'><session xmlns='urn:ietf:params:xml:ns:xmpp-session'/></iq>");
    let expected =
        "<iq from='romeo@example.com' to='romeo@example.com/orchard' id='1' type='result'/>";
    assert_eq!(answer, [expected]);
    assert_eq!(sessions(&world), 1);
}

#[test]
fn bind_15_only_who_a_stream_is_of_answers_for_it() {
    let world = World::with(|builder, _| {
        builder.domain(DomainPart::new("other.example").unwrap().into_owned())
    });
    let client = world.client("romeo", "orchard");
    world.account("juliet");
    let _juliet = world.client("benvolio", "street");
    let session = "<session xmlns='urn:ietf:params:xml:ns:xmpp-session'/>";
    let bind = "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>";
    let ask = |to: &str, query: &str| {
        client.answer(&format!("<iq type='set' id='1' to='{to}'>{query}</iq>"))
    };
    for to in ["romeo@example.com", "example.com", "other.example", "example.com/x"] {
        let answer = ask(to, session);
        assert!(answer.ends_with(" id='1' type='result'/>"), "{to}: {answer}");
        let answer = ask(to, bind);
        assert!(answer.contains("<not-allowed "), "{to}: {answer}");
    }
    for to in [
        "juliet@example.com",
        "benvolio@example.com",
        "benvolio@example.com/street",
        "nobody@example.com",
        "nobody@example.com/x",
        "romeo@other.example",
        "romeo@example.com/gone",
    ] {
        for query in [session, bind] {
            let answer = ask(to, query);
            assert!(answer.contains("<service-unavailable "), "{to}: {answer}");
        }
    }
}

#[test]
fn destroy_10_a_transport_lost_during_its_bind_binds_nothing() {
    let slow = Slow::new();
    let world = World::with_stores(slow.stores(), |builder, _| builder);
    for lost_by in ["drop", "close tag", "negotiation"] {
        let client = world.authenticated("romeo");
        slow.set(Mode::Wait);
        client.send(&bind("orchard"));
        match lost_by {
            "drop" => client.lose(),
            "close tag" => client.send(CLOSE),
            _ => {}
        }
        slow.set(Mode::Answer);
        if lost_by == "negotiation" {
            world.settle();
            assert_eq!(sessions(&world), 1);
            client.lose();
        }
        world.settle();
        assert_eq!(sessions(&world), 0, "{lost_by}");
        assert_eq!(world.metrics().jobs, 0, "{lost_by}");
    }
}

#[test]
fn destroy_10_a_lost_bind_replaces_nobody() {
    let slow = Slow::new();
    let world = World::with_stores(slow.stores(), |builder, _| builder);
    let holder = world.client("romeo", "orchard");
    let client = world.authenticated("romeo");
    // A change of the roster stands before the bind in the account's chain.
    slow.set(Mode::Wait);
    holder.send("<iq type='set' id='a'><query xmlns='jabber:iq:roster'><item jid='a@elsewhere.example'/></query></iq>");
    client.send(&bind("orchard"));
    client.lose();
    slow.set(Mode::Answer);
    world.settle();
    let got = holder.received();
    assert!(got.len() == 1 && got[0].contains("id='a' type='result'"), "{got:?}");
    assert!(holder.is_connected());
    assert_eq!(sessions(&world), 1);
}

#[test]
fn destroy_11_what_never_bound_leaves_nothing() {
    let world = World::new();
    let juliet = world.online("juliet", "balcony");
    let before = world.metrics();
    for _ in 0..50 {
        let client = world.connect();
        client.open();
        client.lose();
        world.authenticated("romeo").lose();
        let client = world.authenticated("romeo");
        client.send("<bad");
        client.send(CLOSE);
        client.lose();
    }
    let after = world.metrics();
    assert_eq!(after.sessions, before.sessions);
    assert_eq!((after.unauthenticated, after.jobs), (0, 0));
    assert_eq!(juliet.received(), [""; 0]);
}
