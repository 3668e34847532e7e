//! The clients of a slot as they move with it (NODE-14): their drivers, what was not read, what was not taken.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::SaidDown;
use super::homes::{CLOSED, Home, Homes, Input};
use crate::cluster::leg::{HomeEnd, LegId};
use crate::cluster::{Incarnation, Slot};
use crate::connection::SharedConnection;
use crate::outbox::{Drain, Marks, Outbox};
use crate::packed::{Reader, Writer};
use crate::server::export::{Arrived, Leaving, Leg};
use crate::session::{HostCode, NotAnExport, SessionHandle, SessionId};

/// A leg without its driver.
struct Line {
    id: LegId,
    end: HomeEnd,
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
            match session.zip(home.driver.export()) {
                Some((session, driver)) => leaving.legs.push(Leg { session, line, driver }),
                None => leaving.broken.push(line),
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
        let (marks, connect, mut lines) = (self.marks, self.connect, BTreeMap::new());
        let core = Arc::clone(&self.core);
        let mut take = |session, line: &[u8]| {
            let line = Line::read(line, marks)?;
            let connect = || connect(Arc::clone(&line.outbox));
            let connection = core.shielded(HostCode::Connection, None, connect)?;
            lines.insert(session, line);
            Some(connection)
        };
        let Arrived { going_on, broken } = import(&mut take)?;
        for Leg { session, driver, .. } in going_on {
            let Some(Line { id, end, input, drain, .. }) = lines.remove(&session) else { continue };
            let (is_bound, due) = (true, None);
            self.put(id, Home { slot, driver, drain, end, input, is_bound, due });
        }
        let broken = broken.iter().filter_map(|line| read_id(&mut Reader::new(line)));
        for leg in broken.chain(lines.into_values().map(|line| line.id)) {
            self.said.push(SaidDown { slot, leg, number: u64::MAX, said: CLOSED });
        }
        Ok(())
    }
}

impl<C: SharedConnection> Home<C> {
    /// All but its driver.
    fn line(&self, id: LegId) -> Vec<u8> {
        let mut out = Writer::default();
        out.number(id.edge.0);
        out.number(id.number);
        self.end.numbers().into_iter().for_each(|number| out.number(number));
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
        let waiting = input.list(|input| {
            let bytes = input.option(Reader::bytes)?;
            Some(bytes.map_or(Input::End, |bytes| Input::Bytes(bytes.into())))
        })?;
        let (outbox, drain) = Outbox::import_leg(marks, &mut input)?;
        let (end, input) = (HomeEnd::of(end), waiting.into());
        Some(Self { id, end, input, outbox, drain })
    }
}
