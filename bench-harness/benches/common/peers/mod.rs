// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Who else changes page tables: models of the per-entry loops that kernels run, and published
//! crates. Each maps 2 GiB in pages of 4 KiB, in memory aligned and backed like a TCE table's.

#[cfg(target_arch = "x86_64")]
mod crates;
mod models;

/// Pages of 4 KiB in 2 GiB.
pub(crate) const PAGES: u64 = 1 << 19;
/// Bytes of a page.
pub(crate) const PAGE: u64 = 4096;
/// Where the mapped memory begins; contiguous, which is the easiest for whoever looks it up.
pub(crate) const TARGET: u64 = 1 << 32;
/// Pages in the ring of single pages.
pub(crate) const RING: u64 = 256;

/// What a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The engine, where it stands among them.
    Engine,
    /// A model of the loops of a kernel.
    Model,
    /// A published crate.
    Crate,
}

/// A table of [`PAGES`] pages, all levels in place or made on demand. Page *n* is mapped to
/// [`TARGET`] + *n* pages.
pub(crate) trait Peer {
    /// What a report calls it.
    fn name(&self) -> &'static str;

    /// What it is.
    fn kind(&self) -> Kind;

    /// Maps the first `count` pages, whole leaves of 8192, none of which is mapped.
    fn map_many(&mut self, count: u64) {
        (0..count).for_each(|page| self.map_one(page));
    }

    /// Unmaps the first `count` pages, all of which are mapped.
    fn unmap_many(&mut self, count: u64) {
        (0..count).for_each(|page| self.unmap_one(page));
    }

    /// Maps one page that is not mapped.
    fn map_one(&mut self, page: u64);

    /// Unmaps one page that is mapped.
    fn unmap_one(&mut self, page: u64);

    /// Where a page leads, if it is mapped.
    fn target(&self, page: u64) -> Option<u64>;

    /// Maps the first half of the ring.
    fn start_ring(&mut self) {
        (0..RING / 2).for_each(|page| self.map_one(page));
    }

    /// `count` times: a page at the head of the ring is mapped, the one half a ring behind is
    /// unmapped. In the trait, so that the loop is compiled for each peer and its calls are direct.
    fn turn_ring(&mut self, first: u64, count: u64) {
        for n in first..first + count {
            self.map_one((n + RING / 2) % RING);
            self.unmap_one(n % RING);
        }
    }

    /// Unmaps what `turns` turns after [`Peer::start_ring`] have left.
    fn stop_ring(&mut self, turns: u64) {
        (turns..turns + RING / 2).for_each(|n| self.unmap_one(n % RING));
    }
}

/// All of them: the models, then the crates.
pub(crate) fn all() -> Vec<Box<dyn Peer>> {
    let mut peers: Vec<Box<dyn Peer>> = vec![
        Box::new(models::Hoisted::new()),
        Box::new(models::Walk::new()),
        Box::new(models::LockedWalk::new()),
    ];
    #[cfg(target_arch = "x86_64")]
    peers.extend(crates::all());
    peers.iter_mut().for_each(|peer| check(peer.as_mut()));
    peers
}

/// Name of the model with a locked exchange for each entry.
pub(crate) const LOCKED_WALK: &str = "walk + locked exchange";

/// A peer that maps nothing is fast: looks whether it does what it is timed for.
fn check(peer: &mut dyn Peer) {
    let probes = || (0..PAGES).step_by(997).chain([1, 511, 512, 8191, 8192, PAGES - 1]);
    let all = |peer: &dyn Peer, mapped: bool| {
        for page in probes() {
            let expected = mapped.then_some(TARGET + page * PAGE);
            assert_eq!(peer.target(page), expected, "{}, page {page}", peer.name());
        }
    };
    all(peer, false);
    peer.map_many(PAGES);
    all(peer, true);
    peer.unmap_many(PAGES);
    all(peer, false);
    let turns = RING + 3;
    peer.start_ring();
    peer.turn_ring(0, turns);
    for n in turns..turns + RING {
        let page = n % RING;
        let expected = (n < turns + RING / 2).then_some(TARGET + page * PAGE);
        assert_eq!(peer.target(page), expected, "{}, page {page} of the ring", peer.name());
    }
    peer.stop_ring(turns);
    all(peer, false);
}
