//! Commands about the own connection: PING, ECHO, HELLO, AUTH, QUIT, RESET.

use std::sync::atomic::Ordering;

use cowherd_resp::{ProtocolVersion, parse_i64};

use super::call::{Call, Effect};
use super::error_reply::{CommandResult, ErrorReply};
use super::shared::REDIS_VERSION;
use super::table::{Command, CommandFlags, CommandGroup};

const ALWAYS: CommandFlags =
    CommandFlags::LOADING.with(CommandFlags::STALE).with(CommandFlags::FAST);
const BEFORE_AUTH: CommandFlags =
    ALWAYS.with(CommandFlags::NOSCRIPT).with(CommandFlags::NO_AUTH).with(CommandFlags::ALLOW_BUSY);

const GROUP: CommandGroup = CommandGroup::Connection;

pub(super) const COMMANDS: &[Command] = &[
    Command::new("ping", -1, CommandFlags::FAST, ping)
        .doc(GROUP, "1.0.0", "Answers PONG, or the message.")
        .syntax("[message]")
        .hints(&["request_policy:all_shards", "response_policy:all_succeeded"]),
    Command::new("echo", 2, ALWAYS, echo)
        .doc(GROUP, "1.0.0", "Returns the message.")
        .syntax("message"),
    Command::new("hello", -1, BEFORE_AUTH, hello)
        .doc(GROUP, "6.0.0", "Chooses the protocol version and introduces the server.")
        .syntax("arguments:[protover [AUTH username password] [SETNAME clientname]]"),
    Command::new("auth", -2, BEFORE_AUTH, auth)
        .doc(GROUP, "1.0.0", "Gives the password.")
        .syntax("[username@6.0.0] password"),
    Command::new(
        "quit",
        -1,
        BEFORE_AUTH.with(CommandFlags::UNPAUSED).with(CommandFlags::UNQUEUED),
        quit,
    )
    .doc(GROUP, "1.0.0", "Closes the connection.")
    .deprecated("7.2.0", "closing the connection"),
    Command::new("reset", 1, BEFORE_AUTH.with(CommandFlags::UNQUEUED), reset).doc(
        GROUP,
        "6.2.0",
        "Makes the connection as if it were new.",
    ),
];

const WRONG_PASSWORD: ErrorReply =
    ErrorReply::new("WRONGPASS invalid username-password pair or user is disabled.");
const NO_PASSWORD_SET: ErrorReply = ErrorReply::new(
    "ERR AUTH <password> called without any password configured for the default user. Are you \
     sure your configuration is correct?",
);
const BAD_VERSION: ErrorReply =
    ErrorReply::new("ERR Protocol version is not an integer or out of range");
const NO_SUCH_VERSION: ErrorReply = ErrorReply::new("NOPROTO unsupported protocol version");
const AUTHENTICATE_FIRST: ErrorReply = ErrorReply::new(
    "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO \
     <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP \
     protocol version at the same time",
);
const BAD_NAME: ErrorReply =
    ErrorReply::new("ERR Client names cannot contain spaces, newlines or special characters.");

fn ping(call: &mut Call<'_>) -> CommandResult {
    if call.session.subscriptions.is_some() && call.reply.version == ProtocolVersion::Resp2 {
        return ping_as_message(call);
    }
    match call.args.len() {
        1 => call.reply.simple("PONG"),
        2 => call.reply.bulk(call.args.at(1)),
        _ => return Err(call.row.wrong_arity()),
    }
    Ok(())
}

/// A RESP2 subscriber tells replies from messages only by their form, so the reply is a message.
fn ping_as_message(call: &mut Call<'_>) -> CommandResult {
    if call.args.len() > 2 {
        return Err(call.row.wrong_arity());
    }
    call.reply.array(2);
    call.reply.bulk_str("pong");
    call.reply.bulk(call.args.get(1).unwrap_or_default());
    Ok(())
}

fn echo(call: &mut Call<'_>) -> CommandResult {
    call.reply.bulk(call.args.at(1));
    Ok(())
}

fn quit(call: &mut Call<'_>) -> CommandResult {
    // The client reads nothing behind the reply.
    call.shared.clients.monitors.end(call.session);
    call.reply.ok();
    call.effect = Effect::Close;
    Ok(())
}

fn reset(call: &mut Call<'_>) -> CommandResult {
    call.session.discard(&call.shared.keyspace);
    call.shared.pubsub.unsubscribe_all(call.session);
    call.shared.tracking.disable(call.session, &call.shared.keyspace);
    call.shared.clients.monitors.end(call.session);
    call.session.reset(call.config.requirepass.is_none());
    call.reply.version = ProtocolVersion::Resp2;
    call.reply.simple("RESET");
    Ok(())
}

fn auth(call: &mut Call<'_>) -> CommandResult {
    let (user, password) = match call.args.len() {
        2 if call.config.requirepass.is_none() => return Err(NO_PASSWORD_SET),
        2 => (&b"default"[..], call.args.at(1)),
        3 => (call.args.at(1), call.args.at(2)),
        _ => return Err(ErrorReply::SYNTAX),
    };
    check_password(call, user, password)?;
    call.session.authenticated = true;
    call.reply.ok();
    Ok(())
}

/// Checks user and password. Any password is right when none is set.
fn check_password(call: &Call<'_>, user: &[u8], password: &[u8]) -> CommandResult {
    let right = match &call.config.requirepass {
        Some(set) => secrets_equal(set.as_bytes(), password),
        None => true,
    };
    if user == b"default" && right {
        return Ok(());
    }
    call.shared.telemetry.auth_failed();
    Err(WRONG_PASSWORD)
}

/// Compares in a time that depends on the length of `given` alone, so that the time of a reply
/// tells nothing about the secret.
fn secrets_equal(secret: &[u8], given: &[u8]) -> bool {
    let mut different = u8::from(secret.len() != given.len());
    for (i, byte) in given.iter().enumerate() {
        let expected = if secret.is_empty() { 0 } else { secret[i % secret.len()] };
        different |= std::hint::black_box(byte ^ expected);
    }
    std::hint::black_box(different) == 0
}

/// The argument of CLIENT SETNAME or HELLO SETNAME, checked.
pub(super) fn client_name(name: &[u8]) -> Result<String, ErrorReply> {
    printable(name).ok_or(BAD_NAME)
}

/// `bytes` as text; `None` unless all are visible ASCII characters.
pub(super) fn printable(bytes: &[u8]) -> Option<String> {
    let visible = bytes.iter().all(u8::is_ascii_graphic);
    visible.then(|| String::from_utf8_lossy(bytes).into_owned())
}

/// The arguments of HELLO.
#[derive(Default)]
struct HelloOptions<'c> {
    version: Option<ProtocolVersion>,
    credentials: Option<(&'c [u8], &'c [u8])>,
    name: Option<String>,
}

impl<'c> HelloOptions<'c> {
    fn read(call: &Call<'c>) -> Result<Self, ErrorReply> {
        let args = call.args;
        let mut options = Self::default();
        let Some(version) = args.get(1) else { return Ok(options) };
        options.version = Some(match parse_i64(version).ok_or(BAD_VERSION)? {
            2 => ProtocolVersion::Resp2,
            3 => ProtocolVersion::Resp3,
            _ => return Err(NO_SUCH_VERSION),
        });
        let mut i = 2;
        while i < args.len() {
            match (args.get(i + 1), args.get(i + 2)) {
                (Some(user), Some(password)) if call.is(i, "auth") => {
                    options.credentials = Some((user, password));
                    i += 3;
                }
                (Some(name), _) if call.is(i, "setname") => {
                    options.name = Some(client_name(name)?);
                    i += 2;
                }
                _ => {
                    let option = args.at(i);
                    let text: [&[u8]; 3] = [b"ERR Syntax error in HELLO option '", option, b"'"];
                    return Err(ErrorReply::quoting(&text));
                }
            }
        }
        Ok(options)
    }
}

fn hello(call: &mut Call<'_>) -> CommandResult {
    let options = HelloOptions::read(call)?;
    if let Some((user, password)) = options.credentials {
        check_password(call, user, password)?;
        call.session.authenticated = true;
    }
    if !call.session.authenticated {
        return Err(AUTHENTICATE_FIRST);
    }
    let client = &call.session.client;
    if let Some(name) = options.name {
        client.names.lock().name = name;
    }
    if let Some(version) = options.version {
        call.reply.version = version;
    }
    let protocol = match call.reply.version {
        ProtocolVersion::Resp2 => 2,
        ProtocolVersion::Resp3 => 3,
    };
    client.protocol.store(protocol, Ordering::Relaxed);

    let id = i64::try_from(client.id).unwrap_or(i64::MAX);
    let reply = &mut *call.reply;
    reply.map(7);
    for (name, value) in [("server", "redis"), ("version", REDIS_VERSION)] {
        reply.bulk_str(name);
        reply.bulk_str(value);
    }
    reply.bulk_str("proto");
    reply.integer(if protocol == 3 { 3 } else { 2 });
    reply.bulk_str("id");
    reply.integer(id);
    for (name, value) in [("mode", "standalone"), ("role", "master")] {
        reply.bulk_str(name);
        reply.bulk_str(value);
    }
    reply.bulk_str("modules");
    reply.array(0);
    Ok(())
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
