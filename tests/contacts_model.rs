//! Two accounts that edit their rosters and subscribe to each other at random, on the wire, against
//! a naive reading of RFC 6121 §2 to §4: flags, no states.

use crate::common::{contacts, wire};
use std::collections::BTreeMap;

use contacts::{GET, interested, numbered, remove, set, version};
use proptest::collection::vec;
use proptest::prelude::*;
use wire::{Client, World};
use xmpp_session::server::Limits;

const NAMES: [&str; 2] = ["romeo", "juliet"];
const RESOURCES: [&str; 2] = ["one", "two"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Subscribe,
    Subscribed,
    Unsubscribe,
    Unsubscribed,
}

#[derive(Clone, Debug)]
enum Step {
    Send(Kind),
    Name(u8),
    Remove,
    Available(usize),
    Unavailable(usize),
    /// The transport breaks, and the client comes back, interested and not available.
    Lose(usize),
}

fn step() -> impl Strategy<Value = (usize, usize, Step)> {
    let kind = prop_oneof![
        3 => Just(Kind::Subscribe),
        3 => Just(Kind::Subscribed),
        1 => Just(Kind::Unsubscribe),
        1 => Just(Kind::Unsubscribed),
    ];
    let resource = 0..RESOURCES.len();
    let step = prop_oneof![
        8 => kind.prop_map(Step::Send),
        2 => (0..3_u8).prop_map(Step::Name),
        1 => Just(Step::Remove),
        2 => resource.clone().prop_map(Step::Available),
        1 => resource.clone().prop_map(Step::Unavailable),
        1 => resource.clone().prop_map(Step::Lose),
    ];
    (0..2_usize, resource, step)
}

/// One account in the words of the RFC.
#[derive(Clone, Debug, Default)]
struct Account {
    listed: bool,
    name: u8,
    /// It sees the other's presence.
    sees: bool,
    /// The other sees its presence.
    seen: bool,
    asks: bool,
    asked: bool,
    approved: bool,
    available: [bool; 2],
}

impl Account {
    fn item(&self, contact: &str) -> Option<String> {
        let name = if self.name == 0 { String::new() } else { format!(" name='n{}'", self.name) };
        let subscription = match (self.sees, self.seen) {
            (false, false) => "none",
            (true, false) => "to",
            (false, true) => "from",
            (true, true) => "both",
        };
        let ask = if self.asks { " ask='subscribe'" } else { "" };
        let approved = if self.approved { " approved='true'" } else { "" };
        self.listed.then(|| {
            format!("<item jid='{contact}@example.com'{name} subscription='{subscription}'{ask}{approved}/>")
        })
    }
}

#[derive(Default)]
struct Model([Account; 2]);

impl Model {
    fn send(&mut self, me: usize, kind: Kind) {
        let my = &mut self.0[me];
        let goes = match kind {
            Kind::Subscribe => {
                my.asks |= !my.sees;
                my.listed = true;
                true
            }
            Kind::Unsubscribe => {
                (my.asks, my.sees) = (false, false);
                true
            }
            Kind::Subscribed if my.asked => {
                (my.asked, my.seen, my.listed) = (false, true, true);
                true
            }
            Kind::Subscribed => {
                my.approved |= !my.seen;
                my.listed = true;
                false
            }
            Kind::Unsubscribed if my.asked || my.seen => {
                (my.asked, my.seen) = (false, false);
                true
            }
            Kind::Unsubscribed => {
                my.approved = false;
                false
            }
        };
        if goes {
            self.receive(1 - me, kind);
        }
    }

    fn receive(&mut self, me: usize, kind: Kind) {
        let my = &mut self.0[me];
        let reply = match kind {
            Kind::Subscribe if my.seen => Some(Kind::Subscribed),
            Kind::Subscribe if my.approved => {
                (my.approved, my.seen) = (false, true);
                Some(Kind::Subscribed)
            }
            Kind::Subscribe => {
                my.asked = true;
                None
            }
            Kind::Unsubscribe if my.asked || my.seen => {
                let shown = my.seen || my.listed;
                (my.asked, my.seen) = (false, false);
                shown.then_some(Kind::Unsubscribed)
            }
            Kind::Unsubscribe => None,
            Kind::Subscribed => {
                my.sees |= my.asks;
                my.asks = false;
                None
            }
            Kind::Unsubscribed => {
                (my.asks, my.sees) = (false, false);
                None
            }
        };
        if let Some(reply) = reply {
            self.receive(1 - me, reply);
        }
    }

    fn remove(&mut self, me: usize) {
        let was = self.0[me].clone();
        if !was.listed {
            return;
        }
        self.0[me] = Account { available: was.available, ..Account::default() };
        if was.seen || was.asked {
            self.receive(1 - me, Kind::Unsubscribed);
        }
        if was.sees || was.asks {
            self.receive(1 - me, Kind::Unsubscribe);
        }
    }
}

/// What a client believes by what it was sent.
#[derive(Default)]
struct Belief {
    item: Option<String>,
    version: u64,
    online: BTreeMap<String, bool>,
}

struct Scene {
    world: World,
    clients: [[Client; 2]; 2],
    beliefs: [[Belief; 2]; 2],
}

impl Scene {
    fn new() -> Self {
        let mut limits = Limits::default();
        limits.presence = None;
        let world = World::with(|builder, _| builder.limits(limits));
        let client = |me: usize, r: usize| interested(world.client(NAMES[me], RESOURCES[r]));
        let clients = [[client(0, 0), client(0, 1)], [client(1, 0), client(1, 1)]];
        Self { clients, beliefs: Default::default(), world }
    }

    fn act(&mut self, me: usize, resource: usize, step: &Step) {
        let contact = format!("{}@example.com", NAMES[1 - me]);
        let client = &self.clients[me][resource];
        match step {
            Step::Send(kind) => {
                let type_ = format!("{kind:?}").to_lowercase();
                client.send(&format!("<presence to='{contact}' type='{type_}'/>"));
            }
            Step::Name(0) => client.send(&set(&format!("<item jid='{contact}'/>"))),
            Step::Name(n) => client.send(&set(&format!("<item jid='{contact}' name='n{n}'/>"))),
            Step::Remove => client.send(&remove(&contact)),
            Step::Available(r) => self.clients[me][*r].send("<presence/>"),
            Step::Unavailable(r) => {
                self.clients[me][*r].send("<presence type='unavailable'/>");
                self.hear();
                // From now on it is told nothing, and knows nothing.
                self.beliefs[me][*r].online.clear();
            }
            Step::Lose(r) => {
                self.clients[me][*r].lose();
                self.hear();
                self.clients[me][*r] = self.world.client(NAMES[me], RESOURCES[*r]);
                self.clients[me][*r].send(GET);
                self.beliefs[me][*r] = Belief::default();
            }
        }
        self.hear();
    }

    /// Lets every client believe what it received.
    fn hear(&mut self) {
        for me in 0..2 {
            for r in 0..2 {
                let (client, belief) = (&self.clients[me][r], &mut self.beliefs[me][r]);
                for stanza in client.received() {
                    believe(belief, &stanza, NAMES[1 - me]);
                }
            }
        }
    }
}

fn believe(belief: &mut Belief, stanza: &str, contact: &str) {
    if let Some(version) = version(&numbered(stanza)) {
        let version = version.parse().unwrap();
        if stanza.contains("type='set'") {
            assert!(version > belief.version, "pushes out of order: {stanza}");
        }
        belief.version = version;
        let item =
            stanza.find("<item ").map(|at| stanza[at..].split_inclusive("/>").next().unwrap());
        belief.item = item.filter(|item| !item.contains("'remove'")).map(str::to_owned);
    }
    let resource = format!("<presence from='{contact}@example.com/");
    if let Some(rest) = stanza.strip_prefix(&resource) {
        let resource = rest.split('\'').next().unwrap();
        belief.online.insert(resource.to_owned(), !stanza.contains("type='unavailable'"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn sub_4_roster_20_two_accounts_against_a_naive_model(steps in vec(step(), 1..40)) {
        let (mut scene, mut model) = (Scene::new(), Model::default());
        for (me, resource, step) in &steps {
            let (me, resource) = (*me, *resource);
            scene.act(me, resource, step);
            match step {
                Step::Send(kind) => model.send(me, *kind),
                Step::Name(n) => {
                    model.0[me].listed = true;
                    model.0[me].name = *n;
                }
                Step::Remove => model.remove(me),
                Step::Available(r) => model.0[me].available[*r] = true,
                Step::Unavailable(r) | Step::Lose(r) => model.0[me].available[*r] = false,
            }
            for me in 0..2 {
                let (mine, theirs) = (&model.0[me], &model.0[1 - me]);
                for r in 0..2 {
                    let belief = &scene.beliefs[me][r];
                    prop_assert_eq!(&belief.item, &mine.item(NAMES[1 - me]), "{} {} after {:?}", me, r, step);
                    for (name, available) in RESOURCES.iter().zip(theirs.available) {
                        if mine.available[r] {
                            let believed = belief.online.get(*name).copied().unwrap_or_default();
                            prop_assert_eq!(believed, mine.sees && available, "{} sees {} after {:?}", me, name, step);
                        }
                    }
                }
                prop_assert_eq!(mine.sees, theirs.seen);
                prop_assert!(!mine.asks || theirs.asked, "a request that nobody has");
            }
        }
        // What was pushed is what is stored, and what a new session gets.
        for me in 0..2 {
            let late = scene.world.client(NAMES[me], "late");
            let roster = late.ask(GET).concat();
            let item = roster.find("<item ").map(|at| roster[at..].split_inclusive("/>").next().unwrap().to_owned());
            prop_assert_eq!(item, model.0[me].item(NAMES[1 - me]));
            late.lose();
            let asked = model.0[me].asked;
            let account = scene.world.account(NAMES[me]);
            let stored = wire::now(scene.world.stores().rosters.load(&account)).unwrap();
            prop_assert_eq!(stored.requests.len(), usize::from(asked));
        }
    }
}
