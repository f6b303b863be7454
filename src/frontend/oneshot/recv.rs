//! `node recv`: wait for one transfer, take it, and stay until it is over.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::OneShot;
use super::client::quoted;
use super::follow::{Conversation, Direction, Next, Seen, State, failed};
use super::progress::{Progress, size};
use super::send::ask;
use crate::api::{ApiError, ErrorCode};
use crate::frontend::render::safe::safe;

/// Files of an offer that are listed one by one.
const LISTED: usize = 100;

/// Whose transfer is taken, and where it goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recv {
    /// Only this peer's: a nickname, a PeerId or a beginning of one, or an address with `/p2p/…`.
    pub from: Option<String>,
    /// Where to put it; `None` is the node's download folder.
    pub out: Option<PathBuf>,
}

/// Take one transfer through the node of that socket and follow it to the end; the exit status.
pub async fn recv(socket: &Path, what: Recv, shown: OneShot) -> u8 {
    match run(socket, what, shown).await {
        Ok(status) => status,
        Err(error) => failed(&error),
    }
}

async fn run(socket: &Path, what: Recv, shown: OneShot) -> Result<u8, ApiError> {
    let out = what.out.as_deref().map(whole).transpose()?;
    let mut node = Conversation::begin(socket, shown).await?;
    let from = what.from.as_deref();
    let rows = Seen::rows(node.asked.data("transfers").await?);
    let mut open: Vec<Seen> = rows.into_iter().filter(|row| is_ours(row, from)).collect();
    // What is under way goes before what waits for an answer.
    open.sort_by_key(|row| row.state == State::Offered);
    let mut found = None;
    for row in open {
        if row.state != State::Offered {
            if row.is_paused_here() {
                node.asked.data(&format!("resume {}", row.id)).await?;
            }
            found = Some(row.id);
            break;
        }
        say(&format!("{} offers {} ({})", row.who(), safe(&row.file), size(row.total)));
        if take(&mut node, &row.id, from, out.as_deref()).await? {
            found = Some(row.id);
            break;
        }
    }
    let id = match found {
        Some(id) => id,
        None => {
            tell_where(&mut node, shown).await?;
            loop {
                let concern = |event: &Value| event["type"] == "offer";
                let event = match node.next(None, concern).await? {
                    Next::Event(event) => event,
                    Next::Interrupted(status) => return Ok(status),
                    Next::Late => continue,
                };
                if event["type"] == "bye" {
                    return Err(super::client::stopped());
                }
                if event["type"] != "offer" || !fits(from, text(&event, "from"), text(&event, "name")) {
                    continue;
                }
                tell(&event);
                let id = text(&event, "id").to_owned();
                if take(&mut node, &id, from, out.as_deref()).await? {
                    break id;
                }
            }
        }
    };
    node.follow(&id, Progress::new(shown), &[]).await
}

/// Accept an offer; false when the person does not want it.
async fn take(node: &mut Conversation, id: &str, from: Option<&str>, out: Option<&str>) -> Result<bool, ApiError> {
    // A node that takes everything has taken it already.
    if node.rows(id).await?.iter().any(|row| row.state != State::Offered) {
        return Ok(true);
    }
    let terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    if terminal && from.is_none() && !ask("Take it?").await {
        node.give(&format!("reject {id}")).await?;
        return Ok(false);
    }
    let line = match out {
        Some(out) => format!("accept {id} --out {}", quoted(out)),
        None => format!("accept {id}"),
    };
    match node.give(&line).await {
        Ok(_) => Ok(true),
        // Somebody was faster.
        Err(error) => {
            let taken = node.rows(id).await?.iter().any(|row| !matches!(row.state, State::Offered | State::Rejected));
            if taken { Ok(true) } else { Err(error) }
        }
    }
}

/// A folder that means the same to a node with another working folder.
fn whole(path: &Path) -> Result<String, ApiError> {
    let usage = |why: String| ApiError::new(ErrorCode::Usage, why);
    let shown = path.display();
    if path.exists() && !path.is_dir() {
        return Err(usage(format!("--out {shown} is no folder")));
    }
    let path = std::path::absolute(path).map_err(|error| usage(format!("--out {shown}: {error}")))?;
    path.into_os_string().into_string().map_err(|_| usage(format!("--out {shown}: the name is no UTF-8")))
}

fn is_ours(row: &Seen, from: Option<&str>) -> bool {
    row.direction == Direction::In && !row.state.is_final() && fits(from, &row.peer, &row.name)
}

/// Whether that peer is meant.
fn fits(from: Option<&str>, peer: &str, name: &str) -> bool {
    /// A beginning of a PeerId that says something; all begin with `12D3KooW`.
    const LEAST: usize = 9;
    from.is_none_or(|from| {
        name == from
            || from.rsplit_once("/p2p/").is_some_and(|(_, id)| id == peer)
            || from.len() >= LEAST && peer.starts_with(from)
    })
}

/// Everything that is offered.
fn tell(offer: &Value) {
    let files = offer["files"].as_array().map(Vec::as_slice).unwrap_or_default();
    let bytes = size(offer["bytes"].as_u64().unwrap_or_default());
    let who = text(offer, "name");
    say(&format!("{} offers {} ({bytes}):", safe(who), counted(files.len())));
    for file in files.iter().take(LISTED) {
        say(&format!("  {}  {}", safe(text(file, "path")), size(file["size"].as_u64().unwrap_or_default())));
    }
    if files.len() > LISTED {
        say(&format!("  … and {} more", files.len() - LISTED));
    }
}

fn counted(files: usize) -> String {
    if files == 1 { "1 file".to_owned() } else { format!("{files} files") }
}

/// Where a sender finds a node that nobody knows yet.
async fn tell_where(node: &mut Conversation, shown: OneShot) -> Result<(), ApiError> {
    if shown.own_node {
        let status = node.asked.data("status").await?;
        say(&format!("Waiting as {}, {}", safe(text(&status, "name")), safe(text(&status, "peer_id"))));
        for address in status["addresses"].as_array().into_iter().flatten() {
            say(&format!("  {}", safe(address.as_str().unwrap_or_default())));
        }
    } else {
        say("Waiting for an offer");
    }
    Ok(())
}

/// News on the way; stdout has what came of it.
fn say(text: &str) {
    eprintln!("{text}");
}

fn text<'a>(event: &'a Value, field: &str) -> &'a str {
    event[field].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_is_meant_by_name_id_or_address() {
        let peer = "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5";
        for (from, fitting) in [
            (None, true),
            (Some("ada"), true),
            (Some("bob"), false),
            (Some("12D3KooWK99"), true),
            (Some("12D3Koo"), false),
            (Some("12D3KooWX99"), false),
            (Some("/ip4/192.0.2.1/tcp/1/p2p/12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5"), true),
        ] {
            assert_eq!(fits(from, peer, "ada"), fitting, "{from:?}");
        }
    }
}
