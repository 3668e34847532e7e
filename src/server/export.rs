//! A slot's accounts as bytes, and back on another node (NODE-9): what the registry knows of them, what extensions keep,
//! what the server remembers, and the streams of their clients (NODE-14).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jid::BareJid;

use super::Core;
use super::breaks::broken;
use super::driver::Driver;
use super::driver::export::Moving;
use super::driver::negotiate::Unbound;
use super::guests::Lodger;
use crate::connection::{Close, SharedConnection};
use crate::packed::{Reader, Writer};
use crate::session::{HostCode, Item, Keeper, Keeps, Kept, NotAnExport, SessionId, Which};
use crate::store::{ClientKey, OfflineId};
use crate::xep::acknowledgement;

/// The first byte: a node of another version does not understand what follows.
const VERSION: u8 = 1;

/// Under which name the key of a session's client goes along.
const CLIENT: &str = "client";

/// The stream of a session, where that goes on with it.
pub(super) struct Leg<T> {
    pub(super) session: SessionId,
    /// What its edge is, and how far both are.
    pub(super) line: Vec<u8>,
    pub(super) driver: T,
}

/// Streams of a slot that moves.
#[derive(Default)]
pub(super) struct Leaving {
    pub(super) legs: Vec<Leg<Vec<u8>>>,
    /// Those that have no session: the edge of each, and what it is adopted by.
    pub(super) unbound: Vec<(Vec<u8>, Vec<u8>)>,
    /// What edge those have that are over, or being closed.
    pub(super) over: Vec<Vec<u8>>,
}

/// Streams of a slot that has come here.
pub(super) struct Arrived<C: SharedConnection> {
    pub(super) going_on: Vec<Leg<Driver<C>>>,
    pub(super) unbound: Vec<(Vec<u8>, Unbound)>,
    /// The same, and what edge those have whose session has not come along.
    pub(super) over: Vec<Vec<u8>>,
}

impl<C: SharedConnection> Keeps<C> for Core<C> {
    fn export(&self, of: &Keeper<'_, C>) -> Kept {
        let mut kept = Kept::default();
        if broken!(KeptStays) {
            return kept;
        }
        for extension in self.extensions.iter() {
            let export = || extension.export(of, &mut kept);
            let _panicked = self.shielded(HostCode::Extension, Some(account(of)), export);
        }
        if let Keeper::Session(session) = of
            && let Some(client) = session.extension::<ClientKey>()
        {
            kept.put(CLIENT, client.as_bytes().to_vec());
        }
        kept
    }

    fn import(&self, of: &Keeper<'_, C>, kept: &Kept) {
        for extension in self.extensions.iter() {
            let import = || extension.import(of, kept);
            let _panicked = self.shielded(HostCode::Extension, Some(account(of)), import);
        }
        if let Keeper::Session(session) = of
            && let Some(client) = kept.get(CLIENT).and_then(|bytes| bytes.try_into().ok())
        {
            session.set_extension(ClientKey::from_bytes(client));
        }
    }
}

fn account<'a, C: SharedConnection>(of: &Keeper<'a, C>) -> &'a BareJid {
    match of {
        Keeper::Session(session) => &session.account().bare,
        Keeper::Account(account) => account.jid(),
    }
}

impl<C: SharedConnection> Core<C> {
    /// These accounts stand still: nothing is given to their clients, nor taken. What they have begun goes on.
    pub(super) fn freeze(&self, which: Which<'_>) {
        self.registry.freeze(which);
    }

    /// They go on, after they have stood for so long. Their drivers are to be [thawed](Driver::thaw) as well.
    pub(super) fn thaw(&self, which: Which<'_>, stood: Duration) {
        self.registry.thaw(which, stood);
    }

    /// All that these accounts have here, with the streams that go on with their sessions. It stays as it was, and
    /// stands still. `None`: something is still under way, and it is to be tried again.
    pub(super) fn export(self: &Arc<Self>, which: Which<'_>, leaving: &Leaving) -> Option<Vec<u8>> {
        if self.jobs.is_busy(&|bare| which.has(bare)) && !broken!(BusyExported) {
            return None;
        }
        let accounts = self.registry.export(which, &**self)?;
        let mut out = Writer::default();
        out.byte(VERSION);
        out.bytes(&accounts);
        out.count(leaving.legs.len());
        for leg in &leaving.legs {
            out.number(leg.session.get());
            out.bytes(&leg.line);
            out.bytes(&leg.driver);
        }
        out.list(&leaving.unbound, |out, (line, driver)| {
            out.bytes(line);
            out.bytes(driver);
        });
        out.list(&leaving.over, |out, line| out.bytes(line));
        let retries = self.offline_retries.of(&|bare| which.has(bare));
        out.count(retries.len());
        for (account, given) in retries {
            out.text(account.as_str());
            out.count(given.len());
            given.iter().for_each(|id| out.number(id.get()));
        }
        let unheard = self.unheard.of(&|bare| which.has(bare));
        out.count(unheard.len());
        for (by, (account, contact)) in unheard {
            [by, account, contact].iter().for_each(|jid| out.text(jid.as_str()));
        }
        match &self.guests {
            Some(guests) => guests.export(which, &mut out),
            None => out.count(0),
        }
        Some(out.into_bytes())
    }

    /// Takes what another node has exported, or nothing where it cannot be read. It stands still until it is
    /// [thawed](Self::thaw). `connect` makes the transport of a stream that goes on.
    pub(super) fn import(
        self: &Arc<Self>,
        bytes: &[u8],
        mut connect: impl FnMut(SessionId, &[u8]) -> Option<C>,
    ) -> Result<Arrived<C>, NotAnExport> {
        let read = self.read(bytes).ok_or(NotAnExport)?;
        let Read { accounts, legs, unbound, over, retries, unheard, guests: lodgers } = read;
        self.guests.iter().for_each(|guests| guests.import(&lodgers));
        let mut connect = |session| connect(session, &legs.get(&session)?.line);
        let imported = self.registry.import(accounts, &**self, &mut connect)?;
        for (by, account, contact) in unheard {
            self.unheard.add(by, account, contact);
        }
        let mut waiting = imported.waiting;
        for (account, given) in retries {
            self.offline_retries.put(account.clone(), given);
            waiting.push(account);
        }
        waiting.sort();
        waiting.dedup();
        for account in waiting {
            let core = Arc::clone(self);
            self.jobs.later(async move { core.deliver_offline(&account).await });
        }
        let (mut legs, mut going_on) = (legs, Vec::new());
        for (id, session) in imported.live {
            // One without a stream that goes on is lost, and dropped here.
            let leg = legs.remove(&id).filter(|_| !broken!(LegsStay));
            if let Some(Leg { line, driver, .. }) = leg {
                let handle = session.handle();
                for handled in handle.owed() {
                    let answer = acknowledgement(handled);
                    let _gone = handle.send_item(&Item::element(answer.as_bytes()));
                }
                let driver = Driver::moved(Arc::clone(self), session, driver);
                going_on.push(Leg { session: id, line, driver });
            }
        }
        let over = legs.into_values().map(|leg| leg.line).chain(over).collect();
        for Lodger { account, .. } in lodgers {
            // Without its stream nobody can be it again (GUEST-3).
            let has_stream = unbound.iter().any(|(_, one)| one.adoption.account == account);
            let has_session = self.registry.account(self.registry.key(account.as_str())).is_some();
            if !has_stream && !has_session {
                self.guest_left(account);
            }
        }
        Ok(Arrived { going_on, unbound, over })
    }

    /// Whether that could be imported. `is_line`: whether this is the edge of a stream.
    pub(super) fn reads(&self, bytes: &[u8], is_line: impl Fn(&[u8]) -> bool) -> bool {
        self.read(bytes).is_some_and(|read| {
            let legs = read.legs.values().map(|leg| &leg.line);
            let mut lines = legs.chain(read.unbound.iter().map(|(line, _)| line)).chain(&read.over);
            lines.all(|line| is_line(line)) && self.registry.reads(read.accounts)
        })
    }

    fn read<'a>(&self, bytes: &'a [u8]) -> Option<Read<'a>> {
        let (limits, now) = (&self.limits.stream, self.environment.now());
        let mut input = Reader::new(bytes);
        if input.byte()? != VERSION {
            return None;
        }
        let jid = |input: &mut Reader<'_>| BareJid::new(input.text()?).ok();
        let read = Read {
            accounts: input.bytes()?,
            legs: input
                .list(|input| {
                    let (session, line) = (SessionId(input.number()?), input.bytes()?.to_vec());
                    let driver = Moving::read(input.bytes()?, limits, now)?;
                    Some((session, Leg { session, line, driver }))
                })?
                .into_iter()
                .collect(),
            unbound: input.list(|input| {
                let line = input.bytes()?.to_vec();
                let policy = |account: &BareJid| self.policy_for(account);
                Some((line, Unbound::read(input.bytes()?, policy, now)?))
            })?,
            over: input.list(|input| input.bytes().map(<[u8]>::to_vec))?,
            retries: input.list(|input| {
                let account = jid(input)?;
                Some((account, input.list(|input| input.number().map(OfflineId::new))?))
            })?,
            unheard: input.list(|input| Some((jid(input)?, jid(input)?, jid(input)?)))?,
            guests: input.list(Lodger::read)?,
        };
        input.is_empty().then_some(read)
    }

    /// These accounts live elsewhere from now on: nothing is left of them here, and nobody is told.
    pub(super) fn forget(&self, which: Which<'_>, close: Option<Close>) {
        self.registry.forget(which, close);
        self.offline_retries.forget(&|bare| which.has(bare));
        self.unheard.forget(&|bare| which.has(bare));
        self.guests.iter().for_each(|guests| guests.forget(which));
    }
}

/// What was written, before anything is done with it.
struct Read<'a> {
    accounts: &'a [u8],
    legs: BTreeMap<SessionId, Leg<Moving>>,
    unbound: Vec<(Vec<u8>, Unbound)>,
    over: Vec<Vec<u8>>,
    retries: Vec<(BareJid, Vec<OfflineId>)>,
    unheard: Vec<(BareJid, BareJid, BareJid)>,
    guests: Vec<Lodger>,
}

#[cfg(test)]
#[cfg(not(any(loom_model, shuttle)))]
mod moves;
#[cfg(test)]
#[cfg(not(any(loom_model, shuttle)))]
mod tests;
