//! A node as a child process that is driven through `--json`, as the demo and the integration tests do.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking::Log;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{ChildStdin, Command};

/// How long a reply or an event is waited for, unless said otherwise.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running node.
#[derive(Debug)]
pub struct Child {
    /// Its nickname.
    pub name: String,
    /// Its data dir, which outlives it.
    pub data_dir: PathBuf,
    process: tokio::process::Child,
    stdin: Option<ChildStdin>,
    log: Arc<Log>,
    asked: u64,
}

/// What went wrong with a child, as one sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ChildError(pub String);

impl Child {
    /// Start `binary` with that name and data dir, on loopback with LAN discovery off. Its errors go to `stderr.txt` in
    /// the data dir, appended. It is killed when the value is dropped.
    pub fn spawn<A: Into<OsString>>(
        binary: &Path,
        name: &str,
        data_dir: &Path,
        args: impl IntoIterator<Item = A>,
    ) -> Result<Self, ChildError> {
        let failed = |what: &str, error: std::io::Error| ChildError(format!("{name}: {what}: {error}"));
        std::fs::create_dir_all(data_dir).map_err(|error| failed("no data dir", error))?;
        let stderr = std::fs::File::options()
            .create(true)
            .append(true)
            .open(data_dir.join("stderr.txt"))
            .map_err(|error| failed("no stderr.txt", error))?;
        let mut command = Command::new(binary);
        for variable in foreign_settings() {
            command.env_remove(variable);
        }
        let mut process = command
            .args(["--json", "--mdns", "off", "--listen", "/ip4/127.0.0.1/tcp/0", "--name", name, "--data-dir"])
            .arg(data_dir)
            .args(args.into_iter().map(Into::into))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed("it cannot be started", error))?;
        let log = Arc::new(Log::default());
        if let Some(stdout) = process.stdout.take() {
            let log = Arc::clone(&log);
            tokio::spawn(async move {
                let mut lines = BufReader::new(stdout).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    log.push(serde_json::from_str(&line).unwrap_or_else(|_| json!({"type": "not JSON", "line": line})));
                }
                log.close();
            });
        }
        let stdin = process.stdin.take();
        Ok(Self { name: name.to_owned(), data_dir: data_dir.to_owned(), process, stdin, log, asked: 0 })
    }

    /// Where the events stand now: only what comes after is looked at by [`Child::wait_since`].
    pub fn mark(&self) -> usize {
        self.log.len()
    }

    /// Every event so far from that mark on.
    pub fn events_since(&self, mark: usize) -> Vec<Value> {
        self.log.since(mark)
    }

    /// Wait until there are events from that mark on; for ever when it has ended without.
    pub async fn more_than(&self, mark: usize) {
        if !self.log.grows(mark).await {
            std::future::pending::<()>().await;
        }
    }

    /// The first event of that type that `fits`, from the very beginning.
    pub async fn wait(&self, kind: &str, fits: impl Fn(&Value) -> bool) -> Result<Value, ChildError> {
        self.wait_since(0, PATIENCE, kind, fits).await
    }

    /// The first event of that type that `fits`, from that mark on.
    pub async fn wait_since(
        &self,
        mark: usize,
        patience: Duration,
        kind: &str,
        fits: impl Fn(&Value) -> bool,
    ) -> Result<Value, ChildError> {
        let found =
            tokio::time::timeout(patience, self.log.first(mark, |event| event["type"] == kind && fits(event))).await;
        match found {
            Ok(Some(event)) => Ok(event),
            Ok(None) => Err(ChildError(format!("{} ended while a '{kind}' event was waited for", self.name))),
            Err(_) => Err(ChildError(format!("{} saw no such '{kind}' event in {} s", self.name, patience.as_secs()))),
        }
    }

    /// Give a command and return the data of its reply; a reply that is an error is an error.
    pub async fn ask(&mut self, command: &str) -> Result<Value, ChildError> {
        let reply = self.reply_to(command).await?;
        if reply["ok"] == true {
            Ok(reply["data"].clone())
        } else {
            Err(ChildError(format!(
                "{}: `{command}`: {}",
                self.name,
                reply["error"]["message"].as_str().unwrap_or("no reason")
            )))
        }
    }

    /// Give a command and return its whole reply event.
    pub async fn reply_to(&mut self, command: &str) -> Result<Value, ChildError> {
        let (mark, id) = self.tell(command).await?;
        self.wait_since(mark, PATIENCE, "reply", |event| event["id"] == id.as_str()).await
    }

    /// Give a command without waiting. Returns the mark before it and the id its reply will bear.
    pub async fn tell(&mut self, command: &str) -> Result<(usize, String), ChildError> {
        self.asked += 1;
        let id = format!("{}-{}", self.name, self.asked);
        let mark = self.mark();
        let line = format!("{}\n", json!({"id": id, "cmd": command}));
        self.write(line.as_bytes()).await?;
        Ok((mark, id))
    }

    /// Write bytes to its stdin as they are.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), ChildError> {
        let gone = || ChildError(format!("{} takes no commands any more", self.name));
        let stdin = self.stdin.as_mut().ok_or_else(gone)?;
        stdin.write_all(bytes).await.map_err(|_| gone())?;
        stdin.flush().await.map_err(|_| gone())
    }

    /// Close its stdin.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Its PeerId.
    pub async fn peer_id(&self) -> Result<String, ChildError> {
        let ready = self.wait("ready", |_| true).await?;
        Ok(ready["peer_id"].as_str().unwrap_or_default().to_owned())
    }

    /// Its first address, whole.
    pub async fn address(&self) -> Result<String, ChildError> {
        let listening = self.wait("listening", |_| true).await?;
        Ok(listening["address"].as_str().unwrap_or_default().to_owned())
    }

    /// Send a message and wait until it is on the receiver's disk. Returns its id.
    pub async fn deliver(&mut self, to: &str, text: &str) -> Result<String, ChildError> {
        let mark = self.mark();
        let data = self.ask(&format!("msg {to} {}", Value::from(text))).await?;
        let id = data["id"].as_str().unwrap_or_default().to_owned();
        self.wait_since(mark, PATIENCE, "delivery", |event| {
            event["id"] == id.as_str() && event["state"] == "delivered"
        })
        .await?;
        Ok(id)
    }

    /// The process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.id()
    }

    /// End it with SIGKILL, as a crash would.
    pub async fn kill(&mut self) -> Result<(), ChildError> {
        self.process.kill().await.map_err(|error| ChildError(format!("{} cannot be killed: {error}", self.name)))
    }

    /// Have it say goodbye and end; its exit status.
    pub async fn quit(&mut self) -> Result<ExitStatus, ChildError> {
        self.write(b"quit\n").await?;
        self.ended().await
    }

    /// Wait until it has ended by itself; its exit status.
    pub async fn ended(&mut self) -> Result<ExitStatus, ChildError> {
        let ended = tokio::time::timeout(PATIENCE, self.process.wait()).await;
        match ended {
            Ok(Ok(status)) => Ok(status),
            Ok(Err(error)) => Err(ChildError(format!("{}: {error}", self.name))),
            Err(_) => Err(ChildError(format!("{} did not end in {} s", self.name, PATIENCE.as_secs()))),
        }
    }
}

/// The variables of the environment that would set up a child otherwise than its arguments say.
pub(super) fn foreign_settings() -> impl Iterator<Item = OsString> {
    let sets = |name: &OsString| {
        let name = name.to_string_lossy();
        let other = ["CONNECTION_TIMEOUT", "MAX_RETRIES", "GOSSIP_INTERVAL", "DISABLE_GOSSIP", "HEALTH_CHECK_INTERVAL"];
        name.starts_with("ALTHING_") || other.contains(&name.as_ref())
    };
    std::env::vars_os().map(|(name, _)| name).filter(sets)
}

mod parking {
    //! The events of one child, which several waiters may search while more come in.

    use std::sync::{Mutex, PoisonError};

    use serde_json::Value;
    use tokio::sync::watch;

    /// Grows until the child ends; children live for minutes, not months.
    #[derive(Debug)]
    pub(super) struct Log {
        events: Mutex<Vec<Value>>,
        /// How many there are, and whether no more will come.
        news: watch::Sender<(usize, bool)>,
    }

    impl Default for Log {
        fn default() -> Self {
            Self { events: Mutex::default(), news: watch::Sender::new((0, false)) }
        }
    }

    impl Log {
        pub(super) fn push(&self, event: Value) {
            let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
            events.push(event);
            self.news.send_modify(|news| news.0 = events.len());
        }

        pub(super) fn close(&self) {
            self.news.send_modify(|news| news.1 = true);
        }

        pub(super) fn len(&self) -> usize {
            self.events.lock().unwrap_or_else(PoisonError::into_inner).len()
        }

        pub(super) fn since(&self, mark: usize) -> Vec<Value> {
            self.events.lock().unwrap_or_else(PoisonError::into_inner).get(mark..).unwrap_or_default().to_vec()
        }

        /// Wait until there are more than `mark`; false when the child ended before.
        pub(super) async fn grows(&self, mark: usize) -> bool {
            let mut news = self.news.subscribe();
            let grown = news.wait_for(|(seen, closed)| *seen > mark || *closed).await;
            grown.is_ok_and(|news| news.0 > mark)
        }

        /// The first one that fits; `None` when the child ended without it.
        pub(super) async fn first(&self, mut mark: usize, fits: impl Fn(&Value) -> bool) -> Option<Value> {
            let mut news = self.news.subscribe();
            loop {
                let (seen, closed) = *news.borrow_and_update();
                let found = {
                    let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
                    events.get(mark..).unwrap_or_default().iter().find(|event| fits(event)).cloned()
                };
                if found.is_some() {
                    return found;
                }
                mark = mark.max(seen);
                if closed || news.changed().await.is_err() {
                    return None;
                }
            }
        }
    }
}
