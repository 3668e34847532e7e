//! What accounts say to each other in the [world](super::world), and how it travels.

use std::sync::Arc;
use std::time::Duration;

use super::world::{Event, MS, PEACE, Time, World};
use crate::cluster::frame::{Receipt, Recipient};
use crate::cluster::view::{Incarnation, Slot};

impl World {
    /// The accounts of a slot say something.
    pub(super) fn speak(&mut self, inc: Incarnation, clock: Duration, slot: Slot) {
        if self.now >= PEACE {
            return;
        }
        let of_slot = |one: &&Recipient| one.slot == slot;
        let speakers: Vec<_> = self.accounts.iter().filter(of_slot).cloned().collect();
        for from in speakers {
            let times = if self.random.chance(1) { 30 } else { self.random.below(3) };
            for _ in 0..times {
                let others = 1 + if self.random.chance(20) { self.random.below(3) } else { 0 };
                let mut to: Vec<Recipient> = Vec::new();
                for _ in 0..others {
                    let one = self.random.below(self.accounts.len());
                    let one = self.accounts[one].clone();
                    if !to.contains(&one) {
                        to.push(one);
                    }
                }
                let (number, bytes) = self.messages.next(&from.account, self.random.below(80));
                for one in &to {
                    self.messages.sent(number, &one.account, false);
                }
                let Some(host) = self.hosts.get_mut(&inc) else { return };
                let names: Vec<_> = to.iter().map(|one| Arc::clone(&one.account)).collect();
                let submitted =
                    host.node.submit(clock, slot, to.into(), bytes.into(), Receipt::default());
                self.log(|| format!("{inc:?}: {} says {number} to {names:?}", from.account));
                for one in &submitted.bounced {
                    self.messages.sent(number, &one.account, true);
                }
                if submitted.is_pressed && self.random.chance(70) {
                    break;
                }
            }
        }
    }

    /// An account does what is next for it.
    pub(super) fn do_next(&mut self, inc: Incarnation, clock: Duration, account: &Arc<str>) {
        let Some(host) = self.hosts.get_mut(&inc) else { return };
        let next = host.jobs.get(account).and_then(|jobs| jobs.front()).cloned();
        let Some((bytes, work)) = next else { return };
        if !host.node.may_act(clock) {
            return;
        }
        let is_done = host.node.does(work.job);
        if is_done {
            host.node.finish(clock, work);
        }
        // Until its slot is open it waits. What is of an earlier stay is nobody's.
        if is_done || !host.node.has(work.job) {
            host.jobs.entry(Arc::clone(account)).and_modify(|jobs| drop(jobs.pop_front()));
        }
        if is_done {
            let number = bytes.first_chunk().map(|number| u64::from_be_bytes(*number));
            self.log(|| format!("{inc:?}: {account} gets {number:?}"));
        }
        let Some(host) = self.hosts.get_mut(&inc) else { return };
        let is_more = host.jobs.get(account).is_some_and(|jobs| !jobs.is_empty());
        if is_done && let Some(what) = self.messages.received(&bytes, account) {
            self.fail(format!("at {inc:?}: {what}"));
        }
        if is_more {
            let at = self.now + self.work_delay();
            self.at(at, Event::Do(inc, Arc::clone(account)));
        }
    }

    pub(super) fn work_delay(&mut self) -> Time {
        let most = if self.random.chance(5) { 60 } else { 4 };
        self.range(0, most) * MS + 100
    }

    pub(super) fn post(&mut self, from: Incarnation, to: Incarnation, post: Arc<[u8]>) {
        let Some(host) = self.hosts.get_mut(&from) else { return };
        host.recent.push_back((to, Arc::clone(&post)));
        if host.recent.len() > 3 {
            host.recent.pop_front();
        }
        let is_cut = host.cut;
        if is_cut || self.random.chance(self.loss) {
            return;
        }
        let delay = self.delay();
        let last = self.fifo.entry((from, to)).or_default();
        *last = (self.now.max(self.engine_until) + delay).max(*last + 1);
        let at = *last;
        self.at(at, Event::Post(to, post, self.epoch));
    }

    /// A connection begins anew, with what was posted last.
    pub(super) fn post_again(&mut self, inc: Incarnation) {
        let recent = self.hosts.get(&inc).map(|host| host.recent.clone()).unwrap_or_default();
        recent.into_iter().for_each(|(to, post)| self.post(inc, to, post));
    }

    /// What only a home had that has died is lost; what others had sent to it may come twice.
    pub(super) fn mourn(&mut self, inc: Incarnation) {
        let Some(host) = self.hosts.get_mut(&inc) else { return };
        if std::mem::replace(&mut host.deposed, true) {
            return;
        }
        // Stopped before it handed them out, or before it heard that it is over.
        let taken = host.node.handed_out().chain(host.node.void.iter().cloned());
        let frames: Vec<_> = host.node.frames().chain(taken).collect();
        let jobs = host.jobs.clone();
        frames.iter().for_each(|frame| self.messages.at_risk(frame, true, |_| true));
        for (account, jobs) in &jobs {
            for (bytes, work) in jobs {
                // Whoever sent it has it still.
                let sender = work.from().and_then(|from| self.hosts.get(&from));
                let is_lost = sender.is_none_or(|host| host.deposed);
                self.messages.job_at_risk(bytes, account, is_lost);
            }
        }
        for host in self.hosts.values() {
            let sent = host.node.waiting_for(inc);
            sent.for_each(|frame| self.messages.at_risk(&frame, false, |_| true));
        }
    }

    /// The same of one slot, whose node lives on.
    pub(super) fn mourn_slot(&mut self, inc: Incarnation, slot: Slot) {
        let Some(host) = self.hosts.get(&inc) else { return };
        for (account, jobs) in &host.jobs {
            for (bytes, work) in jobs.iter().filter(|(_, work)| work.job.slot == slot) {
                self.messages.job_at_risk(bytes, account, work.from().is_none());
            }
        }
        for host in self.hosts.values() {
            let sent = host.node.waiting_for(inc);
            sent.for_each(|frame| self.messages.at_risk(&frame, false, |to| to == slot));
        }
    }
}
