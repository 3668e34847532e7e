//! The roster of one account in memory, in as few bytes as it takes.

use std::fmt;

use jid::BareJid;

use super::{Item, Stray, Subscription};
use crate::rules::subscription::{Standing, State};

/// The roster of one account, and the contacts whose requests to subscribe wait for an answer.
///
/// It is shared by all sessions of the account and stays in memory as long as one is connected, so
/// it is compact: beside the text of an item it takes at most 48 bytes for each. Contacts are looked
/// up by the text of their normalised bare JID, without allocation.
///
/// The version counts the changes that a client can see, and only those (rules ROSTER-17 and
/// ROSTER-18): [`put`](Self::put) and [`remove`](Self::remove) move it on if they change anything,
/// requests never do.
#[derive(Clone, Default)]
pub struct Roster {
    /// Ordered by JID.
    items: Vec<Packed>,
    /// Ordered; bare JIDs. Empty for nearly everybody, then without heap.
    requests: Vec<Box<str>>,
    version: u64,
}

/// The JID, the name and each group, with a U+0000 between them: no XML document can hold that
/// character, so names and groups need no length fields.
#[derive(Clone, PartialEq, Eq)]
struct Packed {
    text: Box<str>,
    /// At most 3071 (RFC 7622 §3.1).
    jid_len: u16,
    subscription: Subscription,
    flags: u8,
    /// Of the JID: whoever keeps the roster says how it is made.
    hash: u32,
}

const ASK: u8 = 1;
const APPROVED: u8 = 2;
const SEPARATOR: char = '\0';

impl Roster {
    /// The roster of a new account: empty, at version 0.
    #[must_use]
    pub const fn new() -> Self {
        Self { items: Vec::new(), requests: Vec::new(), version: 0 }
    }

    /// The roster as a store returned it. The order does not matter; of two items with one JID the
    /// last counts. `requests` are the contacts with a stored request to subscribe.
    #[must_use]
    pub fn from_items(
        items: impl IntoIterator<Item = Item>,
        version: u64,
        requests: impl IntoIterator<Item = BareJid>,
    ) -> Self {
        let mut packed: Vec<Packed> = items.into_iter().map(|item| Packed::new(&item)).collect();
        // The sort is stable, so after the reversal the last of each JID comes first and stays.
        packed.reverse();
        packed.sort_by(|a, b| a.jid().cmp(b.jid()));
        packed.dedup_by(|later, earlier| later.jid() == earlier.jid());
        packed.shrink_to_fit();
        let mut requests: Vec<Box<str>> =
            requests.into_iter().map(|jid| jid.as_str().into()).collect();
        requests.sort_unstable();
        requests.dedup();
        requests.shrink_to_fit();
        Self { items: packed, requests, version }
    }

    /// The item of a contact, by its normalised bare JID.
    #[must_use]
    pub fn get(&self, jid: &str) -> Option<Entry<'_>> {
        self.items.get(self.position(jid).ok()?).map(|item| Entry { item })
    }

    /// The item of a contact as a store keeps it.
    #[must_use]
    pub fn item(&self, jid: &BareJid) -> Option<Item> {
        let entry = self.get(jid.as_str())?;
        Some(Item {
            jid: jid.clone(),
            name: entry.name().map(str::to_owned),
            groups: entry.groups().map(str::to_owned).collect(),
            subscription: entry.subscription(),
            ask: entry.ask(),
            approved: entry.approved(),
        })
    }

    /// All items, ordered by JID.
    pub fn iter(&self) -> impl Iterator<Item = Entry<'_>> {
        self.items.iter().map(|item| Entry { item })
    }

    /// Number of items.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is no item (requests may wait nevertheless).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether it is as that of a new account.
    pub(crate) const fn is_new(&self) -> bool {
        self.items.is_empty() && self.requests.is_empty() && self.version == 0
    }

    /// Adds an item or replaces the one of its JID. `false` if that is how it was already, and then
    /// the version stays too (rule ROSTER-13).
    pub fn put(&mut self, item: &Item) -> bool {
        let mut packed = Packed::new(item);
        match self.position(packed.jid()) {
            Ok(at) => {
                let Some(old) = self.items.get_mut(at) else { return false };
                packed.hash = old.hash;
                if *old == packed {
                    return false;
                }
                *old = packed;
            }
            Err(at) => {
                grow_tightly(&mut self.items);
                self.items.insert(at, packed);
            }
        }
        self.version = self.next_version();
        true
    }

    /// Adds an item whose text is no address (rule JID-6), as a store returned it: the version stays.
    /// Nobody is looked up by that text, so nobody sees or is shown anything by it.
    pub fn add_stray(&mut self, stray: &Stray) {
        if let Err(at) = self.position(&stray.jid) {
            grow_tightly(&mut self.items);
            let packed = Packed::of(&stray.jid, stray.name.as_deref(), &stray.groups);
            self.items.insert(at, packed);
        }
    }

    /// Removes the item of a contact, with its flags; a stored request stays. `false` if there is none.
    pub fn remove(&mut self, jid: &str) -> bool {
        let Ok(at) = self.position(jid) else { return false };
        self.items.remove(at);
        shrink(&mut self.items);
        self.version = self.next_version();
        true
    }

    /// The version of the roster as it is now; clients see it as a decimal number.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// The version that the next visible change makes: what to store beside it.
    #[must_use]
    pub const fn next_version(&self) -> u64 {
        self.version.wrapping_add(1)
    }

    /// Whether a request of this contact to subscribe is stored.
    #[must_use]
    pub fn has_request(&self, jid: &str) -> bool {
        self.request_position(jid).is_ok()
    }

    /// Notes that a request of this contact is stored. `false` if one was noted already (rule SUB-9).
    pub fn add_request(&mut self, jid: &BareJid) -> bool {
        let Err(at) = self.request_position(jid.as_str()) else { return false };
        grow_tightly(&mut self.requests);
        self.requests.insert(at, jid.as_str().into());
        true
    }

    /// Notes that the request of this contact is gone. `false` if there was none.
    pub fn remove_request(&mut self, jid: &str) -> bool {
        let Ok(at) = self.request_position(jid) else { return false };
        self.requests.remove(at);
        shrink(&mut self.requests);
        true
    }

    /// The bare JIDs of all contacts with a stored request, in order.
    #[must_use]
    pub fn requests(&self) -> impl ExactSizeIterator<Item = &str> {
        self.requests.iter().map(|jid| &**jid)
    }

    /// The contacts that see the account's presence: subscription `from` or `both`.
    pub fn subscribers(&self) -> impl Iterator<Item = Entry<'_>> {
        self.iter().filter(|entry| entry.subscription().has_from())
    }

    /// The contacts whose presence the account sees: subscription `to` or `both`.
    pub fn subscriptions(&self) -> impl Iterator<Item = Entry<'_>> {
        self.iter().filter(|entry| entry.subscription().has_to())
    }

    /// Whether this bare JID is a subscriber.
    #[must_use]
    pub fn is_subscriber(&self, jid: &str) -> bool {
        self.get(jid).is_some_and(|entry| entry.subscription().has_from())
    }

    /// Where a contact stands in the subscription machine of RFC 6121 Appendix A.
    #[must_use]
    pub fn standing(&self, jid: &str) -> Standing {
        let request = self.has_request(jid);
        self.get(jid).map_or_else(
            || Standing::new(State::of(Subscription::None, false, request), false, false),
            |entry| {
                Standing::new(
                    State::of(entry.subscription(), entry.ask(), request),
                    entry.approved(),
                    true,
                )
            },
        )
    }

    /// Keeps with each item what `hash` makes of its JID, for those who look contacts up.
    pub(crate) fn set_hashes(&mut self, hash: impl Fn(&str) -> u32) {
        for item in &mut self.items {
            item.hash = hash(item.jid());
        }
    }

    fn position(&self, jid: &str) -> Result<usize, usize> {
        self.items.binary_search_by(|item| item.jid().cmp(jid))
    }

    fn request_position(&self, jid: &str) -> Result<usize, usize> {
        self.requests.binary_search_by(|request| (**request).cmp(jid))
    }
}

impl fmt::Debug for Roster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roster")
            .field("items", &self.items.len())
            .field("requests", &self.requests.len())
            .field("version", &self.version)
            .finish()
    }
}

/// One item of a [`Roster`], seen in place.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    item: &'a Packed,
}

impl<'a> Entry<'a> {
    /// The contact's normalised bare JID.
    #[must_use]
    #[inline]
    pub fn jid(&self) -> &'a str {
        self.item.jid()
    }

    /// The hash of the JID that was kept last; 0 where none was.
    pub(crate) const fn hash(&self) -> u32 {
        self.item.hash
    }

    /// The name the user gave it.
    #[must_use]
    pub fn name(&self) -> Option<&'a str> {
        self.item.text.split(SEPARATOR).nth(1).filter(|name| !name.is_empty())
    }

    /// Its groups, in the order in which they were set.
    pub fn groups(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.item.text.split(SEPARATOR).skip(2)
    }

    /// The subscription.
    #[must_use]
    pub const fn subscription(&self) -> Subscription {
        self.item.subscription
    }

    /// Pending Out: the user asked and has no answer yet.
    #[must_use]
    pub const fn ask(&self) -> bool {
        self.item.flags & ASK != 0
    }

    /// Pre-approved.
    #[must_use]
    pub const fn approved(&self) -> bool {
        self.item.flags & APPROVED != 0
    }
}

impl fmt::Debug for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("subscription", &self.subscription())
            .field("ask", &self.ask())
            .field("approved", &self.approved())
            .finish_non_exhaustive()
    }
}

impl Packed {
    fn new(item: &Item) -> Self {
        let flags = if item.ask { ASK } else { 0 } | if item.approved { APPROVED } else { 0 };
        let packed = Self::of(item.jid.as_str(), item.name.as_deref(), &item.groups);
        Self { subscription: item.subscription, flags, ..packed }
    }

    fn of(jid: &str, name: Option<&str>, groups: &[String]) -> Self {
        let name = name.unwrap_or_default();
        let mut text = String::with_capacity(
            jid.len() + 1 + name.len() + groups.iter().map(|group| group.len() + 1).sum::<usize>(),
        );
        text.push_str(jid);
        for part in std::iter::once(name).chain(groups.iter().map(String::as_str)) {
            text.push(SEPARATOR);
            text.extend(part.chars().filter(|&c| c != SEPARATOR));
        }
        Self {
            text: text.into_boxed_str(),
            jid_len: u16::try_from(jid.len()).unwrap_or(u16::MAX),
            subscription: Subscription::None,
            flags: 0,
            hash: 0,
        }
    }

    #[inline]
    fn jid(&self) -> &str {
        self.text.get(..usize::from(self.jid_len)).unwrap_or_default()
    }
}

/// Makes room for one more with an eighth of slack at most: rosters are many and change rarely.
fn grow_tightly<T>(list: &mut Vec<T>) {
    if list.len() == list.capacity() {
        list.reserve_exact(1 + list.len() / 8);
    }
}

fn shrink<T>(list: &mut Vec<T>) {
    if list.capacity() > list.len() + list.len() / 4 {
        list.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests;
