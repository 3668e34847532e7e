//! Clients that are not like others, at several nodes: bots, guests, streams that have no session yet.

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use xmpp_session::connection::Recorder;
use xmpp_session::jid::{BareJid, FullJid};
use xmpp_session::server::{Bot, BotError, Limits, ServerBuilder, Shutdown};
use xmpp_session::stanza::{Stanza, canonicalise};
use xmpp_session::stream::{StreamCondition, StreamError};

use crate::common::nodes::{Node, Nodes};
use crate::nodes::leave;

fn bot(world: &Nodes, at: &Node, account: &BareJid) -> Bot<Recorder> {
    let jid = FullJid::new(&format!("{account}/cage")).unwrap();
    world.run(at.server.bot(&jid)).unwrap()
}

fn say(world: &Nodes, bot: &Bot<Recorder>, xml: &str) {
    let stanza: Stanza = canonicalise(xml.as_bytes()).unwrap();
    world.run(bot.send(&stanza)).unwrap();
}

/// What a bot can take now, and no more than so many.
fn take(bot: &mut Bot<Recorder>, most: usize) -> Vec<Stanza> {
    let mut taken = Vec::new();
    while taken.len() < most {
        let next = pin!(bot.recv()).poll(&mut Context::from_waker(Waker::noop()));
        let Poll::Ready(Some(stanza)) = next else { break };
        taken.push(stanza);
    }
    taken
}

fn texts(stanzas: &[Stanza]) -> String {
    stanzas.iter().map(|stanza| format!("{stanza:?}")).collect()
}

fn is_over(bot: &mut Bot<Recorder>) -> bool {
    let next = pin!(bot.recv()).poll(&mut Context::from_waker(Waker::noop()));
    matches!(next, Poll::Ready(None))
}

/// An account at the first node, and a friend of it at the second one, who is there.
struct Scene {
    world: Nodes,
    polly: BareJid,
    romeo: BareJid,
}

impl Scene {
    fn new(moves: bool) -> Self {
        let silence = |_, builder: ServerBuilder<Recorder>| {
            let mut limits = Limits::default();
            limits.silence = Duration::from_secs(60);
            builder.limits(limits)
        };
        let world = if moves { Nodes::moving(3, silence) } else { Nodes::with(3, silence) };
        let (polly, romeo) = (world.account_at(0, "polly"), world.account_at(1, "romeo"));
        world.run(world.node(2).server.account(&romeo).befriend(&polly)).unwrap();
        Self { world, polly, romeo }
    }
}

#[test]
fn bot_1_a_bot_of_any_node_is_at_the_home_of_its_account() {
    for at in 0..3 {
        let Scene { world, polly, romeo } = Scene::new(false);
        let orchard = world.online(&romeo, "orchard");
        let mut bot = bot(&world, &world.node(at), &polly);
        assert_eq!(bot.jid().as_str(), format!("{polly}/cage"));
        assert!(world.home(&polly).server.registry().session(bot.jid()).is_some());
        say(&world, &bot, "<presence/>");
        world.settle();
        assert!(orchard.received().contains(&format!("from='{polly}/cage'")));
        let told = take(&mut bot, 10);
        assert!(told.iter().any(|one| one.from().as_deref() == Some(&*format!("{romeo}/orchard"))));
        // It answers, and is asked at its bare JID as well.
        world.say(
            &orchard,
            &format!("<message to='{polly}' type='chat' id='m'><body>a</body></message>"),
        );
        let told = take(&mut bot, 10);
        assert_eq!(told.len(), 1, "{}", texts(&told));
        say(
            &world,
            &bot,
            &format!("<message to='{romeo}' type='chat'><body>polly wants</body></message>"),
        );
        world.settle();
        assert!(orchard.received().contains("polly wants"));
        // It is neither asked for signs of life nor given up.
        if at == 2 {
            world.advance(Duration::from_secs(700));
        }
        assert!(!is_over(&mut bot));
        // Whatever ends a client's session ends it.
        match at {
            0 => drop(world.client(&polly, "cage")),
            1 => {
                let error = StreamError::new(StreamCondition::Conflict);
                assert_eq!(world.run(world.node(2).server.account(&polly).kick(&error)), 1);
            }
            _ => {
                let session = world.home(&polly).server.registry().session(bot.jid()).unwrap();
                let error = StreamError::new(StreamCondition::Conflict);
                assert!(world.home(&polly).server.kick_with(&session, &error));
            }
        }
        world.settle();
        assert!(is_over(&mut bot));
        assert_eq!(bot.condition(), Some(StreamCondition::Conflict));
        let over = world.run(bot.send(&canonicalise(b"<presence/>").unwrap()));
        assert!(matches!(over, Err(BotError::Ended(Some(StreamCondition::Conflict)))), "{over:?}");
        assert!(orchard.received().contains("type='unavailable'"));
    }
}

#[test]
fn bot_2_dropping_a_bot_of_any_node_is_a_close_tag() {
    for at in 0..3 {
        let Scene { world, polly, romeo } = Scene::new(false);
        let orchard = world.online(&romeo, "orchard");
        let bot = bot(&world, &world.node(at), &polly);
        say(&world, &bot, "<presence/>");
        for n in 0..20 {
            say(
                &world,
                &bot,
                &format!("<message to='{romeo}' type='chat' id='{n}'><body>a</body></message>"),
            );
        }
        drop(bot);
        world.settle();
        let told = orchard.received();
        assert_eq!(told.matches("<body>").count(), 20, "{told}");
        assert_eq!(told.matches("type='unavailable'").count(), 1, "{told}");
        assert_eq!(world.home(&polly).server.registry().sessions(&polly).count(), 0);
    }
}

#[test]
fn bot_4_what_a_bot_of_any_node_has_not_taken_goes_elsewhere() {
    for at in 0..3 {
        for is_kicked in [false, true] {
            let Scene { world, polly, romeo } = Scene::new(false);
            let orchard = world.online(&romeo, "orchard");
            let mut bot = bot(&world, &world.node(at), &polly);
            say(&world, &bot, "<presence/>");
            world.settle();
            let _own = take(&mut bot, 10);
            for n in 0..50 {
                world.say(
                    &orchard,
                    &format!("<message to='{polly}' type='chat' id='{n}'><body>a</body></message>"),
                );
            }
            let taken = take(&mut bot, 7);
            assert_eq!(taken.len(), 7);
            world.settle();
            if is_kicked {
                let error = StreamError::new(StreamCondition::Conflict);
                world.run(world.node(1).server.account(&polly).kick(&error));
                world.settle();
                assert!(take(&mut bot, 50).is_empty(), "what is left is not the bot's any more");
            }
            drop(bot);
            world.settle();
            let later = world.client(&polly, "later");
            let told = world.ask(&later, "<presence/>");
            assert_eq!(told.matches("<body>").count(), 43, "{told}");
            assert!(told.contains("id='7'") && told.contains("id='49'"), "{told}");
        }
    }
}

#[test]
fn node_14_a_bot_follows_a_planned_move() {
    for at in [1, 2] {
        let Scene { world, polly, romeo } = Scene::new(true);
        let orchard = world.client_at(&world.node(1), &romeo, "orchard");
        world.say(&orchard, "<presence/>");
        let mut bot = bot(&world, &world.node(at), &polly);
        say(&world, &bot, "<presence/>");
        world.settle();
        let _before = (take(&mut bot, 10), orchard.received());
        let mut ids = Vec::new();
        let mut said = 0;
        leave(&world, &[(0, Shutdown::new)], |n| {
            world.say(
                &orchard,
                &format!("<message to='{polly}/cage' id='{n}'><body>a</body></message>"),
            );
            if n % 2 == 0 {
                ids.extend(
                    take(&mut bot, 3)
                        .iter()
                        .filter_map(|one| one.id().map(|id| id.parse::<usize>().unwrap())),
                );
            }
            said = n;
        });
        world.settle();
        ids.extend(
            take(&mut bot, 1000)
                .iter()
                .filter_map(|one| one.id().map(|id| id.parse::<usize>().unwrap())),
        );
        assert_eq!(ids, (0..=said).collect::<Vec<_>>());
        say(
            &world,
            &bot,
            &format!("<message to='{romeo}' type='chat'><body>still here</body></message>"),
        );
        world.settle();
        let told = orchard.received();
        assert!(told.contains("still here") && !told.contains("unavailable"), "{told}");
    }
}

#[test]
fn node_13_a_bot_ends_with_the_home_of_its_account_and_with_its_edge() {
    let Scene { world, polly, romeo } = Scene::new(false);
    let orchard = world.client_at(&world.node(1), &romeo, "orchard");
    world.say(&orchard, "<presence/>");
    let mut one = bot(&world, &world.node(2), &polly);
    say(&world, &one, "<presence/>");
    world.settle();
    let _before = (take(&mut one, 10), orchard.received());
    world.node(0).stop(true);
    world.advance(Duration::from_secs(10));
    assert!(is_over(&mut one));
    assert_eq!(one.condition(), Some(StreamCondition::SystemShutdown));
    assert_eq!(orchard.received().matches("type='unavailable'").count(), 1);
    // The next one is at the new home; its own node is lost this time.
    let is_home = |n: &usize| world.node(*n).is_home_of(&polly);
    let (home, edge) = if is_home(&1) { (world.node(1), 2) } else { (world.node(2), 1) };
    let other = bot(&world, &world.node(edge), &polly);
    say(&world, &other, "<presence/>");
    world.settle();
    assert_eq!(home.server.registry().sessions(&polly).count(), 1);
    world.node(edge).stop(true);
    world.advance(Duration::from_secs(10));
    assert_eq!(home.server.registry().sessions(&polly).count(), 0);
}
