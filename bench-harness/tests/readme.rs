// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What README.md says can be typed. Its commands run one after the other in a folder of their own; those that
//! would take a machine, or too long, are at least understood. Links lead somewhere.
//!
//! trycmd runs them, but knows only `console` blocks, neither globs nor pipes, and wants all that a command
//! prints. So it gets a copy with the same line numbers, in which a shell has each command: in a `console`
//! block what is printed is what README shows, in an `sh` block only the exit code counts.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::common::shell::{command_lines, words};
use saphyr::{LoadableYamlNode, Yaml};
use serde_json::Value;
use tce_bench::cli::{self, Compared, Invocation};

const README: &str = include_str!("../../README.md");

/// A document of a real run of `--phase ring`.
const RUN: &str = include_str!("data/ring.json");

/// Commands that do not run here, by how they begin, and why.
const NOT_RUN: [(&str, &str); 18] = [
    ("cargo ", "it would build what is being tested"),
    ("scripts/", "it takes an emulator or a cluster, and minutes"),
    ("tce-bench --backend vfio", "it takes a POWER machine"),
    ("tce-bench --workload", "where there are real groups, it takes them"),
    ("tce-bench --groups 4 --window 2G --levels 2", "so does this, and it takes half a minute"),
    ("tce-bench --sweep", "a run for each of ten values"),
    ("tce-bench --pages 8 --rate", "ten seconds of open loop"),
    ("tce-bench workloads verify", "each workload; workloads_cli.rs does it"),
    ("tce-bench compare --run old", "40 runs"),
    ("tce-bench gate --run old", "40 runs, or 80"),
    ("tce-bench limits", "tables up to 256 MiB, many times each"),
    ("tce-bench teardown", "windows up to 1 TiB"),
    ("tce-bench churn", "1,000 rounds"),
    ("tce-bench crash", "where there are real groups, it takes them; crash_cli.rs uses the mock"),
    ("tce-bench soak", "millions of calls; soak_cli.rs makes fewer"),
    ("tce-bench stale", "the largest trace, three times"),
    ("tce-bench policies", "the same, nine times"),
    ("tce-bench trace stat", "all traces; trace_cli.rs does it"),
];

/// Exit codes, beside 0, that say something of the machine and nothing of the command.
const VERDICTS: [(&str, &str); 2] = [("tce-bench doctor", "4"), ("tce-bench gate", "3 5")];

/// Runs the first argument, and ends well and silently if its exit code is one of the others.
const RUN_ONE: &str = r#"said=$(eval "$1" 2>&1); code=$?; shift
for right; do [ "$code" != "$right" ] || exit 0; done; printf %s "$said"; exit "$code""#;

/// A fenced block.
struct Block<'a> {
    language: &'a str,
    /// Index of the line with the fence.
    fence: usize,
    lines: Vec<&'a str>,
}

/// One command, without what it prints.
struct Typed {
    /// Index of its (first) line.
    at: usize,
    text: String,
    /// README shows what it prints.
    shown: bool,
}

fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut all = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((fence, line)) = lines.next() {
        let Some(language) = line.strip_prefix("```") else { continue };
        let lines =
            lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
        all.push(Block { language, fence, lines });
    }
    all
}

fn typed(block: &Block<'_>) -> Vec<Typed> {
    let mut all = Vec::new();
    let mut lines = (block.fence + 1..).zip(&block.lines);
    while let Some((at, line)) = lines.next() {
        let shown = block.language == "console";
        let first = if shown { line.strip_prefix("$ ") } else { Some(*line) };
        let Some(first) = first.filter(|line| !line.is_empty() && !line.starts_with('#')) else {
            continue;
        };
        let mut text = first.to_owned();
        while let Some(part) = text.strip_suffix('\\') {
            let (_, more) = lines.next().expect("a line after a backslash");
            text = format!("{part}{}", more.trim_start());
        }
        all.push(Typed { at, text, shown });
    }
    all
}

/// All commands of README's blocks.
fn all_typed() -> Vec<Typed> {
    let of = |block: &Block<'_>| match block.language {
        "sh" | "console" => typed(block),
        // A test of tce-engine, one of the below, and what a run prints.
        "rust" | "yaml" | "text" => Vec::new(),
        other => panic!("README.md:{}: what is a block of '{other}'?", block.fence + 1),
    };
    blocks(README).iter().flat_map(of).collect()
}

fn runs(command: &Typed) -> bool {
    !NOT_RUN.iter().any(|(begin, _)| command.text.starts_with(begin))
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The line that trycmd gets for a command.
fn line_for(command: &Typed) -> String {
    if !runs(command) {
        return "$ not-run".to_owned();
    }
    let verdicts = VERDICTS.iter().find(|(begin, _)| command.text.starts_with(begin));
    let codes = match verdicts {
        _ if command.shown => String::new(),
        Some((_, codes)) => format!("0 {codes}"),
        None => "0".to_owned(),
    };
    let script = quoted(&RUN_ONE.replace('\n', "; "));
    format!("$ sh -c {script} sh {} {codes}", quoted(&command.text))
}

/// README for trycmd, line by line.
fn for_trycmd() -> String {
    let mut lines: Vec<String> = README.lines().map(str::to_owned).collect();
    for block in blocks(README).iter().filter(|block| block.language == "sh") {
        lines[block.fence] = "```console".to_owned();
        lines[block.fence + 1..][..block.lines.len()].fill("$ not-run".to_owned());
    }
    for command in all_typed() {
        lines[command.at] = line_for(&command);
    }
    lines.join("\n")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What the commands find: a clone that has been built, and files of those that do not run.
fn furnish(folder: &Path) {
    let at = |name: &str| {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    };
    symlink(root().join("workloads"), at("workloads")).unwrap();
    symlink(env!("CARGO_BIN_EXE_tce-bench"), at("target/release/tce-bench")).unwrap();
    let mut doc: Value = serde_json::from_str(RUN).unwrap();
    let kept = ["a/01", "a/02"].map(|name| format!("kept/{name}"));
    let results = ["main/1", "main/2", "new/1", "new/2"].map(|name| format!("results/{name}"));
    let single = ["old", "new", "out", "node1", "node2"].map(str::to_owned);
    for (nth, name) in kept.into_iter().chain(results).chain(single).enumerate() {
        doc["run"]["id"] = format!("01TEST{nth:020}").into();
        fs::write(at(&format!("{name}.json")), doc.to_string()).unwrap();
    }
    let event = "fio-9 [001] d..1. 100.000002: map: IOMMU: iova=0xfff10000 - 0xfff11000 paddr=0x12345000 size=4096\n";
    let capture = zstd::decode_all(&include_bytes!("data/nvme-net.tcecap.zst")[..]).unwrap();
    fs::write(at("boot.tcecap"), capture).unwrap();
    fs::write(at("trace.txt"), event).unwrap();
    fs::write(at("maps.csv"), "op,iova,size,paddr\nmap,0x10000,65536,0x20000\n").unwrap();
}

#[test]
fn every_command_does_what_it_should() {
    let dir = tempfile::tempdir().unwrap();
    let readme = dir.path().join("README.md");
    fs::write(&readme, for_trycmd()).unwrap();
    // trycmd's name for the folder that a file's commands run in.
    let folder = dir.path().join("README.in");
    furnish(&folder);
    let path =
        [folder.join("target/release").display().to_string(), std::env::var("PATH").unwrap()];
    trycmd::TestCases::new()
        .register_bin("sh", Path::new("/bin/sh"))
        .register_bin("not-run", trycmd::schema::Bin::Ignore)
        .env("PATH", path.join(":"))
        .case(&readme)
        .run();
    for written in
        ["first.json", "report.html", "both.html", "trend.html", "bmf.json", "fleet.json"]
    {
        assert!(folder.join(written).is_file(), "no {written}");
    }
}

#[test]
fn there_is_a_reason_for_each_command_that_does_not_run() {
    let all = all_typed();
    for (begin, _) in NOT_RUN {
        assert!(all.iter().any(|c| c.text.starts_with(begin)), "README has no '{begin}' any more");
    }
    for (begin, _) in VERDICTS {
        assert!(all.iter().any(|c| c.text.starts_with(begin) && runs(c)), "no '{begin}' runs");
    }
}

/// Panics unless the program takes this command line and, of comparisons, those of the programs compared.
fn understood(line: &[String]) {
    match cli::parse(line) {
        Ok(Invocation::Compare(config)) => {
            if let Compared::Run(pairs) = config.what {
                let name = std::iter::once("tce-bench".into());
                cli::parse(name.chain(pairs.args))
                    .unwrap_or_else(|e| panic!("{line:?}: {}", e.text));
            }
        }
        Ok(_) => {}
        Err(exit) => assert_eq!(exit.code, 0, "{line:?}: {}", exit.text),
    }
}

/// Panics unless cargo would find what it is to build, and the program would take what is behind `--`.
fn buildable(words: &[String]) {
    let line = words.join(" ");
    let mut rest = words[2..].iter();
    let (mut package, mut wanted, mut options) = ("bench-harness", Vec::new(), Vec::new());
    while let Some(word) = rest.next() {
        match word.as_str() {
            "--release" | "--workspace" | "--locked" => {}
            "--" => options = rest.by_ref().cloned().collect(),
            "-p" => match rest.next().map(String::as_str) {
                Some("tce-engine") => package = "engine",
                Some("tce-bench") => package = "bench-harness",
                other => panic!("{line}: no package {other:?}"),
            },
            "--test" => wanted.push(("tests", rest.next().expect("a name"))),
            "--example" => wanted.push(("examples", rest.next().expect("a name"))),
            "--bench" => wanted.push(("benches", rest.next().expect("a name"))),
            other => panic!("{line}: is {other} an option?"),
        }
    }
    for (kind, name) in &wanted {
        let folder = root().join(package).join(kind);
        let here = [folder.join(format!("{name}.rs")), folder.join(name).join("main.rs")];
        assert!(here.iter().any(|path| path.is_file()), "{line}: none of {here:?}");
    }
    match words[1].as_str() {
        "run" if wanted.is_empty() => understood(&[vec!["tce-bench".to_owned()], options].concat()),
        "run" | "test" | "build" | "bench" => {}
        other => panic!("{line}: does cargo know '{other}'?"),
    }
}

/// Panics unless the script is there, can be run and knows its options.
fn runnable(words: &[String]) {
    let line = words.join(" ");
    let path = root().join(&words[0]);
    let mode = fs::metadata(&path).unwrap_or_else(|e| panic!("{line}: {e}")).permissions().mode();
    assert_eq!(mode & 0o111, 0o111, "{line}: it cannot be run");
    let script = fs::read_to_string(&path).unwrap();
    let rest = words[1..].iter().take_while(|word| *word != "--");
    if words[0] == "scripts/fleet/slurm-submit" {
        let options = rest.skip(1).cloned();
        return understood(
            &std::iter::once("tce-bench".to_owned()).chain(options).collect::<Vec<_>>(),
        );
    }
    for option in rest.filter(|word| word.starts_with('-')) {
        let known = |text: &str| text.split([' ', '|', ')', '[', ']']).any(|word| word == option);
        assert!(script.lines().any(known), "{line}: {} knows no {option}", words[0]);
    }
}

/// Panics unless the command could be run where README means it to be.
fn checked(text: &str) {
    let words = words(text);
    match words[0].as_str() {
        "cargo" => buildable(&words),
        script if script.starts_with("scripts/") || script == ".ci/run" => runnable(&words),
        _ => {}
    }
    for path in words.iter().filter(|word| word.starts_with("workloads/")) {
        let (folder, name) = path.rsplit_once('/').unwrap();
        let there = root().join(if name.contains('*') { folder } else { path });
        assert!(there.exists(), "{text}: no {path}");
    }
    if words[0] != "cargo" {
        command_lines(text).iter().for_each(|line| understood(line));
    }
}

#[test]
fn every_command_is_understood() {
    for command in all_typed() {
        let done = std::panic::catch_unwind(|| checked(&command.text));
        assert!(done.is_ok(), "README.md:{}: {}", command.at + 1, command.text);
    }
}

/// README without its blocks, as one line.
fn prose() -> String {
    let mut lines: Vec<&str> = README.lines().collect();
    for block in blocks(README).iter().rev() {
        lines.drain(block.fence..block.fence + block.lines.len() + 2);
    }
    lines.join(" ")
}

/// What stands between backticks.
fn spans(text: &str) -> Vec<&str> {
    assert_eq!(text.matches('`').count() % 2, 0, "a backtick is alone");
    text.split('`').skip(1).step_by(2).collect()
}

/// The options of a command and of those below it.
fn options(command: &[&str], found: &mut BTreeSet<String>) {
    let Err(help) = cli::parse([command, &["--help"]].concat()) else { panic!("{command:?}") };
    assert_eq!(help.code, 0, "{command:?}: {}", help.text);
    let is_option = |word: &&str| word.starts_with("--");
    let words = help.text.split([' ', '\n', '=', ',', '[', ']', '.']).filter(is_option);
    found.extend(words.map(str::to_owned));
    let commands = help.text.lines().skip_while(|line| *line != "Commands:").skip(1);
    for line in commands.take_while(|line| !line.is_empty()) {
        let name = line.trim_start_matches("  ").split(' ').next().unwrap_or_default();
        if !name.is_empty() && name != "help" {
            options(&[command, &[name]].concat(), found);
        }
    }
}

#[test]
fn commands_and_options_in_the_text_exist() {
    let text = prose();
    let mut known = BTreeSet::new();
    options(&["tce-bench"], &mut known);
    assert!(known.len() > 80, "{known:?}");
    for span in spans(&text) {
        let words: Vec<&str> = span.split_whitespace().collect();
        match words.as_slice() {
            ["--bench", _] => checked(&format!("cargo bench {span}")),
            [option, ..] if option.starts_with("--") && option.len() > 2 => {
                let option = option.split('=').next().unwrap_or_default();
                assert!(known.contains(option), "`{span}`: no command has {option}");
            }
            ["tce-bench", command] if !command.starts_with('-') => {
                checked(&format!("tce-bench {command} --help"));
            }
            [first, _, ..] if *first == "tce-bench" || *first == "cargo" => checked(span),
            [first, ..] if first.starts_with("scripts/") || *first == ".ci/run" => checked(span),
            _ => {}
        }
    }
}

#[test]
fn the_gate_that_is_shown_is_the_workflow_s() {
    let workflow = fs::read_to_string(root().join(".github/workflows/perf.yml")).unwrap();
    let all = blocks(README);
    let shown: Vec<_> = all.iter().filter(|block| block.language == "yaml").collect();
    let [block] = shown.as_slice() else { panic!("{} blocks of YAML", shown.len()) };
    let step: String = block.lines.iter().map(|line| format!("      {line}\n")).collect();
    assert!(workflow.contains(&step), "perf.yml has no such step:\n{step}");
    // It is a step, and the whole of it.
    let text = block.lines.join("\n");
    let documents = Yaml::load_from_str(&text).unwrap();
    let [Yaml::Sequence(steps)] = documents.as_slice() else { panic!("a list") };
    let [step] = steps.as_slice() else { panic!("{} steps", steps.len()) };
    let run = step.as_mapping_get("run").and_then(Yaml::as_str).expect("a script");
    let whole = Yaml::load_from_str(&workflow).unwrap();
    let steps =
        ["jobs", "gate", "steps"].iter().try_fold(&whole[0], |y, key| y.as_mapping_get(key));
    let steps = steps.and_then(Yaml::as_sequence).expect("steps");
    assert!(steps.iter().any(|s| s.as_mapping_get("run").and_then(Yaml::as_str) == Some(run)));
    let [line] = command_lines(run).try_into().expect("one call");
    assert!(matches!(cli::parse(&line), Ok(Invocation::Compare(config)) if config.gate));
}

/// How GitHub names a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

#[test]
fn links_lead_somewhere_and_one_shows_a_report() {
    let text = prose();
    let headings: Vec<_> = README.lines().filter(|line| line.starts_with('#')).collect();
    let anchors: Vec<_> =
        headings.iter().map(|line| anchor(line.trim_start_matches('#').trim())).collect();
    let mut pictures = Vec::new();
    for (at, _) in text.match_indices("](") {
        let target = text[at + 2..].split(')').next().unwrap();
        let is_picture = text[..at].rfind('[').is_some_and(|open| text[..open].ends_with('!'));
        if is_picture {
            pictures.push(target);
        }
        if let Some(wanted) = target.strip_prefix('#') {
            assert!(anchors.iter().any(|a| a == wanted), "no heading for #{wanted}");
        } else if !target.starts_with("https://") {
            assert!(root().join(target).exists(), "no {target}");
        }
    }
    assert_eq!(pictures, ["results/report.png"]);
    let picture = fs::read(root().join(pictures[0])).unwrap();
    assert!(picture.starts_with(b"\x89PNG\r\n\x1a\n"), "no PNG");
}

#[test]
fn what_is_wrong_is_found() {
    let wrong = [
        "tce-bench --no-such-option",
        "tce-bench gate --run a b -- --no-such-option # why",
        "cargo run --release -- --no-such-option",
        "cargo test -p tce-engine --test no_such_test",
        "cargo bench --bench no_such_bench",
        "cargo frobnicate",
        "scripts/no-such-script",
        "scripts/power8-vm --no-such-option",
        "scripts/power8-vm -- tce-bench --no-such-option",
        "scripts/fleet/slurm-submit results --no-such-option",
        "tce-bench replay workloads/traces/no-such-trace",
        "tce-bench replay workloads/no-such-folder/*.zst",
    ];
    for line in wrong {
        assert!(std::panic::catch_unwind(|| checked(line)).is_err(), "{line}");
    }
    let text = "```sh\n# no\na \\\n  b # c\n\nd 'e'\n```\n```console\n$ f\nout\n$ g\n```\n";
    let found: Vec<_> =
        blocks(text).iter().flat_map(typed).map(|c| (c.at, c.text, c.shown)).collect();
    let expected = [(2, "a b # c", false), (5, "d 'e'", false), (8, "f", true), (10, "g", true)];
    assert_eq!(found, expected.map(|(at, text, shown)| (at, text.to_owned(), shown)));
    assert_eq!(spans("`a` b `c d`"), ["a", "c d"]);
    assert_eq!(anchor("Is it slower than `before`?"), "is-it-slower-than-before");
}
