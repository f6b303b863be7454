//! Faults: proven misbehaviour only. A score rises by the [penalty](crate::penalties), halves with time, and at
//! [`CUT_AT`] the peer is cut: disconnected, and refused for a while that doubles each time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use libp2p::PeerId;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::config::Config;
use crate::fact::{Fact, Facts, Number, single};
use crate::penalties::{self, CUT_AT};
use crate::reliability::left;

/// No score is higher, so that the worst peer is let in again as soon as its cut allows.
pub const MAX_SCORE: f64 = 2.0 * CUT_AT;

/// A peer that is let in again has no higher score: half of the tolerated number remains to it.
pub const SCORE_AFTER_CUT: f64 = CUT_AT / 2.0;

/// More doublings than this change nothing.
const MAX_CUTS: u32 = 32;

/// What happens.
#[derive(Clone, Debug)]
pub enum Input {
    /// A peer provably misbehaved towards us.
    Fault {
        /// Who.
        peer: PeerId,
        /// How: a word of the [table](penalties::TABLE), or any other.
        kind: String,
        /// On the wall clock, in milliseconds since the epoch.
        at_ms: u64,
    },
    /// The owner forgives the peer everything.
    Pardon {
        /// Whom.
        peer: PeerId,
        /// On the wall clock, in milliseconds since the epoch.
        at_ms: u64,
    },
}

/// What follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// The peer is past the cut: disconnect it, and refuse it until [`Output::Readmitted`].
    Cut {
        /// Who.
        peer: PeerId,
        /// Until about when, on the wall clock, in milliseconds since the epoch. The end itself goes by the monotonic
        /// clock.
        until_ms: u64,
        /// The fault that was one too many.
        kind: String,
    },
    /// A cut is over. It always follows a [`Output::Cut`], or a restored cut.
    Readmitted {
        /// Who.
        peer: PeerId,
    },
}

/// The state of a peer for storing it.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// The score, 0 to [`MAX_SCORE`].
    pub score: f64,
    /// How often it was cut, less what was forgiven.
    pub cuts: u32,
    /// How long it has been without a cut since, less what was forgiven.
    pub calm: Duration,
    /// How long the present cut still lasts.
    pub cut_left: Option<Duration>,
}

/// The core.
#[derive(Debug)]
pub struct Faults {
    config: Config,
    rng: StdRng,
    peers: BTreeMap<PeerId, Entry>,
    /// The ends of the cuts among `peers`.
    cuts: BTreeSet<(Instant, PeerId)>,
    /// Bounded by what one input brings about, since each is followed by taking all.
    outputs: VecDeque<Output>,
    changed: BTreeSet<PeerId>,
}

#[derive(Clone, Debug)]
struct Entry {
    score: f64,
    /// `score` and `calm` are as of then.
    at: Instant,
    cuts: u32,
    calm: Duration,
    cut: Option<Cut>,
    /// When rows of the table that count only once in a while counted last; bounded by the table.
    counted: BTreeMap<usize, Instant>,
    facts: Facts,
}

#[derive(Clone, Copy, Debug)]
struct Cut {
    until: Instant,
    until_ms: u64,
}

impl Faults {
    /// Knows of no fault.
    pub fn new(config: &Config, rng_seed: u64) -> Self {
        Self {
            config: config.clone(),
            rng: StdRng::seed_from_u64(rng_seed),
            peers: BTreeMap::new(),
            cuts: BTreeSet::new(),
            outputs: VecDeque::new(),
            changed: BTreeSet::new(),
        }
    }

    /// Something happened. Then take all outputs.
    pub fn handle_input(&mut self, input: Input, now: Instant) {
        self.handle_timeout(now);
        match input {
            Input::Fault { peer, kind, at_ms } => self.fault(peer, &kind, at_ms, now),
            Input::Pardon { peer, at_ms } => self.pardon(peer, at_ms, now),
        }
    }

    /// Time passed. Then take all outputs.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(until, peer)) = self.cuts.first().filter(|(until, _)| *until <= now) {
            self.cuts.remove(&(until, peer));
            let Some(entry) = self.peers.get_mut(&peer) else { continue };
            entry.settle(&self.config, until);
            if let Some(cut) = entry.cut.take() {
                let before = entry.score;
                entry.score = before.min(SCORE_AFTER_CUT);
                let effect = entry.score - before;
                entry.facts.add(single(Number::Faults, "readmitted", cut.until_ms, effect), every_kind);
            }
            self.outputs.push_back(Output::Readmitted { peer });
            self.changed.insert(peer);
        }
    }

    /// When [`Faults::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.cuts.first().map(|(until, _)| *until)
    }

    /// What follows next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The score, 0 to [`MAX_SCORE`]; 0 for somebody without a fault.
    pub fn score(&self, peer: &PeerId, now: Instant) -> f64 {
        self.peers.get(peer).map_or(0.0, |entry| {
            entry.score * left(self.config.fault_half_life, now.saturating_duration_since(entry.at))
        })
    }

    /// Whether the peer is to be refused: its [`Output::Readmitted`] did not come yet.
    pub fn is_cut(&self, peer: &PeerId) -> bool {
        self.peers.get(peer).is_some_and(|entry| entry.cut.is_some())
    }

    /// How many peers are cut.
    pub fn cut_peers(&self) -> usize {
        self.cuts.len()
    }

    /// What moved the score, oldest first.
    pub fn facts(&self, peer: &PeerId) -> impl Iterator<Item = &Fact> {
        self.peers.get(peer).into_iter().flat_map(|entry| entry.facts.iter())
    }

    /// Peers with a fault that is remembered, at most [`Config::max_peers`].
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// Whether no fault of anybody is remembered.
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// Whether a fault of the peer is remembered.
    pub fn knows(&self, peer: &PeerId) -> bool {
        self.peers.contains_key(peer)
    }

    /// Everybody who changed since this was asked last, also those who were forgotten.
    pub fn take_changed(&mut self) -> BTreeSet<PeerId> {
        std::mem::take(&mut self.changed)
    }

    /// What is to be stored of a peer.
    pub fn state(&self, peer: &PeerId, now: Instant) -> Option<State> {
        let mut entry = self.peers.get(peer)?.clone();
        entry.settle(&self.config, now);
        let cut_left = entry.cut.map(|cut| cut.until.saturating_duration_since(now));
        Some(State { score: entry.score, cuts: entry.cuts, calm: entry.calm, cut_left })
    }

    /// Put back what was stored so long ago; `cut_left` is as of now, and no longer than [`Config::longest_cut`] counts.
    /// A cut that is over meanwhile gives its [`Output::Readmitted`] at the next timeout.
    pub fn restore(&mut self, peer: PeerId, state: State, facts: Vec<Fact>, ago: Duration, clock: (Instant, u64)) {
        let (now, now_ms) = clock;
        self.remove(&peer);
        self.make_room(now);
        let score = if state.score.is_finite() { state.score.clamp(0.0, MAX_SCORE) } else { 0.0 };
        let cut = state.cut_left.and_then(|left| {
            let left = left.min(self.config.longest_cut);
            Some(Cut { until: now.checked_add(left)?, until_ms: now_ms.saturating_add(millis(left)) })
        });
        let mut entry = Entry {
            score,
            at: now,
            cuts: state.cuts.min(MAX_CUTS),
            calm: state.calm,
            cut,
            counted: BTreeMap::new(),
            facts: Facts::restore(facts),
        };
        entry.pass(&self.config, ago);
        self.cuts.extend(cut.map(|cut| (cut.until, peer)));
        self.peers.insert(peer, entry);
    }

    fn fault(&mut self, peer: PeerId, kind: &str, at_ms: u64, now: Instant) {
        if !self.peers.contains_key(&peer) {
            self.make_room(now);
        }
        let entry = self.peers.entry(peer).or_insert_with(|| Entry::new(now));
        entry.settle(&self.config, now);
        let (row, penalty) = penalties::of(kind);
        let due = |&at: &Instant| now.saturating_duration_since(at) >= penalty.gap();
        let counts = penalty.once_in == 0 || entry.counted.get(&row).is_none_or(due);
        if counts && penalty.once_in > 0 {
            entry.counted.insert(row, now);
        }
        let before = entry.score;
        if counts {
            entry.score = (before + penalty.class.points()).min(MAX_SCORE);
        }
        entry.facts.add(single(Number::Faults, kind, at_ms, entry.score - before), every_kind);
        self.changed.insert(peer);
        if entry.cut.is_some() || entry.score < CUT_AT {
            return;
        }
        // The product stops at the longest Duration, and so at the longest cut.
        let doubled = self.config.first_cut.saturating_mul(1 << entry.cuts.min(31)).min(self.config.longest_cut);
        let lasts = doubled.mul_f64(self.rng.random_range(0.9..=1.0));
        let Some(until) = now.checked_add(lasts) else { return };
        let until_ms = at_ms.saturating_add(millis(lasts));
        entry.cut = Some(Cut { until, until_ms });
        entry.cuts = (entry.cuts + 1).min(MAX_CUTS);
        entry.calm = Duration::ZERO;
        entry.facts.add(single(Number::Faults, "cut", at_ms, 0.0), every_kind);
        self.cuts.insert((until, peer));
        self.outputs.push_back(Output::Cut { peer, until_ms, kind: kind.to_owned() });
    }

    fn pardon(&mut self, peer: PeerId, at_ms: u64, now: Instant) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        entry.settle(&self.config, now);
        entry.facts.add(single(Number::Faults, "pardoned", at_ms, -entry.score), every_kind);
        entry.score = 0.0;
        entry.cuts = 0;
        entry.calm = Duration::ZERO;
        self.changed.insert(peer);
        if let Some(cut) = entry.cut.take() {
            self.cuts.remove(&(cut.until, peer));
            self.outputs.push_back(Output::Readmitted { peer });
        }
    }

    fn remove(&mut self, peer: &PeerId) {
        if let Some(cut) = self.peers.remove(peer).and_then(|entry| entry.cut) {
            self.cuts.remove(&(cut.until, *peer));
        }
    }

    /// The sixteenth with the least against it goes: first those without a cut by their score, then, when everybody is
    /// cut, those whose cut is over first.
    fn make_room(&mut self, now: Instant) {
        if self.peers.len() < self.config.max_peers.max(1) {
            return;
        }
        let mut all = Vec::with_capacity(self.peers.len());
        for (peer, entry) in &mut self.peers {
            entry.settle(&self.config, now);
            all.push((entry.cut.map(|cut| cut.until), entry.score, *peer));
        }
        all.sort_by(|one, other| one.0.cmp(&other.0).then(one.1.total_cmp(&other.1)));
        for (cut, _, peer) in all.into_iter().take((self.config.max_peers / 16).max(1)) {
            self.remove(&peer);
            self.changed.insert(peer);
            if cut.is_some() {
                self.outputs.push_back(Output::Readmitted { peer });
            }
        }
    }
}

impl Entry {
    fn new(now: Instant) -> Self {
        Self {
            score: 0.0,
            at: now,
            cuts: 0,
            calm: Duration::ZERO,
            cut: None,
            counted: BTreeMap::new(),
            facts: Facts::default(),
        }
    }

    fn settle(&mut self, config: &Config, now: Instant) {
        self.pass(config, now.saturating_duration_since(self.at));
        self.at = self.at.max(now);
    }

    fn pass(&mut self, config: &Config, passed: Duration) {
        self.score *= left(config.fault_half_life, passed);
        if self.cut.is_some() || self.cuts == 0 {
            return;
        }
        self.calm = self.calm.saturating_add(passed);
        while self.cuts > 0 && self.calm >= config.cut_forgiven {
            self.cuts -= 1;
            self.calm -= config.cut_forgiven;
        }
    }
}

/// Facts of faults join those directly before them only: their order tells the story.
fn every_kind(_: &str) -> bool {
    true
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX)
}
