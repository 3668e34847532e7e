//! The machine's own curve: one look-up in a plain table, with the same footprint as the sessions.

use std::hash::{BuildHasher, RandomState};
use std::hint::black_box;
use std::sync::Arc;

use hashbrown::HashTable;

use crate::world::{Dice, best, each, name};

struct Entry {
    key: Box<str>,
    block: Arc<[u8]>,
}

/// Nanoseconds of a look-up among `entries` by name, and of touching a few lines of what it finds.
pub(crate) fn look_up(entries: usize, bytes: f64) -> f64 {
    let hasher = RandomState::new();
    let hash = |key: &str| hasher.hash_one(key);
    // What the table, the key and the allocator take is about a hundred bytes.
    let size = (bytes as usize).saturating_sub(100).max(64);
    let mut table = HashTable::new();
    for n in 0..entries {
        let key = name(n).into_boxed_str();
        let block = vec![1; size].into();
        table.insert_unique(hash(&key), Entry { key, block }, |entry: &Entry| hash(&entry.key));
    }
    let mut dice = Dice::new(3);
    best(5, || {
        let keys: Vec<String> = (0..100_000).map(|_| name(dice.below(entries))).collect();
        each(keys.len(), || {
            for key in &keys {
                let found = table.find(hash(key), |entry| *entry.key == **key);
                let found = Arc::clone(&found.expect("all are there").block);
                // The head, and one line in each quarter, as a session has several parts.
                black_box(found.iter().step_by(size / 4).map(|byte| u32::from(*byte)).sum::<u32>());
            }
        })
    })
}
