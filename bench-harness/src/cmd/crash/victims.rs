// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Who is killed: runs, churns and replays of this program with settings that differ in what they hold.

use std::ffi::OsString;
use std::path::PathBuf;

use tce_engine::addr::{GroupId, PageShift};

use crate::host::HugePool;
use crate::run::lists::Random;
use crate::size::format_arg;

/// Huge pages that a victim takes.
const HUGE_PAGES: u64 = 4;

/// One kind of victim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    /// As in results.
    pub(super) name: &'static str,
    /// Real groups that it takes.
    pub(super) groups: usize,
    args: Vec<OsString>,
}

impl Kind {
    fn new(name: &'static str, groups: usize, args: &str) -> Self {
        Self { name, groups, args: args.split_whitespace().map(OsString::from).collect() }
    }

    /// A short run, to see whether all is as new.
    pub(super) fn fresh(groups: usize, more: &str) -> Self {
        let args = format!("run --phase bulk --repetitions 1 --warmup 0s {more}");
        Self::new("fresh run", groups, &args)
    }

    /// What stands behind the program's name, but for where results go.
    pub(super) fn args(&self, groups: &[GroupId]) -> Vec<OsString> {
        let mut args = self.args.clone();
        if !groups.is_empty() {
            args.extend(["--vfio-groups".into(), list(groups).into()]);
        }
        args
    }
}

/// Groups, or their numbers, as they are typed.
pub(super) fn list(groups: &[impl ToString]) -> String {
    groups.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Victims on real groups, of which there are `most`. Windows are small: what takes time there is the
/// kernel, which clears them.
pub(super) fn real(most: usize, host_page: PageShift, pools: &[HugePool]) -> Vec<Kind> {
    let page = format_arg(host_page.bytes());
    let window = |pages: u64| format_arg(pages * host_page.bytes());
    let run = |name, groups, more: &str| {
        let args = format!("run --backend vfio --repetitions 2 --warmup 0s {more}");
        Kind::new(name, groups, &args)
    };
    let churn = |name, detach| {
        let args = format!(
            "churn --backend vfio --window {} --page-size {page} --detach {detach} --rounds 3 --calls 16",
            window(1024)
        );
        Kind::new(name, 2, &args)
    };
    let whole = format!("--window {} --page-size {page}", window(8192));
    let two = format!("--window {} --page-size {page}", window(16384));
    let small = "--window 64M --page-size 4K --levels 2";
    let mut kinds = vec![
        run("run, 1 group", 1, &format!("{whole} --phase bulk --phase ring")),
        run("run, 2 threads", 1, &format!("{two} --threads 2 --phase indirect --phase single")),
        run("run, 4 groups, 4K pages", 4, &format!("{small} --phase bulk --phase batch")),
        run("run, 2 containers", 2, &format!("{whole} --containers 2 --phase checked")),
        run("run, replay", 3, &format!("{whole} --detach replay --phase bulk")),
        run("run, isolate", 2, &format!("{whole} --detach isolate --phase bulk --phase exchange")),
        run("run, version 1", 1, "--vfio-v1 --phase ring"),
        churn("churn, replay", "replay"),
        churn("churn, refuse", "refuse"),
        churn("churn, isolate", "isolate"),
    ];
    let huge = |pool: &&HugePool| {
        pool.free >= HUGE_PAGES && PageShift::from_bytes(pool.size).is_some_and(|p| p > host_page)
    };
    if let Some(size) = pools.iter().find(huge).map(|pool| pool.size) {
        let (page, buffer) = (format_arg(size), format_arg(HUGE_PAGES * size));
        let window = format_arg(64 * size);
        let more = format!("--page-size {page} --window {window} --buffer {buffer} --phase bulk");
        kinds.push(run("run, huge pages", 1, &more));
    }
    kinds.retain(|kind| kind.groups <= most);
    kinds
}

/// Victims on mocks, which take no group, and replays of these traces.
pub(super) fn simulated(traces: &[PathBuf]) -> Vec<Kind> {
    let run =
        |name, more: &str| Kind::new(name, 0, &format!("run --duration 40ms --warmup 0s {more}"));
    let churn = |name, more: &str| {
        Kind::new(name, 0, &format!("churn --window 16M --rounds 40 --calls 16 {more}"))
    };
    let mut kinds = vec![
        run("run, mock", "--backend mock --window 64M --groups 4 --phase bulk --phase ring"),
        run(
            "run, mock, deferred",
            "--backend mock --window 64M --policy deferred=64 --phase single --phase mix",
        ),
        run(
            "run, mock kernel",
            "--profile k6_11 --window 64M --groups 3 --detach replay --phase bulk",
        ),
        run("run, mock kernel, version 1", "--profile k6_11 --vfio-v1 --phase ring"),
        churn("churn, mock", "--backend mock"),
        churn("churn, mock kernel, replay", "--profile k6_11 --detach replay"),
        churn("churn, mock kernel, isolate", "--profile k6_11 --detach isolate"),
    ];
    if !traces.is_empty() {
        let mut replay = Kind::new("replay", 0, "replay --pass checked");
        replay.args.extend(traces.iter().map(|trace| trace.clone().into_os_string()));
        kinds.push(replay);
    }
    kinds
}

/// So many of the groups, which ones and in which order is random.
pub(super) fn pick(groups: &[GroupId], count: usize, random: &mut Random) -> Vec<GroupId> {
    let mut left = groups.to_vec();
    (0..count).map(|_| left.swap_remove(random.below(left.len() as u64) as usize)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{self, Invocation};

    /// What is typed is understood, groups included.
    #[test]
    fn victims_are_command_lines() {
        let pools = [HugePool { size: 16 << 20, total: 8, free: 8 }];
        let groups = [3, 1, 4, 5, 2].map(GroupId);
        for page in [PageShift::K4, PageShift::K64] {
            let all = real(5, page, &pools);
            assert_eq!(all.len(), 11);
            for kind in all.iter().chain(&simulated(&["a.tce.zst".into()])) {
                let args = kind.args(&pick(&groups, kind.groups, &mut Random::new(7)));
                let line = std::iter::once("tce-bench".into()).chain(args);
                match cli::parse(line) {
                    Ok(Invocation::Run(config)) => {
                        assert_eq!(config.vfio_groups.is_some(), kind.groups > 0);
                    }
                    Ok(Invocation::Churn(_) | Invocation::Replay(_)) => {}
                    other => panic!("{}: {other:?}", kind.name),
                }
            }
        }
        assert_eq!(real(1, PageShift::K64, &[]).len(), 3);
        assert_eq!(simulated(&[]).len(), 7);
    }

    #[test]
    fn groups_are_picked_once_each() {
        let mut random = Random::new(1);
        let all = [0, 1, 2, 3].map(GroupId);
        let mut picked = pick(&all, 4, &mut random);
        picked.sort_unstable();
        assert_eq!(picked, all);
        assert_eq!(list(&all[1..]), "1,2,3");
    }
}
