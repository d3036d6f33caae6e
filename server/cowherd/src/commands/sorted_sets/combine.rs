//! Unions, intersections and differences of sorted sets, and of sets.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::commands::call::Call;
use crate::commands::error_reply::{CommandResult, ErrorReply};
use crate::keyspace::{Entry, Shards, SortedSetView, Value, ValueKind};
use cowherd_resp::{parse_f64, parse_i64};

use super::range::{self, store};

const NO_WEIGHT: ErrorReply = ErrorReply::new("ERR weight value is not a float");
const NEGATIVE_LIMIT: ErrorReply = ErrorReply::new("ERR LIMIT can't be negative");

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Union,
    Intersection,
    Difference,
}

impl Operation {
    /// What is told of a key that gets the result.
    const fn event(self) -> &'static str {
        match self {
            Self::Union => "zunionstore",
            Self::Intersection => "zinterstore",
            Self::Difference => "zdiffstore",
        }
    }
}

/// What is to be done with the result.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    List,
    Store,
    Count,
}

pub(super) fn zunion(call: &mut Call<'_>) -> CommandResult {
    combine(call, Operation::Union, Purpose::List)
}

pub(super) fn zinter(call: &mut Call<'_>) -> CommandResult {
    combine(call, Operation::Intersection, Purpose::List)
}

pub(super) fn zdiff(call: &mut Call<'_>) -> CommandResult {
    combine(call, Operation::Difference, Purpose::List)
}

pub(super) fn zunionstore(call: &mut Call<'_>) -> CommandResult {
    combine(call, Operation::Union, Purpose::Store)
}

pub(super) fn zinterstore(call: &mut Call<'_>) -> CommandResult {
    combine(call, Operation::Intersection, Purpose::Store)
}

pub(super) fn zdiffstore(call: &mut Call<'_>) -> CommandResult {
    combine(call, Operation::Difference, Purpose::Store)
}

pub(super) fn zintercard(call: &mut Call<'_>) -> CommandResult {
    combine(call, Operation::Intersection, Purpose::Count)
}

/// How scores of one member are put together.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Aggregate {
    #[default]
    Sum,
    Least,
    Most,
}

impl Aggregate {
    /// `one` and `other`, which counts for nothing if it is not a number and not added.
    fn join(self, one: f64, other: f64) -> f64 {
        match self {
            // Infinities of both signs come to nothing.
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
struct Options {
    /// One a key, or none at all.
    weights: Vec<f64>,
    aggregate: Aggregate,
    with_scores: bool,
    limit: u64,
}

impl Options {
    /// Reads what follows the keys, from argument `i` on.
    fn parse(
        call: &Call<'_>,
        mut i: usize,
        keys: usize,
        operation: Operation,
        purpose: Purpose,
    ) -> Result<Self, ErrorReply> {
        let mut options = Self::default();
        let is_plain = operation != Operation::Difference && purpose != Purpose::Count;
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
            } else if purpose == Purpose::List && call.is(i, "withscores") {
                options.with_scores = true;
                i += 1;
            } else if purpose == Purpose::Count && left > 1 && call.is(i, "limit") {
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

/// What one of the keys holds.
enum Members<'s> {
    None,
    Scored(SortedSetView<'s>),
    /// A set: each member has the score 1.
    Plain(&'s Shards<'s>, Entry),
}

/// One of the keys.
struct Input<'s> {
    members: Members<'s>,
    weight: f64,
}

impl<'s> Input<'s> {
    fn new(shards: &'s Shards<'s>, entry: Option<&Entry>, weight: f64) -> Self {
        let members = match entry {
            None => Members::None,
            Some(entry) if entry.kind() == ValueKind::Set => Members::Plain(shards, *entry),
            Some(entry) => Members::Scored(shards.sorted_set(entry)),
        };
        Self { members, weight }
    }

    fn len(&self) -> u64 {
        match &self.members {
            Members::None => 0,
            Members::Scored(view) => view.len(),
            Members::Plain(shards, entry) => shards.set_len(entry),
        }
    }

    /// The score of a member, weighed; not a number if an infinity was to count for nothing.
    fn score(&self, member: &[u8]) -> Option<f64> {
        let score = match &self.members {
            Members::None => None,
            Members::Scored(view) => view.score(member),
            Members::Plain(shards, entry) => shards.set_has(entry, member).then_some(1.0),
        };
        score.map(|score| score * self.weight)
    }

    fn each(&self, mut each: impl FnMut(Cow<'s, [u8]>, f64)) {
        let mut each = |member, score: f64| each(owned(member), or_zero(score * self.weight));
        match &self.members {
            Members::None => {}
            Members::Scored(view) => view.each(0, view.len(), false, each),
            Members::Plain(shards, entry) => shards.set_each(entry, |member| each(member, 1.0)),
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

/// What is in any of the inputs.
fn union<'s>(inputs: &[Input<'s>], aggregate: Aggregate) -> Scored<'s> {
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

/// What is in all of the inputs, `most` at most.
fn intersection<'s>(inputs: &[Input<'s>], aggregate: Aggregate, most: usize) -> Scored<'s> {
    let mut scored = Vec::new();
    let Some((first, others)) = inputs.split_first() else { return scored };
    first.each(|member, score| {
        if scored.len() < most {
            let join = |score, input: &Input<'_>| {
                input.score(&member).map(|other| aggregate.join(score, other))
            };
            if let Some(score) = others.iter().try_fold(score, join) {
                scored.push((member, score));
            }
        }
    });
    scored
}

/// What is in the first input only.
fn difference<'s>(inputs: &[Input<'s>]) -> Scored<'s> {
    let mut scored = Vec::new();
    let Some((first, others)) = inputs.split_first() else { return scored };
    first.each(|member, score| {
        if others.iter().all(|input| input.score(&member).is_none()) {
            scored.push((member, score));
        }
    });
    scored
}

fn combine(call: &mut Call<'_>, operation: Operation, purpose: Purpose) -> CommandResult {
    let at = if purpose == Purpose::Store { 2 } else { 1 };
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
    let options = Options::parse(call, at + keys + 1, keys, operation, purpose)?;
    let mut inputs: Vec<Input<'_>> = entries
        .iter()
        .enumerate()
        .map(|(i, entry)| Input::new(&call.shards, entry.as_ref(), options.weight(i)))
        .collect();
    if operation != Operation::Difference {
        inputs.sort_by_key(Input::len);
    }
    let most = match options.limit {
        0 => usize::MAX,
        limit => usize::try_from(limit).unwrap_or(usize::MAX),
    };
    let mut scored = match operation {
        Operation::Union => union(&inputs, options.aggregate),
        Operation::Intersection => intersection(&inputs, options.aggregate, most),
        Operation::Difference => difference(&inputs),
    };
    match purpose {
        Purpose::Count => call.reply.integer(i64::try_from(scored.len()).unwrap_or(i64::MAX)),
        Purpose::List => {
            scored.sort_unstable_by(|a, b| {
                (a.1 + 0.0).total_cmp(&(b.1 + 0.0)).then_with(|| a.0.cmp(&b.0))
            });
            let mut members =
                range::Members::begin(call.reply, scored.len() as u64, options.with_scores);
            scored.iter().for_each(|(member, score)| members.add(Value::Bytes(member), *score));
        }
        Purpose::Store => {
            let scored: Vec<(Vec<u8>, f64)> =
                scored.into_iter().map(|(member, score)| (member.into_owned(), score)).collect();
            drop(inputs);
            let mut pairs: Vec<_> = scored.iter().map(|(m, s)| (m.as_slice(), *s)).collect();
            return store(call, &mut pairs, operation.event());
        }
    }
    Ok(())
}

/// The sorted set, or the set, of argument `i`.
fn source(call: &mut Call<'_>, i: usize) -> Result<Option<Entry>, ErrorReply> {
    let key = call.key(i);
    match call.shards.lookup_read(call.session.db, &key) {
        Some(entry) if !matches!(entry.kind(), ValueKind::SortedSet | ValueKind::Set) => {
            Err(ErrorReply::WRONG_TYPE)
        }
        entry => Ok(entry),
    }
}
