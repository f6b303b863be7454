//! How much others may put on this node's disk in a day.
//!
//! Everybody who can reach the node may send it messages, and each is kept. Without a bound a stranger could fill the
//! disk; with one a message beyond it is answered "later" and stays in its sender's outbox. Trusted peers have no bound.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use libp2p::PeerId;

/// The span over which is counted.
const DAY: Duration = Duration::from_secs(86_400);

/// What one peer may send in a day, in bytes of text and names, each message counting [`OVERHEAD`] more.
const PER_PEER: u64 = 256 * 1024 * 1024;

/// What all peers that are not trusted may send together. At least [`PER_PEER`].
const TOGETHER: u64 = 2 * 1024 * 1024 * 1024;

/// What a message costs on disk beside its text: ids, times, indexes.
const OVERHEAD: u64 = 512;

/// Peers counted one by one; those beyond only count together, which bounds them as well.
const PEERS: usize = 10_000;

/// The count of the present day.
#[derive(Debug)]
pub(super) struct Quota {
    began: Instant,
    together: u64,
    by_peer: BTreeMap<PeerId, u64>,
}

impl Quota {
    /// Nothing was sent yet.
    pub(super) fn new(now: Instant) -> Self {
        Self { began: now, together: 0, by_peer: BTreeMap::new() }
    }

    /// Whether so many messages of so many bytes from that peer may be stored; if so they are counted.
    pub(super) fn admit(&mut self, peer: PeerId, messages: usize, bytes: usize, now: Instant) -> bool {
        if now.saturating_duration_since(self.began) >= DAY {
            *self = Self::new(now);
        }
        let cost = bytes as u64 + messages as u64 * OVERHEAD;
        let sent = self.by_peer.get(&peer).copied().unwrap_or(0);
        if sent + cost > PER_PEER || self.together + cost > TOGETHER {
            return false;
        }
        self.together += cost;
        if sent > 0 || self.by_peer.len() < PEERS {
            self.by_peer.insert(peer, sent + cost);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_and_all_together_are_bounded_and_a_new_day_begins_anew() {
        let now = Instant::now();
        let mut quota = Quota::new(now);
        let half = usize::try_from(PER_PEER / 2).unwrap();
        let peer = PeerId::random();
        assert!(quota.admit(peer, 0, half, now) && quota.admit(peer, 0, half, now));
        assert!(!quota.admit(peer, 1, 0, now), "the peer's own bound");
        for _ in 0..TOGETHER / PER_PEER - 1 {
            assert!(quota.admit(PeerId::random(), 0, 2 * half, now));
        }
        assert!(!quota.admit(PeerId::random(), 1, 1, now), "the bound of all together");
        assert!(quota.admit(peer, 1, 1, now + DAY));
    }
}
