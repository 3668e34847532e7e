//! Ends that the host decides (rules DESTROY-15, DESTROY-16, DESTROY-18, DESTROY-19, STREAM-30).

use crate::common::slow::{Mode, Slow};
use crate::common::wire;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use wire::{Client, World, now};
use xmpp_session::connection::{Close, Recorder};
use xmpp_session::rules::roster::Subscription;
use xmpp_session::server::{Driver, Progress, RouteError, Router, Shutdown, Transport, Want};
use xmpp_session::session::{Event, EventKind, Reason};
use xmpp_session::stanza::{Frame, Stanza, canonicalise};
use xmpp_session::stream::{StreamCondition, StreamError};
use xmpp_session::xep;

const ROSTER: &str = "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>";

/// A stream error with this condition, then the close tag.
fn closed(condition: &str) -> [String; 2] {
    let error = format!(
        "<stream:error><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>"
    );
    [error, "</stream:stream>".to_owned()]
}

fn unavailable(from: &str, to: &str) -> String {
    format!("<presence from='{from}' to='{to}' type='unavailable'/>")
}

/// Polls a future once, with everything that it woke done.
fn step<T>(world: &World, mut future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    let cx = &mut Context::from_waker(Waker::noop());
    let mut poll = future.as_mut().poll(cx);
    world.settle();
    // Other nodes have to be asked, and their answers to come.
    for _ in 0..if world.is_several() { 4 } else { 0 } {
        if poll.is_pending() {
            world.advance(Duration::from_secs(1));
            poll = future.as_mut().poll(cx);
        }
    }
    world.settle();
    poll
}

/// Without `stream:features` and the like.
fn last(client: &Client, count: usize) -> Vec<String> {
    let mut received = client.received();
    received.split_off(received.len().saturating_sub(count))
}

#[test]
fn destroy_19_a_kick_is_a_policy_violation_unless_the_host_says_otherwise() {
    let world = World::new();
    let (romeo, other) = (world.online("romeo", "orchard"), world.online("romeo", "other"));
    let _before = (romeo.received(), other.received());
    assert!(world.kick(&romeo.session()));
    assert_eq!(romeo.received(), closed("policy-violation"));
    assert_eq!(other.received(), [unavailable("romeo@example.com/orchard", "romeo@example.com")]);
    assert!(!world.kick(&romeo.session()));
    let error = StreamError::new(StreamCondition::NotAuthorized);
    assert!(world.kick_with(&other.session(), &error));
    assert_eq!(other.received(), closed("not-authorized"));
    assert!(world.sessions() == 0);
}

#[test]
fn destroy_18_all_sessions_but_the_one_that_changed_the_password_end() {
    let world = World::new();
    let (changer, other) = (world.online("romeo", "a"), world.online("romeo", "b"));
    let (early, juliet) = (world.authenticated("romeo"), world.online("juliet", "balcony"));
    let _before = (changer.received(), other.received());
    let account = world.account("romeo");
    world.server().password_changed(&account, Some(changer.session().id()));
    world.settle();
    assert_eq!(other.received(), closed("reset"));
    assert_eq!(early.received(), closed("reset"));
    assert_eq!(changer.received(), [unavailable("romeo@example.com/b", "romeo@example.com")]);
    assert!(!changer.session().is_ended() && !juliet.session().is_ended());
    // A client that logs in from now on is welcome.
    let _again = world.client("romeo", "b");
}

#[test]
fn destroy_18_a_login_that_was_under_way_comes_to_nothing() {
    let world = World::new();
    let account = world.account("romeo");
    let (before, other) = (world.connect(), world.connect());
    before.open();
    other.open();
    world.account("juliet");
    world.server().password_changed(&account, None);
    before.authenticate("romeo", wire::PASSWORD);
    assert_eq!(last(&before, 2), closed("reset"));
    other.authenticate("juliet", wire::PASSWORD);
    assert!(last(&other, 1).concat().contains("<success"));
}

#[test]
fn destroy_18_hibernating_sessions_end_too() {
    let ended = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&ended);
    let world = World::with(|builder, _| {
        builder.extension(xep::StreamManagement::new()).listener(move |event: &Event<Recorder>| {
            if let EventKind::Ended { reason, .. } = event.kind() {
                log.lock().unwrap().push(reason);
            }
        })
    });
    let romeo = world.online("romeo", "orchard");
    romeo.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    romeo.lose();
    assert_eq!(world.counts().hibernating, 1);
    world.server().password_changed(&world.account("romeo"), None);
    assert!(world.sessions() == 0);
    assert_eq!(*ended.lock().unwrap(), [Reason::PasswordChanged]);
}

#[cfg(test)]
#[derive(Clone)]
struct Wire(Arc<Mutex<Vec<String>>>);

#[cfg(test)]
impl Router for Wire {
    fn route(&self, stanza: &Stanza) -> Result<(), RouteError> {
        self.0.lock().unwrap().push(Frame::stanza(stanza).to_string());
        Ok(())
    }
}

#[test]
fn destroy_15_contacts_are_told_then_sessions_end_then_all_is_deleted() {
    let sent = Arc::new(Mutex::new(Vec::new()));
    let wire = Wire(Arc::clone(&sent));
    let world = World::with(|builder, _| builder.router(wire));
    world.friends("romeo", "juliet");
    world.roster("romeo", "to@remote.example", Subscription::To);
    world.roster("romeo", "from@remote.example", Subscription::From);
    let account = world.account("romeo");
    let request = "<presence from='asks@remote.example' to='romeo@example.com' type='subscribe'/>";
    world.server().send(canonicalise(request.as_bytes()).unwrap());
    let message = "<message from='a@remote.example' to='romeo@example.com' type='chat'><body>a</body></message>";
    world.server().send(canonicalise(message.as_bytes()).unwrap());
    now(world.stores().blocks.apply(&account, vec!["x.example".into()], vec![])).unwrap();
    world.settle();
    let juliet = world.online("juliet", "balcony");
    juliet.ask(ROSTER);
    let romeo = world.client("romeo", "orchard");
    romeo.send("<presence><priority>-1</priority></presence>");
    let early = world.authenticated("romeo");
    let _before = (romeo.received(), juliet.received(), std::mem::take(&mut *sent.lock().unwrap()));

    let mut removal = pin!(world.server().account_removed(&account));
    assert!(matches!(step(&world, removal.as_mut()), Poll::Ready(Ok(true))));

    let seen = juliet.received();
    let presence: Vec<_> = seen.iter().filter(|one| one.starts_with("<presence")).collect();
    assert_eq!(presence[0], &unavailable("romeo@example.com/orchard", "juliet@example.com"));
    assert!(presence.iter().any(|one| one.contains("type='unsubscribed'")), "{presence:?}");
    assert!(presence.iter().any(|one| one.contains("type='unsubscribe'")), "{presence:?}");
    assert_eq!(presence.len(), 3, "{presence:?}");
    let push = seen.iter().rfind(|one| one.starts_with("<iq")).unwrap();
    assert!(push.contains("jid='romeo@example.com' subscription='none'"), "{push}");

    let mut remote = sent.lock().unwrap().clone();
    remote.sort();
    let presence = |to: &str, type_: &str, from: &str| {
        format!(
            "<presence from='romeo@example.com{from}' to='{to}@remote.example' type='{type_}'/>"
        )
    };
    assert_eq!(
        remote,
        [
            presence("from", "unavailable", "/orchard"),
            presence("asks", "unsubscribed", ""),
            presence("from", "unsubscribed", ""),
            presence("to", "unsubscribe", ""),
        ]
        .into_iter()
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect::<Vec<_>>()
    );

    assert_eq!(last(&romeo, 2), closed("not-authorized"));
    assert_eq!(early.received(), closed("not-authorized"));
    assert!(world.home_of("romeo").registry().sessions(&account).is_empty());
    let stores = world.stores();
    let roster = now(stores.rosters.load(&account)).unwrap();
    assert!(roster.items.is_empty() && roster.requests.is_empty());
    assert!(now(stores.rosters.requests(&account)).unwrap().is_empty());
    assert_eq!(now(stores.offline.clone().unwrap().count(&account)).unwrap(), 0);
    assert!(now(stores.blocks.load(&account)).unwrap().is_empty());
    assert!(!now(stores.accounts.exists(&account)).unwrap());
    // A second time there is nothing to remove.
    let mut removal = pin!(world.server().account_removed(&account));
    assert!(matches!(step(&world, removal.as_mut()), Poll::Ready(Ok(false))));
    // A new account of that name is a new account.
    let _new = world.client("romeo", "orchard");
}

#[test]
fn destroy_15_of_an_account_without_sessions() {
    let world = World::new();
    world.friends("romeo", "juliet");
    let juliet = world.online("juliet", "balcony");
    juliet.ask(ROSTER);
    let account = world.account("romeo");
    let mut removal = pin!(world.server().account_removed(&account));
    assert!(matches!(step(&world, removal.as_mut()), Poll::Ready(Ok(true))));
    assert!(juliet.received().concat().contains("subscription='none'"));
}

#[test]
fn destroy_15_nobody_logs_in_meanwhile_whatever_else_the_host_does() {
    let slow = Slow::new();
    let world = World::with_stores(slow.stores(), |builder, _| builder);
    let account = world.account("romeo");
    let (before, server) = (world.connect(), world.server());
    before.open();
    slow.set(Mode::Wait);
    let mut removals =
        [Box::pin(server.account_removed(&account)), Box::pin(server.account_removed(&account))];
    for removal in &mut removals {
        assert!(step(&world, removal.as_mut()).is_pending());
    }
    let refused = || {
        let client = world.connect();
        client.open();
        client.authenticate("romeo", wire::PASSWORD);
        last(&client, 2) == closed("not-authorized")
    };
    server.password_changed(&account, None);
    world.settle();
    assert!(refused());
    // One of two has failed, and the other goes on.
    slow.set(Mode::Fail);
    let [one, other] = &mut removals;
    assert!(matches!(step(&world, one.as_mut()), Poll::Ready(Err(_))));
    assert!(refused());
    assert!(matches!(step(&world, other.as_mut()), Poll::Ready(Err(_))));
    // The account is still there; what was proved before the change of the password is not.
    slow.set(Mode::Answer);
    let _welcome = world.authenticated("romeo");
    before.authenticate("romeo", wire::PASSWORD);
    assert_eq!(last(&before, 1), ["</stream:stream>"]);
}

#[test]
fn destroy_16_each_session_is_told_and_everybody_sees_it_go() {
    let world = World::new();
    let (romeo, juliet) = (world.online("romeo", "orchard"), world.client("juliet", "balcony"));
    juliet.send("<presence to='romeo@example.com/orchard'/>");
    let early = world.connect();
    early.open();
    let silent = world.connect();
    let authenticated = world.authenticated("juliet");
    let _before = (romeo.received(), juliet.received(), early.received());
    let progress = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&progress);
    let shutdown = || {
        let log = Arc::clone(&log);
        Shutdown::new().progress(move |progress: Progress| {
            log.lock().unwrap().push((progress.ended, progress.left));
        })
    };
    let mut shutdown = pin!(world.shutdown(shutdown));
    assert!(step(&world, shutdown.as_mut()).is_ready());
    assert_eq!(*progress.lock().unwrap(), [(1, 1), (2, 0)]);
    for client in [&juliet, &early, &authenticated] {
        assert_eq!(client.received(), closed("system-shutdown"));
    }
    assert_eq!(last(&romeo, 2), closed("system-shutdown"));
    let [header, error, tag] = &silent.received()[..] else { panic!("header, error, close tag") };
    assert!(header.contains("<stream:stream "), "{header}");
    assert_eq!([error.clone(), tag.clone()], closed("system-shutdown"));
    assert!(world.sessions() == 0 && world.is_forgotten());
    // New ones are refused.
    let late = world.connect();
    assert_eq!(last(&late, 2), closed("system-shutdown"));
}

#[test]
fn destroy_16_a_stream_whose_bind_waits_for_a_store_is_told_at_once() {
    let slow = Slow::new();
    let world = World::with_stores(slow.stores(), |builder, _| builder);
    let client = world.authenticated("romeo");
    slow.set(Mode::Wait);
    let bind = "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>";
    assert!(client.ask(bind).is_empty());
    let mut shutdown = pin!(world.shutdown(Shutdown::new));
    assert!(step(&world, shutdown.as_mut()).is_pending());
    assert_eq!(client.received(), closed("system-shutdown"));
    // What the store says later comes to nothing.
    slow.set(Mode::Answer);
    world.advance(Duration::from_secs(1));
    assert!(step(&world, shutdown.as_mut()).is_ready());
    assert!(client.received().is_empty() && world.sessions() == 0);
}

#[test]
fn destroy_16_during_a_handshake_there_is_nobody_to_be_told() {
    for peer in [Transport::new().starttls(true), Transport::new().direct_tls(true)] {
        let world = World::new();
        let client = world.accept(peer);
        if client.want() == Some(Want::Input) {
            client.open();
            client.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
        }
        assert_eq!(client.want(), Some(Want::StartTls));
        let _before = client.received();
        let mut shutdown = pin!(world.shutdown(Shutdown::new));
        assert!(step(&world, shutdown.as_mut()).is_ready());
        assert!(client.received().is_empty() && !client.is_connected());
    }
}

#[test]
fn stream_36_a_half_closed_client_is_not_waited_for() {
    let world = World::new();
    let romeo = world.client("romeo", "orchard");
    // Ours is closed already: nothing is left to be said.
    assert!(world.kick(&romeo.session()));
    assert_eq!(romeo.received(), closed("policy-violation"));
    romeo.driver(Driver::end_of_input);
    world.settle();
    assert!(romeo.received().is_empty() && !romeo.is_connected());
    assert_eq!(romeo.recorder().closed(), Some(Close::Flush));
}

#[test]
fn destroy_16_at_return_every_session_had_its_unavailable() {
    let sent = Arc::new(Mutex::new(Vec::new()));
    let wire = Wire(Arc::clone(&sent));
    let world = World::with(|builder, _| builder.router(wire));
    world.roster("romeo", "a@remote.example", Subscription::From);
    let clients: Vec<_> = (0..5).map(|n| world.online("romeo", &format!("r{n}"))).collect();
    sent.lock().unwrap().clear();
    let mut shutdown = pin!(world.shutdown(Shutdown::new));
    assert!(step(&world, shutdown.as_mut()).is_ready());
    let mut seen = sent.lock().unwrap().clone();
    seen.sort();
    let expected: Vec<_> = (0..5)
        .map(|n| unavailable(&format!("romeo@example.com/r{n}"), "a@remote.example"))
        .collect();
    assert_eq!(seen, expected);
    drop(clients);
}

#[test]
fn destroy_16_the_pace_is_kept() {
    let world = World::new();
    let clients: Vec<_> = (0..5).map(|n| world.client("romeo", &format!("r{n}"))).collect();
    let options = || Shutdown::new().pace(2, Duration::from_secs(10));
    let mut shutdown = pin!(world.shutdown(options));
    let over = |clients: &[Client]| clients.iter().filter(|c| c.session().is_ended()).count();
    for ended in [2, 4] {
        assert!(step(&world, shutdown.as_mut()).is_pending());
        assert_eq!(over(&clients), ended);
        world.advance(Duration::from_secs(9));
        assert!(step(&world, shutdown.as_mut()).is_pending());
        assert_eq!(over(&clients), ended);
        world.advance(Duration::from_secs(1));
    }
    assert!(step(&world, shutdown.as_mut()).is_ready());
    assert_eq!(over(&clients), 5);
}

#[test]
fn destroy_16_what_hibernating_sessions_hold_is_stored() {
    let world = World::with(|builder, _| builder.extension(xep::StreamManagement::new()));
    let romeo = world.online("romeo", "orchard");
    romeo.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    romeo.lose();
    let juliet = world.client("juliet", "balcony");
    juliet.send("<message to='romeo@example.com' type='chat'><body>a</body></message>");
    let store = world.stores().offline.clone().unwrap();
    assert_eq!(now(store.count(&world.account("romeo"))).unwrap(), 0);
    let mut shutdown = pin!(world.shutdown(Shutdown::new));
    assert!(step(&world, shutdown.as_mut()).is_ready());
    assert_eq!(now(store.count(&world.account("romeo"))).unwrap(), 1);
}

#[test]
fn stream_30_other_hosts_are_named_on_protected_streams_only() {
    let world = World::new();
    let romeo = world.client("romeo", "orchard");
    let plain = world.accept(Transport::new().starttls(true));
    plain.open();
    let protected = world.connect();
    protected.open();
    let _before = (plain.received(), protected.received());
    let options = || Shutdown::new().see_other_host("2001:db8::1", Some(5222));
    let mut shutdown = pin!(world.shutdown(options));
    assert!(step(&world, shutdown.as_mut()).is_ready());
    let other_host = "<stream:error><see-other-host xmlns='urn:ietf:params:xml:ns:xmpp-streams'>\
                      [2001:db8::1]:5222</see-other-host></stream:error>";
    for client in [&romeo, &protected] {
        assert_eq!(client.received(), [other_host, "</stream:stream>"]);
    }
    assert_eq!(plain.received(), closed("system-shutdown"));
}

#[test]
fn limit_21_too_many_recipients_are_refused() {
    use xmpp_session::server::{Limits, Rate};
    let world = World::with(|builder, _| {
        let mut limits = Limits::default();
        limits.recipients = Some(Rate::new(2, Duration::from_secs(60), 2));
        builder.limits(limits)
    });
    let romeo = world.online("romeo", "orchard");
    let _own = romeo.received();
    let message = |to: &str| {
        let message = format!("<message to='{to}' type='chat' id='1'><body>a</body></message>");
        romeo.ask(&message).concat()
    };
    for to in ["a@example.com", "B@example.com/x", "b@example.com", "a@example.com/y"] {
        assert_eq!(message(to), "", "{to}");
    }
    let refused = message("c@example.com");
    assert!(refused.contains("<error type='wait'><policy-violation "), "{refused}");
    // The server and the own account do not count.
    assert!(!message("romeo@example.com/none").contains("policy-violation"));
    let iq = "<iq to='example.com' type='get' id='1'><q xmlns='urn:x'/></iq>";
    assert!(romeo.answer(iq).contains("<service-unavailable "));
    assert_eq!(message("a@example.com"), "");
    world.advance(Duration::from_secs(60));
    assert_eq!(message("c@example.com"), "");
}
