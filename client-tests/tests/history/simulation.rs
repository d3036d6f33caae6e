//! Histories of a simulated server, and altered replies.

use crate::history::{Clock, Event, History, Operation, Request};
use crate::model::State;
use crate::reply::{Reply, Words, word};
use crate::workload::{Generator, groups};
use client_tests::random::Random;

/// The progress of a simulated client.
enum Phase {
    Idle,
    Sent(usize),
    /// The operation has taken effect and has this reply.
    Done(usize, Reply),
}

/// A correct history of some clients on the group of a family: each operation takes effect at a
/// random moment between its ends.
pub fn simulate(random: &mut Random, family: u64, clients: usize, most: usize) -> History {
    let groups = groups();
    let family = usize::try_from(family).unwrap_or_default();
    let groups = std::slice::from_ref(&groups[family]);
    let seed = random.next();
    let mut sources: Vec<_> =
        (0..clients).map(|client| (Generator::new(groups, seed, 1, client), Vec::new())).collect();
    let mut phases: Vec<_> = (0..clients).map(|_| Phase::Idle).collect();
    let (clock, mut state, mut history) = (Clock::default(), State::default(), History::default());
    loop {
        let client = usize::try_from(random.below(clients as u64)).unwrap_or_default();
        let phase = std::mem::replace(&mut phases[client], Phase::Idle);
        phases[client] = match phase {
            Phase::Idle if history.operations.len() < most => {
                let (generator, queue) = &mut sources[client];
                let request = next(generator, queue);
                let invoked = clock.tick();
                let answer = None;
                let operation = Operation { client, invoked, answer, request, after: None };
                history.operations.push(operation);
                Phase::Sent(history.operations.len() - 1)
            }
            Phase::Idle if phases.iter().all(|phase| matches!(phase, Phase::Idle)) => {
                return history;
            }
            Phase::Idle => Phase::Idle,
            Phase::Sent(number) => {
                let reply = take_effect(&mut state, &history.operations[number]);
                Phase::Done(number, reply)
            }
            Phase::Done(number, reply) => {
                history.operations[number].answer = Some((clock.tick(), reply));
                Phase::Idle
            }
        };
    }
}

/// The next request for which the model makes no choice.
fn next(generator: &mut Generator<'_>, queue: &mut Vec<Request>) -> Request {
    let chooses = |request: &Request| {
        let random = word("SRANDMEMBER");
        !request.is_deterministic() || request.commands().iter().any(|one| one[0] == random)
    };
    loop {
        if let Some(request) = queue.pop() {
            return request;
        }
        let batch = generator.next().requests.into_iter().rev().map(|(_, request)| request);
        queue.extend(batch);
        if queue.iter().any(chooses) {
            queue.clear();
        }
    }
}

fn take_effect(state: &mut State, operation: &Operation) -> Reply {
    use crate::model::WatchState;
    match &operation.request {
        Request::Command(words) => state.run(operation.client, words, None),
        Request::Transaction(commands) => {
            if state.end_watch(operation.client) == Some(WatchState::Dirty) {
                return Reply::Nil;
            }
            let run = |words: &Words| state.run(operation.client, words, None);
            Reply::Array(commands.iter().map(run).collect())
        }
        Request::Script(script) => {
            let run = |words: &Words| state.run(operation.client, words, None);
            Reply::Array(script.commands.iter().map(run).collect())
        }
    }
}

/// Changes the reply of one operation.
pub fn alter(random: &mut Random, history: &mut History) {
    let count = history.operations.len() as u64;
    let pick = |random: &mut Random| usize::try_from(random.below(count)).unwrap_or_default();
    let (one, other) = (pick(random), pick(random));
    let known = history.operations[other].answer.clone();
    let Some((_, reply)) = &mut history.operations[one].answer else { return };
    match (random.below(3), known) {
        (0, Some((_, known))) => *reply = known,
        _ => *reply = altered(random, reply),
    }
}

/// A reply that differs a little.
pub fn altered(random: &mut Random, reply: &Reply) -> Reply {
    match reply {
        Reply::Int(number) => Reply::Int(number + [1, -1][usize::from(random.below(2) == 0)]),
        Reply::Nil => Reply::Bulk(word("1")),
        Reply::Bulk(_) if random.below(2) == 0 => Reply::Nil,
        Reply::Bulk(text) => Reply::Bulk([&text[..], b"0"].concat().into()),
        Reply::Simple(_) => Reply::error("ERR no such key"),
        Reply::Error(_) => Reply::ok(),
        Reply::Array(items) if items.is_empty() => Reply::Array(vec![Reply::Int(1)]),
        Reply::Array(items) => {
            let mut items = items.clone();
            let at = usize::try_from(random.below(items.len() as u64)).unwrap_or_default();
            match random.below(3) {
                0 => drop(items.remove(at)),
                1 => items.insert(at, items[at].clone()),
                _ => items[at] = altered(random, &items[at]),
            }
            Reply::Array(items)
        }
    }
}

/// Positions of operations that overlap no other one and no cut.
pub fn alone(history: &History) -> Vec<usize> {
    let events = history.events();
    let (mut pending, mut found) = (0, Vec::new());
    for pair in events.windows(2) {
        match pair[0].1 {
            Event::Invoked(number) if pending == 0 => {
                if pair[1].1 == Event::Answered(number) {
                    found.push(number);
                }
                pending += 1;
            }
            Event::Invoked(_) | Event::CutOpened(_) => pending += 1,
            Event::Answered(_) | Event::CutClosed(_) => pending -= 1,
        }
    }
    found
}
