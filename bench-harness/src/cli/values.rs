// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Values that options take. The parsers answer with one line: what is wrong, what is accepted.

use clap::ValueEnum;
use tce_engine::backend::linux::mock_kernel::Profile;
use tce_engine::backend::mock::KillCost;
use tce_engine::engine::DetachPolicy;
use tce_engine::papr::Compat;
use tce_engine::platform::Platform;
use tce_engine::simd::Tier;

use crate::cpus;
use crate::policy::Policy;
use crate::size::{parse_size, whole};

/// Levels of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Levels {
    /// The engine picks.
    Auto,
    /// 1 to 5.
    Count(u8),
}

/// A limit in bytes, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit(pub Option<u64>);

/// Whose instructions fill tables: one of those that this machine can run.
#[derive(Debug, Clone, Copy)]
pub struct Simd(pub &'static Tier);

impl PartialEq for Simd {
    fn eq(&self, other: &Self) -> bool {
        self.0.name() == other.0.name()
    }
}

impl Eq for Simd {}

/// Which back end to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BackendChoice {
    /// A software PHB, on any machine.
    Mock,
    /// A simulated kernel, on any machine.
    MockKernel,
    /// Linux VFIO on POWER hardware.
    Vfio,
    /// vfio if it is usable, else the mock with a warning.
    Auto,
}

impl BackendChoice {
    /// True if containers of a kernel are meant.
    pub const fn has_kernel(self) -> bool {
        matches!(self, Self::MockKernel | Self::Vfio)
    }
}

/// What happens to the other groups of a container when one leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Detach {
    /// It cannot.
    Refuse,
    /// What is mapped is mapped again.
    Replay,
    /// Each has a container of the kernel of its own.
    Isolate,
}

impl Detach {
    /// As typed and as written to results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Replay => "replay",
            Self::Isolate => "isolate",
        }
    }
}

impl From<Detach> for DetachPolicy {
    fn from(detach: Detach) -> Self {
        match detach {
            Detach::Refuse => Self::RefuseWhileShared,
            Detach::Replay => Self::Replay,
            Detach::Isolate => Self::Isolate,
        }
    }
}

/// A phase of a run, in the order in which they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Phase {
    /// The whole window at once.
    Bulk,
    /// The free half of each stretch whose other half is mapped, so that every entry is looked at.
    Checked,
    /// Lists of 512 scattered pages.
    Indirect,
    /// Other memory over what is mapped.
    Exchange,
    /// 512 requests of a single page in one call.
    Batch,
    /// Single pages.
    Ring,
    /// A single page mapped and unmapped again at an address that the engine picks.
    Single,
    /// A whole window that is full, emptied by one call.
    Clear,
    /// The bulk work by the naive peer; where a kernel owns the tables, one call a page.
    Naive,
    /// Requests as `--pages`, `--mix` and the like say.
    Mix,
}

impl Phase {
    /// All that a run has unless told otherwise.
    pub const ALL: [Self; 9] = [
        Self::Bulk,
        Self::Checked,
        Self::Indirect,
        Self::Exchange,
        Self::Batch,
        Self::Ring,
        Self::Single,
        Self::Clear,
        Self::Naive,
    ];

    /// As typed, and how result ids begin.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bulk => "bulk",
            Self::Checked => "checked",
            Self::Indirect => "indirect",
            Self::Exchange => "exchange",
            Self::Batch => "batch",
            Self::Ring => "ring",
            Self::Single => "single",
            Self::Clear => "clear",
            Self::Naive => "naive",
            Self::Mix => "mix",
        }
    }
}

/// A pass of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Pass {
    /// Compare every answer, translation and final entry.
    Checked,
    /// As fast as it goes, timed as a whole.
    Throughput,
    /// Time each call.
    Latency,
}

impl Pass {
    /// As typed and as written to results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Checked => "checked",
            Self::Throughput => "throughput",
            Self::Latency => "latency",
        }
    }
}

/// Whose rules a guest's hypercalls are under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Rules {
    /// The architecture's: a call is done, or nothing is.
    #[default]
    Arch,
    /// KVM's.
    Kvm,
    /// QEMU's.
    Qemu,
}

impl Rules {
    /// As typed and as written to results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Arch => "arch",
            Self::Kvm => "kvm",
            Self::Qemu => "qemu",
        }
    }

    /// The engine's name for them.
    pub const fn compat(self) -> Compat {
        match self {
            Self::Arch => Compat::Arch,
            Self::Kvm => Compat::Kvm,
            Self::Qemu => Compat::Qemu,
        }
    }
}

/// A CPU list; a type of its own, since clap gives `Vec` another meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CpuList(pub(super) Vec<usize>);

/// What `--profile` names: where a CPU profile goes, or a kernel to simulate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ProfileArg {
    File(String),
    Kernel(Box<Profile>),
}

/// Numbers of groups, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GroupList(pub(super) Vec<u32>);

/// IOMMU page sizes that sPAPR knows and an engine may offer.
const PAGE_SIZES: [(&str, u8); 6] =
    [("4K", 12), ("64K", 16), ("2M", 21), ("16M", 24), ("256M", 28), ("1G", 30)];
const HOST_PAGES: [(&str, u8); 2] = [("4K", 12), ("64K", 16)];
const BACKINGS: [(&str, u8); 3] = [("64K", 16), ("2M", 21), ("16M", 24)];

/// Finds a size in a list of powers of two, however it is written.
fn one_of(what: &str, text: &str, accepted: &[(&str, u8)]) -> Result<u8, String> {
    let bytes = parse_size(text)?;
    accepted.iter().find(|(_, shift)| bytes == 1 << shift).map(|&(_, shift)| shift).ok_or_else(
        || {
            let names: Vec<&str> = accepted.iter().map(|&(name, _)| name).collect();
            format!("'{text}' is no {what}; accepted: {}", names.join(", "))
        },
    )
}

pub(super) fn page_shift(text: &str) -> Result<u8, String> {
    one_of("IOMMU page size", text, &PAGE_SIZES)
}

pub(super) fn host_page_shift(text: &str) -> Result<u8, String> {
    one_of("page size of a POWER host", text, &HOST_PAGES)
}

pub(super) fn backing(text: &str) -> Result<u64, String> {
    one_of("backing page size", text, &BACKINGS).map(|shift| 1 << shift)
}

/// A whole number from 1 to `MAX`.
pub(super) fn count<const MAX: u32>(text: &str) -> Result<u32, String> {
    text.parse().ok().filter(|number| (1..=MAX).contains(number)).ok_or_else(|| {
        format!("'{text}' is out of range; accepted: a whole number from 1 to {MAX}")
    })
}

pub(super) fn levels(text: &str) -> Result<Levels, String> {
    if text.eq_ignore_ascii_case("auto") {
        return Ok(Levels::Auto);
    }
    match text.parse() {
        Ok(number @ 1..=5) => Ok(Levels::Count(number)),
        _ => Err(format!("'{text}' is no number of levels; accepted: 1 to 5, or auto")),
    }
}

pub(super) fn simd(text: &str) -> Result<Simd, String> {
    let tier = if text == "auto" { Some(Tier::best()) } else { Tier::named(text) };
    tier.map(Simd).ok_or_else(|| {
        let names: Vec<_> = Tier::all().map(Tier::name).collect();
        format!("'{text}' is no tier of this machine; accepted: auto, {}", names.join(", "))
    })
}

pub(super) fn profile(text: &str) -> Result<ProfileArg, String> {
    if text == "-" || text.contains(['.', '/']) {
        return Ok(ProfileArg::File(text.to_owned()));
    }
    let names: Vec<_> = Profile::ALL.iter().map(|profile| profile.name).collect();
    text.parse().map(|found| ProfileArg::Kernel(Box::new(found))).map_err(|_| {
        format!(
            "'{text}' is no kernel that is simulated{}; accepted: {}, or the name of a file for a \
             CPU profile, as cpu.pb.gz, - or ./{text}",
            near(text, &names),
            names.join(", ")
        )
    })
}

pub(super) fn platform(text: &str) -> Result<Platform, String> {
    let names = Platform::ALL.map(Platform::name);
    text.parse().map_err(|_| {
        format!("'{text}' is no platform{}; accepted: {}", near(text, &names), names.join(", "))
    })
}

pub(super) fn policy(text: &str) -> Result<Policy, String> {
    text.parse()
}

/// The name that was probably meant, as a question: it differs in case or in what joins its parts,
/// or is longer or shorter by its end.
fn near(text: &str, names: &[&str]) -> String {
    let plain = |text: &str| -> String {
        text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
    };
    let typed = plain(text);
    let same = names.iter().find(|name| plain(name) == typed);
    let begins = |name: &&&str| {
        let name = plain(name);
        typed.len() > 1 && (name.starts_with(&typed) || typed.starts_with(&name))
    };
    let meant = same.or_else(|| names.iter().rev().find(begins));
    meant.map_or(String::new(), |name| format!(", perhaps {name} is meant"))
}

/// `default`, or ns for a store, a fence and a level.
pub(super) fn kill_cost(text: &str) -> Result<KillCost, String> {
    if text == "default" {
        return Ok(KillCost::ASSUMED);
    }
    let number = |part: &str| whole(part).filter(|ns| *ns <= KillCost::MOST_NS);
    let numbers: Option<Vec<u64>> = text.split(',').map(|part| number(part.trim())).collect();
    match numbers.as_deref() {
        Some([store_ns, fence_ns, refill_ns]) => {
            Ok(KillCost { store_ns: *store_ns, fence_ns: *fence_ns, refill_ns: *refill_ns })
        }
        _ => {
            let KillCost { store_ns, fence_ns, refill_ns } = KillCost::ASSUMED;
            Err(format!(
                "'{text}' is no cost of kills; accepted: default, or ns for a store, a fence and a level \
                 that is read again, each up to {}, as {store_ns},{fence_ns},{refill_ns}",
                KillCost::MOST_NS
            ))
        }
    }
}

pub(super) fn limit(text: &str) -> Result<Limit, String> {
    if text.eq_ignore_ascii_case("none") {
        return Ok(Limit(None));
    }
    parse_size(text).map(|bytes| Limit(Some(bytes))).map_err(|error| format!("{error}, or none"))
}

pub(super) fn seed(text: &str) -> Result<u64, String> {
    let number = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) if hex.bytes().all(|b| b.is_ascii_hexdigit()) => u64::from_str_radix(hex, 16),
        _ => text.parse(),
    };
    number.map_err(|_| {
        format!("'{text}' is no seed; accepted: a whole number up to {}, decimal or 0x", u64::MAX)
    })
}

pub(super) fn cpu_list(text: &str) -> Result<CpuList, String> {
    cpus::parse_list(text).map(CpuList)
}

pub(super) fn group_list(text: &str) -> Result<GroupList, String> {
    let number = |part: &str| {
        whole(part).ok_or_else(|| {
            format!("'{part}' is no group number; accepted: numbers with commas between, as 0,1,2")
        })
    };
    let groups =
        text.split(',').map(|part| number(part.trim())).collect::<Result<Vec<u32>, _>>()?;
    if let Some(twice) = groups.iter().enumerate().find(|(i, g)| groups[..*i].contains(g)) {
        return Err(format!("group {} is named twice; accepted: each once", twice.1));
    }
    Ok(GroupList(groups))
}
