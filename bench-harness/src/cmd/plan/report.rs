// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A plan for people.

use std::fmt::Write;

use serde_json::Value;

use super::document::{Doc, Memory, Window};
use super::sources::Source;
use crate::columns::table;
use crate::result::Config;
use crate::size::{format_arg, format_size};
use crate::style::{Style, thousands};

/// A size with its bytes in hex, which window sizes and addresses are thought of in.
fn hex(bytes: u64) -> String {
    format!("{} ({bytes:#x})", format_size(bytes))
}

pub(super) fn report(doc: &Doc, style: Style) -> String {
    let mut out = String::new();
    let (Config::Run(config), backend) = (&doc.config, &doc.backend) else { return out };
    let title = style.bold(&format!("plan for {}", backend.label));
    let _ = writeln!(out, "{title} · nothing was touched");
    let numbers: Vec<_> = backend.group_numbers.iter().map(u32::to_string).collect();
    let _ = writeln!(
        out,
        "{} group(s) [{}] in {} container(s) · window {} at {:#x} · {} pages · {} thread(s) · simd {}",
        config.groups,
        numbers.join(","),
        config.containers,
        hex(config.window_bytes),
        config.window_start,
        format_arg(1 << config.page_shift),
        config.threads,
        config.simd
    );
    let time = match (config.repetitions, config.duration_s) {
        (Some(n), _) => format!("{n} repetition(s)"),
        (None, Some(s)) => format!("{s} s"),
        (None, None) => "as long as it takes".to_owned(),
    };
    let phases = config.phases.join(", ");
    let _ = writeln!(out, "phases, each for {time} after {} s: {phases}", config.warmup_s);
    doc.time.report(&mut out);
    out.push('\n');
    shape(&mut out, doc, config.level_entries, style);
    memory(&mut out, doc, style);
    let _ = writeln!(out, "\nIOMMU pages that can map memory which stands on");
    windows(&mut out, &doc.windows, style);
    for device in &doc.devices {
        let driver = device.driver.as_deref().unwrap_or("no driver");
        let known = |n: Option<u32>| n.map_or_else(|| "unknown".to_owned(), |n| n.to_string());
        let (mask, node) = (known(device.dma_mask_bits), known(device.node));
        let _ = writeln!(
            out,
            "group {}: {} ({driver}) · NUMA node {node} · DMA mask as its last driver left it: {mask} bits",
            device.group, device.name
        );
    }
    out.push_str("\nwhere each value comes from\n");
    origins(&mut out, doc, style);
    for warning in &doc.warnings {
        let _ = writeln!(out, "{} {}", style.yellow("warning:"), warning.text);
    }
    out
}

/// All settings with their sources, and where the rest comes from.
fn origins(out: &mut String, doc: &Doc, style: Style) {
    let Ok(values) = serde_json::to_value(doc) else { return };
    let mut rows = vec![["value", "from", ""].map(str::to_owned)];
    for Source { value, from, at } in &doc.sources {
        let found = values.pointer(&format!("/{}", value.replace('.', "/")));
        let from = match at {
            Some(at) => format!("{}: {at}", from.name()),
            None => from.name().to_owned(),
        };
        let is = found.map_or_else(String::new, |v| shown(value, v));
        rows.push([(*value).to_owned(), from, is]);
    }
    table(out, &rows, style);
}

/// A value in few words, if it can be.
fn shown(name: &str, value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_u64() {
            Some(bytes) if name.ends_with("_bytes") => format_size(bytes),
            Some(at) if name.ends_with("_start") => format!("{at:#x}"),
            Some(shift @ 0..64) if name.ends_with("_shift") => format_arg(1 << shift),
            _ => number.to_string(),
        },
        Value::Array(list) if list.iter().all(is_plain) => {
            list.iter().map(|item| shown(name, item)).collect::<Vec<_>>().join(",")
        }
        Value::Object(members) if members.values().all(is_plain) => {
            let one = |(name, value): (&String, &Value)| format!("{name} {}", shown(name, value));
            members.iter().map(one).collect::<Vec<_>>().join(", ")
        }
        Value::Array(_) | Value::Object(_) => "…".to_owned(),
    }
}

fn is_plain(value: &Value) -> bool {
    !value.is_array() && !value.is_object()
}

fn shape(out: &mut String, doc: &Doc, level_entries: u64, style: Style) {
    let (shape, nodes) = (&doc.table, &doc.backend.table_nodes);
    let _ = writeln!(
        out,
        "table of each window: {} TCEs ({} entries, covers {}) · {} level(s) of {} entries · {} address bits",
        thousands(shape.tces),
        thousands(shape.entries),
        format_size(shape.covered_bytes),
        shape.levels.len(),
        level_entries,
        shape.address_bits
    );
    let mut rows = vec![["level", "blocks", "of", "memory when full"].map(str::to_owned)];
    for level in &shape.levels {
        let name = if level.level == 1 { "1 (leaves)".to_owned() } else { level.level.to_string() };
        let sizes = (format_size(shape.block_bytes), format_size(level.bytes));
        rows.push([name, thousands(level.blocks), sizes.0, sizes.1]);
    }
    table(out, &rows, style);
    let node = |node: &Option<u32>| node.map_or_else(|| "unknown".to_owned(), |n| n.to_string());
    let nodes: Vec<_> = nodes.iter().map(node).collect();
    let _ = writeln!(out, "NUMA node of the table(s): {}\n", nodes.join(", "));
}

fn memory(out: &mut String, doc: &Doc, style: Style) {
    let Memory { need_locked_bytes: need, buffer_bytes, table_charge_bytes, .. } = doc.memory;
    let memory = &doc.memory;
    let _ = writeln!(
        out,
        "charged: {need} bytes ({}) = buffer {} + tables {} (twice their size, as Linux does)",
        format_size(need),
        format_size(buffer_bytes),
        format_size(table_charge_bytes)
    );
    let limit = memory.memlock_bytes.map_or_else(|| "none".to_owned(), hex);
    let verdict = match memory.memlock_fits {
        true => style.green("enough"),
        false => style.red("too little"),
    };
    let already = format_size(memory.locked_bytes);
    let _ = writeln!(out, "limit of locked memory: {limit}, {already} locked already: {verdict}");
    let all = format_size(memory.table_bytes);
    let _ =
        writeln!(out, "tables of all containers, full: {} block(s), {all}", memory.table_blocks);
    if let Some(huge) = &memory.huge_pages {
        let size = format_arg(huge.page_bytes);
        let free = huge.free.map_or_else(|| "no such pool".to_owned(), |n| format!("{n} free"));
        let verdict = if huge.fits { style.green("enough") } else { style.red("too few") };
        let _ = writeln!(out, "huge pages of {size}: {} needed, {free}: {verdict}", huge.needed);
    } else {
        let _ = writeln!(out, "huge pages: none needed");
    }
}

fn windows(out: &mut String, windows: &[Window], style: Style) {
    let mut rows = Vec::new();
    for window in windows {
        for reach in &window.reach {
            if rows.is_empty() {
                let heads = ["window at", "DMA mask", "reaches"].map(str::to_owned);
                let backings = reach.pages.iter().map(|row| format_arg(row.backing_bytes));
                rows.push(heads.into_iter().chain(backings).collect::<Vec<_>>());
            }
            let run = if window.used { ", this run's" } else { "" };
            let reached = match reach.bytes {
                0 => "nothing".to_owned(),
                bytes => format_size(bytes),
            };
            let pages = reach.pages.iter().map(|row| {
                let sizes: Vec<_> = row.iommu_pages.iter().map(|p| format_arg(*p)).collect();
                if sizes.is_empty() { "–".to_owned() } else { sizes.join(",") }
            });
            let bits = format!("{} bits", reach.mask_bits);
            let start = format!("{:#x}{run}", window.start);
            rows.push([start, bits, reached].into_iter().chain(pages).collect());
        }
    }
    table(out, &rows, style);
    for window in windows {
        if let Some(free) = window.free_bytes.filter(|free| *free < window.bytes) {
            let end = window.start + free;
            let _ = writeln!(
                out,
                "the window at {:#x} is larger than what the bus leaves it: addresses from {end:#x} to \
                 0xffffffff are the devices' own",
                window.start
            );
        }
    }
}
