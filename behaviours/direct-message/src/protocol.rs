//! The wire format: one batch of messages out, one list of receipts back, both CBOR.
//!
//! Lists stop being read into memory past their bound, whatever length they claim.

use std::fmt;
use std::marker::PhantomData;

use libp2p::StreamProtocol;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};

use crate::message::MessageId;

/// The protocol's name.
pub const PROTOCOL: StreamProtocol = StreamProtocol::new("/althing/direct-message/1");

/// Most messages in one batch.
pub const MAX_BATCH_MESSAGES: usize = 256;

/// Most bytes of envelopes in one batch, added up.
pub const MAX_BATCH_BYTES: usize = 512 * 1024;

/// Longest request: the envelopes and their CBOR heads (5 bytes each at most). What is longer is cut off by the reader
/// and fails to decode. Relation: above [`MAX_BATCH_BYTES`] plus 5 x [`MAX_BATCH_MESSAGES`] plus the map around it.
pub const MAX_REQUEST_BYTES: usize = MAX_BATCH_BYTES + 8 * 1024;

/// Longest response: [`MAX_BATCH_MESSAGES`] receipts of at most 50 bytes each, with room to spare.
pub const MAX_RESPONSE_BYTES: usize = 16 * 1024;

/// The request: signed messages of one author, in the order of their sequence numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Signed envelopes. When a peer sent more than [`MAX_BATCH_MESSAGES`], one more than that is kept as the proof.
    #[serde(deserialize_with = "capped")]
    pub messages: Vec<ByteBuf>,
}

/// The response: what became of each message of the batch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipts {
    /// At most one for each message, in any order.
    #[serde(deserialize_with = "capped")]
    pub receipts: Vec<Receipt>,
}

/// What became of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WireReceipt", into = "WireReceipt")]
pub struct Receipt {
    /// The message.
    pub id: MessageId,
    /// What became of it.
    pub outcome: Outcome,
}

/// How a message fared at its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is on the receiver's disk, now or since earlier.
    Stored,
    /// By the receiver's clock its time was over; it was not stored and never will be.
    Expired,
    /// It was not stored and never will be.
    Refused(Refusal),
    /// It was not stored; it may be sent again later.
    Busy,
}

/// Why a message is refused for good. On the wire a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// 1: it cannot be read, or a field is out of its bounds.
    Malformed,
    /// 2: the signature does not match, or the key is not Ed25519.
    Signature,
    /// 3: its author is not the peer that sent it.
    Author,
    /// 4: it is addressed to somebody else.
    Receiver,
    /// 5: its times are absurd.
    Time,
    /// 6: the receiver does not want it.
    Unwelcome,
    /// A number that this version does not know.
    Other(u16),
}

impl Refusal {
    /// The number on the wire.
    pub fn code(self) -> u16 {
        match self {
            Self::Malformed => 1,
            Self::Signature => 2,
            Self::Author => 3,
            Self::Receiver => 4,
            Self::Time => 5,
            Self::Unwelcome => 6,
            Self::Other(code) => code,
        }
    }

    /// What a number on the wire means.
    pub fn from_code(code: u16) -> Self {
        match code {
            1 => Self::Malformed,
            2 => Self::Signature,
            3 => Self::Author,
            4 => Self::Receiver,
            5 => Self::Time,
            6 => Self::Unwelcome,
            code => Self::Other(code),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("malformed"),
            Self::Signature => f.write_str("bad-signature"),
            Self::Author => f.write_str("wrong-author"),
            Self::Receiver => f.write_str("wrong-receiver"),
            Self::Time => f.write_str("absurd-time"),
            Self::Unwelcome => f.write_str("unwelcome"),
            Self::Other(code) => write!(f, "reason-{code}"),
        }
    }
}

/// A receipt as the map that travels.
#[derive(Clone, Serialize, Deserialize)]
struct WireReceipt {
    id: ByteArray<16>,
    outcome: OutcomeName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<u16>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OutcomeName {
    Stored,
    Expired,
    Refused,
    Busy,
}

impl From<Receipt> for WireReceipt {
    fn from(receipt: Receipt) -> Self {
        let (outcome, reason) = match receipt.outcome {
            Outcome::Stored => (OutcomeName::Stored, None),
            Outcome::Expired => (OutcomeName::Expired, None),
            Outcome::Refused(refusal) => (OutcomeName::Refused, Some(refusal.code())),
            Outcome::Busy => (OutcomeName::Busy, None),
        };
        Self { id: ByteArray::new(receipt.id.0), outcome, reason }
    }
}

impl TryFrom<WireReceipt> for Receipt {
    type Error = &'static str;

    fn try_from(wire: WireReceipt) -> Result<Self, Self::Error> {
        let outcome = match (wire.outcome, wire.reason) {
            (OutcomeName::Stored, _) => Outcome::Stored,
            (OutcomeName::Expired, _) => Outcome::Expired,
            (OutcomeName::Busy, _) => Outcome::Busy,
            (OutcomeName::Refused, Some(code)) => Outcome::Refused(Refusal::from_code(code)),
            (OutcomeName::Refused, None) => return Err("a refusal without a reason"),
        };
        Ok(Self { id: MessageId(*wire.id), outcome })
    }
}

/// A list of which at most one item more than [`MAX_BATCH_MESSAGES`] is kept; the rest is read over. Nothing is
/// reserved in advance, since the length that a list claims costs its author one byte.
fn capped<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    struct Capped<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Capped<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut items = Vec::new();
            while items.len() <= MAX_BATCH_MESSAGES {
                match list.next_element()? {
                    Some(item) => items.push(item),
                    None => return Ok(items),
                }
            }
            while list.next_element::<IgnoredAny>()?.is_some() {}
            Ok(items)
        }
    }

    deserializer.deserialize_seq(Capped(PhantomData))
}

/// How a peer broke the protocol. It is reported and counted, never acted upon here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// A batch without a message.
    EmptyBatch,
    /// A batch above [`MAX_BATCH_MESSAGES`] or [`MAX_BATCH_BYTES`]; nothing of it was looked at.
    OversizeBatch,
    /// A message that no honest peer sends; the rest of its batch was handled.
    BadMessage(Refusal),
    /// Sent again at once what it had just been asked to send more slowly.
    Flood,
    /// A receipt for a message that was not in the batch.
    UnknownReceipt,
    /// Two receipts for one message; the first counts.
    DuplicateReceipt,
    /// No receipt for a message that was in the batch.
    MissingReceipt,
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptyBatch => f.write_str("empty-batch"),
            Self::OversizeBatch => f.write_str("oversize-batch"),
            Self::BadMessage(refusal) => refusal.fmt(f),
            Self::Flood => f.write_str("flood"),
            Self::UnknownReceipt => f.write_str("unknown-receipt"),
            Self::DuplicateReceipt => f.write_str("duplicate-receipt"),
            Self::MissingReceipt => f.write_str("missing-receipt"),
        }
    }
}
