//! What the server did with messages, in order, as its extensions, its events and its stores are told.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use xmpp_session::extension::{Delivery, Extension};
use xmpp_session::jid::BareJid;
use xmpp_session::session::{Event, EventKind, Reason, SessionHandle, SessionRegistry};
use xmpp_session::stanza::{Kind, Stanza};

use crate::link::Link;

/// A session, of one of the servers that a world has in its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(u32, u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// A session accepted it.
    Given(Key),
    /// It was among those that had it at the first attempt.
    Direct(Key),
    /// The store has it.
    Stored,
    /// A session has it, but the store could not forget it.
    Kept,
}

/// What was done with one message.
pub struct Deed {
    pub act: Act,
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
    ends: Vec<(Key, Reason)>,
    /// Servers that were there before this one.
    server: u32,
    registry: Option<SessionRegistry<Link>>,
}

impl Spy {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the sessions are found from now on.
    pub fn watch(&self, registry: &SessionRegistry<Link>) {
        self.notes().registry = Some(registry.clone());
    }

    /// The server is gone, and its sessions with it.
    pub fn forget(&self) {
        let registry = {
            let mut notes = self.notes();
            notes.server += 1;
            notes.registry.take()
        };
        drop(registry);
    }

    pub fn server(&self) -> u32 {
        self.notes().server
    }

    pub fn key(&self, session: &SessionHandle<Link>) -> Key {
        Key(self.server(), session.id().get())
    }

    pub fn take(&self) -> (Vec<Deed>, Vec<(Key, Reason)>) {
        let notes = &mut *self.notes();
        (std::mem::take(&mut notes.deeds), std::mem::take(&mut notes.ends))
    }

    pub fn note(&self, act: Act, message: &str, account: &BareJid) {
        if !message.starts_with(['m', 'r']) {
            return;
        }
        let registry = self.notes().registry.clone();
        let mut present: Vec<_> =
            registry.iter().flat_map(|all| all.sessions(account)).map(|s| self.key(&s)).collect();
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

    pub fn event(&self, event: &Event<Link>) {
        if let EventKind::Ended { reason, .. } = event.kind() {
            let key = self.key(event.session());
            self.notes().ends.push((key, reason));
        }
    }

    fn see(&self, act: Act, stanza: &Stanza, session: &SessionHandle<Link>) {
        if let (Kind::Message, Some(id)) = (stanza.kind(), stanza.id())
            && stanza.type_().as_deref() != Some("error")
        {
            self.note(act, &id, &session.jid().to_bare());
        }
    }
}

impl Extension<Link> for Spy {
    fn outbound(&self, session: &SessionHandle<Link>, stanza: &Stanza) {
        self.see(Act::Given(self.key(session)), stanza, session);
    }

    fn delivered(&self, delivery: &Delivery<'_, Link>) {
        for session in delivery.reached() {
            self.see(Act::Direct(self.key(session)), delivery.stanza(), session);
        }
    }
}
