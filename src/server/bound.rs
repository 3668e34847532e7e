//! Input of a bound session: each stanza counted, stamped, looked at, and on its way.

use std::sync::Arc;

use super::address::Malformed;
use super::driver::{Driver, Pending, Stage};
use super::{Core, Task, oneshot};
use crate::connection::{Close, Connection};
use crate::extension::Flow;
use crate::rules::presence::PresenceType;
use crate::sasl::wire;
use crate::session::{Bound, Reason, Session, SessionHandle};
use crate::stanza::{Condition, Kind, Received, Stanza};
use crate::stream::{Nonza, STREAM_NAMESPACE, StreamCondition};

const BIND_NS: &str = "urn:ietf:params:xml:ns:xmpp-bind";

impl<C: Connection + Clone> Driver<C> {
    /// A stanza of the client. It is counted before it has an effect (SM-5), and its ticket stays
    /// out until the last effect is done, also when this driver is gone by then.
    pub(super) fn stanza(&mut self, received: &Received<'_>) {
        let Stage::Bound(session) = &mut self.stage else { return };
        let Some(Ok(ticket)) = session.try_input() else { return };
        let core = Arc::clone(&self.core);
        core.metrics.received(received.kind());
        let stanza = stamp(session, received, self.lang.as_deref());
        let task = core.client_stanza(session, &stanza);
        let broadcast = stanza.kind() == Kind::Presence && stanza.raw_to().is_none();
        if let Some(task) = task {
            let (sender, done) = oneshot::channel();
            core.jobs.spawn(async move {
                super::caught(task).await;
                drop(ticket);
                sender.send(());
            });
            self.pending = Some(Pending::Stanza(done));
        }
        self.count_stanza(broadcast);
    }

    /// A first-level element that is no stanza.
    pub(super) fn nonza(&mut self, nonza: &Nonza) {
        let Stage::Bound(session) = &mut self.stage else { return };
        if nonza.is("error", STREAM_NAMESPACE) {
            // SERR-2
            self.end_session(Reason::StreamError, b"</stream:stream>");
            return self.finish(Close::Flush);
        }
        if nonza.namespace() == wire::NS {
            // SASL-10
            return self.fail(StreamCondition::NotAuthorized.into());
        }
        let core = Arc::clone(&self.core);
        let taken =
            core.extensions.iter().any(|extension| extension.nonza(session, nonza) == Flow::Done);
        if !taken {
            // STREAM-16
            self.fail(StreamCondition::UnsupportedStanzaType.into());
        }
    }
}

/// STZ-1: the true sender, whatever the client wrote; subscriptions come from the account.
fn stamp<C: Connection + Clone>(
    session: &Session<Bound, C>,
    received: &Received<'_>,
    lang: Option<&str>,
) -> Stanza {
    let managed = matches!(
        received.type_(),
        Some("subscribe" | "subscribed" | "unsubscribe" | "unsubscribed")
    );
    let from = if received.kind() == Kind::Presence && managed {
        session.account().as_str()
    } else {
        session.jid().as_str()
    };
    received.stamp(Some(from), lang)
}

impl<C: Connection + Clone> Core<C> {
    /// Does what a stanza of a client asks for. What has to wait is returned.
    fn client_stanza(
        self: &Arc<Self>,
        session: &mut Session<Bound, C>,
        stanza: &Stanza,
    ) -> Option<Task> {
        let handle = session.handle();
        let dealt_with = self.extensions.iter().any(|e| e.inbound(&handle, stanza) == Flow::Done);
        if dealt_with {
            return None;
        }
        let to = match stanza.to().map(|to| self.address(&to)).transpose() {
            Ok(to) => to,
            Err(Malformed) => {
                self.malformed(&handle, stanza);
                return None;
            }
        };
        match (stanza.kind(), to) {
            (Kind::Presence, to) => self.client_presence(session, stanza, to.as_ref()),
            (Kind::Iq, None) => self.own_iq(&handle, stanza),
            // STZ-4: without an address, to the own account.
            (Kind::Message, None) => {
                let own = self.address(handle.account().bare.as_str()).ok()?;
                self.message(Some(&handle), stanza, &own)
            }
            (_, Some(to)) => self.route_to(Some(&handle), stanza, &to),
        }
    }

    fn own_iq(self: &Arc<Self>, handle: &SessionHandle<C>, stanza: &Stanza) -> Option<Task> {
        // BIND-9
        if stanza.child().is_some_and(|child| child.is("bind", BIND_NS)) {
            self.bounce(Some(handle), stanza, Condition::NotAllowed);
            return None;
        }
        self.iq(Some(handle), stanza, None)
    }

    /// STZ-5: a bad address is not echoed.
    fn malformed(&self, handle: &SessionHandle<C>, stanza: &Stanza) {
        let probe = stanza.kind() == Kind::Presence
            && PresenceType::read(stanza) == Ok(PresenceType::Probe);
        if probe {
            // PRES-19
            return;
        }
        let own = handle.account().bare.as_str();
        let stanza = stanza.readdressed(stanza.from().as_deref(), Some(own));
        self.bounce(Some(handle), &stanza, Condition::JidMalformed);
    }

    /// STREAM-29: a ping that a silent client has to answer with anything.
    pub(super) fn ask_for_life(self: &Arc<Self>, session: &SessionHandle<C>) {
        let domain = session.jid().domain().as_str();
        let id = self.push_id();
        let ping = Stanza::iq("get").from(domain).to(session.jid().as_str()).id(&id);
        let _gone = self.give(session, &ping.payload(b"<ping xmlns='urn:xmpp:ping'/>").build());
    }
}
