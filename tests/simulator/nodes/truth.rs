//! What clients may expect of several nodes, whatever happens to these: the fate of each message.

use std::collections::{BTreeMap, HashMap};

use crate::device::{Sent, Witness};

/// A message, and all that clients know of it.
struct Fate {
    sender: usize,
    number: u32,
    /// In which of its sender's sessions it went out last.
    epoch: u32,
    to: String,
    at: u64,
    may_bounce: bool,
    /// The sender knows that it was handled, or still keeps it.
    certain: bool,
    receipts: Vec<Receipt>,
    errors: u32,
}

struct Receipt {
    device: usize,
    /// Which of its sessions.
    epoch: u32,
    at: u64,
}

/// An oracle that knows nothing of nodes but when one of them died.
#[derive(Default)]
pub struct Truth {
    messages: BTreeMap<String, Fate>,
    /// Sessions of each device so far.
    epochs: BTreeMap<usize, u32>,
    /// When they were left without an end of their own.
    unclean: BTreeMap<(usize, u32), u64>,
    /// The last message of a sender's session to a full JID, by who received it.
    last: HashMap<(usize, u32, usize, u32), u32>,
    /// When nodes died that had not left: killed or fenced.
    deaths: Vec<u64>,
    pub step: u64,
    pub jids: BTreeMap<usize, Option<String>>,
    pub violations: Vec<String>,
}

impl Truth {
    /// A node has died, with all that it had in memory.
    pub fn died(&mut self) {
        self.deaths.push(self.step);
    }

    fn died_since(&self, step: u64) -> bool {
        self.deaths.last().is_some_and(|last| *last >= step)
    }

    fn epoch(&self, device: usize) -> u32 {
        self.epochs.get(&device).copied().unwrap_or_default()
    }

    /// At the end, with nothing on its way any more.
    pub fn settle(&mut self) {
        let mut wrong = Vec::new();
        for (id, fate) in &self.messages {
            let is_received = !fate.receipts.is_empty();
            if is_received && fate.errors > 0 && !self.died_since(fate.at) {
                wrong.push(format!("{id}: delivered and bounced"));
            }
            // An error for a session that is over is nobody's.
            let is_nobodys = fate.may_bounce && self.epoch(fate.sender) != fate.epoch;
            let is_excused = fate.errors > 0 || is_nobodys || self.died_since(fate.at);
            if !is_received && fate.certain && !is_excused {
                wrong.push(format!("{id} to {}: lost", fate.to));
            }
        }
        self.violations.extend(wrong);
    }

    /// How many were sent, how many received, and how many of these twice.
    pub fn messages(&self) -> (usize, usize, usize) {
        let received = |at_least| {
            self.messages.values().filter(|fate| fate.receipts.len() >= at_least).count()
        };
        (self.messages.len(), received(1), received(2))
    }
}

impl Witness for Truth {
    fn blame(&mut self, what: String) {
        self.violations.push(what);
    }

    fn began(&mut self, device: usize) {
        *self.epochs.entry(device).or_default() += 1;
    }

    fn left(&mut self, device: usize) {
        let epoch = self.epoch(device);
        self.unclean.insert((device, epoch), self.step);
    }

    fn sent(&mut self, id: &str, sent: Sent, to: &str, may_bounce: bool) {
        let fate = Fate {
            sender: sent.sender,
            number: sent.number,
            epoch: self.epoch(sent.sender),
            to: to.to_owned(),
            at: self.step,
            may_bounce,
            certain: true,
            receipts: Vec::new(),
            errors: 0,
        };
        self.messages.insert(id.to_owned(), fate);
    }

    fn sent_again(&mut self, id: &str, _stream: crate::order::Stream) {
        if let Some(fate) = self.messages.get_mut(id) {
            fate.epoch = self.epochs.get(&fate.sender).copied().unwrap_or_default();
        }
    }

    fn uncertain(&mut self, id: &str) {
        if let Some(fate) = self.messages.get_mut(id) {
            fate.certain = false;
        }
    }

    fn received(&mut self, id: &str, device: usize, _session: usize, _number: Option<u32>) {
        let (epoch, at) = (self.epoch(device), self.step);
        let Some(fate) = self.messages.get(id) else {
            return self.blame(format!("{id}: nobody sent it"));
        };
        let excused = self.died_since(fate.at);
        // What is for the account comes to each of its devices that is to have it.
        for before in fate.receipts.iter().filter(|before| before.device == device) {
            let is_left = self
                .unclean
                .get(&(before.device, before.epoch))
                .is_some_and(|end| *end >= before.at);
            if !excused && !is_left {
                let then = before.epoch;
                self.violations.push(format!(
                    "{id}: received by device {device} in session {epoch}, and in {then}"
                ));
            }
        }
        let is_direct = self.jids.get(&device).is_some_and(|jid| jid.as_ref() == Some(&fate.to));
        if is_direct && fate.receipts.is_empty() {
            let key = (fate.sender, fate.epoch, device, epoch);
            let number = fate.number;
            let last = self.last.insert(key, number);
            if last.is_some_and(|last| last > number) && !excused {
                self.violations.push(format!("{id}: received behind number {last:?}"));
            }
        }
        if let Some(fate) = self.messages.get_mut(id) {
            fate.receipts.push(Receipt { device, epoch, at });
        }
    }

    fn bounced(&mut self, id: &str) {
        let Some(fate) = self.messages.get_mut(id) else {
            return self.blame(format!("{id}: an error for what nobody sent"));
        };
        fate.errors += 1;
        let (errors, may_bounce, at) = (fate.errors, fate.may_bounce, fate.at);
        if (errors > 1 || !may_bounce) && !self.died_since(at) {
            self.blame(format!("{id}: bounced, {errors} times by now"));
        }
    }

    fn acknowledged(&mut self, _session: usize, _h: u32) {}

    /// Clients may not see each other's crossing presence.
    fn has_crossed(&self, _session: usize, _jid: &str) -> bool {
        true
    }
}
