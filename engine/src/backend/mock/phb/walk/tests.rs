// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Many pages at once are what they are one by one.

use crate::addr::{GroupId, Ioba, PageShift, PeNumber, Uaddr};
use crate::backend::mock::{Fault, Mock, MockBuilder};
use crate::backend::{Backend, Memory, WindowProgram};
use crate::mem::{TableChunk, TableMemory};
use crate::platform::Platform;
use crate::sync::{Arc, Ordering};
use crate::tce::{Perm, Tce};

const MEMORY: Memory = Memory::User { start: Uaddr(0x10_0000_1000), bytes: 5 << 20 };
/// Entries of a block.
const BLOCK: u64 = 512;

/// A PE whose window has `levels` levels of 512 entries. One leaf in three is missing, one entry in
/// seven is empty, some lead to memory that is not pinned, and each permission is there.
fn mock(platform: Platform, levels: u32, page: PageShift) -> Arc<Mock> {
    let mock = MockBuilder::new(1).platform(platform).build();
    let block = |entry: &dyn Fn(u64) -> Tce| {
        let root = mock.reserve_table(8 * BLOCK).unwrap();
        let chunk = Arc::new(TableChunk::new(8 * BLOCK as usize).unwrap());
        for (slot, nth) in chunk.slots().iter().zip(0..) {
            slot.store(entry(nth).to_be_word(), Ordering::Relaxed);
        }
        mock.back_table(root, chunk).unwrap();
        root
    };
    let layout = mock.pin(MEMORY).unwrap();
    let leaf = |of: u64| {
        block(&|nth| {
            let number = of * BLOCK + nth;
            let (mask, offset) = (page.bytes() - 1, (number * 0x3000) % MEMORY.bytes());
            match number % 7 {
                0 => Tce::EMPTY,
                1 => Tce::new(0x7_0000_0000, Perm::READ),
                2 => Tce::new(layout.page_at(offset).0 & !mask, Perm::READ),
                3 => Tce::new(layout.page_at(offset).0 & !mask, Perm::WRITE),
                _ => Tce::new(layout.page_at(offset).0 & !mask, Perm::READ_WRITE),
            }
        })
    };
    let root = match levels {
        1 => leaf(0),
        _ => {
            let leaves = [0, 1, 2, 3].map(leaf);
            block(&|nth| match leaves.get(nth as usize) {
                Some(at) if nth % 3 != 2 => Tce::new(at.0, Perm::READ_WRITE),
                _ => Tce::EMPTY,
            })
        }
    };
    mock.take_ownership(GroupId(0)).unwrap();
    let window = WindowProgram { root, levels, block_bytes: 8 * BLOCK, page };
    mock.set_window(GroupId(0), 0, &window).unwrap();
    mock
}

/// Compares, and returns how many pages led to memory, and how many were refused.
fn compare(mock: &Mock, pe: PeNumber, (start, page, count): (u64, PageShift, u64)) -> (u64, u64) {
    let (mut next, mut found) = (0, (0, 0));
    mock.probe_pages(pe, (Ioba(start), page, count), &mut |nth, many| {
        assert_eq!(nth, next);
        next += 1;
        let one = mock.probe(pe, Ioba(start + (nth << page.get())));
        let one = one.map(|to| (to, mock.owner(to.at).expect("it was found")));
        assert_eq!(many, one, "{start:#x} and {nth} pages of {page:?}");
        *(if many.is_ok() { &mut found.0 } else { &mut found.1 }) += 1;
        true
    });
    assert_eq!(next, count);
    found
}

#[test]
fn many_pages_are_what_they_are_one_by_one() {
    let pe = PeNumber(0);
    for page in [PageShift::K4, PageShift::K64] {
        for levels in [1, 2] {
            let mock = mock(Platform::Phb3, levels, page);
            let all = BLOCK.pow(levels).min(5 * BLOCK);
            let bytes = page.bytes();
            let (found, refused) = compare(&mock, pe, (0, page, all));
            assert!(found > all / 3 && refused > all / 7, "{found} {refused}");
            for first in [1, 63, 64, 65, 511, 513, 1000].map(|first| first % all) {
                compare(&mock, pe, (first * bytes, page, 130.min(all - first)));
                // An address inside of each page.
                compare(&mock, pe, (first * bytes + 0x123, page, 130.min(all - first)));
            }
            // Beyond the window, and with steps that are not its pages.
            compare(&mock, pe, (BLOCK.pow(levels) * bytes - 70 * bytes, page, 140));
            compare(&mock, pe, (3 * bytes, PageShift::new(page.get() + 1).unwrap(), 200));
            compare(&mock, pe, (3 * bytes, PageShift::new(page.get() - 1).unwrap_or(page), 200));
        }
    }
}

#[test]
fn where_there_is_no_window_each_page_says_so() {
    let mock = mock(Platform::Phb3, 1, PageShift::K4);
    let second = 1 << 59;
    assert_eq!(compare(&mock, PeNumber(0), (second, PageShift::K4, 70)), (0, 70));
    assert_eq!(compare(&mock, PeNumber(7), (0, PageShift::K4, 70)), (0, 70));
    mock.unset_window(GroupId(0), 0);
    mock.release_ownership(GroupId(0));
    assert_eq!(compare(&mock, PeNumber(0), (0, PageShift::K4, 70)), (0, 70));
}

#[test]
fn a_segment_ends_where_it_ends() {
    let mock = mock(Platform::Ioda1, 1, PageShift::K4);
    let bytes = mock.group(GroupId(0)).unwrap().default_bytes;
    let mut faults = Vec::new();
    let many = (Ioba(bytes - (3 << 12)), PageShift::K4, 6);
    mock.probe_pages(PeNumber(0), many, &mut |_, got| {
        faults.push(matches!(got, Err(Fault::BadAddress(_))));
        true
    });
    assert_eq!(faults, [false, false, false, true, true, true]);
    compare(&mock, PeNumber(0), (0, PageShift::K4, BLOCK));
    compare(&mock, PeNumber(0), (bytes - (70 << 12), PageShift::K4, 140));
}

#[test]
fn who_has_heard_enough_is_told_no_more() {
    let mock = mock(Platform::Phb3, 2, PageShift::K4);
    for last in [0, 1, 63, 64, 1023, 1024, 1500] {
        let mut heard = 0;
        mock.probe_pages(PeNumber(0), (Ioba(0), PageShift::K4, 2000), &mut |nth, _| {
            heard += 1;
            nth < last
        });
        assert_eq!(heard, last + 1);
    }
}
