//! ZADD and ZINCRBY.

use crate::clients::EventClass;
use crate::commands::call::Call;
use crate::commands::error_reply::{CommandResult, ErrorReply};
use crate::keyspace::{Entry, MemberChange};
use cowherd_resp::parse_f64;

use super::{limits, lookup};

const NX_AND_XX: ErrorReply =
    ErrorReply::new("ERR XX and NX options at the same time are not compatible");
const GT_AND_LT: ErrorReply =
    ErrorReply::new("ERR GT, LT, and/or NX options at the same time are not compatible");
const ONE_PAIR: ErrorReply =
    ErrorReply::new("ERR INCR option supports a single increment-element pair");
const NOT_A_NUMBER: ErrorReply = ErrorReply::new("ERR resulting score is not a number (NaN)");

/// The options of ZADD.
#[derive(Clone, Copy, Default)]
struct AddRules {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
    counts_changes: bool,
    adds: bool,
}

/// The effect of the options on a member.
#[derive(Clone, Copy)]
enum AddOutcome {
    /// The member gets this score, which may equal the old one.
    Score(f64),
    /// The member does not change.
    Refused,
    /// The sum is not a number.
    NotANumber,
}

impl AddOutcome {
    const fn score(self) -> Option<f64> {
        match self {
            Self::Score(score) => Some(score),
            Self::Refused | Self::NotANumber => None,
        }
    }
}

impl AddRules {
    /// The options from argument 2 on, and the argument of the first pair.
    fn parse(call: &Call<'_>) -> (Self, usize) {
        let mut rules = Self::default();
        let mut i = 2;
        while i < call.args.len() {
            let rule = match () {
                () if call.is(i, "nx") => &mut rules.nx,
                () if call.is(i, "xx") => &mut rules.xx,
                () if call.is(i, "gt") => &mut rules.gt,
                () if call.is(i, "lt") => &mut rules.lt,
                () if call.is(i, "ch") => &mut rules.counts_changes,
                () if call.is(i, "incr") => &mut rules.adds,
                () => break,
            };
            *rule = true;
            i += 1;
        }
        (rules, i)
    }

    fn decide(&self, old: Option<f64>, score: f64) -> AddOutcome {
        let Some(old) = old else {
            return if self.xx { AddOutcome::Refused } else { AddOutcome::Score(score) };
        };
        if self.nx {
            return AddOutcome::Refused;
        }
        let score = if self.adds { old + score } else { score };
        if score.is_nan() {
            return AddOutcome::NotANumber;
        }
        if self.gt && score <= old || self.lt && score >= old {
            return AddOutcome::Refused;
        }
        AddOutcome::Score(score)
    }
}

pub(super) fn zadd(call: &mut Call<'_>) -> CommandResult {
    let (rules, pairs) = AddRules::parse(call);
    let elements = call.args.len() - pairs;
    if elements == 0 || !elements.is_multiple_of(2) {
        return Err(ErrorReply::SYNTAX);
    }
    if rules.nx && rules.xx {
        return Err(NX_AND_XX);
    }
    if (rules.gt || rules.lt) && rules.nx || rules.gt && rules.lt {
        return Err(GT_AND_LT);
    }
    if rules.adds && elements > 2 {
        return Err(ONE_PAIR);
    }
    put(call, rules, pairs)
}

pub(super) fn zincrby(call: &mut Call<'_>) -> CommandResult {
    put(call, AddRules { adds: true, ..AddRules::default() }, 2)
}

/// Adds the pairs of score and member from argument `pairs` on.
fn put(call: &mut Call<'_>, rules: AddRules, pairs: usize) -> CommandResult {
    let (db, key, limits) = (call.session.db, call.key(1), limits(call));
    for i in (pairs..call.args.len()).step_by(2) {
        parse_f64(call.args.at(i)).ok_or(ErrorReply::NOT_FLOAT)?;
    }
    let entry = lookup(call, 1)?;
    if entry.is_none() && rules.xx {
        reply(call, rules, 0, None);
        return Ok(());
    }
    if call.args.len() > pairs + 2 {
        return put_several(call, rules, pairs, entry);
    }
    let score = parse_f64(call.args.at(pairs)).ok_or(ErrorReply::NOT_FLOAT)?;
    let member = call.args.at(pairs + 1);
    let mut outcome = AddOutcome::Refused;
    let (_, put) = call.shards.put_member(db, &key, entry, member, &limits, |old| {
        outcome = rules.decide(old, score);
        outcome.score()
    })?;
    if let AddOutcome::NotANumber = outcome {
        return Err(NOT_A_NUMBER);
    }
    if put != MemberChange::Nothing {
        notify(call, rules);
    }
    let counts = put == MemberChange::Added || rules.counts_changes && put == MemberChange::Changed;
    reply(call, rules, i64::from(counts), outcome.score());
    Ok(())
}

fn put_several(
    call: &mut Call<'_>,
    rules: AddRules,
    pairs: usize,
    entry: Option<Entry>,
) -> CommandResult {
    let (db, key, limits) = (call.session.db, call.key(1), limits(call));
    let (mut scores, mut members) = (Vec::new(), Vec::new());
    for i in (pairs..call.args.len()).step_by(2) {
        scores.push(parse_f64(call.args.at(i)).ok_or(ErrorReply::NOT_FLOAT)?);
        members.push(call.args.at(i + 1));
    }
    let decide = |i: usize, old| rules.decide(old, scores[i]).score();
    let (added, changed) = call.shards.put_members(db, &key, entry, &members, &limits, decide)?;
    if added + changed > 0 {
        notify(call, rules);
    }
    let counted = if rules.counts_changes { added + changed } else { added };
    reply(call, rules, counted.cast_signed(), None);
    Ok(())
}

fn notify(call: &Call<'_>, rules: AddRules) {
    let event = if rules.adds { "zincr" } else { "zadd" };
    call.notify(EventClass::SORTED_SET, event, call.args.at(1));
}

fn reply(call: &mut Call<'_>, rules: AddRules, counted: i64, result: Option<f64>) {
    match result {
        _ if !rules.adds => call.reply.integer(counted),
        Some(score) => call.reply.double(score),
        None => call.reply.null(),
    }
}
