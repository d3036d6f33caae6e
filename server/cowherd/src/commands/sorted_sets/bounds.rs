//! Ranges of ranks, scores or members, as given in arguments.

use std::ops::Range;

use crate::commands::call::Call;
use crate::commands::error_reply::ErrorReply;
use crate::keyspace::{RangeBound, SortedSetView};
use cowherd_resp::{before_zero, parse_f64};

const NO_SCORE: ErrorReply = ErrorReply::new("ERR min or max is not a float");
const NO_MEMBER: ErrorReply = ErrorReply::new("ERR min or max not valid string range item");

/// The quantity in which a range is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RangeKind {
    Rank,
    Score,
    Member,
}

/// The bounds of a range of members.
pub(super) enum RankBounds<'c> {
    /// The first and the last rank; negative ranks count from the end.
    Ranks(i64, i64),
    /// Two positions between members.
    Edges(RangeBound<'c>, RangeBound<'c>),
}

impl<'c> RankBounds<'c> {
    /// The bounds in arguments `low` and `high`.
    pub(super) fn parse(
        call: &Call<'c>,
        kind: RangeKind,
        low: usize,
        high: usize,
    ) -> Result<Self, ErrorReply> {
        Ok(match kind {
            RangeKind::Rank => Self::Ranks(call.integer(low)?, call.integer(high)?),
            RangeKind::Score => {
                let edge = |i, is_behind| score_edge(call.args.at(i), is_behind);
                Self::Edges(edge(low, false).ok_or(NO_SCORE)?, edge(high, true).ok_or(NO_SCORE)?)
            }
            RangeKind::Member => {
                let edge = |i, is_behind| member_edge(call.args.at(i), is_behind);
                Self::Edges(edge(low, false).ok_or(NO_MEMBER)?, edge(high, true).ok_or(NO_MEMBER)?)
            }
        })
    }

    /// The ranks of the members between the bounds. `reverse`: [`Self::Ranks`] counts from the last
    /// member on.
    pub(super) fn ranks(&self, view: &SortedSetView<'_>, reverse: bool) -> Range<u64> {
        let len = view.len();
        let range = match self {
            Self::Ranks(first, last) => {
                let from_front = |rank: i64| match rank {
                    0.. => rank,
                    _ => rank.saturating_add_unsigned(len),
                };
                let first = from_front(*first).max(0).unsigned_abs();
                let end = u64::try_from(from_front(*last)).map_or(0, |last| last.saturating_add(1));
                let range = first.min(len)..end.min(len);
                if reverse && range.start < range.end {
                    len - range.end..len - range.start
                } else {
                    range
                }
            }
            Self::Edges(low, high) => view.before(low)..view.before(high),
        };
        range.start..range.end.max(range.start)
    }
}

/// `5`, `(5` or `-inf`. A low bound is before its score and a high one behind; an exclusive bound
/// the other way round.
fn score_edge<'c>(text: &[u8], is_high: bool) -> Option<RangeBound<'c>> {
    let (text, is_exclusive) = match text {
        [b'(', rest @ ..] => (rest, true),
        text => (text, false),
    };
    Some(RangeBound::Score { score: parse_score(text)?, is_behind: is_high != is_exclusive })
}

/// Parses a number as `strtod` does: leading blanks are allowed, the text ends at its first zero
/// byte, an empty one is 0, and a number out of range becomes infinity or zero.
fn parse_score(text: &[u8]) -> Option<f64> {
    let text = before_zero(text);
    let blanks = text.iter().take_while(|b| matches!(b, b' ' | b'\t'..=b'\r')).count();
    let number = &text[blanks..];
    if number.is_empty() {
        return text.is_empty().then_some(0.0);
    }
    parse_f64(number)
        .or_else(|| str::from_utf8(number).ok()?.parse().ok())
        .filter(|score: &f64| !score.is_nan())
}

/// `[member`, `(member`, `-` or `+`.
fn member_edge(text: &[u8], is_high: bool) -> Option<RangeBound<'_>> {
    match text {
        b"-" => Some(RangeBound::Start),
        b"+" => Some(RangeBound::End),
        [b'[', member @ ..] => Some(RangeBound::Member { member, is_behind: is_high }),
        [b'(', member @ ..] => Some(RangeBound::Member { member, is_behind: !is_high }),
        _ => None,
    }
}
