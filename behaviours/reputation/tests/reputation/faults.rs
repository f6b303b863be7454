use std::time::{Duration, Instant};

use libp2p::PeerId;
use proptest::prelude::*;
use reputation::config::{FAULT_HALF_LIFE, FIRST_CUT, LONGEST_CUT, MAX_FACTS};
use reputation::faults::{Faults, Input, MAX_SCORE, Output, SCORE_AFTER_CUT, State};
use reputation::penalties::{CUT_AT, Class, TABLE};
use reputation::{Config, Number};

use crate::common::{WALL_MS, hours, minutes, peer, start, stranger};

fn core() -> Faults {
    Faults::new(&Config::default(), 7)
}

fn fault(core: &mut Faults, peer: PeerId, kind: &str, now: Instant) -> Vec<Output> {
    core.handle_input(Input::Fault { peer, kind: kind.to_owned(), at_ms: WALL_MS }, now);
    drain(core)
}

fn drain(core: &mut Faults) -> Vec<Output> {
    std::iter::from_fn(|| core.poll_output()).collect()
}

fn of_class(class: Class) -> &'static str {
    TABLE.iter().find(|row| row.class == class).unwrap().kind
}

/// How many of a kind at one moment lead to a cut.
fn until_cut(kind: &str, gap: Duration) -> Option<u32> {
    let (mut core, mut now) = (core(), start());
    (1..=1_000).find(|_| {
        now += gap;
        !fault(&mut core, peer(1), kind, now).is_empty()
    })
}

proptest! {
    #[test]
    fn every_sequence_stays_in_bounds_and_cuts_alternate_with_their_ends(
        steps in prop::collection::vec((0..TABLE.len() + 3, 0_u64..3_000), 1..300), seed in any::<u64>(),
    ) {
        let (mut core, mut now, peer) = (Faults::new(&Config::default(), seed), start(), peer(1));
        let mut cut = false;
        for (index, seconds) in steps {
            now += Duration::from_secs(seconds);
            let outputs = match TABLE.get(index) {
                Some(row) => fault(&mut core, peer, row.kind, now),
                None if index == TABLE.len() => fault(&mut core, peer, "never-heard-of", now),
                None if index == TABLE.len() + 1 => {
                    core.handle_input(Input::Pardon { peer, at_ms: WALL_MS }, now);
                    prop_assert_eq!(core.score(&peer, now), 0.0);
                    drain(&mut core)
                }
                None => {
                    core.handle_timeout(now);
                    drain(&mut core)
                }
            };
            for output in outputs {
                prop_assert_eq!(cut, matches!(output, Output::Readmitted { .. }));
                cut = !cut;
            }
            prop_assert_eq!(core.is_cut(&peer), cut);
            prop_assert_eq!(core.poll_timeout().is_some(), cut);
            prop_assert!(core.poll_timeout().is_none_or(|until| until > now && until <= now + LONGEST_CUT));
            let score = core.score(&peer, now);
            prop_assert!((0.0..=MAX_SCORE).contains(&score) && (cut || score < CUT_AT));
            prop_assert!(core.facts(&peer).count() <= MAX_FACTS);
        }
    }

    /// What the README promises: fewer than half of the tolerated number in each half-life, whenever they come.
    #[test]
    fn fewer_than_half_of_the_tolerated_number_in_each_half_life_are_never_cut(
        class in prop::sample::select(vec![Class::Severe, Class::Mild]),
        at in prop::collection::vec(0_u64..FAULT_HALF_LIFE.as_secs(), 9), windows in 1_u32..60, late in any::<bool>(),
    ) {
        let allowed = (class.tolerated().unwrap() as usize - 1) / 2;
        let (mut core, began, peer) = (core(), start(), peer(1));
        let mut offsets = at[..allowed].to_vec();
        if late {
            // The worst there is: all of them at once.
            offsets.fill(FAULT_HALF_LIFE.as_secs() / 2);
        }
        offsets.sort_unstable();
        for window in 0..windows {
            for &offset in &offsets {
                // The same moments in each window, so that no span of a half-life holds more than are allowed.
                let now = began + FAULT_HALF_LIFE * window + Duration::from_secs(offset);
                prop_assert_eq!(fault(&mut core, peer, of_class(class), now), vec![]);
            }
        }
    }

    #[test]
    fn what_costs_nothing_costs_nothing_at_any_rate(gaps in prop::collection::vec(0_u64..100, 1..200)) {
        let (mut core, mut now) = (core(), start());
        for (step, gap) in gaps.into_iter().enumerate() {
            now += Duration::from_millis(gap);
            let noted = TABLE.iter().filter(|row| row.class == Class::Noted).collect::<Vec<_>>();
            prop_assert_eq!(fault(&mut core, peer(1), noted[step % noted.len()].kind, now), vec![]);
            prop_assert_eq!(core.score(&peer(1), now), 0.0);
        }
    }
}

#[test]
fn about_so_many_are_tolerated_as_the_table_says() {
    for row in TABLE {
        let needed = until_cut(row.kind, Duration::ZERO.max(row.gap()));
        match row.class.tolerated() {
            None => assert_eq!(needed, None, "{}", row.kind),
            Some(_) if row.once_in >= 60 => assert_eq!(needed, None, "{}", row.kind),
            Some(tolerated) if row.once_in == 0 => assert_eq!(needed, Some(tolerated), "{}", row.kind),
            // Time passes between them, in which something is forgotten.
            Some(tolerated) => assert!((tolerated..2 * tolerated).contains(&needed.unwrap()), "{}", row.kind),
        }
    }
    assert_eq!(until_cut("never-heard-of", Duration::ZERO), Class::Mild.tolerated());
}

#[test]
fn a_burst_of_too_much_counts_once() {
    let (mut core, now) = (core(), start());
    for _ in 0..10_000 {
        assert_eq!(fault(&mut core, peer(1), "flood", now), []);
    }
    assert_eq!(core.score(&peer(1), now), Class::Trifle.points());
    assert_eq!(core.facts(&peer(1)).map(|fact| fact.count).collect::<Vec<_>>(), [10_000]);
}

#[test]
fn a_flood_without_end_is_cut_but_not_within_ten_minutes() {
    let (mut core, began) = (core(), start());
    let cut = (0..3_600).find(|&second| {
        let now = began + Duration::from_secs(second);
        !fault(&mut core, peer(1), "flood", now).is_empty()
    });
    assert!((600..1_800).contains(&cut.unwrap()), "{cut:?} s");
}

#[test]
fn a_cut_ends_and_half_of_the_tolerance_is_left() {
    let (mut core, now) = (core(), start());
    let outputs = fault(&mut core, peer(1), "equivocation", now);
    let [Output::Cut { peer: who, until_ms, kind }] = outputs.as_slice() else { panic!("{outputs:?}") };
    assert_eq!((*who, kind.as_str()), (peer(1), "equivocation"));
    let until = core.poll_timeout().unwrap();
    let lasts = until - now;
    assert!(lasts <= FIRST_CUT && lasts >= FIRST_CUT * 9 / 10);
    assert_eq!(*until_ms, WALL_MS + lasts.as_micros().div_ceil(1_000) as u64);

    core.handle_timeout(until - Duration::from_millis(1));
    assert_eq!(drain(&mut core), []);
    assert!(core.is_cut(&peer(1)));
    core.handle_timeout(until);
    assert_eq!(drain(&mut core), [Output::Readmitted { peer: peer(1) }]);
    assert!(!core.is_cut(&peer(1)));
    assert_eq!(core.score(&peer(1), until), SCORE_AFTER_CUT);
    let words = core.facts(&peer(1)).map(|fact| (fact.what.clone(), fact.number)).collect::<Vec<_>>();
    assert_eq!(words, ["equivocation", "cut", "readmitted"].map(|word| (word.to_owned(), Number::Faults)));

    // It recovers.
    assert!(core.score(&peer(1), until + hours(5)) < 0.1);
}

#[test]
fn faults_of_a_cut_peer_make_no_second_cut_and_no_longer_one() {
    let (mut core, now) = (core(), start());
    assert_eq!(fault(&mut core, peer(1), "equivocation", now).len(), 1);
    let until = core.poll_timeout();
    assert_eq!(fault(&mut core, peer(1), "equivocation", now + minutes(1)), []);
    assert_eq!(core.poll_timeout(), until);
}

/// How long the cut lasts that begins now; it is waited for.
fn sit_out(core: &mut Faults, now: Instant) -> (Duration, Instant) {
    assert!(matches!(fault(core, peer(1), "equivocation", now).as_slice(), [Output::Cut { .. }]));
    let until = core.poll_timeout().unwrap();
    core.handle_timeout(until);
    assert_eq!(drain(core), [Output::Readmitted { peer: peer(1) }]);
    (until - now, until)
}

#[test]
fn cuts_double_up_to_the_longest_and_calm_takes_a_doubling_back() {
    let (mut core, mut now) = (core(), start());
    let mut nominal = FIRST_CUT;
    for _ in 0..40 {
        let (lasted, until) = sit_out(&mut core, now);
        assert!(lasted <= nominal && lasted >= nominal * 9 / 10, "{lasted:?} of {nominal:?}");
        nominal = (nominal * 2).min(LONGEST_CUT);
        now = until;
    }
    // 31 days without a cut leave one doubling of at most 32.
    let (lasted, _) = sit_out(&mut core, now + hours(31 * 24));
    assert!(lasted <= FIRST_CUT * 2 && lasted >= FIRST_CUT * 2 * 9 / 10, "{lasted:?}");
}

#[test]
fn a_pardon_ends_the_cut_at_once() {
    let (mut core, now) = (core(), start());
    fault(&mut core, peer(1), "equivocation", now);
    core.handle_input(Input::Pardon { peer: peer(1), at_ms: WALL_MS }, now);
    assert_eq!(drain(&mut core), [Output::Readmitted { peer: peer(1) }]);
    assert_eq!((core.score(&peer(1), now), core.poll_timeout()), (0.0, None));
    core.handle_input(Input::Pardon { peer: peer(2), at_ms: WALL_MS }, now);
    assert_eq!((drain(&mut core), core.knows(&peer(2))), (vec![], false));
}

#[test]
fn a_restored_cut_ends_too_and_one_that_ended_meanwhile_ends_at_once() {
    let (mut before, now) = (core(), start());
    fault(&mut before, peer(1), "equivocation", now);
    let state = before.state(&peer(1), now).unwrap();
    for (left, ago) in [(state.cut_left, Duration::ZERO), (Some(Duration::ZERO), hours(1))] {
        let mut after = core();
        after.restore(peer(1), State { cut_left: left, ..state.clone() }, vec![], ago, (now, WALL_MS));
        assert!(after.is_cut(&peer(1)));
        assert_eq!(after.poll_timeout(), left.map(|left| now + left));
        after.handle_timeout(now + left.unwrap());
        assert_eq!(drain(&mut after), [Output::Readmitted { peer: peer(1) }]);
    }
}

#[test]
fn memory_is_bounded_and_the_cut_stay_longest() {
    let (mut core, now) = (Faults::new(&Config { max_peers: 64, ..Config::default() }, 7), start());
    fault(&mut core, peer(1), "equivocation", now);
    for number in 0..5_000 {
        assert_eq!(fault(&mut core, stranger(number), "malformed", now), []);
        assert!(core.len() <= 64);
    }
    assert!(core.is_cut(&peer(1)));
    // When all are cut, each that is forgotten is told as readmitted.
    let (mut cut, mut back) = (1, 0);
    for number in 0..500 {
        for output in fault(&mut core, stranger(number), "equivocation", now) {
            match output {
                Output::Cut { .. } => cut += 1,
                Output::Readmitted { .. } => back += 1,
            }
        }
        assert_eq!(core.cut_peers(), cut - back);
        assert!(core.len() <= 64);
    }
    assert_eq!(cut, 501);
}
