// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A run that is slower on purpose, to see that `compare` notices: with [`VARIABLE`] set, each timed call
//! (or group of calls) of `run` goes on until it has taken so much longer. Its result says so.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::result::Warning;

/// The environment variable: per cent, from 1 to 1000.
pub const VARIABLE: &str = "TCE_BENCH_SLOW_PERCENT";

/// Per cent; 0 = as fast as it goes.
static SLOWER: AtomicU32 = AtomicU32::new(0);

/// Reads [`VARIABLE`], and gives the warning that the result needs if it is set.
///
/// # Errors
/// If its value is none, one line.
pub fn from_env() -> Result<Option<Warning>, String> {
    let Some(value) = std::env::var_os(VARIABLE) else { return Ok(None) };
    let text = value.to_string_lossy();
    let percent = text.parse().ok().filter(|percent| (1..=1000).contains(percent));
    let Some(percent) = percent else {
        return Err(format!("{VARIABLE}='{text}'; accepted: per cent from 1 to 1000, or unset"));
    };
    SLOWER.store(percent, Ordering::Relaxed);
    let text = format!("{VARIABLE} is set: every call was made to take {percent} % longer");
    Ok(Some(Warning::new("SLOWED", text)))
}

/// Nanoseconds since `at`, once this run's share of waiting is over.
#[inline]
pub(crate) fn elapsed_ns(at: Instant) -> u64 {
    let took = at.elapsed();
    match SLOWER.load(Ordering::Relaxed) {
        0 => took.as_nanos() as u64,
        percent => spin(at, took, percent),
    }
}

#[cold]
fn spin(at: Instant, took: Duration, percent: u32) -> u64 {
    let until = took + took * percent / 100;
    loop {
        let now = at.elapsed();
        if now >= until {
            return now.as_nanos() as u64;
        }
        spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spin_takes_as_long_as_asked() {
        let at = Instant::now();
        // A call that took a millisecond, as far as the spin knows.
        let ns = spin(at, Duration::from_millis(1), 50);
        assert!(ns >= 1_500_000, "{ns}");
        assert!(at.elapsed().as_nanos() as u64 >= ns);
        let over = spin(at, Duration::ZERO, 1000);
        assert!(over >= ns, "it is over at once");
    }
}
