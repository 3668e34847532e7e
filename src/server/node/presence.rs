//! Presence between nodes: who is told there, who has been told here, and both halves of subscriptions (NODE-15, 17).

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use jid::BareJid;
use smallvec::smallvec;

use super::actor::of;
use super::letter::Letter;
use super::submit::word;
use super::{Clustered, Command};
use crate::address;
use crate::cluster::{Effect, Ledgers, Recipient, Slot, Word};
use crate::connection::SharedConnection;
use crate::packed::{Reader, Writer};
use crate::rules::presence::PresenceType;
use crate::rules::subscription::SubscriptionKind;
use crate::server::breaks::broken;
use crate::server::{Core, Task};
use crate::session::{Afar, Told, Validity};
use crate::stanza::{Kind, Stanza};

/// Whose subscription a stanza changes, and how.
pub(super) fn subscription(stanza: &Stanza) -> Option<SubscriptionKind> {
    let type_ = (stanza.kind() == Kind::Presence).then(|| PresenceType::read(stanza).ok())?;
    match type_ {
        Some(PresenceType::Subscription(kind)) => Some(kind),
        _ => None,
    }
}

impl Letter {
    /// Whether all that comes later for the account waits until it is done: what follows from it is told in order, as
    /// where both live at one node.
    pub(super) fn is_in_turn(&self) -> bool {
        match self {
            Self::Stanza(stanza) | Self::Silent(stanza) => subscription(stanza).is_some(),
            _ => false,
        }
    }
}

/// Whether this session of an account is available.
fn is_there<C: SharedConnection>(core: &Core<C>, account: &str, resource: &str) -> bool {
    let session = core.registry.find(core.registry.key(account), resource);
    session.is_some_and(|session| session.is_available())
}

impl<C: SharedConnection> Clustered<C> {
    /// What the registry has for accounts at other nodes.
    pub(in crate::server) fn afar(&self, afar: Afar<'_>) {
        match afar {
            Afar::Broadcast { stanza, to, except, validity } => {
                let Some(word) = word(stanza) else { return };
                let to = to.into_iter().map(Recipient::of).collect();
                let stanza = stanza.readdressed(stanza.from().as_deref(), None);
                let (from, letter) = (Arc::clone(&word.from), Letter::Broadcast { stanza, except });
                self.send(&from, to, Some(word), &letter, validity);
            }
            Afar::Directed { stanza, validity } => {
                let (Some(word), Some(to)) = (word(&stanza), stanza.to()) else { return };
                let to = smallvec![Recipient::of(address::bare_of(&to).into())];
                let from = Arc::clone(&word.from);
                self.send(&from, to, Some(word), &Letter::Directed(stanza), validity);
            }
            Afar::Probes { asker, to } => {
                let to = to.into_iter().map(Recipient::of).collect();
                let letter = Letter::Probe { asker: asker.into() };
                self.send(asker, to, None, &letter, Validity::FOR_GOOD);
            }
            Afar::Gone { account } => self.inbox.put(Command::Gone(account.into())),
        }
    }

    /// The probe of a client.
    pub(in crate::server) fn ask(&self, asker: &str, stanza: &Stanza, to: &BareJid) {
        let letter = Letter::Asked { asker: asker.into(), stanza: stanza.clone() };
        let to = smallvec![Recipient::of(to.as_str().into())];
        self.send(asker, to, None, &letter, Validity::FOR_GOOD);
    }

    /// What one session, a full JID, is told that has asked.
    pub(in crate::server) fn answer(&self, asker: &str, stanza: Stanza, validity: Validity<'_>) {
        let (account, Some(resource)) = address::parts(asker) else { return };
        let word = word(&stanza).map(|word| Word { is_for_all: false, ..word });
        let from = stanza.from().map(|from| from.to_string()).unwrap_or_default();
        let letter = Letter::Answer { resource: resource.into(), stanza };
        self.send(&from, smallvec![Recipient::of(account.into())], word, &letter, validity);
    }

    /// A subscription stanza of an account that hides from whom it is for.
    pub(in crate::server) fn send_silently(&self, stanza: Stanza) {
        let (Some(from), Some(to)) = (stanza.from(), stanza.to()) else { return };
        let (from, to) = (from.to_string(), smallvec![Recipient::of(address::bare_of(&to).into())]);
        self.send(&from, to, None, &Letter::Silent(stanza), Validity::FOR_GOOD);
    }
}

/// What the accounts here know of others, and what waits for them.
pub(super) struct Presences {
    ledgers: Ledgers,
    /// Accounts with something to do first, and what has come since.
    waiting: HashMap<Arc<str>, VecDeque<Effect>>,
}

/// The first byte of all that a slot has: a node of another version does not understand what follows.
const VERSION: u8 = 1;

/// The ledgers of a slot, and what else it has.
fn divide(content: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut input = Reader::new(content);
    let ledgers = (input.byte()? == VERSION).then(|| input.bytes())??;
    Some((ledgers, input.rest()))
}

impl Presences {
    pub(super) fn new() -> Self {
        Self { ledgers: Ledgers::default(), waiting: HashMap::new() }
    }

    /// How many sessions elsewhere are known here, each time by one account.
    pub(super) const fn known(&self) -> usize {
        self.ledgers.len()
    }

    /// Given back where nothing is to be done first.
    pub(super) fn wait(&mut self, effect: Effect) -> Option<Effect> {
        let (Effect::Handle { account, .. } | Effect::Hear { account, .. }) = &effect else {
            return Some(effect);
        };
        match self.waiting.get_mut(account) {
            Some(waiting) => {
                waiting.push_back(effect);
                None
            }
            None => Some(effect),
        }
    }

    pub(super) fn begin(&mut self, account: Arc<str>) -> Arc<str> {
        self.waiting.insert(Arc::clone(&account), VecDeque::new());
        account
    }

    pub(super) fn through(&mut self, account: &str) -> VecDeque<Effect> {
        self.waiting.remove(account).unwrap_or_default()
    }

    pub(super) fn export(&self, slot: Slot, content: &[u8]) -> Arc<[u8]> {
        let mut out = Writer::versioned(VERSION);
        out.bytes(&self.ledgers.export(Some(slot), |_| !broken!(LedgerStays)));
        let mut bytes = out.into_bytes();
        bytes.extend_from_slice(content);
        bytes.into()
    }

    /// What else has come is returned.
    pub(super) fn import<'a>(&mut self, content: &'a [u8]) -> &'a [u8] {
        let (ledgers, rest) = divide(content).unwrap_or_default();
        let _taken = self.ledgers.import(ledgers);
        rest
    }

    /// Whether that can be [imported](Self::import), and the `rest`.
    pub(super) fn reads(content: &[u8], rest: impl FnOnce(&[u8]) -> bool) -> bool {
        divide(content).is_some_and(|(ledgers, of_core)| Ledgers::reads(ledgers) && rest(of_core))
    }

    /// A slot is about to move: what its accounts (`ours`), or the others here, have been told of each other is to be known
    /// where they will be apart (NODE-17).
    pub(super) fn part<C: SharedConnection>(&mut self, core: &Core<C>, slot: Slot, ours: bool) {
        if broken!(PartedUnnoted) {
            return;
        }
        self.note_all(core.registry.told_here(&of(slot), ours));
    }

    /// The same of what the others here have directed to accounts of these slots: one look at all sessions, for all slots that
    /// begin to move together.
    pub(super) fn part_directed<C: SharedConnection>(&mut self, core: &Core<C>, slots: &[Slot]) {
        if broken!(PartedUnnoted) {
            return;
        }
        let meant: BTreeSet<_> = slots.iter().copied().collect();
        let goes = |account: &str, from: &str| {
            let slot = Slot::of(account);
            meant.contains(&slot) && Slot::of(from) != slot
        };
        self.note_all(core.registry.directed_here(goes));
    }

    /// A slot is served here, since it has come or stays after all: of the sessions that are here the registry knows again who
    /// among its accounts, and the others here, was told of them. Of one that is not any more the end is on its way. Accounts
    /// that are about to go are told, and told of, from where they will be.
    pub(super) fn unite<C: SharedConnection>(&mut self, core: &Core<C>, slot: Slot) {
        let is_here = |from: &str| is_known_here(core, from);
        let is_served = |account: &str| core.registry.is_local(account);
        let _of_others = self.ledgers.lose(Some(slot), is_here, |_| true);
        let is_of_slot = |from: &str| slot_of(from) == slot && is_here(from);
        let _of_slot = self.ledgers.lose(None, is_of_slot, is_served);
    }

    /// Somebody of the account, or this resource of it, has been told of a session, which is here by now, or is not.
    fn note<C: SharedConnection>(
        &mut self,
        core: &Core<C>,
        account: &Arc<str>,
        resource: Option<&str>,
        from: &Arc<str>,
    ) {
        if !is_known_here(core, from) {
            self.ledgers.note(account, resource, from);
        }
    }

    fn note_all(&mut self, told: Vec<Told>) {
        for told in told {
            self.ledgers.note(&told.account.into(), told.resource.as_deref(), &told.from.into());
        }
    }

    pub(super) fn give_up(&mut self, slot: Slot) {
        self.ledgers.drop_those(Some(slot), |_| true);
        self.waiting.retain(|account, _| Slot::of(account) != slot);
    }

    /// A session of the account is not available any more: what nobody is left to know of is struck out.
    pub(super) fn gone<C: SharedConnection>(&mut self, core: &Core<C>, account: &str) {
        if broken!(GoneUnheard) {
            return;
        }
        let (key, is_available) = (core.registry.key(account), core.registry.is_there(account));
        let is_there = |resource: &str| core.registry.find(key, resource).is_some();
        self.ledgers.retire(account, is_available, is_there);
    }

    /// What these slots had is lost (NODE-17).
    pub(super) fn lose<C: SharedConnection>(
        &mut self,
        core: &Core<C>,
        slots: &[Slot],
        only: Option<Slot>,
    ) {
        let is_lost = |from: &str| slots.binary_search(&slot_of(from)).is_ok();
        let ends = self.ledgers.lose(only, is_lost, |_| true);
        let whole = ends.iter().filter(|end| end.resource.is_none());
        let whole: HashSet<_> = whole.map(|end| (&end.account, &end.from)).collect();
        for end in &ends {
            if broken!(LostUntold) {
                break;
            }
            let gone = Stanza::presence().type_("unavailable").from(&end.from);
            match &end.resource {
                None => _ = core.registry.hear(&end.account, None, &gone.build()),
                // It has been told with the others.
                Some(resource)
                    if whole.contains(&(&end.account, &end.from))
                        && is_there(core, &end.account, resource) => {}
                Some(resource) => {
                    let to = format!("{}/{resource}", end.account);
                    core.registry.hear(&end.account, Some(resource), &gone.to(&to).build());
                }
            }
        }
    }

    /// Directed presence that a client sent comes.
    pub(super) fn directed<C: SharedConnection>(
        &mut self,
        core: &Core<C>,
        account: &Arc<str>,
        word: &Word,
        stanza: &Stanza,
    ) {
        let to = stanza.to();
        let resource = to.as_deref().and_then(|to| address::parts(to).1);
        if !word.is_available {
            // Whoever sees it is told of its end all the same (PRES-12).
            let is_seen = || core.sees(account, address::bare_of(&word.from));
            if resource.is_some() || !is_seen() {
                self.strike(core, account, resource, &word.from);
            }
            return;
        }
        let is_there = match resource {
            None => core.registry.is_there(account),
            Some(resource) => core.registry.find(core.registry.key(account), resource).is_some(),
        };
        if is_there {
            self.note(core, account, resource, &word.from);
        }
    }

    /// Whether the account, or this resource, knew of a session that is gone.
    fn strike<C: SharedConnection>(
        &mut self,
        core: &Core<C>,
        account: &str,
        resource: Option<&str>,
        from: &str,
    ) -> bool {
        let mut is_known = self.ledgers.strike(account, resource, from);
        if resource.is_none() {
            // Whoever is available hears it now, and not again as one to whom it was directed.
            for resource in self.ledgers.directed(account, from) {
                if is_there(core, account, &resource) {
                    is_known |= self.ledgers.strike(account, Some(&resource), from);
                }
            }
        }
        is_known
    }

    /// Presence of a session comes for an account, or for this resource of it; an end only to whom knew of it. Whether
    /// somebody was given it.
    fn hear<C: SharedConnection>(
        &mut self,
        core: &Core<C>,
        account: &Arc<str>,
        resource: Option<&str>,
        word: &Word,
        stanza: &Stanza,
    ) -> bool {
        if !word.is_available {
            return self.strike(core, account, resource, &word.from)
                && core.registry.hear(account, resource, stanza);
        }
        let is_heard = core.registry.hear(account, resource, stanza);
        if is_heard {
            self.note(core, account, resource, &word.from);
        }
        is_heard
    }

    /// What comes for an account here.
    pub(super) fn letter<C: SharedConnection>(
        &mut self,
        core: &Arc<Core<C>>,
        account: &Arc<str>,
        word: Option<&Word>,
        letter: Letter,
    ) -> Option<Task> {
        match letter {
            Letter::Stanza(_) | Letter::Reply(_) | Letter::OfHost(_) | Letter::Act { .. } => {}
            Letter::Broadcast { stanza, except } => {
                let word = word?;
                let is_heard = match except.is_empty() {
                    true => self.hear(core, account, None, word, &stanza),
                    false => {
                        let mut there = core.registry.those_there(account);
                        self.ledgers.divide(account, &word.from, &there);
                        there.retain(|resource| !except.contains(resource));
                        let mut hear =
                            |one: &String| self.hear(core, account, Some(one), word, &stanza);
                        there.iter().filter(|one| hear(one)).count() > 0
                    }
                };
                // What somebody has been told of a session he is told up to its end, also where nobody knows why (PRES-20).
                let contact = address::bare_of(&word.from);
                let goes_on =
                    if word.is_available { is_heard } else { self.ledgers.knows(account, contact) };
                if !goes_on {
                    core.heal(account, contact);
                }
            }
            Letter::Directed(stanza) => {
                let (word, to) = (word?, stanza.to()?);
                let resource = address::parts(&to).1;
                if resource.is_some() && !word.is_available {
                    let there = core.registry.those_there(account);
                    self.ledgers.divide(account, &word.from, &there);
                }
                // An end is for whom it was directed to; else it is what a broadcast would have brought.
                if !word.is_available || resource.is_none_or(|one| is_there(core, account, one)) {
                    self.hear(core, account, resource, word, &stanza);
                }
            }
            Letter::Answer { resource, stanza } => {
                let is_heard =
                    core.registry.answered(account, &resource, &stanza, Validity::FOR_GOOD);
                if let Some(word) = word.filter(|word| is_heard && word.is_available) {
                    // Where the others know of it by themselves, this one does too.
                    let is_divided = !self.ledgers.directed(account, &word.from).is_empty();
                    self.note(core, account, is_divided.then_some(&*resource), &word.from);
                }
            }
            Letter::Probe { .. } if broken!(ProbeUnheard) => {}
            Letter::Probe { asker } => return core.probe_of_another_node(account, &asker),
            Letter::Asked { asker, stanza } => return core.asked_by_another_node(&asker, &stanza),
            Letter::Silent(stanza) => {
                let account = BareJid::new(account).ok()?;
                let kind = subscription(&stanza)?;
                return core.inbound_subscription(&stanza, kind, &account, true);
            }
        }
        None
    }
}

/// Whether the registry here knows who was told of a session: it is available, and its account acts here.
fn is_known_here<C: SharedConnection>(core: &Core<C>, from: &str) -> bool {
    let (bare, resource) = address::parts(from);
    let session = || core.registry.find(core.registry.key(bare), resource.unwrap_or_default());
    core.registry.is_local(bare) && session().is_some_and(|session| session.is_available())
}

/// Of the account of a full JID.
fn slot_of(jid: &str) -> Slot {
    Slot::of(address::bare_of(jid))
}
