//! Load for a server on this machine, with every message checked: `--help` says how.
//!
//! Passwords and messages go unencrypted, so the server must allow that and offer PLAIN, such as
//! `--example server -- --any-account p --allow-plaintext --mechanisms PLAIN --no-limits`.
#![forbid(unsafe_code)]

mod client;
mod readers;
mod slow;
mod wire;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use client::Client;
use tokio::task::JoinHandle;

const HELP: &str = "\
Logs in users, each of whom writes to the next, and fails on any message lost, doubled, altered or
out of order.

  --addr HOST:PORT   where the server listens      --domain D      its domain
  --users N          PREFIX0@D, PREFIX1@D, ...     --password P    of all of them
  --prefix PREFIX    default: u                    --messages M    from each user, default: 100
  --pid PID          the server's process, to print its memory
  --websocket        over WebSockets, which is what the server expects at that address

With --slow K, the users write to each other in pairs, at a steady rate, and how long their messages
take is told by turns: without and with K slow readers beside them. Each of these is sent 500 KiB/s by
5 others; all of them are further users, PREFIXN@D and so on. In turns without slow ones they read all
of it. In the others every second one reads a byte a second, the rest nothing, until the server drops
them, and then again; half of each resume their sessions (XEP-0198), the others begin new ones.

  --slow K           slow readers, at least 4 for one of each kind
  --rate R           messages of all users in a second, default: 1000
  --seconds S        length of each turn, default: 20    --rounds R      default: 5";

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Logins under way at a time.
const AT_ONCE: usize = 32;

struct Load {
    addr: String,
    domain: String,
    users: usize,
    password: String,
    prefix: String,
    websocket: bool,
    messages: usize,
    pid: Option<u32>,
    slow: usize,
    rate: usize,
    seconds: usize,
    rounds: usize,
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
    let clients = log_in(&load, 0..load.users).await?;
    let took = start.elapsed().as_secs_f64();
    println!("{} sessions held, {:.0} logins/s", clients.len(), clients.len() as f64 / took);
    if let (Some(before), Some(pid)) = (before, load.pid) {
        let each = resident(pid)?.saturating_sub(before) / load.users;
        println!("{each} bytes of memory per session");
    }
    if load.slow > 0 {
        return slow::run(load, clients).await;
    }

    let (start, count) = (Instant::now(), load.users * load.messages);
    let talk = |client: Client| {
        let load = Arc::clone(&load);
        tokio::spawn(async move { client.talk(&load).await })
    };
    let clients = all(clients.into_iter().map(talk)).await?;
    let rate = count as f64 / start.elapsed().as_secs_f64();
    // A copy too many would come before the end of the stream.
    all(clients.into_iter().map(|client| tokio::spawn(client.leave()))).await?;
    println!("{count} messages, each delivered once, in order and unaltered, {rate:.0} messages/s");
    Ok(())
}

/// Logs in the users of these numbers, some at a time.
async fn log_in(load: &Arc<Load>, numbers: Range<usize>) -> Result<Vec<Client>> {
    let mut clients = Vec::with_capacity(numbers.len());
    for first in numbers.clone().step_by(AT_ONCE) {
        let some = first..numbers.end.min(first + AT_ONCE);
        let logins = some.map(|n| {
            let load = Arc::clone(load);
            tokio::spawn(async move { Client::log_in(&load, n).await })
        });
        clients.extend(all(logins).await?);
    }
    Ok(clients)
}

/// What all tasks return, or the first failure.
async fn all<T>(tasks: impl Iterator<Item = JoinHandle<Result<T>>>) -> Result<Vec<T>> {
    let tasks: Vec<_> = tasks.collect();
    let mut results = Vec::with_capacity(tasks.len());
    for task in tasks {
        results.push(task.await??);
    }
    Ok(results)
}

/// Resident bytes of a process.
fn resident(pid: u32) -> Result<usize> {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm"))?;
    Ok(statm.split(' ').nth(1).ok_or("no memory")?.parse::<usize>()? * 4096)
}

impl Load {
    fn parse(args: &[String]) -> Result<Self> {
        let mut given: HashMap<&str, &str> = HashMap::new();
        let websocket = args.iter().any(|arg| arg == "--websocket");
        let args: Vec<_> = args.iter().filter(|arg| *arg != "--websocket").collect();
        for pair in args.chunks(2) {
            let [name, value] = pair else { return Err("an option without a value".into()) };
            given.insert(name, value);
        }
        let mut take = |name| given.remove(name).ok_or("an option is missing");
        let load = Self {
            prefix: take("--prefix").unwrap_or("u").to_owned(),
            websocket,
            messages: take("--messages").unwrap_or("100").parse()?,
            pid: take("--pid").ok().map(str::parse).transpose()?,
            slow: take("--slow").unwrap_or("0").parse()?,
            rate: take("--rate").unwrap_or("1000").parse()?,
            seconds: take("--seconds").unwrap_or("20").parse()?,
            rounds: take("--rounds").unwrap_or("5").parse()?,
            addr: take("--addr")?.to_owned(),
            domain: take("--domain")?.to_owned(),
            users: take("--users")?.parse()?,
            password: take("--password")?.to_owned(),
        };
        if load.slow > 0 && load.websocket {
            return Err("slow readers are of TCP".into());
        }
        if load.slow > 0 && (load.users % 2 == 1 || load.users > load.rate * load.seconds) {
            return Err("no pairs, or no message of each user in a turn".into());
        }
        if given.is_empty() { Ok(load) } else { Err("an unknown option".into()) }
    }

    fn jid(&self, n: usize) -> String {
        format!("{}{n}@{}/load", self.prefix, self.domain)
    }
}
