//! Files: what transfers read, write and remember on this disk. The network asks through
//! [`ChunkStore`](file_transfer::ChunkStore), the event loop through [`Files`].
//!
//! # Layout
//! - `source`: finds and reads what is sent
//! - `names`: names that others chose, made safe
//! - `folder`: the download folder, and nothing outside it
//! - `sink`: partial files, verified chunks, the way to final names
//! - `journal`: which chunks are verified
//! - `records`: which transfers there are
//! - `handles`, `pool`: few open files; the threads that wait for the disk

mod error;
mod folder;
mod handles;
mod journal;
mod names;
mod pool;
mod records;
mod sink;
mod source;
mod store;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use file_transfer::{Direction, Entry, Kind, Manifest, Offer, Record, TransferId};
use libp2p::PeerId;

use folder::Folder;
use handles::{Handles, JOURNAL};
use journal::{Head, Journal};
use pool::{Pool, Work};
use records::{Kept, Records};
use sink::{Sink, Verified};

pub(crate) use error::FileError;
pub(crate) use source::{Entry as Source, Walk, walk};

/// Threads that read and write. Two would keep a disk busy; with four a sync does not hold up everything else.
const THREADS: usize = 4;

/// All that transfers have on this disk. Cheap to clone. Nothing here blocks its caller unless it says so; what returns a
/// future is in the queue when it returns, so the order of calls is the order of what happens, and the future may be
/// dropped by whoever need not know.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    inner: Arc<Inner>,
    /// Pieces of files, in no certain order.
    disk: Arc<Pool>,
    /// One thread, so that records are written in order.
    ledger: Arc<Pool>,
}

#[derive(Debug)]
struct Inner {
    records: Records,
    downloads: Arc<Folder>,
    handles: Arc<Handles>,
    transfers: Mutex<BTreeMap<TransferId, Known>>,
}

/// A transfer that is not over.
#[derive(Clone, Debug)]
enum Known {
    Out(Arc<Outgoing>),
    In(Arc<Sink>),
}

/// What is sent.
#[derive(Debug)]
struct Outgoing {
    id: TransferId,
    sources: Vec<Source>,
    chunks: u64,
}

/// A transfer that an earlier run kept, for [`file_transfer::Behaviour::restore`].
#[derive(Debug)]
pub(crate) struct Restored {
    /// What was offered.
    pub(crate) offer: Offer,
    /// How it stood with each peer.
    pub(crate) records: Vec<Record>,
    /// The chunks that need not be sent again, by number.
    pub(crate) verified: Verified,
}

impl Files {
    /// Opens the records (`transfers`) and the download folder, and brings back what an earlier run kept, oldest first,
    /// with a sentence for people about each thing that was lost. What nobody needs any more is removed. Waits for the
    /// disk; hashes only what a power loss left in doubt, at most some 64 MiB of each transfer.
    ///
    /// # Errors
    /// When a folder cannot be made or read.
    pub(crate) fn open(transfers: &Path, downloads: &Path) -> Result<(Self, Vec<Restored>, Vec<String>), FileError> {
        let start =
            |name, threads| Pool::start(name, threads).map(Arc::new).map_err(|error| FileError::at(transfers, error));
        let inner = Arc::new(Inner {
            records: Records::open(transfers)?,
            downloads: Arc::new(Folder::open(downloads)?),
            handles: Arc::default(),
            transfers: Mutex::default(),
        });
        let (restored, said) = inner.restore()?;
        Ok((Self { inner, disk: start("files", THREADS)?, ledger: start("transfers", 1)? }, restored, said))
    }

    /// Lists what a person wants to send. See [`walk`].
    pub(crate) fn walk(&self, paths: Vec<PathBuf>) -> Work<Walk> {
        self.disk.submit(move || walk(&paths))
    }

    /// Makes the sources of an own offer known, for good. Before [`file_transfer::Behaviour::offer`].
    pub(crate) fn register(&self, id: TransferId, sources: Vec<Source>) -> Work<()> {
        let inner = Arc::clone(&self.inner);
        self.ledger.submit(move || {
            inner.records.put_sources(id, &sources)?;
            inner.learn(id, Known::Out(Arc::new(Outgoing::new(id, sources))));
            Ok(())
        })
    }

    /// Makes room for an incoming transfer in the download folder, or in another one. Before
    /// [`file_transfer::Behaviour::accept`]. A transfer that has its place already keeps it.
    ///
    /// # Errors
    /// [`FileError::NoRoom`], or [`FileError::Name`] when the paths cannot be used; then nothing was made.
    pub(crate) fn prepare(&self, offer: Offer, folder: Option<PathBuf>) -> Work<()> {
        let inner = Arc::clone(&self.inner);
        self.ledger.submit(move || {
            if matches!(inner.known(offer.id()), Some(Known::In(_))) {
                return Ok(());
            }
            let folder = match folder {
                None => Arc::clone(&inner.downloads),
                Some(path) => {
                    let path = std::path::absolute(&path).map_err(|error| FileError::at(&path, error))?;
                    let folder = Arc::new(Folder::open(&path)?);
                    inner.records.put_place(offer.id(), &path)?;
                    folder
                }
            };
            inner.create(offer, folder)
        })
    }

    /// Keeps an offer, at [`file_transfer::Event::Keep`].
    pub(crate) fn keep(&self, direction: Direction, offer: Offer) -> Work<()> {
        let inner = Arc::clone(&self.inner);
        self.ledger.submit(move || inner.records.keep(direction, &offer))
    }

    /// Keeps a record, at [`file_transfer::Event::Save`]. With the one that says that an incoming transfer is over its
    /// partial files and journal go.
    pub(crate) fn save(&self, record: Record) -> Work<()> {
        let inner = Arc::clone(&self.inner);
        self.ledger.submit(move || {
            inner.records.save(&record)?;
            match (record.direction, record.state.is_final(), inner.known(record.id)) {
                (Direction::In, true, Some(Known::In(sink))) => {
                    inner.forget(record.id);
                    sink.end()
                }
                _ => Ok(()),
            }
        })
    }

    /// Forgets a transfer with one peer, at [`file_transfer::Event::Forgotten`].
    pub(crate) fn forget(&self, id: TransferId, peer: PeerId) -> Work<()> {
        let inner = Arc::clone(&self.inner);
        self.ledger.submit(move || inner.records.forget(id, &peer))
    }
}

impl Inner {
    fn restore(&self) -> Result<(Vec<Restored>, Vec<String>), FileError> {
        let (kept, damaged) = self.records.load()?;
        let said =
            damaged.into_iter().map(|name| format!("the records of transfer {name} are damaged and were set aside"));
        let mut said = said.collect::<Vec<_>>();
        let mut restored = Vec::new();
        for kept in kept {
            let verified = match (kept.is_open(), kept.direction) {
                (false, Direction::Out) => Vec::new(),
                (false, Direction::In) => {
                    self.clear(&kept)?;
                    Vec::new()
                }
                (true, Direction::Out) => self.restore_out(&kept)?,
                (true, Direction::In) => match self.restore_in(&kept) {
                    Ok(verified) => verified,
                    // The transfer is brought back all the same: it fails when it first needs its place, and says why.
                    Err(error) => {
                        said.push(format!("the place of transfer {} is not to be had: {error}", kept.offer.id()));
                        Vec::new()
                    }
                },
            };
            restored.push(Restored { offer: kept.offer, records: kept.records, verified });
        }
        let transfers = self.lock();
        let in_use = transfers.values().filter_map(|known| match known {
            Known::In(sink) => Some(sink.transfer().to_string()),
            Known::Out(_) => None,
        });
        if let Err(error) = self.downloads.sweep(&in_use.collect()) {
            said.push(format!("what earlier downloads left could not be removed: {error}"));
        }
        let sends = |path: &Path| {
            transfers.values().any(|known| match known {
                Known::Out(outgoing) => outgoing.sources.iter().any(|source| source.local == path),
                Known::In(_) => false,
            })
        };
        self.records.sweep(sends);
        Ok((restored, said))
    }

    fn restore_out(&self, kept: &Kept) -> Result<Verified, FileError> {
        let id = kept.offer.id();
        // Without its sources it fails when the first byte is asked for, and says that the disk does not know it.
        let sources = match self.records.sources(id) {
            Ok(Some(sources)) => sources,
            Ok(None) | Err(FileError::Corrupt(_)) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let outgoing = Arc::new(Outgoing::new(id, sources));
        let marks = self.journal_of(&outgoing)?.marks().map_err(|error| FileError::at(self.records.root(), error))?;
        self.learn(id, Known::Out(outgoing));
        Ok(marks.into_iter().map(|mark| (mark.chunk, mark.hash)).collect())
    }

    /// Removes what is left of an incoming transfer that is over, where [`Folder::sweep`] does not look.
    fn clear(&self, kept: &Kept) -> Result<(), FileError> {
        match self.records.place(kept.offer.id()) {
            Ok(Some(path)) if path.is_dir() => {
                let ended = Folder::open(&path).and_then(|folder| {
                    folder.end(&kept.offer.id().to_string()).map_err(|error| FileError::at(&path, error))
                });
                // The folder may be on a disk that is gone by now, or not ours any more.
                ended.or_else(|error| {
                    tracing::warn!(%error, "what a download left could not be removed");
                    Ok(())
                })
            }
            Ok(_) | Err(FileError::Corrupt(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn restore_in(&self, kept: &Kept) -> Result<Verified, FileError> {
        // It was not accepted yet.
        if kept.records.iter().all(|record| record.state == file_transfer::State::Offered) {
            return Ok(Vec::new());
        }
        let id = kept.offer.id();
        let folder = match self.records.place(id)? {
            None => Arc::clone(&self.downloads),
            Some(path) => Arc::new(Folder::open(&path)?),
        };
        let placed = self.records.placement(id)?.is_some();
        match Sink::restore(kept.offer.clone(), Arc::clone(&folder), Arc::clone(&self.handles), placed)? {
            Some((sink, verified)) => {
                self.learn(id, Known::In(Arc::new(sink)));
                Ok(verified)
            }
            // Somebody removed what was there: it begins anew.
            None => {
                self.records.drop_placement(id)?;
                self.create(kept.offer.clone(), folder).map(|()| Vec::new())
            }
        }
    }

    fn create(&self, offer: Offer, folder: Arc<Folder>) -> Result<(), FileError> {
        let promised = self.lock().values().fold(0_u64, |sum, known| match known {
            Known::In(sink) => sum.saturating_add(sink.unallocated()),
            Known::Out(_) => sum,
        });
        let id = offer.id();
        let sink = Sink::create(offer, folder, Arc::clone(&self.handles), promised)?;
        self.learn(id, Known::In(Arc::new(sink)));
        Ok(())
    }

    /// The journal of an outgoing transfer, made if there is none of use.
    fn journal_of(&self, outgoing: &Outgoing) -> Result<Journal, FileError> {
        let at = |error| FileError::at(self.records.root(), error);
        let (id, chunks) = (outgoing.id, outgoing.chunks);
        let file = self.handles.get((id, JOURNAL), || {
            let file = Arc::new(self.records.journal(id)?);
            let head = Head { transfer: id, chunks, boot: None, folded: false };
            let fits = Journal::open(Arc::clone(&file)).map_err(at)?.is_some_and(|(_, found)| found == head);
            if !fits {
                Journal::create(Arc::clone(&file), &head).map_err(at)?;
            }
            Arc::into_inner(file).ok_or(FileError::Unknown)
        })?;
        Ok(Journal::again(file, chunks))
    }

    fn known(&self, id: TransferId) -> Option<Known> {
        self.lock().get(&id).cloned()
    }

    fn learn(&self, id: TransferId, known: Known) {
        self.lock().insert(id, known);
    }

    fn forget(&self, id: TransferId) {
        self.handles.close(id);
        self.lock().remove(&id);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TransferId, Known>> {
        self.transfers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outgoing {
    fn new(id: TransferId, sources: Vec<Source>) -> Self {
        let chunks = sources.iter().map(|source| source.size.div_ceil(file_transfer::CHUNK)).sum();
        Self { id, sources, chunks }
    }
}

/// The list of files that is offered, in the order of the sources.
///
/// # Errors
/// When a rule of the protocol is broken.
pub(crate) fn manifest(name: String, sources: &[Source]) -> Result<Manifest, file_transfer::ManifestError> {
    let entry = |source: &Source| Entry {
        path: source.path.clone(),
        kind: if source.folder { Kind::Folder } else { Kind::File },
        size: source.size,
        mtime_ns: source.mtime_ns,
        executable: source.executable,
    };
    Manifest::new(name, sources.iter().map(entry).collect())
}

/// Reads all of a pipe into a file below `transfers`, so that it can be sent, and sent again from the middle after a
/// restart. The file is called `stdin`; it goes with the transfer that sends it, or at the next start when none does. Waits
/// for the pipe.
///
/// # Errors
/// When the pipe cannot be read, or the disk not written; then nothing stays.
pub(crate) fn spool(transfers: &Path, random: u64, pipe: &mut impl io::Read) -> Result<PathBuf, FileError> {
    Records::open(transfers)?;
    let folder = transfers.join(format!("{}{random:016x}", records::SPOOL));
    let path = folder.join(records::SPOOLED);
    let copied = std::fs::DirBuilder::new().mode(0o700).create(&folder).and_then(|()| {
        let mut file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&path)?;
        io::copy(pipe, &mut file).and_then(|_| file.sync_all())
    });
    if copied.is_err() {
        let _ = std::fs::remove_dir_all(&folder);
    }
    copied.map(|()| path.clone()).map_err(|error| FileError::at(&path, error))
}
