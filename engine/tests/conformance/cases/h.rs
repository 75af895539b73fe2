// SPDX-License-Identifier: Apache-2.0 OR MIT
//! H: MAP and UNMAP.

use std::sync::atomic::{AtomicBool, Ordering};

use tce_engine::backend::linux::mock_kernel::Profile;
use tce_engine::backend::linux::uapi::Request;
use tce_engine::container::{MapRequest, Mode, Removal};
use tce_engine::tce::Perm;
use tce_engine::{Ioba, Uaddr};

use crate::case::{Case, Done, Must, On, Stop, Zero, case};
use crate::ctx::{Ct, Ctx, Eng, G, K, RW, SECOND, refused};
use crate::rig::Mem;

pub(crate) const CASES: &[Case] = &[
    case("H1", On::Both, "MAP without any REGISTER").raw(h1_raw).engine(h1_engine),
    case("H2", On::Both, "a bus address outside the windows").raw(h2_raw).engine(h2_engine),
    case("H3", On::Both, "size or memory off a page").raw(h3_raw).engine(h3_engine),
    case("H4", On::Both, "a bus address off a page")
        .raw(h4_raw)
        .engine(h4_engine)
        .instead("an error before anything is sent; an answer of +1 would be one too"),
    case("H5", On::Both, "flags 0, 4, 8").raw(h5_raw).engine(h5_engine),
    case("H8", On::Mock, "MAP past the window's end, one level")
        .raw(h8_raw)
        .engine(h8_engine)
        .instead("a range that does not end inside its window is refused"),
    case("H10", On::Both, "a range across two adjacent regions").raw(h10_raw).engine(h10_engine),
    case("H11", On::Both, "a page between the regions is not registered")
        .raw(h11_raw)
        .engine(h11_engine),
    case("H14", On::Both, "MAP over a mapping, from another region")
        .raw(h14_raw)
        .engine(h14_engine)
        .instead("refuses unless replacement was asked for"),
    case("H15", On::Both, "replacing 8 pages, failing at the 5th")
        .raw(h15_raw)
        .engine(h15_engine)
        .instead("checks the memory first; if the kernel fails all the same, what it dropped is mapped again"),
    case("H18", On::Both, "UNMAP of the middle third").raw(h18_raw).engine(h18_engine),
    case("H23", On::Both, "1 GiB of batches of 512, one bad page in the third")
        .raw(h23_raw)
        .engine(h23_engine),
    case("H24", On::Both, "maps beside removals and registrations, by threads").engine(h24_engine),
];

/// A container with its window, and registered memory.
pub(super) fn ready(cx: &mut Ctx, pages: u64) -> Result<(Ct, Mem, u64), Stop> {
    let c = cx.v2(&[0])?;
    let m = cx.memory(pages)?;
    c.w1()?;
    c.register(m).zero("REGISTER")?;
    Ok((c, m, cx.base()))
}

fn h1_raw(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    let (m, base) = (cx.memory(1)?, cx.base());
    c.w1()?;
    cx.says("MAP", c.put(base, m), "EPERM");
    Ok(())
}

fn h1_engine(cx: &mut Ctx) -> Done {
    let c = cx.windowed(&[0])?;
    let (m, base) = (cx.memory(1)?, cx.base());
    refused!(cx, "map", c.put(base, m), "NotRegistered");
    Ok(())
}

fn h2_raw(cx: &mut Ctx) -> Done {
    let (c, m, base) = ready(cx, 1)?;
    for at in [G, 2 * G, SECOND + base, cx.p().wrapping_neg()] {
        cx.says("MAP", c.put(at, m), "ENXIO");
        cx.says("UNMAP", c.take(at, m.bytes), "ENXIO");
    }
    Ok(())
}

fn h2_engine(cx: &mut Ctx) -> Done {
    let c = cx.windowed(&[0])?;
    let (m, base) = (cx.memory(1)?, cx.base());
    c.reg(m).must("register")?;
    for at in [G, 2 * G, SECOND + base, cx.p().wrapping_neg()] {
        refused!(cx, "map", c.put(at, m), "OutsideWindows");
        refused!(cx, "unmap", c.take(at, m.bytes), "OutsideWindows");
    }
    Ok(())
}

fn h3_raw(cx: &mut Ctx) -> Done {
    let (c, m, base) = ready(cx, 4)?;
    let page = cx.p();
    cx.says("size + 1", c.put(base, m.bytes(0, page + 1)), "EINVAL");
    cx.says("half a page", c.put(base, m.bytes(0, page / 2)), "EINVAL");
    cx.says("memory + 1", c.put(base, m.bytes(1, page)), "EINVAL");
    cx.says("memory + half", c.put(base, m.bytes(page / 2, page)), "EINVAL");
    cx.says("UNMAP size + 1", c.take(base, page + 1), "EINVAL");
    Ok(())
}

fn h3_engine(cx: &mut Ctx) -> Done {
    let c = cx.windowed(&[0])?;
    let (m, base, page) = (cx.memory(4)?, cx.base(), cx.p());
    c.reg(m).must("register")?;
    refused!(cx, "size + 1", c.put(base, m.bytes(0, page + 1)), "Unaligned");
    refused!(cx, "half a page", c.put(base, m.bytes(0, page / 2)), "Unaligned");
    refused!(cx, "memory + 1", c.put(base, m.bytes(1, page)), "Unaligned");
    refused!(cx, "memory + half", c.put(base, m.bytes(page / 2, page)), "Unaligned");
    refused!(cx, "unmap size + 1", c.take(base, page + 1), "Unaligned");
    Ok(())
}

fn h4_raw(cx: &mut Ctx) -> Done {
    let (c, m, base) = ready(cx, 1)?;
    for off in [1, 2 * K, cx.p() / 2] {
        let answer = cx.by(Profile::K4_12, "+1", "EINVAL");
        cx.says("MAP", c.put(base + off, m), answer);
        cx.says("UNMAP", c.take(base + off, m.bytes), answer);
    }
    // Nothing was mapped: else the region would stay, and a view would have been made.
    cx.afresh = cx.spy.sent().len();
    cx.says("UNREGISTER", c.unregister(m), "0");
    cx.v(cx.w1_cost());
    Ok(())
}

fn h4_engine(cx: &mut Ctx) -> Done {
    let c = cx.windowed(&[0])?;
    let (m, base) = (cx.memory(1)?, cx.base());
    c.reg(m).must("register")?;
    for off in [1, 2 * K, cx.p() / 2] {
        refused!(cx, "map", c.put(base + off, m), "Unaligned");
        refused!(cx, "unmap", c.take(base + off, m.bytes), "Unaligned");
    }
    cx.says("live", c.mapped(m), "0");
    Ok(())
}

fn h5_raw(cx: &mut Ctx) -> Done {
    let (c, m, base) = ready(cx, 1)?;
    for flags in [0, 4, 7, 8] {
        cx.says(&format!("flags {flags}"), c.map(flags, base, m.at, m.bytes), "EINVAL");
    }
    Ok(())
}

/// Its permissions can only be reading and writing.
fn h5_engine(cx: &mut Ctx) -> Done {
    let c = cx.windowed(&[0])?;
    let (m, base) = (cx.memory(1)?, cx.base());
    c.reg(m).must("register")?;
    let none = c.map(Ioba(base), Uaddr(m.at), m.bytes, Perm::NONE, Mode::Refuse);
    refused!(cx, "no permission", none, "Nothing");
    Ok(())
}

fn h8_raw(cx: &mut Ctx) -> Done {
    let (c, m, _) = ready(cx, 2)?;
    cx.says("MAP", c.put(G - cx.p(), m), "0");
    cx.damages("oob")?;
    if !cx.since(Profile::K4_12) {
        cx.says("UNMAP past the end", c.take(G - cx.p(), m.bytes), "EINVAL");
        // What is behind the table stays there, and counted.
        cx.leaks(2, 2);
        return Ok(());
    }
    cx.says("UNMAP past the end", c.take(G - cx.p(), m.bytes), "0");
    cx.damages("oob")
}

fn h8_engine(cx: &mut Ctx) -> Done {
    let c = cx.windowed(&[0])?;
    let m = cx.memory(2)?;
    c.reg(m).must("register")?;
    refused!(cx, "map", c.put(G - cx.p(), m), "OutsideWindows");
    refused!(cx, "unmap", c.take(G - cx.p(), m.bytes), "OutsideWindows");
    cx.says("map of the last page", c.put(G - cx.p(), m.part(0, 1)), "ok");
    Ok(())
}

fn h10_raw(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    let (m, base) = (cx.memory(8)?, cx.base());
    let (a, b) = (m.part(0, 4), m.part(4, 4));
    c.w1()?;
    c.register(a).zero("REGISTER")?;
    c.register(b).zero("REGISTER")?;
    cx.says("MAP", c.put(base, m.part(2, 5)), "0");
    if let Ok(process) = cx.process() {
        let counts = [a, b].map(|m| process.region_counts(m.uaddr()).map(|counts| counts.0));
        cx.says("counts", format!("{counts:?}"), "[Some(2), Some(3)]");
    }
    cx.says("UNMAP", c.take(base, 5 * cx.p()), "0");
    cx.says("UNREGISTER", c.unregister(a), "0");
    cx.says("UNREGISTER", c.unregister(b), "0");
    cx.v(cx.w1_cost());
    Ok(())
}

fn h10_engine(cx: &mut Ctx) -> Done {
    let c = cx.windowed(&[0])?;
    let (m, base) = (cx.memory(8)?, cx.base());
    let (a, b) = (m.part(0, 4), m.part(4, 4));
    c.reg(a).must("register")?;
    c.reg(b).must("register")?;
    cx.says("map", c.put(base, m.part(2, 5)), "ok");
    cx.says("counts", format!("{:?}", [c.mapped(a), c.mapped(b)]), "[2, 3]");
    cx.says("unmap", c.take(base, 5 * cx.p()), "ok");
    cx.says("counts", format!("{:?}", [c.mapped(a), c.mapped(b)]), "[0, 0]");
    cx.says("unregister", c.unreg(a), "ok");
    cx.says("unregister", c.unreg(b), "ok");
    Ok(())
}

fn h11_raw(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    let (m, base) = (cx.memory(8)?, cx.base());
    let (a, b) = (m.part(0, 4), m.part(5, 3));
    c.w1()?;
    c.register(a).zero("REGISTER")?;
    c.register(b).zero("REGISTER")?;
    cx.says("MAP", c.put(base, m), "EINVAL");
    if let Ok(kernel) = cx.kernel() {
        let there = kernel.translate(cx.g(0), Ioba(base), Perm::NONE).is_ok();
        cx.says("the first page is mapped", there, "no");
    }
    // Were they still counted, they would stay locked.
    cx.says("UNREGISTER", c.unregister(a), "0");
    cx.says("UNREGISTER", c.unregister(b), "0");
    cx.v(cx.w1_cost());
    Ok(())
}

fn h11_engine(cx: &mut Ctx) -> Done {
    let c = cx.windowed(&[0])?;
    let (m, base) = (cx.memory(8)?, cx.base());
    let (a, b) = (m.part(0, 4), m.part(5, 3));
    c.reg(a).must("register")?;
    c.reg(b).must("register")?;
    refused!(cx, "map", c.put(base, m), "NotRegistered");
    cx.says("counts", format!("{:?}", [c.mapped(a), c.mapped(b)]), "[0, 0]");
    cx.says("unregister", c.unreg(a), "ok");
    Ok(())
}

fn h14_raw(cx: &mut Ctx) -> Done {
    let (c, a, base) = ready(cx, 4)?;
    let b = cx.memory(4)?;
    c.register(b).zero("REGISTER")?;
    c.put(base, a.part(0, 1)).zero("MAP")?;
    cx.says("MAP of the second", c.put(base, b.part(0, 1)), "0");
    // The first is free again, the second is not.
    cx.says("UNREGISTER of the first", c.unregister(a), "0");
    cx.v(4 + cx.w1_cost());
    cx.says("UNMAP", c.take(base, cx.p()), "0");
    cx.says("UNREGISTER of the second", c.unregister(b), "0");
    cx.v(cx.w1_cost());
    Ok(())
}

fn h14_engine(cx: &mut Ctx) -> Done {
    let c = cx.windowed(&[0])?;
    let (a, b, base) = (cx.memory(4)?, cx.memory(4)?, cx.base());
    c.reg(a).must("register")?;
    c.reg(b).must("register")?;
    cx.says("map", c.put(base, a.part(0, 1)), "ok");
    refused!(cx, "map over it", c.put(base, b.part(0, 1)), "Overlap");
    cx.says("counts", format!("{:?}", [c.mapped(a), c.mapped(b)]), "[1, 0]");
    cx.says("replace", c.replace(base, b.part(0, 1)), "ok");
    cx.says("counts", format!("{:?}", [c.mapped(a), c.mapped(b)]), "[0, 1]");
    cx.says("unregister the first", c.unreg(a), "ok");
    refused!(cx, "unregister the second", c.unreg(b), "Mapped");
    Ok(())
}

/// What the device finds in the first of two halves of four pages, and in the second: they should
/// hold `a` from its start.
fn halves(cx: &Ctx, a: Mem, base: u64, sink: (u64, Mem)) -> Result<String, Stop> {
    let device = cx.device(0)?;
    let word = |n| -> Result<&str, Stop> {
        let there = cx.copies(&device, (base + n * cx.p(), a.part(n, 1)), sink)?;
        Ok(if there { "kept" } else { "gone" })
    };
    Ok(format!("{} {} {} {}", word(0)?, word(3)?, word(4)?, word(7)?))
}

fn h15_raw(cx: &mut Ctx) -> Done {
    let (c, a, base) = ready(cx, 16)?;
    let b = cx.memory(4)?;
    let sink = (base + 32 * cx.p(), a.part(15, 1));
    c.register(b).zero("REGISTER")?;
    c.put(base, a.part(0, 8)).zero("MAP")?;
    c.put(sink.0, sink.1).zero("MAP")?;
    // Four of its pages are registered.
    cx.says("MAP of 8 pages", c.map(RW, base, b.at, 8 * cx.p()), "EINVAL");
    let found = halves(cx, a, base, sink)?;
    cx.says("pages 0, 3, 4, 7", found, "gone gone kept kept");
    Ok(())
}

fn h15_engine(cx: &mut Ctx) -> Done {
    let c = cx.windowed(&[0])?;
    let (a, b, base) = (cx.memory(16)?, cx.memory(8)?, cx.base());
    let sink = (base + 32 * cx.p(), a.part(15, 1));
    c.reg(a).must("register")?;
    c.reg(b.part(0, 4)).must("register")?;
    c.put(base, a.part(0, 8)).must("map")?;
    c.put(sink.0, sink.1).must("map")?;
    refused!(cx, "replace", c.replace(base, b), "NotRegistered");
    c.reg(b.part(4, 4)).must("register")?;
    c.unreg(b.part(0, 4)).must("unregister")?;
    c.reg(b.part(0, 4)).must("register")?;
    // Now the memory is there, and the kernel fails: it has replaced two pages and cleared them.
    cx.spy.fail_maps(2 * cx.p(), 1);
    cx.says("replace, no memory for a level", c.replace(base, b), "Backend.Kernel");
    cx.says("live", c.mapped(a), "9");
    cx.says("live", c.mapped(b.part(0, 4)), "0");
    let found = halves(cx, a, base, sink)?;
    cx.says("pages 0, 3, 4, 7", found, "kept kept kept kept");
    cx.says("replace again", c.replace(base, b), "ok");
    cx.says("live", c.mapped(a), "1");
    // A single page takes a path of its own.
    let one = (base + 3 * cx.p(), a.part(0, 1));
    cx.spy.fail_maps(cx.p(), 1);
    cx.says("replace one page", c.replace(one.0, one.1), "Backend.Kernel");
    let live = |cx: &mut Ctx, a_live, b_live| {
        cx.says("live", c.mapped(a), a_live);
        cx.says("live", c.mapped(b.part(0, 4)), b_live);
    };
    live(cx, 1, 4);
    let found = halves(cx, b, base, sink)?;
    cx.says("pages 0, 3, 4, 7", found, "kept kept kept kept");
    cx.spy.fail_maps(cx.p(), 2);
    cx.says("the same, and not put back", c.replace(one.0, one.1), "Lost");
    live(cx, 1, 3);
    let found = halves(cx, b, base, sink)?;
    cx.says("pages 0, 3, 4, 7", found, "kept gone kept kept");
    cx.says("once more", c.replace(one.0, one.1), "ok");
    live(cx, 2, 3);
    Ok(())
}

fn h18_raw(cx: &mut Ctx) -> Done {
    let (c, m, base) = ready(cx, 12)?;
    c.put(base, m).zero("MAP")?;
    let third = 4 * cx.p();
    for (part, left) in [(1, 8), (0, 4), (2, 0)] {
        cx.says("UNMAP", c.take(base + part * third, third), "0");
        if let Ok(process) = cx.process() {
            let counts = process.region_counts(m.uaddr()).map(|counts| counts.0);
            cx.says("count", counts.unwrap_or(99), left);
        }
    }
    cx.says("UNREGISTER", c.unregister(m), "0");
    cx.v(cx.w1_cost());
    Ok(())
}

fn h18_engine(cx: &mut Ctx) -> Done {
    let c = cx.windowed(&[0])?;
    let (m, base) = (cx.memory(12)?, cx.base());
    c.reg(m).must("register")?;
    c.put(base, m).must("map")?;
    let third = 4 * cx.p();
    for (part, left) in [(1, 8), (0, 4), (2, 0)] {
        cx.says("unmap", c.take(base + part * third, third), "ok");
        cx.says("live", c.mapped(m), left);
    }
    cx.says("unregister", c.unreg(m), "ok");
    Ok(())
}

/// Bytes of a batch, and how many there are. Its window has entry 0, so that batch is left out.
fn batches(cx: &Ctx) -> (u64, u64) {
    let bytes = 512 * cx.p();
    (bytes, (G / bytes).min(32))
}

fn h23_raw(cx: &mut Ctx) -> Done {
    let (c, m, _) = ready(cx, 512)?;
    let (bytes, count) = batches(cx);
    for n in 1..count {
        // The bad one is at the end of the third: the first half is registered.
        let memory = if n == 3 { m.bytes(bytes / 2, bytes) } else { m };
        cx.says("MAP", c.put(n * bytes, memory), if n == 3 { "EINVAL" } else { "0" });
    }
    if let Ok(process) = cx.process() {
        let counts = process.region_counts(m.uaddr()).map(|counts| counts.0);
        cx.says("count", counts.unwrap_or(0), (count - 2) * 512);
    }
    Ok(())
}

fn h23_engine(cx: &mut Ctx) -> Done {
    let c = cx.windowed(&[0])?;
    let m = cx.memory(512)?;
    c.reg(m).must("register")?;
    let (bytes, count) = batches(cx);
    let memory = |n| if n == 3 { m.bytes(bytes / 2, bytes) } else { m };
    // One after the other: those before the bad one stay, and nothing of it is there.
    for n in 1..count {
        let why = if n == 3 { "NotRegistered" } else { "ok" };
        cx.says("map", c.put(n * bytes, memory(n)), why);
    }
    cx.says("live", c.mapped(m), (count - 2) * 512);
    cx.says("unmap", c.take(bytes, (count - 1) * bytes), "ok");
    // All in one call: nothing is there.
    let request = |n| {
        let (at, memory) = (Ioba(n * bytes), memory(n).uaddr());
        MapRequest { at, memory, bytes, perm: Perm::READ }
    };
    let all: Vec<_> = (1..count).map(request).collect();
    refused!(cx, "map_batch", c.map_batch(&all, Mode::Refuse), "NotRegistered");
    cx.says("live", c.mapped(m), "0");
    let good: Vec<_> = all.iter().copied().filter(|request| request.at.0 != 3 * bytes).collect();
    let done = c.map_batch(&good, Mode::Refuse).map(|receipt| receipt.tces);
    cx.says("MAP sent", cx.count(Request::MapDma) > 0, "yes");
    cx.says("entries without it", done, ((count - 2) * 512).to_string());
    Ok(())
}

/// The kernel has races there; the engine lets none of them reach it.
fn h24_engine(cx: &mut Ctx) -> Done {
    let c = cx.windowed(&[0])?;
    let (m, base) = (cx.memory(64)?, cx.base());
    let (kept, comes_and_goes) = (m.part(0, 32), m.part(32, 32));
    c.reg(kept).must("register")?;
    let rounds = if cx.is_real() { 60 } else { 300 };
    let (stop, page, io) = (AtomicBool::new(false), cx.p(), cx.io());
    let levels = cx.two_levels();
    std::thread::scope(|threads| {
        let map = |window: u64, memory: Mem| {
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                n = (n + 1) % 16;
                let at = window + n * 2 * page;
                let _ = c.replace(at, memory.part(n, 2));
                let _ = c.take(at, 2 * page);
                std::thread::yield_now();
            }
        };
        threads.spawn(move || map(base, kept));
        threads.spawn(move || map(base + 64 * page, comes_and_goes));
        threads.spawn(move || map(SECOND + base, kept));
        for _ in 0..rounds {
            let _ = c.reg(comes_and_goes);
            let _ = c.window(G, io, levels);
            std::thread::yield_now();
            let _ = c.unreg(comes_and_goes);
            let _ = c.remove_window(Ioba(SECOND), Removal::Force);
        }
        stop.store(true, Ordering::Relaxed);
    });
    cx.says("unmap all", c.take(base, 128 * page), "ok");
    cx.says("live", c.mapped(kept), "0");
    cx.says("unregister", c.unreg(kept), "ok");
    let _ = c.unreg(comes_and_goes);
    cx.v(cx.w1_cost());
    Ok(())
}
