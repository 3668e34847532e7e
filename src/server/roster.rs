//! Roster requests of a client (RFC 6121 §2).

use std::sync::Arc;

use super::transaction::Change;
use super::{Core, Task};
use crate::connection::Connection;
use crate::rules::roster::{RosterSet, parse_get, result};
use crate::session::SessionHandle;
use crate::stanza::{Child, Stanza, StanzaError};

impl<C: Connection + Clone> Core<C> {
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
            Ok(held) => {
                Some(self.roster_get(session.clone(), stanza.clone(), held.map(Into::into)))
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
        held: Option<String>,
    ) -> Task {
        let core = Arc::clone(self);
        let key = session.account().bare.as_str().to_owned();
        let job = async move {
            session.set_interested();
            let payload = result(&session.roster(), held.as_deref());
            core.result(Some(&session), &stanza, &payload);
        };
        let done = self.jobs.run(&key, job);
        Box::pin(async move {
            done.await;
        })
    }

    fn roster_set(
        self: &Arc<Self>,
        session: &SessionHandle<C>,
        stanza: &Stanza,
        query: &Child<'_>,
    ) -> Option<Task> {
        let set = match RosterSet::parse(query, &self.limits.roster) {
            Ok(set) => set,
            Err(error) => {
                self.bounce(Some(session), stanza, error);
                return None;
            }
        };
        let core = Arc::clone(self);
        let (session, stanza) = (session.clone(), stanza.clone());
        Some(Box::pin(async move {
            let account = session.account().bare.clone();
            let contact = set.contact().clone();
            let answer = {
                let (core, session, stanza) = (Arc::clone(&core), session.clone(), stanza.clone());
                move || core.result(Some(&session), &stanza, b"")
            };
            let changed = core.change_roster(account, contact, Change::Set(set), answer).await;
            if let Err(failed) = changed {
                core.bounce(Some(&session), &stanza, StanzaError::from(failed));
            }
        }))
    }
}
