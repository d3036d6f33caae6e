//! Reports on histories without an explanation.

use crate::checker::Violation;
use crate::history::{Event, History, differences, show};
use crate::model::State;
use crate::reply::line;
use std::fmt::Write as _;
use std::path::PathBuf;

/// The most operations in a report; the file has all.
const SHOWN: usize = 40;

/// The operations since the last moment without a pending one, up to the first reply that has no
/// explanation, and the states that the model allows before.
pub fn describe(group: &str, history: &History, violation: &Violation) -> String {
    let mut text = String::new();
    let Violation { event, states, since, start, gave_up } = violation;
    let events = history.events();
    let end = events.iter().position(|(_, other)| other == event).unwrap_or(events.len());
    let what = match event {
        Event::CutOpened(number) | Event::CutClosed(number) => {
            let cut = &history.cuts[*number];
            format!("{} between {} and {}", cut.name, cut.from, cut.to)
        }
        Event::Invoked(number) | Event::Answered(number) => history.operations[*number].to_string(),
    };
    let why = if *gave_up { "has too many explanations" } else { "has no explanation" };
    let _ = writeln!(text, "the history of the keys {group}:* {why} up to\n  {}", what.trim());
    let _ = writeln!(text, "at the last moment without a pending operation:");
    add_states(&mut text, start);
    let shown = events[*since..=end.min(events.len() - 1)].iter();
    let invoked = shown.filter_map(|(_, event)| match event {
        Event::Invoked(number) => Some(history.operations[*number].to_string()),
        _ => None,
    });
    let invoked = invoked.collect::<Vec<_>>();
    let _ = writeln!(text, "the operations since, each with the ticks of its interval:");
    if invoked.len() > SHOWN {
        let _ = writeln!(text, "  ({} before these)", invoked.len() - SHOWN);
    }
    for operation in &invoked[invoked.len().saturating_sub(SHOWN)..] {
        let _ = writeln!(text, "  {operation}");
    }
    let _ =
        writeln!(text, "just before the last reply, with pending operations yet to take effect:");
    add_states(&mut text, states);
    if let Event::CutClosed(number) = event {
        let cut = &history.cuts[*number];
        let _ = writeln!(text, "the cut: {cut}");
        for state in states {
            let keys = differences(state.keys(), &cut.keys);
            let _ = writeln!(text, "  differs at its end in {}", line(&keys));
        }
    }
    text
}

fn add_states(text: &mut String, states: &[State]) {
    for state in states {
        let _ = writeln!(text, "  {}", show(state.keys()));
    }
}

/// Writes a history to a file in the folder for temporary files, and returns its path.
pub fn keep(name: &str, text: &str) -> PathBuf {
    let file = format!("cowherd-history-{name}-{}.txt", std::process::id());
    let path = std::env::temp_dir().join(file);
    if let Err(error) = std::fs::write(&path, text) {
        eprintln!("cannot write {}: {error}", path.display());
    }
    path
}
