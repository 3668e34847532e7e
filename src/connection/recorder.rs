use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Close, Connection, PreDrain, SendError};
use crate::outbox::{FromOutbox, Outbox};
use crate::stanza::{Frame, Framing};

/// A connection for tests: it keeps what was sent, and refuses when told to. Clones share one record.
///
/// ```
/// use xmpp_session::connection::{Close, Connection, Recorder, SendError};
/// use xmpp_session::stanza::Frame;
///
/// let connection = Recorder::new();
/// connection.send(Frame::element(b"<r xmlns='urn:xmpp:sm:3'/>"))?;
/// assert_eq!(connection.take(), ["<r xmlns='urn:xmpp:sm:3'/>"]);
///
/// connection.refuse(Some(SendError::Full));
/// assert_eq!(connection.send(Frame::element(b"<a/>")), Err(SendError::Full));
///
/// connection.close(Close::Flush);
/// assert_eq!(connection.closed(), Some(Close::Flush));
/// # Ok::<(), SendError>(())
/// ```
#[derive(Clone, Default)]
pub struct Recorder {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    framing: Framing,
    frames: Vec<String>,
    refuse: Option<SendError>,
    closed: Option<Close>,
    waiting: usize,
    written: u64,
    on_send: Option<Arc<OnSend>>,
    pre_drain: Option<Arc<dyn PreDrain>>,
    /// It stands for this one, and records nothing.
    outbox: Option<Arc<Outbox>>,
}

type OnSend = dyn Fn(&str) + Send + Sync;

impl Recorder {
    /// A recorder that accepts everything.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One of a transport that delimits elements in this way.
    #[must_use]
    pub fn with_framing(framing: Framing) -> Self {
        let recorder = Self::new();
        recorder.state.lock().framing = framing;
        recorder
    }

    /// The frames accepted since the last call, each as one string, in the order of the calls. Those
    /// that [belong together](Connection::send_all) are one string, unless each is a message.
    #[must_use = "the frames are gone from the record"]
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().frames)
    }

    /// Acts as a write does: calls the pre-drain hook, then takes the frames. Those that the hook
    /// appends are the last ones.
    #[must_use = "the frames are gone from the record"]
    pub fn drain(&self) -> Vec<String> {
        let (hook, framing) = {
            let state = self.state.lock();
            (state.pre_drain.clone(), state.framing)
        };
        let mut trailing = Vec::new();
        if let Some(hook) = hook {
            hook.pre_drain(&mut |frame| trailing.push(frame.framing(framing).to_string()));
        }
        let mut frames = self.take();
        frames.append(&mut trailing);
        frames
    }

    /// Says that everything is written: calls [`PreDrain::drained`].
    pub fn drained(&self) {
        let hook = self.state.lock().pre_drain.clone();
        if let Some(hook) = hook {
            hook.drained();
        }
    }

    /// From now on refuses every frame for this reason; `None` accepts again.
    pub fn refuse(&self, why: Option<SendError>) {
        self.state.lock().refuse = why;
    }

    /// How it was closed, or `None` while it is open. An [`Close::Abort`] is never taken back.
    #[must_use]
    pub fn closed(&self) -> Option<Close> {
        self.state.lock().closed
    }

    /// Calls `hook` from inside every `send` that accepts, with the frame just recorded and with no
    /// lock held: it may call back into the crate, even into this recorder.
    pub fn on_send(&self, hook: impl Fn(&str) + Send + Sync + 'static) {
        let old = self.state.lock().on_send.replace(Arc::new(hook));
        drop(old);
    }

    fn outbox(&self) -> Option<Arc<Outbox>> {
        self.state.lock().outbox.clone()
    }

    /// Sets what [`Connection::waiting`] and [`Connection::written`] report, in bytes: a recorder
    /// does not count.
    pub fn set_progress(&self, waiting: usize, written: u64) {
        let mut state = self.state.lock();
        state.waiting = waiting;
        state.written = written;
    }
}

/// For the tests of a host with bots: it passes everything on.
impl FromOutbox for Recorder {
    fn from_outbox(outbox: Arc<Outbox>) -> Self {
        let recorder = Self::new();
        let mut state = recorder.state.lock();
        state.framing = outbox.framing();
        state.outbox = Some(outbox);
        drop(state);
        recorder
    }
}

impl Recorder {
    fn record(&self, text: String) -> Result<(), SendError> {
        let hook = {
            let mut state = self.state.lock();
            if state.closed.is_some() {
                return Err(SendError::Closed);
            }
            if let Some(why) = state.refuse {
                return Err(why);
            }
            state.frames.push(text.clone());
            state.on_send.clone()
        };
        if let Some(hook) = hook {
            hook(&text);
        }
        Ok(())
    }
}

impl Connection for Recorder {
    fn send(&self, frame: Frame<'_>) -> Result<(), SendError> {
        if let Some(outbox) = self.outbox() {
            return outbox.send(frame);
        }
        self.record(frame.framing(self.framing()).to_string())
    }

    fn send_all(&self, frames: &[Frame<'_>]) -> Result<(), SendError> {
        if let Some(outbox) = self.outbox() {
            return outbox.send_all(frames);
        }
        match self.framing() {
            Framing::Stream => self.record(frames.iter().map(Frame::to_string).collect()),
            Framing::Message => frames.iter().try_for_each(|frame| self.send(*frame)),
        }
    }

    fn close(&self, how: Close) {
        if let Some(outbox) = self.outbox() {
            return outbox.close(how);
        }
        let mut state = self.state.lock();
        if state.closed != Some(Close::Abort) {
            state.closed = Some(how);
        }
        // The hook may own the session that owns this connection.
        let hook = state.pre_drain.take();
        drop(state);
        drop(hook);
    }

    fn waiting(&self) -> usize {
        self.outbox().map_or_else(|| self.state.lock().waiting, |outbox| outbox.waiting())
    }

    fn written(&self) -> u64 {
        self.outbox().map_or_else(|| self.state.lock().written, |outbox| outbox.written())
    }

    fn framing(&self) -> Framing {
        self.state.lock().framing
    }

    fn on_drain(&self, hook: Arc<dyn PreDrain>) {
        if let Some(outbox) = self.outbox() {
            return outbox.on_drain(hook);
        }
        let old = self.state.lock().pre_drain.replace(hook);
        drop(old);
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("Recorder")
            .field("frames", &state.frames.len())
            .field("refuse", &state.refuse)
            .field("closed", &state.closed)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Trailer(Recorder);

    impl PreDrain for Trailer {
        fn pre_drain(&self, out: &mut dyn FnMut(Frame<'_>)) {
            self.0.send(Frame::element(b"<sent/>")).unwrap();
            out(Frame::element(b"<appended/>"));
        }
    }

    #[test]
    fn clones_share_frames_refusal_and_close() {
        let a = Recorder::new();
        let b = a.clone();
        a.send(Frame::element(b"<x/>")).unwrap();
        b.refuse(Some(SendError::Full));
        assert_eq!(a.send(Frame::element(b"<y/>")), Err(SendError::Full));
        b.refuse(None);
        a.send(Frame::element(b"<z/>")).unwrap();
        assert_eq!(b.take(), ["<x/>", "<z/>"]);
        assert!(a.take().is_empty());
        b.close(Close::Abort);
        b.close(Close::Flush);
        assert_eq!(a.closed(), Some(Close::Abort));
        assert_eq!(a.send(Frame::element(b"<y/>")), Err(SendError::Closed));
    }

    #[test]
    fn the_send_hook_may_send_and_close() {
        let recorder = Recorder::new();
        let inner = recorder.clone();
        recorder.on_send(move |frame| {
            if frame == "<x/>" {
                inner.send(Frame::element(b"<y/>")).unwrap();
                inner.close(Close::Flush);
            }
        });
        recorder.send(Frame::element(b"<x/>")).unwrap();
        assert_eq!(recorder.take(), ["<x/>", "<y/>"]);
        assert_eq!(recorder.closed(), Some(Close::Flush));
    }

    #[test]
    fn a_drain_ends_with_what_the_hook_adds() {
        let recorder = Recorder::new();
        recorder.on_drain(Arc::new(Trailer(recorder.clone())));
        recorder.send(Frame::element(b"<x/>")).unwrap();
        assert_eq!(recorder.drain(), ["<x/>", "<sent/>", "<appended/>"]);
        recorder.close(Close::Flush);
        assert!(recorder.drain().is_empty(), "a closed recorder has let its hook go");
    }

    #[test]
    fn debug_shows_counts_only() {
        let recorder = Recorder::new();
        recorder.send(Frame::element(b"<secret/>")).unwrap();
        let debug = format!("{recorder:?}");
        assert!(debug.contains("frames: 1") && !debug.contains("secret"), "{debug}");
    }
}
