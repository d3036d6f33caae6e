//! What LATENCY DOCTOR and MEMORY DOCTOR say: one remark for each thing that could be better, with
//! the figures that show it and the setting that changes it.

use std::time::Duration;

use super::inputs::InfoInputs;
use super::monitor::{Event, EventFigures};
use super::saves::SaveRecord;

/// What the doctors look at.
#[derive(Debug, Clone)]
pub struct Situation<'a> {
    /// The engine's figures.
    pub inputs: &'a InfoInputs,
    /// The events that the latency monitor has recorded.
    pub events: &'a [EventFigures],
    /// The last saves, the oldest first.
    pub saves: &'a [SaveRecord],
    /// The setting `latency-monitor-threshold`.
    pub threshold_ms: u64,
    /// Whether split huge pages are made whole (`arena-thp-heal`).
    pub heals: bool,
    /// The most memory that was in use, in bytes.
    pub peak_memory: u64,
}

/// Clients notice a wait from here on.
const NOTICEABLE: Duration = Duration::from_millis(5);
/// Of what could lie on huge pages, less than this share does.
const FEW_HUGE: f64 = 0.8;
const GIB: f64 = (1_u64 << 30) as f64;

type Remark = fn(&Situation<'_>) -> Option<String>;

/// What the remarks rest on: isolation, pages asked for and there, transparent huge pages, pool.
pub fn on_pages(situation: &Situation<'_>) -> String {
    let inputs = situation.inputs;
    let (arena, mib) = (&inputs.arena, |bytes: u64| bytes >> 20);
    let used = arena.used_chunks * arena.chunk_bytes;
    let pool = inputs.pool.map(|pool| {
        format!(
            ", the pool has {} pages of {} MiB, {} free, {} of those reserved",
            pool.total,
            mib(pool.page_bytes),
            pool.free,
            pool.reserved
        )
    });
    format!(
        "Saves isolate by {}. Pages are {} ({} asked for), {} of the {} MiB in use are huge; \
         transparent huge pages are set to {}{}.",
        inputs.checkpoint_isolation,
        arena.pages,
        arena.pages_asked,
        mib(arena.huge_bytes),
        mib(used),
        if inputs.thp.setting.is_empty() { "nothing" } else { &inputs.thp.setting },
        pool.unwrap_or_default(),
    )
}

/// What could be better about latency.
pub fn on_latency(situation: &Situation<'_>) -> Vec<String> {
    let general: [Remark; 8] = [
        monitor_off,
        slow_fork,
        slow_safepoint,
        large_copies,
        small_pool,
        other_pages,
        thp_off,
        few_huge,
    ];
    let mut remarks: Vec<String> = situation.events.iter().map(event).collect();
    remarks.extend(general.iter().filter_map(|remark| remark(situation)));
    remarks
}

/// What could be better about memory.
pub fn on_memory(situation: &Situation<'_>) -> Vec<String> {
    let general: [Remark; 6] =
        [nearly_full, small_pool, other_pages, thp_off, few_huge, costly_saves];
    general.iter().filter_map(|remark| remark(situation)).collect()
}

fn event(figures: &EventFigures) -> String {
    let count = figures.samples.len();
    let sum: u64 = figures.samples.iter().map(|sample| sample.ms).sum();
    let mean = sum as f64 / count.max(1) as f64;
    let advice = match figures.event {
        Event::Fork => "See the remarks on pages, if there are any.",
        Event::Safepoint => {
            "A save waits until no command runs: SLOWLOG GET shows which ones take long."
        }
        Event::CowFault => "The larger the page, the longer its copy.",
        Event::Command | Event::FastCommand => {
            "SLOWLOG GET shows the commands, and how much of their time was copy-on-write."
        }
        Event::ExpireCycle => {
            "Many keys expire at once: spread their times, or raise hz for smaller rounds."
        }
    };
    format!(
        "{}: {count} seconds with spikes, {mean:.0} ms in the mean, {} ms at most. {advice}",
        figures.event.name(),
        figures.max_ms
    )
}

fn monitor_off(situation: &Situation<'_>) -> Option<String> {
    (situation.threshold_ms == 0).then(|| {
        "The latency monitor is off, so spikes are not recorded. CONFIG SET \
         latency-monitor-threshold 10 records those of 10 ms and more."
            .to_owned()
    })
}

fn slow_fork(situation: &Situation<'_>) -> Option<String> {
    let last = situation.saves.iter().rev().find(|save| save.background)?;
    (last.fork >= NOTICEABLE).then(|| {
        let bytes = (last.chunks * situation.inputs.arena.chunk_bytes) as f64;
        let huge = last.huge_before_bytes.map(|huge| huge as f64 / bytes.max(1.0));
        let split = huge.filter(|share| last.pages == "thp" && *share < FEW_HUGE);
        let advice = match (last.pages, split) {
            ("small", _) => {
                "arena-pages thp or huge-2mb makes that some hundred times less".to_owned()
            }
            (_, Some(share)) => format!(
                "only {:.0} % of it lay on huge pages, and the others' page tables are what takes \
                 time. Leave more time between saves, so that split pages are made whole \
                 (arena-thp-heal), or take arena-pages huge-2mb, which are never split",
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

fn slow_safepoint(situation: &Situation<'_>) -> Option<String> {
    let last = situation.saves.iter().rev().find(|save| save.background)?;
    (last.safepoint_wait >= NOTICEABLE).then(|| {
        format!(
            "The last save waited {:.1} ms for commands to end before it could fork. SLOWLOG GET \
             shows which ones take long.",
            last.safepoint_wait.as_secs_f64() * 1e3
        )
    })
}

fn large_copies(situation: &Situation<'_>) -> Option<String> {
    let cow = &situation.inputs.cow;
    let page = situation.inputs.arena.cow_page_bytes;
    (page > 4096 && cow.faults > 0).then(|| {
        format!(
            "Under {} isolation the first write to each page of {} KiB during a save copies all of \
             it: {} faults, {:.1} ms the longest, {:.1} bytes copied for each byte written. \
             arena-pages thp copies 4 KiB at a time.",
            situation.inputs.checkpoint_isolation,
            page >> 10,
            cow.faults,
            cow.longest.as_secs_f64() * 1e3,
            cow.amplification()
        )
    })
}

fn other_pages(situation: &Situation<'_>) -> Option<String> {
    let arena = &situation.inputs.arena;
    let auto = arena.pages_asked == "auto";
    (auto && arena.pages == "small").then(|| {
        "arena-pages auto found neither a hugetlb pool nor transparent huge pages and took small \
         pages: forks take some 40 ms a GiB. The log of the start says what was missing."
            .to_owned()
    })
}

fn thp_off(situation: &Situation<'_>) -> Option<String> {
    let (arena, setting) = (&situation.inputs.arena, &situation.inputs.thp.setting);
    (setting == "never" && arena.pages != "huge-2mb" && arena.pages != "huge-1gb").then(|| {
        "Transparent huge pages are switched off on this machine. Run: echo madvise > \
         /sys/kernel/mm/transparent_hugepage/enabled  and restart with arena-pages thp."
            .to_owned()
    })
}

fn few_huge(situation: &Situation<'_>) -> Option<String> {
    let arena = &situation.inputs.arena;
    let used = arena.used_chunks * arena.chunk_bytes;
    let share = arena.huge_bytes as f64 / used.max(1) as f64;
    (arena.pages == "thp" && share < FEW_HUGE).then(|| {
        let advice = if situation.heals {
            "They are being made whole; if this stays, memory is short or fragmented: look at \
             /sys/kernel/mm/transparent_hugepage/defrag"
        } else {
            "CONFIG SET arena-thp-heal yes makes split ones whole"
        };
        format!(
            "Only {:.0} % of the arena in use lies on huge pages; saves have split {}. {advice}.",
            share * 100.0,
            situation.inputs.thp.splits
        )
    })
}

fn nearly_full(situation: &Situation<'_>) -> Option<String> {
    let (arena, memory) = (&situation.inputs.arena, &situation.inputs.memory);
    let limit = if memory.limit == 0 { arena.capacity } else { memory.limit };
    let share = memory.used as f64 / limit.max(1) as f64;
    (share > 0.9).then(|| {
        format!(
            "{:.0} % of maxmemory is in use (at most {:.1} GiB were): writes will soon be refused. \
             Raise maxmemory at the next start, or delete or expire keys.",
            share * 100.0,
            situation.peak_memory as f64 / GIB
        )
    })
}

fn small_pool(situation: &Situation<'_>) -> Option<String> {
    let (pool, arena) = (situation.inputs.pool?, &situation.inputs.arena);
    let needed = (arena.used_chunks * arena.chunk_bytes).div_ceil(pool.page_bytes.max(1));
    let free = pool.free.saturating_sub(pool.reserved);
    (situation.inputs.checkpoint_isolation == "kernel-cow" && free < needed).then(|| {
        format!(
            "The pool has {free} free pages, and a save may have to copy {needed}: if it runs dry, \
             the save fails. Enlarge it by {} pages, or choose arena-pages thp.",
            needed - free
        )
    })
}

fn costly_saves(situation: &Situation<'_>) -> Option<String> {
    let last = situation.saves.iter().rev().find(|save| save.background)?;
    let used = last.chunks * situation.inputs.arena.chunk_bytes;
    (used > 0 && last.extra_memory_bytes * 2 > used).then(|| {
        format!(
            "The last save took {:.1} GiB beyond the {:.1} GiB of data, since {} pages were \
             written while it ran. Keep that much memory free, save when less is written, or take \
             smaller pages.",
            last.extra_memory_bytes as f64 / GIB,
            used as f64 / GIB,
            last.cow.faults
        )
    })
}

#[cfg(test)]
#[path = "advice_tests.rs"]
mod tests;
