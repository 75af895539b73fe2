// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A recorder that writes down what the simulated kernel answers as the observations do.

use super::*;

/// What was observed.
const OBSERVED: &str = include_str!("observed-6.12-64k.txt");

pub(super) struct Recorder {
    section: &'static str,
    pub(super) process: Arc<Process>,
    before: u64,
    lines: Vec<String>,
}

impl Recorder {
    /// A section of its own, in a process of its own.
    pub(super) fn new(section: &'static str, kernel: &Arc<MockKernel>) -> Self {
        Self { section, process: kernel.process(), before: 0, lines: Vec::new() }
    }

    /// A request's return.
    pub(super) fn r(&mut self, case: &str, ret: Raw) {
        self.r_with(case, ret, "");
    }

    /// A request's return and what it wrote.
    pub(super) fn r_with(&mut self, case: &str, ret: Raw, note: &str) {
        let (n, e) = match ret {
            Ok(n) => (n, "0"),
            Err(e) => (-1, e.name().unwrap_or("?")),
        };
        self.lines.push(format!("R|{}|{case}|ret={n}|errno={e}|{note}", self.section));
    }

    /// A fact.
    pub(super) fn k(&mut self, what: &str, value: impl fmt::Display) {
        self.lines.push(format!("K|{}|{what}|{value}", self.section));
    }

    /// Locked memory now, and the difference to the last time.
    pub(super) fn a(&mut self, after: &str) {
        let now = self.kb();
        let delta = now as i64 - self.before as i64;
        self.lines.push(format!("A|{}|{after}|VmLck={now}kB|delta={delta:+}kB", self.section));
        self.before = now;
    }

    pub(super) fn kb(&self) -> u64 {
        self.process.locked_bytes() / 1024
    }

    /// CREATE with the start it returned.
    pub(super) fn create(&mut self, case: &str, c: &MockContainer, of: (u32, u64, u32)) -> u64 {
        let (ret, start) = create(c, of.0, of.1, of.2);
        self.r_with(case, ret, &format!("start={start:#x}"));
        start
    }

    /// GET_INFO with all that came back.
    pub(super) fn info(&mut self, case: &str, c: &MockContainer) {
        let mut i = TceInfo::new();
        let ret = c.info(&mut i);
        let note = format!(
            "argsz={} flags={:#x} dma32_start={:#x} dma32_size={:#x} pgsizes={:#x} \
             max_dynamic_windows_supported={} levels={}",
            i.argsz,
            i.flags,
            i.dma32_window_start,
            i.dma32_window_size,
            i.ddw.pgsizes,
            i.ddw.max_dynamic_windows_supported,
            i.ddw.levels
        );
        self.r_with(case, ret, &note);
    }

    /// Goes on in another section.
    pub(super) fn section(&mut self, section: &'static str) {
        self.section = section;
    }

    /// Compares all lines with the observed ones of these sections.
    pub(super) fn compare(self, sections: &[&str]) {
        let wanted = OBSERVED.lines().filter(|line| {
            !line.starts_with('#') && sections.contains(&line.split('|').nth(1).unwrap())
        });
        let wanted: Vec<_> = wanted.collect();
        for (i, (got, wanted)) in self.lines.iter().zip(&wanted).enumerate() {
            assert_eq!(got, wanted, "line {i} of {sections:?}");
        }
        assert_eq!(self.lines.len(), wanted.len(), "lines of {sections:?}");
    }
}
