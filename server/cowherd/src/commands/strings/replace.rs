//! Commands that set, replace or remove the value of one key.

use crate::clients::EventClass;
use crate::commands::call::Call;
use crate::commands::error_reply::CommandResult;
use crate::keyspace::OutOfMemory;
use crate::keyspace::{Entry, Expiry, Key};

use super::set_options::{
    ExpiryChange, ExpiryUnit, OptionsOf, SetCondition, SetOptions, expiry_time,
};
use super::show;

/// SET with options.
pub(super) fn set_with_options(call: &mut Call<'_>) -> CommandResult {
    let options = SetOptions::parse(call, 3, OptionsOf::Set)?;
    let expiry = match options.expiry {
        ExpiryChange::At(i, unit) => Expiry::At(expiry_time(call, i, unit)?),
        ExpiryChange::Keep => Expiry::Keep,
        ExpiryChange::Default | ExpiryChange::Persist => Expiry::None,
    };
    let key = call.key(1);
    let old = if options.get {
        let old = call.shards.lookup_read(call.session.db, &key);
        show(call, old.as_ref())?;
        old
    } else {
        call.shards.lookup(call.session.db, &key)
    };
    let allowed = match options.condition {
        SetCondition::Always => true,
        SetCondition::IfAbsent => old.is_none(),
        SetCondition::IfPresent => old.is_some(),
    };
    if allowed {
        store(call, &key, old.as_ref(), 2, expiry)?;
    }
    match (options.get, allowed) {
        (true, _) => {}
        (false, true) => call.reply.ok(),
        (false, false) => call.reply.null(),
    }
    Ok(())
}

/// Sets a key to argument `value`; `old` is the key's entry. A value that has expired already is
/// not stored, and the key is removed.
fn store(
    call: &mut Call<'_>,
    key: &Key<'_>,
    old: Option<&Entry>,
    value: usize,
    expiry: Expiry,
) -> Result<(), OutOfMemory> {
    match expiry {
        Expiry::At(at) if at <= call.now => {
            // In Redis the key exists until the next access to it.
            if !call.shards.remove(call.session.db, key) {
                call.shards.changed(key.shard);
                call.notify(EventClass::NEW, "new", key.bytes);
            }
            call.notify(EventClass::STRING, "set", key.bytes);
            call.notify(EventClass::GENERIC, "expire", key.bytes);
            call.notify(EventClass::EXPIRED, "expired", key.bytes);
        }
        _ => {
            call.shards.replace(call.session.db, key, old, call.args.at(value), expiry)?;
            call.notify(EventClass::STRING, "set", key.bytes);
            if matches!(expiry, Expiry::At(_)) {
                call.notify(EventClass::GENERIC, "expire", key.bytes);
            }
        }
    }
    Ok(())
}

pub(super) fn setnx(call: &mut Call<'_>) -> CommandResult {
    let key = call.key(1);
    let is_new = call.shards.lookup(call.session.db, &key).is_none();
    if is_new {
        store(call, &key, None, 2, Expiry::None)?;
    }
    call.reply.integer(i64::from(is_new));
    Ok(())
}

pub(super) fn setex(call: &mut Call<'_>) -> CommandResult {
    set_for(call, ExpiryUnit::Seconds)
}

pub(super) fn psetex(call: &mut Call<'_>) -> CommandResult {
    set_for(call, ExpiryUnit::Milliseconds)
}

fn set_for(call: &mut Call<'_>, unit: ExpiryUnit) -> CommandResult {
    let expiry = Expiry::At(expiry_time(call, 2, unit)?);
    let key = call.key(1);
    call.shards.set(call.session.db, &key, call.args.at(3), expiry)?;
    call.notify(EventClass::STRING, "set", key.bytes);
    call.notify(EventClass::GENERIC, "expire", key.bytes);
    call.reply.ok();
    Ok(())
}

pub(super) fn getset(call: &mut Call<'_>) -> CommandResult {
    let key = call.key(1);
    let old = call.shards.lookup_read(call.session.db, &key);
    show(call, old.as_ref())?;
    store(call, &key, old.as_ref(), 2, Expiry::None)?;
    Ok(())
}

pub(super) fn getdel(call: &mut Call<'_>) -> CommandResult {
    let key = call.key(1);
    let old = call.shards.lookup_read(call.session.db, &key);
    show(call, old.as_ref())?;
    if old.is_some() {
        call.shards.remove(call.session.db, &key);
        call.notify(EventClass::GENERIC, "del", key.bytes);
    }
    Ok(())
}

pub(super) fn getex(call: &mut Call<'_>) -> CommandResult {
    let options = SetOptions::parse(call, 2, OptionsOf::Getex)?;
    let key = call.key(1);
    let db = call.session.db;
    let Some(entry) = call.shards.lookup_read(db, &key) else {
        call.reply.null();
        return Ok(());
    };
    show(call, Some(&entry))?;
    match options.expiry {
        ExpiryChange::At(i, unit) => {
            let at = expiry_time(call, i, unit)?;
            if at <= call.now {
                call.shards.remove(db, &key);
                call.notify(EventClass::GENERIC, "del", key.bytes);
            } else {
                call.shards.set_expiry(db, &key, &entry, Some(at))?;
                call.notify(EventClass::GENERIC, "expire", key.bytes);
            }
        }
        ExpiryChange::Persist => {
            if call.shards.expiry(&entry).is_some() {
                call.shards.set_expiry(db, &key, &entry, None)?;
                call.notify(EventClass::GENERIC, "persist", key.bytes);
            }
        }
        ExpiryChange::Default | ExpiryChange::Keep => {}
    }
    Ok(())
}
