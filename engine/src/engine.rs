// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The engine of one process: its back end, its ledger, its regions, and who owns which group.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::addr::GroupId;
use crate::backend::{Backend, Caps, Memory};
use crate::container::{Container, State};
use crate::error::ProcessError;
use crate::kill::debts::Books;
use crate::kill::exposure::{self, Longest};
use crate::kill::{DebtMetrics, KillDebt, KillPolicy};
use crate::ledger::Ledger;
use crate::regions::Registry;
use crate::simd::Tier;
use crate::sync::{Arc, AtomicU64, BrLock, Mutex, Ordering, lock};

/// What all containers of a process share.
pub(crate) struct Shared {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) caps: Caps,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) registry: Registry,
    pub(crate) tier: &'static Tier,
    pub(crate) policy: KillPolicy,
    pub(crate) detach: DetachPolicy,
    /// What became of the debts of handles.
    pub(crate) debts: Books,
    /// The longest exposure, if it is measured.
    pub(crate) exposure: Option<Longest>,
    /// The process that made the engine.
    process: u32,
    /// Groups and their containers, ascending: cheaper than a tree up to a bridge's 256.
    owners: Mutex<Vec<(GroupId, u64)>>,
    /// The containers that there are, by number.
    containers: Mutex<BTreeMap<u64, Arc<BrLock<State>>>>,
    next_container: AtomicU64,
}

impl Shared {
    /// What a call, or a handle's calls, owe: nothing yet.
    pub(crate) fn kill_debt(&self) -> KillDebt {
        KillDebt::new(self.caps.tables.kill(), self.exposure.as_ref())
    }

    /// Refuses other processes than the one that made the engine: what a fork has copied are not its
    /// groups, windows and books.
    pub(crate) fn same_process(&self) -> Result<(), ProcessError> {
        let (owner, caller) = (self.process, std::process::id());
        if owner == caller { Ok(()) } else { Err(ProcessError { owner, caller }) }
    }

    pub(crate) fn opened(&self, container: u64, state: Arc<BrLock<State>>) {
        lock(&self.containers).insert(container, state);
    }

    pub(crate) fn closed(&self, container: u64) {
        lock(&self.containers).remove(&container);
    }

    /// Makes `container` the owner of `group`, or says who is.
    pub(crate) fn own(&self, group: GroupId, container: u64) -> Result<(), u64> {
        let mut owners = lock(&self.owners);
        match place(&owners, group) {
            Ok(at) => Err(owners[at].1),
            Err(at) => {
                owners.insert(at, (group, container));
                Ok(())
            }
        }
    }

    /// The container that has the group.
    pub(crate) fn owner(&self, group: GroupId) -> Option<u64> {
        let owners = lock(&self.owners);
        let at = place(&owners, group).ok()?;
        Some(owners[at].1)
    }

    pub(crate) fn disown(&self, group: GroupId) {
        let mut owners = lock(&self.owners);
        if let Ok(at) = place(&owners, group) {
            owners.remove(at);
        }
    }
}

/// Where a group is among the owned ones, or would be.
fn place(owners: &[(GroupId, u64)], group: GroupId) -> Result<usize, usize> {
    owners.binary_search_by_key(&group, |(owned, _)| *owned)
}

/// How an engine is to work.
#[derive(Clone, Debug, Default)]
pub struct EngineOptions {
    /// Refuse charges beyond so many bytes, or what the platform still allows, if that is less.
    /// `None`: no limit but the platform's.
    pub memlock: Option<u64>,
    /// Loops to use. `None`: the fastest of this machine.
    pub tier: Option<&'static Tier>,
    /// When translations are killed.
    pub policy: KillPolicy,
    /// What a detach does while other groups share the windows.
    pub detach: DetachPolicy,
    /// Measure how long released pages stay reachable, for [`Engine::take_exposure`]. It costs two
    /// readings of the clock a call and the fast path of [`Mapper`](crate::container::Mapper), so it is
    /// not for runs whose times matter. Nothing is measured where a kernel owns the tables.
    pub measure_exposure: bool,
}

/// What is done about [`Container::detach`] on a kernel that may empty the windows of the groups that stay
/// ([`KernelCaps::detach_clears`](crate::backend::KernelCaps::detach_clears)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum DetachPolicy {
    /// Refuses, unless it is the last group.
    #[default]
    RefuseWhileShared,
    /// Detaches, then maps again what the engine's mirror says. Until that is done, the devices of
    /// the other groups find nothing: the caller has stopped them.
    Replay,
    /// Gives each member group a container of the kernel of its own, in which all windows, regions
    /// and mappings are made. A group that leaves closes its own; the others' windows are never
    /// touched. It costs each window's table once a member, and a request a member for each map
    /// and unmap; a region is charged once a process all the same. Groups need not be able to share
    /// tables. A group that joins late has all mappings made for it before it is a member.
    ///
    /// Where the engine owns the tables nothing of this is needed, and nothing different done.
    Isolate,
}

/// A registered region, as all containers of the process together use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionUse {
    /// The memory.
    pub memory: Memory,
    /// Containers that have registered it. 0: a kernel did not give it back.
    pub containers: usize,
    /// Live entries of all of them that point into it; exact while nobody maps or unmaps.
    pub mapped: u64,
}

/// The DMA mapping engine of one process.
///
/// After a fork it stays the parent's. In the child, whatever changes groups, windows or registrations
/// is refused ([`ProcessError`]), and dropping the copy asks nothing of the platform. Maps and unmaps do
/// not look: a kernel answers them with EPERM by itself, and where the engine owns the tables the child
/// has only written to its copy of them.
pub struct Engine {
    pub(crate) shared: Arc<Shared>,
}

impl Engine {
    /// An engine on `backend`.
    #[must_use]
    pub fn new(backend: Arc<dyn Backend>, options: EngineOptions) -> Self {
        let caps = backend.caps();
        let limit = options.memlock.into_iter().chain(caps.memlock).min();
        let shared = Shared {
            backend,
            caps,
            ledger: Arc::new(Ledger::new(caps.host_page, limit)),
            registry: Registry::new(),
            tier: options.tier.unwrap_or_else(Tier::best),
            policy: options.policy,
            detach: options.detach,
            debts: Books::default(),
            exposure: (options.measure_exposure && caps.tables.kill().is_some())
                .then(Longest::default),
            process: std::process::id(),
            owners: Mutex::new(Vec::with_capacity(256)),
            containers: Mutex::new(BTreeMap::new()),
            next_container: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// A new container without groups.
    #[must_use]
    pub fn container(&self) -> Container {
        let id = self.shared.next_container.fetch_add(1, Ordering::Relaxed);
        Container::new(self.shared.clone(), id)
    }

    /// What is registered, by whichever container, with the mapped counts of all of them.
    #[must_use]
    pub fn regions(&self) -> Vec<RegionUse> {
        let containers: Vec<_> = lock(&self.shared.containers).values().cloned().collect();
        let mut mapped = BTreeMap::new();
        for state in containers {
            for region in state.read().regions() {
                *mapped.entry(region.memory).or_default() += region.mapped;
            }
        }
        let regions = self.shared.registry.users().into_iter();
        let used = regions.map(|(memory, containers)| {
            let mapped = mapped.get(&memory).copied().unwrap_or(0);
            RegionUse { memory, containers, mapped }
        });
        used.collect()
    }

    /// What is charged to the process.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.shared.ledger
    }

    /// The longest time since the last call that a released page stayed reachable: from before its
    /// entry was cleared, or given another value, until the fence after its kill was done. Under
    /// [`KillPolicy::Deferred`] and [`KillPolicy::Batched`] that is when what its handle owed was settled,
    /// and all of that counts from the oldest on. Zero if none was released; `None` unless [`EngineOptions::measure_exposure`] was set and the engine kills.
    #[must_use]
    pub fn take_exposure(&self) -> Option<Duration> {
        self.shared.exposure.as_ref().map(exposure::take)
    }

    /// What became of the debts of handles ([`KillPolicy`]) since the engine was made.
    #[must_use]
    pub fn debts(&self) -> DebtMetrics {
        self.shared.debts.read()
    }

    /// What the platform is like.
    #[must_use]
    pub fn caps(&self) -> Caps {
        self.shared.caps
    }

    /// The loops in use.
    #[must_use]
    pub fn tier(&self) -> &'static Tier {
        self.shared.tier
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Engine({:?}, {:?})", self.shared.backend, self.shared.tier)
    }
}
