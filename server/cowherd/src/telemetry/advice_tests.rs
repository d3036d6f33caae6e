use cowherd_arena::stats::CowStats;

use super::super::{
    ArenaStats, CompactionState, HugePoolStats, LatencySample, LongestStall, MemoryStats, ThpStats,
    UndoLogLimits,
};
use super::*;

fn inputs(pages: &str) -> StatsSnapshot {
    StatsSnapshot {
        arena: ArenaStats {
            pages_asked: pages.to_owned(),
            pages: pages.to_owned(),
            capacity: 1 << 30,
            chunk_bytes: 2 << 20,
            used_chunks: 100,
            huge_bytes: 200 << 20,
            cow_page_bytes: 4096,
        },
        memory: MemoryStats { used: 100 << 20, ..MemoryStats::default() },
        checkpoint_isolation: "kernel-cow".to_owned(),
        thp: ThpStats { setting: "madvise".to_owned(), splits: 3, ..ThpStats::default() },
        ..StatsSnapshot::default()
    }
}

fn undo_inputs(pages: &str) -> StatsSnapshot {
    StatsSnapshot {
        checkpoint_isolation: "undo-log".to_owned(),
        undo_log: Some(UndoLogLimits { limit: 100 << 20, block_bytes: 512 }),
        thp: ThpStats { setting: "advise".to_owned(), ..ThpStats::default() },
        ..inputs(pages)
    }
}

fn undo_checkpoint() -> CheckpointRecord {
    CheckpointRecord {
        isolation: "undo-log",
        status: CheckpointStatus::Ok,
        number: 7,
        ..checkpoint()
    }
}

fn checkpoint() -> CheckpointRecord {
    CheckpointRecord {
        background: true,
        pages: "small",
        chunks: 100,
        ..CheckpointRecord::default()
    }
}

fn remarks(stats: &StatsSnapshot, checkpoints: &[CheckpointRecord]) -> (String, String) {
    let situation = AdviceInputs {
        stats,
        events: &[],
        checkpoints,
        threshold_ms: 10,
        collapses_thp: false,
        peak_memory: 1 << 30,
    };
    (on_latency(&situation).join("\n"), on_memory(&situation).join("\n"))
}

#[test]
fn a_healthy_server_gets_no_remark() {
    for pages in ["thp", "small"] {
        let found = remarks(&inputs(pages), &[checkpoint()]);
        assert_eq!(found, (String::new(), String::new()), "{pages}");
        let found = remarks(&undo_inputs(pages), &[undo_checkpoint()]);
        assert_eq!(found, (String::new(), String::new()), "{pages}");
    }
}

#[test]
fn what_the_pages_are_is_told_first() {
    let mut inputs = inputs("huge-2mb");
    inputs.pool = Some(HugePoolStats { page_bytes: 2 << 20, total: 200, free: 120, reserved: 90 });
    let situation = AdviceInputs {
        stats: &inputs,
        events: &[],
        checkpoints: &[],
        threshold_ms: 0,
        collapses_thp: true,
        peak_memory: 0,
    };
    assert_eq!(
        on_pages(&situation),
        "Checkpoints isolate by kernel-cow. Pages are huge-2mb (huge-2mb asked for), 200 of the \
         200 MiB in use are huge; transparent huge pages are set to madvise, the pool has 200 \
         pages of 2 MiB, 120 free, 90 of those reserved."
    );
    let inputs = undo_inputs("thp");
    assert_eq!(
        on_pages(&AdviceInputs { stats: &inputs, ..situation }),
        "Checkpoints isolate by undo-log, blocks are 512 bytes, the log 100 MiB at most. Pages are \
         thp (thp asked for), 200 of the 200 MiB in use are huge; transparent huge pages are set \
         to advise for shared memory."
    );
}

#[test]
fn each_event_is_described() {
    let inputs = inputs("thp");
    let samples = [4, 8].map(|ms| LatencySample { at_s: 1, ms }).to_vec();
    for event in LatencyEvent::ALL {
        let events = [LatencyEventHistory { event, samples: samples.clone(), max_ms: 9 }];
        let situation = AdviceInputs {
            stats: &inputs,
            events: &events,
            checkpoints: &[],
            threshold_ms: 0,
            collapses_thp: true,
            peak_memory: 0,
        };
        let found = on_latency(&situation);
        let start = format!("{}: 2 seconds with spikes, 6 ms in the mean, 9 ms", event.name());
        assert!(found[0].starts_with(&start), "{found:?}");
        assert!(found[1].contains("CONFIG SET latency-monitor-threshold"), "{found:?}");
    }
}

#[test]
fn slow_forks_depend_on_the_pages() {
    let slow = CheckpointRecord { fork: Duration::from_millis(40), ..checkpoint() };
    let (found, _) = remarks(&inputs("small"), std::slice::from_ref(&slow));
    assert!(found.contains("40.0 ms for 0.2 GiB on small pages: arena-pages thp"), "{found}");
    let on_thp = |huge| CheckpointRecord { pages: "thp", huge_before_bytes: huge, ..slow.clone() };
    let (found, _) = remarks(&inputs("thp"), &[on_thp(Some(190 << 20))]);
    assert!(found.contains("are large already"), "{found}");
    let (found, _) = remarks(&inputs("thp"), &[on_thp(Some(50 << 20))]);
    assert!(found.contains("only 25 % of it lay on huge pages"), "{found}");
    let (found, _) = remarks(&inputs("thp"), &[on_thp(None)]);
    assert!(found.contains("are large already"), "not known: {found}");
    let waited = CheckpointRecord { safepoint_wait: Duration::from_millis(7), ..checkpoint() };
    let (found, _) = remarks(&inputs("thp"), &[waited]);
    assert!(found.contains("waited 7.0 ms"), "{found}");
}

#[test]
fn large_pages_and_small_pools_are_named() {
    let mut inputs = inputs("huge-2mb");
    inputs.arena.cow_page_bytes = 2 << 20;
    inputs.cow = CowStats {
        faults: 9,
        copied_bytes: 900,
        written_bytes: 3,
        longest: Duration::from_millis(2),
        ..CowStats::default()
    };
    inputs.pool = Some(HugePoolStats { page_bytes: 2 << 20, total: 200, free: 120, reserved: 90 });
    let (latency, memory) = remarks(&inputs, &[]);
    assert!(latency.contains("2048 KiB"), "{latency}");
    assert!(latency.contains("9 faults, 2.0 ms the longest, 300.0 bytes"), "{latency}");
    for said in [&latency, &memory] {
        assert!(said.contains("30 free pages") && said.contains("by 70 pages"), "{said}");
    }
    inputs.pool = Some(HugePoolStats { page_bytes: 2 << 20, total: 200, free: 100, reserved: 0 });
    assert_eq!(remarks(&inputs, &[]).1, "");
}

#[test]
fn transparent_huge_pages_are_looked_at() {
    let mut few = inputs("thp");
    few.arena.huge_bytes = 100 << 20;
    let (latency, memory) = remarks(&few, &[]);
    assert!(
        latency.contains("Only 50 %") && latency.contains("arena-thp-collapse yes"),
        "{latency}"
    );
    assert_eq!(latency, memory);
    let mut off = inputs("small");
    off.thp.setting = "never".to_owned();
    off.arena.pages_asked = "auto".to_owned();
    let (latency, _) = remarks(&off, &[]);
    assert!(
        latency.contains("echo madvise") && latency.contains("auto found neither"),
        "{latency}"
    );
}

#[test]
fn full_memory_and_costly_checkpoints_are_named() {
    let mut full = inputs("thp");
    full.memory.used = 1020 << 20;
    let costly = CheckpointRecord { extra_memory_bytes: 150 << 20, ..checkpoint() };
    let (_, memory) = remarks(&full, &[costly]);
    assert!(memory.contains("100 % of maxmemory"), "{memory}");
    assert!(memory.contains("0.1 GiB beyond the 0.2 GiB"), "{memory}");
}

#[test]
fn where_copies_hurt_the_undo_log_is_named() {
    let cow = CowStats { faults: 9, stall: Duration::from_millis(150), ..CowStats::default() };
    let hurt = CheckpointRecord { cow, duration: Duration::from_secs(1), ..checkpoint() };
    let (found, _) = remarks(&inputs("small"), std::slice::from_ref(&hurt));
    assert!(found.contains("1.0 s clients stood still for 150.0 ms in all while"), "{found}");
    assert!(found.contains("checkpoint-isolation undo-log has no such faults"), "{found}");
    let calm = CheckpointRecord { duration: Duration::from_secs(2), ..hurt };
    assert_eq!(remarks(&inputs("small"), std::slice::from_ref(&calm)).0, "");
    let took = Duration::from_millis(6);
    let stall = LongestStall { took, cause: StallCause::CowFault, command: "set".to_owned() };
    let (found, _) =
        remarks(&inputs("small"), &[CheckpointRecord { longest_stall: Some(stall), ..calm }]);
    assert!(found.contains("copied pages, set for 6.0 ms."), "{found}");
}

#[test]
fn an_undo_log_that_is_too_small_is_named() {
    let mut half = undo_checkpoint();
    half.undo.log_bytes = 51 << 20;
    let (latency, memory) = remarks(&undo_inputs("thp"), std::slice::from_ref(&half));
    assert_eq!(latency, memory);
    assert!(latency.contains("checkpoint 7 came to 51 of the 100 MiB"), "{latency}");
    assert!(latency.contains("Raise checkpoint-undo-limit"), "{latency}");
    half.undo.log_bytes = 50 << 20;
    assert_eq!(remarks(&undo_inputs("thp"), &[half]).0, "");

    let error = Some("the undo log reached its limit: raise checkpoint-undo-limit".to_owned());
    let full = CheckpointRecord { status: CheckpointStatus::Failed, error, ..undo_checkpoint() };
    let (latency, memory) = remarks(&undo_inputs("thp"), std::slice::from_ref(&full));
    assert_eq!(latency, memory);
    assert!(latency.contains("Checkpoint 7 failed since its undo log"), "{latency}");
    let full = CheckpointRecord { error: Some("no space left".to_owned()), ..full };
    assert_eq!(remarks(&undo_inputs("thp"), &[full]).0, "", "another reason");
}

#[test]
fn nothing_is_said_of_copies_where_there_is_an_undo_log() {
    let mut inputs = undo_inputs("huge-2mb");
    inputs.arena.cow_page_bytes = 2 << 20;
    inputs.pool = Some(HugePoolStats { page_bytes: 2 << 20, total: 500, free: 0, reserved: 0 });
    let mut slow = CheckpointRecord { fork: Duration::from_millis(40), ..undo_checkpoint() };
    slow.extra_memory_bytes = 150 << 20;
    slow.undo.captures = 4000;
    let (latency, memory) = remarks(&inputs, std::slice::from_ref(&slow));
    assert!(latency.contains("no page table of the arena is copied"), "{latency}");
    assert!(
        latency.contains("500 pages and the arena needs 512") && latency.contains("by 12 pages")
    );
    assert!(memory.contains("since 4000 blocks were written"), "{memory}");
    inputs.pool = Some(HugePoolStats { page_bytes: 2 << 20, total: 512, free: 0, reserved: 0 });
    let (_, enough) = remarks(&inputs, &[]);
    assert_eq!(enough, "");

    let mut small = undo_inputs("small");
    small.thp.setting = "deny".to_owned();
    small.arena.pages_asked = "auto".to_owned();
    let (off, _) = remarks(&small, &[]);
    assert!(off.contains("echo advise > ") && off.contains("shmem_enabled"), "{off}");
    assert!(off.contains("auto found neither"), "{off}");
    let mut never = undo_inputs("thp");
    never.thp.setting = "never".to_owned();
    assert_eq!(remarks(&never, &[]).0, "", "chunks come from the stock");
    never.thp.stock_misses = 7;
    let (missed, _) = remarks(&never, &[]);
    assert!(missed.contains("7 chunks began on small pages"), "{missed}");
    assert!(missed.contains("echo advise > ") && missed.contains("shmem_enabled"), "{missed}");
    let events = LatencyEvent::ALL.map(|event| {
        let samples = vec![LatencySample { at_s: 1, ms: 4 }];
        LatencyEventHistory { event, samples, max_ms: 9 }
    });
    let others = events.iter().filter(|figures| figures.event != LatencyEvent::CowFault);
    let situation = AdviceInputs {
        stats: &inputs,
        events: &others.cloned().collect::<Vec<_>>(),
        checkpoints: &[slow],
        threshold_ms: 10,
        collapses_thp: false,
        peak_memory: 0,
    };
    let said = [on_latency(&situation), on_memory(&situation), vec![on_pages(&situation)]].concat();
    let said = [said.join(" "), latency, memory, off, missed].concat().to_lowercase();
    for word in ["copy-on-write", "cow", "kernel copied", "page was copied"] {
        assert!(!said.contains(word), "{word} in {said}");
    }
}

#[test]
fn wasted_memory_is_explained_with_what_compaction_does() {
    let with = |enabled, running_percent, wasted_bytes| {
        let compaction = CompactionState {
            enabled,
            running_percent,
            wasted_bytes,
            wasted_percent: 90,
            ..CompactionState::default()
        };
        remarks(&StatsSnapshot { compaction, ..inputs("small") }, &[]).1
    };
    assert!(!with(true, 0, 20 << 20).contains("hold no data"), "a little is normal");
    let off = with(false, 0, 90 << 20);
    assert!(off.contains("90.0 MiB of the chunks in use hold no data, 90 %"), "{off}");
    assert!(off.contains("activedefrag is off"), "{off}");
    assert!(with(true, 12, 90 << 20).contains("at 12 % of a core"));
    assert!(with(true, 0, 90 << 20).contains("No compaction runs now"));
}
