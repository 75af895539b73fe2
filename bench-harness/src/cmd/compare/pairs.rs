// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Two programs run in turns.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, anyhow, bail};
use indicatif::ProgressBar;

use super::load::{Side, Taken};
use super::stats;
use crate::cli::PairsConfig;
use crate::cmd::documents::each;
use crate::interrupt::interrupted;
use crate::outfile::OutFile;

/// What running them gave.
#[derive(Debug)]
pub(super) struct Pairs {
    /// In order of time.
    pub(super) sides: [Side; 2],
    /// True where A ran first.
    pub(super) a_first: Vec<bool>,
    /// How many runs of each side belong to each pair.
    pub(super) runs: Vec<usize>,
}

/// Runs each once unmeasured, then the pairs. `likely` looks at the first run of each; where a pair is the best of
/// several, it is over when it has `enough`, and at least two. After Ctrl-C there are fewer pairs.
///
/// # Errors
/// Which program failed or gave no document that can be used, and why.
pub(super) fn run(
    config: &PairsConfig,
    seed: u64,
    progress: &ProgressBar,
    likely: impl FnOnce(&[Side; 2]) -> anyhow::Result<()>,
    enough: impl Fn(&[Side; 2]) -> bool,
) -> anyhow::Result<Pairs> {
    let programs = [&config.a, &config.b];
    let sides = || programs.map(|p| Side { name: p.display().to_string(), runs: Vec::new() });
    let mut pairs = Pairs { sides: sides(), a_first: Vec::new(), runs: Vec::new() };
    // Pages of the program, huge pages, frequency: what only the first run of all meets. It also shows
    // early what cannot be compared.
    let mut first = sides();
    for (nth, program) in programs.iter().enumerate() {
        progress.set_message("warm-up");
        match once(program, config, &format!("{} (warm-up)", ["A", "B"][nth]))? {
            Some((run, _)) => first[nth].runs.push(run),
            None => return Ok(pairs),
        }
    }
    likely(&first)?;
    for (nth, a_first) in stats::orders(config.pairs as usize, seed).into_iter().enumerate() {
        progress.set_message(format!("pair {} of {}", nth + 1, config.pairs));
        let order = if a_first { [0, 1] } else { [1, 0] };
        let (mut got, mut texts) = (sides(), [Vec::new(), Vec::new()]);
        for round in 1..=config.best_of {
            for side in order {
                let what = format!("{} (pair {})", ["A", "B"][side], nth + 1);
                let Some((run, text)) = once(programs[side], config, &what)? else {
                    return Ok(pairs);
                };
                got[side].runs.push(run);
                texts[side].push(text);
            }
            if round > 1 && enough(&got) {
                break;
            }
        }
        if let Some(folder) = &config.keep {
            let first = pairs.runs.iter().sum::<usize>() + 1;
            keep(folder, first, &texts)?;
        }
        pairs.a_first.push(a_first);
        pairs.runs.push(got[0].runs.len());
        for (side, got) in pairs.sides.iter_mut().zip(got) {
            side.runs.extend(got.runs);
        }
        progress.inc(1);
    }
    Ok(pairs)
}

/// One run, and its document as it was printed; none if it was interrupted.
fn once(
    program: &Path,
    config: &PairsConfig,
    what: &str,
) -> anyhow::Result<Option<(Taken, Vec<u8>)>> {
    if interrupted() {
        return Ok(None);
    }
    let name = format!("{what} '{}'", program.display());
    let out = Command::new(program)
        .args(&config.args)
        .args(["--quiet", "--json", "-"].map(OsStr::new))
        .stdin(Stdio::null())
        .output()
        .map_err(|e| anyhow!("{name} cannot be started: {e}"))?;
    if interrupted() {
        return Ok(None);
    }
    // What went wrong is in the document, if there is one: a run that is not verified ends with 1.
    let run = each(&out.stdout);
    if !out.status.success() {
        let error = String::from_utf8_lossy(&out.stderr);
        let last = error.lines().rfind(|line| !line.trim().is_empty());
        let why = match (&run, last) {
            (Err(why), _) if !out.stdout.is_empty() => format!("{why:#}"),
            (_, Some(line)) => line.trim_start_matches("error: ").to_owned(),
            _ => "it said nothing".to_owned(),
        };
        bail!("{name} failed with {}: {why}", out.status);
    }
    run.map(|run| Some((run, out.stdout)))
        .with_context(|| format!("{name} gave nothing to compare"))
}

/// Keeps the documents of a pair, as `a/01.json` and `b/01.json` if `first` is 1.
fn keep(folder: &Path, first: usize, texts: &[Vec<Vec<u8>>; 2]) -> anyhow::Result<()> {
    for (side, texts) in ["a", "b"].into_iter().zip(texts) {
        let folder = folder.join(side);
        std::fs::create_dir_all(&folder)
            .map_err(|e| anyhow!("cannot make '{}': {e}", folder.display()))?;
        for (nth, text) in (first..).zip(texts) {
            let file = OutFile::File(folder.join(format!("{nth:02}.json")));
            file.write(text).map_err(|e| anyhow!(e))?;
        }
    }
    Ok(())
}
