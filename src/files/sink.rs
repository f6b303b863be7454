//! An incoming transfer on disk: partial files, the journal of what is verified, and the way to their final names.
//!
//! ```text
//! <downloads>/.partial/<transfer>/chunks   the journal
//!                                /tree/…   the files under their final names
//! ```
//! A file is made when its first bytes come. When all is verified the files get their times, everything is synced, and
//! what lies at the top of `tree` is renamed into the download folder. Where it goes is written down before, so that after
//! a crash at any moment the same names are found again.

mod finish;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use file_transfer::{Chunk, ChunkHasher, Hash, Kind, Manifest, Offer, PIECE, TransferId};

use super::FileError;
use super::folder::{Folder, allocate};
use super::handles::{Handles, JOURNAL};
use super::journal::{self, Head, Journal};
use super::names::{self, Case};

pub(crate) use finish::Placement;

/// The name of the journal.
const CHUNKS: &str = "chunks";

/// The folder with the files.
const TREE: &str = "tree";

/// Bytes that a power loss may cost: so many are verified, then they are synced.
const SYNC_BYTES: u64 = 64 << 20;

/// The same for small files, in chunks.
const SYNC_CHUNKS: usize = 4096;

/// More files than this are synced with all else on their disk, in one call.
const SYNC_ALL: usize = 8;

/// Verified chunks by their numbers, with their hashes, in order.
pub(crate) type Verified = Vec<(u64, Hash)>;

/// An incoming transfer that was accepted and is not over. All calls wait for the disk.
#[derive(Debug)]
pub(crate) struct Sink {
    offer: Offer,
    /// The name of its folder among the unfinished ones.
    name: String,
    folder: Arc<Folder>,
    handles: Arc<Handles>,
    /// Where each entry goes, from `tree` down.
    paths: Vec<Vec<String>>,
    state: Mutex<State>,
    /// Signalled when a write is done.
    changed: Condvar,
    /// Held while final names are given, so that this is not done twice at a time.
    finishing: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    /// Writes that were handed over and are not done.
    writes: BTreeMap<u64, Write>,
    next_write: u64,
    /// Verified chunks that are not synced.
    unsynced: Vec<u64>,
    unsynced_bytes: u64,
    syncing: bool,
    /// Bytes of files that take no room on the disk yet.
    unallocated: u64,
    /// Files that have their room.
    allocated: BTreeSet<u32>,
    /// Something changed the files while nobody was here; they are hashed again at the end.
    doubtful: bool,
    /// Nothing may be written any more.
    over: bool,
}

#[derive(Clone, Copy, Debug)]
struct Write {
    file: u32,
    start: u64,
    end: u64,
    running: bool,
}

impl Sink {
    /// Makes the place for a transfer, empty.
    ///
    /// # Errors
    /// When there is no room for all of it; `promised` is what other transfers were promised and have not taken.
    pub(crate) fn create(
        offer: Offer,
        folder: Arc<Folder>,
        handles: Arc<Handles>,
        promised: u64,
    ) -> Result<Self, FileError> {
        let name = offer.id().to_string();
        let at = |error| FileError::at(folder.path(), error);
        let (free, files) = folder.free().map_err(at)?;
        let bytes = offer.manifest().bytes();
        let free = free.saturating_sub(promised);
        if bytes > free || offer.manifest().entries().len() as u64 > files {
            return Err(FileError::NoRoom { needed: bytes, free });
        }
        // What lies there is not known to be of use: somebody who knew had called `restore`.
        folder.end(&name).map_err(at)?;
        handles.close(offer.id());
        folder.begin(&name).map_err(at)?;
        let case = folder.case(&name).map_err(at)?;
        let paths = plan(offer.manifest(), case)?;
        let head = Head {
            transfer: offer.id(),
            chunks: offer.manifest().chunks(),
            boot: journal::boot(),
            folded: case == Case::Folded,
        };
        let file = folder.open_partial(&name, &[CHUNKS], true).map_err(at)?;
        Journal::create(Arc::new(file), &head).map_err(at)?;
        folder.make_partial(&name, &[TREE]).map_err(at)?;
        Ok(Self::new(offer, name, folder, handles, paths))
    }

    /// Finds a transfer again after a restart, with the chunks that are verified. `None` when nothing of use is left.
    ///
    /// Only what was not synced before the system itself went down is hashed again. What is missing or too short does
    /// not count; files that were changed by somebody else meanwhile are hashed before they get their names. When its
    /// files were being `placed` already, all of this was done and some of them are not here any more.
    pub(crate) fn restore(
        offer: Offer,
        folder: Arc<Folder>,
        handles: Arc<Handles>,
        placed: bool,
    ) -> Result<Option<(Self, Verified)>, FileError> {
        let name = offer.id().to_string();
        let at = |error| FileError::at(folder.path(), error);
        let file = match folder.open_partial(&name, &[CHUNKS], false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(at)?,
        };
        let Some((journal, head)) = Journal::open(Arc::new(file)).map_err(at)? else { return Ok(None) };
        if head.transfer != offer.id() || head.chunks != offer.manifest().chunks() {
            return Ok(None);
        }
        let case = if head.folded { Case::Folded } else { Case::Sensitive };
        let paths = plan(offer.manifest(), case)?;
        let sink = Self::new(offer, name, Arc::clone(&folder), handles, paths);
        let written_at = journal.changed_at().map_err(at)?;
        let boot = journal::boot();
        let same_run = boot.is_some() && boot == head.boot;

        let mut verified = Vec::new();
        let (mut unsynced, mut unsynced_bytes) = (Vec::new(), 0);
        let mut looked_at = BTreeMap::new();
        for mark in journal.marks().map_err(at)? {
            let Some(chunk) = sink.offer.manifest().chunk(mark.chunk) else { continue };
            if placed {
                verified.push((mark.chunk, mark.hash));
                continue;
            }
            let found: Option<(u64, _)> = match looked_at.get(&chunk.file) {
                Some(found) => *found,
                None => *looked_at.entry(chunk.file).or_insert(sink.look(chunk.file).map_err(at)?),
            };
            let whole = found.is_some_and(|(length, _)| chunk.offset + u64::from(chunk.length) <= length);
            let good = whole && (mark.synced || same_run || sink.rehash(&chunk)? == mark.hash);
            if !good {
                journal.unmark(mark.chunk).map_err(at)?;
                continue;
            }
            if !mark.synced {
                unsynced.push(mark.chunk);
                unsynced_bytes += u64::from(chunk.length);
            }
            verified.push((mark.chunk, mark.hash));
        }
        journal.set_head(&Head { boot, ..head }).map_err(at)?;
        {
            let mut state = sink.lock();
            state.doubtful = looked_at.values().flatten().any(|(_, changed_at)| *changed_at > written_at);
            (state.unsynced, state.unsynced_bytes) = (unsynced, unsynced_bytes);
            for (&file, found) in &looked_at {
                sink.has_room(&mut state, file, found.map_or(0, |(length, _)| length));
            }
        }
        Ok(Some((sink, verified)))
    }

    fn new(offer: Offer, name: String, folder: Arc<Folder>, handles: Arc<Handles>, paths: Vec<Vec<String>>) -> Self {
        let state = State { unallocated: offer.manifest().bytes(), ..State::default() };
        Self {
            offer,
            name,
            folder,
            handles,
            paths,
            state: Mutex::new(state),
            changed: Condvar::new(),
            finishing: Mutex::default(),
        }
    }

    /// Whose place it is.
    pub(crate) fn transfer(&self) -> TransferId {
        self.offer.id()
    }

    /// The download folder.
    pub(crate) fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Bytes that it may still take from the disk.
    pub(crate) fn unallocated(&self) -> u64 {
        self.lock().unallocated
    }

    /// Announces a write, in the order in which the network gave them, and gives its number. It takes the place of an
    /// announced one over the same bytes that has not begun: whoever asked for that has given up, and it must not come
    /// after what was asked for later and may be verified by then.
    pub(crate) fn announce(&self, file: u32, offset: u64, length: usize) -> u64 {
        let end = offset.saturating_add(length as u64);
        let mut state = self.lock();
        state.writes.retain(|_, write| write.running || !write.overlaps(file, offset, end));
        let number = state.next_write;
        state.next_write += 1;
        state.writes.insert(number, Write { file, start: offset, end, running: false });
        number
    }

    /// Writes what was announced under that number, unless it was superseded.
    ///
    /// # Errors
    /// Also when the transfer is over meanwhile.
    pub(crate) fn write(&self, number: u64, bytes: &[u8]) -> Result<(), FileError> {
        let write = {
            let mut state = self.lock();
            loop {
                let Some(write) = state.writes.get(&number).copied() else { return Ok(()) };
                if state.over {
                    state.writes.remove(&number);
                    return Err(FileError::Unknown);
                }
                let mut others = state.writes.values().filter(|other| other.running);
                if !others.any(|other| other.overlaps(write.file, write.start, write.end)) {
                    break;
                }
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            let Some(write) = state.writes.get_mut(&number) else { return Ok(()) };
            write.running = true;
            *write
        };
        let done = self.write_at(write, bytes);
        self.lock().writes.remove(&number);
        self.changed.notify_all();
        done
    }

    fn write_at(&self, write: Write, bytes: &[u8]) -> Result<(), FileError> {
        let size = self.offer.manifest().entries().get(write.file as usize).map(|entry| entry.size);
        if size.is_none_or(|size| write.end > size) {
            return Err(FileError::Unknown);
        }
        let file = self.file(write.file)?;
        file.write_all_at(bytes, write.start).map_err(|error| self.error(write.file, error))?;
        // So that a change that comes later, by somebody else, is later than this.
        self.journal()?.touch().map_err(|error| self.error(write.file, error))
    }

    /// Remembers chunks as verified; gives whether [`Sink::sync`] is due.
    pub(crate) fn verified(&self, first: u64, hashes: &[Hash]) -> Result<bool, FileError> {
        if self.lock().over {
            return Err(FileError::Unknown);
        }
        self.journal()?.mark(first, hashes).map_err(|error| FileError::at(self.folder.path(), error))?;
        let chunks = first..first + hashes.len() as u64;
        let mut state = self.lock();
        state.unsynced_bytes += self.offer.manifest().length_of(chunks.clone());
        state.unsynced.extend(chunks);
        let due = state.unsynced_bytes >= SYNC_BYTES || state.unsynced.len() >= SYNC_CHUNKS;
        Ok(due && !std::mem::replace(&mut state.syncing, due))
    }

    /// Brings what is verified to where it survives a power loss.
    pub(crate) fn sync(&self) -> Result<(), FileError> {
        let (chunks, bytes) = {
            let mut state = self.lock();
            (std::mem::take(&mut state.unsynced), std::mem::take(&mut state.unsynced_bytes))
        };
        let files = chunks.iter().filter_map(|&chunk| self.offer.manifest().chunk(chunk)).map(|chunk| chunk.file);
        let done = self
            .sync_files(files.collect())
            .and_then(|()| self.journal()?.sync(&chunks).map_err(|error| FileError::at(self.folder.path(), error)));
        let mut state = self.lock();
        state.syncing = false;
        if done.is_err() {
            state.unsynced.extend(chunks);
            state.unsynced_bytes += bytes;
        }
        done
    }

    fn sync_files(&self, files: BTreeSet<u32>) -> Result<(), FileError> {
        if files.len() > SYNC_ALL {
            return self.folder.sync_all().map_err(|error| FileError::at(self.folder.path(), error));
        }
        for file in files {
            self.file(file)?.sync_data().map_err(|error| self.error(file, error))?;
        }
        Ok(())
    }

    /// Removes everything that is unfinished of it.
    pub(crate) fn end(&self) -> Result<(), FileError> {
        self.stop();
        self.handles.close(self.offer.id());
        self.folder.end(&self.name).map_err(|error| FileError::at(self.folder.path(), error))
    }

    /// From here on nothing is written.
    fn stop(&self) {
        let mut state = self.lock();
        state.over = true;
        while state.writes.values().any(|write| write.running) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        // Those that wait for a running one look again, and find that it is over.
        self.changed.notify_all();
    }

    /// Hashes what lies on the disk for a chunk.
    fn rehash(&self, chunk: &Chunk) -> Result<Hash, FileError> {
        let file = self.file(chunk.file)?;
        hash(&file, chunk).map_err(|error| self.error(chunk.file, error))
    }

    /// How long a partial file is and when it was changed; `None` when it is not there.
    fn look(&self, file: u32) -> io::Result<Option<(u64, (i64, i64))>> {
        let found = match self.folder.open_partial(&self.name, &self.place(file as usize), false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            found => found?,
        };
        let metadata = found.metadata()?;
        Ok(Some((metadata.len(), journal::changed_at(&metadata))))
    }

    /// Where an entry lies below the folder of the transfer.
    fn place(&self, file: usize) -> Vec<&str> {
        let path = self.paths.get(file).map(Vec::as_slice).unwrap_or_default();
        std::iter::once(TREE).chain(path.iter().map(String::as_str)).collect()
    }

    /// A partial file, opened, and made with its whole length if need be.
    fn file(&self, file: u32) -> Result<Arc<File>, FileError> {
        let entry = self.offer.manifest().entries().get(file as usize).ok_or(FileError::Unknown)?;
        self.handles.get((self.offer.id(), file), || {
            let opened = self.folder.open_partial(&self.name, &self.place(file as usize), true);
            let opened = opened.map_err(|error| self.error(file, error))?;
            allocate(&opened, entry.size).map_err(|error| self.error(file, error))?;
            self.has_room(&mut self.lock(), file, entry.size);
            Ok(opened)
        })
    }

    /// Notes that a partial file has its whole length, if it does.
    fn has_room(&self, state: &mut State, file: u32, length: u64) {
        let size = self.offer.manifest().entries().get(file as usize).map(|entry| entry.size);
        if size == Some(length) && state.allocated.insert(file) {
            state.unallocated = state.unallocated.saturating_sub(length);
        }
    }

    fn journal(&self) -> Result<Journal, FileError> {
        let file = self.handles.get((self.offer.id(), JOURNAL), || {
            let opened = self.folder.open_partial(&self.name, &[CHUNKS], false);
            opened.map_err(|error| FileError::at(self.folder.path(), error))
        })?;
        Ok(Journal::again(file, self.offer.manifest().chunks()))
    }

    fn error(&self, file: u32, error: io::Error) -> FileError {
        let path = self.paths.get(file as usize).map(Vec::as_slice).unwrap_or_default();
        FileError::at(&path.iter().fold(self.folder.path().to_owned(), |all, name| all.join(name)), error)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write {
    fn overlaps(&self, file: u32, start: u64, end: u64) -> bool {
        self.file == file && self.start < end && start < self.end
    }
}

/// Hashes one chunk of an open file.
pub(crate) fn hash(file: &File, chunk: &Chunk) -> io::Result<Hash> {
    let mut hasher = ChunkHasher::new(chunk);
    let mut buffer = vec![0; PIECE.min(chunk.length as usize)];
    let end = chunk.offset + u64::from(chunk.length);
    let mut at = chunk.offset;
    while at < end {
        let piece = buffer.len().min((end - at) as usize);
        file.read_exact_at(&mut buffer[..piece], at)?;
        hasher.update(&buffer[..piece]);
        at += piece as u64;
    }
    Ok(hasher.finish())
}

fn plan(manifest: &Manifest, case: Case) -> Result<Vec<Vec<String>>, FileError> {
    let entries = manifest.entries().iter();
    let paths = entries.map(|entry| (entry.path.iter().map(String::as_str), entry.kind == Kind::Folder));
    Ok(names::plan(paths, case)?)
}
