// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Workloads: named settings of a run with what has to come out, as TOML. `workloads/README.md` has the
//! format. Those of the tree are part of the program.

mod expect;
mod keys;
mod read;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs;

use sha2::{Digest, Sha256};

use crate::result::WorkloadSettings;

pub use expect::{Check, Expectation};
pub use keys::{PHASES, Setting};

/// The workloads of the tree, by name.
const BUILT_IN: [(&str, &str); 9] = [
    ("batched-net", include_str!("../../../workloads/synthetic/batched-net.toml")),
    ("bulk-guest-ram", include_str!("../../../workloads/synthetic/bulk-guest-ram.toml")),
    ("churn", include_str!("../../../workloads/synthetic/churn.toml")),
    ("hotplug", include_str!("../../../workloads/synthetic/hotplug.toml")),
    ("huge-pages", include_str!("../../../workloads/synthetic/huge-pages.toml")),
    ("many-groups", include_str!("../../../workloads/synthetic/many-groups.toml")),
    ("nic-ring", include_str!("../../../workloads/synthetic/nic-ring.toml")),
    ("nvme-sg", include_str!("../../../workloads/synthetic/nvme-sg.toml")),
    ("sparse-1T", include_str!("../../../workloads/synthetic/sparse-1T.toml")),
];

/// A workload file is a page of text; what is larger is something else.
const MOST_BYTES: u64 = 1 << 20;

/// A workload, read and found right as far as that can be said of each value alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// As it calls itself.
    pub name: String,
    /// What it is like, one line.
    pub description: String,
    /// The file, or where in the program.
    pub origin: String,
    /// `sha256:` and the digest of the text.
    pub digest: String,
    /// The text.
    pub text: String,
    /// What it sets, in its own order.
    pub settings: Vec<Setting>,
    /// What has to come out.
    pub expect: Vec<Expectation>,
    /// Rounds of each phase after which it has to; `None`: as is usual.
    pub rounds: Option<u64>,
}

/// What is wrong with a workload file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Counted from 1; `None` of the file as a whole.
    pub line: Option<usize>,
    /// One line.
    pub text: String,
}

/// All that is wrong with one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults {
    /// The file.
    pub origin: String,
    /// At least one.
    pub faults: Vec<Fault>,
}

impl fmt::Display for Faults {
    /// `FILE:LINE: TEXT`, one line each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, Fault { line, text }) in self.faults.iter().enumerate() {
            let line = line.map_or(String::new(), |line| format!("{line}:"));
            let end = if nth + 1 < self.faults.len() { "\n" } else { "" };
            write!(f, "{}:{line} {text}{end}", self.origin)?;
        }
        Ok(())
    }
}

impl Workload {
    /// Reads `text`, which is of the file `origin`.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(origin: &str, text: &str) -> Result<Self, Faults> {
        read::read(origin, text).map_err(|faults| Faults { origin: origin.to_owned(), faults })
    }

    /// A workload of the tree by its name, or else the one in a file.
    ///
    /// # Errors
    /// If there is none of this name, or everything that is wrong with it.
    pub fn find(name: &str) -> Result<Self, Faults> {
        if let Some((_, text)) = BUILT_IN.iter().find(|(known, _)| *known == name) {
            return Self::parse(&origin(name), text);
        }
        let whole = |text: String| {
            let origin = name.to_owned();
            Faults { origin, faults: vec![Fault { line: None, text }] }
        };
        if !name.contains(['/', '.']) {
            let names = names();
            let meant = read::nearest(name, names.iter().copied());
            let meant = meant.map_or(String::new(), |near| format!(", perhaps {near} is meant"));
            return Err(whole(format!(
                "no workload{meant}; accepted: {}, or a file, as ./{name}",
                names.join(", ")
            )));
        }
        let unreadable = |e: &dyn fmt::Display| {
            whole(format!(
                "cannot be read: {e}; accepted: a workload file, or one of {}",
                names().join(", ")
            ))
        };
        let facts = fs::metadata(name).map_err(|e| unreadable(&e))?;
        if facts.len() > MOST_BYTES {
            return Err(unreadable(&format!("{} bytes are more than {MOST_BYTES}", facts.len())));
        }
        let text = fs::read_to_string(name).map_err(|e| unreadable(&e))?;
        Self::parse(name, &text)
    }

    /// Those of the tree.
    ///
    /// # Errors
    /// Never, unless the program was built from a broken tree.
    pub fn built_in() -> Result<Vec<Self>, Faults> {
        BUILT_IN.iter().map(|(name, text)| Self::parse(&origin(name), text)).collect()
    }

    /// The setting behind a key, as `window.size`.
    #[must_use]
    pub fn setting(&self, key: &str) -> Option<&Setting> {
        self.settings.iter().find(|setting| setting.key == key)
    }

    /// As results say it.
    #[must_use]
    pub fn told(&self, overridden: Vec<String>) -> WorkloadSettings {
        WorkloadSettings { name: self.name.clone(), digest: self.digest.clone(), overridden }
    }
}

/// The names of those of the tree.
#[must_use]
pub fn names() -> Vec<&'static str> {
    BUILT_IN.iter().map(|(name, _)| *name).collect()
}

fn origin(name: &str) -> String {
    format!("workloads/synthetic/{name}.toml")
}

fn digest(text: &str) -> String {
    let hex = Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("sha256:{hex}")
}
