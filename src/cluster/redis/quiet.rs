//! A connection on which an instance answers nothing.
//!
//! The answer to a post says nothing that anybody needs, but it wakes a thread of the node that has posted: of the CPU of a
//! message that comes alone, a fifth. Clients of Redis read answers; so this one has `redis` log in and say what is wrong, and
//! goes on with the socket itself, which it only writes to from there on.

use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, RedisConnectionInfo};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::error::RedisError;

/// What was packed is kept as room for more, up to so many bytes.
const KEPT: usize = 64 << 10;

pub(super) struct Quiet {
    socket: TcpStream,
    /// What is written next.
    packed: Vec<u8>,
}

impl Quiet {
    /// Connects, and has `trial` answered.
    pub(super) async fn connect(
        to: (&str, u16),
        settings: &RedisConnectionInfo,
        trial: &Cmd,
    ) -> Result<Self, RedisError> {
        let shared_socket = || async {
            let socket = TcpStream::connect(to).await?;
            socket.set_nodelay(true)?;
            let socket = socket.into_std()?;
            io::Result::Ok((TcpStream::from_std(socket.try_clone()?)?, socket))
        };
        let (shared, socket) = shared_socket().await.map_err(redis::RedisError::from)?;
        let config = AsyncConnectionConfig::new();
        let (mut connection, driver) =
            MultiplexedConnection::new_with_config(settings, shared, config).await?;
        let driver = tokio::spawn(driver);
        let reply = |how: &str| redis::cmd("CLIENT").arg("REPLY").arg(how).to_owned();
        // Only what is answered says whether it may be asked for.
        let mut tries = redis::pipe();
        tries.add_command(trial.clone()).add_command(reply("ON"));
        let tried = tries.exec_async(&mut connection).await;
        // Before the connection ends, which would close the socket for both.
        driver.abort();
        let _aborted = driver.await;
        drop(connection);
        tried?;
        let packed = reply("OFF").get_packed_command();
        let socket = TcpStream::from_std(socket).map_err(redis::RedisError::from)?;
        Ok(Self { socket, packed })
    }

    /// To be written with the next ones.
    pub(super) fn put(&mut self, command: &Cmd) {
        command.write_packed_command(&mut self.packed);
    }

    /// Writes what was put. It is of no use any more where that fails.
    pub(super) async fn flush(&mut self, time: Duration) -> Result<(), RedisError> {
        let late = |_| RedisError::TimedOut;
        let written = timeout(time, self.socket.write_all(&self.packed)).await.map_err(late)?;
        written.map_err(redis::RedisError::from)?;
        match self.packed.capacity() > KEPT {
            true => self.packed = Vec::new(),
            false => self.packed.clear(),
        }
        Ok(())
    }

    /// Ready where the instance has closed it, or said something after all.
    pub(super) fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<()> {
        while self.socket.poll_read_ready(cx).is_ready() {
            match self.socket.try_read(&mut [0]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                _ => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }
}
