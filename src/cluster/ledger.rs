//! Who is known from elsewhere: the sessions at other nodes of which the clients of each account here have been told
//! (NODE-17).
//!
//! ```text
//!   available, given to somebody ──▶ noted ──▶ unavailable comes ──▶ given, and struck out
//!                                      │  └──▶ its slot is lost ──▶ one is made, given, and struck out
//!   unavailable of who is not noted ──▶ nobody is told
//! ```
//!
//! A JID is kept once for all whom the same frame told, and 16 bytes of it for each.

use std::sync::Arc;

use super::by_slot::BySlot;
use super::view::Slot;
use crate::packed::{Reader, Writer};

/// The ledgers of the accounts here.
#[derive(Debug, Default)]
pub(crate) struct Ledgers {
    of: BySlot<Ledger>,
    /// How many are known, each time by one account.
    count: usize,
}

/// That of one account, in the order of JIDs.
#[derive(Debug, Default, PartialEq, Eq)]
struct Ledger {
    /// Sessions elsewhere that told the account.
    told: Vec<Arc<str>>,
    /// Those that told one of its sessions alone, and which.
    directed: Vec<(Arc<str>, Arc<str>)>,
}

/// An end that a client is to be told of, since nobody else will.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    /// Bare JID.
    pub(crate) account: Arc<str>,
    /// The resource, where only that was told.
    pub(crate) resource: Option<Arc<str>>,
    /// Full JID.
    pub(crate) from: Arc<str>,
}

impl Ledgers {
    /// Somebody of the account, or this resource of it, has been told that `from` is available.
    pub(crate) fn note(&mut self, account: &Arc<str>, resource: Option<&str>, from: &Arc<str>) {
        if !self.of.contains_key(account) {
            self.of.insert(Arc::clone(account), Ledger::default());
        }
        let Some(ledger) = self.of.get_mut(account) else { return };
        match resource {
            None => {
                if let Err(at) = ledger.told.binary_search(from) {
                    ledger.told.insert(at, Arc::clone(from));
                    self.count += 1;
                }
            }
            Some(resource) => {
                let place = ledger.directed.binary_search_by(|one| place(one, from, resource));
                if let Err(at) = place {
                    ledger.directed.insert(at, (Arc::clone(from), resource.into()));
                    self.count += 1;
                }
            }
        }
    }

    /// `from` is gone for the account, or for this resource of it. `false`: they did not know of it.
    pub(crate) fn strike(&mut self, account: &str, resource: Option<&str>, from: &str) -> bool {
        let Some(ledger) = self.of.get_mut(account) else { return false };
        let known = match resource {
            None => {
                let at = ledger.told.binary_search_by(|one| (**one).cmp(from));
                at.map(|at| drop(ledger.told.remove(at))).is_ok()
            }
            Some(resource) => {
                let at = ledger.directed.binary_search_by(|one| place(one, from, resource));
                at.map(|at| drop(ledger.directed.remove(at))).is_ok()
            }
        };
        self.count -= usize::from(known);
        self.tidy(account);
        known
    }

    /// What the account was told of `from` counts for each of these sessions by itself: not all are told what comes.
    pub(crate) fn divide(&mut self, account: &Arc<str>, from: &Arc<str>, there: &[String]) {
        if self.strike(account, None, from) {
            there.iter().for_each(|resource| self.note(account, Some(resource), from));
        }
    }

    /// Whether anybody of the account knows of a session of this one.
    pub(crate) fn knows(&self, account: &str, of: &str) -> bool {
        let Some(ledger) = self.of.get(account) else { return false };
        let first = format!("{of}/");
        let told = ledger.told.partition_point(|from| **from < *first);
        let directed = ledger.directed.partition_point(|(from, _)| **from < *first);
        let directed = ledger.directed.get(directed).map(|(from, _)| from);
        [ledger.told.get(told), directed].iter().flatten().any(|from| from.starts_with(&first))
    }

    /// Which resources of the account alone know of `from`.
    pub(crate) fn directed(&self, account: &str, from: &str) -> Vec<Arc<str>> {
        let directed = self.of.get(account).into_iter().flat_map(|ledger| &ledger.directed);
        let of = directed.filter(|(known, _)| **known == *from);
        of.map(|(_, resource)| Arc::clone(resource)).collect()
    }

    /// A session of the account is not available any more, or has ended. What the account was told counts as long as
    /// somebody of it `is_available`; what one of its sessions was told, as long as that is `there`.
    pub(crate) fn retire(
        &mut self,
        account: &str,
        is_available: bool,
        there: impl Fn(&str) -> bool,
    ) {
        if let Some(ledger) = self.of.get_mut(account) {
            let before = ledger.len();
            if !is_available {
                ledger.told = Vec::new();
            }
            ledger.directed.retain(|(_, resource)| there(resource));
            self.count -= before - ledger.len();
        }
        self.tidy(account);
    }

    /// These full JIDs are lost, and struck out. Of all accounts, or those of one slot, that are `meant`.
    pub(crate) fn lose(
        &mut self,
        only: Option<Slot>,
        is_lost: impl Fn(&str) -> bool,
        is_meant: impl Fn(&str) -> bool,
    ) -> Vec<Lost> {
        let mut lost = Vec::new();
        self.of.retain(only, |account, ledger| {
            if !is_meant(account) {
                return true;
            }
            let mut end = |from: &Arc<str>, resource: Option<&Arc<str>>| {
                let is_lost = is_lost(from);
                if is_lost {
                    let (account, from) = (Arc::clone(account), Arc::clone(from));
                    lost.push(Lost { account, resource: resource.cloned(), from });
                }
                !is_lost
            };
            ledger.told.retain(|from| end(from, None));
            ledger.directed.retain(|(from, resource)| end(from, Some(resource)));
            !ledger.is_empty()
        });
        self.count -= lost.len();
        lost
    }

    /// Those of the accounts that are `meant`, on their way with them; of one slot, where that is told.
    pub(crate) fn export(&self, only: Option<Slot>, is_meant: impl Fn(&str) -> bool) -> Vec<u8> {
        let of: Vec<_> = self.of.of(only).filter(|(account, _)| is_meant(account)).collect();
        let mut out = Writer::default();
        out.count(of.len());
        for (account, ledger) in of {
            out.text(account);
            out.texts(ledger.told.iter().map(|from| &**from));
            out.count(ledger.directed.len());
            for (from, resource) in &ledger.directed {
                out.text(from);
                out.text(resource);
            }
        }
        out.into_bytes()
    }

    /// A slot has come with these. `None`: they are no ledgers, and nothing is taken.
    pub(crate) fn import(&mut self, bytes: &[u8]) -> Option<()> {
        for (account, ledger) in Self::read(bytes)? {
            let before = self.of.get(&account).map_or(0, Ledger::len);
            self.count = self.count - before + ledger.len();
            self.of.insert(account, ledger);
        }
        Some(())
    }

    /// Whether these can be [imported](Self::import).
    pub(crate) fn reads(bytes: &[u8]) -> bool {
        Self::read(bytes).is_some()
    }

    fn read(bytes: &[u8]) -> Option<Vec<(Arc<str>, Ledger)>> {
        let mut input = Reader::new(bytes);
        let mut ledgers = input.list(|input| {
            let account: Arc<str> = input.text()?.into();
            let mut told = input.list(|input| input.text().map(Arc::from))?;
            let mut directed =
                input.list(|input| Some((input.text()?.into(), input.text()?.into())))?;
            told.sort_unstable();
            directed.sort_unstable();
            Some((account, Ledger { told, directed }))
        })?;
        ledgers.retain(|(_, ledger)| !ledger.is_empty());
        input.is_empty().then_some(ledgers)
    }

    /// These accounts, of one slot, where that is told, are not here any more.
    pub(crate) fn drop_those(&mut self, only: Option<Slot>, are_meant: impl Fn(&str) -> bool) {
        let count = &mut self.count;
        self.of.retain(only, |account, ledger| {
            let is_dropped = are_meant(account);
            *count -= if is_dropped { ledger.len() } else { 0 };
            !is_dropped
        });
    }

    /// How many are known, each time by one account.
    pub(crate) const fn len(&self) -> usize {
        self.count
    }

    fn tidy(&mut self, account: &str) {
        if self.of.get(account).is_some_and(Ledger::is_empty) {
            self.of.remove(account);
        }
    }
}

impl Ledger {
    const fn len(&self) -> usize {
        self.told.len() + self.directed.len()
    }

    const fn is_empty(&self) -> bool {
        self.told.is_empty() && self.directed.is_empty()
    }
}

fn place(one: &(Arc<str>, Arc<str>), from: &str, resource: &str) -> std::cmp::Ordering {
    (&*one.0, &*one.1).cmp(&(from, resource))
}
