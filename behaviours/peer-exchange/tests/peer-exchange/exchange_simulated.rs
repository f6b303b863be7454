use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use peer_exchange::exchange::{Exchange, Input, Output};
use peer_exchange::protocol::Frame;
use peer_exchange::{Config, Event, LookupId, SignedCard, Subject};
use rand::Rng;
use simulator::{Happening, Link, Network};

use crate::cast::{card, peer};

struct World {
    network: Network<Frame>,
    nodes: Vec<Exchange>,
    /// Whose cards each node has in its directory.
    directory: Vec<BTreeSet<u8>>,
    neighbours: Vec<BTreeSet<usize>>,
    found: BTreeMap<(usize, LookupId), Vec<SignedCard>>,
    asks: usize,
}

/// The node's number in the cast.
fn number(node: usize) -> u8 {
    node as u8
}

impl World {
    /// Ten nodes, connected at random, each knowing itself and its neighbours.
    fn new(seed: u64, link: Link) -> Self {
        let count = 10;
        let mut network = Network::new(seed, link);
        let mut neighbours = vec![BTreeSet::new(); count];
        for node in 1..count {
            for _ in 0..network.rng().random_range(1..3) {
                let other = network.rng().random_range(0..node);
                neighbours[node].insert(other);
                neighbours[other].insert(node);
            }
        }
        let mut nodes: Vec<_> = (0..count).map(|i| Exchange::new(Config::default(), seed * 100 + i as u64)).collect();
        let mut directory = Vec::new();
        for (node, others) in neighbours.iter().enumerate() {
            for other in others {
                nodes[node].handle_input(Input::Joined { peer: peer(number(*other)) }, network.now());
            }
            directory.push(others.iter().chain([&node]).map(|node| number(*node)).collect());
        }
        Self { network, nodes, directory, neighbours, found: BTreeMap::new(), asks: 0 }
    }

    fn lookup(&mut self, node: usize, subject: Subject) -> LookupId {
        let id = self.nodes[node].lookup(subject, self.network.now());
        self.drain(node);
        id
    }

    fn drain(&mut self, node: usize) {
        while let Some(output) = self.nodes[node].poll_output() {
            match output {
                Output::Send { to, frame } => {
                    self.asks += usize::from(matches!(frame, Frame::Ask { .. }));
                    let to = (0..self.nodes.len()).find(|other| peer(number(*other)) == to).unwrap();
                    // As the handler would: over the wire and back.
                    let frame = Frame::decode(&frame.encode()).unwrap();
                    self.network.send(node, to, frame);
                }
                Output::Event(Event::Asked { token, subject, .. }) => {
                    let known = self.directory[node].iter().map(|number| card(*number, 1, 0));
                    let fits = |card: &SignedCard| match &subject {
                        Subject::Name(name) => card.card().name == *name,
                        Subject::Peer(peer) => card.peer() == *peer,
                        Subject::Anybody => true,
                    };
                    let cards = known.filter(fits).collect();
                    self.nodes[node].handle_input(Input::Known { token, cards }, self.network.now());
                }
                Output::Event(Event::Found { id, cards }) => {
                    assert!(self.found.insert((node, id), cards).is_none(), "found twice");
                }
                Output::Event(other) => panic!("unexpected {other:?}"),
                Output::Fault { kind, .. } => panic!("{kind} among honest nodes"),
            }
        }
        if let Some(at) = self.nodes[node].poll_timeout() {
            self.network.wake_at(node, at);
        }
    }

    fn run(&mut self, time: Duration) {
        let until = self.network.now() + time;
        while let Some(happening) = self.network.next_until(until) {
            let node = match happening {
                Happening::Wakes { node } => {
                    let now = self.network.now();
                    self.nodes[node].handle_timeout(now);
                    node
                }
                Happening::Arrives { from, to, message } => {
                    let from = peer(number(from));
                    let input = match message {
                        Frame::Ask { id, query, subject, hops } => Input::Asked { from, id, query, subject, hops },
                        Frame::Answer { id, cards } => Input::Answered { from, id, cards },
                        other => panic!("unexpected {other:?}"),
                    };
                    let now = self.network.now();
                    self.nodes[to].handle_input(input, now);
                    to
                }
            };
            self.drain(node);
        }
    }

    fn distance(&self, from: usize, to: usize) -> usize {
        let mut distance = BTreeMap::from([(from, 0)]);
        let mut queue = VecDeque::from([from]);
        while let Some(node) = queue.pop_front() {
            for other in &self.neighbours[node] {
                if !distance.contains_key(other) {
                    distance.insert(*other, distance[&node] + 1);
                    queue.push_back(*other);
                }
            }
        }
        distance[&to]
    }
}

fn link(loss: f64, slowest: u64) -> Link {
    Link { loss, duplicate: 0.0, delay: Duration::from_millis(10)..Duration::from_millis(slowest) }
}

#[test]
fn whoever_is_near_enough_is_found_with_little_talk() {
    let mut far = 0;
    for seed in 0..200 {
        // Equal delays, for a question that first comes the long way round has fewer hops left.
        let mut world = World::new(seed, link(0.0, 10));
        let (from, to) = (seed as usize % 10, (seed as usize * 7 + 3) % 10);
        let subject = if seed % 2 == 0 { Subject::Peer(peer(number(to))) } else { Subject::Name(format!("node{to}")) };
        let id = world.lookup(from, subject);
        world.run(Config::default().lookup_timeout);
        // Asked are nodes at most 1 + hops links away, and each knows its neighbours.
        let near = world.distance(from, to) <= 2 + usize::from(Config::default().max_hops);
        far += usize::from(!near);
        let cards = &world.found[&(from, id)];
        if from != to {
            assert_eq!(cards.len(), usize::from(near), "seed {seed}, distance {}", world.distance(from, to));
        }
        let edges: usize = world.neighbours.iter().map(BTreeSet::len).sum();
        assert!(world.asks <= edges, "seed {seed}: each link at most once in each direction");
    }
    assert!(far < 40, "the test is about something");
}

#[test]
fn every_lookup_ends_in_time_and_nothing_is_kept() {
    for seed in 0..200 {
        let mut world = World::new(seed, link(0.2, 900));
        let mut lookups = Vec::new();
        for round in 0..30 {
            let (from, to) = ((seed as usize + round) % 10, (round * 3) % 10);
            lookups.push((from, world.lookup(from, Subject::Name(format!("node{to}")))));
            world.run(Duration::from_millis(400));
        }
        world.run(Config::default().lookup_timeout);
        for lookup in &lookups {
            assert!(world.found.contains_key(lookup), "seed {seed}: {lookup:?} has not ended");
        }
        world.run(Duration::from_secs(10));
        assert!(world.nodes.iter().all(|node| node.pending() == 0), "seed {seed}");
    }
}
