// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One short sequence of requests for each habit, answered by every profile.

use super::*;

/// Every profile with its number: 0 is the oldest, and the guest is as new as the newest.
pub(super) fn each(mut case: impl FnMut(&Profile, usize)) {
    Profile::ALL.iter().enumerate().for_each(|(age, profile)| case(profile, age));
}

/// As [`each`] counts.
const K4_9: usize = 1;
const K4_12: usize = 2;
const K5_0: usize = 3;
pub(super) const K6_4: usize = 4;
const K6_11: usize = 5;

pub(super) fn builder(profile: &Profile, groups: u32) -> MockKernelBuilder {
    let machine = MockKernel::builder(groups).profile(*profile).record(true);
    machine.platform(profile.usual_platform())
}

/// A machine with its process and a v2 container of so many groups, without its default window.
fn plain(profile: &Profile, groups: u32) -> (Arc<MockKernel>, Arc<Process>, MockContainer) {
    let kernel = builder(profile, groups).try_build().unwrap();
    let process = kernel.process();
    let c = container(&process, 0, groups, V2);
    assert_eq!(remove(&c, 0), Ok(0));
    (kernel, process, c)
}

/// Host pages locked.
pub(super) fn locked(process: &Process) -> u64 {
    process.locked_bytes() / PS
}

/// Groups that can share a container.
fn members(profile: &Profile) -> u32 {
    if profile.usual_platform().shares_tables() { 2 } else { 1 }
}

#[test]
fn names_are_read_back() {
    each(|profile, _| {
        assert_eq!(profile.name.parse(), Ok(*profile));
        let error = "k6_12".parse::<Profile>().unwrap_err().to_string();
        assert!(error.contains(profile.name), "{error}");
    });
}

#[test]
fn a_container_belongs_to_a_process_or_to_nobody() {
    each(|profile, age| {
        let (kernel, process, c) = plain(profile, 1);
        assert_eq!(reg(&c, P, SZ), Ok(0));
        let other = kernel.process();
        let seen = c.shared_with(&other).unwrap();
        if age >= K4_9 {
            assert_eq!(reg(&seen, P, SZ), Err(Errno::EPERM));
            assert_eq!(seen.info(&mut TceInfo::new()), Err(Errno::EPERM));
            return;
        }
        assert_eq!(create(&c, 16, GB, 1).0, Ok(0));
        assert_eq!(map(&seen, B, P, PS, RW), Err(Errno::EINVAL), "not registered by this one");
        assert_eq!(reg(&seen, P, SZ), Ok(0));
        assert_eq!(map(&seen, B, P, PS, RW), Ok(0));
        let there = kernel.translate(GroupId(0), Ioba(B), Perm::NONE).unwrap();
        assert_eq!(there.process, other.id());
        // The table was paid for by one and is given back to the other.
        assert_eq!((locked(&process), locked(&other)), (64 + 4, 64));
        assert_eq!(remove(&seen, 0), Ok(0));
        assert_eq!((locked(&process), locked(&other)), (64 + 4, 64 - 4));
        assert_eq!((process.books().leaked, other.books().excess), (4, 4));
        assert_eq!(other.books().sum(), 60);
    });
}

#[test]
fn when_the_default_window_is_made() {
    each(|profile, age| {
        let kernel = builder(profile, 1).build();
        let process = kernel.process();
        let c = container(&process, 0, 1, V2);
        assert_eq!(locked(&process), if age >= K4_9 { 0 } else { 64 + 64 });
        assert_eq!(reg(&c, P, SZ), Ok(0));
        assert_eq!(unmap(&c, B, PS), Ok(0));
        let one = if age >= K4_12 { 128 } else { 64 };
        assert_eq!(locked(&process), 64 + if age >= K4_9 { one } else { 128 });
        end_or_regions(profile, &kernel, &process, c);
    });
}

/// The end of a test whose regions may outlive the container.
fn end_or_regions(profile: &Profile, kernel: &MockKernel, process: &Process, c: MockContainer) {
    if !profile.lists_regions {
        assert_eq!(unreg(&c, P, SZ), Ok(0));
    }
    end(kernel, process, c);
}

#[test]
fn regions_belong_to_a_container_or_to_nobody() {
    each(|profile, age| {
        let (kernel, process, c) = plain(profile, 1);
        assert_eq!(reg(&c, P, SZ), Ok(0));
        let again = if age >= K4_9 { Err(Errno::EBUSY) } else { Ok(0) };
        assert_eq!(reg(&c, P, SZ), again);
        assert_eq!(locked(&process), 64);
        assert_eq!(unreg(&c, P, SZ), Ok(0));
        let counted = if age >= K4_9 { None } else { Some((0, 1)) };
        assert_eq!(process.region_counts(Uaddr(P)), counted);
        let _ = reg(&c, P, SZ);
        drop(c);
        let left = if age >= K4_9 { 0 } else { 64 };
        assert_eq!((locked(&process), kernel.leftovers().pinned_pages), (left, left));
    });
}

#[test]
fn a_stranger_unregisters_only_where_nobody_lists() {
    each(|profile, age| {
        let kernel = builder(profile, 2).build();
        let process = kernel.process();
        let (c, other) = (container(&process, 0, 1, V2), container(&process, 1, 1, V2));
        let without = locked(&process);
        assert_eq!(reg(&c, P, SZ), Ok(0));
        assert_eq!(reg(&other, P + SZ, SZ), Ok(0));
        let answer = if age >= K4_9 { Err(Errno::ENOENT) } else { Ok(0) };
        assert_eq!(unreg(&other, P, SZ), answer);
        assert_eq!(locked(&process) - without, if age >= K4_9 { 128 } else { 64 });
    });
}

#[test]
fn what_a_window_is_charged_with_and_when() {
    // 1 GiB in 64K pages is 2 host pages of entries; a second level is one more.
    each(|profile, age| {
        let levels = profile.usual_platform().max_levels().min(2);
        for levels in 1..=levels {
            let (kernel, process, c) = plain(profile, 1);
            assert_eq!(reg(&c, P, SZ), Ok(0));
            let table = 1 + u64::from(levels);
            assert_eq!(create(&c, 16, GB, levels), (Ok(0), 0));
            let (created, mapped) = match age {
                0 => (table + 2, 0),
                K4_9 => (table, 2),
                _ => (2 * table, 0),
            };
            assert_eq!(locked(&process) - 64, created, "{profile}");
            assert_eq!(unmap(&c, B, PS), Ok(0));
            assert_eq!(locked(&process) - 64, created, "UNMAP needs no view");
            assert_eq!(map(&c, B, P, PS, RW), Ok(0));
            assert_eq!(locked(&process) - 64, created + mapped);
            assert_eq!(map(&c, B, P, PS, RW), Ok(0));
            assert_eq!(locked(&process) - 64, created + mapped, "only once");
            assert_eq!(remove(&c, 0), Ok(0));
            assert_eq!(locked(&process), 64);
            end_or_regions(profile, &kernel, &process, c);
        }
    });
}

#[test]
fn a_flat_view_over_the_limit() {
    each(|profile, age| {
        let (_, process, c) = plain(profile, 1);
        assert_eq!(reg(&c, P, PS), Ok(0));
        process.set_memlock(Some(4 * PS));
        let made = create(&c, 16, GB, 1).0;
        if age != K4_9 {
            assert_eq!(made, Err(Errno::ENOMEM));
            assert_eq!((locked(&process), process.leaked_pages()), (1, 0));
            return;
        }
        assert_eq!((made, locked(&process)), (Ok(0), 3));
        assert_eq!(map(&c, B, P, PS, RW), Err(Errno::ENOMEM), "too late to be seen coming");
    });
}

#[test]
fn bus_addresses_off_a_page_and_behind_the_end() {
    each(|profile, age| {
        let (kernel, process, c) = plain(profile, 1);
        assert_eq!(reg(&c, P, SZ), Ok(0));
        assert_eq!(create(&c, 16, GB, 1), (Ok(0), 0));
        let answer = if age >= K4_12 { Ok(1) } else { Err(Errno::EINVAL) };
        assert_eq!((map(&c, B + 4096, P, PS, RW), unmap(&c, B + 4096, PS)), (answer, answer));
        let answer = if age >= K4_12 { Ok(0) } else { Err(Errno::EINVAL) };
        assert_eq!(unmap(&c, GB - PS, 2 * PS), answer);
        assert_eq!(kernel.damage().len(), usize::from(age >= K4_12));
        drop((process, c));
    });
}

#[test]
fn memory_that_is_unregistered_while_mapped() {
    each(|profile, age| {
        let (_, process, c) = plain(profile, 1);
        assert_eq!(reg(&c, P, SZ), Ok(0));
        assert_eq!(create(&c, 16, GB, 1), (Ok(0), 0));
        let window = locked(&process) - 64;
        assert_eq!(map(&c, B, P, PS, RW), Ok(0));
        let answer = if age >= K5_0 { Ok(0) } else { Err(Errno::EBUSY) };
        assert_eq!(unreg(&c, P, SZ), answer);
        assert_eq!(unmap(&c, B, PS), Ok(0));
        let (answer, left) = if age >= K5_0 { (Err(Errno::ENOENT), 64) } else { (Ok(0), 0) };
        assert_eq!(unreg(&c, P, SZ), answer);
        let view = if age == K4_9 { 2 } else { 0 };
        assert_eq!(locked(&process) - window - view, left);
    });
}

#[test]
fn memory_with_a_hole() {
    each(|profile, age| {
        let (kernel, process, c) = plain(profile, 1);
        process.vma(Uaddr(P + 2 * PS), PS, Vma::HOLE);
        let answer = if age >= K5_0 { Ok(2) } else { Err(Errno::EFAULT) };
        assert_eq!(reg(&c, P, SZ), answer);
        assert_eq!((locked(&process), kernel.leftovers().pinned_pages), (0, 0));
    });
}

#[test]
fn overlap_before_or_after_the_charge() {
    each(|profile, age| {
        let (_, process, c) = plain(profile, 1);
        assert_eq!(reg(&c, P, SZ), Ok(0));
        assert_eq!(reg(&c, P, 2 * SZ), Err(Errno::EINVAL));
        process.set_memlock(Some(SZ));
        let answer = if age >= K5_0 { Errno::ENOMEM } else { Errno::EINVAL };
        assert_eq!(reg(&c, P, 2 * SZ), Err(answer));
        assert_eq!(locked(&process), 64);
    });
}

#[test]
fn failed_creates_and_what_they_cost() {
    each(|profile, age| {
        let (_, process, c) = plain(profile, 1);
        if profile.usual_platform().max_levels() == 1 {
            // Levels are refused before the charge; a contiguous block that is too large is not.
            assert_eq!(create(&c, 16, GB, 2).0, Err(Errno::EINVAL));
            assert_eq!(locked(&process), 0);
            assert_eq!(create(&c, 16, 256 * GB, 1).0, Err(Errno::ENOMEM));
            assert_eq!((locked(&process), process.leaked_pages()), (1024, 1024));
            return;
        }
        // 55 bits.
        let (ret, pages) = (create(&c, 16, 1 << 20, 3).0, locked(&process));
        match age {
            0 => assert_eq!((ret, pages), (Ok(0), 3 + 1)),
            K4_9 => assert_eq!((ret, pages), (Err(Errno::EINVAL), 3)),
            _ => assert_eq!((ret, pages), (Err(Errno::EINVAL), 6)),
        }
        // 64 bits, for all of them.
        assert_eq!(create(&c, 12, 1 << 20, 4).0, Err(Errno::EINVAL));
        let leaked = [0, 3 + 4, 6 + 8][age.min(K4_12)];
        assert_eq!(process.leaked_pages(), leaked, "{profile}");
        assert_eq!(locked(&process), if age == 0 { 4 } else { leaked });
    });
}

#[test]
fn a_window_larger_than_the_memory() {
    each(|profile, age| {
        let kernel = builder(profile, 1).memory(GB).build();
        let process = kernel.process();
        if age < K4_9 {
            // Its default window is too large already, so nothing is ever attached.
            let c = process.open_container().unwrap();
            assert_eq!((c.open_group(GroupId(0)), c.set_container(GroupId(0))), (Ok(0), Ok(0)));
            assert_eq!(c.set_iommu(V2), Err(Errno::EINVAL));
            return;
        }
        let c = container(&process, 0, 1, V2);
        assert_eq!(remove(&c, 0), Ok(0));
        let answer = if age >= K4_12 { Ok(0) } else { Err(Errno::EINVAL) };
        assert_eq!(create(&c, 16, 2 * GB, 1).0, answer);
        assert_eq!((create(&c, 16, GB, 1).0, process.leaked_pages()), (Ok(0), 0));
    });
}

#[test]
fn tables_grow_or_are_made_whole() {
    each(|profile, age| {
        if profile.usual_platform().max_levels() == 1 {
            return;
        }
        let (kernel, _, c) = plain(profile, 1);
        assert_eq!(reg(&c, P, SZ), Ok(0));
        assert_eq!(create(&c, 16, GB, 2), (Ok(0), 0));
        let empty = kernel.translate(GroupId(0), Ioba(B), Perm::NONE);
        kernel.inject(Injection::Level { nth: 1 });
        if age >= K4_12 {
            assert_eq!(empty, Err(DmaFault::NoLevel(0)));
            assert_eq!(map(&c, B, P, PS, RW), Err(Errno::ENOMEM));
            assert_eq!(map(&c, GB - PS, P, 2 * PS, RW), Ok(0));
            assert_eq!(kernel.damage(), [], "the spare part is there, or made");
        } else {
            assert_eq!(empty, Err(DmaFault::Empty));
            assert_eq!(map(&c, B, P, PS, RW), Ok(0));
            assert_eq!(map(&c, GB - PS, P, 2 * PS, RW), Ok(0));
            let (container, slot, first) = (c.id(), 0, 16384);
            let wanted = Damage::OutOfTable { container, slot, first, entries: 1 };
            assert_eq!(kernel.damage(), [wanted], "there is no spare part");
        }
    });
}

#[test]
fn which_groups_are_admitted() {
    let (ok, busy) = (Ok(0), Err(Errno::EBUSY));
    let (perm, inval) = (Err(Errno::EPERM), Err(Errno::EINVAL));
    // One group with dynamic windows, one without, two with, one without behind one with, two
    // without: (v1, v2) each. Of two, the answer is to the second.
    let newest = [(ok, ok), (ok, inval), (busy, ok), (busy, inval), (busy, inval)];
    let by_kind = [(perm, ok), (ok, perm), (perm, ok), (perm, perm), (busy, perm)];
    let any = [(ok, ok), (ok, ok), (ok, ok), (busy, busy), (busy, busy)];
    let joins = |profile: &Profile, dynamic: &[bool], kind: u32| -> Raw {
        let count = dynamic.len() as u32;
        let mut machine = builder(profile, count);
        for (n, yes) in dynamic.iter().enumerate() {
            let windows = if *yes { 2 } else { 0 };
            machine = machine.group(GroupId(n as u32), |g| g.max_windows = windows);
        }
        let c = machine.build().process().open_container().unwrap();
        let mut last = Ok(0);
        for n in 0..count {
            assert_eq!(c.open_group(GroupId(n)), Ok(0));
            last = c.set_container(GroupId(n));
            if n == 0 {
                last = c.set_iommu(kind);
            }
            if last != Ok(0) {
                break;
            }
        }
        last
    };
    let cases: [&[bool]; 5] = [&[true], &[false], &[true, true], &[true, false], &[false, false]];
    each(|profile, age| {
        let wanted = match age {
            0 => any,
            1..K6_4 => by_kind,
            _ => newest,
        };
        for (case, wanted) in cases.iter().zip(wanted) {
            let got = (joins(profile, case, V1), joins(profile, case, V2));
            assert_eq!(got, wanted, "{profile} {case:?}");
        }
    });
}

#[test]
fn what_a_late_joiner_gets() {
    each(|profile, age| {
        if !profile.usual_platform().shares_tables() {
            return;
        }
        let kernel = builder(profile, 2).build();
        let process = kernel.process();
        let c = container(&process, 0, 1, V2);
        w1(&c);
        assert_eq!(reg(&c, P, SZ), Ok(0));
        assert_eq!(map(&c, B, P, PS, RW), Ok(0));
        assert_eq!(c.open_group(GroupId(1)), Ok(0));
        assert_eq!(c.set_container(GroupId(1)), Ok(0));
        let wanted = if age == K4_9 { Err(DmaFault::NoWindow(0)) } else { Ok(P) };
        assert_eq!(reaches(&kernel, 1, B), wanted);
        // A new window is set in both.
        assert_eq!(remove(&c, 0), Ok(0));
        assert_eq!(create(&c, 16, GB, 1).0, Ok(0));
        assert_eq!(map(&c, B, P, PS, RW), Ok(0));
        assert_eq!(reaches(&kernel, 1, B), Ok(P));
    });
}

#[test]
fn one_kill_or_one_for_each_entry() {
    each(|profile, age| {
        let groups = members(profile);
        let (kernel, _, c) = plain(profile, groups);
        assert_eq!(reg(&c, P, SZ), Ok(0));
        assert_eq!(create(&c, 16, GB, 1), (Ok(0), 0));
        let kills = |run: &dyn Fn() -> Raw| {
            let before = kernel.counters().range_kills;
            let _ = run();
            (kernel.counters().range_kills - before) / u64::from(groups)
        };
        let each = age < K5_0;
        assert_eq!(kills(&|| map(&c, B, P, 5 * PS, RW)), if each { 5 } else { 1 });
        assert_eq!(kills(&|| unmap(&c, B, 8 * PS)), if each { 8 } else { 1 });
        // A failure at the third page: two are done, and undone.
        assert_eq!(kills(&|| map(&c, B, P + SZ - 2 * PS, 3 * PS, RW)), if each { 4 } else { 1 });
        assert_eq!(reaches(&kernel, 0, B), Err(DmaFault::Empty));
    });
}

#[test]
fn version_1_unpins_before_its_one_kill() {
    each(|profile, age| {
        let kernel = builder(profile, 1).group(GroupId(0), |g| g.max_windows = 0).build();
        let c = container(&kernel.process(), 0, 1, V1);
        assert_eq!(c.enable(), Ok(0));
        assert_eq!(map(&c, B, P, 4096, RW), Ok(0));
        let _ = kernel.take_events();
        assert_eq!(unmap(&c, B, 4096), Ok(0));
        let events = kernel.take_events();
        let unpin = events.iter().position(|e| matches!(e, Event::Unpin { .. })).unwrap();
        let kill = |e: &Event| matches!(e, Event::Kill { .. } | Event::KillEach { .. });
        let kill = events.iter().position(kill).unwrap();
        assert_eq!(unpin < kill, age >= K5_0, "{events:?}");
    });
}

#[test]
fn what_is_cleared_when_a_window_or_a_group_goes() {
    each(|profile, age| {
        let groups = members(profile);
        let (kernel, _, c) = plain(profile, groups);
        assert_eq!(reg(&c, P, SZ), Ok(0));
        assert_eq!(create(&c, 16, GB, 1), (Ok(0), 0));
        assert_eq!(map(&c, B, P, PS, RW), Ok(0));
        if groups > 1 {
            assert_eq!(c.close_group(GroupId(1)), Ok(0));
            let wanted = if age >= K6_11 { Err(DmaFault::Empty) } else { Ok(P) };
            assert_eq!(reaches(&kernel, 0, B), wanted, "{profile}");
        }
        let _ = kernel.take_events();
        assert_eq!(remove(&c, 0), Ok(0));
        let events = kernel.take_events();
        let clear = events.iter().position(|e| matches!(e, Event::Clear { .. })).unwrap();
        let unset = events.iter().position(|e| matches!(e, Event::Unset { .. })).unwrap();
        assert_eq!(clear < unset, age >= K6_11);
        let kill = |e: &Event| matches!(e, Event::Kill { .. } | Event::KillEach { .. });
        assert_eq!(events.iter().any(kill), age >= K6_11, "unset, nobody is left to be told");
    });
}

#[test]
fn a_kill_of_nothing() {
    each(|profile, age| {
        for platform in profile.platforms.iter().filter(|p| p.shares_tables()) {
            let machine = MockKernel::builder(1).profile(*profile).platform(*platform);
            let c = container(&machine.build().process(), 0, 1, V2);
            w1(&c);
            assert_eq!(reg(&c, P, SZ), Ok(0));
            let hangs = age >= K5_0 && *platform == Platform::Phb3;
            let answer = if hangs { Err(Errno::EIO) } else { Ok(0) };
            assert_eq!(map(&c, 0, P, 0, RW), answer, "{profile} {platform}");
        }
    });
}
