//! Roster requests of a client (RFC 6121 §2), and everything else that changes a roster.

pub(crate) mod change;
mod load;
pub(crate) mod transaction;
pub(crate) mod unheard;

use std::sync::Arc;

use self::transaction::Change;
use super::answer::{AnswerOnce, try_again};
use super::handler::HANDLER_TIMEOUT;
use crate::connection::SharedConnection;
use crate::rules::roster::{RosterSet, parse_get, removed_stray, result};
use crate::server::{Core, Task};
use crate::session::SessionHandle;
use crate::stanza::{Child, Stanza};

impl<C: SharedConnection> Core<C> {
    /// A roster get or set of a session to its own account.
    pub(super) fn roster_iq(
        self: &Arc<Self>,
        session: &SessionHandle<C>,
        stanza: &Stanza,
        query: &Child<'_>,
        is_set: bool,
    ) -> Option<Task> {
        if is_set {
            return self.roster_set(session, stanza, query);
        }
        match parse_get(query) {
            Ok(version) => {
                Some(self.roster_get(session.clone(), stanza.clone(), version.map(Into::into)))
            }
            Err(error) => {
                self.bounce(Some(session), stanza, error);
                None
            }
        }
    }

    /// On the account's chain, so that no change comes between the result and the first push
    /// (ROSTER-2).
    fn roster_get(
        self: &Arc<Self>,
        session: SessionHandle<C>,
        stanza: Stanza,
        version: Option<String>,
    ) -> Task {
        let core = Arc::clone(self);
        let once = AnswerOnce::default();
        let key = session.account().bare.as_str().to_owned();
        let job = {
            let (core, once) = (Arc::clone(self), once.clone());
            let (session, stanza) = (session.clone(), stanza.clone());
            async move {
                if once.take() {
                    session.set_interested();
                    let payload = result(&session.roster(), version.as_deref());
                    core.result(Some(&session), &stanza, &payload);
                }
            }
        };
        let done = self.jobs.run(&key, job);
        Box::pin(async move {
            if core.timers.within(HANDLER_TIMEOUT, done).await.is_none() && once.take() {
                core.bounce(Some(&session), &stanza, try_again());
            }
        })
    }

    fn roster_set(
        self: &Arc<Self>,
        session: &SessionHandle<C>,
        stanza: &Stanza,
        query: &Child<'_>,
    ) -> Option<Task> {
        let (contact, change) = match removed_stray(query, &session.roster()) {
            Some(text) => (session.account().bare.clone(), Change::Strike(text)),
            None => match RosterSet::parse(query, &self.limits.roster) {
                Ok(set) => (set.contact().clone(), Change::Set(set)),
                Err(error) => {
                    self.bounce(Some(session), stanza, error);
                    return None;
                }
            },
        };
        let core = Arc::clone(self);
        let (session, stanza) = (session.clone(), stanza.clone());
        Some(Box::pin(async move {
            let account = session.account().bare.clone();
            let once = AnswerOnce::default();
            let answer = {
                let (core, session, stanza) = (Arc::clone(&core), session.clone(), stanza.clone());
                let once = once.clone();
                move || {
                    if once.take() {
                        core.result(Some(&session), &stanza, b"");
                    }
                }
            };
            let origin = Some(session.clone());
            let change = core.change_roster(account, contact, change, origin, answer);
            let error = match core.timers.within(HANDLER_TIMEOUT, change).await {
                Some(Ok(())) => return,
                Some(Err(failed)) => failed.into(),
                None => try_again(),
            };
            if once.take() {
                core.bounce(Some(&session), &stanza, error);
            }
        }))
    }
}
