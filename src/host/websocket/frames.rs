//! What a peer's frames say (RFC 6455 §5), in any chunking. tungstenite reads them, from the bytes that have arrived;
//! its answers to pings and closes are dropped, since the outbox writes those (WS-14, WS-15).

use std::io::{self, Read, Write};

use tungstenite::error::Error;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tungstenite::protocol::frame::{FrameHeader, Utf8Bytes};
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Bytes, Message};

/// Reads the frames of a client. Between two messages it keeps nothing.
#[derive(Default)]
pub(super) struct Reader {
    /// While a frame or message may be incomplete.
    context: Option<Box<WebSocketContext>>,
    /// Bytes that it was given, without those of the messages that it has handed on, were they as short as can
    /// be: at most these may be incomplete.
    ahead: usize,
    is_closed: bool,
}

/// What stood in the bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Text(Utf8Bytes),
    Ping(Bytes),
    /// The peer closes the WebSocket, for this reason if it names one. Nothing comes after that.
    Close(Option<u16>),
    /// So many bytes that are no text.
    Overhead(usize),
}

/// Why nothing more can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// It is not the protocol.
    Protocol,
    Binary,
    NotUtf8,
    TooLong,
}

impl Reader {
    /// Hands on what stands in these bytes. No message may be longer than `longest`.
    ///
    /// # Errors
    ///
    /// Only once: all that follows is ignored, as it is behind [`Piece::Close`].
    pub(super) fn read(
        &mut self,
        bytes: &[u8],
        longest: usize,
        mut take: impl FnMut(Piece),
    ) -> Result<(), Broken> {
        if self.is_closed {
            return Ok(());
        }
        let limits = |config: &mut WebSocketConfig| {
            (config.max_message_size, config.max_frame_size) = (Some(longest), Some(longest));
        };
        let mut context = self.context.take().unwrap_or_else(|| {
            let buffer = bytes.len().clamp(LEAST_BUFFER, MOST_BUFFER);
            let config = WebSocketConfig::default().read_buffer_size(buffer).write_buffer_size(0);
            Box::new(WebSocketContext::new(Role::Server, Some(config)))
        });
        context.set_config(limits);
        self.ahead += bytes.len();
        let mut arrived = Arrived(bytes);
        loop {
            let piece = match context.read(&mut arrived) {
                Ok(message) => self.piece(message, &mut take),
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(Error::Utf8(_)) => Err(Broken::NotUtf8),
                Err(Error::Capacity(_)) => Err(Broken::TooLong),
                Err(_) => Err(Broken::Protocol),
            };
            self.is_closed |= piece.is_err();
            piece?;
            if self.is_closed {
                return Ok(());
            }
        }
        // Of what is incomplete one message may be a part, and not more: the rest is of its frames (WS-11).
        let overhead = self.ahead.saturating_sub(longest);
        if overhead > 0 {
            self.ahead -= overhead;
            take(Piece::Overhead(overhead));
        }
        if self.ahead > 0 {
            self.context = Some(context);
        }
        Ok(())
    }

    /// Whether the peer has closed, or cannot be read.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    #[cfg(test)]
    pub(super) const fn is_idle(&self) -> bool {
        self.context.is_none()
    }

    fn piece(&mut self, message: Message, take: &mut impl FnMut(Piece)) -> Result<(), Broken> {
        let (is_text, payload) = (message.is_text(), message.len());
        // That of the shortest form: what is longer is counted later.
        let opcode =
            if is_text { OpCode::Data(Data::Text) } else { OpCode::Control(Control::Ping) };
        let header = FrameHeader { opcode, mask: Some([0; 4]), ..FrameHeader::default() };
        let header = header.len(payload as u64);
        self.ahead = self.ahead.saturating_sub(header + payload);
        take(Piece::Overhead(if is_text { header } else { header + payload }));
        match message {
            Message::Text(text) => take(Piece::Text(text)),
            Message::Ping(payload) => take(Piece::Ping(payload)),
            Message::Close(frame) => {
                self.is_closed = true;
                take(Piece::Close(frame.map(|frame| frame.code.into())));
            }
            Message::Binary(_) => return Err(Broken::Binary),
            Message::Pong(_) | Message::Frame(_) => {}
        }
        Ok(())
    }
}

/// What has arrived, and nothing behind it yet.
struct Arrived<'a>(&'a [u8]);

impl Read for Arrived<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.0.read(buffer)
    }
}

impl Write for Arrived<'_> {
    fn write(&mut self, answer: &[u8]) -> io::Result<usize> {
        Ok(answer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes of a buffer for a message that is incomplete, unless a frame is longer.
const LEAST_BUFFER: usize = 512;
const MOST_BUFFER: usize = 8192;
