// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A virtual machine monitor with an emulated PHB: the guest edits its windows by hypercall, an
//! emulated device reaches the guest's memory through them.
//!
//! A real monitor calls [`Papr`] from its hypercall exits and its RTAS emulation; here the guest is
//! a list of calls as Linux makes them. The device sees bus addresses only, and the software PHB
//! translates each of its accesses. Mock: software PHB, not hardware.
//!
//! Run: `cargo run -p tce-engine --example vmm`

use std::error::Error;

use tce_engine::backend::mock::{Access, Fault};
use tce_engine::papr::Answer;
use tce_engine::{
    Engine, EngineOptions, Gra, GroupId, GuestMemory, HCode, Ioba, LIST_MAX, Liobn, Memory, Mock,
    MockBuilder, PageShift, Papr, PeNumber, PhbSpec, RtasStatus, Tce, WindowSpec,
};

const RAM: u64 = 64 << 20;
const PAGE: u64 = PageShift::K4.bytes();
/// Where the guest keeps the page for its H_PUT_TCE_INDIRECT lists.
const LIST: u64 = 0x30_0000;
const BUID: u64 = 0x8000_0002_0000_0000;
const LIOBN: u64 = 0x8000_0000;
const PE: PeNumber = PeNumber(0);

// The low bits of a TCE, as a guest writes them.
const READ: u64 = 1;
const WRITE: u64 = 2;

/// The guest's RAM, from its real address 0.
struct Ram(Vec<u8>);

impl Ram {
    fn at(&mut self, at: Gra, len: usize) -> &mut [u8] {
        &mut self.0[at.0 as usize..][..len]
    }

    /// The guest writes a list of TCEs, big-endian, into its list page.
    fn write_list(&mut self, tces: &[u64]) {
        for (bytes, tce) in self.at(Gra(LIST), 4096).chunks_exact_mut(8).zip(tces) {
            bytes.copy_from_slice(&tce.to_be_bytes());
        }
    }
}

impl GuestMemory for Ram {
    fn copy_words(&self, at: Gra, words: &mut [u64]) -> bool {
        let range = usize::try_from(at.0)
            .ok()
            .and_then(|start| Some(start..start.checked_add(words.len() * 8)?));
        let Some(bytes) = range.and_then(|range| self.0.get(range)) else { return false };
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            let value = bytes.iter().fold(0, |v, b| v << 8 | u64::from(*b));
            *word = Tce::from_value(value).to_be_word();
        }
        true
    }
}

/// One access of the emulated device. It must stay inside a page of the window.
fn dma<'a>(
    mock: &Mock,
    ram: &'a mut Ram,
    at: Ioba,
    len: usize,
    access: Access,
) -> Result<&'a mut [u8], Fault> {
    let there = mock.translate(PE, at, access)?;
    assert!(at.0 % there.page.bytes() + len as u64 <= there.page.bytes(), "crosses a page");
    match mock.owner(there.at) {
        Some((Memory::Guest { start, .. }, offset)) => Ok(ram.at(Gra(start.0 + offset), len)),
        _ => Err(Fault::NoMemory(there.at)),
    }
}

fn expect(what: &str, answer: Answer, code: HCode) {
    println!("{what:<58} {:?}", answer.code);
    assert_eq!(answer.code, code, "{what}");
}

fn main() -> Result<(), Box<dyn Error>> {
    let mock = MockBuilder::new(1).build();
    let engine = Engine::new(mock.clone(), EngineOptions::default());
    let mut ram = Ram(vec![0; RAM as usize]);
    println!("{mock:?}, guest with {} MiB of RAM", RAM >> 20);

    // Power on: a PHB with the default window of 1 GiB in 4 KiB pages.
    let papr = Papr::new(RAM);
    papr.add_phb(
        &engine,
        PhbSpec {
            buid: BUID,
            group: GroupId(0),
            liobn: Liobn(LIOBN as u32),
            window: WindowSpec::new(1 << 30, PageShift::K4),
        },
    )?;
    let (liobn, start, entries) = papr.windows()[0];
    println!("default window: LIOBN {liobn}, at {start}, {entries:#x} entries\n");

    // Linux clears the window first. Clearing what was never written makes no levels.
    for first in (0..entries).step_by(LIST_MAX) {
        let answer = papr.stuff_tce(LIOBN, first * PAGE, 0, LIST_MAX as u64);
        assert_eq!(answer.code, HCode::SUCCESS);
    }
    println!("H_STUFF_TCE over the whole window, {} calls", entries / LIST_MAX as u64);

    // One page, for the device to read.
    ram.at(Gra(0x1_0040), 5).copy_from_slice(b"hello");
    let answer = papr.put_tce(LIOBN, 0x5000, 0x1_0000 | READ);
    expect("H_PUT_TCE, device may read", answer, HCode::SUCCESS);
    assert_eq!(papr.get_tce(LIOBN, 0x5000), (HCode::SUCCESS, 0x1_0000 | READ));
    assert!(dma(&mock, &mut ram, Ioba(0x5040), 5, Access::Read).is_ok_and(|b| b == b"hello"));
    let denied = dma(&mock, &mut ram, Ioba(0x5040), 5, Access::Write);
    println!("  the device reads \"hello\"; a write gives {:?}", denied.unwrap_err());

    // A list: the device scatters a packet over pages that are no neighbours in the guest. An
    // entry for writing only stays that, and comes back as it was given.
    let pages = [0x40_0000, 0x11_0000, 0x2f_f000, 0x20_0000u64];
    ram.write_list(&pages.map(|page| page | WRITE));
    let answer = papr.put_tce_indirect(LIOBN, 0x8000, LIST, 4, &ram);
    expect("H_PUT_TCE_INDIRECT, 4 entries, device may write", answer, HCode::SUCCESS);
    for (n, page) in pages.into_iter().enumerate() {
        let at = Ioba(0x8000 + n as u64 * PAGE);
        let part = [n as u8 + 1; 64];
        dma(&mock, &mut ram, at, 64, Access::Write)
            .map_err(|f| format!("{at}: {f:?}"))?
            .copy_from_slice(&part);
        assert_eq!(ram.at(Gra(page), 64), part);
        assert_eq!(papr.get_tce(LIOBN, at.0), (HCode::SUCCESS, page | WRITE));
        assert!(dma(&mock, &mut ram, at, 1, Access::Read).is_err(), "write-only");
    }

    // All or nothing: the last entry of this list points behind the guest's RAM.
    ram.write_list(&[0x50_0000 | READ, 0x51_0000 | READ, RAM | READ]);
    let answer = papr.put_tce_indirect(LIOBN, 0x8000, LIST, 3, &ram);
    expect("H_PUT_TCE_INDIRECT, its last entry beyond RAM", answer, HCode::PARAMETER);
    assert_eq!(papr.get_tce(LIOBN, 0x8000), (HCode::SUCCESS, pages[0] | WRITE));
    let answer = papr.put_tce_indirect(LIOBN, 0x8000, LIST, 513, &ram);
    expect("H_PUT_TCE_INDIRECT, 513 entries", answer, HCode::PARAMETER);
    let answer = papr.put_tce(LIOBN, 1 << 30, READ);
    expect("H_PUT_TCE behind the window", answer, HCode::PARAMETER);

    // Gone, at once.
    let answer = papr.stuff_tce(LIOBN, 0x8000, 0, 4);
    expect("H_STUFF_TCE, 4 entries of 0", answer, HCode::SUCCESS);
    assert_eq!(answer.receipt.released, 4);
    let stale = dma(&mock, &mut ram, Ioba(0x8000), 64, Access::Write);
    assert_eq!(stale, Err(Fault::Empty { value: 0 }));
    println!("  the device faults; kills: {:?}\n", answer.receipt.kills);

    // A 64-bit window: the guest asks, creates one as large as its RAM, maps all of it once, and
    // makes no more calls for I/O.
    let rtas = |status: RtasStatus| format!("RTAS status {}", status.0);
    let query = papr.ddw_query(BUID).map_err(rtas)?;
    println!("ibm,query-pe-dma-window: {query:?}");
    assert_eq!(query.available, 1);
    let page = PageShift::K64;
    let shift = u64::from(RAM.trailing_zeros());
    let (liobn, start) = papr.ddw_create(BUID, u64::from(page.get()), shift).map_err(rtas)?;
    println!("ibm,create-pe-dma-window: LIOBN {liobn}, {page} pages at {start}");
    let liobn = u64::from(liobn.0);
    let tces: Vec<u64> =
        (0..RAM).step_by(page.bytes() as usize).map(|a| a | READ | WRITE).collect();
    for (n, list) in tces.chunks(LIST_MAX).enumerate() {
        ram.write_list(list);
        let ioba = start.0 + ((n * LIST_MAX) as u64 * page.bytes());
        let answer = papr.put_tce_indirect(liobn, ioba, LIST, list.len() as u64, &ram);
        assert_eq!(answer.code, HCode::SUCCESS);
    }
    println!("all of RAM mapped in {} calls", tces.len().div_ceil(LIST_MAX));
    for at in [0, 0x12_3456, RAM - 4] {
        dma(&mock, &mut ram, Ioba(start.0 + at), 4, Access::Write)
            .map_err(|f| format!("{at:#x}: {f:?}"))?
            .copy_from_slice(b"dma!");
        assert_eq!(ram.at(Gra(at), 4), b"dma!");
    }
    // The first window still works beside it.
    assert!(dma(&mock, &mut ram, Ioba(0x5040), 5, Access::Read).is_ok_and(|b| b == b"hello"));

    papr.ddw_remove(Liobn(liobn as u32)).map_err(rtas)?;
    let gone = dma(&mock, &mut ram, start, 4, Access::Read);
    assert_eq!(gone, Err(Fault::NoWindow { slot: 1 }));
    let answer = papr.put_tce(liobn, start.0, READ);
    expect("H_PUT_TCE into a window that was removed", answer, HCode::PARAMETER);

    // Power off.
    println!("\ncharged while it ran: {} pages at most", engine.ledger().peak_pages());
    drop(papr);
    assert_eq!(engine.ledger().pages(), 0);
    assert_eq!(mock.leftovers(), (0, 0, 0));
    println!("nothing pinned, charged or programmed at the end");
    Ok(())
}
