//! One spelling for each address (rules JID-1 to JID-6).

use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use xmpp_session::address;
use xmpp_session::jid::{BareJid, DomainPart, NodePart};
use xmpp_session::rules::roster::{Item, Stray, Subscription};
use xmpp_session::server::DomainPolicy;
use xmpp_session::stanza::Stanza;
use xmpp_session::store::{
    AnyAccount, RosterChange, RosterStore, StoreFuture, StoredRoster, Stores, SubscriptionRequest,
};
use xmpp_session::xep::Blocking;

use crate::common::wire::{Client, Elsewhere, PASSWORD, World, now};

const BOOKS: &str = "bücher.example";
const BOOKS_IN_ASCII: &str = "xn--bcher-kva.example";

/// A world whose second domain has every account that can be.
fn world() -> World {
    World::with(|builder, _| {
        let mut policy = DomainPolicy::default();
        policy.authenticator = Some(Arc::new(AnyAccount::new(PASSWORD).unwrap()));
        let blocking = Blocking::new(Stores::memory().blocks);
        // As `jid` writes it.
        let books = DomainPart::new(BOOKS_IN_ASCII).unwrap().into_owned();
        builder.domain_with(books, policy).extension(blocking)
    })
}

fn open(client: &Client, domain: &str) -> String {
    client
        .ask(&format!(
            "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' \
             to='{domain}' version='1.0'>"
        ))
        .concat()
}

fn login(world: &World, node: &str, authzid: &str) -> (Client, String) {
    let client = world.connect();
    let _features = open(&client, BOOKS);
    let plain = STANDARD.encode(format!("{authzid}\0{node}\0{PASSWORD}"));
    let answer = client.ask(&format!(
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{plain}</auth>"
    ));
    (client, answer.concat())
}

/// Online at the second domain.
fn reader(world: &World, node: &str) -> Client {
    let (client, answer) = login(world, node, "");
    assert!(answer.contains("<success"), "{node}: {answer}");
    let _features = open(&client, BOOKS_IN_ASCII);
    let bound = client.answer(
        "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
         <resource>r</resource></bind></iq>",
    );
    assert!(bound.contains(&format!("@{BOOKS}/r</jid>")), "{bound}");
    let _own = client.ask("<presence/>");
    client
}

fn roster_set(jid: &str) -> String {
    format!(
        "<iq type='set' id='s'><query xmlns='jabber:iq:roster'><item jid='{jid}'/></query></iq>"
    )
}

fn removal(jid: &str) -> String {
    roster_set(jid).replace("'/></query>", "' subscription='remove'/></query>")
}

fn block(jid: &str) -> String {
    format!(
        "<iq type='set' id='b'><block xmlns='urn:xmpp:blocking'><item jid='{jid}'/></block></iq>"
    )
}

fn listed(client: &Client, query: &str) -> Vec<String> {
    let answer = client.answer(&format!("<iq type='get' id='l'>{query}</iq>"));
    let jids = answer.split(" jid='").skip(1);
    jids.filter_map(|rest| Some(rest.split('\'').next()?.to_owned())).collect()
}

const ROSTER: &str = "<query xmlns='jabber:iq:roster'/>";
const BLOCKED: &str = "<blocklist xmlns='urn:xmpp:blocking'/>";

/// The code points that `jid` leaves in a form that it would change once more.
fn lookalikes() -> impl Iterator<Item = char> {
    ('\0'..=char::MAX).filter(|c| {
        let Ok(once) = NodePart::new(c.encode_utf8(&mut [0; 4])).map(|part| part.into_owned())
        else {
            return false;
        };
        !NodePart::new(&once).is_ok_and(|again| again.as_str() == once.as_str())
    })
}

#[test]
fn jid_2_a_lookalike_is_nobody() {
    let world = world();
    let alice = reader(&world, "alice");
    let bob = reader(&world, "bob");
    let mut tried = 0;
    for c in lookalikes() {
        tried += 1;
        let node = format!("{c}lice");
        assert!(login(&world, &node, "").1.contains("<not-authorized"), "{node}");
        let jid = format!("{node}@{BOOKS}");
        let answers = [
            bob.answer(&format!("<message to='{jid}'><body>x</body></message>")),
            bob.answer(&format!("<presence to='{jid}' type='subscribe'/>")),
            bob.answer(&roster_set(&jid)),
            bob.answer(&block(&jid)),
        ];
        for answer in answers {
            assert!(answer.contains("<jid-malformed"), "{jid}: {answer}");
        }
    }
    assert_eq!(tried, 132);
    assert_eq!(alice.received(), [""; 0]);
    assert_eq!(listed(&bob, ROSTER), [""; 0]);
    // What every lookalike was once normalised to is alice, whoever is online.
    for spelling in [format!("Alice@{BOOKS}/r"), format!("ALICE@{BOOKS_IN_ASCII}.")] {
        bob.send(&format!("<message to='{spelling}' type='chat'><body>x</body></message>"));
        assert_eq!(alice.received().len(), 1, "{spelling}");
    }
}

#[test]
fn jid_2_a_host_brings_no_lookalike_in() {
    let world = world();
    let juliet = world.online("juliet", "r");
    // `jid` says that this is `Romeo@example.com`.
    let romeo = BareJid::new("\u{1d3f}omeo@example.com").unwrap();
    assert_eq!(romeo.as_str(), "Romeo@example.com");
    let credentials = now(world.stores().accounts.credentials(&juliet.session().jid().to_bare()));
    let refused =
        now(world.stores().accounts.set_credentials(&romeo, credentials.unwrap().unwrap()));
    assert!(refused.is_err());
    for from in ["\u{1d3f}omeo@remote.example", "a@\u{1806}", "a@remote.example/"] {
        let message = Stanza::message().from(from).to("juliet@example.com/r");
        world.server().send(message.build());
        world.settle();
        assert_eq!(juliet.received(), [""; 0], "{from}");
    }
}

#[test]
fn jid_3_a_domain_has_one_spelling() {
    let world = world();
    for spelling in [BOOKS, BOOKS_IN_ASCII, "BÜCHER.Example.", "XN--BCHER-KVA.EXAMPLE."] {
        let client = world.connect();
        let header = open(&client, spelling);
        assert!(header.contains(&format!(" from='{BOOKS}'")), "{spelling}: {header}");
        let authzid = format!("Alice@{spelling}");
        let (_, answer) = login(&world, "alice", &authzid);
        assert!(answer.contains("<success"), "{authzid}: {answer}");
    }
    let (alice, bob) = (reader(&world, "alice"), reader(&world, "bob"));
    for spelling in [BOOKS, BOOKS_IN_ASCII, "BÜCHER.Example.", "bücher\u{3002}example."] {
        bob.send(&format!("<message to='alice@{spelling}/r'><body>x</body></message>"));
        assert_eq!(alice.received().len(), 1, "{spelling}");
        let result = bob.answer(&roster_set(&format!("alice@{spelling}")));
        assert!(result.contains("type='result'"), "{result}");
        assert_eq!(listed(&bob, ROSTER), [format!("alice@{BOOKS}")], "{spelling}");
    }
    let _pushes = bob.received();
    for spelling in [BOOKS_IN_ASCII, "Bücher.example."] {
        bob.send(&block(&format!("alice@{spelling}")));
        assert_eq!(listed(&bob, BLOCKED), [format!("alice@{BOOKS}")], "{spelling}");
        let _pushes = bob.received();
        alice.send(&format!("<message to='bob@{BOOKS_IN_ASCII}'><body>x</body></message>"));
        assert_eq!(bob.received(), [""; 0], "the block holds");
    }
}

#[test]
fn jid_3_what_comes_from_elsewhere_is_spelled_as_here() {
    let elsewhere = Elsewhere::default();
    let world = World::with(|builder, _| builder.router(elsewhere.clone()));
    world.roster("juliet", "romeo@bücher.example", Subscription::To);
    let juliet = world.online("juliet", "r");
    let presence = Stanza::presence().from(&format!("Romeo@{BOOKS_IN_ASCII}./Home"));
    world.server().send(presence.to("juliet@example.com").build());
    world.settle();
    let [presence] = &juliet.received()[..] else { panic!("one presence") };
    assert!(presence.contains(&format!(" from='romeo@{BOOKS}/Home'")), "{presence}");
}

#[test]
fn jid_4_no_part_is_empty() {
    let world = world();
    let bob = reader(&world, "bob");
    for jid in
        ["a@\u{1806}", "\u{1806}", "a@\u{1806}.z", "\u{1806}@z", "@z", "a@", ".", "a@.", "a@z.."]
    {
        for answer in [
            bob.answer(&roster_set(jid)),
            bob.answer(&block(jid)),
            bob.answer(&format!("<presence to='{jid}' type='subscribe'/>")),
        ] {
            assert!(answer.contains("<jid-malformed"), "{jid}: {answer}");
        }
    }
    assert!(login(&world, "\u{1806}", "").1.contains("<not-authorized"));
}

#[test]
fn jid_5_what_usernames_may_not_hold_is_no_account_item_or_block() {
    let world = world();
    let bob = reader(&world, "bob");
    for node in ["\u{2665}", "a\u{2603}", "\u{fb01}x", "a\u{ad}b", "\u{661}a"] {
        assert!(login(&world, node, "").1.contains("<not-authorized"), "{node}");
        let jid = format!("{node}@remote.example");
        for request in [roster_set(&jid), block(&jid)] {
            let answer = bob.answer(&request);
            assert!(answer.contains("<jid-malformed"), "{jid}: {answer}");
        }
    }
    for node in ["jürgen", "γιώργος", "юлия", "\u{10d2}\u{10d8}", "\u{13a0}", "\u{ff41}b", "龍"]
    {
        assert!(login(&world, node, "").1.contains("<success"), "{node}");
        let result = bob.ask(&roster_set(&format!("{node}@remote.example"))).concat();
        assert!(result.contains("type='result'"), "{node}: {result}");
    }
}

/// Through the wire: whatever a client says, what is kept is in normal form.
#[test]
fn jid_1_what_is_kept_is_in_normal_form() {
    let world = world();
    let bob = reader(&world, "bob");
    let sample = ('\0'..=char::MAX).step_by(1997).chain(('\u{80}'..'\u{20000}').step_by(331));
    for c in sample
        .filter(|c| !c.is_control() && !matches!(c, '&' | '<' | '\'' | '\u{fffe}' | '\u{ffff}'))
    {
        for jid in
            [format!("a{c}@z.example"), format!("a@{c}z.example"), format!("a@z.example/{c}")]
        {
            let _answers = bob.ask(&roster_set(&jid));
            let _answers = bob.ask(&block(&jid));
        }
        // LIMIT-20
        world.advance(Duration::from_millis(100));
    }
    for query in [ROSTER, BLOCKED] {
        let kept = listed(&bob, query);
        assert!(kept.len() > 5);
        for jid in kept {
            let bare = jid.split('/').next().unwrap();
            assert!(address::bare(bare).is_ok_and(|normal| normal.as_str() == bare), "{jid:?}");
        }
    }
}

/// A store that kept rosters before addresses had one spelling.
struct Old {
    inner: Arc<dyn RosterStore>,
    strays: Arc<Mutex<Vec<Stray>>>,
}

impl RosterStore for Old {
    fn load(&self, account: &BareJid) -> StoreFuture<StoredRoster> {
        let (load, strays) = (self.inner.load(account), Arc::clone(&self.strays));
        Box::pin(async move {
            let mut stored = load.await?;
            stored.strays = strays.lock().unwrap().clone();
            stored.unread = 2;
            Ok(stored)
        })
    }

    fn apply(&self, account: &BareJid, change: RosterChange) -> StoreFuture<()> {
        if let Some(text) = &change.remove_stray {
            self.strays.lock().unwrap().retain(|stray| stray.jid != *text);
        }
        self.inner.apply(account, change)
    }

    fn apply_pair(
        &self,
        first: &BareJid,
        first_change: RosterChange,
        second: &BareJid,
        second_change: RosterChange,
    ) -> StoreFuture<()> {
        self.inner.apply_pair(first, first_change, second, second_change)
    }

    fn requests(&self, account: &BareJid) -> StoreFuture<Vec<SubscriptionRequest>> {
        self.inner.requests(account)
    }

    fn clear(&self, account: &BareJid) -> StoreFuture<()> {
        self.inner.clear(account)
    }
}

const STRAYS: [&str; 5] = ["", "Romeo@example.com", "a@", "a@.z", "x@xn--bcher-kva.example"];

fn old_world() -> (World, Arc<Mutex<Vec<Stray>>>) {
    let strays = STRAYS.map(|text| Stray::new(text.into()));
    let strays = Arc::new(Mutex::new(Vec::from(strays)));
    let mut stores = Stores::memory();
    stores.rosters = Arc::new(Old { inner: stores.rosters, strays: Arc::clone(&strays) });
    let blocks = Arc::clone(&stores.blocks);
    (World::with_stores(stores, |builder, _| builder.extension(Blocking::new(blocks))), strays)
}

#[test]
fn jid_6_items_from_before_are_shown_and_can_be_removed() {
    let (world, strays) = old_world();
    world.friends("juliet", "romeo");
    let romeo = world.online("romeo", "r");
    let juliet = world.online("juliet", "r");
    assert_eq!(world.metrics().unread, 4, "two accounts");
    assert_eq!(romeo.received().len(), 1, "juliet's presence, once");
    let mut shown = listed(&juliet, ROSTER);
    assert_eq!(shown.iter().filter(|jid| STRAYS.contains(&&***jid)).count(), STRAYS.len());
    assert_eq!(shown.len(), STRAYS.len() + 1);
    for text in STRAYS {
        let told = juliet.ask(&removal(text)).concat();
        assert!(told.contains("<iq type='result'") || told.contains("type='result'"), "{told}");
        let push = format!("<item jid='{text}' subscription='remove'/>");
        assert!(told.contains(&push), "{text}: {told}");
        shown.retain(|jid| jid != text);
        assert_eq!(listed(&juliet, ROSTER), shown, "{text}");
    }
    assert!(strays.lock().unwrap().is_empty(), "gone from the store too");
    assert_eq!(shown, ["romeo@example.com"], "who was not meant");
    assert_eq!(romeo.received(), [""; 0]);
    let again = juliet.answer(&removal("a@"));
    assert!(again.contains("<jid-malformed"), "{again}");
}

#[test]
fn jid_6_an_item_from_before_is_nobodys() {
    let (world, _strays) = old_world();
    let romeo = world.online("romeo", "r");
    let juliet = world.online("juliet", "r");
    let _presence = juliet.ask("<presence><show>away</show></presence>");
    assert_eq!(romeo.received(), [""; 0], "no presence by the stray item");
    let answer = juliet.answer(&removal("romeo@example.com"));
    assert!(answer.contains("<item-not-found"), "{answer}");
}

#[test]
fn jid_6_blocks_from_before_are_shown_block_nobody_and_can_be_removed() {
    let (world, _strays) = old_world();
    let account = world.account("juliet");
    let texts = vec!["Romeo@example.com".to_owned(), "a@".to_owned()];
    now(world.stores().blocks.apply(&account, texts.clone(), vec![])).unwrap();
    let (juliet, romeo) = (world.online("juliet", "r"), world.online("romeo", "r"));
    assert_eq!(listed(&juliet, BLOCKED), texts);
    romeo.send("<message to='juliet@example.com/r'><body>x</body></message>");
    assert_eq!(juliet.received().len(), 1);
    for text in texts {
        let told =
            juliet.ask(&block(&text).replace("block ", "unblock ").replace("/block", "/unblock"));
        assert!(told.concat().contains("type='result'"), "{text}: {told:?}");
    }
    assert_eq!(listed(&juliet, BLOCKED), [""; 0]);
    assert!(now(world.stores().blocks.load(&account)).unwrap().is_empty());
}

#[test]
fn block_2_a_resource_that_only_its_domain_knows_can_be_blocked() {
    let world = world();
    let bob = reader(&world, "bob");
    let occupant = "room@muc.example/\u{1f98a} fox";
    assert!(bob.ask(&block(occupant)).concat().contains("type='result'"));
    assert_eq!(listed(&bob, BLOCKED), [occupant]);
    for (from, gets_in) in [(occupant, 0), ("room@muc.example/\u{1f43a}", 1)] {
        let message = Stanza::message().from(from).to(&format!("bob@{BOOKS}/r"));
        world.server().send(message.build());
        world.settle();
        assert_eq!(bob.received().len(), gets_in, "{from}");
    }
}

#[test]
fn jid_6_a_hosts_store_may_hold_what_is_not_normal() {
    let world = World::new();
    let account = world.account("juliet");
    let mut item = Item::new(BareJid::new("\u{1d3f}omeo@example.com").unwrap());
    item.subscription = Subscription::Both;
    now(world.stores().rosters.apply(&account, RosterChange::new().version(1).put(item))).unwrap();
    let (romeo, juliet) = (world.online("romeo", "r"), world.online("juliet", "r"));
    assert_eq!(romeo.received(), [""; 0]);
    assert_eq!(listed(&juliet, ROSTER), ["Romeo@example.com"]);
    assert!(juliet.ask(&removal("Romeo@example.com")).concat().contains("type='result'"));
    assert!(now(world.stores().rosters.load(&account)).unwrap().items.is_empty());
}
