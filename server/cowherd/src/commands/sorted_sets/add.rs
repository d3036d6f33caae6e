//! Adding members and changing scores.

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

/// What ZADD was told.
#[derive(Clone, Copy, Default)]
struct Rules {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
    counts_changes: bool,
    adds: bool,
}

/// What the rules make of a member.
#[derive(Clone, Copy)]
enum Outcome {
    /// It gets this score, which may be the one that it has.
    Score(f64),
    /// It stays as it is.
    Refused,
    /// The sum is not a number.
    NotANumber,
}

impl Outcome {
    const fn score(self) -> Option<f64> {
        match self {
            Self::Score(score) => Some(score),
            Self::Refused | Self::NotANumber => None,
        }
    }
}

impl Rules {
    /// Reads options from argument 2 on; returns where the pairs begin.
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

    fn decide(&self, old: Option<f64>, score: f64) -> Outcome {
        let Some(old) = old else {
            return if self.xx { Outcome::Refused } else { Outcome::Score(score) };
        };
        if self.nx {
            return Outcome::Refused;
        }
        let score = if self.adds { old + score } else { score };
        if score.is_nan() {
            return Outcome::NotANumber;
        }
        if self.gt && score <= old || self.lt && score >= old {
            return Outcome::Refused;
        }
        Outcome::Score(score)
    }
}

pub(super) fn zadd(call: &mut Call<'_>) -> CommandResult {
    let (rules, pairs) = Rules::parse(call);
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
    put(call, Rules { adds: true, ..Rules::default() }, 2)
}

/// Puts the pairs of score and member that begin at an argument.
fn put(call: &mut Call<'_>, rules: Rules, pairs: usize) -> CommandResult {
    let (db, key, limits) = (call.session.db, call.key(1), limits(call));
    for i in (pairs..call.args.len()).step_by(2) {
        parse_f64(call.args.at(i)).ok_or(ErrorReply::NOT_FLOAT)?;
    }
    let entry = lookup(call, 1)?;
    if entry.is_none() && rules.xx {
        answer(call, rules, 0, None);
        return Ok(());
    }
    if call.args.len() > pairs + 2 {
        return put_several(call, rules, pairs, entry);
    }
    let score = parse_f64(call.args.at(pairs)).ok_or(ErrorReply::NOT_FLOAT)?;
    let member = call.args.at(pairs + 1);
    let mut outcome = Outcome::Refused;
    let (_, put) = call.shards.put_member(db, &key, entry, member, &limits, |old| {
        outcome = rules.decide(old, score);
        outcome.score()
    })?;
    if let Outcome::NotANumber = outcome {
        return Err(NOT_A_NUMBER);
    }
    if put != MemberChange::Nothing {
        tell(call, rules);
    }
    let counts = put == MemberChange::Added || rules.counts_changes && put == MemberChange::Changed;
    answer(call, rules, i64::from(counts), outcome.score());
    Ok(())
}

fn put_several(
    call: &mut Call<'_>,
    rules: Rules,
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
        tell(call, rules);
    }
    let counted = if rules.counts_changes { added + changed } else { added };
    answer(call, rules, counted.cast_signed(), None);
    Ok(())
}

fn tell(call: &Call<'_>, rules: Rules) {
    let event = if rules.adds { "zincr" } else { "zadd" };
    call.notify(EventClass::SORTED_SET, event, call.args.at(1));
}

fn answer(call: &mut Call<'_>, rules: Rules, counted: i64, result: Option<f64>) {
    match result {
        _ if !rules.adds => call.reply.integer(counted),
        Some(score) => call.reply.double(score),
        None => call.reply.null(),
    }
}
