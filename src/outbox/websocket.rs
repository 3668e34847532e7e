//! Frames of a WebSocket in a buffer (RFC 6455): what waits is what goes over the wire, so that the drain of
//! such an outbox hands out bytes as that of a stream does.

use std::sync::Arc;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::{Drain, Edges, Marks, Outbox};
use crate::connection::{Close, Connection as _};
use crate::stanza::{Frame, FrameParts, Framing, Limit, StreamCondition, StreamError};

/// What a WebSocket has beside its bytes.
#[derive(Default)]
pub(super) struct State {
    /// The handshake is over. Before that no frame can be written.
    is_open: bool,
    /// What the frame that closes it will say; `None` if nothing but that all went well.
    status: Option<u16>,
}

impl State {
    /// Whether the frame may go out; what it says of the end is remembered.
    pub(super) fn takes(&mut self, frame: &Frame<'_>) -> bool {
        match frame.parts() {
            FrameParts::Error(error) => _ = self.status.get_or_insert_with(|| status(error)),
            FrameParts::Moved(_) => _ = self.status.get_or_insert(GOING_AWAY),
            _ => {}
        }
        self.is_open
    }
}

impl super::State {
    /// The last that is written: a frame that closes the WebSocket (WS-15), or an answer to who waits for one.
    pub(super) fn say_goodbye(&mut self) {
        if !self.websocket.is_open {
            return self.buffer.extend_from_slice(UNAVAILABLE);
        }
        let status = match self.websocket.status.unwrap_or(NORMAL) {
            NO_STATUS => None,
            status => Some(status.to_be_bytes()),
        };
        append_as(
            &mut self.buffer,
            OpCode::Control(Control::Close),
            status.as_ref().map_or(&[], |status| status),
        );
    }
}

impl Outbox {
    /// The two halves of the buffer of a WebSocket. If it is not open yet, frames sent to it are dropped until
    /// it is: there is nobody to read them.
    pub(crate) fn websocket(marks: Marks, is_open: bool) -> (Arc<Self>, Drain) {
        let (outbox, drain) = Self::with_edges(marks, Edges::WebSocket);
        outbox.state.lock().websocket.is_open = is_open;
        (outbox, drain)
    }

    /// Nothing is sent of these before there is a WebSocket; and if they end the stream, there will be none.
    pub(super) fn not_open(&self, frames: &[Frame<'_>]) {
        if frames.iter().any(|frame| is_end(frame)) {
            self.close(Close::Flush);
        }
    }

    /// The handshake is over, with this answer.
    pub(crate) fn open_websocket(&self, answer: &[u8]) {
        let mut state = self.state.lock();
        if state.closed.is_none() {
            state.buffer.extend_from_slice(answer);
            state.websocket.is_open = true;
            self.wake(state);
        }
    }

    /// There will be no WebSocket, for the reason that the answer gives.
    pub(crate) fn refuse_websocket(&self, answer: &[u8]) {
        let mut state = self.state.lock();
        if state.closed.is_none() {
            state.buffer.extend_from_slice(answer);
            state.closed = Some(Close::Flush);
        }
        drop(state);
        // Whatever else a close does.
        self.close(Close::Flush);
    }

    /// Sends a control frame. It is dropped if its peer does not even read what waits for it (WS-14).
    pub(crate) fn control(&self, opcode: Control, payload: &[u8]) {
        let mut state = self.state.lock();
        let has_room = state.waiting() <= self.soft as usize;
        if has_room && state.closed.is_none() && state.websocket.is_open {
            append_as(&mut state.buffer, OpCode::Control(opcode), payload);
            if !state.blocked {
                self.wake(state);
            }
        }
    }

    /// Sets what the frame that closes the WebSocket says, unless that is known.
    pub(crate) fn set_status(&self, status: u16) {
        self.state.lock().websocket.status.get_or_insert(status);
    }
}

/// Appends the frame as a text message.
pub(super) fn append(buffer: &mut Vec<u8>, frame: Frame<'_>) {
    let frame = frame.framing(Framing::Message);
    header(buffer, OpCode::Data(Data::Text), frame.len());
    frame.write_to(buffer);
}

fn append_as(buffer: &mut Vec<u8>, opcode: OpCode, payload: &[u8]) {
    header(buffer, opcode, payload.len());
    buffer.extend_from_slice(payload);
}

/// The header of a whole message (RFC 6455 §5.2).
fn header(buffer: &mut Vec<u8>, opcode: OpCode, len: usize) {
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    // Writing to memory does not fail.
    let _written = header.format(len as u64, buffer);
}

fn is_end(frame: &Frame<'_>) -> bool {
    matches!(frame.parts(), FrameParts::Close | FrameParts::Moved(_))
}

/// What a WebSocket is closed with behind a stream error (WS-15).
fn status(error: &StreamError) -> u16 {
    use StreamCondition as Is;
    match (error.condition(), error.limit()) {
        (_, Some(Limit::ElementBytes | Limit::ElementBytesBeforeAuth)) => TOO_BIG,
        (Is::SystemShutdown | Is::SeeOtherHost | Is::HostGone, _) => GOING_AWAY,
        (Is::UnsupportedEncoding, _) => NOT_UTF_8,
        (Is::InternalServerError, _) => INTERNAL_ERROR,
        (Is::ResourceConstraint, _) => TRY_AGAIN,
        _ => POLICY,
    }
}

const NORMAL: u16 = 1000;
const GOING_AWAY: u16 = 1001;
/// Stands for none, and is never sent.
const NO_STATUS: u16 = 1005;
const NOT_UTF_8: u16 = 1007;
const POLICY: u16 = 1008;
const TOO_BIG: u16 = 1009;
const INTERNAL_ERROR: u16 = 1011;
/// Registered with IANA since.
const TRY_AGAIN: u16 = 1013;

const UNAVAILABLE: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ws_4_a_frame_has_the_shortest_header() {
        for (len, expected) in [
            (0, vec![0x81, 0]),
            (125, vec![0x81, 125]),
            (126, vec![0x81, 126, 0, 126]),
            (65_535, vec![0x81, 126, 0xff, 0xff]),
            (65_536, vec![0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let mut buffer = b"before".to_vec();
            append(&mut buffer, Frame::element(&vec![b'x'; len]));
            let header = &buffer[6..buffer.len() - len];
            assert_eq!(header, expected, "{len}");
        }
    }
}
