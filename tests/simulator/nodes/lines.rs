//! Transports, and what clients do over them.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use xmpp_session::environment::Environment as _;
use xmpp_session::outbox::{Marks, Outbox};
use xmpp_session::server::Transport;

use super::super::cast::NODES as ACCOUNTS;
use super::super::device::{DOMAIN, Stage};
use super::{Bell, Line, Weather, World};

impl World {
    /// The transports to a node that is no more, which are [swept](Self::sweep) away later. One that leaves may have lost
    /// them before.
    pub(super) fn drop_lines(&mut self, at: usize) {
        let since = self.lost_at(at);
        for line in &mut self.lines {
            if line.node != at {
                continue;
            }
            line.driver = None;
            line.up.clear();
            if std::mem::take(&mut line.is_open) {
                self.truth.away_since(line.device, since);
                self.devices[line.device].lost(&mut self.truth);
            }
        }
    }

    /// Some bytes reach one end of some transport.
    pub(super) fn deliver(&mut self) {
        if self.lines.is_empty() {
            return;
        }
        let first = self.random.below(self.lines.len());
        let some = match self.random.below(10) {
            0 => 1 + self.random.below(30),
            1..4 => 1 + self.random.below(400),
            _ => self.piece,
        };
        let up = self.random.chance(50);
        let count = self.lines.len();
        for at in (first..count).chain(0..first) {
            if self.lines[at].stalled > self.truth.step {
                continue;
            }
            if up && self.carry_to_server(at, some) || self.carry_to_client(at, some) {
                break;
            }
        }
        self.sweep();
    }

    pub(super) fn is_paused(&self, node: usize) -> bool {
        self.nodes[node].as_ref().is_none_or(|node| node.paused_until.is_some())
    }

    pub(super) fn carry_to_server(&mut self, at: usize, most: usize) -> bool {
        if self.is_paused(self.lines[at].node) {
            return false;
        }
        let line = &mut self.lines[at];
        let most = most.min(line.up.len());
        if most == 0 || !line.takes_input {
            return false;
        }
        let Some(driver) = &mut line.driver else { return false };
        let bytes: Vec<u8> = line.up.drain(..most).collect();
        driver.receive(&bytes);
        line.bell.ring();
        let (device, node) = (line.device, line.node);
        self.note(|| format!("device {device} -> {node}: {}", String::from_utf8_lossy(&bytes)));
        self.settle();
        true
    }

    pub(super) fn carry_to_client(&mut self, at: usize, most: usize) -> bool {
        if self.is_paused(self.lines[at].node) || !self.lines[at].is_open {
            return false;
        }
        let line = &mut self.lines[at];
        let (device, node) = (line.device, line.node);
        let mut is_over = false;
        let bytes = match line.drain.poll_fill(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => Vec::new(),
            Poll::Ready(None) => {
                is_over = true;
                Vec::new()
            }
            Poll::Ready(Some(bytes)) => bytes[..most.min(bytes.len())].to_vec(),
        };
        if !bytes.is_empty() {
            line.drain.consume(bytes.len());
            line.bell.ring();
            self.note(|| format!("device {device} <- {node}: {}", String::from_utf8_lossy(&bytes)));
            let Self { devices, truth, random, nodes, lines, weather, .. } = self;
            let before = devices[device].jid.clone();
            let stage = devices[device].stage;
            // In a storm any node may be lost, to all but its clients.
            let is_storm = *weather == Weather::Storm;
            let leaves = |line: &&Line| {
                is_storm || nodes[line.node].as_ref().is_none_or(|node| node.leaving.is_some())
            };
            truth.sent_away = lines.iter().filter(leaves).map(|line| line.device).collect();
            devices[device].receive(&bytes, Some(device), truth, random);
            let is_lost = stage != Stage::Away && devices[device].stage == Stage::Away;
            if devices[device].jid != before {
                truth.is_called(device, devices[device].jid.clone());
            }
            if is_lost && stage == Stage::Ready {
                self.sent_away(at);
            } else if is_lost {
                truth.away(device);
            }
            self.flush(device);
            self.settle();
        }
        let line = &mut self.lines[at];
        let is_over = is_over || line.driver.is_none();
        if line.is_open && is_over && bytes.is_empty() {
            line.is_open = false;
            self.note(|| format!("device {device} reads the end"));
            if self.devices[device].stage == Stage::Ready {
                self.sent_away(at);
            }
            self.devices[device].lost(&mut self.truth);
        } else if self.devices[device].stage == Stage::Away {
            line.is_open = false;
        }
        !bytes.is_empty()
    }

    /// Since when a transport to a node may be lost that is lost now.
    fn lost_at(&self, node: usize) -> Duration {
        let node = self.nodes[node].as_ref().filter(|node| node.leaving.is_some());
        node.map_or_else(|| self.all.now(), |node| node.leaves_since)
    }

    /// The stream of a client that had a session ends, and it did not want that. Who is connected to a node that stays
    /// sees nothing of what moves.
    fn sent_away(&mut self, at: usize) {
        let line = &self.lines[at];
        let is_leaving = self.nodes[line.node].as_ref().is_none_or(|node| node.leaving.is_some());
        let device = line.device;
        self.truth.away_since(device, self.lost_at(line.node));
        let is_over = line.is_cut || self.truth.is_closing(device);
        if !is_leaving && !is_over && self.weather != Weather::Storm {
            self.truth.violations.push(format!("the stream of device {device} ends"));
        }
    }

    /// What a device has written goes on its way.
    pub(super) fn flush(&mut self, device: usize) {
        let at = self.lines.iter().position(|line| line.device == device && line.is_open);
        let bytes = std::mem::take(&mut self.devices[device].out);
        self.devices[device].marks.clear();
        if let Some(at) = at {
            self.lines[at].up.extend(bytes);
        }
    }

    /// Forgets transports of which nothing is left.
    pub(super) fn sweep(&mut self) {
        self.lines.retain(|line| line.driver.is_some() || line.is_open);
    }

    pub(super) fn reconnect(&mut self) {
        let device = self.random.below(self.devices.len());
        if self.devices[device].stage != Stage::Away {
            return;
        }
        if self.random.chance(6) {
            self.note(|| format!("device {device} forgets"));
            self.devices[device].forget(&mut self.truth);
        }
        self.connect(device);
    }

    pub(super) fn connect(&mut self, device: usize) {
        let alive: Vec<_> = self.alive().into_iter().filter(|at| !self.is_paused(*at)).collect();
        if alive.is_empty() {
            return;
        }
        let node = self.random.pick(&alive);
        let Some(process) = &self.nodes[node] else { return };
        let (outbox, drain) = Outbox::new(Marks::default());
        let driver = process.server.accept(outbox, Transport::new().secure(true));
        self.note(|| format!("device {device} connects to node {node}"));
        self.lines.push(Line {
            node,
            driver: Some(driver),
            bell: Bell::new(),
            drain,
            device,
            up: VecDeque::new(),
            is_open: true,
            is_cut: false,
            stalled: 0,
            takes_input: true,
        });
        self.truth.back(device);
        self.devices[device].connected(&mut self.random);
        self.flush(device);
        self.settle();
    }

    pub(super) fn cut_line(&mut self) {
        if self.lines.is_empty() {
            return;
        }
        let at = self.random.below(self.lines.len());
        let (ways, part) = (self.random.below(3), self.random.below(1 << 16));
        let line = &mut self.lines[at];
        let device = line.device;
        let (client, server) = [(true, true), (true, false), (false, true)][ways];
        if server {
            line.driver = None;
            line.is_cut = true;
            line.up.clear();
        }
        let was_open = line.is_open;
        if client {
            line.is_open = false;
            let left = part % (line.up.len() + 1);
            line.up.truncate(left);
        }
        self.note(|| format!("line {at} of device {device} is cut: {ways}"));
        self.truth.ended(device);
        self.truth.away(device);
        if client && self.devices[device].stage != Stage::Ready {
            self.truth.is_haunted(device);
        }
        if client && was_open {
            self.devices[device].lost(&mut self.truth);
        }
        self.settle();
        self.sweep();
    }

    /// A client does something.
    pub(super) fn talk(&mut self) {
        let ready = self.devices.iter().filter(|device| device.stage == Stage::Ready);
        let ready: Vec<_> = ready.map(|device| device.number).collect();
        if ready.is_empty() {
            return;
        }
        let number = self.random.pick(&ready);
        let Self { random, truth, devices, .. } = self;
        match random.below(100) {
            0..60 => {
                let account = random.pick(&ACCOUNTS);
                let full: Vec<_> = devices.iter().filter_map(|device| device.jid.clone()).collect();
                let to = match random.below(10) {
                    0..5 => format!("{account}@{DOMAIN}"),
                    5..9 if !full.is_empty() => full[random.below(full.len())].clone(),
                    _ => format!("{account}@{DOMAIN}/one"),
                };
                let normal = random.chance(30);
                let padding = if random.chance(10) { random.below(900) } else { 1 };
                devices[number].message(&to, normal, padding, truth, Some(number));
            }
            60..74 => {
                let priority = random.pick(&[-1, 0, 0, 0, 1, 5]);
                devices[number].available(priority);
            }
            74..77 => {
                truth.ended(number);
                devices[number].unavailable();
            }
            77..82 => {
                devices[number].query("<ping xmlns='urn:xmpp:ping'/>");
            }
            82..84 => {
                devices[number].query("<query xmlns='jabber:iq:roster'/>");
            }
            84..86 => {
                let own = devices[number].node;
                let contact = random.pick(&ACCOUNTS);
                if contact != own {
                    devices[number].rename(contact);
                }
            }
            86..90 => devices[number].ask(),
            90..96 => devices[number].acknowledge(),
            96..98 => {
                truth.closes(number);
                devices[number].close(random);
            }
            _ => {}
        }
        self.flush(number);
    }
}
