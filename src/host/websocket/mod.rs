//! XMPP over WebSocket ([RFC 7395](https://www.rfc-editor.org/rfc/rfc7395)): between the bytes of a transport and
//! a driver whose elements are messages. What is written is put into frames by the outbox.

mod frames;
mod handshake;
#[cfg(test)]
mod tests;

pub use handshake::WebSockets;

use std::ops::Deref;
use std::sync::Arc;
#[cfg(feature = "tokio")]
use std::task::{Context, Poll};
use std::time::Duration;

use tungstenite::protocol::frame::coding::Control;

use super::{Host, Live, Machine, Settings};
use crate::connection::{Connection as _, SharedConnection};
use crate::outbox::{Drain, Outbox};
use crate::sasl::ChannelBindings;
use crate::server::{Place, Transport, Want};
use crate::stream::BrokenMessage;
use frames::{Broken, Piece, Reader};
use handshake::Head;

/// A driver behind a WebSocket.
pub(super) struct Web<H: Deref<Target = Host<C>>, C: SharedConnection> {
    live: Live<H, C>,
    outbox: Arc<Outbox>,
    stage: Stage,
    /// Nothing that follows can be read: the driver is told once it has handled what came before.
    has_ended: bool,
    watch: Watch,
}

enum Stage {
    /// HTTP.
    Handshake(Box<(Head, WebSockets)>),
    Open(Reader),
    Over,
}

/// What came of the peer lately (WS-14).
struct Watch {
    interval: Duration,
    /// When to look again.
    next: Duration,
    /// Whether anything has arrived since the last look.
    was_heard: bool,
    /// Looks at which nothing had.
    silent: u8,
    /// What had been sent.
    sent: u64,
    is_read: bool,
}

impl<H: Deref<Target = Host<C>>, C: SharedConnection> Web<H, C> {
    /// For a transport on which the handshake follows, or one that is a WebSocket by now.
    pub(super) fn new(
        host: H,
        transport: Transport,
        websockets: &WebSockets,
        is_open: bool,
    ) -> (Self, Arc<Outbox>, Drain) {
        let (outbox, drain) = Outbox::websocket(host.marks, is_open);
        let live = Host::accept_on(host, transport, &outbox);
        let watch = Watch {
            interval: websockets.ping_interval,
            next: Duration::ZERO,
            was_heard: true,
            silent: 0,
            sent: 0,
            is_read: false,
        };
        let stage = match is_open {
            true => Stage::Open(Reader::default()),
            false => Stage::Handshake(Box::new((Head::default(), websockets.clone()))),
        };
        let mut this = Self { live, outbox: Arc::clone(&outbox), stage, has_ended: false, watch };
        this.watch.next = this.now().saturating_add(this.watch.interval);
        (this, outbox, drain)
    }

    fn now(&self) -> Duration {
        self.live.served.0.server.now()
    }

    /// Takes the head of the request, and gives what is behind it.
    fn shake_hands<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let Stage::Handshake(handshake) = &mut self.stage else { return bytes };
        let (head, websockets) = &mut **handshake;
        let answer = head.read(bytes, websockets);
        let length = answer.as_ref().map_or(bytes.len(), |answer| answer.length);
        self.live.driver.overhead(length.min(bytes.len()));
        if let Some(answer) = answer {
            if answer.is_accepted {
                self.stage = Stage::Open(Reader::default());
                self.outbox.open_websocket(&answer.bytes);
            } else {
                self.stage = Stage::Over;
                self.outbox.refuse_websocket(&answer.bytes);
            }
        }
        bytes.get(length..).unwrap_or_default()
    }

    fn read_frames(&mut self, bytes: &[u8]) {
        let Stage::Open(reader) = &mut self.stage else { return };
        let driver = &mut self.live.driver;
        let read = reader.read(bytes, driver.longest_message(), |piece| match piece {
            Piece::Text(text) => driver.receive_message(text.as_bytes(), true),
            Piece::Ping(payload) => self.outbox.control(Control::Pong, &payload),
            // What is no message counts as well (WS-11).
            Piece::Overhead(bytes) => driver.overhead(bytes),
            Piece::Close(status) => {
                self.outbox.set_status(status.unwrap_or(NO_STATUS));
                self.has_ended = true;
            }
        });
        if let Err(broken) = read {
            let (status, what) = match broken {
                Broken::Protocol => (1002, BrokenMessage::BadFrame),
                Broken::Binary => (1003, BrokenMessage::Binary),
                Broken::NotUtf8 => (1007, BrokenMessage::NotUtf8),
                Broken::TooLong => (1009, BrokenMessage::TooLong),
            };
            self.outbox.set_status(status);
            driver.broken_message(what);
            self.has_ended = true;
        }
    }

    /// What to want instead, once the driver has read everything.
    fn ends(&mut self, want: Option<Want>) -> bool {
        self.watch.is_read = want == Some(Want::Input);
        let ends = self.watch.is_read && std::mem::take(&mut self.has_ended);
        if ends {
            self.live.end_of_input();
        }
        ends
    }

    /// WS-14: sends a ping frame unless there was traffic both ways, and gives up who answers none.
    fn look(&mut self) {
        let Self { live, outbox, watch, .. } = self;
        let was_heard = std::mem::take(&mut watch.was_heard);
        // Its answer may be unread, or it takes what waits and is watched by that (LIMIT-13).
        watch.silent = match watch.is_read && outbox.waiting() == 0 && !was_heard {
            true => watch.silent.saturating_add(1),
            false => 0,
        };
        if watch.silent >= 3 {
            return live.driver.unheard();
        }
        if !was_heard || outbox.accepted() == watch.sent {
            outbox.control(Control::Ping, b"");
        }
        watch.sent = outbox.accepted();
    }
}

impl<H: Deref<Target = Host<C>>, C: SharedConnection> Machine for Web<H, C> {
    fn settings(&self) -> &Settings {
        self.live.settings()
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.watch.was_heard = true;
        let frames = self.shake_hands(bytes);
        self.read_frames(frames);
    }

    #[cfg(feature = "tokio")]
    fn poll_want(&mut self, cx: &mut Context<'_>) -> Poll<Want> {
        loop {
            let want = self.live.poll_want(cx);
            if !self.ends(match want {
                Poll::Ready(want) => Some(want),
                Poll::Pending => None,
            }) {
                return want;
            }
        }
    }

    #[cfg(feature = "threads")]
    fn want_blocking(&mut self) -> Option<Want> {
        loop {
            let left = self.watch.next.saturating_sub(self.now());
            let want = self.live.driver.want_blocking(Some(left));
            if !self.ends(want) {
                return want;
            }
        }
    }

    /// There are no channel bindings behind a WebSocket (WS-16).
    fn secured(&mut self, bindings: ChannelBindings) {
        self.live.secured(bindings.exporter(Vec::new()).server_end_point(Vec::new()));
    }

    fn tls_failed(&mut self, error: &std::io::Error) {
        self.live.tls_failed(error);
    }

    fn end_of_input(&mut self) {
        if let Stage::Handshake(_) = self.stage {
            self.outbox.refuse_websocket(&[]);
        }
        self.live.end_of_input();
    }

    fn due_in(&self) -> Option<Duration> {
        let due = self.live.due_in();
        let Stage::Open(_) = self.stage else { return due };
        let look = self.watch.next.saturating_sub(self.now());
        Some(due.map_or(look, |due| due.min(look)))
    }

    fn handle_timeout(&mut self) {
        self.live.handle_timeout();
        let now = self.now();
        if let Stage::Open(_) = self.stage
            && self.watch.next <= now
        {
            self.watch.next = now.saturating_add(self.watch.interval);
            self.look();
        }
    }

    fn place(&mut self) -> Option<Place> {
        self.live.place()
    }

    fn heard(&mut self) {
        self.live.heard();
    }

    #[cfg(feature = "threads")]
    fn is_unbound(&self) -> bool {
        self.live.is_unbound()
    }

    fn alpn(&self) -> Option<&'static [u8]> {
        Some(b"http/1.1")
    }

    #[cfg(feature = "threads")]
    fn has_farewell(&self) -> bool {
        true
    }

    fn farewell(&mut self) -> Option<Farewell> {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Open(reader) if !reader.is_closed() => Some(Farewell(reader)),
            _ => None,
        }
    }
}

/// Waits for the frame by which the peer closes (WS-15).
pub(super) struct Farewell(Reader);

impl Farewell {
    /// Takes what still comes.
    pub(super) fn read(&mut self, bytes: &[u8]) {
        let _broken = self.0.read(bytes, usize::MAX, |_| {});
    }

    /// Whether that was the last.
    pub(super) fn is_over(&self) -> bool {
        self.0.is_closed()
    }
}

/// The peer closed without a reason.
const NO_STATUS: u16 = 1005;
