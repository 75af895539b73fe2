// SPDX-License-Identifier: Apache-2.0 OR MIT
//! D: containers and what they say of themselves.

use tce_engine::addr::{Ioba, PageShift, PageSizes};
use tce_engine::backend::linux::mock_kernel::Profile;
use tce_engine::backend::linux::raw::RawContainer;
use tce_engine::backend::linux::uapi::{DdwInfo, GroupStatus, Request, TceInfo, kind};
use tce_engine::engine::Engine;
use tce_engine::platform::Platform;

use crate::case::{Case, Done, Must, On, Stop, Zero, case};
use crate::ctx::{Ctx, Eng, G, RW, refused};

pub(crate) const CASES: &[Case] = &[
    case("D1", On::Both, "SET_IOMMU with no group").raw(d1_raw).engine(d1_engine),
    case("D3", On::Both, "MAP before SET_IOMMU").raw(d3_raw).engine(d3_engine),
    case("D4", On::Both, "CHECK_EXTENSION 2, 7, 8, 99").raw(d4),
    case("D5", On::Both, "GET_INFO with argsz 16").raw(d5_raw).engine(d5_engine),
    case("D7", On::Both, "GET_INFO of version 2").raw(d7_raw).engine(d7_engine),
    case("D9", On::Both, "another process uses the container").raw(d9_raw).engine(d9_engine),
    case("D10", On::Mock, "GET_INFO of two groups with other page sizes")
        .raw(d10_raw)
        .engine(d10_engine)
        .instead("asks each group alone and offers what all have, whatever their order"),
    case("D11", On::Both, "the last group leaves, then MAP").raw(d11_raw).engine(d11_engine),
    case("D30", On::Both, "SET_IOMMU: types unknown, or twice").raw(d30),
    case("D31", On::Both, "GET_INFO before SET_IOMMU, argsz 4, bad pointer").raw(d31),
    case("D32", On::Both, "a group opened twice").raw(d32_raw).engine(d32_engine),
    case("D33", On::Both, "SET_CONTAINER twice").raw(d33),
    case("D34", On::Both, "UNSET_CONTAINER while a device is open").raw(d34),
    case("D35", On::Both, "group status before and in a container").raw(d35),
    case("D36", On::Both, "CHECK_EXTENSION of all others, EEH").raw(d36),
    case("D37", On::Both, "a container is set up again after its last group").raw(d37),
];

fn d1_raw(cx: &mut Ctx) -> Done {
    let c = cx.open()?;
    cx.says("SET_IOMMU", c.set_iommu(kind::SPAPR_TCE_V2), "EINVAL");
    Ok(())
}

fn d1_engine(cx: &mut Ctx) -> Done {
    let c = cx.engine().container();
    let (m, base) = (cx.memory(1)?, cx.base());
    refused!(cx, "register", c.reg(m), "NoGroup");
    refused!(cx, "create_window", c.window(G, 16, 1), "NoGroup");
    refused!(cx, "map", c.put(base, m), "OutsideWindows");
    refused!(cx, "unmap", c.take(base, m.bytes), "OutsideWindows");
    Ok(())
}

fn d3_raw(cx: &mut Ctx) -> Done {
    let c = cx.open()?;
    c.join(cx.g(0))?;
    let (m, base) = (cx.memory(1)?, cx.base());
    cx.says("MAP", c.put(base, m), "EINVAL");
    cx.says("UNMAP", c.take(base, m.bytes), "EINVAL");
    cx.says("REGISTER", c.register(m), "EINVAL");
    cx.v(0);
    Ok(())
}

/// Its containers are set up before anybody can map.
fn d3_engine(cx: &mut Ctx) -> Done {
    let c = cx.container(&[0])?;
    let (m, base) = (cx.memory(1)?, cx.base());
    cx.says("register", c.reg(m), "ok");
    refused!(cx, "map without a window", c.put(base, m), "OutsideWindows");
    Ok(())
}

fn d4(cx: &mut Ctx) -> Done {
    let c = cx.open()?;
    for (extension, answer) in [(2, "+1"), (7, "+1"), (8, "0"), (99, "0")] {
        cx.says(&format!("CHECK {extension}"), c.raw.check_extension(extension), answer);
    }
    Ok(())
}

fn d5_raw(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    let ddw = DdwInfo { pgsizes: 0x1234, max_dynamic_windows_supported: 56, levels: 78 };
    let mut info = TceInfo { argsz: 16, ddw, ..TceInfo::new() };
    cx.says("GET_INFO", c.raw.info(&mut info), "0");
    cx.says("the rest is untouched", info.ddw == ddw, "yes");
    cx.says("flags", info.flags, "1");
    Ok(())
}

fn d5_engine(cx: &mut Ctx) -> Done {
    let c = cx.container(&[0])?;
    let asked = cx.spy.sent().into_iter().filter(|sent| sent.request == Request::TceGetInfo);
    let short = asked.filter(|sent| sent.argsz != TceInfo::SIZE).count() as u64;
    cx.says("GET_INFO that do not ask for all", short, "0");
    cx.says("page sizes known", c.caps().must("caps")?.page_sizes != PageSizes(0), "yes");
    Ok(())
}

/// What a POWER8 offers: 4K, 64K, 16M, 256M; a POWER9: 4K, 64K, 2M, 1G. Of real ones only the
/// smallest is known.
fn offered(cx: &Ctx, sizes: u64) -> bool {
    let usual = match cx.platform() {
        Platform::Phb3 | Platform::Npu2 => 0x1101_1000,
        Platform::Pseries => 0x101_1000,
        _ => 0x4021_1000,
    };
    sizes == usual || cx.is_real() && sizes & 0x1000 != 0
}

fn d7_raw(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    let (answer, info) = c.info();
    cx.says("GET_INFO", answer, "0");
    let said = (info.flags, info.dma32_window_start, info.dma32_window_size);
    cx.says("flags, default window", format!("{said:x?}"), "(1, 0, 80000000)");
    cx.says("page sizes of the machine", offered(cx, info.ddw.pgsizes), "yes");
    let most = (info.ddw.max_dynamic_windows_supported, info.ddw.levels);
    let levels = if cx.needs_levels().is_ok() { 5 } else { 1 };
    cx.says("windows, levels", format!("{most:?}"), format!("{:?}", (2, levels)));
    cx.v(0);
    Ok(())
}

fn d7_engine(cx: &mut Ctx) -> Done {
    let c = cx.container(&[0])?;
    let caps = c.caps().must("caps")?;
    cx.says("page sizes of the machine", offered(cx, caps.page_sizes.0), "yes");
    cx.says("levels", caps.max_levels, if cx.needs_levels().is_ok() { "5" } else { "1" });
    let starts = [Some(Ioba(0)), Some(Ioba(1 << 59))];
    cx.says("window starts", caps.window_starts == starts, "yes");
    Ok(())
}

/// Older kernels work on the memory and the books of whoever asks. Nothing can be done about that
/// from outside: who forks must not use the container in both.
fn has_owner(cx: &Ctx) -> Done {
    if cx.profile().owner_only {
        return Ok(());
    }
    Err(Stop::Skip("containers of this kernel belong to no process".to_owned()))
}

fn d9_raw(cx: &mut Ctx) -> Done {
    has_owner(cx)?;
    let c = cx.v2(&[0])?;
    let m = cx.memory(1)?;
    cx.says("REGISTER of the first", c.register(m), "0");
    for (label, answer) in cx.ask_another_process(&c)? {
        let expected = if label.starts_with("CHECK") { "+1" } else { "EPERM" };
        cx.says(label, answer, expected);
    }
    cx.says("UNREGISTER of the first", c.unregister(m), "0");
    Ok(())
}

fn d9_engine(cx: &mut Ctx) -> Done {
    has_owner(cx)?;
    let c = cx.v2(&[0])?;
    let m = cx.memory(1)?;
    c.register(m).zero("REGISTER")?;
    for (label, answer) in cx.ask_another_process(&c)? {
        cx.says(label, answer, "Backend.WrongProcess");
    }
    Ok(())
}

/// Two groups that have one page size in common.
pub(super) fn two_masks(cx: &mut Ctx) -> Done {
    if cx.early() > 0 {
        let why = "a group comes with a window of 4K pages there, which one of them has not";
        return Err(Stop::Skip(why.to_owned()));
    }
    let (small, large) = (
        PageSizes::of(&[PageShift::K4, PageShift::K64]),
        PageSizes::of(&[PageShift::K64, PageShift::M16]),
    );
    let (one, other) = (cx.g(0), cx.g(1));
    cx.rebuild(|machine| {
        let machine = machine.group(one, |group| group.page_sizes = small);
        machine.group(other, |group| group.page_sizes = large)
    })
}

fn d10_raw(cx: &mut Ctx) -> Done {
    two_masks(cx)?;
    let c = cx.v2(&[0, 1])?;
    let (answer, info) = c.info();
    cx.says("GET_INFO", answer, "0");
    cx.says("sizes of the last", info.ddw.pgsizes, "0x1010000");
    Ok(())
}

fn d10_engine(cx: &mut Ctx) -> Done {
    two_masks(cx)?;
    for groups in [[0, 1], [1, 0]] {
        let c = cx.container(&groups)?;
        cx.says(&format!("{groups:?}"), c.caps().must("caps")?.page_sizes.0, "0x10000");
    }
    Ok(())
}

fn d11_raw(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    let (m, base) = (cx.memory(16)?, cx.base());
    c.w1()?;
    c.register(m).zero("REGISTER")?;
    c.put(base, m).zero("MAP")?;
    cx.v(16 + cx.w1_cost());
    cx.says("UNSET_CONTAINER", c.raw.unset_container(cx.g(0)), "0");
    let left = cx.by(Profile::K4_9, 0, 16);
    cx.v(left);
    cx.leaks(left, left as u64);
    cx.says("MAP", c.put(base, m), "EINVAL");
    cx.says("GET_INFO", c.info().0, "EINVAL");
    Ok(())
}

fn d11_engine(cx: &mut Ctx) -> Done {
    let c = cx.windowed(&[0])?;
    let (m, base) = (cx.memory(16)?, cx.base());
    c.reg(m).must("register")?;
    c.put(base, m).must("map")?;
    cx.says("detach", c.detach(cx.g(0)), "ok");
    cx.v(0);
    refused!(cx, "map", c.put(base, m), "OutsideWindows");
    cx.says("windows", c.windows().len() as u64, "0");
    cx.says("regions", c.regions().len() as u64, "0");
    cx.says("attach again", c.attach(cx.g(0)), "ok");
    cx.says("register again", c.reg(m), "ok");
    cx.v(16);
    Ok(())
}

fn d30(cx: &mut Ctx) -> Done {
    let c = cx.open()?;
    c.join(cx.g(0))?;
    cx.says("type 1", c.set_iommu(1), "ENODEV");
    cx.says("type 99", c.set_iommu(99), "ENODEV");
    cx.says("version 2", c.set_iommu(kind::SPAPR_TCE_V2), "0");
    cx.says("again", c.set_iommu(kind::SPAPR_TCE_V2), "EINVAL");
    cx.v(cx.early());
    Ok(())
}

fn d31(cx: &mut Ctx) -> Done {
    let c = cx.open()?;
    c.join(cx.g(0))?;
    cx.says("GET_INFO before SET_IOMMU", c.info().0, "EINVAL");
    c.set_iommu(kind::SPAPR_TCE_V2).zero("SET_IOMMU")?;
    let mut info = TceInfo { argsz: 4, ..TceInfo::new() };
    cx.says("argsz 4", c.raw.info(&mut info), "EINVAL");
    cx.says("bad pointer", c.raw.fault(Request::TceGetInfo), "EFAULT");
    Ok(())
}

fn d32_raw(cx: &mut Ctx) -> Done {
    let (c, d) = (cx.v2(&[0])?, cx.open()?);
    cx.says("by the same", c.raw.open_group(cx.g(0)), "EBUSY");
    cx.says("by another container", d.raw.open_group(cx.g(0)), "EBUSY");
    Ok(())
}

fn d32_engine(cx: &mut Ctx) -> Done {
    let c = cx.container(&[0])?;
    refused!(cx, "by the same", c.attach(cx.g(0)), "Member");
    let other: &Engine = cx.engine();
    let d = other.container();
    cx.says("by another container", d.attach(cx.g(0)), "Elsewhere");
    Ok(())
}

fn d33(cx: &mut Ctx) -> Done {
    let c = cx.open()?;
    c.join(cx.g(0))?;
    cx.says("again", c.raw.set_container(cx.g(0)), "EINVAL");
    c.set_iommu(kind::SPAPR_TCE_V2).zero("SET_IOMMU")?;
    cx.says("after SET_IOMMU", c.raw.set_container(cx.g(0)), "EINVAL");
    Ok(())
}

fn d34(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    if cx.is_real() {
        let device = cx.device(0)?;
        cx.says("UNSET_CONTAINER", c.raw.unset_container(cx.g(0)), "EBUSY");
        drop(device);
    } else {
        cx.kernel()?.set_device_open(cx.g(0), true);
        cx.says("UNSET_CONTAINER", c.raw.unset_container(cx.g(0)), "EBUSY");
        cx.kernel()?.set_device_open(cx.g(0), false);
    }
    cx.says("when it is closed", c.raw.unset_container(cx.g(0)), "0");
    Ok(())
}

fn d35(cx: &mut Ctx) -> Done {
    let c = cx.open()?;
    c.raw.open_group(cx.g(0)).zero("opening the group")?;
    let both = GroupStatus::VIABLE | GroupStatus::CONTAINER_SET;
    cx.says("before", c.raw.group_status(cx.g(0)), GroupStatus::VIABLE);
    c.raw.set_container(cx.g(0)).zero("SET_CONTAINER")?;
    cx.says("in the container", c.raw.group_status(cx.g(0)), both);
    Ok(())
}

fn d36(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    let offered: Vec<_> = (1..=12).filter(|n| c.raw.check_extension(*n) == Ok(1)).collect();
    cx.says("of 1 to 12", format!("{offered:?}"), "[2, 5, 7]");
    Ok(())
}

fn d37(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    let (m, base) = (cx.memory(1)?, cx.base());
    c.register(m).zero("REGISTER")?;
    c.raw.unset_container(cx.g(0)).zero("UNSET_CONTAINER")?;
    let left = cx.by(Profile::K4_9, 0, 1);
    cx.v(left);
    cx.says("SET_CONTAINER", c.raw.set_container(cx.g(0)), "0");
    cx.says("SET_IOMMU", c.set_iommu(kind::SPAPR_TCE_V2), "0");
    cx.says("nothing is registered", c.map(RW, base, m.at, m.bytes), "EPERM");
    // What outlived the container can be found in it.
    cx.v(left + cx.early());
    Ok(())
}
