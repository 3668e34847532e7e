//! What happens, for the host's log: spans and events of the `tracing` crate, nothing without the
//! feature of that name (TRACE-1).
//!
//! Names follow the semantic conventions of
//! [OpenTelemetry](https://opentelemetry.io/docs/specs/semconv/registry/attributes/) where there are such:
//! `client.address`, `session.id`, `user.name`, `error.type`, `exception.message`. A span names the number of the
//! stream and, once it is bound, of the session. Neither names a JID unless the host asks for that
//! ([`ServerBuilder::log_addresses`](crate::server::ServerBuilder::log_addresses), SEC-6).

use jid::{BareJid, FullJid};

use super::faults::fault::Fault;
#[cfg(feature = "tracing")]
use super::faults::fault::FaultKind;
use super::faults::peer::PeerAddress;
use crate::sasl::Mechanism;
use crate::session::{Reason, SessionId};
use crate::stream::StreamError;

/// Whether anybody may listen.
pub(super) const IS_ON: bool = cfg!(feature = "tracing");

/// The span of one stream.
#[cfg(feature = "tracing")]
pub(super) struct Trace(tracing::Span);

#[cfg(feature = "tracing")]
impl Trace {
    pub(super) fn new(stream: u64, peer: &PeerAddress) -> Self {
        let span = tracing::info_span!(
            target: "xmpp_session",
            "stream",
            stream,
            client.address = peer.is_known().then(|| tracing::field::display(peer)),
            session.id = tracing::field::Empty,
            user.name = tracing::field::Empty,
            jid = tracing::field::Empty,
        );
        Self(span)
    }

    /// What happens until the guard is dropped belongs to the stream.
    pub(super) fn entered(&self) -> tracing::span::EnteredSpan {
        self.0.clone().entered()
    }

    pub(super) fn logged_in(
        &self,
        account: &BareJid,
        mechanism: Option<Mechanism>,
        addresses: bool,
    ) {
        if addresses {
            self.0.record("user.name", account.as_str());
        }
        let mechanism = mechanism.map(Mechanism::as_str);
        tracing::info!(target: "xmpp_session", parent: &self.0, mechanism, "login");
    }

    /// The stream has a session: bound, or resumed.
    pub(super) fn bound(
        &self,
        session: SessionId,
        jid: &FullJid,
        is_resumed: bool,
        addresses: bool,
    ) {
        self.0.record("session.id", session.get());
        if addresses {
            self.0.record("jid", jid.as_str());
        }
        match is_resumed {
            false => tracing::info!(target: "xmpp_session", parent: &self.0, "bind"),
            true => tracing::info!(target: "xmpp_session", parent: &self.0, "resumption"),
        }
    }

    pub(super) fn failed(&self, error: &StreamError) {
        let limit = error.limit().map(crate::stream::Limit::id);
        let condition = error.condition().as_str();
        tracing::info!(
            target: "xmpp_session",
            parent: &self.0,
            { error.type = condition, limit },
            "stream error"
        );
    }
}

/// A session is over, with a transport or without.
#[cfg(feature = "tracing")]
pub(super) fn ended(session: SessionId, jid: &FullJid, reason: Reason, addresses: bool) {
    let (session, reason) = (session.get(), reason.as_str());
    let jid = addresses.then(|| jid.as_str());
    tracing::info!(
        target: "xmpp_session",
        { session.id = session, jid, reason },
        "session end"
    );
}

/// Something went wrong.
#[cfg(feature = "tracing")]
pub(super) fn fault(fault: &Fault, addresses: bool) {
    let kind = fault.kind();
    let peer = fault.peer();
    let message = match kind {
        FaultKind::Store { error, .. } | FaultKind::Tls { error } => Some(error.as_str()),
        FaultKind::Panic { message, .. } => message.as_deref(),
        _ => None,
    };
    let mechanism = match kind {
        FaultKind::Login { mechanism, .. } => mechanism.map(Mechanism::as_str),
        _ => None,
    };
    tracing::warn!(
        target: "xmpp_session",
        {
            fault = kind.as_str(),
            error.type = kind.detail(),
            exception.message = message,
            mechanism,
            client.address = peer.is_known().then(|| tracing::field::display(peer)),
            user.name = fault.account().filter(|_| addresses).map(|account| account.as_str()),
            left_out = (fault.left_out() > 0).then(|| fault.left_out()),
        },
        "fault"
    );
}

#[cfg(feature = "tracing")]
impl Drop for Trace {
    fn drop(&mut self) {
        tracing::debug!(target: "xmpp_session", parent: &self.0, "over");
    }
}

/// Nothing.
#[cfg(not(feature = "tracing"))]
pub(super) struct Trace;

/// Nothing, for a while.
#[cfg(not(feature = "tracing"))]
pub(super) struct Entered;

#[cfg(not(feature = "tracing"))]
impl Trace {
    pub(super) const fn new(_: u64, _: &PeerAddress) -> Self {
        Self
    }

    pub(super) const fn entered(&self) -> Entered {
        Entered
    }

    pub(super) const fn logged_in(&self, _: &BareJid, _: Option<Mechanism>, _: bool) {}

    pub(super) const fn bound(&self, _: SessionId, _: &FullJid, _: bool, _: bool) {}

    pub(super) const fn failed(&self, _: &StreamError) {}
}

#[cfg(not(feature = "tracing"))]
pub(super) const fn ended(_: SessionId, _: &FullJid, _: Reason, _: bool) {}

#[cfg(not(feature = "tracing"))]
pub(super) const fn fault(_: &Fault, _: bool) {}

#[cfg(test)]
#[cfg(feature = "tracing")]
mod tests {
    use std::fmt::{Debug, Write};
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, Mutex};

    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber};

    use super::super::faults::Faults;
    use super::*;
    use crate::session::HostCode;
    use crate::stream::StreamCondition;

    /// Writes down every field of every span and event.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<String>>, Arc<AtomicU64>);

    struct Fields<'a>(&'a mut String);

    impl Visit for Fields<'_> {
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            let _infallible = write!(self.0, " {field}={value:?}");
        }
    }

    impl Subscriber for Log {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, span: &Attributes<'_>) -> Id {
            span.record(&mut Fields(&mut self.0.lock().unwrap()));
            Id::from_u64(self.1.fetch_add(1, Ordering::Relaxed) + 1)
        }

        fn record(&self, _: &Id, values: &Record<'_>) {
            values.record(&mut Fields(&mut self.0.lock().unwrap()));
        }

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn event(&self, event: &Event<'_>) {
            let mut told = self.0.lock().unwrap();
            let _infallible = write!(told, " level={}", event.metadata().level());
            event.record(&mut Fields(&mut told));
        }

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {}
    }

    fn told(addresses: bool) -> String {
        let log = Log::default();
        let jid = FullJid::new("juliet@example.com/balcony").unwrap();
        tracing::subscriber::with_default(log.clone(), || {
            let trace = Trace::new(7, &PeerAddress::new(Some("192.0.2.7")));
            let _span = trace.entered();
            trace.logged_in(&jid.to_bare(), Some(Mechanism::Plain), addresses);
            trace.bound(SessionId::first(), &jid, false, addresses);
            trace.bound(SessionId::first(), &jid, true, addresses);
            trace.failed(&StreamCondition::NotWellFormed.into());
            ended(SessionId::first(), &jid, Reason::Closed, addresses);
        });
        let told = log.0.lock().unwrap();
        told.clone()
    }

    #[test]
    fn sec_6_spans_name_no_jid_unless_the_host_asks() {
        let silent = told(false);
        assert!(!silent.contains("juliet") && !silent.contains("balcony"), "{silent}");
        assert!(told(true).contains("juliet@example.com/balcony"));
    }

    #[test]
    fn trace_1_a_fault_is_a_warning() {
        for addresses in [false, true] {
            let log = Log::default();
            let environment = Arc::new(crate::environment::Virtual::new(1));
            let faults = Faults::new(None, environment, Arc::default(), addresses);
            let juliet = BareJid::new("juliet@example.com").unwrap();
            let peer = PeerAddress::new(Some("192.0.2.7"));
            tracing::subscriber::with_default(log.clone(), || {
                let (code, message) = (HostCode::Router, Some("no route".to_owned()));
                faults.tell(FaultKind::Panic { code, message }, &peer, Some(&juliet));
            });
            let told = log.0.lock().unwrap();
            for part in [
                "level=WARN",
                "fault=\"panic\"",
                "error.type=\"router\"",
                "exception.message=\"no route\"",
                "client.address=192.0.2.7",
            ] {
                assert!(told.contains(part), "{part} in {told}");
            }
            assert_eq!(told.contains("user.name=\"juliet@example.com\""), addresses, "{told}");
            assert_eq!(told.contains("juliet"), addresses, "{told}");
        }
    }

    #[test]
    fn trace_1_a_stream_tells_what_becomes_of_it() {
        let told = told(false);
        for part in [
            "stream=7",
            "client.address=192.0.2.7",
            "level=INFO message=login",
            "mechanism=\"PLAIN\"",
            "session.id=1",
            "message=bind",
            "message=resumption",
            "error.type=\"not-well-formed\"",
            "message=session end",
            "reason=\"closed\"",
            "message=over",
        ] {
            assert!(told.contains(part), "{part} in {told}");
        }
    }
}
