//! The verdict on experiments whose outcome is known.

use super::super::experiment::Run;
use super::*;
use crate::machine::Machine;

/// A cell whose whole and phases scatter by 1 % around what is given.
fn cell(kind: Kind, pattern: Pattern, populate: f64, writes: f64) -> Cell {
    let run = |step: i32| {
        let near = |value: f64| value * (1.0 + f64::from(step - 5) / 500.0);
        let phases_ms = [2.0, near(populate), 1.0, 0.0, near(writes), 3.0];
        Run { whole_ms: phases_ms.iter().sum(), phases_ms, faults: 512 }
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
    Experiment { machine: Machine::read(), cells, really: Vec::new(), left_out: Vec::new() }
}

#[test]
fn the_published_conclusion_holds_where_it_does() {
    let said = sentences(&experiment(vec![
        cell(Kind::Small, Pattern::Sparse, 600.0, 10.0),
        cell(Kind::Huge2Mb, Pattern::Sparse, 700.0, 300.0),
        cell(Kind::Small, Pattern::Dense, 600.0, 800.0),
        cell(Kind::Huge2Mb, Pattern::Dense, 600.0, 650.0),
    ]));
    assert!(said[0].contains("sparse writes") && said[0].contains("holds here"), "{said:#?}");
    assert!(
        said[0].contains("1024 MiB: 1.63 [") && said[0].contains("published 1.50"),
        "{said:#?}"
    );
    assert!(said[1].contains("of that writes +289.7 ms (299.7 against 10.0)"), "{said:#?}");
    assert!(said[2].contains("dense writes") && said[2].contains("holds here"), "{said:#?}");
    assert!(!said.concat().contains("not hold"));
}

#[test]
fn it_does_not_hold_where_populating_small_pages_takes_longer() {
    let said = sentences(&experiment(vec![
        cell(Kind::Small, Pattern::Sparse, 600.0, 10.0),
        cell(Kind::Huge2Mb, Pattern::Sparse, 150.0, 200.0),
        cell(Kind::Small, Pattern::Dense, 600.0, 200.0),
        cell(Kind::Huge2Mb, Pattern::Dense, 601.0, 200.0),
    ]));
    assert!(said[0].contains("does not hold here"), "{said:#?}");
    assert!(said[1].contains("of that populate -449.5 ms (149.8 against 599.4)"), "{said:#?}");
    assert!(said[1].contains("writes +189.8 ms") && said[1].contains("hides"), "{said:#?}");
    assert!(said[1].contains("alone take 20.00 times as long"), "{said:#?}");
    assert!(said[2].contains("left open"), "{said:#?}");
}

#[test]
fn what_was_not_measured_is_not_judged() {
    let said = sentences(&experiment(vec![cell(Kind::Small, Pattern::Sparse, 600.0, 10.0)]));
    let untested = said.iter().filter(|sentence| sentence.contains("not put to the test"));
    assert_eq!(untested.count(), 1, "{said:#?}");
    assert!(!said.concat().contains("dense"), "{said:#?}");
}

#[test]
fn published_figures_stand_beside_their_cells_only() {
    assert_eq!(published(Kind::Huge2Mb, 512, Pattern::Sparse), Some((1161.0, 91.0)));
    assert_eq!(published(Kind::Small, 1, Pattern::Dense), Some((15.1, 4.1)));
    assert_eq!(published(Kind::Thp, 512, Pattern::Sparse), None);
    assert_eq!(published(Kind::Small, 3, Pattern::Sparse), None);
}

#[test]
fn pages_that_a_child_did_not_inherit_are_told() {
    let mut cell = cell(Kind::Huge1Gb, Pattern::Sparse, 600.0, 10.0);
    cell.forks_with_missing_pages = 3;
    let said = sentences(&experiment(vec![cell])).concat();
    assert!(said.contains("After 3 forks") && said.contains("(huge-1gb)"), "{said}");
}

#[test]
fn forks_and_the_writes_of_a_parent_are_told_for_the_largest_size() {
    let mut small = cell(Kind::Small, Pattern::Sparse, 600.0, 512.0);
    let mut shared = cell(Kind::Shared2Mb, Pattern::Sparse, 600.0, 0.512);
    (small.writer, shared.writer) = (Writer::Parent, Writer::Parent);
    let said = sentences(&experiment(vec![small, shared])).concat();
    assert!(said.contains("small 999.") || said.contains("small 1000."), "{said}");
    assert!(said.contains("shared-2mb 1.0"), "{said}");
    assert!(
        said.contains("fork() with 1024 MiB takes small 1.00 ms, shared-2mb 1.00 ms"),
        "{said}"
    );
}
