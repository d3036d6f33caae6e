//! CLUSTER, READONLY, READWRITE and ASKING, as a server with `cluster-enabled no` answers them:
//! each checks the number of its arguments and fails.

use super::error_reply::ErrorReply;
use super::table::{Command, CommandFlags, CommandGroup};

const GROUP: CommandGroup = CommandGroup::Cluster;

const CONNECTION: CommandFlags =
    CommandFlags::LOADING.with(CommandFlags::STALE).with(CommandFlags::FAST);
const READS: CommandFlags = CommandFlags::STALE;
const READS_LOADING: CommandFlags = READS.with(CommandFlags::LOADING);
const LISTS: CommandFlags = CommandFlags::ADMIN.with(CommandFlags::STALE);
const CHANGES: CommandFlags = LISTS.with(CommandFlags::NO_ASYNC_LOADING);

const VARIES: &[&str] = &["nondeterministic_output"];

/// A command of a cluster that this server is not part of.
const fn disabled(name: &'static str, arity: isize, flags: CommandFlags) -> Command {
    Command::new(name, arity, flags, |_| {
        Err(ErrorReply::new("ERR This instance has cluster support disabled"))
    })
}

pub(super) const COMMANDS: &[Command] = &[
    disabled("readonly", 1, CONNECTION)
        .doc(GROUP, "3.0.0", "Allows reads from a replica of a cluster.")
        .categories(&["@connection"]),
    disabled("readwrite", 1, CONNECTION)
        .doc(GROUP, "3.0.0", "Forbids reads from a replica of a cluster again.")
        .categories(&["@connection"]),
    disabled("asking", 1, CommandFlags::FAST)
        .doc(GROUP, "3.0.0", "Follows a redirection to a slot that moves.")
        .categories(&["@connection"]),
    Command::container("cluster")
        .doc(GROUP, "3.0.0", "Commands about a cluster.")
        .subcommands(CLUSTER),
];

const CLUSTER: &[Command] = &[
    disabled("addslots", -3, CHANGES)
        .doc(GROUP, "3.0.0", "Gives slots to this node.")
        .syntax("slot:integer..."),
    disabled("addslotsrange", -4, CHANGES)
        .doc(GROUP, "7.0.0", "Gives ranges of slots to this node.")
        .syntax("range:(start-slot:integer end-slot:integer)..."),
    disabled("bumpepoch", 2, CHANGES)
        .doc(GROUP, "3.0.0", "Advances the configuration epoch.")
        .hints(VARIES),
    disabled("count-failure-reports", 3, LISTS)
        .doc(GROUP, "3.0.0", "Returns how many nodes report a node as failed.")
        .syntax("node-id:string")
        .hints(VARIES),
    disabled("countkeysinslot", 3, READS)
        .doc(GROUP, "3.0.0", "Returns the number of keys in a slot.")
        .syntax("slot:integer"),
    disabled("delslots", -3, CHANGES)
        .doc(GROUP, "3.0.0", "Takes slots from this node.")
        .syntax("slot:integer..."),
    disabled("delslotsrange", -4, CHANGES)
        .doc(GROUP, "7.0.0", "Takes ranges of slots from this node.")
        .syntax("range:(start-slot:integer end-slot:integer)..."),
    disabled("failover", -2, CHANGES)
        .doc(GROUP, "3.0.0", "Makes a replica the master of its slots.")
        .syntax("options:[FORCE|TAKEOVER]"),
    disabled("flushslots", 2, CHANGES).doc(GROUP, "3.0.0", "Takes all slots from this node."),
    disabled("forget", 3, CHANGES)
        .doc(GROUP, "3.0.0", "Removes a node from the list of nodes.")
        .syntax("node-id:string"),
    disabled("getkeysinslot", 4, READS)
        .doc(GROUP, "3.0.0", "Returns keys in a slot.")
        .syntax("slot:integer count")
        .hints(VARIES),
    disabled("help", 2, READS_LOADING).doc(GROUP, "5.0.0", "Lists the subcommands."),
    disabled("info", 2, READS)
        .doc(GROUP, "3.0.0", "Returns the state of the cluster.")
        .hints(VARIES),
    disabled("keyslot", 3, READS)
        .doc(GROUP, "3.0.0", "Returns the slot of a key.")
        .syntax("key:string"),
    disabled("links", 2, READS)
        .doc(GROUP, "7.0.0", "Returns the connections between nodes.")
        .hints(VARIES),
    disabled("meet", -4, CHANGES)
        .doc(GROUP, "3.0.0", "Joins a node to the cluster.")
        .syntax("ip:string port:integer [cluster-bus-port:integer@4.0.0]"),
    disabled("myid", 2, READS).doc(GROUP, "3.0.0", "Returns the name of this node."),
    disabled("myshardid", 2, READS)
        .doc(GROUP, "7.2.0", "Returns the name of this node's shard.")
        .hints(VARIES),
    disabled("nodes", 2, READS)
        .doc(GROUP, "3.0.0", "Describes the nodes as a configuration file.")
        .hints(VARIES),
    disabled("replicas", 3, LISTS)
        .doc(GROUP, "5.0.0", "Describes the replicas of a node.")
        .syntax("node-id:string")
        .hints(VARIES),
    disabled("replicate", 3, CHANGES)
        .doc(GROUP, "3.0.0", "Makes this node a replica.")
        .syntax("node-id:string"),
    disabled("reset", -2, CommandFlags::ADMIN.with(CommandFlags::NOSCRIPT).with(READS))
        .doc(GROUP, "3.0.0", "Makes this node leave the cluster.")
        .syntax("reset-type:[HARD|SOFT]"),
    disabled("saveconfig", 2, CHANGES).doc(GROUP, "3.0.0", "Writes the list of nodes to its file."),
    disabled("set-config-epoch", 3, CHANGES)
        .doc(GROUP, "3.0.0", "Sets the configuration epoch of a new node.")
        .syntax("config-epoch:integer"),
    disabled("setslot", -4, CHANGES).doc(GROUP, "3.0.0", "Sets the state of a slot.").syntax(
        "slot:integer subcommand:(IMPORTING importing:string=node-id\
         |MIGRATING migrating:string=node-id|NODE node:string=node-id|STABLE)",
    ),
    disabled("shards", 2, READS_LOADING)
        .doc(GROUP, "7.0.0", "Describes the shards and their slots.")
        .hints(VARIES),
    disabled("slaves", 3, LISTS)
        .doc(GROUP, "3.0.0", "Describes the replicas of a node.")
        .syntax("node-id:string")
        .deprecated("5.0.0", "`CLUSTER REPLICAS`")
        .hints(VARIES),
    disabled("slots", 2, READS_LOADING)
        .doc(GROUP, "3.0.0", "Describes ranges of slots and their nodes.")
        .deprecated("7.0.0", "`CLUSTER SHARDS`")
        .hints(VARIES),
];

#[cfg(test)]
mod tests {
    use crate::commands::testing::TestServer;

    #[test]
    fn cluster_commands_check_their_arguments_and_fail() {
        let server = TestServer::new();
        let disabled = "-ERR This instance has cluster support disabled\r\n";
        for line in [
            "READONLY",
            "READWRITE",
            "ASKING",
            "CLUSTER INFO",
            "cluster Help",
            "CLUSTER KEYSLOT a",
            "CLUSTER SETSLOT x y",
        ] {
            assert_eq!(server.run(line), disabled, "{line}");
        }
        for (line, name) in [
            ("CLUSTER", "cluster"),
            ("ASKING x", "asking"),
            ("CLUSTER KEYSLOT", "cluster|keyslot"),
            ("CLUSTER SETSLOT 1", "cluster|setslot"),
        ] {
            let error = format!("-ERR wrong number of arguments for '{name}' command\r\n");
            assert_eq!(server.run(line), error, "{line}");
        }
        let unknown = "-ERR unknown subcommand 'NOPE'. Try CLUSTER HELP.\r\n";
        assert_eq!(server.run("CLUSTER NOPE"), unknown);
    }
}
