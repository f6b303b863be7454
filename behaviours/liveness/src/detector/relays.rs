//! The probes that a node makes on behalf of others.

use std::collections::BTreeMap;
use std::time::Instant;

use libp2p::PeerId;

use super::ProbeId;
use crate::bucket::Bucket;
use crate::config::Config;

/// Names one question of another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RelayToken(pub u64);

/// Probes a second to one target on behalf of others, on average. Relation: below what a target takes of one neighbour.
const TARGET_RATE: f64 = 3.0;
/// Probes to one target on behalf of others at once.
const TARGET_BURST: f64 = 40.0;
/// Targets whose rate is remembered; the first is forgotten beyond it.
const MAX_TARGETS: usize = 1_024;

struct Relay {
    token: RelayToken,
    from: PeerId,
    target: PeerId,
    deadline: Instant,
}

/// Bounded by [`Config::max_relays`], and [`Config::max_relays_per_peer`] for each asker.
#[derive(Default)]
pub(super) struct Relays {
    open: BTreeMap<ProbeId, Relay>,
    rates: BTreeMap<PeerId, Bucket>,
}

impl Relays {
    /// Whether one more may be made.
    pub(super) fn admits(&mut self, from: PeerId, target: PeerId, config: &Config, now: Instant) -> bool {
        let of_asker = self.open.values().filter(|relay| relay.from == from).count();
        if self.open.len() >= config.max_relays || of_asker >= config.max_relays_per_peer {
            return false;
        }
        if self.rates.len() >= MAX_TARGETS && !self.rates.contains_key(&target) {
            self.rates.pop_first();
        }
        self.rates.entry(target).or_insert_with(|| Bucket::new(TARGET_RATE, TARGET_BURST, now)).take(1.0, now)
    }

    pub(super) fn begin(&mut self, probe: ProbeId, token: RelayToken, from: PeerId, target: PeerId, deadline: Instant) {
        self.open.insert(probe, Relay { token, from, target, deadline });
    }

    /// The probe was answered or has failed: whom to tell.
    pub(super) fn end(&mut self, probe: ProbeId, target: PeerId) -> Option<RelayToken> {
        if self.open.get(&probe)?.target != target {
            return None;
        }
        self.open.remove(&probe).map(|relay| relay.token)
    }

    /// Those whose time is over.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<RelayToken> {
        let late = self.open.iter().filter(|(_, relay)| relay.deadline <= now).map(|(probe, _)| *probe);
        let late: Vec<ProbeId> = late.collect();
        late.into_iter().filter_map(|probe| self.open.remove(&probe)).map(|relay| relay.token).collect()
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.open.values().map(|relay| relay.deadline).min()
    }

    /// After a freeze nothing is overdue.
    pub(super) fn postpone(&mut self, now: Instant) {
        for relay in self.open.values_mut() {
            relay.deadline = relay.deadline.max(now);
        }
    }
}
