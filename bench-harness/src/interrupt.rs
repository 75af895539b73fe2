// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Ctrl-C ends the run early with a partial result; a second one ends the program at once.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// The exit code of a program that a signal ended, by the shell's convention.
const BY_SIGNAL: i32 = 128;

/// Exit code of an interrupted run (SIGINT).
pub const EXIT_INTERRUPTED: u8 = 130;

fn flag() -> &'static Arc<AtomicBool> {
    FLAG.get_or_init(|| Arc::new(AtomicBool::new(false)))
}

/// Catches SIGINT and SIGTERM from now on; call once at the start.
///
/// # Errors
/// If the system refuses the handler.
pub fn install() -> io::Result<()> {
    for signal in [SIGINT, SIGTERM] {
        arm(signal, flag())?;
    }
    Ok(())
}

/// True once a signal came. Cheap enough for every batch of a hot loop.
pub fn interrupted() -> bool {
    FLAG.get().is_some_and(|flag| flag.load(Ordering::Relaxed))
}

/// A signal ended what was going on. It is an error only on the way to whoever writes what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// Whether to go on, for where `?` is the way out.
///
/// # Errors
/// If a signal came.
pub(crate) fn go_on() -> Result<(), Interrupted> {
    if interrupted() { Err(Interrupted) } else { Ok(()) }
}

/// What there is, if it is all, or if it is a signal that ended it.
///
/// # Errors
/// Any other error.
pub(crate) fn unless_interrupted(done: anyhow::Result<()>) -> anyhow::Result<()> {
    match done {
        Err(e) if e.is::<Interrupted>() => Ok(()),
        other => other,
    }
}

/// The same after so many lines of a file: not all of them ask.
pub(crate) fn interrupted_at(lines: u64) -> bool {
    lines.is_multiple_of(4096) && interrupted()
}

/// The order matters: the shutdown runs first, so the first signal finds the flag still down.
fn arm(signal: i32, flag: &Arc<AtomicBool>) -> io::Result<()> {
    flag::register_conditional_shutdown(signal, BY_SIGNAL + signal, Arc::clone(flag))?;
    flag::register(signal, Arc::clone(flag))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use signal_hook::consts::SIGUSR1;

    // The global flag stays down: other tests of this process may ask for it.
    #[test]
    fn the_first_signal_only_raises_the_flag() {
        let flag = Arc::new(AtomicBool::new(false));
        arm(SIGUSR1, &flag).unwrap();
        signal_hook::low_level::raise(SIGUSR1).unwrap();
        assert!(flag.load(Ordering::Relaxed));
        assert!(!interrupted());
    }
}
