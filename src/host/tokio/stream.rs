//! A stream in front of which something is put.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use ::tokio::io::{AsyncRead, ReadBuf};

use crate::host::ahead::Ahead;

/// A stream of which some was read already.
pub(in crate::host) struct Stream<S> {
    pub(in crate::host) io: S,
    pub(in crate::host) ahead: Ahead,
}

impl<S: AsyncRead + Unpin> AsyncRead for Stream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.read(buffer.remaining(), |bytes| buffer.put_slice(bytes)) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}
