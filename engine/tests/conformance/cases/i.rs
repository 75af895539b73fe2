// SPDX-License-Identifier: Apache-2.0 OR MIT
//! I: several groups.

use tce_engine::backend::linux::mock_kernel::{Event, GroupState, Injection, Profile};
use tce_engine::backend::linux::raw::RawContainer;
use tce_engine::backend::linux::uapi::{EehPeOp, Request, eeh_op};
use tce_engine::tce::Perm;
use tce_engine::{EehOp, EehState, Ioba};

use super::d::two_masks;
use crate::case::{Case, Done, Must, On, Stop, Zero, case};
use crate::ctx::{Ctx, Eng, G, SECOND, refused};
use crate::rig::Mem;

pub(crate) const CASES: &[Case] = &[
    case("I1", On::Both, "two groups in one container: one charge").raw(i1_raw).engine(i1_engine),
    case("I2", On::Both, "two containers, one region: two tables").raw(i2_raw).engine(i2_engine),
    case("I3", On::Both, "a group attached twice, then used").raw(i3_raw).engine(i3_engine),
    case("I4", On::Mock, "a group of another kind").raw(i4_raw).engine(i4_engine),
    case("I7", On::Mock, "the second window of a joining group is refused")
        .raw(i7_raw)
        .engine(i7_engine),
    case("I9", On::Mock, "default windows that start elsewhere")
        .raw(i9_raw)
        .engine(i9_engine)
        .instead("refuses to share tables that would lie at different bus addresses"),
    case("I10", On::Mock, "groups with 64K pages in common")
        .raw(i10_raw)
        .engine(i10_engine)
        .instead("offers what all have, in whatever order they joined"),
    case("I11", On::Both, "a group joins when something is mapped").raw(i11_raw).engine(i11_engine),
    case("I13", On::Both, "a group leaves the others")
        .raw(i13_raw)
        .engine(i13_engine)
        .instead("refuses; or, if asked for, maps again what the kernel has wiped"),
    case("I16", On::Both, "the end with live mappings: kills before unpins")
        .raw(i16_raw)
        .engine(i16_engine),
    case("I17", On::Mock, "EEH state of two groups, one frozen")
        .raw(i17_raw)
        .engine(i17_engine)
        .instead("handles a group that is alone; of several it says that it cannot"),
];

/// Live windows and mappings as a device of the nth group finds them: does it copy?
fn works(cx: &Ctx, n: usize, base: u64, m: Mem) -> Result<bool, Stop> {
    let device = cx.device(n)?;
    cx.copies(&device, (base, m.part(0, 1)), (base + cx.p(), m.part(1, 1)))
}

fn i1_raw(cx: &mut Ctx) -> Done {
    cx.needs_sharing()?;
    let c = cx.v2(&[0, 1])?;
    let (m, base) = (cx.memory(4)?, cx.base());
    c.w1()?;
    cx.v(cx.w1_cost());
    c.register(m).zero("REGISTER")?;
    c.put(base, m).zero("MAP")?;
    for n in [0, 1] {
        cx.says("the device copies", works(cx, n, base, m)?, "yes");
    }
    Ok(())
}

fn i1_engine(cx: &mut Ctx) -> Done {
    cx.needs_sharing()?;
    let c = cx.windowed(&[0, 1])?;
    let (m, base) = (cx.memory(4)?, cx.base());
    cx.v(cx.w1_cost());
    c.reg(m).must("register")?;
    cx.says("map", c.put(base, m), "ok");
    for n in [0, 1] {
        cx.says("the device copies", works(cx, n, base, m)?, "yes");
    }
    Ok(())
}

fn i2_raw(cx: &mut Ctx) -> Done {
    let (c, d) = (cx.v2(&[0])?, cx.v2(&[1])?);
    let m = cx.memory(16)?;
    for ct in [&c, &d] {
        ct.w1()?;
        ct.register(m).zero("REGISTER")?;
    }
    cx.v(2 * cx.w1_cost() + 16);
    drop(c);
    cx.v(cx.w1_cost() + 16);
    Ok(())
}

fn i2_engine(cx: &mut Ctx) -> Done {
    let (c, d) = (cx.windowed(&[0])?, cx.windowed(&[1])?);
    let m = cx.memory(16)?;
    cx.says("register", c.reg(m), "ok");
    cx.says("register", d.reg(m), "ok");
    cx.v(2 * cx.w1_cost() + 16);
    drop(c);
    cx.v(cx.w1_cost() + 16);
    Ok(())
}

fn i3_raw(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    let (m, base) = (cx.memory(4)?, cx.base());
    cx.says("opened again", c.raw.open_group(cx.g(0)), "EBUSY");
    cx.says("SET_CONTAINER again", c.raw.set_container(cx.g(0)), "EINVAL");
    c.w1()?;
    c.register(m).zero("REGISTER")?;
    cx.says("MAP", c.put(base, m), "0");
    cx.says("UNSET_CONTAINER", c.raw.unset_container(cx.g(0)), "0");
    let left = cx.by(Profile::K4_9, 0, 4);
    cx.v(left);
    cx.leaks(left, left as u64);
    cx.says("again", c.raw.unset_container(cx.g(0)), "EINVAL");
    Ok(())
}

fn i3_engine(cx: &mut Ctx) -> Done {
    let c = cx.windowed(&[0])?;
    let (m, base) = (cx.memory(4)?, cx.base());
    refused!(cx, "attach again", c.attach(cx.g(0)), "Member");
    c.reg(m).must("register")?;
    cx.says("map", c.put(base, m), "ok");
    cx.says("detach", c.detach(cx.g(0)), "ok");
    cx.v(0);
    refused!(cx, "detach again", c.detach(cx.g(0)), "NotMember");
    Ok(())
}

fn i4_raw(cx: &mut Ctx) -> Done {
    let group = cx.g(1);
    cx.rebuild(|machine| machine.group(group, |group| group.ops = 1))?;
    let c = cx.v2(&[0])?;
    let (m, base) = (cx.memory(4)?, cx.base());
    c.w1()?;
    c.register(m).zero("REGISTER")?;
    c.raw.open_group(group).zero("opening the group")?;
    cx.says("SET_CONTAINER", c.raw.set_container(group), "EPERM");
    cx.says("MAP", c.put(base, m), "0");
    cx.says("the first works", works(cx, 0, base, m)?, "yes");
    Ok(())
}

fn i4_engine(cx: &mut Ctx) -> Done {
    let group = cx.g(1);
    cx.rebuild(|machine| machine.group(group, |group| group.ops = 1))?;
    let c = cx.windowed(&[0])?;
    let (m, base) = (cx.memory(4)?, cx.base());
    c.reg(m).must("register")?;
    let refused = if late(cx) == "yes" { "Backend.Kernel" } else { "Backend.Guarded" };
    cx.says("attach", c.attach(group), refused);
    cx.says("groups", c.groups().len() as u64, "1");
    cx.says("map", c.put(base, m), "ok");
    cx.says("the first works", works(cx, 0, base, m)?, "yes");
    Ok(())
}

/// What the second group finds in either window.
fn faults(cx: &Ctx) -> Result<String, Stop> {
    let find = |at| -> Result<_, Stop> {
        Ok(match cx.kernel()?.translate(cx.g(1), Ioba(at), Perm::NONE) {
            Ok(_) => "found".to_owned(),
            Err(fault) => fault.to_string(),
        })
    };
    Ok(format!("{}, {}", find(cx.base())?, find(SECOND)?))
}

const NEITHER: &str = "window 0 is not set, window 1 is not set";

fn i7_raw(cx: &mut Ctx) -> Done {
    cx.needs_sharing()?;
    let c = cx.v2(&[0])?;
    let (m, base) = (cx.memory(4)?, cx.base());
    c.w1()?;
    c.create(G, cx.io(), 1).0.zero("CREATE")?;
    c.register(m).zero("REGISTER")?;
    let (group, locked) = (cx.g(1), 2 * cx.w1_cost() + 4);
    cx.v(locked);
    c.raw.open_group(group).zero("opening the group")?;
    if !cx.profile().late_joiner_gets_windows {
        cx.says("SET_CONTAINER", c.raw.set_container(group), "0");
        cx.says("the second finds", faults(cx)?, NEITHER);
        return Ok(());
    }
    cx.kernel()?.inject(Injection::SetWindow { group, slot: 1, code: -1 });
    cx.says("SET_CONTAINER", c.raw.set_container(group), "EPERM");
    cx.says("the second finds", faults(cx)?, NEITHER);
    cx.v(locked);
    cx.says("MAP", c.put(base, m), "0");
    cx.says("the first works", works(cx, 0, base, m)?, "yes");
    cx.says("SET_CONTAINER again", c.raw.set_container(group), "0");
    cx.says("the second works", works(cx, 1, base, m)?, "yes");
    Ok(())
}

fn i7_engine(cx: &mut Ctx) -> Done {
    cx.needs_sharing()?;
    let c = cx.windowed(&[0])?;
    let (m, base) = (cx.memory(4)?, cx.base());
    c.window(G, cx.io(), 1).must("a second window")?;
    c.reg(m).must("register")?;
    let group = cx.g(1);
    if !cx.profile().late_joiner_gets_windows {
        cx.says_why("attach", &c.attach(group), "add all groups first");
        cx.says("the first works", c.put(base, m), "ok");
        return Ok(());
    }
    cx.kernel()?.inject(Injection::SetWindow { group, slot: 1, code: -1 });
    cx.says_why("attach", &c.attach(group), "firmware code -1");
    cx.says("the second finds", faults(cx)?, NEITHER);
    cx.v(2 * cx.w1_cost() + 4);
    cx.says("map", c.put(base, m), "ok");
    cx.says("the first works", works(cx, 0, base, m)?, "yes");
    cx.says("attach again", c.attach(group), "ok");
    cx.says("the second works", works(cx, 1, base, m)?, "yes");
    Ok(())
}

fn i9(cx: &mut Ctx) -> Done {
    let other = cx.g(1);
    cx.rebuild(|machine| machine.group(other, |group| group.dma32_start = 1 << 30))
}

fn i9_raw(cx: &mut Ctx) -> Done {
    i9(cx)?;
    let c = cx.v2(&[0])?;
    c.raw.open_group(cx.g(1)).zero("opening the group")?;
    cx.says("SET_CONTAINER", c.raw.set_container(cx.g(1)), "0");
    Ok(())
}

fn i9_engine(cx: &mut Ctx) -> Done {
    i9(cx)?;
    let c = cx.container(&[0])?;
    cx.says("attach", c.attach(cx.g(1)), "Incompatible");
    cx.says("groups", c.groups().len() as u64, "1");
    Ok(())
}

/// The kernel looks at the last group only; the firmware of the other then refuses.
fn i10_raw(cx: &mut Ctx) -> Done {
    cx.needs_sharing()?;
    two_masks(cx)?;
    for (groups, answer) in [([0, 1], "EINVAL"), ([1, 0], "EPERM")] {
        let c = cx.v2(&groups)?;
        c.remove(0).zero("REMOVE")?;
        cx.says("CREATE of 4K pages", c.create(G, 12, 1).0, answer);
        cx.says("CREATE of 64K pages", c.create(G, 16, 1).0, "0");
    }
    Ok(())
}

fn i10_engine(cx: &mut Ctx) -> Done {
    cx.needs_sharing()?;
    two_masks(cx)?;
    for groups in [[0, 1], [1, 0]] {
        let c = cx.container(&groups)?;
        refused!(cx, "a window of 4K pages", c.window(G, 12, 1), "PageSize");
        refused!(cx, "a window of 16M pages", c.window(G, 24, 1), "PageSize");
        cx.says("a window of 64K pages", c.window(G, 16, 1), "ok");
    }
    Ok(())
}

/// Whether a group that joins late gets the windows.
fn late(cx: &Ctx) -> &'static str {
    if cx.profile().late_joiner_gets_windows { "yes" } else { "no" }
}

fn i11_raw(cx: &mut Ctx) -> Done {
    cx.needs_sharing()?;
    let c = cx.v2(&[0])?;
    let (m, base) = (cx.memory(4)?, cx.base());
    c.w1()?;
    c.register(m).zero("REGISTER")?;
    c.put(base, m).zero("MAP")?;
    if let Ok(kernel) = cx.kernel() {
        drop(kernel.take_events());
    }
    c.join(cx.g(1))?;
    if let Ok(kernel) = cx.kernel() {
        let killed = kernel.take_events().contains(&Event::KillAll { group: cx.g(1) });
        cx.says("killed", killed, late(cx));
    }
    cx.says("the joined one works", works(cx, 1, base, m)?, late(cx));
    cx.v(4 + cx.w1_cost());
    Ok(())
}

fn i11_engine(cx: &mut Ctx) -> Done {
    cx.needs_sharing()?;
    let c = cx.windowed(&[0])?;
    let (m, base) = (cx.memory(4)?, cx.base());
    c.reg(m).must("register")?;
    c.put(base, m).must("map")?;
    if late(cx) == "yes" {
        cx.says("attach", c.attach(cx.g(1)), "ok");
        cx.says("the joined one works", works(cx, 1, base, m)?, "yes");
    } else {
        cx.says_why("attach", &c.attach(cx.g(1)), "add all groups first");
    }
    cx.says("the first still works", works(cx, 0, base, m)?, "yes");
    cx.v(4 + cx.w1_cost());
    Ok(())
}

fn i13_raw(cx: &mut Ctx) -> Done {
    cx.needs_sharing()?;
    let c = cx.v2(&[0, 1])?;
    let (m, base) = (cx.memory(4)?, cx.base());
    c.w1()?;
    c.register(m).zero("REGISTER")?;
    c.put(base, m).zero("MAP")?;
    cx.says("the first works", works(cx, 0, base, m)?, "yes");
    cx.says("UNSET_CONTAINER", c.raw.unset_container(cx.g(1)), "0");
    let clears = cx.since(Profile::K6_11);
    cx.says("the first works", works(cx, 0, base, m)?, if clears { "no" } else { "yes" });
    if !clears {
        // I12: nothing has changed for it.
        cx.says("UNMAP", c.take(base, m.bytes), "0");
    }
    // Nothing is counted any more.
    cx.says("UNREGISTER", c.unregister(m), "0");
    cx.v(cx.w1_cost());
    c.register(m).zero("REGISTER")?;
    cx.says("MAP again", c.put(base, m), "0");
    cx.says("the first works", works(cx, 0, base, m)?, "yes");
    Ok(())
}

fn i13_engine(cx: &mut Ctx) -> Done {
    cx.needs_sharing()?;
    let (m, base) = (cx.memory(4)?, cx.base());
    let c = cx.windowed(&[0, 1])?;
    c.reg(m).must("register")?;
    c.put(base, m).must("map")?;
    refused!(cx, "detach", c.detach(cx.g(1)), "Shared");
    cx.says("the first works", works(cx, 0, base, m)?, "yes");
    drop(c);
    cx.engine_replays();
    let c = cx.windowed(&[0, 1])?;
    c.window(G, cx.io(), 2).must("a second window")?;
    c.reg(m).must("register")?;
    c.put(base, m).must("map")?;
    c.put(SECOND, m).must("map")?;
    let replayed = c.detach(cx.g(1)).map(|detached| detached.replayed);
    cx.says("replayed", replayed, "8");
    cx.says("live", c.mapped(m), "8");
    cx.says("the first works", works(cx, 0, base, m)?, "yes");
    cx.says("in its second window", works(cx, 0, SECOND, m)?, "yes");
    refused!(cx, "unregister", c.unreg(m), "Mapped");
    if late(cx) == "yes" {
        cx.says("attach again", c.attach(cx.g(1)), "ok");
        cx.says("the second works", works(cx, 1, base, m)?, "yes");
    }
    Ok(())
}

/// Kills of every group come before anything is unpinned.
fn kills_first(events: &[Event], groups: [tce_engine::GroupId; 2]) -> bool {
    let unpin = events.iter().position(|event| matches!(event, Event::Unpin { .. }));
    let killed = |group| {
        events.iter().position(|event| {
            matches!(
                event,
                Event::Kill { group: g, .. }
                    | Event::KillEach { group: g, .. }
                    | Event::KillAll { group: g } if *g == group
            )
        })
    };
    unpin.is_some() && groups.iter().all(|group| killed(*group).is_some_and(|at| Some(at) < unpin))
}

fn i16_raw(cx: &mut Ctx) -> Done {
    cx.needs_sharing()?;
    let c = cx.v2(&[0, 1])?;
    let (m, base) = (cx.memory(4)?, cx.base());
    c.w1()?;
    c.register(m).zero("REGISTER")?;
    cx.says("MAP", c.put(base, m), "0");
    if let Ok(kernel) = cx.kernel() {
        drop(kernel.take_events());
    }
    drop(c);
    if let Ok(kernel) = cx.kernel() {
        let first = kills_first(&kernel.take_events(), [cx.g(0), cx.g(1)]);
        cx.says("kills come first", first, "yes");
    }
    cx.v(0);
    Ok(())
}

fn i16_engine(cx: &mut Ctx) -> Done {
    cx.needs_sharing()?;
    let c = cx.windowed(&[0, 1])?;
    let (m, base) = (cx.memory(4)?, cx.base());
    c.reg(m).must("register")?;
    cx.says("map", c.put(base, m), "ok");
    if let Ok(kernel) = cx.kernel() {
        drop(kernel.take_events());
    }
    c.close();
    let sent = cx.sent();
    let at = |request| sent.iter().position(|sent| sent.request == request);
    let order = [Request::UnmapDma, Request::TceRemove, Request::UnregisterMemory].map(at);
    let in_order = order.is_sorted() && order.iter().all(Option::is_some);
    cx.says("UNMAP, REMOVE, UNREGISTER", in_order, "yes");
    if let Ok(kernel) = cx.kernel() {
        let first = kills_first(&kernel.take_events(), [cx.g(0), cx.g(1)]);
        cx.says("kills come first", first, "yes");
    }
    cx.v(0);
    Ok(())
}

fn i17_engine(cx: &mut Ctx) -> Done {
    let (first, second) = (cx.g(0), cx.g(1));
    let c = cx.container(&[0])?;
    cx.kernel()?.set_group_state(first, GroupState::Stopped);
    let alone = c.eeh_states().map(|states| format!("{states:?}"));
    cx.says("alone", alone, format!("{:?}", [(first, Ok::<_, ()>(EehState::Stopped))]));
    cx.says("UNFREEZE_IO", c.eeh_of(first, EehOp::UnfreezeIo), "ok");
    c.attach(second).must("attach")?;
    refused!(cx, "of two", c.eeh_states().map(drop), "Ambiguous");
    refused!(cx, "reset of two", c.eeh(EehOp::ResetHot).map(drop), "Shared");
    refused!(cx, "reset of one of two", c.eeh_of(second, EehOp::ResetHot), "Shared");
    let is = [first, second].map(|group| cx.kernel().ok().and_then(|k| k.group_state(group)));
    let expected = [GroupState::DmaStopped, GroupState::Normal].map(Some);
    cx.says("states", format!("{is:?}"), format!("{expected:?}"));
    c.close();
    c.attach(first).must("attach")?;
    cx.says("UNFREEZE_DMA", c.eeh_of(first, EehOp::UnfreezeDma), "ok");
    let alone = c.eeh_states().map(|states| format!("{states:?}"));
    cx.says("alone again", alone, format!("{:?}", [(first, Ok::<_, ()>(EehState::Normal))]));
    Ok(())
}

fn i17_raw(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0, 1])?;
    let state = EehPeOp::new(eeh_op::GET_STATE);
    cx.says("both normal", c.raw.eeh(&state), "0");
    for frozen in [0, 1] {
        cx.kernel()?.set_group_state(cx.g(frozen), GroupState::Stopped);
        cx.says("one frozen", c.raw.eeh(&state), "+2");
        // An operation goes to all of them.
        c.raw.eeh(&EehPeOp::new(eeh_op::UNFREEZE_IO)).zero("UNFREEZE_IO")?;
        cx.says("after UNFREEZE_IO", c.raw.eeh(&state), "+4");
        c.raw.eeh(&EehPeOp::new(eeh_op::UNFREEZE_DMA)).zero("UNFREEZE_DMA")?;
    }
    Ok(())
}
