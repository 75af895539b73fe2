// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A simulated kernel whose requests end as bytes say. What a kernel cannot answer is in the table of
//! `engine/tests/faults/table.rs`, which this keeps to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tce_engine::addr::{GroupId, PageShift, Uaddr};
use tce_engine::backend::linux::mock_kernel::{MockContainer, Process};
use tce_engine::backend::linux::raw::{Errno, Raw, RawContainer, RawHost};
use tce_engine::backend::linux::uapi::{
    DmaMap, DmaUnmap, EehPeOp, RegisterMemory, Request, TceCreate, TceInfo, TceRemove, eeh_op,
};

use super::{HOST, PAGE};

/// Bytes that calls and requests take in turn.
#[derive(Debug)]
pub(super) struct Answers {
    bytes: Vec<u8>,
    taken: AtomicUsize,
    /// A request of this call has failed.
    failed: AtomicBool,
}

impl Answers {
    pub(super) fn new(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), taken: AtomicUsize::new(0), failed: AtomicBool::new(false) }
    }

    /// A call begins, of whose requests one may fail: what puts things right again afterwards is sent to a
    /// kernel that works.
    pub(super) fn begin(&self) {
        self.failed.store(false, Ordering::Relaxed);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.taken.load(Ordering::Relaxed) >= self.bytes.len()
    }

    /// 0 after the last.
    pub(super) fn next(&self) -> u8 {
        self.bytes.get(self.taken.fetch_add(1, Ordering::Relaxed)).copied().unwrap_or(0)
    }

    /// How the next request ends.
    fn end(&self) -> End {
        const ERRORS: [Errno; 7] = [
            Errno::EPERM,
            Errno::ENOENT,
            Errno::ENOMEM,
            Errno::EFAULT,
            Errno::EBUSY,
            Errno::EINVAL,
            Errno::ENXIO,
        ];
        if self.failed.load(Ordering::Relaxed) {
            return End::Arrives;
        }
        let byte = self.next();
        let end = match byte % 32 {
            0..20 => End::Arrives,
            20..27 => End::Error(ERRORS[usize::from(byte % 32 - 20)]),
            27 => End::One,
            28 => End::Part(1),
            29 => End::Part(u64::MAX),
            30 => End::All,
            _ => End::Cleared,
        };
        self.failed.store(end != End::Arrives, Ordering::Relaxed);
        end
    }
}

/// How a request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// As the kernel has it.
    Arrives,
    /// It never arrives.
    Error(Errno),
    /// Nor does this one, which is no error number, and no success.
    One,
    /// So many pages are done, or all but the last, and stay; then it fails.
    Part(u64),
    /// All is done, and the answer is lost.
    All,
    /// All but the last is done, and cleared, whatever was there before.
    Cleared,
}

impl End {
    /// What the caller of a request that does not arrive whole gets.
    const fn answer(self) -> Raw {
        match self {
            Self::Error(error) => Err(error),
            Self::One => Ok(1),
            Self::All => Err(Errno::EFAULT),
            Self::Arrives | Self::Part(_) | Self::Cleared => Err(Errno::ENOMEM),
        }
    }

    /// Of a request that names no range, and is done or not.
    const fn whole(self) -> Self {
        match self {
            Self::Part(_) | Self::All | Self::Cleared => Self::Arrives,
            other => other,
        }
    }

    /// Of one that answers a number, of which 1 is one.
    const fn numbered(self) -> Self {
        if matches!(self, Self::One) { Self::Arrives } else { self.whole() }
    }
}

#[derive(Debug)]
pub(super) struct FaultyHost {
    pub(super) process: Arc<Process>,
    pub(super) answers: Arc<Answers>,
}

impl RawHost for FaultyHost {
    fn label(&self) -> &'static str {
        self.process.label()
    }

    fn open(&self) -> Result<Box<dyn RawContainer>, Errno> {
        if let End::Error(error) = self.answers.end() {
            return Err(error);
        }
        let inner = self.process.open_container()?;
        Ok(Box::new(FaultyContainer { inner, answers: self.answers.clone() }))
    }

    fn host_page(&self) -> PageShift {
        self.process.host_page()
    }

    fn backing(&self, start: Uaddr, bytes: u64) -> Option<PageShift> {
        match self.answers.end() {
            End::Error(Errno::EFAULT) => None,
            _ => self.process.backing(start, bytes),
        }
    }

    fn node(&self, group: GroupId) -> Option<u32> {
        self.process.node(group)
    }

    fn locked_bytes(&self) -> u64 {
        self.process.locked_bytes()
    }

    fn memlock(&self) -> Option<u64> {
        self.process.memlock()
    }
}

#[derive(Debug)]
struct FaultyContainer {
    inner: MockContainer,
    answers: Arc<Answers>,
}

impl FaultyContainer {
    /// A request that is done or not.
    fn ask(&self, arrive: impl FnOnce() -> Raw) -> Raw {
        match self.answers.end().whole() {
            End::Arrives => arrive(),
            end => end.answer(),
        }
    }
}

impl RawContainer for FaultyContainer {
    fn check_extension(&self, extension: u32) -> Raw {
        self.inner.check_extension(extension)
    }

    fn set_iommu(&self, kind: u32) -> Raw {
        self.ask(|| self.inner.set_iommu(kind))
    }

    fn open_group(&self, group: GroupId) -> Raw {
        self.ask(|| self.inner.open_group(group))
    }

    /// Linux closes a file whatever it answers, which is 0 or an error number.
    fn close_group(&self, group: GroupId) -> Raw {
        let closed = self.inner.close_group(group);
        match self.answers.end().numbered() {
            End::Arrives => closed,
            end => end.answer(),
        }
    }

    fn group_status(&self, group: GroupId) -> Result<u32, Errno> {
        match self.answers.end().numbered() {
            End::Error(error) => Err(error),
            _ => self.inner.group_status(group),
        }
    }

    fn set_container(&self, group: GroupId) -> Raw {
        self.ask(|| self.inner.set_container(group))
    }

    fn unset_container(&self, group: GroupId) -> Raw {
        self.ask(|| self.inner.unset_container(group))
    }

    fn info(&self, info: &mut TceInfo) -> Raw {
        self.ask(|| self.inner.info(info))
    }

    fn enable(&self) -> Raw {
        self.ask(|| self.inner.enable())
    }

    fn disable(&self) -> Raw {
        self.ask(|| self.inner.disable())
    }

    /// Of a range with a hole Linux answers how many pages it could pin, and keeps none of them.
    fn register(&self, arg: &RegisterMemory) -> Raw {
        match self.answers.end() {
            End::Part(u64::MAX) => Ok((arg.size / HOST - 1) as i32),
            end => match end.whole() {
                End::Arrives => self.inner.register(arg),
                end => end.answer(),
            },
        }
    }

    fn unregister(&self, arg: &RegisterMemory) -> Raw {
        self.ask(|| self.inner.unregister(arg))
    }

    fn create(&self, arg: &mut TceCreate) -> Raw {
        match self.answers.end() {
            End::All => self.inner.create(arg).and(End::All.answer()),
            end => match end.whole() {
                End::Arrives => self.inner.create(arg),
                end => end.answer(),
            },
        }
    }

    fn remove(&self, arg: &TceRemove) -> Raw {
        self.ask(|| self.inner.remove(arg))
    }

    /// Whatever is done of a request that the kernel would refuse is nothing.
    fn map(&self, arg: &DmaMap) -> Raw {
        let (end, pages) = (self.answers.end(), arg.size / PAGE);
        let done = match end {
            End::Arrives => return self.inner.map(arg),
            End::Error(_) | End::One => return end.answer(),
            End::Part(part) => part.min(pages - 1),
            End::All => pages,
            End::Cleared => pages - 1,
        };
        let size = done * PAGE;
        if size > 0 {
            self.inner.map(&DmaMap { size, ..*arg })?;
            if end == End::Cleared {
                self.inner.unmap(&mut DmaUnmap::new(arg.iova, size))?;
            }
        }
        end.answer()
    }

    /// Linux clears on until something is wrong; when all is cleared, nothing is left that could fail.
    fn unmap(&self, arg: &mut DmaUnmap) -> Raw {
        let (end, pages) = (self.answers.end(), arg.size / PAGE);
        match end {
            End::Arrives | End::All | End::Cleared => self.inner.unmap(arg),
            End::Error(_) | End::One => end.answer(),
            End::Part(part) => {
                let size = part.min(pages - 1) * PAGE;
                if size > 0 {
                    self.inner.unmap(&mut DmaUnmap { size, ..*arg })?;
                }
                end.answer()
            }
        }
    }

    fn eeh(&self, arg: &EehPeOp) -> Raw {
        let end = self.answers.end();
        let end = if arg.op == eeh_op::GET_STATE { end.numbered() } else { end.whole() };
        if end == End::Arrives { self.inner.eeh(arg) } else { end.answer() }
    }

    fn fault(&self, request: Request) -> Raw {
        self.inner.fault(request)
    }
}
