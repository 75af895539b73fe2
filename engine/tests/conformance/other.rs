// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Other processes: one that inherits a container, and one that is killed.

use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use tce_engine::addr::{GroupId, PageShift, Uaddr};
use tce_engine::backend::linux::raw::{Errno, Raw, RawContainer, RawHost};
use tce_engine::backend::linux::uapi::{
    DmaMap, DmaUnmap, EehPeOp, GroupStatus, RegisterMemory, Request, TceCreate, TceInfo, TceRemove,
    kind,
};
use tce_engine::backend::linux::vfio::Container as VfioContainer;
use tce_engine::backend::linux::{Linux, LinuxOptions};
use tce_engine::engine::{Engine, EngineOptions};

use crate::case::{Column, Done, Must, Said, Stop};
use crate::ctx::{Ct, Ctx, Eng, G};
use crate::rig::{Rig, look, vfio};

/// How this program calls itself: as the process that inherits a container.
pub(crate) const HEIR: &str = "--heir";
/// As the process that is going to be killed.
pub(crate) const VICTIM: &str = "--victim";

/// What is asked in a process whose container was first used by another one.
const ASKED: [&str; 7] =
    ["CHECK_EXTENSION 7", "GET_INFO", "MAP", "UNMAP", "REGISTER", "CREATE", "REMOVE"];

fn ask(raw: &dyn RawContainer, host: PageShift) -> Vec<String> {
    let page = host.bytes();
    let answers = [
        raw.check_extension(kind::SPAPR_TCE_V2),
        raw.info(&mut TceInfo::new()),
        raw.map(&DmaMap::new(3, 16 * page, 16 * page, page)),
        raw.unmap(&mut DmaUnmap::new(16 * page, page)),
        raw.register(&RegisterMemory::new(16 * page, page)),
        raw.create(&mut TceCreate::new(12, G, 1)),
        raw.remove(&TceRemove::new(0)),
    ];
    answers.iter().map(Said::said).collect()
}

/// What an engine finds there: the groups are in the container already.
fn ask_engine(host: Arc<dyn RawHost>, open: Opener) -> Vec<String> {
    let backend = Linux::new(Arc::new(Inherited { host, open }), LinuxOptions::default());
    let engine = Engine::new(backend, EngineOptions::default());
    let container = engine.container();
    vec![container.attach(GroupId(0)).said()]
}

type Opener = Box<dyn Fn() -> Result<Box<dyn RawContainer>, Errno> + Send + Sync>;

/// A host with one container, which was inherited.
struct Inherited {
    host: Arc<dyn RawHost>,
    open: Opener,
}

impl fmt::Debug for Inherited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Inherited({:?})", self.host)
    }
}

impl RawHost for Inherited {
    fn label(&self) -> &'static str {
        self.host.label()
    }

    fn open(&self) -> Result<Box<dyn RawContainer>, Errno> {
        Ok(Box::new(Ready((self.open)()?)))
    }

    fn host_page(&self) -> PageShift {
        self.host.host_page()
    }

    fn backing(&self, start: Uaddr, bytes: u64) -> Option<PageShift> {
        self.host.backing(start, bytes)
    }

    fn node(&self, group: GroupId) -> Option<u32> {
        self.host.node(group)
    }

    fn locked_bytes(&self) -> u64 {
        self.host.locked_bytes()
    }

    fn memlock(&self) -> Option<u64> {
        self.host.memlock()
    }
}

/// An inherited container: what its first owner has done for it need not be done again.
#[derive(Debug)]
struct Ready(Box<dyn RawContainer>);

impl RawContainer for Ready {
    fn check_extension(&self, extension: u32) -> Raw {
        self.0.check_extension(extension)
    }

    fn set_iommu(&self, _: u32) -> Raw {
        Ok(0)
    }

    fn open_group(&self, _: GroupId) -> Raw {
        Ok(0)
    }

    fn close_group(&self, _: GroupId) -> Raw {
        Ok(0)
    }

    fn group_status(&self, _: GroupId) -> Result<u32, Errno> {
        Ok(GroupStatus::VIABLE)
    }

    fn set_container(&self, _: GroupId) -> Raw {
        Ok(0)
    }

    fn unset_container(&self, _: GroupId) -> Raw {
        Ok(0)
    }

    fn info(&self, info: &mut TceInfo) -> Raw {
        self.0.info(info)
    }

    fn enable(&self) -> Raw {
        self.0.enable()
    }

    fn disable(&self) -> Raw {
        self.0.disable()
    }

    fn register(&self, arg: &RegisterMemory) -> Raw {
        self.0.register(arg)
    }

    fn unregister(&self, arg: &RegisterMemory) -> Raw {
        self.0.unregister(arg)
    }

    fn create(&self, arg: &mut TceCreate) -> Raw {
        self.0.create(arg)
    }

    fn remove(&self, arg: &TceRemove) -> Raw {
        self.0.remove(arg)
    }

    fn map(&self, arg: &DmaMap) -> Raw {
        self.0.map(arg)
    }

    fn unmap(&self, arg: &mut DmaUnmap) -> Raw {
        self.0.unmap(arg)
    }

    fn eeh(&self, arg: &EehPeOp) -> Raw {
        self.0.eeh(arg)
    }

    fn fault(&self, request: Request) -> Raw {
        self.0.fault(request)
    }
}

fn myself(arg: &str, column: Column) -> Result<Command, Stop> {
    let program = std::env::current_exe().must("the path of this program")?;
    let mut command = Command::new(program);
    command.args([arg, column.name()]).stdout(Stdio::piped());
    Ok(command)
}

impl Ctx {
    /// What another process is told that has the container of this one: labels and answers.
    pub(crate) fn ask_another_process(&self, ct: &Ct) -> Result<Vec<(&'static str, String)>, Stop> {
        let answers = match &self.rig {
            Rig::Mock(mock) => {
                let other = mock.other.clone();
                let view = ct.raw.other().must("a simulated container")?;
                match self.column() {
                    Column::Raw => ask(view, other.host_page()),
                    Column::Engine => {
                        let (view, process) = (view.shared_with(&other), other.clone());
                        let open = move || {
                            let again = view.as_ref().and_then(|view| view.shared_with(&process));
                            Ok(Box::new(again.ok_or(Errno::EBADFD)?) as Box<_>)
                        };
                        ask_engine(other, Box::new(open))
                    }
                }
            }
            Rig::Real(_) => {
                let file = ct.raw.file().must("a real container")?.must("its file")?;
                let mut child = myself(HEIR, self.column())?;
                let out = child.stdin(file).output().must("the other process")?;
                String::from_utf8_lossy(&out.stdout).lines().map(str::to_owned).collect()
            }
        };
        let labels: &[&str] = match self.column() {
            Column::Raw => &ASKED,
            Column::Engine => &["attach"],
        };
        if answers.len() != labels.len() {
            return Err(Stop::Broken(format!("the other process said {answers:?}")));
        }
        Ok(labels.iter().copied().zip(answers).collect())
    }

    /// A process that has a container with the first two groups, a window, and so many pages of
    /// memory registered and mapped.
    pub(crate) fn victim(&self) -> Result<Child, Stop> {
        let mut child = myself(VICTIM, self.column())?;
        let mut child = child.stdin(Stdio::piped()).spawn().must("the victim")?;
        let mut line = String::new();
        let stdout = child.stdout.take().must("the victim's output")?;
        BufReader::new(stdout).read_line(&mut line).must("the victim's output")?;
        if line.trim() != "ready" {
            let _ = child.kill();
            let _ = child.wait();
            return Err(Stop::Broken(format!("the victim said {line:?}")));
        }
        Ok(child)
    }
}

/// The process that inherits a container as its standard input.
pub(crate) fn heir(column: Column) -> Result<(), String> {
    let vfio = vfio();
    let stdin = || std::io::stdin().as_fd().try_clone_to_owned();
    let host = vfio.host_page();
    let answers = match column {
        Column::Raw => {
            let fd = stdin().map_err(|e| e.to_string())?;
            let container = VfioContainer::from_fd(&vfio, fd).map_err(|e| e.to_string())?;
            ask(&container, host)
        }
        Column::Engine => {
            let real = vfio.clone();
            let open = move || {
                let fd = stdin().map_err(Errno::from)?;
                Ok(Box::new(VfioContainer::from_fd(&real, fd)?) as Box<_>)
            };
            ask_engine(vfio, Box::new(open))
        }
    };
    println!("{}", answers.join("\n"));
    Ok(())
}

/// The process that waits to be killed, or for its parent's end.
pub(crate) fn victim(column: Column) -> Result<(), String> {
    let found = look().map_err(|e| e.to_string())?;
    let mut cx = Ctx::new(Rig::real(found), column);
    let run = |cx: &mut Ctx| -> Done {
        let memory = cx.memory(64)?;
        let base = cx.base();
        let wait = || {
            println!("ready");
            let _ = std::io::stdout().flush();
            // Nobody writes there; it ends with the parent.
            let _ = rest(std::io::stdin());
        };
        match column {
            Column::Raw => {
                let ct = cx.v2(&[0, 1])?;
                ct.w1()?;
                ct.register(memory).must("REGISTER")?;
                ct.put(base, memory).must("MAP")?;
                wait();
            }
            Column::Engine => {
                let container = cx.windowed(&[0, 1])?;
                container.reg(memory).must("register")?;
                container.put(base, memory).must("map")?;
                wait();
            }
        }
        Ok(())
    };
    run(&mut cx).map_err(|stop| format!("{stop:?}"))
}

/// Reads all that is left of a child's output.
pub(crate) fn rest(mut from: impl Read) -> String {
    let mut text = Vec::new();
    let _ = from.read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}
