// SPDX-License-Identifier: Apache-2.0 OR MIT
//! F from 30 on: more about registered memory, as observed.

use tce_engine::backend::linux::mock_kernel::Profile;
use tce_engine::backend::linux::raw::RawContainer;
use tce_engine::backend::linux::uapi::{RegisterMemory, Request};

use crate::case::{Case, Done, Must, On, Zero, case};
use crate::ctx::{Ctx, Eng, G, refused};

pub(crate) const CASES: &[Case] = &[
    case("F30", On::Both, "before the first REGISTER").raw(f30_raw).engine(f30_engine),
    case("F31", On::Both, "argsz, flags").raw(f31),
    case("F32", On::Both, "bad pointers").raw(f32),
    case("F33", On::Both, "memory that is nobody's, or the kernel's")
        .raw(f33_raw)
        .engine(f33_engine),
    case("F34", On::Both, "a file that ends inside its mapping")
        .raw(f34_raw)
        .engine(f34_engine)
        .instead("an error, whether it is seen before or in the answer"),
    case("F35", On::Both, "a file's memory, shared").raw(f35_raw).engine(f35_engine),
    case("F36", On::Both, "munmap of registered memory").raw(f36_raw).engine(f36_engine),
    case("F37", On::Both, "MAP of what only another container has registered")
        .raw(f37_raw)
        .engine(f37_engine)
        .instead("a container maps only what it has registered itself"),
    case("F38", On::Both, "a region that lost its container while it was mapped")
        .raw(f38_raw)
        .engine(f38_engine)
        .instead("never lets a region lose its container while it is mapped"),
    case("F39", On::Both, "UNREGISTER while another container maps it")
        .raw(f39_raw)
        .engine(f39_engine),
    case("F40", On::Both, "huge pages of 16M")
        .raw(f40_raw)
        .engine(f40_engine)
        .instead("with 4K pages, where the kernel hangs, refuses it; with 64K pages all is well"),
    case("F41", On::Mock, "only some pages can be pinned")
        .raw(f41_raw)
        .engine(f41_engine)
        .instead("an error: a positive answer is no success"),
    case("F42", On::Both, "the end of the last container frees what two had")
        .raw(f42_raw)
        .engine(f42_engine),
];

fn f30_raw(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    let (m, base) = (cx.memory(1)?, cx.base());
    cx.says("UNREGISTER", c.unregister(m), cx.by(Profile::K4_9, "EPERM", "ENOENT"));
    cx.says("MAP", c.put(base, m), "EPERM");
    cx.says("UNMAP", c.take(base, m.bytes), "EPERM");
    cx.says("MAP, bad pointer", c.raw.fault(Request::MapDma), "EPERM");
    cx.v(0);
    Ok(())
}

fn f30_engine(cx: &mut Ctx) -> Done {
    let c = cx.windowed(&[0])?;
    let (m, base) = (cx.memory(1)?, cx.base());
    refused!(cx, "unregister", c.unreg(m), "NotFound");
    refused!(cx, "map", c.put(base, m), "NotRegistered");
    refused!(cx, "unmap of what is empty", c.take(base, m.bytes), "ok");
    Ok(())
}

fn f31(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    let m = cx.memory(1)?;
    c.register(m).zero("REGISTER")?;
    let good = RegisterMemory::new(m.at, m.bytes);
    let (short, flags) = (RegisterMemory { argsz: 8, ..good }, RegisterMemory { flags: 1, ..good });
    cx.says("REGISTER argsz 8", c.raw.register(&short), "EINVAL");
    cx.says("REGISTER flags 1", c.raw.register(&flags), "EINVAL");
    cx.says("UNREGISTER argsz 8", c.raw.unregister(&short), "EINVAL");
    cx.says("UNREGISTER flags 1", c.raw.unregister(&flags), "EINVAL");
    cx.says("UNREGISTER off a page", c.unregister(m.bytes(1, m.bytes)), "EINVAL");
    cx.v(1);
    Ok(())
}

fn f32(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    cx.says("REGISTER", c.raw.fault(Request::RegisterMemory), "EFAULT");
    cx.says("UNREGISTER", c.raw.fault(Request::UnregisterMemory), "EFAULT");
    cx.v(0);
    Ok(())
}

/// Addresses of the kernel on powerpc; elsewhere no process can have them either.
const KERNEL: u64 = 0xc000_0000_0000_0000;

fn f33_raw(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    let m = cx.rig.nowhere(2)?;
    cx.says("nobody's", c.register(m), "EFAULT");
    let kernel = RegisterMemory::new(KERNEL, cx.p());
    cx.says("the kernel's", c.raw.register(&kernel), "EFAULT");
    cx.v(0);
    Ok(())
}

fn f33_engine(cx: &mut Ctx) -> Done {
    let c = cx.container(&[0])?;
    let m = cx.rig.nowhere(2)?;
    refused!(cx, "nobody's", c.reg(m), "Backend.Pin");
    let kernel = c.register(tce_engine::Uaddr(KERNEL), cx.p());
    refused!(cx, "the kernel's", kernel, "Backend.Pin");
    cx.v(0);
    Ok(())
}

fn f34_raw(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    let m = cx.rig.of_file(6, 3)?;
    cx.says("REGISTER", c.register(m), cx.by(Profile::K5_0, "+3", "EFAULT"));
    cx.v(0);
    Ok(())
}

fn f34_engine(cx: &mut Ctx) -> Done {
    let c = cx.container(&[0])?;
    let m = cx.rig.of_file(6, 3)?;
    cx.says("register", c.reg(m), "Backend.Pin");
    cx.v(0);
    cx.says("regions", c.regions().len() as u64, "0");
    Ok(())
}

fn f35_raw(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    let m = cx.rig.of_file(4, 4)?;
    cx.says("REGISTER", c.register(m), "0");
    cx.v(4);
    cx.says("UNREGISTER", c.unregister(m), "0");
    cx.v(0);
    Ok(())
}

fn f35_engine(cx: &mut Ctx) -> Done {
    let c = cx.windowed(&[0])?;
    let (m, base) = (cx.rig.of_file(4, 4)?, cx.base());
    cx.says("register", c.reg(m), "ok");
    cx.says("map", c.put(base, m), "ok");
    cx.v(4 + cx.w1_cost());
    Ok(())
}

fn f36_raw(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    let (m, base) = (cx.memory(16)?, cx.base());
    c.w1()?;
    c.register(m).zero("REGISTER")?;
    c.put(base, m.part(0, 1)).zero("MAP")?;
    cx.rig.munmap(m);
    cx.v(16 + cx.w1_cost());
    cx.says("MAP of what is not there", c.put(base + cx.p(), m.part(1, 1)), "0");
    cx.says("UNMAP", c.take(base, 2 * cx.p()), "0");
    cx.says("UNREGISTER", c.unregister(m), "0");
    cx.v(cx.w1_cost());
    Ok(())
}

fn f36_engine(cx: &mut Ctx) -> Done {
    let c = cx.windowed(&[0])?;
    let (m, base) = (cx.memory(16)?, cx.base());
    c.reg(m).must("register")?;
    c.put(base, m.part(0, 1)).must("map")?;
    cx.rig.munmap(m);
    cx.v(16 + cx.w1_cost());
    cx.says("map", c.put(base + cx.p(), m.part(1, 1)), "ok");
    cx.says("unmap", c.take(base, 2 * cx.p()), "ok");
    cx.says("unregister", c.unreg(m), "ok");
    cx.v(cx.w1_cost());
    Ok(())
}

fn f37_raw(cx: &mut Ctx) -> Done {
    let (c, d) = (cx.v2(&[0])?, cx.v2(&[1])?);
    let (m, own, base) = (cx.memory(16)?, cx.memory(1)?, cx.base());
    c.w1()?;
    c.register(own).zero("REGISTER")?;
    d.register(m).zero("REGISTER")?;
    cx.says("MAP", c.put(base, m), "0");
    cx.says("UNMAP", c.take(base, m.bytes), "0");
    cx.v(17 + cx.w1_cost());
    Ok(())
}

fn f37_engine(cx: &mut Ctx) -> Done {
    let (c, d) = (cx.windowed(&[0])?, cx.container(&[1])?);
    let (m, base) = (cx.memory(16)?, cx.base());
    d.reg(m).must("register")?;
    refused!(cx, "map", c.put(base, m), "NotRegistered");
    Ok(())
}

fn f38_raw(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    let (m, base) = (cx.memory(16)?, cx.base());
    c.w1()?;
    c.register(m).zero("REGISTER")?;
    c.put(base, m.part(0, 1)).zero("MAP")?;
    let orphans = cx.since(Profile::K5_0);
    let (first, second) = if orphans { ("0", "ENOENT") } else { ("EBUSY", "EBUSY") };
    cx.says("UNREGISTER", c.unregister(m), first);
    cx.says("UNREGISTER again", c.unregister(m), second);
    cx.says("REGISTER of a part", c.register(m.part(0, 8)), "EINVAL");
    if !orphans {
        // It still has its container, and goes when nothing maps it any more.
        cx.says("UNMAP", c.take(base, cx.p()), "0");
        cx.says("UNREGISTER", c.unregister(m), "0");
        cx.v(cx.w1_cost());
        return Ok(());
    }
    cx.says("REGISTER of the same", c.register(m), "0");
    cx.v(16 + cx.w1_cost());
    cx.says("UNMAP", c.take(base, cx.p()), "0");
    cx.says("UNREGISTER", c.unregister(m), "0");
    // One user is left over for ever.
    cx.v(16 + cx.w1_cost());
    cx.says("UNREGISTER again", c.unregister(m), "ENOENT");
    cx.leaks(16, 16);
    Ok(())
}

fn f38_engine(cx: &mut Ctx) -> Done {
    let c = cx.windowed(&[0])?;
    let (m, base) = (cx.memory(16)?, cx.base());
    c.reg(m).must("register")?;
    c.put(base, m.part(0, 1)).must("map")?;
    refused!(cx, "unregister", c.unreg(m), "Mapped");
    refused!(cx, "register a part", c.reg(m.part(0, 8)), "Overlap");
    refused!(cx, "register the same", c.reg(m), "Busy");
    cx.says("unmap", c.take(base, cx.p()), "ok");
    cx.says("unregister", c.unreg(m), "ok");
    cx.says("register a part", c.reg(m.part(0, 8)), "ok");
    cx.v(8 + cx.w1_cost());
    Ok(())
}

fn f39_raw(cx: &mut Ctx) -> Done {
    let (c, d) = (cx.v2(&[0])?, cx.v2(&[1])?);
    let (m, base) = (cx.memory(16)?, cx.base());
    d.w1()?;
    c.register(m).zero("REGISTER")?;
    d.register(m).zero("REGISTER")?;
    cx.says("MAP in the second", d.put(base, m), "0");
    cx.says("UNREGISTER in the first", c.unregister(m), "0");
    cx.v(16 + cx.w1_cost());
    cx.says("UNMAP in the second", d.take(base, m.bytes), "0");
    cx.says("UNREGISTER in the second", d.unregister(m), "0");
    cx.v(cx.w1_cost());
    Ok(())
}

fn f39_engine(cx: &mut Ctx) -> Done {
    let (c, d) = (cx.container(&[0])?, cx.windowed(&[1])?);
    let (m, base) = (cx.memory(16)?, cx.base());
    c.reg(m).must("register")?;
    d.reg(m).must("register")?;
    cx.says("map in the second", d.put(base, m), "ok");
    cx.says("unregister in the first", c.unreg(m), "ok");
    cx.v(16 + cx.w1_cost());
    refused!(cx, "unregister in the second", d.unreg(m), "Mapped");
    cx.says("unmap in the second", d.take(base, m.bytes), "ok");
    cx.says("unregister in the second", d.unreg(m), "ok");
    cx.v(cx.w1_cost());
    Ok(())
}

fn f40_raw(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    let m = cx.huge(2)?;
    cx.says("REGISTER", c.register(m), "0");
    cx.v((m.bytes >> cx.host()) as i64);
    cx.says("UNREGISTER", c.unregister(m), "0");
    cx.v(0);
    Ok(())
}

fn f40_engine(cx: &mut Ctx) -> Done {
    let c = cx.container(&[0])?;
    let (m, pages) = (cx.huge(2)?, 32 << (20 - cx.host()));
    if cx.host() == 12 {
        refused!(cx, "register", c.reg(m), "Backend.Pin");
        return Ok(());
    }
    cx.says("register", c.reg(m), "ok");
    cx.v(pages);
    cx.says("unregister", c.unreg(m), "ok");
    Ok(())
}

fn f41_raw(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    let m = cx.memory(16)?;
    cx.kernel()?.inject(tce_engine::backend::linux::mock_kernel::Injection::Pin { pages: 5 });
    cx.says("REGISTER", c.register(m), cx.by(Profile::K5_0, "+5", "EFAULT"));
    cx.v(0);
    Ok(())
}

fn f41_engine(cx: &mut Ctx) -> Done {
    let c = cx.container(&[0])?;
    let m = cx.memory(16)?;
    cx.kernel()?.inject(tce_engine::backend::linux::mock_kernel::Injection::Pin { pages: 5 });
    cx.says("register", c.reg(m), "Backend.Pin");
    cx.v(0);
    cx.says("register again", c.reg(m), "ok");
    cx.v(16);
    Ok(())
}

fn f42_raw(cx: &mut Ctx) -> Done {
    let (c, d) = (cx.v2(&[0])?, cx.v2(&[1])?);
    let m = cx.memory(16)?;
    c.create(G, 16, 1).0.zero("CREATE")?;
    c.register(m).zero("REGISTER")?;
    d.register(m).zero("REGISTER")?;
    drop(c);
    cx.v(16);
    drop(d);
    cx.v(0);
    Ok(())
}

fn f42_engine(cx: &mut Ctx) -> Done {
    let (c, d) = (cx.windowed(&[0])?, cx.container(&[1])?);
    let m = cx.memory(16)?;
    c.reg(m).must("register")?;
    d.reg(m).must("register")?;
    drop(c);
    cx.says("left", d.regions().len() as u64, "1");
    cx.v(16);
    drop(d);
    cx.v(0);
    Ok(())
}
