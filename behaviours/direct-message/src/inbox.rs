//! The receiver's side: batches are checked, handed to the disk, and acknowledged when the disk has them.
//!
//! A batch passes these gates, in this order: its size; a free hand (one batch a peer, [`MAX_BATCHES`] in all); the
//! peer's rate, which lets a first part through; then each message's signature, author, receiver and times. What
//! remains goes out as [`Output::Store`], and the response waits for [`Input::Stored`].
//!
//! The sender's order survives: from the first message that is `busy` on, every message of the batch that was meant
//! for the disk is answered `busy` too, so that none is settled before an earlier one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use libp2p::PeerId;

use crate::config::Config;
use crate::message::{Message, MessageError, MessageId, peek_id};
use crate::protocol::{Batch, FaultKind, MAX_BATCH_BYTES, MAX_BATCH_MESSAGES, Outcome, Receipt, Receipts, Refusal};

/// Most batches that wait for the disk, over all peers: at most 64 x 512 KiB of messages. Beyond it everybody is
/// answered `busy`.
pub const MAX_BATCHES: usize = 64;

/// Most peers whose rate is remembered, some 100 bytes each. A peer that paused long enough to have its whole burst
/// again is forgotten first; when all are active, a further peer is answered `busy`.
pub const MAX_PEERS: usize = 4_096;

/// How far a message's times may lie ahead of the own clock, in milliseconds: ten years. Clocks differ; this only
/// keeps nonsense out of the history.
pub const MAX_AHEAD_MS: u64 = 10 * 366 * 24 * 60 * 60 * 1_000;

/// A peer that comes again sooner than this after it was told to slow down is flooding, in microseconds. Less than half
/// of [`RETRY_INITIAL`](crate::config::RETRY_INITIAL), so that no peer that backs off is taken for one.
const FLOOD_WITHIN_MICROS: u128 = 100_000;

/// The name of an inbound request, given by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InboundNumber(pub u64);

/// The name of a batch that waits for the disk, never used twice in the life of an inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token(pub u64);

/// What the disk did with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// It is durably on disk, now or since earlier.
    Yes,
    /// It is not.
    No(NotStored),
}

/// Why a message was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotStored {
    /// The disk is full or too slow, or the application is not ready; the sender will try again.
    TryLater,
    /// The application does not want it; the sender gives it up.
    Refused(Refusal),
}

/// The inbox was called wrongly. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No batch of that name waits for the disk.
    #[error("no batch of that token waits for the disk")]
    UnknownToken,
}

/// What may happen to an inbox.
#[derive(Clone, Debug)]
pub enum Input {
    /// A batch arrived.
    Batch {
        /// The connected peer that sent it.
        peer: PeerId,
        /// The caller's name for the request.
        request: InboundNumber,
        /// As received.
        batch: Batch,
        /// The own clock, in milliseconds since 1970 (UTC).
        wall_ms: u64,
    },
    /// The disk has answered an [`Output::Store`].
    Stored {
        /// Which one.
        token: Token,
        /// What became of each message; one that is left out counts as [`NotStored::TryLater`].
        outcomes: Vec<(MessageId, Stored)>,
    },
}

/// What an inbox wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Store the messages durably and in this order, stopping at the first that fails for the time being; answer with
    /// [`Input::Stored`] in any case. A message that is on disk already (same author, same id) counts as stored.
    Store {
        /// The peer that sent them, who is their author.
        peer: PeerId,
        /// The name of the batch.
        token: Token,
        /// Checked, addressed to us, not expired, no id twice.
        messages: Vec<Message>,
    },
    /// Answer a request.
    Respond {
        /// Which one.
        request: InboundNumber,
        /// The answer.
        receipts: Receipts,
    },
    /// Let a request fail: there is nothing to answer.
    Reject {
        /// Which one.
        request: InboundNumber,
    },
    /// The peer broke the protocol. At most one of a kind for each batch.
    Fault {
        /// Who.
        peer: PeerId,
        /// How.
        kind: FaultKind,
    },
}

/// The batches of all peers on their way to the disk.
#[derive(Debug)]
pub struct Inbox {
    local: PeerId,
    config: Config,
    peers: BTreeMap<PeerId, Peer>,
    in_hand: BTreeMap<Token, InHand>,
    outputs: VecDeque<Output>,
    next_token: u64,
}

#[derive(Debug)]
struct Peer {
    messages: Bucket,
    bytes: Bucket,
    in_hand: bool,
    /// When it was last told to slow down.
    slowed_at: Option<Instant>,
}

#[derive(Debug)]
struct InHand {
    peer: PeerId,
    request: InboundNumber,
    /// In the batch's order; `None` waits for the disk.
    outcomes: Vec<(MessageId, Option<Outcome>)>,
}

impl Inbox {
    /// An inbox for messages to `local`.
    pub fn new(local: PeerId, config: Config) -> Self {
        Self {
            local,
            config,
            peers: BTreeMap::new(),
            in_hand: BTreeMap::new(),
            outputs: VecDeque::new(),
            next_token: 0,
        }
    }

    /// Tell what happened. Ask for outputs afterwards.
    ///
    /// # Errors
    /// A token that waits for nothing; nothing has changed then.
    pub fn handle_input(&mut self, input: Input, now: Instant) -> Result<(), Error> {
        match input {
            Input::Batch { peer, request, batch, wall_ms } => {
                self.on_batch(peer, request, &batch, wall_ms, now);
                Ok(())
            }
            Input::Stored { token, outcomes } => self.on_stored(token, &outcomes),
        }
    }

    /// An inbox has no timers: this does nothing.
    pub fn handle_timeout(&mut self, _now: Instant) {}

    /// An inbox has no timers: always `None`.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// The next thing wanted; ask until `None` after every input.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn on_batch(&mut self, peer: PeerId, request: InboundNumber, batch: &Batch, wall_ms: u64, now: Instant) {
        if let Some(kind) = misshapen(batch) {
            self.outputs.push_back(Output::Fault { peer, kind });
            self.outputs.push_back(Output::Reject { request });
            return;
        }
        self.make_room_for(peer, now);
        let all_hands_full =
            self.in_hand.len() >= MAX_BATCHES || self.peers.len() >= MAX_PEERS && !self.peers.contains_key(&peer);
        if all_hands_full || self.peers.get(&peer).is_some_and(|state| state.in_hand) {
            self.answer_busy(peer, request, batch);
            return;
        }
        let config = &self.config;
        let state = self.peers.entry(peer).or_insert_with(|| Peer {
            messages: Bucket::full(config.messages_per_second, config.message_burst, now),
            bytes: Bucket::full(config.bytes_per_second, config.byte_burst, now),
            in_hand: false,
            slowed_at: None,
        });
        let admitted = state.admit(batch, now);
        if admitted < batch.messages.len() {
            let again = state.slowed_at.replace(now);
            if again.is_some_and(|at| now.saturating_duration_since(at).as_micros() < FLOOD_WITHIN_MICROS) {
                self.outputs.push_back(Output::Fault { peer, kind: FaultKind::Flood });
            }
        }

        let mut seen = BTreeSet::new();
        let mut faults = BTreeSet::new();
        let mut outcomes = Vec::new();
        let mut messages = Vec::new();
        for (index, envelope) in batch.messages.iter().enumerate() {
            let (id, outcome) = if index >= admitted {
                match peek_id(envelope) {
                    Some(id) => (id, Some(Outcome::Busy)),
                    None => {
                        faults.insert(FaultKind::BadMessage(Refusal::Malformed));
                        continue;
                    }
                }
            } else {
                match self.check(peer, envelope, wall_ms) {
                    Ok(message) if message.expires_at_ms < wall_ms => (message.id, Some(Outcome::Expired)),
                    Ok(message) => {
                        let id = message.id;
                        if !seen.contains(&id) {
                            messages.push(message);
                        }
                        (id, None)
                    }
                    Err(refusal) => {
                        faults.insert(FaultKind::BadMessage(refusal));
                        let Some(id) = peek_id(envelope) else { continue };
                        (id, Some(Outcome::Refused(refusal)))
                    }
                }
            };
            if seen.insert(id) {
                outcomes.push((id, outcome));
            }
        }
        self.outputs.extend(faults.into_iter().map(|kind| Output::Fault { peer, kind }));

        if messages.is_empty() {
            let outcomes = outcomes.into_iter().filter_map(|(id, outcome)| Some((id, outcome?)));
            self.respond(request, outcomes.collect());
            return;
        }
        let token = Token(self.next_token);
        self.next_token += 1;
        if let Some(state) = self.peers.get_mut(&peer) {
            state.in_hand = true;
        }
        self.in_hand.insert(token, InHand { peer, request, outcomes });
        self.outputs.push_back(Output::Store { peer, token, messages });
    }

    fn on_stored(&mut self, token: Token, stored: &[(MessageId, Stored)]) -> Result<(), Error> {
        let InHand { peer, request, outcomes } = self.in_hand.remove(&token).ok_or(Error::UnknownToken)?;
        if let Some(state) = self.peers.get_mut(&peer) {
            state.in_hand = false;
        }
        let stored: BTreeMap<MessageId, Stored> = stored.iter().copied().collect();
        let mut busy = false;
        let receipts = outcomes.into_iter().map(|(id, outcome)| {
            let outcome = outcome.unwrap_or_else(|| match stored.get(&id) {
                Some(Stored::Yes) if !busy => Outcome::Stored,
                Some(Stored::No(NotStored::Refused(refusal))) => Outcome::Refused(*refusal),
                _ => Outcome::Busy,
            });
            busy |= outcome == Outcome::Busy;
            (id, outcome)
        });
        let receipts = receipts.collect();
        self.respond(request, receipts);
        Ok(())
    }

    fn respond(&mut self, request: InboundNumber, outcomes: Vec<(MessageId, Outcome)>) {
        self.outputs.push_back(if outcomes.is_empty() {
            Output::Reject { request }
        } else {
            let receipts = outcomes.into_iter().map(|(id, outcome)| Receipt { id, outcome }).collect();
            Output::Respond { request, receipts: Receipts { receipts } }
        });
    }

    fn answer_busy(&mut self, peer: PeerId, request: InboundNumber, batch: &Batch) {
        let ids: BTreeSet<MessageId> = batch.messages.iter().filter_map(|envelope| peek_id(envelope)).collect();
        if batch.messages.iter().any(|envelope| peek_id(envelope).is_none()) {
            self.outputs.push_back(Output::Fault { peer, kind: FaultKind::BadMessage(Refusal::Malformed) });
        }
        self.respond(request, ids.into_iter().map(|id| (id, Outcome::Busy)).collect());
    }

    fn check(&self, peer: PeerId, envelope: &[u8], wall_ms: u64) -> Result<Message, Refusal> {
        let message = Message::decode(envelope).map_err(|error| match error {
            MessageError::Signature | MessageError::KeyType | MessageError::WrongKey => Refusal::Signature,
            MessageError::Time => Refusal::Time,
            MessageError::TooLong { .. } | MessageError::Malformed(_) | MessageError::Seq => Refusal::Malformed,
        })?;
        if message.from != peer {
            return Err(Refusal::Author);
        }
        if message.to != self.local {
            return Err(Refusal::Receiver);
        }
        let latest = wall_ms.saturating_add(MAX_AHEAD_MS);
        if message.sent_at_ms > latest || message.expires_at_ms > latest {
            return Err(Refusal::Time);
        }
        Ok(message)
    }

    /// Forget peers that could start afresh without gaining anything, when there are too many.
    fn make_room_for(&mut self, peer: PeerId, now: Instant) {
        if self.peers.len() >= MAX_PEERS && !self.peers.contains_key(&peer) {
            self.peers.retain(|_, state| state.in_hand || !state.is_rested(now));
        }
    }
}

impl Peer {
    /// How many messages of the batch, from its beginning, the peer may hand us now; they are paid for.
    fn admit(&mut self, batch: &Batch, now: Instant) -> usize {
        self.messages.fill(now);
        self.bytes.fill(now);
        batch
            .messages
            .iter()
            .take_while(|envelope| {
                let bytes = envelope.len() as u64;
                let admitted = self.messages.holds(1) && self.bytes.holds(bytes);
                if admitted {
                    self.messages.take(1);
                    self.bytes.take(bytes);
                }
                admitted
            })
            .count()
    }

    fn is_rested(&mut self, now: Instant) -> bool {
        self.messages.fill(now) && self.bytes.fill(now)
    }
}

/// A token bucket; a token is worth a million, so that slow rates add up too.
#[derive(Debug)]
struct Bucket {
    per_second: u64,
    capacity: u64,
    level: u64,
    filled_at: Instant,
}

const TOKEN: u64 = 1_000_000;

impl Bucket {
    fn full(per_second: u32, burst: u32, now: Instant) -> Self {
        let capacity = u64::from(burst) * TOKEN;
        Self { per_second: u64::from(per_second), capacity, level: capacity, filled_at: now }
    }

    /// Add what has come since; whether it is full now.
    fn fill(&mut self, now: Instant) -> bool {
        let micros = now.saturating_duration_since(self.filled_at).as_micros();
        let gained = u64::try_from(micros).unwrap_or(u64::MAX).saturating_mul(self.per_second);
        self.level = self.level.saturating_add(gained).min(self.capacity);
        self.filled_at = self.filled_at.max(now);
        self.level == self.capacity
    }

    fn holds(&self, tokens: u64) -> bool {
        self.level >= tokens * TOKEN
    }

    fn take(&mut self, tokens: u64) {
        self.level = self.level.saturating_sub(tokens * TOKEN);
    }
}

fn misshapen(batch: &Batch) -> Option<FaultKind> {
    let bytes: usize = batch.messages.iter().map(|envelope| envelope.len()).sum();
    if batch.messages.is_empty() {
        Some(FaultKind::EmptyBatch)
    } else if bytes > MAX_BATCH_BYTES || batch.messages.len() > MAX_BATCH_MESSAGES {
        Some(FaultKind::OversizeBatch)
    } else {
        None
    }
}
