//! A user who is logged in, and what users write to each other.

use std::ops::Range;
use std::sync::LazyLock;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{Instant, interval_at, timeout};

use crate::wire::{Elements, Writer, open};
use crate::{Load, Result};

/// Messages that a user is ahead of the one who writes to it.
const AHEAD: usize = 8;
/// Nothing for so long means that it is lost.
const PATIENCE: Duration = Duration::from_secs(60);

/// A logged-in user.
pub(crate) struct Client {
    pub(crate) n: usize,
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
}

impl Client {
    pub(crate) async fn log_in(load: &Load, n: usize) -> Result<Self> {
        let mut me = Self::authenticate(load, n, TcpStream::connect(load.addr(n)).await?).await?;
        me.begin(load).await?;
        Ok(me)
    }

    /// Up to where the stream asks for a session.
    pub(crate) async fn authenticate(load: &Load, n: usize, socket: TcpStream) -> Result<Self> {
        let (reader, writer) = open(socket, load.websocket).await?;
        let mut me = Self { n, reader: Reader(reader), writer };
        let begin = match load.websocket {
            true => "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing'",
            false => {
                "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'"
            }
        };
        let end = if load.websocket { "/>" } else { ">" };
        let header = format!("{begin} to='{}' version='1.0'{end}", load.domain);
        me.ask(&header, "</stream:features>", ">PLAIN<").await?;
        let secret = STANDARD.encode(format!("\0{}\0{}", load.name(n), load.password));
        let auth = format!(
            "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{secret}</auth>"
        );
        me.ask(&auth, ">", "<success").await?;
        me.ask(&header, "</stream:features>", "").await?;
        Ok(me)
    }

    /// Begins a session that is available.
    pub(crate) async fn begin(&mut self, load: &Load) -> Result<()> {
        let bind = "<iq xmlns='jabber:client' type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
                    <resource>load</resource></bind></iq>";
        self.ask(bind, "</iq>", &format!(">{}<", load.jid(self.n))).await?;
        // The session is available once its own presence has come back (RFC 6121 §4.2.2).
        self.writer.send("<presence xmlns='jabber:client'/>").await?;
        self.reader.tag("<presence").await?;
        Ok(())
    }

    /// Writes to the next user and checks what the one before writes.
    pub(crate) async fn talk(mut self, load: &Load) -> Result<Self> {
        let to = load.jid((self.n + 1) % load.users);
        let from = load.jid((self.n + load.users - 1) % load.users);
        for number in 0..AHEAD.min(load.messages) {
            self.writer.send(&message(&to, number)).await?;
        }
        for number in 0..load.messages {
            self.reader.message(&from, number).await?;
            if number + AHEAD < load.messages {
                self.writer.send(&message(&to, number + AHEAD)).await?;
            }
        }
        Ok(self)
    }

    /// Writes to the other one of a pair at a steady rate, and checks what that one writes. Returns how
    /// long each message took.
    pub(crate) async fn chat(
        mut self,
        load: &Load,
        numbers: Range<usize>,
    ) -> Result<(Self, Vec<Duration>)> {
        let pace = Duration::from_secs(1).mul_f64(load.users as f64 / load.rate as f64);
        let other = load.jid(self.n ^ 1);
        let (reader, writer) = (&mut self.reader, &mut self.writer);
        let mut ticks =
            interval_at(Instant::now() + pace.mul_f64(self.n as f64 / load.users as f64), pace);
        // Whatever arrives and when: a server that is slow gets no pause for it.
        let write = async {
            for number in numbers.clone() {
                ticks.tick().await;
                writer.send(&message(&other, number)).await?;
            }
            Result::Ok(())
        };
        let read = async {
            let mut took = Vec::with_capacity(numbers.len());
            for number in numbers.clone() {
                took.push(reader.message(&other, number).await?);
            }
            Result::Ok(took)
        };
        let ((), took) = tokio::try_join!(write, read)?;
        Ok((self, took))
    }

    pub(crate) async fn leave(mut self) -> Result<()> {
        let (end, answer) = match self.writer.websocket {
            true => ("<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>", "framing'/>"),
            false => ("</stream:stream>", "</stream:stream>"),
        };
        let rest = self.ask(end, answer, "").await?;
        if rest.contains("<message") { Err(format!("one too many: {rest}").into()) } else { Ok(()) }
    }

    /// Sends, and returns what comes up to `end`, which has to contain `want`.
    pub(crate) async fn ask(&mut self, xml: &str, end: &str, want: &str) -> Result<String> {
        self.writer.send(xml).await?;
        let got = self.reader.read_past(end).await?;
        if got.contains(want) { Ok(got) } else { Err(format!("no {want} in {got}").into()) }
    }
}

/// What a user gets.
pub(crate) struct Reader(pub(crate) BufReader<Elements>);

impl Reader {
    /// Checks the next message, and says how long it took.
    pub(crate) async fn message(&mut self, from: &str, number: usize) -> Result<Duration> {
        let got =
            self.read_past("</message>").await.map_err(|e| format!("{number} is lost: {e}"))?;
        let (_, got) = got.split_once("<message ").ok_or("a message has no beginning")?;
        let (head, text) = got.split_once("><").ok_or("a message has no body")?;
        let head = head.replace('"', "'");
        let id = format!("id='{number}.");
        let sent = head.split_once(&id).and_then(|(_, at)| at.split_once('\''));
        let sent = sent.and_then(|(at, _)| at.parse().ok()).map(Duration::from_nanos);
        match sent {
            Some(sent)
                if head.contains(&format!("from='{from}'"))
                    && text == format!("body>{}</body></message>", body(number)) =>
            {
                Ok(clock().saturating_sub(sent))
            }
            _ => Err(format!("wanted number {number} of {from}, got {got}").into()),
        }
    }

    /// The first tag that begins so.
    pub(crate) async fn tag(&mut self, begin: &str) -> Result<String> {
        loop {
            let got = self.read_past(">").await?;
            if let Some((_, tag)) = got.split_once(begin) {
                return Ok(tag.to_owned());
            }
        }
    }

    /// What comes, up to and with `end`, which is the end of a tag.
    pub(crate) async fn read_past(&mut self, end: &str) -> Result<String> {
        let mut got = Vec::new();
        while !got.ends_with(end.as_bytes()) {
            if timeout(PATIENCE, self.0.read_until(b'>', &mut got)).await?? == 0 {
                return Err("the server ended the connection".into());
            }
        }
        Ok(String::from_utf8(got)?)
    }
}

/// A message that says when it was written.
pub(crate) fn message(to: &str, number: usize) -> String {
    let (now, body) = (clock().as_nanos(), body(number));
    format!(
        "<message xmlns='jabber:client' to='{to}' type='chat' id='{number}.{now}'><body>{body}</body></message>"
    )
}

fn body(number: usize) -> String {
    format!("{number} {}", "All the world is a stage. ".repeat(4))
}

/// Time since some moment.
fn clock() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed()
}
