//! The sender's side: what is on the own disk goes to its receiver in order, until a receipt or the expiry settles it.
//!
//! The disk is the truth and belongs to the application; here is a window on it. For a peer without a link nothing is
//! kept but the knowledge that its messages wait. For a peer with a link the window holds the next messages in order
//! of their sequence numbers; its first part may be in flight, as one request:
//!
//! ```text
//!   disk:  … settled … | in flight (one batch) | waiting | … not loaded (`more_on_disk`) …
//!                      |<------- window ------>|        ^ last_loaded
//! ```
//!
//! *Order.* A message is sent only when every earlier one of the window is settled or in the same batch. `busy` in the
//! middle of a batch puts that message and all behind it back, whatever their receipts say.
//! *Nothing is lost.* Whatever does not fit, or comes while a refill is under way, sets `more_on_disk`, and the window
//! is refilled from the disk once half of it is free.
//! *Nothing hangs.* A request has a deadline here too, should its answer never be reported.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::time::Instant;

use libp2p::PeerId;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::config::Config;
use crate::message::MessageId;
use crate::protocol::{Batch, FaultKind, MAX_BATCH_BYTES, MAX_BATCH_MESSAGES, Outcome, Receipt, Refusal};

mod window;

use window::{Link, Refill};

/// Most messages in memory for one peer with a link, those in flight included. Twice [`MAX_BATCH_MESSAGES`], so that
/// the next batch is ready when the receipts of the last one come.
pub const WINDOW: usize = 2 * MAX_BATCH_MESSAGES;

/// Most bytes of envelopes in memory for one peer with a link. Twice [`MAX_BATCH_BYTES`].
pub const WINDOW_BYTES: usize = 2 * MAX_BATCH_BYTES;

/// A message of the outbox on disk: already signed, not yet settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Its name.
    pub id: MessageId,
    /// Its place in the order of messages to that peer; 1 or more.
    pub seq: u64,
    /// The bytes that [`Message::sign`](crate::Message::sign) gave.
    pub envelope: Vec<u8>,
}

/// The name of one request, never used twice in the life of an outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestNumber(pub u64);

/// Why a request brought no receipts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There was no link to send it on.
    NotConnected,
    /// The link closed. The batch may have arrived.
    LinkLost,
    /// No answer in time. The batch may have arrived.
    Timeout,
    /// The peer does not speak the protocol.
    Unsupported,
    /// The stream broke, or the answer could not be read.
    Stream,
}

/// Why messages went back from sent to queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requeue {
    /// The request failed.
    Failed(Failure),
    /// The receiver has no room or time for them now.
    Busy,
    /// The answer held no receipts for them.
    NoReceipt,
}

impl fmt::Display for Requeue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Failed(Failure::NotConnected) => "not-connected",
            Self::Failed(Failure::LinkLost) => "link-lost",
            Self::Failed(Failure::Timeout) => "timeout",
            Self::Failed(Failure::Unsupported) => "unsupported",
            Self::Failed(Failure::Stream) => "stream-broken",
            Self::Busy => "busy",
            Self::NoReceipt => "no-receipt",
        })
    }
}

/// How a message ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It is on the receiver's disk.
    Delivered,
    /// It never will be.
    Failed(Reason),
}

/// Why a message was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Its time was over when it reached the receiver.
    Expired,
    /// The receiver refused it.
    Refused(Refusal),
    /// The envelope is above [`MAX_ENVELOPE_BYTES`](crate::MAX_ENVELOPE_BYTES); it was never sent.
    TooLarge,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired => f.write_str("expired"),
            Self::Refused(refusal) => write!(f, "refused: {refusal}"),
            Self::TooLarge => f.write_str("too-large"),
        }
    }
}

/// What may happen to an outbox.
#[derive(Clone, Debug)]
pub enum Input {
    /// A new message is on disk.
    Queued {
        /// Its receiver.
        peer: PeerId,
        /// The message; its number is above all earlier ones to that peer.
        message: Outgoing,
    },
    /// Something for that peer is on disk, known from an earlier run.
    Pending {
        /// The receiver.
        peer: PeerId,
    },
    /// The answer to an [`Output::Refill`]: exactly one for each, in their order.
    Refilled {
        /// The receiver.
        peer: PeerId,
        /// The unsettled messages behind the number that was asked for, lowest first.
        messages: Vec<Outgoing>,
        /// Whether more lie behind them.
        more: bool,
    },
    /// A link to the peer stands and its hello has passed. Forgets earlier failures.
    PeerUp {
        /// The peer.
        peer: PeerId,
    },
    /// The last link to the peer is gone.
    PeerDown {
        /// The peer.
        peer: PeerId,
    },
    /// Receipts came.
    Answered {
        /// Who answered.
        peer: PeerId,
        /// Which request.
        request: RequestNumber,
        /// As received.
        receipts: Vec<Receipt>,
    },
    /// A request will not be answered.
    Failed {
        /// Who should have answered.
        peer: PeerId,
        /// Which request.
        request: RequestNumber,
        /// What happened.
        error: Failure,
    },
    /// The message was settled on disk without the network: it expired. Nothing is reported about it from now on.
    Forget {
        /// Its receiver.
        peer: PeerId,
        /// The message.
        id: MessageId,
    },
}

/// What an outbox wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a request over the link to that peer, and report what becomes of it.
    Send {
        /// The receiver.
        peer: PeerId,
        /// The name of the request.
        request: RequestNumber,
        /// The request.
        batch: Batch,
    },
    /// Read on from the disk; answered by [`Input::Refilled`].
    Refill {
        /// The receiver.
        peer: PeerId,
        /// Messages with higher numbers only; 0 is from the beginning.
        after_seq: u64,
        /// At most so many.
        limit: usize,
        /// At most so many bytes of envelopes, added up. Never less than one message may have.
        max_bytes: usize,
    },
    /// These messages were handed to the link. Follows the [`Output::Send`].
    Sent {
        /// The receiver.
        peer: PeerId,
        /// In their order.
        ids: Vec<MessageId>,
    },
    /// These messages came to their end. Once for each, unless the disk gives a message again.
    Settled {
        /// The receiver.
        peer: PeerId,
        /// In their order.
        receipts: Vec<(MessageId, Settled)>,
    },
    /// These messages were sent and wait again. Each will be reported as sent again or settled.
    Requeued {
        /// The receiver.
        peer: PeerId,
        /// In their order.
        ids: Vec<MessageId>,
        /// Why.
        reason: Requeue,
    },
    /// The peer broke the protocol.
    Fault {
        /// Who.
        peer: PeerId,
        /// How.
        kind: FaultKind,
    },
}

/// The window on the outboxes of all peers.
#[derive(Debug)]
pub struct Outbox {
    config: Config,
    rng: StdRng,
    /// Peers with a link.
    links: BTreeMap<PeerId, Link>,
    /// Peers without a link for which something waits on disk. As many as the disk has receivers, 40 bytes each.
    absent: BTreeSet<PeerId>,
    /// Refills whose peer went down before they were answered: so many answers are to be ignored.
    stale_refills: BTreeMap<PeerId, u32>,
    /// When each link wants to be looked at; holds `Link::timer` of every link.
    timers: BTreeSet<(Instant, PeerId)>,
    outputs: VecDeque<Output>,
    next_request: u64,
}

impl Outbox {
    /// An outbox that knows of no peer. The seed decides the jitter only.
    pub fn new(config: Config, rng_seed: u64) -> Self {
        Self {
            config,
            rng: StdRng::seed_from_u64(rng_seed),
            links: BTreeMap::new(),
            absent: BTreeSet::new(),
            stale_refills: BTreeMap::new(),
            timers: BTreeSet::new(),
            outputs: VecDeque::new(),
            next_request: 0,
        }
    }

    /// Tell what happened. Ask for outputs and the next timeout afterwards.
    pub fn handle_input(&mut self, input: Input, now: Instant) {
        match input {
            Input::Queued { peer, message } => self.on_queued(peer, message, now),
            Input::Pending { peer } => match self.links.get_mut(&peer) {
                Some(link) => {
                    link.more_on_disk = true;
                    self.advance(peer, now);
                }
                None => {
                    self.absent.insert(peer);
                }
            },
            Input::Refilled { peer, messages, more } => self.on_refilled(peer, messages, more, now),
            Input::PeerUp { peer } => {
                let pending = self.absent.remove(&peer);
                let link = self.links.entry(peer).or_default();
                link.more_on_disk |= pending;
                link.failures = 0;
                link.retry_at = None;
                link.refill_at = None;
                self.advance(peer, now);
            }
            Input::PeerDown { peer } => self.on_peer_down(peer),
            Input::Answered { peer, request, receipts } => self.on_answered(peer, request, &receipts, now),
            Input::Failed { peer, request, error } => self.on_failed(peer, request, error, now),
            Input::Forget { peer, id } => {
                let Some(link) = self.links.get_mut(&peer) else { return };
                link.forget(id);
                self.advance(peer, now);
            }
        }
    }

    /// Call at [`Outbox::poll_timeout`]; calling it earlier does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(at, peer)) = self.timers.first() {
            if at > now {
                return;
            }
            self.timers.pop_first();
            let Some(link) = self.links.get_mut(&peer) else { continue };
            link.timer = None;
            match &link.in_flight {
                Some(in_flight) if in_flight.deadline <= now => {
                    let request = in_flight.request;
                    self.on_failed(peer, request, Failure::Timeout, now);
                }
                _ => self.advance(peer, now),
            }
        }
    }

    /// When to call [`Outbox::handle_timeout`]. Changes with every input.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|&(at, _)| at)
    }

    /// The next thing wanted; ask until `None` after every input and timeout.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Messages and bytes of envelopes held in memory for a peer: at most [`WINDOW`] and [`WINDOW_BYTES`].
    pub fn held(&self, peer: &PeerId) -> (usize, usize) {
        self.links.get(peer).map_or((0, 0), |link| (link.window.len(), link.window_bytes))
    }

    fn on_queued(&mut self, peer: PeerId, message: Outgoing, now: Instant) {
        let Some(link) = self.links.get_mut(&peer) else {
            self.absent.insert(peer);
            return;
        };
        if let Some(refill) = &mut link.refill {
            refill.queued = refill.queued.max(message.seq);
            if message.seq <= link.last_loaded {
                refill.behind = Some(refill.behind.map_or(message.seq, |behind| behind.min(message.seq)));
            }
        } else if message.seq <= link.last_loaded {
            link.rewind(message.seq);
        } else if link.more_on_disk || !link.has_room(&message) {
            link.more_on_disk = true;
        } else if let Err(id) = link.load(message) {
            self.outputs.push_back(too_large(peer, id));
        }
        self.advance(peer, now);
    }

    fn on_refilled(&mut self, peer: PeerId, mut messages: Vec<Outgoing>, more: bool, now: Instant) {
        if let Some(stale) = self.stale_refills.get_mut(&peer) {
            *stale -= 1;
            if *stale == 0 {
                self.stale_refills.remove(&peer);
            }
            return;
        }
        let Some(link) = self.links.get_mut(&peer) else { return };
        let Some(refill) = link.refill.take() else { return };
        if more && messages.is_empty() {
            // The disk has trouble; asking again at once would spin.
            link.refill_at = Some(now + self.config.retry_initial);
        }
        link.more_on_disk = more;
        messages.sort_by_key(|message| message.seq);
        for message in messages {
            if message.seq <= link.last_loaded || link.window.iter().any(|held| held.id == message.id) {
                continue;
            }
            if !link.has_room(&message) {
                link.more_on_disk = true;
                break;
            }
            if let Err(id) = link.load(message) {
                self.outputs.push_back(too_large(peer, id));
            }
        }
        link.more_on_disk |= refill.queued > link.last_loaded;
        if let Some(seq) = refill.behind {
            link.rewind(seq);
        }
        self.advance(peer, now);
    }

    fn on_peer_down(&mut self, peer: PeerId) {
        let Some(mut link) = self.links.remove(&peer) else { return };
        if let Some(timer) = link.timer {
            self.timers.remove(&(timer, peer));
        }
        if link.refill.is_some() {
            *self.stale_refills.entry(peer).or_default() += 1;
        }
        let ids = link.land(0);
        if !link.window.is_empty() || link.more_on_disk || link.refill.is_some() {
            self.absent.insert(peer);
        }
        if !ids.is_empty() {
            self.outputs.push_back(Output::Requeued { peer, ids, reason: Requeue::Failed(Failure::LinkLost) });
        }
    }

    fn on_answered(&mut self, peer: PeerId, request: RequestNumber, receipts: &[Receipt], now: Instant) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        let Some(in_flight) = link.in_flight.as_ref().filter(|in_flight| in_flight.request == request) else {
            // The answer to a request that was given up; its messages went out again and will be answered again.
            return;
        };
        let sent: BTreeSet<MessageId> = link.window.iter().take(in_flight.count).map(|message| message.id).collect();
        let mut outcomes = BTreeMap::new();
        let (mut unknown, mut duplicate) = (false, false);
        for receipt in receipts {
            if !sent.contains(&receipt.id) {
                unknown = true;
            } else if let Entry::Vacant(entry) = outcomes.entry(receipt.id) {
                entry.insert(receipt.outcome);
            } else {
                duplicate = true;
            }
        }
        let missing = outcomes.len() < sent.len();

        let mut settled = Vec::new();
        let mut done = 0;
        let mut requeue = None;
        for message in link.window.iter().take(in_flight.count) {
            let end = match outcomes.get(&message.id) {
                Some(Outcome::Stored) => Settled::Delivered,
                Some(Outcome::Expired) => Settled::Failed(Reason::Expired),
                Some(Outcome::Refused(refusal)) => Settled::Failed(Reason::Refused(*refusal)),
                Some(Outcome::Busy) => {
                    requeue = Some(Requeue::Busy);
                    break;
                }
                None => {
                    requeue = Some(Requeue::NoReceipt);
                    break;
                }
            };
            done += 1;
            if !in_flight.forgotten.contains(&message.id) {
                settled.push((message.id, end));
            }
        }
        let ids = link.land(done);
        if done > 0 {
            link.failures = 0;
        }
        if requeue.is_some() {
            link.back_off(&self.config, &mut self.rng, now);
        }

        if !settled.is_empty() {
            self.outputs.push_back(Output::Settled { peer, receipts: settled });
        }
        if let Some(reason) = requeue.filter(|_| !ids.is_empty()) {
            self.outputs.push_back(Output::Requeued { peer, ids, reason });
        }
        for (happened, kind) in [
            (unknown, FaultKind::UnknownReceipt),
            (duplicate, FaultKind::DuplicateReceipt),
            (missing, FaultKind::MissingReceipt),
        ] {
            if happened {
                self.outputs.push_back(Output::Fault { peer, kind });
            }
        }
        self.advance(peer, now);
    }

    fn on_failed(&mut self, peer: PeerId, request: RequestNumber, error: Failure, now: Instant) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        if link.in_flight.as_ref().is_none_or(|in_flight| in_flight.request != request) {
            return;
        }
        let ids = link.land(0);
        link.back_off(&self.config, &mut self.rng, now);
        if !ids.is_empty() {
            self.outputs.push_back(Output::Requeued { peer, ids, reason: Requeue::Failed(error) });
        }
        self.advance(peer, now);
    }

    /// Do what is due for a peer and set its timer.
    fn advance(&mut self, peer: PeerId, now: Instant) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        if link.in_flight.is_none() && !link.window.is_empty() && is_due(&mut link.retry_at, now) {
            let request = RequestNumber(self.next_request);
            self.next_request += 1;
            // The inner protocol has the same timeout; it goes first, because it knows more.
            let deadline = now + self.config.request_timeout + self.config.request_timeout / 4;
            let (batch, ids) = link.take_off(request, deadline);
            self.outputs.push_back(Output::Send { peer, request, batch });
            self.outputs.push_back(Output::Sent { peer, ids });
        }
        let half_free = link.window.len() <= WINDOW / 2 && link.window_bytes <= WINDOW_BYTES / 2;
        if link.more_on_disk && link.refill.is_none() && half_free && is_due(&mut link.refill_at, now) {
            link.refill = Some(Refill::default());
            self.outputs.push_back(Output::Refill {
                peer,
                after_seq: link.last_loaded,
                limit: WINDOW - link.window.len(),
                max_bytes: WINDOW_BYTES - link.window_bytes,
            });
        }

        let deadline = link.in_flight.as_ref().map(|in_flight| in_flight.deadline);
        // What is due and was not done waits for something else than time.
        let retry_at = link.retry_at.filter(|&at| at > now && !link.window.is_empty());
        let refill_at = link.refill_at.filter(|&at| at > now);
        let timer = [deadline, retry_at, refill_at].into_iter().flatten().min();
        if timer != link.timer {
            if let Some(old) = link.timer {
                self.timers.remove(&(old, peer));
            }
            if let Some(new) = timer {
                self.timers.insert((new, peer));
            }
            link.timer = timer;
        }
    }
}

/// Whether a time was not set or has come, in which case it is cleared.
fn is_due(at: &mut Option<Instant>, now: Instant) -> bool {
    if at.is_some_and(|at| at > now) {
        return false;
    }
    *at = None;
    true
}

fn too_large(peer: PeerId, id: MessageId) -> Output {
    Output::Settled { peer, receipts: vec![(id, Settled::Failed(Reason::TooLarge))] }
}
