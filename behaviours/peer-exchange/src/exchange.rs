//! Cards on demand: a core without socket, clock or randomness of its own.
//!
//! A lookup asks every neighbour. A neighbour whose directory knows nothing hands the question on to its own other
//! neighbours, up to a number of hops, gathers what they say and passes it back. Every question carries a random id,
//! and nobody handles an id twice, so a question crosses each link at most once in each direction. Each step waits
//! for a smaller share of the time than the one before it, so that answers come back while they are waited for.
//!
//! Nothing is taken on trust: a card counts only with its signature, and only when it was asked for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use libp2p::PeerId;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::bucket::Bucket;
use crate::card::SignedCard;
use crate::config::Config;
use crate::event::Event;
use crate::fault::FaultKind;
use crate::protocol::{Frame, MAX_ANSWER_BYTES, MAX_CARDS, QueryId, Subject};

/// For how many questions it is remembered that they were handled; the oldest is forgotten first.
pub const MAX_SEEN: usize = 4096;
/// For how long it is remembered. Longer than any lookup takes.
pub const SEEN_FOR: Duration = Duration::from_secs(60);
/// How many questions that we asked are remembered at most, answered late or never; the oldest is forgotten first.
pub const MAX_ASKED: usize = 4096;
/// Most cards that one lookup finds; further ones are left out.
pub const MAX_FOUND: usize = 32;
/// A neighbour that floods is reported once in this time.
pub const FLOOD_REPORT_EVERY: Duration = Duration::from_secs(1);
/// We ask a neighbour at this part of the rate and burst that it allows, so that an honest node never floods.
const OWN_SHARE: f64 = 0.8;
/// What questions of others leave in the bucket for our own lookups, as a part of its burst.
const KEPT_FOR_LOOKUPS: f64 = 0.5;

/// Names one question of a neighbour until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskToken(u64);

/// Names one lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LookupId(u64);

/// What happens.
#[derive(Clone, Debug)]
pub enum Input {
    /// A peer is up.
    Joined {
        /// Who.
        peer: PeerId,
    },
    /// A peer has left or is lost.
    Gone {
        /// Who.
        peer: PeerId,
    },
    /// An `Ask` frame came. Ignored unless its sender is up.
    Asked {
        /// From whom.
        from: PeerId,
        /// See [`Frame::Ask`].
        id: u64,
        /// See [`Frame::Ask`].
        query: QueryId,
        /// See [`Frame::Ask`].
        subject: Subject,
        /// See [`Frame::Ask`].
        hops: u8,
    },
    /// An `Answer` frame came. Ignored unless its sender is up.
    Answered {
        /// From whom.
        from: PeerId,
        /// See [`Frame::Answer`].
        id: u64,
        /// See [`Frame::Answer`].
        cards: Vec<Vec<u8>>,
    },
    /// What the own directory knows about a question. Cards that do not fit the question are left out. Ignored when
    /// the question is over.
    Known {
        /// Which question.
        token: AskToken,
        /// The cards.
        cards: Vec<SignedCard>,
    },
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Say that to a neighbour, on one link. It may be lost.
    Send {
        /// To whom.
        to: PeerId,
        /// What.
        frame: Frame,
    },
    /// Tell the event loop: `Asked` or `Found`.
    Event(Event),
    /// A neighbour misbehaved.
    Fault {
        /// Who.
        peer: PeerId,
        /// How.
        kind: FaultKind,
    },
}

/// The lookups and questions of one node.
pub struct Exchange {
    config: Config,
    rng: StdRng,
    neighbours: BTreeMap<PeerId, Neighbour>,
    tasks: BTreeMap<u64, Task>,
    asked: BTreeMap<u64, Asked>,
    seen: BTreeMap<QueryId, Instant>,
    seen_order: VecDeque<QueryId>,
    serial: u64,
    outputs: VecDeque<Output>,
}

struct Neighbour {
    /// Bounds what it asks us.
    theirs: Bucket,
    /// Bounds what we ask it.
    ours: Bucket,
    /// When its flood was reported last.
    flooded: Option<Instant>,
}

/// A question at work.
struct Task {
    origin: Origin,
    subject: Subject,
    query: QueryId,
    hops: u8,
    deadline: Instant,
    /// Our questions to neighbours that are not answered yet.
    waiting: BTreeSet<u64>,
    found: BTreeMap<PeerId, SignedCard>,
}

#[derive(Clone, Copy)]
enum Origin {
    Here,
    There {
        peer: PeerId,
        id: u64,
        /// Whether our own directory has been asked and said its word.
        handed_on: bool,
    },
}

struct Asked {
    to: PeerId,
    task: u64,
}

impl Exchange {
    /// No neighbours, nothing at work. The seed makes the ids of questions; two nodes must not share it.
    pub fn new(config: Config, rng_seed: u64) -> Self {
        Self {
            config,
            rng: StdRng::seed_from_u64(rng_seed),
            neighbours: BTreeMap::new(),
            tasks: BTreeMap::new(),
            asked: BTreeMap::new(),
            seen: BTreeMap::new(),
            seen_order: VecDeque::new(),
            serial: 0,
            outputs: VecDeque::new(),
        }
    }

    /// Ask the neighbours. `Found` with this id comes exactly once, at the latest after [`Config::lookup_timeout`];
    /// at once and empty when there is no neighbour to ask or too much is at work.
    pub fn lookup(&mut self, subject: Subject, now: Instant) -> LookupId {
        let number = self.next_serial();
        let id = LookupId(number);
        if self.tasks.len() >= self.config.max_pending {
            self.outputs.push_back(Output::Event(Event::Found { id, cards: Vec::new() }));
            return id;
        }
        let query = self.rng.random();
        self.remember(query, now);
        let deadline = now + self.config.lookup_timeout;
        let hops = self.config.max_hops;
        let (waiting, found) = (BTreeSet::new(), BTreeMap::new());
        let task = Task { origin: Origin::Here, subject, query, hops, deadline, waiting, found };
        self.tasks.insert(number, task);
        self.ask_neighbours(number, now);
        id
    }

    /// Ask one neighbour, picked at random, whom it knows; `None` when there is none. `Found` follows as for
    /// [`Exchange::lookup`].
    pub fn sample(&mut self, now: Instant) -> Option<LookupId> {
        if self.neighbours.is_empty() || self.tasks.len() >= self.config.max_pending {
            return None;
        }
        let picked = self.rng.random_range(0..self.neighbours.len());
        let (peer, neighbour) = self.neighbours.iter_mut().nth(picked)?;
        if !neighbour.ours.take(1.0, now) {
            return None;
        }
        let (to, number, id) = (*peer, self.serial + 1, self.serial + 2);
        self.serial = id;
        let query = self.rng.random();
        let (origin, subject) = (Origin::Here, Subject::Anybody);
        let deadline = now + self.config.lookup_timeout;
        let task = Task {
            origin,
            subject: subject.clone(),
            query,
            hops: 0,
            deadline,
            waiting: BTreeSet::from([id]),
            found: BTreeMap::new(),
        };
        self.tasks.insert(number, task);
        self.asked.insert(id, Asked { to, task: number });
        while self.asked.len() > MAX_ASKED {
            self.asked.pop_first();
        }
        self.outputs.push_back(Output::Send { to, frame: Frame::Ask { id, query, subject, hops: 0 } });
        Some(LookupId(number))
    }

    /// Take in what happened; drain [`Exchange::poll_output`] and read [`Exchange::poll_timeout`] afterwards.
    pub fn handle_input(&mut self, input: Input, now: Instant) {
        match input {
            Input::Joined { peer } => self.joined(peer, now),
            Input::Gone { peer } => self.gone(peer),
            Input::Asked { from, id, query, subject, hops } => self.asked_by(from, id, query, subject, hops, now),
            Input::Answered { from, id, cards } => self.answered(from, id, &cards),
            Input::Known { token, cards } => self.known(token, cards, now),
        }
    }

    /// End what has run out of time. Call it at or after [`Exchange::poll_timeout`].
    pub fn handle_timeout(&mut self, now: Instant) {
        let late: Vec<u64> = self.tasks.iter().filter(|(_, task)| task.deadline <= now).map(|(id, _)| *id).collect();
        for number in late {
            self.finish(number);
        }
    }

    /// When [`Exchange::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.tasks.values().map(|task| task.deadline).min()
    }

    /// What is to be done next; `None` until something happens again.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// How many questions are at work, own and handed on.
    pub fn pending(&self) -> usize {
        self.tasks.len()
    }

    fn joined(&mut self, peer: PeerId, now: Instant) {
        let Config { ask_rate, ask_burst, .. } = self.config;
        let theirs = Bucket::new(ask_rate, ask_burst, now);
        let ours = Bucket::new(ask_rate * OWN_SHARE, ask_burst * OWN_SHARE, now);
        self.neighbours.insert(peer, Neighbour { theirs, ours, flooded: None });
    }

    fn gone(&mut self, peer: PeerId) {
        self.neighbours.remove(&peer);
        self.tasks.retain(|_, task| !matches!(task.origin, Origin::There { peer: from, .. } if from == peer));
        let unanswered: Vec<u64> = self.asked.iter().filter(|(_, asked)| asked.to == peer).map(|(id, _)| *id).collect();
        for id in unanswered {
            if let Some(asked) = self.asked.remove(&id) {
                self.heard(asked.task, id, Vec::new());
            }
        }
    }

    fn asked_by(&mut self, from: PeerId, id: u64, query: QueryId, subject: Subject, hops: u8, now: Instant) {
        let Some(neighbour) = self.neighbours.get_mut(&from) else { return };
        if !neighbour.theirs.take(1.0, now) {
            if neighbour.flooded.is_none_or(|at| now >= at + FLOOD_REPORT_EVERY) {
                neighbour.flooded = Some(now);
                self.outputs.push_back(Output::Fault { peer: from, kind: FaultKind::Flood });
            }
            return;
        }
        let theirs = |task: &&Task| matches!(task.origin, Origin::There { peer, .. } if peer == from);
        let full = self.tasks.len() >= self.config.max_pending
            || self.tasks.values().filter(theirs).count() >= self.config.max_pending_per_peer;
        if full || self.has_seen(&query, now) {
            // An answer all the same, so that nobody waits for it.
            self.send_answer(from, id, &BTreeMap::new());
            return;
        }
        self.remember(query, now);
        // Whom others know is asked of them directly: a question that everybody hands on would cost the whole network.
        let hops = if subject == Subject::Anybody { 0 } else { hops.min(self.config.max_hops) };
        let origin = Origin::There { peer: from, id, handed_on: false };
        let deadline = now + self.share(hops);
        let (waiting, found) = (BTreeSet::new(), BTreeMap::new());
        let number = self.next_serial();
        let asked = Event::Asked { token: AskToken(number), from, subject: subject.clone() };
        self.tasks.insert(number, Task { origin, subject, query, hops, deadline, waiting, found });
        self.outputs.push_back(Output::Event(asked));
    }

    fn known(&mut self, AskToken(number): AskToken, cards: Vec<SignedCard>, now: Instant) {
        let Some(task) = self.tasks.get_mut(&number) else { return };
        let Origin::There { handed_on, .. } = &mut task.origin else { return };
        if std::mem::replace(handed_on, true) {
            return;
        }
        for card in cards {
            task.take(card);
        }
        if task.found.is_empty() && task.hops > 0 {
            task.hops -= 1;
            self.ask_neighbours(number, now);
        } else {
            self.finish(number);
        }
    }

    fn answered(&mut self, from: PeerId, id: u64, cards: &[Vec<u8>]) {
        if !self.neighbours.contains_key(&from) {
            return;
        }
        if self.asked.get(&id).is_none_or(|asked| asked.to != from) {
            self.outputs.push_back(Output::Fault { peer: from, kind: FaultKind::UnaskedAnswer });
            return;
        }
        let Some(asked) = self.asked.remove(&id) else { return };
        // A late answer is worth neither a fault nor the work of checking signatures.
        let Some(task) = self.tasks.get(&asked.task) else { return };
        let mut good = Vec::new();
        if cards.len() > MAX_CARDS {
            self.outputs.push_back(Output::Fault { peer: from, kind: FaultKind::SurplusCards });
        } else {
            for bytes in cards {
                let kind = match SignedCard::decode(bytes) {
                    Ok(card) if task.fits(&card) => {
                        good.push(card);
                        continue;
                    }
                    Ok(_) => FaultKind::UnmatchedCard,
                    Err(_) => FaultKind::InvalidCard,
                };
                self.outputs.push_back(Output::Fault { peer: from, kind });
            }
        }
        self.heard(asked.task, id, good);
    }

    /// One of the neighbours that a task waits for has said what it knows.
    fn heard(&mut self, number: u64, id: u64, cards: Vec<SignedCard>) {
        let Some(task) = self.tasks.get_mut(&number) else { return };
        task.waiting.remove(&id);
        for card in cards {
            task.take(card);
        }
        if task.waiting.is_empty() || task.is_complete() {
            self.finish(number);
        }
    }

    fn ask_neighbours(&mut self, number: u64, now: Instant) {
        let Some(task) = self.tasks.get_mut(&number) else { return };
        let (from, kept) = match task.origin {
            Origin::Here => (None, 0.0),
            Origin::There { peer, .. } => (Some(peer), self.config.ask_burst * OWN_SHARE * KEPT_FOR_LOOKUPS),
        };
        for (peer, neighbour) in &mut self.neighbours {
            if Some(*peer) == from || !neighbour.ours.take(1.0 + kept, now) {
                continue;
            }
            neighbour.ours.give_back(kept);
            self.serial += 1;
            let id = self.serial;
            self.asked.insert(id, Asked { to: *peer, task: number });
            task.waiting.insert(id);
            let frame = Frame::Ask { id, query: task.query, subject: task.subject.clone(), hops: task.hops };
            self.outputs.push_back(Output::Send { to: *peer, frame });
        }
        while self.asked.len() > MAX_ASKED {
            self.asked.pop_first();
        }
        if task.waiting.is_empty() {
            self.finish(number);
        }
    }

    fn finish(&mut self, number: u64) {
        let Some(task) = self.tasks.remove(&number) else { return };
        match task.origin {
            Origin::Here => {
                let found = Event::Found { id: LookupId(number), cards: task.found.into_values().collect() };
                self.outputs.push_back(Output::Event(found));
            }
            Origin::There { peer, id, .. } => self.send_answer(peer, id, &task.found),
        }
    }

    fn send_answer(&mut self, to: PeerId, id: u64, found: &BTreeMap<PeerId, SignedCard>) {
        let mut left = MAX_ANSWER_BYTES;
        let fitting = found.values().take(MAX_CARDS).map(|card| card.bytes().to_vec());
        let fitting = fitting.take_while(|bytes| {
            let fits = bytes.len() <= left;
            left = left.saturating_sub(bytes.len());
            fits
        });
        let frame = Frame::Answer { id, cards: fitting.collect() };
        self.outputs.push_back(Output::Send { to, frame });
    }

    /// How long to wait for others with so many hops left. At least an eighth, for the own directory.
    fn share(&self, hops: u8) -> Duration {
        let part = self.config.lookup_timeout * u32::from(hops) / (u32::from(self.config.max_hops) + 1);
        part.max(self.config.lookup_timeout / 8)
    }

    fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    fn has_seen(&self, query: &QueryId, now: Instant) -> bool {
        self.seen.get(query).is_some_and(|until| *until > now)
    }

    fn remember(&mut self, query: QueryId, now: Instant) {
        while let Some(oldest) = self.seen_order.front() {
            let over = self.seen.get(oldest).is_none_or(|until| *until <= now);
            if !over && self.seen_order.len() < MAX_SEEN {
                break;
            }
            self.seen.remove(oldest);
            self.seen_order.pop_front();
        }
        if self.seen.insert(query, now + SEEN_FOR).is_none() {
            self.seen_order.push_back(query);
        }
    }
}

impl Task {
    fn fits(&self, card: &SignedCard) -> bool {
        match &self.subject {
            Subject::Name(name) => card.card().name == *name,
            Subject::Peer(peer) => card.peer() == *peer,
            Subject::Anybody => true,
        }
    }

    /// Keep a card if it fits and is the newest of its peer.
    fn take(&mut self, card: SignedCard) {
        if !self.fits(&card) {
            return;
        }
        // A name that everybody claims must not fill the memory; more candidates than these help nobody.
        if self.found.len() >= MAX_FOUND && !self.found.contains_key(&card.peer()) {
            return;
        }
        match self.found.get(&card.peer()) {
            Some(held) if !card.is_newer_than(held) => {}
            _ => {
                self.found.insert(card.peer(), card);
            }
        }
    }

    /// No more than one card can be found for a PeerId.
    fn is_complete(&self) -> bool {
        matches!(self.subject, Subject::Peer(_)) && !self.found.is_empty()
    }
}
