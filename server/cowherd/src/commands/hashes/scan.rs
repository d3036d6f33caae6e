//! Iteration over all fields: HGETALL, HKEYS, HVALS, HSCAN.

use crate::commands::call::Call;
use crate::commands::element_scan::{ElementScanOptions, scan_cursor, scan_head};
use crate::commands::error_reply::CommandResult;
use crate::commands::value_reply::bulk_value;

use super::read;

pub(super) fn hgetall(call: &mut Call<'_>) -> CommandResult {
    let Some(entry) = read(call)? else {
        call.reply.map(0);
        return Ok(());
    };
    if let Some(len) = call.shards.hash_exact_len(&entry) {
        call.reply.map(len);
        call.shards.hash_each(&entry, |field, value| {
            bulk_value(call.reply, field);
            bulk_value(call.reply, value);
        });
        return Ok(());
    }
    let (map, mut len) = (call.reply.deferred_array(), 0);
    call.shards.hash_each(&entry, |field, value| {
        bulk_value(call.reply, field);
        bulk_value(call.reply, value);
        len += 1;
    });
    call.reply.set_map_len(map, len);
    Ok(())
}

pub(super) fn hkeys(call: &mut Call<'_>) -> CommandResult {
    list(call, true)
}

pub(super) fn hvals(call: &mut Call<'_>) -> CommandResult {
    list(call, false)
}

fn list(call: &mut Call<'_>, names: bool) -> CommandResult {
    let Some(entry) = read(call)? else {
        call.reply.array(0);
        return Ok(());
    };
    let (array, mut len) = (call.reply.deferred_array(), 0);
    call.shards.hash_each(&entry, |field, value| {
        bulk_value(call.reply, if names { field } else { value });
        len += 1;
    });
    call.reply.set_array_len(array, len);
    Ok(())
}

pub(super) fn hscan(call: &mut Call<'_>) -> CommandResult {
    let cursor = scan_cursor(call)?;
    let Some(entry) = read(call)? else {
        scan_head(call.reply, None);
        call.reply.array(0);
        return Ok(());
    };
    let options = ElementScanOptions::parse(call, true)?;
    let start = call.reply.len();
    let (array, mut len) = (call.reply.deferred_array(), 0);
    let next = call.shards.hash_scan(&entry, cursor, options.count, |field, value| {
        if !options.matches(field) {
            return;
        }
        bulk_value(call.reply, field);
        len += 1;
        if !options.names_only {
            bulk_value(call.reply, value);
            len += 1;
        }
    });
    call.reply.set_array_len(array, len);
    // The cursor precedes the elements, but is known only after the scan.
    let end = call.reply.len();
    scan_head(call.reply, next);
    let head = call.reply.len() - end;
    call.reply.out[start..].rotate_right(head);
    Ok(())
}
