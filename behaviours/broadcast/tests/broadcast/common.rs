//! Keys and broadcasts that are the same in every run.

use std::sync::OnceLock;
use std::time::Instant;

use broadcast::{Envelope, Kind};
use libp2p::PeerId;
use libp2p::identity::Keypair;

/// The wall clock of tests, in milliseconds: 2026-01-01T00:00:00Z.
pub(crate) const WALL_MS: u64 = 1_767_225_600_000;

/// Where virtual time begins; only differences matter.
#[expect(clippy::disallowed_methods, reason = "there is no other way to make an instant")]
pub(crate) fn start() -> Instant {
    Instant::now()
}

/// The key whose seed is that byte 32 times.
pub(crate) fn key(seed: u8) -> Keypair {
    Keypair::ed25519_from_bytes([seed; 32]).unwrap()
}

pub(crate) fn peer(seed: u8) -> PeerId {
    static PEERS: [OnceLock<PeerId>; 256] = [const { OnceLock::new() }; 256];
    *PEERS[usize::from(seed)].get_or_init(|| key(seed).public().to_peer_id())
}

pub(crate) fn envelope(author: u8, epoch: u64, sequence: u64, text: &str) -> Envelope {
    Envelope {
        author: peer(author),
        epoch,
        sequence,
        sent_at_ms: WALL_MS,
        name: "ada".to_owned(),
        team: "althing".to_owned(),
        kind: Kind::Text,
        text: text.to_owned(),
    }
}

/// The same, signed.
pub(crate) fn signed(author: u8, epoch: u64, sequence: u64, text: &str) -> Vec<u8> {
    envelope(author, epoch, sequence, text).sign(&key(author)).unwrap()
}

/// A true broadcast whose text was changed on the way: the signature does not match any more.
pub(crate) fn forged(author: u8, epoch: u64, sequence: u64) -> Vec<u8> {
    let mut bytes = signed(author, epoch, sequence, "true words");
    let at = bytes.windows(4).position(|window| window == b"true").unwrap();
    bytes[at] = b'T';
    bytes
}
