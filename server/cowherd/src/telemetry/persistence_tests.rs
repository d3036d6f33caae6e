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
fn a_new_server_has_saved_nothing() {
    let view = Persistence::new(at(0)).status(at(9), 5);
    assert_eq!(view.last_checkpoint_ms, at(0).wall_ms);
    assert_eq!(
        (view.totals.begun, view.last_duration, view.last_checkpoint_failed),
        (0, None, false)
    );
    assert_eq!(view.changes_since_checkpoint, 5);
    assert!(view.saving.is_none() && view.loading.is_none());
}

#[test]
fn a_save_that_succeeds_counts_the_changes_before_the_fork() {
    let persistence = Persistence::new(at(0));
    persistence.fork_finished(times(347));
    persistence.checkpoint_started(start(10), at(5));
    persistence.checkpoint_sampled(42, at(7), |record| {
        record.chunks_done = 2;
        record.cow.copied_bytes = 2048;
    });

    let view = persistence.status(at(9), 13);
    let saving = view.saving.unwrap();
    assert_eq!((saving.pid, saving.elapsed), (42, Duration::from_secs(4)));
    assert_eq!((saving.progress(), saving.keys_done()), (0.25, 25));
    assert_eq!((saving.record.cow.copied_bytes, saving.age), (2048, Duration::from_secs(2)));
    assert_eq!(view.changes_since_checkpoint, 13);
    assert_eq!(view.last_digest, None, "not published yet");
    assert_eq!(persistence.checkpoint_pid(), Some(42));

    persistence.checkpoint_finished(at(11), succeed(777, 5000));
    let view = persistence.status(at(12), 13);
    assert_eq!(view.changes_since_checkpoint, 3, "those after the fork");
    assert_eq!(view.last_checkpoint_ms, at(11).wall_ms);
    assert_eq!(view.last_duration, Some(Duration::from_secs(6)));
    assert_eq!((view.image_bytes, view.last_cow_bytes, view.totals.begun), (777, 5000, 1));
    assert_eq!(view.last_digest.as_deref(), Some("digest-10"));
    assert_eq!(view.latest_fork, times(347));
    assert_eq!(view.hold_ups.count(), 1);
    assert!(view.saving.is_none());
}

#[test]
fn what_an_undo_log_captured_is_told_apart_from_copies() {
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
    let view = persistence.status(at(3), 0);
    assert_eq!((view.last_cow_bytes, view.last_undo_bytes), (0, 512));
    assert_eq!((view.totals.undo_reused_records, view.totals.other_page_faults), (6, 80));
}

#[test]
fn a_save_that_fails_leaves_what_the_last_good_one_said() {
    let persistence = Persistence::new(at(0));
    persistence.checkpoint_started(start(10), at(1));
    persistence.checkpoint_finished(at(2), succeed(777, 1));
    persistence.checkpoint_started(start(20), at(3));
    persistence.checkpoint_sampled(42, at(4), copied(99));
    persistence.checkpoint_sampled(41, at(4), copied(1));
    persistence.checkpoint_finished(at(5), fail("no space"));

    let view = persistence.status(at(6), 30);
    assert_eq!(view.changes_since_checkpoint, 20);
    assert_eq!(view.last_checkpoint_ms, at(2).wall_ms);
    assert_eq!((view.last_checkpoint_failed, view.last_error.as_deref()), (true, Some("no space")));
    assert_eq!((view.totals.begun, view.totals.failed, view.last_cow_bytes), (2, 1, 99));
    assert_eq!((view.image_bytes, view.last_digest.as_deref()), (777, Some("digest-10")));
    assert_eq!(view.last_duration, Some(Duration::from_secs(2)));

    persistence.checkpoint_started(start(30), at(7));
    persistence.checkpoint_finished(at(8), succeed(0, 0));
    let view = persistence.status(at(9), 30);
    assert_eq!((view.last_checkpoint_failed, view.last_error), (false, None));
    assert_eq!(view.totals.failed, 1);
}

#[test]
fn a_save_that_writers_outpaced_says_nothing_of_the_disk() {
    let persistence = Persistence::new(at(0));
    let save = |seconds, status, outpaced| {
        persistence.checkpoint_started(start(10), at(seconds));
        persistence.checkpoint_finished(at(seconds + 1), |record| {
            (record.status, record.outpaced) = (status, outpaced);
        });
        (persistence.last_checkpoint_failed(), persistence.writes_are_unsafe())
    };
    assert_eq!(save(1, CheckpointStatus::Failed, true), (true, false));
    assert_eq!(save(3, CheckpointStatus::Failed, false), (true, true));
    assert_eq!(save(5, CheckpointStatus::Failed, true), (true, true), "the disk may still be full");
    assert_eq!(save(7, CheckpointStatus::Ok, false), (false, false));
}

#[test]
fn a_save_that_could_not_start_is_a_failed_one() {
    let persistence = Persistence::new(at(0));
    persistence.checkpoint_finished(at(1), fail("fork: out of memory"));
    let view = persistence.status(at(2), 0);
    assert!(persistence.last_checkpoint_failed());
    assert_eq!((view.totals.begun, view.totals.failed, view.last_duration), (0, 1, None));
}

#[test]
fn a_restore_is_followed() {
    let persistence = Persistence::new(at(0));
    persistence.loading_started(1000, at(1));
    persistence.loading_progress(250);
    assert!(persistence.is_loading());
    let loading = persistence.status(at(4), 0).loading.unwrap();
    assert_eq!((loading.loaded_bytes, loading.total_bytes), (250, 1000));
    assert_eq!(loading.elapsed, Duration::from_secs(3));

    let digest = Some("abc".to_owned());
    let report =
        RestoreReport { keys_loaded: 9, keys_expired: 2, image_bytes: 1000, changes: 11, digest };
    persistence.loading_finished(at(6), report.clone());
    let view = persistence.status(at(7), 11);
    assert!(!persistence.is_loading());
    assert_eq!((view.restored, view.restore_duration), (report, Some(Duration::from_secs(5))));
    assert_eq!((view.image_bytes, view.changes_since_checkpoint), (1000, 0));
}

#[test]
fn progress_without_chunks_is_no_division_by_zero() {
    let persistence = Persistence::new(at(0));
    persistence.checkpoint_started(CheckpointStart::default(), at(0));
    let saving = persistence.status(at(0), 0).saving.unwrap();
    assert_eq!((saving.progress(), saving.keys_done()), (0.0, 0));
}

#[test]
fn a_save_that_is_called_off_is_remembered_and_changes_nothing_else() {
    let persistence = Persistence::new(at(0));
    persistence.checkpoint_started(start(10), at(1));
    persistence.checkpoint_finished(at(3), |record| record.status = CheckpointStatus::Cancelled);
    let view = persistence.status(at(4), 10);
    assert_eq!((view.changes_since_checkpoint, view.last_duration), (10, None));
    assert!(!view.last_checkpoint_failed && view.saving.is_none());
    let last = view.last.unwrap();
    assert_eq!((last.number, last.duration), (1, Duration::from_secs(2)));
    assert_eq!(last.status, CheckpointStatus::Cancelled);
}

#[test]
fn a_save_that_forks_again_stays_one_save() {
    let persistence = Persistence::new(at(0));
    persistence.checkpoint_started(start(10), at(1));
    persistence.checkpoint_started(CheckpointStart { pid: 43, ..start(12) }, at(2));
    assert_eq!(persistence.checkpoint_pid(), Some(43));
    let record = persistence.checkpoint_finished(at(5), succeed(1, 0));
    assert_eq!((record.number, record.duration), (1, Duration::from_secs(4)));
    assert_eq!(persistence.status(at(5), 12).changes_since_checkpoint, 0);
}

#[test]
fn the_last_64_saves_are_kept() {
    let persistence = Persistence::new(at(0));
    for changes in 0..70 {
        persistence.checkpoint_started(start(changes), at(1));
        persistence.checkpoint_finished(at(2), succeed(changes, 0));
    }
    let history = persistence.history();
    assert_eq!((history.len(), history[0].number, history[63].number), (64, 7, 70));
}
