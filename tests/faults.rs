//! Stores that wait, fail or panic under roster changes and subscriptions: nothing is told that is
//! not stored, nothing that is stored is lost, and nobody else waits (promise "durable before
//! acknowledged"; rules ROSTER-1, ROSTER-10, ROSTER-20, SUB-2, IQ-5).

use crate::common::{contacts, faults, wire};
use std::time::Duration;

use contacts::{GET, Remote, interested, remove, set};
use faults::{Fault, Faulty};
use wire::{Client, World, now};
use xmpp_session::jid::BareJid;
use xmpp_session::rules::roster::Subscription;
use xmpp_session::session::Item;
use xmpp_session::store::{RosterStore, StoredRoster};

const ERROR: &str = "<internal-server-error xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>";

struct Scene {
    faulty: Faulty,
    world: World,
    remote: Remote,
    romeo: Client,
    juliet: Client,
    nurse: Client,
}

impl Scene {
    /// Romeo and Juliet, available and interested, subscribed or not; the nurse beside them.
    fn new(subscription: Subscription) -> Self {
        let (faulty, remote) = (Faulty::new(), Remote::default());
        let router = remote.clone();
        let world = World::with_stores(faulty.stores(), |builder, _| builder.router(router));
        if subscription != Subscription::None {
            world.roster("romeo", "juliet@example.com", subscription);
            world.roster("juliet", "romeo@example.com", subscription);
        }
        let online = |node| interested(world.online(node, "r"));
        let (romeo, juliet, nurse) = (online("romeo"), online("juliet"), online("nurse"));
        // Host code: every look-up works within it, so no lock is held across it.
        let inner = world.clone();
        faulty.on_call(move || {
            for session in inner.each() {
                let _seen = (session.roster(), session.info(), session.available().is_some());
                let _sent = session.send_item(&Item::element(b" "));
            }
        });
        let scene = Self { faulty, world, remote, romeo, juliet, nurse };
        let _before = scene.received();
        scene
    }

    fn received(&self) -> [Vec<String>; 4] {
        [&self.romeo, &self.juliet, &self.nurse]
            .iter()
            .map(|client| client.received())
            .chain([self.remote.routed()])
            .collect::<Vec<_>>()
            .try_into()
            .unwrap()
    }

    fn stored(&self) -> [StoredRoster; 2] {
        ["romeo", "juliet"].map(|node| {
            let account = BareJid::new(&format!("{node}@example.com")).unwrap();
            now(RosterStore::load(self.faulty.memory(), &account)).unwrap()
        })
    }

    fn rosters(&self) -> [Vec<String>; 2] {
        [self.romeo.ask(GET), self.juliet.ask(GET)]
    }
}

/// Everything that changes a roster: from whom, what, and the subscription it starts from.
fn changes() -> Vec<(Subscription, String)> {
    let presence =
        |type_: &str| format!("<presence to='juliet@example.com' type='{type_}' id='p'/>");
    let mut changes = Vec::new();
    for subscription in [Subscription::None, Subscription::Both] {
        for type_ in ["subscribe", "subscribed", "unsubscribe", "unsubscribed"] {
            changes.push((subscription, presence(type_)));
        }
        changes.push((subscription, set("<item jid='juliet@example.com' name='J'/>")));
    }
    changes.push((Subscription::Both, remove("juliet@example.com")));
    changes
}

/// How many calls a change makes, and whether it changes anything.
fn calls(subscription: Subscription, change: &str) -> (usize, bool) {
    let scene = Scene::new(subscription);
    let before = scene.stored();
    scene.faulty.decide(|_, _| Fault::None);
    scene.romeo.send(change);
    (scene.faulty.calls(), scene.stored() != before)
}

#[test]
fn a_call_that_fails_leaves_everything_as_it_was() {
    let mut failed = 0;
    for (subscription, change) in changes() {
        let (calls, _) = calls(subscription, &change);
        for at in 0..calls {
            for fault in [Fault::Fail, Fault::SlowFail, Fault::Panic] {
                let scene = Scene::new(subscription);
                let (stored, rosters) = (scene.stored(), scene.rosters());
                scene.faulty.decide(move |_, n| if n == at { fault } else { Fault::None });
                scene.romeo.send(&change);
                scene.faulty.release();
                scene.world.settle();
                let context = format!("{change} {at} {fault:?}");
                let [romeo, juliet, nurse, remote] = scene.received();
                assert_eq!(romeo.len(), 1, "{context}: {romeo:?}");
                assert!(romeo[0].contains("type='error'") && romeo[0].contains(ERROR), "{context}");
                assert!([juliet, nurse, remote].concat().is_empty(), "{context}");
                assert!(scene.stored() == stored, "{context}");
                assert_eq!(scene.rosters(), rosters, "{context}");
                // The same change succeeds when the store is back.
                scene.romeo.send(&change);
                assert!(!scene.romeo.received().concat().contains(ERROR), "{context}");
                failed += 1;
            }
        }
    }
    assert!(failed >= 20, "{failed}");
}

#[test]
fn a_call_that_is_slow_tells_nobody_before_and_everybody_after() {
    for (subscription, change) in changes() {
        let (calls, _) = calls(subscription, &change);
        let expected = {
            let scene = Scene::new(subscription);
            scene.romeo.send(&change);
            (scene.received(), scene.stored())
        };
        for at in 0..calls {
            for fault in [Fault::Slow, Fault::SlowAnswer] {
                let scene = Scene::new(subscription);
                scene.faulty.decide(move |_, n| if n == at { fault } else { Fault::None });
                scene.romeo.send(&change);
                let context = format!("{change} {at} {fault:?}");
                assert!(scene.received().concat().is_empty(), "{context}");
                // Others go on meanwhile.
                assert_eq!(scene.nurse.ask(GET).len(), 1);
                assert_eq!(scene.nurse.ask(&set("<item jid='a@remote.example'/>")).len(), 2);
                scene.nurse.send("<presence to='romeo@example.com'/>");
                assert_eq!(scene.romeo.received().len(), 1);
                scene.faulty.release();
                scene.world.settle();
                let [romeo, juliet, nurse, remote] = scene.received();
                let blank = |all: &[String]| all.iter().map(|s| no_id(s)).collect::<Vec<_>>();
                assert_eq!(blank(&romeo), blank(&expected.0[0]), "{context}");
                assert_eq!(blank(&juliet), blank(&expected.0[1]), "{context}");
                assert!(nurse.is_empty() && remote.is_empty(), "{context}");
                assert!(scene.stored() == expected.1, "{context}");
            }
        }
    }
}

/// Pushes without their ids, which are random.
fn no_id(stanza: &str) -> String {
    match stanza.split_once(" id='").filter(|_| stanza.contains(" type='set'>")) {
        Some((head, tail)) => format!("{head}{}", tail.split_once('\'').unwrap().1),
        None => stanza.to_owned(),
    }
}

#[test]
fn a_client_that_goes_cancels_nothing() {
    let scene = Scene::new(Subscription::None);
    scene.faulty.decide(|_, n| if n == 0 { Fault::Slow } else { Fault::None });
    let other = interested(scene.world.client("romeo", "other"));
    scene.romeo.send(&set("<item jid='a@remote.example'/>"));
    scene.romeo.lose();
    scene.faulty.release();
    scene.world.settle();
    let pushed = other.received();
    assert!(pushed.last().unwrap().contains("<item jid='a@remote.example' subscription='none'/>"));
    assert_eq!(scene.stored()[0].items.len(), 1);
}

/// The last session goes while a change is under way: the next one loads what came of it.
#[test]
fn the_last_session_goes_amid_a_change() {
    for fault in [Fault::Slow, Fault::SlowAnswer, Fault::SlowFail] {
        let scene = Scene::new(Subscription::None);
        scene.faulty.decide(move |_, n| if n == 0 { fault } else { Fault::None });
        scene.romeo.send(&set("<item jid='a@remote.example'/>"));
        scene.romeo.lose();
        let back = scene.world.authenticated("romeo");
        back.send("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
        assert_eq!(back.received(), [""; 0]);
        scene.faulty.release();
        scene.world.settle();
        assert_eq!(back.received().len(), 1);
        let items = usize::from(fault != Fault::SlowFail);
        assert_eq!(back.ask(GET).concat().matches("<item ").count(), items, "{fault:?}");
    }
}

#[test]
fn roster_20_concurrent_edits_both_survive() {
    for faults in
        [[Fault::Slow, Fault::None], [Fault::Slow, Fault::Fail], [Fault::SlowFail, Fault::Slow]]
    {
        let scene = Scene::new(Subscription::None);
        let other = interested(scene.world.client("romeo", "other"));
        scene.faulty.decide(move |_, n| faults.get(n).copied().unwrap_or(Fault::None));
        scene.romeo.send(&set("<item jid='a@remote.example'/>"));
        other.send(&set("<item jid='b@remote.example'/>"));
        scene.faulty.release();
        scene.world.settle();
        scene.faulty.release();
        scene.world.settle();
        let count = faults.iter().filter(|f| !matches!(f, Fault::Fail | Fault::SlowFail)).count();
        let [stored, _] = scene.stored();
        assert_eq!((stored.items.len(), stored.version), (count, count as u64), "{faults:?}");
        let (_, shown) = (other.received(), other.ask(GET).concat());
        assert_eq!(shown.matches("<item ").count(), count, "{shown}");
    }
}

/// Two accounts subscribe to each other at once, each waiting for the other's chain.
#[test]
fn two_at_once_do_not_wait_for_each_other() {
    let scene = Scene::new(Subscription::None);
    scene.faulty.decide(|_, n| if n == 0 { Fault::Slow } else { Fault::None });
    scene.romeo.send("<presence to='juliet@example.com' type='subscribe'/>");
    scene.juliet.send("<presence to='romeo@example.com' type='subscribe'/>");
    scene.faulty.release();
    scene.world.settle();
    let [romeo, juliet] = scene.stored();
    assert!(romeo.items[0].ask && juliet.items[0].ask);
    assert_eq!((romeo.requests.len(), juliet.requests.len()), (1, 1));
}

#[test]
fn iq_5_a_store_that_does_not_answer() {
    let scene = Scene::new(Subscription::None);
    scene.faulty.decide(|_, n| if n == 0 { Fault::Slow } else { Fault::None });
    let other = scene.world.client("romeo", "other");
    scene.romeo.send(&set("<item jid='a@remote.example'/>"));
    other.send(GET);
    scene.world.advance(Duration::from_secs(59));
    assert_eq!((scene.romeo.received(), other.received()), (vec![], vec![]));
    scene.world.advance(Duration::from_secs(1));
    for client in [&scene.romeo, &other] {
        let answer = client.received().concat();
        assert!(answer.contains("<error type='wait'><resource-constraint "), "{answer}");
    }
    // What is stored late is told, but answered no more; who got an error is not interested.
    scene.faulty.release();
    scene.world.settle();
    let late = scene.romeo.received();
    assert!(late.len() == 1 && late[0].contains("type='set'"), "{late:?}");
    assert_eq!(other.received(), [""; 0]);
    assert!(!other.session().is_interested());
}

#[test]
fn inbound_stanzas_of_a_store_that_fails_have_no_effect() {
    let scene = Scene::new(Subscription::None);
    let ask = "<presence from='a@remote.example' to='romeo@example.com' type='subscribe'/>";
    scene.faulty.decide(|_, n| if n == 0 { Fault::Fail } else { Fault::None });
    scene.remote.send(&scene.world, ask);
    assert!(scene.received().concat().is_empty());
    scene.remote.send(&scene.world, ask);
    assert_eq!(scene.romeo.received(), [ask]);
}

/// A probe that cannot be answered is not denied: "unsubscribed" would end a subscription.
#[test]
fn pres_14_what_is_not_known_is_not_denied() {
    let scene = Scene::new(Subscription::None);
    scene.world.roster("tybalt", "a@remote.example", Subscription::From);
    scene.faulty.decide(|_, n| if n == 0 { Fault::Fail } else { Fault::None });
    let probe = "<presence from='a@remote.example' to='tybalt@example.com' type='probe'/>";
    scene.remote.send(&scene.world, probe);
    assert_eq!(scene.remote.routed(), [""; 0]);
    scene.remote.send(&scene.world, probe);
    assert!(scene.remote.routed()[0].contains("'unavailable'"));
}
