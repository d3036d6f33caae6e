//! Load against a stand-in server that stalls for a known time: the latency of every request due
//! during the stall must show the stall, which a closed-loop load generator would hide.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cowherd_resp::{Reply, parse_reply};

use super::load::{LoadPlan, run};
use super::results::Round;
use super::workload::{KeyDistribution, RequestGenerator, RequestMix};

const STALL: Duration = Duration::from_millis(50);
const RATE: u64 = 2000;
const CONNECTIONS: usize = 4;
/// Longer than the phase before the checkpoint.
const AFTER: Duration = Duration::from_millis(400);

/// State of the stand-in server.
#[derive(Default)]
struct Standin {
    /// Locked during each command, so that a stall delays all connections.
    command: Mutex<()>,
    /// Actual duration of the stall in nanoseconds.
    stalled: AtomicU64,
    /// Number of INFO commands so far.
    infos: AtomicU64,
    /// Whether to answer each SET with an error.
    refusing: bool,
}

/// Starts a server that answers `+OK` to all commands, stalls at BGSAVE, and reports the end of the
/// checkpoint in the third INFO.
fn serve(standin: Arc<Standin>) -> std::net::SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let standin = standin.clone();
            std::thread::spawn(move || answer(stream, &standin));
        }
    });
    address
}

fn answer(mut stream: TcpStream, standin: &Standin) {
    let mut input = Vec::new();
    let mut block = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut block) {
        input.extend_from_slice(&block[..count]);
        let mut output = Vec::new();
        // A request has the form of an array reply.
        while let Ok(Some((Reply::Array(words), length))) = parse_reply(&input) {
            let _exclusive = standin.command.lock().unwrap();
            let Reply::Bulk(name) = words[0] else { return };
            match name {
                b"BGSAVE" => {
                    let begun = Instant::now();
                    std::thread::sleep(STALL);
                    let took = u64::try_from(begun.elapsed().as_nanos()).unwrap();
                    standin.stalled.store(took, Ordering::SeqCst);
                    output.extend_from_slice(b"+Background saving started\r\n");
                }
                b"INFO" => {
                    let running = standin.infos.fetch_add(1, Ordering::SeqCst) < 2;
                    let text = format!("rdb_bgsave_in_progress:{}\r\n", u8::from(running));
                    let _ = write!(output, "${}\r\n{text}\r\n", text.len());
                }
                b"SET" if standin.refusing => output.extend_from_slice(b"-OOM no room\r\n"),
                _ => output.extend_from_slice(b"+OK\r\n"),
            }
            input.drain(..length);
        }
        if stream.write_all(&output).is_err() {
            return;
        }
    }
}

fn plan(address: std::net::SocketAddr) -> LoadPlan {
    LoadPlan {
        address,
        password: None,
        process: None,
        connections: CONNECTIONS,
        rate: RATE,
        warm_up: Duration::from_millis(50),
        duration: Duration::from_millis(200),
        after: AFTER,
        timeout: Duration::from_secs(20),
        longest_save: Duration::from_secs(60),
    }
}

fn measured(standin: Standin) -> (Round, Duration) {
    let standin = Arc::new(standin);
    let address = serve(standin.clone());
    let mut requests =
        RequestGenerator::new(100, 16, RequestMix { set: 1, get: 0 }, KeyDistribution::Uniform);
    let record = run(&plan(address), &mut requests, |_| ()).unwrap();
    let answered = record.samples.len() as u64;
    let failed = record.errors.values().sum::<u64>() + record.unanswered;
    assert_eq!(answered + failed, record.requests, "each request ends in one way");
    let stalled = standin.stalled.load(Ordering::SeqCst);
    (Round::of(record), Duration::from_nanos(stalled))
}

#[test]
fn a_stall_shows_in_every_request_that_was_due_meanwhile() {
    let (round, stalled) = measured(Standin::default());
    let during = &round.phases[1];
    let gap_us = 1e6 / RATE as f64;
    let stalled_us = stalled.as_secs_f64() * 1e6;
    assert!(stalled >= STALL);
    assert!(round.bgsave_reply_us >= stalled_us, "{} {stalled_us}", round.bgsave_reply_us);
    // The first request due in the stall was delayed by nearly all of the stall.
    assert!(during.max_us >= stalled_us - 2.0 * gap_us, "{during:?} {stalled_us}");
    // Half of the requests due in the stall were delayed by at least half of the stall. These are
    // far more requests than connections; a closed-loop generator would have sent one per
    // connection.
    let delayed = round.phases[1].curve.iter().filter(|(_, us)| *us >= stalled_us / 2.0);
    let share = delayed.map(|(share, _)| *share).fold(0.0, f64::max);
    let expected = stalled_us / 2.0 / gap_us;
    let counted = share * during.requests as f64;
    // A step of the curve is a factor of 1.26.
    assert!(counted >= expected / 1.3, "{counted} of {expected}: {during:?}");
    assert!(counted > 5.0 * CONNECTIONS as f64);
    assert_eq!(round.failures(), 0);
    // No due request is omitted, however late.
    let after = &round.phases[2];
    assert_eq!(after.requests, RATE * 4 / 10, "{after:?}");
    // The load sends BGSAVE once `duration` has passed, however late it notices.
    assert!(round.phases[0].requests >= RATE * 2 / 10 - CONNECTIONS as u64, "{round:?}");
}

#[test]
fn errors_are_counted_by_text() {
    let (round, _) = measured(Standin { refusing: true, ..Standin::default() });
    assert_eq!(round.errors.get("OOM no room"), Some(&round.requests), "{:?}", round.errors);
    assert_eq!(round.phases.iter().map(|phase| phase.requests).sum::<u64>(), 0);
}
