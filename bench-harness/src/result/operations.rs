// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Operations of documents by their ids.

use super::{OpResult, ResultDoc};

impl ResultDoc {
    /// The operation of this id.
    pub fn operation(&self, id: &str) -> Option<&OpResult> {
        self.results.iter().find(|result| result.id == id)
    }
}

/// The ids of all operations, in the order of the first document that has them.
pub fn operation_ids<'a>(docs: impl IntoIterator<Item = &'a ResultDoc>) -> Vec<&'a str> {
    let mut ids = Vec::new();
    for result in docs.into_iter().flat_map(|doc| &doc.results) {
        if !ids.contains(&result.id.as_str()) {
            ids.push(result.id.as_str());
        }
    }
    ids
}
