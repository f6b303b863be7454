//! How much of each kind a neighbour may send, and what we allow ourselves.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use libp2p::PeerId;

use crate::bucket::Bucket;

/// Peers whose rates are remembered; beyond it the first is forgotten, and begins anew.
const MAX_PEERS: usize = 4_096;
/// A flood is told at most so often for one peer.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Probes, own ones of the neighbour and those for others.
    Probe,
    /// Questions to probe another.
    Relay,
    /// Death reports.
    Report,
    /// Frames with tombstones.
    Tombstones,
}

/// What each neighbour may send: a second on average, and at once. We send four fifths of it at most.
fn allowance(kind: Kind) -> (f64, f64) {
    match kind {
        Kind::Probe => (20.0, 64.0),
        Kind::Relay => (5.0, 32.0),
        Kind::Report => (5.0, 256.0),
        Kind::Tombstones => (20.0, 64.0),
    }
}

/// Token buckets by peer and kind.
pub(crate) struct Limits {
    share: f64,
    buckets: BTreeMap<(PeerId, Kind), Bucket>,
    told: BTreeMap<PeerId, Instant>,
}

impl Limits {
    /// For what comes in.
    pub(crate) fn inbound() -> Self {
        Self { share: 1.0, buckets: BTreeMap::new(), told: BTreeMap::new() }
    }

    /// For what goes out: so far below what is allowed that no delay on the way makes a flood of it.
    pub(crate) fn outbound() -> Self {
        Self { share: 0.8, ..Self::inbound() }
    }

    /// Whether one more is within the rate.
    pub(crate) fn admits(&mut self, peer: PeerId, kind: Kind, now: Instant) -> bool {
        let (rate, burst) = allowance(kind);
        if self.buckets.len() >= 4 * MAX_PEERS && !self.buckets.contains_key(&(peer, kind)) {
            self.buckets.pop_first();
        }
        let bucket = self.buckets.entry((peer, kind));
        bucket.or_insert_with(|| Bucket::new(rate * self.share, burst * self.share, now)).take(1.0, now)
    }

    /// Whether the flood of that peer is to be told now.
    pub(crate) fn is_news(&mut self, peer: PeerId, now: Instant) -> bool {
        if self.told.get(&peer).is_some_and(|at| now.saturating_duration_since(*at) < TELL_EVERY) {
            return false;
        }
        if self.told.len() >= MAX_PEERS {
            self.told.pop_first();
        }
        self.told.insert(peer, now);
        true
    }
}
