//! A hash table of keys, in an order that permits incremental scans.
//!
//! Entries lie densely in a vector, and a table of indices finds them. Removing an entry moves the
//! last one into its place. A scan goes from the end to the start, and its cursor is the number of
//! entries not yet visited: an entry that exists all the time is visited, because removals move
//! entries only towards the start, and additions happen at the end.

use super::chunked::Chunked;
use super::value::Blob;
use crate::memory;
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::OnceLock;

/// A key and its value.
#[derive(Debug)]
pub struct Entry<V> {
    /// The key.
    pub key: Blob,
    /// Its value.
    pub value: V,
}

/// The table.
#[derive(Debug)]
pub struct Dict<V> {
    table: HashTable<u32>,
    entries: Chunked<Entry<V>>,
}

/// Most entries a table can have.
const MAX_ENTRIES: usize = u32::MAX as usize;

/// The hash of a key. Its seed is drawn at random once, so that a client cannot choose keys that
/// collide.
fn hash(key: &[u8]) -> u64 {
    static STATE: OnceLock<FixedState> = OnceLock::new();
    let mut hasher = STATE
        .get_or_init(|| FixedState::with_seed(RandomState::new().hash_one("kv")))
        .build_hasher();
    hasher.write(key);
    hasher.finish()
}

impl<V> Dict<V> {
    /// Empty, without memory.
    #[must_use]
    pub const fn new() -> Self {
        Self { table: HashTable::new(), entries: Chunked::new() }
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The index of `key`.
    #[must_use]
    pub fn find(&self, key: &[u8]) -> Option<usize> {
        let entries = &self.entries;
        self.table
            .find(hash(key), |&index| *entries.at(index as usize).key == *key)
            .map(|&index| index as usize)
    }

    /// Whether `key` exists.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        self.find(key).is_some()
    }

    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&V> {
        self.find(key).map(|index| &self.at(index).value)
    }

    /// Entry `index`.
    #[must_use]
    pub fn at(&self, index: usize) -> &Entry<V> {
        self.entries.at(index)
    }

    /// The value of entry `index`, to change.
    pub fn value_mut(&mut self, index: usize) -> &mut V {
        &mut self.entries.at_mut(index).value
    }

    /// Adds `key`, which must not exist. Returns its index.
    ///
    /// # Panics
    /// If there are 2^32 entries.
    pub fn insert_new(&mut self, key: &[u8], value: V) -> usize {
        debug_assert!(!self.contains(key));
        assert!(self.len() < MAX_ENTRIES, "a table can have no more than {MAX_ENTRIES} entries");
        let index = self.entries.push(Entry { key: Blob::from_slice(key), value });
        let (entries, capacity) = (&self.entries, self.table.capacity());
        self.table.insert_unique(hash(key), index as u32, |&i| hash(&entries.at(i as usize).key));
        if self.table.capacity() != capacity {
            memory::note_table(self.table.allocation_size());
        }
        index
    }

    /// Sets the value of `key`. Returns the old one, if there was one.
    pub fn insert(&mut self, key: &[u8], value: V) -> Option<V> {
        match self.find(key) {
            Some(index) => Some(std::mem::replace(self.value_mut(index), value)),
            None => {
                self.insert_new(key, value);
                None
            }
        }
    }

    /// Removes `key`.
    pub fn remove(&mut self, key: &[u8]) -> Option<V> {
        self.find(key).map(|index| self.remove_at(index).value)
    }

    /// Removes entry `index`. The last entry, if it is another one, has this index afterwards.
    ///
    /// # Panics
    /// If it does not exist.
    pub fn remove_at(&mut self, index: usize) -> Entry<V> {
        self.forget(index);
        let last = self.len() - 1;
        if index != last {
            let key = hash(&self.entries.at(last).key);
            *self
                .table
                .find_mut(key, |&i| i as usize == last)
                .expect("every entry is in the table") = index as u32;
        }
        let entry = self.entries.swap_remove(index);
        self.shrink();
        entry
    }

    /// Removes entry `index` from the table of indices.
    fn forget(&mut self, index: usize) {
        let key = hash(&self.entries.at(index).key);
        if let Ok(place) = self.table.find_entry(key, |&i| i as usize == index) {
            place.remove();
        }
    }

    /// Frees memory when most of it is unused.
    fn shrink(&mut self) {
        if self.table.capacity() > 64 && self.table.capacity() / 8 > self.len() {
            let entries = &self.entries;
            self.table.shrink_to(self.entries.len() * 2, |&i| hash(&entries.at(i as usize).key));
        }
    }

    /// All entries.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Entry<V>> {
        self.entries.iter()
    }

    /// The index of a random entry.
    #[must_use]
    pub fn random(&self) -> Option<usize> {
        (!self.is_empty()).then(|| fastrand::usize(..self.len()))
    }

    /// Visits about `count` entries and returns the cursor for the next call; 0 begins a scan, and
    /// ends it.
    pub fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(&Entry<V>)) -> u64 {
        let here = match usize::try_from(cursor) {
            Ok(1..) if cursor <= self.len() as u64 => cursor as usize,
            _ => self.len(),
        };
        let next = here.saturating_sub(count);
        (next..here).rev().for_each(|index| visit(self.at(index)));
        next as u64
    }
}

impl<V> Default for Dict<V> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, HashSet};

    fn key(n: u32) -> Vec<u8> {
        format!("key number {n}").into_bytes()
    }

    #[test]
    fn behaves_as_a_map_does() {
        let (mut dict, mut map) = (Dict::new(), BTreeMap::new());
        let mut random = fastrand::Rng::with_seed(1);
        for step in 0..60_000u32 {
            let key = key(random.u32(..if step < 40_000 { 5000 } else { 50 }));
            if random.u32(..10) < 6 {
                assert_eq!(dict.insert(&key, step), map.insert(key, step));
            } else {
                assert_eq!(dict.remove(&key), map.remove(&key));
            }
        }
        assert_eq!(dict.len(), map.len());
        assert!(map.iter().all(|(key, value)| dict.get(key) == Some(value)));
        let mut entries: Vec<_> = dict.iter().map(|e| (e.key.to_vec(), e.value)).collect();
        entries.sort();
        assert!(entries.into_iter().eq(map));
    }

    #[test]
    fn a_scan_visits_all_entries_that_stay() {
        let mut random = fastrand::Rng::with_seed(2);
        for _ in 0..200 {
            let mut dict = Dict::new();
            let staying = random.u32(0..300);
            (0..staying + 200).for_each(|n| _ = dict.insert_new(&key(n), ()));
            let (mut seen, mut cursor) = (HashSet::new(), 0);
            loop {
                cursor = dict.scan(cursor, random.usize(1..20), |entry| {
                    seen.insert(entry.key.to_vec());
                });
                if cursor == 0 {
                    break;
                }
                for _ in 0..random.u32(..10) {
                    let other = key(staying + random.u32(..2000));
                    if random.bool() {
                        _ = dict.insert(&other, ());
                    } else {
                        _ = dict.remove(&other);
                    }
                }
            }
            assert!((0..staying).all(|n| seen.contains(&key(n))));
        }
    }

    #[test]
    fn memory_is_freed() {
        // The thread's count may be below zero at first: it frees memory that the test's main
        // thread gave it.
        let ballast = vec![0u8; 1 << 20];
        let before = crate::memory::used();
        let mut dict = Dict::new();
        (0..50_000).for_each(|n| _ = dict.insert_new(&key(n), ()));
        let full = crate::memory::used() - before;
        (10..50_000).for_each(|n| _ = dict.remove(&key(n)));
        let left = crate::memory::used() - before;
        assert!(full > 1_000_000 && left < 200_000, "{full} bytes for 50000 keys, {left} for 10");
        assert_eq!((dict.len(), ballast.len()), (10, 1 << 20));
    }
}
