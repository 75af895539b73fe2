// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The parts of a result that say what was set up: the back end and the settings.

use serde::{Deserialize, Serialize};
use tce_engine::backend::mock::KillCost;

use crate::mix::{Mix, Order, Place};

/// The back end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// Which one.
    pub kind: BackendKind,
    /// For people; that of a mock of PHB3 is [`MOCK_LABEL`](super::MOCK_LABEL).
    pub label: String,
    /// IOMMU groups.
    pub groups: u64,
    /// Their numbers, in the order in which they joined.
    #[serde(default)]
    pub group_numbers: Vec<u32>,
    /// Version of the kernel's containers; null where there is no kernel.
    #[serde(default)]
    pub container_version: Option<u8>,
    /// Release of the kernel that owns the tables, or what simulates it; null where there is none.
    #[serde(default)]
    pub kernel_release: Option<String>,
    /// The machine as its kernel describes it, and whether it is emulated; null for a mock.
    #[serde(default)]
    pub runs_on: Option<String>,
    /// Host bridges that are simulated, as in `phb3`; null where they are real or not known.
    #[serde(default)]
    pub bridges: Option<String>,
    /// IOMMU page sizes offered, in bytes.
    pub page_sizes: Vec<u64>,
    /// DMA windows per container.
    pub max_windows: u64,
    /// Table levels.
    pub max_levels: u64,
    /// NUMA node that each container's table was made for, in order; null where nobody tells.
    #[serde(default)]
    pub table_nodes: Vec<Option<u32>>,
    /// What the tables lie in.
    pub table_memory: TableMemory,
    /// What is mapped; null where no memory stands behind it (a replay).
    pub real_memory: Option<RealMemory>,
}

/// Kinds of back ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackendKind {
    /// A software PHB.
    Mock,
    /// A simulated kernel.
    MockKernel,
    /// Linux VFIO on POWER.
    Vfio,
}

/// The arena of the tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableMemory {
    /// What was got, not what was asked for.
    pub kind: TableMemoryKind,
    /// Page size in bytes.
    pub page_bytes: u64,
    /// Reserved by the arena.
    pub reserved_bytes: u64,
    /// In use by table blocks.
    pub used_bytes: u64,
}

/// Kinds of table memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableMemoryKind {
    /// Reserved huge pages.
    Hugetlb,
    /// Transparent huge pages.
    Thp,
    /// Base pages.
    Small,
}

impl TableMemoryKind {
    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hugetlb => "hugetlb",
            Self::Thp => "thp",
            Self::Small => "small pages",
        }
    }
}

/// The memory behind a window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RealMemory {
    /// Size of a run of contiguous real memory.
    pub backing_bytes: u64,
    /// How the runs lie.
    pub layout: Layout,
}

/// How real memory lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// No two runs are adjacent.
    Scattered,
    /// One run: the table's entries count up, which real machines seldom offer.
    Contiguous,
    /// As the kernel gave it, which it does not tell.
    Unknown,
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "lowercase")]
pub enum Config {
    /// `tce-bench run`.
    Run(RunSettings),
    /// `tce-bench replay`.
    Replay(ReplaySettings),
}

/// The settings of a run, defaults and automatic choices filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct RunSettings {
    pub groups: u64,
    pub containers: u64,
    pub window_bytes: u64,
    /// Where the first window starts on the bus; the others, too, where groups can share one.
    pub window_start: u64,
    /// Levels of the table that was built.
    pub levels: u64,
    /// Entries of one level.
    pub level_entries: u64,
    pub page_shift: u8,
    pub host_page_shift: u8,
    pub threads: u64,
    /// CPUs that threads were pinned to, in order; null = not pinned.
    pub cpus: Option<Vec<usize>>,
    pub backing_bytes: u64,
    pub buffer_bytes: u64,
    /// In the order in which they ran; empty in documents of versions that always ran all.
    #[serde(default)]
    pub phases: Vec<String>,
    pub repetitions: Option<u64>,
    pub duration_s: Option<f64>,
    pub warmup_s: f64,
    /// The tier that ran, as `avx2`.
    pub simd: String,
    pub contiguous: bool,
    /// The limit of the mock; null = none.
    pub memlock_bytes: Option<u64>,
    /// `--detach`; null = the engine's default, and no group was made to leave.
    #[serde(default)]
    pub detach: Option<String>,
    /// `--kill-cost`; null = kills cost nothing but their own code.
    #[serde(default)]
    pub kill_cost: Option<KillCostSettings>,
    /// `--policy`, with its numbers. Documents of versions that knew only the first do not say so.
    #[serde(default = "strict")]
    pub policy: String,
    /// What phase `mix` was made of; null if it did not run.
    #[serde(default)]
    pub mix: Option<Box<MixSettings>>,
    /// Operations a second of phase `mix` in an open loop; null for a closed one.
    #[serde(default)]
    pub rate_per_s: Option<u64>,
    /// The workload that settings came from; null if there was none.
    #[serde(default)]
    pub workload: Option<Box<WorkloadSettings>>,
}

/// What phase `mix` was made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct MixSettings {
    /// `--mix`, as `map=90,replace=10`.
    pub operations: String,
    /// `--pages`, as `8` or `1:70,16:30`.
    pub pages: String,
    pub live: u64,
    pub burst: u64,
    pub order: Order,
    pub place: Place,
}

impl From<&Mix> for MixSettings {
    fn from(mix: &Mix) -> Self {
        Self {
            operations: mix.operations.to_string(),
            pages: mix.pages.to_string(),
            live: mix.live.into(),
            burst: mix.burst.into(),
            order: mix.order,
            place: mix.place,
        }
    }
}

/// A workload, and what it did not decide.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadSettings {
    /// As it calls itself.
    pub name: String,
    /// `sha256:` and the digest of its file.
    pub digest: String,
    /// Its settings that the command line changed, as `window.size`.
    pub overridden: Vec<String>,
}

/// What kills were made to cost: an assumption, whatever the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct KillCostSettings {
    /// One store to a kill register.
    pub store_ns: u64,
    /// One fence.
    pub fence_ns: u64,
    /// One level that is read again for a translation that a kill of a PE or of all threw away.
    pub refill_ns: u64,
}

impl From<KillCost> for KillCostSettings {
    fn from(KillCost { store_ns, fence_ns, refill_ns }: KillCost) -> Self {
        Self { store_ns, fence_ns, refill_ns }
    }
}

/// The settings of a replay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ReplaySettings {
    pub traces: Vec<String>,
    /// Guest RAM; null = as large as each trace's largest target.
    pub ram_bytes: Option<u64>,
    /// `checked`, `throughput`, `latency`.
    pub passes: Vec<String>,
    /// Whose rules the hypercalls were under: `arch`, `kvm`, `qemu`. Documents of versions that knew
    /// only the first do not say so.
    #[serde(default = "arch")]
    pub compat: String,
    /// `--policy`, with its numbers. Documents of versions that knew only the first do not say so.
    #[serde(default = "strict")]
    pub policy: String,
    pub host_page_shift: u8,
    pub simd: String,
}

fn arch() -> String {
    "arch".to_string()
}

fn strict() -> String {
    "strict".to_string()
}
