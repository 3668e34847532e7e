//! A connection on which posts are published and not answered: nobody waits for the answers, and each would wake its node.

use std::io;
use std::time::Duration;

use redis::{ConnectionAddr, ConnectionInfo};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// To an instance that is there: whether it still is, it is asked among the posts.
pub(super) struct Quiet {
    stream: TcpStream,
    patience: Duration,
    /// When it has answered last.
    heard: Instant,
    /// It was asked then, and has not answered yet.
    asked: Option<Instant>,
}

/// The one answer that there is.
const OK: &[u8] = b"+OK\r\n";

impl Quiet {
    /// `None`: not by TLS or a socket with a path, not where the instance cannot be reached, and not for a user without the
    /// right. The other way says what is wrong, if anything is.
    pub(super) async fn connect(info: &ConnectionInfo, patience: Duration) -> Option<Self> {
        timeout(patience, Self::begin(info, patience)).await.ok()?.ok()
    }

    async fn begin(info: &ConnectionInfo, patience: Duration) -> io::Result<Self> {
        let ConnectionAddr::Tcp(host, port) = info.addr() else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let stream = TcpStream::connect((host.as_str(), *port)).await?;
        stream.set_nodelay(true)?;
        let (mut begin, mut answers) = (Vec::new(), Vec::new());
        let settings = info.redis_settings();
        if let Some(password) = settings.password() {
            let name = settings.username().map(str::as_bytes);
            let login = [&b"AUTH"[..]].into_iter().chain(name).chain([password.as_bytes()]);
            command(&mut begin, &login.collect::<Vec<_>>());
            answers.extend_from_slice(OK);
        }
        ask(&mut begin);
        answers.extend_from_slice(OK);
        write(&stream, &begin).await?;
        let mut rest = &*answers;
        while !rest.is_empty() {
            stream.readable().await?;
            let mut answer = [0; 64];
            match stream.try_read(&mut answer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    let answer = answer.get(..read).unwrap_or_default();
                    rest = rest.strip_prefix(answer).ok_or(io::ErrorKind::InvalidData)?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self { stream, patience, heard: Instant::now(), asked: None })
    }

    /// Whether the instance is there, as far as is known: it has closed nothing, and has answered in time.
    pub(super) fn is_there(&mut self) -> bool {
        let mut answer = [0; 64];
        loop {
            match self.stream.try_read(&mut answer) {
                Ok(0) => return false,
                Ok(_) => (self.heard, self.asked) = (Instant::now(), None),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return false,
            }
        }
        self.asked.is_none_or(|at| at.elapsed() < self.patience)
    }

    /// Publishes these, each to its channel.
    pub(super) async fn publish(
        &mut self,
        posts: impl Iterator<Item = (String, &[u8])>,
    ) -> io::Result<()> {
        let mut bytes = Vec::new();
        for (channel, post) in posts {
            command(&mut bytes, &[b"PUBLISH", channel.as_bytes(), post]);
        }
        if self.asked.is_none() && self.heard.elapsed() >= self.patience / 2 {
            ask(&mut bytes);
            self.asked = Some(Instant::now());
        }
        timeout(self.patience, write(&self.stream, &bytes)).await?
    }
}

/// What is answered once, and nothing behind it.
fn ask(out: &mut Vec<u8>) {
    command(out, &[b"CLIENT", b"REPLY", b"ON"]);
    command(out, &[b"CLIENT", b"REPLY", b"OFF"]);
}

fn command(out: &mut Vec<u8>, parts: &[&[u8]]) {
    out.extend_from_slice(format!("*{}\r\n", parts.len()).as_bytes());
    for part in parts {
        out.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }
}

async fn write(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
