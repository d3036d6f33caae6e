//! ZRANGE in all its forms, and those that came before it.

use std::ops::Range;

use crate::clients::EventClass;
use crate::commands::call::Call;
use crate::commands::elements::bulk;
use crate::commands::error_reply::{CommandResult, ErrorReply};
use crate::keyspace::Value;
use cowherd_resp::{ProtocolVersion, ReplyWriter};

use super::bounds::{Bounds, By};
use super::{limits, lookup_read};

const LIMIT_OF_RANKS: ErrorReply = ErrorReply::new(
    "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
);
const SCORES_OF_MEMBERS: ErrorReply =
    ErrorReply::new("ERR syntax error, WITHSCORES not supported in combination with BYLEX");

pub(super) fn zrange(call: &mut Call<'_>) -> CommandResult {
    list(call, None, None)
}

pub(super) fn zrevrange(call: &mut Call<'_>) -> CommandResult {
    list(call, Some(By::Rank), Some(true))
}

pub(super) fn by_score(call: &mut Call<'_>) -> CommandResult {
    list(call, Some(By::Score), Some(false))
}

pub(super) fn by_score_down(call: &mut Call<'_>) -> CommandResult {
    list(call, Some(By::Score), Some(true))
}

pub(super) fn by_lex(call: &mut Call<'_>) -> CommandResult {
    list(call, Some(By::Member), Some(false))
}

pub(super) fn by_lex_down(call: &mut Call<'_>) -> CommandResult {
    list(call, Some(By::Member), Some(true))
}

/// What a command was told.
struct Asked<'c> {
    bounds: Bounds<'c>,
    is_down: bool,
    with_scores: bool,
    offset: i64,
    limit: i64,
}

impl<'c> Asked<'c> {
    /// Reads the arguments behind a key; what is none is for options to say.
    fn parse(
        call: &Call<'c>,
        key: usize,
        by: Option<By>,
        is_down: Option<bool>,
        is_store: bool,
    ) -> Result<Self, ErrorReply> {
        let (mut by_option, mut down_option) = (by, is_down);
        let (mut with_scores, mut offset, mut limit) = (false, 0, -1);
        let mut i = key + 3;
        while i < call.args.len() {
            if !is_store && call.is(i, "withscores") {
                with_scores = true;
            } else if call.is(i, "limit") && i + 2 < call.args.len() {
                (offset, limit) = (call.integer(i + 1)?, call.integer(i + 2)?);
                i += 2;
            } else if is_down.is_none() && call.is(i, "rev") {
                down_option = Some(true);
            } else if by.is_none() && call.is(i, "bylex") {
                by_option = Some(By::Member);
            } else if by.is_none() && call.is(i, "byscore") {
                by_option = Some(By::Score);
            } else {
                return Err(ErrorReply::SYNTAX);
            }
            i += 1;
        }
        let (by, is_down) = (by_option.unwrap_or(By::Rank), down_option.unwrap_or(false));
        if by == By::Rank && limit != -1 {
            return Err(LIMIT_OF_RANKS);
        }
        if by == By::Member && with_scores {
            return Err(SCORES_OF_MEMBERS);
        }
        let (low, high) = match by {
            By::Score | By::Member if is_down => (key + 2, key + 1),
            _ => (key + 1, key + 2),
        };
        let bounds = Bounds::parse(call, by, low, high)?;
        Ok(Self { bounds, is_down, with_scores, offset, limit })
    }

    /// What the limit leaves of ranks.
    fn limited(&self, ranks: Range<u64>) -> Range<u64> {
        let Bounds::Edges(..) = self.bounds else { return ranks };
        let len = ranks.end - ranks.start;
        let skipped = u64::try_from(self.offset).unwrap_or(u64::MAX).min(len);
        let count = u64::try_from(self.limit).unwrap_or(u64::MAX).min(len - skipped);
        if self.is_down {
            ranks.end - skipped - count..ranks.end - skipped
        } else {
            ranks.start + skipped..ranks.start + skipped + count
        }
    }
}

fn list(call: &mut Call<'_>, by: Option<By>, is_down: Option<bool>) -> CommandResult {
    let asked = Asked::parse(call, 1, by, is_down, false)?;
    let Some(entry) = lookup_read(call, 1)? else {
        call.reply.array(0);
        return Ok(());
    };
    let view = call.shards.sorted_set(&entry);
    let ranks = asked.limited(asked.bounds.ranks(&view, asked.is_down));
    let count = ranks.end - ranks.start;
    let first = if asked.is_down { ranks.end.saturating_sub(1) } else { ranks.start };
    let mut members = Members::begin(call.reply, count, asked.with_scores);
    view.each(first, count, asked.is_down, |member, score| members.add(member, score));
    Ok(())
}

/// A reply of members: pairs, if there are scores and the client knows RESP3; else all in one row.
pub(super) struct Members<'r> {
    reply: &'r mut ReplyWriter,
    with_scores: bool,
    in_pairs: bool,
}

impl<'r> Members<'r> {
    pub(super) fn begin(reply: &'r mut ReplyWriter, count: u64, with_scores: bool) -> Self {
        let in_pairs = with_scores && reply.version == ProtocolVersion::Resp3;
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        reply.array(if with_scores && !in_pairs { count * 2 } else { count });
        Self { reply, with_scores, in_pairs }
    }

    /// In pairs, whatever the client knows.
    pub(super) fn pairs(reply: &'r mut ReplyWriter, count: u64) -> Self {
        reply.array(usize::try_from(count).unwrap_or(usize::MAX));
        Self { reply, with_scores: true, in_pairs: true }
    }

    #[inline]
    pub(super) fn add(&mut self, member: Value<'_>, score: f64) {
        if self.in_pairs {
            self.reply.array(2);
        }
        bulk(self.reply, member);
        if self.with_scores {
            self.reply.double(score);
        }
    }
}

pub(super) fn zrangestore(call: &mut Call<'_>) -> CommandResult {
    let asked = Asked::parse(call, 2, None, None, true)?;
    let limits = limits(call);
    let mut found: Vec<(Vec<u8>, f64)> = Vec::new();
    if let Some(entry) = lookup_read(call, 2)? {
        let view = call.shards.sorted_set(&entry);
        let ranks = asked.limited(asked.bounds.ranks(&view, asked.is_down));
        let count = ranks.end - ranks.start;
        let first = if asked.is_down { ranks.end.saturating_sub(1) } else { ranks.start };
        // As in Redis, a result that is not known beforehand to be long begins as a compact one, in
        // which a zero loses its sign, until it has too many members or one that is too long.
        let mut is_compact = matches!(asked.bounds, Bounds::Edges(..)) || count <= limits.entries;
        view.each(first, count, asked.is_down, |member, score| {
            let member = member.bytes(&mut itoa::Buffer::new()).to_vec();
            is_compact &= (found.len() as u64) < limits.entries;
            is_compact &= member.len() as u64 <= limits.value;
            found.push((member, if is_compact { score + 0.0 } else { score }));
        });
    }
    let mut pairs: Vec<(&[u8], f64)> = found.iter().map(|(m, s)| (m.as_slice(), *s)).collect();
    store(call, &mut pairs, "zrangestore")
}

/// Sets the key of argument 1 to these members, answers with their number, and tells of it.
pub(super) fn store(call: &mut Call<'_>, pairs: &mut [(&[u8], f64)], event: &str) -> CommandResult {
    let (db, to, limits) = (call.session.db, call.key(1), limits(call));
    let has_changed = call.shards.store_sorted_set(db, &to, pairs, &limits)?;
    match (has_changed, pairs.is_empty()) {
        (true, true) => call.notify(EventClass::GENERIC, "del", to.bytes),
        (true, false) => call.notify(EventClass::SORTED_SET, event, to.bytes),
        (false, _) => {}
    }
    call.reply.integer(i64::try_from(pairs.len()).unwrap_or(i64::MAX));
    Ok(())
}
