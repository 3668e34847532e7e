//! The recipes of the cookbook, at work: an archive and a push trigger (HOOK-1…8).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::common::wire;
use wire::{Client, Elsewhere, World};
use xmpp_session::stanza::canonicalise;
use xmpp_session::xep::{Carbons, Disco, StreamManagement};

#[path = "../docs/cookbook/archive.rs"]
#[expect(unreachable_pub, reason = "it is a page of the cookbook")]
mod archive;
#[path = "../docs/cookbook/push.rs"]
#[expect(unreachable_pub, reason = "it is a page of the cookbook")]
mod push;

const ENABLE: &str = "<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>";

fn world() -> (World, Elsewhere) {
    let elsewhere = Elsewhere::default();
    let world = World::with(|builder, environment| {
        let builder = builder.router(elsewhere.clone()).extension(StreamManagement::new());
        let builder =
            builder.extension(Carbons::new()).extension(archive::Archive::new(environment));
        builder.extension(push::Push::new("example.com")).extension(Disco::new())
    });
    world.account("juliet");
    (world, elsewhere)
}

fn say(from: &Client, to: &str, text: &str) {
    from.send(&format!("<message to='{to}' type='chat'><body>{text}</body></message>"));
}

fn from_afar(world: &World, to: &str, text: &str) {
    let xml = format!(
        "<message from='nurse@example.net/x' to='{to}' type='chat'><body>{text}</body></message>"
    );
    world.server().send(canonicalise(xml.as_bytes()).unwrap());
    world.settle();
}

fn between<'a>(xml: &'a str, start: &str, end: &str) -> Option<&'a str> {
    xml.split_once(start)?.1.split_once(end).map(|(part, _)| part)
}

fn body(xml: &str) -> String {
    between(xml, "<body>", "</body>").unwrap_or_default().to_owned()
}

/// Of what a client has received, the texts with the ids that its account's archive gave them.
fn seen(client: &Client, node: &str) -> Vec<(String, u64)> {
    let all = client.received();
    let messages = all.iter().filter(|one| one.starts_with("<message") && one.contains("<body>"));
    let id = |one: &&String| {
        let by = format!("by='{node}@example.com'");
        let tag = one.split("<stanza-id ").skip(1).filter_map(|rest| rest.split('>').next());
        let mut ids =
            tag.filter(|tag| tag.contains(&by)).map(|tag| between(tag, " id='", "'").unwrap());
        let id = ids.next().unwrap_or_else(|| panic!("no id: {one}"));
        assert!(ids.next().is_none(), "one id: {one}");
        (body(one), id.parse().unwrap())
    };
    messages.map(|one| id(&one)).collect()
}

struct Page {
    rows: Vec<(String, u64)>,
    fin: String,
}

/// Asks the archive; `fields` and `rsm` are put into the query.
fn query(client: &Client, fields: &[(&str, &str)], rsm: &str) -> Page {
    let mut form = String::new();
    for (name, value) in [("FORM_TYPE", "urn:xmpp:mam:2")].iter().chain(fields) {
        let values =
            value.split(' ').map(|value| format!("<value>{value}</value>")).collect::<String>();
        write!(form, "<field var='{name}'>{values}</field>").unwrap();
    }
    let all = client.ask(&format!(
        "<iq type='set' id='q'><query xmlns='urn:xmpp:mam:2' queryid='f27'>\
         <x xmlns='jabber:x:data' type='submit'>{form}</x>\
         <set xmlns='http://jabber.org/protocol/rsm'>{rsm}</set></query></iq>"
    ));
    let (fin, results) = all.split_last().unwrap();
    let rows = results.iter().map(|one| {
        assert!(one.contains("<result xmlns='urn:xmpp:mam:2' "), "{one}");
        assert!(
            one.contains("queryid='f27'") && one.contains(&format!("to='{}'", client.jid())),
            "{one}"
        );
        let result = between(one, "<result ", ">").unwrap();
        (body(one), between(result, " id='", "'").unwrap().parse().unwrap())
    });
    Page { rows: rows.collect(), fin: fin.clone() }
}

fn all(client: &Client) -> Vec<(String, u64)> {
    let (mut rows, mut after) = (Vec::new(), String::new());
    loop {
        let page = query(client, &[], &format!("<max>3</max>{after}"));
        rows.extend(page.rows);
        if page.fin.contains("complete='true'") {
            return rows;
        }
        after = format!("<after>{}</after>", between(&page.fin, "<last>", "</last>").unwrap());
    }
}

fn texts(rows: &[(String, u64)]) -> Vec<&str> {
    rows.iter().map(|(text, _)| &**text).collect()
}

fn retained(world: &World, node: &str, resource: &str) -> (Client, String) {
    let client = world.client(node, resource);
    let enabled = client.ask("<enable xmlns='urn:xmpp:sm:3' resume='true'/>").concat();
    let id = between(&enabled, " id='", "'").unwrap().to_owned();
    client.send(&format!("{ENABLE}<presence/>"));
    client.send("<a xmlns='urn:xmpp:sm:3' h='2'/>");
    let _own = client.received();
    (client, id)
}

fn resume(world: &World, node: &str, id: &str, h: usize) -> Client {
    let client = world.authenticated(node);
    client.send(&format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='{h}'/>"));
    client
}

#[test]
fn hook_3_the_archive_has_one_id_everywhere_and_nothing_missing_or_twice() {
    let (world, _) = world();
    let romeo = world.client("romeo", "orchard");
    let watch = world.online("romeo", "watch");
    watch.send(ENABLE);
    let _own = watch.received();
    let mut of_juliet = BTreeMap::<u64, String>::new();
    let mut learn = |seen: Vec<(String, u64)>| {
        for (text, id) in seen {
            let known = of_juliet.entry(id).or_insert_with(|| text.clone());
            assert_eq!(*known, text, "one message, one id");
        }
    };
    // Offline, live with a copy, unacknowledged and resumed, left behind and routed again, replaced.
    say(&romeo, "juliet@example.com", "offline");
    let (phone, id) = retained(&world, "juliet", "phone");
    let desk = world.client("juliet", "desk");
    desk.send(ENABLE);
    learn(seen(&phone, "juliet"));
    say(&romeo, "juliet@example.com", "live");
    say(&romeo, "juliet@example.com/phone", "to the phone");
    from_afar(&world, "juliet@example.com", "from afar");
    learn(seen(&desk, "juliet"));
    let before = seen(&phone, "juliet");
    phone.lose();
    say(&romeo, "juliet@example.com", "while it is away");
    learn(seen(&desk, "juliet"));
    let phone = resume(&world, "juliet", &id, 2);
    let again = seen(&phone, "juliet");
    assert_eq!(again[again.len() - 4..again.len() - 1], before[before.len() - 3..]);
    learn(again);
    phone.lose();
    desk.lose();
    say(&romeo, "juliet@example.com", "to nobody");
    world.advance(Duration::from_secs(700));
    let (tablet, _) = retained(&world, "juliet", "tablet");
    learn(seen(&tablet, "juliet"));
    say(&romeo, "juliet@example.com", "unacknowledged");
    let tablet = world.client("juliet", "tablet");
    tablet.send("<presence/>");
    say(&tablet, "romeo@example.com", "an answer");
    say(&tablet, "juliet@example.com", "to myself");
    learn(seen(&tablet, "juliet"));
    // The archive has each of them once, in this order, by these ids.
    let kept = all(&tablet);
    assert_eq!(
        texts(&kept),
        [
            "offline",
            "live",
            "to the phone",
            "from afar",
            "while it is away",
            "to nobody",
            "unacknowledged",
            "an answer",
            "to myself"
        ]
    );
    let known: Vec<_> = of_juliet.into_iter().map(|(id, text)| (text, id)).collect();
    let mine: Vec<_> = kept.iter().filter(|(text, _)| text != "an answer").cloned().collect();
    assert_eq!(known, mine);
    // And that of the sender, whose other client has seen all by copies.
    let copies = seen(&watch, "romeo");
    let kept = all(&watch);
    assert_eq!(copies, kept);
    assert_eq!(kept.len(), 7, "{kept:?}");
}

#[test]
fn the_archive_answers_in_pages() {
    let (world, _) = world();
    let [romeo, juliet] = ["romeo", "juliet"].map(|node| world.client(node, "x"));
    let start = "2000-01-01T00:00:00Z";
    for n in 1..=9 {
        say(
            &romeo,
            if n % 3 == 0 { "Nurse@example.net/x" } else { "juliet@example.com" },
            &n.to_string(),
        );
        world.advance(Duration::from_secs(60));
    }
    let page = |fields: &[(&str, &str)], rsm: &str| {
        let page = query(&romeo, fields, rsm);
        let texts = page.rows.iter().map(|(text, _)| &**text).collect::<Vec<_>>().join(" ");
        let is_complete = page.fin.contains("complete='true'");
        let count = between(&page.fin, "<count>", "</count>").unwrap().to_owned();
        (texts, is_complete, count)
    };
    let of =
        |texts: &str, complete: bool, count: u8| (texts.to_owned(), complete, count.to_string());
    for (fields, rsm, expected) in [
        (&[][..], "", of("1 2 3 4 5 6 7 8 9", true, 9)),
        (&[], "<max>4</max>", of("1 2 3 4", false, 9)),
        (&[], "<max>4</max><after>4</after>", of("5 6 7 8", false, 9)),
        (&[], "<max>4</max><after>8</after>", of("9", true, 9)),
        (&[], "<max>4</max><after>9</after>", of("", true, 9)),
        (&[], "<max>4</max><before/>", of("6 7 8 9", false, 9)),
        (&[], "<max>4</max><before>6</before>", of("2 3 4 5", false, 9)),
        (&[], "<max>4</max><before>2</before>", of("1", true, 9)),
        (&[], "<max>0</max>", of("", false, 9)),
        (&[("with", "nurse@example.net")], "", of("3 6 9", true, 3)),
        (&[("with", "NURSE@example.net/x")], "<max>2</max>", of("3 6", false, 3)),
        (&[("with", "nurse@example.net/y")], "", of("", true, 0)),
        (&[("with", "juliet@example.com")], "<before/><max>2</max>", of("7 8", false, 6)),
        (&[("ids", "2 4")], "", of("2 4", true, 2)),
        (&[("after-id", "3"), ("before-id", "6")], "", of("4 5", true, 9)),
        (&[("start", start)], "", of("1 2 3 4 5 6 7 8 9", true, 9)),
        (&[("end", "1970-01-01T00:00:00Z")], "", of("", true, 0)),
    ] {
        assert_eq!(page(fields, rsm), expected, "{fields:?} {rsm}");
    }
    // By the times that the archive itself tells.
    let metadata = romeo.answer("<iq type='get' id='m'><metadata xmlns='urn:xmpp:mam:2'/></iq>");
    let (first, last) = metadata.split_once("<end ").unwrap();
    let [first, last] = [first, last].map(|part| between(part, "timestamp='", "'").unwrap());
    assert_eq!(page(&[("start", last)], "").0, "9");
    assert_eq!(page(&[("end", first)], "").0, "1");
    // Flipped, but the same page.
    let flipped = romeo.ask("<iq type='set' id='q'><query xmlns='urn:xmpp:mam:2'><flip-page/><set xmlns='http://jabber.org/protocol/rsm'><max>2</max></set></query></iq>");
    assert_eq!(flipped.iter().map(|one| body(one)).collect::<Vec<_>>(), ["2", "1", ""]);
    assert!(flipped[2].contains("<first>1</first><last>2</last>"), "{}", flipped[2]);
    // What makes no sense, and what is somebody else's.
    for (wrong, condition) in [
        ("<after>77</after>", "item-not-found"),
        ("<before>x</before>", "item-not-found"),
        ("<max>x</max>", "bad-request"),
        ("<index>3</index>", "bad-request"),
    ] {
        assert!(query(&romeo, &[], wrong).fin.contains(condition), "{wrong}");
    }
    assert!(query(&romeo, &[("start", "yesterday")], "").fin.contains("bad-request"));
    let stolen = juliet.answer(
        "<iq type='set' id='q' to='romeo@example.com'><query xmlns='urn:xmpp:mam:2'/></iq>",
    );
    assert!(stolen.contains("service-unavailable"), "{stolen}");
    let form = romeo.answer("<iq type='get' id='f'><query xmlns='urn:xmpp:mam:2'/></iq>");
    assert!(form.contains("var='before-id'"), "{form}");
    let info = romeo.answer("<iq type='get' id='i' to='romeo@example.com'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>");
    assert!(
        info.contains("'urn:xmpp:mam:2'")
            && info.contains("'urn:xmpp:sid:0'")
            && info.contains("'urn:xmpp:push:0'"),
        "{info}"
    );
}

#[test]
fn the_archive_keeps_what_is_to_be_kept() {
    let (world, _) = world();
    let romeo = world.client("romeo", "x");
    let juliet = world.online("juliet", "x");
    let hint = |name: &str| format!("<{name} xmlns='urn:xmpp:hints'/>");
    let state = "<active xmlns='http://jabber.org/protocol/chatstates'/>".to_owned();
    let kept = |client: &Client| all(client).len();
    for (type_, payload, is_kept) in [
        ("chat", "<body>1</body>".to_owned(), true),
        ("normal", "<body>1</body>".to_owned(), true),
        ("headline", "<body>1</body>".to_owned(), false),
        ("groupchat", "<body>1</body>".to_owned(), false),
        ("error", "<body>1</body>".to_owned(), false),
        ("chat", state.clone(), false),
        ("chat", state + &hint("store"), true),
        ("chat", "<body>1</body>".to_owned() + &hint("no-store"), false),
        ("chat", "<body>1</body>".to_owned() + &hint("no-permanent-store"), false),
    ] {
        let before = (kept(&romeo), kept(&juliet));
        romeo.send(&format!(
            "<message to='juliet@example.com/x' type='{type_}'>{payload}</message>"
        ));
        let new = usize::from(is_kept);
        assert_eq!(
            (kept(&romeo), kept(&juliet)),
            (before.0 + new, before.1 + new),
            "{type_} {payload}"
        );
    }
}

#[test]
fn what_an_archive_has_sent_to_one_client_goes_to_no_other() {
    let (world, _) = world();
    let romeo = world.client("romeo", "x");
    say(&romeo, "juliet@example.com", "1");
    let (phone, _) = retained(&world, "juliet", "phone");
    phone.send("<a xmlns='urn:xmpp:sm:3' h='3'/>");
    assert_eq!(query(&phone, &[], "").rows.len(), 1);
    phone.lose();
    world.advance(Duration::from_secs(700));
    let other = world.client("juliet", "other");
    other.send("<presence/>");
    assert!(!other.received().concat().contains("urn:xmpp:mam"), "it asked for nothing");
}

/// The notifications that have been sent since the last call, as the nodes of the devices.
fn notified(elsewhere: &Elsewhere) -> Vec<String> {
    let all = elsewhere.take();
    let pushed = all.iter().filter(|one| one.contains("to='push.example.net'"));
    pushed.map(|one| between(one, " node='", "'").unwrap().to_owned()).collect()
}

fn enable(client: &Client, node: &str) {
    let answer = client.ask(&format!(
        "<iq type='set' id='p'><enable xmlns='urn:xmpp:push:0' jid='push.example.net' node='{node}'>\
         <x xmlns='jabber:x:data' type='submit'><field var='secret'><value>s</value></field></x></enable></iq>"
    ));
    assert!(answer.concat().contains("type='result'"), "{answer:?}");
}

#[test]
fn hook_7_a_push_comes_exactly_when_a_message_waits_for_somebody_who_is_not_there() {
    let (world, elsewhere) = world();
    let romeo = world.client("romeo", "x");
    let (phone, id) = retained(&world, "juliet", "phone");
    enable(&phone, "phone");
    phone.send("<a xmlns='urn:xmpp:sm:3' h='3'/>");
    // There.
    say(&romeo, "juliet@example.com", "1");
    phone.send("<a xmlns='urn:xmpp:sm:3' h='4'/>");
    assert!(notified(&elsewhere).is_empty());
    // Gone with one unacknowledged.
    say(&romeo, "juliet@example.com", "2");
    assert!(notified(&elsewhere).is_empty());
    phone.lose();
    assert_eq!(notified(&elsewhere), ["phone"]);
    // Gone.
    say(&romeo, "juliet@example.com", "3");
    from_afar(&world, "juliet@example.com/phone", "4");
    assert_eq!(notified(&elsewhere), ["phone", "phone"]);
    romeo.send("<message to='juliet@example.com' type='chat'><active xmlns='http://jabber.org/protocol/chatstates'/></message>");
    romeo.send("<message to='juliet@example.com' type='headline'><body>x</body></message>");
    assert!(notified(&elsewhere).is_empty());
    // Back, gone again, over, stored, back again: nothing new.
    let phone = resume(&world, "juliet", &id, 4);
    phone.lose();
    world.advance(Duration::from_secs(700));
    assert!(notified(&elsewhere).is_empty());
    // Without any session.
    say(&romeo, "juliet@example.com", "5");
    say(&romeo, "nobody@example.com", "5");
    assert_eq!(notified(&elsewhere), ["phone"]);
    let desk = world.client("juliet", "desk");
    desk.send("<presence/>");
    assert_eq!(texts(&seen(&desk, "juliet")), ["2", "3", "4", "5"]);
    assert!(notified(&elsewhere).is_empty());
    // Another device of the account is there.
    say(&romeo, "juliet@example.com", "6");
    assert!(notified(&elsewhere).is_empty());
}

#[test]
fn a_device_that_is_not_wanted_gets_no_more() {
    let (world, elsewhere) = world();
    let romeo = world.client("romeo", "x");
    let juliet = world.client("juliet", "x");
    ["a", "b", "c"].iter().for_each(|node| enable(&juliet, node));
    let no_jid = juliet.answer("<iq type='set' id='p'><enable xmlns='urn:xmpp:push:0'/></iq>");
    assert!(no_jid.contains("bad-request"), "{no_jid}");
    let other = romeo.answer("<iq type='set' id='p' to='juliet@example.com'><disable xmlns='urn:xmpp:push:0' jid='push.example.net'/></iq>");
    assert!(other.contains("service-unavailable"), "{other}");
    say(&romeo, "juliet@example.com", "1");
    let sent = elsewhere.take();
    assert_eq!(sent.len(), 3);
    assert!(
        sent.iter().all(|one| one.contains("from='example.com'")
            && one.contains("<publish-options>")
            && one.contains("<value>s<")
            && !one.contains("romeo")),
        "{sent:?}"
    );
    for (one, type_) in sent.iter().zip(["cancel", "wait", "cancel"]) {
        let id = between(one, " id='", "'").unwrap();
        let answer = format!(
            "<iq from='push.example.net' to='example.com' id='{id}' type='error'><error type='{type_}'/></iq>"
        );
        world.server().send(canonicalise(answer.as_bytes()).unwrap());
    }
    world.settle();
    say(&romeo, "juliet@example.com", "2");
    assert_eq!(notified(&elsewhere), ["b"]);
    juliet.send("<iq type='set' id='p'><disable xmlns='urn:xmpp:push:0' jid='push.example.net' node='other'/></iq>");
    say(&romeo, "juliet@example.com", "3");
    assert_eq!(notified(&elsewhere), ["b"]);
    juliet.send(
        "<iq type='set' id='p'><disable xmlns='urn:xmpp:push:0' jid='push.example.net'/></iq>",
    );
    say(&romeo, "juliet@example.com", "4");
    assert!(notified(&elsewhere).is_empty());
}

/// A page shows the code that runs here.
#[test]
fn the_cookbook_shows_these_files() {
    for (page, code) in [
        (include_str!("../docs/cookbook/archive.md"), include_str!("../docs/cookbook/archive.rs")),
        (include_str!("../docs/cookbook/push.md"), include_str!("../docs/cookbook/push.rs")),
    ] {
        let shown =
            page.split("```rust\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        assert!(shown == code, "the page differs from the file: copy it");
    }
}
