//! Which transfers there are, on disk, so that both ends go on by themselves after a restart.
//!
//! ```text
//! <data dir>/transfers/<in|out>-<transfer>/offer          the signed offer with its pages
//!                                         /record-<peer>  how it stands with that peer
//!                                         /sources        outgoing: where the files lie here, and how they were
//!                                         /chunks         outgoing: hashes of what was read (a journal)
//!                                         /place          incoming: the download folder
//!                                         /placement      incoming: the final names, once they are chosen
//!                     /spool-<random>                     what was read from a pipe, to be sent
//! ```
//! Each small file is replaced as a whole: a new one is written, synced and renamed over the old one, and the folder is
//! synced. It begins with the hash of the rest, so that a damaged one is noticed.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use file_transfer::{Direction, Hash, Offer, Record, TransferId};
use libp2p::PeerId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::FileError;
use super::sink::Placement;
use super::source;

/// How the name of a file begins while it is written.
const NEW: &str = "new-";

/// What stands behind the name of a transfer whose records are damaged; it is not looked at again.
const DAMAGED: &str = ".damaged";

/// How the name of a spooled file's folder begins.
pub(crate) const SPOOL: &str = "spool-";

/// What a spooled file is called, also at the receiver.
pub(crate) const SPOOLED: &str = "stdin";

/// The folder with the records of all transfers. Calls wait for the disk.
#[derive(Debug)]
pub(crate) struct Records {
    root: PathBuf,
}

/// The records of one transfer.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) offer: Offer,
    pub(crate) direction: Direction,
    /// One for each receiver of an outgoing transfer, one of an incoming one.
    pub(crate) records: Vec<Record>,
}

impl Kept {
    /// Something is still to be done for it.
    pub(crate) fn is_open(&self) -> bool {
        self.records.iter().any(|record| !record.state.is_final())
    }
}

#[derive(Serialize, Deserialize)]
struct StoredOffer {
    signed: ByteBuf,
    pages: Vec<ByteBuf>,
}

impl Records {
    /// Opens the folder, which is made when it is not there.
    pub(crate) fn open(root: &Path) -> Result<Self, FileError> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(root).map_err(|error| FileError::at(root, error))?;
        Ok(Self { root: root.to_owned() })
    }

    /// Where it is.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of one transfer.
    pub(crate) fn folder(&self, direction: Direction, id: TransferId) -> PathBuf {
        let direction = match direction {
            Direction::In => "in",
            Direction::Out => "out",
        };
        self.root.join(format!("{direction}-{id}"))
    }

    /// Keeps an offer.
    pub(crate) fn keep(&self, direction: Direction, offer: &Offer) -> Result<(), FileError> {
        let pages = offer.pages().iter().cloned().map(ByteBuf::from).collect();
        let stored = StoredOffer { signed: ByteBuf::from(offer.signed()), pages };
        self.put(direction, offer.id(), "offer", &encode(&stored)?)
    }

    /// Keeps how a transfer stands with one peer.
    pub(crate) fn save(&self, record: &Record) -> Result<(), FileError> {
        self.put(record.direction, record.id, &record_name(&record.peer), &record.encode())
    }

    /// Forgets how it stands with that peer, and the whole transfer with the last one.
    pub(crate) fn forget(&self, id: TransferId, peer: &PeerId) -> Result<(), FileError> {
        for direction in [Direction::In, Direction::Out] {
            let folder = self.folder(direction, id);
            let names = match names(&folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                names => names.map_err(|error| FileError::at(&folder, error))?,
            };
            let own = record_name(peer);
            if !names.contains(&own) {
                continue;
            }
            if names.iter().any(|name| *name != own && name.starts_with("record-")) {
                self.take_away(direction, id, &own)?;
            } else {
                self.remove(direction, id)?;
            }
        }
        Ok(())
    }

    /// Removes everything about a transfer.
    pub(crate) fn remove(&self, direction: Direction, id: TransferId) -> Result<(), FileError> {
        let folder = self.folder(direction, id);
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(FileError::at(&folder, error)),
            _ => Ok(()),
        }
    }

    /// Keeps where the files of an outgoing transfer lie.
    pub(crate) fn put_sources(&self, id: TransferId, sources: &[source::Entry]) -> Result<(), FileError> {
        self.put(Direction::Out, id, "sources", &encode(&sources)?)
    }

    /// Where they lie.
    pub(crate) fn sources(&self, id: TransferId) -> Result<Option<Vec<source::Entry>>, FileError> {
        self.get(Direction::Out, id, "sources")?.map(|bytes| decode(&bytes)).transpose()
    }

    /// Forgets where they lie, and what was hashed of them.
    pub(crate) fn drop_sources(&self, id: TransferId) -> Result<(), FileError> {
        self.take_away(Direction::Out, id, "sources")?;
        self.take_away(Direction::Out, id, "chunks")
    }

    /// The journal of an outgoing transfer, made if there is none.
    pub(crate) fn journal(&self, id: TransferId) -> Result<File, FileError> {
        let path = self.folder(Direction::Out, id).join("chunks");
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        options.open(&path).map_err(|error| FileError::at(&path, error))
    }

    /// Keeps into which folder an incoming transfer goes.
    pub(crate) fn put_place(&self, id: TransferId, folder: &Path) -> Result<(), FileError> {
        use std::os::unix::ffi::OsStrExt as _;
        self.put(Direction::In, id, "place", folder.as_os_str().as_bytes())
    }

    /// Into which folder it goes.
    pub(crate) fn place(&self, id: TransferId) -> Result<Option<PathBuf>, FileError> {
        use std::os::unix::ffi::OsStringExt as _;
        let bytes = self.get(Direction::In, id, "place")?;
        Ok(bytes.map(|bytes| PathBuf::from(std::ffi::OsString::from_vec(bytes))))
    }

    /// Keeps the final names of an incoming transfer.
    pub(crate) fn put_placement(&self, id: TransferId, placement: &Placement) -> Result<(), FileError> {
        self.put(Direction::In, id, "placement", &encode(placement)?)
    }

    /// Its final names, once they were chosen.
    pub(crate) fn placement(&self, id: TransferId) -> Result<Option<Placement>, FileError> {
        self.get(Direction::In, id, "placement")?.map(|bytes| decode(&bytes)).transpose()
    }

    /// Forgets them, before anything was moved.
    pub(crate) fn drop_placement(&self, id: TransferId) -> Result<(), FileError> {
        self.take_away(Direction::In, id, "placement")
    }

    /// Everything that was kept, oldest first, and the names of what is damaged, which was set aside. What was begun and
    /// never came to a record is removed.
    pub(crate) fn load(&self) -> Result<(Vec<Kept>, Vec<String>), FileError> {
        let (mut all, mut damaged) = (Vec::new(), Vec::new());
        for name in names(&self.root).map_err(|error| FileError::at(&self.root, error))? {
            let Some((direction, id)) = parse(&name) else { continue };
            match self.load_one(direction, id) {
                Ok(Some(kept)) => all.push(kept),
                Ok(None) => self.remove(direction, id)?,
                Err(FileError::Corrupt(_)) => {
                    let aside = self.root.join(format!("{name}{DAMAGED}"));
                    // There may be an older one under that name; nobody needs both.
                    let _ = fs::remove_dir_all(&aside);
                    fs::rename(self.root.join(&name), &aside).map_err(|error| FileError::at(&aside, error))?;
                    damaged.push(name);
                }
                Err(error) => return Err(error),
            }
        }
        all.sort_by_key(|kept| (kept.offer.sent_at_ms(), kept.offer.id()));
        Ok((all, damaged))
    }

    fn load_one(&self, direction: Direction, id: TransferId) -> Result<Option<Kept>, FileError> {
        let folder = self.folder(direction, id);
        let Some(offer) = self.get(direction, id, "offer")? else { return Ok(None) };
        let stored = decode::<StoredOffer>(&offer)?;
        let pages = stored.pages.into_iter().map(ByteBuf::into_vec).collect();
        let offer = Offer::decode(&stored.signed, pages).map_err(|_| FileError::Corrupt(folder.clone()))?;
        let mut records = Vec::new();
        for name in names(&folder).map_err(|error| FileError::at(&folder, error))? {
            if name.starts_with("record-") {
                let record = self.get(direction, id, &name)?.and_then(|bytes| Record::decode(&bytes));
                let record = record.filter(|record| record.id == id && record.direction == direction);
                records.push(record.ok_or_else(|| FileError::Corrupt(folder.clone()))?);
            }
        }
        if offer.id() != id {
            return Err(FileError::Corrupt(folder));
        }
        Ok((!records.is_empty()).then_some(Kept { offer, direction, records }))
    }

    /// Removes spooled files that no transfer sends.
    pub(crate) fn sweep(&self, in_use: impl Fn(&Path) -> bool) {
        for name in names(&self.root).unwrap_or_default() {
            let path = self.root.join(&name);
            if name.starts_with(SPOOL) && !in_use(&path.join(SPOOLED)) {
                let _ = fs::remove_dir_all(path);
            }
        }
    }

    fn put(&self, direction: Direction, id: TransferId, name: &str, bytes: &[u8]) -> Result<(), FileError> {
        let folder = self.folder(direction, id);
        let made = match fs::DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(FileError::at(&folder, error)),
        };
        let put = || {
            let new = folder.join(format!("{NEW}{name}"));
            let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(&Hash::of(bytes).0)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&new, folder.join(name))?;
            File::open(&folder)?.sync_all()?;
            if made {
                File::open(&self.root)?.sync_all()?;
            }
            Ok(())
        };
        put().map_err(|error| FileError::at(&folder, error))
    }

    fn get(&self, direction: Direction, id: TransferId, name: &str) -> Result<Option<Vec<u8>>, FileError> {
        let path = self.folder(direction, id).join(name);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes.map_err(|error| FileError::at(&path, error))?,
        };
        match bytes.split_first_chunk::<32>() {
            Some((hash, rest)) if Hash::of(rest).0 == *hash => Ok(Some(rest.to_vec())),
            _ => Err(FileError::Corrupt(path)),
        }
    }

    fn take_away(&self, direction: Direction, id: TransferId, name: &str) -> Result<(), FileError> {
        let path = self.folder(direction, id).join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(FileError::at(&path, error)),
            _ => Ok(()),
        }
    }
}

fn record_name(peer: &PeerId) -> String {
    format!("record-{peer}")
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// The transfer whose folder has that name.
fn parse(name: &str) -> Option<(Direction, TransferId)> {
    let (direction, digits) = name.split_once('-')?;
    let direction = match direction {
        "in" => Direction::In,
        "out" => Direction::Out,
        _ => return None,
    };
    let well_formed = digits.len() == 32 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let number = u128::from_str_radix(digits, 16).ok().filter(|_| well_formed)?;
    Some((direction, TransferId(number.to_be_bytes())))
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, FileError> {
    cbor4ii::serde::to_vec(Vec::new(), value).map_err(|error| FileError::Encode(error.to_string()))
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, FileError> {
    cbor4ii::serde::from_slice(bytes).map_err(|_| FileError::Corrupt(PathBuf::new()))
}
