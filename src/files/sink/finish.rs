//! The end of an incoming transfer: all is checked once more, synced, and gets its final names.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use file_transfer::Kind;
use serde::{Deserialize, Serialize};

use super::{SYNC_ALL, Sink, TREE};
use crate::files::FileError;
use crate::files::folder::dress;

/// Where the parts of a transfer go, kept with its records before the first of them is moved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Placement {
    /// For each file or folder at the top: its name in the transfer, its final name, its number on the file system.
    tops: Vec<(String, String, u64)>,
    /// All of them are there.
    pub(crate) done: bool,
}

impl Placement {
    /// What is told to people: the one thing that was placed, or the folder with all of them.
    pub(crate) fn path(&self, folder: &Path) -> PathBuf {
        match self.tops.as_slice() {
            [(_, to, _)] => folder.join(to),
            _ => folder.to_owned(),
        }
    }
}

impl Sink {
    /// Makes the final files appear. `placement` reads what was kept of an earlier attempt, `keep` must bring it to the
    /// disk for good before it returns. When this is done the files have their names for good; what is left of the
    /// transfer is removed with [`Sink::end`].
    ///
    /// # Errors
    /// When a chunk is not verified, or not what was verified any more. Then nothing appeared.
    pub(crate) fn finish(
        &self,
        placement: impl FnOnce() -> Result<Option<Placement>, FileError>,
        keep: impl Fn(&Placement) -> Result<(), FileError>,
    ) -> Result<Placement, FileError> {
        let _finishing = self.finishing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut placement = match placement()? {
            Some(placement) if placement.done => return Ok(placement),
            Some(placement) => placement,
            None => {
                self.stop();
                // What failed may be tried again, and may need a chunk again.
                self.complete().inspect_err(|_| self.lock().over = false)?;
                let placement = self.choose()?;
                keep(&placement)?;
                placement
            }
        };
        let at = |error| FileError::at(self.folder.path(), error);
        for top in 0..placement.tops.len() {
            let (name, to, inode) = placement.tops[top].clone();
            if self.folder.partial_inode(&self.name, &[TREE], &name).map_err(at)?.is_none() {
                // It was moved before a crash, or somebody took it away.
                match self.folder.inode(&to).map_err(at)? {
                    Some(there) if there == inode => continue,
                    _ => return Err(FileError::Damaged),
                }
            }
            while let Err(error) = self.folder.place(&self.name, &[TREE], &name, &placement.tops[top].1) {
                if error.kind() != io::ErrorKind::AlreadyExists {
                    return Err(at(error));
                }
                let others = placement.tops.iter().map(|(_, to, _)| to.clone()).collect::<BTreeSet<_>>();
                placement.tops[top].1 = self.folder.free_name(&name, |name| others.contains(name)).map_err(at)?;
                keep(&placement)?;
            }
        }
        self.folder.sync().map_err(at)?;
        placement.done = true;
        keep(&placement)?;
        Ok(placement)
    }

    /// Everything is there and right, has its time and mode, and is on the disk for good.
    fn complete(&self) -> Result<(), FileError> {
        let at = |error| FileError::at(self.folder.path(), error);
        let manifest = self.offer.manifest();
        let marks = self.journal()?.marks().map_err(at)?;
        if marks.len() as u64 != manifest.chunks() {
            return Err(FileError::Damaged);
        }
        if self.lock().doubtful {
            let mut damaged = false;
            for mark in marks {
                let Some(chunk) = manifest.chunk(mark.chunk) else { continue };
                if self.rehash(&chunk)? != mark.hash {
                    self.journal()?.unmark(mark.chunk).map_err(at)?;
                    damaged = true;
                }
            }
            if damaged {
                return Err(FileError::Damaged);
            }
        }
        for (index, entry) in manifest.entries().iter().enumerate() {
            match entry.kind {
                Kind::Folder => self.folder.make_partial(&self.name, &self.place(index)).map_err(at)?,
                Kind::File => {
                    let file = self.file(index as u32)?;
                    let dressed = dress(&file, entry.mtime_ns, entry.executable);
                    dressed.map_err(|error| self.error(index as u32, error))?;
                }
            }
        }
        // The deepest first: what is done inside a folder changes its own time.
        let folders = manifest.entries().iter().enumerate().filter(|(_, entry)| entry.kind == Kind::Folder);
        let mut folders = folders.collect::<Vec<_>>();
        folders.sort_by_key(|(_, entry)| std::cmp::Reverse(entry.path.len()));
        for (index, entry) in folders {
            self.folder.set_time(&self.name, &self.place(index), entry.mtime_ns).map_err(at)?;
        }
        // Our own changes must not look like those of a stranger if this is interrupted from here on.
        self.journal()?.touch().map_err(at)?;
        if manifest.entries().len() > SYNC_ALL {
            self.folder.sync_all().map_err(at)?;
            return Ok(());
        }
        for (index, entry) in manifest.entries().iter().enumerate() {
            if entry.kind == Kind::File {
                self.file(index as u32)?.sync_all().map_err(|error| self.error(index as u32, error))?;
            }
            let place = self.place(index);
            for end in 1..place.len() {
                self.folder.sync_partial(&self.name, &place[..end]).map_err(at)?;
            }
        }
        Ok(())
    }

    /// Picks the final names.
    fn choose(&self) -> Result<Placement, FileError> {
        let at = |error| FileError::at(self.folder.path(), error);
        let (mut placement, mut seen, mut taken) = (Placement::default(), BTreeSet::new(), BTreeSet::new());
        for top in self.paths.iter().filter_map(|path| path.first()) {
            if !seen.insert(top) {
                continue;
            }
            let inode = self.folder.partial_inode(&self.name, &[TREE], top).map_err(at)?.ok_or(FileError::Damaged)?;
            let to = self.folder.free_name(top, |name| taken.contains(name)).map_err(at)?;
            taken.insert(to.clone());
            placement.tops.push((top.clone(), to, inode));
        }
        Ok(placement)
    }
}
