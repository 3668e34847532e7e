//! What happened lately, by name: remembered for as long as there is room, in bounded memory.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
#[cfg(feature = "server")]
use std::time::Duration;

/// A value for each of the names seen last. Names are kept as keyed hashes: sixteen bytes instead
/// of a JID, and nobody can choose two that meet.
pub(crate) struct Recent<T> {
    hasher: RandomState,
    /// When this one is full it becomes the old one, and the old one is forgotten.
    young: HashMap<u64, T>,
    old: HashMap<u64, T>,
    room: usize,
}

impl<T: Copy> Recent<T> {
    /// Remembers the last `room` names, and up to twice as many.
    pub(crate) fn new(room: usize) -> Self {
        Self { hasher: RandomState::new(), young: HashMap::new(), old: HashMap::new(), room }
    }

    pub(crate) fn insert(&mut self, name: &(impl Hash + ?Sized), value: T) {
        let key = self.hasher.hash_one(name);
        if self.young.len() >= self.room && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    #[cfg(feature = "cluster")]
    pub(crate) fn remove(&mut self, name: &(impl Hash + ?Sized)) {
        let key = self.hasher.hash_one(name);
        self.young.remove(&key);
        self.old.remove(&key);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.young.is_empty() && self.old.is_empty()
    }

    pub(crate) fn get(&self, name: &(impl Hash + ?Sized)) -> Option<T> {
        let key = self.hasher.hash_one(name);
        self.young.get(&key).or_else(|| self.old.get(&key)).copied()
    }
}

/// Allowances by name: one thing in each time, and some at once. What a name has not used for long is forgotten,
/// and so are the oldest where there are too many of them.
#[cfg(feature = "server")]
pub(crate) struct Allowances(Recent<Duration>);

#[cfg(feature = "server")]
impl Allowances {
    /// Remembers what the last `room` names have used, and up to twice as many.
    pub(crate) fn new(room: usize) -> Self {
        Self(Recent::new(room))
    }

    /// Takes one, unless all of it is used.
    pub(crate) fn take(
        &mut self,
        name: &(impl Hash + ?Sized),
        each: Duration,
        burst: u32,
        now: Duration,
    ) -> bool {
        let full_at = self.0.get(name).unwrap_or_default().max(now).saturating_add(each);
        let fits = full_at <= now.saturating_add(each.saturating_mul(burst));
        if fits {
            self.0.insert(name, full_at);
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_remembered_and_the_rest_is_forgotten() {
        let mut recent = Recent::new(10);
        for n in 0..100 {
            recent.insert(&n.to_string(), n);
        }
        assert!((90..100).all(|n| recent.get(&n.to_string()) == Some(n)));
        assert!((0..80).all(|n| recent.get(&n.to_string()).is_none()));
        assert!(recent.young.len() <= 10 && recent.old.len() <= 10);
    }

    #[cfg(feature = "server")]
    #[test]
    fn an_allowance_comes_back_bit_by_bit() {
        let (mut allowances, second) = (Allowances::new(10), Duration::from_secs(1));
        let mut take = |name: &str, at: u32| allowances.take(name, second, 2, second * at);
        assert!(take("a", 5) && take("a", 5) && !take("a", 5));
        assert!(take("b", 5));
        assert!(take("a", 6) && !take("a", 6));
        assert!(take("a", 60) && take("a", 60) && !take("a", 60));
    }

    #[test]
    fn the_latest_value_wins() {
        let mut recent = Recent::new(1);
        recent.insert("a", 1);
        recent.insert("b", 2);
        recent.insert("a", 3);
        assert_eq!((recent.get("a"), recent.get("b")), (Some(3), Some(2)));
    }
}
