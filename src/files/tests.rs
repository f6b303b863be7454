//! Transfers on a real disk, without a network: what is sent by one side is given to the other as the network would.

mod incoming;
mod limits;
mod outgoing;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use file_transfer::{
    ChunkStore as _, Direction, Entry, Hash, Manifest, Offer, PIECE, Place, Record, State, StoreError, TransferId, hash,
};
use futures::executor::block_on;
use libp2p::identity::Keypair;

use super::*;

const ID: TransferId = TransferId([0xab; 16]);

/// A node's disk, which outlives its process.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// One that thousands of files are made on in a moment.
    fn in_memory() -> Self {
        let memory = Path::new("/dev/shm");
        if memory.is_dir() { Self(tempfile::tempdir_in(memory).unwrap()) } else { Self::new() }
    }

    /// A process that uses it.
    fn start(&self) -> (Files, Vec<Restored>) {
        let (files, restored, _) = self.start_and_say();
        (files, restored)
    }

    fn start_and_say(&self) -> (Files, Vec<Restored>, Vec<String>) {
        Files::open(&self.0.path().join("transfers"), &self.downloads()).unwrap()
    }

    fn downloads(&self) -> PathBuf {
        self.0.path().join("downloads")
    }

    fn partial(&self, path: &str) -> PathBuf {
        self.downloads().join(".partial").join(ID.to_string()).join(path)
    }

    /// Every file below the download folder, unfinished ones included, with its content.
    fn all(&self) -> Vec<(String, Vec<u8>)> {
        let mut found = Vec::new();
        let mut folders = vec![self.downloads()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(self.downloads()).unwrap().to_str().unwrap().to_owned();
                if path.is_dir() && !path.is_symlink() {
                    folders.push(path);
                } else {
                    found.push((name, fs::read(&path).unwrap_or_default()));
                }
            }
        }
        found.sort();
        found
    }
}

fn content(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|at| (at.wrapping_mul(31) >> 3) as u8 ^ seed ^ (at >> 11) as u8).collect()
}

fn key() -> Keypair {
    Keypair::ed25519_from_bytes([5; 32]).unwrap()
}

fn offer(entries: Vec<Entry>) -> Offer {
    Offer::sign(&key(), ID, Manifest::new("offer".into(), entries).unwrap(), 1).unwrap()
}

fn record(offer: &Offer, direction: Direction, state: State) -> Record {
    Record {
        id: offer.id(),
        direction,
        peer: key().public().to_peer_id(),
        state,
        reason: None,
        active_for: Duration::ZERO,
        retries: 0,
        bytes: 0,
        root: None,
        path: None,
    }
}

/// What the network does before the first byte of an incoming transfer.
fn accept(files: &Files, offer: &Offer) {
    block_on(files.keep(Direction::In, offer.clone())).unwrap();
    block_on(files.prepare(offer.clone(), None)).unwrap();
    block_on(files.save(record(offer, Direction::In, State::Active))).unwrap();
}

/// Writes a chunk in pieces, and has it remembered as verified.
fn receive(files: &Files, offer: &Offer, index: u64, bytes: &[u8]) -> Result<(), StoreError> {
    let chunk = offer.manifest().chunk(index).unwrap();
    assert_eq!(bytes.len(), chunk.length as usize);
    for (at, piece) in bytes.chunks(PIECE).enumerate() {
        let offset = chunk.offset + (at * PIECE) as u64;
        block_on(files.write(Place { transfer: offer.id(), file: chunk.file, offset }, piece.to_vec()))?;
    }
    block_on(files.verified(offer.id(), index, vec![hash::of_chunk(&chunk, bytes)]))
}

/// The bytes of one chunk, out of the contents of all entries.
fn part<'a>(offer: &Offer, index: u64, contents: &'a [Vec<u8>]) -> &'a [u8] {
    let chunk = offer.manifest().chunk(index).unwrap();
    &contents[chunk.file as usize][chunk.offset as usize..][..chunk.length as usize]
}

fn receive_all(files: &Files, offer: &Offer, contents: &[Vec<u8>]) {
    for index in 0..offer.manifest().chunks() {
        receive(files, offer, index, part(offer, index, contents)).unwrap();
    }
}

fn finish(files: &Files) -> Result<PathBuf, StoreError> {
    block_on(files.finish(ID, Hash([0; 32]))).map(PathBuf::from)
}

/// The end as the network brings it about.
fn complete(files: &Files, offer: &Offer) -> PathBuf {
    let path = finish(files).unwrap();
    block_on(files.save(record(offer, Direction::In, State::Completed))).unwrap();
    path
}

fn numbers(restored: &Restored) -> Vec<u64> {
    restored.verified.iter().map(|(index, _)| *index).collect()
}

/// One file offered under that name arrives, and this is what it is called then.
fn arrives_as(disk: &Disk, name: &str) -> String {
    let (files, _) = disk.start();
    let offer = offer(vec![Entry::file(&[name], 3)]);
    accept(&files, &offer);
    receive(&files, &offer, 0, b"abc").unwrap();
    let path = complete(&files, &offer);
    assert_eq!(path.parent().unwrap(), disk.downloads());
    assert_eq!(fs::read(&path).unwrap(), b"abc");
    block_on(files.forget(ID, key().public().to_peer_id())).unwrap();
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

/// The files that are open here and lie below that folder.
fn open_below(folder: &Path) -> usize {
    let links = fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    links.filter(|path| path.starts_with(folder)).count()
}

/// Makes sure that a time that a file gets from now on is later than that of what was written before.
fn clock_ticks(beside: &Path) {
    use std::os::unix::fs::MetadataExt as _;
    let probe = beside.join("probe");
    let now = || {
        fs::write(&probe, b"x").unwrap();
        let metadata = fs::metadata(&probe).unwrap();
        (metadata.ctime(), metadata.ctime_nsec())
    };
    let before = now();
    while now() <= before {}
    fs::remove_file(probe).unwrap();
}
