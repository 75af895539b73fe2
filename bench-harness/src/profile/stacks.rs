// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Names for what [`backchain`](super::backchain) found.

use std::collections::HashMap;
use std::ptr;
use std::time::{Duration, SystemTime};

use pprof::{Frames, Report, Symbol};

use super::backchain::Stacks;

/// A report like pprof's own.
pub(super) fn report(
    stacks: &Stacks,
    frequency: i32,
    start: SystemTime,
    duration: Duration,
) -> Report {
    let mut names = Names::default();
    let mut data = HashMap::new();
    for ((thread_id, addresses), count) in &stacks.counts {
        let frames = names.frames(addresses);
        let key = Frames {
            frames,
            thread_name: stacks.threads.get(thread_id).cloned().unwrap_or_default(),
            thread_id: *thread_id,
            sample_timestamp: start,
        };
        *data.entry(key).or_default() += count;
    }
    let mut report = Report { data, timing: Default::default() };
    report.timing.frequency = frequency;
    report.timing.start_time = start;
    report.timing.duration = duration;
    report
}

/// Functions by address, inlined ones first.
#[derive(Default)]
struct Names(HashMap<u64, Vec<Symbol>>);

impl Names {
    /// Where a sample is, its link register and its callers, as frames.
    fn frames(&mut self, addresses: &[u64]) -> Vec<Vec<Symbol>> {
        let [place, link, callers @ ..] = addresses else { return Vec::new() };
        let mut frames = vec![self.of(*place)];
        // The youngest function may have no frame yet, or need none. Then its caller is in the link register
        // alone. Otherwise that holds what the frames have too, or where a call made here came back to.
        let back = link.wrapping_sub(CALL);
        if callers.first() != Some(link) && self.outermost(back) != self.outermost(*place) {
            frames.push(self.of(back));
        }
        // A return address may be the next function's, if the call never returns.
        frames.extend(callers.iter().map(|caller| self.of(caller.wrapping_sub(CALL))));
        frames.retain(|symbols| !symbols.is_empty());
        frames
    }

    fn outermost(&mut self, address: u64) -> Option<Symbol> {
        self.of(address).pop()
    }

    fn of(&mut self, address: u64) -> Vec<Symbol> {
        let found = self.0.entry(address).or_insert_with(|| {
            let mut symbols = Vec::new();
            let place = ptr::without_provenance_mut(address as usize);
            backtrace::resolve(place, |symbol| {
                symbols.push(Symbol {
                    name: symbol.name().map(|name| name.as_bytes().to_vec()),
                    addr: symbol.addr(),
                    lineno: symbol.lineno(),
                    filename: symbol.filename().map(ToOwned::to_owned),
                });
            });
            symbols
        });
        found.clone()
    }
}

/// Bytes of the instruction that calls.
const CALL: u64 = 4;
