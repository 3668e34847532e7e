//! From the first byte to a bound resource (RFC 6120 §4–§7).

#[cfg(feature = "cluster")]
mod adopted;
#[cfg(feature = "cluster")]
mod away;
mod bind;
mod certificate;
mod elements;
mod establish;
mod features;
mod guest;
pub(in crate::server) mod hashing;
mod header;
mod host;
pub(in crate::server) mod local;
pub(in crate::server) mod login_failures;
mod sasl;
mod strangers;

use std::sync::Arc;
use std::time::Duration;

use jid::{BareJid, DomainPart};

use super::admission::PlaceStanding;
use super::{Driver, State, Want};
use crate::connection::{Close, SendError, SharedConnection};
use crate::sasl::wire::Profile;
use crate::sasl::{ChannelBindings, Mechanism, Negotiation, UserAgent};
use crate::server::{Login, LoginStep};
use crate::session::{Bound, Epoch, HostCode, Session, Values};
use crate::stanza::Frame;
use crate::stream::{Limit, StreamCondition, StreamError};
#[cfg(feature = "cluster")]
pub(in crate::server) use adopted::Unbound;
#[cfg(feature = "cluster")]
pub(super) use away::Away;
pub(super) use establish::Established;
#[cfg(feature = "cluster")]
pub(in crate::server) use establish::Proved;
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
    /// The accounts that the certificate in them is for (EXTERNAL-1).
    certified: Vec<BareJid>,
    /// As of the last poll (LIMIT-25).
    pub(super) standing: PlaceStanding,
    /// Our header of this stream was sent.
    pub(super) header_sent: bool,
    /// The client has sent a header, of this stream or of one before it on the same transport: it
    /// knows what a stream error is.
    has_opened: bool,
    /// The bare JID of the client's `from`.
    from: Option<BareJid>,
    /// The domain of the stream, while its session is elsewhere.
    domain: Option<DomainPart>,
    sasl: Option<Negotiation>,
    /// The login under way.
    login: Option<LoginAttempt>,
    /// When it may be checked (LIMIT-29).
    pub(super) not_before: Option<Duration>,
    bind_failures: u8,
    pub(super) early: EarlyData,
    /// Who has been named in the exchange under way.
    claimed: Option<BareJid>,
    /// How the client authenticates, or has authenticated.
    mechanism: Option<Mechanism>,
    /// Requests before authentication (LIMIT-33).
    requests: u8,
    /// What extensions keep for a stream that is not authenticated.
    kept: Values,
    /// In which profile it last spoke of that.
    profile: Profile,
    /// What it has said about itself with the login that was right.
    agent: Option<UserAgent>,
    /// The client has authenticated at another node, or here as if it were one.
    #[cfg(feature = "cluster")]
    is_adopted: bool,
    since: Since,
}

/// Whether what the client says came in the early data of TLS, which anybody can send again (SASL2-11).
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum EarlyData {
    #[default]
    No,
    /// What is handed in now does.
    Yes,
    /// Some of what is not yet read did.
    Unread,
}

/// When the steps of a login began.
#[derive(Default)]
struct Since {
    accepted: Duration,
    tls: Duration,
    auth: Duration,
    bind: Option<Duration>,
}

impl Negotiating {
    pub(super) fn new(secure: bool, starttls: bool, now: Duration) -> Self {
        let since = Since { accepted: now, tls: now, ..Since::default() };
        Self { secure, starttls, since, ..Self::default() }
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
        self.forget_login();
    }

    /// The login under way is over, and there is no other.
    fn forget_login(&mut self) {
        self.sasl = None;
        self.login = None;
        self.claimed = None;
        self.kept = Values::default();
        self.certified = Vec::new();
        self.not_before = None;
    }

    /// When the TLS handshake began.
    pub(super) const fn tls_since(&self) -> Duration {
        self.since.tls
    }
}

impl<C: SharedConnection> Driver<C> {
    /// Hands frames to the connection, in one piece; `None` where it panicked.
    pub(super) fn send_all(&self, frames: &mut [Frame<'_>]) -> Option<Result<(), SendError>> {
        let framing = self.connection.framing();
        frames.iter_mut().for_each(|frame| *frame = frame.framing(framing));
        self.connection_shielded(|connection| match frames {
            [frame] => connection.send(*frame),
            frames => connection.send_all(frames),
        })
    }

    pub(super) fn send(&mut self, frame: Frame<'_>) {
        if self.want == Want::Close {
            return;
        }
        // Before bind a client that does not read has no session to keep, nor one whose connection panics.
        if let None | Some(Err(SendError::Full)) = self.send_all(&mut [frame]) {
            self.finish(Close::Abort);
        }
    }

    /// The same for two frames, in one write.
    fn send_both(&mut self, mut frames: [Frame<'_>; 2]) {
        if self.want == Want::Close {
            return;
        }
        if let None | Some(Err(SendError::Full)) = self.send_all(&mut frames) {
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
        let core = Arc::clone(&self.core);
        // A resumption begins another epoch.
        let is_resumed = session.epoch() != Epoch::default();
        self.trace.bound(session.id(), session.jid(), is_resumed, core.log_addresses);
        let (mut mechanism, mut agent) = (None, None);
        if let Some(negotiating) = self.negotiating.take() {
            (mechanism, agent) = (negotiating.mechanism, negotiating.agent);
            let since = &negotiating.since;
            let now = core.environment.now();
            core.metrics.login_step(LoginStep::Whole, now.saturating_sub(since.accepted));
            if let Some(since) = since.bind {
                core.metrics.login_step(LoginStep::Bind, now.saturating_sub(since));
            }
        }
        if is_resumed {
            core.metrics.resumed()
        } else {
            core.metrics.bound()
        }
        self.place = None;
        self.set_deadline(core.limits.silence);
        if self.is_local {
            self.count_taken(&mut session);
        }
        self.state = State::Bound(session);
        if let (Some(hook), Some(session)) = (&core.on_login, self.session()) {
            let (peer, user_agent) = (&self.peer, agent.as_ref());
            let login = Login { session, peer, mechanism, user_agent, is_resumed };
            let account = Some(&session.account().bare);
            core.faults.shielded(HostCode::Listener, &self.peer, account, || hook(&login));
        }
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

    /// Closes a stream that has no session, for this limit; with a stream error if its client has ever sent a header,
    /// be it before TLS or SASL.
    pub(super) fn close_unbound(&mut self, limit: Limit, condition: StreamCondition) {
        let has_opened = self.negotiating.as_ref().is_some_and(|n| n.has_opened);
        // TLS-2: no plain text behind `<proceed/>`.
        if has_opened && self.want != Want::StartTls {
            self.fail(StreamError::exceeded_as(limit, condition));
        } else {
            self.limit(limit);
            self.finish(Close::Abort);
        }
    }
}
