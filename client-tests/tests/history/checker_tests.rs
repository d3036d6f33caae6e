//! Histories with a known result, and random ones that are also checked by trying every order.

use super::*;
use crate::model::Entry;
use crate::reply::word;
use crate::simulation::{alter, simulate};
use client_tests::random::{Random, seed};
use std::sync::Arc;

const EXACT: Rules = Rules { may_evict: false };
const EVICTING: Rules = Rules { may_evict: true };

/// One operation: client, first and last tick, request (`;` between commands of a transaction),
/// reply.
type Row<'r> = (usize, Tick, Tick, &'r str, &'r str);

fn request(text: &str) -> Request {
    let words = |text: &str| text.split_whitespace().map(word).collect();
    match text.split_once(';') {
        None => Request::Command(words(text)),
        Some(_) => Request::Transaction(
            text.split(';').filter(|text| !text.trim().is_empty()).map(words).collect(),
        ),
    }
}

/// `nil`, `OK`, a number, `"text`, or several in brackets.
fn reply(text: &str) -> Reply {
    if let Some(items) = text.strip_prefix('[') {
        let items = items.trim_end_matches(']').split_whitespace();
        return Reply::Array(items.map(reply).collect());
    }
    match text.strip_prefix('"') {
        Some(bulk) => Reply::Bulk(word(bulk)),
        None if text == "nil" => Reply::Nil,
        None if text == "OK" => Reply::ok(),
        None => text.parse().map_or_else(|_| Reply::error(text), Reply::Int),
    }
}

fn history(rows: &[Row<'_>]) -> History {
    let operation = |(client, invoked, answered, asked, got): &Row<'_>| Operation {
        client: *client,
        invoked: *invoked,
        answer: (*got != "-").then(|| (*answered, reply(got))),
        request: request(asked),
        after: None,
    };
    History { operations: rows.iter().map(operation).collect(), cuts: Vec::new() }
}

fn is_explained(rules: Rules, history: &History) -> bool {
    Checker::new(rules).check(history).is_ok()
}

fn assert_good(rows: &[Row<'_>]) {
    assert!(is_explained(EXACT, &history(rows)), "{rows:?}");
}

fn assert_bad(rows: &[Row<'_>]) {
    assert!(!is_explained(EXACT, &history(rows)), "{rows:?}");
}

#[test]
fn a_stale_read_is_rejected() {
    assert_bad(&[(1, 0, 1, "SET k 1", "OK"), (2, 2, 3, "GET k", "nil")]);
    assert_good(&[(1, 0, 3, "SET k 1", "OK"), (2, 2, 4, "GET k", "nil")]);
    // After one reader has seen the new value, a later one must.
    let new_then_old = |last| {
        vec![(1, 0, 9, "SET k 1", "OK"), (2, 1, 3, "GET k", "\"1"), (3, 4, 6, "GET k", last)]
    };
    assert_bad(&new_then_old("nil"));
    assert_good(&new_then_old("\"1"));
}

#[test]
fn a_lost_update_is_rejected() {
    assert_bad(&[(1, 0, 3, "INCR k", "1"), (2, 1, 4, "INCR k", "1")]);
    assert_good(&[(1, 0, 3, "INCR k", "2"), (2, 1, 4, "INCR k", "1")]);
    let appended = |end| {
        vec![(1, 0, 5, "APPEND k a", "1"), (2, 1, 6, "APPEND k b", "2"), (3, 7, 8, "GET k", end)]
    };
    assert_good(&appended("\"ab"));
    assert_bad(&appended("\"ba"));
    assert_bad(&appended("\"b"));
}

#[test]
fn half_of_a_transaction_is_rejected() {
    let seen = |values| vec![(1, 0, 9, "INCR a ; INCR b", "[1 1]"), (2, 1, 5, "MGET a b", values)];
    assert_good(&seen("[nil nil]"));
    assert_good(&seen("[\"1 \"1]"));
    assert_bad(&seen("[\"1 nil]"));
    assert_bad(&seen("[nil \"1]"));
    // No order of the two gives both replies.
    assert_bad(&[(1, 0, 9, "INCR a ; INCR b", "[1 2]"), (2, 1, 8, "INCR b ; INCR a", "[1 2]")]);
}

#[test]
fn a_key_is_under_one_name_while_it_is_renamed() {
    let seen = |count| {
        vec![
            (1, 0, 1, "SET a 1", "OK"),
            (1, 2, 9, "RENAME a b", "OK"),
            (2, 3, 5, "EXISTS a b", count),
        ]
    };
    assert_good(&seen("1"));
    assert_bad(&seen("0"));
    assert_bad(&seen("2"));
}

#[test]
fn a_wrong_pop_is_rejected() {
    let popped = |one, other| {
        vec![(1, 0, 1, "RPUSH l a b", "2"), (2, 2, 5, "LPOP l", one), (3, 3, 6, "LPOP l", other)]
    };
    assert_good(&popped("\"b", "\"a"));
    assert_bad(&popped("\"a", "\"a"));
    assert_bad(&popped("\"a", "nil"));
    assert_bad(&popped("\"c", "\"a"));
    assert_bad(&[(1, 0, 1, "SADD s a b", "2"), (2, 2, 3, "SPOP s", "\"c")]);
    assert_bad(&[(1, 0, 1, "SADD s a b", "2"), (2, 2, 3, "SPOP s 2", "[\"a \"a]")]);
    assert_good(&[(1, 0, 1, "SADD s a b", "2"), (2, 2, 3, "SPOP s 2", "[\"b \"a]")]);
}

#[test]
fn a_wait_ends_with_what_was_pushed_meanwhile() {
    let waits = |got, pushed: (Tick, Tick)| {
        vec![
            (1, 1, 20, "BLPOP l m 0", got),
            (2, pushed.0, pushed.1, "RPUSH m x", "1"),
            (3, 30, 31, "LLEN m", "0"),
        ]
    };
    assert_good(&waits("[\"m \"x]", (5, 8)));
    assert_bad(&waits("[\"l \"x]", (5, 8)));
    // Pushed after the reply.
    assert_bad(&waits("[\"m \"x]", (21, 22)));
    // The element is gone although nothing popped it.
    assert_bad(&waits("nil", (5, 8)));
    assert_bad(&[(1, 0, 1, "RPUSH l x", "1"), (2, 2, 9, "BLPOP l 0", "nil")]);
}

#[test]
fn exec_fails_if_and_only_if_a_watched_key_has_changed() {
    let watched = |change, reply| {
        vec![(1, 0, 1, "WATCH k", "OK"), (2, 2, 3, change, "OK"), (1, 4, 5, "INCR n ;", reply)]
    };
    assert_good(&watched("SET k 1", "nil"));
    assert_bad(&watched("SET k 1", "[1]"));
    assert_good(&watched("SET other 1", "[1]"));
    assert_bad(&watched("SET other 1", "nil"));
    // Without a watch nothing fails.
    assert_bad(&[(1, 0, 1, "INCR n ;", "nil")]);
}

#[test]
fn without_a_reply_an_operation_may_have_happened() {
    let unanswered = |read| vec![(1, 0, 0, "SET k 1", "-"), (2, 2, 3, "GET k", read)];
    assert_good(&unanswered("nil"));
    assert_good(&unanswered("\"1"));
    assert_bad(&unanswered("\"2"));
    let mut later = unanswered("nil");
    later.push((2, 4, 5, "GET k", "\"1"));
    assert_good(&later);
    later.push((2, 6, 7, "GET k", "nil"));
    assert_bad(&later);
}

#[test]
fn a_pipeline_is_in_order() {
    let mut both = history(&[(1, 0, 5, "INCR k", "2"), (1, 1, 6, "INCR k", "1")]);
    assert!(is_explained(EXACT, &both));
    both.operations[1].after = Some(0);
    assert!(!is_explained(EXACT, &both));
}

#[test]
fn a_key_vanishes_only_where_it_may_and_never_returns() {
    let vanished = [(1, 0, 1, "SET k 1", "OK"), (2, 2, 3, "GET k", "nil")];
    assert!(!is_explained(EXACT, &history(&vanished)));
    assert!(is_explained(EVICTING, &history(&vanished)));
    let returned = [&vanished[..], &[(2, 4, 5, "GET k", "\"1")]].concat();
    assert!(!is_explained(EVICTING, &history(&returned)));
    let refused = [(1, 0, 1, "SET k 1", "OOM no memory"), (2, 2, 3, "GET k", "\"1")];
    assert!(!is_explained(EVICTING, &history(&refused)));
    assert!(is_explained(EVICTING, &history(&refused[..1])));
    assert!(!is_explained(EXACT, &history(&refused[..1])));
}

#[test]
fn an_eviction_that_nothing_shows_is_no_other_explanation() {
    let rows = [
        (1, 0, 1, "HSET h f 1", "1"),
        (1, 2, 3, "WATCH h", "OK"),
        // It was not evicted before the WATCH.
        (2, 4, 5, "HLEN h", "1"),
        (2, 6, 7, "HDEL h g", "0"),
    ];
    let explanations = |rows: &[Row<'_>]| {
        let mut checker = Checker::new(EVICTING);
        checker.check(&history(rows)).map(|_| checker.states().len()).unwrap_or_default()
    };
    assert_eq!(explanations(&rows), 1);
    // Both can still follow.
    for (length, executed) in [("1", "[0]"), ("0", "nil"), ("0", "[0]")] {
        let exec = (1, 10, 11, "HDEL h g ;", executed);
        let all = [&rows[..], &[(2, 8, 9, "HLEN h", length), exec]].concat();
        let expected = usize::from((length, executed) != ("0", "[0]"));
        assert_eq!(explanations(&all), expected, "{all:?}");
    }
}

fn cut(from: Tick, to: Tick, keys: &[(&str, &str)]) -> Cut {
    let entry = |value: &str| Entry { value: value.as_bytes().to_vec().into(), expires: None };
    let keys = keys.iter().map(|(key, value)| (word(key), Arc::new(entry(value)))).collect();
    Cut { name: "a cut".into(), from, to, keys }
}

fn placed(rules: Rules, rows: &[Row<'_>], cut: Cut) -> Option<Vec<(Tick, Tick)>> {
    let mut history = history(rows);
    history.cuts.push(cut);
    let mut placed = Checker::new(rules).check(&history).ok()?;
    placed.pop().map(|placed| placed.stretches)
}

#[test]
fn a_cut_lies_where_its_content_was_current() {
    let rows = [
        (1, 10, 11, "SET a 1", "OK"),
        (1, 20, 23, "SET b 1", "OK"),
        (1, 30, 31, "SET a 2", "OK"),
        (1, 40, 41, "SET a 1", "OK"),
    ];
    let place = |from, to, keys: &[(&str, &str)]| placed(EXACT, &rows, cut(from, to, keys));
    assert_eq!(place(1, 50, &[]), Some(vec![(1, 10), (10, 11)]));
    assert_eq!(place(1, 50, &[("a", "1")]), Some(vec![(10, 11), (11, 20), (20, 23)]));
    // Current twice.
    let twice = vec![(20, 23), (23, 30), (30, 31), (40, 41), (41, 50)];
    assert_eq!(place(1, 50, &[("a", "1"), ("b", "1")]), Some(twice));
    assert_eq!(place(12, 15, &[("a", "1")]), Some(vec![(12, 15)]));
    // Stale, from the future, a part, and never there.
    assert_eq!(place(24, 50, &[("a", "1")]), None);
    assert_eq!(place(12, 15, &[("a", "1"), ("b", "1")]), None);
    assert_eq!(place(24, 50, &[("b", "1")]), None);
    assert_eq!(place(1, 50, &[("a", "3")]), None);
    // Evicted before, or at, the cut: then it is missing for good.
    let gone = placed(EVICTING, &rows[..2], cut(24, 50, &[("b", "1")]));
    assert_eq!(gone, Some(vec![(24, 50)]));
    let back = [&rows[..2], &[(1, 60, 61, "GET a", "\"1")]].concat();
    assert_eq!(placed(EVICTING, &back, cut(24, 50, &[("b", "1")])), None);
}

#[test]
fn what_comes_after_a_cut_tells_where_it_lies() {
    // Both orders of the SETs explain the cut, until the GET.
    let rows = |last| {
        vec![(1, 10, 20, "SET a 1", "OK"), (2, 11, 21, "SET a 2", "OK"), (3, 30, 31, "GET a", last)]
    };
    let place = |last| placed(EXACT, &rows(last), cut(5, 25, &[("a", "1")]));
    assert_eq!(place("\"1"), Some(vec![(11, 20), (20, 21), (21, 25)]));
    assert_eq!(place("\"2"), Some(vec![(10, 11), (11, 20), (20, 21)]));
}

/// Whether some order of the operations explains a small history: every one is tried.
fn is_explained_by_any_order(history: &History) -> bool {
    fn place(history: &History, state: &State, placed: u64) -> bool {
        let all = &history.operations;
        let open = |i: &usize| placed & 1 << i == 0;
        if (0..all.len()).filter(open).all(|i| all[i].answer.is_none()) {
            return true;
        }
        let ended = |i: usize| all[i].answer.as_ref().map_or(Tick::MAX, |(tick, _)| *tick);
        let first_end = (0..all.len()).filter(open).map(ended).min().unwrap_or(Tick::MAX);
        let before =
            |i: usize| all[i].after.and_then(|tick| all.iter().position(|o| o.invoked == tick));
        (0..all.len()).filter(open).any(|i| {
            let is_next =
                all[i].invoked < first_end && before(i).is_none_or(|b| placed & 1 << b != 0);
            is_next
                && outcomes(EXACT, state, &all[i])
                    .iter()
                    .any(|state| place(history, state, placed | 1 << i))
        })
    }
    place(history, &State::default(), 0)
}

#[test]
fn the_checker_agrees_with_one_that_tries_every_order() {
    const HISTORIES: usize = 1_000;
    const OPERATIONS: usize = 9;
    let mut random = Random::new(seed());
    let (mut good, mut bad) = (0, 0);
    for _ in 0..HISTORIES {
        let family = random.below(crate::workload::groups().len() as u64);
        let mut history = simulate(&mut random, family, 3, OPERATIONS);
        assert!(is_explained(EXACT, &history), "{}", history.to_text());
        for _ in 0..3 {
            alter(&mut random, &mut history);
            let expected = is_explained_by_any_order(&history);
            assert_eq!(is_explained(EXACT, &history), expected, "{}", history.to_text());
            if expected { good += 1 } else { bad += 1 }
        }
    }
    // Both results must occur.
    assert!(good > HISTORIES / 50 && bad > HISTORIES / 2, "{good} explained, {bad} not");
}

#[test]
fn a_long_correct_history_is_explained() {
    let mut random = Random::new(seed());
    for family in 0..crate::workload::groups().len() as u64 {
        let history = simulate(&mut random, family, 5, 2_000);
        let mut checker = Checker::new(EXACT);
        if let Err(violation) = checker.check(&history) {
            panic!("{}", crate::report::describe("simulated", &history, &violation));
        }
        assert!(checker.overlaps > 500, "only {} overlaps", checker.overlaps);
    }
}
