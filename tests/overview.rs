//! What the operator of a server sees (HOST-9).

use std::time::Duration;

use xmpp_session::server::{Listing, Order, Stage, Transport};
use xmpp_session::session::SessionState;
use xmpp_session::xep;

use crate::common::wire::{Client, World};

const ENABLE: &str = "<enable xmlns='urn:xmpp:sm:3' resume='true'/>";

fn world() -> World {
    World::with(|builder, _| builder.extension(xep::StreamManagement::new()))
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The JIDs that a listing names, without the domain.
fn named(world: &World, listing: &Listing) -> Vec<String> {
    let sessions = world.server().overview(listing).sessions;
    sessions.iter().map(|one| one.jid.as_str().replace("@example.com", "")).collect()
}

/// A client that acknowledges nothing of what it gets.
fn deaf(world: &World, node: &str, messages: usize) -> Client {
    let client = world.online(node, "r");
    client.send(ENABLE);
    let sender = world.client("sender", node);
    for _ in 0..messages {
        sender
            .send(&format!("<message to='{}' type='chat'><body>Hi</body></message>", client.jid()));
    }
    sender.send("</stream:stream>");
    client
}

#[test]
fn host_9_streams_and_sessions_are_counted_by_state() {
    let world = world();
    let _silent = world.accept(Transport::new().secure(true).source("192.0.2.7:5000"));
    world.advance(seconds(2));
    let _spoken = world.connect();
    let _authenticated = world.authenticated("nurse");
    let bound = world.client("juliet", "a");
    bound.send("<iq type='get' id='1'><query xmlns='jabber:iq:roster'/></iq>");
    let available = world.online("juliet", "b");
    let gone = world.online("romeo", "c");
    gone.send(ENABLE);
    let never_there = world.client("romeo", "d");
    never_there.send(ENABLE);
    world.advance(seconds(3));
    gone.lose();
    never_there.lose();
    world.advance(seconds(4));
    let seen = world.server().overview(&Listing::new());
    assert_eq!((seen.unauthenticated, seen.authenticated, seen.closing), (2, 1, 0));
    assert_eq!((seen.bound, seen.available, seen.hibernating), (1, 1, 2));
    assert_eq!((seen.interested, seen.matching), (1, 4));
    let now = world.server().now();
    let streams: Vec<_> = seen
        .streams
        .iter()
        .map(|one| (one.stage, (now - one.since).as_secs(), one.peer.to_string()))
        .collect();
    let unknown = || "unknown".to_owned();
    let expected = [
        (Stage::Unauthenticated, 9, "192.0.2.7".to_owned()),
        (Stage::Unauthenticated, 7, unknown()),
        (Stage::Authenticated, 7, unknown()),
    ];
    assert_eq!(streams, expected);
    let states: Vec<_> = seen.sessions.iter().map(|one| (one.state(), one.interested)).collect();
    let hibernating = SessionState::Hibernating;
    let expected = [
        (SessionState::Bound, true),
        (SessionState::Available, false),
        (hibernating, false),
        (hibernating, false),
    ];
    assert_eq!(states, expected);
    let times = seen.sessions.iter().map(|one| {
        let slept = one.hibernating_since.map(|since| (now - since).as_secs());
        ((now - one.since).as_secs(), one.presence_at.is_some(), slept)
    });
    let expected = [(7, false, None), (7, true, None), (7, true, Some(4)), (7, false, Some(4))];
    assert_eq!(times.collect::<Vec<_>>(), expected);
    // Its end is that of a stream for a while.
    available.driver(|driver| assert!(driver.session().is_some()));
    world.kick(&available.session());
    let seen = world.server().overview(&Listing::new());
    assert_eq!((seen.available, seen.matching), (0, 3));
}

#[test]
fn host_9_a_listing_names_what_it_is_asked_for() {
    let world = world();
    let _clients: Vec<_> = ["a", "b", "c", "d", "e"].map(|node| world.online(node, "R")).into();
    let _quiet = world.client("f", "R");
    let listing = Listing::new;
    assert_eq!(named(&world, &listing().most(2)), ["a/R", "b/R"]);
    assert_eq!(named(&world, &listing().most(2).order(Order::Newest)), ["f/R", "e/R"]);
    assert_eq!(named(&world, &listing().most(0)), [""; 0]);
    assert_eq!(world.server().overview(&listing().most(0)).matching, 6);
    assert_eq!(named(&world, &listing().state(SessionState::Bound)), ["f/R"]);
    assert_eq!(named(&world, &listing().state(SessionState::Hibernating)), [""; 0]);
    assert_eq!(named(&world, &listing().containing("C@EXAMPLE.com/r")), ["c/R"]);
    assert_eq!(named(&world, &listing().containing("@example")).len(), 6);
    // Page by page, while sessions come and go.
    let mut pages = Vec::new();
    let mut page = listing().most(2);
    loop {
        let sessions = world.server().overview(&page).sessions;
        let Some(last) = sessions.last() else { break };
        pages.push(
            sessions
                .iter()
                .map(|one| one.jid.as_str().replace("@example.com/R", ""))
                .collect::<String>(),
        );
        page = page.after(last.id);
    }
    assert_eq!(pages, ["ab", "cd", "ef"]);
}

#[test]
fn host_9_what_waits_comes_first() {
    let world = world();
    let _idle = world.online("idle", "r");
    let _little = deaf(&world, "little", 1);
    world.advance(seconds(1));
    let _much = deaf(&world, "much", 3);
    let waiting = Listing::new().order(Order::Waiting);
    assert_eq!(named(&world, &waiting), ["much/r", "little/r", "idle/r"]);
    assert_eq!(named(&world, &waiting.most(1)), ["much/r"]);
    let oldest = Listing::new().order(Order::Unacknowledged);
    assert_eq!(named(&world, &oldest), ["little/r", "much/r", "idle/r"]);
    let now = world.server().now();
    let since = world.server().overview(&oldest).sessions;
    let since = since.iter().map(|one| one.unacknowledged_since.map(|at| (now - at).as_secs()));
    assert_eq!(since.collect::<Vec<_>>(), [Some(1), Some(0), None]);
}

/// More than are kept before they are sorted.
#[test]
fn host_9_the_first_of_many_are_named() {
    let world = world();
    let _many: Vec<_> = (0..150).map(|n| world.client(&format!("u{n}"), "r")).collect();
    let listing = Listing::new().order(Order::Newest).most(3);
    assert_eq!(named(&world, &listing), ["u149/r", "u148/r", "u147/r"]);
    let seen = world.server().overview(&listing);
    assert_eq!((seen.bound, seen.matching, seen.sessions.len()), (150, 150, 3));
    let listing = Listing::new().containing("u11").most(2);
    assert_eq!(named(&world, &listing), ["u11/r", "u110/r"]);
}
