//! The model beside Debian's redis-server: the same replies, and the same keys at the end.

use super::*;
use crate::client::{Client, Shared};
use crate::contents;
use crate::history::Request;
use crate::workload::{Generator, groups};
use anyhow::ensure;
use client_tests::peer::Peer;
use client_tests::random::seed;
use client_tests::{TestResult, skip};

const BATCHES: u64 = 6_000;
/// More clients than any other test has.
const CLIENT: usize = 50;

fn expected(state: &mut State, request: &Request, seen: &Reply) -> Reply {
    match (request, seen) {
        (Request::Command(words), seen) => state.run(CLIENT, words, Some(seen)),
        (Request::Transaction(commands), Reply::Array(seen)) => {
            state.end_watch(CLIENT);
            let pairs = commands.iter().zip(seen);
            Reply::Array(pairs.map(|(words, seen)| state.run(CLIENT, words, Some(seen))).collect())
        }
        (Request::Script(script), Reply::Array(seen)) => {
            let pairs = script.commands.iter().zip(seen);
            Reply::Array(pairs.map(|(words, seen)| state.run(CLIENT, words, Some(seen))).collect())
        }
        (Request::Script(_), _) => Reply::Array(Vec::new()),
        (Request::Transaction(_), seen) => {
            // The client's own command has changed what it watches.
            let may_refuse =
                state.end_watch(CLIENT).is_some_and(|watch| watch != WatchState::Clean);
            if may_refuse { seen.clone() } else { Reply::Array(Vec::new()) }
        }
    }
}

#[test]
fn the_model_agrees_with_redis_server() -> TestResult {
    let Some(peer) = Peer::start()? else { skip!("redis-server is not installed") };
    let (seed, groups) = (seed(), groups());
    for (number, group) in groups.iter().enumerate() {
        let shared = Shared::default();
        let mut client = Client::new(&shared, peer.raw()?, CLIENT);
        let one = std::slice::from_ref(group);
        let mut requests = Generator::new(one, seed, 1, number);
        for _ in 0..BATCHES {
            client.run(requests.next())?;
        }
        let mut state = State::default();
        for (_, operation) in &client.operations {
            let seen = operation.answer.as_ref().map_or(&Reply::Nil, |(_, reply)| reply);
            let expected = expected(&mut state, &operation.request, seen);
            ensure!(*seen == expected, "{operation}, but expected {expected}");
        }
        let found = contents::read(&mut peer.raw()?, &group.keys)?;
        ensure!(found == *state.keys(), "{found:?}, but expected {:?}", state.keys());
    }
    Ok(())
}
