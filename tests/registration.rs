//! Accounts that clients make, change and remove (rules REG-1 to REG-9, LIMIT-33).

use crate::common::{slow, wire};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use slow::{Mode, Slow};
use wire::{Client, PASSWORD, World, now};
use xmpp_session::connection::{Recorder, SharedConnection};
use xmpp_session::extension::{Extension, IqReply, UnauthenticatedIq, Wants};
use xmpp_session::jid::BareJid;
use xmpp_session::minidom::Element;
use xmpp_session::rules::roster::Subscription;
use xmpp_session::server::{
    AccountError, DomainPolicy, Limits, Offload, Rate, ServerBuilder, Transport,
};
use xmpp_session::store::{
    AccountStore as _, InvitationStore, MemoryInvitations, StoreError, StoreFuture,
    StoredInvitation,
};
use xmpp_session::stream::Limit;
use xmpp_session::xep::{Invitations, Invite, Registration};

const NS: &str = "urn:ietf:params:xml:ns:xmpp-sasl";
const CLOSED: &str = "<stream:error><not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>\
    </stream:error></stream:stream>";
const GET: &str = "<iq type='get' id='g'><query xmlns='jabber:iq:register'/></iq>";

fn set(name: &str, password: &str) -> String {
    format!(
        "<iq type='set' id='s'><query xmlns='jabber:iq:register'><username>{name}</username>\
         <password>{password}</password></query></iq>"
    )
}

fn preauth(token: &str) -> String {
    format!(
        "<iq type='set' id='p' to='example.com'>\
         <preauth xmlns='urn:xmpp:pars:0' token='{token}'/></iq>"
    )
}

fn done(answer: &str) -> bool {
    answer.starts_with("<iq type='result'") || answer.contains(" type='result'")
}

/// The condition of an error.
fn refused(answer: &str) -> &str {
    let rest = answer.split("<error type='").nth(1).unwrap_or_else(|| panic!("{answer}"));
    let name = rest.split("'><").nth(1).unwrap_or_default();
    name.split(' ').next().unwrap_or_default()
}

type Builder = ServerBuilder<Recorder>;

fn limits(strangers: Option<Rate>) -> Limits {
    let mut limits = Limits::default();
    limits.strangers = strangers;
    limits
}

fn world(registration: Registration) -> World {
    world_with(registration, |builder| builder)
}

fn world_with(registration: Registration, more: impl FnOnce(Builder) -> Builder + Clone) -> World {
    World::with(|builder, _| more(builder.limits(limits(None))).extension(registration))
}

fn invited() -> (World, Invitations) {
    let mut made = None;
    let world = World::alone(|builder, environment| {
        let invitations = Invitations::new(environment, MemoryInvitations::new(10));
        made = Some(invitations.clone());
        builder.limits(limits(None)).extension(Registration::invited(invitations))
    });
    (world, made.unwrap())
}

fn from(source: u8) -> Transport {
    Transport::new().secure(true).source(format!("192.0.2.{source}"))
}

fn opened(world: &World) -> (Client, String) {
    let client = world.accept(from(1));
    client.open();
    let features = client.received().concat();
    (client, features)
}

fn logs_in(client: &Client, name: &str, password: &str) -> bool {
    let plain = STANDARD.encode(format!("\0{name}\0{password}"));
    let auth = format!("<auth xmlns='{NS}' mechanism='PLAIN'>{plain}</auth>");
    client.ask(&auth) == [format!("<success xmlns='{NS}'/>")]
}

fn jid(name: &str) -> BareJid {
    BareJid::new(&format!("{name}@example.com")).unwrap()
}

#[test]
fn reg_1_nothing_is_answered_before_authentication_unless_the_host_wants_it() {
    for world in [&World::new(), &world(Registration::closed())] {
        let (client, features) = opened(world);
        assert!(!features.contains("register"), "{features}");
        assert_eq!(client.ask(GET).concat(), CLOSED);
    }
    let world = world(Registration::open());
    let (client, features) = opened(&world);
    assert!(features.contains("<register xmlns='http://jabber.org/features/iq-register'/>"));
    assert!(done(&client.answer(GET)));
}

#[test]
fn reg_1_all_else_closes_the_stream_as_ever() {
    let world = world(Registration::open());
    for (xml, whole) in [
        ("<message to='example.com'>", false),
        ("<presence>", false),
        ("<iq type='get' id='g'><query xmlns='jabber:iq:roster'/></iq>", true),
        ("<iq type='get' id='g'><ping xmlns='urn:xmpp:ping'/></iq>", true),
        ("<iq type='result' id='g'/>", true),
        ("<iq type='error' id='g'><query xmlns='jabber:iq:register'/></iq>", true),
        ("<iq type='get'><query xmlns='jabber:iq:register'/></iq>", true),
        ("<iq type='get' id='g'><query xmlns='jabber:iq:register'/><x xmlns='y'/></iq>", true),
        ("<iq type='get' id='g' to='example.net'><query xmlns='jabber:iq:register'/></iq>", true),
        ("<iq type='get' id='g' to='a@example.com'><query xmlns='jabber:iq:register'/></iq>", true),
        ("<iq type='get' id='g' to='@'><query xmlns='jabber:iq:register'/></iq>", true),
    ] {
        let (client, _) = opened(&world);
        assert_eq!(client.ask(xml).concat(), CLOSED, "{xml}, {whole}");
    }
    // Not on a stream that anybody may read, nor before its header.
    let mut policy = DomainPolicy::default();
    policy.tls_required = false;
    let plain = world_with(Registration::open(), |builder| {
        builder.domain_with("example.net".parse().unwrap(), policy)
    });
    for transport in [Transport::new().starttls(true)] {
        for to in ["example.com", "example.net"] {
            let client = plain.accept(transport.clone());
            client.send(&format!(
                "<stream:stream xmlns='jabber:client' \
                 xmlns:stream='http://etherx.jabber.org/streams' to='{to}' version='1.0'>"
            ));
            let features = client.received().concat();
            assert!(!features.contains("register"), "{features}");
            assert_eq!(client.ask(GET).concat(), CLOSED, "{to}");
        }
    }
    // With an address, and a name that nobody believes.
    let (client, _) = opened(&world);
    let answer = client.answer(
        "<iq type='get' id='g' from='admin@example.com' to='example.com'>\
         <query xmlns='jabber:iq:register'/></iq>",
    );
    assert!(done(&answer) && answer.contains("from='example.com'"), "{answer}");
    assert!(!answer.contains("admin"), "{answer}");
}

#[test]
fn reg_1_nothing_is_made_of_tls_early_data() {
    let world = world(Registration::open());
    let client = world.accept(from(1));
    client.driver(|driver| driver.early_data(true));
    client.open();
    let _features = client.received();
    for xml in [GET.to_owned(), set("juliet", "x")] {
        assert_eq!(refused(&client.answer(&xml)), "unexpected-request");
    }
    assert!(now(world.stores().accounts.credentials(&jid("juliet"))).unwrap().is_none());
    client.driver(|driver| driver.early_data(false));
    assert!(done(&client.answer(&set("juliet", "x"))));
}

#[test]
fn reg_2_a_client_makes_an_account_and_logs_in_on_the_same_stream() {
    let world = world(Registration::open());
    let (client, _) = opened(&world);
    let form = client.answer(GET);
    for field in ["<username/>", "<password/>", "<instructions>"] {
        assert!(form.contains(field), "{form}");
    }
    let answer = client.answer(&set("Juliet", "r0m30"));
    assert!(done(&answer), "{answer}");
    assert!(!answer.contains("r0m30"));
    let stored = now(world.stores().accounts.credentials(&jid("juliet"))).unwrap().unwrap();
    assert!(stored.scram_sha_1.is_some() && stored.scram_sha_256.is_some());
    // Once for each stream (XEP-0077 §3.1.1).
    assert_eq!(refused(&client.answer(&set("romeo", "x"))), "not-acceptable");
    assert_eq!(refused(&client.answer(GET)), "not-acceptable");
    assert!(logs_in(&client, "juliet", "r0m30"));
    client.open();
    assert!(client.received().concat().contains("<bind "));
    // Behind authentication it is an iq like any other.
    let answer = client.answer(GET);
    assert_eq!(refused(&answer), "unexpected-request");
}

#[test]
fn reg_2_what_is_missing_or_no_name_is_refused_and_may_be_corrected() {
    let world = world(Registration::open());
    world.account("romeo");
    let query = |fields: &str| {
        format!("<iq type='set' id='s'><query xmlns='jabber:iq:register'>{fields}</query></iq>")
    };
    let cases = [
        (query(""), "not-acceptable"),
        (query("<username>a</username>"), "not-acceptable"),
        (query("<password>a</password>"), "not-acceptable"),
        (query("<username/><password/>"), "not-acceptable"),
        (query("<username xmlns='x'>a</username><password>a</password>"), "not-acceptable"),
        (query("<remove/>"), "unexpected-request"),
        (set("a@example.com", "b"), "not-acceptable"),
        (set("a b", "c"), "not-acceptable"),
        (set("a/b", "c"), "not-acceptable"),
        (set(&"a".repeat(1024), "c"), "not-acceptable"),
        (set("\u{212a}ing", "c"), "not-acceptable"),
        (set("bob", "\u{ad}"), "not-acceptable"),
        (set("bob", "a\u{fff9}"), "not-acceptable"),
        (set("romeo", "c"), "conflict"),
        (set("ROMEO", "c"), "conflict"),
    ];
    for (n, (xml, condition)) in cases.into_iter().enumerate() {
        let (client, _) = opened(&world);
        let answer = client.answer(&xml);
        assert_eq!(refused(&answer), condition, "{xml}");
        assert!(!answer.contains("<password"), "{answer}");
        // Each hash takes its time.
        if n % 5 == 0 {
            assert!(done(&client.answer(&set(&format!("n{n}"), "c"))), "{xml}");
        }
    }
    assert!(logs_in(&opened(&world).0, "romeo", PASSWORD), "as it was");
}

#[test]
fn reg_3_without_an_invitation_nobody_learns_which_names_are_taken() {
    let (world, _) = invited();
    world.account("romeo");
    let (client, features) = opened(&world);
    assert!(features.contains("<register xmlns='urn:xmpp:ibr-token:0'/>"), "{features}");
    for xml in [GET.to_owned(), set("romeo", "x"), set("juliet", "x"), set("admin", "x")] {
        assert_eq!(refused(&client.answer(&xml)), "not-allowed", "{xml}");
    }
    assert!(now(world.stores().accounts.credentials(&jid("juliet"))).unwrap().is_none());
}

type Hash = Box<dyn FnOnce() + Send>;

/// Hashes when the test says so.
#[derive(Clone, Default)]
struct Threads(Arc<Mutex<Vec<Hash>>>);

impl Offload for Threads {
    fn run(&self, work: Hash) {
        self.0.lock().unwrap().push(work);
    }
}

#[test]
fn reg_4_of_those_who_want_a_name_one_gets_it_and_no_thread_that_serves_hashes() {
    let threads = Threads::default();
    let hashing = threads.clone();
    let world = World::with(|builder, _| {
        let mut limits = limits(None);
        limits.hashes = 64;
        builder.limits(limits).hashing(hashing).extension(Registration::open())
    });
    let clients: Vec<_> = (0..4)
        .map(|n| {
            let client = world.accept(from(n));
            client.open();
            let _features = client.received();
            client.send(&set("juliet", &format!("password {n}")));
            client
        })
        .collect();
    assert_eq!(threads.0.lock().unwrap().len(), 4, "all of them are hashed elsewhere");
    assert!(clients.iter().all(|client| client.received().is_empty()));
    let work = std::mem::take(&mut *threads.0.lock().unwrap());
    for hash in work.into_iter().rev() {
        hash();
        world.settle();
    }
    let answers: Vec<_> = clients.iter().map(|client| client.received().concat()).collect();
    assert_eq!(answers.iter().filter(|answer| done(answer)).count(), 1, "{answers:?}");
    let conflicts = answers.iter().filter(|answer| answer.contains("<conflict ")).count();
    assert_eq!(conflicts, 3, "{answers:?}");
    let winner = answers.iter().position(|answer| done(answer)).unwrap();
    let (client, _) = opened(&world);
    let plain = STANDARD.encode(format!("\0juliet\0password {winner}"));
    client.send(&format!("<auth xmlns='{NS}' mechanism='PLAIN'>{plain}</auth>"));
    std::mem::take(&mut *threads.0.lock().unwrap()).into_iter().for_each(|hash| hash());
    world.settle();
    assert_eq!(client.received(), [format!("<success xmlns='{NS}'/>")]);
}

#[test]
fn reg_4_what_was_asked_for_is_done_though_the_client_is_gone() {
    let threads = Threads::default();
    let hashing = threads.clone();
    let world = world_with(Registration::open(), |builder| builder.hashing(hashing));
    let (client, _) = opened(&world);
    client.send(&set("juliet", "r0m30"));
    client.lose();
    // Nothing is hashed for somebody who has begun to wait; the work itself goes on.
    std::mem::take(&mut *threads.0.lock().unwrap()).into_iter().for_each(|hash| hash());
    world.settle();
    assert!(now(world.stores().accounts.credentials(&jid("juliet"))).unwrap().is_some());
}

#[test]
fn reg_5_names_of_roles_are_nobodys() {
    let world = world(Registration::open().reserve(["King", "stra\u{df}e"]));
    for name in ["admin", "Postmaster", "ABUSE", "king", "KING", "strasse", "Stra\u{df}e"] {
        let (client, _) = opened(&world);
        assert_eq!(refused(&client.answer(&set(name, "x"))), "conflict", "{name}");
    }
}

#[test]
fn reg_6_a_client_changes_its_password() {
    let world = world(Registration::closed());
    let (one, other) = (world.online("juliet", "balcony"), world.online("juliet", "garden"));
    let romeo = world.online("romeo", "orchard");
    let answer = one.answer(GET);
    assert!(answer.contains("<registered/><username>juliet</username><password/>"), "{answer}");
    assert!(!answer.contains(PASSWORD));
    for (xml, condition) in [
        (set("romeo", "stolen"), "bad-request"),
        (set("", "x"), "bad-request"),
        (set("juliet", ""), "bad-request"),
        (set("juliet", "\u{ad}"), "not-acceptable"),
        (
            "<iq type='set' id='s' to='romeo@example.com'><query xmlns='jabber:iq:register'>\
             <username>romeo</username><password>x</password></query></iq>"
                .to_owned(),
            "service-unavailable",
        ),
    ] {
        assert_eq!(refused(&one.answer(&xml)), condition, "{xml}");
    }
    assert!(other.is_connected() && logs_in(&opened(&world).0, "juliet", PASSWORD));
    let half = opened(&world).0;
    assert!(logs_in(&half, "juliet", PASSWORD));
    let answer = one.ask(&set("juliet", "new"));
    assert!(answer.iter().any(|answer| done(answer)), "{answer:?}");
    // DESTROY-18
    assert!(other.received().concat().contains("<reset "));
    assert!(half.received().concat().contains("<reset "));
    assert!(done(&one.answer(GET)) && romeo.is_connected());
    assert!(!logs_in(&opened(&world).0, "juliet", PASSWORD));
    assert!(logs_in(&opened(&world).0, "juliet", "new"));
    assert!(logs_in(&opened(&world).0, "romeo", PASSWORD));
}

#[test]
fn reg_6_a_disabled_account_stays_so_and_one_without_a_password_gets_none() {
    let world = world(Registration::closed());
    let client = world.online("juliet", "balcony");
    let mut found = now(world.accounts().credentials(&jid("juliet"))).unwrap().unwrap();
    found.disabled = true;
    world.accounts().insert(jid("juliet"), found);
    assert!(done(&client.answer(&set("juliet", "new"))));
    let found = now(world.accounts().credentials(&jid("juliet"))).unwrap().unwrap();
    assert!(found.disabled);
    now(world.accounts().remove(&jid("juliet"))).unwrap();
    assert_eq!(refused(&client.answer(&set("juliet", "x"))), "not-allowed");
    assert!(now(world.accounts().credentials(&jid("juliet"))).unwrap().is_none());
}

const REMOVE: &str =
    "<iq type='set' id='r'><query xmlns='jabber:iq:register'><remove/></query></iq>";

#[test]
fn reg_6_a_client_removes_its_account_and_hears_so() {
    let world = world(Registration::open());
    world.friends("juliet", "romeo");
    let romeo = world.online("romeo", "orchard");
    romeo.send("<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>");
    let (one, other) = (world.online("juliet", "balcony"), world.online("juliet", "garden"));
    let _before = (romeo.received(), other.received());
    let more = REMOVE.replace("<remove/>", "<remove/><username>juliet</username>");
    assert_eq!(refused(&one.answer(&more)), "bad-request");
    let said = one.ask(REMOVE);
    let said = said.concat();
    assert!(done(&said) && said.ends_with(CLOSED), "{said}");
    assert!(other.received().concat().ends_with(CLOSED));
    let told = romeo.received().concat();
    assert!(told.contains("type='unsubscribed'") && told.contains("type='unavailable'"), "{told}");
    assert!(now(world.stores().accounts.credentials(&jid("juliet"))).unwrap().is_none());
    assert!(now(world.stores().rosters.load(&jid("juliet"))).unwrap().items.is_empty());
    assert!(!logs_in(&opened(&world).0, "juliet", PASSWORD));
    // The name is free, and its next owner inherits nothing.
    let (next, _) = opened(&world);
    assert!(done(&next.answer(&set("juliet", "another"))));
}

#[test]
fn reg_6_a_removal_that_fails_is_none() {
    let slow = Slow::new();
    let stores = slow.stores();
    let world = World::with_stores(stores, |builder, _| builder.extension(Registration::open()));
    let client = world.online("juliet", "balcony");
    slow.set(Mode::Fail);
    let answer = client.answer(REMOVE);
    assert_eq!(refused(&answer), "internal-server-error");
    slow.set(Mode::Answer);
    assert!(client.is_connected() && logs_in(&opened(&world).0, "juliet", PASSWORD));
    let said = client.ask(REMOVE);
    assert!(done(&said.concat()), "{said:?}");
}

#[test]
fn reg_7_an_invitation_is_used_once() {
    let (world, invitations) = invited();
    let invite = || Invite::to("example.com".parse().unwrap());
    let made = now(invitations.create(invite())).unwrap();
    assert_eq!(made.uri, format!("xmpp:example.com?register;preauth={}", made.token));
    assert!(made.token.len() >= 32);
    let (client, _) = opened(&world);
    for wrong in ["", "x", &made.token[1..], &made.token.to_uppercase()] {
        if wrong != made.token {
            assert_eq!(refused(&client.answer(&preauth(wrong))), "item-not-found", "{wrong}");
        }
    }
    assert_eq!(refused(&client.answer(GET)), "not-allowed");
    assert!(done(&client.answer(&preauth(&made.token))));
    assert!(done(&client.answer(GET)));
    // What fails uses nothing.
    world.account("romeo");
    assert_eq!(refused(&client.answer(&set("romeo", "x"))), "conflict");
    // Two have it; the first one to finish has used it.
    let (second, _) = opened(&world);
    assert!(done(&second.answer(&preauth(&made.token))));
    assert!(done(&client.answer(&set("juliet", "x"))));
    assert_eq!(refused(&second.answer(&set("tybalt", "x"))), "item-not-found");
    let (third, _) = opened(&world);
    assert_eq!(refused(&third.answer(&preauth(&made.token))), "item-not-found");
    assert!(now(world.stores().accounts.credentials(&jid("tybalt"))).unwrap().is_none());
}

#[test]
fn reg_7_of_two_at_the_same_time_one_uses_it() {
    let threads = Threads::default();
    let hashing = threads.clone();
    let mut made = None;
    let world = World::alone(|builder, environment| {
        let invitations = Invitations::new(environment, MemoryInvitations::new(10));
        made = Some(invitations.clone());
        let builder = builder.limits(limits(None)).hashing(hashing);
        builder.extension(Registration::invited(invitations))
    });
    let invitation = now(made.unwrap().create(Invite::to("example.com".parse().unwrap()))).unwrap();
    let (one, two) = (opened(&world).0, opened(&world).0);
    for client in [&one, &two] {
        assert!(done(&client.answer(&preauth(&invitation.token))));
    }
    one.send(&set("juliet", "x"));
    two.send(&set("romeo", "x"));
    assert_eq!(refused(&two.received().concat()), "item-not-found");
    std::mem::take(&mut *threads.0.lock().unwrap()).into_iter().for_each(|hash| hash());
    world.settle();
    assert!(done(&one.received().concat()));
    assert!(now(world.stores().accounts.credentials(&jid("romeo"))).unwrap().is_none());
}

#[cfg(feature = "sqlite")]
#[test]
fn reg_7_in_a_file_it_outlives_the_server_and_is_used_once() {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};
    use xmpp_session::store::Sqlite;

    fn waiting<T>(call: impl Future<Output = T>) -> T {
        let mut call = pin!(call);
        loop {
            if let Poll::Ready(done) = call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return done;
            }
            std::thread::yield_now();
        }
    }
    let directory = std::env::temp_dir().join(format!("xmpp-session-reg-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let file = directory.join("data.sqlite");
    let started = || {
        let store = Sqlite::open(&file).unwrap();
        let mut made = None;
        let world = World::alone(|builder, environment| {
            let invitations = Invitations::new(environment, store);
            made = Some(invitations.clone());
            builder.limits(limits(None)).extension(Registration::invited(invitations))
        });
        (world, made.unwrap())
    };
    let answered = |world: &World, client: &Client| {
        for _ in 0..10_000 {
            world.settle();
            let got = client.received().concat();
            if !got.is_empty() {
                return got;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("no answer");
    };
    let shows = |world: &World, token: &str| {
        let (client, _) = opened(world);
        client.send(&preauth(token));
        let answer = answered(world, &client);
        (client, answer)
    };

    let (world, invitations) = started();
    let hour = Duration::from_secs(3600);
    let invite = || Invite::to("example.com".parse().unwrap());
    let made = waiting(invitations.create(invite())).unwrap();
    let short = waiting(invitations.create(invite().valid_for(hour))).unwrap();
    drop((world, invitations));
    let mut bytes = std::fs::read(&file).unwrap();
    bytes.extend(std::fs::read(directory.join("data.sqlite-wal")).unwrap_or_default());
    assert!(bytes.windows(11).any(|window| window == b"example.com"), "the right file");
    assert!(!bytes.windows(40).any(|window| window == made.token.as_bytes()));

    let (world, _invitations) = started();
    let [(one, first), (two, second)] = [shows(&world, &made.token), shows(&world, &made.token)];
    assert!(done(&first) && done(&second), "{first} {second}");
    one.send(&set("juliet", "x"));
    two.send(&set("romeo", "x"));
    let answers = [answered(&world, &one), answered(&world, &two)];
    assert_eq!(answers.iter().filter(|answer| done(answer)).count(), 1, "{answers:?}");
    assert!(done(&shows(&world, &short.token).1));

    // Used for good, and gone a day after it has expired.
    drop((world, _invitations));
    let (world, invitations) = started();
    assert_eq!(refused(&shows(&world, &made.token).1), "item-not-found");
    world.advance(hour * 26);
    waiting(invitations.create(invite())).unwrap();
    drop((world, invitations));
    let kept = rusqlite::Connection::open(&file).unwrap();
    let kept = kept.query_row("SELECT count(*) FROM invitation", [], |row| row.get::<_, i64>(0));
    assert_eq!(kept.unwrap(), 1);
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn reg_7_who_does_not_wait_for_the_account_has_used_it_all_the_same() {
    let threads = Threads::default();
    let hashing = threads.clone();
    let mut made = None;
    let world = World::alone(|builder, environment| {
        let invitations = Invitations::new(environment, MemoryInvitations::new(10));
        made = Some(invitations.clone());
        let builder = builder.limits(limits(None)).hashing(hashing);
        builder.extension(Registration::invited(invitations))
    });
    let invitation = now(made.unwrap().create(Invite::to("example.com".parse().unwrap()))).unwrap();
    let (client, _) = opened(&world);
    assert!(done(&client.answer(&preauth(&invitation.token))));
    client.send(&set("juliet", "x"));
    client.lose();
    // Longer than a request is waited for.
    world.advance(Duration::from_secs(600));
    std::mem::take(&mut *threads.0.lock().unwrap()).into_iter().for_each(|hash| hash());
    world.settle();
    let (second, _) = opened(&world);
    assert_eq!(refused(&second.answer(&preauth(&invitation.token))), "item-not-found");
}

/// One that does not give away what it has.
#[derive(Default)]
struct Stuck(Mutex<Option<(String, StoredInvitation)>>);

impl InvitationStore for Stuck {
    fn put(&self, key: &str, invitation: StoredInvitation) -> StoreFuture<()> {
        *self.0.lock().unwrap() = Some((key.to_owned(), invitation));
        Box::pin(async { Ok(()) })
    }

    fn get(&self, _: &str) -> StoreFuture<Option<StoredInvitation>> {
        let found = self.0.lock().unwrap().clone().map(|(_, one)| one);
        Box::pin(async { Ok(found) })
    }

    fn take(&self, _: &str) -> StoreFuture<bool> {
        broken()
    }

    fn forget(&self, _: SystemTime) -> StoreFuture<()> {
        Box::pin(async { Ok(()) })
    }

    fn of_account(&self, _: &BareJid) -> StoreFuture<Vec<(String, StoredInvitation)>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

#[test]
fn reg_7_an_invitation_that_cannot_be_taken_makes_no_account() {
    let mut made = None;
    let world = World::alone(|builder, environment| {
        let invitations = Invitations::new(environment, Stuck::default());
        made = Some(invitations.clone());
        builder.limits(limits(None)).extension(Registration::invited(invitations))
    });
    let invitation = now(made.unwrap().create(Invite::to("example.com".parse().unwrap()))).unwrap();
    let (client, _) = opened(&world);
    assert!(done(&client.answer(&preauth(&invitation.token))));
    assert_eq!(refused(&client.answer(&set("juliet", "x"))), "internal-server-error");
    assert!(now(world.stores().accounts.credentials(&jid("juliet"))).unwrap().is_none());
}

#[test]
fn reg_7_it_expires_before_it_is_shown_and_not_after() {
    let (world, invitations) = invited();
    let invite = Invite::to("example.com".parse().unwrap()).valid_for(Duration::from_secs(60));
    let made = now(invitations.create(invite)).unwrap();
    world.advance(Duration::from_secs(50));
    let (client, _) = opened(&world);
    assert!(done(&client.answer(&preauth(&made.token))));
    world.advance(Duration::from_secs(20));
    let (late, _) = opened(&world);
    assert_eq!(refused(&late.answer(&preauth(&made.token))), "item-not-found");
    // XEP-0445 §4: but whoever finds it expired must not take it from those who have shown it.
    assert!(done(&client.answer(&set("juliet", "x"))));
}

#[test]
fn reg_7_another_domain_and_a_revoked_one_are_none() {
    let (world, invitations) = invited();
    let made = now(invitations.create(Invite::to("example.net".parse().unwrap()))).unwrap();
    assert_eq!(refused(&opened(&world).0.answer(&preauth(&made.token))), "item-not-found");
    let made = now(invitations.create(Invite::to("example.com".parse().unwrap()))).unwrap();
    assert!(now(invitations.revoke(&made.token)).unwrap());
    assert!(!now(invitations.revoke(&made.token)).unwrap());
    assert_eq!(refused(&opened(&world).0.answer(&preauth(&made.token))), "item-not-found");
}

#[test]
fn reg_8_a_name_is_kept_for_whom_it_is_for() {
    let mut made = None;
    let world = World::alone(|builder, environment| {
        let invitations = Invitations::new(environment, MemoryInvitations::new(10));
        made = Some(invitations.clone());
        let builder = builder.limits(limits(None));
        builder.extension(Registration::open_and_invited(invitations))
    });
    let invitations = made.unwrap();
    let hour = Duration::from_secs(3600);
    let invite = Invite::account("Juliet@example.com".parse().unwrap()).valid_for(hour);
    let juliet = now(invitations.create(invite)).unwrap();
    assert!(juliet.uri.starts_with("xmpp:juliet@example.com?register;preauth="), "{}", juliet.uri);
    let (other, _) = opened(&world);
    assert_eq!(refused(&other.answer(&set("juliet", "x"))), "conflict", "XEP-0445 §3");
    assert!(done(&other.answer(&set("romeo", "x"))));
    let (client, _) = opened(&world);
    assert!(done(&client.answer(&preauth(&juliet.token))));
    assert!(client.answer(GET).contains("<username>juliet</username>"));
    assert_eq!(refused(&client.answer(&set("tybalt", "x"))), "not-acceptable");
    assert!(done(&client.answer(&set("juliet", "x"))));
    // A role, if the host says so; and a name whose invitation has expired.
    let admin = now(invitations.create(Invite::account(jid("admin")))).unwrap();
    let (client, _) = opened(&world);
    assert!(done(&client.answer(&preauth(&admin.token))));
    assert!(done(&client.answer(&set("admin", "x"))));
    let invite = Invite::account(jid("nurse")).valid_for(hour);
    let _unused = now(invitations.create(invite)).unwrap();
    world.advance(hour);
    assert!(done(&opened(&world).0.answer(&set("nurse", "x"))));
}

#[test]
fn reg_8_the_link_holds_any_name() {
    let (_, invitations) = invited();
    let name = BareJid::new("a&b\u{e9}@example.com");
    let name = name.unwrap_or_else(|_| BareJid::new("ab\u{e9}@example.com").unwrap());
    let made = now(invitations.create(Invite::account(name))).unwrap();
    assert!(
        made.uri.is_ascii() && made.uri.contains("%C3%A9@example.com?register;"),
        "{}",
        made.uri
    );
}

#[test]
fn reg_9_who_has_invited_is_the_first_contact() {
    let (world, invitations) = invited();
    let romeo = world.online("romeo", "orchard");
    romeo.send("<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>");
    let _roster = romeo.received();
    let invite = Invite::to("example.com".parse().unwrap()).contact(jid("romeo"));
    let made = now(invitations.create(invite)).unwrap();
    let (client, _) = opened(&world);
    assert!(done(&client.answer(&preauth(&made.token))));
    assert!(done(&client.answer(&set("juliet", "x"))));
    let pushed = romeo.received().concat();
    assert!(pushed.contains("jid='juliet@example.com'") && pushed.contains("both"), "{pushed}");
    let roster = world.run(world.server().account(&jid("juliet")).roster()).unwrap();
    let item = roster.get("romeo@example.com").map(|item| item.subscription());
    assert_eq!(item, Some(Subscription::Both));
}

/// A store that fails.
struct Broken;

fn broken<T: Send + 'static>() -> StoreFuture<T> {
    Box::pin(async { Err(StoreError::failed("no route to the database")) })
}

impl InvitationStore for Broken {
    fn put(&self, _: &str, _: StoredInvitation) -> StoreFuture<()> {
        broken()
    }

    fn get(&self, _: &str) -> StoreFuture<Option<StoredInvitation>> {
        broken()
    }

    fn take(&self, _: &str) -> StoreFuture<bool> {
        broken()
    }

    fn forget(&self, _: SystemTime) -> StoreFuture<()> {
        broken()
    }

    fn of_account(&self, _: &BareJid) -> StoreFuture<Vec<(String, StoredInvitation)>> {
        broken()
    }
}

#[test]
fn reg_7_a_store_that_fails_lets_nobody_in_and_is_told() {
    let faults = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&faults);
    let world = World::alone(|builder, environment| {
        let invitations = Invitations::new(environment, Broken);
        let builder = builder.on_fault(move |fault| told.lock().unwrap().push(fault.to_string()));
        builder.extension(Registration::open_and_invited(invitations))
    });
    let (client, _) = opened(&world);
    assert_eq!(refused(&client.answer(&preauth("x"))), "internal-server-error");
    assert_eq!(refused(&client.answer(&set("juliet", "x"))), "internal-server-error");
    let faults = faults.lock().unwrap();
    assert!(faults.iter().all(|fault| fault.contains("no route to the database")), "{faults:?}");
    assert_eq!(faults.len(), 2);
}

#[test]
fn limit_33_a_source_makes_so_many_accounts() {
    let rate = Some(Rate::new(1, Duration::from_secs(60), 3));
    let world =
        World::with(|builder, _| builder.limits(limits(rate)).extension(Registration::open()));
    world.account("romeo");
    let attempt = |source: u8, name: &str| {
        let client = world.accept(from(source));
        client.open();
        let _features = client.received();
        client.answer(&set(name, "x"))
    };
    assert!(done(&attempt(1, "a")));
    let is_asked = |answer: &str| refused(answer) == "conflict";
    // What fails counts: it tells which names are taken.
    assert!(is_asked(&attempt(1, "romeo")) && is_asked(&attempt(1, "admin")));
    let answer = attempt(1, "c");
    assert_eq!(refused(&answer), "policy-violation");
    assert!(answer.contains("<error type='wait'"), "{answer}");
    assert!(is_asked(&attempt(2, "admin")));
    world.advance(Duration::from_secs(60));
    assert!(is_asked(&attempt(1, "admin")));
    let counted = world.metrics().limits;
    assert!(counted.iter().any(|(limit, count)| *limit == Limit::Strangers && *count == 1));
    // Those whose source nobody names are one.
    let unnamed = |name: &str| {
        let client = world.connect();
        client.open();
        let _features = client.received();
        client.answer(&set(name, "x"))
    };
    assert!(["admin"; 3].iter().all(|name| is_asked(&unnamed(name))));
    assert_eq!(refused(&unnamed("x")), "policy-violation");
}

#[test]
fn limit_33_a_stream_asks_so_often() {
    let world = world(Registration::open());
    let (client, _) = opened(&world);
    for _ in 0..20 {
        assert!(done(&client.answer(GET)));
    }
    assert!(client.ask(GET).concat().contains("<policy-violation "));
    // What floods the stream ends it before that.
    let (client, _) = opened(&world);
    let huge = set(&"a".repeat(20_000), "x");
    assert!(client.ask(&huge).concat().contains("<stream:error>"));
    assert!(!client.is_connected() || client.received().is_empty());
}

/// Answers a question of its own, and keeps something for the stream.
struct Riddle;

#[derive(Default)]
struct Tries(Mutex<u32>);

impl<C: SharedConnection> Extension<C> for Riddle {
    fn wants(&self) -> Wants {
        Wants::STRANGERS
    }

    fn takes(&self, _: &str, _: &str) -> bool {
        false
    }

    fn unauthenticated_iq(&self, request: &mut UnauthenticatedIq<'_, C>) -> Option<IqReply> {
        if !request.is("riddle", "urn:example:riddle") {
            return None;
        }
        assert_ne!(request.query().text(), "panic");
        let tries = request.kept::<Tries>();
        *tries.0.lock().unwrap() += 1;
        let answer = format!("{} {:?}", tries.0.lock().unwrap(), request.source());
        let answer = Element::builder("riddle", "urn:example:riddle").append(answer).build();
        Some(match &*request.query().text() {
            "later" => IqReply::Later(Box::pin(async move { Ok(Some(answer)) })),
            "never" => IqReply::Later(Box::pin(std::future::pending())),
            _ => IqReply::result(answer),
        })
    }
}

#[test]
fn reg_1_an_extension_answers_clients_that_have_not_authenticated() {
    let world = World::with(|builder, _| builder.extension(Riddle).extension(Registration::open()));
    let ask = |text: &str| {
        format!("<iq type='get' id='r'><riddle xmlns='urn:example:riddle'>{text}</riddle></iq>")
    };
    let (client, _) = opened(&world);
    assert!(client.answer(&ask("")).contains("1 Some("));
    assert!(client.answer(&ask("later")).contains("2 Some("));
    assert_eq!(refused(&client.answer(&ask("panic"))), "internal-server-error");
    assert!(done(&client.answer(GET)), "both are asked");
    // STREAM-23: the next one waits, and STREAM-8: TLS forgets.
    client.send(&ask("never"));
    client.send(GET);
    assert!(client.received().is_empty());
    assert_eq!(client.want(), None);
    world.advance(Duration::from_secs(61));
    let said = client.received().concat();
    assert!(said.contains("resource-constraint") || said.contains("policy-violation"), "{said}");
    let other = opened(&world).0;
    assert!(other.answer(&ask("")).contains("1 Some("), "each stream has its own");
}

#[test]
fn reg_4_the_host_makes_accounts_the_same_way() {
    let world = World::new();
    let account = world.server().account(&jid("juliet"));
    world.run(account.create("r0m30")).unwrap();
    assert!(matches!(world.run(account.create("x")), Err(AccountError::Exists)));
    assert!(matches!(
        world.run(world.server().account(&jid("romeo")).create("")),
        Err(AccountError::Password(_))
    ));
    let elsewhere = BareJid::new("juliet@example.org").unwrap();
    assert!(matches!(
        world.run(world.server().account(&elsewhere).create("x")),
        Err(AccountError::InvalidAddress)
    ));
    let (client, _) = opened(&world);
    assert!(logs_in(&client, "juliet", "r0m30"));
    world.run(account.set_password("t1b4lt", None)).unwrap();
    world.settle();
    assert!(client.received().concat().contains("<reset "));
    assert!(logs_in(&opened(&world).0, "juliet", "t1b4lt"));
    assert!(matches!(
        world.run(world.server().account(&jid("romeo")).set_password("x", None)),
        Err(AccountError::NoAccount)
    ));
}
