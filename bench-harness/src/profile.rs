// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A CPU profile of a run, in the format that `pprof` and its like read: on x86-64 with the crate of that name, on
//! powerpc64le with `profile/backchain.rs`, since that crate's stacks are empty there, or worse.

#[cfg(all(feature = "pprof", target_arch = "powerpc64", target_endian = "little"))]
mod backchain;
#[cfg(all(feature = "pprof", target_arch = "powerpc64", target_endian = "little"))]
mod stacks;
#[cfg(all(test, feature = "pprof", target_arch = "powerpc64", target_endian = "little"))]
mod tests;

/// Samples per second of CPU time; a prime, so that nothing keeps step with it.
pub const FREQUENCY: i32 = 997;

/// True if this build has the profiler.
pub const AVAILABLE: bool = cfg!(all(
    feature = "pprof",
    any(target_arch = "x86_64", all(target_arch = "powerpc64", target_endian = "little"))
));

/// What is said where it has not.
pub const UNAVAILABLE: &str = "--profile: this build has no profiler (it needs x86-64 or powerpc64le \
                               and the feature pprof); use instead: perf record -g tce-bench …";

/// Takes samples of all threads until it is finished or dropped.
#[cfg(all(feature = "pprof", target_arch = "x86_64"))]
pub struct Sampler(pprof::ProfilerGuard<'static>);

#[cfg(all(feature = "pprof", target_arch = "x86_64"))]
impl Sampler {
    /// # Errors
    /// Why there cannot be one.
    pub fn start() -> anyhow::Result<Self> {
        // What a signal interrupts in one of these cannot be walked safely.
        let left_out = ["libc", "libgcc", "pthread", "vdso"];
        let builder = pprof::ProfilerGuardBuilder::default().frequency(FREQUENCY);
        let guard = builder.blocklist(&left_out).build();
        guard.map(Self).map_err(|e| anyhow::anyhow!("the profiler cannot be started: {e}"))
    }

    /// Ends it and gives the profile: a protocol buffer, packed with gzip.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn finish(self) -> anyhow::Result<Vec<u8>> {
        packed(self.0.report().build())
    }
}

/// Takes samples of all threads until it is finished or dropped.
#[cfg(all(feature = "pprof", target_arch = "powerpc64", target_endian = "little"))]
pub struct Sampler {
    back_chain: backchain::BackChain,
    start: std::time::SystemTime,
}

#[cfg(all(feature = "pprof", target_arch = "powerpc64", target_endian = "little"))]
impl Sampler {
    /// # Errors
    /// Why there cannot be one.
    pub fn start() -> anyhow::Result<Self> {
        let start = std::time::SystemTime::now();
        let back_chain = backchain::BackChain::start(FREQUENCY);
        let back_chain =
            back_chain.map_err(|e| anyhow::anyhow!("the profiler cannot be started: {e}"))?;
        Ok(Self { back_chain, start })
    }

    /// Ends it and gives the profile: a protocol buffer, packed with gzip.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn finish(self) -> anyhow::Result<Vec<u8>> {
        let stacks = self.back_chain.finish();
        if stacks.lost > 0 {
            eprintln!("warning: the profiler lost {} samples", stacks.lost);
        }
        let duration = self.start.elapsed().unwrap_or_default();
        packed(Ok(stacks::report(&stacks, FREQUENCY, self.start, duration)))
    }
}

/// A report as a protocol buffer, packed with gzip.
#[cfg(all(
    feature = "pprof",
    any(target_arch = "x86_64", all(target_arch = "powerpc64", target_endian = "little"))
))]
fn packed(report: pprof::Result<pprof::Report>) -> anyhow::Result<Vec<u8>> {
    use std::io::Write;

    use pprof::protos::Message;

    let profile = report.and_then(|report| report.pprof());
    let mut profile = profile.map_err(|e| anyhow::anyhow!("the profile cannot be made: {e}"))?;
    for text in &mut profile.string_table {
        *text = portable(text, PACKAGE).to_owned();
    }
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packer.write_all(&profile.encode_to_vec())?;
    Ok(packer.finish()?)
}

/// The package's folder as it is built. A reproducible build (`scripts/release-build`) must not say where that
/// is, and need not, as its paths begin at the workspace.
#[cfg(all(
    feature = "pprof",
    any(target_arch = "x86_64", all(target_arch = "powerpc64", target_endian = "little"))
))]
const PACKAGE: Option<&str> = match option_env!("SOURCE_DATE_EPOCH") {
    Some(_) => None,
    None => Some(env!("CARGO_MANIFEST_DIR")),
};

/// The path of a source file without what tells where it was built: from the workspace, the package or
/// the standard library's sources on; of any other absolute path, the file's name. Other texts as they
/// are: no function's name begins as such a path.
#[cfg(all(
    feature = "pprof",
    any(target_arch = "x86_64", all(target_arch = "powerpc64", target_endian = "little"))
))]
fn portable<'a>(path: &'a str, package: Option<&str>) -> &'a str {
    if !path.starts_with('/') {
        return path;
    }
    if let Some((workspace, _)) = package.and_then(|package| package.rsplit_once('/'))
        && let Some(path) = path.strip_prefix(workspace).and_then(|path| path.strip_prefix('/'))
    {
        return path;
    }
    // `…/registry/src/INDEX/PACKAGE/…`, `/rustc/COMMIT/library/…`.
    for root in ["/registry/src/", "/rustc/"] {
        if let Some((_, path)) = path.split_once(root).and_then(|(_, path)| path.split_once('/')) {
            return path;
        }
    }
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// There is none.
#[cfg(not(all(
    feature = "pprof",
    any(target_arch = "x86_64", all(target_arch = "powerpc64", target_endian = "little"))
)))]
pub enum Sampler {}

#[cfg(not(all(
    feature = "pprof",
    any(target_arch = "x86_64", all(target_arch = "powerpc64", target_endian = "little"))
)))]
impl Sampler {
    /// # Errors
    /// Always.
    pub fn start() -> anyhow::Result<Self> {
        anyhow::bail!(UNAVAILABLE)
    }

    /// # Errors
    /// Never; there is none to finish.
    pub fn finish(self) -> anyhow::Result<Vec<u8>> {
        match self {}
    }
}

#[cfg(all(test, feature = "pprof", target_arch = "x86_64"))]
mod path_tests {
    use super::*;

    #[test]
    fn a_profile_does_not_say_where_it_was_built() {
        let told = |path| portable(path, Some("/home/x/tce/bench-harness"));
        assert_eq!(told("/home/x/tce/bench-harness/src/a.rs"), "bench-harness/src/a.rs");
        assert_eq!(told("/home/x/tce/engine/src/a.rs"), "engine/src/a.rs");
        assert_eq!(told("/home/x/.cargo/registry/src/index-0/clap-4/src/a.rs"), "clap-4/src/a.rs");
        assert_eq!(told("/rustc/0123/library/core/src/a.rs"), "library/core/src/a.rs");
        assert_eq!(told("/home/x/other/a.c"), "a.c");
        assert_eq!(told("./nptl/a.c"), "./nptl/a.c");
        assert_eq!(portable("./bench-harness/src/a.rs", None), "./bench-harness/src/a.rs");
        assert_eq!(portable("/home/x/tce/engine/src/a.rs", None), "a.rs");
    }
}
