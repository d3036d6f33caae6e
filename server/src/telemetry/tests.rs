use super::*;

fn telemetry() -> Arc<Telemetry> {
    Telemetry::new(2, vec!["get".to_owned(), "set".to_owned()])
}

#[test]
fn a_slot_has_one_recorder_at_a_time() {
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
                    recorder.command(1).record(700, false);
                }
                recorder.command(0).record(100, true);
                recorder.command(0).rejected();
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
    recorder.command(0).record(10, false);
    assert!(telemetry.latency(0).is_none());
    telemetry.set_latency_tracking(true);
    recorder.command(0).record_batch(4, 4000);
    recorder.command(0).record_batch(0, 0);
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
        recorder.command(0).record_batch(10, 10);
        recorder.socket_read(2048);
    }
    let rates = telemetry.rates();
    assert_eq!((rates.commands, rates.input_bytes, rates.output_bytes), (100, 20_480, 0));
    assert_eq!(telemetry.peak_memory(), 1000);
}

#[test]
fn changes_since_the_last_save_are_those_after_the_fork() {
    let telemetry = telemetry();
    let persistence = telemetry.persistence();
    let start = SaveStart { changes: 5, ..SaveStart::default() };
    persistence.save_started(start, Moment::now());
    let unsaved = || persistence.view(Moment::now(), 7).changes_since_last_save;
    assert_eq!(unsaved(), 7);
    persistence.save_finished(Moment::now(), |record| record.status = SaveStatus::Ok);
    assert_eq!(unsaved(), 2);
}
