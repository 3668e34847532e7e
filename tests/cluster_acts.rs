//! What the host of any node does with the accounts and sessions of all.

use std::collections::BTreeSet;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use xmpp_session::environment::Environment as _;
use xmpp_session::jid::{BareJid, FullJid, ResourcePart};
use xmpp_session::minidom::Element;
use xmpp_session::server::Shutdown;
use xmpp_session::stanza::Stanza;
use xmpp_session::stream::{StreamCondition, StreamError};

use crate::common::nodes::{Client, Nodes};
use crate::nodes::{leave, on_its_way};

/// At each of three nodes an account with two sessions, one with a negative priority, and one that is away.
fn scene(world: &Nodes) -> ([Vec<BareJid>; 2], Vec<Client>) {
    let (mut there, mut others, mut clients) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..3 {
        let account = world.account_at(n, "there");
        for resource in ["one", "two"] {
            let client = world.client_at(&world.node((n + 1) % 3), &account, resource);
            world.say(&client, "<presence/>");
            clients.push(client);
        }
        let negative = world.account_at(n, "negative");
        let client = world.client(&negative, "x");
        world.say(&client, "<presence><priority>-1</priority></presence>");
        clients.push(client);
        let away = world.account_at(n, "away");
        let _unavailable = world.client(&away, "x");
        others.push(away);
        there.extend([account, negative]);
    }
    clients.iter().for_each(|client| drop(client.received()));
    ([there, others], clients)
}

#[test]
fn host_6_who_is_online_at_any_node_is_known_at_each() {
    let world = Nodes::new(3);
    let ([there, away], _clients) = scene(&world);
    for node in world.all() {
        let online = world.run(node.server.online_anywhere()).unwrap();
        assert_eq!(online.len(), 6);
        assert_eq!(online.iter().collect::<BTreeSet<_>>(), there.iter().collect());
        let asked =
            [&there[..], &[away[1].clone(), BareJid::new("a@example.org").unwrap()]].concat();
        let online = world.run(node.server.online_of_anywhere(asked)).unwrap();
        assert_eq!(online.iter().collect::<BTreeSet<_>>(), there.iter().collect());
        assert_eq!(node.server.online().count(), 2, "here");
    }
    // One that is gone: the next home answers.
    world.node(2).stop(true);
    let said = world.run(world.node(0).server.online_of_anywhere([there[4].clone()]));
    assert!(said.unwrap().is_empty());
}

#[test]
fn host_7_everybody_online_at_any_node_is_told_once_at_a_pace() {
    let body = Element::builder("body", "jabber:client").append("Back at ten.").build();
    let note = Stanza::message().child(&body).build();
    for at in 0..3 {
        let world = Nodes::new(3);
        let ([_, away], clients) = scene(&world);
        let before = world.environment.now();
        let told = world.run(world.node(at).server.announce(&note, 1, Duration::from_secs(10)));
        assert_eq!(told, 3, "{at}");
        let took = world.environment.now() - before;
        assert!(took >= Duration::from_secs(20), "{at}: {took:?}");
        for (n, client) in clients.iter().enumerate() {
            let told = client.received().matches("Back at ten.").count();
            assert_eq!(told, usize::from(n % 3 != 2), "{at} {n}");
        }
        // Nothing is kept for those who were away.
        for away in away {
            let client = world.client(&away, "y");
            assert!(!world.ask(&client, "<presence/>").contains("Back"), "{at}");
        }
    }
}

#[test]
fn host_7_whoever_moves_meanwhile_is_told_once() {
    let body = Element::builder("body", "jabber:client").append("Back at ten.").build();
    let note = Stanza::message().child(&body).build();
    let world = Nodes::moving(3, |_, builder| builder);
    let clients: Vec<_> = (0..12)
        .map(|n| {
            let account = world.account_at(n % 2, &format!("n{n}x"));
            let client = world.client_at(&world.node(2), &account, "x");
            world.say(&client, "<presence/>");
            client
        })
        .collect();
    let server = world.node(2).server;
    let mut announcing =
        Box::pin(async move { server.announce(&note, 1, Duration::from_millis(500)).await });
    let mut told = None;
    leave(&world, &[(0, Shutdown::new)], |_| {
        let cx = &mut Context::from_waker(Waker::noop());
        if told.is_none()
            && let Poll::Ready(many) = announcing.as_mut().poll(cx)
        {
            told = Some(many);
        }
    });
    let told = told.unwrap_or_else(|| world.run(announcing));
    assert_eq!(told, 12);
    for (n, client) in clients.iter().enumerate() {
        assert_eq!(client.received().matches("Back at ten.").count(), 1, "{n}");
    }
}

#[test]
fn node_16_one_session_is_kicked_from_any_node_by_its_resource() {
    for host in 0..3 {
        let world = Nodes::new(3);
        let juliet = world.account_at(0, "juliet");
        let clients = [1, 2].map(|edge| world.client_at(&world.node(edge), &juliet, "x1"));
        assert!(!clients[0].is_connected() || clients[0].received().contains("<conflict"));
        let other = world.client_at(&world.node(1), &juliet, "x2");
        let account = world.node(host).server.account(&juliet);
        let error = StreamError::new(StreamCondition::PolicyViolation).with_text("en", "To bed.");
        let resource = |name| ResourcePart::new(name).unwrap();
        assert!(!world.run(account.kick_resource(&resource("x3"), &error)), "{host}");
        assert!(world.run(account.kick_resource(&resource("x1"), &error)), "{host}");
        assert!(!world.run(account.kick_resource(&resource("x1"), &error)), "{host}");
        let told = clients[1].received();
        assert!(told.contains("<policy-violation") && told.contains("To bed."), "{host}: {told}");
        assert!(other.received().is_empty() || other.is_connected());
        assert_eq!(world.node(0).server.registry().sessions(&juliet).count(), 1);
    }
}

#[test]
fn node_16_a_session_that_has_moved_is_kicked_by_the_handle_of_before() {
    let world = Nodes::moving(3, |_, builder| builder);
    let juliet = world.account_at(0, "juliet");
    let clients = ["a", "b"].map(|resource| world.client_at(&world.node(2), &juliet, resource));
    let handles = ["a", "b"].map(|resource| {
        let jid = FullJid::new(&format!("{juliet}/{resource}")).unwrap();
        world.node(0).server.registry().session(&jid).unwrap()
    });
    let mut kicked = false;
    leave(&world, &[(0, Shutdown::new)], |n| {
        // At its new home by now.
        if n > 0 && !world.node(0).is_home_of(&juliet) && !kicked {
            kicked = world.node(0).server.kick(&handles[0]);
            assert!(kicked);
        }
    });
    world.advance(Duration::from_secs(1));
    let told = clients.each_ref().map(Client::received);
    assert!(told[0].contains("<policy-violation"), "{}", told[0]);
    assert!(!told[1].contains("<policy-violation"), "{}", told[1]);
    assert_eq!(world.home(&juliet).server.registry().sessions(&juliet).count(), 1);
    // The old node has left: it acts for nobody.
    assert!(clients[1].is_connected());
}

#[test]
fn node_16_a_kick_ends_what_is_on_its_way_to_the_home() {
    let mut caught = [0; 2];
    for edge in 0..3 {
        for steps in 0..14 {
            let world = Nodes::new(3);
            let juliet = world.account_at(0, "juliet");
            let client = on_its_way(&world, edge, &juliet, steps);
            let has_authenticated = client.received().contains("<success");
            let error = StreamError::new(StreamCondition::Conflict);
            let ended = world.run(world.node(0).server.account(&juliet).kick(&error));
            world.advance(Duration::from_secs(1));
            let told = client.received();
            assert_eq!(
                told.contains("<conflict"),
                has_authenticated || ended > 0,
                "{edge} {steps}: {told}"
            );
            caught[usize::from(has_authenticated && ended == 0)] += 1;
            let sessions = world.node(0).server.registry().sessions(&juliet).count();
            assert_eq!(sessions, usize::from(!has_authenticated), "{edge} {steps}");
            // Whoever begins now may do so.
            for edge in 0..3 {
                let _bound = world.client_at(&world.node(edge), &juliet, "y");
            }
        }
    }
    assert!(caught.iter().all(|caught| *caught > 2), "{caught:?}");
}
