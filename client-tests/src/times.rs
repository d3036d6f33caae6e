//! Comparison of replies that contain times.

use anyhow::{Result, ensure};
use redis::Value;

use crate::wire::show;

/// Allowed difference between times of two servers in milliseconds.
const TOLERANCE_MS: u64 = 20_000;

/// Whether two numbers differ by at most `range`. Negative numbers are codes and must be equal.
#[must_use]
pub const fn are_near(one: i64, other: i64, range: u64) -> bool {
    one == other || one.abs_diff(other) <= range && (one < 0) == (other < 0)
}

/// Compares replies about consumers and pending entries of streams: all values but times and idle
/// times must be equal.
///
/// # Errors
/// Returns an error if the replies differ or cannot be parsed.
pub fn same_but_for_times(redis: &[u8], cowherd: &[u8]) -> Result<()> {
    let both = (redis::parse_redis_value(redis)?, redis::parse_redis_value(cowherd)?);
    ensure!(
        are_same_but_for_times(&both.0, &both.1),
        "redis:   {}\n    cowherd: {}",
        show(redis),
        show(cowherd)
    );
    Ok(())
}

fn are_same_but_for_times(redis: &Value, cowherd: &Value) -> bool {
    let is_time = |name: &Value| match name {
        Value::BulkString(name) => {
            [&b"idle"[..], b"inactive", b"seen-time", b"active-time"].contains(&name.as_slice())
        }
        _ => false,
    };
    let compare = |one: &Value, other: &Value, is_time: bool| match (one, other) {
        (Value::Int(one), Value::Int(other)) if is_time => are_near(*one, *other, TOLERANCE_MS),
        _ => are_same_but_for_times(one, other),
    };
    match (redis, cowherd) {
        (Value::Map(one), Value::Map(other)) => {
            let mut pairs = one.iter().zip(other);
            let same = |((name, one), (other_name, other)): (&(_, _), &(_, _))| {
                name == other_name && compare(one, other, is_time(name))
            };
            one.len() == other.len() && pairs.all(same)
        }
        (Value::Array(one), Value::Array(other)) => {
            // A pending entry ends with its idle time and its number of deliveries.
            let ends = |i: usize| i + 2 == one.len() && matches!(one[i + 1], Value::Int(_));
            let is_time = |i: usize| ends(i) || i > 0 && is_time(&one[i - 1]);
            let same = |i: usize| compare(&one[i], &other[i], is_time(i));
            one.len() == other.len() && (0..one.len()).all(same)
        }
        _ => redis == cowherd,
    }
}
