//! Keys of one keyspace added to another, element by element, with the encodings that the present
//! configuration asks for (DEBUG RELOAD).

use crate::commands::error_reply::ErrorReply;
use crate::commands::{hashes, lists, sets, sorted_sets, streams};
use crate::config::Config;
use crate::keyspace::{
    DATABASES, DbIndex, DictCursor, ElementView, Entry, Expiry, Key, ListEnd, OutOfMemory,
    PendingClaim, ShardIndex, Shards, StreamId, Value, ValueType,
};

/// Number of names of keys that are read at a time.
const NAMES: usize = 256;

/// Adds all keys of `source` to `target`; returns their number. All shards of both are locked.
///
/// # Errors
/// There is no memory, or, unless `replaces`, a key is there already. Keys may have been added.
pub fn import_keys(
    config: &Config,
    target: &mut Shards<'_>,
    source: &mut Shards<'_>,
    replaces: bool,
) -> Result<u64, ErrorReply> {
    let mut count = 0;
    for (db, home) in (0..DATABASES).flat_map(|db| ShardIndex::all().map(move |home| (db, home))) {
        let mut cursor = Some(DictCursor::default());
        while let Some(from) = cursor {
            let mut names: Vec<Vec<u8>> = Vec::new();
            cursor = source.scan(db, home, from, NAMES, |name, _| names.push(name.to_vec()));
            for name in names {
                let (old, new) =
                    (source.keyspace().key(db, &name), target.keyspace().key(db, &name));
                let Some(entry) = source.peek(db, &old) else { continue };
                if target.peek(db, &new).is_some() && (!replaces || !target.remove(db, &new)) {
                    let name = String::from_utf8_lossy(&name);
                    return Err(ErrorReply::text(format!(
                        "ERR the key '{name}' is there already: MERGE replaces it"
                    )));
                }
                import_value(config, target, source, db, &new, &entry)?;
                if let Some(at) = source.expiry(&entry)
                    && let Some(made) = target.peek(db, &new)
                {
                    target.set_expiry(db, &new, &made, Some(at))?;
                }
                count += 1;
            }
        }
    }
    Ok(count)
}

fn import_value(
    config: &Config,
    target: &mut Shards<'_>,
    source: &mut Shards<'_>,
    db: DbIndex,
    key: &Key<'_>,
    entry: &Entry,
) -> Result<(), OutOfMemory> {
    let elements = Elements::of(source, entry);
    match entry.kind() {
        ValueType::String => {
            let mut digits = itoa::Buffer::new();
            let value = source.string(entry).map_or(&b""[..], |value| value.bytes(&mut digits));
            target.set(db, key, value, Expiry::None)?;
        }
        ValueType::List => {
            let (all, limits) = (elements.plain(), lists::limits_of(config));
            target.list_push(db, key, None, ListEnd::Back, all, &limits)?;
        }
        ValueType::Set => {
            target.set_add(db, key, None, elements.plain(), &sets::limits_of(config))?;
        }
        ValueType::SortedSet => {
            let members: Vec<&[u8]> = elements.plain().collect();
            let limits = sorted_sets::limits_of(config);
            let score = |i: usize, _| Some(elements.scores[i]);
            target.put_members(db, key, None, &members, &limits, score)?;
        }
        ValueType::Hash => import_hash(config, target, db, key, &elements)?,
        ValueType::Stream => import_stream(config, target, source, db, key, entry)?,
    }
    Ok(())
}

/// Copies of the elements of a collection that is no stream.
#[derive(Default)]
struct Elements {
    /// Elements, members or names of fields.
    names: Vec<Vec<u8>>,
    /// Values of fields.
    values: Vec<Vec<u8>>,
    expiries: Vec<Option<i64>>,
    scores: Vec<f64>,
}

impl Elements {
    fn of(shards: &Shards<'_>, entry: &Entry) -> Self {
        let mut all = Self::default();
        if matches!(entry.kind(), ValueType::String | ValueType::Stream) {
            return all;
        }
        shards.each_element(entry, |element| match element {
            ElementView::Plain(value) => all.names.push(owned(value)),
            ElementView::Field { name, value, expiry } => {
                all.names.push(owned(name));
                all.values.push(owned(value));
                all.expiries.push(expiry);
            }
            ElementView::Member { member, score } => {
                all.names.push(owned(member));
                all.scores.push(score);
            }
            ElementView::Entry { .. } => {}
        });
        all
    }

    fn plain(&self) -> impl DoubleEndedIterator<Item = &[u8]> + ExactSizeIterator + Clone {
        self.names.iter().map(Vec::as_slice)
    }

    /// Fields with a value that have this expiry.
    fn fields(&self, expiry: Option<i64>) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
        let pairs = self.names.iter().zip(&self.values).zip(&self.expiries);
        pairs
            .filter(move |(_, other)| **other == expiry)
            .map(|((name, value), _)| (name.as_slice(), value.as_slice()))
    }
}

fn import_hash(
    config: &Config,
    target: &mut Shards<'_>,
    db: DbIndex,
    key: &Key<'_>,
    elements: &Elements,
) -> Result<(), OutOfMemory> {
    let limits = hashes::limits_of(config);
    let mut expiries = elements.expiries.clone();
    expiries.sort_unstable();
    expiries.dedup();
    for expiry in expiries {
        let old = target.peek(db, key);
        let rule = expiry.map_or(Expiry::None, Expiry::At);
        target.hash_set(db, key, old.as_ref(), elements.fields(expiry), rule, &limits)?;
    }
    Ok(())
}

fn import_stream(
    config: &Config,
    target: &mut Shards<'_>,
    source: &Shards<'_>,
    db: DbIndex,
    key: &Key<'_>,
    entry: &Entry,
) -> Result<(), OutOfMemory> {
    /// The name of a group that exists while a stream has no entries yet.
    const NO_NAME: &[u8] = b"";
    let limits = streams::limits_of(config);
    target.stream_create(db, key, NO_NAME, StreamId::MIN, None)?;
    let made = target.peek(db, key).expect("invariant: the key was made above");
    target.group_destroy(db, key, &made, NO_NAME);
    let mut full = None;
    source.each_element(entry, |element| {
        if let (ElementView::Entry { id, fields }, None) = (element, &full) {
            let pairs: Vec<(Vec<u8>, Vec<u8>)> =
                fields.iter().map(|(name, value)| (owned(name), owned(value))).collect();
            let pairs = pairs.iter().map(|(name, value)| (name.as_slice(), value.as_slice()));
            full = target.stream_add(db, key, Some(&made), id, pairs, &limits).err();
        }
    });
    full.map_or(Ok(()), Err)?;
    let info = source.stream_info(entry);
    target.stream_set_last(&made, info.last, Some(info.added), Some(info.deleted));
    for group in source.stream_groups(entry) {
        let name = source.group_name(entry, group.group, <[u8]>::to_vec);
        target.group_create(&made, &name, group.last, group.read)?;
        let new_group = target.stream_group(&made, &name);
        let new_group = new_group.expect("invariant: the group was made above").group;
        for consumer in source.group_consumers(entry, group.group) {
            let name = source.consumer_name(entry, consumer.consumer, <[u8]>::to_vec);
            let new_consumer = target.consumer_restore(&made, new_group, &name, &consumer)?;
            let mut pending = Vec::new();
            let all = Some(consumer.consumer);
            source.pending_each(entry, group.group, all, StreamId::MIN, |one| {
                pending.push(*one);
                true
            });
            let ids: Vec<StreamId> = pending.iter().map(|one| one.id).collect();
            target.pending_prepare(&made, new_group, new_consumer, &ids)?;
            for one in pending {
                let claim = PendingClaim {
                    consumer: new_consumer,
                    delivered_at: one.delivered_at,
                    deliveries: one.deliveries,
                };
                target.pending_set(&made, new_group, one.id, &claim);
            }
        }
    }
    Ok(())
}

fn owned(value: Value<'_>) -> Vec<u8> {
    value.bytes(&mut itoa::Buffer::new()).to_vec()
}
