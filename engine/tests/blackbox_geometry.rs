// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Black-box cases A5–A7 (entries) and B1–B17 (shapes of tables), named after their ids.

use std::collections::BTreeSet;

use crate::common::*;
use proptest::prelude::*;
use tce_engine::addr::{Gra, Ioba, Liobn, PageShift, PeNumber, Uaddr};
use tce_engine::backend::mock::{Access, Fault, MockBuilder};
use tce_engine::container::Mode;
use tce_engine::error::{GeometryError, WindowError};
use tce_engine::geometry::{Geometry, WindowSpec};
use tce_engine::papr::{GuestMemory, HCode, Papr, PhbSpec};
use tce_engine::tce::{Perm, Tce};

const NO_LIMIT: u64 = u64::MAX;

fn shape(
    host: PageShift,
    size: u64,
    page_shift: u32,
    levels: u32,
) -> Result<Geometry, GeometryError> {
    Geometry::new(WindowSpec::new(size, page(page_shift)).levels(levels), host, NO_LIMIT)
}

fn k64(size: u64, page_shift: u32, levels: u32) -> Geometry {
    shape(PageShift::K64, size, page_shift, levels).unwrap()
}

fn too_many(result: Result<Geometry, GeometryError>) -> Option<u32> {
    match result {
        Err(GeometryError::TooManyBits { bits, .. }) => Some(bits),
        Ok(_) => None,
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn a5_bytes_of_a_read_write_entry() {
    let tce = Tce::new(0x1234_5678_0000, Perm::READ_WRITE);
    let expected = [0x00, 0x00, 0x12, 0x34, 0x56, 0x78, 0x00, 0x03];
    assert_eq!(tce.value().to_be_bytes(), expected);
    #[expect(clippy::host_endian_bytes, reason = "these are the bytes in memory, on any host")]
    let in_memory = tce.to_be_word().to_ne_bytes();
    assert_eq!(in_memory, expected);
    assert_eq!(tce.address(), 0x1234_5678_0000);
    assert_eq!(tce.perm(), Perm::READ_WRITE);
}

#[test]
fn a6_write_only_is_stored_as_both_and_remembered() {
    let rig = Rig::new(MockBuilder::new(1));
    let c = rig.container(&[G0]);
    c.create_window(WindowSpec::new(2 * G, PageShift::K4)).unwrap();
    c.register(Uaddr(G), 64 * K).unwrap();
    for (n, perm) in [(0u64, Perm::WRITE), (1, Perm::READ), (2, Perm::READ_WRITE)] {
        let at = Ioba(n << 12);
        c.map(at, Uaddr(G), 4 * K, perm, Mode::Refuse).unwrap();
        let (tce, requested) = c.requested(at).unwrap();
        let stored = if perm == Perm::READ { Perm::READ } else { Perm::READ_WRITE };
        assert_eq!((tce.perm(), requested), (stored, perm));
        assert_eq!(tce.value() & Tce::CONTROL_MASK, stored.bits());
        assert_eq!(reach(&rig.mock, 0, at), Some((G, stored)));
    }
    let read = rig.mock.translate(PeNumber(0), Ioba(0x123), Access::Read);
    assert!(read.is_ok(), "the table itself allows the read: {read:?}");
    let write = rig.mock.translate(PeNumber(0), Ioba(0x1123), Access::Write);
    assert_eq!(write, Err(Fault::Denied { perm: Perm::READ }));
    // The remembered permission goes with the mapping.
    c.unmap(Ioba(0), 12 * K).unwrap();
    assert_eq!(c.requested(Ioba(0)), Some((Tce::EMPTY, Perm::NONE)));
    c.map(Ioba(0), Uaddr(G), 4 * K, Perm::READ_WRITE, Mode::Refuse).unwrap();
    assert_eq!(c.requested(Ioba(0)).unwrap().1, Perm::READ_WRITE);
    assert_eq!(c.requested(Ioba(4 * T)), None);
}

struct NoMemory;

impl GuestMemory for NoMemory {
    fn copy_words(&self, _: Gra, _: &mut [u64]) -> bool {
        false
    }
}

#[test]
fn a7_poison_with_control_00_is_empty_accepted_and_faults() {
    const POISON: u64 = 0xffff_ffff_ffff_f000;
    assert!(Tce::from_value(POISON).is_empty());
    assert!(!Tce::from_value(1).is_empty() && !Tce::from_value(2).is_empty());
    let rig = Rig::new(MockBuilder::new(1));
    let papr = Papr::new(G);
    let window = WindowSpec::new(16 * M, PageShift::K4);
    papr.add_phb(&rig.engine, PhbSpec { buid: 1, group: G0, liobn: Liobn(0x10), window }).unwrap();
    assert_eq!(papr.put_tce(0x10, 0x5000, POISON).code, HCode::SUCCESS);
    assert_eq!(papr.get_tce(0x10, 0x5000), (HCode::SUCCESS, POISON));
    let fault = rig.mock.probe(PeNumber(0), Ioba(0x5000));
    assert_eq!(fault, Err(Fault::Empty { value: POISON }));
    let mapped = papr.with_container(1, |c| c.regions()[0].mapped);
    assert_eq!(mapped, Some(0), "poison maps nothing");
    assert_eq!(papr.put_tce_indirect(0x10, 0, 0, 1, &NoMemory).code, HCode::PARAMETER);
}

#[test]
fn b1_2g_4k_one_level() {
    let g = k64(2 * G, 12, 1);
    assert_eq!((g.entries(), g.block_bytes(), g.charge_pages()), (524_288, 4 * M, 128));
}

#[test]
fn b2_2g_4k_two_levels() {
    let g = k64(2 * G, 12, 2);
    assert_eq!((g.level_entries(), g.level_entries_lg2(), g.block_bytes()), (8192, 13, 64 * K));
    assert_eq!((g.address_bits(), g.charge_pages()), (38, 130));
}

#[test]
fn b3_small_window_grows_to_a_host_page_of_entries() {
    let g = k64(16 * M, 12, 1);
    assert_eq!((g.covered(), g.entries(), g.size()), (32 * M, 8192, 16 * M));
    assert_eq!(g.requested_entries(), 4096);
}

#[test]
fn b4_tiny_window_of_64k_pages() {
    assert_eq!(k64(M, 16, 1).covered(), 512 * M);
}

#[test]
fn b5_1t_of_1g_pages() {
    let g = k64(T, 30, 1);
    assert_eq!((g.entries(), g.covered(), g.charge_pages()), (8192, 8 * T, 2));
}

#[test]
fn b6_charges_of_1t() {
    assert_eq!((k64(T, 16, 1).charge_pages(), k64(T, 16, 2).charge_pages()), (4096, 4098));
}

#[test]
fn b8_b9_sizes_that_are_no_power_of_two() {
    for size in [3 * G, 0, 1 + G, u64::MAX] {
        let refused = shape(PageShift::K64, size, 12, 1).unwrap_err();
        assert_eq!(refused, GeometryError::NotPowerOfTwo { size });
        assert!(refused.to_string().contains(&format!("{size:#x}")), "{refused}");
    }
}

#[test]
fn b10_levels_0_and_6() {
    for host in [PageShift::K4, PageShift::K64] {
        for levels in [0, 6, u32::MAX] {
            let refused = shape(host, 2 * G, 12, levels);
            assert_eq!(refused, Err(GeometryError::Levels { levels }));
        }
    }
}

#[test]
fn b11_55_bits_are_too_many() {
    assert_eq!(too_many(shape(PageShift::K64, M, 16, 3)), Some(55));
}

#[test]
fn b12_three_levels_are_the_most_for_4k_on_64k() {
    assert_eq!(k64(2 * G, 12, 3).address_bits(), 51);
    assert_eq!(too_many(shape(PageShift::K64, 2 * G, 12, 4)), Some(64));
}

#[test]
fn b13_levels_of_1g_pages() {
    assert_eq!(too_many(shape(PageShift::K64, T, 30, 2)), Some(56));
    assert_eq!(shape(PageShift::K4, T, 30, 2).unwrap().address_bits(), 48);
    assert!(too_many(shape(PageShift::K4, T, 30, 3)).is_some());
}

#[test]
fn b14_window_smaller_than_a_page() {
    let refused = shape(PageShift::K64, 64 * K, 24, 1);
    assert_eq!(refused, Err(GeometryError::SmallerThanPage { size: 64 * K, page: PageShift::M16 }));
    let rig = Rig::new(MockBuilder::new(1));
    let c = rig.container(&[G0]);
    let e = c.create_window(WindowSpec::new(64 * K, PageShift::M16).levels(1)).unwrap_err();
    assert!(matches!(e, WindowError::Geometry(GeometryError::SmallerThanPage { .. })), "{e}");
    assert_eq!((rig.mock.leftovers(), rig.pages()), ((0, 0, 0), 0));
}

/// Blocks of a complete tree over the window's own entries, found by touching every leaf.
fn simulated_blocks(g: &Geometry) -> u64 {
    let bits = g.level_entries_lg2();
    let mut blocks = BTreeSet::new();
    for leaf in 0..g.requested_entries().div_ceil(g.level_entries()) {
        for level in 0..g.levels() {
            // A block is known by its level and by the index bits above it.
            blocks.insert((level, leaf >> (bits * level)));
        }
    }
    blocks.len() as u64
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn b16_charge_is_twice_a_complete_tree(
        host_64k: bool,
        shift in prop::sample::select(vec![12u32, 16, 21, 24, 28, 30]),
        entries_lg2 in 0u32..26,
        levels in 1u32..=5,
    ) {
        let host = if host_64k { PageShift::K64 } else { PageShift::K4 };
        // Touching every leaf has to stay possible.
        let window = 1u64 << (entries_lg2 + shift);
        let Ok(g) = shape(host, window, shift, levels) else {
            let per = entries_lg2.div_ceil(levels).max(host.get() - 3);
            prop_assert!(per * levels + shift >= 55);
            return Ok(());
        };
        prop_assert!(g.address_bits() < 55);
        prop_assert!(g.covered() >= window);
        prop_assert_eq!(g.covered(), g.entries() << shift);
        prop_assert!(g.level_entries().pow(levels) >= g.entries());
        prop_assert!(g.block_bytes() >= host.bytes());
        prop_assert_eq!(g.charge_pages() % 2, 0);
        prop_assert_eq!(g.charge_pages() << host.get(), g.charge());
        prop_assert_eq!(g.charge(), 2 * simulated_blocks(&g) * g.block_bytes());
        prop_assert_eq!(g.blocks(), simulated_blocks(&g));
    }
}

#[test]
fn b17_contiguous_limit() {
    let rig = Rig::new(MockBuilder::new(2));
    let c = rig.container(&[G0, G1]);
    let spec = WindowSpec::new(256 * G, PageShift::K64);
    let refused = c.create_window(spec.levels(1)).unwrap_err();
    let expected = GeometryError::BlockTooLarge { levels: 1, block: 32 * M, limit: 16 * M };
    assert_eq!(refused, WindowError::Geometry(expected));
    assert_eq!((rig.mock.leftovers(), rig.pages()), ((0, 0, 0), 0), "nothing was tried");
    assert_eq!(rig.engine.ledger().peak_pages(), 0, "nothing was charged, not even for a moment");
    let window = c.create_window(spec).unwrap();
    assert_eq!((window.start, window.geometry.levels()), (Ioba(0), 2));
    assert_eq!(rig.pages(), 1026);
    // The largest single level is still one.
    c.remove_window(Ioba(0), tce_engine::container::Removal::IfUnmapped).unwrap();
    let window = c.create_window(WindowSpec::new(128 * G, PageShift::K64)).unwrap();
    assert_eq!((window.geometry.levels(), rig.pages()), (1, 512));
}

/// `%g` of the script that made the golden file: six significant digits.
fn assert_close(value: u64, golden: &str, line: &str) {
    let golden = parse_size(golden);
    assert!((value as f64 - golden).abs() <= golden * 1e-5, "{value} is not {golden}: {line}");
}

#[test]
fn golden_every_line_of_geometry_sizes() {
    let text = include_str!("golden/geometry_sizes.txt");
    let mut host = None;
    let (mut shapes, mut refusals) = (0, 0);
    for line in text.lines() {
        if let Some(shift) = line.strip_prefix("system page shift ") {
            host = Some(page(shift.parse().unwrap()));
            continue;
        }
        let words: Vec<_> = line.split_whitespace().collect();
        let (shift, size) = (words[0].parse().unwrap(), parse_size(words[1]) as u64);
        let result = shape(host.unwrap(), size, shift, words[2].parse().unwrap());
        if let Some(bits) = words[3].strip_prefix("EINVAL(") {
            assert_eq!(too_many(result), Some(bits.parse().unwrap()), "{line}");
            refusals += 1;
            continue;
        }
        let g = result.unwrap_or_else(|e| panic!("{line}: {e}"));
        let field = |name: &str| {
            let found = words.iter().find_map(|w| w.strip_prefix(name)?.strip_prefix('='));
            found.unwrap_or_else(|| panic!("{name} in {line}"))
        };
        assert_close(g.requested_entries(), field("entries"), line);
        assert_close(g.entries(), field("it_size"), line);
        assert_close(g.covered(), field("covered"), line);
        assert_close(g.level_entries(), field("level"), line);
        let block = words.iter().find_map(|w| w.strip_prefix("entries/")).unwrap();
        assert_close(g.block_bytes(), block, line);
        assert_eq!(g.address_bits(), field("bits").parse::<u32>().unwrap(), "{line}");
        assert_close(g.charge(), field("charge"), line);
        assert_eq!(g.charge_pages(), field("pages").parse::<u64>().unwrap(), "{line}");
        shapes += 1;
    }
    assert_eq!(shapes + refusals + 2, text.lines().count());
    assert_eq!((shapes, refusals), (57, 43), "lines of each kind");
}

#[test]
fn every_page_size_on_both_hosts_has_the_documented_most_levels() {
    // §1.4: which level counts are possible for a window of 1 TiB.
    let most = |host, shift| (1..=5).filter(|l| shape(host, T, shift, *l).is_ok()).max();
    let hosts = [(PageShift::K64, [3, 2, 2, 2, 1]), (PageShift::K4, [4, 4, 3, 3, 2])];
    for (host, expected) in hosts {
        for (shift, levels) in [12, 16, 21, 24, 30].into_iter().zip(expected) {
            assert_eq!(most(host, shift), Some(levels), "{shift} on {host}");
        }
    }
}
