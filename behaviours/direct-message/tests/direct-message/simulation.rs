//! The adversary: links that lose, double and reorder; links that come and go; nodes that crash at any step and keep
//! only their disk; disks that are full for a while. He cannot forge signatures.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use direct_message::inbox::{self, InboundNumber, Inbox};
use direct_message::outbox::{self, Outbox, RequestNumber, WINDOW, WINDOW_BYTES};
use direct_message::protocol::{Batch, Receipts};
use direct_message::{Config, Message, MessageId, NotStored, Outgoing, Settled, Stored, Token};
use libp2p::PeerId;
use rand::Rng;
use simulator::{Happening, Link, Network, NodeId};

use crate::common::{WALL_MS, outgoing, peer};

/// What travels, and what a node tells itself later.
#[derive(Clone)]
enum Parcel {
    Request(Stream, Batch),
    Response(Stream, Receipts),
    /// The application commits its next message to that node.
    Write(NodeId),
    /// The disk has committed a batch; the outcomes are on their way back.
    Committed(Token, Vec<(MessageId, Stored)>),
    /// The disk has read on.
    Refilled(NodeId, Vec<Outgoing>, bool),
    /// The link to that node came up or went down.
    Up(NodeId),
    Down(NodeId),
    /// The node starts again after a crash.
    Restart,
}

/// A response comes on its request's stream: it never reaches a later life of the node that asked.
type Stream = (u64, RequestNumber);

/// What survives a crash.
#[derive(Default)]
struct Disk {
    /// Unsettled messages to each node.
    outbox: BTreeMap<NodeId, BTreeMap<u64, Outgoing>>,
    delivered: BTreeSet<MessageId>,
    /// Author, number and id in the order in which they were first stored.
    history: Vec<(PeerId, u64, MessageId)>,
}

struct Node {
    life: u64,
    outbox: Outbox,
    inbox: Inbox,
    /// Requests of others: who asked, and on which stream.
    asked: BTreeMap<InboundNumber, (NodeId, Stream)>,
    next_inbound: u64,
    up: BTreeSet<NodeId>,
    in_flight: BTreeMap<NodeId, RequestNumber>,
    wake: Option<Instant>,
}

struct World {
    network: Network<Parcel>,
    link: Link,
    nodes: BTreeMap<NodeId, Node>,
    disks: Vec<Disk>,
    /// Signed in advance, in the order of writing.
    unwritten: BTreeMap<(NodeId, NodeId), Vec<Outgoing>>,
    written: BTreeMap<(NodeId, NodeId), Vec<MessageId>>,
    disk_full: f64,
    steps: u64,
    restarts: u64,
}

fn config() -> Config {
    Config {
        request_timeout: Duration::from_secs(2),
        retry_max: Duration::from_secs(4),
        messages_per_second: 200,
        message_burst: 40,
        ..Config::default()
    }
}

impl World {
    /// Nodes 0 to `count` - 1, each with so many messages to write to each other one.
    fn new(seed: u64, link: Link, count: usize, letters: &BTreeMap<(NodeId, NodeId), Vec<Outgoing>>) -> Self {
        let mut world = Self {
            network: Network::new(seed, link.clone()),
            link,
            nodes: BTreeMap::new(),
            disks: (0..count).map(|_| Disk::default()).collect(),
            unwritten: letters.clone(),
            written: BTreeMap::new(),
            disk_full: 0.0,
            steps: 0,
            restarts: 0,
        };
        for node in 0..count {
            world.start(node);
        }
        for (&(from, to), letters) in letters {
            let mut at = Duration::ZERO;
            for _ in letters {
                // Now in bursts, now one by one.
                at += Duration::from_millis(world.network.rng().random_range(0..3) * 150);
                world.later(from, at, Parcel::Write(to));
            }
        }
        world
    }

    /// A parcel from a node to itself, for which loss and doubling do not hold.
    fn later(&mut self, node: NodeId, after: Duration, parcel: Parcel) {
        self.network.set_link(Link { loss: 0.0, duplicate: 0.0, delay: after..after });
        self.network.send(node, node, parcel);
        self.network.set_link(self.link.clone());
    }

    fn start(&mut self, id: NodeId) {
        self.restarts += 1;
        let mut outbox = Outbox::new(config(), id as u64 + 100 * self.restarts);
        for (&to, waiting) in &self.disks[id].outbox {
            if !waiting.is_empty() {
                outbox.handle_input(outbox::Input::Pending { peer: peer(to as u8) }, self.network.now());
            }
        }
        let inbox = Inbox::new(peer(id as u8), config());
        let node = Node {
            life: self.restarts,
            outbox,
            inbox,
            asked: BTreeMap::new(),
            next_inbound: 0,
            up: BTreeSet::new(),
            in_flight: BTreeMap::new(),
            wake: None,
        };
        self.nodes.insert(id, node);
        let others: Vec<_> = self.nodes.keys().copied().filter(|&other| other != id).collect();
        for other in others {
            for (a, b) in [(id, other), (other, id)] {
                let after = Duration::from_millis(self.network.rng().random_range(1..50));
                self.later(a, after, Parcel::Up(b));
            }
        }
        self.settle(id);
    }

    fn crash(&mut self, id: NodeId) {
        if self.nodes.remove(&id).is_none() {
            return;
        }
        self.network.crash(id);
        // What the application wanted to write, it wants to write again after the restart.
        let others: Vec<_> = self.nodes.keys().copied().collect();
        for other in others {
            let after = Duration::from_millis(self.network.rng().random_range(0..300));
            self.later(other, after, Parcel::Down(id));
        }
        for other in 0..self.disks.len() {
            let left = self.unwritten.get(&(id, other)).map_or(0, Vec::len);
            for index in 0..left {
                self.later(id, Duration::from_millis(600 + index as u64), Parcel::Write(other));
            }
        }
        let after = Duration::from_millis(self.network.rng().random_range(10..500));
        self.later(id, after, Parcel::Restart);
    }

    /// One happening; `false` when nothing is left.
    fn step(&mut self) -> bool {
        let Some(happening) = self.network.next() else { return false };
        self.steps += 1;
        let id = match happening {
            Happening::Wakes { node } => {
                let now = self.network.now();
                if let Some(node) = self.nodes.get_mut(&node) {
                    node.wake = None;
                    node.outbox.handle_timeout(now);
                }
                node
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
        let now = self.network.now();
        if let Parcel::Restart = parcel {
            return self.start(to);
        }
        let Some(node) = self.nodes.get_mut(&to) else { return };
        let sender = peer(from as u8);
        match parcel {
            Parcel::Request(stream, batch) => {
                let request = InboundNumber(node.next_inbound);
                node.next_inbound += 1;
                node.asked.insert(request, (from, stream));
                let input = inbox::Input::Batch { peer: sender, request, batch, wall_ms: WALL_MS };
                node.inbox.handle_input(input, now).unwrap();
            }
            Parcel::Response((life, request), Receipts { receipts }) => {
                if life != node.life {
                    return;
                }
                if node.in_flight.get(&from) == Some(&request) {
                    node.in_flight.remove(&from);
                }
                node.outbox.handle_input(outbox::Input::Answered { peer: sender, request, receipts }, now);
            }
            Parcel::Write(to_node) => {
                let letters = self.unwritten.get_mut(&(to, to_node)).unwrap();
                if letters.is_empty() {
                    return;
                }
                let message = letters.remove(0);
                self.written.entry((to, to_node)).or_default().push(message.id);
                self.disks[to].outbox.entry(to_node).or_default().insert(message.seq, message.clone());
                node.outbox.handle_input(outbox::Input::Queued { peer: peer(to_node as u8), message }, now);
            }
            Parcel::Committed(token, outcomes) => {
                node.inbox.handle_input(inbox::Input::Stored { token, outcomes }, now).unwrap();
            }
            Parcel::Refilled(to_node, messages, more) => {
                node.outbox.handle_input(outbox::Input::Refilled { peer: peer(to_node as u8), messages, more }, now);
            }
            Parcel::Up(other) => {
                if self.disks.len() > other && node.up.insert(other) {
                    node.outbox.handle_input(outbox::Input::PeerUp { peer: peer(other as u8) }, now);
                }
            }
            Parcel::Down(other) => {
                node.up.remove(&other);
                node.in_flight.remove(&other);
                node.outbox.handle_input(outbox::Input::PeerDown { peer: peer(other as u8) }, now);
                // It comes back sooner or later.
                self.later(to, Duration::from_millis(700), Parcel::Up(other));
            }
            Parcel::Restart => {}
        }
    }

    /// Do what the cores of a node want.
    fn settle(&mut self, id: NodeId) {
        while let Some(output) = self.nodes.get_mut(&id).and_then(|node| node.outbox.poll_output()) {
            self.on_outbox(id, output);
        }
        while let Some(output) = self.nodes.get_mut(&id).and_then(|node| node.inbox.poll_output()) {
            self.on_inbox(id, output);
        }
        let Some(node) = self.nodes.get_mut(&id) else { return };
        for other in 0..self.disks.len() {
            let (messages, bytes) = node.outbox.held(&peer(other as u8));
            assert!(messages <= WINDOW && bytes <= WINDOW_BYTES);
        }
        if let Some(at) = node.outbox.poll_timeout().filter(|&at| node.wake.is_none_or(|wake| at < wake)) {
            node.wake = Some(at);
            self.network.wake_at(id, at);
        }
    }

    fn on_outbox(&mut self, id: NodeId, output: outbox::Output) {
        match output {
            outbox::Output::Send { peer, request, batch } => {
                let to = self.node_of(&peer);
                let node = self.nodes.get_mut(&id).unwrap();
                assert!(node.up.contains(&to), "only a peer that is up is sent to");
                assert_eq!(node.in_flight.insert(to, request), None, "one request in flight");
                self.network.send(id, to, Parcel::Request((node.life, request), batch));
            }
            outbox::Output::Refill { peer, after_seq, limit, max_bytes } => {
                let to = self.node_of(&peer);
                let empty = BTreeMap::new();
                let waiting = self.disks[id].outbox.get(&to).unwrap_or(&empty);
                let mut bytes = 0;
                // Pages are small, so that there are many.
                let messages: Vec<_> = waiting
                    .range(after_seq + 1..)
                    .map(|(_, message)| message.clone())
                    .take(limit.min(5))
                    .take_while(|message| {
                        bytes += message.envelope.len();
                        bytes <= max_bytes
                    })
                    .collect();
                let last = messages.last().map_or(after_seq, |message| message.seq);
                let more = waiting.range(last + 1..).next().is_some();
                let after = Duration::from_millis(self.network.rng().random_range(0..30));
                self.later(id, after, Parcel::Refilled(to, messages, more));
            }
            outbox::Output::Settled { peer, receipts } => {
                let to = self.node_of(&peer);
                for (message, end) in receipts {
                    assert_eq!(end, Settled::Delivered, "nobody refuses or expires anything here");
                    let stored = self.disks[to].history.iter().any(|&(_, _, stored)| stored == message);
                    assert!(stored, "what is settled is on the receiver's disk");
                    self.disks[id].delivered.insert(message);
                    self.disks[id].outbox.entry(to).or_default().retain(|_, waiting| waiting.id != message);
                }
            }
            outbox::Output::Requeued { peer, .. } => {
                let to = self.node_of(&peer);
                self.nodes.get_mut(&id).unwrap().in_flight.remove(&to);
            }
            outbox::Output::Sent { .. } => {}
            outbox::Output::Fault { kind, .. } => panic!("an honest peer is accused of {kind}"),
        }
    }

    fn on_inbox(&mut self, id: NodeId, output: inbox::Output) {
        match output {
            inbox::Output::Store { token, messages, .. } => {
                let fails = self.network.rng().random_bool(self.disk_full);
                let room = if fails { self.network.rng().random_range(0..messages.len()) } else { messages.len() };
                let outcomes = messages
                    .iter()
                    .enumerate()
                    .map(|(index, message)| {
                        if index >= room {
                            return (message.id, Stored::No(NotStored::TryLater));
                        }
                        self.disks[id].store(message);
                        (message.id, Stored::Yes)
                    })
                    .collect();
                let after = Duration::from_millis(self.network.rng().random_range(0..30));
                self.later(id, after, Parcel::Committed(token, outcomes));
            }
            inbox::Output::Respond { request, receipts } => {
                let (to, stream) = self.nodes.get_mut(&id).unwrap().asked.remove(&request).unwrap();
                self.network.send(id, to, Parcel::Response(stream, receipts));
            }
            inbox::Output::Reject { .. } => panic!("an honest batch is rejected"),
            // The network doubles requests, and that looks like a flood.
            inbox::Output::Fault { kind, .. } => assert_eq!(kind.to_string(), "flood"),
        }
    }

    fn node_of(&self, id: &PeerId) -> NodeId {
        (0..self.disks.len()).find(|&node| peer(node as u8) == *id).unwrap()
    }

    fn all_settled(&self) -> bool {
        self.unwritten.values().all(Vec::is_empty)
            && self.disks.iter().all(|disk| disk.outbox.values().all(BTreeMap::is_empty))
    }

    /// The faults stop; everything written must arrive soon after.
    fn heal_and_check(&mut self, desc: &str) {
        self.link = Link::perfect();
        self.network.set_link(Link::perfect());
        self.disk_full = 0.0;
        let deadline = self.network.elapsed() + Duration::from_secs(120);
        while !self.all_settled() {
            assert!(self.network.elapsed() < deadline, "{desc}: still waiting after two minutes without faults");
            assert!(self.step(), "{desc}: nothing more happens, and something still waits");
        }
        for (&(from, to), written) in &self.written {
            let author = peer(from as u8);
            let stored: Vec<_> = self.disks[to].history.iter().filter(|(by, ..)| *by == author).collect();
            let ids: Vec<_> = stored.iter().map(|(_, _, id)| *id).collect();
            assert_eq!(&ids, written, "{desc}: {from} to {to}, each once and in order");
            assert!(ids.iter().all(|id| self.disks[from].delivered.contains(id)), "{desc}");
        }
    }
}

impl Disk {
    fn store(&mut self, message: &Message) {
        let row = (message.from, message.seq, message.id);
        if !self.history.contains(&row) {
            self.history.push(row);
        }
    }
}

/// Messages from every node to every other one, signed once for all runs.
fn letters(count: usize, each: u64) -> BTreeMap<(NodeId, NodeId), Vec<Outgoing>> {
    let mut letters = BTreeMap::new();
    for from in 0..count {
        for to in (0..count).filter(|&to| to != from) {
            let signed = (1..=each).map(|seq| outgoing(from as u8, to as u8, seq, "hello")).collect();
            letters.insert((from, to), signed);
        }
    }
    letters
}

fn bad_link() -> Link {
    Link { loss: 0.2, duplicate: 0.2, delay: Duration::from_millis(1)..Duration::from_millis(400) }
}

#[test]
fn everything_arrives_once_and_in_order_under_loss_doubling_reordering_crashes_and_full_disks() {
    let letters = letters(3, 8);
    let mut crashes = 0;
    for seed in 0..300 {
        let mut world = World::new(seed, bad_link(), 3, &letters);
        world.disk_full = 0.2;
        for _ in 0..400 {
            if !world.step() {
                break;
            }
            let id = world.network.rng().random_range(0..3);
            if world.network.rng().random_bool(0.01) {
                world.crash(id);
                crashes += 1;
            } else if world.network.rng().random_bool(0.01) {
                let other = (id + 1) % 3;
                world.later(id, Duration::ZERO, Parcel::Down(other));
            }
        }
        world.heal_and_check(&format!("seed {seed}"));
    }
    assert!(crashes > 300, "{crashes} crashes");
}

#[test]
fn a_crash_at_any_step_loses_nothing() {
    let letters = letters(2, 8);
    for (link, seeds) in [(Link::perfect(), 0..2), (bad_link(), 2..5)] {
        for seed in seeds {
            let mut undisturbed = World::new(seed, link.clone(), 2, &letters);
            while !undisturbed.all_settled() {
                assert!(undisturbed.step());
            }
            for victim in 0..2 {
                for step in 0..=undisturbed.steps {
                    let mut world = World::new(seed, link.clone(), 2, &letters);
                    for _ in 0..step {
                        world.step();
                    }
                    world.crash(victim);
                    world.heal_and_check(&format!("seed {seed}, node {victim} crashes at step {step}"));
                }
            }
        }
    }
}

#[test]
fn a_disk_that_is_full_for_a_while_only_delays() {
    let letters = letters(2, 20);
    for seed in 0..20 {
        let mut world = World::new(seed, Link::perfect(), 2, &letters);
        world.disk_full = 1.0;
        while world.network.elapsed() < Duration::from_secs(20) {
            assert!(world.step());
        }
        assert!(!world.all_settled());
        world.heal_and_check(&format!("seed {seed}"));
    }
}

#[test]
fn a_backlog_of_thousands_drains_in_order_through_small_windows() {
    let letters = letters(2, 3_000);
    let mut world = World::new(1, Link::perfect(), 2, &letters);
    for &node in &[0, 1] {
        let other = 1 - node;
        let all = std::mem::take(world.unwritten.get_mut(&(node, other)).unwrap());
        world.written.insert((node, other), all.iter().map(|message| message.id).collect());
        let all = all.into_iter().map(|message| (message.seq, message)).collect();
        world.disks[node].outbox.insert(other, all);
        world.crash(node);
    }
    world.heal_and_check("backlog");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let letters = letters(2, 8);
    let run = |seed| {
        let mut world = World::new(seed, bad_link(), 2, &letters);
        world.heal_and_check("run");
        world.network.trace_hash()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}
