//! Admission: how many connections and handshakes there may be, in all, of a peer, and of a range of addresses.
//!
//! A counter without time: what is asked is answered at once, so it has neither timer nor outputs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use libp2p::PeerId;

use crate::config::Limits;
use crate::prefix::{Origin, Prefix};

/// Which limit a connection ran into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// The peer is cut for its faults.
    Cut,
    /// [`Limits::places`].
    Places,
    /// The share of the places that inbound connections may take: [`Limits::outbound_percent`].
    InboundPlaces,
    /// [`Limits::per_peer`].
    PerPeer,
    /// [`Limits::per_address`] or [`Limits::per_private_address`].
    Address,
    /// [`Limits::per_network`] or [`Limits::per_private_network`].
    Network,
    /// [`Limits::pending`].
    Pending,
    /// [`Limits::pending_per_address`] or [`Limits::pending_per_private_address`].
    PendingAddress,
    /// [`Limits::pending_per_network`] or [`Limits::pending_per_private_network`].
    PendingNetwork,
}

impl Refusal {
    /// Every one, in order.
    pub const ALL: [Self; 9] = [
        Self::Cut,
        Self::Places,
        Self::InboundPlaces,
        Self::PerPeer,
        Self::Address,
        Self::Network,
        Self::Pending,
        Self::PendingAddress,
        Self::PendingNetwork,
    ];
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cut => "cut",
            Self::Places => "places",
            Self::InboundPlaces => "inbound-places",
            Self::PerPeer => "per-peer",
            Self::Address => "per-address",
            Self::Network => "per-network",
            Self::Pending => "pending",
            Self::PendingAddress => "pending-per-address",
            Self::PendingNetwork => "pending-per-network",
        })
    }
}

/// Why a connection was not let in. The cause within libp2p's `ConnectionDenied` is this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("refused: {refusal}, at most {limit}")]
pub struct Refused {
    /// The limit that was met.
    pub refusal: Refusal,
    /// How much it allows; 0 for a cut peer.
    pub limit: u32,
    /// Whose limit it was, where it is one of a range.
    pub prefix: Option<Prefix>,
}

/// How much of a limit is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The limit.
    pub limit: Refusal,
    /// In use; for limits of a peer or range, by the one that uses most of it.
    pub used: u32,
    /// Allowed.
    pub allowed: u32,
    /// The range that uses most.
    pub prefix: Option<Prefix>,
}

/// A connection for which somebody asks, or that stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The remote.
    pub peer: PeerId,
    /// It came to us.
    pub inbound: bool,
    /// From where, or to where.
    pub origin: Option<Origin>,
}

/// The core; `Id` names a connection.
#[derive(Debug)]
pub struct Admission<Id> {
    limits: Limits,
    exempt: BTreeSet<PeerId>,
    /// Inbound handshakes under way.
    pending: BTreeMap<Id, Option<Origin>>,
    pending_of: BTreeMap<Prefix, u32>,
    links: BTreeMap<Id, Link>,
    /// Connections that count against places and ranges: those of peers that are not exempt.
    inbound: u32,
    outbound: u32,
    of_prefix: BTreeMap<Prefix, u32>,
    of_peer: BTreeMap<PeerId, u32>,
}

impl<Id: Copy + Ord> Admission<Id> {
    /// Nothing stands.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            exempt: BTreeSet::new(),
            pending: BTreeMap::new(),
            pending_of: BTreeMap::new(),
            links: BTreeMap::new(),
            inbound: 0,
            outbound: 0,
            of_prefix: BTreeMap::new(),
            of_peer: BTreeMap::new(),
        }
    }

    /// Somebody knocks. When it is let in, [`Admission::settled`] must follow once the handshake is over, however.
    ///
    /// # Errors
    ///
    /// The limit that is met; then nothing was counted.
    pub fn knock(&mut self, id: Id, origin: Option<Origin>) -> Result<(), Refused> {
        let limits = &self.limits;
        check(Refusal::Pending, count(self.pending.len()), limits.pending, None)?;
        if let Some(origin) = origin {
            let (address, network) = limits.pending_of(&origin);
            let used = |prefix| self.pending_of.get(&prefix).copied().unwrap_or(0);
            check(Refusal::PendingAddress, used(origin.address), address, Some(origin.address))?;
            check(Refusal::PendingNetwork, used(origin.network), network, Some(origin.network))?;
        }
        if self.pending.insert(id, origin).is_none() {
            each(origin, |prefix| add(&mut self.pending_of, prefix));
        }
        Ok(())
    }

    /// A handshake is over, well or not. Unknown ids are ignored.
    pub fn settled(&mut self, id: Id) {
        if let Some(origin) = self.pending.remove(&id) {
            each(origin, |prefix| subtract(&mut self.pending_of, prefix));
        }
    }

    /// Whether one more such connection may stand. Nothing is counted before [`Admission::opened`].
    ///
    /// # Errors
    ///
    /// The limit that is met.
    pub fn check(&self, link: &Link) -> Result<(), Refused> {
        let limits = &self.limits;
        check(Refusal::PerPeer, self.of_peer.get(&link.peer).copied().unwrap_or(0), limits.per_peer, None)?;
        if self.exempt.contains(&link.peer) {
            return Ok(());
        }
        check(Refusal::Places, self.inbound.saturating_add(self.outbound), limits.places, None)?;
        if link.inbound {
            check(Refusal::InboundPlaces, self.inbound, limits.inbound_places(), None)?;
        }
        if let Some(origin) = link.origin {
            let (address, network) = limits.links_of(&origin);
            let used = |prefix| self.of_prefix.get(&prefix).copied().unwrap_or(0);
            check(Refusal::Address, used(origin.address), address, Some(origin.address))?;
            check(Refusal::Network, used(origin.network), network, Some(origin.network))?;
        }
        Ok(())
    }

    /// A connection stands.
    pub fn opened(&mut self, id: Id, link: Link) {
        self.closed(id);
        self.links.insert(id, link);
        add(&mut self.of_peer, link.peer);
        if !self.exempt.contains(&link.peer) {
            self.count(&link, true);
        }
    }

    /// A connection stands no more. Unknown ids are ignored.
    pub fn closed(&mut self, id: Id) {
        let Some(link) = self.links.remove(&id) else { return };
        subtract(&mut self.of_peer, link.peer);
        if !self.exempt.contains(&link.peer) {
            self.count(&link, false);
        }
    }

    /// Count the peer's connections apart: they take no place, and no limit but that of a peer holds for them.
    pub fn exempt(&mut self, peer: PeerId) {
        if self.exempt.insert(peer) {
            self.recount(&peer, false);
        }
    }

    /// Count the peer's connections again. Those that stand are not closed, also when there are too many now.
    pub fn unexempt(&mut self, peer: &PeerId) {
        if self.exempt.remove(peer) {
            self.recount(peer, true);
        }
    }

    /// Whether the peer is exempt.
    pub fn is_exempt(&self, peer: &PeerId) -> bool {
        self.exempt.contains(peer)
    }

    /// Whether a connection of the peer stands.
    pub fn is_connected(&self, peer: &PeerId) -> bool {
        self.of_peer.contains_key(peer)
    }

    /// How full each limit is; those of ranges show the one that is fullest in proportion, without [`Refusal::Cut`].
    pub fn usage(&self) -> Vec<Usage> {
        let limits = &self.limits;
        let plain = |limit, used, allowed| Usage { limit, used, allowed, prefix: None };
        let links = fullest(self.links.values().filter_map(|link| link.origin), &self.of_prefix, |origin| {
            limits.links_of(origin)
        });
        let pending = fullest(self.pending.values().filter_map(|origin| *origin), &self.pending_of, |origin| {
            limits.pending_of(origin)
        });
        let ranges = [
            (Refusal::Address, links.0, limits.per_address),
            (Refusal::Network, links.1, limits.per_network),
            (Refusal::PendingAddress, pending.0, limits.pending_per_address),
            (Refusal::PendingNetwork, pending.1, limits.pending_per_network),
        ];
        let ranges = ranges.into_iter().map(|(limit, fullest, allowed)| match fullest {
            Some((used, allowed, prefix)) => Usage { limit, used, allowed, prefix: Some(prefix) },
            None => plain(limit, 0, allowed),
        });
        let most = self.of_peer.values().max().copied().unwrap_or(0);
        let whole = [
            plain(Refusal::Places, self.inbound.saturating_add(self.outbound), limits.places),
            plain(Refusal::InboundPlaces, self.inbound, limits.inbound_places()),
            plain(Refusal::PerPeer, most, limits.per_peer),
            plain(Refusal::Pending, count(self.pending.len()), limits.pending),
        ];
        let mut usage = whole.into_iter().chain(ranges).collect::<Vec<_>>();
        usage.sort_by_key(|usage| usage.limit);
        usage
    }

    fn recount(&mut self, peer: &PeerId, more: bool) {
        let links = self.links.values().filter(|link| link.peer == *peer).copied().collect::<Vec<_>>();
        for link in links {
            self.count(&link, more);
        }
    }

    fn count(&mut self, link: &Link, more: bool) {
        let side = if link.inbound { &mut self.inbound } else { &mut self.outbound };
        *side = if more { side.saturating_add(1) } else { side.saturating_sub(1) };
        let change = if more { add } else { subtract };
        each(link.origin, |prefix| change(&mut self.of_prefix, prefix));
    }
}

impl Limits {
    /// The limits of an origin's address and network for connections.
    fn links_of(&self, origin: &Origin) -> (u32, u32) {
        if origin.private {
            (self.per_private_address, self.per_private_network)
        } else {
            (self.per_address, self.per_network)
        }
    }

    /// The same for handshakes.
    fn pending_of(&self, origin: &Origin) -> (u32, u32) {
        if origin.private {
            (self.pending_per_private_address, self.pending_per_private_network)
        } else {
            (self.pending_per_address, self.pending_per_network)
        }
    }
}

type Fullest = Option<(u32, u32, Prefix)>;

fn fullest(
    origins: impl Iterator<Item = Origin>,
    used: &BTreeMap<Prefix, u32>,
    allowed: impl Fn(&Origin) -> (u32, u32),
) -> (Fullest, Fullest) {
    let (mut address, mut network) = (None, None);
    for origin in origins.collect::<BTreeSet<_>>() {
        let allowed = allowed(&origin);
        for (best, prefix, allowed) in
            [(&mut address, origin.address, allowed.0), (&mut network, origin.network, allowed.1)]
        {
            let used = used.get(&prefix).copied().unwrap_or(0);
            let full = |used: u32, allowed: u32| f64::from(used) / f64::from(allowed.max(1));
            if best.is_none_or(|(most, of, _)| full(used, allowed) > full(most, of)) {
                *best = Some((used, allowed, prefix));
            }
        }
    }
    (address, network)
}

fn check(refusal: Refusal, used: u32, limit: u32, prefix: Option<Prefix>) -> Result<(), Refused> {
    if used < limit { Ok(()) } else { Err(Refused { refusal, limit, prefix }) }
}

fn each(origin: Option<Origin>, mut change: impl FnMut(Prefix)) {
    if let Some(origin) = origin {
        change(origin.address);
        change(origin.network);
    }
}

fn add<K: Ord>(counts: &mut BTreeMap<K, u32>, key: K) {
    let count = counts.entry(key).or_default();
    *count = count.saturating_add(1);
}

fn subtract<K: Ord>(counts: &mut BTreeMap<K, u32>, key: K) {
    if let Some(count) = counts.get_mut(&key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
