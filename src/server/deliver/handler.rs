//! Iq requests that the server answers for itself or for an account: by itself, or by an extension.

use std::sync::Arc;
use std::time::Duration;

use jid::BareJid;

use super::answer::try_again;
use super::give::Origin;
use super::iq::sender;
use crate::address;
use crate::connection::SharedConnection;
use crate::extension::{Admission, IqDone, IqReply, IqRequest, Target};
use crate::rules::delivery::{BOUNCE, Relation};
use crate::rules::roster;
use crate::server::{Core, PeerAddress, Task, caught};
use crate::session::{HostCode, SessionHandle};
use crate::stanza::{Condition, Stanza};

/// IQ-5: a handler that takes longer has failed.
pub(in crate::server) const HANDLER_TIMEOUT: Duration = Duration::from_secs(60);
pub(in crate::server) const BIND_NS: &str = "urn:ietf:params:xml:ns:xmpp-bind";
const LEGACY_SESSION: &str = "urn:ietf:params:xml:ns:xmpp-session";

impl<C: SharedConnection> Core<C> {
    /// Answers a request to a domain or to an account.
    pub(super) fn handle_iq(
        self: &Arc<Self>,
        origin: Origin<'_, C>,
        stanza: &Stanza,
        to: BareJid,
        target: Target,
    ) -> Option<Task> {
        let own = origin.is_some_and(|session| session.account().bare == to);
        if let (Some(session), Some(query)) = (origin, stanza.child()) {
            // No extension sees requests about the stream of the session and its roster.
            let is_set = stanza.type_().as_deref() == Some("set");
            // A stream is the business of its server and of its account, and of nobody else.
            let of_stream = own || target == Target::Domain;
            if of_stream && is_set && query.is("session", LEGACY_SESSION) {
                // BIND-15
                self.result(origin, stanza, b"");
                return None;
            }
            if of_stream && query.is("bind", BIND_NS) {
                // BIND-9
                return self.refuse(origin, stanza, Condition::NotAllowed);
            }
            if target == Target::Account && query.is("query", roster::NAMESPACE) {
                return match (own, is_set) {
                    (true, true) => self.roster_set(session, stanza, &query),
                    (true, false) => self.roster_get(session, stanza, &query),
                    (false, _) => self.refuse(origin, stanza, BOUNCE),
                };
            }
        }
        let relation = if own {
            Relation::Own
        } else if target == Target::Domain {
            Relation::Subscriber
        } else if self.registry.is_loaded(&to) {
            self.relation(stanza, self.registry.key(to.as_str()))
        } else {
            return Some(self.load_and_handle(origin.cloned(), stanza.clone(), to, target));
        };
        self.call_handlers(origin, stanza, &to, target, relation)
    }

    /// A request to an account without sessions.
    fn load_and_handle(
        self: &Arc<Self>,
        origin: Option<SessionHandle<C>>,
        stanza: Stanza,
        to: BareJid,
        target: Target,
    ) -> Task {
        let core = Arc::clone(self);
        Box::pin(async move {
            match core.admit_queued(&to, &stanza).await {
                Admission::Accept => {}
                Admission::Drop => return,
                Admission::Refuse(error) => return core.bounce(origin.as_ref(), &stanza, error),
            }
            let sender = sender(&stanza).and_then(|sender| address::bare(&sender).ok());
            let subscribes = match &sender {
                Some(sender) if core.serves(sender.as_str()) => true,
                Some(sender) => {
                    let contact = core.load_contact(&to, sender).await;
                    contact.is_ok_and(|(roster, _)| roster.is_subscriber(sender.as_str()))
                }
                None => false,
            };
            let relation = Relation::of(false, || subscribes, || false);
            let task = core.call_handlers(origin.as_ref(), &stanza, &to, target, relation);
            if let Some(task) = task {
                task.await;
            }
        })
    }

    /// The first extension that answers does.
    fn call_handlers(
        self: &Arc<Self>,
        origin: Origin<'_, C>,
        stanza: &Stanza,
        to: &BareJid,
        target: Target,
        relation: Relation,
    ) -> Option<Task> {
        let request = IqRequest {
            stanza,
            query: stanza.child()?,
            to,
            target,
            session: origin,
            registry: &self.registry,
            server: &self.handle,
            relation,
            advertised: &self.disco_features(target),
            components: &self.components.domains().collect::<Vec<_>>(),
        };
        let call = || self.extensions.iter().find_map(|extension| extension.iq(&request));
        let failed = || Some(IqReply::error(Condition::InternalServerError));
        let account = origin.map(|session| &session.account().bare);
        let called = self.shielded(HostCode::Extension, account, call);
        match called.unwrap_or_else(failed) {
            None => self.refuse(origin, stanza, BOUNCE),
            Some(IqReply::Now(result)) => {
                self.answer_iq(origin, stanza, result);
                None
            }
            Some(IqReply::Job(work)) => {
                Some(self.run_job(origin.cloned(), stanza.clone(), to, work))
            }
            Some(IqReply::Later(answer)) => {
                let (core, origin, stanza) = (Arc::clone(self), origin.cloned(), stanza.clone());
                let to = to.clone();
                Some(Box::pin(async move {
                    let answer = caught(answer, |message| core.extension_panicked(&to, message));
                    let result = core.timers.within(HANDLER_TIMEOUT, answer).await;
                    let failed = || Err(Condition::InternalServerError.into());
                    let result =
                        result.map_or(Err(try_again()), |answer| answer.unwrap_or_else(failed));
                    core.answer_iq(origin.as_ref(), &stanza, result);
                }))
            }
        }
    }

    pub(super) fn extension_panicked(&self, account: &BareJid, message: Option<String>) {
        let peer = &PeerAddress::UNKNOWN;
        self.faults.panicked(HostCode::Extension, peer, Some(account), message);
    }

    /// Runs a handler's work on the account's chain.
    fn run_job(
        self: &Arc<Self>,
        origin: Option<SessionHandle<C>>,
        stanza: Stanza,
        account: &BareJid,
        work: impl Future<Output = IqDone> + Send + 'static,
    ) -> Task {
        let (core, key, account) = (Arc::clone(self), account.as_str(), account.clone());
        let done = self.jobs.run(key, async move {
            let failed = || IqDone::new(Err(Condition::InternalServerError.into()));
            let told = |message| core.extension_panicked(&account, message);
            let done = caught(work, told).await.unwrap_or_else(failed);
            core.answer_iq(origin.as_ref(), &stanza, done.result);
            if let Some(then) = done.then {
                then();
            }
            core.show_unheard(&account);
        });
        Box::pin(async move {
            let _panicked = done.await;
        })
    }
}
