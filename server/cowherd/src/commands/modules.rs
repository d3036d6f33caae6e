//! MODULE: there are no modules.

use super::call::Call;
use super::error_reply::{CommandResult, ErrorReply};
use super::table::{Command, CommandFlags, CommandGroup};

const GROUP: CommandGroup = CommandGroup::Server;

const ADMIN: CommandFlags = CommandFlags::ADMIN.with(CommandFlags::NOSCRIPT);
const CHANGES: CommandFlags = ADMIN.with(CommandFlags::NO_ASYNC_LOADING);

pub(super) const COMMANDS: &[Command] =
    &[Command::container("module").doc(GROUP, "4.0.0", "Commands about modules.").subcommands(&[
        Command::new("help", 2, CommandFlags::LOADING.with(CommandFlags::STALE), help).doc(
            GROUP,
            "5.0.0",
            "Lists the subcommands.",
        ),
        Command::new("list", 2, ADMIN, list)
            .doc(GROUP, "4.0.0", "Returns the modules: none.")
            .hints(&["nondeterministic_output_order"]),
        Command::new("load", -3, CHANGES, unsupported)
            .doc(GROUP, "4.0.0", "Not supported.")
            .syntax("path:string [arg...]"),
        Command::new("loadex", -3, CHANGES, unsupported)
            .doc(GROUP, "7.0.0", "Not supported.")
            .syntax("path:string configs:[CONFIG name value:string]... [ARGS args...]"),
        Command::new("unload", 3, CHANGES, unsupported)
            .doc(GROUP, "4.0.0", "Not supported.")
            .syntax("name"),
    ])];

fn list(call: &mut Call<'_>) -> CommandResult {
    call.reply.array(0);
    Ok(())
}

fn unsupported(_call: &mut Call<'_>) -> CommandResult {
    Err(ErrorReply::new(
        "ERR modules are not supported: this server runs no code but its own and Lua scripts",
    ))
}

fn help(call: &mut Call<'_>) -> CommandResult {
    call.help(&[
        "LIST",
        "    Returns the modules: none.",
        "LOAD <path> [<arg> ...]",
        "    Fails: modules are not supported.",
        "LOADEX <path> [CONFIG <name> <value> ...] [ARGS <arg> ...]",
        "    Fails likewise.",
        "UNLOAD <name>",
        "    Fails likewise.",
    ]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::commands::testing::TestServer;

    #[test]
    fn there_are_no_modules() {
        let server = TestServer::new();
        assert_eq!(server.run("MODULE LIST"), "*0\r\n");
        for line in ["MODULE LOAD /x", "MODULE LOADEX /x ARGS a", "MODULE UNLOAD x"] {
            assert!(server.run(line).starts_with("-ERR modules are not supported"), "{line}");
        }
        assert!(server.run("MODULE HELP").starts_with("*11\r\n+MODULE <subcommand>"));
    }
}
