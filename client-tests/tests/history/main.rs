//! Linearizability of concurrent histories, and exactness of every image.
//!
//! Clients send random commands of all types to a few keys, block on keys, scan, rename large
//! values, run transactions and scripts, while images are taken, memory runs out and the
//! server is killed.
//! Each reply is recorded with the interval in which its command took effect. Then:
//!
//! - the history of each group of keys is linearizable: some order of its commands that respects
//!   the intervals gives every reply in a sequential model;
//! - each image, restored by a second server, holds the keys of all groups as they were at one
//!   instant between BGSAVE and its reply, and has the digest that was computed at the fork;
//! - a scan returns each element that existed throughout, and none that never existed meanwhile;
//! - no command stays blocked on a key that has elements.
//!
//! | module | content |
//! |---|---|
//! | `model` | the effect of each command when nothing else runs |
//! | `checker` | linearizability of one group, and where an image cuts its history |
//! | `cuts` | one instant for all groups |
//! | `workload` | random requests |
//! | `load`, `client`, `rendezvous` | the threads of a round |
//! | `images`, `contents` | BGSAVE, restore, and reading all keys |
//! | `scans` | the rule for SCAN and its kin |
//! | `round`, `verifier`, `run_counts`, `report` | a session with a server, and all its checks |
//! | `simulation` | histories without a server, and altered replies, to test the checker |
//!
//! `COWHERD_HISTORY_SECONDS` repeats each test with new seeds for so many seconds.
//! `COWHERD_TEST_SEED` repeats the requests and the options of a session, though not its races.

mod checker;
mod client;
mod contents;
mod cuts;
mod history;
mod images;
mod load;
mod model;
mod rendezvous;
mod reply;
mod report;
mod round;
mod run_counts;
mod scans;
mod simulation;
mod verifier;
mod workload;

use anyhow::{Context, Result, ensure};
use checker::{Checker, Rules};
use client_tests::hugepages::{self, PageSize};
use client_tests::random::{self, Random};
use client_tests::server::{Server, ServerBuilder};
use client_tests::{TestResult, skip};
use cuts::Allowed;
use history::{Event, History};
use round::{Plan, Session};
use run_counts::RunCounts;
use std::time::{Duration, Instant};
use workload::Family;

/// Rounds of a session.
const ROUNDS: u64 = 6;
/// Batches of requests of each client in a round.
const BATCHES: u64 = 1_000;
/// Every so many rounds end with SIGKILL.
const KILL_EVERY: u64 = 3;
const BLOCKING_CLIENTS: usize = 3;

/// Runs one session, or as many as fit into `COWHERD_HISTORY_SECONDS`.
fn run(plan: &Plan, isolation: &str, pages: &[&str], more: &[(&str, &str)]) -> Result<RunCounts> {
    let seconds = std::env::var("COWHERD_HISTORY_SECONDS").ok();
    let seconds = seconds.map(|text| text.parse().context(text)).transpose()?;
    let (start, time) = (Instant::now(), Duration::from_secs(seconds.unwrap_or_default()));
    let (mut seed, mut total) = (random::seed(), RunCounts::default());
    loop {
        let builder =
            more.iter().fold(builder(seed, isolation, pages), |builder, (name, value)| {
                builder.arg(name, value)
            });
        total += run_session(plan, builder, seed).with_context(|| format!("seed {seed}"))?;
        if start.elapsed() >= time {
            break;
        }
        seed = seed.wrapping_add(1);
        eprintln!("COWHERD_TEST_SEED={seed}");
    }
    eprintln!("{}: {total:?}", plan.name);
    Ok(total)
}

fn run_session(plan: &Plan, builder: ServerBuilder, seed: u64) -> Result<RunCounts> {
    let mut session = Session::start(plan.clone(), builder, seed)?;
    for round in 1..=ROUNDS {
        // Eviction may start anew before the restarted server is read.
        session.round(round % KILL_EVERY == 0 && !plan.rules.may_evict)?;
    }
    Ok(session.verifier.counts)
}

/// A server with low limits of compact encodings, so that values are converted all the time. The
/// seed chooses the options that no reply depends on.
fn builder(seed: u64, isolation: &str, pages: &[&str]) -> ServerBuilder {
    let mut random = Random::new(seed);
    let mut one = |choices: &[&str]| {
        let at = usize::try_from(random.below(choices.len() as u64)).unwrap_or_default();
        choices[at].to_owned()
    };
    Server::builder()
        .arg("--checkpoint-isolation", isolation)
        .arg("--checkpoint-undo-block", &one(&["256", "512", "1024", "4096"]))
        .arg("--arena-pages", &one(pages))
        .arg("--maxmemory", "128mb")
        // All of the data may change while a slow machine writes an image.
        .arg("--checkpoint-undo-limit", "256mb")
        .arg("--threads", &one(&["2", "4", "4", "6"]))
        .arg("--list-max-listpack-size", "16")
        .arg("--hash-max-listpack-entries", "16")
        .arg("--set-max-listpack-entries", "16")
        .arg("--zset-max-listpack-entries", "16")
        .arg("--stream-node-max-entries", "10")
        // Objects move all the time.
        .arg("--active-defrag-ignore-bytes", "1")
        .arg("--active-defrag-threshold-lower", "0")
        .arg("--active-defrag-cycle-min", "50")
        .arg("--active-defrag-cycle-max", "50")
}

/// All groups, without eviction.
fn everything(name: &'static str, isolation: &str, pages: &[&str]) -> TestResult {
    let (rules, groups) = (Rules::default(), workload::groups());
    let plan = Plan { name, rules, batches: BATCHES, blocking_clients: BLOCKING_CLIENTS, groups };
    let counts = run(&plan, isolation, pages, &[])?;
    ensure!(counts.images > 0 && counts.scans > 0 && counts.restarts > 0, "{counts:?}");
    ensure!(counts.served > 0 && counts.aborted > 0 && counts.scripts > 0, "{counts:?}");
    Ok(())
}

fn evicting(policy: &'static str) -> TestResult {
    let (rules, mut groups) = (Rules { may_evict: true }, workload::groups());
    // Eviction of an account changes the sum.
    groups.retain(|group| group.family != Family::Bank);
    let plan =
        Plan { name: policy, rules, batches: BATCHES, blocking_clients: BLOCKING_CLIENTS, groups };
    let memory =
        [("--maxmemory", "32mb"), ("--maxmemory-policy", policy), ("--maxmemory-samples", "1")];
    let counts = run(&plan, "undo-log", &["small"], &memory)?;
    ensure!(counts.images > 0 && counts.evicted, "{counts:?}");
    Ok(())
}

#[test]
fn every_reply_and_image_is_explained_with_an_undo_log() -> TestResult {
    everything("undo-log", "undo-log", &["small", "small", "thp"])
}

#[test]
fn every_reply_and_image_is_explained_with_copy_on_write() -> TestResult {
    everything("kernel-cow", "kernel-cow", &["small", "small", "thp"])
}

#[test]
fn every_reply_and_image_is_explained_with_an_undo_log_on_pages_of_2_mib() -> TestResult {
    match hugepages::claim(PageSize::Huge2M, 64)? {
        Ok(_claim) => everything("undo-log-2mb", "undo-log", &["huge-2mb"]),
        Err(reason) => skip!("{reason}"),
    }
}

#[test]
fn every_reply_and_image_is_explained_with_copy_on_write_of_pages_of_2_mib() -> TestResult {
    // Copy-on-write may need every page of the arena twice.
    match hugepages::claim(PageSize::Huge2M, 2 * 64 + 8)? {
        Ok(_claim) => everything("kernel-cow-2mb", "kernel-cow", &["huge-2mb"]),
        Err(reason) => skip!("{reason}"),
    }
}

#[test]
fn every_reply_and_image_is_explained_while_random_keys_are_evicted() -> TestResult {
    evicting("allkeys-random")
}

#[test]
fn every_reply_and_image_is_explained_while_unused_keys_are_evicted() -> TestResult {
    evicting("allkeys-lru")
}

/// One round that is recorded but not checked.
fn record(name: &'static str, blocking_clients: usize) -> Result<Vec<History>> {
    let (rules, groups, seed) = (Rules::default(), workload::groups(), random::seed());
    let plan = Plan { name, rules, batches: BATCHES, blocking_clients, groups };
    Session::start(plan, builder(seed, "undo-log", &["small"]), seed)?.record()
}

/// A recorded history with one reply altered is rejected, at that reply.
#[test]
fn an_altered_reply_has_no_explanation() -> TestResult {
    const ALTERED: usize = 12;
    const TRIES: usize = 200;
    let mut random = Random::new(random::seed());
    // A blocked command overlaps all others of its group.
    for history in record("altered", 0)? {
        ensure!(Checker::new(Rules::default()).check(&history).is_ok(), "a correct history");
        let candidates = simulation::alone(&history);
        ensure!(!candidates.is_empty(), "every operation overlaps another one");
        let mut altered = 0;
        for _ in 0..TRIES {
            let number = candidates[usize::try_from(random.below(candidates.len() as u64))?];
            let mut wrong = history.clone();
            let Some((_, reply)) = &mut wrong.operations[number].answer else { continue };
            *reply = simulation::altered(&mut random, reply);
            if altered == ALTERED || !is_observable(&wrong, number) {
                continue;
            }
            let result = Checker::new(Rules::default()).check(&wrong);
            let found = result.err().map(|violation| violation.event);
            let expected = Some(Event::Answered(number));
            ensure!(found == expected, "{found:?}, not {}", wrong.operations[number]);
            altered += 1;
        }
        ensure!(altered == ALTERED, "only {altered} altered replies are observable");
    }
    Ok(())
}

/// Whether the history before an operation that overlaps no other determines the reply.
fn is_observable(history: &History, number: usize) -> bool {
    let operation = &history.operations[number];
    let mut before = history.clone();
    before.operations.retain(|other| other.invoked < operation.invoked);
    before.cuts.retain(|cut| cut.to < operation.invoked);
    let mut checker = Checker::new(Rules::default());
    let chooses = operation.request.to_string().contains("SRANDMEMBER");
    let follows = !chooses && operation.request.is_deterministic();
    follows && checker.check(&before).is_ok() && checker.states().len() == 1
}

/// An image that holds one group as of a later image is rejected.
#[test]
fn an_altered_image_has_no_explanation() -> TestResult {
    let histories = record("images", BLOCKING_CLIENTS)?;
    let (mut changed, mut explained) = (0, 0);
    for (number, history) in histories.iter().enumerate() {
        let mut wrong = history.clone();
        let later = wrong.cuts.last().context("no cut")?.keys.clone();
        if std::mem::replace(&mut wrong.cuts[0].keys, later) == wrong.cuts[0].keys {
            continue;
        }
        changed += 1;
        let mut allowed = Vec::new();
        for (other, history) in histories.iter().enumerate() {
            let history = if other == number { &wrong } else { history };
            match Checker::new(Rules::default()).check(history) {
                Ok(placed) => {
                    let stretches = placed[0].stretches.clone();
                    allowed.push(Allowed { group: "", stretches });
                }
                Err(violation) => {
                    ensure!(other == number, "a correct history");
                    ensure!(violation.event == Event::CutClosed(0), "{:?}", violation.event);
                }
            }
        }
        let is_whole = allowed.len() == histories.len() && cuts::one_instant(&allowed).is_ok();
        explained += u32::from(is_whole);
    }
    ensure!(changed > 0, "no group has changed between the images");
    // A group may have been in its later state for a moment around the first image too.
    ensure!(explained * 4 <= changed, "{explained} of {changed} images of two instants");
    Ok(())
}
