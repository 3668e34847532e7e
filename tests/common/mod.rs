//! A small world of sessions on connections that record what they were given.

#![expect(dead_code, unreachable_pub, reason = "the module is private to its test binary")]

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use xmpp_session::connection::{Close, Connection, SendError};
use xmpp_session::environment::Virtual;
use xmpp_session::jid::{BareJid, DomainPart, FullJid, ResourcePart};
use xmpp_session::rules::roster::{Item, Roster, Subscription};
use xmpp_session::session::{
    Authed, BindError, BindRequest, Bound, Event, EventKind, Leftover, Presence, RegistryBuilder,
    Reply, ResumeError, Session, SessionHandle, SessionId, SessionRegistry, TransitionError,
};
use xmpp_session::stanza::{Frame, Stanza};

pub type Wire = Arc<Line>;
pub type Owner = Session<Bound, Wire>;
pub type Handle = SessionHandle<Wire>;
pub type Registry = SessionRegistry<Wire>;

/// What a [`Line`] does with the next frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    Open,
    Full,
    Closed,
    Panics,
    /// Yields the processor in every `send`.
    Slow,
}

type Hook = dyn Fn(&str) + Send + Sync;

/// A connection that records.
#[derive(Default)]
pub struct Line {
    frames: Mutex<Vec<String>>,
    closed: Mutex<Option<Close>>,
    mode: AtomicU8,
    hook: Mutex<Option<Arc<Hook>>>,
}

impl Line {
    pub fn set(&self, mode: Mode) {
        self.mode.store(mode as u8, Ordering::SeqCst);
    }

    fn is(&self, mode: Mode) -> bool {
        self.mode.load(Ordering::SeqCst) == mode as u8
    }

    /// Everything that was accepted so far.
    pub fn frames(&self) -> Vec<String> {
        lock(&self.frames).clone()
    }

    /// What was accepted since the last call.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.frames))
    }

    pub fn closed(&self) -> Option<Close> {
        *lock(&self.closed)
    }

    /// Calls `hook` with each frame, before it is recorded.
    pub fn on_send(&self, hook: impl Fn(&str) + Send + Sync + 'static) {
        *lock(&self.hook) = Some(Arc::new(hook));
    }

    /// Lets the hook go, and with it whatever keeps the line alive.
    pub fn forget_hook(&self) {
        drop(lock(&self.hook).take());
    }
}

impl Connection for Line {
    fn send(&self, frame: Frame<'_>) -> Result<(), SendError> {
        self.send_all(&[frame])
    }

    fn send_all(&self, frames: &[Frame<'_>]) -> Result<(), SendError> {
        let text: String = frames.iter().map(Frame::to_string).collect();
        let len: usize = frames.iter().map(Frame::len).sum();
        assert_eq!(text.len(), len, "a frame knows its length");
        assert!(!self.is(Mode::Panics), "the host's connection panics");
        let hook = lock(&self.hook).clone();
        if let Some(hook) = hook {
            hook(&text);
        }
        if self.is(Mode::Slow) {
            std::thread::yield_now();
        }
        if self.is(Mode::Full) {
            return Err(SendError::Full);
        }
        if self.is(Mode::Closed) || self.closed().is_some() {
            return Err(SendError::Closed);
        }
        lock(&self.frames).push(text);
        Ok(())
    }

    fn close(&self, how: Close) {
        let mut closed = lock(&self.closed);
        if *closed != Some(Close::Abort) {
            *closed = Some(how);
        }
    }
}

/// A registry with virtual time, and all that it reported.
#[derive(Clone)]
pub struct World {
    pub registry: Registry,
    pub time: Arc<Virtual>,
    pub events: Arc<Mutex<Vec<(SessionId, EventKind)>>>,
    pub leftovers: Arc<Mutex<Vec<Leftover>>>,
    pub elsewhere: Arc<Mutex<Vec<String>>>,
}

impl World {
    /// The accounts of domain `x` live here.
    pub fn new() -> Self {
        Self::with(|builder| builder)
    }

    pub fn with(settings: impl FnOnce(RegistryBuilder<Wire>) -> RegistryBuilder<Wire>) -> Self {
        let time = Arc::new(Virtual::new(1));
        let events = Arc::default();
        let leftovers: Arc<Mutex<Vec<Leftover>>> = Arc::default();
        let elsewhere: Arc<Mutex<Vec<String>>> = Arc::default();
        let builder = Registry::builder(time.clone())
            .domain(domain())
            .listener(recording(&events))
            .leftover({
                let leftovers = Arc::clone(&leftovers);
                move |leftover| lock(&leftovers).push(leftover)
            })
            .elsewhere({
                let elsewhere = Arc::clone(&elsewhere);
                move |stanza, _validity| lock(&elsewhere).push(Frame::stanza(&stanza).to_string())
            });
        Self { registry: settings(builder).build(), time, events, leftovers, elsewhere }
    }

    pub fn try_bind(
        &self,
        line: &Wire,
        jid: &str,
        roster: Roster,
    ) -> Result<Owner, TransitionError<Session<Authed, Wire>, BindError>> {
        let jid = FullJid::new(jid).unwrap();
        let mut reply = |jid: &FullJid| Reply::Element(bind_result(jid).into_bytes());
        let request = BindRequest::new()
            .resource(resource(jid.resource().as_str()))
            .roster(roster)
            .reply(&mut reply);
        authed(line, jid.to_bare().as_str()).bind(&self.registry, request)
    }

    /// Binds `jid`, an account whose `contacts` see its presence and show theirs.
    pub fn bind_on(&self, line: &Wire, jid: &str, contacts: &[&str]) -> Owner {
        self.try_bind(line, jid, mutual(contacts)).unwrap()
    }

    pub fn bind(&self, jid: &str, contacts: &[&str]) -> (Owner, Wire) {
        let line = Wire::default();
        (self.bind_on(&line, jid, contacts), line)
    }

    /// The same, with presence, and with what that brought taken off the line.
    pub fn available(&self, jid: &str, contacts: &[&str]) -> (Owner, Wire) {
        let (mut owner, line) = self.bind(jid, contacts);
        appear(&mut owner, 0);
        drop(line.take());
        (owner, line)
    }

    pub fn resume(
        &self,
        line: &Wire,
        account: &str,
        token: &str,
        handled: u32,
    ) -> Result<Owner, TransitionError<Session<Authed, Wire>, ResumeError>> {
        let mut reply = |resumed: xmpp_session::session::Resumed| {
            format!("<resumed h='{}'/>", resumed.handled).into_bytes()
        };
        authed(line, account).resume(&self.registry, token, handled, &mut reply)
    }

    pub fn session(&self, jid: &str) -> Option<Handle> {
        self.registry.session(&FullJid::new(jid).unwrap())
    }

    pub fn events_of(&self, id: SessionId) -> Vec<EventKind> {
        let events = lock(&self.events);
        events.iter().filter(|(of, _)| *of == id).map(|(_, kind)| *kind).collect()
    }

    pub fn pass(&self, seconds: u64) {
        self.time.advance(Duration::from_secs(seconds));
        self.registry.handle_timeout();
    }
}

/// A listener that records.
pub fn recording(
    events: &Arc<Mutex<Vec<(SessionId, EventKind)>>>,
) -> impl Fn(&Event<Wire>) + Send + Sync + 'static {
    let events = Arc::clone(events);
    move |event| lock(&events).push((event.session().id(), event.kind()))
}

pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn domain() -> DomainPart {
    DomainPart::new("x").unwrap().into_owned()
}

pub fn resource(text: &str) -> ResourcePart {
    ResourcePart::new(text).unwrap().into_owned()
}

/// A session of `account` that may bind.
pub fn authed(line: &Wire, account: &str) -> Session<Authed, Wire> {
    let mut session = Session::new(Arc::clone(line));
    session.open(domain());
    session.authenticate(BareJid::new(account).unwrap()).unwrap()
}

pub fn roster(items: &[(&str, Subscription)]) -> Roster {
    let items = items.iter().map(|(jid, subscription)| {
        let mut item = Item::new(BareJid::new(jid).unwrap());
        item.subscription = *subscription;
        item
    });
    Roster::from_items(items, 1, [])
}

pub fn mutual(contacts: &[&str]) -> Roster {
    let items: Vec<_> = contacts.iter().map(|jid| (*jid, Subscription::Both)).collect();
    roster(&items)
}

pub fn bind_result(jid: &FullJid) -> String {
    format!("<iq type='result'><jid>{jid}</jid></iq>")
}

pub fn presence(from: &str) -> Stanza {
    Stanza::presence().from(from).build()
}

/// A message that can be told from others by its sender and number.
pub fn message(from: &str, number: usize) -> Stanza {
    Stanza::message().from(from).id(&number.to_string()).build()
}

pub fn appear(owner: &mut Owner, priority: i8) -> bool {
    let stanza = presence(owner.jid().as_str());
    owner.set_presence(Presence::Available { stanza: &stanza, priority })
}

pub fn leave(owner: &mut Owner) {
    owner.set_presence(Presence::Unavailable { stanza: None });
}

/// Keeps the session for ten minutes; the token for its resumption.
pub fn retain(owner: &mut Owner) -> String {
    let retention = owner.retain(Duration::from_secs(600), |_| b"<enabled/>".to_vec());
    retention.unwrap().token
}

/// Waits, without sleeping, until the session takes input.
pub fn until_ready(owner: &mut Owner) {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    while owner.poll_ready(&mut cx).is_pending() {
        std::thread::yield_now();
    }
}

/// The value of an attribute of a frame.
pub fn attribute<'a>(frame: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = frame.split_once(&format!(" {name}='"))?;
    rest.split('\'').next()
}

/// What a watcher was told of one full JID: `true` for available, in order.
pub fn seen(frames: &[String], jid: &str) -> Vec<bool> {
    let of =
        |frame: &&String| frame.starts_with("<presence") && attribute(frame, "from") == Some(jid);
    frames.iter().filter(of).map(|f| attribute(f, "type") != Some("unavailable")).collect()
}

pub fn is_end(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Ended { .. })
}
