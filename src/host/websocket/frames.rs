//! Frames as they arrive (RFC 6455 §5), in any chunking.

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// Reads the frames of a client. Of a message it keeps nothing: what has arrived of it is handed on.
#[derive(Default)]
pub(super) struct Reader {
    /// What has arrived of a header.
    header: [u8; LONGEST_HEADER],
    header_len: u8,
    /// A frame whose header is read.
    frame: Option<Frame>,
    /// The payload of a control frame.
    control: Vec<u8>,
    /// A message has begun, and its last frame is still to come.
    in_message: bool,
    /// The character that the message ends in the midst of, as far as it has arrived.
    character: Character,
    is_closed: bool,
}

struct Frame {
    opcode: OpCode,
    is_final: bool,
    /// As it applies to the next byte.
    mask: [u8; 4],
    left: u64,
}

/// What stood in the bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// A piece of a text message, and whether it is the last.
    Text(&'a [u8], bool),
    Ping(&'a [u8]),
    /// The peer closes the WebSocket, for this reason if it names one. Nothing comes after that.
    Close(Option<u16>),
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
    /// Hands on what stands in these bytes. No frame may be longer than `longest`.
    ///
    /// # Errors
    ///
    /// Only once: all that follows is ignored, as it is behind [`Piece::Close`].
    pub(super) fn read(
        &mut self,
        mut bytes: &mut [u8],
        longest: usize,
        mut take: impl FnMut(Piece<'_>),
    ) -> Result<(), Broken> {
        while !self.is_closed {
            let read = match self.frame.take() {
                Some(frame) => self.payload(frame, &mut bytes, &mut take),
                None if bytes.is_empty() => return Ok(()),
                None => self.header(&mut bytes, longest),
            };
            match read {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(broken) => {
                    self.is_closed = true;
                    return Err(broken);
                }
            }
        }
        Ok(())
    }

    /// Whether the peer has closed, or cannot be read.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Reads a header; false if some of it is still to come.
    fn header(&mut self, bytes: &mut &mut [u8], longest: usize) -> Result<bool, Broken> {
        let known = usize::from(self.header_len);
        let room = self.header.get_mut(known..).unwrap_or_default();
        let more = bytes.len().min(room.len());
        room.iter_mut().zip(bytes.iter()).for_each(|(to, from)| *to = *from);
        let mut cursor = Cursor::new(self.header.get(..known + more).unwrap_or_default());
        let parsed = FrameHeader::parse(&mut cursor).map_err(|_| Broken::Protocol)?;
        let Some((header, length)) = parsed else {
            self.header_len = u8::try_from(known + more).unwrap_or(u8::MAX);
            *bytes = &mut [];
            // Of what is wrong in its first bytes, the rest says nothing new.
            return Ok(false);
        };
        let took = usize::try_from(cursor.position()).unwrap_or(usize::MAX);
        self.header_len = 0;
        *bytes = std::mem::take(bytes).get_mut(took.saturating_sub(known)..).unwrap_or_default();
        let (opcode, is_final) = (header.opcode, header.is_final);
        let Some(mask) = header.mask else { return Err(Broken::Protocol) };
        let is_shortest = header.len(length) == took;
        if header.rsv1 || header.rsv2 || header.rsv3 || !is_shortest {
            return Err(Broken::Protocol);
        }
        match opcode {
            OpCode::Control(_) if !is_final || length > LONGEST_CONTROL => {
                return Err(Broken::Protocol);
            }
            OpCode::Control(_) => {}
            OpCode::Data(data) if (data == Data::Continue) != self.in_message => {
                return Err(Broken::Protocol);
            }
            OpCode::Data(Data::Binary) => return Err(Broken::Binary),
            OpCode::Data(_) if length > longest as u64 => return Err(Broken::TooLong),
            OpCode::Data(_) => self.in_message = !is_final,
        }
        self.frame = Some(Frame { opcode, is_final, mask, left: length });
        Ok(true)
    }

    /// Reads what there is of a payload; false if some of it is still to come.
    fn payload(
        &mut self,
        mut frame: Frame,
        bytes: &mut &mut [u8],
        take: &mut impl FnMut(Piece<'_>),
    ) -> Result<bool, Broken> {
        let most = usize::try_from(frame.left).unwrap_or(usize::MAX).min(bytes.len());
        let (now, rest) = std::mem::take(bytes).split_at_mut(most);
        *bytes = rest;
        unmask(now, &mut frame.mask);
        frame.left -= now.len() as u64;
        let is_whole = frame.left == 0;
        match frame.opcode {
            OpCode::Data(_) => {
                let is_last = is_whole && frame.is_final;
                if !self.character.goes_on(now) || is_last && self.character.len > 0 {
                    return Err(Broken::NotUtf8);
                }
                if is_last || !now.is_empty() {
                    take(Piece::Text(now, is_last));
                }
            }
            OpCode::Control(_) if !is_whole => self.control.extend_from_slice(now),
            OpCode::Control(control) => {
                let mut payload = std::mem::take(&mut self.control);
                payload.extend_from_slice(now);
                match control {
                    Control::Close => {
                        take(Piece::Close(status(&payload)?));
                        self.is_closed = true;
                    }
                    Control::Ping => take(Piece::Ping(&payload)),
                    _ => {}
                }
            }
        }
        if !is_whole {
            self.frame = Some(frame);
        }
        Ok(is_whole)
    }
}

/// The first bytes of a character.
#[derive(Default)]
struct Character {
    bytes: [u8; 4],
    len: usize,
}

impl Character {
    /// Whether these bytes go on as UTF-8.
    fn goes_on(&mut self, mut bytes: &[u8]) -> bool {
        while self.len > 0
            && let Some((first, rest)) = bytes.split_first()
        {
            bytes = rest;
            // A character has no more than there is room for.
            let Some(place) = self.bytes.get_mut(self.len) else { return false };
            *place = *first;
            self.len += 1;
            match str::from_utf8(self.bytes.get(..self.len).unwrap_or_default()) {
                Ok(_) => self.len = 0,
                Err(error) if error.error_len().is_some() => return false,
                Err(_) => {}
            }
        }
        let Err(error) = str::from_utf8(bytes) else { return true };
        let begun = bytes.get(error.valid_up_to()..).unwrap_or_default();
        self.len = begun.len();
        self.bytes.iter_mut().zip(begun).for_each(|(to, from)| *to = *from);
        error.error_len().is_none()
    }
}

/// What a frame that closes says.
fn status(payload: &[u8]) -> Result<Option<u16>, Broken> {
    let Some((status, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok(None) } else { Err(Broken::Protocol) };
    };
    let status = u16::from_be_bytes(*status);
    // RFC 6455 §7.4.1 and §7.4.2, and what is registered with IANA since.
    if !matches!(status, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Broken::Protocol);
    }
    match str::from_utf8(reason) {
        Ok(_) => Ok(Some(status)),
        Err(_) => Err(Broken::NotUtf8),
    }
}

/// RFC 6455 §5.3. The mask is left as it applies to the byte behind these.
fn unmask(bytes: &mut [u8], mask: &mut [u8; 4]) {
    let [a, b, c, d] = *mask;
    // As long as a vector register.
    let wide = [a, b, c, d, a, b, c, d, a, b, c, d, a, b, c, d];
    let mut chunks = bytes.chunks_exact_mut(wide.len());
    for chunk in &mut chunks {
        chunk.iter_mut().zip(wide).for_each(|(byte, mask)| *byte ^= mask);
    }
    let rest = chunks.into_remainder();
    rest.iter_mut().zip(wide).for_each(|(byte, mask)| *byte ^= mask);
    mask.rotate_left(rest.len() % 4);
}

const LONGEST_HEADER: usize = 14;
const LONGEST_CONTROL: u64 = 125;
