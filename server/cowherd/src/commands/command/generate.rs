//! Arguments by chance, such as the syntax of a command allows them, for tests.

use crate::commands::table::CommandRow;

use super::{Argument, arguments};

/// Chooses what there is to choose.
pub trait Draw {
    /// A number below `bound`, which is not 0.
    fn below(&mut self, bound: usize) -> usize;

    /// A word for a plain argument, by its type, as COMMAND DOCS names them, and its name.
    fn word(&mut self, kind: &str, name: &str) -> Vec<u8>;
}

/// The words of a request for a command, its name first; without what follows the name if no
/// syntax of it is known.
pub fn request(row: &CommandRow, draw: &mut dyn Draw) -> Vec<Vec<u8>> {
    let mut words: Vec<Vec<u8>> = row.name.split('|').map(|name| name.into()).collect();
    add(&arguments(row), draw, &mut words);
    words
}

fn add(arguments: &[Argument], draw: &mut dyn Draw, words: &mut Vec<Vec<u8>>) {
    for argument in arguments {
        if argument.optional && draw.below(2) == 0 {
            continue;
        }
        let times = if argument.multiple { 1 + draw.below(3) } else { 1 };
        for _ in 0..times {
            add_once(argument, draw, words);
        }
    }
}

fn add_once(argument: &Argument, draw: &mut dyn Draw, words: &mut Vec<Vec<u8>>) {
    words.extend(argument.token.iter().map(|token| token.clone().into_bytes()));
    match argument.plain {
        Some("pure-token") => {}
        Some(kind) => words.push(draw.word(kind, &argument.name)),
        None if argument.choice => {
            let chosen = &argument.parts[draw.below(argument.parts.len())];
            add(std::slice::from_ref(chosen), draw, words);
        }
        None => add(&argument.parts, draw, words),
    }
}
