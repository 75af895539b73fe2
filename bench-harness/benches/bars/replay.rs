// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The recorded calls of a guest that receives from the network, as fast as they go on one core.
//!
//! What `tce-bench replay --pass throughput` does, on a fresh guest each time; but the trace is read
//! once, so that it can be repeated some hundred times.

use std::path::Path;
use std::sync::Arc;

use tce_bench::trace::{Op, TraceFile};
use tce_engine::{
    Engine, EngineOptions, GroupId, Liobn, MockBuilder, PageShift, Papr, PhbSpec, WindowSpec,
};

use crate::Setup;
use crate::common::rig::ListPage;
use crate::line::{Bar, Line, Unit};

/// A hypercall with its recorded return code.
struct Call {
    liobn: u64,
    ioba: u64,
    ret: i64,
    what: What,
}

enum What {
    Put(u64),
    Stuff {
        value: u64,
        count: u64,
    },
    /// A range of the words.
    Indirect(std::ops::Range<u32>),
}

/// A trace with one window, made by firmware.
struct Script {
    liobn: u64,
    window: WindowSpec,
    ram: u64,
    calls: Vec<Call>,
    /// The lists, as words in memory.
    words: Vec<u64>,
}

impl Script {
    fn load() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../workloads/traces/net-rx.tce.zst");
        let trace = TraceFile::load(&path).expect("the trace is in the tree");
        let (mut window, mut calls) = (None, Vec::with_capacity(trace.records.len()));
        for record in &trace.records {
            let (liobn, ioba, ret, what) = match &record.op {
                Op::WindowCreate {
                    liobn: Some(liobn),
                    page_shift,
                    entries,
                    power_on: true,
                    ..
                } => {
                    let page = PageShift::new(u32::from(*page_shift)).expect("a page size");
                    window = Some((*liobn, WindowSpec::new(entries << page_shift, page)));
                    continue;
                }
                Op::Put { liobn, ioba, tce, ret } => (liobn, ioba, ret, What::Put(*tce)),
                Op::Stuff { liobn, ioba, value, npages, ret } => {
                    (liobn, ioba, ret, What::Stuff { value: *value, count: *npages })
                }
                Op::Indirect { liobn, ioba, list, ret } => {
                    (liobn, ioba, ret, What::Indirect(list.clone()))
                }
                op => panic!("{}:{}: not in this trace: {op:?}", trace.file, record.line),
            };
            calls.push(Call { liobn: u64::from(*liobn), ioba: *ioba, ret: *ret, what });
        }
        let (liobn, window) = window.expect("firmware makes a window");
        let ram = trace.largest_target().next_multiple_of(1 << 16);
        let words = trace.pool.iter().map(|tce| tce.to_be()).collect();
        Self { liobn: u64::from(liobn), window, ram, calls, words }
    }
}

pub(crate) fn net_rx(setup: &Setup) -> Vec<Line> {
    let script = Script::load();
    let calls = script.calls.len() as u64;
    let samples = setup.repeat(|samples, _| {
        let options = EngineOptions { tier: Some(setup.tier), ..EngineOptions::default() };
        let engine = Engine::new(MockBuilder::new(1).build(), options);
        let papr = Arc::new(Papr::new(script.ram));
        let liobn = Liobn(script.liobn as u32);
        let spec = PhbSpec { buid: 1, group: GroupId(0), liobn, window: script.window };
        papr.add_phb(&engine, spec).expect("firmware's window");
        let mut vcpu = papr.vcpu();
        let (mut wrong, mut tces) = (0u64, 0);
        samples.time("replay", calls, || {
            for Call { liobn, ioba, ret, what } in &script.calls {
                let answer = match what {
                    What::Put(tce) => vcpu.put_tce(*liobn, *ioba, *tce),
                    What::Stuff { value, count } => vcpu.stuff_tce(*liobn, *ioba, *value, *count),
                    What::Indirect(list) => {
                        let list = &script.words[list.start as usize..list.end as usize];
                        let (count, page) = (list.len() as u64, ListPage(list));
                        vcpu.put_tce_indirect(*liobn, *ioba, 0x1000, count, &page)
                    }
                };
                wrong += u64::from(answer.code.0 != *ret);
                tces += answer.receipt.tces;
            }
        });
        assert_eq!(wrong, 0, "answers that are not the recorded ones");
        assert!(tces >= calls, "{tces} entries in {calls} calls");
    });
    let ns = samples.min("replay");
    let note = format!("{ns:.2} ns a call (median {:.2}), {calls} calls", samples.median("replay"));
    let what = "replay of net-rx through papr, throughput";
    vec![Line::new(what, Bar::AtLeast(30.0), Unit::MCalls, 1e3 / ns).note(note)]
}
