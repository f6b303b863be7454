//! Networks of real nodes in throw-away folders.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use althing::frontend::child::{Child, ChildError};
use serde_json::Value;

/// The program under test.
pub(crate) const NODE: &str = env!("CARGO_BIN_EXE_node");

/// Everything a test may fail with; the text says what was waited for.
pub(crate) type TestResult = Result<(), Box<dyn std::error::Error>>;

/// Seeds and peers in one temporary folder, which goes when the test ends.
pub(crate) struct Net {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) seeds: Vec<Child>,
    pub(crate) addresses: Vec<String>,
}

impl Net {
    /// So many seeds, listening.
    pub(crate) async fn with_seeds(seeds: usize) -> Result<Self, ChildError> {
        Self::with_seeds_and(seeds, &[]).await
    }

    /// The same, with further arguments for each seed.
    pub(crate) async fn with_seeds_and(seeds: usize, args: &[&str]) -> Result<Self, ChildError> {
        let folder = tempfile::tempdir().map_err(|error| ChildError(error.to_string()))?;
        Self::start(folder, seeds, args).await
    }

    /// The same in a folder of the test's own choice.
    pub(crate) async fn in_folder(folder: tempfile::TempDir, seeds: usize) -> Result<Self, ChildError> {
        Self::start(folder, seeds, &[]).await
    }

    async fn start(folder: tempfile::TempDir, seeds: usize, args: &[&str]) -> Result<Self, ChildError> {
        let mut net = Self { folder, seeds: Vec::new(), addresses: Vec::new() };
        for number in 0..seeds {
            let name = format!("seed{number}");
            let args = ["--role", "seed"].iter().chain(args).copied();
            let seed = Child::spawn(Path::new(NODE), &name, &net.dir(&name), args)?;
            net.addresses.push(seed.address().await?);
            net.seeds.push(seed);
        }
        Ok(net)
    }

    /// The data dir of the node of that name.
    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A peer that knows all the seeds, with further arguments. A name that ran before starts again on its old data.
    pub(crate) fn peer(&self, name: &str, args: &[&str]) -> Result<Child, ChildError> {
        let seeds = self.addresses.iter().flat_map(|address| ["--seed", address.as_str()]);
        Child::spawn(Path::new(NODE), name, &self.dir(name), seeds.chain(args.iter().copied()))
    }

    /// The same, once it is ready and has met the peers of these names.
    pub(crate) async fn peer_that_met(&self, name: &str, others: &[&str]) -> Result<Child, ChildError> {
        let mut peer = self.peer(name, &[])?;
        for other in others {
            peer.ask(&format!("wait peer {other}")).await?;
        }
        Ok(peer)
    }
}

/// A string field of an event.
pub(crate) fn text<'a>(event: &'a Value, field: &str) -> &'a str {
    event[field].as_str().unwrap_or_default()
}

/// The distinct seeds a peer has said to be registered with.
pub(crate) fn registered(peer: &Child) -> std::collections::BTreeSet<String> {
    let seeds =
        peer.events_since(0).into_iter().filter(|event| event["type"] == "seed" && event["state"] == "registered");
    seeds.map(|event| text(&event, "address").to_owned()).collect()
}

/// Wait until a peer has said that it is registered with so many distinct seeds.
pub(crate) async fn wait_registered(peer: &Child, count: usize) -> Result<(), ChildError> {
    loop {
        let known = registered(peer);
        if known.len() >= count {
            return Ok(());
        }
        peer.wait("seed", |event| event["state"] == "registered" && !known.contains(text(event, "address"))).await?;
    }
}

/// Run the program to its end with these arguments and nothing on stdin.
pub(crate) async fn run(args: &[&str]) -> Result<Output, ChildError> {
    run_with_input(args, b"").await
}

/// Run the program to its end with these arguments and that on stdin.
pub(crate) async fn run_with_input(args: &[&str], input: &[u8]) -> Result<Output, ChildError> {
    use tokio::io::AsyncWriteExt;
    let failed = |error: std::io::Error| ChildError(format!("node {}: {error}", args.join(" ")));
    let mut child = tokio::process::Command::new(NODE)
        .args(args)
        .env("NO_COLOR", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that refuses its arguments does not read what it is given.
        let _ = stdin.write_all(input).await;
    }
    tokio::time::timeout(Duration::from_secs(60), child.wait_with_output())
        .await
        .map_err(|_| ChildError(format!("node {} did not end in 60 s", args.join(" "))))?
        .map_err(failed)
}

/// Send a signal to a process by its id.
pub(crate) fn signal(child: &Child, signal: &str) -> Result<(), ChildError> {
    let pid = child.pid().ok_or_else(|| ChildError(format!("{} has ended already", child.name)))?;
    let status = std::process::Command::new("kill").arg(format!("-{signal}")).arg(pid.to_string()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        _ => Err(ChildError(format!("{signal} could not be sent to {}", child.name))),
    }
}
