use std::collections::HashSet;
use std::sync::atomic::AtomicBool;
use std::thread;

use super::super::blocks::FINE_BYTES;
use super::super::records::MIN_LIMIT;
use super::*;
use crate::layout::CHUNK_SIZE;

const BLOCK: u64 = 512;
/// Slots of whole blocks in a log of the least size.
const SLOTS: u64 = (MIN_LIMIT - 2 * FIRST) / (SLOT_HEAD + BLOCK);

fn log(limit: u64) -> UndoLog {
    UndoLog::new(limit, 8, Blocks::of(BLOCK)).unwrap()
}

/// Where block `number` of a chunk stands, none of the fine ones.
fn block(chunk: u32, number: u64) -> u64 {
    ChunkIndex(chunk).start() + FINE_BYTES.next_multiple_of(BLOCK) + number * BLOCK
}

fn capture(log: &UndoLog, at: u64, byte: u8) -> Result<(), NotCaptured> {
    let bytes = [byte; BLOCK as usize];
    // SAFETY: a block of bytes that no thread changes.
    unsafe { log.capture(at, bytes.as_ptr(), BLOCK) }
}

/// The slots in a stack, while no thread uses the log.
fn stacked(log: &UndoLog, class: SlotClass) -> Vec<u64> {
    let mut slots = Vec::new();
    while let Some(slot) = log.pop_free(class) {
        slots.push(slot);
    }
    slots
}

/// Ends a loop when it goes, also by a panic.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[test]
fn a_log_is_full_at_its_limit_and_no_sooner() {
    let log = log(0);
    for number in 0..SLOTS {
        assert_eq!(capture(&log, block(0, number), 1), Ok(()), "record {number} of {SLOTS}");
    }
    assert!(log.records().above_half() && log.allocated() <= log.limit());
    assert_eq!(capture(&log, block(0, SLOTS), 1), Err(NotCaptured::Full));
    // The child has chunk 1: there is nothing to capture, so nothing lacks room.
    log.records().restore(ChunkIndex(1), &mut []);
    assert_eq!(capture(&log, block(1, 0), 1), Err(NotCaptured::Closed));
}

#[test]
fn records_of_a_chunk_that_is_written_are_taken_again() {
    let log = log(0);
    let mut copy = vec![0; to_index(CHUNK_SIZE)];
    for chunk in 0..8 {
        for number in 0..SLOTS {
            assert_eq!(capture(&log, block(chunk, number), 1 + chunk as u8), Ok(()));
        }
        copy.fill(0);
        assert_eq!(log.records().restore(ChunkIndex(chunk), &mut copy), SLOTS);
        let restored = copy.iter().filter(|byte| **byte == 1 + chunk as u8).count() as u64;
        assert_eq!(restored, SLOTS * BLOCK);
        // Closing it again changes nothing.
        assert_eq!(log.records().restore(ChunkIndex(chunk), &mut copy), 0);
        log.reclaim();
    }
    assert_eq!((log.reused(), log.allocated()), (7 * SLOTS, SLOTS * (SLOT_HEAD + BLOCK)));
}

#[test]
fn what_is_ready_stays_within_the_limit() {
    for limit in [MIN_LIMIT, 3 << 20, 64 << 20] {
        let log = log(limit);
        let mut last = 0;
        for number in 0.. {
            log.prefault();
            assert!(log.committed() >= last && log.committed() <= limit, "{}", log.committed());
            last = log.committed();
            if capture(&log, block((number / 3000) as u32 % 8, number % 3000), 7).is_err() {
                break;
            }
        }
        log.reset();
        let kept = log.committed();
        assert!(kept <= limit / 2 && kept <= AHEAD[0] + AHEAD[1], "{kept} of {limit}");
        assert_eq!((log.allocated(), log.reused()), (0, 0));
        assert_eq!(capture(&log, block(0, 0), 7), Ok(()));
    }
}

/// Threads that take slots, write into them, and give them back: no slot has two owners.
#[test]
fn a_slot_has_one_owner() {
    const THREADS: u64 = 4;
    let log = log(0);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let log = &log;
            scope.spawn(move || {
                for round in 0..20_000 {
                    let class = SlotClass::ALL[(round % 2) as usize];
                    let Some(slot) = log.take(class) else { panic!("no slot") };
                    let mine = thread << 32 | round;
                    log.records().word(slot + 8).store(mine, Relaxed);
                    if round % 16 == 0 {
                        thread::yield_now();
                    }
                    assert_eq!(
                        log.records().word(slot + 8).load(Relaxed),
                        mine,
                        "slot {slot:#x} is shared"
                    );
                    log.push_free(class, slot);
                }
            });
        }
    });
    let slots = SlotClass::ALL.map(|class| stacked(&log, class));
    let different: HashSet<u64> = slots.iter().flatten().copied().collect();
    assert_eq!(different.len(), slots[0].len() + slots[1].len());
    assert!(slots.iter().all(|stack| stack.len() as u64 <= THREADS), "{slots:?}");
    let bytes = slots[0].len() as u64 * log.records().slot_bytes(SlotClass::Fine)
        + slots[1].len() as u64 * log.records().slot_bytes(SlotClass::Whole);
    assert_eq!(bytes, log.allocated(), "a slot was lost");
}

/// Writers capture while a child closes chunks and the parent takes their records back: each slot
/// is in one place at the end, and each record that was put back was whole.
#[test]
fn no_slot_is_lost_between_writers_child_and_parent() {
    for _ in 0..20 {
        let log = log(8 << 20);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let writers: Vec<_> = (0..3_u64)
                .map(|writer| {
                    let log = &log;
                    // Blocks of its own in each chunk, as locks have it.
                    scope.spawn(move || {
                        let captures = (0..8).flat_map(|chunk| (0..200).map(move |i| (chunk, i)));
                        for (chunk, i) in captures {
                            let at = block(chunk, i * 3 + writer);
                            let outcome = capture(log, at, (at / BLOCK % 251) as u8);
                            assert_ne!(outcome, Err(NotCaptured::Full));
                        }
                    })
                })
                .collect();
            scope.spawn(|| {
                while !done.load(Relaxed) {
                    log.reclaim();
                    thread::yield_now();
                }
            });
            let _stop = Stop(&done);
            let mut copy = vec![0; to_index(CHUNK_SIZE)];
            for chunk in 0..8 {
                thread::yield_now();
                copy.fill(255);
                log.records().restore(ChunkIndex(chunk), &mut copy);
                for (i, bytes) in copy.chunks(BLOCK as usize).enumerate() {
                    let right = ((ChunkIndex(chunk).start() / BLOCK + i as u64) % 251) as u8;
                    let whole = bytes.iter().all(|byte| *byte == right);
                    assert!(whole || bytes.iter().all(|byte| *byte == 255), "block {i} is torn");
                }
            }
            writers.into_iter().for_each(|writer| writer.join().unwrap());
        });
        log.reclaim();
        let slots = stacked(&log, SlotClass::Whole);
        let different: HashSet<u64> = slots.iter().copied().collect();
        assert_eq!(different.len(), slots.len());
        assert_eq!(slots.len() as u64 * (SLOT_HEAD + BLOCK), log.allocated(), "a slot was lost");
    }
}
