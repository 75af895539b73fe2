// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Processes of this program, and what the system shows of them and of locked memory.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};

use anyhow::Context;
use rustix::process::{Pid, test_kill_process_group};
use serde::Serialize;

use crate::host::{HUGE_POOLS, HugePool, bytes_of, huge_pools};

/// This program, to be started once more.
///
/// # Errors
/// If its file is not known.
pub(super) fn program() -> anyhow::Result<Command> {
    Ok(Command::new(std::env::current_exe().context("cannot tell where this program is")?))
}

/// Starts it in a process group of its own, so that what is typed at a terminal does not reach it.
///
/// # Errors
/// If it cannot be started.
pub(super) fn spawn(command: &mut Command) -> anyhow::Result<Child> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.process_group(0).spawn().with_context(|| format!("cannot start {name}"))
}

/// True if a process is left of the group that [`spawn`] made.
pub(super) fn is_left(child: &Child) -> bool {
    test_kill_process_group(Pid::from_child(child)).is_ok()
}

/// `VmLck` of a process in bytes; `None` if it has no memory any more.
pub(super) fn locked_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    bytes_of(&status, "VmLck:")
}

/// What a killed process must not leave behind in the system. Null where the kernel does not tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct System {
    /// `Mlocked` of meminfo.
    pub(super) mlocked_bytes: Option<u64>,
    /// Pages pinned for DMA, as often as they are: `nr_foll_pin_acquired` less `nr_foll_pin_released`
    /// of vmstat.
    pub(super) pinned_pages: Option<u64>,
    /// Free huge pages, by size in bytes.
    pub(super) huge_pages_free: BTreeMap<u64, u64>,
}

impl System {
    pub(super) fn now() -> Self {
        // The kernel adds up each processor's share once a second, or when it is asked to.
        let _ = fs::write("/proc/sys/vm/stat_refresh", "1");
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        let pools = huge_pools(&Path::new("/").join(HUGE_POOLS));
        Self::of(&text("/proc/meminfo"), &text("/proc/vmstat"), &pools)
    }

    fn of(meminfo: &str, vmstat: &str, pools: &[HugePool]) -> Self {
        let count = |name: &str| {
            let mut lines = vmstat.lines().filter_map(|line| line.split_once(' '));
            lines.find(|(of, _)| *of == name)?.1.trim().parse::<u64>().ok()
        };
        let released = count("nr_foll_pin_released");
        Self {
            mlocked_bytes: bytes_of(meminfo, "Mlocked:"),
            pinned_pages: count("nr_foll_pin_acquired")
                .zip(released)
                .map(|(acquired, released)| acquired.saturating_sub(released)),
            huge_pages_free: pools.iter().map(|pool| (pool.size, pool.free)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_is_read() {
        let meminfo = "MemFree:  5 kB\nMlocked:       32 kB\n";
        let vmstat = "nr_foll_pin_acquired 1030\nnr_foll_pin_released 6\nnr_mlock 1\n";
        let seen = System::of(meminfo, vmstat, &[]);
        assert_eq!((seen.mlocked_bytes, seen.pinned_pages), (Some(32 << 10), Some(1024)));
        let none = System::of("", "nr_foll_pin_acquired 1030\n", &[]);
        assert_eq!((none.mlocked_bytes, none.pinned_pages), (None, None));
        assert!(System::now().mlocked_bytes.is_some());
    }

    #[test]
    fn a_group_is_left_until_its_last_process_is_gone() {
        let mut child = spawn(Command::new("sleep").arg("100")).unwrap();
        assert!(locked_bytes(child.id()).is_some() && is_left(&child));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!is_left(&child));
        assert_eq!(locked_bytes(child.id()), None);
    }
}
