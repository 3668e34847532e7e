//! The floor under a server on this runtime: what the same bytes cost in reads and writes alone.
//! `cargo bench --features tokio,system --bench floor`, on two cores.
//!
//! A relay on tokio, and a server of this crate, each in a process of its own on the first core, are fed from the
//! second by the same generator: pairs of sockets, of which one sends and the other gets, in batches as they come
//! together under load, and one message at a time at a fixed pace. The exchanges of a login go to an echo (their sizes
//! are those of `examples/server` with SASL PLAIN). What is printed is the CPU time of the process.
//!
//! Between the two, for messages at their own time: a relay that reads the XML of what it hands on, and one that gives it to the
//! task of the other connection as well.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a bench that cannot measure fails by panicking"
)]

use std::hint::black_box;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};
use xmpp_session::environment::System;
use xmpp_session::host::tokio::listen;
use xmpp_session::host::{Host, Listener};
use xmpp_session::outbox::Outbox;
use xmpp_session::sasl::{Mechanism, Policy};
use xmpp_session::server::{DomainPolicy, Limits, Server};
use xmpp_session::store::{AnyAccount, Stores};
use xmpp_session::stream::{self, Parser};
use xmpp_session::xep::{Carbons, ClientState, Disco, Ping, StreamManagement};

const PAIRS: usize = 500;
const STANZAS: usize = 150_000;
/// One message of each pair in this time.
const PACE: Duration = Duration::from_millis(100);
const PACED: usize = 40;
const LOGINS: usize = 3_000;
const AT_ONCE: usize = 100;
/// Relay and server by turns: what else the machine does hits both.
const TURNS: usize = 7;
/// Bytes read and written for a login: header, SASL, header, bind, roster, presence.
const LOGIN: [(usize, usize); 6] =
    [(149, 478), (80, 51), (149, 601), (103, 109), (60, 111), (11, 65)];

fn main() -> io::Result<()> {
    if std::env::args().any(|arg| arg == "--serve") {
        return serve();
    }
    pin(1);
    println!(
        "CPU time on tokio, medians of {TURNS} rounds by turns, and how many times that of a relay:"
    );
    let compare = |what, steps: &[Way], batch, stanzas, pace| {
        let of = |way: &Way| {
            let way = *way;
            let load = move |_, pairs| talk(pairs, way, batch, stanzas, pace);
            cost(move |address| pairs(address, way), load, PAIRS * stanzas)
        };
        let mut turns = vec![Vec::new(); steps.len()];
        for _ in 0..TURNS {
            turns.iter_mut().zip(steps).for_each(|(turns, way)| turns.push(of(way)));
        }
        let costs: Vec<f64> = turns.into_iter().map(median).collect();
        println!("{what}:");
        for (way, cost) in steps.iter().zip(&costs) {
            println!("{cost:8.2} us {:5.2}  {}", cost / costs[0], way.name());
        }
    };
    let both = [Way::Relay, Way::Server];
    compare("a message, 8 at once", &both, 8, STANZAS / PAIRS / 8 * 8, None);
    compare("a message, one at once", &both, 1, STANZAS / PAIRS, None);
    let steps = [Way::Relay, Way::Reader, Way::Tasks, Way::Server];
    compare("a message at its own time", &steps, 1, PACED, Some(PACE));
    let login = || cost(async |_| Ok(()), |address, ()| logins(address), LOGINS);
    println!(
        "{:6.1} us for the exchanges of a login, its connection included",
        median((0..TURNS).map(|_| login()).collect())
    );
    Ok(())
}

fn median(mut costs: Vec<f64>) -> f64 {
    costs.sort_by(f64::total_cmp);
    costs[costs.len() / 2]
}

/// Microseconds of the process's CPU for each of `count`, without what comes before.
fn cost<S, F: Future<Output = io::Result<S>>, G: Future<Output = io::Result<()>>>(
    before: impl FnOnce(SocketAddr) -> F,
    load: impl FnOnce(SocketAddr, S) -> G,
    count: usize,
) -> f64 {
    let mut process = Process::start();
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let begun = runtime.block_on(before(process.address)).expect("it begins");
    let before = process.cpu();
    runtime.block_on(load(process.address, begun)).expect("the load is carried");
    (process.cpu() - before).as_secs_f64() * 1e6 / count as f64
}

type Pair = (TcpStream, TcpStream);

/// Pairs of connections: of the server, logged in.
async fn pairs(address: SocketAddr, way: Way) -> io::Result<Vec<Pair>> {
    let mut pairs = Vec::new();
    for n in 0..PAIRS {
        let (mut one, mut other) = (connect(address, way).await?, connect(address, way).await?);
        if way == Way::Server {
            log_in(&mut one, &format!("a{n:03}")).await?;
            log_in(&mut other, &format!("b{n:03}")).await?;
        }
        pairs.push((one, other));
    }
    Ok(pairs)
}

/// Each pair sends a batch as soon as the one before is there, or at its pace.
async fn talk(
    pairs: Vec<Pair>,
    way: Way,
    batch: usize,
    stanzas: usize,
    pace: Option<Duration>,
) -> io::Result<()> {
    let mut all = JoinSet::new();
    for (n, (mut one, mut other)) in pairs.into_iter().enumerate() {
        let sent = message(way == Way::Server, n).repeat(batch);
        // A relay is sent what the server delivers.
        let mut got = vec![b'x'; message(false, n).len() * batch];
        all.spawn(async move {
            if let Some(pace) = pace {
                sleep(pace * u32::try_from(n).unwrap_or(0) / PAIRS as u32).await;
            }
            let mut ticks = pace.map(interval);
            for _ in 0..stanzas / batch {
                if let Some(ticks) = &mut ticks {
                    ticks.tick().await;
                }
                one.write_all(sent.as_bytes()).await?;
                other.read_exact(&mut got).await?;
            }
            assert!(got.ends_with(b"</message>"), "it is what was sent");
            io::Result::Ok(())
        });
    }
    while let Some(done) = all.join_next().await {
        done??;
    }
    Ok(())
}

/// As it is sent to the server, or as that delivers it.
fn message(is_sent: bool, pair: usize) -> String {
    let from = if is_sent { String::new() } else { format!(" from='a{pair:03}@localhost/r'") };
    format!(
        "<message{from} to='b{pair:03}@localhost/r' id='c5b2f9f4' type='chat' xml:lang='en'><body>Wherefore art thou \
         Romeo? Deny thy father and refuse thy name, or or be but sworn my love, etc.</body><active \
         xmlns='http://jabber.org/protocol/chatstates'/><request xmlns='urn:xmpp:receipts'/></message>"
    )
}

const HEADER: &str = "<stream:stream xmlns='jabber:client' to='localhost' version='1.0' \
                      xmlns:stream='http://etherx.jabber.org/streams'>";

/// Up to a session with the resource `r`.
async fn log_in(socket: &mut TcpStream, node: &str) -> io::Result<()> {
    let plain = base64(format!("\0{node}\0secret").as_bytes());
    let sasl = "urn:ietf:params:xml:ns:xmpp-sasl";
    let auth = format!("<auth xmlns='{sasl}' mechanism='PLAIN'>{plain}</auth>");
    let bind = "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
                <resource>r</resource></bind></iq>";
    for (request, answer) in [
        (HEADER, "</stream:features>"),
        (&*auth, "<success"),
        (HEADER, "</stream:features>"),
        (bind, "</iq>"),
    ] {
        socket.write_all(request.as_bytes()).await?;
        let mut got = Vec::new();
        while !String::from_utf8_lossy(&got).contains(answer) {
            assert!(socket.read_buf(&mut got).await? > 0, "{}", String::from_utf8_lossy(&got));
        }
    }
    Ok(())
}

/// The connections stay open to the end, as those of users do.
async fn logins(address: SocketAddr) -> io::Result<()> {
    let mut all = JoinSet::new();
    for _ in 0..AT_ONCE {
        all.spawn(async move {
            let mut open = Vec::new();
            for _ in 0..LOGINS / AT_ONCE {
                let mut socket = connect(address, Way::Login).await?;
                let mut buffer = [b'x'; 1024];
                for (sent, received) in LOGIN {
                    socket.write_all(&buffer[..sent]).await?;
                    socket.read_exact(&mut buffer[..received]).await?;
                }
                open.push(socket);
            }
            io::Result::Ok(open)
        });
    }
    let mut open = Vec::new();
    while let Some(done) = all.join_next().await {
        open.push(done??);
    }
    Ok(())
}

/// Of a number of bytes that three divides.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (triples, rest) = bytes.as_chunks::<3>();
    assert!(rest.is_empty(), "no padding is needed");
    let digit = |bits: u32| char::from(DIGITS[bits as usize & 63]);
    let digits = triples.iter().flat_map(|&[a, b, c]| {
        let bits = u32::from_be_bytes([0, a, b, c]);
        [bits >> 18, bits >> 12, bits >> 6, bits].map(digit)
    });
    digits.collect()
}

async fn connect(address: SocketAddr, way: Way) -> io::Result<TcpStream> {
    let socket = TcpStream::connect((address.ip(), address.port() + way as u16)).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// The process that is measured.
struct Process {
    process: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl Process {
    fn start() -> Self {
        let program = std::env::current_exe().expect("a path");
        let mut command = Command::new(program);
        command.arg("--serve").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("it starts");
        let asks = process.stdin.take().expect("piped");
        let answers = BufReader::new(process.stdout.take().expect("piped"));
        let mut this = Self { process, asks, answers, address: (Ipv4Addr::LOCALHOST, 0).into() };
        let port = this.answer().parse().expect("a port");
        this.address.set_port(port);
        this
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("it answers");
        line.trim().to_owned()
    }

    /// What it has used so far.
    fn cpu(&mut self) -> Duration {
        self.asks.write_all(b"\n").expect("it listens");
        Duration::from_nanos(self.answer().parse().expect("nanoseconds"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _gone = self.process.wait();
    }
}

/// What there is to connect to, each at the port above the one before.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    /// What comes from one connection goes to the one after it.
    Relay,
    /// The same, where it is XML.
    Reader,
    /// The same, from the task of one to the task of the other.
    Tasks,
    /// The answers of a login.
    Login,
    Server,
}

impl Way {
    const RELAYS: [Self; 3] = [Self::Relay, Self::Reader, Self::Tasks];

    fn name(self) -> &'static str {
        match self {
            Self::Relay => "a relay",
            Self::Reader => "one that reads the XML",
            Self::Tasks => "and gives it to another task",
            Self::Login => "a login",
            Self::Server => "a server",
        }
    }
}

fn serve() -> io::Result<()> {
    pin(0);
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (relays, login, server) = listeners().await?;
        println!("{}", relays[0].local_addr()?.port());
        // Blocks until it is asked, on a thread that costs nothing.
        std::thread::spawn(|| {
            for _ in io::stdin().lines() {
                println!("{}", cpu().as_nanos());
            }
        });
        drop(tokio::spawn(listen(host(), Listener::new(server).secure(), std::future::pending())));
        for (way, relay) in Way::RELAYS.into_iter().zip(relays) {
            tokio::spawn(async move {
                while let (Ok((one, _)), Ok((other, _))) =
                    (relay.accept().await, relay.accept().await)
                {
                    tokio::spawn(hand_on(way, one, other));
                }
            });
        }
        loop {
            drop(tokio::spawn(answer_login(login.accept().await?.0)));
        }
    })
}

fn host() -> Arc<Host<Arc<Outbox>>> {
    let environment = Arc::new(System::new());
    let mut stores = Stores::memory();
    stores.accounts = Arc::new(AnyAccount::new("secret").expect("a password"));
    let sasl = Policy::new(&*environment).mechanisms(&[Mechanism::Plain]);
    let mut policy = DomainPolicy::default();
    policy.tls_required = false;
    policy.sasl = Some(sasl);
    let server = Server::builder(environment, stores)
        .domain_with("localhost".parse().expect("a domain"), policy)
        .limits(Limits::unlimited())
        .extension(StreamManagement::new())
        .extension(Carbons::new())
        .extension(ClientState)
        .extension(Ping)
        .extension(Disco::new())
        .build();
    Arc::new(Host::new(server))
}

async fn listeners() -> io::Result<(Vec<TcpListener>, TcpListener, TcpListener)> {
    loop {
        let first = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = first.local_addr()?.port();
        let at = |way| TcpListener::bind((Ipv4Addr::LOCALHOST, port.saturating_add(way as u16)));
        if let (Ok(second), Ok(third), Ok(login), Ok(server)) = (
            at(Way::Reader).await,
            at(Way::Tasks).await,
            at(Way::Login).await,
            at(Way::Server).await,
        ) {
            return Ok((vec![first, second, third], login, server));
        }
    }
}

/// What comes from one goes to the other.
async fn hand_on(way: Way, mut one: TcpStream, other: TcpStream) -> io::Result<()> {
    other.set_nodelay(true)?;
    let limits = stream::Limits::default();
    let mut parser = Box::new(Parser::new(&limits));
    parser.feed(HEADER.as_bytes());
    assert!(parser.next().is_ok_and(|event| event.is_some()), "a header");
    parser.authenticated(&limits);
    let (queue, mut queued) = unbounded_channel::<Vec<u8>>();
    let mut direct = Some(other);
    if way == Way::Tasks
        && let Some(mut other) = direct.take()
    {
        tokio::spawn(async move {
            while let Some(bytes) = queued.recv().await {
                other.write_all(&bytes).await?;
            }
            io::Result::Ok(())
        });
    }
    let mut buffer = [0; 8192];
    loop {
        let n = one.read(&mut buffer).await?;
        let bytes = &buffer[..n];
        if way != Way::Relay {
            let mut rest = bytes;
            while let Some(stanza) = parser.read(&mut rest).expect("XML") {
                black_box(stanza);
            }
        }
        match &mut direct {
            _ if n == 0 => return Ok(()),
            Some(other) => other.write_all(bytes).await?,
            None => queue.send(bytes.to_vec()).map_err(io::Error::other)?,
        }
    }
}

async fn answer_login(mut socket: TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut buffer = [b'x'; 8192];
    for (received, sent) in LOGIN {
        let n = socket.read(&mut buffer).await?;
        assert!(n == received || n == 0, "requests come whole");
        socket.write_all(&buffer[..sent]).await?;
    }
    let _end = socket.read(&mut buffer).await?;
    Ok(())
}

#[cfg(target_os = "linux")]
fn pin(core: usize) {
    let mut cores = rustix::thread::CpuSet::new();
    cores.set(core);
    rustix::thread::sched_setaffinity(None, &cores).expect("there are two cores");
}

#[cfg(target_os = "linux")]
fn cpu() -> Duration {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    used.try_into().expect("it does not run backwards")
}

#[cfg(not(target_os = "linux"))]
fn pin(_: usize) {
    panic!("the floor is measured on Linux");
}

#[cfg(not(target_os = "linux"))]
fn cpu() -> Duration {
    Duration::ZERO
}
