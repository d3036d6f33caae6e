//! Failures: each is reported with its cause, keeps the old image, and leaves no temporary file.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::super::storage::{Disk, Storage};
use super::*;
use crate::memory::pages::HugetlbPool;

/// A disk with faults.
#[derive(Default)]
struct Faulty {
    calls: AtomicU64,
    /// The write with this number, counted from 1, fails.
    write: Option<(u64, Errno)>,
    /// At most so many bytes are written at once.
    short: Option<usize>,
    /// Every other write is interrupted.
    interrupted: bool,
    create_direct: Option<Errno>,
    sync: Option<Errno>,
    rename: Option<Errno>,
    sync_dir: Option<Errno>,
}

fn fault(errno: Option<Errno>) -> io::Result<()> {
    errno.map_or(Ok(()), |errno| Err(errno.into()))
}

impl Storage for Faulty {
    fn create(&self, path: &Path, direct: bool) -> io::Result<File> {
        if direct {
            fault(self.create_direct)?;
        }
        Disk.create(path, direct)
    }

    fn write_at(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<usize> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some((number, errno)) = self.write
            && number == call
        {
            return Err(errno.into());
        }
        if self.interrupted && call % 2 == 1 {
            return Err(Errno::EINTR.into());
        }
        let Some(short) = self.short else {
            return Disk.write_at(file, bytes, at);
        };
        let flags = fcntl(file, FcntlArg::F_GETFL)?;
        let direct = flags & nix::libc::O_DIRECT != 0;
        let len = bytes.len().min(short);
        // Direct I/O to a full disk can end inside a block.
        let whole = if direct && len > 4096 { len / 4096 * 4096 } else { len };
        Disk.write_at(file, &bytes[..whole], at)?;
        Ok(len)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        fault(self.sync)?;
        Disk.sync(file)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fault(self.rename)?;
        Disk.rename(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fault(self.sync_dir)?;
        Disk.sync_dir(dir)
    }
}

type Checkpoint = fn(PreparedCheckpoint, &Arena) -> Result<CheckpointOutcome, CheckpointError>;
const WAYS: [Checkpoint; 2] = [checkpoint_by_fork, checkpoint_here];

#[test]
fn a_disk_that_fails_is_named_and_the_old_image_stays() {
    let arena = filled(PageKind::Small, 6, Content::Noise);
    let cases: [(Faulty, &[&str]); 6] = [
        (
            Faulty { write: Some((1, Errno::ENOSPC)), ..Faulty::default() },
            &["cannot write to", "No space left on device", "Free space"],
        ),
        (
            Faulty { write: Some((3, Errno::EIO)), ..Faulty::default() },
            &["cannot write to", "Input/output error", "dmesg"],
        ),
        (
            Faulty { sync: Some(Errno::EIO), ..Faulty::default() },
            &["cannot sync", "Input/output error"],
        ),
        (
            Faulty { sync: Some(Errno::ENOSPC), ..Faulty::default() },
            &["cannot sync", "No space left on device"],
        ),
        (
            Faulty { rename: Some(Errno::EROFS), ..Faulty::default() },
            &["cannot rename", "Read-only file system", "remount"],
        ),
        (
            Faulty { write: Some((2, Errno::EFBIG)), ..Faulty::default() },
            &["cannot write to", "File too large", "ulimit -f"],
        ),
    ];
    for (faulty, texts) in cases {
        let faulty = Arc::new(faulty);
        for save in WAYS {
            faulty.calls.store(0, Ordering::Relaxed);
            let dir = TempDir::new().unwrap();
            let target = target(&dir);
            fs::write(target.path(), "the old image").unwrap();
            let prepared =
                PreparedCheckpoint::with_storage(&target, &OPTIONS, &arena, faulty.clone())
                    .unwrap();
            let error = save(prepared, &arena).unwrap_err().to_string();
            for text in texts.iter().chain(&["The old image is kept"]) {
                assert!(error.contains(text), "{text}: {error}");
            }
            assert_eq!(names(dir.path()), ["dump.cow"]);
            assert_eq!(fs::read(target.path()).unwrap(), b"the old image");
        }
    }
}

#[test]
fn a_directory_that_cannot_be_synced_is_no_success() {
    let arena = filled(PageKind::Small, 2, Content::Text);
    for save in WAYS {
        let dir = TempDir::new().unwrap();
        let target = target(&dir);
        let faulty = Arc::new(Faulty { sync_dir: Some(Errno::EIO), ..Faulty::default() });
        let prepared = PreparedCheckpoint::with_storage(&target, &OPTIONS, &arena, faulty).unwrap();
        let error = save(prepared, &arena).unwrap_err().to_string();
        assert!(error.contains("is not durable"), "{error}");
        assert_eq!(digest(&restored(&target.path(), &arena)), digest(&arena));
    }
}

#[test]
fn short_and_interrupted_writes_are_completed() {
    let arena = filled(PageKind::Small, 4, Content::Noise);
    let cases = [
        // Aligned and not, direct and not.
        Faulty { short: Some(64 << 10), interrupted: true, ..Faulty::default() },
        Faulty { short: Some((64 << 10) + 512), interrupted: true, ..Faulty::default() },
        Faulty { short: Some(2048), create_direct: Some(Errno::EINVAL), ..Faulty::default() },
        Faulty { short: Some(512), ..Faulty::default() },
        Faulty { write: Some((2, Errno::EINVAL)), ..Faulty::default() },
    ];
    for faulty in cases.map(Arc::new) {
        for save in WAYS {
            faulty.calls.store(0, Ordering::Relaxed);
            let dir = TempDir::new().unwrap();
            let target = target(&dir);
            let prepared =
                PreparedCheckpoint::with_storage(&target, &OPTIONS, &arena, faulty.clone())
                    .unwrap();
            let outcome = save(prepared, &arena).unwrap();
            if faulty.write.is_some() || faulty.create_direct.is_some() {
                assert!(!outcome.direct);
            }
            assert_eq!(digest(&restored(&target.path(), &arena)), digest(&arena));
        }
    }
}

#[test]
fn a_killed_child_is_told_and_the_old_image_stays() {
    let arena = filled(PageKind::Small, 4, Content::Text);
    let dir = TempDir::new().unwrap();
    let target = target(&dir);
    fs::write(target.path(), "the old image").unwrap();
    for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGBUS] {
        let running =
            fork(PreparedCheckpoint::new(&target, &ENDLESS, &arena).unwrap(), &arena).unwrap();
        kill(Pid::from_raw(running.pid()), signal).unwrap();
        let error = running.wait(&mut Observer(&arena)).unwrap_err();
        assert!(
            matches!(error, CheckpointError::Killed { signal: s, .. } if s == signal),
            "{error}"
        );
        assert!(error.to_string().contains(signal.as_str()), "{error}");
        assert!(error.to_string().contains("The old image is kept"), "{error}");
        assert_eq!(names(dir.path()), ["dump.cow"]);
        assert_eq!(fs::read(target.path()).unwrap(), b"the old image");
    }
}

#[test]
fn an_exhausted_hugetlb_pool_is_reported_with_its_remedy() {
    let error = |signal, kind: PageKind| {
        CheckpointError::Killed { pid: 7, signal, backing: kind.into(), capacity: 64 << 20 }
            .to_string()
    };
    let text = error(Signal::SIGBUS, PageKind::Huge2Mb);
    assert!(text.contains("pool of 2 MiB huge pages was exhausted"), "{text}");
    let pages = text.split("sysctl vm.nr_hugepages=").nth(1).unwrap();
    let pages: u64 = pages.split_whitespace().next().unwrap().parse().unwrap();
    assert!(pages >= 64, "twice the arena: {text}");
    let text = error(Signal::SIGKILL, PageKind::Huge2Mb);
    assert!(text.contains("was exhausted") && text.contains("memory ran out"), "{text}");
    let text = error(Signal::SIGKILL, PageKind::Small);
    assert!(text.contains("memory ran out") && !text.contains("pool"), "{text}");
}

/// Needs a pool of 64 pages that no other process uses:
/// `sysctl vm.nr_hugepages=64; cargo test -p cowherd-arena hugetlb_pool_kills -- --ignored`
#[test]
#[ignore = "takes the whole hugetlb pool"]
fn an_exhausted_hugetlb_pool_kills_the_child() {
    let _claim = claim_hugetlb_pools();
    let pool = HugetlbPool::read(PageKind::Huge2Mb).unwrap();
    let pages = pool.available();
    assert!(pages >= 8, "sysctl vm.nr_hugepages=64");
    let arena = empty(PageKind::Huge2Mb, pages * 2);
    let shard = ShardIndex::of_hash(0);
    let len = (pages - 1) * CHUNK_SIZE;
    let at = {
        let mut held = arena.lock(ShardSet::one(shard));
        held.mem(shard).allocate(len).unwrap()
    };
    let write = |value| {
        let mut held = arena.lock(ShardSet::one(shard));
        held.mem(shard).bytes_mut(at, len).fill(value);
    };
    write(1);
    let dir = TempDir::new().unwrap();
    let options = ImageOptions { delay_per_chunk: Duration::from_millis(200), ..OPTIONS };
    let prepared = PreparedCheckpoint::new(&target(&dir), &options, &arena).unwrap();
    let running = fork(prepared, &arena).unwrap();
    write(2);
    let error = running.wait(&mut Observer(&arena)).unwrap_err();
    let text = error.to_string();
    println!("{text}");
    assert!(matches!(error, CheckpointError::Killed { .. }), "{text}");
    assert!(text.contains("was exhausted"), "{text}");
    let mut held = arena.lock(ShardSet::one(shard));
    assert!(held.mem(shard).bytes(at, len).iter().all(|byte| *byte == 2), "nothing is lost");
}

#[test]
fn a_save_can_be_cancelled_from_any_thread() {
    let arena = filled(PageKind::Small, 2, Content::Text);
    let dir = TempDir::new().unwrap();
    let running =
        fork(PreparedCheckpoint::new(&target(&dir), &ENDLESS, &arena).unwrap(), &arena).unwrap();
    let handle = running.handle();
    let canceller = std::thread::spawn({
        let handle = handle.clone();
        move || handle.cancel()
    });
    assert!(matches!(running.wait(&mut Observer(&arena)), Err(CheckpointError::Cancelled)));
    assert!(canceller.join().unwrap());
    assert!(!handle.cancel(), "it is over");
    assert!(names(dir.path()).is_empty());
}

#[test]
fn dropping_a_save_ends_its_child() {
    let arena = filled(PageKind::Small, 2, Content::Text);
    let dir = TempDir::new().unwrap();
    let running =
        fork(PreparedCheckpoint::new(&target(&dir), &ENDLESS, &arena).unwrap(), &arena).unwrap();
    let handle = running.handle();
    drop(running);
    assert!(!arena.barrier().is_active(), "the recording has ended");
    assert!(!handle.cancel(), "reaped");
    assert!(names(dir.path()).is_empty());
}

#[test]
fn a_child_dies_with_the_thread_that_forked_it() {
    let arena = filled(PageKind::Small, 2, Content::Text);
    let dir = TempDir::new().unwrap();
    let target = target(&dir);
    // As after a kill -9 of the server: no process waits or kills.
    let handle = std::thread::scope(|scope| {
        let forking = scope.spawn(|| {
            let prepared = PreparedCheckpoint::new(&target, &ENDLESS, &arena).unwrap();
            let running = fork(prepared, &arena).unwrap();
            let handle = running.handle();
            // It is past its prctl once it writes.
            while handle.progress().chunks_done == 0 {
                std::thread::yield_now();
            }
            std::mem::forget(running);
            handle
        });
        forking.join().unwrap()
    });
    let pid = Pid::from_raw(handle.pid());
    let status = nix::sys::wait::waitpid(pid, None).unwrap();
    assert!(
        matches!(status, nix::sys::wait::WaitStatus::Signaled(_, Signal::SIGKILL, _)),
        "{status:?}"
    );
}

#[test]
fn a_child_yields_to_its_parent() {
    let arena = filled(PageKind::Small, 2, Content::Text);
    let dir = TempDir::new().unwrap();
    let running =
        fork(PreparedCheckpoint::new(&target(&dir), &ENDLESS, &arena).unwrap(), &arena).unwrap();
    while running.handle().progress().chunks_done == 0 {
        std::thread::yield_now();
    }
    let proc = |name: &str| fs::read_to_string(format!("/proc/{}/{name}", running.pid())).unwrap();
    assert_eq!(proc("oom_score_adj").trim(), "1000");
    assert_eq!(proc("comm").trim(), "cowherd-save");
    let stat = proc("stat");
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    // proc_pid_stat(5): nice is field 19, policy field 41; SCHED_BATCH is 3.
    let nice: i32 = fields[19 - 3].parse().unwrap();
    assert!(nice >= 10, "{stat}");
    assert_eq!(fields[41 - 3], "3", "{stat}");
    assert!(proc("status").lines().any(|line| line == "SigBlk:\t0000000000000000"));
    drop(running);
    assert!(!arena.barrier().is_active(), "the recording has ended");
}

#[test]
fn a_second_save_is_refused_while_one_runs() {
    let arena = filled(PageKind::Small, 2, Content::Text);
    let dir = TempDir::new().unwrap();
    let target = target(&dir);
    let running =
        fork(PreparedCheckpoint::new(&target, &ENDLESS, &arena).unwrap(), &arena).unwrap();
    let second = PreparedCheckpoint::new(&target, &OPTIONS, &arena).unwrap();
    assert!(matches!(checkpoint_here(second, &arena), Err(CheckpointError::Busy)));
    let third = PreparedCheckpoint::new(&target, &OPTIONS, &arena).unwrap();
    assert!(matches!(fork(third, &arena), Err(CheckpointError::Busy)));
    assert!(arena.barrier().is_active(), "the first is still recorded");
    assert_eq!(names(dir.path()).len(), 1, "its file is left alone");
    drop(running);
    assert!(!arena.barrier().is_active(), "the recording has ended");
}

#[test]
fn a_missing_directory_is_told() {
    let arena = empty(PageKind::Small, 8);
    let dir = TempDir::new().unwrap();
    let missing = ImageTarget { dir: dir.path().join("gone"), filename: "dump.cow".into() };
    let error = PreparedCheckpoint::new(&missing, &OPTIONS, &arena).err().unwrap().to_string();
    assert!(error.contains("No such file") && error.contains("create it again"), "{error}");
    for name in ["", "..", "a/b", "/etc/passwd"] {
        let target = ImageTarget { dir: dir.path().to_owned(), filename: name.into() };
        let error = PreparedCheckpoint::new(&target, &OPTIONS, &arena).err().unwrap();
        assert!(matches!(error, CheckpointError::Name { .. }), "{name}: {error}");
    }
    assert!(names(dir.path()).is_empty());
}

#[test]
fn a_directory_that_vanishes_during_the_save_is_told() {
    let arena = filled(PageKind::Small, 2, Content::Text);
    let dir = TempDir::new().unwrap();
    let target = ImageTarget { dir: dir.path().join("data"), filename: "dump.cow".into() };
    fs::create_dir(&target.dir).unwrap();
    let running =
        fork(PreparedCheckpoint::new(&target, &OPTIONS, &arena).unwrap(), &arena).unwrap();
    fs::remove_dir_all(&target.dir).unwrap();
    let error = running.wait(&mut Observer(&arena)).unwrap_err();
    assert!(matches!(error, CheckpointError::Rename { .. }), "{error}");
    assert!(error.to_string().contains("The directory is gone"), "{error}");
}

#[test]
fn a_directory_belongs_to_one_server() {
    let dir = TempDir::new().unwrap();
    for name in ["temp-12-0.cow", "temp-1.cow", "temp-x-1.cow", "dump.cow"] {
        fs::write(dir.path().join(name), "").unwrap();
    }
    let lock = DirLock::acquire(dir.path()).unwrap();
    let error = DirLock::acquire(dir.path()).unwrap_err();
    assert!(matches!(&error, LockError::Held { owner, .. } if *owner == Some(std::process::id())));
    let text = error.to_string();
    assert!(text.contains("cowherd.lock"), "{text}");
    assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
    assert_eq!(lock.remove_leftovers().unwrap(), [dir.path().join("temp-12-0.cow")]);
    drop(lock);
    // The server died, and its child has not yet.
    let orphan = File::create(dir.path().join("cowherd.lock")).unwrap();
    orphan.lock().unwrap();
    fs::write(dir.path().join("cowherd.lock"), "999999999\n").unwrap();
    let error = DirLock::acquire_within(dir.path(), Duration::from_millis(50)).unwrap_err();
    assert!(matches!(&error, LockError::Held { owner: Some(999_999_999), .. }), "{error}");
    orphan.unlock().unwrap();
    DirLock::acquire(dir.path()).unwrap();
    let error = DirLock::acquire(&dir.path().join("gone")).unwrap_err().to_string();
    assert!(error.contains("No such file"), "{error}");
}
