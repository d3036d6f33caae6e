//! Replication, as a primary without replicas answers: WAIT, WAITAOF, ROLE, FAILOVER, REPLICAOF and
//! the commands that replicas send.

use crate::clients::{TimeoutReply, WakeCondition};
use crate::keyspace::ValueType;
use cowherd_resp::parse_i64;

use super::blocking::Timeout;
use super::call::Call;
use super::error_reply::{CommandResult, ErrorReply};
use super::table::{Command, CommandFlags, CommandGroup};

const SERVER: CommandGroup = CommandGroup::Server;

const ADMIN: CommandFlags = CommandFlags::ADMIN.with(CommandFlags::NOSCRIPT);
const SWITCH: CommandFlags = ADMIN.with(CommandFlags::STALE).with(CommandFlags::NO_ASYNC_LOADING);
const STREAM: CommandFlags =
    ADMIN.with(CommandFlags::NO_ASYNC_LOADING).with(CommandFlags::NO_MULTI);
const ALWAYS: CommandFlags =
    CommandFlags::NOSCRIPT.with(CommandFlags::LOADING).with(CommandFlags::STALE);

/// How a client combines the replies of several servers.
const WAIT_HINTS: &[&str] = &["request_policy:all_shards", "response_policy:agg_min"];

pub(super) const COMMANDS: &[Command] = &[
    Command::new("wait", 3, CommandFlags::BLOCKING, wait)
        .doc(CommandGroup::Generic, "3.0.0", "Waits until replicas have the writes before.")
        .syntax("numreplicas:integer timeout:integer")
        .categories(&["@connection"])
        .hints(WAIT_HINTS),
    Command::new("waitaof", 4, CommandFlags::BLOCKING, wait_aof)
        .doc(
            CommandGroup::Generic,
            "7.2.0",
            "Waits until append-only files have the writes before.",
        )
        .syntax("numlocal:integer numreplicas:integer timeout:integer")
        .categories(&["@connection"])
        .hints(WAIT_HINTS),
    Command::new("role", 1, ALWAYS.with(CommandFlags::FAST), role)
        .doc(SERVER, "2.8.12", "Returns the role in replication: master.")
        .categories(&["@admin", "@dangerous"]),
    Command::new("failover", -1, ADMIN.with(CommandFlags::STALE), failover)
        .doc(SERVER, "6.2.0", "Makes a replica the master.")
        .syntax("target:[TO host:string port:integer [FORCE]] [ABORT] [TIMEOUT milliseconds]"),
    Command::new("replicaof", 3, SWITCH, replica_of)
        .doc(SERVER, "5.0.0", "Makes this server a replica (not supported), or a master.")
        .syntax("args:(host-port:(host:string port:integer)|no-one:((NO) ONE))"),
    Command::new("slaveof", 3, SWITCH, replica_of)
        .doc(SERVER, "1.0.0", "As REPLICAOF.")
        .deprecated("5.0.0", "`REPLICAOF`")
        .syntax("args:(host-port:(host:string port:integer)|no-one:((NO) ONE))"),
    Command::new("replconf", -1, ADMIN.with(ALWAYS).with(CommandFlags::ALLOW_BUSY), replconf)
        .doc(SERVER, "3.0.0", "Used between servers.")
        .system(),
    Command::new("psync", -3, STREAM, sync)
        .doc(SERVER, "2.8.0", "Used between servers.")
        .syntax("replicationid:string offset:integer"),
    Command::new("sync", 1, STREAM, sync).doc(SERVER, "1.0.0", "Used between servers."),
];

const SYNC_REFUSED: ErrorReply =
    ErrorReply::new("ERR replication is not supported yet: this server cannot serve a replica");
const REPLICA_REFUSED: ErrorReply = ErrorReply::new(
    "ERR replication is not supported yet: this server cannot become a replica; REPLICAOF NO ONE \
     is accepted",
);
const BAD_PORT: ErrorReply = ErrorReply::new("ERR Invalid master port");
const NO_REPLICAS: ErrorReply = ErrorReply::new("ERR FAILOVER requires connected replicas.");

/// Waits for its timeout if it wants any replica, since none will come.
fn wait(call: &mut Call<'_>) -> CommandResult {
    let replicas = call.integer(1)?;
    let timeout = call.timeout_milliseconds(2)?;
    wait_for(call, replicas, timeout, TimeoutReply::Zero)
}

fn wait_aof(call: &mut Call<'_>) -> CommandResult {
    let local = call.integer(1)?;
    if !(0..=1).contains(&local) {
        return Err(ErrorReply::new("ERR value is out of range, value must between 0 and 1"));
    }
    let replicas = parse_i64(call.args.at(2)).filter(|replicas| *replicas >= 0);
    let replicas = replicas.ok_or(ErrorReply::NOT_POSITIVE)?;
    let timeout = call.timeout_milliseconds(3)?;
    if local > 0 {
        return Err(ErrorReply::new(
            "ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.",
        ));
    }
    wait_for(call, replicas, timeout, TimeoutReply::TwoZeros)
}

fn wait_for(
    call: &mut Call<'_>,
    replicas: i64,
    timeout: Timeout,
    reply: TimeoutReply,
) -> CommandResult {
    if replicas <= 0 {
        let version = call.reply.version;
        call.reply.out.extend_from_slice(reply.encode(version));
        return Ok(());
    }
    // No key wakes the client, so that the type does not matter.
    let condition = WakeCondition { kind: ValueType::String, wake_on_delete: false };
    call.wait(Vec::new(), condition, timeout, reply)
}

fn role(call: &mut Call<'_>) -> CommandResult {
    call.reply.array(3);
    call.reply.bulk_str("master");
    call.reply.integer(0);
    call.reply.array(0);
    Ok(())
}

fn failover(call: &mut Call<'_>) -> CommandResult {
    let (mut timeout, mut target, mut is_forced) = (None, false, false);
    let mut i = 1;
    while i < call.args.len() {
        let left = call.args.len() - i - 1;
        match () {
            () if call.is(i, "abort") && call.args.len() == 2 => {
                return Err(ErrorReply::new("ERR No failover in progress."));
            }
            () if call.is(i, "timeout") && left >= 1 && timeout.is_none() => {
                timeout = Some(call.integer(i + 1)?);
                if timeout <= Some(0) {
                    return Err(ErrorReply::new("ERR FAILOVER timeout must be greater than 0"));
                }
                i += 1;
            }
            () if call.is(i, "to") && left >= 2 && !target => {
                call.integer(i + 2)?;
                target = true;
                i += 2;
            }
            () if call.is(i, "force") && !is_forced => is_forced = true,
            () => return Err(ErrorReply::SYNTAX),
        }
        i += 1;
    }
    Err(NO_REPLICAS)
}

fn replica_of(call: &mut Call<'_>) -> CommandResult {
    if !call.is(1, "no") || !call.is(2, "one") {
        let port = parse_i64(call.args.at(2)).filter(|port| (0..=65535).contains(port));
        return Err(port.map_or(BAD_PORT, |_| REPLICA_REFUSED));
    }
    call.reply.ok();
    Ok(())
}

/// Accepts the options that a replica sends before PSYNC. ACK and GETACK have no reply.
fn replconf(call: &mut Call<'_>) -> CommandResult {
    /// Bytes of an address, as in Redis.
    const LONGEST_ADDRESS: usize = 255;
    if call.args.len().is_multiple_of(2) {
        return Err(ErrorReply::SYNTAX);
    }
    for i in (1..call.args.len()).step_by(2) {
        let value = call.args.at(i + 1);
        match () {
            () if call.is(i, "ack") || call.is(i, "getack") => return Ok(()),
            () if call.is(i, "capa") => {}
            () if call.is(i, "listening-port") || call.is(i, "rdb-only") => {
                call.integer(i + 1)?;
            }
            () if call.is(i, "ip-address") && value.len() > LONGEST_ADDRESS => {
                return Err(ErrorReply::text(format!(
                    "ERR REPLCONF ip-address provided by replica instance is too long: {} bytes",
                    value.len()
                )));
            }
            () if call.is(i, "ip-address") => {}
            () if call.is(i, "rdb-filter-only") => {
                let words = value.split(|byte| byte.is_ascii_whitespace());
                for word in words.filter(|word| !word.is_empty()) {
                    if !word.eq_ignore_ascii_case(b"functions") {
                        let problem = b"ERR Unsupported rdb-filter-only option: ";
                        return Err(ErrorReply::quoting(&[problem, word]));
                    }
                }
            }
            () => {
                let problem = b"ERR Unrecognized REPLCONF option: ";
                return Err(ErrorReply::quoting(&[problem, call.args.at(i)]));
            }
        }
    }
    call.reply.ok();
    Ok(())
}

/// SYNC and PSYNC.
fn sync(_call: &mut Call<'_>) -> CommandResult {
    Err(SYNC_REFUSED)
}

#[cfg(test)]
mod tests {
    use crate::commands::call::Effect;
    use crate::commands::testing::TestServer;

    #[test]
    fn wait_blocks_only_for_replicas() {
        let server = TestServer::new();
        for (line, reply) in
            [("WAIT 0 0", ":0"), ("WAIT -1 5", ":0"), ("WAITAOF 0 0 0", "*2\r\n:0\r\n:0")]
        {
            assert_eq!(server.run(line), format!("{reply}\r\n"), "{line}");
            assert_eq!(server.effect.take(), Effect::None, "{line}");
        }
        for line in ["WAIT 1 0", "WAITAOF 0 1 50"] {
            assert_eq!(server.run(line), "", "{line}");
            assert_eq!(server.effect.take(), Effect::Block, "{line}");
        }
    }

    #[test]
    fn there_is_no_replication_yet() {
        let server = TestServer::new();
        assert_eq!(server.run("REPLICAOF no One"), "+OK\r\n");
        for line in ["REPLICAOF host 6379", "SLAVEOF no 1", "PSYNC ? -1", "SYNC"] {
            assert!(server.run(line).starts_with("-ERR replication is not supported"), "{line}");
        }
        assert_eq!(server.run("REPLCONF ack 0"), "");
        assert_eq!(server.run("REPLCONF capa eof rdb-filter-only ' functions '"), "+OK\r\n");
        let long = format!("REPLCONF ip-address {}", "x".repeat(256));
        assert!(server.run(&long).ends_with("is too long: 256 bytes\r\n"));
    }
}
