// SPDX-License-Identifier: Apache-2.0 OR MIT

use super::*;

fn lived(id: &str, profile: Profile, actor: Actor) -> Lived {
    let trap = TRAPS.iter().find(|trap| trap.id == id).expect("a trap of this name");
    live(trap, profile, actor)
}

#[test]
fn the_engine_comes_to_no_harm_that_it_does_not_explain() {
    for trap in TRAPS {
        for profile in Profile::ALL {
            let lived = live(trap, profile, Actor::Engine);
            let well = lived.harm.none() || trap.helpless.is_some();
            assert!(well, "{} on {}: {lived:?}", trap.id, profile.name);
        }
    }
}

/// A trap that no kernel has would prove nothing.
#[test]
fn somebody_naive_falls_into_each_trap() {
    for trap in TRAPS {
        let harmed = |profile: &Profile| !live(trap, *profile, Actor::Naive).harm.none();
        assert!(Profile::ALL.iter().any(harmed), "{}", trap.id);
    }
}

#[test]
fn what_todays_kernel_does_to_the_naive() {
    let harm = |id| lived(id, Profile::K6_11, Actor::Naive).harm;
    assert_eq!(harm("detach"), Harm { lost: 4, ..Harm::default() });
    // 1 MiB in pages of 64K and three levels: three pages for each of the two trees.
    assert_eq!(harm("failed-create"), Harm { leaked_bytes: 6 << 16, ..Harm::default() });
    assert_eq!(harm("no-level"), Harm { hung: 1, ..Harm::default() });
    assert_eq!(harm("misaligned"), Harm { lost: 1, ..Harm::default() });
    assert_eq!(harm("unregister-mapped").exposed, 4);
    assert_eq!(harm("map-past-end").corrupted, 1);
    assert_eq!(harm("reset-all"), Harm { disturbed: 1, ..Harm::default() });
    assert_eq!(harm("half-reset"), Harm { disturbed: 1, misled: 1, ..Harm::default() });
}

/// Whole traps only, and never verified.
#[test]
fn an_interrupt_leaves_the_traps_so_far() {
    let config = HazardsConfig {
        profiles: vec![Profile::K4_9, Profile::K6_11],
        traps: vec!["detach".to_owned(), "closed".to_owned()],
        json: None,
        quiet: true,
    };
    // Asked before each kernel's turn, and in the end.
    for (turns, traps, complete) in [(0, 0, false), (1, 0, false), (3, 1, false), (5, 2, true)] {
        let asked = std::cell::Cell::new(0);
        let over = || {
            asked.set(asked.get() + 1);
            asked.get() > turns
        };
        let mut doc = empty(Vec::new());
        play(&config, &mut doc, over);
        assert_eq!((doc.traps.len(), doc.run.complete), (traps, complete), "{turns}");
        assert_eq!(doc.verified, complete, "{turns}");
        let text = report::table(&doc, Style::new(false));
        assert_eq!(text.contains("interrupted"), !complete, "{text}");
    }
}

/// Without its guard the engine is no better off than the naive.
#[cfg(feature = "sabotage")]
#[test]
fn a_guard_that_is_taken_away_is_missed() {
    use tce_engine::sabotage::{Guard, without};
    let trap_of = |guard| match guard {
        Guard::Mapped => "unregister-mapped",
        Guard::Replay => "detach",
        Guard::PutBack => "no-memory-replace",
        Guard::Overlap => "silent-replace",
        Guard::ExactStart => "remove-inside",
        Guard::FirstLeaf => "no-level",
        Guard::SameStarts => "other-segment",
        Guard::Hole => "hole",
        other => panic!("{other:?} guards against no trap of a kernel"),
    };
    for guard in Guard::TRAPS {
        let id = trap_of(guard);
        let with = lived(id, Profile::K6_11, Actor::Engine);
        assert!(with.harm.none(), "{id}: {with:?}");
        let without = without(guard, || lived(id, Profile::K6_11, Actor::Engine));
        assert!(!without.harm.none(), "{id} without {guard:?}: {without:?}");
    }
}
