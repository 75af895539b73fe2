// SPDX-License-Identifier: Apache-2.0 OR MIT
//! E: containers of version 1.

use tce_engine::backend::linux::mock_kernel::Profile;
use tce_engine::backend::linux::raw::RawContainer;
use tce_engine::backend::linux::uapi::{Request, kind, map_flags};
use tce_engine::container::{Container, Removal};
use tce_engine::ledger::ChargeKind;
use tce_engine::tce::Perm;

use crate::case::{Case, Done, Must, On, Stop, Zero, case};
use crate::ctx::{Ct, Ctx, Eng, G, K, M, RW, refused};

pub(crate) const CASES: &[Case] = &[
    case("E2", On::Both, "ENABLE charges the whole window").raw(e2_raw).engine(e2_engine),
    case("E3", On::Both, "ENABLE twice").raw(e3_raw).engine(e3_engine),
    case("E4", On::Both, "ENABLE beyond the limit of 8 MiB").raw(e4_raw).engine(e4_engine),
    case("E5", On::Both, "MAP before ENABLE, with a bad pointer").raw(e5_raw).engine(e5_engine),
    case("E6", On::Both, "REGISTER, CREATE: not of version 1").raw(e6_raw).engine(e6_engine),
    case("E7", On::Both, "ENABLE, DISABLE: not of version 2").raw(e7_raw).engine(e7_engine),
    case("E30", On::Both, "DISABLE when off, and with mappings").raw(e30),
    case("E31", On::Both, "one group only").raw(e31_raw).engine(e31_engine),
    case("E32", On::Both, "MAP of memory that is not writable, or not there")
        .raw(e32_raw)
        .engine(e32_engine),
    case("E33", On::Both, "the first MAP adds the table's charge").raw(e33_raw).engine(e33_engine),
    case("E34", On::Both, "a bus address off its page; outside; replacing")
        .raw(e34_raw)
        .engine(e34_engine)
        .instead("refuses an address that is not a page's, and a range that is mapped"),
    case("E35", On::Both, "GET_INFO of version 1").raw(e35_raw).engine(e35_engine),
    case("E36", On::Mock, "a page that cannot be pinned, mapped at index 0")
        .raw(e36_raw)
        .engine(e36_engine)
        .instead("looks first whether page 0 can be pinned, and does not ask for it if not"),
    case("E37", On::Both, "its window cannot be removed").raw(e37_raw).engine(e37_engine),
];

/// Host pages of the 2 GiB that are paid ahead.
fn ahead(cx: &Ctx) -> i64 {
    ((2 * G) >> cx.host()) as i64
}

fn enabled(cx: &mut Ctx) -> Result<Ct, Stop> {
    let c = cx.v1(0)?;
    c.raw.enable().zero("ENABLE")?;
    Ok(c)
}

/// The engine's container with its window.
fn v1(cx: &mut Ctx) -> Result<Container, Stop> {
    cx.engine_v1()?;
    let c = cx.container(&[0])?;
    c.window(2 * G, 12, 1).must("the window")?;
    Ok(c)
}

fn e2_raw(cx: &mut Ctx) -> Done {
    let c = cx.v1(0)?;
    cx.v(0);
    cx.says("ENABLE", c.raw.enable(), "0");
    cx.v(ahead(cx));
    Ok(())
}

fn e2_engine(cx: &mut Ctx) -> Done {
    cx.engine_v1()?;
    let c = cx.container(&[0])?;
    cx.says("create_window", c.window(2 * G, 12, 1), "ok");
    cx.v(ahead(cx) + cx.v1_cost());
    let entries = cx.engine().ledger().entries();
    let paid = entries.iter().filter(|entry| entry.kind == ChargeKind::Enable);
    cx.says("entries of version 1", paid.count() as u64, "1");
    Ok(())
}

fn e3_raw(cx: &mut Ctx) -> Done {
    let c = enabled(cx)?;
    cx.says("again", c.raw.enable(), "EBUSY");
    cx.v(ahead(cx));
    Ok(())
}

fn e3_engine(cx: &mut Ctx) -> Done {
    let c = v1(cx)?;
    refused!(cx, "a second window", c.window(2 * G, 12, 1), "NoSlot");
    Ok(())
}

fn e4_raw(cx: &mut Ctx) -> Done {
    let c = cx.v1(0)?;
    cx.limit((8 * M) >> cx.host())?;
    cx.says("ENABLE", c.raw.enable(), "ENOMEM");
    cx.v(0);
    Ok(())
}

fn e4_engine(cx: &mut Ctx) -> Done {
    cx.for_version_1()?;
    cx.limit((8 * M) >> cx.host())?;
    cx.engine_v1()?;
    let c = cx.container(&[0])?;
    refused!(cx, "create_window", c.window(2 * G, 12, 1), "Limit");
    cx.v(cx.v1_early());
    Ok(())
}

fn e5_raw(cx: &mut Ctx) -> Done {
    let c = cx.v1(0)?;
    cx.says("MAP", c.raw.fault(Request::MapDma), "EPERM");
    cx.says("UNMAP", c.raw.fault(Request::UnmapDma), "EPERM");
    c.raw.enable().zero("ENABLE")?;
    cx.says("MAP after ENABLE", c.raw.fault(Request::MapDma), "EFAULT");
    cx.says("UNMAP after ENABLE", c.raw.fault(Request::UnmapDma), "EFAULT");
    Ok(())
}

fn e5_engine(cx: &mut Ctx) -> Done {
    cx.engine_v1()?;
    let c = cx.container(&[0])?;
    let (m, base) = (cx.memory(1)?, cx.base());
    c.reg(m).must("register")?;
    refused!(cx, "map", c.put(base, m), "OutsideWindows");
    Ok(())
}

fn e6_raw(cx: &mut Ctx) -> Done {
    let c = cx.v1(0)?;
    let m = cx.memory(1)?;
    cx.says("REGISTER", c.register(m), "ENOTTY");
    cx.says("UNREGISTER", c.unregister(m), "ENOTTY");
    cx.says("CREATE", c.create(G, 16, 1).0, "ENOTTY");
    cx.says("REMOVE", c.remove(0), "ENOTTY");
    Ok(())
}

/// Registering is the engine's own affair there, and costs nothing.
fn e6_engine(cx: &mut Ctx) -> Done {
    cx.engine_v1()?;
    let c = cx.container(&[0])?;
    let m = cx.memory(16)?;
    refused!(cx, "register", c.reg(m), "ok");
    cx.v(cx.v1_early());
    refused!(cx, "unregister", c.unreg(m), "ok");
    refused!(cx, "another window", c.window(G, 12, 1), "Backend.Guarded");
    cx.v(cx.v1_early());
    Ok(())
}

fn e7_raw(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    cx.says("ENABLE", c.raw.enable(), "ENOTTY");
    cx.says("DISABLE", c.raw.disable(), "ENOTTY");
    cx.v(0);
    Ok(())
}

fn e7_engine(cx: &mut Ctx) -> Done {
    let c = cx.windowed(&[0])?;
    cx.says("remove_window", c.remove_window(tce_engine::Ioba(0), Removal::Force), "ok");
    drop(c);
    let sent = cx.spy.sent();
    let wrong = sent.iter().filter(|s| matches!(s.request, Request::Enable | Request::Disable));
    cx.says("ENABLE or DISABLE sent", wrong.count() as u64, "0");
    Ok(())
}

fn e30(cx: &mut Ctx) -> Done {
    let c = cx.v1(0)?;
    cx.says("DISABLE when off", c.raw.disable(), "0");
    c.raw.enable().zero("ENABLE")?;
    let (m, base) = (cx.memory(4)?, cx.base());
    cx.says("MAP", c.put(base, m), "0");
    cx.says("DISABLE with mappings", c.raw.disable(), "0");
    cx.v(cx.v1_later());
    cx.says("MAP", c.put(base, m), "EPERM");
    cx.says("UNMAP", c.take(base, m.bytes), "EPERM");
    cx.says("ENABLE", c.raw.enable(), "0");
    cx.says("UNMAP", c.take(base, m.bytes), "0");
    Ok(())
}

fn e31_raw(cx: &mut Ctx) -> Done {
    let c = cx.v1(0)?;
    c.raw.open_group(cx.g(1)).zero("opening the group")?;
    // Where the versions are not told apart, a group that can share tables is no trouble.
    let answer = cx.by(Profile::K4_9, "EBUSY", "0");
    cx.says("SET_CONTAINER of a second", c.raw.set_container(cx.g(1)), answer);
    drop(c);
    let c = cx.open()?;
    c.join(cx.g(0))?;
    c.join(cx.g(1))?;
    cx.says("SET_IOMMU with two", c.set_iommu(kind::SPAPR_TCE), answer);
    Ok(())
}

fn e31_engine(cx: &mut Ctx) -> Done {
    let c = v1(cx)?;
    cx.says("attach of a second", c.attach(cx.g(1)), "Incompatible");
    cx.says("groups", c.groups().len() as u64, "1");
    Ok(())
}

fn e32_raw(cx: &mut Ctx) -> Done {
    let c = enabled(cx)?;
    let (read_only, nowhere, base) = (cx.rig.read_only(1)?, cx.rig.nowhere(1)?, cx.base());
    cx.says("MAP of read-only memory", c.put(base, read_only), "EFAULT");
    let read = c.map(map_flags::READ, base, read_only.at, read_only.bytes);
    cx.says("for reading only", read, "EFAULT");
    cx.says("MAP of what is not there", c.put(base, nowhere), "EFAULT");
    Ok(())
}

fn e32_engine(cx: &mut Ctx) -> Done {
    let c = v1(cx)?;
    let (read_only, nowhere, base) = (cx.rig.read_only(1)?, cx.rig.nowhere(1)?, cx.base());
    refused!(cx, "register read-only memory", c.reg(read_only), "Backend.Pin");
    refused!(cx, "register what is not there", c.reg(nowhere), "Backend.Pin");
    refused!(cx, "map", c.put(base, read_only), "NotRegistered");
    Ok(())
}

fn e33_raw(cx: &mut Ctx) -> Done {
    let c = enabled(cx)?;
    let (m, base) = (cx.memory(8)?, cx.base());
    cx.v(ahead(cx));
    cx.says("MAP", c.put(base, m), "0");
    cx.v(ahead(cx) + cx.v1_later());
    cx.says("MAP of the next", c.put(base + m.bytes, m), "0");
    cx.v(ahead(cx) + cx.v1_later());
    cx.says("UNMAP", c.take(base, 2 * m.bytes), "0");
    Ok(())
}

/// It has the table made, and charged, before anything is mapped.
fn e33_engine(cx: &mut Ctx) -> Done {
    let c = v1(cx)?;
    let (m, base) = (cx.memory(8)?, cx.base());
    c.reg(m).must("register")?;
    cx.v(ahead(cx) + cx.v1_cost());
    cx.says("map", c.put(base, m), "ok");
    cx.v(ahead(cx) + cx.v1_cost());
    cx.says("unregister while mapped", c.unreg(m), "Mapped");
    cx.says("unmap", c.take(base, m.bytes), "ok");
    cx.says("unregister", c.unreg(m), "ok");
    drop(c);
    cx.v(0);
    Ok(())
}

fn e34_raw(cx: &mut Ctx) -> Done {
    let c = enabled(cx)?;
    let (m, base) = (cx.memory(8)?, cx.base());
    let answer = cx.by(Profile::K4_12, "+1", "EINVAL");
    cx.says("MAP off a page", c.map(RW, base + K, m.at, m.bytes), answer);
    cx.says("UNMAP off a page", c.take(base + K, m.bytes), answer);
    cx.says("MAP behind the window", c.put(2 * G, m), "ENXIO");
    cx.says("MAP", c.put(base, m), "0");
    cx.says("MAP over it", c.put(base + 4 * cx.p(), m), "0");
    cx.says("UNMAP", c.take(base, 16 * cx.p()), "0");
    Ok(())
}

fn e34_engine(cx: &mut Ctx) -> Done {
    let c = v1(cx)?;
    let (m, base) = (cx.memory(8)?, cx.base());
    c.reg(m).must("register")?;
    refused!(cx, "map off a page", c.put(base + K, m), "Unaligned");
    refused!(cx, "unmap off a page", c.take(base + K, m.bytes), "Unaligned");
    refused!(cx, "map behind the window", c.put(2 * G, m), "OutsideWindows");
    cx.says("map", c.put(base, m), "ok");
    refused!(cx, "map over it", c.put(base + 4 * cx.p(), m), "Overlap");
    cx.says("replace", c.replace(base + 4 * cx.p(), m), "ok");
    cx.says("live", c.mapped(m), (12 * cx.p()) >> 12);
    cx.says("unmap", c.take(base, 16 * cx.p()), "ok");
    cx.says("live", c.mapped(m), "0");
    Ok(())
}

fn e35_raw(cx: &mut Ctx) -> Done {
    let c = cx.v1(0)?;
    let (answer, info) = c.info();
    cx.says("GET_INFO", answer, "0");
    let said = (info.flags, info.dma32_window_start, info.dma32_window_size, info.ddw.levels);
    cx.says("flags, window, levels", format!("{said:x?}"), "(0, 0, 80000000, 0)");
    Ok(())
}

fn e35_engine(cx: &mut Ctx) -> Done {
    cx.engine_v1()?;
    let c = cx.container(&[0])?;
    let caps = c.caps().must("caps")?;
    cx.says("page sizes", caps.page_sizes.0, "4096");
    cx.says("windows", caps.window_starts.iter().flatten().count() as u64, "1");
    Ok(())
}

fn e36_raw(cx: &mut Ctx) -> Done {
    let c = enabled(cx)?;
    let m = cx.rig.read_only(1)?;
    cx.nothing_done(c.put(0, m), "EFAULT")
}

fn e36_engine(cx: &mut Ctx) -> Done {
    let c = v1(cx)?;
    let m = cx.memory(2)?;
    c.reg(m).must("register")?;
    // It was fine when it was registered.
    cx.rig.munmap(m);
    cx.mark();
    let put = c.put(0, m);
    let sent = cx.count(Request::MapDma);
    cx.says("map", put, "Backend.Pin");
    cx.says("MAP sent", sent, "0");
    let live = c.requested(tce_engine::Ioba(0)).must("an entry")?.0.perm() != Perm::NONE;
    cx.says("mapped", live, "no");
    Ok(())
}

fn e37_raw(cx: &mut Ctx) -> Done {
    let c = enabled(cx)?;
    let (m, base) = (cx.memory(1)?, cx.base());
    c.put(base, m).zero("MAP")?;
    cx.says("REMOVE", c.remove(0), "ENOTTY");
    cx.v(ahead(cx) + cx.v1_later());
    Ok(())
}

fn e37_engine(cx: &mut Ctx) -> Done {
    let c = v1(cx)?;
    let removed = c.remove_window(tce_engine::Ioba(0), Removal::Force);
    refused!(cx, "remove_window", removed, "Backend.Guarded");
    Ok(())
}
