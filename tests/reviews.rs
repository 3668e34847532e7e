//! Extensions that review messages, and are told what becomes of them (HOOK-1…9).

use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::common::wire;
use wire::{Client, Elsewhere, World};
use xmpp_session::connection::Recorder;
use xmpp_session::extension::{
    Delivery, Extension, Outcome, Passage, Passing, Review, ServerHandle, Wants, Way,
};
use xmpp_session::minidom::Element;
use xmpp_session::server::Limits;
use xmpp_session::session::{Event, EventKind};
use xmpp_session::stanza::{Condition, Stanza, canonicalise};
use xmpp_session::store::Stores;
use xmpp_session::xep::{Blocking, Carbons, StreamManagement};

const SID: &str = "urn:xmpp:sid:0";
const ENABLE: &str = "<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>";
const RETAIN: &str = "<enable xmlns='urn:xmpp:sm:3' resume='true'/>";

/// How the next reviews end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// At once.
    Now,
    /// When they are let go.
    Wait,
    Panic,
    PanicLater,
    Refuse,
    Take,
    Change,
}

/// Reviews messages: notes each, and marks it with an id in the account's name.
#[derive(Clone)]
struct Notary(Arc<Notes>);

struct Notes {
    mode: Mutex<Mode>,
    wakers: Mutex<Vec<Waker>>,
    log: Mutex<Vec<String>>,
    outcomes: Mutex<Vec<(String, Outcome)>>,
    next: AtomicUsize,
}

fn body(stanza: &Stanza) -> String {
    stanza
        .children()
        .find(|child| child.name() == "body")
        .map_or_else(String::new, |child| child.text().into())
}

impl Notary {
    fn new() -> Self {
        Self(Arc::new(Notes {
            mode: Mutex::new(Mode::Now),
            wakers: Mutex::default(),
            log: Mutex::default(),
            outcomes: Mutex::default(),
            next: AtomicUsize::new(1),
        }))
    }

    fn set(&self, world: &World, mode: Mode) {
        *self.0.mode.lock().unwrap() = mode;
        let wakers = std::mem::take(&mut *self.0.wakers.lock().unwrap());
        wakers.into_iter().for_each(Waker::wake);
        world.settle();
    }

    fn log(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.log.lock().unwrap())
    }

    fn outcomes(&self) -> Vec<(String, Outcome)> {
        std::mem::take(&mut *self.0.outcomes.lock().unwrap())
    }

    fn times(&self, outcome: Outcome) -> usize {
        self.outcomes().iter().filter(|(_, other)| *other == outcome).count()
    }
}

impl Extension<Recorder> for Notary {
    fn wants(&self) -> Wants {
        Wants::MESSAGES.and(Wants::OUTCOMES)
    }

    fn review(&self, message: &Passing<'_, Recorder>) -> Review {
        let way = if message.way() == Way::Sent { "out" } else { "in" };
        let account = message.account().jid().to_string();
        let node = account.split('@').next().unwrap_or_default();
        self.0.log.lock().unwrap().push(format!("{node} {way} {}", body(message.stanza())));
        let id = self.0.next.fetch_add(1, Ordering::Relaxed).to_string();
        let mark = format!("<stanza-id xmlns='{SID}' by='{account}' id='{node}-{id}'/>");
        let mark: Element = mark.parse().unwrap();
        let passage = Passage::Mark(vec![mark]);
        let mode = *self.0.mode.lock().unwrap();
        match mode {
            Mode::Now => passage.into(),
            Mode::Panic => panic!("in the host"),
            Mode::PanicLater => Review::later(async { panic!("in the host") }),
            Mode::Refuse => Passage::Refuse(Condition::NotAllowed.into()).into(),
            Mode::Take => Passage::Take.into(),
            Mode::Change => {
                let text = Element::builder("body", "jabber:client").append("changed").build();
                let changed = Stanza::message().from("x@y").to("nobody@else").type_("chat");
                Passage::Change(changed.child(&text).build()).into()
            }
            Mode::Wait => {
                let notes = Arc::clone(&self.0);
                let mut passage = Some(passage);
                Review::later(poll_fn(move |cx| {
                    if *notes.mode.lock().unwrap() == Mode::Wait {
                        notes.wakers.lock().unwrap().push(cx.waker().clone());
                        return Poll::Pending;
                    }
                    Poll::Ready(passage.take().unwrap())
                }))
            }
        }
    }

    fn delivered(&self, delivery: &Delivery<'_, Recorder>) {
        let what = (body(delivery.stanza()), delivery.outcome());
        self.0.outcomes.lock().unwrap().push(what);
    }
}

fn world() -> (World, Notary) {
    let (world, notary, _) = world_with(Limits::default());
    (world, notary)
}

fn world_with(limits: Limits) -> (World, Notary, Elsewhere) {
    let (notary, elsewhere, stores) = (Notary::new(), Elsewhere::default(), Stores::memory());
    let blocks = Arc::clone(&stores.blocks);
    let world = World::with_stores(stores, |builder, _| {
        let builder = builder.limits(limits).router(elsewhere.clone());
        let builder = builder.extension(StreamManagement::new()).extension(Blocking::new(blocks));
        builder.extension(Carbons::new()).extension(notary.clone())
    });
    world.account("juliet");
    (world, notary, elsewhere)
}

fn say(from: &Client, to: &str, text: &str) {
    from.send(&chat(to, text));
}

fn chat(to: &str, text: &str) -> String {
    format!("<message to='{to}' type='chat'><body>{text}</body></message>")
}

fn from_afar(world: &World, to: &str, text: &str) {
    let xml = format!(
        "<message from='nurse@example.net/x' to='{to}' type='chat'><body>{text}</body></message>"
    );
    world.server().send(canonicalise(xml.as_bytes()).unwrap());
    world.settle();
}

/// Of each message that a client received: its text, and the ids that it carries with their accounts.
fn got(client: &Client) -> Vec<(String, Vec<String>)> {
    let messages = client.received().into_iter().filter(|one| one.starts_with("<message"));
    messages.map(|one| (text(&one), ids(&one))).collect()
}

fn texts(client: &Client) -> Vec<String> {
    got(client).into_iter().map(|(text, _)| text).collect()
}

fn text(xml: &str) -> String {
    let body = xml.split("<body>").nth(1).and_then(|rest| rest.split('<').next());
    body.unwrap_or_default().to_owned()
}

fn ids(xml: &str) -> Vec<String> {
    let mut ids: Vec<String> = xml
        .split("<stanza-id ")
        .skip(1)
        .map(|tag| {
            let tag = tag.split('>').next().unwrap();
            let of = |name: &str| {
                tag.split(&format!("{name}='")).nth(1).unwrap().split('\'').next().unwrap()
            };
            format!("{} {}", of("by").split('@').next().unwrap(), of("id"))
        })
        .collect();
    ids.sort();
    ids
}

fn marked(client: &Client) -> (String, String) {
    let mut all = got(client);
    assert_eq!(all.len(), 1, "{all:?}");
    let (text, mut ids) = all.remove(0);
    assert_eq!(ids.len(), 1, "{ids:?}");
    (text, ids.remove(0))
}

/// A client that can come back, and the id by which it does.
fn retained(world: &World, node: &str, resource: &str) -> (Client, String) {
    let client = world.client(node, resource);
    let enabled = client.ask(RETAIN).concat();
    let id = enabled.split(" id='").nth(1).unwrap().split('\'').next().unwrap().to_owned();
    client.send("<presence/>");
    client.send("<a xmlns='urn:xmpp:sm:3' h='1'/>");
    let _own = client.received();
    (client, id)
}

fn resume(world: &World, node: &str, id: &str, h: usize) -> Client {
    let client = world.authenticated(node);
    client.send(&format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='{h}'/>"));
    client
}

#[test]
fn hook_1_both_accounts_are_asked_once_and_the_sender_first() {
    let (world, notary, elsewhere) = world_with(Limits::default());
    let romeo = world.online("romeo", "orchard");
    let devices = ["balcony", "chamber", "hall"];
    for online in [0, 1, 3] {
        let clients: Vec<_> =
            devices.iter().take(online).map(|d| world.online("juliet", d)).collect();
        for (to, asked) in [
            ("juliet@example.com", &["romeo out a", "juliet in a"][..]),
            ("juliet@example.com/balcony", &["romeo out a", "juliet in a"]),
            ("romeo@example.com", &["romeo out a"]),
            ("romeo@example.com/orchard", &["romeo out a"]),
            ("nobody@example.com", &["romeo out a"]),
            ("example.com", &["romeo out a"]),
            ("nurse@example.net", &["romeo out a"]),
        ] {
            say(&romeo, to, "a");
            assert_eq!(notary.log(), asked, "{to}, {online} sessions");
        }
        from_afar(&world, "juliet@example.com", "b");
        assert_eq!(notary.log(), ["juliet in b"]);
        from_afar(&world, "nobody@example.com", "b");
        from_afar(&world, "example.com", "b");
        assert!(notary.log().is_empty());
        drop(clients);
        world.settle();
    }
    let routed =
        elsewhere.take().into_iter().filter(|one| one.contains("from='romeo@example.com/orchard'"));
    assert_eq!(routed.count(), 3);
    romeo.send("<message type='chat'><body>to myself</body></message>");
    assert_eq!(notary.log(), ["romeo out to myself"]);
}

#[test]
fn hook_1_what_the_host_sends_in_the_name_of_an_account_counts_as_sent() {
    let (world, notary) = world();
    let juliet = world.online("juliet", "balcony");
    let _known = world.account("bot");
    for (from, asked) in [
        ("bot@example.com", &["bot out x", "juliet in x"][..]),
        ("bot@example.com/1", &["bot out x", "juliet in x"]),
        ("juliet@example.com/balcony", &["juliet out x"]),
        ("nobody@example.com", &["juliet in x"]),
        ("example.com", &["juliet in x"]),
        ("a@example.net", &["juliet in x"]),
    ] {
        let xml = chat("juliet@example.com", "x").replacen(
            "<message",
            &format!("<message from='{from}'"),
            1,
        );
        world.server().send(canonicalise(xml.as_bytes()).unwrap());
        world.settle();
        assert_eq!(notary.log(), asked, "{from}");
        assert_eq!(got(&juliet).last().unwrap().1.len(), 1, "{from}");
    }
}

#[test]
fn hook_1_what_is_not_to_be_delivered_is_not_reviewed_for_its_recipient() {
    let (world, notary) = world();
    let romeo = world.client("romeo", "orchard");
    let both = ["romeo out a", "juliet in a"];
    // Type, resource, is there, whether it is delivered or stored.
    for (type_, resource, online, is_asked) in [
        ("chat", "", false, true),
        ("normal", "", false, true),
        ("groupchat", "", false, false),
        ("headline", "", false, false),
        ("error", "", false, false),
        ("groupchat", "", true, false),
        ("headline", "", true, true),
        ("error", "", true, false),
        ("chat", "/balcony", true, true),
        ("groupchat", "/balcony", true, true),
        ("error", "/balcony", true, true),
        ("headline", "/balcony", true, true),
        ("normal", "/gone", true, false),
        ("groupchat", "/gone", true, false),
        ("headline", "/gone", true, false),
        ("chat", "/gone", true, true),
        ("chat", "/gone", false, true),
        ("normal", "/gone", false, false),
    ] {
        let juliet = online.then(|| world.online("juliet", "balcony"));
        let _before = notary.log();
        romeo.send(&format!(
            "<message to='juliet@example.com{resource}' type='{type_}'><body>a</body></message>"
        ));
        let asked = if is_asked { &both[..] } else { &both[..1] };
        assert_eq!(notary.log(), asked, "{type_} to {resource}, there: {online}");
        if let Some(juliet) = juliet {
            juliet.lose();
        }
    }
}

#[test]
fn hook_1_blocked_senders_are_not_reviewed() {
    let (world, notary) = world();
    let juliet = world.client("juliet", "balcony");
    juliet.send(
        "<iq type='set' id='b'><block xmlns='urn:xmpp:blocking'><item jid='romeo@example.com'/>\
         <item jid='example.net'/></block></iq><presence/>",
    );
    let romeo = world.client("romeo", "orchard");
    for _ in 0..2 {
        say(&romeo, "juliet@example.com", "a");
        from_afar(&world, "juliet@example.com/balcony", "b");
        assert_eq!(notary.log(), ["romeo out a"]);
        // The same without a session.
        juliet.lose();
    }
    assert!(texts(&world.online("juliet", "chamber")).is_empty());
}

#[test]
fn hook_2_what_waits_is_passed_by_no_other_message_of_its_account() {
    let (world, notary) = world();
    let juliet = world.online("juliet", "balcony");
    let [romeo, tybalt] = ["romeo", "tybalt"].map(|node| world.client(node, "x"));
    drop(juliet.received());
    notary.set(&world, Mode::Wait);
    for n in 1..=3 {
        say(&romeo, "juliet@example.com", &format!("r{n}"));
        say(&tybalt, "juliet@example.com/balcony", &format!("t{n}"));
        from_afar(&world, "juliet@example.com", &format!("n{n}"));
    }
    // Back-pressure: of each stream no more than one is under way.
    assert_eq!(notary.log(), ["romeo out r1"]);
    assert!(texts(&juliet).is_empty());
    // Nobody else waits.
    let paris = world.client("paris", "x");
    assert!(
        paris
            .ask("<iq type='get' id='1'><query xmlns='jabber:iq:roster'/></iq>")
            .concat()
            .contains("result")
    );
    notary.set(&world, Mode::Now);
    let heard = texts(&juliet);
    assert_eq!(heard.len(), 9, "{heard:?}");
    for source in ["r", "t", "n"] {
        let of_one: Vec<_> = heard.iter().filter(|text| text.starts_with(source)).collect();
        assert!(of_one.is_sorted(), "{heard:?}");
    }
    let seen = notary
        .log()
        .into_iter()
        .filter_map(|line| Some(line.strip_prefix("juliet in ")?.to_owned()));
    assert_eq!(seen.collect::<Vec<_>>(), heard, "reviewed in the order of delivery");
}

#[test]
fn hook_2_a_stream_waits_for_its_own_message_whatever_comes_next() {
    let (world, notary, elsewhere) = world_with(Limits::default());
    let romeo = world.client("romeo", "x");
    notary.set(&world, Mode::Wait);
    say(&romeo, "a@example.net", "1");
    romeo.send("<iq type='get' id='1' to='b@example.net'><q xmlns='x'/></iq>");
    say(&romeo, "juliet@example.com", "2");
    assert!(elsewhere.take().is_empty());
    notary.set(&world, Mode::Now);
    let routed = elsewhere.take();
    assert!(routed[0].starts_with("<message") && routed[1].starts_with("<iq"), "{routed:?}");
    assert!(ids(&routed[0]).is_empty(), "the sender's id is no business of the recipient");
    assert_eq!(texts(&world.online("juliet", "x")), [] as [&str; 0], "it was given at login");
}

#[test]
fn hook_2_who_logs_in_meanwhile_does_not_wait_and_gets_all_in_order() {
    let (world, notary) = world();
    let romeo = world.client("romeo", "x");
    say(&romeo, "juliet@example.com", "stored");
    notary.set(&world, Mode::Wait);
    from_afar(&world, "juliet@example.com", "1");
    from_afar(&world, "juliet@example.com", "2");
    let juliet = world.client("juliet", "balcony");
    juliet.send("<presence/>");
    assert_eq!(texts(&juliet), ["stored"]);
    juliet.send("<iq type='get' id='1'><query xmlns='jabber:iq:roster'/></iq>");
    assert!(juliet.received().concat().contains("result"));
    notary.set(&world, Mode::Now);
    assert_eq!(texts(&juliet), ["1", "2"]);
}

#[test]
fn hook_2_a_recipient_that_ends_meanwhile_gets_it_from_the_store() {
    for ends in [true, false] {
        let (world, notary) = world();
        let juliet = world.online("juliet", "balcony");
        let romeo = world.client("romeo", "x");
        notary.set(&world, Mode::Wait);
        say(&romeo, "juliet@example.com", "1");
        say(&romeo, "juliet@example.com", "2");
        juliet.lose();
        if ends {
            // The sender as well: what it has sent goes on.
            romeo.lose();
        }
        notary.set(&world, Mode::Now);
        assert!(notary.times(Outcome::Delivered) == 0);
        let again = world.client("juliet", "chamber");
        again.send("<presence/>");
        let expected = if ends { &["1"][..] } else { &["1", "2"] };
        assert_eq!(texts(&again), expected);
    }
}

#[test]
fn hook_2_carbons_come_in_the_order_of_review() {
    let (world, notary) = world();
    let juliet = world.online("juliet", "balcony");
    let [one, two, watch] = ["one", "two", "watch"].map(|r| world.client("romeo", r));
    watch.send(ENABLE);
    drop((watch.received(), juliet.received()));
    notary.set(&world, Mode::Wait);
    say(&one, "juliet@example.com", "1");
    say(&two, "nobody@example.com", "2");
    say(&juliet, "romeo@example.com/one", "3");
    from_afar(&world, "romeo@example.com/two", "4");
    notary.set(&world, Mode::Now);
    let log = notary.log();
    let reviewed: Vec<_> = log.iter().filter(|line| line.starts_with("romeo")).collect();
    let heard = got(&watch);
    assert_eq!(heard.len(), 4);
    for (line, (text, ids)) in reviewed.iter().zip(&heard) {
        assert!(line.ends_with(text.as_str()), "{reviewed:?} {heard:?}");
        assert!(matches!(&ids[..], [id] if id.starts_with("romeo ")), "{ids:?}");
    }
}

#[test]
fn hook_3_a_mark_is_the_same_wherever_its_account_sees_the_message() {
    let (world, notary) = world();
    let romeo = world.client("romeo", "x");
    let own = world.client("romeo", "copy");
    own.send(ENABLE);
    let [juliet, copy] = ["balcony", "chamber"].map(|r| world.client("juliet", r));
    copy.send(ENABLE);
    juliet.send("<presence/>");
    [&own, &juliet, &copy].iter().for_each(|client| drop(client.received()));
    // Live, and copies.
    say(&romeo, "juliet@example.com", "live");
    let live = marked(&juliet);
    assert!(live.1.starts_with("juliet "));
    assert_eq!(marked(&copy), live);
    assert!(marked(&own).1.starts_with("romeo "));
    juliet.lose();
    copy.lose();
    // Stored, then left unacknowledged, then resumed, left again, stored again.
    say(&romeo, "juliet@example.com", "stored");
    let (phone, id) = retained(&world, "juliet", "phone");
    let _log = notary.log();
    phone.lose();
    let phone = resume(&world, "juliet", &id, 1);
    let first = marked(&phone);
    assert_eq!(first.0, "stored");
    phone.lose();
    say(&romeo, "juliet@example.com", "hibernating");
    world.advance(Duration::from_secs(700));
    let last = world.client("juliet", "last");
    last.send("<presence/>");
    let all = got(&last);
    assert_eq!(all.iter().map(|(text, _)| &**text).collect::<Vec<_>>(), ["stored", "hibernating"]);
    assert_eq!(all[0].1, [first.1]);
    assert_eq!(
        notary.log(),
        ["romeo out hibernating", "juliet in hibernating"],
        "not reviewed again"
    );
}

#[test]
fn hook_3_stz_14_nobody_else_marks_in_the_name_of_an_account() {
    let (world, _, elsewhere) = world_with(Limits::default());
    let juliet = world.online("juliet", "balcony");
    let romeo = world.client("romeo", "x");
    let forged = |by: &str| format!("<stanza-id xmlns='urn:xmpp:sid:0' by='{by}' id='forged'/>");
    let all = [
        "juliet@example.com",
        "JULIET@example.com.",
        "juliet@example.com/x",
        "romeo@example.com",
        "example.com",
        "room@muc.example.net",
    ]
    .map(forged)
    .concat();
    romeo.send(&chat("juliet@example.com", "a").replace("</body>", &format!("</body>{all}")));
    let xml = chat("juliet@example.com", "b").replace("</body>", &format!("</body>{all}"));
    for from in ["nurse@example.net", "bot@example.com"] {
        let xml = xml.replacen("<message", &format!("<message from='{from}'"), 1);
        world.server().send(canonicalise(xml.as_bytes()).unwrap());
    }
    for (text, ids) in got(&juliet) {
        let mine: Vec<_> = ids.iter().filter(|id| id.starts_with("juliet ")).collect();
        assert!(matches!(&mine[..], [id] if !id.ends_with("forged")), "{text}: {ids:?}");
        assert!(ids.contains(&"room forged".to_owned()), "{text}: {ids:?}");
    }
    romeo.send(&chat("nurse@example.net", "a").replace("</body>", &format!("</body>{all}")));
    assert_eq!(ids(&elsewhere.take().concat()), ["room forged"]);
}

#[test]
fn hook_4_a_review_that_fails_or_takes_too_long_ends_its_message_and_nothing_else() {
    for mode in [Mode::Panic, Mode::PanicLater, Mode::Wait] {
        let (world, notary) = world();
        let juliet = world.online("juliet", "balcony");
        let romeo = world.client("romeo", "x");
        drop(juliet.received());
        notary.set(&world, mode);
        romeo.send(&chat("juliet@example.com", "1").replacen("<message", "<message id='m'", 1));
        from_afar(&world, "juliet@example.com", "2");
        let condition = if mode == Mode::Wait {
            assert!(romeo.received().is_empty());
            world.advance(Duration::from_secs(9));
            assert!(romeo.received().is_empty());
            world.advance(Duration::from_secs(30));
            "resource-constraint"
        } else {
            "internal-server-error"
        };
        let answer = romeo.received().concat();
        assert!(answer.contains(condition) && answer.contains("id='m'"), "{mode:?}: {answer}");
        assert!(texts(&juliet).is_empty(), "{mode:?}");
        notary.set(&world, Mode::Now);
        say(&romeo, "juliet@example.com", "3");
        assert_eq!(texts(&juliet), ["3"], "{mode:?}");
        assert!(romeo.is_connected() && romeo.received().is_empty());
    }
}

#[test]
fn hook_4_who_waits_too_long_for_the_reviews_of_others_is_told() {
    let (world, notary) = world();
    let juliet = world.online("juliet", "balcony");
    let romeo = world.client("romeo", "x");
    drop(juliet.received());
    notary.set(&world, Mode::Wait);
    for n in 0..100 {
        from_afar(&world, "juliet@example.com", &n.to_string());
    }
    romeo.send(&chat("juliet@example.com", "1").replacen("<message", "<message id='m'", 1));
    for _ in 0..6 {
        world.advance(Duration::from_secs(10));
        world.settle();
    }
    let answer = romeo.received().concat();
    assert!(answer.contains("resource-constraint") && answer.contains("id='m'"), "{answer}");
    notary.set(&world, Mode::Now);
    say(&romeo, "juliet@example.com", "2");
    assert_eq!(texts(&juliet), ["2"]);
}

#[test]
fn hook_5_what_sessions_leave_behind_counts_for_their_account() {
    let mut limits = Limits::default();
    limits.retention.stanzas = 5;
    let (world, notary, _elsewhere) = world_with(limits);
    let juliet = world.online("juliet", "balcony");
    drop(juliet.received());
    notary.set(&world, Mode::Wait);
    for n in 0..7 {
        let romeo = world.client("romeo", &format!("x{n}"));
        say(&romeo, "juliet@example.com", &n.to_string());
        let answer = romeo.received().concat();
        assert_eq!(answer.contains("resource-constraint"), n >= 5, "{n}: {answer}");
    }
    notary.set(&world, Mode::Now);
    assert_eq!(texts(&juliet), ["0", "1", "2", "3", "4"]);
}

#[test]
fn hook_5_no_more_waits_than_for_a_session_without_a_client() {
    let mut limits = Limits::default();
    limits.retention.stanzas = 5;
    let (world, notary, elsewhere) = world_with(limits);
    let juliet = world.online("juliet", "balcony");
    drop(juliet.received());
    notary.set(&world, Mode::Wait);
    for n in 0..8 {
        from_afar(&world, "juliet@example.com", &n.to_string());
    }
    let refused = elsewhere.take();
    assert_eq!(refused.len(), 3);
    assert!(refused.iter().all(|error| error.contains("resource-constraint")), "{refused:?}");
    notary.set(&world, Mode::Now);
    assert_eq!(texts(&juliet), ["0", "1", "2", "3", "4"]);
    from_afar(&world, "juliet@example.com", "later");
    assert_eq!(texts(&juliet), ["later"]);
}

#[test]
fn hook_6_a_message_is_changed_refused_or_taken() {
    let (world, notary) = world();
    let juliet = world.online("juliet", "balcony");
    let romeo = world.client("romeo", "x");
    drop(juliet.received());
    notary.set(&world, Mode::Change);
    say(&romeo, "juliet@example.com", "said");
    let heard = juliet.received().concat();
    assert!(
        heard.starts_with("<message from='romeo@example.com/x' to='juliet@example.com'"),
        "{heard}"
    );
    assert!(heard.contains("<body>changed<") && !heard.contains("said"), "{heard}");
    assert_eq!(notary.log(), ["romeo out said", "juliet in changed"]);
    notary.set(&world, Mode::Take);
    say(&romeo, "juliet@example.com", "taken");
    assert!(romeo.received().is_empty() && juliet.received().is_empty());
    notary.set(&world, Mode::Refuse);
    let error = romeo.ask(&chat("juliet@example.com", "refused")).concat();
    assert!(error.contains("<not-allowed ") && juliet.received().is_empty(), "{error}");
    // Nor has another device of the sender a copy of what was not sent.
    let copies = world.client("romeo", "copies");
    copies.send(ENABLE);
    let _result = copies.received();
    assert!(!notary.outcomes().iter().any(|(text, _)| text == "taken" || text == "refused"));
    for mode in [Mode::Refuse, Mode::Take, Mode::Panic] {
        notary.set(&world, mode);
        say(&romeo, "juliet@example.com", "not sent");
        assert!(copies.received().is_empty(), "{mode:?}");
    }
    notary.set(&world, Mode::Refuse);
    let _errors = romeo.received();
    // STZ-7
    romeo.send("<message to='juliet@example.com/balcony' type='error'/>");
    assert!(romeo.received().is_empty() && juliet.received().is_empty());
}

#[test]
fn hook_7_a_message_is_said_to_wait_once_and_only_if_nobody_is_there_to_get_it() {
    let (world, notary) = world();
    let romeo = world.client("romeo", "x");
    // Stored; not again when it is got, left, and stored again.
    say(&romeo, "juliet@example.com", "stored");
    assert_eq!(notary.times(Outcome::Waiting), 1);
    let (phone, _) = retained(&world, "juliet", "phone");
    phone.lose();
    world.advance(Duration::from_secs(700));
    let all = notary.outcomes();
    assert!(!all.iter().any(|(_, outcome)| *outcome == Outcome::Waiting), "{all:?}");
    assert!(all.iter().any(|(_, outcome)| *outcome == Outcome::Rerouted), "HOOK-8: {all:?}");
    let (phone, id) = retained(&world, "juliet", "phone");
    phone.send("<a xmlns='urn:xmpp:sm:3' h='2'/>");
    // To a client that is there: not as long as that is so.
    say(&romeo, "juliet@example.com", "unacknowledged");
    say(&romeo, "juliet@example.com/phone", "acknowledged");
    assert_eq!(notary.times(Outcome::Waiting), 0);
    phone.send("<a xmlns='urn:xmpp:sm:3' h='3'/>");
    phone.lose();
    assert_eq!(notary.outcomes(), [("acknowledged".to_owned(), Outcome::Waiting)], "by its number");
    // To one that is gone.
    say(&romeo, "juliet@example.com", "gone");
    assert_eq!(notary.times(Outcome::Waiting), 1);
    // It comes back, and is gone again.
    let phone = resume(&world, "juliet", &id, 4);
    phone.lose();
    world.advance(Duration::from_secs(700));
    assert_eq!(notary.times(Outcome::Waiting), 0);
}

#[test]
fn hook_8_what_is_routed_again_is_told_with_where_it_is_now() {
    let (world, notary) = world();
    let romeo = world.client("romeo", "x");
    let (phone, _) = retained(&world, "juliet", "phone");
    say(&romeo, "juliet@example.com", "a");
    phone.lose();
    let _desk = world.online("juliet", "desk");
    assert_eq!(notary.times(Outcome::Rerouted), 0);
    world.advance(Duration::from_secs(700));
    assert_eq!(notary.outcomes(), [("a".to_owned(), Outcome::Rerouted)]);
    // To nobody: into the store.
    let (phone, _) = retained(&world, "romeo", "phone");
    from_afar(&world, "romeo@example.com", "b");
    let _before = notary.outcomes();
    phone.send("</stream:stream>");
    romeo.send("</stream:stream>");
    assert_eq!(
        notary.outcomes(),
        [("b".to_owned(), Outcome::Rerouted), ("b".to_owned(), Outcome::Waiting)]
    );
}

/// Wants nothing, and would be seen if it were asked.
#[derive(Clone, Default)]
struct Idle(Arc<Mutex<Vec<Outcome>>>);

impl Extension<Recorder> for Idle {
    fn review(&self, _: &Passing<'_, Recorder>) -> Review {
        Passage::Take.into()
    }

    fn session(&self, _: &Event<Recorder>, _: &ServerHandle<Recorder>) {
        self.0.lock().unwrap().push(Outcome::Refused);
    }

    fn delivered(&self, delivery: &Delivery<'_, Recorder>) {
        self.0.lock().unwrap().push(delivery.outcome());
    }
}

#[test]
fn hook_8_who_wants_nothing_is_told_what_it_was_before() {
    let idle = Idle::default();
    let world = World::with(|builder, _| {
        let builder = builder.extension(StreamManagement::new()).extension(Watch::default());
        builder.extension(Notary::new()).extension(idle.clone())
    });
    let romeo = world.client("romeo", "x");
    let (phone, _) = retained(&world, "juliet", "phone");
    say(&romeo, "juliet@example.com", "a");
    phone.lose();
    world.advance(Duration::from_secs(700));
    assert_eq!(*idle.0.lock().unwrap(), [Outcome::Delivered]);
}

#[test]
fn hook_7_a_copy_that_a_client_has_is_enough() {
    let (world, notary) = world();
    let romeo = world.client("romeo", "x");
    let (phone, _) = retained(&world, "juliet", "phone");
    phone.lose();
    let desk = world.client("juliet", "desk");
    desk.send(&format!("{ENABLE}<presence/>"));
    drop(desk.received());
    for to in ["juliet@example.com", "juliet@example.com/phone"] {
        say(&romeo, to, "a");
        assert_eq!(notary.times(Outcome::Waiting), 0, "{to}");
        assert_eq!(texts(&desk), ["a"]);
    }
    // Without a copy nobody has it who is there.
    desk.send("<iq type='set' id='d'><disable xmlns='urn:xmpp:carbons:2'/></iq>");
    say(&romeo, "juliet@example.com/phone", "b");
    assert_eq!(notary.times(Outcome::Waiting), 1);
    desk.lose();
    world.advance(Duration::from_secs(700));
    assert_eq!(notary.times(Outcome::Waiting), 0, "what the desk had was written");
}

#[test]
fn hook_7_of_several_clients_the_last_one_that_is_lost_counts() {
    let (world, notary) = world();
    let romeo = world.client("romeo", "x");
    let (phone, _) = retained(&world, "juliet", "phone");
    let (desk, id) = retained(&world, "juliet", "desk");
    phone.send("<a xmlns='urn:xmpp:sm:3' h='9'/>");
    say(&romeo, "juliet@example.com", "both");
    phone.lose();
    assert_eq!(notary.times(Outcome::Waiting), 0);
    desk.lose();
    assert_eq!(notary.times(Outcome::Waiting), 1);
    let desk = resume(&world, "juliet", &id, 0);
    desk.lose();
    world.advance(Duration::from_secs(700));
    let all = notary.outcomes();
    assert!(!all.iter().any(|(_, outcome)| *outcome == Outcome::Waiting), "{all:?}");
    let again = world.client("juliet", "x");
    again.send("<presence/>");
    assert_eq!(texts(&again), ["both"]);
}

#[test]
fn hook_7_who_takes_the_resource_of_a_session_gets_what_it_left() {
    let (world, notary) = world();
    let romeo = world.client("romeo", "x");
    let (phone, _) = retained(&world, "juliet", "phone");
    say(&romeo, "juliet@example.com", "1");
    drop(phone);
    let _before = notary.outcomes();
    // Replaced while it is there: its successor is there as well.
    let phone = world.client("juliet", "phone");
    phone.send("<presence/>");
    assert_eq!(texts(&phone), ["1"]);
    assert_eq!(notary.times(Outcome::Waiting), 0);
}

/// Notes the start, and what happens to sessions.
#[derive(Clone, Default)]
struct Watch(Arc<Mutex<Vec<String>>>);

impl Extension<Recorder> for Watch {
    fn wants(&self) -> Wants {
        Wants::SESSIONS
    }

    fn started(&self, server: &ServerHandle<Recorder>) {
        self.0.lock().unwrap().push("started".into());
        let (log, server) = (Arc::clone(&self.0), server.clone());
        let registry = server.registry().expect("it is there");
        server.clone().spawn(async move {
            drop(registry);
            let ping = Stanza::iq("get").from("example.com").to("nobody@example.com/x").id("p");
            let ping = ping.child(&Element::bare("ping", "urn:xmpp:ping")).build();
            let answer = server.request(ping).await.unwrap();
            log.lock().unwrap().push(format!("asked: {}", answer.type_().unwrap()));
        });
    }

    fn session(&self, event: &Event<Recorder>, server: &ServerHandle<Recorder>) {
        assert!(server.registry().is_some());
        let shown = event.session().available().map(|view| view.priority());
        let kind = match event.kind() {
            EventKind::Ended { .. } => "Ended".to_owned(),
            kind => format!("{kind:?}"),
        };
        self.0.lock().unwrap().push(format!("{} {kind} {shown:?}", event.session().resource()));
    }
}

#[test]
fn hook_9_extensions_are_told_of_the_start_and_of_sessions() {
    let (watch, events) = (Watch::default(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&events);
    let world = World::with(|builder, _| {
        let builder = builder.extension(watch.clone()).extension(StreamManagement::new());
        builder.listener(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
        })
    });
    world.settle();
    assert_eq!(std::mem::take(&mut *watch.0.lock().unwrap()), ["started", "asked: error"]);
    let juliet = world.client("juliet", "x");
    let enabled = juliet.ask(RETAIN).concat();
    let id = enabled.split(" id='").nth(1).unwrap().split('\'').next().unwrap();
    juliet.send("<presence/><presence><priority>3</priority></presence>");
    juliet.lose();
    let juliet = resume(&world, "juliet", id, 0);
    juliet.send("<presence type='unavailable'/></stream:stream>");
    let log = std::mem::take(&mut *watch.0.lock().unwrap());
    assert_eq!(
        log,
        [
            "x Bound None",
            "x BecameAvailable Some(0)",
            "x PresenceChanged Some(3)",
            "x Absent Some(3)",
            "x Resumed Some(3)",
            "x BecameUnavailable None",
            "x Ended None",
        ]
    );
    assert_eq!(events.load(Ordering::Relaxed), log.len(), "the host's listener is told as well");
}

#[test]
fn hook_9_a_handle_keeps_no_server() {
    #[derive(Clone, Default)]
    struct Keeps(Arc<Mutex<Option<ServerHandle<Recorder>>>>);
    impl Extension<Recorder> for Keeps {
        fn started(&self, server: &ServerHandle<Recorder>) {
            *self.0.lock().unwrap() = Some(server.clone());
        }
    }
    let keeps = Keeps::default();
    let world = World::with(|builder, _| builder.extension(keeps.clone()));
    let handle = keeps.0.lock().unwrap().clone().unwrap();
    assert!(handle.registry().is_some());
    drop(world);
    assert!(handle.registry().is_none());
    handle.send(Stanza::message().to("a@example.com").build());
    handle.spawn(async { panic!("nobody is there") });
    assert!(wire::now(handle.request(Stanza::iq("get").build())).is_err());
}
