//! The barrier and page scans against real children.

use std::io::{Read as _, Write as _, pipe};

use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};

use super::super::ChunkProgress;
use super::*;
use crate::arena::recording::steps;
use crate::layout::UNIT_SIZE;
use crate::{Arena, Held, ReservedArena, ShardIndex, ShardSet};

const PAGE: u64 = 4096;

fn arena(mib: u64) -> Arena {
    ReservedArena::reserve(PageKind::Small, mib << 20).unwrap().format(7, 1).unwrap()
}

fn shard(i: usize) -> ShardIndex {
    ShardIndex::new(i).unwrap()
}

/// A child that shares the memory of this process until it is let go.
pub(crate) struct Child {
    pid: Pid,
    hold: Option<std::io::PipeWriter>,
}

impl Child {
    /// Forks at the safepoint, with the barrier on.
    pub(crate) fn fork(arena: &Arena, held: &mut Held<'_>) -> Self {
        steps::begin(arena, held);
        let (mut wait, hold) = pipe().unwrap();
        // SAFETY: the child reads from a pipe and ends: async-signal-safe.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                drop(hold);
                let _ = wait.read(&mut [0]);
                // SAFETY: ends the process at once.
                unsafe { nix::libc::_exit(0) }
            }
            ForkResult::Parent { child } => Self { pid: child, hold: Some(hold) },
        }
    }

    pub(crate) fn scan_child_pages(&self, arena: &Arena) -> bool {
        arena.scan_child_pages(self.pid.as_raw(), || true).is_some()
    }

    /// Lets it end.
    fn end(&mut self) {
        if let Some(mut hold) = self.hold.take() {
            let _ = hold.write(b".");
            waitpid(self.pid, None).unwrap();
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.end();
    }
}

/// An object of so many pages of which every second page was written.
fn striped(held: &mut Held<'_>, pages: u64) -> u64 {
    let mut mem = held.mem(shard(1));
    let at = mem.allocate(pages * PAGE).unwrap().next_multiple_of(PAGE);
    for page in (0..pages - 1).step_by(2) {
        mem.bytes_mut(at + page * PAGE + 9, 1)[0] = 1;
    }
    at
}

fn write_pages(held: &mut Held<'_>, at: u64, pages: u64) {
    for page in 0..pages {
        let bytes = held.mem(shard(1)).bytes_mut(at + page * PAGE + 5, 2).first().copied();
        assert_eq!(bytes, Some(0));
        held.mem(shard(1)).bytes_mut(at + page * PAGE + 700, 1)[0] = 2;
    }
}

#[test]
fn the_first_write_to_each_page_is_a_fault() {
    let arena = arena(32);
    let mut held = arena.lock(ShardSet::ALL);
    let at = held.mem(shard(1)).allocate(64 * UNIT_SIZE).unwrap();
    held.mem(shard(1)).bytes_mut(at, 64 * UNIT_SIZE).fill(1);
    let child = Child::fork(&arena, &mut held);
    let mut mem = held.mem(shard(1));
    mem.bytes_mut(at + 100, 1)[0] = 1;
    mem.bytes_mut(at + 200, 1)[0] = 1;
    assert_eq!(arena.barrier().cost().faults, 1);
    mem.bytes_mut(at + 4000, 5000)[0] = 1;
    let cost = arena.barrier().cost();
    assert_eq!((cost.faults, cost.copied_bytes), (3, 3 * PAGE));
    assert_eq!(cost.written_bytes, 5002);
    assert!(cost.longest > std::time::Duration::ZERO && cost.longest <= cost.stall);
    assert_eq!(arena.barrier().fault_times().count(), 3);
    let state = |written, faults| ChunkProgress { at_fork: true, written, write_count: faults };
    assert_eq!(arena.barrier().progress_of(ChunkIndex::of(at)), state(false, 3));
    steps::end(&arena, &mut held);
    held.mem(shard(1)).bytes_mut(at + 30_000, 1)[0] = 1;
    assert_eq!(arena.barrier().cost().faults, 3);
    arena.barrier().reset();
    drop(child);
    let _child = Child::fork(&arena, &mut held);
    held.mem(shard(1)).bytes_mut(at, 1)[0] = 1;
    assert_eq!((arena.barrier().cost().faults, arena.barrier().total_cost().faults), (1, 4));
    steps::end(&arena, &mut held);
}

#[test]
fn pages_that_held_nothing_are_not_copied() {
    for scanned in [false, true] {
        let arena = arena(32);
        let mut held = arena.lock(ShardSet::ALL);
        let at = striped(&mut held, 101);
        let child = Child::fork(&arena, &mut held);
        if scanned && !child.scan_child_pages(&arena) {
            // Before Linux 6.7 every page is asked for alone.
            continue;
        }
        let before = arena.barrier().cost();
        write_pages(&mut held, at, 100);
        let cost = arena.barrier().cost();
        assert_eq!(cost.faults - before.faults, 50, "scanned: {scanned}");
        assert_eq!(cost.fresh_pages - before.fresh_pages, 50, "scanned: {scanned}");
        assert_eq!(cost.private_pages, 0);
        steps::end(&arena, &mut held);
    }
}

/// Runs a test in a process of its own: children of tests that run beside it would share its pages.
/// Tells whether this is that process.
fn is_alone(name: &str) -> bool {
    const ALONE: &str = "COWHERD_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let program = std::env::current_exe().unwrap();
    let name = format!("barrier::cow::tests::{name}");
    let mut command = std::process::Command::new(program);
    let output = command.args(["--exact", &name]).env(ALONE, "1").output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.contains("1 passed"), "{told}");
    false
}

#[test]
fn pages_that_the_child_has_let_go_of_are_not_copied() {
    if !is_alone("pages_that_the_child_has_let_go_of_are_not_copied") {
        return;
    }
    let arena = arena(32);
    let mut held = arena.lock(ShardSet::ALL);
    let at = striped(&mut held, 101);
    let mut child = Child::fork(&arena, &mut held);
    child.scan_child_pages(&arena);
    write_pages(&mut held, at, 20);
    let before = arena.barrier().cost();
    arena.barrier().child_exiting();
    child.end();
    write_pages(&mut held, at + 20 * PAGE, 80);
    let cost = arena.barrier().cost();
    assert_eq!((cost.faults, cost.private_pages), (before.faults, 40));
    assert_eq!(cost.fresh_pages - before.fresh_pages, 40);
    steps::end(&arena, &mut held);
}

/// Chunks that fall free keep their memory for a while, and a child shares that too: writing to one
/// after the fork is a copy, until the memory was handed back.
#[test]
fn free_chunks_that_still_have_memory_are_copied() {
    let arena = arena(64);
    let mut held = arena.lock(ShardSet::ALL);
    let at = held.mem(shard(1)).allocate(8 << 20).unwrap();
    held.mem(shard(1)).bytes_mut(at, 8 << 20).fill(1);
    held.mem(shard(1)).release(at, 8 << 20);
    let _child = Child::fork(&arena, &mut held);
    assert_eq!(held.mem(shard(1)).allocate(8 << 20), Ok(at));
    let before = arena.barrier().cost().faults;
    held.mem(shard(1)).bytes_mut(at, 4 << 20).fill(1);
    assert_eq!(arena.barrier().cost().faults - before, 1024);
    arena.barrier().forget_chunk(ChunkIndex::of(at + (6 << 20)));
    held.mem(shard(1)).bytes_mut(at + (4 << 20), 4 << 20).fill(1);
    assert_eq!(arena.barrier().cost().faults - before, 1536);
    steps::end(&arena, &mut held);
}

/// Objects of several shards lie on one page: the second writer waits for the first one's
/// fault, and does not count another.
#[test]
fn writers_of_one_page_count_one_fault() {
    let arena = arena(32);
    let mut held = arena.lock(ShardSet::ALL);
    let at = held.mem(shard(1)).allocate(256 * PAGE).unwrap().next_multiple_of(PAGE);
    held.mem(shard(1)).bytes_mut(at, 255 * PAGE).fill(1);
    let _child = Child::fork(&arena, &mut held);
    let before = arena.barrier().cost();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let arena = &arena;
            scope.spawn(move || {
                for page in 0..255 {
                    arena.barrier().before_write(
                        &arena.store.map,
                        at + page * PAGE + writer * 64,
                        8,
                    );
                }
            });
        }
    });
    let cost = arena.barrier().cost();
    assert_eq!(cost.faults - before.faults, 255);
    assert_eq!(cost.written_bytes - before.written_bytes, 4 * 255 * 8);
    steps::end(&arena, &mut held);
}

#[test]
fn a_page_scan_can_be_stopped() {
    let arena = arena(256);
    let mut held = arena.lock(ShardSet::ALL);
    let at = held.mem(shard(1)).allocate(200 << 20).unwrap();
    let child = Child::fork(&arena, &mut held);
    assert!(arena.scan_child_pages(child.pid.as_raw(), || false).is_none());
    assert!(arena.scan_child_pages(-1, || true).is_none(), "there is no such process");
    // What was not scanned is asked for page by page.
    held.mem(shard(1)).bytes_mut(at + (100 << 20), PAGE)[0] = 1;
    assert!(arena.barrier().cost().fresh_pages > 0);
    steps::end(&arena, &mut held);
}

#[test]
fn the_picture_shows_what_a_save_does() {
    use crate::arena::occupancy::OccupancyCell;

    let arena = arena(64);
    let mut held = arena.lock(ShardSet::ALL);
    let at = held.mem(shard(1)).allocate(20 << 20).unwrap();
    held.mem(shard(1)).bytes_mut(at, 20 << 20).fill(1);
    let place = (at / CHUNK_SIZE) as usize;
    let idle = arena.occupancy_map(1000);
    assert_eq!((idle.chunks_per_cell, idle.cells.len()), (1, 32));
    assert_eq!(idle.cells.iter().filter(|cell| cell.0 == OccupancyCell::USED).count(), 11);
    let _child = Child::fork(&arena, &mut held);
    held.mem(shard(1)).bytes_mut(at + CHUNK_SIZE, 5 * PAGE).fill(2);
    arena.barrier().note_written(place as u64 + 2);
    let save = arena.occupancy_map(32);
    let shared = OccupancyCell::USED | OccupancyCell::AT_FORK;
    assert_eq!(save.cells[place], OccupancyCell::new(shared | OccupancyCell::WRITTEN, 0));
    assert_eq!(save.cells[place + 1], OccupancyCell::new(shared | OccupancyCell::WRITTEN, 5));
    assert_eq!(save.cells[place + 2], OccupancyCell::new(shared, 0));
    assert_eq!(save.cells[31], OccupancyCell::default());
    let coarse = arena.occupancy_map(5);
    assert_eq!((coarse.chunks_per_cell, coarse.cells.len()), (7, 5));
    assert_eq!(coarse.cells[0], OccupancyCell::new(shared, 5), "not all of it is written");
    steps::end(&arena, &mut held);
    assert_eq!(arena.occupancy_map(1000), idle);
}

/// Free chunks that kept their memory lay on huge pages at the fork and are not in use afterwards:
/// nothing has split them.
#[test]
fn an_idle_save_splits_nothing() {
    let Ok(blank) = ReservedArena::reserve(PageKind::Thp, 64 << 20) else { return };
    let arena = blank.format(7, 1).unwrap();
    let mut held = arena.lock(ShardSet::ALL);
    for size in [20 << 20, 10 << 20] {
        let at = held.mem(shard(1)).allocate(size).unwrap();
        held.mem(shard(1)).bytes_mut(at, size).fill(1);
        if size > 10 << 20 {
            held.mem(shard(1)).release(at, size);
        }
    }
    let child = Child::fork(&arena, &mut held);
    let Some(before) = arena.scan_child_pages(child.pid.as_raw(), || true) else { return };
    let Some(after) = arena.scan_pages(|| true) else { return };
    assert_eq!(arena.split_since(&before, &after.huge), 0);
    assert_eq!(before.len(), after.huge.len());
    assert!(arena.scan_pages(|| false).is_none());
    steps::end(&arena, &mut held);
}
