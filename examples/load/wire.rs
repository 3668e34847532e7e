//! Elements on their way: as they are, or each in a frame of a WebSocket.
//!
//! The frames are made and read by hand, so that the cost of a client's library is not taken for the server's.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::Result;

const MASK: [u8; 4] = *b"mask";

pub(crate) struct Writer {
    socket: OwnedWriteHalf,
    pub(crate) websocket: bool,
}

/// What comes, without its frames.
pub(crate) struct Elements {
    socket: OwnedReadHalf,
    websocket: bool,
    /// What has arrived of a header.
    header: Vec<u8>,
    /// Bytes of a frame that are still to come.
    left: u64,
}

/// Both directions of a socket; of a WebSocket once its handshake is over.
pub(crate) async fn open(
    socket: TcpStream,
    websocket: bool,
) -> Result<(BufReader<Elements>, Writer)> {
    socket.set_nodelay(true)?;
    let (mut reader, mut writer) = socket.into_split();
    if websocket {
        let request = "GET /xmpp-websocket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
            Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: xmpp\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        writer.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(reader.read_u8().await?);
        }
        if !answer.starts_with(b"HTTP/1.1 101 ") {
            return Err(String::from_utf8_lossy(&answer).into());
        }
    }
    let elements = Elements { socket: reader, websocket, header: Vec::new(), left: 0 };
    Ok((BufReader::new(elements), Writer { socket: writer, websocket }))
}

impl Writer {
    /// Writes one element.
    pub(crate) async fn send(&mut self, xml: &str) -> io::Result<()> {
        if !self.websocket {
            return self.socket.write_all(xml.as_bytes()).await;
        }
        let mut frame = vec![0x81];
        match (u8::try_from(xml.len()), u16::try_from(xml.len())) {
            (Ok(len @ ..=125), _) => frame.push(0x80 | len),
            (_, Ok(len)) => {
                frame.push(0x80 | 126);
                frame.extend(len.to_be_bytes());
            }
            _ => return Err(io::ErrorKind::FileTooLarge.into()),
        }
        frame.extend(MASK);
        frame.extend(xml.bytes().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.socket.write_all(&frame).await
    }
}

impl Elements {
    /// Reads bytes that are there, of a socket that is no WebSocket.
    pub(crate) fn try_read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        self.socket.try_read(bytes)
    }

    /// Takes a byte of a header.
    fn header(&mut self, byte: u8) {
        self.header.push(byte);
        self.left = match *self.header {
            [_, short @ ..126] => short.into(),
            [_, 126, high, low] => u16::from_be_bytes([high, low]).into(),
            [_, 127, a, b, c, d, e, f, g, h] => u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            _ => return,
        };
        self.header.clear();
    }
}

impl AsyncRead for Elements {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.websocket {
            return Pin::new(&mut this.socket).poll_read(cx, buffer);
        }
        let start = buffer.filled().len();
        while buffer.filled().len() == start {
            ready!(Pin::new(&mut this.socket).poll_read(cx, buffer))?;
            let end = buffer.filled().len();
            if end == start {
                break;
            }
            // Frames without a payload (pings), and headers, leave nothing.
            let read = buffer.filled().get(start..).unwrap_or_default().to_vec();
            buffer.set_filled(start);
            let mut rest = &*read;
            while let Some((first, behind)) = rest.split_first() {
                if this.left == 0 {
                    this.header(*first);
                    rest = behind;
                } else {
                    let now = usize::try_from(this.left).unwrap_or(usize::MAX).min(rest.len());
                    let (payload, behind) = rest.split_at(now);
                    buffer.put_slice(payload);
                    this.left -= now as u64;
                    rest = behind;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}
