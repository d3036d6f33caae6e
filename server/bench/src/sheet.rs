//! Tables before they have a form: for the terminal, for the report.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, ContentArrangement, Table};

/// A table.
#[derive(Debug)]
pub struct Sheet {
    /// What it shows.
    pub title: String,
    /// The heads of its columns.
    pub head: Vec<&'static str>,
    /// Its rows, named by their first cell.
    pub rows: Vec<Vec<String>>,
}

impl Sheet {
    /// Its title and its rows, as text.
    pub fn text(&self) -> String {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(&self.head).add_rows(&self.rows);
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        format!("{}\n{table}\n", self.title)
    }
}

/// All of them as Markdown, each below a heading.
pub fn markdown(sheets: &[Sheet]) -> String {
    let cell = |text: &String| text.replace('|', "\\|").replace('\n', "<br>");
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = String::new();
    for Sheet { title, head, rows } in sheets {
        text.push_str(&format!("### {title}\n\n"));
        text.push_str(&line(head.iter().map(|head| (*head).to_owned()).collect()));
        let rule = |index| if index == 0 { "---" } else { "--:" };
        text.push_str(&line((0..head.len()).map(|index| rule(index).to_owned()).collect()));
        for row in rows {
            text.push_str(&line(row.iter().map(cell).collect()));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_markdown_has_a_rule_below_its_head() {
        let rows = vec![vec!["a|b".to_owned(), "35 ms\n34..36".to_owned()]];
        let sheet = Sheet { title: "Fork".to_owned(), head: vec!["server", "time"], rows };
        let expected = "### Fork\n\n| server | time |\n| --- | --: |\n\
                        | a\\|b | 35 ms<br>34..36 |\n\n";
        assert_eq!(markdown(&[sheet]), expected);
    }

    #[test]
    fn every_cell_stands_in_the_text() {
        let rows = vec![vec!["redis".to_owned(), "35 ms".to_owned()]];
        let text = Sheet { title: "Fork".to_owned(), head: vec!["server", "time"], rows }.text();
        for word in ["Fork", "server", "time", "redis", "35 ms"] {
            assert!(text.contains(word), "{word}: {text}");
        }
    }
}
