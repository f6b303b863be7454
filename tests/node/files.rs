//! Files between real nodes: everything that arrives is compared byte by byte.
//!
//! - `whole`: sizes, folders, many small files, nothing overwritten
//! - `crash`: SIGKILL of either end at random offsets
//! - `faults`: sources that change, receivers that freeze, full disks
//! - `names`: hostile names
//! - `policy`: who may send what, pause, resume, cancel
//! - `oneshot`: `node send` and `node recv` with all their exit statuses; `terminal`: their bar and their questions

mod crash;
mod faults;
mod names;
mod oneshot;
mod policy;
mod terminal;
mod whole;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use althing::frontend::child::{Child, ChildError};
use serde_json::Value;

use crate::harness::{Net, text};

/// How long a whole transfer may take on a busy machine; `scripts/soak` has larger ones.
fn patience() -> Duration {
    Duration::from_secs(number("ALTHING_TEST_PATIENCE").unwrap_or(60))
}

/// A number that `scripts/soak` sets.
fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// A seed, Ada who sends and Bob who receives, linked.
struct Pair {
    net: Net,
    ada: Child,
    bob: Child,
    bobs_args: Vec<String>,
    adas_args: Vec<String>,
}

impl Pair {
    /// Bob takes everything.
    async fn new(adas_args: &[&str]) -> Result<Self, ChildError> {
        Self::with(adas_args, &["--accept", "auto"]).await
    }

    async fn with(adas_args: &[&str], bobs_args: &[&str]) -> Result<Self, ChildError> {
        let owned = |args: &[&str]| args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>();
        let net = net().await?;
        let ada = net.peer("ada", adas_args)?;
        let mut bob = net.peer("bob", bobs_args)?;
        bob.ask("wait peer ada").await?;
        let mut pair = Self { net, ada, bob, bobs_args: owned(bobs_args), adas_args: owned(adas_args) };
        pair.ada.ask("wait peer bob").await?;
        Ok(pair)
    }

    /// Bob's process anew, on its old data.
    async fn restart_bob(&mut self) -> Result<(), ChildError> {
        let args: Vec<&str> = self.bobs_args.iter().map(String::as_str).collect();
        self.bob = self.net.peer("bob", &args)?;
        self.bob.wait("ready", |_| true).await.map(|_| ())
    }

    async fn restart_ada(&mut self) -> Result<(), ChildError> {
        let args: Vec<&str> = self.adas_args.iter().map(String::as_str).collect();
        self.ada = self.net.peer("ada", &args)?;
        self.ada.wait("ready", |_| true).await.map(|_| ())
    }

    /// Offer that to Bob; the transfer's id.
    async fn send(&mut self, path: &Path) -> Result<String, ChildError> {
        let sent = self.ada.ask(&format!("send {} bob", quoted(path))).await?;
        Ok(text(&sent, "id").to_owned())
    }

    /// The same, until Bob has it; its last event there.
    async fn deliver(&mut self, path: &Path) -> Result<Value, ChildError> {
        let id = self.send(path).await?;
        let there = reaches(&self.bob, 0, &id, "completed").await?;
        reaches(&self.ada, 0, &id, "completed").await?;
        Ok(there)
    }

    fn sources(&self) -> PathBuf {
        self.net.folder.path().join("sources")
    }

    fn downloads(&self) -> PathBuf {
        self.net.dir("bob").join("downloads")
    }
}

/// A seed, and a folder for what is sent, in memory where there is such a place: these tests are not about the disk.
async fn net() -> Result<Net, ChildError> {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let folder = folder.map_err(|error| ChildError(error.to_string()))?;
    let net = Net::in_folder(folder, 1).await?;
    std::fs::create_dir_all(net.folder.path().join("sources")).map_err(|error| ChildError(error.to_string()))?;
    Ok(net)
}

/// The event with which a transfer reaches a state, from that mark on.
async fn reaches(node: &Child, mark: usize, id: &str, state: &str) -> Result<Value, ChildError> {
    let fits = |event: &Value| event["id"] == id && event["state"] == state;
    node.wait_since(mark, patience(), "transfer", fits).await.map_err(|error| {
        let seen = node.events_since(mark).into_iter().filter(|event| event["type"] == "transfer");
        let seen = seen.map(|event| format!("{} {} {}", event["state"], event["bytes"], event["reason"]));
        ChildError(format!("{error}: {id} {state}; it saw {:?}", seen.collect::<Vec<_>>()))
    })
}

/// The first event that says that at least so many bytes are verified.
async fn verified(node: &Child, mark: usize, id: &str, bytes: u64) -> Result<Value, ChildError> {
    let fits = |event: &Value| event["id"] == id && event["bytes"].as_u64() >= Some(bytes);
    node.wait_since(mark, patience(), "transfer", fits).await
}

/// Bytes that look like nothing else, the same for the same seed (SplitMix64, which is fast without optimisation too).
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bytes.extend_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A file of noise.
fn fill(path: PathBuf, seed: u64, length: usize) -> std::io::Result<PathBuf> {
    std::fs::write(&path, noise(seed, length))?;
    Ok(path)
}

fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

/// Everything below a folder: path from there, and content; `None` for a folder without anything in it. What is no file and
/// no folder is not looked into.
fn tree(folder: &Path) -> std::io::Result<BTreeMap<String, Option<Vec<u8>>>> {
    fn gather(root: &Path, folder: &Path, found: &mut BTreeMap<String, Option<Vec<u8>>>) -> std::io::Result<()> {
        let entries = std::fs::read_dir(folder)?.collect::<std::io::Result<Vec<_>>>()?;
        for entry in &entries {
            let (path, kind) = (entry.path(), entry.file_type()?);
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            if kind.is_dir() {
                gather(root, &path, found)?;
            } else {
                found.insert(name, if kind.is_file() { Some(std::fs::read(&path)?) } else { None });
            }
        }
        if entries.is_empty() && folder != root {
            found.insert(folder.strip_prefix(root).unwrap_or(folder).to_string_lossy().into_owned(), None);
        }
        Ok(())
    }
    let mut found = BTreeMap::new();
    gather(folder, folder, &mut found)?;
    Ok(found)
}
