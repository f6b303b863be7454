//! The seeds core against a simulated world of seeds that come and go.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use libp2p::PeerId;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

/// Seeds that answer after a few milliseconds while they are alive, and forget everything when they die.
struct World {
    core: Seeds,
    now: Instant,
    rng: StdRng,
    ids: Vec<PeerId>,
    alive: Vec<bool>,
    /// Somebody else answers at the address of this one.
    imposter: Option<SeedId>,
    linked: BTreeSet<SeedId>,
    holding: BTreeSet<SeedId>,
    pending: Vec<(Instant, Input)>,
    said: Vec<(SeedId, State)>,
    dials: usize,
}

impl World {
    fn new(seeds: usize, rng_seed: u64) -> Self {
        let now = Instant::now();
        let mut world = Self {
            core: Seeds::new(vec![None; seeds], rng_seed, now),
            now,
            rng: StdRng::seed_from_u64(rng_seed),
            ids: (0..seeds).map(|_| PeerId::random()).collect(),
            alive: vec![true; seeds],
            imposter: None,
            linked: BTreeSet::new(),
            holding: BTreeSet::new(),
            pending: Vec::new(),
            said: Vec::new(),
            dials: 0,
        };
        world.input(Input::Ready);
        world
    }

    fn later(&mut self, input: Input) {
        let delay = Duration::from_millis(self.rng.random_range(1..40));
        self.pending.push((self.now + delay, input));
    }

    fn input(&mut self, input: Input) {
        self.core.handle_input(input, self.now);
        self.outputs();
    }

    fn outputs(&mut self) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Dial(seed) => {
                    self.dials += 1;
                    if self.imposter == Some(seed) {
                        self.later(Input::DialFailed { seed, wrong_identity: true });
                    } else if self.alive[seed] {
                        self.linked.insert(seed);
                        self.later(Input::Linked { seed, peer: self.ids[seed] });
                    } else {
                        self.later(Input::DialFailed { seed, wrong_identity: false });
                    }
                }
                Output::Register(peer) => {
                    let seed = self.seed(peer);
                    if self.alive[seed] {
                        self.holding.insert(seed);
                        self.later(Input::Registered { peer, ttl: REGISTRATION_TTL });
                    } else {
                        self.later(Input::RegisterFailed { peer, refused: false });
                    }
                }
                Output::List { peer, .. } => {
                    self.later(Input::Listed { peer, peers: vec![PeerId::random()], full: false })
                }
                Output::State { seed, state, .. } => self.said.push((seed, state)),
            }
        }
    }

    fn seed(&self, peer: PeerId) -> SeedId {
        self.ids.iter().position(|id| *id == peer).unwrap()
    }

    fn kill(&mut self, seed: SeedId) {
        self.alive[seed] = false;
        self.holding.remove(&seed);
        if self.linked.remove(&seed) {
            self.later(Input::Unlinked { peer: self.ids[seed] });
        }
    }

    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let next = self.pending.iter().map(|(at, _)| *at).min();
            let timer = self.core.poll_timeout();
            let Some(at) = next.into_iter().chain(timer).min().filter(|at| *at <= end) else { break };
            assert!(timer.is_none_or(|timer| timer > self.now) || next == Some(at) || at >= self.now, "the timer runs");
            self.now = self.now.max(at);
            if next.is_some_and(|next| next <= self.now) {
                let place = self.pending.iter().position(|(at, _)| Some(*at) == next).unwrap();
                let (_, input) = self.pending.remove(place);
                self.input(input);
            } else {
                self.core.handle_timeout(self.now);
                self.outputs();
                assert!(
                    self.core.poll_timeout().is_none_or(|timer| timer > self.now),
                    "a timer that does not advance would spin"
                );
            }
        }
        self.now = end;
    }
}

#[test]
fn exactly_floor_half_plus_one_seeds_hold_a_registration() {
    for n in 0..=7 {
        for rng_seed in 0..20 {
            let mut world = World::new(n, rng_seed);
            world.run(Duration::from_secs(600));
            let wanted = if n == 0 { 0 } else { n / 2 + 1 };
            assert_eq!(world.holding.len(), wanted, "n = {n}, rng seed {rng_seed}");
            assert_eq!(world.core.registered(), wanted);
            assert_eq!(world.said.len(), wanted, "each registration is told once, renewals are not");
            assert_eq!(world.dials, wanted, "a link that stands is not dialled again");
        }
    }
}

#[test]
fn the_pick_is_random() {
    let picks: BTreeSet<Vec<SeedId>> = (0..50)
        .map(|rng_seed| {
            let mut world = World::new(3, rng_seed);
            world.run(Duration::from_secs(5));
            world.holding.iter().copied().collect()
        })
        .collect();
    assert_eq!(picks.len(), 3, "all three pairs of three seeds are picked by somebody");
}

#[test]
fn for_every_subset_of_dead_seeds_the_living_ones_are_used() {
    for n in 1..=5_usize {
        for dead in 0..(1_u32 << n) {
            let mut world = World::new(n, u64::from(dead));
            world.run(Duration::from_secs(10));
            for seed in (0..n).filter(|seed| dead & (1 << seed) != 0) {
                world.kill(seed);
            }
            world.run(Duration::from_secs(30));
            let alive = n - dead.count_ones() as usize;
            assert_eq!(world.holding.len(), alive.min(n / 2 + 1), "n = {n}, dead {dead:b}");
            for seed in 0..n {
                let deaths = world.said.iter().filter(|said| **said == (seed, State::Unreachable)).count();
                assert!(deaths <= 1, "a dead seed is said once");
            }
            world.alive = vec![true; n];
            world.run(Duration::from_secs(30));
            assert_eq!(
                world.holding.len(),
                n / 2 + 1,
                "seeds that are back are used within 30 s: n = {n}, dead {dead:b}"
            );
        }
    }
}

#[test]
fn dead_seeds_are_not_hammered() {
    let mut world = World::new(4, 3);
    for seed in 0..4 {
        world.kill(seed);
    }
    world.pending.clear();
    world.run(Duration::from_secs(600));
    assert!(world.dials < 4 * 600 / 7 + 40, "{} dials of 4 dead seeds in 10 minutes", world.dials);
    assert!(world.dials > 4 * 600 / 20, "{} dials: they are still tried", world.dials);
}

#[test]
fn a_seed_with_another_identity_is_replaced_and_said_once() {
    for rng_seed in 0..20 {
        let mut world = World::new(3, rng_seed);
        world.run(Duration::from_secs(5));
        let imposter = *world.holding.first().unwrap();
        world.imposter = Some(imposter);
        world.kill(imposter);
        world.run(Duration::from_secs(120));
        assert_eq!(world.holding.len(), 2);
        assert!(!world.holding.contains(&imposter));
        assert_eq!(world.said.iter().filter(|said| **said == (imposter, State::Refused)).count(), 1);
    }
}

#[test]
fn a_hungry_dialler_makes_it_ask_often_and_a_sated_one_seldom() {
    let lists = |hungry: bool| {
        let mut world = World::new(1, 1);
        world.input(Input::Hungry(hungry));
        world.run(Duration::from_secs(1));
        let mut lists = 0;
        for _ in 0..120 {
            let before = world.core.seeds[0].last_list;
            world.run(Duration::from_secs(1));
            lists += usize::from(world.core.seeds[0].last_list != before);
        }
        lists
    };
    assert!(lists(true) >= 10, "{}", lists(true));
    assert!((3..=6).contains(&lists(false)), "{}", lists(false));
}

#[test]
fn a_long_list_is_read_page_by_page_and_not_without_end() {
    let now = Instant::now();
    let mut core = Seeds::new(vec![None], 1, now);
    let peer = PeerId::random();
    core.handle_input(Input::Ready, now);
    core.handle_input(Input::Linked { seed: 0, peer }, now);
    core.handle_input(Input::Registered { peer, ttl: Duration::MAX }, now);
    let mut pages = 0;
    while let Some(output) = core.poll_output() {
        if matches!(output, Output::List { .. }) {
            pages += 1;
            core.handle_input(
                Input::Listed { peer, peers: (1..PAGE).map(|_| PeerId::random()).collect(), full: true },
                now,
            );
        }
    }
    assert_eq!(pages, MAX_PAGES);
}
