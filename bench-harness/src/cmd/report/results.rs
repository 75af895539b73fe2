// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The page of one result, or of several side by side.

use std::path::Path;

use super::facts;
use super::html::Html;
use super::intervals;
use super::operations;
use super::page::{banner, chips, menu, page, section};
use super::resources;
use super::svg::Series;
use super::table::{Cell, boxed, table};
use crate::result::{Config, ResultDoc};
use crate::size::format_size;
use crate::style::{thousands, time_ns};

/// A document and what it is called on the page.
#[derive(Debug)]
pub(super) struct Shown {
    /// `A` and so on; empty if there is only one.
    pub(super) letter: String,
    pub(super) file: String,
    pub(super) doc: ResultDoc,
    pub(super) series: Series,
}

impl Shown {
    /// Of several, its letter and label or file; of one, nothing.
    pub(super) fn name(&self) -> String {
        if self.letter.is_empty() {
            return String::new();
        }
        let file = || Path::new(&self.file).file_stem().map(|s| s.to_string_lossy().into_owned());
        let label = self.doc.run.label.clone().or_else(file).unwrap_or_default();
        format!("{} {label}", self.letter)
    }
}

/// The page.
pub(super) fn html(docs: Vec<(String, ResultDoc)>) -> String {
    let several = docs.len() > 1;
    let shown: Vec<Shown> = docs
        .into_iter()
        .enumerate()
        .map(|(nth, (file, doc))| Shown {
            letter: if several { char::from(b'A' + nth as u8).to_string() } else { String::new() },
            file,
            doc,
            series: Series(nth),
        })
        .collect();
    let title = title(&shown);
    page(&title, |h| {
        banner(h, &title, |h| {
            chips(h, &head_chips(&shown));
            if let [one] = shown.as_slice() {
                tiles(h, &one.doc);
            }
            menu(h, &links(&shown));
        });
        h.tag("main", &[], |h| {
            if several {
                section(h, "documents", "Documents", "", |h| documents(h, &shown));
            }
            warnings(h, &shown);
            operations::sections(h, &shown);
            resources::sections(h, &shown);
            merged(h, &shown);
            facts::sections(h, &shown);
        });
    })
}

fn title(shown: &[Shown]) -> String {
    let of = |doc: &ResultDoc| {
        doc.run.label.clone().unwrap_or_else(|| match &doc.config {
            Config::Run(run) => format!(
                "{} group{}, {} window, {} pages, {} level{}",
                run.groups,
                plural(run.groups),
                format_size(run.window_bytes),
                page_size(run.page_shift),
                run.levels,
                plural(run.levels),
            ),
            Config::Replay(replay) => {
                let name = |t: &String| {
                    Path::new(t).file_name().map_or(t.clone(), |n| n.to_string_lossy().into_owned())
                };
                format!(
                    "Replay of {}",
                    replay.traces.iter().map(name).collect::<Vec<_>>().join(", ")
                )
            }
        })
    };
    match shown {
        [one] => of(&one.doc),
        _ => format!("{} results side by side", shown.len()),
    }
}

fn plural(n: u64) -> &'static str {
    if n == 1 { "" } else { "s" }
}

/// The size of a page; a shift that no page has is told as it is.
pub(super) fn page_size(shift: u8) -> String {
    1u64.checked_shl(shift.into()).map_or_else(|| format!("2^{shift}"), format_size)
}

/// What has to be read first: what it ran on, whether it was right, whether it is all of it.
fn head_chips(shown: &[Shown]) -> Vec<(&'static str, String)> {
    let mut all: Vec<(&'static str, String)> = Vec::new();
    let mut add = |class, text: String| {
        if !all.iter().any(|(_, other)| *other == text) {
            all.push((class, text));
        }
    };
    for Shown { doc, .. } in shown {
        add("warn", doc.backend.label.clone());
    }
    for one in shown {
        let who = if one.letter.is_empty() { String::new() } else { format!("{}: ", one.letter) };
        match one.doc.verified {
            Some(true) if shown.iter().all(|s| s.doc.verified == Some(true)) => {
                add("good", "✓ verified".to_owned());
            }
            Some(true) => add("good", format!("{who}✓ verified")),
            Some(false) => add("bad", format!("{who}✗ not verified: these times mean nothing")),
            None => add("warn", format!("{who}nobody could be asked whether it was right")),
        }
        if !one.doc.run.complete {
            add("bad", format!("{who}interrupted: a part of the samples only"));
        }
        if let Some(profile) = one.doc.tool.profile.as_deref().filter(|p| *p != "release") {
            add("warn", format!("{who}{profile} build"));
        }
    }
    if let [one] = shown {
        let doc = &one.doc;
        if let Some(model) = &doc.host.cpu.model {
            add("", format!("{model}, {} CPUs", doc.host.cpu.cpus));
        }
        add("", doc.run.started.replace('T', " ").replace('Z', " UTC"));
        if let Some(git) = &doc.tool.git {
            add("", commit(git, doc.tool.dirty));
        }
    }
    all
}

/// A commit, and whether there was more than that in the tree.
pub(super) fn commit(git: &str, dirty: Option<bool>) -> String {
    format!("commit {git}{}", if dirty == Some(true) { " and changes" } else { "" })
}

fn tiles(html: &mut Html, doc: &ResultDoc) {
    let tile = |h: &mut Html, value: &str, what: &str| {
        h.tag("div", &[("class", "tile")], |h| {
            h.leaf("b", &[], value);
            h.leaf("span", &[], what);
        });
    };
    html.tag("div", &[("class", "tiles")], |h| {
        let checked = &doc.verification;
        if checked.mirror_entries > checked.translations {
            tile(h, &thousands(checked.mirror_entries), "entries of the mirror compared");
        } else {
            tile(h, &thousands(checked.translations), "translations verified");
        }
        let tces = doc.counters.tces_written;
        tile(h, &crate::style::count(tces), "TCEs written");
        let best = doc.results.iter().filter_map(|r| r.best_ns_per_tce.map(|ns| (ns, &r.id)));
        if let Some((ns, id)) = best.min_by(|a, b| a.0.total_cmp(&b.0)) {
            tile(h, &time_ns(ns), &format!("per TCE at best ({id})"));
        }
        tile(h, &format_size(doc.counters.pinned_peak_bytes), "pinned at the peak");
        tile(h, &time_ns(doc.run.wall_s * 1e9), "in all");
    });
}

fn links(shown: &[Shown]) -> Vec<(&'static str, &'static str)> {
    let any = |test: fn(&ResultDoc) -> bool| shown.iter().any(|s| test(&s.doc));
    let all = [
        (shown.len() > 1, "documents", "Documents"),
        (warnings_wanted(shown), "warnings", "Warnings"),
        (any(|d| !d.results.is_empty()), "operations", "Operations"),
        (
            any(|d| d.results.iter().any(|r| r.hist.is_some())),
            "plots",
            "Percentiles and histograms",
        ),
        (intervals::wanted(shown), "intervals", "Within a run"),
        (operations::runs(shown).len() > 1, "timeline", "From run to run"),
        (any(|d| d.replay.is_some()), "replay", "Replay"),
        (true, "kills", "Kills"),
        (true, "accounting", "Accounting"),
        (any(|d| !d.hosts.is_empty()), "hosts", "Hosts"),
        (true, "verification", "Verification"),
        (true, "machine", "Machine"),
        (true, "settings", "Settings"),
    ];
    all.into_iter().filter(|(wanted, ..)| *wanted).map(|(_, id, name)| (id, name)).collect()
}

fn documents(html: &mut Html, shown: &[Shown]) {
    boxed(html, "What stands side by side", "", |h| {
        super::table::heads(
            h,
            &["document", "file", "started", "host", "commit", "build", "verified", "in all"],
        );
        h.tag("tbody", &[], |h| {
            for one in shown {
                let doc = &one.doc;
                h.tag("tr", &[], |h| {
                    h.tag("th", &[("scope", "row")], |h| {
                        one.series.swatch(h);
                        h.text(&one.name());
                    });
                    let git = doc.tool.git.as_deref().unwrap_or("unknown");
                    let dirty = if doc.tool.dirty == Some(true) { " and changes" } else { "" };
                    let cells = [
                        Cell::text(one.file.as_str()),
                        Cell::text(doc.run.started.as_str()),
                        Cell::text(doc.host.hostname.as_str()),
                        Cell::text(format!("{git}{dirty}")),
                        Cell::text(doc.tool.profile.as_deref().unwrap_or("unknown")),
                        verdict(doc.verified),
                        Cell::time(Some(doc.run.wall_s * 1e9)),
                    ];
                    cells.iter().for_each(|c| c.write(h, "td", None));
                });
            }
        });
    });
}

pub(super) fn verdict(verified: Option<bool>) -> Cell {
    match verified {
        Some(true) => Cell::text("✓ yes").class("good"),
        Some(false) => Cell::text("✗ no").class("bad"),
        None => Cell::text("nobody to ask").class("warn"),
    }
}

fn warnings_wanted(shown: &[Shown]) -> bool {
    let wanted = |d: &ResultDoc| {
        !(d.warnings.is_empty() && d.skipped.is_empty() && d.verification.first_mismatch.is_none())
    };
    shown.iter().any(|s| wanted(&s.doc))
}

/// What a reader should know before the numbers.
fn warnings(html: &mut Html, shown: &[Shown]) {
    if !warnings_wanted(shown) {
        return;
    }
    section(html, "warnings", "Before you trust the numbers", "", |h| {
        h.tag("ul", &[("class", "notes")], |h| {
            for one in shown {
                let who = if one.letter.is_empty() {
                    String::new()
                } else {
                    format!("{} · ", one.letter)
                };
                let mut note = |class: &str, code: &str, text: &str| {
                    h.tag("li", &[("class", class)], |h| {
                        h.text(&who);
                        h.leaf("code", &[], code);
                        h.text(&format!(" {text}"));
                    });
                };
                if let Some(mismatch) = &one.doc.verification.first_mismatch {
                    note("bad", "MISMATCH", mismatch);
                }
                for warning in &one.doc.warnings {
                    note("warn", &warning.code, &warning.text);
                }
                for skipped in &one.doc.skipped {
                    note("chip", &skipped.id, &format!("not measured: {}", skipped.reason));
                }
            }
        });
    });
}

/// The runs that merged documents are the sum of.
fn merged(html: &mut Html, shown: &[Shown]) {
    if shown.iter().all(|s| s.doc.hosts.is_empty()) {
        return;
    }
    let names =
        ["host", "run", "started", "calls", "samples", "kills issued", "verified", "in all"];
    section(html, "hosts", "Hosts", "The runs whose samples were added up.", |h| {
        for one in shown.iter().filter(|s| !s.doc.hosts.is_empty()) {
            let row = |run: &crate::result::HostRun| {
                let sum = |of: fn(&crate::result::OpResult) -> u64| {
                    run.results.iter().map(of).fold(0, u64::saturating_add)
                };
                let cells = vec![
                    Cell::text(run.run.id.as_str()),
                    Cell::text(run.run.started.as_str()),
                    Cell::count(sum(|r| r.count)),
                    Cell::count(sum(|r| r.samples.unwrap_or(0))),
                    Cell::count(run.counters.kills_issued),
                    verdict(run.verified),
                    Cell::time(Some(run.run.wall_s * 1e9)),
                ];
                (run.host.hostname.clone(), cells)
            };
            let rows: Vec<_> = one.doc.hosts.iter().map(row).collect();
            h.tag("div", &[("class", "card")], |h| {
                let caption = format!("{} runs {}", rows.len(), one.name());
                table(h, caption.trim(), &names, &rows);
            });
        }
    });
}
