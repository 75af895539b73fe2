// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What each further group of a container costs: attaching it, and killing in it.

use std::fmt::Write;

use tce_engine::{
    Container, Engine, EngineOptions, GroupId, MockBuilder, Mode, PageShift, Perm, WindowSpec,
};

use super::common::rig::{BUFFER, PAGE};
use super::common::stepper::{between_breakpoints, count};

/// A group of many may cost so many times what one of two costs.
const FACTOR: f64 = 1.2;
const FEW: u32 = 2;
const MANY: u32 = 64;

#[derive(Clone, Copy)]
enum Work {
    Attach,
    Pair,
    Detach,
}

const ALL: [(Work, &str); 3] =
    [(Work::Attach, "attach"), (Work::Pair, "map + unmap of one page"), (Work::Detach, "detach")];

/// Does the work `NAME/GROUPS` of a traced child, if it is one of these.
pub(crate) fn child(what: &str) -> bool {
    let Some((name, groups)) = what.split_once('/') else { return false };
    let found = ALL.iter().find(|(_, known)| *known == name);
    let (work, _) = found.expect("a name that the parent knows");
    run(*work, groups.parse().expect("a number"));
    true
}

fn run(work: Work, groups: u32) {
    // As many groups on the machine, whatever is counted.
    let engine = Engine::new(MockBuilder::new(256).build(), EngineOptions::default());
    let container = engine.container();
    let attach = |container: &Container, n: u32| {
        container.attach(GroupId(n)).expect("the mock has this group");
    };
    attach(&container, groups);
    let spec = WindowSpec::new(2 << 30, PageShift::K4).levels(2);
    let at = container.create_window(spec).expect("a shape that the mock has").start;
    container.register(BUFFER, 1 << 20).expect("no limit is set");
    let pair = || {
        container.map(at, BUFFER, PAGE, Perm::READ_WRITE, Mode::Refuse).expect("it is empty");
        container.unmap(at, PAGE).expect("it is mapped");
    };
    // Once, so that its leaf exists.
    pair();
    match work {
        Work::Attach => between_breakpoints(|| (0..groups).for_each(|n| attach(&container, n))),
        Work::Pair => {
            (1..groups).for_each(|n| attach(&container, n));
            between_breakpoints(pair);
        }
        Work::Detach => {
            (0..groups).for_each(|n| attach(&container, n));
            between_breakpoints(|| {
                for n in 0..groups {
                    container.detach(GroupId(n)).expect("a member");
                }
            });
        }
    }
}

/// Writes the lines; how many are over their budget.
pub(crate) fn measure(text: &mut String) -> Result<u32, String> {
    let mut over = 0;
    let _ = writeln!(
        text,
        "\nfor each group of a container, instructions{:>12}{:>10}{:>10}{:>10}",
        format!("of {FEW}"),
        format!("of {MANY}"),
        "ratio",
        "at most"
    );
    for (_, name) in ALL {
        let each = |groups: u32| -> Result<f64, String> {
            Ok(count(&format!("{name}/{groups}"))?.instructions as f64 / f64::from(groups))
        };
        let (few, many) = (each(FEW)?, each(MANY)?);
        let ratio = many / few;
        let mark = if ratio <= FACTOR { "" } else { "   OVER BUDGET" };
        over += u32::from(ratio > FACTOR);
        let _ =
            writeln!(text, "{name:<43}{few:>12.0}{many:>10.0}{ratio:>10.2}{FACTOR:>10.2}{mark}");
    }
    Ok(over)
}
