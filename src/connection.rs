//! What a host implements for its transports.

use std::sync::Arc;

use crate::stanza::{Frame, Framing};

/// A way to the peer: the one trait that a host has to implement.
///
/// Both methods may be called from any thread, also from inside another call into this crate, and
/// no lock of this crate is held while they run. Never call into this crate while holding a lock
/// that `send` or `close` takes.
pub trait Connection: Send + Sync + 'static {
    /// Takes one frame for writing, in the order of the calls. Never blocks.
    ///
    /// `Ok` means *accepted*: the connection will write it unless the transport breaks.
    ///
    /// # Errors
    ///
    /// [`SendError::Full`] when too much waits already, [`SendError::Closed`] when the transport is
    /// gone. In both cases nothing of the frame was taken.
    fn send(&self, frame: Frame<'_>) -> Result<(), SendError>;

    /// Ends the transport. Idempotent; a later [`Close::Abort`] overrides an earlier flush.
    fn close(&self, how: Close);

    /// Bytes accepted and not yet taken by the transport.
    fn waiting(&self) -> usize {
        0
    }

    /// How this transport delimits elements.
    fn framing(&self) -> Framing {
        Framing::Stream
    }

    /// Called once when a server takes the connection: a connection with a buffer of its own calls
    /// `hook.pre_drain()` just before each write, so that trailing data travels in that write.
    fn on_drain(&self, hook: Arc<dyn PreDrain>) {
        drop(hook);
    }
}

/// Called by a buffering connection just before buffered bytes are handed to the transport.
pub trait PreDrain: Send + Sync {
    /// May send through the session, or append bytes to `out`: both become part of the write that
    /// is about to happen.
    fn pre_drain(&self, out: &mut Vec<u8>);
}

/// Why a frame was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(clippy::exhaustive_enums, reason = "a connection has these two ways to refuse; hosts match on both")]
pub enum SendError {
    /// The peer reads too slowly and the connection takes no more bytes.
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

impl<T: Connection + ?Sized> Connection for Arc<T> {
    fn send(&self, frame: Frame<'_>) -> Result<(), SendError> {
        (**self).send(frame)
    }

    fn close(&self, how: Close) {
        (**self).close(how);
    }

    fn waiting(&self) -> usize {
        (**self).waiting()
    }

    fn framing(&self) -> Framing {
        (**self).framing()
    }

    fn on_drain(&self, hook: Arc<dyn PreDrain>) {
        (**self).on_drain(hook);
    }
}
