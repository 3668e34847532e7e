//! Roster requests of a client (RFC 6121 §2).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::connection::SharedConnection;
use crate::rules::roster::{RosterSet, parse_get, removed_stray, result};
use crate::server::deliver::iq::{PATIENCE, late};
use crate::server::deliver::transaction::Change;
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
        let turn = Turn::default();
        let key = session.account().bare.as_str().to_owned();
        let job = {
            let (core, turn) = (Arc::clone(self), turn.clone());
            let (session, stanza) = (session.clone(), stanza.clone());
            async move {
                if turn.take() {
                    session.set_interested();
                    let payload = result(&session.roster(), held.as_deref());
                    core.result(Some(&session), &stanza, &payload);
                }
            }
        };
        let done = self.jobs.run(&key, job);
        Box::pin(async move {
            if core.timers.within(PATIENCE, done).await.is_none() && turn.take() {
                core.bounce(Some(&session), &stanza, late());
            }
        })
    }

    fn roster_set(
        self: &Arc<Self>,
        session: &SessionHandle<C>,
        stanza: &Stanza,
        query: &Child<'_>,
    ) -> Option<Task> {
        let set = RosterSet::parse(query, &self.limits.roster);
        let stray = match &set {
            Ok(set) if !set.is_removal() => None,
            _ => removed_stray(query, &session.roster()),
        };
        let (contact, change) = match (stray, set) {
            (Some(text), _) => (session.account().bare.clone(), Change::Strike(text)),
            (None, Ok(set)) => (set.contact().clone(), Change::Set(set)),
            (None, Err(error)) => {
                self.bounce(Some(session), stanza, error);
                return None;
            }
        };
        let core = Arc::clone(self);
        let (session, stanza) = (session.clone(), stanza.clone());
        Some(Box::pin(async move {
            let account = session.account().bare.clone();
            let turn = Turn::default();
            let answer = {
                let (core, session, stanza) = (Arc::clone(&core), session.clone(), stanza.clone());
                let turn = turn.clone();
                move || {
                    if turn.take() {
                        core.result(Some(&session), &stanza, b"");
                    }
                }
            };
            let origin = Some(session.clone());
            let change = core.change_roster(account, contact, change, origin, answer);
            let error = match core.timers.within(PATIENCE, change).await {
                Some(Ok(())) => return,
                Some(Err(failed)) => failed.into(),
                None => late(),
            };
            if turn.take() {
                core.bounce(Some(&session), &stanza, error);
            }
        }))
    }
}

/// The turn to answer an iq: whoever comes first has it, since there is one answer (IQ-5).
#[derive(Clone, Default)]
struct Turn(Arc<AtomicBool>);

impl Turn {
    fn take(&self) -> bool {
        !self.0.swap(true, Ordering::Relaxed)
    }
}
