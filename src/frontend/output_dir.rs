//! `--output-dir`: the files that the seed projects wrote, kept up to date from the node's events.
//!
//! `output_<port>.txt` of a peer holds every message and gossip line it saw and, every so often, its peer list;
//! `output_seed.txt` of a seed holds every peer that linked up. Gossip lines have the seed projects' form
//! `<1133> <port> <time> <count>` for own ones and `<1155> …` for those of others, with who began it and who handed it
//! over behind it. A peer begins ten numbered gossip messages with its first link.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use tokio::fs::{File, OpenOptions};
use tokio::io::AsyncWriteExt;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::render::safe::safe;
use crate::api::{Command, Event, PeerState, Reply, Role, Stamped};
use crate::handle::Handle;

/// Peers whose ports are remembered; the lines of others have a 0.
const MAX_PORTS: usize = 10_000;

/// The gossip that begins with the first link (E7: ten of them, five seconds apart).
const GOSSIP: Command = Command::GossipStart { count: 10, every: Duration::from_secs(5) };

/// Write the files until the node has ended. Trouble with the folder is logged once and ends the writing, not the node.
pub async fn keep_output_dir(
    handle: Handle,
    events: Receiver<Stamped>,
    folder: PathBuf,
    role: Role,
    peer_list_every: Duration,
) {
    if let Err(error) = keep(handle, events, &folder, role, peer_list_every).await {
        tracing::warn!("{} cannot be written, the files in it end here: {error}", folder.display());
    }
}

async fn keep(
    handle: Handle,
    mut events: Receiver<Stamped>,
    folder: &Path,
    role: Role,
    peer_list_every: Duration,
) -> std::io::Result<()> {
    tokio::fs::create_dir_all(folder).await?;
    let mut files = Files { folder, role, own: String::new(), port: String::new(), ports: BTreeMap::new(), file: None };
    // What was told before this began to listen.
    if let Ok(Reply::Status(status)) = handle.execute(Command::Status).await {
        files.own = status.peer_id;
        for address in status.addresses {
            files.event(&Event::Listening { address }).await?;
        }
    }
    let mut list = tokio::time::interval(peer_list_every);
    let mut gossiping = false;
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            _ = list.tick(), if role == Role::Peer && files.file.is_some() => {
                if let Ok(Reply::Peers(peers)) = handle.execute(Command::Peers).await {
                    let up = peers.iter().filter(|peer| peer.state == PeerState::Up && peer.role == Role::Peer);
                    let names: Vec<String> = up.map(|peer| safe(&peer.name).into_owned()).collect();
                    files.line(&format!("peers {}: {}", names.len(), names.join(" "))).await?;
                }
                continue;
            }
        };
        match event {
            Ok(stamped) => {
                files.event(&stamped.event).await?;
                match &*stamped.event {
                    Event::PeerUp { .. } if role == Role::Peer && !gossiping => {
                        gossiping = true;
                        // A node that is about to stop refuses; then there is nothing to gossip about.
                        let _ = handle.execute(GOSSIP).await;
                    }
                    Event::Bye { .. } => return Ok(()),
                    _ => {}
                }
            }
            Err(RecvError::Lagged(missed)) => files.line(&format!("({missed} events were missed)")).await?,
            Err(RecvError::Closed) => return Ok(()),
        }
    }
}

struct Files<'a> {
    folder: &'a Path,
    role: Role,
    own: String,
    port: String,
    /// The ports of those with a link, for the lines about probes.
    ports: BTreeMap<String, String>,
    /// Opened with the first address, whose port names it.
    file: Option<File>,
}

impl Files<'_> {
    async fn event(&mut self, event: &Event) -> std::io::Result<()> {
        match event {
            Event::Listening { address } if self.file.is_none() => {
                self.port = address.split('/').nth(4).unwrap_or("0").to_owned();
                let name = match self.role {
                    Role::Seed => "output_seed.txt".to_owned(),
                    Role::Peer => format!("output_{}.txt", self.port),
                };
                let path = self.folder.join(name);
                self.file = Some(OpenOptions::new().create(true).append(true).open(path).await?);
                self.line(&format!("listening {address}")).await?;
            }
            Event::PeerUp { peer, name, address, .. } => {
                if self.ports.len() < MAX_PORTS {
                    self.ports.insert(peer.clone(), address.split('/').nth(4).unwrap_or("0").to_owned());
                }
                self.line(&format!("connected {} {address}", safe(name))).await?;
            }
            Event::Probe { peer, rtt_ms, .. } => {
                // The answer bears the ports of both, the question that of the one who asked.
                let (now, own) = (Timestamp::now().as_second(), &self.port);
                let other = self.ports.get(peer).map_or("0", String::as_str);
                let lines = format!("<1144> <{now}> <{other}> <{own}> from {peer} after {rtt_ms:.1} ms");
                self.line(&format!("<1122> <{now}> <{own}> to {peer}")).await?;
                self.line(&lines).await?;
            }
            Event::PeerDead { name, reporters, .. } => {
                self.line(&format!("dead {} reported by {}", safe(name), reporters.join(" "))).await?;
            }
            Event::PeerLeft { name, .. } => self.line(&format!("left {}", safe(name))).await?,
            Event::PeerLost { name, .. } => self.line(&format!("lost {}", safe(name))).await?,
            Event::Message { kind, name, team, text, via, .. } => {
                let kind = if *kind == crate::api::MessageKind::Broadcast { "broadcast" } else { "direct" };
                let (name, team, text) = (safe(name), safe(team), safe(text));
                self.line(&format!("{kind} {name} (team {team}) via {via}: {text}")).await?;
            }
            Event::Gossip { origin, via, count, sent_at } => {
                let code = if *origin == self.own { "<1133>" } else { "<1155>" };
                let seconds = sent_at.as_second();
                self.line(&format!("{code} <{}> <{seconds}> <{count}> origin {origin} via {via}", self.port)).await?;
            }
            _ => {}
        }
        Ok(())
    }

    async fn line(&mut self, line: &str) -> std::io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        file.write_all(format!("{:.3} {line}\n", Timestamp::now()).as_bytes()).await?;
        file.flush().await
    }
}
