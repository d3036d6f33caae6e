//! Timing of commands: per-command counters, the longest command of a checkpoint, the slow log and
//! the latency monitor.

use std::time::Duration;

use crate::clients::Session;
use crate::clock;
use crate::commands::{CommandFlags, CommandRow, is_secret};
use crate::telemetry::{LatencyEvent, LongestCommand, Recorder, SlowCommand};
use cowherd_arena::{StallTimes, take_stall_times};
use cowherd_resp::Args;

/// Records a command that ran from `begun` to now, and sets `begun` to now, which is when the next
/// command begins. Returns the write-barrier stalls of the command: `attributed`, which were taken
/// already by the commands of a transaction, and those of this thread since.
#[inline]
pub(super) fn record_command(
    recorder: &Recorder,
    session: &Session,
    row: &CommandRow,
    args: &Args<'_>,
    begun: &mut u64,
    failed: bool,
    attributed: StallTimes,
) -> StallTimes {
    let ended = clock::monotonic_ns();
    let begun_ns = std::mem::replace(begun, ended);
    let nanos = ended.saturating_sub(begun_ns);
    let phase = recorder.command(row.number, nanos, failed);
    let mut stalls = attributed;
    if phase.is_checkpoint() {
        stalls = sum_stalls(stalls, take_stall_times());
        // A client that runs SAVE, BGSAVE or SHUTDOWN expects to wait for the checkpoint.
        if !row.command.flags.contains(CommandFlags::ADMIN) {
            let stall_nanos = stalls.nanoseconds;
            let longest = LongestCommand { nanos, begun_ns, stall_nanos, command: row.number };
            recorder.command_in_checkpoint(phase, longest);
        }
    }
    if nanos > recorder.telemetry().slow_limit() {
        record_slow_command(recorder, session, row, args, nanos, stalls);
    }
    stalls
}

pub(super) fn sum_stalls(a: StallTimes, b: StallTimes) -> StallTimes {
    StallTimes {
        faults: a.faults + b.faults,
        nanoseconds: a.nanoseconds + b.nanoseconds,
        longest: a.longest.max(b.longest),
        captured: a.captured || b.captured,
    }
}

#[cold]
fn record_slow_command(
    recorder: &Recorder,
    session: &Session,
    row: &CommandRow,
    args: &Args<'_>,
    nanos: u64,
    stalls: StallTimes,
) {
    let at_ms = clock::wall_ms();
    // CLIENT LIST of another thread may hold the lock: then the entry has no name.
    let names = session.client.names.try_lock();
    let slow = SlowCommand {
        at_ms,
        nanos,
        stall_nanos: stalls.nanoseconds,
        peer: &session.client.peer,
        name: names.as_ref().map_or("", |names| &names.name),
    };
    let shown = (0..args.len()).map(|i| match is_secret(row, args, i) {
        true => b"(redacted)".as_slice(),
        false => args.at(i),
    });
    // EXEC itself has no entry: each command of the transaction has its own.
    if !row.command.flags.contains(CommandFlags::RUNS_QUEUE) {
        recorder.slow(&slow, shown);
    }
    let fast = row.command.flags.contains(CommandFlags::FAST);
    let event = if fast { LatencyEvent::FastCommand } else { LatencyEvent::Command };
    recorder.latency_event(event, at_ms, Duration::from_nanos(nanos));
    let event = if stalls.captured { LatencyEvent::UndoCapture } else { LatencyEvent::CowFault };
    recorder.latency_event(event, at_ms, Duration::from_nanos(stalls.longest));
}
