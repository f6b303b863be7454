//! Nodes with both cores, in virtual time. Own event heap: a thousand nodes are too many for a set of cut pairs.
//!
//! A link that cannot carry both ways breaks after 16 to 19 s, as ping would have it; a dial to whom cannot be reached
//! fails after 3 s. The hosts redial lost links within 15 s when they can stand again. Only what the methods ask for goes
//! wrong.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::time::{Duration, Instant};

use libp2p::PeerId;
use liveness::detector::{self, Detector, ProbeId, RelayToken, Stamps};
use liveness::protocol::Suspicion;
use liveness::reports::{self, Reports};
use liveness::{Alive, Config, Event, Incarnation, Role};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::cast::key;

/// The wall clock when virtual time begins.
pub(crate) const START_MS: u64 = 1_800_000_000_000;

#[derive(Clone, Debug)]
enum Message {
    Probe { probe: ProbeId, asked: u64, incarnation: Incarnation, suspicion: Option<Suspicion> },
    Ack { probe: ProbeId, stamps: Stamps, incarnation: Incarnation, statement: Option<Vec<u8>> },
    Relay { target: PeerId, probe: ProbeId, suspicion: Suspicion, patience: Duration },
    Unhelpful { target: PeerId, probe: ProbeId },
    Relayed { target: PeerId, probe: ProbeId, statement: Option<Vec<u8>> },
    Report(Vec<u8>),
    Tell { whole: bool, statements: Vec<Vec<u8>> },
}

enum What {
    Wake(usize),
    Message {
        from: usize,
        to: usize,
        message: Message,
    },
    /// Ping would have closed it by now.
    Break(usize, usize),
    Lost {
        at: usize,
        other: usize,
    },
    Up {
        at: usize,
        other: usize,
    },
    DialFailed {
        at: usize,
        other: usize,
    },
    /// The hosts try again.
    Redial(usize, usize),
}

struct Node {
    detector: Detector,
    reports: Reports,
    wake: Option<Duration>,
    crashed: bool,
    frozen_until: Duration,
    /// Runs only at multiples of this.
    starved: Option<Duration>,
    requests: HashMap<u64, (usize, ProbeId, u64)>,
    relays: BTreeMap<RelayToken, (usize, PeerId, ProbeId)>,
    next: u64,
}

/// One neighbour declared another dead.
#[derive(Clone, Debug)]
pub(crate) struct Death {
    pub(crate) at: Duration,
    pub(crate) by: usize,
    pub(crate) target: usize,
    /// The target was running and nothing stood between the two but chance.
    pub(crate) wrong: bool,
}

pub(crate) struct World {
    start: Instant,
    pub(crate) now: Duration,
    queue: BinaryHeap<Reverse<(Duration, u64)>>,
    entries: HashMap<u64, What>,
    serial: u64,
    rng: StdRng,
    pub(crate) loss: f64,
    nodes: Vec<Node>,
    pub(crate) ids: Vec<PeerId>,
    numbers: HashMap<PeerId, usize>,
    edges: Vec<(usize, usize)>,
    links: BTreeSet<(usize, usize)>,
    cuts: BTreeSet<(usize, usize)>,
    boundary: Option<usize>,
    /// Until then links are still missing that can stand again.
    mending_until: Duration,
    pub(crate) deaths: Vec<Death>,
    pub(crate) suspects: usize,
    pub(crate) alives: usize,
    pub(crate) probes: usize,
    /// By seed and target, with the time; gone when raised.
    pub(crate) evicted: BTreeMap<(usize, usize), Duration>,
    /// Seed, target, when, and whether the target was running and not cut off.
    pub(crate) evictions: Vec<(usize, usize, Duration, bool)>,
    pub(crate) faults: usize,
    /// Between suspicion and refutation or death, for the order of events.
    suspected: BTreeSet<(usize, usize)>,
}

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

fn secs(secs: f64) -> Duration {
    Duration::from_secs_f64(secs)
}

impl World {
    /// The first `seeds` nodes are seeds; every other one has links to a majority of them and `fanout` dialled ones.
    pub(crate) fn new(rng_seed: u64, count: usize, seeds: usize, fanout: usize, config: &Config) -> Self {
        let start = Instant::now();
        let mut rng = StdRng::seed_from_u64(rng_seed);
        let ids = (0..count).map(|number| key(number).public().to_peer_id()).collect::<Vec<_>>();
        let node = |number: usize| {
            let role = if number < seeds { Role::Seed } else { Role::Peer };
            Node {
                detector: Detector::new(1, config.clone(), rng_seed * 100_000 + number as u64),
                reports: Reports::new(key(number), role, config.clone()).unwrap(),
                wake: None,
                crashed: false,
                frozen_until: Duration::ZERO,
                starved: None,
                requests: HashMap::new(),
                relays: BTreeMap::new(),
                next: 0,
            }
        };
        let mut edges = BTreeSet::new();
        for number in 0..count {
            if number < seeds {
                edges.extend((0..number).map(|other| pair(number, other)));
                continue;
            }
            let first = rng.random_range(0..seeds.max(1));
            edges.extend((0..(seeds / 2 + 1).min(seeds)).map(|step| pair(number, (first + step) % seeds)));
            for _ in 0..fanout {
                let other = rng.random_range(seeds..count);
                if other != number {
                    edges.insert(pair(number, other));
                }
            }
        }
        let mut world = Self {
            start,
            now: Duration::ZERO,
            queue: BinaryHeap::new(),
            entries: HashMap::new(),
            serial: 0,
            rng,
            loss: 0.0,
            nodes: (0..count).map(node).collect(),
            numbers: ids.iter().enumerate().map(|(number, id)| (*id, number)).collect(),
            ids,
            edges: edges.into_iter().collect(),
            links: BTreeSet::new(),
            cuts: BTreeSet::new(),
            boundary: None,
            mending_until: Duration::ZERO,
            deaths: Vec::new(),
            suspects: 0,
            alives: 0,
            probes: 0,
            evicted: BTreeMap::new(),
            evictions: Vec::new(),
            faults: 0,
            suspected: BTreeSet::new(),
        };
        let known = (0..seeds).map(|seed| world.ids[seed]).collect::<BTreeSet<_>>();
        for number in 0..count {
            let others = known.iter().filter(|seed| **seed != world.ids[number]).copied().collect();
            world.tell_reports(number, reports::Input::Seeds(others));
        }
        for (a, b) in world.edges.clone() {
            world.link(a, b);
        }
        world
    }

    pub(crate) fn is_linked(&self, a: usize, b: usize) -> bool {
        self.links.contains(&pair(a, b))
    }

    pub(crate) fn neighbours(&self, node: usize) -> Vec<usize> {
        let of = self.edges.iter().filter(|(a, b)| *a == node || *b == node);
        of.map(|(a, b)| if *a == node { *b } else { *a }).collect()
    }

    pub(crate) fn state(&self, at: usize, of: usize) -> Option<liveness::State> {
        self.nodes[at].detector.status(&self.ids[of], self.start + self.now).map(|status| status.state)
    }

    /// Whether it neither crashed nor is frozen.
    pub(crate) fn runs(&self, node: usize) -> bool {
        !self.nodes[node].crashed && self.now >= self.nodes[node].frozen_until
    }

    pub(crate) fn is_buried(&self, at: usize, target: usize) -> bool {
        !self.nodes[at].reports.buried_by(&self.ids[target], None).is_empty()
    }

    /// Gone without a word, and without a reset.
    pub(crate) fn crash(&mut self, node: usize) {
        self.nodes[node].crashed = true;
        self.break_links_of(node);
    }

    /// Stopped, as by SIGSTOP.
    pub(crate) fn freeze(&mut self, node: usize, time: Duration) {
        let until = self.now + time;
        self.nodes[node].frozen_until = until;
        self.push(until, What::Wake(node));
        self.break_links_of(node);
        for other in self.neighbours(node) {
            let at = until + secs(self.rng.random_range(0.0..15.0));
            self.push(at, What::Redial(node, other));
        }
    }

    /// From now on it only runs for a moment each `period`.
    pub(crate) fn starve(&mut self, node: usize, period: Option<Duration>) {
        self.nodes[node].starved = period;
    }

    /// Nothing passes from one to the other; their link will break.
    pub(crate) fn cut(&mut self, from: usize, to: usize) {
        self.cuts.insert((from, to));
        let at = self.now + secs(self.rng.random_range(16.0..19.0));
        self.push(at, What::Break(from, to));
    }

    /// Nothing passes between those below that number and the others.
    pub(crate) fn partition(&mut self, boundary: usize) {
        self.boundary = Some(boundary);
        for (a, b) in self.edges.clone() {
            if (a < boundary) != (b < boundary) {
                let at = self.now + secs(self.rng.random_range(16.0..19.0));
                self.push(at, What::Break(a, b));
            }
        }
    }

    /// Every cut and the partition end.
    pub(crate) fn heal(&mut self) {
        self.mending_until = self.now + secs(15.0);
        self.boundary = None;
        self.cuts.clear();
        for (a, b) in self.edges.clone() {
            if !self.is_linked(a, b) {
                let at = self.now + secs(self.rng.random_range(0.0..15.0));
                self.push(at, What::Redial(a, b));
            }
        }
    }

    /// Hand a seed a report that somebody made up.
    pub(crate) fn slander(&mut self, from: usize, seed: usize, target: usize) {
        let incarnation = Incarnation::new(1, 0);
        let (reporter, target) = (self.ids[from], self.ids[target]);
        let report = liveness::Report { reporter, target, incarnation, at_ms: self.wall() };
        let statement = report.sign(&key(from)).unwrap();
        self.send(from, seed, Message::Report(statement));
    }

    pub(crate) fn run_until(&mut self, until: Duration) {
        while let Some(&Reverse((at, serial))) = self.queue.peek() {
            if at > until {
                break;
            }
            self.queue.pop();
            let Some(what) = self.entries.remove(&serial) else { continue };
            self.now = at;
            let whose = match &what {
                What::Wake(at) | What::Lost { at, .. } | What::Up { at, .. } | What::DialFailed { at, .. } => Some(*at),
                What::Message { to, .. } => Some(*to),
                What::Break(..) | What::Redial(..) => None,
            };
            match whose.and_then(|node| self.runs_at(node)) {
                Some(later) if later > at => self.push(later, what),
                _ if whose.is_some_and(|node| self.nodes[node].crashed) => {}
                _ => self.happen(what),
            }
        }
        self.now = until;
    }

    /// When a node that does not run now will run.
    fn runs_at(&self, node: usize) -> Option<Duration> {
        let node = &self.nodes[node];
        if self.now < node.frozen_until {
            return Some(node.frozen_until);
        }
        let period = node.starved?;
        let phase = Duration::from_nanos((self.now.as_nanos() % period.as_nanos()) as u64);
        // A fiftieth of the time it runs.
        (phase > period / 50).then(|| self.now - phase + period)
    }

    fn happen(&mut self, what: What) {
        let now = self.start + self.now;
        match what {
            What::Wake(node) => {
                if self.nodes[node].wake.is_some_and(|wake| wake <= self.now) {
                    self.nodes[node].wake = None;
                }
                self.nodes[node].detector.handle_timeout(now);
                let wall = self.wall();
                self.nodes[node].reports.handle_timeout(now, wall);
                self.drain(node);
            }
            What::Message { from, to, message } => self.arrive(from, to, message),
            What::Break(a, b) => {
                let broken = !self.runs(a) || !self.runs(b) || !self.passes(a, b) || !self.passes(b, a);
                if broken && self.links.remove(&pair(a, b)) {
                    self.push(self.now, What::Lost { at: a, other: b });
                    self.push(self.now, What::Lost { at: b, other: a });
                }
            }
            What::Lost { at, other } => {
                if !self.is_linked(at, other) {
                    let peer = self.ids[other];
                    self.tell_detector(at, detector::Input::Lost { peer });
                    self.tell_reports(at, reports::Input::Down { peer });
                }
            }
            What::Up { at, other } => {
                if self.is_linked(at, other) {
                    let peer = self.ids[other];
                    self.tell_detector(at, detector::Input::Up { peer, boot: 1 });
                    self.tell_reports(at, reports::Input::Up { peer, incarnation: Incarnation::new(1, 0) });
                }
            }
            What::DialFailed { at, other } => {
                let peer = self.ids[other];
                self.tell_detector(at, detector::Input::DialFailed { peer });
            }
            What::Redial(a, b) => {
                if !self.is_linked(a, b) && self.can_link(a, b) {
                    self.link(a, b);
                }
            }
        }
    }

    fn can_link(&self, a: usize, b: usize) -> bool {
        self.runs(a) && self.runs(b) && self.passes(a, b) && self.passes(b, a)
    }

    fn passes(&self, from: usize, to: usize) -> bool {
        let apart = self.boundary.is_some_and(|boundary| (from < boundary) != (to < boundary));
        !apart && !self.cuts.contains(&(from, to))
    }

    fn link(&mut self, a: usize, b: usize) {
        self.links.insert(pair(a, b));
        self.push(self.now, What::Up { at: a, other: b });
        self.push(self.now, What::Up { at: b, other: a });
    }

    fn break_links_of(&mut self, node: usize) {
        for other in self.neighbours(node) {
            let at = self.now + secs(self.rng.random_range(16.0..19.0));
            self.push(at, What::Break(node, other));
        }
    }

    fn wall(&self) -> u64 {
        START_MS + self.now.as_millis() as u64
    }

    fn push(&mut self, at: Duration, what: What) {
        self.serial += 1;
        self.queue.push(Reverse((at, self.serial)));
        self.entries.insert(self.serial, what);
    }

    fn send(&mut self, from: usize, to: usize, message: Message) {
        if !self.is_linked(from, to) || !self.passes(from, to) || self.rng.random_bool(self.loss) {
            return;
        }
        let at = self.now + Duration::from_micros(self.rng.random_range(5_000..50_000));
        self.push(at, What::Message { from, to, message });
    }

    fn arrive(&mut self, from: usize, to: usize, message: Message) {
        let peer = self.ids[from];
        let wall = self.wall();
        let node = &mut self.nodes[to];
        node.next += 1;
        let number = node.next;
        match message {
            Message::Probe { probe, asked, incarnation, suspicion } => {
                node.requests.insert(number, (from, probe, asked));
                let probed = detector::Input::Probed { from: peer, request: number, incarnation, suspicion };
                self.tell_detector(to, probed);
            }
            Message::Ack { probe, stamps, incarnation, statement } => {
                let stamps = Stamps { heard: wall, ..stamps };
                self.tell_detector(to, detector::Input::Answered { peer, probe, incarnation, stamps, statement });
            }
            Message::Relay { target, probe, suspicion, patience } => {
                let token = RelayToken(number);
                node.relays.insert(token, (from, target, probe));
                let asked = detector::Input::RelayAsked { from: peer, token, target, suspicion, patience };
                self.tell_detector(to, asked);
            }
            Message::Unhelpful { target, probe } => {
                self.tell_detector(to, detector::Input::Unhelpful { helper: peer, target, probe });
            }
            Message::Relayed { target, probe, statement } => {
                // Signatures are looked at elsewhere; here they would only cost time.
                let alive = statement.map(|bytes| Alive {
                    peer: target,
                    incarnation: Incarnation(u64::from_be_bytes(bytes[..8].try_into().unwrap())),
                    challenge: bytes[8..].try_into().unwrap(),
                });
                self.tell_detector(to, detector::Input::Helped { helper: peer, target, probe, alive });
            }
            Message::Report(statement) => self.tell_reports(to, reports::Input::Reported { from: peer, statement }),
            Message::Tell { whole, statements } => {
                self.tell_reports(to, reports::Input::Told { from: peer, whole, statements });
            }
        }
    }

    fn tell_detector(&mut self, node: usize, input: detector::Input) {
        self.nodes[node].detector.handle_input(input, self.start + self.now);
        self.drain(node);
    }

    fn tell_reports(&mut self, node: usize, input: reports::Input) {
        let wall = self.wall();
        self.nodes[node].reports.handle_input(input, self.start + self.now, wall);
        self.drain(node);
    }

    fn drain(&mut self, at: usize) {
        let wall = self.wall();
        loop {
            if let Some(output) = self.nodes[at].detector.poll_output() {
                self.obey_detector(at, output, wall);
            } else if let Some(output) = self.nodes[at].reports.poll_output() {
                self.obey_reports(at, output);
            } else {
                break;
            }
        }
        let node = &self.nodes[at];
        let next = node.detector.poll_timeout().into_iter().chain(node.reports.poll_timeout()).min();
        let Some(next) = next.map(|next| next.saturating_duration_since(self.start).max(self.now)) else { return };
        if node.wake.is_none_or(|wake| next < wake) {
            self.nodes[at].wake = Some(next);
            self.push(next, What::Wake(at));
        }
    }

    fn obey_detector(&mut self, at: usize, output: detector::Output, wall: u64) {
        use detector::Output;
        let now = self.start + self.now;
        match output {
            Output::Probe { to, probe, suspicion } => {
                self.probes += 1;
                let incarnation = self.nodes[at].detector.incarnation();
                let message = Message::Probe { probe, asked: wall, incarnation, suspicion };
                self.send(at, self.numbers[&to], message);
            }
            Output::AskHelper { helper, target, probe, suspicion, patience } => {
                self.send(at, self.numbers[&helper], Message::Relay { target, probe, suspicion, patience });
            }
            Output::Answer { request, incarnation, challenge } => {
                let (to, probe, asked) = self.nodes[at].requests.remove(&request).unwrap();
                let stamps = Stamps { asked, received: wall, answered: wall, heard: 0 };
                let statement = challenge.map(|challenge| [&incarnation.0.to_be_bytes()[..], &challenge[..]].concat());
                self.send(at, to, Message::Ack { probe, stamps, incarnation, statement });
            }
            Output::RelayAnswer { token, statement } => {
                let (to, target, probe) = self.nodes[at].relays.remove(&token).unwrap();
                self.send(at, to, Message::Relayed { target, probe, statement });
            }
            Output::RelayRefuse { token } => {
                let (to, target, probe) = self.nodes[at].relays.remove(&token).unwrap();
                self.send(at, to, Message::Unhelpful { target, probe });
            }
            Output::Dial(peer) => {
                let other = self.numbers[&peer];
                if self.can_link(at, other) {
                    self.happen(What::Redial(at, other));
                } else {
                    self.push(self.now + secs(3.0), What::DialFailed { at, other });
                }
            }
            Output::Heard { peer, incarnation } => {
                self.nodes[at].reports.handle_input(reports::Input::Heard { peer, incarnation }, now, wall);
            }
            Output::Missed { peer, incarnation, misses } => {
                let missed = reports::Input::Missed { peer, incarnation, misses };
                self.nodes[at].reports.handle_input(missed, now, wall);
            }
            Output::Dead { peer, incarnation, reason } => {
                self.nodes[at].reports.handle_input(reports::Input::Dead { peer, incarnation, reason }, now, wall);
            }
            Output::Event(event) => self.event(at, event),
            Output::Fault { .. } => self.faults += 1,
        }
    }

    fn obey_reports(&mut self, at: usize, output: reports::Output) {
        use reports::Output;
        let now = self.start + self.now;
        match output {
            Output::Report { to, statement, .. } => self.send(at, self.numbers[&to], Message::Report(statement)),
            Output::Tell { to, whole, statements } => {
                // The shell keeps their order.
                self.send(at, self.numbers[&to], Message::Tell { whole, statements });
            }
            Output::Check(peer) => self.nodes[at].detector.handle_input(detector::Input::Check { peer }, now),
            Output::Event(event) => self.event(at, event),
            Output::Fault { .. } => self.faults += 1,
        }
    }

    /// Whether that node runs, and nothing but chance stands between the two.
    fn is_wrong(&self, at: usize, target: usize) -> bool {
        let apart = self.boundary.is_some_and(|boundary| (at < boundary) != (target < boundary));
        let mending = self.now < self.mending_until && !self.is_linked(at, target);
        self.runs(target) && !apart && !mending
    }

    fn event(&mut self, at: usize, event: Event) {
        match event {
            Event::Suspect { peer, .. } => {
                self.suspects += 1;
                assert!(self.suspected.insert((at, self.numbers[&peer])), "suspected twice");
            }
            Event::Alive { peer } => {
                self.alives += 1;
                self.suspected.remove(&(at, self.numbers[&peer]));
            }
            Event::Dead { peer, .. } => {
                let target = self.numbers[&peer];
                let wrong = self.is_wrong(at, target);
                // A refuted suspicion never becomes death: there must be a standing one.
                assert!(self.suspected.contains(&(at, target)), "dead without being suspected");
                let death = Death { at: self.now, by: at, target, wrong };
                self.deaths.push(death);
            }
            Event::Evict { target, .. } => {
                let target = self.numbers[&target];
                self.evictions.push((at, target, self.now, self.is_wrong(at, target)));
                self.evicted.insert((at, target), self.now);
            }
            Event::Raised { seed, target, .. } if seed == self.ids[at] => {
                self.evicted.remove(&(at, self.numbers[&target]));
            }
            _ => {}
        }
    }
}
