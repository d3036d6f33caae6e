//! INFO's section `checkpoint`, which Redis does not have: what checkpoints did and what they cost.
//!
//! Names begin with their subject: `checkpoint_`, `cow_`, `fork_`, `latency_`, `pool_`, `thp_`,
//! `undo_`. Lines with several figures have the form of commandstats. Times are in microseconds.

use cowherd_arena::stats::Distribution;

use super::context::InfoContext;
use super::writer::InfoWriter;
use crate::clock;
use crate::telemetry::checkpoint_figures::{
    CHECKPOINT_FIGURES, COW_FIGURES, InfoFigures, STALL_FIGURES, TOTAL_FIGURES, UNDO_FIGURES,
};
use crate::telemetry::checkpoint_record::CheckpointRecord;
use crate::telemetry::persistence::PersistenceStatus;

pub(super) fn checkpoint(out: &mut InfoWriter, context: &InfoContext<'_>) {
    let status = context.persistence();
    out.section("Checkpoint");
    pages(out, context);
    totals(out, &status);
    forks(out, &status);
    isolation_costs(out, context, &status);
    latencies(out, context);
    if let Some(running) = &status.running {
        let percent = running.progress() * 100.0;
        out.field("checkpoint_progress_percent", format_args!("{percent:.2}"));
        out.field("checkpoint_current", figures_of(&running.record));
    }
    for record in context.telemetry.persistence().history().iter().rev() {
        out.field(format_args!("checkpoint_{}", record.number), figures_of(record));
    }
}

fn pages(out: &mut InfoWriter, context: &InfoContext<'_>) {
    let stats = context.stats;
    let (arena, thp) = (&stats.arena, &stats.thp);
    out.field("isolation", &stats.checkpoint_isolation);
    out.field("pages_asked", &arena.pages_asked);
    out.field("pages", &arena.pages);
    match stats.undo_log {
        None => out.field("cow_page_bytes", arena.cow_page_bytes),
        Some(log) => {
            out.field("undo_block_bytes", log.block_bytes);
            out.field("undo_limit_bytes", log.limit);
        }
    }
    out.field("arena_used_bytes", arena.used_chunks * arena.chunk_bytes);
    out.field("arena_huge_bytes", arena.huge_bytes);
    out.field("thp_setting", &thp.setting);
    out.field("thp_splits", thp.splits);
    out.field("thp_collapsed", thp.collapsed);
    out.field("thp_stock_bytes", thp.stock_bytes);
    out.field("thp_stock_misses", thp.stock_misses);
    if let Some(pool) = stats.pool {
        out.field(
            "pool",
            format_args!(
                "page_bytes={},total={},free={},reserved={}",
                pool.page_bytes, pool.total, pool.free, pool.reserved
            ),
        );
    }
}

fn totals(out: &mut InfoWriter, status: &PersistenceStatus) {
    for figure in TOTAL_FIGURES {
        if let Some((name, value)) = figure.info.zip((figure.value)(&status.totals).info()) {
            out.field(name, value);
        }
    }
    for (step, took) in status.totals.steps.named() {
        out.field(format_args!("checkpoint_{step}_usec"), clock::micros(took));
    }
}

fn forks(out: &mut InfoWriter, status: &PersistenceStatus) {
    out.field("fork_usec", quantiles(&status.forks));
    out.field("fork_safepoint_wait_usec", quantiles(&status.waits));
    out.field("fork_hold_up_usec", quantiles(&status.hold_ups));
}

/// The cost since the start of the isolation in use.
fn isolation_costs(out: &mut InfoWriter, context: &InfoContext<'_>, status: &PersistenceStatus) {
    let stats = context.stats;
    if stats.has_undo_log() {
        let mut undo = stats.undo;
        undo.reused_records = status.totals.undo_reused_records;
        out.field("undo", InfoFigures(UNDO_FIGURES, &undo));
        out.field("undo_capture_usec", quantiles(&stats.undo_captures));
    } else {
        out.field("cow", InfoFigures(COW_FIGURES, &stats.cow));
        out.field("cow_fault_usec", quantiles(&stats.cow_faults));
    }
}

/// Durations of commands by family, while no checkpoint runs and while one does.
fn latencies(out: &mut InfoWriter, context: &InfoContext<'_>) {
    for latency in context.telemetry.latency_by_family() {
        for (phase, times) in latency.by_phase() {
            if times.count() > 0 {
                let name = format_args!("latency_{}_{phase}_usec", latency.family);
                out.field(name, quantiles(times));
            }
        }
    }
}

/// Count and quantiles of durations.
fn quantiles(times: &Distribution) -> String {
    let micros = |quantile| times.quantile(quantile).unwrap_or(0) as f64 / 1e3;
    let (half, p99, p999, most) = (micros(0.5), micros(0.99), micros(0.999), micros(1.0));
    let count = times.count();
    format!("count={count},p50={half:.3},p99={p99:.3},p99.9={p999:.3},max={most:.3}")
}

/// The figures of one checkpoint in one line.
fn figures_of(record: &CheckpointRecord) -> String {
    let mut line = InfoFigures(CHECKPOINT_FIGURES, record).to_string();
    for (step, took) in record.steps.named() {
        line.push_str(&format!(",{step}_usec={}", clock::micros(took)));
    }
    let costs = if record.has_undo_log() {
        InfoFigures(UNDO_FIGURES, &record.undo).to_string()
    } else {
        InfoFigures(COW_FIGURES, &record.cow).to_string()
    };
    let stall = InfoFigures(STALL_FIGURES, record).to_string();
    for figures in [costs, stall].iter().filter(|figures| !figures.is_empty()) {
        line.push(',');
        line.push_str(figures);
    }
    line
}
