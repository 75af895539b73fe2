// SPDX-License-Identifier: Apache-2.0 OR MIT
//! G: windows.

use tce_engine::Ioba;
use tce_engine::backend::linux::LinuxOptions;
use tce_engine::backend::linux::mock_kernel::{Event, Injection, Profile};
use tce_engine::backend::linux::raw::RawContainer;
use tce_engine::backend::linux::uapi::{Request, TceRemove};
use tce_engine::container::Removal;
use tce_engine::geometry::WindowSpec;
use tce_engine::{PageShift, container::Container};

use crate::case::{Case, Done, Must, On, Stop, Zero, case};
use crate::ctx::{Ct, Ctx, Eng, G, M, SECOND, refused};

pub(crate) const CASES: &[Case] = &[
    case("G1", On::Both, "REMOVE of the default window at once").raw(g1_raw).engine(g1_engine),
    case("G2", On::Both, "REMOVE, CREATE of 1 GiB, 64K pages").raw(g2_raw).engine(g2_engine),
    case("G3", On::Both, "CREATE without REMOVE: the default window is there too")
        .raw(g3_raw)
        .engine(g3_engine)
        .instead("removes the default window at once; who wants it says so and creates it first"),
    case("G4", On::Both, "a third window").raw(g4_raw).engine(g4_engine),
    case("G5", On::Both, "CREATE, REMOVE, CREATE").raw(g5_raw).engine(g5_engine),
    case("G6", On::Both, "a page size that is not offered").raw(g6_raw).engine(g6_engine),
    case("G7", On::Both, "a table of 55 address bits or more")
        .raw(g7_raw)
        .engine(g7_engine)
        .instead("computes the shape first and refuses it; nothing is sent, nothing leaks"),
    case("G8", On::Both, "256 GiB in one level, then in two")
        .raw(g8_raw)
        .engine(g8_engine)
        .instead("knows the largest block and asks for two levels at once: one CREATE, no leak"),
    case("G9", On::Both, "CREATE beyond the limit").raw(g9_raw).engine(g9_engine),
    case("G10", On::Mock, "firmware refuses the window of the second group")
        .raw(g10_raw)
        .engine(g10_engine)
        .instead("says which code the firmware gave, instead of an error number it is not"),
    case("G11", On::Both, "REMOVE of an address inside a window")
        .raw(g11_raw)
        .engine(g11_engine)
        .instead("removes a window by its exact start only"),
    case("G13", On::Both, "REMOVE of a window with live mappings").raw(g13_raw).engine(g13_engine),
    case("G14", On::Both, "what REMOVE does, in order").raw(g14_raw).engine(g14_engine),
];

/// A version 2 container without its default window.
fn bare(cx: &Ctx, groups: &[usize]) -> Result<Ct, Stop> {
    let c = cx.v2(groups)?;
    c.remove(0).zero("REMOVE of the default window")?;
    Ok(c)
}

fn starts(c: &Container) -> String {
    let starts: Vec<_> = c.windows().iter().map(|window| window.start.0).collect();
    format!("{starts:x?}")
}

fn g1_raw(cx: &mut Ctx) -> Done {
    let c = cx.v2_as_it_comes()?;
    cx.v(cx.early());
    cx.says("REMOVE", c.remove(0), "0");
    cx.v(0);
    cx.says("again", c.remove(0), "EINVAL");
    Ok(())
}

fn g1_engine(cx: &mut Ctx) -> Done {
    // The first time the engine looks at a group, it finds out what windows cost.
    drop(cx.container(&[1])?);
    let c = cx.engine().container();
    cx.mark();
    let attached = c.attach(cx.g(0));
    cx.says("REMOVE sent", cx.count(Request::TceRemove), "1");
    cx.says("attach", attached, "ok");
    cx.v(0);
    cx.says("windows", starts(&c), "[]");
    Ok(())
}

fn g2_raw(cx: &mut Ctx) -> Done {
    let c = bare(cx, &[0])?;
    let (answer, start) = c.create(G, 16, 1);
    cx.says("CREATE", answer, "0");
    cx.says("start", start, "0");
    cx.v(cx.cost(G, 16, 1));
    cx.says("REMOVE", c.remove(0), "0");
    cx.v(0);
    Ok(())
}

fn g2_engine(cx: &mut Ctx) -> Done {
    let c = cx.container(&[0])?;
    cx.says("create_window", c.window(G, 16, 1), "ok");
    cx.says("starts", starts(&c), "[0]");
    cx.v(cx.cost(G, 16, 1));
    cx.says("remove_window", c.remove_window(Ioba(0), Removal::IfUnmapped), "ok");
    cx.v(0);
    Ok(())
}

fn g3_raw(cx: &mut Ctx) -> Done {
    let c = cx.v2_as_it_comes()?;
    let (answer, start) = c.create(G, 16, 1);
    cx.says("CREATE", answer, "0");
    cx.says("start", start, format!("{SECOND:#x}"));
    cx.v(cx.default_cost() + cx.cost(G, 16, 1));
    cx.says("REMOVE of the default one", c.remove(0), "0");
    cx.v(cx.cost(G, 16, 1));
    Ok(())
}

fn g3_engine(cx: &mut Ctx) -> Done {
    let linux = LinuxOptions { keep_default_window: true, ..LinuxOptions::default() };
    cx.engine_with(linux, Default::default());
    let c = cx.container(&[0])?;
    let early = cx.early();
    if early > 0 {
        // It is locked before the engine is asked for it, so the ledger does not have it yet.
        cx.lag_behind(early);
    }
    cx.v(early);
    refused!(cx, "another first window", c.window(G, 16, 1), "Backend.Guarded");
    cx.v(early);
    cx.says("the default window", c.window(2 * G, 12, 1), "ok");
    cx.says("another one", c.window(G, 16, 1), "ok");
    cx.says("starts", starts(&c), format!("{:x?}", [0, SECOND]));
    cx.v(cx.default_cost() + cx.cost(G, 16, 1));
    cx.says("remove the default one", c.remove_window(Ioba(0), Removal::IfUnmapped), "ok");
    cx.v(cx.cost(G, 16, 1));
    Ok(())
}

fn g4_raw(cx: &mut Ctx) -> Done {
    let c = bare(cx, &[0])?;
    for start in [0, SECOND] {
        let (answer, at) = c.create(G, 16, 1);
        cx.says("CREATE", answer, "0");
        cx.says("start", at == start, "yes");
    }
    cx.says("a third", c.create(G, 16, 1).0, "ENOSPC");
    cx.v(2 * cx.cost(G, 16, 1));
    Ok(())
}

fn g4_engine(cx: &mut Ctx) -> Done {
    let c = cx.container(&[0])?;
    cx.says("create_window", c.window(G, 16, 1), "ok");
    cx.says("create_window", c.window(G, 16, 1), "ok");
    refused!(cx, "a third", c.window(G, 16, 1), "NoSlot");
    cx.v(2 * cx.cost(G, 16, 1));
    Ok(())
}

fn g5_raw(cx: &mut Ctx) -> Done {
    let c = bare(cx, &[0])?;
    c.create(G, 16, 1).0.zero("CREATE")?;
    c.create(G, 16, 1).0.zero("CREATE")?;
    for start in [SECOND, 0, SECOND] {
        cx.says("REMOVE", c.remove(start), "0");
        let (answer, at) = c.create(G, 16, 1);
        cx.says("CREATE", answer, "0");
        cx.says("the same start", at == start, "yes");
    }
    Ok(())
}

fn g5_engine(cx: &mut Ctx) -> Done {
    let c = cx.container(&[0])?;
    c.window(G, 16, 1).must("a window")?;
    c.window(G, 16, 1).must("a window")?;
    for start in [SECOND, 0, SECOND] {
        cx.says("remove", c.remove_window(Ioba(start), Removal::IfUnmapped), "ok");
        let made = c.window(G, 16, 1).map(|window| window.start.0 == start);
        cx.says("the same start", made, "yes");
    }
    Ok(())
}

fn g6_raw(cx: &mut Ctx) -> Done {
    let c = bare(cx, &[0])?;
    for shift in [0, 11, 13, 20, 21, 25, 34, 63, 64, 76] {
        // POWER9 offers 2M; neither offers the others.
        if shift > 63 || c.info().1.ddw.pgsizes >> shift & 1 == 0 {
            cx.says(&format!("shift {shift}"), c.create(G, shift, 1).0, "EINVAL");
        }
    }
    cx.v(0);
    Ok(())
}

fn g6_engine(cx: &mut Ctx) -> Done {
    let c = cx.container(&[0])?;
    let offered = c.caps().must("caps")?.page_sizes;
    for shift in [13, 20, 21, 25] {
        if PageShift::new(shift).is_some_and(|shift| !offered.contains(shift)) {
            refused!(cx, &format!("shift {shift}"), c.window(G, shift, 1), "PageSize");
        }
    }
    // Others are no page shifts at all: they cannot even be named.
    let named = [0, 11, 63, 64, 76].iter().any(|shift| PageShift::new(*shift).is_some());
    cx.says("can be named", named, "no");
    cx.v(0);
    Ok(())
}

/// Levels that 1 MiB in 64K pages cannot have.
fn too_many(cx: &Ctx) -> u32 {
    if cx.host() == 12 { 5 } else { 3 }
}

fn g7_raw(cx: &mut Ctx) -> Done {
    let c = bare(cx, &[0])?;
    let levels = too_many(cx);
    let answer = c.create(M, 16, levels).0;
    if (cx.host() - 3) * levels + 16 < cx.profile().refused_bits {
        cx.says("CREATE", answer, "0");
        cx.v(cx.cost(M, 16, levels));
        return Ok(());
    }
    cx.says("CREATE", answer, "EINVAL");
    let leaked = cx.leak_of(M, 16, levels);
    cx.v(leaked);
    cx.leaks(leaked, 0);
    Ok(())
}

fn g7_engine(cx: &mut Ctx) -> Done {
    let c = cx.container(&[0])?;
    let levels = too_many(cx);
    refused!(cx, "create_window", c.window(M, 16, levels), "Geometry.TooManyBits");
    cx.v(0);
    Ok(())
}

fn g8_raw(cx: &mut Ctx) -> Done {
    cx.needs_levels()?;
    let c = bare(cx, &[0])?;
    cx.says("CREATE, one level", c.create(256 * G, 16, 1).0, "ENOMEM");
    let leaked = cx.leak_of(256 * G, 16, 1);
    cx.v(leaked);
    cx.says("CREATE, two levels", c.create(256 * G, 16, 2).0, "0");
    cx.v(leaked + cx.cost(256 * G, 16, 2));
    cx.leaks(leaked, 0);
    Ok(())
}

fn g8_engine(cx: &mut Ctx) -> Done {
    cx.needs_levels()?;
    let c = cx.container(&[0])?;
    refused!(cx, "one level", c.window(256 * G, 16, 1), "Geometry.BlockTooLarge");
    let made = c.create_window(WindowSpec::new(256 * G, PageShift::K64));
    cx.says("CREATE sent", cx.count(Request::TceCreate), "1");
    cx.says("its own choice", made.map(|window| window.geometry.levels()), "2");
    cx.v(cx.cost(256 * G, 16, 2));
    Ok(())
}

fn g9_raw(cx: &mut Ctx) -> Done {
    let c = bare(cx, &[0])?;
    cx.limit(cx.attempt(G, 16, 1) as u64 - 1)?;
    cx.says("CREATE", c.create(G, 16, 1).0, "ENOMEM");
    cx.v(0);
    Ok(())
}

fn g9_engine(cx: &mut Ctx) -> Done {
    // More than a group needs for a moment when it is attached.
    let limit = cx.early().max(cx.attempt(G, 16, 1) - 1);
    cx.limit(limit as u64)?;
    let c = cx.container(&[0])?;
    refused!(cx, "create_window", c.window(4 * G, 12, 1), "Limit");
    cx.v(0);
    Ok(())
}

const CODES: [(i32, &str); 4] = [(-1, "EPERM"), (-2, "ENOENT"), (-6, "ENXIO"), (-7, "E2BIG")];

fn g10_raw(cx: &mut Ctx) -> Done {
    cx.needs_sharing()?;
    let c = bare(cx, &[0, 1])?;
    for (code, reads_as) in CODES {
        let group = cx.g(0); // asked last
        cx.kernel()?.inject(Injection::SetWindow { group, slot: 0, code });
        cx.says(&format!("firmware {code}"), c.create(G, 16, 1).0, reads_as);
        cx.v(0);
        cx.says("windows left", cx.kernel()?.leftovers().windows, "0");
    }
    cx.says("CREATE", c.create(G, 16, 1).0, "0");
    Ok(())
}

fn g10_engine(cx: &mut Ctx) -> Done {
    cx.needs_sharing()?;
    let c = cx.container(&[0, 1])?;
    for (code, _) in CODES {
        let group = cx.g(0);
        cx.kernel()?.inject(Injection::SetWindow { group, slot: 0, code });
        cx.says_why("create_window", &c.window(G, 16, 1), &format!("firmware code {code}"));
        cx.says("windows left", cx.kernel()?.leftovers().windows, "0");
        cx.v(0);
    }
    cx.says("create_window", c.window(G, 16, 1), "ok");
    Ok(())
}

fn g11_raw(cx: &mut Ctx) -> Done {
    let c = bare(cx, &[0])?;
    c.create(G, 16, 1).0.zero("CREATE")?;
    cx.says("REMOVE", c.remove(0x10000), "0");
    cx.v(0);
    cx.says("of its start", c.remove(0), "EINVAL");
    Ok(())
}

fn g11_engine(cx: &mut Ctx) -> Done {
    let c = cx.container(&[0])?;
    c.window(G, 16, 1).must("a window")?;
    refused!(cx, "inside", c.remove_window(Ioba(0x10000), Removal::Force), "NotFound");
    cx.v(cx.cost(G, 16, 1));
    cx.says("its start", c.remove_window(Ioba(0), Removal::IfUnmapped), "ok");
    cx.v(0);
    Ok(())
}

fn g13_raw(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    let (m, base) = (cx.memory(16)?, cx.base());
    c.w1()?;
    c.register(m).zero("REGISTER")?;
    c.put(base, m).zero("MAP")?;
    cx.says("REMOVE", c.remove(0), "0");
    cx.v(16);
    cx.says("UNREGISTER", c.unregister(m), "0");
    cx.v(0);
    Ok(())
}

fn g13_engine(cx: &mut Ctx) -> Done {
    let c = cx.windowed(&[0])?;
    let (m, base) = (cx.memory(16)?, cx.base());
    c.reg(m).must("register")?;
    c.put(base, m).must("map")?;
    refused!(cx, "if unmapped", c.remove_window(Ioba(0), Removal::IfUnmapped), "Mapped");
    cx.v(16 + cx.w1_cost());
    cx.says("by force", c.remove_window(Ioba(0), Removal::Force), "ok");
    cx.says("live", c.mapped(m), "0");
    cx.v(16);
    cx.says("unregister", c.unreg(m), "ok");
    cx.v(0);
    Ok(())
}

/// The events of windows, without their arguments, those that repeat once.
fn order(events: &[Event]) -> String {
    let name = |event: &Event| match event {
        Event::Clear { .. } => Some("clear"),
        Event::Kill { .. } | Event::KillEach { .. } | Event::KillAll { .. } => Some("kill"),
        Event::Unset { .. } => Some("unset"),
        Event::Free { .. } => Some("free"),
        Event::Unpin { .. } => Some("unpin"),
        _ => None,
    };
    let mut names: Vec<_> = events.iter().filter_map(name).collect();
    names.dedup();
    names.join(" ")
}

fn g14_raw(cx: &mut Ctx) -> Done {
    cx.kernel()?;
    let c = cx.v2(&[0])?;
    let (m, base) = (cx.memory(16)?, cx.base());
    c.w1()?;
    c.register(m).zero("REGISTER")?;
    c.put(base, m).zero("MAP")?;
    drop(cx.kernel()?.take_events());
    c.raw.remove(&TceRemove::new(0)).zero("REMOVE")?;
    let events = cx.kernel()?.take_events();
    let (now, then) = ("clear kill unset kill free", "unset kill clear free");
    cx.says("order", order(&events), cx.by(Profile::K6_11, now, then));
    Ok(())
}

/// What it has mapped is unmapped before the window goes.
fn g14_engine(cx: &mut Ctx) -> Done {
    let c = cx.windowed(&[0])?;
    let (m, base) = (cx.memory(16)?, cx.base());
    c.reg(m).must("register")?;
    cx.says("map", c.put(base, m), "ok");
    let removed = c.remove_window(Ioba(0), Removal::Force);
    let sent: Vec<_> = cx.sent().iter().map(|sent| sent.request).collect();
    cx.says("remove_window", removed, "ok");
    cx.says("sent", format!("{sent:?}"), "[UnmapDma, TceRemove]");
    Ok(())
}
