// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where each setting of a run was said.

/// Where an option was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere: it is as it is by default.
    Default,
    /// It was typed.
    CommandLine,
    /// In a workload: `FILE:LINE`.
    Workload(String),
}

/// Of the options of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins(Vec<(String, Origin)>);

impl Origins {
    /// Of options that were given, as `--window`.
    pub(super) fn new(given: impl IntoIterator<Item = (String, Origin)>) -> Self {
        Self(given.into_iter().collect())
    }

    /// Of the first of these options that was given.
    #[must_use]
    pub fn of(&self, options: &[&str]) -> Origin {
        let given = self.0.iter().find(|(option, _)| options.contains(&option.as_str()));
        given.map_or(Origin::Default, |(_, origin)| origin.clone())
    }
}
