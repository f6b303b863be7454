//! A disk in memory that survives the node.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use file_transfer::hash::{ChunkHasher, Hash};
use file_transfer::manifest::{Chunk, Manifest, TransferId};
use file_transfer::{ChunkStore, Place, StoreError};
use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};

/// What it does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    Nothing,
    /// The sender's source is not what was offered any more.
    Changed,
    /// No room.
    Full,
    /// Writes never end.
    Hangs,
}

pub(crate) struct Inner {
    pub(crate) files: BTreeMap<(TransferId, u32), Vec<u8>>,
    pub(crate) verified: BTreeMap<u64, Hash>,
    pub(crate) finished: Vec<TransferId>,
    pub(crate) discarded: Vec<TransferId>,
    pub(crate) trouble: Trouble,
    /// Reads and writes at the beginning of a chunk.
    pub(crate) reads: usize,
    pub(crate) writes: usize,
    /// The most bytes that were asked for at once.
    pub(crate) largest: usize,
}

#[derive(Clone)]
pub(crate) struct MemoryStore(pub(crate) Arc<Mutex<Inner>>);

impl MemoryStore {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Inner {
            files: BTreeMap::new(),
            verified: BTreeMap::new(),
            finished: Vec::new(),
            discarded: Vec::new(),
            trouble: Trouble::Nothing,
            reads: 0,
            writes: 0,
            largest: 0,
        })))
    }

    pub(crate) fn put(&self, id: TransferId, manifest: &Manifest) {
        let mut inner = self.0.lock().unwrap();
        for (file, entry) in manifest.entries().iter().enumerate() {
            let bytes = (0..entry.size).map(|at| (at.wrapping_mul(at + file as u64) >> 5) as u8).collect();
            inner.files.insert((id, file as u32), bytes);
        }
    }

    pub(crate) fn set(&self, trouble: Trouble) {
        self.0.lock().unwrap().trouble = trouble;
    }

    pub(crate) fn verified(&self) -> Vec<(u64, Hash)> {
        self.0.lock().unwrap().verified.iter().map(|(index, hash)| (*index, *hash)).collect()
    }

    pub(crate) fn with<T>(&self, f: impl FnOnce(&mut Inner) -> T) -> T {
        f(&mut self.0.lock().unwrap())
    }
}

impl ChunkStore for MemoryStore {
    fn read(&self, place: Place, mut buffer: Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>, StoreError>> {
        let result = self.with(|inner| {
            inner.reads += usize::from(place.offset.is_multiple_of(1 << 20));
            inner.largest = inner.largest.max(buffer.len());
            if inner.trouble == Trouble::Changed {
                return Err(StoreError::Changed);
            }
            let file = inner.files.get(&(place.transfer, place.file)).ok_or(StoreError::Unknown)?;
            let from = place.offset as usize;
            let to = from + buffer.len();
            buffer.copy_from_slice(&file[from..to]);
            Ok(buffer)
        });
        ready(result).boxed()
    }

    fn write(&self, place: Place, data: Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>, StoreError>> {
        let result = self.with(|inner| {
            inner.writes += usize::from(place.offset.is_multiple_of(1 << 20));
            inner.largest = inner.largest.max(data.len());
            match inner.trouble {
                Trouble::Full => return Some(Err(StoreError::Full)),
                Trouble::Hangs => return None,
                Trouble::Nothing | Trouble::Changed => {}
            }
            let file = inner.files.entry((place.transfer, place.file)).or_default();
            let from = place.offset as usize;
            file.resize(file.len().max(from + data.len()), 0);
            file[from..from + data.len()].copy_from_slice(&data);
            Some(Ok(data))
        });
        match result {
            Some(result) => ready(result).boxed(),
            None => futures::future::pending().boxed(),
        }
    }

    fn verified(&self, _: TransferId, first: u64, hashes: Vec<Hash>) -> BoxFuture<'static, Result<(), StoreError>> {
        self.with(|inner| inner.verified.extend((first..).zip(hashes)));
        ready(Ok(())).boxed()
    }

    fn hash(&self, id: TransferId, chunk: Chunk) -> BoxFuture<'static, Result<Hash, StoreError>> {
        let result = self.with(|inner| {
            inner.reads += 1;
            let file = inner.files.get(&(id, chunk.file)).ok_or(StoreError::Unknown)?;
            let mut hasher = ChunkHasher::new(&chunk);
            hasher.update(&file[chunk.offset as usize..][..chunk.length as usize]);
            Ok(hasher.finish())
        });
        ready(result).boxed()
    }

    fn finish(&self, id: TransferId, _: Hash) -> BoxFuture<'static, Result<String, StoreError>> {
        self.with(|inner| inner.finished.push(id));
        ready(Ok("downloads/x".into())).boxed()
    }

    fn discard(&self, id: TransferId) -> BoxFuture<'static, ()> {
        self.with(|inner| inner.discarded.push(id));
        ready(()).boxed()
    }
}
