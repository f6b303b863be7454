//! The wire format of sync: what a neighbour has, and the envelopes that it is asked for, both CBOR.
//!
//! Lists stop being read into memory past their bound, whatever length they claim.

use std::fmt;
use std::marker::PhantomData;

use libp2p::{PeerId, StreamProtocol};
use serde::de::{Deserializer, Error as _, IgnoredAny, SeqAccess, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// The protocol's name.
pub const PROTOCOL: StreamProtocol = StreamProtocol::new("/althing/broadcast-sync/1");

/// The one gossipsub topic.
pub const TOPIC: &str = "althing/broadcast/1";

/// Longest gossipsub frame. Relation: above [`MAX_ENVELOPE_BYTES`](crate::MAX_ENVELOPE_BYTES).
pub const MAX_FRAME_BYTES: usize = 128 * 1024;

/// Most streams in one digest.
pub const MAX_DIGEST_STREAMS: usize = 512;

/// Most ranges of one stream in a digest. A stream with more holes tells its first ones; the next time, others.
pub const MAX_DIGEST_RANGES: usize = 16;

/// Most ranges in one fetch.
pub const MAX_FETCH_RANGES: usize = 256;

/// Most envelopes in one answer: verifying them takes some 6 ms.
pub const MAX_ANSWER_ENVELOPES: usize = 128;

/// Most bytes of envelopes in one answer, added up.
pub const MAX_ANSWER_ENVELOPE_BYTES: usize = 256 * 1024;

/// Longest question: [`MAX_FETCH_RANGES`] ranges of at most 90 bytes each, with room to spare.
pub const MAX_QUESTION_BYTES: usize = 32 * 1024;

/// Longest answer, with room to spare: [`MAX_DIGEST_STREAMS`] streams of at most 380 bytes each, or
/// [`MAX_ANSWER_ENVELOPE_BYTES`].
pub const MAX_ANSWER_BYTES: usize = MAX_ANSWER_ENVELOPE_BYTES + 8 * 1024;

/// The broadcasts of one author in one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StreamId {
    /// The author.
    #[serde(serialize_with = "write_peer", deserialize_with = "read_peer")]
    pub author: PeerId,
    /// The epoch.
    pub epoch: u64,
}

/// What one neighbour asks the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// What do you have?
    Digest {
        /// Only streams behind this one, in the order of author (its bytes) and epoch.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<StreamId>,
    },
    /// Give me these.
    Fetch {
        /// At most [`MAX_FETCH_RANGES`].
        #[serde(deserialize_with = "capped::<MAX_FETCH_RANGES, _, _>")]
        ranges: Vec<Range>,
    },
    /// I have something new that came from elsewhere: ask me.
    News {},
}

/// The answer to a [`Question`], of the same name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// What the neighbour has.
    Digest {
        /// At most [`MAX_DIGEST_STREAMS`], in order.
        #[serde(deserialize_with = "capped::<MAX_DIGEST_STREAMS, _, _>")]
        streams: Vec<StreamDigest>,
        /// Whether there are streams behind the last one.
        more: bool,
    },
    /// Envelopes.
    Fetch {
        /// In the order of the question; what the neighbour does not have is left out.
        #[serde(deserialize_with = "capped::<MAX_ANSWER_ENVELOPES, _, _>")]
        envelopes: Vec<ByteBuf>,
        /// Whether there would have been more than fits.
        more: bool,
    },
    /// The news was heard.
    News {},
}

/// What a neighbour has of one stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamDigest {
    /// The author.
    #[serde(serialize_with = "write_peer", deserialize_with = "read_peer")]
    pub author: PeerId,
    /// The epoch.
    pub epoch: u64,
    /// Sequence numbers, first and last of each range, rising; at most [`MAX_DIGEST_RANGES`].
    #[serde(deserialize_with = "capped::<MAX_DIGEST_RANGES, _, _>")]
    pub have: Vec<(u64, u64)>,
}

/// Consecutive broadcasts of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The author.
    #[serde(serialize_with = "write_peer", deserialize_with = "read_peer")]
    pub author: PeerId,
    /// The epoch.
    pub epoch: u64,
    /// The first sequence number.
    pub from: u64,
    /// The last one.
    pub to: u64,
}

/// How a peer broke the protocol. It is reported and counted, never acted upon here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// Handed on bytes that are no broadcast.
    Malformed,
    /// Handed on a broadcast that its author has not signed.
    Signature,
    /// Signed two different broadcasts with one sequence number; the peer is the author.
    Equivocation,
    /// Handed over more than [`Config`](crate::Config) allows in gossip or questions; told once a minute.
    Flood,
    /// Answered what was not asked, or out of bounds.
    BadAnswer,
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "malformed",
            Self::Signature => "bad-signature",
            Self::Equivocation => "equivocation",
            Self::Flood => "flood",
            Self::BadAnswer => "bad-answer",
        })
    }
}

fn write_peer<S: Serializer>(peer: &PeerId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(&peer.to_bytes())
}

fn read_peer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PeerId, D::Error> {
    let bytes = ByteBuf::deserialize(deserializer)?;
    PeerId::from_bytes(&bytes).map_err(D::Error::custom)
}

/// A list of which at most one item more than the bound is kept, as the proof that it was too long; the rest is read
/// over. Nothing is reserved in advance, since the length that a list claims costs its author one byte.
fn capped<'de, const MOST: usize, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    struct Capped<const MOST: usize, T>(PhantomData<T>);

    impl<'de, const MOST: usize, T: Deserialize<'de>> Visitor<'de> for Capped<MOST, T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut items = Vec::new();
            while items.len() <= MOST {
                match list.next_element()? {
                    Some(item) => items.push(item),
                    None => return Ok(items),
                }
            }
            while list.next_element::<IgnoredAny>()?.is_some() {}
            Ok(items)
        }
    }

    deserializer.deserialize_seq(Capped::<MOST, T>(PhantomData))
}
