// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Table memory for the crate's own unit tests: addresses and nothing behind them.

use std::collections::BTreeMap;

use crate::addr::Hpa;
use crate::error::BackendError;
use crate::mem::{TableChunk, TableMemory};
use crate::sync::{Arc, AtomicU64, Mutex, Ordering, lock};

/// Counts what is reserved, and can run out of chunks.
pub(crate) struct PlainMemory {
    stretches: Mutex<BTreeMap<u64, u64>>,
    chunks_left: AtomicU64,
}

impl Default for PlainMemory {
    fn default() -> Self {
        Self::with_chunks(u64::MAX)
    }
}

impl PlainMemory {
    pub(crate) fn with_chunks(chunks: u64) -> Self {
        Self { stretches: Mutex::new(BTreeMap::new()), chunks_left: AtomicU64::new(chunks) }
    }

    #[cfg(not(loom))]
    pub(crate) fn stretches(&self) -> usize {
        lock(&self.stretches).len()
    }
}

impl TableMemory for PlainMemory {
    fn reserve_table(&self, bytes: u64) -> Result<Hpa, BackendError> {
        let mut stretches = lock(&self.stretches);
        let at = stretches.iter().next_back().map_or(1 << 32, |(at, len)| at + len);
        let at = at.next_multiple_of(bytes.next_power_of_two());
        stretches.insert(at, bytes);
        Ok(Hpa(at))
    }

    fn back_table(&self, _: Hpa, chunk: Arc<TableChunk>) -> Result<(), BackendError> {
        let left = self.chunks_left.load(Ordering::Relaxed);
        if left == 0 {
            let bytes = chunk.bytes() as u64;
            return Err(BackendError::NoTableMemory { bytes, reason: "test".to_owned() });
        }
        self.chunks_left.store(left - 1, Ordering::Relaxed);
        Ok(())
    }

    fn free_table(&self, at: Hpa) {
        lock(&self.stretches).remove(&at.0);
    }
}
