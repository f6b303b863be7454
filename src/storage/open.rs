//! Finding, checking and making the database, and counting the starts.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use libp2p::PeerId;
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use rusqlite_migration::{M, Migrations};

use super::thread::{Db, WaitingCount};
use super::{StorageError, StoredPeer};

/// The schema, one step a file. A step that was released is never changed: what is new is a new step.
const MIGRATIONS: &[M<'static>] = &[M::up(include_str!("migrations/0001-first.sql"))];

/// The schema version this program makes, which SQLite keeps as `user_version`.
pub(super) const SCHEMA: i64 = MIGRATIONS.len() as i64;

/// How long a statement waits for another program that has locked the database, for example a backup.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// Memory for cached pages, in KiB. Small, because an idle node stays under 20 MB.
const CACHE_KIB: i64 = 1024;

/// Up to this size the WAL file is kept between checkpoints, in bytes; beyond it is cut back.
const WAL_KEPT_BYTES: i64 = 16 * 1024 * 1024;

/// Prepared statements that are kept.
const STATEMENTS: usize = 64;

/// The highest plausible start count. A higher one is damage: it would not survive a JSON number.
const MAX_BOOT: u64 = 1 << 53;

/// What a user writes into the file beside the database when the data dir comes from an older copy, so that the count
/// is lower than what others remember.
pub(crate) const RESTORED: &str = "restored";

/// What was found at the start.
#[derive(Debug)]
pub(crate) struct Opened {
    /// How often this node has started, this time included. Rises with every open, even over a damaged database, and
    /// is on the disk before anybody sees it.
    pub(crate) boot: u64,
    /// Where the database lies that was found damaged and replaced by an empty one.
    pub(crate) damaged: Option<PathBuf>,
    /// Everybody known, the last seen first. At most 10,000 and those that are trusted, blocked or waited for.
    pub(crate) peers: Vec<StoredPeer>,
    /// The identities learnt of seeds that were configured without one, with the address as configured.
    pub(crate) seed_pins: Vec<(String, PeerId)>,
    /// The signed bytes of broadcasts that are kept.
    pub(crate) broadcasts: Vec<Vec<u8>>,
    /// What is thought of others, as it was saved.
    pub(crate) standings: Vec<(PeerId, Vec<u8>)>,
    /// No broadcast was ever stored here.
    pub(crate) newcomer: bool,
    /// The peers for whom messages wait, and how many.
    pub(crate) pending: Vec<(PeerId, u64)>,
}

/// See [`super::Storage::open`].
pub(super) fn open(path: &Path) -> Result<(Db, Opened), StorageError> {
    let boot_path = path.with_file_name("boot");
    let counted = read_boot(&boot_path);
    let (mut conn, damaged) = match connect(path, &counted) {
        Err(OpenError::Damaged(why)) => {
            let aside = set_aside(path)?;
            tracing::error!(
                "the database {} is damaged ({why}): it was set aside as {}",
                path.display(),
                aside.display()
            );
            let conn = connect(path, &Counted::Nothing).map_err(|error| match error {
                OpenError::Damaged(why) => StorageError::Damaged(why),
                OpenError::Other(error) => error,
            })?;
            (conn, Some(aside))
        }
        Err(OpenError::Other(error)) => return Err(error),
        Ok(conn) => (conn, None),
    };
    let boot = count_start(&mut conn, &boot_path, &counted, damaged.is_some())?;
    let mut db = Db { conn, waiting: None };
    let waiting = db.waiting()?;
    let pending = waiting.by_peer.iter().map(|(peer, count)| (*peer, *count)).collect();
    let (broadcasts, newcomer) = db.broadcasts()?;
    let standings = db.standings()?;
    let (peers, seed_pins) = (db.peers()?, db.seed_pins()?);
    Ok((db, Opened { boot, damaged, peers, seed_pins, broadcasts, standings, newcomer, pending }))
}

/// What the file beside the database says about earlier starts.
enum Counted {
    /// There is no such file.
    Nothing,
    /// It cannot be understood.
    Corrupt,
    /// It says [`RESTORED`].
    Restored,
    /// So often.
    Times(u64),
}

enum OpenError {
    Damaged(String),
    Other(StorageError),
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        match StorageError::from(error) {
            StorageError::Damaged(why) => Self::Damaged(why),
            error => Self::Other(error),
        }
    }
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        Self::Other(error.into())
    }
}

fn connect(path: &Path, counted: &Counted) -> Result<Connection, OpenError> {
    let newer =
        |found| OpenError::Other(StorageError::Newer { path: path.display().to_string(), found, known: SCHEMA });
    match schema_in_header(path)? {
        Header::Missing => create_private(path)?,
        // A kill between making the file and its first page leaves an empty one; once the starts were counted, though,
        // there was something in it.
        Header::Empty if !matches!(counted, Counted::Nothing) => {
            return Err(OpenError::Damaged("it is empty".into()));
        }
        Header::Empty => {}
        Header::Foreign => return Err(OpenError::Damaged("it is no SQLite database".into())),
        Header::Schema(found) if found > SCHEMA => return Err(newer(found)),
        Header::Schema(_) => {}
    }
    let mut conn = Connection::open(path)?;
    conn.busy_timeout(LOCK_PATIENCE)?;
    // Until it is known that the database is ours, closing it must not write the WAL into it.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    let found = conn.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found > SCHEMA {
        return Err(newer(found));
    }
    let verdict: String = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(OpenError::Damaged(verdict));
    }
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;

    let mode: String = conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        tracing::warn!("this file system offers no write-ahead log; the database works without one, slower ({mode})");
    }
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.pragma_update(None, "foreign_keys", true)?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    conn.pragma_update(None, "cache_size", -CACHE_KIB)?;
    conn.pragma_update_and_check(None, "journal_size_limit", WAL_KEPT_BYTES, |_| Ok(()))?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    match Migrations::from_slice(MIGRATIONS).to_latest(&mut conn) {
        Ok(()) => {}
        Err(rusqlite_migration::Error::RusqliteError { err, .. }) => return Err(err.into()),
        Err(error) => return Err(OpenError::Other(StorageError::Sqlite(error.to_string()))),
    }
    sync_folder(path)?;
    Ok(conn)
}

enum Header {
    Missing,
    Empty,
    /// Not the header of a SQLite database.
    Foreign,
    /// The `user_version` of the main file; a later one may still be in the WAL.
    Schema(i64),
}

/// The schema version out of the file itself (SQLite file format, section 1.3), so that a newer database is not even
/// opened.
fn schema_in_header(path: &Path) -> io::Result<Header> {
    let mut header = Vec::with_capacity(100);
    match File::open(path) {
        Ok(file) => file.take(100).read_to_end(&mut header)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Header::Missing),
        Err(error) => return Err(error),
    };
    if header.is_empty() {
        return Ok(Header::Empty);
    }
    Ok(match (header.starts_with(b"SQLite format 3\0"), header.get(60..64).and_then(|bytes| bytes.try_into().ok())) {
        (true, Some(bytes)) => Header::Schema(i64::from(i32::from_be_bytes(bytes))),
        _ => Header::Foreign,
    })
}

/// Make the empty file that only its owner may read; SQLite gives the files beside it the same mode.
fn create_private(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

/// Rename a damaged database and the two files SQLite keeps beside it, so that they still belong together.
fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let suffixed = |base: &Path, suffix: &str| {
        let mut name = base.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let stem = suffixed(path, &jiff::Timestamp::now().strftime(".damaged-%Y%m%dT%H%M%SZ").to_string());
    let mut aside = stem.clone();
    let mut copy = 1;
    while aside.try_exists()? {
        copy += 1;
        aside = suffixed(&stem, &format!("-{copy}"));
    }
    // The database goes last: as long as it is in place, the next start finds it damaged and tries again.
    for suffix in ["-wal", "-shm", ""] {
        match fs::rename(suffixed(path, suffix), suffixed(&aside, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    sync_folder(path)?;
    Ok(aside)
}

/// Count this start, in the database and beside it, so that the count survives the loss of either.
fn count_start(conn: &mut Connection, path: &Path, counted: &Counted, lost: bool) -> Result<u64, StorageError> {
    let plausible = |count: i64| u64::try_from(count).ok().filter(|count| *count < MAX_BOOT);
    let transaction = conn.transaction()?;
    let in_database = match transaction.query_row("SELECT value FROM meta WHERE key = 'boot'", [], |row| row.get(0)) {
        Ok(count) => plausible(count),
        Err(rusqlite::Error::QueryReturnedNoRows) => None,
        Err(error) => return Err(error.into()),
    };
    let last = match (in_database, counted) {
        (Some(count), Counted::Times(times)) => count.max(*times),
        (Some(count), Counted::Restored) => count.max(unix_seconds()),
        (Some(count), _) => count,
        (None, Counted::Times(times)) => *times,
        // Nobody knows how often it was; no node starts once a second, so this is more.
        (None, Counted::Corrupt | Counted::Restored) => unix_seconds(),
        (None, Counted::Nothing) if lost => unix_seconds(),
        (None, Counted::Nothing) => 0,
    };
    let boot = last + 1;
    set_meta(&transaction, "boot", boot)?;
    if lost || matches!(counted, Counted::Restored) {
        // The numbers given to messages are lost as well, and must not go back either.
        let floor = unix_seconds() * 1000;
        set_meta(&transaction, "sequence_floor", floor)?;
        transaction.execute("UPDATE sequences SET last = max(last, ?1)", [super::to_sql(floor)])?;
    }
    transaction.commit()?;
    write_boot(path, boot)?;
    Ok(boot)
}

fn set_meta(conn: &Connection, key: &str, value: u64) -> Result<(), StorageError> {
    let sql = "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
    conn.execute(sql, (key, super::to_sql(value)))?;
    Ok(())
}

fn unix_seconds() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0)
}

/// The count and its complement, so that damage shows.
fn boot_line(boot: u64) -> String {
    format!("{boot} {:016x}\n", !boot)
}

fn read_boot(path: &Path) -> Counted {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(64).read_to_string(&mut text));
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Counted::Nothing,
        Err(_) => return Counted::Corrupt,
        Ok(_) => {}
    }
    if text.trim() == RESTORED {
        return Counted::Restored;
    }
    let boot = text.split(' ').next().and_then(|number| number.parse().ok());
    match boot {
        Some(boot) if boot < MAX_BOOT && text == boot_line(boot) => Counted::Times(boot),
        _ => Counted::Corrupt,
    }
}

fn write_boot(path: &Path, boot: u64) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(boot_line(boot).as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    sync_folder(path)
}

/// Make new names in the folder of `path` durable.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

impl Db {
    /// The messages that wait, counted when that is not known.
    pub(super) fn waiting(&mut self) -> Result<&mut WaitingCount, StorageError> {
        let counted = match self.waiting.take() {
            Some(counted) => counted,
            None => {
                let mut counted = WaitingCount::default();
                let mut query = self.conn.prepare_cached("SELECT peer, count(*) FROM outbox GROUP BY peer")?;
                for row in query.query_map([], |row| Ok((super::digest::text(row, 0)?, row.get(1)?)))? {
                    let (peer, count) = row?;
                    counted.total += super::from_sql(count);
                    if let Some(peer) = super::peers::parse(&peer) {
                        counted.by_peer.insert(peer, super::from_sql(count));
                    }
                }
                counted
            }
        };
        Ok(self.waiting.insert(counted))
    }
}
