//! What is signed: a sign of life, a death report, a tombstone.
//!
//! Each travels as the exact bytes of a libp2p signed envelope (RFC 0002) whose payload is CBOR, each with a domain of its
//! own, so that none can pass for another. Only Ed25519 keys are taken, and a statement always speaks for its signer.

use libp2p::PeerId;
use libp2p::core::SignedEnvelope;
use libp2p::identity::{KeyType, Keypair};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

use crate::cbor::{self, Bytes};
use crate::detector::Incarnation;

/// Longest signed statement, in bytes of its envelope.
pub const MAX_STATEMENT_BYTES: usize = 512;

const ALIVE: (&str, &[u8]) = ("althing/alive/1", b"/althing/alive/1");
const REPORT: (&str, &[u8]) = ("althing/death-report/1", b"/althing/death-report/1");
const TOMBSTONE: (&str, &[u8]) = ("althing/tombstone/1", b"/althing/tombstone/1");

/// What a suspect must repeat under its signature, so that no helper can answer for it, not even with an old answer.
pub type Challenge = [u8; 16];

/// A suspect's sign of life. With a higher incarnation than the suspected one it is a refutation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alive {
    /// Who lives, and signed.
    pub peer: PeerId,
    /// Its incarnation now.
    pub incarnation: Incarnation,
    /// What was to be repeated.
    pub challenge: Challenge,
}

/// Somebody's word that a peer is dead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Who says so, and signed.
    pub reporter: PeerId,
    /// Who is said to be dead.
    pub target: PeerId,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// The reporter's clock, in milliseconds since 1970 UTC.
    pub at_ms: u64,
}

/// A seed's word that a peer is dead, or is so no longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// Which seed, and signed.
    pub seed: PeerId,
    /// Who is said to be dead.
    pub target: PeerId,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// The seed's clock, in milliseconds since 1970 UTC. Of two of one seed about one target the later one counts.
    pub at_ms: u64,
    /// Whether the stone stands, or has fallen.
    pub stands: bool,
}

/// Why a statement could not be signed or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// More than [`MAX_STATEMENT_BYTES`], no envelope, or an unexpected payload.
    #[error("it is not a signed statement")]
    Malformed,
    /// The signature does not fit, or is for something else.
    #[error("its signature is wrong")]
    Signature,
    /// Not an Ed25519 key.
    #[error("it must be signed by an Ed25519 key")]
    KeyType,
    /// Signed by somebody else than it speaks for.
    #[error("it is signed by another key than that of the peer it speaks for")]
    WrongPeer,
}

impl Alive {
    /// Sign an own sign of life.
    ///
    /// # Errors
    /// The key is not Ed25519, or not that of the peer.
    pub fn sign(&self, key: &Keypair) -> Result<Vec<u8>, StatementError> {
        let payload = AlivePayload {
            peer: self.peer.to_bytes().into(),
            incarnation: self.incarnation.0,
            challenge: ByteArray::new(self.challenge),
        };
        seal(key, self.peer, ALIVE, &payload)
    }

    /// Read and verify one.
    ///
    /// # Errors
    /// Anything but what an Ed25519 key has signed for itself.
    pub fn decode(bytes: &[u8]) -> Result<Self, StatementError> {
        let (payload, signer) = open::<AlivePayload>(bytes, ALIVE)?;
        let peer = speaks_for(&payload.peer, signer)?;
        Ok(Self { peer, incarnation: Incarnation(payload.incarnation), challenge: payload.challenge.into_array() })
    }
}

impl Report {
    /// Sign an own report.
    ///
    /// # Errors
    /// The key is not Ed25519, or not that of the reporter.
    pub fn sign(&self, key: &Keypair) -> Result<Vec<u8>, StatementError> {
        let payload = ReportPayload {
            reporter: self.reporter.to_bytes().into(),
            target: self.target.to_bytes().into(),
            incarnation: self.incarnation.0,
            at_ms: self.at_ms,
        };
        seal(key, self.reporter, REPORT, &payload)
    }

    /// Read and verify one. Its time is not looked at.
    ///
    /// # Errors
    /// Anything but what an Ed25519 key has signed for itself.
    pub fn decode(bytes: &[u8]) -> Result<Self, StatementError> {
        let (payload, signer) = open::<ReportPayload>(bytes, REPORT)?;
        let reporter = speaks_for(&payload.reporter, signer)?;
        let target = PeerId::from_bytes(&payload.target).map_err(|_| StatementError::Malformed)?;
        Ok(Self { reporter, target, incarnation: Incarnation(payload.incarnation), at_ms: payload.at_ms })
    }
}

impl Tombstone {
    /// Sign an own tombstone.
    ///
    /// # Errors
    /// The key is not Ed25519, or not that of the seed.
    pub fn sign(&self, key: &Keypair) -> Result<Vec<u8>, StatementError> {
        let payload = TombstonePayload {
            seed: self.seed.to_bytes().into(),
            target: self.target.to_bytes().into(),
            incarnation: self.incarnation.0,
            at_ms: self.at_ms,
            stands: self.stands,
        };
        seal(key, self.seed, TOMBSTONE, &payload)
    }

    /// Read and verify one. Its time is not looked at.
    ///
    /// # Errors
    /// Anything but what an Ed25519 key has signed for itself.
    pub fn decode(bytes: &[u8]) -> Result<Self, StatementError> {
        let (payload, signer) = open::<TombstonePayload>(bytes, TOMBSTONE)?;
        let seed = speaks_for(&payload.seed, signer)?;
        let target = PeerId::from_bytes(&payload.target).map_err(|_| StatementError::Malformed)?;
        let incarnation = Incarnation(payload.incarnation);
        Ok(Self { seed, target, incarnation, at_ms: payload.at_ms, stands: payload.stands })
    }
}

#[derive(Serialize, Deserialize)]
struct AlivePayload {
    peer: Bytes,
    incarnation: u64,
    challenge: ByteArray<16>,
}

#[derive(Serialize, Deserialize)]
struct ReportPayload {
    reporter: Bytes,
    target: Bytes,
    incarnation: u64,
    at_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct TombstonePayload {
    seed: Bytes,
    target: Bytes,
    incarnation: u64,
    at_ms: u64,
    stands: bool,
}

fn seal(
    key: &Keypair,
    speaker: PeerId,
    (domain, kind): (&str, &[u8]),
    payload: &impl Serialize,
) -> Result<Vec<u8>, StatementError> {
    if key.key_type() != KeyType::Ed25519 {
        return Err(StatementError::KeyType);
    }
    if key.public().to_peer_id() != speaker {
        return Err(StatementError::WrongPeer);
    }
    let envelope = SignedEnvelope::new(key, domain.into(), kind.to_vec(), cbor::encode(payload))
        .map_err(|_| StatementError::KeyType)?;
    Ok(envelope.into_protobuf_encoding())
}

fn open<T: DeserializeOwned>(bytes: &[u8], (domain, kind): (&str, &[u8])) -> Result<(T, PeerId), StatementError> {
    if bytes.len() > MAX_STATEMENT_BYTES {
        return Err(StatementError::Malformed);
    }
    let envelope = SignedEnvelope::from_protobuf_encoding(bytes).map_err(|_| StatementError::Malformed)?;
    let (payload, key) =
        envelope.payload_and_signing_key(domain.into(), kind).map_err(|_| StatementError::Signature)?;
    if key.key_type() != KeyType::Ed25519 {
        return Err(StatementError::KeyType);
    }
    let payload = cbor::decode(payload).map_err(|cbor::Malformed| StatementError::Malformed)?;
    Ok((payload, key.to_peer_id()))
}

fn speaks_for(peer: &[u8], signer: PeerId) -> Result<PeerId, StatementError> {
    let peer = PeerId::from_bytes(peer).map_err(|_| StatementError::Malformed)?;
    if peer == signer { Ok(peer) } else { Err(StatementError::WrongPeer) }
}
