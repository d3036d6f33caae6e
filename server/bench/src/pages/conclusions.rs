//! Conclusions from the results, beside the published ones.
//!
//! The published experiment is "There's a CoW holding up my HugePages". It ran on another machine,
//! so only ratios are compared.

use serde::Serialize;

use super::experiment::{Cell, Experiment, PHASES};
use super::parameters::{MemoryKind, WritePattern, Writer};
use crate::stats::{Interval, ratio_of_means};

/// Smallest size at which the start of the process does not dominate its lifetime.
const MIN_CONCLUSIVE_SIZE: usize = 128;

/// Minimum number of runs of each published cell.
const PUBLISHED_RUNS: usize = 10;

/// Published duration: mean and standard deviation in milliseconds.
pub type Published = (f64, f64);

/// Size, and the durations of sparse huge, sparse small, dense huge, dense small.
const PUBLISHED: [(usize, [Published; 4]); 4] = [
    (1, [(10.3, 3.1), (10.3, 3.1), (12.2, 4.7), (15.1, 4.1)]),
    (128, [(276.7, 21.7), (200.0, 4.2), (369.3, 6.3), (392.4, 6.1)]),
    (256, [(563.2, 33.6), (383.6, 8.4), (732.2, 7.7), (784.4, 10.7)]),
    (512, [(1161.0, 91.0), (773.3, 9.2), (1467.0, 10.0), (1577.0, 8.0)]),
];

/// Published user and system time in milliseconds.
pub type PublishedCpu = (f64, f64);

/// User and system time, ordered as [`PUBLISHED`]. Its text does not discuss them.
const PUBLISHED_CPU: [(usize, [PublishedCpu; 4]); 4] = [
    (1, [(7.1, 2.2), (6.2, 3.7), (9.4, 1.9), (9.2, 3.5)]),
    (128, [(234.0, 18.0), (141.8, 57.2), (323.7, 20.8), (268.4, 56.4)]),
    (256, [(481.4, 35.3), (277.8, 104.6), (647.6, 35.3), (541.9, 107.3)]),
    (512, [(1002.0, 68.0), (560.5, 210.7), (1300.0, 76.0), (1080.0, 225.0)]),
];

/// Published duration of a cell.
pub fn published(kind: MemoryKind, size: usize, pattern: WritePattern) -> Option<Published> {
    published_in(&PUBLISHED, kind, size, pattern)
}

/// Published user and system time of a cell.
pub fn published_cpu(kind: MemoryKind, size: usize, pattern: WritePattern) -> Option<PublishedCpu> {
    published_in(&PUBLISHED_CPU, kind, size, pattern)
}

fn published_in(
    table: &[(usize, [(f64, f64); 4])],
    kind: MemoryKind,
    size: usize,
    pattern: WritePattern,
) -> Option<(f64, f64)> {
    let column = match (pattern, kind) {
        (WritePattern::Sparse, MemoryKind::Huge2Mb) => 0,
        (WritePattern::Sparse, MemoryKind::Small) => 1,
        (WritePattern::Dense, MemoryKind::Huge2Mb) => 2,
        (WritePattern::Dense, MemoryKind::Small) => 3,
        _ => return None,
    };
    table.iter().find(|(known, _)| *known == size).map(|(_, row)| row[column])
}

/// Ratio of a kind to small pages.
#[derive(Debug, Clone, Serialize)]
pub struct Ratio {
    /// Kind of the numerator.
    pub kind: MemoryKind,
    /// Size in units of 2 MiB.
    pub size: usize,
    /// Addresses that were written.
    pub pattern: WritePattern,
    /// Process that wrote.
    pub writer: Writer,
    /// Ratio of the lifetimes of the process.
    pub whole: Interval,
    /// Ratio of the durations of the writes after the fork.
    pub writes: Interval,
    /// Published ratio of the lifetimes.
    pub published: Option<f64>,
}

/// Ratios of all cells to the corresponding cells of small pages.
pub fn ratios(experiment: &Experiment) -> Vec<Ratio> {
    let others = experiment.cells.iter().filter(|cell| cell.kind != MemoryKind::Small);
    others.filter_map(|cell| ratio(experiment, cell)).collect()
}

fn ratio(experiment: &Experiment, cell: &Cell) -> Option<Ratio> {
    let Cell { kind, size, pattern, writer, .. } = *cell;
    let small = experiment.cell(MemoryKind::Small, size, pattern, writer)?;
    let both = published(kind, size, pattern).zip(published(MemoryKind::Small, size, pattern));
    Some(Ratio {
        kind,
        size,
        pattern,
        writer,
        whole: ratio_of_means(&cell.whole_ms(), &small.whole_ms())?,
        writes: ratio_of_means(&cell.phase_ms(WRITES), &small.phase_ms(WRITES))?,
        published: both.map(|(kind, small)| kind.0 / small.0),
    })
}

// Indices into `PHASES`.
const POPULATE: usize = 1;
const FORK: usize = 2;
const WRITES: usize = 4;

/// Sentences: whether the published conclusions hold on this machine and why, then conclusions from
/// the extended experiment.
pub fn sentences(experiment: &Experiment) -> Vec<String> {
    let ratios = ratios(experiment);
    let mut sentences = Vec::new();
    for (pattern, claim) in [
        (WritePattern::Sparse, "sparse writes make huge pages dearer than small ones"),
        (WritePattern::Dense, "dense writes make huge pages slightly cheaper than small ones"),
    ] {
        if !experiment.cells.iter().any(|cell| cell.pattern == pattern) {
            continue;
        }
        let conclusive: Vec<&Ratio> = ratios
            .iter()
            .filter(|ratio| (ratio.kind, ratio.pattern) == (MemoryKind::Huge2Mb, pattern))
            .filter(|ratio| ratio.writer == Writer::Child && ratio.size >= MIN_CONCLUSIVE_SIZE)
            .collect();
        if conclusive.is_empty() {
            sentences.push(format!(
                "\"{claim}\" was not put to the test: that takes huge-2mb and small, the child \
                 writing, and a size of at least {MIN_CONCLUSIVE_SIZE}."
            ));
            continue;
        }
        sentences.push(compare_with_published(pattern, claim, &conclusive));
        if let Some(largest) = conclusive.last() {
            sentences.extend(explain_ratio(experiment, largest));
            sentences.extend(compare_cpu(experiment, largest));
        }
    }
    sentences.extend(writes_by_the_parent(experiment));
    sentences.extend(fork_durations(experiment));
    sentences.extend(missing_pages(experiment));
    let runs = experiment.cells.iter().map(|cell| cell.runs.len()).min().unwrap_or(0);
    if runs < PUBLISHED_RUNS {
        sentences.push(format!(
            "Each cell has {runs} runs or more; the published experiment has at least \
             {PUBLISHED_RUNS}, and intervals from fewer mean little."
        ));
    }
    sentences
}

/// Cells of the largest size for which small pages were measured too.
fn largest(experiment: &Experiment, wanted: impl Fn(&Cell) -> bool) -> Vec<&Cell> {
    let cells = experiment.cells.iter().filter(|cell| wanted(cell) && !cell.runs.is_empty());
    let size =
        cells.clone().filter(|cell| cell.kind == MemoryKind::Small).map(|cell| cell.size).max();
    cells.filter(|cell| Some(cell.size) == size).collect()
}

/// Duration of a write by the parent, as in a server, for each kind.
fn writes_by_the_parent(experiment: &Experiment) -> Option<String> {
    let cells = largest(experiment, |cell| {
        (cell.pattern, cell.writer) == (WritePattern::Sparse, Writer::Parent)
    });
    let size = cells.first()?.size;
    let figure = |cell: &&Cell| {
        let writes = cell.phase_ms(WRITES).iter().sum::<f64>() / cell.runs.len() as f64;
        format!("{} {:.1} \u{b5}s", cell.kind.name(), writes * 1000.0 / size as f64)
    };
    let figures = cells.iter().map(figure).collect::<Vec<_>>().join(", ");
    Some(format!(
        "As a server does it, with the parent writing while its child stands still: one write in a \
         2 MiB that was not written since the fork takes {figures} (sparse, {} MiB, means). \
         Memory that is shared instead of private has nothing to copy.",
        size * 2
    ))
}

/// Duration of fork() for each kind.
fn fork_durations(experiment: &Experiment) -> Option<String> {
    let first = experiment.cells.first()?;
    let cells =
        largest(experiment, |cell| (cell.pattern, cell.writer) == (first.pattern, first.writer));
    let size = cells.first()?.size;
    let figure = |cell: &&Cell| {
        let fork = cell.phase_ms(FORK).iter().sum::<f64>() / cell.runs.len() as f64;
        format!("{} {fork:.2} ms", cell.kind.name())
    };
    let figures = cells.iter().map(figure).collect::<Vec<_>>().join(", ");
    Some(format!("fork() with {} MiB takes {figures} (means).", size * 2))
}

/// Forks whose child did not inherit every page.
fn missing_pages(experiment: &Experiment) -> Option<String> {
    let counts = experiment.cells.iter().map(|cell| cell.forks_with_missing_pages);
    let missing = counts.sum::<u64>();
    let kinds = experiment.cells.iter().filter(|cell| cell.forks_with_missing_pages > 0);
    let mut kinds = kinds.map(|cell| cell.kind.name()).collect::<Vec<_>>();
    kinds.dedup();
    (missing > 0).then(|| {
        format!(
            "After {missing} forks the child had not inherited every page ({}): this kernel left \
             some out, and the child would have read zeros there. Those runs were repeated. A \
             program that saves memory from a child must check for missing pages.",
            kinds.join(", ")
        )
    })
}

/// Whether the measured ratios support a published claim.
fn compare_with_published(pattern: WritePattern, claim: &str, conclusive: &[&Ratio]) -> String {
    let dearer = pattern == WritePattern::Sparse;
    let is_dearer = |ratio: &Ratio| ratio.whole.low > 1.0;
    let is_cheaper = |ratio: &Ratio| ratio.whole.high < 1.0;
    let agrees = |ratio: &Ratio| if dearer { is_dearer(ratio) } else { is_cheaper(ratio) };
    let against = |ratio: &Ratio| if dearer { is_cheaper(ratio) } else { is_dearer(ratio) };
    let conclusion = if conclusive.iter().all(|ratio| agrees(ratio)) {
        "holds here"
    } else if conclusive.iter().any(|ratio| against(ratio)) {
        "does not hold here"
    } else {
        "is left open here: an interval covers 1"
    };
    let figure = |ratio: &&Ratio| {
        let Interval { estimate, low, high } = ratio.whole;
        let published = ratio.published.map_or(String::new(), |p| format!(", published {p:.2}"));
        format!("{} MiB: {estimate:.2} [{low:.2}..{high:.2}]{published}", ratio.size * 2)
    };
    let figures = conclusive.iter().map(figure).collect::<Vec<_>>().join("; ");
    format!(
        "\"{claim}\" {conclusion}. Whole process, huge to small with 95 % intervals: {figures}."
    )
}

/// Explains a ratio of lifetimes by the contribution of each phase.
fn explain_ratio(experiment: &Experiment, ratio: &Ratio) -> Option<String> {
    let Ratio { kind, size, pattern, writer, .. } = *ratio;
    let huge = experiment.cell(kind, size, pattern, writer)?;
    let small = experiment.cell(MemoryKind::Small, size, pattern, writer)?;
    let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
    let gap = |phase: usize| mean(huge.phase_ms(phase)) - mean(small.phase_ms(phase));
    let whole = mean(huge.whole_ms()) - mean(small.whole_ms());
    let mut phases = (0..PHASES.len()).collect::<Vec<_>>();
    phases.sort_by(|a, b| gap(*b).abs().total_cmp(&gap(*a).abs()));
    let parts = phases.iter().take(3).map(|phase| {
        let means = (mean(huge.phase_ms(*phase)), mean(small.phase_ms(*phase)));
        format!("{} {:+.1} ms ({:.1} against {:.1})", PHASES[*phase], gap(*phase), means.0, means.1)
    });
    let parts = parts.collect::<Vec<_>>().join(", ");
    let hidden = if phases[0] == WRITES {
        "the writes make the difference"
    } else if phases[0] == POPULATE {
        "what it costs to populate memory hides what the writes cost"
    } else {
        "another phase hides what the writes cost"
    };
    Some(format!(
        "Why, at {} MiB, {}: huge pages take {whole:+.1} ms in the whole process, of that {parts}: \
         {hidden}. The writes after the fork alone take {:.2} times as long as on small pages \
         [{:.2}..{:.2}].",
        size * 2,
        pattern.name(),
        ratio.writes.estimate,
        ratio.writes.low,
        ratio.writes.high,
    ))
}

/// User and system time beside the published ones, and what the published totals show. The kernel
/// copies pages, so copying is system time on any machine.
fn compare_cpu(experiment: &Experiment, ratio: &Ratio) -> Option<String> {
    let Ratio { kind, size, pattern, writer, .. } = *ratio;
    let huge = experiment.cell(kind, size, pattern, writer)?.cpu_ms()?;
    let small = experiment.cell(MemoryKind::Small, size, pattern, writer)?.cpu_ms()?;
    let more = |value: f64| if value > 0.0 { "more" } else { "less" };
    let differences = |huge: (f64, f64), small: (f64, f64)| {
        let (user, system) = (huge.0 - small.0, huge.1 - small.1);
        format!(
            "user {:.0} against {:.0} ms ({:.0} {}), system {:.0} against {:.0} ({:.0} {})",
            huge.0,
            small.0,
            user.abs(),
            more(user),
            huge.1,
            small.1,
            system.abs(),
            more(system)
        )
    };
    let here = differences(huge, small);
    let follows = if huge.1 > small.1 {
        "Here huge pages take more of the time in which the kernel populates and copies"
    } else {
        "Here too huge pages take less system time in all: the process populates its memory in it, \
         and saves more there than copying costs"
    };
    let both =
        published_cpu(kind, size, pattern).zip(published_cpu(MemoryKind::Small, size, pattern));
    let published = both.map_or(String::new(), |(huge, small)| {
        format!(
            " Published: {}. Copying is the kernel's work and so system time; the published huge \
             pages take {:.2} times the system time of small ones, and more user time, in a \
             program whose user code is the same for both. So the published totals do not show \
             what copying costs, and they do not say why the user time differs.",
            differences(huge, small),
            huge.1 / small.1
        )
    });
    Some(format!(
        "User and system time at {} MiB, {}, huge against small: {here}.{published} {follows}; the \
         phase of the writes alone shows the copying.",
        size * 2,
        pattern.name(),
    ))
}

#[cfg(test)]
#[path = "conclusions_tests.rs"]
mod tests;
