//! Messages that extensions review before anything becomes of them (HOOK-1…6).
//!
//! Such a message takes a place in the order of its recipient at once (STZ-8) and then waits on a chain of
//! its own for each account, apart from that of the account's jobs: nobody who logs in waits for a review.
//! What is asked about an account, and what then goes to its sessions, follows one upon the other on that
//! chain, so that extensions see its messages in the order in which its sessions do.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jid::BareJid;
use minidom::Element;

use super::handoff::Overtakes;
use super::queued::InTurn;
use super::{Accepted, Disposition};
use crate::connection::SharedConnection;
use crate::extension::{Admission, Passage, Passing, Review, Wants, Way};
use crate::server::deliver::address::Address;
use crate::server::deliver::answer::{is_full, try_again};
use crate::server::deliver::destination::Destination;
use crate::server::deliver::give::{Message, Origin};
use crate::server::{Core, Task, caught};
use crate::session::{AccountState, HostCode, SessionHandle};
use crate::stanza::{Condition, Kind, Stanza};
use crate::sync::common::Mutex;

/// HOOK-4: an extension that takes longer has failed.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(10);

/// HOOK-4: a message that has waited longer for the reviews before it is refused.
const REVIEW_WAIT: Duration = Duration::from_secs(30);

/// How much waits for reviews, by account: what its own sessions have sent, and apart from it what comes
/// from elsewhere. A leaf lock.
#[derive(Default)]
pub(in crate::server) struct Reviews(Mutex<HashMap<SeatKey, (usize, usize)>>);

/// Whether its own sessions have sent it, and the account.
type SeatKey = (bool, BareJid);

impl Reviews {
    /// A seat for one more message of so many bytes, if there is room (HOOK-5).
    fn seat(self: &Arc<Self>, key: SeatKey, bytes: usize, most: (usize, usize)) -> Option<Seat> {
        let mut waiting = self.0.lock();
        let sum = waiting.get(&key).copied().unwrap_or_default();
        if sum.0 >= most.0 || sum.1 >= most.1 {
            return None;
        }
        waiting.insert(key.clone(), (sum.0 + 1, sum.1.saturating_add(bytes)));
        drop(waiting);
        Some(Seat { reviews: Arc::clone(self), key, bytes })
    }
}

/// The room that one message takes while it waits.
struct Seat {
    reviews: Arc<Reviews>,
    key: SeatKey,
    bytes: usize,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut waiting = self.reviews.0.lock();
        let Some(sum) = waiting.get_mut(&self.key) else { return };
        *sum = (sum.0.saturating_sub(1), sum.1.saturating_sub(self.bytes));
        if sum.0 == 0 {
            waiting.remove(&self.key);
        }
    }
}

/// A message that was let on.
struct Reviewed {
    /// As it goes on.
    stanza: Stanza,
    /// As the account sees it for which it was reviewed.
    seen: Stanza,
}

/// The chain on which messages of an account wait for reviews. No JID has a space.
fn chain(account: &BareJid) -> String {
    format!("review {account}")
}

impl<C: SharedConnection> Core<C> {
    /// Whether extensions have to be asked before a message goes anywhere, or told later what has become
    /// of it.
    #[inline]
    pub(in crate::server::deliver) fn is_followed(&self) -> bool {
        self.wants.has_any(Wants::MESSAGES.and(Wants::OUTCOMES))
    }

    /// Has a message reviewed, then routes it.
    #[cold]
    pub(in crate::server::deliver) fn review_and_route(
        self: &Arc<Self>,
        origin: Origin<'_, C>,
        stanza: &Stanza,
        to: &Address<'_>,
    ) -> Option<Task> {
        let is_here = self.is_here(to.bare.as_str());
        let recipient = (is_here && to.is_account()).then(|| BareJid::clone(&to.bare));
        let sender =
            self.local_sender(origin, stanza).filter(|_| self.wants.has_any(Wants::MESSAGES));
        let Some(account) = recipient.as_ref().or(sender.as_ref()) else {
            return self.route_now(origin, stanza, to);
        };
        // No more wait than for a session without a client. A message outlives the stream that waits for it.
        let key = origin.map_or_else(
            || (false, account.clone()),
            |session| (true, session.account().bare.clone()),
        );
        let limits = &self.limits.retention;
        let Some(seat) = self.reviews.seat(key, stanza.len(), (limits.stanzas, limits.bytes))
        else {
            self.bounce(origin, stanza, is_full());
            return None;
        };
        let since = self.environment.now();
        // Taken here: what comes later is not to pass it.
        let place = recipient.as_ref().map(|_| self.registry.queue_up(to.key()));
        let (core, to) = (Arc::clone(self), to.to_static());
        let (origin, stanza) = (origin.cloned(), stanza.clone());
        Some(Box::pin(async move {
            let chains = [sender.as_ref(), recipient.as_ref()].map(|account| account.map(chain));
            let job = {
                let (core, origin, stanza) = (Arc::clone(&core), origin.clone(), stanza.clone());
                async move {
                    if core.environment.now().saturating_sub(since) > REVIEW_WAIT {
                        core.bounce(origin.as_ref(), &stanza, try_again());
                    } else {
                        core.pass(origin.as_ref(), stanza, &to, sender.as_ref()).await;
                    }
                    drop((place, seat));
                }
            };
            let done = match chains {
                [Some(one), Some(other)] if one != other => {
                    core.jobs.run_pair(&one, &other, job).await.flatten()
                }
                [Some(one), _] | [None, Some(one)] => core.jobs.run(&one, job).await,
                [None, None] => return,
            };
            if done.is_none() {
                core.bounce(origin.as_ref(), &stanza, Condition::InternalServerError);
            }
        }))
    }

    /// The account that a message is from, where that lives here. What the host sends in the name of one counts.
    fn local_sender(&self, origin: Origin<'_, C>, stanza: &Stanza) -> Option<BareJid> {
        if let Some(session) = origin {
            return Some(session.account().bare.clone());
        }
        let from = stanza.from()?;
        let from = self.address(&from).ok()?;
        let is_here = from.is_account() && self.is_here(from.bare.as_str());
        is_here.then(|| BareJid::clone(&from.bare))
    }

    /// On the chains of the sender and of the recipient.
    async fn pass(
        self: &Arc<Self>,
        origin: Origin<'_, C>,
        stanza: Stanza,
        to: &Address<'_>,
        sender: Option<&BareJid>,
    ) {
        let sent = match self.review_sent(origin, &stanza, sender).await {
            Ok(sent) => sent,
            // It was never sent: nobody has a copy of it either.
            Err(Admission::Refuse(error)) => return self.bounce(origin, &stanza, error),
            Err(_) => return,
        };
        let (passed, seen) = match sent {
            Some(Reviewed { stanza, seen }) => (stanza, Some(seen)),
            None => (stanza, None),
        };
        match self.destination(&to.bare) {
            Destination::Here => {}
            Destination::Elsewhere => {
                let message = Message { stanza: &passed, sent: seen.as_ref().unwrap_or(&passed) };
                return self.hand_on(origin, message, to);
            }
        }
        if !to.is_account() {
            let message = Message { stanza: &passed, sent: seen.as_ref().unwrap_or(&passed) };
            return self.message_to_domain(origin, message);
        }
        match seen {
            // It is one message of one account.
            Some(seen) if sender == Some(&*to.bare) => {
                self.receive(origin, seen.clone(), seen, to, false).await;
            }
            Some(seen) => self.receive(origin, passed, seen, to, true).await,
            None => self.receive(origin, passed.clone(), passed, to, true).await,
        }
    }

    /// What the sender's account makes of it; `None` where nobody is asked.
    async fn review_sent(
        &self,
        origin: Origin<'_, C>,
        stanza: &Stanza,
        sender: Option<&BareJid>,
    ) -> Result<Option<Reviewed>, Admission> {
        let Some(account) = sender else { return Ok(None) };
        let failed = |_| Admission::Refuse(Condition::InternalServerError.into());
        if origin.is_none() && !self.registry.is_loaded(account) {
            // The host may speak for whom it likes.
            if !self.stores.accounts.exists(account).await.map_err(failed)? {
                return Ok(None);
            }
        }
        let state = match origin {
            Some(session) => session.account_state(),
            None => self.loaded_state(account).await.map_err(failed)?,
        };
        self.review(&state, Way::Sent, origin, stanza).await.map(Some)
    }

    /// Delivers a message to an account, and asks before that what is to be asked. Both steps are taken
    /// on the account's chain of jobs, and that is free in between.
    async fn receive(
        self: &Arc<Self>,
        origin: Origin<'_, C>,
        mut stanza: Stanza,
        sent: Stanza,
        to: &Address<'_>,
        asks: bool,
    ) {
        let asks = asks && self.wants.has_any(Wants::MESSAGES);
        let mut overtakes = if asks { Overtakes::Unreviewed } else { Overtakes::Queued };
        loop {
            let Some(turn) = self.take_turn(origin, &stanza, &sent, to, overtakes).await else {
                return self.bounce(origin, &stanza, Condition::InternalServerError);
            };
            let Some(state) = turn else { return };
            match self.review(&state, Way::Received, origin, &stanza).await {
                Ok(reviewed) => stanza = reviewed.seen,
                Err(refusal) => {
                    let disposition = Disposition::Refused(refusal);
                    let message = Message { stanza: &stanza, sent: &sent };
                    return self.conclude(origin, message, &to.bare, Accepted::Now, disposition);
                }
            }
            overtakes = Overtakes::Queued;
        }
    }

    /// One step on the account's chain: the outer `None` = it has failed; the inner one = the message is
    /// settled, else it is to be reviewed for this account.
    async fn take_turn(
        self: &Arc<Self>,
        origin: Origin<'_, C>,
        stanza: &Stanza,
        sent: &Stanza,
        to: &Address<'_>,
        overtakes: Overtakes,
    ) -> Option<Option<AccountState>> {
        let (core, origin) = (Arc::clone(self), origin.cloned());
        let (stanza, sent, to) = (stanza.clone(), sent.clone(), to.to_static());
        let key = to.bare.to_string();
        let turn = self.jobs.run(&key, async move {
            core.settle_left(&to.bare).await;
            match core.message_in_turn(&stanza, &to, Accepted::Now, overtakes).await {
                InTurn::Review(state) => Some(state),
                InTurn::Settled(disposition) => {
                    let message = Message { stanza: &stanza, sent: &sent };
                    core.conclude(origin.as_ref(), message, &to.bare, Accepted::Now, disposition);
                    None
                }
            }
        });
        turn.await
    }

    /// Asks each extension about a message, for one account.
    async fn review(
        &self,
        account: &AccountState,
        way: Way,
        sender: Option<&SessionHandle<C>>,
        stanza: &Stanza,
    ) -> Result<Reviewed, Admission> {
        let (mut stanza, mut marks) = (stanza.clone(), Vec::new());
        for extension in self.extensions.iter() {
            let server = &self.handle;
            let review = self.shielded(HostCode::Extension, Some(account.jid()), || {
                if !extension.wants().has_any(Wants::MESSAGES) {
                    return Passage::Pass.into();
                }
                extension.review(&Passing { stanza: &stanza, account, way, sender, server })
            });
            // HOOK-4
            let failed = || Passage::Refuse(Condition::InternalServerError.into());
            let passage = match review {
                Some(Review::Now(passage)) => passage,
                Some(Review::Later(answer)) => {
                    let told = |message| self.extension_panicked(account.jid(), message);
                    let answer = self.timers.within(REVIEW_TIMEOUT, caught(answer, told)).await;
                    let late = || Some(Passage::Refuse(try_again()));
                    answer.unwrap_or_else(late).unwrap_or_else(failed)
                }
                None => failed(),
            };
            match passage {
                Passage::Pass => {}
                Passage::Mark(elements) => marks.extend(elements),
                Passage::Change(changed) => stanza = keep_addresses(&stanza, changed),
                Passage::Refuse(error) => return Err(Admission::Refuse(error)),
                Passage::Take => return Err(Admission::Drop),
            }
        }
        let seen = self.marked(&stanza, account.jid(), &marks);
        Ok(Reviewed { stanza, seen })
    }

    /// The message with what extensions add for an account, and without what it says itself by the same
    /// elements in that account's name (HOOK-3).
    fn marked(&self, stanza: &Stanza, account: &BareJid, marks: &[Element]) -> Stanza {
        if marks.is_empty() {
            return stanza.clone();
        }
        let genuine = stanza.without(|child| {
            let named = child.attribute("by").or_else(|| child.attribute("from"));
            let is_named = named.is_none_or(|name| {
                self.address(&name).map_or(true, |named| *named.bare == *account)
            });
            is_named && marks.iter().any(|mark| child.is(mark.name(), &mark.ns()))
        });
        genuine.as_ref().unwrap_or(stanza).with_children(marks)
    }
}

/// HOOK-6: an extension changes what a message says, not whose it is nor where it goes.
fn keep_addresses(before: &Stanza, after: Stanza) -> Stanza {
    if after.kind() != Kind::Message {
        return before.clone();
    }
    let (from, to) = (before.from(), before.to());
    if after.from() == from && after.to() == to {
        return after;
    }
    after.readdressed(from.as_deref(), to.as_deref())
}
