//! Where messages go, on the wire (rules MSG-1 to MSG-9, MSG-T1 to MSG-T9).

use crate::common::wire;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use wire::{Client, Elsewhere, World, now};
use xmpp_session::connection::{Recorder, SendError};
use xmpp_session::extension::{Extension, Flow};
use xmpp_session::jid::BareJid;
use xmpp_session::minidom::Element;
use xmpp_session::session::{Bound, Session, SessionHandle};
use xmpp_session::stanza::{Kind, Stanza};
use xmpp_session::store::{Memory, OfflineLimits, Stores};
use xmpp_session::stream::Nonza;

const TYPES: [&str; 5] = ["normal", "chat", "groupchat", "headline", "error"];
const LOCAL: &str = "romeo@example.com/orchard";
const REMOTE: &str = "romeo@remote.example/orchard";

/// A session of Juliet: its resource, and its priority if it is available.
type At = (&'static str, Option<i8>);

/// One situation of section 8: Juliet's sessions, and where the message is addressed to.
struct Situation {
    account: bool,
    sessions: &'static [At],
    to: &'static str,
}

impl Situation {
    const fn juliet(to: &'static str, sessions: &'static [At]) -> Self {
        Self { account: true, sessions, to }
    }

    const fn nobody(to: &'static str) -> Self {
        Self { account: false, sessions: &[], to }
    }

    fn world(&self, stores: Stores, elsewhere: &Elsewhere) -> (World, Vec<(&'static str, Client)>) {
        let router = elsewhere.clone();
        let world = World::with_stores(stores, |builder, _| builder.router(router));
        if self.account {
            world.account("juliet");
        }
        let sessions = self.sessions.iter().map(|&(resource, priority)| {
            let client = world.client("juliet", resource);
            if let Some(priority) = priority {
                client.send(&format!("<presence><priority>{priority}</priority></presence>"));
            }
            (resource, client)
        });
        let sessions: Vec<_> = sessions.collect();
        for (_, client) in &sessions {
            let _presence = client.received();
        }
        (world, sessions)
    }

    /// What becomes of a message of this type: the resources that got it, `OFF`, `E` or `S`.
    fn outcome(&self, stores: Stores, type_: &str, from: &str) -> String {
        let elsewhere = Elsewhere::default();
        let (world, sessions) = self.world(stores, &elsewhere);
        let to = self.to;
        let xml = |from: &str| {
            format!("<message{from} to='{to}' id='m' type='{type_}'><body>Hi</body></message>")
        };
        let answers = if from == LOCAL {
            world.client("romeo", "orchard").ask(&xml(""))
        } else {
            let message = Stanza::message().from(from).to(to).id("m").type_(type_);
            world.server().send(message.child(&body("Hi")).build());
            world.settle();
            elsewhere.take()
        };
        let mut outcome = Vec::new();
        for (resource, client) in sessions {
            let received = client.received();
            if !received.is_empty() {
                // MSG-7: as it was sent, with its true sender.
                assert_eq!(received, [xml(&format!(" from='{from}'"))]);
                outcome.push(resource);
            }
        }
        if stored(&world, "juliet") + stored(&world, "nobody") > 0 {
            outcome.push("OFF");
        }
        if !answers.is_empty() {
            assert_eq!(answers, [unavailable(to, from)]);
            outcome.push("E");
        }
        if outcome.is_empty() { "S".to_owned() } else { outcome.join(" ") }
    }

    /// A row of the table: for each type what becomes of it, from here and from another domain.
    fn check(&self, stores: impl Fn() -> Stores, expected: [&str; 5]) {
        for (type_, expected) in TYPES.into_iter().zip(expected) {
            for from in [LOCAL, REMOTE] {
                let outcome = self.outcome(stores(), type_, from);
                assert_eq!(outcome, expected, "{type_} from {from} to {}", self.to);
            }
        }
    }

    /// A row whose `OFF` and `U` depend on the store: it keeps messages, there is none, it is full.
    fn check_stores(&self, keeps: [&str; 5]) {
        let without = |word| if word == "OFF" { "E" } else { word };
        self.check(Stores::memory, keeps);
        self.check(|| Stores::memory().without_offline(), keeps.map(without));
        self.check(full, keeps.map(without));
    }
}

fn body(text: &str) -> Element {
    Element::builder("body", "jabber:client").append(text).build()
}

fn unavailable(from: &str, to: &str) -> String {
    format!(
        "<message from='{from}' to='{to}' id='m' type='error'><error type='cancel'>\
         <service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>"
    )
}

/// A store in which nobody has room for a message.
fn full() -> Stores {
    Stores::all_in(Arc::new(Memory::new().with_offline_limits(OfflineLimits::new(0, 0))))
}

fn stored(world: &World, node: &str) -> usize {
    let account = BareJid::new(&format!("{node}@example.com")).unwrap();
    let store = world.stores().offline.clone();
    store.map_or(0, |store| now(store.count(&account)).unwrap())
}

const BARE: &str = "juliet@example.com";
const FULL: &str = "juliet@example.com/balcony";

#[test]
fn msg_t1_unknown_account_bare() {
    let nobody = Situation::nobody("nobody@example.com");
    nobody.check(Stores::memory, ["S", "S", "E", "S", "S"]);
    nobody.check(|| Stores::memory().without_offline(), ["E", "E", "E", "S", "S"]);
}

#[test]
fn msg_t2_unknown_account_full() {
    let nobody = Situation::nobody("nobody@example.com/balcony");
    nobody.check(Stores::memory, ["E", "S", "E", "S", "S"]);
    nobody.check(|| Stores::memory().without_offline(), ["E", "E", "E", "S", "S"]);
}

#[test]
fn msg_t3_bare_no_session_available() {
    let situations: [&[At]; 2] = [&[], &[("balcony", None)]];
    for sessions in situations {
        Situation::juliet(BARE, sessions).check_stores(["OFF", "OFF", "E", "S", "S"]);
    }
}

#[test]
fn msg_t4_bare_all_available_ones_negative() {
    let situations: [&[At]; 2] = [
        &[("balcony", Some(-1))],
        &[("balcony", Some(-1)), ("garden", Some(-128)), ("hall", None)],
    ];
    for sessions in situations {
        Situation::juliet(BARE, sessions).check_stores(["OFF", "OFF", "E", "S", "S"]);
    }
}

#[test]
fn msg_t5_bare_exactly_one_not_negative() {
    let row = ["balcony", "balcony", "E", "balcony", "S"];
    let situations: [&[At]; 2] =
        [&[("balcony", Some(0))], &[("garden", Some(-1)), ("balcony", Some(3)), ("hall", None)]];
    for sessions in situations {
        Situation::juliet(BARE, sessions).check_stores(row);
    }
}

#[test]
fn msg_t6_bare_several_not_negative() {
    let several = Situation::juliet(
        BARE,
        &[("a", Some(5)), ("b", Some(1)), ("c", Some(-1)), ("d", Some(5)), ("e", None)],
    );
    several.check_stores(["a d", "a d", "E", "a b d", "S"]);
}

#[test]
fn msg_t7_full_session_matches() {
    let situations: [&[At]; 4] = [
        &[("balcony", Some(0)), ("garden", Some(9))],
        &[("balcony", Some(-1)), ("garden", Some(9))],
        &[("balcony", None), ("garden", Some(9))],
        &[("balcony", None)],
    ];
    for sessions in situations {
        Situation::juliet(FULL, sessions).check_stores(["balcony"; 5]);
    }
}

#[test]
fn msg_t8_full_no_match_none_not_negative() {
    let situations: [&[At]; 3] =
        [&[], &[("garden", None)], &[("garden", Some(-1)), ("hall", None)]];
    for sessions in situations {
        Situation::juliet(FULL, sessions).check_stores(["E", "OFF", "E", "S", "S"]);
    }
}

#[test]
fn msg_t9_full_no_match_some_not_negative() {
    let some = Situation::juliet(
        FULL,
        &[("a", Some(5)), ("b", Some(1)), ("c", Some(-1)), ("d", Some(5)), ("e", None)],
    );
    some.check_stores(["E", "a d", "E", "S", "S"]);
}

#[test]
fn msg_1_no_type_and_an_unknown_one_count_as_normal_and_stay() {
    let world = World::new();
    let (romeo, juliet) = (world.client("romeo", "orchard"), world.online("juliet", "balcony"));
    for attribute in ["", " type='normal'", " type='shout'", " type='CHAT'", " type=''"] {
        // To a missing resource chat is redirected and normal is bounced.
        let bounce =
            romeo.ask(&format!("<message to='{BARE}/gone' id='m'{attribute}><body/></message>"));
        assert_eq!(bounce, [unavailable(&format!("{BARE}/gone"), LOCAL)], "{attribute}");
        let answers =
            romeo.ask(&format!("<message to='{BARE}' id='m'{attribute}><body/></message>"));
        assert!(answers.is_empty(), "{answers:?}");
        let expected =
            format!("<message from='{LOCAL}' to='{BARE}' id='m'{attribute}><body/></message>");
        assert_eq!(juliet.received(), [expected]);
    }
}

#[test]
fn msg_2_chat_and_normal_go_to_all_that_share_the_top() {
    let situation = Situation::juliet(BARE, &[("a", Some(0)), ("b", Some(0)), ("c", Some(0))]);
    for type_ in ["normal", "chat"] {
        assert_eq!(situation.outcome(Stores::memory(), type_, LOCAL), "a b c");
    }
}

/// Keeps a session after the loss of its transport, when its client says so.
struct Retain;

impl Extension<Recorder> for Retain {
    fn nonza(&self, session: &mut Session<Bound, Recorder>, element: &Nonza) -> Flow {
        if !element.is("retain", "urn:example") {
            return Flow::Next;
        }
        assert!(session.retain(Duration::from_secs(60), |_| Vec::new()).is_some());
        Flow::Done
    }
}

#[test]
fn msg_3_a_live_session_gets_what_hibernating_ones_of_higher_priority_get() {
    let world = World::with(|builder, _| builder.extension(Retain));
    let romeo = world.client("romeo", "orchard");
    let client = |resource: &str, priority: i8| {
        let client = world.client("juliet", resource);
        client.send(&format!("<presence><priority>{priority}</priority></presence>"));
        client
    };
    let (phone, desk, old, idle) =
        (client("phone", 5), client("desk", 3), client("old", 1), client("idle", -1));
    phone.send("<retain xmlns='urn:example'/>");
    phone.lose();
    for client in [&desk, &old, &idle] {
        let _before = client.received();
    }
    romeo.send(&format!("<message to='{BARE}' id='m'><body>1</body></message>"));
    assert_eq!(desk.received().len(), 1);
    assert!(old.received().is_empty() && idle.received().is_empty());
    assert_eq!(stored(&world, "juliet"), 0);

    // Its window passes: another session has what it was given, so nobody gets it again (SM-17).
    world.advance(Duration::from_secs(61));
    for client in [&desk, &old, &idle] {
        assert!(client.received().iter().all(|one| !one.starts_with("<message")));
    }
    assert_eq!(stored(&world, "juliet"), 0);
}

#[test]
fn msg_3_a_hibernating_session_alone_still_gets_it() {
    let world = World::with(|builder, _| builder.extension(Retain));
    let (romeo, juliet) = (world.client("romeo", "orchard"), world.online("juliet", "phone"));
    juliet.send("<retain xmlns='urn:example'/>");
    juliet.lose();
    let answers = romeo.ask(&format!("<message to='{BARE}' id='m'><body>1</body></message>"));
    assert!(answers.is_empty());
    assert_eq!(stored(&world, "juliet"), 0);
    // It never comes back, and then its message is an offline message.
    world.advance(Duration::from_secs(61));
    assert_eq!(stored(&world, "juliet"), 1);
}

#[test]
fn msg_4_no_message_to_the_bare_jid_reaches_who_is_not_available_or_negative() {
    let world = World::new();
    let romeo = world.client("romeo", "orchard");
    let juliet = world.online("juliet", "balcony");
    let send = || romeo.ask(&format!("<message to='{BARE}' id='m'><body>1</body></message>"));
    send();
    assert_eq!(juliet.received().len(), 1);
    for presence in
        ["<presence><priority>-1</priority></presence>", "<presence type='unavailable'/>"]
    {
        juliet.send(presence);
        let _own = juliet.received();
        send();
        assert!(juliet.received().is_empty(), "after {presence}");
    }
    juliet.send("<presence to='romeo@example.com'/>");
    send();
    assert!(juliet.received().is_empty(), "directed presence is not availability");
    assert_eq!(stored(&world, "juliet"), 3);
}

#[test]
fn msg_5_unknown_and_empty_accounts_are_not_told_apart() {
    let stores: [fn() -> Stores; 2] = [Stores::memory, || Stores::memory().without_offline()];
    for stores in stores {
        let world = World::with_stores(stores(), |builder, _| builder);
        world.account("juliet");
        let romeo = world.client("romeo", "orchard");
        for type_ in TYPES {
            for payload in ["<body>Hi</body>", "", "<no-store xmlns='urn:xmpp:hints'/><body/>"] {
                for resource in ["", "/balcony"] {
                    let answer = |node: &str| {
                        let to = format!("{node}@example.com{resource}");
                        let xml = format!("<message to='{to}' type='{type_}'>{payload}</message>");
                        romeo.ask(&xml).concat().replace(&to, "it")
                    };
                    assert_eq!(answer("juliet"), answer("nobody"), "{type_} {payload}");
                }
            }
        }
    }
}

#[test]
fn msg_6_normal_and_groupchat_to_a_missing_resource_are_bounced_to_strangers() {
    let one = Situation::juliet(FULL, &[("garden", Some(0))]);
    for type_ in ["normal", "groupchat"] {
        for from in [LOCAL, REMOTE] {
            assert_eq!(one.outcome(Stores::memory(), type_, from), "E");
        }
    }
}

#[test]
fn msg_7_what_is_redirected_keeps_its_address() {
    let world = World::new();
    let (romeo, juliet) = (world.client("romeo", "orchard"), world.online("juliet", "balcony"));
    for to in ["juliet@example.com", "juliet@example.com/gone", "Juliet@EXAMPLE.com/gone"] {
        romeo.send(&format!("<message to='{to}' id='m' type='chat'><body>1</body></message>"));
        let expected = format!(
            "<message from='{LOCAL}' to='{to}' id='m' type='chat'><body>1</body></message>"
        );
        assert_eq!(juliet.received(), [expected]);
    }
}

#[test]
fn msg_8_who_cannot_take_a_message_is_left_out_and_others_are_asked() {
    {
        let (world, why) = (World::new(), SendError::Closed);
        let romeo = world.client("romeo", "orchard");
        let top = world.client("juliet", "top");
        top.send("<presence><priority>5</priority></presence>");
        let low = world.online("juliet", "low");
        let send = |to: &str| {
            romeo.ask(&format!("<message to='{to}' id='m' type='chat'><body>1</body></message>"))
        };
        let messages = |client: &Client| {
            client.received().iter().filter(|one| one.starts_with("<message")).count()
        };
        top.recorder().refuse(Some(why));
        assert!(send(BARE).is_empty());
        assert_eq!((messages(&top), messages(&low)), (0, 1), "{why:?}");
        low.recorder().refuse(Some(why));
        assert!(send(BARE).is_empty());
        assert_eq!(stored(&world, "juliet"), 1, "{why:?}: when nobody is left, the row's OFF");
    }
}

#[test]
fn msg_8_a_full_jid_whose_session_takes_nothing_is_one_without_match() {
    let world = World::new();
    let (romeo, juliet) = (world.client("romeo", "orchard"), world.client("juliet", "balcony"));
    juliet.recorder().refuse(Some(SendError::Closed));
    let answers = romeo.ask(&format!("<message to='{FULL}' id='m'><body>1</body></message>"));
    assert_eq!(answers, [unavailable(FULL, LOCAL)]);
}

/// A host that takes messages to its domain.
#[derive(Clone, Default)]
struct Announce(Arc<Mutex<Vec<String>>>);

impl Extension<Recorder> for Announce {
    fn inbound(&self, _: &SessionHandle<Recorder>, stanza: &Stanza) -> Flow {
        if stanza.kind() != Kind::Message || stanza.to().as_deref() != Some("example.com") {
            return Flow::Next;
        }
        self.0.lock().unwrap().push(stanza.from().unwrap().into_owned());
        Flow::Done
    }
}

#[test]
fn msg_9_without_a_handler_a_message_to_the_domain_is_bounced() {
    for to in ["example.com", "example.com/announce"] {
        let domain = Situation::nobody(to);
        domain.check(Stores::memory, ["E", "E", "E", "S", "S"]);
    }
}

#[test]
fn msg_9_the_host_takes_messages_to_its_domain() {
    let announce = Announce::default();
    let world = World::with(|builder, _| builder.extension(announce.clone()));
    let romeo = world.client("romeo", "orchard");
    assert!(romeo.ask("<message to='example.com'><body>1</body></message>").is_empty());
    assert_eq!(*announce.0.lock().unwrap(), [LOCAL]);
    assert_eq!(romeo.ask("<message to='example.com/x'><body>1</body></message>").len(), 1);
}

#[test]
fn msg_9_presence_to_the_domain_is_silent() {
    let world = World::new();
    let romeo = world.online("romeo", "orchard");
    for type_ in ["", " type='unavailable'", " type='error'"] {
        for to in ["example.com", "example.com/x"] {
            assert!(romeo.ask(&format!("<presence to='{to}'{type_}/>")).is_empty(), "{type_}");
        }
    }
}
