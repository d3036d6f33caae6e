//! CLIENT LIST and CLIENT INFO: one line of `name=value` pairs per connection.
//!
//! The names and their order are those of Redis 7.4, because tools parse them. Fields without a
//! meaning here are 0: Cowherd does not count query buffers by client.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use crate::clients::{Client, Tracker};
use crate::commands::call::Call;
use crate::commands::error_reply::{CommandResult, ErrorReply};
use crate::commands::shared::Shared;
use cowherd_resp::parse_i64;

use super::tracking::redirect;

/// A type of connections, as filters name it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ClientType {
    /// Any connection but subscribers.
    Normal,
    /// A connection with subscriptions.
    Subscriber,
    /// A master or replica: there are none.
    Replication,
}

impl ClientType {
    pub(super) fn parse(name: &[u8]) -> Result<Self, ErrorReply> {
        let is = |word: &str| name.eq_ignore_ascii_case(word.as_bytes());
        if is("normal") {
            Ok(Self::Normal)
        } else if is("pubsub") {
            Ok(Self::Subscriber)
        } else if ["master", "replica", "slave"].into_iter().any(is) {
            Ok(Self::Replication)
        } else {
            Err(ErrorReply::quoting(&[b"ERR Unknown client type '", name, b"'"]))
        }
    }

    pub(super) fn matches(self, client: &Client) -> bool {
        match self {
            Self::Normal => !client.is_subscriber(),
            Self::Subscriber => client.is_subscriber(),
            Self::Replication => false,
        }
    }
}

/// `CLIENT INFO`
pub(super) fn info(call: &mut Call<'_>) -> CommandResult {
    let mut text = String::new();
    describe(&mut text, call.shared, &call.session.client, Some(&call.row.name), call.now);
    call.reply.verbatim(b"txt", text.as_bytes());
    Ok(())
}

/// `CLIENT LIST [TYPE type | ID id ...]`
pub(super) fn list(call: &mut Call<'_>) -> CommandResult {
    let all = call.shared.clients.list();
    let chosen = match call.args.len() {
        2 => all,
        4 if call.is(2, "type") => {
            let kind = ClientType::parse(call.args.at(3))?;
            all.into_iter().filter(|client| kind.matches(client)).collect()
        }
        4.. if call.is(2, "id") => {
            let mut chosen = Vec::new();
            for id in call.args.from(3) {
                let id = parse_i64(id).ok_or(ErrorReply::new("ERR Invalid client ID"))?;
                let found = all.iter().find(|client| i64::try_from(client.id) == Ok(id));
                chosen.extend(found.cloned());
            }
            chosen
        }
        _ => return Err(ErrorReply::SYNTAX),
    };
    let mut text = String::new();
    for client in chosen {
        let own = (client.id == call.session.client.id).then_some(call.row.name.as_str());
        describe(&mut text, call.shared, &client, own, call.now);
    }
    call.reply.verbatim(b"txt", text.as_bytes());
    Ok(())
}

/// Appends the line of one connection. `command` is the running command of the own connection;
/// other connections are shown with their last command.
fn describe(text: &mut String, shared: &Shared, client: &Client, command: Option<&str>, now: i64) {
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let seconds = |since: i64| now.saturating_sub(since).max(0) / 1000;
    let last = || {
        let row = usize::try_from(load(&client.last_command)).ok()?.checked_sub(1)?;
        shared.table.rows().get(row).map(|row| row.name.as_str())
    };
    let names = client.names.lock().clone();
    let tracker = shared.tracking.tracker(client.id);
    let redirect = redirect(tracker.as_deref());
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "id={} addr={} laddr={} fd={} name={} age={} idle={} flags={} db={} ",
        client.id,
        client.peer,
        client.local,
        client.fd,
        names.name,
        seconds(client.connected_at),
        seconds(client.last_active.load(Ordering::Relaxed)),
        flags(client, tracker.as_deref()),
        load(&client.db),
    );
    // The counter is 0 outside a transaction, where Redis shows -1.
    let queued = i128::from(load(&client.queued)) - 1;
    let (watched, queued_memory) = (load(&client.watched), load(&client.queued_memory));
    let backlog = client.backlog();
    let _ = write!(
        text,
        "sub={} psub={} ssub={} multi={queued} watch={watched} qbuf=0 qbuf-free=0 argv-mem=0 \
         multi-mem={queued_memory} rbs=0 rbp=0 obl=0 oll={} omem={backlog} tot-mem={backlog} \
         events={} ",
        load(&client.channels),
        load(&client.patterns),
        load(&client.shard_channels),
        u8::from(backlog > 0),
        if backlog > 0 { "rw" } else { "r" },
    );
    let _ = writeln!(
        text,
        "cmd={} user=default redir={redirect} resp={} lib-name={} lib-ver={} tot-net-in={} \
         tot-net-out={} tot-cmds={}",
        command.or_else(last).unwrap_or("NULL"),
        load(&client.protocol),
        names.library,
        names.library_version,
        load(&client.bytes_in),
        load(&client.bytes_out),
        load(&client.commands),
    );
}

/// One letter per property, in Redis's order; `N` for none.
fn flags(client: &Client, tracker: Option<&Tracker>) -> String {
    let letters = [
        (client.is_monitor.load(Ordering::Relaxed), 'O'),
        (client.is_subscriber(), 'P'),
        (client.queued.load(Ordering::Relaxed) > 0, 'x'),
        (client.is_blocked(), 'b'),
        (tracker.is_some(), 't'),
        (tracker.is_some_and(Tracker::is_redirect_broken), 'R'),
        (tracker.is_some_and(|tracker| tracker.options.broadcast), 'B'),
        (client.watcher.is_touched(), 'd'),
        (client.is_killed(), 'A'),
        (client.is_unix, 'U'),
        (client.no_evict.load(Ordering::Relaxed), 'e'),
        (client.no_touch.load(Ordering::Relaxed), 'T'),
    ];
    let set: String = letters.iter().filter(|(on, _)| *on).map(|(_, letter)| letter).collect();
    if set.is_empty() { "N".to_owned() } else { set }
}
