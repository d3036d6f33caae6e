//! What telling copied pages from others costs, and making huge pages whole; the figures of
//! docs/decisions/0010.

use std::time::{Duration, Instant};

use super::*;
use crate::arena::recording::steps;
use crate::barrier::cow::tests::Child;

const PAGE: u64 = 4096;
const MIB: u64 = 256;

fn filled(kind: PageKind) -> (Arena, u64) {
    let arena = ReservedArena::reserve(kind, (MIB + 16) << 20).unwrap().format(7, 1).unwrap();
    let shard = ShardIndex::new(1).unwrap();
    let mut held = arena.lock(ShardSet::ALL);
    let at = held.mem(shard).allocate(MIB << 20).unwrap();
    held.mem(shard).bytes_mut(at, MIB << 20).fill(1);
    drop(held);
    (arena, at)
}

/// How a page is found out about, in [`per_page`].
#[derive(Clone, Copy, PartialEq, Debug)]
enum FirstWrite {
    /// Not at all: the page is written, and the kernel copies it.
    Bare,
    /// By the barrier, which asks the kernel for each page.
    Asked,
    /// By the barrier, after the page scan.
    Scanned,
}

/// Time for the first write to a page after a fork, and for the page scan of a chunk.
fn per_page(kind: FirstWrite) -> (Duration, Duration) {
    let (arena, at) = filled(PageKind::Small);
    let mut held = arena.lock(ShardSet::ALL);
    let child = Child::fork(&arena, &mut held);
    let begun = Instant::now();
    if kind == FirstWrite::Scanned {
        assert!(child.scan_child_pages(&arena), "Linux 6.7 or later");
    }
    let scan = begun.elapsed() / (MIB as u32 / 2);
    if kind == FirstWrite::Bare {
        steps::end(&arena, &mut held);
    }
    let pages = (MIB << 20) / PAGE;
    let mut mem = held.mem(ShardIndex::new(1).unwrap());
    let begun = Instant::now();
    for page in 0..pages {
        mem.bytes_mut(at + page * PAGE, 1)[0] = 2;
    }
    let took = begun.elapsed() / pages as u32;
    drop(child);
    steps::end(&arena, &mut held);
    (took, scan)
}

/// ```sh
/// CARGO_PROFILE_TESTED_DEBUG_ASSERTIONS=false CARGO_PROFILE_TESTED_OVERFLOW_CHECKS=false \
///     cargo test --profile tested -p cowherd-arena --lib speed_tests -- \
///     --ignored --nocapture --test-threads 1
/// ```
#[test]
#[ignore = "a measurement, for an optimised build"]
fn first_writes() {
    for round in 1..=5 {
        for kind in [FirstWrite::Bare, FirstWrite::Asked, FirstWrite::Scanned] {
            let (took, scan) = per_page(kind);
            println!("round {round}: {kind:?}: {took:.2?} a page; scan {scan:.2?} a chunk");
        }
    }
}

/// As [`first_writes`].
#[test]
#[ignore = "a measurement, for an optimised build"]
fn collapses() {
    let (arena, at) = filled(PageKind::Thp);
    let mut held = arena.lock(ShardSet::ALL);
    let child = Child::fork(&arena, &mut held);
    let mut mem = held.mem(ShardIndex::new(1).unwrap());
    for chunk in 0..MIB / 2 {
        mem.bytes_mut(at + chunk * CHUNK_SIZE, 1)[0] = 2;
    }
    drop(child);
    steps::end(&arena, &mut held);
    drop(held);
    let begun = Instant::now();
    let split = arena.scan_pages(|| true).unwrap().split;
    println!("{} chunks are split; found in {:.2?}", split.len(), begun.elapsed());
    let mut times: Vec<Duration> = Vec::new();
    for chunk in split {
        let begun = Instant::now();
        assert!(arena.collapse(chunk).unwrap());
        times.push(begun.elapsed());
    }
    times.sort();
    let mean = times.iter().sum::<Duration>() / times.len() as u32;
    let last = times[times.len() - 1];
    println!(
        "one collapse: mean {mean:.2?}, median {:.2?}, longest {last:.2?}",
        times[times.len() / 2]
    );
}
