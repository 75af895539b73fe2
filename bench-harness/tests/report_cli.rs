// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `tce-bench report` as a user calls it. The page is XML, too, so an XML parser says whether every element is
//! closed and all text is text. What it looks like is for `scripts/report-check` and a browser.

use std::fs;
use std::path::Path;

use crate::common::{bench, refused, text};
use roxmltree::{Document, Node, ParsingOptions};
use serde_json::{Value, json};

/// A document of a real run of `--phase ring`.
const RUN: &str = include_str!("data/ring.json");
const HOSTILE: &str = "</title><script>alert(\"1\")</script>&amp;<img src='http://x'>";

fn document() -> Value {
    serde_json::from_str(RUN).unwrap()
}

/// `RUN` as run number `nth` of `commit`, its times longer by a factor.
fn taken(nth: u64, commit: &str, factor: f64) -> Value {
    let mut doc = document();
    doc["run"]["id"] = format!("01TEST{nth:020}").into();
    doc["run"]["started"] = format!("2026-11-29T{:02}:{:02}:00Z", nth / 60, nth % 60).into();
    doc["tool"]["git"] = commit.into();
    for result in doc["results"].as_array_mut().unwrap() {
        let ns = 100.0 * factor;
        let p = json!({"50": ns, "90": ns, "99": ns + 5.0, "99.9": null, "99.99": null});
        result["latency"] = json!({"min": ns - 5.0, "mean": ns, "max": 2.0 * ns, "p": p});
    }
    doc
}

/// `doc` with a timeline of each operation: a short last interval, and nothing in the third.
fn with_timelines(mut doc: Value) -> Value {
    for result in doc["results"].as_array_mut().unwrap() {
        let (count, tces) = (result["count"].as_u64().unwrap(), result["tces"].as_u64().unwrap());
        let p50 = &result["latency"]["p"]["50"];
        let interval = |nth: u64, length: u64, calls: u64, tces: u64, p50: &Value| {
            json!({
                "start_ns": nth * 2_000_000, "length_ns": length, "calls": calls, "tces": tces,
                "mean": 100.5, "p50": p50, "p99": null, "max": 9000.0 + nth as f64, "kills": 2 * tces,
            })
        };
        result["timeline"] = json!([
            interval(0, 2_000_000, count - 30, tces - 30, p50),
            interval(1, 2_000_000, 10, 10, p50),
            interval(3, 1_500_000, 20, 20, &Value::Null),
        ]);
    }
    doc
}

fn written(dir: &Path, name: &str, doc: &Value) -> String {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, doc.to_string()).unwrap();
    path.display().to_string()
}

/// The page about files, on standard output.
fn page(args: &[&str]) -> String {
    let mut all = vec!["report", "--output", "-"];
    all.extend(args);
    let out = bench(&all);
    assert!(out.status.success(), "{args:?}: {}", text(&out.stderr));
    text(&out.stdout)
}

fn page_of(docs: &[Value]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let name = |(nth, doc)| written(dir.path(), &format!("{nth}.json"), doc);
    let files: Vec<String> = docs.iter().enumerate().map(name).collect();
    page(&files.iter().map(String::as_str).collect::<Vec<_>>())
}

fn parsed(page: &str) -> Document<'_> {
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    Document::parse_with_options(page, options).expect("every element is closed")
}

/// What a well-made page of ours has, whatever it is about.
fn well_made(page: &str) -> Document<'_> {
    let html = parsed(page);
    let all = || html.descendants().filter(Node::is_element);
    let mut ids: Vec<&str> = all().filter_map(|n| n.attribute("id")).collect();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "an id is there twice");
    for node in all() {
        let name = node.tag_name().name();
        assert!(
            !["link", "img", "iframe", "object", "embed", "base", "use", "image"].contains(&name)
        );
        for attribute in node.attributes() {
            let (key, value) = (attribute.name(), attribute.value());
            assert!(!["src", "srcset", "action", "style", "data"].contains(&key), "{key}={value}");
            assert!(!key.starts_with("on"), "{key}={value}");
            if key == "href" {
                let id = value.strip_prefix('#').expect("links stay on the page");
                assert!(ids.binary_search(&id).is_ok(), "a link leads nowhere: {value}");
            }
            if key == "aria-labelledby" {
                assert!(value.split(' ').all(|id| ids.binary_search(&id).is_ok()), "{value}");
            }
        }
        if node.has_tag_name("style") {
            let style = node.text().unwrap();
            assert!(!style.contains("url(") && !style.contains("@import"));
        }
    }
    assert_eq!(all().filter(|n| n.has_tag_name("script")).count(), 1);
    let policy = all().find(|n| n.attribute("http-equiv") == Some("Content-Security-Policy"));
    assert!(policy.unwrap().attribute("content").unwrap().starts_with("default-src 'none';"));
    for plot in plots(&html) {
        let has = |name| plot.children().any(|n| n.has_tag_name(name) && !text_of(n).is_empty());
        assert!(has("title") && has("desc"));
        assert!(plot.descendants().any(|n| n.has_tag_name("path") || n.has_tag_name("rect")));
        // A table of it, and a button that saves it.
        let figure = plot.parent().unwrap();
        assert!(figure.descendants().any(|n| n.attribute("data-save").is_some()));
        let card = figure.parent().unwrap();
        assert!(card.parent().unwrap().descendants().any(|n| n.has_tag_name("table")));
        for number in plot.descendants().flat_map(|n| n.attributes()) {
            assert!(!number.value().contains("NaN") && !number.value().contains("inf"));
        }
    }
    html
}

fn plots<'a>(html: &'a Document<'a>) -> Vec<Node<'a, 'a>> {
    let plot = |n: &Node<'_, '_>| {
        n.has_tag_name("svg") && n.attribute("class").is_some_and(|c| c.starts_with("plot"))
    };
    html.descendants().filter(plot).collect()
}

fn plots_in(node: Node<'_, '_>) -> usize {
    node.descendants()
        .filter(|n| n.has_tag_name("svg") && n.attribute("role") == Some("img"))
        .count()
}

fn text_of(node: Node<'_, '_>) -> String {
    node.descendants().filter(Node::is_text).filter_map(|n| n.text()).collect()
}

fn section<'a>(html: &'a Document<'a>, id: &str) -> Node<'a, 'a> {
    html.descendants().find(|n| n.attribute("id") == Some(id)).unwrap_or_else(|| panic!("no {id}"))
}

/// The rows of a table's body: each cell as the exact value if it has one, else its text.
fn rows(table: Node<'_, '_>) -> Vec<Vec<String>> {
    let cell = |n: Node<'_, '_>| {
        let exact = n.descendants().find_map(|d| d.attribute("value"));
        exact.map_or_else(|| text_of(n).trim().to_owned(), str::to_owned)
    };
    let body = table.descendants().find(|n| n.has_tag_name("tbody")).expect("a body");
    let rows = body.children().filter(|n| n.has_tag_name("tr"));
    rows.map(|r| r.children().filter(Node::is_element).map(cell).collect()).collect()
}

fn tables<'a>(node: Node<'a, 'a>) -> Vec<Node<'a, 'a>> {
    node.descendants().filter(|n| n.has_tag_name("table")).collect()
}

#[test]
fn the_numbers_are_the_documents() {
    let doc = document();
    let page = page_of(std::slice::from_ref(&doc));
    let html = well_made(&page);
    let operations = tables(section(&html, "operations"));
    let found = rows(operations[0]);
    let exact = |v: &Value| v.as_f64().map_or_else(|| "–".to_owned(), |f| f.to_string());
    let results = doc["results"].as_array().unwrap();
    assert_eq!(found.len(), results.len());
    for (row, result) in found.iter().zip(results) {
        let (latency, p) = (&result["latency"], &result["latency"]["p"]);
        let limit = &result["limit"]["ns_per_tce"];
        let told = [
            result["id"].as_str().unwrap().to_owned(),
            exact(&result["count"]),
            exact(&result["tces"]),
            exact(&result["ns_per_tce"]),
            exact(&result["best_ns_per_tce"]),
            exact(limit),
            exact(&result["of_limit"]),
            exact(&latency["min"]),
            exact(&p["50"]),
            exact(&p["90"]),
            exact(&p["99"]),
            exact(&p["99.9"]),
            exact(&p["99.99"]),
            exact(&latency["max"]),
        ];
        assert_eq!(row.as_slice(), told);
        // The plot's own table comes from the histogram, and says the same.
        let card = section(&html, &format!("op-{}", told[0]));
        let [percentiles, histogram] = tables(card)[..] else { panic!("two tables") };
        let of_plot: Vec<String> = rows(percentiles).into_iter().map(|r| r[1].clone()).collect();
        assert_eq!(of_plot, told[7..].to_vec());
        let samples: u64 = rows(histogram).iter().map(|r| r[1].parse::<u64>().unwrap()).sum();
        let calls = result["count"].as_u64().unwrap() / result["group"].as_u64().unwrap();
        assert_eq!(samples, calls);
    }
    let counters = &doc["counters"];
    let kills = &rows(tables(section(&html, "kills"))[0])[0];
    assert_eq!(kills[1..3], ["kills_asked", "kills_issued"].map(|k| counters[k].to_string()));
    let ledger = &rows(tables(section(&html, "accounting"))[0])[0];
    assert_eq!(ledger[1], doc["config"]["buffer_bytes"].to_string());
    assert_eq!(ledger[2], counters["table_charge_bytes"].to_string());
    assert_eq!(ledger[4], counters["pinned_peak_bytes"].to_string());
    let checked = &rows(tables(section(&html, "verification"))[0])[0];
    assert_eq!(checked[2], doc["verification"]["translations"].to_string());
    let machine = text_of(section(&html, "machine"));
    assert!(machine.contains(doc["host"]["kernel"].as_str().unwrap()), "{machine}");
    assert!(text_of(section(&html, "settings")).contains("4 MiB"));
    let header = text_of(html.descendants().find(|n| n.has_tag_name("header")).unwrap());
    for told in ["mock: software PHB, not hardware", "✓ verified", "debug build"] {
        assert!(header.contains(told), "{header}");
    }
}

#[test]
fn text_of_a_document_stays_text() {
    let mut doc = document();
    doc["run"]["label"] = HOSTILE.into();
    doc["host"]["hostname"] = HOSTILE.into();
    doc["backend"]["label"] = format!("{HOSTILE}\u{1b}[31m").into();
    doc["results"][0]["id"] = HOSTILE.into();
    doc["warnings"] = json!([{"code": HOSTILE, "text": HOSTILE}]);
    doc["run"]["argv"] = json!([HOSTILE, "\u{0}\u{202e}"]);
    let page = page_of(&[doc]);
    let html = well_made(&page);
    assert_eq!(text_of(html.descendants().find(|n| n.has_tag_name("h1")).unwrap()), HOSTILE);
    assert!(text_of(section(&html, "warnings")).contains(HOSTILE));
    assert!(!page.contains("<script>alert") && !page.contains("<img"));
    assert!(!page.contains(['\u{1b}', '\u{0}', '\u{202e}']));
}

#[test]
fn several_stand_side_by_side() {
    let (mut a, b) = (taken(1, "aaa", 1.0), taken(2, "bbb", 2.0));
    a["run"]["label"] = "before".into();
    let page = page_of(&[a, b]);
    let html = well_made(&page);
    let documents = rows(tables(section(&html, "documents"))[0]);
    assert_eq!(documents[0][0], "A before");
    assert_eq!((&*documents[1][0], &*documents[1][4]), ("B 1", "bbb and changes"));
    let operations = rows(tables(section(&html, "operations"))[0]);
    let p50: Vec<_> = operations.iter().map(|r| (r[0].as_str(), r[8].as_str())).collect();
    let wanted = [
        ("ring.map A", "100"),
        ("ring.map B", "200"),
        ("ring.unmap A", "100"),
        ("ring.unmap B", "200"),
    ];
    assert_eq!(p50, wanted);
    // In order of their start, one point for each.
    let timeline = section(&html, "timeline");
    let points = rows(tables(timeline)[0]);
    assert_eq!(points.iter().map(|r| &*r[2]).collect::<Vec<_>>(), ["100", "200"]);
    // What differs stands out, what does not stands once.
    let settings = section(&html, "settings");
    let differs: Vec<String> = settings
        .descendants()
        .filter(|n| n.attribute("class") == Some("differs"))
        .map(text_of)
        .collect();
    assert!(differs.iter().any(|row| row.contains("git") && row.contains("aaa")), "{differs:?}");
    assert!(!differs.iter().any(|row| row.contains("rustc")), "{differs:?}");
}

#[test]
fn timelines_are_the_documents_and_of_several_runs_in_one_plot() {
    let page = page_of(&[with_timelines(document())]);
    let html = well_made(&page);
    let intervals = section(&html, "intervals");
    let results = document()["results"].as_array().unwrap().clone();
    assert_eq!((plots_in(intervals), tables(intervals).len()), (results.len(), results.len()));
    let found = rows(tables(intervals)[0]);
    let names: Vec<_> = found.iter().map(|r| r[0].as_str()).collect();
    assert_eq!(names, ["0 to 2 ms", "2 ms to 4 ms", "6 ms to 7.5 ms"]);
    let p50 = results[0]["latency"]["p"]["50"].to_string();
    assert_eq!(found[1][1..], ["10", "10", "100.5", p50.as_str(), "–", "9001", "20"]);
    assert_eq!(found[2][4..6], ["–", "–"]);
    let calls: u64 = found.iter().map(|r| r[1].parse::<u64>().unwrap()).sum();
    assert_eq!(results[0]["count"], calls);
    // The longest: 0 to 4 ms, and 6 to 7.5 ms; the median: up to 4 ms.
    let lines = |class: &str| {
        let of = |n: &Node<'_, '_>| n.attribute("class").is_some_and(|c| c.starts_with(class));
        let plot = intervals.descendants().find(|n| n.has_tag_name("svg")).unwrap();
        plot.descendants().filter(of).count()
    };
    assert_eq!((lines("curve few"), lines("curve thin"), lines("curve s0")), (2, 0, 1));

    let (a, b) = (taken(1, "aaa", 1.0), with_timelines(taken(2, "bbb", 2.0)));
    let page = page_of(&[with_timelines(a.clone()), b.clone(), with_timelines(taken(3, "c", 1.0))]);
    let html = well_made(&page);
    let intervals = section(&html, "intervals");
    assert_eq!((plots_in(intervals), rows(tables(intervals)[0]).len()), (results.len(), 9));
    let key: Vec<String> =
        intervals.descendants().filter(|n| n.has_tag_name("li")).map(text_of).collect();
    assert_eq!(key.iter().map(|k| k.trim()).collect::<Vec<_>>(), ["A 0", "B 1", "C 2"]);
    let text = text_of(intervals.descendants().find(|n| n.has_tag_name("desc")).unwrap());
    assert!(text.contains("B 1: 3 intervals, p50 from 200 ns to 200 ns, longest 9 µs."), "{text}");

    // One without is named nowhere; without any there is no such section.
    let page = page_of(&[a.clone(), b]);
    let html = well_made(&page);
    assert_eq!(rows(tables(section(&html, "intervals"))[0])[0][0], "B 1 0 to 2 ms");
    assert!(!page_of(&[a]).contains("\"intervals\""));
}

#[test]
fn a_run_that_nothing_can_stand_on_says_so_on_top() {
    let mut doc = document();
    doc["verified"] = false.into();
    doc["run"]["complete"] = false.into();
    doc["verification"]["first_mismatch"] = "page 7 leads to 0x1000".into();
    doc["counters"]["pinned_end_bytes"] = 65536.into();
    let page = page_of(&[doc]);
    let html = well_made(&page);
    let header = text_of(html.descendants().find(|n| n.has_tag_name("header")).unwrap());
    assert!(header.contains("✗ not verified") && header.contains("interrupted"), "{header}");
    assert!(!header.contains('✓'), "{header}");
    assert!(text_of(section(&html, "warnings")).contains("page 7 leads to 0x1000"));
    assert_eq!(rows(tables(section(&html, "accounting"))[0])[0][5], "65536");

    let mut empty = document();
    empty["results"] = json!([]);
    empty["run"]["complete"] = false.into();
    empty["verified"] = Value::Null;
    let page = page_of(&[empty]);
    assert!(text_of(section(&well_made(&page), "operations")).contains("Nothing was timed"));
}

#[test]
fn merged_results_have_their_hosts_and_replays_their_traces() {
    let dir = tempfile::tempdir().unwrap();
    let files = [1, 2].map(|nth| {
        written(dir.path(), &format!("{nth}.json"), &with_timelines(taken(nth, "aaa", 1.0)))
    });
    let merged = dir.path().join("merged.json").display().to_string();
    let out = bench(&["merge", "-q", &files[0], &files[1], "-o", &merged]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let page_text = page(&[&merged]);
    let html = well_made(&page_text);
    let hosts = rows(tables(section(&html, "hosts"))[0]);
    let ids: Vec<_> = hosts.iter().map(|r| r[1].as_str()).collect();
    assert_eq!(ids, ["01TEST00000000000000000001", "01TEST00000000000000000002"]);
    assert_eq!(rows(tables(section(&html, "timeline"))[0]).len(), 2);
    // Sums have no timeline, but what they are the sum of.
    assert_eq!(rows(tables(section(&html, "intervals"))[0]).len(), 2 * 3);

    let replay = dir.path().join("replay.json").display().to_string();
    let trace =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../workloads/traces/boot-ddw-fallback.tce.zst");
    let out = bench(&["replay", "--quiet", "--json", &replay, trace]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let doc: Value = serde_json::from_str(&fs::read_to_string(&replay).unwrap()).unwrap();
    let page = page(&[&replay]);
    let html = well_made(&page);
    let row = &rows(tables(section(&html, "replay"))[0])[0];
    let trace = &doc["replay"]["traces"][0];
    assert_eq!(row[0], trace["name"].as_str().unwrap());
    assert_eq!(row[1], trace["calls"].to_string());
    assert_eq!(row[5], "0", "mismatches");
}

#[test]
fn what_cannot_be_shown_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let good = written(dir.path(), "good.json", &document());
    let out = dir.path().join("page.html").display().to_string();
    let error = |args: &[&str], code| {
        let mut all = vec!["report", "-o", &out];
        all.extend(args);
        let error = refused(&all, code);
        assert!(!Path::new(&out).exists(), "{error}");
        error
    };
    let missing = dir.path().join("missing.json").display().to_string();
    assert!(error(&[&good, &missing], 1).contains("missing.json"));
    let broken = written(dir.path(), "broken.json", &json!({"schema": "tce-bench.limits/1"}));
    assert!(error(&[&broken], 1).contains("accepted: tce-bench.result/1"));
    let mut falling = document();
    falling["results"][0]["latency"]["p"]["50"] = 1e9.into();
    let falling = written(dir.path(), "falling.json", &falling);
    assert!(error(&[&falling], 1).contains("do not rise"));
    let mut backwards = with_timelines(document());
    backwards["results"][1]["timeline"][2]["start_ns"] = 1.into();
    let backwards = written(dir.path(), "backwards.json", &backwards);
    let wrong = "ring.unmap: interval 2 of its timeline begins at 1 ns, when the one before ends at 4000000 ns";
    assert!(error(&[&backwards], 1).contains(wrong));
    assert!(error(&[&good, &good], 1).contains("twice"));
    assert!(error(&[good.as_str(); 13], 2).contains("at most 12"));
    assert!(error(&[], 2).contains("<RESULT>"));
    let full = refused(&["report", &good, "-o", "/dev/full"], 1);
    assert!(full.contains("No space left on device"), "{full}");
    // Then it is written whole, and says nothing.
    let done = bench(&["report", &good, "-o", &out]);
    assert!(done.status.success() && done.stdout.is_empty() && done.stderr.is_empty());
    well_made(&fs::read_to_string(&out).unwrap());
    assert_eq!(fs::read_to_string(&out).unwrap(), page(&[&good]), "always the same page");
}

/// A folder of `before` runs of one commit and `after` of the next, slower by a factor.
fn history(dir: &Path, before: u64, after: u64, factor: f64) {
    for nth in 0..before + after {
        let (commit, slower) = if nth < before { ("aaa", 1.0) } else { ("bbb", factor) };
        // Some noise: the same each time, of half a per cent.
        let noise = 1.0 + 0.005 * ((nth * 7 % 11) as f64 / 11.0 - 0.5);
        written(dir, &format!("{commit}/{nth:03}.json"), &taken(nth, commit, slower * noise));
    }
}

fn trend(dir: &Path) -> (String, String) {
    let folder = dir.display().to_string();
    let out = bench(&["report", "--trend", &folder, "-o", "-"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    (text(&out.stdout), text(&out.stderr))
}

fn marks(html: &Document<'_>, class: &str) -> usize {
    plots(html)[0].descendants().filter(|n| n.attribute("class") == Some(class)).count()
}

#[test]
fn a_trend_marks_where_it_became_slower() {
    let dir = tempfile::tempdir().unwrap();
    history(dir.path(), 20, 20, 1.08);
    let (page, complaints) = trend(dir.path());
    assert_eq!(complaints, "");
    let html = well_made(&page);
    let changes = rows(tables(section(&html, "changes"))[0]);
    // Two operations, min and p50 of each.
    assert_eq!(changes.len(), 4, "{changes:?}");
    for row in &changes {
        assert_eq!((&*row[0], &*row[5]), ("2026-11-29 00:20", "commit bbb and changes"));
        assert!(row[3].starts_with("▲ +8."), "{row:?}");
    }
    assert_eq!((marks(&html, "upline"), marks(&html, "downline")), (1, 0));
    let builds = rows(tables(section(&html, "series-1"))[0]);
    assert_eq!(builds.len(), 2);
    assert_eq!((&*builds[0][0], &*builds[0][2]), ("commit bbb and changes", "20"));
    let p50: f64 = builds[0][4].parse().unwrap();
    assert!((p50 - 108.0).abs() < 0.5, "{p50}");

    let quiet = tempfile::tempdir().unwrap();
    history(quiet.path(), 20, 20, 1.0);
    let (page, _) = trend(quiet.path());
    let html = well_made(&page);
    assert!(text_of(section(&html, "changes")).contains("No change was found."));
    assert_eq!(marks(&html, "upline"), 0);
    let few = tempfile::tempdir().unwrap();
    history(few.path(), 3, 3, 2.0);
    let (page, _) = trend(few.path());
    let html = well_made(&page);
    assert_eq!(marks(&html, "upline"), 0);
    assert!(text_of(section(&html, "series-1")).contains("not judged"));
}

#[test]
fn a_trend_names_what_it_leaves_out_and_keeps_unlike_runs_apart() {
    let dir = tempfile::tempdir().unwrap();
    history(dir.path(), 2, 1, 1.0);
    written(dir.path(), "again.json", &taken(0, "aaa", 1.0));
    let mut wrong = taken(9, "bbb", 1.0);
    wrong["verified"] = false.into();
    written(dir.path(), "deep/er/wrong.json", &wrong);
    fs::write(dir.path().join("cut.json"), "{\"schema\": ").unwrap();
    fs::write(dir.path().join("notes.txt"), "not ours").unwrap();
    let mut other = taken(10, "bbb", 1.0);
    other["host"]["hostname"] = HOSTILE.into();
    written(dir.path(), "other.json", &other);
    let mut work = taken(11, "bbb", 1.0);
    work["config"]["window_bytes"] = (8u64 << 20).into();
    written(dir.path(), "work.json", &work);
    let (page, complaints) = trend(dir.path());
    let html = well_made(&page);
    let left = rows(tables(section(&html, "left-out"))[0]);
    let why = |file: &str| {
        let row = left.iter().find(|r| r[0].ends_with(file)).unwrap_or_else(|| panic!("{left:?}"));
        row[1].clone()
    };
    assert_eq!(left.len(), 3, "{left:?}");
    assert!(why("deep/er/wrong.json").contains("not verified"));
    assert!(why("cut.json").contains("not JSON"));
    assert!(why("again.json").contains("aaa/000.json once more"));
    assert_eq!(complaints.lines().count(), 3, "{complaints}");
    assert!(complaints.lines().all(|line| line.starts_with("left out: '")), "{complaints}");
    let titles: Vec<String> =
        html.descendants().filter(|n| n.has_tag_name("h2")).map(text_of).collect();
    assert_eq!(titles.iter().filter(|t| t.contains(" on vm")).count(), 2, "{titles:?}");
    assert_eq!(titles.iter().filter(|t| t.contains(HOSTILE)).count(), 1, "{titles:?}");

    let empty = tempfile::tempdir().unwrap();
    let folder = empty.path().display().to_string();
    let error = refused(&["report", "--trend", &folder, "-o", "-"], 1);
    assert!(error.contains("no usable result among 0 files"), "{error}");
    let missing = empty.path().join("no").display().to_string();
    assert!(refused(&["report", "--trend", &missing, "-o", "-"], 1).contains("cannot be read"));
    assert!(refused(&["report", "--trend", &folder, "x.json"], 2).contains("cannot be used with"));
}

/// As a crash of whatever copied it would leave it: cut at any length, and empty.
#[test]
fn a_trend_leaves_out_results_that_were_cut() {
    let dir = tempfile::tempdir().unwrap();
    history(dir.path(), 3, 0, 1.0);
    let whole = taken(9, "aaa", 1.0).to_string();
    let cuts: Vec<usize> = (0..12).map(|n| n * (whole.len() - 1) / 11).collect();
    for cut in &cuts {
        fs::write(dir.path().join(format!("cut-{cut}.json")), &whole[..*cut]).unwrap();
    }
    let (page, complaints) = trend(dir.path());
    let html = well_made(&page);
    assert_eq!(rows(tables(section(&html, "left-out"))[0]).len(), cuts.len());
    for cut in cuts {
        let name = format!("cut-{cut}.json': it is not JSON");
        assert!(complaints.contains(&name), "{name} in {complaints}");
    }
    assert!(page.contains("3 results"));
}
