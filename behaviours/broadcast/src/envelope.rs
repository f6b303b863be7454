//! One broadcast: what its author signs, and how a reader checks it.
//!
//! On the wire and on disk a broadcast is always the exact bytes of its signed envelope (libp2p RFC 0002); nothing is
//! ever signed again. The payload is CBOR (RFC 8949), a map with text keys. Unknown keys are ignored, so that a later
//! version may add some; bytes behind the map are an error. Only the one shortest protobuf encoding of an envelope is
//! accepted, or a relay could make a second message out of a true one.

use std::borrow::Cow;
use std::fmt;

use cbor4ii::core::dec::Read;
use cbor4ii::core::utils::SliceReader;
use libp2p::PeerId;
use libp2p::core::SignedEnvelope;
use libp2p::identity::{KeyType, Keypair};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The domain that the signature is bound to.
pub const DOMAIN: &str = "althing/broadcast/1";

/// The payload type of the envelope.
pub const PAYLOAD_TYPE: &[u8] = b"/althing/broadcast/1";

/// Longest text, in bytes of UTF-8.
pub const MAX_TEXT_BYTES: usize = 64 * 1024;

/// Longest nickname or team label, in bytes of UTF-8.
pub const MAX_NAME_BYTES: usize = 64;

/// Longest signed envelope. Larger than any valid one: text, two labels and some 400 bytes of keys and signature.
pub const MAX_ENVELOPE_BYTES: usize = MAX_TEXT_BYTES + 2 * 1024;

/// The latest time that is accepted, in milliseconds since 1970 (UTC): 9999-12-30T22:00:00.999Z.
pub const MAX_TIME_MS: u64 = 253_402_207_200_999;

/// The highest epoch and the highest sequence number: SQLite's integers end there.
pub const MAX_NUMBER: u64 = i64::MAX as u64;

/// The place of a broadcast in the order of its author. Written `<peer>/<epoch>/<sequence>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BroadcastId {
    /// Who signed it.
    pub author: PeerId,
    /// The author's boot count when it was written.
    pub epoch: u64,
    /// Its number in that epoch, from 1.
    pub sequence: u64,
}

impl fmt::Display for BroadcastId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.author, self.epoch, self.sequence)
    }
}

/// The name of a broadcast that people see: the first 16 bytes of the SHA-256 of its bytes, in hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub [u8; 16]);

impl MessageId {
    /// The name of these envelope bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut id = [0; 16];
        id.copy_from_slice(&hash(bytes)[..16]);
        Self(id)
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageId({self})")
    }
}

/// What a broadcast is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Somebody's words.
    Text,
    /// A numbered sign of life.
    Gossip {
        /// Its number, as its author counts them.
        count: u32,
    },
}

/// A broadcast in the clear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The author: the key that signed.
    pub author: PeerId,
    /// The author's boot count, at most [`MAX_NUMBER`].
    pub epoch: u64,
    /// Its number in that epoch, 1 to [`MAX_NUMBER`], without holes.
    pub sequence: u64,
    /// The author's clock when it was written, in milliseconds since 1970 (UTC), at most [`MAX_TIME_MS`].
    pub sent_at_ms: u64,
    /// The author's nickname then, at most [`MAX_NAME_BYTES`]. Unescaped.
    pub name: String,
    /// The author's team label then, at most [`MAX_NAME_BYTES`]. Unescaped.
    pub team: String,
    /// What it is for.
    pub kind: Kind,
    /// The text, at most [`MAX_TEXT_BYTES`]. Unescaped.
    pub text: String,
}

/// Why a broadcast could not be signed or read. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// The envelope, the text or a label is longer than allowed.
    #[error("the {what} is longer than {limit} bytes")]
    TooLong {
        /// What is too long.
        what: &'static str,
        /// The most it may have, in bytes.
        limit: usize,
    },
    /// Not an envelope in its shortest encoding, or its payload is not the map it should be.
    #[error("not a broadcast: {0}")]
    Malformed(String),
    /// The payload was signed for another purpose, or it is not what was signed.
    #[error("the signature does not match")]
    Signature,
    /// Signed by a key that is not Ed25519.
    #[error("only Ed25519 keys may sign a broadcast")]
    KeyType,
    /// The key that should sign is not the author's.
    #[error("the key is not that of the broadcast's author")]
    WrongKey,
    /// A time behind [`MAX_TIME_MS`].
    #[error("the time is out of range")]
    Time,
    /// An epoch above [`MAX_NUMBER`], or a sequence number of 0 or above it.
    #[error("the epoch or the sequence number is out of range")]
    Number,
}

impl Envelope {
    /// Its place in the author's order.
    pub fn id(&self) -> BroadcastId {
        BroadcastId { author: self.author, epoch: self.epoch, sequence: self.sequence }
    }

    /// Sign it as its author. The same envelope and key give the same bytes.
    ///
    /// # Errors
    /// Any field out of its bounds, or a `keypair` that is not Ed25519 or not the author's.
    pub fn sign(&self, keypair: &Keypair) -> Result<Vec<u8>, EnvelopeError> {
        if keypair.key_type() != KeyType::Ed25519 {
            return Err(EnvelopeError::KeyType);
        }
        if keypair.public().to_peer_id() != self.author {
            return Err(EnvelopeError::WrongKey);
        }
        self.check()?;
        let (kind, count) = match self.kind {
            Kind::Text => (KindName::Text, None),
            Kind::Gossip { count } => (KindName::Gossip, Some(count)),
        };
        let payload = Payload {
            epoch: self.epoch,
            sequence: self.sequence,
            sent_at_ms: self.sent_at_ms,
            name: self.name.as_str().into(),
            team: self.team.as_str().into(),
            kind,
            count,
            text: self.text.as_str().into(),
        };
        let payload = cbor4ii::serde::to_vec(Vec::new(), &payload).map_err(malformed)?;
        let envelope = SignedEnvelope::new(keypair, DOMAIN.to_owned(), PAYLOAD_TYPE.to_vec(), payload)
            .map_err(|_| EnvelopeError::KeyType)?;
        Ok(envelope.into_protobuf_encoding())
    }

    /// Read and verify a signed broadcast.
    ///
    /// # Errors
    /// Anything but the shortest encoding of what an Ed25519 key has signed, with all fields within bounds.
    pub fn decode(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        let envelope = Self::decode_trusted(bytes)?;
        verify(bytes)?;
        Ok(envelope)
    }

    /// Read a broadcast without looking at its signature: only for bytes that were verified before, such as those on
    /// the own disk. Everything else is checked as by [`Envelope::decode`].
    ///
    /// # Errors
    /// As [`Envelope::decode`], but for a signature that does not match.
    pub fn decode_trusted(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        let parts = Parts::read(bytes)?;
        let payload = Payload::read(parts.payload)?;
        let kind = match (payload.kind, payload.count) {
            (KindName::Text, _) => Kind::Text,
            (KindName::Gossip, Some(count)) => Kind::Gossip { count },
            (KindName::Gossip, None) => return Err(malformed("gossip without a count")),
        };
        let envelope = Self {
            author: parts.author,
            epoch: payload.epoch,
            sequence: payload.sequence,
            sent_at_ms: payload.sent_at_ms,
            name: payload.name.into_owned(),
            team: payload.team.into_owned(),
            kind,
            text: payload.text.into_owned(),
        };
        envelope.check()?;
        Ok(envelope)
    }

    fn check(&self) -> Result<(), EnvelopeError> {
        at_most("text", self.text.len(), MAX_TEXT_BYTES)?;
        at_most("name", self.name.len(), MAX_NAME_BYTES)?;
        at_most("team", self.team.len(), MAX_NAME_BYTES)?;
        if self.sent_at_ms > MAX_TIME_MS {
            return Err(EnvelopeError::Time);
        }
        if self.epoch > MAX_NUMBER || self.sequence == 0 || self.sequence > MAX_NUMBER {
            return Err(EnvelopeError::Number);
        }
        Ok(())
    }
}

/// SHA-256 of the whole envelope: the name by which gossipsub knows it.
pub fn hash(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Look at the signature, and at nothing else but what it takes for that.
pub(crate) fn verify(bytes: &[u8]) -> Result<(), EnvelopeError> {
    let signed = SignedEnvelope::from_protobuf_encoding(bytes).map_err(malformed)?;
    match signed.payload_and_signing_key(DOMAIN.to_owned(), PAYLOAD_TYPE) {
        Ok(_) => Ok(()),
        Err(_) => Err(EnvelopeError::Signature),
    }
}

/// The place that an envelope claims, verified in no way.
pub(crate) fn claimed_id(bytes: &[u8]) -> Result<BroadcastId, EnvelopeError> {
    #[derive(Deserialize)]
    struct Place {
        epoch: u64,
        sequence: u64,
    }
    let parts = Parts::read(bytes)?;
    let Place { epoch, sequence } = cbor4ii::serde::from_slice(parts.payload).map_err(malformed)?;
    Ok(BroadcastId { author: parts.author, epoch, sequence })
}

/// Whether two envelopes of one author say the same. Their signatures may differ: the author may sign twice.
pub(crate) fn same_payload(one: &[u8], other: &[u8]) -> bool {
    match (Parts::read(one), Parts::read(other)) {
        (Ok(one), Ok(other)) => one.payload == other.payload,
        _ => false,
    }
}

/// What is signed.
#[derive(Serialize, Deserialize)]
struct Payload<'a> {
    epoch: u64,
    sequence: u64,
    sent_at_ms: u64,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    team: Cow<'a, str>,
    kind: KindName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    count: Option<u32>,
    #[serde(borrow)]
    text: Cow<'a, str>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum KindName {
    Text,
    Gossip,
}

impl<'a> Payload<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, EnvelopeError> {
        let mut deserializer = cbor4ii::serde::Deserializer::new(SliceReader::new(bytes));
        let payload = Self::deserialize(&mut deserializer).map_err(malformed)?;
        match deserializer.into_inner().fill(1) {
            Ok(rest) if rest.as_ref().is_empty() => Ok(payload),
            _ => Err(malformed("bytes behind the payload")),
        }
    }
}

/// An Ed25519 key as libp2p's protobuf: type 1, then 32 bytes.
const ED25519_KEY_HEAD: &[u8] = &[0x08, 0x01, 0x12, 0x20];
const ED25519_KEY_BYTES: usize = 36;

/// The parts of an envelope in its shortest encoding, before the signature is looked at.
struct Parts<'a> {
    author: PeerId,
    payload: &'a [u8],
}

impl<'a> Parts<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, EnvelopeError> {
        at_most("envelope", bytes.len(), MAX_ENVELOPE_BYTES)?;
        // Field numbers 1, 2, 3 and 5 of RFC 0002, each with wire type 2.
        let (key, rest) = field(bytes, 0x0a)?;
        let (payload_type, rest) = field(rest, 0x12)?;
        let (payload, rest) = field(rest, 0x1a)?;
        let (_signature, rest) = field(rest, 0x2a)?;
        if !rest.is_empty() {
            return Err(malformed("bytes behind the envelope"));
        }
        if payload_type != PAYLOAD_TYPE {
            return Err(EnvelopeError::Signature);
        }
        // The PeerId of an Ed25519 key is the key itself behind a head of two bytes (the identity multihash).
        if key.len() != ED25519_KEY_BYTES || !key.starts_with(ED25519_KEY_HEAD) {
            return Err(EnvelopeError::KeyType);
        }
        let mut id = [0; 2 + ED25519_KEY_BYTES];
        id[1] = ED25519_KEY_BYTES as u8;
        id[2..].copy_from_slice(key);
        let author = PeerId::from_bytes(&id).map_err(malformed)?;
        Ok(Self { author, payload })
    }
}

/// The length-delimited protobuf field that begins here, and what follows it.
fn field(bytes: &[u8], tag: u8) -> Result<(&[u8], &[u8]), EnvelopeError> {
    let (&first, rest) = bytes.split_first().ok_or_else(|| malformed("a field is missing"))?;
    if first != tag {
        return Err(malformed("a field is missing or out of place"));
    }
    let (length, rest) = varint(rest).ok_or_else(|| malformed("a bad length"))?;
    rest.split_at_checked(length).ok_or_else(|| malformed("a field is cut off"))
}

/// A length in its shortest form; four bytes of it are more than any envelope needs.
fn varint(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0usize;
    for (index, &byte) in bytes.iter().enumerate().take(4) {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let shortest = byte != 0 || index == 0;
            return shortest.then_some((value, &bytes[index + 1..]));
        }
    }
    None
}

fn malformed(error: impl fmt::Display) -> EnvelopeError {
    EnvelopeError::Malformed(error.to_string())
}

fn at_most(what: &'static str, length: usize, limit: usize) -> Result<(), EnvelopeError> {
    if length > limit { Err(EnvelopeError::TooLong { what, limit }) } else { Ok(()) }
}
