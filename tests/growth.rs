//! What is promised of growth, in steps and not in time: how often the host's code is called does
//! not depend on how many sessions there are beside those concerned.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use xmpp_session::connection::{Close, Connection, SendError};
use xmpp_session::environment::{Environment, Virtual};
use xmpp_session::jid::{BareJid, DomainPart};
use xmpp_session::rules::roster::{Item, Roster, Subscription};
use xmpp_session::session::{BindRequest, Bound, Presence, Reason, Session, SessionRegistry};
use xmpp_session::stanza::{Frame, Stanza};

/// Calls into the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Steps {
    sends: usize,
    closes: usize,
    clock: usize,
    random: usize,
}

/// The world and every connection, counting.
struct Counting {
    world: Virtual,
    sends: AtomicUsize,
    closes: AtomicUsize,
    clock: AtomicUsize,
    random: AtomicUsize,
}

fn count(counter: &AtomicUsize) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Environment for Counting {
    fn now(&self) -> Duration {
        count(&self.clock);
        self.world.now()
    }

    fn utc(&self) -> SystemTime {
        count(&self.clock);
        self.world.utc()
    }

    fn random(&self, out: &mut [u8]) {
        count(&self.random);
        self.world.random(out);
    }
}

impl Connection for Counting {
    fn send(&self, _frame: Frame<'_>) -> Result<(), SendError> {
        count(&self.sends);
        Ok(())
    }

    fn close(&self, _how: Close) {
        count(&self.closes);
    }
}

type Live = Session<Bound, Arc<Counting>>;

struct Growth {
    host: Arc<Counting>,
    registry: SessionRegistry<Arc<Counting>>,
    crowd: Vec<Live>,
}

impl Growth {
    fn with(crowd: usize) -> Self {
        let zero = AtomicUsize::default;
        let host = Arc::new(Counting {
            world: Virtual::new(1),
            sends: zero(),
            closes: zero(),
            clock: zero(),
            random: zero(),
        });
        let registry = SessionRegistry::builder(Arc::clone(&host) as _).build();
        let mut this = Self { host, registry, crowd: Vec::new() };
        this.crowd = (0..crowd).map(|n| this.available(&format!("crowd{n}"), &[])).collect();
        this.steps();
        this
    }

    fn bound(&self, node: &str, contacts: &[&str]) -> Live {
        let contacts = contacts.iter().map(|contact| {
            let mut item = Item::new(jid(contact));
            item.subscription = Subscription::Both;
            item
        });
        let request = BindRequest::new().roster(Roster::from_items(contacts, 1, []));
        let mut session = Session::new(Arc::clone(&self.host));
        session.open(DomainPart::new("example.com").unwrap().into_owned());
        let session = session.authenticate(jid(node)).unwrap();
        session.bind(&self.registry, request).unwrap()
    }

    fn available(&self, node: &str, contacts: &[&str]) -> Live {
        let mut session = self.bound(node, contacts);
        appear(&mut session);
        session
    }

    /// Calls since the last time.
    fn steps(&self) -> Steps {
        let take = |counter: &AtomicUsize| counter.swap(0, Ordering::Relaxed);
        let Counting { sends, closes, clock, random, .. } = &*self.host;
        Steps { sends: take(sends), closes: take(closes), clock: take(clock), random: take(random) }
    }
}

fn jid(node: &str) -> BareJid {
    BareJid::new(&format!("{node}@example.com")).unwrap()
}

fn appear(session: &mut Live) {
    let stanza = Stanza::presence().from(session.jid().as_str()).build();
    session.set_presence(Presence::Available { stanza: &stanza, priority: 0 });
}

const CROWDS: [usize; 3] = [10, 100, 1000];

/// The steps of one operation beside each of the crowds, which must agree.
fn same_in_all(operation: impl Fn(&Growth) -> Steps) -> Steps {
    let [first, rest @ ..] = CROWDS.map(|crowd| operation(&Growth::with(crowd)));
    assert!(rest.iter().all(|steps| *steps == first), "{first:?} {rest:?}");
    first
}

#[test]
fn a_delivery_is_one_send_and_asks_no_clock() {
    let steps = same_in_all(|growth| {
        let message = Stanza::message().from("romeo@example.com/orchard").build();
        growth.registry.session(growth.crowd[5].jid()).unwrap().send(&message).unwrap();
        growth.steps()
    });
    assert_eq!(steps, Steps { sends: 1, ..Steps::default() });
}

#[test]
fn a_bind_and_an_end_take_the_same_steps_in_any_crowd() {
    let steps = same_in_all(|growth| {
        let session = growth.bound("juliet", &[]);
        session.end(Reason::Closed);
        growth.steps()
    });
    // The close tag, and the close after it.
    assert_eq!((steps.sends, steps.closes, steps.random), (1, 1, 1));
}

#[test]
fn presence_takes_one_send_for_each_copy_and_one_time_of_day() {
    for contacts in [1, 5, 10] {
        let steps = same_in_all(|growth| {
            let names: Vec<String> = (0..contacts).map(|n| format!("crowd{n}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let mut juliet = growth.available("juliet", &names);
            growth.steps();
            appear(&mut juliet);
            growth.steps()
        });
        // The contacts and the session itself.
        assert_eq!(steps, Steps { sends: contacts + 1, clock: 1, ..Steps::default() });
    }
}

#[test]
fn a_mass_disconnect_takes_the_same_steps_for_each() {
    let each = CROWDS.map(|crowd| {
        let mut growth = Growth::with(crowd);
        std::mem::take(&mut growth.crowd).into_iter().for_each(drop);
        assert!(growth.registry.is_forgotten());
        let Steps { sends, closes, clock, random } = growth.steps();
        [sends, closes, clock, random].map(|steps| steps as f64 / crowd as f64)
    });
    assert!(each.iter().all(|steps| *steps == each[0]), "{each:?}");
}
