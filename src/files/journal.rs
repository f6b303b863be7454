//! Which chunks of a transfer are verified, on disk.
//!
//! One file of fixed places: a head, then for each chunk its hash, a check of one byte, and whether the chunk's bytes were
//! synced. A hash lies within one page, so a process that is killed leaves it whole or absent, and what was written is in
//! the system's cache and survives the process. After a power loss only what was synced is believed; the rest is hashed
//! again by [`Sink`](super::sink::Sink).
//!
//! ```text
//! 0      magic (8)  transfer (16)  chunks (8, little endian)  boot (16)  names folded (1)
//! 4096   hashes: 32 bytes each, all zero where there is none
//!        checks: 1 byte each, the exclusive or of the hash and a constant
//!        synced: 1 byte each, 1 when the bytes of the chunk are on the disk for good
//! ```

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use file_transfer::{Hash, TransferId};

const MAGIC: &[u8; 8] = b"ALCHUNK1";

/// Where the hashes begin: behind a page for the head.
const HASHES: u64 = 4096;

/// Makes the check of nothing another one than that of zeros.
const CHECK: u8 = 0xa5;

/// So many chunks are read at a time.
const BATCH: u64 = 4096;

/// An open journal.
#[derive(Debug)]
pub(crate) struct Journal {
    file: Arc<File>,
    chunks: u64,
}

/// What a journal says about one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Number of the chunk in its transfer.
    pub(crate) chunk: u64,
    /// What it was verified against.
    pub(crate) hash: Hash,
    /// Its bytes were synced before the journal said so.
    pub(crate) synced: bool,
}

/// The first bytes of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// Whose journal it is.
    pub(crate) transfer: TransferId,
    /// How many chunks it has places for.
    pub(crate) chunks: u64,
    /// In which run of the operating system it was written; `None` when that cannot be known.
    pub(crate) boot: Option<[u8; 16]>,
    /// Whether the names of the transfer were made for a folder that does not tell `A` from `a`.
    pub(crate) folded: bool,
}

impl Head {
    fn encode(&self) -> [u8; 49] {
        let mut out = [0; 49];
        out[..8].copy_from_slice(MAGIC);
        out[8..24].copy_from_slice(&self.transfer.0);
        out[24..32].copy_from_slice(&self.chunks.to_le_bytes());
        out[32..48].copy_from_slice(&self.boot.unwrap_or_default());
        out[48] = u8::from(self.folded);
        out
    }

    fn decode(bytes: &[u8; 49]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk::<8>()?;
        let (transfer, rest) = rest.split_first_chunk::<16>()?;
        let (chunks, rest) = rest.split_first_chunk::<8>()?;
        let (boot, rest) = rest.split_first_chunk::<16>()?;
        (magic == MAGIC && rest[0] <= 1).then_some(Self {
            transfer: TransferId(*transfer),
            chunks: u64::from_le_bytes(*chunks),
            boot: (*boot != [0; 16]).then_some(*boot),
            folded: rest[0] == 1,
        })
    }
}

impl Journal {
    /// A journal that was created or opened before, and whose file was closed meanwhile.
    pub(crate) fn again(file: Arc<File>, chunks: u64) -> Self {
        Self { file, chunks }
    }

    /// Begins an empty journal in an empty file.
    pub(crate) fn create(file: Arc<File>, head: &Head) -> io::Result<Self> {
        file.set_len(0)?;
        file.set_len(HASHES + head.chunks * 34)?;
        file.write_all_at(&head.encode(), 0)?;
        Ok(Self { file, chunks: head.chunks })
    }

    /// Reads a journal's head; `None` when this is no journal, or not a whole one.
    pub(crate) fn open(file: Arc<File>) -> io::Result<Option<(Self, Head)>> {
        let mut bytes = [0; 49];
        match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let length = file.metadata()?.len();
        let whole =
            |head: &Head| head.chunks.checked_mul(34).and_then(|places| places.checked_add(HASHES)) == Some(length);
        Ok(Head::decode(&bytes).filter(whole).map(|head| (Self { file, chunks: head.chunks }, head)))
    }

    /// Says that the journal was written to in this run of the system. Whatever was not synced in an earlier one must
    /// have been dropped or hashed again before.
    pub(crate) fn set_head(&self, head: &Head) -> io::Result<()> {
        self.file.write_all_at(&head.encode(), 0)
    }

    /// Remembers the hashes of chunks from `first` on. They survive the process, not yet the system.
    pub(crate) fn mark(&self, first: u64, hashes: &[Hash]) -> io::Result<()> {
        let range = self.range(first, hashes.len())?;
        let bytes = hashes.iter().flat_map(|hash| hash.0).collect::<Vec<_>>();
        let checks = hashes.iter().map(check).collect::<Vec<_>>();
        self.file.write_all_at(&bytes, HASHES + range.start * 32)?;
        self.file.write_all_at(&checks, HASHES + self.chunks * 32 + range.start)
    }

    /// Forgets a chunk.
    pub(crate) fn unmark(&self, chunk: u64) -> io::Result<()> {
        let range = self.range(chunk, 1)?;
        self.file.write_all_at(&[0; 32], HASHES + range.start * 32)?;
        self.file.write_all_at(&[0], HASHES + self.chunks * 32 + range.start)?;
        self.file.write_all_at(&[0], HASHES + self.chunks * 33 + range.start)
    }

    /// Remembers that the bytes of these chunks are on the disk for good, and brings the journal there too. The bytes
    /// must have been synced before.
    pub(crate) fn sync(&self, chunks: &[u64]) -> io::Result<()> {
        for &chunk in chunks {
            let range = self.range(chunk, 1)?;
            self.file.write_all_at(&[1], HASHES + self.chunks * 33 + range.start)?;
        }
        self.file.sync_data()
    }

    /// Everything that the journal knows, in order.
    pub(crate) fn marks(&self) -> io::Result<Vec<Mark>> {
        let mut marks = Vec::new();
        let mut from = 0;
        while from < self.chunks {
            let count = BATCH.min(self.chunks - from) as usize;
            let (mut hashes, mut checks, mut synced) = (vec![0; count * 32], vec![0; count], vec![0; count]);
            self.file.read_exact_at(&mut hashes, HASHES + from * 32)?;
            self.file.read_exact_at(&mut checks, HASHES + self.chunks * 32 + from)?;
            self.file.read_exact_at(&mut synced, HASHES + self.chunks * 33 + from)?;
            let (hashes, _) = hashes.as_chunks::<32>();
            for (at, hash) in hashes.iter().map(|&hash| Hash(hash)).enumerate() {
                if hash.0 != [0; 32] && check(&hash) == checks[at] {
                    marks.push(Mark { chunk: from + at as u64, hash, synced: synced[at] == 1 });
                }
            }
            from += count as u64;
        }
        Ok(marks)
    }

    /// When the journal was last written to. See [`changed_at`].
    pub(crate) fn changed_at(&self) -> io::Result<(i64, i64)> {
        Ok(changed_at(&self.file.metadata()?))
    }

    /// Makes [`Journal::changed_at`] not earlier than now.
    pub(crate) fn touch(&self) -> io::Result<()> {
        self.file.write_all_at(&MAGIC[..1], 0)
    }

    fn range(&self, first: u64, count: usize) -> io::Result<Range<u64>> {
        let end = first.checked_add(count as u64).filter(|&end| end <= self.chunks);
        end.map(|end| first..end).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no such chunk"))
    }
}

/// When anything about a file was last changed, content or not; unlike the time of the last modification no program can
/// set it back.
pub(crate) fn changed_at(metadata: &std::fs::Metadata) -> (i64, i64) {
    use std::os::unix::fs::MetadataExt as _;
    (metadata.ctime(), metadata.ctime_nsec())
}

/// Which run of the operating system this is; `None` where that cannot be known.
pub(crate) fn boot() -> Option<[u8; 16]> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let digits = text.trim().chars().filter(|&char| char != '-').collect::<String>();
    let value = u128::from_str_radix(&digits, 16).ok().filter(|&value| value != 0)?;
    Some(value.to_be_bytes())
}

fn check(hash: &Hash) -> u8 {
    hash.0.iter().fold(CHECK, |all, byte| all ^ byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Head = Head { transfer: TransferId([7; 16]), chunks: 10_000, boot: Some([3; 16]), folded: true };

    #[test]
    fn what_was_marked_is_read_back() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let journal = Journal::create(file.clone(), &HEAD).unwrap();
        journal.mark(0, &[Hash([1; 32])]).unwrap();
        journal.mark(9_998, &[Hash([2; 32]), Hash([3; 32])]).unwrap();
        journal.mark(5, &[Hash([4; 32])]).unwrap();
        journal.unmark(5).unwrap();
        journal.sync(&[9_998]).unwrap();
        assert!(journal.mark(9_999, &[Hash([1; 32]); 2]).is_err());
        let (journal, head) = Journal::open(file).unwrap().unwrap();
        assert_eq!(head, HEAD);
        let marks = journal.marks().unwrap();
        let mark = |chunk, byte, synced| Mark { chunk, hash: Hash([byte; 32]), synced };
        assert_eq!(marks, [mark(0, 1, false), mark(9_998, 2, true), mark(9_999, 3, false)]);
    }

    #[test]
    fn a_flipped_bit_or_a_lost_end_is_never_a_mark() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let journal = Journal::create(file.clone(), &HEAD).unwrap();
        journal.mark(3, &[Hash([1; 32])]).unwrap();
        for (at, was) in [(HASHES + 3 * 32 + 9, 1), (HASHES + 32 * HEAD.chunks + 3, CHECK)] {
            file.write_all_at(&[was ^ 0x10], at).unwrap();
            assert_eq!(journal.marks().unwrap(), [], "{at}");
            file.write_all_at(&[was], at).unwrap();
        }
        assert_eq!(journal.marks().unwrap().len(), 1);
        file.write_all_at(b"B", 0).unwrap();
        assert!(Journal::open(file.clone()).unwrap().is_none());
        journal.touch().unwrap();
        assert!(Journal::open(file.clone()).unwrap().is_some());
        file.set_len(HASHES + 100).unwrap();
        assert!(Journal::open(file.clone()).unwrap().is_none());
        file.set_len(10).unwrap();
        assert!(Journal::open(file).unwrap().is_none());
    }
}
