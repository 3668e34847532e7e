//! What must hold whatever happens: the fate of each message, and the truth about each session.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use xmpp_session::extension::{Delivery, Extension, Outcome};
use xmpp_session::session::{SessionHandle, SessionId};
use xmpp_session::stanza::{Kind, Stanza};

use crate::link::Link;

/// What the server did with messages, in order.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Act {
    /// A session accepted it.
    Given,
    /// It was among those that had it at the first attempt.
    Direct,
}

/// An extension that only listens.
#[derive(Clone, Default)]
pub struct Spy(Arc<Mutex<Vec<(Act, String, SessionId)>>>);

impl Spy {
    fn note(&self, act: Act, stanza: &Stanza, session: &SessionHandle<Link>) {
        let id = stanza.id().filter(|id| id.starts_with('m'));
        if let (Kind::Message, Some(id)) = (stanza.kind(), id)
            && stanza.type_().as_deref() != Some("error")
        {
            let mut acts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            acts.push((act, id.to_string(), session.id()));
        }
    }
}

impl Extension<Link> for Spy {
    fn outbound(&self, session: &SessionHandle<Link>, stanza: &Stanza) {
        self.note(Act::Given, stanza, session);
    }

    fn delivered(&self, delivery: &Delivery<'_, Link>) {
        if delivery.outcome() == Outcome::Retrieved {
            return;
        }
        for session in delivery.reached() {
            self.note(Act::Direct, delivery.stanza(), session);
        }
    }
}

/// One message and all that is known of it.
pub struct Message {
    pub sender: usize,
    pub number: u32,
    pub to: String,
    /// Of type normal to a full JID: it may be bounced.
    pub may_bounce: bool,
    /// The sender knows that it was handled, or still keeps it.
    pub certain: bool,
    /// The session it was sent in.
    pub session: Option<usize>,
    receipts: Vec<Receipt>,
    errors: u32,
    given: Vec<(u64, SessionId)>,
    direct: BTreeSet<SessionId>,
}

struct Receipt {
    device: usize,
    session: usize,
    /// Its number in the stream management of that session.
    number: Option<u32>,
}

/// A session as the server has it.
struct Record {
    handle: SessionHandle<Link>,
    /// The last `h` that the server has certainly read.
    acknowledged: u32,
    /// The last message of each sender to each address that came directly.
    last: HashMap<(usize, String), u32>,
    /// When it became available the last time.
    available: Option<u64>,
    ended: Option<u64>,
}

impl Record {
    fn new(handle: &SessionHandle<Link>) -> Self {
        let (handle, last) = (handle.clone(), HashMap::new());
        Self { handle, acknowledged: 0, last, available: None, ended: None }
    }

    fn observe(&mut self, step: u64) {
        if self.ended.is_none() && self.handle.is_ended() {
            self.ended = Some(step);
        } else if !self.handle.is_available() {
            self.available = None;
        } else if self.available.is_none() {
            self.available = Some(step);
        }
    }
}

#[derive(Default)]
pub struct Oracle {
    pub spy: Spy,
    messages: BTreeMap<String, Message>,
    sessions: Vec<Record>,
    unprotected: BTreeSet<String>,
    pub violations: Vec<String>,
}

impl Oracle {
    pub fn blame(&mut self, what: String) {
        self.violations.push(what);
    }

    pub fn sent(&mut self, id: String, sender: usize, number: u32, to: &str, may_bounce: bool) {
        let message = Message {
            sender,
            number,
            to: to.to_owned(),
            may_bounce,
            certain: true,
            session: None,
            receipts: Vec::new(),
            errors: 0,
            given: Vec::new(),
            direct: BTreeSet::new(),
        };
        self.messages.insert(id, message);
    }

    /// The session that a message goes out in.
    pub fn sent_in(&mut self, id: &str, session: Option<usize>) {
        if let Some(message) = self.messages.get_mut(id) {
            message.session = session;
        }
    }

    /// The sender will never know whether it was handled.
    pub fn uncertain(&mut self, id: &str) {
        if let Some(message) = self.messages.get_mut(id) {
            message.certain = false;
        }
    }

    pub fn unprotected(&mut self, ids: Vec<String>) {
        self.unprotected.extend(ids);
    }

    /// The number of a session, known already or not.
    pub fn session(&mut self, handle: &SessionHandle<Link>) -> usize {
        let known = self.sessions.iter().position(|record| record.handle.id() == handle.id());
        known.unwrap_or_else(|| {
            self.sessions.push(Record::new(handle));
            self.sessions.len() - 1
        })
    }

    pub fn is_ended(&self, session: usize) -> bool {
        self.sessions[session].handle.is_ended()
    }

    pub fn acknowledged(&mut self, session: usize, h: u32) {
        let record = &mut self.sessions[session];
        record.acknowledged = record.acknowledged.max(h);
    }

    /// Whether the server may give somebody a message again that was received like this.
    fn is_released(&self, receipt: &Receipt) -> bool {
        let record = &self.sessions[receipt.session];
        record.handle.is_ended() && receipt.number.is_some_and(|n| n > record.acknowledged)
    }

    /// Whether a session of this full JID has ended in the very step in which that one became
    /// available: by the presence itself if its transport could not take it. It is told of the end
    /// then, and there is no presence left to tell.
    pub fn has_crossed(&self, session: usize, jid: &str) -> bool {
        let available = self.sessions[session].available;
        let mut others = self.sessions.iter().filter(|record| record.handle.jid().as_str() == jid);
        available.is_some() && others.any(|record| record.ended == available)
    }

    /// What the server has done since the last call.
    pub fn observe(&mut self, step: u64) {
        self.sessions.iter_mut().for_each(|record| record.observe(step));
        let acts = self.spy.0.lock().map(|mut acts| std::mem::take(&mut *acts)).unwrap_or_default();
        for (act, id, session) in acts {
            let Some(message) = self.messages.get(&id) else { continue };
            let mut wrong = None;
            if act == Act::Given {
                for (_, before) in message.given.iter().filter(|(at, _)| *at < step) {
                    let index = self.sessions.iter().position(|r| r.handle.id() == *before);
                    let Some(index) = index else { continue };
                    let taken = message.receipts.iter().find(|r| r.session == index);
                    if !self.is_ended(index) {
                        wrong = Some("given to another session while one has it");
                    } else if taken.is_some_and(|receipt| !self.is_released(receipt)) {
                        wrong = Some("given to another session after it was acknowledged");
                    }
                }
            }
            if let Some(wrong) = wrong {
                self.blame(format!("{id}: {wrong}"));
            }
            let Some(message) = self.messages.get_mut(&id) else { continue };
            match act {
                Act::Given => message.given.push((step, session)),
                Act::Direct => {
                    message.direct.insert(session);
                }
            }
        }
    }

    pub fn received(&mut self, id: &str, device: usize, session: usize, number: Option<u32>) {
        let Some(message) = self.messages.get(id) else {
            return self.blame(format!("{id}: nobody sent it"));
        };
        let before = message.receipts.iter().filter(|receipt| receipt.device == device);
        let twice = before.filter(|receipt| !self.is_released(receipt)).count();
        if twice > 0 {
            self.blame(format!("{id}: received twice by device {device}"));
        }
        let Some(message) = self.messages.get_mut(id) else { return };
        message.receipts.push(Receipt { device, session, number });
        let record = &mut self.sessions[session];
        if message.direct.contains(&record.handle.id()) {
            let key = (message.sender, message.to.clone());
            let last = record.last.insert(key, message.number);
            if last.is_some_and(|last| last > message.number) {
                self.blame(format!("{id}: received behind number {last:?} of its sender"));
            }
        }
    }

    pub fn bounced(&mut self, id: &str) {
        let Some(message) = self.messages.get_mut(id) else {
            return self.blame(format!("{id}: an error for what nobody sent"));
        };
        message.errors += 1;
        if message.errors > 1 || !message.may_bounce {
            let errors = message.errors;
            self.blame(format!("{id}: bounced, {errors} times by now"));
        }
    }

    /// At the end, with nothing on its way any more.
    pub fn settle(&mut self) {
        let mut wrong = Vec::new();
        for (id, message) in &self.messages {
            let received = !message.receipts.is_empty();
            if received && message.errors > 0 {
                wrong.push(format!("{id}: delivered and bounced"));
            }
            // An error for a session that is over is nobody's.
            let lost_error =
                message.may_bounce && message.session.is_none_or(|session| self.is_ended(session));
            let excused = message.errors > 0 || lost_error || self.unprotected.contains(id);
            if !received && message.certain && !excused {
                wrong.push(format!("{id} to {}: lost", message.to));
            }
        }
        self.violations.extend(wrong);
    }

    pub fn messages(&self) -> (usize, usize) {
        let received = self.messages.values().filter(|message| !message.receipts.is_empty());
        (self.messages.len(), received.count())
    }
}
