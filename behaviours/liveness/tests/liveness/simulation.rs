use std::time::Duration;

use liveness::{Config, State};

use crate::world::World;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[test]
fn without_trouble_nobody_is_suspected() {
    let mut world = World::new(1, 200, 3, 4, &Config::default());
    world.run_until(secs(200));
    assert_eq!((world.suspects, world.deaths.len(), world.faults), (0, 0, 0));
    // Each neighbour once an interval, and never twice.
    let links: usize = (0..200).map(|node| world.neighbours(node).len()).sum();
    let expected = links as f64 * 200.0 / 13.0;
    let ratio = world.probes as f64 / expected;
    assert!((0.95..1.02).contains(&ratio), "{} probes, {expected} expected", world.probes);
}

#[test]
fn among_a_thousand_the_crashed_are_found_and_nobody_else() {
    let mut world = World::new(2, 1_000, 3, 2, &Config::default());
    world.run_until(secs(20));
    (100..103).for_each(|node| world.crash(node));
    world.run_until(secs(70));
    for node in 100..103 {
        for other in world.neighbours(node).into_iter().filter(|other| !(100..103).contains(other)) {
            assert_eq!(world.state(other, node), Some(State::Dead), "{node} at {other}");
        }
    }
    assert!(world.deaths.iter().all(|death| !death.wrong && (100..103).contains(&death.target)));
    let config = Config::default();
    // Its last answer may be an interval old when it crashes.
    let earliest = secs(20) + config.interval * (config.misses - 1);
    assert!(world.deaths.iter().all(|death| death.at >= earliest));
}

#[test]
fn five_of_thirty_killed_leave_all_seeds_and_nobody_else_does() {
    let config = Config { interval: secs(5), ..Config::default() };
    let mut world = World::new(3, 30, 3, 4, &config);
    world.run_until(secs(30));
    (10..15).for_each(|node| world.crash(node));
    world.run_until(secs(50));
    for node in 10..15 {
        for seed in (0..3).filter(|seed| world.neighbours(node).contains(seed)) {
            assert!(world.evicted.contains_key(&(seed, node)), "{node} at seed {seed} after 20 s");
        }
    }
    assert!(world.evicted.keys().all(|(_, target)| (10..15).contains(target)), "{:?}", world.evicted);
    for client in (3..30).filter(|client| !(10..15).contains(client)) {
        assert!((10..15).all(|node| world.is_buried(client, node)), "{client} was not told");
        assert!(!(3..10).any(|node| world.is_buried(client, node)));
    }
}

#[test]
fn a_short_freeze_is_no_death_and_a_long_one_ends_with_the_thaw() {
    for seed in 0..10 {
        let mut world = World::new(seed, 30, 3, 4, &Config::default());
        world.run_until(secs(30));
        world.freeze(10, secs(8));
        world.run_until(secs(100));
        assert_eq!(world.deaths.len(), 0, "frozen for 8 s");
        world.freeze(11, secs(60));
        world.run_until(secs(159));
        assert!(world.evicted.keys().any(|(_, target)| *target == 11), "frozen for 60 s");
        world.run_until(secs(220));
        assert!(world.deaths.iter().all(|death| death.target == 11 && !death.wrong), "{:?}", world.deaths);
        assert!(world.neighbours(11).into_iter().all(|other| world.state(other, 11) == Some(State::Alive)));
        assert!(world.neighbours(11).into_iter().all(|other| world.state(11, other) == Some(State::Alive)));
        assert!(world.evicted.is_empty());
        assert!((0..30).all(|client| !world.is_buried(client, 11)), "its tombstones have fallen");
    }
}

#[test]
fn after_a_partition_no_dead_mark_is_left() {
    for seed in 0..5 {
        let mut world = World::new(seed, 40, 3, 4, &Config::default());
        world.run_until(secs(30));
        world.partition(20);
        world.run_until(secs(90));
        assert!(!world.deaths.is_empty());
        world.heal();
        world.run_until(secs(120));
        for node in 0..40 {
            for other in world.neighbours(node) {
                assert_eq!(world.state(node, other), Some(State::Alive), "{other} at {node}");
            }
        }
        assert!(world.evicted.is_empty(), "{:?}", world.evicted);
        assert!(world.deaths.iter().all(|death| !death.wrong), "{:?}", world.deaths);
        assert!((0..40).all(|client| (0..40).all(|node| !world.is_buried(client, node))));
    }
}

#[test]
fn who_is_out_of_one_neighbours_reach_lives_through_others() {
    for seed in 0..10 {
        let mut world = World::new(seed, 12, 3, 11, &Config::default());
        world.run_until(secs(30));
        // One way only, but no link survives that.
        world.cut(5, 8);
        world.cut(0, 9);
        world.run_until(secs(400));
        assert_eq!(world.deaths.len(), 0, "{:?}", world.deaths);
        assert!(!world.is_linked(5, 8));
        assert!(world.suspects <= 8, "{} suspicions: who lives through others is not suspected again", world.suspects);
    }
}

#[test]
fn a_starved_node_accuses_nobody() {
    for seed in 0..5 {
        let mut world = World::new(seed, 30, 3, 4, &Config::default());
        world.run_until(secs(30));
        world.starve(12, Some(secs(9)));
        world.run_until(secs(300));
        assert!(world.deaths.iter().all(|death| death.by != 12), "{:?}", world.deaths);
    }
    // The same node without Lifeguard does.
    let plain = Config { max_health: 0, late: secs(1_000_000), ..Config::default() };
    let accusations = (0..5).map(|seed| {
        let mut world = World::new(seed, 30, 3, 4, &plain);
        world.run_until(secs(30));
        world.starve(12, Some(secs(9)));
        world.run_until(secs(300));
        world.suspects
    });
    assert!(accusations.sum::<usize>() > 0);
}

#[test]
fn five_percent_loss_kills_nobody_in_ten_minutes() {
    let mut world = World::new(4, 60, 3, 4, &Config::default());
    world.loss = 0.05;
    world.run_until(secs(600));
    assert!(world.suspects > 0, "there was loss");
    assert_eq!((world.deaths.len(), world.evicted.len()), (0, 0));
}

#[test]
fn a_slandered_node_lives_though_many_lie() {
    for seed in 0..2 {
        let mut world = World::new(seed, 30, 3, 4, &Config::default());
        world.run_until(secs(30));
        for round in 0..25 {
            for liar in 3..8 {
                for target in 8..30 {
                    for at in 0..3 {
                        world.slander(liar, at, target);
                    }
                }
            }
            world.run_until(secs(30 + 2 * (round + 1)));
        }
        assert!(world.evicted.is_empty(), "{:?}", world.evicted);
        assert_eq!(world.deaths.len(), 0);
    }
}
