use std::time::Duration;

use peer_exchange::links::Input;
use peer_exchange::{Config, Event, FaultKind};
use rand::Rng;
use simulator::NodeId;

use crate::cast::peer;
use crate::world::{Act, SECOND, World, ms};

/// Nodes that want each other live through `trouble` random events in a minute; then it is quiet for a minute and a half.
fn live_through(seed: u64, numbers: &[u8], trouble: usize) -> World {
    let mut world = World::new(seed, numbers);
    world.hanging_closes = true;
    let nodes = numbers.len();
    let mut pairs = Vec::new();
    for a in 0..nodes {
        for b in a + 1..nodes {
            pairs.push((a, b));
            // Of a pair one side wants the link, or both.
            match world.network.rng().random_range(0..3) {
                0 => world.want(a, b),
                1 => world.want(b, a),
                _ => {
                    world.want(a, b);
                    world.want(b, a);
                }
            }
        }
    }
    for _ in 0..trouble {
        let delay = ms(0..60_000, &mut world);
        let act = match world.network.rng().random_range(0..10) {
            0..3 => Act::Break,
            3..5 => Act::Crash,
            5..7 => Act::Dial,
            7 => Act::Disconnect,
            8 => Act::Leave,
            _ => Act::Rename,
        };
        world.at(delay, act);
    }
    world.run(Duration::from_secs(150));
    for (a, b) in pairs {
        world.assert_agreed(a, b, seed);
    }
    assert!(
        world.faults.is_empty() || world.faults.iter().all(|(_, kind)| *kind == FaultKind::NoHello),
        "seed {seed}: honest nodes: {:?}",
        world.faults
    );
    // Each event costs a pair a few dials at most, and so do the peers that a restarting node is without for three seconds.
    let bound = (10 + 10 * trouble) * nodes;
    assert!(world.connections.len() <= bound, "seed {seed}: {} dials", world.connections.len());
    assert!(world.closes <= 2 * bound, "seed {seed}: {} closes", world.closes);
    world
}

#[test]
fn two_nodes_agree_on_one_link_after_any_trouble() {
    for seed in 0..300 {
        live_through(seed, &[1, 2], 12);
    }
}

#[test]
fn three_nodes_agree_on_one_link_each_after_any_trouble() {
    for seed in 1000..1200 {
        live_through(seed, &[1, 2, 3], 20);
    }
}

#[test]
fn the_same_seed_gives_the_same_life() {
    let run = |seed| live_through(seed, &[1, 2, 3], 20).network.trace_hash();
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

#[test]
fn nothing_is_kept_once_everybody_has_left() {
    for seed in 2000..2050 {
        let mut world = live_through(seed, &[1, 2, 3], 20);
        for node in 0..3 {
            world.input(node, Input::DisconnectAll);
        }
        world.run(Config::default().goodbye_timeout);
        for node in 0..3 {
            assert!(world.nodes[node].quiet, "seed {seed}: quiet comes within the time for goodbyes");
        }
        for node in 0..3 {
            world.nodes[node].wants.clear();
        }
        world.run(Duration::from_secs(40));
        for node in 0..3 {
            assert!(world.nodes[node].links.is_empty(), "seed {seed}");
            assert_eq!(world.nodes[node].links.poll_timeout(), None, "seed {seed}");
            assert!(world.nodes[node].up.is_empty(), "seed {seed}");
        }
    }
}

/// Node 1 dies without a word and comes back while node 0 still holds the dead link.
#[test]
fn a_restarted_node_is_heard_at_once() {
    for seed in 3000..3200 {
        let mut world = World::new(seed, &[1, 2]);
        world.want(1, 0);
        if seed % 2 == 0 {
            world.want(0, 1);
        }
        world.run(10 * SECOND);
        world.assert_agreed(0, 1, seed);
        let (restart, log) = (world.network.elapsed() + SECOND, world.nodes[0].log.len());
        world.crash_for(1, false, SECOND);
        world.run(4 * SECOND);
        let reset = world.nodes[0].log[log..].iter().any(|(_, event)| matches!(event, Event::Lost { reset: true, .. }));
        let noticed =
            world.nodes[0].log[log..].iter().any(|(_, event)| matches!(event, Event::Lost { reset: false, .. }));
        assert!(reset || noticed, "seed {seed}: the old link is gone before the new one counts");
        let heard = world.nodes[0].log[log..].iter().find_map(|(at, event)| match event {
            Event::Up { card, .. } if card.card().boot == 2 => Some(*at),
            _ => None,
        });
        let heard = heard.unwrap_or_else(|| panic!("seed {seed}: the restarted node is not heard"));
        assert!(heard - restart < 3 * SECOND, "seed {seed}: heard {:?} after its restart", heard - restart);
        world.run(60 * SECOND);
        world.assert_agreed(0, 1, seed);
    }
}

#[test]
fn a_goodbye_is_told_as_one() {
    for seed in 4000..4100 {
        let mut world = World::new(seed, &[1, 2]);
        world.want(0, 1);
        world.want(1, 0);
        world.run(10 * SECOND);
        world.nodes[0].wants.clear();
        world.nodes[1].wants.clear();
        let log = world.nodes[0].log.len();
        world.input(1, Input::DisconnectAll);
        world.run(2 * SECOND);
        let told: Vec<_> = world.nodes[0].log[log..].iter().map(|(_, event)| event.clone()).collect();
        assert_eq!(told, [Event::Left { peer: peer(2) }], "seed {seed}");
    }
}

/// Nodes 1 and 2 run on different machines with a copied key; both dial node 0 again and again.
#[test]
fn a_copied_key_does_not_make_everybody_flap() {
    for seed in 5000..5050 {
        let mut world = World::new(seed, &[1, 2, 2]);
        world.nodes[1].boot = 5;
        world.nodes[2].boot = 7;
        world.want(1, 0);
        world.run(5 * SECOND);
        world.want(2, 0);
        world.run(120 * SECOND);
        let ups = world.nodes[0].log.iter().filter(|(_, event)| matches!(event, Event::Up { .. })).count();
        // Once each, and again for every session that the other one happened to begin.
        assert!(ups <= 6, "seed {seed}: {ups} times up");
        assert_eq!(world.nodes[0].up.get(&peer(2)), Some(&7), "seed {seed}: the latest boot is the one that counts");
        assert!(world.faults.contains(&(0, FaultKind::StaleBoot)), "seed {seed}");
    }
}

#[test]
fn simultaneous_dials_end_in_one_link_and_nobody_is_lost() {
    for seed in 6000..6200 {
        let mut world = World::new(seed, &[1, 2]);
        for _ in 0..1 + seed % 3 {
            world.dial(0, 1);
            world.dial(1, 0);
        }
        world.run(30 * SECOND);
        world.assert_agreed(0, 1, seed);
        assert_eq!((world.lost(0), world.lost(1)), (0, 0), "seed {seed}");
    }
}

/// One side loses the link and dials again; the other side takes the dead link for a good one for a minute more.
#[test]
fn a_link_that_only_one_side_lost_costs_one_dial() {
    for seed in 7000..7200 {
        let mut world = World::new(seed, &[1, 2]);
        let loser = (seed % 2) as NodeId;
        world.want(loser, 1 - loser);
        world.run(10 * SECOND);
        world.connections[0].broken = true;
        for (node, delay) in [(loser, SECOND), (1 - loser, 60 * SECOND)] {
            world.at(delay, Act::PingFails { node, life: 0, connection: 0 });
        }
        world.run(40 * SECOND);
        world.assert_agreed(0, 1, seed);
        assert_eq!(world.connections.len(), 2, "seed {seed}: no circle of dialling and closing");
        assert_eq!((world.lost(loser), world.lost(1 - loser)), (1, 0), "seed {seed}");
    }
}
