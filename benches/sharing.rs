//! What it costs that cores share a server: `cargo bench --features system --bench sharing`, on two cores.
//!
//! Clients of one thread write messages to each other through their drivers, in memory, to connections that swallow
//! what they are sent. One thread does so, then two at once: each on a server of its own, and both on one. All of
//! that in turns, each turn in a process of its own. The figures are CPU time of the threads: where two on one server
//! take longer than two on servers of their own, that is what sharing costs; where these take longer than one alone,
//! it is the machine (its caches, its memory, its clock).

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a bench that cannot measure fails by panicking"
)]

use std::future::Future;
use std::pin::pin;
use std::process::Command;
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use xmpp_session::connection::{Close, Connection, SendError};
use xmpp_session::environment::System;
use xmpp_session::sasl::{Mechanism, Policy};
use xmpp_session::server::{DomainPolicy, Driver, Limits, Server, Transport};
use xmpp_session::stanza::Frame;
use xmpp_session::store::{AnyAccount, Stores};
use xmpp_session::xep::{Carbons, ClientState, StreamManagement};

/// Pairs of a thread.
const PAIRS: usize = 500;
const MESSAGES: usize = 400_000;
const ROUNDS: usize = 7;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let Some(at) = args.iter().position(|arg| arg == "--run") {
        let number = |at: usize| args[at].parse().expect("a number");
        return println!("{:.1}", run(number(at + 1), number(at + 2)));
    }
    let kinds = [(1, 1, "one thread"), (2, 2, "two, each with a server"), (2, 1, "two on one")];
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        for (times, (threads, servers, _)) in times.iter_mut().zip(kinds) {
            times.push(child(threads, servers));
        }
    }
    println!(
        "CPU nanoseconds of a message: median of {ROUNDS} turns, in brackets the least and the most"
    );
    let medians = times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        (times[ROUNDS / 2], times[0], times[ROUNDS - 1])
    });
    for ((_, _, name), (median, least, most)) in kinds.into_iter().zip(medians) {
        println!("{median:6.0} ({least:.0}-{most:.0})  {name}");
    }
    let [_, (apart, ..), (shared, ..)] = medians;
    println!("{:+6.1} %  what sharing costs", (shared / apart - 1.0) * 100.0);
}

fn child(threads: usize, servers: usize) -> f64 {
    let program = std::env::current_exe().expect("this program");
    let args = ["--run".to_owned(), threads.to_string(), servers.to_string()];
    let child = Command::new(program).args(args).output().expect("a child");
    let figure = String::from_utf8(child.stdout).expect("a figure");
    figure.trim().parse().unwrap_or_else(|_| panic!("a child failed: {figure}"))
}

/// CPU nanoseconds of a message, the mean of the threads.
fn run(threads: usize, servers: usize) -> f64 {
    let servers: Vec<_> = (0..servers).map(|_| server()).collect();
    let barrier = Barrier::new(threads);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|thread| {
                let (server, barrier) = (&servers[thread % servers.len()], &barrier);
                scope.spawn(move || talk(server, thread, barrier))
            })
            .collect();
        let count = threads.len() as f64;
        threads.into_iter().map(|thread| thread.join().expect("no panic")).sum::<f64>() / count
    })
}

fn talk(server: &Server<Wire>, thread: usize, barrier: &Barrier) -> f64 {
    pin_to(thread);
    let name = |side: char, pair: usize| format!("{side}{thread}{pair:03}");
    let mut pairs: Vec<_> = (0..PAIRS)
        .map(|pair| {
            let recipient = online(server, &name('b', pair));
            let message = format!(
                "<message to='{}@localhost/r' type='chat' id='c5b2f9f4'><body>Wherefore art thou Romeo? Deny thy \
                 father and refuse thy name</body></message>",
                name('b', pair)
            );
            (online(server, &name('a', pair)), recipient, message)
        })
        .collect();
    let mut say = |count: usize| {
        for n in 0..count {
            let (sender, _, message) = &mut pairs[n % PAIRS];
            sender.driver.receive(message.as_bytes());
        }
    };
    say(PAIRS * 4);
    barrier.wait();
    let start = cpu();
    say(MESSAGES);
    let took = cpu() - start;
    barrier.wait();
    for (_, recipient, _) in &pairs {
        assert_eq!(recipient.wire.0.lock().expect("no panic").0, MESSAGES / PAIRS + 4);
    }
    took.as_nanos() as f64 / MESSAGES as f64
}

fn server() -> Server<Wire> {
    let environment = Arc::new(System::new());
    let mut stores = Stores::memory();
    stores.accounts = Arc::new(AnyAccount::new("secret").expect("a password"));
    let mut policy = DomainPolicy::default();
    policy.sasl = Some(Policy::new(&*environment).mechanisms(&[Mechanism::Plain]));
    Server::builder(environment, stores)
        .domain_with("localhost".parse().expect("a domain"), policy)
        .limits(Limits::unlimited())
        .extension(StreamManagement::new())
        .extension(Carbons::new())
        .extension(ClientState)
        .build()
}

struct Client {
    driver: Driver<Wire>,
    wire: Wire,
}

impl Client {
    fn ask(&mut self, xml: &str) {
        self.driver.receive(xml.as_bytes());
        let polled = pin!(self.driver.want()).poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_ready(), "a store in memory does not wait");
    }
}

fn online(server: &Server<Wire>, node: &str) -> Client {
    let wire = Wire::default();
    let driver = server.accept(Arc::clone(&wire), Transport::new().secure(true));
    let mut client = Client { driver, wire };
    let header = "<stream:stream xmlns='jabber:client' to='localhost' version='1.0' \
                  xmlns:stream='http://etherx.jabber.org/streams'>";
    client.ask(header);
    let plain = base64(format!("\0{node}\0secret").as_bytes());
    let sasl = "urn:ietf:params:xml:ns:xmpp-sasl";
    client.ask(&format!("<auth xmlns='{sasl}' mechanism='PLAIN'>{plain}</auth>"));
    client.ask(header);
    client.ask(
        "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
         <resource>r</resource></bind></iq>",
    );
    assert!(client.driver.session().is_some(), "logged in");
    client
}

/// Of bytes to which one of padding is due.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let padded = [bytes, &[0, 0][..(3 - bytes.len() % 3) % 3]].concat();
    let digit = |bits: u32| char::from(DIGITS[bits as usize & 63]);
    let (triples, _) = padded.as_chunks::<3>();
    let digits = triples.iter().flat_map(|&[a, b, c]| {
        let bits = u32::from_be_bytes([0, a, b, c]);
        [bits >> 18, bits >> 12, bits >> 6, bits].map(digit)
    });
    let mut text: String = digits.collect();
    let padding = padded.len() - bytes.len();
    text.truncate(text.len() - padding);
    text.push_str(&"=="[..padding]);
    text
}

/// Counts messages, and writes them to the same place again and again, as a socket takes them out.
#[derive(Default)]
struct Swallow(Mutex<(usize, Vec<u8>)>);

type Wire = Arc<Swallow>;

impl Connection for Swallow {
    fn send(&self, frame: Frame<'_>) -> Result<(), SendError> {
        let mut taken = self.0.lock().expect("no panic");
        taken.1.clear();
        frame.write_to(&mut taken.1);
        taken.0 += usize::from(taken.1.starts_with(b"<message"));
        Ok(())
    }

    fn close(&self, _how: Close) {}
}

#[cfg(target_os = "linux")]
fn pin_to(core: usize) {
    let mut cores = rustix::thread::CpuSet::new();
    cores.set(core);
    rustix::thread::sched_setaffinity(None, &cores).expect("there are as many cores");
}

#[cfg(target_os = "linux")]
fn cpu() -> Duration {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    used.try_into().expect("it does not run backwards")
}

#[cfg(not(target_os = "linux"))]
fn pin_to(_: usize) {
    panic!("this is measured on Linux");
}

#[cfg(not(target_os = "linux"))]
fn cpu() -> Duration {
    Duration::ZERO
}
