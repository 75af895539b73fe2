// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How an operation's times changed from run to run.

use super::html::Html;
use super::scale::{Scale, span, time};
use super::svg::{About, Series, curve, dot, figure, label, line, rows};
use crate::style::time_ns;

const SIZE: (u32, u32) = (400, 230);
const LEFT: f64 = 58.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 200.0;
/// With more runs than this, single ones are no dots.
const DOTS: usize = 60;

/// One run, or the runs of one build.
#[derive(Debug, Clone)]
pub(super) struct Point {
    /// What a pointer over it is told.
    pub(super) about: String,
    pub(super) min: Option<f64>,
    pub(super) p50: Option<f64>,
    pub(super) p99: Option<f64>,
    pub(super) mark: Option<Mark>,
}

/// What is marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    Slower,
    Faster,
}

/// A line of the plot: its name, its classes, and its value at a point.
type Line = (&'static str, &'static str, fn(&Point) -> Option<f64>);

/// min, p50 and p99 from point to point; `ends` are written below the first and the last.
pub(super) fn plot(html: &mut Html, about: &About, points: &[Point], ends: [&str; 2]) {
    let Some(span) = span(points.iter().flat_map(|p| [p.min, p.p50, p.p99]).flatten()) else {
        return;
    };
    figure(html, about, &[SIZE], |h, width| {
        let right = f64::from(width) - 34.0;
        let y = Scale::log(span, (BOTTOM, TOP + 10.0));
        let last = points.len().saturating_sub(1) as f64;
        let x = Scale::linear((-0.2, last + 0.2), (LEFT, right));
        rows(h, &y, (LEFT, right), time);
        label(h, (LEFT, BOTTOM + 18.0), "start", "", ends[0]);
        if points.len() > 1 {
            label(h, (right, BOTTOM + 18.0), "end", "", ends[1]);
        }
        for (nth, mark) in points.iter().enumerate().filter_map(|(n, p)| p.mark.map(|m| (n, m))) {
            mark_at(h, x.at(nth as f64), mark);
        }
        let mut lowest_label = f64::INFINITY;
        let series: [Line; 3] = [
            ("p99", "curve thin s1", |p| p.p99),
            ("p50", "curve s0", |p| p.p50),
            ("min", "curve thin s2", |p| p.min),
        ];
        for (nth, (name, class, of)) in series.iter().enumerate() {
            let places: Vec<_> = points
                .iter()
                .enumerate()
                .filter_map(|(n, p)| of(p).map(|ns| (x.at(n as f64), y.at(ns))))
                .collect();
            curve(h, class, &places);
            if let Some((_, at)) = places.last() {
                // From above: p99, p50, min; each below the one before.
                let free = if lowest_label.is_finite() { at.max(lowest_label + 11.0) } else { *at };
                lowest_label = free;
                label(h, (right + 6.0, free + 3.5), "start", "", name);
            }
            if points.len() > DOTS {
                continue;
            }
            let hue = Series([1, 0, 2][nth]).fill();
            for (n, point) in points.iter().enumerate() {
                let Some(ns) = of(point) else { continue };
                let told = format!("{}: {name} {}", point.about, time_ns(ns));
                let radius = if *name == "p50" { 3.2 } else { 2.2 };
                dot(h, &hue, (x.at(n as f64), y.at(ns)), radius, &told);
            }
        }
    });
}

/// A triangle on top, up or down, with a line through the plot: not told by colour alone.
fn mark_at(html: &mut Html, x: f64, mark: Mark) {
    let (class, through, points) = match mark {
        Mark::Slower => ("up", "upline", [(-5.0, 9.0), (5.0, 9.0), (0.0, 0.0)]),
        Mark::Faster => ("down", "downline", [(-5.0, 0.0), (5.0, 0.0), (0.0, 9.0)]),
    };
    line(html, through, (x, TOP), (x, BOTTOM));
    let points: Vec<_> = points.iter().map(|(dx, dy)| (x + dx, TOP - 6.0 + dy)).collect();
    curve(html, class, &points);
}
