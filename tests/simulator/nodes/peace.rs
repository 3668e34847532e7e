//! Calm moments and the peace at the end: nothing goes wrong any more, and all is to be right.

use std::collections::BTreeSet;
use std::time::Duration;

use xmpp_session::environment::Environment as _;

use super::super::cast::{NODES as ACCOUNTS, seconds};
use super::super::device::{DOMAIN, Device, Stage, Witness as _, wrong_views};
use super::{WINDOW, World};

impl World {
    /// Everything that is on its way arrives.
    fn drain(&mut self) {
        for _ in 0..1000 {
            let mut moved = false;
            for at in 0..self.lines.len() {
                moved |= at < self.lines.len() && self.carry_to_server(at, usize::MAX);
                moved |= at < self.lines.len() && self.carry_to_client(at, usize::MAX);
            }
            let before = self.lines.len();
            self.sweep();
            if !moved && before == self.lines.len() {
                return;
            }
        }
        self.truth.blame("it never comes to rest".to_owned());
    }

    fn rest(&mut self) {
        for _ in 0..6 {
            self.drain();
            self.pass(Duration::from_millis(500));
        }
        self.drain();
    }

    /// A client whose transport is lost to it is lost to the server as well.
    fn hang_up(&mut self) {
        for line in self.lines.iter_mut().filter(|line| !line.is_open) {
            line.driver = None;
        }
        self.settle();
        self.sweep();
    }

    /// Nobody comes back, and nobody does anything but answer.
    fn wait(&mut self, time: Duration) {
        let end = self.all.now() + time;
        while self.all.now() < end {
            self.hang_up();
            self.drain();
            self.pass(seconds(1));
            self.truth.step += 1;
        }
        self.drain();
        self.pass(Duration::from_millis(700));
    }

    /// Whoever leaves is gone, and the sessions of those who are away are over.
    fn expire(&mut self) {
        for _ in 0..60 {
            let mut nodes = self.nodes.iter().flatten();
            if nodes.all(|node| node.leaving.is_none()) || !self.stays_beside(None) {
                return self.wait(WINDOW + seconds(5));
            }
            self.wait(seconds(2));
        }
        self.truth.blame("whoever leaves is still there".to_owned());
    }

    /// What has gone wrong comes to its end, and nothing more goes wrong for a while: what everybody sees is right, long
    /// before everybody is back.
    pub(super) fn calm(&mut self) {
        let is_long = self.random.chance(40);
        self.note(|| format!("calm, until sessions are over: {is_long}"));
        self.cloud.heal();
        self.lines.iter_mut().for_each(|line| line.stalled = 0);
        let trouble = self.trouble_until.saturating_sub(self.all.now());
        self.wait(trouble + seconds(15));
        if is_long {
            self.expire();
        }
        if !self.is_quiet() {
            // A session may have ended just now.
            self.wait(seconds(1));
        }
        self.check_calm(is_long);
        let refused = self.store.operations().1;
        let rosters: Vec<_> = self.devices.iter().map(|device| device.roster.clone()).collect();
        let said = self.converse();
        self.wait(seconds(4));
        self.check_said(&said);
        for (device, before) in self.devices.iter().zip(rosters) {
            let (number, after) = (device.number, &device.roster);
            if before.is_some() && after.is_some() && before != *after {
                self.truth.blame(format!(
                    "calm, device {number} knew the roster {before:?}, which is {after:?}"
                ));
            }
        }
        if self.store.operations().1 != refused {
            self.truth.blame("the store refuses an owner".to_owned());
        }
    }

    /// Everybody who is there says something, asks something, and acknowledges what there was.
    fn converse(&mut self) -> Vec<(usize, String)> {
        let mut said = Vec::new();
        for number in 0..self.devices.len() {
            if self.devices[number].stage != Stage::Ready {
                continue;
            }
            let own = self.devices[number].node;
            let others: Vec<_> = ACCOUNTS.into_iter().filter(|account| *account != own).collect();
            let to = format!("{}@{DOMAIN}", self.random.pick(&others));
            let Self { truth, devices, .. } = self;
            let device = &mut devices[number];
            said.push((number, device.message(&to, false, 1, truth, Some(number))));
            device.query("<query xmlns='jabber:iq:roster'/>");
            device.ask();
            device.acknowledge();
            self.flush(number);
        }
        said
    }

    /// What was said has come, and the other clients of whoever has said it have seen it, if they want copies.
    fn check_said(&mut self, said: &[(usize, String)]) {
        for (number, id) in said {
            let device = &self.devices[*number];
            let wrong = if device.stage != Stage::Ready {
                continue;
            } else if !device.is_settled() {
                vec!["it waits for an answer".to_owned()]
            } else {
                let others = self
                    .devices
                    .iter()
                    .filter(|other| other.node == device.node && other.number != *number);
                let copies = others.map(|other| (other, self.truth.copies_of(id, other.number)));
                let wrong = copies.filter(|(other, copies)| {
                    let is_due = other.stage == Stage::Ready;
                    is_due && *copies != 1 || *copies > 1
                });
                wrong
                    .map(|(other, copies)| {
                        format!("{copies} copies of {id} at device {}", other.number)
                    })
                    .collect()
            };
            for wrong in wrong {
                self.truth.violations.push(format!("calm, device {number}: {wrong}"));
            }
        }
    }

    fn is_quiet(&self) -> bool {
        let mut metrics = self.nodes.iter().flatten().map(|node| node.handle.metrics());
        metrics.all(|metrics| (metrics.link_bytes, metrics.held_bytes) == (0, 0))
    }

    /// Who is there sees all others who are, and nobody who has certainly gone; `is_long`: and nobody else.
    fn check_calm(&mut self, is_long: bool) {
        let here = |device: &&Device| device.stage == Stage::Ready && device.priority.is_some();
        let there = self.devices.iter().filter(here).filter_map(|device| device.jid.clone());
        let there: BTreeSet<_> = there.collect();
        for device in self.devices.iter().filter(here) {
            let number = device.number;
            let sees = |jid: &String| device.view.get(jid) == Some(&true);
            let unseen = |jid: &&String| device.jid.as_ref() != Some(*jid) && !sees(jid);
            let seen = device.view.iter().filter(|(_, is_there)| **is_there).map(|(jid, _)| jid);
            let is_wrong =
                |jid: &&String| !there.contains(*jid) && (is_long || self.truth.is_dead(jid));
            let ghosts: Vec<_> = seen.filter(is_wrong).collect();
            let unseen: Vec<_> = there.iter().filter(unseen).collect();
            if !ghosts.is_empty() || !unseen.is_empty() {
                let what = format!("calm, device {number} sees {ghosts:?}, and not {unseen:?}");
                self.truth.violations.push(what);
            }
        }
        for node in self.nodes.iter().flatten() {
            let metrics = node.handle.metrics();
            let left = (metrics.link_bytes, metrics.held_bytes);
            if left != (0, 0) {
                self.truth.violations.push(format!("calm, bytes on links and held: {left:?}"));
            }
            if is_long && metrics.known > ACCOUNTS.len() * there.len() {
                let (known, all) = (metrics.known, there.len());
                self.truth.violations.push(format!("calm, {known} are known of {all} sessions"));
            }
        }
    }

    fn come_back(&mut self) {
        for device in 0..self.devices.len() {
            if self.devices[device].stage == Stage::Away {
                self.connect(device);
            }
        }
    }

    pub(super) fn finish(&mut self) {
        self.truth.step += 1;
        self.note(|| "peace".to_owned());
        self.cloud.heal();
        for node in self.nodes.iter_mut().flatten() {
            node.access.cut(Duration::ZERO);
            node.access.hold(Duration::ZERO);
            node.paused_until = None;
        }
        for line in &mut self.lines {
            line.stalled = 0;
            if !line.is_open {
                line.driver = None;
            }
        }
        self.settle();
        self.sweep();
        if self.alive().is_empty() {
            self.start(0);
        }
        self.wait(seconds(15));
        self.expire();
        self.check_calm(true);
        // All of them may have been about to leave.
        if self.alive().is_empty() {
            self.start(0);
            self.pass(seconds(20));
        }
        for _ in 0..5 {
            self.rest();
            self.come_back();
            self.truth.step += 1;
        }
        self.rest();
        for device in self.devices.iter().filter(|device| device.stage != Stage::Ready) {
            let (number, stage) = (device.number, device.stage);
            let nodes = self.nodes.iter().flatten();
            let nodes: Vec<_> = nodes.map(|node| (node.process, node.handle.metrics())).collect();
            let what = format!("device {number} is not back, but {stage:?}: {nodes:?}");
            self.truth.violations.push(what);
        }
        for priority in [3, 0] {
            for device in 0..self.devices.len() {
                self.devices[device].available(priority);
                self.flush(device);
            }
            self.rest();
        }
        for _ in 0..2 {
            self.truth.step += 1;
            self.pass(seconds(20));
            self.drain();
            self.come_back();
        }
        for device in 0..self.devices.len() {
            self.devices[device].ask();
            self.devices[device].acknowledge();
            self.flush(device);
        }
        self.rest();
        for device in self.devices.iter().filter(|device| !device.is_settled()) {
            let number = device.number;
            self.truth.violations.push(format!("device {number} waits for acknowledgements"));
        }
        self.truth.settle();
        for node in self.nodes.iter().flatten() {
            let metrics = node.handle.metrics();
            let left = (metrics.link_bytes, metrics.held_bytes);
            if left != (0, 0) {
                self.truth.violations.push(format!("bytes on links and held: {left:?}"));
            }
        }
        self.check_views();
        let counts = self.nodes.iter().flatten().map(|node| node.server.registry().counts());
        let sessions: usize = counts.map(|counts| counts.sessions).sum();
        if sessions != self.devices.len() {
            self.truth.blame(format!("{sessions} sessions"));
        }
        for device in 0..self.devices.len() {
            self.truth.step += 1;
            self.truth.closes(device);
            self.devices[device].close(&mut self.random);
            self.flush(device);
            self.rest();
            self.check_views();
        }
        for node in self.nodes.iter().flatten() {
            let left = node.server.registry().counts().sessions;
            let known = node.handle.metrics().known;
            if (left, known) != (0, 0) {
                let what = format!("left over: {left} sessions, and {known} that are known");
                self.truth.violations.push(what);
            }
        }
    }

    /// Everybody sees exactly those that are there.
    fn check_views(&mut self) {
        self.truth.violations.extend(wrong_views(&self.devices));
    }
}
