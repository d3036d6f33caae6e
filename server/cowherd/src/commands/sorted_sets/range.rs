//! ZRANGE, ZRANGESTORE and the older range commands.

use std::ops::Range;

use crate::clients::EventClass;
use crate::commands::call::Call;
use crate::commands::error_reply::{CommandResult, ErrorReply};
use crate::commands::value_reply::bulk_value;
use crate::keyspace::Value;
use cowherd_resp::{ProtocolVersion, ReplyWriter};

use super::bounds::{RangeKind, RankBounds};
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
    list(call, Some(RangeKind::Rank), Some(true))
}

pub(super) fn by_score(call: &mut Call<'_>) -> CommandResult {
    list(call, Some(RangeKind::Score), Some(false))
}

pub(super) fn by_score_down(call: &mut Call<'_>) -> CommandResult {
    list(call, Some(RangeKind::Score), Some(true))
}

pub(super) fn by_lex(call: &mut Call<'_>) -> CommandResult {
    list(call, Some(RangeKind::Member), Some(false))
}

pub(super) fn by_lex_down(call: &mut Call<'_>) -> CommandResult {
    list(call, Some(RangeKind::Member), Some(true))
}

/// The arguments of a range command.
struct RangeQuery<'c> {
    bounds: RankBounds<'c>,
    reverse: bool,
    with_scores: bool,
    offset: i64,
    limit: i64,
}

impl<'c> RangeQuery<'c> {
    /// The arguments after the key. `kind` and `reverse` are `None` for commands that have options
    /// for them.
    fn parse(
        call: &Call<'c>,
        key: usize,
        kind: Option<RangeKind>,
        reverse: Option<bool>,
        is_store: bool,
    ) -> Result<Self, ErrorReply> {
        let (mut kind_option, mut reverse_option) = (kind, reverse);
        let (mut with_scores, mut offset, mut limit) = (false, 0, -1);
        let mut i = key + 3;
        while i < call.args.len() {
            if !is_store && call.is(i, "withscores") {
                with_scores = true;
            } else if call.is(i, "limit") && i + 2 < call.args.len() {
                (offset, limit) = (call.integer(i + 1)?, call.integer(i + 2)?);
                i += 2;
            } else if reverse_option.is_none() && call.is(i, "rev") {
                reverse_option = Some(true);
            } else if kind_option.is_none() && call.is(i, "bylex") {
                kind_option = Some(RangeKind::Member);
            } else if kind_option.is_none() && call.is(i, "byscore") {
                kind_option = Some(RangeKind::Score);
            } else {
                return Err(ErrorReply::SYNTAX);
            }
            i += 1;
        }
        let (kind, reverse) =
            (kind_option.unwrap_or(RangeKind::Rank), reverse_option.unwrap_or(false));
        if kind == RangeKind::Rank && limit != -1 {
            return Err(LIMIT_OF_RANKS);
        }
        if kind == RangeKind::Member && with_scores {
            return Err(SCORES_OF_MEMBERS);
        }
        let (low, high) = match kind {
            RangeKind::Score | RangeKind::Member if reverse => (key + 2, key + 1),
            _ => (key + 1, key + 2),
        };
        let bounds = RankBounds::parse(call, kind, low, high)?;
        Ok(Self { bounds, reverse, with_scores, offset, limit })
    }

    /// The part of `ranks` within LIMIT.
    fn limited(&self, ranks: Range<u64>) -> Range<u64> {
        let RankBounds::Edges(..) = self.bounds else { return ranks };
        let len = ranks.end - ranks.start;
        let skipped = u64::try_from(self.offset).unwrap_or(u64::MAX).min(len);
        let count = u64::try_from(self.limit).unwrap_or(u64::MAX).min(len - skipped);
        if self.reverse {
            ranks.end - skipped - count..ranks.end - skipped
        } else {
            ranks.start + skipped..ranks.start + skipped + count
        }
    }
}

fn list(call: &mut Call<'_>, kind: Option<RangeKind>, reverse: Option<bool>) -> CommandResult {
    let query = RangeQuery::parse(call, 1, kind, reverse, false)?;
    let Some(entry) = lookup_read(call, 1)? else {
        call.reply.array(0);
        return Ok(());
    };
    let view = call.shards.sorted_set(&entry);
    let ranks = query.limited(query.bounds.ranks(&view, query.reverse));
    let count = ranks.end - ranks.start;
    let first = if query.reverse { ranks.end.saturating_sub(1) } else { ranks.start };
    let mut members = MemberReply::begin(call.reply, count, query.with_scores);
    view.each(first, count, query.reverse, |member, score| members.add(member, score));
    Ok(())
}

/// Writes a reply of members: an array of pairs with scores in RESP3, otherwise a flat array.
pub(super) struct MemberReply<'r> {
    reply: &'r mut ReplyWriter,
    with_scores: bool,
    in_pairs: bool,
}

impl<'r> MemberReply<'r> {
    pub(super) fn begin(reply: &'r mut ReplyWriter, count: u64, with_scores: bool) -> Self {
        let in_pairs = with_scores && reply.version == ProtocolVersion::Resp3;
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        reply.array(if with_scores && !in_pairs { count * 2 } else { count });
        Self { reply, with_scores, in_pairs }
    }

    /// An array of pairs in both protocols.
    pub(super) fn pairs(reply: &'r mut ReplyWriter, count: u64) -> Self {
        reply.array(usize::try_from(count).unwrap_or(usize::MAX));
        Self { reply, with_scores: true, in_pairs: true }
    }

    #[inline]
    pub(super) fn add(&mut self, member: Value<'_>, score: f64) {
        if self.in_pairs {
            self.reply.array(2);
        }
        bulk_value(self.reply, member);
        if self.with_scores {
            self.reply.double(score);
        }
    }
}

pub(super) fn zrangestore(call: &mut Call<'_>) -> CommandResult {
    let query = RangeQuery::parse(call, 2, None, None, true)?;
    let limits = limits(call);
    let mut found: Vec<(Vec<u8>, f64)> = Vec::new();
    if let Some(entry) = lookup_read(call, 2)? {
        let view = call.shards.sorted_set(&entry);
        let ranks = query.limited(query.bounds.ranks(&view, query.reverse));
        let count = ranks.end - ranks.start;
        let first = if query.reverse { ranks.end.saturating_sub(1) } else { ranks.start };
        // As in Redis, a result of unknown length is compact at first. There a zero loses its sign,
        // until the result exceeds a limit of the compact encoding.
        let mut is_compact =
            matches!(query.bounds, RankBounds::Edges(..)) || count <= limits.entries;
        view.each(first, count, query.reverse, |member, score| {
            let member = member.bytes(&mut itoa::Buffer::new()).to_vec();
            is_compact &= (found.len() as u64) < limits.entries;
            is_compact &= member.len() as u64 <= limits.value;
            found.push((member, if is_compact { score + 0.0 } else { score }));
        });
    }
    let mut pairs: Vec<(&[u8], f64)> = found.iter().map(|(m, s)| (m.as_slice(), *s)).collect();
    store(call, 1, &mut pairs, 1, "zrangestore")
}

/// Stores these members in the key of argument `to`, which counts as `changes` changes; replies
/// their number and emits the event.
pub(in crate::commands) fn store(
    call: &mut Call<'_>,
    to: usize,
    pairs: &mut [(&[u8], f64)],
    changes: u64,
    event: &str,
) -> CommandResult {
    let (db, to, limits) = (call.session.db, call.key(to), limits(call));
    let has_changed = call.shards.store_sorted_set(db, &to, pairs, &limits, changes)?;
    match (has_changed, pairs.is_empty()) {
        (true, true) => call.notify(EventClass::GENERIC, "del", to.bytes),
        (true, false) => call.notify(EventClass::SORTED_SET, event, to.bytes),
        (false, _) => {}
    }
    call.reply.integer(i64::try_from(pairs.len()).unwrap_or(i64::MAX));
    Ok(())
}
