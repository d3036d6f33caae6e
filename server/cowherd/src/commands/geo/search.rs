//! GEOSEARCH, GEOSEARCHSTORE, and the older GEORADIUS and GEORADIUSBYMEMBER.

use crate::commands::call::Call;
use crate::commands::error_reply::CommandResult;
use crate::commands::sorted_sets;
use crate::commands::value_reply::bulk_value;
use crate::keyspace::{RangeBound, SortedSetView, Value};
use cowherd_resp::ReplyWriter;

use super::area::{Area, LengthUnit};
use super::geohash::Position;
use super::query::{ReplyParts, SearchKind, SearchQuery, SearchTarget};
use super::{write_distance, write_position};

/// Members that are read at once, when any will do.
const BATCH: u64 = 64;

pub(super) fn geosearch(call: &mut Call<'_>) -> CommandResult {
    search(call, SearchKind::Search, false)
}

pub(super) fn geosearchstore(call: &mut Call<'_>) -> CommandResult {
    search(call, SearchKind::SearchStore, true)
}

pub(super) fn georadius(call: &mut Call<'_>) -> CommandResult {
    search(call, SearchKind::Radius, true)
}

pub(super) fn georadius_ro(call: &mut Call<'_>) -> CommandResult {
    search(call, SearchKind::Radius, false)
}

pub(super) fn georadiusbymember(call: &mut Call<'_>) -> CommandResult {
    search(call, SearchKind::RadiusByMember, true)
}

pub(super) fn georadiusbymember_ro(call: &mut Call<'_>) -> CommandResult {
    search(call, SearchKind::RadiusByMember, false)
}

/// A member in the area.
struct SearchHit<'s> {
    member: Value<'s>,
    score: f64,
    position: Position,
    /// The distance from the middle of the area, in metres.
    distance: f64,
    /// The number of members that were found before.
    number: usize,
}

fn search(call: &mut Call<'_>, kind: SearchKind, may_store: bool) -> CommandResult {
    let entry = sorted_sets::lookup_read(call, kind.source())?;
    let view = entry.map(|entry| call.shards.sorted_set(&entry));
    let query = SearchQuery::parse(call, kind, view.as_ref(), may_store)?;
    let mut hits = Vec::new();
    if let (Some(view), Some(area)) = (view, query.area) {
        let limit = query.count.filter(|_| query.any).unwrap_or(usize::MAX);
        find(&view, &area, limit, &mut hits);
    }
    select(&mut hits, query.descending, query.count.unwrap_or(usize::MAX));
    let unit = query.area.map_or(LengthUnit::METRE, |area| area.unit);
    let Some(target) = query.target else {
        write(call.reply, &hits, query.parts, unit);
        return Ok(());
    };
    let found: Vec<(Vec<u8>, f64)> = hits.iter().map(|hit| stored(hit, &target, unit)).collect();
    let mut pairs: Vec<_> = found.iter().map(|(member, score)| (&**member, *score)).collect();
    let (changes, event) = (pairs.len() as u64, kind.event());
    sorted_sets::store(call, target.key, &mut pairs, changes, event)
}

/// Appends the members of a sorted set that are in an area, up to `limit` hits, cell by cell.
fn find<'s>(view: &SortedSetView<'s>, area: &Area, limit: usize, hits: &mut Vec<SearchHit<'s>>) {
    for cell in area.cells() {
        let (low, high) = cell.scores();
        let before = |score| view.before(&RangeBound::Score { score, is_behind: false });
        let (mut rank, end) = (before(low), before(high));
        while rank < end && hits.len() < limit {
            let count = if limit == usize::MAX { end - rank } else { BATCH.min(end - rank) };
            view.each(rank, count, false, |member, score| {
                let position = Position::of_score(score);
                let distance = area.distance_within(&position).filter(|_| hits.len() < limit);
                if let Some(distance) = distance {
                    let number = hits.len();
                    hits.push(SearchHit { member, score, position, distance, number });
                }
            });
            rank += count;
        }
    }
}

/// Brings hits in order of their distances, unless any order will do, and drops those beyond
/// `count`. Hits of the same distance keep their order.
fn select(hits: &mut Vec<SearchHit<'_>>, descending: Option<bool>, count: usize) {
    let Some(is_descending) = descending else {
        hits.truncate(count);
        return;
    };
    let order = |one: &SearchHit<'_>, other: &SearchHit<'_>| {
        let by_distance = one.distance.total_cmp(&other.distance);
        let by_distance = if is_descending { by_distance.reverse() } else { by_distance };
        by_distance.then(one.number.cmp(&other.number))
    };
    if count < hits.len() {
        hits.select_nth_unstable_by(count, order);
        hits.truncate(count);
    }
    hits.sort_unstable_by(order);
}

fn write(reply: &mut ReplyWriter, hits: &[SearchHit<'_>], parts: ReplyParts, unit: LengthUnit) {
    reply.array(hits.len());
    for hit in hits {
        if parts.count() > 0 {
            reply.array(1 + parts.count());
        }
        bulk_value(reply, hit.member);
        if parts.distance {
            write_distance(reply, hit.distance, unit);
        }
        if parts.code {
            #[expect(clippy::cast_possible_truncation, reason = "scores of cells have 53 bits")]
            reply.integer(hit.score as i64);
        }
        if parts.position {
            write_position(reply, &hit.position);
        }
    }
}

/// The member and the score that are stored of a hit.
fn stored(hit: &SearchHit<'_>, target: &SearchTarget, unit: LengthUnit) -> (Vec<u8>, f64) {
    let distance = hit.distance / unit.metres;
    let score = if target.with_distances { distance } else { hit.score };
    (hit.member.bytes(&mut itoa::Buffer::new()).to_vec(), score)
}
