// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the tiers' loops cost for each entry of a leaf.

use std::cell::RefCell;
use std::hint::black_box;
use std::sync::atomic::AtomicU64;

use serde::Serialize;
use tce_engine::addr::Hpa;
use tce_engine::mem::TableChunk;
use tce_engine::simd::{Frames, Tier};
use tce_engine::tce::{Perm, Summary, Tce};

use super::meter::Meter;
use crate::cmd::least::Cost;
use crate::columns;
use crate::style::Style;

/// Entries of the leaf: as many as a level has on most hosts.
pub(super) const LEAF: usize = 8192;

/// A leaf, and lists as long as it.
struct Leaf {
    chunk: TableChunk,
    /// Of 64 KiB.
    frames: Vec<Hpa>,
    words: Vec<u64>,
    values: Vec<u64>,
    old: Vec<u64>,
}

/// What runs over a leaf.
type Pass = fn(&Tier, &mut Leaf);

/// The loops, each with what has to be done before it, uncounted.
const LOOPS: [(&str, Pass, Pass); 13] = [
    ("fill", full, nothing),
    ("fill_empty", |tier, leaf| assert!(tier.fill_empty(leaf.slots(), FIRST, STEP)), empty),
    ("fill_frames", frames, nothing),
    ("store", |tier, leaf| tier.store(leaf.slots(), FIRST), nothing),
    ("put", |tier, leaf| tier.put(leaf.slots(), &leaf.words), nothing),
    ("list", |tier, leaf| all_live(tier.list(leaf.slots(), &leaf.values)), nothing),
    ("exchange", exchange, full),
    ("replace", |tier, leaf| all_live(tier.replace(leaf.slots(), &leaf.words)), full),
    ("take", |tier, leaf| all_live(tier.take(leaf.slots())), full),
    ("clear", empty, nothing),
    ("clear_streaming", clear_streaming, nothing),
    ("any_live", |tier, leaf| assert!(!tier.any_live(leaf.slots())), empty),
    ("scan", |tier, leaf| all_live(tier.scan(leaf.slots())), full),
];

const FIRST: Tce = Tce::new(1 << 30, Perm::READ_WRITE);
const STEP: u64 = 1 << 12;

fn all_live(seen: Summary) {
    assert_eq!(seen.live, LEAF as u64);
}

fn nothing(_: &Tier, _: &mut Leaf) {}

fn empty(tier: &Tier, leaf: &mut Leaf) {
    tier.clear(leaf.slots());
}

fn full(tier: &Tier, leaf: &mut Leaf) {
    tier.fill(leaf.slots(), FIRST, STEP);
}

/// As on a kernel with pages of 64 KiB.
fn frames(tier: &Tier, leaf: &mut Leaf) {
    let at = &leaf.frames;
    let frames = Frames { at, each: LEAF / at.len(), perm: Perm::READ_WRITE, step: STEP };
    tier.fill_frames(leaf.slots(), &frames);
}

fn exchange(tier: &Tier, leaf: &mut Leaf) {
    let Leaf { chunk, words, old, .. } = leaf;
    tier.exchange(&chunk.slots()[..LEAF], words, old);
    black_box(old);
}

fn clear_streaming(tier: &Tier, leaf: &mut Leaf) {
    tier.clear_streaming(leaf.slots());
    tier.drain();
}

impl Leaf {
    fn new() -> anyhow::Result<Self> {
        let value = |i: u64| FIRST.value().wrapping_add(i * 7919 % (1 << 24) * STEP);
        let values: Vec<_> = (0..LEAF as u64).map(value).collect();
        let words = values.iter().map(|value| value.to_be()).collect();
        let frames = (1..=LEAF as u64 / 16).map(|n| Hpa((n * 7919 % 4096) << 16)).collect();
        Ok(Self { chunk: TableChunk::new(2 << 20)?, frames, words, values, old: vec![0; LEAF] })
    }

    fn slots(&self) -> &[AtomicU64] {
        &self.chunk.slots()[..LEAF]
    }
}

/// One loop of one tier.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct LoopCost {
    #[serde(rename = "loop")]
    pub(super) name: &'static str,
    /// Per entry.
    pub(super) per_tce: Cost,
}

/// One tier.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct TierCost {
    pub(super) tier: &'static str,
    pub(super) loops: Vec<LoopCost>,
}

/// All loops of all tiers that this machine can run.
///
/// # Errors
/// If there is no memory for a leaf.
pub(super) fn measure(repeat: u32, meter: &Meter) -> anyhow::Result<Vec<TierCost>> {
    let leaf = RefCell::new(Leaf::new()?);
    let cost = |tier: &'static Tier| -> anyhow::Result<TierCost> {
        let mut loops = Vec::new();
        for (name, pass, before) in LOOPS {
            let run = |pass: Pass| {
                pass(tier, &mut leaf.borrow_mut());
                Ok(())
            };
            let (_, cost) = meter.pairs(repeat, 1, |_| run(before), |_| run(pass))?;
            let per = |cost: f64| cost / LEAF as f64;
            let per_tce = Cost { min: per(cost.min), median: per(cost.median) };
            loops.push(LoopCost { name, per_tce });
        }
        Ok(TierCost { tier: tier.name(), loops })
    };
    Tier::all().map(cost).collect()
}

/// A column for each tier.
pub(super) fn table(out: &mut String, tiers: &[TierCost], style: Style) {
    let Some(first) = tiers.first() else { return };
    let heads = std::iter::once("loop").chain(tiers.iter().map(|tier| tier.tier));
    let mut rows = vec![heads.map(str::to_owned).collect::<Vec<_>>()];
    for (nth, result) in first.loops.iter().enumerate() {
        let cells = tiers.iter().map(|tier| format!("{:.3}", tier.loops[nth].per_tce.min));
        rows.push(std::iter::once(result.name.to_owned()).chain(cells).collect());
    }
    columns::table(out, &rows, style);
}
