// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Two users of the same simulated kernel: one that believes its answers, and the engine.

use std::sync::Arc;

use tce_engine::addr::{GroupId, Ioba, PageShift, PageSizes, Uaddr};
use tce_engine::backend::linux::mock_kernel::Process;
use tce_engine::backend::linux::raw::{Errno, Raw, RawContainer, RawHost as _};
use tce_engine::backend::linux::uapi::{
    DmaMap, DmaUnmap, EehPeOp, RegisterMemory, TceCreate, TceInfo, TceRemove, eeh_op, kind,
    map_flags,
};
use tce_engine::backend::linux::{Linux, LinuxOptions, Version};
use tce_engine::container::{Container, Mode, Removal};
use tce_engine::eeh::{EehOp, EehState};
use tce_engine::engine::{DetachPolicy, Engine, EngineOptions};
use tce_engine::geometry::{Levels, WindowSpec};
use tce_engine::tce::Perm;

/// Done, or what the user was told instead.
pub(super) type Answer<T = ()> = Result<T, String>;

/// A window as it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) page: PageShift,
    pub(super) bytes: u64,
    /// `None`: as many as it takes.
    pub(super) levels: Option<u32>,
}

/// Who drives devices through containers, numbered from 0.
pub(super) trait User {
    /// A new container with its first group.
    fn open(&mut self, group: GroupId) -> Answer<usize>;
    /// Gets the window out of the way that a container comes with, where it can be.
    fn drop_default(&mut self, container: usize) -> Answer;
    /// A further group.
    fn attach(&mut self, container: usize, group: GroupId) -> Answer;
    fn detach(&mut self, container: usize, group: GroupId) -> Answer;
    /// Page sizes on offer.
    fn page_sizes(&self, container: usize) -> Answer<PageSizes>;
    /// Makes a window and says where it begins.
    fn create(&mut self, container: usize, shape: Shape) -> Answer<Ioba>;
    /// Removes a window, with what is mapped there.
    fn remove(&mut self, container: usize, start: Ioba) -> Answer;
    fn register(&mut self, container: usize, at: Uaddr, bytes: u64) -> Answer;
    fn unregister(&mut self, container: usize, at: Uaddr, bytes: u64) -> Answer;
    fn map(&mut self, container: usize, at: Ioba, from: Uaddr, bytes: u64) -> Answer;
    /// Maps over whatever is there.
    fn replace(&mut self, container: usize, at: Ioba, from: Uaddr, bytes: u64) -> Answer;
    fn unmap(&mut self, container: usize, at: Ioba, bytes: u64) -> Answer;
    /// What error handling says of each group.
    fn states(&self, container: usize, groups: &[GroupId]) -> Answer<Vec<EehState>>;
    /// Resets a stopped group, as the first step of bringing it back.
    fn reset(&mut self, container: usize, group: GroupId) -> Answer;
    /// Closes all containers.
    fn close(&mut self);
}

/// Sends requests as the uapi describes them, takes every answer that is not negative for success, and
/// whatever was refused for not done.
pub(super) struct Naive {
    process: Arc<Process>,
    version: Version,
    containers: Vec<Box<dyn RawContainer>>,
}

impl Naive {
    pub(super) fn new(process: Arc<Process>, version: Version) -> Self {
        Self { process, version, containers: Vec::new() }
    }

    fn join(container: &dyn RawContainer, group: GroupId) -> Raw {
        container.open_group(group)?;
        container.set_container(group).inspect_err(|_| {
            let _ = container.close_group(group);
        })
    }
}

fn said(answer: Raw) -> Answer {
    answer.map(drop).map_err(|errno| errno.to_string())
}

impl User for Naive {
    fn open(&mut self, group: GroupId) -> Answer<usize> {
        let fail = |e: Errno| e.to_string();
        let container = self.process.open().map_err(fail)?;
        Self::join(&*container, group).map_err(fail)?;
        let v2 = self.version == Version::V2;
        let kind = if v2 { kind::SPAPR_TCE_V2 } else { kind::SPAPR_TCE };
        container.set_iommu(kind).map_err(fail)?;
        if !v2 {
            container.enable().map_err(fail)?;
        }
        self.containers.push(container);
        Ok(self.containers.len() - 1)
    }

    fn drop_default(&mut self, container: usize) -> Answer {
        match self.version {
            Version::V1 => Ok(()),
            Version::V2 => said(self.containers[container].remove(&TceRemove::new(0))),
        }
    }

    fn attach(&mut self, container: usize, group: GroupId) -> Answer {
        said(Self::join(&*self.containers[container], group))
    }

    fn detach(&mut self, container: usize, group: GroupId) -> Answer {
        said(self.containers[container].unset_container(group))
    }

    fn page_sizes(&self, container: usize) -> Answer<PageSizes> {
        let mut info = TceInfo::new();
        said(self.containers[container].info(&mut info))?;
        Ok(PageSizes(info.ddw.pgsizes))
    }

    fn create(&mut self, container: usize, shape: Shape) -> Answer<Ioba> {
        if self.version == Version::V1 {
            return Ok(Ioba(0)); // the one it comes with
        }
        let container = &self.containers[container];
        let (mut levels, most) = shape.levels.map_or((1, 5), |n| (n, n));
        loop {
            let mut request = TceCreate::new(shape.page.get(), shape.bytes, levels);
            match container.create(&mut request) {
                Err(_) if levels < most => levels += 1,
                answer => return said(answer).map(|()| Ioba(request.start_addr)),
            }
        }
    }

    fn remove(&mut self, container: usize, start: Ioba) -> Answer {
        said(self.containers[container].remove(&TceRemove::new(start.0)))
    }

    fn register(&mut self, container: usize, at: Uaddr, bytes: u64) -> Answer {
        if self.version == Version::V1 {
            return Ok(());
        }
        said(self.containers[container].register(&RegisterMemory::new(at.0, bytes)))
    }

    fn unregister(&mut self, container: usize, at: Uaddr, bytes: u64) -> Answer {
        said(self.containers[container].unregister(&RegisterMemory::new(at.0, bytes)))
    }

    fn map(&mut self, container: usize, at: Ioba, from: Uaddr, bytes: u64) -> Answer {
        let flags = map_flags::READ | map_flags::WRITE;
        said(self.containers[container].map(&DmaMap::new(flags, from.0, at.0, bytes)))
    }

    fn replace(&mut self, container: usize, at: Ioba, from: Uaddr, bytes: u64) -> Answer {
        self.map(container, at, from, bytes)
    }

    fn unmap(&mut self, container: usize, at: Ioba, bytes: u64) -> Answer {
        said(self.containers[container].unmap(&mut DmaUnmap::new(at.0, bytes)))
    }

    fn states(&self, container: usize, groups: &[GroupId]) -> Answer<Vec<EehState>> {
        let answer = self.containers[container].eeh(&EehPeOp::new(eeh_op::GET_STATE));
        let state = answer.map_err(|errno| errno.to_string())?;
        Ok(vec![state.into(); groups.len()])
    }

    fn reset(&mut self, container: usize, _: GroupId) -> Answer {
        said(self.containers[container].eeh(&EehPeOp::new(eeh_op::RESET_HOT)))
    }

    fn close(&mut self) {
        self.containers.clear();
    }
}

/// The same by way of the engine.
pub(super) struct Engined {
    engine: Engine,
    containers: Vec<Container>,
}

impl Engined {
    pub(super) fn new(process: Arc<Process>, version: Version) -> Self {
        let linux = Linux::new(process, LinuxOptions { version, ..LinuxOptions::default() });
        let options = EngineOptions { detach: DetachPolicy::Replay, ..EngineOptions::default() };
        Self { engine: Engine::new(linux, options), containers: Vec::new() }
    }
}

fn told<T, E: std::fmt::Display>(answer: Result<T, E>) -> Answer {
    answer.map(drop).map_err(|e| e.to_string())
}

impl User for Engined {
    fn open(&mut self, group: GroupId) -> Answer<usize> {
        let container = self.engine.container();
        told(container.attach(group))?;
        self.containers.push(container);
        Ok(self.containers.len() - 1)
    }

    fn drop_default(&mut self, _: usize) -> Answer {
        Ok(()) // it does so itself
    }

    fn attach(&mut self, container: usize, group: GroupId) -> Answer {
        told(self.containers[container].attach(group))
    }

    fn detach(&mut self, container: usize, group: GroupId) -> Answer {
        told(self.containers[container].detach(group))
    }

    fn page_sizes(&self, container: usize) -> Answer<PageSizes> {
        let caps = self.containers[container].caps().ok_or("no group")?;
        Ok(caps.page_sizes)
    }

    fn create(&mut self, container: usize, shape: Shape) -> Answer<Ioba> {
        let levels = shape.levels.map_or(Levels::Auto, Levels::Exactly);
        let spec = WindowSpec { levels, ..WindowSpec::new(shape.bytes, shape.page) };
        let made = self.containers[container].create_window(spec).map_err(|e| e.to_string())?;
        Ok(made.start)
    }

    fn remove(&mut self, container: usize, start: Ioba) -> Answer {
        told(self.containers[container].remove_window(start, Removal::Force))
    }

    fn register(&mut self, container: usize, at: Uaddr, bytes: u64) -> Answer {
        told(self.containers[container].register(at, bytes))
    }

    fn unregister(&mut self, container: usize, at: Uaddr, bytes: u64) -> Answer {
        told(self.containers[container].unregister(at, bytes))
    }

    fn map(&mut self, container: usize, at: Ioba, from: Uaddr, bytes: u64) -> Answer {
        let container = &self.containers[container];
        told(container.map(at, from, bytes, Perm::READ_WRITE, Mode::Refuse))
    }

    fn replace(&mut self, container: usize, at: Ioba, from: Uaddr, bytes: u64) -> Answer {
        let container = &self.containers[container];
        told(container.map(at, from, bytes, Perm::READ_WRITE, Mode::Replace))
    }

    fn unmap(&mut self, container: usize, at: Ioba, bytes: u64) -> Answer {
        told(self.containers[container].unmap(at, bytes))
    }

    fn states(&self, container: usize, _: &[GroupId]) -> Answer<Vec<EehState>> {
        let states = self.containers[container].eeh_states().map_err(|e| e.to_string())?;
        let each = states.into_iter().map(|(_, state)| state.map_err(|e| e.to_string()));
        each.collect()
    }

    fn reset(&mut self, container: usize, group: GroupId) -> Answer {
        told(self.containers[container].eeh_of(group, EehOp::ResetHot))
    }

    fn close(&mut self) {
        self.containers.clear();
    }
}
