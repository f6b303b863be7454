//! BLAKE3, cut at chunks so that the parts make up the hash of the whole file.
//!
//! The hash of a file is what `b3sum` prints. BLAKE3 is a binary tree: the hash of a chunk is its chaining value there,
//! and joining the chaining values of all chunks gives the hash of the file, without the bytes. A file of a single
//! chunk has no tree above it: there the hash of the chunk is the hash of the file.

use std::fmt;

use blake3::hazmat::{self, HasherExt as _, Mode};

use crate::manifest::{CHUNK, Chunk, Manifest};

/// 32 bytes of BLAKE3. [`fmt::Display`] gives lower-case hex, as `b3sum` does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// The plain hash of bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Hashes one chunk, piece by piece.
pub struct ChunkHasher {
    hasher: blake3::Hasher,
    only: bool,
}

impl ChunkHasher {
    /// For that chunk: its place in the file is part of its hash.
    pub fn new(chunk: &Chunk) -> Self {
        let mut hasher = blake3::Hasher::new();
        if !chunk.only {
            hasher.set_input_offset(chunk.offset);
        }
        Self { hasher, only: chunk.only }
    }

    /// The next bytes of the chunk; together exactly its length.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    /// The hash.
    pub fn finish(self) -> Hash {
        match self.only {
            true => Hash(*self.hasher.finalize().as_bytes()),
            false => Hash(self.hasher.finalize_non_root()),
        }
    }
}

/// The hash of one chunk whose bytes are at hand.
pub fn of_chunk(chunk: &Chunk, bytes: &[u8]) -> Hash {
    let mut hasher = ChunkHasher::new(chunk);
    hasher.update(bytes);
    hasher.finish()
}

/// The hash of a file from those of its chunks, in order.
pub fn of_file(chunks: &[Hash]) -> Hash {
    match chunks {
        [] => Hash::of(b""),
        [only] => *only,
        _ => {
            let (left, right) = chunks.split_at(left_of(chunks.len()));
            Hash(*hazmat::merge_subtrees_root(&subtree(left), &subtree(right), Mode::Hash).as_bytes())
        }
    }
}

/// What a transfer is known by: of a single file its hash, of anything else the hash over the hashes of its entries in
/// their order (32 bytes each; a folder counts as an empty file). The hashes are those of all chunks, in order.
pub fn root(manifest: &Manifest, chunks: &[Hash]) -> Hash {
    let file = |index: usize| of_file(chunks.get(manifest.chunks_of(index)).unwrap_or_default());
    if manifest.entries().len() == 1 {
        return file(0);
    }
    let mut hasher = blake3::Hasher::new();
    for index in 0..manifest.entries().len() {
        hasher.update(&file(index).0);
    }
    Hash(*hasher.finalize().as_bytes())
}

fn subtree(chunks: &[Hash]) -> [u8; 32] {
    match chunks {
        [] => [0; 32],
        [only] => only.0,
        _ => {
            let (left, right) = chunks.split_at(left_of(chunks.len()));
            hazmat::merge_subtrees_non_root(&subtree(left), &subtree(right), Mode::Hash)
        }
    }
}

/// BLAKE3 gives the left side the largest power of two that leaves something for the right.
fn left_of(chunks: usize) -> usize {
    const { assert!(CHUNK.is_power_of_two()) };
    chunks.next_power_of_two() / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Entry, Manifest};

    #[test]
    fn the_chunks_make_up_what_b3sum_prints() {
        let bytes: Vec<u8> = (0..9 * CHUNK + 17).map(|at| ((at * at) >> 7) as u8).collect();
        let ends = [0, 1, 1023, 1024, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 1, 5 * CHUNK, 8 * CHUNK + 3];
        for end in ends.into_iter().chain([bytes.len() as u64]) {
            let bytes = &bytes[..end as usize];
            let manifest = Manifest::new("a".into(), vec![Entry::file(&["a"], end)]).unwrap();
            let hash = |chunk: Chunk| of_chunk(&chunk, &bytes[chunk.offset as usize..][..chunk.length as usize]);
            let hashes: Vec<_> = (0..manifest.chunks()).map(|index| hash(manifest.chunk(index).unwrap())).collect();
            assert_eq!(root(&manifest, &hashes), Hash::of(bytes), "{end} bytes");
        }
    }
}
