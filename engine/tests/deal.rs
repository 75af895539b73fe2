// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Groups dealt out to as few containers as there can be, whatever order they are named in.

use crate::common::{G, Rig};
use tce_engine::addr::{GroupId, Ioba, PageShift, PageSizes};
use tce_engine::backend::linux::mock_kernel::{MockKernel, Profile};
use tce_engine::backend::linux::{Linux, LinuxOptions, Version};
use tce_engine::backend::mock::MockBuilder;
use tce_engine::container::Container;
use tce_engine::engine::{DetachPolicy, Engine, EngineOptions};
use tce_engine::error::{AttachError, BackendError};
use tce_engine::geometry::WindowSpec;
use tce_engine::platform::Platform;

fn groups(numbers: &[u32]) -> Vec<GroupId> {
    numbers.iter().map(|n| GroupId(*n)).collect()
}

fn dealt(containers: &[Container]) -> Vec<Vec<u32>> {
    containers.iter().map(|c| c.groups().iter().map(|g| g.0).collect()).collect()
}

/// All orders of up to eight numbers.
fn orders(numbers: &[u32]) -> Vec<Vec<u32>> {
    let Some((first, rest)) = numbers.split_first() else { return vec![Vec::new()] };
    let mut all = Vec::new();
    for order in orders(rest) {
        for at in 0..=order.len() {
            let mut order = order.clone();
            order.insert(at, *first);
            all.push(order);
        }
    }
    all
}

#[test]
fn who_can_share_does_in_any_order() {
    // 0 and 3 share; 1 begins elsewhere, 2 cannot share, 4 comes with a smaller window, 5 begins where 1
    // does.
    let builder = || {
        let shifted = [Some(Ioba(G)), None];
        MockBuilder::new(6)
            .group(GroupId(1), |caps| caps.window_starts = shifted)
            .group(GroupId(2), |caps| caps.can_share_tables = false)
            .group(GroupId(4), |caps| caps.default_bytes = G)
            .group(GroupId(5), |caps| caps.window_starts = shifted)
    };
    let rig = Rig::new(builder());
    for order in orders(&[0, 1, 2, 3, 4, 5]) {
        let containers = rig.engine.deal(&groups(&order)).unwrap();
        assert_eq!(dealt(&containers), [vec![4], vec![0, 3], vec![2], vec![1, 5]], "{order:?}");
    }
    // Whoever is in one container can have a window there.
    for container in rig.engine.deal(&groups(&[5, 4, 3, 2, 1, 0])).unwrap() {
        container.create_window(WindowSpec::new(G / 2, PageShift::K4)).unwrap();
    }
    assert_eq!(rig.engine.deal(&[]).unwrap().len(), 0);
}

#[test]
fn page_sizes_decide_where_nothing_else_does() {
    let sizes = |shifts: &[PageShift]| PageSizes::of(shifts);
    let (a, b, c) = (PageShift::K4, PageShift::K64, PageShift::M16);
    let rig = Rig::new(
        MockBuilder::new(4)
            .group(GroupId(0), |caps| caps.page_sizes = sizes(&[a, b]))
            .group(GroupId(1), |caps| caps.page_sizes = sizes(&[b, c]))
            .group(GroupId(2), |caps| caps.page_sizes = sizes(&[c]))
            .group(GroupId(3), |caps| caps.page_sizes = sizes(&[a])),
    );
    for order in orders(&[0, 1, 2, 3]) {
        let containers = rig.engine.deal(&groups(&order)).unwrap();
        assert_eq!(dealt(&containers), [vec![0, 3], vec![1, 2]], "{order:?}");
        let common: Vec<_> = containers.iter().map(|c| c.caps().unwrap().page_sizes).collect();
        assert_eq!(common, [sizes(&[a]), sizes(&[c])]);
    }
}

#[test]
fn all_or_nothing() {
    let rig = Rig::new(MockBuilder::new(4));
    let twice = rig.engine.deal(&groups(&[0, 1, 0])).unwrap_err();
    assert_eq!(twice, AttachError::Member(GroupId(0)));
    let missing = rig.engine.deal(&groups(&[0, 9, 1])).unwrap_err();
    assert_eq!(missing, AttachError::Backend(BackendError::NoGroup(GroupId(9))));
    let other = rig.container(&[GroupId(2)]);
    assert_eq!(rig.engine.deal(&groups(&[0, 2])).unwrap_err(), AttachError::Elsewhere(GroupId(2)));
    drop(other);
    // Somebody else has the last one: those that were attached before are given back.
    let theirs = Engine::new(rig.mock.clone(), EngineOptions::default()).container();
    theirs.attach(GroupId(3)).unwrap();
    let busy = rig.engine.deal(&groups(&[0, 1, 2, 3])).unwrap_err();
    assert_eq!(busy, AttachError::Backend(BackendError::GroupBusy(GroupId(3))));
    assert_eq!(rig.mock.leftovers(), (0, 0, 0));
    drop(theirs);
    assert_eq!(dealt(&rig.engine.deal(&groups(&[3, 2, 1, 0])).unwrap()), [vec![0, 1, 2, 3]]);
}

#[test]
fn on_the_platforms_of_kernels() {
    let apart: Vec<Vec<u32>> = vec![vec![0], vec![1], vec![2]];
    let together = vec![vec![0, 1, 2]];
    let (replay, isolate) = (DetachPolicy::Replay, DetachPolicy::Isolate);
    let v = |v1| if v1 { Version::V1 } else { Version::V2 };
    for (profile, platform, v1, detach, wanted) in [
        (Profile::K4_2, Platform::P5ioc2, true, replay, &apart),
        (Profile::K4_9, Platform::Ioda1, true, replay, &apart),
        (Profile::K4_9, Platform::Ioda1, true, isolate, &apart),
        (Profile::K6_11, Platform::Phb3, false, replay, &together),
        (Profile::K6_11, Platform::Phb3, true, replay, &apart),
        (Profile::K6_11, Platform::Phb3, true, isolate, &together),
        (Profile::K6_11, Platform::Phb4, false, isolate, &together),
        (Profile::PSERIES, Platform::Pseries, false, replay, &apart),
        (Profile::PSERIES, Platform::Pseries, false, isolate, &together),
    ] {
        let kernel =
            MockKernel::builder(3).profile(profile).platform(platform).try_build().unwrap();
        let options = LinuxOptions { version: v(v1), ..LinuxOptions::default() };
        let linux = Linux::new(kernel.process(), options);
        let engine = Engine::new(linux, EngineOptions { detach, ..EngineOptions::default() });
        for order in orders(&[0, 1, 2]) {
            let containers = engine.deal(&groups(&order)).unwrap();
            assert_eq!(&dealt(&containers), wanted, "{profile} on {platform}, v1 {v1}, {detach:?}");
            // Each of them can have the window that its groups come with.
            for container in &containers {
                let bytes = u64::from(platform.default_window(0).1);
                let spec = WindowSpec::new(bytes, PageShift::K4).levels(1);
                container.create_window(spec).unwrap();
            }
        }
        assert_eq!(engine.ledger().pages(), 0);
        assert_eq!(kernel.leftovers(), Default::default());
        assert_eq!(kernel.damage(), []);
    }
}
