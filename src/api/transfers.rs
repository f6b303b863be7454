//! Files: what is asked for, and how transfers are shown. Field names are the outward contract.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What is to be sent, and to whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SendFiles {
    /// Files and folders, at least one. A relative path is taken from the node's own working folder.
    pub paths: Vec<PathBuf>,
    /// The receivers, each as [`Command::SendMessage::to`](super::Command::SendMessage::to); at least one.
    pub to: Vec<String>,
    /// What happens when not all of them can be reached.
    pub absent: Absent,
    /// How many of the first words in [`SendFiles::to`] are PeerIds that are known to be meant. The node counts here while
    /// it looks the others up; whoever asks leaves it 0.
    pub settled: usize,
}

/// What happens with receivers that cannot be reached now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Absent {
    /// They are dialled first. Unless somebody is there then, nothing is offered and the command fails with
    /// [`ErrorCode::Unreachable`](super::ErrorCode::Unreachable). Those who are not get the offer once they are there.
    #[default]
    Queue,
    /// They are dialled first. Unless all are there then, nothing is offered and the command fails; its message names them.
    Refuse,
    /// Nobody is waited for: the offer goes to each of them once it is there.
    Ignore,
}

/// What [`Command::SendFiles`](super::Command::SendFiles) has begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SentInfo {
    /// The transfer; the same for all receivers.
    pub id: String,
    /// How many files and empty folders.
    pub files: usize,
    /// Bytes of all files.
    pub bytes: u64,
    /// PeerIds of receivers without a link now. They get the offer later.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unreachable: Vec<String>,
    /// What is left out: links and other things that are neither file nor folder. The first thousand.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<SkippedInfo>,
}

/// Something that is not sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SkippedInfo {
    /// Where it lies.
    pub path: String,
    /// Why, in a few words.
    pub reason: String,
}

/// One file of an offer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileInfo {
    /// As its sender names it, with `/` between its parts; at the end of an empty folder too.
    pub path: String,
    /// In bytes.
    pub size: u64,
}

/// What happens to incoming offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Accept {
    /// They wait for a decision.
    Ask,
    /// They are taken.
    Auto,
    /// They are refused.
    Never,
    /// Those of trusted peers are taken, others wait for a decision.
    #[default]
    Trusted,
}

impl fmt::Display for Accept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ask => "ask",
            Self::Auto => "auto",
            Self::Never => "never",
            Self::Trusted => "trusted",
        })
    }
}

/// Which way the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From here to the peer.
    Out,
    /// From the peer to here.
    In,
}

/// Where a transfer with one peer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TransferState {
    /// Waits for the receiver's decision.
    Offered,
    /// Accepted, and nothing stands in its way.
    Active,
    /// Accepted, and something stands in its way. Goes on by itself, unless somebody paused it.
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

impl TransferState {
    /// Nothing follows.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Rejected | Self::Cancelled)
    }
}

impl fmt::Display for TransferState {
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

/// One transfer with one peer as `transfers` and `stats` show it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TransferInfo {
    /// 32 hexadecimal digits; one for all receivers of an offer.
    pub id: String,
    /// Which way.
    pub direction: Direction,
    /// The other end's PeerId.
    pub peer: String,
    /// The other end's nickname.
    pub name: String,
    /// The file's or folder's name as its sender gave it.
    pub file: String,
    /// How many files and empty folders.
    pub files: usize,
    /// Bytes verified so far, resumed ones included.
    pub bytes: u64,
    /// Bytes of all files.
    pub total: u64,
    /// How long it has been active.
    pub seconds: f64,
    /// Bytes a second, over the last seconds; over its whole time when it is over.
    pub rate: f64,
    /// How it is carried out.
    pub mode: String,
    /// Chunks of at most 1 MiB verified so far.
    pub chunks: u64,
    /// Requests that had to be made again.
    pub retries: u64,
    /// From a request to its first byte, smoothed, in milliseconds. Only where requests are made.
    pub rtt_ms: Option<f64>,
    /// Bytes that were asked for and had not come, at the last changes, the latest at the end; at most 64.
    pub window: Vec<u64>,
    /// BLAKE3, once the sender has sealed it: of a single file, else over the hashes of all files.
    pub hash: Option<String>,
    /// Where it stands.
    pub state: TransferState,
    /// Why it is paused, or how it came to an end that is not whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Where it lies, once completed (at the receiver).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}
