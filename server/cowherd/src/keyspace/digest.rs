//! A digest of everything in the keyspace, to compare two of them.
//!
//! Each entry is hashed with its database, key, type, value and expiry; the hashes are combined so
//! that their order does not matter; so are the fields of a hash, the members of a set and of a
//! sorted set. How a value is kept does not matter either. Expired entries that are still there
//! count: two keyspaces with the same digest hold the same entries, byte for byte.

use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128};

use cowherd_arena::ShardIndex;
use cowherd_arena::containers::dict::Cursor;

use super::entry::{Encoding, Shape, ValueKind};
use super::values::{self, Digest};
use super::{DATABASES, Shards, keys_of};

/// 160 bits, as 40 hexadecimal digits.
const DIGEST: usize = 20;

impl Shards<'_> {
    /// The digest of all databases; all shards are locked. Zeros if there are no keys.
    pub fn digest(&self) -> String {
        let mut sum = [0u8; DIGEST];
        for shard in ShardIndex::all() {
            for db in 0..DATABASES {
                self.add_digests(shard, db, &mut sum);
            }
        }
        sum.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn add_digests(&self, shard: ShardIndex, db: usize, sum: &mut [u8; DIGEST]) {
        let mem = self.held.view(shard);
        let mut digest = Digest::default();
        keys_of(shard, db).scan(&mem, Cursor::default(), usize::MAX, |at| {
            let shape = Shape::load(&mem, at);
            digest.text.clear();
            digest.add_number(db as i64);
            digest.text.push(shape.kind as u8);
            digest.add_number(shape.expiry(&mem, at).unwrap_or(i64::MIN));
            digest.add(shape.key(&mem, at));
            if shape.kind != ValueKind::String {
                values::digest(&mem, at, &shape, &mut digest);
            } else if shape.encoding == Encoding::Int {
                digest.text.extend_from_slice(shape.number(&mem, at).to_string().as_bytes());
            } else {
                let place = shape.value_place(&mem, at);
                digest.text.extend_from_slice(mem.bytes(place, shape.value_len));
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
