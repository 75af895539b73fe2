// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The software PHB as each of the platforms: what its groups can share, where their windows lie, and
//! what the engine kills.

use crate::common::{G, G0, G1, G2, M, Rig, SECOND};
use tce_engine::addr::{GroupId, Ioba, PageShift, PeNumber, Uaddr};
use tce_engine::backend::mock::{Access, Fault, MockBuilder, MockError, MockEvent};
use tce_engine::backend::{KillCaps, KillScope};
use tce_engine::container::{Container, Mode, Removal};
use tce_engine::error::{AttachError, WindowError};
use tce_engine::geometry::WindowSpec;
use tce_engine::platform::Platform;
use tce_engine::tce::Perm;

const MEMORY: Uaddr = Uaddr(0x7000_0000_0000);
const PAGE: u64 = 4096;

fn mock(platform: Platform) -> MockBuilder {
    MockBuilder::new(3).platform(platform).record(true)
}

/// All that there can be a software PHB of.
fn simulated() -> impl Iterator<Item = Platform> {
    Platform::ALL.into_iter().filter(|platform| *platform != Platform::Pseries)
}

fn window(container: &Container, platform: Platform) -> Ioba {
    container.register(MEMORY, 16 * M).unwrap();
    let (_, bytes) = platform.default_window(0);
    container.create_window(WindowSpec::new(bytes.into(), PageShift::K4)).unwrap().start
}

fn map(container: &Container, at: Ioba, pages: u64) {
    container.map(at, MEMORY, pages * PAGE, Perm::READ_WRITE, Mode::Refuse).unwrap();
}

#[test]
fn every_platform_maps_and_does_dma() {
    for platform in simulated() {
        let rig = Rig::new(mock(platform));
        assert_eq!(rig.mock.platform(), platform);
        for n in 0..3 {
            let c = rig.container(&[GroupId(n)]);
            let start = window(&c, platform);
            assert_eq!(start, Ioba(platform.default_window(n).0.into()), "{platform}");
            map(&c, Ioba(start.0 + PAGE), 2);
            let pe = PeNumber(n as u16);
            let found = rig.mock.dma(pe, Ioba(start.0 + 2 * PAGE + 5), Access::Write).unwrap();
            assert_eq!(rig.mock.owner(found.at).unwrap().1, PAGE + 5);
            c.unmap(start, 8 * PAGE).unwrap();
            assert!(rig.mock.dma(pe, Ioba(start.0 + PAGE), Access::Read).is_err(), "{platform}");
            let removed = c.remove_window(start, Removal::IfUnmapped);
            assert!(removed.is_ok(), "{platform}");
        }
    }
}

#[test]
fn a_group_shares_a_table_where_hardware_can() {
    for platform in simulated() {
        let rig = Rig::new(mock(platform));
        let c = rig.container(&[G0]);
        let joined = c.attach(G1);
        if platform.shares_tables() {
            joined.unwrap();
            let start = window(&c, platform);
            map(&c, start, 1);
            for pe in [PeNumber(0), PeNumber(1)] {
                assert!(rig.mock.dma(pe, start, Access::Read).is_ok(), "{platform}");
            }
            let caps = c.caps().unwrap();
            assert_eq!(caps.window_starts, [Some(Ioba(0)), Some(SECOND)]);
        } else {
            let refused = joined.unwrap_err();
            assert!(matches!(refused, AttachError::Incompatible { .. }), "{platform}: {refused}");
            let caps = c.caps().unwrap();
            assert_eq!((caps.window_starts[1], caps.max_levels), (None, 1), "{platform}");
            // The one table of its own, and no other.
            window(&c, platform);
            let other = c.create_window(WindowSpec::new(64 * M, PageShift::K4));
            assert!(matches!(other, Err(WindowError::NoSlot(1))), "{platform}: {other:?}");
        }
    }
}

#[test]
fn g2_segments_of_ioda1_are_each_groups_own() {
    let rig = Rig::new(mock(Platform::Ioda1));
    let all = [G0, G1, G2].map(|group| (rig.container(&[group]), PeNumber(group.0 as u16)));
    for (c, _) in &all {
        let start = window(c, Platform::Ioda1);
        map(c, start, 16);
    }
    for (at, (c, _)) in all.iter().enumerate() {
        let start = c.windows()[0].start;
        for (nth, (_, pe)) in all.iter().enumerate() {
            let there = rig.mock.translate(*pe, Ioba(start.0 + PAGE), Access::Read);
            if nth == at {
                assert_eq!(rig.mock.owner(there.unwrap().at).unwrap().1, PAGE);
            } else {
                assert_eq!(there, Err(Fault::BadAddress(Ioba(start.0 + PAGE))));
            }
        }
    }
    // The last address of the first, and what is behind it.
    let c = &all[0].0;
    map(c, Ioba((256 << 20) - PAGE), 1);
    assert!(rig.mock.dma(PeNumber(0), Ioba((256 << 20) - 1), Access::Read).is_ok());
    let beyond = rig.mock.dma(PeNumber(0), Ioba(256 << 20), Access::Read);
    assert_eq!(beyond, Err(Fault::BadAddress(Ioba(256 << 20))));
}

#[test]
fn g2_a_window_larger_than_its_segment_is_refused() {
    for (platform, bytes) in [(Platform::Ioda1, 512 * M), (Platform::P5ioc2, 4 * G)] {
        let rig = Rig::new(mock(platform));
        let c = rig.container(&[G1]);
        let error = c.create_window(WindowSpec::new(bytes, PageShift::K4)).unwrap_err();
        let (text, most) = (error.to_string(), bytes / 2);
        assert!(text.contains(&format!("whose part of the bus has {most:#x}")), "{text}");
        assert_eq!((c.windows().len(), rig.pages()), (0, 0));
    }
}

#[test]
fn machines_that_cannot_be_are_refused() {
    let guest = MockBuilder::new(1).platform(Platform::Pseries).try_build().unwrap_err();
    assert!(matches!(guest, MockError::Guest { .. }));
    assert!(guest.to_string().contains("the mock kernel simulates one"), "{guest}");
    let groups = MockBuilder::new(9).platform(Platform::Ioda1).try_build().unwrap_err();
    assert_eq!(groups.to_string(), "9 groups on ioda1, which has at most 8");
    assert!(
        MockBuilder::new(257).try_build().is_err() && MockBuilder::new(256).try_build().is_ok()
    );
    for (groups, phbs, possible) in
        [(2, 0, false), (2, 2, true), (2, 3, false), (0, 1, true), (0, 2, false)]
    {
        let built = MockBuilder::new(groups).phbs(phbs).try_build();
        assert_eq!(built.is_ok(), possible, "{groups} groups, {phbs} PHBs: {built:?}");
    }
}

/// The kills of PEs 0 and 1 among the events, by what they are: pages, PEs, all.
fn kills(rig: &Rig) -> [usize; 3] {
    let events = rig.mock.take_events();
    let count = |bit: u64| {
        let of = |e: &&MockEvent| matches!(e, MockEvent::Kill(_, word) if word >> 61 == bit);
        events.iter().filter(of).count()
    };
    [count(1), count(2), count(4)]
}

#[test]
fn what_is_killed_is_what_the_platform_can_kill() {
    for platform in simulated().filter(|platform| platform.shares_tables()) {
        let rig = Rig::new(mock(platform));
        let c = std::sync::Arc::new(rig.container(&[G0, G1]));
        let start = window(&c, platform);
        rig.forget_events();
        let mut mapper = c.mapper();
        let caps = KillCaps::of(platform);
        // What one of two members' kills is for 1, 127, 128 and 129 pages.
        let expected: [[usize; 3]; 4] = match platform {
            Platform::Phb3 => [[1, 0, 0], [127, 0, 0], [128, 0, 0], [0, 1, 0]],
            Platform::Phb4 | Platform::Phb5 => [[0, 1, 0]; 4],
            Platform::Npu2 => [[1, 0, 0], [127, 0, 0], [0, 0, 1], [0, 0, 1]],
            other => unreachable!("{other} shares no table"),
        };
        for (pages, one) in [1, 127, 128, 129].into_iter().zip(expected) {
            let both = one.map(|kills| 2 * kills);
            map(&c, start, pages);
            assert_eq!(kills(&rig), both, "{platform}: filling {pages}");
            let receipt = c.unmap(start, pages * PAGE).unwrap();
            assert_eq!(kills(&rig), both, "{platform}: clearing {pages}");
            assert_eq!(receipt.kills.issued, both.iter().sum::<usize>() as u64);
            for _ in 0..3 {
                // From the second time on by what the handle remembers.
                mapper.map(start, MEMORY, pages * PAGE, Perm::READ, Mode::Refuse).unwrap();
                assert_eq!(kills(&rig), both, "{platform}: a handle fills {pages}");
                mapper.unmap(start, pages * PAGE).unwrap();
                assert_eq!(kills(&rig), both, "{platform}: a handle clears {pages}");
            }
        }
        let whole = if caps.pe_scope { [0, 1, 0] } else { [0, 0, 1] };
        assert_eq!(caps.whole(), if caps.pe_scope { KillScope::Pe } else { KillScope::All });
        c.attach(G2).unwrap();
        assert_eq!(kills(&rig), whole, "{platform}: a PE joins");
        c.detach(G2).unwrap();
        assert_eq!(kills(&rig), whole, "{platform}: and leaves");
        c.create_window(WindowSpec::new(64 * M, PageShift::K64)).unwrap();
        assert_eq!(kills(&rig), whole.map(|kills| 2 * kills), "{platform}: a window more");
    }
}

/// A kill of everything would let another member cache again what it still has.
#[test]
fn a_window_is_unset_in_all_members_before_any_is_killed() {
    for platform in [Platform::Phb3, Platform::Npu2] {
        let rig = Rig::new(mock(platform));
        let c = rig.container(&[G0, G1, G2]);
        let start = window(&c, platform);
        let second = c.create_window(WindowSpec::new(64 * M, PageShift::K64)).unwrap();
        assert_eq!(second.start, SECOND);
        rig.forget_events();
        for start in [start, second.start] {
            c.remove_window(start, Removal::IfUnmapped).unwrap();
            let events = rig.mock.take_events();
            let is_unset = |e: &MockEvent| matches!(e, MockEvent::UnsetWindow(..));
            let is_kill = |e: &MockEvent| matches!(e, MockEvent::Kill(..));
            let (unsets, after) = events.split_at(3);
            assert!(unsets.iter().all(is_unset), "{platform}: {events:?}");
            assert!(after[..3].iter().all(is_kill), "{platform}: {events:?}");
            assert_eq!(after[3..], [MockEvent::Fence], "{platform}");
        }
    }
}
