// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Those beside the hostile guest: another guest, and a driver of the process with memory of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tce_engine::Engine;
use tce_engine::Mock;
use tce_engine::addr::{GroupId, Ioba, Liobn, PageShift, PeNumber, Uaddr};
use tce_engine::container::{Container, Mode};
use tce_engine::geometry::WindowSpec;
use tce_engine::papr::{Compat, HCode, Papr, PhbSpec};
use tce_engine::tce::Perm;

use super::super::world::Wrong;
use super::RAM;

/// The other guest's LIOBNs.
pub(super) const LIOBNS: [u32; 2] = [0x9000_0000, 0x9000_0001];
const BUID: u64 = 0xb0;
const GUEST: (GroupId, PeNumber) = (GroupId(4), PeNumber(4));
const DRIVER: (GroupId, PeNumber) = (GroupId(5), PeNumber(5));
const MEMORY: Uaddr = Uaddr(0x7f00_0000_0000);
/// Pages of 64 KiB of each window, half of which are mapped and stay, and the last of which changes.
const PAGES: u64 = 256;
const PAGE: PageShift = PageShift::K64;

/// See the [module](self).
pub(super) struct Others {
    papr: Arc<Papr>,
    driver: Container,
}

/// The page that an entry leads to.
fn home(page: u64) -> u64 {
    (page * 7 % PAGES) << PAGE.get()
}

fn bus(page: u64) -> Ioba {
    Ioba(page << PAGE.get())
}

impl Others {
    /// What they cost, at most: a few pages of tables each, and the driver's memory.
    pub(super) const CHARGED: u64 = (PAGES << 16) + (4 << 20);

    pub(super) fn new(engine: &Engine, compat: Compat) -> Self {
        const READY: &str = "others like these can be made on each machine";
        let papr = Arc::new(Papr::new(RAM).compat(compat));
        let window = WindowSpec::new(PAGES << PAGE.get(), PAGE);
        let (buid, group, liobn) = (BUID, GUEST.0, Liobn(LIOBNS[0]));
        papr.add_phb(engine, PhbSpec { buid, group, liobn, window }).expect(READY);
        let driver = engine.container();
        driver.attach(DRIVER.0).expect(READY);
        driver.register(MEMORY, PAGES << PAGE.get()).expect(READY);
        driver.create_window(window).expect(READY);
        let others = Self { papr, driver };
        for page in (0..PAGES).step_by(2) {
            others.map(page).expect(READY);
        }
        others
    }

    /// Both map a page.
    fn map(&self, page: u64) -> Result<(), String> {
        let answer = self.papr.put_tce(LIOBNS[0].into(), bus(page).0, home(page) | 3);
        if answer.code != HCode::SUCCESS {
            return Err(format!("{:?}", answer.code));
        }
        let (memory, bytes) = (Uaddr(MEMORY.0 + home(page)), PAGE.bytes());
        let done = self.driver.map(bus(page), memory, bytes, Perm::READ_WRITE, Mode::Refuse);
        done.map(drop).map_err(|e| e.to_string())
    }

    fn unmap(&self, page: u64) -> Result<(), String> {
        let answer = self.papr.stuff_tce(LIOBNS[0].into(), bus(page).0, 0, 1);
        if answer.code != HCode::SUCCESS {
            return Err(format!("{:?}", answer.code));
        }
        self.driver.unmap(bus(page), PAGE.bytes()).map(drop).map_err(|e| e.to_string())
    }

    /// What both find at a page.
    fn find(&self, mock: &Mock, page: u64, mapped: bool) -> Result<(), Wrong> {
        for (pe, start) in [(GUEST.1, 0), (DRIVER.1, MEMORY.0)] {
            let found = mock.probe(pe, bus(page)).ok();
            let found = found.and_then(|found| mock.owner(found.at));
            let found = found.map(|(memory, offset)| memory.start() + offset);
            let expected = mapped.then(|| start + home(page));
            if found != expected {
                let what = format!("page {page} of PE {pe}, which is another's");
                let (expected, got) = (format!("{expected:x?}"), format!("{found:x?}"));
                return Err(Wrong::new(&what, &expected, &got));
            }
        }
        Ok(())
    }

    /// Goes on mapping and unmapping until it is to stop; how often.
    pub(super) fn live(&self, mock: &Mock, stop: &AtomicBool) -> Result<u64, Wrong> {
        let (page, mut turns) = (PAGES - 1, 0);
        let wrong = |e: String| Wrong::new("a call of another's", "is done", &e);
        loop {
            self.map(page).map_err(wrong)?;
            self.find(mock, page, true)?;
            self.unmap(page).map_err(wrong)?;
            self.find(mock, page, false)?;
            turns += 1;
            if stop.load(Ordering::Relaxed) {
                return Ok(turns);
            }
            thread::yield_now();
        }
    }

    /// All of their entries.
    pub(super) fn are_unchanged(&self, mock: &Mock) -> Result<(), Wrong> {
        for page in 0..PAGES {
            let mapped = page % 2 == 0;
            self.find(mock, page, mapped)?;
            let expected = if mapped { home(page) | 3 } else { 0 };
            let got = self.papr.get_tce(LIOBNS[0].into(), bus(page).0);
            if got != (HCode::SUCCESS, expected) {
                let what = format!("H_GET_TCE of page {page} of the other guest");
                return Err(Wrong::new(&what, &format!("{expected:#x}"), &format!("{got:x?}")));
            }
        }
        let windows = self.papr.windows();
        let mapped = |regions: Vec<tce_engine::RegionInfo>| regions.iter().map(|r| r.mapped).sum();
        let of_guest = self.papr.with_container(BUID, |c| mapped(c.regions())).unwrap_or(0u64);
        let counts = (windows.len(), of_guest, mapped(self.driver.regions()));
        if counts != (1, PAGES / 2, PAGES / 2) {
            let expected = format!("{:?}", (1, PAGES / 2, PAGES / 2));
            let what = "windows and mapped counts of the others";
            return Err(Wrong::new(what, &expected, &format!("{counts:?}")));
        }
        Ok(())
    }
}
