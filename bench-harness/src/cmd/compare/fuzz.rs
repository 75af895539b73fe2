// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Comparisons of any results.

use super::evaluate::{Evaluation, Rules, evaluate};
use super::load::{Metric, Side};
use super::{THRESHOLD, Verdict};
use crate::cmd::documents::unlike;
use crate::result::ResultDoc;

/// Runs of a program against themselves: nothing differs, so nothing is slower.
///
/// # Panics
/// If it is found to be.
pub(in crate::cmd) fn with_itself(runs: &[Vec<ResultDoc>]) {
    let side = || Side { name: "it".to_owned(), runs: runs.to_vec() };
    for doc in runs.iter().flatten() {
        assert_eq!(unlike(doc, doc), Vec::<String>::new());
    }
    let rules = Rules { metrics: Metric::ALL.to_vec(), threshold: THRESHOLD, seed: 1 };
    let of_one = vec![1; runs.len()];
    for pairs in [None, Some(of_one.as_slice())] {
        let Evaluation { verdict, cells, .. } = evaluate(&[side(), side()], pairs, &rules);
        let slower = |verdict| matches!(verdict, Verdict::Regression | Verdict::Improvement);
        assert!(!slower(verdict), "{verdict:?}");
        for cell in &cells {
            assert!(!slower(cell.verdict), "{cell:?}");
        }
    }
}
