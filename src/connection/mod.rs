//! What a host implements for its transports.
//!
//! Most hosts use an [`Outbox`](crate::outbox::Outbox). To write your own, see the complete example in
//! `docs/connection.md`. Tests use a [`Recorder`].

mod recorder;

pub use recorder::Recorder;

use std::sync::Arc;

use crate::stanza::{Frame, Framing};

/// A way to the peer: the one trait that a host has to implement.
///
/// Its methods may be called from any thread, even from inside another call into this crate, and no
/// lock of this crate is held while they run. Never call into this crate while holding a lock that
/// `send` or `close` takes.
///
/// # Examples
///
/// ```
/// use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
/// use xmpp_session::connection::{Close, Connection, SendError};
/// use xmpp_session::stanza::{Frame, Stanza};
///
/// /// The queue of a thread that writes to the transport, and ends it at `None`.
/// #[derive(Clone)]
/// struct Queue(SyncSender<Option<String>>);
///
/// impl Connection for Queue {
///     fn send(&self, frame: Frame<'_>) -> Result<(), SendError> {
///         self.0.try_send(Some(frame.to_string())).map_err(|error| match error {
///             TrySendError::Full(_) => SendError::Full,
///             TrySendError::Disconnected(_) => SendError::Closed,
///         })
///     }
///
///     fn close(&self, _how: Close) {
///         let _gone_already = self.0.try_send(None);
///     }
/// }
///
/// let (queue, frames) = sync_channel(500);
/// Queue(queue).send(Frame::stanza(&Stanza::presence().build()))?;
/// assert_eq!(frames.recv().unwrap().as_deref(), Some("<presence/>"));
/// # Ok::<(), SendError>(())
/// ```
pub trait Connection: Send + Sync + 'static {
    /// Takes one frame for writing, in the order of the calls. Never blocks.
    ///
    /// `Ok` means *accepted*: the connection will write it unless the transport breaks.
    ///
    /// # Errors
    ///
    /// [`SendError::Full`] when enough waits already: a session keeps the frame, and sends it again
    /// once [everything is written](PreDrain::drained). [`SendError::Closed`] when the transport
    /// is gone. In both cases nothing of the frame was taken.
    fn send(&self, frame: Frame<'_>) -> Result<(), SendError>;

    /// Takes frames that belong together, such as a stream error and the end of the stream, in this
    /// order. A connection with a buffer of its own takes all or none, and writes them in one piece.
    ///
    /// # Errors
    ///
    /// As for [`send`](Self::send).
    fn send_all(&self, frames: &[Frame<'_>]) -> Result<(), SendError> {
        frames.iter().try_for_each(|frame| self.send(*frame))
    }

    /// Ends the transport. Idempotent; a later [`Close::Abort`] overrides an earlier flush.
    fn close(&self, how: Close);

    /// Bytes accepted and not yet taken by the transport. A connection that reports this reports
    /// [`written`](Self::written) too.
    fn waiting(&self) -> usize {
        0
    }

    /// Bytes the transport has taken since the connection was made. A peer is too slow when
    /// something is [`waiting`](Self::waiting) and this has not moved for 60 seconds ([LIMIT-13](crate::rules#limit-13)).
    fn written(&self) -> u64 {
        0
    }

    /// How this transport delimits elements.
    fn framing(&self) -> Framing {
        Framing::Stream
    }

    /// Called once when a server takes the connection: a connection with its own buffer calls
    /// [`hook.pre_drain`](PreDrain::pre_drain) just before each write, so that trailing data travels
    /// in that write. It may drop the hook, and should when it is closed.
    fn on_drain(&self, hook: Arc<dyn PreDrain>) {
        drop(hook);
    }
}

/// Called by a buffering connection just before buffered bytes are handed to the transport.
///
/// Implemented by this crate, called by hosts: once per write and at any time, with no lock held that
/// [`Connection::send`] takes.
pub trait PreDrain: Send + Sync {
    /// May send through the session, or hand frames to `out`: both become part of the write that is
    /// about to happen, the latter behind all else. Hands out nothing once the stream has got its close
    /// tag.
    fn pre_drain(&self, out: &mut dyn FnMut(Frame<'_>));

    /// Called by a buffering connection, with no such lock held, when the transport has taken everything
    /// that was accepted: if more waits for the client than a connection holds, the next part follows.
    /// Without this call it follows on the client's next bytes, or within a second.
    fn drained(&self) {}
}

/// Why a frame was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a connection has these two ways to refuse; hosts match on both"
)]
pub enum SendError {
    /// The connection takes no more bytes for now.
    #[error("the connection takes no more bytes")]
    Full,
    /// The transport is gone.
    #[error("the connection is closed")]
    Closed,
}

/// How to end a transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "to flush or not is the whole question")]
pub enum Close {
    /// Write what was accepted, then end.
    Flush,
    /// End now and drop what was accepted.
    Abort,
}

/// A [`Connection`] that can be shared: a clone leads to the same peer. An [`Arc`] of any connection
/// is one.
pub trait SharedConnection: Connection + Clone {}

impl<T: Connection + Clone> SharedConnection for T {}

impl<T: Connection + ?Sized> Connection for Arc<T> {
    fn send(&self, frame: Frame<'_>) -> Result<(), SendError> {
        (**self).send(frame)
    }

    fn send_all(&self, frames: &[Frame<'_>]) -> Result<(), SendError> {
        (**self).send_all(frames)
    }

    fn close(&self, how: Close) {
        (**self).close(how);
    }

    fn waiting(&self) -> usize {
        (**self).waiting()
    }

    fn written(&self) -> u64 {
        (**self).written()
    }

    fn framing(&self) -> Framing {
        (**self).framing()
    }

    fn on_drain(&self, hook: Arc<dyn PreDrain>) {
        (**self).on_drain(hook);
    }
}
