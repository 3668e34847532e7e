//! What two threads need of a stream.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
#[cfg(unix)]
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A two-way stream of bytes as two threads use it, one that reads and one that writes: a socket, or
/// something of the host's own. What a Rust type does for `&TcpStream` or `&UnixStream` is meant.
pub trait Stream: Send + Sync {
    /// Reads what there is, waiting for the first byte; 0 at the end.
    ///
    /// # Errors
    ///
    /// `WouldBlock` or `TimedOut` when nothing came within the time-out; anything else is the loss of the
    /// transport.
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes some of the bytes, waiting until there is room for one.
    ///
    /// # Errors
    ///
    /// As for [`read`](Self::read).
    fn write(&self, bytes: &[u8]) -> io::Result<usize>;

    /// How long the next reads may wait.
    ///
    /// # Errors
    ///
    /// If that cannot be set.
    fn set_read_timeout(&self, time: Option<Duration>) -> io::Result<()>;

    /// How long the next writes may wait.
    ///
    /// # Errors
    ///
    /// If that cannot be set.
    fn set_write_timeout(&self, time: Option<Duration>) -> io::Result<()>;

    /// Ends one direction or both: a read or write that waits returns, and the peer learns that nothing more
    /// comes.
    ///
    /// # Errors
    ///
    /// If it is gone already.
    fn shutdown(&self, how: Shutdown) -> io::Result<()>;

    /// Small writes are not to wait for more (`TCP_NODELAY`): what belongs together comes together.
    ///
    /// # Errors
    ///
    /// If that cannot be set.
    fn set_no_delay(&self) -> io::Result<()> {
        Ok(())
    }
}

macro_rules! socket {
    ($socket:ty, $no_delay:expr) => {
        impl Stream for $socket {
            fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
                Read::read(&mut &*self, buffer)
            }

            fn write(&self, bytes: &[u8]) -> io::Result<usize> {
                Write::write(&mut &*self, bytes)
            }

            fn set_read_timeout(&self, time: Option<Duration>) -> io::Result<()> {
                Self::set_read_timeout(self, time)
            }

            fn set_write_timeout(&self, time: Option<Duration>) -> io::Result<()> {
                Self::set_write_timeout(self, time)
            }

            fn shutdown(&self, how: Shutdown) -> io::Result<()> {
                Self::shutdown(self, how)
            }

            fn set_no_delay(&self) -> io::Result<()> {
                $no_delay(self)
            }
        }
    };
}

socket!(TcpStream, |socket: &Self| socket.set_nodelay(true));
#[cfg(unix)]
socket!(UnixStream, |_| Ok(()));
