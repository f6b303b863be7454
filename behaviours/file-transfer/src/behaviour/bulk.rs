//! The connections to each peer, and which of them are for bulk.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use libp2p::PeerId;
use libp2p::swarm::ConnectionId;

/// A second connection is asked for this seldom.
const ASK_AGAIN: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Links {
    /// Oldest first: the first is the primary one.
    open: Vec<Link>,
    asked_at: Option<Instant>,
    /// When data moved last, and a bulk connection was wanted before.
    used_at: Option<Instant>,
}

struct Link {
    connection: ConnectionId,
    dialled: bool,
}

/// All connections.
pub(super) struct Connections {
    idle_after: Duration,
    peers: BTreeMap<PeerId, Links>,
}

impl Connections {
    pub(super) fn new(idle_after: Duration) -> Self {
        Self { idle_after, peers: BTreeMap::new() }
    }

    pub(super) fn opened(&mut self, peer: PeerId, connection: ConnectionId, dialled: bool, now: Instant) {
        let links = self.peers.entry(peer).or_default();
        links.open.push(Link { connection, dialled });
        if links.open.len() > 1 && links.asked_at.is_some() {
            // It may come when nobody needs it any more.
            links.used_at = Some(now);
        }
    }

    pub(super) fn closed(&mut self, peer: &PeerId, connection: ConnectionId) {
        let Some(links) = self.peers.get_mut(peer) else { return };
        links.open.retain(|link| link.connection != connection);
        if links.open.is_empty() {
            self.peers.remove(peer);
        }
    }

    /// The one for control messages.
    pub(super) fn primary(&self, peer: &PeerId) -> Option<ConnectionId> {
        self.peers.get(peer)?.open.first().map(|link| link.connection)
    }

    /// The one for data.
    pub(super) fn for_data(&self, peer: &PeerId) -> Option<ConnectionId> {
        self.peers.get(peer)?.open.last().map(|link| link.connection)
    }

    /// Whether a bulk connection is to be asked for; it counts as asked for then.
    pub(super) fn wants_bulk(&mut self, peer: &PeerId, now: Instant) -> bool {
        let Some(links) = self.peers.get_mut(peer).filter(|links| links.open.len() == 1) else { return false };
        if links.asked_at.is_some_and(|at| now.saturating_duration_since(at) < ASK_AGAIN) {
            return false;
        }
        links.asked_at = Some(now);
        true
    }

    /// Data moved.
    pub(super) fn used(&mut self, peer: &PeerId, now: Instant) {
        if let Some(links) = self.peers.get_mut(peer).filter(|links| links.asked_at.is_some()) {
            links.used_at = Some(now);
        }
    }

    /// The bulk connections of ours that nothing has used for a while. Each is named once.
    pub(super) fn idle(
        &mut self,
        now: Instant,
        busy: impl Fn(&PeerId, ConnectionId) -> bool,
    ) -> Vec<(PeerId, ConnectionId)> {
        let mut idle = Vec::new();
        for (peer, links) in &mut self.peers {
            if links.used_at.is_none_or(|at| now.saturating_duration_since(at) < self.idle_after) {
                continue;
            }
            let bulk = links.open.iter().skip(1).filter(|link| link.dialled).map(|link| link.connection);
            let bulk: Vec<_> = bulk.collect();
            if bulk.iter().any(|&connection| busy(peer, connection)) {
                links.used_at = Some(now);
                continue;
            }
            links.used_at = None;
            if !bulk.is_empty() {
                // The next transfer may have one at once.
                links.asked_at = None;
            }
            idle.extend(bulk.into_iter().map(|connection| (*peer, connection)));
        }
        idle
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.peers.values().filter_map(|links| links.used_at).min().map(|at| at + self.idle_after)
    }
}
