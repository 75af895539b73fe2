// SPDX-License-Identifier: Apache-2.0 OR MIT

use super::result::Doc;
use crate::columns;
use crate::size::{format_arg, format_size};
use crate::style::{Style, thousands, time_or_dash};

pub(super) fn table(doc: &Doc, style: Style) -> String {
    let (config, rounds) = (&doc.config, &doc.rounds);
    let [first, second] = config.groups;
    let mut out = format!("churn: {}\n", doc.label);
    if let Some(machine) = &doc.machine {
        out += &format!("{machine}\n");
    }
    out += &format!(
        "group {second} joins and leaves group {first} ({}), a window of {} pages of {}, {} of them \
         standing\n\n",
        config.detach,
        thousands(config.pages),
        format_arg(1 << config.page_shift),
        thousands(config.standing),
    );
    let heads = ["", "calls", "mean", "p50", "p90", "p99", "longest"].map(str::to_owned).to_vec();
    let rows = doc.results.iter().map(|result| {
        let (summary, p) = (&result.latency, &result.latency.p);
        let times = [summary.mean, p.p50, p.p90, p.p99, summary.max].map(time_or_dash);
        let cells = [result.id.clone(), thousands(result.count)];
        cells.into_iter().chain(times).collect()
    });
    columns::table(&mut out, &std::iter::once(heads).chain(rows).collect::<Vec<_>>(), style);
    out += "\nalone, member: while the second group is none or one; attach, detach: calls that met it\n";
    out += &format!(
        "{} of {} rounds; {} attached, {} detached",
        rounds.done, config.rounds, rounds.attached, rounds.detached
    );
    for (what, refused) in [("attach", rounds.attach_refused), ("detach", rounds.detach_refused)] {
        if refused > 0 {
            out += &format!(", {what} refused {refused} times");
        }
    }
    out.push('\n');
    if let Some(text) = &rounds.refusal {
        out += &format!("refused as documented: {text}\n");
    }
    if doc.replay.pauses > 0 {
        out += &format!(
            "replayed {} entries by {} requests in {} detaches, during each of which the devices of \
             group {first} have to be still\n",
            thousands(doc.replay.entries),
            thousands(doc.replay.ioctls),
            thousands(doc.replay.pauses)
        );
    }
    let checked = &doc.verification;
    out += &format!(
        "compared: {} translations, {} entries of the mirror",
        thousands(checked.translations),
        thousands(checked.mirror_entries)
    );
    if let Some(dma) = &checked.dma {
        let (pages, unmapped) = (thousands(dma.pages), thousands(dma.unmapped));
        out += &format!(", {pages} pages by DMA, {unmapped} out of its reach");
    }
    out.push('\n');
    let show = |bytes: Option<u64>| bytes.map_or_else(|| "–".to_owned(), format_size);
    let locked = &doc.locked;
    out += &format!(
        "charged: {} alone, {} with both; ",
        show(locked.alone_bytes),
        show(locked.shared_bytes)
    );
    out += &locked.first_change.clone().unwrap_or_else(|| "the same in every round".to_owned());
    if let Some(books) = &checked.books {
        let times = books.comparisons;
        out += &match &books.first_difference {
            None => format!(", and locked (VmLck) after all {times} steps"),
            Some(text) => format!("; {text}"),
        };
    }
    out += &format!(
        "\nlost {}, stray {}, reached from outside {}\n",
        doc.lost, doc.stray, doc.reached
    );
    for warning in &doc.warnings {
        out += &format!("{} {}\n", style.yellow("warning"), warning.text);
    }
    if let Some(text) = &doc.first_difference {
        out += &format!("{} {text}\n", style.red("wrong"));
    }
    out += &style.verified(doc.verified);
    out.push('\n');
    out
}
