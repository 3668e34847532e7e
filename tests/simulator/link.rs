//! The server's end of a transport, in memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use xmpp_session::connection::{Close, Connection, PreDrain, SendError};
use xmpp_session::stanza::Frame;

use super::splitter::attribute;
use super::spy::Spy;

/// A connection with a buffer of its own. What it has accepted is written by [`Link::write`].
#[derive(Clone)]
pub struct Link(Arc<Mutex<Line>>, Spy);

struct Line {
    accepted: Vec<u8>,
    /// On its way to the client.
    flight: VecDeque<u8>,
    capacity: usize,
    written: u64,
    closed: Option<Close>,
    hook: Option<Arc<dyn PreDrain>>,
    /// Stream management has begun on this transport.
    protected: bool,
    /// Messages accepted before that: nobody promises that they arrive.
    unprotected: Vec<String>,
}

impl Link {
    pub fn new(capacity: usize, spy: Spy) -> Self {
        let line = Arc::new(Mutex::new(Line {
            accepted: Vec::new(),
            flight: VecDeque::new(),
            capacity,
            written: 0,
            closed: None,
            hook: None,
            protected: false,
            unprotected: Vec::new(),
        }));
        Self(line, spy)
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on it takes whatever comes.
    pub fn widen(&self) {
        self.line().capacity = usize::MAX;
    }

    pub fn is_closed(&self) -> bool {
        self.line().closed.is_some()
    }

    /// Whether the host is to end the transport now.
    pub fn is_aborted(&self) -> bool {
        self.line().closed == Some(Close::Abort)
    }

    /// Whether a write has something to do.
    pub fn has_accepted(&self) -> bool {
        !self.line().accepted.is_empty()
    }

    pub fn in_flight(&self) -> usize {
        self.line().flight.len()
    }

    /// What the host's write loop does.
    pub fn write(&self) {
        let hook = self.line().hook.clone();
        let mut trailing = Vec::new();
        if let Some(hook) = &hook {
            hook.pre_drain(&mut |frame| frame.write_to(&mut trailing));
        }
        {
            let mut line = self.line();
            let mut bytes = std::mem::take(&mut line.accepted);
            bytes.extend(trailing);
            line.written += bytes.len() as u64;
            line.flight.extend(bytes);
        }
        if let Some(hook) = hook {
            hook.drained();
        }
    }

    /// The next bytes that reach the client.
    pub fn arrive(&self, most: usize) -> Vec<u8> {
        let mut line = self.line();
        let most = most.min(line.flight.len());
        line.flight.drain(..most).collect()
    }

    pub fn take_unprotected(&self) -> Vec<String> {
        std::mem::take(&mut self.line().unprotected)
    }
}

impl Connection for Link {
    fn send(&self, frame: Frame<'_>) -> Result<(), SendError> {
        self.1.interrupt();
        let mut line = self.line();
        if line.closed.is_some() {
            return Err(SendError::Closed);
        }
        if line.accepted.len() + frame.len() > line.capacity {
            return Err(SendError::Full);
        }
        let start = line.accepted.len();
        frame.write_to(&mut line.accepted);
        let text = String::from_utf8_lossy(&line.accepted[start..]).into_owned();
        if text.starts_with("<enabled ") || text.starts_with("<resumed ") {
            line.protected = true;
        } else if !line.protected && text.starts_with("<message") {
            line.unprotected.extend(attribute(&text, "id").map(str::to_owned));
        }
        Ok(())
    }

    fn close(&self, how: Close) {
        self.1.interrupt();
        let mut line = self.line();
        if how == Close::Abort {
            line.accepted.clear();
        }
        if line.closed != Some(Close::Abort) {
            line.closed = Some(how);
        }
        let hook = line.hook.take();
        drop(line);
        drop(hook);
    }

    fn waiting(&self) -> usize {
        self.line().accepted.len()
    }

    fn written(&self) -> u64 {
        self.line().written
    }

    fn on_drain(&self, hook: Arc<dyn PreDrain>) {
        self.line().hook = Some(hook);
    }
}
