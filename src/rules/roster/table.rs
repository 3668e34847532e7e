//! The roster of one account in memory, in as few bytes as it takes.

use std::fmt;

use jid::BareJid;

use super::pages::{ItemRef, Packed, Pages};
use super::{Item, Stray};
#[cfg(feature = "server")]
use crate::rules::subscription::{Standing, State};

/// The roster of one account, and the contacts whose requests to subscribe wait for an answer.
///
/// It is shared by all sessions of the account and stays in memory as long as one is connected, so
/// it is compact: beside the text of an item it takes at most 48 bytes for each. Contacts are looked
/// up by the text of their normalised bare JID, without allocation. A clone shares what it holds
/// with the original, and a change copies a few items at most, however many there are.
///
/// The version counts the changes that a client can see, and only those (rules [ROSTER-17](crate::rules#roster-17) and
/// [ROSTER-18](crate::rules#roster-18)): [`put`](Self::put) and [`remove`](Self::remove) move it on if they change anything,
/// requests never do. Clients see it as [`ver`](Self::ver).
#[derive(Clone, Default)]
pub struct Roster {
    items: Pages,
    /// Bare JIDs alone. Empty for nearly everybody, then without heap.
    requests: Pages,
    version: u64,
    /// Sum of the digests of all items: the same for the same items, however they came about.
    digest: u64,
    bytes: usize,
}

impl Roster {
    /// The roster of a new account: empty, at version 0.
    #[must_use]
    pub const fn new() -> Self {
        Self { items: Pages::new(), requests: Pages::new(), version: 0, digest: 0, bytes: 0 }
    }

    /// The roster as a store returned it. The order does not matter; of two items with one JID the
    /// last counts. `requests` are the contacts with a stored request to subscribe.
    #[must_use]
    pub fn from_items(
        items: impl IntoIterator<Item = Item>,
        version: u64,
        requests: impl IntoIterator<Item = BareJid>,
    ) -> Self {
        let mut roster = Self {
            items: Pages::from_items(items),
            requests: Pages::from_items(requests.into_iter().map(Item::new)),
            version,
            digest: 0,
            bytes: 0,
        };
        for entry in roster.items.iter() {
            roster.digest = roster.digest.wrapping_add(entry.digest());
            roster.bytes = roster.bytes.saturating_add(entry.most_bytes());
        }
        roster
    }

    /// The item of a contact, by its normalised bare JID.
    #[must_use]
    pub fn get(&self, jid: &str) -> Option<ItemRef<'_>> {
        self.items.get(self.items.find(jid).ok()?)
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
    pub fn iter(&self) -> impl Iterator<Item = ItemRef<'_>> {
        self.items.iter()
    }

    /// Number of items.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Bytes that the items take in a roster result at most, whatever becomes of their
    /// subscriptions (rule [LIMIT-15](crate::rules#limit-15)).
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is no item (there may still be requests).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether it equals that of a new account.
    pub(crate) fn is_new(&self) -> bool {
        self.items.is_empty() && self.requests.is_empty() && self.version == 0
    }

    /// Adds an item or replaces the one of its JID. `false` if nothing changes, and then the version
    /// stays too (rule [ROSTER-13](crate::rules#roster-13)).
    pub fn put(&mut self, item: &Item) -> bool {
        let mut packed = Packed::new(item);
        let place = self.items.find(item.jid.as_str());
        let old = place.ok().and_then(|place| self.items.get(place));
        if old.is_some_and(|old| old.shows_as(packed.entry())) {
            return false;
        }
        if let Some(old) = old {
            packed.set_hash(old.hash());
        }
        self.count(old.map(|old| (old.digest(), old.most_bytes())), Some(packed.entry()));
        self.version = self.next_version();
        match place {
            Ok(place) => self.items.replace(place, &packed),
            Err(place) => self.items.insert(place, &packed),
        }
        true
    }

    /// Adds an item whose text is not an address (rule [JID-6](crate::rules#jid-6)), as a store returned it: the version
    /// stays. Nothing is looked up by that text, so it has no effect on presence.
    pub fn add_stray(&mut self, stray: &Stray) {
        let Err(place) = self.items.find(&stray.jid) else { return };
        let packed = Packed::stray(stray);
        self.count(None, Some(packed.entry()));
        self.items.insert(place, &packed);
    }

    /// Removes the item of a contact, with its flags; a stored request stays. `false` if there is none.
    pub fn remove(&mut self, jid: &str) -> bool {
        let Ok(place) = self.items.find(jid) else { return false };
        let old = self.items.get(place).map(|old| (old.digest(), old.most_bytes()));
        self.count(old, None);
        self.version = self.next_version();
        self.items.remove(place);
        true
    }

    /// A change: `new` in the place of what had the digest and the bytes of `old`.
    fn count(&mut self, old: Option<(u64, usize)>, new: Option<ItemRef<'_>>) {
        let (digest, bytes) = old.unwrap_or_default();
        self.digest = self.digest.wrapping_sub(digest);
        self.bytes = self.bytes.saturating_sub(bytes);
        if let Some(new) = new {
            self.digest = self.digest.wrapping_add(new.digest());
            self.bytes = self.bytes.saturating_add(new.most_bytes());
        }
    }

    /// The number of the last change: what is stored beside the items.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// The version that the next visible change makes: what to store beside it.
    #[must_use]
    pub const fn next_version(&self) -> u64 {
        self.version.wrapping_add(1)
    }

    /// The version as clients see it (`ver`,
    /// [RFC 6121 §2.6](https://www.rfc-editor.org/rfc/rfc6121#section-2.6)).
    ///
    /// It depends on the items and not only on the number of the change: no other roster has the same
    /// version, even if a store forgets or goes back to an older state, or a later account takes the
    /// name (rule [ROSTER-17](crate::rules#roster-17)).
    #[must_use]
    pub fn ver(&self) -> String {
        format!("{}-{:016x}", self.version, self.digest)
    }

    /// Whether a request of this contact to subscribe is stored.
    #[must_use]
    pub fn has_request(&self, jid: &str) -> bool {
        self.requests.find(jid).is_ok()
    }

    /// Notes that a request of this contact is stored. `false` if one was noted already (rule [SUB-9](crate::rules#sub-9)).
    pub fn add_request(&mut self, jid: &BareJid) -> bool {
        let Err(place) = self.requests.find(jid.as_str()) else { return false };
        self.requests.insert(place, &Packed::new(&Item::new(jid.clone())));
        true
    }

    /// Notes that the request of this contact is gone. `false` if there was none.
    pub fn remove_request(&mut self, jid: &str) -> bool {
        let Ok(place) = self.requests.find(jid) else { return false };
        self.requests.remove(place);
        true
    }

    /// The bare JIDs of all contacts with a stored request, in order.
    #[must_use]
    pub fn requests(&self) -> impl ExactSizeIterator<Item = &str> {
        self.requests.iter().map(|entry| entry.jid())
    }

    /// The contacts that see the account's presence: subscription `from` or `both`.
    pub fn subscribers(&self) -> impl Iterator<Item = ItemRef<'_>> {
        self.iter().filter(|entry| entry.subscription().has_from())
    }

    /// The contacts whose presence the account sees: subscription `to` or `both`.
    pub fn subscriptions(&self) -> impl Iterator<Item = ItemRef<'_>> {
        self.iter().filter(|entry| entry.subscription().has_to())
    }

    /// Whether this bare JID is a subscriber.
    #[must_use]
    pub fn is_subscriber(&self, jid: &str) -> bool {
        self.get(jid).is_some_and(|entry| entry.subscription().has_from())
    }

    /// Where a contact stands in the subscription machine of RFC 6121 Appendix A.
    #[cfg(feature = "server")]
    pub(crate) fn standing(&self, jid: &str) -> Standing {
        let item = self.get(jid);
        let subscription = item.map(|item| item.subscription()).unwrap_or_default();
        let ask = item.is_some_and(|item| item.ask());
        Standing {
            state: State::of(subscription, ask, self.has_request(jid)),
            approved: item.is_some_and(|item| item.approved()),
            listed: item.is_some(),
        }
    }

    /// Keeps with each item the hash of its JID, for look-ups of contacts. Pages shared with `known`
    /// have theirs already.
    pub(crate) fn set_hashes(&mut self, known: &Self, hash: impl Fn(&str) -> u32) {
        self.items.set_hashes(&known.items, hash);
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

#[cfg(test)]
#[cfg(feature = "server")]
mod tests;
