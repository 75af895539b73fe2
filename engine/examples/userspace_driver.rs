// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A user-space driver with two devices: a NIC that receives packets, and an accelerator that sums
//! what the NIC has received. They are two IOMMU groups in one container, so they share one window:
//! what is mapped once, both reach at the same bus address.
//!
//! The devices here are a few lines of Rust that see bus addresses only. Every access goes through
//! the software PHB, which reads the engine's table; the mock says which byte of the driver's buffer
//! that was. Mock: software PHB, not hardware.
//!
//! Run: `cargo run -p tce-engine --example userspace_driver`

use std::error::Error;

use tce_engine::backend::mock::{Access, Fault};
use tce_engine::{
    Engine, EngineOptions, GroupId, Ioba, KillCount, Memory, Mock, MockBuilder, Mode, PageShift,
    PeNumber, Perm, Removal, Uaddr, WindowSpec,
};

const PAGE: u64 = PageShift::K4.bytes();
/// The ring's 256 descriptors: bus address and length, 8 bytes each, big-endian.
const SLOTS: u64 = 256;
const DESCRIPTOR: u64 = 16;
const RING_BYTES: u64 = SLOTS * DESCRIPTOR;
/// Packet buffers, a page each, behind the ring.
const BUFFERS: u64 = 512;
const PACKETS: u64 = 5000;

const NIC: PeNumber = PeNumber(0);
const ACCELERATOR: PeNumber = PeNumber(1);

/// Memory that devices may reach, aligned to the host page as registration asks for.
struct DmaBuffer {
    memory: Vec<u8>,
    skip: usize,
    bytes: usize,
}

impl DmaBuffer {
    fn new(bytes: usize, align: usize) -> Self {
        let memory = vec![0; bytes + align];
        let skip = memory.as_ptr().align_offset(align);
        Self { memory, skip, bytes }
    }

    fn address(&self) -> Uaddr {
        Uaddr((self.memory.as_ptr().addr() + self.skip) as u64)
    }

    fn at(&mut self, offset: u64, len: usize) -> &mut [u8] {
        let usable = &mut self.memory[self.skip..self.skip + self.bytes];
        &mut usable[offset as usize..][..len]
    }
}

/// One access of a device. It must stay inside a page, as one on the bus does.
fn dma<'a>(
    mock: &Mock,
    buffer: &'a mut DmaBuffer,
    pe: PeNumber,
    at: Ioba,
    len: usize,
    access: Access,
) -> Result<&'a mut [u8], Fault> {
    assert!(at.0 % PAGE + len as u64 <= PAGE, "an access crosses a page");
    let there = mock.translate(pe, at, access)?;
    let (memory, offset) = mock.owner(there.at).ok_or(Fault::NoMemory(there.at))?;
    assert_eq!(memory.start(), buffer.address().0, "the device reached foreign memory");
    Ok(buffer.at(offset, len))
}

fn word(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

/// The NIC: fetches a descriptor, and writes the packet where it says.
fn nic_receive(
    mock: &Mock,
    buffer: &mut DmaBuffer,
    ring: Ioba,
    slot: u64,
    packet: &[u8],
) -> Result<(), Fault> {
    let at = Ioba(ring.0 + slot * DESCRIPTOR);
    let descriptor = dma(mock, buffer, NIC, at, DESCRIPTOR as usize, Access::Read)?;
    let target = Ioba(word(&descriptor[..8]));
    dma(mock, buffer, NIC, target, packet.len(), Access::Write)?.copy_from_slice(packet);
    let done = (packet.len() as u64).to_be_bytes();
    dma(mock, buffer, NIC, Ioba(at.0 + 8), 8, Access::Write)?.copy_from_slice(&done);
    Ok(())
}

/// The accelerator: sums bytes at a bus address that the NIC filled.
fn accelerator_sum(
    mock: &Mock,
    buffer: &mut DmaBuffer,
    at: Ioba,
    len: usize,
) -> Result<u64, Fault> {
    let bytes = dma(mock, buffer, ACCELERATOR, at, len, Access::Read)?;
    Ok(bytes.iter().map(|b| u64::from(*b)).sum())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mock = MockBuilder::new(2).build();
    let engine = Engine::new(mock.clone(), EngineOptions::default());
    let host_page = engine.caps().host_page;
    println!("{mock:?}, host pages of {host_page}, simd {}", engine.tier().name());

    // Both devices into one container, then the memory and a window for them.
    let container = engine.container();
    container.attach(GroupId(0))?;
    container.attach(GroupId(1))?;
    let bytes = (RING_BYTES + BUFFERS * PAGE).next_multiple_of(host_page.bytes());
    let mut buffer = DmaBuffer::new(bytes as usize, host_page.bytes() as usize);
    let start = buffer.address();
    container.register(start, bytes)?;
    let window = container.create_window(WindowSpec::new(2 << 30, PageShift::K4))?;

    let charged = engine.ledger().pages() * host_page.bytes();
    assert_eq!(charged, bytes + window.geometry.charge(), "once each, for two groups");
    println!(
        "registered {bytes:#x} bytes at {start}, window at {}: {charged:#x} bytes charged, once",
        window.start
    );

    // The ring stays mapped. The NIC reads descriptors and writes them back.
    let ring = window.start;
    container.map(ring, start, RING_BYTES, Perm::READ_WRITE, Mode::Refuse)?;

    // Packets: each has its page mapped when it is posted and unmapped when it is done with.
    let stores_before = mock.register_stores();
    let mut kills = KillCount::default();
    for n in 0..PACKETS {
        let (slot, page) = (n % SLOTS, n % BUFFERS);
        let offset = RING_BYTES + page * PAGE;
        let at = Ioba(ring.0 + (1 << 20) + page * PAGE);
        let mapped =
            container.map(at, Uaddr(start.0 + offset), PAGE, Perm::READ_WRITE, Mode::Refuse)?;
        kills += mapped.kills;
        buffer.at(slot * DESCRIPTOR, 8).copy_from_slice(&at.0.to_be_bytes());

        // The wire's side.
        let packet: Vec<u8> = (0..60 + n % 1400).map(|i| (i ^ n) as u8).collect();
        nic_receive(&mock, &mut buffer, ring, slot, &packet).map_err(|f| format!("NIC: {f:?}"))?;
        let sum = accelerator_sum(&mock, &mut buffer, at, packet.len())
            .map_err(|f| format!("accelerator: {f:?}"))?;
        assert_eq!(sum, packet.iter().map(|b| u64::from(*b)).sum::<u64>());

        // The driver's side: the packet is in its own memory.
        let len = word(buffer.at(slot * DESCRIPTOR + 8, 8)) as usize;
        assert_eq!(buffer.at(offset, len), packet);
        let unmapped = container.unmap(at, PAGE)?;
        assert_eq!(unmapped.released, 1);
        kills += unmapped.kills;

        // The call has waited for the kills: the page is the driver's alone again.
        for pe in [NIC, ACCELERATOR] {
            let stale = dma(&mock, &mut buffer, pe, at, 8, Access::Any).map(|_| ());
            assert_eq!(stale, Err(Fault::Empty { value: 0 }));
        }
    }
    // Two PEs, one page, once when it is filled and once when it is emptied.
    assert_eq!(kills.asked, PACKETS * 2 * 2);
    assert_eq!(kills.issued, mock.register_stores() - stores_before);
    println!(
        "{PACKETS} packets received and summed; kills: asked {}, issued {}",
        kills.asked, kills.issued
    );

    // What is mapped cannot be taken away by mistake.
    let refused = container.unregister(start, bytes).unwrap_err();
    println!("as it should be: {refused}");
    assert_eq!(container.regions()[0].memory, Memory::User { start, bytes });

    // The other way round, and nothing is left.
    container.unmap(ring, RING_BYTES)?;
    container.remove_window(window.start, Removal::IfUnmapped)?;
    container.unregister(start, bytes)?;
    container.close();
    assert_eq!(engine.ledger().pages(), 0);
    assert_eq!(mock.leftovers(), (0, 0, 0));
    println!("nothing pinned, charged or programmed at the end");
    Ok(())
}
