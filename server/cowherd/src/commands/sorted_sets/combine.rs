//! Unions, intersections and differences of sorted sets and of sets.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::commands::call::Call;
use crate::commands::error_reply::{CommandResult, ErrorReply};
use crate::keyspace::{Entry, Shards, SortedSetView, Value, ValueType};
use cowherd_resp::{parse_f64, parse_i64};

use super::range::{self, store};

const NO_WEIGHT: ErrorReply = ErrorReply::new("ERR weight value is not a float");
const NEGATIVE_LIMIT: ErrorReply = ErrorReply::new("ERR LIMIT can't be negative");

#[derive(Clone, Copy, PartialEq, Eq)]
enum CombineOperation {
    Union,
    Intersection,
    Difference,
}

impl CombineOperation {
    /// The event of the destination key.
    const fn event(self) -> &'static str {
        match self {
            Self::Union => "zunionstore",
            Self::Intersection => "zinterstore",
            Self::Difference => "zdiffstore",
        }
    }
}

/// The use of the result.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CombineResult {
    List,
    Store,
    Count,
}

pub(super) fn zunion(call: &mut Call<'_>) -> CommandResult {
    combine(call, CombineOperation::Union, CombineResult::List)
}

pub(super) fn zinter(call: &mut Call<'_>) -> CommandResult {
    combine(call, CombineOperation::Intersection, CombineResult::List)
}

pub(super) fn zdiff(call: &mut Call<'_>) -> CommandResult {
    combine(call, CombineOperation::Difference, CombineResult::List)
}

pub(super) fn zunionstore(call: &mut Call<'_>) -> CommandResult {
    combine(call, CombineOperation::Union, CombineResult::Store)
}

pub(super) fn zinterstore(call: &mut Call<'_>) -> CommandResult {
    combine(call, CombineOperation::Intersection, CombineResult::Store)
}

pub(super) fn zdiffstore(call: &mut Call<'_>) -> CommandResult {
    combine(call, CombineOperation::Difference, CombineResult::Store)
}

pub(super) fn zintercard(call: &mut Call<'_>) -> CommandResult {
    combine(call, CombineOperation::Intersection, CombineResult::Count)
}

/// AGGREGATE: how the scores of a member are combined.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Aggregate {
    #[default]
    Sum,
    Least,
    Most,
}

impl Aggregate {
    /// The combination of two scores. Comparisons ignore an `other` that is NaN.
    fn join(self, one: f64, other: f64) -> f64 {
        match self {
            // The sum of infinities of both signs is 0.
            Self::Sum => or_zero(one + other),
            Self::Least if other < one => other,
            Self::Most if other > one => other,
            Self::Least | Self::Most => one,
        }
    }
}

const fn or_zero(score: f64) -> f64 {
    if score.is_nan() { 0.0 } else { score }
}

#[derive(Default)]
struct CombineOptions {
    /// One weight per key, or none at all.
    weights: Vec<f64>,
    aggregate: Aggregate,
    with_scores: bool,
    limit: u64,
}

impl CombineOptions {
    /// The options after the keys, from argument `i` on.
    fn parse(
        call: &Call<'_>,
        mut i: usize,
        keys: usize,
        operation: CombineOperation,
        purpose: CombineResult,
    ) -> Result<Self, ErrorReply> {
        let mut options = Self::default();
        let is_plain = operation != CombineOperation::Difference && purpose != CombineResult::Count;
        while i < call.args.len() {
            let left = call.args.len() - i;
            if is_plain && left > keys && call.is(i, "weights") {
                let weights = (i + 1..=i + keys).map(|i| parse_f64(call.args.at(i)));
                options.weights = weights.collect::<Option<_>>().ok_or(NO_WEIGHT)?;
                i += keys + 1;
            } else if is_plain && left > 1 && call.is(i, "aggregate") {
                options.aggregate = match () {
                    () if call.is(i + 1, "sum") => Aggregate::Sum,
                    () if call.is(i + 1, "min") => Aggregate::Least,
                    () if call.is(i + 1, "max") => Aggregate::Most,
                    () => return Err(ErrorReply::SYNTAX),
                };
                i += 2;
            } else if purpose == CombineResult::List && call.is(i, "withscores") {
                options.with_scores = true;
                i += 1;
            } else if purpose == CombineResult::Count && left > 1 && call.is(i, "limit") {
                let limit = parse_i64(call.args.at(i + 1)).and_then(|n| u64::try_from(n).ok());
                options.limit = limit.ok_or(NEGATIVE_LIMIT)?;
                i += 2;
            } else {
                return Err(ErrorReply::SYNTAX);
            }
        }
        Ok(options)
    }

    fn weight(&self, key: usize) -> f64 {
        self.weights.get(key).copied().unwrap_or(1.0)
    }
}

/// The members of an input.
enum InputMembers<'s> {
    None,
    Scored(SortedSetView<'s>),
    /// A set, whose members have the score 1.
    Plain(&'s Shards<'s>, Entry),
}

/// The value of one of the keys, with its weight.
struct CombineInput<'s> {
    members: InputMembers<'s>,
    weight: f64,
}

impl<'s> CombineInput<'s> {
    fn new(shards: &'s Shards<'s>, entry: Option<&Entry>, weight: f64) -> Self {
        let members = match entry {
            None => InputMembers::None,
            Some(entry) if entry.kind() == ValueType::Set => InputMembers::Plain(shards, *entry),
            Some(entry) => InputMembers::Scored(shards.sorted_set(entry)),
        };
        Self { members, weight }
    }

    fn len(&self) -> u64 {
        match &self.members {
            InputMembers::None => 0,
            InputMembers::Scored(view) => view.len(),
            InputMembers::Plain(shards, entry) => shards.set_len(entry),
        }
    }

    /// The weighted score of a member. The product of an infinity and a weight of 0 is NaN.
    fn score(&self, member: &[u8]) -> Option<f64> {
        let score = match &self.members {
            InputMembers::None => None,
            InputMembers::Scored(view) => view.score(member),
            InputMembers::Plain(shards, entry) => shards.set_has(entry, member).then_some(1.0),
        };
        score.map(|score| score * self.weight)
    }

    fn each(&self, mut each: impl FnMut(Cow<'s, [u8]>, f64)) {
        let mut each = |member, score: f64| each(owned(member), or_zero(score * self.weight));
        match &self.members {
            InputMembers::None => {}
            InputMembers::Scored(view) => view.each(0, view.len(), false, each),
            InputMembers::Plain(shards, entry) => {
                shards.set_each(entry, |member| each(member, 1.0))
            }
        }
    }
}

fn owned(member: Value<'_>) -> Cow<'_, [u8]> {
    match member {
        Value::Bytes(bytes) => Cow::Borrowed(bytes),
        Value::Int(number) => Cow::Owned(itoa::Buffer::new().format(number).into()),
    }
}

type Scored<'s> = Vec<(Cow<'s, [u8]>, f64)>;

/// The members of any input.
fn union<'s>(inputs: &[CombineInput<'s>], aggregate: Aggregate) -> Scored<'s> {
    let mut places: HashMap<Cow<'s, [u8]>, usize> = HashMap::new();
    let mut scored: Scored<'s> = Vec::new();
    for input in inputs {
        input.each(|member, score| match places.get(&member) {
            Some(place) => scored[*place].1 = aggregate.join(scored[*place].1, score),
            None => {
                places.insert(member.clone(), scored.len());
                scored.push((member, score));
            }
        });
    }
    scored
}

/// At most `most` of the members that are in all inputs.
fn intersection<'s>(inputs: &[CombineInput<'s>], aggregate: Aggregate, most: usize) -> Scored<'s> {
    let mut scored = Vec::new();
    let Some((first, others)) = inputs.split_first() else { return scored };
    first.each(|member, score| {
        if scored.len() < most {
            let join = |score, input: &CombineInput<'_>| {
                input.score(&member).map(|other| aggregate.join(score, other))
            };
            if let Some(score) = others.iter().try_fold(score, join) {
                scored.push((member, score));
            }
        }
    });
    scored
}

/// The members of the first input that are in no other.
fn difference<'s>(inputs: &[CombineInput<'s>]) -> Scored<'s> {
    let mut scored = Vec::new();
    let Some((first, others)) = inputs.split_first() else { return scored };
    first.each(|member, score| {
        if others.iter().all(|input| input.score(&member).is_none()) {
            scored.push((member, score));
        }
    });
    scored
}

fn combine(
    call: &mut Call<'_>,
    operation: CombineOperation,
    purpose: CombineResult,
) -> CommandResult {
    let at = if purpose == CombineResult::Store { 2 } else { 1 };
    let number = call.integer(at)?;
    if number < 1 {
        let name = &call.row.name;
        let text = format!("ERR at least 1 input key is needed for '{name}' command");
        return Err(ErrorReply::text(text));
    }
    let keys = usize::try_from(number).unwrap_or(usize::MAX);
    if keys > call.args.len() - at - 1 {
        return Err(ErrorReply::SYNTAX);
    }
    let entries = (at + 1..=at + keys).map(|i| source(call, i)).collect::<Result<Vec<_>, _>>()?;
    let options = CombineOptions::parse(call, at + keys + 1, keys, operation, purpose)?;
    let mut inputs: Vec<CombineInput<'_>> = entries
        .iter()
        .enumerate()
        .map(|(i, entry)| CombineInput::new(&call.shards, entry.as_ref(), options.weight(i)))
        .collect();
    if operation != CombineOperation::Difference {
        inputs.sort_by_key(CombineInput::len);
    }
    let most = match options.limit {
        0 => usize::MAX,
        limit => usize::try_from(limit).unwrap_or(usize::MAX),
    };
    let mut scored = match operation {
        CombineOperation::Union => union(&inputs, options.aggregate),
        CombineOperation::Intersection => intersection(&inputs, options.aggregate, most),
        CombineOperation::Difference => difference(&inputs),
    };
    match purpose {
        CombineResult::Count => call.reply.integer(i64::try_from(scored.len()).unwrap_or(i64::MAX)),
        CombineResult::List => {
            scored.sort_unstable_by(|a, b| {
                (a.1 + 0.0).total_cmp(&(b.1 + 0.0)).then_with(|| a.0.cmp(&b.0))
            });
            let mut members =
                range::MemberReply::begin(call.reply, scored.len() as u64, options.with_scores);
            scored.iter().for_each(|(member, score)| members.add(Value::Bytes(member), *score));
        }
        CombineResult::Store => {
            let scored: Vec<(Vec<u8>, f64)> =
                scored.into_iter().map(|(member, score)| (member.into_owned(), score)).collect();
            drop(inputs);
            let mut pairs: Vec<_> = scored.iter().map(|(m, s)| (m.as_slice(), *s)).collect();
            return store(call, 1, &mut pairs, 1, operation.event());
        }
    }
    Ok(())
}

/// The sorted set, or the set, of argument `i`.
fn source(call: &mut Call<'_>, i: usize) -> Result<Option<Entry>, ErrorReply> {
    let key = call.key(i);
    match call.shards.lookup_read(call.session.db, &key) {
        Some(entry) if !matches!(entry.kind(), ValueType::SortedSet | ValueType::Set) => {
            Err(ErrorReply::WRONG_TYPE)
        }
        entry => Ok(entry),
    }
}
