//! Output of results: files, the terminal, and a self-contained HTML page.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::machine::Machine;
use super::table::Table;

/// Writes `text` to a file, to the terminal if the path is `-`, or nowhere if there is no path.
///
/// # Errors
/// Returns an error if the file cannot be written.
pub fn write(path: Option<&Path>, text: &str) -> Result<()> {
    match path {
        None => {}
        Some(path) if path.as_os_str() == "-" => println!("{text}"),
        Some(path) => {
            fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    Ok(())
}

/// HTML page that is built from top to bottom.
#[derive(Debug)]
pub struct HtmlPage {
    body: String,
    title: String,
}

impl HtmlPage {
    /// Creates a page with a title and a line about the machine.
    pub fn new(title: &str, machine: &Machine) -> Self {
        let mut page = Self { body: String::new(), title: title.to_owned() };
        page.put(&format!("<h1>{}</h1>", escaped(title)));
        page.put(&format!("<p class=machine>{}</p>", escaped(&machine.line())));
        page
    }

    fn put(&mut self, html: &str) {
        self.body.push_str(html);
        self.body.push('\n');
    }

    /// Appends a heading and a paragraph.
    pub fn section(&mut self, title: &str, text: &str) {
        self.put(&format!("<h2>{}</h2><p>{}</p>", escaped(title), escaped(text)));
    }

    /// Appends a chart, which scrolls horizontally on a narrow screen.
    pub fn svg(&mut self, svg: &str) {
        self.put(&format!("<figure>{svg}</figure>"));
    }

    /// Appends a list of sentences.
    pub fn list(&mut self, sentences: &[String]) {
        let items = sentences.iter().map(|sentence| format!("<li>{}</li>", escaped(sentence)));
        self.put(&format!("<ul>{}</ul>", items.collect::<String>()));
    }

    /// Appends a table, which scrolls horizontally on a narrow screen.
    pub fn table(&mut self, table: &Table) {
        let Table { title, head, rows } = table;
        let caption = escaped(title);
        let mut html = format!("<div class=scroll><table><caption>{caption}</caption><thead><tr>");
        for title in head {
            let _ = write!(html, "<th scope=col>{}</th>", escaped(title));
        }
        html.push_str("</tr></thead><tbody>");
        for row in rows {
            html.push_str("<tr>");
            for (index, cell) in row.iter().enumerate() {
                let tag = if index == 0 { "th scope=row" } else { "td" };
                let end = if index == 0 { "th" } else { "td" };
                let _ = write!(html, "<{tag}>{}</{end}>", lines(cell));
            }
            html.push_str("</tr>");
        }
        html.push_str("</tbody></table></div>");
        self.put(&html);
    }

    /// Completes the document.
    pub fn finish(self) -> String {
        format!(
            "<!doctype html>\n<html lang=en><head><meta charset=utf-8>\n<meta name=viewport \
             content=\"width=device-width,initial-scale=1\">\n<title>{}</title>\n<style>{STYLE}\
             </style></head>\n<body><main>\n{}</main></body></html>\n",
            escaped(&self.title),
            self.body
        )
    }
}

/// Escapes a cell's text; lines after the first are set small.
fn lines(text: &str) -> String {
    let (first, more) = text.split_once('\n').unwrap_or((text, ""));
    let more = escaped(more).replace('\n', "<br>");
    let more = if more.is_empty() { more } else { format!("<br><small>{more}</small>") };
    format!("{}{more}", escaped(first))
}

/// Formats an integer with thousands separators: `1,500,000`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut apart = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            apart.push(',');
        }
        apart.push(digit);
    }
    apart
}

/// Escapes a text for HTML.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const STYLE: &str = "\
:root{color-scheme:light dark;--paper:#fcfbf8;--ink:#1c232b;--soft:#5a6572;--line:#dfe3e8}\
@media (prefers-color-scheme:dark){\
:root{--paper:#14181d;--ink:#e6eaee;--soft:#9aa5b1;--line:#343a42}}\
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,sans-serif}\
main{max-width:1060px;margin:0 auto;padding:2rem 1rem 4rem}\
h1{font-size:1.7rem;line-height:1.25;margin:0 0 .4rem}h2{font-size:1.25rem;margin:2.8rem 0 .4rem}\
p,ul{margin:.3rem 0 1rem;max-width:50rem}ul{padding-left:1.1rem}li{margin:.45rem 0}\
.machine{color:var(--soft);font-size:.9rem}\
figure{margin:0 0 1.5rem;overflow-x:auto}\
figure svg{display:block;width:100%;min-width:36rem;height:auto}\
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.88rem;white-space:nowrap;\
margin:1.6rem 0 0}caption{text-align:left;font-weight:600;padding-bottom:.3rem}\
th,td{padding:.4rem .7rem;text-align:right;vertical-align:top;border-bottom:1px solid var(--line);\
font-variant-numeric:tabular-nums}th:first-child{text-align:left;padding-left:0}\
thead th{color:var(--soft);font-weight:500;vertical-align:bottom}tbody th{font-weight:600}\
small{color:var(--soft)}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_complete_and_refers_to_no_other_host() {
        let mut page = HtmlPage::new("A <title>", &Machine::read());
        page.section("One & two", "Text.");
        let rows = vec![vec!["a\"b".to_owned(), "1 us\n[1..2]".to_owned()]];
        page.table(&Table { title: "Latency".to_owned(), head: vec!["server", "p99"], rows });
        let html = page.finish();
        assert!(html.starts_with("<!doctype html>") && html.ends_with("</html>\n"));
        assert!(html.contains("<h1>A &lt;title&gt;</h1>") && html.contains("a&quot;b"));
        assert!(html.contains("1 us<br><small>[1..2]</small>"), "{html}");
        assert!(!html.contains("http:") && !html.contains("https:"), "{html}");
        assert_eq!(html.matches("<tr>").count(), html.matches("</tr>").count());
    }

    #[test]
    fn thousands_separators() {
        let apart = [0, 999, 1000, 1_500_000].map(thousands);
        assert_eq!(apart, ["0", "999", "1,000", "1,500,000"]);
    }

    #[test]
    fn a_write_error_names_the_file() {
        let error = write(Some(Path::new("/no/such/folder/x")), "text").unwrap_err();
        assert!(format!("{error:#}").contains("/no/such/folder/x"), "{error:#}");
    }
}
