//! DEBUG RELOAD: reads the image into a second arena, checks it, and puts its keys in the place of
//! those that are there. No command runs meanwhile.

use cowherd_arena::checkpoint::{RestoreStats, restore};
use cowherd_arena::{PageKind, ShardIndex, ShardSet};

use crate::clock::{self, Timestamp};
use crate::commands::{ReloadOptions, Shared, import_keys};
use crate::keyspace::{CleanCursors, DATABASES, Databases, Keyspace, Shards};
use crate::telemetry::RestoreReport;

use super::CheckpointScheduler;
use super::checkpoint_run::{image_settings, write_in_foreground};
use super::script::load_libraries;

/// Threads that read and verify the image.
const THREADS: usize = 2;

/// Reloads the keys.
///
/// # Errors
/// There is no whole image, or no memory for its keys, or a key is there already; the text is the
/// reply. In the last two cases keys may be missing that are in the image.
pub(super) fn reload(
    scheduler: &CheckpointScheduler,
    shared: &Shared,
    options: ReloadOptions,
) -> Result<(), String> {
    scheduler.begin_foreground()?;
    let mut shards = shared.keyspace.lock(ShardSet::ALL, clock::wall_ms());
    let reloaded = reload_under_locks(shared, &mut shards, options);
    scheduler.end_foreground();
    shared.blocked_clients.defer(shards.take_ready());
    drop(shards);
    if reloaded? {
        load_libraries(shared);
    }
    Ok(())
}

/// Tells whether the libraries of functions are other ones than before.
fn reload_under_locks(
    shared: &Shared,
    shards: &mut Shards<'_>,
    options: ReloadOptions,
) -> Result<bool, String> {
    if options.saves {
        write_in_foreground(shared, shards).map_err(|error| format!("ERR {error}"))?;
    }
    let (restored, stats) = read_image(shared)?;
    let libraries = restored.libraries();
    let mut source = restored.lock(ShardSet::ALL, clock::wall_ms());
    if options.saves && source.digest() != shards.digest() {
        return Err("ERR what was restored is not what was saved".into());
    }
    // As in Redis, a key that has expired is not loaded.
    for (shard, db) in ShardIndex::all().flat_map(|shard| (0..DATABASES).map(move |db| (shard, db)))
    {
        source.clean(shard, db, &mut CleanCursors::default(), usize::MAX);
    }
    let has_new_libraries = options.flushes && !options.saves;
    if options.flushes {
        shards.flush(Databases::All);
        ShardIndex::all().for_each(|shard| shards.free_all_deferred(shard));
    }
    if has_new_libraries {
        let functions = &shared.scripting.functions;
        for library in functions.snapshot().1 {
            shards.remove_library(library.name.as_bytes());
        }
        functions.clear();
        for (name, code) in libraries {
            shards.store_library(&name, &code).map_err(|full| format!("ERR {full}"))?;
        }
    }
    let config = shared.config.current();
    let keys_loaded = import_keys(&config, shards, &mut source, options.merges)
        .map_err(|failure| String::from_utf8_lossy(failure.as_bytes()).into_owned())?;
    if options.flushes {
        report(shared, shards, &stats, keys_loaded);
        if shards.digest() != source.digest() {
            return Err("ERR what was loaded is not what is in the image".into());
        }
    }
    Ok(has_new_libraries)
}

/// Restores and verifies the image.
fn read_image(shared: &Shared) -> Result<(Keyspace, RestoreStats), String> {
    let (target, options) = image_settings(shared);
    let capacity = shared.keyspace.arena().capacity();
    let (arena, stats) =
        restore(&target.path(), PageKind::Small, capacity, options.layout, THREADS)
            .map_err(|error| format!("ERR {error}"))?;
    let restored = Keyspace::open(arena).map_err(|error| format!("ERR {error}"))?;
    restored.verify(THREADS).map_err(|broken| format!("ERR {broken}"))?;
    Ok((restored, stats))
}

/// The keys are those of the image, which no save point has to write again.
fn report(shared: &Shared, shards: &Shards<'_>, stats: &RestoreStats, keys_loaded: u64) {
    let report = RestoreReport {
        keys_loaded,
        image_bytes: stats.image.image_bytes,
        changes: shared.keyspace.stats().changes,
        digest: Some(shards.digest()),
        ..RestoreReport::default()
    };
    shared.telemetry.persistence().loading_finished(Timestamp::now(), report);
}
