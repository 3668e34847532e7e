//! Stream management on the wire (XEP-0198, rules SM-1 to SM-25).

use crate::common::wire;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

use wire::{Client, World};
use xmpp_session::connection::{Close, Recorder, SendError};
use xmpp_session::extension::{Extension, IqReply, IqRequest};
use xmpp_session::server::{Limits, ServerBuilder};
use xmpp_session::session::{EventKind, Reason, RetentionLimits};
use xmpp_session::stanza::Stanza;
use xmpp_session::xep::{Carbons, Ping, StreamManagement};

const R: &str = "<r xmlns='urn:xmpp:sm:3'/>";
const UNEXPECTED: &str = "<failed xmlns='urn:xmpp:sm:3'>\
     <unexpected-request xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>";
const ENABLE: &str = "<enable xmlns='urn:xmpp:sm:3' resume='true'/>";
const ROMEO: &str = "romeo@example.com/orchard";

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn world() -> World {
    world_with(|mut limits| {
        // Requests of strangers are as good as others here.
        limits.iq_needs_presence = false;
        limits
    })
}

fn world_with(limits: impl FnOnce(Limits) -> Limits + Clone) -> World {
    World::with(|builder, _| configure(builder).limits(limits(Limits::default())))
}

fn configure(builder: ServerBuilder<Recorder>) -> ServerBuilder<Recorder> {
    builder.extension(StreamManagement::new()).extension(Ping)
}

/// A world with these limits on what is kept.
fn keeping(change: impl FnOnce(&mut RetentionLimits) + Clone) -> World {
    world_with(|mut limits| {
        change(&mut limits.retention);
        limits
    })
}

/// Turns stream management on; the resumption id.
fn enable(client: &Client) -> String {
    let answer = client.ask(ENABLE);
    assert_eq!(answer.len(), 1, "{answer:?}");
    attribute(&answer[0], "id")
}

fn attribute(xml: &str, name: &str) -> String {
    let mark = format!(" {name}='");
    let value = xml.split(&mark).nth(1).unwrap_or_else(|| panic!("no {name} in {xml}"));
    value.split('\'').next().unwrap().to_owned()
}

/// Comes back for a session; what was received for it.
fn resume(world: &World, node: &str, id: &str, h: u32) -> (Client, Vec<String>) {
    let client = world.authenticated(node);
    let answer = client.ask(&format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='{h}'/>"));
    (client, answer)
}

fn resumed(id: &str, h: u32) -> String {
    format!("<resumed xmlns='urn:xmpp:sm:3' previd='{id}' h='{h}'/>")
}

fn not_found(h: Option<u32>) -> String {
    let h = h.map(|h| format!(" h='{h}'")).unwrap_or_default();
    format!(
        "<failed xmlns='urn:xmpp:sm:3'{h}>\
         <item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>"
    )
}

fn a(h: u32) -> String {
    format!("<a xmlns='urn:xmpp:sm:3' h='{h}'/>")
}

/// A chat message to the session of Romeo.
fn chat(n: u32) -> String {
    format!("<message to='{ROMEO}' type='chat' id='{n}'><body>{n}</body></message>")
}

fn ids(elements: &[String]) -> Vec<String> {
    let stanzas = elements.iter().filter(|xml| xml.contains(" id='"));
    stanzas.map(|xml| attribute(xml, "id")).collect()
}

fn bind(client: &Client, resource: &str) -> Vec<String> {
    client.ask(&format!(
        "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
         <resource>{resource}</resource></bind></iq>"
    ))
}

fn errors(elements: &[String]) -> Vec<String> {
    let errors = elements.iter().filter(|xml| xml.contains("type='error'"));
    errors.map(|xml| attribute(xml, "id")).collect()
}

#[test]
fn sm_1_too_early_is_answered_and_the_stream_stays() {
    let world = world();
    world.account("romeo");
    let client = world.connect();
    client.open();
    assert_eq!(client.ask(ENABLE), [UNEXPECTED]);
    assert_eq!(client.ask("<resume xmlns='urn:xmpp:sm:3' previd='x' h='0'/>"), [UNEXPECTED]);
    client.authenticate("romeo", wire::PASSWORD);
    client.open();
    let features = client.received().concat();
    assert!(features.contains("<sm xmlns='urn:xmpp:sm:3'/>"), "{features}");
    assert_eq!(client.ask(ENABLE), [UNEXPECTED]);
    assert!(bind(&client, "orchard")[0].contains("result"));
    assert!(client.ask(ENABLE)[0].starts_with("<enabled "));
}

#[test]
fn sm_2_a_second_enable_leaves_the_first_alone() {
    let world = world();
    let romeo = world.client("romeo", "orchard");
    let id = enable(&romeo);
    romeo.send("<presence/>");
    assert_eq!(romeo.ask(ENABLE), [UNEXPECTED]);
    assert_eq!(romeo.ask("<resume xmlns='urn:xmpp:sm:3' previd='x' h='0'/>"), [UNEXPECTED]);
    assert_eq!(romeo.ask(R), [a(1)]);
    romeo.lose();
    let (_romeo, answer) = resume(&world, "romeo", &id, 0);
    assert_eq!(answer[0], resumed(&id, 1));
}

#[test]
fn sm_3_without_stream_management_it_is_not_expected() {
    let world = world();
    let romeo = world.client("romeo", "orchard");
    assert_eq!(romeo.ask(R), [UNEXPECTED]);
    assert_eq!(romeo.ask(&a(0)), [UNEXPECTED]);
    assert!(romeo.is_connected());
}

#[test]
fn sm_4_counts_begin_with_enable_and_only_stanzas_count() {
    let world = world();
    let (romeo, juliet) = (world.client("romeo", "orchard"), world.client("juliet", "balcony"));
    romeo.send("<message to='juliet@example.com/balcony'><body>before</body></message>");
    juliet.send(&chat(0));
    // In one piece: what is pipelined behind `<enable/>` counts.
    let _before = romeo.received();
    romeo.send(&format!(
        "{ENABLE}<presence/>{R}<message to='juliet@example.com/balcony'/>\
         <iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq> {R}"
    ));
    romeo.linger();
    let answer = romeo.received();
    assert!(answer[0].starts_with("<enabled "), "{answer:?}");
    let counts: Vec<_> = answer.iter().filter(|xml| xml.starts_with("<a ")).collect();
    assert_eq!(counts, [&a(1), &a(3)]);
    // Sent since `<enabled/>`: the own presence, and the pong.
    assert_eq!(romeo.ask(&a(2)), [""; 0]);
    let error = romeo.ask(&a(3)).concat();
    assert!(error.contains("send-count='2'"), "{error}");
}

#[test]
fn sm_5_what_is_refused_counts_as_handled() {
    let world = world();
    let romeo = world.client("romeo", "orchard");
    enable(&romeo);
    let answer = romeo.ask(
        "<iq type='get' id='1' to='nobody@example.com'><x xmlns='urn:x'/></iq>\
         <message to='@@'/><presence type='nonsense'/><r xmlns='urn:xmpp:sm:3'/>",
    );
    assert!(answer.contains(&a(3)), "{answer:?}");
    // Also what is refused while it is read, answered or not.
    let answer = romeo.ask(
        "<message><\u{e9}/></message><iq type='result' id='1'><\u{e9}/></iq><r xmlns='urn:xmpp:sm:3'/>",
    );
    assert!(answer[0].contains("<not-acceptable ") && answer[1..] == [a(5)], "{answer:?}");
}

/// One message was sent; the client acknowledges `first`, which is right, and then `second`.
fn too_high(first: u32, second: u32) {
    let world = world();
    let (romeo, juliet) = (world.client("romeo", "orchard"), world.client("juliet", "balcony"));
    enable(&romeo);
    juliet.send(&chat(1));
    assert_eq!(ids(&romeo.received()), ["1"]);
    assert_eq!(romeo.ask(&a(first)), [""; 0]);
    let error = romeo.ask(&a(second));
    assert_eq!(
        error,
        [
            &format!(
                "<stream:error><undefined-condition xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>\
                 <handled-count-too-high xmlns='urn:xmpp:sm:3' h='{second}' send-count='1'/>\
                 </stream:error>"
            ),
            "</stream:stream>"
        ]
    );
    // SM-18: the session does not wait.
    assert_eq!(world.sessions(), 1);
}

#[test]
fn sm_6_only_what_was_sent_can_be_acknowledged() {
    too_high(0, 2);
}

#[test]
fn sm_7_a_step_back_is_treated_like_a_count_that_is_too_high() {
    too_high(1, 0);
}

#[test]
fn sm_8_counts_are_digits() {
    for h in ["", "-1", "+1", " 1", "1.0", "0x1", "4294967296", "one"] {
        let world = world();
        let romeo = world.client("romeo", "orchard");
        let id = enable(&romeo);
        let error = romeo.ask(&format!("<a xmlns='urn:xmpp:sm:3' h='{h}'/>")).concat();
        assert!(error.contains("<invalid-xml "), "{h}: {error}");
        let client = world.authenticated("romeo");
        let resume = format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='{h}'/>");
        let answer = client.ask(&resume).concat();
        assert!(answer.contains("<bad-request "), "{h}: {answer}");
        assert!(bind(&client, "garden")[0].contains("result"));
    }
    let world = world();
    let romeo = world.client("romeo", "orchard");
    enable(&romeo);
    assert_eq!(romeo.ask("<a xmlns='urn:xmpp:sm:3' h='0000000000000'/>"), [""; 0]);
}

#[test]
fn sm_9_a_request_is_answered_at_once() {
    let world = world();
    let romeo = world.client("romeo", "orchard");
    enable(&romeo);
    assert_eq!(romeo.ask(&R.repeat(2)), [a(0), a(0)]);
}

#[test]
fn sm_10_what_is_granted() {
    let world = keeping(|limits| limits.window = seconds(300));
    for (asked, granted) in [
        ("resume='true'", Some("300")),
        ("resume='1'", Some("300")),
        ("resume='1' max='10'", Some("10")),
        ("resume='1' max='1000'", Some("300")),
        ("resume='1' max='99999999999999999999'", Some("300")),
        ("resume='1' max='0'", None),
        ("resume='false'", None),
        ("resume='TRUE'", None),
        ("", None),
    ] {
        let romeo = world.client("romeo", "orchard");
        let answer = romeo.ask(&format!("<enable xmlns='urn:xmpp:sm:3' {asked}/>")).concat();
        match granted {
            None => assert_eq!(answer, "<enabled xmlns='urn:xmpp:sm:3'/>", "{asked}"),
            Some(max) => {
                assert_eq!(attribute(&answer, "max"), max, "{asked}");
                assert_eq!(attribute(&answer, "resume"), "true");
            }
        }
        romeo.lose();
    }
}

#[test]
fn sm_11_the_id_lasts_as_long_as_its_session() {
    let world = world();
    let romeo = world.client("romeo", "orchard");
    let id = enable(&romeo);
    assert!(id.len() == 32 && id.bytes().all(|digit| digit.is_ascii_hexdigit()));
    let other = enable(&world.client("romeo", "garden"));
    assert_ne!(id, other);
    let mut last = romeo;
    for _ in 0..3 {
        last.lose();
        let (next, answer) = resume(&world, "romeo", &id, 0);
        assert_eq!(answer, [&resumed(&id, 0), R]);
        last = next;
    }
}

#[test]
fn sm_12_a_foreign_id_is_like_an_unknown_one() {
    let world = world();
    let romeo = world.client("romeo", "orchard");
    let id = enable(&romeo);
    romeo.lose();
    let (tybalt, foreign) = resume(&world, "tybalt", &id, 0);
    let (_, unknown) = resume(&world, "tybalt", "0123", 0);
    assert_eq!(foreign, unknown);
    assert_eq!(foreign, [not_found(None)]);
    assert!(bind(&tybalt, "street")[0].contains("result"));
    assert_eq!(resume(&world, "romeo", &id, 0).1[0], resumed(&id, 0));
}

#[test]
fn sm_13_an_expired_session_is_remembered_for_its_account() {
    let world = world();
    let romeo = world.client("romeo", "orchard");
    let id = enable(&romeo);
    romeo.send("<presence/><presence/>");
    romeo.lose();
    world.advance(seconds(601));
    assert_eq!(world.sessions(), 0);
    // The account has no session left.
    let (client, answer) = resume(&world, "romeo", &id, 0);
    assert_eq!(answer, [not_found(Some(2))]);
    assert_eq!(resume(&world, "tybalt", &id, 0).1, [not_found(None)]);
    assert!(bind(&client, "orchard")[0].contains("result"));
    drop(client);
    world.advance(seconds(24 * 60 * 60));
    assert_eq!(resume(&world, "romeo", &id, 0).1, [not_found(None)], "LIMIT-12");
}

#[test]
fn limit_12_so_many_are_remembered_for_one_account() {
    let world = keeping(|limits| limits.remembered = 2);
    let mut known = Vec::new();
    for _ in 0..3 {
        let romeo = world.client("romeo", "orchard");
        known.push(enable(&romeo));
        romeo.lose();
        world.advance(seconds(601));
    }
    let heard = known.iter().map(|id| resume(&world, "romeo", id, 0).1.concat());
    assert_eq!(heard.collect::<Vec<_>>(), [None, Some(0), Some(0)].map(not_found));
}

#[test]
fn sm_14_everything_is_checked_before_anything_happens() {
    let world = world();
    let (romeo, juliet) = (world.client("romeo", "orchard"), world.client("juliet", "balcony"));
    let id = enable(&romeo);
    juliet.send(&chat(1));
    romeo.lose();
    juliet.send(&chat(2));
    // One was sent, two are claimed.
    let (mallory, answer) = resume(&world, "romeo", &id, 2);
    let error = answer.concat();
    assert!(error.contains("<handled-count-too-high xmlns='urn:xmpp:sm:3' h='2' send-count='1'/>"));
    assert!(error.ends_with("</stream:stream>"), "{error}");
    mallory.lose();
    assert_eq!(world.counts().hibernating, 1);
    let (_romeo, answer) = resume(&world, "romeo", &id, 0);
    assert_eq!(ids(&answer), ["1", "2"]);
}

#[test]
fn sm_15_replay_then_news_then_a_request() {
    let world = world();
    let (romeo, juliet) = (world.client("romeo", "orchard"), world.client("juliet", "balcony"));
    let id = enable(&romeo);
    (1..=4).for_each(|n| juliet.send(&chat(n)));
    assert_eq!(ids(&romeo.received()), ["1", "2", "3", "4"]);
    romeo.send("<presence/>");
    romeo.lose();
    juliet.send(&chat(5));
    let client = world.authenticated("romeo");
    client.send(&format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='2'/>"));
    juliet.send(&chat(6));
    let answer = client.received();
    assert_eq!(answer[0], resumed(&id, 1));
    assert_eq!(answer.last().unwrap(), R);
    assert_eq!(answer.iter().filter(|xml| *xml == R).count(), 1);
    let sent: Vec<_> = answer[1..].iter().filter(|xml| xml.contains("<body>")).cloned().collect();
    assert_eq!(ids(&sent), ["3", "4", "5", "6"]);
    // Numbers go on: two before, the own presence, four now.
    assert_eq!(client.ask(&a(7)), [""; 0]);
    client.lose();
    assert_eq!(resume(&world, "romeo", &id, 7).1, [&resumed(&id, 1), R], "nothing is queued twice");
}

/// Romeo resumes on a transport that takes `<resumed/>` and one stanza, then refuses.
fn resume_until_first(world: &World, id: &str, refusal: SendError) -> Client {
    let client = world.authenticated("romeo");
    let recorder = client.recorder().clone();
    client.recorder().on_send(move |frame| {
        if frame.contains("id='1'") {
            recorder.refuse(Some(refusal));
        }
    });
    client.send(&format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='0'/>"));
    assert_eq!(ids(&client.received()), ["1"]);
    client
}

#[test]
fn sm_15_a_replay_that_breaks_off_starts_again() {
    let world = world();
    let (romeo, juliet) = (world.client("romeo", "orchard"), world.client("juliet", "balcony"));
    let id = enable(&romeo);
    (1..=3).for_each(|n| juliet.send(&chat(n)));
    romeo.lose();
    let client = resume_until_first(&world, &id, SendError::Closed);
    assert!(!client.is_connected());
    assert_eq!(ids(&resume(&world, "romeo", &id, 1).1), ["2", "3"]);
}

/// The queue may hold more than a connection takes at once: the rest follows as it drains.
#[test]
fn sm_15_a_replay_waits_for_a_connection_that_is_full() {
    let world = world();
    let (romeo, juliet) = (world.client("romeo", "orchard"), world.client("juliet", "balcony"));
    let id = enable(&romeo);
    (1..=3).for_each(|n| juliet.send(&chat(n)));
    romeo.lose();
    let client = resume_until_first(&world, &id, SendError::Full);
    juliet.send(&chat(4));
    assert!(client.is_connected(), "it was not given up");
    client.recorder().refuse(None);
    world.settle();
    assert_eq!(ids(&client.received()), ["2", "3", "4"]);
    assert!(client.ask(&a(3)).iter().all(|one| !one.contains("error")));
    // Who takes nothing for a minute is given up (LIMIT-13).
    client.recorder().refuse(Some(SendError::Full));
    juliet.send(&chat(5));
    world.settle();
    world.advance(seconds(60));
    assert!(!client.is_connected());
    assert_eq!(ids(&resume(&world, "romeo", &id, 4).1), ["5"]);
}

#[test]
fn sm_16_what_is_sent_again_says_since_when_it_waits() {
    let world = world();
    let (romeo, juliet) = (world.client("romeo", "orchard"), world.client("juliet", "balcony"));
    let id = enable(&romeo);
    juliet.send(&chat(1));
    juliet.send(&format!("<presence to='{ROMEO}' id='2'/>"));
    juliet.send(&format!("<iq type='get' to='{ROMEO}' id='3'><x xmlns='urn:x'/></iq>"));
    juliet.send(&format!(
        "<message to='{ROMEO}' id='4'><delay xmlns='urn:xmpp:delay' from='elsewhere.example' \
         stamp='2020-01-01T00:00:00Z'/></message>"
    ));
    juliet.send(&format!(
        "<message to='{ROMEO}' id='5'><delay xmlns='urn:xmpp:delay' from='example.com' \
         stamp='2020-01-01T00:00:00Z'/></message>"
    ));
    assert!(!romeo.received()[0].contains("<delay"));
    romeo.lose();
    world.advance(seconds(60));
    juliet.send(&chat(6));
    let (client, answer) = resume(&world, "romeo", &id, 0);
    let mark = |time| {
        format!("<delay xmlns='urn:xmpp:delay' from='example.com' stamp='2026-01-01T00:{time}Z'/>")
    };
    let marks: Vec<_> = answer
        .iter()
        .filter(|xml| xml.contains(" id='"))
        .map(|xml| [mark("00:00"), mark("01:00")].map(|mark| xml.matches(&mark).count()))
        .collect();
    let waited = [1, 0];
    // The fifth had none from us: what its sender says in our name counts for nothing (STZ-14).
    assert_eq!(marks, [waited, waited, [0, 0], waited, waited, [0, 1]], "{answer:?}");
    assert_eq!(answer.concat().matches("stamp='2020-").count(), 1, "{answer:?}");
    juliet.send(&chat(7));
    assert!(!client.received().concat().contains("<delay"), "this one is new");
}

#[test]
fn sm_17_what_is_left_of_an_expired_session() {
    let world = world();
    let (romeo, juliet) = (world.client("romeo", "orchard"), world.client("juliet", "balcony"));
    let id = enable(&romeo);
    let to = ROMEO;
    juliet.send(&format!("<presence to='{to}' id='0'/>"));
    juliet.send(&format!("<iq type='get' to='{to}' id='1'><x xmlns='urn:x'/></iq>"));
    juliet.send(&format!("<iq type='result' to='{to}' id='2'/>"));
    juliet.send(&format!("<message type='groupchat' to='{to}' id='3'><body/></message>"));
    juliet.send(&format!("<message type='headline' to='{to}' id='4'><body/></message>"));
    juliet.send(&format!("<message type='error' to='{to}' id='5'><body/></message>"));
    juliet.send(&chat(6));
    juliet.send(&format!("<message to='{to}' id='7'><body>7</body></message>"));
    romeo.lose();
    juliet.send(&chat(8));
    let _answers = juliet.received();
    world.advance(seconds(599));
    assert!(juliet.received().is_empty());
    world.advance(seconds(2));
    let answers = juliet.received();
    assert_eq!(errors(&answers), ["1", "3"]);
    assert!(answers.iter().all(|xml| xml.contains("<service-unavailable ")), "{answers:?}");
    // The others wait in the offline store, under the time at which they were sent.
    let next = world.client("romeo", "garden");
    let stored = next.ask("<presence/>");
    let stored: Vec<_> = stored.into_iter().filter(|xml| xml.starts_with("<message")).collect();
    assert_eq!(ids(&stored), ["6", "7", "8"]);
    for message in stored {
        assert_eq!(message.matches("<delay ").count(), 1, "{message}");
        assert!(message.contains("stamp='2026-01-01T00:00:00Z'"), "{message}");
        assert!(message.contains(&format!("to='{ROMEO}'")), "{message}");
    }
    assert_eq!(resume(&world, "romeo", &id, 0).1, [not_found(Some(0))]);
}

#[test]
fn sm_17_messages_go_to_the_sessions_that_remain() {
    let world = world();
    let (romeo, juliet) = (world.client("romeo", "orchard"), world.client("juliet", "balcony"));
    enable(&romeo);
    juliet.send(&chat(1));
    let garden = world.online("romeo", "garden");
    romeo.lose();
    world.advance(seconds(601));
    let got = garden.received().concat();
    assert!(got.contains("id='1'") && got.contains("stamp='2026-01-01T00:00:00Z'"), "{got}");
}

#[test]
fn sm_17_a_message_that_another_session_received_is_not_given_again() {
    for other_dies_too in [false, true] {
        let world = world();
        let (one, two) = (world.client("romeo", "orchard"), world.client("romeo", "garden"));
        let ids_of = [enable(&one), enable(&two)];
        one.send("<presence/>");
        two.send("<presence/>");
        let juliet = world.client("juliet", "balcony");
        juliet.send("<message to='romeo@example.com' id='1' type='chat'><body>1</body></message>");
        let read = |client: &Client| ids(&client.received()).iter().filter(|id| *id == "1").count();
        assert_eq!((read(&one), read(&two)), (1, 1));
        if other_dies_too {
            two.lose();
        } else {
            // It acknowledges all that it was sent.
            let sent = world.each().count() as u32;
            assert_eq!(sent, 3);
            two.send(&a(3));
        }
        one.lose();
        world.advance(seconds(601));
        let third = world.client("romeo", "street");
        third.send("<presence/>");
        assert_eq!(read(&third), usize::from(other_dies_too), "{ids_of:?}");
    }
}

#[test]
fn sm_17_a_session_without_acknowledgements_has_received_what_it_was_sent() {
    let world = world();
    let (one, two) = (world.client("romeo", "orchard"), world.client("romeo", "garden"));
    enable(&one);
    one.send("<presence/>");
    two.send("<presence/>");
    let juliet = world.client("juliet", "balcony");
    juliet.send("<message to='romeo@example.com' id='1' type='chat'><body>1</body></message>");
    two.lose();
    one.lose();
    world.advance(seconds(601));
    let third = world.client("romeo", "street");
    assert!(!third.ask("<presence/>").concat().contains("id='1'"));
}

#[test]
fn off_4_an_offline_message_that_is_not_acknowledged_returns() {
    let world = world();
    world.account("romeo");
    let juliet = world.client("juliet", "balcony");
    juliet.send("<message to='romeo@example.com' id='1' type='chat'><body>1</body></message>");
    world.advance(seconds(60));
    for _ in 0..2 {
        let romeo = world.client("romeo", "orchard");
        enable(&romeo);
        let got = romeo.ask("<presence/>").concat();
        assert!(got.contains("id='1'"), "{got}");
        assert_eq!(got.matches("<delay ").count(), 1, "{got}");
        assert!(got.contains("stamp='2026-01-01T00:00:00Z'"), "{got}");
        romeo.lose();
        world.advance(seconds(601));
    }
}

#[test]
fn sm_18_only_the_loss_of_the_transport_hibernates() {
    let ends: [fn(&World, &Client); 5] = [
        |_, romeo| romeo.send("</stream:stream>"),
        |_, romeo| {
            romeo.send(
                "<stream:error><reset xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>",
            )
        },
        |_, romeo| romeo.send("<unknown xmlns='urn:x'/>"),
        |world, _| drop(world.client("romeo", "orchard")),
        |world, romeo| {
            world.destroy(&romeo.session(), Reason::Kicked);
        },
    ];
    for end in ends {
        let world = world();
        let romeo = world.client("romeo", "orchard");
        let id = enable(&romeo);
        end(&world, &romeo);
        assert_eq!(world.counts().hibernating, 0);
        let (_, answer) = resume(&world, "romeo", &id, 0);
        assert!(answer.concat().contains("<item-not-found "), "{answer:?}");
    }
}

#[test]
fn sm_18_a_transport_that_breaks_within_a_stanza_hibernates() {
    let world = world();
    let (romeo, juliet) = (world.client("romeo", "orchard"), world.client("juliet", "balcony"));
    let id = enable(&romeo);
    romeo.send("<message to='juliet@example.com/balcony'><body>Wherefo");
    romeo.lose();
    let (romeo, answer) = resume(&world, "romeo", &id, 0);
    assert_eq!(answer, [&resumed(&id, 0), R]);
    romeo.send("<message to='juliet@example.com/balcony'><body>whole</body></message>");
    let got = juliet.received();
    assert!(got.len() == 1 && got[0].contains("whole"), "{got:?}");
    romeo.linger();
    assert_eq!(romeo.ask(R), [a(1)]);
}

/// The events of a world's sessions.
type Events = Arc<Mutex<Vec<EventKind>>>;

fn watched() -> (World, Events) {
    let events = Events::default();
    let heard = Arc::clone(&events);
    let world = World::with(|builder, _| {
        configure(builder).listener(move |event| heard.lock().unwrap().push(event.kind()))
    });
    (world, events)
}

#[test]
fn sm_19_a_hibernating_session_is_still_there() {
    let (world, events) = watched();
    world.friends("romeo", "juliet");
    let (romeo, juliet) = (world.client("romeo", "orchard"), world.client("juliet", "balcony"));
    let id = enable(&romeo);
    romeo.send("<presence/>");
    romeo.send("<iq type='get' id='q'><query xmlns='jabber:iq:roster'/></iq>");
    juliet.send("<presence/>");
    let (_, _) = (romeo.received(), juliet.received());
    romeo.send(&a(4));
    romeo.lose();
    assert!(juliet.received().is_empty(), "no presence is sent");
    assert_eq!(events.lock().unwrap().last(), Some(&EventKind::Absent));
    // Presence, a push and a message wait for it.
    juliet.send("<presence><show>away</show></presence>");
    juliet.send("<message to='romeo@example.com' id='m' type='chat'><body>?</body></message>");
    let other = world.client("romeo", "garden");
    other.send(
        "<iq type='set' id='s'><query xmlns='jabber:iq:roster'>\
         <item jid='nurse@example.com'/></query></iq>",
    );
    let (_romeo, answer) = resume(&world, "romeo", &id, 4);
    let all = answer.concat();
    assert_eq!(answer[0], resumed(&id, 2));
    assert!(all.contains("<show>away</show>") && all.contains("id='m'"), "{all}");
    assert!(all.contains("nurse@example.com"), "{all}");
    assert!(matches!(events.lock().unwrap().last(), Some(EventKind::Resumed)));
}

#[test]
fn sm_19_it_counts_for_conflicts() {
    let world = world();
    let romeo = world.client("romeo", "orchard");
    let id = enable(&romeo);
    romeo.lose();
    let next = world.authenticated("romeo");
    assert!(bind(&next, "orchard")[0].contains(ROMEO));
    assert_eq!(world.sessions(), 1);
    assert_eq!(resume(&world, "romeo", &id, 0).1, [not_found(Some(0))]);
}

#[test]
fn sm_20_what_a_resumed_session_still_has() {
    let world = world();
    world.friends("romeo", "juliet");
    let juliet = world.online("juliet", "balcony");
    let romeo = world.client("romeo", "orchard");
    let id = enable(&romeo);
    romeo.send("<presence><priority>5</priority></presence>");
    romeo.send("<presence to='nurse@example.com/x'/>");
    romeo.send("<iq type='get' id='q'><query xmlns='jabber:iq:roster'/></iq>");
    let session = romeo.session();
    romeo.lose();
    let _before = juliet.received();
    let (romeo, _) = resume(&world, "romeo", &id, 0);
    assert!(session == romeo.session() && session.is_live());
    assert_eq!(session.available().unwrap().priority(), 5);
    assert!(session.is_interested() && session.has_directed_to("nurse@example.com"));
    assert_eq!(romeo.jid(), ROMEO);
    assert!(juliet.received().is_empty(), "nothing is broadcast again");
}

#[test]
fn sm_21_a_transport_that_still_stands_is_detached_first() {
    let (world, events) = watched();
    let (romeo, juliet) = (world.client("romeo", "orchard"), world.client("juliet", "balcony"));
    let id = enable(&romeo);
    juliet.send(&chat(1));
    let (next, answer) = resume(&world, "romeo", &id, 0);
    assert_eq!(answer[0], resumed(&id, 0));
    let old = romeo.received().concat();
    assert!(old.contains("<conflict ") && old.ends_with("</stream:stream>"), "{old}");
    assert!(!romeo.is_connected());
    // What comes on the old transport has no effect, and its end is not the session's.
    romeo.send("<message to='juliet@example.com/balcony'/>");
    romeo.lose();
    assert!(juliet.received().is_empty());
    juliet.send(&chat(2));
    assert_eq!(ids(&next.received()), ["2"]);
    let ended = |kind: &EventKind| matches!(kind, EventKind::Ended { .. });
    assert!(!events.lock().unwrap().iter().any(ended));
}

#[test]
fn sm_23_an_expired_session_cannot_be_resumed_and_a_resumed_one_does_not_expire() {
    let world = world();
    let romeo = world.client("romeo", "orchard");
    let id = enable(&romeo);
    romeo.lose();
    world.advance(seconds(599));
    let (romeo, answer) = resume(&world, "romeo", &id, 0);
    assert_eq!(answer[0], resumed(&id, 0));
    romeo.send(&a(0));
    world.advance(seconds(100));
    assert!(romeo.session().is_live());
    romeo.lose();
    world.advance(seconds(600));
    assert_eq!(resume(&world, "romeo", &id, 0).1, [not_found(Some(0))]);
}

#[test]
fn sm_24_five_stanzas_are_asked_about_in_the_write_that_carries_the_fifth() {
    let world = world();
    let (romeo, juliet) = (world.client("romeo", "orchard"), world.client("juliet", "balcony"));
    enable(&romeo);
    (1..=4).for_each(|n| juliet.send(&chat(n)));
    assert_eq!(romeo.received().len(), 4);
    juliet.send(&chat(5));
    // One drain is one write.
    let write = romeo.recorder().drain();
    assert!(write.len() == 2 && write[0].contains("id='5'") && write[1] == R, "{write:?}");
    juliet.send(&chat(6));
    assert_eq!(romeo.received().len(), 1, "one is outstanding");
    assert_eq!(romeo.ask(&a(6)), [""; 0]);
    (7..=11).for_each(|n| juliet.send(&chat(n)));
    assert_eq!(romeo.received().last().unwrap(), R);
}

#[test]
fn sm_24_after_five_seconds_one_is_enough() {
    let world = world();
    let (romeo, juliet) = (world.client("romeo", "orchard"), world.client("juliet", "balcony"));
    enable(&romeo);
    juliet.send(&chat(1));
    world.advance(seconds(4));
    assert_eq!(romeo.recorder().take().len(), 1);
    world.advance(seconds(1));
    assert_eq!(romeo.recorder().take(), [R], "by the timer: no write was about to happen");
    // An answer that acknowledges nothing does not start a volley.
    assert_eq!(romeo.ask(&a(0)), [""; 0]);
    world.advance(seconds(4));
    assert!(romeo.received().is_empty());
    world.advance(seconds(1));
    assert_eq!(romeo.received(), [R]);
    romeo.send(&a(1));
    world.advance(seconds(1000));
    assert!(romeo.received().is_empty() && romeo.is_connected());
}

#[test]
fn sm_24_no_answer_in_sixty_seconds_is_the_loss_of_the_transport() {
    let world = world();
    let (romeo, juliet) = (world.client("romeo", "orchard"), world.client("juliet", "balcony"));
    let id = enable(&romeo);
    juliet.send(&chat(1));
    world.advance(seconds(5));
    assert_eq!(romeo.received().last().unwrap(), R);
    world.advance(seconds(59));
    assert!(romeo.is_connected());
    world.advance(seconds(1));
    assert!(!romeo.is_connected());
    assert_eq!(romeo.recorder().closed(), Some(Close::Abort));
    assert!(romeo.recorder().take().is_empty(), "not a word");
    assert_eq!(world.counts().hibernating, 1);
    assert_eq!(ids(&resume(&world, "romeo", &id, 0).1), ["1"]);
}

#[test]
fn stream_29_limit_22_a_silent_client_is_asked_by_r() {
    let world = world();
    let (romeo, mercutio) = (world.client("romeo", "orchard"), world.client("mercutio", "street"));
    enable(&romeo);
    world.advance(seconds(1799));
    assert!(romeo.received().is_empty());
    world.advance(seconds(1));
    assert_eq!(romeo.received(), [R]);
    let ping = mercutio.received();
    assert!(ping.len() == 1 && ping[0].contains("urn:xmpp:ping"), "without SM: {ping:?}");
    romeo.send(&a(0));
    world.advance(seconds(61));
    assert!(romeo.is_connected() && !mercutio.is_connected());
    world.advance(seconds(1800));
    assert!(!romeo.is_connected());
    assert_eq!(world.counts().hibernating, 1);
}

#[test]
fn sm_25_without_a_window_stanzas_are_kept_only_until_the_transport_is_lost() {
    let world =
        World::with(|builder, _| builder.extension(StreamManagement::new().window(seconds(0))));
    let (romeo, juliet) = (world.client("romeo", "orchard"), world.client("juliet", "balcony"));
    assert_eq!(romeo.ask(ENABLE), ["<enabled xmlns='urn:xmpp:sm:3'/>"]);
    juliet.send(&chat(1));
    romeo.lose();
    assert_eq!(world.sessions(), 1);
    let next = world.client("romeo", "garden");
    assert!(next.ask("<presence/>").concat().contains("id='1'"));
}

#[test]
fn limit_9_the_oldest_of_too_many_hibernating_sessions_ends() {
    let world = world_with(|mut limits| {
        limits.hibernating_per_account = 2;
        limits
    });
    let clients = ["a", "b", "c"].map(|resource| world.client("romeo", resource));
    let known = clients.each_ref().map(enable);
    for client in [&clients[1], &clients[0], &clients[2]] {
        world.advance(seconds(1));
        client.lose();
    }
    assert_eq!(world.counts().hibernating, 2);
    let answers = known.map(|id| resume(&world, "romeo", &id, 0).1.concat());
    assert!(answers[0].starts_with("<resumed") && answers[2].starts_with("<resumed"));
    assert_eq!(answers[1], not_found(Some(0)));
}

#[test]
fn limit_10_a_hibernating_session_that_is_sent_too_much_ends_at_once() {
    let world = keeping(|limits| limits.stanzas = 3);
    let (romeo, juliet) = (world.client("romeo", "orchard"), world.client("juliet", "balcony"));
    let id = enable(&romeo);
    romeo.lose();
    (1..=3).for_each(|n| juliet.send(&chat(n)));
    assert_eq!(world.counts().hibernating, 1);
    juliet.send(&chat(4));
    assert_eq!(world.sessions(), 1);
    assert_eq!(resume(&world, "romeo", &id, 0).1, [not_found(Some(0))]);
    let next = world.client("romeo", "garden");
    assert_eq!(ids(&next.ask("<presence/>")), ["1", "2", "3", "4"], "SM-17");
}

#[test]
fn limit_10_who_writes_to_a_full_session_is_told_and_nothing_goes_past_it() {
    let world = world_with(|mut limits| {
        limits.iq_needs_presence = false;
        limits.retention.live_stanzas = 8;
        limits
    });
    let (romeo, juliet) = (world.online("romeo", "orchard"), world.client("juliet", "balcony"));
    enable(&romeo);
    let say = |stanza: &str| {
        juliet.send(stanza);
        // Its sender slows down.
        world.advance(seconds(1));
        juliet.received()
    };
    (1..=9).for_each(|n| drop(say(&chat(n))));
    for stanza in [
        chat(10),
        chat(10).replace("/orchard", ""),
        chat(10).replace("'chat'", "'groupchat'"),
        format!("<iq type='get' to='{ROMEO}' id='10'><x xmlns='urn:x'/></iq>"),
    ] {
        let answer = say(&stanza).concat();
        assert!(answer.contains("type='wait'><resource-constraint "), "{stanza}: {answer}");
    }
    for silent in [chat(10).replace("'chat'", "'headline'"), format!("<presence to='{ROMEO}'/>")] {
        assert_eq!(say(&silent), [""; 0]);
    }
    // Its own affairs go on.
    let ping = "<iq type='get' id='ping'><ping xmlns='urn:xmpp:ping'/></iq>";
    assert!(romeo.ask(ping).concat().contains("id='ping'"));
    assert!(romeo.is_connected());
    world.advance(seconds(1));
    romeo.send(&a(10));
    let _before = romeo.received();
    (11..=13).for_each(|n| assert_eq!(say(&chat(n)), [""; 0]));
    assert_eq!(ids(&romeo.received()), ["11", "12", "13"]);
    assert_eq!(world.client("romeo", "garden").ask("<presence/>").len(), 2, "nothing was stored");
}

/// Who answers and has read nothing new for a minute, with all waiting for it that may, is given up: it
/// may come back for it.
#[test]
fn limit_10_a_full_session_has_to_move() {
    for moves in [false, true] {
        let world = keeping(|limits| limits.live_stanzas = 3);
        let (romeo, juliet) = (world.client("romeo", "orchard"), world.client("juliet", "balcony"));
        let id = enable(&romeo);
        (1..=5).for_each(|n| juliet.send(&chat(n)));
        for second in 1..=6 {
            let h = if moves { second.min(2) } else { 0 };
            romeo.send(&a(h));
            if moves {
                juliet.send(&chat(5 + second));
            }
            world.advance(seconds(11));
        }
        assert_eq!(romeo.is_connected(), moves);
        if !moves {
            assert_eq!(ids(&resume(&world, "romeo", &id, 0).1), ["1", "2", "3", "4"]);
        }
    }
}

#[test]
fn limit_10_what_waits_for_a_live_session_outlives_its_transport() {
    let world = keeping(|limits| (limits.live_stanzas, limits.stanzas) = (3, 2));
    let (romeo, juliet) = (world.client("romeo", "orchard"), world.client("juliet", "balcony"));
    let id = enable(&romeo);
    for n in 1..=4 {
        juliet.send(&chat(n));
        world.advance(seconds(1));
    }
    romeo.lose();
    // And there is room for what comes meanwhile.
    (5..=6).for_each(|n| juliet.send(&chat(n)));
    assert_eq!(ids(&resume(&world, "romeo", &id, 0).1), ["1", "2", "3", "4", "5", "6"]);
}

#[test]
fn limit_10_the_own_account_fills_a_session_no_further_than_twice() {
    let world = keeping(|limits| limits.bytes = 4000);
    let (romeo, other) = (world.client("romeo", "orchard"), world.client("romeo", "street"));
    let id = enable(&romeo);
    romeo.send("<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>");
    let mut sets = 0;
    while romeo.is_connected() && sets < 100 {
        sets += 1;
        let name = "x".repeat(500);
        other.send(&format!(
            "<iq type='set' id='s'><query xmlns='jabber:iq:roster'>\
             <item jid='c{sets}@example.com' name='{name}'/></query></iq>"
        ));
        world.advance(seconds(1));
    }
    assert!((10..16).contains(&sets), "{sets}");
    assert!(!romeo.session().is_ended(), "it hibernates");
    let (_back, answer) = resume(&world, "romeo", &id, 0);
    assert_eq!(answer.iter().filter(|one| one.contains("type='set'")).count(), sets - 1);
}

/// While a backlog is written the client is asked again and again, whether it has answered or not: what it
/// has read is freed, and that it reads is seen.
#[test]
fn sm_24_a_backlog_is_asked_about_again_and_again() {
    let world = world();
    let (romeo, juliet) = (world.client("romeo", "orchard"), world.client("juliet", "balcony"));
    enable(&romeo);
    let asked = |range: std::ops::RangeInclusive<u32>, body: usize| {
        let body = "x".repeat(body);
        range
            .map(|n| {
                juliet.send(&format!(
                    "<message to='{ROMEO}' type='chat' id='{n}'><body>{body}</body></message>"
                ));
                romeo.recorder().drain().concat().matches(R).count()
            })
            .sum::<usize>()
    };
    // By count: at five, then every hundred.
    assert_eq!(asked(1..=300, 1), 3);
    // By bytes.
    assert_eq!(asked(301..=320, 8192), 5);
    // The answer to the first one of them is none to the others: no further question is needed.
    romeo.send(&a(5));
    assert_eq!(asked(321..=330, 1), 0);
    // Nor is the client lost, as long as answers come.
    for n in 1..=20 {
        world.advance(seconds(20));
        romeo.send(&a(5 + n));
    }
    assert!(romeo.is_connected());
    world.advance(seconds(70));
    assert!(!romeo.is_connected());
}

#[test]
fn limit_11_the_oldest_hibernating_session_gives_its_memory() {
    let world = keeping(|limits| limits.all_bytes = 2000);
    let juliet = world.client("juliet", "balcony");
    let sleepers = ["a", "b"].map(|resource| world.client("romeo", resource));
    let known = sleepers.each_ref().map(enable);
    let tybalt = world.client("tybalt", "street");
    enable(&tybalt);
    for sleeper in &sleepers {
        world.advance(seconds(1));
        sleeper.lose();
    }
    let send = |to: &str, bytes: usize| {
        let body = "x".repeat(bytes);
        juliet.send(&format!("<message to='{to}' type='chat'><body>{body}</body></message>"));
    };
    send("romeo@example.com/a", 700);
    send("romeo@example.com/b", 700);
    assert_eq!(world.counts().hibernating, 2);
    send("tybalt@example.com/street", 700);
    assert_eq!(world.counts().hibernating, 1);
    assert_eq!(resume(&world, "romeo", &known[0], 0).1, [not_found(Some(0))]);
    // With nobody left to end, new sessions are not resumable.
    let (_b, _) = resume(&world, "romeo", &known[1], 0);
    send("tybalt@example.com/street", 700);
    let nurse = world.client("nurse", "house");
    assert_eq!(nurse.ask(ENABLE), ["<enabled xmlns='urn:xmpp:sm:3'/>"]);
    tybalt.send(&a(2));
    let page = world.client("page", "house");
    assert!(page.ask(ENABLE)[0].contains(" id='"));
    world.each().for_each(|session| {
        world.home(&session).registry().destroy_session(&session, Reason::Kicked);
    });
    assert_eq!(world.counts().retained_bytes, 0);
}

#[test]
fn limit_11_the_heaviest_pay_and_others_keep_their_sessions() {
    let world = keeping(|limits| limits.all_bytes = 20_000);
    let juliet = world.client("juliet", "balcony");
    let victim = world.client("romeo", "old");
    let known = enable(&victim);
    victim.lose();
    let send = |to: &str, bytes: usize| {
        let body = "x".repeat(bytes);
        juliet.send(&format!("<message to='{to}' type='chat'><body>{body}</body></message>"));
    };
    send("romeo@example.com/old", 3000);
    // One account with many sessions, each of them lighter than the victim's.
    let many: Vec<_> = (0..8).map(|n| world.client("tybalt", &n.to_string())).collect();
    many.iter().for_each(|one| {
        enable(one);
        world.advance(seconds(1));
        one.lose();
    });
    for _ in 0..2 {
        (0..8).for_each(|n| send(&format!("tybalt@example.com/{n}"), 1000));
    }
    let counts = world.counts();
    assert!(counts.retained_bytes <= 20_000 && counts.hibernating < 9, "{counts:?}");
    assert!(counts.hibernating > 6, "no more than it takes: {counts:?}");
    // Live ones that do not acknowledge do not push the others out of their half.
    let live = world.client("nurse", "house");
    enable(&live);
    (0..20).for_each(|_| send("nurse@example.com/house", 1000));
    let counts = world.counts();
    assert!(counts.retained_bytes > 20_000, "{counts:?}");
    assert!((3..6).contains(&counts.hibernating), "{counts:?}");
    assert_eq!(resume(&world, "romeo", &known, 0).1.concat().matches("<message").count(), 1);
}

#[test]
fn limit_13_a_transport_that_takes_nothing_is_dropped_and_its_session_waits() {
    let world = world();
    let (romeo, juliet) = (world.client("romeo", "orchard"), world.client("juliet", "balcony"));
    let id = enable(&romeo);
    romeo.recorder().refuse(Some(SendError::Full));
    juliet.send(&chat(1));
    assert!(juliet.received().is_empty());
    world.settle();
    world.advance(seconds(59));
    assert!(romeo.is_connected());
    world.advance(seconds(1));
    romeo.linger();
    assert_eq!(romeo.recorder().closed(), Some(Close::Abort));
    assert_eq!(world.counts().hibernating, 1);
    assert_eq!(ids(&resume(&world, "romeo", &id, 0).1), ["1"]);
}

#[test]
fn limit_13_who_sends_does_not_do_the_work_of_the_end() {
    let world = world();
    world.friends("romeo", "juliet");
    let (romeo, juliet) = (world.online("romeo", "orchard"), world.online("juliet", "balcony"));
    romeo.recorder().refuse(Some(SendError::Closed));
    let _before = juliet.received();
    // A send of the host's own thread, which drives no background.
    let message = Stanza::message().to(ROMEO).from("nurse@example.com").build();
    assert!(romeo.session().send(&message).is_err());
    assert!(romeo.session().is_ended());
    assert!(juliet.received().is_empty(), "the unavailables are still to come");
    world.settle();
    let gone = juliet.received().concat();
    assert!(gone.contains("type='unavailable'"), "{gone}");
}

#[test]
fn destroy_9_hibernation_and_resumption_are_no_ends() {
    let (world, events) = watched();
    let romeo = world.client("romeo", "orchard");
    let id = enable(&romeo);
    romeo.lose();
    let (romeo, _) = resume(&world, "romeo", &id, 0);
    romeo.lose();
    world.advance(seconds(601));
    let events = events.lock().unwrap().clone();
    assert!(matches!(
        events[..],
        [
            EventKind::Bound,
            EventKind::Absent,
            EventKind::Resumed,
            EventKind::Absent,
            EventKind::Ended { reason: Reason::Expired, handled: Some(0), .. }
        ]
    ));
}

/// Answers when told to.
#[derive(Clone, Default)]
struct Slow(Arc<Mutex<Option<Waker>>>, Arc<AtomicBool>);

impl Slow {
    fn finish(&self) {
        self.1.store(true, Ordering::SeqCst);
        if let Some(waker) = self.0.lock().unwrap().take() {
            waker.wake();
        }
    }
}

impl Extension<Recorder> for Slow {
    fn iq(&self, request: &IqRequest<'_, Recorder>) -> Option<IqReply> {
        if !request.is("slow", "urn:x") {
            return None;
        }
        let slow = self.clone();
        Some(IqReply::Later(Box::pin(poll_fn(move |cx| {
            *slow.0.lock().unwrap() = Some(cx.waker().clone());
            if slow.1.load(Ordering::SeqCst) { Poll::Ready(Ok(None)) } else { Poll::Pending }
        }))))
    }
}

const SLOW: &str = "<iq type='get' id='slow'><slow xmlns='urn:x'/></iq>";

#[test]
fn sm_22_a_resumed_stream_waits_for_the_stanza_that_the_old_one_was_in() {
    let slow = Slow::default();
    let extension = slow.clone();
    let world = World::with(|builder, _| configure(builder).extension(extension));
    let (romeo, juliet) = (world.client("romeo", "orchard"), world.client("juliet", "balcony"));
    let id = enable(&romeo);
    let next = "<message to='juliet@example.com/balcony' id='next'/>";
    // The second one was not handled, and the client is told so.
    romeo.send(&format!("{SLOW}{next}"));
    romeo.lose();
    let (romeo, answer) = resume(&world, "romeo", &id, 0);
    assert_eq!(answer, [&resumed(&id, 1), R]);
    romeo.send(&a(0));
    romeo.send(next);
    assert!(juliet.received().is_empty());
    slow.finish();
    world.settle();
    assert_eq!(ids(&juliet.received()), ["next"]);
    assert_eq!(ids(&romeo.received()), ["slow"], "on the new transport, and before all else");
    romeo.linger();
    assert_eq!(romeo.ask(R), [a(2)]);
}

#[test]
fn sm_24_an_answer_that_waits_behind_a_stanza_in_work_is_not_late() {
    let slow = Slow::default();
    let extension = slow.clone();
    let world = World::with(|builder, _| configure(builder).extension(extension));
    let (romeo, juliet) = (world.client("romeo", "orchard"), world.client("juliet", "balcony"));
    enable(&romeo);
    juliet.send(&chat(1));
    world.advance(seconds(5));
    assert_eq!(romeo.received().last().unwrap(), R);
    world.advance(seconds(20));
    romeo.send(&format!("{SLOW}{}", a(1)));
    world.advance(seconds(50));
    slow.finish();
    world.advance(seconds(60));
    assert!(romeo.is_connected());
}

#[test]
fn sm_17_a_carbon_copy_is_a_copy_too() {
    for carbon_dies_too in [false, true] {
        let world = World::with(|builder, _| configure(builder).extension(Carbons::new()));
        let (romeo, other) = (world.client("romeo", "orchard"), world.client("romeo", "garden"));
        other.send("<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>");
        enable(&romeo);
        enable(&other);
        world.client("juliet", "balcony").send(&chat(1));
        let copy = other.received().concat();
        assert!(copy.contains("<received ") && copy.contains(" id='1'"), "{copy}");
        if carbon_dies_too {
            // The first to die is not the last to have it.
            romeo.lose();
            world.advance(seconds(1));
            other.lose();
        } else {
            romeo.lose();
        }
        world.advance(seconds(62));
        if !carbon_dies_too {
            other.send(&a(1));
        }
        world.advance(seconds(601));
        let third = world.client("romeo", "street");
        let got = third.ask("<presence/>").concat();
        assert_eq!(got.matches("<body>1</body>").count(), usize::from(carbon_dies_too), "{got}");
        assert!(!got.contains("<received "), "the message itself: {got}");
    }
}
