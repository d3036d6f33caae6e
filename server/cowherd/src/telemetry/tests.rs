use std::sync::Arc;

use super::thread_counters::CommandTotals;
use super::*;
use crate::clock::Timestamp;

fn telemetry() -> Arc<Telemetry> {
    Telemetry::new(2, vec!["get".to_owned(), "set".to_owned()], vec!["string"; 2])
}

#[test]
fn a_thread_has_one_recorder_at_a_time() {
    let telemetry = telemetry();
    let first = telemetry.recorder(0).unwrap();
    assert!(telemetry.recorder(0).is_none());
    assert!(telemetry.recorder(2).is_none());
    first.connection_received();
    drop(first);
    telemetry.recorder(0).unwrap().connection_received();
    assert_eq!(telemetry.totals().connections_received, 2);
}

#[test]
fn threads_are_summed() {
    let telemetry = telemetry();
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let recorder = telemetry.recorder(thread).unwrap();
            scope.spawn(move || {
                for _ in 0..10_000 {
                    recorder.socket_read(3);
                    recorder.socket_written(5);
                    recorder.command(1, 700, false);
                }
                recorder.command(0, 100, true);
                recorder.rejected(0);
                recorder.error(b"-WRONGTYPE Operation");
                recorder.client_opened();
            });
        }
    });
    telemetry.recorder(0).unwrap().client_closed();
    let totals = telemetry.totals();
    assert_eq!((totals.reads, totals.input_bytes), (20_000, 60_000));
    assert_eq!((totals.writes, totals.output_bytes), (20_000, 100_000));
    assert_eq!((totals.commands, totals.errors, totals.clients()), (20_002, 2, 1));
    let set = CommandTotals { calls: 20_000, nanos: 14_000_000, rejected: 0, failed: 0 };
    assert_eq!(telemetry.command(1), set);
    let get = CommandTotals { calls: 2, nanos: 200, rejected: 2, failed: 2 };
    assert_eq!(telemetry.command(0), get);
    assert_eq!(telemetry.latency(1).unwrap().count(), 20_000);
    assert_eq!(telemetry.errors(), [("WRONGTYPE", 2)]);
}

#[test]
fn latencies_are_counted_only_while_tracked() {
    let telemetry = telemetry();
    let recorder = telemetry.recorder(0).unwrap();
    telemetry.set_latency_tracking(false);
    recorder.command(0, 10, false);
    assert!(telemetry.latency(0).is_none());
    telemetry.set_latency_tracking(true);
    for _ in 0..4 {
        recorder.command(0, 1000, false);
    }
    let latency = telemetry.latency(0).unwrap();
    assert_eq!((latency.count(), latency.quantile(0.5)), (4, Some(1000)));
    assert_eq!(telemetry.command(0).calls, 5);
}

#[test]
fn rates_and_peak_follow_the_ticks() {
    let telemetry = telemetry();
    let recorder = telemetry.recorder(0).unwrap();
    for tick in 0..20_u64 {
        telemetry.tick(tick * 100_000, 1000 - tick);
        for _ in 0..10 {
            recorder.command(0, 1, false);
        }
        recorder.socket_read(2048);
    }
    let rates = telemetry.rates();
    assert_eq!((rates.commands, rates.input_bytes, rates.output_bytes), (100, 20_480, 0));
    assert_eq!(telemetry.peak_memory(), 1000);
}

#[test]
fn changes_since_the_last_checkpoint_are_those_after_the_fork() {
    let telemetry = telemetry();
    let persistence = telemetry.persistence();
    let start = CheckpointStart { changes: 5, ..CheckpointStart::default() };
    persistence.checkpoint_started(start, Timestamp::now());
    let changes = || persistence.status(Timestamp::now(), 7).changes_since_checkpoint;
    assert_eq!(changes(), 7);
    persistence
        .checkpoint_finished(Timestamp::now(), |record| record.status = CheckpointStatus::Ok);
    assert_eq!(changes(), 2);
}

#[test]
fn latencies_are_counted_by_family_and_phase() {
    let names = ["get", "set", "del", "ping"].map(str::to_owned);
    let telemetry =
        Telemetry::new(2, names.to_vec(), vec!["string", "string", "generic", "connection"]);
    let recorders = [0, 1].map(|thread| telemetry.recorder(thread).unwrap());
    assert!(!recorders[0].command(0, 100, false).is_checkpoint());
    telemetry.checkpoint_begins();
    let epoch = recorders[1].command(1, 5000, false);
    assert!(epoch.is_checkpoint());
    let longest = LongestCommand { nanos: 5000, begun_ns: 7, stall_nanos: 4000, command: 1 };
    recorders[1].command_in_checkpoint(epoch, longest);
    recorders[0].command_in_checkpoint(epoch, LongestCommand { nanos: 4999, ..longest });
    recorders[0].command(2, 200, false);
    telemetry.checkpoint_ends();
    recorders[0].command(2, 300, false);
    let counts: Vec<_> = telemetry
        .latency_by_family()
        .iter()
        .map(|one| (one.family, one.idle.count(), one.checkpoint.count()))
        .collect();
    assert_eq!(counts, [("generic", 1, 1), ("string", 1, 1)]);
    assert_eq!(telemetry.latency_of_all().count(), 4);
    assert_eq!(telemetry.latency(2).unwrap().count(), 2);
    assert_eq!(telemetry.longest_command(), Some(longest));
    assert_eq!((telemetry.take_longest(), telemetry.take_longest()), (5000, 0));
    telemetry.checkpoint_begins();
    assert_eq!(telemetry.longest_command(), None, "each checkpoint starts without one");
}
