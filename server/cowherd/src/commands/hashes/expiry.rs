//! Expiry of fields: HEXPIRE, HTTL, HPERSIST and their variants.

use crate::clients::EventClass;
use crate::commands::call::Call;
use crate::commands::error_reply::{CommandResult, ErrorReply};
use crate::keyspace::{ExpireRule, FieldExpiryOutcome, Key};
use cowherd_resp::{Args, parse_i64};

use super::{notify_removal, read};

const NO_FIELDS: ErrorReply =
    ErrorReply::new("ERR Mandatory argument FIELDS is missing or not at the right position");
const OTHER_NUMBER: ErrorReply =
    ErrorReply::new("ERR The `numfields` parameter must match the number of arguments");
const NOT_POSITIVE: ErrorReply = ErrorReply::new("ERR Number of fields must be a positive integer");
const NONE_TO_CHANGE: ErrorReply =
    ErrorReply::new("ERR Parameter `numFields` should be greater than 0");
const NEGATIVE: ErrorReply = ErrorReply::new("ERR invalid expire time, must be >= 0");

/// The latest expiry of a field, as in Redis: a Unix time of 46 bits in milliseconds.
const LATEST: i64 = (1 << 46) - 1;

/// Units in milliseconds.
const SECOND: i64 = 1000;
const MILLISECOND: i64 = 1;

pub(super) fn hexpire(call: &mut Call<'_>) -> CommandResult {
    set(call, SECOND, call.now)
}

pub(super) fn hpexpire(call: &mut Call<'_>) -> CommandResult {
    set(call, MILLISECOND, call.now)
}

pub(super) fn hexpireat(call: &mut Call<'_>) -> CommandResult {
    set(call, SECOND, 0)
}

pub(super) fn hpexpireat(call: &mut Call<'_>) -> CommandResult {
    set(call, MILLISECOND, 0)
}

/// The fields after `FIELDS numfields` at argument `i`. `bad_number` is the error for a `numfields`
/// that is no positive integer.
pub(super) fn fields<'c>(
    call: &Call<'c>,
    i: usize,
    bad_number: ErrorReply,
) -> Result<Args<'c>, ErrorReply> {
    if !call.is(i, "fields") {
        return Err(NO_FIELDS);
    }
    let number = call.args.get(i + 1).and_then(parse_i64).filter(|number| *number > 0);
    let number = number.ok_or(bad_number)?;
    let fields = call.args.from(i + 2);
    match usize::try_from(number) {
        Ok(number) if number == fields.len() => Ok(fields),
        _ => Err(OTHER_NUMBER),
    }
}

/// As [`fields`], with the error of commands that set no expiry.
pub(super) fn fields_at<'c>(call: &Call<'c>, i: usize) -> Result<Args<'c>, ErrorReply> {
    fields(call, i, NOT_POSITIVE)
}

/// The time in argument `i`, counted in `unit`s from `base` on, as a Unix time in milliseconds.
pub(super) fn expiry_time(
    call: &Call<'_>,
    i: usize,
    unit: i64,
    base: i64,
) -> Result<i64, ErrorReply> {
    let time = call.integer(i)?;
    if time < 0 {
        return Err(NEGATIVE);
    }
    let at = time.checked_mul(unit).and_then(|time| time.checked_add(base));
    at.filter(|at| *at <= LATEST).ok_or_else(|| {
        ErrorReply::text(format!("ERR invalid expire time in '{}' command", call.row.command.name))
    })
}

/// Sets the expiry of fields to the time in argument 2, in `unit`s from `base` on.
fn set(call: &mut Call<'_>, unit: i64, base: i64) -> CommandResult {
    let (db, key) = (call.session.db, call.key(1));
    let entry = call.shards.hash(db, &key)?;
    let at = expiry_time(call, 2, unit, base)?;
    let mut rule = ExpireRule::default();
    let condition = match () {
        () if call.is(3, "nx") => Some(&mut rule.if_none),
        () if call.is(3, "xx") => Some(&mut rule.if_some),
        () if call.is(3, "gt") => Some(&mut rule.if_later),
        () if call.is(3, "lt") => Some(&mut rule.if_earlier),
        () => None,
    };
    let first = if let Some(condition) = condition {
        *condition = true;
        4
    } else {
        3
    };
    let fields = fields(call, first, NONE_TO_CHANGE)?;
    let outcomes = match entry {
        Some(entry) => call.shards.hash_expire(db, &key, &entry, fields.iter(), at, rule)?,
        None => vec![FieldExpiryOutcome::Missing; fields.len()],
    };
    notify(call, &key, "hexpire", &outcomes);
    show(call, &outcomes);
    Ok(())
}

/// Emits `event` if an expiry has changed, and the event of removed fields.
pub(super) fn notify(
    call: &mut Call<'_>,
    key: &Key<'_>,
    event: &str,
    outcomes: &[FieldExpiryOutcome],
) {
    if outcomes.contains(&FieldExpiryOutcome::Changed) {
        call.notify(EventClass::HASH, event, key.bytes);
    }
    if outcomes.contains(&FieldExpiryOutcome::Gone) {
        notify_removal(call, key);
    }
}

fn show(call: &mut Call<'_>, outcomes: &[FieldExpiryOutcome]) {
    call.reply.array(outcomes.len());
    for outcome in outcomes {
        call.reply.integer(match outcome {
            FieldExpiryOutcome::Missing => -2,
            FieldExpiryOutcome::HadNone => -1,
            FieldExpiryOutcome::Refused => 0,
            FieldExpiryOutcome::Changed => 1,
            FieldExpiryOutcome::Gone => 2,
        });
    }
}

pub(super) fn hpersist(call: &mut Call<'_>) -> CommandResult {
    let (db, key) = (call.session.db, call.key(1));
    let entry = call.shards.hash(db, &key)?;
    let fields = fields_at(call, 2)?;
    let outcomes = match entry {
        Some(entry) => call.shards.hash_persist(db, &key, &entry, fields.iter())?,
        None => vec![FieldExpiryOutcome::Missing; fields.len()],
    };
    notify(call, &key, "hpersist", &outcomes);
    show(call, &outcomes);
    Ok(())
}

pub(super) fn httl(call: &mut Call<'_>) -> CommandResult {
    get(call, SECOND, call.now)
}

pub(super) fn hpttl(call: &mut Call<'_>) -> CommandResult {
    get(call, MILLISECOND, call.now)
}

pub(super) fn hexpiretime(call: &mut Call<'_>) -> CommandResult {
    get(call, SECOND, 0)
}

pub(super) fn hpexpiretime(call: &mut Call<'_>) -> CommandResult {
    get(call, MILLISECOND, 0)
}

/// Replies the expiry of fields in `unit`s from `base` on, rounded up.
fn get(call: &mut Call<'_>, unit: i64, base: i64) -> CommandResult {
    let entry = read(call)?;
    let fields = fields_at(call, 2)?;
    call.reply.array(fields.len());
    for field in fields.iter() {
        let found = entry.as_ref().and_then(|entry| call.shards.hash_get(entry, field));
        call.reply.integer(match found {
            None => -2,
            Some((_, None)) => -1,
            Some((_, Some(at))) => at.saturating_sub(base).saturating_add(unit - 1) / unit,
        });
    }
    Ok(())
}
