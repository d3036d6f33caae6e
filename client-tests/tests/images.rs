//! Damaged images: for every changed byte and every truncation, `cowherd check` and a starting
//! server report the damage in one line, exit with 1, and leave the file unchanged.

use anyhow::{Context, Result, ensure};
use client_tests::binaries::run_cowherd;
use client_tests::random::{self, Random};
use client_tests::server::{IMAGE, Server, expect_code};
use client_tests::{TestResult, rounds};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::OnceLock;

/// Alignment of the header, each frame, the index and the footer.
const BLOCK: usize = 4096;

/// Bytes of a valid image with all kinds of objects, created once for all tests.
fn valid_image() -> Result<&'static [u8]> {
    static VALID: OnceLock<Result<Vec<u8>, String>> = OnceLock::new();
    let made = VALID.get_or_init(|| make_image().map_err(|error| format!("{error:#}")));
    made.as_deref().map_err(|error| anyhow::anyhow!("{error}"))
}

fn make_image() -> Result<Vec<u8>> {
    // Compressed, so that the file is small enough to damage each of its blocks.
    let builder = Server::builder().arg("--maxmemory", "64mb").arg("--rdbcompression", "yes");
    let server = builder.start()?;
    let mut random = Random::new(1);
    let mut raw = server.raw()?;
    for number in 0..2000 {
        raw.call(&["SET", &format!("key:{number}"), &"compressible ".repeat(number % 30)])?;
    }
    for (number, length) in [100, 5000, 70_000, 300_000].into_iter().enumerate() {
        let key = format!("random:{number}");
        raw.call(&[b"SET", key.as_bytes(), &random.bytes(length)])?;
        raw.call(&["EXPIRE", &key, "1000000"])?;
    }
    raw.call(&["SELECT", "9"])?;
    raw.call(&["SET", "elsewhere", "value"])?;
    server.bgsave_and_wait()?;
    Ok(std::fs::read(server.image())?)
}

/// Writes `bytes` as an image into `folder`; `cowherd check` must refuse the image in one line.
fn check_refuses(folder: &Path, bytes: &[u8]) -> Result<()> {
    let path = folder.join(IMAGE);
    std::fs::write(&path, bytes)?;
    let outcome = run_cowherd(&["check".as_ref(), path.as_os_str()])?;
    expect_code(outcome.status, 1, &format!("{}{}", outcome.stdout, outcome.stderr))?;
    let lines = outcome.stderr.lines().filter(|line| !line.trim().is_empty()).count();
    ensure!(lines == 1, "not one line, but {lines}:\n{}", outcome.stderr);
    ensure!(outcome.stderr.contains(IMAGE), "the file is not named: {}", outcome.stderr);
    ensure!(std::fs::read(&path)? == bytes, "the file was changed");
    Ok(())
}

/// Writes `bytes` as an image into `folder`; a server must refuse to start, and name the image.
fn start_refuses(folder: &Path, bytes: &[u8]) -> Result<()> {
    let path = folder.join(IMAGE);
    std::fs::write(&path, bytes)?;
    let builder = Server::builder().arg("--maxmemory", "64mb").dir(folder);
    let (status, log) = builder.start_refused()?;
    expect_code(status, 1, &log)?;
    ensure!(log.contains(IMAGE), "the image is not named:\n{log}");
    ensure!(std::fs::read(&path)? == bytes, "the file was changed");
    Ok(())
}

fn pick(random: &mut Random, limit: usize) -> Result<usize> {
    Ok(usize::try_from(random.below(limit as u64))?)
}

/// `image` with one byte changed, and a description of the change.
fn flipped(image: &[u8], at: usize, random: &mut Random) -> Result<(Vec<u8>, String)> {
    let mut bytes = image.to_vec();
    let change = u8::try_from(1 + random.below(255))?;
    bytes[at] ^= change;
    Ok((bytes, format!("byte {at} of {} changed by {change:#04x}", image.len())))
}

/// Whether the full number of damages is tested.
fn thorough() -> bool {
    rounds() >= 100
}

/// Distance of damaged blocks in bytes.
fn stride() -> usize {
    if thorough() { BLOCK } else { 37 * BLOCK }
}

#[test]
fn a_valid_image_is_accepted() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join(IMAGE);
    std::fs::write(&path, valid_image()?)?;
    let outcome = run_cowherd(&["check".as_ref(), path.as_os_str()])?;
    expect_code(outcome.status, 0, &outcome.stderr)?;
    ensure!(!outcome.stdout.trim().is_empty(), "no summary");
    ensure!(std::fs::read(&path)? == valid_image()?, "the file was changed");
    let server = Server::builder().arg("--maxmemory", "64mb").dir(folder.path()).start()?;
    ensure!(server.text(&["DBSIZE"])? == "2004");
    Ok(())
}

#[test]
fn each_changed_byte_is_detected() -> TestResult {
    let image = valid_image()?;
    let folder = tempfile::tempdir()?;
    let mut random = Random::new(random::seed());
    let mut places = BTreeSet::new();
    // Each byte of the header; of each block its ends and some bytes in between.
    places.extend((0..BLOCK).step_by(if thorough() { 1 } else { 97 }));
    places.extend(0..if thorough() { 0 } else { 24 });
    places.extend(image.len().saturating_sub(64)..image.len());
    for start in (0..image.len()).step_by(stride()) {
        let end = image.len().min(start + BLOCK);
        places.insert(start);
        if thorough() {
            places.insert(end - 1);
        }
        for _ in 0..rounds().div_ceil(50) {
            places.insert(start + pick(&mut random, end - start)?);
        }
    }
    for at in places {
        let (bytes, what) = flipped(image, at, &mut random)?;
        check_refuses(folder.path(), &bytes).context(what)?;
    }
    Ok(())
}

#[test]
fn each_truncation_is_detected() -> TestResult {
    let image = valid_image()?;
    let folder = tempfile::tempdir()?;
    let mut random = Random::new(random::seed());
    let mut lengths = BTreeSet::new();
    lengths.extend((0..BLOCK + 64).step_by(if thorough() { 1 } else { 83 }));
    for border in (BLOCK..image.len()).step_by(stride()) {
        lengths.extend([border - 1, border, border + 1]);
    }
    lengths.extend(image.len().saturating_sub(70)..image.len());
    for _ in 0..rounds() {
        lengths.insert(pick(&mut random, image.len())?);
    }
    for length in lengths {
        let what = || format!("cut to {length} of {} bytes", image.len());
        check_refuses(folder.path(), &image[..length]).with_context(what)?;
    }
    Ok(())
}

/// Other damages, with their names.
fn other_damages(image: &[u8], random: &mut Random) -> Vec<(&'static str, Vec<u8>)> {
    let mut longer = image.to_vec();
    longer.push(0);
    let mut block_longer = image.to_vec();
    block_longer.extend([0; BLOCK]);
    let mut swapped = image.to_vec();
    let (first, second) = swapped.split_at_mut(2 * BLOCK);
    first[BLOCK..].swap_with_slice(&mut second[BLOCK..2 * BLOCK]);
    let mut zeroed = image.to_vec();
    let middle = image.len() / 2 / BLOCK * BLOCK;
    zeroed[middle..middle + BLOCK].fill(0);
    let mut missing_block = image.to_vec();
    missing_block.drain(BLOCK..2 * BLOCK);
    let mut damages = vec![
        ("one byte more", longer),
        ("one block more", block_longer),
        ("two blocks swapped", swapped),
        ("a block of zeros", zeroed),
        ("a block left out", missing_block),
        ("twice the file", [image, image].concat()),
        ("the header alone, twice", image[..BLOCK].repeat(2)),
        ("nothing", Vec::new()),
        ("only zeros", vec![0; image.len()]),
        ("noise", random.bytes(image.len() as u64)),
        ("an RDB file", b"REDIS0011\xfa\x09redis-ver\x057.4.0\xff".to_vec()),
        ("text", b"not an image\n".repeat(1000)),
    ];
    // Swapping equal blocks is no damage.
    damages.retain(|(_, bytes)| bytes != image);
    damages
}

#[test]
fn other_damages_are_detected() -> TestResult {
    let folder = tempfile::tempdir()?;
    let mut random = Random::new(random::seed());
    for (what, bytes) in other_damages(valid_image()?, &mut random) {
        check_refuses(folder.path(), &bytes).context(what)?;
    }
    Ok(())
}

#[test]
fn a_server_does_not_start_on_a_damaged_image() -> TestResult {
    let image = valid_image()?;
    let folder = tempfile::tempdir()?;
    let mut random = Random::new(random::seed());
    for (what, bytes) in other_damages(image, &mut random) {
        start_refuses(folder.path(), &bytes).context(what)?;
    }
    for _ in 0..rounds() {
        let at = pick(&mut random, image.len())?;
        let (bytes, what) = flipped(image, at, &mut random)?;
        start_refuses(folder.path(), &bytes).context(what)?;
        let length = pick(&mut random, image.len())?;
        let what = format!("cut to {length} of {} bytes", image.len());
        start_refuses(folder.path(), &image[..length]).context(what)?;
    }
    // A valid image in the same folder is accepted.
    std::fs::write(folder.path().join(IMAGE), image)?;
    let server = Server::builder().arg("--maxmemory", "64mb").dir(folder.path()).start()?;
    ensure!(server.text(&["GET", "key:1"])? == "compressible ");
    Ok(())
}

#[test]
fn an_image_larger_than_maxmemory_is_refused() -> TestResult {
    let server = Server::builder().arg("--maxmemory", "256mb").start()?;
    let value = Random::new(1).bytes(1 << 20);
    let mut raw = server.raw()?;
    for number in 0..100 {
        raw.call(&[b"SET", format!("large:{number}").as_bytes(), &value])?;
    }
    server.bgsave_and_wait()?;
    let image = std::fs::read(server.image())?;
    let folder = tempfile::tempdir()?;
    start_refuses(folder.path(), &image)?;
    Ok(())
}

#[test]
fn check_names_an_unreadable_file() -> TestResult {
    let folder = tempfile::tempdir()?;
    let missing = folder.path().join("no-such-file.cow");
    for path in [missing.as_path(), folder.path()] {
        let outcome = run_cowherd(&["check".as_ref(), path.as_os_str()])?;
        expect_code(outcome.status, 1, &outcome.stderr)?;
        let named = outcome.stderr.contains(&*path.to_string_lossy());
        ensure!(named, "the file is not named: {}", outcome.stderr);
    }
    Ok(())
}
