// SPDX-License-Identifier: Apache-2.0 OR MIT
//! criterion's `--profile-time`: a profile of each benchmark, in `profile/cpu.pb.gz` of its folder.

use std::fs;
use std::path::Path;

use criterion::profiler::Profiler;
use tce_bench::profile::Sampler;

/// Samples while a benchmark is profiled.
#[derive(Default)]
pub(crate) struct Pprof(Option<Sampler>);

impl Profiler for Pprof {
    fn start_profiling(&mut self, _id: &str, _folder: &Path) {
        self.0 = Some(Sampler::start().expect("a profiler"));
    }

    fn stop_profiling(&mut self, id: &str, folder: &Path) {
        let profile = self.0.take().expect("one that was started").finish();
        let profile = profile.unwrap_or_else(|e| panic!("{id}: {e:#}"));
        let file = folder.join("cpu.pb.gz");
        let written = fs::create_dir_all(folder).and_then(|()| fs::write(&file, profile));
        written.unwrap_or_else(|e| panic!("cannot write '{}': {e}", file.display()));
        println!("profile: {}", file.display());
    }
}
