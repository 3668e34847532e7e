//! What accounts here have for accounts elsewhere.

use std::sync::Arc;

use jid::BareJid;
use parking_lot::Mutex;
use smallvec::smallvec;

use super::letter::{Letter, Tale};
use super::{Clustered, Command};
use crate::address;
use crate::cluster::{Incarnation, Receipt, Recipient, Recipients, Slot, Word};
use crate::connection::SharedConnection;
use crate::rules::presence::PresenceType;
use crate::server::Core;
use crate::server::breaks::broken;
use crate::server::deliver::address::Address;
use crate::server::deliver::route::Outgoing;
use crate::session::{SessionHandle, Validity};
use crate::shield::note_behind;
use crate::stanza::{Kind, Stanza};

/// A letter that is to go, in the order in which these come.
pub(super) struct Submission<C: SharedConnection> {
    pub(super) source: Option<Slot>,
    pub(super) to: Recipients,
    /// What it says, where it is presence of a session of ours.
    pub(super) word: Option<Word>,
    pub(super) bytes: Arc<[u8]>,
    pub(super) undelivered: Undelivered<C>,
    pub(super) receipt: Receipt,
}

/// A client that counts what is handled has sent this stanza to another node (SM-5).
struct Underway<C: SharedConnection> {
    session: SessionHandle<C>,
    stanza: u32,
    arrived: Arrived<C>,
}

/// Stanzas that are handled, of which their clients are to be told.
pub(super) type Arrived<C> = Arc<Mutex<Vec<(SessionHandle<C>, u32)>>>;

impl<C: SharedConnection> Drop for Underway<C> {
    fn drop(&mut self) {
        // In the midst of what the node does: its client is told later.
        self.arrived.lock().push((self.session.clone(), self.stanza));
    }
}

/// Who is told that a letter cannot go.
pub(super) enum Undelivered<C: SharedConnection> {
    Nothing,
    Stanza(Outgoing<C>),
    Act(u64),
}

/// To another node.
enum Way {
    Home(Arc<str>),
    Component(Incarnation),
}

impl<C: SharedConnection> Clustered<C> {
    /// To the home of the account that it is for, which is ours. What is void by the time it has its place in the order
    /// is dropped (PRES-21).
    fn submit(
        &self,
        account: Arc<str>,
        source: Option<Slot>,
        outgoing: Outgoing<C>,
        validity: Validity<'_>,
    ) {
        let to = smallvec![Recipient::of(account)];
        let word = word(outgoing.stanza());
        let bytes = Letter::Stanza(outgoing.stanza().clone()).encode();
        let receipt = self.receipt(&outgoing);
        let undelivered = Undelivered::Stanza(outgoing);
        self.put_in_order(Submission { source, to, word, bytes, undelivered, receipt }, validity);
    }

    /// A letter from this account, which lives here, to these.
    pub(super) fn send(
        &self,
        from: &str,
        to: Recipients,
        word: Option<Word>,
        letter: &Letter,
        validity: Validity<'_>,
    ) {
        let (bare, _) = address::parts(from);
        let source = bare.contains('@').then(|| Slot::of(bare));
        let (bytes, undelivered) = (letter.encode(), Undelivered::Nothing);
        let receipt = Receipt::default();
        self.put_in_order(Submission { source, to, word, bytes, undelivered, receipt }, validity);
    }

    /// Until it is handled elsewhere, a client that counts is not told that it is.
    fn receipt(&self, outgoing: &Outgoing<C>) -> Receipt {
        let underway = outgoing.origin().filter(|_| !broken!(HandledAtOnce));
        let underway = underway.and_then(|session| {
            let (session, stanza) = (session.clone(), session.sets_out()?);
            Some(Underway { session, stanza, arrived: Arc::clone(&self.arrived) })
        });
        underway.map(Receipt::new).unwrap_or_default()
    }

    fn put_in_order(&self, submission: Submission<C>, validity: Validity<'_>) {
        // NODE-7
        if submission.to.iter().any(|one| self.placement.is_pressed(one.slot)) {
            note_behind();
        }
        self.inbox.put_while(validity, Command::Submit(submission));
    }

    /// The node that a component of this domain is at.
    fn node_of(&self, domain: &str) -> Option<Incarnation> {
        let domains = self.inbox.domains.read();
        let has = |domains: &[String]| domains.iter().any(|one| one == domain);
        domains.iter().find(|(_, domains)| has(domains)).map(|(node, _)| *node)
    }
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
    /// The slot of an account that lives here and says this.
    fn source(&self, stanza: &Stanza) -> Option<Slot> {
        let from = stanza.from()?;
        let bare = address::parts(&from).0;
        if !bare.contains('@') || !self.is_ours(bare) {
            return None;
        }
        let slot = Slot::of(bare);
        self.node.as_ref().filter(|node| node.placement.has(slot)).map(|_| slot)
    }

    /// Where goes what is for an account of ours which is not here, or for a component which is not.
    fn way(&self, node: &Clustered<C>, to: &Address<'_>) -> Option<Way> {
        if to.is_account() && self.is_ours(to.bare.as_str()) {
            return Some(Way::Home(to.bare.as_str().into()));
        }
        node.node_of(to.bare.domain().as_str()).map(Way::Component)
    }

    /// To the home of an account of ours, or to the node of a component; given back is what is for neither. `to`: its address,
    /// where that was read.
    pub(in crate::server) fn to_another_node(
        &self,
        outgoing: Outgoing<C>,
        to: Option<&Address<'_>>,
        validity: Validity<'_>,
    ) -> Option<Outgoing<C>> {
        let Some(node) = &self.node else { return Some(outgoing) };
        let source = self.source(outgoing.stanza());
        let way = outgoing.stanza().to().and_then(|text| match to {
            Some(to) => self.way(node, to),
            None => self.way(node, &self.address(&text).ok()?),
        });
        match way {
            None => return Some(outgoing),
            Some(Way::Home(account)) => node.submit(account, source, outgoing, validity),
            Some(Way::Component(to)) => {
                let bytes = Tale::ForComponent(outgoing.stanza().clone()).encode();
                node.inbox.put_while(validity, Command::Tell { source, to, bytes });
            }
        }
        None
    }

    /// An answer to a session of this account, which lives at another node.
    pub(in crate::server) fn reply(&self, account: &BareJid, answer: Stanza) {
        let Some(node) = &self.node else { return };
        let source = self.source(&answer);
        let to = smallvec![Recipient::of(account.as_str().into())];
        let (bytes, undelivered) = (Letter::Reply(answer).encode(), Undelivered::Nothing);
        let receipt = Receipt::default();
        let submission = Submission { source, to, word: None, bytes, undelivered, receipt };
        node.put_in_order(submission, Validity::FOR_GOOD);
    }

    /// An answer to one of our domains that nobody here has asked for: another node may have.
    pub(in crate::server) fn answered_elsewhere(&self, answer: &Stanza) {
        if let Some(node) = &self.node {
            node.inbox.put(Command::TellAll(Tale::Answer(answer.clone()).encode()));
        }
    }
}
