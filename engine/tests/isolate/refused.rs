// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is told, and what is remembered, when a kernel refuses to map.

use tce_engine::addr::{Ioba, PageShift, Uaddr};
use tce_engine::backend::linux::mock_kernel::{Injection, MockKernel, Profile};
use tce_engine::backend::linux::{Linux, LinuxOptions};
use tce_engine::container::Mode;
use tce_engine::engine::{DetachPolicy, Engine, EngineOptions};
use tce_engine::error::{AttachError, LostError, MapError, UnregisterError};
use tce_engine::geometry::WindowSpec;
use tce_engine::tce::Perm;

use super::{A, B, BYTES, G0, G1, HOST, PAGE, Rig, SECOND};

/// Where another leaf of the kernel's begins.
const LEAF: u64 = 608 << 20;

/// Kernels whose tables grow forget a page that they have counted when they find no memory for a
/// level. Of the request's memory the engine then knows that some may stay, and takes no harm.
#[test]
fn all_memory_of_a_refused_request_is_in_doubt() {
    let after = Uaddr(A.0 + BYTES);
    for profile in [Profile::K4_12, Profile::K5_0, Profile::K6_4, Profile::K6_11] {
        // The page that finds no level is the last of one region, or the first of the other, which is
        // the first of the request or the second.
        for (at, memory, kept) in [
            (LEAF, Uaddr(after.0 - PAGE), A),
            (LEAF, after, after),
            (LEAF - PAGE, Uaddr(after.0 - PAGE), after),
        ] {
            println!("{profile}, {at:#x}, {memory}");
            let kernel = MockKernel::builder(1).profile(profile).try_build().unwrap();
            let linux = Linux::new(kernel.process(), LinuxOptions::default());
            let engine = Engine::new(linux, EngineOptions::default());
            let c = engine.container();
            c.attach(G0).unwrap();
            c.register(A, BYTES).unwrap();
            c.register(after, BYTES).unwrap();
            let spec = WindowSpec::new(1 << 30, PageShift::K4).levels(2);
            assert_eq!(c.create_window(spec).unwrap().start, Ioba(0));
            // What comes before has its leaf.
            let before = Ioba(LEAF - 2 * PAGE);
            c.map(before, A, PAGE, Perm::READ, Mode::Refuse).unwrap();
            c.unmap(before, PAGE).unwrap();
            // The first is of the kernel's own list of what is mapped.
            kernel.inject(Injection::Level { nth: 2 });
            let refused = c.map(Ioba(at), memory, 2 * PAGE, Perm::READ, Mode::Refuse);
            assert!(matches!(refused, Err(MapError::Backend(_))), "{refused:?}");
            for region in [A, after] {
                let wanted = Err(UnregisterError::Kept { start: region, bytes: BYTES });
                let wanted = if region == kept { wanted } else { Ok(()) };
                assert_eq!(c.unregister(region, BYTES), wanted);
            }
            c.close();
            // The kernel has it until the process ends, and so do the books.
            assert_eq!(engine.ledger().pages(), BYTES / HOST);
            assert_eq!(kernel.leftovers().pinned_pages, BYTES / HOST);
        }
    }
}

/// What is lost in all windows is one sum, from the first entry on.
#[test]
fn a_replay_that_fails_in_two_windows() {
    for profile in [Profile::K6_4, Profile::K6_11] {
        let mut rig = Rig::new(profile, DetachPolicy::Replay);
        rig.begin();
        assert_eq!(rig.c.create_window(rig.window()).unwrap().start, SECOND);
        rig.map(SECOND.0, A, 3);
        rig.c.attach(G1).unwrap();
        rig.flaky.refuse_maps(true);
        let lost = match rig.c.detach(G1) {
            Err(AttachError::Replay { group: G1, lost }) => lost,
            other => panic!("{other:?}"),
        };
        let LostError { first, entries, .. } = lost;
        assert_eq!((first, entries), (Ioba(0), 40 + 7 + 3));
        rig.flaky.refuse_maps(false);
        rig.model.clear();
        rig.check();
        assert_eq!(rig.c.groups(), [G0]);
    }
}

/// The second request of a call is refused: what the first has replaced is put back, and the call has
/// lost nothing.
#[test]
fn what_was_replaced_is_put_back() {
    for profile in [Profile::K6_4, Profile::K6_11] {
        let mut rig = Rig::new(profile, DetachPolicy::RefuseWhileShared);
        rig.begin();
        // Of two regions, and far from the first leaf, so two requests.
        let list = [A, B, Uaddr(B.0 + PAGE)];
        let at = Ioba(600 << 20);
        rig.flaky.fail(2);
        let refused = rig.c.map_list(at, &list, Perm::READ, Mode::Replace);
        assert!(matches!(refused, Err(MapError::Backend(_))), "{refused:?}");
        rig.check();
        rig.check_pages(at, 16);
    }
}

/// What nobody doubts is given back, even if the kernel has it locked still: for others of the process.
/// What lies behind a refused request is not in doubt.
#[test]
fn memory_that_others_use_is_given_back() {
    let after = Uaddr(A.0 + BYTES);
    for profile in [Profile::K4_12, Profile::K6_11] {
        let mut rig = Rig::new(profile, DetachPolicy::Isolate);
        rig.begin();
        rig.c.register(after, BYTES).unwrap();
        let other = Linux::new(rig.process.clone(), LinuxOptions::default());
        let other = Engine::new(other, EngineOptions::default());
        let c = other.container();
        c.attach(G1).unwrap();
        c.register(after, BYTES).unwrap();
        rig.flaky.fail(1);
        let (at, memory) = (Ioba(LEAF), Uaddr(after.0 - 2 * PAGE));
        let refused = rig.c.map(at, memory, 2 * PAGE, Perm::READ, Mode::Replace);
        assert!(matches!(refused, Err(MapError::Backend(_))), "{refused:?}");
        rig.c.unregister(after, BYTES).unwrap();
        assert_eq!(rig.process.region_counts(after), Some((0, 1)));
        c.close();
        assert_eq!(rig.process.region_counts(after), None);
        rig.check();
    }
}
