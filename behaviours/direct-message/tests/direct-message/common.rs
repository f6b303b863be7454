//! Keys and messages that are the same in every run.

use std::time::Instant;

use direct_message::{Message, MessageId, Outgoing};
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
    key(seed).public().to_peer_id()
}

/// A valid message; its id is made of the two seeds and its number.
pub(crate) fn message(from: u8, to: u8, seq: u64, text: &str) -> Message {
    let mut id = [from; 16];
    id[7] = to;
    id[8..].copy_from_slice(&seq.to_be_bytes());
    Message {
        id: MessageId(id),
        from: peer(from),
        to: peer(to),
        seq,
        sent_at_ms: WALL_MS,
        expires_at_ms: WALL_MS + 7 * 24 * 60 * 60 * 1_000,
        name: "ada".to_owned(),
        team: "althing".to_owned(),
        text: text.to_owned(),
    }
}

/// The same message as its author's outbox on disk holds it.
pub(crate) fn outgoing(from: u8, to: u8, seq: u64, text: &str) -> Outgoing {
    let message = message(from, to, seq, text);
    Outgoing { id: message.id, seq, envelope: message.sign(&key(from)).unwrap() }
}
