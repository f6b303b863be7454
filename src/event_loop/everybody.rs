//! Broadcasts and numbered gossip: from the command to the network, from the network to the disk and the screen.

use std::sync::Arc;
use std::time::{Duration, Instant};

use broadcast::{BroadcastId, Envelope, Kind, MessageId};
use libp2p::PeerId;

use super::peers::fail;
use super::{Answer, Done, EventLoop, timestamp, wall_ms};
use crate::api::{ApiError, Command, ErrorCode, Event, MAX_TEXT_BYTES, MessageKind, Reply, Role};
use crate::storage::{BroadcastRow, StorageError};

/// Numbered gossip that may run at the same time; one more is refused.
const MAX_GOSSIP: usize = 16;

/// A run of numbered gossip.
pub(super) struct Gossip {
    next: u32,
    count: u32,
    every: Duration,
    due: Instant,
}

/// A broadcast on its way to the disk.
pub(crate) struct Heard {
    envelope: Envelope,
    bytes: Arc<[u8]>,
    via: PeerId,
    backlog: bool,
}

impl EventLoop {
    pub(super) fn broadcast_command(&mut self, command: Command, answer: Answer) {
        match command {
            Command::Broadcast { text } if text.is_empty() || text.len() > MAX_TEXT_BYTES => {
                let why = format!("the text has {} bytes, it may have 1 to {MAX_TEXT_BYTES}", text.len());
                fail(answer, ErrorCode::Usage, why);
            }
            Command::Broadcast { text } => self.say_to_all(Kind::Text, text, Some(answer)),
            Command::GossipStart { .. } if self.gossip.len() >= MAX_GOSSIP => {
                fail(answer, ErrorCode::Usage, format!("{MAX_GOSSIP} runs of gossip go on already"));
            }
            Command::GossipStart { count, every } => {
                let due = Instant::now();
                self.gossip.push(Gossip { next: 1, count, every, due });
                let id = format!("gossip-{}", self.swarm.behaviour().broadcast.next_sequence());
                let _ = answer.send(Ok(Reply::Started { id }));
                self.gossip_timeout(due);
            }
            _ => fail(answer, ErrorCode::General, "not a command for everybody".to_owned()),
        }
    }

    /// Publish, and keep what was published, so that it can be handed on after a restart.
    fn say_to_all(&mut self, kind: Kind, text: String, answer: Option<Answer>) {
        let (name, team) = (self.config.name.clone(), self.config.team.clone());
        let published = self.swarm.behaviour_mut().broadcast.publish(kind, text.clone(), name, team, wall_ms());
        match published {
            Ok((BroadcastId { .. }, bytes)) => {
                // Own envelopes are decoded like others', so that a row has one origin.
                let Ok(envelope) = Envelope::decode_trusted(&bytes) else { return };
                let row = self.row(&envelope, &bytes);
                let id = MessageId::of(&bytes).to_string();
                self.storage.store_broadcast(row, move |result| Done::Said { id, answer, result });
            }
            Err(error) => {
                if let Some(answer) = answer {
                    fail(answer, ErrorCode::Usage, error.to_string());
                }
            }
        }
    }

    pub(super) fn on_said(&mut self, id: String, answer: Option<Answer>, result: Result<bool, StorageError>) {
        match (answer, result) {
            (Some(answer), Ok(_)) => {
                let neighbours = self.swarm.behaviour().broadcast.subscribers();
                let _ = answer.send(Ok(Reply::Said { id, neighbours }));
            }
            (Some(answer), Err(error)) => {
                let error = ApiError::from(error);
                fail(answer, error.code, format!("the broadcast went out but could not be stored: {}", error.message));
            }
            (None, Ok(_)) => {}
            (None, Err(error)) => self.storage_trouble("gossip could not be stored", &error),
        }
    }

    pub(super) fn gossip_timeout(&mut self, now: Instant) {
        let due: Vec<u32> = self
            .gossip
            .iter_mut()
            .filter(|gossip| gossip.due <= now)
            .map(|gossip| {
                let number = gossip.next;
                gossip.next += 1;
                gossip.due = now + gossip.every;
                number
            })
            .collect();
        self.gossip.retain(|gossip| gossip.next <= gossip.count);
        let own = self.local.to_base58();
        for count in due {
            self.say_to_all(Kind::Gossip { count }, String::new(), None);
            self.emit(Event::Gossip { origin: own.clone(), via: own.clone(), count, sent_at: timestamp(wall_ms()) });
        }
    }

    /// When the next numbered gossip is due.
    pub(super) fn next_gossip(&self) -> Option<Instant> {
        self.gossip.iter().map(|gossip| gossip.due).min()
    }

    pub(super) fn on_broadcast(&mut self, event: broadcast::Event) {
        match event {
            // A stranger's broadcasts fill the disk no more than its direct messages do.
            broadcast::Event::Received { envelope, bytes, .. } if !self.may_keep(&envelope.author, bytes.len()) => {
                self.fault(envelope.author, &"daily-quota");
            }
            broadcast::Event::Received { envelope, bytes, via, backlog } => {
                let row = self.row(&envelope, &bytes);
                let heard = Box::new(Heard { envelope, bytes, via, backlog });
                self.storage.store_broadcast(row, |result| Done::Heard { heard, result });
            }
            broadcast::Event::Gap { stream, from, to } => {
                self.emit(Event::Gap { from: stream.author.to_base58(), epoch: stream.epoch, first: from, last: to });
            }
            broadcast::Event::Fault { peer, kind, .. } => self.fault(peer, &kind),
        }
    }

    /// A broadcast is shown once it is on disk, and only if it was new there. A seed keeps and relays, but shows nothing.
    pub(super) fn on_heard(&mut self, heard: Heard, result: Result<bool, StorageError>) {
        let Heard { envelope, bytes, via, backlog } = heard;
        let new = result.unwrap_or_else(|error| {
            self.storage_trouble("a broadcast could not be stored", &error);
            true
        });
        if !new || backlog || self.config.role == Role::Seed {
            return;
        }
        let (from, via, sent_at) = (envelope.author.to_base58(), via.to_base58(), timestamp(envelope.sent_at_ms));
        match envelope.kind {
            Kind::Gossip { count } => self.emit(Event::Gossip { origin: from, via, count, sent_at }),
            Kind::Text => {
                let (name, team) = self.honest_name(&envelope.author, &envelope.name, &envelope.team);
                let id = MessageId::of(&bytes).to_string();
                let (kind, text, seq) = (MessageKind::Broadcast, envelope.text, envelope.sequence);
                self.emit(Event::Message { id, kind, from, name, team, text, sent_at, seq, via });
            }
        }
    }

    fn may_keep(&mut self, author: &PeerId, bytes: usize) -> bool {
        let trusted = self.directory.get(author).is_some_and(|entry| entry.trusted);
        trusted || *author == self.local || self.quota.admit(*author, 1, bytes, Instant::now())
    }

    fn row(&self, envelope: &Envelope, bytes: &Arc<[u8]>) -> BroadcastRow {
        let (name, team) = self.honest_name(&envelope.author, &envelope.name, &envelope.team);
        BroadcastRow {
            id: MessageId::of(bytes).0,
            author: envelope.author,
            own: envelope.author == self.local,
            epoch: envelope.epoch,
            sequence: envelope.sequence,
            name,
            team,
            text: (envelope.kind == Kind::Text).then(|| envelope.text.clone()),
            sent_at_ms: envelope.sent_at_ms,
            received_at_ms: wall_ms(),
            envelope: Arc::clone(bytes),
        }
    }
}
