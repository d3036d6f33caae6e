//! The code of libraries of functions: strings in a database of their own, which no command
//! selects, so that they are in every image and survive FLUSHALL.

use super::roots::LIBRARIES;
use super::{Expiry, Keyspace, OutOfMemory, ShardIndex, ShardSet, Shards};

impl Keyspace {
    /// Names and code of all libraries.
    pub fn libraries(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut shards = self.lock(ShardSet::ALL, 0);
        let mut names = Vec::new();
        for shard in ShardIndex::all() {
            let mut cursor = Some(super::DictCursor::default());
            while let Some(from) = cursor {
                cursor =
                    shards.scan(LIBRARIES, shard, from, 16, |name, _| names.push(name.to_vec()));
            }
        }
        // A scan may visit a key twice.
        names.sort_unstable();
        names.dedup();
        let code = |name: Vec<u8>| {
            let entry = shards.peek(LIBRARIES, &self.key(LIBRARIES, &name))?;
            let mut buffer = itoa::Buffer::new();
            let code = shards.string(&entry).ok()?.bytes(&mut buffer).to_vec();
            Some((name, code))
        };
        names.into_iter().filter_map(code).collect()
    }
}

impl Shards<'_> {
    /// Stores the code of a library. All shards are locked. Counts as no change; see
    /// [`Self::libraries_changed`].
    ///
    /// # Errors
    /// The arena is full.
    pub fn store_library(&mut self, name: &[u8], code: &[u8]) -> Result<(), OutOfMemory> {
        let key = self.keyspace().key(LIBRARIES, name);
        self.set(LIBRARIES, &key, code, Expiry::None)?;
        self.uncount_in(key.shard, 1);
        Ok(())
    }

    /// Removes the code of a library. All shards are locked. Counts as no change.
    pub fn remove_library(&mut self, name: &[u8]) {
        let key = self.keyspace().key(LIBRARIES, name);
        if self.remove(LIBRARIES, &key) {
            self.uncount_in(key.shard, 1);
        }
    }

    /// Counts a command that has changed libraries, however many, as one change.
    pub fn libraries_changed(&self) {
        self.changed(ShardIndex::of_hash(0));
    }
}
