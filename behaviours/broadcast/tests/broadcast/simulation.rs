//! The adversary: links that lose, double and reorder; links that come and go; nodes that crash at any step and keep
//! only their disk; and one member that forges, replays, signs two things with one number, and answers sync with lies. It
//! cannot forge signatures, and it does not split the honest ones.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use broadcast::envelope::hash;
use broadcast::log::{self, Verdict};
use broadcast::protocol::{Answer, Question, StreamDigest};
use broadcast::sync::{InboundNumber, Input, Output, QuestionNumber, Sync};
use broadcast::{BroadcastId, Config, FaultKind, Kind, StreamId};
use rand::Rng;
use serde_bytes::ByteBuf;
use simulator::{Happening, Link, Network, NodeId};

use crate::common::{WALL_MS, forged, key, peer, signed};

/// Honest nodes are 0 to 4, in a line with one chord; the last of them comes later, for the first time.
const HONEST: usize = 5;
const LATE: NodeId = 4;
const LIAR: NodeId = 5;
const LINKS: [(NodeId, NodeId); 5] = [(0, 1), (1, 2), (2, 3), (3, 4), (0, 2)];

/// What travels, and what a node tells itself later.
#[derive(Clone)]
enum Parcel {
    Gossip(Vec<u8>),
    Question(Stream, Question),
    Answer(Stream, Answer),
    Up(NodeId),
    Down(NodeId),
    Say,
    Restart,
    /// The liar does something.
    Lie,
}

/// An answer comes on its question's stream: it never reaches a later life of the node that asked.
type Stream = (u64, QuestionNumber);

/// What survives a crash.
#[derive(Default)]
struct Disk {
    rows: BTreeMap<BroadcastId, Vec<u8>>,
    /// As shown, own ones left out.
    shown: Vec<(BroadcastId, bool)>,
    gaps: BTreeSet<BroadcastId>,
    boots: u64,
}

struct Node {
    life: u64,
    core: Sync,
    up: BTreeSet<NodeId>,
    /// What gossipsub has seen.
    seen: BTreeSet<[u8; 32]>,
    /// Every distinct envelope that reached this life.
    reached: BTreeSet<Vec<u8>>,
    handed_on: BTreeSet<[u8; 32]>,
    asked: BTreeMap<InboundNumber, (NodeId, Stream)>,
    next_inbound: u64,
    wake: Option<Instant>,
}

struct World {
    network: Network<Parcel>,
    link: Link,
    nodes: BTreeMap<NodeId, Node>,
    disks: Vec<Disk>,
    /// Every honest broadcast.
    said: BTreeMap<BroadcastId, Vec<u8>>,
    lives: u64,
    lies: u64,
    lying: bool,
    equivocations: usize,
    rejected: u64,
    backlog: usize,
    desc: String,
}

fn config() -> Config {
    Config {
        request_timeout: Duration::from_secs(2),
        sync_interval: Duration::from_secs(2),
        retained_messages: 2_000,
        ..Config::default()
    }
}

fn bad_link() -> Link {
    Link { loss: 0.2, duplicate: 0.2, delay: Duration::from_millis(1)..Duration::from_millis(300) }
}

fn are_linked(a: NodeId, b: NodeId) -> bool {
    LINKS.contains(&(a.min(b), a.max(b))) || a == LIAR || b == LIAR
}

impl World {
    fn new(seed: u64, link: Link) -> Self {
        let mut world = Self {
            network: Network::new(seed, link.clone()),
            link,
            nodes: BTreeMap::new(),
            disks: (0..HONEST).map(|_| Disk::default()).collect(),
            said: BTreeMap::new(),
            lives: 0,
            lies: 0,
            lying: true,
            equivocations: 0,
            rejected: 0,
            backlog: 0,
            desc: format!("seed {seed}"),
        };
        for node in 0..LATE {
            world.start(node);
            for _ in 0..12 {
                let at = world.network.rng().random_range(0..20_000);
                world.later(node, Duration::from_millis(at), Parcel::Say);
            }
        }
        world.later(LATE, Duration::from_secs(10), Parcel::Restart);
        for _ in 0..40 {
            let at = world.network.rng().random_range(0..25_000);
            world.later(LIAR, Duration::from_millis(at), Parcel::Lie);
        }
        world
    }

    fn wall_ms(&self) -> u64 {
        WALL_MS + self.network.elapsed().as_millis() as u64
    }

    /// A parcel from a node to itself, for which loss and doubling do not hold.
    fn later(&mut self, node: NodeId, after: Duration, parcel: Parcel) {
        self.network.set_link(Link { loss: 0.0, duplicate: 0.0, delay: after..after });
        self.network.send(node, node, parcel);
        self.network.set_link(self.link.clone());
    }

    fn start(&mut self, id: NodeId) {
        self.lives += 1;
        let wall_ms = self.wall_ms();
        let disk = &mut self.disks[id];
        disk.boots += 1;
        let mut core = Sync::new(key(id as u8 + 1), disk.boots, config(), self.lives);
        let newcomer = id == LATE && disk.boots == 1;
        core.restore(disk.rows.values().cloned(), newcomer, wall_ms);
        let node = Node {
            life: self.lives,
            core,
            up: BTreeSet::new(),
            seen: BTreeSet::new(),
            reached: BTreeSet::new(),
            handed_on: BTreeSet::new(),
            asked: BTreeMap::new(),
            next_inbound: 0,
            wake: None,
        };
        self.nodes.insert(id, node);
        self.later(id, Duration::ZERO, Parcel::Up(LIAR));
        for other in (0..HONEST).filter(|&other| other != id && are_linked(id, other)) {
            if self.nodes.contains_key(&other) {
                self.relink(id, other);
            }
        }
        self.settle(id);
    }

    fn relink(&mut self, a: NodeId, b: NodeId) {
        for (a, b) in [(a, b), (b, a)] {
            let after = Duration::from_millis(self.network.rng().random_range(1..50));
            self.later(a, after, Parcel::Up(b));
        }
    }

    fn crash(&mut self, id: NodeId) {
        if self.nodes.remove(&id).is_none() {
            return;
        }
        self.network.crash(id);
        let others: Vec<_> = self.nodes.keys().copied().collect();
        for other in others {
            let after = Duration::from_millis(self.network.rng().random_range(0..300));
            self.later(other, after, Parcel::Down(id));
        }
        let after = Duration::from_millis(self.network.rng().random_range(400..5_000));
        self.later(id, after, Parcel::Restart);
        self.later(id, after + Duration::from_secs(1), Parcel::Say);
    }

    /// One happening; `false` when nothing is left.
    fn step(&mut self) -> bool {
        let Some(happening) = self.network.next() else { return false };
        let (now, wall_ms) = (self.network.now(), self.wall_ms());
        let id = match happening {
            Happening::Wakes { node } => {
                if let Some(node) = self.nodes.get_mut(&node) {
                    node.wake = None;
                    node.core.handle_timeout(wall_ms, now);
                }
                node
            }
            Happening::Arrives { from, to, message } if to == LIAR => {
                self.on_liar(from, message);
                to
            }
            Happening::Arrives { from, to, message } => {
                self.on_parcel(from, to, message);
                to
            }
        };
        self.settle(id);
        true
    }

    fn on_parcel(&mut self, from: NodeId, to: NodeId, parcel: Parcel) {
        let (now, wall_ms) = (self.network.now(), self.wall_ms());
        if let Parcel::Restart = parcel {
            if !self.nodes.contains_key(&to) {
                self.start(to);
            }
            return;
        }
        let Some(node) = self.nodes.get_mut(&to) else { return };
        let sender = peer(from as u8 + 1);
        match parcel {
            Parcel::Gossip(bytes) => {
                node.reached.insert(bytes.clone());
                if !node.seen.insert(hash(&bytes)) {
                    return;
                }
                if node.core.heard(sender, &bytes, wall_ms, now) == Verdict::Accept {
                    self.hand_on(to, Some(from), &bytes);
                }
            }
            Parcel::Question(stream, question) => {
                let request = InboundNumber(node.next_inbound);
                node.next_inbound += 1;
                node.asked.insert(request, (from, stream));
                node.core.handle_input(Input::Asked { peer: sender, request, question }, wall_ms, now);
            }
            Parcel::Answer((life, number), answer) if life == node.life => {
                if let Answer::Fetch { envelopes, .. } = &answer {
                    node.reached.extend(envelopes.iter().map(|bytes| bytes.to_vec()));
                }
                node.core.handle_input(Input::Answered { peer: sender, number, answer }, wall_ms, now);
            }
            Parcel::Answer(..) => {}
            Parcel::Up(other) => {
                node.up.insert(other);
                node.core.handle_input(Input::PeerUp { peer: peer(other as u8 + 1) }, wall_ms, now);
            }
            Parcel::Down(other) => {
                node.up.remove(&other);
                node.core.handle_input(Input::PeerDown { peer: peer(other as u8 + 1) }, wall_ms, now);
            }
            Parcel::Say => {
                let (text, name, team) = (format!("from {to}"), "ada".to_owned(), "althing".to_owned());
                let (id, bytes) = node.core.publish(Kind::Text, text, name, team, wall_ms, now).unwrap();
                node.seen.insert(hash(&bytes));
                assert!(self.said.insert(id, bytes.to_vec()).is_none(), "{}: a number given twice", self.desc);
                self.disks[to].rows.insert(id, bytes.to_vec());
                self.hand_on(to, None, &bytes);
            }
            Parcel::Restart | Parcel::Lie => {}
        }
    }

    /// Gossip: everybody hands on to every neighbour, each message once.
    fn hand_on(&mut self, id: NodeId, source: Option<NodeId>, bytes: &[u8]) {
        let node = self.nodes.get_mut(&id).unwrap();
        assert!(node.handed_on.insert(hash(bytes)), "{}: {id} hands on twice", self.desc);
        let up: Vec<_> = node.up.iter().copied().filter(|&other| Some(other) != source).collect();
        for other in up {
            self.network.send(id, other, Parcel::Gossip(bytes.to_vec()));
        }
    }

    fn on_liar(&mut self, from: NodeId, parcel: Parcel) {
        if !self.lying {
            return;
        }
        match parcel {
            Parcel::Question(stream, question) => {
                let answer = match question {
                    // It claims all sorts of things, and has none of them.
                    Question::Digest { .. } => {
                        let author = peer(self.network.rng().random_range(1..=HONEST as u8));
                        let have = vec![(1, 20), (1_000, u64::MAX / 2)];
                        Answer::Digest { streams: vec![StreamDigest { author, epoch: 1, have }], more: false }
                    }
                    Question::Fetch { ranges } => {
                        let sequence = ranges[0].from;
                        let author = (0..HONEST as u8).find(|&id| peer(id + 1) == ranges[0].author).unwrap_or(0) + 1;
                        let envelopes = match self.network.rng().random_range(0..3) {
                            0 => vec![],
                            1 => vec![ByteBuf::from(forged(author, 1, sequence))],
                            _ => vec![ByteBuf::from(signed(LIAR as u8 + 1, 9, 1, "unasked"))],
                        };
                        Answer::Fetch { envelopes, more: true }
                    }
                    Question::News {} => Answer::News {},
                };
                self.network.send(LIAR, from, Parcel::Answer(stream, answer));
            }
            Parcel::Lie => self.lie(),
            _ => {}
        }
    }

    fn lie(&mut self) {
        self.lies += 1;
        let victim = self.network.rng().random_range(0..HONEST);
        let author = self.network.rng().random_range(1..=HONEST as u8);
        let sequence = self.network.rng().random_range(1..15);
        match self.network.rng().random_range(0..3) {
            0 => self.network.send(LIAR, victim, Parcel::Gossip(forged(author, 1, sequence))),
            1 => {
                for victim in 0..HONEST {
                    let text = if victim % 2 == 0 { "yes" } else { "no" };
                    let bytes = signed(LIAR as u8 + 1, 1, self.lies, text);
                    self.network.send(LIAR, victim, Parcel::Gossip(bytes));
                }
            }
            _ => {
                // What was said long ago, again; gossipsub may have forgotten it by now.
                let count = self.said.len();
                let pick = self.network.rng().random_range(0..count.max(1));
                let Some(bytes) = self.said.values().nth(pick).cloned() else { return };
                if let Some(node) = self.nodes.get_mut(&victim) {
                    node.seen.remove(&hash(&bytes));
                }
                self.network.send(LIAR, victim, Parcel::Gossip(bytes));
            }
        }
    }

    fn settle(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let mut sends = Vec::new();
        while let Some(output) = node.core.poll_output() {
            match output {
                Output::Ask { peer: to, number, question } => {
                    let to = (0..=LIAR).find(|&node| peer(node as u8 + 1) == to).unwrap();
                    assert!(node.up.contains(&to), "{}: a question to no neighbour", self.desc);
                    sends.push((to, Parcel::Question((node.life, number), question)));
                }
                Output::Answer { request, answer } => {
                    let (to, stream) = node.asked.remove(&request).unwrap();
                    sends.push((to, Parcel::Answer(stream, answer)));
                }
                Output::Refuse { request } => {
                    node.asked.remove(&request).unwrap();
                }
                Output::Log(log::Output::Received { envelope, bytes, backlog, .. }) => {
                    let disk = &mut self.disks[id];
                    let known = disk.rows.insert(envelope.id(), bytes.to_vec());
                    assert!(known.is_none(), "{}: {id} is shown {} twice", self.desc, envelope.id());
                    disk.shown.push((envelope.id(), backlog));
                    self.backlog += usize::from(backlog);
                    let honest = envelope.author != peer(LIAR as u8 + 1);
                    if honest {
                        let true_bytes = self.said.get(&envelope.id()).map(Vec::as_slice);
                        assert_eq!(true_bytes, Some(&*bytes), "{}: {id} is shown a forgery", self.desc);
                    }
                    check_order(disk, envelope.id(), id == LATE, &self.desc);
                }
                Output::Log(log::Output::Gap { stream: StreamId { author, epoch }, from, to }) => {
                    for sequence in from..=to.min(from + 1_000) {
                        let fresh = self.disks[id].gaps.insert(BroadcastId { author, epoch, sequence });
                        assert!(fresh, "{}: {id} is told of a gap twice", self.desc);
                    }
                }
                Output::Log(log::Output::Fault { peer: blamed, kind, .. }) => {
                    assert_eq!(blamed, peer(LIAR as u8 + 1), "{}: an honest node is blamed for {kind}", self.desc);
                    self.equivocations += usize::from(kind == FaultKind::Equivocation);
                }
                Output::Log(log::Output::Waiting { .. }) => panic!("the core keeps that to itself"),
            }
        }
        let stats = node.core.stats();
        assert!(stats.held <= config().retained_messages && stats.held_bytes <= config().retained_bytes);
        // A lie may come again; gossipsub would know it, sync has no such memory.
        assert!(stats.verified <= node.reached.len() as u64 + stats.rejected, "{}: verified twice", self.desc);
        self.rejected = self.rejected.max(stats.rejected);
        if let Some(at) = node.core.poll_timeout()
            && node.wake.is_none_or(|wake| at < wake)
        {
            node.wake = Some(at);
            self.network.wake_at(id, at);
        }
        for (to, parcel) in sends {
            if self.nodes.contains_key(&to) || to == LIAR {
                self.network.send(id, to, parcel);
            }
        }
    }

    fn everybody_has_everything(&self) -> bool {
        self.nodes.len() == HONEST
            && self.disks.iter().all(|disk| self.said.keys().all(|id| disk.rows.contains_key(id)))
    }

    /// The faults stop; everything said must be everywhere soon after.
    fn heal_and_check(&mut self) {
        self.link = Link::perfect();
        self.network.set_link(Link::perfect());
        self.lying = false;
        for (a, b) in LINKS {
            self.relink(a, b);
        }
        let deadline = self.network.elapsed() + Duration::from_secs(120);
        while !self.everybody_has_everything() || self.network.elapsed() < Duration::from_secs(30) {
            assert!(self.network.elapsed() < deadline, "{}: something is still missing after two minutes", self.desc);
            assert!(self.step(), "{}: nothing more happens, and something is missing", self.desc);
        }
    }
}

/// Above everything shown before of that author and epoch, or told to be missing before. What a newcomer has missed
/// before it came is not told.
fn check_order(disk: &Disk, id: BroadcastId, newcomer: bool, desc: &str) {
    let stream = |other: &BroadcastId| (other.author, other.epoch) == (id.author, id.epoch);
    let shown = &disk.shown[..disk.shown.len() - 1];
    let highest = shown.iter().map(|(id, _)| id).filter(|other| stream(other)).map(|other| other.sequence).max();
    let in_order = highest.is_none_or(|highest| id.sequence > highest);
    assert!(in_order || disk.gaps.contains(&id) || newcomer, "{desc}: {id} is shown out of order");
}

#[test]
fn everybody_is_shown_everything_once_whatever_the_links_and_a_liar_do() {
    let (mut crashes, mut equivocations, mut rejected, mut backlog) = (0, 0, 0, 0);
    for seed in 0..250 {
        let mut world = World::new(seed, bad_link());
        while world.network.elapsed() < Duration::from_secs(25) {
            if !world.step() {
                break;
            }
            if world.network.rng().random_bool(0.0005) {
                let id = world.network.rng().random_range(0..HONEST);
                world.crash(id);
                crashes += 1;
            } else if world.network.rng().random_bool(0.001) {
                let (a, b) = LINKS[world.network.rng().random_range(0..LINKS.len())];
                for (a, b) in [(a, b), (b, a)] {
                    world.later(a, Duration::ZERO, Parcel::Down(b));
                    let after = Duration::from_millis(world.network.rng().random_range(100..4_000));
                    world.later(a, after, Parcel::Up(b));
                }
            }
        }
        world.heal_and_check();
        equivocations += world.equivocations;
        rejected += world.rejected;
        backlog += world.backlog;
    }
    assert!(crashes > 200, "{crashes} crashes");
    assert!(equivocations > 200, "{equivocations} equivocations were told");
    assert!(rejected > 200, "{rejected} lies were told");
    assert!(backlog > 1_000, "{backlog} came as backlog");
}

#[test]
fn without_faults_there_is_no_gap_and_no_silence() {
    for seed in 0..20 {
        let mut world = World::new(seed, Link::perfect());
        world.lying = false;
        while world.network.elapsed() < Duration::from_secs(25) && world.step() {}
        world.heal_and_check();
        assert!(world.disks.iter().all(|disk| disk.gaps.is_empty()));
    }
}

#[test]
fn two_halves_that_were_apart_have_the_same_soon_after_they_meet() {
    for seed in 0..20 {
        let mut world = World::new(seed, Link::perfect());
        world.lying = false;
        for (a, b) in [(1, 2), (0, 2)] {
            for (a, b) in [(a, b), (b, a)] {
                world.later(a, Duration::from_millis(100), Parcel::Down(b));
            }
        }
        while world.network.elapsed() < Duration::from_secs(25) && world.step() {}
        assert!(!world.everybody_has_everything());
        for (a, b) in [(1, 2), (0, 2)] {
            world.relink(a, b);
        }
        // News runs from node to node; the turn of each pair of neighbours would take some seconds.
        let deadline = world.network.elapsed() + Duration::from_secs(1);
        while !world.everybody_has_everything() {
            assert!(world.network.elapsed() < deadline, "{}: still apart after a second", world.desc);
            assert!(world.step());
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut world = World::new(seed, bad_link());
        while world.network.elapsed() < Duration::from_secs(25) && world.step() {}
        world.heal_and_check();
        world.network.trace_hash()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}
