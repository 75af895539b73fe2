// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Devices that do not reach the whole bus: which window serves them, up to where, and addresses that
//! stay below.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::common::{G, G0, K, M, Rig, SECOND, T};
use tce_engine::addr::{DmaMask, Ioba, PageShift};
use tce_engine::backend::mock::MockBuilder;
use tce_engine::container::{Container, Mode};
use tce_engine::error::{IobaError, WindowError};
use tce_engine::geometry::WindowSpec;
use tce_engine::ioba::{IobaAllocator, IobaOptions, IobaSpace, MMIO_HOLE, Magazine};
use tce_engine::{Perm, Uaddr};

fn mask(bits: u32) -> DmaMask {
    DmaMask::new(bits).unwrap()
}

/// Where the window that serves the mask begins, and how much of it does.
fn served(c: &Container, bits: u32) -> Option<(Ioba, u64)> {
    let reach = c.window_for(mask(bits)).ok()?;
    Some((reach.window.start, reach.bytes))
}

#[test]
fn masks_have_1_to_64_bits() {
    assert_eq!((DmaMask::new(0), DmaMask::new(65)), (None, None));
    assert_eq!(mask(1).last(), Ioba(1));
    assert_eq!((mask(63).last(), DmaMask::ALL.last()), (Ioba(u64::MAX >> 1), Ioba(u64::MAX)));
    assert_eq!(mask(32).to_string(), "32 bits, up to 0xffffffff");
    // Whole pages, from the start on; nothing wraps at the end of the bus.
    let all = |bits: u32, start, bytes| mask(bits).pages(Ioba(start), bytes, PageShift::K64);
    assert_eq!((all(15, 0, G), all(16, 0, G), all(20, 0, G)), (0, 1, 16));
    assert_eq!((all(20, M - 64 * K, G), all(20, M, G)), (1, 0));
    assert_eq!((all(64, 0, u64::MAX), all(64, 1 << 63, 1 << 63)), ((1 << 48) - 1, 1 << 47));
}

#[test]
fn which_window_serves_a_mask_and_up_to_where() {
    let rig = Rig::new(MockBuilder::new(1));
    let c = rig.container(&[G0]);
    let none = c.window_for(DmaMask::ALL).unwrap_err();
    assert_eq!(none, WindowError::Mask { mask: DmaMask::ALL, windows: Vec::new() });
    assert!(none.to_string().ends_with("reaches no window: there is none"), "{none}");

    // The first window has 8 GiB, the second 1 TiB.
    c.create_window(WindowSpec::new(8 * G, PageShift::K64)).unwrap();
    let low = |bytes| Some((Ioba(0), bytes));
    let wanted =
        [(15, None), (16, low(64 * K)), (31, low(2 * G)), (32, low(4 * G)), (40, low(8 * G))];
    for (bits, wanted) in wanted.into_iter().chain([59, 60, 64].map(|bits| (bits, low(8 * G)))) {
        assert_eq!(served(&c, bits), wanted, "{bits} bits");
    }
    c.create_window(WindowSpec::new(T, PageShift::K64).levels(2)).unwrap();
    let both = [(31, low(2 * G)), (32, low(4 * G)), (40, low(8 * G)), (59, low(8 * G))];
    let high = Some((SECOND, T));
    for (bits, wanted) in both.into_iter().chain([60, 64].map(|bits| (bits, high))) {
        assert_eq!(served(&c, bits), wanted, "{bits} bits");
    }

    // Without the first, a mask has to reach the second.
    c.remove_window(Ioba(0), tce_engine::Removal::IfUnmapped).unwrap();
    for bits in [31, 32, 40, 59] {
        let e = c.window_for(mask(bits)).unwrap_err();
        assert_eq!(e, WindowError::Mask { mask: mask(bits), windows: vec![(SECOND, T)] });
        let text = e.to_string();
        let range = "0x800000000000000..0x800010000000000";
        assert!(text.contains(&format!("{bits} bits, up to")) && text.ends_with(range), "{text}");
    }
    assert_eq!((served(&c, 60), served(&c, 64)), (high, high));
}

#[test]
fn of_equal_windows_it_is_the_first() {
    let rig = Rig::new(MockBuilder::new(1));
    let c = rig.container(&[G0]);
    for start in [Ioba(0), SECOND] {
        assert_eq!(c.create_window(WindowSpec::new(G, PageShift::K64)).unwrap().start, start);
    }
    assert_eq!(served(&c, 64), Some((Ioba(0), G)));
}

/// A device of 32 bits maps through addresses that it reaches, in a window that goes further.
#[test]
fn a_narrow_device_beside_a_wide_one() {
    let rig = Rig::new(MockBuilder::new(1));
    let c = Arc::new(rig.container(&[G0]));
    c.register(Uaddr(T), M).unwrap();
    c.create_window(WindowSpec::new(8 * G, PageShift::K64)).unwrap();
    let (narrow, wide) = (mask(32), DmaMask::ALL);
    let whole = c.window_for(wide).unwrap().space();
    let allocator = IobaAllocator::new(whole, IobaOptions::default()).unwrap();
    // What lies low is taken, but for a little.
    allocator.reserve(Ioba(0), 2 * G - 128 * K).unwrap();
    let mut low = Magazine::below(&allocator, narrow).unwrap();
    let mut any = Magazine::new(&allocator);
    let high = any.take(40).unwrap();
    assert!(high.0 >= MMIO_HOLE.end, "a run that is too long for what is left below: {high}");
    let pages = [low.take_page().unwrap(), low.take_page().unwrap()];
    for at in pages {
        assert!(at.0 < 2 * G);
        let receipt = c.map(at, Uaddr(T), 64 * K, Perm::READ, Mode::Refuse).unwrap();
        assert_eq!(receipt.tces, 1);
    }
    let full = IobaError::BelowMask { pages: 1, align: 1, mask: narrow };
    assert_eq!(low.take_page(), Err(full.clone()));
    assert!(full.to_string().contains("within a mask of 32 bits, up to 0xffffffff"), "{full}");
    assert!(low.take(2).is_err());
    assert!(any.take_page().unwrap().0 >= MMIO_HOLE.end);
    // High pages that are given back here do not come out again here.
    low.give(high, 40);
    (0..40).for_each(|n| assert!(allocator.reserve(Ioba(high.0 + n * 64 * K), 64 * K).is_ok()));
    (0..40).for_each(|n| low.give_page(Ioba(high.0 + n * 64 * K)));
    assert!(low.take_page().is_err());
    c.unmap(pages[0], 64 * K).unwrap();
    low.give_page(pages[0]);
    assert_eq!(low.take_page(), Ok(pages[0]));
    c.unmap(pages[0], 64 * K).unwrap();
    c.unmap(pages[1], 64 * K).unwrap();
}

#[test]
fn every_page_below_the_mask_is_found_and_none_beyond() {
    // From a single page to several words of the bitmap; with the hole, from it, and beyond it.
    let spaces = [(0, 8 * G, PageShift::K64), (0, 4 * M, PageShift::K4), (M, 4 * M, PageShift::K4)];
    for (start, bytes, page) in spaces {
        for bits in [12, 13, 16, 17, 20, 21, 22, 23, 31, 32, 33, 40] {
            for own_line in [false, true] {
                let space = IobaSpace { start: Ioba(start), bytes, page };
                let allocator = IobaAllocator::new(space, IobaOptions { own_line }).unwrap();
                let usable = |at: u64| !MMIO_HOLE.contains(&at);
                let step = page.bytes() * if own_line { 16 } else { 1 };
                let ends = (start + bytes).min(1 << bits);
                let fits = |at: &u64| at + page.bytes() <= ends && usable(*at);
                let wanted: BTreeSet<u64> =
                    (start..ends).step_by(step as usize).filter(fits).collect();
                let mut magazine = match Magazine::below(&allocator, mask(bits)) {
                    Ok(magazine) => magazine,
                    Err(e) => {
                        assert!(wanted.is_empty(), "{bits} bits, {space:?}");
                        assert_eq!(
                            e,
                            IobaError::Mask { mask: mask(bits), start: Ioba(start), bytes }
                        );
                        continue;
                    }
                };
                let found: BTreeSet<u64> =
                    std::iter::from_fn(|| magazine.take_page().ok()).map(|at| at.0).collect();
                assert_eq!(found.len(), wanted.len(), "{bits} bits, {space:?}, {own_line}");
                assert!(found == wanted);
                // In runs as well.
                found.iter().for_each(|at| magazine.give_page(Ioba(*at)));
                magazine.flush();
                let mut pages = 0;
                let run = 3;
                while let Ok(at) = magazine.take(run) {
                    assert!(at.0 >= start && at.0 + run * page.bytes() <= ends);
                    pages += run;
                }
                if !own_line {
                    assert!(pages + 2 * run > found.len() as u64 || found.len() < 9);
                }
            }
        }
    }
}
