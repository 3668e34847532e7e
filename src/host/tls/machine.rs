//! TLS of one connection, without input and output: both hosts give it what they have read and write what it
//! has made.

use std::mem;
use std::sync::Arc;

use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic,
};
use rustls::{CommonState, Error, KeyLog, ServerConfig};

use super::exporter::Exporter;
use super::record;

/// The server's end of TLS. Its buffers are there only while something in them is incomplete or waits.
pub(in crate::host) struct Tls {
    connection: UnbufferedServerConnection,
    /// What has come of a record, or of a message of the handshake, whose end is still to come.
    incoming: Vec<u8>,
    /// What was decrypted and nobody has taken.
    plain: Vec<u8>,
    /// Records that are to be written.
    outgoing: Vec<u8>,
    /// Until the handshake is complete.
    exporter: Option<Arc<Exporter>>,
    /// The peer has said that nothing follows.
    ended: bool,
    /// Nothing more of the peer is looked at: TLS has failed, or is closed.
    deaf: bool,
}

/// Bytes of a message of the handshake that may wait for its end, as in rustls' own buffer. A record is shorter.
const MOST: usize = 0xffff;

/// Bytes that are made records of at a time.
const BATCH: usize = 16 * 1024;

impl Tls {
    pub(in crate::host) fn new(mut config: ServerConfig) -> Result<Self, Error> {
        let exporter = Arc::new(Exporter::new(Arc::clone(&config.key_log), config.require_ems));
        config.key_log = Arc::clone(&exporter) as Arc<dyn KeyLog>;
        // TLS-6: what is sent before the handshake is complete may be sent again by others.
        config.max_early_data_size = 0;
        Ok(Self {
            connection: UnbufferedServerConnection::new(Arc::new(config))?,
            incoming: Vec::new(),
            plain: Vec::new(),
            outgoing: Vec::new(),
            exporter: Some(exporter),
            ended: false,
            deaf: false,
        })
    }

    pub(in crate::host) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// The peer has said that nothing follows.
    pub(in crate::host) const fn has_ended(&self) -> bool {
        self.ended
    }

    /// What the connection tells of itself.
    pub(super) fn state(&self) -> &CommonState {
        &self.connection
    }

    /// Keying material for channel bindings, once the handshake is complete. Can be had once.
    pub(super) fn export(&mut self, label: &[u8]) -> Option<Vec<u8>> {
        self.exporter.take()?.export(&self.connection, label)
    }

    /// Takes what the peer has sent, and decrypts it in place.
    ///
    /// # Errors
    ///
    /// If that is no TLS. The alert that says so waits to be written, and nothing more is taken.
    pub(in crate::host) fn receive(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        if self.ended || self.deaf {
            return Ok(());
        }
        let mut kept = mem::take(&mut self.incoming);
        let is_first = kept.is_empty();
        let incoming = if is_first {
            bytes
        } else {
            kept.extend_from_slice(bytes);
            &mut kept
        };
        let used = match self.advance(incoming, None) {
            Ok(_) if self.ended => return Ok(()),
            Ok(used) => used,
            Err(error) => return Err(self.failed(error)),
        };
        let rest = incoming.get(used..).unwrap_or_default();
        if rest.len() > MOST {
            return Err(
                self.failed(Error::General("a message of the handshake is too long".into()))
            );
        }
        // Grown by what comes, or just as long as it is.
        let rest = (is_first || used > 0).then(|| rest.to_vec());
        self.incoming = rest.unwrap_or(kept);
        Ok(())
    }

    /// Makes records of the first of `bytes`, and says of how many.
    ///
    /// # Errors
    ///
    /// If nothing more can be said.
    pub(in crate::host) fn encrypt(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        let mut taken = 0;
        while taken < bytes.len().min(BATCH) {
            let record = record(bytes.get(taken..).unwrap_or_default());
            self.say(&mut |traffic, out| traffic.encrypt(record, out))?;
            taken += record.len();
        }
        Ok(taken)
    }

    /// Says that nothing follows, unless it was said or there is no use in it. The peer is not listened to any more.
    pub(in crate::host) fn close(&mut self) {
        if !self.deaf && !self.is_handshaking() {
            // What cannot be said now never can.
            let _unsaid = self.say(&mut |traffic, out| traffic.queue_close_notify(out));
        }
        self.deaf = true;
        self.incoming = Vec::new();
    }

    /// What is to be written.
    pub(in crate::host) fn outgoing(&self) -> &[u8] {
        &self.outgoing
    }

    /// The first of [`outgoing`](Self::outgoing) were written.
    pub(in crate::host) fn written(&mut self, n: usize) {
        if n < self.outgoing.len() {
            self.outgoing.drain(..n);
        } else {
            self.outgoing = Vec::new();
        }
    }

    #[cfg(any(feature = "threads", test, fuzzing))]
    pub(in crate::host) fn take_outgoing(&mut self) -> Vec<u8> {
        mem::take(&mut self.outgoing)
    }

    #[cfg(feature = "tokio")]
    pub(in crate::host) const fn has_plain(&self) -> bool {
        !self.plain.is_empty()
    }

    /// What the peer has said. In the order in which it came, and nothing twice.
    pub(in crate::host) fn take_plain(&mut self) -> Vec<u8> {
        mem::take(&mut self.plain)
    }

    /// The room of its buffers.
    #[cfg(any(test, fuzzing))]
    pub(super) fn kept(&self) -> usize {
        self.incoming.capacity() + self.plain.capacity() + self.outgoing.capacity()
    }

    fn say(&mut self, write: &mut Write<'_>) -> Result<(), Error> {
        if self.deaf {
            return Err(Error::General("TLS has failed, or was closed".into()));
        }
        // The connection knows how much of an incomplete message it has seen there.
        let mut incoming = mem::take(&mut self.incoming);
        let said = self.advance(&mut incoming, Some(write));
        self.incoming = incoming;
        match said {
            Ok(_) => Ok(()),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Lets the connection go on until it wants more of the peer; then `write` has its turn. How many bytes of
    /// `incoming` are done with.
    fn advance(
        &mut self,
        incoming: &mut [u8],
        mut write: Option<&mut Write<'_>>,
    ) -> Result<usize, Error> {
        let Self { connection, plain, outgoing, exporter, ended, .. } = self;
        let mut used = 0;
        loop {
            let rest = incoming.get_mut(used..).unwrap_or_default();
            let UnbufferedStatus { mut discard, state, .. } = connection.process_tls_records(rest);
            match state? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        plain.extend_from_slice(record.payload);
                    }
                }
                ConnectionState::EncodeTlsData(mut data) => {
                    let start = outgoing.len();
                    append(outgoing, |out| data.encode(out).map_err(Refusal::from))?;
                    if let Some(exporter) = exporter {
                        exporter.sent(outgoing.get(start..).unwrap_or_default());
                    }
                }
                // The host writes it before it reads on.
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::PeerClosed => *ended = true,
                ConnectionState::WriteTraffic(mut traffic) => {
                    if let Some(write) = &mut write {
                        append(outgoing, |out| write(&mut traffic, out).map_err(Refusal::from))?;
                    }
                    return Ok(used + discard);
                }
                ConnectionState::BlockedHandshake | ConnectionState::Closed => {
                    return match write {
                        Some(_) => Err(Error::HandshakeNotComplete),
                        None => Ok(used + discard),
                    };
                }
                // Early data, which is never accepted, and whatever else there will be.
                _ => return Err(Error::General("not a state of this connection".into())),
            }
            used += discard;
        }
    }

    /// No more than what was wrong is said.
    fn failed(&mut self, error: Error) -> Error {
        self.deaf = true;
        self.plain = Vec::new();
        self.incoming = Vec::new();
        while self.connection.wants_write() {
            // What is to be said comes before anything is looked at.
            let UnbufferedStatus { state, .. } = self.connection.process_tls_records(&mut []);
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while traffic.next_record().is_some() {}
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    let encode = |out: &mut [u8]| data.encode(out).map_err(Refusal::from);
                    if append(&mut self.outgoing, encode).is_err() {
                        break;
                    }
                }
                _ => break,
            }
        }
        error
    }
}

#[cfg(test)]
mod tests;

type Write<'a> = dyn FnMut(&mut WriteTraffic<'_, ServerConnectionData>, &mut [u8]) -> Result<usize, EncryptError>
    + 'a;

/// Why nothing was written.
enum Refusal {
    /// It takes so many bytes.
    Room(usize),
    Error(Error),
}

impl From<EncodeError> for Refusal {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::InsufficientSize(needs) => Self::Room(needs.required_size),
            error => Self::Error(Error::General(error.to_string())),
        }
    }
}

impl From<EncryptError> for Refusal {
    fn from(error: EncryptError) -> Self {
        match error {
            EncryptError::InsufficientSize(needs) => Self::Room(needs.required_size),
            error => Self::Error(Error::General(error.to_string())),
        }
    }
}

/// Appends what `write` writes once it has the room that it asks for.
fn append(
    out: &mut Vec<u8>,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Refusal>,
) -> Result<(), Error> {
    let start = out.len();
    // What it needs is known only then; it may ask for more once, for what it finds to be said before.
    for _ in 0..3 {
        match write(out.get_mut(start..).unwrap_or_default()) {
            Ok(n) => {
                out.truncate(start + n);
                return Ok(());
            }
            Err(Refusal::Room(needed)) => {
                out.reserve_exact(needed);
                out.resize(start + needed, 0);
            }
            Err(Refusal::Error(error)) => {
                out.truncate(start);
                return Err(error);
            }
        }
    }
    out.truncate(start);
    Err(Error::General("a record has no end".into()))
}
