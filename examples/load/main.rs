//! Load for a server on this machine, with every message checked: `--help` says how.
//!
//! Passwords and messages go unencrypted, so the server must allow that and offer PLAIN, such as
//! `--example server -- --any-account p --allow-plaintext --mechanisms PLAIN --no-limits`.
#![forbid(unsafe_code)]

mod client;
mod cost;
mod presence;
mod readers;
mod slow;
mod steady;
mod wire;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use client::Client;
use cost::Cost;
use tokio::task::JoinHandle;

const HELP: &str = "\
Logs in users, each of whom writes to the next, and fails on any message lost, doubled, altered or
out of order.

  --addr HOST:PORT   where the server listens; several with commas, which users take in turns
  --domain D         its domain
  --users N          PREFIX0@D, PREFIX1@D, ...     --password P    of all of them
  --prefix PREFIX    default: u                    --messages M    from each user, default: 100
  --pid PID          the server's process, to print its memory and what it costs; several with commas
  --accounts FILE    a line for each user: the name of its account, and where it connects
  --websocket        over WebSockets, which is what the server expects at that address

With --steady S, the users write to each other in pairs, R messages in a second (--rate) for S seconds, and
how long these take is told. With --contacts K, each user has K others in its roster, who all hear of its
presence, --rounds times. With --logins N, users only come and go, N times in all.

With --slow K, the users write to each other in pairs, at a steady rate, and how long their messages
take is told by turns: without and with K slow readers beside them. Each of these is sent 500 KiB/s by
5 others; all of them are further users, PREFIXN@D and so on. In turns without slow ones they read all
of it. In the others every second one reads a byte a second, the rest nothing, until the server drops
them, and then again; half of each resume their sessions (XEP-0198), the others begin new ones.

  --slow K           slow readers, at least 4 for one of each kind
  --rate R           messages of all users in a second, default: 1000
  --seconds S        length of each turn, default: 20    --rounds R      default: 5";

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// After the logins, before anything is measured.
const SETTLE: std::time::Duration = std::time::Duration::from_secs(1);
/// Logins under way at a time.
const AT_ONCE: usize = 32;

struct Load {
    addrs: Vec<String>,
    /// Names of accounts with where they connect, where those are given.
    accounts: Vec<(String, String)>,
    domain: String,
    users: usize,
    password: String,
    prefix: String,
    websocket: bool,
    messages: usize,
    pid: Option<u32>,
    pids: Vec<u32>,
    steady: usize,
    contacts: usize,
    logins: usize,
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
    if load.logins > 0 {
        return come_and_go(&load).await;
    }
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
    if load.contacts > 0 {
        return presence::run(&load, clients).await;
    }
    tokio::time::sleep(SETTLE).await;
    if load.steady > 0 {
        return steady::run(&load, clients).await;
    }

    let cost = Cost::begin(&load.pids)?;
    let (start, count) = (Instant::now(), load.users * load.messages);
    let talk = |client: Client| {
        let load = Arc::clone(&load);
        tokio::spawn(async move { client.talk(&load).await })
    };
    let clients = all(clients.into_iter().map(talk)).await?;
    let rate = count as f64 / start.elapsed().as_secs_f64();
    cost.tell(count, "message")?;
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

/// Users who log in and out again, some at a time.
async fn come_and_go(load: &Arc<Load>) -> Result<()> {
    let (start, cost) = (Instant::now(), Cost::begin(&load.pids)?);
    let each = load.logins.div_ceil(AT_ONCE);
    let come_and_go = |nth: usize| {
        let load = Arc::clone(load);
        tokio::spawn(async move {
            for time in 0..each {
                // Nobody is in two of them.
                let n = nth + AT_ONCE * (time % (load.users / AT_ONCE));
                Client::log_in(&load, n).await?.leave().await?;
            }
            Result::Ok(())
        })
    };
    all((0..AT_ONCE).map(come_and_go)).await?;
    let count = each * AT_ONCE;
    let rate = count as f64 / start.elapsed().as_secs_f64();
    cost.tell(count, "login")?;
    println!("{count} logins, {rate:.0} logins/s");
    Ok(())
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
        let list = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        let pids = take("--pid").map(list).unwrap_or_default();
        let pids =
            pids.iter().map(|pid| pid.parse()).collect::<std::result::Result<Vec<_>, _>>()?;
        let accounts = take("--accounts").ok().map(std::fs::read_to_string).transpose()?;
        let accounts = accounts.iter().flat_map(|text| text.lines());
        let accounts = accounts.filter_map(|line| line.split_once(' '));
        let accounts: Vec<_> =
            accounts.map(|(name, addr)| (name.to_owned(), addr.to_owned())).collect();
        let load = Self {
            steady: take("--steady").unwrap_or("0").parse()?,
            contacts: take("--contacts").unwrap_or("0").parse()?,
            logins: take("--logins").unwrap_or("0").parse()?,
            prefix: take("--prefix").unwrap_or("u").to_owned(),
            websocket,
            messages: take("--messages").unwrap_or("100").parse()?,
            pid: pids.first().copied(),
            pids,
            slow: take("--slow").unwrap_or("0").parse()?,
            rate: take("--rate").unwrap_or("1000").parse()?,
            seconds: take("--seconds").unwrap_or("20").parse()?,
            rounds: take("--rounds").unwrap_or("5").parse()?,
            addrs: match accounts.is_empty() {
                true => list(take("--addr")?),
                false => Vec::new(),
            },
            domain: take("--domain")?.to_owned(),
            users: match accounts.len() {
                0 => take("--users")?.parse()?,
                users => users,
            },
            accounts,
            password: take("--password")?.to_owned(),
        };
        if load.slow > 0 && load.websocket {
            return Err("slow readers are of TCP".into());
        }
        if load.slow > 0 && !load.accounts.is_empty() {
            return Err("slow readers are further users, who are not in that file".into());
        }
        if load.steady > 0 && (load.users % 2 == 1 || load.users > load.rate * load.steady) {
            return Err("no pairs, or no message of each user".into());
        }
        if load.logins > 0 && load.users < AT_ONCE {
            return Err("as many users as log in at a time, at least".into());
        }
        if load.contacts % 2 == 1 || load.contacts > 0 && load.contacts >= load.users {
            return Err("contacts are an even number below that of users".into());
        }
        if load.slow > 0 && (load.users % 2 == 1 || load.users > load.rate * load.seconds) {
            return Err("no pairs, or no message of each user in a turn".into());
        }
        if given.is_empty() { Ok(load) } else { Err("an unknown option".into()) }
    }

    fn jid(&self, n: usize) -> String {
        format!("{}@{}/load", self.name(n), self.domain)
    }

    fn name(&self, n: usize) -> String {
        let named = self.accounts.get(n).map(|(name, _)| name.clone());
        named.unwrap_or_else(|| format!("{}{n}", self.prefix))
    }

    /// Where a user connects.
    fn addr(&self, n: usize) -> &str {
        let given = self.accounts.get(n).map(|(_, addr)| addr);
        let of_all = n.checked_rem(self.addrs.len()).and_then(|at| self.addrs.get(at));
        given.or(of_all).map_or("", |addr| addr)
    }
}
