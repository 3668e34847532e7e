//! What a stream is doing, for the host's log: spans of the `tracing` crate, nothing without the
//! feature of that name.
//!
//! A span names the number of the stream and, once it is bound, of the session. It names no JID
//! unless the host asks for that ([`Builder::log_addresses`](crate::server::Builder::log_addresses), SEC-6).

use jid::FullJid;

use crate::session::SessionId;
use crate::stream::StreamError;

/// The span of one stream.
#[cfg(feature = "tracing")]
pub(super) struct Trace {
    span: tracing::Span,
    addresses: bool,
}

#[cfg(feature = "tracing")]
impl Trace {
    pub(super) fn new(stream: u64, addresses: bool) -> Self {
        let span = tracing::debug_span!(
            target: "xmpp_session",
            "stream",
            stream,
            session = tracing::field::Empty,
            jid = tracing::field::Empty,
        );
        Self { span, addresses }
    }

    /// What happens until the guard is dropped belongs to the stream.
    pub(super) fn entered(&self) -> tracing::span::EnteredSpan {
        self.span.clone().entered()
    }

    pub(super) fn bound(&self, session: SessionId, jid: &FullJid) {
        self.span.record("session", session.get());
        if self.addresses {
            self.span.record("jid", jid.as_str());
        }
        tracing::info!(target: "xmpp_session", parent: &self.span, "bound");
    }

    pub(super) fn failed(&self, error: &StreamError) {
        let limit = error.limit().map(crate::stream::Limit::id);
        let condition = error.condition().as_str();
        tracing::info!(target: "xmpp_session", parent: &self.span, condition, limit, "stream error");
    }

    pub(super) fn refused(&self, condition: &'static str) {
        tracing::info!(target: "xmpp_session", parent: &self.span, condition, "login refused");
    }
}

#[cfg(feature = "tracing")]
impl Drop for Trace {
    fn drop(&mut self) {
        tracing::debug!(target: "xmpp_session", parent: &self.span, "over");
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
    pub(super) const fn new(_: u64, _: bool) -> Self {
        Self
    }

    pub(super) const fn entered(&self) -> Entered {
        Entered
    }

    pub(super) const fn bound(&self, _: SessionId, _: &FullJid) {}

    pub(super) const fn failed(&self, _: &StreamError) {}

    pub(super) const fn refused(&self, _: &'static str) {}
}

#[cfg(test)]
#[cfg(feature = "tracing")]
mod tests {
    use std::fmt::{Debug, Write};
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, Mutex};

    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber};

    use super::*;
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
            event.record(&mut Fields(&mut self.0.lock().unwrap()));
        }

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {}
    }

    fn told(addresses: bool) -> String {
        let log = Log::default();
        tracing::subscriber::with_default(log.clone(), || {
            let trace = Trace::new(7, addresses);
            let _span = trace.entered();
            trace.bound(SessionId::first(), &FullJid::new("juliet@example.com/balcony").unwrap());
            trace.failed(&StreamCondition::NotWellFormed.into());
            trace.refused("not-authorized");
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
    fn a_stream_tells_what_becomes_of_it() {
        let told = told(false);
        for part in [
            "stream=7",
            "session=1",
            "message=bound",
            "not-well-formed",
            "not-authorized",
            "message=over",
        ] {
            assert!(told.contains(part), "{part} in {told}");
        }
    }
}
