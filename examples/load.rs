//! Load for a server on this machine, with every message checked: `--help` says how.
//!
//! Passwords and messages go unencrypted, so the server must allow that and offer PLAIN, such as
//! `--example server -- --any-account p --allow-plaintext --mechanisms PLAIN --no-limits`.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const HELP: &str = "\
Logs in users, each of whom writes to the next, and fails on any message lost, doubled, altered or
out of order.

  --addr HOST:PORT   where the server listens      --domain D      its domain
  --users N          PREFIX0@D, PREFIX1@D, ...     --password P    of all of them
  --prefix PREFIX    default: u                    --messages M    from each user, default: 100
  --pid PID          the server's process, to print its memory per session";

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Logins under way at a time.
const AT_ONCE: usize = 64;
/// Messages that a user is ahead of the one who writes to it.
const AHEAD: usize = 8;
/// Nothing for so long means that it is lost.
const PATIENCE: Duration = Duration::from_secs(60);

struct Load {
    addr: String,
    domain: String,
    users: usize,
    password: String,
    prefix: String,
    messages: usize,
    pid: Option<u32>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Ok(load) = Load::parse(&args).map(Arc::new) else {
        eprintln!("{HELP}");
        std::process::exit(2);
    };
    rlimit::increase_nofile_limit(u64::MAX)?;
    let before = load.pid.map(resident).transpose()?;
    let start = Instant::now();
    let mut clients = Vec::with_capacity(load.users);
    while clients.len() < load.users {
        let some = clients.len()..load.users.min(clients.len() + AT_ONCE);
        let logins = some.map(|n| tokio::spawn(Client::log_in(Arc::clone(&load), n)));
        clients.extend(all(logins.collect()).await?);
    }
    let took = start.elapsed().as_secs_f64();
    println!("{} sessions held, {:.0} logins/s", clients.len(), clients.len() as f64 / took);
    if let (Some(before), Some(pid)) = (before, load.pid) {
        let each = resident(pid)?.saturating_sub(before) / load.users;
        println!("{each} bytes of memory per session");
    }

    let (start, count) = (Instant::now(), load.users * load.messages);
    let talks = clients.into_iter().map(|client| tokio::spawn(client.talk(Arc::clone(&load))));
    let clients = all(talks.collect()).await?;
    let rate = count as f64 / start.elapsed().as_secs_f64();
    // A copy too many would come before the end of the stream.
    all(clients.into_iter().map(|client| tokio::spawn(client.leave())).collect()).await?;
    println!("{count} messages, each delivered once, in order and unaltered, {rate:.0} messages/s");
    Ok(())
}

/// What all tasks return, or the first failure.
async fn all<T>(tasks: Vec<JoinHandle<Result<T>>>) -> Result<Vec<T>> {
    let mut results = Vec::with_capacity(tasks.len());
    for task in tasks {
        results.push(task.await??);
    }
    Ok(results)
}

/// A logged-in user.
struct Client {
    n: usize,
    socket: BufReader<TcpStream>,
}

impl Client {
    async fn log_in(load: Arc<Load>, n: usize) -> Result<Self> {
        let socket = TcpStream::connect(&load.addr).await?;
        socket.set_nodelay(true)?;
        let mut me = Self { n, socket: BufReader::new(socket) };
        let header = format!(
            "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' \
             to='{}' version='1.0'>",
            load.domain
        );
        me.ask(&header, "</stream:features>", ">PLAIN<").await?;
        let secret = STANDARD.encode(format!("\0{}{n}\0{}", load.prefix, load.password));
        let auth = format!(
            "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{secret}</auth>"
        );
        me.ask(&auth, ">", "<success").await?;
        me.ask(&header, "</stream:features>", "").await?;
        let bind = "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
                    <resource>load</resource></bind></iq>";
        me.ask(bind, "</iq>", &format!(">{}<", load.jid(n))).await?;
        // The session is available once its own presence has come back (RFC 6121 §4.2.2).
        me.ask("<presence/>", ">", "<presence").await?;
        Ok(me)
    }

    /// Writes to the next user and checks what the one before writes.
    async fn talk(mut self, load: Arc<Load>) -> Result<Self> {
        let to = load.jid((self.n + 1) % load.users);
        let from = load.jid((self.n + load.users - 1) % load.users);
        for number in 0..AHEAD.min(load.messages) {
            self.socket.write_all(message(&to, number).as_bytes()).await?;
        }
        for number in 0..load.messages {
            let got =
                self.read_past("</message>").await.map_err(|e| format!("{number} is lost: {e}"))?;
            let (_, got) = got.split_once("<message ").ok_or("a message has no beginning")?;
            let (head, text) = got.split_once("><").ok_or("a message has no body")?;
            let head = head.replace('"', "'");
            let marks = [format!("from='{from}'"), format!("id='{number}'")];
            let body = format!("body>{}</body></message>", body(number));
            if text != body || !marks.iter().all(|mark| head.contains(mark)) {
                return Err(format!("user {} wanted number {number}, got {got}", self.n).into());
            }
            if number + AHEAD < load.messages {
                self.socket.write_all(message(&to, number + AHEAD).as_bytes()).await?;
            }
        }
        Ok(self)
    }

    async fn leave(mut self) -> Result<()> {
        let rest = self.ask("</stream:stream>", "</stream:stream>", "").await?;
        if rest.contains("<message") { Err(format!("one too many: {rest}").into()) } else { Ok(()) }
    }

    /// Sends, and returns what comes up to `end`, which has to contain `want`.
    async fn ask(&mut self, xml: &str, end: &str, want: &str) -> Result<String> {
        self.socket.write_all(xml.as_bytes()).await?;
        let got = self.read_past(end).await?;
        if got.contains(want) { Ok(got) } else { Err(format!("no {want} in {got}").into()) }
    }

    /// What comes, up to and with `end`, which is the end of a tag.
    async fn read_past(&mut self, end: &str) -> Result<String> {
        let mut got = Vec::new();
        while !got.ends_with(end.as_bytes()) {
            if timeout(PATIENCE, self.socket.read_until(b'>', &mut got)).await?? == 0 {
                return Err("the server ended the connection".into());
            }
        }
        Ok(String::from_utf8(got)?)
    }
}

fn body(number: usize) -> String {
    format!("{number} {}", "All the world is a stage. ".repeat(4))
}

fn message(to: &str, number: usize) -> String {
    format!("<message to='{to}' type='chat' id='{number}'><body>{}</body></message>", body(number))
}

/// Resident bytes of a process.
fn resident(pid: u32) -> Result<usize> {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm"))?;
    Ok(statm.split(' ').nth(1).ok_or("no memory")?.parse::<usize>()? * 4096)
}

impl Load {
    fn parse(args: &[String]) -> Result<Self> {
        let mut given: HashMap<&str, &str> = HashMap::new();
        for pair in args.chunks(2) {
            let [name, value] = pair else { return Err("an option without a value".into()) };
            given.insert(name, value);
        }
        let mut take = |name| given.remove(name).ok_or("an option is missing");
        let load = Self {
            prefix: take("--prefix").unwrap_or("u").to_owned(),
            messages: take("--messages").unwrap_or("100").parse()?,
            pid: take("--pid").ok().map(str::parse).transpose()?,
            addr: take("--addr")?.to_owned(),
            domain: take("--domain")?.to_owned(),
            users: take("--users")?.parse()?,
            password: take("--password")?.to_owned(),
        };
        if given.is_empty() { Ok(load) } else { Err("an unknown option".into()) }
    }

    fn jid(&self, n: usize) -> String {
        format!("{}{n}@{}/load", self.prefix, self.domain)
    }
}
