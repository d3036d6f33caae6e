use super::*;

fn at(seconds: u32) -> Timestamp {
    let seconds = u64::from(seconds);
    Timestamp { wall_ms: 1_000_000 + seconds as i64 * 1000, monotonic_us: seconds * 1_000_000 }
}

fn start(changes: u64) -> CheckpointStart {
    let digest = Some(format!("digest-{changes}"));
    let record = CheckpointRecord { chunks: 8, keys: 100, ..CheckpointRecord::default() };
    CheckpointStart { pid: 42, changes, digest, record }
}

fn times(micros: u64) -> ForkTimes {
    ForkTimes { hold_up: Duration::from_micros(micros), ..ForkTimes::default() }
}

fn succeed(image_bytes: u64, cow_bytes: u64) -> impl FnOnce(&mut CheckpointRecord) {
    move |record| {
        record.status = CheckpointStatus::Ok;
        record.image_bytes = image_bytes;
        record.cow.copied_bytes = cow_bytes;
    }
}

fn fail(error: &str) -> impl FnOnce(&mut CheckpointRecord) {
    move |record| {
        record.status = CheckpointStatus::Failed;
        record.error = Some(error.to_owned());
    }
}

fn copied(bytes: u64) -> impl FnOnce(&mut CheckpointRecord) {
    move |record| record.cow.copied_bytes = bytes
}

#[test]
fn a_new_server_has_no_checkpoint() {
    let status = Persistence::new(at(0)).status(at(9), 5);
    assert_eq!(status.last_checkpoint_ms, at(0).wall_ms);
    assert_eq!(
        (status.totals.begun, status.last_duration, status.last_checkpoint_failed),
        (0, None, false)
    );
    assert_eq!(status.changes_since_checkpoint, 5);
    assert!(status.running.is_none() && status.loading.is_none());
}

#[test]
fn a_checkpoint_that_succeeds_counts_the_changes_before_the_fork() {
    let persistence = Persistence::new(at(0));
    persistence.fork_finished(times(347));
    persistence.checkpoint_started(start(10), at(5));
    persistence.checkpoint_sampled(42, at(7), |record| {
        record.chunks_done = 2;
        record.cow.copied_bytes = 2048;
    });

    let status = persistence.status(at(9), 13);
    let running = status.running.unwrap();
    assert_eq!((running.pid, running.elapsed), (42, Duration::from_secs(4)));
    assert_eq!((running.progress(), running.keys_done()), (0.25, 25));
    assert_eq!((running.record.cow.copied_bytes, running.age), (2048, Duration::from_secs(2)));
    assert_eq!(status.changes_since_checkpoint, 13);
    assert_eq!(status.last_digest, None, "not published yet");
    assert_eq!(persistence.checkpoint_pid(), Some(42));

    persistence.checkpoint_finished(at(11), succeed(777, 5000));
    let status = persistence.status(at(12), 13);
    assert_eq!(status.changes_since_checkpoint, 3, "those after the fork");
    assert_eq!(status.last_checkpoint_ms, at(11).wall_ms);
    assert_eq!(status.last_duration, Some(Duration::from_secs(6)));
    assert_eq!((status.image_bytes, status.last_cow_bytes, status.totals.begun), (777, 5000, 1));
    assert_eq!(status.last_digest.as_deref(), Some("digest-10"));
    assert_eq!(status.latest_fork, times(347));
    assert_eq!(status.hold_ups.count(), 1);
    assert!(status.running.is_none());
}

#[test]
fn captured_bytes_are_not_copied_bytes() {
    let persistence = Persistence::new(at(0));
    for _ in 0..2 {
        persistence.checkpoint_started(start(10), at(1));
        persistence.checkpoint_finished(at(2), |record| {
            record.status = CheckpointStatus::Ok;
            record.undo.captured_bytes = 512;
            record.undo.reused_records = 3;
            record.other_page_faults = Some(40);
            assert_eq!(record.copied_bytes(), 512);
        });
    }
    let status = persistence.status(at(3), 0);
    assert_eq!((status.last_cow_bytes, status.last_undo_bytes), (0, 512));
    assert_eq!((status.totals.undo_reused_records, status.totals.other_page_faults), (6, 80));
}

#[test]
fn a_failed_checkpoint_keeps_the_figures_of_the_last_good_one() {
    let persistence = Persistence::new(at(0));
    persistence.checkpoint_started(start(10), at(1));
    persistence.checkpoint_finished(at(2), succeed(777, 1));
    persistence.checkpoint_started(start(20), at(3));
    persistence.checkpoint_sampled(42, at(4), copied(99));
    persistence.checkpoint_sampled(41, at(4), copied(1));
    persistence.checkpoint_finished(at(5), fail("no space"));

    let status = persistence.status(at(6), 30);
    assert_eq!(status.changes_since_checkpoint, 20);
    assert_eq!(status.last_checkpoint_ms, at(2).wall_ms);
    assert_eq!(
        (status.last_checkpoint_failed, status.last_error.as_deref()),
        (true, Some("no space"))
    );
    assert_eq!((status.totals.begun, status.totals.failed, status.last_cow_bytes), (2, 1, 99));
    assert_eq!((status.image_bytes, status.last_digest.as_deref()), (777, Some("digest-10")));
    assert_eq!(status.last_duration, Some(Duration::from_secs(2)));

    persistence.checkpoint_started(start(30), at(7));
    persistence.checkpoint_finished(at(8), succeed(0, 0));
    let status = persistence.status(at(9), 30);
    assert_eq!((status.last_checkpoint_failed, status.last_error), (false, None));
    assert_eq!(status.totals.failed, 1);
}

#[test]
fn a_full_undo_log_does_not_make_writes_unsafe() {
    let persistence = Persistence::new(at(0));
    let checkpoint = |seconds, status, outpaced| {
        persistence.checkpoint_started(start(10), at(seconds));
        persistence.checkpoint_finished(at(seconds + 1), |record| {
            (record.status, record.outpaced) = (status, outpaced);
        });
        (persistence.last_checkpoint_failed(), persistence.writes_are_unsafe())
    };
    assert_eq!(checkpoint(1, CheckpointStatus::Failed, true), (true, false));
    assert_eq!(checkpoint(3, CheckpointStatus::Failed, false), (true, true));
    assert_eq!(
        checkpoint(5, CheckpointStatus::Failed, true),
        (true, true),
        "the disk may still be full"
    );
    assert_eq!(checkpoint(7, CheckpointStatus::Ok, false), (false, false));
}

#[test]
fn a_checkpoint_that_could_not_start_has_failed() {
    let persistence = Persistence::new(at(0));
    persistence.checkpoint_finished(at(1), fail("fork: out of memory"));
    let status = persistence.status(at(2), 0);
    assert!(persistence.last_checkpoint_failed());
    assert_eq!((status.totals.begun, status.totals.failed, status.last_duration), (0, 1, None));
}

#[test]
fn a_restore_reports_progress_and_result() {
    let persistence = Persistence::new(at(0));
    persistence.loading_started(at(1));
    assert_eq!(persistence.status(at(2), 0).loading.unwrap().remaining(), None);
    let total = RestoreProgress { total_bytes: 1000, total_chunks: 4, ..Default::default() };
    for (read_bytes, chunks) in [(0, 0), (250, 1), (125, 0)] {
        persistence.loading_progress(RestoreProgress { read_bytes, chunks, ..total });
    }
    assert!(persistence.is_loading());
    let loading = persistence.status(at(4), 0).loading.unwrap();
    // Calls overlap: a smaller figure that comes late changes nothing.
    assert_eq!(loading.progress, RestoreProgress { read_bytes: 250, chunks: 1, ..total });
    assert_eq!(loading.remaining(), Some(loading.elapsed * 3));
    assert_eq!(loading.elapsed, Duration::from_secs(3));

    let digest = Some("abc".to_owned());
    let report =
        RestoreReport { keys_loaded: 9, keys_expired: 2, image_bytes: 1000, changes: 11, digest };
    persistence.loading_finished(at(6), report.clone());
    let status = persistence.status(at(7), 11);
    assert!(!persistence.is_loading());
    assert_eq!((status.restored, status.restore_duration), (report, Some(Duration::from_secs(5))));
    assert_eq!((status.image_bytes, status.changes_since_checkpoint), (1000, 0));
}

#[test]
fn progress_without_chunks_is_no_division_by_zero() {
    let persistence = Persistence::new(at(0));
    persistence.checkpoint_started(CheckpointStart::default(), at(0));
    let running = persistence.status(at(0), 0).running.unwrap();
    assert_eq!((running.progress(), running.keys_done()), (0.0, 0));
}

#[test]
fn a_cancelled_checkpoint_is_kept_and_changes_nothing_else() {
    let persistence = Persistence::new(at(0));
    persistence.checkpoint_started(start(10), at(1));
    persistence.checkpoint_finished(at(3), |record| record.status = CheckpointStatus::Cancelled);
    let status = persistence.status(at(4), 10);
    assert_eq!((status.changes_since_checkpoint, status.last_duration), (10, None));
    assert!(!status.last_checkpoint_failed && status.running.is_none());
    let last = status.last.unwrap();
    assert_eq!((last.number, last.duration), (1, Duration::from_secs(2)));
    assert_eq!(last.status, CheckpointStatus::Cancelled);
}

#[test]
fn a_checkpoint_that_forks_again_stays_one() {
    let persistence = Persistence::new(at(0));
    persistence.checkpoint_started(start(10), at(1));
    persistence.checkpoint_started(CheckpointStart { pid: 43, ..start(12) }, at(2));
    assert_eq!(persistence.checkpoint_pid(), Some(43));
    let record = persistence.checkpoint_finished(at(5), succeed(1, 0));
    assert_eq!((record.number, record.duration), (1, Duration::from_secs(4)));
    assert_eq!(persistence.status(at(5), 12).changes_since_checkpoint, 0);
}

#[test]
fn the_last_64_checkpoints_are_kept() {
    let persistence = Persistence::new(at(0));
    for changes in 0..70 {
        persistence.checkpoint_started(start(changes), at(1));
        persistence.checkpoint_finished(at(2), succeed(changes, 0));
    }
    let history = persistence.history();
    assert_eq!((history.len(), history[0].number, history[63].number), (64, 7, 70));
}
