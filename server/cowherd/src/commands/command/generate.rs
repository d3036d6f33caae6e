//! Random requests that fit the syntax of a command, for tests.

use crate::commands::table::CommandRow;

use super::{Argument, arguments};

/// The choices that a generated request depends on.
pub trait ArgumentChooser {
    /// A number below `bound`, which is not 0.
    fn below(&mut self, bound: usize) -> usize;

    /// A word for the argument `name` of the type `kind`, as COMMAND DOCS names them.
    fn word(&mut self, kind: &str, name: &str) -> Vec<u8>;
}

/// The words of a request for a command, its name first. A command without a known syntax gets no
/// arguments.
pub fn generate_request(row: &CommandRow, chooser: &mut dyn ArgumentChooser) -> Vec<Vec<u8>> {
    let mut words: Vec<Vec<u8>> = row.name.split('|').map(|name| name.into()).collect();
    add(&arguments(row.command), chooser, &mut words);
    words
}

fn add(arguments: &[Argument], chooser: &mut dyn ArgumentChooser, words: &mut Vec<Vec<u8>>) {
    for argument in arguments {
        if argument.optional && chooser.below(2) == 0 {
            continue;
        }
        let times = if argument.multiple { 1 + chooser.below(3) } else { 1 };
        for _ in 0..times {
            add_once(argument, chooser, words);
        }
    }
}

fn add_once(argument: &Argument, chooser: &mut dyn ArgumentChooser, words: &mut Vec<Vec<u8>>) {
    words.extend(argument.token.iter().map(|token| token.clone().into_bytes()));
    match argument.plain {
        Some("pure-token") => {}
        Some(kind) => words.push(chooser.word(kind, &argument.name)),
        None if argument.choice => {
            let chosen = &argument.parts[chooser.below(argument.parts.len())];
            add(std::slice::from_ref(chosen), chooser, words);
        }
        None => add(&argument.parts, chooser, words),
    }
}
