// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the rounds gave: the JSON document, schema `tce-bench.churn/1`.

use anyhow::anyhow;
use serde::Serialize;

use super::mapper::{Now, Times};
use crate::clock::Clock;
use crate::host::HostFacts;
use crate::recorder::Recorder;
use crate::result::{OpResult, Run, Tool, Verification, Warning};

pub(super) const SCHEMA: &str = "tce-bench.churn/1";

/// The document.
#[derive(Debug, Serialize)]
pub(super) struct Doc {
    pub(super) schema: &'static str,
    pub(super) tool: Tool,
    pub(super) run: Run,
    pub(super) host: HostFacts,
    /// What it ran on.
    pub(super) label: String,
    pub(super) kernel: Option<String>,
    pub(super) machine: Option<String>,
    pub(super) config: Settings,
    pub(super) clock: Clock,
    pub(super) rounds: Rounds,
    /// `attach`, `detach`, and maps and unmaps by what they met.
    pub(super) results: Vec<OpResult>,
    pub(super) replay: Replay,
    /// Mapped pages that a member did not find where they should be.
    pub(super) lost: u64,
    /// Pages that a member found mapped and should not have.
    pub(super) stray: u64,
    /// Pages that the second group reached without being a member.
    pub(super) reached: u64,
    /// The first thing that was wrong, in words.
    pub(super) first_difference: Option<String>,
    pub(super) locked: Locked,
    pub(super) verification: Verification,
    pub(super) warnings: Vec<Warning>,
    /// Null if nobody but the engine could be asked.
    pub(super) verified: Option<bool>,
}

/// What was asked for.
#[derive(Debug, Serialize)]
pub(super) struct Settings {
    /// The one that stays, and the one that comes and goes.
    pub(super) groups: [u32; 2],
    pub(super) detach: &'static str,
    pub(super) rounds: u32,
    pub(super) window_bytes: u64,
    pub(super) window_start: u64,
    pub(super) page_shift: u8,
    pub(super) host_page_shift: u8,
    pub(super) levels: u32,
    pub(super) pages: u64,
    pub(super) standing: u64,
    pub(super) calls: u64,
    pub(super) buffer_bytes: u64,
    /// Rounds from one with devices of the second group to the next; null where none can be driven.
    pub(super) dma_every: Option<u32>,
}

/// How the rounds went.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Rounds {
    pub(super) done: u64,
    pub(super) attached: u64,
    pub(super) detached: u64,
    /// Refused as documented: kernels that may not give late joiners the windows.
    pub(super) attach_refused: u64,
    /// Refused as the policy says.
    pub(super) detach_refused: u64,
    /// The first refusal, in words.
    pub(super) refusal: Option<String>,
}

/// What was mapped again: by detaches for those that stay, or by attaches for the one that comes.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Replay {
    pub(super) entries: u64,
    pub(super) ioctls: u64,
    /// Detaches during which the devices of those that stay have to be still. Maps and unmaps wait by
    /// themselves: `map.detach` and `unmap.detach`.
    pub(super) pauses: u64,
}

/// Bytes that are charged; of a kernel's, the process's `VmLck` is compared with them.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Locked {
    /// With the first group alone; null if that was never so.
    pub(super) alone_bytes: Option<u64>,
    /// With both.
    pub(super) shared_bytes: Option<u64>,
    /// The first round in which it was another amount, in words.
    pub(super) first_change: Option<String>,
}

/// What the rounds add up.
pub(super) struct Found {
    pub(super) rounds: Rounds,
    pub(super) attach: Recorder,
    pub(super) detach: Recorder,
    pub(super) replay: Replay,
    pub(super) lost: u64,
    pub(super) stray: u64,
    pub(super) reached: u64,
    pub(super) first_difference: Option<String>,
    pub(super) locked: Locked,
    pub(super) verification: Verification,
}

impl Found {
    pub(super) fn new() -> Self {
        Self {
            rounds: Rounds::default(),
            attach: Recorder::new(),
            detach: Recorder::new(),
            replay: Replay::default(),
            lost: 0,
            stray: 0,
            reached: 0,
            first_difference: None,
            locked: Locked::default(),
            verification: Verification::default(),
        }
    }

    pub(super) fn wrong(&mut self, text: String) {
        self.first_difference.get_or_insert(text);
    }

    /// Nothing is wrong so far.
    pub(super) fn is_well(&self) -> bool {
        let books = self.verification.books.iter().all(|books| books.first_difference.is_none());
        self.first_difference.is_none()
            && (self.lost, self.stray, self.reached) == (0, 0, 0)
            && self.locked.first_change.is_none()
            && books
    }

    /// One result an operation, with its histogram.
    ///
    /// # Errors
    /// If a histogram cannot be encoded.
    pub(super) fn results(&self, times: &Times) -> anyhow::Result<Vec<OpResult>> {
        let mut results = Vec::new();
        let mut add = |id: &str, op: &str, recorder: &Recorder| -> anyhow::Result<()> {
            results.push(OpResult::new(id, op, recorder, None).map_err(|e| anyhow!(e))?);
            Ok(())
        };
        add("attach", "attach", &self.attach)?;
        add("detach", "detach", &self.detach)?;
        for (op, recorders) in [("map", &times.map), ("unmap", &times.unmap)] {
            for now in Now::ALL {
                add(&format!("{op}.{}", now.name()), op, &recorders[now as usize])?;
            }
        }
        Ok(results)
    }
}
