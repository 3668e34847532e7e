//! How large a roster may grow, and how many requests may wait beside it.

use super::pages::Packed;
use super::set::RosterError;
use super::{Item, Roster};

/// How large a roster may grow (rule [LIMIT-15](crate::rules#limit-15)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RosterLimits {
    /// Items of one roster.
    pub items: usize,
    /// Bytes of a name.
    pub name: usize,
    /// Bytes of a group's name.
    pub group: usize,
    /// Groups of one item.
    pub groups: usize,
    /// Bytes of one item in a roster result.
    pub item_bytes: usize,
    /// Bytes of all items in a roster result: how large one can be.
    pub bytes: usize,
}

impl Default for RosterLimits {
    /// 2000 items, 512 KiB of them; items of 8 KiB; names of 1023 bytes; 64 groups of 1023 bytes.
    fn default() -> Self {
        Self {
            items: 2000,
            name: 1023,
            group: 1023,
            groups: 64,
            item_bytes: 8 << 10,
            bytes: 512 << 10,
        }
    }
}

impl RosterLimits {
    /// Whether `item` may be added to the roster, or take the place of the contact's former item.
    ///
    /// What is larger already, from the time of other limits, may stay so or become smaller. Every
    /// state of a subscription counts as the longest, so no change of it is refused.
    pub(crate) fn allow(&self, roster: &Roster, item: &Item) -> Result<(), RosterError> {
        let former = roster.get(item.jid.as_str()).map(|item| item.most_bytes());
        let (old, new) = (former.unwrap_or(0), Packed::new(item).entry().most_bytes());
        if new <= old {
            return Ok(());
        }
        if new > self.item_bytes {
            return Err(RosterError::ItemTooLarge);
        }
        if former.is_none() && roster.len() >= self.items {
            return Err(RosterError::TooManyItems);
        }
        if roster.bytes().saturating_sub(old).saturating_add(new) > self.bytes {
            return Err(RosterError::TooLarge);
        }
        Ok(())
    }
}

/// How many requests to subscribe wait for an account, and how large they are (rule [LIMIT-16](crate::rules#limit-16)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequestLimits {
    /// Stored requests per account.
    pub count: usize,
    /// Bytes of one stanza.
    pub bytes: usize,
}

impl Default for RequestLimits {
    /// 500 requests of 8 KiB.
    fn default() -> Self {
        Self { count: 500, bytes: 8 * 1024 }
    }
}

impl RequestLimits {
    /// Whether a request of `bytes` may be stored beside `stored` others. One that may not is dropped
    /// in silence: an error would tell the sender about the account, and count as one more message.
    #[must_use]
    pub(crate) const fn admit(&self, stored: usize, bytes: usize) -> bool {
        stored < self.count && bytes <= self.bytes
    }
}
