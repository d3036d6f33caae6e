//! SORT and SORT_RO: the elements of a list, set or sorted set, sorted by themselves or by the
//! values of other keys.
//!
//! The keys that BY and GET read depend on the elements, so that all shards are locked.

mod options;
mod pattern;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;

use crate::clients::EventClass;
use crate::keyspace::{Entry, ValueType};
use cowherd_resp::{before_zero, parse_f64};

use super::call::Call;
use super::error_reply::{CommandResult, ErrorReply};
use super::lists;
use super::table::{Command, CommandFlags, CommandGroup, KeyPositions, KeyUse, OptionKey};

use options::SortOptions;

const GROUP: CommandGroup = CommandGroup::Generic;

/// The keys that BY and GET read. Their names are made of the elements.
const PATTERN_KEYS: OptionKey = OptionKey { key_use: KeyUse::READ, find: |_| None };
/// The destination of STORE.
const STORE_KEY: OptionKey =
    OptionKey { key_use: KeyUse::OVERWRITE, find: SortOptions::store_index };

pub(super) const COMMANDS: &[Command] = &[
    Command::new("sort", -2, CommandFlags::WRITE.with(CommandFlags::DENYOOM), sort)
        .doc(GROUP, "1.0.0", "Returns elements in order, or stores them in a list.")
        .keys(KeyPositions::ONE, KeyUse::READ)
        .syntax(
            "key [BY by-pattern=pattern#1] [LIMIT offset count] [(GET get-pattern=pattern#1)...] \
             order:[ASC|DESC] [sorting:ALPHA] [STORE destination#2]",
        )
        .option_keys(&[PATTERN_KEYS, STORE_KEY])
        .categories(&["@set", "@sortedset", "@list", "@dangerous"]),
    Command::new("sort_ro", -2, CommandFlags::READONLY, sort_ro)
        .doc(GROUP, "7.0.0", "Returns elements in order.")
        .keys(KeyPositions::ONE, KeyUse::READ)
        .syntax(
            "key [BY by-pattern=pattern#1] [LIMIT offset count] [(GET get-pattern=pattern#1)...] \
             order:[ASC|DESC] [sorting:ALPHA]",
        )
        .option_keys(&[PATTERN_KEYS])
        .categories(&["@set", "@sortedset", "@list", "@dangerous"]),
];

const NOT_NUMBERS: ErrorReply =
    ErrorReply::new("ERR One or more scores can't be converted into double");

/// An element with its sort key.
struct SortItem {
    element: Vec<u8>,
    weight: SortWeight,
}

/// The sort key of an element.
enum SortWeight {
    /// The bytes of the element.
    Own,
    Number(f64),
    /// The bytes of another key's value, if it exists.
    Other(Option<Vec<u8>>),
}

impl SortItem {
    fn compare(&self, other: &Self) -> Ordering {
        match (&self.weight, &other.weight) {
            (SortWeight::Number(one), SortWeight::Number(two)) => {
                one.total_order(*two).then_with(|| self.element.cmp(&other.element))
            }
            (SortWeight::Other(one), SortWeight::Other(two)) => one.cmp(two),
            _ => self.element.cmp(&other.element),
        }
    }
}

/// The order of numbers without NaN; both zeros are equal.
trait TotalOrder {
    fn total_order(self, other: Self) -> Ordering;
}

impl TotalOrder for f64 {
    fn total_order(self, other: Self) -> Ordering {
        self.partial_cmp(&other).unwrap_or(Ordering::Equal)
    }
}

fn sort(call: &mut Call<'_>) -> CommandResult {
    let options = SortOptions::parse(call, true)?;
    run(call, &options)
}

fn sort_ro(call: &mut Call<'_>) -> CommandResult {
    let options = SortOptions::parse(call, false)?;
    run(call, &options)
}

fn run(call: &mut Call<'_>, options: &SortOptions) -> CommandResult {
    let key = call.key(1);
    let entry = call.shards.lookup_read(call.session.db, &key);
    let mut order = options.order();
    let mut items = Vec::new();
    if let Some(entry) = entry {
        if !matches!(entry.kind(), ValueType::List | ValueType::Set | ValueType::SortedSet) {
            return Err(ErrorReply::WRONG_TYPE);
        }
        let is_defined = options.store.is_none() && call.session.script_start.is_none();
        if order == SortOrder::Native && entry.kind() == ValueType::Set && !is_defined {
            // Neither a stored result nor a script may depend on the order within the set.
            order = SortOrder::Own { alpha: true };
        }
        let elements = load(call, &entry, order == SortOrder::Native && options.desc);
        items = weigh(call, elements, order)?;
    }
    if order != SortOrder::Native {
        items.sort_by(|one, two| match options.desc {
            true => two.compare(one),
            false => one.compare(two),
        });
    }
    let selected = &items[options.range(items.len())];
    match options.store {
        Some(target) => store(call, target, options, selected),
        None => answer(call, options, selected),
    }
}

/// The order of the elements.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SortOrder<'c> {
    /// BY with a pattern without a star: unsorted.
    Native,
    /// By the elements.
    Own { alpha: bool },
    /// BY: by the values of a pattern.
    By { pattern: &'c [u8], alpha: bool },
}

/// All elements in the order of the value, or in reverse.
fn load(call: &Call<'_>, entry: &Entry, is_backward: bool) -> Vec<Vec<u8>> {
    let mut elements = Vec::new();
    let mut digits = itoa::Buffer::new();
    match entry.kind() {
        ValueType::Set => call.shards.set_each(entry, |member| {
            elements.push(member.bytes(&mut digits).to_vec());
        }),
        ValueType::SortedSet => {
            let set = call.shards.sorted_set(entry);
            set.each(0, set.len(), false, |member, _| {
                elements.push(member.bytes(&mut digits).to_vec());
            });
        }
        _ => {
            if let Some(last) = call.shards.list_len(entry).checked_sub(1) {
                call.shards.list_range(entry, &(0..=last), |element| {
                    elements.push(element.bytes(&mut digits).to_vec());
                });
            }
        }
    }
    if is_backward && entry.kind() != ValueType::Set {
        elements.reverse();
    }
    elements
}

/// Determines the sort keys.
fn weigh(
    call: &mut Call<'_>,
    elements: Vec<Vec<u8>>,
    order: SortOrder<'_>,
) -> Result<Vec<SortItem>, ErrorReply> {
    let mut items = Vec::with_capacity(elements.len());
    let mut are_numbers = true;
    let mut number = |bytes: &[u8]| {
        let number = number(bytes);
        are_numbers &= number.is_some();
        SortWeight::Number(number.unwrap_or(0.0))
    };
    for element in elements {
        let weight = match order {
            SortOrder::Native | SortOrder::Own { alpha: true } => SortWeight::Own,
            SortOrder::Own { alpha: false } => number(&element),
            SortOrder::By { pattern, alpha } => {
                let value = pattern::look_up(call, pattern, &element);
                match (value, alpha) {
                    (value, true) => SortWeight::Other(value),
                    (Some(value), false) => number(&value),
                    (None, false) => SortWeight::Number(0.0),
                }
            }
        };
        items.push(SortItem { element, weight });
    }
    if are_numbers { Ok(items) } else { Err(NOT_NUMBERS) }
}

/// Parses a number as `strtod` does: leading blanks are skipped, the text ends at its first zero
/// byte, and an empty one is 0.
fn number(bytes: &[u8]) -> Option<f64> {
    let bytes = before_zero(bytes);
    let blanks = bytes.iter().take_while(|byte| matches!(byte, 9..=13 | b' ')).count();
    match &bytes[blanks..] {
        [] if blanks == 0 => Some(0.0),
        [] => None,
        rest => parse_f64(rest),
    }
}

/// Calls `each` with the values to return for the selected elements, in order.
fn outputs(
    call: &mut Call<'_>,
    options: &SortOptions,
    selected: &[SortItem],
    mut each: impl FnMut(&mut Call<'_>, Option<&[u8]>) -> CommandResult,
) -> CommandResult {
    for item in selected {
        if options.gets.is_empty() {
            each(call, Some(&item.element))?;
        }
        for pattern in &options.gets {
            let value = pattern::look_up(call, pattern, &item.element);
            each(call, value.as_deref())?;
        }
    }
    Ok(())
}

fn answer(call: &mut Call<'_>, options: &SortOptions, selected: &[SortItem]) -> CommandResult {
    call.reply.array(selected.len() * options.gets.len().max(1));
    outputs(call, options, selected, |call, value| {
        match value {
            Some(value) => call.reply.bulk(value),
            None => call.reply.null(),
        }
        Ok(())
    })
}

fn store(
    call: &mut Call<'_>,
    target: &[u8],
    options: &SortOptions,
    selected: &[SortItem],
) -> CommandResult {
    let (db, key, limits) =
        (call.session.db, call.shared.keyspace.key(call.session.db, target), lists::limits(call));
    let mut elements = Vec::with_capacity(selected.len());
    outputs(call, options, selected, |_, value| {
        elements.push(value.unwrap_or_default().to_vec());
        Ok(())
    })?;
    if !elements.is_empty() {
        call.shards.list_put(db, &key, &elements, &limits)?;
        call.notify(EventClass::LIST, "sortstore", key.bytes);
    } else if call.shards.remove(db, &key) {
        call.notify(EventClass::GENERIC, "del", key.bytes);
    }
    call.reply.integer(i64::try_from(elements.len()).unwrap_or(i64::MAX));
    Ok(())
}
