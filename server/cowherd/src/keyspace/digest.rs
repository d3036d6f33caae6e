//! The digest of a keyspace (DEBUG CHECKPOINT-DIGEST): two keyspaces with the same digest hold the
//! same keys. `content_digest` computes the coarser one of Redis.
//!
//! Each entry is hashed with its database, key, type, value and expiry. The entries' hashes are
//! combined so that their order does not matter; so are the fields of a hash and the members of a
//! set or a sorted set. Encodings do not matter either. Expired entries that are not removed yet
//! count.

use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128};

use cowherd_arena::ShardIndex;
use cowherd_arena::containers::dict::DictCursor;

use super::collection::ValueDigest;
use super::entry::{EntryHeader, ValueStorage, ValueType};
use super::roots::{ALL_DATABASES, keys_of};
use super::{Shards, values};

/// Bytes of a digest, which is shown as 40 hexadecimal digits.
const DIGEST_LEN: usize = 20;

impl Shards<'_> {
    /// The digest of all databases; zeros if there are no keys. All shards are locked.
    pub fn digest(&self) -> String {
        let mut sum = [0u8; DIGEST_LEN];
        for shard in ShardIndex::all() {
            for db in 0..ALL_DATABASES {
                self.add_digests(shard, db, &mut sum);
            }
        }
        sum.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn add_digests(&self, shard: ShardIndex, db: usize, sum: &mut [u8; DIGEST_LEN]) {
        let mem = self.held.view(shard);
        let mut digest = ValueDigest::default();
        keys_of(shard, db).scan(&mem, DictCursor::default(), usize::MAX, |at| {
            let head = EntryHeader::load(&mem, at);
            digest.text.clear();
            digest.add_number(db as i64);
            digest.text.push(head.kind as u8);
            digest.add_number(head.expiry(&mem, at).unwrap_or(i64::MIN));
            digest.add(head.key(&mem, at));
            if head.kind != ValueType::String {
                values::digest(&mem, at, &head, &mut digest);
            } else if head.storage == ValueStorage::Int {
                digest.text.extend_from_slice(head.number(&mem, at).to_string().as_bytes());
            } else {
                let place = head.value_offset(&mem, at);
                digest.text.extend_from_slice(mem.bytes(place, head.value_len));
            }
            let text = &digest.text;
            let low = xxh3_128(text).to_le_bytes();
            let high = xxh3_64_with_seed(text, 0x636f_7768).to_le_bytes();
            for (sum, byte) in sum.iter_mut().zip(low.iter().chain(&high)) {
                *sum ^= byte;
            }
        });
    }
}
