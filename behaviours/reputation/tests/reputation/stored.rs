use libp2p::PeerId;
use proptest::prelude::*;
use reputation::config::{LONGEST_CUT, MAX_FACTS};
use reputation::faults::MAX_SCORE;
use reputation::penalties::TABLE;
use reputation::{Behaviour, Config, Evidence, Fact, Number, Stored};

use crate::common::{WALL_MS, hours, peer, stranger};

fn behaviour() -> Behaviour {
    Behaviour::new(Config::default(), 7)
}

/// Equal but for what passes while the test runs.
fn alike(one: &Stored, other: &Stored) -> bool {
    let near = |one: f64, other: f64| (one - other).abs() < 0.5;
    let cut = one.cut_until_ms.unwrap_or(0).abs_diff(other.cut_until_ms.unwrap_or(0)) < 60_000;
    one.reliability.iter().zip(&other.reliability).all(|(one, other)| near(*one, *other))
        && one.reliability.len() == other.reliability.len()
        && near(one.faults, other.faults)
        && (one.cuts, cut, one.cut_until_ms.is_some()) == (other.cuts, true, other.cut_until_ms.is_some())
        && one.facts == other.facts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_restored_is_what_was_stored(steps in prop::collection::vec((any::<bool>(), 0..40_usize), 1..60)) {
        let mut before = behaviour();
        for (step, (good, index)) in steps.into_iter().enumerate() {
            let now_ms = WALL_MS + step as u64;
            match good {
                true => before.saw(peer(1), Evidence::ALL[index % Evidence::ALL.len()], now_ms),
                false => before.fault(peer(1), TABLE[index].kind, now_ms),
            }
        }
        let stored = before.snapshot(&peer(1), WALL_MS + 100).unwrap();
        let bytes = stored.encode();
        prop_assert!(bytes.len() < 8 * 1024);
        let decoded = Stored::decode(peer(1), &bytes).unwrap();
        prop_assert_eq!(&decoded, &stored);

        let mut after = behaviour();
        after.restore(vec![decoded], WALL_MS + 100);
        prop_assert!(alike(&after.snapshot(&peer(1), WALL_MS + 100).unwrap(), &stored));
        prop_assert_eq!(after.is_cut(&peer(1)), before.is_cut(&peer(1)));
        prop_assert_eq!(after.why(&peer(1)), before.why(&peer(1)));
    }

    #[test]
    fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..200), numbers in any::<(f64, f64, u32, u64, u64, u64)>()) {
        if let Ok(stored) = Stored::decode(peer(1), &bytes) {
            behaviour().restore(vec![stored], WALL_MS);
        }
        let (reliability, faults, cuts, calm_ms, at_ms, until_ms) = numbers;
        let fact = Fact { at_ms, since_ms: at_ms, count: calm_ms, what: "ä".repeat(100), number: Number::Faults, effect: faults };
        let stored = Stored { peer: peer(1), at_ms, reliability: vec![reliability; 9], faults, cuts, calm_ms,
            cut_until_ms: Some(until_ms), facts: vec![fact; 50] };
        let mut behaviour = behaviour();
        behaviour.restore(vec![stored], WALL_MS);
        prop_assert!((0.0..=1.0).contains(&behaviour.reliability(&peer(1))));
        prop_assert!((0.0..=MAX_SCORE).contains(&behaviour.faults(&peer(1))));
        prop_assert!(behaviour.why(&peer(1)).len() <= MAX_FACTS);
        let again = behaviour.snapshot(&peer(1), WALL_MS).unwrap();
        prop_assert!(again.cut_until_ms.is_none_or(|until| until <= WALL_MS + LONGEST_CUT.as_millis() as u64));
        prop_assert!(again.encode().len() < 8 * 1024);
    }
}

#[test]
fn bytes_that_are_cut_short_are_nothing() {
    let mut behaviour = behaviour();
    behaviour.saw(peer(1), Evidence::DialOk, WALL_MS);
    let bytes = behaviour.snapshot(&peer(1), WALL_MS).unwrap().encode();
    for end in 0..bytes.len() {
        assert!(Stored::decode(peer(1), &bytes[..end]).is_err());
    }
}

#[test]
fn the_time_while_we_were_away_counts() {
    let mut before = behaviour();
    for _ in 0..20 {
        before.saw(peer(1), Evidence::TransferFailed, WALL_MS);
    }
    before.fault(peer(1), "equivocation", WALL_MS);
    let stored = before.snapshot(&peer(1), WALL_MS).unwrap();
    let after = |away: u64| {
        let mut after = behaviour();
        after.restore(vec![stored.clone()], WALL_MS + away);
        after
    };
    let day = hours(24).as_millis() as u64;
    let (at_once, later) = (after(0), after(day));
    let lost = |behaviour: &Behaviour| 0.5 - behaviour.reliability(&peer(1));
    assert!((lost(&at_once) - 2.0 * lost(&later)).abs() < 0.01);
    assert!(at_once.is_cut(&peer(1)) && at_once.faults(&peer(1)) > 90.0 && later.faults(&peer(1)) < 0.1);
    // A clock that was set back by a year makes no cut of a year.
    let mut earlier = behaviour();
    let long_ago = WALL_MS - 365 * day;
    earlier.restore(vec![stored], long_ago);
    let until = earlier.snapshot(&peer(1), long_ago).unwrap().cut_until_ms.unwrap();
    assert!(until <= long_ago + LONGEST_CUT.as_millis() as u64);
}

#[test]
fn only_what_changed_is_told_and_what_is_forgotten_too() {
    let mut behaviour = Behaviour::new(Config { max_peers: 16, ..Config::default() }, 7);
    assert_eq!(behaviour.take_changed(WALL_MS), []);
    behaviour.saw(stranger(1), Evidence::DialOk, WALL_MS);
    behaviour.fault(stranger(2), "malformed", WALL_MS);
    let changed = |behaviour: &mut Behaviour| behaviour.take_changed(WALL_MS).into_iter().collect::<Vec<_>>();
    let told: Vec<(PeerId, bool)> = changed(&mut behaviour).iter().map(|(peer, row)| (*peer, row.is_some())).collect();
    assert_eq!(told, [(stranger(1), true), (stranger(2), true)]);
    assert_eq!(changed(&mut behaviour), []);
    for number in 3..19 {
        behaviour.saw(stranger(number), Evidence::TransferCompleted, WALL_MS);
    }
    assert!(changed(&mut behaviour).contains(&(stranger(1), None)), "what says least is to be deleted");
}

#[test]
fn a_stranger_has_nothing_to_store() {
    let behaviour = behaviour();
    assert_eq!((behaviour.snapshot(&peer(1), WALL_MS), behaviour.why(&peer(1))), (None, vec![]));
    assert_eq!((behaviour.reliability(&peer(1)), behaviour.faults(&peer(1))), (0.5, 0.0));
    assert!(behaviour.app_score(&peer(1)).is_sign_positive());
}
