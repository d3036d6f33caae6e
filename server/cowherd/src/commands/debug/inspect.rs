//! Subcommands of DEBUG that describe keys, values and tables.

use std::fmt::Write as _;

use crate::clients::{Client, Session};
use crate::commands::call::Call;
use crate::commands::error_reply::{CommandResult, ErrorReply};
use crate::commands::table::Command;
use crate::keyspace::{DATABASES, Entry, Key, KeyUsage, ShardSet, Shards, TableSize, ValueType};
use cowherd_resp::ReplyWriter;

/// `DEBUG DIGEST`
pub(super) fn digest(call: &mut Call<'_>) -> CommandResult {
    call.locked(|_| ShardSet::ALL, |shards, reply| reply.simple(&shards.content_digest()))
}

/// `DEBUG DIGEST-VALUE [key ...]`
pub(super) fn digest_value(call: &mut Call<'_>) -> CommandResult {
    let (db, keys) = (call.session.db, call.args.from(2));
    call.locked(
        |space| keys.iter().map(|key| space.shards_of(space.hash(key))).collect(),
        |shards, reply| {
            reply.array(keys.len());
            for bytes in keys {
                let key = shards.keyspace().key(db, bytes);
                reply.simple(&shards.value_digest(db, &key));
            }
        },
    )
}

/// Replies what `describe` makes of the key in argument 2.
fn with_entry(
    call: &mut Call<'_>,
    describe: impl FnOnce(&mut Shards<'_>, &mut ReplyWriter, &Key<'_>, &Entry) -> CommandResult,
) -> CommandResult {
    let (db, bytes) = (call.session.db, call.args.at(2));
    call.locked(
        |space| space.shards_of(space.hash(bytes)),
        |shards, reply| {
            let key = shards.keyspace().key(db, bytes);
            let entry = shards.peek(db, &key).ok_or(ErrorReply::NO_KEY)?;
            describe(shards, reply, &key, &entry)
        },
    )?
}

/// `DEBUG OBJECT key`: the line of Redis, with the shard in place of an address.
/// `serializedlength` is the length of a string, or the memory usage of another value.
pub(super) fn object(call: &mut Call<'_>) -> CommandResult {
    /// The mask of the 24 bits of the LRU clock of Redis.
    const LRU_BITS: u64 = (1 << 24) - 1;
    let (now, limit) = (call.now, call.config.list_max_listpack_size);
    with_entry(call, |shards, reply, key, entry| {
        let len = match shards.string(entry) {
            Ok(value) => value.size(),
            Err(_) => shards.memory_usage(entry, 0),
        };
        let seconds = u64::try_from(now / 1000).unwrap_or_default();
        let (lru, idle) = match shards.usage(entry) {
            KeyUsage::Idle(idle) => (seconds.saturating_sub(idle) & LRU_BITS, idle),
            KeyUsage::Frequency(count) => (count, 0),
        };
        let mut line = format!(
            "Value at:shard-{} refcount:1 encoding:{} serializedlength:{len} lru:{lru} \
             lru_seconds_idle:{idle}",
            key.shard.get(),
            shards.encoding_name(entry),
        );
        if let Some((nodes, bytes)) = shards.list_nodes(entry) {
            let average = shards.list_len(entry) as f64 / nodes as f64;
            // Writing to a string cannot fail.
            let _ = write!(
                line,
                " ql_nodes:{nodes} ql_avg_node:{average:.2} ql_listpack_max:{limit} \
                 ql_compressed:0 ql_uncompressed_size:{bytes}"
            );
        }
        reply.simple(&line);
        Ok(())
    })
}

/// `DEBUG SDSLEN key`: the lengths of key and value, which have no space to grow.
pub(super) fn string_lengths(call: &mut Call<'_>) -> CommandResult {
    let not_text = ErrorReply::new("ERR Not an sds encoded string.");
    with_entry(call, |shards, reply, key, entry| {
        let is_text = matches!(shards.encoding_name(entry), "embstr" | "raw");
        let value = shards.string(entry).ok().filter(|_| is_text).ok_or(not_text)?;
        reply.simple(&format!(
            "key_sds_len:{}, key_sds_avail:0, key_zmalloc: {}, val_sds_len:{}, val_sds_avail:0, \
             val_zmalloc: 0",
            key.bytes.len(),
            shards.memory_usage(entry, 0),
            value.size(),
        ));
        Ok(())
    })
}

/// `DEBUG LISTPACK key` and `DEBUG QUICKLIST key`: writes figures of a value of one encoding to the
/// log.
pub(super) fn print(call: &mut Call<'_>, encoding: &str) -> CommandResult {
    with_entry(call, |shards, reply, key, entry| {
        if shards.encoding_name(entry) != encoding {
            return Err(ErrorReply::text(format!("ERR Not a {encoding} encoded object.")));
        }
        tracing::info!(
            "DEBUG: {} is a {encoding} of {} bytes",
            String::from_utf8_lossy(key.bytes),
            shards.memory_usage(entry, 0)
        );
        reply.simple("Written to the log");
        Ok(())
    })
}

/// `DEBUG HTSTATS dbid [full]`
pub(super) fn table_sizes(call: &mut Call<'_>) -> CommandResult {
    let db = usize::try_from(call.integer(2)?).ok().filter(|db| *db < DATABASES);
    let db = db.ok_or(ErrorReply::new("ERR Out of range database"))?;
    call.locked(
        |_| ShardSet::ALL,
        |shards, reply| {
            let (keys, expires) = shards.table_sizes(db);
            let (keys, expires) = (describe_table(keys), describe_table(expires));
            let text = format!("[Dictionary HT]\n{keys}[Expires HT]\n{expires}");
            reply.verbatim(b"txt", text.as_bytes());
        },
    )
}

/// `DEBUG HTSTATS-KEY key [full]`
pub(super) fn element_table(call: &mut Call<'_>) -> CommandResult {
    let no_table = ErrorReply::new(
        "ERR The value stored at the specified key is not represented using an hash table",
    );
    with_entry(call, |shards, reply, _, entry| {
        let size = shards.element_table(entry).ok_or(no_table)?;
        reply.verbatim(b"txt", describe_table(size).as_bytes());
        Ok(())
    })
}

/// Nothing for an empty table, as in Redis.
fn describe_table(size: TableSize) -> String {
    let TableSize { items, segments, directory_entries } = size;
    if items == 0 {
        return String::new();
    }
    format!(
        "Hash table stats:\n number of elements: {items}\n segments: {segments}\n directory \
         entries: {directory_entries}\n"
    )
}

/// `DEBUG STRUCTSIZE`
pub(super) fn struct_sizes(call: &mut Call<'_>) -> CommandResult {
    let text = format!(
        "bits:{} client:{} session:{} command:{} entry:{} valuetype:{} ",
        usize::BITS,
        size_of::<Client>(),
        size_of::<Session>(),
        size_of::<Command>(),
        size_of::<Entry>(),
        size_of::<ValueType>(),
    );
    call.reply.bulk_str(&text);
    Ok(())
}
