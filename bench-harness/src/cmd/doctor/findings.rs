// SPDX-License-Identifier: Apache-2.0 OR MIT
//! From what was seen to what it means and what to do about it.

use serde::Serialize;
use tce_engine::backend::linux::vfio::{
    Examination, GroupExamination, ModuleState, PreflightError,
};
use tce_engine::platform::Platform;

use crate::cmd::plan::HugePages;
use crate::host::HostFacts;
use crate::run::model;
use crate::run::rig::Plan;
use crate::size::{format_arg, format_size};

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    Ok,
    /// It can be used all the same.
    Warn,
    /// It cannot be used.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// Stays the same, for programs.
    pub(super) code: &'static str,
    pub(super) status: Level,
    /// One line.
    pub(super) text: String,
    /// Where it was seen.
    pub(super) seen: String,
    /// What to do, in words; null if nothing has to be done.
    pub(super) fix: Option<String>,
    /// The one line for a shell of root that does it; null where none does.
    pub(super) command: Option<String>,
}

impl Finding {
    fn new(code: &'static str, status: Level, text: impl Into<String>, seen: &str) -> Self {
        let (text, seen) = (text.into(), seen.to_owned());
        Self { code, status, text, seen, fix: None, command: None }
    }

    fn ok(code: &'static str, text: impl Into<String>, seen: &str) -> Self {
        Self::new(code, Level::Ok, text, seen)
    }

    fn fix(self, fix: impl Into<String>) -> Self {
        Self { fix: Some(fix.into()), ..self }
    }

    fn command(self, command: Option<String>) -> Self {
        Self { command, ..self }
    }

    fn refused(code: &'static str, status: Level, error: &PreflightError, seen: &str) -> Self {
        Self::new(code, status, error.cause(), seen).fix(error.fix()).command(error.command())
    }
}

/// All that was looked at.
pub(super) struct Seen<'a> {
    pub(super) host: &'a HostFacts,
    pub(super) examined: &'a Examination,
    pub(super) modules: &'a [(&'static str, ModuleState)],
    pub(super) plan: &'a Plan,
}

impl Seen<'_> {
    /// What it means; `named` if the groups were chosen by the user, so that all of them are needed.
    pub(super) fn findings(&self, named: bool) -> Vec<Finding> {
        let mut all = vec![self.machine()];
        // Everywhere else what follows is not wrong but absent.
        if !matches!(self.examined.container, Err(PreflightError::NotPower { .. })) {
            all.push(self.kernel_modules());
            all.push(self.container());
            all.extend(self.examined.groups.iter().map(|g| self.group(g, named)));
            all.push(self.groups());
            all.push(self.memlock());
            all.push(self.huge_pages());
        }
        all.extend(self.noise());
        all
    }

    fn machine(&self) -> Finding {
        let (code, seen) = ("MACHINE", "uname -m, /proc/cpuinfo");
        if let Err(e @ PreflightError::NotPower { .. }) = &self.examined.container {
            return Finding::refused(code, Level::Fail, e, seen);
        }
        let cpu = &self.host.cpu;
        let words = [&cpu.model, &cpu.platform, &cpu.machine, &cpu.firmware, &cpu.mmu];
        let words: Vec<_> = words.into_iter().flatten().map(String::as_str).collect();
        let text = format!("{}: {}", self.host.arch, words.join(", "));
        match model::bridges(cpu) {
            Some(Platform::Pseries) => Finding::new(code, Level::Warn, text, seen).fix(
                "nothing is wrong: the hypervisor owns the tables of a guest, so they have 1 level and \
                 each group has its own; ask for as many containers as groups, or --detach isolate",
            ),
            Some(_) => Finding::ok(code, text, seen),
            None => Finding::new(code, Level::Warn, text, seen)
                .fix("the processor is not known: what its host bridges offer is only seen in a run"),
        }
    }

    fn kernel_modules(&self) -> Finding {
        let word = |state: ModuleState| match state {
            ModuleState::Present => "in the kernel",
            ModuleState::Available => "not loaded",
            ModuleState::Missing => "not among its files",
            ModuleState::Unknown => "unknown",
        };
        let texts: Vec<_> =
            self.modules.iter().map(|(name, state)| format!("{name} {}", word(*state))).collect();
        let kernel = &self.host.kernel;
        let text = format!("kernel {kernel}: {}", texts.join(", "));
        let seen = "/sys/module, modules.dep and modules.builtin in /lib/modules";
        let with = |state: ModuleState| {
            let these = self.modules.iter().filter(|(_, s)| *s == state);
            these.map(|(name, _)| *name).collect::<Vec<_>>()
        };
        let (missing, idle) = (with(ModuleState::Missing), with(ModuleState::Available));
        if !missing.is_empty() && self.examined.container.is_err() {
            return Finding::new("MODULES", Level::Fail, text, seen).fix(self.other_kernel());
        }
        if idle.is_empty() {
            return Finding::ok("MODULES", text, seen);
        }
        Finding::new("MODULES", Level::Warn, text, seen)
            .fix("load what is not loaded")
            .command(Some(format!("modprobe -a {}", idle.join(" "))))
    }

    fn other_kernel(&self) -> String {
        format!(
            "kernel {} was built without them, or the package that has its modules is not installed: \
             boot one with CONFIG_VFIO, CONFIG_VFIO_PCI and CONFIG_VFIO_IOMMU_SPAPR_TCE",
            self.host.kernel
        )
    }

    fn container(&self) -> Finding {
        let (code, seen) = ("CONTAINER", "/dev/vfio/vfio, GET_API_VERSION, CHECK_EXTENSION");
        let error = match &self.examined.container {
            Ok(()) => {
                return Finding::ok(code, "sPAPR TCE containers of the version are there", seen);
            }
            Err(e) => e,
        };
        let finding = Finding::refused(code, Level::Fail, error, seen);
        let missing =
            |&(name, s): &(&str, ModuleState)| name != "vfio_pci" && s == ModuleState::Missing;
        let of_modules = matches!(
            error,
            PreflightError::NoVfio { .. } | PreflightError::NoExtension { other: false, .. }
        );
        // No module can be loaded that is not there.
        if of_modules && self.modules.iter().any(missing) {
            return finding.fix(self.other_kernel()).command(None);
        }
        finding
    }

    fn group(&self, group: &GroupExamination, named: bool) -> Finding {
        let number = group.group;
        let seen =
            format!("/dev/vfio/{number}, /sys/kernel/iommu_groups/{number}, GROUP_GET_STATUS");
        match &group.usable {
            Ok(()) => {
                let devices: Vec<_> = group.devices.iter().map(ToString::to_string).collect();
                let text = format!("group {number} is usable: {}", devices.join(", "));
                Finding::ok("GROUP", text, &seen)
            }
            Err(e) => {
                let needed = named || self.examined.enough.is_err();
                let status = if needed { Level::Fail } else { Level::Warn };
                Finding::refused("GROUP", status, e, &seen)
            }
        }
    }

    fn groups(&self) -> Finding {
        let (code, seen) = ("GROUPS", "/dev/vfio, /sys/kernel/iommu_groups, /sys/bus/pci/devices");
        let usable = self.examined.groups.iter().filter(|g| g.usable.is_ok()).count();
        match &self.examined.enough {
            Ok(()) => Finding::ok(code, format!("{usable} usable, as many as are wanted"), seen),
            // Each has a finding of its own.
            Err(PreflightError::TooFew { asked, refused, .. }) if !refused.is_empty() => {
                let text = format!("{usable} usable, {asked} wanted");
                Finding::new(code, Level::Fail, text, seen)
                    .fix("make more of the groups above usable, or ask for fewer")
            }
            Err(e) => Finding::refused(code, Level::Fail, e, seen),
        }
    }

    fn memlock(&self) -> Finding {
        let seen = "RLIMIT_MEMLOCK, VmLck and CapEff of /proc/self/status";
        let need = self.plan.need_locked;
        if let Err(e) = &self.examined.memlock {
            return Finding::refused("MEMLOCK", Level::Fail, e, seen).fix(format!(
                "{}; for good: memlock in /etc/security/limits.conf, or LimitMEMLOCK= of the service",
                e.fix()
            ));
        }
        let limit = match self.examined.limit {
            None => "nothing limits it".to_owned(),
            Some(limit) => format!(
                "the limit is {}, {} is locked",
                format_size(limit),
                format_size(self.examined.locked)
            ),
        };
        let text = format!("{need} bytes ({}) are to be locked, {limit}", format_size(need));
        Finding::ok("MEMLOCK", text, seen)
    }

    fn huge_pages(&self) -> Finding {
        let code = "HUGE_PAGES";
        let page = format_arg(self.plan.geometry.page().bytes());
        let Some(huge) = HugePages::needed(self.plan, self.host) else {
            let text =
                format!("none needed: IOMMU pages of {page} are no larger than the kernel's own");
            return Finding::ok(code, text, "the kernel's page size");
        };
        let kib = huge.page_bytes >> 10;
        let pool = format!("/sys/kernel/mm/hugepages/hugepages-{kib}kB");
        let (Some(total), Some(free)) = (huge.total, huge.free) else {
            let sizes: Vec<_> =
                self.host.hugepages.iter().map(|pool| format_arg(pool.size)).collect();
            let sizes = if sizes.is_empty() { "none".to_owned() } else { sizes.join(", ") };
            let text =
                format!("IOMMU pages of {page} need such huge pages; the kernel has {sizes}");
            return Finding::new(code, Level::Fail, text, "/sys/kernel/mm/hugepages").fix(
                "ask for a page size that the kernel has; huge pages are 2M and 1G with a Radix MMU, 16M \
                 and 16G with a Hash MMU",
            );
        };
        let text = format!("{} of {page} needed, {free} of {total} free", huge.needed);
        if huge.fits {
            return Finding::ok(code, text, &pool);
        }
        let wanted = total + (huge.needed - free);
        Finding::new(code, Level::Fail, text, &pool)
            .fix(format!(
                "reserve {wanted}; if the memory is too fragmented for that, boot with hugepagesz={page} \
                 hugepages={wanted}"
            ))
            .command(Some(format!("echo {wanted} > {pool}/nr_hugepages")))
    }

    /// What makes times differ from run to run.
    fn noise(&self) -> Vec<Finding> {
        let mut all = Vec::new();
        let governor = self.host.governor.as_deref();
        if let Some(governor) = governor.filter(|governor| *governor != "performance") {
            let text = format!("the frequency governor is {governor}: times will vary");
            let file = "/sys/devices/system/cpu/cpu*/cpufreq/scaling_governor";
            all.push(
                Finding::new("GOVERNOR", Level::Warn, text, "cpufreq of CPU 0 in /sys")
                    .fix("have the clock stay as fast as it can")
                    .command(Some(format!("echo performance | tee {file}"))),
            );
        }
        let cpus = self.host.cpu.cpus.max(1);
        if let Some(load) = self.host.load1.filter(|load| *load > cpus as f64 / 2.0) {
            let text = format!("the load is {load} on {cpus} CPUs: times will hold others' work");
            all.push(
                Finding::new("LOAD", Level::Warn, text, "/proc/loadavg")
                    .fix("wait until the machine is idle"),
            );
        }
        all
    }
}
