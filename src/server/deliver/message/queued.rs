//! Messages that wait for their turn on the account's chain of jobs: for a store, or behind what
//! comes first.

use std::sync::Arc;

use jid::BareJid;

use super::handoff::{Handoff, Overtakes};
use super::{Accepted, Disposition, with_delay};
use crate::connection::SharedConnection;
use crate::extension::Admission;
use crate::rules::delivery::{
    BOUNCE, MessageDecision, MessageSituation, MessageType, Offline, message,
};
use crate::server::deliver::address::Address;
use crate::server::deliver::give::Message;
use crate::server::{Core, Task};
use crate::session::{AccountState, SessionHandle, SessionId};
use crate::stanza::{Condition, Stanza};
use crate::store::{OfflineMessage, StoreError};

/// What comes of a message whose turn it is.
pub(super) enum InTurn<C: SharedConnection> {
    Settled(Disposition<C>),
    /// Extensions review it first, for the account that is so.
    Review(AccountState),
}

impl<C: SharedConnection> From<Disposition<C>> for InTurn<C> {
    fn from(disposition: Disposition<C>) -> Self {
        Self::Settled(disposition)
    }
}

impl<C: SharedConnection> InTurn<C> {
    /// Of one that was reviewed, or need not be.
    fn settled(self) -> Disposition<C> {
        match self {
            Self::Settled(disposition) => disposition,
            Self::Review(_) => Disposition::Refused(Admission::Drop),
        }
    }
}

impl<C: SharedConnection> Core<C> {
    /// Has a message wait for its turn, behind the account's backlog.
    pub(super) fn queue_message(
        self: &Arc<Self>,
        origin: Option<SessionHandle<C>>,
        stanza: Stanza,
        to: &Address<'_>,
        accepted: Accepted,
    ) -> Task {
        let (core, to) = (Arc::clone(self), to.to_static());
        // Taken here: what comes later is not to pass it.
        let place = self.registry.queue_up(to.key());
        Box::pin(async move {
            let key = to.bare.to_string();
            let job = {
                let (core, origin, stanza) = (Arc::clone(&core), origin.clone(), stanza.clone());
                async move {
                    core.settle_left(&to.bare).await;
                    let turn = core.message_in_turn(&stanza, &to, accepted, Overtakes::Queued);
                    let disposition = turn.await.settled();
                    core.conclude(
                        origin.as_ref(),
                        Message::of(&stanza),
                        &to.bare,
                        accepted,
                        disposition,
                    );
                    drop(place);
                }
            };
            if core.jobs.run(&key, job).await.is_none() {
                core.bounce(origin.as_ref(), &stanza, Condition::InternalServerError);
            }
        })
    }

    /// A message that an ended session had accepted, in its turn: it goes where it would go without
    /// that session. Returns the sessions that have got it.
    pub(in crate::server::deliver) async fn message_left(
        self: &Arc<Self>,
        stanza: &Stanza,
        to: &Address<'_>,
        accepted: Accepted,
    ) -> Vec<SessionId> {
        let turn = self.message_in_turn(stanza, to, accepted, Overtakes::Everything);
        let disposition = turn.await.settled();
        let reached = match &disposition {
            Disposition::Delivered(reached, _) => reached.iter().map(SessionHandle::id).collect(),
            _ => Vec::new(),
        };
        self.conclude(None, Message::of(stanza), &to.bare, accepted, disposition);
        reached
    }

    /// Hands a message to the account's sessions, or stores it if there is such an account (OFF-1,
    /// OFF-2, MSG-5). Runs on the account's chain, behind what came before it.
    pub(super) async fn message_in_turn(
        self: &Arc<Self>,
        stanza: &Stanza,
        to: &Address<'_>,
        accepted: Accepted,
        mut overtakes: Overtakes,
    ) -> InTurn<C> {
        let account = &to.bare;
        // Asked again where it was asked before: what came in between may be a block.
        let Ok(state) = self.loaded_state(account).await else {
            return Disposition::refused(Condition::InternalServerError).into();
        };
        match self.admit_to(&state, stanza) {
            Admission::Accept => {}
            refused => return Disposition::kept_out(stanza, to, accepted, refused).into(),
        }
        if !self.registry.is_loaded(account) {
            match self.stores.accounts.exists(account).await {
                Ok(true) => {}
                Ok(false) => return self.message_to_nobody(stanza, to).into(),
                Err(_) => return Disposition::refused(Condition::InternalServerError).into(),
            }
        }
        loop {
            match self.hand_off(stanza, to, accepted, overtakes) {
                Handoff::Settled(disposition) => return disposition.into(),
                _ if overtakes == Overtakes::Unreviewed => return InTurn::Review(state),
                Handoff::Store => return self.store(account, stanza, accepted).await.into(),
                Handoff::Behind if self.catch_up(account).await => self.give_inherited(to).await,
                // The store does not answer: what it can keep goes behind what it has.
                Handoff::Behind if self.offline(stanza) == Offline::Store => {
                    return self.store(account, stanza, accepted).await.into();
                }
                Handoff::Behind => overtakes = Overtakes::Everything,
            }
        }
    }

    /// Puts a message into the offline store.
    async fn store(
        &self,
        account: &BareJid,
        stanza: &Stanza,
        accepted: Accepted,
    ) -> Disposition<C> {
        let Some(store) = &self.stores.offline else { return Disposition::Stored };
        let (at, stamped) = match accepted {
            Accepted::Now => (self.environment.utc(), None),
            Accepted::Earlier { at, .. } => (at, with_delay(stanza, account.domain().as_str(), at)),
        };
        let stanza = stamped.as_ref().unwrap_or(stanza).to_xml();
        match store.push(account, OfflineMessage::new(stanza, at)).await {
            Ok(()) => {
                self.metrics.offline_stored();
                Disposition::Stored
            }
            Err(StoreError::Full | StoreError::NoSpace(_)) => Disposition::refused(BOUNCE),
            Err(_) => Disposition::refused(Condition::InternalServerError),
        }
    }

    /// A message to an account that does not exist (MSG-T1, MSG-T2).
    fn message_to_nobody(&self, stanza: &Stanza, to: &Address<'_>) -> Disposition<C> {
        let situation = match to.resource {
            Some(_) => MessageSituation::UnknownFull,
            None => MessageSituation::UnknownBare,
        };
        let type_ = MessageType::of(stanza.type_().as_deref());
        match message(type_, situation, self.offline(stanza)) {
            MessageDecision::Bounce => Disposition::refused(BOUNCE),
            _ => Disposition::NoAccount,
        }
    }
}
