//! What must hold whatever happens: the fate of each message, and the truth about each session.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use xmpp_session::session::{Reason, SessionHandle};

use super::device::{Sent, Stream, Witness};
use super::link::Link;
use super::order::Order;
use super::spy::{Act, Key, Spy};

/// The sender that is on another domain.
pub const REMOTE: usize = usize::MAX;

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
    given: Vec<(u64, Key)>,
    direct: BTreeSet<Key>,
    /// The server in whose time a session had it and the store could not forget it.
    kept: Option<u32>,
}

struct Receipt {
    device: usize,
    session: usize,
    /// Its number in the stream management of that session.
    number: Option<u32>,
}

/// A session as the server has it.
struct Record {
    key: Key,
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
    fn new(key: Key, handle: &SessionHandle<Link>) -> Self {
        let (handle, last) = (handle.clone(), HashMap::new());
        Self { key, handle, acknowledged: 0, last, available: None, ended: None }
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
    /// Stores may fail, or have no room.
    pub may_fail: bool,
    /// Ends of sessions since the last time, for the trace.
    pub ended: Vec<String>,
    /// The session that each has replaced.
    heirs: HashMap<Key, Key>,
    pub order: Order,
    pub violations: Vec<String>,
    /// What was received twice because the store could not forget it.
    pub repeats: Vec<String>,
}

impl Oracle {
    /// A message that is on its way from now on.
    pub fn add(
        &mut self,
        id: &str,
        sender: usize,
        number: u32,
        to: &str,
        may_bounce: bool,
        session: Option<usize>,
    ) {
        let message = Message {
            sender,
            number,
            to: to.to_owned(),
            may_bounce,
            certain: true,
            session,
            receipts: Vec::new(),
            errors: 0,
            given: Vec::new(),
            direct: BTreeSet::new(),
            kept: None,
        };
        self.messages.insert(id.to_owned(), message);
    }

    pub fn unprotected(&mut self, ids: Vec<String>) {
        self.unprotected.extend(ids);
    }

    /// The number of a session, known already or not.
    pub fn session(&mut self, handle: &SessionHandle<Link>) -> usize {
        let key = self.spy.key(handle);
        self.find(key).unwrap_or_else(|| {
            self.sessions.push(Record::new(key, handle));
            self.sessions.len() - 1
        })
    }

    fn find(&self, key: Key) -> Option<usize> {
        self.sessions.iter().position(|record| record.key == key)
    }

    /// Whether a session has replaced one that had this message: what that one has not acknowledged
    /// belongs to it.
    fn inherits(&self, message: &Message, heir: Key) -> bool {
        let mut before = std::iter::successors(Some(heir), |one| self.heirs.get(one).copied());
        before.any(|one| one != heir && message.given.iter().any(|(_, key)| *key == one))
    }

    /// A session that is not over, if there is one; `which` chooses.
    pub fn any_session(&self, which: usize) -> Option<SessionHandle<Link>> {
        let there: Vec<_> = self.sessions.iter().filter(|r| !r.handle.is_ended()).collect();
        let chosen = which.checked_rem(there.len())?;
        there.get(chosen).map(|record| record.handle.clone())
    }

    pub fn is_ended(&self, session: usize) -> bool {
        self.sessions[session].handle.is_ended()
    }

    /// Whether the server may give somebody a message again that was received like this.
    fn is_released(&self, receipt: &Receipt) -> bool {
        let record = &self.sessions[receipt.session];
        record.handle.is_ended() && receipt.number.is_some_and(|n| n > record.acknowledged)
    }

    /// What the server has done since the last call.
    pub fn observe(&mut self, step: u64) {
        self.sessions.iter_mut().for_each(|record| record.observe(step));
        let server = self.spy.server();
        for deed in self.spy.take() {
            self.order.done(&deed);
            if let Act::Ended(session, reason) = deed.act {
                self.ended.push(format!("{session:?} of {} ends: {reason:?}", deed.message));
                if let Reason::Replaced { by, .. } = reason {
                    self.heirs.insert(Key(session.0, by.get()), session);
                }
            }
            let Some(message) = self.messages.get(&deed.message) else { continue };
            let mut wrong = None;
            let is_new = matches!(deed.act, Act::Given(to) if !self.inherits(message, to));
            if is_new && message.kept.is_none() {
                for (_, before) in message.given.iter().filter(|(at, _)| *at < step) {
                    let Some(index) = self.find(*before) else { continue };
                    let taken = message.receipts.iter().find(|r| r.session == index);
                    if !self.is_ended(index) {
                        wrong = Some("given to another session while one has it");
                    } else if taken.is_some_and(|receipt| !self.is_released(receipt)) {
                        wrong = Some("given to another session after it was acknowledged");
                    }
                }
            }
            if let Some(wrong) = wrong {
                self.blame(format!("{}: {wrong}", deed.message));
            }
            let Some(message) = self.messages.get_mut(&deed.message) else { continue };
            match deed.act {
                Act::Given(session) => message.given.push((step, session)),
                Act::Direct(session) => {
                    message.direct.insert(session);
                }
                Act::Kept => message.kept = Some(server),
                Act::Entered | Act::Stored | Act::Unlisted | Act::Ended(..) => {}
            }
        }
    }

    /// At the end, with nothing on its way any more; `stored`: what the stores have.
    pub fn settle(&mut self, stored: &BTreeSet<String>) {
        let mut wrong = Vec::new();
        for (id, message) in &self.messages {
            let received = !message.receipts.is_empty();
            // What a session has left may be more than a store takes.
            let left = || self.may_fail && message.receipts.iter().any(|r| self.is_released(r));
            if received && message.errors > 0 && message.kept.is_none() && !left() {
                wrong.push(format!("{id}: delivered and bounced"));
            }
            // An error for a session that is over is nobody's.
            let lost_error = (message.may_bounce || self.may_fail)
                && message.sender != REMOTE
                && message.session.is_none_or(|session| self.is_ended(session));
            let excused = message.errors > 0 || lost_error || self.unprotected.contains(id);
            if !received && message.certain && !excused && !stored.contains(id) {
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

impl Witness for Oracle {
    fn blame(&mut self, what: String) {
        self.violations.push(what);
    }

    fn sent(&mut self, id: &str, sent: Sent, to: &str, may_bounce: bool) {
        self.add(id, sent.sender, sent.number, to, may_bounce, sent.session);
        if !to.contains('/') {
            self.order.sent(id, sent.stream, sent.number, to);
        }
    }

    fn sent_again(&mut self, id: &str, stream: Stream) {
        self.order.sent_again(id, stream);
    }

    /// The sender will never know whether it was handled.
    fn uncertain(&mut self, id: &str) {
        if let Some(message) = self.messages.get_mut(id) {
            message.certain = false;
        }
    }

    fn received(&mut self, id: &str, device: usize, session: usize, number: Option<u32>) {
        let Some(message) = self.messages.get(id) else {
            return self.blame(format!("{id}: nobody sent it"));
        };
        let before = message.receipts.iter().filter(|receipt| receipt.device == device);
        let twice = before.filter(|receipt| !self.is_released(receipt)).count();
        // Another device may have left it on this resource, whatever this one has got on another.
        let is_heir = self.inherits(message, self.sessions[session].key);
        let twice =
            (twice > 0 && !is_heir).then(|| format!("{id}: received twice by device {device}"));
        match message.kept {
            // Another process does not know who had it.
            Some(server) if server < self.spy.server() => {}
            Some(_) => self.repeats.extend(twice),
            None => self.violations.extend(twice),
        }
        let Some(message) = self.messages.get_mut(id) else { return };
        message.receipts.push(Receipt { device, session, number });
        let record = &mut self.sessions[session];
        self.order.received(id, record.key);
        // What comes from elsewhere waits for nobody: the order alone says what is right.
        if message.sender != REMOTE && message.direct.contains(&record.key) {
            let key = (message.sender, message.to.clone());
            let last = record.last.insert(key, message.number);
            if last.is_some_and(|last| last > message.number) {
                self.blame(format!("{id}: received behind number {last:?} of its sender"));
            }
        }
    }

    fn bounced(&mut self, id: &str) {
        let Some(message) = self.messages.get_mut(id) else {
            return self.blame(format!("{id}: an error for what nobody sent"));
        };
        message.errors += 1;
        if message.errors > 1 || !(message.may_bounce || self.may_fail) {
            let what = format!("{id}: bounced, {} times by now", message.errors);
            if message.kept.is_some() { &mut self.repeats } else { &mut self.violations }
                .push(what);
        }
    }

    fn acknowledged(&mut self, session: usize, h: u32) {
        let record = &mut self.sessions[session];
        record.acknowledged = record.acknowledged.max(h);
    }

    /// Whether a session of this full JID has ended in the very step in which that one became
    /// available, or came and went: by the presence itself if its transport could not take it. It is
    /// told of the end then, and there is no presence left to tell.
    fn has_crossed(&self, session: usize, jid: &str) -> bool {
        let record = &self.sessions[session];
        let available = record.available.or(record.ended);
        let mut others = self.sessions.iter().filter(|record| record.handle.jid().as_str() == jid);
        available.is_some() && others.any(|record| record.ended == available)
    }
}
