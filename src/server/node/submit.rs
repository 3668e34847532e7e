//! What accounts here have for accounts elsewhere.

use std::sync::Arc;

use super::letter::{Letter, Tale};
use super::{Clustered, Command};
use crate::address;
use crate::cluster::{Incarnation, Recipient, Slot};
use crate::connection::SharedConnection;
use crate::server::Core;
use crate::server::deliver::route::Outgoing;
use crate::session::Validity;
use crate::shield::note_behind;
use crate::stanza::Stanza;

/// A letter that is to go, in the order in which these come.
pub(super) struct Submission<C: SharedConnection> {
    pub(super) source: Option<Slot>,
    pub(super) to: Vec<Recipient>,
    pub(super) bytes: Arc<[u8]>,
    pub(super) undelivered: Undelivered<C>,
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
    pub(super) fn submit(
        &self,
        account: Arc<str>,
        source: Option<Slot>,
        outgoing: Outgoing<C>,
        validity: Validity<'_>,
    ) {
        let slot = Slot::of(&account);
        let to = vec![Recipient { slot, account }];
        let bytes = Letter::Stanza(outgoing.stanza().clone()).encode();
        let undelivered = Undelivered::Stanza(outgoing);
        let submission = Submission { source, to, bytes, undelivered };
        self.inbox.put_while(validity, Command::Submit(submission));
        // NODE-7
        if self.placement.is_pressed(slot) {
            note_behind();
        }
    }

    /// The node that a component of this domain is at.
    fn node_of(&self, domain: &str) -> Option<Incarnation> {
        let domains = self.inbox.domains.read();
        let has = |domains: &[String]| domains.iter().any(|one| one == domain);
        domains.iter().find(|(_, domains)| has(domains)).map(|(node, _)| *node)
    }
}

impl<C: SharedConnection> Core<C> {
    /// The slot of an account that lives here and says this.
    fn source(&self, stanza: &Stanza) -> Option<Slot> {
        let from = stanza.from()?;
        let bare = address::parts(&from).0;
        let is_here = bare.contains('@') && self.is_ours(bare) && self.registry.is_local(bare);
        is_here.then(|| Slot::of(bare))
    }

    /// Where a stanza goes that is for an account of ours which is not here, or for a component which is not.
    fn way(&self, node: &Clustered<C>, stanza: &Stanza) -> Option<Way> {
        let to = stanza.to()?;
        let to = self.address(&to).ok()?;
        if to.is_account() && self.is_ours(to.bare.as_str()) {
            return Some(Way::Home(to.bare.as_str().into()));
        }
        node.node_of(to.bare.domain().as_str()).map(Way::Component)
    }

    /// To the home of an account of ours, or to the node of a component; given back is what is for neither.
    pub(in crate::server) fn to_another_node(
        &self,
        outgoing: Outgoing<C>,
        validity: Validity<'_>,
    ) -> Option<Outgoing<C>> {
        let Some(node) = &self.node else { return Some(outgoing) };
        let source = self.source(outgoing.stanza());
        match self.way(node, outgoing.stanza()) {
            None => return Some(outgoing),
            Some(Way::Home(account)) => node.submit(account, source, outgoing, validity),
            Some(Way::Component(to)) => {
                let bytes = Tale::ForComponent(outgoing.stanza().clone()).encode();
                node.inbox.put_while(validity, Command::Tell { source, to, bytes });
            }
        }
        None
    }

    /// An answer to one of our domains that nobody here has asked for: another node may have.
    pub(in crate::server) fn answered_elsewhere(&self, answer: &Stanza) {
        if let Some(node) = &self.node {
            node.inbox.put(Command::TellAll(Tale::Answer(answer.clone()).encode()));
        }
    }
}
