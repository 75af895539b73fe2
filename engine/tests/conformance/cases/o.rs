// SPDX-License-Identifier: Apache-2.0 OR MIT
//! O: what goes wrong from outside: groups that cannot be had, limits, lost containers, killed
//! processes.

use std::fs;
use std::time::{Duration, Instant};

use tce_engine::backend::linux::raw::RawContainer;
use tce_engine::backend::linux::uapi::GroupStatus;
use tce_engine::{GroupId, Ioba};

use crate::case::{Case, Done, Must, On, Stop, Zero, case};
use crate::ctx::{Ctx, Eng, G, refused};
use crate::rig::Rig;

pub(crate) const CASES: &[Case] = &[
    case("O1", On::Both, "a group that does not exist").raw(o1_raw).engine(o1_engine),
    case("O2", On::Both, "a group that is in use").raw(o2_raw).engine(o2_engine),
    case("O3", On::Mock, "a group that is not viable").raw(o3_raw).engine(o3_engine),
    case("O4", On::Mock, "a container that is lost half way").raw(o4_raw).engine(o4_engine),
    case("O5", On::Real, "the group's last device is taken away").raw(o5_raw).engine(o5_engine),
    case("O6", On::Both, "limit too small for the table").raw(o6_raw).engine(o6_engine),
    case("O7", On::Both, "limit too small for the region").raw(o7_raw).engine(o7_engine),
    case("O8", On::Both, "limit too small for both").raw(o8_raw).engine(o8_engine),
    case("O9", On::Real, "a process is killed: nothing stays").raw(o9).engine(o9),
];

const NOBODY: GroupId = GroupId(4711);

fn o1_raw(cx: &mut Ctx) -> Done {
    let c = cx.open()?;
    cx.says("opening it", c.raw.open_group(NOBODY), "ENOENT");
    cx.says("status", c.raw.group_status(NOBODY), "EINVAL");
    Ok(())
}

fn o1_engine(cx: &mut Ctx) -> Done {
    let c = cx.container(&[0])?;
    cx.says("attach", c.attach(NOBODY), "Backend.NoGroup");
    cx.says("groups", c.groups().len() as u64, "1");
    cx.says("create_window", c.window(G, 16, 1), "ok");
    Ok(())
}

fn o2_raw(cx: &mut Ctx) -> Done {
    let (_holder, c) = (cx.v2(&[0])?, cx.open()?);
    cx.says("opening it", c.raw.open_group(cx.g(0)), "EBUSY");
    Ok(())
}

fn o2_engine(cx: &mut Ctx) -> Done {
    let holder = cx.v2(&[0])?;
    let c = cx.container(&[1])?;
    cx.says("attach", c.attach(cx.g(0)), "Backend.GroupBusy");
    drop(holder);
    cx.says("when it is free", c.attach(cx.g(0)), "ok");
    Ok(())
}

fn o3_raw(cx: &mut Ctx) -> Done {
    let group = cx.g(1);
    cx.rebuild(|machine| machine.group(group, |group| group.viable = false))?;
    let c = cx.v2(&[0])?;
    c.raw.open_group(group).zero("opening the group")?;
    let viable = c.raw.group_status(group).map(|flags| flags & GroupStatus::VIABLE);
    cx.says("viable", viable, "0");
    cx.says("SET_CONTAINER", c.raw.set_container(group), "EPERM");
    Ok(())
}

fn o3_engine(cx: &mut Ctx) -> Done {
    let group = cx.g(1);
    cx.rebuild(|machine| machine.group(group, |group| group.viable = false))?;
    let c = cx.container(&[0])?;
    cx.says("attach", c.attach(group), "Backend.NotViable");
    cx.says("groups", c.groups().len() as u64, "1");
    Ok(())
}

fn o4_raw(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    let (m, base) = (cx.memory(16)?, cx.base());
    c.w1()?;
    c.register(m).zero("REGISTER")?;
    c.put(base, m).zero("MAP")?;
    let kernel = cx.kernel()?;
    kernel.containers().into_iter().for_each(|container| kernel.lose(container));
    cx.says("MAP", c.put(base, m), "ENODEV");
    cx.says("UNMAP", c.take(base, m.bytes), "ENODEV");
    cx.says("UNREGISTER", c.unregister(m), "ENODEV");
    cx.says("REMOVE", c.remove(0), "ENODEV");
    cx.v(16 + cx.w1_cost());
    drop(c);
    cx.v(0);
    Ok(())
}

fn o4_engine(cx: &mut Ctx) -> Done {
    let c = cx.windowed(&[0])?;
    let (m, base) = (cx.memory(16)?, cx.base());
    c.reg(m).must("register")?;
    c.put(base, m.part(0, 8)).must("map")?;
    let kernel = cx.kernel()?;
    kernel.containers().into_iter().for_each(|container| kernel.lose(container));
    cx.says("map", c.put(base + 8 * cx.p(), m.part(8, 8)), "Backend.Kernel");
    cx.says("replace", c.replace(base, m.part(0, 2)), "Lost");
    cx.says("register", c.reg(m.part(16, 4)), "Backend.Kernel");
    cx.says("create_window", c.window(G, 16, 1), "Backend.Kernel");
    drop(c);
    cx.v(0);
    Ok(())
}

const DRIVER: &str = "/sys/bus/pci/drivers/vfio-pci";

/// Takes the only device of the nth group from its driver while `during` runs.
fn without_device(cx: &mut Ctx, n: usize, during: impl FnOnce(&mut Ctx) -> Done) -> Done {
    let group = cx.g(n);
    let Rig::Real(real) = &cx.rig else {
        return Err(Stop::Skip("no real devices".to_owned()));
    };
    let devices = real.found.devices.get(&group).into_iter().flatten();
    let names: Vec<_> = devices.filter(|d| !d.bridge).map(|d| d.name.clone()).collect();
    let [name] = names.as_slice() else {
        return Err(Stop::Skip(format!("group {group} has the devices {names:?}")));
    };
    fs::write(format!("{DRIVER}/unbind"), name).must("taking the device away")?;
    let done = during(cx);
    fs::write(format!("{DRIVER}/bind"), name).must("giving the device back")?;
    done
}

/// Its group leaves, and is the last: all goes at once.
fn o5_raw(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    let (m, base) = (cx.memory(16)?, cx.base());
    c.w1()?;
    c.register(m).zero("REGISTER")?;
    c.put(base, m).zero("MAP")?;
    without_device(cx, 0, |cx| {
        cx.v(0);
        cx.says("MAP", c.put(base, m), "EINVAL");
        cx.says("UNMAP", c.take(base, m.bytes), "EINVAL");
        cx.says("UNREGISTER", c.unregister(m), "EINVAL");
        cx.says("REMOVE", c.remove(0), "EINVAL");
        drop(c);
        cx.v(0);
        Ok(())
    })
}

fn o5_engine(cx: &mut Ctx) -> Done {
    let c = cx.windowed(&[0])?;
    let (m, base) = (cx.memory(16)?, cx.base());
    c.reg(m.part(0, 8)).must("register")?;
    c.put(base, m.part(0, 8)).must("map")?;
    without_device(cx, 0, |cx| {
        // The kernel has given back what the ledger shows until the container is closed.
        cx.lose_books();
        cx.says("map", c.put(base + 8 * cx.p(), m.part(0, 8)), "Backend.Kernel");
        cx.says("register", c.reg(m.part(8, 8)), "Backend.Kernel");
        cx.says("create_window", c.window(G, 16, 1), "Backend.Kernel");
        drop(c);
        cx.v(0);
        let left = cx.engine().ledger().pages();
        cx.says("ledger", left, "0");
        Ok(())
    })
}

fn o6_raw(cx: &mut Ctx) -> Done {
    cx.limit(2)?;
    let c = cx.v2(&[0])?;
    let m = cx.memory(1)?;
    c.remove(0).zero("REMOVE")?;
    cx.says("REGISTER", c.register(m), "0");
    cx.says("CREATE", c.create(G, cx.io(), 1).0, "ENOMEM");
    cx.v(1);
    Ok(())
}

fn o6_engine(cx: &mut Ctx) -> Done {
    cx.limit(2)?;
    let c = cx.container(&[0])?;
    let m = cx.memory(1)?;
    cx.says("register", c.reg(m), "ok");
    refused!(cx, "create_window", c.window(G, cx.io(), 1), "Limit");
    cx.v(1);
    Ok(())
}

fn o7_raw(cx: &mut Ctx) -> Done {
    let pages = cx.w1_cost() as u64 + 15;
    cx.limit(pages)?;
    let c = cx.v2(&[0])?;
    let m = cx.memory(16)?;
    c.w1()?;
    cx.says("REGISTER", c.register(m), "ENOMEM");
    cx.v(cx.w1_cost());
    cx.says("REGISTER of one page less", c.register(m.part(0, 15)), "0");
    Ok(())
}

fn o7_engine(cx: &mut Ctx) -> Done {
    let pages = cx.w1_cost() as u64 + 15;
    cx.limit(pages)?;
    let c = cx.windowed(&[0])?;
    let m = cx.memory(16)?;
    refused!(cx, "register", c.reg(m), "Limit");
    cx.v(cx.w1_cost());
    cx.says("register one page less", c.reg(m.part(0, 15)), "ok");
    Ok(())
}

fn o8_raw(cx: &mut Ctx) -> Done {
    cx.limit(0)?;
    let c = cx.v2(&[0])?;
    let (m, base) = (cx.memory(1)?, cx.base());
    c.remove(0).zero("REMOVE")?;
    cx.says("REGISTER", c.register(m), "ENOMEM");
    cx.says("CREATE", c.create(G, cx.io(), 1).0, "ENOMEM");
    cx.says("MAP", c.put(base, m), "EPERM");
    cx.v(0);
    Ok(())
}

fn o8_engine(cx: &mut Ctx) -> Done {
    cx.limit(0)?;
    let c = cx.container(&[0])?;
    let m = cx.memory(1)?;
    refused!(cx, "register", c.reg(m), "Limit");
    refused!(cx, "create_window", c.window(G, cx.io(), 1), "Limit");
    cx.v(0);
    Ok(())
}

/// Pages that are pinned on the whole machine.
fn pinned() -> Option<u64> {
    // The counters of each processor are added up only now and then, or now.
    fs::write("/proc/sys/vm/stat_refresh", "1").ok()?;
    let text = fs::read_to_string("/proc/vmstat").ok()?;
    let count = |name| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse::<u64>().ok()
    };
    Some(count("nr_foll_pin_acquired ")? - count("nr_foll_pin_released ")?)
}

fn o9(cx: &mut Ctx) -> Done {
    let before = pinned();
    let mut victim = cx.victim()?;
    let busy = cx.open()?;
    cx.says("its group", busy.raw.open_group(cx.g(0)), "EBUSY");
    victim.kill().must("killing it")?;
    victim.wait().must("waiting for its end")?;
    cx.v(0);
    // Its memory is unpinned a little later.
    let begun = Instant::now();
    while pinned() > before && begun.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(20));
    }
    cx.says("pinned more than before", pinned() > before, "no");
    drop(busy);
    let m = cx.memory(64)?;
    let base = cx.base();
    let c = cx.windowed(&[0, 1])?;
    cx.says("register", c.reg(m), "ok");
    cx.says("map", c.put(base, m), "ok");
    cx.says("unmap", c.take(base, m.bytes), "ok");
    cx.says("windows", c.windows().first().map_or(1, |w| w.start.0), Ioba(0).0);
    Ok(())
}
