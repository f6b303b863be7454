//! What is sent: the files and folders that a person names, found, listed and read.
//!
//! Links, pipes, sockets and devices inside a folder are not followed and not opened; they are listed with the reason. A
//! file is opened only when it is read, and each reading begins and ends with a look whether it is still what was listed.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use file_transfer::manifest::MAX_DEPTH;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::FileError;
use super::names::{MAX_NAME_BYTES, MAX_PATH_BYTES, cut, numbered};

/// Most files and folders of one transfer.
pub(crate) const MAX_ENTRIES: usize = file_transfer::MAX_ENTRIES;

/// Most skipped things that are listed one by one.
pub(crate) const MAX_SKIPPED: usize = 1_000;

/// How a file was when it was listed. Any difference means that its content may be another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    /// The device is not compared after a restart: its number may be another one then.
    #[serde(skip)]
    dev: Option<u64>,
    ino: u64,
    size: u64,
    mtime_s: i64,
    mtime_ns: i64,
}

impl Stamp {
    /// How a file is now.
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self {
            dev: Some(metadata.dev()),
            ino: metadata.ino(),
            size: metadata.size(),
            mtime_s: metadata.mtime(),
            mtime_ns: metadata.mtime_nsec(),
        }
    }

    /// Whether a file that was like this may still have the same content, being like `now`.
    fn holds(&self, now: &Self) -> bool {
        let same_device = self.dev.is_none() || now.dev.is_none() || self.dev == now.dev;
        same_device && Self { dev: None, ..*self } == Self { dev: None, ..*now }
    }
}

/// One file or folder to be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Its name for the receiver: components from the thing that was named down. What is no UTF-8 is replaced.
    pub(crate) path: Vec<String>,
    /// Where it lies here.
    #[serde(with = "path_bytes")]
    pub(crate) local: PathBuf,
    /// Folders are listed only when they are empty, others come with what is in them.
    pub(crate) folder: bool,
    /// In bytes; 0 for a folder.
    pub(crate) size: u64,
    /// Last change of its content, in nanoseconds since 1970; negative before.
    pub(crate) mtime_ns: i64,
    /// Whether its owner may execute it.
    pub(crate) executable: bool,
    /// How it was when it was listed.
    pub(crate) stamp: Stamp,
}

/// Something that is not sent, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Skipped {
    /// Where it lies.
    pub(crate) path: PathBuf,
    /// A few words for a person.
    pub(crate) reason: &'static str,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Walk {
    /// Files and empty folders, in the order of the named paths and by name within a folder.
    pub(crate) entries: Vec<Entry>,
    /// The first [`MAX_SKIPPED`] things that are left out.
    pub(crate) skipped: Vec<Skipped>,
    /// How many things are left out.
    pub(crate) skipped_total: usize,
    /// Bytes of all files.
    pub(crate) bytes: u64,
}

/// Lists what the paths name, with everything below folders. A path that is itself a link is followed: it was named.
///
/// # Errors
/// When a path that was named cannot be listed or is neither file nor folder, or when there are more than
/// [`MAX_ENTRIES`]. What cannot be read inside a folder is skipped instead.
pub(crate) fn walk<P: AsRef<Path>>(paths: &[P]) -> Result<Walk, FileError> {
    let mut walk = Walk::default();
    let (mut names, mut seen) = (BTreeSet::new(), BTreeSet::new());
    for path in paths {
        let path = path.as_ref();
        let metadata = std::fs::metadata(path).map_err(|error| FileError::at(path, error))?;
        let name = match path.file_name() {
            Some(name) => name.to_owned(),
            // `.`, `..` and `/`: the name that the folder really has.
            None => {
                let whole = path.canonicalize().map_err(|error| FileError::at(path, error))?;
                whole.file_name().ok_or(FileError::NoName)?.to_owned()
            }
        };
        // Whole paths, because the node's working folder may be another one after a restart; and to where a named link
        // leads now, because that is what was listed.
        let local = path.canonicalize().map_err(|error| FileError::at(path, error))?;
        if !seen.insert(local.clone()) {
            walk.skip(local, "was named twice");
            continue;
        }
        let top = vec![text(&name, &mut names)];
        if let Some(reason) = special(&metadata) {
            return Err(FileError::NotAFile(path.to_owned(), reason));
        } else if metadata.is_dir() {
            walk.folder(top, local)?;
        } else {
            // What was named must be readable; said now rather than when half of it is sent.
            open(&local, &Stamp::of(&metadata))?;
            walk.add(top, local, &metadata)?;
        }
    }
    Ok(walk)
}

impl Walk {
    /// Lists a folder. A stack of its own, since depth is chosen by whoever made the folder.
    fn folder(&mut self, path: Vec<String>, local: PathBuf) -> Result<(), FileError> {
        let mut folders = vec![(path, local)];
        while let Some((path, local)) = folders.pop() {
            let depth = path.len();
            let mut entries = match std::fs::read_dir(&local).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
                Ok(entries) => entries,
                Err(error) if depth == 1 => return Err(FileError::at(&local, error)),
                Err(_) => {
                    self.skip(local, "cannot be read");
                    continue;
                }
            };
            if entries.is_empty() {
                match std::fs::symlink_metadata(&local) {
                    Ok(metadata) => self.add(path, local, &metadata)?,
                    Err(_) => self.skip(local, "is gone"),
                }
                continue;
            }
            entries.sort_by_key(std::fs::DirEntry::file_name);
            let (mut inner, mut names) = (Vec::new(), BTreeSet::new());
            for entry in entries {
                let local = entry.path();
                let mut path = path.clone();
                path.push(text(&entry.file_name(), &mut names));
                let bytes = path.iter().map(|name| name.len() + 1).sum::<usize>();
                // Not through the entry, which on some systems has the metadata of what a link leads to.
                match std::fs::symlink_metadata(&local) {
                    Err(_) => self.skip(local, "is gone"),
                    Ok(_) if depth >= MAX_DEPTH || bytes > MAX_PATH_BYTES => self.skip(local, "lies too deep"),
                    Ok(metadata) => match special(&metadata) {
                        Some(reason) => self.skip(local, reason),
                        None if metadata.is_dir() => inner.push((path, local)),
                        None => self.add(path, local, &metadata)?,
                    },
                }
            }
            folders.extend(inner.into_iter().rev());
        }
        Ok(())
    }

    fn add(&mut self, path: Vec<String>, local: PathBuf, metadata: &Metadata) -> Result<(), FileError> {
        if self.entries.len() >= MAX_ENTRIES {
            return Err(FileError::TooMany);
        }
        let folder = metadata.is_dir();
        let size = if folder { 0 } else { metadata.len() };
        self.bytes = self.bytes.checked_add(size).ok_or(FileError::TooMany)?;
        self.entries.push(Entry {
            path,
            local,
            folder,
            size,
            mtime_ns: metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec()),
            executable: !folder && metadata.mode() & 0o100 != 0,
            stamp: Stamp::of(metadata),
        });
        Ok(())
    }

    fn skip(&mut self, path: PathBuf, reason: &'static str) {
        self.skipped_total += 1;
        if self.skipped.len() < MAX_SKIPPED {
            self.skipped.push(Skipped { path, reason });
        }
    }
}

/// A name as text. What is no UTF-8 is replaced, and what is the same then as another name gets a number.
fn text(name: &OsStr, names: &mut BTreeSet<String>) -> String {
    let name = cut(&name.to_string_lossy(), MAX_NAME_BYTES);
    let others = (2..).map(|number| numbered(&name, number));
    let mut candidates = std::iter::once(name.clone()).chain(others);
    let free = candidates.find(|name| !names.contains(name)).unwrap_or(name);
    names.insert(free.clone());
    free
}

/// Why something that is neither a file nor a folder is not sent.
fn special(metadata: &Metadata) -> Option<&'static str> {
    let kind = metadata.file_type();
    if kind.is_symlink() {
        Some("is a symbolic link, which is not followed")
    } else if kind.is_fifo() {
        Some("is a named pipe")
    } else if kind.is_socket() {
        Some("is a socket")
    } else if kind.is_block_device() || kind.is_char_device() {
        Some("is a device")
    } else {
        (!kind.is_file() && !kind.is_dir()).then_some("is neither a file nor a folder")
    }
}

/// Opens a file to read it.
///
/// # Errors
/// [`FileError::Changed`] when it is not what was listed any more.
pub(crate) fn open(local: &Path, listed: &Stamp) -> Result<File, FileError> {
    // A pipe put in the file's place must not hold the thread, and a link put there must not lead elsewhere.
    let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY;
    let mut options = File::options();
    options.read(true).custom_flags(flags.bits().cast_signed());
    let file = options.open(local).map_err(|error| gone(local, error))?;
    unchanged(&file, listed, local)?;
    Ok(file)
}

/// Reads exactly so many bytes, and looks afterwards whether the file is still what was listed: what was read of one that
/// changed meanwhile belongs to neither version.
///
/// # Errors
/// [`FileError::Changed`] when it is not, or ends earlier.
pub(crate) fn read(file: &File, listed: &Stamp, local: &Path, offset: u64, buffer: &mut [u8]) -> Result<(), FileError> {
    match file.read_exact_at(buffer, offset) {
        Ok(()) => unchanged(file, listed, local),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(FileError::Changed(local.to_owned())),
        Err(error) => Err(FileError::at(local, error)),
    }
}

fn unchanged(file: &File, listed: &Stamp, local: &Path) -> Result<(), FileError> {
    let metadata = file.metadata().map_err(|error| FileError::at(local, error))?;
    let same = metadata.is_file() && listed.holds(&Stamp::of(&metadata));
    if same { Ok(()) } else { Err(FileError::Changed(local.to_owned())) }
}

/// A listed file that is not there, or a folder or link in its place, has changed.
fn gone(local: &Path, error: io::Error) -> FileError {
    let raw = error.raw_os_error().map(rustix::io::Errno::from_raw_os_error);
    match raw {
        Some(
            rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP | rustix::io::Errno::NXIO,
        ) => FileError::Changed(local.to_owned()),
        _ => FileError::at(local, error),
    }
}

/// Paths here may be no UTF-8; they are written as the bytes they are.
mod path_bytes {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    use std::path::{Path, PathBuf};

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(path.as_os_str().as_bytes())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        let bytes = serde_bytes::ByteBuf::deserialize(deserializer)?;
        Ok(PathBuf::from(OsString::from_vec(bytes.into_vec())))
    }
}
