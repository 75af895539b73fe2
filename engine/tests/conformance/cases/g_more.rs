// SPDX-License-Identifier: Apache-2.0 OR MIT
//! G from 30 on: more about windows, as observed.

use tce_engine::backend::linux::mock_kernel::Injection;
use tce_engine::backend::linux::raw::RawContainer;
use tce_engine::backend::linux::uapi::{Request, TceCreate, TceRemove, kind};
use tce_engine::container::Removal;
use tce_engine::{Ioba, PageShift};

use crate::case::{Case, Done, Must, On, Zero, case};
use crate::ctx::{Ctx, Eng, G, K, M, SECOND, refused};

pub(crate) const CASES: &[Case] = &[
    case("G30", On::Both, "levels: how many a table can have")
        .raw(g30_raw)
        .engine(g30_engine)
        .instead("knows which level counts this host can have; those that leak are not sent"),
    case("G31", On::Both, "sizes: 0, no power of two, below a page")
        .raw(g31_raw)
        .engine(g31_engine),
    case("G32", On::Both, "a small window serves more than was asked for")
        .raw(g32_raw)
        .engine(g32_engine),
    case("G33", On::Both, "REMOVE where there is none").raw(g33_raw).engine(g33_engine),
    case("G34", On::Both, "argsz, flags, reserved fields").raw(g34),
    case("G35", On::Both, "bad pointers").raw(g35),
    case("G36", On::Both, "the default window is made by the first MAP")
        .raw(g36_raw)
        .engine(g36_engine),
    case("G37", On::Both, "windows with nothing in between").raw(g37_raw).engine(g37_engine),
    case("G38", On::Mock, "CREATE that cannot write its result").raw(g38),
    case("G39", On::Both, "the default window over the limit").raw(g39_raw).engine(g39_engine),
    case("G40", On::Both, "REMOVE frees a slot for another shape").raw(g40_raw).engine(g40_engine),
    case("G41", On::Both, "close with windows and mappings").raw(g41_raw).engine(g41_engine),
    case("G42", On::Both, "one level of 16 MiB, the largest block").raw(g42_raw).engine(g42_engine),
    case("G43", On::Mock, "the same on a host with 4K pages").raw(g43_raw).engine(g43_engine),
    case("G44", On::Mock, "no memory for a table that should fit").engine(g44_engine),
];

/// log2 of the entries of one level, and the bits that all decode.
fn bits(host: u32, shift: u32, levels: u32) -> u32 {
    ((30 - shift).div_ceil(levels) + 3).max(host).saturating_sub(3) * levels + shift
}

fn g30_raw(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    c.remove(0).zero("REMOVE")?;
    let mut leaked = 0;
    for shift in [12, 16] {
        for levels in 0..=7 {
            let label = format!("shift {shift}, {levels} levels");
            let answer = c.create(G, shift, levels).0;
            if levels == 0 || levels > cx.platform().max_levels() {
                cx.says(&label, answer, "EINVAL");
            } else if bits(cx.host(), shift, levels) < cx.profile().refused_bits {
                cx.says(&label, answer, "0");
                cx.v(leaked + cx.cost(G, shift, levels));
                c.remove(0).zero("REMOVE")?;
            } else {
                cx.says(&label, answer, "EINVAL");
                leaked += cx.leak_of(G, shift, levels);
            }
            cx.v(leaked);
        }
    }
    cx.leaks(leaked, 0);
    Ok(())
}

fn g30_engine(cx: &mut Ctx) -> Done {
    let c = cx.container(&[0])?;
    for shift in [12, 16] {
        for levels in 0..=7 {
            let label = format!("shift {shift}, {levels} levels");
            let made = c.window(G, shift, levels);
            if levels == 0 || levels > 5 {
                refused!(cx, &label, made, "Geometry.Levels");
            } else if bits(cx.host(), shift, levels) >= 55 {
                refused!(cx, &label, made, "Geometry.TooManyBits");
            } else if levels > cx.platform().max_levels() {
                refused!(cx, &label, made, "Levels");
            } else {
                cx.says(&label, made, "ok");
                cx.v(cx.cost(G, shift, levels));
                c.remove_window(Ioba(0), Removal::IfUnmapped).must("remove")?;
            }
            cx.v(0);
        }
    }
    Ok(())
}

const SIZES: [u64; 6] = [0, 1, 4 * K, 3 * M, G + 64 * K, 3 * G];

fn g31_raw(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    c.remove(0).zero("REMOVE")?;
    for size in SIZES {
        cx.says(&format!("{size:#x}"), c.create(size, 16, 1).0, "EINVAL");
        cx.v(0);
    }
    Ok(())
}

fn g31_engine(cx: &mut Ctx) -> Done {
    let c = cx.container(&[0])?;
    for size in SIZES {
        let why = if size.is_power_of_two() {
            "Geometry.SmallerThanPage"
        } else {
            "Geometry.NotPowerOfTwo"
        };
        refused!(cx, &format!("{size:#x}"), c.window(size, 16, 1), why);
    }
    cx.v(0);
    Ok(())
}

/// A window of 16 pages, and where the last entry that its table has begins.
fn g32_raw(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    c.remove(0).zero("REMOVE")?;
    let (m, page) = (cx.memory(1)?, cx.p());
    cx.says("CREATE", c.create(16 * page, cx.io(), 1).0, "0");
    cx.v(cx.cost(16 * page, cx.io(), 1));
    c.register(m).zero("REGISTER")?;
    let entries = cx.p() / 8;
    cx.says("MAP of the last asked for", c.put(15 * page, m), "0");
    cx.says("MAP of the next", c.put(16 * page, m), "0");
    cx.says("MAP of the last there is", c.put((entries - 1) * page, m), "0");
    cx.says("MAP behind it", c.put(entries * page, m), "ENXIO");
    Ok(())
}

fn g32_engine(cx: &mut Ctx) -> Done {
    let c = cx.container(&[0])?;
    let (m, page) = (cx.memory(1)?, cx.p());
    let made = c.window(16 * page, cx.io(), 1).must("a window")?;
    let entries = cx.p() / 8;
    cx.says("entries", made.geometry.entries(), entries);
    cx.says("asked for", made.geometry.requested_entries(), "16");
    c.reg(m).must("register")?;
    cx.says("map the next", c.put(16 * page, m), "ok");
    cx.says("map the last there is", c.put((entries - 1) * page, m), "ok");
    refused!(cx, "map behind it", c.put(entries * page, m), "OutsideWindows");
    Ok(())
}

fn g33_raw(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    c.w1()?;
    cx.says("in the second slot", c.remove(SECOND), "EINVAL");
    cx.says("behind the first", c.remove(2 * G), "EINVAL");
    cx.v(cx.w1_cost());
    Ok(())
}

fn g33_engine(cx: &mut Ctx) -> Done {
    let c = cx.windowed(&[0])?;
    for at in [SECOND, 2 * G] {
        refused!(cx, "remove_window", c.remove_window(Ioba(at), Removal::Force), "NotFound");
    }
    Ok(())
}

fn g34(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    c.remove(0).zero("REMOVE")?;
    let good = TceCreate::new(16, G, 1);
    let mut short = TceCreate { argsz: 8, ..good };
    let mut flags = TceCreate { flags: 1, ..good };
    let mut reserved = TceCreate { resv1: 5, resv2: 6, ..good };
    cx.says("CREATE argsz 8", c.raw.create(&mut short), "EINVAL");
    cx.says("CREATE flags 1", c.raw.create(&mut flags), "EINVAL");
    cx.v(0);
    cx.says("CREATE reserved fields", c.raw.create(&mut reserved), "0");
    let good = TceRemove::new(0);
    cx.says("REMOVE argsz 8", c.raw.remove(&TceRemove { argsz: 8, ..good }), "EINVAL");
    cx.says("REMOVE flags 1", c.raw.remove(&TceRemove { flags: 1, ..good }), "EINVAL");
    cx.v(cx.cost(G, 16, 1));
    Ok(())
}

fn g35(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    cx.says("CREATE", c.raw.fault(Request::TceCreate), "EFAULT");
    cx.says("REMOVE", c.raw.fault(Request::TceRemove), "EFAULT");
    cx.v(0);
    Ok(())
}

fn g36_raw(cx: &mut Ctx) -> Done {
    let c = cx.v2_as_it_comes()?;
    let (m, base) = (cx.memory(4)?, cx.base());
    cx.says("REGISTER", c.register(m), "0");
    cx.v(4 + cx.early());
    cx.says("MAP", c.put(base, m), "0");
    cx.v(4 + cx.default_cost());
    cx.says("UNMAP of 4K of it", c.take(base + 4 * K, 4 * K), "0");
    cx.says("MAP of 4K", c.map(3, base + 4 * K, m.at + cx.p() - 4 * K, 4 * K), "0");
    cx.says("UNMAP", c.take(base, m.bytes), "0");
    Ok(())
}

/// There is no default window, so nothing is made behind the caller's back.
fn g36_engine(cx: &mut Ctx) -> Done {
    let c = cx.container(&[0])?;
    let (m, base) = (cx.memory(4)?, cx.base());
    cx.says("register", c.reg(m), "ok");
    refused!(cx, "map", c.put(base, m), "OutsideWindows");
    cx.v(4);
    Ok(())
}

fn g37_raw(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    let (m, base) = (cx.memory(1)?, cx.base());
    c.w1()?;
    c.create(4 * G, cx.io(), cx.two_levels()).0.zero("CREATE")?;
    c.register(m).zero("REGISTER")?;
    cx.says("MAP in the first", c.put(base, m), "0");
    cx.says("MAP in the second", c.put(SECOND + base, m), "0");
    cx.says("behind the first", c.put(G, m), "ENXIO");
    cx.says("below the second", c.put(SECOND - cx.p(), m), "ENXIO");
    cx.says("behind the second", c.put(SECOND + 4 * G, m), "ENXIO");
    cx.says("at the end of all", c.put(cx.p().wrapping_neg(), m), "ENXIO");
    Ok(())
}

fn g37_engine(cx: &mut Ctx) -> Done {
    let c = cx.windowed(&[0])?;
    let (m, base) = (cx.memory(1)?, cx.base());
    c.window(4 * G, cx.io(), cx.two_levels()).must("a second window")?;
    c.reg(m).must("register")?;
    cx.says("map in the first", c.put(base, m), "ok");
    cx.says("map in the second", c.put(SECOND + base, m), "ok");
    for at in [G, SECOND - cx.p(), SECOND + 4 * G, cx.p().wrapping_neg()] {
        refused!(cx, "map outside", c.put(at, m), "OutsideWindows");
    }
    cx.says("live", c.mapped(m), "2");
    Ok(())
}

fn g38(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    c.remove(0).zero("REMOVE")?;
    cx.kernel()?.inject(Injection::CopyOut);
    cx.says("CREATE", c.create(G, 16, 1).0, "EFAULT");
    // And yet the window is there.
    cx.v(cx.cost(G, 16, 1));
    cx.says("REMOVE", c.remove(0), "0");
    cx.v(0);
    Ok(())
}

fn g39_raw(cx: &mut Ctx) -> Done {
    cx.limit(64)?;
    if cx.early() > 0 {
        let c = cx.open()?;
        c.join(cx.g(0))?;
        cx.says("SET_IOMMU", c.set_iommu(kind::SPAPR_TCE_V2), "ENOMEM");
        cx.v(0);
        return Ok(());
    }
    let c = cx.v2(&[0])?;
    let (m, base) = (cx.memory(64)?, cx.base());
    cx.says("REGISTER", c.register(m), "0");
    cx.says("MAP", c.put(base, m.part(0, 1)), "ENOMEM");
    cx.says("CREATE", c.create(G, 16, 1).0, "ENOMEM");
    cx.v(64);
    Ok(())
}

fn g39_engine(cx: &mut Ctx) -> Done {
    cx.limit(64)?;
    if cx.early() > 0 {
        // Its default window cannot be avoided: a group cannot be attached below that limit.
        let attached = cx.engine().container().attach(cx.g(0));
        cx.says_why("attach", &attached, "ENOMEM");
        cx.v(0);
        return Ok(());
    }
    let c = cx.container(&[0])?;
    let m = cx.memory(64)?;
    cx.says("register", c.reg(m), "ok");
    refused!(cx, "create_window", c.window(2 * G, 12, 1), "Limit");
    cx.v(64);
    cx.says("unregister", c.unreg(m), "ok");
    cx.says("a smaller window", c.window(64 * M, 16, 1), "ok");
    Ok(())
}

fn g40_raw(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    c.w1()?;
    c.create(4 * G, 16, 1).0.zero("CREATE")?;
    c.remove(0).zero("REMOVE")?;
    let (answer, start) = c.create(2 * G, 12, 1);
    cx.says("CREATE", answer, "0");
    cx.says("start", start, "0");
    cx.v(cx.cost(4 * G, 16, 1) + cx.default_cost());
    Ok(())
}

fn g40_engine(cx: &mut Ctx) -> Done {
    let c = cx.windowed(&[0])?;
    c.window(4 * G, 16, 1).must("a second window")?;
    cx.says("remove", c.remove_window(Ioba(0), Removal::IfUnmapped), "ok");
    let made = c.window(2 * G, 12, 1);
    cx.says("start", made.map(|window| window.start.0), "0");
    cx.v(cx.cost(4 * G, 16, 1) + cx.default_cost());
    Ok(())
}

fn g41_raw(cx: &mut Ctx) -> Done {
    let m = cx.memory(64)?;
    let base = cx.base();
    let levels = cx.two_levels();
    for _ in 0..2 {
        let c = cx.v2(&[0])?;
        c.w1()?;
        c.create(4 * G, cx.io(), levels).0.zero("CREATE")?;
        cx.says("REGISTER", c.register(m), "0");
        cx.says("MAP", c.put(base, m), "0");
        cx.says("MAP", c.put(SECOND + base, m), "0");
        cx.v(64 + cx.w1_cost() + cx.cost(4 * G, cx.io(), levels));
        drop(c);
        cx.v(0);
    }
    Ok(())
}

fn g41_engine(cx: &mut Ctx) -> Done {
    let m = cx.memory(64)?;
    let base = cx.base();
    let levels = cx.two_levels();
    for _ in 0..2 {
        let c = cx.windowed(&[0])?;
        c.window(4 * G, cx.io(), levels).must("a second window")?;
        cx.says("register", c.reg(m), "ok");
        cx.says("map", c.put(base, m), "ok");
        cx.says("map", c.put(SECOND + base, m), "ok");
        cx.v(64 + cx.w1_cost() + cx.cost(4 * G, cx.io(), levels));
        drop(c);
        cx.says("closed", cx.spy.sent().is_empty(), "no");
        cx.v(0);
    }
    Ok(())
}

/// Order 8 of pages of 64K, order 12 of pages of 4K.
fn g42_raw(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    c.remove(0).zero("REMOVE")?;
    cx.says("CREATE", c.create(8 * G, 12, 1).0, "0");
    cx.v(cx.cost(8 * G, 12, 1));
    cx.says("REMOVE", c.remove(0), "0");
    cx.says("CREATE of twice that", c.create(16 * G, 12, 1).0, "ENOMEM");
    let leaked = cx.leak_of(16 * G, 12, 1);
    cx.v(leaked);
    cx.leaks(leaked, 0);
    Ok(())
}

fn g42_engine(cx: &mut Ctx) -> Done {
    let c = cx.container(&[0])?;
    cx.says("create_window", c.window(8 * G, 12, 1), "ok");
    cx.v(cx.cost(8 * G, 12, 1));
    c.remove_window(Ioba(0), Removal::IfUnmapped).must("remove")?;
    refused!(cx, "twice that", c.window(16 * G, 12, 1), "Geometry.BlockTooLarge");
    cx.v(0);
    Ok(())
}

fn g43_raw(cx: &mut Ctx) -> Done {
    cx.rebuild(|machine| machine.host_page(PageShift::K4))?;
    g42_raw(cx)
}

fn g43_engine(cx: &mut Ctx) -> Done {
    cx.rebuild(|machine| machine.host_page(PageShift::K4))?;
    g42_engine(cx)
}

/// The charge that the kernel does not give back stays in the ledger, which `v` compares.
fn g44_engine(cx: &mut Ctx) -> Done {
    let c = cx.container(&[0])?;
    let charge = cx.cost(G, 16, 1);
    cx.spy.fail_create((charge as u64) << cx.host());
    cx.says("create_window", c.window(G, 16, 1), "Backend.Kernel");
    cx.v(charge);
    let kinds: Vec<_> = cx.engine().ledger().entries().iter().map(|entry| entry.kind).collect();
    cx.says("in the ledger", format!("{kinds:?}"), "[Leaked]");
    cx.says("again", c.window(G, 16, 1), "ok");
    cx.v(2 * charge);
    cx.leaks(charge, 0);
    Ok(())
}
