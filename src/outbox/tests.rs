use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Weak;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::Wake;
use std::thread;

use super::*;
use crate::stanza::Stanza;

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// A hook made of a closure that counts its calls.
struct Hook<F> {
    calls: AtomicUsize,
    drained: AtomicUsize,
    run: F,
}

impl<F: Fn(&mut Vec<u8>) + Send + Sync> PreDrain for Hook<F> {
    fn pre_drain(&self, out: &mut dyn FnMut(Frame<'_>)) {
        self.calls.fetch_add(1, SeqCst);
        let mut added = Vec::new();
        (self.run)(&mut added);
        out(Frame::element(&added));
    }

    fn drained(&self) {
        self.drained.fetch_add(1, SeqCst);
    }
}

fn hook<F: Fn(&mut Vec<u8>) + Send + Sync + 'static>(run: F) -> Arc<Hook<F>> {
    Arc::new(Hook { calls: AtomicUsize::new(0), drained: AtomicUsize::new(0), run })
}

fn open() -> (Arc<Outbox>, Drain) {
    Outbox::new(Marks::default())
}

fn send(outbox: &Outbox, text: &str) -> Result<(), SendError> {
    outbox.send(Frame::element(text.as_bytes()))
}

fn poll(drain: &mut Drain) -> Poll<Option<String>> {
    let filled = drain.poll_fill(&mut Context::from_waker(Waker::noop()));
    filled.map(|bytes| bytes.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap()))
}

/// What one write would carry.
fn piece(drain: &mut Drain) -> String {
    let Poll::Ready(Some(text)) = poll(drain) else { panic!("nothing to write") };
    drain.consume(text.len());
    text
}

fn capacity(outbox: &Outbox, drain: &Drain) -> usize {
    outbox.state.lock().buffer.capacity() + drain.piece.capacity()
}

/// LIMIT-13 is about peers that do not read; how long one stanza may be is for others to say.
#[test]
fn limit_13_one_frame_of_any_size_for_a_peer_that_has_read_all() {
    let (outbox, mut drain) = Outbox::new(Marks::new(4, 8));
    send(&outbox, "0123456789").unwrap();
    assert_eq!(send(&outbox, ""), Err(SendError::Full));
    assert_eq!(piece(&mut drain), "0123456789");
    send(&outbox, "0123456789").unwrap();
}

#[test]
fn the_hook_is_told_when_everything_is_written() {
    let (outbox, mut drain) = open();
    let hook = hook(|_| ());
    outbox.on_drain(Arc::clone(&hook) as Arc<dyn PreDrain>);
    send(&outbox, "<a/>").unwrap();
    assert_eq!(poll(&mut drain), Poll::Ready(Some("<a/>".into())));
    drain.consume(2);
    assert_eq!(hook.drained.load(SeqCst), 0);
    send(&outbox, "<b/>").unwrap();
    drain.consume(2);
    assert_eq!(hook.drained.load(SeqCst), 0, "another piece waits");
    assert_eq!(piece(&mut drain), "<b/>");
    assert_eq!(hook.drained.load(SeqCst), 1);
}

#[test]
fn what_waits_is_handed_out_in_one_piece_and_counts_until_consumed() {
    let (outbox, mut drain) = open();
    assert_eq!(poll(&mut drain), Poll::Pending);
    send(&outbox, "<a/>").unwrap();
    send(&outbox, "<b/>").unwrap();
    assert_eq!(poll(&mut drain), Poll::Ready(Some("<a/><b/>".into())));
    assert_eq!((outbox.waiting(), outbox.written()), (8, 0));
    drain.consume(3);
    send(&outbox, "<c/>").unwrap();
    assert_eq!((outbox.waiting(), outbox.written()), (9, 3));
    assert_eq!(piece(&mut drain), "><b/>");
    assert_eq!(piece(&mut drain), "<c/>");
    assert_eq!((outbox.waiting(), outbox.written()), (0, 12));
    drain.consume(99);
    assert_eq!(outbox.written(), 12);
}

#[test]
fn limit_13_marks() {
    let (outbox, mut drain) = Outbox::new(Marks::new(4, 10));
    assert_eq!(Marks::default(), Marks { soft: 65_536, hard: 2_097_152 });
    send(&outbox, "1234").unwrap();
    assert_eq!(poll(&mut drain), Poll::Ready(Some("1234".into())));
    send(&outbox, "567890").unwrap();
    assert_eq!(send(&outbox, "x"), Err(SendError::Full), "handed out is not written");
    drain.consume(1);
    send(&outbox, "x").unwrap();
    assert_eq!(outbox.waiting(), 10);
}

/// A stanza waits in its session, where it can still be given to somebody else; what ends a stream cannot.
#[test]
fn limit_13_stanzas_are_taken_up_to_the_soft_mark() {
    let (outbox, mut drain) = Outbox::new(Marks::new(20, 40));
    let stanza = Stanza::message().id("1").build();
    let send_stanza = || outbox.send(Frame::stanza(&stanza));
    send_stanza().unwrap();
    assert_eq!(send_stanza(), Err(SendError::Full));
    send(&outbox, "</stream:stream>").unwrap();
    assert_eq!(send(&outbox, "</stream:stream>"), Err(SendError::Full));
    assert_eq!(piece(&mut drain), "<message id='1'/></stream:stream>");
    send_stanza().unwrap();
}

#[test]
fn an_idle_outbox_owns_no_buffer_and_a_huge_one_is_not_kept() {
    let (outbox, mut drain) = open();
    assert_eq!(capacity(&outbox, &drain), 0);
    send(&outbox, &"x".repeat(1_000_000)).unwrap();
    assert_eq!(
        poll(&mut drain).map(|text| text.map(|text| text.len())),
        Poll::Ready(Some(1_000_000))
    );
    send(&outbox, "<a/>").unwrap();
    drain.consume(1_000_000);
    assert!(capacity(&outbox, &drain) <= KEPT);
    assert_eq!(piece(&mut drain), "<a/>");
    assert_eq!(capacity(&outbox, &drain), 0);
}

#[test]
fn the_hook_runs_once_per_piece_and_its_output_is_in_that_piece() {
    let (outbox, mut drain) = open();
    send(&outbox, "<early/>").unwrap();
    let weak = Arc::downgrade(&outbox);
    let hook = hook(move |out| {
        send(&weak.upgrade().unwrap(), "<sent/>").unwrap();
        out.extend_from_slice(b"<appended/>");
    });
    outbox.on_drain(hook.clone());
    assert_eq!(poll(&mut drain), Poll::Ready(Some("<early/><sent/><appended/>".into())));
    drain.consume(1);
    assert_eq!(piece(&mut drain), "early/><sent/><appended/>", "a rest is no new piece");
    assert_eq!(poll(&mut drain), Poll::Pending);
    assert_eq!(hook.calls.load(SeqCst), 1, "nothing to write, nothing to trail");
    send(&outbox, "<next/>").unwrap();
    assert_eq!(piece(&mut drain), "<next/><sent/><appended/>");
}

#[test]
fn the_hook_runs_without_the_lock_and_what_others_send_meanwhile_is_kept() {
    let (outbox, mut drain) = open();
    send(&outbox, "<a/>").unwrap();
    let shared = Arc::clone(&outbox);
    outbox.on_drain(hook(move |out| {
        // Would hang if the lock were held.
        let other = Arc::clone(&shared);
        thread::spawn(move || send(&other, "<other/>").unwrap()).join().unwrap();
        shared.on_drain(hook(|out| out.extend_from_slice(b"<new/>")));
        out.extend_from_slice(b"<old/>");
    }));
    assert_eq!(piece(&mut drain), "<a/><other/><old/>");
    send(&outbox, "<b/>").unwrap();
    assert_eq!(piece(&mut drain), "<b/><new/>", "the hook set last is the one that counts");
}

#[test]
fn no_hook_runs_after_close() {
    let (outbox, mut drain) = open();
    let hook = hook(|out| out.extend_from_slice(b"<r/>"));
    outbox.on_drain(hook.clone());
    send(&outbox, "</stream:stream>").unwrap();
    outbox.close(Close::Flush);
    assert_eq!(Arc::strong_count(&hook), 1, "a closed outbox lets its hook go");
    outbox.on_drain(hook.clone());
    assert_eq!(Arc::strong_count(&hook), 1);
    assert_eq!(piece(&mut drain), "</stream:stream>");
    assert_eq!(poll(&mut drain), Poll::Ready(None));
    assert_eq!(hook.calls.load(SeqCst), 0);
}

#[test]
fn trailing_data_stays_before_a_close_tag_that_overtook_the_hook() {
    let (outbox, mut drain) = open();
    send(&outbox, "<a/>").unwrap();
    let shared = Arc::clone(&outbox);
    outbox.on_drain(hook(move |out| {
        send(&shared, "</stream:stream>").unwrap();
        shared.close(Close::Flush);
        out.extend_from_slice(b"<r/>");
    }));
    assert_eq!(piece(&mut drain), "<a/><r/></stream:stream>");
    assert_eq!(poll(&mut drain), Poll::Ready(None));
}

#[test]
fn an_abort_inside_the_hook_ends_at_once() {
    let (outbox, mut drain) = open();
    send(&outbox, "<a/>").unwrap();
    let shared = Arc::clone(&outbox);
    outbox.on_drain(hook(move |out| {
        shared.close(Close::Abort);
        out.extend_from_slice(b"<r/>");
    }));
    assert_eq!(poll(&mut drain), Poll::Ready(None));
    assert_eq!((outbox.waiting(), capacity(&outbox, &drain)), (0, 0));
}

#[test]
fn a_panicking_hook_loses_nothing_else() {
    let (outbox, mut drain) = open();
    send(&outbox, "<a/>").unwrap();
    let shared = Arc::clone(&outbox);
    outbox.on_drain(hook(move |_| {
        send(&shared, "<b/>").unwrap();
        panic!("the hook's own fault");
    }));
    assert!(catch_unwind(AssertUnwindSafe(|| poll(&mut drain))).is_err());
    send(&outbox, "<c/>").unwrap();
    assert_eq!(piece(&mut drain), "<a/><b/><c/>");
    assert_eq!(outbox.waiting(), 0);
}

#[test]
fn flush_hands_out_what_is_there_and_abort_overrides_it() {
    let (outbox, mut drain) = open();
    send(&outbox, "<a/>").unwrap();
    send(&outbox, "<b/>").unwrap();
    outbox.close(Close::Flush);
    assert_eq!(send(&outbox, "<c/>"), Err(SendError::Closed));
    assert_eq!(drain.closed(), Some(Close::Flush));
    assert_eq!(poll(&mut drain), Poll::Ready(Some("<a/><b/>".into())));
    drain.consume(4);
    outbox.close(Close::Abort);
    outbox.close(Close::Flush);
    assert_eq!(drain.closed(), Some(Close::Abort));
    assert_eq!(outbox.waiting(), 0);
    assert_eq!(poll(&mut drain), Poll::Ready(None));
    assert_eq!(poll(&mut drain), Poll::Ready(None));
    drain.consume(4);
    assert_eq!(capacity(&outbox, &drain), 0);
}

#[test]
fn a_dropped_drain_closes() {
    let (outbox, drain) = open();
    let kept: Arc<Hook<_>> = hook(|_| {});
    outbox.on_drain(kept.clone());
    send(&outbox, "<a/>").unwrap();
    drop(drain);
    assert_eq!(send(&outbox, "<b/>"), Err(SendError::Closed));
    assert_eq!(outbox.waiting(), 0);
    assert_eq!(Arc::strong_count(&kept), 1);
}

#[test]
fn the_latest_waker_is_woken_once_by_send_and_by_close() {
    let (outbox, mut drain) = open();
    let (old, new) = (Arc::new(Count::default()), Arc::new(Count::default()));
    for count in [&old, &new, &new] {
        let waker = Waker::from(Arc::clone(count));
        assert!(drain.poll_fill(&mut Context::from_waker(&waker)).is_pending());
    }
    send(&outbox, "<a/>").unwrap();
    send(&outbox, "<b/>").unwrap();
    assert_eq!((old.0.load(SeqCst), new.0.load(SeqCst)), (0, 1));
    assert_eq!(piece(&mut drain), "<a/><b/>");
    let waker = Waker::from(Arc::clone(&new));
    assert!(drain.poll_fill(&mut Context::from_waker(&waker)).is_pending());
    outbox.close(Close::Flush);
    assert_eq!(new.0.load(SeqCst), 2);
}

#[test]
fn a_writer_that_cannot_write_is_woken_by_close_alone() {
    let (outbox, mut drain) = open();
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    let mut cx = Context::from_waker(&waker);
    send(&outbox, "<a/>").unwrap();
    assert!(drain.poll_fill(&mut cx).is_ready());
    assert_eq!(drain.poll_close(&mut cx), Poll::Pending);
    send(&outbox, "<b/>").unwrap();
    assert_eq!(count.0.load(SeqCst), 0);
    outbox.close(Close::Flush);
    assert_eq!(count.0.load(SeqCst), 1);
    assert_eq!(drain.poll_close(&mut cx), Poll::Ready(Close::Flush));
    outbox.close(Close::Abort);
    assert_eq!(count.0.load(SeqCst), 2);
    assert_eq!(drain.poll_close(&mut cx), Poll::Ready(Close::Abort));

    let (outbox, mut drain) = open();
    assert_eq!(drain.poll_close(&mut cx), Poll::Pending);
    assert!(drain.poll_fill(&mut cx).is_pending());
    send(&outbox, "<a/>").unwrap();
    assert_eq!(count.0.load(SeqCst), 3, "a fill that finds nothing waits for frames again");
}

#[test]
fn wakers_are_woken_and_dropped_without_the_lock() {
    /// Looks at the outbox from wherever foreign code gets to run.
    struct Peeks(Weak<Outbox>);

    impl Peeks {
        fn peek(&self) {
            if let Some(outbox) = self.0.upgrade() {
                assert!(!outbox.state.is_locked());
            }
        }
    }

    impl Wake for Peeks {
        fn wake(self: Arc<Self>) {
            self.peek();
        }
    }

    impl Drop for Peeks {
        fn drop(&mut self) {
            self.peek();
        }
    }

    let (outbox, mut drain) = open();
    for _ in 0..2 {
        let waker = Waker::from(Arc::new(Peeks(Arc::downgrade(&outbox))));
        assert!(drain.poll_fill(&mut Context::from_waker(&waker)).is_pending());
    }
    send(&outbox, "<a/>").unwrap();
}

#[test]
fn dropping_the_future_of_fill_loses_nothing() {
    let (outbox, mut drain) = open();
    let mut cx = Context::from_waker(Waker::noop());
    {
        let mut fill = Box::pin(drain.fill());
        assert!(fill.as_mut().poll(&mut cx).is_pending());
        send(&outbox, "<a/>").unwrap();
    }
    {
        let mut fill = Box::pin(drain.fill());
        let Poll::Ready(Some(bytes)) = fill.as_mut().poll(&mut cx) else { panic!("no bytes") };
        assert_eq!(bytes, b"<a/>");
    }
    send(&outbox, "<b/>").unwrap();
    assert_eq!(piece(&mut drain), "<a/>", "handed out and not consumed comes again");
    assert_eq!(piece(&mut drain), "<b/>");
}

#[test]
fn a_blocked_writer_is_woken_and_gives_up_in_time() {
    let (outbox, mut drain) = open();
    assert!(drain.fill_blocking(Some(Duration::ZERO)).is_pending());
    assert!(drain.fill_blocking(Some(Duration::from_millis(1))).is_pending());
    let writer = thread::spawn(move || {
        let mut pieces = Vec::new();
        while let Poll::Ready(Some(bytes)) = drain.fill_blocking(Some(Duration::MAX)) {
            let n = bytes.len();
            pieces.extend_from_slice(bytes);
            drain.consume(n);
        }
        pieces
    });
    send(&outbox, "<a/>").unwrap();
    while outbox.waiting() > 0 {
        thread::yield_now();
    }
    outbox.close(Close::Flush);
    assert_eq!(writer.join().unwrap(), b"<a/>");
}

/// Counts the calls that reach the socket.
struct Counted {
    socket: TcpStream,
    writes: usize,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.writes += 1;
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn one_write_carries_the_stanza_and_the_trailing_data() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let mut socket = Counted { socket: listener.accept().unwrap().0, writes: 0 };

    let (outbox, mut drain) = open();
    let session = Arc::clone(&outbox);
    outbox.on_drain(hook(move |out| {
        send(&session, "<message/>").unwrap();
        out.extend_from_slice(b"<r xmlns='urn:xmpp:sm:3'/>");
    }));
    send(&outbox, "<presence/>").unwrap();
    while let Poll::Ready(Some(bytes)) = drain.poll_fill(&mut Context::from_waker(Waker::noop())) {
        let n = socket.write(bytes).unwrap();
        drain.consume(n);
    }
    assert_eq!(socket.writes, 1);

    let expected = "<presence/><message/><r xmlns='urn:xmpp:sm:3'/>";
    let mut read = [0; 100];
    let n = peer.read(&mut read).unwrap();
    assert_eq!(std::str::from_utf8(&read[..n]).unwrap(), expected, "read in one piece");
}

/// Four threads send numbered frames; `drain_all` empties the drain until it ends.
fn crowd(drain_all: impl FnOnce(Drain) -> Vec<u8> + Send + 'static) {
    const SENDERS: usize = 4;
    const FRAMES: usize = 2000;
    let (outbox, drain) = Outbox::new(Marks::new(1000, 3000));
    let trailing = hook(|out| out.extend_from_slice(b"9 0\n"));
    outbox.on_drain(trailing.clone());
    let writer = thread::spawn(move || drain_all(drain));
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let outbox = Arc::clone(&outbox);
            thread::spawn(move || {
                for number in 0..FRAMES {
                    while send(&outbox, &format!("{sender} {number}\n")) == Err(SendError::Full) {
                        thread::yield_now();
                    }
                }
            })
        })
        .collect();
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    outbox.close(Close::Flush);

    let text = String::from_utf8(writer.join().unwrap()).unwrap();
    let mut next = [0; SENDERS];
    let mut trailers = 0;
    for line in text.lines() {
        let (sender, number) = line.split_once(' ').unwrap();
        match sender.parse().unwrap() {
            9 => trailers += 1,
            sender => {
                assert_eq!(number.parse(), Ok::<usize, _>(next[sender]));
                next[sender] += 1;
            }
        }
    }
    assert_eq!(next, [FRAMES; SENDERS]);
    assert_eq!(trailers, trailing.calls.load(SeqCst));
    assert_eq!(outbox.written(), u64::try_from(text.len()).unwrap());
    assert_eq!(outbox.waiting(), 0);
}

#[test]
fn a_blocking_writer_loses_nothing_of_many_senders() {
    crowd(|mut drain| {
        let mut all = Vec::new();
        while let Poll::Ready(Some(bytes)) = drain.fill_blocking(None) {
            // Partial writes, as a socket makes them.
            let n = bytes.len().min(100);
            all.extend_from_slice(&bytes[..n]);
            drain.consume(n);
        }
        all
    });
}

#[test]
fn a_polling_writer_loses_nothing_of_many_senders() {
    crowd(|mut drain| {
        let waker = crate::park::waker();
        let mut cx = Context::from_waker(&waker);
        let mut all = Vec::new();
        loop {
            match drain.poll_fill(&mut cx) {
                Poll::Pending => thread::park(),
                Poll::Ready(None) => return all,
                Poll::Ready(Some(bytes)) => {
                    let n = bytes.len();
                    all.extend_from_slice(bytes);
                    drain.consume(n);
                }
            }
        }
    });
}

#[test]
fn closes_race_with_sends_and_every_accepted_byte_of_a_flush_arrives() {
    for round in 0..200 {
        let (outbox, mut drain) = open();
        let writer = thread::spawn(move || {
            let mut written = 0;
            while let Poll::Ready(Some(bytes)) = drain.fill_blocking(None) {
                let n = bytes.len();
                written += n;
                drain.consume(n);
            }
            written
        });
        let sender = {
            let outbox = Arc::clone(&outbox);
            thread::spawn(move || (0..).take_while(|_| send(&outbox, "x").is_ok()).count())
        };
        while outbox.written() < round % 3 {
            thread::yield_now();
        }
        outbox.close(Close::Flush);
        assert_eq!(sender.join().unwrap(), writer.join().unwrap());
    }
}

#[test]
fn debug_shows_counts_only() {
    let (outbox, mut drain) = open();
    send(&outbox, "<secret/>").unwrap();
    assert!(poll(&mut drain).is_ready());
    let debug = format!("{drain:?} {outbox:?}");
    assert!(debug.contains("waiting: 9") && !debug.contains("secret"), "{debug}");
}
