// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `/dev`, `/proc` and `/sys` as far as they tell about groups and devices. All look-ups start at a
//! root, so that tests bring their own.

use std::fmt;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::addr::GroupId;
use crate::backend::linux::raw::Errno;

/// The file system below a root directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    root: PathBuf,
}

/// The machine's own.
impl Default for Tree {
    fn default() -> Self {
        Self::at("/")
    }
}

/// A device of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its name, for PCI the address, as in `0000:01:00.0`.
    pub name: String,
    /// The driver it is bound to.
    pub driver: Option<String>,
    /// True for a PCI bridge. It stays with its own driver or with none.
    pub bridge: bool,
    /// The NUMA node that it is at, if it is at one.
    pub node: Option<u32>,
    /// Bits of its DMA mask, as its last driver left it. The kernel begins with 32, and vfio-pci leaves it
    /// alone.
    pub dma_mask_bits: Option<u32>,
}

/// Where a module of the kernel is, as far as files tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModuleState {
    /// In the kernel, loaded or built in.
    Present,
    /// Among the kernel's files, not loaded.
    Available,
    /// Not among the kernel's files.
    Missing,
    /// The kernel's files cannot be read.
    Unknown,
}

impl DeviceInfo {
    /// True if this device must change its driver before user space can have the group.
    #[must_use]
    pub fn in_the_way(&self) -> bool {
        match self.driver.as_deref() {
            Some("pcieport" | "pci-stub") => false,
            Some(driver) => !driver.starts_with("vfio"),
            None => !self.bridge,
        }
    }
}

/// As in `0000:01:00.0 (driver nvme)`.
impl fmt::Display for DeviceInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.driver {
            Some(driver) => write!(f, "{} (driver {driver})", self.name),
            None => write!(f, "{} (no driver)", self.name),
        }
    }
}

/// A process that has a group open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its number.
    pub pid: u32,
    /// The name of its program.
    pub program: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.program, self.pid)
    }
}

impl Tree {
    /// Everything below `root`.
    #[must_use]
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where an absolute path is below the root.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The text of a file; `None` if it cannot be read.
    pub(super) fn read(&self, path: &str) -> Option<String> {
        let bytes = fs::read(self.path(path)).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Opens `/dev/vfio/<name>`; it is not inherited by other programs.
    pub(super) fn open_node(&self, name: &str) -> Result<OwnedFd, Errno> {
        let path = self.path("/dev/vfio").join(name);
        Ok(File::options().read(true).write(true).open(path)?.into())
    }

    /// The entries of a directory that are numbers, in order; none if it cannot be read.
    fn numbers(&self, directory: &str) -> Vec<u32> {
        let mut numbers: Vec<_> =
            names(&self.path(directory)).iter().filter_map(|name| name.parse().ok()).collect();
        numbers.sort_unstable();
        numbers
    }

    /// Where the module `name` is, with underscores as in `vfio_pci`.
    #[must_use]
    pub fn module(&self, name: &str) -> ModuleState {
        let release = self.read("/proc/sys/kernel/osrelease").unwrap_or_default();
        let lists = format!("/lib/modules/{}", release.trim());
        // As in `kernel/drivers/vfio/pci/vfio-pci.ko.xz: ...`.
        let named = |line: &str| {
            let path = line.split(':').next().unwrap_or_default();
            let file = path.rsplit('/').next().unwrap_or_default();
            file.split('.').next().unwrap_or_default().replace('-', "_") == name
        };
        let lists_it = |list: &str| {
            let text = self.read(&format!("{lists}/{list}"))?;
            Some(text.lines().any(named))
        };
        let there = self.path(&format!("/sys/module/{name}")).is_dir();
        if there || lists_it("modules.builtin") == Some(true) {
            return ModuleState::Present;
        }
        match lists_it("modules.dep") {
            Some(true) => ModuleState::Available,
            Some(false) => ModuleState::Missing,
            None => ModuleState::Unknown,
        }
    }

    /// The groups that the kernel has, in order.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupId> {
        self.numbers("/sys/kernel/iommu_groups").into_iter().map(GroupId).collect()
    }

    /// The groups that have a node of VFIO, in order.
    #[must_use]
    pub fn nodes(&self) -> Vec<GroupId> {
        self.numbers("/dev/vfio").into_iter().map(GroupId).collect()
    }

    /// The devices of a group, in order of their names.
    #[must_use]
    pub fn devices(&self, group: GroupId) -> Vec<DeviceInfo> {
        let directory = self.path(&format!("/sys/kernel/iommu_groups/{group}/devices"));
        names(&directory).into_iter().map(|name| device(&directory, name)).collect()
    }

    /// The NUMA node of a group's devices, if all that name one name the same.
    #[must_use]
    pub fn node(&self, group: GroupId) -> Option<u32> {
        let mut nodes: Vec<_> = self.devices(group).iter().filter_map(|d| d.node).collect();
        nodes.dedup();
        match nodes[..] {
            [node] => Some(node),
            _ => None,
        }
    }

    /// PCI devices that are in a group, with their group, in order of their names.
    pub(super) fn candidates(&self) -> Vec<(DeviceInfo, GroupId)> {
        let directory = self.path("/sys/bus/pci/devices");
        let in_group = |name: String| {
            let group = link(&directory.join(&name).join("iommu_group"))?.parse().ok()?;
            Some((device(&directory, name), GroupId(group)))
        };
        names(&directory).into_iter().filter_map(in_group).collect()
    }

    /// Processes that have the group's node open, as far as this one may see.
    pub(super) fn holders(&self, group: GroupId) -> Vec<Holder> {
        let node = PathBuf::from(format!("/dev/vfio/{group}"));
        let holds = |pid: &u32| {
            let files = fs::read_dir(self.path(&format!("/proc/{pid}/fd")));
            let mut files = files.into_iter().flatten().flatten();
            files.any(|file| fs::read_link(file.path()).is_ok_and(|to| to == node))
        };
        let holder = |pid: u32| {
            let program = self.read(&format!("/proc/{pid}/comm"));
            let program = program.map_or_else(|| "unknown".to_owned(), |p| p.trim().to_owned());
            Holder { pid, program }
        };
        self.numbers("/proc").into_iter().filter(holds).map(holder).collect()
    }
}

/// The names in a directory, in order; none if it cannot be read.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.filter_map(|e| e.file_name().into_string().ok()).collect();
    names.sort_unstable();
    names
}

/// The last part of what a link points to.
fn link(path: &Path) -> Option<String> {
    fs::read_link(path).ok()?.file_name()?.to_str().map(str::to_owned)
}

fn device(directory: &Path, name: String) -> DeviceInfo {
    let directory = directory.join(&name);
    let text = |file: &str| fs::read_to_string(directory.join(file)).unwrap_or_default();
    DeviceInfo {
        driver: link(&directory.join("driver")),
        bridge: text("class").starts_with("0x0604"),
        // -1 is a device that is at none.
        node: text("numa_node").trim().parse().ok(),
        dma_mask_bits: text("dma_mask_bits").trim().parse().ok(),
        name,
    }
}

/// A root in the directory for temporary files, which goes away with it.
#[cfg(all(test, not(miri)))] // files
pub(super) mod testing {
    use std::ops::Deref;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::sync::{AtomicU32, Ordering};

    #[derive(Debug)]
    pub(in super::super) struct Fake(Tree);

    impl Fake {
        pub(in super::super) fn new() -> Self {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let n = COUNT.fetch_add(1, Ordering::Relaxed);
            let root = std::env::temp_dir().join(format!("tce-vfio-{}-{n}", std::process::id()));
            fs::create_dir(&root).unwrap();
            Self(Tree::at(root))
        }

        fn place(&self, path: &str) -> PathBuf {
            let path = self.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            path
        }

        pub(in super::super) fn file(&self, path: &str, text: &str) {
            fs::write(self.place(path), text).unwrap();
        }

        pub(in super::super) fn link(&self, path: &str, to: &str) {
            symlink(to, self.place(path)).unwrap();
        }

        /// A PCI device, its group and, if it has one, its driver.
        pub(in super::super) fn device(&self, group: u32, name: &str, driver: Option<&str>) {
            let device = format!("sys/devices/pci0000:00/{name}");
            self.link(&format!("{device}/iommu_group"), &format!("../iommu_groups/{group}"));
            self.file(&format!("{device}/class"), "0x010802\n");
            if let Some(driver) = driver {
                self.link(&format!("{device}/driver"), &format!("../../bus/pci/drivers/{driver}"));
            }
            let to = format!("../../../devices/pci0000:00/{name}");
            self.link(&format!("sys/bus/pci/devices/{name}"), &to);
            let entry = format!("sys/kernel/iommu_groups/{group}/devices/{name}");
            self.link(&entry, &format!("../../../../devices/pci0000:00/{name}"));
        }
    }

    impl Deref for Fake {
        type Target = Tree;

        fn deref(&self) -> &Tree {
            &self.0
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.root);
        }
    }
}

#[cfg(all(test, not(miri)))] // files
mod tests {
    use super::testing::Fake;
    use super::*;

    #[test]
    fn groups_and_their_devices() {
        let fake = Fake::new();
        fake.device(10, "0000:01:00.1", Some("nvme"));
        fake.device(10, "0000:01:00.0", None);
        fake.device(9, "0001:00:00.0", Some("vfio-pci"));
        for node in ["vfio", "10", "9", "noiommu-0", "devices/vfio0"] {
            fake.file(&format!("dev/vfio/{node}"), "");
        }
        assert_eq!(fake.groups(), [GroupId(9), GroupId(10)]);
        assert_eq!(fake.nodes(), [GroupId(9), GroupId(10)]);
        let named: Vec<_> = fake.devices(GroupId(10)).iter().map(|d| d.to_string()).collect();
        assert_eq!(named, ["0000:01:00.0 (no driver)", "0000:01:00.1 (driver nvme)"]);
        assert_eq!(fake.devices(GroupId(11)), []);
        let groups: Vec<_> = fake.candidates().into_iter().map(|(_, g)| g.0).collect();
        assert_eq!(groups, [10, 10, 9]);
    }

    #[test]
    fn the_node_of_a_group() {
        let fake = Fake::new();
        let at = |name: &str, text: &str| {
            fake.file(&format!("sys/devices/pci0000:00/{name}/numa_node"), text);
        };
        fake.device(1, "0000:01:00.0", None);
        assert_eq!(fake.node(GroupId(1)), None, "nothing says it");
        at("0000:01:00.0", "8\n");
        fake.device(1, "0000:01:00.1", None);
        at("0000:01:00.1", "8\n");
        fake.device(1, "0000:01:00.2", None);
        at("0000:01:00.2", "-1\n");
        assert_eq!(fake.node(GroupId(1)), Some(8));
        at("0000:01:00.2", "0\n");
        assert_eq!(fake.node(GroupId(1)), None, "at two");
        fake.device(2, "0000:02:00.0", None);
        at("0000:02:00.0", "-1\n");
        assert_eq!((fake.node(GroupId(2)), fake.node(GroupId(3))), (None, None));
    }

    #[test]
    fn modules_are_found_in_the_kernel_or_among_its_files() {
        let fake = Fake::new();
        assert_eq!(fake.module("vfio"), ModuleState::Unknown);
        fake.file("proc/sys/kernel/osrelease", "6.12.1\n");
        let lists = "lib/modules/6.12.1";
        fake.file(
            &format!("{lists}/modules.dep"),
            "kernel/drivers/vfio/pci/vfio-pci.ko.xz: kernel/drivers/vfio/vfio_iommu_spapr_tce.ko\n\
             kernel/drivers/vfio/vfio.ko:\n",
        );
        assert_eq!(fake.module("vfio_pci"), ModuleState::Available);
        assert_eq!(
            fake.module("vfio_iommu_spapr_tce"),
            ModuleState::Missing,
            "named as a need only"
        );
        fake.file(&format!("{lists}/modules.builtin"), "kernel/drivers/vfio/vfio.ko\n");
        assert_eq!(fake.module("vfio"), ModuleState::Present);
        fake.file("sys/module/vfio_pci/refcnt", "0\n");
        assert_eq!(fake.module("vfio_pci"), ModuleState::Present);
    }

    #[test]
    fn the_mask_of_a_device() {
        let fake = Fake::new();
        fake.device(1, "0000:01:00.0", None);
        assert_eq!(fake.devices(GroupId(1))[0].dma_mask_bits, None);
        fake.file("sys/devices/pci0000:00/0000:01:00.0/dma_mask_bits", "64\n");
        assert_eq!(fake.devices(GroupId(1))[0].dma_mask_bits, Some(64));
    }

    #[test]
    fn bridges_and_ports_are_not_in_the_way() {
        let device = |driver: Option<&str>, bridge| {
            let (name, driver) = ("0000:00:00.0".to_owned(), driver.map(str::to_owned));
            let (node, dma_mask_bits) = (None, None);
            DeviceInfo { name, driver, bridge, node, dma_mask_bits }.in_the_way()
        };
        assert!(device(None, false) && device(Some("nvme"), false));
        assert!(!device(None, true) && !device(Some("pcieport"), true));
        assert!(!device(Some("vfio-pci"), false) && !device(Some("vfio-pci-nvgrace"), false));
        let fake = Fake::new();
        fake.device(1, "0000:00:00.0", None);
        fake.file("sys/devices/pci0000:00/0000:00:00.0/class", "0x060400\n");
        assert!(fake.devices(GroupId(1))[0].bridge);
    }

    #[test]
    fn holders_are_found_by_their_open_files() {
        let fake = Fake::new();
        fake.link("proc/41/fd/0", "/dev/null");
        fake.link("proc/42/fd/7", "/dev/vfio/3");
        fake.file("proc/42/comm", "qemu-system-ppc\n");
        fake.link("proc/43/fd/7", "/dev/vfio/33");
        fake.link("proc/self/fd/7", "/dev/vfio/3");
        let holder = Holder { pid: 42, program: "qemu-system-ppc".to_owned() };
        assert_eq!(fake.holders(GroupId(3)), [holder]);
        assert_eq!(fake.holders(GroupId(4)), []);
    }
}
