//! What clients may expect of several nodes, whatever happens to these: the fate of each message.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::super::device::{Sent, Witness};

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
    /// The sender was told so by `<a/>`: the death of its home is no excuse any more (SM-5).
    is_handled: bool,
    /// Somebody has it as a copy of what another client of the account has got, and does not get it again (SM-17).
    is_copied: bool,
    receipts: Vec<Receipt>,
    errors: u32,
}

struct Receipt {
    device: usize,
    /// Which of its sessions.
    epoch: u32,
    at: u64,
}

/// A session of a client, as others see it.
#[derive(Default)]
struct Seen {
    /// How often it may have ended so far.
    ends: usize,
    /// By whom an end of it was seen, and how often.
    told: BTreeMap<usize, usize>,
}

/// An oracle that knows nothing of nodes but whose accounts were lost with one, and when.
#[derive(Default)]
pub struct Truth {
    messages: BTreeMap<String, Fate>,
    /// Sessions of each device so far.
    epochs: BTreeMap<usize, u32>,
    /// When they were left without an end of their own.
    unclean: BTreeMap<(usize, u32), u64>,
    /// The last message of a sender's session to a full JID, by who received it.
    last: HashMap<(usize, u32, usize, u32), u32>,
    /// When what an account had in memory was lost: its home was killed, or fenced.
    losses: BTreeMap<String, u64>,
    /// Those whose home may not act any more: their sessions may be told to be gone, before anybody has their slots.
    homeless: BTreeSet<&'static str>,
    /// By full JID.
    seen: BTreeMap<String, Seen>,
    /// Since when a device has no transport, for all that it knows.
    away: BTreeMap<usize, Duration>,
    /// Whose account a device is of, and since which step it has its session.
    owners: BTreeMap<usize, &'static str>,
    since: BTreeMap<usize, u64>,
    /// When they connected last: a login is older than its answer.
    connected: BTreeMap<usize, u64>,
    /// Those that have said they are about to close their stream.
    closing: BTreeSet<usize>,
    /// Those that have left a login on its way, which may replace what they have begun since.
    haunted: BTreeSet<usize>,
    /// For how long a session is certainly kept, and is certainly not told to be gone.
    pub keeps: Duration,
    /// Any loss of a transport may end a session: another one takes its place among those that are kept.
    pub is_crowded: bool,
    /// Those whose node leaves: they lose their transport before they know.
    pub sent_away: BTreeSet<usize>,
    pub now: Duration,
    pub resumed: usize,
    pub refused: usize,
    pub step: u64,
    pub jids: BTreeMap<usize, Option<String>>,
    /// Whose full JID each is, or was.
    names: BTreeMap<String, usize>,
    /// Those whose session has certainly died with its home, and that have none since.
    dead: BTreeSet<usize>,
    /// Who has seen a copy of a message, each time.
    copies: BTreeMap<String, Vec<usize>>,
    pub violations: Vec<String>,
}

impl Truth {
    /// What these accounts had in memory is lost.
    pub fn lost(&mut self, accounts: &[&'static str]) {
        for account in accounts {
            if self.losses.insert((*account).to_owned(), self.step) == Some(self.step) {
                continue;
            }
            if !self.homeless.remove(account) {
                self.end_all(account);
            }
        }
    }

    /// The home of an account may not act any more.
    pub fn is_homeless(&mut self, account: &'static str) {
        if self.homeless.insert(account) {
            self.end_all(account);
        }
    }

    fn end_all(&mut self, account: &str) {
        for jid in self.jids.values().flatten() {
            if !self.seen.contains_key(jid) {
                self.seen.insert(jid.clone(), Seen::default());
            }
        }
        for (jid, seen) in &mut self.seen {
            seen.ends += usize::from(account_of(jid) == account);
        }
    }

    /// The home of these accounts was killed while it served them: none of their sessions is left.
    pub fn killed(&mut self, accounts: &[&str]) {
        let owners = self.owners.iter().filter(|(_, owner)| accounts.contains(owner));
        self.dead.extend(owners.map(|(device, _)| *device));
    }

    /// A device has this full JID from now on.
    pub fn is_called(&mut self, device: usize, jid: Option<String>) {
        self.names.extend(jid.iter().map(|jid| (jid.clone(), device)));
        self.jids.insert(device, jid);
    }

    /// Whether a session of this full JID has certainly been lost.
    pub fn is_dead(&self, jid: &str) -> bool {
        self.names.get(jid).is_some_and(|device| self.dead.contains(device))
    }

    /// How many copies of a message a device has seen.
    pub fn copies_of(&self, id: &str, device: usize) -> usize {
        let copies = self.copies.get(id).into_iter().flatten();
        copies.filter(|seen| **seen == device).count()
    }

    /// Whether anything of one of these was lost since.
    fn lost_since<'a>(&self, step: u64, accounts: impl IntoIterator<Item = &'a str>) -> bool {
        let mut losses = accounts.into_iter().filter_map(|account| self.losses.get(account));
        losses.any(|last| *last >= step)
    }

    fn excuses(&self, fate: &Fate) -> bool {
        let sender = self.owners.get(&fate.sender).copied().unwrap_or_default();
        self.lost_since(fate.at, [sender, account_of(&fate.to)])
    }

    pub fn is_of(&mut self, device: usize, account: &'static str) {
        self.owners.insert(device, account);
    }

    /// The session of a device may be told to be gone from now on, once more.
    pub fn ended(&mut self, device: usize) {
        if let Some(jid) = self.jids.get(&device).cloned().flatten() {
            self.seen.entry(jid).or_default().ends += 1;
        }
    }

    /// A device closes its stream, which the server may read or not.
    pub fn closes(&mut self, device: usize) {
        self.ended(device);
        self.closing.insert(device);
    }

    pub fn is_closing(&self, device: usize) -> bool {
        self.closing.contains(&device) || self.haunted.contains(&device)
    }

    pub fn is_haunted(&mut self, device: usize) {
        self.haunted.insert(device);
    }

    /// A device has lost its transport.
    pub fn away(&mut self, device: usize) {
        self.away_since(device, self.now);
    }

    /// The same, maybe before it knows.
    pub fn away_since(&mut self, device: usize, since: Duration) {
        if self.is_crowded {
            self.ended(device);
        }
        self.away.entry(device).or_insert(since);
    }

    fn was_away(&self, device: usize) -> Duration {
        self.away.get(&device).map_or(Duration::ZERO, |since| self.now.saturating_sub(*since))
    }

    /// It has one again.
    pub fn back(&mut self, device: usize) {
        if self.was_away(device) >= self.keeps {
            self.ended(device);
        }
        self.connected.insert(device, self.step);
    }

    /// A device sees an end.
    pub fn sees_end(&mut self, device: usize, jid: &str) {
        let is_away = |(other, own): (&usize, &Option<String>)| {
            let is_crowded_out = self.is_crowded && self.sent_away.contains(other);
            let may_be_over = is_crowded_out
                || self.haunted.contains(other)
                || self.was_away(*other) >= self.keeps;
            own.as_deref() == Some(jid) && may_be_over
        };
        let away = self.jids.iter().filter(|(other, own)| is_away((*other, *own))).count();
        let seen = self.seen.entry(jid.to_owned()).or_default();
        let told = seen.told.entry(device).or_default();
        *told += 1;
        if *told > seen.ends + away {
            let (told, ends) = (*told, seen.ends);
            self.violations.push(format!("device {device} is told {told} ends of {jid} of {ends}"));
        }
    }

    /// A device has a session, and knows nothing yet: what it is told now may have been said a little before.
    fn begins(&mut self, device: usize) {
        for seen in self.seen.values_mut() {
            let told = seen.told.entry(device).or_default();
            *told = (*told).max(seen.ends.saturating_sub(2));
        }
        let connected = self.connected.get(&device).copied().unwrap_or_default();
        self.since.insert(device, connected);
    }

    fn epoch(&self, device: usize) -> u32 {
        self.epochs.get(&device).copied().unwrap_or_default()
    }

    /// At the end, with nothing on its way any more.
    pub fn settle(&mut self) {
        let mut wrong = Vec::new();
        for (id, fate) in &self.messages {
            let is_received = !fate.receipts.is_empty();
            if is_received && fate.errors > 0 && !self.excuses(fate) {
                wrong.push(format!("{id}: delivered and bounced"));
            }
            // An error for a session that is over is nobody's.
            let is_nobodys = fate.may_bounce && self.epoch(fate.sender) != fate.epoch;
            let is_lost = match fate.is_handled {
                true => self.lost_since(fate.at, [account_of(&fate.to)]),
                false => self.excuses(fate),
            };
            let is_excused = fate.errors > 0 || is_nobodys || is_lost;
            let is_certain = fate.certain || fate.is_handled;
            if !is_received && !fate.is_copied && is_certain && !is_excused {
                wrong.push(format!("{id} to {}: lost", fate.to));
            }
        }
        self.violations.extend(wrong);
    }

    /// How many were sent, how many received, and how many of these more than once by a client.
    pub fn messages(&self) -> (usize, usize, usize) {
        let is_repeated = |fate: &&Fate| {
            let mut devices: Vec<_> = fate.receipts.iter().map(|receipt| receipt.device).collect();
            devices.sort_unstable();
            devices.windows(2).any(|two| two[0] == two[1])
        };
        let received = self.messages.values().filter(|fate| !fate.receipts.is_empty());
        let repeated = self.messages.values().filter(is_repeated);
        (self.messages.len(), received.count(), repeated.count())
    }
}

impl Witness for Truth {
    fn blame(&mut self, what: String) {
        self.violations.push(what);
    }

    fn began(&mut self, device: usize) {
        *self.epochs.entry(device).or_default() += 1;
        self.dead.remove(&device);
        self.begins(device);
        self.away.remove(&device);
        self.closing.remove(&device);
    }

    fn left(&mut self, device: usize) {
        let epoch = self.epoch(device);
        self.unclean.insert((device, epoch), self.step);
        self.ended(device);
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
            is_handled: false,
            is_copied: false,
            receipts: Vec::new(),
            errors: 0,
        };
        self.messages.insert(id.to_owned(), fate);
    }

    fn sent_again(&mut self, id: &str, _stream: super::super::device::Stream) {
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
        let excused = self.excuses(fate);
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

    fn handled(&mut self, id: &str) {
        self.messages.get_mut(id).into_iter().for_each(|fate| fate.is_handled = true);
    }

    fn copied(&mut self, id: &str, device: usize, is_heard: bool) {
        self.copies.entry(id.to_owned()).or_default().push(device);
        if let Some(fate) = self.messages.get_mut(id) {
            fate.is_copied |= is_heard;
        }
    }

    fn bounced(&mut self, id: &str) {
        let Some(fate) = self.messages.get_mut(id) else {
            return self.blame(format!("{id}: an error for what nobody sent"));
        };
        fate.errors += 1;
        let errors = fate.errors;
        if let Some(fate) = self.messages.get(id)
            && (errors > 1 || !fate.may_bounce)
            && !self.excuses(fate)
        {
            self.blame(format!("{id}: bounced, {errors} times by now"));
        }
    }

    fn acknowledged(&mut self, _session: usize, _h: u32) {}

    fn resumed(&mut self, device: usize, is_resumed: bool) {
        let count = if is_resumed { &mut self.resumed } else { &mut self.refused };
        *count += 1;
        let away = self.was_away(device);
        self.away.remove(&device);
        let was_closing = self.is_closing(device);
        self.closing.remove(&device);
        let owner = self.owners.get(&device).copied().unwrap_or_default();
        let since = self.since.get(&device).copied().unwrap_or_default();
        let is_lost = was_closing || self.is_crowded || self.lost_since(since, [owner]);
        if !is_resumed && !is_lost && away < self.keeps {
            self.blame(format!("device {device}: its session is gone after {away:?}"));
        }
    }

    fn replaced(&mut self, device: usize) {
        self.closes(device);
    }

    fn unavailable(&mut self, device: usize, jid: &str) {
        self.sees_end(device, jid);
    }

    /// Clients may not see each other's crossing presence.
    fn has_crossed(&self, _session: usize, _jid: &str) -> bool {
        true
    }
}

fn account_of(jid: &str) -> &str {
    jid.split('@').next().unwrap_or_default()
}
