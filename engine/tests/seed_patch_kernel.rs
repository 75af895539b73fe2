// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What was wrong with the first patch that let several groups share a container, where it shows over
//! a kernel only; on every profile of the simulated one. The others are in `seed_patch.rs`.

use std::sync::Arc;

use crate::common::{G, G0, G1, G2, M};
use tce_engine::addr::{GroupId, Ioba, PageShift, PageSizes, Uaddr};
use tce_engine::backend::linux::mock_kernel::{
    GroupAttrs, Injection, MockKernel, MockKernelBuilder, Process, Profile,
};
use tce_engine::backend::linux::raw::{Errno, RawHost};
use tce_engine::backend::linux::uapi::{EehPeOp, TceInfo, eeh_op, kind};
use tce_engine::backend::linux::{Linux, LinuxOptions, Version};
use tce_engine::backend::mock::MockBuilder;
use tce_engine::container::{Container, Mode, Removal};
use tce_engine::engine::{DetachPolicy, Engine, EngineOptions};
use tce_engine::error::{
    AttachError, BackendError, EehError, MapError, RegisterError, UnmapError, UnregisterError,
    WindowError,
};
use tce_engine::geometry::WindowSpec;
use tce_engine::ledger::ChargeKind;
use tce_engine::tce::Perm;

const SPEC: WindowSpec = WindowSpec::new(G, PageShift::K64).levels(1);
const HOST: u64 = 64 << 10;
/// The one window of a version 1 container.
const V1_SPEC: WindowSpec = WindowSpec::new(2 * G, PageShift::K4).levels(1);

/// A simulated kernel, a process of it and its engine. When it goes, nothing may be left.
struct Rig {
    kernel: Arc<MockKernel>,
    process: Arc<Process>,
    engine: Engine,
}

impl Rig {
    fn new(profile: Profile, change: impl FnOnce(MockKernelBuilder) -> MockKernelBuilder) -> Self {
        Self::with(profile, Version::V2, change)
    }

    fn with(
        profile: Profile,
        version: Version,
        change: impl FnOnce(MockKernelBuilder) -> MockKernelBuilder,
    ) -> Self {
        let machine = MockKernel::builder(3).profile(profile);
        let kernel = change(machine.platform(profile.usual_platform())).try_build().unwrap();
        let process = kernel.process();
        let options = LinuxOptions { version, ..LinuxOptions::default() };
        let linux = Linux::new(process.clone(), options);
        let options = EngineOptions { detach: DetachPolicy::Replay, ..EngineOptions::default() };
        let engine = Engine::new(linux, options);
        Self { kernel, process, engine }
    }

    /// Pages charged, which the kernel's books have to agree with.
    fn pages(&self) -> u64 {
        let pages = self.engine.ledger().pages();
        assert_eq!(self.process.locked_bytes(), pages * HOST, "the kernel's books");
        assert_eq!(self.process.leaked_pages(), 0);
        pages
    }

    /// Groups may share here, and join when there are windows.
    fn can_join_late(&self) -> bool {
        self.kernel.platform().shares_tables() && self.kernel.profile().late_joiner_gets_windows
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.pages(), 0);
            assert_eq!(self.kernel.leftovers(), Default::default());
            assert_eq!((self.kernel.damage(), self.kernel.take_injections()), (vec![], vec![]));
        }
    }
}

/// A group without what an attach needs is refused, and nothing remembers that it was tried.
#[test]
fn s4_a_group_without_data() {
    type Lack = fn(&mut GroupAttrs);
    let lacks: [(Lack, &str); 2] = [
        (|group| group.platform_data = false, "making it an sPAPR TCE v2 container"),
        (|group| group.viable = false, "IOMMU group 1 is not viable"),
    ];
    for profile in Profile::ALL {
        for (lack, why) in lacks {
            let rig = Rig::new(profile, |machine| machine.group(G1, lack));
            let (c, d) = (rig.engine.container(), rig.engine.container());
            c.attach(G0).unwrap();
            let before = (rig.pages(), c.caps(), rig.kernel.leftovers());
            for container in [&c, &d, &c] {
                for (group, why) in [(G1, why), (GroupId(9), "there is no IOMMU group 9")] {
                    let e = container.attach(group).unwrap_err();
                    assert!(e.to_string().starts_with(why), "{profile}: {e}");
                    assert_eq!((rig.pages(), c.caps(), rig.kernel.leftovers()), before);
                }
            }
            assert_eq!((c.groups(), d.groups()), (vec![G0], vec![]));
            // The containers are as good as before.
            c.create_window(SPEC).unwrap();
            d.attach(G2).unwrap();
        }
    }
}

/// The same where the engine owns the tables.
#[test]
fn s4_a_group_that_is_not_there() {
    let rig = crate::common::Rig::new(MockBuilder::new(1));
    let c = rig.container(&[]);
    let none = GroupId(9);
    for _ in 0..2 {
        assert_eq!(c.attach(none), Err(AttachError::Backend(BackendError::NoGroup(none))));
    }
    c.attach(G0).unwrap();
}

/// The ledger, and what the process shows as locked, are as they were before what failed.
#[test]
fn s6_books_after_windows_that_firmware_refused() {
    for profile in Profile::ALL {
        let rig = Rig::new(profile, |machine| machine);
        let c = rig.engine.container();
        c.attach(G0).unwrap();
        c.register(Uaddr(G), M).unwrap();
        let before = (rig.pages(), rig.engine.ledger().entries());
        let state = || (rig.pages(), rig.engine.ledger().entries());
        rig.kernel.inject(Injection::SetWindow { group: G0, slot: 0, code: -1 });
        let e = c.create_window(SPEC).unwrap_err();
        assert!(matches!(e, WindowError::Backend(_)), "{profile}: {e}");
        assert_eq!((state(), c.windows()), (before, vec![]), "{profile}");
        c.create_window(SPEC).unwrap();
        if !rig.can_join_late() {
            continue;
        }
        let before = state();
        rig.kernel.inject(Injection::SetWindow { group: G1, slot: 0, code: -7 });
        let e = c.attach(G1).unwrap_err();
        assert!(matches!(e, AttachError::Backend(_)), "{profile}: {e}");
        assert_eq!((state(), c.groups()), (before.clone(), vec![G0]), "{profile}");
        c.attach(G1).unwrap();
        assert_eq!(state(), before, "{profile}");
    }
}

/// The profiles on which a group of the usual platform can be in a version 1 container.
fn version_1(mut case: impl FnMut(Rig)) {
    let mut cases = 0;
    for profile in Profile::ALL {
        let rig = Rig::with(profile, Version::V1, |machine| machine);
        if rig.engine.container().attach(G0).is_ok() {
            cases += 1;
            case(rig);
        }
    }
    assert_eq!(cases, 4, "K4_2, K6_4, K6_11 and PSERIES");
}

/// A version 1 container is disabled when its group leaves: what was paid ahead comes back, and it
/// can be enabled again.
#[test]
fn s9_the_end_of_a_version_1_container() {
    version_1(|rig| {
        let c = rig.engine.container();
        for round in 0..2 {
            c.attach(G0).unwrap();
            c.register(Uaddr(G), M).unwrap();
            c.create_window(V1_SPEC).unwrap();
            c.map(Ioba(HOST), Uaddr(G), HOST, Perm::READ_WRITE, Mode::Refuse).unwrap();
            let paid = rig.engine.ledger().entries();
            let ahead = paid.iter().find(|e| e.kind == ChargeKind::Enable).expect("paid ahead");
            assert_eq!(ahead.pages, 2 * G / HOST, "round {round}");
            assert_eq!(rig.process.books().enabled, ahead.pages);
            rig.pages();
            let stays = c.remove_window(c.windows()[0].start, Removal::Force);
            let guarded =
                |e: &WindowError| matches!(e, WindowError::Backend(BackendError::Guarded { .. }));
            assert!(stays.as_ref().is_err_and(guarded), "{stays:?}");
            c.detach(G0).unwrap();
            assert_eq!((rig.pages(), rig.process.books().enabled), (0, 0), "round {round}");
            assert_eq!(rig.kernel.leftovers(), Default::default());
        }
    });
}

/// A version 1 container has one group and pays for that group's window: nobody joins unpaid.
#[test]
fn s14_version_1_is_for_one_group() {
    version_1(|rig| {
        let c = rig.engine.container();
        c.attach(G0).unwrap();
        for _ in 0..2 {
            let e = c.attach(G1).unwrap_err();
            // Refused before the kernel is asked, which may admit it.
            assert!(matches!(e, AttachError::Incompatible { group: G1, .. }), "{e}");
            if c.windows().is_empty() {
                c.create_window(V1_SPEC).unwrap();
            }
        }
        let entries = rig.engine.ledger().entries();
        let ahead: Vec<_> = entries.iter().filter(|e| e.kind == ChargeKind::Enable).collect();
        assert_eq!((ahead.len(), ahead[0].pages), (1, 2 * G / HOST));
        rig.pages();
        let d = rig.engine.container();
        d.attach(G1).unwrap();
        d.create_window(V1_SPEC).unwrap();
        let enabled = rig.process.books().enabled;
        assert_eq!(enabled, 2 * 2 * G / HOST, "each pays for its own");
        rig.pages();
    });
}

/// A kernel tells what the newest member can. The engine tells what all can, and always the same.
#[test]
fn s16_one_answer_whoever_came_last() {
    let masks = [
        &[PageShift::K4, PageShift::K64, PageShift::M16],
        &[PageShift::K4, PageShift::K64, PageShift::M256],
        &[PageShift::K4, PageShift::M16, PageShift::M256],
    ];
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    for profile in Profile::ALL.into_iter().filter(|p| p.usual_platform().shares_tables()) {
        for order in orders {
            let rig = Rig::new(profile, |machine| {
                let groups = masks.into_iter().zip([3, 5, 2]).zip(0..);
                groups.fold(machine, |machine, ((pages, levels), n)| {
                    machine.group(GroupId(n), |group| {
                        group.page_sizes = PageSizes::of(pages);
                        group.max_levels = levels;
                    })
                })
            });
            let c = rig.engine.container();
            for n in order {
                c.attach(GroupId(n)).unwrap();
            }
            let caps = || c.caps().map(|caps| (caps.page_sizes, caps.max_levels)).unwrap();
            let of = |pages: &[PageShift], levels| (PageSizes::of(pages), levels);
            let all = of(&[PageShift::K4], 2);
            assert_eq!(caps(), all, "{profile} {order:?}");
            // Neither a window nor a member that comes again changes it.
            c.create_window(WindowSpec::new(G, PageShift::K4)).unwrap();
            assert_eq!(caps(), all);
            c.remove_window(Ioba(0), Removal::IfUnmapped).unwrap();
            for (n, without) in [
                (0, of(&[PageShift::K4, PageShift::M256], 2)),
                (1, of(&[PageShift::K4, PageShift::M16], 2)),
                (2, of(&[PageShift::K4, PageShift::K64], 3)),
            ] {
                c.detach(GroupId(n)).unwrap();
                assert_eq!(caps(), without, "{profile} {order:?} without {n}");
                c.attach(GroupId(n)).unwrap();
                assert_eq!(caps(), all);
            }
        }
    }
}

/// What the engine answers without a group, whatever below would.
fn without_a_group(c: &Container) {
    let (at, memory) = (Ioba(0), Uaddr(G));
    assert_eq!((c.caps(), c.groups(), c.largest_window(PageShift::K64)), (None, vec![], 0));
    assert_eq!(c.create_window(SPEC), Err(WindowError::NoGroup));
    assert_eq!(c.remove_window(at, Removal::Force), Err(WindowError::NotFound(at)));
    assert_eq!(c.leave_to_kvm(at), Err(WindowError::NotFound(at)));
    assert_eq!(c.register(memory, M), Err(RegisterError::NoGroup));
    let missing = UnregisterError::NotFound { start: memory, bytes: M };
    assert_eq!(c.unregister(memory, M), Err(missing));
    let mapped = c.map(at, memory, HOST, Perm::READ, Mode::Refuse);
    assert!(matches!(mapped, Err(MapError::OutsideWindows { .. })), "{mapped:?}");
    let unmapped = c.unmap(at, HOST);
    assert!(matches!(unmapped, Err(UnmapError::OutsideWindows { .. })), "{unmapped:?}");
    assert!(matches!(c.eeh_states(), Err(EehError::NoGroup)));
    assert_eq!(c.detach(G0), Err(AttachError::NotMember(G0)));
}

/// Kernels have changed what they say to a container without a group. The engine does not ask.
#[test]
fn s20_without_a_group_the_engine_has_its_own_answers() {
    for profile in Profile::ALL {
        let rig = Rig::new(profile, |machine| machine);
        let requests = || rig.kernel.counters().requests;
        let c = rig.engine.container();
        let before = requests();
        without_a_group(&c);
        assert_eq!(requests(), before, "{profile}: nothing was sent");
        c.attach(G0).unwrap();
        c.create_window(SPEC).unwrap();
        c.detach(G0).unwrap();
        let before = requests();
        without_a_group(&c);
        assert_eq!(requests(), before, "{profile}: nothing was sent");

        // The container of a kernel that its last group has left is none of any kind any more.
        let raw = rig.process.open().unwrap();
        assert_eq!((raw.open_group(G0), raw.set_container(G0)), (Ok(0), Ok(0)));
        assert_eq!(raw.set_iommu(kind::SPAPR_TCE_V2), Ok(0));
        assert_eq!(raw.unset_container(G0), Ok(0));
        let state = raw.eeh(&EehPeOp::new(eeh_op::GET_STATE));
        let answers = [raw.info(&mut TceInfo::new()), raw.enable(), state];
        assert_eq!(answers, [Err(Errno::EINVAL); 3], "{profile}");
    }
    let rig = crate::common::Rig::new(MockBuilder::new(1));
    let c = rig.container(&[]);
    without_a_group(&c);
    c.attach(G0).unwrap();
    c.detach(G0).unwrap();
    without_a_group(&c);
}
