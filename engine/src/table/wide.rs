// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Several cores for one long range. Each takes whole segments, so no two write to one line.

use super::tree::Run;

/// Entries from which on it pays: 16 MiB of table. Below, what the others' caches hold of it costs
/// more than they bring (`METHODOLOGY.md` says how that was measured).
#[cfg(feature = "rayon")]
const WIDE: u64 = 2 << 20;

/// True if a range of so many entries is worth several cores, and there are some.
pub(super) fn worth(entries: u64) -> bool {
    #[cfg(feature = "rayon")]
    return entries >= WIDE && rayon::current_num_threads() > 1;
    #[cfg(not(feature = "rayon"))]
    {
        let _ = entries;
        false
    }
}

/// Calls `f` with each run, on several cores if there are.
pub(super) fn for_each<'a>(runs: impl Iterator<Item = Run<'a>>, f: impl Fn(&Run<'a>) + Sync) {
    #[cfg(feature = "rayon")]
    {
        use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
        let runs: Vec<_> = runs.collect();
        runs.par_iter().for_each(&f);
    }
    #[cfg(not(feature = "rayon"))]
    runs.for_each(|run| f(&run));
}
