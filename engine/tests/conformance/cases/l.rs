// SPDX-License-Identifier: Apache-2.0 OR MIT
//! L: the whole path.

use tce_engine::Ioba;
use tce_engine::backend::linux::raw::RawContainer;
use tce_engine::container::Removal;

use crate::case::{Case, Done, On, case};
use crate::ctx::{Ctx, Eng, G, M, refused};

pub(crate) const CASES: &[Case] = &[
    case("L1", On::Both, "version 2 is offered").raw(l1),
    case("L2", On::Both, "the whole path with 64 MiB").raw(l2_raw).engine(l2_engine),
    case("L3", On::Both, "a bus address off a page changes nothing").raw(l3_raw).engine(l3_engine),
    case("L4", On::Both, "VmLck and ledger after every step").engine(l4_engine),
];

fn l1(cx: &mut Ctx) -> Done {
    let c = cx.open()?;
    cx.says("CHECK_EXTENSION 7", c.raw.check_extension(7), "+1");
    Ok(())
}

fn l2_raw(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    let (pages, base) = ((64 * M) >> cx.host(), cx.base());
    let m = cx.memory(pages)?;
    cx.says("REMOVE of the default window", c.remove(0), "0");
    cx.says("CREATE", c.create(G, cx.io(), 1).0, "0");
    cx.says("REGISTER", c.register(m), "0");
    cx.v(pages as i64 + cx.w1_cost());
    cx.says("MAP", c.put(base, m), "0");
    cx.says("UNMAP", c.take(base, m.bytes), "0");
    cx.says("UNREGISTER", c.unregister(m), "0");
    cx.says("REMOVE", c.remove(0), "0");
    cx.v(0);
    Ok(())
}

fn l2_engine(cx: &mut Ctx) -> Done {
    let c = cx.container(&[0])?;
    let (pages, base) = ((64 * M) >> cx.host(), cx.base());
    let m = cx.memory(pages)?;
    cx.says("create_window", c.window(G, cx.io(), 1), "ok");
    cx.says("register", c.reg(m), "ok");
    cx.v(pages as i64 + cx.w1_cost());
    cx.says("map", c.put(base, m), "ok");
    cx.says("unmap", c.take(base, m.bytes), "ok");
    cx.says("map from page 0", c.put(0, m), "ok");
    cx.says("unmap", c.take(0, m.bytes), "ok");
    cx.says("unregister", c.unreg(m), "ok");
    cx.says("remove_window", c.remove_window(Ioba(0), Removal::IfUnmapped), "ok");
    cx.v(0);
    Ok(())
}

fn l3_raw(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    let (m, base) = (cx.memory(1)?, cx.base());
    c.w1()?;
    cx.says("REGISTER", c.register(m), "0");
    cx.says("MAP", c.put(base + 0x800, m), "+1");
    cx.says("UNMAP", c.take(base + 0x800, m.bytes), "+1");
    cx.says("UNREGISTER", c.unregister(m), "0");
    cx.v(cx.w1_cost());
    Ok(())
}

fn l3_engine(cx: &mut Ctx) -> Done {
    let c = cx.windowed(&[0])?;
    let (m, base) = (cx.memory(1)?, cx.base());
    cx.says("register", c.reg(m), "ok");
    refused!(cx, "map", c.put(base + 0x800, m), "Unaligned");
    refused!(cx, "unmap", c.take(base + 0x800, m.bytes), "Unaligned");
    cx.says("unregister", c.unreg(m), "ok");
    Ok(())
}

/// Two containers that share regions and not windows; every step compares.
fn l4_engine(cx: &mut Ctx) -> Done {
    let (c, d) = (cx.container(&[0, 1])?, cx.container(&[2])?);
    let (m, n, base) = (cx.memory(32)?, cx.memory(16)?, cx.base());
    cx.says("window", c.window(G, cx.io(), 1), "ok");
    cx.says("another", c.window(4 * G, cx.io(), 2), "ok");
    cx.says("of the other", d.window(2 * G, 12, 1), "ok");
    for container in [&c, &d] {
        cx.says("register", container.reg(m), "ok");
        cx.says("register", container.reg(n), "ok");
        cx.says("map", container.put(base, m), "ok");
        cx.says("replace", container.replace(base + 8 * cx.p(), n), "ok");
    }
    cx.says("unmap", c.take(base, m.bytes), "ok");
    cx.says("remove", c.remove_window(Ioba(1 << 59), Removal::Force), "ok");
    cx.says("unregister", c.unreg(m), "ok");
    refused!(cx, "unregister what the other maps", d.unreg(m), "Mapped");
    cx.says("detach", d.detach(cx.g(2)), "ok");
    cx.says("unregister", c.unreg(n), "ok");
    cx.v(cx.w1_cost());
    Ok(())
}
