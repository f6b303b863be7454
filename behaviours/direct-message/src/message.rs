//! One message: what its author signs, and how a reader checks it.
//!
//! On the wire and on disk a message is always the exact bytes of its signed envelope (libp2p RFC 0002); nothing is
//! ever signed again. The payload is CBOR (RFC 8949), a map with text keys. Unknown keys are ignored, so that a later
//! version may add some; bytes behind the map are an error.

use std::fmt;
use std::str::FromStr;

use cbor4ii::core::dec::Read;
use cbor4ii::core::utils::SliceReader;
use libp2p::PeerId;
use libp2p::core::SignedEnvelope;
use libp2p::identity::{KeyType, Keypair, PublicKey};
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};

/// The domain that the signature is bound to, and the payload type of the envelope.
pub const DOMAIN: &str = "althing/direct-message/1";

/// The payload type of the envelope.
pub const PAYLOAD_TYPE: &[u8] = b"/althing/direct-message/1";

/// Longest text of a message, in bytes of UTF-8.
pub const MAX_TEXT_BYTES: usize = 64 * 1024;

/// Longest nickname or team label, in bytes of UTF-8.
pub const MAX_NAME_BYTES: usize = 64;

/// Longest signed envelope. Larger than any valid message: text, two labels and some 400 bytes of keys and signature.
pub const MAX_ENVELOPE_BYTES: usize = MAX_TEXT_BYTES + 2 * 1024;

/// The latest time that is accepted, in milliseconds since 1970 (UTC): 9999-12-30T22:00:00.999Z. Every such time fits
/// an SQLite integer and the calendars of the usual libraries.
pub const MAX_TIME_MS: u64 = 253_402_207_200_999;

/// The highest sequence number: SQLite's integers end there.
pub const MAX_SEQ: u64 = i64::MAX as u64;

/// The name of a message: 16 bytes that its author picked at random.
///
/// Unique together with the author's PeerId only: a stranger who learns an id may use it for a message of his own, and
/// must not displace anything by it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub [u8; 16]);

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

/// Not 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message id is 32 hexadecimal digits")]
pub struct ParseIdError;

impl FromStr for MessageId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(ParseIdError);
        }
        u128::from_str_radix(text, 16).map(|number| Self(number.to_be_bytes())).map_err(|_| ParseIdError)
    }
}

/// A message in the clear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its name.
    pub id: MessageId,
    /// The author: the key that signed.
    pub from: PeerId,
    /// The receiver.
    pub to: PeerId,
    /// The author's number for it, rising from message to message to the same receiver; 1 to [`MAX_SEQ`].
    pub seq: u64,
    /// The author's clock when it was written, in milliseconds since 1970 (UTC), at most [`MAX_TIME_MS`].
    pub sent_at_ms: u64,
    /// When it stops being worth delivering, in milliseconds since 1970 (UTC), at most [`MAX_TIME_MS`].
    pub expires_at_ms: u64,
    /// The author's nickname when it was written, at most [`MAX_NAME_BYTES`]. Unescaped.
    pub name: String,
    /// The author's team label when it was written, at most [`MAX_NAME_BYTES`]. Unescaped.
    pub team: String,
    /// The text, at most [`MAX_TEXT_BYTES`]. Unescaped.
    pub text: String,
}

/// Why a message could not be signed or read. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The envelope, the text or a label is longer than allowed.
    #[error("the {what} is longer than {limit} bytes")]
    TooLong {
        /// What is too long.
        what: &'static str,
        /// The most it may have, in bytes.
        limit: usize,
    },
    /// Not an envelope, or its payload is not the map it should be.
    #[error("not a message: {0}")]
    Malformed(String),
    /// The payload was signed for another purpose, or it is not what was signed.
    #[error("the signature does not match")]
    Signature,
    /// Signed by a key that is not Ed25519.
    #[error("only Ed25519 keys may sign a message")]
    KeyType,
    /// The key that should sign is not the author's.
    #[error("the key is not that of the message's author")]
    WrongKey,
    /// A time behind [`MAX_TIME_MS`].
    #[error("a time is out of range")]
    Time,
    /// A sequence number of 0 or above [`MAX_SEQ`].
    #[error("the sequence number is out of range")]
    Seq,
}

impl Message {
    /// Sign the message as its author. The bytes are what [`Message::decode`] reads, what the outbox keeps and what
    /// travels; the same message and key give the same bytes.
    ///
    /// # Errors
    /// Any field out of its bounds, or a `keypair` that is not Ed25519 or not the author's.
    pub fn sign(&self, keypair: &Keypair) -> Result<Vec<u8>, MessageError> {
        if keypair.key_type() != KeyType::Ed25519 {
            return Err(MessageError::KeyType);
        }
        if keypair.public().to_peer_id() != self.from {
            return Err(MessageError::WrongKey);
        }
        self.check()?;
        let payload = Payload {
            id: ByteArray::new(self.id.0),
            to: ByteBuf::from(self.to.to_bytes()),
            seq: self.seq,
            sent_at_ms: self.sent_at_ms,
            expires_at_ms: self.expires_at_ms,
            name: self.name.as_str().into(),
            team: self.team.as_str().into(),
            text: self.text.as_str().into(),
        };
        let payload =
            cbor4ii::serde::to_vec(Vec::new(), &payload).map_err(|error| MessageError::Malformed(error.to_string()))?;
        let envelope = SignedEnvelope::new(keypair, DOMAIN.to_owned(), PAYLOAD_TYPE.to_vec(), payload)
            .map_err(|_| MessageError::KeyType)?;
        Ok(envelope.into_protobuf_encoding())
    }

    /// Read and verify a signed message. Whether its author may send it and whether it is for us is not checked here.
    ///
    /// # Errors
    /// Anything but a message that its author signed with an Ed25519 key and whose fields are all within bounds.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let (payload, key) = open(bytes)?;
        let payload = Payload::read(&payload)?;
        let message = Self {
            id: MessageId(*payload.id),
            from: key.to_peer_id(),
            to: PeerId::from_bytes(&payload.to).map_err(|error| MessageError::Malformed(error.to_string()))?,
            seq: payload.seq,
            sent_at_ms: payload.sent_at_ms,
            expires_at_ms: payload.expires_at_ms,
            name: payload.name.into_owned(),
            team: payload.team.into_owned(),
            text: payload.text.into_owned(),
        };
        message.check()?;
        Ok(message)
    }

    fn check(&self) -> Result<(), MessageError> {
        at_most("text", self.text.len(), MAX_TEXT_BYTES)?;
        at_most("name", self.name.len(), MAX_NAME_BYTES)?;
        at_most("team", self.team.len(), MAX_NAME_BYTES)?;
        if self.sent_at_ms > MAX_TIME_MS || self.expires_at_ms > MAX_TIME_MS {
            return Err(MessageError::Time);
        }
        if self.seq == 0 || self.seq > MAX_SEQ {
            return Err(MessageError::Seq);
        }
        Ok(())
    }
}

/// The id that an envelope claims to hold, verified in no way: enough to answer it by name.
pub(crate) fn peek_id(bytes: &[u8]) -> Option<MessageId> {
    #[derive(Deserialize)]
    struct OnlyId {
        id: ByteArray<16>,
    }
    if bytes.len() > MAX_ENVELOPE_BYTES {
        return None;
    }
    let payload = payload_of(bytes)?;
    let OnlyId { id } = cbor4ii::serde::from_slice(payload).ok()?;
    Some(MessageId(*id))
}

/// What is signed.
#[derive(Serialize, Deserialize)]
struct Payload<'a> {
    id: ByteArray<16>,
    to: ByteBuf,
    seq: u64,
    sent_at_ms: u64,
    expires_at_ms: u64,
    #[serde(borrow)]
    name: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    team: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    text: std::borrow::Cow<'a, str>,
}

impl<'a> Payload<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, MessageError> {
        let mut deserializer = cbor4ii::serde::Deserializer::new(SliceReader::new(bytes));
        let payload =
            Self::deserialize(&mut deserializer).map_err(|error| MessageError::Malformed(error.to_string()))?;
        match deserializer.into_inner().fill(1) {
            Ok(rest) if rest.as_ref().is_empty() => Ok(payload),
            _ => Err(MessageError::Malformed("bytes behind the payload".to_owned())),
        }
    }
}

/// The verified payload of an envelope and the key that signed it.
fn open(bytes: &[u8]) -> Result<(Vec<u8>, PublicKey), MessageError> {
    at_most("envelope", bytes.len(), MAX_ENVELOPE_BYTES)?;
    let envelope =
        SignedEnvelope::from_protobuf_encoding(bytes).map_err(|error| MessageError::Malformed(error.to_string()))?;
    let (payload, key) =
        envelope.payload_and_signing_key(DOMAIN.to_owned(), PAYLOAD_TYPE).map_err(|_| MessageError::Signature)?;
    if key.key_type() != KeyType::Ed25519 {
        return Err(MessageError::KeyType);
    }
    Ok((payload.to_vec(), key.clone()))
}

/// The payload (field 3) of an envelope's protobuf, without looking at the rest. `SignedEnvelope` gives a payload away
/// only together with a signature that verifies, and a refusal needs the id of one that does not.
fn payload_of(mut bytes: &[u8]) -> Option<&[u8]> {
    let mut payload = None;
    while !bytes.is_empty() {
        let (key, rest) = varint(bytes)?;
        // An envelope holds nothing but length-delimited fields (wire type 2).
        if key & 7 != 2 {
            return None;
        }
        let (length, rest) = varint(rest)?;
        let (field, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        if key >> 3 == 3 {
            payload = Some(field);
        }
        bytes = rest;
    }
    payload
}

/// A protobuf varint of at most 64 bits and what follows it.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for (index, &byte) in bytes.iter().enumerate().take(9) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[index + 1..]));
        }
    }
    None
}

fn at_most(what: &'static str, length: usize, limit: usize) -> Result<(), MessageError> {
    if length > limit { Err(MessageError::TooLong { what, limit }) } else { Ok(()) }
}
