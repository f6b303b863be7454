//! The window on the outbox of one peer with a link.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::StdRng;
use serde_bytes::ByteBuf;

use super::{Outgoing, RequestNumber, WINDOW, WINDOW_BYTES};
use crate::config::Config;
use crate::message::{MAX_ENVELOPE_BYTES, MessageId};
use crate::protocol::{Batch, MAX_BATCH_BYTES, MAX_BATCH_MESSAGES};

/// The window on one peer's outbox.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// By rising number. At most [`WINDOW`] and [`WINDOW_BYTES`].
    pub(super) window: VecDeque<Outgoing>,
    pub(super) window_bytes: usize,
    /// What the first messages of the window are part of.
    pub(super) in_flight: Option<InFlight>,
    /// The highest number that was in the window; a refill goes on behind it.
    pub(super) last_loaded: u64,
    pub(super) more_on_disk: bool,
    pub(super) refill: Option<Refill>,
    /// No refill before that time, because the last one brought nothing.
    pub(super) refill_at: Option<Instant>,
    /// Failures in a row.
    pub(super) failures: u32,
    /// No request before that time.
    pub(super) retry_at: Option<Instant>,
    pub(super) timer: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) request: RequestNumber,
    /// How many messages from the front of the window.
    pub(super) count: usize,
    pub(super) deadline: Instant,
    /// Those that are no longer of interest.
    pub(super) forgotten: BTreeSet<MessageId>,
}

#[derive(Debug, Default)]
pub(super) struct Refill {
    /// The highest number that was queued since it was asked for, and may be missing from the answer.
    pub(super) queued: u64,
    /// The lowest number that was queued since and lies before the part that was asked for.
    pub(super) behind: Option<u64>,
}

impl Link {
    pub(super) fn has_room(&self, message: &Outgoing) -> bool {
        self.window.len() < WINDOW && self.window_bytes.saturating_add(message.envelope.len()) <= WINDOW_BYTES
    }

    /// Put a message at the end of the window, or say that it can never be sent.
    pub(super) fn load(&mut self, message: Outgoing) -> Result<(), MessageId> {
        self.last_loaded = message.seq;
        if message.envelope.len() > MAX_ENVELOPE_BYTES {
            return Err(message.id);
        }
        self.window_bytes += message.envelope.len();
        self.window.push_back(message);
        Ok(())
    }

    /// A message with a number below the last one turned up: read that part of the disk again.
    pub(super) fn rewind(&mut self, seq: u64) {
        let in_flight = self.in_flight.as_ref().map_or(0, |in_flight| in_flight.count);
        let keep = self.window.iter().position(|message| message.seq >= seq).unwrap_or(self.window.len());
        self.window.truncate(keep.max(in_flight));
        self.window_bytes = self.window.iter().map(|message| message.envelope.len()).sum();
        self.last_loaded = seq.saturating_sub(1);
        self.more_on_disk = true;
    }

    /// The next batch: as many messages from the front as may go together, and at least one.
    pub(super) fn take_off(&mut self, request: RequestNumber, deadline: Instant) -> (Batch, Vec<MessageId>) {
        let (mut messages, mut ids, mut bytes) = (Vec::new(), Vec::new(), 0);
        for message in self.window.iter().take(MAX_BATCH_MESSAGES) {
            bytes += message.envelope.len();
            if bytes > MAX_BATCH_BYTES && !ids.is_empty() {
                break;
            }
            messages.push(ByteBuf::from(message.envelope.clone()));
            ids.push(message.id);
        }
        self.in_flight = Some(InFlight { request, count: ids.len(), deadline, forgotten: BTreeSet::new() });
        (Batch { messages }, ids)
    }

    /// Nothing is in flight any more: the first `done` messages leave the window, the others of the batch wait again,
    /// and their ids are returned.
    pub(super) fn land(&mut self, done: usize) -> Vec<MessageId> {
        let Some(in_flight) = self.in_flight.take() else { return Vec::new() };
        let waiting: Vec<_> = self.window.range(done..in_flight.count).map(|message| message.id).collect();
        self.window.drain(..done);
        self.window.retain(|message| !in_flight.forgotten.contains(&message.id));
        self.window_bytes = self.window.iter().map(|message| message.envelope.len()).sum();
        waiting.into_iter().filter(|id| !in_flight.forgotten.contains(id)).collect()
    }

    pub(super) fn forget(&mut self, id: MessageId) {
        let Some(index) = self.window.iter().position(|message| message.id == id) else { return };
        match &mut self.in_flight {
            Some(in_flight) if index < in_flight.count => {
                in_flight.forgotten.insert(id);
            }
            _ => {
                if let Some(message) = self.window.remove(index) {
                    self.window_bytes -= message.envelope.len();
                }
            }
        }
    }

    pub(super) fn back_off(&mut self, config: &Config, rng: &mut StdRng, now: Instant) {
        let factor = 2u32.saturating_pow(self.failures.min(31));
        let longest = config.retry_initial.saturating_mul(factor).min(config.retry_max);
        let micros = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX);
        self.retry_at = Some(now + Duration::from_micros(rng.random_range(micros / 2..=micros)));
        self.failures = self.failures.saturating_add(1);
    }
}
