//! What the application's disk does for transfers. Behaviours hold no files: they ask here, and wait without blocking.
//!
//! # What an implementer promises
//!
//! * No call blocks its caller; the work is done on the implementer's own threads, however many calls wait. The number
//!   of calls that wait is bounded here: one for each span in flight (see [`Config`](crate::Config)).
//! * A future may be dropped before it is done: the work is then done or not, and nothing else is harmed.
//! * Every transfer was made known to the implementer by the application (its sources, or its place among the partial
//!   downloads with free space checked) **before** [`Behaviour::offer`](crate::Behaviour::offer),
//!   [`Behaviour::accept`](crate::Behaviour::accept) or [`Behaviour::restore`](crate::Behaviour::restore).
//! * Files of an incoming transfer that have no chunk (empty ones) and folders are made by [`ChunkStore::finish`] at the
//!   latest.

use futures::future::BoxFuture;

use crate::hash::Hash;
use crate::manifest::{Chunk, TransferId};

/// Where bytes lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Of which transfer. A transfer is either outgoing, then these are the sources, or incoming, then these are the
    /// partial files.
    pub transfer: TransferId,
    /// Index of the entry in the manifest.
    pub file: u32,
    /// From the beginning of that file, in bytes.
    pub offset: u64,
}

/// Why the disk did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The source is not what was offered any more: its size, modification time or kind differs, or it is gone.
    #[error("the source has changed since it was offered")]
    Changed,
    /// No room on the disk or above a quota. It may work later; the transfer pauses.
    #[error("there is no room on the disk")]
    Full,
    /// The implementer knows no such transfer.
    #[error("the transfer is not known to the disk")]
    Unknown,
    /// Anything else, in words for people.
    #[error("{0}")]
    Io(String),
}

/// The disk, as file transfer sees it. See the [module](self) for what an implementer promises.
pub trait ChunkStore: Send + Sync + 'static {
    /// Fill the buffer from that place, to its whole length, and give it back. A piece: at most
    /// [`PIECE`](crate::PIECE) bytes, and never beyond the end of the file by the manifest.
    ///
    /// # Errors
    /// [`StoreError::Changed`] when the source differs from the manifest, which is looked at with every call (a `stat`
    /// of the open file is enough), and when it ends too early.
    fn read(&self, place: Place, buffer: Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>, StoreError>>;

    /// Write the whole buffer at that place of a partial file, and give the buffer back so that it is used again. A
    /// piece, **not verified yet**: what was written counts only after [`ChunkStore::verified`]. A later write at the same
    /// place replaces it.
    ///
    /// # Errors
    /// [`StoreError::Full`] pauses the transfer; others fail it.
    fn write(&self, place: Place, data: Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>, StoreError>>;

    /// Remember for good that the chunks from `first` on have these hashes. For an incoming transfer: they were written
    /// with [`ChunkStore::write`] and are verified, and after a `kill -9` (not: a power loss) they come back from the
    /// durable record and are not hashed again. After a power loss the record must not claim more than what is on the
    /// disk: sync data before the record. For an outgoing transfer: they were read and sent; losing this record costs
    /// reading them once more.
    ///
    /// # Errors
    /// As for [`ChunkStore::write`]. The chunks then do not count.
    fn verified(
        &self,
        transfer: TransferId,
        first: u64,
        hashes: Vec<Hash>,
    ) -> BoxFuture<'static, Result<(), StoreError>>;

    /// Read a chunk of an outgoing transfer again and hash it, with [`ChunkHasher`](crate::ChunkHasher). Asked only for
    /// chunks whose hash was lost in a crash, before the transfer is sealed.
    ///
    /// # Errors
    /// As for [`ChunkStore::read`].
    fn hash(&self, transfer: TransferId, chunk: Chunk) -> BoxFuture<'static, Result<Hash, StoreError>>;

    /// Every chunk of an incoming transfer is verified and the sender has sealed it: make the final files appear (sync,
    /// rename without overwriting, sync of the folder) and tell where. `root` is the value that people see as the hash.
    ///
    /// Called again after a crash between its end and [`Event::Save`](crate::Event::Save) reaching the disk: it must then
    /// give the same path again.
    ///
    /// # Errors
    /// [`StoreError::Full`] is tried again; others fail the transfer.
    fn finish(&self, transfer: TransferId, root: Hash) -> BoxFuture<'static, Result<String, StoreError>>;

    /// The transfer is over, and has not [finished](ChunkStore::finish): close its sources, or remove its partial files
    /// and record. For outgoing transfers also called after they completed. Called at most once in a run.
    fn discard(&self, transfer: TransferId) -> BoxFuture<'static, ()>;
}
