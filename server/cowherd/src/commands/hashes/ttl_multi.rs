//! Commands on the values and the expiry of several fields: HGETDEL, HGETEX, HSETEX.

use crate::clients::EventClass;
use crate::commands::call::Call;
use crate::commands::error_reply::{CommandResult, ErrorReply};
use crate::keyspace::{ExpireRule, Expiry};
use cowherd_resp::parse_i64;

use super::expiry::{expiry_time, fields_at, notify};
use super::{limits, notify_removal, show};

const ONE_CONDITION: ErrorReply =
    ErrorReply::new("ERR Only one of FXX or FNX arguments can be specified");
const ONE_TIME: ErrorReply =
    ErrorReply::new("ERR Only one of EX, PX, EXAT, PXAT or KEEPTTL arguments can be specified");
const BAD_NUMBER: ErrorReply = ErrorReply::new("ERR invalid number of fields");

pub(super) fn hgetdel(call: &mut Call<'_>) -> CommandResult {
    let (db, key) = (call.session.db, call.key(1));
    let entry = call.shards.hash(db, &key)?;
    let fields = fields_at(call, 2)?;
    // A repeated field is missing from its second occurrence on.
    call.reply.array(fields.len());
    for (i, field) in fields.iter().enumerate() {
        let is_taken = fields.iter().take(i).any(|taken| taken == field);
        show(call, entry.as_ref().filter(|_| !is_taken), field);
    }
    if let Some(entry) = entry
        && call.shards.hash_remove(db, &key, &entry, fields.iter())? > 0
    {
        notify_removal(call, &key);
    }
    Ok(())
}

/// The expiry time of the option at argument `i`; `None` if that is no option of a time.
fn time_option(call: &Call<'_>, i: usize) -> Option<Result<i64, ErrorReply>> {
    let (unit, base) = match () {
        () if call.is(i, "ex") => (1000, call.now),
        () if call.is(i, "px") => (1, call.now),
        () if call.is(i, "exat") => (1000, 0),
        () if call.is(i, "pxat") => (1, 0),
        () => return None,
    };
    Some(expiry_time(call, i + 1, unit, base))
}

pub(super) fn hgetex(call: &mut Call<'_>) -> CommandResult {
    let (db, key) = (call.session.db, call.key(1));
    let entry = call.shards.hash(db, &key)?;
    let (expiry, first) = match time_option(call, 2) {
        Some(at) => (Expiry::At(at?), 4),
        None if call.is(2, "persist") => (Expiry::None, 3),
        None => (Expiry::Keep, 2),
    };
    if call.args.len() < first + 2 {
        return Err(call.row.wrong_arity());
    }
    let fields = fields_at(call, first)?;
    call.reply.array(fields.len());
    for field in fields.iter() {
        show(call, entry.as_ref(), field);
    }
    let Some(entry) = entry else { return Ok(()) };
    match expiry {
        Expiry::Keep => {}
        Expiry::None => {
            let outcomes = call.shards.hash_persist(db, &key, &entry, fields.iter())?;
            notify(call, &key, "hpersist", &outcomes);
        }
        Expiry::At(at) => {
            let rule = ExpireRule::default();
            let outcomes = call.shards.hash_expire(db, &key, &entry, fields.iter(), at, rule)?;
            notify(call, &key, "hexpire", &outcomes);
        }
    }
    Ok(())
}

struct HsetexOptions {
    /// FXX: all fields must exist (`true`); FNX: none may exist (`false`).
    require_present: Option<bool>,
    expiry: Option<Expiry>,
    /// The argument of the first field.
    first: usize,
}

impl HsetexOptions {
    fn parse(call: &Call<'_>) -> Result<Self, ErrorReply> {
        let mut options = Self { require_present: None, expiry: None, first: 0 };
        let mut i = 2;
        while i < call.args.len() {
            if call.is(i, "fields") {
                options.first = i + 2;
                return options.check_number(call, i + 1);
            }
            if call.is(i, "fnx") || call.is(i, "fxx") {
                let wanted = call.is(i, "fxx");
                if options.require_present.replace(wanted).is_some() {
                    return Err(ONE_CONDITION);
                }
                i += 1;
                continue;
            }
            let (expiry, len) = match time_option(call, i) {
                Some(_) if call.args.len() == i + 1 => return Err(call.row.wrong_arity()),
                Some(at) if options.expiry.is_none() => (Expiry::At(at?), 2),
                Some(_) => (Expiry::None, 2),
                None if call.is(i, "keepttl") => (Expiry::Keep, 1),
                None => {
                    return Err(ErrorReply::quoting(&[b"ERR unknown argument: ", call.args.at(i)]));
                }
            };
            if options.expiry.replace(expiry).is_some() {
                return Err(ONE_TIME);
            }
            i += len;
        }
        Err(call.row.wrong_arity())
    }

    /// Checks that the number of pairs equals argument `i`.
    fn check_number(self, call: &Call<'_>, i: usize) -> Result<Self, ErrorReply> {
        let given = call.args.from(self.first).len();
        if given == 0 {
            return Err(call.row.wrong_arity());
        }
        let number = parse_i64(call.args.at(i)).and_then(|number| i32::try_from(number).ok());
        let number = number.and_then(|number| usize::try_from(number).ok()).filter(|n| *n > 0);
        let number = number.ok_or(BAD_NUMBER)?;
        match number.checked_mul(2) == Some(given) {
            true => Ok(self),
            false => Err(call.row.wrong_arity()),
        }
    }
}

pub(super) fn hsetex(call: &mut Call<'_>) -> CommandResult {
    let options = HsetexOptions::parse(call)?;
    let (db, key, args, limits) = (call.session.db, call.key(1), call.args, limits(call));
    let old = call.shards.hash(db, &key)?;
    let pairs = (options.first..args.len()).step_by(2).map(|i| (args.at(i), args.at(i + 1)));
    let mut names = pairs.clone().map(|(name, _)| name);
    let is_there =
        |name: &[u8]| old.as_ref().is_some_and(|old| call.shards.hash_get(old, name).is_some());
    let may =
        options.require_present.is_none_or(|wanted| names.all(|name| is_there(name) == wanted));
    if may {
        match options.expiry.unwrap_or(Expiry::None) {
            // The fields would expire at once.
            Expiry::At(at) if at <= call.now => {
                let (names, mut removed) = (pairs.clone().map(|(name, _)| name), 0);
                if let Some(old) = old {
                    removed = call.shards.hash_remove(db, &key, &old, names)?;
                    if removed > 0 {
                        notify_removal(call, &key);
                    }
                }
                // Each field counts as a change, also one that was not there.
                let missing = pairs.count() as u64 - removed;
                if missing > 0 {
                    call.shards.changed_times(key.shard, missing);
                }
            }
            expiry => {
                call.shards.hash_set(db, &key, old.as_ref(), pairs, expiry, &limits)?;
                call.notify(EventClass::HASH, "hset", key.bytes);
                if matches!(expiry, Expiry::At(_)) {
                    call.notify(EventClass::HASH, "hexpire", key.bytes);
                }
            }
        }
    }
    call.reply.integer(i64::from(may));
    Ok(())
}
