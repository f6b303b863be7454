//! The folder that downloads go to, and nothing outside it.
//!
//! Everything here begins at a descriptor of that folder and goes down one name at a time without following links, so that
//! whatever is swapped for a link meanwhile stops the way instead of leading it elsewhere. What is not finished lies in the
//! hidden folder [`PARTIAL`], on the same file system, so that finishing is a rename.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, Dir, FallocateFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::FileError;
use super::names::{Case, numbered};

/// Where unfinished downloads lie within the folder; only the owner sees into it.
pub(crate) const PARTIAL: &str = ".partial";

/// This much room is left on a disk, or a hundredth of it where that is less.
const RESERVE: u64 = 64 << 20;

/// So many numbers are tried for a name that is taken.
const MAX_NUMBER: u32 = 10_000;

/// What every folder is opened with.
const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A download folder.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// Replaced when a person removes the folder while the node runs.
    root: Mutex<Arc<OwnedFd>>,
}

impl Folder {
    /// Opens the folder, which is made when it is not there.
    pub(crate) fn open(path: &Path) -> Result<Self, FileError> {
        let root = make_and_open(path).map_err(|error| FileError::at(path, error))?;
        Ok(Self { path: path.to_owned(), root: Mutex::new(Arc::new(root)) })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn root(&self) -> io::Result<Arc<OwnedFd>> {
        let mut root = self.lock();
        if rustix::fs::fstat(&**root)?.st_nlink == 0 {
            *root = Arc::new(make_and_open(&self.path)?);
        }
        Ok(Arc::clone(&root))
    }

    fn lock(&self) -> MutexGuard<'_, Arc<OwnedFd>> {
        self.root.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that may still be written, a reserve taken off, and how many more files there may be.
    pub(crate) fn free(&self) -> io::Result<(u64, u64)> {
        let stat = rustix::fs::fstatvfs(&*self.root()?)?;
        let total = stat.f_blocks.saturating_mul(stat.f_frsize);
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        // Some file systems make their inodes as they go and count none.
        let files = if stat.f_files == 0 { u64::MAX } else { stat.f_favail };
        Ok((free.saturating_sub(RESERVE.min(total / 100)), files))
    }

    /// Makes the folder of a transfer among the unfinished ones.
    pub(crate) fn begin(&self, transfer: &str) -> io::Result<()> {
        let root = self.root()?;
        loop {
            make(&*root, PARTIAL, Mode::RWXU)?;
            let partial = match enter(&*root, PARTIAL) {
                // Somebody else's transfer was the last one in it and took it away.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                partial => partial?,
            };
            match make(&partial, transfer, Mode::RWXU) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                made => return made,
            }
        }
    }

    /// How names are told apart here.
    pub(crate) fn case(&self, transfer: &str) -> io::Result<Case> {
        let folder = self.partial(&[transfer])?;
        drop(open_file(&folder, "Case", true)?);
        let folded = exists(&folder, "cASE")?;
        rustix::fs::unlinkat(&folder, "Case", AtFlags::empty())?;
        Ok(if folded { Case::Folded } else { Case::Sensitive })
    }

    /// Opens a file below the folder of an unfinished transfer. With `make`, it and the folders above are made.
    ///
    /// # Errors
    /// Also when something else than a plain file of its own lies there.
    pub(crate) fn open_partial<S: AsRef<str>>(&self, transfer: &str, path: &[S], make: bool) -> io::Result<File> {
        let (name, above) = path.split_last().ok_or(io::ErrorKind::InvalidInput)?;
        let folder = self.folder(transfer, above, make)?;
        open_file(&folder, name.as_ref(), make)
    }

    /// Makes a folder below that of an unfinished transfer.
    pub(crate) fn make_partial<S: AsRef<str>>(&self, transfer: &str, path: &[S]) -> io::Result<()> {
        self.folder(transfer, path, true).map(drop)
    }

    /// Sets the time of the last change of a folder below that of an unfinished transfer, in nanoseconds since 1970.
    pub(crate) fn set_time<S: AsRef<str>>(&self, transfer: &str, path: &[S], mtime_ns: i64) -> io::Result<()> {
        let folder = File::from(self.folder(transfer, path, false)?);
        set_time(&folder, mtime_ns)
    }

    /// Brings everything on this disk to where it survives a power loss. One call for thousands of files.
    pub(crate) fn sync_all(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&*self.root()?)?)
    }

    /// Brings the names in a folder of an unfinished transfer to where they survive a power loss.
    pub(crate) fn sync_partial<S: AsRef<str>>(&self, transfer: &str, path: &[S]) -> io::Result<()> {
        Ok(rustix::fs::fsync(self.folder(transfer, path, false)?)?)
    }

    /// Brings the names in the folder itself to where they survive a power loss.
    pub(crate) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&*self.root()?)?)
    }

    /// The first name like this one that nothing here has, as things stand now.
    pub(crate) fn free_name(&self, name: &str, taken: impl Fn(&str) -> bool) -> io::Result<String> {
        let root = self.root()?;
        let mut candidate = name.to_owned();
        for number in 2..MAX_NUMBER {
            if !taken(&candidate) && !exists(&*root, &candidate)? {
                return Ok(candidate);
            }
            candidate = numbered(name, number);
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Moves a finished file or folder from an unfinished transfer to its final name; nothing is ever replaced.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] when the name was taken meanwhile.
    pub(crate) fn place<S: AsRef<str>>(&self, transfer: &str, above: &[S], name: &str, to: &str) -> io::Result<()> {
        let root = self.root()?;
        let from = self.folder(transfer, above, false)?;
        match rustix::fs::renameat_with(&from, name, &*root, to, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
            done => return Ok(done?),
        }
        // This file system cannot do it in one step. A folder may replace an empty one, which is made exclusively first;
        // a file gets its second name, which never replaces anything, and loses its first.
        if rustix::fs::statat(&from, name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| is_folder(stat.st_mode))? {
            rustix::fs::mkdirat(&*root, to, Mode::RWXU)?;
            Ok(rustix::fs::renameat(&from, name, &*root, to)?)
        } else {
            rustix::fs::linkat(&from, name, &*root, to, AtFlags::empty())?;
            Ok(rustix::fs::unlinkat(&from, name, AtFlags::empty())?)
        }
    }

    /// The number by which the file system knows what lies under that name here; `None` when nothing does.
    pub(crate) fn inode(&self, name: &str) -> io::Result<Option<u64>> {
        inode(&*self.root()?, name)
    }

    /// The same for something in a folder of an unfinished transfer.
    pub(crate) fn partial_inode<S: AsRef<str>>(
        &self,
        transfer: &str,
        above: &[S],
        name: &str,
    ) -> io::Result<Option<u64>> {
        match self.folder(transfer, above, false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            folder => inode(&folder?, name),
        }
    }

    /// Removes what an unfinished transfer left, and the hidden folder with the last of them.
    pub(crate) fn end(&self, transfer: &str) -> io::Result<()> {
        let root = self.root()?;
        match enter(&*root, PARTIAL) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            partial => remove(&partial?, transfer)?,
        }
        match rustix::fs::unlinkat(&*root, PARTIAL, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes all unfinished transfers but these.
    pub(crate) fn sweep(&self, in_use: &BTreeSet<String>) -> io::Result<()> {
        let names = match enter(&*self.root()?, PARTIAL) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            partial => list(&partial?)?,
        };
        let mut names = names.iter().map(|name| name.to_string_lossy()).filter(|name| !in_use.contains(&**name));
        names.try_for_each(|name| self.end(&name))
    }

    fn partial(&self, path: &[&str]) -> io::Result<OwnedFd> {
        let mut folder = enter(&*self.root()?, PARTIAL)?;
        for name in path {
            folder = enter(&folder, name)?;
        }
        Ok(folder)
    }

    fn folder<S: AsRef<str>>(&self, transfer: &str, path: &[S], make: bool) -> io::Result<OwnedFd> {
        let mut folder = self.partial(&[transfer])?;
        for name in path {
            folder = match enter(&folder, name.as_ref()) {
                Err(error) if make && error.kind() == io::ErrorKind::NotFound => {
                    // What others may do in it, the person's umask says.
                    self::make(&folder, name.as_ref(), Mode::from_raw_mode(0o777))?;
                    enter(&folder, name.as_ref())?
                }
                inner => inner?,
            };
        }
        Ok(folder)
    }
}

/// Gives a partial file its whole length, with the room for it taken from the disk at once where that is possible.
pub(crate) fn allocate(file: &File, size: u64) -> io::Result<()> {
    if file.metadata()?.len() == size {
        return Ok(());
    }
    if size > 0 {
        match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
            Err(error) => return Err(error.into()),
        }
    }
    file.set_len(size)
}

/// Gives a finished file its time, and lets those execute it who may read it.
pub(crate) fn dress(file: &File, mtime_ns: i64, executable: bool) -> io::Result<()> {
    if executable {
        let mode = file.metadata()?.permissions().mode();
        file.set_permissions(std::fs::Permissions::from_mode((mode | (mode & 0o444) >> 2) & 0o777))?;
    }
    set_time(file, mtime_ns)
}

fn set_time(file: &File, mtime_ns: i64) -> io::Result<()> {
    use rustix::fs::{Timespec, Timestamps, UTIME_OMIT};
    let time = Timespec { tv_sec: mtime_ns.div_euclid(1_000_000_000), tv_nsec: mtime_ns.rem_euclid(1_000_000_000) };
    let unchanged = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    Ok(rustix::fs::futimens(file, &Timestamps { last_access: unchanged, last_modification: time })?)
}

fn make_and_open(path: &Path) -> io::Result<OwnedFd> {
    std::fs::create_dir_all(path)?;
    // The folder itself may be a link: it was chosen by the person here.
    Ok(rustix::fs::open(path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

fn make(folder: impl AsFd, name: &str, mode: Mode) -> io::Result<()> {
    match rustix::fs::mkdirat(folder, name, mode) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn enter(folder: impl AsFd, name: &str) -> io::Result<OwnedFd> {
    rustix::fs::openat(folder, name, FOLDER, Mode::empty()).map_err(|error| match error {
        Errno::LOOP | Errno::NOTDIR => stranger(name),
        other => other.into(),
    })
}

fn open_file(folder: impl AsFd, name: &str, make: bool) -> io::Result<File> {
    // A pipe in its place must not hold the thread.
    let mut flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    if make {
        flags |= OFlags::CREATE;
    }
    let file = rustix::fs::openat(folder, name, flags, Mode::from_raw_mode(0o666)).map_err(|error| match error {
        Errno::LOOP | Errno::ISDIR | Errno::NXIO => stranger(name),
        other => other.into(),
    })?;
    let file = File::from(file);
    let metadata = file.metadata()?;
    // A second name would mean that the bytes land in a file that somebody else chose.
    if !metadata.is_file() || metadata.nlink() != 1 {
        return Err(stranger(name));
    }
    Ok(file)
}

fn stranger(name: &str) -> io::Error {
    io::Error::other(format!("something else lies in the place of the unfinished {name:?}"))
}

fn exists(folder: impl AsFd, name: &str) -> io::Result<bool> {
    inode(folder, name).map(|inode| inode.is_some())
}

fn inode(folder: impl AsFd, name: &str) -> io::Result<Option<u64>> {
    match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat.st_ino)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn is_folder(mode: rustix::fs::RawMode) -> bool {
    FileType::from_raw_mode(mode) == FileType::Directory
}

fn list(folder: impl AsFd) -> io::Result<Vec<std::ffi::OsString>> {
    use std::os::unix::ffi::OsStringExt as _;
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(std::ffi::OsString::from_vec(name));
        }
    }
    Ok(names)
}

/// Removes something with all that is in it, however deep, with two descriptors: a folder that is not empty is moved up
/// beside the first one before its turn comes. Links are removed, never followed.
fn remove(above: &OwnedFd, name: &str) -> io::Result<()> {
    let (first, mut moved) = (name, 0_u64);
    let mut waiting = vec![std::ffi::OsString::from(first)];
    while let Some(name) = waiting.pop() {
        match rustix::fs::unlinkat(above, &*name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
        let folder = rustix::fs::openat(above, &*name, FOLDER, Mode::empty())?;
        for inner in list(&folder)? {
            match rustix::fs::unlinkat(&folder, &*inner, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(Errno::ISDIR | Errno::PERM) => {}
                Err(error) => return Err(error.into()),
            }
            match rustix::fs::unlinkat(&folder, &*inner, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            let place = loop {
                moved += 1;
                let place = std::ffi::OsString::from(format!("{first}-{moved}"));
                match rustix::fs::renameat_with(&folder, &*inner, above, &*place, RenameFlags::NOREPLACE) {
                    Ok(()) => break place,
                    Err(Errno::EXIST | Errno::NOTEMPTY) => {}
                    Err(error) => return Err(error.into()),
                }
            };
            waiting.push(place);
        }
        drop(folder);
        match rustix::fs::unlinkat(above, &*name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
