//! Stores and handlers that take their time (rules STREAM-23, SASL-7, DESTROY-10; the driver may be
//! dropped at any moment, and nothing that was accepted is lost).

use crate::common::{slow, wire};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use slow::{Mode, Slow};
use wire::{PASSWORD, World, now};
use xmpp_session::connection::Recorder;
use xmpp_session::environment::System;
use xmpp_session::extension::{Extension, Flow, IqReply, IqRequest, Stage};
use xmpp_session::jid::{BareJid, DomainPart};
use xmpp_session::rules::roster::Subscription;
use xmpp_session::server::{DomainPolicy, Server, Transport, Want};
use xmpp_session::session::{Bound, Reason, Session, SessionHandle};
use xmpp_session::stanza::Stanza;
use xmpp_session::store::{RosterStore, Stores};
use xmpp_session::stream::Nonza;

const SECOND: Duration = Duration::from_secs(1);
const CLOSE: &str = "</stream:stream>";
const ADD: &str = "<iq type='set' id='add'><query xmlns='jabber:iq:roster'><item jid='nurse@example.com'/></query></iq>";

fn slow_world() -> (Slow, World) {
    let slow = Slow::new();
    let world = World::with_stores(slow.stores(), |builder, _| builder);
    (slow, world)
}

fn roster_of(slow: &Slow, account: &str) -> usize {
    let account = BareJid::new(account).unwrap();
    now(slow.load(&account)).unwrap().items.len()
}

#[test]
fn stream_23_later_stanzas_wait_and_other_streams_go_on() {
    let (slow, world) = slow_world();
    let (romeo, juliet) = (world.client("romeo", "x"), world.online("juliet", "balcony"));
    let nurse = world.online("nurse", "hall");
    slow.set(Mode::Wait);
    romeo.send(ADD);
    romeo.send("<message to='juliet@example.com'><body>later</body></message>");
    assert_eq!(romeo.want(), None, "reading pauses");
    assert_eq!((romeo.received(), juliet.received()), (vec![], vec![]));
    nurse.send("<message to='juliet@example.com'><body>now</body></message>");
    assert!(juliet.received().concat().contains("now"));
    slow.set(Mode::Answer);
    world.settle();
    assert!(romeo.received().concat().contains("id='add' type='result'"));
    assert!(juliet.received().concat().contains("later"));
    assert_eq!(romeo.want(), Some(Want::Input));
}

#[test]
fn destroy_10_a_dropped_driver_does_not_cancel_what_was_accepted() {
    let (slow, world) = slow_world();
    let romeo = world.client("romeo", "x");
    slow.set(Mode::Wait);
    romeo.send(ADD);
    romeo.send("<message to='juliet@example.com'><body>never read</body></message>");
    romeo.lose();
    assert_eq!(world.counts().sessions, 0);
    assert!(world.metrics().jobs > 0);
    slow.set(Mode::Answer);
    world.settle();
    assert_eq!(roster_of(&slow, "romeo@example.com"), 1);
    assert_eq!(world.metrics().jobs, 0);
    assert!(!world.client("juliet", "y").ask("<presence/>").concat().contains("never read"));
}

#[test]
fn stream_23_a_session_that_ends_meanwhile_does_not_wait_for_the_store() {
    let (slow, world) = slow_world();
    let romeo = world.client("romeo", "x");
    slow.set(Mode::Wait);
    romeo.send(ADD);
    assert!(world.destroy(&romeo.session(), Reason::Kicked));
    world.settle();
    assert!(romeo.received().concat().ends_with(CLOSE));
    world.advance(2 * SECOND);
    assert!(!romeo.is_connected(), "the transport hangs on the store");
    slow.set(Mode::Answer);
    world.settle();
    assert_eq!(roster_of(&slow, "romeo@example.com"), 1, "an accepted stanza is finished");
}

#[test]
fn stream_27_the_close_tag_waits_for_the_stanza_before_it() {
    let (slow, world) = slow_world();
    let romeo = world.client("romeo", "x");
    slow.set(Mode::Wait);
    romeo.send(ADD);
    romeo.send(CLOSE);
    assert_eq!(romeo.received(), [""; 0]);
    slow.set(Mode::Answer);
    world.settle();
    let got = romeo.received();
    assert!(got.len() == 2 && got[0].contains("id='add' type='result'"), "{got:?}");
    assert_eq!(got[1], CLOSE);
    assert!(!romeo.is_connected());
}

#[test]
fn promise_8_a_store_that_fails_or_panics_is_an_error_to_the_client_alone() {
    for mode in [Mode::Fail, Mode::Panic, Mode::PanicAtOnce] {
        let (slow, world) = slow_world();
        let romeo = world.client("romeo", "x");
        slow.set(mode);
        let answer = romeo.ask(ADD);
        assert_eq!(answer.len(), 1, "{mode:?}: {answer:?}");
        assert!(
            answer[0].contains("type='error'") && answer[0].contains("<internal-server-error "),
            "{mode:?}: {answer:?}"
        );
        assert_eq!(romeo.want(), Some(Want::Input), "{mode:?}");
        slow.set(Mode::Answer);
        assert_eq!(roster_of(&slow, "romeo@example.com"), 0, "{mode:?}");
        assert!(romeo.ask(ADD).concat().contains("type='result'"), "{mode:?}");
        assert_eq!(world.metrics().jobs, 0);
    }
}

/// A server whose passwords a directory checks.
fn directory() -> (Slow, World) {
    let slow = Slow::new();
    let authenticator = Arc::new(slow.clone());
    let world = World::with(|builder, _| {
        let mut policy = DomainPolicy::default();
        policy.authenticator = Some(authenticator);
        let domain = DomainPart::new("example.net").unwrap().into_owned();
        builder.domain_with(domain.clone(), policy).default_domain(domain)
    });
    (slow, world)
}

const HEADER: &str = "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>";

#[test]
fn stream_23_nothing_behind_a_login_is_looked_at_before_its_verdict() {
    let (slow, world) = directory();
    slow.set(Mode::Wait);
    let client = world.connect();
    client.send(HEADER);
    let _features = client.received();
    client.authenticate("romeo", PASSWORD);
    client.send(HEADER);
    client.send("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
    assert_eq!(client.received(), [""; 0]);
    assert_eq!(client.want(), None);
    slow.set(Mode::Answer);
    world.settle();
    assert!(client.jid().starts_with("romeo@example.net/"));
}

#[test]
fn limit_1_a_directory_that_never_answers() {
    let (slow, world) = directory();
    slow.set(Mode::Wait);
    let (client, lost) = (world.connect(), world.connect());
    for client in [&client, &lost] {
        client.send(HEADER);
        client.authenticate("romeo", PASSWORD);
        let _features = client.received();
    }
    lost.lose();
    world.advance(60 * SECOND);
    assert!(client.received().concat().contains("<policy-violation "));
    world.advance(2 * SECOND);
    assert!(!client.is_connected());
    assert_eq!(world.metrics().unauthenticated, 0);
    slow.set(Mode::Answer);
    world.settle();
    assert_eq!(world.counts().sessions, 0);
}

#[test]
fn limit_3_a_host_that_reads_on_during_a_login_is_stopped() {
    let (slow, world) = directory();
    slow.set(Mode::Wait);
    let client = world.connect();
    client.send(HEADER);
    client.authenticate("romeo", PASSWORD);
    let _features = client.received();
    for _ in 0..64 {
        client.send(&" ".repeat(1024));
    }
    assert_eq!(client.received(), [""; 0]);
    client.send(" ");
    assert!(client.received().concat().contains("<policy-violation "));
}

/// A waker that counts.
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn background_drives_on_what_the_driver_left() {
    let (slow, world) = slow_world();
    let romeo = world.client("romeo", "x");
    let count = Arc::new(Count(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&count));
    let server = world.server().clone();
    let mut background = pin!(server.background());
    slow.set(Mode::Wait);
    romeo.send(ADD);
    let poll = |b: std::pin::Pin<&mut _>| Future::poll(b, &mut Context::from_waker(&waker));
    assert_eq!(poll(background.as_mut()), Poll::Pending);
    slow.set(Mode::Answer);
    assert_eq!(count.0.load(Ordering::SeqCst), 1, "background was not woken");
    assert_eq!(poll(background.as_mut()), Poll::Pending);
    // And wakes the driver, which then goes on.
    romeo.driver(|driver| {
        let want = driver.poll_want(&mut Context::from_waker(&waker));
        assert_eq!(want, Poll::Ready(Want::Input));
    });
    assert!(romeo.recorder().take().concat().contains("id='add' type='result'"));
}

#[test]
fn a_driver_that_waits_is_woken_by_the_store_and_by_an_end() {
    let (slow, world) = slow_world();
    let romeo = world.client("romeo", "x");
    let count = Arc::new(Count(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&count));
    let wakes = || count.0.swap(0, Ordering::SeqCst);
    slow.set(Mode::Wait);
    romeo.send(ADD);
    let poll = || romeo.driver(|d| d.poll_want(&mut Context::from_waker(&waker)));
    assert_eq!(poll(), Poll::Pending);
    assert_eq!(wakes(), 0);
    slow.set(Mode::Answer);
    let mut background = pin!(world.server().background());
    let _never = background.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(wakes() > 0, "not woken by the store");
    assert_eq!(poll(), Poll::Ready(Want::Input));
    // An end from elsewhere, while it waits for input.
    world.destroy(&romeo.session(), Reason::Kicked);
    assert!(wakes() > 0, "not woken by the end");
    // And while it waits for a store.
    let romeo = world.client("romeo", "y");
    slow.set(Mode::Wait);
    romeo.send(&ADD.replace("nurse", "friar"));
    let poll = || romeo.driver(|d| d.poll_want(&mut Context::from_waker(&waker)));
    assert_eq!(poll(), Poll::Pending);
    wakes();
    world.destroy(&romeo.session(), Reason::Kicked);
    assert!(wakes() > 0, "not woken by the end");
}

#[test]
fn want_blocking_waits_on_its_thread() {
    let slow = Slow::new();
    let mut policy = DomainPolicy::default();
    policy.authenticator = Some(Arc::new(slow.clone()));
    let domain = DomainPart::new("example.net").unwrap().into_owned();
    let server: Server<Recorder> = Server::builder(Arc::new(System::new()), Stores::memory())
        .domain_with(domain.clone(), policy)
        .default_domain(domain)
        .build();
    let recorder = Recorder::new();
    let mut driver = server.accept(recorder.clone(), Transport::new().secure(true));
    assert_eq!(driver.want_blocking(None), Some(Want::Input));
    driver.receive(HEADER.as_bytes());
    slow.set(Mode::Wait);
    driver.receive(b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AHJvbWVvAHNlY3JldA==</auth>");
    assert_eq!(driver.want_blocking(Some(Duration::ZERO)), None);
    assert_eq!(driver.want_blocking(Some(Duration::from_millis(1))), None);
    std::thread::scope(|scope| {
        scope.spawn(|| slow.set(Mode::Answer));
        assert_eq!(driver.want_blocking(None), Some(Want::Input));
    });
    assert!(recorder.take().concat().contains("<success "));
    driver.receive(CLOSE.as_bytes());
    drop(driver);
}

/// An extension with every kind of defect.
struct Broken;

impl Extension<Recorder> for Broken {
    fn features(&self, _: Stage, out: &mut Vec<u8>) {
        out.extend_from_slice(b"<half");
        panic!("an extension with a defect");
    }

    fn nonza(&self, _: &mut Session<Bound, Recorder>, _: &Nonza) -> Flow {
        panic!("an extension with a defect");
    }

    fn inbound(&self, _: &SessionHandle<Recorder>, stanza: &Stanza) -> Flow {
        assert!(stanza.id().as_deref() != Some("inbound"), "an extension with a defect");
        Flow::Next
    }

    fn iq(&self, request: &IqRequest<'_, Recorder>) -> Option<IqReply> {
        assert!(!request.is("now", "urn:example:broken"), "an extension with a defect");
        request
            .is("later", "urn:example:broken")
            .then(|| IqReply::Later(Box::pin(async { panic!("an extension with a defect") })))
    }
}

#[test]
fn what_an_extension_loses_by_a_panic_is_one_request() {
    let world = World::with(|builder, _| builder.extension(Broken));
    let romeo = world.client("romeo", "x");
    for xml in [
        "<iq type='get' id='inbound'><ping xmlns='urn:xmpp:ping'/></iq>",
        "<iq type='get' id='1' to='example.com'><now xmlns='urn:example:broken'/></iq>",
        "<iq type='get' id='1' to='example.com'><later xmlns='urn:example:broken'/></iq>",
        "<message id='inbound' to='juliet@example.com'/>",
    ] {
        let answer = romeo.ask(xml);
        assert_eq!(answer.len(), 1, "{xml}: {answer:?}");
        assert!(answer[0].contains("<internal-server-error "), "{xml}: {answer:?}");
        assert_eq!(romeo.want(), Some(Want::Input));
    }
    let answer = romeo.ask("<element xmlns='urn:example:broken'/>").concat();
    assert!(answer.contains("<internal-server-error ") && answer.ends_with(CLOSE), "{answer}");
}

/// An extension that answers after a while.
struct Patient;

impl Extension<Recorder> for Patient {
    fn iq(&self, request: &IqRequest<'_, Recorder>) -> Option<IqReply> {
        request
            .is("never", "urn:example:slow")
            .then(|| IqReply::Later(Box::pin(std::future::pending())))
    }
}

#[test]
fn iq_5_a_handler_has_sixty_seconds() {
    let world = World::with(|builder, _| builder.extension(Patient));
    let (romeo, juliet) = (world.client("romeo", "x"), world.online("juliet", "y"));
    romeo.send("<iq type='get' id='1' to='example.com'><never xmlns='urn:example:slow'/></iq>");
    romeo.send("<message to='juliet@example.com'><body>Hi</body></message>");
    world.advance(59 * SECOND);
    assert_eq!((romeo.received(), juliet.received()), (vec![], vec![]));
    world.advance(SECOND);
    let answer = romeo.received().concat();
    assert!(answer.contains("<error type='wait'><resource-constraint "), "{answer}");
    assert_eq!(juliet.received().len(), 1);
}

#[test]
fn stream_23_subscriptions_wait_for_both_accounts() {
    let (slow, world) = slow_world();
    world.roster("romeo", "nurse@example.com", Subscription::None);
    let (romeo, juliet) = (world.online("romeo", "x"), world.online("juliet", "y"));
    slow.set(Mode::Wait);
    romeo.send("<presence type='subscribe' to='juliet@example.com'/>");
    juliet.send("<presence type='subscribe' to='romeo@example.com'/>");
    romeo.lose();
    assert!(juliet.received().is_empty());
    slow.set(Mode::Answer);
    world.settle();
    assert!(juliet.received().concat().contains("type='subscribe'"));
    assert_eq!(world.metrics().jobs, 0);
}
