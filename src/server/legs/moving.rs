//! The clients of a slot as they move with it (NODE-14): their drivers, what was not read, what was not taken.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::SaidDown;
use super::homes::{Home, Homes, Input};
use crate::cluster::leg::{Down, HomeEnd, LegId};
use crate::cluster::{Incarnation, Slot};
use crate::connection::{Close, SharedConnection};
use crate::outbox::{Drain, Marks, Outbox};
use crate::packed::{Reader, Writer};
use crate::server::driver::Driver;
use crate::server::export::{Arrived, Leaving, Leg};
use crate::session::{HostCode, NotAnExport, SessionHandle, SessionId};

/// A leg without its driver.
struct Line {
    id: LegId,
    end: HomeEnd,
    is_bound: bool,
    last: Down,
    input: VecDeque<Input>,
    outbox: Arc<Outbox>,
    drain: Drain,
}

impl<C: SharedConnection> Homes<C> {
    /// All of a slot that stands still, as they are; they stay. `None`: one still waits for something.
    pub(in crate::server) fn export(&mut self, slot: Slot) -> Option<Leaving> {
        let mut leaving = Leaving::default();
        for id in self.of_slot(slot).collect::<Vec<_>>() {
            let Some(home) = self.homes.get_mut(&id) else { continue };
            if !home.driver.is_settled() {
                return None;
            }
            let line = home.line(id);
            let session = home.driver.session().map(SessionHandle::id);
            if let Some((session, driver)) = session.zip(home.driver.export()) {
                leaving.legs.push(Leg { session, line, driver });
            } else if let Some(driver) = home.driver.export_unbound() {
                leaving.unbound.push((line, driver));
            } else {
                leaving.over.push(line);
            }
        }
        Some(leaving)
    }

    /// Takes what has come with a slot, by what makes of it what lives here.
    pub(in crate::server) fn import(
        &mut self,
        slot: Slot,
        import: impl FnOnce(
            &mut dyn FnMut(SessionId, &[u8]) -> Option<C>,
        ) -> Result<Arrived<C>, NotAnExport>,
    ) -> Result<(), NotAnExport> {
        let (marks, mut lines) = (self.marks, BTreeMap::new());
        let (core, make) = (Arc::clone(&self.core), self.connect);
        let connect = |line: &Line| {
            core.shielded(HostCode::Connection, None, || make(Arc::clone(&line.outbox)))
        };
        let mut take = |session, line: &[u8]| {
            let line = Line::read(line, marks)?;
            let connection = connect(&line)?;
            lines.insert(session, line);
            Some(connection)
        };
        let Arrived { going_on, unbound, over } = import(&mut take)?;
        for Leg { session, driver, .. } in going_on {
            if let Some(line) = lines.remove(&session) {
                self.put(line.id, line.with(slot, driver));
            }
        }
        for (line, unbound) in unbound {
            let Some(line) = Line::read(&line, marks) else { continue };
            match connect(&line) {
                Some(connection) => {
                    let driver = Driver::adopted_again(Arc::clone(&core), connection, unbound);
                    self.put(line.id, line.with(slot, driver));
                }
                None => self.part(slot, line),
            }
        }
        let over = over.iter().filter_map(|line| Line::read(line, marks));
        for line in over.chain(lines.into_values()) {
            self.part(slot, line);
        }
        Ok(())
    }

    /// A stream that is over: its edge is told what its client was to be told still.
    fn part(&mut self, slot: Slot, mut line: Line) {
        let nobody = &mut Context::from_waker(Waker::noop());
        let (mut end, leg) = (line.end, line.id);
        let mut say = |said| self.said.push(SaidDown { slot, leg, number: end.says(), said });
        while let Poll::Ready(Some((bytes, ending))) = line.drain.poll_take(nobody) {
            say(Down::Output { bytes: bytes.into(), ending });
        }
        say(line.last);
    }
}

impl<C: SharedConnection> Home<C> {
    /// All but its driver.
    fn line(&self, id: LegId) -> Vec<u8> {
        let mut out = Writer::default();
        out.number(id.edge.0);
        out.number(id.number);
        self.end.numbers().into_iter().for_each(|number| out.number(number));
        out.flag(self.is_bound);
        out.flag(self.driver.is_refused_here());
        out.flag(self.drain.closed() == Some(Close::Abort));
        out.count(self.input.len());
        for input in &self.input {
            out.option(input.bytes(), Writer::bytes);
        }
        self.drain.export(&mut out);
        out.into_bytes()
    }
}

/// Whether a leg could go on from that.
pub(in crate::server) fn is_line(bytes: &[u8]) -> bool {
    Line::read(bytes, Marks::default()).is_some()
}

fn read_id(input: &mut Reader<'_>) -> Option<LegId> {
    Some(LegId { edge: Incarnation::new(input.number()?), number: input.number()? })
}

impl Line {
    fn read(bytes: &[u8], marks: Marks) -> Option<Self> {
        let mut input = Reader::new(bytes);
        let id = read_id(&mut input)?;
        let mut number = || input.number();
        let end = [number()?, number()?, number()?, number()?, number()?, number()?];
        let (is_bound, is_refused, is_aborted) = (input.flag()?, input.flag()?, input.flag()?);
        let last = match is_refused {
            true => Down::Refused,
            false => Down::Closed { is_flushed: !is_aborted },
        };
        let waiting = input.list(|input| {
            let bytes = input.option(Reader::bytes)?;
            Some(bytes.map_or(Input::End, |bytes| Input::Bytes(bytes.into())))
        })?;
        let (outbox, drain) = Outbox::import_leg(marks, &mut input)?;
        let (end, input) = (HomeEnd::of(end), waiting.into());
        Some(Self { id, end, is_bound, last, input, outbox, drain })
    }

    /// The leg, with its driver.
    fn with<C: SharedConnection>(self, slot: Slot, driver: Driver<C>) -> Home<C> {
        let Self { end, is_bound, input, drain, .. } = self;
        Home { slot, driver, drain, end, input, is_bound, due: None }
    }
}
