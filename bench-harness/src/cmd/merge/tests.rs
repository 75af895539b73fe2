// SPDX-License-Identifier: Apache-2.0 OR MIT
use super::*;
use crate::cmd::documents::document;
use crate::hist_io;
use crate::recorder::Recorder;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A document of a real run, taken with `--phase ring` and few repetitions, by somebody else; its times,
/// run and host are changed below.
const RUN: &str = include_str!("../../../tests/data/ring.json");

/// A run of `host` with `calls` calls of each operation, the first of `ns` and each later one a bit longer.
fn run(nth: u64, host: &str, calls: u64, ns: u64) -> ResultDoc {
    let mut doc = document(RUN.as_bytes()).expect("a usable result");
    doc.run.id = format!("01TEST{nth:020}");
    doc.host.hostname = host.to_owned();
    for result in &mut doc.results {
        let begin = Instant::now();
        let mut recorder = Recorder::with_timeline(begin, Duration::from_millis(1));
        for call in 0..calls {
            recorder.at(begin + Duration::from_micros(30 * call), 2 * call);
            recorder.record(ns + 13 * call, 1);
        }
        recorder.end_round();
        recorder.end_timeline(begin + Duration::from_micros(30 * calls), 2 * calls);
        let limit = result.limit.clone();
        *result = crate::result::OpResult::new(&result.id, &result.op, &recorder, limit).unwrap();
        result.timeline = recorder.take_timeline();
    }
    doc
}

fn merge_docs(docs: &[&ResultDoc]) -> anyhow::Result<ResultDoc> {
    let named: Vec<_> =
        docs.iter().enumerate().map(|(n, d)| (format!("{n}.json"), (*d).clone())).collect();
    let doc = merged(&named)?;
    // What is written is what a reader takes.
    let text = doc.to_json().map_err(|e| anyhow!(e))?;
    assert_eq!(document(text.as_bytes())?, doc);
    Ok(doc)
}

fn refused(docs: &[&ResultDoc]) -> String {
    format!("{:#}", merge_docs(docs).expect_err("they do not fit"))
}

#[test]
fn counts_add_up_and_percentiles_are_of_all_samples() {
    let runs = [run(1, "a", 1000, 100), run(2, "b", 500, 5000), run(3, "a", 37, 40)];
    let sum = merge_docs(&runs.each_ref()).unwrap();
    let mut all = Recorder::new();
    for (calls, ns) in [(1000, 100), (500, 5000), (37, 40)] {
        (0..calls).for_each(|call| all.record(ns + 13 * call, 1));
    }
    for result in &sum.results {
        assert_eq!((result.count, result.tces, result.samples), (1537, 1537, Some(1537)));
        let hist = hist_io::decode(&result.hist.as_ref().unwrap().data).unwrap();
        assert_eq!(&hist, all.histogram());
        let (found, wanted) = (result.latency, all.summary());
        assert_eq!((found.min, found.max, found.p), (wanted.min, wanted.max, wanted.p));
        // Summed from means, not from times.
        let (found, wanted) = (found.mean.unwrap(), wanted.mean.unwrap());
        assert!((found / wanted - 1.0).abs() < 1e-12, "{found} {wanted}");
        assert_eq!((&result.limit, result.of_limit), (&None, None));
        assert_eq!(result.timeline, None);
    }
    assert_eq!(sum.host.hostname, "2 hosts");
    let rows: Vec<_> = sum.hosts.iter().map(|h| (h.host.hostname.as_str(), &h.run.id)).collect();
    assert_eq!(rows, [("a", &runs[0].run.id), ("b", &runs[1].run.id), ("a", &runs[2].run.id)]);
    for (row, run) in sum.hosts.iter().zip(&runs) {
        assert_eq!((&row.counters, &row.host), (&run.counters, &run.host));
        assert_eq!(row.results[0].latency, run.results[0].latency);
        let timeline = &row.results[1].timeline;
        assert!(
            timeline.as_ref().is_some_and(|t| !t.is_empty())
                && *timeline == run.results[1].timeline
        );
        assert_eq!((&row.results[0].hist, &row.results[0].limit), (&None, &run.results[0].limit));
    }
    let written: u64 = runs.iter().map(|r| r.counters.tces_written).sum();
    assert_eq!(sum.counters.tces_written, written);
    assert_eq!(sum.counters.pinned_peak_bytes, runs[0].counters.pinned_peak_bytes);
}

#[test]
fn order_and_steps_do_not_matter() {
    let runs: Vec<ResultDoc> =
        (0..5).map(|n| run(n, ["x", "y"][n as usize % 2], 100 + 7 * n, 90 + n * n)).collect();
    let [a, b, c, d, e] = runs.as_slice() else { unreachable!() };
    let at_once = merge_docs(&[a, b, c, d, e]).unwrap();
    let backwards = merge_docs(&[e, d, c, b, a]).unwrap();
    let left = {
        let two = merge_docs(&[a, b]).unwrap();
        let four = merge_docs(&[&merge_docs(&[&two, c]).unwrap(), d]).unwrap();
        merge_docs(&[&four, e]).unwrap()
    };
    let right = {
        let two = merge_docs(&[d, e]).unwrap();
        merge_docs(&[a, &merge_docs(&[b, &merge_docs(&[c, &two]).unwrap()]).unwrap()]).unwrap()
    };
    let one_by_one = merge_docs(&[&merge_docs(&[&at_once]).unwrap()]).unwrap();
    for other in [backwards, left, right, one_by_one] {
        assert_eq!(other.to_json().unwrap(), at_once.to_json().unwrap());
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let a = run(1, "a", 100, 100);
    let with = |change: &dyn Fn(&mut ResultDoc)| {
        let mut other = run(2, "b", 100, 100);
        change(&mut other);
        other
    };
    for (other, part) in [
        (with(&|d| d.run.seed = 7), "run.seed: 1 and 7"),
        (with(&|d| d.host.cpu.model = Some("POWER9".into())), "host.cpu.model: "),
        (with(&|d| d.tool.git = Some("f00".into())), "tool: "),
        (with(&|d| drop(d.results.pop())), "ring.unmap is in the first only"),
        (with(&|d| d.results[0].id = "other".into()), "other is in the second only"),
        (
            with(&|d| {
                let crate::result::Config::Run(run) = &mut d.config else { unreachable!() };
                run.window_bytes = 1 << 30;
            }),
            "config.window_bytes: 4194304 and 1073741824",
        ),
        (
            with(&|d| {
                let mut hist = Histogram::<u64>::new_with_bounds(1, 1 << 40, 2).unwrap();
                hist.record(5).unwrap();
                let data = d.results[1].hist.as_mut().unwrap();
                (data.highest, data.sigfig) = (1 << 40, 2);
                data.data = hist_io::encode(&hist).unwrap();
            }),
            "ring.unmap: histograms of other parameters: ",
        ),
    ] {
        let error = refused(&[&a, &other]);
        assert!(error.starts_with("'0.json' and '1.json' do not fit: "), "{error}");
        assert!(error.contains(part) && error.contains("by themselves"), "{part}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
    // The same run, by itself and in a sum.
    let b = run(2, "b", 100, 100);
    let sum = merge_docs(&[&a, &b]).unwrap();
    for docs in [[&a, &a], [&sum, &b], [&sum, &sum]] {
        assert!(refused(&docs).contains("count twice"));
    }
}

#[test]
fn a_sum_that_does_not_add_up_is_refused() {
    let sum = merge_docs(&[&run(1, "a", 100, 100), &run(2, "b", 50, 100)]).unwrap();
    let good = serde_json::to_value(&sum).unwrap();
    let refused = |pointer: &str, value: Value| {
        let mut doc = good.clone();
        *doc.pointer_mut(pointer).expect(pointer) = value;
        format!("{:#}", document(doc.to_string().as_bytes()).expect_err(pointer))
    };
    let twice = good["hosts"][0].clone();
    for (pointer, value, part) in [
        ("/results/0/count", json!(151), "and all together are said to have"),
        ("/hosts/1/results/0/count", json!(51), "its timeline has 50 calls, and all together 51"),
        ("/hosts/1/results/0/samples", json!(49), "and all together are said to have"),
        ("/results/0/samples", json!(149), "its histogram has 150"),
        ("/hosts/1", twice, "it has the run 01TEST00000000000000000001 twice"),
        ("/hosts/1/results/0/id", json!("other"), "has no ring.map"),
        (
            "/hosts/1/results/0/timeline/0/length_ns",
            json!(0),
            "run 01TEST00000000000000000002: ring.map: interval 0 of its timeline is 0 ns long",
        ),
        ("/hosts/1/run/complete", json!(false), "not verified or not complete"),
    ] {
        let error = refused(pointer, value);
        assert!(error.contains(part), "{pointer}: {error}");
    }
}

#[test]
fn what_nobody_could_verify_is_not_verified() {
    let (a, mut b) = (run(1, "a", 100, 100), run(2, "b", 100, 100));
    assert_eq!(merge_docs(&[&a, &b]).unwrap().verified, Some(true));
    b.verified = None;
    b.verification.unproven = Some("no device".to_owned());
    let sum = merge_docs(&[&a, &b]).unwrap();
    assert_eq!((sum.verified, sum.verification.unproven.as_deref()), (None, Some("no device")));
}

#[test]
fn a_warning_is_told_once_and_left_out_files_stay_named() {
    let runs: Vec<ResultDoc> = (1..4)
        .map(|n| {
            let mut doc = run(n, "a", 10, 100);
            doc.warnings =
                vec![Warning::new("NO_VFIO", "none"), Warning::new("N", format!("{}", n / 2))];
            doc
        })
        .collect();
    let mut first = merge_docs(&[&runs[0], &runs[1]]).unwrap();
    first.warnings.push(Warning::new(LEFT_OUT, "'x.json': it is not JSON"));
    let sum = merge_docs(&[&first, &runs[2]]).unwrap();
    let told: Vec<_> = sum.warnings.iter().map(|w| (w.code.as_str(), w.text.as_str())).collect();
    let wanted =
        [("NO_VFIO", "none"), ("N", "0"), ("N", "1"), (LEFT_OUT, "'x.json': it is not JSON")];
    assert_eq!(told, wanted);
}
