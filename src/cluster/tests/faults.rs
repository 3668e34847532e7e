//! What goes wrong in the [world](super::world).

use std::sync::Arc;

use super::world::{Event, MS, PEACE, Time, World};
use crate::cluster::record::Record;
use crate::cluster::view::Slot;

#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    Kill(usize),
    /// The process stops; `before`: between what it has checked and what it does.
    Pause(usize, Time, bool),
    /// From the engine.
    Cut(usize, Time),
    /// The way to the engine, for all.
    Slow(Time),
    EnginePause(Time),
    EngineRestart,
    /// All, or what was written last.
    EngineForgets(bool),
    /// All nodes and the engine.
    PowerCut,
    StoreSlow(Time),
    Leave(usize),
    /// A second process of the same name.
    Twin(usize),
    Whim(usize),
}

impl World {
    /// Something happens, and often something else in its wake.
    pub(super) fn trouble(&mut self, at: Time) {
        let name = self.random.below(self.names);
        let mut long = || {
            let most = self.random.pick(&[100, 600, 2_500, 5_000]);
            (10 + self.random.below(most) as u64) * MS
        };
        let long = [long(), long()];
        let before = self.random.chance(50);
        let fault = match self.random.below(100) {
            0..14 => Fault::Kill(name),
            14..32 => Fault::Pause(name, long[0], before),
            32..42 => Fault::Cut(name, long[0]),
            42..52 => {
                // Cut off until just before its deadline, then slow to reach the engine, and stopped when the
                // deadline comes.
                let nearly = 2_000 * MS - self.range(0, 500) * MS;
                let stopped = Fault::Pause(name, self.range(20, 500) * MS, before);
                self.at((at + nearly).min(PEACE), Event::Fault(stopped));
                self.at((at + nearly / 2).min(PEACE), Event::Fault(Fault::Slow(2_000 * MS)));
                Fault::Cut(name, nearly - self.range(0, 100) * MS)
            }
            52..55 => Fault::EnginePause(long[0]),
            55..60 => Fault::EngineRestart,
            60..70 => {
                // Some hear of that only when the wait for them is nearly over.
                for _ in 0..self.random.below(3) {
                    let name = self.random.below(self.names);
                    let (then, long) = (at + self.range(0, 600) * MS, self.range(800, 2_200) * MS);
                    self.at(then.min(PEACE), Event::Fault(Fault::Cut(name, long)));
                }
                Fault::EngineForgets(self.random.chance(60))
            }
            70..72 => Fault::PowerCut,
            72..80 => Fault::StoreSlow(long[0]),
            80..86 => {
                // It is taken for dead, and a second one of its name is started.
                let then = (at + self.range(1, 500) * MS).min(PEACE);
                self.at(then, Event::Fault(Fault::Twin(name)));
                Fault::Pause(name, long[0], before)
            }
            86..90 => Fault::Leave(name),
            _ => Fault::Whim(name),
        };
        self.at(at, Event::Fault(fault));
        if self.random.chance(40) {
            let soon = self.random.pick(&[10, 60, 400]);
            let at = (at + self.range(0, soon) * MS).min(PEACE);
            let name = self.random.below(self.names);
            let fault = match self.random.below(8) {
                0..2 => Fault::Kill(name),
                2..4 => Fault::Pause(name, long[1], true),
                4 => Fault::Cut(name, long[1]),
                5 => Fault::EngineForgets(true),
                _ => Fault::Whim(name),
            };
            self.at(at, Event::Fault(fault));
        }
    }

    pub(super) fn fault(&mut self, fault: Fault) {
        self.log(|| format!("fault {fault:?}"));
        let named =
            |name: usize| self.hosts.iter().find(|(_, h)| h.name == name).map(|(inc, _)| *inc);
        match fault {
            Fault::Kill(name) => {
                if let Some(inc) = named(name) {
                    self.count("killed");
                    self.mourn(inc);
                    self.gone(inc);
                }
            }
            Fault::Pause(name, long, before) => {
                let long = long.min(PEACE.saturating_sub(self.now));
                let Some(inc) = named(name) else { return };
                let Some(host) = self.hosts.get_mut(&inc).filter(|host| !host.paused) else {
                    return;
                };
                if before {
                    host.pause_next = Some(long);
                } else {
                    host.paused = true;
                    self.at(self.now + long, Event::Resume(inc));
                }
            }
            Fault::Cut(name, long) => {
                let long = long.min(PEACE.saturating_sub(self.now));
                let Some(inc) = named(name) else { return };
                self.hosts.entry(inc).and_modify(|host| host.cut = true);
                self.at(self.now + long, Event::Heal(inc));
            }
            Fault::Slow(long) => self.slow_until = (self.now + long).min(PEACE),
            Fault::EnginePause(long) => self.engine_until = (self.now + long).min(PEACE),
            Fault::EngineRestart => {
                let record = self.engine.record().cloned();
                self.engine_restarts(record);
            }
            Fault::EngineForgets(all) => {
                let record = self.snapshot.take().filter(|_| !all);
                self.engine_restarts(record);
            }
            Fault::PowerCut => {
                self.engine_restarts(None);
                for inc in self.hosts.keys().copied().collect::<Vec<_>>() {
                    self.mourn(inc);
                    self.gone(inc);
                }
            }
            Fault::StoreSlow(long) => self.store_until = (self.now + long).min(PEACE),
            Fault::Leave(name) => {
                if let Some(host) = self.hosts.values_mut().find(|host| host.name == name) {
                    host.node.leave(false);
                }
            }
            Fault::Twin(name) => self.start(name),
            Fault::Whim(name) => {
                let slot = Slot(self.random.below(self.slots.into()) as u16);
                let Some(to) = named(name) else { return };
                self.hosts.values_mut().for_each(|host| host.node.set_whim(slot, to));
            }
        }
    }

    fn engine_restarts(&mut self, record: Option<Arc<Record>>) {
        self.count("restarts of the engine");
        self.instances += 1;
        self.engine.restart(self.instances.to_string().into(), record);
        self.epoch += 1;
        self.engine_until = (self.now + self.range(1, 300) * MS).min(PEACE);
        for inc in self.hosts.keys().copied().collect::<Vec<_>>() {
            self.post_again(inc);
        }
    }
}
