//! What can go wrong between a transfer and the disk.

use std::io;
use std::path::{Path, PathBuf};

use file_transfer::StoreError;
use rustix::io::Errno;

use super::names::NameError;

/// What can go wrong between a transfer and the disk; its text is for people.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// The system refused.
    #[error("{}: {error}", path.display())]
    Io {
        /// What it was about.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// A source is not what was listed any more.
    #[error("{} has changed since it was offered", .0.display())]
    Changed(PathBuf),
    /// What was named can not be sent.
    #[error("{} {}", .0.display(), .1)]
    NotAFile(PathBuf, &'static str),
    /// What was named has no name to be sent under.
    #[error("the root folder has no name that it could be sent under")]
    NoName,
    /// There are more files than one transfer may have.
    #[error("there are more than {} files; send an archive, or fewer at a time", super::source::MAX_ENTRIES)]
    TooMany,
    /// The paths of an offer cannot be used.
    #[error("the offer cannot be taken: {0}")]
    Name(#[from] NameError),
    /// The disk has not enough room.
    #[error("there is no room: {needed} bytes are needed, {free} are free")]
    NoRoom {
        /// Bytes of the offer.
        needed: u64,
        /// Bytes that may be used.
        free: u64,
    },
    /// Partial files are not what they were when they were verified.
    #[error("the partial files are damaged: somebody else changed them")]
    Damaged,
    /// A record is not what was written.
    #[error("{} is damaged", .0.display())]
    Corrupt(PathBuf),
    /// A record cannot be written down.
    #[error("a record cannot be encoded: {0}")]
    Encode(String),
    /// No such transfer, or no such file in it.
    #[error("the transfer is not known to the disk")]
    Unknown,
    /// Too much is waiting for the disk already; nothing was done.
    #[error("too much is waiting for the disk")]
    Busy,
    /// The work panicked, which was counted.
    #[error("the work on the disk broke off")]
    Panicked,
}

impl FileError {
    /// What the system said about a path.
    pub(crate) fn at(path: &Path, error: io::Error) -> Self {
        Self::Io { path: path.to_owned(), error }
    }

    /// Whether it would work with fewer open files.
    pub(crate) fn is_too_many_open(&self) -> bool {
        matches!(self.errno(), Some(Errno::MFILE | Errno::NFILE))
    }

    /// Whether it would work with more room on the disk, or in a quota.
    pub(crate) fn is_full(&self) -> bool {
        // A file above the limit of the process counts too: so do quotas of a container show.
        matches!(self, Self::NoRoom { .. })
            || matches!(self.errno(), Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG | Errno::MFILE | Errno::NFILE))
    }

    fn errno(&self) -> Option<Errno> {
        match self {
            Self::Io { error, .. } => error.raw_os_error().map(Errno::from_raw_os_error),
            _ => None,
        }
    }
}

impl From<FileError> for StoreError {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Changed(_) => Self::Changed,
            FileError::Unknown => Self::Unknown,
            error if error.is_full() => Self::Full,
            error => Self::Io(error.to_string()),
        }
    }
}
