//! What may be tuned, with defaults, units and bounds.

use std::time::Duration;

/// Peers of which each of the two numbers is kept. Some 2 KiB each at the very most, so 8 MiB.
pub const MAX_PEERS: usize = 4_096;

/// Facts kept of a peer behind each of the two numbers.
pub const MAX_FACTS: usize = 16;

/// After this time, what a peer's reliability differs from [`PRIOR`](crate::reliability::PRIOR) has halved.
pub const RELIABILITY_HALF_LIFE: Duration = Duration::from_secs(24 * 3600);

/// After this time a peer's fault score has halved.
pub const FAULT_HALF_LIFE: Duration = Duration::from_secs(30 * 60);

/// How long the first cut lasts.
pub const FIRST_CUT: Duration = Duration::from_secs(10 * 60);

/// No cut lasts longer.
pub const LONGEST_CUT: Duration = Duration::from_secs(24 * 3600);

/// A time like this without a cut takes one doubling back.
pub const CUT_FORGIVEN: Duration = Duration::from_secs(24 * 3600);

/// Refusals of one kind are told at most once in this time, with their number.
pub const REFUSAL_REPORT: Duration = Duration::from_secs(10);

/// Connections of a node at the same time.
pub const PLACES: u32 = 1_024;

/// Handshakes of inbound connections at the same time.
pub const PENDING: u32 = 1_024;

/// The settings of the whole behaviour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Peers of which each number is kept; the least informative go first. Default [`MAX_PEERS`]; at least 1.
    pub max_peers: usize,
    /// How slowly reliability goes back to where it began. Default [`RELIABILITY_HALF_LIFE`]; longer than zero.
    pub reliability_half_life: Duration,
    /// How slowly faults are forgotten. Default [`FAULT_HALF_LIFE`]; longer than zero. A peer that makes fewer than half
    /// of the tolerated number of faults in each such time is never cut.
    pub fault_half_life: Duration,
    /// How long the first cut lasts; each further one lasts twice as long. The actual time is a uniform pick between
    /// nine tenths of it and all of it, lest many nodes let a peer in again at one moment. Default [`FIRST_CUT`]; longer
    /// than zero and at most `longest_cut`.
    pub first_cut: Duration,
    /// No cut lasts longer. Default [`LONGEST_CUT`].
    pub longest_cut: Duration,
    /// A time like this without a cut takes one doubling back. Default [`CUT_FORGIVEN`]; longer than zero.
    pub cut_forgiven: Duration,
    /// The first refusal of a kind is told at once, those that follow once in this time. Default [`REFUSAL_REPORT`];
    /// longer than zero.
    pub refusal_report: Duration,
    /// How many connections there may be.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_peers: MAX_PEERS,
            reliability_half_life: RELIABILITY_HALF_LIFE,
            fault_half_life: FAULT_HALF_LIFE,
            first_cut: FIRST_CUT,
            longest_cut: LONGEST_CUT,
            cut_forgiven: CUT_FORGIVEN,
            refusal_report: REFUSAL_REPORT,
            limits: Limits::default(),
        }
    }
}

/// How many connections there may be, and how many handshakes of inbound ones. An *address* is an IPv4 address or an
/// IPv6 /64, which is what one customer gets; a *network* is an IPv4 /24 or an IPv6 /48. *Private* are loopback,
/// link-local and the ranges for local use: there the tests run, offices and homes, and the owner knows who is in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections, without those of exempt peers. Default [`PLACES`]; at least 1.
    pub places: u32,
    /// Of the places, how many in a hundred inbound connections may never take. Default 30; 0 to 100.
    pub outbound_percent: u32,
    /// Connections of one peer, exempt or not: one in use, one that replaces it, one half open, and room for a burst.
    /// Default 8; at least 1.
    pub per_peer: u32,
    /// Connections of one public address. Default a sixteenth of the places.
    pub per_address: u32,
    /// Connections of one public network. Default an eighth of the places.
    pub per_network: u32,
    /// Connections of one private address. Default all places.
    pub per_private_address: u32,
    /// Connections of one private network. Default all places.
    pub per_private_network: u32,
    /// Inbound handshakes at the same time. Default [`PENDING`]; at least 1.
    pub pending: u32,
    /// Inbound handshakes of one public address. Default a sixteenth of `pending`.
    pub pending_per_address: u32,
    /// Inbound handshakes of one public network. Default an eighth of `pending`.
    pub pending_per_network: u32,
    /// Inbound handshakes of one private address. Default a quarter of `pending`.
    pub pending_per_private_address: u32,
    /// Inbound handshakes of one private network. Default half of `pending`.
    pub pending_per_private_network: u32,
}

impl Limits {
    /// The defaults for a node with so many places: a seed has more of them than a peer.
    pub fn with_places(places: u32) -> Self {
        let share = |whole: u32, part: u32| (whole / part).max(1);
        Self {
            places,
            outbound_percent: 30,
            per_peer: 8,
            per_address: share(places, 16),
            per_network: share(places, 8),
            per_private_address: places,
            per_private_network: places,
            pending: PENDING,
            pending_per_address: share(PENDING, 16),
            pending_per_network: share(PENDING, 8),
            pending_per_private_address: share(PENDING, 4),
            pending_per_private_network: share(PENDING, 2),
        }
    }

    /// The places that inbound connections may take.
    pub fn inbound_places(&self) -> u32 {
        let kept = u64::from(self.places) * u64::from(self.outbound_percent.min(100));
        self.places - u32::try_from(kept.div_ceil(100)).unwrap_or(self.places)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::with_places(PLACES)
    }
}
