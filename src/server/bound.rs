//! Input of a bound session: each stanza counted, stamped, looked at, and on its way.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::address::{Address, Malformed};
use super::driver::{Driver, Pending, Stage};
use super::{Core, Task, oneshot};
use crate::connection::Connection;
use crate::extension::Flow;
use crate::rules::presence::PresenceType;
use crate::sasl::wire;
use crate::session::{Bound, Reason, Session, SessionHandle};
use crate::stanza::{Condition, ErrorType, Kind, Received, Stanza, StanzaError};
use crate::stream::{Nonza, STREAM_NAMESPACE, StreamCondition};

impl<C: Connection + Clone> Driver<C> {
    /// A stanza of the client. It is counted before it has an effect (SM-5), and its ticket stays
    /// out until the last effect is done, also when this driver is gone by then.
    pub(super) fn stanza(&mut self, received: &Received<'_>) {
        let Stage::Bound(session) = &mut self.stage else { return };
        let Some(Ok(ticket)) = session.try_input() else { return };
        let core = Arc::clone(&self.core);
        core.metrics.received(received.kind());
        let stanza = stamp(session, received, self.lang.as_deref());
        let stanza = if received.may_claim() { core.without_claims(stanza) } else { stanza };
        let handle = session.handle();
        let text = stanza.to();
        let to = text.as_deref().map(|text| core.address(text));
        let known = to.as_ref().and_then(|to| to.as_ref().ok());
        let allowed = core.allows_recipient(&mut self.recipients, &handle, &stanza, known);
        // What a host's hook loses by a panic is this stanza, and its sender is told.
        let work = || match allowed {
            true => core.client_stanza(session, &stanza, to),
            false => {
                core.metrics.limit("LIMIT-21");
                let error = StanzaError::new(Condition::PolicyViolation);
                core.bounce(Some(&handle), &stanza, error.with_type(ErrorType::Wait));
                None
            }
        };
        let task = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
            core.bounce(Some(&handle), &stanza, Condition::InternalServerError);
            None
        });
        let broadcast = stanza.kind() == Kind::Presence && stanza.raw_to().is_none();
        if let Some(task) = task {
            let (sender, done) = oneshot::channel();
            let jobs = Arc::clone(&core.jobs);
            jobs.spawn(async move {
                if super::caught(task).await.is_none() {
                    core.bounce(Some(&handle), &stanza, Condition::InternalServerError);
                }
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
            return self.close_after_client(Reason::StreamError, b"</stream:stream>");
        }
        if nonza.namespace() == wire::NS {
            // SASL-10
            return self.fail(StreamCondition::NotAuthorized.into());
        }
        let core = Arc::clone(&self.core);
        let offer = || {
            let offered = core.extensions.iter().map(|extension| extension.nonza(session, nonza));
            offered.into_iter().find(|flow| *flow != Flow::Next).unwrap_or(Flow::Next)
        };
        match super::shielded(offer) {
            Some(Flow::Done) => {}
            Some(Flow::Close(error)) => self.fail(error),
            // STREAM-16
            Some(Flow::Next) => {
                self.fail(StreamCondition::UnsupportedStanzaType.into());
            }
            None => self.fail(StreamCondition::InternalServerError.into()),
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
        to: Option<Result<Address<'_>, Malformed>>,
    ) -> Option<Task> {
        let handle = session.handle();
        if self.extensions.iter().any(|one| one.inbound(&handle, stanza) != Flow::Next) {
            return None;
        }
        let to = match to.transpose() {
            Ok(to) => to,
            Err(Malformed) => {
                self.malformed(&handle, stanza);
                return None;
            }
        };
        match (stanza.kind(), to) {
            (Kind::Presence, to) => self.client_presence(session, stanza, to.as_ref()),
            (Kind::Iq, None) => self.iq(Some(&handle), stanza, None),
            // STZ-4: without an address, to the own account.
            (Kind::Message, None) => {
                let own = self.address(handle.account().bare.as_str()).ok()?;
                self.message(Some(&handle), stanza, &own)
            }
            (_, Some(to)) => self.route_to(Some(&handle), stanza, &to),
        }
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
