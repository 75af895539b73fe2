// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What it takes when a group leaves others and comes back.

use serde::{Deserialize, Serialize};

/// A group that left others, or was not let go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Left {
    /// Number of the container, from 0.
    pub container: u64,
    /// Which group.
    pub group: u32,
    /// Groups that stayed.
    pub others: u64,
    /// `refuse`, `replay` or `isolate`.
    pub policy: String,
    /// Live entries meanwhile.
    pub mapped_tces: u64,
    /// Why it was not let go.
    pub refused: Option<String>,
    /// Time of the whole detach.
    pub detach_ns: f64,
    /// Entries of the others that were mapped again.
    pub replayed: u64,
    /// Requests to the kernel for them.
    pub ioctls: u64,
    /// Time of those, in which the others' devices may find nothing.
    pub replay_ns: f64,
    /// Entries that the others' devices did not reach afterwards; null where they cannot be asked.
    pub lost_tces: Option<u64>,
    /// How it came back; null if it never left.
    pub joined: Option<Joined>,
}

/// A group that joined while everything was mapped.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Joined {
    /// Why it could not.
    pub refused: Option<String>,
    /// Time of the whole attach.
    pub attach_ns: f64,
    /// Entries that were mapped for it.
    pub replayed: u64,
    /// Requests to the kernel for them.
    pub ioctls: u64,
    /// Time of those.
    pub replay_ns: f64,
}
