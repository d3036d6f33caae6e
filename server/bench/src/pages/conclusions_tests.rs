//! Conclusions from constructed experiments.

use super::super::experiment::Run;
use super::*;
use crate::machine::Machine;

/// Cell whose durations scatter by 1 % around the given values.
fn cell(kind: MemoryKind, pattern: WritePattern, populate: f64, writes: f64) -> Cell {
    let run = |step: i32| {
        let near = |value: f64| value * (1.0 + f64::from(step - 5) / 500.0);
        let phases_ms = [2.0, near(populate), 1.0, 0.0, near(writes), 3.0];
        // The kernel populates and copies.
        let system_ms = (populate + writes) / 2.0;
        let whole_ms = phases_ms.iter().sum::<f64>();
        Run { whole_ms, phases_ms, faults: 512, user_ms: 100.0, system_ms }
    };
    let runs = (0..10).map(run).collect();
    Cell {
        kind,
        size: 512,
        pattern,
        writer: Writer::Child,
        runs,
        forks_with_missing_pages: 0,
        failed: Vec::new(),
        each: Vec::new(),
    }
}

fn experiment(cells: Vec<Cell>) -> Experiment {
    Experiment { machine: Machine::read(), cells, page_share: Vec::new(), left_out: Vec::new() }
}

#[test]
fn results_like_the_published_ones_confirm_its_conclusions() {
    let sentences = sentences(&experiment(vec![
        cell(MemoryKind::Small, WritePattern::Sparse, 600.0, 10.0),
        cell(MemoryKind::Huge2Mb, WritePattern::Sparse, 700.0, 300.0),
        cell(MemoryKind::Small, WritePattern::Dense, 600.0, 800.0),
        cell(MemoryKind::Huge2Mb, WritePattern::Dense, 600.0, 650.0),
    ]));
    assert!(
        sentences[0].contains("sparse writes") && sentences[0].contains("holds here"),
        "{sentences:#?}"
    );
    assert!(
        sentences[0].contains("1024 MiB: 1.63 [") && sentences[0].contains("published 1.50"),
        "{sentences:#?}"
    );
    assert!(
        sentences[1].contains("of that writes +289.7 ms (299.7 against 10.0)"),
        "{sentences:#?}"
    );
    assert!(
        sentences[3].contains("dense writes") && sentences[3].contains("holds here"),
        "{sentences:#?}"
    );
    assert!(!sentences.concat().contains("not hold"));
}

#[test]
fn slow_population_of_small_pages_refutes_the_conclusion() {
    let sentences = sentences(&experiment(vec![
        cell(MemoryKind::Small, WritePattern::Sparse, 600.0, 10.0),
        cell(MemoryKind::Huge2Mb, WritePattern::Sparse, 150.0, 200.0),
        cell(MemoryKind::Small, WritePattern::Dense, 600.0, 200.0),
        cell(MemoryKind::Huge2Mb, WritePattern::Dense, 601.0, 200.0),
    ]));
    assert!(sentences[0].contains("does not hold here"), "{sentences:#?}");
    assert!(
        sentences[1].contains("of that populate -449.5 ms (149.8 against 599.4)"),
        "{sentences:#?}"
    );
    assert!(
        sentences[1].contains("writes +189.8 ms") && sentences[1].contains("hides"),
        "{sentences:#?}"
    );
    assert!(sentences[1].contains("alone take 20.00 times as long"), "{sentences:#?}");
    assert!(sentences[3].contains("left open"), "{sentences:#?}");
}

#[test]
fn processor_times_stand_beside_the_published_ones() {
    let sentences = sentences(&experiment(vec![
        cell(MemoryKind::Small, WritePattern::Sparse, 600.0, 10.0),
        cell(MemoryKind::Huge2Mb, WritePattern::Sparse, 700.0, 300.0),
        cell(MemoryKind::Small, WritePattern::Dense, 600.0, 200.0),
        cell(MemoryKind::Huge2Mb, WritePattern::Dense, 100.0, 200.0),
    ]));
    let (sparse, dense) = (&sentences[2], &sentences[5]);
    let measured = "system 500 against 305 (195 more).";
    assert!(sparse.contains(measured) && sparse.contains("take more of the time"), "{sparse}");
    let published = "user 1002 against 560 ms (442 more), system 68 against 211 (143 less)";
    assert!(sparse.contains(published) && sparse.contains("0.32 times the system"), "{sparse}");
    assert!(sparse.contains("do not show what copying costs"), "{sparse}");
    assert!(dense.contains("system 150 against 400 (250 less)"), "{dense}");
    assert!(dense.contains("Here too huge pages take less system time"), "{dense}");
}

#[test]
fn published_processor_times_by_cell() {
    let at = |kind, size| published_cpu(kind, size, WritePattern::Dense);
    assert_eq!(at(MemoryKind::Huge2Mb, 512), Some((1300.0, 76.0)));
    assert_eq!(at(MemoryKind::Small, 128), Some((268.4, 56.4)));
    assert_eq!(at(MemoryKind::Thp, 512), None);
    for ((_, cpu), (size, whole)) in PUBLISHED_CPU.iter().zip(PUBLISHED) {
        for ((user, system), (whole, _)) in cpu.iter().zip(whole) {
            assert!(user + system <= whole, "{size}: more processor time than {whole} ms");
        }
    }
}

#[test]
fn missing_cells_give_no_conclusion() {
    let sentences =
        sentences(&experiment(vec![cell(MemoryKind::Small, WritePattern::Sparse, 600.0, 10.0)]));
    let untested = sentences.iter().filter(|sentence| sentence.contains("not put to the test"));
    assert_eq!(untested.count(), 1, "{sentences:#?}");
    assert!(!sentences.concat().contains("dense"), "{sentences:#?}");
}

#[test]
fn published_durations_by_cell() {
    assert_eq!(published(MemoryKind::Huge2Mb, 512, WritePattern::Sparse), Some((1161.0, 91.0)));
    assert_eq!(published(MemoryKind::Small, 1, WritePattern::Dense), Some((15.1, 4.1)));
    assert_eq!(published(MemoryKind::Thp, 512, WritePattern::Sparse), None);
    assert_eq!(published(MemoryKind::Small, 3, WritePattern::Sparse), None);
}

#[test]
fn forks_with_missing_pages_are_reported() {
    let mut cell = cell(MemoryKind::Huge1Gb, WritePattern::Sparse, 600.0, 10.0);
    cell.forks_with_missing_pages = 3;
    let sentences = sentences(&experiment(vec![cell])).concat();
    assert!(sentences.contains("After 3 forks") && sentences.contains("(huge-1gb)"), "{sentences}");
}

#[test]
fn forks_and_writes_of_the_parent_are_reported_for_the_largest_size() {
    let mut small = cell(MemoryKind::Small, WritePattern::Sparse, 600.0, 512.0);
    let mut shared = cell(MemoryKind::Shared2Mb, WritePattern::Sparse, 600.0, 0.512);
    (small.writer, shared.writer) = (Writer::Parent, Writer::Parent);
    let sentences = sentences(&experiment(vec![small, shared])).concat();
    assert!(sentences.contains("small 999.") || sentences.contains("small 1000."), "{sentences}");
    assert!(sentences.contains("shared-2mb 1.0"), "{sentences}");
    assert!(
        sentences.contains("fork() with 1024 MiB takes small 1.00 ms, shared-2mb 1.00 ms"),
        "{sentences}"
    );
}
