//! docs/commands.md: the tables of commands are generated from the command table, and the notes in
//! their last column are kept.
//!
//! ```sh
//! cargo test -p cowherd --lib -- --ignored bless_the_page_of_commands
//! ```

use std::collections::{BTreeMap, BTreeSet};

use super::{CommandGroup, CommandTable, all};

const PAGE: &str = include_str!("../../../../docs/commands.md");

/// The heading of a group's section.
fn heading(group: CommandGroup) -> String {
    let name = group.name().replace('-', " ");
    match name.as_str() {
        "pubsub" => "## Pub/Sub".to_owned(),
        "hyperloglog" => "## HyperLogLog".to_owned(),
        name => format!("## {}{}", name[..1].to_uppercase(), &name[1..]),
    }
}

/// The rows of a table by command: name, and first version.
type Rows = BTreeMap<String, &'static str>;

/// The rows of the sections by heading.
fn sections() -> BTreeMap<String, Rows> {
    let mut sections: BTreeMap<String, Rows> = BTreeMap::new();
    for row in CommandTable::new(all(), &[]).unwrap().rows() {
        if row.command.group != CommandGroup::Testing {
            let name = row.name.replace('|', " ").to_uppercase();
            sections.entry(heading(row.command.group)).or_default().insert(name, row.command.since);
        }
    }
    sections
}

/// The page with new tables, and the notes that no command has any more.
fn generate(page: &str) -> (String, Vec<String>) {
    let is_row = |line: &&str| line.starts_with('|');
    let mut notes: BTreeMap<String, String> = BTreeMap::new();
    for row in page.lines().filter(is_row) {
        let mut cells = row.trim_matches('|').splitn(3, '|').map(str::trim);
        let (name, note) = (cells.next().unwrap_or(""), cells.nth(1).unwrap_or(""));
        if !note.is_empty() && name != "Command" && !name.starts_with('-') {
            notes.insert(name.to_owned(), note.to_owned());
        }
    }
    let (sections, mut seen) = (sections(), BTreeSet::new());
    let (mut new, mut section) = (String::new(), None);
    for line in page.lines() {
        if line.starts_with("## ") {
            section = sections.get_key_value(line);
            seen.extend(section.map(|(heading, _)| heading.clone()));
        }
        if !is_row(&line) {
            new.push_str(line);
            new.push('\n');
        } else if line.starts_with("| Command |") {
            new.push_str("| Command | Since | Notes |\n|---|---|---|\n");
            for (name, since) in section.map(|(_, rows)| rows).into_iter().flatten() {
                let note = notes.remove(name).map_or(String::new(), |note| format!("{note} "));
                new.push_str(&format!("| {name} | {since} | {note}|\n"));
            }
        }
    }
    assert!(sections.keys().all(|heading| seen.contains(heading)), "a group has no section");
    (new, notes.into_keys().collect())
}

#[test]
fn the_page_of_commands_is_up_to_date() {
    let (page, left) = generate(PAGE);
    assert!(left.is_empty(), "notes about unknown commands: {left:?}");
    let odd = page.lines().zip(PAGE.lines()).find(|(new, old)| new != old);
    assert!(page == PAGE, "generate docs/commands.md anew (see above); first difference: {odd:?}");
}

#[test]
#[ignore = "writes docs/commands.md"]
fn bless_the_page_of_commands() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/commands.md");
    let (page, left) = generate(&std::fs::read_to_string(path).unwrap());
    assert!(left.is_empty(), "notes about unknown commands: {left:?}");
    std::fs::write(path, page).unwrap();
}
