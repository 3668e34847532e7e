//! Entities inside of the process: acts of the host on accounts, components, bots.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use xmpp_session::connection::Recorder;
use xmpp_session::extension::{Extension, Flow};
use xmpp_session::jid::{BareJid, DomainPart, FullJid};
use xmpp_session::rules::roster::{Item, Subscription};
use xmpp_session::server::{
    AccountError, Bot, BotError, BotSender, ComponentError, ComponentHandle, Limits, RequestError,
};
use xmpp_session::session::SessionHandle;
use xmpp_session::stanza::{Condition, Stanza, StanzaError, canonicalise};
use xmpp_session::stream::{StreamCondition, StreamError};
use xmpp_session::xep;

use crate::common::contacts::{GET, Remote, ask, interested, push, remove, set, short};
use crate::common::slow::{Mode, Slow};
use crate::common::wire::{Elsewhere, World, now, xml};

const ROOMS: &str = "rooms.example.com";

fn bare(text: &str) -> BareJid {
    BareJid::new(text).unwrap()
}

fn item(jid: &str, name: &str, groups: &[&str]) -> Item {
    let mut item = Item::new(bare(jid));
    item.name = Some(name.into());
    item.groups = groups.iter().map(|group| (*group).into()).collect();
    item
}

fn stanza(text: &str) -> Stanza {
    canonicalise(text.as_bytes()).unwrap()
}

fn pending<F: Future + ?Sized>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// What a change comes to, once the background has done its part.
fn done<F: Future>(world: &World, future: F) -> F::Output {
    let mut future = pin!(future);
    for _ in 0..4 {
        if let Some(value) = pending(future.as_mut()) {
            return value;
        }
        world.settle();
    }
    panic!("it waits");
}

// Acts of the host on accounts.

#[test]
fn host_3_a_contact_is_set_as_by_a_client() {
    let world = World::new();
    let juliet = interested(world.client("juliet", "balcony"));
    let other = interested(world.client("juliet", "chamber"));
    let account = world.server().account(&bare("Juliet@example.com"));
    done(&world, account.set_contact(&item("romeo@example.net", "Romeo", &["Friends"]))).unwrap();
    let pushed = "<item jid='romeo@example.net' name='Romeo' subscription='none'>\
                  <group>Friends</group></item>";
    assert_eq!(short(&juliet), [push(1, pushed)]);
    assert_eq!(short(&other), [push(1, pushed)]);
    // It is stored, and nothing is pushed where nothing changes.
    let stored = now(world.stores().rosters.load(&bare("juliet@example.com"))).unwrap();
    assert_eq!(stored.items[0].name.as_deref(), Some("Romeo"));
    done(&world, account.set_contact(&item("Romeo@example.net", "Romeo", &["Friends"]))).unwrap();
    assert!(short(&juliet).is_empty());
    // What it says of the subscription is not looked at (ROSTER-8).
    let mut both = item("romeo@example.net", "R", &[]);
    (both.subscription, both.ask, both.approved) = (Subscription::Both, true, true);
    done(&world, account.set_contact(&both)).unwrap();
    let pushed = "<item jid='romeo@example.net' name='R' subscription='none'/>";
    assert_eq!(short(&juliet), [push(2, pushed)]);
    assert_eq!(done(&world, account.roster()).unwrap().len(), 1);
}

#[test]
fn host_3_an_account_without_sessions_is_changed_in_its_store() {
    let world = World::new();
    world.account("juliet");
    let account = world.server().account(&bare("juliet@example.com"));
    done(&world, account.set_contact(&item("romeo@example.net", "Romeo", &[]))).unwrap();
    done(&world, account.set_contact(&item("nurse@example.net", "Nurse", &[]))).unwrap();
    done(&world, account.remove_contact(&bare("romeo@example.net"))).unwrap();
    let juliet = world.client("juliet", "balcony");
    let roster = ask(&juliet, GET).concat();
    assert!(roster.contains("ver='3'") && roster.contains("nurse") && !roster.contains("romeo"));
    assert_eq!(done(&world, account.roster()).unwrap().len(), 1);
}

#[test]
fn host_3_a_removed_contact_is_told() {
    let (world, remote) = Remote::world();
    world.friends("juliet", "romeo");
    let change = |jid| world.roster("juliet", jid, Subscription::Both);
    change("nurse@example.net");
    let (juliet, romeo) = (world.online("juliet", "balcony"), world.online("romeo", "orchard"));
    let (_, _, _) = (juliet.received(), romeo.received(), remote.routed());
    let romeo = interested(romeo);
    let account = world.server().account(&bare("juliet@example.com"));
    done(&world, account.remove_contact(&bare("romeo@example.com"))).unwrap();
    let told = short(&romeo).concat();
    assert!(told.contains("type='unavailable'") && told.contains("type='unsubscribed'"), "{told}");
    assert!(told.contains("subscription='none'"), "{told}");
    done(&world, account.remove_contact(&bare("nurse@example.net"))).unwrap();
    let told = remote.routed().concat();
    for type_ in ["unsubscribe", "unsubscribed", "unavailable"] {
        assert!(told.contains(&format!("type='{type_}'")), "{told}");
    }
}

#[test]
fn host_4_two_accounts_see_each_other_at_once() {
    for others_session in [true, false] {
        let world = World::new();
        let juliet = interested(world.online("juliet", "balcony"));
        world.account("romeo");
        let romeo = others_session.then(|| interested(world.online("romeo", "orchard")));
        let _before = juliet.received();
        let account = world.server().account(&bare("juliet@example.com"));
        done(&world, account.befriend(&bare("romeo@example.com"))).unwrap();
        let mut expected = vec![push(1, "<item jid='romeo@example.com' subscription='both'/>")];
        if let Some(romeo) = &romeo {
            expected.push(
                "<presence from='romeo@example.com/orchard' to='juliet@example.com'/>".into(),
            );
            assert_eq!(
                short(romeo),
                [
                    push(1, "<item jid='juliet@example.com' subscription='both'/>"),
                    "<presence from='juliet@example.com/balcony' to='romeo@example.com'/>".into(),
                ]
            );
        }
        assert_eq!(short(&juliet), expected);
        for (one, other) in [("juliet", "romeo"), ("romeo", "juliet")] {
            let one = bare(&format!("{one}@example.com"));
            let stored = now(world.stores().rosters.load(&one)).unwrap();
            assert_eq!(stored.items[0].jid.as_str(), format!("{other}@example.com"));
            assert_eq!(stored.items[0].subscription, Subscription::Both);
        }
        // Once more changes nothing.
        done(&world, account.befriend(&bare("romeo@example.com"))).unwrap();
        assert!(juliet.received().is_empty());
    }
}

#[test]
fn host_4_what_was_between_the_two_is_done_with() {
    // Every state of one side, whatever the other side is in.
    let before = ["", "subscribe", "subscribed"];
    for mine in before {
        for theirs in before {
            let world = World::new();
            let juliet = interested(world.online("juliet", "balcony"));
            let romeo = interested(world.online("romeo", "orchard"));
            juliet.send(&set("<item jid='romeo@example.com' name='R'><group>G</group></item>"));
            for (one, to, type_) in [(&juliet, "romeo", mine), (&romeo, "juliet", theirs)] {
                if !type_.is_empty() {
                    one.send(&format!("<presence to='{to}@example.com' type='{type_}'/>"));
                }
            }
            let _before = (juliet.received(), romeo.received());
            let account = world.server().account(&bare("romeo@example.com"));
            done(&world, account.befriend(&bare("juliet@example.com"))).unwrap();
            let whole = "<item jid='romeo@example.com' name='R' subscription='both'>\
                         <group>G</group></item>";
            let roster = ask(&juliet, GET).concat();
            assert!(roster.contains(whole), "{mine} {theirs}: {roster}");
            let roster = ask(&romeo, GET).concat();
            let whole = "<item jid='juliet@example.com' subscription='both'/>";
            assert!(roster.contains(whole), "{mine} {theirs}: {roster}");
            for account in ["juliet@example.com", "romeo@example.com"] {
                let requests = now(world.stores().rosters.requests(&bare(account))).unwrap();
                assert!(requests.is_empty(), "{mine} {theirs}");
            }
            // They really see each other.
            juliet.send("<presence><show>away</show></presence>");
            assert!(romeo.received().concat().contains("away"));
            romeo.send("<presence><show>dnd</show></presence>");
            assert!(juliet.received().concat().contains("dnd"));
        }
    }
}

#[test]
fn host_4_a_block_stays_a_block() {
    let world = World::with(|builder, environment| {
        let _ = environment;
        builder.extension(xep::Blocking::new(Arc::new(xmpp_session::store::Memory::new())))
    });
    let juliet = interested(world.online("juliet", "balcony"));
    let romeo = interested(world.online("romeo", "orchard"));
    juliet.send(
        "<iq type='set' id='b'><block xmlns='urn:xmpp:blocking'>\
         <item jid='romeo@example.com'/></block></iq>",
    );
    let _before = (juliet.received(), romeo.received());
    let account = world.server().account(&bare("juliet@example.com"));
    done(&world, account.befriend(&bare("romeo@example.com"))).unwrap();
    assert!(!juliet.received().concat().contains("<presence"));
    assert!(!romeo.received().concat().contains("<presence"));
}

#[test]
fn host_5_each_error_says_what_is_wrong_and_nothing_has_changed() {
    let slow = Slow::new();
    let mut limits = Limits::default();
    limits.roster.items = 1;
    let world = World::with_stores(slow.stores(), |builder, _| builder.limits(limits));
    let (juliet, romeo) = (bare("juliet@example.com"), bare("romeo@example.com"));
    let account = |jid: &BareJid| world.server().account(jid);
    let one = item("a@example.net", "A", &[]);
    macro_rules! fails {
        ($act:expr, $error:pat) => {
            let result = done(&world, $act);
            assert!(matches!(result, Err($error)), "{result:?}");
        };
    }
    fails!(account(&juliet).set_contact(&one), AccountError::NoAccount);
    fails!(account(&juliet).remove_contact(&one.jid), AccountError::NoAccount);
    fails!(account(&juliet).roster(), AccountError::NoAccount);
    fails!(account(&bare("a@example.net")).set_contact(&one), AccountError::NoAccount);
    world.account("juliet");
    fails!(account(&juliet).befriend(&romeo), AccountError::NoAccount);
    fails!(account(&romeo).befriend(&juliet), AccountError::NoAccount);
    fails!(account(&juliet).befriend(&bare("a@example.net")), AccountError::NoAccount);
    fails!(account(&juliet).befriend(&juliet), AccountError::InvalidContact);
    fails!(account(&juliet).remove_contact(&one.jid), AccountError::NoContact);
    fails!(account(&juliet).set_contact(&Item::new(juliet.clone())), AccountError::InvalidContact);
    let odd = item("a@example.net", "A", &["G", "G"]);
    fails!(account(&juliet).set_contact(&odd), AccountError::InvalidGroup);
    let odd = item("a@example.net", "A", &[""]);
    fails!(account(&juliet).set_contact(&odd), AccountError::InvalidGroup);
    let long = item("a@example.net", &"n".repeat(2000), &[]);
    fails!(account(&juliet).set_contact(&long), AccountError::TooLarge);
    done(&world, account(&juliet).set_contact(&one)).unwrap();
    let second = item("b@example.net", "B", &[]);
    fails!(account(&juliet).set_contact(&second), AccountError::TooLarge);
    world.account("romeo");
    // Whichever side is full.
    fails!(account(&juliet).befriend(&romeo), AccountError::TooLarge);
    fails!(account(&romeo).befriend(&juliet), AccountError::TooLarge);
    let client = interested(world.online("romeo", "orchard"));
    for mode in [Mode::Fail, Mode::Panic, Mode::PanicAtOnce] {
        slow.set(mode);
        let renamed = item("a@example.net", "B", &[]);
        fails!(account(&juliet).set_contact(&renamed), AccountError::Store(_));
        fails!(account(&juliet).remove_contact(&one.jid), AccountError::Store(_));
        fails!(account(&romeo).set_contact(&one), AccountError::Store(_));
        fails!(account(&juliet).roster(), AccountError::Store(_));
        slow.set(Mode::Answer);
    }
    assert!(client.received().is_empty());
    let roster = done(&world, account(&juliet).roster()).unwrap();
    assert_eq!(
        roster.iter().map(|one| one.jid().to_owned()).collect::<Vec<_>>(),
        ["a@example.net"]
    );
    assert!(done(&world, account(&romeo).roster()).unwrap().is_empty());
}

#[test]
fn host_3_an_act_waits_for_its_store_and_comes_in_turn() {
    let slow = Slow::new();
    let world = World::with_stores(slow.stores(), |builder, _| builder);
    let juliet = interested(world.client("juliet", "balcony"));
    let account = world.server().account(&bare("juliet@example.com"));
    slow.set(Mode::Wait);
    let renamed = item("romeo@example.net", "host", &[]);
    let mut act = pin!(account.set_contact(&renamed));
    assert!(pending(act.as_mut()).is_none());
    juliet.send(&set("<item jid='romeo@example.net' name='client'/>"));
    let mut second = Box::pin(account.remove_contact(&renamed.jid));
    assert!(pending(second.as_mut()).is_none());
    // Dropping the future takes nothing back.
    drop(second);
    assert!(juliet.received().is_empty(), "nothing is told before it is stored");
    slow.set(Mode::Answer);
    world.settle();
    assert!(matches!(pending(act), Some(Ok(()))));
    let told = short(&juliet);
    assert_eq!(told.len(), 4, "{told:?}");
    assert!(told[0].contains("name='host'") && told[0].contains("push 1"), "{told:?}");
    assert!(told[1].contains("type='result'"), "{told:?}");
    assert!(told[2].contains("name='client'") && told[2].contains("push 2"), "{told:?}");
    assert!(told[3].contains("subscription='remove'"), "{told:?}");
}

#[test]
fn host_5_an_account_that_is_being_removed_is_none() {
    let slow = Slow::new();
    let world = World::with_stores(slow.stores(), |builder, _| builder);
    let (juliet, romeo) = (world.account("juliet"), world.account("romeo"));
    slow.set(Mode::Wait);
    let mut removal = pin!(world.server().account_removed(&juliet));
    assert!(pending(removal.as_mut()).is_none());
    let account = world.server().account(&romeo);
    let mut act = pin!(account.befriend(&juliet));
    assert!(pending(act.as_mut()).is_none());
    slow.set(Mode::Answer);
    world.settle();
    assert!(matches!(done(&world, removal), Ok(true)));
    assert!(matches!(done(&world, act), Err(AccountError::NoAccount)));
    assert!(done(&world, account.roster()).unwrap().is_empty());
    let gone = done(&world, world.server().account(&juliet).roster());
    assert!(matches!(gone, Err(AccountError::NoAccount)));
}

#[test]
fn host_5_who_has_a_session_exists_whatever_the_store_says() {
    let world = World::new();
    let (juliet, _romeo) = (world.online("juliet", "a"), world.online("romeo", "b"));
    let (one, other) = (bare("juliet@example.com"), bare("romeo@example.com"));
    // As with a host that checks passwords elsewhere.
    for account in [&one, &other] {
        assert!(now(world.stores().accounts.remove(account)).unwrap());
    }
    let account = world.server().account(&one);
    done(&world, account.befriend(&other)).unwrap();
    done(&world, account.set_contact(&item("a@example.net", "A", &[]))).unwrap();
    assert_eq!(done(&world, account.roster()).unwrap().len(), 2);
    let robot = done(&world, world.server().bot(&full("juliet@example.com/robot"))).unwrap();
    assert_eq!(world.sessions(), 3);
    drop((robot, juliet));
}

#[test]
fn host_6_who_is_online() {
    let world = World::new();
    let server = world.server();
    assert_eq!(server.online().count(), 0);
    let (_a, _b) = (world.online("juliet", "a"), world.online("juliet", "b"));
    let _connected = world.client("nurse", "a");
    let away = world.online("romeo", "a");
    let mut online: Vec<_> = server.online().map(|jid| jid.to_string()).collect();
    online.sort();
    assert_eq!(online, ["juliet@example.com", "romeo@example.com"]);
    let list = ["romeo@example.com", "nurse@example.com", "nobody@example.com"].map(bare);
    assert_eq!(server.online_of(list.clone()).collect::<Vec<_>>(), [bare("romeo@example.com")]);
    assert!(server.account(&bare("JULIET@example.com")).is_online());
    away.send("<presence type='unavailable'/>");
    assert_eq!(server.online_of(list).count(), 0);
    assert_eq!(server.online().count(), 1);
}

#[test]
fn host_7_everybody_online_is_told_at_a_pace() {
    let world = World::new();
    let clients: Vec<_> = (0..5).map(|n| world.online(&format!("user{n}"), "a")).collect();
    let _second = world.online("user0", "b");
    let _own = clients[0].received();
    let (connected, negative) = (world.client("nurse", "a"), world.client("tybalt", "a"));
    negative.send("<presence><priority>-1</priority></presence>");
    let _own = negative.received();
    let note = stanza("<message type='headline'><body>Hi</body></message>");
    let server = world.server().clone();
    let mut announcement = pin!(server.announce(&note, 2, Duration::from_secs(10)));
    let told = || clients.iter().filter(|client| !client.received().is_empty()).count();
    assert!(pending(announcement.as_mut()).is_none());
    assert_eq!(told(), 2);
    world.advance(Duration::from_secs(10));
    assert!(pending(announcement.as_mut()).is_none());
    assert_eq!(told(), 2);
    world.advance(Duration::from_secs(10));
    assert_eq!(pending(announcement), Some(5));
    assert_eq!(told(), 1);
    assert!(connected.received().is_empty() && negative.received().is_empty());
    // At once; the sender is the host's choice, else the domain.
    assert_eq!(now(server.announce(&note, usize::MAX, Duration::ZERO)), 5);
    let expected = "<message from='example.com' to='user1@example.com' type='headline'>\
                    <body>Hi</body></message>";
    assert_eq!(clients[1].received(), [expected]);
    let presence = stanza("<presence/>");
    assert_eq!(now(server.announce(&presence, 2, Duration::from_secs(1))), 0);
    // Messages that are kept for who is away are not kept for who has left meanwhile.
    let note = stanza("<message from='news@example.net' type='chat'><body>Hi</body></message>");
    let mut announcement = pin!(server.announce(&note, 4, Duration::from_secs(10)));
    assert!(pending(announcement.as_mut()).is_none());
    clients.iter().for_each(|client| client.send("<presence type='unavailable'/>"));
    world.advance(Duration::from_secs(10));
    assert_eq!(pending(announcement), Some(4));
    for n in 0..5 {
        let account = bare(&format!("user{n}@example.com"));
        let offline = world.stores().offline.clone().unwrap();
        assert_eq!(now(offline.count(&account)).unwrap(), 0);
    }
}

#[test]
fn host_8_an_account_is_kicked_with_the_hosts_error() {
    let world = World::with(|builder, _| builder.extension(xep::StreamManagement::new()));
    world.friends("juliet", "romeo");
    let romeo = world.online("romeo", "orchard");
    let (one, two) = (world.online("juliet", "a"), world.client("juliet", "b"));
    let unbound = world.authenticated("juliet");
    let sleeping = world.online("juliet", "c");
    sleeping.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    sleeping.lose();
    let (_, _, _) = (romeo.received(), one.received(), two.received());
    let error = StreamError::new(StreamCondition::PolicyViolation).with_text("en", "Go to bed.");
    let account = world.server().account(&bare("juliet@example.com"));
    assert_eq!(done(&world, account.kick(&error)), 3);
    world.settle();
    let told = "<stream:error><policy-violation xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>\
                <text xmlns='urn:ietf:params:xml:ns:xmpp-streams' xml:lang='en'>Go to bed.</text>\
                </stream:error>";
    for client in [&one, &two, &unbound] {
        let received = client.received();
        assert!(received.iter().any(|one| one == told), "{received:?}");
    }
    let gone = romeo.received();
    let of = |resource: &str| {
        let from = format!("from='juliet@example.com/{resource}'");
        gone.iter().filter(|one| one.contains(&from) && one.contains("unavailable")).count()
    };
    assert_eq!((of("a"), of("b"), of("c")), (1, 0, 1), "{gone:?}");
    assert!(!account.is_online());
    assert_eq!(done(&world, account.kick(&error)), 0);
    // They may come back at once.
    assert_eq!(world.online("juliet", "a").jid(), "juliet@example.com/a");
}

// Stanzas of the host in the name of an account.

#[test]
fn host_1_subscriptions_of_an_account_are_its_own_act() {
    let (world, remote) = Remote::world();
    let juliet = interested(world.online("juliet", "balcony"));
    let _before = juliet.received();
    let send = |text: &str| {
        world.server().send(stanza(text));
        world.settle();
    };
    // To another domain.
    send("<presence from='juliet@example.com/x' to='a@example.net/y' type='subscribe' id='s'/>");
    assert_eq!(
        remote.routed(),
        ["<presence from='juliet@example.com' to='a@example.net' id='s' type='subscribe'/>"]
    );
    let item = "<item jid='a@example.net' subscription='none' ask='subscribe'/>";
    assert_eq!(short(&juliet), [push(1, item)]);
    // An answer to a request, with presence behind it.
    remote
        .send(&world, "<presence from='b@example.net' to='juliet@example.com' type='subscribe'/>");
    let _request = juliet.received();
    send("<presence from='juliet@example.com' to='b@example.net' type='subscribed'/>");
    assert_eq!(short(&juliet), [push(2, "<item jid='b@example.net' subscription='from'/>")]);
    let told = remote.routed();
    assert!(told[0].contains("type='subscribed'"), "{told:?}");
    assert!(told[1].contains("from='juliet@example.com/balcony'"), "{told:?}");
    assert!(now(world.stores().rosters.requests(&bare("juliet@example.com"))).unwrap().is_empty());
    // A session of the account in the address changes nothing about that.
    send("<presence from='juliet@example.com/balcony' to='b@example.net' type='unsubscribed'/>");
    assert!(remote.routed().concat().contains("type='unsubscribed'"));
    assert_eq!(short(&juliet), [push(3, "<item jid='b@example.net' subscription='none'/>")]);
}

#[test]
fn host_1_both_sides_of_two_accounts_change_without_sessions_too() {
    let world = World::new();
    let (juliet, romeo) = (world.account("juliet"), world.account("romeo"));
    for (from, to, type_) in [
        (&romeo, &juliet, "subscribe"),
        (&juliet, &romeo, "subscribed"),
        (&juliet, &romeo, "subscribe"),
        (&romeo, &juliet, "subscribed"),
    ] {
        world
            .server()
            .send(Stanza::presence().from(from.as_str()).to(to.as_str()).type_(type_).build());
        world.settle();
    }
    for (one, other) in [(&juliet, &romeo), (&romeo, &juliet)] {
        let stored = now(world.stores().rosters.load(one)).unwrap();
        assert_eq!(stored.items[0].jid, *other);
        assert_eq!(stored.items[0].subscription, Subscription::Both);
        assert!(stored.requests.is_empty());
    }
    // An account that does not exist has no roster.
    let nobody = bare("nobody@example.com");
    let request = Stanza::presence().from(nobody.as_str()).to(juliet.as_str());
    world.server().send(request.type_("subscribe").build());
    world.settle();
    assert!(now(world.stores().rosters.load(&nobody)).unwrap().items.is_empty());
    assert!(now(world.stores().rosters.requests(&juliet)).unwrap().is_empty());
}

#[test]
fn host_2_directed_presence_is_that_of_a_session_or_of_nobody() {
    let (world, remote) = Remote::world();
    let (juliet, romeo) = (world.client("juliet", "balcony"), world.online("romeo", "orchard"));
    let send = |from: &str, to: &str| {
        world.server().send(Stanza::presence().from(from).to(to).build());
        world.settle();
    };
    for from in ["juliet@example.com", "juliet@example.com/none", "nobody@example.com/a"] {
        send(from, "romeo@example.com");
        send(from, "room@example.net/nick");
    }
    assert!(romeo.received().is_empty() && remote.routed().is_empty());
    send("juliet@example.com/balcony", "romeo@example.com");
    send("juliet@example.com/balcony", "room@example.net/nick");
    assert_eq!(romeo.received().len(), 1);
    assert_eq!(remote.routed().len(), 1);
    // Who was told that it is there is told that it is gone (PRES-10).
    juliet.send("</stream:stream>");
    assert!(romeo.received().concat().contains("type='unavailable'"));
    assert!(remote.routed().concat().contains("type='unavailable'"));
}

// Components.

type Log = Arc<Mutex<Vec<String>>>;

/// A world with a component that logs what it gets, and does what `act` says.
fn rooms<F>(
    act: impl Fn(ComponentHandle<Recorder>, Stanza) -> F + Clone + Send + Sync + 'static,
) -> (World, Log, Elsewhere)
where
    F: Future<Output = Result<(), StanzaError>> + Send + 'static,
{
    let (log, elsewhere) = (Log::default(), Elsewhere::default());
    let (heard, router) = (Arc::clone(&log), elsewhere.clone());
    let world = World::with(|builder, _| {
        builder
            .router(router)
            .component(ROOMS.parse().unwrap(), move |handle, stanza| {
                heard.lock().unwrap().push(xml(&stanza));
                act(handle, stanza)
            })
            .extension(xep::Disco::new())
    });
    (world, log, elsewhere)
}

fn take(log: &Log) -> Vec<String> {
    std::mem::take(&mut log.lock().unwrap())
}

fn handle(world: &World) -> ComponentHandle<Recorder> {
    let domain = DomainPart::new(ROOMS).unwrap();
    world.server().component(&domain).unwrap()
}

#[test]
fn comp_1_every_address_of_the_domain_is_the_components() {
    let (world, log, elsewhere) = rooms(|_, _| async { Ok(()) });
    let juliet = world.online("juliet", "balcony");
    for to in [ROOMS, "Rooms.Example.com.", "a@rooms.example.com", "a@rooms.example.com/\u{1f600}"]
    {
        juliet.send(&format!("<message to='{to}'/>"));
        assert_eq!(take(&log), [format!("<message from='juliet@example.com/balcony' to='{to}'/>")]);
    }
    juliet.send("<message to='a@other.example.com'/><message to='a@x.rooms.example.com'/>");
    assert!(take(&log).is_empty());
    assert_eq!(elsewhere.take().len(), 2);
    assert!(juliet.received().is_empty());
    // From another domain, and from the host.
    world.server().send(stanza("<message from='a@example.net' to='b@rooms.example.com'/>"));
    world.settle();
    assert_eq!(take(&log), ["<message from='a@example.net' to='b@rooms.example.com'/>"]);
}

#[test]
fn comp_1_the_server_lists_its_components() {
    let (world, ..) = rooms(|_, _| async { Ok(()) });
    let juliet = world.online("juliet", "balcony");
    let items = "<iq type='get' id='d' to='example.com'>\
                 <query xmlns='http://jabber.org/protocol/disco#items'/></iq>";
    assert!(juliet.answer(items).contains("<item jid='rooms.example.com'/>"));
}

#[test]
fn comp_1_a_served_domain_stays_the_servers() {
    let world = World::with(|builder, _| {
        builder.component("example.com".parse().unwrap(), |_, _| async { panic!("not its") })
    });
    let (juliet, romeo) = (world.online("juliet", "balcony"), world.online("romeo", "orchard"));
    juliet.send("<message to='romeo@example.com'/><message to='example.com'/>");
    assert_eq!(romeo.received().len(), 1);
    assert!(juliet.received().concat().contains("service-unavailable"));
    // Nor does it speak for its accounts.
    assert!(world.server().component(&"example.com".parse::<DomainPart>().unwrap()).is_none());
}

#[test]
fn comp_2_stanzas_come_in_order_and_one_at_a_time() {
    let gates: Arc<Mutex<Vec<Waker>>> = Arc::default();
    let open = Arc::new(AtomicUsize::new(0));
    let busy = Arc::new(AtomicUsize::new(0));
    let (waiting, through, at_work) = (Arc::clone(&gates), Arc::clone(&open), Arc::clone(&busy));
    let count = Arc::new(AtomicUsize::new(0));
    let (world, log, _) = rooms(move |_, _| {
        let (waiting, through) = (Arc::clone(&waiting), Arc::clone(&through));
        let (at_work, number) = (Arc::clone(&at_work), count.fetch_add(1, Ordering::SeqCst));
        async move {
            assert_eq!(at_work.fetch_add(1, Ordering::SeqCst), 0);
            std::future::poll_fn(|cx| {
                if through.load(Ordering::SeqCst) > number {
                    return Poll::Ready(());
                }
                waiting.lock().unwrap().push(cx.waker().clone());
                Poll::Pending
            })
            .await;
            at_work.fetch_sub(1, Ordering::SeqCst);
            Ok(())
        }
    });
    let (juliet, romeo) = (world.online("juliet", "balcony"), world.online("romeo", "orchard"));
    for n in 0..100 {
        juliet.send(&format!("<message to='a@rooms.example.com' id='{n}'/>"));
        juliet.send(&format!("<message to='romeo@example.com' id='{n}'/>"));
    }
    // A slow component holds up nobody else.
    assert_eq!(romeo.received().len(), 100);
    assert_eq!(take(&log).len(), 1);
    let let_go = |number: usize| {
        open.store(number, Ordering::SeqCst);
        gates.lock().unwrap().drain(..).for_each(Waker::wake);
        world.settle();
    };
    let_go(1);
    assert_eq!(take(&log).len(), 1);
    let_go(1000);
    world.settle();
    let rest = take(&log);
    let ids: Vec<_> = (2..100).map(|n| format!("id='{n}'")).collect();
    assert!(rest.len() == 98 && rest.iter().zip(&ids).all(|(one, id)| one.contains(id)));
    assert_eq!(busy.load(Ordering::SeqCst), 0);
}

#[test]
fn comp_3_an_error_is_told_and_a_panic_fails_alone() {
    let (world, log, elsewhere) = rooms(|_, stanza| {
        let id = stanza.id().unwrap_or_default().into_owned();
        assert!(id != "call", "the handler panics when it is called");
        async move {
            assert!(id != "future", "the handler's future panics");
            if id == "fine" { Ok(()) } else { Err(Condition::ItemNotFound.into()) }
        }
    });
    let juliet = world.online("juliet", "balcony");
    let ask = |id: &str| {
        let body = "<query xmlns='x:y'/>";
        juliet
            .ask(&format!("<iq type='get' to='a@rooms.example.com' id='{id}'>{body}</iq>"))
            .concat()
    };
    for (id, condition) in [
        ("call", "internal-server-error"),
        ("future", "internal-server-error"),
        ("x", "item-not-found"),
    ] {
        let answer = ask(id);
        let head = "<iq from='a@rooms.example.com' to='juliet@example.com/balcony'";
        assert!(answer.starts_with(head) && answer.contains(condition), "{answer}");
    }
    assert!(ask("fine").is_empty());
    assert_eq!(take(&log).len(), 4);
    // Nothing answers an error, or a result (STZ-7).
    for quiet in [
        "<message type='error' to='rooms.example.com' id='call'/>",
        "<iq type='result' to='rooms.example.com' id='x'/>",
    ] {
        assert!(juliet.ask(quiet).is_empty());
    }
    // Presence that was not taken is not there (PRES-11).
    let refused = juliet.ask("<presence to='a@rooms.example.com/n' id='x'/>").concat();
    assert!(refused.contains("type='error'"), "{refused}");
    let _tried = take(&log);
    juliet.send("</stream:stream>");
    assert!(take(&log).is_empty());
    // Who is elsewhere is told too.
    world.server().send(stanza("<message from='a@example.net' to='b@rooms.example.com' id='x'/>"));
    world.settle();
    let told = elsewhere.take().concat();
    assert!(told.contains("to='a@example.net'") && told.contains("item-not-found"), "{told}");
}

#[test]
fn comp_3_a_handler_that_hangs_loses_its_turn() {
    let (world, log, _) = rooms(|_, stanza| async move {
        if stanza.id().as_deref() == Some("hang") {
            std::future::pending::<()>().await;
        }
        Ok(())
    });
    let juliet = world.online("juliet", "balcony");
    juliet.send("<iq type='get' to='rooms.example.com' id='hang'><q xmlns='x:y'/></iq>");
    juliet.send("<message to='rooms.example.com' id='next'/>");
    assert_eq!(take(&log).len(), 1);
    world.advance(Duration::from_secs(61));
    assert_eq!(take(&log).len(), 1);
    assert!(juliet.received().concat().contains("remote-server-timeout"));
}

#[test]
fn comp_4_a_component_speaks_for_its_domain_alone() {
    let (world, log, elsewhere) = rooms(|_, _| async { Ok(()) });
    let juliet = world.online("juliet", "balcony");
    let rooms = handle(&world);
    assert_eq!(rooms.domain(), ROOMS);
    let to_juliet = |from: &str| {
        let message = Stanza::message().to("juliet@example.com/balcony");
        rooms.send(if from.is_empty() { message.build() } else { message.from(from).build() })
    };
    for (from, seen) in [("", ROOMS), ("a@rooms.example.com/x", "a@rooms.example.com/x")] {
        to_juliet(from).unwrap();
        world.settle();
        let to = "to='juliet@example.com/balcony'";
        assert_eq!(juliet.received(), [format!("<message from='{seen}' {to}/>")]);
    }
    for from in
        ["example.com", "romeo@example.com", "juliet@example.com/balcony", "a@example.net", "@"]
    {
        assert_eq!(to_juliet(from), Err(ComponentError::ForeignSender), "{from}");
    }
    assert!(juliet.received().is_empty());
    // To itself, to another domain; and what cannot get there comes back.
    rooms.send(stanza("<message to='b@rooms.example.com' id='1'/>")).unwrap();
    rooms.send(stanza("<message to='b@example.net' id='2'/>")).unwrap();
    rooms.send(stanza("<message to='nobody@example.com/none' id='3'/>")).unwrap();
    world.settle();
    let heard = take(&log);
    assert!(heard[0].contains("id='1'"), "{heard:?}");
    assert!(heard[1].contains("id='3'") && heard[1].contains("service-unavailable"), "{heard:?}");
    assert_eq!(elsewhere.take().len(), 1);
    drop(juliet);
    drop(world);
    assert_eq!(rooms.send(stanza("<message to='x@example.net'/>")), Err(ComponentError::Gone));
}

#[test]
fn comp_4_presence_between_accounts_and_a_component() {
    let (world, log, _) = rooms(|_, _| async { Ok(()) });
    let juliet = interested(world.online("juliet", "balcony"));
    let rooms = handle(&world);
    let send = |text: &str| {
        rooms.send(stanza(text)).unwrap();
        world.settle();
    };
    // Both subscribe.
    juliet.send("<presence type='subscribe' to='a@rooms.example.com'/>");
    assert!(take(&log).concat().contains("type='subscribe'"));
    send("<presence from='a@rooms.example.com' to='juliet@example.com' type='subscribed'/>");
    send("<presence from='a@rooms.example.com' to='juliet@example.com' type='subscribe'/>");
    juliet.send("<presence type='subscribed' to='a@rooms.example.com'/>");
    let told = take(&log).concat();
    assert!(told.contains("type='subscribed'") && told.contains("/balcony'"), "{told}");
    assert!(short(&juliet).concat().contains("subscription='both'"));
    // Broadcasts, probes at login, and the end.
    juliet.send("<presence><show>away</show></presence>");
    assert!(take(&log).concat().contains("away"));
    juliet.send("<presence type='unavailable'/>");
    assert!(take(&log).concat().contains("unavailable"));
    juliet.send("<presence/>");
    assert!(take(&log).concat().contains("type='probe'"));
    send("<presence from='a@rooms.example.com/x' to='juliet@example.com'/>");
    assert!(juliet.received().concat().contains("from='a@rooms.example.com/x'"));
    send("<presence from='a@rooms.example.com' to='juliet@example.com' type='probe'/>");
    assert!(take(&log).concat().contains("<delay"));
    // Directed presence joins, and is taken back when the session ends.
    let guest = world.client("romeo", "orchard");
    guest.send("<presence to='a@rooms.example.com/nick'/>");
    assert_eq!(take(&log).len(), 1);
    guest.lose();
    let gone = take(&log);
    assert_eq!(gone.len(), 1);
    assert!(gone[0].contains("unavailable") && gone[0].contains("a@rooms.example.com/nick"));
}

#[test]
fn comp_6_a_component_asks_and_gets_the_answer_itself() {
    let (world, log, _) = rooms(|_, _| async { Ok(()) });
    let rooms = handle(&world);
    let query = "<query xmlns='http://jabber.org/protocol/disco#items'/>";
    let iq = stanza(&format!("<iq type='get' to='example.com' id='q'>{query}</iq>"));
    let answer = done(&world, rooms.request(iq.clone())).unwrap();
    assert_eq!(answer.type_().as_deref(), Some("result"));
    assert!(take(&log).is_empty());
    // The same without waiting: it comes to the handler. A forged one as well.
    rooms.send(iq.clone()).unwrap();
    world.settle();
    assert!(take(&log).concat().contains("type='result'"));
    let foreign = stanza(&format!(
        "<iq from='x@example.net' type='get' to='example.com' id='q'>{query}</iq>"
    ));
    assert_eq!(done(&world, rooms.request(foreign)).err(), Some(RequestError::NotARequest));
    // The server's own requests are another matter, whatever their id.
    let juliet = world.client("juliet", "balcony");
    juliet.send("<presence to='rooms.example.com'/>");
    let ping = |from: &str| {
        let ping = "<ping xmlns='urn:xmpp:ping'/>";
        stanza(&format!("<iq {from} type='get' to='juliet@example.com/balcony' id='p'>{ping}</iq>"))
    };
    let (mut ours, mut theirs) =
        (pin!(world.server().request(ping("from='example.com'"))), pin!(rooms.request(ping(""))));
    assert!(pending(ours.as_mut()).is_none() && pending(theirs.as_mut()).is_none());
    juliet.send("<iq type='result' to='rooms.example.com' id='p'/>");
    assert!(pending(ours.as_mut()).is_none());
    assert!(done(&world, theirs).is_ok());
    juliet.send("<iq type='result' to='example.com' id='p'/>");
    assert!(done(&world, ours).is_ok());
}

/// A component that never ends its first stanza, with room for `most` stanzas.
fn stuck_rooms(most: usize) -> (World, Log) {
    let log = Log::default();
    let heard = Arc::clone(&log);
    let mut limits = Limits::default();
    limits.retention.live_stanzas = most;
    let world = World::with(|builder, _| {
        builder.limits(limits).component(ROOMS.parse().unwrap(), move |_, stanza| {
            heard.lock().unwrap().push(xml(&stanza));
            async move {
                if stanza.id().as_deref() == Some("hang") {
                    std::future::pending::<()>().await;
                }
                Ok(())
            }
        })
    });
    (world, log)
}

#[test]
fn comp_5_who_floods_a_component_is_slowed_down_then_refused() {
    let (world, log) = stuck_rooms(40);
    let juliet = world.online("juliet", "balcony");
    juliet.send("<message to='rooms.example.com' id='hang'/>");
    let mut paused = 0;
    for n in 0..60 {
        juliet.send(&format!("<message to='rooms.example.com' id='{n}'/>"));
        if juliet.want().is_none() {
            paused += 1;
            world.advance(Duration::from_millis(250));
        }
    }
    assert!(paused > 20, "{paused}");
    let refused = juliet.received();
    assert_eq!(refused.len(), 20);
    assert!(refused.iter().all(|one| one.contains("resource-constraint") && one.contains("wait")));
    // Presence is refused too, but for the end of one.
    let answer = juliet.ask("<presence to='rooms.example.com/n'/>").concat();
    assert!(answer.contains("resource-constraint"), "{answer}");
    world.advance(Duration::from_secs(1));
    let gone =
        "<presence type='unavailable' to='rooms.example.com/m'><status>x</status></presence>";
    assert!(juliet.ask(gone).is_empty());
    assert_eq!(take(&log).len(), 1);
    world.advance(Duration::from_secs(61));
    let heard = take(&log);
    assert_eq!(heard.len(), 41);
    assert!(heard[39].contains("id='39'") && heard[40].contains("unavailable"));
    assert!(!heard[40].contains("<status"));
    // It is as before.
    assert!(juliet.ask("<message to='rooms.example.com' id='more'/>").is_empty());
    assert_eq!(take(&log).len(), 1);
}

#[test]
fn comp_5_what_waits_for_a_component_is_bounded_by_bytes() {
    let log = Log::default();
    let mut limits = Limits::default();
    (limits.retention.bytes, limits.stanzas, limits.bytes) = (100_000, None, None);
    let world = World::with(|builder, _| {
        builder.limits(limits).component(ROOMS.parse().unwrap(), |_, _| std::future::pending())
    });
    let juliet = world.online("juliet", "balcony");
    let body = "x".repeat(30_000);
    let mut refused = 0;
    for _ in 0..10 {
        let answers =
            juliet.ask(&format!("<message to='rooms.example.com'><body>{body}</body></message>"));
        refused += answers.len();
        world.advance(Duration::from_millis(250));
    }
    assert_eq!(refused, 6);
    drop(log);
}

#[test]
fn comp_2_components_talk_to_each_other() {
    let rounds = Arc::new(AtomicUsize::new(0));
    let ping = |rounds: &Arc<AtomicUsize>| {
        let rounds = Arc::clone(rounds);
        move |own: ComponentHandle<Recorder>, stanza: Stanza| {
            let rounds = Arc::clone(&rounds);
            async move {
                if rounds.fetch_add(1, Ordering::SeqCst) < 1000 {
                    let (from, to) = (stanza.to(), stanza.from());
                    own.send(stanza.readdressed(from.as_deref(), to.as_deref())).unwrap();
                }
                Ok(())
            }
        }
    };
    let (one, two) = (ping(&rounds), ping(&rounds));
    let world = World::with(|builder, _| {
        let domain = |name: &str| name.parse().unwrap();
        builder.component(domain("one.example.com"), one).component(domain("two.example.com"), two)
    });
    world.server().send(stanza("<message from='one.example.com' to='two.example.com'/>"));
    world.settle();
    assert_eq!(rounds.load(Ordering::SeqCst), 1001);
}

#[test]
fn comp_2_a_component_that_is_never_done_leaves_others_their_turn() {
    let handled = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&handled);
    let log = Log::default();
    let heard = Arc::clone(&log);
    let world = World::with(|builder, _| {
        builder
            .component("busy.example.com".parse().unwrap(), move |own, stanza| {
                count.fetch_add(1, Ordering::SeqCst);
                own.send(stanza).unwrap();
                async { Ok(()) }
            })
            .component(ROOMS.parse().unwrap(), move |_, stanza| {
                heard.lock().unwrap().push(xml(&stanza));
                async { Ok(()) }
            })
    });
    let juliet = world.online("juliet", "balcony");
    world.server().send(stanza("<message from='busy.example.com' to='busy.example.com'/>"));
    juliet.send("<message to='rooms.example.com'/>");
    assert_eq!(take(&log).len(), 1);
    assert!(handled.load(Ordering::SeqCst) > 1000);
}

#[test]
fn host_3_acts_and_clients_change_one_roster_in_turn() {
    let world = World::new();
    let juliet = interested(world.client("juliet", "balcony"));
    for n in 0..4 {
        world.account(&format!("user{n}"));
    }
    std::thread::scope(|scope| {
        let threads = [0, 1, 2, 3].map(|thread| {
            let server = world.server().clone();
            scope.spawn(move || {
                let account = server.account(&bare("juliet@example.com"));
                let mut background = pin!(server.background());
                let mut wait = |mut act: std::pin::Pin<Box<dyn Future<Output = _> + Send>>| loop {
                    if let Some(done) = pending(act.as_mut()) {
                        break done;
                    }
                    assert!(pending(background.as_mut()).is_none());
                };
                let friend = bare(&format!("user{thread}@example.com"));
                for n in 0..50 {
                    let item = item(&format!("c{thread}-{n}@example.net"), "C", &[]);
                    let act = account.clone();
                    wait(Box::pin(async move { act.set_contact(&item).await })).unwrap();
                    let (one, other) = (server.account(&friend), bare("juliet@example.com"));
                    wait(Box::pin(async move { one.befriend(&other).await })).unwrap();
                    let (act, friend) = (account.clone(), friend.clone());
                    wait(Box::pin(async move { act.remove_contact(&friend).await })).unwrap();
                }
            })
        });
        for n in 0..50 {
            juliet.send(&set(&format!("<item jid='d{n}@example.net' name='D'/>")));
        }
        // Accounts may live at other nodes, which go on here.
        while !threads.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            world.settle();
        }
    });
    world.settle();
    // Each change has its version and its push, in order.
    let pushed = short(&juliet);
    let versions = pushed.iter().filter_map(|one| one.strip_prefix("push "));
    let versions: Vec<u64> =
        versions.map(|one| one.split(' ').next().unwrap().parse().unwrap()).collect();
    assert_eq!(versions, (1..=650).collect::<Vec<_>>());
    let account = world.server().account(&bare("juliet@example.com"));
    assert_eq!(done(&world, account.roster()).unwrap().len(), 250);
    let stored = now(world.stores().rosters.load(&bare("juliet@example.com"))).unwrap();
    assert_eq!((stored.items.len(), stored.version), (250, 650));
}

// Bots.

fn full(text: &str) -> FullJid {
    FullJid::new(text).unwrap()
}

fn bot(world: &World, node: &str, resource: &str) -> Bot<Recorder> {
    world.account(node);
    done(world, world.server().bot(&full(&format!("{node}@example.com/{resource}")))).unwrap()
}

/// Its session, wherever that lives.
fn session(world: &World, bot: &Bot<Recorder>) -> SessionHandle<Recorder> {
    world.session(bot.jid().as_str()).unwrap()
}

/// What a bot can take now.
fn heard(bot: &mut Bot<Recorder>) -> Vec<String> {
    let mut heard = Vec::new();
    while let Some(Some(stanza)) = pending(pin!(bot.recv())) {
        heard.push(xml(&stanza));
    }
    heard
}

fn say(bot: &Bot<Recorder>, text: &str) {
    now(bot.send(&stanza(text))).unwrap();
}

#[test]
fn bot_1_a_bot_is_a_session_like_any_other() {
    let world = World::with(|builder, _| builder.extension(xep::Carbons::new()));
    world.friends("polly", "juliet");
    let offline = "<message to='polly@example.com' type='chat'><body>early</body></message>";
    let juliet = world.online("juliet", "balcony");
    juliet.send(offline);
    let _before = juliet.received();
    let mut polly = bot(&world, "polly", "cage");
    assert_eq!(polly.jid().as_str(), "polly@example.com/cage");
    assert!(heard(&mut polly).is_empty() && !session(&world, &polly).is_available());
    // Presence, and offline messages with it.
    say(&polly, "<presence from='juliet@example.com'/>");
    let told = heard(&mut polly);
    assert!(told.iter().any(|one| one.contains("from='juliet@example.com/balcony'")), "{told:?}");
    assert!(told.iter().any(|one| one.contains("early") && one.contains("<delay")), "{told:?}");
    let seen = juliet.received();
    assert_eq!(seen, ["<presence from='polly@example.com/cage' to='juliet@example.com'/>"]);
    // The roster.
    say(&polly, GET);
    assert!(
        heard(&mut polly).concat().contains("<item jid='juliet@example.com' subscription='both'/>")
    );
    say(&polly, &set("<item jid='romeo@example.net' name='R'/>"));
    let told = heard(&mut polly);
    assert!(told[0].contains("type='result'") && told[1].contains("name='R'"), "{told:?}");
    // Messages in order, both ways.
    for n in 0..50 {
        juliet.send(&format!("<message to='polly@example.com' id='{n}' type='chat'/>"));
        say(&polly, &format!("<message to='juliet@example.com' id='{n}' type='chat'/>"));
    }
    let (told, said) = (heard(&mut polly), juliet.received());
    for n in 0..50 {
        assert!(told[n].contains(&format!("id='{n}'")), "{told:?}");
        let from =
            format!("<message from='polly@example.com/cage' to='juliet@example.com' id='{n}'");
        assert!(said[n].starts_with(&from), "{said:?}");
    }
    // Carbons, beside a client of the account.
    say(&polly, "<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>");
    let phone = world.online("polly", "phone");
    let _before = (heard(&mut polly), phone.received());
    phone.send("<message to='juliet@example.com' type='chat'><body>x</body></message>");
    assert!(heard(&mut polly).concat().contains("<sent xmlns='urn:xmpp:carbons:2'>"));
    // Errors of the same kind as a client's.
    say(&polly, "<message to='@' id='e'/>");
    assert!(heard(&mut polly).concat().contains("jid-malformed"));
    drop(polly);
    assert!(phone.received().concat().contains("type='unavailable'"));
}

#[test]
fn bot_1_a_bot_that_cannot_be_bound_says_why() {
    let slow = Slow::new();
    let mut limits = Limits::default();
    limits.sessions_per_account = 1;
    let world = World::with_stores(slow.stores(), |builder, _| builder.limits(limits));
    let try_bot = |jid: &str| done(&world, world.server().bot(&full(jid))).map(drop);
    for jid in ["polly@example.com/cage", "polly@example.net/cage"] {
        assert!(matches!(try_bot(jid), Err(BotError::NoAccount)), "{jid}");
    }
    world.account("polly");
    slow.set(Mode::Fail);
    let refused = try_bot("polly@example.com/cage");
    assert!(
        matches!(&refused, Err(BotError::Refused(error)) if error.condition() == Condition::InternalServerError),
        "{refused:?}"
    );
    slow.set(Mode::Answer);
    let held = done(&world, world.server().bot(&full("polly@example.com/cage"))).unwrap();
    let refused = try_bot("polly@example.com/other");
    assert!(
        matches!(&refused, Err(BotError::Refused(error)) if error.condition() == Condition::ResourceConstraint),
        "{refused:?}"
    );
    // A store that never answers ends the attempt, as it does a client's.
    drop(held);
    world.settle();
    slow.set(Mode::Wait);
    let server = world.server().clone();
    let jid = full("polly@example.com/cage");
    let mut slowly = Box::pin(server.bot(&jid));
    assert!(pending(slowly.as_mut()).is_none());
    world.advance(Duration::from_secs(6));
    assert!(matches!(pending(slowly.as_mut()), Some(Err(BotError::Refused(_)))));
    // Dropped on the way: nothing is left.
    let mut dropped = Box::pin(server.bot(&jid));
    assert!(pending(dropped.as_mut()).is_none());
    drop(dropped);
    slow.set(Mode::Answer);
    world.settle();
    assert!(world.sessions() == 0);
}

#[test]
fn bot_1_the_resource_of_a_client_is_taken_over() {
    let world = World::new();
    let client = world.online("polly", "cage");
    let mut polly = bot(&world, "polly", "cage");
    assert!(client.received().concat().contains("<conflict"));
    say(&polly, "<presence/>");
    let _own = heard(&mut polly);
    let _client = world.online("polly", "cage");
    assert!(heard(&mut polly).is_empty());
    assert!(now(polly.recv()).is_none());
    assert_eq!(polly.condition(), Some(StreamCondition::Conflict));
    let over = now(polly.send(&stanza("<presence/>")));
    assert!(matches!(over, Err(BotError::Ended(Some(StreamCondition::Conflict)))), "{over:?}");
    assert_eq!(world.sessions(), 1);
}

#[test]
fn bot_2_every_end_reaches_a_bot() {
    let world = World::new();
    let juliet = bare("juliet@example.com");
    world.friends("juliet", "romeo");
    let romeo = world.online("romeo", "orchard");
    type End<'a> = &'a dyn Fn(&Bot<Recorder>);
    let ends: [(&str, End<'_>); 4] = [
        ("policy-violation", &|bot| {
            assert!(world.kick(&session(&world, bot)));
            world.settle();
        }),
        ("reset", &|_| world.server().password_changed(&juliet, None)),
        ("not-authorized", &|_| {
            assert!(done(&world, world.server().account_removed(&juliet)).unwrap());
        }),
        ("system-shutdown", &|_| {
            let all = xmpp_session::server::Shutdown::new();
            let mut shutdown = pin!(world.server().shutdown(all));
            for _ in 0..10 {
                if pending(shutdown.as_mut()).is_some() {
                    return;
                }
                world.advance(Duration::from_millis(100));
            }
            panic!("a bot holds up the shutdown");
        }),
    ];
    for (condition, end) in ends {
        let mut bot = bot(&world, "juliet", "robot");
        say(&bot, "<presence/>");
        let _own = heard(&mut bot);
        // One that waits learns of it.
        let rung = Arc::new(Rung::default());
        let waker = Waker::from(Arc::clone(&rung));
        assert!(pin!(bot.recv()).poll(&mut Context::from_waker(&waker)).is_pending());
        end(&bot);
        assert!(rung.0.load(Ordering::SeqCst) > 0, "{condition}");
        world.settle();
        assert!(now(bot.recv()).is_none());
        assert_eq!(bot.condition().map(StreamCondition::as_str), Some(condition));
        assert!(now(bot.send(&stanza("<presence/>"))).is_err());
        drop(bot);
    }
    drop(romeo);
    assert!(world.sessions() == 0);
}

#[derive(Default)]
struct Rung(AtomicUsize);

impl std::task::Wake for Rung {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn bot_3_a_bot_may_be_as_slow_and_silent_as_it_likes() {
    let world = World::with(|builder, _| builder.extension(xep::StreamManagement::new()));
    let mut polly = bot(&world, "polly", "cage");
    say(&polly, "<presence/>");
    let _own = heard(&mut polly);
    // With nothing for it, and with something that it does not take.
    world.advance(Duration::from_secs(10_000));
    let romeo = world.online("romeo", "orchard");
    for n in 0..100 {
        romeo.send(&format!("<message to='polly@example.com' id='{n}' type='chat'/>"));
    }
    world.advance(Duration::from_secs(100_000));
    assert_eq!(heard(&mut polly).len(), 100);
    let juliet = world.online("juliet", "balcony");
    say(&polly, "<message to='juliet@example.com' type='chat'/>");
    assert_eq!(juliet.received().len(), 1, "and nobody has asked the client");
}

#[test]
fn bot_4_what_a_bot_has_not_taken_goes_elsewhere() {
    for is_kicked in [false, true] {
        let world = World::new();
        let juliet = world.online("juliet", "balcony");
        let mut polly = bot(&world, "polly", "cage");
        say(&polly, "<presence/>");
        let _own = heard(&mut polly);
        for n in 0..200 {
            let message = format!(
                "<message to='polly@example.com' id='{n}' type='chat'><body>x</body></message>"
            );
            juliet.send(&message);
        }
        juliet.send("<iq type='get' to='polly@example.com/cage' id='q'><q xmlns='x:y'/></iq>");
        let mut taken = 0;
        while taken < 7 {
            let stanza = now(polly.recv()).unwrap();
            assert_eq!(stanza.id().as_deref(), Some(&*taken.to_string()));
            taken += 1;
        }
        if is_kicked {
            assert!(world.kick(&session(&world, &polly)));
            world.settle();
            assert!(heard(&mut polly).is_empty(), "what is left is not the bot's any more");
        }
        drop(polly);
        world.settle();
        let account = bare("polly@example.com");
        let stored = now(world.stores().offline.as_ref().unwrap().list(&account)).unwrap();
        let ids: Vec<_> = stored.iter().map(|(_, message)| stanza_id(&message.stanza)).collect();
        let kept = ids.len();
        let expected: Vec<_> = (taken..200).map(|n| n.to_string()).collect();
        // What the store has no room for comes back, as the request does.
        assert_eq!(ids, expected[..kept]);
        let back = juliet.received();
        assert_eq!(back.len(), expected.len() - kept + 1, "{kept}");
    }
}

fn stanza_id(bytes: &[u8]) -> String {
    canonicalise(bytes).unwrap().id().unwrap().into_owned()
}

#[test]
fn bot_4_what_is_from_nobody_is_taken_as_well() {
    let world = World::new();
    let mut polly = bot(&world, "polly", "cage");
    say(&polly, "<presence/>");
    let _own = heard(&mut polly);
    for id in ["1", "2"] {
        world.server().send(Stanza::message().to("polly@example.com").id(id).build());
    }
    let heard = heard(&mut polly);
    assert!(
        heard.len() == 2 && heard[0].contains("id='1'") && heard[1].contains("id='2'"),
        "{heard:?}"
    );
    drop(polly);
    let phone = world.online("polly", "phone");
    assert!(!phone.received().concat().contains("<message"), "each was taken");
}

#[test]
fn bot_4_what_was_taken_comes_to_no_other_session() {
    let world = World::with(|builder, _| builder.extension(xep::Carbons::new()));
    let juliet = world.online("juliet", "balcony");
    let mut polly = bot(&world, "polly", "cage");
    say(&polly, "<presence/>");
    let phone = world.online("polly", "phone");
    phone.send("<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>");
    let _before = (heard(&mut polly), phone.received());
    for n in 0..10 {
        juliet.send(&format!("<message to='polly@example.com/cage' id='{n}' type='chat'/>"));
    }
    assert_eq!(phone.received().len(), 10, "carbons");
    for _ in 0..4 {
        assert!(now(polly.recv()).is_some());
    }
    drop(polly);
    // The phone has a copy of all.
    assert!(!phone.received().concat().contains("<message"));
}

#[test]
fn bot_5_a_slow_bot_costs_nobody_else() {
    let mut limits = Limits::default();
    (limits.stanzas, limits.bytes, limits.retention.live_stanzas) = (None, None, 100);
    let world = World::with(|builder, _| builder.limits(limits));
    let (juliet, romeo) = (world.online("juliet", "balcony"), world.online("romeo", "orchard"));
    let mut polly = bot(&world, "polly", "cage");
    say(&polly, "<presence/>");
    let _own = heard(&mut polly);
    for n in 0..300 {
        juliet.send(&format!("<message to='polly@example.com' id='{n}' type='chat'/>"));
        world.advance(Duration::from_millis(250));
        romeo.send(&format!("<message to='juliet@example.com' id='r{n}' type='chat'/>"));
    }
    let (refused, through): (Vec<_>, Vec<_>) =
        juliet.received().into_iter().partition(|one| one.contains("resource-constraint"));
    assert_eq!(through.len(), 300);
    let told = heard(&mut polly);
    assert_eq!(told.len() + refused.len(), 300);
    assert!((100..=101).contains(&told.len()), "{}", told.len());
    // It is as before once it has taken them.
    juliet.send("<message to='polly@example.com' id='more' type='chat'/>");
    assert_eq!(heard(&mut polly).len(), 1);
}

#[test]
fn bot_5_a_bot_is_held_to_a_clients_rates_and_waits() {
    let world = World::new();
    let juliet = world.online("juliet", "balcony");
    let polly = bot(&world, "polly", "cage");
    let sender = polly.sender();
    let (mut sent, mut waits) = (0, 0);
    let text = stanza("<message to='juliet@example.com' type='chat'/>");
    while sent < 1500 {
        // Two of them, one beside the other.
        let (mut one, mut two) = (Box::pin(polly.send(&text)), Box::pin(sender.send(&text)));
        let (mut first, mut second) = (None, None);
        for _ in 0..100 {
            first = first.or_else(|| pending(one.as_mut()));
            second = second.or_else(|| pending(two.as_mut()));
            if first.is_some() && second.is_some() {
                break;
            }
            waits += 1;
            world.advance(Duration::from_millis(20));
        }
        assert!(matches!((first, second), (Some(Ok(())), Some(Ok(())))));
        sent += 2;
    }
    assert!(waits > 100, "{waits}");
    assert_eq!(juliet.received().len(), 1500);
}

#[test]
fn bot_5_a_bot_that_answers_one_after_the_other_does_not_wait_for_itself() {
    let mut limits = Limits::default();
    (limits.stanzas, limits.bytes) = (None, None);
    let soft_mark = limits.soft_mark;
    let world = World::with(|builder, _| builder.limits(limits));
    let juliet = world.online("juliet", "balcony");
    let mut polly = bot(&world, "polly", "cage");
    say(&polly, "<presence/>");
    let _own = heard(&mut polly);
    // More waits for it than a client would be let get behind with.
    let text = "x".repeat(10_000);
    let count = 2 * soft_mark / text.len();
    for _ in 0..count {
        juliet.send(&format!(
            "<message to='polly@example.com' type='chat'><body>{text}</body></message>"
        ));
    }
    assert!(juliet.received().is_empty(), "nothing is refused");
    for n in 0..count {
        assert!(matches!(pending(pin!(polly.recv())), Some(Some(_))), "{n}");
        say(&polly, "<message to='juliet@example.com/balcony' type='chat'/>");
    }
    assert_eq!(juliet.received().len(), count);
}

#[test]
fn bot_5_a_sender_that_waits_is_woken() {
    let slow = Slow::new();
    let world = World::with_stores(slow.stores(), |builder, _| builder);
    let polly = bot(&world, "polly", "cage");
    world.account("juliet");
    slow.set(Mode::Wait);
    // This one waits for the store, and the next one for this one (STREAM-23).
    say(&polly, "<message to='juliet@example.com' type='chat'><body>1</body></message>");
    let rung = Arc::new(Rung::default());
    let waker = Waker::from(Arc::clone(&rung));
    let text = stanza("<message to='juliet@example.com' type='chat'><body>2</body></message>");
    let mut second = Box::pin(polly.send(&text));
    assert!(second.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    let mut third = Box::pin(polly.send(&text));
    assert!(third.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(third);
    slow.set(Mode::Answer);
    world.settle();
    assert!(rung.0.load(Ordering::SeqCst) > 0);
    assert!(matches!(pending(second.as_mut()), Some(Ok(()))));
    drop(second);
    // Dropped while a stanza is in work: that one goes on.
    slow.set(Mode::Wait);
    say(&polly, "<message to='juliet@example.com' type='chat'><body>3</body></message>");
    drop(polly);
    slow.set(Mode::Answer);
    world.settle();
    let stored = now(world.stores().offline.as_ref().unwrap().count(&bare("juliet@example.com")));
    assert_eq!(stored.unwrap(), 3, "the second and the third to be sent, and no other");
    assert!(world.sessions() == 0);
}

#[test]
fn bot_5_bots_talk_to_each_other() {
    let mut limits = Limits::default();
    (limits.stanzas, limits.bytes) = (None, None);
    let world = World::with(|builder, _| builder.limits(limits));
    let (mut one, mut two) = (bot(&world, "polly", "a"), bot(&world, "jack", "b"));
    say(&one, "<presence/>");
    say(&two, "<presence/>");
    let _own = (heard(&mut one), heard(&mut two));
    say(&one, "<message to='jack@example.com' type='chat' id='0'/>");
    for n in 0..2000 {
        let (from, to) = if n % 2 == 0 { (&one, &mut two) } else { (&two, &mut one) };
        let stanza = now(to.recv()).unwrap();
        assert_eq!(stanza.from().as_deref(), Some(from.jid().as_str()));
        let back = stanza.readdressed(None, stanza.from().as_deref());
        now(to.send(&back)).unwrap();
    }
    // To itself as well.
    let own = format!("<message to='{}'/>", one.jid());
    let _last = heard(&mut one);
    say(&one, &own);
    assert_eq!(heard(&mut one).len(), 1);
    say(&one, &remove("x@example.net"));
    assert!(heard(&mut one).concat().contains("item-not-found"));
}

#[test]
fn bot_5_threads_block_on_a_bot() {
    let world = World::new();
    let juliet = world.online("juliet", "balcony");
    world.account("polly");
    let server = world.server().clone();
    let mut polly = server.bot_blocking(&full("polly@example.com/cage")).unwrap();
    polly.send_blocking(&stanza("<presence/>")).unwrap();
    let thread = std::thread::spawn(move || {
        let mut ids = Vec::new();
        while let Some(stanza) = polly.recv_blocking() {
            if let Some(id) = stanza.id() {
                polly
                    .sender()
                    .send_blocking(&stanza.readdressed(None, stanza.from().as_deref()))
                    .unwrap();
                ids.push(id.into_owned());
            }
            if ids.len() == 100 {
                return ids;
            }
        }
        ids
    });
    for n in 0..100 {
        juliet.send(&format!("<message to='polly@example.com/cage' id='{n}' type='chat'/>"));
    }
    let ids = thread.join().unwrap();
    assert_eq!(ids, (0..100).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(juliet.received().len(), 100);
}

#[test]
fn bot_6_a_bot_of_a_server_that_is_gone_is_over() {
    let world = World::new();
    let mut polly = bot(&world, "polly", "cage");
    let sender = polly.sender();
    drop(world);
    // The bot keeps its server, as a driver does; then nothing is left of either.
    assert!(pending(pin!(polly.recv())).is_none());
    drop(polly);
    let over = now(sender.send(&stanza("<presence/>")));
    assert!(matches!(over, Err(BotError::Ended(None))));
}

type Sending = std::pin::Pin<Box<dyn Future<Output = Result<(), BotError>> + Send>>;

/// Sends with the bot of somebody from inside of what an extension sees of its stanzas.
#[derive(Clone)]
struct Echo {
    sender: Arc<Mutex<Option<BotSender<Recorder>>>>,
    rung: Arc<Rung>,
    waits: Arc<Mutex<Option<Sending>>>,
}

impl Extension<Recorder> for Echo {
    fn inbound(&self, _: &SessionHandle<Recorder>, _: &Stanza) -> Flow {
        if let Some(sender) = self.sender.lock().unwrap().take() {
            let text = stanza("<message to='juliet@example.com' type='chat' id='inner'/>");
            let mut send: Sending = Box::pin(async move { sender.send(&text).await });
            let waker = Waker::from(Arc::clone(&self.rung));
            assert!(send.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            *self.waits.lock().unwrap() = Some(send);
        }
        Flow::Next
    }
}

#[test]
fn bot_5_a_send_from_inside_of_a_send_waits_and_hangs_nobody() {
    let (sender, waits) = (Arc::default(), Arc::default());
    let rung = Arc::<Rung>::default();
    let (of_echo, waiting) = (Arc::clone(&sender), Arc::clone(&waits));
    let echo = Echo { sender: of_echo, rung: Arc::clone(&rung), waits: waiting };
    let world = World::with(|builder, _| builder.extension(echo));
    let juliet = world.online("juliet", "balcony");
    let polly = bot(&world, "polly", "cage");
    *sender.lock().unwrap() = Some(polly.sender());
    say(&polly, "<message to='juliet@example.com' type='chat' id='outer'/>");
    assert!(juliet.received()[0].contains("outer"));
    assert!(rung.0.load(Ordering::SeqCst) > 0);
    let mut inner: Sending = waits.lock().unwrap().take().unwrap();
    assert!(matches!(pending(inner.as_mut()), Some(Ok(()))));
    assert!(juliet.received()[0].contains("inner"));
}

#[test]
fn bot_2_senders_that_wait_learn_that_the_bot_is_gone() {
    let slow = Slow::new();
    let world = World::with_stores(slow.stores(), |builder, _| builder);
    let polly = bot(&world, "polly", "cage");
    world.account("juliet");
    let sender = polly.sender();
    slow.set(Mode::Wait);
    let text = "<message to='juliet@example.com' type='chat'><body>1</body></message>";
    say(&polly, text);
    let (rung, text) = (Arc::new(Rung::default()), stanza(text));
    let waker = Waker::from(Arc::clone(&rung));
    let mut send = Box::pin(sender.send(&text));
    assert!(send.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    drop(polly);
    assert!(world.sessions() == 0);
    assert!(rung.0.load(Ordering::SeqCst) > 0);
    assert!(matches!(pending(send.as_mut()), Some(Err(BotError::Ended(_)))));
    slow.set(Mode::Answer);
    world.settle();
    let stored = now(world.stores().offline.as_ref().unwrap().count(&bare("juliet@example.com")));
    assert_eq!(stored.unwrap(), 1);
}

#[test]
fn host_8_a_bot_that_is_about_to_bind_is_kicked_too() {
    let slow = Slow::new();
    let world = World::with_stores(slow.stores(), |builder, _| builder);
    let account = world.server().account(&world.account("polly"));
    slow.set(Mode::Wait);
    let (server, jid) = (world.server().clone(), full("polly@example.com/cage"));
    let mut bot = Box::pin(server.bot(&jid));
    assert!(pending(bot.as_mut()).is_none());
    let error = StreamError::new(StreamCondition::PolicyViolation);
    let mut kick = Box::pin(account.kick(&error));
    assert!(pending(kick.as_mut()).is_none(), "it waits for the bind");
    slow.set(Mode::Answer);
    assert_eq!(done(&world, kick), 0);
    let (refused, kicked) = (done(&world, bot).map(drop), Some(StreamCondition::PolicyViolation));
    assert!(matches!(refused, Err(BotError::Ended(why)) if why == kicked), "{refused:?}");
    assert!(world.sessions() == 0);
}

/// Drops the bot of somebody from inside of what an extension sees of its stanzas.
#[derive(Clone)]
struct Ends(Arc<Mutex<Option<Bot<Recorder>>>>);

impl Extension<Recorder> for Ends {
    fn inbound(&self, _: &SessionHandle<Recorder>, stanza: &Stanza) -> Flow {
        if stanza.id().as_deref() == Some("last") {
            let bot = self.0.lock().unwrap().take();
            drop(bot);
        }
        Flow::Next
    }
}

#[test]
fn bot_2_a_bot_dropped_from_inside_of_its_own_stanza_ends_behind_it() {
    let slot = Arc::new(Mutex::new(None));
    let ends = Ends(Arc::clone(&slot));
    let world = World::with(|builder, _| builder.extension(ends));
    let juliet = world.online("juliet", "balcony");
    let polly = bot(&world, "polly", "cage");
    let sender = polly.sender();
    *slot.lock().unwrap() = Some(polly);
    let last = stanza("<message to='juliet@example.com' type='chat' id='last'/>");
    assert!(now(sender.send(&last)).is_ok());
    assert_eq!(juliet.received().len(), 1);
    assert_eq!(world.sessions(), 1);
    assert!(now(sender.send(&last)).is_err());
}

#[test]
fn bot_5_a_sender_that_a_rate_pauses_is_woken_by_the_clock() {
    let world = World::new();
    let (_juliet, polly) = (world.online("juliet", "balcony"), bot(&world, "polly", "cage"));
    let text = stanza("<message to='juliet@example.com' type='chat'/>");
    let rung = Arc::new(Rung::default());
    let waker = Waker::from(Arc::clone(&rung));
    let mut sent = 0;
    let mut paused = loop {
        let mut send = Box::pin(polly.send(&text));
        if send.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            break send;
        }
        sent += 1;
        assert!(sent < 2000);
    };
    let before = rung.0.load(Ordering::SeqCst);
    world.advance(Duration::from_secs(1));
    assert!(rung.0.load(Ordering::SeqCst) > before);
    assert!(matches!(pending(paused.as_mut()), Some(Ok(()))));
}

#[test]
fn bot_1_a_bot_takes_no_place_of_those_who_may_be_anybody() {
    let mut limits = Limits::default();
    (limits.unauthenticated, limits.unbound_per_account) = (1, 1);
    let world = World::with(|builder, _| builder.limits(limits));
    // The one place there is.
    let stranger = world.connect();
    stranger.open();
    assert!(stranger.received().concat().contains("<stream:features>"));
    let bots: Vec<_> = (0..10).map(|n| bot(&world, "polly", &n.to_string())).collect();
    assert_eq!(world.sessions(), bots.len());
    assert!(stranger.is_connected() && stranger.received().is_empty());
    drop(bots);
    assert!(world.sessions() == 0);
    // One that is being removed has no more bots, before it is gone.
    let slow = Slow::new();
    let world = World::with_stores(slow.stores(), |builder, _| builder);
    let account = world.account("polly");
    slow.set(Mode::Wait);
    let mut removal = pin!(world.server().account_removed(&account));
    assert!(pending(removal.as_mut()).is_none());
    let jid = full("polly@example.com/cage");
    let refused = done(&world, world.server().bot(&jid)).map(drop);
    let expected = Some(StreamCondition::NotAuthorized);
    assert!(matches!(refused, Err(BotError::Ended(why)) if why == expected), "{refused:?}");
    slow.set(Mode::Answer);
    assert!(matches!(done(&world, removal), Ok(true)));
}

#[test]
fn bot_5_many_threads_share_a_bot() {
    let mut limits = Limits::default();
    (limits.stanzas, limits.bytes) = (None, None);
    let world = World::with(|builder, _| builder.limits(limits));
    let mut jack = bot(&world, "jack", "b");
    let polly = bot(&world, "polly", "a");
    let heard = std::thread::scope(|scope| {
        for thread in 0..4 {
            let sender = polly.sender();
            scope.spawn(move || {
                for n in 0..250 {
                    let text = format!("<message to='jack@example.com/b' id='{thread}-{n}'/>");
                    sender.send_blocking(&stanza(&text)).unwrap();
                }
            });
        }
        // Time passes meanwhile, and lets go on whom it has stopped.
        let running = Arc::new(AtomicUsize::new(1));
        let (alive, clock) = (Arc::clone(&running), world.clone());
        scope.spawn(move || {
            while alive.load(Ordering::SeqCst) > 0 {
                clock.advance(Duration::from_millis(10));
                std::thread::yield_now();
            }
        });
        let mut heard = Vec::new();
        while heard.len() < 1000 {
            heard.push(jack.recv_blocking().unwrap().id().unwrap().into_owned());
        }
        running.store(0, Ordering::SeqCst);
        heard
    });
    // Each sender's in its order.
    for thread in 0..4 {
        let of = format!("{thread}-");
        let ids: Vec<_> = heard.iter().filter_map(|id| id.strip_prefix(&of)).collect();
        assert_eq!(ids, (0..250).map(|n| n.to_string()).collect::<Vec<_>>());
    }
}
