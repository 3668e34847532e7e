//! Accounts at different nodes: what they say to each other, what their hosts do with them, and what becomes of them
//! when their node may not act any more.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use xmpp_session::jid::{BareJid, DomainPart};
use xmpp_session::minidom::Element;
use xmpp_session::rules::roster::{Item, Subscription};
use xmpp_session::server::{AccountError, FaultKind};
use xmpp_session::stanza::Stanza;
use xmpp_session::stream::{StreamCondition, StreamError};

use crate::common::nodes::{Client, DOMAIN, Nodes};

/// Two accounts at two nodes of three.
fn couple(world: &Nodes) -> (BareJid, BareJid) {
    (world.account_at(0, "juliet"), world.account_at(1, "romeo"))
}

fn element(name: &str, namespace: &str, text: &str) -> Element {
    Element::builder(name, namespace).append(text).build()
}

fn friends(world: &Nodes) -> (BareJid, BareJid) {
    let (juliet, romeo) = couple(world);
    world.run(world.node(2).server.account(&juliet).befriend(&romeo)).unwrap();
    (juliet, romeo)
}

fn items(world: &Nodes, of: &BareJid) -> Vec<(String, Subscription)> {
    let roster = world.run(world.elsewhere(of).server.account(of).roster()).unwrap();
    roster.iter().map(|item| (item.jid().to_owned(), item.subscription())).collect()
}

#[test]
fn node_15_messages_and_iqs_go_to_accounts_of_other_nodes_and_back() {
    let world = Nodes::new(3);
    let (juliet, romeo) = couple(&world);
    let (balcony, orchard) = (world.online(&juliet, "balcony"), world.online(&romeo, "orchard"));
    world.say(&balcony, &format!("<message to='{romeo}' type='chat'><body>1</body></message>"));
    world.say(&balcony, &format!("<message to='{romeo}/orchard'><body>2</body></message>"));
    let heard = orchard.received();
    assert!(heard.contains(&format!("from='{juliet}/balcony'")), "{heard}");
    assert!(heard.find("<body>1<") < heard.find("<body>2<"), "{heard}");
    world.say(
        &balcony,
        &format!("<iq type='get' id='v' to='{romeo}/orchard'><query xmlns='x:y'/></iq>"),
    );
    let asked = orchard.received();
    // IQ-7: who is not entitled is told no more than of somebody who is not there.
    assert!(!asked.contains("x:y"), "{asked}");
    assert!(balcony.received().contains("<service-unavailable"));
}

#[test]
fn node_15_what_cannot_be_delivered_comes_back_as_from_an_account_here() {
    let world = Nodes::new(3);
    let (juliet, romeo) = couple(&world);
    let (here, there) = (world.account_at(0, "nurse"), romeo);
    let balcony = world.online(&juliet, "balcony");
    let nobody = |n: usize| {
        let node = world.node(n);
        let names = (0..).map(|k| BareJid::new(&format!("nobody{k}@{DOMAIN}")).unwrap());
        names.into_iter().find(|jid| node.is_home_of(jid)).unwrap()
    };
    let (nobody_here, nobody_there) = (nobody(0), nobody(1));
    for (one, other) in [(here, there), (nobody_here, nobody_there)] {
        let answers = |jid: &BareJid| {
            let questions = [
                format!("<iq type='get' id='1' to='{jid}'><query xmlns='x:y'/></iq>"),
                format!("<iq type='get' id='2' to='{jid}/none'><query xmlns='x:y'/></iq>"),
                format!("<message type='chat' id='3' to='{jid}/none'><body>.</body></message>"),
                format!("<message type='groupchat' id='4' to='{jid}'><body>.</body></message>"),
                format!("<message type='headline' id='5' to='{jid}'><body>.</body></message>"),
                format!("<presence id='6' to='{jid}' type='probe'/>"),
                format!("<presence id='7' to='{jid}'/><presence type='unavailable' to='{jid}'/>"),
            ];
            questions.map(|question| world.ask(&balcony, &question).replace(jid.as_str(), "X"))
        };
        assert_eq!(answers(&one), answers(&other));
    }
}

#[test]
fn node_12_clients_of_any_node_talk_with_clients_of_any_node() {
    let world = Nodes::new(3);
    let (juliet, romeo) = friends(&world);
    for (one, other) in [(0, 1), (1, 0), (2, 2), (2, 0), (0, 0)] {
        let balcony = world.client_at(&world.node(one), &juliet, "balcony");
        let orchard = world.client_at(&world.node(other), &romeo, "orchard");
        world.say(&balcony, "<presence/>");
        world.say(&orchard, "<presence/>");
        let _seen = (balcony.received(), orchard.received());
        world.say(&balcony, &format!("<message to='{romeo}/orchard'><body>1</body></message>"));
        world.say(&orchard, &format!("<message to='{juliet}/balcony'><body>2</body></message>"));
        assert!(orchard.received().contains("<body>1<"), "{one} {other}");
        assert!(balcony.received().contains("<body>2<"), "{one} {other}");
        world.say(&balcony, "</stream:stream>");
        assert_eq!(orchard.received().matches("unavailable").count(), 1, "{one} {other}");
        world.say(&orchard, "</stream:stream>");
    }
}

#[test]
fn node_15_messages_for_an_account_elsewhere_wait_for_it() {
    let world = Nodes::new(3);
    let (juliet, romeo) = couple(&world);
    let balcony = world.online(&juliet, "balcony");
    world.say(&balcony, &format!("<message to='{romeo}' type='chat'><body>later</body></message>"));
    assert_eq!(balcony.received(), "");
    let orchard = world.client(&romeo, "orchard");
    world.say(&orchard, "<presence/>");
    let heard = orchard.received();
    assert!(heard.contains("later") && heard.contains("<delay"), "{heard}");
}

#[test]
fn node_15_each_half_of_a_subscription_changes_at_its_own_home() {
    let world = Nodes::new(3);
    let (juliet, romeo) = couple(&world);
    let (balcony, orchard) = (world.online(&juliet, "balcony"), world.online(&romeo, "orchard"));
    world.say(&balcony, &format!("<presence to='{romeo}' type='subscribe'/>"));
    assert!(orchard.received().contains("type='subscribe'"));
    world.say(&orchard, &format!("<presence to='{juliet}' type='subscribed'/>"));
    let heard = balcony.received();
    assert!(heard.contains("type='subscribed'") && heard.contains("subscription='to'"), "{heard}");
    assert!(heard.contains(&format!("from='{romeo}/orchard'")), "its presence: {heard}");
    assert_eq!(items(&world, &juliet), [(romeo.to_string(), Subscription::To)]);
    assert_eq!(items(&world, &romeo), [(juliet.to_string(), Subscription::From)]);
    world.say(&orchard, "<presence><show>away</show></presence>");
    assert!(balcony.received().contains("away"));
    world.say(&orchard, "<presence type='unavailable'/>");
    assert_eq!(balcony.received().matches("unavailable").count(), 1);
}

#[test]
fn node_16_hosts_of_any_node_act_on_accounts_of_any_node() {
    let world = Nodes::new(3);
    let (juliet, romeo) = friends(&world);
    assert_eq!(items(&world, &juliet), [(romeo.to_string(), Subscription::Both)]);
    assert_eq!(items(&world, &romeo), [(juliet.to_string(), Subscription::Both)]);
    let host = world.elsewhere(&juliet);
    let account = host.server.account(&juliet);
    assert!(!world.run(account.is_online_anywhere()).unwrap());
    let balcony = world.online(&juliet, "balcony");
    assert!(world.run(account.is_online_anywhere()).unwrap());
    let mut item = Item::new(romeo.clone());
    item.name = Some("Romeo".into());
    item.groups = vec!["Verona".into()];
    world.run(account.set_contact(&item)).unwrap();
    let pushed = balcony.received();
    assert!(pushed.contains("name='Romeo'") && pushed.contains("Verona"), "{pushed}");
    world.run(account.remove_contact(&romeo)).unwrap();
    assert_eq!(items(&world, &juliet), []);
    assert_eq!(items(&world, &romeo), [(juliet.to_string(), Subscription::None)]);
    let unknown = BareJid::new("unknown@example.com").unwrap();
    for node in world.all() {
        let account = node.server.account(&unknown);
        assert!(matches!(world.run(account.roster()), Err(AccountError::NoAccount)));
        let account = node.server.account(&juliet);
        assert!(matches!(world.run(account.create("secret")), Err(AccountError::Exists)));
        let nobody = world.run(account.remove_contact(&unknown));
        assert!(matches!(nobody, Err(AccountError::NoContact)));
    }
}

#[test]
fn node_16_friends_are_made_from_any_node_and_see_each_other_at_once() {
    for host in 0..3 {
        let world = Nodes::new(3);
        let (juliet, romeo) = couple(&world);
        let (balcony, orchard) =
            (world.online(&juliet, "balcony"), world.online(&romeo, "orchard"));
        for (one, other) in [(&juliet, &romeo), (&romeo, &juliet)] {
            world.run(world.node(host).server.account(one).befriend(other)).unwrap();
        }
        let (one, other) = (balcony.received(), orchard.received());
        assert_eq!(one.matches(&format!("<presence from='{romeo}/orchard'")).count(), 1, "{one}");
        assert_eq!(
            other.matches(&format!("<presence from='{juliet}/balcony'")).count(),
            1,
            "{other}"
        );
        assert!(one.contains("subscription='both'") && other.contains("subscription='both'"));
        let nobody = BareJid::new("nobody@example.com").unwrap();
        let refused = world.run(world.node(host).server.account(&juliet).befriend(&nobody));
        assert!(matches!(refused, Err(AccountError::NoAccount)));
        assert_eq!(items(&world, &juliet).len(), 1);
    }
}

#[test]
fn node_16_a_kick_at_any_node_ends_the_sessions_at_home() {
    let world = Nodes::new(3);
    let (juliet, romeo) = friends(&world);
    let (balcony, orchard) = (world.online(&juliet, "balcony"), world.online(&romeo, "orchard"));
    let _seen = orchard.received();
    let error = StreamError::new(StreamCondition::PolicyViolation).with_text("en", "To bed.");
    let host = world.elsewhere(&juliet);
    assert_eq!(world.run(host.server.account(&juliet).kick(&error)), 1);
    let last = balcony.received();
    assert!(last.contains("<policy-violation") && last.contains("To bed."), "{last}");
    assert_eq!(orchard.received().matches("unavailable").count(), 1);
}

#[test]
fn node_16_a_password_changed_at_any_node_ends_the_sessions_at_home() {
    let world = Nodes::new(3);
    let (juliet, _) = couple(&world);
    for changed in [false, true] {
        let balcony = world.online(&juliet, "balcony");
        let host = world.elsewhere(&juliet);
        match changed {
            true => host.server.password_changed(&juliet, None),
            false => world.run(host.server.account(&juliet).set_password("secret", None)).unwrap(),
        }
        world.settle();
        assert!(balcony.received().contains("<reset"));
        world.advance(Duration::from_secs(120));
    }
}

#[test]
fn node_16_an_account_is_removed_at_any_node() {
    let world = Nodes::new(3);
    let (juliet, romeo) = friends(&world);
    let (balcony, orchard) = (world.online(&juliet, "balcony"), world.online(&romeo, "orchard"));
    let _seen = orchard.received();
    let host = world.elsewhere(&juliet);
    assert!(world.run(host.server.account_removed(&juliet)).unwrap());
    assert!(balcony.received().contains("<not-authorized"));
    let told = orchard.received();
    assert!(told.contains("type='unsubscribed'") && told.contains("type='unsubscribe'"), "{told}");
    assert!(!world.run(host.server.account_removed(&juliet)).unwrap());
    assert_eq!(items(&world, &romeo), [(juliet.to_string(), Subscription::None)]);
}

#[test]
fn node_16_what_the_host_sends_goes_from_any_node_to_any_account() {
    let world = Nodes::new(3);
    let (juliet, romeo) = couple(&world);
    let (balcony, orchard) = (world.online(&juliet, "balcony"), world.online(&romeo, "orchard"));
    for node in world.all() {
        node.server.send(
            Stanza::message()
                .from(DOMAIN)
                .to(juliet.as_str())
                .child(&element("body", "jabber:client", "note"))
                .build(),
        );
        world.settle();
        assert_eq!(balcony.received().matches("note").count(), 1);
    }
    // HOST-1: it is the act of the account, wherever that lives.
    let host = world.node(2);
    host.server.send(
        Stanza::presence().type_("subscribe").from(juliet.as_str()).to(romeo.as_str()).build(),
    );
    world.settle();
    assert!(balcony.received().contains("ask='subscribe'"));
    assert!(orchard.received().contains("type='subscribe'"));
    host.server.send(
        Stanza::presence().type_("subscribed").from(romeo.as_str()).to(juliet.as_str()).build(),
    );
    world.settle();
    assert_eq!(items(&world, &juliet), [(romeo.to_string(), Subscription::To)]);
    assert_eq!(items(&world, &romeo), [(juliet.to_string(), Subscription::From)]);
}

#[test]
fn node_16_the_host_asks_clients_of_any_node() {
    let world = Nodes::new(3);
    let (juliet, _) = couple(&world);
    let balcony = world.online(&juliet, "balcony");
    let host = world.elsewhere(&juliet).server;
    let jid = format!("{juliet}/balcony");
    let iq = Stanza::iq("get").from(DOMAIN).to(&jid).id("q").child(&element("query", "x:y", ""));
    let answer = Arc::new(Mutex::new(None));
    let (kept, iq) = (Arc::clone(&answer), iq.build());
    let mut asking = Box::pin(async move {
        *kept.lock().unwrap() = Some(host.request(iq).await);
    });
    let cx = &mut std::task::Context::from_waker(std::task::Waker::noop());
    assert!(asking.as_mut().poll(cx).is_pending());
    world.settle();
    assert!(balcony.received().contains("x:y"));
    world.say(&balcony, &format!("<iq type='result' id='q' to='{DOMAIN}'/>"));
    assert!(asking.as_mut().poll(cx).is_ready());
    assert!(matches!(&*answer.lock().unwrap(), Some(Ok(_))));
}

#[test]
fn node_15_a_component_of_one_node_is_there_for_all() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let world = Nodes::with(3, |n, builder| {
        if n != 2 {
            return builder;
        }
        let heard = Arc::clone(&heard);
        builder.component(
            DomainPart::new("bots.example.com").unwrap().into_owned(),
            move |handle, stanza: Stanza| {
                let heard = Arc::clone(&heard);
                async move {
                    heard.lock().unwrap().push(stanza.from().map(|from| from.into_owned()));
                    let from = stanza.from().unwrap().into_owned();
                    handle.send(Stanza::message().from("echo@bots.example.com").to(&from).build());
                    Ok(())
                }
            },
        )
    });
    let (juliet, romeo) = couple(&world);
    for jid in [juliet, romeo, world.account_at(2, "nurse")] {
        let client = world.online(&jid, "x");
        world.say(&client, "<message to='echo@bots.example.com'><body>.</body></message>");
        assert!(client.received().contains("from='echo@bots.example.com'"));
    }
    assert_eq!(heard.lock().unwrap().len(), 3);
    // With its node it goes.
    let client = world.online(&world.account_at(0, "friar"), "x");
    world.node(2).stop(true);
    world.advance(Duration::from_secs(10));
    let answer = world.ask(&client, "<message to='echo@bots.example.com'><body>.</body></message>");
    assert!(answer.contains("<remote-server-not-found"), "{answer}");
}

#[test]
fn node_7_past_the_soft_mark_clients_pause_and_past_the_hard_one_messages_come_back() {
    let world = Nodes::new(3);
    let (juliet, romeo) = couple(&world);
    let clients: Vec<_> = (0..9).map(|n| world.online(&juliet, &n.to_string())).collect();
    clients.iter().for_each(|client| drop(client.received()));
    // Its home does not answer, and is a member for as long as its lease lives.
    world.node(1).stop(true);
    let body = "x".repeat(9 << 10);
    let mut refused = 0;
    for n in 0..2 {
        for client in &clients {
            let message = format!("<message id='{n}' to='{romeo}'><body>{body}</body></message>");
            world.say(client, &message);
            refused += client.received().matches("<resource-constraint").count();
        }
    }
    let figures = world.node(0).server.node().unwrap().metrics();
    assert!((64 << 10..84 << 10).contains(&figures.link_bytes), "{figures:?}");
    assert!((1..9).contains(&refused), "nobody is refused, or nobody pauses: {refused}");
    world.advance(Duration::from_millis(100));
    assert!(world.node(0).server.node().unwrap().metrics().link_age > Duration::ZERO);
    // Nothing of that is lost.
    world.node(1).stop(false);
    world.advance(Duration::from_secs(20));
    let orchard = world.client(&romeo, "orchard");
    world.say(&orchard, "<presence/>");
    let mut heard = orchard.received();
    world.advance(Duration::from_secs(5));
    heard.push_str(&orchard.received());
    assert_eq!(heard.matches("<message").count() + refused, 18);
}

fn clients(world: &Nodes) -> (BareJid, [Client; 2]) {
    let (juliet, romeo) = friends(world);
    let clients = [world.online(&juliet, "balcony"), world.online(&romeo, "orchard")];
    clients.iter().for_each(|client| drop(client.received()));
    (romeo, clients)
}

#[test]
fn node_1_a_node_that_stood_still_handles_nothing_of_what_it_finds() {
    let world = Nodes::new(3);
    let (romeo, [balcony, orchard]) = clients(&world);
    let late = world.node(0);
    late.stop(true);
    world.advance(Duration::from_secs(6));
    // It goes on, and the first that it looks at is a client's message.
    late.stop(false);
    world.say(&balcony, &format!("<message to='{romeo}'><body>late</body></message>"));
    world.say(&balcony, "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>");
    assert!(!balcony.received().contains("id='r'"));
    assert!(!balcony.is_connected());
    world.advance(Duration::from_secs(5));
    assert!(!orchard.received().contains("late"));
    assert!(late.server.node().unwrap().is_fenced() && late.is_over());
    assert_eq!(late.server.registry().counts().sessions, 0);
    let faults = late.faults.lock().unwrap();
    assert_eq!(faults.iter().filter(|kind| **kind == FaultKind::Fenced).count(), 1);
}

#[test]
fn node_2_a_fenced_node_writes_and_sends_nothing_for_its_host_either() {
    let world = Nodes::new(3);
    let (romeo, [_balcony, orchard]) = clients(&world);
    let late = world.node(0);
    late.stop(true);
    world.advance(Duration::from_secs(6));
    late.server.send(Stanza::message().from(DOMAIN).to(romeo.as_str()).build());
    late.server.handle_timeout();
    late.stop(false);
    world.settle();
    assert_eq!(orchard.received().matches("<message").count(), 0);
    assert!(late.server.node().unwrap().metrics().fenced);
}

#[test]
fn node_19_a_node_that_leaves_is_emptied_first() {
    let world = Nodes::with(2, |_, builder| builder);
    let leaver = world.node(0);
    let node = leaver.server.node().unwrap();
    let slots = node.slots();
    assert!(slots > 0 && !leaver.is_over());
    assert_eq!(node.metrics().members, 2);
}
