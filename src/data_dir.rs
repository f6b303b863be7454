//! Where everything of a node lies, and that only one node uses it at a time.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy as _;
use etcetera::base_strategy::Xdg;

use crate::api::{ApiError, ErrorCode};

/// The folder's name within the XDG folders.
const APP: &str = "althing";

/// Longest path a Unix socket can have everywhere, in bytes: 104 with the closing zero on macOS, 108 on Linux.
const MAX_SOCKET_PATH: usize = 103;

/// Where everything of a node lies. All paths are absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// `config.toml`; it need not exist.
    pub config_file: PathBuf,
    /// The folder of what must not be lost.
    pub data_dir: PathBuf,
    /// `history.db`.
    pub database: PathBuf,
    /// `downloads`: where received files go.
    pub downloads: PathBuf,
    /// `transfers`: which transfers there are, and what each has.
    pub transfers: PathBuf,
    /// `identity.key`.
    pub identity: PathBuf,
    /// `lock`.
    pub lock: PathBuf,
    /// The folder of what may be lost: prompt history, logs.
    pub state_dir: PathBuf,
    /// `control.sock`. To bind or dial it, ask [`SocketPath::of`].
    pub socket: PathBuf,
    /// `--log-file`.
    pub log_file: Option<PathBuf>,
    /// `--output-dir`.
    pub output_dir: Option<PathBuf>,
}

impl Paths {
    /// Everything in one folder, as `--data-dir` wants it. A relative path is taken from the current folder.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Usage`] when there is no current folder.
    pub fn in_folder(folder: &Path) -> Result<Self, ApiError> {
        let folder = std::path::absolute(folder)
            .map_err(|error| ApiError::new(ErrorCode::Usage, format!("--data-dir {}: {error}", folder.display())))?;
        Ok(Self::of(folder.join("config.toml"), folder.clone(), folder.clone(), folder.join("control.sock")))
    }

    /// The folders of the XDG base directory specification. Where there is no runtime folder, the control socket lies
    /// with the data.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::General`] when there is no home folder.
    pub fn standard() -> Result<Self, ApiError> {
        let xdg = Xdg::new().map_err(|_| {
            ApiError::new(ErrorCode::General, "there is no home folder: set HOME, or give a folder with --data-dir")
        })?;
        let data_dir = xdg.data_dir().join(APP);
        let state_dir = xdg.state_dir().map_or_else(|| data_dir.clone(), |dir| dir.join(APP));
        let socket = xdg.runtime_dir().map_or_else(|| data_dir.clone(), |dir| dir.join(APP)).join("control.sock");
        Ok(Self::of(xdg.config_dir().join(APP).join("config.toml"), data_dir, state_dir, socket))
    }

    fn of(config_file: PathBuf, data_dir: PathBuf, state_dir: PathBuf, socket: PathBuf) -> Self {
        let in_data = |name| data_dir.join(name);
        let [database, identity, lock] = ["history.db", "identity.key", "lock"].map(in_data);
        let [downloads, transfers] = ["downloads", "transfers"].map(in_data);
        let (log_file, output_dir) = (None, None);
        Self {
            config_file,
            data_dir,
            database,
            downloads,
            transfers,
            identity,
            lock,
            state_dir,
            socket,
            log_file,
            output_dir,
        }
    }
}

/// The right to use a data dir, until it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
    /// Whether there already was a database.
    pub used_before: bool,
}

impl Lock {
    /// Create the folders of a node, open to their owner only, and take the data dir. The database is created empty, so
    /// that what SQLite puts into it is open to the owner only even in a folder that others may enter.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::DataDirInUse`] when another node has it; [`ErrorCode::General`] when it cannot be created or written.
    pub fn take(paths: &Paths) -> Result<Self, ApiError> {
        let folders = [Some(paths.data_dir.as_path()), Some(&paths.state_dir), paths.socket.parent()];
        for folder in folders.into_iter().flatten() {
            create_folder(folder)?;
        }
        let mut file = open_private(&paths.lock).map_err(|error| unusable(&paths.data_dir, &error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(in_use(&paths.data_dir, file)),
            Err(TryLockError::Error(error)) => return Err(unusable(&paths.data_dir, &error)),
        }
        // Who has it, for whoever comes second. It is only a help, so that a full disk does not matter.
        let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        let used_before = fs::metadata(&paths.database).is_ok_and(|file| file.len() > 0);
        open_private(&paths.database).map_err(|error| unusable(&paths.data_dir, &error))?;
        Ok(Self { _file: file, used_before })
    }
}

/// Create a folder and those above it, open to their owner only. One that exists is left as it is.
fn create_folder(folder: &Path) -> Result<(), ApiError> {
    let created = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    created.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => ApiError::new(
            ErrorCode::General,
            format!("{} is no folder: choose another one with --data-dir", folder.display()),
        ),
        _ => unusable(folder, &error),
    })
}

/// Open a file to write without changing what is in it; a new one is open to its owner only.
fn open_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn unusable(folder: &Path, error: &io::Error) -> ApiError {
    let message = format!(
        "cannot use the folder {}: {error}; make it writable, or choose another one with --data-dir",
        folder.display()
    );
    ApiError::new(ErrorCode::General, message)
}

fn in_use(folder: &Path, file: File) -> ApiError {
    let mut id = String::new();
    let known = file.take(16).read_to_string(&mut id).is_ok() && id.trim().parse::<u32>().is_ok();
    let process = if known { format!(" (process {})", id.trim()) } else { String::new() };
    let message = format!(
        "another node{process} runs on {}: give it commands with `node ctl`, or choose another folder with --data-dir",
        folder.display()
    );
    ApiError::new(ErrorCode::DataDirInUse, message)
}

/// A path under which the control socket can be bound and dialled.
///
/// The kernel takes no socket path longer than some hundred bytes, and a data dir may lie deeper. On Linux such a socket
/// is then reached through the open folder, as `/proc/self/fd/<n>/control.sock`: the socket still lies where it should,
/// and node and client need not agree on a second place. The path is good as long as this value lives.
#[derive(Debug)]
pub struct SocketPath {
    path: PathBuf,
    _folder: Option<File>,
}

impl SocketPath {
    /// The path to use for `socket`.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::NotRunning`] when the path is long and its folder cannot be opened; [`ErrorCode::Usage`] when it is
    /// too long for this system.
    pub fn of(socket: &Path) -> Result<Self, ApiError> {
        if socket.as_os_str().len() <= MAX_SOCKET_PATH {
            return Ok(Self { path: socket.to_owned(), _folder: None });
        }
        Self::through_folder(socket)
    }

    /// The path; good as long as this value lives.
    pub fn path(&self) -> &Path {
        &self.path
    }

    #[cfg(target_os = "linux")]
    fn through_folder(socket: &Path) -> Result<Self, ApiError> {
        use std::os::fd::AsRawFd as _;

        let (Some(folder), Some(name)) = (socket.parent(), socket.file_name()) else {
            return Err(ApiError::new(ErrorCode::Usage, format!("{} is no path of a socket", socket.display())));
        };
        let folder = File::open(folder).map_err(|error| {
            ApiError::new(ErrorCode::NotRunning, format!("no node runs on {}: {error}", folder.display()))
        })?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name);
        Ok(Self { path, _folder: Some(folder) })
    }

    #[cfg(not(target_os = "linux"))]
    fn through_folder(socket: &Path) -> Result<Self, ApiError> {
        let message = format!(
            "the path of the control socket {} is too long for this system: choose a shorter --data-dir (at most {MAX_SOCKET_PATH} bytes with the socket's name)",
            socket.display()
        );
        Err(ApiError::new(ErrorCode::Usage, message))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn one_node_a_folder() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::in_folder(&root.path().join("deep/er")).unwrap();
        let lock = Lock::take(&paths).unwrap();
        assert!(!lock.used_before);
        assert_eq!((mode(&paths.data_dir), mode(&paths.lock), mode(&paths.database)), (0o700, 0o600, 0o600));
        let error = Lock::take(&paths).unwrap_err();
        assert_eq!(error.code, ErrorCode::DataDirInUse);
        assert!(error.message.contains(&format!("process {}", std::process::id())), "{error}");
        assert!(error.message.contains("node ctl") && error.message.contains("deep/er"), "{error}");
        fs::write(&paths.database, "rows").unwrap();
        drop(lock);
        assert!(Lock::take(&paths).unwrap().used_before);
        assert_eq!(fs::read(&paths.database).unwrap(), b"rows");
    }

    #[test]
    fn what_is_no_folder_is_said() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        fs::write(&file, "").unwrap();
        for folder in [&file, &file.join("below")] {
            let error = Lock::take(&Paths::in_folder(folder).unwrap()).unwrap_err();
            assert_eq!(error.code, ErrorCode::General);
            assert!(error.message.contains("no folder") && error.message.lines().count() == 1, "{error}");
        }
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_said() {
        // Even root may not create anything here.
        let error = Lock::take(&Paths::in_folder(Path::new("/proc/self/althing")).unwrap()).unwrap_err();
        assert_eq!((error.code, error.message.lines().count()), (ErrorCode::General, 1), "{error}");
    }

    #[test]
    fn a_socket_in_a_deep_folder_can_be_reached() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::in_folder(&root.path().join("d".repeat(200)).join("e".repeat(200))).unwrap();
        assert_eq!(SocketPath::of(&paths.socket).unwrap_err().code, ErrorCode::NotRunning);
        let _lock = Lock::take(&paths).unwrap();
        let (server, client) = (SocketPath::of(&paths.socket).unwrap(), SocketPath::of(&paths.socket).unwrap());
        let _listener = UnixListener::bind(server.path()).unwrap();
        UnixStream::connect(client.path()).unwrap();
        assert!(paths.socket.exists());
        let short = Paths::in_folder(Path::new("/srv/node")).unwrap().socket;
        assert_eq!(SocketPath::of(&short).unwrap().path(), short);
    }
}
