//! One order for each sender and account, whatever begins or ends meanwhile and however slow the
//! store is (STZ-8, promise 7).

use crate::common::{faults, wire};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use faults::{Fault, Faulty};
use wire::{Client, Elsewhere, World};
use xmpp_session::connection::SendError;
use xmpp_session::server::{Limits, Shutdown};
use xmpp_session::stanza::canonicalise;
use xmpp_session::store::OfflineStore;
use xmpp_session::xep::{Carbons, StreamManagement};

const ENABLE: &str = "<enable xmlns='urn:xmpp:sm:3' resume='true'/>";
const REMOTE: &str = "mercutio@elsewhere.example/street";

fn world(faulty: &Faulty) -> World {
    World::with_stores(faulty.stores(), |builder, _| {
        let mut limits = Limits::default();
        limits.retention.stanzas = 20;
        builder
            .limits(limits)
            .extension(StreamManagement::new())
            .extension(Carbons::new())
            .router(Elsewhere::default())
    })
}

/// What was seen of numbered messages, over all clients of the account in turn.
#[derive(Default)]
struct Seen {
    order: Vec<(String, u32)>,
    known: BTreeSet<(String, u32)>,
}

impl Seen {
    fn read(&mut self, client: &Client) {
        for one in client.received() {
            self.note(&one);
        }
    }

    fn note(&mut self, one: &str) {
        let Some(body) = one.split("<body>").nth(1).and_then(|b| b.split("</body>").next()) else {
            return;
        };
        let from = if one.contains("mercutio") { "remote" } else { "juliet" };
        let message = (from.to_owned(), body.parse().unwrap());
        if self.known.insert(message.clone()) {
            self.order.push(message);
        }
    }

    fn of(&self, sender: &str) -> Vec<u32> {
        self.order.iter().filter(|(from, _)| from == sender).map(|(_, number)| *number).collect()
    }

    fn is_in_order(&self) -> bool {
        ["juliet", "remote"].iter().all(|sender| self.of(sender).is_sorted())
    }
}

fn say(client: &Client, numbers: impl IntoIterator<Item = u32>) {
    for number in numbers {
        client.send(&message(number));
    }
}

fn message(number: u32) -> String {
    format!(
        "<message to='romeo@example.com' type='chat' id='{number}'><body>{number}</body></message>"
    )
}

fn say_from_elsewhere(world: &World, numbers: impl IntoIterator<Item = u32>) {
    for number in numbers {
        let message = message(number).replace("<message", &format!("<message from='{REMOTE}'"));
        world.server().send(canonicalise(message.as_bytes()).unwrap());
    }
}

/// Ends all sessions at once, and leaves what they leave to the world.
fn shut_down(world: &World) {
    let mut shutdown = Box::pin(world.shutdown(Shutdown::new));
    let cx = &mut std::task::Context::from_waker(std::task::Waker::noop());
    let _pending = shutdown.as_mut().poll(cx);
}

fn numbers(end: u32) -> Vec<u32> {
    (0..end).collect()
}

/// While the store is asked for what it has, later messages come behind.
#[test]
fn stz_8_nothing_passes_a_backlog_that_is_fetched() {
    for fault in [Fault::Slow, Fault::SlowAnswer] {
        let faulty = Faulty::new();
        let world = world(&faulty);
        world.account("romeo");
        let juliet = world.client("juliet", "balcony");
        say(&juliet, 0..3);
        say_from_elsewhere(&world, 0..3);
        let romeo = world.client("romeo", "orchard");
        faulty.decide(move |_, _| fault);
        romeo.send("<presence/>");
        say(&juliet, 3..6);
        say_from_elsewhere(&world, 3..6);
        let mut seen = Seen::default();
        for _ in 0..20 {
            faulty.release();
            world.settle();
            seen.read(&romeo);
        }
        assert_eq!(seen.of("juliet"), numbers(6), "{fault:?}");
        assert_eq!(seen.of("remote"), numbers(6), "{fault:?}");
        // And nothing waits any more.
        faulty.decide(|_, _| Fault::Slow);
        say(&juliet, 6..7);
        seen.read(&romeo);
        assert_eq!(seen.of("juliet"), numbers(7), "live again");
    }
}

/// A store that fails to say what it has keeps its place: later messages go behind what it has.
#[test]
fn stz_8_nothing_passes_a_backlog_whose_store_fails() {
    let faulty = Faulty::new();
    let world = world(&faulty);
    world.account("romeo");
    let juliet = world.client("juliet", "balcony");
    say(&juliet, 0..3);
    let romeo = world.client("romeo", "orchard");
    let mut seen = Seen::default();
    // The list fails, and a push does not.
    let failing = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let fails = Arc::clone(&failing);
    faulty.decide(move |_, n| {
        let fails = fails.load(std::sync::atomic::Ordering::SeqCst) && n.is_multiple_of(2);
        if fails { Fault::Fail } else { Fault::None }
    });
    romeo.send("<presence/>");
    faulty.decide({
        let fails = Arc::clone(&failing);
        move |_, n| {
            let fails = fails.load(std::sync::atomic::Ordering::SeqCst) && n.is_multiple_of(2);
            if fails { Fault::Fail } else { Fault::None }
        }
    });
    say(&juliet, 3..5);
    seen.read(&romeo);
    assert_eq!(seen.of("juliet"), [0; 0]);
    failing.store(false, std::sync::atomic::Ordering::SeqCst);
    world.advance(Duration::from_secs(6));
    seen.read(&romeo);
    assert_eq!(seen.of("juliet"), numbers(5));
    say(&juliet, 5..6);
    seen.read(&romeo);
    assert_eq!(seen.of("juliet"), numbers(6));
}

/// A client loses its transport, and comes back, twice while it waits for what a store has that fails, or is slow:
/// it gets everything once, in order, and what it has not acknowledged again.
#[test]
fn stz_8_a_session_is_resumed_amid_a_backlog_whose_store_fails() {
    for fault in [Fault::None, Fault::Fail, Fault::SlowFail, Fault::SlowAnswer] {
        let faulty = Faulty::new();
        let world = world(&faulty);
        world.account("romeo");
        let juliet = world.client("juliet", "balcony");
        say(&juliet, 0..4);
        let mut romeo = world.client("romeo", "orchard");
        let enabled = romeo.ask(ENABLE).concat();
        let id = enabled.split(" id='").nth(1).unwrap().split('\'').next().unwrap().to_owned();
        // The store takes messages, and fails to list or to remove them.
        faulty.decide(move |_, n| if n.is_multiple_of(2) { fault } else { Fault::None });
        romeo.send("<presence/>");
        let (mut got, mut handled, mut next) = (Vec::new(), 0, 4);
        for round in 0..3 {
            for _ in 0..20 {
                say(&juliet, next..=next);
                next += 1;
                if round == 2 {
                    faulty.decide(|_, _| Fault::None);
                }
                faulty.release();
                world.advance(Duration::from_secs(1));
            }
            let some: Vec<_> =
                romeo.received().into_iter().filter(|one| !one.starts_with("<r")).collect();
            // Of the last ones it knows nothing.
            let most = if round == 2 { some.len() } else { some.len().saturating_sub(3) };
            got.extend(some.into_iter().take(most));
            handled += most;
            if round < 2 {
                romeo.lose();
                say(&juliet, next..next + 5);
                next += 5;
                romeo = world.authenticated("romeo");
                romeo.send(&format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='{handled}'/>"));
            }
        }
        let bodies = got.iter().filter_map(|one| one.split("<body>").nth(1)?.split('<').next());
        let got: Vec<u32> = bodies.map(|body| body.parse().unwrap()).collect();
        let bounced = juliet.received().len();
        assert_eq!((got, bounced), (numbers(next), 0), "{fault:?}");
    }
}

/// The client binds its resource anew and is available at once, while the store keeps what the old
/// session left.
#[test]
fn stz_8_a_resource_bound_anew_gets_what_was_left_in_order() {
    for fault in [Fault::None, Fault::Slow, Fault::SlowAnswer] {
        let faulty = Faulty::new();
        let world = world(&faulty);
        let juliet = world.client("juliet", "balcony");
        let romeo = world.client("romeo", "orchard");
        romeo.send(ENABLE);
        romeo.send("<presence/>");
        say(&juliet, 0..10);
        romeo.lose();
        faulty.decide(move |_, _| fault);
        let romeo = world.client("romeo", "orchard");
        let mut seen = Seen::default();
        romeo.send("<presence/>");
        say(&juliet, 10..12);
        say_from_elsewhere(&world, 0..2);
        for _ in 0..40 {
            faulty.release();
            world.settle();
            seen.read(&romeo);
        }
        assert_eq!(seen.of("juliet"), numbers(12), "{fault:?}");
        assert_eq!(seen.of("remote"), numbers(2), "{fault:?}");
    }
}

/// Whatever ends a session while others write to it: what it had not acknowledged comes before what
/// came later.
#[test]
fn stz_8_what_an_ended_session_leaves_comes_before_what_follows() {
    type End = fn(&World, &Client);
    let ends: [(&str, End); 6] = [
        ("close", |_, romeo| romeo.send("</stream:stream>")),
        ("stream error", |_, romeo| romeo.send("<bad/>")),
        ("kick", |world, romeo| assert!(world.kick(&romeo.session()))),
        ("overflow", |world, romeo| {
            romeo.lose();
            say_from_elsewhere(world, 0..30);
        }),
        ("expiry", |world, romeo| {
            romeo.lose();
            world.advance(Duration::from_secs(601));
        }),
        ("shutdown", |world, _| shut_down(world)),
    ];
    for (name, end) in ends {
        for fault in [Fault::None, Fault::Slow, Fault::SlowAnswer] {
            let faulty = Faulty::new();
            let world = world(&faulty);
            let juliet = world.client("juliet", "balcony");
            let romeo = world.client("romeo", "orchard");
            romeo.send(ENABLE);
            romeo.send("<presence/>");
            say(&juliet, 0..10);
            faulty.decide(move |_, _| fault);
            end(&world, &romeo);
            say(&juliet, 10..13);
            say_from_elsewhere(&world, 30..33);
            for _ in 0..100 {
                faulty.release();
                world.settle();
            }
            let account = romeo.session().jid().to_bare();
            let stored = wire::now(OfflineStore::list(faulty.memory(), &account)).unwrap();
            let mut seen = Seen::default();
            for (_, message) in stored {
                seen.note(std::str::from_utf8(&message.stanza).unwrap());
            }
            assert!(seen.is_in_order(), "{name}, {fault:?}: {:?}", seen.order);
            let expected = if name == "shutdown" { 10 } else { 13 };
            assert_eq!(seen.of("juliet"), numbers(expected), "{name}, {fault:?}");
            assert!(seen.of("remote").len() >= 3, "{name}, {fault:?}");
        }
    }
}

/// Several devices of an account end together: what one sender wrote to them in turn stays in order.
#[test]
fn stz_8_what_several_sessions_leave_keeps_its_order() {
    type End = fn(&World, &[Client]);
    let ends: [(&str, End); 3] = [
        ("shutdown", |world, _| shut_down(world)),
        ("kicks", |world, devices| {
            for device in devices {
                assert!(world.kick(&device.session()));
            }
        }),
        ("one after the other", |world, devices| {
            for device in devices {
                device.lose();
                world.advance(Duration::from_secs(601));
                world.settle();
            }
        }),
    ];
    for (name, end) in ends {
        for fault in [Fault::None, Fault::Slow, Fault::SlowAnswer] {
            for is_retained in [true, false] {
                if !is_retained && name == "one after the other" {
                    continue;
                }
                let faulty = Faulty::new();
                let world = world(&faulty);
                let juliet = world.client("juliet", "balcony");
                let devices = ["orchard", "garden", "street"].map(|resource| {
                    let device = world.client("romeo", resource);
                    if is_retained {
                        device.send(ENABLE);
                    }
                    device.send("<presence/>");
                    if !is_retained {
                        device.recorder().refuse(Some(SendError::Full));
                    }
                    device
                });
                for number in 0..30 {
                    world.environment().advance(Duration::from_micros(100));
                    let to = match number % 4 {
                        0 => "romeo@example.com",
                        1 => "romeo@example.com/orchard",
                        2 => "romeo@example.com/garden",
                        _ => "romeo@example.com/street",
                    };
                    juliet.send(&message(number).replace("romeo@example.com", to));
                }
                faulty.decide(move |_, _| fault);
                end(&world, &devices);
                for _ in 0..200 {
                    faulty.release();
                    world.settle();
                }
                faulty.decide(|_, _| Fault::None);
                let account = jid::BareJid::new("romeo@example.com").unwrap();
                let mut stored = wire::now(OfflineStore::list(faulty.memory(), &account)).unwrap();
                stored.sort_by_key(|(_, message)| message.received);
                let mut seen = Seen::default();
                for (_, message) in stored {
                    seen.note(std::str::from_utf8(&message.stanza).unwrap());
                }
                assert_eq!(seen.of("juliet"), numbers(30), "{name}, {fault:?}, {is_retained}");
            }
        }
    }
}

/// The same for those that are still there.
#[test]
fn stz_8_what_several_sessions_leave_comes_to_others_in_its_order() {
    let faulty = Faulty::new();
    let world = world(&faulty);
    let juliet = world.client("juliet", "balcony");
    let devices = ["orchard", "garden", "street"].map(|resource| {
        let device = world.client("romeo", resource);
        device.send(ENABLE);
        device.send("<presence/>");
        device
    });
    for number in 0..12 {
        world.environment().advance(Duration::from_micros(100));
        let to = ["romeo@example.com/orchard", "romeo@example.com/garden"][number as usize % 2];
        juliet.send(&message(number).replace("romeo@example.com", to));
    }
    // Both end before anything can be done about what they leave.
    let cellar = world.client("romeo", "cellar");
    faulty.decide(|_, _| Fault::SlowAnswer);
    cellar.send("<presence/>");
    for device in &devices[..2] {
        assert!(world.kick(&device.session()));
    }
    for _ in 0..40 {
        faulty.release();
        world.settle();
    }
    for device in [&devices[2], &cellar] {
        let mut seen = Seen::default();
        seen.read(device);
        assert_eq!(seen.of("juliet"), numbers(12));
    }
}

/// A message for the successor alone does not pass what it has inherited, presence or not.
#[test]
fn destroy_8_a_message_for_the_successor_does_not_pass_what_is_inherited() {
    for fault in [Fault::None, Fault::SlowAnswer] {
        let faulty = Faulty::new();
        let world = world(&faulty);
        let juliet = world.client("juliet", "balcony");
        let romeo = world.client("romeo", "orchard");
        romeo.send(ENABLE);
        romeo.send("<presence/>");
        say(&juliet, 0..10);
        romeo.lose();
        let romeo = world.client("romeo", "orchard");
        faulty.decide(move |_, _| fault);
        for number in 10..13 {
            juliet.send(&message(number).replace("example.com'", "example.com/orchard'"));
        }
        let mut received = Vec::new();
        for is_available in [false, true] {
            for _ in 0..10 {
                faulty.release();
                world.settle();
            }
            received.extend(romeo.received().iter().filter_map(|one| {
                one.split("<body>").nth(1)?.split('<').next()?.parse::<u32>().ok()
            }));
            assert_eq!(received, numbers(13), "{fault:?}, {is_available}");
            romeo.send("<presence/>");
        }
    }
}

/// What a session has not acknowledged is older than what was stored while it was not reachable.
#[test]
fn stz_8_what_was_left_comes_before_what_was_stored_meanwhile() {
    let faulty = Faulty::new();
    let world = world(&faulty);
    let juliet = world.client("juliet", "balcony");
    let romeo = world.client("romeo", "orchard");
    romeo.send(ENABLE);
    romeo.send("<presence/>");
    say(&juliet, 0..3);
    world.advance(Duration::from_secs(1));
    romeo.send("<presence><priority>-1</priority></presence>");
    say(&juliet, 3..6);
    romeo.send("</stream:stream>");
    let mut seen = Seen::default();
    let romeo = world.online_reading("romeo", &mut |one| seen.note(one));
    seen.read(&romeo);
    assert_eq!(seen.of("juliet"), numbers(6));
}

/// What a replaced session had not acknowledged belongs to the one that took its resource, whoever
/// else had a copy: first, in order, and to nobody a second time.
#[test]
fn destroy_8_a_successor_gets_what_was_not_acknowledged() {
    for with_carbons in [false, true] {
        let faulty = Faulty::new();
        let world = world(&faulty);
        let juliet = world.client("juliet", "balcony");
        let desk = world.online("romeo", "desk");
        desk.send("<presence><priority>-1</priority></presence>");
        if with_carbons {
            desk.send("<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>");
        }
        let phone = world.client("romeo", "phone");
        phone.send(ENABLE);
        phone.send("<presence/>");
        let _before = (phone.received(), desk.received());
        say(&juliet, 0..3);
        assert_eq!(desk.received().len(), if with_carbons { 3 } else { 0 });
        desk.send("<presence/>");
        let _presence = desk.received();
        phone.lose();
        let phone = world.client("romeo", "phone");
        assert!(!desk.received().concat().contains("<body>"), "not again");
        let mut seen = Seen::default();
        seen.read(&phone);
        assert_eq!(seen.of("juliet"), [0; 0], "not before it is available");
        say(&juliet, 3..4);
        phone.send("<presence/>");
        say(&juliet, 4..5);
        let mut got = Vec::new();
        for one in phone.received().iter().filter(|one| one.contains("<body>")) {
            assert!(!one.contains("urn:xmpp:carbons"), "{one}");
            got.push(one.split("<body>").nth(1).unwrap()[..1].parse::<u32>().unwrap());
        }
        assert_eq!(got, [0, 1, 2, 4], "{with_carbons}");
        let mut seen = Seen::default();
        seen.read(&desk);
        assert_eq!(seen.of("juliet"), [3, 4], "each once");
    }
}

/// A copy for a successor that has not got its inheritance yet comes behind that.
#[test]
fn destroy_8_a_carbon_does_not_pass_what_is_inherited() {
    let faulty = Faulty::new();
    let world = world(&faulty);
    let juliet = world.client("juliet", "balcony");
    let desk = world.online("romeo", "desk");
    let phone = world.client("romeo", "phone");
    phone.send(ENABLE);
    phone.send("<presence><priority>5</priority></presence>");
    say(&juliet, 0..3);
    phone.lose();
    let phone = world.client("romeo", "phone");
    phone.send("<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>");
    say(&juliet, 3..5);
    assert!(!phone.received().concat().contains("<body>"));
    phone.send("<presence/>");
    say(&juliet, 5..6);
    let mut seen = Seen::default();
    seen.read(&phone);
    assert_eq!(seen.of("juliet"), numbers(6));
    let mut seen = Seen::default();
    seen.read(&desk);
    assert_eq!(seen.of("juliet"), [3, 4, 5]);
    phone.send("</stream:stream>");
    desk.send("</stream:stream>");
    assert_eq!(world.counts().retained_bytes, 0);
}

/// It goes where it would have gone, where the successor ends without having been available.
#[test]
fn destroy_8_what_a_successor_did_not_get_is_left_in_order() {
    let faulty = Faulty::new();
    let world = world(&faulty);
    let juliet = world.client("juliet", "balcony");
    let phone = world.client("romeo", "phone");
    phone.send(ENABLE);
    phone.send("<presence/>");
    say(&juliet, 0..3);
    phone.lose();
    let phone = world.client("romeo", "phone");
    say(&juliet, 3..5);
    phone.send("</stream:stream>");
    let mut seen = Seen::default();
    let phone = world.online_reading("romeo", &mut |one| seen.note(one));
    seen.read(&phone);
    assert_eq!(seen.of("juliet"), numbers(5));
    assert_eq!(world.counts().retained_bytes, 0);
}

/// A session that had sent presence to its own full JID: its successor is not told of its end.
#[test]
fn destroy_8_directed_presence_to_oneself_does_not_reach_the_successor() {
    let faulty = Faulty::new();
    let world = world(&faulty);
    let phone = world.client("romeo", "phone");
    phone.send("<presence to='romeo@example.com/phone'/>");
    assert_eq!(phone.received().len(), 1);
    let successor = world.client("romeo", "phone");
    assert!(phone.session().is_ended());
    assert_eq!(successor.received(), [""; 0]);
}

/// A linear congruential generator: enough to choose by.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// A recipient that counts what it gets for stream management.
struct Recipient {
    client: Client,
    counted: Option<u32>,
    id: Option<String>,
}

impl Recipient {
    fn read(&mut self, seen: &mut Seen) {
        for one in self.client.received() {
            if one.starts_with("<enabled") {
                self.counted = Some(0);
                self.id = one.split(" id='").nth(1).map(|id| id.split('\'').next().unwrap().into());
            }
            let is_stanza =
                ["<message", "<presence", "<iq"].iter().any(|kind| one.starts_with(kind));
            if let Some(counted) = self.counted.as_mut().filter(|_| is_stanza) {
                *counted += 1;
            }
            seen.note(&one);
        }
    }
}

/// One recipient at a time, two senders, a store that is slow or fails, and everything that begins
/// or ends a session, as a seed chooses.
#[test]
fn stz_8_one_order_through_all_that_begins_and_ends() {
    let seeds = std::env::var("ORDER_SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    let only = std::env::var("ORDER_SEED").ok().and_then(|seed| seed.parse().ok());
    let (start, end) = match (only, seeds) {
        (Some(seed), _) => (seed, seed + 1),
        (None, seeds) => (0_u64, seeds.unwrap_or(150)),
    };
    for seed in start..end {
        one_order(seed);
    }
}

fn one_order(seed: u64) {
    let mut random = Random(seed);
    random.below(2);
    let faulty = Faulty::new();
    let elsewhere = Elsewhere::default();
    let router = elsewhere.clone();
    let world = World::with_stores(faulty.stores(), |builder, _| {
        let mut limits = Limits::default();
        limits.retention.stanzas = 20;
        builder
            .limits(limits)
            .extension(StreamManagement::new())
            .extension(Carbons::new())
            .router(router)
    });
    world.account("romeo");
    let juliet = world.client("juliet", "balcony");
    let mut seen = Seen::default();
    let mut romeo: Option<Recipient> = None;
    let mut former: Vec<Recipient> = Vec::new();
    let mut next = BTreeMap::from([("juliet", 0), ("remote", 0)]);
    let slow = [0, 3, 6][usize::try_from(random.below(3)).unwrap()];
    let fails = [0, 2][usize::try_from(random.below(2)).unwrap()];
    let mut choice = Random(seed ^ 0x5eed);
    faulty.decide(move |_, _| match choice.below(10) {
        n if n < slow => [Fault::Slow, Fault::SlowAnswer][usize::try_from(n % 2).unwrap()],
        n if n < slow + fails => [Fault::Fail, Fault::SlowFail][usize::try_from(n % 2).unwrap()],
        _ => Fault::None,
    });
    let mut log = Vec::new();
    for _ in 0..120 {
        let step = random.below(16);
        log.push(step);
        juliet.send(" ");
        assert!(juliet.is_connected());
        // One that has closed may still get what came before.
        former.iter_mut().for_each(|recipient| recipient.read(&mut seen));
        former.retain(|recipient| recipient.client.is_connected());
        if let Some(recipient) = &mut romeo {
            recipient.read(&mut seen);
            if !recipient.client.is_connected() {
                romeo = None;
            }
        }
        match (step, &mut romeo) {
            (0..=3, _) => {
                let number = next.get_mut("juliet").unwrap();
                say(&juliet, *number..*number + 1);
                *number += 1;
            }
            (4 | 5, _) => {
                let number = next.get_mut("remote").unwrap();
                say_from_elsewhere(&world, *number..*number + 1);
                *number += 1;
            }
            (6, None) => {
                let client = world.authenticated("romeo");
                client.send(
                    "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
                     <resource>orchard</resource></bind></iq>",
                );
                romeo = Some(Recipient { client, counted: None, id: None });
            }
            (7 | 8, Some(romeo)) => romeo.client.send("<presence/>"),
            (9, Some(romeo)) => match random.below(3) {
                0 => romeo.client.send("<presence type='unavailable'/>"),
                1 => romeo.client.send("<presence><priority>-1</priority></presence>"),
                _ => romeo.client.send(ENABLE),
            },
            (10, Some(recipient)) => {
                match random.below(5) {
                    0 => recipient.client.send("</stream:stream>"),
                    1 => recipient.client.send("<bad/>"),
                    _ => recipient.client.lose(),
                }
                former.extend(romeo.take());
            }
            (11, Some(romeo)) => {
                if let Some(h) = romeo.counted {
                    romeo.client.send(&format!("<a xmlns='urn:xmpp:sm:3' h='{h}'/>"));
                }
            }
            (12, _) => world.advance(Duration::from_secs(
                [1, 7, 700][usize::try_from(random.below(3)).unwrap()],
            )),
            (13..=15, _) => {
                faulty.release();
                world.settle();
            }
            _ => {}
        }
    }
    // Peace: the store answers, and the client comes for everything.
    faulty.decide(|_, _| Fault::None);
    for _ in 0..4 {
        faulty.release();
        world.settle();
        former.iter_mut().for_each(|recipient| recipient.read(&mut seen));
        world.advance(Duration::from_secs(10));
    }
    if let Some(recipient) = &mut romeo {
        recipient.read(&mut seen);
        recipient.client.send("</stream:stream>");
        recipient.read(&mut seen);
    }
    // Whoever hibernates has had its time.
    world.advance(Duration::from_secs(700));
    for _ in 0..3 {
        let client = world.online_reading("romeo", &mut |one| seen.note(one));
        world.advance(Duration::from_secs(10));
        seen.read(&client);
        client.send("</stream:stream>");
        seen.read(&client);
    }
    let mut bounced = BTreeSet::new();
    let answers = juliet.received();
    for one in answers.iter().chain(&elsewhere.take()) {
        if one.contains("type='error'") {
            let from = if one.contains("mercutio") { "remote" } else { "juliet" };
            let id = one.split(" id='").nth(1).unwrap().split('\'').next().unwrap();
            bounced.insert((from.to_owned(), id.parse::<u32>().unwrap()));
        }
    }
    for (sender, end) in next {
        for number in 0..end {
            let message = (sender.to_owned(), number);
            let is_there = seen.known.contains(&message) || bounced.contains(&message);
            assert!(is_there, "seed {seed}: {message:?} is lost; {:?}; {log:?}", seen.order);
        }
    }
    let accepted: Vec<_> = seen.order.iter().filter(|one| !bounced.contains(*one)).collect();
    for sender in ["juliet", "remote"] {
        let order: Vec<_> =
            accepted.iter().filter(|one| one.0 == sender).map(|one| one.1).collect();
        assert!(order.is_sorted(), "seed {seed}: {sender}: {order:?}; {log:?}");
    }
}
