//! SAVE, BGSAVE and SHUTDOWN: their arguments. The engine executes them and replies. BGREWRITEAOF.

use super::call::{Call, CheckpointAction, Effect, ShutdownOptions};
use super::error_reply::{CommandResult, ErrorReply};
use super::table::{Command, CommandFlags, CommandGroup, LockScope};

const ADMIN: CommandFlags = CommandFlags::ADMIN.with(CommandFlags::NOSCRIPT);
const SAVE: CommandFlags = ADMIN.with(CommandFlags::NO_ASYNC_LOADING);
const STOP: CommandFlags = ADMIN
    .with(CommandFlags::LOADING)
    .with(CommandFlags::STALE)
    .with(CommandFlags::NO_MULTI)
    .with(CommandFlags::ALLOW_BUSY)
    .with(CommandFlags::UNPAUSED);

const GROUP: CommandGroup = CommandGroup::Server;

pub(super) const COMMANDS: &[Command] = &[
    Command::new("save", 1, SAVE.with(CommandFlags::NO_MULTI), save)
        .doc(GROUP, "1.0.0", "Writes a checkpoint while all clients wait.")
        .locking(LockScope::Handler),
    Command::new("bgsave", -1, SAVE, bgsave)
        .doc(GROUP, "1.0.0", "Writes a checkpoint in the background.")
        .syntax("operation:[SCHEDULE@3.2.2|CANCEL]")
        .locking(LockScope::Handler),
    Command::new("bgrewriteaof", 1, SAVE, rewrite_log).doc(GROUP, "1.0.0", "Not supported."),
    Command::new("shutdown", -1, STOP, shutdown)
        .doc(GROUP, "1.0.0", "Saves, if save points are set, and stops the server.")
        .syntax("save-selector:[NOSAVE|SAVE] [NOW@7.0.0] [FORCE@7.0.0] [ABORT@7.0.0]")
        .locking(LockScope::Handler),
];

fn save(call: &mut Call<'_>) -> CommandResult {
    call.effect = Effect::Checkpoint(CheckpointAction::Foreground);
    Ok(())
}

fn bgsave(call: &mut Call<'_>) -> CommandResult {
    call.effect = Effect::Checkpoint(match call.args.len() {
        1 => CheckpointAction::Background { schedule: false },
        2 if call.is(1, "schedule") => CheckpointAction::Background { schedule: true },
        2 if call.is(1, "cancel") => CheckpointAction::Cancel,
        _ => return Err(ErrorReply::SYNTAX),
    });
    Ok(())
}

fn rewrite_log(_call: &mut Call<'_>) -> CommandResult {
    Err(ErrorReply::new(
        "ERR append-only files are not supported: use BGSAVE, which writes a checkpoint, and the \
         directive save, which schedules checkpoints",
    ))
}

fn shutdown(call: &mut Call<'_>) -> CommandResult {
    let mut wanted = ShutdownOptions::default();
    let (mut save, mut no_save, mut abort, mut others) = (false, false, false, false);
    for i in 1..call.args.len() {
        match () {
            () if call.is(i, "save") => save = true,
            () if call.is(i, "nosave") => no_save = true,
            () if call.is(i, "force") => wanted.force = true,
            () if call.is(i, "abort") => abort = true,
            // Without replicas, there is nothing to wait for.
            () if call.is(i, "now") => {}
            () => return Err(ErrorReply::SYNTAX),
        }
        others |= !call.is(i, "abort");
    }
    if (save && no_save) || (abort && others) {
        return Err(ErrorReply::SYNTAX);
    }
    if abort {
        return Err(ErrorReply::new("ERR No shutdown in progress."));
    }
    wanted.save = match (save, no_save) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => None,
    };
    call.effect = Effect::Shutdown(wanted);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::testing::TestServer;

    fn effect(line: &str) -> Effect {
        let server = TestServer::new();
        assert_eq!(server.run(line), "", "{line}: the engine writes the reply");
        server.effect.take()
    }

    fn error(line: &str) -> String {
        let server = TestServer::new();
        let reply = server.run(line);
        assert_eq!(server.effect.take(), Effect::None, "{line}");
        reply
    }

    #[test]
    fn saves_become_effects() {
        assert_eq!(effect("SAVE"), Effect::Checkpoint(CheckpointAction::Foreground));
        assert_eq!(
            effect("BGSAVE"),
            Effect::Checkpoint(CheckpointAction::Background { schedule: false })
        );
        assert_eq!(
            effect("bgsave SCHEDULE"),
            Effect::Checkpoint(CheckpointAction::Background { schedule: true })
        );
        assert_eq!(effect("BGSAVE cancel"), Effect::Checkpoint(CheckpointAction::Cancel));
        assert_eq!(error("SAVE x"), "-ERR wrong number of arguments for 'save' command\r\n");
        for line in ["BGSAVE foo", "BGSAVE SCHEDULE x"] {
            assert_eq!(error(line), "-ERR syntax error\r\n", "{line}");
        }
    }

    #[test]
    fn there_is_no_log_to_rewrite() {
        assert!(error("BGREWRITEAOF").starts_with("-ERR append-only files are not supported: use"));
    }

    #[test]
    fn shutdown_parses_save_and_nosave() {
        let stop = |save, force| Effect::Shutdown(ShutdownOptions { save, force });
        assert_eq!(effect("SHUTDOWN"), stop(None, false));
        assert_eq!(effect("SHUTDOWN NOSAVE now"), stop(Some(false), false));
        assert_eq!(effect("SHUTDOWN force SAVE"), stop(Some(true), true));
        assert_eq!(effect("SHUTDOWN now NOW"), stop(None, false));
    }

    #[test]
    fn shutdown_refuses_contradictions() {
        for line in ["SHUTDOWN foo", "SHUTDOWN SAVE NOSAVE", "SHUTDOWN NOW ABORT"] {
            assert_eq!(error(line), "-ERR syntax error\r\n", "{line}");
        }
        for line in ["SHUTDOWN ABORT", "SHUTDOWN abort ABORT"] {
            assert_eq!(error(line), "-ERR No shutdown in progress.\r\n", "{line}");
        }
    }
}
