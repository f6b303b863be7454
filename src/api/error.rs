//! Why a command failed, and the exit status that belongs to it.

use serde::{Deserialize, Serialize};

/// Why a command failed. Nothing has changed when a command fails, unless the code's text says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// What kind.
    pub code: ErrorCode,
    /// One sentence that says what is wrong and what would be right.
    pub message: String,
}

impl ApiError {
    /// An error of that kind with that sentence.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// The kinds of error, each with the exit status of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// Anything without a code of its own.
    General,
    /// The command line, an argument or a value is wrong.
    Usage,
    /// No such command. Same status as [`ErrorCode::Usage`].
    UnknownCommand,
    /// Nobody of that name is known.
    NoSuchPeer,
    /// Several peers go by that name; the message lists them.
    AmbiguousPeer,
    /// The peer is known but cannot be reached.
    Unreachable,
    /// No node runs on this data dir.
    NotRunning,
    /// The message was stored and waits; nobody has it yet.
    OnlyQueued,
    /// No answer in time.
    Timeout,
    /// `wait` ran out, or `expect` is false.
    ConditionFalse,
    /// A file, certificate or key does not check out.
    Integrity,
    /// The peer refused.
    Refused,
    /// Another node runs on this data dir.
    DataDirInUse,
    /// The node has too much to do or no room on disk; nothing was stored.
    Storage,
    /// The node is stopping.
    Stopping,
}

impl ErrorCode {
    /// The exit status of the contract, section 1.
    pub fn exit_status(self) -> u8 {
        match self {
            Self::General | Self::Storage | Self::Stopping => 1,
            Self::Usage | Self::UnknownCommand => 2,
            Self::NoSuchPeer | Self::AmbiguousPeer | Self::Unreachable | Self::NotRunning | Self::OnlyQueued => 3,
            Self::Timeout => 4,
            Self::ConditionFalse => 5,
            Self::Integrity => 6,
            Self::Refused => 7,
            Self::DataDirInUse => 10,
        }
    }
}
