//! Reliability: how well a peer served us, 0 to 1, to put dials, seeds, sources and holders in order. It bans nobody.
//!
//! Each [`Subject`] has a value that begins at [`PRIOR`], is smoothed exponentially by what we see, and drifts back to the
//! prior with time. The number is their weighted mean, so success never lowers it, failure never raises it, and no
//! subject outweighs its share.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use libp2p::PeerId;

use crate::config::Config;
use crate::evidence::{Evidence, Subject};
use crate::fact::{Fact, Facts, Number, single};

/// Where every value begins and returns to: a stranger stands before those that failed, and behind those that served.
pub const PRIOR: f64 = 0.5;

/// What happens.
#[derive(Clone, Debug)]
pub enum Input {
    /// We saw this ourselves.
    Saw {
        /// Of whom.
        peer: PeerId,
        /// What.
        evidence: Evidence,
        /// On the wall clock, in milliseconds since the epoch; it is only written down.
        at_ms: u64,
    },
}

/// The core. It has no timer and no output: values drift when they are looked at.
#[derive(Debug)]
pub struct Reliability {
    max_peers: usize,
    half_life: Duration,
    peers: BTreeMap<PeerId, Entry>,
    /// Changed since [`Reliability::take_changed`]; among `peers`, or forgotten since.
    changed: BTreeSet<PeerId>,
}

#[derive(Clone, Debug)]
struct Entry {
    /// As of `at`, in the order of [`Subject::ALL`].
    values: [f64; Subject::ALL.len()],
    at: Instant,
    facts: Facts,
}

impl Reliability {
    /// Knows nobody.
    pub fn new(config: &Config) -> Self {
        Self {
            max_peers: config.max_peers.max(1),
            half_life: config.reliability_half_life,
            peers: BTreeMap::new(),
            changed: BTreeSet::new(),
        }
    }

    /// Something happened.
    pub fn handle_input(&mut self, input: Input, now: Instant) {
        let Input::Saw { peer, evidence, at_ms } = input;
        if !self.peers.contains_key(&peer) {
            self.make_room(now);
        }
        let half_life = self.half_life;
        let entry = self.peers.entry(peer).or_insert_with(|| Entry::new([PRIOR; Subject::ALL.len()], now));
        entry.settle(half_life, now);
        let before = entry.number();
        let goal = if evidence.is_success() { 1.0 } else { 0.0 };
        let value = &mut entry.values[evidence.subject() as usize];
        *value = (*value + evidence.gain() * (goal - *value)).clamp(0.0, 1.0);
        let effect = entry.number() - before;
        let group = group(evidence.word());
        entry.facts.add(single(Number::Reliability, evidence.word(), at_ms, effect), |word| self::group(word) == group);
        self.changed.insert(peer);
    }

    /// The number, 0 to 1; [`PRIOR`] for somebody of whom nothing is known.
    pub fn value(&self, peer: &PeerId, now: Instant) -> f64 {
        self.settled(peer, now).map_or(PRIOR, |values| number(&values))
    }

    /// The value of one subject, 0 to 1.
    pub fn value_of(&self, peer: &PeerId, subject: Subject, now: Instant) -> f64 {
        self.settled(peer, now).map_or(PRIOR, |values| values[subject as usize])
    }

    /// What moved the number, oldest first.
    pub fn facts(&self, peer: &PeerId) -> impl Iterator<Item = &Fact> {
        self.peers.get(peer).into_iter().flat_map(|entry| entry.facts.iter())
    }

    /// Peers of which something is known, at most [`Config::max_peers`].
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// Whether nothing is known of anybody.
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// Whether something is known of the peer.
    pub fn knows(&self, peer: &PeerId) -> bool {
        self.peers.contains_key(peer)
    }

    /// Everybody who changed since this was asked last, also those who were forgotten.
    pub fn take_changed(&mut self) -> BTreeSet<PeerId> {
        std::mem::take(&mut self.changed)
    }

    /// All values of a peer in the order of [`Subject::ALL`].
    pub fn values(&self, peer: &PeerId, now: Instant) -> Option<[f64; Subject::ALL.len()]> {
        self.settled(peer, now)
    }

    /// Put back what was stored so long ago. Values that cannot be are the prior.
    pub fn restore(&mut self, peer: PeerId, values: &[f64], facts: Vec<Fact>, ago: Duration, now: Instant) {
        if !self.peers.contains_key(&peer) {
            self.make_room(now);
        }
        let mut all = [PRIOR; Subject::ALL.len()];
        for (value, stored) in all.iter_mut().zip(values).filter(|(_, stored)| stored.is_finite()) {
            *value = stored.clamp(0.0, 1.0);
        }
        let mut entry = Entry::new(all, now);
        entry.drift(self.half_life, ago);
        entry.facts = Facts::restore(facts);
        self.peers.insert(peer, entry);
    }

    fn settled(&self, peer: &PeerId, now: Instant) -> Option<[f64; Subject::ALL.len()]> {
        let entry = self.peers.get(peer)?;
        let left = left(self.half_life, now.saturating_duration_since(entry.at));
        Some(entry.values.map(|value| PRIOR + (value - PRIOR) * left))
    }

    /// The sixteenth that says least goes, so that a crowd of strangers costs one sort for many of them.
    fn make_room(&mut self, now: Instant) {
        if self.peers.len() < self.max_peers {
            return;
        }
        let half_life = self.half_life;
        let mut all = Vec::with_capacity(self.peers.len());
        for (peer, entry) in &mut self.peers {
            entry.settle(half_life, now);
            let said: f64 = entry.values.iter().map(|value| (value - PRIOR).abs()).sum();
            all.push((said, *peer));
        }
        all.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        for (_, peer) in all.into_iter().take((self.max_peers / 16).max(1)) {
            self.peers.remove(&peer);
            self.changed.insert(peer);
        }
    }
}

impl Entry {
    fn new(values: [f64; Subject::ALL.len()], now: Instant) -> Self {
        Self { values, at: now, facts: Facts::default() }
    }

    fn settle(&mut self, half_life: Duration, now: Instant) {
        let passed = now.saturating_duration_since(self.at);
        self.drift(half_life, passed);
        self.at = self.at.max(now);
    }

    fn drift(&mut self, half_life: Duration, passed: Duration) {
        let left = left(half_life, passed);
        for value in &mut self.values {
            *value = PRIOR + (*value - PRIOR) * left;
        }
    }

    fn number(&self) -> f64 {
        number(&self.values)
    }
}

/// What is left of 1 after that time, 0 to 1.
pub(crate) fn left(half_life: Duration, passed: Duration) -> f64 {
    if passed.is_zero() {
        return 1.0;
    }
    (-passed.as_secs_f64() / half_life.as_secs_f64().max(f64::MIN_POSITIVE)).exp2()
}

fn number(values: &[f64; Subject::ALL.len()]) -> f64 {
    let sum: f64 = Subject::ALL.iter().map(|&subject| subject.weight() * values[subject as usize]).sum();
    sum.clamp(0.0, 1.0)
}

/// The subject's part of a word of [`Evidence`].
fn group(word: &str) -> &str {
    word.split('-').next().unwrap_or(word)
}
