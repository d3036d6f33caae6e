//! The speed of checkpoints and restores; the figures of docs/decisions/0002 and 0003.

use std::time::Instant;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::*;

/// ```sh
/// CARGO_PROFILE_TESTED_DEBUG_ASSERTIONS=false CARGO_PROFILE_TESTED_OVERFLOW_CHECKS=false \
///     cargo test --profile tested -p cowherd-arena --lib checkpoint::tests::speed -- \
///     --ignored --nocapture --test-threads 1
/// ```
#[test]
#[ignore = "a measurement, for an optimised build"]
fn a_gibibyte() {
    let folder = std::env::var("COWHERD_SPEED_DIR").unwrap_or_else(|_| "/tmp".into());
    let rate = |bytes: u64, time: Duration| bytes as f64 / 1e6 / time.as_secs_f64();
    for (name, content) in [("noise", Content::Noise), ("text", Content::Text)] {
        let arena = filled(PageKind::Thp, 1024, content);
        for codec in [ChunkCodec::None, ChunkCodec::Lz4] {
            let dir = TempDir::new_in(&folder).unwrap();
            let target = target(&dir);
            let options = ImageOptions { codec, ..OPTIONS };
            for _ in 0..3 {
                let prepared = PreparedCheckpoint::new(&target, &options, &arena).unwrap();
                let o = checkpoint_by_fork(prepared, &arena).unwrap();
                println!(
                    "save {name} {codec:?}: {:.0} MB/s, image {:.0} MB of {:.0}, direct {}; read \
                     {:.2?} compress {:.2?} checksum {:.2?} write {:.2?} sync {:.2?} total {:.2?} \
                     fork {:.2?}",
                    rate(o.raw_bytes, o.total),
                    o.image_bytes as f64 / 1e6,
                    o.raw_bytes as f64 / 1e6,
                    o.direct,
                    o.steps.read,
                    o.steps.compress,
                    o.steps.checksum,
                    o.steps.write,
                    o.steps.sync,
                    o.total,
                    o.fork,
                );
            }
            let file = fs::File::open(target.path()).unwrap();
            for (kind, cold) in [
                (PageKind::Small, true),
                (PageKind::Thp, true),
                (PageKind::Small, false),
                (PageKind::Thp, false),
            ] {
                for threads in [1, 2] {
                    if cold {
                        let advice = PosixFadviseAdvice::POSIX_FADV_DONTNEED;
                        posix_fadvise(&file, 0, 0, advice).unwrap();
                    } else {
                        fs::read(target.path()).unwrap();
                    }
                    let begun = Instant::now();
                    let (again, stats) =
                        restore(&target.path(), kind, arena.capacity(), LAYOUT, threads).unwrap();
                    let took = begun.elapsed();
                    println!(
                        "restore {name} {codec:?} to {kind} with {threads}, cold {cold}: {:.0} \
                         MB/s ({took:.2?})",
                        rate(stats.raw_bytes, took)
                    );
                    drop(again);
                }
            }
        }
    }
}
