// SPDX-License-Identifier: Apache-2.0 OR MIT
//! QEMU's edu device as a DMA engine: it copies between memory and 4 KiB of its own.
//!
//! Only the device itself reaches its buffer, so what it has read is seen by having it written to
//! memory again.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use tce_engine::addr::{GroupId, Ioba};
use tce_engine::backend::linux::uapi::RegionInfo;
use tce_engine::backend::linux::vfio::{BAR0_REGION, CONFIG_REGION, Device};

use crate::kernel::OpenVfio;

/// Bytes of the device's buffer: no transfer can be longer.
pub const BUFFER_BYTES: usize = 4096;

/// Vendor and device number.
const ID: [&str; 2] = ["0x1234", "0x11e8"];

/// Registers of BAR 0.
const REG_ID: u64 = 0x00;
const REG_INVERT: u64 = 0x04;
const REG_SOURCE: u64 = 0x80;
const REG_DESTINATION: u64 = 0x88;
const REG_COUNT: u64 = 0x90;
const REG_COMMAND: u64 = 0x98;
/// Where the device thinks that its buffer lies.
const BUFFER: u64 = 0x40000;

const RUN: u64 = 1;
const TO_MEMORY: u64 = 2;

/// A transfer takes 100 ms of the device's time.
const TRANSFER: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(10);

/// BAR 0 of a device, in bytes as they lie on the bus.
pub trait Registers {
    /// Reads 4 or 8 bytes in one access.
    ///
    /// # Errors
    /// What the access came to.
    fn read(&self, at: u64, out: &mut [u8]) -> anyhow::Result<()>;

    /// Writes 4 or 8 bytes in one access.
    ///
    /// # Errors
    /// What the access came to.
    fn write(&self, at: u64, bytes: &[u8]) -> anyhow::Result<()>;
}

/// The registers of an open device. It is bus master as long as this lives.
#[derive(Debug)]
pub struct Bar {
    device: Device,
    bar: RegionInfo,
    config: RegionInfo,
}

impl Bar {
    /// PCI_COMMAND and two of its bits.
    const COMMAND: u64 = 4;
    const MEMORY: u16 = 2;
    const MASTER: u16 = 4;

    fn new(device: Device) -> anyhow::Result<Self> {
        let region = |index| {
            let info = device.region_info(index);
            info.map_err(|e| anyhow!("region {index}: {e}"))
        };
        let (bar, config) = (region(BAR0_REGION)?, region(CONFIG_REGION)?);
        let bar = Self { device, bar, config };
        bar.command(|command| command | Self::MEMORY | Self::MASTER)?;
        Ok(bar)
    }

    fn command(&self, change: impl FnOnce(u16) -> u16) -> anyhow::Result<()> {
        let mut bytes = [0; 2];
        let failed = |e| anyhow!("PCI command register: {e}");
        self.device.read_at(&self.config, Self::COMMAND, &mut bytes).map_err(failed)?;
        let bytes = change(u16::from_le_bytes(bytes)).to_le_bytes();
        self.device.write_at(&self.config, Self::COMMAND, &bytes).map_err(failed)
    }
}

impl Registers for Bar {
    fn read(&self, at: u64, out: &mut [u8]) -> anyhow::Result<()> {
        let read = self.device.read_at(&self.bar, at, out);
        read.map_err(|e| anyhow!("reading register {at:#x}: {e}"))
    }

    fn write(&self, at: u64, bytes: &[u8]) -> anyhow::Result<()> {
        let written = self.device.write_at(&self.bar, at, bytes);
        written.map_err(|e| anyhow!("writing register {at:#x}: {e}"))
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        // A device that does not answer any more is closed all the same.
        let _ = self.command(|command| command & !Self::MASTER);
    }
}

/// The byte order of the registers. It is that of the machine that QEMU plays, so a little-endian
/// Linux on POWER sees big-endian registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Big,
    Little,
}

impl Order {
    /// Told by the identification, 0x010000ed: major and minor version, two constants.
    fn of(id: [u8; 4]) -> Option<Self> {
        match id {
            [_, _, 0x00, 0xed] => Some(Self::Big),
            [0xed, 0x00, _, _] => Some(Self::Little),
            _ => None,
        }
    }

    fn word(self, value: u32) -> [u8; 4] {
        match self {
            Self::Big => value.to_be_bytes(),
            Self::Little => value.to_le_bytes(),
        }
    }

    fn double(self, value: u64) -> [u8; 8] {
        match self {
            Self::Big => value.to_be_bytes(),
            Self::Little => value.to_le_bytes(),
        }
    }
}

/// An edu device.
#[derive(Debug)]
pub struct Engine<R: Registers = Bar> {
    /// Its IOMMU group.
    pub group: GroupId,
    /// Its PCI address.
    pub name: String,
    order: Order,
    registers: R,
}

impl<R: Registers> Engine<R> {
    /// Finds out the byte order and whether somebody is there.
    ///
    /// # Errors
    /// If no edu device answers.
    pub fn new(group: GroupId, name: &str, registers: R) -> anyhow::Result<Self> {
        let mut id = [0; 4];
        registers.read(REG_ID, &mut id)?;
        let order = Order::of(id)
            .with_context(|| format!("{name}: {id:02x?} is not how an edu device calls itself"))?;
        let engine = Self { group, name: name.to_owned(), order, registers };
        let asked = 0x1234_5678;
        let mut answer = [0; 4];
        engine.registers.write(REG_INVERT, &order.word(asked))?;
        engine.registers.read(REG_INVERT, &mut answer)?;
        ensure!(answer == order.word(!asked), "{name}: {asked:#x} came back as {answer:02x?}");
        Ok(engine)
    }

    fn set(&self, register: u64, value: u64) -> anyhow::Result<()> {
        self.registers.write(register, &self.order.double(value))
    }

    fn get(&self, register: u64) -> anyhow::Result<u64> {
        let mut bytes = [0; 8];
        self.registers.read(register, &mut bytes)?;
        Ok(match self.order {
            Order::Big => u64::from_be_bytes(bytes),
            Order::Little => u64::from_le_bytes(bytes),
        })
    }

    /// Reads memory into the device's buffer, from its start on.
    ///
    /// # Errors
    /// If the device does not come to an end. It does not tell whether it reached the memory.
    pub fn load(&self, from: Ioba, bytes: usize) -> anyhow::Result<()> {
        self.transfer(from.0, BUFFER, bytes, RUN)
    }

    /// Writes the first bytes of the device's buffer to memory.
    ///
    /// # Errors
    /// As [`Engine::load`].
    pub fn store(&self, to: Ioba, bytes: usize) -> anyhow::Result<()> {
        self.transfer(BUFFER, to.0, bytes, RUN | TO_MEMORY)
    }

    fn transfer(&self, from: u64, to: u64, bytes: usize, command: u64) -> anyhow::Result<()> {
        // QEMU ends if it is asked for more.
        ensure!(bytes <= BUFFER_BYTES, "{}: {bytes} bytes are more than fit", self.name);
        self.set(REG_SOURCE, from)?;
        self.set(REG_DESTINATION, to)?;
        let seen = (self.get(REG_SOURCE)?, self.get(REG_DESTINATION)?);
        // An access that the kernel cuts in two loses half of the address.
        ensure!(seen == (from, to), "{}: ({from:#x}, {to:#x}) reads as {seen:#x?}", self.name);
        self.set(REG_COUNT, bytes as u64)?;
        self.set(REG_COMMAND, command)?;
        let begun = Instant::now();
        let mut pause = TRANSFER;
        loop {
            // While we sleep an emulator has nothing to do, and may skip the time.
            sleep(pause);
            pause = TRANSFER / 20;
            if self.get(REG_COMMAND)? & RUN == 0 {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                bail!("{}: a transfer was not done after {PATIENCE:?}", self.name);
            }
        }
    }
}

/// The edu devices of the groups that vfio-pci has, by what sysfs below `root` says. None is opened.
fn names(root: &Path, groups: &[GroupId]) -> Vec<(GroupId, String)> {
    let mut found = Vec::new();
    for group in groups {
        let devices = root.join(format!("sys/kernel/iommu_groups/{group}/devices"));
        let Ok(entries) = fs::read_dir(devices) else { continue };
        let is_edu = |path: &Path| {
            let read = |file| fs::read_to_string(path.join(file)).unwrap_or_default();
            let driver = fs::read_link(path.join("driver")).unwrap_or_default();
            let vfio = driver.file_name().is_some_and(|name| name == "vfio-pci");
            vfio && [read("vendor"), read("device")].iter().map(|id| id.trim()).eq(ID)
        };
        let edu = entries.flatten().filter(|entry| is_edu(&entry.path()));
        let mut names: Vec<_> =
            edu.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort_unstable();
        found.extend(names.into_iter().map(|name| (*group, name)));
    }
    found
}

/// The edu devices of the groups, by name. None is opened.
pub(crate) fn list(groups: &[GroupId]) -> Vec<(GroupId, String)> {
    names(Path::new("/"), groups)
}

/// The groups of this machine that have edu devices.
pub(crate) fn groups() -> Vec<GroupId> {
    let groups = fs::read_dir("/sys/kernel/iommu_groups").into_iter().flatten().flatten();
    let number = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok().map(GroupId);
    let mut groups: Vec<_> = groups.filter_map(number).collect();
    groups.sort_unstable();
    groups.retain(|group| !list(&[*group]).is_empty());
    groups
}

/// Opens the edu devices of groups that some container of `open` holds, and makes them bus masters.
/// Drop them before the groups leave.
///
/// # Errors
/// Which device could not be opened, or does not behave as edu does.
pub(crate) fn find(open: &OpenVfio, groups: &[GroupId]) -> anyhow::Result<Vec<Engine>> {
    let open = |(group, name): (GroupId, String)| {
        let device = open.device(group, &name);
        let device = device.map_err(|e| anyhow!("opening {name} of group {group}: {e}"))?;
        let registers = Bar::new(device).with_context(|| name.clone())?;
        Engine::new(group, &name, registers)
    };
    list(groups).into_iter().map(open).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    /// The registers of an edu device whose transfers are over at once.
    struct Fake {
        order: Order,
        /// Source, destination, count, command.
        dma: RefCell<[u64; 4]>,
        inverted: RefCell<u32>,
        /// Only the first half of an access of 8 bytes arrives.
        halves: bool,
    }

    impl Fake {
        fn new(order: Order) -> Self {
            let (dma, inverted) = (RefCell::default(), RefCell::default());
            Self { order, dma, inverted, halves: false }
        }
    }

    impl Registers for Fake {
        fn read(&self, at: u64, out: &mut [u8]) -> anyhow::Result<()> {
            match at {
                REG_ID => out.copy_from_slice(&self.order.word(0x0100_00ed)),
                REG_INVERT => out.copy_from_slice(&self.order.word(!*self.inverted.borrow())),
                at => {
                    let value = self.dma.borrow()[(at - REG_SOURCE) as usize / 8];
                    out.copy_from_slice(&self.order.double(value));
                }
            }
            Ok(())
        }

        fn write(&self, at: u64, bytes: &[u8]) -> anyhow::Result<()> {
            let value = bytes.iter().enumerate().fold(0, |sum, (nth, byte)| {
                let place = if self.order == Order::Big { bytes.len() - 1 - nth } else { nth };
                sum | u64::from(*byte) << (8 * place)
            });
            if at == REG_INVERT {
                *self.inverted.borrow_mut() = value as u32;
                return Ok(());
            }
            let value = if self.halves { value >> 32 } else { value };
            let done = if at == REG_COMMAND { value & !RUN } else { value };
            self.dma.borrow_mut()[(at - REG_SOURCE) as usize / 8] = done;
            Ok(())
        }
    }

    #[test]
    fn the_byte_order_is_found_out() {
        for order in [Order::Big, Order::Little] {
            let engine = Engine::new(GroupId(3), "0000:01:00.0", Fake::new(order)).unwrap();
            assert_eq!(engine.order, order);
            engine.load(Ioba(1 << 59 | 0x10), 100).unwrap();
            assert_eq!(*engine.registers.dma.borrow(), [1 << 59 | 0x10, BUFFER, 100, 0]);
            engine.store(Ioba(0x20), 7).unwrap();
            assert_eq!(*engine.registers.dma.borrow(), [BUFFER, 0x20, 7, TO_MEMORY]);
            assert!(engine.store(Ioba(0), BUFFER_BYTES + 1).is_err());
        }
        assert_eq!(Order::of([0x01, 0x00, 0x00, 0xed]), Some(Order::Big));
        assert_eq!(Order::of([0xed, 0x00, 0x00, 0x01]), Some(Order::Little));
        assert_eq!(Order::of([0xff; 4]), None);
    }

    #[test]
    fn half_an_address_is_noticed() {
        let fake = Fake { halves: true, ..Fake::new(Order::Big) };
        let engine = Engine::new(GroupId(0), "x", fake).unwrap();
        let error = engine.load(Ioba(0x1000), 8).unwrap_err().to_string();
        assert!(error.starts_with("x: (0x1000, 0x40000) reads as"), "{error}");
    }

    #[test]
    fn devices_are_told_by_their_numbers_and_their_driver() {
        let root = tempfile::tempdir().unwrap();
        let device = |group: u32, name: &str, vendor: &str, device: &str| {
            let path = format!("sys/kernel/iommu_groups/{group}/devices/{name}");
            let path = root.path().join(path);
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("vendor"), vendor).unwrap();
            fs::write(path.join("device"), device).unwrap();
            path
        };
        let bound = |path: std::path::PathBuf, driver: &str| {
            let driver = Path::new("../../../../../bus/pci/drivers").join(driver);
            std::os::unix::fs::symlink(driver, path.join("driver")).unwrap();
        };
        bound(device(5, "0002:02:02.0", "0x1234\n", "0x11e8\n"), "vfio-pci");
        bound(device(5, "0002:02:01.0", "0x1234\n", "0x11e8\n"), "vfio-pci");
        bound(device(5, "0002:01:00.0", "0x1b36\n", "0x000e\n"), "vfio-pci");
        bound(device(1, "0000:04:00.0", "0x1234\n", "0x11e8\n"), "vfio-pci");
        bound(device(2, "0000:05:00.0", "0x1234\n", "0x11e8\n"), "vfio-pci");
        // With the host, or with nobody.
        bound(device(1, "0000:04:00.1", "0x1234\n", "0x11e8\n"), "edu");
        device(1, "0000:04:00.2", "0x1234\n", "0x11e8\n");
        let found = names(root.path(), &[GroupId(5), GroupId(1), GroupId(9)]);
        let expected = [(5, "0002:02:01.0"), (5, "0002:02:02.0"), (1, "0000:04:00.0")];
        assert_eq!(found, expected.map(|(group, name)| (GroupId(group), name.to_owned())));
    }
}
