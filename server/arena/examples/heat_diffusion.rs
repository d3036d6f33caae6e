//! A simulation that checkpoints itself while it runs, and restores from the image.
//!
//! Heat spreads over a square grid of temperatures, 8 bytes a cell, that lives in an arena. After
//! some steps a forked child writes an image of the grid, with the undo log, while the simulation
//! goes on. The example then restores the image and compares it, cell by cell, with a copy of the
//! grid that was made at the safepoint.
//!
//!     cargo run --release -p cowherd-arena --example heat_diffusion [-- SIDE STEPS DIRECTORY]
//!
//! The layout: the root of shard 0 holds the offset of the grid (an object of its own, so a run of
//! chunks), the side, and the number of steps done.

use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use cowherd_arena::checkpoint::{
    CheckpointError, CheckpointObserver, ChunkCodec, ImageOptions, ImageTarget, PreparedCheckpoint,
    restore,
};
use cowherd_arena::layout::shard_root;
use cowherd_arena::{
    Arena, Backing, Corruption, FinishedRecording, Isolation, Mem, Offset, PageKind, Recording,
    ReservedArena, ShardIndex, ShardSet, UndoOptions, layout_hash,
};

/// The version of what this program stores: an image with another one is rejected.
const VERSION: u64 = 1;

/// The one shard that the simulation uses.
fn shard() -> ShardIndex {
    ShardIndex::of_hash(0)
}

/// Offsets in the root of the shard.
const GRID: Offset<u64> = Offset::new(shard_root(0));
const SIDE: Offset<u64> = Offset::new(shard_root(0) + 8);
const STEPS: Offset<u64> = Offset::new(shard_root(0) + 16);

fn backing() -> Backing {
    let options = UndoOptions { limit: 64 << 20, block: 512 };
    Backing { kind: PageKind::Small, isolation: Isolation::UndoLog(options) }
}

/// A cold grid with a hot line in the middle.
fn create(arena: &Arena, side: u64) -> Result<(), Box<dyn Error>> {
    let mut held = arena.lock(ShardSet::one(shard()));
    let mut mem = held.mem(shard());
    let grid = mem.allocate(side * side * 8)?;
    mem.bytes_mut(grid, side * side * 8).fill(0);
    for x in 0..side {
        mem.write(Offset::new(grid + (side / 2 * side + x) * 8), 100.0_f64);
    }
    mem.write(GRID, grid);
    mem.write(SIDE, side);
    mem.write(STEPS, 0_u64);
    Ok(())
}

/// One step: each inner cell moves towards the mean of its neighbours. The shard is locked for one
/// row at a time, so that a fork never waits for a whole step.
fn step(arena: &Arena) {
    let (grid, side) = read(arena, |mem| (mem.read(GRID), mem.read(SIDE)));
    for y in 1..side - 1 {
        let mut held = arena.lock(ShardSet::one(shard()));
        let mut mem = held.mem(shard());
        let cell = |x: u64, y: u64| Offset::<f64>::new(grid + (y * side + x) * 8);
        for x in 1..side - 1 {
            let around = mem.read(cell(x - 1, y))
                + mem.read(cell(x + 1, y))
                + mem.read(cell(x, y - 1))
                + mem.read(cell(x, y + 1));
            let old = mem.read(cell(x, y));
            mem.write(cell(x, y), old + 0.2 * (around - 4.0 * old));
        }
    }
    let mut held = arena.lock(ShardSet::one(shard()));
    let mut mem = held.mem(shard());
    let steps = mem.read(STEPS);
    mem.write(STEPS, steps + 1);
}

fn read<T>(arena: &Arena, look: impl FnOnce(&Mem<'_>) -> T) -> T {
    let mut held = arena.lock(ShardSet::one(shard()));
    look(&held.mem(shard()))
}

/// The whole grid as bytes.
fn cells(mem: &Mem<'_>) -> Vec<u8> {
    let side = mem.read(SIDE);
    mem.bytes(mem.read(GRID), side * side * 8).to_vec()
}

/// Keeps the undo log supplied while the child writes, and ends the recording at a safepoint.
struct Observer<'a> {
    arena: &'a Arena,
    finished: Option<FinishedRecording<'a>>,
}

impl<'a> CheckpointObserver<'a> for Observer<'a> {
    fn poll_interval(&self) -> Duration {
        Duration::from_millis(5)
    }

    fn poll(&mut self) -> Option<CheckpointError> {
        let log = self.arena.barrier().undo_log()?;
        if self.arena.barrier().has_overflowed() {
            return Some(CheckpointError::UndoLimit { limit: log.limit() });
        }
        log.reclaim();
        log.prefault();
        None
    }

    fn child_exiting(&mut self) {}

    fn child_exited(&mut self, recording: Recording<'a>) {
        let mut held = self.arena.lock(ShardSet::ALL);
        let safepoint = held.safepoint().expect("every shard is locked");
        self.finished = Some(recording.finish(&safepoint));
    }
}

/// Checks that a restored grid is complete: its object is claimed, and nothing else exists.
fn verify(arena: &Arena) -> Result<(), Corruption> {
    let mut held = arena.lock(ShardSet::ALL);
    let (grid, side) = {
        let mem = held.view(shard());
        (mem.read(GRID), mem.read(SIDE))
    };
    let audit = cowherd_arena::Audit::begin(&mut held)?;
    audit.claim(grid, side.saturating_mul(side).saturating_mul(8), shard())?;
    audit.finish().map(drop)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let side: u64 = arguments.next().map_or(Ok(1024), |text| text.parse())?;
    let steps: u64 = arguments.next().map_or(Ok(20), |text| text.parse())?;
    let dir = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let layout = layout_hash(&[VERSION]);
    let capacity = (side * side * 8 + (16 << 20)).next_multiple_of(2 << 20);

    let arena = ReservedArena::reserve(backing(), capacity)?.format(layout, 0)?;
    create(&arena, side)?;
    (0..steps).for_each(|_| step(&arena));

    let filename = format!("heat-{}.cow", std::process::id());
    let target = ImageTarget { dir, filename };
    let options = ImageOptions {
        codec: ChunkCodec::Lz4,
        layout,
        created_ms: 0,
        delay_per_chunk: Duration::ZERO,
    };
    let prepared = PreparedCheckpoint::new(&target, &options, &arena)?;
    let (at_fork, running) = {
        let mut held = arena.lock(ShardSet::ALL);
        let at_fork = cells(&held.mem(shard()));
        (at_fork, prepared.fork(&held.safepoint().expect("every shard is locked"))?)
    };
    println!(
        "forked in {:?} after {steps} steps of {side} x {side} cells",
        running.fork_duration()
    );

    // The simulation goes on in a thread of its own; the thread that forked waits for the child.
    let handle = running.handle();
    let mut observer = Observer { arena: &arena, finished: None };
    let outcome = std::thread::scope(|scope| {
        let simulation = scope.spawn(|| {
            let mut done = 0_u64;
            while done == 0 || !handle.is_over() {
                step(&arena);
                done += 1;
            }
            done
        });
        let outcome = running.wait(&mut observer);
        println!("{} further steps meanwhile", simulation.join().expect("the simulation"));
        outcome
    })?;
    let cost = observer.finished.as_ref().map(FinishedRecording::undo_cost).unwrap_or_default();
    println!(
        "wrote {} bytes for {} of memory in {:?}; captured {} blocks in {:?} of writers' time",
        outcome.image_bytes, outcome.raw_bytes, outcome.total, cost.captures, cost.stall
    );
    drop(observer);

    let begun = Instant::now();
    let (restored, _) = restore(&target.path(), backing(), capacity, layout, 2)?;
    verify(&restored)?;
    let (found, at) = read(&restored, |mem| (cells(mem), mem.read(STEPS)));
    println!("restored step {at} in {:?}", begun.elapsed());
    std::fs::remove_file(target.path())?;
    if found != at_fork || at != steps {
        return Err("the image is not the grid of the fork".into());
    }
    println!("the image is exactly the grid at the fork");
    Ok(())
}
