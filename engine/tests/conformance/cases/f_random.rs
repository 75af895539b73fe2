// SPDX-License-Identifier: Apache-2.0 OR MIT
//! F22: random sequences.

use tce_engine::{Container, Ioba, Removal};

use crate::case::{Case, Done, On, Zero, case};
use crate::ctx::{Ctx, Eng};

pub(crate) const CASES: &[Case] =
    &[case("F22", On::Both, "random sequences: locked memory is what the books say")
        .raw(f22_raw)
        .engine(f22_engine)];

/// A small generator; the sequences are the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// What the answers say is compared with what is locked.
fn f22_raw(cx: &mut Ctx) -> Done {
    let mut dice = Dice(22);
    let m = cx.memory(64)?;
    let cts = [cx.v2(&[0])?, cx.v2(&[1])?];
    // By container, where they have lists; else all by the first.
    let lists = cx.profile().lists_regions;
    let mut users: Vec<(u64, u64, [u64; 2])> = Vec::new();
    let mut windows: [Vec<(u64, i64)>; 2] = [Vec::new(), Vec::new()];
    for ct in &cts {
        ct.remove(0).zero("REMOVE")?;
    }
    let mut leaked = 0;
    for step in 0..200 {
        let who = dice.roll(2) as usize;
        let (from, pages) = (dice.roll(8) * 8, 1 + dice.roll(3) * 8);
        match dice.roll(4) {
            0 | 1 => {
                let fits = from + pages <= 64;
                if fits && cts[who].register(m.part(from, pages)) == Ok(0) {
                    match users.iter_mut().find(|u| (u.0, u.1) == (from, pages)) {
                        Some(user) if lists => user.2[who] = 1,
                        Some(user) => user.2[0] += 1,
                        None if lists && who == 1 => users.push((from, pages, [0, 1])),
                        None => users.push((from, pages, [1, 0])),
                    }
                }
            }
            2 => {
                if cts[who].unregister(m.part(from, pages)) == Ok(0)
                    && let Some(user) = users.iter_mut().find(|u| (u.0, u.1) == (from, pages))
                {
                    user.2[if lists { who } else { 0 }] -= 1;
                }
                users.retain(|user| user.2 != [0, 0]);
            }
            _ => {
                // Five levels of 64K pages cannot be on any host: that leaks.
                let levels = [1, 2, 5][dice.roll(3) as usize];
                let cost = cx.cost(1 << 30, 16, levels);
                let leak = cx.leak_of(1 << 30, 16, levels);
                let full = windows[who].len() == 2;
                match cts[who].create(1 << 30, 16, levels) {
                    (Ok(0), start) => windows[who].push((start, cost)),
                    _ if levels == 5 && !full => leaked += leak,
                    _ => {
                        if let Some((start, _)) = windows[who].pop() {
                            cts[who].remove(start).zero("REMOVE")?;
                        }
                    }
                }
            }
        }
        let regions: u64 = users.iter().map(|user| user.1).sum();
        let tables: i64 = windows.iter().flatten().map(|window| window.1).sum();
        cx.v(regions as i64 + tables + leaked);
        if let Ok(process) = cx.process() {
            let books = process.books();
            if books.sum() != books.locked {
                cx.says(&format!("step {step}"), format!("{books:?}"), "parts make the sum");
            }
        }
    }
    cx.leaks(leaked, 0);
    Ok(())
}

/// Every step compares the books.
fn f22_engine(cx: &mut Ctx) -> Done {
    let mut dice = Dice(23);
    let (m, base) = (cx.memory(64)?, cx.base());
    let all = [cx.windowed(&[0])?, cx.windowed(&[1])?];
    let mut done = 0u64;
    for _ in 0..400 {
        let c = &all[dice.roll(2) as usize];
        let part = m.part(dice.roll(8) * 8, 1 + dice.roll(3) * 8);
        let at = base + dice.roll(64) * cx.p();
        let ok = match dice.roll(8) {
            0 | 1 => c.reg(part).is_ok(),
            2 => c.unreg(part).is_ok(),
            3 => c.put(at, part).is_ok(),
            4 => c.replace(at, part).is_ok(),
            5 => c.take(at, part.bytes).is_ok(),
            6 => c.window(1 << 30, 16, 1 + dice.roll(5) as u32).is_ok(),
            _ => {
                let second = Ioba(1 << 59);
                c.remove_window(second, Removal::Force).is_ok()
            }
        };
        done += u64::from(ok);
        let live: u64 = c.regions().iter().map(|region| region.mapped).sum();
        let entries = c.map_count(base);
        cx.says("counts are the live entries", live == entries, "yes");
    }
    cx.says("some were done", done > 100, "yes");
    Ok(())
}

trait Live {
    fn map_count(&self, base: u64) -> u64;
}

impl Live for Container {
    /// Live entries, by looking at each.
    fn map_count(&self, base: u64) -> u64 {
        let Some(window) = self.windows().into_iter().find(|w| w.start.0 == 0) else { return 0 };
        let page = window.geometry.page().bytes();
        let live = |n: &u64| {
            let entry = self.requested(Ioba(base + n * page));
            entry.is_some_and(|(tce, _)| !tce.is_empty())
        };
        (0..128).filter(live).count() as u64
    }
}
