//! Figures for detection time and false deaths: `cargo run --release -p liveness --example figures`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a simulation that cannot go on stops")]
#![allow(clippy::disallowed_methods, reason = "virtual time starts somewhere")]

use std::time::Duration;

use liveness::Config;
use world::World;

#[allow(dead_code, reason = "shared with the tests")]
#[path = "../tests/liveness/cast.rs"]
mod cast;
#[allow(dead_code, reason = "shared with the tests")]
#[path = "../tests/liveness/world.rs"]
mod world;

const NODES: usize = 1_000;
const TROUBLE: Duration = Duration::from_secs(60);

/// What goes wrong, all at once.
type Trouble = fn(&mut World);

fn main() {
    let never = Duration::from_secs(1_000_000);
    let plain = Config { max_health: 0, late: never, ..Config::default() };
    let rules = [
        ("this crate, 13 s x 3", Config::default()),
        ("13 s x 3, no helpers, no Lifeguard", Config { helpers: 0, ..plain.clone() }),
        ("SWIM, 13 s x 3", plain.clone()),
        (
            "SWIM, 1 s x 5 (memberlist's LAN)",
            Config { interval: Duration::from_secs(1), misses: 5, probe_timeout: Duration::from_millis(500), ..plain },
        ),
    ];
    println!("{NODES} nodes, 3 of them seeds, 4 dialled links each; times in s after the trouble began (median, last)");
    println!(
        "| trouble | rule | first neighbour | all neighbours | evicted everywhere | wrong deaths | wrong evictions | suspicions | probes/s a node |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let scenarios: [(&str, Trouble); 10] = [
        ("none", |_| {}),
        ("10 crash", |world| (100..110).for_each(|node| world.crash(node))),
        ("50 freeze for 8 s", |world| (100..150).for_each(|node| world.freeze(node, Duration::from_secs(8)))),
        ("50 freeze for 60 s", |world| (100..150).for_each(|node| world.freeze(node, Duration::from_secs(60)))),
        ("100 cut off for 60 s", |world| world.partition(NODES - 100)),
        ("100 one-way cuts", |world| {
            for node in 100..200 {
                let other = world.neighbours(node).into_iter().next_back().unwrap();
                world.cut(node, other);
            }
        }),
        ("50 run 0.1 s of each 5 s", |world| {
            (100..150).for_each(|node| world.starve(node, Some(Duration::from_secs(5))))
        }),
        ("50 run 0.4 s of each 20 s", |world| {
            (100..150).for_each(|node| world.starve(node, Some(Duration::from_secs(20))))
        }),
        ("5 % loss", |world| world.loss = 0.05),
        ("20 % loss", |world| world.loss = 0.2),
    ];
    for (name, trouble) in scenarios {
        for (rule, config) in &rules {
            let mut world = World::new(1, NODES, 3, 4, config);
            world.run_until(TROUBLE);
            trouble(&mut world);
            world.run_until(TROUBLE + Duration::from_secs(60));
            world.heal();
            world.run_until(TROUBLE + Duration::from_secs(150));
            row(name, rule, &world);
        }
    }
}

fn row(name: &str, rule: &str, world: &World) {
    let right = |death: &&world::Death| !death.wrong;
    let (mut first, mut last, mut gone) = (Vec::new(), Vec::new(), Vec::new());
    for target in 0..NODES {
        let times = || world.deaths.iter().filter(right).filter(|death| death.target == target).map(|death| death.at);
        first.extend(times().min().map(|at| at - TROUBLE));
        last.extend(times().max().map(|at| at - TROUBLE));
        let evictions = world.evictions.iter().filter(|(_, of, _, wrong)| *of == target && !wrong);
        gone.extend(evictions.map(|(_, _, at, _)| *at - TROUBLE).max());
    }
    let wrong = world.deaths.iter().filter(|death| death.wrong).count();
    let wrong_evicted = world.evictions.iter().filter(|(.., wrong)| *wrong).count();
    let rate = world.probes as f64 / world.now.as_secs_f64() / NODES as f64;
    println!(
        "| {name} | {rule} | {} | {} | {} | {wrong} | {wrong_evicted} | {} | {rate:.2} |",
        figures(first),
        figures(last),
        figures(gone),
        world.suspects,
    );
}

fn figures(mut times: Vec<Duration>) -> String {
    times.sort();
    match times[..] {
        [] => "-".into(),
        _ => format!("{:.0}, {:.0}", times[times.len() / 2].as_secs_f64(), times[times.len() - 1].as_secs_f64()),
    }
}
