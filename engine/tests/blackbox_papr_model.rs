// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Random hypercalls and window calls against a plain model: every return code, and at the end
//! every entry by H_GET_TCE and through the PHB's walker.

mod common;

use std::collections::HashMap;
use std::sync::Arc;

use common::*;
use proptest::prelude::*;
use tce_engine::addr::{Gra, Ioba, Liobn, PageShift, PeNumber};
use tce_engine::backend::mock::{Fault, MockBuilder};
use tce_engine::geometry::WindowSpec;
use tce_engine::papr::{Answer, GuestMemory, HCode, Papr, PhbSpec, RtasStatus, Vcpu};

/// Not a multiple of the largest page: an entry may reach past the end.
const RAM: u64 = 256 * M + 64 * K;
const LIOBNS: [u64; 4] = [0x8000_0000, 0x8000_0001, 0x8000_0100, 0x8000_0101];
const BUIDS: [u64; 2] = [0x10, 0x20];
const ENTRIES: u64 = 1024;

struct List(Option<Vec<u64>>);

impl GuestMemory for List {
    fn copy_words(&self, _: Gra, words: &mut [u64]) -> bool {
        let Some(list) = &self.0 else { return false };
        words.iter_mut().zip(list).for_each(|(w, v)| *w = v.to_be());
        list.len() >= words.len()
    }
}

/// A window of the model.
#[derive(Clone, Copy)]
struct Window {
    start: u64,
    shift: u32,
    entries: u64,
}

const DEFAULT: Window = Window { start: 0, shift: 12, entries: ENTRIES };

/// LIOBN → window, and (LIOBN, entry) → value.
#[derive(Default)]
struct Model {
    windows: HashMap<u64, Window>,
    entries: HashMap<(u64, u64), u64>,
}

impl Model {
    /// Number of the first entry, if `count` from `ioba` are entries of the window.
    fn range(&self, liobn: u64, ioba: u64, count: u64) -> Result<u64, HCode> {
        let w = self.windows.get(&liobn).ok_or(HCode::PARAMETER)?;
        let end = w.start + (w.entries << w.shift);
        let aligned = ioba.is_multiple_of(1 << w.shift);
        let inside = ioba >= w.start && ioba < end && count <= (end - ioba) >> w.shift;
        if aligned && inside { Ok((ioba - w.start) >> w.shift) } else { Err(HCode::PARAMETER) }
    }

    fn valid(&self, liobn: u64, value: u64) -> bool {
        let page = 1u64 << self.windows[&liobn].shift;
        let address = value & !3;
        value & 3 == 0 || (address.is_multiple_of(page) && address < RAM && page <= RAM - address)
    }

    fn store(&mut self, liobn: u64, ioba: u64, values: &[u64]) -> HCode {
        let first = match self.range(liobn, ioba, values.len() as u64) {
            Ok(first) => first,
            Err(code) => return code,
        };
        if !values.iter().all(|v| self.valid(liobn, *v)) {
            return HCode::PARAMETER;
        }
        for (i, value) in (first..).zip(values) {
            self.entries.insert((liobn, i), *value);
        }
        HCode::SUCCESS
    }

    fn get(&self, liobn: u64, ioba: u64) -> (HCode, u64) {
        match self.range(liobn, ioba, 1) {
            Ok(i) => (HCode::SUCCESS, self.entries.get(&(liobn, i)).copied().unwrap_or(0)),
            Err(code) => (code, 0),
        }
    }

    fn forget(&mut self, liobn: u64) {
        self.windows.remove(&liobn);
        self.entries.retain(|(l, _), _| *l != liobn);
    }

    fn live(&self, phb: usize) -> u64 {
        let liobns = &LIOBNS[2 * phb..2 * phb + 2];
        self.entries.iter().filter(|((l, _), v)| liobns.contains(l) && **v & 3 != 0).count() as u64
    }
}

#[derive(Clone, Debug)]
enum Call {
    Put(u64),
    Indirect { values: Vec<u64>, count: u64, list: u64, readable: bool },
    Stuff { value: u64, count: u64 },
    Get,
    Create { phb: usize, page: u64, window: u64 },
    Remove,
    Reset { phb: usize },
}

fn value() -> impl Strategy<Value = u64> {
    let ram_pages = RAM >> 12;
    prop_oneof![
        20 => (0..ram_pages, 1u64..4).prop_map(|(p, c)| p << 12 | c),
        20 => (0..ram_pages >> 4, 1u64..4).prop_map(|(p, c)| p << 16 | c),
        8 => Just(0u64),
        4 => any::<u64>().prop_map(|v| v & !3),
        1 => (0..ram_pages, 1u64..4, 2u32..12).prop_map(|(p, c, bit)| p << 12 | c | 1 << bit),
        1 => (ram_pages..ram_pages + 2, 1u64..4).prop_map(|(p, c)| p << 12 | c),
        1 => any::<u64>(),
    ]
}

/// Long lists of random values are hardly ever valid, so most are made of one kind.
fn values() -> impl Strategy<Value = Vec<u64>> {
    let many = |aligned: u64| {
        prop::collection::vec((0..(RAM >> 16) - 1, 0u64..16, 0u64..4), 1..513).prop_map(
            move |list| {
                list.iter().map(|(p, sub, c)| p << 16 | (sub * aligned) << 12 | c).collect()
            },
        )
    };
    prop_oneof![many(0), many(1), prop::collection::vec(value(), 1..6)]
}

fn call() -> impl Strategy<Value = Call> {
    let phb = || 0usize..2;
    let list = prop_oneof![9 => Just(0x7000u64), 1 => Just(0x7008u64)];
    let indirect = (values(), list, 0u32..20, prop::bool::weighted(0.95)).prop_map(
        |(values, list, odd, readable)| {
            let count = if odd == 0 { 513 } else { values.len() as u64 };
            Call::Indirect { values, count, list, readable }
        },
    );
    let count = prop_oneof![1u64..20, 1u64..513, Just(513u64)];
    let create = (phb(), prop::sample::select(vec![12u64, 16, 21, 24, 40]), 0u64..40)
        .prop_map(|(phb, page, window)| Call::Create { phb, page, window });
    prop_oneof![
        6 => value().prop_map(Call::Put),
        6 => indirect,
        6 => (value(), count).prop_map(|(value, count)| Call::Stuff { value, count }),
        4 => Just(Call::Get),
        2 => create,
        1 => Just(Call::Remove),
        1 => phb().prop_map(|phb| Call::Reset { phb }),
    ]
}

fn liobn() -> impl Strategy<Value = u64> {
    let odd = vec![0, 0x7fff_ffff, 1 << 32 | LIOBNS[0], -1i64 as u64, -2i64 as u64];
    prop_oneof![12 => prop::sample::select(LIOBNS.to_vec()), 1 => prop::sample::select(odd)]
}

/// A bus address as (in the window, page, in 64 KiB pages, offset).
fn bus() -> impl Strategy<Value = (bool, u64, bool, u64)> {
    let page = prop_oneof![0u64..ENTRIES, ENTRIES - 520..ENTRIES + 3];
    (
        prop::bool::weighted(0.95),
        page,
        any::<bool>(),
        prop_oneof![19 => Just(0u64), 1 => 1u64..4096],
    )
}

/// Creates a window, and says what the answer has to be.
fn create(model: &mut Model, papr: &Papr, phb: usize, page: u64, window: u64) {
    let answer = papr.ddw_create(BUIDS[phb], page, window);
    let free = [0, 1].into_iter().find(|slot| !model.windows.contains_key(&LIOBNS[2 * phb + slot]));
    let Some(slot) = free else {
        assert!(matches!(answer, Err(RtasStatus::HARDWARE | RtasStatus::PARAMETER)), "{answer:?}");
        return;
    };
    // The mock offers 4K, 64K and 16M of these.
    if ![12, 16, 24].contains(&page) || window < page {
        assert_eq!(answer, Err(RtasStatus::PARAMETER), "page {page} window {window}");
        return;
    }
    let (liobn, start) = (LIOBNS[2 * phb + slot], (slot as u64) << 59);
    assert_eq!(answer, Ok((Liobn(liobn as u32), Ioba(start))));
    let entries = 1 << (window - page);
    model.windows.insert(liobn, Window { start, shift: page as u32, entries });
}

/// Who calls: the guest as a whole, or one vCPU's handle. They get the same answers.
struct Caller<'a>(&'a Papr, Option<&'a mut Vcpu>);

impl Caller<'_> {
    fn put_tce(&mut self, liobn: u64, ioba: u64, tce: u64) -> Answer {
        match self {
            Self(_, Some(vcpu)) => vcpu.put_tce(liobn, ioba, tce),
            Self(papr, None) => papr.put_tce(liobn, ioba, tce),
        }
    }

    fn put_tce_indirect(
        &mut self,
        liobn: u64,
        ioba: u64,
        list: u64,
        count: u64,
        memory: &List,
    ) -> Answer {
        match self {
            Self(_, Some(vcpu)) => vcpu.put_tce_indirect(liobn, ioba, list, count, memory),
            Self(papr, None) => papr.put_tce_indirect(liobn, ioba, list, count, memory),
        }
    }

    fn stuff_tce(&mut self, liobn: u64, ioba: u64, tce: u64, count: u64) -> Answer {
        match self {
            Self(_, Some(vcpu)) => vcpu.stuff_tce(liobn, ioba, tce, count),
            Self(papr, None) => papr.stuff_tce(liobn, ioba, tce, count),
        }
    }

    fn get_tce(&mut self, liobn: u64, ioba: u64) -> (HCode, u64) {
        match self {
            Self(_, Some(vcpu)) => vcpu.get_tce(liobn, ioba),
            Self(papr, None) => papr.get_tce(liobn, ioba),
        }
    }
}

fn perform(model: &mut Model, mut caller: Caller<'_>, call: &Call, liobn: u64, ioba: u64) {
    let papr = caller.0;
    match call {
        Call::Put(value) => {
            let expected = model.store(liobn, ioba, &[*value]);
            // Often enough for a lock to be left to the vCPU.
            for _ in 0..4 {
                assert_eq!(caller.put_tce(liobn, ioba, *value).code, expected);
            }
        }
        Call::Indirect { values, count, list, readable } => {
            let memory = List(readable.then(|| values.clone()));
            let answer = caller.put_tce_indirect(liobn, ioba, *list, *count, &memory);
            let bad = *count > 512 || list % 4096 != 0 || !readable;
            let expected = match liobn >> 63 {
                1 => HCode::FUNCTION,
                _ if bad => HCode::PARAMETER,
                _ => model.store(liobn, ioba, values),
            };
            assert_eq!(answer.code, expected);
            let stored = if expected == HCode::SUCCESS { *count } else { 0 };
            assert_eq!(answer.receipt.tces, stored);
        }
        Call::Stuff { value, count } => {
            let answer = caller.stuff_tce(liobn, ioba, *value, *count);
            if *count > 512 {
                let known = model.windows.contains_key(&liobn);
                assert!(answer.code == HCode::P4 || (!known && answer.code != HCode::SUCCESS));
                return;
            }
            let expected = model.store(liobn, ioba, &vec![*value; *count as usize]);
            assert_eq!(answer.code, expected);
        }
        Call::Get => assert_eq!(caller.get_tce(liobn, ioba), model.get(liobn, ioba)),
        Call::Create { phb, page, window } => create(model, papr, *phb, *page, *window),
        Call::Remove => {
            // The default window stays here: what removing it means has tests of its own.
            let second = liobn % 2 == 1 && model.windows.contains_key(&liobn);
            if second {
                assert_eq!(papr.ddw_remove(Liobn(liobn as u32)), Ok(()));
                model.forget(liobn);
            } else if let Ok(n) = u32::try_from(liobn)
                && !model.windows.contains_key(&liobn)
            {
                assert_eq!(papr.ddw_remove(Liobn(n)), Err(RtasStatus::PARAMETER));
            }
        }
        Call::Reset { phb } => {
            assert_eq!(papr.ddw_reset(BUIDS[*phb]), Ok(()));
            LIOBNS[2 * phb..2 * phb + 2].iter().for_each(|l| model.forget(*l));
            model.windows.insert(LIOBNS[2 * phb], DEFAULT);
        }
    }
}

/// Every entry that the model knows, and the first and last thousands of each window.
fn compare(rig: &Rig, papr: &Papr, model: &Model) {
    for (liobn, w) in &model.windows {
        let known = model.entries.keys().filter(|k| k.0 == *liobn).map(|k| k.1);
        let edges = (0..w.entries.min(2000)).chain(w.entries.saturating_sub(1000)..w.entries);
        for i in known.chain(edges) {
            let at = w.start + (i << w.shift);
            let value = model.entries.get(&(*liobn, i)).copied().unwrap_or(0);
            assert_eq!(papr.get_tce(*liobn, at), (HCode::SUCCESS, value), "{liobn:#x} {i}");
            let pe = PeNumber(u16::from(*liobn >= LIOBNS[2]));
            match rig.mock.probe(pe, Ioba(at)) {
                Ok(t) => assert_eq!(t.at.0 | t.perm.bits(), value, "{liobn:#x} {i}"),
                Err(Fault::Empty { value: seen }) => assert_eq!((seen, value & 3), (value, 0)),
                Err(Fault::NoLevel { .. }) => assert_eq!(value, 0),
                Err(other) => panic!("{liobn:#x} {i}: {other:?}"),
            }
        }
    }
    let mut windows: Vec<_> =
        model.windows.iter().map(|(l, w)| (Liobn(*l as u32), Ioba(w.start), w.entries)).collect();
    windows.sort_unstable();
    assert_eq!(papr.windows(), windows);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_calls_equal_a_plain_model(
        calls in prop::collection::vec((call(), liobn(), bus(), 0usize..3), 1..80),
        host_64k: bool,
        on_fill: bool,
    ) {
        let host = if host_64k { PageShift::K64 } else { PageShift::K4 };
        let kill = tce_engine::backend::KillCaps { max_page_kills: 128, on_fill };
        let rig = Rig::new(MockBuilder::new(2).host_page(host).kill(kill));
        let papr = Arc::new(Papr::new(RAM));
        let mut vcpus = [papr.vcpu(), papr.vcpu()];
        let mut model = Model::default();
        for (phb, group) in [(0, G0), (1, G1)] {
            let liobn = LIOBNS[2 * phb];
            let window = WindowSpec::new(ENTRIES << 12, PageShift::K4);
            let spec = PhbSpec { buid: BUIDS[phb], group, liobn: Liobn(liobn as u32), window };
            papr.add_phb(&rig.engine, spec).unwrap();
            model.windows.insert(liobn, DEFAULT);
        }
        for (call, liobn, (own, page, wide, offset), vcpu) in &calls {
            let window = model.windows.get(liobn).copied().unwrap_or(DEFAULT);
            let shift = if *wide { 16 } else { window.shift };
            let start = if *own { window.start } else { 1 << 59 ^ window.start };
            // Near the start, or from near the end to a little behind it.
            let near_end = (window.entries + page).saturating_sub(ENTRIES);
            let page = if *page < ENTRIES - 520 { page % window.entries } else { near_end };
            let ioba = start + (page << shift) + offset;
            let caller = Caller(&papr, vcpus.get_mut(*vcpu));
            perform(&mut model, caller, call, *liobn, ioba);
            for (phb, buid) in BUIDS.iter().enumerate() {
                let mapped = papr.with_container(*buid, |c| c.regions()[0].mapped);
                prop_assert_eq!(mapped, Some(model.live(phb)), "after {:?}", call);
            }
        }
        compare(&rig, &papr, &model);
        drop((vcpus, papr));
        rig.assert_empty();
    }
}
