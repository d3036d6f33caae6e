//! Publish/subscribe: SUBSCRIBE, PUBLISH and their kin. The registry is in `clients/pubsub`.
//!
//! Each channel that a command subscribes to is confirmed by an out-of-band message instead of a
//! reply; the messages are sent even after CLIENT REPLY OFF. A message that is published to a
//! client while its command runs is in the client's output buffer, and follows the command's reply
//! (in a transaction the reply of EXEC), even if the client itself has published it.

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};

use crate::clients::{BlockingMode, OUTPUT_PENDING, SubscriptionKind};

use super::call::Call;
use super::error_reply::{CommandResult, ErrorReply};
use super::table::{Command, CommandFlags, CommandGroup, KeyPositions, KeyUse, LockScope};

const PLAIN: CommandFlags =
    CommandFlags::PUBSUB.with(CommandFlags::LOADING).with(CommandFlags::STALE);
const LISTEN: CommandFlags = PLAIN.with(CommandFlags::NOSCRIPT);
const SEND: CommandFlags = PLAIN.with(CommandFlags::FAST).with(CommandFlags::HAS_EFFECTS);
const HELP: CommandFlags = CommandFlags::LOADING.with(CommandFlags::STALE);

const GROUP: CommandGroup = CommandGroup::PubSub;

const NOT_IN_TRANSACTION: ErrorReply =
    ErrorReply::new("ERR SSUBSCRIBE isn't allowed for a DENY BLOCKING client");

/// The key positions of the shard channel commands name channels, so no shard is locked for them.
pub(super) const COMMANDS: &[Command] = &[
    Command::new("subscribe", -2, LISTEN, subscribe)
        .doc(GROUP, "2.0.0", "Listens to channels.")
        .syntax("channel...")
        .locking(LockScope::Handler),
    Command::new("unsubscribe", -1, LISTEN, unsubscribe)
        .doc(GROUP, "2.0.0", "Stops listening to channels.")
        .syntax("[channel...]")
        .locking(LockScope::Handler),
    Command::new("psubscribe", -2, LISTEN, psubscribe)
        .doc(GROUP, "2.0.0", "Listens to all channels that match patterns.")
        .syntax("pattern...")
        .locking(LockScope::Handler),
    Command::new("punsubscribe", -1, LISTEN, punsubscribe)
        .doc(GROUP, "2.0.0", "Stops listening to what matches patterns.")
        .syntax("[pattern...]")
        .locking(LockScope::Handler),
    Command::new("ssubscribe", -2, LISTEN, ssubscribe)
        .doc(GROUP, "7.0.0", "Listens to shard channels.")
        .keys(KeyPositions::ALL, KeyUse::NOT_KEY)
        .syntax("shardchannel...")
        .locking(LockScope::Handler),
    Command::new("sunsubscribe", -1, LISTEN, sunsubscribe)
        .doc(GROUP, "7.0.0", "Stops listening to shard channels.")
        .keys(KeyPositions::ALL, KeyUse::NOT_KEY)
        .syntax("[shardchannel...]")
        .locking(LockScope::Handler),
    Command::new("publish", 3, SEND, publish)
        .doc(GROUP, "2.0.0", "Sends a message to a channel.")
        .syntax("channel message")
        .locking(LockScope::Handler),
    Command::new("spublish", 3, SEND, spublish)
        .doc(GROUP, "7.0.0", "Sends a message to a shard channel.")
        .keys(KeyPositions::ONE, KeyUse::NOT_KEY)
        .syntax("shardchannel message")
        .locking(LockScope::Handler),
    Command::container("pubsub")
        .doc(GROUP, "2.8.0", "Describes channels and their subscribers.")
        .subcommands(&[
            Command::new("channels", -2, PLAIN, channels)
                .doc(GROUP, "2.8.0", "Lists the channels that are listened to.")
                .syntax("[pattern]"),
            Command::new("help", 2, HELP, help).doc(GROUP, "6.2.0", "Lists the subcommands."),
            Command::new("numpat", 2, PLAIN, numpat).doc(
                GROUP,
                "2.8.0",
                "Counts the patterns that are listened to.",
            ),
            Command::new("numsub", -2, PLAIN, numsub)
                .doc(GROUP, "2.8.0", "Counts the listeners of channels.")
                .syntax("[channel...]"),
            Command::new("shardchannels", -2, PLAIN, shard_channels)
                .doc(GROUP, "7.0.0", "Lists the shard channels that are listened to.")
                .syntax("[pattern]"),
            Command::new("shardnumsub", -2, PLAIN, shard_numsub)
                .doc(GROUP, "7.0.0", "Counts the listeners of shard channels.")
                .syntax("[shardchannel...]"),
        ]),
];

fn subscribe(call: &mut Call<'_>) -> CommandResult {
    add(call, SubscriptionKind::Channel, "subscribe")
}

fn psubscribe(call: &mut Call<'_>) -> CommandResult {
    add(call, SubscriptionKind::Pattern, "psubscribe")
}

fn ssubscribe(call: &mut Call<'_>) -> CommandResult {
    // The others may stand in a transaction, as in Redis, where old clients rely on that.
    if call.blocking_mode == BlockingMode::Denied {
        return Err(NOT_IN_TRANSACTION);
    }
    add(call, SubscriptionKind::Shard, "ssubscribe")
}

fn unsubscribe(call: &mut Call<'_>) -> CommandResult {
    remove(call, SubscriptionKind::Channel, "unsubscribe")
}

fn punsubscribe(call: &mut Call<'_>) -> CommandResult {
    remove(call, SubscriptionKind::Pattern, "punsubscribe")
}

fn sunsubscribe(call: &mut Call<'_>) -> CommandResult {
    remove(call, SubscriptionKind::Shard, "sunsubscribe")
}

fn add(call: &mut Call<'_>, kind: SubscriptionKind, word: &str) -> CommandResult {
    bypass_reply_off(call);
    for i in 1..call.args.len() {
        let name = call.args.at(i);
        call.shared.pubsub.subscribe(call.session, kind, name);
        confirm(call, kind, word, Some(name));
    }
    Ok(())
}

/// Messages that were pushed before an unsubscription precede its confirmation, so that no message
/// of the channel follows it.
fn remove(call: &mut Call<'_>, kind: SubscriptionKind, word: &str) -> CommandResult {
    bypass_reply_off(call);
    if call.args.len() == 1 {
        let names = call.session.subscription_names(kind);
        if names.is_empty() {
            confirm(call, kind, word, None);
        }
        for name in names {
            call.shared.pubsub.unsubscribe(call.session, kind, &name);
            drain_output(call);
            confirm(call, kind, word, Some(&name));
        }
    }
    for i in 1..call.args.len() {
        let name = call.args.at(i);
        call.shared.pubsub.unsubscribe(call.session, kind, name);
        drain_output(call);
        confirm(call, kind, word, Some(name));
    }
    Ok(())
}

fn drain_output(call: &mut Call<'_>) {
    // The array that EXEC replies must not contain messages.
    if !call.session.in_exec && call.session.client.signals() & OUTPUT_PENDING != 0 {
        call.session.client.drain_output(&mut call.reply.out);
    }
}

/// Has the confirmations sent even if replies are switched off.
fn bypass_reply_off(call: &mut Call<'_>) {
    call.session.bypass_reply_off = call.session.is_reply_off();
}

fn confirm(call: &mut Call<'_>, kind: SubscriptionKind, word: &str, name: Option<&[u8]>) {
    let client = &call.session.client;
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let count = match kind {
        SubscriptionKind::Channel | SubscriptionKind::Pattern => {
            load(&client.channels) + load(&client.patterns)
        }
        SubscriptionKind::Shard => load(&client.shard_channels),
    };
    call.reply.push(3);
    call.reply.bulk_str(word);
    match name {
        Some(name) => call.reply.bulk(name),
        None => call.reply.null(),
    }
    call.reply.integer(count.cast_signed());
}

fn publish(call: &mut Call<'_>) -> CommandResult {
    let limits = &call.config.client_output_buffer_limit;
    let copies = call.shared.pubsub.publish(limits, call.args.at(1), call.args.at(2));
    call.reply.integer(i64::try_from(copies).unwrap_or(i64::MAX));
    Ok(())
}

fn spublish(call: &mut Call<'_>) -> CommandResult {
    let limits = &call.config.client_output_buffer_limit;
    let copies = call.shared.pubsub.publish_shard(limits, call.args.at(1), call.args.at(2));
    call.reply.integer(i64::try_from(copies).unwrap_or(i64::MAX));
    Ok(())
}

fn channels(call: &mut Call<'_>) -> CommandResult {
    list(call, SubscriptionKind::Channel)
}

fn shard_channels(call: &mut Call<'_>) -> CommandResult {
    list(call, SubscriptionKind::Shard)
}

fn list(call: &mut Call<'_>, kind: SubscriptionKind) -> CommandResult {
    if call.args.len() > 3 {
        return Err(ErrorReply::wrong_subcommand(&call.args));
    }
    let names = call.shared.pubsub.active(kind, call.args.get(2));
    call.reply.array(names.len());
    names.iter().for_each(|name| call.reply.bulk(name));
    Ok(())
}

fn numpat(call: &mut Call<'_>) -> CommandResult {
    call.reply.integer(call.shared.pubsub.patterns().cast_signed());
    Ok(())
}

fn numsub(call: &mut Call<'_>) -> CommandResult {
    count(call, SubscriptionKind::Channel)
}

fn shard_numsub(call: &mut Call<'_>) -> CommandResult {
    count(call, SubscriptionKind::Shard)
}

fn count(call: &mut Call<'_>, kind: SubscriptionKind) -> CommandResult {
    let channels = call.args.from(2);
    call.reply.array(2 * channels.len());
    for channel in channels {
        let subscribers = call.shared.pubsub.subscribers(kind, channel);
        call.reply.bulk(channel);
        call.reply.integer(i64::try_from(subscribers).unwrap_or(i64::MAX));
    }
    Ok(())
}

fn help(call: &mut Call<'_>) -> CommandResult {
    call.help(&[
        "CHANNELS [<pattern>]",
        "    Lists the channels that are listened to and match a pattern (default: *).",
        "NUMPAT",
        "    Counts the patterns that are listened to.",
        "NUMSUB [<channel> ...]",
        "    Counts the listeners of channels, those by pattern left out.",
        "SHARDCHANNELS [<pattern>]",
        "    Lists the shard channels that are listened to and match a pattern (default: *).",
        "SHARDNUMSUB [<shard channel> ...]",
        "    Counts the listeners of shard channels.",
    ]);
    Ok(())
}
