//! CLIENT LIST and CLIENT INFO: a connection in one line of `name=value` pairs.
//!
//! The names and their order are those of Redis 7.4, because tools read them. What has no meaning
//! here (subscriptions, buffers that are not counted by client) is 0.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use crate::commands::call::Call;
use crate::commands::clients::Client;
use crate::commands::failure::{Answer, Failure};
use crate::commands::shared::Shared;
use crate::protocol::parse_i64;

/// Kinds of connections that a filter can name; all are normal ones here.
pub(super) fn is_normal(name: &[u8]) -> Result<bool, Failure> {
    let is = |word: &str| name.eq_ignore_ascii_case(word.as_bytes());
    if is("normal") {
        Ok(true)
    } else if ["master", "replica", "slave", "pubsub"].into_iter().any(is) {
        Ok(false)
    } else {
        let name = String::from_utf8_lossy(name);
        Err(Failure::text(format!("ERR Unknown client type '{name}'")))
    }
}

/// CLIENT INFO.
pub(super) fn info(call: &mut Call<'_>) -> Answer {
    let mut text = String::new();
    describe(&mut text, call.shared, &call.session.client, Some(&call.row.name), call.now);
    call.reply.verbatim("txt", &text);
    Ok(())
}

/// CLIENT LIST [TYPE type | ID id ...].
pub(super) fn list(call: &mut Call<'_>) -> Answer {
    let all = call.shared.clients.list();
    let chosen = match call.args.len() {
        2 => all,
        4 if call.is(2, "type") => {
            if is_normal(call.args.at(3))? {
                all
            } else {
                Vec::new()
            }
        }
        4.. if call.is(2, "id") => {
            let mut chosen = Vec::new();
            for id in call.args.from(3) {
                let id = parse_i64(id).ok_or(Failure::new("ERR Invalid client ID"))?;
                let found = all.iter().find(|client| i64::try_from(client.id) == Ok(id));
                chosen.extend(found.cloned());
            }
            chosen
        }
        _ => return Err(Failure::SYNTAX),
    };
    let mut text = String::new();
    for client in chosen {
        let own = (client.id == call.session.client.id).then_some(call.row.name.as_str());
        describe(&mut text, call.shared, &client, own, call.now);
    }
    call.reply.verbatim("txt", &text);
    Ok(())
}

/// Appends the line of one connection; `command` is what it runs right now, if that is known.
fn describe(text: &mut String, shared: &Shared, client: &Client, command: Option<&str>, now: i64) {
    let load = |figure: &std::sync::atomic::AtomicU64| figure.load(Ordering::Relaxed);
    let seconds = |since: i64| now.saturating_sub(since).max(0) / 1000;
    let last = || {
        let row = usize::try_from(load(&client.last_command)).ok()?.checked_sub(1)?;
        shared.table.rows().get(row).map(|row| row.name.as_str())
    };
    let names = client.names.lock().clone();
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
        flags(client),
        load(&client.db),
    );
    text.push_str(
        "sub=0 psub=0 ssub=0 multi=-1 watch=0 qbuf=0 qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 \
         rbp=0 obl=0 oll=0 omem=0 tot-mem=0 events=r ",
    );
    let _ = writeln!(
        text,
        "cmd={} user=default redir=-1 resp={} lib-name={} lib-ver={} tot-net-in={} \
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

/// A letter for each property; `N` if there is none.
fn flags(client: &Client) -> String {
    let letters = [
        (client.is_killed(), 'A'),
        (client.is_unix, 'U'),
        (client.no_evict.load(Ordering::Relaxed), 'e'),
        (client.no_touch.load(Ordering::Relaxed), 'T'),
    ];
    let set: String = letters.iter().filter(|(on, _)| *on).map(|(_, letter)| letter).collect();
    if set.is_empty() { "N".to_owned() } else { set }
}
