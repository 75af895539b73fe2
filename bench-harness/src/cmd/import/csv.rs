// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Comma-separated values: a line that names the columns, then an event in each line.

use super::{Event, What, number};
use crate::trace::clip;

const COLUMNS: [&str; 7] = ["op", "iova", "size", "paddr", "t_ns", "cpu", "perm"];

/// Where each of the columns stands.
#[derive(Debug)]
pub(super) struct Columns {
    places: [Option<usize>; COLUMNS.len()],
    count: usize,
}

impl Columns {
    /// Reads the first line.
    pub(super) fn new(head: &str) -> Result<Self, String> {
        let mut places = [None; COLUMNS.len()];
        let names = cells(head);
        for (place, name) in names.iter().enumerate() {
            let known = COLUMNS.iter().position(|column| column == name).ok_or_else(|| {
                format!("unknown column '{}'; accepted: {}", clip(name), COLUMNS.join(", "))
            })?;
            if places[known].replace(place).is_some() {
                return Err(format!("the column '{name}' is there twice"));
            }
        }
        match places.iter().zip(COLUMNS).take(4).find(|(place, _)| place.is_none()) {
            Some((_, name)) => Err(format!(
                "the first line has no column '{name}'; needed: {}",
                COLUMNS[..4].join(", ")
            )),
            None => Ok(Self { places, count: names.len() }),
        }
    }

    pub(super) fn line(&self, text: &str) -> Result<Option<Event>, String> {
        if text.trim().is_empty() {
            return Ok(None);
        }
        let cells = cells(text);
        if cells.len() != self.count {
            return Err(format!("the line has {} cells; accepted: {}", cells.len(), self.count));
        }
        let cell = |name: &str| {
            let known = COLUMNS.iter().position(|column| *column == name)?;
            self.places[known].map(|place| cells[place]).filter(|cell| !cell.is_empty())
        };
        let value = |name: &str| cell(name).map(|text| number(name, text)).transpose();
        let needed = |name: &str| value(name)?.ok_or_else(|| format!("the cell '{name}' is empty"));
        let cpu = value("cpu")?.map(|cpu| {
            u32::try_from(cpu)
                .map_err(|_| format!("cpu {cpu} is too large; the limit is {}", u32::MAX))
        });
        let what = match cell("op").unwrap_or_default() {
            "map" => {
                What::Map { paddr: needed("paddr")?, perm: perm(cell("perm").unwrap_or("rw"))? }
            }
            "unmap" => What::Unmap,
            other => return Err(format!("op '{}' is wrong; accepted: map, unmap", clip(other))),
        };
        let (iova, size, t_ns) = (needed("iova")?, needed("size")?, value("t_ns")?);
        Ok(Some(Event { t_ns, cpu: cpu.transpose()?, iova, size, what }))
    }
}

/// The cells of a line. None of the columns can need quotes, but some programs write them anyway.
fn cells(text: &str) -> Vec<&str> {
    let bare = |cell: &'_ str| -> Option<(usize, usize)> {
        let inner = cell.strip_prefix('"')?.strip_suffix('"')?;
        Some((1, 1 + inner.len()))
    };
    let text = text.strip_suffix('\r').unwrap_or(text);
    let cells = text.split(',').map(str::trim);
    cells.map(|cell| bare(cell).map_or(cell, |(from, to)| &cell[from..to])).collect()
}

fn perm(text: &str) -> Result<u64, String> {
    match text {
        "r" => Ok(1),
        "w" => Ok(2),
        "rw" => Ok(3),
        other => Err(format!("perm '{}' is wrong; accepted: r, w, rw", clip(other))),
    }
}
