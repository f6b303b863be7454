//! The control socket: other programs of the same user talk to the running node.
//!
//! JSON lines both ways over a Unix socket that only its owner can open. A client sends `{"cmd":"…"}` with an optional
//! `id`, or `{"follow":true}`, or `{"snapshot":true}`; with `"text":true` it wants people's text beside the data. It gets
//! the same lines that `--json` prints. Each client has a session of its own; a slow one gets `lagged`, and nobody else
//! notices.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio::net::unix::OwnedReadHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::introduce;
use super::lines::{RawLine, Splitter};
use super::output::{Output, Style};
use super::session::{Flow, Session};
use crate::api::{ApiError, Command, ErrorCode, Event, PeerState, Reply, Stamped, StatusInfo, Via};
use crate::handle::Handle;

/// Clients at the same time; one more waits until another has gone.
const MAX_CLIENTS: u32 = 64;

/// How long a node that has stopped waits for its clients to take the last lines.
const LAST_LINES: Duration = Duration::from_secs(1);

/// The server; it ends and its socket goes when this is dropped.
#[derive(Debug)]
pub struct Control {
    path: PathBuf,
    task: JoinHandle<()>,
    places: Arc<Semaphore>,
}

impl Control {
    /// Take no further client and let those who are there read to the node's last event, but not for ever.
    pub async fn end(self) {
        self.task.abort();
        let _ = tokio::time::timeout(LAST_LINES, self.places.acquire_many(MAX_CLIENTS)).await;
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

/// What a client sends.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Request {
    cmd: Option<String>,
    follow: bool,
    snapshot: bool,
    text: bool,
}

/// Serve the socket at `path`. The caller holds the data dir, so that a socket which is there already belongs to a node that
/// is dead.
pub fn serve(handle: Handle, path: &Path) -> std::io::Result<Control> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    let places = Arc::new(Semaphore::new(MAX_CLIENTS as usize));
    let free = Arc::clone(&places);
    let task = tokio::spawn(async move {
        loop {
            let Ok(place) = Arc::clone(&free).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let handle = handle.clone();
                    tokio::spawn(async move {
                        client(handle, stream).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    // Out of file descriptors, most likely: give others time to go.
                    tracing::warn!("a control client could not be accepted: {error}");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    });
    Ok(Control { path: path.to_owned(), task, places })
}

async fn client(handle: Handle, stream: UnixStream) {
    let (reader, writer) = stream.into_split();
    let mut lines = SocketLines { reader, splitter: Splitter::default(), ready: Vec::new().into_iter() };
    let Some(first) = lines.next().await else { return };
    // The first line decides how this client wants to read.
    let text = matches!(&first, RawLine::Text(line) if request(line).text);
    let output = Output::start(if text { Style::JsonWithText } else { Style::Json }, writer);
    introduce(&handle, &output).await;
    let mut session = Session::new(handle.clone(), output.clone(), true);
    let mut ended = handle.subscribe();
    let mut next = Some(first);
    while let Some(line) = next {
        let request = match &line {
            RawLine::Text(line) => request(line),
            RawLine::TooLong | RawLine::NotUtf8 => Request::default(),
        };
        if request.follow {
            let events = handle.subscribe();
            snapshot(&handle, &output).await;
            tokio::select! {
                () = output.follow(events) => {}
                // Nothing more is expected of a follower; its end of the line is its farewell.
                _ = lines.next() => {}
            }
            break;
        } else if request.snapshot {
            snapshot(&handle, &output).await;
            break;
        } else {
            let executed = super::stdin::execute(&mut session, line).await;
            if executed.flow == Flow::Quit {
                break;
            }
        }
        next = tokio::select! {
            next = lines.next() => next,
            () = output.closed() => None,
            () = super::stdin::bye(&mut ended) => None,
        };
    }
    output.flush().await;
}

fn request(line: &str) -> Request {
    serde_json::from_str(line).unwrap_or_default()
}

/// What stands now, as the events that would have told it.
async fn snapshot(handle: &Handle, output: &Output) {
    let now = |event: Event| Stamped { n: 0, at: Timestamp::now(), event: event.into() };
    if let Ok(Reply::Status(status)) = handle.execute(Command::Status).await {
        let StatusInfo { peer_id, name, team, role, data_dir, version, addresses, .. } = *status;
        output.event(now(Event::Ready { peer_id, name, team, role, data_dir, version })).await;
        for address in addresses {
            output.event(now(Event::Listening { address })).await;
        }
    }
    if let Ok(Reply::Peers(peers)) = handle.execute(Command::Peers).await {
        for peer in peers.into_iter().filter(|peer| peer.state == PeerState::Up) {
            let (address, via) = (peer.address.unwrap_or_default(), peer.via.unwrap_or(Via::Dial));
            output.event(now(Event::PeerUp { peer: peer.peer, name: peer.name, team: peer.team, address, via })).await;
        }
    }
}

struct SocketLines {
    reader: OwnedReadHalf,
    splitter: Splitter,
    ready: std::vec::IntoIter<RawLine>,
}

impl SocketLines {
    /// The next line; `None` at the end. Cancelling it loses nothing.
    async fn next(&mut self) -> Option<RawLine> {
        let mut buffer = [0; 16 * 1024];
        loop {
            if let Some(line) = self.ready.next() {
                return Some(line);
            }
            let read = self.reader.read(&mut buffer).await.unwrap_or(0);
            if read == 0 {
                return self.splitter.finish();
            }
            let mut lines = Vec::new();
            self.splitter.push(&buffer[..read], &mut lines);
            self.ready = lines.into_iter();
        }
    }
}

/// The socket's other end: connect, or say that no node runs.
pub(super) async fn connect(path: &Path) -> Result<UnixStream, ApiError> {
    UnixStream::connect(path).await.map_err(|error| {
        let why = match error.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
                "no node runs on this data dir; start one with `node`, or name its folder with --data-dir".to_owned()
            }
            _ => format!("the running node cannot be reached through {}: {error}", path.display()),
        };
        ApiError::new(ErrorCode::NotRunning, why)
    })
}
