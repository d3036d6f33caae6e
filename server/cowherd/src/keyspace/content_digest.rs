//! The digests of DEBUG DIGEST and DEBUG DIGEST-VALUE, which are those of Redis for the same keys
//! and values: test programs compare them between servers.
//!
//! A digest is 20 bytes, begins as zeros and takes up parts in one of two ways: `add` is an XOR
//! with the SHA-1 of the part, so that the order of the parts does not matter; `append` is `add`
//! followed by the SHA-1 of the digest itself.
//!
//! ```text
//! value:     append(type), then by type
//!            string        append(value)                list    append(element) for each
//!            set           add(member) for each         stream  append(id), append(field),
//!            hash          add(digest of name, value)           append(value) for each
//!            sorted set    add(digest of member, score)
//!            expires       add("!!expire!!")
//! keyspace:  for each database with keys: append(number), then add(digest of key and value)
//! ```
//!
//! The time of an expiry, groups and consumers of streams, and functions are not covered; the
//! digest of `digest` covers them.

use sha1::{Digest as _, Sha1};

use cowherd_arena::containers::dict::DictCursor;
use cowherd_arena::{Mem, ShardIndex};
use cowherd_resp::format_double;

use super::collection::ElementView;
use super::entry::{EntryHeader, ValueStorage, ValueType};
use super::roots::keys_of;
use super::{DATABASES, DbIndex, Key, Shards, Value, values};

const LEN: usize = 20;

#[derive(Default)]
struct ContentDigest([u8; LEN]);

impl ContentDigest {
    /// Takes up a part; the order does not matter.
    fn add(&mut self, part: &[u8]) {
        for (own, byte) in self.0.iter_mut().zip(Sha1::digest(part)) {
            *own ^= byte;
        }
    }

    /// Takes up a part; the order matters.
    fn append(&mut self, part: &[u8]) {
        self.add(part);
        self.0 = Sha1::digest(self.0).into();
    }

    fn append_value(&mut self, value: Value<'_>) {
        self.append(value.bytes(&mut itoa::Buffer::new()));
    }

    /// Numbers are appended as big-endian words.
    fn append_number(&mut self, number: u32) {
        self.append(&number.to_be_bytes());
    }

    fn text(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn add_element(&mut self, kind: ValueType, element: &ElementView<'_>) {
        match *element {
            ElementView::Plain(value) if kind == ValueType::List => self.append_value(value),
            ElementView::Plain(value) => self.add(value.bytes(&mut itoa::Buffer::new())),
            ElementView::Field { name, value, expiry } => {
                let mut field = Self::default();
                field.append_value(name);
                field.append_value(value);
                if expiry.is_some() {
                    field.add(b"!!hexpire!!");
                }
                self.add(&field.0);
            }
            ElementView::Member { member, score } => {
                let mut one = Self::default();
                one.append_value(member);
                one.append(&format_double(score));
                self.add(&one.0);
            }
            ElementView::Entry { id, fields } => {
                self.append(format!("{}.{}", id.ms, id.seq).as_bytes());
                for (field, value) in fields.iter() {
                    self.append_value(field);
                    self.append_value(value);
                }
            }
        }
    }

    fn append_entry(&mut self, mem: &Mem<'_>, at: u64, head: &EntryHeader) {
        self.append_number(number_of(head.kind));
        match (head.kind, head.storage) {
            (ValueType::String, ValueStorage::Int) => {
                self.append_value(Value::Int(head.number(mem, at)));
            }
            (ValueType::String, _) => {
                self.append(mem.bytes(head.value_offset(mem, at), head.value_len));
            }
            (kind, _) => values::each_element(mem, at, head, &mut |element| {
                self.add_element(kind, &element);
            }),
        }
        if head.expiry(mem, at).is_some() {
            self.add(b"!!expire!!");
        }
    }
}

/// The number of a type in Redis.
const fn number_of(kind: ValueType) -> u32 {
    match kind {
        ValueType::String => 0,
        ValueType::List => 1,
        ValueType::Set => 2,
        ValueType::SortedSet => 3,
        ValueType::Hash => 4,
        ValueType::Stream => 6,
    }
}

impl Shards<'_> {
    /// Redis's digest of all databases, as 40 hexadecimal digits; zeros if there are no keys.
    /// Expired keys that are not removed yet count. All shards are locked.
    pub fn content_digest(&self) -> String {
        let mut digest = ContentDigest::default();
        for db in 0..DATABASES {
            let mut is_new = true;
            for shard in ShardIndex::all() {
                let mem = self.held.view(shard);
                keys_of(shard, db).scan(&mem, DictCursor::default(), usize::MAX, |at| {
                    if std::mem::take(&mut is_new) {
                        digest.append_number(u32::try_from(db).unwrap_or(u32::MAX));
                    }
                    let head = EntryHeader::load(&mem, at);
                    let mut one = ContentDigest::default();
                    one.append(head.key(&mem, at));
                    one.append_entry(&mem, at, &head);
                    digest.add(&one.0);
                });
            }
        }
        digest.text()
    }

    /// Redis's digest of a key's value, as 40 hexadecimal digits; zeros if there is no such key.
    pub fn value_digest(&mut self, db: DbIndex, key: &Key<'_>) -> String {
        let mut digest = ContentDigest::default();
        if let Some(entry) = self.peek(db, key) {
            digest.append_entry(&self.held.view(entry.shard), entry.at, &entry.head);
        }
        digest.text()
    }
}
