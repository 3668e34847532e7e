//! The blocking command (rules BLOCK-1 to BLOCK-11, LIMIT-18).

use crate::common::{faults, wire};
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use faults::{Fault, Faulty};
use wire::{Client, World, now};
use xmpp_session::jid::BareJid;
use xmpp_session::rules::roster::Subscription;
use xmpp_session::server::{RouteError, Router};
use xmpp_session::stanza::{Frame, Stanza, canonicalise};
use xmpp_session::store::{BlockStore, OfflineStore as _, StoreError, StoreFuture, Stores};
use xmpp_session::xep;

const NOTHING: [&str; 0] = [];

fn world() -> World {
    with_stores(Stores::memory())
}

fn with_stores(stores: Stores) -> World {
    let blocks = Arc::clone(&stores.blocks);
    World::with_stores(stores, |builder, _| {
        builder
            .extension(xep::Blocking::new(blocks).items(3))
            .extension(xep::Carbons::new())
            .extension(xep::Disco::new())
    })
}

fn request(name: &str, items: &[&str]) -> String {
    let items: String = items.iter().map(|jid| format!("<item jid='{jid}'/>")).collect();
    format!("<iq type='set' id='b'><{name} xmlns='urn:xmpp:blocking'>{items}</{name}></iq>")
}

const LIST: &str = "<iq type='get' id='l'><blocklist xmlns='urn:xmpp:blocking'/></iq>";

fn result(client: &Client, id: &str, payload: &str) -> String {
    let (from, to) = (client.session().jid().to_bare(), client.jid());
    match payload {
        "" => format!("<iq from='{from}' to='{to}' id='{id}' type='result'/>"),
        _ => format!("<iq from='{from}' to='{to}' id='{id}' type='result'>{payload}</iq>"),
    }
}

/// Blocks or unblocks, and takes the result; the session was not marked for pushes.
fn change(client: &Client, name: &str, items: &[&str]) {
    assert_eq!(client.ask(&request(name, items)), [result(client, "b", "")]);
}

#[cfg(test)]
fn list(client: &Client) -> String {
    let answer = client.ask(LIST).concat();
    let from = answer.find("<blocklist").expect("a list");
    let to = answer.rfind("</iq>").unwrap();
    answer[from..to].to_owned()
}

#[cfg(test)]
fn stored(world: &World, node: &str) -> Vec<String> {
    now(world.stores().blocks.load(&world.account(node))).unwrap()
}

#[test]
fn block_1_the_whole_list_is_given() {
    let world = world();
    let romeo = world.client("romeo", "orchard");
    assert_eq!(list(&romeo), "<blocklist xmlns='urn:xmpp:blocking'/>");
    change(&world.client("romeo", "other"), "block", &["tybalt@example.com", "remote.example"]);
    assert_eq!(
        list(&romeo),
        "<blocklist xmlns='urn:xmpp:blocking'><item jid='remote.example'/><item jid='tybalt@example.com'/></blocklist>"
    );
}

#[test]
fn block_1_the_list_survives_the_last_session() {
    let world = world();
    let romeo = world.client("romeo", "orchard");
    change(&romeo, "block", &["Tybalt@example.com"]);
    romeo.lose();
    assert!(world.sessions() == 0);
    let romeo = world.client("romeo", "orchard");
    assert!(list(&romeo).contains("<item jid='tybalt@example.com'/>"));
}

#[test]
fn block_2_bad_requests_store_nothing() {
    let world = world();
    let romeo = world.client("romeo", "orchard");
    let refused = |request: &str, condition: &str| {
        let answer = romeo.answer(request);
        assert!(answer.contains(&format!("<{condition} ")), "{request}: {answer}");
        assert!(stored(&world, "romeo").is_empty());
    };
    refused(&request("block", &[]), "bad-request");
    refused(&request("block", &["tybalt@example.com", "@x"]), "jid-malformed");
    refused(&request("unblock", &["a b@x"]), "jid-malformed");
    let without = request("block", &["x"]).replace(" jid='x'", "");
    refused(&without, "bad-request");
}

#[test]
fn block_2_unblock_without_items_clears_the_list() {
    let world = world();
    let romeo = world.client("romeo", "orchard");
    change(&romeo, "block", &["a@x.example", "b@x.example"]);
    change(&romeo, "unblock", &["a@x.example", "never@x.example"]);
    assert_eq!(stored(&world, "romeo"), ["b@x.example"]);
    change(&romeo, "unblock", &[]);
    assert!(stored(&world, "romeo").is_empty());
    assert_eq!(list(&romeo), "<blocklist xmlns='urn:xmpp:blocking'/>");
}

#[test]
fn block_3_the_result_comes_first_then_pushes_to_marked_sessions() {
    let world = world();
    let romeo = world.client("romeo", "orchard");
    let (marked, unmarked) = (world.client("romeo", "marked"), world.client("romeo", "unmarked"));
    let _list = (list(&romeo), list(&marked));
    for (name, items) in [
        ("block", &["a@x.example", "b@x.example"][..]),
        ("unblock", &["a@x.example"]),
        ("unblock", &[]),
    ] {
        let answers = romeo.ask(&request(name, items));
        let [first, push] = &answers[..] else { panic!("{answers:?}") };
        assert_eq!(*first, result(&romeo, "b", ""));
        let items: String = items.iter().map(|jid| format!("<item jid='{jid}'/>")).collect();
        let payload = match &*items {
            "" => format!("<{name} xmlns='urn:xmpp:blocking'/>"),
            _ => format!("<{name} xmlns='urn:xmpp:blocking'>{items}</{name}>"),
        };
        assert!(
            push.starts_with("<iq from='romeo@example.com' to='romeo@example.com/orchard' id='"),
            "{push}"
        );
        assert!(push.ends_with(&format!(" type='set'>{payload}</iq>")), "{push}");
        assert_eq!(marked.received(), [push.replace("/orchard", "/marked")]);
    }
    assert_eq!(unmarked.received(), NOTHING);
}

#[test]
fn block_5_messages_of_a_blocked_jid_are_refused_before_anything_else() {
    let world = world();
    let romeo = world.online("romeo", "orchard");
    romeo.ask("<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>");
    let tybalt = world.client("tybalt", "street");
    change(&romeo, "block", &["tybalt@example.com"]);
    for to in ["romeo@example.com", "romeo@example.com/orchard", "romeo@example.com/gone"] {
        let answer =
            tybalt.ask(&format!("<message to='{to}' type='chat' id='1'><body>a</body></message>"));
        assert_eq!(
            answer,
            [format!(
                "<message from='{to}' to='tybalt@example.com/street' id='1' type='error'><error type='cancel'>\
                 <service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>"
            )]
        );
    }
    assert_eq!(tybalt.ask("<message to='romeo@example.com/orchard' type='error'/>"), NOTHING);
    assert_eq!(romeo.received(), NOTHING);
}

#[test]
fn block_5_iqs_of_a_blocked_jid() {
    let world = world();
    world.friends("romeo", "tybalt");
    let romeo = world.online("romeo", "orchard");
    let tybalt = world.online("tybalt", "street");
    change(&romeo, "block", &["tybalt@example.com"]);
    let _presence = (romeo.received(), tybalt.received());
    for to in ["romeo@example.com", "romeo@example.com/orchard"] {
        let answer = tybalt.answer(&format!("<iq to='{to}' type='get' id='1'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>"));
        assert!(answer.contains("<service-unavailable "), "{answer}");
    }
    assert_eq!(tybalt.ask("<iq to='romeo@example.com/orchard' type='result' id='1'/>"), NOTHING);
    assert_eq!(romeo.received(), NOTHING);
}

#[test]
fn block_5_presence_of_a_blocked_jid_has_no_effect_and_no_answer() {
    let world = world();
    world.friends("romeo", "tybalt");
    let romeo = world.online("romeo", "orchard");
    change(&romeo, "block", &["tybalt@example.com"]);
    let tybalt = world.online("tybalt", "street");
    for presence in [
        "<presence/>",
        "<presence to='romeo@example.com'/>",
        "<presence to='romeo@example.com/orchard'/>",
        "<presence to='romeo@example.com' type='probe'/>",
        "<presence type='unavailable'/>",
    ] {
        let own = tybalt.ask(presence);
        assert!(!own.concat().contains("romeo@"), "{own:?}");
    }
    assert_eq!(romeo.received(), NOTHING);
}

#[test]
fn block_5_requests_of_a_blocked_account_are_not_kept() {
    let world = world();
    let romeo = world.online("romeo", "orchard");
    change(&romeo, "block", &["tybalt@example.com"]);
    let tybalt = world.client("tybalt", "street");
    tybalt.ask("<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>");
    let push = tybalt.ask("<presence to='romeo@example.com' type='subscribe'/>").concat();
    assert!(push.contains("ask='subscribe'"), "its own roster changes as ever: {push}");
    assert_eq!(romeo.received(), NOTHING);
    let requests = now(world.stores().rosters.requests(&world.account("romeo"))).unwrap();
    assert!(requests.is_empty());
}

#[test]
fn block_5_lists_of_offline_accounts_are_loaded() {
    let world = world();
    let romeo = world.client("romeo", "orchard");
    change(&romeo, "block", &["tybalt@example.com", "remote.example"]);
    romeo.lose();
    let tybalt = world.client("tybalt", "street");
    let answer = tybalt
        .answer("<message to='romeo@example.com' type='chat' id='1'><body>a</body></message>");
    assert!(answer.contains("<service-unavailable "), "{answer}");
    assert_eq!(tybalt.ask("<presence to='romeo@example.com' type='probe'/>"), NOTHING);
    tybalt.send("<presence to='romeo@example.com' type='subscribe'/>");
    let subscribe = "<presence from='a@remote.example' to='romeo@example.com' type='subscribe'/>";
    world.server().send(canonicalise(subscribe.as_bytes()).unwrap());
    world.settle();
    let account = world.account("romeo");
    assert!(now(world.stores().rosters.requests(&account)).unwrap().is_empty());
    assert_eq!(now(world.stores().offline.clone().unwrap().count(&account)).unwrap(), 0);
    let juliet = world.client("juliet", "balcony");
    assert_eq!(
        juliet.ask("<message to='romeo@example.com' type='chat'><body>a</body></message>"),
        NOTHING
    );
    assert_eq!(now(world.stores().offline.clone().unwrap().count(&account)).unwrap(), 1);
}

#[test]
fn block_6_what_is_sent_to_a_blocked_jid_is_refused() {
    let world = world();
    let romeo = world.client("romeo", "orchard");
    let tybalt = world.online("tybalt", "street");
    change(&romeo, "block", &["tybalt@example.com"]);
    for (stanza, name) in [
        ("<message to='tybalt@example.com' id='1'><body>a</body></message>", "message"),
        ("<message to='Tybalt@Example.com/street' id='1'><body>a</body></message>", "message"),
        ("<presence to='tybalt@example.com' id='1'/>", "presence"),
        ("<presence to='tybalt@example.com' type='subscribe' id='1'/>", "presence"),
        ("<iq to='tybalt@example.com/street' type='get' id='1'><q xmlns='urn:x'/></iq>", "iq"),
    ] {
        let to = stanza.split("to='").nth(1).unwrap().split('\'').next().unwrap();
        assert_eq!(
            romeo.ask(stanza),
            [format!(
                "<{name} from='{to}' to='romeo@example.com/orchard' id='1' type='error'><error type='cancel'>\
                 <not-acceptable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>\
                 <blocked xmlns='urn:xmpp:blocking:errors'/></error></{name}>"
            )]
        );
    }
    for stanza in [
        "<message to='tybalt@example.com/street' type='error'/>",
        "<iq to='tybalt@example.com/street' type='result' id='1'/>",
        "<iq to='tybalt@example.com/street' type='error' id='1'/>",
        "<presence to='tybalt@example.com/street' type='error'/>",
    ] {
        assert_eq!(romeo.ask(stanza), NOTHING);
    }
    assert_eq!(tybalt.received(), NOTHING);
}

#[test]
fn block_6_broadcasts_skip_blocked_contacts() {
    let world = world();
    world.friends("romeo", "tybalt");
    world.friends("romeo", "juliet");
    let romeo = world.client("romeo", "orchard");
    let (tybalt, juliet) = (world.online("tybalt", "street"), world.online("juliet", "balcony"));
    change(&romeo, "block", &["tybalt@example.com"]);
    for presence in
        ["<presence/>", "<presence><show>away</show></presence>", "<presence type='unavailable'/>"]
    {
        romeo.send(presence);
        assert_eq!(juliet.received().len(), 1, "{presence}");
        assert_eq!(tybalt.received(), NOTHING, "{presence}");
    }
    let seen = romeo.received().concat();
    assert!(seen.contains("juliet@example.com/balcony") && !seen.contains("tybalt@"), "{seen}");
    romeo.send("<presence/>");
    let _here = juliet.received();
    romeo.lose();
    assert_eq!(juliet.received().len(), 1);
    assert_eq!(tybalt.received(), NOTHING);
}

#[test]
fn block_6_a_blocked_resource_alone_is_skipped() {
    let world = world();
    world.friends("romeo", "juliet");
    let romeo = world.client("romeo", "orchard");
    let (phone, desk) = (world.online("juliet", "phone"), world.online("juliet", "desk"));
    let _others = phone.received();
    change(&romeo, "block", &["juliet@example.com/phone"]);
    romeo.send("<presence/>");
    assert_eq!(phone.received(), NOTHING);
    assert_eq!(desk.received().len(), 1);
}

#[test]
fn sec_4_a_contact_that_blocks_looks_offline() {
    let world = world();
    world.friends("romeo", "tybalt");
    let romeo = world.online("romeo", "orchard");
    change(&romeo, "block", &["tybalt@example.com"]);
    let learned = |tybalt: &Client| {
        tybalt.send("<presence/>");
        let mut seen = tybalt.received();
        seen.retain(|presence| presence.contains("from='romeo@"));
        seen
    };
    let online = learned(&world.client("tybalt", "street"));
    romeo.lose();
    let offline = learned(&world.client("tybalt", "street"));
    assert!(online.concat().contains("type='unavailable'"), "{online:?}");
    assert_eq!(online.len(), 1);
    assert!(!offline.is_empty());
}

#[test]
fn block_7_on_block_those_who_saw_the_account_see_it_go() {
    let world = world();
    world.friends("romeo", "tybalt");
    let romeo = world.online("romeo", "orchard");
    let other = world.online("romeo", "other");
    let (tybalt, paris) = (world.online("tybalt", "street"), world.online("paris", "hall"));
    romeo.send("<presence to='paris@example.com/hall'/>");
    for client in [&romeo, &other, &tybalt, &paris] {
        let _before = client.received();
    }
    change(&romeo, "block", &["tybalt@example.com", "paris@example.com"]);
    assert_eq!(
        tybalt.received(),
        [
            "<presence from='romeo@example.com/orchard' to='tybalt@example.com' type='unavailable'/>",
            "<presence from='romeo@example.com/other' to='tybalt@example.com' type='unavailable'/>"
        ]
    );
    assert_eq!(
        paris.received(),
        [
            "<presence from='romeo@example.com/orchard' to='paris@example.com/hall' type='unavailable'/>"
        ]
    );
    // Once, and forgotten.
    change(&romeo, "block", &["tybalt@example.com"]);
    change(&romeo, "block", &["example.com"]);
    romeo.lose();
    assert_eq!(tybalt.received(), NOTHING);
    assert_eq!(paris.received(), NOTHING);
}

#[test]
fn block_7_on_block_of_a_resource_it_alone_is_told() {
    let world = world();
    world.friends("romeo", "juliet");
    let romeo = world.online("romeo", "orchard");
    let (phone, desk) = (world.online("juliet", "phone"), world.online("juliet", "desk"));
    let _before = (phone.received(), desk.received());
    change(&romeo, "block", &["juliet@example.com/phone"]);
    assert_eq!(
        phone.received(),
        [
            "<presence from='romeo@example.com/orchard' to='juliet@example.com/phone' type='unavailable'/>"
        ]
    );
    assert_eq!(desk.received(), NOTHING);
    change(&romeo, "unblock", &["juliet@example.com/phone"]);
    assert_eq!(
        phone.received(),
        ["<presence from='romeo@example.com/orchard' to='juliet@example.com/phone'/>"]
    );
    assert_eq!(desk.received(), NOTHING);
}

#[test]
fn block_7_on_unblock_subscribers_see_the_presence_of_now() {
    let world = world();
    world.friends("romeo", "tybalt");
    world.roster("romeo", "paris@example.com", Subscription::To);
    let romeo = world.online("romeo", "orchard");
    let _connected = world.client("romeo", "connected");
    let (tybalt, paris) = (world.online("tybalt", "street"), world.online("paris", "hall"));
    change(&romeo, "block", &["tybalt@example.com", "example.com", "paris@example.com"]);
    romeo.send("<presence><show>dnd</show></presence>");
    let _before = (tybalt.received(), paris.received(), romeo.received());
    change(&romeo, "unblock", &["tybalt@example.com", "paris@example.com"]);
    assert_eq!(tybalt.received(), NOTHING, "the domain is blocked still");
    change(&romeo, "unblock", &[]);
    assert_eq!(
        tybalt.received(),
        [
            "<presence from='romeo@example.com/orchard' to='tybalt@example.com'><show>dnd</show></presence>"
        ]
    );
    assert_eq!(paris.received(), NOTHING);
    tybalt.send("<message to='romeo@example.com'><body>a</body></message>");
    assert_eq!(romeo.received().len(), 1);
}

#[test]
fn block_7_subscriptions_stay() {
    let world = world();
    world.friends("romeo", "tybalt");
    let romeo = world.online("romeo", "orchard");
    change(&romeo, "block", &["tybalt@example.com"]);
    let roster = romeo.ask("<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>").concat();
    assert!(roster.contains("jid='tybalt@example.com' subscription='both'"), "{roster}");
}

#[test]
fn block_8_own_sessions_and_the_server_are_never_blocked() {
    let world = world();
    let (romeo, other) = (world.online("romeo", "orchard"), world.online("romeo", "other"));
    change(&romeo, "block", &["romeo@example.com", "example.com", "romeo@example.com/other"]);
    let _before = (romeo.received(), other.received());
    romeo.send("<message to='romeo@example.com/other'><body>a</body></message>");
    romeo.send("<presence><show>away</show></presence>");
    assert_eq!(other.received().len(), 2);
    let _own = romeo.received();
    let info = romeo.answer("<iq type='get' id='1' to='example.com'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>");
    assert!(info.contains("<feature var='urn:xmpp:blocking'/>"), "{info}");
    world
        .server()
        .send(Stanza::message().from("example.com").to("romeo@example.com/other").build());
    world.settle();
    assert_eq!(other.received().len(), 1);
    let bounce = romeo.answer("<iq type='get' id='2'><q xmlns='urn:x'/></iq>");
    assert!(bounce.contains("<service-unavailable "), "{bounce}");
}

#[test]
fn limit_18_a_list_that_would_be_too_long_is_not_stored() {
    let world = world();
    let romeo = world.client("romeo", "orchard");
    change(&romeo, "block", &["a@x.example", "b@x.example"]);
    let answer = romeo.answer(&request("block", &["c@x.example", "d@x.example"]));
    assert!(answer.contains("<error type='modify'><policy-violation "), "{answer}");
    assert_eq!(stored(&world, "romeo").len(), 2);
    change(&romeo, "block", &["a@x.example", "c@x.example"]);
    assert_eq!(stored(&world, "romeo").len(), 3);
}

#[test]
fn limit_18_the_bytes_of_a_list_are_limited_too() {
    let stores = Stores::memory();
    let blocks = Arc::clone(&stores.blocks);
    let world = World::with_stores(stores, |builder, _| {
        builder.extension(xep::Blocking::new(blocks).bytes(3000))
    });
    let romeo = world.client("romeo", "orchard");
    let [a, b, c] = ["a", "b", "c"].map(|node| format!("{node}@x.example/{}", "r".repeat(900)));
    change(&romeo, "block", &[&a, &b, &c]);
    let answer = romeo.answer(&request("block", &["d@x.example", &a.replace('r', "s")]));
    assert!(answer.contains("<error type='modify'><policy-violation "), "{answer}");
    assert_eq!(stored(&world, "romeo").len(), 3);
}

/// Fails when told to.
struct Fragile {
    inner: Arc<dyn BlockStore>,
    broken: Arc<AtomicBool>,
}

impl Fragile {
    fn or<T: Send + 'static>(&self, answer: StoreFuture<T>) -> StoreFuture<T> {
        if self.broken.load(Ordering::SeqCst) {
            return Box::pin(ready(Err(StoreError::failed("broken"))));
        }
        answer
    }
}

impl BlockStore for Fragile {
    fn load(&self, account: &BareJid) -> StoreFuture<Vec<String>> {
        self.or(self.inner.load(account))
    }

    fn apply(
        &self,
        account: &BareJid,
        added: Vec<String>,
        removed: Vec<String>,
    ) -> StoreFuture<()> {
        self.or(self.inner.apply(account, added, removed))
    }

    fn clear(&self, account: &BareJid) -> StoreFuture<()> {
        self.or(self.inner.clear(account))
    }
}

fn fragile() -> (World, Arc<AtomicBool>) {
    let broken = Arc::new(AtomicBool::new(false));
    let mut stores = Stores::memory();
    stores.blocks =
        Arc::new(Fragile { inner: Arc::clone(&stores.blocks), broken: Arc::clone(&broken) });
    (with_stores(stores), broken)
}

#[test]
fn block_3_a_store_that_fails_changes_nothing() {
    let (world, broken) = fragile();
    let romeo = world.online("romeo", "orchard");
    let _list = list(&romeo);
    let tybalt = world.client("tybalt", "street");
    broken.store(true, Ordering::SeqCst);
    for request in [request("block", &["tybalt@example.com"]), request("unblock", &[])] {
        let answer = romeo.answer(&request);
        assert!(answer.contains("<internal-server-error "), "{answer}");
    }
    tybalt.send("<message to='romeo@example.com'><body>a</body></message>");
    assert_eq!(romeo.received().len(), 1);
}

#[test]
fn bind_7_without_its_block_list_no_session_is_bound() {
    let (world, broken) = fragile();
    let romeo = world.authenticated("romeo");
    broken.store(true, Ordering::SeqCst);
    let bind = "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>";
    let answer = romeo.answer(bind);
    assert!(answer.contains("<internal-server-error "), "{answer}");
    assert!(world.sessions() == 0);
    let tybalt = "<message from='a@remote.example' to='romeo@example.com' type='chat'><body>a</body></message>";
    world.server().send(canonicalise(tybalt.as_bytes()).unwrap());
    world.settle();
    let store = world.stores().offline.clone().unwrap();
    assert_eq!(
        now(store.count(&world.account("romeo"))).unwrap(),
        0,
        "nobody knows whether it is let in"
    );
    broken.store(false, Ordering::SeqCst);
    assert!(romeo.answer(bind).contains("<jid>"));
}

#[cfg(test)]
#[derive(Clone)]
struct Wire(Arc<std::sync::Mutex<Vec<String>>>);

#[cfg(test)]
impl Router for Wire {
    fn route(&self, stanza: &Stanza) -> Result<(), RouteError> {
        self.0.lock().unwrap().push(Frame::stanza(stanza).to_string());
        Ok(())
    }
}

#[test]
fn block_7_contacts_at_other_domains_are_told_too() {
    let sent = Arc::new(std::sync::Mutex::new(Vec::new()));
    let stores = Stores::memory();
    let blocks = Arc::clone(&stores.blocks);
    let wire = Wire(Arc::clone(&sent));
    let world = World::with_stores(stores, |builder, _| {
        builder.extension(xep::Blocking::new(blocks)).router(wire)
    });
    world.roster("romeo", "a@remote.example", Subscription::Both);
    let romeo = world.online("romeo", "orchard");
    let take = || std::mem::take(&mut *sent.lock().unwrap());
    let _initial = take();
    change(&romeo, "block", &["remote.example"]);
    assert_eq!(
        take(),
        ["<presence from='romeo@example.com/orchard' to='a@remote.example' type='unavailable'/>"]
    );
    romeo.send("<presence><show>away</show></presence>");
    romeo.send("<presence type='unavailable'/>");
    romeo.send("<presence/>");
    assert_eq!(take(), NOTHING);
    change(&romeo, "unblock", &["remote.example"]);
    assert_eq!(take(), ["<presence from='romeo@example.com/orchard' to='a@remote.example'/>"]);
}

/// A world whose clients can be away and come back, or not look.
#[cfg(test)]
fn with_queues() -> World {
    with_queues_and(Stores::memory())
}

#[cfg(test)]
fn with_queues_and(stores: Stores) -> World {
    let blocks = Arc::clone(&stores.blocks);
    World::with_stores(stores, |builder, _| {
        builder
            .extension(xep::Blocking::new(blocks))
            .extension(xep::Carbons::new())
            .extension(xep::ClientState)
            .extension(xep::StreamManagement::new())
    })
}

#[cfg(test)]
fn retain(client: &Client) -> String {
    let enabled = client.answer("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    enabled.split(" id='").nth(1).unwrap().split('\'').next().unwrap().to_owned()
}

#[cfg(test)]
fn resume(world: &World, id: &str, h: u32) -> (Client, Vec<String>) {
    let client = world.authenticated("romeo");
    let got = client.ask(&format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='{h}'/>"));
    (client, got)
}

#[cfg(test)]
const FROM_TYBALT: [&str; 6] = [
    "<message to='romeo@example.com/orchard' id='t1'><body>a</body></message>",
    "<message to='romeo@example.com/orchard' id='t2' type='chat'><body>a</body></message>",
    "<message to='romeo@example.com/orchard' id='t3' type='groupchat'><body>a</body></message>",
    "<message to='romeo@example.com' id='t4' type='chat'><body>a</body></message>",
    "<iq to='romeo@example.com/orchard' id='t5' type='get'><q xmlns='urn:x'/></iq>",
    "<presence to='romeo@example.com/orchard' id='t6'/>",
];

#[test]
fn block_11_what_waits_in_a_session_ends_in_silence() {
    // Written or not when the transport was lost, for its own queue or as a copy; and what becomes of it.
    for (written, comes_back) in [(true, true), (true, false), (false, true), (false, false)] {
        let world = with_queues();
        world.friends("romeo", "tybalt");
        world.friends("romeo", "juliet");
        let (tybalt, juliet) = (world.online("tybalt", "street"), world.online("juliet", "x"));
        let copied = world.client("romeo", "copied");
        copied.send("<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>");
        let _result = copied.received();
        let copied_id = retain(&copied);
        // A copy of what comes from the store, beside those of what goes to the other session.
        tybalt.send("<message to='romeo@example.com/away' type='chat'><body>a</body></message>");
        assert_eq!(copied.received(), NOTHING);
        let romeo = world.online("romeo", "orchard");
        assert_eq!(copied.received().concat().matches("<received ").count(), 1);
        let _seen = romeo.received();
        let id = retain(&romeo);
        copied.lose();
        if !written {
            romeo.lose();
        }
        let mark = |n| {
            format!(
                "<message to='romeo@example.com/orchard' id='j{n}' type='chat'><body>a</body></message>"
            )
        };
        juliet.send(&mark(0));
        for stanza in FROM_TYBALT {
            tybalt.send(stanza);
            juliet.send(&mark(1));
        }
        if written {
            assert_eq!(romeo.received().iter().filter(|s| s.contains("tybalt@")).count(), 6);
            romeo.lose();
        }
        let desk = world.client("romeo", "desk");
        change(&desk, "block", &["tybalt@example.com"]);
        let _gone = (tybalt.received(), juliet.received());
        juliet.send(&mark(2));
        let from_juliet =
            |got: &[String]| got.iter().filter(|s| s.contains("<message from='juliet@")).count();
        if comes_back {
            // It has got the first, where it has got anything.
            let (client, got) = resume(&world, &id, u32::from(written));
            assert!(!got.concat().contains("tybalt@"), "{got:?}");
            assert_eq!(from_juliet(&got), 8 - usize::from(written), "{got:?}");
            // The numbers are right on both sides: eight in all, and not one above it.
            let high = client.ask("<a xmlns='urn:xmpp:sm:3' h='8'/>");
            assert_eq!(high, NOTHING);
            juliet.send(&mark(3));
            assert_eq!(client.ask("<a xmlns='urn:xmpp:sm:3' h='9'/>"), NOTHING);
            assert!(client.ask("<a xmlns='urn:xmpp:sm:3' h='10'/>").concat().contains("too-high"));
            let (_, got) = resume(&world, &copied_id, 0);
            assert!(!got.concat().contains("tybalt@"), "{got:?}");
            assert!(got.concat().contains("from='juliet@"), "{got:?}");
        }
        world.advance(std::time::Duration::from_secs(700));
        assert_eq!(tybalt.received(), NOTHING, "{written} {comes_back}");
        desk.send("<presence/>");
        let got = desk.received();
        assert!(!got.concat().contains("tybalt@"), "{got:?}");
        if !comes_back {
            assert_eq!(from_juliet(&got), 8);
        }
    }
}

#[test]
fn block_11_what_a_successor_inherits_ends_in_silence() {
    for unblocked in [false, true] {
        let world = with_queues();
        let (tybalt, juliet) = (world.client("tybalt", "street"), world.client("juliet", "x"));
        let phone = world.online("romeo", "phone");
        let _id = retain(&phone);
        for sender in [&tybalt, &juliet] {
            sender.send("<message to='romeo@example.com' type='chat'><body>a</body></message>");
        }
        phone.lose();
        let (phone, desk) = (world.client("romeo", "phone"), world.client("romeo", "desk"));
        let kept = || world.counts().retained_bytes;
        let both = kept();
        change(&desk, "block", &["tybalt@example.com"]);
        assert!(0 < kept() && kept() < both, "{} of {both}", kept());
        if unblocked {
            change(&desk, "unblock", &["tybalt@example.com"]);
        }
        let got = phone.ask("<presence/>").concat();
        assert!(!got.contains("tybalt@"), "{got}");
        assert_eq!(got.matches("<message from='juliet@").count(), 1, "{got}");
        assert_eq!(kept(), 0);
        assert_eq!(tybalt.received(), NOTHING);
    }
}

/// What it leaves waits for its account's turn, behind the block.
#[test]
fn block_11_what_a_session_leaves_while_its_account_blocks_ends_in_silence() {
    for written in [true, false] {
        let faulty = Faulty::new();
        let world = with_queues_and(faulty.stores());
        let (tybalt, juliet) = (world.client("tybalt", "street"), world.client("juliet", "x"));
        let (orchard, desk) = (world.online("romeo", "orchard"), world.client("romeo", "desk"));
        let _id = retain(&orchard);
        if !written {
            orchard.lose();
        }
        FROM_TYBALT.iter().for_each(|stanza| tybalt.send(stanza));
        juliet.send(
            "<message to='romeo@example.com/orchard' type='groupchat'><body>a</body></message>",
        );
        let _sent = (tybalt.received(), juliet.received());
        faulty.decide(|_, n| if n == 0 { Fault::Slow } else { Fault::None });
        desk.send(&request("block", &["tybalt@example.com"]));
        if written {
            orchard.send("</stream:stream>");
        } else {
            world.advance(std::time::Duration::from_secs(700));
        }
        assert_eq!((tybalt.received(), juliet.received()), (Vec::new(), Vec::new()), "it waits");
        faulty.release();
        world.settle();
        assert_eq!(tybalt.received(), NOTHING, "{written}");
        assert_eq!(juliet.received().len(), 1, "its groupchat message comes back");
        assert_eq!(now(faulty.memory().count(&world.account("romeo"))).unwrap(), 0);
        desk.send("<presence/>");
        assert!(!desk.received().concat().contains("tybalt@"));
    }
}

/// What the last writer of an ended session could not write comes back when the account blocks already.
#[test]
fn block_11_what_an_ended_session_did_not_write_ends_in_silence() {
    let world = with_queues();
    world.friends("romeo", "tybalt");
    let (tybalt, juliet) = (world.client("tybalt", "street"), world.client("juliet", "x"));
    let (orchard, desk) = (world.online("romeo", "orchard"), world.client("romeo", "desk"));
    let _seen = (orchard.received(), desk.received());
    let (registry, session) = (world.home_of("romeo").registry().clone(), orchard.session());
    let (other, blocker, mate) = (tybalt.clone(), desk.clone(), juliet.clone());
    let recorder = orchard.recorder().clone();
    orchard.recorder().on_send(move |text| {
        if !text.contains("first") {
            return;
        }
        // To that session: one to the account lets its sender wait.
        for stanza in FROM_TYBALT.iter().filter(|stanza| stanza.contains("/orchard")) {
            other.driver(|driver| driver.receive(stanza.as_bytes()));
        }
        let own = "<message to='romeo@example.com/orchard' type='groupchat'/>";
        mate.driver(|driver| driver.receive(own.as_bytes()));
        registry.destroy_session(&session, xmpp_session::session::Reason::Kicked);
        let block = request("block", &["tybalt@example.com"]);
        blocker.driver(|driver| driver.receive(block.as_bytes()));
        recorder.refuse(Some(xmpp_session::connection::SendError::Closed));
    });
    let first =
        "<message from='a@b.example' to='romeo@example.com/orchard'><body>first</body></message>";
    world.server().send(canonicalise(first.as_bytes()).unwrap());
    world.settle();
    assert_eq!(desk.received(), [result(&desk, "b", "")]);
    assert_eq!(tybalt.received(), NOTHING);
    assert_eq!(juliet.received().len(), 1, "its groupchat message comes back");
    assert!(!desk.ask("<presence/>").concat().contains("tybalt@"));
}

#[test]
fn block_11_what_is_held_or_stored_ends_in_silence() {
    let world = with_queues();
    world.friends("romeo", "juliet");
    world.roster("romeo", "benvolio@example.com", Subscription::Both);
    let (tybalt, juliet) = (world.client("tybalt", "street"), world.online("juliet", "balcony"));
    // Stored.
    tybalt.send("<message to='romeo@example.com' type='chat'><body>stored</body></message>");
    juliet.send("<message to='romeo@example.com' type='chat'><body>stored</body></message>");
    tybalt.send("<presence to='romeo@example.com' type='subscribe'/>");
    let desk = world.client("romeo", "desk");
    change(&desk, "block", &["tybalt@example.com"]);
    let phone = world.client("romeo", "phone");
    let stored = phone.ask("<presence/>").concat();
    assert_eq!(stored.matches("<body>stored</body>").count(), 1, "{stored}");
    let late = world.client("romeo", "late");
    let seen = [stored, late.ask("<presence/>").concat(), desk.received().concat()].concat();
    assert!(!seen.contains("tybalt@"), "{seen}");
    let account = world.account("romeo");
    assert_eq!(now(world.stores().offline.clone().unwrap().count(&account)).unwrap(), 0);
    assert_eq!(tybalt.received(), NOTHING);
    // Held.
    phone.ask("<inactive xmlns='urn:xmpp:csi:0'/>");
    juliet.send("<presence><show>away</show></presence>");
    juliet.send("<message to='romeo@example.com/phone' type='chat'><active xmlns='http://jabber.org/protocol/chatstates'/></message>");
    change(&desk, "block", &["juliet@example.com"]);
    let got = phone.ask("<active xmlns='urn:xmpp:csi:0'/>");
    assert_eq!(got, NOTHING);
}

#[test]
fn block_9_a_stored_request_of_a_blocked_account_can_be_denied() {
    let world = world();
    let tybalt = world.client("tybalt", "street");
    world.account("romeo");
    tybalt.send("<presence to='romeo@example.com' type='subscribe'/>");
    let _push = tybalt.received();
    let romeo = world.client("romeo", "orchard");
    change(&romeo, "block", &["tybalt@example.com"]);
    romeo.send("<presence/>");
    assert!(!romeo.received().concat().contains("tybalt@"));
    let requests = || now(world.stores().rosters.requests(&world.account("romeo"))).unwrap().len();
    assert_eq!(requests(), 1, "it waits for an unblock, or for this:");
    assert_eq!(romeo.ask("<presence to='tybalt@example.com' type='unsubscribed'/>"), NOTHING);
    assert_eq!(requests(), 0);
    assert_eq!(tybalt.received(), NOTHING);
    assert!(roster(&tybalt).contains("subscription='none'/>"), "it asks no longer");
    assert!(
        romeo
            .answer("<presence to='tybalt@example.com' type='subscribe'/>")
            .contains("<not-acceptable ")
    );
    assert!(
        romeo
            .answer("<presence to='tybalt@example.com' type='subscribed'/>")
            .contains("<not-acceptable ")
    );
}

#[cfg(test)]
fn roster(client: &Client) -> String {
    client.ask("<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>").concat()
}

#[test]
fn block_9_a_blocked_contact_that_cancels_changes_the_roster_in_silence() {
    let cancel = |kind: &str| format!("<presence to='romeo@example.com' type='{kind}'/>");
    let remove = "<iq type='set' id='x'><query xmlns='jabber:iq:roster'>\
                  <item jid='romeo@example.com' subscription='remove'/></query></iq>";
    for (stanzas, left) in [
        (vec![cancel("unsubscribe")], "to"),
        (vec![cancel("unsubscribed")], "from"),
        (vec![cancel("unsubscribe"), cancel("unsubscribed")], "none"),
        (vec![remove.to_owned()], "none"),
    ] {
        for online in [true, false] {
            let world = world();
            world.friends("romeo", "tybalt");
            let mut romeo = world.online("romeo", "orchard");
            let before = roster(&romeo);
            change(&romeo, "block", &["tybalt@example.com"]);
            if !online {
                romeo.lose();
            }
            let tybalt = world.online("tybalt", "street");
            let _own = (roster(&tybalt), romeo.received());
            for stanza in &stanzas {
                let got = tybalt.ask(stanza).concat();
                assert!(!got.contains("from='romeo@"), "{got}");
            }
            assert_eq!(romeo.received(), NOTHING);
            if !online {
                romeo = world.client("romeo", "orchard");
                assert_ne!(roster(&romeo), before);
                romeo.send("<presence/>");
                let _own = romeo.received();
            }
            let _own = (roster(&romeo), tybalt.received());
            // The user learns it when it unblocks, once.
            let got = romeo.ask(&request("unblock", &["tybalt@example.com"])).concat();
            let item = format!("<item jid='tybalt@example.com' subscription='{left}'/>");
            assert_eq!(got.matches(&item).count(), 1, "{got}");
            assert_eq!(tybalt.received().len(), usize::from(left == "from"), "{left}");
            romeo.send("<presence><show>away</show></presence>");
            assert_eq!(tybalt.received().len(), usize::from(left == "from"), "{left}");
            change(&romeo, "block", &["tybalt@example.com"]);
            let got = romeo.ask(&request("unblock", &["tybalt@example.com"]));
            assert!(!got.concat().contains("jabber:iq:roster"), "{got:?}");
        }
    }
}

#[test]
fn block_9_a_blocked_contact_is_removed_or_cancelled_in_silence() {
    let cancel = |kind: &str| format!("<presence to='tybalt@example.com' type='{kind}'/>");
    let remove = "<iq type='set' id='x'><query xmlns='jabber:iq:roster'>\
                  <item jid='tybalt@example.com' subscription='remove'/></query></iq>";
    for stanzas in [
        vec![remove.to_owned()],
        vec![cancel("unsubscribe"), cancel("unsubscribed")],
        vec![cancel("unsubscribed"), remove.to_owned()],
    ] {
        let world = world();
        world.friends("romeo", "tybalt");
        let romeo = world.online("romeo", "orchard");
        let tybalt = world.online("tybalt", "street");
        let _own = roster(&tybalt);
        change(&romeo, "block", &["tybalt@example.com"]);
        let gone = tybalt.received();
        assert_eq!(gone.len(), 1, "{gone:?}");
        // One that came after the block.
        let _other = world.online("romeo", "other");
        for stanza in &stanzas {
            let got = romeo.ask(stanza).concat();
            assert!(!got.contains("type='error'"), "{got}");
        }
        assert_eq!(tybalt.received(), NOTHING);
        assert!(!roster(&romeo).contains("subscription='both'"));
        let theirs = roster(&tybalt);
        assert!(theirs.contains("jid='romeo@example.com' subscription='none'/>"), "{theirs}");
    }
}

#[test]
fn sec_1_ids_of_pushes_cannot_be_guessed() {
    let world = world();
    let romeo = world.client("romeo", "orchard");
    let _list = list(&romeo);
    let id = |item: &str| {
        let push = romeo.ask(&request("block", &[item])).pop().unwrap();
        push.split(" id='").nth(1).unwrap().split('\'').next().unwrap().to_owned()
    };
    let (one, two) = (id("a@x.example"), id("b@x.example"));
    for id in [&one, &two] {
        assert!(id.len() == 24 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    }
    let common = one.bytes().zip(two.bytes()).filter(|(a, b)| a == b).count();
    assert!(common < 12, "{one} {two}");
}

#[test]
fn block_7_a_session_that_goes_while_it_is_blocked_is_seen_to_go() {
    for ends in [true, false] {
        let world = world();
        world.friends("romeo", "tybalt");
        let desk = world.online("romeo", "desk");
        let phone = world.online("romeo", "phone");
        let (tybalt, paris) = (world.online("tybalt", "street"), world.online("paris", "hall"));
        phone.send("<presence to='paris@example.com/hall'/>");
        let _before = (tybalt.received(), paris.received(), list(&desk));
        let (session, registry) = (phone.session(), world.home_of("romeo").registry().clone());
        let other = phone.clone();
        desk.recorder().on_send(move |text| {
            // The account hides by now, and nobody has been told yet.
            if text.contains("type='set'") && text.contains("urn:xmpp:blocking") {
                if ends {
                    registry.destroy_session(&session, xmpp_session::session::Reason::Kicked);
                } else {
                    other.driver(|driver| driver.receive(b"<presence type='unavailable'/>"));
                }
            }
        });
        desk.send(&request("block", &["tybalt@example.com", "paris@example.com"]));
        let gone = tybalt.received();
        assert_eq!(gone.len(), 2, "{gone:?}");
        assert_eq!(gone.concat().matches("/phone'").count(), 1, "{gone:?}");
        assert_eq!(paris.received().len(), 1);
    }
}

#[test]
fn block_9_what_a_blocked_contact_elsewhere_cancels_changes_the_roster_in_silence() {
    let sent = Arc::new(std::sync::Mutex::new(Vec::new()));
    let stores = Stores::memory();
    let (blocks, wire) = (Arc::clone(&stores.blocks), Wire(Arc::clone(&sent)));
    let world = World::with_stores(stores, |builder, _| {
        builder.extension(xep::Blocking::new(blocks)).router(wire)
    });
    world.roster("romeo", "a@remote.example", Subscription::Both);
    let romeo = world.online("romeo", "orchard");
    let _own = roster(&romeo);
    change(&romeo, "block", &["a@remote.example"]);
    sent.lock().unwrap().clear();
    for type_ in ["subscribe", "unsubscribe", "unsubscribed", "subscribed", "subscribe", "probe"] {
        let stanza =
            format!("<presence from='a@remote.example' to='romeo@example.com' type='{type_}'/>");
        world.server().send(canonicalise(stanza.as_bytes()).unwrap());
        world.settle();
    }
    assert_eq!(romeo.received(), NOTHING);
    assert!(sent.lock().unwrap().is_empty());
    let got = romeo.ask(&request("unblock", &["a@remote.example"])).concat();
    assert!(got.contains("<item jid='a@remote.example' subscription='none'/>"), "{got}");
    assert!(sent.lock().unwrap().is_empty());
    // The user cancels: a contact elsewhere has no other way to know, and sees no presence.
    change(&romeo, "block", &["b@remote.example"]);
    romeo.send("<presence to='b@remote.example' type='unsubscribe'/>");
    let left = std::mem::take(&mut *sent.lock().unwrap());
    assert_eq!(
        left,
        ["<presence from='romeo@example.com' to='b@remote.example' type='unsubscribe'/>"]
    );
}
