//! Directed presence: whom a session told outside of its broadcasts.

use std::fmt;

use crate::address::bare_of;
use crate::stanza::{Condition, StanzaError};

/// The targets of a session's directed presence, each as the exact `to` of the stanza (rule PRES-10,
/// [RFC 6121 §4.6](https://www.rfc-editor.org/rfc/rfc6121#section-4.6)).
///
/// Addresses are normalised JIDs. Without targets it takes no heap.
#[derive(Clone, Default)]
pub(crate) struct Directed {
    /// Ordered.
    targets: Vec<Box<str>>,
}

impl Directed {
    /// No targets.
    #[must_use]
    pub(crate) const fn new() -> Self {
        Self { targets: Vec::new() }
    }

    /// Records the target of a directed available presence, before the stanza is sent. `true` if it is new.
    ///
    /// # Errors
    ///
    /// [`TooManyTargets`] if it would be one more than `limit` (rule LIMIT-17, by default 1000). The
    /// stanza must not be routed then: nobody would tell the target when the session ends.
    pub(crate) fn record(&mut self, target: &str, limit: usize) -> Result<bool, TooManyTargets> {
        let Err(at) = self.position(target) else { return Ok(false) };
        if self.targets.len() >= limit {
            return Err(TooManyTargets);
        }
        self.targets.insert(at, target.into());
        Ok(true)
    }

    /// Forgets a target: on directed unavailable to it, on unavailable or a presence error from
    /// exactly that JID (rule PRES-11). `false` if it is none.
    pub(crate) fn forget(&mut self, target: &str) -> bool {
        let Ok(at) = self.position(target) else { return false };
        self.targets.remove(at);
        self.shrink();
        true
    }

    /// Takes out a bare JID and all full JIDs of it, as a subscription that is cancelled demands
    /// (rule SUB-16).
    #[must_use = "the targets that were taken out may have to be told"]
    pub(crate) fn take_account(&mut self, bare: &str) -> Self {
        let targets = std::mem::take(&mut self.targets);
        let (taken, kept) = targets.into_iter().partition(|target| bare_of(target) == bare);
        self.targets = kept;
        self.shrink();
        Self { targets: taken }
    }

    /// Whether a bare JID or a full JID of it is a target (rules IQ-2 and PRES-17).
    #[must_use]
    pub(crate) fn reaches(&self, bare: &str) -> bool {
        // Up to a thousand short comparisons, each over at the first difference.
        self.targets.iter().any(|target| bare_of(target) == bare)
    }

    /// All targets, ordered.
    #[must_use]
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        self.targets.iter().map(|target| &**target)
    }

    /// Whether there is no target.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }

    fn position(&self, target: &str) -> Result<usize, usize> {
        self.targets.binary_search_by(|other| (**other).cmp(target))
    }

    fn shrink(&mut self) {
        if self.targets.len() < self.targets.capacity() / 4 || self.targets.is_empty() {
            self.targets.shrink_to_fit();
        }
    }
}

impl fmt::Debug for Directed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Directed({} targets)", self.targets.len())
    }
}

/// The session has directed presence to as many targets as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many targets of directed presence")]
#[non_exhaustive]
pub struct TooManyTargets;

impl TooManyTargets {
    /// The stanza error that the client gets.
    #[must_use]
    pub const fn condition(self) -> Condition {
        Condition::ResourceConstraint
    }
}

impl From<TooManyTargets> for StanzaError {
    fn from(error: TooManyTargets) -> Self {
        Self::new(error.condition())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn directed(targets: &[&str]) -> Directed {
        let mut directed = Directed::new();
        for target in targets {
            directed.record(target, 1000).unwrap();
        }
        directed
    }

    #[test]
    fn pres_10_the_exact_address_is_recorded_once() {
        let mut set = directed(&["room@muc.example.org/juliet", "romeo@example.net"]);
        assert_eq!(set.record("romeo@example.net", 1000), Ok(false));
        assert_eq!(set.record("romeo@example.net/orchard", 1000), Ok(true));
        let targets: Vec<&str> = set.iter().collect();
        assert_eq!(
            targets,
            ["romeo@example.net", "romeo@example.net/orchard", "room@muc.example.org/juliet"]
        );
    }

    #[test]
    fn pres_11_only_exactly_that_address_is_forgotten() {
        let mut set = directed(&["romeo@example.net", "romeo@example.net/orchard"]);
        assert!(!set.forget("romeo@example.net/garden"));
        assert!(set.forget("romeo@example.net"));
        assert!(!set.forget("romeo@example.net"));
        assert_eq!(set.iter().collect::<Vec<_>>(), ["romeo@example.net/orchard"]);
    }

    #[test]
    fn sub_16_a_cancelled_subscriber_is_forgotten_with_its_resources() {
        let mut set = directed(&["a@x.example", "a@x.example/1", "a@x.example.org", "b@x.example"]);
        let taken = set.take_account("a@x.example");
        assert_eq!(taken.iter().collect::<Vec<_>>(), ["a@x.example", "a@x.example/1"]);
        assert!(set.take_account("a@x.example").is_empty());
        assert_eq!(set.iter().collect::<Vec<_>>(), ["a@x.example.org", "b@x.example"]);
    }

    #[test]
    fn limit_17_one_more_than_the_limit_is_refused() {
        let mut set = Directed::new();
        for n in 0..1000 {
            assert_eq!(set.record(&format!("contact-{n}@example.org"), 1000), Ok(true));
        }
        assert_eq!(set.record("more@example.org", 1000), Err(TooManyTargets));
        assert_eq!(set.record("contact-7@example.org", 1000), Ok(false));
        assert!(set.forget("contact-7@example.org"));
        assert_eq!(set.record("more@example.org", 1000), Ok(true));
        assert_eq!(TooManyTargets.condition(), Condition::ResourceConstraint);
    }

    #[test]
    fn an_empty_set_takes_no_heap() {
        let mut set = directed(&["a@x.example", "b@x.example"]);
        set.forget("a@x.example");
        set.forget("b@x.example");
        assert_eq!(set.targets.capacity(), 0);
    }

    #[test]
    fn sec_6_debug_of_directed_presence_names_nobody() {
        assert_eq!(format!("{:?}", directed(&["a@x.example"])), "Directed(1 targets)");
    }

    const JIDS: [&str; 9] = ["a", "a/1", "a/é", "a.b", "a-b/1", "a@b", "a@b/1", "ab/1", "0"];

    proptest! {
        #[test]
        fn iq_2_reach_is_judged_by_the_bare_jid(picks in vec(prop::sample::select(JIDS.to_vec()), 0..6)) {
            let set = directed(&picks);
            let bares: BTreeSet<&str> = picks.iter().copied().map(bare_of).collect();
            for jid in JIDS {
                let bare = bare_of(jid);
                prop_assert_eq!(set.reaches(bare), bares.contains(bare), "{} in {:?}", bare, picks);
            }
        }
    }
}
