//! The arguments of the commands that search.

use crate::commands::call::Call;
use crate::commands::error_reply::ErrorReply;
use crate::keyspace::SortedSetView;
use cowherd_resp::parse_f64;

use super::area::{Area, LengthUnit, Shape};
use super::geohash::Position;
use super::{position, unit};

const NO_MEMBER: ErrorReply = ErrorReply::new("ERR could not decode requested zset member");
const NOT_POSITIVE: ErrorReply = ErrorReply::new("ERR COUNT must be > 0");
const ANY_ALONE: ErrorReply = ErrorReply::new("ERR the ANY argument requires COUNT argument");
const NO_RADIUS: ErrorReply = ErrorReply::new("ERR need numeric radius");
const NEGATIVE_RADIUS: ErrorReply = ErrorReply::new("ERR radius cannot be negative");
const NO_WIDTH: ErrorReply = ErrorReply::new("ERR need numeric width");
const NO_HEIGHT: ErrorReply = ErrorReply::new("ERR need numeric height");
const NEGATIVE_BOX: ErrorReply = ErrorReply::new("ERR height or width cannot be negative");

/// The kinds of commands that search.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SearchKind {
    /// GEORADIUS: around a position.
    Radius,
    /// GEORADIUSBYMEMBER: around a member.
    RadiusByMember,
    /// GEOSEARCH: options choose.
    Search,
    /// GEOSEARCHSTORE.
    SearchStore,
}

impl SearchKind {
    /// The argument of the sorted set to search.
    pub(super) const fn source(self) -> usize {
        if matches!(self, Self::SearchStore) { 2 } else { 1 }
    }

    /// The event of a stored result.
    pub(super) const fn event(self) -> &'static str {
        if self.is_search() { "geosearchstore" } else { "georadiusstore" }
    }

    /// Whether options name middle and shape of the area.
    pub(super) const fn is_search(self) -> bool {
        matches!(self, Self::Search | Self::SearchStore)
    }
}

/// What is returned of each member beside its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct ReplyParts {
    pub distance: bool,
    pub code: bool,
    pub position: bool,
}

impl ReplyParts {
    /// The number of parts.
    pub(super) fn count(self) -> usize {
        usize::from(self.distance) + usize::from(self.code) + usize::from(self.position)
    }
}

/// Where the result is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SearchTarget {
    /// The argument of the key.
    pub key: usize,
    /// Whether the scores are distances, in the unit of the search.
    pub with_distances: bool,
}

/// The arguments of a search.
#[derive(Debug)]
pub(super) struct SearchQuery {
    /// The area; `None` if the sorted set does not exist.
    pub area: Option<Area>,
    pub parts: ReplyParts,
    /// By distance: whether the farthest come first; `None` for any order.
    pub descending: Option<bool>,
    /// The most members that are returned.
    pub count: Option<usize>,
    /// Whether any members in the area will do, not only the nearest ones.
    pub any: bool,
    pub target: Option<SearchTarget>,
}

/// The options while they are read.
#[derive(Default)]
struct SearchOptions {
    center: Option<SearchCenter>,
    shape: Option<(Shape, LengthUnit)>,
    parts: ReplyParts,
    descending: Option<bool>,
    count: Option<usize>,
    any: bool,
    target: Option<usize>,
    with_distances: bool,
}

/// The middle of the area. The position of a member is known only if the sorted set exists.
#[derive(Clone, Copy)]
enum SearchCenter {
    Member(Option<Position>),
    Position(Position),
}

impl SearchCenter {
    const fn position(self) -> Option<Position> {
        match self {
            Self::Member(position) => position,
            Self::Position(position) => Some(position),
        }
    }
}

impl SearchQuery {
    /// Parses the arguments of a command; errors come in the order of Redis. `view` is the sorted
    /// set to search, if it exists.
    pub(super) fn parse(
        call: &Call<'_>,
        kind: SearchKind,
        view: Option<&SortedSetView<'_>>,
        may_store: bool,
    ) -> Result<Self, ErrorReply> {
        let mut options = SearchOptions::default();
        let first = match kind {
            SearchKind::Radius => {
                options.center = Some(SearchCenter::Position(position(call, 2)?));
                options.shape = Some(circle(call, 4)?);
                6
            }
            SearchKind::RadiusByMember => {
                options.center = Some(SearchCenter::Member(member(call, 2, view)?));
                if view.is_some() {
                    options.shape = Some(circle(call, 3)?);
                }
                5
            }
            SearchKind::Search => 2,
            SearchKind::SearchStore => {
                options.target = Some(1);
                3
            }
        };
        let mut i = first;
        while i < call.args.len() {
            let of_area = if kind.is_search() { options.read_area(call, i, view)? } else { None };
            let read = of_area.or_else(|| options.read_target(call, i, kind, may_store));
            i = read.map_or_else(|| options.read_other(call, i), Ok)?;
        }
        options.check(call, kind)?;
        let center = options.center.and_then(SearchCenter::position);
        let area = center.zip(options.shape).filter(|_| view.is_some());
        let SearchOptions { parts, descending, count, any, with_distances, .. } = options;
        Ok(Self {
            area: area.map(|(center, (shape, unit))| Area { center, shape, unit }),
            parts,
            // The nearest members are to be returned, not some.
            descending: descending.or((count.is_some() && !any).then_some(false)),
            count,
            any,
            target: options.target.map(|key| SearchTarget { key, with_distances }),
        })
    }
}

impl SearchOptions {
    /// Reads an option of middle or shape at argument `i`; returns the argument behind it, or
    /// `None` if there is no such option.
    fn read_area(
        &mut self,
        call: &Call<'_>,
        i: usize,
        view: Option<&SortedSetView<'_>>,
    ) -> Result<Option<usize>, ErrorReply> {
        let behind = call.args.len() - i - 1;
        let is_member = matches!(self.center, Some(SearchCenter::Member(_)));
        let is_position = matches!(self.center, Some(SearchCenter::Position(_)));
        let is_circle = matches!(self.shape, Some((Shape::Circle { .. }, _)));
        let is_box = matches!(self.shape, Some((Shape::Box { .. }, _)));
        Ok(match () {
            () if call.is(i, "frommember") && behind >= 1 && !is_position => {
                self.center = Some(SearchCenter::Member(member(call, i + 1, view)?));
                Some(i + 2)
            }
            () if call.is(i, "fromlonlat") && behind >= 2 && !is_member => {
                self.center = Some(SearchCenter::Position(position(call, i + 1)?));
                Some(i + 3)
            }
            () if call.is(i, "byradius") && behind >= 2 && !is_box => {
                self.shape = Some(circle(call, i + 1)?);
                Some(i + 3)
            }
            () if call.is(i, "bybox") && behind >= 3 && !is_circle => {
                self.shape = Some(rectangle(call, i + 1)?);
                Some(i + 4)
            }
            () => None,
        })
    }

    /// As [`Self::read_area`], for the options that store the result.
    ///
    /// The shard locks depend on the last STORE or STOREDIST that
    /// [`KeyPositions`](crate::commands::table::KeyPositions) finds, so both must agree.
    fn read_target(
        &mut self,
        call: &Call<'_>,
        i: usize,
        kind: SearchKind,
        may_store: bool,
    ) -> Option<usize> {
        let is_distance = call.is(i, "storedist");
        if kind == SearchKind::SearchStore && is_distance {
            self.with_distances = true;
            return Some(i + 1);
        }
        let has_key = may_store && !kind.is_search() && i + 1 < call.args.len();
        if !has_key || !is_distance && !call.is(i, "store") {
            return None;
        }
        (self.target, self.with_distances) = (Some(i + 1), is_distance);
        Some(i + 2)
    }

    /// Reads one of the other options; returns the argument behind it.
    fn read_other(&mut self, call: &Call<'_>, i: usize) -> Result<usize, ErrorReply> {
        match () {
            () if call.is(i, "withdist") => self.parts.distance = true,
            () if call.is(i, "withhash") => self.parts.code = true,
            () if call.is(i, "withcoord") => self.parts.position = true,
            () if call.is(i, "any") => self.any = true,
            () if call.is(i, "asc") => self.descending = Some(false),
            () if call.is(i, "desc") => self.descending = Some(true),
            () if call.is(i, "count") && i + 1 < call.args.len() => {
                let count = usize::try_from(call.integer(i + 1)?).map_err(|_| NOT_POSITIVE)?;
                self.count = Some(count).filter(|count| *count > 0);
                self.count.ok_or(NOT_POSITIVE)?;
                return Ok(i + 2);
            }
            () => return Err(ErrorReply::SYNTAX),
        }
        Ok(i + 1)
    }

    /// Checks that the options fit together.
    fn check(&self, call: &Call<'_>, kind: SearchKind) -> Result<(), ErrorReply> {
        if self.target.is_some() && self.parts.count() > 0 {
            let name = match kind {
                SearchKind::SearchStore => "GEOSEARCHSTORE",
                _ => "STORE option in GEORADIUS",
            };
            return Err(ErrorReply::text(format!(
                "ERR {name} is not compatible with WITHDIST, WITHHASH and WITHCOORD options"
            )));
        }
        let missing = match () {
            () if self.center.is_none() => Some("FROMMEMBER or FROMLONLAT"),
            () if kind.is_search() && self.shape.is_none() => Some("BYRADIUS and BYBOX"),
            () => None,
        };
        if let Some(options) = missing {
            return Err(ErrorReply::quoting(&[
                b"ERR exactly one of ",
                options.as_bytes(),
                b" can be specified for ",
                call.args.at(0),
            ]));
        }
        if self.any && self.count.is_none() { Err(ANY_ALONE) } else { Ok(()) }
    }
}

/// The position of the member in argument `i`; `None` if the sorted set does not exist.
fn member(
    call: &Call<'_>,
    i: usize,
    view: Option<&SortedSetView<'_>>,
) -> Result<Option<Position>, ErrorReply> {
    let Some(view) = view else { return Ok(None) };
    let score = view.score(call.args.at(i)).ok_or(NO_MEMBER)?;
    Ok(Some(Position::of_score(score)))
}

/// The circle in arguments `i` and `i + 1`: radius, unit.
fn circle(call: &Call<'_>, i: usize) -> Result<(Shape, LengthUnit), ErrorReply> {
    let radius = parse_f64(call.args.at(i)).ok_or(NO_RADIUS)?;
    if radius < 0.0 {
        return Err(NEGATIVE_RADIUS);
    }
    Ok((Shape::Circle { radius }, unit(call, i + 1)?))
}

/// The box in the arguments from `i` on: width, height, unit.
fn rectangle(call: &Call<'_>, i: usize) -> Result<(Shape, LengthUnit), ErrorReply> {
    let width = parse_f64(call.args.at(i)).ok_or(NO_WIDTH)?;
    let height = parse_f64(call.args.at(i + 1)).ok_or(NO_HEIGHT)?;
    if width < 0.0 || height < 0.0 {
        return Err(NEGATIVE_BOX);
    }
    Ok((Shape::Box { width, height }, unit(call, i + 2)?))
}
