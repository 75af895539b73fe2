// SPDX-License-Identifier: Apache-2.0 OR MIT

use super::*;
use crate::cmd::soak::model::Mistake;

const MISTAKES: [Mistake; 10] = [
    Mistake::CountTwice,
    Mistake::KeepUnmapped,
    Mistake::KeepReplaced,
    Mistake::WriteOnly,
    Mistake::QuietFills,
    Mistake::FreeTables,
    Mistake::NobodyLeaves,
    Mistake::RefusedMaps,
    Mistake::GiveMappedBack,
    Mistake::GiveTwice,
];

fn episode(machine: &str, policy: KillPolicy, calls: u64) -> Episode {
    let machine = Machine::find(machine).unwrap();
    Episode { machine, policy, shared: false, threads: vec![(11, calls)], mistake: None }
}

fn config(operations: u64, guest: bool) -> SoakConfig {
    SoakConfig {
        operations,
        threads: vec![1, 2],
        policies: ["strict", "batched", "deferred=64", "deferred=3"]
            .map(|p| p.parse().unwrap())
            .into(),
        machines: Machine::ALL.into(),
        guest,
        seed: 5,
        json: None,
        label: None,
        quiet: true,
    }
}

/// All rows of a run.
fn rows(config: &SoakConfig) -> Vec<Row> {
    let plans = plans(config);
    let hidden = indicatif::ProgressBar::hidden();
    let rows = plans.iter().zip(0..);
    rows.map(|(plan, nth)| row(config, plan, nth, plans.len() as u64, &hidden)).collect()
}

#[test]
fn the_engine_does_what_the_model_says() {
    let rows = rows(&config(160_000, false));
    assert_eq!(rows.len(), 4 * 3);
    for row in &rows {
        assert!(row.verified, "{row:#?}");
    }
    assert_eq!(rows.iter().map(|row| row.calls).sum::<u64>(), 160_000);
    let refused: u64 = rows.iter().map(|row| row.refused).sum();
    assert!((1_600..32_000).contains(&refused), "{refused}");
}

#[test]
fn every_machine_does_what_the_model_says() {
    for machine in Machine::ALL {
        let (counts, found) =
            api::run(&episode(machine.name, KillPolicy::Strict, 6_000), &mut Took::new());
        assert!(found.is_none(), "{}: {found:#?}", machine.name);
        assert_eq!(counts.calls, 6_000);
    }
}

#[test]
fn a_hostile_guest_hurts_nobody() {
    for row in rows(&config(100_000, true)) {
        assert!(row.verified, "{row:#?}");
        let guest = row.guest.unwrap();
        assert!(row.calls > row.refused && guest.turns_of_others() > 0, "{row:#?}");
    }
}

/// A check that cannot fail proves nothing.
#[test]
fn a_mistake_of_the_model_is_a_difference() {
    for mistake in MISTAKES {
        let policy = KillPolicy::Strict;
        let wrong = Episode { mistake: Some(mistake), ..episode("phb3-4k", policy, 20_000) };
        let (_, found) = api::run(&wrong, &mut Took::new());
        let found = found.unwrap_or_else(|| panic!("{mistake:?} was not noticed"));
        // The same seed and number of calls lead there again, and few calls do, too.
        let again = Episode { threads: vec![(11, found.number)], ..wrong.clone() };
        let (_, second) = api::run(&again, &mut Took::new());
        let second = second.map(|found| found.wrong);
        assert_eq!(second, Some(found.wrong.clone()), "{mistake:?}");
    }
}

#[test]
fn a_difference_is_brought_down_to_few_calls() {
    let mistake = Some(Mistake::KeepReplaced);
    let wrong = Episode { mistake, ..episode("phb3-4k", KillPolicy::Strict, 20_000) };
    let (_, found) = api::run(&wrong, &mut Took::new());
    let found = found.unwrap();
    let least = shrink::shrink(&wrong, (found.seed, found.number), &found.wrong);
    // A group, a window, a region, a map and one that replaces it.
    assert!((4..=8).contains(&least.len()), "{found:#?}: {least:#?}");
}

#[test]
fn seeds_of_threads_differ_and_the_first_is_the_users() {
    assert_eq!(seed_of(7, 0, 0, 0), 7);
    let all = (0..3).flat_map(|row| (0..3).flat_map(move |e| (0..3).map(move |t| (row, e, t))));
    let mut seeds: Vec<_> = all.map(|(row, e, t)| seed_of(7, row, e, t)).collect();
    seeds.sort_unstable();
    seeds.dedup();
    assert_eq!(seeds.len(), 27);
}

/// Without its guard the engine differs from the model.
#[cfg(feature = "sabotage")]
#[test]
fn a_guard_that_is_taken_away_is_missed() {
    use tce_engine::sabotage::{Guard, without};
    let guards =
        [Guard::Mapped, Guard::Overlap, Guard::ExactStart, Guard::KillFill, Guard::Members];
    for guard in guards {
        let episode = episode("phb3-4k", KillPolicy::Strict, 100_000);
        let (_, found) = without(guard, || api::run(&episode, &mut Took::new()));
        assert!(found.is_some(), "{guard:?} was not missed");
    }
}
