//! Makes huge pages whole again that writers split during a save: one chunk at a time, with pauses
//! nine times as long as the work, so that at most a tenth of the time somebody may wait for it.
//!
//! The saver's thread does it while no save runs: walking page tables delays a fork.

use std::io;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::commands::Shared;
use crate::keyspace::CHUNK_SIZE;
use cowherd_arena::ChunkIndex;

/// From one look at the page tables to the next.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// The shortest pause after a chunk.
const PAUSE: Duration = Duration::from_millis(5);
/// Of the time, at most one part in so many is spent.
const DUTY: u32 = 10;
/// So many refusals in a row end the work until the next look: there is no memory.
const PATIENCE: u32 = 8;

/// What is to be made whole, and when to go on.
pub(super) struct ThpCollapser {
    /// Chunks to be made whole, the next one last.
    todo: Vec<ChunkIndex>,
    refusals: u32,
    /// It has worked once.
    works: bool,
    /// The kernel has no way to do it.
    hopeless: bool,
    next_step: Instant,
    next_look: Instant,
}

impl ThpCollapser {
    /// One that looks at once.
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            todo: Vec::new(),
            refusals: 0,
            works: false,
            hopeless: false,
            next_step: now,
            next_look: now,
        }
    }

    /// How long there is nothing to do.
    pub(super) fn pause(&self) -> Duration {
        let next = if self.todo.is_empty() { self.next_look } else { self.next_step };
        next.saturating_duration_since(Instant::now())
    }

    /// A save has ended: there may be work.
    pub(super) fn look_soon(&mut self) {
        self.next_look = Instant::now();
        self.todo.clear();
    }

    /// Looks, or makes one chunk whole. A look ends early once `is_wanted` says that somebody asks
    /// for a save.
    pub(super) fn step(&mut self, shared: &Shared, is_wanted: impl Fn() -> bool) {
        if Instant::now() >= self.next_look {
            self.look(shared, is_wanted);
        } else if let Some(chunk) = self.todo.pop() {
            self.heal(shared, chunk);
        }
    }

    fn look(&mut self, shared: &Shared, is_wanted: impl Fn() -> bool) {
        let arena = shared.keyspace.arena();
        let now = Instant::now();
        (self.next_look, self.next_step) = (now + LOOK_EVERY, now + PAUSE);
        self.refusals = 0;
        self.todo.clear();
        if let Some(look) = arena.scan_pages(|| !is_wanted()) {
            shared.sampled.saw_huge(look.huge.len() * CHUNK_SIZE);
            if shared.config.current().arena_thp_collapse && !self.hopeless {
                self.todo = look.split;
                self.todo.reverse();
            }
        } else if !is_wanted() {
            shared.sampled.saw_huge(arena.huge_bytes_of_old_kernels().unwrap_or(0));
        }
    }

    fn heal(&mut self, shared: &Shared, chunk: ChunkIndex) {
        if !shared.config.current().arena_thp_collapse {
            self.todo.clear();
            return;
        }
        let begun = Instant::now();
        let outcome = shared.keyspace.arena().collapse(chunk);
        let took = begun.elapsed();
        if let Ok(true) = outcome {
            shared.sampled.healed_one();
        }
        self.learn(&outcome);
        self.next_step = Instant::now() + PAUSE.max(took * (DUTY - 1));
    }

    /// Goes on, waits for better times, or gives up, by how a chunk went.
    fn learn(&mut self, outcome: &io::Result<bool>) {
        let Err(error) = outcome else {
            self.refusals = 0;
            self.works |= matches!(outcome, Ok(true));
            return;
        };
        self.refusals += 1;
        if self.refusals < PATIENCE {
            return;
        }
        self.todo.clear();
        // A single chunk may be refused like that too, for example as nothing of it is there.
        if error.raw_os_error() == Some(Errno::EINVAL as i32) && !self.works {
            tracing::warn!(
                "The kernel does not make split huge pages whole (MADV_COLLAPSE, Linux 6.1)"
            );
            self.hopeless = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_work() -> ThpCollapser {
        let mut healer = ThpCollapser::new();
        healer.next_look += LOOK_EVERY;
        healer.todo = (0..20).map(ChunkIndex).collect();
        healer
    }

    fn refused(errno: Errno) -> io::Result<bool> {
        Err(errno.into())
    }

    #[test]
    fn refusals_in_a_row_end_the_work_until_the_next_look() {
        let mut healer = with_work();
        for _ in 1..PATIENCE {
            healer.learn(&refused(Errno::EAGAIN));
        }
        healer.learn(&Ok(true));
        for _ in 1..PATIENCE {
            healer.learn(&refused(Errno::ENOMEM));
        }
        assert_eq!(healer.todo.len(), 20, "a success in between starts the count anew");
        healer.learn(&refused(Errno::ENOMEM));
        assert!(healer.todo.is_empty() && !healer.hopeless);
        assert!(healer.pause() > PAUSE, "nothing to do until the next look");
    }

    #[test]
    fn a_kernel_that_never_could_is_asked_no_more() {
        let refuse = |healer: &mut ThpCollapser, times| {
            (0..times).for_each(|_| healer.learn(&refused(Errno::EINVAL)));
        };
        let mut healer = with_work();
        refuse(&mut healer, PATIENCE - 1);
        assert!(!healer.hopeless && healer.todo.len() == 20, "it may be the chunks");
        refuse(&mut healer, 1);
        assert!(healer.hopeless && healer.todo.is_empty());
        let mut healer = with_work();
        healer.learn(&Ok(true));
        refuse(&mut healer, PATIENCE);
        assert!(!healer.hopeless && healer.todo.is_empty(), "it has worked before");
    }

    #[test]
    fn a_save_calls_for_a_look() {
        let mut healer = with_work();
        healer.look_soon();
        assert!(healer.todo.is_empty());
        assert_eq!(healer.pause(), Duration::ZERO);
    }
}
