//! The table of accounts: shards of rows, found by the text of a bare JID, which is hashed once.

use std::hash::{DefaultHasher, Hasher};

use hashbrown::HashTable;

use super::rows::Row;
use crate::connection::SharedConnection;
use crate::environment::Environment;
use crate::rules::roster::{self, Roster};
use crate::sync::RwLock;

/// All accounts that have sessions, each in the shard that its hash names.
pub(super) struct Table<C: SharedConnection> {
    shards: [Shard<C>; SHARDS],
    /// Keyed with secret bytes, so that nobody can choose accounts that collide.
    hasher: DefaultHasher,
}

/// Some of the accounts, under the lock of their life-cycle decisions.
pub(super) type Shard<C> = RwLock<HashTable<Row<C>>>;

pub(super) const SHARDS: usize = 64;

/// The hash of a bare JID's text, as one registry makes it.
///
/// It has 32 bits, for which a row and a roster item have room anyway. Seven are the tag of a row in its shard, six
/// name the shard, and nineteen are left for its place there: enough for thirty million accounts, beyond which
/// look-ups become slower and stay right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hash(u32);

/// A bare JID as the table looks for it: its normalised text, hashed.
#[derive(Clone, Copy)]
pub(crate) struct AccountKey<'a> {
    pub(crate) bare: &'a str,
    pub(crate) hash: Hash,
}

#[cfg(test)]
std::thread_local! {
    /// How often this thread has hashed.
    static HASHED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// How often `work` hashes a bare JID.
#[cfg(test)]
#[cfg(not(any(loom_model, shuttle)))]
pub(crate) fn hashes(work: impl FnOnce()) -> usize {
    let before = HASHED.get();
    work();
    HASHED.get() - before
}

impl<C: SharedConnection> Table<C> {
    pub(super) fn new(environment: &dyn Environment) -> Self {
        let mut key = [0; 16];
        environment.random(&mut key);
        let mut hasher = DefaultHasher::new();
        hasher.write(&key);
        Self { shards: std::array::from_fn(|_| RwLock::new(HashTable::new())), hasher }
    }

    pub(super) fn key<'a>(&self, bare: &'a str) -> AccountKey<'a> {
        AccountKey { bare, hash: self.hash(bare) }
    }

    pub(super) fn hash(&self, bare: &str) -> Hash {
        #[cfg(test)]
        HASHED.with(|hashed| hashed.set(hashed.get() + 1));
        self.digest(bare)
    }

    fn digest(&self, bare: &str) -> Hash {
        let mut hasher = self.hasher.clone();
        hasher.write(bare.as_bytes());
        let [a, b, c, d, ..] = hasher.finish().to_le_bytes();
        Hash(u32::from_le_bytes([a, b, c, d]))
    }

    /// Lets each item of a roster know the hash of its contact. Those that it shares with `known`, a
    /// roster of this registry, do.
    pub(super) fn hash_contacts(&self, roster: &mut Roster, known: &Roster) {
        roster.set_hashes(known, |contact| self.hash(contact).0);
    }

    #[expect(clippy::indexing_slicing, reason = "a remainder of the array's length")]
    pub(super) fn shard(&self, key: AccountKey<'_>) -> &Shard<C> {
        debug_assert_eq!(key.hash, self.digest(key.bare), "a hash of another registry");
        &self.shards[key.hash.shard()]
    }

    pub(super) fn shards(&self) -> &[Shard<C>] {
        &self.shards
    }

    pub(super) fn with<T>(
        &self,
        key: AccountKey<'_>,
        look: impl FnOnce(&Row<C>) -> T,
    ) -> Option<T> {
        self.shard(key).read().find(key.hash.wide(), |row| row.is(key)).map(look)
    }
}

impl Hash {
    #[cfg(all(test, feature = "server"))]
    pub(crate) const fn new(hash: u32) -> Self {
        Self(hash)
    }

    /// As hash tables take it: places from the lowest bits, tags from the highest.
    pub(super) fn wide(self) -> u64 {
        u64::from(self.0) << 32 | u64::from(self.0)
    }

    /// From the bits between those of places and those of tags.
    const fn shard(self) -> usize {
        (self.0 >> 19) as usize % SHARDS
    }
}

impl<'a> From<roster::ItemRef<'a>> for AccountKey<'a> {
    #[inline]
    fn from(contact: roster::ItemRef<'a>) -> Self {
        Self { bare: contact.jid(), hash: Hash(contact.hash()) }
    }
}

#[cfg(test)]
#[cfg(not(any(loom_model, shuttle)))]
mod tests {
    use super::*;
    use crate::connection::Recorder;
    use crate::environment::Virtual;

    /// A tag or a place that all accounts of a shard share would tell none of them apart.
    #[test]
    fn shard_tag_and_place_are_of_different_bits() {
        let changed = |bit: u32| {
            let (none, one) = (Hash(0), Hash(1 << bit));
            let tag = none.wide() >> 57 != one.wide() >> 57;
            let place = none.wide() << 45 != one.wide() << 45;
            (none.shard() != one.shard(), tag, place)
        };
        for bit in 0..32 {
            let right = ((19..25).contains(&bit), (25..32).contains(&bit), (0..19).contains(&bit));
            assert_eq!(changed(bit), right, "bit {bit}");
        }
    }

    #[test]
    fn accounts_spread_over_all_shards() {
        let table = Table::<Recorder>::new(&Virtual::new(1));
        let mut counts = [0; SHARDS];
        for n in 0..64 * SHARDS {
            counts[table.hash(&format!("user{n}@example.com")).shard()] += 1;
        }
        assert!(counts.iter().all(|count| (24..128).contains(count)), "{counts:?}");
    }

    #[test]
    fn each_registry_hashes_in_its_own_way() {
        let hash = |seed| Table::<Recorder>::new(&Virtual::new(seed)).hash("juliet@example.com");
        assert_eq!(hash(1), hash(1));
        assert_ne!(hash(1), hash(2));
    }
}
