//! Two threads per connection, on the standard library: the caller's reads, a second one writes.
//!
//! [`listen`] accepts and serves connections until it is told to stop; [`serve`] serves one, over any [`Stream`].
//!
//! TLS needs both at once, while each of them may block in the socket. So the TLS state has a lock
//! that is never held during input or output, and records leave in the order in which they were made
//! because only the holder of a second lock makes and writes them: the writer, or the reader during
//! the handshake.

mod listen;
mod stream;
#[cfg(feature = "websocket")]
pub mod websocket;

pub use listen::{Accept, accept, listen};
pub use stream::Stream;

use std::fmt;
use std::io::{self, Read};
use std::net::Shutdown;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::task::{Context, Poll};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::ahead::Ahead;
use super::tls::Tls;
use super::{Farewell, Host, Machine, SHUTDOWN_PAUSE, TlsConfig, cut, is_of_tls, of_tls, tick};
use crate::connection::{Close, Connection, SharedConnection};
use crate::outbox::{Drain, Outbox};
use crate::park;
use crate::sasl::ChannelBindings;
use crate::server::{Offload, Place, Server, Transport, Want};

/// Does a server's work that belongs to no connection: what outlives one, and time-outs. Run it
/// once, on a separate thread; it never returns. [`listen`] does so by itself.
pub fn background<C: SharedConnection>(server: &Server<C>) {
    work(server, || true);
}

/// The same for the listeners of a host, as long as there is the host.
fn begin_background<C: SharedConnection>(host: &Arc<Host<C>>) -> io::Result<()> {
    if host.background_thread.swap(true, Ordering::SeqCst) {
        return Ok(());
    }
    let (server, lasting) = (host.server.clone(), Arc::downgrade(host));
    let thread = thread::Builder::new().name("xmpp background".into());
    let begun = thread.spawn(move || work(&server, || lasting.strong_count() > 0));
    if begun.is_err() {
        host.background_thread.store(false, Ordering::SeqCst);
    }
    begun.map(drop)
}

fn work<C: SharedConnection>(server: &Server<C>, goes_on: impl Fn() -> bool) {
    let waker = park::waker();
    let mut work = pin!(server.background());
    while goes_on() {
        // It never ends.
        let _pending = work.as_mut().poll(&mut Context::from_waker(&waker));
        server.handle_timeout();
        thread::park_timeout(tick(server));
    }
}

/// Threads that hash passwords, for [`ServerBuilder::hashing`](crate::server::ServerBuilder::hashing). They end
/// when it is dropped.
pub struct Workers(Sender<Hash>);

type Hash = Box<dyn FnOnce() + Send>;

impl Workers {
    /// Starts so many threads, at least one. More than
    /// [`Limits::hashes`](crate::server::Limits::hashes) are never busy.
    ///
    /// # Errors
    ///
    /// When the system gives no more threads.
    pub fn new(threads: usize) -> io::Result<Self> {
        let (queue, hashes) = channel::<Hash>();
        let hashes = Arc::new(Mutex::new(hashes));
        for _ in 0..threads.max(1) {
            let hashes = Arc::clone(&hashes);
            let thread = thread::Builder::new().name("xmpp hashing".into());
            thread.spawn(move || {
                let next = || hashes.lock().recv();
                while let Ok(hash) = next() {
                    hash();
                }
            })?;
        }
        Ok(Self(queue))
    }
}

impl Offload for Workers {
    fn run(&self, hash: Hash) {
        // The threads end only with this.
        let _sent = self.0.send(hash);
    }
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Workers")
    }
}

/// Ends every stream with `system-shutdown` ([DESTROY-16](crate::rules#destroy-16)), bound or not, and returns once all
/// connections are closed and what the sessions left is stored, or after `patience`. Handshakes are
/// broken off. A thread that waits for its client sees that within a second.
///
/// Call it once nothing more is accepted, while [`background`] still runs.
pub fn shutdown<C: SharedConnection>(host: &Host<C>, patience: Duration) {
    let deadline = after(patience);
    while !host.end_all() && Instant::now() < deadline {
        thread::sleep(SHUTDOWN_PAUSE);
    }
}

/// Serves one connection to its end, with STARTTLS if the host has a certificate. Blocks the
/// calling thread until then. A stream of TLS that the host has done itself is one too, which `transport` then
/// says ([`Transport::secured`]).
///
/// # Errors
///
/// When the transport broke, the handshake failed, or the flush at the end took too long. There is
/// nothing left to do but to log it.
pub fn serve<C, S>(host: &Host<C>, stream: S, transport: Transport) -> io::Result<()>
where
    C: SharedConnection,
    S: Stream,
{
    let (machine, outbox, drain) = Host::accept(host, transport.direct_tls(false));
    run(machine, outbox, drain, stream, Ahead::default(), false)
}

/// Serves one connection that begins with a TLS handshake
/// ([XEP-0368](https://xmpp.org/extensions/xep-0368.html)), for clients whose application protocol
/// is `xmpp-client` if they name any ([TLS-5](crate::rules#tls-5)).
///
/// # Errors
///
/// As [`serve`], and at once if the host has no certificate.
pub fn serve_direct_tls<C, S>(host: &Host<C>, stream: S, transport: Transport) -> io::Result<()>
where
    C: SharedConnection,
    S: Stream,
{
    let (machine, outbox, drain) = Host::accept(host, transport.direct_tls(true));
    run(machine, outbox, drain, stream, Ahead::default(), true)
}

pub(super) fn run<M: Machine, S: Stream>(
    machine: M,
    outbox: Arc<Outbox>,
    drain: Drain,
    stream: S,
    ahead: Ahead,
    direct_tls: bool,
) -> io::Result<()> {
    // The outbox gathers what belongs together: waiting for more helps nobody.
    stream.set_no_delay()?;
    // A writer that is stuck looks up this often.
    let limit = machine.settings().close.max(SHORT);
    let has_farewell = machine.has_farewell();
    stream.set_write_timeout(Some(limit))?;
    let wire = Wire {
        stream,
        ahead: Mutex::new(ahead),
        outbox,
        limit,
        has_farewell,
        writing: Mutex::new(()),
        plain: AtomicU64::new(u64::MAX),
        flushed: Condvar::new(),
        reader: thread::current(),
        read_timeout: AtomicU64::new(0),
        tls: Mutex::new(None),
    };
    thread::scope(|scope| {
        let (ended, writer_ended) = channel();
        let guard = Ends(&wire);
        let writer = thread::Builder::new().name("xmpp writer".into());
        writer.spawn_scoped(scope, || write_loop(&wire, drain, ended))?;
        let read = read_loop(&wire, machine, &writer_ended, direct_tls);
        drop(guard);
        read
    })
}

/// What the two threads share.
struct Wire<S> {
    stream: S,
    /// The reader's.
    ahead: Mutex<Ahead>,
    outbox: Arc<Outbox>,
    limit: Duration,
    /// The peer has a last word, which the reader waits for before it closes.
    has_farewell: bool,
    /// Held while records are made and written.
    writing: Mutex<()>,
    /// Where the plain text ends, from [`Want::StartTls`] to the end of the handshake.
    plain: AtomicU64,
    flushed: Condvar,
    /// Parked while too much waits to be written (LIMIT-13).
    reader: Thread,
    /// That of the stream, in nanoseconds: 0 until it is set.
    read_timeout: AtomicU64,
    /// Held for moments only. Inside `writing` if both are.
    tls: Mutex<Option<Box<Tls>>>,
}

/// Ends the other thread, however this one ends.
struct Ends<'a, S: Stream>(&'a Wire<S>);

impl<S: Stream> Drop for Ends<'_, S> {
    fn drop(&mut self) {
        self.0.outbox.close(Close::Abort);
        let _gone_already = self.0.stream.shutdown(Shutdown::Both);
        // Whoever has seen it open waits by now.
        drop(self.0.writing.lock());
        self.0.flushed.notify_all();
    }
}

fn read_loop<M: Machine, S: Stream>(
    wire: &Wire<S>,
    mut machine: M,
    writer_ended: &Receiver<io::Error>,
    direct_tls: bool,
) -> io::Result<()> {
    let mut bytes = Vec::new();
    let (mut open, mut is_silent) = (true, direct_tls);
    let deadline = after(machine.settings().handshake);
    loop {
        if machine.due_in() == Some(Duration::ZERO) {
            machine.handle_timeout();
        }
        let want = match wire.outbox.closed() {
            // Closed elsewhere: nothing more is said, and so nothing more is worth reading.
            Some(_) => Some(Want::Close),
            None => machine.want_blocking(),
        };
        match want {
            // Its time-out is due.
            None => {}
            Some(Want::Input) if open => {
                open = read_once(wire, &mut machine, &mut bytes)?;
            }
            Some(Want::Input) => thread::park_timeout(CHECK_INTERVAL),
            // LIMIT-25: no handshake before the peer begins it, and there is a place.
            Some(Want::StartTls) if is_silent => match wire.peek(deadline)? {
                Some(true) => {
                    is_silent = false;
                    machine.heard();
                }
                Some(false) => machine.end_of_input(),
                None => {}
            },
            Some(Want::StartTls) => {
                match wire.secure(&mut machine, direct_tls) {
                    Ok(bindings) => machine.secured(bindings),
                    Err(error) => {
                        // Unless the machine itself has had enough.
                        if error.kind() != io::ErrorKind::ConnectionAborted {
                            machine.tls_failed(&error);
                        }
                        return Err(error);
                    }
                }
            }
            Some(Want::Close) => return wire.finish(machine, writer_ended, open),
        }
    }
}

/// Reads what comes before the next time-out and hands it on. `false`: nothing will follow.
fn read_once<M: Machine, S: Stream>(
    wire: &Wire<S>,
    machine: &mut M,
    bytes: &mut Vec<u8>,
) -> io::Result<bool> {
    // A read is not interrupted when somebody else ends the session, so it never takes long.
    let longest = if machine.is_unbound() { EARLY_CHECK_INTERVAL } else { CHECK_INTERVAL };
    let time = machine.due_in().map_or(longest, |due| due.min(longest));
    let read = wire.read(bytes, time);
    if let Err(error) = &read
        && is_of_tls(error)
    {
        machine.tls_failed(error);
    }
    let open = read?;
    // Nothing came before a time-out: no sign of life (LIMIT-22).
    if !bytes.is_empty() {
        machine.receive(bytes);
        bytes.clear();
    }
    if !open {
        // It may still read the last answers.
        machine.end_of_input();
    }
    Ok(open)
}

fn write_loop<S: Stream>(wire: &Wire<S>, mut drain: Drain, ended: Sender<io::Error>) {
    let guard = Ends(wire);
    // A reader that does not wait for it learns of it by its next read.
    let fail = |error| {
        let _unheard = ended.send(error);
    };
    let mut records = Vec::new();
    let (mut give_up, mut position) = (None, 0_u64);
    while let Poll::Ready(Some(bytes)) = drain.fill_blocking(None) {
        let mut writing = wire.writing.lock();
        // TLS-2: what was sent behind `<proceed/>` waits for the end of the handshake.
        let plain = || wire.plain.load(Ordering::SeqCst).saturating_sub(position);
        while plain() == 0 && wire.outbox.closed() != Some(Close::Abort) {
            wire.flushed.wait(&mut writing);
        }
        // In parts, so that progress is seen (LIMIT-13).
        let most = usize::try_from(plain()).map_or(PART, |plain| plain.min(PART));
        let bytes = bytes.get(..most).unwrap_or(bytes);
        let written = match wire.encrypt(bytes, &mut records) {
            Ok(None) => wire.write(bytes, &mut give_up).map(|()| bytes.len()),
            Ok(Some(n)) => wire.write(&records, &mut give_up).map(|()| n),
            Err(error) => Err(error),
        };
        let n = match written {
            Ok(n) => n,
            Err(error) => return fail(error),
        };
        position = position.saturating_add(u64::try_from(n).unwrap_or(u64::MAX));
        drop(writing);
        // It may send what follows, and end sessions: not under our lock.
        drain.consume(n);
        // Whoever has seen that something waits, waits for it by now.
        drop(wire.writing.lock());
        wire.flushed.notify_all();
        wire.reader.unpark();
        records = Vec::new();
    }
    if drain.closed() == Some(Close::Abort) {
        return wire.part();
    }
    if !wire.has_farewell
        && let Err(error) = wire.say_goodbye(&mut give_up)
    {
        return fail(error);
    }
    // The reader ends the rest: its peer may still have something under way, and a socket that is
    // closed with that unread is reset, last words and all.
    std::mem::forget(guard);
    drop(ended);
}

/// The reader's end of the wire: what was read ahead comes first.
struct Reading<'a, S>(&'a Wire<S>);

impl<S: Stream> Read for Reading<'_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut n = 0;
        let most = buffer.len();
        let copy = |bytes: &[u8]| {
            n = bytes.len();
            if let Some(front) = buffer.get_mut(..n) {
                front.copy_from_slice(bytes);
            }
        };
        if self.0.ahead.lock().read(most, copy) { Ok(n) } else { self.0.stream.read(buffer) }
    }
}

impl<S: Stream> Wire<S> {
    /// Reads once, and appends what there is to `out`. False at the end of the stream; true with
    /// nothing read if the time passed.
    fn read(&self, out: &mut Vec<u8>, timeout: Duration) -> io::Result<bool> {
        // What came along with the end of the handshake.
        if let Some(tls) = self.tls.lock().as_mut() {
            out.append(&mut tls.take_plain());
            if tls.has_ended() || !out.is_empty() {
                return Ok(!tls.has_ended());
            }
        }
        let mut buffer = [0; 8192];
        self.set_read_timeout(timeout)?;
        let n = match Reading(self).read(&mut buffer) {
            Ok(0) => return Ok(false),
            Ok(n) => n,
            Err(error) if is_timeout(&error) => return Ok(true),
            Err(error) => return Err(error),
        };
        let bytes = buffer.get_mut(..n).unwrap_or_default();
        let mut guard = self.tls.lock();
        let Some(tls) = guard.as_mut() else {
            out.extend_from_slice(bytes);
            return Ok(true);
        };
        if let Err(error) = tls.receive(bytes) {
            drop(guard);
            self.part();
            let _gone_already = self.stream.shutdown(Shutdown::Write);
            self.linger(after(SHORT), None);
            return Err(of_tls(error));
        }
        out.append(&mut tls.take_plain());
        Ok(!tls.has_ended())
    }

    /// How long the next reads may wait: said where it is another time than before.
    fn set_read_timeout(&self, time: Duration) -> io::Result<()> {
        let time = time.max(SHORT);
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        if self.read_timeout.swap(nanos, Ordering::Relaxed) == nanos {
            return Ok(());
        }
        self.stream.set_read_timeout(Some(time))
    }

    /// Turns bytes into TLS records, and says how many it took; `None` without TLS.
    fn encrypt(&self, bytes: &[u8], records: &mut Vec<u8>) -> io::Result<Option<usize>> {
        let mut tls = self.tls.lock();
        let Some(tls) = tls.as_mut() else { return Ok(None) };
        let n = tls.encrypt(bytes).map_err(of_tls)?;
        *records = tls.take_outgoing();
        Ok(Some(n))
    }

    /// Writes all of it. Fails once the outbox is aborted, or was closed for longer than the limit
    /// as counted from `give_up`.
    fn write(&self, mut bytes: &[u8], give_up: &mut Option<Instant>) -> io::Result<()> {
        while !bytes.is_empty() {
            let closed = self.outbox.closed();
            if closed == Some(Close::Abort) {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            if closed.is_some()
                && Instant::now() >= *give_up.get_or_insert_with(|| after(self.limit))
            {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match self.stream.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
                Err(error) if is_timeout(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The last bytes of the transport itself, once the outbox is empty.
    fn say_goodbye(&self, give_up: &mut Option<Instant>) -> io::Result<()> {
        let _writing = self.writing.lock();
        let records = self.last_records();
        self.write(&records, give_up)?;
        // Of a peer that is gone there is nothing to be shut down.
        let _gone = self.stream.shutdown(Shutdown::Write);
        Ok(())
    }

    fn last_records(&self) -> Vec<u8> {
        let mut tls = self.tls.lock();
        let Some(tls) = tls.as_mut() else { return Vec::new() };
        tls.close();
        tls.take_outgoing()
    }

    /// Waits a moment for the peer: `true` if bytes arrived, `false` if it sends none at all, `None` if
    /// it is still silent.
    fn peek(&self, deadline: Instant) -> io::Result<Option<bool>> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let mut ahead = self.ahead.lock();
        if !ahead.is_empty() {
            return Ok(Some(true));
        }
        self.set_read_timeout(left.min(EARLY_CHECK_INTERVAL))?;
        let mut first = [0];
        match self.stream.read(&mut first) {
            Ok(0) => Ok(Some(false)),
            Ok(_) => {
                *ahead = Ahead::new(&first);
                Ok(Some(true))
            }
            Err(error) if is_timeout(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The last bytes of TLS (TLS-4, or the alert that tells what was wrong) where there is room for
    /// them: nobody is waited for, but a writer that is just about to let go.
    fn part(&self) {
        let Some(_writing) = self.writing.try_lock_for(SHORT) else { return };
        let records = self.last_records();
        if self.stream.set_write_timeout(Some(SHORT)).is_ok() {
            let _room = self.stream.write(&records);
        }
    }

    /// Waits until everything is written, then shakes hands. The writer rests meanwhile (TLS-2). The
    /// machine may be told to end before that, with nothing to say to a peer in the midst of it.
    fn secure<M: Machine>(&self, machine: &mut M, direct: bool) -> io::Result<ChannelBindings> {
        let settings = machine.settings();
        let config = match &settings.tls {
            Some(config) if self.tls.lock().is_none() => config.clone(),
            _ => return Err(io::Error::new(io::ErrorKind::Unsupported, "no TLS to start")),
        };
        let deadline = after(settings.handshake);
        let end = self.outbox.accepted();
        self.plain.store(end, Ordering::SeqCst);
        let mut writing = self.writing.lock();
        while self.outbox.written() < end {
            let left = left(machine, deadline)?;
            self.flushed.wait_for(&mut writing, left);
        }
        let mut tls = self.handshake(&config, direct, machine, deadline)?;
        self.stream.set_write_timeout(Some(self.limit))?;
        let bindings = config.bindings_of(&mut tls);
        *self.tls.lock() = Some(tls);
        self.plain.store(u64::MAX, Ordering::SeqCst);
        self.flushed.notify_all();
        Ok(bindings)
    }

    fn handshake<M: Machine>(
        &self,
        config: &TlsConfig,
        direct: bool,
        machine: &mut M,
        deadline: Instant,
    ) -> io::Result<Box<Tls>> {
        let (stream, mut socket) = (&self.stream, Reading(self));
        let mut tls = Box::new(config.begin(direct, machine.alpn()).map_err(of_tls)?);
        let mut buffer = [0; 8192];
        while tls.is_handshaking() || !tls.outgoing().is_empty() {
            let left = left(machine, deadline)?;
            let writes = !tls.outgoing().is_empty();
            let moved = if writes {
                stream.set_write_timeout(Some(left))?;
                stream.write(tls.outgoing())
            } else {
                self.set_read_timeout(left)?;
                socket.read(&mut buffer)
            };
            let n = match moved {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => n,
                Err(error) if is_timeout(&error) => continue,
                Err(error) => return Err(error),
            };
            if writes {
                tls.written(n);
            } else if let Err(error) = tls.receive(buffer.get_mut(..n).unwrap_or_default()) {
                // The alert that tells the peer why; what becomes of it does not matter.
                let _gone = stream
                    .set_write_timeout(Some(SHORT))
                    .and_then(|()| stream.write(tls.outgoing()));
                let _gone_already = stream.shutdown(Shutdown::Write);
                self.linger(after(SHORT), None);
                return Err(of_tls(error));
            }
        }
        Ok(tls)
    }

    /// Writes what waits, and closes.
    fn finish<M: Machine>(
        &self,
        mut machine: M,
        writer_ended: &Receiver<io::Error>,
        open: bool,
    ) -> io::Result<()> {
        let deadline = after(self.limit);
        let place = machine.place();
        self.flush(writer_ended, deadline, place.as_ref())?;
        let farewell = machine.farewell();
        drop(machine);
        if self.has_farewell {
            if let Some(farewell) = farewell.filter(|_| open) {
                self.hear_out(farewell, deadline, place.as_ref());
            }
            // There is room for it behind what was flushed.
            self.part();
            let _gone = self.stream.shutdown(Shutdown::Write);
        }
        self.linger(deadline, place.as_ref());
        Ok(())
    }

    /// Waits for the last words of the peer.
    fn hear_out(&self, mut farewell: Farewell, deadline: Instant, place: Option<&Place>) {
        let mut bytes = Vec::new();
        while !farewell.is_over() && !place.is_some_and(Place::is_cut) {
            let left = deadline.saturating_duration_since(Instant::now());
            let wait = left.min(EARLY_CHECK_INTERVAL);
            if left.is_zero() || !self.read(&mut bytes, wait).unwrap_or(false) {
                return;
            }
            farewell.read(&bytes);
            bytes.clear();
        }
    }

    /// Waits for the writer to write what waits.
    fn flush(
        &self,
        writer_ended: &Receiver<io::Error>,
        deadline: Instant,
        place: Option<&Place>,
    ) -> io::Result<()> {
        self.outbox.close(Close::Flush);
        loop {
            // The writer sends nothing: it lets go of its end.
            let left = deadline.saturating_duration_since(Instant::now());
            match writer_ended.recv_timeout(left.min(EARLY_CHECK_INTERVAL)) {
                Err(RecvTimeoutError::Timeout) if left.is_zero() => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Err(RecvTimeoutError::Timeout) if place.is_some_and(Place::is_cut) => {
                    return Err(cut());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Ok(error) => return Err(error),
            }
        }
    }

    /// Waits for the peer to close as well: closing a socket with unread bytes resets the connection,
    /// which can destroy the last bytes on their way.
    fn linger(&self, deadline: Instant, place: Option<&Place>) {
        let mut buffer = [0; 8192];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let wait = left.min(EARLY_CHECK_INTERVAL);
            if left.is_zero()
                || place.is_some_and(Place::is_cut)
                || self.set_read_timeout(wait).is_err()
            {
                return;
            }
            match Reading(self).read(&mut buffer) {
                Ok(1..) => {}
                Err(error) if is_timeout(&error) => {}
                _ => return,
            }
        }
    }
}

/// How long a step towards TLS may block before checking whether it is still wanted.
fn left<M: Machine>(machine: &mut M, deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if machine.want_blocking() == Some(Want::Close) {
        Err(io::ErrorKind::ConnectionAborted.into())
    } else if left.is_zero() {
        Err(io::ErrorKind::TimedOut.into())
    } else {
        Ok(left.clamp(SHORT, EARLY_CHECK_INTERVAL))
    }
}

fn is_timeout(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut | Interrupted)
}

/// The end of a time-out, a month from now at most: later ones need not be exact.
fn after(time: Duration) -> Instant {
    Instant::now() + time.min(Duration::from_secs(30 * 24 * 3600))
}

/// The shortest time-out given to a socket, which refuses zero.
const SHORT: Duration = Duration::from_millis(1);

/// How often a reader whose client is silent checks whether its stream was ended.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How often a stream without a session checks whether others need its place.
const EARLY_CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// Bytes written at a time without TLS.
const PART: usize = 64 * 1024;
