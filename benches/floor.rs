//! The floor under a server on this runtime: what the same bytes cost in reads and writes alone.
//! `cargo bench --bench floor`, on two cores.
//!
//! An echo on tokio, in a process of its own on the first core, is fed from the second: chunks of
//! stanzas as they come together under load, and the exchanges of a login (their sizes are those of
//! `examples/server` with SASL PLAIN). What is printed is the CPU time of the echo.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a bench that cannot measure fails by panicking"
)]

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::task::JoinSet;

/// Bytes of a stanza, as in the other benches.
const STANZA: usize = 290;
const CONNECTIONS: usize = 500;
const STANZAS: usize = 150_000;
const LOGINS: usize = 3_000;
const AT_ONCE: usize = 100;
/// Bytes read and written for a login: header, SASL, header, bind, roster, presence.
const LOGIN: [(usize, usize); 6] =
    [(149, 478), (80, 51), (149, 601), (103, 109), (60, 111), (11, 65)];

fn main() -> io::Result<()> {
    if std::env::args().any(|arg| arg == "--serve") {
        return serve();
    }
    pin(1);
    println!("CPU time of a bare echo on tokio, best of 3:");
    for stanzas in [1, 8] {
        let cost = best(|address| chunks(address, stanzas * STANZA), STANZAS);
        println!("{cost:6.2} us for a stanza of {STANZA} bytes, {stanzas} to a read and a write");
    }
    println!(
        "{:6.1} us for the exchanges of a login, its connection included",
        best(logins, LOGINS)
    );
    Ok(())
}

/// Microseconds of the server's CPU for each of `count`.
fn best<F: Future<Output = io::Result<()>>>(load: impl Fn(SocketAddr) -> F, count: usize) -> f64 {
    let once = || {
        let mut server = Server::start();
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let before = server.cpu();
        runtime.block_on(load(server.address)).expect("the load is carried");
        (server.cpu() - before).as_secs_f64() * 1e6 / count as f64
    };
    std::iter::repeat_with(once).take(3).fold(f64::INFINITY, f64::min)
}

/// Each connection sends a chunk as soon as the one before is back.
async fn chunks(address: SocketAddr, bytes: usize) -> io::Result<()> {
    let mut all = JoinSet::new();
    for _ in 0..CONNECTIONS {
        all.spawn(async move {
            let mut socket = connect(address, 0).await?;
            let mut chunk = vec![b'x'; bytes];
            for _ in 0..STANZAS * STANZA / bytes / CONNECTIONS {
                socket.write_all(&chunk).await?;
                socket.read_exact(&mut chunk).await?;
            }
            io::Result::Ok(())
        });
    }
    while let Some(done) = all.join_next().await {
        done??;
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
                let mut socket = connect(address, 1).await?;
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

async fn connect(address: SocketAddr, offset: u16) -> io::Result<TcpStream> {
    let socket = TcpStream::connect((address.ip(), address.port() + offset)).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// The process that is measured.
struct Server {
    process: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl Server {
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

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _gone = self.process.wait();
    }
}

/// Two ports, one above the other: what comes on the first goes back; on the second, the answers of a
/// login.
fn serve() -> io::Result<()> {
    pin(0);
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (echo, login) = listen().await?;
        println!("{}", echo.local_addr()?.port());
        // Blocks until it is asked, on a thread that costs nothing.
        std::thread::spawn(|| {
            for _ in io::stdin().lines() {
                println!("{}", cpu().as_nanos());
            }
        });
        loop {
            tokio::select! {
                accepted = echo.accept() => drop(tokio::spawn(give_back(accepted?.0))),
                accepted = login.accept() => drop(tokio::spawn(answer_login(accepted?.0))),
            }
        }
    })
}

async fn listen() -> io::Result<(TcpListener, TcpListener)> {
    loop {
        let echo = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let above = echo.local_addr()?.port().saturating_add(1);
        if let Ok(login) = TcpListener::bind((Ipv4Addr::LOCALHOST, above)).await {
            return Ok((echo, login));
        }
    }
}

async fn give_back(mut socket: TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut buffer = [0; 8192];
    loop {
        match socket.read(&mut buffer).await? {
            0 => return Ok(()),
            n => socket.write_all(&buffer[..n]).await?,
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
