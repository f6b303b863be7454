//! [`Files`] as the disk of the network.

use std::sync::Arc;

use file_transfer::{Chunk, ChunkStore, Hash, Place, StoreError, TransferId};
use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};

use super::pool::{Pool, Work};
use super::sink::{Sink, hash};
use super::{FileError, Files, Inner, Known, Outgoing, source};

impl ChunkStore for Files {
    fn read(&self, place: Place, mut buffer: Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>, StoreError>> {
        let Some(Known::Out(outgoing)) = self.inner.known(place.transfer) else { return unknown() };
        let inner = Arc::clone(&self.inner);
        boxed(self.disk.submit(move || {
            inner.read(&outgoing, place.file, |file, source| {
                source::read(file, &source.stamp, &source.local, place.offset, &mut buffer)
            })?;
            Ok(buffer)
        }))
    }

    fn write(&self, place: Place, data: Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>, StoreError>> {
        let Some(Known::In(sink)) = self.inner.known(place.transfer) else { return unknown() };
        let number = sink.announce(place.file, place.offset, data.len());
        boxed(self.disk.submit(move || sink.write(number, &data).map(|()| data)))
    }

    fn verified(
        &self,
        transfer: TransferId,
        first: u64,
        hashes: Vec<Hash>,
    ) -> BoxFuture<'static, Result<(), StoreError>> {
        let (inner, pool) = (Arc::clone(&self.inner), Arc::downgrade(&self.disk));
        match self.inner.known(transfer) {
            Some(Known::In(sink)) => boxed(self.disk.submit(move || {
                if sink.verified(first, &hashes)? {
                    pool.upgrade().inspect(|pool| sync(pool, sink));
                }
                Ok(())
            })),
            Some(Known::Out(outgoing)) => boxed(self.disk.submit(move || {
                let journal = inner.journal_of(&outgoing)?;
                journal.mark(first, &hashes).map_err(|error| FileError::at(inner.records.root(), error))
            })),
            None => unknown(),
        }
    }

    fn hash(&self, transfer: TransferId, chunk: Chunk) -> BoxFuture<'static, Result<Hash, StoreError>> {
        let Some(Known::Out(outgoing)) = self.inner.known(transfer) else { return unknown() };
        let inner = Arc::clone(&self.inner);
        boxed(self.disk.submit(move || {
            inner.read(&outgoing, chunk.file, |file, source| {
                let hash = hash(file, &chunk).map_err(|error| match error.kind() {
                    std::io::ErrorKind::UnexpectedEof => FileError::Changed(source.local.clone()),
                    _ => FileError::at(&source.local, error),
                });
                // Empty: only the look whether the file is still the same.
                hash.and_then(|hash| source::read(file, &source.stamp, &source.local, 0, &mut []).map(|()| hash))
            })
        }))
    }

    fn finish(&self, transfer: TransferId, _root: Hash) -> BoxFuture<'static, Result<String, StoreError>> {
        let inner = Arc::clone(&self.inner);
        // Not on the thread of the records, which need not wait until a large file is synced.
        boxed(self.disk.submit(move || {
            let Some(Known::In(sink)) = inner.known(transfer) else { return Err(FileError::Unknown) };
            let keep = |placement: &_| inner.records.put_placement(transfer, placement);
            let placement = sink.finish(|| inner.records.placement(transfer), keep)?;
            Ok(placement.path(sink.folder().path()).to_string_lossy().into_owned())
        }))
    }

    fn discard(&self, transfer: TransferId) -> BoxFuture<'static, ()> {
        let inner = Arc::clone(&self.inner);
        let discarded = self.ledger.submit(move || inner.discard(transfer));
        discarded
            .map(move |discarded| {
                if let Err(error) = discarded {
                    tracing::warn!(%transfer, %error, "what a transfer left could not be removed");
                }
            })
            .boxed()
    }
}

impl Inner {
    /// Does something with an open source.
    fn read<T>(
        &self,
        outgoing: &Outgoing,
        file: u32,
        work: impl FnOnce(&std::fs::File, &source::Entry) -> Result<T, FileError>,
    ) -> Result<T, FileError> {
        let source = outgoing.sources.get(file as usize).ok_or(FileError::Unknown)?;
        let handle = self.handles.get((outgoing.id, file), || source::open(&source.local, &source.stamp))?;
        work(&handle, source)
    }

    fn discard(&self, transfer: TransferId) -> Result<(), FileError> {
        let Some(known) = self.known(transfer) else { return Ok(()) };
        self.forget(transfer);
        match known {
            Known::In(sink) => sink.end(),
            Known::Out(outgoing) => {
                let spooled = outgoing.sources.iter().filter(|source| source.local.starts_with(self.records.root()));
                for source in spooled {
                    std::fs::remove_file(&source.local).map_err(|error| FileError::at(&source.local, error))?;
                }
                self.records.drop_sources(transfer)
            }
        }
    }
}

/// Has the sync of a transfer done. It need not be waited for: if it fails, the next one covers its chunks too.
fn sync(pool: &Pool, sink: Arc<Sink>) {
    drop(pool.submit(move || {
        sink.sync().inspect_err(|error| tracing::warn!(transfer = %sink.transfer(), %error, "a sync failed"))
    }));
}

fn boxed<T: Send + 'static>(work: Work<T>) -> BoxFuture<'static, Result<T, StoreError>> {
    work.map(|done| done.map_err(StoreError::from)).boxed()
}

fn unknown<T: Send + 'static>() -> BoxFuture<'static, Result<T, StoreError>> {
    ready(Err(StoreError::Unknown)).boxed()
}
