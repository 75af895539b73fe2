// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How long released pages stay reachable: known on request, and bounded below by what the fence takes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::common::{G, G0, M, Rig};
use tce_engine::addr::{Ioba, PageShift, Uaddr};
use tce_engine::backend::mock::{KillCost, MockBuilder};
use tce_engine::container::{Container, MapRequest, Mode, UnmapRequest};
use tce_engine::engine::EngineOptions;
use tce_engine::geometry::WindowSpec;
use tce_engine::tce::Perm;

const MEMORY: Uaddr = Uaddr(0x10_0000_0000);
const PAGE: u64 = 4096;
const RW: Perm = Perm::READ_WRITE;
/// A fence takes so long.
const FENCE: Duration = Duration::from_micros(300);

fn rig(measure_exposure: bool) -> Rig {
    let fence_ns = FENCE.as_nanos() as u64;
    let cost = KillCost { store_ns: 0, fence_ns, refill_ns: 0 };
    let options = EngineOptions { measure_exposure, ..EngineOptions::default() };
    Rig::with(MockBuilder::new(1).kill_cost(cost), options)
}

fn container(rig: &Rig) -> (Arc<Container>, Ioba) {
    let container = Arc::new(rig.container(&[G0]));
    container.register(MEMORY, 16 * M).unwrap();
    let window = container.create_window(WindowSpec::new(G, PageShift::K4)).unwrap();
    (container, window.start)
}

#[test]
fn every_way_to_release_a_page_is_measured_and_nothing_else() {
    let rig = rig(true);
    let (container, start) = container(&rig);
    let exposure = || rig.engine.take_exposure().unwrap();
    let page = |n: u64| Ioba(start.0 + n * PAGE);
    let mut mapper = container.mapper();
    // Most of the wait, less what reading the clock adds, and no more than the call itself.
    let measured = |what: &str, call: &mut dyn FnMut()| {
        let begin = Instant::now();
        call();
        let (took, exposed) = (begin.elapsed(), exposure());
        assert!(exposed >= FENCE * 9 / 10 && exposed <= took, "{what}: {exposed:?} of {took:?}");
        assert_eq!(exposure(), Duration::ZERO, "{what}: once only");
    };
    assert_eq!(exposure(), Duration::ZERO, "nothing was mapped yet");
    container.map(start, MEMORY, 64 * PAGE, RW, Mode::Refuse).unwrap();
    mapper.map(page(64), MEMORY, PAGE, RW, Mode::Refuse).unwrap();
    assert_eq!(exposure(), Duration::ZERO, "a fill releases nothing");
    let call = || mapper.unmap(page(64), PAGE).map(drop).unwrap();
    measured("a page by a handle", &mut { call });
    for _ in 0..3 {
        mapper.map(page(64), MEMORY, PAGE, RW, Mode::Refuse).unwrap();
        measured("again", &mut || mapper.unmap(page(64), PAGE).map(drop).unwrap());
    }
    measured("a page", &mut || container.unmap(page(63), PAGE).map(drop).unwrap());
    assert_eq!(container.unmap(page(63), PAGE).unwrap().released, 0);
    assert_eq!(exposure(), Duration::ZERO, "it was not mapped");
    measured("a replaced page", &mut || {
        container.map(page(0), MEMORY, PAGE, RW, Mode::Replace).map(drop).unwrap();
    });
    measured("a replaced range", &mut || {
        container.map(page(0), MEMORY, 64 * PAGE, RW, Mode::Replace).map(drop).unwrap();
    });
    measured("a range", &mut || container.unmap(page(0), 16 * PAGE).map(drop).unwrap());
    let requests =
        [UnmapRequest { at: page(16), bytes: PAGE }, UnmapRequest { at: page(20), bytes: PAGE }];
    measured("a batch", &mut || container.unmap_batch(&requests).map(drop).unwrap());
    let map = [MapRequest { at: page(22), memory: MEMORY, bytes: PAGE, perm: RW }];
    measured("a replacing batch", &mut || {
        container.map_batch(&map, Mode::Replace).map(drop).unwrap();
    });
    let list = [MEMORY, Uaddr(MEMORY.0 + PAGE)];
    measured("a replacing list", &mut || {
        container.map_list(page(30), &list, RW, Mode::Replace).map(drop).unwrap();
    });
    drop(mapper);
    measured("closing", &mut || container.close());
}

#[test]
fn it_is_unknown_unless_asked_for() {
    let rig = rig(false);
    let (container, start) = container(&rig);
    container.map(start, MEMORY, 4 * PAGE, RW, Mode::Refuse).unwrap();
    container.unmap(start, 4 * PAGE).unwrap();
    assert_eq!(rig.engine.take_exposure(), None);
    container.close();
}
