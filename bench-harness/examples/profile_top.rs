// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The functions that a profile of `tce-bench --profile` found most often:
//!
//!     cargo run --release -p tce-bench --example profile_top -- FILE [UNDER]
//!
//! The share of samples that were taken in each of the workspace's functions or in what it called, from
//! 1 % up. With UNDER, only the samples are counted that have a function on their stack whose name
//! contains it. The profiler keeps one stack of inlined functions for each function that is called, so
//! the shares of inlined functions tell nothing beyond that of their caller.

#[cfg(any(target_arch = "x86_64", all(target_arch = "powerpc64", target_endian = "little")))]
fn main() -> anyhow::Result<()> {
    use std::collections::{BTreeMap, BTreeSet, HashMap};
    use std::io::Read;

    use anyhow::Context;
    use pprof::protos::{Message, Profile};

    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().context("usage: profile_top FILE [UNDER]")?;
    let under = arguments.next().unwrap_or_default();
    let mut bytes = Vec::new();
    let file = std::fs::File::open(&path).with_context(|| path.clone())?;
    flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).with_context(|| path.clone())?;
    let profile = Profile::decode(&*bytes).with_context(|| path.clone())?;

    let text = |n: i64| &*profile.string_table[n as usize];
    let names: HashMap<_, _> = profile
        .function
        .iter()
        .map(|f| (f.id, format!("{} ({})", text(f.name), text(f.filename))))
        .collect();
    let lines: HashMap<_, Vec<_>> = profile
        .location
        .iter()
        .map(|l| (l.id, l.line.iter().map(|line| &*names[&line.function_id]).collect()))
        .collect();
    let (mut all, mut counted) = (0, 0);
    let mut shares: BTreeMap<&str, i64> = BTreeMap::new();
    for sample in &profile.sample {
        let stack: Vec<&str> =
            sample.location_id.iter().flat_map(|id| &lines[id]).copied().collect();
        let count = sample.value[0];
        all += count;
        if !stack.iter().any(|name| name.contains(&under)) {
            continue;
        }
        counted += count;
        for name in stack.into_iter().collect::<BTreeSet<_>>() {
            *shares.entry(name).or_default() += count;
        }
    }
    let percent = |count: i64| 100.0 * count as f64 / counted.max(1) as f64;
    let own = |name: &str| name.contains("(engine/") || name.contains("(bench-harness/");
    let mut shares: Vec<_> = shares.into_iter().filter(|(name, _)| own(name)).collect();
    shares.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    println!("{counted} of {all} samples");
    for (name, count) in shares.into_iter().filter(|(_, count)| percent(*count) >= 1.0) {
        println!("{:5.1}%  {name}", percent(count));
    }
    Ok(())
}

#[cfg(not(any(target_arch = "x86_64", all(target_arch = "powerpc64", target_endian = "little"))))]
fn main() {}
