//! What the server did with messages, in order, as its extensions, its events and its stores are told.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use xmpp_session::extension::{Delivery, Extension, Flow, Outcome};
use xmpp_session::jid::{BareJid, Jid};
use xmpp_session::server::Server;
use xmpp_session::session::{Event, EventKind, Reason, SessionHandle};
use xmpp_session::stanza::{Kind, Stanza};

use super::link::Link;
use super::random::Random;

/// A session, of one of the servers that a world has in its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub u32, pub u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// The server has it, and it goes to somebody.
    Entered,
    /// A session accepted it.
    Given(Key),
    /// It was among those that had it at the first attempt.
    Direct(Key),
    /// The store has it.
    Stored,
    /// A session has it, but the store could not forget it.
    Kept,
    /// The store could not say what it has for an account.
    Unlisted,
    /// A session is over.
    Ended(Key, Reason),
}

/// What was done with one message.
pub struct Deed {
    pub act: Act,
    /// Its id, or the account that it is about.
    pub message: String,
    /// The sessions of its account that could be found then.
    pub present: Vec<Key>,
}

/// An extension that only listens.
#[derive(Clone, Default)]
pub struct Spy(Arc<Mutex<Notes>>);

#[derive(Default)]
struct Notes {
    deeds: Vec<Deed>,
    /// Servers that were there before this one.
    server: u32,
    watched: Option<Server<Link>>,
    /// Messages from elsewhere that come in the middle of something else, as if by another thread.
    arriving: VecDeque<Stanza>,
    random: Option<Random>,
    /// Nothing comes in just now.
    deaf: bool,
}

impl Spy {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the sessions are found from now on.
    pub fn watch(&self, server: &Server<Link>) {
        self.notes().watched = Some(server.clone());
    }

    /// Has these messages come in the middle of what the server does next.
    pub fn arrive(&self, message: Stanza, random: impl FnOnce() -> Random) {
        let notes = &mut *self.notes();
        notes.arriving.push_back(message);
        notes.random.get_or_insert_with(random);
    }

    /// The server has called its host: what happens elsewhere may happen now.
    pub fn interrupt(&self) {
        self.send_next(40);
    }

    /// What had no moment to come in comes now.
    pub fn send_all(&self) {
        while self.send_next(100) {}
    }

    fn send_next(&self, percent: usize) -> bool {
        let (server, message) = {
            let notes = &mut *self.notes();
            let Some(random) = notes.random.as_mut().filter(|_| !notes.arriving.is_empty()) else {
                return false;
            };
            if notes.deaf || !random.chance(percent) {
                return false;
            }
            let Some(server) = notes.watched.clone() else { return false };
            let Some(message) = notes.arriving.pop_front() else { return false };
            notes.deaf = true;
            (server, message)
        };
        if let Some(Ok(to)) = message.to().map(|to| Jid::new(&to)) {
            self.see(Act::Entered, &message, &to.to_bare());
        }
        server.send(message);
        self.notes().deaf = false;
        true
    }

    /// The server has shut down: its host hands in nothing more.
    pub fn close(&self) {
        self.notes().deaf = true;
    }

    /// The server is gone, and its sessions with it.
    pub fn forget(&self) {
        let watched = {
            let mut notes = self.notes();
            notes.server += 1;
            notes.deaf = false;
            notes.watched.take()
        };
        drop(watched);
    }

    pub fn server(&self) -> u32 {
        self.notes().server
    }

    pub fn key(&self, session: &SessionHandle<Link>) -> Key {
        Key(self.server(), session.id().get())
    }

    pub fn take(&self) -> Vec<Deed> {
        std::mem::take(&mut self.notes().deeds)
    }

    pub fn note(&self, act: Act, message: &str, account: &BareJid) {
        if !message.starts_with(['m', 'r']) {
            return;
        }
        let mut present = self.present(account);
        let mut notes = self.notes();
        if let Act::Given(session) = act {
            // To several at once: what it does to the first of them is no concern of the others.
            match notes.deeds.last() {
                Some(last) if matches!(last.act, Act::Given(_)) && last.message == message => {
                    present.extend(&last.present);
                }
                _ => {}
            }
            present.push(session);
        }
        notes.deeds.push(Deed { act, message: message.to_owned(), present });
    }

    fn present(&self, account: &BareJid) -> Vec<Key> {
        let server = self.notes().watched.clone();
        let sessions = server.iter().flat_map(|server| server.registry().sessions(account));
        sessions.map(|session| self.key(&session)).collect()
    }

    /// The store could not say what it has for an account.
    pub fn unlisted(&self, account: &BareJid) {
        let (act, message) = (Act::Unlisted, account.to_string());
        self.notes().deeds.push(Deed { act, message, present: Vec::new() });
    }

    pub fn event(&self, event: &Event<Link>) {
        if let EventKind::Ended { reason, .. } = event.kind() {
            let account = event.session().jid().to_bare();
            let (act, present) =
                (Act::Ended(self.key(event.session()), reason), self.present(&account));
            self.notes().deeds.push(Deed { act, message: account.to_string(), present });
        }
    }

    fn see(&self, act: Act, stanza: &Stanza, account: &BareJid) {
        if let (Kind::Message, Some(id)) = (stanza.kind(), stanza.id())
            && stanza.type_().as_deref() != Some("error")
        {
            self.note(act, &id, account);
        }
    }
}

impl Extension<Link> for Spy {
    fn inbound(&self, _: &SessionHandle<Link>, stanza: &Stanza) -> Flow {
        if let Some(Ok(to)) = stanza.to().map(|to| Jid::new(&to)) {
            self.see(Act::Entered, stanza, &to.to_bare());
        }
        Flow::Next
    }

    fn outbound(&self, session: &SessionHandle<Link>, stanza: &Stanza) {
        self.see(Act::Given(self.key(session)), stanza, &session.jid().to_bare());
    }

    fn delivered(&self, delivery: &Delivery<'_, Link>) {
        if delivery.outcome() == Outcome::Retrieved {
            return;
        }
        for session in delivery.reached() {
            let act = Act::Direct(self.key(session));
            self.see(act, delivery.stanza(), &session.jid().to_bare());
        }
    }
}
