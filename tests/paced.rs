//! Nobody is dropped for what others send (LIMIT-10, LIMIT-13, SM-24): a client whose connection takes only
//! a little at a time gets everything, in order, and what it costs is bounded.

use crate::common::wire;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use wire::{Client, World};
use xmpp_session::connection::SendError;
use xmpp_session::rules::roster::Subscription;
use xmpp_session::server::{Limits, Rate, Want};
use xmpp_session::xep;

const SECOND: Duration = Duration::from_secs(1);
const R: &str = "<r xmlns='urn:xmpp:sm:3'/>";
const ENABLE: &str = "<enable xmlns='urn:xmpp:sm:3' resume='true'/>";

fn world(change: impl FnOnce(&mut Limits)) -> World {
    let mut limits = Limits::unlimited();
    change(&mut limits);
    World::with(|builder, _| {
        builder
            .extension(xep::StreamManagement::new())
            .extension(xep::Carbons::new())
            .extension(xep::ClientState)
            .extension(xep::Ping)
            .limits(limits)
    })
}

/// A client whose connection takes `frames` at a time, and then no more until they are written.
struct Slow {
    client: Client,
    left: Arc<AtomicUsize>,
    frames: usize,
    retained: bool,
    handled: u32,
}

impl Slow {
    fn new(world: &World, node: &str, resource: &str, frames: usize, retained: bool) -> Self {
        let client = world.client(node, resource);
        if retained {
            client.send(ENABLE);
            let _enabled = client.received();
        }
        let left = Arc::new(AtomicUsize::new(frames));
        let (count, recorder) = (Arc::clone(&left), client.recorder().clone());
        client.recorder().on_send(move |_| {
            if count.fetch_sub(1, Ordering::SeqCst) == 1 {
                recorder.refuse(Some(SendError::Full));
            }
        });
        Self { client, left, frames, retained, handled: 0 }
    }

    /// Writes what the connection holds, and takes what the client has got by that.
    fn step(&mut self) -> Vec<String> {
        self.left.store(self.frames, Ordering::SeqCst);
        self.client.recorder().refuse(None);
        let got = self.client.received();
        self.client.recorder().drained();
        for element in &got {
            if element != R {
                self.handled += 1;
            } else if self.retained {
                self.client.send(&format!("<a xmlns='urn:xmpp:sm:3' h='{}'/>", self.handled));
            }
        }
        got
    }

    /// Everything, while seconds pass.
    fn all(&mut self, world: &World) -> Vec<String> {
        let (mut all, mut quiet) = (Vec::new(), 0);
        while quiet < 3 {
            let got = self.step();
            quiet = if got.is_empty() { quiet + 1 } else { 0 };
            all.extend(got.into_iter().filter(|one| one != R));
            world.advance(SECOND);
        }
        assert!(self.client.is_connected(), "it was dropped");
        all
    }
}

fn numbers(stanzas: &[String]) -> Vec<usize> {
    let number = |one: &String| one.split(" id='").nth(1)?.split('\'').next()?.parse().ok();
    stanzas.iter().filter_map(number).collect()
}

fn bytes_waiting(world: &World) -> usize {
    world.each().map(|session| session.info().bytes_waiting).sum()
}

#[test]
fn limit_13_stored_requests_are_paced() {
    for retained in [false, true] {
        let world = world(|_| {});
        world.account("romeo");
        let status = "x".repeat(7500);
        for n in 0..300 {
            world.client(&format!("s{n}"), "x").send(&format!(
                "<presence type='subscribe' to='romeo@example.com'><status>{status}</status></presence>"
            ));
        }
        let mut romeo = Slow::new(&world, "romeo", "x", 8, retained);
        romeo.client.send("<presence/>");
        let got = romeo.all(&world);
        assert_eq!(got.iter().filter(|one| one.contains("type='subscribe'")).count(), 300);
        // It can deny them.
        romeo.client.send("<presence type='unsubscribed' to='s7@example.com'/>");
        assert!(romeo.client.is_connected());
    }
}

/// The presence of contacts: one with many resources and much to say, and many with little.
#[test]
fn limit_13_the_presence_of_contacts_is_paced() {
    for retained in [false, true] {
        for (contacts, resources, bytes) in [(2, 14, 200_000), (200, 2, 1000)] {
            let world = world(|limits| limits.retention.live_stanzas = 100);
            world.account("romeo");
            let status = "x".repeat(bytes);
            let mut online = Vec::new();
            for n in 0..contacts {
                let node = format!("c{n}");
                world.friends("romeo", &node);
                for r in 0..resources {
                    let client = world.client(&node, &r.to_string());
                    client.send(&format!("<presence><status>{status}</status></presence>"));
                    online.push(client);
                }
            }
            let mut romeo = Slow::new(&world, "romeo", "x", 3, retained);
            romeo.client.send("<presence/>");
            let got = romeo.all(&world);
            let told = got.iter().filter(|one| one.contains("<delay ") && one.contains(&status));
            assert_eq!(told.count(), contacts * resources);
            drop(online);
        }
    }
}

/// Everything that others can send: each in full, in order, and nobody is dropped for it.
#[test]
fn limit_13_floods_are_paced() {
    const COUNT: usize = 900;
    for retained in [false, true] {
        for kind in ["chat", "headline", "groupchat", "carbon", "iq", "push", "csi"] {
            let world = world(|limits| {
                limits.iq_needs_presence = false;
                limits.roster.items = 5000;
            });
            world.friends("romeo", "juliet");
            let other = world.client("romeo", "other");
            let mut romeo = Slow::new(&world, "romeo", "x", 10, retained);
            romeo.client.send(
                "<presence><priority>-1</priority></presence>\
                 <iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>\
                 <iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>",
            );
            let _before = romeo.all(&world);
            if kind == "csi" {
                romeo.client.send("<inactive xmlns='urn:xmpp:csi:0'/>");
            }
            let senders: Vec<_> = (0..3).map(|n| world.client("juliet", &n.to_string())).collect();
            for id in 0..COUNT {
                let stanza = match kind {
                    "carbon" => format!(
                        "<message to='romeo@example.com/other' type='chat' id='{id}'><body>x</body></message>"
                    ),
                    "iq" => format!(
                        "<iq type='get' to='romeo@example.com/x' id='{id}'><x xmlns='urn:x'/></iq>"
                    ),
                    "push" => String::new(),
                    "csi" => format!(
                        "<presence to='romeo@example.com/x' id='{id}'/><message to='romeo@example.com/x' type='chat' id='{id}'><body>x</body></message>"
                    ),
                    type_ => format!(
                        "<message to='romeo@example.com/x' type='{type_}' id='{id}'><body>x</body></message>"
                    ),
                };
                if kind == "push" {
                    other.send(&format!("<iq type='set' id='s'><query xmlns='jabber:iq:roster'><item jid='c{id}@example.com'/></query></iq>"));
                } else {
                    senders[id % 3].send(&stanza);
                }
            }
            if kind == "csi" {
                romeo.client.send("<active xmlns='urn:xmpp:csi:0'/>");
            }
            let got = romeo.all(&world);
            assert_eq!(senders.iter().flat_map(Client::received).count(), 0, "{kind}: errors");
            let ids = match kind {
                "push" => got
                    .iter()
                    .filter(|one| one.contains("<item "))
                    .enumerate()
                    .map(|(n, one)| {
                        assert!(one.contains(&format!("'c{n}@")), "{one}");
                        n
                    })
                    .collect(),
                "carbon" => numbers(
                    &got.iter()
                        .filter_map(|one| Some(one.split_once("<forwarded")?.1.to_owned()))
                        .collect::<Vec<_>>(),
                ),
                "csi" => numbers(
                    &got.iter()
                        .filter(|one| one.starts_with("<message"))
                        .cloned()
                        .collect::<Vec<_>>(),
                ),
                _ => numbers(&got),
            };
            assert_eq!(ids, (0..COUNT).collect::<Vec<_>>(), "{kind}, {retained}");
        }
    }
}

/// A client that comes, and is told at its own pace, gets what others send meanwhile behind it.
#[test]
fn limit_13_what_comes_meanwhile_is_behind_what_waits() {
    let world = world(|_| {});
    let juliet = world.client("juliet", "x");
    world.account("romeo");
    let chat = |to: &str, id: usize| {
        format!(
            "<message to='romeo@example.com{to}' type='chat' id='{id}'><body>x</body></message>"
        )
    };
    (0..40).for_each(|id| juliet.send(&chat("", id)));
    let mut romeo = Slow::new(&world, "romeo", "x", 3, false);
    romeo.client.send("<presence/>");
    (40..80).for_each(|id| juliet.send(&chat(if id % 2 == 0 { "" } else { "/x" }, id)));
    assert_eq!(numbers(&romeo.all(&world)), (0..80).collect::<Vec<_>>());
}

/// A session that ends with much waiting for it leaves it, in order, and its client is told why.
#[test]
fn destroy_12_what_the_client_has_not_taken_is_routed_again_and_the_end_is_told() {
    let world = world(|_| {});
    let juliet = world.client("juliet", "x");
    let mut romeo = Slow::new(&world, "romeo", "x", 3, false);
    romeo.client.send("<presence/>");
    let _before = romeo.all(&world);
    let body = "x".repeat(1000);
    let chat = |id: usize| {
        format!(
            "<message to='romeo@example.com' type='chat' id='{id}'><body>{body}</body></message>"
        )
    };
    (0..80).for_each(|id| juliet.send(&chat(id)));
    let written = numbers(&romeo.client.received());
    romeo.client.recorder().refuse(None);
    romeo.left.store(100, Ordering::SeqCst);
    romeo.client.send("</stream:stream>");
    assert_eq!(romeo.client.received(), ["</stream:stream>"]);
    let next = world.client("romeo", "y");
    let stored = numbers(&next.ask("<presence/>"));
    assert_eq!([written, stored].concat(), (0..80).collect::<Vec<_>>());
}

/// Of presence that waits the latest of each full JID is enough, and nothing else moves.
#[test]
fn pres_21_of_presence_that_waits_the_latest_is_enough() {
    for retained in [false, true] {
        let world = world(|_| {});
        world.friends("romeo", "juliet");
        let mut romeo = Slow::new(&world, "romeo", "x", 3, retained);
        romeo.client.send("<presence/>");
        let _before = romeo.all(&world);
        let juliets = ["a", "b"].map(|resource| world.client("juliet", resource));
        let status = "x".repeat(20_000);
        for id in 0..200 {
            let juliet = &juliets[id % 2];
            juliet.send(&format!("<presence id='{id}'><status>{status}</status></presence>"));
            if id % 50 == 0 {
                let chat = format!("<message to='romeo@example.com/x' id='{id}'/>");
                juliet.send(&chat);
            }
            assert!(bytes_waiting(&world) < 400_000, "{}", bytes_waiting(&world));
        }
        juliets[1].send("<presence type='unavailable'/>");
        let got = romeo.all(&world);
        let ids = |name: &str| {
            numbers(&got.iter().filter(|one| one.starts_with(name)).cloned().collect::<Vec<_>>())
        };
        assert_eq!(ids("<message"), [0, 50, 100, 150]);
        let (presence, in_order) = (ids("<presence"), ids("<presence").is_sorted());
        assert!(in_order && presence.len() < 40 && presence.contains(&198), "{presence:?}");
        let last = got.iter().rfind(|one| one.contains("juliet@example.com/b")).unwrap();
        assert!(last.contains("type='unavailable'"));
    }
}

/// Presence of a room counts each time: who left and came as somebody else is two news.
#[test]
fn pres_21_the_presence_of_a_room_is_not_condensed() {
    let world = world(|_| {});
    let mut romeo = Slow::new(&world, "romeo", "x", 3, false);
    let status = "x".repeat(20_000);
    for id in 0..50 {
        let stanza = xmpp_session::stanza::canonicalise(
            format!(
                "<presence from='room@muc.example/nick' to='romeo@example.com/x' id='{id}'>\
                 <status>{status}</status></presence>"
            )
            .as_bytes(),
        );
        world.server().send(stanza.unwrap());
    }
    assert_eq!(numbers(&romeo.all(&world)), (0..50).collect::<Vec<_>>());
}

/// Who writes to a client that is far behind is slowed down, and nobody else is.
#[test]
fn limit_13_senders_of_a_client_that_is_far_behind_slow_down() {
    let world = world(|limits| limits.retention.bytes = 40_000);
    let (juliet, nurse) = (world.client("juliet", "x"), world.client("nurse", "x"));
    let mut romeo = Slow::new(&world, "romeo", "x", 1, false);
    let chat =
        format!("<message to='romeo@example.com/x'><body>{}</body></message>", "x".repeat(1000));
    juliet.send(&chat.repeat(30));
    assert_eq!(juliet.want(), None);
    let queued = bytes_waiting(&world);
    assert!((10_000..13_000).contains(&queued), "{queued}");
    nurse.send("<message to='juliet@example.com/x'/>");
    assert_eq!((nurse.want(), juliet.received().len()), (Some(Want::Input), 1));
    world.advance(SECOND);
    let more = bytes_waiting(&world) - queued;
    assert!((4000..6000).contains(&more), "one in a quarter of a second: {more}");
    assert_eq!(romeo.all(&world).len(), 30, "as soon as it reads");
    assert_eq!(juliet.want(), Some(Want::Input));
}

/// An attacker that uses all of it: sessions that do not read, in numbers, and everything that can be sent
/// to them by sessions in numbers.
#[test]
fn limit_10_what_all_attackers_together_can_make_wait_is_bounded() {
    const LIMIT: usize = 40_000;
    const STANZA: usize = 2000;
    let world = world(|limits| {
        limits.retention.bytes = LIMIT;
        limits.retention.all_bytes = usize::MAX;
        limits.iq_needs_presence = false;
        limits.roster.items = 5000;
        limits.stream = limits.stream.clone();
    });
    world.friends("romeo", "juliet");
    world.roster("romeo", "tybalt@example.com", Subscription::None);
    let victims: Vec<_> = (0..6)
        .map(|n| {
            let victim = Slow::new(&world, "romeo", &n.to_string(), 4, n % 2 == 0);
            victim.client.send(
                "<presence/><iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>\
                 <iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>",
            );
            victim
        })
        .collect();
    let senders: Vec<_> = (0..6)
        .map(|n| world.online(if n % 2 == 0 { "juliet" } else { "tybalt" }, &n.to_string()))
        .collect();
    let junk = "x".repeat(STANZA - 200);
    let mut most = 0;
    for round in 0..300 {
        for (n, sender) in senders.iter().enumerate() {
            let to = format!("romeo@example.com/{}", (n + round) % 6);
            let mut all = String::new();
            let _written = write!(
                all,
                "<message to='romeo@example.com' type='chat' id='{round}'><body>{junk}</body></message>\
                 <message to='romeo@example.com' type='headline'><body>{junk}</body></message>\
                 <message to='{to}' type='groupchat'><body>{junk}</body></message>\
                 <iq type='get' to='{to}' id='{round}'><x xmlns='urn:x'>{junk}</x></iq>\
                 <iq type='result' to='{to}' id='{round}'><x xmlns='urn:x'>{junk}</x></iq>\
                 <presence to='{to}'><status>{junk}</status></presence>\
                 <presence to='{to}' type='unavailable'><status>{junk}</status></presence>\
                 <presence><status>{junk}</status></presence>"
            );
            sender.send(&all);
            let _errors = sender.received();
        }
        // And itself.
        let victim = &victims[round % 6].client;
        victim.send(&format!(
            "<iq type='set' id='s'><query xmlns='jabber:iq:roster'><item jid='c{round}@example.com' \
             name='{}'/></query></iq><message><body>{junk}</body></message>",
            "n".repeat(1000)
        ));
        world.advance(Duration::from_millis(250));
        most = most.max(bytes_waiting(&world));
    }
    // Twice the limit and one stanza each; and the presence of each sender, which is kept anyway.
    let bound = victims.len() * (2 * LIMIT + STANZA + 4 * STANZA * senders.len());
    assert!(most > LIMIT && most < bound, "{most} of {bound}");
}

/// A client that reads, and acknowledges one stanza at a time, late.
struct Miser {
    client: Client,
    got: Vec<String>,
    handled: u32,
}

impl Miser {
    fn new(world: &World, node: &str) -> Self {
        let client = world.client(node, "x");
        client.send(ENABLE);
        let _enabled = client.received();
        Self { client, got: Vec::new(), handled: 0 }
    }

    fn read(&mut self) {
        self.client.recorder().drained();
        self.got.extend(self.client.received().into_iter().filter(|one| one != R));
    }

    fn acknowledge(&mut self, handled: usize) {
        self.handled = u32::try_from(handled).unwrap();
        self.client.send(&format!("<a xmlns='urn:xmpp:sm:3' h='{}'/>", self.handled));
    }

    /// Acknowledges all that comes until nothing more does.
    fn rest(&mut self, world: &World) {
        for _ in 0..30 {
            self.read();
            self.acknowledge(self.got.len());
            world.advance(SECOND);
        }
    }
}

/// What the store has waits there while as much of it as may is not acknowledged, in its order.
#[test]
fn limit_10_the_store_gives_no_more_while_too_much_of_it_is_unacknowledged() {
    const LIMIT: usize = 35_000;
    let world = world(|limits| limits.retention.bytes = LIMIT);
    let juliet = world.client("juliet", "x");
    let mut romeo = Miser::new(&world, "romeo");
    let body = "x".repeat(2000);
    let (mut most, mut sent) = (0, 0);
    for round in 0..40 {
        romeo.client.send("<presence/>");
        romeo.read();
        romeo.client.send("<presence type='unavailable'/>");
        for _ in 0..10 {
            juliet.send(&format!(
                "<message to='romeo@example.com' type='chat' id='{sent}'><body>{body}</body></message>"
            ));
            sent += 1;
        }
        romeo.read();
        if round % 8 == 0 {
            romeo.acknowledge(round / 8 + 1);
        }
        world.advance(SECOND);
        most = most.max(bytes_waiting(&world));
    }
    assert_eq!(juliet.received(), Vec::<String>::new(), "the store has taken all");
    assert!(most > LIMIT && most < LIMIT + 10 * 2200, "{most}");
    romeo.client.send("<presence/>");
    romeo.rest(&world);
    assert_eq!(numbers(&romeo.got), (0..sent).collect::<Vec<_>>());
    assert!(romeo.client.is_connected());
}

/// Stored requests come with each initial presence: a client that makes them come, and acknowledges none,
/// has to come back.
#[test]
fn limit_10_requests_are_not_given_again_and_again() {
    const LIMIT: usize = 40_000;
    let world = world(|limits| limits.retention.bytes = LIMIT);
    world.account("romeo");
    let status = "x".repeat(2000);
    for n in 0..10 {
        world.client(&format!("s{n}"), "x").send(&format!(
            "<presence type='subscribe' to='romeo@example.com'><status>{status}</status></presence>"
        ));
    }
    let mut romeo = Miser::new(&world, "romeo");
    let mut most = 0;
    for round in 0..40 {
        romeo.client.send("<presence/><presence type='unavailable'/>");
        romeo.read();
        if round % 8 == 0 && romeo.client.is_connected() {
            romeo.acknowledge(round / 8 + 1);
        }
        world.advance(SECOND);
        most = most.max(bytes_waiting(&world));
    }
    assert!(most > LIMIT && most < LIMIT + 10 * 2500, "{most}");
    assert!(!romeo.client.is_connected());
    let sessions = world.each();
    let romeos = sessions.filter(|session| session.jid().node().unwrap().as_str() == "romeo");
    assert_eq!(romeos.count(), 1, "it may come back");
}

/// Presence that a client has read and not acknowledged is not kept once there is a later one.
#[test]
fn limit_10_outdated_presence_that_is_unacknowledged_is_not_kept() {
    const LIMIT: usize = 40_000;
    let world = world(|limits| limits.retention.bytes = LIMIT);
    world.friends("romeo", "juliet");
    let mut romeo = Miser::new(&world, "romeo");
    romeo.client.send("<presence/>");
    let juliets = ["a", "b"].map(|resource| world.client("juliet", resource));
    let status = "x".repeat(20_000);
    let mut most = 0;
    for id in 0..200 {
        let juliet = &juliets[id % 2];
        juliet.send(&format!("<presence id='{id}'><status>{status}</status></presence>"));
        if id % 50 == 0 {
            juliet.send(&format!("<message to='romeo@example.com/x' id='{id}'/>"));
        }
        romeo.read();
        if id % 50 == 0 {
            romeo.acknowledge(id / 50 + 1);
        }
        world.advance(SECOND);
        most = most.max(bytes_waiting(&world));
    }
    assert!(most < 400_000, "{most}");
    // It was given everything, and after a resumption gets what still counts.
    assert_eq!(numbers(&romeo.got).len(), 204);
    romeo.acknowledge(10);
    assert!(romeo.client.is_connected());
}

/// Who is slowed down, or waits for a store, is heard before it is said not to have answered.
#[test]
fn sm_24_an_answer_that_is_not_read_yet_is_waited_for() {
    for is_paced in [false, true] {
        let world = world(|limits| {
            limits.retention.bytes = 150_000;
            if is_paced {
                limits.retention.bytes = 4_000_000;
                limits.stanzas = Some(Rate::new(4, SECOND, 10));
            }
        });
        let nurse = world.client("nurse", "x");
        let juliet = world.client("juliet", "x");
        juliet.send(ENABLE);
        let mut romeo = Slow::new(&world, "romeo", "x", 1, false);
        romeo.client.send("<presence/>");
        let chat =
            format!("<message to='romeo@example.com/x'><body>{}</body></message>", "x".repeat(100));
        nurse.send(&"<message to='juliet@example.com/x'/>".repeat(6));
        juliet.recorder().drained();
        // She answers, behind much that she has to say.
        juliet.send(&(chat.repeat(600) + "<a xmlns='urn:xmpp:sm:3' h='6'/>"));
        for _ in 0..200 {
            world.advance(SECOND);
            let _some = romeo.step();
        }
        assert!(juliet.is_connected(), "{is_paced}");
        assert_eq!(juliet.session().info().bytes_waiting, 0);
    }
}

/// A client that has nothing to say is not asked for a sign of life, and not given up, while it takes
/// what waits for it.
#[test]
fn limit_22_who_takes_what_waits_is_not_silent() {
    let world = world(|limits| {
        limits.silence = 300 * SECOND;
        limits.answer = 10 * SECOND;
    });
    let juliet = world.client("juliet", "x");
    let mut romeo = Slow::new(&world, "romeo", "x", 1, false);
    let chat = |id| format!("<message to='romeo@example.com/x' id='{id}'/>");
    juliet.send(&(0..400).map(chat).collect::<String>());
    for _ in 0..400 {
        world.advance(SECOND);
        let _some = romeo.step();
        juliet.send(" ");
    }
    assert!(romeo.client.is_connected());
    for _ in 0..30 {
        world.advance(SECOND);
        let _ping = romeo.step();
    }
    assert!(!romeo.client.is_connected(), "with nothing to take it has to answer");
}

/// A client that has fallen behind is not given up for others who say again and again that they are gone.
#[test]
fn limit_10_nobody_is_given_up_for_an_end_that_is_told_again() {
    let world = world(|limits| limits.retention.live_stanzas = 1000);
    let juliets = ["a", "b"].map(|resource| world.client("juliet", resource));
    let mut romeo = Slow::new(&world, "romeo", "x", 1, false);
    let mut say = |what: &str, times: usize| {
        for id in 0..times {
            for juliet in &juliets {
                juliet.send(what);
            }
            world.advance(SECOND / 4);
            if id % 100 == 0 {
                let _some = romeo.step();
            }
        }
        romeo.client.is_connected()
    };
    let body = "x".repeat(500);
    assert!(say(&format!("<message to='romeo@example.com/x'><body>{body}</body></message>"), 600));
    assert!(juliets[0].received().iter().any(|one| one.contains("<resource-constraint ")), "full");
    assert!(say("<presence to='romeo@example.com/x' type='unavailable'/>", 1200));
}
