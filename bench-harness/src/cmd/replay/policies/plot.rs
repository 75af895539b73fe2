// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The plot: kills against exposure, a mark for each row.

use plotters::element::{Circle, PathElement, Text};
use plotters::prelude::{
    ChartBuilder, Color, IntoDrawingArea, IntoFont, IntoLogRange, RGBColor, SVGBackend, ShapeStyle,
    TextStyle, WHITE,
};

use super::document::{Doc, Row};

const SIZE: (u32, u32) = (960, 600);
const FONT: &str = "sans-serif";
const LABEL: i32 = 12;
/// Width of a letter, about.
const LETTER: i32 = 7;
const RADIUS: i32 = 5;
/// Of Okabe and Ito's palette, which the colour-blind can tell apart.
static COLOURS: [RGBColor; 3] =
    [RGBColor(0, 114, 178), RGBColor(213, 94, 0), RGBColor(0, 158, 115)];

/// A rectangle: left, top, right, bottom.
type Area = (i32, i32, i32, i32);

fn area((x, y): (i32, i32), label: &str) -> Area {
    (x, y, x + LETTER * label.chars().count() as i32, y + LABEL + 1)
}

/// A place near a mark for its label: beside it, and so much lower or higher that it hides no other.
fn place(mark: (i32, i32), label: &str, taken: &[Area]) -> (i32, i32) {
    let width = LETTER * label.chars().count() as i32;
    let right = mark.0 + RADIUS + 4;
    let left = mark.0 - RADIUS - 4 - width;
    let x = if right + width > SIZE.0 as i32 - 4 && left > 64 { left } else { right };
    let free = |y: &i32| {
        let own = area((x, *y), label);
        let apart = |a: &Area| a.0 >= own.2 || own.0 >= a.2 || a.1 >= own.3 || own.1 >= a.3;
        *y > 30 && own.3 < SIZE.1 as i32 - 50 && taken.iter().all(apart)
    };
    let level = mark.1 - LABEL / 2;
    let near = (0..SIZE.1 as i32).flat_map(|step| [level + step, level - step]);
    (x, near.into_iter().find(free).unwrap_or(level))
}

/// A power of ten as people write it.
fn plain(value: f64) -> String {
    if value >= 1.0 { format!("{value:.0}") } else { format!("{value}") }
}

/// The decades that hold all values; those that are 0 lie on the lowest line.
fn decades(values: impl Iterator<Item = f64>) -> std::ops::Range<f64> {
    let (mut low, mut high) = (f64::INFINITY, 0.0f64);
    for value in values.filter(|value| *value > 0.0) {
        (low, high) = (low.min(value), high.max(value));
    }
    if high == 0.0 {
        (low, high) = (1.0, 1.0);
    }
    let floor = 10f64.powf((low.log10() - 0.1).floor());
    floor..10f64.powf((high.log10() + 0.1).ceil()).max(floor * 10.0)
}

/// What is plotted of a row: exposure by whichever clock it is longer, and kills.
fn point(row: &Row) -> (f64, f64) {
    let exposure = row.exposure_ns.max(row.exposure_trace_ns).unwrap_or(0);
    (exposure as f64, row.kills.map_or(0.0, |kills| kills.per_1000_tces))
}

/// The plot as a document of its own.
///
/// # Errors
/// If it cannot be drawn.
pub(super) fn svg(doc: &Doc) -> Result<String, String> {
    let mut out = String::new();
    draw(doc, &mut out).map_err(|e| e.to_string())?;
    Ok(out)
}

fn draw(doc: &Doc, out: &mut String) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut platforms: Vec<&str> = Vec::new();
    for row in &doc.rows {
        if !platforms.contains(&row.platform.as_str()) {
            platforms.push(&row.platform);
        }
    }
    let colour = |platform: &str| {
        let nth = platforms.iter().position(|other| *other == platform).unwrap_or(0);
        &COLOURS[nth % COLOURS.len()]
    };
    // Each platform's rule, of the same TCEs.
    let per_1000 = |kills: u64| 1e3 * kills as f64 / doc.linux.tces.max(1) as f64;
    let rule = |platform: &&str| {
        let row = doc.rows.iter().find(|row| row.platform == **platform);
        row.map(|row| (platform.to_string(), per_1000(row.linux.kills), row.linux.unit))
    };
    let rules: Vec<_> = platforms.iter().filter_map(rule).collect();
    let xs = decades(doc.rows.iter().map(|row| point(row).0));
    let ys = decades(doc.rows.iter().map(|row| point(row).1).chain(rules.iter().map(|r| r.1)));
    let root = SVGBackend::with_string(out, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let title = format!("{}: kills and exposure ({})", doc.workload.name, doc.label);
    let mut chart = ChartBuilder::on(&root)
        .caption(title, (FONT, 16))
        .margin(12)
        .margin_right(32)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(xs.clone().log_scale(), ys.clone().log_scale())?;
    chart
        .configure_mesh()
        .x_desc("longest time that a released page stayed reachable")
        .y_desc("kills per 1000 TCEs")
        .x_label_formatter(&|ns| crate::style::time_ns(*ns))
        .y_label_formatter(&|kills| plain(*kills))
        .label_style((FONT, 13))
        .draw()?;
    let text = |hue: &'static RGBColor| TextStyle::from((FONT, LABEL).into_font()).color(hue);
    let mut taken: Vec<Area> = Vec::new();
    for (platform, kills, unit) in &rules {
        let style = ShapeStyle::from(colour(platform).mix(0.6)).stroke_width(1);
        let ends = [(xs.start, *kills), (xs.end, *kills)];
        chart.draw_series([PathElement::new(ends.to_vec(), style)])?;
        let (x, y) = chart.backend_coord(&(xs.start, *kills));
        let label = format!("Linux on {platform}, {unit}");
        taken.push(area((x + 6, y - LABEL - 3), &label));
        root.draw(&Text::new(label, (x + 6, y - LABEL - 3), text(colour(platform))))?;
    }
    for row in &doc.rows {
        let (x, y) = point(row);
        let at = (x.max(xs.start), y.max(ys.start));
        let hue = colour(&row.platform);
        let style = if row.fill == "always" { hue.filled() } else { hue.stroke_width(2) };
        chart.draw_series([Circle::new(at, RADIUS, style)])?;
        let (px, py) = chart.backend_coord(&at);
        taken.push((px - RADIUS, py - RADIUS, px + RADIUS, py + RADIUS));
    }
    for row in &doc.rows {
        let (x, y) = point(row);
        let mark = chart.backend_coord(&(x.max(xs.start), y.max(ys.start)));
        let label = format!("{}, {}, {}", row.policy, row.fill, row.platform);
        let at = place(mark, &label, &taken);
        taken.push(area(at, &label));
        root.draw(&Text::new(label, at, text(colour(&row.platform))))?;
    }
    root.present()?;
    Ok(())
}
