//! Expressions and their results, in `tables/`, as redis-server 7.0.15 has them; those with
//! `decode_array_with_array_mt` as Redis 8.4 is documented.

use crate::{lua, run};

/// Runs the expressions of a table: a line of Lua, and a line with `=>` and the result as text.
fn check(table: &str) {
    let lua = lua();
    for entry in table.split_inclusive('\n').collect::<Vec<_>>().chunks(2) {
        let expression = entry[0].trim_end();
        let expected = entry[1].strip_prefix("  => ").unwrap().trim_end_matches('\n');
        let is_body = expression.contains("return ");
        let body = if is_body { expression.to_owned() } else { format!("return {expression}") };
        assert_eq!(run(&lua, &body), expected, "{expression}");
    }
}

#[test]
fn cjson() {
    check(include_str!("tables/cjson.txt"));
}

#[test]
fn cmsgpack() {
    check(include_str!("tables/cmsgpack.txt"));
}

#[test]
fn structs() {
    check(include_str!("tables/struct.txt"));
}

#[test]
fn bit() {
    check(include_str!("tables/bit.txt"));
}
