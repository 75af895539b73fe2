// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How far a process has come, for another one to look at: with [`VARIABLE`] set, each request to a
//! kernel's container and each result file is counted in the file that it names, before it is begun.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, OnceLock, PoisonError};

/// The environment variable: the file, which has to be there.
pub const VARIABLE: &str = "TCE_BENCH_STEPS";

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Step {
    /// A container or a group is opened.
    Open,
    /// A group joins, or the container is given its type.
    Attach,
    /// A question, which changes nothing.
    Ask,
    /// Memory is registered; of version 1, all that may be mapped is charged.
    Register,
    /// A window is created.
    Create,
    Map,
    Unmap,
    /// A window is removed.
    Remove,
    Unregister,
    /// A group leaves, or is closed.
    Detach,
    /// A container is closed.
    Close,
    /// A device is opened.
    Device,
    /// A result file is about to get its name.
    Write,
}

impl Step {
    pub(crate) const ALL: [Self; 13] = [
        Self::Open,
        Self::Attach,
        Self::Ask,
        Self::Register,
        Self::Create,
        Self::Map,
        Self::Unmap,
        Self::Remove,
        Self::Unregister,
        Self::Detach,
        Self::Close,
        Self::Device,
        Self::Write,
    ];

    /// As in results.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Attach => "attach",
            Self::Ask => "ask",
            Self::Register => "register",
            Self::Create => "create",
            Self::Map => "map",
            Self::Unmap => "unmap",
            Self::Remove => "remove",
            Self::Unregister => "unregister",
            Self::Detach => "detach",
            Self::Close => "close",
            Self::Device => "device",
            Self::Write => "write",
        }
    }
}

/// Doublewords of the file, little-endian: the last step, from 1, or 0; then the counts.
const WORDS: usize = 1 + Step::ALL.len();

/// What a process has begun so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Steps {
    pub(crate) last: Option<Step>,
    counts: [u64; Step::ALL.len()],
}

impl Steps {
    pub(crate) fn count(&self, step: Step) -> u64 {
        self.counts[step as usize]
    }

    #[cfg(test)]
    pub(crate) fn of(counts: &[(Step, u64)]) -> Self {
        let mut steps = Self::default();
        counts.iter().for_each(|(step, count)| steps.counts[*step as usize] = *count);
        steps
    }

    fn add(&mut self, step: Step) {
        self.last = Some(step);
        self.counts[step as usize] += 1;
    }

    fn encode(&self) -> [u8; 8 * WORDS] {
        let last = self.last.map_or(0, |step| step as u64 + 1);
        let mut bytes = [0; 8 * WORDS];
        let words = std::iter::once(last).chain(self.counts);
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// What the file says; nothing if nothing was written yet.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn read(file: &File) -> io::Result<Self> {
        let mut bytes = [0; 8 * WORDS];
        if file.metadata()?.len() < bytes.len() as u64 {
            return Ok(Self::default());
        }
        file.read_exact_at(&mut bytes, 0)?;
        let mut words =
            bytes.chunks_exact(8).map(|word| word.try_into().map_or(0, u64::from_le_bytes));
        let last = words.next().unwrap_or_default();
        let mut steps = Self {
            last: Step::ALL.get((last as usize).wrapping_sub(1)).copied(),
            ..Self::default()
        };
        steps.counts.iter_mut().zip(words).for_each(|(count, word)| *count = word);
        Ok(steps)
    }
}

static TOLD: OnceLock<(File, Mutex<Steps>)> = OnceLock::new();

/// Begins to count if [`VARIABLE`] is set.
///
/// # Errors
/// If the file cannot be opened, one line.
pub fn from_env() -> Result<(), String> {
    let Some(path) = std::env::var_os(VARIABLE) else { return Ok(()) };
    let file = File::options().write(true).open(&path).map_err(|e| {
        format!("{VARIABLE}='{}': {e}; accepted: a file to count in, or unset", path.display())
    })?;
    TOLD.get_or_init(|| (file, Mutex::default()));
    Ok(())
}

/// True if steps are counted.
pub(crate) fn are_told() -> bool {
    TOLD.get().is_some()
}

/// Counts a step that is about to begin.
pub(crate) fn tell(step: Step) {
    if let Some((file, steps)) = TOLD.get() {
        let mut steps = steps.lock().unwrap_or_else(PoisonError::into_inner);
        steps.add(step);
        // Who looks sees that nothing comes any more.
        let _ = file.write_all_at(&steps.encode(), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(Steps::read(&file).unwrap(), Steps::default());
        let mut steps = Steps::default();
        for step in Step::ALL.into_iter().chain([Step::Map, Step::Map, Step::Open]) {
            steps.add(step);
        }
        file.write_all_at(&steps.encode(), 0).unwrap();
        let read = Steps::read(&file).unwrap();
        assert_eq!(read, steps);
        assert_eq!((read.last, read.count(Step::Map)), (Some(Step::Open), 3));
        let mut names = Step::ALL.map(Step::name).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Step::ALL.len());
    }
}
