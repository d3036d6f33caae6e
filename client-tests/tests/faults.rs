//! Injected faults: killed processes, full disks, removed folders, an exhausted pool of huge pages.
//! In each case the server continues or exits cleanly, reports the reason, and keeps the old image.

use anyhow::{Context, Result, bail, ensure};
use client_tests::binaries::{self, run_cowherd};
use client_tests::hugepages::{self, PageSize, PoolSize};
use client_tests::random::{self, Random};
use client_tests::server::{Server, expect_code};
use client_tests::volume::{FilesystemKind, Volume};
use client_tests::wire::encode;
use client_tests::{TestResult, ports, rounds, skip, tools, wait::wait_until};
use nix::sys::signal::Signal;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(60);

/// Stores `count` incompressible values of `size` bytes.
fn fill(server: &Server, random: &mut Random, count: u64, size: u64) -> TestResult {
    let mut raw = server.raw()?;
    for number in 0..count {
        let key = format!("filled:{number}");
        raw.call(&[b"SET", key.as_bytes(), &random.bytes(size)])?;
    }
    Ok(())
}

/// Requests a checkpoint, which must fail. Returns the reason that the server reports.
fn checkpoint_must_fail(server: &Server) -> Result<String> {
    // BGSAVE itself fails for a reason that is known before the fork.
    if server.bgsave().is_ok()
        && let Ok(()) = server.wait_checkpoint()?
    {
        bail!("the checkpoint succeeded");
    }
    ensure!(server.info("rdb_last_bgsave_status")? == "err", "INFO does not report the failure");
    let reason = server.info("cowherd_last_checkpoint_error")?;
    ensure!(!reason.is_empty(), "the checkpoint failed without a reason");
    let is_logged = || Ok(server.log().contains(&reason));
    wait_until(is_logged, DEADLINE, &format!("the log to contain the reason {reason:?}"))?;
    Ok(reason)
}

fn temporary_files(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with("temp-") {
            names.push(name);
        }
    }
    Ok(names)
}

fn check_image(server: &Server) -> TestResult {
    let outcome = run_cowherd(&["check".as_ref(), server.image().as_os_str()])?;
    expect_code(outcome.status, 0, &outcome.stderr)
}

#[test]
fn a_killed_child_is_reported_and_the_next_checkpoint_works() -> TestResult {
    let server = Server::start()?;
    let mut random = Random::new(random::seed());
    fill(&server, &mut random, 60, 1 << 20)?;
    server.bgsave_and_wait()?;
    let mut killed = 0;
    for _ in 0..rounds().div_ceil(5).max(4) {
        let image = std::fs::read(server.image())?;
        // About 30 chunks: the child runs for about 150 ms.
        server.delay_checkpoints(5000)?;
        server.text(&["INCR", "rounds"])?;
        server.bgsave()?;
        let Some(child) = server.child_pid()? else { continue };
        thread::sleep(Duration::from_micros(random.below(80_000)));
        if !server.is_checkpoint_running()? || tools::signal(child, Signal::SIGKILL).is_err() {
            continue;
        }
        wait_until(
            || Ok(!server.is_checkpoint_running()?),
            DEADLINE,
            "the report of the child's death",
        )?;
        if server.info("rdb_last_bgsave_status")? == "ok" {
            // The child had already written the image when the signal arrived.
            continue;
        }
        killed += 1;
        let reason = server.info("cowherd_last_checkpoint_error")?;
        ensure!(reason.contains("SIGKILL"), "the signal is not named: {reason:?}");
        ensure!(reason.contains(&child.to_string()), "the child is not named: {reason:?}");
        ensure!(std::fs::read(server.image())? == image, "a failed checkpoint changed the image");
        ensure!(temporary_files(server.folder())?.is_empty(), "a failed checkpoint left its file");
        server.delay_checkpoints(0)?;
        server.bgsave_and_wait()?;
        check_image(&server)?;
    }
    ensure!(killed > 0, "every child ended before its signal");
    Ok(())
}

#[test]
fn killing_the_server_during_a_checkpoint_leaves_a_valid_image_and_no_orphan() -> TestResult {
    let mut server = Server::start()?;
    let mut random = Random::new(random::seed());
    fill(&server, &mut random, 40, 1 << 20)?;
    server.bgsave_and_wait()?;
    let mut old = server.digest()?;
    for number in 0..rounds().div_ceil(10) {
        fill(&server, &mut random, 2, 100_000)?;
        let newer = server.digest()?;
        server.delay_checkpoints(3000)?;
        server.bgsave()?;
        let child = server.child_pid()?;
        thread::sleep(Duration::from_micros(random.below(100_000)));
        server.kill9()?;
        if let Some(child) = child {
            wait_until(|| Ok(!tools::is_running(child)), DEADLINE, "the orphaned child to end")?;
        }
        check_image(&server)?;
        server.restart()?;
        let restored = server.digest()?;
        let is_known = restored == old || restored == newer;
        ensure!(is_known, "round {number}: restored neither the old nor the new data");
        old = restored;
        let left = temporary_files(server.folder())?;
        ensure!(left.is_empty(), "temporary files are left: {left:?}");
    }
    Ok(())
}

/// Checkpoints to a full disk must fail, and work again after space is freed.
fn checkpoint_to_full_disk(kind: FilesystemKind) -> TestResult {
    let volume = match Volume::mount(kind, 96)? {
        Ok(volume) => volume,
        Err(reason) => skip!("{reason}"),
    };
    let mut server = Server::builder().dir(&volume.path()).start()?;
    let mut random = Random::new(random::seed());
    fill(&server, &mut random, 10, 1 << 20)?;
    server.bgsave_and_wait()?;
    let old = std::fs::read(server.image())?;
    let ballast = volume.fill(3 << 20)?;
    server.text(&["SET", "after", "the disk is full"])?;
    for _ in 0..3 {
        let reason = checkpoint_must_fail(&server)?;
        ensure!(reason.contains("No space left on device"), "not the actual reason: {reason:?}");
        ensure!(std::fs::read(server.image())? == old, "a failed checkpoint changed the image");
        ensure!(temporary_files(server.folder())?.is_empty(), "a failed checkpoint left its file");
        ensure!(server.text(&["INCR", "still serving"]).is_ok());
    }
    std::fs::remove_file(ballast)?;
    server.bgsave_and_wait()?;
    ensure!(server.info("rdb_last_bgsave_status")? == "ok");
    let digest = server.digest()?;
    server.restart()?;
    ensure!(server.digest()? == digest);
    Ok(())
}

#[test]
fn a_full_ext4_fails_only_the_checkpoint() -> TestResult {
    checkpoint_to_full_disk(FilesystemKind::Ext4)
}

#[test]
fn a_full_tmpfs_fails_only_the_checkpoint() -> TestResult {
    checkpoint_to_full_disk(FilesystemKind::Tmpfs)
}

#[test]
fn a_removed_folder_fails_checkpoints_until_it_exists_again() -> TestResult {
    let server = Server::start()?;
    server.text(&["SET", "key", "value"])?;
    std::fs::remove_dir_all(server.folder())?;
    let reason = checkpoint_must_fail(&server)?;
    ensure!(reason.contains("No such file or directory"), "not the actual reason: {reason:?}");
    ensure!(server.text(&["GET", "key"])? == "value");
    std::fs::create_dir(server.folder())?;
    server.bgsave_and_wait()?;
    check_image(&server)
}

fn limit_files(server: &Server, bytes: &str) -> TestResult {
    let pid = server.pid().to_string();
    let mut limit = Command::new("prlimit");
    let outcome =
        tools::run(limit.args(["--pid", &pid, &format!("--fsize={bytes}")]), b"", DEADLINE)?;
    expect_code(outcome.status, 0, &outcome.stderr)
}

/// SIGXFSZ, which the kernel sends at this limit, ends a process that does not ignore it.
#[test]
fn a_limit_of_file_sizes_fails_only_checkpoints() -> TestResult {
    for isolation in ["kernel-cow", "undo-log"] {
        let server = Server::builder().arg("--checkpoint-isolation", isolation).start()?;
        fill(&server, &mut Random::new(random::seed()), 64, 100_000)?;
        server.bgsave_and_wait()?;
        let digest = server.digest()?;
        limit_files(&server, "1000000:unlimited")?;
        let mut raw = server.raw()?;
        let refused = String::from_utf8_lossy(&raw.exchange(&["SAVE"])?).into_owned();
        ensure!(refused.starts_with("-ERR ") && refused.contains("File too large"), "{refused}");
        let reason = checkpoint_must_fail(&server)?;
        ensure!(reason.contains("File too large"), "not the actual reason: {reason:?}");
        check_image(&server)?;
        limit_files(&server, "unlimited")?;
        server.bgsave_and_wait()?;
        ensure!(server.digest()? == digest);
    }
    Ok(())
}

#[test]
fn an_arena_over_the_limit_of_file_sizes_is_refused() -> TestResult {
    let folder = tempfile::tempdir()?;
    let mut limited = Command::new("prlimit");
    limited.arg("--fsize=1000000").arg(binaries::cowherd()?).args(["--metrics-port", "0"]);
    limited.args(["--port", &ports::free()?.to_string()]);
    limited.args(["--arena-pages", "small", "--maxmemory", "64mb"]);
    let outcome = tools::run(limited.arg("--dir").arg(folder.path()), b"", DEADLINE)?;
    expect_code(outcome.status, 1, &outcome.stderr)?;
    for word in ["64 MiB", "ulimit -f", "LimitFSIZE", "kernel-cow"] {
        ensure!(outcome.stderr.contains(word), "no {word} in {}", outcome.stderr);
    }
    Ok(())
}

#[test]
fn writes_are_refused_while_checkpoints_fail() -> TestResult {
    let server = Server::builder().arg("--save", "3600 1000000").start()?;
    server.text(&["SET", "key", "value"])?;
    std::fs::remove_dir_all(server.folder())?;
    checkpoint_must_fail(&server)?;
    let mut raw = server.raw()?;
    for write in [&["SET", "key", "new"][..], &["DEL", "key"], &["INCR", "n"], &["FLUSHALL"]] {
        let reply = raw.exchange(write)?;
        ensure!(reply.starts_with(b"-MISCONF "), "{write:?}: {:?}", reply.escape_ascii());
    }
    // Commands that write nothing, and those of the operator, still work.
    ensure!(raw.text(&["GET", "key"])? == "value");
    ensure!(raw.text(&["CONFIG", "SET", "stop-writes-on-bgsave-error", "no"])? == "OK");
    ensure!(raw.text(&["SET", "key", "new"])? == "OK");
    ensure!(raw.text(&["CONFIG", "SET", "stop-writes-on-bgsave-error", "yes"])? == "OK");
    ensure!(raw.exchange(&["SET", "key", "newer"])?.starts_with(b"-MISCONF "));
    std::fs::create_dir(server.folder())?;
    server.bgsave_and_wait()?;
    ensure!(raw.text(&["SET", "key", "newer"])? == "OK");
    Ok(())
}

#[test]
fn a_second_server_in_the_same_folder_refuses() -> TestResult {
    let server = Server::start()?;
    server.text(&["SET", "key", "value"])?;
    server.bgsave_and_wait()?;
    let image = std::fs::read(server.image())?;
    let (status, log) = Server::builder().dir(server.folder()).start_refused()?;
    expect_code(status, 1, &log)?;
    ensure!(log.contains("cowherd.lock"), "the lock file is not named:\n{log}");
    ensure!(server.text(&["GET", "key"])? == "value");
    ensure!(std::fs::read(server.image())? == image);
    Ok(())
}

#[test]
fn a_taken_port_refuses() -> TestResult {
    let server = Server::start()?;
    let taken = Server::builder().arg("--port", &server.port().to_string());
    let (status, log) = taken.start_refused()?;
    expect_code(status, 1, &log)?;
    ensure!(log.contains(&server.port().to_string()), "the port is not named:\n{log}");
    Ok(())
}

/// The arena has 64 pages, and the pool only a few more for copies.
#[test]
fn an_exhausted_pool_fails_only_the_checkpoint() -> TestResult {
    // Two values per chunk of 2 MiB, in 58 of the arena's 64 chunks.
    const VALUES: u64 = 116;
    const SIZE: u64 = 900 << 10;
    let size = PageSize::Huge2M;
    let _claim = match hugepages::claim(size, 2 * 64 + 8)? {
        Ok(claim) => claim,
        Err(reason) => skip!("{reason}"),
    };
    if !tools::is_root() {
        skip!("no root: cannot change the pool of huge pages");
    }
    let taken = size.figure("nr_hugepages")? - size.available();
    let tight = PoolSize::set(size, taken + 64 + 3)?;
    let server = Server::builder()
        .arg("--arena-pages", "huge-2mb")
        .arg("--checkpoint-isolation", "kernel-cow")
        .arg("--maxmemory", "128mb")
        .start()?;
    let mut random = Random::new(random::seed());
    fill(&server, &mut random, VALUES, SIZE)?;
    server.delay_checkpoints(500_000)?;
    server.bgsave()?;
    let mut raw = server.raw()?;
    let value = random.bytes(SIZE);
    // The child needs half a minute for its chunks; this touches all of them earlier.
    for number in 0..VALUES {
        raw.call(&[b"SETRANGE", format!("filled:{number}").as_bytes(), b"0", &value])?;
    }
    let Err(reason) = server.wait_checkpoint()? else {
        bail!("the checkpoint succeeded, although the pool could not copy what it needs")
    };
    ensure!(reason.contains("pool"), "not the actual reason: {reason:?}");
    for number in 0..VALUES {
        let kept = raw.bytes(&["GET".to_owned(), format!("filled:{number}")])?;
        ensure!(kept.as_deref() == Some(&value), "value {number} is lost");
    }
    ensure!(raw.text(&["SET", "still", "serving"])? == "OK");
    server.delay_checkpoints(0)?;
    let wide = PoolSize::set(size, taken + 2 * 64 + 3)?;
    server.bgsave_and_wait()?;
    check_image(&server)?;
    drop(server);
    drop(wide);
    drop(tight);
    Ok(())
}

/// Changes every value of `fill` during a slow checkpoint; returns the result of the checkpoint.
fn change_all(server: &Server, values: u64, size: u64) -> Result<Result<(), String>> {
    server.delay_checkpoints(20_000)?;
    server.bgsave()?;
    let mut raw = server.raw()?;
    let value = Random::new(random::seed()).bytes(size);
    for number in 0..values {
        raw.call(&[b"SETRANGE", format!("filled:{number}").as_bytes(), b"0", &value])?;
    }
    let result = server.wait_checkpoint()?;
    for number in 0..values {
        let kept = raw.bytes(&["GET".to_owned(), format!("filled:{number}")])?;
        ensure!(kept.as_deref() == Some(&value), "value {number} is lost");
    }
    server.delay_checkpoints(0)?;
    Ok(result)
}

#[test]
fn a_full_undo_log_fails_only_the_checkpoint() -> TestResult {
    const VALUES: u64 = 60;
    const SIZE: u64 = 900 << 10;
    let server = Server::builder().arg("--checkpoint-undo-limit", "8mb").start()?;
    fill(&server, &mut Random::new(random::seed()), VALUES, SIZE)?;
    let result = change_all(&server, VALUES, SIZE)?;
    let Err(reason) = result else {
        bail!("the checkpoint succeeded, although the log could not hold it")
    };
    ensure!(reason.contains("the undo log reached its limit of 8 MiB"), "{reason:?}");
    ensure!(reason.contains("checkpoint-undo-limit"), "no remedy: {reason:?}");
    let mut raw = server.raw()?;
    ensure!(raw.text(&["SET", "still", "serving"])? == "OK");
    server.bgsave_and_wait()?;
    check_image(&server)
}

/// A pool as large as the arena suffices, because an undo log copies no pages.
#[test]
fn an_undo_log_needs_no_page_of_the_pool() -> TestResult {
    const VALUES: u64 = 116;
    const SIZE: u64 = 900 << 10;
    let size = PageSize::Huge2M;
    let _claim = match hugepages::claim(size, 64)? {
        Ok(claim) => claim,
        Err(reason) => skip!("{reason}"),
    };
    if !tools::is_root() {
        skip!("no root: cannot change the pool of huge pages");
    }
    let taken = size.figure("nr_hugepages")? - size.available();
    let exact = PoolSize::set(size, taken + 64)?;
    let server = Server::builder()
        .arg("--arena-pages", "huge-2mb")
        .arg("--checkpoint-isolation", "undo-log")
        .arg("--maxmemory", "128mb")
        .arg("--checkpoint-undo-limit", "256mb")
        .start()?;
    fill(&server, &mut Random::new(random::seed()), VALUES, SIZE)?;
    let result = change_all(&server, VALUES, SIZE)?;
    ensure!(result.is_ok(), "{result:?}");
    check_image(&server)?;
    drop(server);
    drop(exact);
    Ok(())
}

#[test]
fn a_pool_that_is_too_small_refuses_the_start() -> TestResult {
    let size = PageSize::Huge2M;
    let _claim = match hugepages::claim(size, 0)? {
        Ok(claim) => claim,
        Err(reason) => skip!("{reason}"),
    };
    let megabytes = 2 * (size.available() + 64);
    let (status, log) = Server::builder()
        .arg("--arena-pages", "huge-2mb")
        .arg("--maxmemory", &format!("{megabytes}mb"))
        .start_refused()?;
    expect_code(status, 1, &log)?;
    ensure!(log.contains("nr_hugepages"), "the remedy is not named:\n{log}");
    Ok(())
}

#[test]
fn sigterm_writes_a_checkpoint_with_save_points() -> TestResult {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut server = Server::builder().arg("--save", "3600 1000000").start()?;
        server.text(&["SET", "key", "value"])?;
        tools::signal(server.pid(), signal)?;
        expect_code(server.wait_exit()?, 0, &server.log())?;
        server.restart()?;
        ensure!(server.text(&["GET", "key"])? == "value", "{signal} wrote no checkpoint");
    }
    Ok(())
}

/// `timeout` sends a signal to a process and again to its group: the second signal arrived while
/// the last image was being written, and was interpreted as a request to exit without the image.
#[test]
fn two_signals_at_once_are_one() -> TestResult {
    let mut server = Server::builder().arg("--save", "3600 1000000").start()?;
    fill(&server, &mut Random::new(random::seed()), 20, 1 << 20)?;
    let digest = server.digest()?;
    for _ in 0..3 {
        tools::signal(server.pid(), Signal::SIGTERM)?;
    }
    expect_code(server.wait_exit()?, 0, &server.log())?;
    server.restart()?;
    ensure!(server.digest()? == digest, "the last image was not written");
    Ok(())
}

/// The last image was written and the locks were released before the workers stopped: commands that
/// they answered in between were in no image.
#[test]
fn the_last_image_contains_all_answered_commands() -> TestResult {
    const CLIENTS: usize = 4;
    for _ in 0..rounds().div_ceil(10) {
        let mut server = Server::builder().arg("--save", "3600 1000000").start()?;
        fill(&server, &mut Random::new(random::seed()), 20, 1 << 20)?;
        let (started, is_started) = std::sync::mpsc::channel();
        let mut clients = Vec::new();
        for number in 0..CLIENTS {
            let mut raw = server.raw()?;
            let started = started.clone();
            clients.push(thread::spawn(move || {
                let key = format!("counter:{number}");
                let mut answered = 0;
                // Until the server ends.
                while let Ok(value) = raw.number(&["INCR", &key]) {
                    answered = value;
                    if answered == 100 {
                        let _ = started.send(());
                    }
                }
                answered
            }));
        }
        drop(started);
        for _ in 0..CLIENTS {
            is_started.recv()?;
        }
        expect_code(server.terminate()?, 0, &server.log())?;
        server.restart()?;
        for (number, client) in clients.into_iter().enumerate() {
            let Ok(answered) = client.join() else { bail!("a client panicked") };
            let restored: i64 = server.text(&["GET", &format!("counter:{number}")])?.parse()?;
            ensure!(
                restored >= answered,
                "client {number}: {answered} answered, {restored} restored"
            );
        }
    }
    Ok(())
}

#[test]
fn sigterm_writes_no_checkpoint_without_save_points() -> TestResult {
    let mut server = Server::start()?;
    server.text(&["SET", "key", "value"])?;
    expect_code(server.terminate()?, 0, &server.log())?;
    ensure!(!server.image().exists(), "an image was written");
    Ok(())
}

#[test]
fn signals_shut_down_with_the_words_of_the_directives() -> TestResult {
    for (points, words, is_saved) in [("", "save", true), ("3600 1", "nosave now", false)] {
        let mut server = Server::builder().arg("--save", points).start()?;
        server.text(&["CONFIG", "SET", "shutdown-on-sigterm", words])?;
        server.text(&["SET", "key", "value"])?;
        expect_code(server.terminate()?, 0, &server.log())?;
        ensure!(server.image().exists() == is_saved, "{words}");
    }
    Ok(())
}

#[test]
fn sigterm_during_a_checkpoint_writes_the_latest_state() -> TestResult {
    let mut server = Server::builder().arg("--save", "3600 1000000").start()?;
    fill(&server, &mut Random::new(random::seed()), 20, 1 << 20)?;
    server.delay_checkpoints(50_000)?;
    server.bgsave()?;
    let child = server.child_pid()?.context("no checkpoint runs")?;
    server.text(&["SET", "latest", "value"])?;
    let digest = server.digest()?;
    expect_code(server.terminate()?, 0, &server.log())?;
    wait_until(|| Ok(!tools::is_running(child)), DEADLINE, "the child to end")?;
    server.restart()?;
    ensure!(server.digest()? == digest, "the latest write is lost");
    Ok(())
}

#[test]
fn shutdown_obeys_its_option() -> TestResult {
    for (option, writes_image) in [("NOSAVE", false), ("SAVE", true)] {
        let mut server = Server::start()?;
        server.text(&["SET", "key", "value"])?;
        let mut raw = server.raw()?;
        raw.send(&encode(&["SHUTDOWN", option]))?;
        ensure!(raw.read_to_end()?.is_empty(), "SHUTDOWN {option} answered");
        expect_code(server.wait_exit()?, 0, &server.log())?;
        ensure!(server.image().exists() == writes_image, "SHUTDOWN {option}");
    }
    Ok(())
}

#[test]
fn a_save_point_triggers_a_checkpoint() -> TestResult {
    let mut server = Server::builder().arg("--save", "1 3").start()?;
    for _ in 0..3 {
        server.text(&["INCR", "count"])?;
    }
    let image = server.image();
    wait_until(|| Ok(image.exists()), Duration::from_secs(20), "the checkpoint of the save point")?;
    wait_until(|| Ok(!server.is_checkpoint_running()?), DEADLINE, "the checkpoint to end")?;
    server.restart()?;
    ensure!(server.text(&["GET", "count"])? == "3");
    Ok(())
}
