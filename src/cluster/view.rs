//! Names of what the protocol speaks of.

use std::fmt;

/// One run of a node: random, and new at each start. A second process of the same name is another node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub(crate) u64);

/// The number of a state of the record. Views of a later term are higher than all of an earlier one.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(clippy::exhaustive_structs, reason = "engines of hosts keep it")]
pub struct View {
    /// Raised whenever the engine has forgotten; counted by the store, so that no term comes twice.
    pub term: u64,
    /// Raised with each change of the record.
    pub number: u64,
}

/// A part of the accounts: those whose bare JIDs have this hash. They live on one node, and move together.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Slot(pub(crate) u16);

/// So many slots there are. Part of the protocol, as the hash is: nodes that differ in it are no cluster.
pub(crate) const SLOTS: u16 = 1024;

impl Incarnation {
    pub(crate) const fn new(number: u64) -> Self {
        Self(number)
    }

    /// By which an engine may tell it from others.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl View {
    /// The view that comes after this one.
    pub(crate) const fn next(self) -> Self {
        Self { term: self.term, number: self.number + 1 }
    }

    /// The first view of a term.
    pub(crate) const fn first_of(term: u64) -> Self {
        Self { term, number: 0 }
    }
}

impl Slot {
    /// The slot of an account, by its bare JID as normalised text: FNV-1a with 32 bits, folded.
    pub(crate) fn of(bare: &str) -> Self {
        Self::among(bare, SLOTS)
    }

    /// The same where there are fewer slots.
    pub(crate) fn among(bare: &str, slots: u16) -> Self {
        let hash = bare
            .bytes()
            .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        let folded = (hash >> 16 ^ hash) as u16;
        Self(folded.checked_rem(slots).unwrap_or_default())
    }

    pub(crate) fn index(self) -> usize {
        self.0.into()
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.number)
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}", self.0)
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn node_8_a_later_term_is_above_every_view_of_an_earlier_one() {
        let old = View { term: 1, number: u64::MAX };
        assert!(View::first_of(2) > old && View::first_of(2) < View::first_of(2).next());
        assert!(View::default() < View::first_of(1));
    }

    /// Accounts must not change their slots with a version of this crate.
    #[test]
    fn node_4_slots_of_accounts_are_fixed_and_even() {
        assert_eq!(Slot::of("juliet@example.com"), Slot(247));
        assert_eq!(Slot::of("romeo@example.com"), Slot(590));
        let mut slots = vec![0; SLOTS.into()];
        (0..64 * 1024).for_each(|n| slots[Slot::of(&format!("user{n}@example.com")).index()] += 1);
        assert!(slots.iter().all(|count| (24..=120).contains(count)), "{slots:?}");
    }
}
