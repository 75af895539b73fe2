// SPDX-License-Identifier: Apache-2.0 OR MIT
//! F: registered memory and what is locked for it.

use tce_engine::backend::linux::mock_kernel::Profile;

use crate::case::{Case, Done, Must, On, Zero, case};
use crate::ctx::{Ctx, Eng, refused};

pub(crate) const CASES: &[Case] = &[
    case("F1", On::Both, "REGISTER of 16 pages").raw(f1_raw).engine(f1_engine),
    case("F2", On::Both, "the same again").raw(f2_raw).engine(f2_engine),
    case("F3", On::Both, "the same in a second container").raw(f3_raw).engine(f3_engine),
    case("F4", On::Both, "UNREGISTER in one container, then in the other")
        .raw(f4_raw)
        .engine(f4_engine),
    case("F5", On::Both, "start or size off a page; wrapping").raw(f5_raw).engine(f5_engine),
    case("F6", On::Both, "size 0").raw(f6_raw).engine(f6_engine),
    case("F7", On::Both, "overlapping a region by one page").raw(f7_raw).engine(f7_engine),
    case("F8", On::Both, "adjacent regions").raw(f8_raw).engine(f8_engine),
    case("F9", On::Both, "17 pages, limit 16").raw(f9_raw).engine(f9_engine),
    case("F10", On::Both, "8, 8, 1 pages, limit 16, with and without the right to exceed it")
        .raw(f10_raw)
        .engine(f10_engine),
    case("F11", On::Both, "read-only memory").raw(f11_raw).engine(f11_engine),
    case("F12", On::Both, "4 pages, of which the last 2 are not mapped")
        .raw(f12_raw)
        .engine(f12_engine)
        .instead("an error: memory that is not all there is found before, any answer but 0 is one"),
    case("F14", On::Both, "UNREGISTER of a part, or of what never was")
        .raw(f14_raw)
        .engine(f14_engine),
    case("F16", On::Both, "UNREGISTER of mapped memory")
        .raw(f16_raw)
        .engine(f16_engine)
        .instead("counts live entries by region and refuses; the request is not sent"),
    case("F18", On::Both, "UNREGISTER of another container's region")
        .raw(f18_raw)
        .engine(f18_engine),
    case("F19", On::Both, "close with registered memory").raw(f19_raw).engine(f19_engine),
];

fn f1_raw(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    let m = cx.memory(16)?;
    cx.says("REGISTER", c.register(m), "0");
    cx.v(16);
    Ok(())
}

fn f1_engine(cx: &mut Ctx) -> Done {
    let c = cx.container(&[0])?;
    let m = cx.memory(16)?;
    cx.says("register", c.reg(m), "ok");
    cx.v(16);
    Ok(())
}

fn f2_raw(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    let m = cx.memory(16)?;
    cx.says("REGISTER", c.register(m), "0");
    cx.says("again", c.register(m), cx.by(Profile::K4_9, "EBUSY", "0"));
    cx.v(16);
    cx.says("UNREGISTER", c.unregister(m), "0");
    if !cx.since(Profile::K4_9) {
        cx.v(16);
        cx.says("UNREGISTER of the second use", c.unregister(m), "0");
    }
    cx.v(0);
    Ok(())
}

fn f2_engine(cx: &mut Ctx) -> Done {
    let c = cx.container(&[0])?;
    let m = cx.memory(16)?;
    cx.says("register", c.reg(m), "ok");
    refused!(cx, "again", c.reg(m), "Busy");
    cx.v(16);
    Ok(())
}

fn f3_raw(cx: &mut Ctx) -> Done {
    let (c, d) = (cx.v2(&[0])?, cx.v2(&[1])?);
    let m = cx.memory(16)?;
    cx.says("REGISTER in the first", c.register(m), "0");
    cx.says("REGISTER in the second", d.register(m), "0");
    cx.v(16);
    Ok(())
}

fn f3_engine(cx: &mut Ctx) -> Done {
    let (c, d) = (cx.container(&[0])?, cx.container(&[1])?);
    let m = cx.memory(16)?;
    cx.says("register in the first", c.reg(m), "ok");
    cx.says("register in the second", d.reg(m), "ok");
    cx.v(16);
    let charges = cx.engine().ledger().entries().len() as u64;
    cx.says("charges", charges, "1");
    Ok(())
}

fn f4_raw(cx: &mut Ctx) -> Done {
    let (c, d) = (cx.v2(&[0])?, cx.v2(&[1])?);
    let m = cx.memory(16)?;
    c.register(m).zero("REGISTER")?;
    d.register(m).zero("REGISTER")?;
    cx.says("UNREGISTER in the first", c.unregister(m), "0");
    cx.v(16);
    cx.says("UNREGISTER in the second", d.unregister(m), "0");
    cx.v(0);
    Ok(())
}

fn f4_engine(cx: &mut Ctx) -> Done {
    let (c, d) = (cx.container(&[0])?, cx.container(&[1])?);
    let m = cx.memory(16)?;
    c.reg(m).must("register")?;
    d.reg(m).must("register")?;
    cx.says("unregister in the first", c.unreg(m), "ok");
    cx.v(16);
    cx.says("unregister in the second", d.unreg(m), "ok");
    cx.v(0);
    Ok(())
}

fn f5_raw(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    let m = cx.memory(4)?;
    cx.says("start", c.register(m.bytes(1, 2 * cx.p())), "EINVAL");
    cx.says("size", c.register(m.bytes(0, 2 * cx.p() - 1)), "EINVAL");
    let wrapping = m.bytes(0, (!m.at).wrapping_add(1).wrapping_add(cx.p()));
    cx.says("wrapping", c.register(wrapping), "EINVAL");
    cx.v(0);
    Ok(())
}

fn f5_engine(cx: &mut Ctx) -> Done {
    let c = cx.container(&[0])?;
    let m = cx.memory(4)?;
    refused!(cx, "start", c.reg(m.bytes(1, 2 * cx.p())), "Unaligned");
    refused!(cx, "size", c.reg(m.bytes(0, 2 * cx.p() - 1)), "Unaligned");
    let wrapping = m.bytes(0, (!m.at).wrapping_add(1).wrapping_add(cx.p()));
    refused!(cx, "wrapping", c.reg(wrapping), "Wraps");
    cx.v(0);
    Ok(())
}

fn f6_raw(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    let m = cx.memory(1)?;
    cx.says("REGISTER", c.register(m.part(0, 0)), "ENOMEM");
    cx.v(0);
    Ok(())
}

fn f6_engine(cx: &mut Ctx) -> Done {
    let c = cx.container(&[0])?;
    let m = cx.memory(1)?;
    refused!(cx, "register", c.reg(m.part(0, 0)), "Empty");
    Ok(())
}

fn f7_raw(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    let m = cx.memory(32)?;
    c.register(m.part(8, 8)).zero("REGISTER")?;
    for (what, part) in
        [("tail", m.part(15, 8)), ("head", m.part(1, 8)), ("inside", m.part(10, 2)), ("around", m)]
    {
        cx.says(what, c.register(part), "EINVAL");
        cx.v(8);
    }
    if let Ok(kernel) = cx.kernel() {
        let pinned = kernel.leftovers().pinned_pages;
        cx.says("pinned", pinned, "8");
    }
    Ok(())
}

fn f7_engine(cx: &mut Ctx) -> Done {
    let c = cx.container(&[0])?;
    let m = cx.memory(32)?;
    c.reg(m.part(8, 8)).must("register")?;
    for (what, part) in
        [("tail", m.part(15, 8)), ("head", m.part(1, 8)), ("inside", m.part(10, 2)), ("around", m)]
    {
        refused!(cx, what, c.reg(part), "Overlap");
    }
    cx.v(8);
    Ok(())
}

fn f8_raw(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    let m = cx.memory(16)?;
    cx.says("REGISTER", c.register(m.part(0, 8)), "0");
    cx.says("REGISTER of the next", c.register(m.part(8, 8)), "0");
    cx.v(16);
    cx.says("UNREGISTER of both as one", c.unregister(m), "ENOENT");
    Ok(())
}

fn f8_engine(cx: &mut Ctx) -> Done {
    let c = cx.container(&[0])?;
    let m = cx.memory(16)?;
    cx.says("register", c.reg(m.part(0, 8)), "ok");
    cx.says("register the next", c.reg(m.part(8, 8)), "ok");
    cx.v(16);
    refused!(cx, "unregister both as one", c.unreg(m), "NotFound");
    Ok(())
}

fn f9_raw(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    cx.limit(16)?;
    let m = cx.memory(17)?;
    cx.says("REGISTER", c.register(m), "ENOMEM");
    cx.v(0);
    cx.says("REGISTER of 16", c.register(m.part(0, 16)), "0");
    cx.v(16);
    Ok(())
}

/// A limit of pages: 16, or what a group needs for a moment when it is attached.
fn small_limit(cx: &Ctx) -> u64 {
    cx.early().max(16) as u64
}

fn f9_engine(cx: &mut Ctx) -> Done {
    let limit = small_limit(cx);
    cx.limit(limit)?;
    let c = cx.container(&[0])?;
    let m = cx.memory(limit + 1)?;
    refused!(cx, "register", c.reg(m), "Limit");
    cx.v(0);
    cx.says("register all that may be", c.reg(m.part(0, limit)), "ok");
    cx.v(limit as i64);
    Ok(())
}

fn f10_raw(cx: &mut Ctx) -> Done {
    let m = cx.memory(17)?;
    let parts = [m.part(0, 8), m.part(8, 8), m.part(16, 1)];
    for (ipc_lock, third, locked) in [(true, "0", 17), (false, "ENOMEM", 16)] {
        cx.rig.limit(u64::MAX, true)?;
        let c = cx.v2(&[0])?;
        cx.rig.limit(16 * cx.p(), ipc_lock)?;
        cx.says("REGISTER of 8", c.register(parts[0]), "0");
        cx.says("REGISTER of 8", c.register(parts[1]), "0");
        cx.says("REGISTER of 1", c.register(parts[2]), third);
        cx.v(locked);
    }
    Ok(())
}

fn f10_engine(cx: &mut Ctx) -> Done {
    let limit = small_limit(cx);
    let (m, half) = (cx.memory(limit + 1)?, limit / 2);
    let parts = [m.part(0, half), m.part(half, half), m.part(limit, 1)];
    for (ipc_lock, third, more) in [(true, "ok", 1), (false, "Limit", 0)] {
        cx.rig.limit(limit * cx.p(), ipc_lock)?;
        cx.engine_with(Default::default(), Default::default());
        let c = cx.container(&[0])?;
        cx.says("register half", c.reg(parts[0]), "ok");
        cx.says("register the other half", c.reg(parts[1]), "ok");
        cx.says("register 1", c.reg(parts[2]), third);
        cx.v(limit as i64 + more);
    }
    Ok(())
}

fn f11_raw(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    let m = cx.rig.read_only(4)?;
    cx.says("REGISTER", c.register(m), "EFAULT");
    cx.v(0);
    Ok(())
}

fn f11_engine(cx: &mut Ctx) -> Done {
    let c = cx.container(&[0])?;
    let m = cx.rig.read_only(4)?;
    refused!(cx, "register", c.reg(m), "Backend.Pin");
    cx.v(0);
    Ok(())
}

fn f12_raw(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    let m = cx.rig.with_hole(4, 2)?;
    cx.says("REGISTER", c.register(m), cx.by(Profile::K5_0, "+2", "EFAULT"));
    cx.v(0);
    cx.says("UNREGISTER", c.unregister(m), "ENOENT");
    Ok(())
}

fn f12_engine(cx: &mut Ctx) -> Done {
    let c = cx.container(&[0])?;
    let m = cx.rig.with_hole(4, 2)?;
    refused!(cx, "register", c.reg(m), "Backend.Pin");
    cx.v(0);
    cx.says("regions", c.regions().len() as u64, "0");
    Ok(())
}

fn f14_raw(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    let m = cx.memory(32)?;
    c.register(m.part(0, 16)).zero("REGISTER")?;
    cx.says("the first half", c.unregister(m.part(0, 8)), "ENOENT");
    cx.says("the second half", c.unregister(m.part(8, 8)), "ENOENT");
    cx.says("more", c.unregister(m), "ENOENT");
    cx.says("never registered", c.unregister(m.part(16, 16)), "ENOENT");
    cx.v(16);
    cx.says("UNREGISTER", c.unregister(m.part(0, 16)), "0");
    cx.says("twice", c.unregister(m.part(0, 16)), "ENOENT");
    cx.v(0);
    Ok(())
}

fn f14_engine(cx: &mut Ctx) -> Done {
    let c = cx.container(&[0])?;
    let m = cx.memory(32)?;
    c.reg(m.part(0, 16)).must("register")?;
    refused!(cx, "the first half", c.unreg(m.part(0, 8)), "NotFound");
    refused!(cx, "the second half", c.unreg(m.part(8, 8)), "NotFound");
    refused!(cx, "more", c.unreg(m), "NotFound");
    refused!(cx, "never registered", c.unreg(m.part(16, 16)), "NotFound");
    cx.v(16);
    cx.says("unregister", c.unreg(m.part(0, 16)), "ok");
    refused!(cx, "twice", c.unreg(m.part(0, 16)), "NotFound");
    Ok(())
}

fn f16_raw(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    let (m, base) = (cx.memory(16)?, cx.base());
    c.w1()?;
    c.register(m).zero("REGISTER")?;
    c.put(base, m.part(0, 1)).zero("MAP")?;
    cx.v(16 + cx.w1_cost());
    cx.says("UNREGISTER", c.unregister(m), cx.by(Profile::K5_0, "0", "EBUSY"));
    cx.v(16 + cx.w1_cost());
    cx.says("MAP of another page of it", c.put(base + cx.p(), m.part(1, 1)), "0");
    cx.says("UNMAP", c.take(base, 2 * cx.p()), "0");
    cx.says("UNREGISTER", c.unregister(m), cx.by(Profile::K5_0, "ENOENT", "0"));
    if cx.since(Profile::K5_0) {
        // Nobody has it any more, and it stays.
        cx.leaks(16, 16);
    }
    Ok(())
}

fn f16_engine(cx: &mut Ctx) -> Done {
    let c = cx.windowed(&[0])?;
    let (m, base) = (cx.memory(16)?, cx.base());
    c.reg(m).must("register")?;
    c.put(base, m.part(0, 1)).must("map")?;
    cx.v(16 + cx.w1_cost());
    cx.says("map", c.put(base + cx.p(), m.part(1, 1)), "ok");
    refused!(cx, "unregister", c.unreg(m), "Mapped");
    cx.v(16 + cx.w1_cost());
    cx.says("unmap", c.take(base, 2 * cx.p()), "ok");
    cx.says("unregister", c.unreg(m), "ok");
    cx.v(cx.w1_cost());
    Ok(())
}

fn f18_raw(cx: &mut Ctx) -> Done {
    let (c, d) = (cx.v2(&[0])?, cx.v2(&[1])?);
    let m = cx.memory(16)?;
    d.register(m).zero("REGISTER")?;
    if !cx.since(Profile::K4_9) {
        // Regions are nobody's there.
        cx.says("UNREGISTER", c.unregister(m), "0");
        cx.v(0);
        return Ok(());
    }
    // A container that has registered nothing yet is nobody's.
    cx.says("UNREGISTER", c.unregister(m), "EPERM");
    c.w1()?;
    cx.says("UNREGISTER", c.unregister(m), "ENOENT");
    cx.v(16 + cx.w1_cost());
    Ok(())
}

fn f18_engine(cx: &mut Ctx) -> Done {
    let (c, d) = (cx.container(&[0])?, cx.container(&[1])?);
    let m = cx.memory(16)?;
    d.reg(m).must("register")?;
    refused!(cx, "unregister", c.unreg(m), "NotFound");
    cx.v(16);
    Ok(())
}

fn f19_raw(cx: &mut Ctx) -> Done {
    let m = cx.memory(32)?;
    let left = cx.by(Profile::K4_9, 0, 32);
    for _ in 0..2 {
        let mut c = cx.v2(&[0])?;
        c.forget_regions();
        cx.says("REGISTER", c.register(m.part(0, 16)), "0");
        cx.says("REGISTER", c.register(m.part(16, 16)), "0");
        cx.v(32);
        drop(c);
        cx.v(left);
    }
    cx.leaks(left, left as u64);
    Ok(())
}

fn f19_engine(cx: &mut Ctx) -> Done {
    let m = cx.memory(32)?;
    for _ in 0..2 {
        let c = cx.container(&[0])?;
        cx.says("register", c.reg(m.part(0, 16)), "ok");
        cx.says("register", c.reg(m.part(16, 16)), "ok");
        cx.v(32);
        drop(c);
        cx.v(0);
    }
    Ok(())
}
