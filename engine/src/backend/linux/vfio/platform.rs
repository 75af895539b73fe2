// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What machine this is, so that results can be labelled.

use std::fmt;

use super::tree::Tree;

/// A machine as its kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// `machine` or `model` of `/proc/cpuinfo`, else the model of the device tree, else empty.
    pub machine: String,
    /// `cpu` of `/proc/cpuinfo` (`model name` on x86), else empty.
    pub cpu: String,
    /// What the device tree says the machine is compatible with; empty if there is no device tree.
    pub compatible: Vec<String>,
    /// Whether QEMU plays the machine; `None` if nothing here tells. A guest under KVM counts as
    /// played by QEMU although its CPU is real.
    pub emulated: Option<bool>,
}

/// The machine this process runs on.
#[must_use]
pub fn platform() -> Platform {
    Platform::of(&Tree::default())
}

impl Platform {
    /// The machine that `tree` is a part of.
    #[must_use]
    pub fn of(tree: &Tree) -> Self {
        let cpuinfo = tree.read("/proc/cpuinfo").unwrap_or_default();
        let line = |names: &[&str]| {
            let field = |line: &str| {
                let (name, value) = line.split_once(':')?;
                names.contains(&name.trim()).then(|| value.trim().to_owned())
            };
            cpuinfo.lines().find_map(field)
        };
        let strings = |path| -> Vec<String> {
            let text = tree.read(path).unwrap_or_default();
            text.split('\0').filter(|s| !s.is_empty()).map(str::to_owned).collect()
        };
        let compatible = strings("/proc/device-tree/compatible");
        let model = strings("/proc/device-tree/model").into_iter().next();
        let machine = line(&["machine"]).or(model).or_else(|| line(&["model"]));
        let machine = machine.unwrap_or_default();
        let qemu = |s: &str| s.to_lowercase().contains("qemu");
        let emulated = if qemu(&machine) || compatible.iter().any(|s| qemu(s)) {
            Some(true)
        } else {
            // Firmware of IBM's and of OpenPOWER's machines; others may be anything.
            compatible.iter().any(|s| s == "ibm,powernv").then_some(false)
        };
        Self {
            machine,
            cpu: line(&["cpu", "model name"]).unwrap_or_default(),
            compatible,
            emulated,
        }
    }
}

/// In words for a label, as in `PowerNV 8335-GTG (POWER9), not emulated`.
impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or = |text: &str, other: &'static str| {
            if text.is_empty() { other.to_owned() } else { text.to_owned() }
        };
        let arch = std::env::consts::ARCH;
        let emulated = match self.emulated {
            Some(true) => "emulated by QEMU",
            Some(false) => "not emulated",
            None => "not known whether emulated",
        };
        write!(f, "{} ({}), {emulated}", or(&self.machine, arch), or(&self.cpu, "unknown CPU"))
    }
}

#[cfg(all(test, not(miri)))] // files
mod tests {
    use super::super::tree::testing::Fake;
    use super::*;

    fn of(cpuinfo: &str, compatible: Option<&str>) -> Platform {
        let fake = Fake::new();
        fake.file("proc/cpuinfo", cpuinfo);
        if let Some(compatible) = compatible {
            fake.file("proc/device-tree/compatible", compatible);
        }
        Platform::of(&fake)
    }

    #[test]
    fn qemu_is_told_from_hardware() {
        let cpuinfo = "processor\t: 0\ncpu\t\t: POWER8E (raw), altivec supported\n\n\
            timebase\t: 512000000\nplatform\t: PowerNV\nmodel\t\t: IBM PowerNV (emulated by qemu)\n\
            machine\t\t: PowerNV IBM PowerNV (emulated by qemu)\n";
        let emulated = of(cpuinfo, Some("qemu,powernv8\0qemu,powernv\0ibm,powernv\0"));
        assert_eq!(emulated.emulated, Some(true));
        assert_eq!(emulated.compatible.len(), 3);
        assert_eq!(
            emulated.to_string(),
            "PowerNV IBM PowerNV (emulated by qemu) (POWER8E (raw), altivec supported), emulated \
             by QEMU"
        );
        // The device tree alone tells as well.
        assert_eq!(of("", Some("qemu,powernv8\0ibm,powernv\0")).emulated, Some(true));

        let cpuinfo = "cpu\t\t: POWER9, altivec supported\nmachine\t\t: PowerNV 8335-GTG\n";
        let hardware = of(cpuinfo, Some("ibm,witherspoon\0ibm,powernv\0"));
        assert_eq!(hardware.emulated, Some(false));
        assert_eq!(hardware.machine, "PowerNV 8335-GTG");
    }

    #[test]
    fn a_machine_that_says_nothing_is_unknown() {
        let other = of("model\t\t: 85\nmodel name\t: Some CPU\n", None);
        assert_eq!((other.emulated, other.cpu.as_str()), (None, "Some CPU"));
        let nothing = Platform::of(&Fake::new());
        assert_eq!((nothing.emulated, nothing.machine.as_str()), (None, ""));
        assert!(nothing.to_string().ends_with("(unknown CPU), not known whether emulated"));
    }
}
