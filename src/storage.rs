//! What this node remembers: one SQLite database, owned by one thread.
//!
//! [`Storage`] is the event loop's handle to that thread. Every method puts a job into a bounded queue and returns at
//! once; what came of it arrives later as the caller's own type `D` in the channel given to [`Storage::open`], made by
//! the `then` closure that went with the job. Completions arrive in the order in which the jobs were submitted.
//!
//! # What a completion means
//!
//! The thread commits in groups: it takes up to 512 waiting jobs, runs each in its own savepoint of one transaction,
//! commits (WAL, `synchronous = FULL`, so the commit is on the disk when it returns) and only then sends the
//! completions. So `Ok` means *durable*, and anything read was durable too. A job that fails is undone alone; when the
//! commit fails, every job of the group gets that error, nothing of the group has happened, and the thread goes on: it
//! works again as soon as the disk does. A group that only reads writes nothing and pays no fsync.
//!
//! # Who waits for whom
//!
//! The event loop never waits for the job queue: a full queue makes [`Storage::has_room`] false, upon which the loop
//! takes no more commands and refuses network work, and a job submitted nevertheless completes with
//! [`StorageError::Busy`]. The thread does wait for the loop to take completions. Only one of the two ever waits, so
//! they cannot lock each other up.
//!
//! # Layout
//!
//! `thread` is the queue and the group commit, `open` finds or makes the database and counts the starts; `outbox`,
//! `broadcasts`, `history`, `peers` and `standings` hold the methods and the SQL of their subject; `digest` finds rows that the disk has
//! damaged.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::mpsc;

use crate::api::{ApiError, ErrorCode};

mod broadcasts;
mod digest;
mod history;
mod open;
mod outbox;
mod peers;
mod standings;
#[cfg(test)]
mod tests;
mod thread;

pub(crate) use broadcasts::BroadcastRow;
pub(crate) use history::{Counts, HistoryFilter, Incoming};
pub(crate) use open::{Opened, RESTORED};
pub(crate) use outbox::{NewMessage, Outgoing, Queued, Settle, StoredState, Waiting, Window};
pub(crate) use peers::StoredPeer;
use thread::{Access, Db, Queue};

/// The random number that names a message everywhere; 32 hexadecimal digits for people.
pub(crate) type MessageId = [u8; 16];

/// The handle to the storage thread. `D` is what the event loop gets back; see the module's text.
///
/// Dropping it without [`Storage::close`] lets the thread finish what is queued and end by itself.
pub(crate) struct Storage<D> {
    queue: Arc<Queue<D>>,
    thread: Option<JoinHandle<()>>,
}

impl<D: Send + 'static> Storage<D> {
    /// Open or make the database at `path` and start its thread; completions go to `done`.
    ///
    /// Blocks for as long as SQLite needs to check the file (a few seconds for each GiB). A damaged file is set aside
    /// and replaced, which [`Opened::damaged`] tells. Fails without having changed anything when the file was written
    /// by a newer version of the program, and when the folder cannot be written to.
    pub(crate) fn open(path: &Path, done: mpsc::Sender<D>) -> Result<(Self, Opened), StorageError> {
        let (db, opened) = open::open(path)?;
        let queue = Arc::new(Queue::new());
        let thread = std::thread::Builder::new().name("storage".into()).spawn({
            let queue = queue.clone();
            move || thread::run(db, &queue, &done)
        })?;
        Ok((Self { queue, thread: Some(thread) }, opened))
    }

    /// Whether the event loop may take on more work. False as soon as fewer than 128 of the queue's 1,024 places are
    /// free, so that what one round of the loop has begun still fits. A completion arrives when it may be true again.
    pub(crate) fn has_room(&self) -> bool {
        self.queue.has_room()
    }

    /// Jobs whose completion is not in the channel yet. When this is 0 and the channel is empty after it, nothing is
    /// under way; a job whose completion was received is not counted any more.
    pub(crate) fn pending(&self) -> usize {
        self.queue.pending()
    }

    /// Jobs that panicked and were survived.
    pub(crate) fn panics(&self) -> u64 {
        self.queue.panics()
    }

    /// Do everything that is queued, move the WAL into the database, and end the thread. Blocks until that is done.
    ///
    /// The work is committed in any case. A completion that finds the channel full from now on is dropped, so that
    /// closing never waits for a loop that has stopped reading; drain the channel until [`Storage::pending`] is 0
    /// before, if every answer matters.
    pub(crate) fn close(mut self) {
        self.queue.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the storage thread ended in a panic");
        }
    }

    /// Queue a job that changes something.
    fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Db) -> Result<T, StorageError> + Send + 'static,
        then: impl FnOnce(Result<T, StorageError>) -> D + Send + 'static,
    ) {
        self.queue.submit(Access::Write, work, then);
    }

    /// Queue a job that only reads.
    fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Db) -> Result<T, StorageError> + Send + 'static,
        then: impl FnOnce(Result<T, StorageError>) -> D + Send + 'static,
    ) {
        self.queue.submit(Access::Read, work, then);
    }
}

impl<D> Drop for Storage<D> {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// Why a job failed. Nothing of the job has happened then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StorageError {
    /// The job queue is full.
    #[error("the database has too much to do; try again in a moment")]
    Busy,
    /// The disk is full. Works again when there is room.
    #[error("there is no room left on the disk for the database")]
    NoRoom,
    /// The database was made by a newer version of the program. It was not touched.
    #[error(
        "the database {path} has schema version {found}, but this program knows only {known}: use a newer version of the program"
    )]
    Newer {
        /// The database.
        path: String,
        /// Its schema version.
        found: i64,
        /// The newest one this program knows.
        known: i64,
    },
    /// SQLite found the file damaged. The next start sets it aside.
    #[error("the database is damaged: {0}; restart the node to have it set aside and replaced")]
    Damaged(String),
    /// The outbox is full.
    #[error("{0} messages wait to be delivered already, more than that are not kept")]
    OutboxFull(u64),
    /// The outbox holds too many for this peer.
    #[error("{0} messages wait for this peer already, more than that are not kept")]
    PeerOutboxFull(u64),
    /// A bound on what may be asked or stored.
    #[error("{0}")]
    Limit(&'static str),
    /// The signing closure of a message failed.
    #[error("the message could not be signed: {0}")]
    Sign(String),
    /// The job panicked; a bug, survived.
    #[error("internal error in the database thread: {0}")]
    Panicked(String),
    /// The storage is closed.
    #[error("the database is closed")]
    Closed,
    /// Anything else SQLite says.
    #[error("the database refused: {0}")]
    Sqlite(String),
    /// Anything else the file system says.
    #[error("the data folder cannot be used: {0}")]
    Io(String),
}

impl From<rusqlite::Error> for StorageError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::NoRoom,
            Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
                Self::Damaged(error.to_string())
            }
            _ => Self::Sqlite(error.to_string()),
        }
    }
}

impl From<std::io::Error> for StorageError {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::NoRoom,
            _ => Self::Io(error.to_string()),
        }
    }
}

impl From<StorageError> for ApiError {
    fn from(error: StorageError) -> Self {
        let code = match error {
            StorageError::Closed => ErrorCode::Stopping,
            StorageError::Limit(_) => ErrorCode::Usage,
            _ => ErrorCode::Storage,
        };
        Self::new(code, error.to_string())
    }
}

/// Milliseconds as SQLite keeps them; a time beyond its range becomes the last one it has.
fn to_sql(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

/// The inverse of [`to_sql`]; a negative time becomes 0.
fn from_sql(ms: i64) -> u64 {
    u64::try_from(ms).unwrap_or(0)
}

/// The same for the rows of the API; a time beyond the calendar becomes the last one it has.
fn timestamp(ms: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX)
}

/// 32 hexadecimal digits.
fn hex(id: &MessageId) -> String {
    use std::fmt::Write;
    id.iter().fold(String::with_capacity(32), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
