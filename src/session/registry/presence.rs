//! Presence of bound sessions: recorded first, sent after, and never overtaken by its end.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use smallvec::SmallVec;

use super::SessionRegistry;
use super::afar::Away;
use super::events::EventKind;
use super::inner::Inner;
use super::table::AccountKey;
use crate::address::parts;
use crate::connection::SharedConnection;
use crate::rules::presence::{Audience, Directed, broadcast, uncovered};
use crate::rules::roster::Roster;
use crate::session::account::Account;
use crate::session::handle::{AVAILABLE, Gone, Last, SessionHandle, Shared};
use crate::session::outbound::{Item, Validity};
use crate::stanza::Stanza;
use crate::stanza::delay::delay;
use crate::sync::atomic::Ordering;

/// A change of broadcast presence ([RFC 6121 §4](https://www.rfc-editor.org/rfc/rfc6121#section-4)).
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_enums, reason = "a session is available or it is not")]
pub enum Presence<'a> {
    /// Presence without a type: its stanza, stamped with the full JID and without `to`, and the
    /// priority that it states ([PRES-2](crate::rules#pres-2)), 0 where it states none.
    Available {
        /// The presence.
        stanza: &'a Stanza,
        /// Its priority.
        priority: i8,
    },
    /// Presence of type unavailable; without a stanza one is made ([PRES-8](crate::rules#pres-8)).
    Unavailable {
        /// The presence.
        stanza: Option<&'a Stanza>,
    },
}

/// The presence of one session, for everybody who sees it.
pub(super) struct Notification<'a> {
    /// The account, if it counts from whom it hides: these are told nothing (BLOCK-6).
    pub(super) source: Option<&'a Arc<Account>>,
    pub(super) stanza: &'a Stanza,
    pub(super) validity: Validity<'a>,
}

impl<'a> Notification<'a> {
    /// An unavailable.
    pub(super) const fn for_good(source: Option<&'a Arc<Account>>, stanza: &'a Stanza) -> Self {
        Self { source, stanza, validity: Validity::FOR_GOOD }
    }
}

impl<C: SharedConnection> Inner<C> {
    /// Sets broadcast presence and tells everybody. `true` = it was initial presence (PRES-3).
    pub(crate) fn set_presence(&self, shared: &Arc<Shared<C>>, presence: Presence<'_>) -> bool {
        match presence {
            Presence::Available { stanza, priority } => {
                self.set_available(shared, stanza, priority)
            }
            Presence::Unavailable { stanza } => {
                self.set_unavailable(shared, stanza);
                false
            }
        }
    }

    fn set_available(&self, shared: &Arc<Shared<C>>, stanza: &Stanza, priority: i8) -> bool {
        let last = Last { stanza: stanza.clone(), at: self.settings.environment.utc().into() };
        let (before, validity) = {
            let mut state = shared.presence.lock();
            let before = shared.availability();
            if !shared.set_presence_flags(
                AVAILABLE | u32::from(u8::from_le_bytes(priority.to_le_bytes())),
            ) {
                return false;
            }
            shared.number.fetch_add(1, Ordering::SeqCst);
            state.last = Some(Box::new(last));
            let kind = match before {
                None => EventKind::BecameAvailable,
                Some(_) => EventKind::PresenceChanged,
            };
            self.events.push(shared, kind);
            (before, shared.validity())
        };
        self.deliver_events();
        let roster = shared.account.roster();
        let causes = broadcast(before, Some(priority));
        self.carry_out(shared, causes, &roster, stanza, validity, &Directed::new());
        self.retract(shared, &roster);
        before.is_none()
    }

    /// Whoever lost the subscription while the broadcast was under way was told of that before or
    /// after its copy: it is told once more, so that it is not left with "available".
    fn retract(&self, shared: &Shared<C>, told: &Arc<Roster>) {
        let now = shared.account.roster();
        if Arc::ptr_eq(told, &now) {
            return;
        }
        let lost = told.subscribers().filter(|entry| !now.is_subscriber(entry.jid()));
        for contact in lost {
            let stanza = unavailable(shared);
            let notification = Notification::for_good(Some(&shared.account), &stanza);
            self.notify_contact(contact.into(), &notification);
        }
    }

    fn set_unavailable(&self, shared: &Arc<Shared<C>>, stanza: Option<&Stanza>) {
        let gone = {
            let mut state = shared.presence.lock();
            let before = shared.availability();
            if !shared.set_presence_flags(0) {
                return;
            }
            shared.number.fetch_add(1, Ordering::SeqCst);
            let gone = state.take(before);
            if before.is_some() {
                self.events.push(shared, EventKind::BecameUnavailable);
            }
            gone
        };
        let stanza = stanza.cloned().unwrap_or_else(|| unavailable(shared));
        self.broadcast_unavailable(shared, &gone, &stanza);
        if gone.before.is_some() {
            // It sees its own unavailable as well (PRES-6), though it is no longer available.
            self.give(&SessionHandle(Arc::clone(shared)), &Item::to_account(&stanza));
        }
        self.gone(shared);
        self.deliver_events();
    }

    /// Tells subscribers, own sessions and directed targets that the session is no longer available
    /// (PRES-6, 7, 8). Its number was raised before.
    pub(super) fn broadcast_unavailable(
        &self,
        shared: &Arc<Shared<C>>,
        gone: &Gone,
        stanza: &Stanza,
    ) {
        let roster = shared.account.roster();
        if gone.before.is_some() {
            self.left_now(&shared.account, &roster);
        }
        let causes = broadcast(gone.before, None);
        self.carry_out(shared, causes, &roster, stanza, Validity::FOR_GOOD, &gone.directed);
    }

    /// Whether a full JID gets what is sent to its bare JID: a session of this registry does only while it is available;
    /// one of another node may not be, and is told once all the same (NODE-17).
    pub(super) fn hears(&self, jid: &str) -> bool {
        let (bare, resource) = parts(jid);
        if !self.is_local(bare) {
            return !self.is_afar(bare);
        }
        self.find(self.table.key(bare), resource.unwrap_or_default())
            .is_some_and(|session| session.is_available())
    }

    /// Does what a change of presence causes, in order (PRES-3, 5, 6, 7).
    fn carry_out(
        &self,
        shared: &Arc<Shared<C>>,
        causes: &[Audience],
        roster: &Roster,
        stanza: &Stanza,
        validity: Validity<'_>,
        directed: &Directed,
    ) {
        let (source, own) = (Some(&shared.account), shared.account.bare.as_str());
        let notification = Notification { source, stanza, validity };
        let end = |target| self.direct(source, stanza, target, Validity::FOR_GOOD);
        for audience in causes {
            match audience {
                Audience::Subscribers => {
                    let mut away = Away::default();
                    for contact in roster.subscribers() {
                        self.notify(contact.into(), &notification, &mut away);
                    }
                    self.notify_afar(away, &notification);
                }
                Audience::OwnSessions => {
                    self.notify_account(self.table.key(own), None, &notification);
                }
                Audience::Probes => self.learn(shared, roster),
                Audience::OwnPresences => self.learn_own(shared),
                Audience::UncoveredTargets => {
                    uncovered(directed, roster, own, |jid| self.hears(jid)).for_each(end);
                }
                Audience::AllTargets => directed.iter().for_each(end),
                // Out of stores, which the server knows.
                Audience::Requests | Audience::PendingOut | Audience::OfflineMessages => {}
            }
        }
    }

    /// A copy for one contact: to its sessions if it is ours, wherever it lives, else to the router.
    pub(super) fn notify_contact(&self, contact: AccountKey<'_>, notification: &Notification<'_>) {
        let mut away = Away::default();
        self.notify(contact, notification, &mut away);
        self.notify_afar(away, notification);
    }

    /// The same, but not for these resources of it.
    #[cfg(feature = "server")]
    pub(super) fn notify_but(
        &self,
        contact: AccountKey<'_>,
        except: Vec<String>,
        notification: &Notification<'_>,
    ) {
        let Notification { stanza, validity, .. } = *notification;
        if self.is_on_its_way(contact.bare) || !self.is_local(contact.bare) {
            let mut away = Away::default();
            return match self.is_away_but(contact.bare, except, &mut away) {
                true => self.notify_afar(away, notification),
                false => self.notify_contact(contact, notification),
            };
        }
        let item = Item::to_account(stanza).while_valid(validity);
        for session in self.sessions_that(contact, Shared::is_available) {
            if !except.iter().any(|except| except == session.resource().as_str()) {
                self.tell(&session, &item);
            }
        }
    }

    /// The same, but for contacts at other nodes: these are added to those `away`.
    #[inline(always)]
    fn notify(&self, contact: AccountKey<'_>, notification: &Notification<'_>, away: &mut Away) {
        // Most accounts hide from nobody: then there is nothing to ask about each session either.
        let hiding = notification.source.filter(|account| self.hides_any(account).is_some());
        if hiding.is_some_and(|account| self.hides(account, contact.bare)) {
            return;
        }
        // An account with sessions is local, unless it moves.
        if (self.is_on_its_way(contact.bare) || !self.notify_account(contact, hiding, notification))
            && !self.is_local(contact.bare)
            && !self.is_away(contact.bare, hiding, away)
        {
            let Notification { stanza, validity, .. } = *notification;
            if !validity.is_void() {
                let from = stanza.from();
                let stanza = || stanza.readdressed(from.as_deref(), Some(contact.bare));
                self.elsewhere(stanza, validity);
            }
        }
    }

    /// A copy for each available session of an account that `hiding` does not hide from; `false` if none is
    /// available.
    #[inline(always)]
    fn notify_account(
        &self,
        account: AccountKey<'_>,
        hiding: Option<&Arc<Account>>,
        notification: &Notification<'_>,
    ) -> bool {
        let Notification { stanza, validity, .. } = *notification;
        let sessions = self.sessions_that(account, Shared::is_available);
        for session in &sessions {
            if hiding.is_some_and(|from| self.hides(from, session.jid().as_str())) {
                continue;
            }
            self.tell(session, &Item::to_account(stanza).while_valid(validity));
        }
        !sessions.is_empty()
    }

    /// Presence to exactly this JID (PRES-T1); true for good: the end of directed presence. `source`
    /// as in a [`Notification`].
    pub(super) fn direct(
        &self,
        source: Option<&Arc<Account>>,
        stanza: &Stanza,
        target: &str,
        validity: Validity<'_>,
    ) {
        if source.is_some_and(|account| self.hides(account, target)) {
            return;
        }
        let stanza = || stanza.readdressed(stanza.from().as_deref(), Some(target));
        let (bare, resource) = parts(target);
        if !self.is_local(bare) {
            if !self.direct_afar(bare, stanza, validity) {
                self.elsewhere(stanza, validity);
            }
            return;
        }
        let stanza = stanza();
        for session in self.sessions_that(self.table.key(bare), |_| true) {
            let meant = resource
                .map_or_else(|| session.is_available(), |r| session.resource().as_str() == r);
            if meant {
                self.tell(&session, &Item::new(&stanza).while_valid(validity));
            }
        }
    }

    /// Tells a session that has just become available the presence of the contacts that it is
    /// subscribed to (PRES-3).
    fn learn(&self, shared: &Arc<Shared<C>>, roster: &Roster) {
        let me = SessionHandle(Arc::clone(shared));
        let own = shared.account.bare.as_str();
        let mut away = Away::default();
        for contact in roster.subscriptions() {
            let jid = contact.jid();
            if self.hides(&shared.account, jid) {
                continue;
            }
            if self.is_local(jid) {
                let give = |item: &Item<'_>| {
                    let _refused = self.give(&me, item);
                };
                self.learn_of(me.jid().as_str(), own, contact.into(), give);
            } else if !self.is_away(jid, None, &mut away) {
                let probe = || Stanza::presence().type_("probe").from(own).to(jid).build();
                self.elsewhere(probe, Validity::FOR_GOOD);
            }
        }
        self.probe_afar(shared, away);
    }

    /// Tells it the presence of its account's other sessions.
    fn learn_own(&self, shared: &Arc<Shared<C>>) {
        let me = SessionHandle(Arc::clone(shared));
        for session in self.sessions_that(self.table.key(shared.account.bare.as_str()), |_| true) {
            if let Some((stanza, _, validity)) = session.present().filter(|_| session != me) {
                self.give(&me, &Item::to_account(&stanza).while_valid(validity));
            }
        }
    }

    /// The answer to a probe of a local contact, given without the probe (PRES-13…16): from memory
    /// where it has sessions; where it has none, the user's own item says that it may know.
    ///
    /// `viewer`: the session (a full JID) that is given it, of the account `own`.
    pub(super) fn learn_of(
        &self,
        viewer: &str,
        own: &str,
        contact: AccountKey<'_>,
        give: impl Fn(&Item<'_>),
    ) {
        let sessions = self.sessions(contact);
        let refuses =
            || sessions.first().is_some_and(|session| !session.roster().is_subscriber(own));
        if refuses() {
            return;
        }
        let mut available = false;
        // A contact that hides looks as if it were offline, as it does where its list is not loaded.
        let seen = |session: &&SessionHandle<C>| !self.hides(&session.0.account, viewer);
        for session in sessions.iter().filter(seen) {
            if let Some((stanza, at, validity)) = session.present() {
                available = true;
                give(&Item::since(&stanza, at.into()).while_valid(validity));
            }
        }
        if !available {
            let stanza = Stanza::presence().type_("unavailable").from(contact.bare).build();
            if let Some(session) = sessions.first() {
                self.freeze_hidden(&session.0.account, [viewer], None);
            }
            let stanza = match self.seen_last(contact.bare, viewer) {
                Some(at) => stanza.with_appended(&delay(contact.bare, at)),
                None => stanza,
            };
            give(&Item::to_account(&stanza));
        } else if refuses() {
            // The subscription was cancelled meanwhile; the news of it may have come first.
            for session in &sessions {
                give(&Item::to_account(&unavailable(&session.0)));
            }
        }
    }

    /// Gives a session the news of another. An unavailable ends what it directs to that one (PRES-11).
    #[inline(always)]
    pub(super) fn tell(&self, session: &SessionHandle<C>, item: &Item<'_>) -> bool {
        if item.validity.is_for_good() {
            let from = item.stanza().and_then(Stanza::from);
            session.forget_directed(from.as_deref().unwrap_or_default());
        }
        self.give(session, item)
    }

    /// A refusal needs no answer: a recipient that is gone needs no presence. Whether it is given.
    #[inline(always)]
    pub(super) fn give(&self, to: &SessionHandle<C>, item: &Item<'_>) -> bool {
        // BLOCK-5
        let account = &to.0.account;
        if self.hides_any(account).is_some()
            && item.stanza().and_then(Stanza::from).is_some_and(|from| self.hides(account, &from))
        {
            return false;
        }
        to.0.send(self, item).is_ok()
    }
}

/// The presence that we make where a session cannot make its own (PRES-8).
pub(super) fn unavailable<C: SharedConnection>(shared: &Shared<C>) -> Stanza {
    Stanza::presence().type_("unavailable").from(shared.jid.as_str()).build()
}

impl<C: SharedConnection> SessionRegistry<C> {
    /// Tells a contact (a bare JID as normalised text) the presence of each available session of
    /// an account: it has become a subscriber.
    pub fn tell_contact(&self, account: &str, contact: &str) {
        let (inner, contact) = (self.inner(), self.key(contact));
        for session in inner.sessions(self.key(account)) {
            if let Some((stanza, _, validity)) = session.present() {
                let source = Some(&session.0.account);
                inner.notify_contact(contact, &Notification { source, stanza: &stanza, validity });
            }
        }
    }

    /// Readies the sessions of an account for the end of `contact`'s subscription (a bare JID as
    /// normalised text), *before* the roster shows it: each records the contact as one that has to
    /// be told. If it ends before [`part`](Self::part), it tells the contact by that record,
    /// whichever roster it sees.
    pub fn prepare_parting(&self, account: &str, contact: &str) -> Parting<C> {
        let ready = |session: SessionHandle<C>| {
            let mut state = session.0.presence.lock();
            let directed = state.change(|rare| {
                let directed = rare.directed.reaches(contact);
                // For a moment, hence whatever the limit.
                let _recorded = rare.directed.record(contact, usize::MAX);
                directed
            });
            drop(state);
            (session, directed)
        };
        let sessions = self.inner().sessions(self.key(account)).into_iter().map(ready).collect();
        Parting { contact: contact.into(), sessions }
    }

    /// Tells a contact that has lost its subscription that each available session is gone, and forgets
    /// what they directed to it ([SUB-16](crate::rules#sub-16)).
    pub fn part(&self, parting: Parting<C>) {
        let Parting { contact, sessions } = parting;
        for (session, directed) in sessions {
            let (available, records) = {
                let mut state = session.0.presence.lock();
                let records = state.change(|rare| rare.directed.take_account(&contact));
                (state.last.is_some(), records)
            };
            // Where the record is gone, the session has ended and told the contact itself.
            if available || (directed && !records.is_empty()) {
                let (inner, stanza) = (self.inner(), unavailable(&session.0));
                let source = Some(&session.0.account);
                inner.notify_contact(self.key(&contact), &Notification::for_good(source, &stanza));
                let full = records.iter().filter(|target| *target != &*contact);
                full.filter(|target| !inner.hears(target))
                    .for_each(|t| inner.direct(source, &stanza, t, Validity::FOR_GOOD));
            }
        }
    }

    /// When a session of the account last was no longer available, if that is remembered ([PRES-15](crate::rules#pres-15)).
    #[must_use]
    pub fn last_gone(&self, account: &str) -> Option<SystemTime> {
        self.inner().last_gone(account)
    }
}

/// Between [`prepare_parting`](SessionRegistry::prepare_parting) and [`part`](SessionRegistry::part): the
/// sessions that a contact is about to see no longer.
#[must_use = "the contact waits to be told"]
pub struct Parting<C: SharedConnection> {
    contact: Box<str>,
    /// Each with whether it held directed presence to the contact.
    sessions: SmallVec<[(SessionHandle<C>, bool); 4]>,
}

impl<C: SharedConnection> fmt::Debug for Parting<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parting").field("sessions", &self.sessions.len()).finish_non_exhaustive()
    }
}
