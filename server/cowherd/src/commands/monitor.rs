//! MONITOR. `engine/monitor` decides what monitors are shown, `clients/monitors` shows it.

use crate::clients::BlockingMode;

use super::call::Call;
use super::error_reply::{CommandResult, ErrorReply};
use super::table::{Command, CommandFlags, CommandGroup};

const ADMIN: CommandFlags = CommandFlags::ADMIN
    .with(CommandFlags::NOSCRIPT)
    .with(CommandFlags::LOADING)
    .with(CommandFlags::STALE);

pub(super) const COMMANDS: &[Command] = &[Command::new("monitor", 1, ADMIN, monitor).doc(
    CommandGroup::Server,
    "1.0.0",
    "Shows the requests of all clients as they run.",
)];

/// A client that is a monitor already gets no reply.
fn monitor(call: &mut Call<'_>) -> CommandResult {
    if call.blocking_mode == BlockingMode::Denied {
        return Err(ErrorReply::new("ERR MONITOR isn't allowed for DENY BLOCKING client"));
    }
    if !call.session.is_monitor {
        call.shared.clients.monitors.begin(call.session);
        call.reply.ok();
    }
    Ok(())
}
