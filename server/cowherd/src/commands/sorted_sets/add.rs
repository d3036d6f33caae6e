//! ZADD and ZINCRBY.

use crate::clients::EventClass;
use crate::commands::call::Call;
use crate::commands::error_reply::{CommandResult, ErrorReply};
use crate::keyspace::MemberChange;
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
pub(in crate::commands) struct ZaddOptions {
    /// Only new members are added, and no others change.
    pub nx: bool,
    /// Only members that are there change.
    pub xx: bool,
    gt: bool,
    lt: bool,
    /// Whether the reply counts members that change, beside those that are new.
    pub counts_changes: bool,
    adds: bool,
}

/// The effect of the options on a member.
#[derive(Clone, Copy)]
enum ZaddOutcome {
    /// The member gets this score, which may equal the old one.
    Score(f64),
    /// The member does not change.
    Refused,
    /// The sum is not a number.
    NotANumber,
}

impl ZaddOutcome {
    const fn score(self) -> Option<f64> {
        match self {
            Self::Score(score) => Some(score),
            Self::Refused | Self::NotANumber => None,
        }
    }
}

impl ZaddOptions {
    /// The options from argument 2 on, and the argument of the first pair.
    fn parse(call: &Call<'_>) -> (Self, usize) {
        let mut options = Self::default();
        let mut i = 2;
        while i < call.args.len() {
            let option = match () {
                () if call.is(i, "nx") => &mut options.nx,
                () if call.is(i, "xx") => &mut options.xx,
                () if call.is(i, "gt") => &mut options.gt,
                () if call.is(i, "lt") => &mut options.lt,
                () if call.is(i, "ch") => &mut options.counts_changes,
                () if call.is(i, "incr") => &mut options.adds,
                () => break,
            };
            *option = true;
            i += 1;
        }
        (options, i)
    }

    fn decide(&self, old: Option<f64>, score: f64) -> ZaddOutcome {
        let Some(old) = old else {
            return if self.xx { ZaddOutcome::Refused } else { ZaddOutcome::Score(score) };
        };
        if self.nx {
            return ZaddOutcome::Refused;
        }
        let score = if self.adds { old + score } else { score };
        if score.is_nan() {
            return ZaddOutcome::NotANumber;
        }
        if self.gt && score <= old || self.lt && score >= old {
            return ZaddOutcome::Refused;
        }
        ZaddOutcome::Score(score)
    }
}

pub(super) fn zadd(call: &mut Call<'_>) -> CommandResult {
    let (options, pairs) = ZaddOptions::parse(call);
    let elements = call.args.len() - pairs;
    if elements == 0 || !elements.is_multiple_of(2) {
        return Err(ErrorReply::SYNTAX);
    }
    if options.nx && options.xx {
        return Err(NX_AND_XX);
    }
    if (options.gt || options.lt) && options.nx || options.gt && options.lt {
        return Err(GT_AND_LT);
    }
    if options.adds && elements > 2 {
        return Err(ONE_PAIR);
    }
    put(call, options, pairs)
}

pub(super) fn zincrby(call: &mut Call<'_>) -> CommandResult {
    put(call, ZaddOptions { adds: true, ..ZaddOptions::default() }, 2)
}

/// Adds the pairs of score and member from argument `pairs` on.
fn put(call: &mut Call<'_>, options: ZaddOptions, pairs: usize) -> CommandResult {
    let score = |i| parse_f64(call.args.at(i)).ok_or(ErrorReply::NOT_FLOAT);
    if call.args.len() == pairs + 2 {
        let score = score(pairs)?;
        let member = call.args.at(pairs + 1);
        return put_members(call, options, &[score], &[member]);
    }
    let (mut scores, mut members) = (Vec::new(), Vec::new());
    for i in (pairs..call.args.len()).step_by(2) {
        scores.push(score(i)?);
        members.push(call.args.at(i + 1));
    }
    put_members(call, options, &scores, &members)
}

/// Adds members with their scores to the sorted set of argument 1, and replies. Each score has a
/// member.
pub(in crate::commands) fn put_members(
    call: &mut Call<'_>,
    options: ZaddOptions,
    scores: &[f64],
    members: &[&[u8]],
) -> CommandResult {
    let (db, key, limits) = (call.session.db, call.key(1), limits(call));
    let entry = lookup(call, 1)?;
    if entry.is_none() && options.xx {
        reply(call, options, 0, None);
        return Ok(());
    }
    let ([score], [member]) = (scores, members) else {
        let decide = |i: usize, old| options.decide(old, scores[i]).score();
        let (added, changed) =
            call.shards.put_members(db, &key, entry, members, &limits, decide)?;
        if added + changed > 0 {
            notify(call, options);
        }
        let counted = if options.counts_changes { added + changed } else { added };
        reply(call, options, counted.cast_signed(), None);
        return Ok(());
    };
    let mut outcome = ZaddOutcome::Refused;
    let (_, put) = call.shards.put_member(db, &key, entry, member, &limits, |old| {
        outcome = options.decide(old, *score);
        outcome.score()
    })?;
    if let ZaddOutcome::NotANumber = outcome {
        return Err(NOT_A_NUMBER);
    }
    if put != MemberChange::Nothing {
        notify(call, options);
    }
    let counts =
        put == MemberChange::Added || options.counts_changes && put == MemberChange::Changed;
    reply(call, options, i64::from(counts), outcome.score());
    Ok(())
}

fn notify(call: &Call<'_>, options: ZaddOptions) {
    let event = if options.adds { "zincr" } else { "zadd" };
    call.notify(EventClass::SORTED_SET, event, call.args.at(1));
}

fn reply(call: &mut Call<'_>, options: ZaddOptions, counted: i64, result: Option<f64>) {
    match result {
        _ if !options.adds => call.reply.integer(counted),
        Some(score) => call.reply.double(score),
        None => call.reply.null(),
    }
}
