use std::time::Duration;

use proptest::prelude::*;
use reputation::config::{MAX_FACTS, RELIABILITY_HALF_LIFE};
use reputation::evidence::Subject;
use reputation::reliability::{Input, PRIOR, Reliability};
use reputation::{Config, Evidence};

use crate::common::{WALL_MS, hours, peer, start, stranger};

fn saw(peer: libp2p::PeerId, evidence: Evidence) -> Input {
    Input::Saw { peer, evidence, at_ms: WALL_MS }
}

proptest! {
    #[test]
    fn every_sequence_stays_in_bounds_and_each_step_goes_its_way(
        steps in prop::collection::vec((0..Evidence::ALL.len(), 0_u64..200_000), 1..300),
    ) {
        let (mut core, mut now, peer) = (Reliability::new(&Config::default()), start(), peer(1));
        for (index, seconds) in steps {
            now += Duration::from_secs(seconds);
            let (evidence, before) = (Evidence::ALL[index], core.value(&peer, now));
            core.handle_input(saw(peer, evidence), now);
            let after = core.value(&peer, now);
            prop_assert!((0.0..=1.0).contains(&after));
            let (low, high) = if evidence.is_success() { (before, after) } else { (after, before) };
            prop_assert!(low <= high);
            prop_assert!(core.facts(&peer).count() <= MAX_FACTS);
        }
    }

    #[test]
    fn time_alone_leads_to_the_prior_and_never_past_it(
        steps in prop::collection::vec(0..Evidence::ALL.len(), 1..50), passes in prop::collection::vec(0_u64..500_000, 1..20),
    ) {
        let (mut core, mut now, peer) = (Reliability::new(&Config::default()), start(), peer(1));
        steps.iter().for_each(|&index| core.handle_input(saw(peer, Evidence::ALL[index]), now));
        for seconds in passes {
            for subject in Subject::ALL {
                let before = core.value_of(&peer, subject, now) - PRIOR;
                let after = core.value_of(&peer, subject, now + Duration::from_secs(seconds)) - PRIOR;
                prop_assert!(before * after >= 0.0 && after.abs() <= before.abs());
            }
            now += Duration::from_secs(seconds);
        }
    }
}

#[test]
fn shares_are_one_whole() {
    let sum: f64 = Subject::ALL.iter().map(|subject| subject.weight()).sum();
    assert!((sum - 1.0).abs() < 1e-9);
    for evidence in Evidence::ALL {
        assert!(evidence.gain() > 0.0 && evidence.gain() < 1.0, "{evidence:?}");
        assert_eq!(Subject::ALL[evidence.subject() as usize], evidence.subject());
    }
}

#[test]
fn a_stranger_stands_between_those_that_served_and_those_that_failed() {
    let (mut core, now) = (Reliability::new(&Config::default()), start());
    core.handle_input(saw(peer(1), Evidence::DialOk), now);
    core.handle_input(saw(peer(2), Evidence::DialFailed), now);
    let [good, bad, stranger] = [1, 2, 3].map(|seed| core.value(&peer(seed), now));
    assert!(good > stranger && stranger > bad);
    assert_eq!(stranger, PRIOR);
}

#[test]
fn it_reaches_nearly_both_ends() {
    let (mut core, now) = (Reliability::new(&Config::default()), start());
    for _ in 0..200 {
        for evidence in Evidence::ALL {
            core.handle_input(saw(if evidence.is_success() { peer(1) } else { peer(2) }, evidence), now);
        }
    }
    assert!(core.value(&peer(1), now) > 0.99 && core.value(&peer(2), now) < 0.01);
}

#[test]
fn probes_do_not_hide_that_transfers_fail() {
    let (mut core, now) = (Reliability::new(&Config::default()), start());
    for _ in 0..20 {
        core.handle_input(saw(peer(1), Evidence::TransferFailed), now);
    }
    for _ in 0..10_000 {
        core.handle_input(saw(peer(1), Evidence::ProbeAnswered), now);
    }
    assert!(core.value_of(&peer(1), Subject::Transfer, now) < 0.01);
    let honest = PRIOR + 0.5 * Subject::Probe.weight();
    assert!(core.value(&peer(1), now) < honest - 0.09);
}

#[test]
fn half_of_the_way_back_takes_the_half_life() {
    let (mut core, now) = (Reliability::new(&Config::default()), start());
    core.handle_input(saw(peer(1), Evidence::DialOk), now);
    let gained = core.value(&peer(1), now) - PRIOR;
    let left = core.value(&peer(1), now + RELIABILITY_HALF_LIFE) - PRIOR;
    assert!((left - gained / 2.0).abs() < 1e-9);
}

#[test]
fn a_crowd_of_strangers_does_not_push_out_whom_we_know() {
    let (mut core, now) = (Reliability::new(&Config { max_peers: 64, ..Config::default() }), start());
    for _ in 0..20 {
        core.handle_input(saw(peer(1), Evidence::TransferCompleted), now);
        core.handle_input(saw(peer(2), Evidence::TransferFailed), now);
    }
    let before = [1, 2].map(|seed| core.value(&peer(seed), now));
    for number in 0..10_000 {
        core.handle_input(saw(stranger(number), Evidence::DialOk), now);
        assert!(core.len() <= 64);
    }
    assert_eq!([1, 2].map(|seed| core.value(&peer(seed), now)), before);
    let changed = core.take_changed();
    assert!(changed.contains(&stranger(0)) && !core.knows(&stranger(0)), "it is told who is forgotten");
}

#[test]
fn what_repeats_is_one_fact_and_what_differs_is_another() {
    let (mut core, now) = (Reliability::new(&Config::default()), start());
    let mut tell = |evidence, at_ms| core.handle_input(Input::Saw { peer: peer(1), evidence, at_ms }, now + hours(1));
    for step in 0..100 {
        tell(Evidence::ProbeAnswered, step);
        tell(Evidence::MessageDelivered, step);
    }
    tell(Evidence::ProbeMissed, 200);
    tell(Evidence::ProbeAnswered, 300);
    let facts = core.facts(&peer(1)).cloned().collect::<Vec<_>>();
    let short =
        facts.iter().map(|fact| (fact.what.as_str(), fact.count, fact.since_ms, fact.at_ms)).collect::<Vec<_>>();
    let expected = [
        ("probe-answered", 100, 0, 99),
        ("message-delivered", 100, 0, 99),
        ("probe-missed", 1, 200, 200),
        ("probe-answered", 1, 300, 300),
    ];
    assert_eq!(short, expected);
    let moved: f64 = facts.iter().map(|fact| fact.effect).sum();
    assert!((PRIOR + moved - core.value(&peer(1), now + hours(1))).abs() < 1e-9, "the facts explain the number");
}
