//! Scripts and functions: EVAL and its kin, FCALL, SCRIPT, FUNCTION.
//!
//! The handlers check the arguments. What needs an interpreter, running and compiling, is an
//! [`Effect`] for the engine.

mod function;
mod script;

use crate::scripting::Sha;

use super::call::{Call, Effect};
use super::error_reply::{CommandResult, ErrorReply};
use super::table::{Command, CommandFlags, CommandGroup, KeyPositions, KeyUse, LockScope};

const GROUP: CommandGroup = CommandGroup::Scripting;

const SCRIPT: CommandFlags =
    CommandFlags::NOSCRIPT.with(CommandFlags::STALE).with(CommandFlags::RUNS_SCRIPT);
const READ_ONLY: CommandFlags = SCRIPT.with(CommandFlags::READONLY);

const NOT_NEGATIVE: ErrorReply = ErrorReply::new("ERR Number of keys can't be negative");
const TOO_MANY_KEYS: ErrorReply =
    ErrorReply::new("ERR Number of keys can't be greater than number of args");
const BAD_KEY_COUNT: ErrorReply = ErrorReply::new("ERR Bad number of keys provided");

/// A request to run a script, with the number of its keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScriptCall {
    /// EVAL: argument 1 is the text.
    Eval {
        /// Number of keys.
        keys: usize,
        /// Whether it must not write.
        is_read_only: bool,
    },
    /// EVALSHA: argument 1 is the SHA-1.
    EvalSha {
        /// Number of keys.
        keys: usize,
        /// Whether it must not write.
        is_read_only: bool,
    },
    /// FCALL: argument 1 is the name.
    Function {
        /// Number of keys.
        keys: usize,
        /// Whether it must not write.
        is_read_only: bool,
    },
}

impl ScriptCall {
    /// Number of keys.
    pub const fn key_count(self) -> usize {
        match self {
            Self::Eval { keys, .. } | Self::EvalSha { keys, .. } | Self::Function { keys, .. } => {
                keys
            }
        }
    }

    /// Whether the script must not write.
    pub const fn is_read_only(self) -> bool {
        match self {
            Self::Eval { is_read_only, .. }
            | Self::EvalSha { is_read_only, .. }
            | Self::Function { is_read_only, .. } => is_read_only,
        }
    }
}

/// A command that runs a script.
const fn running(
    name: &'static str,
    flags: CommandFlags,
    handler: super::table::Handler,
) -> Command {
    let is_read_only = flags.contains(CommandFlags::READONLY);
    let key_use = if is_read_only { KeyUse::READ } else { KeyUse::READ_UPDATE };
    Command::new(name, -3, flags, handler)
        .keys(KeyPositions::COUNTED_SECOND, key_use)
        .locking(LockScope::Handler)
}

pub(super) const COMMANDS: &[Command] = &[
    running("eval", SCRIPT, |call| eval(call, false))
        .doc(GROUP, "2.6.0", "Runs a script.")
        .syntax("script numkeys [key...] [arg...]"),
    running("eval_ro", READ_ONLY, |call| eval(call, true))
        .doc(GROUP, "7.0.0", "Runs a script that must not write.")
        .syntax("script numkeys [key...] [arg...]"),
    running("evalsha", SCRIPT, |call| evalsha(call, false))
        .doc(GROUP, "2.6.0", "Runs a script by its SHA-1.")
        .syntax("sha1 numkeys [key...] [arg...]"),
    running("evalsha_ro", READ_ONLY, |call| evalsha(call, true))
        .doc(GROUP, "7.0.0", "Runs a script by its SHA-1, which must not write.")
        .syntax("sha1 numkeys [key...] [arg...]"),
    running("fcall", SCRIPT, |call| fcall(call, false))
        .doc(GROUP, "7.0.0", "Runs a function.")
        .syntax("function numkeys [key...] [arg...]"),
    running("fcall_ro", READ_ONLY, |call| fcall(call, true))
        .doc(GROUP, "7.0.0", "Runs a function that must not write.")
        .syntax("function numkeys [key...] [arg...]"),
    script::COMMAND,
    function::COMMAND,
];

fn key_count(call: &Call<'_>) -> Result<usize, ErrorReply> {
    let keys = call.integer(2)?;
    let keys = usize::try_from(keys).map_err(|_| NOT_NEGATIVE)?;
    if keys > call.args.len() - 3 {
        return Err(TOO_MANY_KEYS);
    }
    Ok(keys)
}

fn eval(call: &mut Call<'_>, is_read_only: bool) -> CommandResult {
    call.effect = Effect::RunScript(ScriptCall::Eval { keys: key_count(call)?, is_read_only });
    Ok(())
}

fn evalsha(call: &mut Call<'_>, is_read_only: bool) -> CommandResult {
    if call.args.at(1).len() != size_of::<Sha>() {
        return Err(ErrorReply::new("NOSCRIPT No matching script. Please use EVAL."));
    }
    call.effect = Effect::RunScript(ScriptCall::EvalSha { keys: key_count(call)?, is_read_only });
    Ok(())
}

/// As EVAL, with other texts, and after the look for the function.
fn fcall(call: &mut Call<'_>, is_read_only: bool) -> CommandResult {
    if call.shared.scripting.functions.flags_of(call.args.at(1)).is_none() {
        return Err(ErrorReply::new("ERR Function not found"));
    }
    let keys = call.integer(2).map_err(|_| BAD_KEY_COUNT)?;
    let keys = usize::try_from(keys).map_err(|_| NOT_NEGATIVE)?;
    if keys > call.args.len() - 3 {
        return Err(TOO_MANY_KEYS);
    }
    call.effect = Effect::RunScript(ScriptCall::Function { keys, is_read_only });
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::commands::testing::TestServer;

    #[test]
    fn containers_check_their_subcommands() {
        let server = TestServer::new();
        for (name, lines) in [("FUNCTION", 22), ("SCRIPT", 13)] {
            for line in ["FLUSH", "FLUSH sync", "FLUSH ASYNC"] {
                assert_eq!(server.run(&format!("{name} {line}")), "+OK\r\n", "{name} {line}");
            }
            let unknown = format!("-ERR unknown subcommand 'Nope'. Try {name} HELP.\r\n");
            assert_eq!(server.run(&format!("{name} Nope x")), unknown);
            let lower = name.to_lowercase();
            let alone = format!("-ERR wrong number of arguments for '{lower}' command\r\n");
            assert_eq!(server.run(name), alone);
            let short = format!("-ERR wrong number of arguments for '{lower}|load' command\r\n");
            assert_eq!(server.run(&format!("{name} LOAD")), short);
            let help = server.run(&format!("{name} HELP"));
            assert!(help.starts_with(&format!("*{lines}\r\n+")), "{help}");
        }
        for (line, error) in [
            ("FUNCTION FLUSH x", "FUNCTION FLUSH only supports SYNC|ASYNC option"),
            (
                "FUNCTION FLUSH sync x",
                "unknown subcommand or wrong number of arguments for 'FLUSH'. Try FUNCTION HELP.",
            ),
            ("FUNCTION LOAD x y", "Unknown option given: x"),
            ("FUNCTION DELETE x", "Library not found"),
            ("SCRIPT FLUSH x", "SCRIPT FLUSH only support SYNC|ASYNC option"),
            ("SCRIPT FLUSH sync x", "SCRIPT FLUSH only support SYNC|ASYNC option"),
            ("SCRIPT DEBUG x", "Use SCRIPT DEBUG YES/SYNC/NO"),
        ] {
            assert_eq!(server.run(line), format!("-ERR {error}\r\n"), "{line}");
        }
    }
}
