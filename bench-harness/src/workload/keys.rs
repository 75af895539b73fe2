// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The keys of a workload file: each is an option of `run`, under the name that a file has for it.

/// What a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A whole number, or a string.
    Number,
    /// A string.
    Text,
    /// True or false.
    Flag,
    /// A list of strings, each given to the option.
    List,
    /// A number, a string, or a table of things with their shares, which the option takes with this
    /// between them.
    Shares(char),
}

impl Kind {
    /// For people.
    pub(super) const fn accepted(self) -> &'static str {
        match self {
            Self::Number => "a whole number or a string, as 4 or \"2G\"",
            Self::Text => "a string",
            Self::Flag => "true or false",
            Self::List => "a list of strings, as [\"ring\", \"single\"]",
            Self::Shares('=') => "a string or a table of shares, as { map = 90, replace = 10 }",
            Self::Shares(_) => "a whole number or a table of shares, as { 1 = 70, 16 = 30 }",
        }
    }
}

/// A key and the option that it stands for.
#[derive(Debug)]
pub(super) struct Key {
    /// Its table; empty for those before all tables.
    pub(super) table: &'static str,
    pub(super) name: &'static str,
    pub(super) option: &'static str,
    pub(super) kind: Kind,
}

const fn key(table: &'static str, name: &'static str, option: &'static str, kind: Kind) -> Key {
    Key { table, name, option, kind }
}

/// Which phases a workload has; of a list, since the command line repeats the option.
pub const PHASES: &str = "mix.phases";

/// The tables, in the order of the documentation. What [`super::expect`] reads is the last.
pub(super) const TABLES: [&str; 4] = ["window", "run", "mix", "expect"];

/// All keys but those that only describe, and those of `expect`.
pub(super) const KEYS: [Key; 28] = [
    key("", "seed", "--seed", Kind::Number),
    key("window", "size", "--window", Kind::Number),
    key("window", "page_size", "--page-size", Kind::Number),
    key("window", "levels", "--levels", Kind::Number),
    key("window", "groups", "--groups", Kind::Number),
    key("window", "containers", "--containers", Kind::Number),
    key("window", "buffer", "--buffer", Kind::Number),
    key("window", "backing", "--backing", Kind::Number),
    key("window", "contiguous", "--contiguous", Kind::Flag),
    key("window", "host_page", "--host-page", Kind::Number),
    key("window", "memlock", "--memlock", Kind::Number),
    key("run", "threads", "--threads", Kind::Number),
    key("run", "repetitions", "--repetitions", Kind::Number),
    key("run", "duration", "--duration", Kind::Text),
    key("run", "warmup", "--warmup", Kind::Text),
    key("run", "rate", "--rate", Kind::Text),
    key("run", "policy", "--policy", Kind::Text),
    key("run", "kill_cost", "--kill-cost", Kind::Text),
    key("run", "backend", "--backend", Kind::Text),
    key("run", "platform", "--platform", Kind::Text),
    key("run", "detach", "--detach", Kind::Text),
    key("mix", "phases", "--phase", Kind::List),
    key("mix", "operations", "--mix", Kind::Shares('=')),
    key("mix", "pages", "--pages", Kind::Shares(':')),
    key("mix", "live", "--live", Kind::Number),
    key("mix", "burst", "--burst", Kind::Number),
    key("mix", "order", "--order", Kind::Text),
    key("mix", "place", "--place", Kind::Text),
];

/// Keys before all tables that are no settings.
pub(super) const DESCRIBING: [&str; 2] = ["name", "description"];

/// A value that a workload sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// As `window.size`.
    pub key: String,
    /// As `--window`.
    pub option: &'static str,
    /// As the command line would have them: as many as the option is given.
    pub arguments: Vec<String>,
    /// Where it stands.
    pub line: usize,
}

impl Setting {
    /// The values alone, as typed: `2G`.
    #[must_use]
    pub fn value(&self) -> String {
        let values = self.arguments.iter().map(|a| a.split_once('=').map_or("yes", |(_, v)| v));
        values.collect::<Vec<_>>().join(",")
    }
}
