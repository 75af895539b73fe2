// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A: layouts, request numbers, entries.

use std::mem::offset_of;

use tce_engine::addr::{Ioba, Uaddr};
use tce_engine::backend::linux::uapi::{
    DmaMap, DmaUnmap, EehPeErr, EehPeOp, RegisterMemory, Request, TceCreate, TceInfo, TceRemove,
    map_flags,
};
use tce_engine::container::Mode;
use tce_engine::tce::{Perm, Tce};

use crate::case::{Case, Done, Must, On, Zero, case};
use crate::ctx::{Ctx, Eng};

pub(crate) const CASES: &[Case] = &[
    case("A1", On::Both, "sizes of the arguments").raw(a1),
    case("A2", On::Both, "offsets of their fields").raw(a2),
    case("A3", On::Both, "request numbers without powerpc's bit").raw(a3),
    case("A4", On::Both, "request numbers of this architecture").raw(a4),
    case("A5", On::Both, "an entry's bytes in memory").raw(a5),
    case("A6", On::Both, "device writes only: it may read too").raw(a6_raw).engine(a6_engine),
    case("A7", On::Both, "control bits 00 are empty, whatever the rest").raw(a7),
];

fn a1(cx: &mut Ctx) -> Done {
    let sizes = [
        (size_of::<DmaMap>(), DmaMap::SIZE),
        (size_of::<DmaUnmap>(), DmaUnmap::SIZE),
        (size_of::<RegisterMemory>(), RegisterMemory::SIZE),
        (size_of::<TceCreate>(), TceCreate::SIZE),
        (size_of::<TceRemove>(), TceRemove::SIZE),
        (size_of::<TceInfo>(), TceInfo::SIZE),
        (size_of::<EehPeOp>(), EehPeOp::SIZE),
    ];
    cx.says("sizes", format!("{:?}", sizes.map(|s| s.0)), "[32, 24, 24, 40, 16, 32, 40]");
    cx.says("argsz", sizes.iter().all(|s| s.0 == s.1 as usize), "yes");
    Ok(())
}

fn a2(cx: &mut Ctx) -> Done {
    let offsets = [
        offset_of!(TceCreate, window_size),
        offset_of!(TceCreate, levels),
        offset_of!(TceCreate, start_addr),
        offset_of!(TceInfo, ddw),
        offset_of!(EehPeOp, err) + offset_of!(EehPeErr, mask),
    ];
    cx.says("offsets", format!("{offsets:?}"), "[16, 24, 32, 16, 32]");
    Ok(())
}

const NUMBERS: [(Request, u32); 4] = [
    (Request::MapDma, 0x3b71),
    (Request::RegisterMemory, 0x3b75),
    (Request::TceCreate, 0x3b77),
    (Request::EehPeOp, 0x3b79),
];

fn a3(cx: &mut Ctx) -> Done {
    let same = NUMBERS.iter().all(|(request, number)| request.number() & 0xffff == *number);
    cx.says("numbers", same, "yes");
    Ok(())
}

fn a4(cx: &mut Ctx) -> Done {
    let bit = if cfg!(target_arch = "powerpc64") { 0x2000_0000 } else { 0 };
    let same = NUMBERS.iter().all(|(request, number)| request.number() == number | bit);
    cx.says("numbers", same, "yes");
    Ok(())
}

fn a5(cx: &mut Ctx) -> Done {
    let tce = Tce::new(0x1234_5678_0000, Perm::READ_WRITE);
    let bytes = tce.value().to_be_bytes();
    cx.says("bytes", format!("{bytes:02x?}"), "[00, 00, 12, 34, 56, 78, 00, 03]");
    let same = Tce::from_be_word(tce.to_be_word()).value() == tce.value();
    cx.says("and back", same, "yes");
    Ok(())
}

/// On a real kernel the device itself finds out.
fn a6_raw(cx: &mut Ctx) -> Done {
    let c = cx.v2(&[0])?;
    c.w1()?;
    let (m, base) = (cx.memory(2)?, cx.base());
    let (from, to) = (m.part(0, 1), m.part(1, 1));
    c.register(m).zero("REGISTER")?;
    cx.says("MAP for writing", c.map(map_flags::WRITE, base, from.at, from.bytes), "0");
    cx.says("MAP for both", c.put(base + cx.p(), to), "0");
    let device = cx.device(0)?;
    let read = cx.copies(&device, (base, from), (base + cx.p(), to))?;
    cx.says("the device reads what it may only write", read, "yes");
    Ok(())
}

fn a6_engine(cx: &mut Ctx) -> Done {
    let c = cx.windowed(&[0])?;
    let (m, base) = (cx.memory(1)?, cx.base());
    c.reg(m).must("register")?;
    let put = c.map(Ioba(base), Uaddr(m.at), m.bytes, Perm::WRITE, Mode::Refuse);
    cx.says("map for writing", put, "ok");
    let (tce, asked) = c.requested(Ioba(base)).must("an entry")?;
    cx.says("the entry", format!("{:?}", tce.perm()), format!("{:?}", Perm::READ_WRITE));
    cx.says("what was asked for", format!("{asked:?}"), format!("{:?}", Perm::WRITE));
    Ok(())
}

fn a7(cx: &mut Ctx) -> Done {
    let tce = Tce::from_value(0xffff_ffff_ffff_f000);
    cx.says("empty", tce.is_empty(), "yes");
    cx.says("allows", format!("{:?}", tce.perm()), format!("{:?}", Perm::NONE));
    Ok(())
}
