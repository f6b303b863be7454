//! What is offered: names and sizes, signed by the sender; and the seal, which binds the contents once they are read.
//!
//! All chunks of a transfer are numbered through, in the order of the entries. The last chunk of a file is shorter, and
//! a file without bytes has none. So one range of numbers names a part of one large file as well as a hundred small
//! files, and its length in bytes follows from the manifest alone.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use libp2p::PeerId;
use libp2p::core::SignedEnvelope;
use libp2p::identity::{KeyType, Keypair};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

use crate::cbor;
use crate::hash::Hash;

/// The hashed unit, in bytes.
pub const CHUNK: u64 = 1 << 20;
/// The step of reading and writing, in bytes; divides [`CHUNK`].
pub const PIECE: usize = 256 << 10;
/// Most entries of one offer.
pub const MAX_ENTRIES: usize = 100_000;
/// Most bytes of one offer, all files together: below 2^40, so that the hashes of its chunks fit into 32 MiB.
pub const MAX_BYTES: u64 = (1 << 40) - 1;
/// Most chunks of one offer: what [`MAX_BYTES`] needs, and a short last one for each file.
pub const MAX_CHUNKS: u64 = (1 << 20) + MAX_ENTRIES as u64;
/// Deepest path, in components.
pub const MAX_DEPTH: usize = 64;
/// Longest component of a path, in bytes of UTF-8.
pub const MAX_COMPONENT_BYTES: usize = 255;
/// Longest path, in bytes of UTF-8, one for each separator included.
pub const MAX_PATH_BYTES: usize = 4096;
/// Longest name of an offer, in bytes of UTF-8.
pub const MAX_NAME_BYTES: usize = 255;
/// Longest page of a manifest, in bytes of CBOR.
pub const MAX_PAGE_BYTES: usize = 256 << 10;
/// Most pages of a manifest; together they bound its names.
pub const MAX_PAGES: usize = 64;
/// Longest signed offer, in bytes.
pub const MAX_OFFER_BYTES: usize = 8 << 10;
/// Longest seal, in bytes.
pub const MAX_SEAL_BYTES: usize = 512;

const OFFER_DOMAIN: &str = "althing/file-transfer/offer/1";
const OFFER_TYPE: &[u8] = b"/althing/file-transfer/offer/1";
const SEAL_DOMAIN: &str = "althing/file-transfer/seal/1";
const SEAL_TYPE: &[u8] = b"/althing/file-transfer/seal/1";

/// The name of a transfer: 16 bytes drawn at random, unguessable. Whoever knows it was offered the files, so it is also
/// the permission to ask for them. The receivers of one offer share it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransferId(pub [u8; 16]);

impl fmt::Display for TransferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TransferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A file.
    File,
    /// A folder; named because it is empty, or for its modification time.
    Folder,
}

/// One file or folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where it lies below the receiver's place for the transfer. Checked to be relative and to stay below; **not**
    /// checked for what is special on the receiver's system, nor for characters that a terminal obeys.
    pub path: Vec<String>,
    /// File or folder.
    pub kind: Kind,
    /// Of a file, in bytes; of a folder 0.
    pub size: u64,
    /// Last modification, in nanoseconds since 1970 UTC.
    pub mtime_ns: i64,
    /// Whether its owner may execute it.
    pub executable: bool,
}

impl Entry {
    /// A file of that size, last changed at the beginning of time.
    pub fn file(path: &[&str], size: u64) -> Self {
        let path = path.iter().map(|&part| part.to_owned()).collect();
        Self { path, kind: Kind::File, size, mtime_ns: 0, executable: false }
    }
}

/// One hashed unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Its number in the transfer.
    pub index: u64,
    /// Index of its entry.
    pub file: u32,
    /// From the beginning of that file, in bytes; a multiple of [`CHUNK`].
    pub offset: u64,
    /// In bytes, 1 to [`CHUNK`].
    pub length: u32,
    /// It is all there is of its file.
    pub only: bool,
}

/// A checked list of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    name: String,
    entries: Vec<Entry>,
    /// The number of the first chunk of each entry, and of the one after the last.
    starts: Vec<u64>,
    bytes: u64,
}

/// Why a list of files cannot be offered, or is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// No entry.
    #[error("there is nothing to send")]
    Empty,
    /// Too many entries.
    #[error("there are more than {MAX_ENTRIES} files; send an archive, or fewer at a time")]
    Entries,
    /// Too many bytes, or a folder with bytes.
    #[error("it is larger than {MAX_BYTES} bytes; send fewer files at a time")]
    Bytes,
    /// A path that does not stay below, or breaks a bound.
    #[error(
        "the path {0:?} cannot be sent; every part needs 1 to {MAX_COMPONENT_BYTES} bytes and none may be `.` or `..`"
    )]
    Path(String),
    /// Two entries lie at one place, or one below a file.
    #[error("the path {0:?} stands twice")]
    Twice(String),
    /// The name breaks a bound.
    #[error("a name needs 1 to {MAX_NAME_BYTES} bytes")]
    Name,
    /// Its pages are more than [`MAX_PAGES`].
    #[error("the names are too long together; send an archive, or fewer files at a time")]
    Pages,
    /// The key could not sign.
    #[error("the offer cannot be signed: an Ed25519 key is needed")]
    Key,
    /// The bytes are not a signed offer, seal or page.
    #[error("it is not what it should be, or not signed by who should have")]
    Malformed,
}

impl Manifest {
    /// A list of files under a name for people: that of the file or folder, or words for several.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn new(name: String, entries: Vec<Entry>) -> Result<Self, ManifestError> {
        if name.is_empty() || name.len() > MAX_NAME_BYTES {
            return Err(ManifestError::Name);
        }
        if entries.is_empty() {
            return Err(ManifestError::Empty);
        }
        if entries.len() > MAX_ENTRIES {
            return Err(ManifestError::Entries);
        }
        let (mut starts, mut bytes, mut next) = (Vec::with_capacity(entries.len() + 1), 0_u64, 0);
        for entry in &entries {
            check_path(&entry.path)?;
            bytes = bytes.checked_add(entry.size).filter(|&sum| sum <= MAX_BYTES).ok_or(ManifestError::Bytes)?;
            if entry.kind == Kind::Folder && entry.size > 0 {
                return Err(ManifestError::Bytes);
            }
            starts.push(next);
            next += entry.size.div_ceil(CHUNK);
        }
        starts.push(next);
        check_places(&entries)?;
        Ok(Self { name, entries, starts, bytes })
    }

    /// For people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// In the order of their chunks.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Of all files.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many chunks there are.
    pub fn chunks(&self) -> u64 {
        self.starts.last().copied().unwrap_or(0)
    }

    /// One of them, by its number.
    pub fn chunk(&self, index: u64) -> Option<Chunk> {
        if index >= self.chunks() {
            return None;
        }
        // Entries without chunks share their start with the next one: the last of them is meant.
        let file = self.starts.partition_point(|&start| start <= index) - 1;
        let size = self.entries[file].size;
        let offset = (index - self.starts[file]) * CHUNK;
        let length = (size - offset).min(CHUNK);
        Some(Chunk { index, file: file as u32, offset, length: length as u32, only: size <= CHUNK })
    }

    /// The chunks of an entry, as numbers that fit an index.
    pub fn chunks_of(&self, entry: usize) -> Range<usize> {
        match (self.starts.get(entry), self.starts.get(entry + 1)) {
            (Some(&start), Some(&end)) => start as usize..end as usize,
            _ => 0..0,
        }
    }

    /// The bytes of a range of chunks; what lies beyond the end counts nothing.
    pub fn length_of(&self, chunks: Range<u64>) -> u64 {
        let chunks = chunks.filter_map(|index| self.chunk(index));
        chunks.map(|chunk| u64::from(chunk.length)).sum()
    }
}

/// An offer with its list of files, checked, as it travels and as it is kept. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Offer(Arc<OfferInner>);

#[derive(PartialEq, Eq)]
struct OfferInner {
    id: TransferId,
    sender: PeerId,
    sent_at_ms: u64,
    manifest: Manifest,
    signed: Vec<u8>,
    pages: Vec<Vec<u8>>,
}

impl Offer {
    /// Sign an own one. `id` must be 16 bytes from the system's randomness, `sent_at_ms` is the own clock in milliseconds
    /// since 1970 UTC.
    ///
    /// # Errors
    /// When the names are too long together, or the key is not an Ed25519 key.
    pub fn sign(key: &Keypair, id: TransferId, manifest: Manifest, sent_at_ms: u64) -> Result<Self, ManifestError> {
        if key.key_type() != KeyType::Ed25519 {
            return Err(ManifestError::Key);
        }
        let pages = paginate(&manifest.entries)?;
        let payload = cbor::encode(&OfferPayload {
            transfer: ByteArray::new(id.0),
            name: manifest.name.clone(),
            entries: manifest.entries.len() as u64,
            bytes: manifest.bytes,
            pages: pages.iter().map(|page| ByteArray::new(Hash::of(page).0)).collect(),
            sent_at_ms,
        });
        let envelope = SignedEnvelope::new(key, OFFER_DOMAIN.into(), OFFER_TYPE.to_vec(), payload);
        let signed = envelope.map_err(|_| ManifestError::Key)?.into_protobuf_encoding();
        let sender = key.public().to_peer_id();
        Ok(Self(Arc::new(OfferInner { id, sender, sent_at_ms, manifest, signed, pages })))
    }

    /// Read what was kept, or put together what came.
    ///
    /// # Errors
    /// When anything is not as its sender signed it, or breaks a bound.
    pub fn decode(signed: &[u8], pages: Vec<Vec<u8>>) -> Result<Self, ManifestError> {
        let summary = Summary::decode(signed)?;
        let fits = |(page, hash): (&Vec<u8>, &Hash)| page.len() <= MAX_PAGE_BYTES && Hash::of(page) == *hash;
        if pages.len() != summary.pages.len() || !pages.iter().zip(&summary.pages).all(fits) {
            return Err(ManifestError::Malformed);
        }
        let mut entries: Vec<Entry> = Vec::new();
        for page in &pages {
            let more = cbor::decode::<Vec<Entry>>(page).map_err(|cbor::Malformed| ManifestError::Malformed)?;
            if entries.len() + more.len() > MAX_ENTRIES {
                return Err(ManifestError::Entries);
            }
            entries.extend(more);
        }
        let manifest = Manifest::new(summary.name, entries)?;
        if (manifest.entries.len() as u64, manifest.bytes) != (summary.entries, summary.bytes) {
            return Err(ManifestError::Malformed);
        }
        let Summary { id, sender, sent_at_ms, .. } = summary;
        Ok(Self(Arc::new(OfferInner { id, sender, sent_at_ms, manifest, signed: signed.to_vec(), pages })))
    }

    /// Its name, and the permission to ask for it.
    pub fn id(&self) -> TransferId {
        self.0.id
    }

    /// Who signed it.
    pub fn sender(&self) -> PeerId {
        self.0.sender
    }

    /// When, by the sender's clock, in milliseconds since 1970 UTC.
    pub fn sent_at_ms(&self) -> u64 {
        self.0.sent_at_ms
    }

    /// The list of files.
    pub fn manifest(&self) -> &Manifest {
        &self.0.manifest
    }

    /// The exact signed bytes, to keep or to send.
    pub fn signed(&self) -> &[u8] {
        &self.0.signed
    }

    /// The list of files as it travels: 1 to [`MAX_PAGES`] pages.
    pub fn pages(&self) -> &[Vec<u8>] {
        &self.0.pages
    }

    /// What a seal for this offer names.
    pub(crate) fn digest(&self) -> Hash {
        Hash::of(self.signed())
    }
}

impl fmt::Debug for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let manifest = self.manifest();
        let files = manifest.entries().len();
        write!(f, "Offer({}, {:?}, {files} entries, {} bytes)", self.id(), manifest.name(), manifest.bytes())
    }
}

/// A signed offer before its list of files is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) id: TransferId,
    pub(crate) sender: PeerId,
    pub(crate) sent_at_ms: u64,
    pub(crate) name: String,
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
    pub(crate) pages: Vec<Hash>,
}

impl Summary {
    pub(crate) fn decode(signed: &[u8]) -> Result<Self, ManifestError> {
        if signed.len() > MAX_OFFER_BYTES {
            return Err(ManifestError::Malformed);
        }
        let (payload, sender) = open::<OfferPayload>(signed, OFFER_DOMAIN, OFFER_TYPE)?;
        if !(1..=MAX_PAGES).contains(&payload.pages.len()) {
            return Err(ManifestError::Pages);
        }
        if payload.bytes > MAX_BYTES {
            return Err(ManifestError::Bytes);
        }
        if !(1..=MAX_ENTRIES as u64).contains(&payload.entries) {
            return Err(ManifestError::Entries);
        }
        if payload.name.is_empty() || payload.name.len() > MAX_NAME_BYTES {
            return Err(ManifestError::Name);
        }
        Ok(Self {
            id: TransferId(payload.transfer.into_array()),
            sender,
            sent_at_ms: payload.sent_at_ms,
            name: payload.name,
            entries: payload.entries,
            bytes: payload.bytes,
            pages: payload.pages.into_iter().map(|hash| Hash(hash.into_array())).collect(),
        })
    }
}

/// The sender's signature under the contents: made once every byte was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seal {
    root: Hash,
    signed: Vec<u8>,
}

impl Seal {
    /// Sign the contents of an own offer; `root` is [`hash::root`](crate::hash::root).
    ///
    /// # Errors
    /// When the key is not an Ed25519 key.
    pub fn sign(key: &Keypair, offer: &Offer, root: Hash) -> Result<Self, ManifestError> {
        let payload = cbor::encode(&SealPayload {
            transfer: ByteArray::new(offer.id().0),
            offer: ByteArray::new(offer.digest().0),
            root: ByteArray::new(root.0),
        });
        let envelope = SignedEnvelope::new(key, SEAL_DOMAIN.into(), SEAL_TYPE.to_vec(), payload);
        let signed = envelope.map_err(|_| ManifestError::Key)?.into_protobuf_encoding();
        Ok(Self { root, signed })
    }

    /// Read the seal of that offer.
    ///
    /// # Errors
    /// When it is not signed by the sender of that offer, or is for another one.
    pub fn decode(signed: &[u8], offer: &Offer) -> Result<Self, ManifestError> {
        if signed.len() > MAX_SEAL_BYTES {
            return Err(ManifestError::Malformed);
        }
        let (payload, signer) = open::<SealPayload>(signed, SEAL_DOMAIN, SEAL_TYPE)?;
        let fits = payload.transfer.into_array() == offer.id().0 && payload.offer.into_array() == offer.digest().0;
        match fits && signer == offer.sender() {
            true => Ok(Self { root: Hash(payload.root.into_array()), signed: signed.to_vec() }),
            false => Err(ManifestError::Malformed),
        }
    }

    /// What was sealed.
    pub fn root(&self) -> Hash {
        self.root
    }

    /// The exact signed bytes.
    pub fn signed(&self) -> &[u8] {
        &self.signed
    }
}

fn check_path(path: &[String]) -> Result<(), ManifestError> {
    let bad = |part: &String| {
        part.is_empty() || part.len() > MAX_COMPONENT_BYTES || part == "." || part == ".." || part.contains(['/', '\0'])
    };
    let length: usize = path.iter().map(|part| part.len() + 1).sum();
    if path.is_empty() || path.len() > MAX_DEPTH || length > MAX_PATH_BYTES || path.iter().any(bad) {
        return Err(ManifestError::Path(shown(path)));
    }
    Ok(())
}

/// No place is taken twice, and nothing lies below a file.
fn check_places(entries: &[Entry]) -> Result<(), ManifestError> {
    let mut files = BTreeSet::new();
    let mut folders = BTreeSet::new();
    for Entry { path, kind, .. } in entries {
        let fresh = match kind {
            Kind::File => files.insert(path.as_slice()),
            Kind::Folder => folders.insert(path.as_slice()),
        };
        if !fresh {
            return Err(ManifestError::Twice(shown(path)));
        }
    }
    for Entry { path, kind, .. } in entries {
        let is_below = (1..path.len()).any(|end| files.contains(&path[..end]));
        if is_below || (*kind == Kind::Folder && files.contains(path.as_slice())) {
            return Err(ManifestError::Twice(shown(path)));
        }
    }
    Ok(())
}

/// A path in an error, not longer than a person reads.
fn shown(path: &[String]) -> String {
    path.join("/").chars().take(200).collect()
}

/// Cut the list into pages of whole entries, each within [`MAX_PAGE_BYTES`].
fn paginate(entries: &[Entry]) -> Result<Vec<Vec<u8>>, ManifestError> {
    // What stands around the entries of a page: the head of the array.
    const HEAD: usize = 9;
    let (mut pages, mut from, mut length) = (Vec::new(), 0, HEAD);
    for (at, entry) in entries.iter().enumerate() {
        let own = cbor::encode(entry).len();
        if length + own > MAX_PAGE_BYTES {
            pages.push(cbor::encode(&&entries[from..at]));
            (from, length) = (at, HEAD);
        }
        length += own;
    }
    pages.push(cbor::encode(&&entries[from..]));
    if pages.len() > MAX_PAGES { Err(ManifestError::Pages) } else { Ok(pages) }
}

/// Open an envelope: its payload, and whose Ed25519 key signed it.
fn open<T: serde::de::DeserializeOwned>(bytes: &[u8], domain: &str, kind: &[u8]) -> Result<(T, PeerId), ManifestError> {
    let envelope = SignedEnvelope::from_protobuf_encoding(bytes).map_err(|_| ManifestError::Malformed)?;
    let opened = envelope.payload_and_signing_key(domain.into(), kind);
    let (payload, key) = opened.map_err(|_| ManifestError::Malformed)?;
    if key.key_type() != KeyType::Ed25519 {
        return Err(ManifestError::Key);
    }
    let payload = cbor::decode(payload).map_err(|cbor::Malformed| ManifestError::Malformed)?;
    Ok((payload, key.to_peer_id()))
}

#[derive(Serialize, Deserialize)]
struct OfferPayload {
    transfer: ByteArray<16>,
    name: String,
    entries: u64,
    bytes: u64,
    pages: Vec<ByteArray<32>>,
    sent_at_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct SealPayload {
    transfer: ByteArray<16>,
    offer: ByteArray<32>,
    root: ByteArray<32>,
}
