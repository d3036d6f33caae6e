//! Opens the keyspace at start: locks the directory, reserves the arena, restores the image.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use super::libraries::{self, BrokenLibraries, FunctionCounts};
use crate::clock::Stopwatch;
use crate::config::{ArenaPages, CheckpointIsolation, Config, DebugCommand};
use crate::keyspace::{Contents, EntryInspector, Keyspace, layout_hash};
use cowherd_arena::checkpoint::{
    DirLock, LockError, RestoreError, RestoreHooks, RestoreProgress, RestoreStats,
    ignore_file_size_signal, inspect, restore_with,
};
use cowherd_arena::{
    Backing, Corruption, Isolation, ObjectNotes, OpenError, PageKind, ReservedArena, UndoOptions,
    pages,
};

/// `cowherd check` restores into an arena this much larger than the image needs.
const CHECK_MARGIN: u64 = 4 << 20;

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Arena(#[from] OpenError),
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The image was read, but a structure in it breaks an invariant.
    #[error(
        "the image {path} is damaged: {broken}. It was left as it is: restore a copy of it from a \
         backup, or move it away to start with no data"
    )]
    Damaged { path: String, broken: Corruption },
    /// The image is whole, but a server that restores it has fewer functions than the one that
    /// wrote it.
    #[error(
        "the image {path} has libraries of functions that cannot be loaded: {broken}. A server \
         restores the image without them; FUNCTION LOAD REPLACE replaces them"
    )]
    Libraries { path: String, broken: BrokenLibraries },
    #[error("cannot read /dev/urandom for the hash seed: {0}")]
    Random(std::io::Error),
}

/// An open keyspace and its directory.
pub(crate) struct OpenedKeyspace {
    pub keyspace: Keyspace,
    /// `None` if there was no image.
    pub restored: Option<RestoredImage>,
    /// Keeps other servers out of the directory until dropped.
    pub lock: DirLock,
}

/// A restored and verified image.
pub(crate) struct RestoredImage {
    /// Sizes, writer and duration of the restore.
    pub stats: RestoreStats,
    /// Numbers of keys, chunks and objects.
    pub contents: Contents,
    /// Time for verifying every structure.
    pub verified_in: Duration,
    /// Digest of all keys and values, if requested.
    pub digest: Option<String>,
}

/// An image whose libraries were compiled too.
pub(crate) struct CheckedImage {
    image: RestoredImage,
    functions: FunctionCounts,
}

/// The report of `cowherd check`.
impl fmt::Display for CheckedImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { image: RestoredImage { stats, contents, verified_in, digest }, functions } =
            self;
        let FunctionCounts { libraries, functions } = functions;
        writeln!(f, "written by     {}", stats.image.writer)?;
        writeln!(f, "keys           {} ({} with an expiry)", contents.keys, contents.expires)?;
        writeln!(f, "chunks         {}", contents.arena.chunks)?;
        writeln!(f, "objects        {} ({} bytes)", contents.arena.objects, contents.arena.bytes)?;
        writeln!(f, "libraries      {libraries} ({functions} functions)")?;
        writeln!(f, "image          {} bytes", stats.image.image_bytes)?;
        writeln!(f, "digest         {}", digest.as_deref().unwrap_or_default())?;
        writeln!(f, "read in        {:.3} s", stats.duration.as_secs_f64())?;
        writeln!(f, "verified in    {:.3} s", verified_in.as_secs_f64())
    }
}

/// Locks the directory that the configuration names, and removes what an interrupted checkpoint has
/// left there.
///
/// # Errors
/// The directory is unavailable, or another server uses it; the text says what to do.
pub(crate) fn lock_directory(config: &Config) -> Result<DirLock, StartError> {
    let lock = DirLock::acquire(&config.dir)?;
    for path in lock.remove_leftovers().unwrap_or_default() {
        tracing::info!("Removed {}, left over from an interrupted checkpoint", path.display());
    }
    Ok(lock)
}

/// Opens the arena and the image that the configuration names, in a locked directory. `observe`
/// gets the progress of the restore, on any thread.
///
/// # Errors
/// Any of them is unavailable or damaged; the text says what to do.
pub(crate) fn open(
    config: &Config,
    lock: DirLock,
    observe: &(dyn Fn(RestoreProgress) + Sync),
) -> Result<OpenedKeyspace, StartError> {
    ignore_file_size_signal();
    let capacity = config.effective_maxmemory();
    let backing = backing(config, capacity);
    let path = config.dir.join(&config.dbfilename);
    let threads = restoring_threads(config);
    let hooks = RestoreHooks { observe, inspector: Some(&EntryInspector) };
    match restore_with(&path, backing, capacity, layout_hash(), threads, hooks) {
        Ok((arena, notes, stats)) => {
            let keyspace = Keyspace::open(arena)?;
            let digest = config.enable_debug_command != DebugCommand::No;
            let restored = verify(&keyspace, notes, &path, stats, threads, digest)?;
            Ok(OpenedKeyspace { keyspace, restored: Some(restored), lock })
        }
        Err(RestoreError::NotFound { .. }) => {
            let blank = ReservedArena::reserve(backing, capacity)?;
            let keyspace = Keyspace::create(blank, random_seed()?)?;
            Ok(OpenedKeyspace { keyspace, restored: None, lock })
        }
        Err(error) => Err(error.into()),
    }
}

/// Threads that read and verify: no worker needs a processor before the keyspace is there.
fn restoring_threads(config: &Config) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    config.threads.max(processors)
}

/// Restores the image at `path` into a separate arena, verifies every structure and compiles every
/// library of functions.
///
/// # Errors
/// The image is damaged, a library cannot be loaded, or there is no memory for them.
pub(crate) fn check_image(path: &Path, threads: usize) -> Result<CheckedImage, StartError> {
    let capacity = inspect(path)?.needed_capacity + CHECK_MARGIN;
    let hooks = RestoreHooks { inspector: Some(&EntryInspector), ..RestoreHooks::NONE };
    let kind = PageKind::Small;
    let (arena, notes, stats) = restore_with(path, kind, capacity, layout_hash(), threads, hooks)?;
    let keyspace = Keyspace::open(arena)?;
    let image = verify(&keyspace, notes, path, stats, threads, true)?;
    let functions = libraries::check(&keyspace)
        .map_err(|broken| StartError::Libraries { path: path.display().to_string(), broken })?;
    Ok(CheckedImage { image, functions })
}

fn verify(
    keyspace: &Keyspace,
    notes: Option<ObjectNotes>,
    path: &Path,
    stats: RestoreStats,
    threads: usize,
    digest: bool,
) -> Result<RestoredImage, StartError> {
    let watch = Stopwatch::start();
    let contents = keyspace
        .verify_restored(threads, notes)
        .map_err(|broken| StartError::Damaged { path: path.display().to_string(), broken })?;
    let verified_in = Duration::from_nanos(watch.nanos());
    let digest = digest.then(|| keyspace.lock(cowherd_arena::ShardSet::ALL, i64::MIN).digest());
    Ok(RestoredImage { stats, contents, verified_in, digest })
}

/// The arena's page kind and isolation by the configuration.
fn backing(config: &Config, capacity: u64) -> Backing {
    let isolation = match config.checkpoint_isolation {
        CheckpointIsolation::KernelCow => Isolation::KernelCow,
        CheckpointIsolation::UndoLog => Isolation::UndoLog(UndoOptions {
            limit: config.effective_undo_limit(capacity),
            block: config.checkpoint_undo_block.bytes(),
        }),
    };
    Backing { kind: page_kind(config.arena_pages, isolation, capacity), isolation }
}

fn page_kind(wanted: ArenaPages, isolation: Isolation, capacity: u64) -> PageKind {
    match wanted {
        ArenaPages::Small => PageKind::Small,
        ArenaPages::Thp => PageKind::Thp,
        ArenaPages::Huge2Mb => PageKind::Huge2Mb,
        ArenaPages::Huge1Gb => PageKind::Huge1Gb,
        ArenaPages::Auto => {
            let (kind, refused) = pages::choose(capacity, isolation);
            match refused {
                None => tracing::info!("arena-pages auto: {kind}"),
                Some(why) => tracing::info!("arena-pages auto: {kind}, since {why}"),
            }
            kind
        }
    }
}

fn random_seed() -> Result<u64, StartError> {
    use std::io::Read as _;
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(StartError::Random)?;
    Ok(u64::from_le_bytes(bytes))
}
