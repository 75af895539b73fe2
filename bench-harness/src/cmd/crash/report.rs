// SPDX-License-Identifier: Apache-2.0 OR MIT

use super::result::{Doc, Kill};
use super::victims::list;
use crate::size::format_size;
use crate::style::{Style, thousands, time_ns};

/// A line of the log.
pub(super) fn line(kill: &Kill) -> String {
    let on = match kill.groups.as_slice() {
        [] => String::new(),
        groups => format!(" on {}", list(groups)),
    };
    let free = kill
        .release_ns
        .map_or_else(String::new, |ns| format!(", groups free after {}", time_ns(ns as f64)));
    format!(
        "{:4} {}{on}: {} (at {}, {} locked), gone after {}{free}, fresh run verified\n",
        kill.round,
        kill.victim,
        kill.moment,
        kill.at,
        format_size(kill.locked_bytes),
        time_ns(kill.reap_ns as f64),
    )
}

pub(super) fn table(doc: &Doc, style: Style) -> String {
    let mut out = format!("\ncrash: {}\n", doc.label);
    if let Some(machine) = &doc.machine {
        out += &format!("{machine}\n");
    }
    out += &format!(
        "{} of {} rounds, seed {}; {} victims had ended before their moment\n",
        doc.rounds, doc.config.rounds, doc.run.seed, doc.ended_before
    );
    for (what, counts) in [("killed at", &doc.kills_at), ("killed", &doc.kills_of)] {
        let counts: Vec<_> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
        out += &format!("{what}: {}\n", counts.join(" · "));
    }
    let longest = &doc.longest;
    out += &format!("longest: gone {}", time_ns(longest.reap_ns as f64));
    if let Some(release) = longest.release_ns {
        out += &format!(
            ", groups free {} after that, pins and books settled {}",
            time_ns(release as f64),
            time_ns(longest.settle_ns as f64)
        );
    }
    let beside = &doc.bystander;
    out += &format!(
        "\nthe bystander: {} locked after each, {} turns, {} maps and unmaps; compared: {} translations, {} \
         entries of the mirror",
        format_size(beside.locked_bytes),
        thousands(beside.turns),
        thousands(beside.calls),
        thousands(beside.translations),
        thousands(beside.mirror_entries)
    );
    if let Some(dma) = &beside.dma {
        let (pages, unmapped) = (thousands(dma.pages), thousands(dma.unmapped));
        out += &format!(", {pages} pages by DMA, {unmapped} out of its reach");
    }
    out += &format!(
        "\ntemporary files left: {}, all taken away by the next run\n",
        doc.temporary_files
    );
    for warning in &doc.warnings {
        out += &format!("{} {}\n", style.yellow("warning"), warning.text);
    }
    for failure in &doc.failures {
        out += &format!("{} round {}: {}\n", style.red("wrong"), failure.round, failure.what);
    }
    out += &style.verified(doc.verified);
    out.push('\n');
    out
}
