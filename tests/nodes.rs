//! Accounts at different nodes: what they say to each other, what their hosts do with them, and what becomes of them
//! when their node may not act any more.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use xmpp_session::cluster::{
    Answer, Engine, EngineError, EngineFuture, Incarnation, Lease, MemoryEngine, Posts, Record,
    View,
};
use xmpp_session::connection::Recorder;
use xmpp_session::extension::{Admission, Extension, RequestError};
use xmpp_session::jid::{BareJid, DomainPart};
use xmpp_session::minidom::Element;
use xmpp_session::rules::roster::{Item, Subscription};
use xmpp_session::server::{
    AccountError, Cluster, FaultKind, ServerBuilder, Shutdown, StoreFailure,
};
use xmpp_session::session::{AccountState, HostCode};
use xmpp_session::stanza::Stanza;
use xmpp_session::store::{
    Fence, FenceTokens, SharedMemory, SharedStore, StoreError, StoreFuture, Stores,
};
use xmpp_session::stream::{StreamCondition, StreamError};
use xmpp_session::xep::{Carbons, StreamManagement};

use crate::common::nodes::{Client, DOMAIN, Node, Nodes, OPEN, auth, bind};

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

/// Lets no error in to anybody.
struct NoErrors;

impl Extension<Recorder> for NoErrors {
    fn admit(&self, _: &AccountState, stanza: &Stanza) -> Admission {
        if stanza.type_().as_deref() == Some("error") { Admission::Drop } else { Admission::Accept }
    }
}

#[test]
fn node_15_an_answer_of_the_server_is_nobodys_to_refuse() {
    let world = Nodes::with(3, |_, builder| builder.extension(NoErrors));
    let (juliet, romeo) = couple(&world);
    let (balcony, orchard) = (world.online(&juliet, "balcony"), world.online(&romeo, "orchard"));
    for sent in [
        format!("<message to='{romeo}/gone' type='groupchat'><body>?</body></message>"),
        format!("<iq to='{romeo}/gone' type='get' id='i'><q xmlns='urn:example:q'/></iq>"),
    ] {
        let heard = world.ask(&balcony, &sent);
        assert!(heard.contains("<service-unavailable"), "{heard}");
    }
    // What a client says is none.
    world.say(&orchard, &format!("<message to='{juliet}/balcony' type='error' id='e'/>"));
    assert_eq!(balcony.received(), "");
}

#[test]
fn node_15_own_clients_see_what_goes_to_accounts_of_other_nodes() {
    let world = Nodes::with(3, |_, builder| builder.extension(Carbons::new()));
    let (juliet, romeo) = couple(&world);
    let (balcony, orchard) = (world.online(&juliet, "balcony"), world.online(&romeo, "orchard"));
    let phone = world.online(&juliet, "phone");
    world.say(&phone, "<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>");
    let _enabled = (phone.received(), balcony.received());
    for to in [format!("{romeo}"), format!("{romeo}/orchard"), format!("{romeo}/gone")] {
        world.say(&balcony, &format!("<message to='{to}' type='chat'><body>1</body></message>"));
        let (copy, heard) = (phone.received(), orchard.received());
        assert!(copy.contains("<sent xmlns='urn:xmpp:carbons:2'>"), "{copy}");
        assert!(
            copy.contains(&format!("to='{to}'")) && heard.contains("<body>1<"),
            "{copy}{heard}"
        );
        assert_eq!(balcony.received(), "");
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
fn node_16_the_session_that_changes_the_password_stays_wherever_it_is_connected() {
    for edge in 0..3 {
        let world = Nodes::new(3);
        let (juliet, _) = couple(&world);
        let own = world.client_at(&world.node(edge), &juliet, "own");
        let other = world.client_at(&world.node(edge), &juliet, "other");
        let third = world.client_at(&world.node((edge + 1) % 3), &juliet, "third");
        let own_id = world.id(&juliet, "own");
        for host in 0..3 {
            let account = world.node(host).server.account(&juliet);
            world.run(account.set_password("secret", Some(own_id))).unwrap();
            world.advance(Duration::from_secs(1));
            assert!(own.is_connected(), "{edge} {host}");
            let pong =
                world.ask(&own, "<iq type='get' id='p'><query xmlns='jabber:iq:roster'/></iq>");
            assert!(pong.contains("id='p'"), "{edge} {host}: {pong}");
        }
        for client in [other, third] {
            assert!(client.received().contains("<reset"), "{edge}");
        }
    }
}

/// As long as its home has a session that its edge does not know of yet.
#[test]
fn node_16_a_session_that_has_just_begun_is_its_homes_business() {
    let mut caught = 0;
    for edge in 0..2 {
        for polls in 0..9 {
            let world = Nodes::new(2);
            let juliet = world.account_at(0, "juliet");
            let client = world.log_in(&world.node(edge), &juliet);
            client.give(&bind("x"));
            (0..polls).for_each(|n| world.step_one(n));
            let home = world.home(&juliet).server;
            let begun = home.registry().sessions(&juliet).next().map(|session| session.id());
            caught += usize::from(begun.is_some());
            home.password_changed(&juliet, begun);
            world.advance(Duration::from_secs(1));
            let told = client.received();
            match begun {
                Some(_) => {
                    assert!(told.contains("<jid>") && !told.contains("<reset"), "{edge}: {told}");
                    assert!(world.ask(&client, ROSTER).contains("id='r'"), "{edge} {polls}");
                }
                None => assert!(told.contains("<reset"), "{edge} {polls}: {told}"),
            }
        }
    }
    assert!(caught > 2);
}

/// A client that logs in and binds; so many steps decide how far it has come: on the way to its home, or there.
pub(crate) fn on_its_way(world: &Nodes, edge: usize, account: &BareJid, steps: usize) -> Client {
    let client = world.connect(&world.node(edge));
    client.give(&auth(account));
    client.give(OPEN);
    client.give(&bind("x"));
    (0..steps).for_each(|n| world.step_one(n));
    client
}

#[test]
fn node_16_what_was_proved_before_the_change_binds_nowhere() {
    for edge in 0..2 {
        for host in 0..2 {
            for polls in 0..5 {
                let world = Nodes::new(2);
                let juliet = world.account_at(0, "juliet");
                let client = on_its_way(&world, edge, &juliet, polls);
                let is_bound = world.node(0).server.registry().counts().sessions == 1;
                world.node(host).server.password_changed(&juliet, None);
                world.advance(Duration::from_secs(1));
                let told = client.received();
                assert!(told.contains("<reset"), "{edge} {host} {polls} {is_bound}: {told}");
                assert_eq!(world.node(0).server.registry().counts().sessions, 0);
                // Whoever begins now may do so.
                for edge in 0..2 {
                    let _bound = world.client_at(&world.node(edge), &juliet, "y");
                }
            }
        }
    }
}

#[test]
fn node_16_a_removed_account_is_bound_nowhere() {
    for edge in 0..2 {
        for polls in 0..5 {
            let world = Nodes::new(2);
            let juliet = world.account_at(0, "juliet");
            let client = on_its_way(&world, edge, &juliet, polls);
            assert!(world.run(world.node(1).server.account_removed(&juliet)).unwrap());
            world.advance(Duration::from_secs(1));
            assert!(client.received().contains("<not-authorized"), "{edge} {polls}");
            assert_eq!(world.node(0).server.registry().counts().sessions, 0);
        }
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
    let cx = &mut Context::from_waker(Waker::noop());
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
                    let _sent = handle
                        .send(Stanza::message().from("echo@bots.example.com").to(&from).build());
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
fn metric_1_a_node_tells_what_it_is_by_the_names_of_the_dashboard() {
    let world = Nodes::new(3);
    let (_romeo, [balcony, _orchard]) = clients(&world);
    let text = |node: &Node| {
        let mut text = String::new();
        node.server.metrics().write_openmetrics(&mut text);
        text
    };
    let told = text(&world.node(0));
    for line in
        ["xmpp_node_members 3", "xmpp_node_fenced 0", "xmpp_faults_total{kind=\"arrival\"} 0"]
    {
        assert!(told.lines().any(|one| one == line), "{line} in {told}");
    }
    let slots = format!("xmpp_node_slots {}", world.node(0).server.node().unwrap().slots());
    assert!(told.lines().any(|one| one == slots), "{told}");
    let dashboard = include_str!("../docs/grafana.json");
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let names = dashboard.match_indices("xmpp_node_");
    let names = names.map(|(at, _)| dashboard[at..].split(|c| !is_name(c)).next().unwrap());
    let names: Vec<_> = names.collect();
    assert!(names.len() > 5);
    for name in names {
        let is_told = told
            .lines()
            .any(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
        assert!(is_told, "{name} in {told}");
    }
    // What nobody takes waits, and is seen to.
    let romeo = world.account_at(1, "nurse");
    world.node(1).stop(true);
    world.say(&balcony, &format!("<message to='{romeo}'><body>.</body></message>"));
    world.advance(Duration::from_millis(1200));
    let told = text(&world.node(0));
    assert!(told.contains("xmpp_node_link_age_seconds 1\n"), "{told}");
    assert!(!told.contains("xmpp_node_link_bytes 0\n"), "{told}");
    world.advance(Duration::from_secs(10));
    let told = text(&world.node(0));
    assert!(!told.contains("xmpp_node_slots_lost_total 0\n"), "{told}");
}

/// An engine, and a store, that may fail, or not answer.
#[derive(Default)]
struct Failing {
    how: Mutex<HashMap<&'static str, How>>,
}

#[derive(Clone, Copy, PartialEq)]
enum How {
    Fails,
    IsSilent,
    /// At once, or when it is waited for.
    Panics,
    PanicsLater,
}

impl Failing {
    fn set(&self, call: &'static str, how: Option<How>) {
        let mut of = self.how.lock().unwrap();
        match how {
            Some(how) => _ = of.insert(call, how),
            None => _ = of.remove(call),
        }
    }

    fn call<T: Send + 'static, E: Send + 'static>(
        &self,
        call: &'static str,
        error: impl FnOnce(&'static str) -> E,
        done: impl FnOnce() -> Pin<Box<dyn Future<Output = Result<T, E>> + Send>>,
    ) -> Pin<Box<dyn Future<Output = Result<T, E>> + Send>> {
        let how = self.how.lock().unwrap().get(call).copied();
        match how {
            None => done(),
            Some(How::Fails) => Box::pin(std::future::ready(Err(error("broken")))),
            Some(How::IsSilent) => Box::pin(std::future::pending()),
            Some(How::Panics) => panic!("a bug"),
            Some(How::PanicsLater) => Box::pin(async { panic!("a bug") }),
        }
    }
}

struct FailingEngine(Arc<Failing>, Arc<MemoryEngine>);

impl Engine for FailingEngine {
    fn renew(&self, lease: Lease, first: bool) -> EngineFuture<Answer> {
        self.0.call("renew", EngineError::new, || self.1.renew(lease, first))
    }

    fn release(&self, node: Incarnation) -> EngineFuture<()> {
        self.0.call("release", EngineError::new, || self.1.release(node))
    }

    fn replace(&self, over: Option<View>, record: Arc<Record>) -> EngineFuture<Answer> {
        self.0.call("replace", EngineError::new, || self.1.replace(over, record))
    }

    fn read(&self) -> EngineFuture<Answer> {
        self.0.call("read", EngineError::new, || self.1.read())
    }

    fn watch(&self, hint: Arc<dyn Fn() + Send + Sync>) {
        self.1.watch(hint);
    }
}

struct FailingStore(Arc<Failing>, Arc<SharedMemory>);

impl SharedStore for FailingStore {
    fn of_node(&self, tokens: Arc<dyn FenceTokens>) -> Stores {
        self.1.of_node(tokens)
    }

    fn claim(&self, fence: Fence) -> StoreFuture<()> {
        self.0.call("claim", StoreError::failed, || self.1.claim(fence))
    }

    fn next_term(&self) -> StoreFuture<u64> {
        self.0.call("term", StoreError::failed, || self.1.next_term())
    }
}

/// What one node has told, whose first and only fault this is until it is mended.
fn told_of(
    call: &'static str,
    how: How,
    mended_after: u64,
) -> (Nodes, Node, Vec<FaultKind>, Arc<Failing>) {
    let failing = Arc::new(Failing::default());
    let world = Nodes::new(0);
    failing.set(call, Some(how));
    let (engine, store) = (Arc::clone(&world.engine), Arc::clone(&world.store));
    let engine = Arc::new(FailingEngine(Arc::clone(&failing), engine));
    let store = Arc::new(FailingStore(Arc::clone(&failing), store));
    let cluster = Cluster::new("n0", engine, Arc::clone(&world.engine) as _, store);
    let node = world.start_in(cluster, |builder| builder);
    world.advance(Duration::from_secs(mended_after));
    let faults = node.faults.lock().unwrap().clone();
    failing.set(call, None);
    (world, node, faults, failing)
}

#[test]
fn node_3_a_store_that_does_not_hear_of_a_slot_is_told_of_and_asked_again() {
    for (call, name) in [("claim", "claim-slot"), ("term", "count-term")] {
        for how in [How::Fails, How::IsSilent] {
            let (world, node, faults, _mended) = told_of(call, how, 12);
            assert!(!faults.is_empty(), "{call}");
            for fault in faults {
                let FaultKind::Store { call, failure, error, .. } = fault else {
                    panic!("{fault:?}")
                };
                assert_eq!(call.as_str(), name);
                match how {
                    How::Fails => assert!(error.contains("broken"), "{error}"),
                    _ => assert_eq!(failure, StoreFailure::Late),
                }
            }
            world.until("it is mended", || node.server.node().unwrap().slots() == 1024);
        }
    }
}

/// What an extension keeps in a store is fenced like all that the server keeps itself.
#[test]
fn node_3_the_stores_of_a_node_are_for_extensions_too() {
    let world = Nodes::new(0);
    let cluster = |name| {
        let (engine, store) = (Arc::clone(&world.engine), Arc::clone(&world.store));
        Cluster::new(name, Arc::clone(&engine) as _, engine, store)
    };
    let clusters = ["n0", "n1"].map(cluster);
    let blocks = clusters.each_ref().map(|cluster| cluster.stores().blocks);
    let jid = BareJid::new(&format!("juliet@{DOMAIN}")).unwrap();
    let does = |n: usize| {
        let kept = blocks[n].apply(&jid, vec!["eve@example.com".into()], Vec::new());
        world.run(kept).is_ok() && world.run(blocks[n].load(&jid)).is_ok()
    };
    assert!(!does(0) && !does(1), "nobody's, before there is a server");
    for cluster in clusters {
        world.start_in(cluster, |builder| builder);
    }
    let is_home = || [0, 1].map(|n| world.node(n).is_home_of(&jid));
    world.until("it has a home", || is_home().contains(&true));
    assert_eq!([does(0), does(1)], is_home());
}

#[test]
fn node_1_calls_of_the_engine_that_have_no_answer_are_told() {
    for how in [How::Fails, How::IsSilent] {
        for call in ["renew", "replace", "read"] {
            let (world, node, faults, _mended) = told_of(call, how, 12);
            let engine = |fault: &FaultKind| fault.as_str() == "engine";
            assert!(faults.iter().any(engine), "{call}: {faults:?}");
            let figures = node.server.node().unwrap().metrics();
            assert!(figures.engine_failures > 0, "{call}");
            // Whoever cannot reach the engine at all is nobody after a while.
            match call {
                "renew" => assert!(node.server.node().unwrap().is_fenced() && node.is_over()),
                _ => world.until("it is mended", || node.is_member()),
            }
        }
    }
}

/// Whenever it goes: as long as a lease lasts there is time to ask again.
#[test]
fn node_1_an_engine_that_is_away_for_half_a_ttl_stops_nobody() {
    for phase in 0..16 {
        // Nothing fails so far.
        let (world, node, _, failing) = told_of("release", How::Fails, 12);
        assert!(node.is_member());
        world.advance(Duration::from_millis(50 * phase));
        failing.set("renew", Some(How::Fails));
        world.advance(Duration::from_millis(1600));
        failing.set("renew", None);
        world.advance(Duration::from_secs(6));
        assert!(!node.server.node().unwrap().is_fenced(), "{phase}");
    }
}

/// Something of the host's that waits.
struct Asked(Pin<Box<dyn Future<Output = Result<Stanza, RequestError>>>>);

impl Asked {
    fn by(node: &Node, to: &str) -> Self {
        let iq =
            Stanza::iq("get").from(DOMAIN).to(to).id("q").child(&element("query", "urn:q", ""));
        let server = node.server.clone();
        let mut asked = Self(Box::pin(async move { server.request(iq.build()).await }));
        assert!(asked.answer().is_none());
        asked
    }

    fn answer(&mut self) -> Option<Result<Stanza, RequestError>> {
        match self.0.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => Some(answer),
            Poll::Pending => None,
        }
    }
}

/// Whoever asks, and whenever the account moves.
#[test]
fn stz_13_a_request_is_answered_once_wherever_its_account_has_gone() {
    for (asker, leaves) in [(0, false), (1, false), (2, false), (0, true), (2, true)] {
        let world = Nodes::moving(2, |_, builder| builder.extension(StreamManagement::new()));
        let juliet = world.account_at(1, "juliet");
        let balcony = world.client_at(&world.node(0), &juliet, "balcony");
        let third = world.start("n2", |builder| builder.extension(StreamManagement::new()));
        let is_early = asker != 2;
        let mut asked =
            is_early.then(|| Asked::by(&world.node(asker), &format!("{juliet}/balcony")));
        if is_early {
            world.settle();
            assert!(balcony.received().contains("urn:q"));
        }
        world.until("it is a member", || third.is_member());
        if !is_early {
            asked = Some(Asked::by(&world.node(2), &format!("{juliet}/balcony")));
            world.settle();
            assert!(balcony.received().contains("urn:q"));
        }
        let before = world.home(&juliet).server.node().unwrap().slots();
        if leaves {
            leave(&world, &[(1, Shutdown::new)], |_| {});
            world.until("it has left", || world.node(1).is_over());
        } else {
            world.advance(Duration::from_secs(15));
        }
        assert!(before > 0 && world.all().iter().any(|node| node.is_home_of(&juliet)));
        let mut asked = asked.unwrap();
        assert!(asked.answer().is_none());
        world.say(&balcony, &format!("<iq type='result' id='q' to='{DOMAIN}'/>"));
        let answer = asked.answer().expect("an answer").unwrap();
        assert_eq!(answer.type_().as_deref(), Some("result"), "{asker} {leaves}");
    }
}

/// One that has nobody to answer it any more is not waited for without end, and what comes late is nobody's.
#[test]
fn stz_13_a_request_whose_account_is_lost_fails_once() {
    for is_handled in [false, true] {
        let world = Nodes::new(2);
        let juliet = world.account_at(1, "juliet");
        let balcony = world.client(&juliet, "balcony");
        let mut asked = Asked::by(&world.node(0), &format!("{juliet}/balcony"));
        world.settle();
        assert!(balcony.received().contains("urn:q"));
        if is_handled {
            world.advance(Duration::from_secs(2));
        }
        world.node(1).stop(true);
        world.advance(Duration::from_secs(61));
        let answer = asked.answer().expect("an answer");
        match answer {
            Err(RequestError::TimedOut) if is_handled => {}
            // It is said again, to where nobody is (NODE-10).
            Ok(answer) if !is_handled => assert_eq!(answer.type_().as_deref(), Some("error")),
            other => panic!("{other:?}"),
        }
        // Behind the loss of its home it is as if nobody were there.
        let to = format!("{juliet}/balcony");
        let query = element("query", "urn:q", "");
        let iq = Stanza::iq("get").from(DOMAIN).to(&to).id("q").child(&query);
        let answer = world.run(world.node(0).server.request(iq.build())).unwrap();
        assert_eq!(answer.type_().as_deref(), Some("error"));
    }
}

/// The faults are of host code that panicked.
fn panicked(faults: &[FaultKind], code: HostCode) {
    assert!(!faults.is_empty());
    let is_panic = |fault: &FaultKind| match fault {
        FaultKind::Panic { code: of, message, .. } => {
            *of == code && message.as_deref() == Some("a bug")
        }
        FaultKind::Fenced => true,
        _ => false,
    };
    assert!(faults.iter().all(is_panic), "{faults:?}");
}

#[test]
fn fault_3_a_panic_of_what_nodes_stand_on_is_a_call_that_has_failed() {
    for how in [How::Panics, How::PanicsLater] {
        for call in ["renew", "replace", "read", "claim", "term"] {
            let (world, node, faults, _mended) = told_of(call, how, 12);
            let of_store = matches!(call, "claim" | "term");
            panicked(&faults, if of_store { HostCode::Store } else { HostCode::Engine });
            match call {
                "renew" => assert!(node.server.node().unwrap().is_fenced() && node.is_over()),
                _ => world.until("it is mended", || node.server.node().unwrap().slots() == 1024),
            }
        }
        let (world, node, _none, failing) = told_of("release", how, 12);
        failing.set("release", Some(how));
        leave(&world, &[(0, Shutdown::new)], |_| {});
        world.until("it ends", || node.is_over());
        panicked(&node.faults.lock().unwrap(), HostCode::Engine);
    }
}

/// Posts that panic while they are told to.
struct PanickingPosts(Arc<MemoryEngine>, Arc<AtomicBool>);

impl Posts for PanickingPosts {
    fn post(&self, to: Incarnation, post: Arc<[u8]>) {
        assert!(!self.1.load(Ordering::Relaxed), "a bug");
        self.0.post(to, post);
    }

    fn listen(&self, me: Incarnation, inbox: Arc<dyn Fn(Arc<[u8]>) + Send + Sync>) {
        self.0.listen(me, inbox);
    }
}

#[test]
fn fault_3_a_panic_of_posts_loses_nothing() {
    let world = Nodes::new(0);
    let is_broken = Arc::new(AtomicBool::new(false));
    for name in ["n0", "n1"] {
        let posts = PanickingPosts(Arc::clone(&world.engine), Arc::clone(&is_broken));
        let (engine, store) = (Arc::clone(&world.engine) as _, Arc::clone(&world.store) as _);
        let cluster = Cluster::new(name, engine, Arc::new(posts), store);
        world.start_in(cluster, |builder| builder);
    }
    world.until("all are members", || world.all().iter().all(Node::is_member));
    let (juliet, romeo) = (world.account_at(0, "juliet"), world.account_at(1, "romeo"));
    let (balcony, garden) = (world.client(&juliet, "balcony"), world.online(&romeo, "garden"));
    is_broken.store(true, Ordering::Relaxed);
    world.say(&balcony, &format!("<message to='{romeo}/garden'><body>one</body></message>"));
    world.advance(Duration::from_secs(2));
    panicked(&world.node(0).faults.lock().unwrap(), HostCode::Posts);
    assert_eq!(garden.received(), "");
    is_broken.store(false, Ordering::Relaxed);
    world.advance(Duration::from_secs(2));
    assert_eq!(garden.received().matches("one").count(), 1);
    assert!(world.all().iter().all(Node::is_member));
}

/// Why a node was not to be one.
fn misfit(node: &Node) -> String {
    let faults = node.faults.lock().unwrap().clone();
    let [FaultKind::Engine { error, .. }, FaultKind::Fenced] = &*faults else {
        panic!("{faults:?}")
    };
    error.clone()
}

impl Nodes {
    fn start_with(&self, name: &str, ttl: u64, margin: u64) -> Node {
        let (engine, posts) = (Arc::clone(&self.engine) as _, Arc::clone(&self.engine) as _);
        let cluster = Cluster::new(name, engine, posts, Arc::clone(&self.store) as _);
        let (ttl, margin) = (Duration::from_millis(ttl), Duration::from_millis(margin));
        self.start_in(cluster.leases(ttl, margin), |builder| builder)
    }
}

#[test]
fn node_1_a_node_whose_leases_live_for_another_time_is_refused() {
    let world = Nodes::new(2);
    let slots = |world: &Nodes| [0, 1].map(|n| world.node(n).server.node().unwrap().slots());
    let before = slots(&world);
    for ttl in [1000, 2999, 3001, 60_000] {
        let other = world.start_with("other", ttl, 100);
        world.advance(Duration::from_secs(1));
        let why = misfit(&other);
        assert!(why.contains("n0") && why.contains("live for 3s"), "{why}");
        assert!(other.is_over() && !other.is_member(), "it has ended by itself");
        world.advance(Duration::from_secs(20));
        assert_eq!(slots(&world), before, "nobody notices");
    }
    let same = world.start_with("same", 3000, 700);
    world.until("one that fits joins", || same.is_member());
}

#[test]
fn node_1_of_two_that_begin_a_cluster_the_first_one_stays() {
    let world = Nodes::new(0);
    let (first, second) = (world.start_with("b", 3000, 500), world.start_with("a", 9000, 500));
    world.until("the first is a member", || first.is_member());
    assert!(misfit(&second).contains("node b live for 3s"));
    assert_eq!(first.server.node().unwrap().slots(), 1024);
    assert!(first.faults.lock().unwrap().is_empty());
}

#[test]
fn node_1_a_node_that_stops_too_early_to_renew_is_refused() {
    let world = Nodes::new(0);
    let node = world.start_with("a", 3000, 1501);
    world.settle();
    assert!(node.is_over() && misfit(&node).contains("margin"));
    let node = world.start_with("b", 3000, 1500);
    world.until("it is a member", || node.is_member());
    world.advance(Duration::from_secs(60));
    assert!(node.is_member());
}

#[test]
fn node_19_a_node_goes_also_where_the_engine_does_not_say_that_its_lease_is_over() {
    for how in [How::Fails, How::IsSilent] {
        let (world, node, _none, failing) = told_of("release", how, 12);
        assert!(node.is_member());
        failing.set("release", Some(how));
        leave(&world, &[(0, Shutdown::new)], |_| {});
        world.until("it ends", || node.is_over());
    }
}

const ROSTER: &str = "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>";
const ENABLE: &str = "<enable xmlns='urn:xmpp:sm:3' resume='true'/>";

/// A client, available, whose session can be resumed.
struct Resumable {
    client: Client,
    account: BareJid,
    token: String,
    /// All that it has got, and how much of it before anything was to happen.
    got: String,
    before: usize,
}

impl Resumable {
    fn new(world: &Nodes, at: usize, account: &BareJid) -> Self {
        let client = world.client_at(&world.node(at), account, "x");
        let enabled = world.ask(&client, ENABLE);
        let token = enabled.split_once(" id='").unwrap().1.split_once('\'').unwrap().0.to_owned();
        world.say(&client, "<presence/>");
        Self { client, account: account.clone(), token, got: String::new(), before: 0 }
    }

    fn jid(&self) -> String {
        format!("{}/x", self.account)
    }

    fn hear(&mut self) {
        self.got.push_str(&self.client.received());
    }

    /// Comes back through another node; what it gets then is what it has not got yet.
    fn resume(&mut self, world: &Nodes, at: usize) {
        self.hear();
        let count = |name| self.got.matches(name).count();
        let h = count("<message ") + count("<presence ") + count("<iq ");
        let resume = format!("<resume xmlns='urn:xmpp:sm:3' previd='{}' h='{h}'/>", self.token);
        self.client = world.log_in(&world.node(at), &self.account);
        let resumed = world.ask(&self.client, &resume);
        assert!(resumed.contains("<resumed"), "{resumed}");
        self.got.push_str(&resumed);
    }

    fn numbers(&self) -> Vec<usize> {
        let bodies = self.got.split("<body>").skip(1);
        bodies.map(|body| body.split_once('<').unwrap().0.parse().unwrap()).collect()
    }
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

pub(crate) type Leaver = (usize, fn() -> Shutdown);

/// Drives what leaves to its end, and calls `meanwhile` again and again.
pub(crate) fn leave(world: &Nodes, leaves: &[Leaver], mut meanwhile: impl FnMut(usize)) {
    let leave = |(n, how): &Leaver| -> Pin<Box<dyn Future<Output = ()>>> {
        let (node, how) = (world.node(*n).server.node().unwrap(), how());
        Box::pin(async move { node.leave(how).await })
    };
    let mut leaving: Vec<_> = leaves.iter().map(leave).collect();
    let woken = Arc::new(Woken(true.into()));
    let waker = Waker::from(Arc::clone(&woken));
    for n in 0..400 {
        if woken.0.swap(false, Ordering::Relaxed) {
            let cx = &mut Context::from_waker(&waker);
            leaving.retain_mut(|leaving| leaving.as_mut().poll(cx).is_pending());
        }
        meanwhile(n);
        world.advance(Duration::from_millis(100));
        if leaving.is_empty() {
            return;
        }
    }
    panic!("they do not leave");
}

fn to_two() -> Shutdown {
    Shutdown::new().see_other_host("two.example.com", None).pace(1, Duration::from_secs(1))
}

#[test]
fn node_19_a_node_leaves_and_nothing_is_lost() {
    let managed = |_, builder: ServerBuilder<Recorder>| builder.extension(StreamManagement::new());
    let world = Nodes::moving(3, managed);
    let leaver = world.node(0);
    let (juliet, nurse) = (world.account_at(0, "juliet"), world.account_at(0, "nurse"));
    let (tybalt, romeo) = (world.account_at(0, "tybalt"), world.account_at(1, "romeo"));
    for friend in [&juliet, &nurse, &tybalt] {
        world.run(world.node(2).server.account(&romeo).befriend(friend)).unwrap();
    }
    // At home at the leaver, and connected elsewhere; there as well; neither, and without a transport.
    let mut balcony = Resumable::new(&world, 2, &juliet);
    let mut hall = Resumable::new(&world, 0, &nurse);
    let mut crypt = Resumable::new(&world, 1, &tybalt);
    crypt.client.cut();
    world.settle();
    // At home elsewhere, and connected to the leaver.
    let mut orchard = Resumable::new(&world, 0, &romeo);
    let speaker = world.account_at(1, "speaker");
    let speaker = world.client_at(&world.node(1), &speaker, "y");
    for client in [&mut balcony, &mut hall, &mut crypt, &mut orchard] {
        client.hear();
        client.before = client.got.len();
    }
    let everybody = [&balcony, &hall, &crypt, &orchard].map(Resumable::jid);
    let mut said = 0;
    leave(&world, &[(0, to_two)], |n| {
        for to in &everybody {
            world.say(&speaker, &format!("<message to='{to}'><body>{n}</body></message>"));
        }
        said = n;
        if n % 3 == 0 {
            world.say(&balcony.client, "<r xmlns='urn:xmpp:sm:3'/>");
        }
    });
    assert!(leaver.is_over() && leaver.server.node().unwrap().is_fenced());
    assert_eq!(*leaver.faults.lock().unwrap(), []);
    // The others know it by their next renewal.
    world.advance(Duration::from_secs(1));
    assert_eq!(world.home(&juliet).server.node().unwrap().metrics().members, 2);
    assert_eq!(speaker.received().matches("<error").count(), 0);
    for client in [&mut hall, &mut orchard] {
        client.hear();
        assert!(client.got.contains("two.example.com</see-other-host>"), "{}", client.got);
        assert!(!client.client.is_connected());
    }
    hall.resume(&world, 1);
    orchard.resume(&world, 2);
    crypt.resume(&world, 1);
    balcony.hear();
    assert!(balcony.client.is_connected());
    for client in [&balcony, &hall, &crypt, &orchard] {
        assert_eq!(client.numbers(), (0..=said).collect::<Vec<_>>(), "{}", client.jid());
        assert!(!client.got[client.before..].contains("unavailable"), "{}", client.got);
    }
}

#[test]
fn node_19_the_last_node_ends_its_clients_and_then_itself() {
    let world = Nodes::moving(2, |_, builder| builder);
    let (juliet, romeo) = couple(&world);
    let (balcony, orchard) = (world.online(&juliet, "balcony"), world.online(&romeo, "orchard"));
    leave(&world, &[(0, to_two)], |_| {});
    assert!(balcony.received().contains("two.example.com") && orchard.received().is_empty());
    let balcony = world.client_at(&world.node(1), &juliet, "balcony");
    leave(&world, &[(1, Shutdown::new)], |_| {});
    for client in [balcony, orchard] {
        assert!(client.received().contains("<system-shutdown"));
        assert!(!client.is_connected());
    }
    assert!(world.all().iter().all(Node::is_over));
    // Whoever comes then does not wait for their leases to run out.
    let next = world.start("n2", |builder| builder);
    world.until("it begins", || next.is_member() && next.is_home_of(&juliet));
}

#[test]
fn node_19_all_leave_at_once() {
    for nodes in 1..4 {
        let world = Nodes::moving(nodes, |_, builder| builder);
        let accounts: Vec<_> = (0..nodes).map(|n| world.account_at(n, "a")).collect();
        let at = |n: usize| world.node((n + 1) % nodes);
        let clients = accounts.iter().enumerate();
        let clients: Vec<_> = clients.map(|(n, jid)| world.client_at(&at(n), jid, "x")).collect();
        let all: Vec<_> = (0..nodes).map(|n| (n, Shutdown::new as _)).collect();
        leave(&world, &all, |_| {});
        assert!(world.all().iter().all(Node::is_over));
        for client in clients {
            assert_eq!(client.received().matches("<system-shutdown").count(), 1);
        }
    }
}

#[test]
fn node_19_a_node_that_is_not_yet_a_member_leaves() {
    let world = Nodes::moving(1, |_, builder| builder);
    let node = world.start("n1", |builder| builder);
    leave(&world, &[(1, Shutdown::new)], |_| {});
    assert!(node.is_over() && node.server.next_timeout().is_none());
    world.advance(Duration::from_secs(20));
    assert_eq!(world.node(0).server.node().unwrap().metrics().members, 1);
    assert_eq!(world.node(0).server.node().unwrap().slots(), 1024);
}

/// Whoever was told of a session while both were at one node is told of its end, wherever they are by then.
#[test]
fn node_17_who_was_told_at_one_node_is_told_of_the_end_from_another() {
    let world = Nodes::moving(3, |_, builder| builder);
    // Both with those that stay, and with those that go along, by broadcast and by directed presence.
    let (juliet, nurse) = (world.account_at(0, "juliet"), world.account_at(0, "nurse"));
    let (romeo, tybalt) = (world.account_at(0, "romeo"), world.account_at(0, "tybalt"));
    for friend in [&nurse, &romeo] {
        world.run(world.node(2).server.account(&juliet).befriend(friend)).unwrap();
    }
    let at = world.node(1);
    let clients = [&juliet, &nurse, &romeo, &tybalt].map(|jid| world.client_at(&at, jid, "x"));
    clients.iter().for_each(|client| world.say(client, "<presence/>"));
    world.say(&clients[3], &format!("<presence to='{juliet}/x'/>"));
    clients.iter().for_each(|client| drop(client.received()));
    leave(&world, &[(0, Shutdown::new)], |_| {});
    let homes = [&juliet, &nurse, &romeo, &tybalt].map(|jid| world.home(jid).is_home_of(&juliet));
    assert!(homes.contains(&false), "nobody is apart");
    let gone = |jid: &BareJid, to: &str| {
        format!("<presence from='{jid}/x' to='{to}' type='unavailable'/>")
    };
    for ends in [1, 3] {
        world.say(&clients[ends], "</stream:stream>");
    }
    let told = clients[0].received();
    assert_eq!(told.matches("unavailable").count(), 2, "{told}");
    assert!(told.contains(&gone(&nurse, &juliet.to_string())), "{told}");
    assert!(told.contains(&gone(&tybalt, &format!("{juliet}/x"))), "{told}");
    world.say(&clients[0], "<presence type='unavailable'/>");
    assert_eq!(clients[2].received(), gone(&juliet, &romeo.to_string()));
}

/// Who is not available any more is told of nobody, since nobody would tell of the end; unless the client asks.
#[test]
fn node_17_answers_come_for_who_is_available_still() {
    let world = Nodes::new(3);
    let (juliet, romeo) = friends(&world);
    let (balcony, orchard) = (world.client(&juliet, "balcony"), world.client(&romeo, "orchard"));
    world.say(&balcony, "<presence/>");
    let seen = format!("<presence from='{juliet}/balcony'");
    let told = world.ask(&orchard, "<presence/><presence type='unavailable'/>");
    assert!(!told.contains(&seen), "{told}");
    let told = world.ask(&orchard, &format!("<presence type='probe' to='{juliet}'/>"));
    assert!(told.contains(&seen), "{told}");
    assert!(world.ask(&orchard, "<presence/>").contains(&seen));
}

const ASK: &str = "<r xmlns='urn:xmpp:sm:3'/>";

/// A session that counts, and a contact of it whose home has stopped.
struct Counting {
    balcony: Client,
    juliet: BareJid,
    romeo: BareJid,
    nurse: BareJid,
    /// What it resumes by.
    id: String,
}

fn counting(world: &Nodes) -> Counting {
    let (juliet, romeo) = couple(world);
    let nurse = world.account_at(0, "nurse");
    let balcony = world.online(&juliet, "balcony");
    let enabled = world.ask(&balcony, "<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    let (_, id) = enabled.split_once(" id='").expect("an id");
    let id = id.split('\'').next().unwrap_or_default().to_owned();
    world.node(1).stop(true);
    Counting { balcony, juliet, romeo, nurse, id }
}

fn with_acks() -> Nodes {
    Nodes::with(3, |_, builder| builder.extension(StreamManagement::new()))
}

fn chat(to: &BareJid) -> String {
    format!("<message to='{to}' type='chat'><body>.</body></message>")
}

fn counts(text: &str) -> Vec<&str> {
    text.split("<a xmlns='urn:xmpp:sm:3' h='").skip(1).map(|one| &one[..1]).collect()
}

#[test]
fn sm_5_what_another_node_has_not_handled_is_not_acknowledged() {
    let world = with_acks();
    let Counting { balcony, romeo, nurse, .. } = counting(&world);
    // What is here does not wait, nor is it acknowledged before what came earlier.
    let said = world.ask(&balcony, &format!("{}{}{ASK}", chat(&romeo), chat(&nurse)));
    assert_eq!(counts(&said), [""; 0], "{said}");
    let said = world.ask(
        &balcony,
        &format!("<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>{ASK}"),
    );
    assert!(said.contains("id='r'") && counts(&said).is_empty(), "{said}");
    world.node(1).stop(false);
    world.advance(Duration::from_secs(1));
    assert_eq!(counts(&balcony.received()), ["2", "3"]);
    // From now on at once.
    assert_eq!(counts(&world.ask(&balcony, &format!("{}{ASK}", chat(&nurse)))), ["4"]);
    world.say(&balcony, &format!("{}{ASK}", chat(&romeo)));
    world.advance(Duration::from_millis(100));
    assert_eq!(counts(&balcony.received()), ["5"]);
}

#[test]
fn sm_5_what_a_dead_home_has_not_handled_is_acknowledged_by_the_next_one() {
    let world = with_acks();
    let Counting { balcony, romeo, .. } = counting(&world);
    let said = world.ask(&balcony, &format!("{}{ASK}", chat(&romeo)));
    assert_eq!(counts(&said), [""; 0], "{said}");
    world.advance(Duration::from_secs(10));
    assert_eq!(counts(&balcony.received()), ["1"]);
    let home = [0, 2].map(|n| world.node(n)).into_iter().find(|node| node.is_home_of(&romeo));
    let orchard = world.client_at(&home.expect("a home"), &romeo, "orchard");
    let kept = world.ask(&orchard, "<presence/>");
    assert_eq!(kept.matches("<message").count(), 1, "{kept}");
}

#[test]
fn sm_5_whoever_comes_back_is_told_all_that_was_received_and_nothing_twice() {
    let world = with_acks();
    let Counting { balcony, juliet, romeo, id, .. } = counting(&world);
    world.say(&balcony, &format!("{}{ASK}", chat(&romeo)));
    balcony.cut();
    world.settle();
    let again = world.log_in(&world.home(&juliet), &juliet);
    let _features = again.received();
    let said = world.ask(&again, &format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='0'/>"));
    assert!(said.contains("<resumed") && said.contains("h='1'"), "{said}");
    world.node(1).stop(false);
    world.advance(Duration::from_secs(1));
    assert_eq!(counts(&again.received()), [""; 0]);
}
