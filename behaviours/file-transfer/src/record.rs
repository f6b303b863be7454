//! How a transfer stands: what people see of it, and what the application keeps for us.

use std::fmt;
use std::time::Duration;

use libp2p::PeerId;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

use crate::cbor::{self, Bytes};
use crate::hash::Hash;
use crate::manifest::TransferId;
use crate::plan::Plan;

/// Which way the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From here to the peer.
    Out,
    /// From the peer to here.
    In,
}

/// Where a transfer stands. [`fmt::Display`] gives the lower-case word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Waits for the receiver's decision.
    Offered,
    /// Accepted, and nothing stands in its way.
    Active,
    /// Accepted, and something stands in its way; goes on when that is gone, by itself unless somebody paused it.
    Paused,
    /// Whole, verified, and on the receiver's disk under its final name. The end.
    Completed,
    /// The end.
    Failed,
    /// The receiver did not want it. The end.
    Rejected,
    /// Either end gave it up. The end.
    Cancelled,
}

impl State {
    /// Nothing follows.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Rejected | Self::Cancelled)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Offered => "offered",
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Cancelled => "cancelled",
        })
    }
}

/// Why a transfer is paused, or how it came to its end. [`fmt::Display`] gives words for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Paused: by the person here.
    Here,
    /// Paused or cancelled: by the other end.
    Peer,
    /// Paused: there is no link to the peer.
    NotConnected,
    /// Paused: no byte came for [`crate::Config::stall_timeout`]. Tried again.
    Stalled,
    /// Paused: the receiver's disk is full. Tried again.
    DiskFull,
    /// Failed: the source is not what was offered any more.
    Changed,
    /// Failed: a chunk came with the wrong hash, [`crate::Config::max_bad_chunks`] times.
    Corrupt,
    /// Failed: what was verified is not what the sender sealed.
    WrongSeal,
    /// Failed: the disk of either end gave an error.
    Disk,
    /// Failed: the list of files broke a rule.
    InvalidManifest,
    /// Failed: the other end does not know the transfer any more.
    Unknown,
    /// Failed: the other end takes no more offers now.
    TooMany,
    /// Failed: the other end does not speak the protocol.
    Unsupported,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Here => "by you",
            Self::Peer => "by the other end",
            Self::NotConnected => "not connected",
            Self::Stalled => "no bytes arrive",
            Self::DiskFull => "the receiver's disk is full",
            Self::Changed => "the source changed",
            Self::Corrupt => "a chunk arrived damaged too often",
            Self::WrongSeal => "the contents are not what the sender sealed",
            Self::Disk => "the disk gave an error",
            Self::InvalidManifest => "the list of files is invalid",
            Self::Unknown => "the other end does not know it any more",
            Self::TooMany => "the other end takes no more offers now",
            Self::Unsupported => "the other end cannot receive files",
        })
    }
}

/// How a transfer stands with one peer.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Which.
    pub id: TransferId,
    /// Which way.
    pub direction: Direction,
    /// The other end.
    pub peer: PeerId,
    /// Of the offer, as its sender wrote it.
    pub name: String,
    /// Files and folders.
    pub entries: usize,
    /// Verified so far, those of earlier runs included. At the sender: as the receiver said last.
    pub bytes: u64,
    /// Of all files.
    pub total: u64,
    /// Where it stands.
    pub state: State,
    /// Why, when it is paused or ended other than whole.
    pub reason: Option<Reason>,
    /// An error of the own disk, for people.
    pub detail: Option<String>,
    /// How long it has been active.
    pub active_for: Duration,
    /// Bytes a second over the last seconds while active; over its whole time when it is over.
    pub rate: f64,
    /// Chunks verified so far.
    pub chunks: u64,
    /// Spans that had to be asked for again.
    pub retries: u64,
    /// From asking for a span until its first byte, smoothed. Only where spans are asked for.
    pub rtt: Option<Duration>,
    /// Bytes asked for that have not come.
    pub in_flight: u64,
    /// What the sender sealed: see [`crate::hash::root`].
    pub root: Option<Hash>,
    /// Where the receiver's disk put it, once completed.
    pub path: Option<String>,
    /// How it is carried out.
    pub plan: Plan,
}

/// What must be on disk about a transfer with one peer, besides its [`crate::Offer`] and what [`crate::ChunkStore`] keeps.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Which.
    pub id: TransferId,
    /// Which way.
    pub direction: Direction,
    /// The other end.
    pub peer: PeerId,
    /// Where it stands. A paused one is paused by somebody, all other pauses are not kept.
    pub state: State,
    /// Why.
    pub reason: Option<Reason>,
    /// How long it has been active until now.
    pub active_for: Duration,
    /// Spans that had to be asked for again.
    pub retries: u64,
    /// Verified bytes, as a hint until the chunks are counted.
    pub bytes: u64,
    /// What was sealed.
    pub root: Option<Hash>,
    /// Where it was put.
    pub path: Option<String>,
}

impl Record {
    /// As CBOR, for a column of a database.
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(&Wire {
            id: ByteArray::new(self.id.0),
            direction: self.direction,
            peer: Bytes::from(self.peer.to_bytes()),
            state: self.state,
            reason: self.reason,
            active_ms: u64::try_from(self.active_for.as_millis()).unwrap_or(u64::MAX),
            retries: self.retries,
            bytes: self.bytes,
            root: self.root.map(|root| ByteArray::new(root.0)),
            path: self.path.clone(),
        })
    }

    /// Read it back; `None` when these are not such bytes.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let wire = cbor::decode::<Wire>(bytes).ok()?;
        Some(Self {
            id: TransferId(wire.id.into_array()),
            direction: wire.direction,
            peer: PeerId::from_bytes(&wire.peer).ok()?,
            state: wire.state,
            reason: wire.reason,
            active_for: Duration::from_millis(wire.active_ms),
            retries: wire.retries,
            bytes: wire.bytes,
            root: wire.root.map(|root| Hash(root.into_array())),
            path: wire.path,
        })
    }
}

#[derive(Serialize, Deserialize)]
struct Wire {
    id: ByteArray<16>,
    direction: Direction,
    peer: Bytes,
    state: State,
    reason: Option<Reason>,
    active_ms: u64,
    retries: u64,
    bytes: u64,
    root: Option<ByteArray<32>>,
    path: Option<String>,
}
