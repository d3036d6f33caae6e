//! XADD and XTRIM.

use crate::clients::EventClass;
use crate::commands::call::Call;
use crate::commands::error_reply::{CommandResult, ErrorReply};
use crate::keyspace::{Entry, Key, StreamId, StreamTrim};
use cowherd_resp::parse_i64;

use super::ids::{self, NewId};

const BOTH: ErrorReply = ErrorReply::new(
    "ERR syntax error, MAXLEN and MINID options at the same time are not compatible",
);
const NEGATIVE_LENGTH: ErrorReply = ErrorReply::new("ERR The MAXLEN argument must be >= 0.");
const NEGATIVE_LIMIT: ErrorReply = ErrorReply::new("ERR The LIMIT argument must be >= 0.");
const LIMIT_ALONE: ErrorReply = ErrorReply::new(
    "ERR syntax error, LIMIT cannot be used without specifying a trimming strategy",
);
const NO_STRATEGY: ErrorReply =
    ErrorReply::new("ERR syntax error, XTRIM must be called with a trimming strategy");
const LIMIT_EXACT: ErrorReply =
    ErrorReply::new("ERR syntax error, LIMIT cannot be used without the special ~ option");
const ZERO: ErrorReply = ErrorReply::new("ERR The ID specified in XADD must be greater than 0-0");
const EXHAUSTED: ErrorReply =
    ErrorReply::new("ERR The stream has exhausted the last possible ID, unable to add more items");
const NOT_ABOVE: ErrorReply = ErrorReply::new(
    "ERR The ID specified in XADD is equal or smaller than the target stream top item",
);

/// The options of XADD and XTRIM.
struct XaddOptions {
    trim: Option<StreamTrim>,
    is_exact: bool,
    limit: u64,
    create: bool,
    id: Option<NewId>,
    /// The first argument after the options and the id.
    next: usize,
}

/// The options from argument 2 on, and the id of XADD.
fn parse(call: &Call<'_>, is_add: bool) -> Result<XaddOptions, ErrorReply> {
    let args = &call.args;
    let mut options =
        XaddOptions { trim: None, is_exact: true, limit: 0, create: true, id: None, next: 2 };
    let (mut limit, mut i) = (None, 2);
    while i < args.len() {
        let more = args.len() - 1 - i;
        let is_length = call.is(i, "maxlen");
        if more > 0 && (is_length || call.is(i, "minid")) {
            if options.trim.is_some() {
                return Err(BOTH);
            }
            let mark = args.at(i + 1);
            options.is_exact = true;
            if more >= 2 && (mark == b"~" || mark == b"=") {
                options.is_exact = mark == b"=";
                i += 1;
            }
            options.trim = Some(threshold(args.at(i + 1), is_length)?);
            i += 2;
        } else if more > 0 && call.is(i, "limit") {
            let max = parse_i64(args.at(i + 1)).ok_or(ErrorReply::NOT_INTEGER)?;
            limit = Some(u64::try_from(max).map_err(|_| NEGATIVE_LIMIT)?);
            i += 2;
        } else if is_add && call.is(i, "nomkstream") {
            options.create = false;
            i += 1;
        } else if is_add {
            options.id = Some(ids::new(args.at(i))?);
            i += 1;
            break;
        } else {
            return Err(ErrorReply::SYNTAX);
        }
    }
    options.next = i;
    let has_limit = limit.is_some_and(|limit| limit > 0);
    match options.trim {
        None if has_limit => return Err(LIMIT_ALONE),
        None if !is_add => return Err(NO_STRATEGY),
        _ if limit.is_some() && options.is_exact => return Err(LIMIT_EXACT),
        _ => {}
    }
    if !options.is_exact {
        // The default of Redis: the entries of a hundred nodes.
        let usual = match call.config.stream_node_max_entries.saturating_mul(100) {
            0 => 10_000,
            entries => entries.min(1_000_000),
        };
        options.limit = limit.unwrap_or(usual);
    }
    Ok(options)
}

fn threshold(text: &[u8], is_length: bool) -> Result<StreamTrim, ErrorReply> {
    if !is_length {
        return Ok(StreamTrim::MinId(ids::strict(text, 0)?));
    }
    let max = parse_i64(text).ok_or(ErrorReply::NOT_INTEGER)?;
    u64::try_from(max).map(StreamTrim::MaxLen).map_err(|_| NEGATIVE_LENGTH)
}

/// The id for a new entry of a stream whose last id is `last`.
fn choose(id: NewId, last: StreamId, now: i64) -> Result<StreamId, ErrorReply> {
    if last == StreamId::MAX {
        return Err(EXHAUSTED);
    }
    let now = u64::try_from(now).unwrap_or(0);
    let id = match id {
        NewId::Auto if now > last.ms => StreamId { ms: now, seq: 0 },
        NewId::Auto => last.next().ok_or(EXHAUSTED)?,
        NewId::Numbered(ms) if ms == last.ms => {
            StreamId { ms, seq: last.seq.checked_add(1).ok_or(NOT_ABOVE)? }
        }
        NewId::Numbered(ms) => StreamId { ms, seq: 0 },
        NewId::Given(id) => id,
    };
    if id > last { Ok(id) } else { Err(NOT_ABOVE) }
}

pub(super) fn xadd(call: &mut Call<'_>) -> CommandResult {
    let (db, key) = (call.session.db, call.key(1));
    let options = parse(call, true)?;
    let pairs = call.args.from(options.next);
    let (Some(id), false) = (options.id, pairs.len() < 2 || pairs.len() % 2 == 1) else {
        return Err(call.row.wrong_arity());
    };
    if id == NewId::Given(StreamId::MIN) {
        return Err(ZERO);
    }
    let entry = call.shards.stream(db, &key)?;
    if entry.is_none() && !options.create {
        call.reply.null();
        return Ok(());
    }
    let last = entry.map_or(StreamId::MIN, |entry| call.shards.stream_len(&entry).1);
    let id = choose(id, last, call.now)?;
    let limits = super::limits_of(call.config);
    let pairs = (0..pairs.len() / 2).map(|i| (pairs.at(2 * i), pairs.at(2 * i + 1)));
    let entry = call.shards.stream_add(db, &key, entry.as_ref(), id, pairs, &limits)?;
    call.notify(EventClass::STREAM, "xadd", key.bytes);
    // Adding and trimming count as one change.
    let removed = trim_stream(call, &key, &entry, &options);
    call.shards.uncount(&entry, removed);
    ids::show(call.reply, id);
    Ok(())
}

/// Trims the stream as the options say; returns the number of removed entries.
fn trim_stream(call: &mut Call<'_>, key: &Key<'_>, entry: &Entry, options: &XaddOptions) -> u64 {
    let Some(trim) = options.trim else { return 0 };
    let db = call.session.db;
    let removed = call.shards.stream_trim(db, key, entry, trim, options.is_exact, options.limit);
    if removed > 0 {
        call.notify(EventClass::STREAM, "xtrim", key.bytes);
    }
    removed
}

pub(super) fn xtrim(call: &mut Call<'_>) -> CommandResult {
    let key = call.key(1);
    let options = parse(call, false)?;
    let entry = call.shards.stream(call.session.db, &key)?;
    let removed = entry.map_or(0, |entry| trim_stream(call, &key, &entry, &options));
    call.reply.integer(removed.cast_signed());
    Ok(())
}
