//! Conversations of several connections with a server, as text: one command per line, or several
//! with ` ; ` between them, the sending connection before it.
//!
//! After each line every connection sends a PING with a unique argument, and collects the
//! messages before the answer, which are those that the line caused. `{b}` stands for the client
//! number of connection b.

use crate::wire::{RawConnection, encode, show};
use anyhow::{Context, Result};

/// Sends a PING with this argument, and returns the messages before its answer.
///
/// # Errors
/// As [`RawConnection::read_reply`].
pub fn until_pong(raw: &mut RawConnection, word: &str) -> Result<Vec<String>> {
    raw.send(&encode(&["PING", word]))?;
    let mut received = Vec::new();
    loop {
        let reply = show(&raw.read_reply()?);
        if reply.ends_with(&format!("{word}\\r\\n")) {
            return Ok(received);
        }
        received.push(reply);
    }
}

/// The arguments of a command, which blanks separate; `''` is an empty one.
#[must_use]
pub fn arguments(command: &str) -> Vec<&str> {
    command.split(' ').map(|word| if word == "''" { "" } else { word }).collect()
}

/// Runs a conversation between the named connections, each with its protocol version. Returns the
/// messages to each connection, by command.
///
/// # Errors
/// Returns an error if a line names no connection; else as [`RawConnection::read_reply`].
pub fn run(
    conversation: &str,
    connections: &[(&str, &str)],
    connect: &dyn Fn() -> Result<RawConnection>,
) -> Result<Vec<String>> {
    let (mut raws, mut numbers) = (Vec::new(), Vec::new());
    for (name, protocol) in connections {
        let mut raw = connect()?;
        numbers.push((format!("{{{name}}}"), raw.number(&["CLIENT", "ID"])?.to_string()));
        raw.call(&["HELLO", protocol])?;
        raws.push(raw);
    }
    let mut notes = Vec::new();
    let lines = conversation.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    for (number, line) in lines.enumerate() {
        let (name, command) = line.split_once(' ').context("no command")?;
        let sender = connections
            .iter()
            .position(|(known, _)| *known == name)
            .context("unknown connection")?;
        let numbered = numbers
            .iter()
            .fold(command.to_owned(), |command, (name, number)| command.replace(name, number));
        for command in numbered.split(" ; ") {
            raws[sender].send(&encode(&arguments(command)))?;
        }
        // The sender first: its answer shows that the command has been executed.
        for turn in 0..raws.len() {
            let index = (sender + turn) % raws.len();
            let mut received = until_pong(&mut raws[index], &format!("pong{number}"))?;
            if command.starts_with("PUBLISH") {
                // The order of messages of several patterns is not defined.
                received.sort();
            }
            notes.push(format!("{line}\n    {}: {}", connections[index].0, received.join(" ")));
        }
    }
    Ok(notes)
}
