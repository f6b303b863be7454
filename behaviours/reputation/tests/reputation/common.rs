//! Keys and times that are the same in every run.

use std::time::{Duration, Instant};

use libp2p::PeerId;
use libp2p::identity::Keypair;

/// The wall clock of tests, in milliseconds: 2026-01-01T00:00:00Z.
pub(crate) const WALL_MS: u64 = 1_767_225_600_000;

/// Where virtual time begins; only differences matter.
#[expect(clippy::disallowed_methods, reason = "there is no other way to make an instant")]
pub(crate) fn start() -> Instant {
    Instant::now()
}

pub(crate) fn peer(seed: u8) -> PeerId {
    Keypair::ed25519_from_bytes([seed; 32]).unwrap().public().to_peer_id()
}

/// A peer of many, without the cost of a key.
pub(crate) fn stranger(number: u64) -> PeerId {
    let mut hash = [0x12, 0x20].to_vec();
    hash.extend([number.to_be_bytes(); 4].concat());
    PeerId::from_bytes(&hash).unwrap()
}

pub(crate) const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(minutes * 60)
}

pub(crate) const fn hours(hours: u64) -> Duration {
    minutes(hours * 60)
}
