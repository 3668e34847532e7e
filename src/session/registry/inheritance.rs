//! What other sessions have left to one: what a replaced session had not acknowledged, for the one that
//! took its resource (DESTROY-8), and what sessions leave while another waits for the store (STZ-8).

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::inner::Inner;
use super::rows::Row;
use crate::connection::SharedConnection;
use crate::session::handle::{HEIR, SessionHandle, Shared};
use crate::session::outbound::{Copies, Item, Left, NotSent, RetentionLimits, Share};
use crate::stanza::{Kind, Stanza};
use crate::sync::Tally;

/// What others have left to a session, which gets it as soon as it can get messages for the account,
/// among what the store has for it.
pub(crate) struct Inheritance {
    left: Vec<Left>,
    /// For as long as it waits (LIMIT-11).
    share: Share,
}

impl Inheritance {
    fn new(all: &Arc<Tally>) -> Self {
        Self { left: Vec::new(), share: Share::new(all) }
    }

    /// Adds these, unless that is more than may wait for a session (LIMIT-10).
    fn add(&mut self, left: &mut Vec<Left>, limits: &RetentionLimits) -> bool {
        let bytes = self.share.bytes() + left.iter().map(|left| left.stanza.len()).sum::<usize>();
        let has_room = self.left.len() + left.len() <= limits.live_stanzas && bytes <= limits.bytes;
        if has_room {
            self.left.append(left);
            self.share.set(bytes);
        }
        has_room
    }
}

impl Left {
    /// A message that is to wait: one more of its copies.
    fn waiting(stanza: &Stanza, copies: Option<&Copies>, at: Duration) -> Self {
        let copies = copies.cloned().inspect(|copies| copies.add(false));
        Self { stanza: stanza.clone(), at, counted: true, written: false, copies }
    }

    /// Whether the successor of its session gets it: a message of somebody, which that session had
    /// or was to have first.
    fn is_inherited(&self, own: &str) -> bool {
        let type_ = self.stanza.type_();
        self.counted
            && self.stanza.kind() == Kind::Message
            && !matches!(type_.as_deref(), Some("error" | "groupchat" | "headline"))
            && (self.copies.is_some() || self.stanza.from().is_none_or(|from| from != own))
    }
}

impl<C: SharedConnection> Inner<C> {
    /// Gives what a replaced session leaves to its successor, as far as it belongs there, unless it is
    /// more than may wait for one session (LIMIT-10); under the lock of their shard. The rest is
    /// left as by any other end.
    pub(super) fn bequeath(
        &self,
        row: &Row<C>,
        from: &Arc<Shared<C>>,
        to: &Shared<C>,
        left: Vec<Left>,
    ) {
        let own = row.account.bare.as_str();
        let (mut inherited, mut rest): (Vec<_>, Vec<_>) =
            left.into_iter().partition(|left| left.is_inherited(own));
        let before = to.presence.lock().change(|rare| rare.inheritance.take());
        let new = || Box::new(Inheritance::new(&self.retained_bytes));
        let (mut inheritance, limits) = (before.unwrap_or_else(new), self.limits());
        if inherited.len() > limits.stanzas || !inheritance.add(&mut inherited, limits) {
            rest.splice(0..0, inherited);
        }
        if !inheritance.left.is_empty() {
            to.presence.lock().change(|rare| rare.inheritance = Some(inheritance));
            to.set(HEIR, true);
        }
        self.put_left(row, from, rest);
    }
}

impl<C: SharedConnection> SessionHandle<C> {
    /// Puts a copy of a message behind what the session has inherited (STZ-8): it gets the message
    /// itself with that. `false` where it has inherited nothing, or as much waits as may (LIMIT-10).
    pub(crate) fn inherit_copy(&self, copy: &Stanza, copies: &Copies) -> bool {
        if !self.is_heir() {
            return false;
        }
        let registry = &self.0.registry;
        let mut left = vec![Left::waiting(copy, Some(copies), registry.now())];
        let is_taken = self.0.presence.lock().change(|rare| {
            let inheritance = rare.inheritance.as_mut();
            inheritance.is_some_and(|it| it.add(&mut left, registry.limits()))
        });
        left.into_iter().for_each(Left::forget);
        is_taken
    }

    /// Sends a message that another session of the account has left, accepted `at` that time: together
    /// with what the store has for this one, where it is about to get that (STZ-8): `false`, not yet.
    pub(crate) fn send_left(
        &self,
        stanza: &Stanza,
        copies: Option<&Copies>,
        at: Duration,
    ) -> Result<bool, NotSent> {
        let registry = &self.0.registry;
        if !registry.backlogs.expects_stored(self) {
            let item = Item::new(stanza).accepted_at(at);
            let item = copies.map_or(item, |copies| item.copy_of(copies));
            return self.0.send(registry, &item).map(|()| true);
        }
        let mut left = vec![Left::waiting(stanza, copies, at)];
        let has_room = self.0.presence.lock().change(|rare| {
            self.0.set(HEIR, true);
            let new = || Box::new(Inheritance::new(&registry.retained_bytes));
            rare.inheritance.get_or_insert_with(new).add(&mut left, registry.limits())
        });
        left.into_iter().for_each(Left::forget);
        if self.is_ended() {
            // Nobody will ask it for this.
            self.renounce();
        }
        if has_room { Ok(false) } else { Err(NotSent::Full) }
    }

    /// Leaves what the session has inherited to the account's others.
    pub(crate) fn renounce(&self) {
        self.0.registry.leave_strays(&self.0, self.0.take_inheritance());
    }
}

impl<C: SharedConnection> Shared<C> {
    /// Takes out what the session has inherited and not got.
    pub(super) fn take_inheritance(&self) -> Vec<Left> {
        let inheritance = self.presence.lock().change(|rare| {
            self.set(HEIR, false);
            rare.inheritance.take()
        });
        inheritance.map(|inheritance| inheritance.left).unwrap_or_default()
    }

    /// The messages that it has inherited and nobody who is there has.
    pub(super) fn heir_waits_for(&self) -> Vec<Stanza> {
        let presence = self.presence.lock();
        let inheritance = presence.rare().and_then(|rare| rare.inheritance.as_ref());
        let copies = inheritance.into_iter().flat_map(|it| &it.left).filter_map(Left::copies);
        copies.filter(|it| it.begins_to_wait()).map(|it| it.message().clone()).collect()
    }

    /// Drops what the session has inherited and `is_unwanted`.
    pub(super) fn disinherit(&self, is_unwanted: impl Fn(&Stanza) -> bool) {
        self.presence.lock().change(|rare| {
            let Some(inheritance) = &mut rare.inheritance else { return };
            let unwanted = |left: &mut Left| is_unwanted(left.message());
            inheritance.left.extract_if(.., unwanted).for_each(Left::forget);
            let bytes = inheritance.left.iter().map(|left| left.stanza.len()).sum();
            inheritance.share.set(bytes);
            if inheritance.left.is_empty() {
                rare.inheritance = None;
                self.set(HEIR, false);
            }
        });
    }
}

/// A message that waits for a session in the store, or that the session has inherited.
pub(crate) struct Waiting {
    pub(crate) stanza: Stanza,
    since: SystemTime,
    /// No session has had it yet.
    pub(crate) is_new: bool,
    left: Option<Left>,
}

impl Waiting {
    /// One that the store has kept `since` then.
    pub(crate) const fn stored(stanza: Stanza, since: SystemTime, is_new: bool) -> Self {
        Self { stanza, since, is_new, left: None }
    }
}

impl<C: SharedConnection> SessionHandle<C> {
    /// Whether the session has inherited messages that it has not got.
    pub(crate) fn is_heir(&self) -> bool {
        self.0.has(HEIR)
    }

    /// Gives the session what `stored` has for it and what it has inherited, by the time of acceptance,
    /// all or none of it. What is inherited says since when it is `delayed`. What is from somebody whom
    /// the account hides from ends here (BLOCK-11).
    pub(crate) fn give_waiting(
        &self,
        mut stored: Vec<Waiting>,
        delayed: impl Fn(&Stanza, SystemTime) -> Stanza,
    ) -> Result<Vec<Waiting>, NotSent> {
        let registry = &self.0.registry;
        let environment = &registry.settings.environment;
        let clocks = (environment.now(), environment.utc());
        let is_hidden = |stanza: &Stanza| {
            stanza.from().is_some_and(|from| registry.hides(&self.0.account, &from))
        };
        stored.retain(|waiting| !is_hidden(&waiting.stanza));
        for left in self.0.take_inheritance() {
            if is_hidden(left.message()) {
                left.forget();
                continue;
            }
            let since = left.accepted(clocks);
            let stanza = delayed(left.message(), since);
            stored.push(Waiting { stanza, since, is_new: false, left: Some(left) });
        }
        // In one moment a session has accepted before the store has.
        stored.sort_by_key(|waiting| (in_micros(waiting.since), waiting.is_new));
        let (now, utc) = clocks;
        let at = |since| now.saturating_sub(utc.duration_since(since).unwrap_or_default());
        let items = stored.iter().map(|Waiting { stanza, since, left, .. }| {
            let item = Item::new(stanza).accepted_at(at(*since));
            let copies = left.as_ref().and_then(|left| left.copies.as_ref());
            copies.map_or(item, |copies| item.copy_of(copies))
        });
        let items: Vec<_> = items.collect();
        let given = if items.is_empty() { Ok(()) } else { self.send_stored(&items) };
        match given {
            Ok(()) => Ok(stored),
            Err(error) => {
                // It has ended, and nobody will ask it for its inheritance.
                let left = stored.into_iter().filter_map(|waiting| waiting.left).collect();
                registry.leave_strays(&self.0, left);
                Err(error)
            }
        }
    }
}

/// Stores keep no more.
fn in_micros(time: SystemTime) -> u128 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros())
}
