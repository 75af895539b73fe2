// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The samples for CI and for fleets: YAML is YAML, and every command line of tce-bench in them is one that
//! it takes. What runs them for real: `scripts/fleet/slurm-test` and `reframe-test`.

use std::fs;
use std::path::Path;

use crate::common::shell::{command_lines, words};
use saphyr::{LoadableYamlNode, Yaml};
use tce_bench::cli::{self, Invocation};

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn parsed(line: &[String]) -> Invocation {
    cli::parse(line).unwrap_or_else(|exit| panic!("{line:?}: {}", exit.text))
}

/// The kinds of commands in a script, each found to be understood.
fn kinds(script: &str) -> Vec<&'static str> {
    let kind = |line: Vec<String>| match parsed(&line) {
        Invocation::Run(_) => "run",
        Invocation::Compare(config) if config.gate => "gate",
        Invocation::Export(_) => "export",
        Invocation::Merge(_) => "merge",
        other => panic!("{line:?} is {other:?}"),
    };
    command_lines(script).into_iter().map(kind).collect()
}

fn documents(text: &str) -> Vec<Yaml<'_>> {
    Yaml::load_from_str(text).expect("YAML")
}

fn get<'a>(node: &'a Yaml<'_>, path: &str) -> &'a Yaml<'a> {
    path.split('/').fold(node, |node, key| match key.parse::<usize>() {
        Ok(nth) => node.as_sequence_get(nth).unwrap_or_else(|| panic!("no {key} of {path}")),
        Err(_) => node.as_mapping_get(key).unwrap_or_else(|| panic!("no {key} of {path}")),
    })
}

/// The texts under `key`, anywhere.
fn texts<'a>(node: &'a Yaml<'_>, key: &str, found: &mut Vec<&'a str>) {
    match node {
        Yaml::Mapping(map) => {
            for (name, value) in map {
                if name.as_str() == Some(key) {
                    found.extend(value.as_str());
                }
                texts(value, key, found);
            }
        }
        Yaml::Sequence(all) => all.iter().for_each(|one| texts(one, key, found)),
        _ => {}
    }
}

#[test]
fn regression_tracking_goes_from_gate_to_chart() {
    let text = read(".github/workflows/perf.yml");
    let documents = documents(&text);
    let [workflow] = documents.as_slice() else { panic!("one document") };
    let mut scripts = Vec::new();
    texts(get(workflow, "jobs/gate"), "run", &mut scripts);
    assert_eq!(kinds(&scripts.concat()), ["gate"]);
    scripts.clear();
    texts(get(workflow, "jobs/track"), "run", &mut scripts);
    assert_eq!(kinds(&scripts.concat()), ["run", "export", "export", "export", "merge"]);
    // What is drawn is what was exported, each with its direction.
    let mut drawn = Vec::new();
    texts(workflow, "output-file-path", &mut drawn);
    texts(workflow, "tool", &mut drawn);
    let wanted = ["smaller.json", "bigger.json", "customSmallerIsBetter", "customBiggerIsBetter"];
    assert_eq!(drawn, wanted);
    for line in command_lines(&scripts.concat()) {
        let Invocation::Export(config) = parsed(&line) else { continue };
        let file = format!("{:?}", config.out);
        let name = match (config.to, config.better) {
            (cli::ExportFormat::Gha, cli::Better::Smaller) => "smaller.json",
            (cli::ExportFormat::Gha, cli::Better::Bigger) => "bigger.json",
            _ => "bmf.json",
        };
        assert!(file.contains(name), "{file} is to be {name}");
    }
}

#[test]
fn all_workflows_are_yaml() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.github/workflows");
    let mut seen = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        let documents = documents(&text);
        assert!(documents.len() == 1 && !matches!(get(&documents[0], "jobs"), Yaml::BadValue));
        seen += 1;
    }
    assert!(seen >= 2, "{seen}");
}

#[test]
fn the_slurm_scripts_run_and_merge() {
    assert_eq!(kinds(&read("scripts/fleet/slurm-array.sh")), ["run"]);
    let submit = read("scripts/fleet/slurm-submit");
    assert_eq!(kinds(&submit), ["merge"]);
    assert!(submit.contains("/slurm-array.sh\""));
}

#[test]
fn the_kubernetes_job_has_a_pod_for_each_index_and_merges_them_all() {
    let text = read("scripts/fleet/k8s-job.yaml");
    let documents = documents(&text);
    let [run, merge] = documents.as_slice() else { panic!("two jobs") };
    for job in [run, merge] {
        assert_eq!(get(job, "apiVersion").as_str(), Some("batch/v1"));
        assert_eq!(get(job, "kind").as_str(), Some("Job"));
        assert_eq!(get(job, "spec/template/spec/restartPolicy").as_str(), Some("Never"));
        let mounted = get(job, "spec/template/spec/containers/0/volumeMounts/0/name").as_str();
        assert_eq!(mounted, get(job, "spec/template/spec/volumes/0/name").as_str());
    }
    assert_eq!(get(run, "spec/completionMode").as_str(), Some("Indexed"));
    assert_eq!(get(run, "spec/completions").as_integer(), Some(8));
    let list = |node: &Yaml<'_>| -> Vec<String> {
        let texts = node.as_sequence().expect("a list").iter();
        texts.map(|text| text.as_str().expect("text").to_owned()).collect()
    };
    let container =
        |job, part: &str| list(get(job, &format!("spec/template/spec/containers/0/{part}")));
    let line = [container(run, "command"), container(run, "args")].concat();
    let Invocation::Run(config) = parsed(&line) else { panic!("{line:?}") };
    assert!(format!("{:?}", config.output.json).contains("/results/$(INDEX).json"));
    // Every $(NAME) is a variable of the container.
    let mut names = Vec::new();
    texts(get(run, "spec/template/spec/containers/0/env"), "name", &mut names);
    assert_eq!(names, ["NODE", "INDEX"]);
    assert_eq!(container(merge, "command"), ["sh", "-c"]);
    assert_eq!(kinds(&container(merge, "args").concat()), ["merge"]);
}

#[test]
fn what_finds_command_lines_finds_them() {
    let script = "# tce-bench not this\n  tce-bench run \"$@\" --label \"a $X\" \\\n --json ${Y}.json >log || true\n";
    let line = ["tce-bench", "run", "--label", "a 1", "--json", "1.json"];
    assert_eq!(command_lines(script), [line.map(str::to_owned)]);
    assert_eq!(words("a 'b $c' \"\" $(d e)f"), ["a", "b $c", "", "1f"]);
    let wrong = std::panic::catch_unwind(|| kinds("tce-bench run --no-such-option"));
    assert!(wrong.is_err());
}
