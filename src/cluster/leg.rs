//! A client's stream between its edge, which has the socket, and the home of its account (NODE-12, NODE-13).
//!
//! ```text
//!  socket ──▶ edge ── Up: input, within credits ────────────▶ home ── Driver, adopted
//!                     Up: how much the client has taken       │
//!  socket ◀── edge ◀── Down: output ──────────────────────────┘
//!                      Down: how much was read (credits)
//! ```
//!
//! Both ways are numbered. Neither side waits for the other, but for credits: the edge may have given so many bytes that
//! were not read, and what the home has shown and the client has not taken waits in the home's books.

use std::fmt;
use std::sync::Arc;

use super::view::Incarnation;
use crate::stanza::StreamCondition;

/// Bytes of a client that its edge may be ahead of its home.
pub(crate) const WINDOW: u64 = 64 * 1024;

/// Its edge, and its number there, which is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LegId {
    pub(crate) edge: Incarnation,
    pub(crate) number: u64,
}

/// What an edge tells a home.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Up {
    /// A client has proved who it is; with all that is known of its stream.
    Open(Arc<[u8]>),
    /// Bytes of the client, unread, with what a parser of messages knows of their edges.
    Input(Arc<[u8]>),
    /// So many bytes of framing: a sign of life.
    Alive(u32),
    /// The client has taken so many bytes of output in all.
    Taken(u64),
    /// The client sends no more.
    EndOfInput,
    /// The transport is lost.
    Gone,
    /// The client, a bot, has taken so many stanzas in all.
    Handled(u32),
}

/// What a home tells an edge.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Down {
    /// Whole elements for the client, each behind its length where each is a message; and how they close the stream, if
    /// they do.
    Output { bytes: Arc<[u8]>, ending: Option<Ending> },
    /// So many bytes of input have been read in all.
    Read(u64),
    /// The stream has a session.
    Bound,
    /// The client cannot have what it asked for together with its authentication, and nothing has happened.
    Refused,
    /// The transport is to be closed: behind the output, or at once.
    Closed { is_flushed: bool },
}

/// How a stream was closed by its home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    /// The error, if there was one.
    pub(crate) condition: Option<StreamCondition>,
    /// An element was too long.
    pub(crate) is_too_long: bool,
}

impl Ending {
    /// Its number: never nought, which is none.
    pub(crate) fn number(self) -> u16 {
        let at = StreamCondition::ALL.iter().position(|one| Some(*one) == self.condition);
        let at = at.and_then(|at| u16::try_from(at + 1).ok()).unwrap_or_default();
        1 + 2 * at + u16::from(self.is_too_long)
    }

    /// `None`: there is none of this number.
    pub(crate) fn of(number: u16) -> Option<Self> {
        let number = usize::from(number.checked_sub(1)?);
        let condition = match (number / 2).checked_sub(1) {
            Some(at) => Some(*StreamCondition::ALL.get(at)?),
            None => None,
        };
        Some(Self { condition, is_too_long: number % 2 == 1 })
    }
}

/// It came out of its order, or says what cannot be: the leg is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken;

/// The edge's books of a leg.
#[derive(Debug, Default)]
pub(crate) struct EdgeEnd {
    said: u64,
    heard: u64,
    given: u64,
    read: u64,
    shown: u64,
    taken: u64,
}

impl EdgeEnd {
    /// The number of what is said next.
    pub(crate) fn says(&mut self) -> u64 {
        self.said += 1;
        self.said - 1
    }

    /// Something came from the home.
    pub(crate) fn hears(&mut self, number: u64) -> Result<(), Broken> {
        next(&mut self.heard, number)
    }

    /// So many bytes of the client are given to the home.
    pub(crate) fn gives(&mut self, bytes: usize) {
        self.given = self.given.saturating_add(bytes as u64);
    }

    /// Whether more may be read of the client.
    pub(crate) const fn may_give(&self) -> bool {
        self.given.saturating_sub(self.read) < WINDOW
    }

    /// The home has read so many in all.
    pub(crate) fn reads(&mut self, read: u64) -> Result<(), Broken> {
        advance(&mut self.read, read, self.given).map(|_| ())
    }

    /// So many bytes go to the client.
    pub(crate) fn shows(&mut self, bytes: usize) {
        self.shown = self.shown.saturating_add(bytes as u64);
    }

    /// How many have gone to the client in all.
    pub(crate) const fn shown(&self) -> u64 {
        self.shown
    }

    /// How many it has taken, as far as is known.
    pub(crate) const fn taken(&self) -> u64 {
        self.taken
    }

    /// What is to be told of how much the client has taken. `waiting`: what its connection has not taken, of all that
    /// had gone there by then, of which `shown` was output.
    pub(crate) fn takes(&mut self, shown: u64, waiting: usize) -> Option<u64> {
        let taken = shown.saturating_sub(waiting as u64);
        if taken <= self.taken {
            return None;
        }
        self.taken = taken;
        Some(taken)
    }
}

/// The home's books of a leg. They go along when it moves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HomeEnd {
    pub(super) said: u64,
    pub(super) heard: u64,
    pub(super) given: u64,
    pub(super) read: u64,
    pub(super) shown: u64,
    pub(super) taken: u64,
}

impl HomeEnd {
    /// Its numbers, in their order.
    pub(crate) const fn numbers(&self) -> [u64; 6] {
        [self.said, self.heard, self.given, self.read, self.shown, self.taken]
    }

    /// The books that these numbers are of.
    pub(crate) const fn of([said, heard, given, read, shown, taken]: [u64; 6]) -> Self {
        Self { said, heard, given, read, shown, taken }
    }

    /// The number of what is said next.
    pub(crate) fn says(&mut self) -> u64 {
        self.said += 1;
        self.said - 1
    }

    /// Something came from the edge.
    pub(crate) fn hears(&mut self, number: u64) -> Result<(), Broken> {
        next(&mut self.heard, number)
    }

    /// So many bytes of the client have come.
    pub(crate) fn comes(&mut self, bytes: usize) {
        self.given = self.given.saturating_add(bytes as u64);
    }

    /// All but `unread` of what has come is read. What is to be told: often enough that the edge never waits for what
    /// was read.
    pub(crate) fn reads(&mut self, unread: usize) -> Option<u64> {
        let read = self.given.saturating_sub(unread as u64);
        if read.saturating_sub(self.read) < WINDOW / 2 {
            return None;
        }
        self.read = read;
        Some(read)
    }

    /// So many bytes go to the edge.
    pub(crate) fn shows(&mut self, bytes: usize) {
        self.shown = self.shown.saturating_add(bytes as u64);
    }

    /// The client has taken so many in all; so many more than were known.
    pub(crate) fn takes(&mut self, taken: u64) -> Result<usize, Broken> {
        let more = advance(&mut self.taken, taken, self.shown)?;
        usize::try_from(more).map_err(|_| Broken)
    }
}

fn next(heard: &mut u64, number: u64) -> Result<(), Broken> {
    if *heard != number {
        return Err(Broken);
    }
    *heard += 1;
    Ok(())
}

/// A sum that grows, and never over `most`.
fn advance(known: &mut u64, now: u64, most: u64) -> Result<u64, Broken> {
    if now < *known || now > most {
        return Err(Broken);
    }
    Ok(now - std::mem::replace(known, now))
}

impl fmt::Debug for Up {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open(_) => "Open",
            Self::Input(_) => "Input",
            Self::Alive(_) => "Alive",
            Self::Taken(_) => "Taken",
            Self::EndOfInput => "EndOfInput",
            Self::Gone => "Gone",
            Self::Handled(_) => "Handled",
        })
    }
}

impl fmt::Debug for Down {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Output { .. } => "Output",
            Self::Read(_) => "Read",
            Self::Bound => "Bound",
            Self::Refused => "Refused",
            Self::Closed { .. } => "Closed",
        })
    }
}

impl Up {
    /// The bytes in it.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Open(bytes) | Self::Input(bytes) => bytes.len(),
            _ => 0,
        }
    }
}

impl Down {
    /// The bytes in it.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Output { bytes, .. } => bytes.len(),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_13_what_comes_out_of_its_order_breaks_the_leg() {
        let (mut edge, mut home) = (EdgeEnd::default(), HomeEnd::default());
        assert_eq!([edge.says(), edge.says(), edge.says()], [0, 1, 2]);
        assert_eq!(home.hears(0), Ok(()));
        assert_eq!(home.hears(2), Err(Broken), "one is missing");
        assert_eq!(home.hears(0), Err(Broken), "it was here");
        assert_eq!(home.hears(1), Ok(()));
        assert_eq!([home.says(), home.says()], [0, 1]);
        assert_eq!(edge.hears(1), Err(Broken));
        assert_eq!(edge.hears(0), Ok(()));
    }

    #[test]
    fn node_12_an_edge_is_never_further_ahead_than_its_credits_and_never_waits_for_what_was_read() {
        let (mut edge, mut home) = (EdgeEnd::default(), HomeEnd::default());
        for round in 0..1000 {
            let piece = 1 + round * 37 % 9000;
            let mut ahead = 0;
            while edge.may_give() {
                edge.gives(piece);
                home.comes(piece);
                ahead += piece as u64;
                assert!(ahead < WINDOW + piece as u64, "it stops");
            }
            // It is read in two steps, and the first one may be too small to be told.
            let told = home.reads(1).into_iter().chain(home.reads(0));
            told.for_each(|read| assert_eq!(edge.reads(read), Ok(())));
            assert!(edge.may_give(), "all was read: {edge:?} {home:?}");
        }
    }

    #[test]
    fn node_12_nothing_is_told_of_every_byte() {
        let mut home = HomeEnd::default();
        let told = (0..10_000).filter_map(|_| {
            home.comes(100);
            home.reads(0)
        });
        assert_eq!(told.count() as u64, 1_000_000 / (WINDOW / 2 + 32));
    }

    #[test]
    fn node_12_the_home_knows_what_the_client_has_taken() {
        let (mut edge, mut home) = (EdgeEnd::default(), HomeEnd::default());
        home.shows(500);
        edge.shows(500);
        // 100 bytes that the edge has written itself wait in front of it.
        assert_eq!(edge.takes(500, 600), None);
        assert_eq!(edge.takes(500, 500), None);
        assert_eq!(edge.takes(500, 200), Some(300));
        assert_eq!(edge.takes(500, 250), None, "it is told of once");
        assert_eq!(home.takes(300), Ok(300));
        assert_eq!(edge.takes(500, 0), Some(500));
        assert_eq!(home.takes(500), Ok(200));
    }

    #[test]
    fn node_13_sums_that_cannot_be_break_the_leg() {
        let (mut edge, mut home) = (EdgeEnd::default(), HomeEnd::default());
        edge.gives(10);
        assert_eq!(edge.reads(11), Err(Broken));
        assert_eq!(edge.reads(10), Ok(()));
        assert_eq!(edge.reads(9), Err(Broken));
        home.shows(10);
        assert_eq!(home.takes(11), Err(Broken));
        assert_eq!(home.takes(10), Ok(10));
        assert_eq!(home.takes(9), Err(Broken));
    }
}
