//! What travels: control messages as CBOR behind their length on a stream of their own, and spans on data streams.

pub(crate) mod data;

use std::io;

use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use libp2p::StreamProtocol;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

use crate::cbor::{self, Bytes};
use crate::fault::FaultKind;
use crate::manifest::{MAX_OFFER_BYTES, MAX_PAGE_BYTES, TransferId};
use crate::record::Reason;

/// The name under which data streams are negotiated.
pub const PROTOCOL: StreamProtocol = StreamProtocol::new("/althing/file-transfer/1");
/// The name under which the stream of control messages is negotiated.
pub const CONTROL_PROTOCOL: StreamProtocol = StreamProtocol::new("/althing/file-transfer-control/1");
/// Longest control message, in bytes of CBOR, without its four bytes of length: an offer with its first page.
pub const MAX_FRAME_BYTES: usize = MAX_PAGE_BYTES + MAX_OFFER_BYTES + 1024;
/// Most bytes that one request may ask for.
pub const MAX_SPAN: u64 = 16 << 20;
/// Most chunks that one request may ask for.
pub const MAX_SPAN_CHUNKS: u64 = 256;
/// A request, in bytes.
pub const REQUEST_BYTES: usize = 28;

/// Where a receiver stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It has the offer, and somebody decides.
    Offered,
    /// It takes the files.
    Accepted,
    /// It took them, and holds on now.
    Paused,
    /// It has verified every chunk, and asks for the seal.
    Verified,
    /// It has them under their final names.
    Completed,
    /// It gave up.
    Failed,
    /// It does not want them.
    Rejected,
    /// It does not want them any more.
    Cancelled,
    /// It knows nothing of that transfer.
    Unknown,
}

/// Where a sender stands with a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stand {
    /// Ask.
    Open,
    /// Do not ask now.
    Paused,
    /// Here is the seal.
    Sealed,
    /// It gave up.
    Failed,
    /// It takes the offer back.
    Cancelled,
    /// It knows nothing of that transfer.
    Unknown,
}

/// A control message. All can be repeated and lost: each says how things stand, not what changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// From the sender: take these files.
    Offer {
        /// Which.
        transfer: TransferId,
        /// The signed offer.
        offer: Vec<u8>,
        /// The first page of its list of files.
        page: Vec<u8>,
    },
    /// From the receiver: one of the further pages, please.
    Ask {
        /// Which.
        transfer: TransferId,
        /// From 1.
        page: u32,
    },
    /// From the sender: a page.
    Page {
        /// Which.
        transfer: TransferId,
        /// Which page.
        page: u32,
        /// CBOR.
        entries: Vec<u8>,
    },
    /// From the receiver: how it stands.
    Status {
        /// Which.
        transfer: TransferId,
        /// Rises from message to message on one link; an older one is ignored.
        serial: u64,
        /// How.
        status: Status,
        /// Why, when it is paused or failed.
        reason: Option<Reason>,
        /// Chunks verified.
        chunks: u64,
        /// Bytes verified.
        bytes: u64,
        /// Bytes that came in this run, verified or not.
        moved: u64,
    },
    /// From the sender: how it stands.
    State {
        /// Which.
        transfer: TransferId,
        /// Rises from message to message on one link; an older one is ignored.
        serial: u64,
        /// How.
        stand: Stand,
        /// Why, when it failed.
        reason: Option<Reason>,
        /// The signed seal.
        seal: Option<Vec<u8>>,
    },
}

impl Frame {
    /// Which transfer it is about.
    pub fn transfer(&self) -> TransferId {
        match self {
            Self::Offer { transfer, .. }
            | Self::Ask { transfer, .. }
            | Self::Page { transfer, .. }
            | Self::Status { transfer, .. }
            | Self::State { transfer, .. } => *transfer,
        }
    }

    /// About how much memory it takes, in bytes.
    pub(crate) fn weight(&self) -> usize {
        let carried = match self {
            Self::Offer { offer, page, .. } => offer.len() + page.len(),
            Self::Page { entries, .. } => entries.len(),
            Self::State { seal, .. } => seal.as_ref().map_or(0, Vec::len),
            Self::Ask { .. } | Self::Status { .. } => 0,
        };
        128 + carried
    }

    /// The CBOR of the message.
    pub fn encode(self) -> Vec<u8> {
        let name = |id: TransferId| ByteArray::new(id.0);
        cbor::encode(&match self {
            Self::Offer { transfer, offer, page } => {
                Wire::Offer { transfer: name(transfer), offer: Bytes::from(offer), page: Bytes::from(page) }
            }
            Self::Ask { transfer, page } => Wire::Ask { transfer: name(transfer), page },
            Self::Page { transfer, page, entries } => {
                Wire::Page { transfer: name(transfer), page, entries: Bytes::from(entries) }
            }
            Self::Status { transfer, serial, status, reason, chunks, bytes, moved } => {
                Wire::Status { transfer: name(transfer), serial, status, reason, chunks, bytes, moved }
            }
            Self::State { transfer, serial, stand, reason, seal } => {
                Wire::State { transfer: name(transfer), serial, stand, reason, seal: seal.map(Bytes::from) }
            }
        })
    }

    /// Read one message. What is signed in it is not checked yet.
    ///
    /// # Errors
    /// [`FaultKind::OversizedFrame`] and [`FaultKind::MalformedFrame`].
    pub fn decode(bytes: &[u8]) -> Result<Self, FaultKind> {
        if bytes.len() > MAX_FRAME_BYTES {
            return Err(FaultKind::OversizedFrame);
        }
        let id = |name: ByteArray<16>| TransferId(name.into_array());
        Ok(match cbor::decode(bytes).map_err(|cbor::Malformed| FaultKind::MalformedFrame)? {
            Wire::Offer { transfer, offer, page } => {
                Self::Offer { transfer: id(transfer), offer: offer.into_vec(), page: page.into_vec() }
            }
            Wire::Ask { transfer, page } => Self::Ask { transfer: id(transfer), page },
            Wire::Page { transfer, page, entries } => {
                Self::Page { transfer: id(transfer), page, entries: entries.into_vec() }
            }
            Wire::Status { transfer, serial, status, reason, chunks, bytes, moved } => {
                Self::Status { transfer: id(transfer), serial, status, reason, chunks, bytes, moved }
            }
            Wire::State { transfer, serial, stand, reason, seal } => {
                Self::State { transfer: id(transfer), serial, stand, reason, seal: seal.map(Bytes::into_vec) }
            }
        })
    }
}

/// A range of chunks that is asked for on a data stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Of which transfer.
    pub transfer: TransferId,
    /// Number of the first chunk.
    pub first: u64,
    /// How many: 1 to [`MAX_SPAN_CHUNKS`].
    pub count: u32,
}

impl Request {
    /// As it travels: the transfer, then both numbers in network order.
    pub fn encode(&self) -> [u8; REQUEST_BYTES] {
        let mut bytes = [0; REQUEST_BYTES];
        bytes[..16].copy_from_slice(&self.transfer.0);
        bytes[16..24].copy_from_slice(&self.first.to_be_bytes());
        bytes[24..].copy_from_slice(&self.count.to_be_bytes());
        bytes
    }

    /// Read it.
    pub fn decode(bytes: &[u8; REQUEST_BYTES]) -> Self {
        let (mut transfer, mut first, mut count) = ([0; 16], [0; 8], [0; 4]);
        transfer.copy_from_slice(&bytes[..16]);
        first.copy_from_slice(&bytes[16..24]);
        count.copy_from_slice(&bytes[24..]);
        let (first, count) = (u64::from_be_bytes(first), u32::from_be_bytes(count));
        Self { transfer: TransferId(transfer), first, count }
    }
}

/// Why a request is not answered with data. The byte it travels as is its number; 0 means that data follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Refusal {
    /// No such transfer for that peer, or no such chunks.
    Unknown = 1,
    /// The sender has paused it.
    Paused = 2,
    /// Not now: too many at a time.
    Busy = 3,
    /// It is over.
    Over = 4,
}

impl Refusal {
    /// From the byte; anything unheard of is a reason to come again later.
    pub fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::Unknown,
            2 => Self::Paused,
            4 => Self::Over,
            _ => Self::Busy,
        }
    }
}

/// Why no message could be read.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The stream broke.
    Io,
    /// The remote misbehaved.
    Fault(FaultKind),
}

impl From<io::Error> for ReadError {
    fn from(_: io::Error) -> Self {
        Self::Io
    }
}

/// Read one control message; `None` at the end of the stream.
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
    // What was announced is not believed until it is there.
    let mut bytes = Vec::with_capacity(length.min(16 << 10));
    stream.take(length as u64).read_to_end(&mut bytes).await?;
    if bytes.len() < length {
        return Err(ReadError::Io);
    }
    Frame::decode(&bytes).map(Some).map_err(ReadError::Fault)
}

/// Write one control message and flush it.
pub(crate) async fn write(stream: &mut (impl AsyncWrite + Unpin), frame: Frame) -> io::Result<()> {
    let body = frame.encode();
    let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= MAX_FRAME_BYTES);
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "an own message is too long"))?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(&body).await?;
    stream.flush().await
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Wire {
    Offer {
        transfer: ByteArray<16>,
        offer: Bytes,
        page: Bytes,
    },
    Ask {
        transfer: ByteArray<16>,
        page: u32,
    },
    Page {
        transfer: ByteArray<16>,
        page: u32,
        entries: Bytes,
    },
    Status {
        transfer: ByteArray<16>,
        serial: u64,
        status: Status,
        reason: Option<Reason>,
        chunks: u64,
        bytes: u64,
        moved: u64,
    },
    State {
        transfer: ByteArray<16>,
        serial: u64,
        stand: Stand,
        reason: Option<Reason>,
        seal: Option<Bytes>,
    },
}
