// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Plots with a line for each operation: how far times reach, and values as bars or marks.

use super::html::Html;
use super::scale::{Scale, span};
use super::svg::{About, Series, bar, columns, dot, figure, label, line};
use crate::recorder::Summary;
use crate::style::{time_ns, time_or_dash};

const WIDE: u32 = 1160;
const NARROW: u32 = 360;
const LINE: f64 = 19.0;
const TOP: f64 = 6.0;
const BELOW: f64 = 24.0;
/// Width of a letter of a name, about.
const LETTER: f64 = 6.9;

/// One line of a plot.
#[derive(Debug, Clone)]
pub(super) struct Row<T> {
    /// The operation; empty if it is that of the line above.
    pub(super) name: String,
    pub(super) series: Series,
    pub(super) value: T,
}

/// Both sizes of a plot with so many lines.
fn sizes(lines: usize) -> [(u32, u32); 2] {
    let height = (TOP + BELOW + LINE * lines as f64) as u32;
    [(WIDE, height), (NARROW, height)]
}

/// Where values begin: behind the longest name, but not behind half of the plot.
fn left<T>(rows: &[Row<T>], width: u32) -> f64 {
    let longest = rows.iter().map(|r| r.name.chars().count()).max().unwrap_or(0);
    (longest as f64 * LETTER + 14.0).min(f64::from(width) * 0.42)
}

fn middle(nth: usize) -> f64 {
    TOP + LINE * (nth as f64 + 0.5)
}

fn name(html: &mut Html, left: f64, nth: usize, name: &str) {
    let most = ((left - 10.0) / LETTER) as usize;
    let text = if name.chars().count() > most {
        name.chars().take(most.saturating_sub(1)).chain(['…']).collect()
    } else {
        name.to_owned()
    };
    label(html, (left - 10.0, middle(nth) + 4.0), "end", "name", &text);
}

fn time_columns(html: &mut Html, x: &Scale, width: u32, bottom: f64) {
    let ticks = x.ticks();
    let every = if width == WIDE { 1 } else { ticks.len().div_ceil(4) };
    let named: Vec<_> =
        ticks.into_iter().step_by(every).map(|t| (t, super::scale::time(t))).collect();
    columns(html, x, &named, (TOP, bottom));
}

/// From the shortest to the longest time of each operation, what most of them take, and the median.
pub(super) fn ranges(html: &mut Html, rows: &[Row<Summary>]) {
    let Some(span) = span(rows.iter().flat_map(|r| [r.value.min, r.value.max]).flatten()) else {
        return;
    };
    let one = |row: &Row<Summary>| {
        let p = row.value.p;
        format!("{}: median {}, 99 % {}.", row.name, time_or_dash(p.p50), time_or_dash(p.p99))
    };
    let about = About {
        id: "latency-ranges".to_owned(),
        title: "Time of a call: shortest to longest (thin), median to 99 % (thick), median (dot)"
            .to_owned(),
        text: rows.iter().map(one).collect::<Vec<_>>().join(" "),
    };
    figure(html, &about, &sizes(rows.len()), |h, width| {
        let left = left(rows, width);
        let x = Scale::log(span, (left, f64::from(width) - 26.0));
        time_columns(h, &x, width, TOP + LINE * rows.len() as f64);
        for (nth, row) in rows.iter().enumerate() {
            name(h, left, nth, &row.name);
            let (y, hue, summary) = (middle(nth), row.series.stroke(), &row.value);
            if let (Some(min), Some(max)) = (summary.min, summary.max) {
                line(h, &format!("span {hue}"), (x.at(min), y), (x.at(max), y));
                for end in [min, max] {
                    line(h, &format!("span {hue}"), (x.at(end), y - 3.0), (x.at(end), y + 3.0));
                }
            }
            if let (Some(p50), Some(p99)) = (summary.p.p50, summary.p.p99) {
                line(h, &format!("core {hue}"), (x.at(p50), y), (x.at(p99), y));
            }
            if let Some(middle) = summary.p.p50.or(summary.mean) {
                let told = format!("{} {}", row.name, time_ns(middle));
                dot(h, &row.series.fill(), (x.at(middle), y), 4.5, &told);
            }
        }
    });
}

/// A value with how it is written.
#[derive(Debug, Clone)]
pub(super) struct Amount {
    pub(super) value: f64,
    pub(super) text: String,
}

/// Bars from 0.
pub(super) fn bars(html: &mut Html, about: &About, rows: &[Row<Amount>]) {
    let most = rows.iter().map(|r| r.value.value).fold(0.0, f64::max);
    let written = rows.iter().map(|r| r.value.text.chars().count()).max().unwrap_or(0);
    figure(html, about, &sizes(rows.len()), |h, width| {
        let left = left(rows, width);
        let room = written as f64 * LETTER + 12.0;
        let x = Scale::linear((0.0, most), (left, f64::from(width) - room));
        line(h, "axis", (left, TOP), (left, TOP + LINE * rows.len() as f64));
        for (nth, row) in rows.iter().enumerate() {
            name(h, left, nth, &row.name);
            let (y, end) = (middle(nth), x.at(row.value.value));
            // What is not nothing is seen.
            let length = if row.value.value > 0.0 { (end - left).max(1.5) } else { 0.0 };
            let told = format!("{} {}", row.name, row.value.text);
            bar(h, &row.series.fill(), (left, y - 5.5), (length, 11.0), &told);
            label(h, (left + length + 6.0, y + 4.0), "start", "value", &row.value.text);
        }
    });
}

/// Marks on a logarithmic axis of time; nothing without one above 0.
pub(super) fn marks(html: &mut Html, about: &About, rows: &[Row<Amount>]) {
    let Some(span) = span(rows.iter().map(|r| r.value.value)) else { return };
    figure(html, about, &sizes(rows.len()), |h, width| {
        let left = left(rows, width);
        let x = Scale::log(span, (left + 8.0, f64::from(width) - 70.0));
        time_columns(h, &x, width, TOP + LINE * rows.len() as f64);
        for (nth, row) in rows.iter().enumerate() {
            name(h, left, nth, &row.name);
            let (y, at) = (middle(nth), x.at(row.value.value));
            if row.value.value > 0.0 {
                let hue = row.series.stroke();
                line(h, &format!("span {hue}"), (left, y), (at, y));
                let told = format!("{} {}", row.name, row.value.text);
                dot(h, &row.series.fill(), (at, y), 4.5, &told);
            }
            let from = if row.value.value > 0.0 { at + 9.0 } else { left + 4.0 };
            label(h, (from, y + 4.0), "start", "value", &row.value.text);
        }
    });
}
