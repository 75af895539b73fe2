// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a group's device reaches: a walk of the simulated host bridge, or DMA of QEMU's edu device.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tce_engine::addr::{GroupId, Ioba};
use tce_engine::backend::linux::mock_kernel::MockKernel;
use tce_engine::backend::linux::uapi::RegionInfo;
use tce_engine::backend::linux::vfio::{BAR0_REGION, CONFIG_REGION, Device};
use tce_engine::tce::Perm;

use crate::case::{Must, Stop};
use crate::ctx::Ctx;
use crate::rig::{Mem, Rig};

/// A device. Declare it after its container: while it is open the group cannot leave.
pub(crate) enum Dev {
    Mock(Arc<MockKernel>, GroupId),
    Edu(Edu),
}

/// The edu device: it copies between memory and a buffer of its own.
pub(crate) struct Edu {
    device: Device,
    bar: RegionInfo,
}

const SOURCE: u64 = 0x80;
const DESTINATION: u64 = 0x88;
const COUNT: u64 = 0x90;
const COMMAND: u64 = 0x98;
const BUFFER: u64 = 0x40000;

impl Edu {
    fn open(device: Device) -> Result<Self, Stop> {
        let bar = device.region_info(BAR0_REGION).must("BAR 0")?;
        let config = device.region_info(CONFIG_REGION).must("the configuration space")?;
        // Memory accesses and bus mastering on.
        let mut command = [0; 2];
        device.read_at(&config, 4, &mut command).must("PCI_COMMAND")?;
        command[0] |= 6;
        device.write_at(&config, 4, &command).must("PCI_COMMAND")?;
        let edu = Self { device, bar };
        let mut id = [0; 4];
        edu.device.read_at(&bar, 0, &mut id).must("the identification")?;
        // Its registers have the byte order of the machine that QEMU plays.
        if id != 0x0100_00edu32.to_be_bytes() {
            return Err(Stop::Skip(format!("{id:02x?} is no edu device")));
        }
        Ok(edu)
    }

    fn set(&self, register: u64, value: u64) -> Result<(), Stop> {
        self.device.write_at(&self.bar, register, &value.to_be_bytes()).must("a register")
    }

    fn get(&self, register: u64) -> Result<u64, Stop> {
        let mut bytes = [0; 8];
        self.device.read_at(&self.bar, register, &mut bytes).must("a register")?;
        Ok(u64::from_be_bytes(bytes))
    }

    /// Moves 8 bytes.
    fn transfer(&self, from: u64, to: u64, command: u64) -> Result<(), Stop> {
        self.set(SOURCE, from)?;
        self.set(DESTINATION, to)?;
        let seen = (self.get(SOURCE)?, self.get(DESTINATION)?);
        if seen != (from, to) {
            return Err(Stop::Skip(format!("addresses arrive at the device as {seen:#x?}")));
        }
        self.set(COUNT, 8)?;
        self.set(COMMAND, command | 1)?;
        let begun = Instant::now();
        while self.get(COMMAND)? & 1 == 1 {
            if begun.elapsed() > Duration::from_secs(20) {
                return Err(Stop::Broken("the device does not come to an end".to_owned()));
            }
            // Asleep, so that the emulator can skip the time.
            sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Ctx {
    /// A device of the nth group.
    pub(crate) fn device(&self, n: usize) -> Result<Dev, Stop> {
        let group = self.g(n);
        match &self.rig {
            Rig::Mock(mock) => Ok(Dev::Mock(mock.kernel.clone(), group)),
            Rig::Real(real) => {
                let devices = real.found.devices.get(&group).into_iter().flatten();
                let mut names = devices.filter(|device| !device.bridge).map(|device| &device.name);
                let name = names.next().must("a group without a device")?;
                Ok(Dev::Edu(Edu::open(real.vfio.device(group, name).must("opening a device")?)?))
            }
        }
    }

    /// Whether the device copies a doubleword of `from`, mapped at bus address `source`, to `to`,
    /// mapped at `sink`.
    pub(crate) fn copies(
        &self,
        device: &Dev,
        (source, from): (u64, Mem),
        (sink, to): (u64, Mem),
    ) -> Result<bool, Stop> {
        match (device, &self.rig) {
            (Dev::Mock(kernel, group), _) => {
                let reach = |at, memory: Mem, need| {
                    let reached = kernel.translate(*group, Ioba(at), need);
                    reached.is_ok_and(|reached| reached.at == memory.uaddr())
                };
                Ok(reach(source, from, Perm::READ) && reach(sink, to, Perm::WRITE))
            }
            (Dev::Edu(edu), Rig::Real(real)) => {
                static NEXT: AtomicU64 = AtomicU64::new(0x5eed_0000_0000_0001);
                let tag = NEXT.fetch_add(1, Ordering::Relaxed);
                let (from, to) = (real.word(from.at)?, real.word(to.at)?);
                from.store(tag, Ordering::SeqCst);
                to.store(0, Ordering::SeqCst);
                edu.transfer(source, BUFFER, 0)?;
                edu.transfer(BUFFER, sink, 2)?;
                Ok(to.load(Ordering::SeqCst) == tag)
            }
            (Dev::Edu(_), Rig::Mock(_)) => Err(Stop::Broken("a real device here".to_owned())),
        }
    }
}
