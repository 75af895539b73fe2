// SPDX-License-Identifier: Apache-2.0 OR MIT

use std::time::Duration;

use super::*;

fn config(windows: &[u64]) -> TeardownConfig {
    TeardownConfig {
        windows: windows.to_vec(),
        levels: vec![1, 2, 3],
        members: vec![1, 3],
        live: 64,
        rounds: 3,
        threads: 2,
        calm: Duration::from_millis(1),
        json: None,
        quiet: true,
    }
}

#[test]
fn windows_go_and_nothing_is_left() {
    let config = config(&[1 << 30, 1 << 40]);
    let cases: Vec<_> = cases(&config).collect();
    // A table of 1 TiB has no block of one level's size.
    assert_eq!(cases.len(), 2 * 3 + 2 * 2);
    for case in cases {
        let row = measure(&config, case).unwrap();
        assert!(row.verified && row.rounds == 3, "{row:?}");
        assert!(row.calm.min.is_some() && row.removal.min.is_some(), "{row:?}");
    }
}

#[test]
fn a_call_is_counted_under_all_that_it_met() {
    let mut peer = Peer::new();
    let step = |round: u64, phase: Phase| 4 * round + phase as u64;
    // From calm to after the removal: it waited for both.
    peer.record(step(1, Phase::Calm)..=step(2, Phase::Prepare), 7);
    peer.record(step(1, Phase::Detach)..=step(1, Phase::Detach), 5);
    peer.record(step(1, Phase::Calm)..=step(1, Phase::Calm), 3);
    peer.record(step(1, Phase::Removal)..=step(1, Phase::Removal), 2);
    let calls = Phase::ALL.map(|phase| peer.of(phase).samples());
    assert_eq!(calls, [1, 1, 2, 2]);
}
