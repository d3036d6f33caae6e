//! The replies of LATENCY DOCTOR and MEMORY DOCTOR: one remark for each problem found, with the
//! figures behind it and the setting that helps.

use std::time::Duration;

use super::checkpoint_record::{CheckpointRecord, CheckpointStatus, StallCause};
use super::latency_monitor::{LatencyEvent, LatencyEventHistory};
use super::stats_source::StatsSnapshot;

/// What the remarks are based on.
#[derive(Debug, Clone)]
pub(crate) struct AdviceInputs<'a> {
    /// The engine's statistics.
    pub(crate) stats: &'a StatsSnapshot,
    /// The events that the latency monitor has recorded.
    pub(crate) events: &'a [LatencyEventHistory],
    /// The last checkpoints, the oldest first.
    pub(crate) checkpoints: &'a [CheckpointRecord],
    /// The setting `latency-monitor-threshold`.
    pub(crate) threshold_ms: u64,
    /// The setting `arena-thp-collapse`.
    pub(crate) collapses_thp: bool,
    /// The most memory that was in use, in bytes.
    pub(crate) peak_memory: u64,
}

/// The shortest wait worth a remark: far above the duration of a usual command.
const NOTICEABLE: Duration = Duration::from_millis(5);
/// A smaller share of the arena on huge pages is worth a remark.
const FEW_HUGE: f64 = 0.8;
const GIB: f64 = (1_u64 << 30) as f64;

type Remark = fn(&AdviceInputs<'_>) -> Option<String>;

/// The facts behind the remarks: isolation, configured and actual pages, transparent huge pages,
/// pool.
pub(crate) fn on_pages(inputs: &AdviceInputs<'_>) -> String {
    let stats = inputs.stats;
    let (arena, mib) = (&stats.arena, |bytes: u64| bytes >> 20);
    let used = arena.used_chunks * arena.chunk_bytes;
    let pool = stats.pool.map(|pool| {
        format!(
            ", the pool has {} pages of {} MiB, {} free, {} of those reserved",
            pool.total,
            mib(pool.page_bytes),
            pool.free,
            pool.reserved
        )
    });
    let log = stats.undo_log.map(|log| {
        format!(", blocks are {} bytes, the log {} MiB at most", log.block_bytes, mib(log.limit))
    });
    format!(
        "Checkpoints isolate by {}{}. Pages are {} ({} asked for), {} of the {} MiB in use are \
         huge; transparent huge pages are set to {}{}{}.",
        stats.checkpoint_isolation,
        log.unwrap_or_default(),
        arena.pages,
        arena.pages_asked,
        mib(arena.huge_bytes),
        mib(used),
        if stats.thp.setting.is_empty() { "nothing" } else { &stats.thp.setting },
        if stats.has_undo_log() { " for shared memory" } else { "" },
        pool.unwrap_or_default(),
    )
}

/// Remarks on latency.
pub(crate) fn on_latency(inputs: &AdviceInputs<'_>) -> Vec<String> {
    let general: [Remark; 11] = [
        monitor_off,
        slow_fork,
        slow_safepoint,
        large_copies,
        long_stalls,
        undo_log_was_full,
        undo_log_nearly_full,
        small_pool,
        other_pages,
        thp_off,
        few_huge,
    ];
    let mut remarks: Vec<String> =
        inputs.events.iter().map(|figures| event(inputs, figures)).collect();
    remarks.extend(general.iter().filter_map(|remark| remark(inputs)));
    remarks
}

/// Remarks on memory.
pub(crate) fn on_memory(inputs: &AdviceInputs<'_>) -> Vec<String> {
    let general: [Remark; 9] = [
        nearly_full,
        fragmented,
        undo_log_was_full,
        undo_log_nearly_full,
        small_pool,
        other_pages,
        thp_off,
        few_huge,
        costly_checkpoints,
    ];
    general.iter().filter_map(|remark| remark(inputs)).collect()
}

fn event(inputs: &AdviceInputs<'_>, figures: &LatencyEventHistory) -> String {
    let count = figures.samples.len();
    let sum: u64 = figures.samples.iter().map(|sample| sample.ms).sum();
    let mean = sum as f64 / count.max(1) as f64;
    let advice = match figures.event {
        LatencyEvent::Fork => "See the remarks on pages, if there are any.",
        LatencyEvent::Safepoint => {
            "A checkpoint waits until no command runs: SLOWLOG GET shows which ones take long."
        }
        LatencyEvent::CowFault => "The larger the page, the longer its copy.",
        LatencyEvent::UndoCapture => {
            "A change captures all blocks that it touches first: the larger the value that is \
             overwritten, the longer it takes."
        }
        LatencyEvent::Command | LatencyEvent::FastCommand if inputs.stats.has_undo_log() => {
            "SLOWLOG GET shows the commands, and how much of their time the undo log took."
        }
        LatencyEvent::Command | LatencyEvent::FastCommand => {
            "SLOWLOG GET shows the commands, and how much of their time was copy-on-write."
        }
        LatencyEvent::ExpireCycle => {
            "Many keys expire at once: spread their times, or raise hz for smaller rounds."
        }
        LatencyEvent::EvictionCycle | LatencyEvent::EvictionDel => {
            "Writes wait for keys to be evicted: raise maxmemory, or let keys expire sooner."
        }
    };
    format!(
        "{}: {count} seconds with spikes, {mean:.0} ms in the mean, {} ms at most. {advice}",
        figures.event.name(),
        figures.max_ms
    )
}

fn monitor_off(inputs: &AdviceInputs<'_>) -> Option<String> {
    (inputs.threshold_ms == 0).then(|| {
        "The latency monitor is off, so spikes are not recorded. CONFIG SET \
         latency-monitor-threshold 10 records those of 10 ms and more."
            .to_owned()
    })
}

fn slow_fork(inputs: &AdviceInputs<'_>) -> Option<String> {
    let last = last_checkpoint(inputs)?;
    (last.fork >= NOTICEABLE).then(|| {
        let bytes = (last.chunks * inputs.stats.arena.chunk_bytes) as f64;
        let huge = last.huge_before_bytes.map(|huge| huge as f64 / bytes.max(1.0));
        let split = huge.filter(|share| last.pages == "thp" && *share < FEW_HUGE);
        let advice = match (last.pages, split) {
            _ if last.has_undo_log() => "with an undo log no page table of the arena is copied: \
                                         look for other processes that take the processor"
                .to_owned(),
            ("small", _) => "arena-pages thp or huge-2mb makes that some hundred times less, \
                             checkpoint-isolation undo-log with any pages"
                .to_owned(),
            (_, Some(share)) => format!(
                "only {:.0} % of it lay on huge pages, and the others' page tables are what takes \
                 time. Leave more time between checkpoints, so that split pages are collapsed \
                 again (arena-thp-collapse), or take arena-pages huge-2mb, which are never split",
                share * 100.0
            ),
            _ => "the arena's pages are large already: look for other processes that take the \
                  processor"
                .to_owned(),
        };
        format!(
            "The last fork took {:.1} ms for {:.1} GiB on {} pages: {advice}.",
            last.fork.as_secs_f64() * 1e3,
            bytes / GIB,
            last.pages
        )
    })
}

fn slow_safepoint(inputs: &AdviceInputs<'_>) -> Option<String> {
    let last = last_checkpoint(inputs)?;
    (last.safepoint_wait >= NOTICEABLE).then(|| {
        format!(
            "The last checkpoint waited {:.1} ms for commands to end before it could fork. SLOWLOG \
             GET shows which ones take long.",
            last.safepoint_wait.as_secs_f64() * 1e3
        )
    })
}

fn large_copies(inputs: &AdviceInputs<'_>) -> Option<String> {
    let cow = &inputs.stats.cow;
    let page = inputs.stats.arena.cow_page_bytes;
    (page > 4096 && cow.faults > 0).then(|| {
        format!(
            "Under {} isolation the first write to each page of {} KiB during a checkpoint copies \
             all of it: {} faults, {:.1} ms the longest, {:.1} bytes copied for each byte written. \
             arena-pages thp copies 4 KiB at a time; checkpoint-isolation undo-log has no such \
             faults.",
            inputs.stats.checkpoint_isolation,
            page >> 10,
            cow.faults,
            cow.longest.as_secs_f64() * 1e3,
            cow.amplification()
        )
    })
}

fn long_stalls(inputs: &AdviceInputs<'_>) -> Option<String> {
    let last = last_checkpoint(inputs)?;
    let stall = last.longest_stall.as_ref();
    let longest =
        stall.filter(|stall| stall.cause == StallCause::CowFault && stall.took >= NOTICEABLE);
    // Of one core.
    let much = last.cow.stall * 10 > last.duration;
    (last.cow.faults > 0 && (much || longest.is_some())).then(|| {
        let longest = longest.map(|stall| {
            format!(", {} for {:.1} ms", stall.command, stall.took.as_secs_f64() * 1e3)
        });
        format!(
            "During the last checkpoint of {:.1} s clients stood still for {:.1} ms in all while \
             the kernel copied pages{}. checkpoint-isolation undo-log has no such faults: writers \
             copy small blocks themselves.",
            last.duration.as_secs_f64(),
            last.cow.stall.as_secs_f64() * 1e3,
            longest.unwrap_or_default()
        )
    })
}

fn undo_log_was_full(inputs: &AdviceInputs<'_>) -> Option<String> {
    let log = inputs.stats.undo_log?;
    let was_full = |checkpoint: &&CheckpointRecord| {
        let says_so =
            checkpoint.error.as_ref().is_some_and(|error| error.contains("checkpoint-undo-limit"));
        checkpoint.status == CheckpointStatus::Failed && says_so
    };
    inputs.checkpoints.iter().rev().find(was_full).map(|checkpoint| {
        format!(
            "Checkpoint {} failed since its undo log reached its limit of {} MiB. Raise \
             checkpoint-undo-limit at the next start, or checkpoint when less is written.",
            checkpoint.number,
            log.limit >> 20
        )
    })
}

fn undo_log_nearly_full(inputs: &AdviceInputs<'_>) -> Option<String> {
    let log = inputs.stats.undo_log?;
    let ended =
        inputs.checkpoints.iter().filter(|checkpoint| checkpoint.status == CheckpointStatus::Ok);
    let most = ended.max_by_key(|checkpoint| checkpoint.undo.log_bytes)?;
    (most.undo.log_bytes > log.limit / 2).then(|| {
        format!(
            "The undo log of checkpoint {} came to {} of the {} MiB that it may take; at its limit \
             a checkpoint fails. Raise checkpoint-undo-limit at the next start.",
            most.number,
            most.undo.log_bytes >> 20,
            log.limit >> 20
        )
    })
}

fn last_checkpoint<'a>(inputs: &AdviceInputs<'a>) -> Option<&'a CheckpointRecord> {
    inputs.checkpoints.iter().rev().find(|checkpoint| checkpoint.background)
}

fn other_pages(inputs: &AdviceInputs<'_>) -> Option<String> {
    let arena = &inputs.stats.arena;
    let auto = arena.pages_asked == "auto";
    (auto && arena.pages == "small").then(|| {
        let costs = if inputs.stats.has_undo_log() {
            "changes and checkpoints take longer than on huge ones"
        } else {
            "forks take some 40 ms a GiB"
        };
        format!(
            "arena-pages auto found neither a hugetlb pool nor transparent huge pages and took \
             small pages: {costs}. The log of the start says what was missing."
        )
    })
}

fn thp_off(inputs: &AdviceInputs<'_>) -> Option<String> {
    let (arena, setting) = (&inputs.stats.arena, &inputs.stats.thp.setting);
    if arena.pages == "huge-2mb" || arena.pages == "huge-1gb" {
        return None;
    }
    let is_shared = inputs.stats.has_undo_log();
    let remark = match setting.as_str() {
        "never" if is_shared && arena.pages == "thp" => {
            let misses = inputs.stats.thp.stock_misses;
            return (misses > 0).then(|| {
                format!(
                    "{misses} chunks began on small pages, because no free chunk lay on a huge \
                     page when they were taken; arena-thp-collapse collapses them. To get huge \
                     pages at the first touch, run: echo advise > \
                     /sys/kernel/mm/transparent_hugepage/shmem_enabled"
                )
            });
        }
        "never" | "deny" if is_shared => {
            "Transparent huge pages are switched off for shared memory on this machine. Run: echo \
             advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled  and restart with \
             arena-pages thp."
        }
        "never" => {
            "Transparent huge pages are switched off on this machine. Run: echo madvise > \
             /sys/kernel/mm/transparent_hugepage/enabled  and restart with arena-pages thp."
        }
        _ => return None,
    };
    Some(remark.to_owned())
}

fn few_huge(inputs: &AdviceInputs<'_>) -> Option<String> {
    let arena = &inputs.stats.arena;
    let used = arena.used_chunks * arena.chunk_bytes;
    let share = arena.huge_bytes as f64 / used.max(1) as f64;
    (arena.pages == "thp" && share < FEW_HUGE).then(|| {
        let advice = if inputs.collapses_thp {
            "They are being collapsed; if this stays, memory is short or fragmented: look at \
             /sys/kernel/mm/transparent_hugepage/defrag"
        } else {
            "CONFIG SET arena-thp-collapse yes collapses split ones again"
        };
        let splits = match inputs.stats.thp.splits {
            0 => String::new(),
            splits => format!("; checkpoints have split {splits}"),
        };
        format!(
            "Only {:.0} % of the arena in use lies on huge pages{splits}. {advice}.",
            share * 100.0,
        )
    })
}

fn nearly_full(inputs: &AdviceInputs<'_>) -> Option<String> {
    let (arena, memory) = (&inputs.stats.arena, &inputs.stats.memory);
    let limit = if memory.limit == 0 { arena.capacity } else { memory.limit };
    let objects = memory.used.saturating_sub(memory.not_limited);
    let share = objects as f64 / limit.max(1) as f64;
    (share > 0.9).then(|| {
        format!(
            "{:.0} % of maxmemory is in use (at most {:.1} GiB were): writes will soon be refused. \
             Raise maxmemory at the next start, or delete or expire keys.",
            share * 100.0,
            inputs.peak_memory as f64 / GIB
        )
    })
}

/// Wasted bytes, in percent of the bytes of objects and of the arena, that are worth a remark.
const FRAGMENTED_PERCENT: u64 = 25;
const FRAGMENTED_SHARE: u64 = 16;

fn fragmented(inputs: &AdviceInputs<'_>) -> Option<String> {
    let (state, arena) = (&inputs.stats.compaction, &inputs.stats.arena);
    let is_much = state.wasted_bytes > arena.capacity / FRAGMENTED_SHARE
        && state.wasted_percent > FRAGMENTED_PERCENT;
    is_much.then(|| {
        let advice = match (state.enabled, state.running_percent) {
            (false, _) => "activedefrag is off: CONFIG SET activedefrag yes moves values together \
                           in the background and returns the memory, MEMORY PURGE does it at once"
                .to_owned(),
            (true, 0) => "No compaction runs now: a checkpoint, the active-defrag settings, or \
                          passes that free no more hold it back. Without a checkpoint, MEMORY \
                          PURGE compacts at once"
                .to_owned(),
            (true, percent) => format!(
                "Compaction moves values together at {percent} % of a core \
                 (active-defrag-cycle-min and -max), and returns chunks that become free"
            ),
        };
        format!(
            "{:.1} MiB of the chunks in use hold no data, {} % of the data's size: deleted keys \
             have left free places between others. {advice}.",
            state.wasted_bytes as f64 / (1_u64 << 20) as f64,
            state.wasted_percent
        )
    })
}

fn small_pool(inputs: &AdviceInputs<'_>) -> Option<String> {
    let (pool, arena) = (inputs.stats.pool?, &inputs.stats.arena);
    if inputs.stats.has_undo_log() {
        let needed = arena.capacity.div_ceil(pool.page_bytes.max(1));
        return (pool.total < needed).then(|| {
            format!(
                "The pool has {} pages and the arena needs {needed}: writes may be refused when \
                 it is used up. Enlarge it by {} pages; an undo log needs no more.",
                pool.total,
                needed - pool.total
            )
        });
    }
    let needed = (arena.used_chunks * arena.chunk_bytes).div_ceil(pool.page_bytes.max(1));
    let free = pool.free.saturating_sub(pool.reserved);
    (free < needed).then(|| {
        format!(
            "The pool has {free} free pages, and a checkpoint may have to copy {needed}: if the \
             pool is exhausted, the checkpoint fails. Enlarge the pool by {} pages, or choose \
             checkpoint-isolation undo-log, which copies none, or arena-pages thp.",
            needed - free
        )
    })
}

fn costly_checkpoints(inputs: &AdviceInputs<'_>) -> Option<String> {
    let last = last_checkpoint(inputs)?;
    let used = last.chunks * inputs.stats.arena.chunk_bytes;
    (used > 0 && last.extra_memory_bytes * 2 > used).then(|| {
        let (changed, remedy) = if last.has_undo_log() {
            let blocks = last.undo.captures;
            (format!("{blocks} blocks"), "or take a smaller checkpoint-undo-block")
        } else {
            let pages = last.cow.faults;
            (format!("{pages} pages"), "take smaller pages, or checkpoint-isolation undo-log")
        };
        format!(
            "The last checkpoint took {:.1} GiB beyond the {:.1} GiB of data, since {changed} were \
             written while it ran. Keep that much memory free, checkpoint when less is written, \
             {remedy}.",
            last.extra_memory_bytes as f64 / GIB,
            used as f64 / GIB,
        )
    })
}

#[cfg(test)]
#[path = "advice_tests.rs"]
mod tests;
