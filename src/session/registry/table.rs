//! The table of accounts: shards of rows, found by the text of a bare JID, which is hashed once.

use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

use hashbrown::HashTable;
use smallvec::SmallVec;

use super::lately::{Found, Lately};
use super::rows::Row;
use crate::connection::SharedConnection;
use crate::environment::Environment;
use crate::rules::roster::{self, Roster};
use crate::session::account::Account;
use crate::session::handle::Shared;
use crate::sync::atomic::{AtomicU32, Ordering};
use crate::sync::common::RwLock;
use crate::sync::{Padded, RwLockReadGuard, RwLockWriteGuard, for_each_core};

/// All accounts that have sessions, each in the shard that its hash names.
pub(super) struct Table<C: SharedConnection> {
    /// As many as keep the cores apart.
    shards: Box<[Padded<Shard<C>>]>,
    lately: Lately<C>,
    /// Keyed with secret bytes, so that nobody can choose accounts that collide.
    hasher: DefaultHasher,
}

/// Some of the accounts, under the lock of their life-cycle decisions.
pub(super) struct Shard<C: SharedConnection> {
    rows: RwLock<HashTable<Row<C>>>,
    /// Changes before they do.
    state: Padded<AtomicU32>,
}

/// Least and most: of the bits of a hash six name the shard, and up to ten.
const SHARDS: (usize, usize) = (64, 1024);

/// The hash of a bare JID's text, as one registry makes it.
///
/// It has 32 bits, for which a row and a roster item have room anyway. Seven are the tag of a row in its shard, six or
/// more name the shard, and the others are left for its place there: enough for thirty million accounts, beyond which
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
        let shards = for_each_core(16, SHARDS.0, SHARDS.1);
        let shards = (0..shards).map(|_| Padded::new(Shard::new())).collect();
        Self { shards, lately: Lately::new(), hasher }
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

    #[expect(
        clippy::indexing_slicing,
        reason = "a remainder of the slice's length, which is not 0"
    )]
    fn shard(&self, key: AccountKey<'_>) -> &Shard<C> {
        debug_assert_eq!(key.hash, self.digest(key.bare), "a hash of another registry");
        &self.shards[key.hash.shard(self.shards.len())]
    }

    pub(super) fn shards(&self) -> impl Iterator<Item = &Shard<C>> {
        self.shards.iter().map(|shard| &**shard)
    }

    /// The shard of an account, to be changed.
    pub(super) fn write(&self, key: AccountKey<'_>) -> RwLockWriteGuard<'_, HashTable<Row<C>>> {
        self.shard(key).write()
    }

    #[inline(always)]
    pub(super) fn with<T>(
        &self,
        key: AccountKey<'_>,
        look: impl FnOnce(&Row<C>) -> T,
    ) -> Option<T> {
        self.shard(key).read().find(key.hash.wide(), |row| row.is(key)).map(look)
    }

    /// An account that has sessions, as it is wanted on the way of a stanza.
    pub(super) fn account(&self, key: AccountKey<'_>) -> Option<Arc<Account>> {
        let shard = self.shard(key);
        let known = self.lately.account(key, shard.state());
        known.or_else(|| self.find(shard, key, |row| Arc::clone(&row.account)))
    }

    /// Its sessions that can be found, likewise, as what they are wanted for. (The lock is held: no code of
    /// hosts.)
    pub(super) fn sessions<T>(
        &self,
        key: AccountKey<'_>,
        make: impl Fn(Arc<Shared<C>>) -> T,
    ) -> SmallVec<[T; 4]> {
        let shard = self.shard(key);
        let mut all = SmallVec::new();
        if !self.lately.sessions(key, shard.state(), |session| all.push(make(session))) {
            all.clear();
            let _none = self.find(shard, key, |row| {
                all.extend(row.visible().map(|slot| make(Arc::clone(&slot.session))));
            });
        }
        all
    }

    /// Looks into the shard, for what this thread has not found lately.
    fn find<T>(
        &self,
        shard: &Shard<C>,
        key: AccountKey<'_>,
        look: impl FnOnce(&Row<C>) -> T,
    ) -> Option<T> {
        let rows = shard.read();
        let row = rows.find(key.hash.wide(), |row| row.is(key))?;
        let found = Found::of(row, key, shard.state());
        let known = look(row);
        drop(rows);
        self.lately.put(found);
        Some(known)
    }
}

impl<C: SharedConnection> Shard<C> {
    fn new() -> Self {
        Self { rows: RwLock::new(HashTable::new()), state: Padded::default() }
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, HashTable<Row<C>>> {
        self.rows.read()
    }

    #[inline]
    fn state(&self) -> u32 {
        self.state.load(Ordering::SeqCst)
    }

    /// To be changed: what was found before is to be looked for again.
    pub(super) fn write(&self) -> RwLockWriteGuard<'_, HashTable<Row<C>>> {
        let rows = self.rows.write();
        self.state.fetch_add(1, Ordering::SeqCst);
        rows
    }
}

/// The lowest bit of a tag.
const TAG: u32 = 25;

impl Hash {
    #[cfg(all(test, feature = "server"))]
    pub(crate) const fn new(hash: u32) -> Self {
        Self(hash)
    }

    pub(super) const fn bits(self) -> u32 {
        self.0
    }

    /// As hash tables take it: places from the lowest bits, tags from the highest.
    pub(super) fn wide(self) -> u64 {
        u64::from(self.0) << 32 | u64::from(self.0)
    }

    /// From the bits between those of places and those of tags.
    const fn shard(self, shards: usize) -> usize {
        (self.0 >> (TAG - shards.trailing_zeros())) as usize & (shards - 1)
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
        for (shards, first) in [(64, 19), (512, 16), (1024, 15)] {
            let changed = |bit: u32| {
                let (none, one) = (Hash(0), Hash(1 << bit));
                let tag = none.wide() >> 57 != one.wide() >> 57;
                let place = none.wide() << (64 - first) != one.wide() << (64 - first);
                (none.shard(shards) != one.shard(shards), tag, place)
            };
            for bit in 0..32 {
                let shard = (first..25).contains(&bit);
                let right = (shard, (25..32).contains(&bit), (0..first).contains(&bit));
                assert_eq!(changed(bit), right, "bit {bit} of {shards}");
            }
        }
    }

    #[test]
    fn accounts_spread_over_all_shards() {
        let table = Table::<Recorder>::new(&Virtual::new(1));
        let mut counts = vec![0; table.shards.len()];
        for n in 0..64 * counts.len() {
            let hash = table.hash(&format!("user{n}@example.com"));
            counts[hash.shard(table.shards.len())] += 1;
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
