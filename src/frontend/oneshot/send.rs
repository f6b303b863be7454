//! `node send`: offer files to peers and stay until it is over with each of them.

use std::io::{IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::OneShot;
use super::client::quoted;
use super::follow::{Conversation, failed, one_of};
use super::progress::Progress;
use crate::api::{ApiError, ErrorCode};
use crate::frontend::complain;
use crate::frontend::render::safe::safe;

/// How long a node that has just started may take to find a receiver.
const FIND: Duration = Duration::from_secs(15);

/// What is to be sent, and to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Send {
    /// Files and folders; relative ones are taken from the current folder.
    pub paths: Vec<PathBuf>,
    /// Receivers, as at the prompt.
    pub to: Vec<String>,
}

/// Send through the node of that socket and follow it to the end; the exit status. `spool` puts what it reads where that node
/// can send it from.
pub async fn send<F>(socket: &Path, what: Send, shown: OneShot, spool: F) -> u8
where
    F: FnOnce(&mut dyn std::io::Read) -> Result<PathBuf, ApiError> + std::marker::Send + 'static,
{
    match run(socket, what, shown, spool).await {
        Ok(status) => status,
        Err(error) => failed(&error),
    }
}

async fn run<F>(socket: &Path, what: Send, shown: OneShot, spool: F) -> Result<u8, ApiError>
where
    F: FnOnce(&mut dyn std::io::Read) -> Result<PathBuf, ApiError> + std::marker::Send + 'static,
{
    let (piped, named): (Vec<_>, Vec<_>) = what.paths.iter().partition(|path| path.as_os_str() == "-");
    let mut paths = named.into_iter().map(|path| whole(path)).collect::<Result<Vec<String>, ApiError>>()?;
    let mut node = Conversation::begin(socket, shown).await?;
    let (mut there, mut absent) = (Vec::new(), Vec::new());
    let deadline = Instant::now() + FIND;
    for peer in with_ports(&what.to) {
        match find(&mut node, &peer, shown.own_node.then_some(deadline)).await? {
            Found::There(id) if !there.contains(&id) => there.push(id),
            Found::There(_) => {}
            Found::Away(error) if shown.allow_queued && error.code == ErrorCode::Unreachable => there.push(peer),
            Found::Away(error) => absent.push((peer, error)),
            Found::Interrupted(status) => return Ok(status),
        }
    }
    let left_out: Vec<u8> = absent.iter().map(|(_, error)| error.code.exit_status()).collect();
    for (_, error) in &absent {
        complain(error);
    }
    if there.is_empty() {
        return Ok(one_of(&left_out));
    }
    if !absent.is_empty() && !proceed(there.len(), absent.len()).await {
        eprintln!("node: nothing was sent");
        return Ok(ErrorCode::Unreachable.exit_status());
    }
    if !piped.is_empty() {
        let spooled = tokio::task::spawn_blocking(move || spool(&mut std::io::stdin().lock()));
        let spooled = tokio::select! {
            spooled = spooled => spooled,
            status = node.signals.next() => return Ok(status),
        };
        let spooled = spooled.map_err(|_| ApiError::new(ErrorCode::General, "reading stdin was interrupted"))??;
        paths.push(whole(&spooled)?);
    }
    let words = paths.iter().map(|path| quoted(path)).collect::<Vec<_>>().join(" ");
    let peers = there.iter().map(|peer| quoted(peer)).collect::<Vec<_>>().join(" ");
    let queue = if shown.allow_queued { "--allow-queued " } else { "" };
    let sent = node.give(&format!("send {queue}{words} --to {peers}")).await?;
    if !shown.json {
        for skipped in sent["skipped"].as_array().into_iter().flatten() {
            let word = |field: &str| safe(skipped[field].as_str().unwrap_or_default()).into_owned();
            eprintln!("node: left out: {} {}", word("path"), word("reason"));
        }
    }
    let id = sent["id"].as_str().unwrap_or_default().to_owned();
    node.follow(&id, Progress::new(shown), &left_out).await
}

/// A path that means the same to a node with another working folder.
fn whole(path: &Path) -> Result<String, ApiError> {
    let usage = |why: String| ApiError::new(ErrorCode::Usage, why);
    let shown = path.display();
    std::fs::metadata(path).map_err(|error| usage(format!("{shown} cannot be sent: {error}")))?;
    let path = std::path::absolute(path).map_err(|error| usage(format!("{shown} cannot be sent: {error}")))?;
    path.into_os_string().into_string().map_err(|_| usage(format!("{shown} cannot be sent: its name is no UTF-8")))
}

/// Receivers in one word each: `host port` becomes `host:port`.
fn with_ports(words: &[String]) -> Vec<String> {
    let mut peers: Vec<String> = Vec::new();
    for word in words {
        match peers.last_mut() {
            Some(host) if word.parse::<u16>().is_ok() && !host.contains(['/', ':']) => {
                host.push(':');
                host.push_str(word);
            }
            _ => peers.push(word.clone()),
        }
    }
    peers
}

enum Found {
    /// With a link, by this PeerId.
    There(String),
    Away(ApiError),
    Interrupted(u8),
}

/// Dial a receiver. A node that is new waits for it to come up until `patience`.
async fn find(node: &mut Conversation, peer: &str, patience: Option<Instant>) -> Result<Found, ApiError> {
    let mut last = None;
    loop {
        let connect = format!("connect {}", quoted(peer));
        let connected = tokio::select! {
            connected = node.asked.data(&connect) => connected,
            status = node.signals.next() => return Ok(Found::Interrupted(status)),
        };
        let error = match connected {
            Ok(info) => return Ok(Found::There(info["peer"].as_str().unwrap_or(peer).to_owned())),
            Err(error) if error.code == ErrorCode::NotRunning => return Err(error),
            Err(error) => error,
        };
        let left = patience.map(|until| until.saturating_duration_since(Instant::now())).unwrap_or_default();
        if left.is_zero() || last.is_some() || !matches!(error.code, ErrorCode::NoSuchPeer | ErrorCode::Unreachable) {
            return Ok(Found::Away(last.unwrap_or(error)));
        }
        let wait = format!("wait peer {} --timeout {:.1}", quoted(peer), left.as_secs_f64());
        tokio::select! {
            // Whether it came up or not is seen when it is dialled once more.
            _ = node.asked.data(&wait) => {}
            status = node.signals.next() => return Ok(Found::Interrupted(status)),
        }
        last = Some(error);
    }
}

/// Whether to send to those who are there. Only a person is asked.
async fn proceed(there: usize, absent: usize) -> bool {
    if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        return true;
    }
    ask(&format!("{absent} cannot be reached. Send to the other {there}?")).await
}

/// A question on the terminal; anything but yes is no.
pub(super) async fn ask(question: &str) -> bool {
    eprint!("{question} [y/N] ");
    let _ = std::io::stderr().flush();
    let answer = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map(|_| line)
    });
    matches!(answer.await, Ok(Ok(line)) if matches!(line.trim().to_lowercase().as_str(), "y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port_are_one_receiver() {
        for (words, peers) in [
            (&["bob"][..], &["bob"][..]),
            (&["192.0.2.1", "4001"], &["192.0.2.1:4001"]),
            (&["bob", "192.0.2.1", "4001", "cleo"], &["bob", "192.0.2.1:4001", "cleo"]),
            (&["192.0.2.1:4001", "4002"], &["192.0.2.1:4001", "4002"]),
        ] {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            assert_eq!(with_ports(&words), peers);
        }
    }
}
