//! The keys that clients have read and may have cached, and by which clients.
//!
//! The table is divided into parts with a lock each. A key is found by the hash that the keyspace
//! has computed for it, so nothing is hashed twice.

use std::array;
use std::borrow::Borrow;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};

use indexmap::{Equivalent, IndexMap};
use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::keyspace::ClientId;

/// Number of locks: several per worker thread, so that threads seldom wait for each other.
const PARTS: usize = 64;

/// The clients that have read a key, in ascending order.
pub(super) type Readers = SmallVec<[ClientId; 2]>;

/// Passes on the hash of a key, which is a hash already.
#[derive(Default)]
struct KnownHash(u64);

impl Hasher for KnownHash {
    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("only the hash of a key is hashed")
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A key and its hash. `B` is the bytes, owned in the table and borrowed to look a key up.
#[derive(PartialEq, Eq)]
struct HashedKey<B> {
    hash: u64,
    bytes: B,
}

impl<B> Hash for HashedKey<B> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Equivalent<HashedKey<Box<[u8]>>> for HashedKey<&[u8]> {
    fn equivalent(&self, key: &HashedKey<Box<[u8]>>) -> bool {
        let bytes: &[u8] = key.bytes.borrow();
        self.hash == key.hash && self.bytes == bytes
    }
}

type Part = IndexMap<HashedKey<Box<[u8]>>, Readers, BuildHasherDefault<KnownHash>>;

/// The tracked keys. Keys of the same name in different databases are one.
pub(super) struct TrackedKeys {
    parts: [Mutex<Part>; PARTS],
    /// Number of keys in all parts.
    len: AtomicUsize,
    /// Number of readers of all keys.
    readers: AtomicUsize,
}

impl Default for TrackedKeys {
    fn default() -> Self {
        Self {
            parts: array::from_fn(|_| Mutex::default()),
            len: AtomicUsize::new(0),
            readers: AtomicUsize::new(0),
        }
    }
}

impl TrackedKeys {
    fn part(&self, hash: u64) -> &Mutex<Part> {
        // The lowest byte is enough: `PARTS` is a power of two below 256.
        &self.parts[usize::from(hash.to_le_bytes()[0]) % PARTS]
    }

    /// Adds a reader to a key. `is_connected` tells which readers are still of use: the others are
    /// removed before the list of readers grows. Returns whether the key is new in the table.
    pub(super) fn add(
        &self,
        key: &[u8],
        hash: u64,
        reader: ClientId,
        is_connected: impl Fn(ClientId) -> bool,
    ) -> bool {
        let mut part = self.part(hash).lock();
        if let Some(readers) = part.get_mut(&HashedKey { hash, bytes: key }) {
            if readers.binary_search(&reader).is_err() {
                if readers.len() == readers.capacity() {
                    let all = readers.len();
                    readers.retain(|known| is_connected(*known));
                    self.readers.fetch_sub(all - readers.len(), Ordering::Relaxed);
                }
                let at = readers.partition_point(|known| *known < reader);
                readers.insert(at, reader);
                self.readers.fetch_add(1, Ordering::Relaxed);
            }
            return false;
        }
        part.insert(HashedKey { hash, bytes: key.into() }, SmallVec::from_slice(&[reader]));
        self.len.fetch_add(1, Ordering::Relaxed);
        self.readers.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Removes a key; returns its readers.
    pub(super) fn remove(&self, key: &[u8], hash: u64) -> Option<Readers> {
        if self.len() == 0 {
            return None;
        }
        let readers = self.part(hash).lock().swap_remove(&HashedKey { hash, bytes: key })?;
        self.count_removed(1, readers.len());
        Some(readers)
    }

    /// Removes any key, chosen by a random number; `None` if there is none.
    pub(super) fn remove_any(&self, random: u64) -> Option<(Box<[u8]>, Readers)> {
        let first = usize::from(random.to_le_bytes()[0]);
        let mut parts = (first..first + PARTS).map(|i| self.parts[i % PARTS].lock());
        let mut part = parts.find(|part| !part.is_empty())?;
        // Any index is as good as any other, and the remainder is below the length.
        let index = usize::try_from(random >> 8).unwrap_or_default() % part.len();
        let (key, readers) = part.swap_remove_index(index)?;
        self.count_removed(1, readers.len());
        Some((key.bytes, readers))
    }

    /// Removes all keys.
    pub(super) fn clear(&self) {
        for part in &self.parts {
            let removed = std::mem::take(&mut *part.lock());
            self.count_removed(removed.len(), removed.values().map(SmallVec::len).sum());
        }
    }

    fn count_removed(&self, keys: usize, readers: usize) {
        self.len.fetch_sub(keys, Ordering::Relaxed);
        self.readers.fetch_sub(readers, Ordering::Relaxed);
    }

    /// Number of keys.
    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Number of readers of all keys.
    pub(super) fn readers(&self) -> usize {
        self.readers.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_are_sorted_and_unique() {
        let keys = TrackedKeys::default();
        assert!(keys.add(b"k", 1, 5, |_| true));
        for reader in [9, 5, 7, 1, 9] {
            assert!(!keys.add(b"k", 1, reader, |_| true));
        }
        assert!(keys.add(b"other", 1, 5, |_| true), "the same hash is not the same key");
        assert_eq!((keys.len(), keys.readers()), (2, 5));
        assert_eq!(keys.remove(b"k", 1).as_deref(), Some(&[1, 5, 7, 9][..]));
        assert_eq!(keys.remove(b"k", 1), None);
        assert_eq!((keys.len(), keys.readers()), (1, 1));
    }

    #[test]
    fn readers_that_have_disconnected_make_room() {
        let keys = TrackedKeys::default();
        for reader in 1..=1000 {
            keys.add(b"k", 1, reader, |known| known % 100 == 0);
        }
        let readers = keys.remove(b"k", 1).unwrap_or_default();
        assert!(readers.is_sorted() && readers.len() < 30, "{readers:?}");
        assert!((1..=10).all(|hundred| readers.contains(&(hundred * 100))), "{readers:?}");
    }

    #[test]
    fn any_key_can_be_removed_until_none_is_left() {
        let keys = TrackedKeys::default();
        for i in 0..100u64 {
            keys.add(&i.to_le_bytes(), i * 0x9E37_79B9, 1, |_| true);
        }
        let mut removed = Vec::new();
        while let Some((key, _)) = keys.remove_any(removed.len() as u64 * 0x1234_5677) {
            removed.push(key);
        }
        removed.sort_unstable();
        removed.dedup();
        assert_eq!((removed.len(), keys.len()), (100, 0));
    }
}
