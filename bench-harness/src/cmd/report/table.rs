// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tables, with the exact value behind each rounded one.

use super::html::Html;
use crate::size::format_size;
use crate::style::{thousands, time_ns};

/// A cell: what is shown, and the value itself if it was rounded for that.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cell {
    text: String,
    value: Option<String>,
    left: bool,
    class: &'static str,
}

impl Cell {
    /// Words.
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), value: None, left: true, class: "" }
    }

    fn value(shown: String, value: String) -> Self {
        Self { text: shown, value: Some(value), left: false, class: "" }
    }

    /// A dash: not measured, or not often enough.
    pub(super) fn none() -> Self {
        Self { left: false, ..Self::text("–") }
    }

    /// Nanoseconds.
    pub(super) fn time(ns: Option<f64>) -> Self {
        ns.map_or_else(Self::none, |ns| Self::value(time_ns(ns), ns.to_string()))
    }

    /// Nanoseconds for each TCE, three digits behind the point.
    pub(super) fn per_tce(ns: Option<f64>) -> Self {
        ns.map_or_else(Self::none, |ns| Self::value(format!("{ns:.3}"), ns.to_string()))
    }

    pub(super) fn count(count: u64) -> Self {
        Self::value(thousands(count), count.to_string())
    }

    pub(super) fn bytes(bytes: u64) -> Self {
        Self::value(format_size(bytes), bytes.to_string())
    }

    /// A number with so many digits behind the point.
    pub(super) fn number(value: Option<f64>, digits: usize) -> Self {
        value.map_or_else(Self::none, |v| Self::value(format!("{v:.digits$}"), v.to_string()))
    }

    /// A part of 1 in per cent.
    pub(super) fn share(part: Option<f64>) -> Self {
        part.map_or_else(Self::none, |part| {
            let per_cent = 100.0 * part;
            let digits = usize::from(per_cent < 9.95);
            Self::value(format!("{per_cent:.digits$} %"), part.to_string())
        })
    }

    /// With a class of the page's style.
    pub(super) fn class(self, class: &'static str) -> Self {
        Self { class, ..self }
    }

    pub(super) fn write(&self, html: &mut Html, name: &str, scope: Option<&str>) {
        let mut class = self.class.to_owned();
        if self.left && name == "td" {
            class.push_str(" l");
        }
        let class = class.trim();
        let mut attrs = Vec::new();
        if !class.is_empty() {
            attrs.push(("class", class));
        }
        attrs.extend(scope.map(|scope| ("scope", scope)));
        html.tag(name, &attrs, |h| match &self.value {
            Some(value) => h.leaf("data", &[("value", value)], &self.text),
            None => h.text(&self.text),
        });
    }
}

/// A table in a box that scrolls sideways if it has to.
pub(super) fn boxed(html: &mut Html, caption: &str, class: &str, body: impl FnOnce(&mut Html)) {
    let about = format!("Table: {caption}");
    let attrs =
        [("class", "scroll"), ("role", "region"), ("tabindex", "0"), ("aria-label", &*about)];
    html.tag("div", &attrs, |h| {
        let class = if class.is_empty() { vec![] } else { vec![("class", class)] };
        h.tag("table", &class, |h| {
            h.leaf("caption", &[], caption);
            body(h);
        });
    });
}

/// The heads of a table.
pub(super) fn heads<T: AsRef<str>>(html: &mut Html, names: &[T]) {
    html.tag("thead", &[], |h| {
        h.tag("tr", &[], |h| {
            for name in names {
                h.leaf("th", &[("scope", "col")], name.as_ref());
            }
        });
    });
}

/// A table whose rows begin with a name.
pub(super) fn table<T: AsRef<str>>(
    html: &mut Html,
    caption: &str,
    names: &[T],
    rows: &[(String, Vec<Cell>)],
) {
    boxed(html, caption, "", |h| {
        heads(h, names);
        h.tag("tbody", &[], |h| {
            for (name, cells) in rows {
                h.tag("tr", &[], |h| {
                    h.leaf("th", &[("scope", "row")], name);
                    cells.iter().for_each(|cell| cell.write(h, "td", None));
                });
            }
        });
    });
}

/// What a plot shows, as a table that opens.
pub(super) fn plot_table(
    html: &mut Html,
    first: &str,
    others: &[String],
    rows: Vec<(String, Vec<Cell>)>,
) {
    html.tag("details", &[], |h| {
        h.leaf("summary", &[], "as a table");
        let names: Vec<&str> =
            std::iter::once(first).chain(others.iter().map(String::as_str)).collect();
        table(h, "The numbers of the plot above", &names, &rows);
    });
}
