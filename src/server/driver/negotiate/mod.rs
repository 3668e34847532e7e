//! From the first byte to a bound resource (RFC 6120 §4–§7).

mod bind;
mod elements;
mod features;
pub(in crate::server) mod hashing;
mod header;
mod local;
pub(in crate::server) mod login_failures;
mod sasl;

use std::time::Duration;

use jid::BareJid;

use super::admission::PlaceStanding;
use super::{Driver, State, Want};
use crate::connection::{Close, SendError, SharedConnection};
use crate::sasl::{ChannelBindings, Negotiation};
use crate::session::{Bound, Session};
use crate::stanza::Frame;
use crate::stream::StreamCondition;
pub(super) use header::OurHeader;
use login_failures::LoginAttempt;

/// What only a stream under negotiation needs to know.
#[derive(Default)]
pub(super) struct Negotiating {
    /// TLS-3: said by the host, never derived.
    pub(super) secure: bool,
    tls: bool,
    /// Whether the host can still do a handshake.
    starttls: bool,
    bindings: ChannelBindings,
    /// As of the last poll (LIMIT-25).
    pub(super) standing: PlaceStanding,
    /// Our header of this stream was sent.
    pub(super) header_sent: bool,
    /// The client has sent a header, of this stream or of one before it on the same transport: it
    /// knows what a stream error is.
    has_opened: bool,
    /// The bare JID of the client's `from`.
    from: Option<BareJid>,
    sasl: Option<Negotiation>,
    /// The login under way.
    login: Option<LoginAttempt>,
    /// When it may be checked (LIMIT-29).
    pub(super) not_before: Option<Duration>,
    bind_failures: u8,
}

impl Negotiating {
    pub(super) fn new(secure: bool, starttls: bool) -> Self {
        Self { secure, starttls, ..Self::default() }
    }

    /// STREAM-8: what was said before is forgotten.
    pub(super) fn secured(&mut self, bindings: ChannelBindings) {
        self.secure = true;
        self.tls = true;
        self.starttls = false;
        self.bindings = bindings;
        self.restart();
    }

    /// The next stream of the transport begins.
    fn restart(&mut self) {
        self.header_sent = false;
        self.from = None;
        self.sasl = None;
        self.login = None;
        self.not_before = None;
    }
}

impl<C: SharedConnection> Driver<C> {
    /// Hands frames to the connection, in one piece.
    pub(super) fn send_all(&self, frames: &mut [Frame<'_>]) -> Result<(), SendError> {
        let framing = self.connection.framing();
        frames.iter_mut().for_each(|frame| *frame = frame.framing(framing));
        match frames {
            [frame] => self.connection.send(*frame),
            frames => self.connection.send_all(frames),
        }
    }

    pub(super) fn send(&mut self, frame: Frame<'_>) {
        if self.want == Want::Close {
            return;
        }
        let sent = self.send_all(&mut [frame]);
        if sent == Err(SendError::Full) {
            // Before bind a client that does not read has no session to keep.
            self.finish(Close::Abort);
        }
    }

    /// Sends the element that `write` appends.
    fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut words = Vec::with_capacity(512);
        write(&mut words);
        self.send(Frame::element(&words));
    }

    /// The session is bound: negotiation is over.
    fn begin_session(&mut self, mut session: Session<Bound, C>) {
        let _first = self.drain_hook.session.set((session.handle(), session.epoch()));
        self.trace.bound(session.id(), session.jid());
        self.negotiating = None;
        self.place = None;
        self.set_deadline(self.core.limits.silence);
        if self.is_local {
            self.count_taken(&mut session);
        }
        self.state = State::Bound(session);
    }

    /// When the login under way may be checked, if that is later (LIMIT-29).
    #[inline]
    pub(super) fn not_before(&self) -> Option<Duration> {
        self.negotiating.as_ref().and_then(|negotiating| negotiating.not_before)
    }

    /// The client has come a step further: it is not evicted as soon (LIMIT-25).
    pub(super) fn progressed(&self, is_login: bool) {
        if let Some(place) = &self.place {
            place.progressed(is_login);
        }
    }

    /// Closes a stream that has no session; with a stream error if its client has ever sent a header,
    /// be it before TLS or SASL.
    pub(super) fn close_unbound(&mut self, condition: StreamCondition) {
        let has_opened = self.negotiating.as_ref().is_some_and(|n| n.has_opened);
        // TLS-2: no plain text behind `<proceed/>`.
        if has_opened && self.want != Want::StartTls {
            self.fail(condition.into());
        } else {
            self.finish(Close::Abort);
        }
    }
}
