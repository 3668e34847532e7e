//! What accounts here have for accounts elsewhere.

use std::sync::Arc;

use super::letter::Letter;
use super::{Clustered, Command};
use crate::address;
use crate::cluster::{Recipient, Slot, Word};
use crate::connection::SharedConnection;
use crate::rules::presence::PresenceType;
use crate::server::Core;
use crate::server::deliver::route::Outgoing;
use crate::session::Validity;
use crate::stanza::{Kind, Stanza};
use std::task::Waker;

/// A letter that is to go, in the order in which these come.
pub(super) struct Submission<C: SharedConnection> {
    pub(super) source: Option<Slot>,
    pub(super) to: Vec<Recipient>,
    /// What it says, where it is presence of a session of ours.
    pub(super) word: Option<Word>,
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
        let (source, word) = (source(stanza), word(stanza));
        let bytes = Letter::Stanza(stanza.clone()).encode();
        self.put_in_order(
            Submission { source, to, word, bytes, outgoing: Some(outgoing) },
            validity,
        );
    }

    /// A letter from this account to these.
    pub(super) fn send(
        &self,
        from: &str,
        to: Vec<Recipient>,
        word: Option<Word>,
        letter: &Letter,
        validity: Validity<'_>,
    ) {
        let (source, bytes) = (source_of(from), letter.encode());
        self.put_in_order(Submission { source, to, word, bytes, outgoing: None }, validity);
    }

    fn put_in_order(&self, submission: Submission<C>, validity: Validity<'_>) {
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
    source_of(&stanza.from()?)
}

fn source_of(from: &str) -> Option<Slot> {
    let (bare, _) = address::parts(from);
    bare.contains('@').then(|| Slot::of(bare))
}

/// What presence of an account's session says of it.
pub(super) fn word(stanza: &Stanza) -> Option<Word> {
    let (from, type_) = (stanza.from()?, PresenceType::read(stanza).ok()?);
    let (bare, resource) = address::parts(&from);
    let is_available = type_ == PresenceType::Available;
    let says = is_available || type_ == PresenceType::Unavailable;
    if stanza.kind() != Kind::Presence || !says || resource.is_none() || !bare.contains('@') {
        return None;
    }
    let is_for_all = stanza.to().is_none_or(|to| address::parts(&to).1.is_none());
    Some(Word { from: (&*from).into(), is_available, is_for_all })
}

impl<C: SharedConnection> Core<C> {
    /// NODE-1: whether anything may be done now.
    #[inline]
    pub(in crate::server) fn may_act(&self) -> bool {
        let Some(node) = &self.node else { return true };
        node.placement.may_act(self.environment.now())
    }
}
