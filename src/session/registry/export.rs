//! Accounts with all that they have as bytes, and back in another registry (NODE-9).
//!
//! An export is a look at accounts that [stand still](SessionRegistry::freeze); it changes nothing. What is imported
//! stands still as well, until it is [thawed](SessionRegistry::thaw). Nobody is told of any of it: neither clients,
//! nor those who see them.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jid::{BareJid, ResourcePart};

use super::SessionRegistry;
use super::groups::Which;
use super::inheritance::Inheritance;
use super::inner::Inner;
use super::rows::{Row, Slot, SlotState, Slots};
use crate::address;
use crate::connection::{Close, SharedConnection};
use crate::packed::{Reader, Writer};
use crate::rules::presence::Directed;
use crate::rules::roster::{Item, Roster, Stray, Subscription};
use crate::session::account::{Account, AccountState, Values};
use crate::session::handle::{
    ABSENT, AVAILABLE, ENDED, HEIR, HOLDING, INTERESTED, Last, PROTECTED, PresenceState, RETAINED,
    SessionHandle, SessionId, Shared,
};
use crate::session::input::Owner;
use crate::session::kept::{Keeper, Kept};
use crate::session::outbound::Outbound;
use crate::session::outbound::export::{Forgotten, Packing, Unpacking};
use crate::session::state::{Bound, Session};
use crate::shield::{HostCode, wake};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU32, Ordering};

/// What of its flags a session takes along. The others say what is so in its registry.
const LASTING: u32 = 0xff | AVAILABLE | INTERESTED | RETAINED | PROTECTED | HOLDING | HEIR;

/// What extensions keep goes along by them: called without a lock.
pub(crate) trait Keeps<C: SharedConnection> {
    fn export(&self, of: &Keeper<'_, C>) -> Kept;
    fn import(&self, of: &Keeper<'_, C>, kept: &Kept);
}

/// Bytes that are no export of this version, or of accounts that are here already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what was exported cannot be read")]
pub(crate) struct NotAnExport;

/// What has come from another registry.
pub(crate) struct Imported<C: SharedConnection> {
    /// The sessions that had a transport, with the new one, by the number that they had where they come from.
    pub(crate) live: Vec<(SessionId, Session<Bound, C>)>,
    /// The accounts that are to get something out of a store.
    pub(crate) waiting: Vec<BareJid>,
    /// Those whose transport has not come along: it is lost when this is dropped.
    pub(crate) lost: Vec<Owner<C>>,
}

/// One account, while it is written.
struct Exported<C: SharedConnection> {
    account: Arc<Account>,
    sessions: Vec<(Arc<Shared<C>>, SlotState)>,
    replaced: Vec<(ResourcePart, Duration)>,
    /// Who is to get what the store has.
    recipients: Vec<SessionId>,
    values: Kept,
    of_sessions: Vec<Kept>,
}

/// One account, while it is read.
struct Arriving<C: SharedConnection> {
    account: Arc<Account>,
    values: Kept,
    sessions: Vec<ArrivingSession<C>>,
    replaced: Vec<(ResourcePart, Duration)>,
    recipients: Vec<SessionId>,
    hidden: Vec<(Box<str>, Option<SystemTime>)>,
}

struct ArrivingSession<C: SharedConnection> {
    shared: Arc<Shared<C>>,
    /// Since when and until when it waits, if it has no transport.
    waits: Option<(Duration, Duration)>,
    is_live: bool,
    values: Kept,
}

impl<C: SharedConnection> Inner<C> {
    /// The accounts as they are now; `None` while something of them is under way.
    fn standing(&self, which: Which<'_>) -> Option<Vec<Exported<C>>> {
        let (mut all, mut are_quiet) = (Vec::new(), true);
        self.rows(which, |row| {
            let slots = row.slots.as_slice().iter();
            let is_quiet = |slot: &Slot<C>| {
                let mut out = slot.session.out.lock();
                out.freeze();
                slot.state != SlotState::Ending && out.is_quiet()
            };
            // Each: what has come since is to stand still as well.
            are_quiet &= slots.clone().map(is_quiet).filter(|is_quiet| !is_quiet).count() == 0;
            all.push(Exported {
                account: Arc::clone(&row.account),
                sessions: slots.map(|slot| (Arc::clone(&slot.session), slot.state)).collect(),
                replaced: row.slots.replaced().to_vec(),
                recipients: Vec::new(),
                values: Kept::default(),
                of_sessions: Vec::new(),
            });
        });
        if !are_quiet || !self.backlogs.is_quiet(which) {
            return None;
        }
        for one in &mut all {
            one.recipients = self.backlogs.recipients(one.account.bare.as_str());
        }
        Some(all)
    }

    fn write_account(&self, packing: &mut Packing, one: &Exported<C>) {
        let account = &one.account;
        packing.out.text(account.bare.as_str());
        let roster = account.roster();
        write_roster(&mut packing.out, &roster);
        write_kept(packing, &one.values);
        packing.out.count(one.sessions.len());
        for ((session, state), values) in one.sessions.iter().zip(&one.of_sessions) {
            self.write_session(packing, session, *state, values);
        }
        packing.out.count(one.replaced.len());
        for (resource, at) in &one.replaced {
            packing.out.text(resource.as_str());
            packing.past(*at);
        }
        packing.out.count(one.recipients.len());
        one.recipients.iter().for_each(|id| packing.out.number(id.0));
        let hidden = self.hidden_from(account, &roster);
        packing.out.count(hidden.len());
        for (jid, at) in hidden {
            packing.out.text(&jid);
            write_day(packing, at);
        }
    }

    fn write_session(
        &self,
        packing: &mut Packing,
        session: &Shared<C>,
        state: SlotState,
        values: &Kept,
    ) {
        packing.out.number(session.id.0);
        packing.out.text(session.jid.resource().as_str());
        packing.past(session.since.into());
        packing.out.number(session.flags.load(Ordering::SeqCst) & LASTING);
        packing.out.number(session.number.load(Ordering::SeqCst));
        let waits =
            self.hibernating.lock().times(session.id).filter(|_| state == SlotState::Absent);
        packing.out.flag(waits.is_some());
        if let Some((since, until)) = waits {
            packing.past(since);
            packing.future(until);
        }
        write_kept(packing, values);
        {
            let presence = session.presence.lock();
            packing.out.flag(presence.last.is_some());
            if let Some(last) = &presence.last {
                packing.stanza(&last.stanza);
                packing.out.time(last.at.into());
            }
            let rare = presence.rare();
            let client = rare.and_then(|rare| rare.client).map_or(0, NonZeroU64::get);
            packing.out.number(client);
            let none = Directed::new();
            packing.out.texts(rare.map_or(&none, |rare| &rare.directed).iter());
            let inherited = rare.and_then(|rare| rare.inheritance.as_ref());
            let inherited = inherited.map_or(&[][..], |it| it.left());
            packing.out.count(inherited.len());
            inherited.iter().for_each(|left| packing.left(left));
        }
        session.out.lock().export(packing);
    }

    fn read_account(&self, input: &mut Unpacking<'_>) -> Option<Arriving<C>> {
        let bare = BareJid::new(input.input.text()?).ok()?;
        let mut roster = read_roster(&mut input.input)?;
        self.table.hash_contacts(&mut roster, &Roster::new());
        let values = read_kept(input)?;
        let account = Arc::new(Account::new(bare, roster, Values::default()));
        let sessions = input.list(|input| self.read_session(input, &account))?;
        let replaced = input.list(|input| {
            let resource = ResourcePart::new(input.input.text()?).ok()?.into_owned();
            Some((resource, input.past()?))
        })?;
        let recipients = input.list(|input| input.input.number().map(SessionId))?;
        let hidden = input.list(|input| Some((input.input.text()?.into(), read_day(input)?)))?;
        Some(Arriving { account, values, sessions, replaced, recipients, hidden })
    }

    fn read_session(
        &self,
        input: &mut Unpacking<'_>,
        account: &Arc<Account>,
    ) -> Option<ArrivingSession<C>> {
        let id = SessionId(input.input.number()?);
        let jid = account.bare.with_resource_str(input.input.text()?).ok()?;
        let since = input.past()?.into();
        let flags = input.input.small()? & LASTING;
        let number = input.input.small()?;
        let waits = input.option(|input| Some((input.past()?, input.future()?)))?;
        let values = read_kept(input)?;
        let last = input.option(|input| {
            let (stanza, at) = (input.stanza()?, input.input.time()?.into());
            Some(Box::new(Last { stanza, at }))
        })?;
        let client = NonZeroU64::new(input.input.number()?);
        let targets = input.input.texts()?;
        let inherited = input.list(Unpacking::left)?;
        let mut presence = PresenceState::new(Values::default(), client);
        presence.last = last;
        presence.change(|rare| {
            for target in targets {
                let _new = rare.directed.record(target, usize::MAX);
            }
            rare.inheritance = Inheritance::of(inherited, input.share()).map(Box::new);
        });
        let (out, is_live) = Outbound::import(input)?;
        // A live one that was waiting, or one that is neither: nobody has written such.
        if is_live == waits.is_some() {
            return None;
        }
        let shared = Arc::new(Shared {
            id,
            jid,
            since,
            registry: self.me.upgrade()?,
            account: Arc::clone(account),
            flags: AtomicU32::new(flags),
            number: AtomicU32::new(number),
            presence: Mutex::new(presence),
            out: Mutex::new(out),
        });
        Some(ArrivingSession { shared, waits, is_live, values })
    }

    /// Puts in an account, which stands still. `None`: it is here already.
    fn put_account(&self, arriving: &Arriving<C>) -> Option<()> {
        let bare = arriving.account.bare.as_str();
        let key = self.table.key(bare);
        let mut shard = self.table.write(key);
        if shard.find(key.hash.wide(), |row| row.is(key)).is_some() {
            return None;
        }
        let mut slots = Slots::None;
        for one in &arriving.sessions {
            let state = if one.is_live { SlotState::Live } else { SlotState::Absent };
            slots.push(Slot { session: Arc::clone(&one.shared), hash: key.hash, state });
            self.sessions.fetch_add(1, Ordering::SeqCst);
            if let Some((since, until)) = one.waits {
                self.absent.fetch_add(1, Ordering::SeqCst);
                let mut hibernating = self.hibernating.lock();
                hibernating.insert(&one.shared, since, until);
                hibernating.hold(one.shared.id);
                one.shared.set(ABSENT, true);
            }
        }
        if !arriving.replaced.is_empty() {
            slots.change(|many| many.replaced.clone_from(&arriving.replaced));
        }
        let row = Row { account: Arc::clone(&arriving.account), slots };
        let hash_of = |row: &Row<C>| self.hash_of(row).wide();
        self.groups.iter().for_each(|groups| groups.add(&row.account));
        shard.insert_unique(key.hash.wide(), row, hash_of);
        drop(shard);
        for (jid, at) in &arriving.hidden {
            self.freeze(bare, jid, *at);
        }
        Some(())
    }

    /// A look at each row of these accounts, under the lock of its shard.
    pub(super) fn rows(&self, which: Which<'_>, mut look: impl FnMut(&Row<C>)) {
        match self.groups.as_ref().zip(which.group()) {
            Some((groups, group)) => {
                for account in groups.those(group) {
                    self.table.with(self.table.key(account.bare.as_str()), |row| look(row));
                }
            }
            None => {
                for shard in self.table.shards() {
                    let has = |row: &&Row<C>| which.has(row.account.bare.as_str());
                    shard.read().iter().filter(has).for_each(&mut look);
                }
            }
        }
    }

    /// Takes out the rows of these accounts.
    fn take_rows(&self, which: Which<'_>) -> Vec<Row<C>> {
        let mut gone = Vec::new();
        let mut take = |row: Row<C>| {
            self.groups.iter().for_each(|groups| groups.remove(&row.account));
            for slot in row.slots.as_slice().iter().filter(|s| s.state != SlotState::Ending) {
                self.sessions.fetch_sub(1, Ordering::SeqCst);
                self.no_longer_absent(&slot.session, slot.state);
            }
            gone.push(row);
        };
        match self.groups.as_ref().zip(which.group()) {
            Some((groups, group)) => {
                for account in groups.those(group) {
                    let key = self.table.key(account.bare.as_str());
                    let mut shard = self.table.write(key);
                    if let Ok(row) = shard.find_entry(key.hash.wide(), |row| row.is(key)) {
                        take(row.remove().0);
                    }
                }
            }
            None => {
                for shard in self.table.shards() {
                    let has = |row: &mut Row<C>| which.has(row.account.bare.as_str());
                    shard.write().extract_if(has).for_each(&mut take);
                }
            }
        }
        gone
    }

    /// Each session of these accounts, with its state.
    pub(super) fn each(&self, which: Which<'_>, mut act: impl FnMut(&Arc<Shared<C>>, SlotState)) {
        let mut all = Vec::new();
        self.rows(which, |row| {
            let slots = row.slots.as_slice().iter();
            all.extend(slots.map(|slot| (Arc::clone(&slot.session), slot.state)));
        });
        all.iter().for_each(|(session, state)| act(session, *state));
    }
}

impl<C: SharedConnection> SessionRegistry<C> {
    /// These accounts stand still: their clients get nothing and are not heard, and none of their time-outs comes.
    pub(crate) fn freeze(&self, which: Which<'_>) {
        self.inner().each(which, |session, state| {
            session.out.lock().freeze();
            if state == SlotState::Absent {
                self.inner().hibernating.lock().hold(session.id);
            }
        });
    }

    /// They go on, after they have stood for so long.
    pub(crate) fn thaw(&self, which: Which<'_>, stood: Duration) {
        let inner = self.inner();
        inner.each(which, |session, state| {
            if state == SlotState::Absent {
                inner.hibernating.lock().go_on(session.id, stood);
            }
            let waker = session.out.lock().thaw(stood);
            inner.settle(session, session.kick());
            inner.weigh(session);
            wake(waker);
        });
    }

    /// All that these accounts have here. It stays as it was, and stands still. `None`: something is still under way.
    pub(crate) fn export(&self, which: Which<'_>, keeps: &dyn Keeps<C>) -> Option<Vec<u8>> {
        let inner = self.inner();
        self.freeze(which);
        let mut all = inner.standing(which)?;
        for one in &mut all {
            let state = AccountState(Arc::clone(&one.account));
            one.values = keeps.export(&Keeper::Account(&state));
            let handle = |(session, _): &(Arc<Shared<C>>, _)| SessionHandle(Arc::clone(session));
            let kept = |session| keeps.export(&Keeper::Session(&session));
            one.of_sessions = one.sessions.iter().map(handle).map(kept).collect();
        }
        let mut packing = Packing::new(&*inner.settings.environment);
        packing.out.count(all.len());
        all.iter().for_each(|one| inner.write_account(&mut packing, one));
        let remembered = inner.remembered.lock().of(which);
        packing.out.count(remembered.len());
        for (account, token, handled, until) in remembered {
            packing.out.text(&account);
            packing.out.text(&token);
            packing.out.number(handled);
            packing.future(until);
        }
        let gone = inner.gone_of(which);
        packing.out.count(gone.len());
        for (account, at) in gone {
            packing.out.text(&account);
            packing.day(at);
        }
        Some(packing.out.into_bytes())
    }

    /// Whether that can be [imported](Self::import).
    pub(crate) fn reads(&self, bytes: &[u8]) -> bool {
        self.inner().read(bytes).is_some()
    }

    /// Takes what another registry has exported: nothing, where it cannot be read. It stands still. `connect` gives the
    /// new transport of a session that had one.
    pub(crate) fn import(
        &self,
        bytes: &[u8],
        keeps: &dyn Keeps<C>,
        connect: &mut dyn FnMut(SessionId) -> Option<C>,
    ) -> Result<Imported<C>, NotAnExport> {
        let inner = self.inner();
        let all = inner.read(bytes).ok_or(NotAnExport)?;
        let Read { accounts, remembered, gone } = all;
        if accounts.iter().any(|one| self.is_loaded(&one.account.bare)) {
            return Err(NotAnExport);
        }
        for one in &accounts {
            let state = AccountState(Arc::clone(&one.account));
            keeps.import(&Keeper::Account(&state), &one.values);
            for session in &one.sessions {
                let handle = SessionHandle(Arc::clone(&session.shared));
                keeps.import(&Keeper::Session(&handle), &session.values);
            }
        }
        let mut imported = Imported { live: Vec::new(), waiting: Vec::new(), lost: Vec::new() };
        for one in &accounts {
            let mut owners = Vec::new();
            for session in one.sessions.iter().filter(|session| session.is_live) {
                let link = connect(session.shared.id);
                let mut out = session.shared.out.lock();
                out.link.clone_from(&link);
                let epoch = out.epoch;
                drop(out);
                owners.push((Owner { shared: Arc::clone(&session.shared), epoch }, link));
            }
            inner.put_account(one).ok_or(NotAnExport)?;
            for (owner, link) in owners {
                match link {
                    Some(link) => {
                        let id = owner.shared.id;
                        imported.live.push((id, Session::arrived(owner, link)));
                    }
                    None => imported.lost.push(owner),
                }
            }
            let handles = one.sessions.iter().map(|one| SessionHandle(Arc::clone(&one.shared)));
            let is_recipient = |handle: &SessionHandle<C>| one.recipients.contains(&handle.id());
            let recipients: Vec<_> = handles.filter(is_recipient).collect();
            if !recipients.is_empty() {
                imported.waiting.push(one.account.bare.clone());
            }
            recipients.iter().for_each(|session| self.expect_stored(session));
        }
        let mut memory = inner.remembered.lock();
        for (account, token, handled, until) in remembered {
            memory.put(&account, token, handled, until, inner.limits());
        }
        drop(memory);
        gone.iter().for_each(|(account, at)| inner.remember_gone(account, *at));
        Ok(imported)
    }

    /// These accounts live elsewhere from now on, or nowhere: all that they have here is forgotten, and nobody is told;
    /// with `close` the transports are closed, else they are somebody else's.
    pub(crate) fn forget(&self, which: Which<'_>, close: Option<Close>) {
        let inner = self.inner();
        let gone = inner.take_rows(which);
        inner.backlogs.forget(which);
        inner.remembered.lock().forget_those(which);
        inner.forget_gone(which);
        for session in gone.iter().flat_map(|row| row.slots.as_slice()).map(|slot| &slot.session) {
            session.number.fetch_add(1, Ordering::SeqCst);
            session.flags.store(ENDED, Ordering::SeqCst);
            let Forgotten { link, waker, .. } = session.out.lock().forget();
            let presence = std::mem::take(&mut *session.presence.lock());
            drop(presence);
            if let Some((link, how)) = link.zip(close) {
                let account = Some(&session.account.bare);
                inner.shielded(HostCode::Connection, account, || link.close(how));
            }
            wake(waker);
        }
    }
}

#[cfg(test)]
#[cfg(not(any(loom_model, shuttle)))]
mod tests;

/// What was written, before anything is done with it.
struct Read<C: SharedConnection> {
    accounts: Vec<Arriving<C>>,
    remembered: Vec<(Box<str>, String, u32, Duration)>,
    gone: Vec<(Box<str>, SystemTime)>,
}

impl<C: SharedConnection> Inner<C> {
    fn read(&self, bytes: &[u8]) -> Option<Read<C>> {
        let environment = &*self.settings.environment;
        let mut input = Unpacking::new(bytes, environment, &self.retained_bytes)?;
        let accounts = input.list(|input| self.read_account(input))?;
        let remembered = input.list(|input| {
            let (account, token) = (input.input.text()?.into(), input.input.text()?.into());
            Some((account, token, input.input.small()?, input.future()?))
        })?;
        let gone = input.list(|input| Some((input.input.text()?.into(), input.day()?)))?;
        input.input.is_empty().then_some(Read { accounts, remembered, gone })
    }
}

fn write_kept(packing: &mut Packing, kept: &Kept) {
    packing.out.count(kept.iter().len());
    for (name, bytes) in kept.iter() {
        packing.out.text(name);
        packing.out.bytes(bytes);
    }
}

fn read_kept(input: &mut Unpacking<'_>) -> Option<Kept> {
    let mut kept = Kept::default();
    for (name, bytes) in input.list(|input| Some((input.input.text()?, input.input.bytes()?)))? {
        kept.put(name, bytes.to_vec());
    }
    Some(kept)
}

fn write_day(packing: &mut Packing, at: Option<SystemTime>) {
    packing.out.flag(at.is_some());
    if let Some(at) = at {
        packing.day(at);
    }
}

#[expect(clippy::option_option, reason = "none may be what was written")]
fn read_day(input: &mut Unpacking<'_>) -> Option<Option<SystemTime>> {
    input.option(Unpacking::day)
}

const ASKED: u8 = 4;
const APPROVED: u8 = 8;

pub(crate) fn write_roster(out: &mut Writer, roster: &Roster) {
    out.number(roster.version());
    out.count(roster.len());
    for item in roster.iter() {
        out.text(item.jid());
        out.option(item.name(), |out, name| out.text(name));
        let groups: Vec<_> = item.groups().collect();
        out.texts(groups.into_iter());
        let asked = if item.ask() { ASKED } else { 0 };
        let approved = if item.approved() { APPROVED } else { 0 };
        out.byte(item.subscription() as u8 | asked | approved);
    }
    out.texts(roster.requests());
}

pub(crate) fn read_roster(input: &mut Reader<'_>) -> Option<Roster> {
    let version = input.number()?;
    let (mut items, mut strays) = (Vec::new(), Vec::new());
    for item in input.list(|input| {
        let (jid, name) = (input.text()?, input.option(|input| input.text())?);
        let groups = input.texts()?.into_iter().map(str::to_owned).collect();
        Some((jid, name.map(str::to_owned), groups, input.byte()?))
    })? {
        let (text, name, groups, state) = item;
        let subscription = match state & 3 {
            0 => Subscription::None,
            1 => Subscription::To,
            2 => Subscription::From,
            _ => Subscription::Both,
        };
        let (ask, approved) = (state & ASKED != 0, state & APPROVED != 0);
        // JID-6
        match address::bare(text).ok().filter(|jid| jid.as_str() == text) {
            Some(jid) => items.push(Item { jid, name, groups, subscription, ask, approved }),
            None => strays.push(Stray { jid: text.to_owned(), name, groups }),
        }
    }
    let requests = input.texts()?.into_iter().map(BareJid::new);
    let requests = requests.collect::<Result<Vec<_>, _>>().ok()?;
    let mut roster = Roster::from_items(items, version, requests);
    strays.iter().for_each(|stray| roster.add_stray(stray));
    Some(roster)
}
