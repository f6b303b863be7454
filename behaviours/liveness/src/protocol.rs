//! What travels: one question and one answer on a stream of its own, both CBOR, each ended by closing its direction.

use std::fmt;
use std::io;
use std::time::Duration;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::request_response;
use libp2p::{PeerId, StreamProtocol};
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_bytes::ByteArray;

use crate::cbor::{self, Bytes};
use crate::detector::{Incarnation, MAX_TIME_MS};
use crate::fault::FaultKind;
use crate::statement::Challenge;

/// The name under which libp2p negotiates this protocol.
pub const PROTOCOL: StreamProtocol = StreamProtocol::new("/althing/liveness/1");
/// Longest frame, in bytes of CBOR.
pub const MAX_FRAME_BYTES: usize = 64 * 1024;
/// Most tombstones in one frame. Relation: so many of [`crate::MAX_STATEMENT_BYTES`] hardly fill a frame; a longer list
/// takes several.
pub const MAX_STATEMENTS: usize = 120;

/// What a suspect is told, so that it can refute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspicion {
    /// The incarnation that is suspected.
    pub incarnation: Incarnation,
    /// To be repeated in the signed answer.
    pub challenge: Challenge,
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Are you there?
    Probe {
        /// The sender's clock, in milliseconds since 1970 UTC.
        sent_ms: u64,
        /// The sender's incarnation.
        incarnation: Incarnation,
        /// You are suspected, by me or by the one for whom I ask.
        suspicion: Option<Suspicion>,
    },
    /// Probe that neighbour of yours for me.
    Relay {
        /// Whom.
        target: PeerId,
        /// What to tell it.
        suspicion: Suspicion,
        /// How long I wait for the answer.
        patience: Duration,
    },
    /// That peer is dead.
    Report {
        /// A signed [`crate::Report`].
        statement: Vec<u8>,
    },
    /// These are dead, or are so no longer.
    Tombstones {
        /// Forget first what I have told before.
        whole: bool,
        /// Signed [`crate::Tombstone`]s, at most [`MAX_STATEMENTS`].
        statements: Vec<Vec<u8>>,
    },
    /// No question at all. Never sent: what was read was this fault.
    Nonsense(FaultKind),
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// To a probe.
    Alive {
        /// The answerer's clock when the probe came, in milliseconds since 1970 UTC.
        received_ms: u64,
        /// The answerer's clock when this answer left.
        sent_ms: u64,
        /// The answerer's incarnation, above the suspected one when there was a suspicion.
        incarnation: Incarnation,
        /// When there was a suspicion: a signed [`crate::Alive`].
        statement: Option<Vec<u8>>,
    },
    /// To a relay.
    Relayed {
        /// The target's signed [`crate::Alive`]; none when it did not answer in four fifths of the patience.
        statement: Option<Vec<u8>>,
    },
    /// To a report or tombstones. Says nothing about what was made of it.
    Taken,
    /// To anything: not now, or not from you.
    Refused,
    /// No answer at all. Never sent: what was read was this fault.
    Nonsense(FaultKind),
}

#[derive(Serialize, Deserialize)]
struct WireSuspicion {
    incarnation: u64,
    challenge: ByteArray<16>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WireRequest {
    Probe {
        sent_ms: u64,
        incarnation: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        suspicion: Option<WireSuspicion>,
    },
    Relay {
        target: Bytes,
        suspicion: WireSuspicion,
        patience_ms: u64,
    },
    Report {
        statement: Bytes,
    },
    Tombstones {
        whole: bool,
        #[serde(deserialize_with = "capped")]
        statements: Vec<Bytes>,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WireResponse {
    Alive {
        received_ms: u64,
        sent_ms: u64,
        incarnation: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        statement: Option<Bytes>,
    },
    Relayed {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        statement: Option<Bytes>,
    },
    Taken {},
    Refused {},
}

impl From<Suspicion> for WireSuspicion {
    fn from(suspicion: Suspicion) -> Self {
        Self { incarnation: suspicion.incarnation.0, challenge: ByteArray::new(suspicion.challenge) }
    }
}

impl From<WireSuspicion> for Suspicion {
    fn from(wire: WireSuspicion) -> Self {
        Self { incarnation: Incarnation(wire.incarnation), challenge: wire.challenge.into_array() }
    }
}

impl Request {
    /// The CBOR of the question. A nonsense has none.
    pub fn encode(&self) -> Vec<u8> {
        let wire = match self.clone() {
            Self::Probe { sent_ms, incarnation, suspicion } => {
                WireRequest::Probe { sent_ms, incarnation: incarnation.0, suspicion: suspicion.map(Into::into) }
            }
            Self::Relay { target, suspicion, patience } => WireRequest::Relay {
                target: target.to_bytes().into(),
                suspicion: suspicion.into(),
                patience_ms: u64::try_from(patience.as_millis()).unwrap_or(u64::MAX),
            },
            Self::Report { statement } => WireRequest::Report { statement: statement.into() },
            Self::Tombstones { whole, statements } => {
                WireRequest::Tombstones { whole, statements: statements.into_iter().map(Bytes::from).collect() }
            }
            Self::Nonsense(_) => return Vec::new(),
        };
        cbor::encode(&wire)
    }

    /// Read a question. Statements in it are not checked yet.
    pub fn decode(bytes: &[u8]) -> Self {
        Self::try_decode(bytes).unwrap_or_else(Self::Nonsense)
    }

    fn try_decode(bytes: &[u8]) -> Result<Self, FaultKind> {
        Ok(match read_frame(bytes)? {
            WireRequest::Probe { sent_ms, incarnation, suspicion } => Self::Probe {
                sent_ms: time(sent_ms)?,
                incarnation: Incarnation(incarnation),
                suspicion: suspicion.map(Into::into),
            },
            WireRequest::Relay { target, suspicion, patience_ms } => Self::Relay {
                target: PeerId::from_bytes(&target).map_err(|_| FaultKind::MalformedFrame)?,
                suspicion: suspicion.into(),
                patience: Duration::from_millis(patience_ms),
            },
            WireRequest::Report { statement } => Self::Report { statement: statement.into_vec() },
            WireRequest::Tombstones { whole, statements } => {
                Self::Tombstones { whole, statements: statements.into_iter().map(Bytes::into_vec).collect() }
            }
        })
    }
}

impl Response {
    /// The CBOR of the answer. A nonsense has none.
    pub fn encode(&self) -> Vec<u8> {
        let wire = match self.clone() {
            Self::Alive { received_ms, sent_ms, incarnation, statement } => WireResponse::Alive {
                received_ms,
                sent_ms,
                incarnation: incarnation.0,
                statement: statement.map(Bytes::from),
            },
            Self::Relayed { statement } => WireResponse::Relayed { statement: statement.map(Bytes::from) },
            Self::Taken => WireResponse::Taken {},
            Self::Refused => WireResponse::Refused {},
            Self::Nonsense(_) => return Vec::new(),
        };
        cbor::encode(&wire)
    }

    /// Read an answer. Statements in it are not checked yet.
    pub fn decode(bytes: &[u8]) -> Self {
        Self::try_decode(bytes).unwrap_or_else(Self::Nonsense)
    }

    fn try_decode(bytes: &[u8]) -> Result<Self, FaultKind> {
        Ok(match read_frame(bytes)? {
            WireResponse::Alive { received_ms, sent_ms, incarnation, statement } => Self::Alive {
                received_ms: time(received_ms)?,
                sent_ms: time(sent_ms)?,
                incarnation: Incarnation(incarnation),
                statement: statement.map(Bytes::into_vec),
            },
            WireResponse::Relayed { statement } => Self::Relayed { statement: statement.map(Bytes::into_vec) },
            WireResponse::Taken {} => Self::Taken,
            WireResponse::Refused {} => Self::Refused,
        })
    }
}

fn read_frame<T: de::DeserializeOwned>(bytes: &[u8]) -> Result<T, FaultKind> {
    if bytes.len() > MAX_FRAME_BYTES {
        return Err(FaultKind::OversizedFrame);
    }
    cbor::decode(bytes).map_err(|cbor::Malformed| FaultKind::MalformedFrame)
}

fn time(ms: u64) -> Result<u64, FaultKind> {
    if ms <= MAX_TIME_MS { Ok(ms) } else { Err(FaultKind::MalformedFrame) }
}

/// A list that is refused past its bound, before memory is taken for it.
fn capped<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Bytes>, D::Error> {
    struct Capped;
    impl<'de> Visitor<'de> for Capped {
        type Value = Vec<Bytes>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {MAX_STATEMENTS} statements")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut all = Vec::new();
            while let Some(bytes) = list.next_element()? {
                if all.len() == MAX_STATEMENTS {
                    return Err(de::Error::custom("too many statements"));
                }
                all.push(bytes);
            }
            Ok(all)
        }
    }
    deserializer.deserialize_seq(Capped)
}

/// Reads and writes the streams.
#[derive(Clone, Debug, Default)]
pub struct Codec;

impl request_response::Codec for Codec {
    type Protocol = StreamProtocol;
    type Request = Request;
    type Response = Response;

    async fn read_request<T>(&mut self, _: &Self::Protocol, io: &mut T) -> io::Result<Request>
    where
        T: AsyncRead + Unpin + Send,
    {
        read(io).await.map(|bytes| Request::decode(&bytes))
    }

    async fn read_response<T>(&mut self, _: &Self::Protocol, io: &mut T) -> io::Result<Response>
    where
        T: AsyncRead + Unpin + Send,
    {
        read(io).await.map(|bytes| Response::decode(&bytes))
    }

    async fn write_request<T>(&mut self, _: &Self::Protocol, io: &mut T, request: Request) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&request.encode()).await
    }

    async fn write_response<T>(&mut self, _: &Self::Protocol, io: &mut T, response: Response) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&response.encode()).await
    }
}

/// Everything up to the end, or one byte more than a frame may have. A stream that ends at once was broken off by an
/// honest peer, so it is no fault.
async fn read<T: AsyncRead + Unpin + Send>(io: &mut T) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io.take(MAX_FRAME_BYTES as u64 + 1).read_to_end(&mut bytes).await?;
    if bytes.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(bytes) }
}
