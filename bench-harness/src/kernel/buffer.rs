// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Memory that windows map. Devices may write to it at any time, so it is never seen through a
//! reference: what has to be read or written goes through the kernel.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, ensure};
use memmap2::{MmapOptions, MmapRaw};
use tce_engine::addr::{PageShift, Uaddr};

use super::Unavailable;
use crate::size::{format_arg, format_size};

/// A mapping of the process that nothing else uses.
#[derive(Debug)]
pub(crate) struct Buffer {
    map: MmapRaw,
    start: u64,
    bytes: u64,
}

impl Buffer {
    /// Addresses that nobody touches, for machines that move no data. `align` is the largest page
    /// that may be mapped from it.
    ///
    /// # Errors
    /// If there is no address space.
    pub(crate) fn reserved(bytes: u64, align: u64) -> anyhow::Result<Self> {
        let length = length(bytes, align)?;
        let map =
            MmapOptions::new().len(length).no_reserve_swap().map_anon().with_context(|| {
                format!("no address space for a buffer of {}", format_size(bytes))
            })?;
        Ok(Self::aligned(map.into(), bytes, align))
    }

    /// Real memory, on pages of at least `page`: those of the kernel if they are as large, else
    /// huge pages of exactly this size.
    ///
    /// # Errors
    /// If there is none; for huge pages, with what to reserve.
    pub(crate) fn real(bytes: u64, page: PageShift, host_page: PageShift) -> anyhow::Result<Self> {
        if page <= host_page {
            let length = length(bytes, host_page.bytes())?;
            let map = MmapOptions::new()
                .len(length)
                .map_anon()
                .with_context(|| format!("no memory for a buffer of {}", format_size(bytes)))?;
            return Ok(Self::aligned(map.into(), bytes, host_page.bytes()));
        }
        let whole = bytes.next_multiple_of(page.bytes());
        let length = length(whole, 0)?;
        let map = MmapOptions::new().len(length).huge(Some(page.get() as u8)).map_anon();
        let map = map.map_err(|e| no_huge_pages(page, whole, bytes, host_page, &e))?;
        Ok(Self::aligned(map.into(), bytes, page.bytes()))
    }

    fn aligned(map: MmapRaw, bytes: u64, align: u64) -> Self {
        let start = (map.as_ptr().addr() as u64).next_multiple_of(align);
        Self { map, start, bytes }
    }

    /// Its address.
    pub(crate) fn start(&self) -> Uaddr {
        Uaddr(self.start)
    }

    /// Its length.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The address of page `number` of `page` bytes, counted around.
    pub(crate) fn page(&self, number: u64, page: PageShift) -> Uaddr {
        let number = number % (self.bytes >> page.get());
        Uaddr(self.start + (number << page.get()))
    }

    /// Reads what is at `offset`, whatever a device does to it meanwhile.
    ///
    /// # Errors
    /// If it is not all inside the buffer, or the kernel refuses.
    pub(crate) fn read(&self, offset: u64, out: &mut [u8]) -> anyhow::Result<()> {
        let at = self.inside(offset, out.len())?;
        memory()?.read_exact_at(out, at).context("reading the buffer")
    }

    /// Writes at `offset`.
    ///
    /// # Errors
    /// As [`Buffer::read`].
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> anyhow::Result<()> {
        let at = self.inside(offset, bytes.len())?;
        memory()?.write_all_at(bytes, at).context("writing the buffer")
    }

    fn inside(&self, offset: u64, len: usize) -> anyhow::Result<u64> {
        let end = offset.checked_add(len as u64);
        let mapped = self.start - self.map.as_ptr().addr() as u64 + self.bytes;
        ensure!(
            end.is_some_and(|end| end <= self.bytes) && mapped <= self.map.len() as u64,
            "{len} bytes at {offset:#x} are not in the buffer of {:#x}",
            self.bytes
        );
        Ok(self.start + offset)
    }
}

fn no_huge_pages(
    page: PageShift,
    whole: u64,
    bytes: u64,
    host_page: PageShift,
    error: &std::io::Error,
) -> Unavailable {
    let (size, small) = (format_arg(page.bytes()), format_arg(host_page.bytes()));
    let (kib, pages) = (page.bytes() >> 10, whole >> page.get());
    let pool = format!("/sys/kernel/mm/hugepages/hugepages-{kib}kB");
    if !Path::new(&pool).exists() {
        return Unavailable {
            cause: format!("IOMMU pages of {size} need such huge pages, and this kernel has none"),
            fix: format!("use an IOMMU page of at most {small}, or of a size of huge pages"),
        };
    }
    Unavailable {
        cause: format!("no huge pages of {size} for a buffer of {}: {error}", format_size(bytes)),
        fix: format!(
            "as root, echo {pages} > {pool}/nr_hugepages; or use an IOMMU page of at most {small}"
        ),
    }
}

/// The process's memory as the kernel sees it.
fn memory() -> anyhow::Result<File> {
    let path = "/proc/self/mem";
    File::options().read(true).write(true).open(path).with_context(|| format!("cannot open {path}"))
}

fn length(bytes: u64, align: u64) -> anyhow::Result<usize> {
    bytes
        .checked_add(align)
        .and_then(|n| usize::try_from(n).ok())
        .with_context(|| format!("a buffer of {bytes} bytes is larger than memory can be"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_beyond_it() {
        let buffer = Buffer::real(3 << 16, PageShift::K64, PageShift::K64).unwrap();
        assert!(buffer.start().is_aligned(PageShift::K64));
        assert_eq!(buffer.page(4, PageShift::K64), Uaddr(buffer.start().0 + (1 << 16)));
        buffer.write(0x1_2345, b"as it was").unwrap();
        let mut out = [1; 11];
        buffer.read(0x1_2344, &mut out).unwrap();
        assert_eq!(&out, b"\0as it was\0");
        assert!(buffer.read(3 << 16, &mut out).is_err());
        assert!(buffer.write((3 << 16) - 1, b"ab").is_err());
        assert!(buffer.write(u64::MAX, b"ab").is_err());
    }

    #[test]
    fn huge_pages_that_are_not_there_are_asked_for() {
        // No machine has pages of this size.
        let page = PageShift::new(29).unwrap();
        let error = Buffer::real(1 << 29, page, PageShift::K4).unwrap_err();
        let text = error.downcast_ref::<Unavailable>().unwrap().to_string();
        assert!(text.starts_with("IOMMU pages of 512M need such huge pages"), "{text}");
        assert!(text.ends_with("of at most 4K, or of a size of huge pages"), "{text}");
    }
}
