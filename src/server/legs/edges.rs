//! The edge: it moves bytes between its sockets and the homes of their accounts.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use parking_lot::Mutex;

use super::{Adoption, SaidUp};
use crate::cluster::Slot;
use crate::cluster::leg::{Down, EdgeEnd, Ending, Up};
use crate::connection::{SendError, SharedConnection};
use crate::outbox::message;
use crate::server::driver::admission::Dismissal;
use crate::shield::{shielded, shielded_or};
use crate::stanza::canonical;
use crate::stanza::{Frame, Framing};
use crate::stream::{Limit, StreamCondition, StreamError};

/// The clients of this node that have authenticated here.
pub(in crate::server) struct Edges<C: SharedConnection> {
    state: Mutex<State<C>>,
    /// Whoever drives the node has something to take.
    wake: Box<dyn Fn() + Send + Sync>,
}

struct State<C: SharedConnection> {
    lines: HashMap<u64, Arc<Line<C>>>,
    last: u64,
    said: Vec<SaidUp>,
    /// Those that have something to say which can wait, and since when.
    untold: Vec<Arc<Line<C>>>,
    untold_since: Option<Duration>,
    /// Nothing begins any more.
    dismissal: Option<Dismissal>,
}

/// A client's line to its home.
pub(in crate::server) struct Line<C: SharedConnection> {
    edges: Arc<Edges<C>>,
    slot: Slot,
    leg: u64,
    connection: C,
    framing: Framing,
    state: Mutex<LineState>,
}

#[derive(Default)]
struct LineState {
    end: EdgeEnd,
    /// How much the client has taken in all, where the home was not told.
    untold: Option<u64>,
    /// How much it had taken when that was so first.
    untold_from: u64,
    /// For the client, in order.
    output: VecDeque<Output>,
    /// Somebody is handing it to the connection.
    is_writing: bool,
    /// The connection is full: what is left of the output waits until it takes more.
    is_full: bool,
    /// Nothing more goes either way.
    is_over: bool,
    has_shown: bool,
    /// The home has closed the stream, and waits for the client to do so.
    is_closing: bool,
    /// It has done with it: what the client has not taken is not its any more (BOT-4).
    is_ended: bool,
    ending: Option<Ending>,
    /// The host's connection has panicked, with this message, and nobody was told yet.
    panicked: Option<Option<String>>,
    news: News,
    waker: Option<Waker>,
}

enum Output {
    /// From here on it was not taken yet.
    Piece(Arc<[u8]>, usize, Option<Ending>),
    /// Those of the edge itself.
    Words(Vec<Vec<u8>>),
    Closed {
        is_flushed: bool,
    },
}

/// What the driver is to know.
#[derive(Clone, Default)]
pub(in crate::server) struct News {
    /// The home has said something for the client.
    pub(in crate::server) has_shown: bool,
    /// The stream has a session.
    pub(in crate::server) is_bound: bool,
    /// The client cannot have what it asked for.
    pub(in crate::server) is_refused: bool,
    /// The home has closed the stream.
    pub(in crate::server) is_ended: bool,
    /// The transport is to be closed, flushed or not.
    pub(in crate::server) closed: Option<bool>,
    /// The host's connection has panicked, with this message: told once.
    pub(in crate::server) panicked: Option<Option<String>>,
    /// It is to be, behind what the connection has not taken yet.
    pub(in crate::server) is_ending: bool,
    /// The edge closes the stream with this.
    pub(in crate::server) dismissal: Option<Dismissal>,
}

impl<C: SharedConnection> Edges<C> {
    pub(in crate::server) fn new(wake: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        let (lines, said) = (HashMap::new(), Vec::new());
        let (untold, untold_since) = (Vec::new(), None);
        let state = State { lines, last: 0, said, untold, untold_since, dismissal: None };
        Arc::new(Self { state: Mutex::new(state), wake: Box::new(wake) })
    }

    /// A client has authenticated.
    pub(in crate::server) fn open(
        self: &Arc<Self>,
        connection: C,
        adoption: &Adoption,
    ) -> Arc<Line<C>> {
        let slot = Slot::of(adoption.account.as_str());
        let framing = connection.framing();
        let mut state = self.state.lock();
        state.last += 1;
        let (leg, edges) = (state.last, Arc::clone(self));
        let news = News { dismissal: state.dismissal.clone(), ..News::default() };
        let line_state = Mutex::new(LineState { news, ..LineState::default() });
        let line = Arc::new(Line { edges, slot, leg, connection, framing, state: line_state });
        state.lines.insert(leg, Arc::clone(&line));
        drop(state);
        line.say(Up::Open(adoption.encode()));
        line
    }

    /// What has been said since, in its order.
    pub(in crate::server) fn take_said(&self, now: Duration) -> Vec<SaidUp> {
        let mut state = self.state.lock();
        if !state.untold.is_empty()
            && state.untold_since.get_or_insert(now).saturating_add(WAITS) <= now
        {
            let untold = std::mem::take(&mut state.untold);
            state.untold_since = None;
            drop(state);
            untold.iter().for_each(|line| line.tell());
            state = self.state.lock();
        }
        std::mem::take(&mut state.said)
    }

    /// When there is something to take, though nobody says so.
    pub(in crate::server) fn next_timeout(&self) -> Option<Duration> {
        self.state.lock().untold_since.map(|since| since + WAITS)
    }

    /// How many there are.
    pub(in crate::server) fn len(&self) -> usize {
        self.state.lock().lines.len()
    }

    /// A home says something.
    pub(in crate::server) fn handle_down(&self, leg: u64, number: u64, said: Down) {
        let line = self.state.lock().lines.get(&leg).cloned();
        if let Some(line) = line {
            line.heard(number, said);
        }
    }

    /// Nobody knows what was taken of it (NODE-10).
    pub(in crate::server) fn broken(&self, leg: u64) {
        let line = self.state.lock().lines.get(&leg).cloned();
        if let Some(line) = line {
            line.dismiss(&lost());
        }
    }

    /// The home of these accounts is lost, with all that it had (NODE-13).
    pub(in crate::server) fn lost(&self, slot: Slot) {
        self.dismiss_those(&lost(), |line| line.slot == slot);
    }

    /// The node acts no more: all are lost, and those that come.
    pub(in crate::server) fn lose_all(&self) {
        self.dismiss_all(&lost());
    }

    /// Closes the stream of one whose home has not; `false` where there is none.
    pub(in crate::server) fn dismiss_one(&self, dismissal: &Dismissal) -> bool {
        let mut lines = self.state.lock().lines.values().cloned().collect::<Vec<_>>().into_iter();
        let next = lines.find(|line| {
            let state = line.state.lock();
            !state.is_closing && state.news.dismissal.is_none()
        });
        next.iter().for_each(|line| line.dismiss(dismissal));
        next.is_some()
    }

    /// Closes the streams of all, and of those that come.
    pub(in crate::server) fn dismiss_all(&self, dismissal: &Dismissal) {
        self.state.lock().dismissal = Some(dismissal.clone());
        self.dismiss_those(dismissal, |_| true);
    }

    fn dismiss_those(&self, dismissal: &Dismissal, those: impl Fn(&Line<C>) -> bool) {
        let lines = self.state.lock().lines.values().cloned().collect::<Vec<_>>();
        lines.iter().filter(|line| those(line)).for_each(|line| line.dismiss(dismissal));
    }

    /// This one can wait; whether it is the first.
    fn wait(&self, line: &Line<C>) -> bool {
        let mut state = self.state.lock();
        let Some(line) = state.lines.get(&line.leg).cloned() else { return false };
        state.untold.push(line);
        state.untold.len() == 1
    }

    fn forget(&self, leg: u64) {
        let gone = self.state.lock().lines.remove(&leg);
        drop(gone);
    }
}

/// For so long, about, a home may think that a client has not taken what it has: there is a lot to tell together then.
const WAITS: Duration = Duration::from_millis(20);
/// Not where it is so many bytes: a home that waits for them would say no more.
const MUCH: u64 = 16 << 10;

/// What the clients of a home are told that is lost.
fn lost() -> Dismissal {
    StreamError::new(StreamCondition::SystemShutdown).into()
}

impl<C: SharedConnection> Line<C> {
    fn say(&self, said: Up) {
        let mut state = self.state.lock();
        if state.is_over {
            return;
        }
        self.tell_in(&mut state);
        state.is_over = said == Up::Gone;
        if let Up::Input(bytes) = &said {
            state.end.gives(bytes.len());
        }
        self.push(state.end.says(), said);
        drop(state);
        (self.edges.wake)();
    }

    fn push(&self, number: u64, said: Up) {
        let said = SaidUp { slot: self.slot, leg: self.leg, number, said };
        self.edges.state.lock().said.push(said);
    }

    /// The client has said this.
    pub(in crate::server) fn input(&self, unread: &[u8]) {
        self.say(Up::Input(unread.into()));
    }

    /// A sign of life.
    #[cfg(feature = "websocket")]
    pub(in crate::server) fn alive(&self, bytes: usize) {
        self.say(Up::Alive(u32::try_from(bytes).unwrap_or(u32::MAX)));
    }

    pub(in crate::server) fn end_of_input(&self) {
        self.say(Up::EndOfInput);
    }

    /// The client, a bot, has taken so many stanzas; `false` where the last one is not its any more.
    pub(in crate::server) fn handled(&self, stanzas: u32) -> bool {
        self.say(Up::Handled(stanzas));
        !self.is_ended()
    }

    /// Whether the home has closed the stream.
    pub(in crate::server) fn is_ended(&self) -> bool {
        self.state.lock().is_ended
    }

    /// The client, a bot, closes its stream and is gone: the home does the rest.
    pub(in crate::server) fn hang_up(&self) {
        self.input(CLOSE);
        self.state.lock().is_over = true;
        self.edges.forget(self.leg);
    }

    /// The transport is lost, or its end is the edge's own business. Nothing goes either way from here on.
    pub(in crate::server) fn gone(&self) {
        self.say(Up::Gone);
        self.edges.forget(self.leg);
    }

    /// The connection may take more of what it was too full for.
    pub(in crate::server) fn go_on(&self) {
        if std::mem::take(&mut self.state.lock().is_full) {
            self.write();
        }
    }

    /// Tells how much the client has taken; `true` if it has not taken all.
    pub(in crate::server) fn report(&self) -> bool {
        let shown = self.state.lock().end.shown();
        let waiting = shielded(|| self.connection.waiting()).unwrap_or_default();
        let mut state = self.state.lock();
        let (is_over, is_full) = (state.is_over, state.is_full);
        let before = state.end.taken();
        let taken = state.end.takes(shown, waiting).filter(|_| !is_over);
        let Some(taken) = taken else { return waiting > 0 || is_full };
        let is_first = state.untold.replace(taken).is_none();
        state.untold_from = if is_first { before } else { state.untold_from };
        let wakes = if taken - state.untold_from >= MUCH {
            self.tell_in(&mut state);
            true
        } else {
            is_first && self.edges.wait(self)
        };
        drop(state);
        if wakes {
            (self.edges.wake)();
        }
        waiting > 0 || is_full
    }

    /// Says what was not said yet.
    fn tell(&self) {
        self.tell_in(&mut self.state.lock());
    }

    fn tell_in(&self, state: &mut LineState) {
        if let Some(taken) = state.untold.take().filter(|_| !state.is_over) {
            self.push(state.end.says(), Up::Taken(taken));
        }
    }

    /// Whether more may be read of the client.
    pub(in crate::server) fn may_give(&self) -> bool {
        self.state.lock().end.may_give()
    }

    /// What is new, and who is to be told of more.
    pub(in crate::server) fn poll(&self, cx: Option<&Context<'_>>) -> News {
        let mut state = self.state.lock();
        let old = match cx {
            Some(cx) => state.waker.replace(cx.waker().clone()),
            None => None,
        };
        let panicked = state.panicked.take();
        let (has_shown, is_ended) = (state.has_shown, state.is_ended);
        let news = News { has_shown, is_ended, panicked, ..state.news.clone() };
        drop(state);
        drop(old);
        news
    }

    fn heard(&self, number: u64, said: Down) {
        let mut state = self.state.lock();
        if state.is_over {
            return;
        }
        let is_end = matches!(said, Down::Closed { .. });
        if !is_end && state.end.hears(number).is_err() {
            drop(state);
            return self.dismiss(&lost());
        }
        let mut is_broken = false;
        match said {
            Down::Output { bytes, ending } => {
                state.has_shown = true;
                state.is_closing |= ending.is_some();
                state.is_ended |= ending.is_some();
                state.output.push_back(Output::Piece(bytes, 0, ending));
            }
            Down::Read(read) => is_broken = state.end.reads(read).is_err(),
            Down::Bound => state.news.is_bound = true,
            Down::Refused => {
                state.news.is_refused = true;
                state.is_over = true;
            }
            Down::Closed { is_flushed } => {
                (state.is_over, state.is_ended) = (true, true);
                state.news.is_ending = true;
                if !is_flushed && state.is_full {
                    // Whoever takes nothing is not waited for.
                    state.output.clear();
                    state.is_full = false;
                }
                state.output.push_back(Output::Closed { is_flushed });
            }
        }
        let is_over = state.is_over;
        drop(state);
        if is_over {
            self.edges.forget(self.leg);
        }
        match is_broken {
            true => self.dismiss(&lost()),
            false => self.write(),
        }
        self.wake();
    }

    fn dismiss(&self, dismissal: &Dismissal) {
        let mut state = self.state.lock();
        if state.is_over {
            return;
        }
        state.news.dismissal.get_or_insert_with(|| dismissal.clone());
        drop(state);
        self.wake();
    }

    fn wake(&self) {
        let waker = self.state.lock().waker.take();
        if let Some(waker) = waker {
            shielded(|| waker.wake());
        }
    }

    /// The edge's own words, behind what the home has said so far; none where that has closed the stream.
    pub(in crate::server) fn end_with(&self, words: &[Frame<'_>]) {
        if self.state.lock().is_closing {
            return;
        }
        let words = words.iter().map(|frame| {
            let mut bytes = Vec::with_capacity(256);
            frame.framing(self.framing).write_to(&mut bytes);
            bytes
        });
        let words = words.collect();
        self.state.lock().output.push_back(Output::Words(words));
        self.write();
    }

    /// Hands what waits to the connection, in order, whoever brought it; without the lock.
    fn write(&self) {
        let mut state = self.state.lock();
        if state.is_writing || state.is_full {
            return;
        }
        state.is_writing = true;
        while let Some(mut output) = state.output.pop_front() {
            if let Output::Piece(_, _, ending @ Some(_)) = &output {
                state.ending = *ending;
            }
            let ending = state.ending;
            if let Output::Closed { is_flushed } = output {
                state.news.closed = Some(is_flushed);
                continue;
            }
            drop(state);
            let mut panicked = None;
            let told = |message| panicked = Some(message);
            let taken = shielded_or(|| self.hand_over(&mut output, ending), told);
            state = self.state.lock();
            state.panicked = panicked.or_else(|| state.panicked.take());
            match taken {
                Some((taken, sent)) => {
                    state.end.shows(taken);
                    match sent {
                        Ok(()) => {}
                        Err(SendError::Full) => {
                            state.output.push_front(output);
                            state.is_full = true;
                            break;
                        }
                        Err(SendError::Closed) => state.news.closed = Some(false),
                    }
                }
                None => state.news.closed = Some(false),
            }
        }
        state.is_writing = false;
        let is_closed = state.news.closed.is_some();
        drop(state);
        if is_closed {
            self.wake();
        }
    }

    /// How much of it the connection has taken.
    fn hand_over(
        &self,
        output: &mut Output,
        ending: Option<Ending>,
    ) -> (usize, Result<(), SendError>) {
        let send = |frame: Frame<'_>| self.connection.send(frame.framing(self.framing));
        match (output, self.framing) {
            (Output::Closed { .. }, _) => (0, Ok(())),
            // One that is full when the edge closes its stream does not hear of it.
            (Output::Words(words), _) => {
                let sent = words.iter().try_for_each(|word| send(Frame::element(word)));
                (0, sent.map_err(|_| SendError::Closed))
            }
            (Output::Piece(bytes, ..), Framing::Stream) => {
                let sent = send(Frame::element(bytes));
                (if sent.is_ok() { bytes.len() } else { 0 }, sent)
            }
            (Output::Piece(bytes, from, _), _) => {
                let mut rest = bytes.get(*from..).unwrap_or_default();
                let (before, mut sent) = (rest.len(), Ok(()));
                while sent.is_ok() {
                    let mut behind = rest;
                    let Some(message) = message::take(&mut behind) else { break };
                    sent = send_message(message, ending, send);
                    if sent.is_ok() {
                        rest = behind;
                    }
                }
                let taken = before - rest.len();
                *from += taken;
                (taken, sent)
            }
        }
    }
}

/// Sends one message. How a WebSocket is closed depends on what it was closed with.
fn send_message(
    message: &[u8],
    ending: Option<Ending>,
    send: impl Fn(Frame<'_>) -> Result<(), SendError>,
) -> Result<(), SendError> {
    let child = canonical::element(message).filter(|_| ending.is_some());
    let uri = child.as_ref().and_then(|child| child.attribute("see-other-uri"));
    let content = message.strip_prefix(ERROR).and_then(|rest| rest.strip_suffix(ERROR_END));
    match (ending, uri, content) {
        (Some(_), Some(uri), _) if message.starts_with(b"<close ") => send(Frame::moved(&uri)),
        (Some(Ending { condition: Some(condition), is_too_long }), _, Some(content)) => {
            let limit = is_too_long.then_some(Limit::ElementBytes);
            let error = StreamError::as_written(condition, limit, content);
            send(Frame::error(&error))
        }
        _ => send(Frame::element(message)),
    }
}

const CLOSE: &[u8] = b"</stream:stream>";
const ERROR: &[u8] = b"<stream:error xmlns:stream='http://etherx.jabber.org/streams'>";
const ERROR_END: &[u8] = b"</stream:error>";
