//! The node's Ed25519 key in `identity.key`: libp2p's protobuf encoding of a key pair, which holds the public key beside
//! the secret, so that damage to either is seen. Mode 0600.
//!
//! A file that does not check out is refused and left as it is. Inventing a new identity in its place would make the node
//! a stranger to everybody who knows it.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use libp2p::identity::{KeyType, Keypair};

use crate::api::{ApiError, ErrorCode};

/// More than any encoding of a key that libp2p knows, in bytes. Ours has 68.
const MAX_KEY_BYTES: u64 = 16 * 1024;

/// The key, and whether it was made just now.
#[derive(Debug)]
pub(crate) struct Identity {
    /// The key.
    pub(crate) keypair: Keypair,
    /// There was no file, so that this is a new node.
    pub(crate) fresh: bool,
}

/// Load the key, or create it when there is no file. The data dir must be held, see [`Lock`](crate::data_dir::Lock).
///
/// A file that others may read is closed to them, with a warning in the log.
///
/// # Errors
///
/// [`ErrorCode::Integrity`] when the file holds no whole Ed25519 key, and the file is as it was;
/// [`ErrorCode::General`] when it cannot be read or written.
pub(crate) fn load_or_create(path: &Path) -> Result<Identity, ApiError> {
    match File::open(path) {
        Ok(file) => Ok(Identity { keypair: load(path, file)?, fresh: false }),
        // A link that leads nowhere is a key that is away, for example on a disk that is not mounted.
        Err(error) if error.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(path).is_err() => {
            let keypair = Keypair::generate_ed25519();
            create(path, &keypair).map_err(|error| general("write", path, &error))?;
            Ok(Identity { keypair, fresh: true })
        }
        Err(error) => Err(general("read", path, &error)),
    }
}

fn load(path: &Path, file: File) -> Result<Keypair, ApiError> {
    let metadata = file.metadata().map_err(|error| general("read", path, &error))?;
    if !metadata.is_file() {
        return Err(damaged(path, "is no file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_KEY_BYTES).read_to_end(&mut bytes).map_err(|error| general("read", path, &error))?;
    let keypair = decode(&bytes).map_err(|why| damaged(path, why))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        match fs::set_permissions(path, Permissions::from_mode(0o600)) {
            Ok(()) => tracing::warn!("{} was open to others (mode {mode:04o}); it is 0600 now", path.display()),
            Err(error) => tracing::warn!("{} is open to others (mode {mode:04o}): {error}", path.display()),
        }
    }
    Ok(keypair)
}

/// A key whose encoding is exactly those bytes: nothing is missing, added, or said in another way.
fn decode(bytes: &[u8]) -> Result<Keypair, &'static str> {
    if bytes.is_empty() {
        return Err("is empty");
    }
    let keypair = Keypair::from_protobuf_encoding(bytes).map_err(|_| "holds no whole Ed25519 key")?;
    if keypair.key_type() != KeyType::Ed25519 {
        return Err("holds a key of another kind than Ed25519");
    }
    match keypair.to_protobuf_encoding() {
        Ok(encoded) if encoded == bytes => Ok(keypair),
        _ => Err("holds more than an Ed25519 key"),
    }
}

/// Write the key so that after a crash there is either the whole file or none.
fn create(path: &Path, keypair: &Keypair) -> io::Result<()> {
    let bytes = keypair.to_protobuf_encoding().map_err(io::Error::other)?;
    let temporary = path.with_extension("key.tmp");
    // What an earlier start left half-written. The data dir is held, so nobody else is writing it.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = write_new(&temporary, &bytes).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
        return written;
    }
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn general(verb: &str, path: &Path, error: &io::Error) -> ApiError {
    ApiError::new(ErrorCode::General, format!("cannot {verb} the identity key {}: {error}", path.display()))
}

fn damaged(path: &Path, why: &str) -> ApiError {
    let message = format!(
        "the identity key {} {why}, and was left as it is: put a copy of the good one in its place, or move it away to start as a new node",
        path.display()
    );
    ApiError::new(ErrorCode::Integrity, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_key_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.key");
        fs::write(path.with_extension("key.tmp"), "half").unwrap();
        let first = load_or_create(&path).unwrap();
        let second = load_or_create(&path).unwrap();
        assert!(first.fresh && !second.fresh);
        assert_eq!(first.keypair.public(), second.keypair.public());
        assert_eq!((mode(&path), fs::metadata(&path).unwrap().len()), (0o600, 68));
        assert!(!path.with_extension("key.tmp").exists());
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let good = Keypair::generate_ed25519().to_protobuf_encoding().unwrap();
        assert!(decode(&good).is_ok());
        for index in 0..good.len() {
            for bit in 0..8 {
                let mut bytes = good.clone();
                bytes[index] ^= 1 << bit;
                assert!(decode(&bytes).is_err(), "byte {index} bit {bit}");
            }
        }
    }

    #[test]
    fn a_file_that_does_not_check_out_is_refused_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.key");
        let good = Keypair::generate_ed25519().to_protobuf_encoding().unwrap();
        let mut longer = good.clone();
        // A field that protobuf would skip.
        longer.extend([0x1a, 1, 0]);
        // An RSA key's protobuf header; the type is all that counts.
        let rsa = [8, 0, 18, 2, 1, 2].to_vec();
        let cases = (0..good.len()).map(|length| good[..length].to_vec()).chain([
            b"garbage".to_vec(),
            longer,
            rsa,
            vec![0; 100_000],
        ]);
        for bytes in cases {
            fs::write(&path, &bytes).unwrap();
            let error = load_or_create(&path).unwrap_err();
            assert_eq!((error.code, error.message.lines().count()), (ErrorCode::Integrity, 1), "{error}");
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(load_or_create(&path).unwrap_err().code, ErrorCode::Integrity);
    }

    #[test]
    fn a_key_that_is_away_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.key");
        std::os::unix::fs::symlink(folder.path().join("unmounted/identity.key"), &path).unwrap();
        assert_eq!(load_or_create(&path).unwrap_err().code, ErrorCode::General);
        assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
    }

    #[test]
    fn a_key_that_others_may_read_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.key");
        load_or_create(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        load_or_create(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn a_folder_that_is_away_is_said() {
        let error = load_or_create(Path::new("/nonexistent/identity.key")).unwrap_err();
        assert_eq!((error.code, error.message.lines().count()), (ErrorCode::General, 1));
    }
}
