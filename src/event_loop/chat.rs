//! Messages: from the command to the outbox, the link, the receipt; and from a link to the disk and the screen.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use direct_message::{Message, MessageId, NotStored, Settled, Stored};
use libp2p::PeerId;
use peer_exchange::Subject;
use rand::Rng;

use super::peers::fail;
use super::{Answer, EventLoop, Parked, timestamp, wall_ms};
use crate::api::{
    ApiError, Command, DeliveryState, ErrorCode, Event, HistoryQuery, MAX_TEXT_BYTES, MessageKind, OutboxRow, Reply,
};
use crate::network::{dialer, seeds};
use crate::storage::{self, HistoryFilter, Incoming, NewMessage, Settle, StorageError};

/// Receivers of waiting messages are looked up again this often at the latest; the pick between the two keeps nodes apart.
const CHASE_INTERVAL: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(15));

/// Receivers looked up in one round; the others have their turn in the next ones.
const CHASED_AT_ONCE: usize = 32;

/// How often the outbox is searched for what has expired.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(60);

/// Work that has come back from the storage thread.
pub(crate) enum Done {
    /// A message is in the outbox, or not.
    Queued {
        to: PeerId,
        answer: Answer,
        result: Result<storage::Queued, StorageError>,
    },
    /// A part of the outbox for one peer.
    Window {
        peer: PeerId,
        result: Result<storage::Window, StorageError>,
    },
    /// Receipts are on disk.
    Settled {
        peer: PeerId,
        settled: Vec<(storage::MessageId, Settle)>,
        result: Result<Vec<storage::MessageId>, StorageError>,
    },
    /// A batch of received messages is on disk, or not.
    Received {
        peer: PeerId,
        token: direct_message::Token,
        messages: Vec<Message>,
        result: Result<Vec<(storage::MessageId, bool)>, StorageError>,
    },
    /// Messages have expired.
    Expired {
        result: Result<Vec<(PeerId, storage::MessageId)>, StorageError>,
    },
    /// The answer to a command.
    Replied {
        answer: Answer,
        reply: Result<Reply, StorageError>,
    },
    /// The rows for `outbox`, which lack what only the loop knows.
    OutboxRows {
        answer: Answer,
        result: Result<Vec<storage::Waiting>, StorageError>,
    },
    /// An own broadcast is on disk, or not.
    Said {
        id: String,
        answer: Option<Answer>,
        result: Result<bool, StorageError>,
    },
    /// Somebody's broadcast is on disk, or not; whether it was new there.
    Heard {
        heard: Box<super::everybody::Heard>,
        result: Result<bool, StorageError>,
    },
    /// Something nobody waits for.
    Saved(Result<(), StorageError>),
    /// Where a message stands.
    State {
        answer: Answer,
        id: String,
        result: Result<Option<storage::StoredState>, StorageError>,
    },
    /// What `status` counts on disk.
    Examined {
        answer: Answer,
        result: Result<Option<u64>, StorageError>,
    },
    Counted {
        answer: Answer,
        result: Result<storage::Counts, StorageError>,
    },
    /// The identity of a seed is pinned.
    Pinned {
        address: String,
        result: Result<PeerId, StorageError>,
    },
}

impl EventLoop {
    pub(super) fn chat_command(&mut self, command: Command, answer: Answer) {
        match command {
            Command::SendMessage { ref text, .. } if text.len() > MAX_TEXT_BYTES => {
                let why = format!("the text has {} bytes, the most is {MAX_TEXT_BYTES}", text.len());
                fail(answer, ErrorCode::Usage, why);
            }
            Command::SendMessage { ref text, .. } if text.is_empty() => {
                fail(answer, ErrorCode::Usage, "there is no text; an example is: msg bob hello".to_owned());
            }
            Command::SendMessage { ref to, .. } => {
                // A message must not overtake an earlier one that still waits to learn whom that word means.
                let same =
                    |parked: &&Parked| matches!(&parked.command, Command::SendMessage { to: other, .. } if other == to);
                if let Some(awaited) = self.parked.iter().find(same).map(|parked| parked.awaited.clone()) {
                    return self.park(awaited, command, answer);
                }
                if let Some((peer, Command::SendMessage { text, .. }, answer)) = self.resolve(command, answer, false) {
                    match self.refuses(&peer) {
                        Some(error) => drop(answer.send(Err(error))),
                        None => self.queue(peer, text, answer),
                    }
                }
            }
            Command::History(query) if query.peer.is_some() => {
                if let Some((peer, Command::History(query), answer)) =
                    self.resolve(Command::History(query), answer, true)
                {
                    self.history(Some(peer), query, answer);
                }
            }
            Command::History(query) => self.history(None, query, answer),
            Command::Outbox => self.storage.outbox(|result| Done::OutboxRows { answer, result }),
            Command::MessageState { id } => match id.parse::<MessageId>() {
                Ok(message) if self.in_flight.contains(&message) => {
                    let _ = answer.send(Ok(Reply::Delivery { id, state: DeliveryState::Sent }));
                }
                Ok(message) => self.storage.message_state(message.0, |result| Done::State { answer, id, result }),
                Err(_) => {
                    fail(answer, ErrorCode::Usage, format!("'{id}' is no message id; an id has 32 hexadecimal digits"))
                }
            },
            _ => fail(answer, ErrorCode::General, "not a command about messages".to_owned()),
        }
    }

    fn queue(&mut self, to: PeerId, text: String, answer: Answer) {
        let now_ms = wall_ms();
        let expiry = u64::try_from(self.config.message_expiry.as_millis()).unwrap_or(u64::MAX);
        let id = MessageId(self.rng.random());
        let new = NewMessage {
            id: id.0,
            to,
            from: self.local,
            name: self.config.name.clone(),
            team: self.config.team.clone(),
            text,
            sent_at_ms: now_ms,
            expires_at_ms: now_ms.saturating_add(expiry),
        };
        let message = Message {
            id,
            from: new.from,
            to,
            seq: 0,
            sent_at_ms: new.sent_at_ms,
            expires_at_ms: new.expires_at_ms,
            name: new.name.clone(),
            team: new.team.clone(),
            text: new.text.clone(),
        };
        let key = self.key.clone();
        // The number is known only inside the transaction, so the signature is made there, off this task.
        let sign = move |seq| Message { seq, ..message }.sign(&key).map_err(|error| error.to_string());
        self.storage.queue_message(new, Box::new(sign), move |result| Done::Queued { to, answer, result });
    }

    fn history(&mut self, peer: Option<PeerId>, query: HistoryQuery, answer: Answer) {
        let filter = HistoryFilter { peer, limit: query.limit, search: query.search, since: query.since };
        self.storage.history(filter, |result| Done::Replied { answer, reply: result.map(Reply::History) });
    }

    pub(super) fn handle_done(&mut self, done: Done) {
        let now = Instant::now();
        match done {
            Done::Queued { to, answer, result: Ok(queued) } => {
                let id = MessageId(queued.id).to_string();
                let _ = answer.send(Ok(Reply::Started { id: id.clone() }));
                self.emit(Event::Delivery { id, to: to.to_base58(), state: DeliveryState::Queued, reason: None });
                *self.waiting.entry(to).or_default() += 1;
                let message =
                    direct_message::Outgoing { id: MessageId(queued.id), seq: queued.seq, envelope: queued.envelope };
                self.swarm.behaviour_mut().direct_message.queued(to, message);
                if !self.swarm.behaviour().peer_exchange.is_up(&to) {
                    self.chase(to, now);
                }
            }
            Done::Queued { answer, result: Err(error), .. } => {
                let error = ApiError::from(error);
                fail(answer, error.code, format!("the message was not taken: {}", error.message));
            }
            Done::Window { peer, result } => {
                let window = result.unwrap_or_else(|error| {
                    self.storage_trouble("the outbox cannot be read", &error);
                    // No message, but more of them: that says that the disk failed, and the question is put again later.
                    storage::Window { messages: Vec::new(), more: true, damaged: Vec::new() }
                });
                if !window.damaged.is_empty() {
                    let settled: Vec<(storage::MessageId, Settle)> =
                        window.damaged.iter().map(|id| (*id, Settle::Failed("damaged on disk".to_owned()))).collect();
                    let told = settled.clone();
                    self.storage.settle(peer, settled, move |result| Done::Settled { peer, settled: told, result });
                }
                let outgoing = |row: storage::Outgoing| direct_message::Outgoing {
                    id: MessageId(row.id),
                    seq: row.seq,
                    envelope: row.envelope,
                };
                let messages = window.messages.into_iter().map(outgoing).collect();
                self.swarm.behaviour_mut().direct_message.refilled(peer, messages, window.more);
            }
            Done::Settled { peer, settled, result: Ok(changed) } => self.on_settled(peer, settled, &changed, now),
            Done::Settled { peer, settled, result: Err(error) } => {
                // The receipts are lost, the messages are not: they are sent again and acknowledged again.
                self.storage_trouble(&format!("{} receipts could not be stored", settled.len()), &error);
                for (id, _) in settled {
                    self.in_flight.remove(&MessageId(id));
                }
                self.swarm.behaviour_mut().direct_message.pending(peer);
            }
            Done::Received { peer, token, messages, result } => self.on_stored(peer, token, messages, result),
            Done::Expired { result: Ok(expired) } => {
                for (peer, id) in expired {
                    let id = MessageId(id);
                    self.swarm.behaviour_mut().direct_message.forget(peer, id);
                    self.settled_one(peer, now);
                    self.in_flight.remove(&id);
                    let reason = Some("expired".to_owned());
                    self.emit(Event::Delivery {
                        id: id.to_string(),
                        to: peer.to_base58(),
                        state: DeliveryState::Failed,
                        reason,
                    });
                }
            }
            Done::Expired { result: Err(error) } | Done::Saved(Err(error)) => {
                self.storage_trouble("the database could not be written", &error)
            }
            Done::Replied { answer, reply } => {
                let _ = answer.send(reply.map_err(ApiError::from));
            }
            Done::State { answer, id, result } => {
                let unknown = || ApiError::new(ErrorCode::Usage, format!("no message of this node has the id {id}"));
                let state = result.map_err(ApiError::from).and_then(|state| state.ok_or_else(unknown));
                let _ = answer.send(state.map(|stored| Reply::Delivery { id: id.clone(), state: stored.state }));
            }
            Done::Said { id, answer, result } => self.on_said(id, answer, result),
            Done::Heard { heard, result } => self.on_heard(*heard, result),
            Done::Examined { answer, result } => {
                let free = result.unwrap_or_else(|error| {
                    tracing::debug!("the disk could not be looked at: {error}");
                    None
                });
                let _ = answer.send(Ok(Reply::Doctor(self.findings(free))));
            }
            Done::Counted { answer, result } => {
                let status = result.map(|counts| Reply::Status(Box::new(self.status(counts))));
                let _ = answer.send(status.map_err(ApiError::from));
            }
            Done::Pinned { address, result } => self.on_pinned(&address, result),
            Done::OutboxRows { answer, result } => {
                let rows = result.map(|rows| rows.into_iter().map(|row| self.outbox_row(row)).collect());
                let _ = answer.send(rows.map(Reply::Outbox).map_err(ApiError::from));
            }
            Done::Saved(Ok(())) => {}
        }
    }

    pub(super) fn on_direct_message(&mut self, event: direct_message::Event) {
        use direct_message::Event;
        match event {
            Event::Sent { peer, ids } => {
                for id in ids {
                    // One that has expired meanwhile is told no more.
                    if self.waiting.contains_key(&peer) {
                        self.in_flight.insert(id);
                        self.delivery(peer, id, DeliveryState::Sent, None);
                    }
                }
            }
            Event::Requeued { peer, ids, reason } => {
                for id in ids {
                    self.in_flight.remove(&id);
                    self.delivery(peer, id, DeliveryState::Queued, Some(reason.to_string()));
                }
            }
            Event::Settled { peer, receipts } => {
                let settled: Vec<(storage::MessageId, Settle)> = receipts
                    .into_iter()
                    .map(|(id, how)| match how {
                        Settled::Delivered => (id.0, Settle::Delivered),
                        Settled::Failed(reason) => (id.0, Settle::Failed(reason.to_string())),
                    })
                    .collect();
                let told = settled.clone();
                self.storage.settle(peer, settled, move |result| Done::Settled { peer, settled: told, result });
            }
            Event::Refill { peer, after_seq, limit, max_bytes } => {
                self.storage.window(peer, after_seq, limit, max_bytes, move |result| Done::Window { peer, result });
            }
            // Nobody is heard before the hello has told who it is, nor while the disk is behind; the sender tries again.
            Event::Received { peer, token, .. }
                if !self.storage.has_room() || !self.swarm.behaviour().peer_exchange.is_up(&peer) =>
            {
                self.answer_batch(token, Vec::new());
            }
            Event::Received { peer, token, messages } if !self.may_store(peer, &messages) => {
                self.fault(peer, &"daily-quota");
                self.answer_batch(
                    token,
                    messages.iter().map(|message| (message.id, Stored::No(NotStored::TryLater))).collect(),
                );
            }
            Event::Received { peer, token, messages } => {
                let received_at_ms = wall_ms();
                let incoming = messages
                    .iter()
                    .map(|message| (message, self.honest_name(&message.from, &message.name, &message.team)))
                    .map(|(message, (name, team))| Incoming {
                        id: message.id.0,
                        from: message.from,
                        to: message.to,
                        name,
                        team,
                        text: message.text.clone(),
                        sent_at_ms: message.sent_at_ms,
                        expires_at_ms: message.expires_at_ms,
                        received_at_ms,
                        seq: message.seq,
                    })
                    .collect();
                self.storage.receive(peer, incoming, move |result| Done::Received { peer, token, messages, result });
            }
            Event::Fault { peer, kind } => self.fault(peer, &kind),
        }
    }

    fn on_settled(
        &mut self,
        peer: PeerId,
        settled: Vec<(storage::MessageId, Settle)>,
        changed: &[storage::MessageId],
        now: Instant,
    ) {
        let changed: BTreeSet<&storage::MessageId> = changed.iter().collect();
        for (id, how) in settled {
            let was_waiting = changed.contains(&id);
            let id = MessageId(id);
            self.in_flight.remove(&id);
            if !was_waiting {
                continue;
            }
            self.settled_one(peer, now);
            match how {
                Settle::Delivered => {
                    self.saw(peer, reputation::Evidence::MessageDelivered, now);
                    self.delivery(peer, id, DeliveryState::Delivered, None);
                }
                Settle::Failed(reason) => self.delivery(peer, id, DeliveryState::Failed, Some(reason)),
            }
        }
    }

    /// Messages are acknowledged after they are on disk, and shown once.
    fn on_stored(
        &mut self,
        peer: PeerId,
        token: direct_message::Token,
        messages: Vec<Message>,
        result: Result<Vec<(storage::MessageId, bool)>, StorageError>,
    ) {
        let outcomes = match &result {
            Ok(stored) => stored.iter().map(|(id, _)| (MessageId(*id), Stored::Yes)).collect(),
            Err(error) => {
                self.storage_trouble("received messages could not be stored, so they were not acknowledged", error);
                messages.iter().map(|message| (message.id, Stored::No(NotStored::TryLater))).collect()
            }
        };
        self.answer_batch(token, outcomes);
        let news: BTreeSet<storage::MessageId> =
            result.unwrap_or_default().into_iter().filter(|(_, new)| *new).map(|(id, _)| id).collect();
        for message in messages {
            if !news.contains(&message.id.0) {
                continue;
            }
            let (name, team) = self.honest_name(&message.from, &message.name, &message.team);
            self.emit(Event::Message {
                id: message.id.to_string(),
                kind: MessageKind::Direct,
                from: message.from.to_base58(),
                name,
                team,
                text: message.text,
                sent_at: timestamp(message.sent_at_ms),
                seq: message.seq,
                via: peer.to_base58(),
            });
        }
    }

    fn may_store(&mut self, peer: PeerId, messages: &[Message]) -> bool {
        let trusted = self.directory.get(&peer).is_some_and(|entry| entry.trusted);
        let bytes = messages.iter().map(|message| message.text.len() + message.name.len() + message.team.len()).sum();
        trusted || self.quota.admit(peer, messages.len(), bytes, Instant::now())
    }

    /// The name and team that a message bears, unless the name is another peer's: then those on its author's card.
    pub(super) fn honest_name(&self, author: &PeerId, name: &str, team: &str) -> (String, String) {
        match self.directory.get(author) {
            Some(entry) if entry.name() != name && self.directory.is_taken(name, author) => {
                (entry.name().to_owned(), entry.team().to_owned())
            }
            _ => (name.to_owned(), team.to_owned()),
        }
    }

    fn answer_batch(&mut self, token: direct_message::Token, outcomes: Vec<(MessageId, Stored)>) {
        if let Err(error) = self.swarm.behaviour_mut().direct_message.stored(token, outcomes) {
            tracing::error!("a batch was answered twice: {error}");
        }
    }

    pub(super) fn chat_timeout(&mut self, now: Instant) {
        if self.next_expiry <= now {
            self.next_expiry = now + EXPIRY_INTERVAL;
            self.registering.clear();
            self.storage.expire(wall_ms(), |result| Done::Expired { result });
            let keep = self.config.keep_broadcasts;
            let age_ms = u64::try_from(self.config.keep_broadcasts_for.as_millis()).unwrap_or(u64::MAX);
            self.storage.prune_broadcasts(keep, wall_ms().saturating_sub(age_ms), Done::Saved);
            self.save_standings();
        }
        if self.next_chase <= now {
            self.next_chase = now + self.rng.random_range(CHASE_INTERVAL.0..CHASE_INTERVAL.1);
            let up = |peer: &PeerId| self.swarm.behaviour().peer_exchange.is_up(peer);
            let absent: Vec<PeerId> = self.waiting.keys().filter(|peer| !up(peer)).copied().collect();
            // Begin behind where the last round ended, so that everybody has a turn.
            let begin = absent.partition_point(|peer| self.last_chased.is_some_and(|last| *peer <= last));
            let round = absent[begin..].iter().chain(&absent[..begin]).take(CHASED_AT_ONCE);
            for peer in round.copied().collect::<Vec<_>>() {
                self.last_chased = Some(peer);
                self.chase(peer, now);
            }
        }
    }

    /// Look for somebody whom a message waits for: where it was last, at the seeds, and among the neighbours.
    pub(super) fn chase(&mut self, peer: PeerId, now: Instant) {
        self.dialer.handle_input(dialer::Input::Wanted(peer), now);
        self.seeds.handle_input(seeds::Input::LookNow, now);
        self.swarm.behaviour_mut().peer_exchange.lookup(Subject::Peer(peer));
    }

    fn settled_one(&mut self, peer: PeerId, now: Instant) {
        let Some(left) = self.waiting.get_mut(&peer) else { return };
        *left = left.saturating_sub(1);
        if *left == 0 {
            self.waiting.remove(&peer);
            self.dialer.handle_input(dialer::Input::Unwanted(peer), now);
        }
    }

    fn delivery(&self, peer: PeerId, id: MessageId, state: DeliveryState, reason: Option<String>) {
        self.emit(Event::Delivery { id: id.to_string(), to: peer.to_base58(), state, reason });
    }

    fn outbox_row(&self, row: storage::Waiting) -> OutboxRow {
        let id = MessageId(row.id);
        let sent = self.in_flight.contains(&id);
        OutboxRow {
            id: id.to_string(),
            to: row.to.to_base58(),
            name: self.directory.get(&row.to).map(|entry| entry.name().to_owned()).unwrap_or_default(),
            text: row.text,
            sent_at: row.sent_at,
            expires_at: row.expires_at,
            state: if sent { DeliveryState::Sent } else { DeliveryState::Queued },
            reason: row.reason,
        }
    }

    pub(super) fn storage_trouble(&self, what: &str, error: &StorageError) {
        let message = format!("{what}: {error}");
        tracing::warn!("{message}");
        self.emit(Event::Error { code: ErrorCode::Storage, message });
    }
}
