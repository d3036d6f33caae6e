//! Table of texts, rendered as text for a terminal or as Markdown; [`HtmlPage`] renders it as HTML.
//!
//! [`HtmlPage`]: crate::report::HtmlPage

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, ContentArrangement};

/// Table with a title, a head and rows.
#[derive(Debug)]
pub struct Table {
    /// Text above the table.
    pub title: String,
    /// Column heads.
    pub head: Vec<&'static str>,
    /// Cells by row; the first cell of a row names the row. A cell may have several lines.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// Renders title and rows for a terminal.
    pub fn text(&self) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(&self.head).add_rows(&self.rows);
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        format!("{}\n{table}\n", self.title)
    }
}

/// Renders tables as Markdown, each below a heading.
pub fn markdown(tables: &[Table]) -> String {
    let cell = |text: &String| text.replace('|', "\\|").replace('\n', "<br>");
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = String::new();
    for Table { title, head, rows } in tables {
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
    fn markdown_has_a_rule_below_the_head() {
        let rows = vec![vec!["a|b".to_owned(), "35 ms\n34..36".to_owned()]];
        let table = Table { title: "Fork".to_owned(), head: vec!["server", "time"], rows };
        let expected = "### Fork\n\n| server | time |\n| --- | --: |\n\
                        | a\\|b | 35 ms<br>34..36 |\n\n";
        assert_eq!(markdown(&[table]), expected);
    }

    #[test]
    fn text_holds_every_cell() {
        let rows = vec![vec!["redis".to_owned(), "35 ms".to_owned()]];
        let text = Table { title: "Fork".to_owned(), head: vec!["server", "time"], rows }.text();
        for word in ["Fork", "server", "time", "redis", "35 ms"] {
            assert!(text.contains(word), "{word}: {text}");
        }
    }
}
