// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The operations behind the observed lines, in their order.

use super::replay::Recorder;
use super::*;
use crate::backend::linux::uapi::Request;

const KERNEL: u64 = 0xc000_0000_0000_0000;

#[test]
fn registration() {
    let kernel = MockKernel::new(1);
    let mut t = Recorder::new("errno-reg", &kernel);
    let process = t.process.clone();
    process.vma(Uaddr(NOWHERE), GB, Vma::HOLE);
    let c = &container(&process, 0, 1, V2);
    t.r("MAP before any REG", map(c, 16 * PS, P, PS, RW));
    t.r("UNMAP before any REG", unmap(c, 16 * PS, PS));
    t.r("UNREG before any REG", unreg(c, P, SZ));
    let ret = reg(c, P, SZ);
    t.r("REG ok 64 pages", ret);
    t.a("REG 64 pages");
    t.r("REG same again (same container)", reg(c, P, SZ));
    t.r("REG sub-range of registered", reg(c, P, SZ / 2));
    t.a("-");
    t.r("REG overlapping tail, all mapped", reg(c, P + SZ / 2, SZ));
    t.a("-");
    t.r("REG superset", reg(c, P, 2 * SZ));
    t.a("-");
    t.r("UNREG sub-range", unreg(c, P, SZ / 2));
    t.r("UNREG wrong start", unreg(c, P + PS, SZ - PS));
    t.r("UNREG never registered", unreg(c, P + 16 * SZ, SZ));
    t.r("UNREG unaligned", unreg(c, P + 1, SZ));
    t.r("UNREG ok", unreg(c, P, SZ));
    t.a("UNREG");
    t.r("UNREG twice", unreg(c, P, SZ));
    t.r("REG adjacent A", reg(c, P, SZ));
    t.r("REG adjacent B", reg(c, P + SZ, SZ));
    t.a("REG A+B");
    t.r("UNREG A+B as one", unreg(c, P, 2 * SZ));
    t.r("UNREG A", unreg(c, P, SZ));
    t.r("UNREG B", unreg(c, P + SZ, SZ));
    t.a("UNREG A+B");
    t.r("REG unaligned vaddr", reg(c, P + 1, SZ));
    t.r("REG vaddr 4K-aligned", reg(c, P + 4096, SZ - PS));
    t.r("REG unaligned size", reg(c, P, SZ - 1));
    t.r("REG size 0", reg(c, P, 0));
    t.a("-");
    t.r("REG size wraps", reg(c, PS.wrapping_neg(), 2 * PS));
    t.r("REG unmapped vaddr", reg(c, NOWHERE, SZ));
    t.a("-");
    t.r("REG kernel vaddr", reg(c, KERNEL, SZ));
    t.a("-");
    process.vma(Uaddr(P + 2 * PS), PS, Vma::HOLE);
    t.r("REG 4 pages with hole at page 2", reg(c, P, 4 * PS));
    t.a("after failed REG with hole");
    t.r("  UNREG it", unreg(c, P, 4 * PS));
    process.vma(Uaddr(P), 4 * PS, Vma::READ_ONLY);
    t.r("REG PROT_READ anon", reg(c, P, 4 * PS));
    process.vma(Uaddr(P), 4 * PS, Vma::ANONYMOUS);
    t.r("REG MAP_SHARED ramfs/tmpfs file", reg(c, P, 4 * PS));
    assert_eq!(unreg(c, P, 4 * PS), Ok(0));
    let short = RegisterMemory { argsz: 8, ..RegisterMemory::new(P, SZ) };
    t.r("REG argsz=8", c.register(&short));
    let flags = RegisterMemory { flags: 1, ..RegisterMemory::new(P, SZ) };
    t.r("REG flags=1", c.register(&flags));
    t.r("UNREG flags=1", c.unregister(&flags));
    t.r("REG bad user ptr", c.fault(Request::RegisterMemory));
    t.a("end");
    t.a("closed");
    t.compare(&["errno-reg"]);
}

#[test]
fn mapping() {
    let kernel = MockKernel::new(1);
    let mut t = Recorder::new("errno-map", &kernel);
    let ct = container(&t.process, 0, 1, V2);
    let c = &ct;
    t.r("REG ok", reg(c, P, SZ));
    t.a("REG ok");
    t.r("MAP default window", map(c, B, P, PS, RW));
    t.a("first MAP (lazily creates the default window)");
    t.r("UNMAP 4K of that", unmap(c, B + 4096, 4096));
    t.r("MAP same iova again", map(c, B, P, PS, RW));
    t.r("MAP same iova other va", map(c, B, P + PS, PS, RW));
    t.r("MAP 4 pages over 1 mapped", map(c, B, P, 4 * PS, RW));
    t.r_with("UNMAP 4", unmap(c, B, 4 * PS), "size_out=0x40000");
    t.r_with("UNMAP again (nothing mapped)", unmap(c, B, 4 * PS), "size_out=0x40000");
    t.r("UNREG after balanced unmap", unreg(c, P, SZ));
    t.a("UNREG");
    t.r("MAP not registered (container has been enabled)", map(c, B, P, PS, RW));
    t.r("REG again", reg(c, P, SZ));
    t.r("MAP beyond the registered end", map(c, B, P + SZ, PS, RW));
    let across = P + SZ - 2 * PS;
    let case = "MAP 4 pages crossing the end of registered (2 good + 2 bad)";
    t.r(case, map(c, B, across, 4 * PS, RW));
    t.r("REG second half (adjacent)", reg(c, P + SZ, SZ));
    t.r("MAP 4 pages crossing two registered regions", map(c, B, across, 4 * PS, RW));
    t.r("UNMAP", unmap(c, B, 4 * PS));
    t.r("MAP flags=0", map(c, B, P, PS, 0));
    t.r("MAP flags=READ", map(c, B, P, PS, 1));
    t.r("MAP WRITE over READ mapped", map(c, B, P, PS, 2));
    t.r("UNMAP", unmap(c, B, PS));
    t.r("MAP flags=WRITE", map(c, B, P, PS, 2));
    t.r("UNMAP", unmap(c, B, PS));
    t.r("MAP flags=7", map(c, B, P, PS, 7));
    t.r("MAP iova+1", map(c, B + 1, P, PS, RW));
    t.r("MAP iova+2048", map(c, B + 2048, P, PS, RW));
    t.r("MAP iova+4096 size 4096", map(c, B + 4096, P, 4096, RW));
    t.r("UNMAP it", unmap(c, B + 4096, 4096));
    t.r("MAP vaddr+1", map(c, B, P + 1, PS, RW));
    t.r("MAP vaddr+2048", map(c, B, P + 2048, PS, RW));
    t.r("MAP vaddr+4096", map(c, B, P + 4096, PS, RW));
    assert_eq!(unmap(c, B, PS), Ok(0));
    t.r("MAP size+1", map(c, B, P, PS + 1, RW));
    t.r("MAP size 0", map(c, B, P, 0, RW));
    t.r("UNMAP size 0", unmap(c, B, 0));
    t.r("MAP last page of window", map(c, 2 * GB - PS, P, PS, RW));
    t.r("UNMAP last page", unmap(c, 2 * GB - PS, PS));
    t.r("MAP beyond window (2G)", map(c, 2 * GB, P, PS, RW));
    t.r("UNMAP beyond window (2G)", unmap(c, 2 * GB, PS));
    t.r("MAP iova -PS", map(c, PS.wrapping_neg(), P, 2 * PS, RW));
    t.r("MAP kernel va", map(c, B, KERNEL, PS, RW));
    t.r("MAP argsz=8", c.map(&DmaMap { argsz: 8, ..DmaMap::new(RW, P, B, PS) }));
    let mut arg = DmaUnmap { flags: 1, ..DmaUnmap::new(B, PS) };
    t.r("UNMAP flags=1", c.unmap(&mut arg));
    let mut arg = DmaUnmap { argsz: 8, ..DmaUnmap::new(B, PS) };
    t.r("UNMAP argsz=8", c.unmap(&mut arg));
    t.r("UNMAP iova+1", unmap(c, B + 1, PS));
    t.r("UNMAP size+1", unmap(c, B, PS + 1));
    t.r("ENABLE on v2", c.enable());
    t.r("DISABLE on v2", c.disable());
    // Any request that a container does not know.
    t.r("unknown ioctl", c.fault(Request::DeviceGetRegionInfo));
    t.r("UNREG A", unreg(c, P, SZ));
    t.r("UNREG B", unreg(c, P + SZ, SZ));
    t.a("UNREG all");
    drop(ct);
    t.a("closed");
    t.compare(&["errno-map"]);
    assert_eq!(kernel.damage(), []);
    assert_eq!(kernel.leftovers(), Leftovers::default());
}

/// CREATE, what it charged and where it is.
fn create_noted(t: &mut Recorder, c: &MockContainer, case: &str, of: (u32, u64, u32)) -> bool {
    let before = t.kb();
    let (ret, start) = create(c, of.0, of.1, of.2);
    let delta = t.kb() as i64 - before as i64;
    let mut note = format!("start={start:#x} VmLck_delta={delta:+}kB");
    if case.contains("size=1G") && (of.2 != 1 || case.ends_with("map")) {
        note += " map=0,0 VmLck_by_map=+0";
    }
    t.r_with(case.trim_end_matches("map"), ret, &note);
    ret == Ok(0)
}

#[test]
fn windows() {
    let kernel = MockKernel::new(1);
    let mut t = Recorder::new("errno-win", &kernel);
    let ct = container(&t.process, 0, 1, V2);
    let c = &ct;
    t.r("REG", reg(c, P, SZ));
    t.a("REG");
    let s = t.create("CREATE 64K 1G without removing the default", c, (16, GB, 1));
    t.a("CREATE (default 2G/4K + 1G/64K)");
    t.create("CREATE third", c, (16, GB, 1));
    t.a("CREATE third");
    t.r("REMOVE second", remove(c, s));
    t.a("REMOVE second");
    t.r("REMOVE start=1<<59 (none there)", remove(c, 1 << 59));
    t.r("REMOVE start=2G (none there)", remove(c, 2 * GB));
    t.r("MAP one page in default window", map(c, B, P, PS, RW));
    t.r("REMOVE default window with a mapping", remove(c, 0));
    t.a("REMOVE default window");
    t.r("MAP with no window", map(c, B, P, PS, RW));
    t.r("UNMAP with no window", unmap(c, B, PS));
    t.r("REMOVE default again", remove(c, 0));
    t.r("UNREG after window removal", unreg(c, P, SZ));
    t.r("REG", reg(c, P, SZ));
    t.info("GET_INFO with no window", c);
    t.a("-");
    for shift in [0, 10, 11, 12, 13, 16, 18, 20, 21, 24, 25, 28, 30, 34, 63, 64, 76] {
        let case = format!("CREATE shift={shift} size=1G levels=1");
        if create_noted(&mut t, c, &case, (shift, GB, 1)) {
            assert_eq!(remove(c, 0), Ok(0));
        }
    }
    for shift in [12, 16] {
        for levels in 0..=7 {
            let case = format!("CREATE shift={shift} size=1G levels={levels}map");
            if create_noted(&mut t, c, &case, (shift, GB, levels)) {
                let before = t.kb();
                assert_eq!(map(c, 16 * PS, P, PS, RW), Ok(0));
                assert_eq!(map(c, 512 << 20, P, PS, RW), Ok(0));
                assert_eq!(t.kb(), before);
                assert_eq!(remove(c, 0), Ok(0));
            }
        }
    }
    let mb = 1 << 20;
    let small = [0, 1, 4096, PS, 2 * PS, mb, 16 * mb, 512 * mb];
    let large = [3 * mb, GB + PS, 3 * GB, 2 * GB, 4 * GB, 8 * GB, 64 * GB];
    for size in small.into_iter().chain(large) {
        for levels in [1, 3] {
            let case = format!("CREATE shift=16 size={size:#x} levels={levels}");
            if create_noted(&mut t, c, &case, (16, size, levels)) {
                let mut end = 0;
                let mut at = PS;
                while map(c, at, P, PS, RW) == Ok(0) {
                    assert_eq!(unmap(c, at, PS), Ok(0));
                    at *= 2;
                    end = at;
                }
                t.k("effective window size (power of two)", format!("{end:#x}"));
                assert_eq!(remove(c, 0), Ok(0));
            }
        }
    }
    for levels in 1..=5 {
        let case = format!("CREATE shift=12 size=2G levels={levels}");
        if create_noted(&mut t, c, &case, (12, 2 * GB, levels)) {
            assert_eq!(remove(c, 0), Ok(0));
        }
    }
    t.a("before 3-window test");
    let s = t.create("CREATE #1 64K 1G", c, (16, GB, 1));
    t.a("#1");
    let s2 = t.create("CREATE #2 64K 4G", c, (16, 4 * GB, 1));
    t.a("#2");
    t.create("CREATE #3", c, (16, GB, 1));
    t.a("#3");
    t.r("MAP in #1", map(c, s + B, P, PS, RW));
    t.r("MAP in #2", map(c, s2 + B, P, PS, RW));
    t.r("MAP just past #1", map(c, s + GB, P, PS, RW));
    t.r("MAP just past #2", map(c, s2 + 4 * GB, P, PS, RW));
    t.r("MAP just below #2", map(c, s2 - PS, P, PS, RW));
    t.r("REMOVE #1 with start+64K", remove(c, s + 65536));
    t.a("-");
    t.r("REMOVE #1", remove(c, s));
    t.a("REMOVE #1");
    let s3 = t.create("CREATE in freed slot, 4K 2G", c, (12, 2 * GB, 1));
    t.a("4K 2G");
    t.r("MAP 4K page at vaddr+4096", map(c, s3 + 4096, P + 4096, 4096, RW));
    t.r("UNMAP it", unmap(c, s3 + 4096, 4096));
    t.r("REMOVE #2", remove(c, s2));
    t.r("REMOVE #3", remove(c, s3));
    t.a("REMOVE all");
    t.r("CREATE argsz=8", c.create(&mut TceCreate { argsz: 8, ..TceCreate::new(16, GB, 1) }));
    t.r("CREATE flags=1", c.create(&mut TceCreate { flags: 1, ..TceCreate::new(16, GB, 1) }));
    let mut arg = TceCreate { resv1: 5, ..TceCreate::new(16, GB, 1) };
    let ret = c.create(&mut arg);
    t.r_with("CREATE resv1=5", ret, &format!("start={:#x}", arg.start_addr));
    t.r("REMOVE", remove(c, 0));
    t.r("REMOVE argsz=8", c.remove(&TceRemove { argsz: 8, ..TceRemove::new(0) }));
    t.r("REMOVE flags=1", c.remove(&TceRemove { flags: 1, ..TceRemove::new(0) }));
    let s = t.create("CREATE for child test", c, (16, GB, 1));

    let other = c.shared_with(&kernel.process()).unwrap();
    let child = &other;
    t.section("errno-othermm");
    t.r("child(other mm) MAP", map(child, s + B, P, PS, RW));
    t.r("child REG", reg(child, P, SZ));
    t.r("child CREATE", create(child, 16, GB, 1).0);
    t.r("child REMOVE", remove(child, s));
    t.r("child UNMAP", unmap(child, s + B, PS));
    t.info("child GET_INFO", child);
    assert_eq!(child.check_extension(V2), Ok(1));
    t.section("errno-win");
    t.a("before close");
    drop((ct, other));
    t.a("after close (windows+regs released)");
    assert_eq!(t.process.leaked_pages() * PS, 51200 << 10);
    t.compare(&["errno-win", "errno-othermm"]);
}

#[test]
fn two_containers() {
    let kernel = MockKernel::new(2);
    let mut t = Recorder::new("errno-2ct", &kernel);
    let (one, two) = (container(&t.process, 0, 1, V2), container(&t.process, 1, 1, V2));
    let (c1, c2) = (&one, &two);
    t.r("REG in ct1", reg(c1, P, SZ));
    t.a("REG ct1");
    t.r("REG in ct2 same range", reg(c2, P, SZ));
    t.a("REG ct2 (shared, not counted twice?)");
    t.r("REG in ct2 sub-range of ct1's", reg(c2, P, SZ / 2));
    t.a("-");
    t.r("MAP ct2", map(c2, B, P, PS, RW));
    t.r("MAP ct1 same iova", map(c1, B, P, PS, RW));
    t.r("UNMAP ct1", unmap(c1, B, PS));
    t.r("UNREG ct1 while mapped in ct2 only", unreg(c1, P, SZ));
    t.a("UNREG ct1");
    t.r("MAP ct1 after its own UNREG (still in ct2)", map(c1, B, P, PS, RW));
    t.r("UNMAP ct1", unmap(c1, B, PS));
    t.r("UNMAP ct2", unmap(c2, B, PS));
    t.r("UNREG ct2", unreg(c2, P, SZ));
    t.a("UNREG ct2");
    drop((one, two));
    t.a("closed");
    t.compare(&["errno-2ct"]);
    assert_eq!(kernel.leftovers(), Leftovers::default());
}

#[test]
fn memory_that_is_unmapped_and_containers_that_are_closed() {
    let kernel = MockKernel::new(1);
    let mut t = Recorder::new("errno-munmap", &kernel);
    let ct = container(&t.process, 0, 1, V2);
    let c = &ct;
    t.r("REG", reg(c, P, 16 * PS));
    t.r("MAP", map(c, B, P, PS, RW));
    t.process.vma(Uaddr(P), 16 * PS, Vma::HOLE);
    t.a("munmap");
    t.r("MAP of munmapped but registered va", map(c, B + PS, P, PS, RW));
    t.r("UNMAP both", unmap(c, B, 2 * PS));
    t.r("UNREG after munmap", unreg(c, P, 16 * PS));
    t.a("UNREG");
    drop(ct);
    t.compare(&["errno-munmap"]);

    let mut t = Recorder::new("errno-close", &kernel);
    let ct = container(&t.process, 0, 1, V2);
    t.r("REG", reg(&ct, P, SZ));
    t.r("MAP", map(&ct, B, P, 32 * PS, RW));
    t.r("CREATE", create(&ct, 16, GB, 1).0);
    t.a("before close");
    drop(ct);
    t.a("after close");
    let ct = container(&t.process, 0, 1, V2);
    t.r("REG after reopen", reg(&ct, P, SZ));
    t.a("-");
    t.r("UNREG", unreg(&ct, P, SZ));
    t.a("-");
    t.compare(&["errno-close"]);
}

#[test]
fn limit() {
    let kernel = MockKernel::new(1);
    let mut t = Recorder::new("errno-rlimit", &kernel);
    t.process.set_memlock(Some(64 * PS));
    t.r("drop CAP_IPC_LOCK", Ok(0));
    let ct = container(&t.process, 0, 1, V2);
    let c = &ct;
    t.r("REG 65 pages (limit 64)", reg(c, P, 65 * PS));
    t.a("-");
    t.r("REG 64 pages", reg(c, P, 64 * PS));
    t.a("REG64");
    t.r("MAP default (window alloc over limit)", map(c, 16 * PS, P, PS, RW));
    t.a("MAP");
    t.r("CREATE (over limit)", create(c, 16, GB, 1).0);
    t.a("-");
    t.r("UNREG", unreg(c, P, 64 * PS));
    t.r("REMOVE default (pending)", remove(c, 0));
    t.r("CREATE 64K 1G", create(c, 16, GB, 1).0);
    t.a("CREATE");
    t.r("CREATE 4K 2G (more than the limit)", create(c, 12, 2 * GB, 1).0);
    t.a("CREATE2");
    drop(ct);
    t.a("closed");
    t.compare(&["errno-rlimit"]);
}

#[test]
fn memory_that_is_unregistered_while_mapped() {
    let kernel = MockKernel::new(1);
    let mut t = Recorder::new("errno-inuse", &kernel);
    let ct = container(&t.process, 0, 1, V2);
    let c = &ct;
    t.r("REG", reg(c, P, SZ));
    t.a("REG");
    t.r("MAP 1 page", map(c, B, P, PS, RW));
    t.a("MAP");
    t.r("UNREG while mapped", unreg(c, P, SZ));
    t.a("UNREG in use");
    t.r("MAP another page after that UNREG", map(c, B + PS, P + PS, PS, RW));
    t.r("UNREG again while mapped", unreg(c, P, SZ));
    t.r("REG same range again", reg(c, P, SZ));
    t.a("REG again");
    t.r("UNMAP all", unmap(c, B, 2 * PS));
    t.r("UNREG", unreg(c, P, SZ));
    t.a("UNREG");
    t.r("UNREG", unreg(c, P, SZ));
    t.r("MAP after final UNREG", map(c, B, P, PS, RW));
    t.r("UNMAP", unmap(c, B, PS));
    drop(ct);
    t.a("closed (leak if not 0)");
    assert_eq!(t.process.region_counts(Uaddr(P)), Some((0, 1)));
    t.compare(&["errno-inuse"]);
    assert_eq!(kernel.leftovers(), Leftovers { pinned_pages: 64, ..Leftovers::default() });
}

#[test]
fn six_groups() {
    let kernel = MockKernel::new(6);
    let mut t = Recorder::new("multi", &kernel);
    let ct = t.process.open_container().unwrap();
    let c = &ct;
    t.a("start");
    for group in (0..6).map(GroupId) {
        assert_eq!(c.open_group(group), Ok(0));
        assert_eq!(c.set_container(group), Ok(0));
        if group.0 == 0 {
            assert_eq!(c.set_iommu(V2), Ok(0));
        }
        t.a(&format!("SET_CONTAINER group {group}"));
        if group.0 == 0 {
            assert_eq!(reg(c, P, SZ), Ok(0));
            t.a("REG");
            assert_eq!(remove(c, 0), Ok(0));
            t.a("REMOVE");
            assert_eq!(create(c, 12, 2 * GB, 1), (Ok(0), 0));
            t.a("CREATE");
            assert_eq!(map(c, 0, P, SZ, RW), Ok(0));
            t.a("MAP");
        }
    }
    let (ret, s) = create(c, 16, 4 * GB, 1);
    assert_eq!(ret, Ok(0));
    t.a("CREATE all groups");
    assert_eq!(remove(c, s), Ok(0));
    t.a("REMOVE all groups");
    for levels in 1..=5 {
        let (ret, s) = create(c, 16, 64 * GB, levels);
        t.a(&format!("CREATE 64K 64G levels={levels} all groups"));
        assert_eq!(ret.is_ok(), levels < 3);
        if ret.is_ok() {
            assert_eq!(map(c, s + 32 * GB, P, SZ, RW), Ok(0));
            t.a("  MAP");
            assert_eq!(remove(c, s), Ok(0));
            t.a("  REMOVE");
        }
    }
    for group in (0..5).map(GroupId) {
        assert_eq!(c.unset_container(group), Ok(0));
        t.a(&format!("UNSET_CONTAINER group {group}"));
    }
    assert_eq!(unmap(c, 0, SZ), Ok(0));
    assert_eq!(c.unset_container(GroupId(5)), Ok(0));
    t.a("UNSET last");
    drop(ct);
    t.a("closed");
    t.compare(&["multi"]);
}
