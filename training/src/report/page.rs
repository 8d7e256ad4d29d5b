//! HTML pages: markup, tables, sections.

use std::fmt;

use sha2::{Digest, Sha256};

use super::picture::base64;

/// The script that sorts tables.
const SORT: &str = include_str!("sort.js");

/// Markup. Plain text is escaped when it becomes markup, so that none gets into a page unescaped.
#[derive(Clone, Debug, Default)]
pub struct Html(String);

impl Html {
    /// Text that is markup already.
    pub fn raw(markup: impl Into<String>) -> Self {
        Self(markup.into())
    }
}

impl From<&str> for Html {
    fn from(text: &str) -> Self {
        let mut markup = String::with_capacity(text.len());
        for character in text.chars() {
            match character {
                '&' => markup += "&amp;",
                '<' => markup += "&lt;",
                '>' => markup += "&gt;",
                '"' => markup += "&quot;",
                '\'' => markup += "&#39;",
                _ => markup.push(character),
            }
        }
        Self(markup)
    }
}

impl From<String> for Html {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl FromIterator<Html> for Html {
    fn from_iter<I: IntoIterator<Item = Html>>(parts: I) -> Self {
        Self(parts.into_iter().map(|part| part.0).collect())
    }
}

impl fmt::Display for Html {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A paragraph.
pub fn paragraph(text: impl Into<Html>) -> Html {
    Html(format!("<p>{}</p>\n", text.into()))
}

/// Several figures side by side, as many as the width has room for.
pub fn grid(figures: Html) -> Html {
    Html(format!("<div class=\"charts\">\n{figures}</div>\n"))
}

/// A collapsed section.
pub fn details(summary: &str, content: &Html) -> Html {
    let summary = Html::from(summary);
    Html(format!("<details><summary>{summary}</summary>\n{content}</details>\n"))
}

/// Preformatted text.
pub fn preformatted(text: &str) -> Html {
    Html(format!("<pre tabindex=\"0\">{}</pre>\n", Html::from(text)))
}

/// A table that scrolls by itself; the first cell of a row is its heading.
pub fn table(name: &str, head: &[&str], rows: impl IntoIterator<Item = Vec<Html>>) -> Html {
    let rows = rows.into_iter().map(|row| row.into_iter().map(|cell| (cell, None)).collect());
    any_table(name, "", head, rows)
}

/// The same with headings that sort it by their column, where scripts are allowed. Beside the text of
/// a cell is the number that it is sorted by, if it has one.
pub fn sortable_table(
    name: &str,
    head: &[&str],
    rows: impl IntoIterator<Item = Vec<(Html, Option<f64>)>>,
) -> Html {
    any_table(name, SORTABLE, head, rows.into_iter())
}

const SORTABLE: &str = " class=\"sortable\"";

fn any_table(
    name: &str,
    class: &str,
    head: &[&str],
    rows: impl Iterator<Item = Vec<(Html, Option<f64>)>>,
) -> Html {
    let head: String =
        head.iter().map(|cell| format!("<th scope=\"col\">{}</th>", Html::from(*cell))).collect();
    let mut body = String::new();
    for row in rows {
        for (i, (cell, value)) in row.iter().enumerate() {
            let value = value.map(|value| format!(" data-value=\"{value}\"")).unwrap_or_default();
            body += &match i {
                0 => format!("<tr><th scope=\"row\"{value}>{cell}</th>"),
                _ => format!("<td{value}>{cell}</td>"),
            };
        }
        body += "</tr>\n";
    }
    let name = Html::from(name);
    Html(format!(
        "<div class=\"scroll\" role=\"region\" aria-label=\"{name}\" tabindex=\"0\"><table{class}>\n\
         <thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>\n"
    ))
}

/// Names with their values, in large type side by side.
pub fn cards(facts: &[(&str, String, String)]) -> Html {
    let cards: String = facts
        .iter()
        .map(|(name, value, remark)| {
            let [name, value, remark] = [*name, value, remark].map(Html::from);
            format!("<div><dt>{name}</dt><dd>{value}<small>{remark}</small></dd></div>\n")
        })
        .collect();
    Html(format!("<dl class=\"cards\">\n{cards}</dl>\n"))
}

/// Names with their values, one below the other.
pub fn facts(facts: impl IntoIterator<Item = (String, String)>) -> Html {
    let rows: String = facts
        .into_iter()
        .map(|(name, value)| {
            format!("<dt>{}</dt><dd>{}</dd>\n", Html::from(name), Html::from(value))
        })
        .collect();
    Html(format!("<dl class=\"facts\">\n{rows}</dl>\n"))
}

/// A self-contained page.
pub struct Page {
    title: String,
    refresh: bool,
    body: String,
}

impl Page {
    /// A page with a heading; `refresh` has the browser reload it every half minute.
    pub fn new(title: String, refresh: bool) -> Self {
        Self { title, refresh, body: String::new() }
    }

    /// Adds content.
    pub fn add(&mut self, content: Html) {
        self.body += &content.0;
    }

    /// Adds a section with a heading.
    pub fn section(&mut self, heading: &str, content: Html) {
        let heading = Html::from(heading);
        self.body += &format!("<section>\n<h2>{heading}</h2>\n{content}</section>\n");
    }

    /// The whole file. The policy in its head forbids the browser to load anything, and to run anything
    /// but the script that sorts tables, where there are such.
    pub fn render(&self) -> String {
        let title = Html::from(self.title.as_str());
        let refresh = match self.refresh {
            true => "<meta http-equiv=\"refresh\" content=\"30\"/>\n",
            false => "",
        };
        let is_sortable = self.body.contains(SORTABLE);
        let (policy, script) = match is_sortable {
            true => {
                let hash = base64(&Sha256::digest(SORT));
                (format!("; script-src 'sha256-{hash}'"), format!("<script>{SORT}</script>\n"))
            }
            false => Default::default(),
        };
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
             <meta http-equiv=\"Content-Security-Policy\" \
             content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:{policy}\"/>\n\
             {refresh}\
             <title>{title}</title>\n<style>\n{}</style>\n</head>\n<body>\n<main>\n\
             <h1>{title}</h1>\n{}</main>\n{script}</body>\n</html>\n",
            include_str!("style.css"),
            self.body
        )
    }
}
