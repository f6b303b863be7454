//! What travels on a link: frames of CBOR, each behind its length.

use std::io;

use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use libp2p::{PeerId, StreamProtocol};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

use crate::card::check_name;
use crate::cbor::{self, Bytes};
use crate::fault::FaultKind;

/// The name under which libp2p negotiates this protocol.
pub const PROTOCOL: StreamProtocol = StreamProtocol::new("/althing/peer-exchange/1");
/// Longest frame, in bytes of CBOR, without its four bytes of length.
pub const MAX_FRAME_BYTES: usize = 64 * 1024;
/// Most cards in one answer.
pub const MAX_CARDS: usize = 8;
/// Most bytes of cards in one answer, so that its frame stays within [`MAX_FRAME_BYTES`].
pub const MAX_ANSWER_BYTES: usize = 60 * 1024;

/// Names one question on its whole way through the network, so that nobody handles it twice.
pub type QueryId = [u8; 16];

/// Whose card is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Everybody of that nickname, letter for letter.
    Name(String),
    /// That peer.
    Peer(PeerId),
    /// Anybody: a few of those whom the one that is asked knows, which it picks. Never handed on.
    Anybody,
}

/// Why a hello is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// See [`FaultKind::StaleBoot`].
    StaleBoot,
}

/// One thing said on a link. The first is always a `Hello`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The sender's own card; again whenever it has changed.
    Hello {
        /// A signed card.
        card: Vec<u8>,
    },
    /// The sender leaves; the receiver closes the link.
    Goodbye {
        /// A signed goodbye.
        proof: Vec<u8>,
    },
    /// The sender does not take the receiver's hello; the receiver closes the link.
    Refused {
        /// Why.
        reason: Refusal,
        /// The highest boot of the receiver that the sender remembers. Nothing vouches for it.
        boot: u64,
    },
    /// A question.
    Ask {
        /// Repeated by the answer. Chosen by the sender, not used twice on one link.
        id: u64,
        /// The same wherever the question is handed on.
        query: QueryId,
        /// Whose card is wanted.
        subject: Subject,
        /// How many more times it may be handed on.
        hops: u8,
    },
    /// The answer to an `Ask`, perhaps with nothing.
    Answer {
        /// Of the question.
        id: u64,
        /// Signed cards, at most [`MAX_CARDS`].
        cards: Vec<Vec<u8>>,
    },
}

impl Frame {
    /// The CBOR of the frame.
    pub fn encode(self) -> Vec<u8> {
        cbor::encode(&match self {
            Self::Hello { card } => Wire::Hello { card: Bytes::from(card) },
            Self::Goodbye { proof } => Wire::Goodbye { proof: Bytes::from(proof) },
            Self::Refused { reason, boot } => Wire::Refused { reason, boot },
            Self::Ask { id, query, subject, hops } => {
                let subject = match subject {
                    Subject::Name(name) => WireSubject::Name(name),
                    Subject::Peer(peer) => WireSubject::Peer(Bytes::from(peer.to_bytes())),
                    Subject::Anybody => WireSubject::Anybody,
                };
                Wire::Ask { id, query: ByteArray::new(query), subject, hops }
            }
            Self::Answer { id, cards } => Wire::Answer { id, cards: cards.into_iter().map(Bytes::from).collect() },
        })
    }

    /// Read one frame. Cards and proofs in it are not checked yet.
    ///
    /// # Errors
    /// [`FaultKind::OversizedFrame`] and [`FaultKind::MalformedFrame`].
    pub fn decode(bytes: &[u8]) -> Result<Self, FaultKind> {
        if bytes.len() > MAX_FRAME_BYTES {
            return Err(FaultKind::OversizedFrame);
        }
        Ok(match cbor::decode(bytes).map_err(|cbor::Malformed| FaultKind::MalformedFrame)? {
            Wire::Hello { card } => Self::Hello { card: card.into_vec() },
            Wire::Goodbye { proof } => Self::Goodbye { proof: proof.into_vec() },
            Wire::Refused { reason, boot } => Self::Refused { reason, boot },
            Wire::Ask { id, query, subject, hops } => {
                let subject = match subject {
                    WireSubject::Name(name) if check_name(&name).is_ok() => Some(Subject::Name(name)),
                    WireSubject::Name(_) => None,
                    WireSubject::Peer(peer) => PeerId::from_bytes(&peer).ok().map(Subject::Peer),
                    WireSubject::Anybody => Some(Subject::Anybody),
                };
                let subject = subject.ok_or(FaultKind::MalformedFrame)?;
                Self::Ask { id, query: query.into_array(), subject, hops }
            }
            Wire::Answer { id, cards } => Self::Answer { id, cards: cards.into_iter().map(Bytes::into_vec).collect() },
        })
    }
}

/// Why no frame could be read.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The stream broke.
    Io(io::Error),
    /// The remote misbehaved.
    Fault(FaultKind),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Read one frame; `None` at the end of the stream.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<Frame>, ReadError> {
    let mut length = [0; 4];
    if stream.read(&mut length[..1]).await? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut length[1..]).await?;
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_FRAME_BYTES {
        return Err(ReadError::Fault(FaultKind::OversizedFrame));
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    Frame::decode(&bytes).map(Some).map_err(ReadError::Fault)
}

/// Write one frame and flush it.
pub(crate) async fn write(stream: &mut (impl AsyncWrite + Unpin), frame: Frame) -> io::Result<()> {
    let body = frame.encode();
    let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= MAX_FRAME_BYTES);
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "an own frame is too long"))?;
    let mut bytes = Vec::with_capacity(4 + body.len());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&body);
    stream.write_all(&bytes).await?;
    stream.flush().await
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Wire {
    Hello { card: Bytes },
    Goodbye { proof: Bytes },
    Refused { reason: Refusal, boot: u64 },
    Ask { id: u64, query: ByteArray<16>, subject: WireSubject, hops: u8 },
    Answer { id: u64, cards: Vec<Bytes> },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WireSubject {
    Name(String),
    Peer(Bytes),
    Anybody,
}
