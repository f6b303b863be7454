//! How much each peer may hand over and ask: token buckets.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use libp2p::PeerId;

use crate::config::Config;

/// Most peers whose rate is remembered, some 200 bytes each. Those that rest are forgotten first; when all are active, a
/// further peer is not admitted.
const MAX_PEERS: usize = 4_096;

/// A flood is told once in this time.
const COMPLAINT: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Rates {
    messages: (u32, u32),
    bytes: (u32, u32),
    questions: (u32, u32),
    peers: BTreeMap<PeerId, Rate>,
}

#[derive(Debug)]
struct Rate {
    messages: Bucket,
    bytes: Bucket,
    questions: Bucket,
    complained_at: Option<Instant>,
}

impl Rates {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            messages: (config.messages_per_second, config.message_burst),
            bytes: (config.bytes_per_second, config.byte_burst),
            questions: (config.questions_per_second, config.question_burst),
            peers: BTreeMap::new(),
        }
    }

    /// Whether the peer may hand over a message of so many bytes now; it is paid for.
    pub(super) fn admits_gossip(&mut self, peer: PeerId, bytes: usize, now: Instant) -> bool {
        let Some(rate) = self.rate(peer, now) else { return false };
        let bytes = bytes as u64;
        let admitted = rate.messages.holds(1) && rate.bytes.holds(bytes);
        if admitted {
            rate.messages.take(1);
            rate.bytes.take(bytes);
        }
        admitted
    }

    /// Whether the peer may ask now; it is paid for.
    pub(super) fn admits_question(&mut self, peer: PeerId, now: Instant) -> bool {
        let Some(rate) = self.rate(peer, now) else { return false };
        let admitted = rate.questions.holds(1);
        if admitted {
            rate.questions.take(1);
        }
        admitted
    }

    /// Whether it is time to tell of the peer's flood again.
    pub(super) fn may_complain(&mut self, peer: PeerId, now: Instant) -> bool {
        let Some(rate) = self.rate(peer, now) else { return false };
        let due = rate.complained_at.is_none_or(|at| now.saturating_duration_since(at) >= COMPLAINT);
        if due {
            rate.complained_at = Some(now);
        }
        due
    }

    fn rate(&mut self, peer: PeerId, now: Instant) -> Option<&mut Rate> {
        if self.peers.len() >= MAX_PEERS && !self.peers.contains_key(&peer) {
            self.peers.retain(|_, rate| !rate.fill(now));
            if self.peers.len() >= MAX_PEERS {
                return None;
            }
        }
        let rate = self.peers.entry(peer).or_insert_with(|| Rate {
            messages: Bucket::full(self.messages, now),
            bytes: Bucket::full(self.bytes, now),
            questions: Bucket::full(self.questions, now),
            complained_at: None,
        });
        rate.fill(now);
        Some(rate)
    }
}

impl Rate {
    /// Add what has come since; whether the peer could start afresh without gaining anything.
    fn fill(&mut self, now: Instant) -> bool {
        let full = [&mut self.messages, &mut self.bytes, &mut self.questions].map(|bucket| bucket.fill(now));
        full.into_iter().all(|full| full)
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
    fn full((per_second, burst): (u32, u32), now: Instant) -> Self {
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
