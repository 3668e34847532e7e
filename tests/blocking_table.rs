//! What somebody sees of an account, in every state of it (rules BLOCK-5, BLOCK-10, OFF-2).
//!
//! Each kind of stanza goes to each form of address while the account is in each of its states, and
//! what comes back must not depend on the state.

use crate::common::wire;
use std::sync::Arc;
use std::time::Duration;

use wire::{Client, World};
use xmpp_session::store::Stores;
use xmpp_session::xep;

const BARE: &str = "romeo@example.com";
const FULL: &str = "romeo@example.com/orchard";
const GONE: &str = "romeo@example.com/gone";

/// What the account is at the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Offline,
    /// A session is bound, and not available any more.
    Unavailable,
    Online,
    Negative,
    Hibernating,
    Several,
}

const STATES: [State; 6] = [
    State::Offline,
    State::Unavailable,
    State::Online,
    State::Negative,
    State::Hibernating,
    State::Several,
];

/// What the sender is to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    Stranger,
    Friend,
}

fn world(stores: Stores) -> World {
    let blocks = Arc::clone(&stores.blocks);
    World::with_stores(stores, |builder, environment| {
        builder
            .extension(xep::Blocking::new(blocks))
            .extension(xep::Carbons::new())
            .extension(xep::StreamManagement::new())
            .extension(xep::Ping)
            .extension(xep::SoftwareVersion::new("x", "1"))
            .extension(xep::LastActivity::new(environment))
            .extension(xep::Disco::new())
    })
}

/// The account in a state, in a world of its own, and who looks at it.
struct Scene {
    world: World,
    sender: Client,
    sessions: Vec<Client>,
}

impl Scene {
    fn new(stores: Stores, relation: Relation, block: Option<&str>, state: State) -> Self {
        let world = world(stores);
        world.account("romeo");
        if relation == Relation::Friend {
            world.friends("romeo", "tybalt");
        }
        if let Some(item) = block {
            let romeo = world.client("romeo", "first");
            romeo.ask(&format!(
                "<iq type='set' id='b'><block xmlns='urn:xmpp:blocking'><item jid='{item}'/></block></iq>"
            ));
            romeo.lose();
        }
        let sender = world.online("tybalt", "street");
        sender.ask("<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>");
        let mut scene = Self { world, sender, sessions: Vec::new() };
        scene.enter(state);
        scene
    }

    fn enter(&mut self, state: State) {
        let session = |resource, presence: &str| {
            let client = self.world.client("romeo", resource);
            client.send("<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>");
            client.send("<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>");
            client.send(presence);
            client
        };
        self.sessions = match state {
            State::Offline => vec![],
            State::Unavailable => {
                vec![session("orchard", "<presence/><presence type='unavailable'/>")]
            }
            State::Online => vec![session("orchard", "<presence/>")],
            State::Negative => {
                vec![session("orchard", "<presence><priority>-1</priority></presence>")]
            }
            State::Hibernating => {
                let client = session("orchard", "<presence/>");
                client.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
                client.lose();
                vec![]
            }
            State::Several => vec![
                session("orchard", "<presence/>"),
                session("other", "<presence><priority>3</priority></presence>"),
            ],
        };
        self.sessions.iter().for_each(|client| drop(client.received()));
    }

    /// What the sender sees when it sends this.
    fn sees(&self, stanza: &str) -> Vec<String> {
        // Within the rates.
        self.world.advance(Duration::from_secs(3));
        self.sender.ask(stanza).iter().map(|xml| without_push_id(xml)).collect()
    }
}

/// A push without what is random in it.
fn without_push_id(xml: &str) -> String {
    match (xml.contains("jabber:iq:roster"), xml.split_once(" id='")) {
        (true, Some((head, rest))) => {
            format!("{head} {}", rest.split_once('\'').map_or("", |(_, rest)| rest))
        }
        _ => xml.to_owned(),
    }
}

fn messages() -> Vec<String> {
    let state = "<composing xmlns='http://jabber.org/protocol/chatstates'/>";
    let body = "<body>a</body>";
    let hint = |name: &str| format!("<{name} xmlns='urn:xmpp:hints'/>");
    let payloads = [
        String::new(),
        body.to_owned(),
        state.to_owned(),
        format!("{state}<thread>t</thread>"),
        format!("{body}{state}"),
        hint("no-store"),
        format!("{body}{}", hint("no-store")),
        format!("{state}{}", hint("store")),
        format!("{body}{}", hint("no-copy")),
        "<received xmlns='urn:xmpp:receipts' id='1'/>".to_owned(),
        "<x xmlns='jabber:x:conference' jid='room@muc.example.com'/>".to_owned(),
    ];
    let types = ["", "normal", "chat", "groupchat", "headline", "error", "no-such-type"];
    let message = |type_: &str, payload: &String| {
        let type_ = if type_.is_empty() { String::new() } else { format!(" type='{type_}'") };
        format!("<message to='*' id='m'{type_}>{payload}</message>")
    };
    types.iter().flat_map(|type_| payloads.iter().map(move |p| message(type_, p))).collect()
}

fn iqs() -> Vec<String> {
    let mut iqs = vec![
        "<iq to='*' id='i' type='result'/>".to_owned(),
        "<iq to='*' id='i' type='error'><error type='cancel'/></iq>".to_owned(),
    ];
    for query in [
        "<query xmlns='http://jabber.org/protocol/disco#info'/>",
        "<query xmlns='http://jabber.org/protocol/disco#info' node='n'/>",
        "<query xmlns='http://jabber.org/protocol/disco#items'/>",
        "<ping xmlns='urn:xmpp:ping'/>",
        "<query xmlns='jabber:iq:version'/>",
        "<query xmlns='jabber:iq:last'/>",
        "<query xmlns='jabber:iq:roster'/>",
        "<query xmlns='jabber:iq:roster'><item jid='a@b.example'/></query>",
        "<session xmlns='urn:ietf:params:xml:ns:xmpp-session'/>",
        "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>",
        "<blocklist xmlns='urn:xmpp:blocking'/>",
        "<enable xmlns='urn:xmpp:carbons:2'/>",
        "<q xmlns='urn:example:x'/>",
    ] {
        for type_ in ["get", "set"] {
            iqs.push(format!("<iq to='*' id='i' type='{type_}'>{query}</iq>"));
        }
    }
    iqs
}

fn presences() -> Vec<String> {
    let types = ["", "unavailable", "probe", "error", "invisible"];
    let presence = |type_: &&str| match *type_ {
        "" => "<presence to='*' id='p'/>".to_owned(),
        type_ => format!("<presence to='*' id='p' type='{type_}'/>"),
    };
    types.iter().map(presence).collect()
}

/// Each of these changes something, so each has a world of its own.
fn subscriptions() -> Vec<String> {
    let types = ["subscribe", "subscribed", "unsubscribe", "unsubscribed"];
    let mut subscriptions: Vec<String> =
        types.iter().map(|t| format!("<presence to='*' id='s' type='{t}'/>")).collect();
    subscriptions.push(
        "<iq type='set' id='r'><query xmlns='jabber:iq:roster'>\
         <item jid='romeo@example.com' subscription='remove'/></query></iq>"
            .to_owned(),
    );
    subscriptions
}

type Table = Vec<(String, Vec<String>)>;

/// Whatever a sender can send, and what it sees of it, at three addresses.
fn table(stores: fn() -> Stores, relation: Relation, block: Option<&str>, state: State) -> Table {
    let mut table = stanzas(stores, relation, block, state);
    for to in [BARE, FULL, GONE] {
        for stanza in subscriptions() {
            let scene = Scene::new(stores(), relation, block, state);
            let stanza = stanza.replace('*', to);
            let mut seen = scene.sees(&stanza);
            // Nor later, when somebody has to be told something anyway.
            scene.world.advance(Duration::from_secs(700));
            seen.extend(scene.sees("<presence/>"));
            table.push((stanza, seen));
            if block.is_some() {
                scene.heard_nothing(state);
            }
        }
    }
    table
}

/// What changes nothing between the two.
fn stanzas(stores: fn() -> Stores, relation: Relation, block: Option<&str>, state: State) -> Table {
    let mut table = Table::new();
    let scene = Scene::new(stores(), relation, block, state);
    for to in [BARE, FULL, GONE] {
        for stanza in [messages(), iqs(), presences()].concat() {
            let stanza = stanza.replace('*', to);
            let seen = scene.sees(&stanza);
            table.push((stanza, seen));
        }
    }
    if block.is_some() {
        scene.heard_nothing(state);
    }
    table
}

impl Scene {
    /// The user hears of a blocked sender neither now nor when it comes back.
    fn heard_nothing(&self, state: State) {
        let later = self.world.online("romeo", "later");
        let heard = [self.sessions.clone(), vec![later]].concat();
        for client in heard {
            // What carbons brought is in it too.
            let heard = client.received().concat();
            assert!(!heard.contains("tybalt@"), "{state:?}: {heard}");
        }
    }
}

fn memory() -> Stores {
    Stores::memory()
}

fn without_offline() -> Stores {
    Stores::memory().without_offline()
}

/// Rows that differ, whole.
fn assert_same(one: &Table, other: &Table, what: &str) {
    assert_eq!(one.len(), other.len());
    for ((stanza, seen), (_, otherwise)) in one.iter().zip(other) {
        assert_eq!(seen, otherwise, "{what}: {stanza}");
    }
}

#[test]
fn block_5_what_a_blocked_sender_sees_does_not_depend_on_who_is_there() {
    for relation in [Relation::Stranger, Relation::Friend] {
        let at = |state| table(memory, relation, Some("tybalt@example.com"), state);
        let offline = at(State::Offline);
        for state in STATES {
            assert_same(&offline, &at(state), &format!("{relation:?} {state:?}"));
        }
    }
}

#[test]
fn block_5_the_same_for_every_form_of_item() {
    let at = |item, state| stanzas(memory, Relation::Friend, Some(item), state);
    let expected = at("tybalt@example.com", State::Offline);
    for state in STATES {
        assert_same(&expected, &at("tybalt@example.com/street", state), &format!("{state:?}"));
    }
}

#[test]
fn block_5_a_blocked_sender_sees_an_account_that_is_away() {
    let mut away = table(without_offline, Relation::Stranger, None, State::Offline);
    let mut blocked = table(memory, Relation::Stranger, Some("tybalt@example.com"), State::Online);
    // Blocked, a probe has no answer, and every query the same (XEP-0191 §3.3).
    let others = ["type='probe'", "#items'", "urn:xmpp:carbons:2"];
    for table in [&mut away, &mut blocked] {
        table.retain(|(stanza, _)| !others.iter().any(|other| stanza.contains(other)));
    }
    assert_same(&away, &blocked, "away");
}

#[test]
fn off_2_what_a_stranger_sees_does_not_depend_on_who_is_there() {
    // A message to one resource alone comes back if that is not there (MSG-6).
    let to_one = |stanza: &str| {
        stanza.contains(FULL)
            && stanza.starts_with("<message")
            && !["chat", "headline", "error"]
                .iter()
                .any(|t| stanza.contains(&format!("type='{t}'")))
    };
    let at = |state| {
        let mut rows = table(memory, Relation::Stranger, None, state);
        rows.retain(|(stanza, _)| !to_one(stanza));
        rows
    };
    let offline = at(State::Offline);
    for state in STATES {
        assert_same(&offline, &at(state), &format!("{state:?}"));
    }
}

/// What a contact that logs in is told of Romeo.
#[cfg(test)]
fn learned(world: &World, resource: &str) -> String {
    let tybalt = world.client("tybalt", resource);
    tybalt.send("<presence/>");
    let mut seen = tybalt.received();
    seen.retain(|presence| presence.contains("from='romeo@"));
    tybalt.lose();
    seen.concat()
}

#[test]
fn block_10_a_blocked_contact_that_logs_in_sees_somebody_who_left_when_it_was_blocked() {
    for (before, after) in STATES.iter().flat_map(|one| STATES.iter().map(move |two| (*one, *two)))
    {
        for item in ["tybalt@example.com", "tybalt@example.com/street", "example.com"] {
            let mut scene = Scene::new(memory(), Relation::Friend, None, before);
            let world = scene.world.clone();
            world.advance(Duration::from_secs(10));
            let romeo = world.client("romeo", "blocker");
            // The own domain covers nobody but its accounts (BLOCK-8).
            romeo.ask(&format!(
                "<iq type='set' id='b'><block xmlns='urn:xmpp:blocking'><item jid='{item}'/></block></iq>"
            ));
            scene.sender.lose();
            let first = learned(&world, "street");
            assert!(first.contains("type='unavailable'"), "{first}");
            let time = match before {
                State::Offline => "",
                // Before the ten seconds, or behind them.
                State::Unavailable => "00:00",
                _ => "00:10",
            };
            assert!(
                first.contains("<delay ") != time.is_empty() && first.contains(time),
                "{first}"
            );
            romeo.lose();
            for state in [after, State::Offline, State::Online, State::Offline] {
                world.advance(Duration::from_secs(100));
                std::mem::take(&mut scene.sessions).iter().for_each(Client::lose);
                scene.enter(state);
                assert_eq!(learned(&world, "street"), first, "{item} {before:?} {state:?}");
            }
        }
    }
}

#[test]
fn block_10_after_a_restart_too() {
    let stores = memory();
    let scene =
        Scene::new(stores.clone(), Relation::Friend, Some("tybalt@example.com"), State::Offline);
    let _told = scene.sender.received();
    // Another server on the same stores remembers no times.
    let blocks = Arc::clone(&stores.blocks);
    let world =
        World::with_stores(stores, |builder, _| builder.extension(xep::Blocking::new(blocks)));
    let first = learned(&world, "street");
    assert!(!first.contains("<delay "), "{first}");
    for look in [false, true] {
        let romeo = world.online("romeo", "orchard");
        if look {
            assert_eq!(learned(&world, "street"), first);
        }
        romeo.lose();
        assert_eq!(learned(&world, "street"), first);
    }
}
