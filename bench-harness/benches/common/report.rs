// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Text that is printed and, if asked for, written to a file.

use std::process::ExitCode;

use super::args::Args;
use super::facts;

/// What a bench found.
pub(crate) struct Report {
    pub(crate) text: String,
}

impl Report {
    /// Begins with what it was measured on.
    pub(crate) fn new(bench: &str, args: &Args) -> Self {
        let mut text = format!("{bench}: mock: software PHB, not hardware\n{}\n", facts::text());
        if args.quick {
            text += "NOT VALID: --quick, few repetitions\n\n";
        }
        Self { text }
    }

    /// Prints it and writes the file. The exit code is 0 if all was `good`, else 1, and 2 if the
    /// file cannot be written.
    pub(crate) fn finish(self, args: &Args, good: bool) -> ExitCode {
        print!("{}", self.text);
        let code = if good { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        let Some(path) = &args.out else { return code };
        match std::fs::write(path, &self.text) {
            Ok(()) => code,
            Err(e) => {
                eprintln!("error: {}: {e}", path.display());
                ExitCode::from(2)
            }
        }
    }
}
