// SPDX-License-Identifier: Apache-2.0 OR MIT
//! I12, and I from 30 on: more about several groups, as observed.

use tce_engine::backend::linux::mock_kernel::Profile;
use tce_engine::backend::linux::raw::RawContainer;
use tce_engine::backend::linux::uapi::{EehPeOp, Request, eeh_op, kind};
use tce_engine::container::Removal;
use tce_engine::error::AttachError;
use tce_engine::tce::Perm;
use tce_engine::{EehFunction, EehInjection, EehOp, EehState, Ioba};

use crate::case::{Case, Done, Must, On, Stop, Zero, case};
use crate::ctx::{Ctx, Eng, G, SECOND, refused};
use crate::rig::GROUPS;

pub(crate) const CASES: &[Case] = &[
    case("I12", On::Mock, "a group leaves the others, before Linux 6.11").raw(i12_raw),
    case("I30", On::Both, "all groups in one container, before and after SET_IOMMU")
        .raw(i30_raw)
        .engine(i30_engine),
    case("I31", On::Both, "a group moves to another container").raw(i31_raw).engine(i31_engine),
    case("I32", On::Both, "EEH: operations, argsz, flags, bad pointer").raw(i32).engine(i32_engine),
    case("I33", On::Both, "attaching costs nothing").raw(i33_raw).engine(i33_engine),
    case("I34", On::Mock, "default windows of another size").raw(i34_raw).engine(i34_engine),
    case("I35", On::Both, "a window that KVM edits").engine(i35_engine),
    case("I36", On::Both, "mappings that cannot be replayed").engine(i36_engine),
];

const ALL: [usize; GROUPS] = [0, 1, 2, 3, 4, 5];

fn i30_raw(cx: &mut Ctx) -> Done {
    cx.needs_sharing()?;
    let (m, base) = (cx.memory(4)?, cx.base());
    for before in [true, false] {
        cx.afresh = cx.spy.sent().len();
        let c = cx.open()?;
        for n in ALL {
            c.join(cx.g(n))?;
            if n == if before { GROUPS - 1 } else { 0 } {
                cx.says("SET_IOMMU", c.set_iommu(kind::SPAPR_TCE_V2), "0");
                if cx.early() > 0 {
                    c.put_off_default_window()?;
                }
            }
        }
        c.w1()?;
        cx.v(cx.w1_cost());
        c.register(m).zero("REGISTER")?;
        cx.says("MAP", c.put(base, m), "0");
        if let Ok(kernel) = cx.kernel() {
            let find = |n| kernel.translate(cx.g(n), Ioba(base), Perm::READ).is_ok();
            let all = ALL.into_iter().all(find);
            cx.says("all find it", all, "yes");
        }
    }
    Ok(())
}

fn i30_engine(cx: &mut Ctx) -> Done {
    cx.needs_sharing()?;
    let (m, base) = (cx.memory(4)?, cx.base());
    let c = cx.container(&ALL)?;
    cx.mark();
    let made = c.window(G, cx.io(), 1);
    cx.says("CREATE sent", cx.count(Request::TceCreate), "1");
    cx.says("create_window", made, "ok");
    cx.v(cx.w1_cost());
    cx.says("register", c.reg(m), "ok");
    cx.says("map", c.put(base, m), "ok");
    cx.says("groups", c.groups().len() as u64, GROUPS);
    cx.says("remove_window", c.remove_window(Ioba(0), Removal::Force), "ok");
    cx.v(4);
    Ok(())
}

/// Later kernels are I13.
fn i12_raw(cx: &mut Ctx) -> Done {
    cx.needs_sharing()?;
    if cx.since(Profile::K6_11) {
        return Err(Stop::Skip("this kernel empties the windows".to_owned()));
    }
    let c = cx.v2(&[0, 1])?;
    let (m, base) = (cx.memory(4)?, cx.base());
    c.w1()?;
    c.register(m).zero("REGISTER")?;
    c.put(base, m).zero("MAP")?;
    cx.says("UNSET_CONTAINER", c.raw.unset_container(cx.g(1)), "0");
    let find = |n| cx.kernel().map(|k| k.translate(cx.g(n), Ioba(base), Perm::READ).is_ok());
    let (first, second) = (find(0)?, find(1)?);
    cx.says("the first finds it", first, "yes");
    cx.says("the second", second, "no");
    let counts = cx.process()?.region_counts(m.uaddr()).map(|counts| counts.0);
    cx.says("mapped", counts.unwrap_or(99), "4");
    cx.says("UNMAP", c.take(base, m.bytes), "0");
    Ok(())
}

fn i31_raw(cx: &mut Ctx) -> Done {
    let (c, d) = (cx.v2(&[0, 1])?, cx.v2(&[2])?);
    cx.says("in use", d.raw.open_group(cx.g(1)), "EBUSY");
    c.raw.close_group(cx.g(1)).zero("closing the group")?;
    cx.says("opened", d.raw.open_group(cx.g(1)), "0");
    cx.says("SET_CONTAINER", d.raw.set_container(cx.g(1)), "0");
    Ok(())
}

fn i31_engine(cx: &mut Ctx) -> Done {
    let (c, d) = (cx.container(&[0])?, cx.container(&[2])?);
    cx.says("in use", d.attach(cx.g(0)), "Elsewhere");
    cx.says("detach", c.detach(cx.g(0)), "ok");
    cx.says("attach", d.attach(cx.g(0)), "ok");
    cx.says("groups", d.groups().len() as u64, "2");
    Ok(())
}

fn i32(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    let harmless = [
        ("ENABLE", eeh_op::ENABLE),
        ("GET_STATE", eeh_op::GET_STATE),
        ("UNFREEZE_IO", eeh_op::UNFREEZE_IO),
        ("UNFREEZE_DMA", eeh_op::UNFREEZE_DMA),
        ("CONFIGURE", eeh_op::CONFIGURE),
        ("INJECT_ERR", eeh_op::INJECT_ERR),
        ("GET_STATE", eeh_op::GET_STATE),
        ("DISABLE", eeh_op::DISABLE),
    ];
    for (name, op) in harmless {
        cx.says(name, c.raw.eeh(&EehPeOp::new(op)), "0");
    }
    cx.says("operation 77", c.raw.eeh(&EehPeOp::new(77)), "EINVAL");
    let good = EehPeOp::new(eeh_op::GET_STATE);
    cx.says("argsz 4", c.raw.eeh(&EehPeOp { argsz: 4, ..good }), "EINVAL");
    cx.says("argsz 12", c.raw.eeh(&EehPeOp { argsz: 12, ..good }), "0");
    cx.says("flags 1", c.raw.eeh(&EehPeOp { flags: 1, ..good }), "EINVAL");
    cx.says("bad pointer", c.raw.fault(Request::EehPeOp), "EFAULT");
    Ok(())
}

fn i32_engine(cx: &mut Ctx) -> Done {
    let c = cx.container(&[0])?;
    let function = EehFunction::LOAD;
    let error = EehInjection { function, address: 0, mask: 0, wide: false };
    let harmless = [
        EehOp::Enable,
        EehOp::UnfreezeIo,
        EehOp::UnfreezeDma,
        EehOp::Configure,
        EehOp::Inject(error),
        EehOp::Disable,
    ];
    let group = cx.g(0);
    for op in harmless {
        let results = c.eeh(op).map(|results| format!("{results:?}"));
        cx.says(op.name(), results, format!("{:?}", [(group, Ok::<_, ()>(()))]));
        let states = c.eeh_states().map(|states| format!("{states:?}"));
        cx.says("state", states, format!("{:?}", [(group, Ok::<_, ()>(EehState::Normal))]));
    }
    refused!(cx, "of a stranger", c.eeh_of(cx.g(1), EehOp::ResetHot), "NotMember");
    Ok(())
}

fn i33_raw(cx: &mut Ctx) -> Done {
    cx.needs_sharing()?;
    let c = cx.v2(&[0])?;
    c.w1()?;
    for n in 1..GROUPS {
        c.join(cx.g(n))?;
        cx.v(cx.w1_cost());
    }
    cx.says("REMOVE", c.remove(0), "0");
    cx.v(0);
    Ok(())
}

fn i33_engine(cx: &mut Ctx) -> Done {
    cx.needs_sharing()?;
    let c = cx.windowed(&[0])?;
    for n in 1..GROUPS {
        if cx.profile().late_joiner_gets_windows {
            cx.says("attach", c.attach(cx.g(n)), "ok");
        } else {
            cx.says_why("attach", &c.attach(cx.g(n)), "add all groups first");
        }
        cx.v(cx.w1_cost());
    }
    cx.says("remove_window", c.remove_window(Ioba(0), Removal::IfUnmapped), "ok");
    cx.v(0);
    Ok(())
}

/// A smaller default window for the second group.
fn i34(cx: &mut Ctx) -> Done {
    let other = cx.g(1);
    cx.rebuild(|machine| machine.group(other, |group| group.dma32_size = 1 << 30))
}

fn i34_raw(cx: &mut Ctx) -> Done {
    i34(cx)?;
    let c = cx.v2(&[0])?;
    c.raw.open_group(cx.g(1)).zero("opening the group")?;
    cx.says("SET_CONTAINER", c.raw.set_container(cx.g(1)), "0");
    Ok(())
}

fn i34_engine(cx: &mut Ctx) -> Done {
    i34(cx)?;
    let c = cx.container(&[0])?;
    cx.says("attach", c.attach(cx.g(1)), "Incompatible");
    Ok(())
}

/// Of what KVM maps the mirror says nothing, so nothing may rest on it.
fn i35_engine(cx: &mut Ctx) -> Done {
    cx.needs_sharing()?;
    cx.engine_replays();
    let (m, base) = (cx.memory(4)?, cx.base());
    let c = cx.windowed(&[0, 1])?;
    c.window(G, cx.io(), 2).must("a second window")?;
    c.reg(m).must("register")?;
    c.put(base, m).must("map")?;
    refused!(cx, "left with entries", c.leave_to_kvm(Ioba(0)), "Mapped");
    refused!(cx, "no window there", c.leave_to_kvm(Ioba(G)), "NotFound");
    cx.says("the second is left", c.leave_to_kvm(Ioba(SECOND)), "ok");
    refused!(cx, "map there", c.put(SECOND, m), "LeftToKvm");
    refused!(cx, "unmap there", c.take(SECOND, m.bytes), "LeftToKvm");
    let detached = c.detach(cx.g(1)).must("detach")?;
    let counts = format!("{} {}", detached.replayed, detached.skipped);
    cx.says("replayed, skipped", counts, "4 1");
    c.take(base, m.bytes).must("unmap")?;
    refused!(cx, "unregister", c.unreg(m), "LeftToKvm");
    let removed = c.remove_window(Ioba(SECOND), Removal::IfUnmapped);
    refused!(cx, "remove it", removed, "LeftToKvm");
    cx.says("remove by force", c.remove_window(Ioba(SECOND), Removal::Force), "ok");
    cx.says("unregister now", c.unreg(m), "ok");
    Ok(())
}

/// What the kernel refuses to map again is unmapped, and the error counts it.
fn i36_engine(cx: &mut Ctx) -> Done {
    cx.needs_sharing()?;
    cx.engine_replays();
    let (m, base) = (cx.memory(4)?, cx.base());
    let c = cx.windowed(&[0, 1])?;
    c.reg(m).must("register")?;
    c.put(base, m).must("map")?;
    cx.spy.fail_maps(cx.p(), 1);
    let lost = match c.detach(cx.g(1)) {
        Err(AttachError::Replay { lost, .. }) => format!("{} from {}", lost.entries, lost.first),
        other => format!("{other:?}"),
    };
    cx.says("lost", lost, format!("4 from {base:#x}"));
    cx.says("members", c.groups().len() as u64, "1");
    cx.says("live", c.mapped(m), "0");
    cx.says("map again", c.put(base, m), "ok");
    cx.says("unmap", c.take(base, m.bytes), "ok");
    cx.says("unregister", c.unreg(m), "ok");
    Ok(())
}
