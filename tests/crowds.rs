//! Large rosters, many requests, many resources: what the limits allow works, and stays bounded
//! (rules LIMIT-8, LIMIT-15, LIMIT-16, LIMIT-17, LIMIT-19).

use crate::common::{contacts, wire};
use std::time::Duration;

use contacts::{GET, Remote, interested, remove, set};
use wire::{Client, World, now};
use xmpp_session::jid::BareJid;
use xmpp_session::rules::roster::{Item, Subscription};
use xmpp_session::server::Limits;
use xmpp_session::store::RosterChange;

const ME: &str = "romeo@example.com";

/// Puts `count` contacts on a stored roster.
fn fill(world: &World, node: &str, domain: &str, count: usize, subscription: Subscription) {
    let account = world.account(node);
    for n in 0..count {
        let mut item = Item::new(BareJid::new(&format!("c{n:04}@{domain}")).unwrap());
        item.subscription = subscription;
        item.groups = vec!["Friends".into()];
        let change = RosterChange::new().version(n as u64 + 1).put(item);
        now(world.stores().rosters.apply(&account, change)).unwrap();
    }
}

#[test]
fn limit_15_two_thousand_contacts() {
    let (world, remote) = Remote::world();
    fill(&world, "romeo", "remote.example", 2000, Subscription::Both);
    let romeo = interested(world.client("romeo", "orchard"));
    assert_eq!(romeo.ask(GET).concat().matches("<item ").count(), 2000);
    romeo.send("<presence/>");
    // A copy and a probe for each.
    assert_eq!(remote.routed().len(), 4000);
    let more = set("<item jid='more@remote.example'/>");
    assert!(romeo.ask(&more).concat().contains("<policy-violation "));
    romeo.send(&remove("c0000@remote.example"));
    let farewell = remote.routed();
    assert_eq!(farewell.len(), 3, "{farewell:?}");
    let _removed = romeo.received();
    assert_eq!(romeo.ask(&more).len(), 2);
    romeo.lose();
    assert_eq!(remote.routed().len(), 1999);
}

#[test]
fn limit_16_five_hundred_requests() {
    let (world, remote) = Remote::world();
    let account = world.account("romeo");
    for n in 0..600 {
        let ask = format!("<presence from='c{n}@remote.example' to='{ME}' type='subscribe'/>");
        remote.send(&world, &ask);
    }
    assert_eq!(now(world.stores().rosters.requests(&account)).unwrap().len(), 500);
    assert!(remote.routed().is_empty());
    let romeo = world.client("romeo", "orchard");
    assert_eq!(romeo.ask("<presence/>").len(), 501);
    assert!(romeo.ask(GET).concat().matches("<item ").count() == 0);
}

/// A limit of its own for the number of broadcasts is tested below.
fn all_at_once() -> Limits {
    let mut limits = Limits::default();
    limits.presence = None;
    limits.stanzas = None;
    limits.bytes = None;
    limits
}

#[test]
fn limit_8_thirty_two_resources_in_a_storm() {
    let (world, remote) = Remote::world_with(all_at_once());
    fill(&world, "romeo", "remote.example", 10, Subscription::From);
    let clients: Vec<Client> =
        (0..32).map(|n| interested(world.client("romeo", &format!("r{n}")))).collect();
    let over = world.authenticated("romeo");
    let bind = "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>";
    assert!(over.ask(bind).concat().contains("<resource-constraint "));
    for round in 0..5 {
        for client in &clients {
            client.send(&format!("<presence><priority>{round}</priority></presence>"));
        }
    }
    for (n, client) in clients.iter().enumerate() {
        let received = client.received();
        // In the first round those before it; its own; then everybody's, in every round.
        let copies = received.iter().filter(|s| s.starts_with("<presence")).count();
        assert_eq!(copies, 32 + 4 * 32, "{n}");
    }
    clients[0].linger();
    assert!(clients.iter().all(|client| client.session().info().bytes_waiting == 0));
    assert_eq!(remote.routed().len(), 5 * 32 * 10);
    // One push reaches all.
    clients[0].send(&set("<item jid='a@b.example'/>"));
    assert!(clients.iter().all(|client| client.received().concat().contains("a@b.example")));
    // The end of one is told to the 31 others, and so on.
    let mut left = clients;
    while let Some(gone) = left.pop() {
        gone.lose();
        assert!(left.iter().all(|client| client.received().len() == 1));
    }
    assert_eq!(remote.routed().len(), 32 * 10);
    assert!(world.sessions() == 0);
}

#[test]
fn limit_19_a_storm_of_one_client_comes_to_its_last() {
    let (world, remote) = Remote::world();
    fill(&world, "romeo", "remote.example", 10, Subscription::From);
    let romeo = world.client("romeo", "orchard");
    let storm = "<presence/>".repeat(200);
    romeo.send(&storm);
    let first = remote.routed().len() / 10;
    assert!((30..=31).contains(&first), "{first}");
    // Others go on.
    let juliet = world.client("juliet", "balcony");
    assert_eq!(juliet.ask(GET).len(), 1);
    romeo.send("<presence id='last'/>");
    world.advance(Duration::from_secs(60));
    let next = remote.routed();
    assert!(next.len() == 10 && next.iter().all(|one| one.contains("id='last'")), "{next:?}");
}

#[test]
fn what_everybody_left_behind_is_nothing() {
    let (world, remote) = Remote::world();
    for round in 0..3 {
        let clients: Vec<Client> = (0..20).map(|n| world.online(&format!("u{n}"), "r")).collect();
        for (n, client) in clients.iter().enumerate() {
            client
                .send(&format!("<presence type='subscribe' to='u{}@example.com'/>", (n + 1) % 20));
            client.send(&format!("<presence to='x{n}@remote.example'/>"));
        }
        clients.iter().for_each(Client::lose);
        assert!(world.sessions() == 0, "{round}");
        assert_eq!(world.server().next_timeout(), None);
    }
    assert_eq!(remote.routed().len(), 3 * 20 * 2);
}
