// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Every message, over trees made for it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::super::tree::testing::Fake;
use super::*;
use crate::backend::linux::raw::Raw;

/// A POWER kernel with the answers that a test gives it.
struct FakeKernel {
    arch: &'static str,
    version: Raw,
    offers: Result<Vec<u32>, Errno>,
    memlock: Option<u64>,
    /// What opening a node returns instead.
    errors: BTreeMap<&'static str, Errno>,
    /// Status flags where they are not VIABLE.
    status: BTreeMap<&'static str, Result<u32, Errno>>,
    /// Every open so far; numbers are used again.
    opened: RefCell<Vec<(i32, String)>>,
}

impl Default for FakeKernel {
    fn default() -> Self {
        Self {
            arch: "powerpc64",
            version: Ok(0),
            offers: Ok(vec![kind::SPAPR_TCE, kind::EEH, kind::SPAPR_TCE_V2]),
            memlock: Some(8 << 20),
            errors: BTreeMap::new(),
            status: BTreeMap::new(),
            opened: RefCell::default(),
        }
    }
}

impl Kernel for FakeKernel {
    fn page_size(&self) -> PageShift {
        PageShift::K64
    }

    fn memlock(&self) -> Option<u64> {
        self.memlock
    }

    fn arch(&self) -> &str {
        self.arch
    }

    fn open_node(&self, tree: &Tree, name: &str) -> Result<OwnedFd, Errno> {
        if let Some(errno) = self.errors.get(name) {
            return Err(*errno);
        }
        let fd = tree.open_node(name)?;
        self.opened.borrow_mut().push((fd.as_raw_fd(), name.to_owned()));
        Ok(fd)
    }

    fn api_version(&self, _: BorrowedFd<'_>) -> Raw {
        self.version
    }

    fn check_extension(&self, _: BorrowedFd<'_>, extension: u32) -> Raw {
        self.offers.as_ref().map(|o| o.contains(&extension).into()).map_err(|e| *e)
    }

    fn group_status(&self, group: BorrowedFd<'_>) -> Result<u32, Errno> {
        let opened = self.opened.borrow();
        let (_, name) = opened.iter().rfind(|(fd, _)| *fd == group.as_raw_fd()).unwrap();
        self.status.get(name.as_str()).copied().unwrap_or(Ok(GroupStatus::VIABLE))
    }
}

/// Groups 2, 3 and 10 are with VFIO; 4 is with the host.
fn machine() -> Fake {
    let fake = Fake::new();
    fake.device(2, "0000:02:00.0", Some("vfio-pci"));
    fake.device(3, "0000:03:00.0", Some("vfio-pci"));
    fake.device(3, "0000:03:00.1", Some("nvme"));
    fake.device(4, "0000:04:00.0", Some("tg3"));
    fake.device(4, "0000:04:00.1", None);
    fake.device(10, "0001:00:00.0", Some("vfio-pci"));
    for node in ["vfio", "2", "3", "10"] {
        fake.file(&format!("dev/vfio/{node}"), "");
    }
    fake.file(
        "proc/self/status",
        "Uid:\t0\t1000\t0\t0\nVmLck:\t  1024 kB\nCapEff:\t0000000000000000\n",
    );
    fake
}

fn run(
    tree: &Tree,
    kernel: &FakeKernel,
    wanted: Option<&[u32]>,
    count: usize,
) -> Result<Preflight, PreflightError> {
    let wanted: Option<Vec<_>> = wanted.map(|w| w.iter().copied().map(GroupId).collect());
    Check { tree, kernel }.all(wanted.as_deref(), count, 0, false)
}

/// The message for these groups, or for any `count`.
fn says(tree: &Tree, kernel: &FakeKernel, wanted: Option<&[u32]>, count: usize) -> String {
    let message = run(tree, kernel, wanted, count).unwrap_err().to_string();
    assert!(!message.contains('\n') && message.matches("; fix: ").count() == 1, "{message}");
    message
}

#[test]
fn the_first_viable_groups_are_chosen() {
    let kernel =
        FakeKernel { status: [("3", Ok(0))].into(), memlock: None, ..FakeKernel::default() };
    let fake = machine();
    let found = run(&fake, &kernel, None, 2).unwrap();
    assert_eq!(found.groups, [GroupId(2), GroupId(10)]);
    assert_eq!(found.devices[&GroupId(10)][0].to_string(), "0001:00:00.0 (driver vfio-pci)");
    assert_eq!((found.host_page, found.memlock), (PageShift::K64, None));
    assert_eq!(found.locked, 1 << 20);
    // Just as many as needed are opened.
    kernel.opened.borrow_mut().clear();
    assert_eq!(run(&fake, &kernel, None, 1).unwrap().groups, [GroupId(2)]);
    let opened: Vec<_> = kernel.opened.borrow().iter().map(|(_, name)| name.clone()).collect();
    assert_eq!(opened, ["vfio", "2"]);
    assert_eq!(run(&fake, &kernel, None, 0).unwrap().groups, []);
    // The order of the caller is kept.
    let found = run(&fake, &kernel, Some(&[10, 2, 10]), 2).unwrap();
    assert_eq!(found.groups, [GroupId(10), GroupId(2)]);
}

#[test]
fn another_architecture() {
    let kernel = FakeKernel { arch: "x86_64", ..FakeKernel::default() };
    assert_eq!(
        says(&Fake::new(), &kernel, None, 1),
        "this machine is x86_64; sPAPR TCE containers exist on POWER only; fix: use a mock back \
         end, or run on a POWER machine"
    );
}

#[test]
fn no_vfio() {
    let said = says(&Fake::new(), &FakeKernel::default(), None, 1);
    assert!(said.starts_with("/dev/vfio/vfio cannot be opened, ENOENT (No such file"), "{said}");
    assert!(said.contains("modprobe -a vfio vfio-pci vfio_iommu_spapr_tce"), "{said}");
    let without_module =
        FakeKernel { errors: [("vfio", Errno::ENODEV)].into(), ..FakeKernel::default() };
    let said = says(&machine(), &without_module, None, 1);
    assert!(said.contains("ENODEV") && said.contains("modprobe"), "{said}");
    let odd = FakeKernel { errors: [("vfio", Errno::EIO)].into(), ..FakeKernel::default() };
    let said = says(&machine(), &odd, None, 1);
    assert!(said.starts_with("/dev/vfio/vfio cannot be opened, EIO"), "{said}");
}

#[test]
fn permission_denied() {
    use std::os::unix::fs::PermissionsExt;
    let fake = machine();
    let node = fake.path("/dev/vfio/3");
    std::fs::set_permissions(&node, PermissionsExt::from_mode(0o600)).unwrap();
    let meta = node.metadata().unwrap();
    let kernel = FakeKernel { errors: [("3", Errno::EACCES)].into(), ..FakeKernel::default() };
    assert_eq!(
        says(&fake, &kernel, Some(&[3]), 1),
        format!(
            "/dev/vfio/3 of user {} and group {} with mode 0600 is denied to user 1000, EACCES \
             (Permission denied); fix: as root, chown 1000 /dev/vfio/3; or run as root",
            meta.st_uid(),
            meta.st_gid()
        )
    );
    let kernel = FakeKernel { errors: [("vfio", Errno::EPERM)].into(), ..FakeKernel::default() };
    let said = says(&fake, &kernel, None, 1);
    assert!(
        said.ends_with("such as a container's: let it have the device /dev/vfio/vfio"),
        "{said}"
    );
}

#[test]
fn no_extension() {
    let kernel = FakeKernel { offers: Ok(vec![kind::SPAPR_TCE]), ..FakeKernel::default() };
    assert_eq!(
        says(&machine(), &kernel, None, 1),
        "the kernel's VFIO does not offer sPAPR TCE version 2; it offers version 1; fix: use \
         version 1"
    );
    let kernel = FakeKernel { offers: Ok(vec![1]), ..FakeKernel::default() };
    let said = says(&machine(), &kernel, None, 1);
    assert!(said.contains("version 2 nor any other; fix: modprobe vfio_iommu_spapr_tce"), "{said}");
    let kernel = FakeKernel { offers: Ok(vec![kind::SPAPR_TCE_V2]), ..FakeKernel::default() };
    let refused = Check { tree: &machine(), kernel: &kernel }.all(None, 1, 0, true).unwrap_err();
    assert!(refused.to_string().ends_with("it offers version 2; fix: use version 2"));
}

#[test]
fn a_node_that_is_something_else() {
    let kernel = FakeKernel { version: Err(Errno::ENOTTY), ..FakeKernel::default() };
    let said = says(&machine(), &kernel, None, 1);
    assert!(said.starts_with("/dev/vfio/vfio does not answer as a node of VFIO, ENOTTY"), "{said}");
    let kernel = FakeKernel { version: Ok(1), ..FakeKernel::default() };
    assert!(says(&machine(), &kernel, None, 1).contains("interface version 1; known is 0"));
    let status = [("2", Err(Errno::ENOTTY))].into();
    let said = says(&machine(), &FakeKernel { status, ..FakeKernel::default() }, Some(&[2]), 1);
    assert!(said.starts_with("/dev/vfio/2 does not answer"), "{said}");
}

#[test]
fn version_1_takes_one_group() {
    let fake = machine();
    let kernel = FakeKernel::default();
    let check = Check { tree: &fake, kernel: &kernel };
    assert_eq!(check.all(None, 2, 0, true), Err(PreflightError::OneGroup { asked: 2 }));
    assert_eq!(check.all(None, 1, 0, true).unwrap().groups, [GroupId(2)]);
}

#[test]
fn no_groups_at_all() {
    let fake = Fake::new();
    fake.file("dev/vfio/vfio", "");
    let said = says(&fake, &FakeKernel::default(), None, 1);
    assert!(said.starts_with("the kernel has no IOMMU groups"), "{said}");
}

#[test]
fn no_group_with_vfio() {
    let fake = Fake::new();
    fake.file("dev/vfio/vfio", "");
    fake.device(4, "0000:04:00.0", Some("tg3"));
    fake.device(5, "0000:05:00.0", None);
    let said = says(&fake, &FakeKernel::default(), None, 1);
    assert!(
        said.contains(
            "candidates: 0000:04:00.0 (driver tg3) in group 4, 0000:05:00.0 (no driver) in group 5;"
        ),
        "{said}"
    );
    assert!(
        said.ends_with(
            "for each of its devices, ADDR: echo vfio-pci > \
             /sys/bus/pci/devices/ADDR/driver_override; echo ADDR > \
             /sys/bus/pci/devices/ADDR/driver/unbind; echo ADDR > /sys/bus/pci/drivers_probe"
        ),
        "{said}"
    );
    for n in 0..20 {
        fake.device(100 + n, &format!("0002:{n:02x}:00.0"), None);
    }
    assert!(says(&fake, &FakeKernel::default(), None, 1).contains(" and 10 more;"));
}

#[test]
fn a_group_that_does_not_exist() {
    assert_eq!(
        says(&machine(), &FakeKernel::default(), Some(&[2, 7]), 2),
        "there is no IOMMU group 7; there are: 2, 3, 4, 10; fix: ask for a group that exists"
    );
}

#[test]
fn a_group_that_is_with_the_host() {
    assert_eq!(
        says(&machine(), &FakeKernel::default(), Some(&[4]), 1),
        "group 4 has no /dev/vfio/4; its devices: 0000:04:00.0 (driver tg3), 0000:04:00.1 (no \
         driver); fix: if the host can do without these devices, as root: echo vfio-pci > \
         /sys/bus/pci/devices/0000:04:00.0/driver_override; echo 0000:04:00.0 > \
         /sys/bus/pci/devices/0000:04:00.0/driver/unbind; echo 0000:04:00.0 > \
         /sys/bus/pci/drivers_probe; echo vfio-pci > \
         /sys/bus/pci/devices/0000:04:00.1/driver_override; echo 0000:04:00.1 > \
         /sys/bus/pci/drivers_probe"
    );
    let fake = machine();
    std::fs::remove_file(fake.path("/dev/vfio/2")).unwrap();
    let said = says(&fake, &FakeKernel::default(), Some(&[2]), 1);
    assert!(said.ends_with("so in a container, let it have /dev/vfio/2"), "{said}");
}

#[test]
fn a_group_that_somebody_holds() {
    let fake = machine();
    let kernel = FakeKernel { errors: [("2", Errno::EBUSY)].into(), ..FakeKernel::default() };
    assert_eq!(
        says(&fake, &kernel, Some(&[2]), 1),
        "group 2 is held by a process that cannot be seen from here; fix: run as root to see who, \
         and end it; or ask for other groups"
    );
    fake.link("proc/42/fd/7", "/dev/vfio/2");
    fake.file("proc/42/comm", "qemu\n");
    assert_eq!(
        says(&fake, &kernel, Some(&[2]), 1),
        "group 2 is held by qemu (pid 42); fix: end that process, or ask for other groups"
    );
}

#[test]
fn a_group_that_is_not_viable() {
    let kernel = FakeKernel { status: [("3", Ok(0))].into(), ..FakeKernel::default() };
    let said = says(&machine(), &kernel, Some(&[3]), 1);
    assert!(
        said.starts_with(
            "group 3 is not viable; devices not bound to vfio-pci: 0000:03:00.1 (driver nvme); \
             fix: if the host can do without these devices, as root: echo vfio-pci > \
             /sys/bus/pci/devices/0000:03:00.1/driver_override; echo 0000:03:00.1 > "
        ),
        "{said}"
    );
    assert!(!said.contains("03:00.0"), "{said}");
}

#[test]
fn fewer_groups_than_asked() {
    let kernel = FakeKernel {
        status: [("3", Ok(0))].into(),
        errors: [("10", Errno::EBUSY)].into(),
        ..FakeKernel::default()
    };
    let said = says(&machine(), &kernel, None, 3);
    assert!(
        said.starts_with(
            "3 groups asked for; usable: 2; group 3 is not viable; devices not bound to vfio-pci: \
             0000:03:00.1 (driver nvme); group 10 is held by a process that cannot be seen from \
             here; fix: ask for at most 1, or make more usable: if the host can"
        ),
        "{said}"
    );
    let said = says(&machine(), &FakeKernel::default(), None, 4);
    assert!(said.contains("usable: 2, 3, 10; fix: ask for at most 3, or make more"), "{said}");
    let said = says(&machine(), &FakeKernel::default(), Some(&[2]), 2);
    assert!(said.starts_with("2 groups asked for; usable: 2; fix: "), "{said}");
}

#[test]
fn too_little_may_be_locked() {
    let fake = machine();
    let kernel = FakeKernel::default();
    let check = Check { tree: &fake, kernel: &kernel };
    assert_eq!(
        check.all(None, 1, (7 << 20) + 1, false).unwrap_err().to_string(),
        "7340033 bytes (7169 KiB) have to be locked and 1048576 are (VmLck); the limit \
         (RLIMIT_MEMLOCK) is 8388608 bytes (8192 KiB); fix: ulimit -l 8193 as root before the \
         start, or run with CAP_IPC_LOCK"
    );
    assert_eq!(check.all(None, 1, 7 << 20, false).unwrap().memlock, Some(8 << 20));
    assert!(check.all(None, 1, u64::MAX, false).is_err());
    fake.file("proc/self/status", "CapEff:\t0000000000004000\n");
    assert_eq!(check.all(None, 1, u64::MAX, false).unwrap().memlock, None);
    // In a user namespace the capability lifts no limit.
    fake.file("proc/self/uid_map", "0 1000 1\n");
    assert!(check.all(None, 1, u64::MAX, false).is_err());
}

fn examined(tree: &Tree, kernel: &FakeKernel, wanted: Option<&[u32]>, count: usize) -> Examination {
    let wanted: Option<Vec<_>> = wanted.map(|w| w.iter().copied().map(GroupId).collect());
    Check { tree, kernel }.everything(wanted.as_deref(), count, 0, false)
}

#[test]
fn an_examination_goes_on_to_the_end() {
    let kernel = FakeKernel {
        offers: Ok(vec![1]),
        status: [("3", Ok(0))].into(),
        errors: [("10", Errno::EBUSY)].into(),
        memlock: Some(0),
        ..FakeKernel::default()
    };
    let found = examined(&machine(), &kernel, None, 2);
    assert_eq!(found.container, Err(PreflightError::NoExtension { v1: false, other: false }));
    let usable: Vec<_> = found.groups.iter().map(|g| (g.group.0, g.usable.is_ok())).collect();
    assert_eq!(usable, [(2, true), (3, false), (10, false)]);
    assert!(matches!(found.enough, Err(PreflightError::TooFew { asked: 2, .. })));
    let memlock = PreflightError::Memlock { need: 0, locked: 1 << 20, limit: 0 };
    assert_eq!((found.memlock, found.locked), (Err(memlock), 1 << 20));
    // Its first bad news is what a preflight says.
    let first = run(&machine(), &kernel, None, 2).unwrap_err();
    assert_eq!(found.container, Err(first));
}

#[test]
fn an_examination_of_a_good_machine_finds_nothing() {
    for (wanted, count) in [(None, 3), (Some(&[10, 2, 10][..]), 2)] {
        let found = examined(&machine(), &FakeKernel::default(), wanted, count);
        assert_eq!((found.container, found.enough, found.memlock), (Ok(()), Ok(()), Ok(())));
        assert!(found.groups.iter().all(|g| g.usable.is_ok()), "{:?}", found.groups);
        assert_eq!(found.groups.len(), if wanted.is_some() { 2 } else { 3 });
    }
    let bare = Fake::new();
    bare.file("dev/vfio/vfio", "");
    let found = examined(&bare, &FakeKernel::default(), None, 1);
    assert_eq!(found.enough, Err(PreflightError::NoIommuGroups));
    let x86 = FakeKernel { arch: "x86_64", ..FakeKernel::default() };
    let found = examined(&machine(), &x86, None, 1);
    assert_eq!((found.groups.len(), found.enough), (0, found.container));
}

#[test]
fn a_group_that_is_in_a_container_is_busy() {
    let both = GroupStatus::VIABLE | GroupStatus::CONTAINER_SET;
    let kernel = FakeKernel { status: [("2", Ok(both))].into(), ..FakeKernel::default() };
    let refused = run(&machine(), &kernel, Some(&[2]), 1).unwrap_err();
    assert_eq!(refused, PreflightError::Busy { group: GroupId(2), holders: Vec::new() });
    assert_eq!(refused.command(), None, "nobody is known to hold it");
}

/// The command of what is wrong with these groups.
fn command(tree: &Tree, kernel: &FakeKernel, wanted: Option<&[u32]>) -> Option<String> {
    run(tree, kernel, wanted, 1).unwrap_err().command()
}

#[test]
fn one_command_puts_it_right() {
    let kernel = FakeKernel::default();
    let load = "modprobe -a vfio vfio-pci vfio_iommu_spapr_tce";
    assert_eq!(command(&Fake::new(), &kernel, None).as_deref(), Some(load));
    let old = FakeKernel { offers: Ok(vec![]), ..FakeKernel::default() };
    let tce = "modprobe vfio_iommu_spapr_tce";
    assert_eq!(command(&machine(), &old, None).as_deref(), Some(tce));
    let denied = FakeKernel { errors: [("2", Errno::EACCES)].into(), ..FakeKernel::default() };
    let chown = "chown 1000 /dev/vfio/2";
    assert_eq!(command(&machine(), &denied, Some(&[2])).as_deref(), Some(chown));
    let policy = FakeKernel { errors: [("2", Errno::EPERM)].into(), ..FakeKernel::default() };
    assert_eq!(command(&machine(), &policy, Some(&[2])), None);
    let fake = machine();
    fake.link("proc/42/fd/7", "/dev/vfio/2");
    let held = FakeKernel { errors: [("2", Errno::EBUSY)].into(), ..FakeKernel::default() };
    assert_eq!(command(&fake, &held, Some(&[2])).as_deref(), Some("kill 42"));
    assert_eq!(command(&fake, &FakeKernel { arch: "x86_64", ..kernel }, None), None);
    let check = Check { tree: &fake, kernel: &FakeKernel::default() };
    let limit = check.all(None, 1, (7 << 20) + 1, false).unwrap_err().command();
    assert_eq!(limit.as_deref(), Some("prlimit --pid $$ --memlock=8454144:8454144"));
}

/// What the command writes, and where.
fn carried_out(fake: &Fake, command: &str) -> Vec<(String, String)> {
    let root = fake.path("/");
    let here = command.replace("/sys/", &format!("{}/sys/", root.display()));
    let status = std::process::Command::new("sh").args(["-ec", &here]).status().unwrap();
    assert!(status.success(), "{here}");
    let files = ["0000:03:00.1/driver_override", "0000:03:00.1/driver/unbind"];
    let read = |file: &str| fake.read(&format!("/sys/bus/pci/devices/{file}"));
    files.iter().filter_map(|f| Some(((*f).to_owned(), read(f)?))).collect()
}

#[test]
fn the_sibling_of_a_group_is_bound_by_its_command() {
    let fake = machine();
    fake.file("sys/bus/pci/drivers/nvme/unbind", "");
    fake.file("sys/devices/bus/pci/drivers/nvme/unbind", "");
    fake.file("sys/bus/pci/drivers_probe", "");
    let kernel = FakeKernel { status: [("3", Ok(0))].into(), ..FakeKernel::default() };
    let command = command(&fake, &kernel, Some(&[3])).unwrap();
    let (name, newline) = ("0000:03:00.1", "\n");
    assert_eq!(
        carried_out(&fake, &command),
        [
            (format!("{name}/driver_override"), format!("vfio-pci{newline}")),
            (format!("{name}/driver/unbind"), format!("{name}{newline}")),
        ]
    );
    assert_eq!(fake.read("/sys/bus/pci/drivers_probe").as_deref(), Some("0000:03:00.1\n"));
}

#[test]
fn only_devices_that_nobody_drives_are_offered_by_name() {
    let fake = Fake::new();
    fake.file("dev/vfio/vfio", "");
    fake.device(4, "0000:04:00.0", Some("tg3"));
    fake.device(4, "0000:04:00.1", None);
    assert_eq!(command(&fake, &FakeKernel::default(), None), None);
    fake.device(5, "0000:05:00.0", None);
    let bind = command(&fake, &FakeKernel::default(), None).unwrap();
    assert!(bind.contains("0000:05:00.0") && !bind.contains("04:00"), "{bind}");
}

/// What the machine that runs the tests says depends on the machine; it must say something.
#[test]
fn on_this_machine() {
    match preflight(None, 1, 0, false) {
        Ok(found) => assert_eq!(found.groups.len(), 1),
        Err(e) => assert!(e.to_string().contains("; fix: "), "{e}"),
    }
}
