//! Resource binding: the decision, its policies and limits, and what the client gets first.

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, SystemTime};

use crate::common::*;
use xmpp_session::connection::Close;
use xmpp_session::environment::Environment;
use xmpp_session::jid::{BareJid, FullJid};
use xmpp_session::rules::roster::Roster;
use xmpp_session::session::{
    AuthenticateError, BindRefusal, BindRequest, ClientId, Conflict, EventKind, Hold, Misuse,
    Reason, Reply, Session, SessionSetup,
};
use xmpp_session::stanza::Condition;

fn generated(world: &World, account: &str) -> Owner {
    authed(&Wire::default(), account).bind(&world.registry, BindRequest::new()).unwrap()
}

#[test]
fn bind_2_generated_resources_have_96_random_bits_and_differ() {
    let world = World::with(|builder| builder.sessions_per_account(100));
    let owners: Vec<_> = (0..100).map(|_| generated(&world, "a@x")).collect();
    let mut resources: Vec<_> = owners.iter().map(|o| o.resource().to_string()).collect();
    assert!(resources.iter().all(|r| r.len() == 24 && r.bytes().all(|b| b.is_ascii_hexdigit())));
    resources.sort_unstable();
    resources.dedup();
    assert_eq!(resources.len(), 100);
}

struct Stuck;

impl Environment for Stuck {
    fn now(&self) -> Duration {
        Duration::ZERO
    }

    fn utc(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }

    fn random(&self, out: &mut [u8]) {
        out.fill(7);
    }
}

#[test]
fn bind_2_generated_resources_are_unique_even_if_the_generator_repeats_itself() {
    let registry = Registry::builder(Arc::new(Stuck)).conflict(Conflict::Override).build();
    let bind = || authed(&Wire::default(), "a@x").bind(&registry, BindRequest::new()).unwrap();
    let owners = [bind(), bind(), bind()];
    for owner in &owners {
        assert_eq!(registry.session(owner.jid()).map(|s| s.id()), Some(owner.id()));
    }
    assert_eq!(registry.len(), 3);
}

#[test]
fn bind_3_a_resource_is_granted_as_sent_and_the_result_comes_first() {
    let world = World::new();
    let line = Wire::default();
    line.on_send({
        let world = world.clone();
        move |_| {
            // By the time of its first frame the session can be found.
            assert!(world.session("a@x/Balcony").is_some());
        }
    });
    let owner = world.bind_on(&line, "a@x/Balcony", &[]);
    assert_eq!(owner.jid().as_str(), "a@x/Balcony");
    owner.send(&message("b@x/1", 1)).unwrap();
    assert_eq!(line.frames().first(), Some(&bind_result(owner.jid())));
    assert_eq!(line.frames().len(), 2);
    assert_eq!(world.events_of(owner.id()), [EventKind::Bound]);
}

#[test]
fn bind_4_resources_are_normalised_before_the_conflict_test() {
    let world = World::new();
    let (plain, _) = world.bind("a@x/Home", &[]);
    let (fancy, _) = world.bind("a@x/\u{210c}ome", &[]);
    assert_eq!(plain.jid(), fancy.jid());
    assert!(!plain.is_current(), "BLACK-LETTER CAPITAL H is an H");
}

#[test]
fn bind_5_replace_ends_the_older_session_with_conflict() {
    let world = World::new();
    let (old, old_line) = world.bind("a@x/1", &[]);
    let (new, _) = world.bind("a@x/1", &[]);
    assert!(!old.is_current() && new.is_current());
    let last = old_line.frames().pop().unwrap();
    assert!(last.contains("<conflict ") && last.ends_with("</stream:stream>"), "{last}");
    assert_eq!(old_line.closed(), Some(Close::Flush));
    let end = world.events_of(old.id()).pop();
    let Some(EventKind::Ended { reason, successor, .. }) = end else { panic!("{end:?}") };
    assert!(matches!(reason, Reason::Replaced { by, .. } if by == new.id()));
    assert_eq!(successor, Some(new.id()));
}

#[test]
fn bind_5_override_gives_the_new_session_a_generated_resource() {
    let world = World::with(|builder| builder.conflict(Conflict::Override));
    let (old, _) = world.bind("a@x/1", &[]);
    let (new, line) = world.bind("a@x/1", &[]);
    assert!(old.is_current() && new.is_current());
    assert_eq!(new.resource().as_str().len(), 24);
    assert_eq!(line.frames(), [bind_result(new.jid())], "the result says which it got");
}

#[test]
fn bind_5_refuse_answers_conflict_and_the_stream_goes_on() {
    let world = World::with(|builder| builder.conflict(Conflict::Refuse));
    let (old, _) = world.bind("a@x/1", &[]);
    let line = Wire::default();
    let refused = world.try_bind(&line, "a@x/1", Roster::new()).unwrap_err();
    assert_eq!(*refused.error(), BindRefusal::Conflict.into());
    assert_eq!(BindRefusal::Conflict.condition(), Condition::Conflict);
    assert!(old.is_current() && line.frames().is_empty() && line.closed().is_none());
    assert_eq!(world.registry.len(), 1);
    let again = refused.into_session();
    let request = BindRequest::new().resource(resource("2"));
    assert_eq!(again.bind(&world.registry, request).unwrap().jid().as_str(), "a@x/2");
}

#[test]
fn bind_6_a_resource_replaced_three_times_in_a_minute_is_not_replaced_again() {
    let world = World::new();
    let mut holder = world.bind("a@x/1", &[]).0;
    for _ in 0..3 {
        let next = world.bind("a@x/1", &[]).0;
        assert!(!holder.is_current());
        holder = next;
    }
    let fourth = world.bind("a@x/1", &[]).0;
    assert!(holder.is_current());
    assert_ne!(fourth.jid(), holder.jid());
    // Other resources of the account are not concerned.
    let other = world.bind("a@x/2", &[]).0;
    let _newer = world.bind("a@x/2", &[]).0;
    assert!(!other.is_current());
    world.pass(60);
    let fifth = world.bind("a@x/1", &[]).0;
    assert!(!holder.is_current() && fifth.is_current());
}

#[test]
fn bind_6_how_often_is_a_setting() {
    for most in [0, 1, 7] {
        let world = World::with(|builder| builder.replacements(most, Duration::from_secs(5)));
        let mut holder = world.bind("a@x/1", &[]).0;
        for _ in 0..most {
            holder = world.bind("a@x/1", &[]).0;
            assert_eq!(holder.jid().as_str(), "a@x/1");
        }
        let other = world.bind("a@x/1", &[]).0;
        assert!(holder.is_current() && other.jid() != holder.jid(), "{most}");
        world.pass(5);
        let next = world.bind("a@x/1", &[]).0;
        assert_eq!(holder.is_current(), most == 0);
        assert_eq!(next.jid() == holder.jid(), most > 0);
    }
    let world = World::with(|builder| builder.replacements(usize::MAX, Duration::MAX));
    let owners: Vec<_> = (0..100).map(|_| world.bind("a@x/1", &[]).0).collect();
    assert!(owners.iter().all(|owner| owner.jid().as_str() == "a@x/1"));
}

#[test]
fn bind_6_a_hibernating_session_is_replaced_under_every_policy_and_does_not_count() {
    for policy in [Conflict::Replace, Conflict::Override, Conflict::Refuse] {
        let world = World::with(|builder| builder.conflict(policy));
        for _ in 0..6 {
            let (mut owner, _) = world.bind("a@x/1", &[]);
            assert_eq!(owner.jid().as_str(), "a@x/1", "{policy:?}");
            retain(&mut owner);
        }
        assert_eq!(world.registry.len(), 1);
    }
}

#[test]
fn bind_7_of_many_binds_at_once_exactly_one_gets_the_resource() {
    for _ in 0..30 {
        let world = World::with(|builder| builder.conflict(Conflict::Refuse));
        let barrier = Arc::new(Barrier::new(4));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (world, barrier) = (world.clone(), Arc::clone(&barrier));
                thread::spawn(move || {
                    barrier.wait();
                    world.try_bind(&Wire::default(), "a@x/1", Roster::new()).ok()
                })
            })
            .collect();
        let owners: Vec<_> = threads.into_iter().filter_map(|t| t.join().unwrap()).collect();
        assert_eq!(owners.len(), 1);
        assert_eq!(world.registry.len(), 1);
    }
}

#[test]
fn bind_7_nothing_is_registered_by_a_refused_bind() {
    let world = World::with(|builder| builder.sessions_per_account(1));
    let (owner, _) = world.bind("a@x/1", &[]);
    let refused = world.try_bind(&Wire::default(), "a@x/2", Roster::new()).unwrap_err();
    assert_eq!(*refused.error(), BindRefusal::TooManySessions.into());
    drop(owner);
    assert!(world.registry.is_empty());
    assert!(!world.registry.is_loaded(&BareJid::new("a@x").unwrap()));
}

#[test]
fn bind_8_over_the_limit_the_oldest_hibernating_session_gives_its_place() {
    let world = World::with(|builder| builder.sessions_per_account(3));
    let (mut first, _) = world.bind("a@x/1", &[]);
    let (mut second, _) = world.bind("a@x/2", &[]);
    let (third, _) = world.bind("a@x/3", &[]);
    retain(&mut first);
    retain(&mut second);
    // The second falls asleep first.
    let (first_id, second_id) = (first.id(), second.id());
    drop(second);
    world.pass(1);
    drop(first);
    let (fourth, _) = world.bind("a@x/4", &[]);
    assert!(world.session("a@x/1").is_some() && world.session("a@x/2").is_none());
    assert!(third.is_current() && fourth.is_current());
    let end = world.events_of(second_id).pop().unwrap();
    assert!(matches!(end, EventKind::Ended { reason: Reason::Evicted, .. }), "{end:?}");
    assert!(!world.events_of(first_id).iter().any(is_end));
}

#[test]
fn bind_8_with_live_sessions_only_the_bind_is_answered_resource_constraint() {
    let world = World::with(|builder| builder.sessions_per_account(2));
    let (a, b) = (world.bind("a@x/1", &[]).0, world.bind("a@x/2", &[]).0);
    let refused = world.try_bind(&Wire::default(), "a@x/3", Roster::new()).unwrap_err();
    assert_eq!(*refused.error(), BindRefusal::TooManySessions.into());
    assert_eq!(BindRefusal::TooManySessions.condition(), Condition::ResourceConstraint);
    // A replacement needs no further place.
    let (c, _) = world.bind("a@x/2", &[]);
    assert!(a.is_current() && !b.is_current() && c.is_current());
    assert_eq!(world.registry.len(), 2);
}

#[test]
fn limit_8_an_account_has_32_sessions_by_default() {
    let world = World::new();
    let owners: Vec<_> = (0..32).map(|_| generated(&world, "a@x")).collect();
    let refused = authed(&Wire::default(), "a@x").bind(&world.registry, BindRequest::new());
    assert_eq!(*refused.unwrap_err().error(), BindRefusal::TooManySessions.into());
    let _of_another_account = generated(&world, "b@x");
    assert_eq!(world.registry.len(), owners.len() + 1);
}

#[test]
fn limit_9_of_nine_hibernating_sessions_the_oldest_ends() {
    let world = World::new();
    let mut ids = Vec::new();
    for n in 0..9 {
        let (mut owner, _) = world.bind(&format!("a@x/{n}"), &[]);
        retain(&mut owner);
        ids.push(owner.id());
        drop(owner);
        world.pass(1);
    }
    assert_eq!(world.registry.counts().hibernating, 8);
    assert!(world.events_of(ids[0]).iter().any(is_end));
    assert!(!world.events_of(ids[1]).iter().any(is_end));
    assert!(world.session("a@x/0").is_none());
}

#[test]
fn bind_9_a_stream_that_is_not_open_binds_nothing() {
    let world = World::new();
    let mut session = authed(&Wire::default(), "a@x");
    session.restart();
    let refused = session.bind(&world.registry, BindRequest::new()).unwrap_err();
    assert_eq!(*refused.error(), Misuse::NotOpen.into());
    let mut session = refused.into_session();
    session.open();
    assert!(session.bind(&world.registry, BindRequest::new()).is_ok());
}

#[test]
fn stream_8_authentication_needs_an_open_stream_of_the_accounts_domain() {
    let account = BareJid::new("a@x").unwrap();
    let session = Session::new(Wire::default());
    let refused = session.authenticate(account.clone()).unwrap_err();
    assert_eq!(*refused.error(), AuthenticateError::NotOpen);
    let mut session = refused.into_session();
    session.open(domain());
    assert_eq!(session.domain().map(|d| d.as_str()), Some("x"));
    session.restart();
    assert!(!session.is_open() && session.domain().is_none());
    session.open(domain());
    let refused = session.authenticate(BareJid::new("a@y").unwrap()).unwrap_err();
    let (session, error) = refused.into_parts();
    assert_eq!(error, AuthenticateError::OtherDomain);
    assert_eq!(session.authenticate(account).unwrap().account().as_str(), "a@x");
}

/// Binds `a@x/1` while its predecessor's end is half-way through: the watcher's line runs
/// `meanwhile` from inside the delivery of the unavailable.
fn during_the_end(meanwhile: impl Fn(&World) + Send + Sync + 'static) -> (World, Wire) {
    let world = World::new();
    let (watcher, line) = world.available("w@x/1", &[]);
    let (old, _) = world.available("a@x/1", &["w@x"]);
    drop(line.take());
    line.on_send({
        let world = world.clone();
        move |frame| {
            if frame.contains("unavailable") {
                meanwhile(&world);
            }
        }
    });
    old.end(Reason::Closed);
    line.forget_hook();
    // Keeps its connection recording.
    std::mem::forget(watcher);
    (world, line)
}

#[test]
fn bind_14_a_successor_writes_nothing_and_takes_no_input_until_its_predecessor_is_forgotten() {
    let line = Wire::default();
    let (world, watcher) = during_the_end({
        let line = Arc::clone(&line);
        move |world| {
            assert!(world.session("a@x/1").is_none(), "invisible at once");
            let mut owner = world.bind_on(&line, "a@x/1", &[]);
            assert_eq!(world.session("a@x/1").map(|s| s.id()), Some(owner.id()));
            assert!(owner.try_input().is_none(), "no input");
            owner.send(&message("b@x/1", 1)).expect("it collects");
            assert!(line.frames().is_empty(), "it writes nothing");
            std::mem::forget(owner);
        }
    });
    let frames = line.frames();
    assert_eq!(frames.len(), 2);
    assert_eq!(frames[0], bind_result(&FullJid::new("a@x/1").unwrap()), "the result comes first");
    assert!(frames[1].starts_with("<message"));
    assert_eq!(seen(&watcher.frames(), "a@x/1"), [false]);
    assert_eq!(world.registry.len(), 2);
}

#[test]
fn bind_14_two_generations_of_endings_open_the_gate_once_both_are_gone() {
    let (second, third) = (Wire::default(), Wire::default());
    let (world, _) = during_the_end({
        let (second, third) = (Arc::clone(&second), Arc::clone(&third));
        move |world| {
            let gated = world.bind_on(&second, "a@x/1", &[]);
            third.on_send({
                let second = Arc::clone(&second);
                // The end of the second comes after that of the first, which this is inside of.
                move |_| assert_eq!(second.frames().len(), 1, "the second is not gone yet")
            });
            let owner = world.bind_on(&third, "a@x/1", &[]);
            assert!(!gated.is_current());
            assert!(third.frames().is_empty());
            std::mem::forget(owner);
        }
    });
    // The one in between never was told its JID; it is told of the conflict alone.
    assert_eq!(second.frames().len(), 1);
    assert!(second.frames()[0].contains("<conflict "));
    assert_eq!(third.frames(), [bind_result(&FullJid::new("a@x/1").unwrap())]);
    let bound = lock(&world.events).iter().filter(|(_, k)| *k == EventKind::Bound).count();
    assert_eq!((bound, world.registry.len()), (4, 2));
}

#[test]
fn bind_14_a_session_that_ends_before_its_result_is_made_is_not_given_it() {
    let world = World::new();
    let line = Wire::default();
    let mut kick = |jid: &FullJid| {
        let session = world.registry.session(jid).expect("connected before the result");
        world.registry.destroy_session(&session, Reason::Kicked);
        Reply::Element(bind_result(jid).into_bytes())
    };
    let request = BindRequest::new().resource(resource("1")).reply(&mut kick);
    let owner = authed(&line, "a@x").bind(&world.registry, request).unwrap();
    assert!(!owner.is_current() && world.registry.is_empty());
    assert_eq!(line.frames().len(), 1);
    assert!(line.frames()[0].contains("<policy-violation "));
}

#[test]
fn bind_14_a_waiting_owner_is_woken_when_the_gate_opens() {
    let waiting = Arc::new(std::sync::Mutex::new(None));
    let woken = Arc::new(Woken::default());
    let (_world, _) = during_the_end({
        let (waiting, woken) = (Arc::clone(&waiting), Arc::clone(&woken));
        move |world| {
            let (mut owner, _) = world.bind("a@x/1", &[]);
            let waker = std::task::Waker::from(Arc::clone(&woken));
            let mut cx = std::task::Context::from_waker(&waker);
            assert!(owner.poll_input(&mut cx).is_pending());
            // A look in between takes nobody's waker away.
            assert!(owner.try_input().is_none());
            *lock(&waiting) = Some(owner);
        }
    });
    assert_eq!(woken.0.load(std::sync::atomic::Ordering::SeqCst), 1);
    let mut owner = lock(&waiting).take().unwrap();
    assert!(matches!(owner.try_input(), Some(Ok(_))));
}

#[derive(Default)]
struct Woken(std::sync::atomic::AtomicUsize);

impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    }
}

fn of_client(id: u8) -> BindRequest<'static> {
    BindRequest::new().replaces(ClientId::from_bytes([id; 16]))
}

#[test]
fn bind2_4_a_session_is_gated_while_its_clients_older_one_is_ending() {
    let world = World::new();
    let (_watcher, line) = world.available("b@x/1", &["a@x"]);
    let request = of_client(1).roster(mutual(&["b@x"]));
    let mut old = authed(&Wire::default(), "a@x").bind(&world.registry, request).unwrap();
    appear(&mut old, 0);
    let late = Arc::new(std::sync::Mutex::new(None));
    line.on_send({
        let (late, registry) = (Arc::clone(&late), world.registry.clone());
        move |frame| {
            if frame.contains("unavailable") {
                // Its own client's, another's and nobody's.
                let lines: [Wire; 3] = Default::default();
                let requests = [of_client(1), of_client(2), BindRequest::new()];
                let mut owners = Vec::new();
                for (request, line) in requests.into_iter().zip(&lines) {
                    let session = authed(line, "a@x").bind(&registry, request.greeted_later());
                    let session = session.unwrap();
                    session.greet(bind_result(session.jid()).into_bytes());
                    owners.push(session);
                }
                let free = owners.iter_mut().map(|owner| owner.try_input().is_some());
                assert_eq!(free.collect::<Vec<_>>(), [false, true, true]);
                assert!(lines[0].frames().is_empty() && !lines[1].frames().is_empty());
                *lock(&late) = Some((owners, lines));
            }
        }
    });
    old.end(Reason::Closed);
    line.forget_hook();
    let (mut owners, lines) = lock(&late).take().unwrap();
    assert_eq!(lines[0].frames(), [bind_result(owners[0].jid())]);
    assert!(matches!(owners[0].try_input(), Some(Ok(_))));
}

#[test]
fn bind2_4_all_of_a_client_make_room_and_nobody_else() {
    let world = World::with(|builder| builder.sessions_per_account(2));
    let bind = |account: &str, request: BindRequest<'_>| {
        authed(&Wire::default(), account).bind(&world.registry, request)
    };
    let first = bind("a@x", of_client(1)).unwrap();
    let other = bind("a@x", of_client(2)).unwrap();
    let elsewhere = bind("b@x", of_client(1)).unwrap();
    // Its own resource is in use by itself: no conflict of BIND-5, and no loop of BIND-6.
    for _ in 0..5 {
        let request = of_client(1).resource(resource("1"));
        std::mem::forget(bind("a@x", request).unwrap());
    }
    assert!(!first.is_current() && other.is_current() && elsewhere.is_current());
    assert_eq!(world.registry.len(), 3);
    let refused = bind("a@x", of_client(3)).unwrap_err();
    assert_eq!(refused.error(), &BindRefusal::TooManySessions.into());
    assert_eq!(world.registry.len(), 3);
    let ended = world.events_of(first.id());
    assert!(matches!(ended[..], [EventKind::Bound, EventKind::Ended { successor: Some(_), .. }]));
}

#[test]
fn bind2_5_what_a_session_is_to_have_it_has_when_it_is_found() {
    let held = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&held);
    let world = World::with(|builder| {
        builder.hold(|_, _| Hold::Latest("one".into())).listener(move |event| {
            let session = event.session();
            let value = session.extension::<u8>().map(|value| *value);
            let shared = session.account_state().extension::<u16>().map(|value| *value);
            lock(&seen).push((value, shared, session.is_retained()));
        })
    });
    let setup = |value: u8, shared: u16| {
        let mut setup = SessionSetup::default();
        setup.set_extension(value);
        setup.set_account_extension(shared);
        setup.set_holding(true);
        setup.retain(world.registry.retention(Duration::from_secs(60)));
        setup
    };
    let line = Wire::default();
    let request = BindRequest::new().setup(setup(1, 1)).greeted_later();
    let owner = authed(&line, "a@x").bind(&world.registry, request).unwrap();
    let other = BindRequest::new().setup(setup(2, 2));
    let _other = authed(&Wire::default(), "a@x").bind(&world.registry, other).unwrap();
    assert_eq!(lock(&held)[..], [(Some(1), Some(1), true), (Some(2), Some(1), true)]);
    // Held back, and kept to be acknowledged; and nothing is written before its greeting.
    owner.send(&message("b@x/1", 1)).unwrap();
    owner.send(&message("b@x/1", 2)).unwrap();
    assert!(line.frames().is_empty());
    owner.greet(Reply::Login(b"<success/>".to_vec(), Some(b"<f/>".to_vec())));
    assert_eq!(line.take(), ["<success/><stream:features><f/></stream:features>"]);
    owner.handle().set_holding(false);
    assert_eq!(line.take().len(), 1);
    assert_eq!(owner.handled(), Some(0));
    drop(owner);
    assert_eq!(world.registry.counts().hibernating, 1);
}

#[test]
fn bind2_8_a_session_that_is_not_greeted_is_lost_with_its_owner() {
    let world = World::new();
    let line = Wire::default();
    let owner =
        authed(&line, "a@x").bind(&world.registry, BindRequest::new().greeted_later()).unwrap();
    owner.send(&message("b@x/1", 1)).unwrap();
    drop(owner);
    assert!(world.registry.is_empty() && line.frames().is_empty());
    assert_eq!(lock(&world.leftovers).len(), 1);
}
