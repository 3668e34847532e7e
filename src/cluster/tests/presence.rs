//! Who is there, in the [world](super::world), and who is told of it. Each account has one session, and all the others
//! are its contacts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Break;
use super::world::{PEACE, World};
use crate::address::bare_of;
use crate::cluster::frame::{Receipt, Recipient, Word};
use crate::cluster::ledger::Ledgers;
use crate::cluster::view::{Incarnation, Slot};
use crate::packed::{Reader, Writer};

/// Of the session of an account: how often it had become available.
type Spell = u64;

/// No number of a message.
const PROBE: u64 = u64::MAX;

pub(super) fn is_probe(bytes: &[u8]) -> bool {
    bytes.starts_with(&PROBE.to_be_bytes())
}

fn session(account: &str) -> Arc<str> {
    format!("{account}/r").into()
}

type Given = (Arc<str>, Arc<str>);

/// What a home has of this.
#[derive(Default)]
pub(super) struct Present {
    /// Who is available.
    sessions: BTreeMap<Arc<str>, Spell>,
    ledgers: Ledgers,
    /// What clients of a slot that is frozen are not given: it goes along, as all that waits for them.
    frozen: BTreeMap<Slot, Vec<Given>>,
}

impl Present {
    fn export(&self, slot: Slot, slots: u16) -> Vec<u8> {
        let is_meant = |account: &str| Slot::among(account, slots) == slot;
        let sessions: Vec<_> = self.sessions.iter().filter(|(one, _)| is_meant(one)).collect();
        let mut out = Writer::default();
        out.count(sessions.len());
        for (account, spell) in sessions {
            out.text(account);
            out.number(*spell);
        }
        let waiting = self.frozen.get(&slot).map_or(&[][..], Vec::as_slice);
        out.count(waiting.len());
        for (account, from) in waiting {
            out.text(account);
            out.text(from);
        }
        out.bytes(&self.ledgers.export(None, is_meant));
        out.into_bytes()
    }

    /// What its clients are to be given now is returned.
    fn import(&mut self, bytes: &[u8]) -> Vec<(Arc<str>, Arc<str>)> {
        let mut input = Reader::new(bytes);
        let sessions = input.list(|input| Some((input.text()?.into(), input.number()?)));
        self.sessions.extend(sessions.expect("sessions"));
        let waiting = input.list(|input| Some((input.text()?.into(), input.text()?.into())));
        self.ledgers.import(input.bytes().expect("bytes")).expect("ledgers");
        waiting.expect("ends")
    }

    /// What has come about in a slot is lost with it.
    pub(super) fn lose(&self, slot: Slot, slots: u16, pictures: &mut Pictures) {
        let of_slot =
            self.sessions.iter().filter(|(account, _)| Slot::among(account, slots) == slot);
        let is_true =
            |(account, spell): &(&Arc<str>, &Spell)| pictures.truth.get(*account) == Some(*spell);
        let lost: Vec<_> =
            of_slot.filter(is_true).map(|(account, _)| Arc::clone(account)).collect();
        lost.iter().for_each(|account| pictures.vanishes(account));
    }

    pub(super) fn drop_slot(&mut self, slot: Slot, slots: u16) {
        let is_meant = |account: &str| Slot::among(account, slots) == slot;
        self.sessions.retain(|account, _| !is_meant(account));
        self.ledgers.drop_those(None, is_meant);
        self.frozen.remove(&slot);
    }

    pub(super) fn freeze(&mut self, slot: Slot) {
        self.frozen.entry(slot).or_default();
    }
}

/// What is true, and what clients think.
#[derive(Default)]
pub(super) struct Pictures {
    last: Spell,
    /// Who is available.
    truth: BTreeMap<Arc<str>, Spell>,
    /// What each has been told of each while it has been available itself.
    seen: BTreeMap<(Arc<str>, Arc<str>), (Spell, bool)>,
}

impl Pictures {
    fn appears(&mut self, account: &Arc<str>) -> Spell {
        self.last += 1;
        self.vanishes(account);
        self.truth.insert(Arc::clone(account), self.last);
        self.last
    }

    fn vanishes(&mut self, account: &str) {
        self.truth.remove(account);
        self.seen.retain(|(watcher, _), _| &**watcher != account);
    }

    /// A watcher is told that a session is there, or that none is any more. What is wrong with that, if anything is.
    fn told(&mut self, to: &Arc<str>, from: &str, spell: Option<Spell>) -> Option<String> {
        let from: Arc<str> = bare_of(from).into();
        let pair = (Arc::clone(to), Arc::clone(&from));
        let seen = self.seen.get(&pair).copied();
        match (spell, seen) {
            (Some(spell), Some((before, was))) if spell < before || (spell == before && !was) => {
                Some(format!("{to} is told that {from} is there behind the end of that"))
            }
            (Some(spell), _) => {
                self.seen.insert(pair, (spell, true));
                None
            }
            (None, Some((before, true))) => {
                self.seen.insert(pair, (before, false));
                let is_there = self.truth.get(&from) == Some(&before);
                is_there.then(|| format!("{to} is told that {from} is gone who is not"))
            }
            (None, _) => Some(format!("{to} is told that {from} is gone and did not know of it")),
        }
    }

    /// In the end everybody knows who is there.
    pub(super) fn wrong(&self, accounts: &[Recipient]) -> Option<String> {
        for to in accounts.iter().filter(|to| self.truth.contains_key(&to.account)) {
            for from in accounts.iter().filter(|from| *from != to) {
                let pair = (Arc::clone(&to.account), Arc::clone(&from.account));
                let seen =
                    self.seen.get(&pair).filter(|(_, there)| *there).map(|(spell, _)| *spell);
                let truth = self.truth.get(&from.account).copied();
                if seen != truth {
                    return Some(format!("{pair:?}: {seen:?} is seen, and {truth:?} is so"));
                }
            }
        }
        None
    }
}

impl World {
    /// The accounts of a slot come, say what they are doing, and go.
    pub(super) fn appear(&mut self, inc: Incarnation, clock: Duration, slot: Slot) {
        if self.now >= PEACE {
            return;
        }
        let of_slot: Vec<_> =
            self.accounts.iter().filter(|one| one.slot == slot).cloned().collect();
        for Recipient { account, .. } in of_slot {
            if !self.random.chance(15) {
                continue;
            }
            let Some(host) = self.hosts.get_mut(&inc) else { return };
            // Then clients pause. That they go does not.
            let is_pressed = host.node.most_bytes() >= self.settings.soft;
            match host.present.sessions.get(&account).copied() {
                None if is_pressed => {}
                None => {
                    let spell = self.pictures.appears(&account);
                    host.present.sessions.insert(Arc::clone(&account), spell);
                    self.say(inc, clock, &account, spell, true);
                    let probe = [&PROBE.to_be_bytes()[..], account.as_bytes()].concat();
                    let others = self.others(&account);
                    let Some(host) = self.hosts.get_mut(&inc) else { return };
                    // Nothing is sent again of what is bounced: then what follows would be wrong.
                    let submitted = host.node.submit(
                        clock,
                        Some(slot),
                        others.into(),
                        probe.into(),
                        Receipt::default(),
                    );
                    if !submitted.bounced.is_empty() {
                        self.vanish(inc, clock, &account);
                    }
                }
                Some(spell) if !is_pressed && self.random.chance(50) => {
                    self.say(inc, clock, &account, spell, true)
                }
                Some(_) => self.vanish(inc, clock, &account),
            }
        }
    }

    fn vanish(&mut self, inc: Incarnation, clock: Duration, account: &Arc<str>) {
        let Some(host) = self.hosts.get_mut(&inc) else { return };
        let Some(spell) = host.present.sessions.remove(account) else { return };
        host.present.ledgers.retire(account, false, |_| false);
        self.pictures.vanishes(account);
        self.say(inc, clock, account, spell, false);
    }

    fn others(&self, account: &str) -> Vec<Recipient> {
        self.accounts.iter().filter(|one| &*one.account != account).cloned().collect()
    }

    fn say(
        &mut self,
        inc: Incarnation,
        clock: Duration,
        account: &Arc<str>,
        spell: Spell,
        is_available: bool,
    ) {
        self.count(if is_available { "presences" } else { "ends" });
        self.log(|| format!("{inc:?}: {account} is there {spell}: {is_available}"));
        let word = Word { from: session(account), is_available, is_for_all: true };
        let (to, source) = (self.others(account), Slot::among(account, self.slots));
        let Some(host) = self.hosts.get_mut(&inc) else { return };
        host.node.submit_presence(clock, Some(source), to.into(), word, spell.to_be_bytes().into());
    }

    pub(super) fn answer_probe(&mut self, inc: Incarnation, account: &Arc<str>, bytes: &[u8]) {
        let asker: Arc<str> = String::from_utf8(bytes[8..].to_vec()).expect("text").into();
        let Some(host) = self.hosts.get_mut(&inc) else { return };
        let Some(spell) = host.present.sessions.get(account).copied() else { return };
        let word = Word { from: session(account), is_available: true, is_for_all: false };
        let to = Recipient { slot: Slot::among(&asker, self.slots), account: asker };
        let (source, clock) = (Slot::among(account, self.slots), host.clock(self.now));
        host.node.submit_presence(
            clock,
            Some(source),
            smallvec::smallvec![to],
            word,
            spell.to_be_bytes().into(),
        );
    }

    pub(super) fn hear(&mut self, inc: Incarnation, account: &Arc<str>, word: &Word, bytes: &[u8]) {
        let is_to_all = self.is(Break::EndToAll);
        let Some(host) = self.hosts.get_mut(&inc) else { return };
        let is_there = host.present.sessions.contains_key(account);
        let spell = u64::from_be_bytes(bytes.try_into().expect("a spell"));
        if !word.is_available {
            if !host.present.ledgers.strike(account, None, &word.from) && !is_to_all {
                return;
            }
        } else if is_there {
            host.present.ledgers.note(account, None, &word.from);
        }
        self.tell(inc, account, &word.from, word.is_available.then_some(spell));
    }

    /// What these slots had is lost.
    pub(super) fn sweep(&mut self, inc: Incarnation, lost: &[Slot], only: Option<Slot>) {
        if self.is(Break::NoLedger) {
            return;
        }
        let slots = self.slots;
        let Some(host) = self.hosts.get_mut(&inc) else { return };
        let ends = host.present.ledgers.lose(
            None,
            |from| lost.contains(&Slot::among(bare_of(from), slots)),
            |account| only.is_none_or(|only| only == Slot::among(account, slots)),
        );
        ends.iter().for_each(|end| self.tell(inc, &end.account, &end.from, None));
    }

    fn tell(
        &mut self,
        inc: Incarnation,
        account: &Arc<str>,
        from: &Arc<str>,
        spell: Option<Spell>,
    ) {
        let slot = Slot::among(account, self.slots);
        let Some(host) = self.hosts.get_mut(&inc) else { return };
        if let Some(waiting) = host.present.frozen.get_mut(&slot) {
            // Only ends come to a slot that is frozen.
            return waiting.push((Arc::clone(account), Arc::clone(from)));
        }
        // Whose home is gone does not hear it.
        let session = host.present.sessions.get(account);
        let is_there = session.is_some() && session == self.pictures.truth.get(account);
        if !is_there || host.deposed {
            return;
        }
        self.log(|| format!("{inc:?}: {account} is told of {from}: {spell:?}"));
        if let Some(what) = self.pictures.told(account, from, spell) {
            self.fail(format!("at {inc:?}: {what}"));
        }
    }

    pub(super) fn export_present(&mut self, inc: Incarnation, slot: Slot) -> Vec<u8> {
        let (slots, stays) = (self.slots, self.is(Break::LedgerStays));
        let Some(host) = self.hosts.get_mut(&inc) else { return Vec::new() };
        if stays {
            host.present.ledgers.drop_those(None, |account| Slot::among(account, slots) == slot);
        }
        host.present.export(slot, slots)
    }

    pub(super) fn import_present(&mut self, inc: Incarnation, present: &[u8]) {
        let Some(host) = self.hosts.get_mut(&inc) else { return };
        for (account, from) in host.present.import(present) {
            self.tell(inc, &account, &from, None);
        }
    }

    pub(super) fn thaw_present(&mut self, inc: Incarnation, slot: Slot) {
        let Some(host) = self.hosts.get_mut(&inc) else { return };
        for (account, from) in host.present.frozen.remove(&slot).unwrap_or_default() {
            self.tell(inc, &account, &from, None);
        }
    }

    /// What a slot had is lost, whoever knows of it already.
    pub(super) fn lose_present(&mut self, slot: Slot) {
        let of_slot: Vec<_> =
            self.accounts.iter().filter(|one| one.slot == slot).cloned().collect();
        of_slot.iter().for_each(|one| self.pictures.vanishes(&one.account));
    }
}
