//! Start a node: lock the data dir, load the identity, open the database, build the Swarm, listen, run the loop.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinHandle;

use crate::api::{ApiError, ErrorCode, Finding, Severity, Stamped};
use crate::config::Config;
use crate::data_dir::{Lock, Paths};
use crate::event_loop::{EventLoop, Parts};
use crate::files::Files;
use crate::handle::{COMMAND_QUEUE, EVENT_QUEUE, Handle};
use crate::storage::Storage;
use crate::{event_loop, files, identity, network};

/// Finished storage work that waits for the event loop; the storage thread waits when it is full.
const DONE_QUEUE: usize = 1_024;

/// A running node.
#[derive(Debug)]
pub struct Node {
    /// The door for front ends.
    pub handle: Handle,
    /// Everything that happens from the very first event on.
    pub events: broadcast::Receiver<Stamped>,
    /// What a person should read at the start: a port that fell over, a database that was set aside.
    pub notes: Vec<String>,
    /// What to wait for at the end.
    pub running: Running,
}

/// The node's task and its right to the data dir.
#[derive(Debug)]
pub struct Running {
    task: JoinHandle<()>,
    _lock: Lock,
}

impl Node {
    /// Start a node in the current tokio runtime. Fails without having changed anything but the data dir itself, whose
    /// boot counter may have risen.
    pub fn start(config: Config) -> Result<Self, ApiError> {
        let lock = Lock::take(&config.paths)?;
        let identity = identity::load_or_create(&config.paths.identity)?;
        if identity.fresh && lock.used_before {
            tracing::warn!("there is a history but no identity key: this node is a stranger to its old peers");
        }
        let key = identity.keypair;
        // The storage thread waits while the loop is busy; the loop never waits for the storage thread.
        let (done, done_receiver) = mpsc::channel(DONE_QUEUE);
        let (storage, opened) = Storage::open(&config.paths.database, done)?;
        let mut notes = Vec::new();
        if let Some(damaged) = &opened.damaged {
            notes.push(format!(
                "the database was damaged; it was set aside as {} and a new one begun",
                damaged.display()
            ));
        }
        let (files, restored, said) = Files::open(&config.paths.transfers, &config.paths.downloads)
            .map_err(|error| ApiError::new(ErrorCode::General, format!("files cannot be received: {error}")))?;
        notes.extend(said);
        let mut rng = StdRng::from_os_rng();
        let rng_seed = rng.random();
        let card = event_loop::sign_card(&key, &config, opened.boot, 0, Vec::new())?;
        let mut swarm = network::build(&key, &config, card, Arc::new(files.clone()), rng_seed)?;
        notes.extend(network::listen(&mut swarm, &config.listen)?);
        let (commands, commands_receiver) = mpsc::channel(COMMAND_QUEUE);
        let (events, first_events) = broadcast::channel(EVENT_QUEUE);
        let emitted = Arc::new(AtomicU64::new(0));
        let handle = Handle { commands, events: events.clone(), emitted: Arc::clone(&emitted) };
        let parts = Parts {
            swarm,
            storage,
            opened,
            files,
            restored,
            config,
            key,
            commands: commands_receiver,
            done: done_receiver,
            events,
            emitted,
            rng,
            rng_seed,
        };
        let event_loop = EventLoop::new(parts);
        let task = tokio::spawn(event_loop.run());
        Ok(Self { handle, events: first_events, notes, running: Running { task, _lock: lock } })
    }
}

impl Node {
    /// Read all of a pipe into a file among a node's transfers, so that it can be sent, and sent again from the middle after
    /// a restart. While the node runs: at its start it removes what no transfer sends. Waits for the pipe.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::General`] when the pipe cannot be read or the disk not written; then nothing stays.
    pub fn spool(paths: &Paths, mut pipe: &mut dyn io::Read) -> Result<PathBuf, ApiError> {
        files::spool(&paths.transfers, StdRng::from_os_rng().random(), &mut pipe)
            .map_err(|error| ApiError::new(ErrorCode::General, error.to_string()))
    }
}

/// What can be said of a node's folder while no node runs on it.
pub fn examine(config: &Config) -> Vec<Finding> {
    let finding = |severity, subject: &str, finding: String, advice: &str| Finding {
        severity,
        subject: subject.to_owned(),
        finding,
        advice: advice.to_owned(),
    };
    let mut findings = vec![finding(
        Severity::Warning,
        "node",
        format!("no node runs on {}", config.paths.data_dir.display()),
        "start one with `node`, or name its folder with --data-dir",
    )];
    // Looking must not leave a folder behind.
    let made = config.paths.data_dir.exists();
    findings.push(match made.then(|| Lock::take(&config.paths)) {
        None => finding(Severity::Ok, "folder", "it does not exist yet; the first start makes it".to_owned(), ""),
        Some(Ok(_)) => finding(Severity::Ok, "folder", "it can be written".to_owned(), ""),
        Some(Err(error)) => {
            finding(Severity::Error, "folder", error.message, "look at who owns the folder, and at its disk")
        }
    });
    findings.push(if config.paths.identity.exists() {
        match identity::load_or_create(&config.paths.identity) {
            Ok(identity) => {
                let id = identity.keypair.public().to_peer_id();
                finding(Severity::Ok, "identity", format!("the key is whole; the id is {id}"), "")
            }
            Err(error) => finding(Severity::Error, "identity", error.message, "put back a copy of the key"),
        }
    } else {
        finding(Severity::Ok, "identity", "there is no key yet; the first start makes one".to_owned(), "")
    });
    let seeds = config.seeds.len();
    findings.push(if seeds == 0 && !config.mdns {
        let advice = "start with --seed ADDRESS or --mdns on";
        finding(Severity::Warning, "seeds", "none is configured and LAN discovery is off".to_owned(), advice)
    } else {
        finding(Severity::Ok, "seeds", format!("{seeds} configured"), "")
    });
    findings.sort_by_key(|found| found.severity);
    findings
}

impl Running {
    /// Wait until the node has ended. An error says that it ended in a way it should not have.
    pub async fn ended(&mut self) -> Result<(), ApiError> {
        (&mut self.task).await.map_err(|_| {
            ApiError::new(ErrorCode::General, "the node's event loop panicked; please report what it printed")
        })
    }
}
