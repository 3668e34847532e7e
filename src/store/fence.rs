//! The fence of stores that several nodes share: whoever had a slot before writes no more (NODE-3).

use std::collections::HashMap;

use super::StoreError;

/// The view in which a slot came to its owner. A later owner has a higher one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[expect(clippy::exhaustive_structs, reason = "stores of hosts keep it")]
pub struct FenceToken {
    /// The term of that view.
    pub term: u64,
    /// Its number in the term.
    pub number: u64,
}

/// In whose name an operation is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores of hosts keep it")]
pub struct Fence {
    /// That of the account.
    pub slot: u16,
    /// That of its owner.
    pub token: FenceToken,
}

/// Somebody else has the slot: the store has heard of a higher token. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("slot {slot} has another owner")]
#[expect(clippy::exhaustive_structs, reason = "stores of hosts make it")]
pub struct Deposed {
    /// Which.
    pub slot: u16,
    /// The highest token that the store knows for it.
    pub by: FenceToken,
}

impl From<Deposed> for StoreError {
    fn from(deposed: Deposed) -> Self {
        Self::failed(deposed)
    }
}

/// The highest token of each slot that a store has heard of, and the last term that it has counted.
#[derive(Debug, Default)]
pub(crate) struct Fences {
    highest: HashMap<u16, FenceToken>,
    term: u64,
}

impl Fences {
    /// Lets an operation pass, and from then on none with a lower token. In the transaction of that operation.
    ///
    /// # Errors
    ///
    /// [`Deposed`]: the operation is not to be done.
    pub(crate) fn pass(&mut self, fence: Fence) -> Result<(), Deposed> {
        let highest = self.highest.entry(fence.slot).or_default();
        if fence.token < *highest {
            return Err(Deposed { slot: fence.slot, by: *highest });
        }
        *highest = fence.token;
        Ok(())
    }

    /// A term that nobody has had before.
    pub(crate) const fn next_term(&mut self) -> u64 {
        self.term += 1;
        self.term
    }
}
