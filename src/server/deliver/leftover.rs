//! What ended sessions leave to their account (DESTROY-12, SM-17).

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;

use jid::{BareJid, FullJid};

use super::message::Accepted;
use crate::connection::SharedConnection;
use crate::rules::delivery::{BOUNCE, MessageType};
use crate::server::{Core, caught};
use crate::session::{Leftover, SessionId};
use crate::stanza::{Kind, Stanza};

impl<C: SharedConnection> Core<C> {
    /// Deals with what ended sessions of an account have left, in order, behind what is on the
    /// account's chain.
    pub(crate) fn account_left(self: &Arc<Self>, account: &BareJid) {
        let (core, owner) = (Arc::clone(self), account.clone());
        let job = async move { core.settle_left(&owner).await };
        let _settled = self.jobs.run(account.as_str(), job);
    }

    /// The same on the account's chain, where it comes before everything else. Boxed, since what is
    /// left may lead back here.
    pub(super) fn settle_left<'a>(
        self: &'a Arc<Self>,
        account: &'a BareJid,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async move {
            let (mut places, mut all) = (Vec::new(), VecDeque::<Leftover>::new());
            let mut reached = Vec::new();
            loop {
                while let Some((left, place)) = self.registry.left_behind(account) {
                    places.push(place);
                    // What several sessions leave goes on in the order in which it was accepted. In one
                    // moment what a session leaves that has just got some of it comes before the rest.
                    let (again, new): (Vec<_>, Vec<_>) =
                        left.into_iter().partition(|leftover| reached.contains(&leftover.id));
                    all = again.into_iter().chain(all).chain(new).collect();
                    all.make_contiguous().sort_by_key(|leftover| leftover.at);
                }
                let Some(leftover) = all.pop_front() else { return };
                // A panic of host code takes no other stanza along.
                let taken = caught(self.route_leftover(leftover)).await;
                reached.extend(taken.unwrap_or_default());
            }
        })
    }

    /// A stanza that an ended session leaves. One that was never written is routed again as if that
    /// session had not been (DESTROY-12); one that the client may have got is answered, or given to
    /// the account's other sessions or to its offline store (SM-17).
    ///
    /// Returns the sessions that have got it.
    async fn route_leftover(self: &Arc<Self>, leftover: Leftover) -> Vec<SessionId> {
        let stanza = &leftover.stanza;
        let type_ = stanza.type_();
        match (stanza.kind(), type_.as_deref()) {
            (Kind::Presence, _) | (Kind::Message, Some("error" | "headline")) => {}
            (Kind::Iq, Some("get" | "set")) | (Kind::Message, Some("groupchat")) => {
                self.bounce_leftover(&leftover).await;
            }
            (Kind::Iq, _) => {}
            (Kind::Message, _) if is_for_session(stanza, &leftover.session) => {}
            // MSG-T8, MSG-T9; a successor of the same resource is another session (DESTROY-8).
            (Kind::Message, type_) if !leftover.retained && is_for_one(stanza, type_) => {
                self.bounce_leftover(&leftover).await;
            }
            (Kind::Message, _) => {
                let to = self.address_of(leftover.session.to_bare());
                let Leftover { accepted: at, at: since, retained: delayed, is_told, .. } = leftover;
                let accepted = Accepted::Earlier { at, since, delayed, is_told };
                return self.message_left(stanza, &to, accepted).await;
            }
        }
        Vec::new()
    }

    /// Answers what an ended session leaves, unless its account now hides from the sender (BLOCK-11).
    async fn bounce_leftover(&self, Leftover { stanza, session, .. }: &Leftover) {
        let from = stanza.from().unwrap_or_default();
        let state = self.loaded_state(&session.to_bare()).await;
        if !state.is_ok_and(|state| self.is_hidden(&state, &from)) {
            self.bounce(None, stanza, BOUNCE);
        }
    }
}

/// Whether a message is for no other resource than the one it is addressed to.
fn is_for_one(stanza: &Stanza, type_: Option<&str>) -> bool {
    MessageType::of(type_) == MessageType::Normal && stanza.to().is_some_and(|to| to.contains('/'))
}

/// Whether the account has sent it to this very session: a copy of a message (XEP-0280), what it asked
/// for. Such a stanza is made without a `to`, which is written for the session.
fn is_for_session(stanza: &Stanza, session: &FullJid) -> bool {
    stanza.raw_to().is_none()
        && stanza.from().is_some_and(|from| from == session.to_bare().as_str())
}
