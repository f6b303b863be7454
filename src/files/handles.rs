//! The files that are open. Few at a time, because a process may open only so many and the links need theirs.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use file_transfer::TransferId;

use super::FileError;

/// Files kept open, of all transfers together. The one that was not used for longest is closed for another; a job that
/// still works with it keeps it open as long.
pub(crate) const OPEN_FILES: usize = 16;

/// Stands for the journal of a transfer where the number of a file would.
pub(crate) const JOURNAL: u32 = u32::MAX;

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Handles(Mutex<Open>);

#[derive(Debug, Default)]
struct Open {
    files: BTreeMap<(TransferId, u32), (u64, Arc<File>)>,
    /// Rises with each use.
    uses: u64,
}

impl Handles {
    /// The open file of that number, which is opened if need be.
    pub(crate) fn get(
        &self,
        key: (TransferId, u32),
        mut open: impl FnMut() -> Result<File, FileError>,
    ) -> Result<Arc<File>, FileError> {
        {
            let mut state = self.lock();
            state.uses += 1;
            let now = state.uses;
            if let Some((used, file)) = state.files.get_mut(&key) {
                *used = now;
                return Ok(Arc::clone(file));
            }
        }
        // Not under the lock: a disk may take its time. Two that open the same file do no harm.
        let file = match open() {
            Err(error) if error.is_too_many_open() => {
                self.lock().files.clear();
                open()?
            }
            file => file?,
        };
        let file = Arc::new(file);
        let mut state = self.lock();
        if state.files.len() >= OPEN_FILES {
            let oldest = state.files.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| *key);
            oldest.and_then(|key| state.files.remove(&key));
        }
        let now = state.uses;
        state.files.insert(key, (now, Arc::clone(&file)));
        Ok(file)
    }

    /// Closes what is open of one transfer.
    pub(crate) fn close(&self, transfer: TransferId) {
        self.lock().files.retain(|(of, _), _| *of != transfer);
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_open_and_the_oldest_goes() {
        let handles = Handles::default();
        let id = TransferId([1; 16]);
        let mut opened = 0;
        let mut get = |file| {
            let before = opened;
            handles
                .get((id, file), || {
                    opened += 1;
                    Ok(tempfile::tempfile().unwrap())
                })
                .unwrap();
            opened > before
        };
        for file in 0..OPEN_FILES as u32 {
            assert!(get(file));
        }
        assert!(!get(0));
        assert!(get(100));
        assert!(!get(0) && get(1));
        handles.close(id);
        assert!(handles.lock().files.is_empty());
    }
}
