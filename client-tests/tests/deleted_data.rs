//! An image holds only what lives: no deleted or overwritten data, and a size that follows the live
//! bytes.
//!
//! The secrets are at the end of what is deleted or overwritten, so that a shorter value in the
//! same place would leave them behind. Images are not compressed, so that a search finds bytes.

use anyhow::{Context, Result, ensure};
use client_tests::TestResult;
use client_tests::random::Random;
use client_tests::server::{Server, ServerBuilder};
use client_tests::wait::wait_until;
use client_tests::wire::RawConnection;
use std::collections::BTreeMap;
use std::time::Duration;

const ISOLATIONS: [&str; 2] = ["undo-log", "kernel-cow"];
/// Secrets of each case.
const SECRETS: usize = 100;
/// What each secret begins with; the name of its case follows.
const MARK: &str = "SECRET/";
/// A shorter secret, at the end of values that become so much shorter and stay in their object.
const TAIL: &str = "\x02#~\x03";
/// What the values that stay begin with.
const KEPT: &str = "KEPT-VALUE/";
/// Memory is freed in slices: the last secrets go within this time.
const DEADLINE: Duration = Duration::from_secs(20);

fn server_with(isolation: &str, pages: &str) -> ServerBuilder {
    Server::builder()
        .arg("--checkpoint-isolation", isolation)
        .arg("--arena-pages", pages)
        .arg("--maxmemory", "512mb")
        .arg("--rdbcompression", "no")
        // Compact collections have up to 16 elements, nodes of streams up to 20 entries.
        .arg("--hash-max-listpack-entries", "16")
        .arg("--hash-max-listpack-value", "500")
        .arg("--set-max-listpack-value", "500")
        .arg("--zset-max-listpack-value", "500")
        .arg("--set-max-listpack-entries", "16")
        .arg("--zset-max-listpack-entries", "16")
        .arg("--list-max-listpack-size", "16")
        .arg("--stream-node-max-entries", "20")
}

/// A text of `len` bytes or more with a secret at its end.
fn secret(case: &str, number: usize, len: usize) -> String {
    let secret = format!("{MARK}{case}/{number}/end");
    format!("{}{secret}", ".".repeat(len.saturating_sub(secret.len())))
}

/// Lengths of values: inline, external, and several units long.
fn length(number: usize) -> usize {
    [30, 45, 90, 700, 3000, 20_000, 70_000][number % 7]
}

fn kept(number: usize) -> String {
    format!("{KEPT}{number}")
}

/// How many elements a collection keeps, and how long they are.
#[derive(Clone, Copy)]
struct Size {
    name: &'static str,
    elements: usize,
    len: usize,
}

/// Collections in one object; in two, the second of which has room; and in many.
const SIZES: [Size; 3] = [
    Size { name: "compact", elements: 5, len: 0 },
    Size { name: "external", elements: 11, len: 300 },
    Size { name: "large", elements: 40, len: 0 },
];

impl Size {
    fn element(self, number: usize) -> String {
        format!("element:{number}:{}", "k".repeat(self.len))
    }
}

struct Cases {
    raw: RawConnection,
}

impl Cases {
    /// Sends the words of `command`, and then `values`.
    fn run(&mut self, command: &str, values: &[&str]) -> Result<()> {
        let words: Vec<&str> = command.split(' ').chain(values.iter().copied()).collect();
        self.raw.call(&words).with_context(|| command.to_owned())?;
        Ok(())
    }

    fn strings(&mut self) -> Result<()> {
        for i in 0..SECRETS {
            let len = length(i);
            let long = |case: &str| secret(case, i, len);
            // A key that stays, beside the one that goes.
            self.run(&format!("SET kept:{i}"), &[&kept(i)])?;
            self.run(&format!("SET del:{i}"), &[&long("DEL")])?;
            self.run(&format!("DEL del:{i}"), &[])?;
            self.run(&format!("SET unlink:{i}"), &[&long("UNLINK")])?;
            self.run(&format!("UNLINK unlink:{i}"), &[])?;
            let name = secret("name of a key", i, 0);
            self.raw.call(&["SET", &name, "value"])?;
            self.raw.call(&["DEL", &name])?;
            self.run(&format!("SET getdel:{i}"), &[&long("GETDEL")])?;
            self.run(&format!("GETDEL getdel:{i}"), &[])?;
            self.run(&format!("SET expires:{i}"), &[&long("expiry"), "PX", "1"])?;
            for (case, shorter) in [("much", 12), ("all", 0)] {
                let set = format!("SET shorter:{case}:{i}");
                self.run(&set, &[&secret(&format!("SET {case} shorter"), i, len)])?;
                self.run(&set, &[&"x".repeat(shorter)])?;
            }
            let old = format!("{}{TAIL}", "o".repeat(len + i % 32));
            self.run(&format!("SET bit-shorter:{i}"), &[&old])?;
            self.run(&format!("SET bit-shorter:{i}"), &[&"x".repeat(old.len() - TAIL.len())])?;
            self.run(&format!("SET number:{i}"), &[&long("SET of a number")])?;
            self.run(&format!("SET number:{i} 12345678"), &[])?;
            let value = long("SETRANGE");
            self.run(&format!("SET setrange:{i}"), &[&value])?;
            let at = value.len() - secret("SETRANGE", i, 0).len();
            self.run(&format!("SETRANGE setrange:{i} {at}"), &[&"y".repeat(value.len() - at)])?;
            let value = long("APPEND");
            self.run(&format!("SET append:{i}"), &[&value])?;
            for _ in 0..6 {
                self.run(&format!("APPEND append:{i}"), &[&value])?;
            }
            self.run(&format!("SET append:{i}"), &[&"z".repeat(value.len())])?;
            self.run(&format!("SET persist:{i}"), &[&long("PERSIST"), "EX", "1000"])?;
            self.run(&format!("PERSIST persist:{i}"), &[])?;
            self.run(&format!("SET persist:{i}"), &["short"])?;
            self.run(&format!("SET from:{i}"), &["moved"])?;
            self.run(&format!("SET to:{i}"), &[&long("RENAME")])?;
            self.run(&format!("RENAME from:{i} to:{i}"), &[])?;
            self.run(&format!("MSET mset:{i}"), &[&long("MSET")])?;
            self.run(&format!("MSET mset:{i} short"), &[])?;
        }
        Ok(())
    }

    fn hashes(&mut self, size: Size) -> Result<()> {
        for i in 0..SECRETS {
            let long = |case: &str| secret(&format!("{case} {}", size.name), i, 30 + i % 40);
            let key = format!("hash:{}:{i}", size.name);
            for field in 0..size.elements {
                self.run(&format!("HSET {key} field:{field}"), &[&size.element(field)])?;
                self.run(&format!("HSET {key} kept:{field}"), &[&kept(i)])?;
            }
            let old = format!("{}{TAIL}", "o".repeat(10 + i % 32));
            self.run(&format!("HSET {key} bit-shorter"), &[&old])?;
            let new = "x".repeat(old.len() - TAIL.len());
            self.run(&format!("HSET {key} bit-shorter"), &[&new])?;
            self.run(&format!("HSET {key} gone"), &[&long("HDEL")])?;
            self.run(&format!("HSET {key}"), &[&long("HDEL of a field"), "value"])?;
            self.run(&format!("HSET {key} other"), &[&long("HSET")])?;
            self.run(&format!("HSET {key} expires"), &[&long("HPEXPIRE")])?;
            self.run(&format!("HSET {key} between value last"), &[&long("HDEL of the last")])?;
            self.run(&format!("HDEL {key} last"), &[])?;
            self.run(&format!("HDEL {key} gone"), &[&long("HDEL of a field")])?;
            self.run(&format!("HSET {key} other short"), &[])?;
            self.run(&format!("HPEXPIRE {key} 1 FIELDS 1 expires"), &[])?;
        }
        Ok(())
    }

    fn sets(&mut self, size: Size) -> Result<()> {
        for i in 0..SECRETS {
            let long = |case: &str| secret(&format!("{case} {}", size.name), i, 30 + i % 30);
            let (set, zset) = (format!("set:{}:{i}", size.name), format!("zset:{}:{i}", size.name));
            self.run(&format!("SADD {set}"), &[&long("SREM of the first")])?;
            self.run(&format!("ZADD {zset} 5"), &[&long("ZREM")])?;
            self.run(&format!("ZADD {zset} -1"), &[&long("ZPOPMIN")])?;
            self.run(&format!("ZADD {zset} 1000"), &[&long("ZREMRANGEBYRANK")])?;
            for member in 0..size.elements {
                let name = size.element(member);
                self.run(&format!("SADD {set}"), &[&name])?;
                self.run(&format!("ZADD {zset} {member}"), &[&name])?;
            }
            self.run(&format!("SADD {set}"), &[&long("SREM of the last")])?;
            self.run(&format!("SREM {set}"), &[&long("SREM of the last")])?;
            self.run(&format!("SREM {set}"), &[&long("SREM of the first")])?;
            self.run(&format!("ZREMRANGEBYRANK {zset} -1 -1"), &[])?;
            self.run(&format!("ZREM {zset}"), &[&long("ZREM")])?;
            self.run(&format!("ZPOPMIN {zset}"), &[])?;
        }
        Ok(())
    }

    /// The elements at the ends of the list stay between two removals, so that a large one has them
    /// in a node that stays.
    fn lists(&mut self, size: Size) -> Result<()> {
        for i in 0..SECRETS {
            let long = |case: &str| secret(&format!("{case} {}", size.name), i, 30 + i % 50);
            for (case, remove, is_front) in [
                ("LPOP", "LPOP KEY", true),
                ("LTRIM at the front", "LTRIM KEY 1 -1", true),
                ("RPOP", "RPOP KEY", false),
                ("LTRIM", "LTRIM KEY 0 -2", false),
                ("LSET", "LSET KEY -1 short", false),
                ("LSET of the first", "LSET KEY 0 short", true),
            ] {
                let key = format!("list:{}:{}:{i}", size.name, case.replace(' ', "-"));
                let (push, others) = if is_front { ("LPUSH", "RPUSH") } else { ("RPUSH", "LPUSH") };
                for element in 0..size.elements {
                    self.run(&format!("{others} {key}"), &[&size.element(element)])?;
                }
                // The node at the end has several elements.
                self.run(&format!("{push} {key}"), &["a", "b", "c", &long(case)])?;
                self.run(&remove.replace("KEY", &key), &[])?;
            }
            let key = format!("list:{}:{i}", size.name);
            for element in 0..size.elements {
                self.run(&format!("RPUSH {key}"), &[&size.element(element)])?;
            }
            for place in ["first", "middle", "last"] {
                let pivot = match place {
                    "first" => 0,
                    "middle" => size.elements / 2,
                    _ => size.elements - 1,
                };
                let value = long(&format!("LREM {place}"));
                let how = if place == "last" { "AFTER" } else { "BEFORE" };
                self.run(&format!("LINSERT {key} {how}"), &[&size.element(pivot), &value])?;
                self.run(&format!("LREM {key} 1"), &[&value])?;
            }
        }
        Ok(())
    }

    fn streams(&mut self, others: usize) -> Result<()> {
        for i in 0..SECRETS {
            let long = |case: &str| secret(&format!("{case} {others}"), i, 30 + i % 50);
            let key = format!("stream:{others}:{i}");
            // Trimmed from a node that stays, with fields that no other entry has.
            self.run(&format!("XADD {key} 1-1"), &[&long("XTRIM of a field"), &long("XTRIM")])?;
            for entry in 2..others + 2 {
                self.run(&format!("XADD {key} {entry}-1 field"), &[&kept(i)])?;
            }
            let last = others + 2;
            self.run(&format!("XADD {key} {last}-1 field"), &[&long("XDEL")])?;
            self.run(&format!("XADD {key} {last}-2"), &[&long("XDEL of a field"), "1234567"])?;
            self.run(&format!("XADD {key} {last}-3 field"), &["last"])?;
            self.run(&format!("XDEL {key} {last}-1 {last}-2"), &[])?;
            self.run(&format!("XTRIM {key} MAXLEN = {}", others + 1), &[])?;
            let group = secret(&format!("XGROUP DESTROY {others}"), i, 0);
            self.run(&format!("XGROUP CREATE {key}"), &[&group, "0"])?;
            self.run(&format!("XGROUP DESTROY {key}"), &[&group])?;
        }
        Ok(())
    }

    fn databases(&mut self) -> Result<()> {
        for (database, how) in [(5, "SYNC"), (6, "ASYNC")] {
            self.run(&format!("SELECT {database}"), &[])?;
            let case = format!("FLUSHDB {how}");
            for i in 0..SECRETS {
                self.run(&format!("SET key:{i}"), &[&secret(&case, i, length(i))])?;
                self.run(&format!("RPUSH list:{}", i % 3), &[&secret(&case, i, 40)])?;
                self.run(&format!("HSET hash:{} {i}", i % 3), &[&secret(&case, i, 40)])?;
            }
            self.run(&format!("FLUSHDB {how}"), &[])?;
        }
        self.run("SELECT 0", &[])
    }
}

/// The cases of which the image has secrets, with the number of places.
fn secrets_in(image: &[u8]) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for at in places(image, MARK.as_bytes()) {
        let rest = &image[at + MARK.len()..];
        let case = rest.iter().take(60).take_while(|byte| **byte != b'/').copied().collect();
        *found.entry(String::from_utf8(case).unwrap_or_default()).or_default() += 1;
    }
    found.insert("at the end".to_owned(), places(image, TAIL.as_bytes()).count());
    found
}

/// Where `wanted` begins in `bytes`.
fn places<'b>(bytes: &'b [u8], wanted: &'b [u8]) -> impl Iterator<Item = usize> + use<'b> {
    let first = wanted[0];
    let is_first = move |(at, byte): (usize, &u8)| (*byte == first).then_some(at);
    bytes.iter().enumerate().filter_map(is_first).filter(|at| bytes[*at..].starts_with(wanted))
}

/// Writes an image by `BGSAVE` or `SAVE` and returns its bytes.
fn saved(server: &Server, how: &str) -> Result<Vec<u8>> {
    match how {
        "SAVE" => drop(server.text(&["SAVE"])?),
        _ => server.bgsave_and_wait()?,
    }
    Ok(std::fs::read(server.image())?)
}

fn deleted_data_is_in_no_image(isolation: &str, pages: &str) -> TestResult {
    let mut server = server_with(isolation, pages).start()?;
    let mut cases = Cases { raw: server.raw()? };
    cases.strings()?;
    for size in SIZES {
        cases.hashes(size)?;
        cases.sets(size)?;
        cases.lists(size)?;
    }
    cases.streams(4)?;
    cases.streams(50)?;
    cases.databases()?;
    // A search that finds what is there.
    server.text(&["SET", "found", &format!("{TAIL}{}", secret("kept", 0, 40))])?;
    let only_kept = BTreeMap::from([("kept".to_owned(), 1), ("at the end".to_owned(), 1)]);
    for how in ["BGSAVE", "SAVE"] {
        let mut found = BTreeMap::new();
        let look = || {
            let image = saved(&server, how)?;
            ensure!(places(&image, KEPT.as_bytes()).count() > SECRETS * 30, "values are missing");
            found = secrets_in(&image);
            Ok(found == only_kept)
        };
        let waited = wait_until(look, DEADLINE, "images without deleted data");
        waited.with_context(|| format!("{isolation}, {how}: {found:?}"))?;
    }
    let digest = server.digest()?;
    server.kill9()?;
    server.restart()?;
    ensure!(server.digest()? == digest, "the image restores to something else");
    // What was restored writes the same.
    let found = secrets_in(&saved(&server, "BGSAVE")?);
    ensure!(found == only_kept, "after a restart: {found:?}");
    Ok(())
}

#[test]
fn deleted_data_is_in_no_image_of_the_undo_log() -> TestResult {
    deleted_data_is_in_no_image("undo-log", "small")
}

#[test]
fn deleted_data_is_in_no_image_of_kernel_cow() -> TestResult {
    deleted_data_is_in_no_image("kernel-cow", "small")
}

#[test]
fn deleted_data_is_in_no_image_of_transparent_huge_pages() -> TestResult {
    deleted_data_is_in_no_image("undo-log", "thp")
}

/// Bytes that an image may have: a tenth more than the objects, the blocks of header, index and
/// footer, and for each chunk the rest of a block.
fn most_bytes(server: &Server) -> Result<u64> {
    let live: u64 = server.info("used_memory")?.parse()?;
    let chunks: u64 = server.info("cowherd_arena_used_chunks")?.parse()?;
    Ok(live * 11 / 10 + (16 << 10) + chunks * (4096 + 32))
}

/// Fills a server, deletes most keys at random, and compares the size of images before and after.
fn sizes_follow_the_live_bytes(isolation: &str, compression: &str) -> TestResult {
    let builder = server_with(isolation, "small");
    let builder = builder.arg("--maxmemory", "64mb").arg("--maxmemory-policy", "noeviction");
    let server = builder.arg("--rdbcompression", compression).start()?;
    let mut random = Random::new(16);
    let mut raw = server.raw()?;
    let mut keys = 0_u64;
    loop {
        let len = 20 + random.below(881);
        let value = random.bytes(len);
        match raw.call(&[b"SET", format!("key:{keys}").as_bytes(), &value]) {
            Ok(_) => keys += 1,
            Err(error) => {
                ensure!(error.to_string().contains("OOM"), "{error:#}");
                break;
            }
        }
    }
    ensure!(keys > 50_000, "only {keys} keys");
    for how in ["BGSAVE", "SAVE"] {
        let (image, most) = (saved(&server, how)?.len() as u64, most_bytes(&server)?);
        ensure!(image <= most, "{how} of a full arena: {image} bytes, at most {most}");
    }
    for key in (0..keys).filter(|_| random.below(100) > 0) {
        raw.call(&["DEL", &format!("key:{key}")])?;
    }
    let left = server.text(&["DBSIZE"])?;
    for how in ["BGSAVE", "SAVE"] {
        let (image, most) = (saved(&server, how)?.len() as u64, most_bytes(&server)?);
        ensure!(image <= most, "{how} of {left} keys: {image} bytes, at most {most}");
        ensure!(image < 4 << 20, "{how} of {left} keys: {image} bytes");
    }
    Ok(())
}

#[test]
fn sizes_follow_the_live_bytes_in_every_way() -> TestResult {
    for isolation in ISOLATIONS {
        for compression in ["no", "yes"] {
            sizes_follow_the_live_bytes(isolation, compression)
                .with_context(|| format!("{isolation}, compression {compression}"))?;
        }
    }
    Ok(())
}

#[test]
fn an_empty_server_writes_a_small_image() -> TestResult {
    for compression in ["no", "yes"] {
        let server = Server::builder().arg("--rdbcompression", compression).start()?;
        server.text(&["SET", "key", "value"])?;
        let image = saved(&server, "BGSAVE")?.len();
        ensure!(image <= 20 << 10, "compression {compression}: {image} bytes");
    }
    Ok(())
}
