//! Copies of messages for the other sessions of an account (rules CARBONS-1 to CARBONS-10).

use crate::common::wire;
use wire::{Client, World};
use xmpp_session::stanza::canonicalise;
use xmpp_session::xep;

fn world() -> World {
    World::with(|builder, _| builder.extension(xep::Carbons::new()).extension(xep::Disco::new()))
}

const ENABLE: &str = "<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>";
const DISABLE: &str = "<iq type='set' id='c'><disable xmlns='urn:xmpp:carbons:2'/></iq>";

fn done(client: &Client) -> Vec<String> {
    let account = client.session().jid().to_bare();
    vec![format!("<iq from='{account}' to='{}' id='c' type='result'/>", client.jid())]
}

/// Bound, with carbons, and not available.
fn carbons(world: &World, node: &str, resource: &str) -> Client {
    let client = world.client(node, resource);
    assert_eq!(client.ask(ENABLE), done(&client));
    client
}

/// The copy that `client` gets of `message`, a whole message as it was delivered.
fn copy(client: &Client, name: &str, message: &str) -> String {
    let account = client.session().jid().to_bare();
    let type_ = message.split(" type='").nth(1).and_then(|rest| rest.split('\'').next());
    let type_ = type_.map(|type_| format!(" type='{type_}'")).unwrap_or_default();
    let message = message.replacen("<message", "<message xmlns='jabber:client'", 1);
    format!(
        "<message from='{account}' to='{}'{type_}><{name} xmlns='urn:xmpp:carbons:2'>\
         <forwarded xmlns='urn:xmpp:forward:0'>{message}</forwarded></{name}></message>",
        client.jid()
    )
}

const NOTHING: [&str; 0] = [];

#[test]
fn carbons_1_they_are_switched_on_and_off_any_number_of_times() {
    let world = world();
    let (phone, desk) = (world.client("romeo", "phone"), world.online("romeo", "desk"));
    let juliet = world.client("juliet", "balcony");
    let send =
        || juliet.send("<message to='romeo@example.com' type='chat'><body>a</body></message>");
    send();
    assert_eq!(desk.received().len(), 1);
    assert_eq!(phone.received(), NOTHING);
    for _ in 0..2 {
        assert_eq!(phone.ask(ENABLE), done(&phone));
    }
    send();
    assert_eq!(phone.received().len(), 1);
    for _ in 0..2 {
        assert_eq!(phone.ask(DISABLE), done(&phone));
    }
    send();
    assert_eq!(phone.received(), NOTHING);
    assert_eq!(desk.received().len(), 2);
    // A new session of the resource starts without.
    assert_eq!(phone.ask(ENABLE), done(&phone));
    let phone = world.client("romeo", "phone");
    send();
    assert_eq!(phone.received(), NOTHING);
}

#[test]
fn carbons_1_own_bare_jid_is_an_address_too() {
    let world = world();
    let phone = world.client("romeo", "phone");
    let enable = ENABLE.replace("id='c'", "id='c' to='romeo@example.com'");
    assert_eq!(phone.ask(&enable), done(&phone));
}

#[test]
fn carbons_2_nobody_switches_for_another_account() {
    let world = world();
    world.account("juliet");
    let romeo = world.client("romeo", "orchard");
    for to in ["juliet@example.com", "nobody@example.com"] {
        let enable = ENABLE.replace("id='c'", &format!("id='c' to='{to}'"));
        let answer = romeo.ask(&enable).concat();
        assert!(answer.contains("<not-allowed ") && answer.contains("type='cancel'"), "{answer}");
    }
    let answers = world.routed_answer(
        "<iq from='tybalt@remote.example/x' to='example.com' type='set' id='c'>\
         <enable xmlns='urn:xmpp:carbons:2'/></iq>",
    );
    assert_eq!(answers, "not-allowed");
}

#[test]
fn carbons_2_policy_forbids() {
    let world = World::with(|builder, _| {
        builder.extension(xep::Carbons::new().forbidden(|jid| jid.as_str().starts_with("romeo")))
    });
    let romeo = world.client("romeo", "orchard");
    let answer = romeo.ask(ENABLE).concat();
    assert!(answer.contains("<error type='auth'><forbidden "), "{answer}");
    let juliet = world.client("juliet", "balcony");
    assert_eq!(juliet.ask(ENABLE), done(&juliet));
}

#[test]
fn carbons_4_both_features_are_advertised() {
    let world = world();
    let romeo = world.client("romeo", "orchard");
    let info = romeo.ask(
        "<iq type='get' id='1' to='example.com'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>",
    );
    for feature in ["urn:xmpp:carbons:2", "urn:xmpp:carbons:rules:0"] {
        assert!(info.concat().contains(&format!("'{feature}'")), "{info:?}");
    }
}

#[test]
fn carbons_4_errors_of_copied_messages_are_copied() {
    let world = world();
    let (phone, desk) = (carbons(&world, "romeo", "phone"), carbons(&world, "romeo", "desk"));
    let juliet = world.online("juliet", "balcony");
    phone.send("<message to='juliet@example.com' type='chat' id='m1'><body>a</body></message>");
    let _sent = desk.received();
    juliet.send("<message to='romeo@example.com/phone' type='error' id='m1'><error type='cancel'/></message>");
    let error = "<message from='juliet@example.com/balcony' to='romeo@example.com/phone' id='m1' type='error'><error type='cancel'/></message>";
    assert_eq!(phone.received(), [error]);
    assert_eq!(desk.received(), [copy(&desk, "received", error)]);
    // Of a message that nobody sent, not.
    juliet.send("<message to='romeo@example.com/phone' type='error' id='m2'><error type='cancel'/></message>");
    assert_eq!(phone.received().len(), 1);
    assert_eq!(desk.received(), NOTHING);
}

#[test]
fn carbons_4_our_own_bounces_are_copied_behind_what_they_answer() {
    let world = world();
    world.account("juliet");
    let (phone, desk) = (carbons(&world, "romeo", "phone"), carbons(&world, "romeo", "desk"));
    phone.send(
        "<message to='juliet@example.com/gone' type='normal' id='m'><body>a</body></message>",
    );
    let bounced = phone.received();
    let copies = desk.received();
    let sent = "<message from='romeo@example.com/phone' to='juliet@example.com/gone' id='m' type='normal'><body>a</body></message>";
    assert_eq!(copies, [copy(&desk, "sent", sent), copy(&desk, "received", &bounced.concat())]);
}

#[test]
fn carbons_5_each_other_session_gets_one_copy() {
    let world = world();
    let top = carbons(&world, "romeo", "top");
    top.send("<presence><priority>5</priority></presence>");
    let low = carbons(&world, "romeo", "low");
    low.send("<presence><priority>-3</priority></presence>");
    let connected = carbons(&world, "romeo", "connected");
    let without = world.client("romeo", "without");
    for client in [&top, &low, &connected, &without] {
        let _before = client.received();
    }
    let juliet = world.client("juliet", "balcony");
    juliet.send("<message to='romeo@example.com' type='chat' id='1'><body>a</body></message>");
    let message = "<message from='juliet@example.com/balcony' to='romeo@example.com' id='1' type='chat'><body>a</body></message>";
    assert_eq!(top.received(), [message]);
    for client in [&low, &connected] {
        assert_eq!(client.received(), [copy(client, "received", message)]);
    }
    assert_eq!(without.received(), NOTHING);
    assert_eq!(juliet.received(), NOTHING);
}

#[test]
fn carbons_5_a_stored_message_comes_once_to_each_session() {
    let message = "<message from='juliet@example.com/balcony' to='romeo@example.com' type='chat'><body>a</body>";
    for presence in ["", "<presence><priority>-1</priority></presence>"] {
        let world = world();
        let (phone, desk) = (carbons(&world, "romeo", "phone"), carbons(&world, "romeo", "desk"));
        phone.send(presence);
        let _own = phone.received();
        let juliet = world.client("juliet", "balcony");
        juliet.send("<message to='romeo@example.com' type='chat'><body>a</body></message>");
        assert_eq!(phone.received(), NOTHING);
        phone.send("<presence/>");
        let got = phone.received();
        assert_eq!(got.iter().filter(|one| one.starts_with(message)).count(), 1, "{got:?}");
        assert!(!got.iter().any(|one| one.contains("urn:xmpp:carbons:2")), "{got:?}");
        // To the other one it comes as a copy of what the first has got, and never again.
        let copies = desk.received();
        let is_copy = |one: &&String| one.contains("<received") && one.contains("<body>a</body>");
        assert_eq!(copies.iter().filter(is_copy).count(), 1, "{copies:?}");
        let got = desk.ask("<presence/>");
        assert!(!got.concat().contains("<body>"), "{got:?}");
    }
}

#[test]
fn carbons_5_a_bounced_message_is_not_copied() {
    let world = world();
    let phone = carbons(&world, "romeo", "phone");
    let juliet = world.client("juliet", "balcony");
    juliet.send("<message to='romeo@example.com/gone' type='normal'><body>a</body></message>");
    assert_eq!(juliet.received().len(), 1);
    assert_eq!(phone.received(), NOTHING);
}

#[test]
fn carbons_7_a_stored_message_of_an_own_session_comes_once() {
    let world = world();
    let (phone, desk) = (carbons(&world, "romeo", "phone"), carbons(&world, "romeo", "desk"));
    phone.send("<message to='romeo@example.com' type='chat'><body>a</body></message>");
    assert_eq!(desk.received(), NOTHING);
    let got = desk.ask("<presence/>");
    assert_eq!(got.iter().filter(|one| one.contains("<body>a</body>")).count(), 1, "{got:?}");
    assert_eq!(phone.received(), NOTHING);
}

#[test]
fn carbons_6_what_one_session_sends_the_others_see() {
    let world = world();
    let sender = world.client("romeo", "sender");
    let (phone, off) = (carbons(&world, "romeo", "phone"), world.online("romeo", "off"));
    let juliet = world.online("juliet", "balcony");
    for to in ["juliet@example.com", "juliet@remote.example/x"] {
        sender.send(&format!("<message to='{to}' type='chat'><body>a</body></message>"));
        let message = format!(
            "<message from='romeo@example.com/sender' to='{to}' type='chat'><body>a</body></message>"
        );
        assert_eq!(phone.received(), [copy(&phone, "sent", &message)]);
        assert_eq!(off.received(), NOTHING);
    }
    assert_eq!(juliet.received().len(), 1);
}

#[test]
fn carbons_6_the_sender_gets_none_with_carbons_either() {
    let world = world();
    let (sender, phone) = (carbons(&world, "romeo", "sender"), carbons(&world, "romeo", "phone"));
    world.online("juliet", "balcony");
    sender.send("<message to='juliet@example.com' type='chat'><body>a</body></message>");
    assert_eq!(sender.received(), NOTHING);
    assert_eq!(phone.received().len(), 1);
}

#[test]
fn carbons_7_between_own_sessions_sent_wins() {
    let world = world();
    let (sender, addressed) = (carbons(&world, "romeo", "a"), carbons(&world, "romeo", "b"));
    let third = carbons(&world, "romeo", "c");
    sender.send("<message to='romeo@example.com/b' type='chat'><body>a</body></message>");
    let message = "<message from='romeo@example.com/a' to='romeo@example.com/b' type='chat'><body>a</body></message>";
    assert_eq!(addressed.received(), [message]);
    assert_eq!(third.received(), [copy(&third, "sent", message)]);
    assert_eq!(sender.received(), NOTHING);
}

#[test]
fn carbons_6_to_the_own_bare_jid() {
    let world = world();
    let (sender, phone) = (world.client("romeo", "a"), carbons(&world, "romeo", "b"));
    let top = world.online("romeo", "top");
    let _presence = phone.received();
    sender.send("<message to='romeo@example.com' type='chat'><body>a</body></message>");
    let message = "<message from='romeo@example.com/a' to='romeo@example.com' type='chat'><body>a</body></message>";
    assert_eq!(phone.received(), [copy(&phone, "sent", message)]);
    assert_eq!(top.received(), [message]);
}

#[test]
fn carbons_8_the_copy_keeps_the_whole_message() {
    let world = world();
    let phone = carbons(&world, "romeo", "phone");
    world.account("juliet");
    let sender = world.client("romeo", "desk");
    sender.send(
        "<message to='juliet@example.com' id='&lt;1&gt;' xml:lang='de'><body>a &amp; b</body>\
         <x xmlns='urn:example:x' a='1'/></message>",
    );
    let message = "<message from='romeo@example.com/desk' to='juliet@example.com' id='&lt;1&gt;' xml:lang='de'>\
                   <body>a &amp; b</body><x xmlns='urn:example:x' a='1'/></message>";
    assert_eq!(phone.received(), [copy(&phone, "sent", message)]);
}

#[test]
fn carbons_9_a_forged_copy_is_an_ordinary_message() {
    let world = world();
    let (top, phone) = (world.online("romeo", "top"), carbons(&world, "romeo", "phone"));
    let tybalt = world.client("tybalt", "street");
    let forged = "<received xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>\
                  <message xmlns='jabber:client' from='juliet@example.com/balcony' type='chat'><body>a</body></message>\
                  </forwarded></received>";
    tybalt.send(&format!(
        "<message to='romeo@example.com' from='romeo@example.com' type='chat'>{forged}</message>"
    ));
    let message = format!(
        "<message from='tybalt@example.com/street' to='romeo@example.com' type='chat'>{forged}</message>"
    );
    assert_eq!(top.received(), std::slice::from_ref(&message));
    assert_eq!(phone.received(), [copy(&phone, "received", &message)]);
}

#[test]
fn carbons_9_copies_are_not_copied() {
    let world = world();
    let (phone, desk) = (carbons(&world, "romeo", "phone"), carbons(&world, "romeo", "desk"));
    let (top, juliet) = (world.online("romeo", "top"), world.client("juliet", "balcony"));
    juliet.send("<message to='romeo@example.com/gone' type='chat'><body>a</body></message>");
    assert_eq!(top.received().len(), 1);
    assert_eq!(phone.received().len(), 1);
    assert_eq!(desk.received().len(), 1);
}

#[test]
fn carbons_10_a_bounced_copy_reaches_nobody() {
    let world = world();
    let (phone, desk) = (carbons(&world, "romeo", "phone"), carbons(&world, "romeo", "desk"));
    for client in [&phone, &desk] {
        client.send("<presence/>");
    }
    let juliet = world.client("juliet", "balcony");
    juliet.send("<message to='romeo@example.com/desk' type='chat' id='m'><body>a</body></message>");
    let (copied, _original) = (phone.received(), desk.received());
    let copied = copied.last().unwrap();
    let bounce = copied
        .replacen(
            "from='romeo@example.com' to='romeo@example.com/phone' type='chat'",
            "to='romeo@example.com' type='error'",
            1,
        )
        .replace("</received>", "</received><error type='cancel'/>");
    assert!(bounce.contains("to='romeo@example.com' type='error'"), "{bounce}");
    assert_eq!(phone.ask(&bounce), NOTHING);
    assert_eq!(desk.received(), NOTHING);
    assert_eq!(juliet.received(), NOTHING);
}

#[cfg(test)]
trait Routed {
    fn routed_answer(&self, iq: &str) -> &'static str;
}

#[cfg(test)]
impl Routed for World {
    /// The condition that an iq from another domain is answered with.
    fn routed_answer(&self, iq: &str) -> &'static str {
        let request = canonicalise(iq.as_bytes()).unwrap();
        let before = self.metrics().stanza_errors;
        self.server().send(request);
        self.settle();
        let after = self.metrics().stanza_errors;
        let new = after.iter().find(|(condition, count)| !before.contains(&(*condition, *count)));
        new.map_or("none", |(condition, _)| condition.as_str())
    }
}

#[test]
fn carbons_3_errors_and_groupchat_of_strangers_are_not_copied() {
    let world = world();
    let (top, phone) = (world.online("romeo", "top"), carbons(&world, "romeo", "phone"));
    let room = |type_: &str, payload: &str| {
        let message = format!(
            "<message from='room@muc.example/nick' to='romeo@example.com/top' type='{type_}' id='9'>{payload}</message>"
        );
        world.server().send(canonicalise(message.as_bytes()).unwrap());
        world.settle();
    };
    room("groupchat", "<body>a</body>");
    room("chat", "<body>a</body><x xmlns='http://jabber.org/protocol/muc#user'/>");
    room("headline", "<body>a</body>");
    room("error", "<error type='cancel'/>");
    assert_eq!(top.received().len(), 4);
    assert_eq!(phone.received(), NOTHING);
    room("normal", "<x xmlns='http://jabber.org/protocol/muc#user'><invite from='a@b'/></x>");
    assert_eq!(phone.received().len(), 1);
}
