//! What accounts here have for accounts elsewhere.

use std::sync::Arc;

use super::letter::Letter;
use super::{Clustered, Command};
use crate::address;
use crate::cluster::{Recipient, Slot};
use crate::connection::SharedConnection;
use crate::server::Core;
use crate::server::deliver::route::Outgoing;
use crate::session::Validity;
use crate::stanza::Stanza;
use std::task::Waker;

/// A letter that is to go, in the order in which these come.
pub(super) struct Submission<C: SharedConnection> {
    pub(super) source: Option<Slot>,
    pub(super) to: Vec<Recipient>,
    pub(super) bytes: Arc<[u8]>,
    /// What is told to its sender if it cannot go.
    pub(super) outgoing: Option<Outgoing<C>>,
}

impl<C: SharedConnection> Clustered<C> {
    /// To the home of the account that it is for. What is void by the time it has its place in the order is dropped
    /// (PRES-21).
    pub(in crate::server) fn submit(&self, outgoing: Outgoing<C>, validity: Validity<'_>) {
        let stanza = outgoing.stanza();
        let Some(to) = stanza.to() else { return };
        let account = address::parts(&to).0;
        let to = vec![Recipient { slot: Slot::of(account), account: account.into() }];
        let source = source(stanza);
        let bytes = Letter::Stanza(stanza.clone()).encode();
        let submission = Submission { source, to, bytes, outgoing: Some(outgoing) };
        let mut state = self.inbox.state.lock();
        if validity.is_void() {
            return;
        }
        state.commands.push(Command::Submit(submission));
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }
}

/// The slot of the account that says it; our domains have none.
fn source(stanza: &Stanza) -> Option<Slot> {
    let from = stanza.from()?;
    let (bare, _) = address::parts(&from);
    bare.contains('@').then(|| Slot::of(bare))
}

impl<C: SharedConnection> Core<C> {
    /// NODE-1: whether anything may be done now.
    #[inline]
    pub(in crate::server) fn may_act(&self) -> bool {
        let Some(node) = &self.node else { return true };
        node.placement.may_act(self.environment.now())
    }
}
