// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What all plots have: a frame with lines and numbers, curves, a caption with a button to save it.

use std::fmt::Write;

use super::html::Html;
use super::scale::Scale;

/// Hues that there are; more series repeat them with a dashed line.
const HUES: usize = 6;

/// What is left on the right of an axis, at least.
const ROOM: f64 = 10.0;

/// A series of a plot, which has a hue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Series(pub(super) usize);

impl Series {
    /// The class of a line.
    pub(super) fn stroke(self) -> String {
        let dash = if self.0 >= HUES { " d1" } else { "" };
        format!("s{}{dash}", self.0 % HUES)
    }

    /// The class of an area.
    pub(super) fn fill(self) -> String {
        format!("f{}", self.0 % HUES)
    }

    /// A sample of its line, for a key or a table.
    pub(super) fn swatch(self, html: &mut Html) {
        let view = [("viewBox", "0 0 26 10"), ("class", "sw"), ("aria-hidden", "true")];
        html.tag("svg", &view, |h| {
            let class = format!("{} curve", self.stroke());
            h.void(
                "path",
                &[("class", &class), ("d", "M1 5H25"), ("stroke-width", "3"), ("fill", "none")],
            );
        });
    }
}

/// What a plot is called and says.
#[derive(Debug, Clone)]
pub(super) struct About {
    /// Unique on the page, without blanks; also the file's name when it is saved.
    pub(super) id: String,
    pub(super) title: String,
    /// What somebody who cannot see it should know.
    pub(super) text: String,
}

/// A plot with its caption; `draw` gets the width that it has, and is called for a wide and for a narrow
/// screen.
pub(super) fn figure(
    html: &mut Html,
    about: &About,
    sizes: &[(u32, u32)],
    draw: impl Fn(&mut Html, u32),
) {
    html.tag("figure", &[], |h| {
        h.tag("figcaption", &[], |h| {
            h.leaf("span", &[], &about.title);
            let name = format!("{}.svg", about.id);
            let label = format!("Save the plot {} as SVG", about.title);
            let attrs = [
                ("type", "button"),
                ("data-save", &*name),
                ("aria-label", &*label),
                ("hidden", "hidden"),
            ];
            h.leaf("button", &attrs, "save SVG");
        });
        for (nth, (width, height)) in sizes.iter().enumerate() {
            let shown = match (sizes.len(), nth) {
                (1, _) => "plot",
                (_, 0) => "plot wide",
                _ => "plot narrow",
            };
            let (title, desc) = (format!("{}-t{nth}", about.id), format!("{}-d{nth}", about.id));
            let (view, by) = (format!("0 0 {width} {height}"), format!("{title} {desc}"));
            let attrs =
                [("class", shown), ("viewBox", &view), ("role", "img"), ("aria-labelledby", &by)];
            h.tag("svg", &attrs, |h| {
                h.leaf("title", &[("id", &title)], &about.title);
                h.leaf("desc", &[("id", &desc)], &about.text);
                draw(h, *width);
            });
        }
    });
}

/// Text at a place; `anchor` is `start`, `middle` or `end`.
pub(super) fn label(html: &mut Html, (x, y): (f64, f64), anchor: &str, class: &str, text: &str) {
    let (x, y) = (px(x), px(y));
    html.leaf("text", &[("x", &x), ("y", &y), ("text-anchor", anchor), ("class", class)], text);
}

/// A straight line.
pub(super) fn line(html: &mut Html, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
    let d = format!("M{} {}L{} {}", px(x1), px(y1), px(x2), px(y2));
    html.void("path", &[("class", class), ("d", &d)]);
}

/// A line through points.
pub(super) fn curve(html: &mut Html, class: &str, points: &[(f64, f64)]) {
    if points.is_empty() {
        return;
    }
    let mut d = String::new();
    for (nth, (x, y)) in points.iter().enumerate() {
        let _ = write!(d, "{}{} {}", if nth == 0 { 'M' } else { 'L' }, px(*x), px(*y));
    }
    html.void("path", &[("class", class), ("d", &d)]);
}

/// A dot with what a pointer over it is told.
pub(super) fn dot(html: &mut Html, class: &str, (x, y): (f64, f64), radius: f64, about: &str) {
    let (x, y, r) = (px(x), px(y), px(radius));
    html.tag("circle", &[("class", class), ("cx", &x), ("cy", &y), ("r", &r)], |h| {
        h.leaf("title", &[], about);
    });
}

/// A bar with what a pointer over it is told.
pub(super) fn bar(
    html: &mut Html,
    class: &str,
    (x, y): (f64, f64),
    (w, h): (f64, f64),
    about: &str,
) {
    let (x, y, w, h) = (px(x), px(y), px(w.max(0.0)), px(h.max(0.0)));
    let attrs =
        [("class", class), ("x", &*x), ("y", &y), ("width", &w), ("height", &h), ("rx", "2")];
    html.tag("rect", &attrs, |h| h.leaf("title", &[], about));
}

/// Lines across, with numbers on the left.
pub(super) fn rows(
    html: &mut Html,
    y: &Scale,
    (left, right): (f64, f64),
    text: impl Fn(f64) -> String,
) {
    for tick in y.ticks() {
        let at = y.at(tick);
        line(html, "grid", (left, at), (right, at));
        label(html, (left - 6.0, at + 3.5), "end", "", &text(tick));
    }
}

/// Lines down, with numbers below.
pub(super) fn columns(
    html: &mut Html,
    x: &Scale,
    ticks: &[(f64, String)],
    (top, bottom): (f64, f64),
) {
    for (tick, text) in ticks {
        let at = x.at(*tick);
        line(html, "grid", (at, top), (at, bottom));
        // The last one may not reach out of the plot.
        let half = 3.2 * text.chars().count() as f64;
        let at = at.min(x.end() + ROOM - half);
        label(html, (at, bottom + 15.0), "middle", "", text);
    }
}

/// A place with a tenth of a pixel.
fn px(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}
