//! What becomes of messages: each comes once and in order, unless a home died that had it.

use std::collections::BTreeMap;

use crate::cluster::frame::{Body, Frame};
use crate::cluster::view::Slot;

/// A message has a number, above those of all earlier ones, and may have several recipients.
pub(super) type Number = u64;

#[derive(Default)]
struct Fate {
    received: u32,
    bounced: bool,
    /// It may come twice, or late: a home died before it had answered.
    again: bool,
    /// Only a home that died had it.
    excused: bool,
}

#[derive(Default)]
pub(super) struct Messages {
    last: Number,
    fates: BTreeMap<(Number, String), Fate>,
    /// The last one that came from each account to each.
    heard: BTreeMap<(String, String), Number>,
}

/// What is in a stanza: its number and its sender.
fn read(bytes: &[u8]) -> (Number, String) {
    let (number, rest) = bytes.split_first_chunk().expect("a number");
    let from = rest.split(|byte| *byte == b' ').next().expect("a sender");
    (Number::from_be_bytes(*number), String::from_utf8(from.to_vec()).expect("text"))
}

fn of(frame: &Frame) -> Vec<(Number, String, Slot)> {
    let Body::Stanza { to, bytes, .. } = &frame.body else { return Vec::new() };
    let number = read(bytes).0;
    to.iter().map(|one| (number, one.account.to_string(), one.slot)).collect()
}

impl Messages {
    /// The bytes of the next message.
    pub(super) fn next(&mut self, from: &str, padding: usize) -> (Number, Vec<u8>) {
        self.last += 1;
        let text = format!("{from} {}", ".".repeat(padding));
        (self.last, [&self.last.to_be_bytes()[..], text.as_bytes()].concat())
    }

    pub(super) fn sent(&mut self, number: Number, to: &str, bounced: bool) {
        self.fates.entry((number, to.to_owned())).or_default().bounced = bounced;
    }

    /// What is wrong with it, if anything is.
    pub(super) fn received(&mut self, bytes: &[u8], to: &str) -> Option<String> {
        let (number, from) = read(bytes);
        let fate = self.fates.entry((number, to.to_owned())).or_default();
        fate.received += 1;
        let last = self.heard.entry((from, to.to_owned())).or_default();
        let is_late = number <= *last;
        *last = number.max(*last);
        match (fate.again, fate.received > 1, is_late) {
            (false, true, _) => Some(format!("message {number} comes to {to} twice")),
            (false, _, true) => Some(format!("message {number} comes to {to} behind {last}")),
            _ => None,
        }
    }

    /// These may come again; and not at all, where they are `lost`.
    pub(super) fn at_risk(&mut self, frame: &Frame, lost: bool, meant: impl Fn(Slot) -> bool) {
        for (number, to, slot) in of(frame) {
            if let Some(fate) = self.fates.get_mut(&(number, to)).filter(|_| meant(slot)) {
                fate.again = true;
                fate.excused |= lost;
            }
        }
    }

    /// The same of one that somebody was about to handle.
    pub(super) fn job_at_risk(&mut self, bytes: &[u8], to: &str, lost: bool) {
        if let Some(fate) = self.fates.get_mut(&(read(bytes).0, to.to_owned())) {
            fate.again = true;
            fate.excused |= lost;
        }
    }

    pub(super) fn unaccounted(&self) -> Option<String> {
        let is_lost = |fate: &Fate| fate.received == 0 && !fate.bounced && !fate.excused;
        let lost = self.fates.iter().find(|(_, fate)| is_lost(fate));
        lost.map(|((number, to), _)| format!("message {number} to {to} is lost"))
    }

    pub(super) fn tally(&self, counts: &mut BTreeMap<&'static str, u64>) {
        let count =
            |is: fn(&Fate) -> bool| self.fates.values().filter(|fate| is(fate)).count() as u64;
        counts.insert("messages", self.fates.len() as u64);
        counts.insert("messages received", count(|fate| fate.received > 0));
        counts.insert("messages received again", count(|fate| fate.received > 1));
        counts.insert("messages bounced", count(|fate| fate.bounced));
        counts
            .insert("messages lost with a home", count(|fate| fate.received == 0 && fate.excused));
    }
}
