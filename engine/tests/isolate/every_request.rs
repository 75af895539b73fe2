// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A container each: every request that any step makes fails once.

use tce_engine::addr::{Ioba, Uaddr};
use tce_engine::container::{Mode, Removal};
use tce_engine::engine::DetachPolicy;
use tce_engine::tce::Perm;

use super::{A, B, BYTES, G0, G1, G2, PAGE, Rig, for_all};

type Step = fn(&mut Rig) -> Result<(), String>;

/// Everything that can be asked of a container of three groups, and what each step changes if it is
/// done.
const STEPS: [Step; 12] = [
    |rig| rig.c.attach(G1).map(drop).map_err(|e| e.to_string()),
    |rig| try_map(rig, 2 << 20, A, 20),
    |rig| rig.c.attach(G2).map(drop).map_err(|e| e.to_string()),
    // Over what is live, in part; two regions and hence several requests.
    |rig| {
        let list = [A, B, Uaddr(A.0 + PAGE), Uaddr(B.0 + 9 * PAGE)];
        let done = rig.c.map_list(Ioba((2 << 20) + 18 * PAGE), &list, Perm::READ, Mode::Replace);
        done.map_err(|e| e.to_string())?;
        for (page, memory) in list.into_iter().enumerate() {
            rig.mapped((2 << 20) + (18 + page as u64) * PAGE, memory, 1);
        }
        Ok(())
    },
    |rig| {
        rig.c.unmap(Ioba(0), 30 * PAGE).map_err(|e| e.to_string())?;
        rig.model.retain(|at, _| *at >= 30 * PAGE);
        Ok(())
    },
    |rig| rig.c.register(Uaddr(B.0 + BYTES), BYTES).map_err(|e| e.to_string()),
    |rig| {
        if rig.kernel.platform().shares_tables() {
            rig.c.create_window(rig.window()).map_err(|e| e.to_string())?;
        }
        Ok(())
    },
    |rig| rig.c.detach(G1).map(drop).map_err(|e| e.to_string()),
    // The first window goes, so who comes then has the second alone.
    |rig| {
        if rig.kernel.platform().shares_tables() {
            rig.c.remove_window(Ioba(0), Removal::Force).map_err(|e| e.to_string())?;
            rig.model.clear();
        }
        Ok(())
    },
    |rig| {
        let window = rig.c.windows()[0].start.0;
        try_map(rig, window + (5 << 20), B, 10)
    },
    |rig| rig.c.attach(G1).map(drop).map_err(|e| e.to_string()),
    |rig| rig.c.detach(G0).map(drop).map_err(|e| e.to_string()),
];

fn try_map(rig: &mut Rig, at: u64, memory: Uaddr, pages: u64) -> Result<(), String> {
    let done = rig.c.map(Ioba(at), memory, pages * PAGE, Perm::READ_WRITE, Mode::Refuse);
    done.map_err(|e| e.to_string())?;
    rig.mapped(at, memory, pages);
    Ok(())
}

/// Each request of each step fails once: the step then is refused, changes nothing, and goes through
/// the next time.
#[test]
fn a_failure_of_any_request_changes_nothing() {
    for_all(|profile| {
        let mut failures = 0;
        for nth in 1.. {
            let mut rig = Rig::new(profile, DetachPolicy::Isolate);
            rig.begin();
            rig.flaky.fail(nth);
            let mut refused = 0;
            for step in STEPS {
                let before = (rig.c.groups(), rig.c.windows(), rig.c.regions());
                if let Err(e) = step(&mut rig) {
                    refused += 1;
                    assert!(e.contains("ENOMEM"), "{e}");
                    rig.check();
                    assert_eq!((rig.c.groups(), rig.c.windows(), rig.c.regions()), before);
                    let (start, pages) = (rig.c.windows()[0].start, 600);
                    rig.check_pages(start, pages);
                    step(&mut rig).unwrap();
                }
                rig.check();
            }
            assert_eq!(rig.c.groups(), [G2, G1]);
            failures += refused;
            if rig.flaky.relent() {
                assert_eq!(refused, 0);
                break;
            }
        }
        // Most of them: what leaves is not stopped by an answer.
        assert!(failures > 40, "{failures}");
    });
}
