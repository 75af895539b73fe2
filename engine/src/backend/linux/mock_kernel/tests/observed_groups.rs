// SPDX-License-Identifier: Apache-2.0 OR MIT
//! More observed lines: containers and groups, v1, and a group that leaves.

use super::replay::Recorder;
use super::*;
use crate::backend::linux::uapi::Request;

#[test]
fn containers_and_groups() {
    let kernel = MockKernel::new(6);
    let mut t = Recorder::new("info", &kernel);
    let ct = t.process.open_container().unwrap();
    let c = &ct;
    let g = GroupId(0);
    t.k("api_version", c.fault(Request::GetApiVersion).unwrap());
    let extensions = |t: &mut Recorder, when: &str| {
        for i in 1..=12 {
            t.r(&format!("CHECK_EXTENSION({i}) {when}"), c.check_extension(i));
        }
    };
    extensions(&mut t, "no group");
    t.r("SET_IOMMU(v2) with no group", c.set_iommu(V2));
    t.info("GET_INFO with no iommu", c);
    assert_eq!(c.open_group(g), Ok(0));
    t.r("open same group twice", c.open_group(g));
    let flags = c.group_status(g).unwrap();
    t.r_with("GROUP_GET_STATUS", Ok(0), &format!("flags={flags:#x}"));
    t.r("SET_CONTAINER", c.set_container(g));
    t.r("SET_CONTAINER same group again", c.set_container(g));
    let other = t.process.open_container().unwrap();
    t.r("SET_CONTAINER same group to 2nd container", other.set_container(g));
    drop(other);
    extensions(&mut t, "group attached");
    t.r("SET_IOMMU(type1=1)", c.set_iommu(1));
    t.r("SET_IOMMU(99)", c.set_iommu(99));
    t.a("before SET_IOMMU");
    t.r("SET_IOMMU(v2=7)", c.set_iommu(V2));
    t.a("after SET_IOMMU(v2)");
    t.r("SET_IOMMU(v2=7) again", c.set_iommu(V2));
    extensions(&mut t, "v2 set");
    t.info("GET_INFO v2", c);
    t.r("GET_INFO argsz=4", c.info(&mut TceInfo { argsz: 4, ..TceInfo::default() }));
    let mut i = TceInfo { argsz: 16, ..TceInfo::default() };
    let ret = c.info(&mut i);
    let note = format!("argsz={} flags={} pgsizes={:#x}", i.argsz, i.flags, i.ddw.pgsizes);
    t.r_with("GET_INFO argsz=16", ret, &note);
    t.a("after GET_INFO");
    t.r("UNSET_CONTAINER", c.unset_container(g));
    t.a("after UNSET_CONTAINER");
    t.info("GET_INFO after last group unset", c);
    t.r("SET_CONTAINER again", c.set_container(g));
    t.r("SET_IOMMU(v1=2)", c.set_iommu(V1));
    t.info("GET_INFO v1", c);
    drop(ct);
    t.a("after close");
    for group in 0..6 {
        let c = container(&t.process, group, 1, V2);
        t.info(&format!("GET_INFO group {group}"), &c);
    }
    t.compare(&["info"]);
}

#[test]
fn version_1() {
    let kernel = MockKernel::new(2);
    let mut t = Recorder::new("v1", &kernel);
    t.process.vma(Uaddr(NOWHERE), GB, Vma::HOLE);
    let ct = container(&t.process, 0, 1, V1);
    let c = &ct;
    t.a("SET_IOMMU v1");
    t.info("GET_INFO v1", c);
    t.r("MAP before ENABLE", map(c, 0, P, PS, RW));
    t.r("UNMAP before ENABLE", unmap(c, 0, PS));
    t.r("DISABLE before ENABLE", c.disable());
    t.r("ENABLE", c.enable());
    t.a("ENABLE");
    t.r("ENABLE twice", c.enable());
    t.r("REG on v1", reg(c, P, SZ));
    t.r("UNREG on v1", unreg(c, P, SZ));
    t.r("CREATE on v1", create(c, 16, GB, 1).0);
    t.r("REMOVE on v1", remove(c, 0));
    t.r("MAP 8 pages (no registration)", map(c, 0, P, 8 * PS, RW));
    t.a("MAP");
    t.r("MAP again", map(c, 0, P, PS, RW));
    t.r("MAP colliding in the middle 4..11", map(c, 4 * PS, P, 8 * PS, RW));
    t.r("  leftover at 8?", map(c, 8 * PS, P, PS, RW));
    t.r("UNMAP 0..15", unmap(c, 0, 16 * PS));
    assert_eq!(kernel.leftovers().pinned_pages, 0);
    t.r("MAP bad va", map(c, 256 * PS, NOWHERE, PS, RW));
    t.r("MAP iova+1", map(c, 256 * PS + 1, P, PS, RW));
    t.r("UNMAP iova+1", unmap(c, 256 * PS + 1, PS));
    let read_only = P + GB;
    t.process.vma(Uaddr(read_only), PS, Vma::READ_ONLY);
    t.r("MAP RW of PROT_READ memory", map(c, 256 * PS, read_only, PS, RW));
    t.r("MAP READ of PROT_READ memory", map(c, 256 * PS, read_only, PS, 1));
    t.r("MAP beyond window", map(c, 2 * GB, P, PS, RW));
    assert_eq!(c.open_group(GroupId(1)), Ok(0));
    t.r("2nd group into v1 container", c.set_container(GroupId(1)));
    assert_eq!(c.close_group(GroupId(1)), Ok(0));
    t.r("MAP 4 pages", map(c, 0, P, 4 * PS, RW));
    t.r("DISABLE with mappings", c.disable());
    t.a("DISABLE");
    assert_eq!(reaches(&kernel, 0, PS + 5), Ok(P + PS + 5));
    t.r("UNMAP after DISABLE", unmap(c, 0, 4 * PS));
    t.r("ENABLE", c.enable());
    t.a("ENABLE again");
    drop(ct);
    t.a("closed");
    assert_eq!(kernel.leftovers(), Leftovers::default());

    let c = t.process.open_container().unwrap();
    let (g0, g1) = (GroupId(0), GroupId(1));
    assert_eq!((c.open_group(g0), c.open_group(g1)), (Ok(0), Ok(0)));
    t.r("SET_CONTAINER g0", c.set_container(g0));
    t.r("SET_CONTAINER g1 (before SET_IOMMU)", c.set_container(g1));
    t.r("SET_IOMMU v1 with 2 groups", c.set_iommu(V1));
    drop(c);
    let child = kernel.process();
    child.set_memlock(Some(64 * PS));
    let c = container(&child, 0, 1, V1);
    t.r("ENABLE with RLIMIT_MEMLOCK=64 pages, no CAP_IPC_LOCK", c.enable());
    t.compare(&["v1"]);
    assert_eq!(child.books(), Books::default());
}

/// Whether a device could copy from one bus address to another, where these pages should be.
fn copies(kernel: &MockKernel, group: u32, at: u64) -> u32 {
    let page = |at, need, va| {
        kernel.translate(GroupId(group), Ioba(at), need).is_ok_and(|there| there.at.0 == va)
    };
    u32::from(page(at, Perm::READ, P) && page(at + PS, Perm::WRITE, P + PS))
}

#[test]
fn a_group_that_leaves() {
    let kernel = MockKernel::new(2);
    let mut t = Recorder::new("detach", &kernel);
    let ct = container(&t.process, 0, 2, V2);
    let c = &ct;
    let g1 = GroupId(1);
    assert_eq!(reg(c, P, SZ), Ok(0));
    assert_eq!(remove(c, 0), Ok(0));
    assert_eq!(create(c, 12, GB, 1), (Ok(0), 0));
    t.a("2 groups, window 4K 1G");
    let at = 64 * PS;
    assert_eq!(map(c, at, P, 2 * PS, RW), Ok(0));
    let both = [copies(&kernel, 0, at), copies(&kernel, 1, at)];
    t.k("dma g0 / g1 before", format!("{} {}", both[0], both[1]));
    kernel.set_device_open(g1, true);
    t.r("UNSET_CONTAINER g1 with device fd open", c.unset_container(g1));
    kernel.set_device_open(g1, false);
    t.r("UNSET_CONTAINER g1", c.unset_container(g1));
    t.a("after UNSET g1");
    let after = copies(&kernel, 0, at);
    t.k("dma g0 after detaching g1 (1=mappings kept, 0=wiped)", after);
    assert_eq!(t.process.region_counts(Uaddr(P)), Some((0, 1)));
    assert_eq!(map(c, at, P, 2 * PS, RW), Ok(0));
    t.k("dma g0 after re-MAP", copies(&kernel, 0, at));
    t.r("attach g1 again", c.set_container(g1));
    t.k("dma g1 after re-attach (inherits mappings?)", copies(&kernel, 1, at));
    t.r("REMOVE window with live mappings", remove(c, 0));
    t.a("REMOVE");
    t.k("dma g0 after window removal", copies(&kernel, 0, at));
    assert_eq!(create(c, 12, GB, 1), (Ok(0), 0));
    t.k("dma g0 after new window (must be empty)", copies(&kernel, 0, at));
    t.compare(&["detach"]);
}

/// Said of the same machine, but not in the recorded lines.
#[test]
fn said_of_larger_windows_and_of_hugetlb() {
    let (kernel, process, c) = v2(1);
    process.vma(Uaddr(P), 64 << 20, Vma::hugetlb(PageShift::M16));
    let normal = P + GB;
    assert_eq!((reg(&c, P, 64 << 20), reg(&c, normal, 64 << 20)), (Ok(0), Ok(0)));
    assert_eq!(remove(&c, 0), Ok(0));
    assert_eq!(create(&c, 16, 64 * GB, 1).0, Ok(0));
    assert_eq!(remove(&c, 0), Ok(0));
    assert_eq!(create(&c, 16, 256 * GB, 1).0, Err(Errno::ENOMEM));
    for size in [1 << 40, 1 << 44] {
        assert_eq!(create(&c, 16, size, 2).0, Ok(0));
        assert_eq!(map(&c, size / 2, normal, PS, RW), Ok(0));
        assert_eq!(remove(&c, 0), Ok(0));
    }
    let petabytes = process.leaked_pages();
    assert_eq!(create(&c, 16, 1 << 63, 5).0, Err(Errno::EINVAL));
    assert!((process.leaked_pages() - petabytes) * PS > 1 << 50);

    let m16 = 16 << 20;
    assert_eq!(create(&c, 24, 2 * GB, 1).0, Ok(0));
    assert_eq!(map(&c, 5 * m16, normal, m16, RW), Err(Errno::EINVAL), "normal memory");
    assert_eq!(map(&c, m16, P, m16, RW), Ok(0));
    assert_eq!(map(&c, 2 * m16, P + PS, m16, RW), Err(Errno::EINVAL), "unaligned");
    assert_eq!(map(&c, 2 * m16, P + m16, 2 * m16, RW), Ok(0));
    assert_eq!(reaches(&kernel, 0, 3 * m16 + 77), Ok(P + 2 * m16 + 77));
    end(&kernel, &process, c);
}

#[test]
fn said_of_a_kernel_with_4k_pages() {
    let kernel = MockKernel::builder(1).host_page(PageShift::K4).build();
    let process = kernel.process();
    let c = container(&process, 0, 1, V2);
    assert_eq!(reg(&c, P, 1 << 20), Ok(0));
    assert_eq!(remove(&c, 0), Ok(0));
    for (shift, one_level) in [(12, 4096), (16, 256)] {
        for levels in 1..=5 {
            let before = process.locked_bytes();
            let (ret, _) = create(&c, shift, GB, levels);
            let charged = (process.locked_bytes() - before) / 1024;
            assert_eq!(charged, one_level + 8 * (u64::from(levels) - 1));
            assert_eq!(ret, if levels < 5 { Ok(0) } else { Err(Errno::EINVAL) });
            if ret.is_ok() {
                let backed = if shift == 12 { Ok(0) } else { Err(Errno::EINVAL) };
                assert_eq!(map(&c, 1 << 16, P, 1 << 16, RW), backed);
                assert_eq!(remove(&c, 0), Ok(0));
            }
        }
    }
    end(&kernel, &process, c);
}
