//! Users who read slowly, and those who write to them.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::{interval, sleep, timeout};

use crate::client::Client;
use crate::{Load, Result};

/// Who write to one reader, each less than the server's limits on rates allow (LIMIT-20).
pub(crate) const SENDERS: usize = 5;
/// When each of them writes, and how much.
const PACE: Duration = Duration::from_millis(80);
const SIZE: usize = 8192;
/// Users who know that a reader is there: each is told when it is not any more.
const NEAR: usize = 20;
/// So long a reader reads what waited for it, after each login.
const RESPITE: Duration = Duration::from_secs(2);
/// So many messages are acknowledged together.
const ACKNOWLEDGE: u32 = 8;
/// When a slow reader does something.
const SECOND: Duration = Duration::from_secs(1);

/// What the readers are told, and what became of them.
#[derive(Default)]
pub(crate) struct Readers {
    pub(crate) slow: AtomicBool,
    /// How often the server dropped one: of one byte a second, of none.
    pub(crate) dropped: [AtomicUsize; 2],
    /// Messages that were sent to readers.
    pub(crate) sent: AtomicUsize,
    /// Messages that readers have read.
    pub(crate) read: AtomicUsize,
    /// Sessions that went on after it.
    pub(crate) resumed: AtomicUsize,
    /// Sessions that were to go on and did not.
    pub(crate) expired: AtomicUsize,
}

#[derive(Clone, Copy)]
struct Kind {
    takes_none: bool,
    resumes: bool,
}

/// A reader for the whole run.
pub(crate) async fn read(load: Arc<Load>, nth: usize, readers: Arc<Readers>) -> Result<Infallible> {
    let kind = Kind { takes_none: nth % 2 == 1, resumes: nth / 2 % 2 == 1 };
    let [one, none] = &readers.dropped;
    let dropped = if kind.takes_none { none } else { one };
    let mut held: Option<Session> = None;
    loop {
        let n = load.users + nth;
        let mut me = Client::authenticate(&load, n, connect(load.addr(n)).await?).await?;
        let mut session = match held.take() {
            Some(session) if session.resume(&mut me).await? => {
                readers.resumed.fetch_add(1, Ordering::Relaxed);
                session
            }
            expired => {
                readers.expired.fetch_add(usize::from(expired.is_some()), Ordering::Relaxed);
                Session::begin(&load, &mut me, nth, kind).await?
            }
        };
        // How it broke makes no difference.
        let Err(_) = session.read(&mut me, &readers, kind).await;
        dropped.fetch_add(1, Ordering::Relaxed);
        held = kind.resumes.then_some(session);
    }
}

/// Writes to a reader for the whole run, whatever becomes of that.
pub(crate) async fn flood(
    load: Arc<Load>,
    mut me: Client,
    readers: Arc<Readers>,
) -> Result<Infallible> {
    let nth = (me.n - load.users - load.slow) / SENDERS;
    let to = load.jid(load.users + nth);
    let text = "Words, words, words. ".repeat(SIZE / 21);
    // Without a session it comes back: the reader that logs in is to begin with nothing.
    let message = format!(
        "<message to='{to}' type='chat' id='f'><body>{text}</body><no-store xmlns='urn:xmpp:hints'/>\
         </message>"
    );
    let (mut ticks, mut back) = (interval(PACE), vec![0; SIZE]);
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                me.writer.send(&message).await?;
                readers.sent.fetch_add(1, Ordering::Relaxed);
            }
            // What the server could not deliver.
            read = me.reader.0.read(&mut back) => if read? == 0 {
                return Err("the server ended the connection of a sender".into());
            },
        }
    }
}

/// Loopback takes segments of 64 KiB, and the systems hold 4 MiB of these for one who does not read:
/// more than a server keeps for it (LIMIT-10). With Ethernet's they hold what they do on a network.
async fn connect(addr: &str) -> Result<TcpStream> {
    let addr = lookup_host(addr).await?.next().ok_or("no such address")?;
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    #[cfg(unix)]
    socket.set_tcp_mss(1460)?;
    socket.set_recv_buffer_size(16 << 10)?;
    socket.set_nonblocking(true)?;
    Ok(TcpSocket::from_std_stream(socket.into()).connect(addr).await?)
}

/// A reader's session.
#[derive(Default)]
struct Session {
    /// By which it is resumed.
    id: String,
    /// Messages read, modulo 2³².
    handled: u32,
    /// What was read of the next tag, and of the text before it.
    tag: Vec<u8>,
}

impl Session {
    async fn begin(load: &Load, me: &mut Client, nth: usize, kind: Kind) -> Result<Self> {
        me.begin(load).await?;
        for near in 0..NEAR {
            let to = load.jid((nth * NEAR + near) % load.users);
            me.writer.send(&format!("<presence to='{to}'/>")).await?;
        }
        let mut session = Self::default();
        if kind.resumes {
            let enable = "<enable xmlns='urn:xmpp:sm:3' resume='true'/>";
            me.writer.send(enable).await?;
            let enabled = me.reader.tag("<enabled ").await?.replace('"', "'");
            let id = enabled.split_once("id='").and_then(|(_, id)| id.split_once('\''));
            session.id = id.ok_or("nothing to resume by")?.0.to_owned();
        }
        Ok(session)
    }

    /// Whether it goes on.
    async fn resume(&self, me: &mut Client) -> Result<bool> {
        let (id, h) = (&self.id, self.handled);
        let resume = format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='{h}'/>");
        Ok(me.ask(&resume, ">", "").await?.contains("<resumed "))
    }

    /// Reads until the connection breaks.
    async fn read(
        &mut self,
        me: &mut Client,
        readers: &Readers,
        kind: Kind,
    ) -> io::Result<Infallible> {
        let (since, mut bytes) = (Instant::now(), vec![0; 64 << 10]);
        // What came before in part is sent again.
        self.tag.clear();
        loop {
            if readers.slow.load(Ordering::Relaxed) && since.elapsed() > RESPITE {
                sleep(SECOND).await;
                // As clients do to keep a connection alive, and to see that it is not.
                me.writer.send(" ").await?;
                let mut byte = [0];
                if !kind.takes_none {
                    match me.reader.0.get_mut().try_read(&mut byte) {
                        Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                        Ok(_) => self.take(me, &byte, readers).await?,
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(error) => return Err(error),
                    }
                }
            } else if let Ok(read) = timeout(SECOND, me.reader.0.read(&mut bytes)).await {
                match bytes.get(..read?) {
                    None | Some([]) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Some(some) => self.take(me, some, readers).await?,
                }
            }
        }
    }

    /// Counts messages, and answers the server that asks for their number.
    async fn take(&mut self, me: &mut Client, bytes: &[u8], readers: &Readers) -> io::Result<()> {
        for piece in bytes.split_inclusive(|byte| *byte == b'>') {
            self.tag.extend_from_slice(piece);
            if !piece.ends_with(b">") {
                continue;
            }
            let tag = std::mem::take(&mut self.tag);
            let tag = tag.iter().rposition(|byte| *byte == b'<').and_then(|at| tag.get(at..));
            let tag = tag.unwrap_or_default();
            let is_message = tag == b"</message>";
            self.handled = self.handled.wrapping_add(u32::from(is_message));
            readers.read.fetch_add(usize::from(is_message), Ordering::Relaxed);
            // Also unasked: what it has read is not to count as what it has not (LIMIT-10).
            let is_time = is_message && self.handled.is_multiple_of(ACKNOWLEDGE);
            if !self.id.is_empty() && (is_time || tag.starts_with(b"<r ")) {
                let h = self.handled;
                let answer = format!("<a xmlns='urn:xmpp:sm:3' h='{h}'/>");
                me.writer.send(&answer).await?;
            }
        }
        Ok(())
    }
}
