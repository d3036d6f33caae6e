//! A command was slow: tells the slow log and the latency monitor.

use std::time::Duration;

use crate::clients::Session;
use crate::clock;
use crate::commands::{CommandFlags, CommandRow, is_secret};
use crate::telemetry::{LatencyEvent, Recorder, SlowCommand};
use cowherd_arena::StallTimes;
use cowherd_resp::Args;

/// Notes a command that took `nanos` nanoseconds; `stalls` is what copy-on-write took of them, or
/// the undo log.
#[cold]
pub(super) fn report(
    recorder: &Recorder,
    session: &Session,
    row: &CommandRow,
    args: &Args<'_>,
    nanos: u64,
    stalls: StallTimes,
) {
    let at_ms = clock::wall_ms();
    // Somebody else may be reading the names: then the entry has none.
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
    // Those whose queue it runs are noted one by one.
    if !row.command.flags.contains(CommandFlags::RUNS_QUEUE) {
        recorder.slow(&slow, shown);
    }
    let fast = row.command.flags.contains(CommandFlags::FAST);
    let event = if fast { LatencyEvent::FastCommand } else { LatencyEvent::Command };
    recorder.latency_event(event, at_ms, Duration::from_nanos(nanos));
    let event = if stalls.captured { LatencyEvent::UndoCapture } else { LatencyEvent::CowFault };
    recorder.latency_event(event, at_ms, Duration::from_nanos(stalls.longest));
}
