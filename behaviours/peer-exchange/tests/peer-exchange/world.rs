use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use libp2p::PeerId;
use peer_exchange::links::{Input, LinkId, Links, Output};
use peer_exchange::{Config, Event, FaultKind, SignedCard};
use rand::Rng;
use simulator::{Happening, Link, Network, NodeId};

use crate::cast::{card, peer};

/// The name under which the world wakes itself.
const WORLD: NodeId = 99;
pub(crate) const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn ms(range: std::ops::Range<u64>, world: &mut World) -> Duration {
    Duration::from_millis(world.network.rng().random_range(range))
}

/// What travels: the `number`-th thing that this end of the connection says, so that the other end can put them in order.
#[derive(Clone)]
pub(crate) struct Packet {
    pub(crate) connection: usize,
    pub(crate) number: u64,
    pub(crate) body: Body,
}

#[derive(Clone)]
pub(crate) enum Body {
    Dial,
    Accept,
    Hello(SignedCard),
    Goodbye(u64),
    Refused(u64),
    Fin,
}

pub(crate) enum Act {
    /// A close that was asked for is done.
    Closes {
        node: NodeId,
        life: u64,
        connection: usize,
    },
    /// The ping of a node finds out that the connection is dead.
    PingFails {
        node: NodeId,
        life: u64,
        connection: usize,
    },
    /// The event loop looks for peers that it wants and lacks.
    Maintain {
        node: NodeId,
        life: u64,
    },
    Break,
    Crash,
    Restart {
        node: NodeId,
    },
    Dial,
    Disconnect,
    Leave,
    Crashed {
        node: NodeId,
        fin: bool,
    },
    Rename,
}

/// One end of a connection.
pub(crate) struct End {
    pub(crate) node: NodeId,
    pub(crate) life: u64,
    pub(crate) link: Option<LinkId>,
    pub(crate) said: u64,
    pub(crate) heard: u64,
    pub(crate) early: BTreeMap<u64, Body>,
}

pub(crate) struct Connection {
    pub(crate) ends: [End; 2],
    /// Nothing passes any more; each end finds out by itself.
    pub(crate) broken: bool,
}

pub(crate) struct Node {
    pub(crate) number: u8,
    pub(crate) alive: bool,
    pub(crate) life: u64,
    pub(crate) boot: u64,
    pub(crate) revision: u64,
    pub(crate) links: Links,
    /// The connection of each link that the swarm still has.
    pub(crate) open: BTreeMap<LinkId, usize>,
    /// When links opened that have shown no hello and were not closed.
    pub(crate) waiting: BTreeMap<LinkId, Instant>,
    pub(crate) next_link: u64,
    pub(crate) wants: BTreeSet<NodeId>,
    pub(crate) dialling: BTreeMap<NodeId, Instant>,
    /// What a protocol like gossipsub knows: the life in which each peer was when the first of its present links opened.
    pub(crate) met: BTreeMap<PeerId, u64>,
    /// Who is up by the events, with its boot.
    pub(crate) up: BTreeMap<PeerId, u64>,
    /// The highest boot that was up, to see that time does not run backwards.
    pub(crate) seen: BTreeMap<PeerId, u64>,
    pub(crate) log: Vec<(Duration, Event)>,
    pub(crate) quiet: bool,
}

pub(crate) struct World {
    pub(crate) network: Network<Packet>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) connections: Vec<Connection>,
    pub(crate) agenda: BTreeMap<(Instant, u64), Act>,
    pub(crate) serial: u64,
    pub(crate) faults: Vec<(NodeId, FaultKind)>,
    pub(crate) closes: usize,
    pub(crate) hanging_closes: bool,
}

impl World {
    pub(crate) fn new(seed: u64, numbers: &[u8]) -> Self {
        let delay = Duration::from_millis(1)..Duration::from_millis(80);
        let network = Network::new(seed, Link { loss: 0.0, duplicate: 0.0, delay });
        let nodes = numbers.iter().map(|&number| Node {
            number,
            alive: true,
            life: 0,
            boot: 1,
            revision: 0,
            links: Links::new(peer(number), Config::default()),
            open: BTreeMap::new(),
            waiting: BTreeMap::new(),
            next_link: 0,
            wants: BTreeSet::new(),
            dialling: BTreeMap::new(),
            met: BTreeMap::new(),
            up: BTreeMap::new(),
            seen: BTreeMap::new(),
            log: Vec::new(),
            quiet: false,
        });
        let nodes = nodes.collect();
        Self {
            network,
            nodes,
            connections: Vec::new(),
            agenda: BTreeMap::new(),
            serial: 0,
            faults: Vec::new(),
            closes: 0,
            hanging_closes: false,
        }
    }

    pub(crate) fn at(&mut self, delay: Duration, act: Act) {
        self.serial += 1;
        let at = self.network.now() + delay;
        self.agenda.insert((at, self.serial), act);
        self.network.wake_at(WORLD, at);
    }

    /// From now on `node` dials `other` whenever it is not up.
    pub(crate) fn want(&mut self, node: NodeId, other: NodeId) {
        if self.nodes[node].wants.is_empty() {
            let act = Act::Maintain { node, life: self.nodes[node].life };
            self.at(Duration::ZERO, act);
        }
        self.nodes[node].wants.insert(other);
    }

    pub(crate) fn run(&mut self, time: Duration) {
        let until = self.network.now() + time;
        while let Some(happening) = self.network.next_until(until) {
            match happening {
                Happening::Wakes { node: WORLD } => self.act(),
                Happening::Wakes { node } => {
                    self.nodes[node].links.handle_timeout(self.network.now());
                    self.drain(node);
                }
                Happening::Arrives { to, message, .. } => self.arrives(to, message),
            }
            let now = self.network.now();
            for node in self.nodes.iter().filter(|node| node.alive) {
                for (link, since) in &node.waiting {
                    let age = now - *since;
                    assert!(age <= Config::default().hello_timeout, "{link:?} has no hello after {age:?}");
                }
            }
        }
    }

    pub(crate) fn act(&mut self) {
        while let Some(entry) = self.agenda.first_entry() {
            if entry.key().0 > self.network.now() {
                return;
            }
            let act = entry.remove();
            self.do_one(act);
        }
    }

    pub(crate) fn do_one(&mut self, act: Act) {
        match act {
            Act::Closes { node, life, connection } => {
                if self.lives(node, life) {
                    self.say(node, connection, Body::Fin);
                    self.closed(node, connection, "closed here");
                }
            }
            Act::PingFails { node, life, connection } => {
                if self.lives(node, life) {
                    self.closed(node, connection, "no answer to pings");
                }
            }
            Act::Maintain { node, life } => {
                if self.lives(node, life) {
                    self.maintain(node);
                    let delay = ms(500..1500, self);
                    self.at(delay, Act::Maintain { node, life });
                }
            }
            Act::Break => {
                let count = self.connections.len();
                if count > 0 {
                    // Mostly one of the latest, which is likely to be in use.
                    let back = self.network.rng().random_range(0..count.min(3));
                    self.break_connection(count - 1 - back);
                }
            }
            Act::Crash => {
                let node = self.any_node();
                let fin = self.network.rng().random_bool(0.5);
                if self.nodes[node].alive {
                    self.crash(node, fin);
                }
            }
            Act::Crashed { node, fin } => {
                if self.nodes[node].alive {
                    self.crash(node, fin);
                }
            }
            Act::Restart { node } => self.restart(node),
            Act::Dial => {
                let (a, b) = (self.any_node(), self.any_node());
                if a != b && self.nodes[a].alive {
                    self.dial(a, b);
                }
                if a != b && self.nodes[b].alive {
                    self.dial(b, a);
                }
            }
            Act::Disconnect => {
                let (a, b) = (self.any_node(), self.any_node());
                let other = peer(self.nodes[b].number);
                self.input(a, Input::Disconnect { peer: other });
            }
            Act::Leave => {
                let node = self.any_node();
                if self.nodes[node].alive {
                    self.input(node, Input::DisconnectAll);
                    let gone = Config::default().goodbye_timeout + Duration::from_millis(10);
                    self.at(gone, Act::Crashed { node, fin: true });
                }
            }
            Act::Rename => {
                let node = self.any_node();
                self.nodes[node].revision += 1;
                let open: Vec<_> =
                    self.nodes[node].links.open().map(|(_, link)| self.nodes[node].open[&link]).collect();
                let card = self.card(node);
                for connection in open {
                    self.say(node, connection, Body::Hello(card.clone()));
                }
            }
        }
    }

    pub(crate) fn any_node(&mut self) -> NodeId {
        let count = self.nodes.len();
        self.network.rng().random_range(0..count)
    }

    pub(crate) fn lives(&self, node: NodeId, life: u64) -> bool {
        self.nodes[node].alive && self.nodes[node].life == life
    }

    pub(crate) fn card(&self, node: NodeId) -> SignedCard {
        card(self.nodes[node].number, self.nodes[node].boot, self.nodes[node].revision)
    }

    pub(crate) fn maintain(&mut self, node: NodeId) {
        let now = self.network.now();
        for other in self.nodes[node].wants.clone() {
            let id = peer(self.nodes[other].number);
            let this = &mut self.nodes[node];
            this.dialling.retain(|_, since| now - *since < 3 * SECOND);
            if !this.links.is_up(&id) && !this.dialling.contains_key(&other) {
                self.dial(node, other);
            }
        }
    }

    pub(crate) fn dial(&mut self, from: NodeId, to: NodeId) {
        let end = |node: NodeId, life| End { node, life, link: None, said: 0, heard: 0, early: BTreeMap::new() };
        let ends = [end(from, self.nodes[from].life), end(to, u64::MAX)];
        self.connections.push(Connection { ends, broken: false });
        let now = self.network.now();
        self.nodes[from].dialling.insert(to, now);
        self.say(from, self.connections.len() - 1, Body::Dial);
    }

    pub(crate) fn break_connection(&mut self, connection: usize) {
        self.connections[connection].broken = true;
        for side in 0..2 {
            self.will_notice(connection, side);
        }
    }

    /// That end finds out some time that the other one is gone.
    pub(crate) fn will_notice(&mut self, connection: usize, side: usize) {
        let End { node, life, .. } = self.connections[connection].ends[side];
        let delay = ms(500..30_000, self);
        self.at(delay, Act::PingFails { node, life, connection });
    }

    pub(crate) fn crash(&mut self, node: NodeId, fin: bool) {
        let delay = ms(0..3000, self);
        self.crash_for(node, fin, delay);
    }

    pub(crate) fn crash_for(&mut self, node: NodeId, fin: bool, delay: Duration) {
        for connection in self.nodes[node].open.values().copied().collect::<Vec<_>>() {
            if fin {
                self.say(node, connection, Body::Fin);
            }
        }
        let life = self.nodes[node].life;
        for connection in 0..self.connections.len() {
            for side in 0..2 {
                let ends = &self.connections[connection].ends;
                if ends[side].node == node && ends[side].life == life && ends[1 - side].link.is_some() {
                    self.will_notice(connection, 1 - side);
                }
            }
        }
        self.network.crash(node);
        self.nodes[node].alive = false;
        self.at(delay, Act::Restart { node });
    }

    pub(crate) fn restart(&mut self, node: NodeId) {
        let this = &mut self.nodes[node];
        this.alive = true;
        this.life += 1;
        this.boot += 1;
        this.revision = 0;
        this.links = Links::new(peer(this.number), Config::default());
        this.open.clear();
        this.waiting.clear();
        this.dialling.clear();
        this.met.clear();
        this.up.clear();
        this.quiet = false;
        let act = Act::Maintain { node, life: this.life };
        self.at(Duration::ZERO, act);
    }

    pub(crate) fn say(&mut self, node: NodeId, connection: usize, body: Body) {
        let entry = &mut self.connections[connection];
        let side = usize::from(entry.ends[1].node == node);
        let number = entry.ends[side].said;
        entry.ends[side].said += 1;
        let to = entry.ends[1 - side].node;
        if !entry.broken && self.nodes[to].alive {
            self.network.send(node, to, Packet { connection, number, body });
        }
    }

    pub(crate) fn arrives(&mut self, node: NodeId, packet: Packet) {
        let Packet { connection, number, body } = packet;
        let entry = &mut self.connections[connection];
        let side = usize::from(entry.ends[1].node == node);
        if entry.broken {
            return;
        }
        if matches!(body, Body::Dial) {
            entry.ends[side].life = self.nodes[node].life;
        }
        if entry.ends[side].life != self.nodes[node].life {
            return;
        }
        entry.ends[side].early.insert(number, body);
        loop {
            let end = &mut self.connections[connection].ends[side];
            let Some(body) = end.early.remove(&end.heard) else { break };
            end.heard += 1;
            self.heard(node, connection, side, body);
        }
    }

    pub(crate) fn heard(&mut self, node: NodeId, connection: usize, side: usize, body: Body) {
        let other = &self.connections[connection].ends[1 - side];
        let from = peer(self.nodes[other.node].number);
        let gone = !self.lives(other.node, other.life);
        let dialled_to = other.node;
        let link = self.connections[connection].ends[side].link;
        let input = match (body, link) {
            (Body::Dial, _) => {
                self.say(node, connection, Body::Accept);
                return self.opened(node, connection, side, from, gone);
            }
            (Body::Accept, _) => {
                self.nodes[node].dialling.remove(&dialled_to);
                return self.opened(node, connection, side, from, gone);
            }
            (Body::Hello(card), Some(link)) => {
                if self.nodes[node].open.contains_key(&link) {
                    self.nodes[node].waiting.remove(&link);
                    self.input(node, Input::Hello { peer: from, link, card });
                }
                return;
            }
            (Body::Goodbye(boot), Some(link)) => Input::Goodbye { peer: from, link, boot },
            (Body::Refused(boot), Some(link)) => Input::Refused { peer: from, link, boot },
            (Body::Fin, _) => return self.closed(node, connection, "closed by the remote"),
            (_, None) => return,
        };
        self.input(node, input);
    }

    pub(crate) fn opened(&mut self, node: NodeId, connection: usize, side: usize, from: PeerId, gone: bool) {
        let now = self.network.now();
        let card = self.card(node);
        let life = self.connections[connection].ends[1 - side].life;
        self.nodes[node].met.entry(from).or_insert(life);
        let this = &mut self.nodes[node];
        this.next_link += 1;
        let link = LinkId(this.next_link);
        this.open.insert(link, connection);
        this.waiting.insert(link, now);
        self.connections[connection].ends[side].link = Some(link);
        if gone {
            self.will_notice(connection, side);
        }
        self.say(node, connection, Body::Hello(card));
        let address = "/memory/1".parse().unwrap();
        self.input(node, Input::Opened { peer: from, link, dialled: side == 0, address });
    }

    pub(crate) fn closed(&mut self, node: NodeId, connection: usize, cause: &str) {
        let ends = &self.connections[connection].ends;
        let side = usize::from(ends[1].node == node);
        let from = peer(self.nodes[ends[1 - side].node].number);
        let Some(link) = ends[side].link else { return };
        if self.nodes[node].open.remove(&link).is_some() {
            self.nodes[node].waiting.remove(&link);
            let other = ends[1 - side].node;
            if self.between(node, other).is_empty() {
                self.nodes[node].met.remove(&from);
            }
            self.input(node, Input::Closed { peer: from, link, cause: cause.into() });
        }
    }

    pub(crate) fn input(&mut self, node: NodeId, input: Input) {
        self.nodes[node].links.handle_input(input, self.network.now());
        self.drain(node);
    }

    pub(crate) fn drain(&mut self, node: NodeId) {
        while let Some(output) = self.nodes[node].links.poll_output() {
            match output {
                Output::Close { link, .. } => {
                    self.closes += 1;
                    self.nodes[node].waiting.remove(&link);
                    let hangs = self.hanging_closes && self.network.rng().random_bool(0.1);
                    let delay = if hangs { 20 * SECOND } else { ms(0..20, self) };
                    let life = self.nodes[node].life;
                    let connection = self.nodes[node].open[&link];
                    self.at(delay, Act::Closes { node, life, connection });
                }
                Output::SayGoodbye { link, .. } => {
                    self.nodes[node].waiting.remove(&link);
                    let connection = self.nodes[node].open[&link];
                    let boot = self.nodes[node].boot;
                    self.say(node, connection, Body::Goodbye(boot));
                }
                Output::Refuse { link, boot, .. } => {
                    let connection = self.nodes[node].open[&link];
                    self.say(node, connection, Body::Refused(boot));
                }
                Output::Fault { kind, .. } => self.faults.push((node, kind)),
                Output::Event(event) => self.event(node, event),
            }
        }
        if let Some(at) = self.nodes[node].links.poll_timeout() {
            self.network.wake_at(node, at);
        }
    }

    pub(crate) fn event(&mut self, node: NodeId, event: Event) {
        let elapsed = self.network.elapsed();
        let this = &mut self.nodes[node];
        this.log.push((elapsed, event.clone()));
        match event {
            Event::Up { peer, card, .. } => {
                let boot = card.card().boot;
                assert_eq!(this.up.insert(peer, boot), None, "up twice");
                let seen = this.seen.entry(peer).or_default();
                assert!(boot >= *seen, "an older boot is up again");
                *seen = boot;
            }
            Event::Updated { peer, card } => {
                let held = this.up.get_mut(&peer).expect("updated without being up");
                *held = card.card().boot;
            }
            Event::Left { peer } => assert!(this.up.remove(&peer).is_some(), "left without being up"),
            Event::Lost { peer: lost, reset, .. } => {
                assert!(this.up.remove(&lost).is_some(), "lost without being up");
                let wanted = this.wants.clone().into_iter().find(|other| peer(self.nodes[*other].number) == lost);
                if let Some(other) = wanted.filter(|_| reset) {
                    self.dial(node, other);
                }
            }
            Event::Refused { boot, .. } => {
                assert!(boot > this.boot, "refused without a later boot");
            }
            Event::Quiet => {
                assert!(!this.quiet, "quiet twice");
                this.quiet = true;
            }
            other => panic!("unexpected {other:?}"),
        }
    }

    /// Both have each other up, with the present boot, over the same single connection.
    pub(crate) fn assert_agreed(&self, a: NodeId, b: NodeId, seed: u64) {
        let links = |from: NodeId, to: NodeId| {
            let to = &self.nodes[to];
            assert_eq!(
                self.nodes[from].up.get(&peer(to.number)),
                Some(&to.boot),
                "seed {seed}: {from} has {to} not up",
                to = to.number
            );
            let best = self.nodes[from].links.best(&peer(to.number)).unwrap();
            self.nodes[from].open[&best]
        };
        let (here, there) = (links(a, b), links(b, a));
        assert_eq!(here, there, "seed {seed}: they use different connections");
        for (node, other) in [(a, b), (b, a)] {
            assert_eq!(self.between(node, other).len(), 1, "seed {seed}: {node} keeps surplus links");
            // rust-libp2p issue 5097: a peer that was met in an earlier life is never told our subscriptions.
            let met = self.nodes[node].met[&peer(self.nodes[other].number)];
            assert_eq!(met, self.nodes[other].life, "seed {seed}: {node} was never without a link to {other}");
        }
    }

    /// The connections to `other` that `node` holds.
    pub(crate) fn between(&self, node: NodeId, other: NodeId) -> Vec<usize> {
        let open = self.nodes[node].open.values().copied();
        open.filter(|&connection| self.connections[connection].ends.iter().any(|end| end.node == other)).collect()
    }

    pub(crate) fn lost(&self, node: NodeId) -> usize {
        self.nodes[node].log.iter().filter(|(_, event)| matches!(event, Event::Lost { .. })).count()
    }
}
