//! The same happens in two worlds: one registry, and registries from one to the other of which all accounts move
//! between any two steps. Nobody sees a difference.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;
use crate::client::ClientId;
use crate::connection::{Recorder, SendError};
use crate::environment::{Environment, Virtual};
use crate::session::{
    AckPolicy, BindRequest, Copies, Hold, Item as Sent, Presence, Reason, SessionSetup,
};
use crate::stanza::{Frame, Kind, Stanza};

const ACCOUNTS: [&str; 2] = ["juliet@example.com", "romeo@example.com"];
const WATCHERS: [&str; 3] =
    ["nurse@example.net", "nurse@example.net/phone", "romeo@example.com/r0"];
const POLICY: fn() -> AckPolicy = AckPolicy::default;

#[derive(Clone, Debug)]
enum Step {
    Bind { account: usize, resource: usize, window: Option<u64>, holding: bool, client: Option<u8> },
    Available { conn: usize, priority: i8 },
    Unavailable { conn: usize },
    Directed { conn: usize, target: usize },
    Interested { conn: usize },
    Holding { conn: usize, on: bool },
    Message { account: usize, chat: bool },
    Direct { conn: usize, kind: usize },
    Push { account: usize },
    Acknowledge { conn: usize, handled: u32 },
    Input { conn: usize },
    Lose { conn: usize },
    Resume { of: usize, handled: u32 },
    Advance { seconds: u64 },
    Full { conn: usize, on: bool },
    GoOn { conn: usize },
    Ask { conn: usize },
    End { conn: usize },
    Inherit { conn: usize },
    Roster { account: usize, version: u64 },
}

struct World {
    environment: Arc<Virtual>,
    registry: SessionRegistry<Recorder>,
    log: Arc<Mutex<Vec<String>>>,
    clients: Vec<Client>,
    sent: usize,
}

struct Client {
    wire: Recorder,
    is_full: bool,
    session: Option<Session<Bound, Recorder>>,
    id: SessionId,
    account: usize,
    token: Option<String>,
}

fn registry(
    environment: &Arc<Virtual>,
    log: &Arc<Mutex<Vec<String>>>,
    first: u64,
) -> SessionRegistry<Recorder> {
    let (router, leftover, listener) = (Arc::clone(log), Arc::clone(log), Arc::clone(log));
    SessionRegistry::builder(Arc::clone(environment) as Arc<dyn Environment>)
        .domain("example.com".parse().unwrap())
        .of_node(first, (4, str::len))
        .hibernating_per_account(2)
        .hold(|_, stanza| match stanza.kind() {
            Kind::Presence => Hold::Latest(stanza.from().unwrap_or_default().into_owned()),
            _ => Hold::Pass,
        })
        .elsewhere(move |stanza, validity| {
            let text = Frame::stanza(&stanza).to_string();
            router.lock().push(format!("router: {text} {}", validity.is_void()));
        })
        .backlog(move |account| leftover.lock().push(format!("behind: {account}")))
        .listener(move |event| {
            listener.lock().push(format!("event: {:?} {:?}", event.session().id(), event.kind()));
        })
        .build()
}

struct Nothing;

impl Keeps<Recorder> for Nothing {
    fn export(&self, of: &Keeper<'_, Recorder>) -> Kept {
        let value = match of {
            Keeper::Session(session) => session.extension::<u64>(),
            Keeper::Account(account) => account.extension::<u64>(),
        };
        let mut kept = Kept::default();
        if let Some(value) = value {
            kept.put("number", value.to_le_bytes().to_vec());
        }
        kept
    }

    fn import(&self, of: &Keeper<'_, Recorder>, kept: &Kept) {
        let Some(value) = kept.get("number") else { return };
        let value = u64::from_le_bytes(value.try_into().unwrap());
        match of {
            Keeper::Session(session) => session.set_extension(value),
            Keeper::Account(account) => account.set_extension(value),
        }
    }
}

fn roster(version: u64) -> Roster {
    let item = |jid: &str| {
        let mut item = Item::new(BareJid::new(jid).unwrap());
        item.subscription = Subscription::Both;
        item.name = (version == 1).then(|| "N".to_owned());
        item.groups.push("G".to_owned());
        item
    };
    let jids = ACCOUNTS.iter().copied().chain(["nurse@example.net"]);
    let jids = jids.skip(usize::try_from(version % 2).unwrap());
    let mut roster = Roster::from_items(jids.map(item), version, [BareJid::new("a@b").unwrap()]);
    roster.add_stray(&Stray::new("no address@".to_owned()));
    roster
}

const fn all(_: &str) -> bool {
    true
}

impl World {
    fn new() -> Self {
        let (environment, log) = (Arc::new(Virtual::new(7)), Arc::default());
        environment.advance(Duration::from_secs(100_000));
        let registry = registry(&environment, &log, 1);
        Self { environment, registry, log, clients: Vec::new(), sent: 0 }
    }

    fn client(&mut self, conn: usize) -> Option<&mut Client> {
        let len = self.clients.len();
        self.clients.get_mut(conn % len.max(1))
    }

    fn session(&mut self, conn: usize) -> Option<&mut Session<Bound, Recorder>> {
        self.client(conn)?.session.as_mut().filter(|session| session.is_current())
    }

    fn handle(&mut self, conn: usize) -> Option<SessionHandle<Recorder>> {
        let id = self.client(conn)?.id;
        self.registry.iter().find(|session| session.id() == id)
    }

    fn message(&mut self, account: usize) -> Stanza {
        self.sent += 1;
        let from = format!("nurse@example.net/{}", self.sent);
        Stanza::message()
            .from(&from)
            .to(ACCOUNTS[account])
            .type_("chat")
            .payload(b"<body>x</body>")
            .build()
    }

    fn authed(&self, account: usize, wire: &Recorder) -> Session<crate::session::Authed, Recorder> {
        let account = BareJid::new(ACCOUNTS[account]).unwrap();
        let mut session = Session::new(wire.clone());
        session.open(account.domain().to_owned());
        let _ = self;
        session.authenticate(account).unwrap()
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Bind { account, resource, window, holding, client } => {
                let wire = Recorder::new();
                let session = self.authed(account, &wire);
                let resource = ResourcePart::new(&format!("r{resource}")).unwrap().into_owned();
                let mut setup = SessionSetup::default();
                let retention = window.map(|w| self.registry.retention(Duration::from_secs(w)));
                let token = retention.as_ref().map(|retention| retention.token.clone());
                if let Some(retention) = retention {
                    setup.retain(retention);
                }
                setup.set_holding(holding);
                setup.set_extension(self.sent as u64);
                setup.set_account_extension(account as u64);
                let mut request =
                    BindRequest::new().resource(resource).roster(roster(1)).setup(setup);
                if let Some(client) = client {
                    request = request.replaces(ClientId::from_bytes([client; 16]));
                }
                let Ok(session) = session.bind(&self.registry, request) else { return };
                let id = session.id();
                let session = Some(session);
                self.clients.push(Client { wire, is_full: false, session, id, account, token });
            }
            Step::Available { conn, priority } => {
                let Some(session) = self.session(conn) else { return };
                let payload = format!("<priority>{priority}</priority>");
                let stanza = Stanza::presence().from(session.jid().as_str());
                let stanza = stanza.payload(payload.as_bytes()).build();
                session.set_presence(Presence::Available { stanza: &stanza, priority });
            }
            Step::Unavailable { conn } => {
                let Some(session) = self.session(conn) else { return };
                session.set_presence(Presence::Unavailable { stanza: None });
            }
            Step::Directed { conn, target } => {
                let Some(handle) = self.handle(conn) else { return };
                let _valid = handle.record_directed(WATCHERS[target % 3], 3);
            }
            Step::Interested { conn } => {
                self.session(conn).into_iter().for_each(Session::set_interested);
            }
            Step::Holding { conn, on } => {
                self.handle(conn).into_iter().for_each(|handle| handle.set_holding(on));
            }
            Step::Message { account, chat } => {
                let message = self.message(account);
                let copies = Copies::of(&message);
                let carbon = Stanza::message().from(ACCOUNTS[account]).payload(b"<c/>").build();
                for session in self.registry.sessions(&BareJid::new(ACCOUNTS[account]).unwrap()) {
                    let item = match chat && session.priority() == 0 {
                        true => Sent::new(&carbon).addressed().copy_of(&copies),
                        false => Sent::new(&message).copy_of(&copies),
                    };
                    let sent = session.send_item(&item);
                    self.log.lock().push(format!("sent: {sent:?}"));
                }
                copies.lose();
                let last = copies.release();
                self.log.lock().push(format!("last: {last}"));
            }
            Step::Direct { conn, kind } => {
                let message = self.message(0);
                let Some(handle) = self.handle(conn) else { return };
                let sent = match kind % 3 {
                    0 => handle.send(&message),
                    1 => handle.send_item(&Sent::element(b"<r xmlns='x'/>")),
                    _ => handle.send_stored(&[Sent::new(&message)]),
                };
                self.log.lock().push(format!("sent: {sent:?}"));
            }
            Step::Push { account } => {
                let push = Stanza::iq("set").id("p").payload(b"<q/>").build();
                for session in self.registry.interested(&BareJid::new(ACCOUNTS[account]).unwrap()) {
                    let _sent = session.interested().map(|session| session.push(&push));
                }
            }
            Step::Acknowledge { conn, handled } => {
                let Some(session) = self.session(conn) else { return };
                let acknowledged = session.acknowledge(handled);
                self.log.lock().push(format!("acknowledged: {acknowledged:?}"));
            }
            Step::Input { conn } => {
                let Some(session) = self.session(conn) else { return };
                let taken = session.try_input().map(|ticket| ticket.is_ok());
                let handled = session.handled();
                self.log.lock().push(format!("input: {taken:?} {handled:?}"));
            }
            Step::Lose { conn } => {
                let Some(client) = self.client(conn) else { return };
                drop(client.session.take());
            }
            Step::Resume { of, handled } => {
                let Some(client) = self.client(of) else { return };
                let (Some(token), account) = (client.token.clone(), client.account) else { return };
                let (wire, id) = (Recorder::new(), client.id);
                let session = self.authed(account, &wire);
                let mut reply = |resumed: crate::session::Resumed| {
                    format!("<resumed h='{}'/>", resumed.handled).into_bytes()
                };
                match session.resume(&self.registry, &token, handled, &mut reply) {
                    Err(refused) => {
                        self.log.lock().push(format!("resume: {:?}", refused.error()));
                    }
                    Ok(session) => {
                        let (session, token) = (Some(session), Some(token));
                        self.clients.push(Client {
                            wire,
                            is_full: false,
                            session,
                            id,
                            account,
                            token,
                        });
                    }
                }
            }
            Step::Advance { seconds } => {
                self.environment.advance(Duration::from_secs(seconds));
                self.registry.handle_timeout();
            }
            Step::Full { conn, on } => {
                let Some(client) = self.client(conn) else { return };
                client.is_full = on;
                client.wire.refuse(on.then_some(SendError::Full));
                // As a connection does that has written what it had.
                if !on {
                    self.step(&Step::GoOn { conn });
                }
            }
            Step::GoOn { conn } => {
                let Some(session) = self.session(conn) else { return };
                let epoch = session.epoch();
                session.handle().go_on(epoch);
            }
            Step::Ask { conn } => {
                let Some(handle) = self.handle(conn) else { return };
                // A time that is over is over, whatever it was.
                let (now, at) = (self.environment.now(), handle.check_acks_at(&POLICY()));
                let (at, asks) = (at.map(|at| at.max(now)), handle.check_acks(&POLICY()));
                self.log.lock().push(format!("ask: {at:?} {asks:?}"));
            }
            Step::End { conn } => {
                let Some(client) = self.client(conn) else { return };
                let session = client.session.take().filter(Session::is_current);
                let ended = session.map(|session| session.end(Reason::Closed));
                self.log.lock().push(format!("ended: {ended:?}"));
            }
            Step::Inherit { conn } => {
                let Some(handle) = self.handle(conn) else { return };
                let given = handle.give_waiting(Vec::new(), |stanza, _| stanza.clone());
                let given = given.map(|given| given.len());
                self.log.lock().push(format!("given: {given:?}"));
            }
            Step::Roster { account, version } => {
                let account = BareJid::new(ACCOUNTS[account]).unwrap();
                let session = self.registry.sessions(&account).next();
                session.into_iter().for_each(|session| session.set_roster(roster(version)));
            }
        }
    }

    /// What ended sessions have left is taken care of, as a server does on the chain of its account.
    fn work_off(&self) {
        for account in ACCOUNTS.map(|account| BareJid::new(account).unwrap()) {
            while let Some((left, _place)) = self.registry.left_behind(&account) {
                for left in left {
                    let text = Frame::stanza(&left.stanza).to_string();
                    let (at, id, session) = (left.accepted, left.id, &left.session);
                    let (retained, written) = (left.retained, left.written);
                    let line = format!("left: {text} {at:?} {id:?} {session} {retained} {written}");
                    self.log.lock().push(line);
                }
            }
        }
    }

    /// All that happened, and what can be told of what is.
    fn told(&self) -> Vec<String> {
        for (at, client) in self.clients.iter().enumerate() {
            let mut log = self.log.lock();
            log.extend(client.wire.take().into_iter().map(|frame| format!("{at}: {frame}")));
            log.push(format!("{at}: {:?}", client.wire.closed()));
        }
        let mut told = std::mem::take(&mut *self.log.lock());
        for account in ACCOUNTS.map(|account| BareJid::new(account).unwrap()) {
            for session in self.registry.sessions(&account) {
                let info = session.info();
                let mut line =
                    format!("{} {:?} {:?}", session.jid(), info, session.extension::<u64>());
                let _ = write!(line, " {:?}", (info.bytes_waiting, info.unacknowledged_since));
                let _ =
                    write!(line, " {:?}", (info.since, info.hibernating_since, info.presence_at));
                let _ = write!(
                    line,
                    " {:?}",
                    (info.stanzas_received, info.stanzas_sent, info.priority)
                );
                let _ = write!(line, " {:?} {}", session.roster().ver(), session.is_retained());
                let state = session.account_state().extension::<u64>();
                let _ = write!(line, " {state:?} {}", session.is_heir());
                let _ = write!(line, " {:?}", session.has_directed_to("nurse@example.net"));
                told.push(line);
            }
            told.push(format!("gone: {:?}", self.registry.last_gone(account.as_str())));
        }
        told.push(format!("{:?} {:?}", self.registry.counts(), self.registry.next_timeout()));
        told
    }

    /// All accounts move to another registry, which takes so long.
    fn move_all(&mut self) {
        let next = self.registry.inner().next.fetch_add(0, Ordering::SeqCst);
        let to = registry(&self.environment, &self.log, next);
        self.registry.freeze(&all);
        let bytes = self.registry.export(&all, &Nothing).unwrap();
        let (clients, mut moved) = (&mut self.clients, Vec::new());
        let mut connect = |id: SessionId| {
            let is_it = |client: &Client| {
                client.id == id && client.session.as_ref().is_some_and(Session::is_current)
            };
            let at = clients.iter().position(is_it)?;
            moved.push((id, at));
            let wire = Recorder::new();
            wire.refuse(clients[at].is_full.then_some(SendError::Full));
            clients[at].wire = wire.clone();
            Some(wire)
        };
        let imported = to.import(&bytes, &Nothing, &mut connect).unwrap();
        assert!(imported.lost.is_empty() && imported.waiting.is_empty());
        self.registry.forget(&all, None);
        assert!(self.registry.is_forgotten() && self.registry.is_empty());
        assert_eq!(self.registry.counts().hibernating + self.registry.counts().retained_bytes, 0);
        for (id, session) in imported.live {
            let (_, at) = *moved.iter().find(|(other, _)| *other == id).unwrap();
            drop(self.clients[at].session.replace(session));
        }
        // A session that was over has no owner anywhere.
        for client in &mut self.clients {
            let is_of = |session: &Session<Bound, Recorder>| {
                std::ptr::eq(&*session.handle().0.registry, &**to.inner())
            };
            client.session = client.session.take().filter(is_of);
        }
        to.thaw(&all, Duration::ZERO);
        self.registry = to;
    }
}

#[test]
fn node_9_who_was_lost_before_its_greeting_moves_as_well() {
    let mut world = World::new();
    let wire = Recorder::new();
    let retention = world.registry.retention(Duration::from_secs(30));
    let token = retention.token.clone();
    let mut setup = SessionSetup::default();
    setup.retain(retention);
    let request = BindRequest::new().setup(setup).greeted_later();
    let session = world.authed(0, &wire).bind(&world.registry, request).ok().unwrap();
    world.registry.freeze(&all);
    assert!(world.registry.export(&all, &Nothing).is_none(), "its greeting is still to come");
    world.registry.thaw(&all, Duration::ZERO);
    drop(session);
    world.move_all();
    let again =
        world.authed(0, &Recorder::new()).resume(&world.registry, &token, 0, &mut |_| Vec::new());
    drop(again.ok().unwrap());
    // The same where it is a resumption that has got no answer.
    let account = BareJid::new(ACCOUNTS[0]).unwrap();
    let (owner, _) = world.registry.inner().resume(&account, &token, 0, Recorder::new()).unwrap();
    drop(owner);
    world.move_all();
}

fn steps() -> impl Strategy<Value = Vec<(Step, bool)>> {
    let (account, conn) = (0..2_usize, 0..5_usize);
    let window = proptest::option::weighted(0.7, prop_oneof![Just(0), Just(30), Just(300)]);
    let step = prop_oneof![
        4 => (account.clone(), 0..2_usize, window, any::<bool>(), proptest::option::of(0..2_u8))
            .prop_map(|(account, resource, window, holding, client)| {
                Step::Bind { account, resource, window, holding, client }
            }),
        4 => (conn.clone(), -1..2_i8).prop_map(|(conn, priority)| Step::Available { conn, priority }),
        1 => conn.clone().prop_map(|conn| Step::Unavailable { conn }),
        1 => (conn.clone(), 0..3_usize).prop_map(|(conn, target)| Step::Directed { conn, target }),
        1 => conn.clone().prop_map(|conn| Step::Interested { conn }),
        1 => (conn.clone(), any::<bool>()).prop_map(|(conn, on)| Step::Holding { conn, on }),
        4 => (account.clone(), any::<bool>()).prop_map(|(account, chat)| Step::Message { account, chat }),
        3 => (conn.clone(), 0..3_usize).prop_map(|(conn, kind)| Step::Direct { conn, kind }),
        1 => account.clone().prop_map(|account| Step::Push { account }),
        2 => (conn.clone(), 0..8_u32).prop_map(|(conn, handled)| Step::Acknowledge { conn, handled }),
        1 => conn.clone().prop_map(|conn| Step::Input { conn }),
        2 => conn.clone().prop_map(|conn| Step::Lose { conn }),
        3 => (conn.clone(), 0..8_u32).prop_map(|(of, handled)| Step::Resume { of, handled }),
        2 => prop_oneof![Just(1), Just(7), Just(40), Just(400)]
            .prop_map(|seconds| Step::Advance { seconds }),
        1 => (conn.clone(), any::<bool>()).prop_map(|(conn, on)| Step::Full { conn, on }),
        1 => conn.clone().prop_map(|conn| Step::GoOn { conn }),
        2 => conn.clone().prop_map(|conn| Step::Ask { conn }),
        1 => conn.clone().prop_map(|conn| Step::End { conn }),
        1 => conn.prop_map(|conn| Step::Inherit { conn }),
        1 => (account, 1..4_u64).prop_map(|(account, version)| Step::Roster { account, version }),
    ];
    proptest::collection::vec((step, any::<bool>()), 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn node_9_what_moves_is_as_if_it_had_not_moved(steps in steps()) {
        let (mut one, mut moving) = (World::new(), World::new());
        for (step, moves) in &steps {
            one.step(step);
            moving.step(step);
            one.work_off();
            moving.work_off();
            prop_assert_eq!(one.told(), moving.told(), "behind {:?}", step);
            if *moves {
                moving.move_all();
                // The key of its table.
                one.environment.random(&mut [0; 16]);
                prop_assert_eq!(one.told(), moving.told(), "moved behind {:?}", step);
            }
        }
    }

    #[test]
    fn node_9_bytes_that_are_no_export_change_nothing(steps in steps(), at: usize, by: u8) {
        let mut world = World::new();
        for (step, _) in &steps {
            world.step(step);
            world.work_off();
        }
        let mut bytes = world.registry.export(&all, &Nothing).unwrap();
        let at = at % bytes.len();
        let cut = bytes[..at].to_vec();
        bytes[at] ^= by;
        let to = registry(&world.environment, &world.log, 1000);
        prop_assert!(to.import(&cut, &Nothing, &mut |_| None).is_err());
        prop_assert!(to.is_forgotten());
        // Whatever it is, it is read or refused.
        let _imported = to.import(&bytes, &Nothing, &mut |_| Some(Recorder::new()));
    }
}
