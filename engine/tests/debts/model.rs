// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Random calls under each policy: they differ in kills alone.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tce_engine::addr::Ioba;
use tce_engine::backend::KillCaps;
use tce_engine::container::{Container, Mapper, Mode, UnmapRequest};
use tce_engine::kill::KillPolicy;

use super::{P, RW, container, deferred, kills, memory, rig};
use crate::common::{G2, phb3};

#[derive(Clone, Copy, Debug)]
enum Op {
    Map {
        at: u64,
        from: u64,
        pages: u64,
        replace: bool,
    },
    List {
        at: u64,
        pages: u64,
    },
    Unmap {
        at: u64,
        pages: u64,
    },
    /// One page, mapped and unmapped again and again: then the lock is left to the handle.
    Pairs {
        at: u64,
        times: u64,
    },
    Batch {
        at: u64,
        apart: u64,
    },
    Submit,
    Retire,
    Attach(bool),
}

fn op() -> impl Strategy<Value = Op> {
    // Mostly in the handle's own segment; the two meet at 8192.
    let place = || prop_oneof![8 => 0u64..80, 1 => 8150u64..8230];
    prop_oneof![
        6 => (place(), 0u64..9000, prop_oneof![Just(1u64), 1u64..40], any::<bool>())
            .prop_map(|(at, from, pages, replace)| Op::Map { at, from, pages, replace }),
        1 => (place(), 1u64..20).prop_map(|(at, pages)| Op::List { at, pages }),
        8 => (place(), prop_oneof![6 => Just(1u64), 6 => 1u64..40, 1 => 1u64..8000])
            .prop_map(|(at, pages)| Op::Unmap { at, pages }),
        6 => (60u64..90, 1u64..8).prop_map(|(at, times)| Op::Pairs { at, times }),
        1 => (place(), 1u64..9).prop_map(|(at, apart)| Op::Batch { at, apart }),
        1 => Just(Op::Submit),
        1 => Just(Op::Retire),
        1 => any::<bool>().prop_map(Op::Attach),
    ]
}

/// What can be seen of a call: the live entries that it wrote and that went, or why it was refused.
type Seen = Result<(u64, u64), String>;

fn apply(c: &Arc<Container>, m: &mut Mapper, op: Op, base: u64) -> Seen {
    let bus = |page: u64| Ioba((base + page) % 16000 * P);
    let seen = match op {
        Op::Map { at, from, pages, replace } => {
            let mode = if replace { Mode::Replace } else { Mode::Refuse };
            let done = m.map(bus(at), memory(from), pages * P, RW, mode);
            done.map_err(|e| e.to_string())
        }
        Op::List { at, pages } => {
            let list: Vec<_> = (0..pages).map(|n| memory(n * 919 % 16384)).collect();
            m.map_list(bus(at), &list, RW, Mode::Replace).map_err(|e| e.to_string())
        }
        Op::Unmap { at, pages } => m.unmap(bus(at), pages * P).map_err(|e| e.to_string()),
        Op::Pairs { at, times } => {
            let mut sum = (0, 0);
            for n in 0..times {
                let mapped = m.map(bus(at), memory(n), P, RW, Mode::Refuse);
                let gone = m.unmap(bus(at), P).unwrap();
                sum = (sum.0 + u64::from(mapped.is_ok()), sum.1 + gone.released);
            }
            return Ok(sum);
        }
        Op::Batch { at, apart } => {
            let each = [0, 1, 2].map(|n| UnmapRequest { at: bus(at + n * apart), bytes: P });
            m.unmap_batch(&each).map_err(|e| e.to_string())
        }
        Op::Submit => {
            m.submit();
            return Ok((0, 0));
        }
        Op::Retire => {
            c.retire_debts(Duration::ZERO);
            return Ok((0, 0));
        }
        Op::Attach(yes) => {
            let done = if yes { c.attach(G2).is_ok() } else { c.detach(G2).is_ok() };
            return Ok((done.into(), 0));
        }
    };
    seen.map(|receipt| (receipt.tces, receipt.released))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    /// The same calls have the same answers and leave the same tables and counts under each policy; and
    /// take no more kills than strict ones.
    #[test]
    fn policies_differ_in_kills_alone(
        ops in prop::collection::vec((op(), any::<bool>()), 1..120),
        max_pages in prop_oneof![Just(1u32), 2u32..40, Just(5000)],
        max_page_kills in prop_oneof![Just(0u64), Just(12), Just(128)],
        on_fill: bool,
    ) {
        let kill = KillCaps { max_page_kills, ..phb3(on_fill) };
        let policies = [KillPolicy::Strict, deferred(max_pages), KillPolicy::Batched];
        let outcome = policies.map(|policy| {
            let rig = rig(policy, kill);
            let c = container(&rig);
            let mut all = [c.mapper(), c.mapper()];
            let mut seen: Vec<Seen> = Vec::new();
            for (op, second) in &ops {
                let base = if *second { 8192 } else { 0 };
                seen.push(apply(&c, &mut all[usize::from(*second)], *op, base));
            }
            for m in &mut all {
                m.submit();
            }
            let table: Vec<_> = (0..16384).map(|n| c.requested(Ioba(n * P)).unwrap()).collect();
            // Memory of one layout in all of them, so even the real addresses are the same.
            let at_end = (seen, table, c.regions(), rig.engine.ledger().pages());
            (at_end, kills(&rig))
        });
        for (at_end, (stores, fences)) in &outcome[1..] {
            prop_assert_eq!(at_end, &outcome[0].0);
            if on_fill {
                prop_assert!(*stores <= outcome[0].1.0, "{} of {} stores", stores, outcome[0].1.0);
                prop_assert!(*fences <= outcome[0].1.1, "{} of {} fences", fences, outcome[0].1.1);
            }
        }
    }
}
