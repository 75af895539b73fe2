// SPDX-License-Identifier: Apache-2.0 OR MIT
//! H from 30 on: more about MAP and UNMAP, as observed.

use tce_engine::backend::linux::mock_kernel::{Injection, Profile};
use tce_engine::backend::linux::raw::RawContainer;
use tce_engine::backend::linux::uapi::{DmaMap, DmaUnmap, Request, map_flags};
use tce_engine::container::Mode;
use tce_engine::geometry::WindowSpec;
use tce_engine::tce::Perm;
use tce_engine::{Ioba, PageShift, Uaddr};

use super::h::ready;
use crate::case::{Case, Done, Must, On, Stop, Zero, case};
use crate::ctx::{Ct, Ctx, Eng, G, K, RW, refused};
use crate::rig::Mem;

pub(crate) const CASES: &[Case] = &[
    case("H30", On::Mock, "MAP of size 0 at index 0")
        .raw(h30_raw)
        .engine(h30_engine)
        .instead("a request for nothing is refused"),
    case("H31", On::Mock, "UNMAP of size 0 at index 0")
        .raw(h31_raw)
        .engine(h31_engine)
        .instead("a request for nothing is refused"),
    case("H32", On::Mock, "MAP that fails on its first page at index 0")
        .raw(h32_raw)
        .engine(h32_engine)
        .instead("memory, backing and bounds are checked first, so that page 0 does not fail"),
    case("H33", On::Mock, "no memory for the level of page 0")
        .raw(h33_raw)
        .engine(h33_engine)
        .instead("maps another page of that level first, page 0 afterwards"),
    case("H34", On::Both, "size 0 elsewhere").raw(h34_raw).engine(h34_engine),
    case("H35", On::Both, "UNMAP of what is not mapped; its size is not changed")
        .raw(h35_raw)
        .engine(h35_engine),
    case("H36", On::Both, "argsz, flags").raw(h36),
    case("H37", On::Both, "bad pointers").raw(h37),
    case("H38", On::Both, "MAP across the end of two levels")
        .raw(h38_raw)
        .engine(h38_engine)
        .instead("a range that does not end inside its window is refused"),
    case("H39", On::Both, "read only: the device cannot write").raw(h39_raw).engine(h39_engine),
    case("H40", On::Both, "MAP of memory that is not, or partly, registered")
        .raw(h40_raw)
        .engine(h40_engine),
    case("H41", On::Both, "the page is larger than what backs it").raw(h41_raw).engine(h41_engine),
    case("H42", On::Both, "huge pages in a window of 16M pages").raw(h42_raw).engine(h42_engine),
    case("H43", On::Both, "4K pages: a part of a host page").raw(h43_raw).engine(h43_engine),
    case("H44", On::Both, "no window").raw(h44_raw).engine(h44_engine),
    case("H45", On::Mock, "a region that goes while it is mapped").raw(h45),
    case("H46", On::Mock, "no memory for a later level")
        .raw(h46_raw)
        .engine(h46_engine)
        .instead("what was there before is mapped again"),
    case("H47", On::Both, "neighbours in one batch").engine(h47_engine),
];

fn h30_raw(cx: &mut Ctx) -> Done {
    let (c, m, _) = ready(cx, 1)?;
    cx.nothing_done(c.map(RW, 0, m.at, 0), "0")
}

fn h30_engine(cx: &mut Ctx) -> Done {
    let c = cx.windowed(&[0])?;
    let m = cx.memory(1)?;
    c.reg(m).must("register")?;
    refused!(cx, "map", c.put(0, m.part(0, 0)), "Nothing");
    cx.says("map page 0", c.put(0, m), "ok");
    cx.says("unmap page 0", c.take(0, m.bytes), "ok");
    Ok(())
}

fn h31_raw(cx: &mut Ctx) -> Done {
    let (c, ..) = ready(cx, 1)?;
    cx.nothing_done(c.take(0, 0), "0")
}

fn h31_engine(cx: &mut Ctx) -> Done {
    let c = cx.windowed(&[0])?;
    refused!(cx, "unmap", c.take(0, 0), "Nothing");
    Ok(())
}

fn h32_raw(cx: &mut Ctx) -> Done {
    let (c, m, _) = ready(cx, 2)?;
    cx.nothing_done(c.put(0, m.part(4, 1)), "EINVAL")
}

fn h32_engine(cx: &mut Ctx) -> Done {
    let c = cx.windowed(&[0])?;
    let m = cx.memory(8)?;
    c.reg(m.part(0, 2)).must("register")?;
    refused!(cx, "not registered", c.put(0, m.part(4, 1)), "NotRegistered");
    refused!(cx, "off a page", c.put(0, m.bytes(1, cx.p())), "Unaligned");
    if cx.needs_pages(PageShift::M16).is_ok() {
        let huge = c.window(16 * G, 24, 1).must("a window of 16M pages")?;
        refused!(cx, "too small for the page", c.put(huge.start.0, m.part(0, 1)), "Unaligned");
    }
    Ok(())
}

/// A window of two levels at 0.
fn two_levels(cx: &Ctx, c: &Ct) -> Done {
    c.remove(0).zero("REMOVE")?;
    c.create(4 * G, cx.io(), 2).0.zero("CREATE")
}

fn h33_raw(cx: &mut Ctx) -> Done {
    cx.needs_growth()?;
    let c = cx.v2(&[0])?;
    let m = cx.memory(1)?;
    two_levels(cx, &c)?;
    c.register(m).zero("REGISTER")?;
    cx.kernel()?.inject(Injection::Level { nth: 1 });
    cx.nothing_done(c.put(0, m), "ENOMEM")
}

fn h33_engine(cx: &mut Ctx) -> Done {
    cx.needs_growth()?;
    // Both trees of a table are made level by level, first the one that remembers user addresses.
    // If it is the other that fails, Linux, by our reading, goes on counting the page, so the region
    // stays charged for good, and the ledger says so.
    for (pages, nth) in [(1, 1), (4, 1), (1, 2), (4, 2)] {
        let c = cx.container(&[0])?;
        let m = cx.memory(4)?;
        c.window(4 * G, cx.io(), 2).must("a window")?;
        c.reg(m).must("register")?;
        cx.kernel()?.inject(Injection::Level { nth });
        cx.says("map", c.put(0, m.part(0, pages)), "Backend.Kernel");
        cx.says("live", c.mapped(m), "0");
        cx.says("map again", c.put(0, m.part(0, pages)), "ok");
        cx.says("live", c.mapped(m), pages);
    }
    cx.leaks(8, 8);
    Ok(())
}

fn h34_raw(cx: &mut Ctx) -> Done {
    let (c, m, base) = ready(cx, 1)?;
    cx.says("MAP", c.map(RW, base, m.at, 0), "0");
    cx.says("UNMAP", c.take(base, 0), "0");
    Ok(())
}

fn h34_engine(cx: &mut Ctx) -> Done {
    let c = cx.windowed(&[0])?;
    let (m, base) = (cx.memory(1)?, cx.base());
    c.reg(m).must("register")?;
    refused!(cx, "map", c.put(base, m.part(0, 0)), "Nothing");
    refused!(cx, "unmap", c.take(base, 0), "Nothing");
    Ok(())
}

fn h35_raw(cx: &mut Ctx) -> Done {
    let (c, _, base) = ready(cx, 1)?;
    let mut unmap = DmaUnmap::new(base, 4 * cx.p());
    cx.says("UNMAP", c.raw.unmap(&mut unmap), "0");
    cx.says("the same size", unmap.size == 4 * cx.p(), "yes");
    Ok(())
}

fn h35_engine(cx: &mut Ctx) -> Done {
    let c = cx.windowed(&[0])?;
    let (m, base) = (cx.memory(4)?, cx.base());
    c.reg(m).must("register")?;
    refused!(cx, "unmap", c.take(base, 4 * cx.p()), "ok");
    c.put(base + cx.p(), m.part(0, 1)).must("map")?;
    let released = c.take(base, 4 * cx.p()).map(|receipt| receipt.released);
    cx.says("released", released, "1");
    Ok(())
}

fn h36(cx: &mut Ctx) -> Done {
    let (c, m, base) = ready(cx, 1)?;
    let map = DmaMap { argsz: 8, ..DmaMap::new(RW, m.at, base, m.bytes) };
    cx.says("MAP argsz 8", c.raw.map(&map), "EINVAL");
    let good = DmaUnmap::new(base, m.bytes);
    cx.says("UNMAP argsz 8", c.raw.unmap(&mut DmaUnmap { argsz: 8, ..good }), "EINVAL");
    cx.says("UNMAP flags 1", c.raw.unmap(&mut DmaUnmap { flags: 1, ..good }), "EINVAL");
    Ok(())
}

fn h37(cx: &mut Ctx) -> Done {
    let (c, ..) = ready(cx, 1)?;
    cx.says("MAP", c.raw.fault(Request::MapDma), "EFAULT");
    cx.says("UNMAP", c.raw.fault(Request::UnmapDma), "EFAULT");
    Ok(())
}

/// With this size the table goes on behind the window, on any host: what is mapped there hits no
/// memory of others, but cannot be unmapped.
fn h38_raw(cx: &mut Ctx) -> Done {
    cx.needs_levels()?;
    let c = cx.v2(&[0])?;
    let m = cx.memory(16)?;
    c.remove(0).zero("REMOVE")?;
    c.create(2 * G, cx.io(), 2).0.zero("CREATE")?;
    c.register(m).zero("REGISTER")?;
    cx.says("MAP", c.put(2 * G - cx.p(), m.part(0, 2)), "0");
    if !cx.profile().levels_on_demand {
        // There is no spare part: it is other memory that was written.
        cx.damages("oob")?;
    }
    cx.says("UNMAP of what is behind", c.take(2 * G, cx.p()), "ENXIO");
    cx.says("UNMAP of the last", c.take(2 * G - cx.p(), cx.p()), "0");
    // So the region is mapped for ever.
    cx.says("UNREGISTER", c.unregister(m), cx.by(Profile::K5_0, "0", "EBUSY"));
    cx.leaks(16, 16);
    Ok(())
}

fn h38_engine(cx: &mut Ctx) -> Done {
    cx.needs_levels()?;
    let c = cx.container(&[0])?;
    let m = cx.memory(16)?;
    c.window(2 * G, cx.io(), 2).must("a window")?;
    c.reg(m).must("register")?;
    refused!(cx, "map", c.put(2 * G - cx.p(), m.part(0, 2)), "OutsideWindows");
    cx.says("unregister", c.unreg(m), "ok");
    Ok(())
}

fn h39_raw(cx: &mut Ctx) -> Done {
    let (c, m, base) = ready(cx, 4)?;
    let (readable, writable) = (m.part(0, 1), m.part(1, 1));
    let other = base + cx.p();
    c.map(map_flags::READ, base, readable.at, readable.bytes).zero("MAP")?;
    c.put(other, writable).zero("MAP")?;
    let device = cx.device(0)?;
    cx.says("reads", cx.copies(&device, (base, readable), (other, writable))?, "yes");
    cx.says("writes", cx.copies(&device, (other, writable), (base, readable))?, "no");
    Ok(())
}

fn h39_engine(cx: &mut Ctx) -> Done {
    let c = cx.windowed(&[0])?;
    let (m, base) = (cx.memory(4)?, cx.base());
    let (readable, writable, other) = (m.part(0, 1), m.part(1, 1), base + cx.p());
    c.reg(m).must("register")?;
    let map = c.map(Ioba(base), readable.uaddr(), readable.bytes, Perm::READ, Mode::Refuse);
    cx.says("map for reading", map, "ok");
    cx.says("map for both", c.put(other, writable), "ok");
    let device = cx.device(0)?;
    cx.says("reads", cx.copies(&device, (base, readable), (other, writable))?, "yes");
    cx.says("writes", cx.copies(&device, (other, writable), (base, readable))?, "no");
    cx.says("unmap", c.take(base, cx.p()), "ok");
    cx.says("reads", cx.copies(&device, (base, readable), (other, writable))?, "no");
    Ok(())
}

fn h40_raw(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    let (m, base) = (cx.memory(8)?, cx.base());
    c.w1()?;
    c.register(m.part(0, 4)).zero("REGISTER")?;
    cx.says("behind it", c.put(base, m.part(4, 1)), "EINVAL");
    cx.says("two in, two behind", c.put(base, m.part(2, 4)), "EINVAL");
    cx.says("an address of the kernel", c.map(RW, base, 0xc << 60, cx.p()), "EINVAL");
    cx.says("UNREGISTER", c.unregister(m.part(0, 4)), "0");
    cx.says("not any more", c.put(base, m.part(0, 1)), "EINVAL");
    cx.v(cx.w1_cost());
    Ok(())
}

fn h40_engine(cx: &mut Ctx) -> Done {
    let c = cx.windowed(&[0])?;
    let (m, base) = (cx.memory(8)?, cx.base());
    c.reg(m.part(0, 4)).must("register")?;
    refused!(cx, "behind it", c.put(base, m.part(4, 1)), "NotRegistered");
    refused!(cx, "two in, two behind", c.put(base, m.part(2, 4)), "NotRegistered");
    let kernel = c.map(Ioba(base), Uaddr(0xc << 60), cx.p(), Perm::READ, Mode::Refuse);
    refused!(cx, "an address of the kernel", kernel, "NotRegistered");
    cx.says("unregister", c.unreg(m.part(0, 4)), "ok");
    refused!(cx, "not any more", c.put(base, m.part(0, 1)), "NotRegistered");
    Ok(())
}

/// 16 MiB of ordinary memory, aligned so that a page of 16 MiB is in it.
fn large(cx: &mut Ctx) -> Result<(Mem, Mem), Stop> {
    let all = cx.memory(32 << (20 - cx.host()))?;
    let from = all.at.next_multiple_of(16 << 20) - all.at;
    Ok((all, all.bytes(from, 16 << 20)))
}

fn h41_raw(cx: &mut Ctx) -> Done {
    cx.needs_pages(PageShift::M16)?;
    let c = cx.v2(&[0])?;
    let (all, m) = large(cx)?;
    c.remove(0).zero("REMOVE")?;
    c.create(16 * G, 24, 1).0.zero("CREATE")?;
    c.register(all).zero("REGISTER")?;
    cx.says("MAP", c.put(16 << 20, m), "EINVAL");
    cx.says("UNREGISTER", c.unregister(all), "0");
    Ok(())
}

fn h41_engine(cx: &mut Ctx) -> Done {
    cx.needs_pages(PageShift::M16)?;
    let c = cx.container(&[0])?;
    let (all, m) = large(cx)?;
    c.window(16 * G, 24, 1).must("a window")?;
    c.reg(all).must("register")?;
    refused!(cx, "map", c.put(16 << 20, m), "BackingTooSmall");
    refused!(cx, "map page 0", c.put(0, m), "BackingTooSmall");
    Ok(())
}

fn h42_raw(cx: &mut Ctx) -> Done {
    cx.needs_pages(PageShift::M16)?;
    let c = cx.v2(&[0])?;
    let m = cx.huge(2)?;
    c.remove(0).zero("REMOVE")?;
    c.create(16 * G, 24, 1).0.zero("CREATE")?;
    c.register(m).zero("REGISTER")?;
    cx.says("MAP", c.put(16 << 20, m), "0");
    cx.says("UNMAP", c.take(16 << 20, m.bytes), "0");
    cx.says("UNREGISTER", c.unregister(m), "0");
    Ok(())
}

fn h42_engine(cx: &mut Ctx) -> Done {
    cx.needs_pages(PageShift::M16)?;
    let c = cx.container(&[0])?;
    let m = cx.huge(2)?;
    c.window(16 * G, 24, 1).must("a window")?;
    if cx.host() == 12 {
        // See F40.
        refused!(cx, "register", c.reg(m), "Backend.Pin");
        return Ok(());
    }
    c.reg(m).must("register")?;
    cx.says("map", c.put(0, m), "ok");
    cx.says("live", c.mapped(m), "2");
    cx.says("unmap", c.take(0, m.bytes), "ok");
    cx.says("unregister", c.unreg(m), "ok");
    Ok(())
}

fn h43_raw(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    let (m, base) = (cx.memory(2)?, cx.base());
    c.remove(0).zero("REMOVE")?;
    c.create(G, 12, 1).0.zero("CREATE")?;
    c.register(m).zero("REGISTER")?;
    let part = m.bytes(4 * K, 4 * K);
    cx.says("MAP", c.put(base + 4 * K, part), "0");
    cx.says("MAP off its page", c.put(base, m.bytes(2 * K, 4 * K)), "EINVAL");
    cx.says("UNMAP", c.take(base + 4 * K, 4 * K), "0");
    Ok(())
}

fn h43_engine(cx: &mut Ctx) -> Done {
    let c = cx.container(&[0])?;
    let (m, base) = (cx.memory(2)?, cx.base());
    c.create_window(WindowSpec::new(G, PageShift::K4)).must("a window")?;
    c.reg(m).must("register")?;
    cx.says("map", c.put(base + 4 * K, m.bytes(4 * K, 4 * K)), "ok");
    refused!(cx, "map off its page", c.put(base, m.bytes(2 * K, 4 * K)), "Unaligned");
    cx.says("live", c.mapped(m), "1");
    cx.says("unmap", c.take(base + 4 * K, 4 * K), "ok");
    Ok(())
}

fn h44_raw(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    let (m, base) = (cx.memory(1)?, cx.base());
    c.remove(0).zero("REMOVE")?;
    c.register(m).zero("REGISTER")?;
    cx.says("MAP", c.put(base, m), "ENXIO");
    cx.says("UNMAP", c.take(base, m.bytes), "ENXIO");
    Ok(())
}

fn h44_engine(cx: &mut Ctx) -> Done {
    let c = cx.container(&[0])?;
    let (m, base) = (cx.memory(1)?, cx.base());
    c.reg(m).must("register")?;
    refused!(cx, "map", c.put(base, m), "OutsideWindows");
    refused!(cx, "unmap", c.take(base, m.bytes), "OutsideWindows");
    Ok(())
}

/// By our reading: the loop stops, and yet it is success. The engine never lets it come to that.
fn h45(cx: &mut Ctx) -> Done {
    let (c, m, base) = ready(cx, 8)?;
    cx.kernel()?.inject(Injection::RegionDying { nth: 4 });
    cx.says("MAP of 8 pages", c.put(base, m), "0");
    let counts = cx.process()?.region_counts(m.uaddr()).map(|counts| counts.0);
    cx.says("mapped", counts.unwrap_or(99), "3");
    cx.says("UNMAP", c.take(base, m.bytes), "0");
    Ok(())
}

/// A range over the border of two leaves, of which the first is mapped.
fn border(cx: &Ctx) -> u64 {
    // Two levels for 4 GiB: leaves have at least a host page of entries.
    let index = ((4 * G) >> cx.io()).ilog2();
    let leaf = 1u64 << index.div_ceil(2).max(cx.host() - 3);
    leaf * cx.p()
}

fn h46_raw(cx: &mut Ctx) -> Done {
    cx.needs_growth()?;
    let c = cx.v2(&[0])?;
    let m = cx.memory(16)?;
    two_levels(cx, &c)?;
    c.register(m).zero("REGISTER")?;
    let at = border(cx) - 4 * cx.p();
    c.put(at, m.part(0, 4)).zero("MAP")?;
    cx.kernel()?.inject(Injection::Level { nth: 2 });
    cx.says("MAP over it", c.put(at, m.part(8, 8)), "ENOMEM");
    let there = cx.kernel()?.translate(cx.g(0), Ioba(at), Perm::NONE).is_ok();
    cx.says("what was there", there, "no");
    // By our reading, the page that failed is counted for ever.
    cx.leaks(16, 16);
    Ok(())
}

fn h46_engine(cx: &mut Ctx) -> Done {
    cx.needs_growth()?;
    let mut left = 0;
    for nth in [1, 2] {
        let c = cx.container(&[0])?;
        let m = cx.memory(16)?;
        c.window(4 * G, cx.io(), 2).must("a window")?;
        c.reg(m).must("register")?;
        let at = border(cx) - 4 * cx.p();
        c.put(at, m.part(0, 4)).must("map")?;
        cx.kernel()?.inject(Injection::Level { nth });
        cx.says("replace", c.replace(at, m.part(8, 8)), "Backend.Kernel");
        let there = cx.kernel()?.translate(cx.g(0), Ioba(at), Perm::NONE);
        let same = there.is_ok_and(|there| there.at == m.uaddr());
        cx.says("what was there", same, "yes");
        cx.says("live", c.mapped(m), "4");
        cx.says("unmap", c.take(at, 4 * cx.p()), "ok");
        // The second time the kernel keeps the region. The engine and the ledger say so.
        let kept = nth == 2;
        cx.says("unregister", c.unreg(m), if kept { "Kept" } else { "ok" });
        if kept {
            refused!(cx, "register again", c.reg(m), "Kept");
        }
        left += if kept { 16 } else { 0 };
        cx.v(left + cx.cost(4 * G, cx.io(), 2));
    }
    cx.leaks(left, 16);
    Ok(())
}

fn h47_engine(cx: &mut Ctx) -> Done {
    use tce_engine::container::{MapRequest, UnmapRequest};
    let c = cx.windowed(&[0])?;
    let (m, base) = (cx.memory(64)?, cx.base());
    c.reg(m).must("register")?;
    cx.mark();
    let page = |n: u64| MapRequest {
        at: Ioba(base + n * cx.p()),
        memory: m.part(n, 1).uaddr(),
        bytes: cx.p(),
        perm: Perm::READ,
    };
    let all: Vec<_> = (0..64).map(page).collect();
    let done = c.map_batch(&all, Mode::Refuse).map(|receipt| receipt.ioctls);
    let sent = cx.count(Request::MapDma);
    cx.says("MAP for 64 neighbours", done, "1");
    cx.says("sent", sent, "1");
    let all: Vec<_> = all.iter().map(|r| UnmapRequest { at: r.at, bytes: r.bytes }).collect();
    let done = c.unmap_batch(&all).map(|receipt| receipt.ioctls);
    let sent = cx.count(Request::UnmapDma);
    cx.says("UNMAP for 64 neighbours", done, "1");
    cx.says("sent", sent, "1");
    cx.says("live", c.mapped(m), "0");
    Ok(())
}
